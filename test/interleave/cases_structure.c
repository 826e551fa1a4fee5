/*
 * Scripted cases of splits, merges, parents and pages that leave memory.
 *
 * Test program (interleave). Each case draws the state in which the thread A is stopped. P is the parent, X the left
 * page of a merge, R the right one; [a, s) are bounds, -> sibling links.
 */
#include "interleave.h"

#include "base/alloc.h"
#include "db/db.h"
#include "page/inner.h"

#include <stddef.h>

/* ---- Bodies ----------------------------------------------------------------------------------------------------- */

static void read_focus(struct actor *actor)
{
    actor_get(actor, actor->focus);
}

static void put_focus(struct actor *actor)
{
    actor_put(actor, actor->focus);
}

static void delete_after_focus(struct actor *actor)
{
    for (uint32_t round = 0; round < 2; round++) {
        for (uint32_t i = 1; i <= actor->count; i++)
            actor_delete(actor, actor->focus + i);
    }
}

/* Deletes all but a few keys and maintains, once: the root is left with one child. */
static void delete_all_and_maintain(struct actor *actor)
{
    int result = QUIRE_MORE;
    for (uint32_t i = 4; i < actor->world->key_count; i++)
        actor_delete(actor, (actor->focus + i) % actor->world->key_count);
    for (unsigned i = 0; i < 1000 && result == QUIRE_MORE; i++)
        result = quire_maintain(actor->world->db);
}

static void put_odd(struct actor *actor)
{
    for (uint32_t round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < actor->count; i++)
            actor_put(actor, (actor->focus | 1) + 2 * i);
    }
}

/* ---- Preparing -------------------------------------------------------------------------------------------------- */

/* The first key of the leaf after that of `number`. */
static uint32_t next_leaf(struct world *world, uint32_t number)
{
    uint32_t first = world_leaf_first(world, number);
    while (world_leaf_first(world, number) == first && number + 2 < world->key_count)
        number += 2;
    return number;
}

static bool open_small(struct world *world, bool store)
{
    struct world_options options = {.size = WORLD_HIGH, .chain_length = 1, .leaf_size = 1024, .store = store};
    return world_open(world, &options);
}

/*
 * Opens a world with two neighbours, not the first of their parent: X with the key l alone, not underfull, and R with
 * the key r alone and further keys to be deleted, after which R is underfull and fits into X.
 */
static bool open_neighbours(struct world *world, bool store, uint32_t *ret_last_left, uint32_t *ret_first_right)
{
    if (!open_small(world, store))
        return false;
    uint32_t right = next_leaf(world, world->key_count / 2);
    uint32_t left = right - 2;
    uint32_t first = world_leaf_first(world, left);
    world_put_sized(world, left, 200);
    world_put_sized(world, right, 20);
    CHECK_EQUAL(qr_testing_consolidate(world->tree, 1, 100), 0);
    for (uint32_t i = first; i < left; i++)
        world_delete(world, i);
    *ret_last_left = left;
    *ret_first_right = right;
    return true;
}

/* Every inner page in memory is what such a page has to be. All actors are stopped, so nothing is replaced or reclaimed. */
static void check_inner_pages(struct world *world, uint64_t pid)
{
    qr_word word = qr_map_load(world->db->map, pid);
    if (qr_word_tag(word) != QR_WORD_HEAD)
        return;
    const struct qr_page *page = qr_word_block(word);
    if (page->kind != QR_PAGE_INNER)
        return;
    const char *wrong = qr_page_check(page);
    CHECK(wrong == NULL, "page %u: %s", (unsigned)pid, wrong);
    for (uint32_t i = 0; i < page->count; i++)
        check_inner_pages(world, qr_inner_child(page, i));
}

/* Whether the entries lead to the leaf of a key: in memory, taking changes, with the key within its bounds. */
static bool is_found_from_above(struct world *world, uint32_t number)
{
    char text[512]; /* more than a key, or the compiler sees reads of the hash beyond it that are none */
    struct qr_key key = qr_key_make(text, world_key(number, text));
    uint64_t pid = world->tree->tree.root;
    for (;;) {
        qr_word word = qr_map_load(world->db->map, pid);
        if (qr_word_tag(word) != QR_WORD_HEAD)
            return false;
        const struct qr_page *page = qr_word_block(word);
        if (qr_page_key_below(page, &key) || qr_page_key_beyond(page, &key))
            return false;
        if (page->kind == QR_PAGE_LEAF)
            return true;
        pid = qr_inner_child(page, qr_inner_find(page, &key));
    }
}

