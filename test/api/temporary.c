/*
 * Goal: a temporary store is gone when it is closed or could not be opened; quire_destroy removes a store, the whole store,
 * and nothing but a store.
 * Method: stores in a directory of the test, whose content is listed and compared byte by byte before and after.
 */
#include "api_dir.h"

#include "db/db.h"
#include "lib/resting.h"
#include "lib/simdisk.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>

TestSuite(temporary, .init = make_root, .fini = remove_root);
TestSuite(destroy, .init = make_root, .fini = remove_root);

static struct quire_options temporary_options(void)
{
    struct quire_options options;
    quire_options_init(&options);
    options.open_mode = QUIRE_OPEN_TEMPORARY;
    return options;
}

/* A27 */
Test(temporary, a_store_is_private_and_gone_after_close)
{
    struct quire_options options = temporary_options();
    struct quire *a = NULL, *b = NULL;
    OK(quire_open(root, &options, &a));
    OK(quire_open(root, &options, &b)); /* another one */
    shell("test $(ls | wc -l) -eq 2 && test -z \"$(find . -mindepth 1 -maxdepth 1 -perm /077)\" && test $(ls */manifest | wc -l) -eq 2");
    struct quire_tree *tree = open_tree(a, "t");
    fill(tree, 0, 20000);
    cr_assert_eq(count_all(open_tree(b, "t"), NULL), 0);
    OK(quire_options_get(a, &options));
    cr_assert_eq(options.level, QUIRE_LEVEL_PROCESS);
    cr_assert_eq(options.sync_period_ms, QUIRE_NO_PERIOD);
    uint64_t lsn = 0, durable = 0;
    OK(quire_put(tree, TEXT("k"), TEXT("v"), 0, &lsn));
    OK(quire_durable_lsn(a, &durable));
    cr_assert_lt(durable, lsn, "synced without being asked");
    OK(quire_put(tree, TEXT("k"), TEXT("v"), QUIRE_WRITE_DURABLE, &lsn));
    OK(quire_durable_lsn(a, &durable));
    cr_assert_geq(durable, lsn);
    OK(quire_close(a));
    shell("test $(ls | wc -l) -eq 1");
    OK(quire_close(b));
    shell("test -z \"$(ls)\"");
}

/* A27 */
Test(temporary, without_a_path_it_is_in_tmpdir)
{
    struct quire_options options = temporary_options();
    struct quire *db = NULL;
    cr_assert_eq(setenv("TMPDIR", root, 1), 0);
    OK(quire_open(NULL, &options, &db));
    shell("test $(ls | wc -l) -eq 1");
    OK(quire_close(db));
    shell("test -z \"$(ls)\"");
    unsetenv("TMPDIR");
}

/* A27 */
Test(temporary, nothing_is_left_of_a_failed_opening)
{
    struct quire_options options = temporary_options();
    struct quire *db = NULL;
    struct rlimit limit, small;
    EXPECT(quire_open(path_of("none"), &options, &db), QUIRE_ERR_IO);
    cr_assert_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
    small = limit;
    for (rlim_t size = 0; size <= 262144; size += size < 32768 ? 4096 : 65536) { /* manifest, lock, segment do not fit */
        small.rlim_cur = size;
        cr_assert_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
        int result = quire_open(root, &options, &db);
        setrlimit(RLIMIT_FSIZE, &limit);
        cr_assert(result == QUIRE_ERR_NO_SPACE || (result == 0 && size >= 65536), "size %u: %d", (unsigned)size, result);
        if (result == 0) OK(quire_close(db));
        shell("test -z \"$(ls)\"");
    }
    options.level = QUIRE_LEVEL_DURABLE;
    EXPECT(quire_open(root, &options, &db), QUIRE_ERR_INVALID);
    expect_detail(QUIRE_ERR_INVALID, "level");
    shell("test -z \"$(ls)\"");
}

/* What somebody else put there stays. */
Test(temporary, what_is_not_of_the_store_stays)
{
    struct quire_options options = temporary_options();
    struct quire *db = NULL;
    OK(quire_open(root, &options, &db));
    shell("echo mine > $(ls)/notes");
    OK(quire_close(db));
    shell("test \"$(ls *)\" = notes");
}

/* ---- quire_destroy ---------------------------------------------------------------------------------------------- */

static void make_store(const char *name)
{
    struct quire *db = open_store(name, QUIRE_OPEN_OR_CREATE);
    fill(open_tree(db, "t"), 0, 3000);
    OK(quire_close(db));
}

