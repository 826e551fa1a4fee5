/*
 * Goal: the simulated disk loses exactly what it may lose, fails where it is told to, and nowhere else.
 * Method: short scripts whose every surviving state can be written down; each crash mode, each kind of fault, space,
 * locks, stores into mappings. What it shares with other disks is tested in test/unit/os_contract.c.
 *
 * Test library.
 */
#include "check.h"
#include "options.h"
#include "random.h"
#include "simdisk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH "db"
#define SECTOR SIMDISK_SECTOR_BYTES

/* ---- A directory with a few files ------------------------------------------------------------------------------- */

struct place {
    struct simdisk *disk;
    struct qr_dir *dir;
    struct qr_file *file;
};

static struct qr_dir *open_dir(struct simdisk *disk)
{
    struct qr_dir *dir = NULL;
    CHECK_EQUAL(simdisk_disk(disk)->ops->dir_open(simdisk_disk(disk), PATH, QR_DIR_CREATE, &dir), 0);
    return dir;
}

static struct qr_file *open_file(struct qr_dir *dir, const char *name)
{
    struct qr_file *file = NULL;
    CHECK_EQUAL(dir->disk->ops->file_open(dir, name, QR_FILE_WRITE | QR_FILE_CREATE, &file), 0);
    return file;
}

static const struct qr_disk_ops *ops_of(const struct place *place)
{
    return place->dir->disk->ops;
}

static void fill(struct place *place, uint8_t byte, uint64_t offset, uint32_t size)
{
    static uint8_t bytes[1 << 16];
    memset(bytes, byte, size);
    CHECK_EQUAL(ops_of(place)->file_write(place->file, bytes, size, offset), size);
}

/* A directory and a file "f" of four sectors of 'a', all of it synced. */
static struct place place_open(void)
{
    struct place place = {.disk = simdisk_create()};
    place.dir = open_dir(place.disk);
    place.file = open_file(place.dir, "f");
    fill(&place, 'a', 0, 4 * SECTOR);
    CHECK_EQUAL(ops_of(&place)->file_sync(place.file), 0);
    CHECK_EQUAL(ops_of(&place)->dir_sync(place.dir), 0);
    CHECK_EQUAL(simdisk_unsynced_count(place.disk), 0);
    return place;
}

static void place_close(struct place *place)
{
    ops_of(place)->file_close(place->file);
    place->dir->disk->ops->dir_close(place->dir);
    CHECK_EQUAL(simdisk_open_count(place->disk), 0);
    simdisk_free(place->disk);
}

/* One letter for each sector of a file of a disk: its byte, '?' if it is not the same in all of it, '0' for zero; NULL
 * if there is no such file. Valid until the next call. */
static const char *letters(struct simdisk *disk, const char *name)
{
    static char text[256];
    uint64_t size;
    const uint8_t *content = simdisk_content(disk, PATH, name, &size);
    size_t count = 0;
    if (content == NULL)
        return NULL;
    for (uint64_t at = 0; at < size; at += SECTOR) {
        uint64_t end = at + SECTOR < size ? at + SECTOR : size;
        char letter = content[at] == 0 ? '0' : (char)content[at];
        for (uint64_t i = at; i < end; i++) {
            if (content[i] != content[at])
                letter = '?';
        }
        text[count++] = letter;
    }
    text[count] = '\0';
    return text;
}

static void expect(struct simdisk *disk, const char *name, const char *expected, const char *what)
{
    const char *found = letters(disk, name);
    if (expected == NULL || found == NULL)
        CHECK(found == NULL && expected == NULL, "%s: %s is %s", what, name, found == NULL ? "not there" : found);
    else
        CHECK(strcmp(found, expected) == 0, "%s: %s is %s, not %s", what, name, found, expected);
}

static void expect_after(struct place *place, const struct simdisk_crash *crash, const char *name, const char *expected,
                         const char *what)
{
    struct simdisk *after = simdisk_crash(place->disk, crash);
    expect(after, name, expected, what);
    if (crash->mode != SIMDISK_DEATH)
        CHECK(simdisk_unsynced_count(after) == 0, "%s: the image has unsynced operations", what);
    simdisk_free(after);
}

