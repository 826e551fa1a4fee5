/*
 * Scripted cases of writes: conditions, LSNs, delta areas, and snapshots that are taken beside them.
 *
 * Test program (interleave). A is stopped inside its write; the controller works on the same page or the same key. K is
 * A's key; h is the head that A has judged, P the LSN that it has reserved, S a snapshot's LSN.
 */
#include "interleave.h"

#include "db/db.h"

#include <inttypes.h>
#include <string.h>

#define KEY_A 4u
#define KEY_B 6u

static bool open_tiny(struct world *world, uint32_t chain_length, bool store)
{
    struct world_options options = {.size = WORLD_TINY, .chain_length = chain_length, .store = store, .value_size = 16};
    return world_open(world, &options);
}

static void put_focus(struct actor *actor)
{
    actor_put(actor, actor->focus);
}

/* Newer versions enough to collect those that nobody reads. */
static void rewrite_key_a(struct world *world)
{
    for (uint32_t round = 0; round < 8; round++)
        world_put(world, KEY_A);
    CHECK_EQUAL(qr_testing_consolidate(world->tree, 1, 100), 0);
}

/* ---- Conditions ------------------------------------------------------------------------------------------------- */

/* The points between a condition's judgement and the installation. Chains of 8: a delta; of 1: a new leaf. */
static const char *const judged[] = {"write.prepared", "write.slot_open", "write.reserved", "write.leaf_reserved"};

static void add_one(struct actor *actor)
{
    char key[16];
    int64_t sum = 0;
    actor->result = quire_add(actor->world->tree, key, world_key(actor->focus, key), 1, 0, &sum, NULL);
    actor->count = (uint32_t)sum;
}

static void insert_one(struct actor *actor)
{
    char key[16];
    actor->result = quire_insert(actor->world->tree, key, world_key(actor->focus, key), "A", 1, 0, NULL);
}

static void swap_one(struct actor *actor)
{
    char key[16];
    actor->result =
        quire_compare_and_swap(actor->world->tree, key, world_key(actor->focus, key), "old", 3, "A", 1, 0, NULL);
}

static void delete_one(struct actor *actor)
{
    char key[16];
    int existed = -1;
    actor->result = quire_delete(actor->world->tree, key, world_key(actor->focus, key), 0, &existed, NULL);
    actor->count = (uint32_t)existed;
}

/* Runs `body` with A stopped at each of the points, and `beside` at that time; `after` judges. */
static void at_each_point(actor_fn *body, void (*prepare)(struct world *world, const char *key, size_t size),
                          void (*beside)(struct world *world, const char *key, size_t size),
                          void (*after)(struct actor *a, const char *key, size_t size))
{
    for (uint32_t i = 0; i < 8 && !failed(); i++) {
        struct world world;
        char key[16];
        size_t size = world_key(KEY_A, key);
        if (!open_tiny(&world, i < 4 ? 8 : 1, i % 2 == 1))
            return;
        world_delete(&world, KEY_A);
        prepare(&world, key, size);
        struct actor a = {.world = &world, .body = body, .focus = KEY_A, .stop = judged[i % 4]};
        actor_start(&a);
        beside(&world, key, size);
        actor_finish(&a);
        after(&a, key, size);
        CHECK_EQUAL(quire_delete(world.tree, key, size, 0, NULL, NULL), 0);
        world_close(&world);
    }
}

static void no_preparation(struct world *world, const char *key, size_t size)
{
    (void)world, (void)key, (void)size;
}

static void add_ten(struct world *world, const char *key, size_t size)
{
    int64_t sum = 0;
    world_put(world, KEY_B); /* another key: A need not judge again */
    CHECK_EQUAL(quire_add(world->tree, key, size, 10, 0, &sum, NULL), 0);
    CHECK(sum == 10 || sum == 11, "sum %" PRId64, sum);
}

static void check_eleven(struct actor *a, const char *key, size_t size)
{
    int64_t sum = 0;
    CHECK_EQUAL(a->result, 0);
    CHECK(a->count == 1 || a->count == 11, "A's sum %u", a->count);
    CHECK_EQUAL(quire_add(a->world->tree, key, size, 0, 0, &sum, NULL), 0);
    CHECK_EQUAL(sum, 11);
}

/* A: | judges K = 0 | ..stopped..      | must judge again, or its +1 goes over the +10 */
static void additions_add_up(void)
{
    at_each_point(add_one, no_preparation, add_ten, check_eleven);
}

static int controller_result;

static void insert_too(struct world *world, const char *key, size_t size)
{
    controller_result = quire_insert(world->tree, key, size, "C", 1, 0, NULL);
}

