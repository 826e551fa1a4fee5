/*
 * Goal: RECOVER-5: an opening does not wait until files are removed that nothing needs, unless space may be wanting.
 * Method: a store on the simulated disk dies with a log of which only the end is needed, and with page files of a checkpoint that had
 * not ended; it is opened again, and who removes files is noted.
 */
#include "api_dir.h"

#include <errno.h>

#include "db/db.h"
#include "lib/resting.h"
#include "lib/simdisk.h"
#include "store/internal.h"

TestSuite(leftovers, .timeout = 60);

#define KEYS 2000u

struct seen {
    pthread_t opener;
    unsigned pause_us; /* of others, at each file */
    _Atomic uint32_t by_opener, by_others; /* files of the log, and 100 for each of pages */
};

static void note(void *context, const struct simdisk_event *event)
{
    struct seen *seen = context;
    if (event->kind != SIMDISK_UNLINK || strncmp(event->name, "manifest", 8) == 0) return;
    const bool by_opener = pthread_equal(pthread_self(), seen->opener) != 0;
    if (!by_opener) usleep(seen->pause_us);
    atomic_fetch_add(by_opener ? &seen->by_opener : &seen->by_others,
                     strncmp(event->name, "page-", 5) == 0 ? 100 : 1);
}

static struct quire_options options_with(uint32_t threads)
{
    struct quire_options options = resting_options(QUIRE_LEVEL_PROCESS);
    options.log_segment_bytes = 65536;
    options.background_threads = threads;
    options.no_sync_at_close = 1;
    return options;
}

static void put_all(struct quire *db, char value)
{
    struct quire_tree *tree = open_tree(db, "t");
    char key[16], bytes[1000];
    memset(bytes, value, sizeof(bytes));
    for (uint64_t i = 0; i < KEYS; i++) OK(quire_put(tree, key, numbered(i, key), bytes, sizeof(bytes), 0, NULL));
}

/* What a crash leaves of files that were being made. */
static void add_page_files(struct simdisk *disk)
{
    struct qr_disk *table = simdisk_disk(disk);
    struct qr_dir *dir;
    cr_assert_eq(table->ops->dir_open(table, "store", 0, &dir), 0);
    for (int i = 0; i < 3; i++) {
        char name[32];
        struct qr_file *file;
        snprintf(name, sizeof(name), "page-000000f%d", i);
        cr_assert_eq(table->ops->file_open(dir, name, QR_FILE_WRITE | QR_FILE_CREATE, &file), 0);
        cr_assert_eq(table->ops->file_resize(file, 4096), 0);
        table->ops->file_close(file);
    }
    table->ops->dir_close(dir);
}

/* Dead, with two megabytes of log in each of two lives below its checkpoint. */
static struct simdisk *make_dead(void)
{
    struct simdisk *disk = simdisk_create();
    struct quire_options options = options_with(QUIRE_NO_THREADS);
    struct quire *db = NULL;
    OK(qr_db_open("store", simdisk_disk(disk), &options, &db));
    put_all(db, 'a');
    struct simdisk *before = simdisk_crash(disk, &(struct simdisk_crash){.mode = SIMDISK_DEATH});
    OK(quire_close(db));
    simdisk_free(disk);
    OK(qr_db_open("store", simdisk_disk(before), &options, &db)); /* so its log is that of an older incarnation */
    put_all(db, 'b');
    OK(quire_checkpoint(db));
    struct simdisk *after = simdisk_crash(before, &(struct simdisk_crash){.mode = SIMDISK_DEATH});
    OK(quire_close(db));
    simdisk_free(before);
    add_page_files(after);
    return after;
}

static bool is_gone(struct quire *db)
{
    struct quire_stats stats = {.struct_size = sizeof(stats)};
    struct qr_log_counts counts;
    OK(quire_stats(db, &stats));
    qr_log_counts(&db->log, &counts);
    return stats.log_size_bytes == counts.size_bytes;
}

