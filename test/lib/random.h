/*
 * Random numbers for tests: one seed gives one stream, on every machine.
 *
 * Test library. xoshiro256** seeded through splitmix64. A stream belongs to one thread; threads of a test take streams
 * of their own with random_split, so that a run depends on its seed and on scheduling alone.
 */
#ifndef TEST_LIB_RANDOM_H
#define TEST_LIB_RANDOM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct random_stream {
    uint64_t word[4];
};

/* One step of splitmix64: also a good mixer of a number into an unrelated one. */
static inline uint64_t random_mix(uint64_t value)
{
    value += 0x9e3779b97f4a7c15u;
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
    return value ^ (value >> 31);
}

static inline void random_seed(struct random_stream *ret_stream, uint64_t seed)
{
    for (int i = 0; i < 4; i++)
        ret_stream->word[i] = random_mix(seed + (uint64_t)i * 0x9e3779b97f4a7c15u);
}

static inline uint64_t random_next(struct random_stream *stream)
{
    uint64_t *word = stream->word;
    uint64_t scaled = word[1] * 5;
    uint64_t result = ((scaled << 7) | (scaled >> 57)) * 9;
    uint64_t shifted = word[1] << 17;

    word[2] ^= word[0];
    word[3] ^= word[1];
    word[1] ^= word[2];
    word[0] ^= word[3];
    word[2] ^= shifted;
    word[3] = (word[3] << 45) | (word[3] >> 19);
    return result;
}

__extension__ typedef unsigned __int128 random_wide;

/* A number in [0, bound); 0 for bound 0. */
static inline uint64_t random_below(struct random_stream *stream, uint64_t bound)
{
    return bound == 0 ? 0 : (uint64_t)(((random_wide)random_next(stream) * bound) >> 64);
}

/* A number in [low, high], both included. */
static inline uint64_t random_between(struct random_stream *stream, uint64_t low, uint64_t high)
{
    return low + random_below(stream, high - low + 1);
}

/* True in about `percent` of 100 calls. */
static inline bool random_chance(struct random_stream *stream, unsigned percent)
{
    return random_below(stream, 100) < percent;
}

/* A stream for another thread or purpose, independent of what this one yields later. */
static inline struct random_stream random_split(struct random_stream *stream)
{
    struct random_stream other;
    random_seed(&other, random_next(stream));
    return other;
}

static inline void random_fill(struct random_stream *stream, void *memory, size_t size)
{
    uint8_t *to = (uint8_t *)memory;
    while (size != 0) {
        uint64_t word = random_next(stream);
        size_t part = size < sizeof(word) ? size : sizeof(word);
        memcpy(to, &word, part);
        to += part;
        size -= part;
    }
}

#endif