Test(destroy, removes_a_store_and_its_directory)
{
    make_store("s");
    OK(quire_destroy(path_of("s")));
    cr_assert(!is_there("s"));
    EXPECT(quire_destroy(path_of("s")), QUIRE_NOT_FOUND);
    make_store("s"); /* and another one can be made there */
    struct quire *db = open_store("s", QUIRE_OPEN_EXISTING);
    cr_assert_eq(count_all(open_tree(db, "t"), NULL), 3000);
    OK(quire_close(db));
}

Test(destroy, of_a_store_that_is_open_is_busy)
{
    make_store("s");
    for (uint32_t mode = QUIRE_OPEN_EXISTING; mode <= QUIRE_OPEN_READ_ONLY; mode += 2) {
        struct quire *db = open_store("s", mode);
        EXPECT(quire_destroy(path_of("s")), QUIRE_ERR_BUSY);
        if (mode == QUIRE_OPEN_EXISTING) { /* DESTROY-4: as it may look while somebody is at work on it */
            shell("echo half > s/log-00ffffff");
            EXPECT(quire_destroy(path_of("s")), QUIRE_ERR_BUSY);
            shell("rm s/log-00ffffff && mv s/manifest s/manifest.new"); /* or while it is removed */
            EXPECT(try_open("s", QUIRE_OPEN_EXISTING), QUIRE_ERR_BUSY);
            shell("mv s/manifest.new s/manifest");
        }
        cr_assert_eq(count_all(open_tree(db, "t"), NULL), 3000);
        OK(quire_close(db));
    }
    OK(try_open("s", QUIRE_OPEN_EXISTING));
    OK(quire_destroy(path_of("s")));
}

/* A04, F18 */
Test(destroy, of_what_is_not_provably_a_store_is_foreign_and_touches_nothing)
{
    static const char *const additions[] = {
        "echo hello > s/notes", "mkdir s/more", "echo hello > s/log-00ffffff", "ln -s manifest s/log-00ffffff",
        "echo hello > s/manifest.new", "echo hello > s/lock", "cp $(ls other/log-* | head -n 1) s/log-00ffffff", "mkfifo s/log-00ffffff",
        "echo hello > s/log-1",
    };
    make_store("other");
    for (unsigned i = 0; i < sizeof(additions) / sizeof(additions[0]); i++) {
        make_store("s");
        shell(additions[i]);
        uint64_t before = digest("s");
        EXPECT(quire_destroy(path_of("s")), QUIRE_ERR_FOREIGN);
        cr_assert_eq(digest("s"), before, "%s: touched", additions[i]);
        shell("rm -rf s");
    }
    shell("mkdir text && echo hello > text/manifest && mkdir logs && cp other/log-* logs && mkdir empty && echo > file && "
          "mkdir begun && head -c 512 /dev/zero > begun/manifest.new && touch begun/lock");
    int fd = open(path_of("text"), O_RDONLY | O_DIRECTORY); /* somebody else's lock does not make it a store */
    shell("mv text/manifest text/other");
    cr_assert_eq(flock(fd, LOCK_EX), 0);
    EXPECT(try_open("text", QUIRE_OPEN_OR_CREATE), QUIRE_ERR_FOREIGN);
    shell("mv text/other text/manifest");
    EXPECT(quire_destroy(path_of("text")), QUIRE_ERR_FOREIGN);
    close(fd);
    EXPECT(quire_destroy(path_of("logs")), QUIRE_ERR_FOREIGN);
    EXPECT(quire_destroy(path_of("file")), QUIRE_ERR_FOREIGN);
    EXPECT(quire_destroy(path_of("empty")), QUIRE_NOT_FOUND);
    EXPECT(quire_destroy(path_of("begun")), QUIRE_NOT_FOUND);
    EXPECT(quire_destroy(path_of("none")), QUIRE_NOT_FOUND);
    EXPECT(quire_destroy(NULL), QUIRE_ERR_INVALID);
    cr_assert(is_there("text/manifest") && is_there("logs") && is_there("file") && is_there("empty") && is_there("begun/lock"));
}

/* What a crash leaves of a segment that was being made has no header. */
Test(destroy, takes_segments_that_were_never_finished)
{
    make_store("s");
    shell("head -c 65536 /dev/zero > s/log-00ffffff && touch s/log-00fffffe && head -c 5 /dev/zero > s/lock");
    OK(quire_destroy(path_of("s")));
    cr_assert(!is_there("s"));
}

