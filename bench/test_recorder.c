/*
 * An engine for tests of the benchmark: an array of values, and an account of what was asked of it.
 *
 * Layer: bench. See test_recorder.h.
 */
#include "test_recorder.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

struct bench_store {
    const struct bench_data *data;
    uint64_t num;
    uint8_t *values; /* num of them */
    bool *present;
    uint64_t puts;
};

struct bench_session {
    struct bench_store *store;
    struct test_session_record record;
    uint64_t latest_get; /* the index of the key, if the latest call was a get that found one; else UINT64_MAX */
    uint64_t puts_seen;  /* by the latest get, of store->puts */
    uint8_t *values;     /* copies for BENCH_MANY answers */
};

struct test_record test_record;
enum test_fault test_fault;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t put_was_made = PTHREAD_COND_INITIALIZER;

void test_recorder_reset(enum test_fault fault)
{
    test_record = (struct test_record){0};
    test_fault = fault;
}

struct test_session_record test_recorder_total(void)
{
    struct test_session_record total = {0};

    for (unsigned i = 0; i < test_record.session_count; i++) {
        total.gets += test_record.sessions[i].gets;
        total.puts += test_record.sessions[i].puts;
        total.dels += test_record.sessions[i].dels;
        total.scans += test_record.sessions[i].scans;
        total.updates += test_record.sessions[i].updates;
    }
    return total;
}

static const char *version(void)
{
    return "0";
}

static void store_close(struct bench_store *store)
{
    free(store->values);
    free(store->present);
    free(store);
}

static int store_open(const struct bench_engine_config *config, struct bench_store **ret_store)
{
    struct bench_store *store = calloc(1, sizeof(*store));

    if (store == NULL)
        return bench_fail("out of memory");
    store->data = config->data;
    store->num = config->num;
    store->values = calloc(config->num, config->data->value_size);
    store->present = calloc(config->num, sizeof(*store->present));
    if (store->values == NULL || store->present == NULL) {
        store_close(store);
        return bench_fail("out of memory");
    }
    *ret_store = store;
    return 0;
}

static int consolidate(struct bench_store *store)
{
    (void)store;
    test_record.consolidations++;
    return 0;
}

static int session_begin(struct bench_store *store, bool append, struct bench_session **ret_session)
{
    struct bench_session *session = calloc(1, sizeof(*session));

    (void)append;
    if (session == NULL)
        return bench_fail("out of memory");
    session->store = store;
    session->latest_get = UINT64_MAX;
    session->values = calloc(BENCH_MANY, store->data->value_size);
    if (session->values == NULL) {
        free(session);
        return bench_fail("out of memory");
    }
    *ret_session = session;
    return 0;
}

static int session_end(struct bench_session *session)
{
    int result = 0;

    pthread_mutex_lock(&lock);
    if (test_record.session_count < TEST_SESSIONS_MAX)
        test_record.sessions[test_record.session_count++] = session->record;
    else
        result = bench_fail("more than %d sessions", TEST_SESSIONS_MAX);
    pthread_mutex_unlock(&lock);
    free(session->values);
    free(session);
    return result;
}

/* The number in a key, which is noted as the session's next choice. */
static uint64_t number_of(struct bench_session *session, const void *key)
{
    uint64_t number = bench_load_big_endian(key);

    session->record.choices = bench_mix64(session->record.choices ^ (number + 1));
    return number;
}

static uint8_t *value_at(struct bench_store *store, uint64_t index)
{
    return store->values + index * store->data->value_size;
}

static int put(struct bench_session *session, const void *key, const void *value)
{
    struct bench_store *store = session->store;
    uint64_t index = number_of(session, key) / 2;
    uint8_t got = bench_value_generation(store->data, session->values);
    bool fails;

    if (index == session->latest_get && bench_value_generation(store->data, value) == (uint8_t)(got + 1) &&
        bench_value_is_of(store->data, index, value, store->data->value_size))
        session->record.updates++;
    session->latest_get = UINT64_MAX;
    session->record.puts++;
    pthread_mutex_lock(&lock);
    fails = test_fault == TEST_FAULT_PUT && store->puts == store->num;
    if (!fails) {
        memcpy(value_at(store, index), value, store->data->value_size);
        store->present[index] = true;
        store->puts++;
        (void)pthread_cond_broadcast(&put_was_made);
    }
    pthread_mutex_unlock(&lock);
    return fails ? bench_fail("this put was made to fail") : 0;
}