static void check_all(struct quire *db, char value)
{
    char key[16], bytes[1000];
    size_t size;
    struct quire_tree *tree = open_tree(db, "t");
    for (uint64_t i = 0; i < KEYS; i++) {
        OK(quire_get(tree, NULL, key, numbered(i, key), bytes, sizeof(bytes), &size));
        cr_assert(size == sizeof(bytes) && bytes[0] == value && bytes[999] == value);
    }
}

/* Opens it, and dies again; answers who removed. */
static struct seen live(struct simdisk **disk, uint32_t threads)
{
    struct seen seen = {.opener = pthread_self()};
    struct quire_options options = options_with(threads);
    struct quire *db = NULL;
    simdisk_set_hook(*disk, note, &seen);
    OK(qr_db_open("store", simdisk_disk(*disk), &options, &db));
    struct seen ret = {.by_opener = atomic_load(&seen.by_opener)};
    for (int tries = 0; tries < 10000 && atomic_load(&seen.by_opener) + atomic_load(&seen.by_others) < 300; tries++) usleep(1000);
    cr_assert(is_gone(db)); /* the log's are the first */
    atomic_store(&ret.by_others, atomic_load(&seen.by_others));
    check_all(db, 'b');
    put_all(db, 'c');
    struct simdisk *after = simdisk_crash(*disk, &(struct simdisk_crash){.mode = SIMDISK_DEATH});
    OK(quire_close(db));
    simdisk_set_hook(*disk, NULL, NULL);
    simdisk_free(*disk);
    *disk = after;
    options = options_with(QUIRE_NO_THREADS);
    OK(qr_db_open("store", simdisk_disk(*disk), &options, &db));
    check_all(db, 'c');
    OK(quire_close(db));
    return ret;
}

/* F18 */
Test(leftovers, are_removed_by_a_background_thread)
{
    struct simdisk *disk = make_dead();
    struct seen seen = live(&disk, 1);
    cr_assert_eq(seen.by_opener, 0);
    cr_assert(seen.by_others / 100 == 3 && seen.by_others % 100 > 4);
    simdisk_free(disk);
}

Test(leftovers, are_removed_by_the_opening_if_there_are_no_threads)
{
    struct simdisk *disk = make_dead();
    struct seen seen = live(&disk, QUIRE_NO_THREADS);
    cr_assert(seen.by_opener / 100 == 3 && seen.by_opener % 100 > 4);
    cr_assert_eq(seen.by_others, 0);
    simdisk_free(disk);
}

Test(leftovers, are_removed_by_the_opening_if_there_is_little_space)
{
    struct simdisk *disk = make_dead();
    simdisk_facts(disk)->space_bytes = simdisk_used_bytes(disk) + (4u << 20);
    struct seen seen = live(&disk, 1);
    cr_assert(seen.by_opener / 100 == 3 && seen.by_opener % 100 > 4);
    cr_assert_eq(seen.by_others, 0);
    simdisk_free(disk);
}

/* ---- A disk that is not as it says ------------------------------------------------------------------------------ */

static const struct qr_disk_ops *own;
static struct qr_disk_ops other;
static _Atomic int open_error; /* of one page file */
static uint64_t free_bytes;    /* that it says there are; 0: it does not say */

static int say_free(struct qr_dir *dir, uint64_t *ret_bytes)
{
    (void)dir;
    *ret_bytes = free_bytes;
    return free_bytes == 0 ? -EIO : 0;
}

static int open_file(struct qr_dir *dir, const char *name, unsigned flags, struct qr_file **ret_file)
{
    int error = atomic_load(&open_error);
    return error != 0 && strcmp(name, "page-000000f0") == 0 ? error : own->file_open(dir, name, flags, ret_file);
}

/* Says that there is much space; no file can be removed quickly but by the opening. */
static void set_other(struct simdisk *disk, struct seen *seen)
{
    own = simdisk_disk(disk)->ops;
    other = *own;
    other.dir_free_bytes = say_free;
    free_bytes = UINT64_C(1) << 40;
    other.file_open = open_file;
    simdisk_disk(disk)->ops = &other;
    *seen = (struct seen){.opener = pthread_self(), .pause_us = 10000};
    simdisk_set_hook(disk, note, seen);
}

