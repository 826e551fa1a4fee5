/*
 * The workloads: what one thread does, from its first to its last operation.
 *
 * Layer: bench. See workload.h.
 */
#include "workload.h"

#include "runner_internal.h"

#include <time.h>

uint64_t bench_now_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* The time if this operation is sampled, else 0. shorten: for operations that do the work of many. */
static inline uint64_t sample_begin(struct bench_worker *worker, unsigned shorten)
{
    if (--worker->until_sample != 0)
        return 0;
    worker->until_sample = 1 + (unsigned)bench_rng_below(&worker->rng, 2 * BENCH_SAMPLE_INTERVAL / shorten - 1);
    return bench_now_ns();
}

static inline void sample_end(struct bench_worker *worker, uint64_t begin_ns)
{
    if (begin_ns != 0)
        bench_histogram_add(&worker->latency, bench_now_ns() - begin_ns);
}

static inline uint64_t choose(struct bench_worker *worker)
{
    const struct bench_run *run = worker->run;

    return run->zipf != NULL ? bench_zipf_next(run->zipf, &worker->rng) : bench_rng_below(&worker->rng, run->num);
}

static inline int put_one(struct bench_worker *worker, uint64_t index)
{
    const struct bench_run *run = worker->run;
    uint64_t begin_ns;
    int result;

    bench_key(run->data, bench_stored_number(index), worker->keys);
    bench_value(run->data, index, run->generation, worker->value);
    begin_ns = sample_begin(worker, 1);
    result = run->engine->put(worker->session, worker->keys, worker->value);
    sample_end(worker, begin_ns);
    return result;
}

static int wrong_value(uint64_t index, const struct bench_slice *value)
{
    if (value->data == NULL)
        return bench_fail("key %llu was not found", (unsigned long long)index);
    return bench_fail("key %llu has a wrong value of %zu bytes", (unsigned long long)index, value->size);
}

/* Gets the stored key with this index, which is in worker->keys, and verifies its value. */
static inline int get_verified(struct bench_worker *worker, uint64_t index, struct bench_slice *ret_value)
{
    const struct bench_run *run = worker->run;

    if (run->engine->get(worker->session, worker->keys, ret_value) != 0)
        return -1;
    if (ret_value->data == NULL || !bench_value_is_of(run->data, index, ret_value->data, ret_value->size))
        return wrong_value(index, ret_value);
    return 0;
}

static inline int get_one(struct bench_worker *worker, uint64_t index)
{
    struct bench_slice value;
    uint64_t begin_ns;

    bench_key(worker->run->data, bench_stored_number(index), worker->keys);
    begin_ns = sample_begin(worker, 1);
    if (get_verified(worker, index, &value) != 0)
        return -1;
    sample_end(worker, begin_ns);
    return 0;
}

/* Reads a value and writes the next generation of it. No other thread is kept from writing the key in between. */
static inline int update_one(struct bench_worker *worker, uint64_t index)
{
    const struct bench_run *run = worker->run;
    struct bench_slice value;
    uint64_t begin_ns;
    uint8_t generation;

    bench_key(run->data, bench_stored_number(index), worker->keys);
    begin_ns = sample_begin(worker, 1);
    if (get_verified(worker, index, &value) != 0)
        return -1;
    generation = (uint8_t)(bench_value_generation(run->data, value.data) + 1);
    bench_value(run->data, index, generation, worker->value);
    if (run->engine->put(worker->session, worker->keys, worker->value) != 0)
        return -1;
    sample_end(worker, begin_ns);
    return 0;
}

static int fill_in_order(struct bench_worker *worker)
{
    for (uint64_t i = worker->begin; i < worker->end; i++)
        if (put_one(worker, i) != 0)
            return -1;
    worker->done = worker->end - worker->begin;
    return 0;
}

static int fill_at_random(struct bench_worker *worker)
{
    for (uint64_t i = worker->begin; i < worker->end; i++)
        if (put_one(worker, bench_permute(&worker->run->permutation, i)) != 0)
            return -1;
    worker->done = worker->end - worker->begin;
    return 0;
}

static int overwrite(struct bench_worker *worker)
{
    for (uint64_t i = worker->begin; i < worker->end; i++)
        if (put_one(worker, choose(worker)) != 0)
            return -1;
    worker->done = worker->end - worker->begin;
    return 0;
}

int bench_put_for_a_time(struct bench_worker *worker)
{
    const uint64_t end_ns = bench_now_ns() + worker->run->time_ns;
    _Atomic uint64_t *progress = worker->run->progress;

    do {
        if (put_one(worker, choose(worker)) != 0)
            return -1;
        worker->done++;
        /* relaxed: a count, read by another process after the death of this one */
        if (progress != NULL)
            atomic_fetch_add_explicit(progress, 1, memory_order_relaxed);
    } while (bench_now_ns() < end_ns);
    return 0;
}

