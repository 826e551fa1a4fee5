/*
 * Goal: files of a newer version, of unknown features or of somebody else are refused with the code that says so, and not one
 * byte of them is changed; so is a file whose beginning is damaged.
 * Method: a store that needs all its kinds of files (manifest, log, pages); the header of each is edited, with a right sum
 * where there is one; every mode of opening; digests before and after.
 */
#include "api_sim.h"

#include "base/bytes.h"
#include "base/crc32c.h"
#include "store/manifest.h"
#include "store/records.h"

TestSuite(formats, .timeout = 60);

static struct simdisk *disk;

/* Where the sum of a header stands, and what it is of: all that comes before it. */
struct kind {
    const char *prefix;
    uint32_t sum;
};
static const struct kind manifest = {"manifest", 508};
static const struct kind log_segment = {"log-", 100};
static const struct kind page_segment = {"page-", 60};

static void make_store(void)
{
    disk = simdisk_create();
    struct quire *db = open_on(disk, sim_options(QUIRE_LEVEL_DURABLE));
    struct quire_tree *tree = open_tree(db, "t");
    put(tree, "a", "in a page");
    OK(quire_checkpoint(db));
    put(tree, "b", "in the log");
    abandon(db);
}

static void check_store(void)
{
    struct quire *db = open_on(disk, sim_options(0));
    struct quire_tree *tree = open_tree(db, "t");
    expect(tree, NULL, "a", "in a page");
    expect(tree, NULL, "b", "in the log");
    OK(quire_close(db));
    cr_assert_eq(simdisk_open_count(disk), 0);
    simdisk_free(disk);
}

/* Changes the headers of all files of a kind: bytes at an offset; fixes the sum. */
static void edit(const struct kind *kind, uint32_t offset, const void *bytes, size_t size, bool fix)
{
    struct sim_list list = list_files(disk);
    uint32_t edited = 0;
    for (uint32_t i = 0; i < list.count; i++) {
        uint8_t header[512], sum[4];
        if (strncmp(list.names[i], kind->prefix, strlen(kind->prefix)) != 0) continue;
        simdisk_damage(disk, STORE, list.names[i], offset, bytes, size);
        memcpy(header, simdisk_content(disk, STORE, list.names[i], &(uint64_t){0}), sizeof(header));
        qr_store_u32(sum, qr_crc32c(0, header, kind->sum));
        if (fix) simdisk_damage(disk, STORE, list.names[i], kind->sum, sum, 4);
        edited++;
    }
    cr_assert_neq(edited, 0);
}

/* Opening in each mode answers this, and changes nothing. */
static void refused(int right, int right_read_only)
{
    uint64_t before = sim_digest(disk);
    for (uint32_t mode = 0; mode <= QUIRE_OPEN_READ_ONLY; mode++) {
        struct quire_options options = sim_options(0);
        struct quire *db = NULL;
        if (mode == QUIRE_CREATE_NEW) continue; /* EXISTS */
        options.open_mode = mode;
        int result = qr_db_open(STORE, simdisk_disk(disk), &options, &db);
        cr_assert_eq(result, mode == QUIRE_OPEN_READ_ONLY ? right_read_only : right, "mode %u: %d", mode, result);
        if (result == 0) OK(quire_close(db));
        cr_assert_eq(sim_digest(disk), before, "mode %u: files were changed", mode);
    }
}

/* A04, F34 */
Test(formats, a_newer_version_of_any_kind_of_file_is_refused_and_untouched)
{
    const struct kind *kinds[] = {&manifest, &log_segment, &page_segment};
    for (unsigned i = 0; i < 3; i++) {
        make_store();
        edit(kinds[i], 8, "\2\0\0\0", 4, true);
        refused(QUIRE_ERR_NEWER, QUIRE_ERR_NEWER);
        edit(kinds[i], 8, "\1\0\0\0", 4, true);
        check_store();
    }
}