/* ---- Cases ------------------------------------------------------------------------------------------------------ */

/*
 *   A has absorbed R into X and not forwarded R. X is then split just where R began:
 *
 *        P: [ X | R* ]            X [a, s) -> R' [s, b)           R SEALED, with the old content
 *
 *   The entry of R is not the separator of R', which B posts: nobody may have to come by R' first (PARENT-3). Whoever
 *   meets R: its content must not come into X a second time, R' is what counts.
 */
static void absorbed_then_split_at_the_same_key(void)
{
    struct world world;
    uint32_t left, right;
    if (!open_neighbours(&world, false, &left, &right))
        return;
    struct actor a = {
        .world = &world, .body = delete_after_focus, .focus = right, .count = 20, .stop = "merge.absorbed"};
    struct actor b = {.world = &world, .body = put_focus, .focus = right, .stop = "merge.absorb_built"};
    CHECK(actor_start(&a), "A does not come to merge.absorbed");
    world_put_sized(&world, left, 900);
    CHECK(is_found_from_above(&world, right), "the separator of the new page is not posted");
    actor_start(&b);
    actor_finish(&a);
    CHECK(is_found_from_above(&world, right), "the separator of the new page is gone");
    world_put(&world, right);
    actor_finish(&b);
    world_check_all(&world);
    world_close(&world);
}

/*
 *   A has absorbed R into X and not forwarded R. Others write keys of R: they go to X.
 *
 *        P: [ X | R* ]            X [a, b), newer                 R SEALED, with the old content
 *
 *   Readers that P leads to R may not take what it holds.
 */
static void sealed_page_that_was_absorbed(void)
{
    struct world world;
    uint32_t left, right;
    if (!open_neighbours(&world, false, &left, &right))
        return;
    struct actor a = {
        .world = &world, .body = delete_after_focus, .focus = right, .count = 20, .stop = "merge.absorbed"};
    CHECK(actor_start(&a), "A does not come to merge.absorbed");
    world_put_sized(&world, left + 1, 60); /* X itself changes, so that it is not R that a write finishes first */
    world_check_all(&world);
    world_put(&world, right);
    world_check_all(&world);
    actor_finish(&a);
    world_check_all(&world);
    world_close(&world);
}

/*
 *   A has sealed the root's only child. Others finish that, and the tree grows to its old height:
 *
 *        root: [ C ]   C SEALED        root: [ D | E ]   C FORWARD
 *
 *   A finds nothing left to do.
 */
static void collapsed_and_grown_again(void)
{
    struct world world;
    if (!world_open(&world, &(struct world_options){.size = WORLD_HIGH, .chain_length = 1}))
        return;
    struct actor a = {.world = &world, .body = delete_all_and_maintain, .focus = 0, .stop = "merge.child_sealed"};
    CHECK(actor_start(&a), "A does not come to merge.child_sealed");
    for (uint32_t i = 0; i < world.key_count; i++)
        world_put_sized(&world, i, 100);
    world_check_all(&world);
    actor_finish(&a);
    world_check_all(&world);
    world_close(&world);
}

/*
 *   A has forwarded R to X and cannot take the separator out, since P is not in memory: it gives up. Then X is split to
 * the left of R's keys, and what keeps X's id is merged away:
 *
 *        P: [ W | X'' | R* ]        R FORWARD to X        X free, and used again for a page elsewhere
 *
 *   Whoever meets R may not follow it.
 */
static void forwarded_to_a_page_that_went_away(void)
{
    struct world world;
    uint32_t left, right;
    if (!open_neighbours(&world, true, &left, &right))
        return;
    struct actor a = {
        .world = &world, .body = delete_after_focus, .focus = right, .count = 20, .stop = "merge.forwarded"};
    CHECK(actor_start(&a), "A does not come to merge.forwarded");
    qr_testing_drop_pages(world.db, 1, 100);
    a.count = 0; /* no further deletion: it would find R */
    actor_finish(&a);
    for (uint32_t i = left - 7; i < left; i++)
        world_put_sized(&world, i, 100); /* splits X */
    for (uint32_t i = left - 7; i < left; i++)
        world_delete(&world, i);
    for (unsigned i = 0; i < 1000 && quire_maintain(world.db) == QUIRE_MORE; i++) {
    }
    for (uint32_t i = 201; i < 239; i += 2)
        world_put_sized(&world, i, 300); /* splits: X's id is used again */
    world_check_get(&world, right); /* a reader goes by the entry before */
    world_put(&world, right);
    world_check_all(&world);
    world_close(&world);
}

