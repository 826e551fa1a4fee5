/*
 * Goal: with pauses at random points of the engine, single-key operations are linearizable and the tree is sound.
 * Method: many short rounds on a tiny tree. At every stop point a thread goes on, yields, or sleeps, as its seeded
 * stream says; histories go to the checker, the structure is checked at the end of each round.
 *
 * Test program (interleave). A seed fixes the operations and pauses; the machine's scheduler does the rest.
 */
#include "base/stop.h"
#include "db/testing.h"
#include "lib/check.h"
#include "lib/history.h"
#include "lib/keys.h"
#include "lib/linear.h"
#include "lib/options.h"

#include <quire/quire.h>

#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define THREADS_MAX 8u
#define KEYS_MAX 48u

struct options {
    uint64_t rounds, threads, ops, seed, limit_ms;
};

struct round {
    const struct options *options;
    struct quire *db;
    struct quire_tree *tree;
    uint32_t key_count, value_size;
    unsigned yield_percent, sleep_percent;
    struct history_buffer buffers[THREADS_MAX];
};

struct worker {
    struct round *round;
    uint32_t number;
    struct random_stream random, pauses;
    uint64_t written, last_seen[KEYS_MAX];
    pthread_t thread;
};

static _Thread_local struct worker *self;
static _Atomic uint64_t moved; /* operations that have ended: the watchdog looks at it */

static void pause_here(const char *name, void *unused)
{
    (void)name, (void)unused;
    struct worker *worker = self;
    if (worker == NULL)
        return;
    if (random_chance(&worker->pauses, worker->round->yield_percent))
        sched_yield();
    if (random_chance(&worker->pauses, worker->round->sleep_percent)) {
        struct timespec nap = {.tv_nsec = (long)random_below(&worker->pauses, 100000)};
        nanosleep(&nap, NULL);
    }
}

/* ---- Operations ------------------------------------------------------------------------------------------------- */

static size_t make_key(uint64_t number, char *key)
{
    return (size_t)snprintf(key, 16, "k%02u", (unsigned)number);
}

static void get(struct worker *worker, uint64_t number, struct quire_snapshot *snapshot)
{
    char key[16];
    uint8_t value[512];
    size_t size = 0;
    uint64_t id = 0;
    struct history_event *event = history_begin(&worker->round->buffers[worker->number], HISTORY_GET, number);
    int result = quire_get(worker->round->tree, snapshot, key, make_key(number, key), value, sizeof(value), &size);
    history_end(event);
    CHECK(result == 0 || result == QUIRE_NOT_FOUND, "get: %d", result);
    if (result == 0)
        CHECK(value_verify(value, size, &id), "a torn value of %zu bytes", size);
    event->result = result == 0 ? HISTORY_FOUND : HISTORY_ABSENT;
    event->value = id;
    worker->last_seen[number] = id;
}

/* put, insert or compare_and_swap. */
static void store(struct worker *worker, uint64_t number, enum history_kind kind)
{
    struct quire_tree *tree = worker->round->tree;
    char key[16];
    uint8_t value[512], expected[512];
    size_t key_size = make_key(number, key), size = worker->round->value_size;
    uint64_t id = ((uint64_t)(worker->number + 1) << 32) + ++worker->written;
    value_make(id, value, size);
    value_make(worker->last_seen[number], expected, size);

    struct history_event *event = history_begin(&worker->round->buffers[worker->number], kind, number);
    event->value = id;
    event->expected = worker->last_seen[number];
    int result = kind == HISTORY_PUT ? quire_put(tree, key, key_size, value, size, 0, NULL)
                 : kind == HISTORY_INSERT
                     ? quire_insert(tree, key, key_size, value, size, 0, NULL)
                     : quire_compare_and_swap(tree, key, key_size, expected, size, value, size, 0, NULL);
    history_end(event);
    CHECK(result >= 0, "write: %d", result);
    event->result = result == 0 ? HISTORY_DONE : (result == QUIRE_NOT_FOUND ? HISTORY_ABSENT : HISTORY_REFUSED);
}

static void erase(struct worker *worker, uint64_t number, bool ask)
{
    char key[16];
    int existed = 0;
    struct history_event *event =
        history_begin(&worker->round->buffers[worker->number], ask ? HISTORY_DELETE_EXISTED : HISTORY_DELETE, number);
    int result = quire_delete(worker->round->tree, key, make_key(number, key), 0, ask ? &existed : NULL, NULL);
    history_end(event);
    CHECK_EQUAL(result, 0);
    event->result = !ask ? HISTORY_DONE : (existed ? HISTORY_FOUND : HISTORY_ABSENT);
}

