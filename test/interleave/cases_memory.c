/*
 * Scripted cases of page ids and reclamation.
 *
 * Test program (interleave). Reclamation waits for sections: what an actor in a section has found stays; and a thread
 * that is stopped in a round of reclamation stops nothing but reclamation.
 */
#include "interleave.h"

#include "db/db.h"
#include "lib/history.h"

#include <stddef.h>

/* ---- The free list of page ids ---------------------------------------------------------------------------------- */

static void allocate_id(struct actor *actor)
{
    struct qr_map *map = (struct qr_map *)actor->argument;
    uint64_t pid = 0;
    CHECK_EQUAL(qr_map_alloc(map, qr_word_number(QR_WORD_FREE, 0), true, &pid), 0);
    actor->count = (uint32_t)pid;
}

static uint64_t take(struct qr_map *map)
{
    uint64_t pid = 0;
    CHECK_EQUAL(qr_map_alloc(map, qr_word_number(QR_WORD_FREE, 0), true, &pid), 0);
    return pid;
}

/*
 *   list: a -> b -> c       A pops: has seen head a, next b | ..stopped..
 *   others: pop a, pop b, push a:      list: a -> c         | A may not make b the head
 */
static void popped_and_pushed_again(void)
{
    struct world world;
    uint64_t pids[4];
    if (!world_open(&world, &(struct world_options){.size = WORLD_TINY}))
        return;
    struct qr_map *map = world.db->map;
    for (uint32_t i = 0; i < 3; i++)
        pids[i] = take(map);
    for (uint32_t i = 0; i < 3; i++)
        qr_map_free(map, pids[i]);
    struct actor a = {.world = &world, .body = allocate_id, .argument = map, .stop = "map.pop"};
    CHECK(actor_start(&a), "A does not come to map.pop");
    pids[0] = take(map);
    pids[1] = take(map);
    qr_map_free(map, pids[0]);
    actor_finish(&a);
    pids[0] = a.count;
    pids[2] = take(map);
    pids[3] = take(map);
    for (uint32_t i = 0; i < 4; i++) {
        for (uint32_t j = 0; j < i; j++)
            CHECK(pids[i] != pids[j], "page id %u was handed out twice", (unsigned)pids[i]);
    }
    for (uint32_t i = 0; i < 4 && !failed(); i++)
        qr_map_free(map, pids[i]);
    world_close(&world);
}

/* ---- Sections --------------------------------------------------------------------------------------------------- */

static void read_focus(struct actor *actor)
{
    actor->result = (int)world_read(actor->world, actor->focus);
}

static void maintain(struct actor *actor)
{
    int result = QUIRE_MORE;
    for (unsigned i = 0; i < 20000 && result == QUIRE_MORE; i++) /* slices are small under a sanitizer */
        result = quire_maintain(actor->world->db);
    CHECK_EQUAL(result, 0);
}

/*
 *   A reads: has loaded the leaf's word | ..stopped..                              | reads the leaf as it was
 *   others:                              | replace the leaf, reclaim, allocate blocks |
 */
static void a_leaf_stays_while_a_reader_is_in_it(void)
{
    for (uint32_t background = 0; background < 2 && !failed(); background++) {
        struct world world;
        struct world_options options = {.size = WORLD_LOW, .chain_length = 1, .background = background != 0};
        if (!world_open(&world, &options))
            return;
        uint64_t old = world.cells[20].id;
        struct actor a = {.world = &world, .body = read_focus, .focus = 20, .stop = "find.leaf_loaded"};
        struct actor keeper = {.world = &world, .body = maintain};
        CHECK(actor_start(&a), "A does not come to find.leaf_loaded");
        for (uint32_t i = 0; i < world.key_count; i++)
            world_put(&world, i);
        actor_launch(&keeper);
        CHECK(!actor_ends_within(&keeper, 50) || background != 0, "reclamation does not wait for A's section");
        for (uint32_t round = 0; round < 20; round++) {
            for (uint32_t i = 0; i < world.key_count; i++)
                world_put(&world, i);
        }
        actor_finish(&a);
        CHECK_EQUAL(a.result, old);
        actor_finish(&keeper);
        world_close(&world);
    }
}

