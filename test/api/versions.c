/*
 * Goal: in a tree with caller versions a read at v sees the highest version not above v, in whatever order versions
 * arrived and whatever was consolidated, dropped or collected since.
 * Method: short scripts, repeated with forced consolidation and dropped pages, some with another call in the middle of one; the
 * model test does the same at random.
 */
#include "api.h"

#include "base/stop.h"
#include "db/testing.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

static struct quire *db;
static struct quire_tree *tree;

static void open_database(void)
{
    db = open_quiet();
    OK(qr_testing_attach_store(db));
    tree = open_caller_tree(db, "versions");
}

static void close_database(void)
{
    OK(quire_close(db));
}

TestSuite(versions, .init = open_database, .fini = close_database);

static void put_at(uint64_t version, const char *key, const char *value)
{
    OK(quire_put_at(tree, version, key, strlen(key), value, strlen(value), 0, NULL));
}

static void delete_at(uint64_t version, const char *key)
{
    OK(quire_delete_at(tree, version, key, strlen(key), 0, NULL));
}

/* What must change nothing: 0 nothing, 1 consolidation, 2 pages dropped, 3 both, 4 maintenance. */
static void disturb(int how)
{
    if (how == 1 || how == 3)
        cr_assert_geq(qr_testing_consolidate(tree, 1, 100), 0);
    if (how == 2 || how == 3)
        qr_testing_drop_pages(db, 1, 100);
    if (how == 4)
        settle(db);
}

/* ---- Reading at versions ---------------------------------------------------------------------------------------- */

/* B01, B02, B03: the program in PhotonDB's README */
Test(versions, put_delete_put_are_all_readable_at_their_versions)
{
    put_at(1, "k", "v1");
    delete_at(2, "k");
    put_at(3, "k", "v2");
    for (int how = 0; how < 5; how++) {
        disturb(how);
        expect_at(tree, 0, "k", NULL);
        expect_at(tree, 1, "k", "v1");
        expect_at(tree, 2, "k", NULL);
        expect_at(tree, 3, "k", "v2");
        expect_at(tree, 1000, "k", "v2");
        expect_at(tree, UINT64_MAX, "k", "v2");
    }
}

/* B02: the bounds of the range of versions */
Test(versions, zero_and_the_highest_number_are_versions)
{
    put_at(0, "k", "zero");
    put_at(UINT64_MAX, "k", "highest");
    expect_at(tree, 0, "k", "zero");
    expect_at(tree, UINT64_MAX - 1, "k", "zero");
    expect_at(tree, UINT64_MAX, "k", "highest");
}

/* B03 */
Test(versions, deleting_an_absent_key_is_fine)
{
    delete_at(5, "k");
    expect_at(tree, 5, "k", NULL);
    put_at(4, "k", "older");
    expect_at(tree, 4, "k", "older");
    expect_at(tree, 5, "k", NULL);
}

/* B05, M03 */
Test(versions, arrive_in_any_order)
{
    put_at(5, "k", "v5");
    put_at(3, "k", "v3");
    put_at(9, "k", "v9");
    delete_at(7, "k");
    put_at(1, "k", "v1");
    for (int how = 0; how < 5; how++) {
        disturb(how);
        expect_at(tree, 2, "k", "v1");
        expect_at(tree, 3, "k", "v3");
        expect_at(tree, 6, "k", "v5");
        expect_at(tree, 8, "k", NULL);
        expect_at(tree, 9, "k", "v9");
    }
}

/* B05, M03: the older version arrives after the page with the newer one was dropped */
Test(versions, an_older_version_does_not_hide_a_newer_one_on_a_dropped_page)
{
    for (int how = 0; how < 5; how++) {
        char key[2] = {(char)('a' + how), 0};
        put_at(50, key, "new");
        disturb(how);
        put_at(40, key, "old");
        expect_at(tree, UINT64_MAX, key, "new");
        disturb(how);
        expect_at(tree, UINT64_MAX, key, "new");
        expect_at(tree, 45, key, "old");
    }
}

