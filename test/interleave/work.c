/*
 * The windows in which an actor can be stopped, and the works that others do meanwhile.
 *
 * Test program (interleave). A body is written so that its actor passes the point about its focus key in at least one
 * of the worlds; whether it did is counted, and a window that no world reaches fails the test (windows.c).
 */
#include "interleave.h"

#include <stddef.h>

/* ---- Bodies of actors ------------------------------------------------------------------------------------------- */

static uint32_t focus_key(const struct world *world, uint32_t focus, uint32_t offset)
{
    return (focus + offset) % world->key_count;
}

static void put_once(struct actor *actor)
{
    actor_put(actor, actor->focus);
}

static void get_once(struct actor *actor)
{
    actor_get(actor, actor->focus);
}

/* Splits the leaf about the focus, and what is above it in the end. */
static void put_between(struct actor *actor)
{
    for (uint32_t i = 0; i < 24; i++)
        actor_put(actor, focus_key(actor->world, actor->focus | 1, i * 2));
}

/* One key again and again: the chain grows, the leaf is consolidated. */
static void put_again(struct actor *actor)
{
    for (uint32_t i = 0; i < 24; i++)
        actor_put(actor, actor->focus);
}

/* Empties the leaf of the focus and the next ones. */
static void delete_some(struct actor *actor)
{
    for (uint32_t i = 0; i < 60; i++) /* twice: the second time around chains full of deletions are consolidated */
        actor_delete(actor, focus_key(actor->world, actor->focus, i % 30));
}

/* All but the focus' neighbourhood; what is left is maintained: the root loses its children, and at last the only one.
 */
static void delete_most(struct actor *actor)
{
    int result = QUIRE_MORE;
    for (uint32_t i = 4; i < actor->world->key_count; i++)
        actor_delete(actor, focus_key(actor->world, actor->focus, i));
    for (unsigned i = 0; i < 1000 && result == QUIRE_MORE; i++)
        result = quire_maintain(actor->world->db);
}

static void consolidate_all(struct actor *actor)
{
    actor_put(actor, actor->focus);
    CHECK_EQUAL(qr_testing_consolidate(actor->world->tree, 1, 100), 0);
}

static void drop_all(struct actor *actor)
{
    qr_testing_drop_pages(actor->world->db, 1, 100);
}

static void put_dropped(struct actor *actor)
{
    qr_testing_drop_pages(actor->world->db, 2, 100);
    actor_put(actor, actor->focus);
}

/* A blind write leaves a stub; another key of the leaf needs what is on disk. */
static void get_from_stub(struct actor *actor)
{
    qr_testing_drop_pages(actor->world->db, 3, 100);
    actor_put(actor, actor->focus);
    actor_get(actor, actor->focus ^ 2);
    actor_get(actor, focus_key(actor->world, actor->focus, actor->world->key_count - 2));
}

static void take_snapshot(struct actor *actor)
{
    struct world_snapshot snapshot;
    CHECK_EQUAL(quire_snapshot(actor->world->db, "actor", &snapshot.snapshot), 0);
    world_snapshot_release(&snapshot);
}

const struct window windows[] = {
    {"write.prepared", put_once, WINDOW_INVISIBLE},
    {"write.slot_open", put_once, WINDOW_INVISIBLE | WINDOW_SLOT},
    {"write.reserved", put_once, WINDOW_INVISIBLE | WINDOW_SLOT},
    {"write.decided", put_once, WINDOW_VISIBLE | WINDOW_SLOT},
    {"write.leaf_reserved", put_again, WINDOW_INVISIBLE | WINDOW_SLOT},
    {"write.blind_reserved", put_dropped, WINDOW_INVISIBLE | WINDOW_SLOT | WINDOW_STORE},
    {"find.parent_loaded", put_once, WINDOW_INVISIBLE},
    {"descend.parent_loaded", put_dropped, WINDOW_INVISIBLE | WINDOW_STORE},
    {"find.parent_loaded", get_once, 0},
    {"find.leaf_loaded", get_once, 0},
    /* A leaf is split before the write that it has no room for, or after one that has made it large. */
    {"split.right_private", put_between, 0},
    {"split.left_installed", put_between, 0},
    {"split.untagged", put_between, 0},
    {"post.parent_loaded", put_between, 0},
    {"post.posted", put_between, 0},
    {"inner.built", put_between, 0},
    {"merge.marked", delete_some, WINDOW_VISIBLE},
    {"merge.sealed", delete_some, WINDOW_VISIBLE},
    {"merge.absorb_built", delete_some, WINDOW_VISIBLE},
    {"merge.absorbed", delete_some, WINDOW_VISIBLE},
    {"merge.forwarded", delete_some, WINDOW_VISIBLE},
    {"inner.built", delete_some, WINDOW_VISIBLE},
    {"merge.child_sealed", delete_most, WINDOW_VISIBLE | WINDOW_WAITS},
    {"merge.collapsed", delete_most, WINDOW_VISIBLE | WINDOW_WAITS},
    {"consolidate.built", consolidate_all, 0},
    {"evict.floor_raised", drop_all, WINDOW_STORE},
    {"join.built", get_from_stub, WINDOW_STORE},
    {"snapshot.registered", take_snapshot, WINDOW_WAITS},
    {"snapshot.bounded", take_snapshot, WINDOW_WAITS},
};
const uint32_t window_count = sizeof(windows) / sizeof(windows[0]);

/* ---- Works of others -------------------------------------------------------------------------------------------- */