/* What a guard and a pages iterator have handed out stays as it is, whatever others write and reclaim. */
static void what_was_handed_out_stays(void)
{
    struct world world;
    struct quire_pages *pages = NULL;
    struct quire_page page;
    uint64_t id = 0, again = 0;
    if (!world_open(&world, &(struct world_options){.size = WORLD_HIGH, .chain_length = 1}))
        return;
    CHECK_EQUAL(quire_pages_open(world.tree, NULL, &pages), 0);
    while (quire_pages_next(pages, &page) == 0 && !failed()) {
        CHECK(value_verify(page.entries[0].value, page.entries[0].value_size, &id), "a torn value");
        for (uint32_t i = 0; i < world.key_count; i += 2)
            world_put(&world, i);
        for (unsigned i = 0; i < 10; i++)
            quire_maintain(world.db);
        for (uint32_t i = 0; i < world.key_count; i += 2)
            world_put(&world, i);
        CHECK(value_verify(page.entries[0].value, page.entries[0].value_size, &again) && id == again,
              "an entry has changed");
    }
    CHECK_EQUAL(quire_pages_close(pages), 0);
    world_close(&world);
}

/* ---- Rounds ----------------------------------------------------------------------------------------------------- */

static void churn(struct actor *actor)
{
    for (uint32_t round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < 900; i++)
            actor_put(actor, actor->focus);
        maintain(actor);
    }
}

/*
 *   A is in a round of reclamation, or hands a batch over | ..stopped..                       | goes on
 *   others:                                                | read, write, split, merge, maintain | everything comes
 * back
 */
static void a_stopped_reclaimer_stops_nobody(void)
{
    static const char *const points[] = {"epoch.batch_detached", "epoch.ranges_taken", "epoch.round_taken",
                                         "epoch.grace_over",     "arena.trim_taken",   "arena.pop_loaded"};
    for (uint32_t i = 0; i < 6 * work_count && !failed(); i++) {
        struct world world;
        const struct work *work = &works[i / 6];
        if (!world_open(&world, &(struct world_options){.size = WORLD_LOW, .store = work->store}))
            return;
        progress_step(points[i % 6]);
        struct actor a = {.world = &world, .body = churn, .focus = 21, .stop = points[i % 6]};
        CHECK(actor_start(&a), "A does not come to %s", points[i % 6]);
        progress_step(work->name);
        work->run(&world, 12);
        world_check_all(&world);
        actor_finish(&a);
        world_close(&world);
    }
}

/* ---- Free memory in the hands of another thread ------------------------------------------------------------------ */

#define FULL_STALL_MS 2000u

/* A world of its own: a tree that is full up to its limit. */
static void full_open(struct world *world, uint32_t stall_ms)
{
    struct quire_options options;
    *world = (struct world){0};
    pthread_mutex_init(&world->mutex, NULL);
    quire_options_init(&options);
    options.memory_limit_bytes = 16u << 20;
    options.background_threads = QUIRE_NO_THREADS;
    options.stall_timeout_ms = stall_ms;
    CHECK_EQUAL(quire_open(NULL, &options, &world->db), 0);
    CHECK_EQUAL(quire_tree_open(world->db, NULL, NULL, &world->tree), 0);
}

static void full_close(struct world *world)
{
    CHECK_EQUAL(quire_close(world->db), 0);
    pthread_mutex_destroy(&world->mutex);
}

static const void *full_key(uint32_t number, uint8_t key[4])
{
    for (unsigned i = 0; i < 4; i++)
        key[i] = (uint8_t)(number >> (24 - 8 * i));
    return key;
}

/* Puts new keys, from count on, until one is refused. */
static void put_until_refused(struct actor *actor)
{
    static const char value[500];
    uint8_t key[4];
    for (;; actor->count++) {
        actor->result = quire_put(actor->world->tree, full_key(actor->count, key), 4, value, sizeof(value), 0, NULL);
        if (actor->result != 0)
            return;
    }
}

static void delete_first(struct world *world, uint32_t count)
{
    uint8_t key[4];
    for (uint32_t i = 0; i < count && !failed(); i++)
        CHECK_EQUAL(quire_delete(world->tree, full_key(i, key), 4, 0, NULL, NULL), 0);
}

static struct quire_stats stats_of(struct world *world)
{
    struct quire_stats stats = {.struct_size = sizeof(stats)};
    CHECK_EQUAL(quire_stats(world->db, &stats), 0);
    return stats;
}

static void reclaim(struct actor *actor)
{
    struct quire *db = actor->world->db;
    struct qr_thread *thread = qr_thread_self(db->epoch);
    while (qr_epoch_reclaim(db->epoch, thread))
        ;
    qr_arena_cache_flush(db->arena, &thread->cache);
}

static void maintain_once(struct actor *actor)
{
    CHECK(quire_maintain(actor->world->db) >= 0, "it fails");
}