/* B06 */
Test(versions, of_equal_pairs_the_last_completed_write_wins)
{
    for (int how = 0; how < 5; how++) {
        put_at(7, "k", "first");
        disturb(how);
        put_at(7, "k", "second");
        expect_at(tree, 7, "k", "second");
        disturb(how);
        expect_at(tree, 7, "k", "second");
        delete_at(7, "k");
        disturb(how);
        expect_at(tree, 7, "k", NULL);
    }
}

/* B11: 10,000 versions of one key */
Test(versions, ten_thousand_of_one_key_are_readable)
{
    char value[16];
    for (uint64_t version = 1; version <= 10000; version++) {
        numbered(version, value);
        put_at(version, "k", value);
    }
    for (uint64_t version = 1; version <= 10000; version += 97) {
        numbered(version, value);
        expect_at(tree, version, "k", value);
    }
    put_at(5, "j", "neighbour");
    expect_at(tree, 5, "j", "neighbour");
    expect_at(tree, UINT64_MAX, "k", "key-010000");
}

/* C30 */
Test(versions, an_entry_carries_version_and_lsn)
{
    struct quire_guard guard;
    struct quire_value value;
    uint64_t first = 0, second = 0;
    OK(quire_put_at(tree, 20, TEXT("k"), TEXT("a"), 0, &first));
    OK(quire_put_at(tree, 10, TEXT("k"), TEXT("b"), 0, &second));
    cr_assert_gt(second, first);
    OK(quire_pin(db, NULL, &guard));
    OK(quire_guard_get_at(&guard, tree, 15, TEXT("k"), &value));
    cr_assert(value.version == 10 && value.lsn == second, "version %" PRIu64 ", lsn %" PRIu64, value.version,
              value.lsn);
    OK(quire_guard_get_at(&guard, tree, 99, TEXT("k"), &value));
    cr_assert(value.version == 20 && value.lsn == first, "version %" PRIu64 ", lsn %" PRIu64, value.version, value.lsn);
    EXPECT(quire_guard_get_at(&guard, tree, 9, TEXT("k"), &value), QUIRE_NOT_FOUND);
    OK(quire_unpin(&guard));
}

/* ---- The safe version ------------------------------------------------------------------------------------------- */

/* B15 */
Test(versions, the_safe_version_only_grows)
{
    uint64_t safe = 99;
    OK(quire_safe_lsn(tree, &safe));
    cr_assert_eq(safe, 0);
    OK(quire_set_safe_lsn(tree, 10));
    OK(quire_set_safe_lsn(tree, 5));
    OK(quire_safe_lsn(tree, &safe));
    cr_assert_eq(safe, 10);
}

/* B15 */
Test(versions, reads_below_the_safe_version_and_writes_up_to_it_are_refused)
{
    struct quire_pages_options options;
    struct quire_pages *pages = NULL;
    put_at(8, "k", "v8");
    OK(quire_set_safe_lsn(tree, 10));
    size_t size = 77;
    char value[8];
    EXPECT(quire_get_at(tree, 9, TEXT("k"), value, sizeof(value), &size), QUIRE_ERR_LSN_TOO_OLD);
    cr_assert_eq(size, 77, "the output was touched");
    expect_at(tree, 10, "k", "v8");
    EXPECT(quire_put_at(tree, 10, TEXT("k"), TEXT("x"), 0, NULL), QUIRE_ERR_LSN_TOO_OLD);
    EXPECT(quire_delete_at(tree, 3, TEXT("k"), 0, NULL), QUIRE_ERR_LSN_TOO_OLD);
    expect_at(tree, 10, "k", "v8");
    put_at(11, "k", "v11");
    expect_at(tree, 10, "k", "v8");

    quire_pages_options_init(&options);
    options.version = 9;
    EXPECT(quire_pages_open(tree, &options, &pages), QUIRE_ERR_LSN_TOO_OLD);
    cr_assert_null(pages);
}

