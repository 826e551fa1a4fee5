/*
 * Goal: opening, reading, iterating, maintaining, and a thread's first call: without memory each says so, changes
 * nothing and works the next time. Method: scenarios, run with each of their allocations failing (failing_run.h).
 */
#include "failing_run.h"

TestSuite(failing_calls, .timeout = 120);

static void fill_50(struct world *w)
{
    world_fill(w, 50, 16);
}

static void fill_500(struct world *w)
{
    world_fill(w, 500, 16);
}

static uint64_t splits(struct world *w)
{
    return stats_of(w->db).tree_splits;
}

/* ---- Opening ---------------------------------------------------------------------------------------------------- */

/* Opens another database, uses it if it could be opened, and closes it. */
static void open_another(struct world *w, uint32_t threads, uint64_t limit)
{
    struct quire_options options;
    struct quire *db = UNTOUCHED_POINTER;
    struct quire_tree *tree = UNTOUCHED_POINTER;
    quire_options_init(&options);
    options.background_threads = threads;
    options.memory_limit_bytes = limit;
    options.stall_timeout_ms = 1;
    if (!DID(w, quire_open(NULL, &options, &db))) {
        cr_assert(db == UNTOUCHED_POINTER);
        return;
    }
    if (DID(w, quire_tree_open(db, "other", NULL, &tree)))
        DID(w, quire_put(tree, TEXT("key"), TEXT("value"), 0, NULL));
    else
        cr_assert(tree == UNTOUCHED_POINTER);
    OK(quire_close(db));
}

static void open_without_threads(struct world *w, uint64_t step)
{
    (void)step;
    open_another(w, QUIRE_NO_THREADS, 0);
}

static void open_with_threads(struct world *w, uint64_t step)
{
    open_another(w, 2 + (uint32_t)step % 2, 8u << 20);
}

/* H09, A12 */
Test(failing_calls, opening_a_database)
{
    run(&(struct scenario){.act = open_without_threads});
    run(&(struct scenario){.act = open_with_threads});
}

/* H09: what a process makes once, before its first database */
Test(failing_calls, opening_the_first_database_of_a_process)
{
    struct quire *db = NULL;
    int result;
    int64_t n = 0;
    do {
        qr_alloc_fail_after(++n);
        result = quire_open(NULL, NULL, &db);
        if (result == 0)
            OK(quire_close(db));
        else
            expect_detail(QUIRE_ERR_NO_MEMORY, "");
    } while (qr_alloc_fail_pending() == 0);
    qr_alloc_fail_after(-1);
    OK(result);
    cr_assert_gt(n, 12);
}

static char *tree_name(uint64_t number, size_t size)
{
    static char name[256];
    memset(name, 'x', size);
    name[size] = 0;
    numbered(number, name);
    name[10] = size > 10 ? '-' : 0;
    return name;
}

/* What was made once is found from then on. */
static void open_tree_named(struct world *w, uint64_t number, size_t name_size)
{
    struct quire_tree *tree = UNTOUCHED_POINTER, *again = UNTOUCHED_POINTER;
    struct quire_tree_options options;
    quire_tree_options_init(&options);
    options.must_exist = 1;
    const char *name = tree_name(number, name_size);
    uint32_t before, after;
    qr_db_handles(w->db, &before);
    bool made = DID(w, quire_tree_open(w->db, name, NULL, &tree));
    cr_assert(made == (tree != UNTOUCHED_POINTER));
    int result = quire_tree_open(w->db, name, &options, &again);
    if (DID(w, result)) {
        cr_assert_eq(result, made ? 0 : QUIRE_NOT_FOUND);
        cr_assert(tree == again);
    }
    qr_db_handles(w->db, &after);
    cr_assert(after == before || (made && after == before + 1));
}

static void open_new_tree(struct world *w, uint64_t step)
{
    open_tree_named(w, step, 10);
}

static void open_long_named(struct world *w, uint64_t step)
{
    open_tree_named(w, step, 255);
}

static void open_13_trees(struct world *w)
{
    for (uint64_t i = 100; i < 112; i++)
        open_tree_named(w, i, 10);
}

/* H09: one of them makes the array of handles larger */
Test(failing_calls, making_a_tree)
{
    run(&(struct scenario){.act = open_new_tree});
    run(&(struct scenario){.prepare = open_13_trees, .act = open_new_tree});
}

/* H09: the catalogue is a tree */
Test(failing_calls, making_a_tree_that_splits_the_catalogue)
{
    run(&(struct scenario){.act = open_long_named, .happening = splits});
}