/*
 *   A has marked R. B finds X underfull, and would mark it, too:
 *
 *        P: [ W | X* | R* ]         no page that may be (INNER-2)
 *
 *   B has to finish R's merge first.
 */
static void marked_beside_a_marked_page(void)
{
    struct world world;
    uint32_t left, right;
    if (!open_neighbours(&world, false, &left, &right))
        return;
    struct actor a = {.world = &world, .body = delete_after_focus, .focus = right, .count = 20, .stop = "merge.marked"};
    struct actor b = {.world = &world, .body = delete_after_focus, .focus = left - 1, .count = 1, .stop = "merge.marked"};
    CHECK(actor_start(&a), "A does not come to merge.marked");
    actor_start(&b); /* or it ends: X with R's content is not underfull */
    check_inner_pages(&world, world.tree->tree.root);
    world_check_all(&world);
    actor_finish(&b);
    actor_finish(&a);
    world_check_all(&world);
    world_close(&world);
}

/*
 *   A has split X and stopped before it posts R's separator. Others have posted it, emptied R and merged it away:
 *
 *        A knows:  P: [ X ]            now:  P: [ X | .. ]      R FORWARD to X, then free
 *
 *   A may not post a separator to R.
 */
static void posted_after_the_page_went_away(void)
{
    struct world world;
    if (!open_small(&world, false))
        return;
    uint32_t first = next_leaf(&world, world.key_count / 2);
    struct actor a = {.world = &world, .body = put_odd, .focus = first, .count = 8, .stop = "post.parent_loaded"};
    CHECK(actor_start(&a), "A does not come to post.parent_loaded");
    a.count = 0;
    world_check_all(&world); /* goes right, and posts */
    for (uint32_t round = 0; round < 2; round++) {
        for (uint32_t i = first; i < first + 16; i++) {
            if (i != a.pending_key)
                world_delete(&world, i);
        }
    }
    world_check_all(&world);
    actor_finish(&a);
    for (unsigned i = 0; i < 1000 && quire_maintain(world.db) == QUIRE_MORE; i++) {
    }
    world_check_all(&world);
    world_close(&world);
}

/*
 *   A has split X, R's separator is not posted; X's bounds in P are still those of both:
 *
 *        P: [ X [a, b) ]            X [a, s) -> R [s, b)
 *
 *   X may not leave memory: a blind write by P's bounds would cover R.
 */
static void evicted_before_the_separator_is_posted(void)
{
    struct world world;
    if (!world_open(&world, &(struct world_options){.size = WORLD_HIGH, .chain_length = 1, .store = true}))
        return;
    uint32_t first = next_leaf(&world, world.key_count / 2);
    struct actor a = {.world = &world, .body = put_odd, .focus = first, .count = 4, .stop = "split.left_installed"};
    CHECK(actor_start(&a), "A does not come to split.left_installed");
    qr_testing_drop_pages(world.db, 1, 100);
    for (uint32_t i = first; i < first + 6; i++) {
        if (i != a.pending_key)
            world_put(&world, i);
    }
    world_check_all(&world);
    actor_finish(&a);
    world_check_all(&world);
    world_close(&world);
}

/*
 *   A is on its way down and has chosen X in P; before it looks at X's word, X is split, and everything leaves memory:
 *
 *        A knows:  P: [ X [a, b) ]            now:  P: [ X [a, s) | R [s, b) ], X and R on disk
 *
 *   A may not write X blind: b is not its bound any more.
 */
static void blind_by_a_stale_parent(void)
{
    struct world world;
    if (!world_open(&world, &(struct world_options){.size = WORLD_HIGH, .chain_length = 1, .store = true}))
        return;
    uint32_t first = next_leaf(&world, world.key_count / 2);
    for (uint32_t round = 0; round < 45 && !failed(); round++) { /* some drops leave a stub of the leaf in memory */
        qr_testing_drop_pages(world.db, 1, 100);
        struct actor a = {.world = &world,
                          .body = put_focus,
                          .focus = first + 1 + round / 3 % 5,
                          .stop = "descend.parent_loaded",
                          .nth = round % 3 + 1};
        actor_start(&a);
        for (uint32_t i = 0; i < 6; i++) {
            if (first + i != a.focus)
                world_put_sized(&world, first + i, 100);
        }
        qr_testing_drop_pages(world.db, 2 + round, 100);
        actor_finish(&a);
        world_check_all(&world);
        for (uint32_t i = 0; i < 6; i++)
            world_delete(&world, first + i);
        world_put(&world, first);
        world_put(&world, first + 2);
        world_put(&world, first + 4);
    }
    world_close(&world);
}

