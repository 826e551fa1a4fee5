/*
 * What is in a store: states, and values that say by themselves what they are.
 */
#include "crash/power_model.h"

#include <stdio.h>
#include <string.h>

#include "lib/random.h"

bool is_counter(uint32_t tree, uint32_t key)
{
    return tree == 0 && key >= KEYS - COUNTERS;
}

size_t key_of(uint32_t key, char *to)
{
    /* Of several lengths, and some of them long. */
    int size = sprintf(to, "key%02u", key);
    for (uint32_t i = 0; i < (key % 4) * 9; i++) to[size++] = (char)('a' + key);
    return (size_t)size;
}

uint64_t state_hash(const struct state *state)
{
    uint64_t hash = 0;
    for (uint32_t t = 0; t < TREES; t++) {
        hash = random_mix(hash + state->exists[t]);
        for (uint32_t k = 0; k < KEYS; k++) hash = random_mix(hash ^ state->cells[t][k]);
    }
    return hash;
}

/* The low byte of a stamp is the class of its size. */
uint32_t value_size_of(uint64_t stamp)
{
    uint32_t mixed = (uint32_t)(random_mix(stamp) >> 32);
    switch (stamp & 3) {
    case 0: return 8 + mixed % 40;
    case 1: return 8 + mixed % 300;
    case 2: return 1000 + mixed % 2000;   /* up to what a frame holds */
    default: return 3000 + mixed % 37000; /* parts, of several segments */
    }
}

const uint8_t *value_of(uint64_t stamp, uint8_t *bytes)
{
    uint32_t size = value_size_of(stamp);
    uint64_t word = stamp;
    for (uint32_t at = 0; at < size; at += 8) {
        memcpy(bytes + at, &word, 8);
        word = word * 6364136223846793005u + stamp;
    }
    return bytes;
}

bool value_is(uint64_t stamp, const void *bytes, size_t size)
{
    static uint8_t right[MOST_VALUE];
    return size == value_size_of(stamp) && memcmp(value_of(stamp, right), bytes, size) == 0;
}
