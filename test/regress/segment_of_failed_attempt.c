/*
 * Goal: a segment of the log whose making failed and whose file could not be removed is never taken for log.
 * Method: a store on a simulated disk. A large segment cannot be mapped. Its file cannot be removed, but its header be taken back; or that
 * fails, and the removal is one that does not last; or neither is possible. A smaller one is made in its place. That is used again after a
 * checkpoint, or removed by the next opening, and the other one stays. The store is checked, the process dies, and all that was
 * acknowledged has to be there.
 * The bugs: such a file was known by one that begins where it does. When that was gone it stood for what came behind it, too: the
 * opening took its zeros for the end of the log, and durable writes were gone. Later, when the log had long passed its end, an
 * opening that could not sync it took the page cache for lost, and what stood behind a hole was gone; or it could not open it, and failed.
 */
#include "base/stop.h"
#include "db/db.h"
#include "lib/check.h"
#include "lib/resting.h"
#include "lib/simdisk.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define LARGE_BYTES (512u << 10)
#define MOST_KEYS 20000u

static const struct qr_disk_ops *own;
static uint64_t least_bytes = LARGE_BYTES; /* of what cannot be mapped */
static char failed[QR_LOG_NAME_BYTES]; /* the file that stays */
static const struct qr_file *failed_file; /* while it is open */
static bool armed, may_write, may_open, may_unlink; /* the unlink is taken back */

static int map_file(struct qr_file *file, uint64_t offset, uint64_t size, void **ret_memory)
{
    struct qr_log_header header = {0};
    if (!armed || size < least_bytes) return own->file_map(file, offset, size, ret_memory);
    CHECK(own->file_read(file, &header, sizeof(header), 0) == (int64_t)sizeof(header) && header.incarnation != 0, "no header");
    armed = false;
    failed_file = file;
    return -ENOSPC;
}

static int64_t write_file(struct qr_file *file, const void *memory, size_t size, uint64_t offset)
{
    return file == failed_file && !may_write ? -EIO : own->file_write(file, memory, size, offset);
}

static int sync_file(struct qr_file *file)
{
    return file == failed_file && !may_write ? -EIO : own->file_sync(file);
}

/* Where it can be neither written nor removed it cannot be synced later, either. */
static int open_file(struct qr_dir *dir, const char *name, unsigned flags, struct qr_file **ret_file)
{
    bool bad = strcmp(name, failed) == 0 && !may_write && !may_unlink && (flags & QR_FILE_WRITE) != 0;
    if (bad && !may_open) return -EIO;
    int error = own->file_open(dir, name, flags, ret_file);
    if (bad && error == 0) failed_file = *ret_file;
    return error;
}

static void close_file(struct qr_file *file)
{
    if (file == failed_file) failed_file = NULL;
    own->file_close(file);
}

static int unlink_file(struct qr_dir *dir, const char *name)
{
    if (!armed && failed[0] == '\0') memcpy(failed, name, strlen(name) + 1); /* the one that could not be mapped */
    if (strcmp(name, failed) == 0) return may_unlink ? 0 : -EIO;
    return own->dir_unlink(dir, name);
}

static int open_on(struct simdisk *disk, struct qr_disk_ops *ops, uint32_t mode, struct quire **ret_db, struct quire_tree **ret_tree)
{
    struct quire_options options = resting_options(QUIRE_LEVEL_PROCESS);
    options.open_mode = mode;
    options.log_segment_bytes = 1 << 20;
    if (ops != NULL) simdisk_disk(disk)->ops = ops;
    int result = qr_db_open("store", simdisk_disk(disk), &options, ret_db);
    return result != 0 ? result : quire_tree_open(*ret_db, "t", NULL, ret_tree);
}

static size_t make_key(uint32_t number, char *key)
{
    return (size_t)snprintf(key, 16, "%08u", number);
}

static uint64_t put_one(struct quire_tree *tree, uint32_t number)
{
    static const char value[1000];
    char key[16];
    uint64_t lsn = 0;
    CHECK_EQUAL(quire_put(tree, key, make_key(number, key), value, sizeof(value), 0, &lsn), 0);
    return lsn;
}

