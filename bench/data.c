/*
 * Keys and values of the benchmark: set-up, the less common key formats, and the complete comparison.
 *
 * Layer: bench. See data.h.
 */
#include "data.h"

#include <stdlib.h>

static const char decimal_prefix[] = "user:";
enum { DECIMAL_PREFIX_SIZE = sizeof(decimal_prefix) - 1, DECIMAL_PREFIX_MIN_KEY_SIZE = 16 };

bool bench_data_key_fits(enum bench_key_format format, size_t key_size, uint64_t number_limit)
{
    size_t digits = key_size - (key_size >= DECIMAL_PREFIX_MIN_KEY_SIZE ? DECIMAL_PREFIX_SIZE : 0);
    uint64_t capacity = 1;

    if (key_size == 0 || key_size > BENCH_MAX_KEY_SIZE_BYTES)
        return false;
    switch (format) {
    case BENCH_KEY_BIG_ENDIAN:
        return key_size >= 8 || number_limit <= UINT64_C(1) << (8 * key_size);
    case BENCH_KEY_HASH:
        return key_size >= 8;
    case BENCH_KEY_DECIMAL:
        for (size_t i = 0; i < digits && capacity < number_limit; i++)
            capacity = capacity > UINT64_MAX / 10 ? UINT64_MAX : capacity * 10;
        return capacity >= number_limit;
    }
    return false;
}

bool bench_data_init(struct bench_data *ret_data, enum bench_key_format format, size_t key_size, size_t value_size)
{
    struct bench_rng rng;
    uint8_t *pool = malloc(BENCH_POOL_SIZE_BYTES + value_size);

    if (pool == NULL)
        return false;
    bench_rng_init(&rng, 0, 0);
    for (size_t i = 0; i < BENCH_POOL_SIZE_BYTES + value_size; i++)
        pool[i] = (uint8_t)bench_rng_next(&rng);
    *ret_data = (struct bench_data){.format = format, .key_size = key_size, .value_size = value_size, .pool = pool};
    return true;
}

void bench_data_free(struct bench_data *data)
{
    free(data->pool);
    data->pool = NULL;
}

static void decimal_key(size_t key_size, uint64_t number, uint8_t *ret_key)
{
    size_t prefix_size = key_size >= DECIMAL_PREFIX_MIN_KEY_SIZE ? DECIMAL_PREFIX_SIZE : 0;

    memcpy(ret_key, decimal_prefix, prefix_size);
    for (size_t i = key_size; i > prefix_size; i--) {
        ret_key[i - 1] = (uint8_t)('0' + number % 10);
        number /= 10;
    }
}

void bench_key_slow(const struct bench_data *data, uint64_t number, uint8_t *ret_key)
{
    size_t size = data->key_size;
    uint64_t mixed = bench_mix64(number + 1);
    uint8_t first[8];

    if (data->format == BENCH_KEY_DECIMAL) {
        decimal_key(size, number, ret_key);
        return;
    }
    bench_store_big_endian(first, data->format == BENCH_KEY_HASH ? mixed : number);
    if (size < 8) {
        memcpy(ret_key, first + 8 - size, size);
        return;
    }
    memcpy(ret_key, first, 8);
    for (size_t at = 8; at < size; at += 8) {
        mixed *= UINT64_C(0x9e3779b97f4a7c15);
        memcpy(ret_key + at, &mixed, size - at < 8 ? size - at : 8);
    }
}

bool bench_entry_is_exact(const struct bench_data *data, const void *key, const void *value)
{
    uint8_t expected_key[BENCH_MAX_KEY_SIZE_BYTES];
    uint8_t *expected_value = malloc(data->value_size);
    uint64_t index;
    bool exact = false;

    if (expected_value == NULL)
        return false;
    memcpy(&index, value, sizeof(index));
    bench_key(data, bench_stored_number(index), expected_key);
    bench_value(data, index, bench_value_generation(data, value), expected_value);
    exact = memcmp(expected_key, key, data->key_size) == 0;
    exact = exact && (data->value_size <= 9 || memcmp(expected_value, value, data->value_size) == 0);
    free(expected_value);
    return exact;
}