/* The background of readwhilewriting. */
static int overwrite_until_done(struct bench_worker *worker)
{
    bool done;

    do {
        if (put_one(worker, choose(worker)) != 0)
            return -1;
        worker->done++;
        /* relaxed: a stale value costs another put; nothing is read that the measured threads wrote before */
        done = atomic_load_explicit(worker->run->foreground_done, memory_order_relaxed);
    } while (!done);
    return 0;
}

/* The background of readwhilesaving: overwrites and saves in turn. */
static int save_until_done(struct bench_worker *worker)
{
    const uint64_t puts = worker->run->num / 20 + 1;
    bool done;

    if (worker->run->engine->save == NULL)
        return bench_fail("readwhilesaving: this engine has no call that saves");
    do {
        for (uint64_t i = 0; i < puts; i++)
            if (put_one(worker, choose(worker)) != 0)
                return -1;
        if (worker->run->engine->save(worker->session) != 0)
            return -1;
        worker->done += puts;
        /* relaxed: a stale value costs another round; nothing is read that the measured threads wrote before */
        done = atomic_load_explicit(worker->run->foreground_done, memory_order_relaxed);
    } while (!done);
    return 0;
}

static int update_at_random(struct bench_worker *worker)
{
    for (uint64_t i = worker->begin; i < worker->end; i++)
        if (update_one(worker, choose(worker)) != 0)
            return -1;
    worker->done = worker->end - worker->begin;
    return 0;
}

static int read_at_random(struct bench_worker *worker)
{
    for (uint64_t i = worker->begin; i < worker->end; i++)
        if (get_one(worker, choose(worker)) != 0)
            return -1;
    worker->done = worker->end - worker->begin;
    return 0;
}

static int mixed(struct bench_worker *worker)
{
    const unsigned get_percent = worker->run->get_percent;

    for (uint64_t i = worker->begin; i < worker->end; i++) {
        uint64_t index = choose(worker);
        bool reads = bench_rng_below(&worker->rng, 100) < get_percent;

        if ((reads ? get_one(worker, index) : put_one(worker, index)) != 0)
            return -1;
    }
    worker->done = worker->end - worker->begin;
    return 0;
}

static int read_missing(struct bench_worker *worker)
{
    const struct bench_run *run = worker->run;

    for (uint64_t i = worker->begin; i < worker->end; i++) {
        uint64_t index = choose(worker);
        struct bench_slice value;
        uint64_t begin_ns;

        bench_key(run->data, bench_absent_number(index), worker->keys);
        begin_ns = sample_begin(worker, 1);
        if (run->engine->get(worker->session, worker->keys, &value) != 0)
            return -1;
        sample_end(worker, begin_ns);
        if (value.data != NULL)
            return bench_fail("the absent key %llu was found", (unsigned long long)bench_absent_number(index));
    }
    worker->done = worker->end - worker->begin;
    return 0;
}

/* The number of operations counts keys; the latency is a batch's. */
static int read_many(struct bench_worker *worker)
{
    const struct bench_run *run = worker->run;
    struct bench_slice values[BENCH_MANY];
    uint64_t indexes[BENCH_MANY];

    for (uint64_t i = worker->begin; i < worker->end; i += BENCH_MANY) {
        uint64_t begin_ns;

        for (unsigned k = 0; k < BENCH_MANY; k++) {
            indexes[k] = choose(worker);
            bench_key(run->data, bench_stored_number(indexes[k]), worker->keys + k * run->data->key_size);
        }
        begin_ns = sample_begin(worker, 4);
        if (run->engine->get_many(worker->session, worker->keys, values) != 0)
            return -1;
        for (unsigned k = 0; k < BENCH_MANY; k++)
            if (values[k].data == NULL || !bench_value_is_of(run->data, indexes[k], values[k].data, values[k].size))
                return wrong_value(indexes[k], &values[k]);
        sample_end(worker, begin_ns);
        worker->done += BENCH_MANY;
    }
    return 0;
}

static int scan_all_once(struct bench_worker *worker, bool exact)
{
    const struct bench_run *run = worker->run;
    struct bench_scan scan = {.data = run->data, .limit = UINT64_MAX, .exact = exact};

    if (run->engine->scan(worker->session, NULL, &scan) != 0 || scan.failed)
        return -1;
    if (scan.count != run->stored)
        return bench_fail("scan: %llu entries instead of %llu", (unsigned long long)scan.count,
                          (unsigned long long)run->stored);
    worker->done += scan.count;
    return 0;
}

int bench_read_all(struct bench_worker *worker)
{
    return scan_all_once(worker, false);
}