#define EXPECT_AFTER(place, name, expected, ...)                                                                       \
    expect_after(place, &(struct simdisk_crash){__VA_ARGS__}, name, expected, #__VA_ARGS__)

/* A mapped file "f" of 8 sectors, "aaaa0000", synced. */
static uint8_t *map_eight(struct place *place)
{
    void *memory = NULL;
    CHECK_EQUAL(ops_of(place)->file_allocate(place->file, 0, 8 * SECTOR), 0);
    CHECK_EQUAL(ops_of(place)->file_sync(place->file), 0);
    CHECK_EQUAL(ops_of(place)->file_map(place->file, 0, 8 * SECTOR, &memory), 0);
    CHECK_EQUAL(ops_of(place)->file_populate(place->file, memory, 8 * SECTOR), 0);
    return memory;
}

/* ---- Contents --------------------------------------------------------------------------------------------------- */

static void writes_survive_as_the_mode_says(void)
{
    struct place place = place_open();
    fill(&place, 'b', 0, 2 * SECTOR);
    fill(&place, 'c', SECTOR, 2 * SECTOR);
    CHECK_EQUAL(simdisk_unsynced_count(place.disk), 2);
    EXPECT_AFTER(&place, "f", "aaaa", .mode = SIMDISK_DROP);
    EXPECT_AFTER(&place, "f", "bcca", .mode = SIMDISK_KEEP);
    EXPECT_AFTER(&place, "f", "bbaa", .mode = SIMDISK_ONE, .one = 0);
    EXPECT_AFTER(&place, "f", "acca", .mode = SIMDISK_ONE, .one = 1);
    EXPECT_AFTER(&place, "f", "acca", .mode = SIMDISK_BUT_ONE, .one = 0);
    EXPECT_AFTER(&place, "f", "bbaa", .mode = SIMDISK_BUT_ONE, .one = 1);
    expect(place.disk, "f", "bcca", "the disk that crashed goes on");
    CHECK_EQUAL(ops_of(&place)->file_sync(place.file), 0);
    EXPECT_AFTER(&place, "f", "bcca", .mode = SIMDISK_DROP);
    place_close(&place);
}

static void death_keeps_the_cache_and_what_is_unsynced_in_it(void)
{
    struct place place = place_open();
    fill(&place, 'b', 0, SECTOR);
    struct simdisk *after = simdisk_crash(place.disk, &(struct simdisk_crash){.mode = SIMDISK_DEATH});
    expect(after, "f", "baaa", "death");
    CHECK_EQUAL(simdisk_unsynced_count(after), 1);
    CHECK(memcmp(simdisk_facts(after)->boot_id, simdisk_facts(place.disk)->boot_id, 16) == 0, "another boot");
    struct simdisk *later = simdisk_crash(after, &(struct simdisk_crash){.mode = SIMDISK_DROP});
    expect(later, "f", "aaaa", "death, then power loss");
    CHECK(memcmp(simdisk_facts(after)->boot_id, simdisk_facts(later)->boot_id, 16) != 0, "the same boot");
    CHECK(simdisk_facts(after)->mount_id != simdisk_facts(later)->mount_id, "the same mount");
    simdisk_free(later);
    simdisk_free(after);
    place_close(&place);
}

static void sizes_are_those_synced_or_current(void)
{
    struct place place = place_open();
    fill(&place, 'b', 4 * SECTOR, 2 * SECTOR);
    EXPECT_AFTER(&place, "f", "aaaa", .mode = SIMDISK_DROP);
    EXPECT_AFTER(&place, "f", "aaaa00", .mode = SIMDISK_DROP, .sizes = SIMDISK_SIZES_CURRENT);
    EXPECT_AFTER(&place, "f", "aaaabb", .mode = SIMDISK_KEEP);
    EXPECT_AFTER(&place, "f", "aaaa", .mode = SIMDISK_KEEP, .sizes = SIMDISK_SIZES_SYNCED);
    CHECK_EQUAL(ops_of(&place)->file_resize(place.file, 2 * SECTOR), 0);
    CHECK_EQUAL(ops_of(&place)->file_resize(place.file, 3 * SECTOR), 0);
    expect(place.disk, "f", "aa0", "cut and grown");
    EXPECT_AFTER(&place, "f", "aaaa", .mode = SIMDISK_DROP);
    EXPECT_AFTER(&place, "f", "aa0", .mode = SIMDISK_KEEP);
    EXPECT_AFTER(&place, "f", "aa", .mode = SIMDISK_ONE, .one = 1);
    CHECK_EQUAL(ops_of(&place)->file_sync(place.file), 0);
    EXPECT_AFTER(&place, "f", "aa0", .mode = SIMDISK_DROP);
    place_close(&place);
}

/* What was cut off by a crash does not come back when the file grows. */
static void expect_grown(struct place *place, const struct simdisk_crash *crash, const char *expected)
{
    struct place after = {.disk = simdisk_crash(place->disk, crash)};
    after.dir = open_dir(after.disk);
    after.file = open_file(after.dir, "f");
    CHECK_EQUAL(ops_of(&after)->file_resize(after.file, 8 * SECTOR), 0);
    expect(after.disk, "f", expected, "grown after the crash");
    place_close(&after);
}

static void what_a_crash_cut_off_reads_as_zeros(void)
{
    struct place place = place_open();
    fill(&place, 'b', 3 * SECTOR, 3 * SECTOR);
    expect_grown(&place, &(struct simdisk_crash){.mode = SIMDISK_KEEP, .sizes = SIMDISK_SIZES_SYNCED}, "aaab0000");
    CHECK_EQUAL(ops_of(&place)->file_resize(place.file, 2 * SECTOR), 0);
    expect_grown(&place, &(struct simdisk_crash){.mode = SIMDISK_KEEP}, "aa000000");
    expect_grown(&place, &(struct simdisk_crash){.mode = SIMDISK_ONE, .sizes = SIMDISK_SIZES_SYNCED}, "aaab0000");
    expect_grown(&place, &(struct simdisk_crash){.mode = SIMDISK_ONE, .sizes = SIMDISK_SIZES_CURRENT}, "aa000000");
    place_close(&place);
}

static void stores_are_operations_of_a_sector(void)
{
    struct place place = place_open();
    CHECK_EQUAL(ops_of(&place)->file_allocate(place.file, 0, 8 * SECTOR), 0);
    CHECK_EQUAL(ops_of(&place)->file_sync(place.file), 0);
    void *memory = NULL;
    CHECK_EQUAL(ops_of(&place)->file_map(place.file, 0, 8 * SECTOR, &memory), 0);
    CHECK_EQUAL(ops_of(&place)->file_populate(place.file, memory, 8 * SECTOR), 0);
    memset((uint8_t *)memory + SECTOR, 's', 2 * SECTOR);
    expect(place.disk, "f", "assa0000", "mapped memory is the content");
    CHECK_EQUAL(simdisk_unsynced_count(place.disk), 2);
    EXPECT_AFTER(&place, "f", "aaaa0000", .mode = SIMDISK_DROP);
    EXPECT_AFTER(&place, "f", "asaa0000", .mode = SIMDISK_ONE, .one = 0);
    EXPECT_AFTER(&place, "f", "aasa0000", .mode = SIMDISK_ONE, .one = 1);
    EXPECT_AFTER(&place, "f", "assa0000", .mode = SIMDISK_DEATH);
    /* Store, write, store: the versions of a sector in their order. */
    memset((uint8_t *)memory + 2 * SECTOR, 'u', SECTOR);
    fill(&place, 'w', 2 * SECTOR, SECTOR);
    memset((uint8_t *)memory + 2 * SECTOR, 't', SECTOR);
    CHECK_EQUAL(simdisk_unsynced_count(place.disk), 5);
    EXPECT_AFTER(&place, "f", "aasa0000", .mode = SIMDISK_ONE, .one = 1);
    EXPECT_AFTER(&place, "f", "aaua0000", .mode = SIMDISK_ONE, .one = 2);
    EXPECT_AFTER(&place, "f", "aawa0000", .mode = SIMDISK_ONE, .one = 3);
    EXPECT_AFTER(&place, "f", "aata0000", .mode = SIMDISK_ONE, .one = 4);
    EXPECT_AFTER(&place, "f", "asta0000", .mode = SIMDISK_KEEP);
    CHECK_EQUAL(ops_of(&place)->file_sync(place.file), 0);
    EXPECT_AFTER(&place, "f", "asta0000", .mode = SIMDISK_DROP);
    ops_of(&place)->file_unmap(place.file, memory, 8 * SECTOR);
    CHECK_EQUAL(simdisk_mistakes(place.disk), 0);
    place_close(&place);
}

/* Every combination that a random crash may show is seen, and no other. */
static void random_crashes_show_any_version_of_each_sector(uint64_t seed)
{
    enum { TRIES = 400 };
    struct place place = place_open();
    bool seen[3][2] = {{false}};
    bool torn = false;
    fill(&place, 'b', 0, 2 * SECTOR);
    fill(&place, 'c', 0, SECTOR);
    for (uint64_t i = 0; i < TRIES; i++) {
        struct simdisk_crash crash = {.mode = SIMDISK_RANDOM, .seed = seed * TRIES + i};
        struct simdisk *after = simdisk_crash(place.disk, &crash);
        const char *found = letters(after, "f");
        bool legal = found != NULL && strchr("abc", found[0]) != NULL && strchr("ab", found[1]) != NULL &&
                     strcmp(found + 2, "aa") == 0;
        if (CHECK(legal, "seed %llu: %s", (unsigned long long)crash.seed, found)) {
            seen[found[0] - 'a'][found[1] - 'a'] = true;
            torn |= found[0] == 'a' && found[1] == 'b';
        }
        simdisk_free(after);
    }
    for (unsigned first = 0; first < 3; first++)
        CHECK(seen[first][0] && seen[first][1], "sector 0 as %c was not seen with both of sector 1", 'a' + (int)first);
    CHECK(torn, "no write was torn");
    place_close(&place);
}

/* Which of four units of 'a' or 'b' are seen over many seeds: bits by the pattern. */
static uint32_t patterns(struct place *place, enum simdisk_unit unit, uint64_t unit_bytes, uint64_t seed)
{
    uint32_t seen = 0;
    for (uint64_t i = 0; i < 200; i++) {
        uint64_t size;
        uint32_t pattern = 0;
        struct simdisk_crash crash = {.mode = SIMDISK_RANDOM, .seed = seed * 200 + i, .unit = unit};
        struct simdisk *after = simdisk_crash(place->disk, &crash);
        const uint8_t *content = simdisk_content(after, PATH, "f", &size);
        for (uint64_t at = 0; at < 4 * unit_bytes; at++) {
            bool b = content[at] == 'b';
            if (at % unit_bytes == 0)
                pattern |= (uint32_t)b << at / unit_bytes;
            CHECK(b == (pattern >> at / unit_bytes & 1), "unit %u: byte %llu is not as its unit", unit, (unsigned long long)at);
        }
        seen |= 1u << pattern;
        simdisk_free(after);
    }
    return seen;
}

static void random_crashes_tear_by_the_unit_that_is_asked(uint64_t seed)
{
    struct place place = place_open();
    fill(&place, 'a', 0, 4 * 4096);
    CHECK_EQUAL(ops_of(&place)->file_sync(place.file), 0);
    fill(&place, 'b', 0, 4 * 4096);
    uint64_t torn = simdisk_effect_count(SIMDISK_TORN_WRITE);
    CHECK_EQUAL(patterns(&place, SIMDISK_UNIT_SECTOR, SECTOR, seed), 0xffff);
    CHECK(simdisk_effect_count(SIMDISK_TORN_WRITE) > torn, "no write was torn");
    CHECK_EQUAL(patterns(&place, SIMDISK_UNIT_WORD, SECTOR, seed), 0xffff); /* nothing was stored: sectors */
    CHECK_EQUAL(patterns(&place, SIMDISK_UNIT_BLOCK, 4096, seed), 0xffff);
    CHECK_EQUAL(patterns(&place, SIMDISK_UNIT_WRITE, 4096, seed), 0x8001); /* one write: all or nothing */
    place_close(&place);
}

static void stores_are_torn_at_any_word(uint64_t seed)
{
    struct place place = place_open();
    uint64_t torn = simdisk_effect_count(SIMDISK_TORN_SECTOR);
    uint8_t *memory = map_eight(&place);
    memset(memory, 'b', SECTOR);
    CHECK_EQUAL(patterns(&place, SIMDISK_UNIT_SECTOR, 128, seed), 0x8001);
    CHECK_EQUAL(simdisk_effect_count(SIMDISK_TORN_SECTOR), torn);
    CHECK_EQUAL(patterns(&place, SIMDISK_UNIT_WORD, 8, seed), 0xffff);
    CHECK(simdisk_effect_count(SIMDISK_TORN_SECTOR) > torn, "no sector was torn");
    place_close(&place);
}

static void stale_bytes_show_where_a_write_made_space_and_did_not_arrive(void)
{
    struct place place = place_open();
    bool garbage = false, deleted = false;
    struct qr_file *old = open_file(place.dir, "old");
    uint8_t bytes[4 * SECTOR];
    memset(bytes, 'z', sizeof(bytes));
    CHECK_EQUAL(ops_of(&place)->file_write(old, bytes, sizeof(bytes), 0), (int64_t)sizeof(bytes));
    ops_of(&place)->file_close(old);
    CHECK_EQUAL(ops_of(&place)->dir_unlink(place.dir, "old"), 0);
    CHECK_EQUAL(ops_of(&place)->dir_sync(place.dir), 0);
    struct qr_file *allocated = open_file(place.dir, "allocated"), *hole = open_file(place.dir, "hole");
    CHECK_EQUAL(ops_of(&place)->file_allocate(allocated, 0, 2 * SECTOR), 0);
    CHECK_EQUAL(ops_of(&place)->file_write(allocated, bytes, 2 * SECTOR, 0), 2 * SECTOR);
    CHECK_EQUAL(ops_of(&place)->file_resize(hole, 2 * SECTOR), 0);
    CHECK_EQUAL(ops_of(&place)->dir_sync(place.dir), 0);
    fill(&place, 'b', 3 * SECTOR, SECTOR);           /* where there is space, and durable bytes */
    fill(&place, 'c', 8 * SECTOR, 2 * SECTOR);       /* behind the end */
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct simdisk_crash crash = {
            .mode = SIMDISK_DROP, .sizes = SIMDISK_SIZES_CURRENT, .names = SIMDISK_NAMES_ALL, .seed = seed, .stale = true};
        struct simdisk *after = simdisk_crash(place.disk, &crash);
        const char *found = letters(after, "f");
        garbage = garbage || strcmp(found, "aaaa0000\xA5\xA5") == 0;
        deleted = deleted || strcmp(found, "aaaa0000zz") == 0;
        CHECK(strncmp(found, "aaaa0000", 8) == 0 && (found[8] == 'z' || found[8] == '\xA5'), "%s", found);
        expect(after, "allocated", "00", "space that was allocated");
        expect(after, "hole", "00", "a hole");
        simdisk_free(after);
    }
    CHECK(garbage && deleted, "garbage: %d, bytes of a deleted file: %d", garbage, deleted);
    EXPECT_AFTER(&place, "f", "aaaa0000cc", .mode = SIMDISK_ONE, .one = 4, .stale = true, .names = SIMDISK_NAMES_ALL);
    EXPECT_AFTER(&place, "f", "aaaa", .mode = SIMDISK_DROP, .stale = true);
    ops_of(&place)->file_close(allocated);
    ops_of(&place)->file_close(hole);
    place_close(&place);
}

