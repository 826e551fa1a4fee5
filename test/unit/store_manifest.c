/*
 * Goal: a manifest in a real directory keeps its records through reopening and rollover; files that are not this
 * store's stay as they are; nothing is leaked when memory runs out. Method: a temporary directory; files planted in it,
 * compared before and after; failing allocations. Crashes and failing operations are in test/store/manifest_crash.c,
 * damaged bytes in store_format.c.
 */
#include "store_sample.h"

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/crc32c.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <quire/quire.h>

/* ---- A directory ------------------------------------------------------------------------------------------------ */

static char path[64];
static struct qr_disk *disk;
static struct qr_dir *dir;

static void begin(void)
{
    strcpy(path, "/tmp/quire-manifest-XXXXXX");
    cr_assert_not_null(mkdtemp(path));
    cr_assert_eq(qr_disk_posix(&disk), 0);
    cr_assert_eq(disk->ops->dir_open(disk, path, 0, &dir), 0);
}

static const char *path_of(const char *name)
{
    static char full[128];
    snprintf(full, sizeof(full), "%s/%s", path, name);
    return full;
}

static void end(void)
{
    disk->ops->dir_close(dir);
    disk->ops->disk_free(disk);
    unlink(path_of("elsewhere"));
    if (unlink(path_of("manifest")) != 0 && errno == EISDIR)
        rmdir(path_of("manifest"));
    if (unlink(path_of("manifest.new")) != 0 && errno == EISDIR)
        rmdir(path_of("manifest.new"));
    cr_assert_eq(rmdir(path), 0, "something is left in %s", path);
}

TestSuite(store_manifest, .init = begin, .fini = end, .timeout = 120);

