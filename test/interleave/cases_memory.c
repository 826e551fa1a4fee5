/*
 * Scripted cases of page ids and reclamation.
 *
 * Test program (interleave). Reclamation waits for sections: what an actor in a section has found stays; and a thread
 * that is stopped in a round of reclamation stops nothing but reclamation.
 */
#include "interleave.h"

#include "db/db.h"

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
    for (unsigned i = 0; i < 1000 && result == QUIRE_MORE; i++)
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

const struct interleave_case memory_cases[] = {
    {"a page id popped and pushed again meanwhile is not lost or doubled", popped_and_pushed_again},
    {"a leaf stays while a reader is in it", a_leaf_stays_while_a_reader_is_in_it},
    {"what was handed out stays", what_was_handed_out_stays},
    {"a stopped reclaimer stops nobody", a_stopped_reclaimer_stops_nobody},
    {NULL, NULL},
};