static void list_trees(struct world *w, uint64_t step)
{
    char **names = UNTOUCHED_POINTER;
    size_t count = UNTOUCHED;
    struct quire_tree *tree = NULL;
    struct quire_tree_options options;
    (void)step;
    if (DID(w, quire_tree_list(w->db, &names, &count))) {
        cr_assert(count == 2 && strcmp(names[0], "caller") == 0 && strcmp(names[1], "tree") == 0);
        quire_free(names);
    } else {
        cr_assert(names == UNTOUCHED_POINTER && count == UNTOUCHED);
    }
    OK(quire_tree_open(w->db, "tree", NULL, &tree));
    cr_assert(tree == w->tree);
    quire_tree_options_init(&options);
    OK(quire_tree_options_get(tree, &options));
}

/* H09 */
Test(failing_calls, listing_and_finding_trees)
{
    run(&(struct scenario){.prepare = fill_50, .act = list_trees});
}

/* ---- Reading ---------------------------------------------------------------------------------------------------- */

/* A walk over a part of the keys; a step that fails is tried again. */
static void walk(struct world *w, uint64_t from, uint64_t to, bool reverse)
{
    struct quire_pages_options options;
    struct quire_pages *pages = UNTOUCHED_POINTER;
    struct quire_page page;
    struct oracle_walk right;
    struct oracle_item item;
    char start[16], end[16];
    unsigned refused = 0;
    int result = 0;
    quire_pages_options_init(&options);
    options.start = (struct quire_slice){start, numbered(from, start)};
    options.end = (struct quire_slice){end, numbered(to, end)};
    options.reverse = reverse;
    options.snapshot = w->snapshot;
    if (!DID(w, quire_pages_open(w->tree, &options, &pages))) {
        cr_assert(pages == UNTOUCHED_POINTER);
        return;
    }
    oracle_walk_start(&right, w->says, (struct oracle_range){start, options.start.size, end, options.end.size},
                      w->snapshot == NULL ? UINT64_MAX : quire_snapshot_lsn(w->snapshot), reverse);
    while (result != QUIRE_END && refused < 3) {
        result = quire_pages_next(pages, &page);
        if (!DID(w, result)) {
            refused++;
        } else if (result == 0) {
            for (size_t i = 0; i < page.count; i++) {
                cr_assert(oracle_walk_next(&right, &item));
                expect_entry(&page.entries[i], &item);
            }
        }
    }
    cr_assert(result < 0 || !oracle_walk_next(&right, &item));
    OK(quire_pages_close(pages));
}

static void walk_both_ways(struct world *w, uint64_t step)
{
    uint64_t to = w->keys - 5;
    walk(w, 5 + step, to, false);
    walk(w, 5 + step, to, true);
}

static void count_keys(struct world *w, uint64_t step)
{
    char start[16], end[16];
    uint64_t count = UNTOUCHED;
    struct quire_slice from = {start, numbered(step, start)};
    struct quire_slice to = {end, numbered(step + 300, end)};
    if (DID(w, quire_count(w->tree, w->snapshot, from, to, &count)))
        cr_assert_eq(count, 300);
    else
        cr_assert_eq(count, UNTOUCHED);
}

static void change_below_snapshot(struct world *w)
{
    OK(quire_snapshot(w->db, "test", &w->snapshot));
    for (uint64_t i = 0; i < w->keys; i += 3)
        world_delete(w, i);
}

static void fill_50_change_below_snapshot(struct world *w)
{
    fill_50(w);
    change_below_snapshot(w);
}

static void fill_500_change_below_snapshot(struct world *w)
{
    fill_500(w);
    change_below_snapshot(w);
}

/* H09, C05 */
Test(failing_calls, pages_in_both_directions)
{
    run(&(struct scenario){.prepare = fill_500, .act = walk_both_ways});
    run(&(struct scenario){.prepare = fill_500_change_below_snapshot, .act = walk_both_ways});
}

/* H09 */
Test(failing_calls, counting)
{
    run(&(struct scenario){.prepare = fill_500, .act = count_keys});
    run(&(struct scenario){.prepare = fill_500_change_below_snapshot, .act = count_keys});
}

static void read_all(struct world *w, uint64_t step)
{
    (void)step;
    compare(w);
}

/* H09 */
Test(failing_calls, gets_of_all_kinds)
{
    run(&(struct scenario){.prepare = fill_50_change_below_snapshot, .act = read_all});
}