/* DESTROY-2: at every step in the middle there is no store, and calling it again ends it. */
Test(destroy, that_was_interrupted_leaves_no_store_and_can_be_ended)
{
    for (unsigned kept = 0; kept < 3; kept++) {
        make_store("s");
        shell("mv s/manifest s/manifest.new");
        if (kept == 1) shell("rm $(ls s/log-* | head -n 1)");
        if (kept == 2) shell("rm -f s/log-* s/page-*");
        int result = try_open("s", QUIRE_OPEN_EXISTING);
        cr_assert(result == (kept == 2 ? QUIRE_NOT_FOUND : QUIRE_ERR_FOREIGN), "%d", result);
        OK(quire_destroy(path_of("s")));
        cr_assert(!is_there("s"));
    }
}

/* ---- On a simulated disk ---------------------------------------------------------------------------------------- */

static struct simdisk *disk;
static struct simdisk *images[64]; /* of power losses in the midst */
static uint32_t image_count;

static void make_on_disk(void)
{
    struct quire_options options = resting_options(QUIRE_LEVEL_PROCESS);
    struct quire *db = NULL;
    options.log_segment_bytes = 16384;
    disk = simdisk_create();
    OK(qr_db_open("store", simdisk_disk(disk), &options, &db));
    fill(open_tree(db, "t"), 0, 3000);
    OK(quire_checkpoint(db));
    OK(quire_close(db));
}

static void lose_power(void *context, const struct simdisk_event *event)
{
    struct simdisk_crash crash = {.mode = SIMDISK_RANDOM, .names = SIMDISK_NAMES_SUBSET, .seed = *(uint64_t *)context};
    *(uint64_t *)context += 1;
    if (event->kind != SIMDISK_UNLINK && event->kind != SIMDISK_RENAME && event->kind != SIMDISK_DIR_SYNC) return;
    if (image_count < sizeof(images) / sizeof(images[0])) images[image_count++] = simdisk_crash(disk, &crash);
}

/* DESTROY-2: whichever of the removed names come back. And what was being written is whole, or zeros, as the text of the lock. */
Test(destroy, that_lost_power_can_be_ended)
{
    uint64_t seed = 1;
    for (int i = 0; i < 40; i++) {
        make_on_disk();
        image_count = 0;
        simdisk_set_hook(disk, lose_power, &seed);
        OK(qr_db_destroy(simdisk_disk(disk), "store", true));
        simdisk_set_hook(disk, NULL, NULL);
        cr_assert_gt(image_count, 4);
        for (uint32_t k = 0; k < image_count; k++) {
            int result = qr_db_destroy(simdisk_disk(images[k]), "store", true);
            cr_assert(result == 0 || result == QUIRE_NOT_FOUND, "seed %u: %d", (unsigned)seed, result);
            simdisk_free(images[k]);
        }
        simdisk_free(disk);
    }
}

static void destroy_first(void *context, const struct simdisk_event *event)
{
    if (event->kind != SIMDISK_LOCK) return;
    simdisk_set_hook(disk, NULL, NULL);
    *(bool *)context = true;
    OK(qr_db_destroy(simdisk_disk(disk), "store", true));
}

/* The one that comes later leaves no lock behind. */
Test(destroy, by_two_at_once_leaves_nothing)
{
    bool done = false;
    make_on_disk();
    simdisk_set_hook(disk, destroy_first, &done);
    OK(qr_db_destroy(simdisk_disk(disk), "store", true));
    cr_assert(done);
    EXPECT(qr_db_destroy(simdisk_disk(disk), "store", true), QUIRE_NOT_FOUND);
    cr_assert_eq(simdisk_used_bytes(disk), 0);
    simdisk_free(disk);
}

static struct quire *created;

static void create_midst(void *context, const struct simdisk_event *event)
{
    struct quire_options options = resting_options(QUIRE_LEVEL_PROCESS);
    (void)context;
    if (event->kind != SIMDISK_LIST) return;
    simdisk_set_hook(disk, NULL, NULL);
    OK(qr_db_open("store", simdisk_disk(disk), &options, &created));
}

/* DESTROY-4: it has looked for the manifest before there was one. */
Test(destroy, of_a_store_that_comes_meanwhile_is_busy)
{
    make_on_disk();
    OK(qr_db_destroy(simdisk_disk(disk), "store", true));
    simdisk_set_hook(disk, create_midst, NULL);
    EXPECT(qr_db_destroy(simdisk_disk(disk), "store", true), QUIRE_ERR_BUSY);
    cr_assert_not_null(created);
    OK(quire_close(created));
    simdisk_free(disk);
}