static void check_one_inserted(struct actor *a, const char *key, size_t size)
{
    char value[4] = "";
    size_t value_size = 0;
    CHECK((a->result == 0) != (controller_result == 0), "inserts: %d and %d", a->result, controller_result);
    CHECK_EQUAL(quire_get(a->world->tree, NULL, key, size, value, sizeof(value), &value_size), 0);
    CHECK(value[0] == (a->result == 0 ? 'A' : 'C'), "the value is %s", value);
}

/* A: | judges K absent | ..stopped..   | finds it there */
static void one_insert_wins(void)
{
    at_each_point(insert_one, no_preparation, insert_too, check_one_inserted);
}

static void put_old(struct world *world, const char *key, size_t size)
{
    CHECK_EQUAL(quire_put(world->tree, key, size, "old", 3, 0, NULL), 0);
}

static void swap_too(struct world *world, const char *key, size_t size)
{
    controller_result = quire_compare_and_swap(world->tree, key, size, "old", 3, "C", 1, 0, NULL);
}

/* A: | judges K = old | ..stopped..    | finds another */
static void one_swap_wins(void)
{
    at_each_point(swap_one, put_old, swap_too, check_one_inserted);
}

static void delete_too(struct world *world, const char *key, size_t size)
{
    CHECK_EQUAL(quire_delete(world->tree, key, size, 0, &controller_result, NULL), 0);
}

static void check_one_deleted(struct actor *a, const char *key, size_t size)
{
    CHECK_EQUAL(a->result, 0);
    CHECK_EQUAL(a->count + (uint32_t)controller_result, 1);
    CHECK_EQUAL(quire_exists(a->world->tree, NULL, key, size), QUIRE_NOT_FOUND);
}

/* A: | judges K present | ..stopped..  | says that it was absent */
static void one_delete_removes(void)
{
    at_each_point(delete_one, put_old, delete_too, check_one_deleted);
}

/* ---- LSNs and areas --------------------------------------------------------------------------------------------- */

static void put_and_keep_lsn(struct actor *actor)
{
    char key[16];
    actor->result =
        quire_put(actor->world->tree, key, world_key(actor->focus, key), "A", 1, 0, (uint64_t *)actor->argument);
}

/*
 *   A has reserved P; others install above it:        h: [ ... | B at P+1 ]
 *
 *   A's record may not come on top of a higher LSN: it is reserved anew. Same key, and another one.
 */
static void lsns_grow_on_a_page(void)
{
    for (uint32_t beside = KEY_A; beside <= KEY_B && !failed(); beside += 2) {
        struct world world;
        uint64_t lsn_a = 0, lsn_b = 0;
        char key[16], value[4] = "";
        size_t size = 0;
        if (!open_tiny(&world, 8, false))
            return;
        struct actor a = {
            .world = &world, .body = put_and_keep_lsn, .focus = KEY_A, .argument = &lsn_a, .stop = "write.reserved"};
        CHECK(actor_start(&a), "A does not come to write.reserved");
        CHECK_EQUAL(quire_put(world.tree, key, world_key(beside, key), "B", 1, 0, &lsn_b), 0);
        actor_finish(&a);
        CHECK(lsn_a > lsn_b, "A was installed last, at %" PRIu64 " below %" PRIu64, lsn_a, lsn_b);
        CHECK_EQUAL(quire_get(world.tree, NULL, key, world_key(KEY_A, key), value, sizeof(value), &size), 0);
        CHECK(value[0] == 'A', "the last write does not show, but %c", value[0]);
        world_delete(&world, KEY_A);
        world_delete(&world, KEY_B);
        world_close(&world);
    }
}

/* A has written its record into the page's area and not linked it; others write beside it. */
static void areas_do_not_overlap(void)
{
    struct world world;
    if (!open_tiny(&world, 8, false))
        return;
    struct actor a = {.world = &world, .body = put_focus, .focus = KEY_A, .stop = "write.prepared"};
    CHECK(actor_start(&a), "A does not come to write.prepared");
    for (uint32_t i = 0; i < 3; i++)
        world_put(&world, KEY_B);
    actor_finish(&a);
    world_check_all(&world);
    world_close(&world);
}