/* The end of the segment that was made in place of the failed one: the last one. */
static uint64_t end_of_the_other(struct quire *db)
{
    struct qr_log_list list;
    uint64_t end = 0;
    CHECK_EQUAL(qr_log_list_make(db->files->dir, qr_manifest_header(db->files->manifest)->store_id, &list), 0);
    for (uint32_t i = 0; i < list.count; i++) {
        char name[QR_LOG_NAME_BYTES];
        qr_log_file_name(list.found[i].number, name);
        if (strcmp(name, failed) != 0)
            end = qr_max(end, list.found[i].header.end);
        else
            CHECK(list.found[i].blank == may_write && list.found[i].superseded == !may_write, "it counts");
    }
    qr_log_list_done(&list);
    return end;
}

static struct simdisk *die(struct simdisk *disk, struct quire *db)
{
    struct simdisk *after = simdisk_crash(disk, &(struct simdisk_crash){.mode = SIMDISK_DEATH});
    CHECK_EQUAL(quire_close(db), 0);
    simdisk_free(disk);
    return after;
}

/* What readers see of a store that nobody has open. */
static void look(struct simdisk *disk)
{
    struct quire *db;
    struct quire_tree *tree;
    if (!CHECK_EQUAL(open_on(disk, NULL, QUIRE_OPEN_READ_ONLY, &db, &tree), 0)) return;
    CHECK_EQUAL(quire_verify(db, NULL, NULL), 0);
    CHECK_EQUAL(quire_close(db), 0);
}

static void begin(struct simdisk *disk, struct qr_disk_ops *ops, bool blank, bool unlink)
{
    own = simdisk_disk(disk)->ops;
    *ops = *own;
    ops->file_map = map_file;
    ops->dir_unlink = unlink_file;
    ops->file_write = write_file;
    ops->file_close = close_file;
    ops->file_open = open_file;
    ops->file_sync = sync_file;
    failed[0] = '\0';
    failed_file = NULL;
    armed = true;
    may_write = blank;
    may_open = false;
    may_unlink = unlink;
}

static uint32_t missing(struct quire_tree *tree, uint32_t count)
{
    char key[16], got[1000];
    size_t size;
    uint32_t found = 0;
    for (uint32_t i = 0; i < count; i++) found += quire_get(tree, NULL, key, make_key(i, key), got, sizeof(got), &size) == 0;
    return count - found;
}

/* by_opening: the other one is removed by an opening, else by the life that made it. blank: the header could be taken back. unlink: the
 * file could be removed, and comes back. */
static void run(bool by_opening, bool blank, bool unlink, uint32_t more)
{
    struct simdisk *disk = simdisk_create();
    struct quire *db;
    struct quire_tree *tree;
    struct qr_disk_ops ops;
    uint32_t count = 0;
    uint64_t lsn = 0;
    begin(disk, &ops, blank, unlink);
    if (!CHECK_EQUAL(open_on(disk, &ops, 0, &db, &tree), 0)) return;
    while (failed[0] == '\0' && count < MOST_KEYS) lsn = put_one(tree, count++);
    uint64_t end = end_of_the_other(db);
    while (lsn < end + 8192 && count < MOST_KEYS) lsn = put_one(tree, count++);
    CHECK_EQUAL(quire_checkpoint(db), 0);
    for (uint32_t i = 0; i < more; i++) lsn = put_one(tree, count++);
    CHECK_EQUAL(quire_verify(db, NULL, NULL), 0);
    CHECK_EQUAL(quire_wait_durable(db, lsn), 0);
    disk = die(disk, db);
    if (blank) look(disk);
    if (by_opening) {
        if (!CHECK_EQUAL(open_on(disk, &ops, 0, &db, &tree), 0)) return;
        CHECK_EQUAL(quire_verify(db, NULL, NULL), 0);
        disk = die(disk, db);
    }
    if (blank) look(disk);
    if (!CHECK_EQUAL(open_on(disk, blank || unlink ? NULL : &ops, 0, &db, &tree), 0)) return;
    CHECK(missing(tree, count) == 0, "of %u keys %u are missing", count, missing(tree, count));
    CHECK_EQUAL(quire_verify(db, NULL, NULL), 0);
    CHECK_EQUAL(quire_close(db), 0);
    simdisk_free(disk);
}

