/*
 * Goal: a snapshot sees every write that returned before it and none that began after it, in all trees, until it is
 * released; and only what snapshots see is kept.
 * Method: scripts with several snapshots open at once; writers beside readers of one snapshot.
 */
#include "api_tree.h"
#include "db/testing.h"

#include <pthread.h>
#include <stdatomic.h>

TestSuite(snapshot, .init = open_small_database, .fini = close_database, .timeout = 60);

/* ---- What is seen ----------------------------------------------------------------------------------------------- */

/* C09 */
Test(snapshot, sees_what_was_there_and_nothing_later)
{
    struct quire_snapshot *first, *second;
    put(tree, "kept", "1");
    put(tree, "changed", "1");
    put(tree, "deleted", "1");
    OK(quire_snapshot(db, "first", &first));
    put(tree, "changed", "2");
    put(tree, "new", "2");
    OK(quire_delete(tree, TEXT("deleted"), 0, NULL, NULL));
    OK(quire_snapshot(db, "second", &second));
    put(tree, "changed", "3");
    OK(quire_delete(tree, TEXT("new"), 0, NULL, NULL));

    expect(tree, first, "kept", "1");
    expect(tree, first, "changed", "1");
    expect(tree, first, "deleted", "1");
    expect(tree, first, "new", NULL);
    expect(tree, second, "changed", "2");
    expect(tree, second, "deleted", NULL);
    expect(tree, second, "new", "2");
    expect(tree, NULL, "changed", "3");
    cr_assert_eq(count_all(tree, first), 3);
    cr_assert_eq(count_all(tree, second), 3);
    cr_assert_eq(count_all(tree, NULL), 2);
    EXPECT(quire_exists(tree, first, TEXT("new")), QUIRE_NOT_FOUND);
    OK(quire_exists(tree, second, TEXT("new")));
    OK(quire_snapshot_release(first));
    expect(tree, second, "new", "2");
    OK(quire_snapshot_release(second));
}

/* C09: one snapshot covers all trees with engine versions */
Test(snapshot, covers_all_trees_and_those_that_come_later)
{
    struct quire_tree *other = open_tree(db, "other");
    struct quire_snapshot *snapshot;
    put(tree, "k", "1");
    put(other, "k", "1");
    OK(quire_snapshot(db, NULL, &snapshot));
    put(other, "k", "2");
    struct quire_tree *later = open_tree(db, "later");
    put(later, "k", "2");
    expect(tree, snapshot, "k", "1");
    expect(other, snapshot, "k", "1");
    expect(later, snapshot, "k", NULL);
    cr_assert_eq(count_all(later, snapshot), 0);
    OK(quire_snapshot_release(snapshot));
}

/* C09 */
Test(snapshot, of_an_empty_database_stays_empty)
{
    struct quire_snapshot *snapshot;
    OK(quire_snapshot(db, NULL, &snapshot));
    fill(tree, 0, 1000);
    cr_assert_eq(count_all(tree, snapshot), 0);
    expect(tree, snapshot, "key-000001", NULL);
    OK(quire_snapshot_release(snapshot));
}

/* C09 */
Test(snapshot, lsns_do_not_shrink_and_cover_earlier_writes)
{
    struct quire_snapshot *first, *second;
    uint64_t lsn = 0;
    OK(quire_put(tree, TEXT("k"), TEXT("v"), 0, &lsn));
    OK(quire_snapshot(db, NULL, &first));
    cr_assert_geq(quire_snapshot_lsn(first), lsn);
    OK(quire_put(tree, TEXT("k"), TEXT("w"), 0, &lsn));
    OK(quire_snapshot(db, NULL, &second));
    cr_assert_geq(quire_snapshot_lsn(second), lsn);
    cr_assert_gt(quire_snapshot_lsn(second), quire_snapshot_lsn(first));
    OK(quire_snapshot_release(second));
    OK(quire_snapshot_release(first));
}

/* C09: the same pages twice, while everything is rewritten, consolidated, dropped and maintained */
Test(snapshot, scans_are_identical_during_writes)
{
    struct quire_snapshot *snapshot;
    struct quire_pages_options options;
    char key[16];
    OK(qr_testing_attach_store(db));
    fill(tree, 0, 2000);
    OK(quire_snapshot(db, NULL, &snapshot));
    quire_pages_options_init(&options);
    options.snapshot = snapshot;
    for (unsigned round = 0; round < 6; round++) {
        struct quire_pages *pages;
        struct quire_page page;
        uint64_t seen = 0;
        options.reverse = round % 2;
        OK(quire_pages_open(tree, &options, &pages));
        while (quire_pages_next(pages, &page) == 0) {
            for (size_t i = 0; i < page.count; i++, seen++) {
                uint64_t right = options.reverse ? 1999 - seen : seen;
                cr_assert(page.entries[i].value_size == 8 && memcmp(page.entries[i].value, &right, 8) == 0,
                          "round %u: entry %" PRIu64, round, seen);
            }
            uint64_t at = (seen * 37 + round * 101) % 2000;
            for (uint64_t j = at; j < at + 20; j++)
                OK(j % 3 ? quire_put(tree, key, numbered(j, key), TEXT("changed"), 0, NULL)
                         : quire_delete(tree, key, numbered(j, key), 0, NULL, NULL));
        }
        cr_assert_eq(seen, 2000);
        OK(quire_pages_close(pages));
        cr_assert_geq(qr_testing_consolidate(tree, round, 50), 0);
        qr_testing_drop_pages(db, round, 50);
        settle(db);
    }
    cr_assert_eq(count_all(tree, snapshot), 2000);
    OK(quire_snapshot_release(snapshot));
}