static void crashes_of_one_seed_are_the_same(uint64_t seed)
{
    struct place place = place_open();
    struct random_stream stream;
    random_seed(&stream, seed);
    for (unsigned i = 0; i < 60; i++)
        fill(&place, (uint8_t)random_between(&stream, 'b', 'z'), random_below(&stream, 20000),
             1 + (uint32_t)random_below(&stream, 3000));
    for (uint64_t i = 0; i < 20; i++) {
        struct simdisk_crash crash = {.mode = SIMDISK_RANDOM, .seed = i, .names = SIMDISK_NAMES_SUBSET};
        struct simdisk *one = simdisk_crash(place.disk, &crash), *other = simdisk_crash(place.disk, &crash);
        uint64_t one_size = 0, other_size = 0;
        const uint8_t *a = simdisk_content(one, PATH, "f", &one_size),
                      *b = simdisk_content(other, PATH, "f", &other_size);
        CHECK(one_size == other_size && memcmp(a, b, one_size) == 0, "seed %llu", (unsigned long long)i);
        simdisk_free(one);
        simdisk_free(other);
    }
    place_close(&place);
}

/* ---- Names ------------------------------------------------------------------------------------------------------ */

static void create_synced_file(struct place *place, const char *name, uint8_t byte)
{
    struct qr_file *file = open_file(place->dir, name);
    uint8_t bytes[SECTOR];
    memset(bytes, byte, sizeof(bytes));
    CHECK_EQUAL(ops_of(place)->file_write(file, bytes, sizeof(bytes), 0), SECTOR);
    CHECK_EQUAL(ops_of(place)->file_sync(file), 0);
    ops_of(place)->file_close(file);
}