/* A page whose records are all gone still has the LSN of the last one. */
static void the_page_keeps_its_lsn(void)
{
    struct world world;
    uint64_t lsn = 0;
    char key[16];
    if (!open_tiny(&world, 8, false))
        return;
    for (uint32_t i = 0; i < world.key_count; i++)
        world_delete(&world, i);
    CHECK_EQUAL(quire_delete(world.tree, key, world_key(KEY_A, key), 0, NULL, &lsn), 0);
    CHECK_EQUAL(qr_testing_consolidate(world.tree, 1, 100), 0);
    const struct qr_page *page = qr_word_block(qr_map_load(world.db->map, world.tree->tree.root));
    CHECK_EQUAL(page->count, 0);
    CHECK(page->max_lsn >= lsn, "max_lsn %" PRIu64 " below %" PRIu64, page->max_lsn, lsn);
    world_close(&world);
}

/* ---- Snapshots -------------------------------------------------------------------------------------------------- */

static void take_snapshot(struct actor *actor)
{
    CHECK_EQUAL(quire_snapshot(actor->world->db, "case", (struct quire_snapshot **)actor->argument), 0);
}

static uint64_t read_at(struct world *world, struct quire_snapshot *snapshot, uint32_t number)
{
    char key[16];
    uint8_t value[VALUE_BYTES_MAX];
    size_t size = 0;
    uint64_t id = 0;
    int result = quire_get(world->tree, snapshot, key, world_key(number, key), value, sizeof(value), &size);
    if (result == 0)
        CHECK(value_verify(value, size, &id), "a torn value");
    return id;
}

/*
 *   A: | reserved P | ..stopped..                | installs P
 *   S:               | S >= P, waits for A's slot | handed out: sees A's write, now and for ever
 */
static void a_snapshot_waits_for_open_slots(void)
{
    static const char *const points[] = {"write.reserved", "write.leaf_reserved", "write.decided"};
    for (uint32_t i = 0; i < 3 && !failed(); i++) {
        struct world world;
        struct quire_snapshot *snapshot = NULL;
        if (!open_tiny(&world, i == 1 ? 1 : 8, false))
            return;
        if (i == 1)
            world_put(&world, KEY_A); /* the chain is full */
        struct actor a = {.world = &world, .body = put_focus, .focus = KEY_A, .stop = points[i]};
        struct actor s = {.world = &world, .body = take_snapshot, .argument = &snapshot};
        CHECK(actor_start(&a), "A does not come to %s", points[i]);
        actor_launch(&s);
        CHECK(!actor_ends_within(&s, 50), "the snapshot does not wait at %s", points[i]);
        world_check_all(&world); /* others do not */
        actor_finish(&a);
        actor_finish(&s);
        uint64_t seen = read_at(&world, snapshot, KEY_A);
        /* The new leaf may be given up, since the snapshot raised the generation, and be written anew above S. */
        CHECK(seen == world.cells[KEY_A].id || i == 1, "the snapshot shows %" PRIu64, seen);
        rewrite_key_a(&world);
        CHECK_EQUAL(read_at(&world, snapshot, KEY_A), seen);
        CHECK_EQUAL(quire_snapshot_release(snapshot), 0);
        world_close(&world);
    }
}

/*
 *   A overwrites K by a consolidation that drops the old version; its bounds were loaded before S was there:
 *
 *   A: | bounds | slot open | ..stopped..                   | reserves P > S: the bounds do not hold, the old version
 * stays S:                       | S below the slot's bound: no wait, sees the old version
 */
static void an_overwriting_consolidation_sees_new_snapshots(void)
{
    struct world world;
    struct quire_snapshot *snapshot = NULL;
    if (!open_tiny(&world, 1, false))
        return;
    world_put(&world, KEY_A); /* the chain is full */
    uint64_t old = world.cells[KEY_A].id;
    struct actor a = {.world = &world, .body = put_focus, .focus = KEY_A, .stop = "write.slot_open"};
    CHECK(actor_start(&a), "A does not come to write.slot_open");
    CHECK_EQUAL(quire_snapshot(world.db, "case", &snapshot), 0);
    actor_finish(&a);
    CHECK_EQUAL(read_at(&world, snapshot, KEY_A), old);
    CHECK_EQUAL(read_at(&world, NULL, KEY_A), world.cells[KEY_A].id);
    CHECK_EQUAL(quire_snapshot_release(snapshot), 0);
    world_close(&world);
}

/*
 *   S: | registered | S loaded | ..stopped..             | handed out: sees K as of S
 *   controller:                 | K again and again, consolidated: the version as of S stays
 */
