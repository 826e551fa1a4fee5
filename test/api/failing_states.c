/*
 * Goal: missing memory is met as well in a database where much is half done already, where others hold memory back,
 * where pages are not in memory, and where threads write and read at once; and when it is the machine that has none.
 * Method: scenarios, run with each of their allocations failing (failing_run.h); random calls with random failures, in
 * one thread beside the oracle, in several with a rule for each key; a limit on what the process may have.
 */
#include "failing_run.h"
#include "lib/random.h"

#include <sys/resource.h>

TestSuite(failing_states, .timeout = 300);

static void fill_50(struct world *w)
{
    world_fill(w, 50, 16);
}

static uint64_t consolidations(struct world *w)
{
    return stats_of(w->db).tree_consolidations;
}

static uint64_t helps(struct world *w)
{
    return stats_of(w->db).tree_helps;
}

static void put_one_key(struct world *w, uint64_t step)
{
    (void)step;
    world_put(w, 5, 16);
}

static void read_all(struct world *w, uint64_t step)
{
    (void)step;
    compare(w);
}

static void put_and_delete_scattered(struct world *w, uint64_t step)
{
    world_put(w, step * 37 % 300, 16);
    world_delete(w, step * 377 % 300);
}

/* ---- Half-done changes ------------------------------------------------------------------------------------------ */

/* Merges sealed, absorbed or forwarded, and splits without separators, in many places. */
static void leave_half_done(struct world *w)
{
    for (uint64_t i = 0; i < 300; i++) world_put(w, i * 37 % 300, 16); /* in no order, so that leaves have room for deltas */
    w->planned = true;
    for (uint64_t i = 0; i < 1000; i++) { /* ten regions; another allocation for each write; deleted keys go with a later one */
        uint64_t region = i / 100;
        qr_alloc_fail_from((int64_t)(2 + i % 7));
        world_delete(w, region * 30 + i % 100 / 5);
        if (i % 5 == 0)
            world_put(w, 299 - region * 30 - i % 100 / 10, 40);
    }
    qr_alloc_fail_after(-1);
    w->planned = false;
}

/* A thread that has its record, and nothing else yet. */
static void read_all_if_known(struct world *w, uint64_t step)
{
    struct quire_guard guard;
    if (!DID(w, quire_pin(w->db, "first", &guard)))
        return;
    OK(quire_unpin(&guard));
    read_all(w, step);
}

/* H09 */
Test(failing_states, what_was_left_half_done_is_finished_by_writers)
{
    run(&(struct scenario){.prepare = leave_half_done, .act = put_and_delete_scattered, .happening = helps});
}

/* H09 */
Test(failing_states, what_was_left_half_done_is_no_hindrance_to_readers)
{
    run(&(struct scenario){.prepare = leave_half_done, .act = read_all});
}

/* H09 */
Test(failing_states, what_was_left_half_done_is_no_hindrance_to_readers_that_are_new)
{
    in_thread = read_all_if_known;
    run(&(struct scenario){.prepare = leave_half_done, .act = act_in_a_new_thread});
}

/* ---- What others hold ------------------------------------------------------------------------------------------- */

static void fill_50_pin(struct world *w)
{
    fill_50(w);
    OK(quire_pin(w->db, "own", &w->guard));
}

static void fill_50_let_another_pin(struct world *w)
{
    fill_50(w);
    world_hold(w);
}

/* The page at which the iterator stands is replaced. */
static void fill_50_stand_on_a_page(struct world *w)
{
    struct quire_page page;
    fill_50(w);
    OK(quire_pages_open(w->tree, NULL, &w->pages));
    OK(quire_pages_next(w->pages, &page));
    for (uint64_t i = 0; i < 30; i++)
        world_put(w, 5, 16);
}

static void put_2000_bytes(struct world *w, uint64_t step)
{
    world_put(w, step, 2000);
}

/* H09, C10: nothing is waited for that the caller itself holds */
Test(failing_states, a_put_under_a_guard_of_the_caller)
{
    run(&(struct scenario){.prepare = fill_50_pin, .act = put_one_key, .happening = consolidations});
}

/* H09, C10, K02 */
Test(failing_states, a_put_while_another_thread_holds_memory_back)
{
    run(&(struct scenario){
        .prepare = fill_50_let_another_pin, .act = put_2000_bytes, .happening = consolidations, .may_stall = true});
    run(&(struct scenario){.prepare = fill_50_stand_on_a_page, .act = put_2000_bytes, .may_stall = true});
}

/* ---- A memory limit --------------------------------------------------------------------------------------------- */

static void put_1000_bytes(struct world *w, uint64_t step)
{
    world_put(w, step * 377 % 1000, 1000);
    world_put(w, step * 7, 20000);
}

static void put_then_delete_large(struct world *w, uint64_t step)
{
    world_put(w, step, 100000);
    world_delete(w, step);
    world_delete(w, step);
}

/* H09: small chunks, small classes, mappings of their own from 32 KiB on */
Test(failing_states, with_a_memory_limit)
{
    run(&(struct scenario){.prepare = fill_50, .act = put_1000_bytes, .memory_limit_bytes = 4u << 20});
    run(&(struct scenario){.prepare = fill_50, .act = put_then_delete_large, .memory_limit_bytes = 4u << 20});
}

/* ---- Pages that are not in memory ------------------------------------------------------------------------------- */

static void drop_all(struct world *w)
{
    world_fill(w, 200, 16);
    for (uint64_t i = 0; i < 200; i++)
        world_put_at(w, 1 + i * 7 % 31, i * 377 % 200, 16);
    OK(qr_testing_attach_store(w->db));
    cr_assert_gt(qr_testing_drop_pages(w->db, 1, 100), 20);
    w->dropped = true;
}

static void write_to_dropped(struct world *w, uint64_t step)
{
    world_put(w, step * 37 % 200, 16);
    world_delete(w, step * 377 % 200);
    world_put_at(w, 1 + step * 7 % 31, step * 377 % 200, 16);
    world_delete_at(w, 33, step * 37 % 200);
}

static void read_some(struct world *w, uint64_t step)
{
    struct view view = {w->tree, w->says, NULL, UINT64_MAX, false};
    struct view caller = {w->caller, w->caller_says, NULL, 20, true};
    for (uint64_t i = 0; i < 8; i++) {
        compare_get(w, &view, (step * 8 + i) * 37 % 200);
        compare_get(w, &caller, (step * 8 + i) * 37 % 200);
    }
    compare_pages(w, &view, step % 2 == 0);
}

/* H09: a read needs memory then, and says so */
Test(failing_states, pages_that_must_be_read_first)
{
    run(&(struct scenario){.prepare = drop_all, .act = read_some, .shape_varies = true});
    run(&(struct scenario){.prepare = drop_all, .act = write_to_dropped, .shape_varies = true});
}
