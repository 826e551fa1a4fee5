/*
 * Goal: statistics tell how files are reached, what the log did, what the opening found, and which failures there were.
 * Method: scripts of known syncs, segments and reopenings; a simulated disk whose syncs fail or that is full.
 */
#include "api_dir.h"

#include "db/db.h"
#include "lib/simdisk.h"

#include <errno.h>

TestSuite(file_stats, .init = make_root, .fini = remove_root);

/* A store of small segments, where nothing is synced that was not asked for. */
static struct quire_options quiet_options(void)
{
    struct quire_options options = options_of(0, QUIRE_LEVEL_PROCESS);
    options.sync_period_ms = QUIRE_NO_PERIOD;
    options.background_threads = QUIRE_NO_THREADS;
    return options;
}

/* F13 (counts), F36 */
Test(file_stats, the_log_is_counted)
{
    struct quire_options options = quiet_options();
    struct quire *db = NULL;
    OK(quire_open(path_of("s"), &options, &db));
    struct quire_tree *tree = open_tree(db, "t");
    struct quire_stats before = stats_of(db), after, diff = {.struct_size = sizeof(diff)};
    cr_assert(strcmp(before.io_way, "uring") == 0 || strcmp(before.io_way, "posix") == 0, "'%s'", before.io_way);
    cr_assert_eq(before.log_size_bytes, before.log_segments_made * 65536);
    OK(quire_put(tree, TEXT("a"), TEXT("1"), QUIRE_WRITE_DURABLE, NULL));
    put(tree, "b", "2");
    cr_assert_geq(stats_of(db).log_tail_lsn, stats_of(db).log_durable_lsn + 1);
    OK(quire_sync(db));
    OK(quire_sync(db)); /* nothing to do */
    after = stats_of(db);
    OK(quire_stats_diff(&after, &before, &diff));
    cr_assert_eq(diff.log_syncs, 2, "%" PRIu64 " syncs", diff.log_syncs);
    cr_assert_eq(after.log_durable_lsn + 1, after.log_tail_lsn);
    uint64_t lsn;
    OK(quire_durable_lsn(db, &lsn));
    cr_assert_eq(after.log_durable_lsn, lsn);
    fill(tree, 0, 10000);
    after = stats_of(db);
    cr_assert_geq(after.log_segments_made, 5);
    cr_assert_eq(after.log_size_bytes, after.log_segments_made * 65536);
    cr_assert_gt(after.log_provision_waits, 0);
    cr_assert_eq(after.log_segments_recycled, 0);
    cr_assert_eq(after.log_failure_errno, 0);
    cr_assert_eq(after.errors_io + after.errors_no_space + after.errors_unknown, 0);
    OK(quire_stats_reset(db));
    cr_assert_eq(stats_of(db).log_segments_made, 0);
    cr_assert_eq(stats_of(db).log_size_bytes, after.log_size_bytes);
    OK(quire_close(db));
}

/* F36 */
Test(file_stats, recovery_is_told)
{
    static char text[65536];
    struct quire_options options = quiet_options();
    struct quire *db = NULL;
    size_t size;
    options.no_sync_at_close = 1; /* no checkpoint at the end */
    OK(quire_open(path_of("s"), &options, &db));
    cr_assert_eq(stats_of(db).recovery_records, 0);
    fill(open_tree(db, "t"), 0, 5000);
    uint64_t bytes = stats_of(db).log_size_bytes;
    OK(quire_close(db));
    options.no_sync_at_close = 0;
    OK(quire_open(path_of("s"), &options, &db));
    struct quire_stats stats = stats_of(db);
    cr_assert_eq(stats.recovery_records, 5001, "%" PRIu64 " records", stats.recovery_records); /* the tree too */
    cr_assert(stats.recovery_bytes > 5000 * 48 && stats.recovery_bytes <= bytes, "%" PRIu64 " bytes", stats.recovery_bytes);
    cr_assert_eq(stats.recovery_holes, 0);
    cr_assert_eq(stats.recovery_same_boot, 1);
    cr_assert_lt(stats.recovery_ms, 60000);
    char command[128];
    snprintf(command, sizeof(command), "test $(cat s/log-* | wc -c) -eq %" PRIu64, stats.log_size_bytes);
    shell(command);
    OK(quire_stats_print(&stats, QUIRE_FORMAT_TEXT, text, sizeof(text), &size));
    cr_assert_not_null(strstr(text, "\nrecovery_records 5001\n"));
    cr_assert(strstr(text, "\nio_way uring\n") != NULL || strstr(text, "\nio_way posix\n") != NULL, "%s", text);
    OK(quire_close(db));
}

/* F25 */
Test(file_stats, the_way_of_io_is_shown)
{
    struct quire_options options = quiet_options();
    struct quire *db = NULL;
    options.disable_ring = 1;
    options.log_buffered = 1;
    OK(quire_open(path_of("s"), &options, &db));
    cr_assert_str_eq(stats_of(db).io_way, "posix");
    cr_assert_eq(stats_of(db).log_mapped, 0);
    OK(quire_close(db));
    db = open_quiet();
    cr_assert_str_eq(stats_of(db).io_way, "");
    cr_assert_eq(stats_of(db).log_size_bytes, 0);
    OK(quire_close(db));
}

