/*
 * Keys and values of the benchmark: made from a key's index, and verified by it, at a cost that is small and the same
 * for every engine.
 *
 * Layer: bench. The structure is read-only once set up; any thread may use it.
 *
 * DATA-1  Stored keys have even numbers (2 * index), absent keys odd ones: they interleave, so a search for an absent
 *         key goes as deep as one for a stored key.
 * DATA-2  A value names its index in the first 8 bytes, its generation in the next one, and its last byte depends on
 *         both: a value of another key, a torn or a truncated one is noticed from two cache lines.
 */
#ifndef BENCH_DATA_H
#define BENCH_DATA_H

#include "random.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

enum bench_key_format {
    BENCH_KEY_BIG_ENDIAN, /* the number in 8 bytes (fewer if the key is smaller), most significant first; hash bytes */
    BENCH_KEY_DECIMAL,    /* "user:" (if the key has 16 bytes or more) and the number in decimal, zero-padded */
    BENCH_KEY_HASH        /* a 64-bit mix of the number in 8 bytes: keys spread evenly over their space; hash bytes */
};

enum {
    BENCH_MAX_KEY_SIZE_BYTES = 1024,
    BENCH_POOL_SIZE_BYTES = 64 << 10 /* random bytes that values are cut from */
};

struct bench_data {
    enum bench_key_format format;
    size_t key_size;
    size_t value_size;
    uint8_t *pool; /* BENCH_POOL_SIZE_BYTES + value_size bytes */
};

/* Checks that keys of this format and size are distinct for all numbers below number_limit. */
bool bench_data_key_fits(enum bench_key_format format, size_t key_size, uint64_t number_limit);

/* False if there is no memory. The caller ends it with bench_data_free. */
bool bench_data_init(struct bench_data *ret_data, enum bench_key_format format, size_t key_size, size_t value_size);
void bench_data_free(struct bench_data *data);

/* Makes any key; bench_key is the inlined form for the common ones. */
void bench_key_slow(const struct bench_data *data, uint64_t number, uint8_t *ret_key);

static inline void bench_store_big_endian(uint8_t *to, uint64_t x)
{
    x = __builtin_bswap64(x);
    memcpy(to, &x, sizeof(x));
}

static inline uint64_t bench_load_big_endian(const uint8_t *from)
{
    uint64_t x;

    memcpy(&x, from, sizeof(x));
    return __builtin_bswap64(x);
}

/* Writes the key with this number (see DATA-1) into key_size bytes. */
static inline void bench_key(const struct bench_data *data, uint64_t number, uint8_t *ret_key)
{
    uint64_t mixed = bench_mix64(number + 1);

    if (data->key_size != 16 || data->format == BENCH_KEY_DECIMAL) {
        bench_key_slow(data, number, ret_key);
        return;
    }
    bench_store_big_endian(ret_key, data->format == BENCH_KEY_HASH ? mixed : number);
    mixed *= UINT64_C(0x9e3779b97f4a7c15);
    memcpy(ret_key + 8, &mixed, sizeof(mixed));
}

static inline uint64_t bench_stored_number(uint64_t index)
{
    return 2 * index;
}

static inline uint64_t bench_absent_number(uint64_t index)
{
    return 2 * index + 1;
}

static inline uint8_t bench_value_check_byte(uint64_t index, uint8_t generation)
{
    return (uint8_t)((index * 31 + generation) * 167 + 13);
}

/* Writes the value of this key and generation into value_size bytes. */
static inline void bench_value(const struct bench_data *data, uint64_t index, uint8_t generation, uint8_t *ret_value)
{
    size_t size = data->value_size;
    uint64_t offset = (index * UINT64_C(0x9e3779b97f4a7c15) + generation * UINT64_C(0x2545f4914f6cdd1d)) >> 48;

    memcpy(ret_value, data->pool + offset, size);
    memcpy(ret_value, &index, size < 8 ? size : 8);
    if (size > 9) {
        ret_value[8] = generation;
        ret_value[size - 1] = bench_value_check_byte(index, generation);
    }
}

/* The generation that a verified value names; 0 if values are too small for that. */
static inline uint8_t bench_value_generation(const struct bench_data *data, const void *value)
{
    return data->value_size > 9 ? ((const uint8_t *)value)[8] : 0;
}

/* Whether these bytes can be a value of the key with this index. */
static inline bool bench_value_is_of(const struct bench_data *data, uint64_t index, const void *value, size_t size)
{
    const uint8_t *bytes = value;

    if (size != data->value_size)
        return false;
    if (size > 9)
        return memcmp(bytes, &index, 8) == 0 && bytes[size - 1] == bench_value_check_byte(index, bytes[8]);
    return memcmp(bytes, &index, size < 8 ? size : 8) == 0;
}

/* Whether a stored key and its value belong together, every byte of both compared. Needs values of 8 bytes or more. */
bool bench_entry_is_exact(const struct bench_data *data, const void *key, const void *value);

#endif
