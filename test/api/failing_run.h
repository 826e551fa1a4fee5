/*
 * The runner of the tests of failing allocations: runs a scenario with its 1st, 2nd, 3rd ... allocation
 * failing, until it passes untouched; first each alone, then each with all that come after it.
 *
 * Test programs (api_failing*). Each run has a world of its own. After the failures FAIL-1 to FAIL-3 hold
 * (failing.h), and
 *
 * FAIL-4  The same calls work when there is memory again.
 * FAIL-5  Emptied and settled, the database has the page ids of one in which nothing failed, and nothing is retired
 *         or lost; closed, it has given back every block.
 */
#ifndef TEST_API_FAILING_RUN_H
#define TEST_API_FAILING_RUN_H

#include "failing.h"
#include "lib/holder.h"

#include <pthread.h>

#define STEPS 3u

/* What one thread does is of less interest to the thread sanitizer, and takes it long. */
#if defined(__SANITIZE_THREAD__)
#define STRIDE 7
#else
#define STRIDE 1
#endif

#define LAST_VERSION UINT64_C(1000000) /* of caller versions: deletes everything at the end */

struct scenario {
    /* What is there when the failures come; NULL: two empty trees. */
    void (*prepare)(struct world *w);
    /* The calls under test; may be made again with the same number. */
    void (*act)(struct world *w, uint64_t step);
    /* A number that changes with the step the scenario is about: those before it belong to the preparation. NULL: it is
     * about step 0. */
    uint64_t (*happening)(struct world *w);
    uint64_t memory_limit_bytes;
    bool may_stall;    /* a guard or an iterator retains memory */
    bool shape_varies; /* what is left at the end depends on where pages were split */
};

/* ---- A guard of another thread ---------------------------------------------------------------------------------- */

HELPER void world_hold(struct world *w)
{
    static struct holder holder;
    cr_assert(holder_start(&holder, w->db));
    w->holder = &holder;
}

HELPER void world_let_go(struct world *w)
{
    if (w->holder == NULL)
        return;
    cr_assert(holder_end(w->holder));
    w->holder = NULL;
}

/* ---- A new thread ----------------------------------------------------------------------------------------------- */

/* What the new threads of a scenario do. */
HELPER void (*in_thread)(struct world *w, uint64_t step);

struct call {
    struct world *w;
    uint64_t step;
};

HELPER void *make_call(void *argument)
{
    struct call *call = argument;
    in_thread(call->w, call->step);
    return NULL;
}

HELPER void act_in_a_new_thread(struct world *w, uint64_t step)
{
    struct call call = {w, step};
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, make_call, &call), 0);
    pthread_join(thread, NULL);
}

/* ---- A world's life --------------------------------------------------------------------------------------------- */

HELPER void world_open(struct world *w, const struct scenario *s)
{
    struct quire_options options;
    *w = (struct world){.may_stall = s->may_stall};
    quire_options_init(&options);
    options.background_threads = QUIRE_NO_THREADS;
    options.memory_limit_bytes = s->memory_limit_bytes;
    options.stall_timeout_ms = 1;
    OK(quire_open(NULL, &options, &w->db));
    w->tree = open_small_tree(w->db, "tree", QUIRE_VERSIONS_ENGINE);
    w->caller = open_small_tree(w->db, "caller", QUIRE_VERSIONS_CALLER);
    w->says = oracle_create();
    w->caller_says = oracle_create();
}

/* What an emptied database takes. */
struct rest {
    uint64_t ids, trees;
};

HELPER void delete_all(struct world *w, struct quire_tree *tree, struct oracle *oracle, uint64_t version)
{
    struct oracle_walk walk;
    struct oracle_item item;
    oracle_walk_start(&walk, oracle, (struct oracle_range){0}, UINT64_MAX, false);
    while (oracle_walk_next(&walk, &item)) {
        if (tree == w->caller)
            OK(quire_delete_at(tree, version, item.key, item.key_size, 0, NULL));
        else
            OK(quire_delete(tree, item.key, item.key_size, 0, NULL, NULL));
    }
}