static void names_survive_by_prefix_or_subset(void)
{
    struct place place = place_open();
    create_synced_file(&place, "g", 'g');
    CHECK_EQUAL(ops_of(&place)->dir_rename(place.dir, "g", "f"), 0);
    create_synced_file(&place, "h", 'h');
    CHECK_EQUAL(ops_of(&place)->dir_unlink(place.dir, "f"), 0);
    expect(place.disk, "f", NULL, "unlinked");
    CHECK_EQUAL(simdisk_unsynced_count(place.disk), 4);
    static const char *const of_f[] = {"aaaa", "aaaa", "g", "g", NULL};
    static const char *const of_g[] = {NULL, "g", NULL, NULL, NULL};
    static const char *const of_h[] = {NULL, NULL, NULL, "h", "h"};
    for (uint64_t count = 0; count <= 4; count++) {
        EXPECT_AFTER(&place, "f", of_f[count], .mode = SIMDISK_DROP, .names = SIMDISK_NAMES_PREFIX,
                     .names_count = count);
        EXPECT_AFTER(&place, "g", of_g[count], .mode = SIMDISK_DROP, .names = SIMDISK_NAMES_PREFIX,
                     .names_count = count);
        EXPECT_AFTER(&place, "h", of_h[count], .mode = SIMDISK_DROP, .names = SIMDISK_NAMES_PREFIX,
                     .names_count = count);
    }
    EXPECT_AFTER(&place, "f", "aaaa", .mode = SIMDISK_DROP);
    EXPECT_AFTER(&place, "f", NULL, .mode = SIMDISK_KEEP);
    EXPECT_AFTER(&place, "f", NULL, .mode = SIMDISK_DROP, .names = SIMDISK_NAMES_ALL);
    EXPECT_AFTER(&place, "f", "g", .mode = SIMDISK_ONE, .one = 1); /* the rename without the creation */
    EXPECT_AFTER(&place, "g", NULL, .mode = SIMDISK_ONE, .one = 1);
    EXPECT_AFTER(&place, "f", "g", .mode = SIMDISK_BUT_ONE, .one = 3);
    /* In the subset model h may be there while the earlier rename is not: a prefix cannot show that. */
    unsigned subsets = 0;
    for (uint64_t seed = 0; seed < 100; seed++) {
        struct simdisk_crash crash = {.mode = SIMDISK_DROP, .names = SIMDISK_NAMES_SUBSET, .seed = seed};
        struct simdisk *after = simdisk_crash(place.disk, &crash);
        const char *found = letters(after, "f");
        bool old = found != NULL && strcmp(found, "aaaa") == 0;
        subsets += old && letters(after, "h") != NULL;
        simdisk_free(after);
    }
    CHECK(subsets > 0 && subsets < 100, "%u", subsets);
    CHECK_EQUAL(ops_of(&place)->dir_sync(place.dir), 0);
    EXPECT_AFTER(&place, "h", "h", .mode = SIMDISK_DROP);
    EXPECT_AFTER(&place, "f", NULL, .mode = SIMDISK_DROP);
    place_close(&place);
}

static void note_made(void *context, const struct simdisk_event *event)
{
    struct place *place = context;
    if (event->kind != SIMDISK_DIR_SYNC)
        return;
    struct qr_dir *dir = NULL;
    struct simdisk *without = simdisk_crash(place->disk, &(struct simdisk_crash){.mode = SIMDISK_DROP});
    struct simdisk *with = simdisk_crash(place->disk, &(struct simdisk_crash){.mode = SIMDISK_KEEP});
    struct qr_disk *disk = simdisk_disk(without);
    CHECK_EQUAL(disk->ops->dir_open(disk, PATH, 0, &dir), -ENOENT);
    disk = simdisk_disk(with);
    if (CHECK_EQUAL(disk->ops->dir_open(disk, PATH, 0, &dir), 0))
        disk->ops->dir_close(dir);
    simdisk_free(without);
    simdisk_free(with);
}

static void a_new_directory_may_be_lost_until_its_parent_is_synced(void)
{
    struct place place = {.disk = simdisk_create()};
    struct qr_disk *disk = simdisk_disk(place.disk);
    struct qr_dir *dir = NULL;
    CHECK_EQUAL(disk->ops->dir_open(disk, PATH, 0, &dir), -ENOENT);
    unsigned fault = simdisk_fault_set(place.disk, &(struct simdisk_fault){SIMDISK_DIR_SYNC, 1, false, EIO, 0});
    CHECK_EQUAL(disk->ops->dir_open(disk, PATH, QR_DIR_CREATE, &dir), -EIO);
    CHECK_EQUAL(simdisk_fault_fired(place.disk, fault), 1);
    simdisk_set_hook(place.disk, note_made, &place);
    CHECK_EQUAL(disk->ops->dir_open(disk, PATH, QR_DIR_CREATE, &dir), 0);
    simdisk_set_hook(place.disk, NULL, NULL);
    CHECK_EQUAL(simdisk_unsynced_count(place.disk), 0);
    disk->ops->dir_close(dir);
    simdisk_free(place.disk);
}