/* DESTROY-4 */
Test(destroy, tells_a_failure_of_the_disk)
{
    static const enum simdisk_kind kinds[] = {SIMDISK_READ, SIMDISK_LIST};
    for (unsigned k = 0; k < 2; k++) {
        int result = QUIRE_ERR_IO;
        for (unsigned nth = 1; result != 0; nth++) {
            make_on_disk();
            unsigned fault = simdisk_fault_set(disk, &(struct simdisk_fault){.kind = kinds[k], .nth = nth, .error = EIO});
            result = qr_db_destroy(simdisk_disk(disk), "store", true);
            cr_assert_eq(result, simdisk_fault_fired(disk, fault) == 0 ? 0 : QUIRE_ERR_IO, "%u: %d", nth, result);
            simdisk_faults_clear(disk);
            EXPECT(qr_db_destroy(simdisk_disk(disk), "store", true), result == 0 ? QUIRE_NOT_FOUND : 0);
            simdisk_free(disk);
        }
    }
}

static void put_file(const char *name)
{
    struct qr_dir *dir;
    struct qr_file *file;
    const struct qr_disk_ops *ops = simdisk_disk(disk)->ops;
    OK(ops->dir_open(simdisk_disk(disk), "store", 0, &dir));
    OK(ops->file_open(dir, name, QR_FILE_WRITE | QR_FILE_CREATE, &file));
    cr_assert_eq(qr_file_write(file, "mine", 4, 0), 0);
    ops->file_close(file);
    ops->dir_close(dir);
}

/* What it refuses it does not keep others out of. */
Test(destroy, of_a_store_with_foreign_files_takes_no_lock)
{
    make_on_disk();
    put_file("notes");
    uint64_t locks = simdisk_count(disk, SIMDISK_LOCK);
    EXPECT(qr_db_destroy(simdisk_disk(disk), "store", true), QUIRE_ERR_FOREIGN);
    cr_assert_eq(simdisk_count(disk, SIMDISK_LOCK), locks);
    simdisk_free(disk);
}

static void put_midst(void *context, const struct simdisk_event *event)
{
    (void)context;
    if (event->kind != SIMDISK_RENAME) return;
    simdisk_set_hook(disk, NULL, NULL);
    put_file("page-000000ff");
}

/* DESTROY-1: what was not proven is not removed, whatever its name. */
Test(destroy, leaves_what_came_since_the_proof)
{
    make_on_disk();
    simdisk_set_hook(disk, put_midst, NULL);
    OK(qr_db_destroy(simdisk_disk(disk), "store", true));
    cr_assert_gt(simdisk_used_bytes(disk), 0);
    simdisk_free(disk);
}

Test(destroy, by_a_link_leaves_the_link)
{
    make_store("s");
    shell("ln -s s link");
    OK(quire_destroy(path_of("link")));
    cr_assert(is_there("link") && is_there("s"));
    shell("rm link && test -z \"$(ls -A s)\"");
    make_store("s");
    OK(quire_destroy(path_of("s/.")));
    shell("test -z \"$(ls -A s)\"");
}

/* ---- Opening beside a removal ----------------------------------------------------------------------------------- */

struct removal {
    bool another;   /* a store is made where the removed one was */
    unsigned lists; /* that the opening has begun so far */
};

static void end_removal(void *context, const struct simdisk_event *event)
{
    struct removal *removal = context;
    if (event->kind != SIMDISK_LIST || ++removal->lists != 2) return;
    simdisk_set_hook(disk, NULL, NULL);
    OK(qr_db_destroy(simdisk_disk(disk), "store", true));
    struct quire_options options = resting_options(QUIRE_LEVEL_PROCESS);
    struct quire *db;
    if (!removal->another) return;
    OK(qr_db_open("store", simdisk_disk(disk), &options, &db));
    OK(quire_close(db));
}

/* It finds segments without a manifest, and then nothing, or another store: none of it is foreign. */
Test(destroy, that_ends_while_somebody_opens_makes_it_busy)
{
    for (unsigned i = 0; i < 8; i++) {
        struct removal removal = {.another = i % 2 != 0};
        struct quire_options options = resting_options(QUIRE_LEVEL_PROCESS);
        struct qr_dir *dir;
        struct quire *db;
        options.open_mode = i / 2;
        if (options.open_mode == QUIRE_OPEN_READ_ONLY) options.level = 0;
        make_on_disk();
        const struct qr_disk_ops *ops = simdisk_disk(disk)->ops;
        OK(ops->dir_open(simdisk_disk(disk), "store", 0, &dir));
        OK(ops->dir_rename(dir, "manifest", "manifest.new")); /* as a removal begins */
        ops->dir_close(dir);
        simdisk_set_hook(disk, end_removal, &removal);
        EXPECT(qr_db_open("store", simdisk_disk(disk), &options, &db), QUIRE_ERR_BUSY);
        cr_assert_eq(removal.lists, 2);
        cr_assert_eq(simdisk_open_count(disk), 0);
        simdisk_free(disk);
    }
}