static void take_snapshots(struct world *w, uint64_t step)
{
    struct quire_snapshot *snapshots[3];
    for (unsigned i = 0; i < 3; i++) {
        snapshots[i] = UNTOUCHED_POINTER;
        if (!DID(w, quire_snapshot(w->db, "test", &snapshots[i]))) {
            cr_assert(snapshots[i] == UNTOUCHED_POINTER);
            snapshots[i] = NULL;
        }
        world_put(w, step % 50, 16);
    }
    for (unsigned i = 0; i < 3; i++)
        OK(quire_snapshot_release(snapshots[i]));
}

/* H09 */
Test(failing_calls, snapshots)
{
    run(&(struct scenario){.prepare = fill_50, .act = take_snapshots});
}

/* ---- Maintenance ------------------------------------------------------------------------------------------------ */

static void maintain(struct world *w, uint64_t step)
{
    int result = QUIRE_MORE;
    (void)step;
    for (unsigned i = 0; i < 10000 && result == QUIRE_MORE; i++) {
        result = quire_maintain(w->db);
        if (!DID(w, result))
            return;
    }
    cr_assert_eq(result, 0);
}

static void fill_150_delete_most(struct world *w)
{
    world_fill(w, 150, 16);
    for (uint64_t i = 0; i < 150; i++) {
        if (i % 50 != 0)
            world_delete(w, i);
    }
}

/* Everything deleted, below the safe version. */
static void fill_versions_delete_all(struct world *w)
{
    for (uint64_t i = 0; i < 150; i++)
        world_put_at(w, 1 + i * 7 % 31, i * 377 % 150, 16);
    for (uint64_t i = 0; i < 150; i++)
        world_delete_at(w, 40, i);
    w->safe_version = 50;
    OK(quire_set_safe_lsn(w->caller, w->safe_version));
}

/* H09: consolidations, merges on all levels, collapses */
Test(failing_calls, maintenance)
{
    run(&(struct scenario){.prepare = fill_150_delete_most, .act = maintain});
    run(&(struct scenario){.prepare = fill_versions_delete_all, .act = maintain});
}

/* ---- A thread's first call -------------------------------------------------------------------------------------- */

static void first_put(struct world *w, uint64_t step)
{
    world_put(w, step, 16);
    world_put(w, step, 2000);
}

static void first_get(struct world *w, uint64_t step)
{
    char key[16], value[16];
    size_t size = 77;
    if (!DID(w, quire_get(w->tree, NULL, key, numbered(step, key), value, sizeof(value), &size)))
        cr_assert_eq(size, 77);
}

static void first_pin(struct world *w, uint64_t step)
{
    struct quire_guard guard = {0};
    (void)step;
    if (DID(w, quire_pin(w->db, "first", &guard)))
        OK(quire_unpin(&guard));
    else
        cr_assert_null(guard.db);
}

static void first_statistics(struct world *w, uint64_t step)
{
    struct quire_stats stats = {.struct_size = sizeof(stats), .trees = 77};
    (void)step;
    if (DID(w, quire_stats(w->db, &stats)))
        cr_assert_eq(stats.trees, 2);
    else
        cr_assert_eq(stats.trees, 77);
    DID(w, quire_stats_reset(w->db));
}

static void first_open(struct world *w, uint64_t step)
{
    open_tree_named(w, step, 10);
    open_another(w, QUIRE_NO_THREADS, 0);
}

static void release_all(struct world *w, uint64_t step)
{
    (void)step;
    OK(quire_snapshot_release(w->snapshot));
    OK(quire_pages_close(w->pages));
}

/* H09, L09: the thread is not known yet to anybody, or to this database */
Test(failing_calls, the_first_call_of_a_thread)
{
    void (*calls[])(struct world *, uint64_t) = {first_put,      first_get, first_pin,      first_statistics,
                                                 walk_both_ways, maintain,  take_snapshots, first_open};
    for (unsigned i = 0; i < sizeof(calls) / sizeof(*calls); i++) {
        in_thread = calls[i];
        run(&(struct scenario){.prepare = fill_50, .act = act_in_a_new_thread});
    }
}

/* H09: by a thread that is not known yet, and cannot become known */
Test(failing_calls, what_is_released_needs_no_memory)
{
    struct world w;
    world_open(&w, &(struct scenario){0});
    fill_50(&w);
    OK(quire_snapshot(w.db, "test", &w.snapshot));
    OK(quire_pages_open(w.tree, NULL, &w.pages));
    in_thread = release_all;
    qr_alloc_fail_from(1);
    act_in_a_new_thread(&w, 0);
    qr_alloc_fail_after(-1);
    OK(quire_close(w.db));
    oracle_destroy(w.says);
    oracle_destroy(w.caller_says);
}