/* Whether an actor's write to the key is under way. */
static bool is_pending(struct world *world, uint32_t number)
{
    bool pending = false;
    pthread_mutex_lock(&world->mutex);
    for (uint32_t i = 0; i < world->actor_count; i++)
        pending |= world->actors[i]->pending && world->actors[i]->pending_key == number;
    pthread_mutex_unlock(&world->mutex);
    return pending;
}

static void put_if_free(struct world *world, uint32_t number)
{
    if (!is_pending(world, number))
        world_put(world, number);
}

static void delete_if_free(struct world *world, uint32_t number)
{
    if (!is_pending(world, number))
        world_delete(world, number);
}

static void read_focus(struct world *world, uint32_t focus)
{
    world_check_get(world, focus);
}

static void read_all(struct world *world, uint32_t focus)
{
    (void)focus;
    world_check_gets(world);
}

static void scan_forward(struct world *world, uint32_t focus)
{
    (void)focus;
    world_check_scan(world, false);
}

static void scan_backward(struct world *world, uint32_t focus)
{
    (void)focus;
    world_check_scan(world, true);
}

static void put_beside(struct world *world, uint32_t focus)
{
    put_if_free(world, focus_key(world, focus, 2));
    put_if_free(world, focus_key(world, focus, world->key_count - 2));
}

static void conditional_beside(struct world *world, uint32_t focus)
{
    uint32_t number = focus_key(world, focus, 3);
    char key[16];
    size_t key_size = world_key(number, key);
    int64_t sum = 0;
    int existed = -1;
    if (is_pending(world, number))
        return;
    world_delete(world, number);
    CHECK_EQUAL(quire_insert(world->tree, key, key_size, "12345678", 8, 0, NULL), 0);
    CHECK_EQUAL(quire_insert(world->tree, key, key_size, "12345678", 8, 0, NULL), QUIRE_EXISTS);
    CHECK_EQUAL(quire_compare_and_swap(world->tree, key, key_size, "x", 1, "y", 1, 0, NULL), QUIRE_CONFLICT);
    CHECK_EQUAL(quire_compare_and_swap(world->tree, key, key_size, "12345678", 8, "\1\0\0\0\0\0\0\0", 8, 0, NULL), 0);
    CHECK_EQUAL(quire_add(world->tree, key, key_size, 41, 0, &sum, NULL), 0);
    CHECK_EQUAL(sum, 42);
    CHECK_EQUAL(quire_delete(world->tree, key, key_size, 0, &existed, NULL), 0);
    CHECK_EQUAL(existed, 1);
}

static void split_here(struct world *world, uint32_t focus)
{
    for (uint32_t i = 0; i < 8; i++)
        put_if_free(world, focus_key(world, focus, i));
}

static void split_left(struct world *world, uint32_t focus)
{
    for (uint32_t i = 1; i < 16; i++)
        put_if_free(world, focus_key(world, focus, world->key_count - i));
}

static void split_right(struct world *world, uint32_t focus)
{
    for (uint32_t i = 8; i < 24; i++)
        put_if_free(world, focus_key(world, focus, i));
}

static void grow_all(struct world *world, uint32_t focus)
{
    for (uint32_t i = 0; i < world->key_count; i++)
        put_if_free(world, focus_key(world, focus, i));
}

static void merge_here(struct world *world, uint32_t focus)
{
    for (uint32_t i = 0; i < 12; i++)
        delete_if_free(world, focus_key(world, focus, i));
}

static void merge_left(struct world *world, uint32_t focus)
{
    for (uint32_t i = 1; i < 24; i++)
        delete_if_free(world, focus_key(world, focus, world->key_count - i));
}

static void shrink_all(struct world *world, uint32_t focus)
{
    for (uint32_t i = 0; i < world->key_count; i++)
        delete_if_free(world, focus_key(world, focus, i));
}

static void consolidate(struct world *world, uint32_t focus)
{
    put_if_free(world, focus_key(world, focus, 2));
    CHECK_EQUAL(qr_testing_consolidate(world->tree, 1, 100), 0);
}

static void drop(struct world *world, uint32_t focus)
{
    (void)focus;
    qr_testing_drop_pages(world->db, 4, 100);
}

/* Blind writes, then stubs that are dropped again or joined. */
static void drop_and_write(struct world *world, uint32_t focus)
{
    qr_testing_drop_pages(world->db, 5, 100);
    for (uint32_t i = 0; i < world->key_count; i += 3)
        put_if_free(world, focus_key(world, focus, i));
    qr_testing_drop_pages(world->db, 6, 50);
    for (uint32_t i = 1; i < world->key_count; i += 3)
        delete_if_free(world, focus_key(world, focus, i));
}

const struct work works[] = {
    {"read_focus", read_focus, false},
    {"read_all", read_all, false},
    {"scan_forward", scan_forward, false},
    {"scan_backward", scan_backward, false},
    {"put_beside", put_beside, false},
    {"conditional_beside", conditional_beside, false},
    {"split_here", split_here, false},
    {"split_left", split_left, false},
    {"split_right", split_right, false},
    {"grow_all", grow_all, false},
    {"merge_here", merge_here, false},
    {"merge_left", merge_left, false},
    {"shrink_all", shrink_all, false},
    {"consolidate", consolidate, false},
    {"drop", drop, true},
    {"drop_and_write", drop_and_write, true},
};
const uint32_t work_count = sizeof(works) / sizeof(works[0]);