/* ---- Failed syncs ----------------------------------------------------------------------------------------------- */

static void set_fault(struct place *place, enum simdisk_kind kind, uint64_t nth, bool for_good, int error)
{
    simdisk_faults_clear(place->disk);
    (void)simdisk_fault_set(place->disk, &(struct simdisk_fault){kind, nth, for_good, error, 0});
}

static void what_a_failed_sync_left_stays_doubtful(void)
{
    struct place place = place_open();
    fill(&place, 'b', 0, 2 * SECTOR);
    set_fault(&place, SIMDISK_SYNC, 1, false, EIO);
    CHECK_EQUAL(ops_of(&place)->file_sync(place.file), -EIO);
    expect(place.disk, "f", "bbaa", "a failed sync changes nothing that is seen");
    fill(&place, 'c', SECTOR, 2 * SECTOR);
    CHECK_EQUAL(ops_of(&place)->file_sync(place.file), 0);
    EXPECT_AFTER(&place, "f", "acca", .mode = SIMDISK_DROP); /* sector 0 was not written again */
    EXPECT_AFTER(&place, "f", "bcca", .mode = SIMDISK_KEEP);
    CHECK_EQUAL(simdisk_unsynced_count(place.disk), 1);
    CHECK_EQUAL(ops_of(&place)->file_sync(place.file), 0);
    CHECK_EQUAL(simdisk_unsynced_count(place.disk), 1);
    fill(&place, 'b', 0, SECTOR);
    CHECK_EQUAL(ops_of(&place)->file_sync(place.file), 0);
    EXPECT_AFTER(&place, "f", "bcca", .mode = SIMDISK_DROP);
    /* Of a sync that was only interrupted nothing of the kind is true. */
    fill(&place, 'd', 0, SECTOR);
    set_fault(&place, SIMDISK_SYNC, 1, false, EINTR);
    CHECK_EQUAL(ops_of(&place)->file_sync(place.file), -EINTR);
    set_fault(&place, SIMDISK_SYNC, 1, false, EINTR);
    CHECK_EQUAL(qr_file_sync(place.file), 0);
    EXPECT_AFTER(&place, "f", "dcca", .mode = SIMDISK_DROP);
    place_close(&place);
}

static void a_failed_sync_may_bring_the_old_content_back(void)
{
    struct place place = place_open();
    uint64_t reverted = simdisk_effect_count(SIMDISK_SYNC_REVERTED);
    uint8_t *memory = map_eight(&place);
    simdisk_facts(place.disk)->failed_sync = SIMDISK_FAILED_REVERTS;
    fill(&place, 'b', 0, 2 * SECTOR);
    memset(memory + SECTOR, 's', 2 * SECTOR);
    fill(&place, 'c', 8 * SECTOR, SECTOR);
    expect(place.disk, "f", "bssa0000c", "before the sync");
    set_fault(&place, SIMDISK_SYNC, 1, false, EIO);
    CHECK_EQUAL(ops_of(&place)->file_sync(place.file), -EIO);
    expect(place.disk, "f", "aaaa0000", "reads see the old content, and its size");
    CHECK_EQUAL(memory[SECTOR], 'a');
    CHECK_EQUAL(simdisk_unsynced_count(place.disk), 0);
    CHECK_EQUAL(simdisk_effect_count(SIMDISK_SYNC_REVERTED), reverted + 1);
    EXPECT_AFTER(&place, "f", "aaaa0000", .mode = SIMDISK_KEEP);
    memset(memory, 't', SECTOR); /* the mapping is still the file */
    CHECK_EQUAL(ops_of(&place)->file_resize(place.file, 3 * SECTOR), 0);
    set_fault(&place, SIMDISK_SYNC, 1, false, EIO);
    CHECK_EQUAL(ops_of(&place)->file_sync(place.file), -EIO);
    expect(place.disk, "f", "aaaa0000", "what was cut is there again");
    memset(memory, 't', SECTOR);
    CHECK_EQUAL(ops_of(&place)->file_sync(place.file), 0);
    EXPECT_AFTER(&place, "f", "taaa0000", .mode = SIMDISK_DROP);
    CHECK_EQUAL(simdisk_mistakes(place.disk), 0);
    place_close(&place);
}

static void a_failed_sync_may_be_told_of_one_sync_late(void)
{
    struct place place = place_open();
    uint64_t lied = simdisk_effect_count(SIMDISK_SYNC_LIED), late = simdisk_effect_count(SIMDISK_SYNC_WAS_LATE);
    simdisk_facts(place.disk)->failed_sync = SIMDISK_FAILED_LATE;
    fill(&place, 'b', 0, SECTOR);
    set_fault(&place, SIMDISK_SYNC, 1, false, EIO);
    CHECK_EQUAL(ops_of(&place)->file_sync(place.file), 0);
    CHECK_EQUAL(simdisk_effect_count(SIMDISK_SYNC_LIED), lied + 1);
    expect(place.disk, "f", "baaa", "the cache shows what was written");
    EXPECT_AFTER(&place, "f", "aaaa", .mode = SIMDISK_DROP);
    struct simdisk *dead = simdisk_crash(place.disk, &(struct simdisk_crash){.mode = SIMDISK_DEATH});
    struct place after = {.disk = dead};
    simdisk_facts(dead)->failed_sync = SIMDISK_FAILED_CLEAN; /* that is about syncs to come */
    after.dir = open_dir(dead);
    after.file = open_file(after.dir, "f");
    CHECK_EQUAL(ops_of(&after)->file_sync(after.file), -EIO); /* told to the next process */
    CHECK_EQUAL(ops_of(&after)->file_sync(after.file), 0);
    place_close(&after);
    fill(&place, 'c', SECTOR, SECTOR);
    CHECK_EQUAL(ops_of(&place)->file_sync(place.file), -EIO);
    CHECK_EQUAL(simdisk_effect_count(SIMDISK_SYNC_WAS_LATE), late + 2);
    CHECK_EQUAL(ops_of(&place)->file_sync(place.file), 0); /* told once */
    EXPECT_AFTER(&place, "f", "aaaa", .mode = SIMDISK_DROP); /* and neither is durable */
    fill(&place, 'd', 0, 2 * SECTOR);
    CHECK_EQUAL(ops_of(&place)->file_sync(place.file), 0);
    EXPECT_AFTER(&place, "f", "ddaa", .mode = SIMDISK_DROP);
    set_fault(&place, SIMDISK_SYNC, 1, true, EIO);
    fill(&place, 'e', 0, SECTOR);
    CHECK_EQUAL(ops_of(&place)->file_sync(place.file), 0);
    CHECK_EQUAL(ops_of(&place)->file_sync(place.file), -EIO);
    CHECK_EQUAL(ops_of(&place)->file_sync(place.file), -EIO);
    place_close(&place);
}