/* ---- Far behind the failed one ------------------------------------------------------------------------------------ */

static struct quire_tree *hole_tree;
static uint32_t hole_count;
static struct simdisk *hole_disk, *dead_disk;

static void *put_behind(void *arg)
{
    (void)arg;
    for (uint32_t i = 0; i < 50; i++) (void)put_one(hole_tree, hole_count++);
    return NULL;
}

/* In the midst of a write another thread has some acknowledged, and the process dies. */
static void die_in_write(const char *name, void *arg)
{
    pthread_t thread;
    (void)arg;
    if (strcmp(name, "frame.unnamed") != 0) return;
    qr_stop_set_hook(NULL, NULL);
    CHECK_EQUAL(pthread_create(&thread, NULL, put_behind, NULL), 0);
    CHECK_EQUAL(pthread_join(thread, NULL), 0);
    dead_disk = simdisk_crash(hole_disk, &(struct simdisk_crash){.mode = SIMDISK_DEATH});
}

/* past: the log has come past the end of the failed one, and what stood in its place is used again. opens: the file can be opened, but
 * not synced. */
static void run_hole(bool past, bool opens)
{
    struct simdisk *disk = simdisk_create();
    struct quire *db;
    struct quire_tree *tree;
    struct qr_disk_ops ops;
    uint32_t count = 0;
    begin(disk, &ops, false, false);
    if (!CHECK_EQUAL(open_on(disk, &ops, 0, &db, &tree), 0)) return;
    while (failed[0] == '\0' && count < MOST_KEYS) (void)put_one(tree, count++);
    while (past && count < 5000) (void)put_one(tree, count++);
    if (past) CHECK_EQUAL(quire_checkpoint(db), 0);
    while (past && count < 10000) (void)put_one(tree, count++);
    CHECK_EQUAL(quire_sync(db), 0);
    hole_tree = tree;
    hole_disk = disk;
    hole_count = count + 1;
    qr_stop_set_hook(die_in_write, NULL);
    (void)put_one(tree, count);
    CHECK_EQUAL(hole_count, count + 51);
    CHECK_EQUAL(quire_close(db), 0);
    simdisk_free(disk);
    may_open = opens;
    if (!CHECK_EQUAL(open_on(dead_disk, &ops, 0, &db, &tree), 0)) return;
    CHECK(missing(tree, hole_count) == 1, "of %u keys %u are missing", hole_count, missing(tree, hole_count));
    CHECK_EQUAL(quire_close(db), 0);
    simdisk_free(dead_disk);
}

/* The first segment of an opening: the smaller one has another name. */
static void run_first(void)
{
    struct simdisk *disk = simdisk_create();
    struct quire *db;
    struct quire_tree *tree;
    struct qr_disk_ops ops;
    begin(disk, &ops, true, false);
    least_bytes = 0;
    if (!CHECK_EQUAL(open_on(disk, &ops, 0, &db, &tree), 0)) return;
    CHECK(failed[0] != '\0', "nothing has failed");
    (void)put_one(tree, 0);
    disk = die(disk, db);
    look(disk);
    if (!CHECK_EQUAL(open_on(disk, NULL, 0, &db, &tree), 0)) return;
    CHECK(missing(tree, 1) == 0, "it is missing");
    CHECK_EQUAL(quire_close(db), 0);
    simdisk_free(disk);
    least_bytes = LARGE_BYTES;
}

int main(void)
{
    for (int kind = 0; kind < 3; kind++) {
        run(false, kind == 1, kind == 2, 900);
        run(false, kind == 1, kind == 2, 50);
        run(true, kind == 1, kind == 2, 50);
    }
    for (int kind = 0; kind < 4; kind++) run_hole(kind / 2 != 0, kind % 2 != 0);
    run_first();
    return check_finish();
}