/* ---- What is kept ----------------------------------------------------------------------------------------------- */

/* B16, users' promise: between two snapshots only the newest version survives */
Test(snapshot, versions_that_no_snapshot_sees_are_collected)
{
    struct quire_snapshot *old, *young;
    put(tree, "k", "first");
    OK(quire_snapshot(db, NULL, &old));
    for (unsigned i = 0; i < 1000; i++)
        put(tree, "k", "between");
    OK(quire_snapshot(db, NULL, &young));
    for (unsigned i = 0; i < 1000; i++)
        put(tree, "k", "later");
    cr_assert_geq(qr_testing_consolidate(tree, 1, 100), 0);
    settle(db);
    cr_assert_leq(stats_of(db).records_live_estimate, 10);
    expect(tree, old, "k", "first");
    expect(tree, young, "k", "between");
    expect(tree, NULL, "k", "later");
    OK(quire_snapshot_release(old));
    OK(quire_snapshot_release(young));
}

/* B17, G16: after release, deletions and what they hide go away */
Test(snapshot, released_ones_keep_nothing)
{
    struct quire_snapshot *snapshot;
    char key[16];
    fill(tree, 0, 3000);
    OK(quire_snapshot(db, NULL, &snapshot));
    for (uint64_t i = 0; i < 3000; i++)
        OK(quire_delete(tree, key, numbered(i, key), 0, NULL, NULL));
    settle(db);
    cr_assert_eq(count_all(tree, snapshot), 3000);
    cr_assert_eq(count_all(tree, NULL), 0);
    OK(quire_snapshot_release(snapshot));
    settle(db);
    struct quire_stats stats = stats_of(db);
    cr_assert_eq(stats.height_max, 1, "height %" PRIu64, stats.height_max);
    cr_assert_leq(stats.records_live_estimate, 10);
}

/* I12 */
Test(snapshot, the_oldest_one_is_named_in_the_statistics)
{
    struct quire_snapshot *first, *second;
    OK(quire_snapshot(db, "oldest one", &first));
    OK(quire_snapshot(db, "younger", &second));
    struct quire_stats stats = stats_of(db);
    cr_assert_eq(stats.snapshots_open, 2);
    cr_assert_str_eq(stats.oldest_snapshot_tag, "oldest one");
    OK(quire_snapshot_release(first));
    cr_assert_str_eq(stats_of(db).oldest_snapshot_tag, "younger");
    OK(quire_snapshot_release(second));
    cr_assert_eq(stats_of(db).snapshots_open, 0);
}

/* C09: no number of snapshots is too many */
Test(snapshot, two_thousand_at_once_see_their_own_state)
{
    static struct quire_snapshot *snapshots[2000];
    char value[16];
    for (unsigned i = 0; i < 2000; i++) {
        numbered(i, value);
        put(tree, "k", value);
        OK(quire_snapshot(db, NULL, &snapshots[i]));
    }
    settle(db);
    for (unsigned i = 0; i < 2000; i += 7) {
        numbered(i, value);
        expect(tree, snapshots[i], "k", value);
    }
    for (unsigned i = 0; i < 2000; i++)
        OK(quire_snapshot_release(snapshots[(i * 7) % 2000]));
    expect(tree, NULL, "k", "key-001999");
}

/* ---- Threads ---------------------------------------------------------------------------------------------------- */

static _Atomic int stop;

/* Two keys always change together, first "a", then "b"; each is a counter. */
static void *count_up(void *argument)
{
    (void)argument;
    /* relaxed: only ends the loop */
    for (uint64_t i = 1; atomic_load_explicit(&stop, memory_order_relaxed) == 0; i++) {
        if (quire_put(tree, TEXT("a"), &i, sizeof(i), 0, NULL) != 0 ||
            quire_put(tree, TEXT("b"), &i, sizeof(i), 0, NULL) != 0)
            return "put";
    }
    return NULL;
}

static uint64_t read_counter(struct quire_snapshot *snapshot, const char *key)
{
    uint64_t value = 0;
    size_t size = 0;
    OK(quire_get(tree, snapshot, key, 1, &value, sizeof(value), &size));
    return value;
}

/* C09, C29: the order of writes is the order in snapshots, and a snapshot does not move */
Test(snapshot, is_a_point_in_the_order_of_writes)
{
    pthread_t writer;
    uint64_t zero = 0, last = 0;
    void *failed = NULL;
    OK(quire_put(tree, TEXT("a"), &zero, sizeof(zero), 0, NULL));
    OK(quire_put(tree, TEXT("b"), &zero, sizeof(zero), 0, NULL));
    /* relaxed: creating the thread publishes it */
    atomic_store_explicit(&stop, 0, memory_order_relaxed);
    cr_assert_eq(pthread_create(&writer, NULL, count_up, NULL), 0);
    for (unsigned i = 0; i < 3000; i++) {
        struct quire_snapshot *snapshot;
        OK(quire_snapshot(db, NULL, &snapshot));
        uint64_t b = read_counter(snapshot, "b");
        uint64_t a = read_counter(snapshot, "a");
        cr_assert(a == b || a == b + 1, "a is %" PRIu64 ", b is %" PRIu64, a, b);
        cr_assert_geq(a, last);
        cr_assert_eq(read_counter(snapshot, "b"), b);
        last = a;
        OK(quire_snapshot_release(snapshot));
    }
    /* relaxed: the writer sees it some time soon, and is joined */
    atomic_store_explicit(&stop, 1, memory_order_relaxed);
    pthread_join(writer, &failed);
    cr_assert_null(failed);
}