static void names_of_a_failed_directory_sync_stay_doubtful(void)
{
    struct place place = place_open();
    create_synced_file(&place, "g", 'g');
    set_fault(&place, SIMDISK_DIR_SYNC, 1, false, EIO);
    CHECK_EQUAL(ops_of(&place)->dir_sync(place.dir), -EIO);
    create_synced_file(&place, "h", 'h');
    CHECK_EQUAL(ops_of(&place)->dir_sync(place.dir), 0);
    EXPECT_AFTER(&place, "g", NULL, .mode = SIMDISK_DROP);
    EXPECT_AFTER(&place, "h", "h", .mode = SIMDISK_DROP);
    EXPECT_AFTER(&place, "g", "g", .mode = SIMDISK_KEEP);
    place_close(&place);
}

/* ---- Faults ----------------------------------------------------------------------------------------------------- */

/* Does the operation of a kind once. */
static int64_t operate(struct place *place, enum simdisk_kind kind)
{
    const struct qr_disk_ops *ops = place->dir->disk->ops;
    static void *memory;
    uint8_t bytes[8] = {0};
    struct qr_io io = {QR_IO_READ, place->file, 0, bytes, sizeof(bytes), 0};
    struct qr_dir *dir;
    struct qr_file *file;
    int64_t pid, answer;

    switch (kind) {
    case SIMDISK_DIR_OPEN:
        answer = ops->dir_open(place->dir->disk, PATH, 0, &dir);
        if (answer == 0)
            ops->dir_close(dir);
        return answer;
    case SIMDISK_LIST:
        return ops->dir_list(place->dir, (qr_dir_visit *)NULL, NULL); /* of an empty directory */
    case SIMDISK_DIR_SYNC:
        return ops->dir_sync(place->dir);
    case SIMDISK_UNLINK:
        return ops->dir_unlink(place->dir, "none") == -ENOENT ? 0 : -EIO;
    case SIMDISK_RENAME:
        return ops->dir_rename(place->dir, "none", "other") == -ENOENT ? 0 : -EIO;
    case SIMDISK_LOCK:
        return ops->dir_lock(place->dir, "none", true, &pid);
    case SIMDISK_OPEN:
        return ops->file_open(place->dir, "none", 0, &file) == -ENOENT ? 0 : -EIO;
    case SIMDISK_READ:
        return ops->file_read(place->file, bytes, sizeof(bytes), 0) == sizeof(bytes) ? 0 : -EIO;
    case SIMDISK_WRITE:
        return ops->file_write(place->file, bytes, sizeof(bytes), 0) == sizeof(bytes) ? 0 : -EIO;
    case SIMDISK_RESIZE:
        return ops->file_resize(place->file, 4096);
    case SIMDISK_ALLOCATE:
        return ops->file_allocate(place->file, 0, 4096);
    case SIMDISK_SYNC:
        return ops->file_sync(place->file);
    case SIMDISK_MAP:
        return ops->file_map(place->file, 0, 4096, &memory);
    case SIMDISK_POPULATE:
        return ops->file_populate(place->file, memory, 4096);
    case SIMDISK_TRANSFER:
        answer = ops->transfer(place->dir->disk, &io, 1);
        return answer != 0 || io.result < 0 ? -EIO : 0;
    default:
        abort();
    }
}

static bool fails(struct place *place, enum simdisk_kind kind)
{
    return operate(place, kind) != 0;
}

static void every_kind_of_operation_fails_when_it_is_told_to(void)
{
    struct place place = {.disk = simdisk_create()};
    place.dir = open_dir(place.disk);
    place.file = open_file(place.dir, "f");
    CHECK_EQUAL(ops_of(&place)->dir_unlink(place.dir, "f"), 0); /* the directory is empty: see LIST */
    CHECK_EQUAL(ops_of(&place)->file_resize(place.file, 4096), 0);
    CHECK(!fails(&place, SIMDISK_MAP), "map");
    for (enum simdisk_kind kind = SIMDISK_DIR_OPEN; kind < SIMDISK_KINDS; kind++) {
        uint64_t count = simdisk_count(place.disk, kind), all = simdisk_count(place.disk, SIMDISK_ANY);
        simdisk_faults_clear(place.disk);
        unsigned third = simdisk_fault_set(place.disk, &(struct simdisk_fault){kind, 3, false, EIO, 0});
        for (unsigned i = 1; i <= 5; i++)
            CHECK(fails(&place, kind) == (i == 3), "kind %u, operation %u of a fault at 3", kind, i);
        CHECK_EQUAL(simdisk_fault_fired(place.disk, third), 1);
        CHECK_EQUAL(simdisk_count(place.disk, kind), count + 5);
        CHECK_EQUAL(simdisk_count(place.disk, SIMDISK_ANY), all + 5);
        simdisk_faults_clear(place.disk);
        unsigned from_second = simdisk_fault_set(place.disk, &(struct simdisk_fault){kind, 2, true, EMFILE, 0});
        for (unsigned i = 1; i <= 4; i++)
            CHECK(fails(&place, kind) == (i >= 2), "kind %u, operation %u of a fault from 2 on", kind, i);
        CHECK_EQUAL(simdisk_fault_fired(place.disk, from_second), 3);
        set_fault(&place, SIMDISK_ANY, 1, false, ENOMEM);
        CHECK(fails(&place, kind) && !fails(&place, kind), "kind %u, any operation", kind);
    }
    simdisk_faults_clear(place.disk);
    place_close(&place);
}