/* A04: compatible: all may be done; read-compatible: reading; incompatible: nothing */
Test(formats, unknown_features_are_refused_as_their_kind_says)
{
    static const uint8_t none[8], some[8] = {0, 0, 0, 0, 0, 0, 0, 0x80};
    make_store();
    edit(&manifest, 80, some, 8, true);
    refused(QUIRE_ERR_NEWER, QUIRE_ERR_NEWER);
    expect_detail(QUIRE_ERR_NEWER, "feature");
    edit(&manifest, 80, none, 8, true);
    edit(&manifest, 72, some, 8, true);
    uint64_t before = sim_digest(disk);
    struct quire_options options = sim_options(0);
    struct quire *db = NULL;
    EXPECT(qr_db_open(STORE, simdisk_disk(disk), &options, &db), QUIRE_ERR_NEWER);
    options.open_mode = QUIRE_OPEN_READ_ONLY;
    OK(qr_db_open(STORE, simdisk_disk(disk), &options, &db));
    expect(open_tree(db, "t"), NULL, "b", "in the log");
    OK(quire_close(db));
    cr_assert_eq(sim_digest(disk), before);
    edit(&manifest, 72, none, 8, true);
    edit(&manifest, 64, some, 8, true);
    /* Who rewrites the manifest keeps what it does not know. */
    db = open_on(disk, sim_options(0));
    OK(quire_close(db));
    cr_assert_eq(memcmp(simdisk_content(disk, STORE, "manifest", &(uint64_t){0}) + 64, some, 8), 0);
    check_store();
}

static int pass(void *context, const struct qr_manifest_record *record)
{
    (void)context, (void)record;
    return 0;
}

/* A kind that the format has and this version does not write: what it says is not obeyed, so nothing is done. */
Test(formats, a_record_of_a_failed_sync_is_of_a_newer_version)
{
    uint8_t payload[QR_MANIFEST_POISON_BYTES];
    struct qr_manifest_record record = qr_manifest_poison_encode(&(struct qr_manifest_poison){.durable_lsn = 1}, payload);
    struct qr_manifest *appended;
    struct qr_dir *dir;
    make_store();
    struct qr_disk *table = simdisk_disk(disk);
    cr_assert_eq(table->ops->dir_open(table, STORE, 0, &dir), 0);
    OK(qr_manifest_open(dir, true, pass, NULL, &appended));
    OK(qr_manifest_append(appended, &record, 1));
    qr_manifest_close(appended);
    table->ops->dir_close(dir);
    refused(QUIRE_ERR_NEWER, QUIRE_ERR_NEWER);
    simdisk_free(disk);
}

/* F34, A04, K02: a magic that is another one; FOREIGN where it is all that a store is known by */
Test(formats, another_magic_is_refused_and_untouched)
{
    make_store();
    edit(&manifest, 0, "SOMEBODY", 8, true);
    refused(QUIRE_ERR_FOREIGN, QUIRE_ERR_FOREIGN);
    edit(&manifest, 0, "QUIREMAN", 8, true);
    edit(&log_segment, 0, "SOMEBODY", 8, true);
    refused(QUIRE_ERR_CORRUPT, QUIRE_ERR_CORRUPT);
    expect_detail(QUIRE_ERR_CORRUPT, "log-");
    edit(&log_segment, 0, "QUIRELOG", 8, true);
    edit(&page_segment, 0, "SOMEBODY", 8, true);
    refused(QUIRE_ERR_CORRUPT, QUIRE_ERR_CORRUPT);
    expect_detail(QUIRE_ERR_CORRUPT, "page-");
    edit(&page_segment, 0, "QUIREPAG", 8, true);
    check_store();
}

/* F34, F09: each byte of each header that is used. The manifest's magic is the one thing that makes it FOREIGN. */
Test(formats, a_damaged_header_of_any_kind_of_file_is_corrupt)
{
    const struct kind *kinds[] = {&manifest, &log_segment, &page_segment};
    make_store();
    for (unsigned i = 0; i < 3; i++) {
        for (uint32_t offset = 0; offset < kinds[i]->sum + 4; offset++) {
            struct sim_list list = list_files(disk);
            const char *name = NULL;
            for (uint32_t k = 0; k < list.count && name == NULL; k++)
                if (strncmp(list.names[k], kinds[i]->prefix, strlen(kinds[i]->prefix)) == 0) name = list.names[k];
            uint8_t byte = simdisk_content(disk, STORE, name, &(uint64_t){0})[offset];
            uint8_t flipped = byte ^ (uint8_t)(1u << offset % 8);
            edit(kinds[i], offset, &flipped, 1, false);
            refused(QUIRE_ERR_CORRUPT, QUIRE_ERR_CORRUPT);
            edit(kinds[i], offset, &byte, 1, false);
        }
    }
    check_store();
}