/* Keys ascend, and none comes twice. */
static void scan(struct worker *worker, bool reverse)
{
    struct quire_pages_options options;
    struct quire_pages *pages = NULL;
    struct quire_page page;
    long last = reverse ? 1000 : -1;
    quire_pages_options_init(&options);
    options.reverse = reverse;
    CHECK_EQUAL(quire_pages_open(worker->round->tree, &options, &pages), 0);
    while (quire_pages_next(pages, &page) == 0) {
        for (size_t i = 0; i < page.count; i++) {
            char text[16] = "";
            memcpy(text, page.entries[i].key, page.entries[i].key_size);
            long number = strtol(text + 1, NULL, 10);
            CHECK(reverse ? number < last : number > last, "key %ld after %ld", number, last);
            last = number;
        }
    }
    CHECK_EQUAL(quire_pages_close(pages), 0);
}

/* A run of keys: leaves split, or merge. */
static void run_of_keys(struct worker *worker, uint64_t first, bool remove)
{
    for (uint64_t i = first; i < first + 8 && i < worker->round->key_count; i++) {
        if (remove)
            erase(worker, i, false);
        else
            store(worker, i, HISTORY_PUT);
    }
}

static void upkeep(struct worker *worker, uint64_t lot)
{
    struct quire_snapshot *snapshot = NULL;
    if (lot < 4) {
        qr_testing_drop_pages(worker->round->db, random_next(&worker->random), 40);
    } else if (lot < 6) {
        CHECK_EQUAL(qr_testing_consolidate(worker->round->tree, random_next(&worker->random), 50), 0);
    } else if (lot < 8) {
        int result = quire_maintain(worker->round->db);
        CHECK(result == 0 || result == QUIRE_MORE, "maintain: %d", result);
    } else {
        CHECK_EQUAL(quire_snapshot(worker->round->db, "random", &snapshot), 0);
        scan(worker, lot == 9);
        CHECK_EQUAL(quire_snapshot_release(snapshot), 0);
    }
}

static void *work(void *argument)
{
    struct worker *worker = (struct worker *)argument;
    struct random_stream *random = &worker->random;
    self = worker;
    for (uint64_t i = 0; i < worker->round->options->ops; i++) {
        uint64_t lot = random_below(random, 100);
        uint64_t number = random_below(random, worker->round->key_count);
        if (lot < 30)
            get(worker, number, NULL);
        else if (lot < 45)
            store(worker, number, HISTORY_PUT);
        else if (lot < 55)
            store(worker, number, HISTORY_INSERT);
        else if (lot < 65)
            store(worker, number, HISTORY_COMPARE_AND_SWAP);
        else if (lot < 75)
            erase(worker, number, lot < 70);
        else if (lot < 87)
            run_of_keys(worker, number, lot < 82);
        else if (lot < 92)
            scan(worker, lot < 90);
        else
            upkeep(worker, random_below(random, 10));
        /* relaxed: a sign of life */
        atomic_fetch_add_explicit(&moved, 1, memory_order_relaxed);
    }
    self = NULL;
    return NULL;
}

/* ---- Rounds ----------------------------------------------------------------------------------------------------- */

static bool open_round(struct round *round, struct random_stream *random)
{
    struct quire_options options;
    struct quire_tree_options tree_options;
    quire_options_init(&options);
    options.background_threads = random_chance(random, 30) ? 1 : QUIRE_NO_THREADS;
    quire_tree_options_init(&tree_options);
    tree_options.leaf_page_size_bytes = random_chance(random, 50) ? 512 : 1024;
    tree_options.inner_page_size_bytes = 512;
    tree_options.page_chain_length = (uint32_t)random_between(random, 1, 3);
    round->key_count = (uint32_t)random_between(random, 4, KEYS_MAX);
    round->value_size = (uint32_t)random_between(random, 8, 200);
    round->yield_percent = (unsigned)random_below(random, 40);
    round->sleep_percent = (unsigned)random_below(random, 12);
    CHECK_EQUAL(quire_open(NULL, &options, &round->db), 0);
    CHECK_EQUAL(qr_testing_attach_store(round->db), 0);
    return CHECK_EQUAL(quire_tree_open(round->db, NULL, &tree_options, &round->tree), 0);
}