static void short_counts_and_interruptions_reach_the_caller_and_are_continued(void)
{
    struct place place = place_open();
    uint8_t bytes[4 * SECTOR];
    (void)simdisk_fault_set(place.disk, &(struct simdisk_fault){SIMDISK_READ, 1, false, 0, 100});
    CHECK_EQUAL(ops_of(&place)->file_read(place.file, bytes, sizeof(bytes), 0), 100);
    CHECK_EQUAL(ops_of(&place)->file_read(place.file, bytes, sizeof(bytes), 0), 4 * SECTOR);
    simdisk_faults_clear(place.disk);
    unsigned shortened = simdisk_fault_set(place.disk, &(struct simdisk_fault){SIMDISK_ANY, 1, true, 0, 700});
    unsigned interrupted = simdisk_fault_set(place.disk, &(struct simdisk_fault){SIMDISK_WRITE, 2, false, EINTR, 0});
    memset(bytes, 'n', sizeof(bytes));
    CHECK_EQUAL(qr_file_write(place.file, bytes, sizeof(bytes), 0), 0);
    CHECK_EQUAL(simdisk_fault_fired(place.disk, shortened), 3);   /* 700 + 700 + 648 */
    CHECK_EQUAL(simdisk_fault_fired(place.disk, interrupted), 0); /* the first that is due decides */
    memset(bytes, 0, sizeof(bytes));
    CHECK_EQUAL(qr_file_read(place.file, bytes, sizeof(bytes), 0), 4 * SECTOR);
    CHECK_EQUAL(bytes[0], 'n');
    CHECK_EQUAL(bytes[4 * SECTOR - 1], 'n');
    simdisk_faults_clear(place.disk);
    interrupted = simdisk_fault_set(place.disk, &(struct simdisk_fault){SIMDISK_WRITE, 1, false, EINTR, 0});
    CHECK_EQUAL(qr_file_write(place.file, bytes, sizeof(bytes), 0), 0);
    CHECK_EQUAL(simdisk_fault_fired(place.disk, interrupted), 1);
    interrupted = simdisk_fault_set(place.disk, &(struct simdisk_fault){SIMDISK_READ, 1, false, EINTR, 0});
    CHECK_EQUAL(qr_file_read(place.file, bytes, sizeof(bytes), 0), 4 * SECTOR);
    CHECK_EQUAL(simdisk_fault_fired(place.disk, interrupted), 1);
    place_close(&place);
}

static void parts_of_transfers_fail_one_by_one(void)
{
    struct place place = place_open();
    uint8_t bytes[3][8];
    struct qr_io ios[3];
    for (unsigned i = 0; i < 3; i++)
        ios[i] = (struct qr_io){QR_IO_READ, place.file, i * 8, bytes[i], 8, 0};
    set_fault(&place, SIMDISK_TRANSFER, 2, false, EIO);
    CHECK_EQUAL(qr_disk_transfer(simdisk_disk(place.disk), ios, 3), -EIO);
    CHECK_EQUAL(ios[0].result, 8);
    CHECK_EQUAL(ios[1].result, -EIO);
    CHECK_EQUAL(ios[2].result, 8);
    simdisk_faults_clear(place.disk);
    (void)simdisk_fault_set(place.disk, &(struct simdisk_fault){SIMDISK_TRANSFER, 2, false, 0, 3});
    CHECK_EQUAL(qr_disk_transfer(simdisk_disk(place.disk), ios, 3), 0);
    ios[2].offset = 4 * SECTOR - 4;
    CHECK_EQUAL(qr_disk_transfer(simdisk_disk(place.disk), ios, 3), -ENODATA);
    CHECK_EQUAL(ios[1].result, 8);
    CHECK_EQUAL(ios[2].result, -ENODATA);
    place_close(&place);
}

/* ---- Space ------------------------------------------------------------------------------------------------------ */

static void space_runs_out_and_comes_back(void)
{
    struct place place = place_open();
    uint8_t bytes[3 * 4096] = {0};
    uint64_t free_bytes = 0;
    void *memory = NULL;
    simdisk_facts(place.disk)->space_bytes = 4 * 4096;
    CHECK_EQUAL(simdisk_used_bytes(place.disk), 4096);
    struct qr_file *other = open_file(place.dir, "g");
    CHECK_EQUAL(ops_of(&place)->file_write(other, bytes, sizeof(bytes), 8192), 3 * 4096);
    CHECK_EQUAL(ops_of(&place)->file_write(other, bytes, sizeof(bytes), 8192), 3 * 4096); /* over the same */
    CHECK_EQUAL(ops_of(&place)->file_write(other, bytes, sizeof(bytes), 3 * 4096 - 10), 2 * 4096 + 10); /* short */
    CHECK_EQUAL(ops_of(&place)->file_write(other, bytes, 1, 0), -ENOSPC);
    CHECK_EQUAL(qr_file_write(other, bytes, sizeof(bytes), 3 * 4096), -ENOSPC);
    CHECK_EQUAL(ops_of(&place)->file_allocate(other, 0, 4096), -ENOSPC);
    CHECK_EQUAL(ops_of(&place)->dir_free_bytes(place.dir, &free_bytes), 0);
    CHECK_EQUAL(free_bytes, 0);
    CHECK_EQUAL(ops_of(&place)->file_resize(place.file, 8192), 0); /* a hole */
    CHECK_EQUAL(ops_of(&place)->file_map(place.file, 0, 8192, &memory), 0);
    CHECK_EQUAL(ops_of(&place)->file_populate(place.file, memory, 4096), 0);
    CHECK_EQUAL(ops_of(&place)->file_populate(place.file, (uint8_t *)memory + 4096, 4096), -ENOSPC);
    CHECK_EQUAL(simdisk_mistakes(place.disk), 0);
    ((uint8_t *)memory)[4096] = 1; /* all the same */
    simdisk_observe(place.disk);
    CHECK_EQUAL(simdisk_mistakes(place.disk), 1);
    CHECK_EQUAL(ops_of(&place)->dir_unlink(place.dir, "g"), 0);
    CHECK_EQUAL(ops_of(&place)->file_populate(place.file, (uint8_t *)memory + 4096, 4096), -ENOSPC); /* g is open */
    ops_of(&place)->file_close(other);
    CHECK_EQUAL(ops_of(&place)->file_populate(place.file, (uint8_t *)memory + 4096, 4096), 0);
    CHECK_EQUAL(simdisk_used_bytes(place.disk), 8192);
    CHECK_EQUAL(ops_of(&place)->file_resize(place.file, 4096), 0);
    CHECK_EQUAL(simdisk_used_bytes(place.disk), 4096);
    place_close(&place);
}

/* ---- Locks, cuts, damage ---------------------------------------------------------------------------------------- */

static void locks_go_with_the_process(void)
{
    struct place place = place_open();
    int64_t pid = 0;
    simdisk_facts(place.disk)->pid = 77;
    CHECK_EQUAL(ops_of(&place)->dir_lock(place.dir, "lock", false, &pid), 0);
    struct qr_dir *other = open_dir(place.disk);
    CHECK_EQUAL(ops_of(&place)->dir_lock(other, "lock", false, &pid), -EWOULDBLOCK);
    CHECK_EQUAL(pid, 77);
    ops_of(&place)->dir_close(other);
    struct simdisk *after = simdisk_crash(place.disk, &(struct simdisk_crash){.mode = SIMDISK_DEATH});
    other = open_dir(after);
    CHECK_EQUAL(other->disk->ops->dir_lock(other, "lock", false, &pid), 0);
    other->disk->ops->dir_close(other);
    simdisk_free(after);
    place_close(&place);
}

