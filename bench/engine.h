/*
 * What the benchmark needs of a storage engine: a small table of functions, implemented once for each engine.
 *
 * Layer: bench. An adapter uses the public interface of its engine and nothing of the workloads; a workload knows no
 * engine.
 *
 * ENGINE-1  Every adapter does the same visible work: values are handed out as pointers where the engine can do that,
 *           and bench_scan_take is inlined into each scan loop.
 * ENGINE-2  A function returns 0, or -1 after it has printed the reason by bench_fail; "not found" is no failure.
 *
 * Threads: open, close, settle, consolidate and print_stats are called by the main thread while no other is in the
 * engine. Everything with a session is called by the session's thread.
 */
#ifndef BENCH_ENGINE_H
#define BENCH_ENGINE_H

#include "data.h"

#include <stdio.h>

/* How long one view of the data (a guard, a read transaction, an iterator) is kept, in reads. */
enum { BENCH_READS_PER_VIEW = 1000, BENCH_MANY = 16 };

/* What a put has survived when it returns. README.md says what stands for it in each engine. */
enum bench_level {
    BENCH_LEVEL_UNSET,   /* not on the command line: the workload's own, which is OFF for most */
    BENCH_LEVEL_OFF,     /* nothing: no log, nothing written at once */
    BENCH_LEVEL_PROCESS, /* the death of the process */
    BENCH_LEVEL_DURABLE  /* power loss */
};

struct bench_engine_config {
    const char *dir;            /* a directory of its own: empty, or with the store that is to be opened again */
    bool existing;              /* the store is there */
    enum bench_level level;     /* of puts and deletes; not UNSET */
    uint64_t log_segment_bytes; /* Quire: largest segment of its log; 0 = default */
    uint64_t num;               /* keys that will be stored */
    unsigned threads;
    const struct bench_data *data;
    unsigned lmdb_batch; /* puts and deletes in a write transaction; 0 = by the level */
    bool no_checkpoint;  /* Quire makes no checkpoint by itself */
    bool no_statistics;  /* Quire keeps no counters and latencies */
};

struct bench_slice {
    const void *data;
    size_t size;
};

/* Consumes the entries of one ascending scan: counts, checks sizes and order, touches both ends of each value. */
struct bench_scan {
    const struct bench_data *data;
    uint64_t limit; /* entries after which the scan stops */
    uint64_t count;
    uint64_t checksum;
    uint64_t last_high, last_low; /* the latest key, if keys have 8 to 16 bytes */
    bool exact;                   /* compare every byte */
    bool failed;
    uint8_t first_key[BENCH_MAX_KEY_SIZE_BYTES];
    uint8_t last_key[BENCH_MAX_KEY_SIZE_BYTES];
};

/* The part of bench_scan_take for keys of unusual sizes, for the first entry, and for failures. */
bool bench_scan_take_slow(struct bench_scan *scan, const void *key, size_t key_size, const void *value,
                          size_t value_size);

/* Takes the next entry. False if the scan shall stop: enough entries, or a failure (reported). */
static inline bool bench_scan_take(struct bench_scan *scan, const void *key, size_t key_size, const void *value,
                                   size_t value_size)
{
    const uint8_t *key_bytes = key;
    const uint8_t *value_bytes = value;
    uint64_t high, low;

    if (scan->count == 0 || key_size < 8 || key_size > 16 || key_size != scan->data->key_size ||
        value_size != scan->data->value_size || scan->exact)
        return bench_scan_take_slow(scan, key, key_size, value, value_size);
    high = bench_load_big_endian(key_bytes);
    low = bench_load_big_endian(key_bytes + key_size - 8);
    if (high < scan->last_high || (high == scan->last_high && low <= scan->last_low))
        return bench_scan_take_slow(scan, key, key_size, value, value_size);
    scan->last_high = high;
    scan->last_low = low;
    scan->checksum += (uint64_t)value_bytes[0] + value_bytes[value_size - 1];
    return ++scan->count < scan->limit;
}

struct bench_store;   /* an open store; each adapter defines its own */
struct bench_session; /* what one thread keeps of it */

struct bench_log_counts {
    uint64_t bytes;             /* that were written */
    uint64_t segments_recycled; /* that were used again */
};

struct bench_engine {
    const char *name;
    const char *(*version)(void);

    int (*open)(const struct bench_engine_config *config, struct bench_store **ret_store);
    void (*close)(struct bench_store *store);
    /* Waits until work in the background that earlier writes caused is done. NULL = there is none to wait for. */
    int (*settle)(struct bench_store *store);
    /* Brings the store into its best form for reading. NULL = the engine has no such thing. */
    int (*consolidate)(struct bench_store *store);
    void (*print_stats)(struct bench_store *store, FILE *to);
    /* What was done to the log since it was opened. NULL = the engine does not tell. */
    struct bench_log_counts (*log_counts)(struct bench_store *store);

    /* append: this is the only session, and it will put new keys in ascending order into an empty store. */
    int (*session_begin)(struct bench_store *store, bool append, struct bench_session **ret_session);
    /* Makes everything written visible and ends the session; the only way to end it. */
    int (*session_end)(struct bench_session *session);

    /* Brings what was written to the disk in the engine's own form, and waits for it. NULL = the engine has no such call. */
    int (*save)(struct bench_session *session);

    int (*put)(struct bench_session *session, const void *key, const void *value);
    /* Deletes a key that is there. */
    int (*del)(struct bench_session *session, const void *key);
    /* ret_value->data: NULL if there is none; else valid until the session's next call. */
    int (*get)(struct bench_session *session, const void *key, struct bench_slice *ret_value);
    /* The same for BENCH_MANY keys that lie one behind the other. */
    int (*get_many)(struct bench_session *session, const uint8_t *keys, struct bench_slice *ret_values);
    /* Feeds entries at or above start (NULL = all) to scan until it has enough or there are no more. */
    int (*scan)(struct bench_session *session, const void *start, struct bench_scan *scan);
};

/* The engines that were built, the last followed by NULL. */
extern const struct bench_engine *const bench_engines[];
const struct bench_engine *bench_engine_find(const char *name);

/* "off", "process", "durable". */
const char *bench_level_name(enum bench_level level);

/* Prints one line to standard error and answers -1. Any thread. */
int bench_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