static void plant(const char *name, const void *bytes, size_t size)
{
    int fd = open(path_of(name), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    cr_assert(fd >= 0 && write(fd, bytes, size) == (ssize_t)size && close(fd) == 0);
}

/* A file's bytes and times. */
struct look {
    struct stat facts;
    uint8_t bytes[32768];
    ssize_t size;
};

static struct look look_at(const char *name)
{
    static struct look look;
    memset(&look, 0, sizeof(look));
    int fd = open(path_of(name), O_RDONLY);
    cr_assert(fd >= 0, "%s", name);
    cr_assert_eq(fstat(fd, &look.facts), 0);
    look.size = read(fd, look.bytes, sizeof(look.bytes));
    close(fd);
    return look;
}

static void expect_untouched(const char *name, const struct look *before)
{
    static struct look after;
    after = look_at(name);
    cr_assert_eq(after.facts.st_ino, before->facts.st_ino, "%s is another file", name);
    cr_assert_eq(after.facts.st_mtim.tv_sec, before->facts.st_mtim.tv_sec);
    cr_assert_eq(after.facts.st_mtim.tv_nsec, before->facts.st_mtim.tv_nsec);
    cr_assert_eq(after.size, before->size);
    cr_assert_arr_eq(after.bytes, before->bytes, sizeof(after.bytes));
}

static bool is_there(const char *name)
{
    return access(path_of(name), F_OK) == 0;
}

/* ---- Records ---------------------------------------------------------------------------------------------------- */

struct seen {
    unsigned count;
    struct qr_manifest_record records[512];
    uint64_t numbers[512]; /* beginnings of payloads */
    int answer;
};

static int see(void *context, const struct qr_manifest_record *record)
{
    struct seen *seen = context;
    cr_assert_lt(seen->count, 512);
    seen->records[seen->count] = *record;
    seen->numbers[seen->count] = record->size >= 8 ? qr_load_u64(record->payload) : 0;
    seen->count++;
    return seen->answer;
}

static int count_only(void *context, const struct qr_manifest_record *record)
{
    struct seen *seen = context;
    cr_assert_eq(record->sequence, 2 + seen->count);
    seen->count++;
    return 0;
}

static int give_id(void *context, void *memory, size_t size)
{
    memset(memory, 0x1d, size);
    return context == NULL ? 0 : -*(int *)context;
}
static const struct qr_manifest_setup setup = {.random = give_id, .features_compatible = 4};

static struct qr_manifest_record poison(uint64_t number)
{
    static uint8_t payloads[8][QR_MANIFEST_POISON_BYTES];
    static unsigned next;
    return qr_manifest_poison_encode(&(struct qr_manifest_poison){.durable_lsn = number}, payloads[next++ % 8]);
}

static struct qr_manifest *create(void)
{
    struct qr_manifest *manifest = NULL;
    struct qr_manifest_record record = poison(1);
    cr_assert_eq(qr_manifest_create(dir, &setup, &record, 1, &manifest), 0);
    return manifest;
}

static int append(struct qr_manifest *manifest, uint64_t number)
{
    struct qr_manifest_record record = poison(number);
    return qr_manifest_append(manifest, &record, 1);
}

/* Opens and closes. */
static int read_all(bool for_writing, struct seen *seen)
{
    struct qr_manifest *manifest = NULL;
    memset(seen, 0, sizeof(*seen));
    int result = qr_manifest_open(dir, for_writing, see, seen, &manifest);
    if (result == 0)
        qr_manifest_close(manifest);
    else
        cr_assert_null(manifest);
    return result;
}

static void expect_detail(int result, const char *text)
{
    struct quire_error_detail detail;
    quire_error_detail(&detail);
    cr_assert_eq(detail.result, result);
    cr_assert_not_null(strstr(detail.message, text), "%s", detail.message);
}

/* ---- Life ------------------------------------------------------------------------------------------------------- */

static struct seen seen;

Test(store_manifest, records_come_back_in_order)
{
    struct qr_manifest *manifest = create();
    cr_assert_not(is_there("manifest.new"));
    cr_assert_eq(append(manifest, 2), 0);
    struct qr_manifest_record two[2] = {poison(3), poison(4)};
    cr_assert_eq(qr_manifest_append(manifest, two, 2), 0);
    cr_assert_eq(qr_manifest_header(manifest)->generation, 1);
    cr_assert_eq(qr_manifest_header(manifest)->store_id[7], 0x1d);
    cr_assert_eq(qr_manifest_header(manifest)->features_compatible, 4);
    cr_assert_eq(qr_manifest_used_bytes(manifest), 512 + 4 * 64);
    qr_manifest_close(manifest);
    qr_manifest_close(NULL);

    for (int round = 0; round < 3; round++) {
        cr_assert_eq(read_all(round == 1, &seen), 0);
        cr_assert_eq(seen.count, 4);
        for (unsigned i = 0; i < 4; i++) {
            cr_assert_eq(seen.numbers[i], i + 1);
            cr_assert_eq(seen.records[i].sequence, i + 1);
            cr_assert_eq(seen.records[i].kind, QR_MANIFEST_POISON);
        }
    }
    cr_assert_eq(qr_manifest_open(dir, true, see, &(struct seen){.count = 0}, &manifest), 0);
    cr_assert_eq(append(manifest, 5), 0);
    qr_manifest_close(manifest);
    cr_assert_eq(read_all(false, &seen), 0);
    cr_assert(seen.count == 5 && seen.numbers[4] == 5);
}

/* MANIFEST-4 */
Test(store_manifest, a_full_file_is_rewritten)
{
    struct qr_manifest *manifest = create();
    uint64_t number = 1, sequence = 1;
    for (unsigned generation = 1; generation < 5; generation++) {
        int result;
        while ((result = append(manifest, number + 1)) == 0) {
            number++, sequence++;
            cr_assert_eq(look_at("manifest").facts.st_size, QR_MANIFEST_SIZE_LEAST);
        }
        cr_assert_eq(result, QR_MANIFEST_FULL);
        cr_assert_eq(qr_manifest_used_bytes(manifest), QR_MANIFEST_SIZE_LEAST - QR_MANIFEST_SIZE_LEAST % 64);
        cr_assert_eq(read_all(false, &seen), 0);
        cr_assert_eq(seen.numbers[seen.count - 1], number);
        struct qr_manifest_record live[2] = {poison(number), poison(number + 1)};
        cr_assert_eq(qr_manifest_rewrite(manifest, live, 2), 0);
        number += 1;
        cr_assert_eq(qr_manifest_header(manifest)->generation, generation + 1);
        cr_assert_eq(qr_manifest_header(manifest)->first_sequence, sequence + 1);
        sequence += 2;
        cr_assert_not(is_there("manifest.new"));
        cr_assert_eq(read_all(false, &seen), 0);
        cr_assert(seen.count == 2 && seen.numbers[1] == number && seen.records[1].sequence == sequence);
    }
    qr_manifest_close(manifest);
}

Test(store_manifest, many_records_make_a_larger_file)
{
    static uint8_t payload[QR_MANIFEST_PAYLOAD_MOST];
    static struct qr_manifest_record records[400];
    struct qr_manifest *manifest = create();
    for (unsigned i = 0; i < 400; i++)
        records[i] = (struct qr_manifest_record){.kind = QR_MANIFEST_POISON, .size = 700, .payload = payload};
    cr_assert_eq(qr_manifest_append(manifest, records, 400), QR_MANIFEST_FULL);
    cr_assert_eq(qr_manifest_rewrite(manifest, records, 400), 0);
    cr_assert_geq(qr_manifest_header(manifest)->size_bytes, 2 * 400 * 700);
    cr_assert_eq(qr_manifest_append(manifest, records, 300), 0);
    qr_manifest_close(manifest);
    static struct seen many;
    cr_assert_eq(qr_manifest_open(dir, true, count_only, &many, &manifest), 0);
    cr_assert_eq(many.count, 700);
    qr_manifest_close(manifest);
}

Test(store_manifest, bad_appends_change_nothing)
{
    static uint8_t payload[QR_MANIFEST_PAYLOAD_MOST + 1];
    struct qr_manifest_record record = {.kind = QR_MANIFEST_POISON, .size = sizeof(payload), .payload = payload};
    struct qr_manifest *manifest = NULL;
    cr_assert_eq(qr_manifest_create(dir, &setup, &record, 1, &manifest), QUIRE_ERR_INVALID);
    cr_assert_eq(qr_manifest_create(dir, &setup, &record, 0, &manifest), QUIRE_ERR_INVALID);
    cr_assert_not(is_there("manifest.new"));
    manifest = create();
    cr_assert_eq(qr_manifest_append(manifest, &record, 1), QUIRE_ERR_INVALID);
    cr_assert_eq(qr_manifest_append(manifest, &record, 0), QUIRE_ERR_INVALID);
    cr_assert_eq(qr_manifest_rewrite(manifest, &record, 0), QUIRE_ERR_INVALID);
    cr_assert_eq(append(manifest, 2), 0);
    qr_manifest_close(manifest);
    cr_assert_eq(read_all(true, &seen), 0);
    cr_assert_eq(seen.count, 2);
}

Test(store_manifest, the_visitor_can_end_the_opening)
{
    struct qr_manifest *manifest = create(), *other = NULL;
    cr_assert_eq(append(manifest, 2), 0);
    qr_manifest_close(manifest);
    static struct look before;
    before = look_at("manifest");
    seen = (struct seen){.answer = QUIRE_ERR_CORRUPT};
    cr_assert_eq(qr_manifest_open(dir, true, see, &seen, &other), QUIRE_ERR_CORRUPT);
    cr_assert_eq(seen.count, 1);
    cr_assert_null(other);
    expect_untouched("manifest", &before);
}

Test(store_manifest, an_empty_directory_has_none)
{
    cr_assert_eq(read_all(false, &seen), QUIRE_NOT_FOUND);
    cr_assert_eq(read_all(true, &seen), QUIRE_NOT_FOUND);
    int error = ENOSYS;
    struct qr_manifest *manifest = NULL;
    struct qr_manifest_setup without = {.random = give_id, .context = &error};
    struct qr_manifest_record record = poison(1);
    cr_assert_eq(qr_manifest_create(dir, &without, &record, 1, &manifest), QUIRE_ERR_IO);
    expect_detail(QUIRE_ERR_IO, "random");
    cr_assert_not(is_there("manifest.new"));
}

/* ---- Files of others -------------------------------------------------------------------------------------------- */

static void expect_refused(int result, const char *text)
{
    static struct look before;
    before = look_at("manifest");
    struct qr_manifest *manifest = NULL;
    struct qr_manifest_record record = poison(1);
    for (int for_writing = 0; for_writing < 2; for_writing++) {
        cr_assert_eq(read_all(for_writing, &seen), result);
        expect_detail(result, text);
        cr_assert_eq(seen.count, 0);
    }
    cr_assert_eq(qr_manifest_create(dir, &setup, &record, 1, &manifest), QUIRE_EXISTS);
    expect_untouched("manifest", &before);
}

/* A04, M13 */
Test(store_manifest, foreign_and_newer_files_are_refused_untouched)
{
    static struct sample sample;
    static uint8_t zeros[QR_MANIFEST_SIZE_LEAST];
    sample_make(&sample);

    plant("manifest", "", 0);
    expect_refused(QUIRE_ERR_FOREIGN, "not a manifest");
    plant("manifest", "Dear reader, this is a text.\n", 29);
    expect_refused(QUIRE_ERR_FOREIGN, "not a manifest");
    plant("manifest", zeros, sizeof(zeros));
    expect_refused(QUIRE_ERR_FOREIGN, "not a manifest");
    plant("manifest", sample.file, 7);
    expect_refused(QUIRE_ERR_FOREIGN, "not a manifest");
    plant("manifest", sample.file, 511);
    expect_refused(QUIRE_ERR_CORRUPT, "cut short");
    plant("manifest", sample.file, 512);
    expect_refused(QUIRE_ERR_CORRUPT, "cut");
    plant("manifest", sample.file, 1000);
    expect_refused(QUIRE_ERR_CORRUPT, "cut");

    qr_store_u32(sample.file + 8, QR_MANIFEST_VERSION + 1);
    qr_store_u32(sample.file + 508, qr_crc32c(0, sample.file, 508));
    plant("manifest", sample.file, sizeof(sample.file));
    expect_refused(QUIRE_ERR_NEWER, "version 2");
    sample_make(&sample);
    sample.header.features_incompatible = 1;
    qr_manifest_header_encode(&sample.header, sample.file);
    plant("manifest", sample.file, sizeof(sample.file));
    expect_refused(QUIRE_ERR_NEWER, "features");
}

Test(store_manifest, what_may_only_be_read_is_not_written)
{
    static struct sample sample;
    static struct look before;
    sample_make(&sample);
    sample.header.features_read_compatible = 2;
    qr_manifest_header_encode(&sample.header, sample.file);
    plant("manifest", sample.file, sizeof(sample.file));
    before = look_at("manifest");
    cr_assert_eq(read_all(true, &seen), QUIRE_ERR_NEWER);
    cr_assert_eq(read_all(false, &seen), 0);
    cr_assert_eq(seen.count, SAMPLE_RECORDS);
    expect_untouched("manifest", &before);
}

Test(store_manifest, links_and_directories_are_refused)
{
    struct qr_manifest *manifest = create();
    struct qr_manifest_record record = poison(1);
    qr_manifest_close(manifest);
    manifest = NULL;
    char target[128];
    strcpy(target, path_of("elsewhere"));
    cr_assert_eq(rename(path_of("manifest"), target), 0);
    cr_assert_eq(symlink(target, path_of("manifest")), 0);
    cr_assert_eq(read_all(true, &seen), QUIRE_ERR_FOREIGN);
    cr_assert_eq(read_all(false, &seen), QUIRE_ERR_FOREIGN);
    cr_assert_eq(qr_manifest_create(dir, &setup, &record, 1, &manifest), QUIRE_EXISTS);
    cr_assert_eq(unlink(path_of("manifest")), 0);
    cr_assert_eq(mkdir(path_of("manifest"), 0700), 0);
    cr_assert_eq(read_all(true, &seen), QUIRE_ERR_FOREIGN);
    cr_assert_eq(qr_manifest_create(dir, &setup, &record, 1, &manifest), QUIRE_EXISTS);
}

/* F18 */
Test(store_manifest, a_leftover_is_removed_and_a_file_of_others_is_not)
{
    static struct sample sample;
    static struct look before, manifest_before;
    static const char text[] = "notes on manifests, new\n";
    struct qr_manifest *manifest = create(), *other = NULL;
    struct qr_manifest_record record = poison(9);
    uint8_t own[QR_MANIFEST_HEADER_BYTES];
    qr_manifest_header_encode(qr_manifest_header(manifest), own);
    qr_manifest_close(manifest);

    /* Ours: nothing, a header and no more, half a header. */
    static const size_t sizes[] = {0, 512, 100};
    for (size_t i = 0; i < QR_ARRAY_COUNT(sizes); i++) {
        plant("manifest.new", own, sizes[i]);
        before = look_at("manifest.new");
        cr_assert_eq(read_all(false, &seen), 0);
        expect_untouched("manifest.new", &before);
        cr_assert_eq(read_all(true, &seen), 0);
        cr_assert_not(is_there("manifest.new"));
    }
    /* Not ours: a text; the manifest of another store. Nothing is written then, to either file. */
    sample_make(&sample);
    manifest_before = look_at("manifest");
    for (int i = 0; i < 2; i++) {
        plant("manifest.new", i == 0 ? (const void *)text : sample.file, i == 0 ? sizeof(text) : sizeof(sample.file));
        before = look_at("manifest.new");
        cr_assert_eq(read_all(false, &seen), 0);
        cr_assert_eq(read_all(true, &seen), QUIRE_ERR_FOREIGN);
        expect_detail(QUIRE_ERR_FOREIGN, "manifest.new");
        expect_untouched("manifest.new", &before);
        expect_untouched("manifest", &manifest_before);
    }
    /* It comes while the manifest is open: a rewrite refuses, an append does not care. */
    cr_assert_eq(unlink(path_of("manifest.new")), 0);
    cr_assert_eq(qr_manifest_open(dir, true, see, &seen, &manifest), 0);
    plant("manifest.new", text, sizeof(text));
    before = look_at("manifest.new");
    cr_assert_eq(qr_manifest_rewrite(manifest, &record, 1), QUIRE_ERR_FOREIGN);
    cr_assert_eq(append(manifest, 2), 0);
    expect_untouched("manifest.new", &before);
    cr_assert_eq(unlink(path_of("manifest.new")), 0);
    cr_assert_eq(qr_manifest_rewrite(manifest, &record, 1), 0);
    qr_manifest_close(manifest);

    /* Before there is a store: the same. */
    cr_assert_eq(unlink(path_of("manifest")), 0);
    plant("manifest.new", text, sizeof(text));
    before = look_at("manifest.new");
    cr_assert_eq(qr_manifest_create(dir, &setup, &record, 1, &other), QUIRE_ERR_FOREIGN);
    expect_untouched("manifest.new", &before);
    plant("manifest.new", sample.file, 700);
    cr_assert_eq(qr_manifest_create(dir, &setup, &record, 1, &other), 0);
    qr_manifest_close(other);
    cr_assert_not(is_there("manifest.new"));
}

/* ---- Kinds, tails, memory --------------------------------------------------------------------------------------- */

Test(store_manifest, unknown_kinds_are_skipped_only_if_they_say_so)
{
    struct qr_manifest *manifest = create();
    struct qr_manifest_record records[3] = {poison(2), {.kind = 20, .optional = true}, poison(3)};
    static struct look before;
    cr_assert_eq(qr_manifest_append(manifest, records, 3), 0);
    cr_assert_eq(read_all(true, &seen), 0);
    cr_assert(seen.count == 3 && seen.numbers[2] == 3 && seen.records[2].sequence == 4);
    records[0] = (struct qr_manifest_record){.kind = 20};
    cr_assert_eq(qr_manifest_append(manifest, records, 1), 0);
    qr_manifest_close(manifest);
    before = look_at("manifest");
    cr_assert_eq(read_all(true, &seen), QUIRE_ERR_NEWER);
    expect_detail(QUIRE_ERR_NEWER, "kind 20");
    cr_assert_eq(read_all(false, &seen), QUIRE_ERR_NEWER);
    cr_assert_eq(seen.count, 0);
    expect_untouched("manifest", &before);
}

/* M06 */
Test(store_manifest, a_short_file_is_grown_and_a_torn_tail_overwritten)
{
    static struct sample sample;
    struct qr_manifest *manifest = NULL;
    sample_make(&sample);
    uint64_t last = sample.ends[SAMPLE_APPENDS - 1], size = sample.ends[SAMPLE_APPENDS];

    memset(sample.file + last, 0, 16); /* torn: its first bytes are missing */
    plant("manifest", sample.file, size);
    cr_assert_eq(read_all(false, &seen), 0);
    cr_assert_eq(seen.count, sample.counts[SAMPLE_APPENDS - 1]);
    cr_assert_eq(look_at("manifest").facts.st_size, (off_t)size);
    memset(&seen, 0, sizeof(seen));
    cr_assert_eq(qr_manifest_open(dir, true, see, &seen, &manifest), 0);
    cr_assert_eq(look_at("manifest").facts.st_size, QR_MANIFEST_SIZE_LEAST);
    for (uint64_t i = last; i < QR_MANIFEST_SIZE_LEAST; i++)
        cr_assert_eq(look_at("manifest").bytes[i], 0);
    cr_assert_eq(append(manifest, 77), 0);
    qr_manifest_close(manifest);
    cr_assert_eq(read_all(true, &seen), 0);
    cr_assert_eq(seen.count, sample.counts[SAMPLE_APPENDS - 1] + 1);
    cr_assert_eq(seen.numbers[seen.count - 1], 77);
}

Test(store_manifest, without_memory_nothing_happens)
{
    struct qr_manifest *manifest = NULL;
    struct qr_manifest_record record = poison(1);
    int64_t live = qr_alloc_live_count(), n = 0;
    int result = QUIRE_ERR_NO_MEMORY;

    while (result != 0) {
        qr_alloc_fail_after(++n);
        result = qr_manifest_create(dir, &setup, &record, 1, &manifest);
        cr_assert(result == 0 || (result == QUIRE_ERR_NO_MEMORY && qr_alloc_live_count() == live));
        if (result != 0)
            cr_assert(!is_there("manifest") && !is_there("manifest.new"));
    }
    cr_assert_gt(n, 2);
    qr_alloc_fail_after(1);
    cr_assert_eq(append(manifest, 2), QUIRE_ERR_NO_MEMORY);
    cr_assert_eq(append(manifest, 2), 0);
    for (n = 1, result = -1; result != 0; n++) {
        qr_alloc_fail_after(n);
        result = qr_manifest_rewrite(manifest, &record, 1);
        cr_assert(result == 0 || result == QUIRE_ERR_NO_MEMORY);
    }
    qr_alloc_fail_after(-1);
    cr_assert_eq(append(manifest, 3), 0);
    qr_manifest_close(manifest);
    for (n = 1, result = -1; result != 0; n++) {
        qr_alloc_fail_after(n);
        result = read_all(true, &seen);
        cr_assert(result == 0 || result == QUIRE_ERR_NO_MEMORY);
    }
    qr_alloc_fail_after(-1);
    cr_assert_eq(qr_alloc_live_count(), live);
    cr_assert_eq(seen.count, 2);
}