static void done(struct simdisk *disk)
{
    simdisk_disk(disk)->ops = own;
    simdisk_free(disk);
}

/* A quota says nothing of itself before it is reached. */
Test(leftovers, are_removed_by_the_opening_if_there_is_no_space_for_the_new_log)
{
    struct simdisk *disk = make_dead();
    struct quire_options options = options_with(1);
    struct quire *db = NULL;
    struct seen seen;
    set_other(disk, &seen);
    simdisk_facts(disk)->space_bytes = simdisk_used_bytes(disk);
    OK(qr_db_open("store", simdisk_disk(disk), &options, &db));
    cr_assert(is_gone(db));
    cr_assert_eq(qr_store_leftovers(db->checkpointer.store), 0);
    check_all(db, 'b');
    OK(quire_put(open_tree(db, "t"), "key", 3, "value", 5, 0, NULL));
    OK(quire_close(db));
    done(disk);
}

/* There is space for a first segment, and no more until the old files are gone. */
static void write_beside_the_removal(unsigned count, size_t size, bool checkpoint)
{
    static char bytes[20000];
    struct simdisk *disk = make_dead();
    struct quire_options options = options_with(1);
    struct quire *db = NULL;
    struct seen seen;
    char key[16];
    set_other(disk, &seen);
    simdisk_facts(disk)->space_bytes = simdisk_used_bytes(disk) + 90000;
    OK(qr_db_open("store", simdisk_disk(disk), &options, &db));
    cr_assert(!is_gone(db));
    if (checkpoint) OK(quire_checkpoint(db));
    struct quire_tree *tree = open_tree(db, "t");
    for (uint64_t i = 0; i < count; i++) {
        int result = quire_put(tree, key, numbered(i, key), bytes, size, 0, NULL);
        cr_assert_eq(result, 0, "put %u of %zu bytes: %d", (unsigned)i, size, result);
        usleep(500);
    }
    OK(quire_close(db));
    done(disk);
}

Test(leftovers, keep_no_write_from_the_space_that_they_take)
{
    write_beside_the_removal(60, 2000, false);
    write_beside_the_removal(12, 20000, false);
    write_beside_the_removal(60, 2000, true);
}

Test(leftovers, that_cannot_be_looked_at_keep_no_others)
{
    const uint32_t threads[] = {1, QUIRE_NO_THREADS};
    for (int i = 0; i < 2; i++) {
        struct simdisk *disk = make_dead();
        struct quire_options options = options_with(threads[i]);
        struct quire *db = NULL;
        struct seen seen;
        set_other(disk, &seen);
        atomic_store(&open_error, -EACCES);
        OK(qr_db_open("store", simdisk_disk(disk), &options, &db));
        for (int tries = 0; tries < 10000 && qr_db_clears_later(db); tries++) usleep(1000);
        cr_assert(is_gone(db));
        cr_assert_eq(qr_store_leftovers(db->checkpointer.store), 1);
        atomic_store(&open_error, 0);
        OK(quire_checkpoint(db));
        cr_assert_eq(qr_store_leftovers(db->checkpointer.store), 0);
        check_all(db, 'b');
        OK(quire_close(db));
        done(disk);
    }
}

static bool clears_later(struct quire *db, uint64_t free, uint64_t old_log_bytes)
{
    free_bytes = free;
    atomic_store(&db->files->old_log_bytes, old_log_bytes);
    atomic_store(&db->files->clears_later, 0);
    qr_db_leftovers_found(db);
    return qr_db_clears_later(db);
}

