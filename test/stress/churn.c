/*
 * Stress mode `churn`: threads that live for a few operations; nothing of them stays behind.
 *
 * Test program (stress). Acceptance row C31: after many short threads, retired memory goes back to nothing, and guards,
 * snapshots and iterators of ended threads are not counted. Some threads pin, read and write under several guards.
 */
#include "stress.h"

#include <inttypes.h>
#include <stdio.h>

#define KEYS 500

struct churn_team {
    uint64_t lives; /* short threads that each starter brings into the world, one after the other */
};

static void write_some(struct stress *stress, struct random_stream *random)
{
    uint8_t value[300];
    for (unsigned i = 0; i < 10; i++) {
        uint64_t key = random_below(random, KEYS);
        size_t size = (size_t)random_below(random, sizeof(value));
        value_make(key, value, size);
        if (random_chance(random, 30))
            CHECK_EQUAL(quire_delete(stress->tree, &key, sizeof(key), 0, NULL, NULL), 0);
        else
            CHECK_EQUAL(quire_put(stress->tree, &key, sizeof(key), value, size, 0, NULL), 0);
    }
}

/* Two guards, the inner one ended first or last; what the first handed out stays until its end. */
static void read_some(struct stress *stress, struct random_stream *random)
{
    struct quire_guard outer, inner;
    struct quire_value value;
    uint8_t copy[300];
    uint64_t key = random_below(random, KEYS);
    uint64_t id = 0;

    CHECK_EQUAL(quire_pin(stress->db, "churn.outer", &outer), 0);
    int result = quire_guard_get(&outer, stress->tree, NULL, &key, sizeof(key), &value);
    CHECK(result == 0 || result == QUIRE_NOT_FOUND, "guard get: %d", result);
    CHECK_EQUAL(quire_pin(stress->db, "churn.inner", &inner), 0);
    if (result == 0 && CHECK(value.size <= sizeof(copy), "size %zu", value.size))
        memcpy(copy, value.data, value.size);
    write_some(stress, random);
    CHECK_EQUAL(quire_unpin(&inner), 0);
    if (result == 0) {
        CHECK(memcmp(copy, value.data, value.size) == 0, "bytes under a guard changed");
        CHECK(value_verify(value.data, value.size, &id), "torn value of key %" PRIu64, key);
    }
    CHECK_EQUAL(quire_unpin(&outer), 0);
}

static void scan_some(struct stress *stress, struct random_stream *random)
{
    struct quire_pages_options options;
    struct quire_snapshot *snapshot = NULL;
    struct quire_pages *pages = NULL;
    struct quire_page page;

    quire_pages_options_init(&options);
    options.reverse = random_chance(random, 50);
    CHECK_EQUAL(quire_snapshot(stress->db, "churn", &snapshot), 0);
    options.snapshot = snapshot;
    CHECK_EQUAL(quire_pages_open(stress->tree, &options, &pages), 0);
    for (unsigned i = 0; i < 3; i++) {
        int result = quire_pages_next(pages, &page);
        CHECK(result == 0 || result == QUIRE_END, "next: %d", result);
    }
    CHECK_EQUAL(quire_pages_close(pages), 0);
    CHECK_EQUAL(quire_snapshot_release(snapshot), 0);
}

struct short_life {
    struct stress *stress;
    struct random_stream random;
};

static void *live(void *argument)
{
    struct short_life *life = (struct short_life *)argument;
    uint64_t lot = random_below(&life->random, 10);
    if (lot < 5)
        write_some(life->stress, &life->random);
    else if (lot < 8)
        read_some(life->stress, &life->random);
    else if (lot < 9)
        scan_some(life->stress, &life->random);
    return NULL; /* some do nothing at all */
}

static void start_lives(struct stress_worker *worker)
{
    struct churn_team *team = (struct churn_team *)worker->shared;
    for (uint64_t i = 0; i < team->lives && check_failures() == 0; i++) {
        struct short_life life = {worker->stress, random_split(&worker->random)};
        pthread_t thread;
        if (!CHECK_EQUAL(pthread_create(&thread, NULL, live, &life), 0))
            return;
        pthread_join(thread, NULL);
    }
}

void stress_churn(struct stress *stress)
{
    struct churn_team team = {.lives = 1 + stress->options->ops / 8};
    struct quire_stats stats = {.struct_size = sizeof(stats)};
    int result = QUIRE_MORE;

    if (!stress_open(stress, QUIRE_VERSIONS_ENGINE))
        return;
    stress_team(stress, (unsigned)stress->options->threads, start_lives, &team);
    for (unsigned i = 0; i < 1000000 && result == QUIRE_MORE; i++)
        result = quire_maintain(stress->db);
    CHECK_EQUAL(quire_stats(stress->db, &stats), 0);
    CHECK(stats.memory_retired_bytes < 65536, "%" PRIu64 " bytes still retired", stats.memory_retired_bytes);
    stress_close(stress);
}