/* B16 */
Test(versions, below_the_safe_version_are_collected_to_one)
{
    for (uint64_t version = 1; version <= 1000; version++)
        put_at(version, "k", "value");
    cr_assert_geq(stats_of(db).records_live_estimate, 900);
    OK(quire_set_safe_lsn(tree, 1000));
    cr_assert_geq(qr_testing_consolidate(tree, 1, 100), 0);
    settle(db);
    struct quire_stats stats = stats_of(db);
    cr_assert_geq(stats.versions_collected, 999);
    cr_assert_leq(stats.records_live_estimate, 2, "%" PRIu64 " records are left", stats.records_live_estimate);
    expect_at(tree, 1000, "k", "value");
}

/* B16 */
Test(versions, above_the_safe_version_are_kept)
{
    char value[16];
    for (uint64_t version = 1; version <= 100; version++) {
        numbered(version, value);
        put_at(version, "k", value);
    }
    OK(quire_set_safe_lsn(tree, 50));
    for (int how = 0; how < 5; how++) {
        disturb(how);
        for (uint64_t version = 50; version <= 100; version++) {
            numbered(version, value);
            expect_at(tree, version, "k", value);
        }
    }
}

/* B17, M01 */
Test(versions, a_collected_deletion_does_not_uncover_an_older_value)
{
    for (int how = 0; how < 5; how++) {
        uint64_t base = 100 * (uint64_t)(how + 1);
        char key[2] = {(char)('a' + how), 0};
        put_at(base + 1, key, "old");
        disturb(how);
        delete_at(base + 2, key);
        OK(quire_set_safe_lsn(tree, base + 50));
        for (int again = 0; again < 5; again++) {
            disturb(again);
            expect_at(tree, base + 50, key, NULL);
            expect_at(tree, UINT64_MAX, key, NULL);
        }
    }
}

/* ---- Beside a raise --------------------------------------------------------------------------------------------- */

/* What is done where a call of this test comes by, once. */
static const char *stop_name;
static void (*stop_action)(void);

static void at_stop(const char *name, void *argument)
{
    (void)argument;
    if (stop_name == NULL || strcmp(name, stop_name) != 0) return;
    stop_name = NULL;
    stop_action();
}

static void stop_at(const char *name, void (*action)(void))
{
    stop_name = name;
    stop_action = action;
    qr_stop_set_hook(at_stop, NULL);
}

static void expect_stopped(void)
{
    qr_stop_set_hook(NULL, NULL);
    cr_assert_null(stop_name, "nobody came by");
}

static uint64_t raised; /* what the safe version is raised to */

static void raise_and_collect(void)
{
    OK(quire_set_safe_lsn(tree, raised));
    cr_assert_geq(qr_testing_consolidate(tree, 1, 100), 0);
}

/* B15: what the read was on its way to is collected before it is there, and must not be taken for absent */
Test(versions, a_read_that_a_raise_overtakes_is_refused)
{
    struct quire_pages_options options;
    struct quire_pages *pages = NULL;
    struct quire_guard guard;
    struct quire_value value;
    struct quire_page page;
    char key[16], text[16];
    size_t size;
    tree = open_small_tree(db, "small", QUIRE_VERSIONS_CALLER);
    for (uint64_t version = 1; version <= 31; version += 10) {
        for (uint64_t i = 0; i < 200; i++) {
            numbered(i, key);
            put_at(version, key, "value");
        }
    }
    put_at(1, "!", "alone"); /* on the first page something is left to see */
    for (int how = 0; how < 3; how++) { /* versions 1, 11, 21 go, as 11, 21, 31 are there */
        const uint64_t version = 5 + 10 * (uint64_t)how;
        raised = version + 10;
        quire_pages_options_init(&options);
        options.version = version;
        OK(quire_pages_open(tree, &options, &pages));
        OK(quire_pin(db, NULL, &guard));
        stop_at("find.parent_loaded", raise_and_collect);
        if (how == 0)
            EXPECT(quire_get_at(tree, version, key, strlen(key), text, sizeof(text), &size), QUIRE_ERR_LSN_TOO_OLD);
        if (how == 1)
            EXPECT(quire_guard_get_at(&guard, tree, version, key, strlen(key), &value), QUIRE_ERR_LSN_TOO_OLD);
        if (how == 2)
            EXPECT(quire_pages_next(pages, &page), QUIRE_ERR_LSN_TOO_OLD);
        expect_stopped();
        OK(quire_unpin(&guard));
        OK(quire_pages_close(pages));
    }
}