static int del(struct bench_session *session, const void *key)
{
    uint64_t index = number_of(session, key) / 2;

    session->record.dels++;
    pthread_mutex_lock(&lock);
    session->store->present[index] = false;
    pthread_mutex_unlock(&lock);
    return 0;
}

/* Copies the value into the session's buffer at this place. */
static void get_at(struct bench_session *session, const void *key, unsigned place, struct bench_slice *ret_value)
{
    struct bench_store *store = session->store;
    uint64_t number = number_of(session, key);
    uint64_t index = number / 2;
    bool last = index == store->num - 1;
    uint8_t *copy = session->values + place * store->data->value_size;

    session->record.gets++;
    session->latest_get = UINT64_MAX;
    *ret_value = (struct bench_slice){NULL, 0};
    if (number % 2 != 0 || (last && test_fault == TEST_FAULT_MISS))
        return;
    pthread_mutex_lock(&lock);
    if (store->present[index]) {
        memcpy(copy, value_at(store, last && test_fault == TEST_FAULT_VALUE ? 0 : index), store->data->value_size);
        *ret_value = (struct bench_slice){copy, store->data->value_size};
        session->latest_get = index;
    }
    pthread_mutex_unlock(&lock);
}

/* TEST_FAULT_SLOW */
static int wait_for_put(struct bench_session *session)
{
    struct bench_store *store = session->store;
    struct timespec limit;
    int result = 0;

    (void)clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += 10;
    pthread_mutex_lock(&lock);
    while (result == 0 && store->puts == session->puts_seen)
        result = pthread_cond_timedwait(&put_was_made, &lock, &limit);
    session->puts_seen = store->puts;
    pthread_mutex_unlock(&lock);
    return result == 0 ? 0 : bench_fail("nobody has put anything for 10 s");
}

static int get(struct bench_session *session, const void *key, struct bench_slice *ret_value)
{
    if (test_fault == TEST_FAULT_SLOW && wait_for_put(session) != 0)
        return -1;
    get_at(session, key, 0, ret_value);
    return 0;
}

static int get_many(struct bench_session *session, const uint8_t *keys, struct bench_slice *ret_values)
{
    for (unsigned i = 0; i < BENCH_MANY; i++)
        get_at(session, keys + i * session->store->data->key_size, i, &ret_values[i]);
    return 0;
}

static int scan_all(struct bench_session *session, const void *start, struct bench_scan *scan)
{
    struct bench_store *store = session->store;
    uint8_t key[BENCH_MAX_KEY_SIZE_BYTES];
    bool more = true;

    session->record.scans++;
    pthread_mutex_lock(&lock);
    for (uint64_t i = start == NULL ? 0 : bench_load_big_endian(start) / 2; more && i < store->num; i++)
        if (store->present[i]) {
            bench_key(store->data, bench_stored_number(i), key);
            more = bench_scan_take(scan, key, store->data->key_size, value_at(store, i), store->data->value_size);
        }
    pthread_mutex_unlock(&lock);
    return 0;
}

static void print_stats(struct bench_store *store, FILE *to)
{
    fprintf(to, "keys %llu\n", (unsigned long long)store->num);
}

const struct bench_engine test_recorder = {
    .name = "recorder",
    .version = version,
    .open = store_open,
    .close = store_close,
    .consolidate = consolidate,
    .print_stats = print_stats,
    .session_begin = session_begin,
    .session_end = session_end,
    .put = put,
    .del = del,
    .get = get,
    .get_many = get_many,
    .scan = scan_all,
};