/* Every thread reads everything; the number of operations counts entries, the latency is a whole pass's. */
static int scan_all(struct bench_worker *worker)
{
    for (uint64_t pass = 0; pass < worker->run->scan_passes; pass++) {
        uint64_t begin_ns = bench_now_ns();

        if (scan_all_once(worker, worker->run->verify_scan) != 0)
            return -1;
        sample_end(worker, begin_ns);
    }
    return 0;
}

/* Reads up to 100 entries from a stored key on; in a format that keeps the keys' order the number is known. */
static int scan_some(struct bench_worker *worker)
{
    const struct bench_run *run = worker->run;

    for (uint64_t i = worker->begin; i < worker->end; i++) {
        uint64_t index = choose(worker);
        uint64_t expected = run->num - index < BENCH_SCAN_LENGTH ? run->num - index : BENCH_SCAN_LENGTH;
        struct bench_scan scan;
        uint64_t begin_ns;

        scan.data = run->data;
        scan.limit = BENCH_SCAN_LENGTH;
        scan.count = scan.checksum = 0;
        scan.exact = run->verify_scan;
        scan.failed = false;
        bench_key(run->data, bench_stored_number(index), worker->keys);
        begin_ns = sample_begin(worker, 4);
        if (run->engine->scan(worker->session, worker->keys, &scan) != 0 || scan.failed)
            return -1;
        sample_end(worker, begin_ns);
        if (scan.count == 0 || memcmp(scan.first_key, worker->keys, run->data->key_size) != 0)
            return bench_fail("scan100: key %llu was not found", (unsigned long long)index);
        if (run->data->format != BENCH_KEY_HASH && scan.count != expected)
            return bench_fail("scan100: %llu entries instead of %llu", (unsigned long long)scan.count,
                              (unsigned long long)expected);
    }
    worker->done = worker->end - worker->begin;
    return 0;
}

static int delete_at_random(struct bench_worker *worker)
{
    const struct bench_run *run = worker->run;

    for (uint64_t i = worker->begin; i < worker->end; i++) {
        uint64_t begin_ns;
        int result;

        bench_key(run->data, bench_stored_number(bench_permute(&run->permutation, i)), worker->keys);
        begin_ns = sample_begin(worker, 1);
        result = run->engine->del(worker->session, worker->keys);
        sample_end(worker, begin_ns);
        if (result != 0)
            return -1;
    }
    worker->done = worker->end - worker->begin;
    return 0;
}

const struct bench_workload bench_workloads[] = {
    {.name = "fillseq", .work = fill_in_order, .fills = true, .appends = true, .writes = true, .ops_share = 1},
    {.name = "fillrandom", .work = fill_at_random, .fills = true, .writes = true, .ops_share = 1},
    {.name = "overwrite", .work = overwrite, .writes = true, .needs_all = true, .ops_share = 1},
    {.name = "updaterandom", .work = update_at_random, .writes = true, .needs_all = true, .ops_share = 1},
    {.name = "readrandom", .work = read_at_random, .needs_all = true, .ops_share = 1},
    {.name = "readwhilewriting",
     .work = read_at_random,
     .background = overwrite_until_done,
     .writes = true,
     .needs_all = true,
     .ops_share = 1},
    {.name = "readwhilesaving",
     .work = read_at_random,
     .background = save_until_done,
     .writes = true,
     .needs_all = true,
     .ops_share = 1},
    {.name = "readmissing", .work = read_missing, .ops_share = 1},
    {.name = "readmany", .work = read_many, .needs_all = true, .ops_share = 1},
    {.name = "scan", .work = scan_all, .ops_share = 1},
    {.name = "scan100", .work = scan_some, .needs_all = true, .ops_share = 10},
    {.name = "mixed", .work = mixed, .get_percent = 50, .writes = true, .needs_all = true, .ops_share = 1},
    {.name = "mixed8020", .work = mixed, .get_percent = 80, .writes = true, .needs_all = true, .ops_share = 1},
    {.name = "delete", .work = delete_at_random, .writes = true, .deletes = true, .needs_all = true, .ops_share = 1},
    {.name = "consolidate", .work = NULL, .ops_share = 1},
    {.name = "groupcommit", .alone = bench_groupcommit},
    {.name = "logcost", .alone = bench_logcost},
    {.name = "reopen", .alone = bench_reopen},
    {.name = NULL},
};

const struct bench_workload *bench_workload_find(const char *name)
{
    for (const struct bench_workload *workload = bench_workloads; workload->name != NULL; workload++)
        if (strcmp(workload->name, name) == 0)
            return workload;
    return NULL;
}

bool bench_workload_is_repeatable(const struct bench_workload *workload)
{
    return workload->work != NULL && workload->alone == NULL && !workload->fills && !workload->deletes;
}