static pthread_t first_writer;
static _Atomic bool first_waits, first_goes_on;

static void *write_first(void *argument)
{
    put_at(20, "other", "value");
    return argument;
}

/* Two writers reach this: the first has the lower LSN, and waits until the second one has its own. */
static void let_first_install(const char *name, void *argument)
{
    (void)argument;
    if (strcmp(name, "write.reserved") != 0) return;
    if (!atomic_exchange(&first_waits, true)) {
        while (!atomic_load(&first_goes_on)) sched_yield();
    } else if (!atomic_exchange(&first_goes_on, true)) {
        cr_assert_eq(pthread_join(first_writer, NULL), 0);
        OK(quire_set_safe_lsn(tree, 10));
    }
}

/* B15: the write was let pass, and then lost its leaf to a write with a lower LSN: its delta could go on top of that */
Test(versions, a_write_that_a_raise_overtakes_looks_again)
{
    put_at(1, "k", "old");
    qr_stop_set_hook(let_first_install, NULL);
    cr_assert_eq(pthread_create(&first_writer, NULL, write_first, NULL), 0);
    while (!atomic_load(&first_waits)) sched_yield();
    EXPECT(quire_put_at(tree, 5, TEXT("k"), TEXT("new"), 0, NULL), QUIRE_ERR_LSN_TOO_OLD);
    qr_stop_set_hook(NULL, NULL);
    cr_assert(atomic_load(&first_goes_on));
    expect_at(tree, 10, "k", "old");
    expect_at(tree, 20, "other", "value");
}

/* ---- What the other kind of tree offers ------------------------------------------------------------------------- */

/* K02, M30 */
Test(versions, operations_of_engine_versions_are_not_supported)
{
    struct quire_guard guard;
    struct quire_value value;
    struct quire_slice none = {NULL, 0}, key = slice("k");
    void *copy;
    size_t size;
    uint64_t count;
    int results[1];
    put_at(1, "k", "v");
    EXPECT(quire_put(tree, TEXT("k"), TEXT("x"), 0, NULL), QUIRE_ERR_UNSUPPORTED);
    EXPECT(quire_delete(tree, TEXT("k"), 0, NULL, NULL), QUIRE_ERR_UNSUPPORTED);
    EXPECT(quire_insert(tree, TEXT("k"), TEXT("x"), 0, NULL), QUIRE_ERR_UNSUPPORTED);
    EXPECT(quire_compare_and_swap(tree, TEXT("k"), TEXT("v"), TEXT("x"), 0, NULL), QUIRE_ERR_UNSUPPORTED);
    EXPECT(quire_add(tree, TEXT("k"), 1, 0, NULL, NULL), QUIRE_ERR_UNSUPPORTED);
    EXPECT(quire_get(tree, NULL, TEXT("k"), NULL, 0, &size), QUIRE_ERR_UNSUPPORTED);
    EXPECT(quire_get_copy(tree, NULL, TEXT("k"), &copy, &size), QUIRE_ERR_UNSUPPORTED);
    EXPECT(quire_exists(tree, NULL, TEXT("k")), QUIRE_ERR_UNSUPPORTED);
    EXPECT(quire_count(tree, NULL, none, none, &count), QUIRE_ERR_UNSUPPORTED);
    OK(quire_pin(db, NULL, &guard));
    EXPECT(quire_guard_get(&guard, tree, NULL, TEXT("k"), &value), QUIRE_ERR_UNSUPPORTED);
    EXPECT(quire_get_many(&guard, tree, NULL, &key, 1, &value, results), QUIRE_ERR_UNSUPPORTED);
    OK(quire_unpin(&guard));
    expect_at(tree, 1, "k", "v");
}