/* A GiB, and eight times the old log. */
Test(leftovers, are_left_to_others_only_where_there_is_much_space)
{
    const uint64_t gib = UINT64_C(1) << 30;
    struct simdisk *disk = make_dead();
    struct quire_options options = options_with(QUIRE_NO_THREADS);
    struct quire *db = NULL;
    struct seen seen;
    set_other(disk, &seen);
    OK(qr_db_open("store", simdisk_disk(disk), &options, &db));
    cr_assert(!clears_later(db, gib, 0)); /* nobody is there to do it */
    db->options.background_threads = 1;
    cr_assert(clears_later(db, gib, gib / 8));
    cr_assert(!clears_later(db, gib, gib / 8 + 1));
    cr_assert(!clears_later(db, gib - 1, 0));
    cr_assert(clears_later(db, 4 * gib, gib / 2));
    cr_assert(!clears_later(db, 4 * gib, gib / 2 + 1));
    cr_assert(!clears_later(db, 0, 0));
    db->options.disable_log = 1;
    cr_assert(!clears_later(db, gib, 0));
    db->options.disable_log = 0;
    db->options.background_threads = QUIRE_NO_THREADS;
    OK(quire_close(db));
    done(disk);
}

/* What the log keeps for a full disk it does not take while old files may have that space. */
Test(leftovers, go_before_the_log_takes_its_reserve)
{
    struct simdisk *disk = make_dead();
    struct quire_options options = options_with(QUIRE_NO_THREADS);
    struct quire *db = NULL;
    OK(qr_db_open("store", simdisk_disk(disk), &options, &db));
    atomic_store(&db->files->clears_later, 1);
    put_all(db, 'c');
    db->log.files->keeps_reserve = false;
    qr_db_keep_reserve(db);
    cr_assert(!db->log.files->keeps_reserve);
    qr_db_clear_leftovers(db);
    qr_db_keep_reserve(db);
    cr_assert(db->log.files->keeps_reserve);
    OK(quire_close(db));
    simdisk_free(disk);
}

/* ---- An old log that is needed ---------------------------------------------------------------------------------- */

/* Died before any checkpoint. */
static struct simdisk *make_needed(void)
{
    struct simdisk *disk = simdisk_create();
    struct quire_options options = options_with(QUIRE_NO_THREADS);
    struct quire *db = NULL;
    OK(qr_db_open("store", simdisk_disk(disk), &options, &db));
    put_all(db, 'b');
    struct simdisk *after = simdisk_crash(disk, &(struct simdisk_crash){.mode = SIMDISK_DEATH});
    OK(quire_close(db));
    simdisk_free(disk);
    return after;
}

/* Only when a checkpoint is durable that does not need them, and then at once. */
Test(leftovers, of_the_log_stay_while_they_are_needed)
{
    for (int i = 0; i < 24; i++) {
        struct simdisk *disk = make_needed();
        struct quire_options options = options_with(QUIRE_NO_THREADS);
        struct quire *db = NULL;
        OK(qr_db_open("store", simdisk_disk(disk), &options, &db));
        uint32_t count = db->files->old.count;
        cr_assert_gt(count, 4);
        simdisk_fault_set(disk, &(struct simdisk_fault){
                                    .kind = i % 2 == 0 ? SIMDISK_WRITE : SIMDISK_SYNC, .nth = 1 + (uint64_t)i / 2, .for_good = true, .error = EIO});
        int result = quire_checkpoint(db);
        simdisk_faults_clear(disk);
        qr_db_clear_leftovers(db);
        cr_assert_eq(db->files->old.count, result == 0 ? 0 : count);
        if (i == 0) OK(quire_checkpoint(db));
        if (i == 0) cr_assert_eq(db->files->old.count, 0);
        struct simdisk *after = simdisk_crash(disk, &(struct simdisk_crash){.mode = SIMDISK_DEATH});
        (void)quire_close(db);
        simdisk_free(disk);
        OK(qr_db_open("store", simdisk_disk(after), &options, &db));
        check_all(db, 'b');
        OK(quire_close(db));
        simdisk_free(after);
    }
}

/* One that is gone is none. */
Test(leftovers, that_somebody_else_has_removed_are_forgotten)
{
    struct simdisk *disk = make_needed();
    struct quire_options options = options_with(QUIRE_NO_THREADS);
    struct quire *db = NULL;
    char name[QR_LOG_NAME_BYTES];
    OK(qr_db_open("store", simdisk_disk(disk), &options, &db));
    qr_log_file_name(db->files->old.found[0].number, name);
    cr_assert_eq(simdisk_disk(disk)->ops->dir_unlink(db->files->dir, name), 0);
    OK(quire_checkpoint(db));
    cr_assert_eq(db->files->old.count, 0);
    cr_assert(is_gone(db));
    OK(quire_close(db));
    simdisk_free(disk);
}