struct cuts {
    struct simdisk *disk;
    unsigned count;
    char seen[16][8];
};

static void cut(void *context, const struct simdisk_event *event)
{
    struct cuts *cuts = context;
    struct simdisk *after = simdisk_crash(cuts->disk, &(struct simdisk_crash){.mode = SIMDISK_DROP});
    (void)event;
    snprintf(cuts->seen[cuts->count++], sizeof(cuts->seen[0]), "%s", letters(after, "f"));
    simdisk_free(after);
}

static void a_hook_sees_the_disk_before_each_operation(void)
{
    static const char *const expected[] = {"aaaa", "aaaa", "baaa", "baaa", "bcaa"};
    struct place place = place_open();
    struct cuts cuts = {.disk = place.disk};
    simdisk_set_hook(place.disk, cut, &cuts);
    fill(&place, 'b', 0, SECTOR);
    CHECK_EQUAL(ops_of(&place)->file_sync(place.file), 0);
    fill(&place, 'c', SECTOR, SECTOR);
    CHECK_EQUAL(ops_of(&place)->file_sync(place.file), 0);
    CHECK_EQUAL(ops_of(&place)->dir_sync(place.dir), 0);
    CHECK_EQUAL(cuts.count, 5);
    for (unsigned i = 0; i < 5; i++)
        CHECK(strcmp(cuts.seen[i], expected[i]) == 0, "cut %u: %s", i, cuts.seen[i]);
    simdisk_set_hook(place.disk, NULL, NULL);
    place_close(&place);
}

static void damage_is_not_an_operation(void)
{
    struct place place = place_open();
    uint8_t bytes[SECTOR];
    memset(bytes, 'x', sizeof(bytes));
    simdisk_damage(place.disk, PATH, "f", SECTOR, bytes, sizeof(bytes));
    CHECK_EQUAL(simdisk_unsynced_count(place.disk), 0);
    EXPECT_AFTER(&place, "f", "axaa", .mode = SIMDISK_DROP);
    simdisk_damage_size(place.disk, PATH, "f", 2 * SECTOR);
    EXPECT_AFTER(&place, "f", "ax", .mode = SIMDISK_DROP);
    simdisk_damage_size(place.disk, PATH, "f", 3 * SECTOR);
    EXPECT_AFTER(&place, "f", "ax0", .mode = SIMDISK_DROP);
    place_close(&place);
}

/*
 * Random scripts: what is durable after DROP is what it was at the last sync, what is there after KEEP or DEATH is what
 * was seen, byte for byte, also with stores, cuts and growth in between.
 */
static void random_scripts_against_two_copies(uint64_t seed, uint64_t scale)
{
    enum { SIZE = 16384 };
    struct random_stream stream;
    random_seed(&stream, seed);
    for (uint64_t round = 0; round < 40 * scale; round++) {
        struct place place = place_open();
        static uint8_t now[SIZE], synced[SIZE];
        uint64_t now_size = 4 * SECTOR, synced_size = 4 * SECTOR;
        uint8_t *memory = NULL;
        memset(now, 0, SIZE);
        memset(now, 'a', now_size);
        memcpy(synced, now, SIZE);
        for (unsigned step = 0; step < 30; step++) {
            uint64_t offset = random_below(&stream, SIZE), size = 1 + random_below(&stream, SIZE - offset);
            uint8_t byte = (uint8_t)random_next(&stream);
            switch (random_below(&stream, 4)) {
            case 0:
                fill(&place, byte, offset, (uint32_t)size);
                memset(now + offset, byte, size);
                now_size = offset + size > now_size ? offset + size : now_size;
                break;
            case 1:
                CHECK_EQUAL(ops_of(&place)->file_resize(place.file, offset), 0);
                if (offset < now_size)
                    memset(now + offset, 0, now_size - offset);
                now_size = offset;
                break;
            case 2:
                if (now_size <= offset || ops_of(&place)->file_map(place.file, 0, now_size, (void **)&memory) != 0)
                    break;
                size = size < now_size - offset ? size : now_size - offset;
                memset(memory + offset, byte, size);
                memset(now + offset, byte, size);
                break;
            case 3:
                CHECK_EQUAL(ops_of(&place)->file_sync(place.file), 0);
                memcpy(synced, now, SIZE);
                synced_size = now_size;
                break;
            }
        }
        for (enum simdisk_mode mode = SIMDISK_DEATH; mode <= SIMDISK_KEEP; mode++) {
            struct simdisk *after = simdisk_crash(place.disk, &(struct simdisk_crash){.mode = mode});
            uint64_t size = 0, expected = mode == SIMDISK_DROP ? synced_size : now_size;
            const uint8_t *content = simdisk_content(after, PATH, "f", &size);
            CHECK(size == expected && memcmp(content, mode == SIMDISK_DROP ? synced : now, size) == 0,
                  "seed %llu, round %llu, mode %u", (unsigned long long)seed, (unsigned long long)round, mode);
            simdisk_free(after);
        }
        place_close(&place);
    }
}

int main(int argc, char **argv)
{
    uint64_t seed = 0;
    const struct test_option options[] = {{.name = "seed", .help = "0 = from the clock", .number = &seed}};
    test_options_parse(argc, argv, "tests of the simulated disk", options, 1);
    seed = test_seed(seed);

    writes_survive_as_the_mode_says();
    death_keeps_the_cache_and_what_is_unsynced_in_it();
    sizes_are_those_synced_or_current();
    what_a_crash_cut_off_reads_as_zeros();
    stores_are_operations_of_a_sector();
    random_crashes_show_any_version_of_each_sector(seed);
    random_crashes_tear_by_the_unit_that_is_asked(seed);
    stores_are_torn_at_any_word(seed);
    stale_bytes_show_where_a_write_made_space_and_did_not_arrive();
    crashes_of_one_seed_are_the_same(seed);
    names_survive_by_prefix_or_subset();
    a_new_directory_may_be_lost_until_its_parent_is_synced();
    what_a_failed_sync_left_stays_doubtful();
    a_failed_sync_may_bring_the_old_content_back();
    a_failed_sync_may_be_told_of_one_sync_late();
    names_of_a_failed_directory_sync_stay_doubtful();
    every_kind_of_operation_fails_when_it_is_told_to();
    short_counts_and_interruptions_reach_the_caller_and_are_continued();
    parts_of_transfers_fail_one_by_one();
    space_runs_out_and_comes_back();
    locks_go_with_the_process();
    a_hook_sees_the_disk_before_each_operation();
    damage_is_not_an_operation();
    random_scripts_against_two_copies(seed, test_scaled(1));
    return check_finish();
}