/* Deletes everything and lets all memory come back. */
HELPER struct rest empty(struct world *w)
{
    world_let_go(w);
    if (w->guard.db != NULL)
        OK(quire_unpin(&w->guard));
    OK(quire_pages_close(w->pages));
    w->pages = NULL;
    OK(quire_snapshot_release(w->snapshot));
    w->snapshot = NULL;
    delete_all(w, w->tree, w->says, 0);
    delete_all(w, w->caller, w->caller_says, LAST_VERSION);
    OK(quire_set_safe_lsn(w->caller, LAST_VERSION));
    settle(w->db);
    struct quire_stats stats = stats_of(w->db);
    struct qr_epoch_stats epoch;
    qr_epoch_stats(w->db->epoch, &epoch);
    cr_assert(stats.memory_retired_bytes == 0 && epoch.lost_bytes == 0, "%" PRIu64 " bytes retired, %" PRIu64 " lost",
              stats.memory_retired_bytes, epoch.lost_bytes);
    check_accounts(w);
    return (struct rest){qr_map_ids_in_use(w->db->map), stats.trees};
}

/* FAIL-5 */
HELPER void expect_rest(struct world *w, const struct rest *right)
{
    struct rest left = empty(w);
    cr_assert(left.ids == right->ids && left.trees == right->trees,
              "left are %" PRIu64 " ids, %" PRIu64 " trees, not %" PRIu64 ", %" PRIu64, left.ids, left.trees,
              right->ids, right->trees);
}

HELPER void world_close(struct world *w)
{
    OK(quire_close(w->db));
    oracle_destroy(w->says);
    oracle_destroy(w->caller_says);
}

/* ---- The runner ------------------------------------------------------------------------------------------------- */

/* The step that the scenario is about, and some after it, which meet what it has left half done. */
HELPER void act_steps(const struct scenario *s, struct world *w, uint64_t step)
{
    for (uint64_t i = step; i < step + STEPS; i++)
        s->act(w, i);
}

/* The step that the scenario is about, found where nothing fails; and what that world takes at its end. */
HELPER uint64_t rehearse(const struct scenario *s, struct rest *ret_rest)
{
    struct world w;
    uint64_t step = 0;
    world_open(&w, s);
    if (s->prepare != NULL)
        s->prepare(&w);
    uint64_t before = s->happening == NULL ? 0 : s->happening(&w);
    s->act(&w, 0);
    while (s->happening != NULL && s->happening(&w) == before) {
        s->act(&w, ++step);
        cr_assert_lt(step, 5000, "it does not happen");
    }
    act_steps(s, &w, step);
    act_steps(s, &w, step);
    compare(&w);
    check_structure(&w);
    *ret_rest = empty(&w);
    world_close(&w);
    return step;
}

/* One world, whose n-th allocation in the step fails, alone or with all after it. False: there is no n-th one. */
HELPER bool run_with_failure(const struct scenario *s, uint64_t step, const struct rest *rest, int64_t n, bool for_good,
                             unsigned *stalls)
{
    int64_t blocks = qr_alloc_live_count();
    struct world w;
    world_open(&w, s);
    if (s->prepare != NULL)
        s->prepare(&w);
    for (uint64_t i = 0; i < step; i++)
        s->act(&w, i);

    w.planned = true;
    if (for_good)
        qr_alloc_fail_from(n);
    else
        qr_alloc_fail_after(n);
    act_steps(s, &w, step);
    bool met = qr_alloc_fail_pending() == 0;
    if (met && for_good)
        compare(&w);
    qr_alloc_fail_after(-1);
    w.planned = false;
    *stalls += w.stalls;

    if (n % 2 == 0)
        check_structure(&w); /* before readers have finished what was left half done, and after */
    compare(&w);
    check_structure(&w);
    act_steps(s, &w, step);
    compare(&w);
    check_structure(&w);
    if (s->shape_varies)
        (void)empty(&w);
    else
        expect_rest(&w, rest);
    world_close(&w);
    cr_assert_eq(qr_alloc_live_count(), blocks, "%" PRId64 " blocks were not given back",
                 qr_alloc_live_count() - blocks);
    return met;
}

/* Runs a scenario with each of its allocations failing, in both ways, until it passes untouched. */
HELPER void run(const struct scenario *s)
{
    struct rest rest;
    unsigned stalls = 0;
    uint64_t step = rehearse(s, &rest);
    for (int for_good = 0; for_good < 2; for_good++) {
        int64_t n = 1;
        while (run_with_failure(s, step, &rest, n, for_good != 0, &stalls)) {
            n += STRIDE;
            cr_assert_lt(n, 3000, "no end");
        }
        cr_log_info("%s: %" PRId64 " allocations", for_good ? "for good" : "once", n - 1);
        cr_assert_gt(n, 1, "nothing was allocated");
    }
    cr_assert(!s->may_stall || stalls != 0, "no call has waited in vain");
}

#endif