/* ---- Beside others ---------------------------------------------------------------------------------------------- */

/* What somebody needs space for answers while another one removes without an end, and what is due is synced. */
Test(leftovers, are_waited_for_only_so_long)
{
    struct simdisk *disk = make_needed();
    struct quire_options options = options_with(QUIRE_NO_THREADS);
    struct quire *db = NULL;
    uint64_t lsn = 0, durable = 0;
    static char bytes[200000];
    options.stall_timeout_ms = 20;
    OK(qr_db_open("store", simdisk_disk(disk), &options, &db));
    struct quire_tree *tree = open_tree(db, "t");
    OK(quire_put(tree, "key", 3, "value", 5, 0, &lsn));
    simdisk_facts(disk)->space_bytes = simdisk_used_bytes(disk);
    db->options.sync_period_ms = 1;
    pthread_mutex_lock(&db->files->leftovers_mutex);
    EXPECT(quire_put(tree, "key", 3, bytes, sizeof(bytes), 0, NULL), QUIRE_ERR_NO_SPACE);
    usleep(2000);
    (void)qr_db_log_work(db);
    pthread_mutex_unlock(&db->files->leftovers_mutex);
    OK(quire_durable_lsn(db, &durable));
    cr_assert_geq(durable, lsn);
    simdisk_facts(disk)->space_bytes = UINT64_MAX;
    OK(quire_close(db));
    simdisk_free(disk);
}

static struct quire *watched;
static uint32_t reads;

static void remove_midst(void *context, const struct simdisk_event *event)
{
    (void)context;
    if (event->kind != SIMDISK_READ || strncmp(event->name, "log-", 4) != 0) return;
    reads++;
    qr_db_clear_leftovers(watched);
}

/* Neither does a check keep anybody waiting who needs the space, nor does it miss what was removed meanwhile. */
Test(leftovers, may_go_while_the_log_is_verified)
{
    struct simdisk *disk = make_needed();
    struct quire_options options = options_with(QUIRE_NO_THREADS);
    OK(qr_db_open("store", simdisk_disk(disk), &options, &watched));
    simdisk_set_hook(disk, remove_midst, NULL);
    OK(quire_verify(watched, NULL, NULL)); /* all of it is needed */
    cr_assert_gt(reads, 4);
    simdisk_set_hook(disk, NULL, NULL);
    simdisk_fault_set(disk, &(struct simdisk_fault){.kind = SIMDISK_UNLINK, .nth = 1, .for_good = true, .error = EIO});
    OK(quire_checkpoint(watched));
    cr_assert_gt(watched->files->old.count, 4); /* nothing of it is, but it is there */
    simdisk_faults_clear(disk);
    put_all(watched, 'd');
    simdisk_set_hook(disk, remove_midst, NULL);
    OK(quire_verify(watched, NULL, NULL));
    cr_assert_eq(watched->files->old.count, 0);
    simdisk_set_hook(disk, NULL, NULL);
    OK(quire_close(watched));
    simdisk_free(disk);
}

/* A store that is opened for moments does not gather them. */
Test(leftovers, are_removed_to_the_end_by_closing)
{
    struct simdisk *disk = make_dead();
    struct quire_options options = options_with(1);
    struct quire *db = NULL;
    struct seen seen;
    set_other(disk, &seen);
    OK(qr_db_open("store", simdisk_disk(disk), &options, &db));
    cr_assert(!is_gone(db));
    OK(quire_close(db));
    cr_assert_eq(atomic_load(&seen.by_others) / 100, 3);
    seen.pause_us = 0;
    atomic_store(&seen.by_others, 0);
    options.background_threads = QUIRE_NO_THREADS;
    OK(qr_db_open("store", simdisk_disk(disk), &options, &db));
    cr_assert(atomic_load(&seen.by_opener) < 3); /* that of the life before */
    OK(quire_close(db));
    done(disk);
}