static struct quire *open_simulated(struct simdisk *disk)
{
    struct quire_options options = quiet_options();
    struct quire *db = NULL;
    OK(qr_db_open("store", simdisk_disk(disk), &options, &db));
    return db;
}

/* I06, F30: the first failed sync ends writing; each answer is counted as what it was */
Test(file_stats, a_failed_sync_is_counted_and_shown)
{
    struct simdisk *disk = simdisk_create();
    struct quire *db = open_simulated(disk);
    struct quire_tree *tree = open_tree(db, "t");
    put(tree, "a", "1");
    struct quire_stats before = stats_of(db), after;
    cr_assert_str_eq(before.io_way, "simulated");
    simdisk_fault_set(disk, &(struct simdisk_fault){.kind = SIMDISK_SYNC, .nth = 1, .error = EIO});
    EXPECT(quire_put(tree, TEXT("b"), TEXT("1"), QUIRE_WRITE_DURABLE, NULL), QUIRE_ERR_UNKNOWN);
    EXPECT(quire_put(tree, TEXT("c"), TEXT("1"), 0, NULL), QUIRE_ERR_IO);
    EXPECT(quire_delete(tree, TEXT("a"), 0, NULL, NULL), QUIRE_ERR_IO);
    EXPECT(quire_sync(db), QUIRE_ERR_UNKNOWN);
    expect(tree, NULL, "b", "1"); /* reads go on */
    expect(tree, NULL, "c", NULL);
    after = stats_of(db);
    cr_assert_eq(after.log_failure_errno, EIO);
    cr_assert_eq(after.errors_unknown - before.errors_unknown, 2);
    cr_assert_eq(after.errors_io - before.errors_io, 2);
    cr_assert_eq(after.errors - before.errors, 4);
    cr_assert_eq(after.log_durable_lsn, before.log_durable_lsn, "the failed sync was tried again");
    EXPECT(quire_close(db), QUIRE_ERR_UNKNOWN);
    simdisk_free(disk);
}

/* I06, F31: a full disk refuses before anything was changed, and takes writes again when there is room */
Test(file_stats, a_full_disk_is_counted_and_passes)
{
    struct simdisk *disk = simdisk_create();
    struct quire *db = open_simulated(disk);
    struct quire_tree *tree = open_tree(db, "t");
    struct quire_stats before = stats_of(db), after;
    char key[16];
    uint64_t written = 0;
    int result = 0;
    simdisk_facts(disk)->space_bytes = simdisk_used_bytes(disk);
    for (; written < 100000 && result == 0; written += result == 0)
        result = quire_put(tree, key, numbered(written, key), TEXT("a value of some bytes"), 0, NULL);
    EXPECT(result, QUIRE_ERR_NO_SPACE);
    EXPECT(quire_put(tree, TEXT("k"), TEXT("v"), 0, NULL), QUIRE_ERR_NO_SPACE);
    after = stats_of(db);
    cr_assert_eq(after.errors_no_space - before.errors_no_space, 2);
    cr_assert_eq(after.errors - before.errors, 2);
    cr_assert_eq(after.log_failure_errno, 0);
    cr_assert_eq(count_all(tree, NULL), written);
    simdisk_facts(disk)->space_bytes = UINT64_MAX;
    put(tree, "k", "v");
    OK(quire_close(db));
    db = open_simulated(disk);
    tree = open_tree(db, "t");
    cr_assert_eq(count_all(tree, NULL), written + 1);
    OK(quire_close(db));
    simdisk_free(disk);
}

/* I01, I12: what checkpoints write and the page store holds */
Test(file_stats, checkpoints_and_the_page_store_are_shown)
{
    struct simdisk *disk = simdisk_create();
    struct quire *db = open_simulated(disk);
    struct quire_tree *tree = open_tree(db, "t");
    struct quire_stats first = stats_of(db), second, third;
    char key[16];
    for (uint64_t i = 0; i < 1000; i++)
        OK(quire_put(tree, key, numbered(i, key), TEXT("a value of some bytes"), QUIRE_WRITE_PROCESS, NULL));
    OK(quire_checkpoint(db));
    second = stats_of(db);
    cr_assert_eq(second.checkpoints - first.checkpoints, 1);
    cr_assert_eq(second.checkpoint_failures, 0);
    cr_assert_gt(second.pages_flushed, first.pages_flushed);
    cr_assert_gt(second.store_written_bytes - first.store_written_bytes, 30000, "less than the data");
    cr_assert_gt(second.store_write_operations, first.store_write_operations);
    cr_assert_gt(second.store_live_bytes, 30000);
    cr_assert_geq(second.store_size_bytes, second.store_live_bytes);
    cr_assert_geq(second.store_segments, 1);
    cr_assert_gt(second.checkpoint_postponed_max_ns, 0);
    cr_assert_eq(second.store_checksum_failures, 0);
    OK(quire_close(db));
    db = open_simulated(disk);
    tree = open_tree(db, "t");
    cr_assert_eq(stats_of(db).checkpoints, 0);
    cr_assert_eq(count_all(tree, NULL), 1000);
    third = stats_of(db);
    cr_assert_gt(third.store_reads, 0, "pages came from nowhere");
    cr_assert_gt(third.store_read_bytes, 30000);
    OK(quire_stats_reset(db));
    cr_assert_eq(stats_of(db).store_reads, 0);
    OK(quire_close(db));
    simdisk_free(disk);
}