static void trim(struct actor *actor)
{
    qr_arena_trim(actor->world->db->arena);
}

static void put_under_a_guard(struct actor *actor)
{
    struct quire_guard guard;
    CHECK_EQUAL(quire_pin(actor->world->db, "writer", &guard), 0);
    put_until_refused(actor);
    CHECK_EQUAL(quire_unpin(&guard), 0);
}

/* What A does, where it stops, and what B does meanwhile. */
struct hands {
    actor_fn *body;
    const char *stop;
    uint32_t share; /* one in so many of the keys is deleted before */
    actor_fn *put;
};

static void open_with_free_memory(struct world *world, const struct hands *hands, uint32_t stall_ms,
                                  uint32_t *ret_count)
{
    struct actor filler = {.world = world};
    full_open(world, stall_ms);
    for (uint32_t i = 0; i < 3; i++) {
        maintain(&filler); /* so that it has little to do when A does it */
        put_until_refused(&filler);
        CHECK_EQUAL(filler.result, QUIRE_ERR_NO_MEMORY);
    }
    delete_first(world, filler.count / hands->share);
    if (hands->body == trim)
        reclaim(&filler);
    *ret_count = filler.count;
}

/*
 *   A trims, or reclaims: has all free blocks in its hands | ..stopped..               | puts them back
 *   B puts at the limit:                                   | finds nothing, waits      | goes on until it is full
 */
static void a_put_waits_for_what_others_have_in_hand(void)
{
    static const struct hands hands[] = {{trim, "arena.trim_taken", 3, put_until_refused},
                                         {trim, "arena.trim_taken", 3, put_under_a_guard},
                                         {maintain_once, "epoch.grace_over", 10, put_until_refused}};
    for (uint32_t i = 0; i < 3 && !failed(); i++) {
        struct world world;
        uint32_t count;
        progress_step(hands[i].stop);
        open_with_free_memory(&world, &hands[i], FULL_STALL_MS, &count);
        struct actor a = {.world = &world, .body = hands[i].body, .stop = hands[i].stop};
        struct actor b = {.world = &world, .body = hands[i].put, .count = count};
        CHECK(actor_start(&a), "A does not come to %s", hands[i].stop);
        actor_launch(&b);
        CHECK(!actor_ends_within(&b, FULL_STALL_MS / 4), "B does not wait");
        uint64_t before = stats_of(&world).puts; /* the one that waits is among them */
        actor_finish(&a);
        actor_finish(&b);
        CHECK_EQUAL(b.result, QUIRE_ERR_NO_MEMORY);
        CHECK(stats_of(&world).puts > before, "after %s nothing came back", hands[i].stop);
        full_close(&world);
    }
}

/*
 *   A trims | ..stopped..                                                          | ends
 *   B puts:   | finds nothing, waits until the stall time is over, is refused |    | puts
 */
static void a_trim_that_does_not_end_stalls_puts_for_the_timeout(void)
{
    static const struct hands hands = {trim, "arena.trim_taken", 3, put_until_refused};
    struct world world;
    uint32_t count;
    open_with_free_memory(&world, &hands, 100, &count);
    struct actor a = {.world = &world, .body = hands.body, .stop = hands.stop};
    struct actor b = {.world = &world, .count = count};
    CHECK(actor_start(&a), "A does not come to %s", hands.stop);
    uint64_t stalls = stats_of(&world).stalls;
    uint64_t since_ns = history_now_ns();
    put_until_refused(&b);
    CHECK_EQUAL(b.result, QUIRE_ERR_NO_MEMORY);
    CHECK(history_now_ns() - since_ns >= 100000000, "it does not wait");
    CHECK(stats_of(&world).stalls > stalls, "no stall is counted");
    actor_finish(&a);
    count = b.count;
    put_until_refused(&b);
    CHECK_EQUAL(b.result, QUIRE_ERR_NO_MEMORY);
    CHECK(b.count > count, "nothing came back");
    full_close(&world);
}

const struct interleave_case memory_cases[] = {
    {"a page id popped and pushed again meanwhile is not lost or doubled", popped_and_pushed_again},
    {"a leaf stays while a reader is in it", a_leaf_stays_while_a_reader_is_in_it},
    {"what was handed out stays", what_was_handed_out_stays},
    {"a stopped reclaimer stops nobody", a_stopped_reclaimer_stops_nobody},
    {"a put waits for what others have in hand", a_put_waits_for_what_others_have_in_hand},
    {"a trim that does not end stalls puts for the timeout", a_trim_that_does_not_end_stalls_puts_for_the_timeout},
    {NULL, NULL},
};