static void a_snapshot_under_way_keeps_its_versions(void)
{
    static const char *const points[] = {"snapshot.registered", "snapshot.bounded"};
    for (uint32_t i = 0; i < 4 && !failed(); i++) {
        struct world world;
        struct quire_snapshot *snapshot = NULL;
        if (!open_tiny(&world, i < 2 ? 1 : 4, false))
            return;
        uint64_t old = world.cells[KEY_A].id;
        struct actor s = {.world = &world, .body = take_snapshot, .argument = &snapshot, .stop = points[i % 2]};
        CHECK(actor_start(&s), "S does not come to %s", points[i % 2]);
        rewrite_key_a(&world);
        actor_finish(&s);
        uint64_t seen = read_at(&world, snapshot, KEY_A);
        CHECK_EQUAL(seen, i % 2 == 1 ? old : world.cells[KEY_A].id);
        rewrite_key_a(&world);
        CHECK_EQUAL(read_at(&world, snapshot, KEY_A), seen);
        CHECK_EQUAL(quire_snapshot_release(snapshot), 0);
        world_close(&world);
    }
}

/* ---- Pages on disk, caller versions ----------------------------------------------------------------------------- */

/* A blind deletion lies above a value on disk: however often the stub is consolidated, the deletion stays. */
static void a_blind_deletion_stays(void)
{
    struct world world;
    struct world_options options = {
        .size = WORLD_HIGH, .chain_length = 1, .leaf_size = 4096, .value_size = 200, .store = true};
    if (!world_open(&world, &options))
        return;
    qr_testing_drop_pages(world.db, 1, 100);
    world_delete(&world, 100);
    for (uint32_t i = 0; i < 4; i++)
        world_put_sized(&world, 101, 20);
    CHECK_EQUAL(qr_testing_consolidate(world.tree, 1, 100), 0);
    world_check_get(&world, 100);
    world_check_all(&world);
    world_close(&world);
}

/* EVICT-2: the floors know the highest LSN of what left memory. */
static void the_floor_is_raised_before_a_page_leaves(void)
{
    struct world world;
    uint64_t last = 0, highest = 0;
    if (!world_open(&world, &(struct world_options){.size = WORLD_LOW, .store = true}))
        return;
    world_put(&world, 20);
    CHECK_EQUAL(quire_last_lsn(world.db, &last), 0);
    for (uint64_t seed = 1; seed < 20; seed++)
        qr_testing_drop_pages(world.db, seed, 100);
    for (uint64_t pid = 0; pid < QR_FLOOR_COUNT; pid++) {
        uint64_t floor = qr_map_floor(world.db->map, pid);
        highest = floor > highest ? floor : highest;
    }
    CHECK(highest >= last, "the highest floor is %" PRIu64 ", the last LSN %" PRIu64, highest, last);
    world_close(&world);
}

/* Versions above the safe version stay, each of them, whatever is consolidated. */
static void versions_above_the_safe_one_stay(void)
{
    struct quire *db = NULL;
    struct quire_tree *tree = NULL;
    struct quire_tree_options options;
    quire_tree_options_init(&options);
    options.versions = QUIRE_VERSIONS_CALLER;
    options.page_chain_length = 2;
    CHECK_EQUAL(quire_open(NULL, NULL, &db), 0);
    CHECK_EQUAL(quire_tree_open(db, "caller", &options, &tree), 0);
    for (uint64_t version = 1; version <= 12; version++)
        CHECK_EQUAL(quire_put_at(tree, version, "k", 1, &version, sizeof(version), 0, NULL), 0);
    CHECK_EQUAL(quire_set_safe_lsn(tree, 5), 0);
    CHECK_EQUAL(qr_testing_consolidate(tree, 1, 100), 0);
    for (uint64_t version = 5; version <= 12; version++) {
        uint64_t value = 0;
        size_t size = 0;
        CHECK_EQUAL(quire_get_at(tree, version, "k", 1, &value, sizeof(value), &size), 0);
        CHECK_EQUAL(value, version);
    }
    CHECK_EQUAL(quire_close(db), 0);
}

const struct interleave_case write_cases[] = {
    {"additions add up", additions_add_up},
    {"one of two inserts wins", one_insert_wins},
    {"one of two swaps wins", one_swap_wins},
    {"one of two deletions removes", one_delete_removes},
    {"LSNs grow on a page", lsns_grow_on_a_page},
    {"areas do not overlap", areas_do_not_overlap},
    {"a page keeps its LSN", the_page_keeps_its_lsn},
    {"a snapshot waits for open slots", a_snapshot_waits_for_open_slots},
    {"an overwriting consolidation sees new snapshots", an_overwriting_consolidation_sees_new_snapshots},
    {"a snapshot under way keeps its versions", a_snapshot_under_way_keeps_its_versions},
    {"a blind deletion stays", a_blind_deletion_stays},
    {"the floor is raised before a page leaves memory", the_floor_is_raised_before_a_page_leaves},
    {"versions above the safe one stay", versions_above_the_safe_one_stay},
    {NULL, NULL},
};
