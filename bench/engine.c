/*
 * The list of engines that were built, and what their adapters share.
 *
 * Layer: bench. See engine.h.
 */
#include "engine.h"

#include <stdarg.h>

extern const struct bench_engine bench_engine_quire;
extern const struct bench_engine bench_engine_lmdb;
extern const struct bench_engine bench_engine_rocksdb;

const struct bench_engine *const bench_engines[] = {
#ifdef BENCH_HAVE_QUIRE
    &bench_engine_quire,
#endif
#ifdef BENCH_HAVE_LMDB
    &bench_engine_lmdb,
#endif
#ifdef BENCH_HAVE_ROCKSDB
    &bench_engine_rocksdb,
#endif
    NULL};

const struct bench_engine *bench_engine_find(const char *name)
{
    for (const struct bench_engine *const *engine = bench_engines; *engine != NULL; engine++)
        if (strcmp((*engine)->name, name) == 0)
            return *engine;
    return NULL;
}

const char *bench_level_name(enum bench_level level)
{
    switch (level) {
    case BENCH_LEVEL_PROCESS:
        return "process";
    case BENCH_LEVEL_DURABLE:
        return "durable";
    case BENCH_LEVEL_UNSET:
    case BENCH_LEVEL_OFF:
        break;
    }
    return "off";
}

int bench_fail(const char *format, ...)
{
    char text[512];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    fprintf(stderr, "quire-bench: %s\n", text);
    return -1;
}

bool bench_scan_take_slow(struct bench_scan *scan, const void *key, size_t key_size, const void *value,
                          size_t value_size)
{
    const uint8_t *value_bytes = value;
    uint8_t *first = scan->first_key;

    if (key_size != scan->data->key_size || value_size != scan->data->value_size) {
        bench_fail("scan: entry %llu has a key of %zu and a value of %zu bytes", (unsigned long long)scan->count,
                   key_size, value_size);
        scan->failed = true;
        return false;
    }
    if (scan->count > 0 && memcmp(key, scan->last_key, key_size) <= 0 && (key_size < 8 || key_size > 16))
        scan->failed = true;
    if (key_size >= 8 && key_size <= 16) {
        uint64_t high = bench_load_big_endian(key);
        uint64_t low = bench_load_big_endian((const uint8_t *)key + key_size - 8);

        if (scan->count > 0 && (high < scan->last_high || (high == scan->last_high && low <= scan->last_low)))
            scan->failed = true;
        scan->last_high = high;
        scan->last_low = low;
    }
    if (scan->failed) {
        bench_fail("scan: the key of entry %llu is not above the one before", (unsigned long long)scan->count);
        return false;
    }
    if (scan->exact && !bench_entry_is_exact(scan->data, key, value)) {
        bench_fail("scan: entry %llu has a wrong key or value", (unsigned long long)scan->count);
        scan->failed = true;
        return false;
    }
    if (scan->count == 0)
        memcpy(first, key, key_size);
    memcpy(scan->last_key, key, key_size);
    scan->checksum += value_size == 0 ? 0 : (uint64_t)value_bytes[0] + value_bytes[value_size - 1];
    return ++scan->count < scan->limit;
}