static void check_round(struct round *round)
{
    struct linear_report report;
    char message[512] = "";
    size_t count = 0;
    int result = QUIRE_MORE;
    struct history_event *events = history_gather(round->buffers, round->options->threads, &count);
    enum linear_verdict verdict = linear_check(events, count, &report);
    CHECK(verdict == LINEAR_OK, "verdict %d on key %" PRIu64 ": %s", verdict, report.key, report.message);
    free(events);
    for (unsigned i = 0; i < 100000 && result == QUIRE_MORE; i++)
        result = quire_maintain(round->db);
    result = qr_testing_check(round->tree, message, sizeof(message));
    CHECK(result == 0, "structure check says %d: %s", result, message);
    CHECK_EQUAL(quire_close(round->db), 0);
}

static void run_round(const struct options *options, uint64_t seed)
{
    struct round round = {.options = options};
    struct worker workers[THREADS_MAX] = {0};
    struct random_stream random;

    random_seed(&random, seed);
    if (!open_round(&round, &random))
        return;
    for (uint32_t i = 0; i < options->threads; i++) {
        history_buffer_init(&round.buffers[i], i, options->ops * 4);
        workers[i] = (struct worker){
            .round = &round, .number = i, .random = random_split(&random), .pauses = random_split(&random)};
    }
    for (uint32_t i = 0; i < options->threads; i++) {
        if (pthread_create(&workers[i].thread, NULL, work, &workers[i]) != 0)
            abort();
    }
    for (uint32_t i = 0; i < options->threads; i++)
        pthread_join(workers[i].thread, NULL);
    check_round(&round);
    for (uint32_t i = 0; i < options->threads; i++)
        history_buffer_free(&round.buffers[i]);
}

/* Ends the program when no operation ends for so long. */
static void *watch(void *argument)
{
    const struct options *options = (const struct options *)argument;
    uint64_t seen = 0, since_ns = history_now_ns();
    for (;;) {
        struct timespec nap = {.tv_nsec = 100000000};
        nanosleep(&nap, NULL);
        /* relaxed: a sign of life */
        uint64_t now = atomic_load_explicit(&moved, memory_order_relaxed);
        if (now != seen)
            since_ns = history_now_ns();
        seen = now;
        if (history_now_ns() - since_ns > options->limit_ms * 1000000) {
            check_fail(__FILE__, __LINE__, "progress", "nothing moves for %" PRIu64 " ms", options->limit_ms);
            exit(check_finish());
        }
    }
    return NULL;
}

int main(int argc, char **argv)
{
    static struct options options = {.rounds = 800, .threads = 3, .ops = 60, .seed = 1, .limit_ms = 60000};
    const struct test_option table[] = {
        {.name = "rounds", .help = "rounds, each with a fresh tree", .number = &options.rounds},
        {.name = "threads", .help = "2 to 8", .number = &options.threads},
        {.name = "ops", .help = "operations of a thread in a round", .number = &options.ops},
        {.name = "seed", .help = "of the first round; 0 = from the clock", .number = &options.seed},
        {.name = "limit-ms", .help = "no operation ends for so long: failed", .number = &options.limit_ms},
    };
    pthread_t watchdog;
    test_options_parse(argc, argv,
                       "random pauses at the stop points of the engine\n"
                       "Long form: interleave_random --rounds 100000 --threads 4 --seed 0",
                       table, sizeof(table) / sizeof(table[0]));
    options.rounds = test_scaled(options.rounds);
    options.seed = test_seed(options.seed);
    if (options.threads < 2 || options.threads > THREADS_MAX) {
        fprintf(stderr, "--threads is 2 to %u\n", THREADS_MAX);
        return 2;
    }
    if (pthread_create(&watchdog, NULL, watch, &options) != 0)
        abort();
    qr_stop_set_hook(pause_here, NULL);
    uint64_t seed = options.seed;
    for (uint64_t i = 0; i < options.rounds && check_failures() == 0; i++) {
        run_round(&options, seed);
        if (check_failures() != 0)
            fprintf(stderr, "to repeat: %s --rounds 1 --threads %" PRIu64 " --ops %" PRIu64 " --seed %" PRIu64 "\n",
                    argv[0], options.threads, options.ops, seed);
        seed = random_mix(seed) >> 16;
    }
    return check_finish();
}