/* K02, M30 */
Test(versions, operations_of_caller_versions_are_not_supported_elsewhere)
{
    struct quire_tree *other = open_tree(db, "engine");
    struct quire_guard guard;
    struct quire_value value;
    uint64_t version;
    size_t size;
    EXPECT(quire_put_at(other, 1, TEXT("k"), TEXT("v"), 0, NULL), QUIRE_ERR_UNSUPPORTED);
    EXPECT(quire_delete_at(other, 1, TEXT("k"), 0, NULL), QUIRE_ERR_UNSUPPORTED);
    EXPECT(quire_get_at(other, 1, TEXT("k"), NULL, 0, &size), QUIRE_ERR_UNSUPPORTED);
    EXPECT(quire_set_safe_lsn(other, 1), QUIRE_ERR_UNSUPPORTED);
    EXPECT(quire_safe_lsn(other, &version), QUIRE_ERR_UNSUPPORTED);
    OK(quire_pin(db, NULL, &guard));
    EXPECT(quire_guard_get_at(&guard, other, 1, TEXT("k"), &value), QUIRE_ERR_UNSUPPORTED);
    OK(quire_unpin(&guard));
    expect(other, NULL, "k", NULL);
}

/* K02: a snapshot says nothing about a tree with caller versions */
Test(versions, pages_take_a_version_and_no_snapshot)
{
    struct quire_pages_options options;
    struct quire_snapshot *snapshot;
    struct quire_pages *pages = NULL;
    OK(quire_snapshot(db, NULL, &snapshot));
    quire_pages_options_init(&options);
    options.snapshot = snapshot;
    EXPECT(quire_pages_open(tree, &options, &pages), QUIRE_ERR_UNSUPPORTED);
    cr_assert_null(pages);
    OK(quire_snapshot_release(snapshot));
}

/* What a scan shows of the key "k": the size of its value, or -1. */
static int scanned(struct quire_tree *scanned_tree, const struct quire_pages_options *options)
{
    struct quire_pages *pages = NULL;
    struct quire_page page;
    int size = -1;
    OK(quire_pages_open(scanned_tree, options, &pages));
    while (quire_pages_next(pages, &page) == 0) {
        size_t at = quire_page_seek(&page, "k", 1);
        if (at < page.count && page.entries[at].key_size == 1)
            size = (int)page.entries[at].value_size;
    }
    OK(quire_pages_close(pages));
    return size;
}

/* A12: zero bytes are the defaults of pages too, but that version 0 is a version */
Test(versions, pages_options_of_zero_bytes_read_at_version_zero)
{
    struct quire_tree *other = open_tree(db, "engine");
    struct quire_pages_options options;
    put(other, "k", "engine");
    OK(quire_put_at(tree, 7, TEXT("k"), TEXT("7777777"), 0, NULL));
    memset(&options, 0, sizeof(options));
    cr_assert_eq(scanned(other, &options), 6, "zero bytes are the defaults with engine versions");
    cr_assert_eq(scanned(tree, &options), -1, "there is nothing at version 0 yet");
    OK(quire_put_at(tree, 0, TEXT("k"), TEXT("0"), 0, NULL));
    cr_assert_eq(scanned(tree, &options), 1);
    options.version = UINT64_MAX;
    cr_assert_eq(scanned(tree, &options), 7);
    quire_pages_options_init(&options);
    cr_assert_eq(options.version, UINT64_MAX);
    cr_assert_eq(scanned(tree, &options), 7);
    cr_assert_eq(scanned(tree, NULL), 7);
}

/* ---- In trees with engine versions ------------------------------------------------------------------------------ */

/* M29, M01: delete after the page was dropped hides the key */
Test(versions, a_delete_on_a_dropped_page_hides_the_key)
{
    struct quire_tree *other = open_tree(db, "engine");
    put(other, "k", "\xff\xff\xff\xff");
    qr_testing_drop_pages(db, 1, 100);
    expect(other, NULL, "k", "\xff\xff\xff\xff");
    qr_testing_drop_pages(db, 2, 100);
    OK(quire_delete(other, TEXT("k"), 0, NULL, NULL));
    qr_testing_drop_pages(db, 3, 100);
    expect(other, NULL, "k", NULL);
    cr_assert_eq(count_all(other, NULL), 0);
    for (int how = 1; how < 5; how++) {
        cr_assert_geq(qr_testing_consolidate(other, 1, 100), 0);
        qr_testing_drop_pages(db, 4, 100);
        settle(db);
        expect(other, NULL, "k", NULL);
    }
}