/*
 *   A reads a key of R; it has R's id from P and has not looked at its word. R is merged away, others take ids:
 *
 *        A knows:  P: [ X | R ]            now:  P: [ X ]   R FORWARD to X (or, wrongly, a new page elsewhere)
 *
 *   A's section keeps the id from being used again.
 */
static void id_kept_while_a_reader_has_it(void)
{
    struct world world;
    uint32_t left, right;
    if (!open_neighbours(&world, false, &left, &right))
        return;
    struct actor a = {.world = &world, .body = read_focus, .focus = right, .stop = "find.parent_loaded", .nth = 2};
    CHECK(actor_start(&a), "A does not come to find.parent_loaded");
    for (uint32_t round = 0; round < 2; round++) {
        for (uint32_t i = right + 1; i < right + 20; i++)
            world_delete(&world, i);
    }
    for (uint32_t i = 201; i < 239; i += 2)
        world_put_sized(&world, i, 200);
    world_check_all(&world);
    actor_finish(&a);
    world_close(&world);
}

/*
 *   W is on its way down to k and has chosen X in P. Then X is split, and R with k's place is merged into it
 * again: A has absorbed R and not forwarded it. W finds X and writes k there, without a look at R:
 *
 *        P: [ X | R* ]            X [a, b) with k          R SEALED, with the old content
 *
 *   A reader has no memory to finish R's merge. It may not go by R's content: the way round leads to X.
 */
static void absorbed_then_read_without_memory(void)
{
    struct world world;
    if (!open_small(&world, false))
        return;
    uint32_t first = next_leaf(&world, world.key_count / 2);
    uint32_t beyond = next_leaf(&world, first);
    struct actor w = {.world = &world, .body = put_focus, .focus = beyond - 1, .stop = "find.parent_loaded", .nth = 2};
    CHECK(actor_start(&w), "W does not come to find.parent_loaded");
    for (uint32_t i = first + 1; i < w.focus; i += 2)
        world_put(&world, i);
    world_put_sized(&world, first, 200);
    uint32_t right = world_leaf_first(&world, w.focus - 1);
    CHECK(right > first + 1 && right < w.focus, "X is not split");
    for (uint32_t i = first + 1; i < right; i++)
        world_delete(&world, i);
    struct actor a = {.world = &world,
                      .body = delete_after_focus,
                      .focus = right,
                      .count = beyond - right - 1,
                      .stop = "merge.absorbed"};
    CHECK(actor_start(&a), "A does not come to merge.absorbed");
    actor_finish(&w);
    qr_alloc_fail_from(1);
    world_check_get(&world, w.focus);
    qr_alloc_fail_after(-1);
    actor_finish(&a);
    world_check_all(&world);
    world_close(&world);
}

/*
 * Every split of a quiet tree has posted its separator: the leaves that the parents know are all there are.
 */
static void separators_are_posted(void)
{
    struct world world;
    struct quire_pages *pages = NULL;
    struct quire_page page;
    struct quire_stats stats = {.struct_size = sizeof(stats)};
    uint64_t leaves = 0;
    if (!world_open(&world, &(struct world_options){.size = WORLD_HIGH}))
        return;
    CHECK_EQUAL(quire_pages_open(world.tree, NULL, &pages), 0);
    while (quire_pages_next(pages, &page) == 0)
        leaves++;
    CHECK_EQUAL(quire_pages_close(pages), 0);
    CHECK_EQUAL(quire_stats(world.db, &stats), 0);
    CHECK_EQUAL(stats.pages_leaf, leaves);
    world_close(&world);
}

const struct interleave_case structure_cases[] = {
    {"no separator is posted to a page that went away", posted_after_the_page_went_away},
    {"a page stays in memory until its sibling's separator is posted", evicted_before_the_separator_is_posted},
    {"no blind write by the bounds of a stale parent", blind_by_a_stale_parent},
    {"a page id is not used again while a reader has it", id_kept_while_a_reader_has_it},
    {"every separator is posted", separators_are_posted},
    {"a forwarding word whose page went away is not followed", forwarded_to_a_page_that_went_away},
    {"of two neighbours one is merged at a time", marked_beside_a_marked_page},
    {"a page absorbed, then split at the same key, is not absorbed again", absorbed_then_split_at_the_same_key},
    {"a sealed page that was absorbed is not read", sealed_page_that_was_absorbed},
    {"a collapse that others finished is over, though the tree grew again", collapsed_and_grown_again},
    {"a sealed page that was absorbed is not read for want of memory", absorbed_then_read_without_memory},
    {NULL, NULL},
};
