/*
 * Goal: whatever single byte of a store is damaged, and wherever one of its files is cut, opening it and reading from it answer
 * what was written or an error; and where it opens, what is written then is there after the next opening.
 * Method: a small store on the simulated disk, as a clean close leaves it, and as the death of a process and the loss of power
 * leave it, with pages, log, and several incarnations; a bit of each byte flipped (of every n-th in the short form), each file cut at each
 * length; sectors zeroed, replaced by what they held earlier (a write that was lost), swapped with others, as are pages (writes that
 * went astray); opened, compared with a list of all writes, written to, opened again.
 *
 *     crash_damage --seed 1                       # a choice
 *     crash_damage --bits 8 --from 0              # each bit; --from N goes on with damage N, --most N ends after so many
 *
 * DAMAGE-1  Closed: each key answers its last value, or CORRUPT, NEWER.
 * DAMAGE-2  Not closed: the answers are those of one moment, at or after the last checkpoint: damage at the end of the log may be its
 *           torn end.
 * DAMAGE-3  If it opened and took a write, the next opening succeeds, and has the write and all that could be read before.
 * DAMAGE-4  Not closed, in the same boot, a sector or page of the log damaged as a whole: where a frame began in it, it looks like the
 *           place that a thread had reserved when it died, and is passed over. So each key answers as of some such moment, but
 *           not all of them as of the same.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "db/db.h"
#include "lib/check.h"
#include "lib/options.h"
#include "lib/random.h"
#include "lib/resting.h"
#include "lib/simdisk.h"

#define STORE "store"

enum {
    KEYS = 24,
    WRITES = 160,
    CHECKPOINT_AT = 60, /* the last one of the stores that were not closed */
    MOST_VALUE = 2000,
    MOST_FILES = 32,
    ABSENT = -1,
    UNREADABLE = -2
};

/* Write n gives key n * 7 % KEYS the value n, or deletes it; the value's size and bytes follow from n. */
static uint32_t key_of(int n)
{
    return (uint32_t)n * 7 % KEYS;
}

static bool deletes(int n)
{
    return n % 9 == 5;
}

static size_t value_of(int n, uint8_t *value)
{
    size_t size = 8 + (size_t)(n * 37) % (n % 23 == 3 ? MOST_VALUE - 8 : 60);
    memset(value, n, size);
    memcpy(value, &n, sizeof(n));
    return size;
}

/* What each key has after the first n writes. */
static int state_of(int n, uint32_t key)
{
    while (n-- > 0)
        if (key_of(n) == key) return deletes(n) ? ABSENT : n;
    return ABSENT;
}

/* ---- A store ----------------------------------------------------------------------------------------------------- */

#define EARLIER 3u

struct store {
    const char *what;
    struct simdisk *disk;
    struct simdisk *earlier[EARLIER]; /* what was on it after so many of its openings */
    int least; /* writes that must be there */
};

static uint64_t cases, refused, unreadable, opened, cut_short, append_refused, passed_over;

static int open_on(struct simdisk *disk, uint32_t mode, struct quire **ret_db)
{
    struct quire_options options = resting_options(QUIRE_LEVEL_PROCESS);
    options.open_mode = mode;
    options.log_segment_bytes = 16384;
    return qr_db_open(STORE, simdisk_disk(disk), &options, ret_db);
}

static int open_tree(struct quire *db, struct quire_tree **ret_tree)
{
    struct quire_tree_options options;
    quire_tree_options_init(&options);
    options.leaf_page_size_bytes = 512;
    options.inner_page_size_bytes = 512;
    return quire_tree_open(db, "t", &options, ret_tree);
}

static void write_some(struct simdisk *disk, int from, int to, bool checkpoint, bool close)
{
    struct quire *db = NULL;
    struct quire_tree *tree = NULL;
    uint8_t value[MOST_VALUE];
    CHECK_EQUAL(open_on(disk, 0, &db), 0);
    CHECK_EQUAL(open_tree(db, &tree), 0);
    for (int n = from; n < to; n++) {
        uint32_t key = key_of(n);
        CHECK_EQUAL(deletes(n) ? quire_delete(tree, &key, sizeof(key), 0, NULL, NULL)
                               : quire_put(tree, &key, sizeof(key), value, value_of(n, value), 0, NULL),
                    0);
    }
    if (checkpoint) CHECK_EQUAL(quire_checkpoint(db), 0);
    if (!close) CHECK_EQUAL(quire_sync(db), 0);
    if (!close) db->options.no_sync_at_close = 1;
    CHECK_EQUAL(quire_close(db), 0);
}

static struct store make_store(const char *what, bool close, enum simdisk_mode mode)
{
    struct store store = {.what = what, .least = close ? WRITES : CHECKPOINT_AT};
    static const int ends[EARLIER + 1] = {CHECKPOINT_AT / 2, CHECKPOINT_AT, (CHECKPOINT_AT + WRITES) / 2, WRITES};
    struct simdisk *disk = simdisk_create();
    for (unsigned i = 0; i <= EARLIER; i++) {
        write_some(disk, i == 0 ? 0 : ends[i - 1], ends[i], i < 2, i == EARLIER && close);
        if (i < EARLIER) store.earlier[i] = simdisk_crash(disk, &(struct simdisk_crash){.mode = SIMDISK_DEATH});
    }
    store.disk = simdisk_crash(disk, &(struct simdisk_crash){.mode = mode});
    simdisk_free(disk);
    return store;
}

/* ---- Looking at one that is damaged ------------------------------------------------------------------------------ */

static bool is_of_damage(int result)
{
    return result == QUIRE_ERR_CORRUPT || result == QUIRE_ERR_NEWER;
}

static int read_key(struct quire_tree *tree, uint32_t key)
{
    uint8_t value[MOST_VALUE], right[MOST_VALUE];
    size_t size = 0;
    int n = UNREADABLE;
    int result = quire_get(tree, NULL, &key, sizeof(key), value, sizeof(value), &size);
    if (result == QUIRE_NOT_FOUND) return ABSENT;
    if (result != 0) {
        CHECK(is_of_damage(result), "a read answers %d", result);
        return UNREADABLE;
    }
    memcpy(&n, value, sizeof(n));
    CHECK(size >= sizeof(n) && n >= 0 && n < WRITES && size == value_of(n, right) && memcmp(value, right, size) == 0 &&
              key_of(n) == key,
          "key %u has a value that nobody wrote", key);
    return n;
}

/* All keys; the number of those that cannot be read. */
static uint32_t read_all(struct quire_tree *tree, int *states)
{
    uint32_t count = 0;
    for (uint32_t key = 0; key < KEYS; key++) count += (states[key] = read_key(tree, key)) == UNREADABLE;
    return count;
}

/* Whether the answers are those of one moment. */
static bool is_a_moment(const struct store *store, const int *states)
{
    for (int n = WRITES; n >= store->least; n--) {
        uint32_t key = 0;
        while (key < KEYS && (states[key] == UNREADABLE || states[key] == state_of(n, key))) key++;
        cut_short += key == KEYS && n < WRITES;
        if (key == KEYS) return true;
    }
    return false;
}

/* DAMAGE-4 */
static bool is_by_key(const struct store *store, const int *states)
{
    for (uint32_t key = 0; key < KEYS; key++) {
        int n = WRITES;
        while (n >= store->least && states[key] != UNREADABLE && states[key] != state_of(n, key)) n--;
        if (n < store->least) return false;
    }
    passed_over++;
    return true;
}

/* The write that is made after an opening. */
static const char appended[] = "appended";

static void go_on(struct simdisk *disk, struct quire *db, struct quire_tree *tree, const int *states, const char *what)
{
    int again[KEYS];
    int put = quire_put(tree, appended, sizeof(appended), "x", 1, 0, NULL);
    int had = put == 0 ? quire_exists(tree, NULL, appended, sizeof(appended)) : put;
    CHECK(put == 0 || is_of_damage(put), "%s: a write answers %d", what, put);
    append_refused += put != 0;
    int result = quire_close(db); /* which may fail to make a checkpoint of pages that it cannot read */
    CHECK(result == 0 || is_of_damage(result), "%s: close answers %d", what, result);
    struct quire_error_detail detail;
    result = open_on(disk, 0, &db);
    quire_error_detail(&detail);
    if (!CHECK(result == 0, "%s: opens, and then not again: %s", what, detail.message)) return;
    if (CHECK_EQUAL(open_tree(db, &tree), 0)) {
        read_all(tree, again);
        for (uint32_t key = 0; key < KEYS; key++)
            CHECK(again[key] == states[key] || states[key] == UNREADABLE, "%s: key %u was %d and is %d", what, key,
                  states[key], again[key]);
        CHECK(had != 0 || quire_exists(tree, NULL, appended, sizeof(appended)) == 0, "%s: a write is lost", what);
    }
    db->options.no_sync_at_close = 1;
    CHECK_EQUAL(quire_close(db), 0);
}

/* disk: a copy of the store's with one damage. holes: DAMAGE-4 */
static void look_for(const struct store *store, struct simdisk *disk, bool holes, const char *what)
{
    struct quire *db = NULL;
    struct quire_tree *tree = NULL;
    struct quire_error_detail detail;
    int states[KEYS];
    cases++;
    int result = open_on(disk, 0, &db);
    quire_error_detail(&detail);
    if (result != 0) {
        refused++;
        CHECK(is_of_damage(result) || result == QUIRE_ERR_FOREIGN, "%s: %d, %s", what, result, detail.message);
        CHECK_EQUAL(simdisk_open_count(disk), 0);
        return;
    }
    opened++;
    result = open_tree(db, &tree);
    if (result != 0) {
        CHECK(is_of_damage(result), "%s: the tree answers %d", what, result);
        db->options.no_sync_at_close = 1;
        quire_close(db);
        return;
    }
    unreadable += read_all(tree, states) != 0;
    CHECK(is_a_moment(store, states) || (holes && is_by_key(store, states)), "%s", what);
    go_on(disk, db, tree, states, what);
    CHECK_EQUAL(simdisk_open_count(disk), 0);
}

static void look(const struct store *store, struct simdisk *disk, const char *what)
{
    look_for(store, disk, false, what);
}

/* ---- Damages ----------------------------------------------------------------------------------------------------- */

struct names {
    uint32_t count;
    char names[MOST_FILES][24];
};

static int note_name(void *context, const char *name)
{
    struct names *names = context;
    if (strcmp(name, "lock") != 0 && CHECK(names->count < MOST_FILES, "too many files"))
        snprintf(names->names[names->count++], sizeof(names->names[0]), "%s", name);
    return 0;
}

static struct names list_files(struct simdisk *disk)
{
    struct names names = {0};
    struct qr_disk *table = simdisk_disk(disk);
    struct qr_dir *dir;
    CHECK_EQUAL(table->ops->dir_open(table, STORE, QR_DIR_READ_ONLY, &dir), 0);
    CHECK_EQUAL(table->ops->dir_list(dir, note_name, &names), 0);
    table->ops->dir_close(dir);
    return names;
}

static struct simdisk *copy_of(const struct store *store)
{
    return simdisk_crash(store->disk, &(struct simdisk_crash){.mode = SIMDISK_DEATH});
}

/* Where what was written ends: behind it are the zeros that a file was made of, which are looked at less closely. */
static uint64_t written_end(const uint8_t *content, uint64_t size)
{
    while (size != 0 && content[size - 1] == 0) size--;
    return size;
}

static uint64_t next_place(struct random_stream *random, uint64_t at, uint64_t end, uint64_t step)
{
    if (at >= end) step *= 128;
    return at + (step == 1 ? 1 : random_between(random, 1, 2 * step - 1));
}

static void flip(const struct store *store, const char *name, uint64_t at, uint32_t bit)
{
    uint64_t size;
    char what[128];
    uint8_t flipped = simdisk_content(store->disk, STORE, name, &size)[at] ^ (uint8_t)(1u << bit);
    struct simdisk *disk = copy_of(store);
    snprintf(what, sizeof(what), "%s, %s, byte %llu, bit %u", store->what, name, (unsigned long long)at, bit);
    simdisk_damage(disk, STORE, name, at, &flipped, 1);
    look(store, disk, what);
    simdisk_free(disk);
}

static void damage_file(const struct store *store, const char *name, struct random_stream *random, uint64_t step)
{
    uint64_t size;
    char what[128];
    const uint8_t *content = simdisk_content(store->disk, STORE, name, &size);
    uint64_t end = written_end(content, size);
    for (uint64_t at = random_below(random, step); at < size; at = next_place(random, at, end, step))
        flip(store, name, at, (uint32_t)random_below(random, 8));
    for (uint64_t at = random_below(random, step); at < size; at = next_place(random, at, end, step)) {
        struct simdisk *disk = copy_of(store);
        snprintf(what, sizeof(what), "%s, %s, cut at %llu", store->what, name, (unsigned long long)at);
        simdisk_damage_size(disk, STORE, name, at);
        look(store, disk, what);
        simdisk_free(disk);
    }
}

/* ---- Sectors and pages ------------------------------------------------------------------------------------------- */

static uint64_t zeroed, lost, astray;

static bool may_look_like_holes(const struct store *store, const char *name)
{
    return strcmp(store->what, "dead") == 0 && strncmp(name, "log-", 4) == 0;
}

/* Puts these bytes there. False: they are there already. */
static bool replace(const struct store *store, const char *name, uint64_t at, const uint8_t *bytes, size_t size,
                    const char *what)
{
    uint64_t all;
    char text[160];
    const uint8_t *content = simdisk_content(store->disk, STORE, name, &all);
    if (at + size > all || memcmp(content + at, bytes, size) == 0) return false;
    struct simdisk *disk = copy_of(store);
    snprintf(text, sizeof(text), "%s, %s, %llu: %s", store->what, name, (unsigned long long)at, what);
    simdisk_damage(disk, STORE, name, at, bytes, size);
    look_for(store, disk, may_look_like_holes(store, name), text);
    simdisk_free(disk);
    return true;
}

/* A write that did not arrive: what was there after an earlier opening, or before there was anything. */
static void lose_writes(const struct store *store, const char *name, uint64_t size)
{
    static const uint8_t zeros[SIMDISK_SECTOR_BYTES];
    for (uint64_t at = 0; at + SIMDISK_SECTOR_BYTES <= size; at += SIMDISK_SECTOR_BYTES) {
        zeroed += replace(store, name, at, zeros, sizeof(zeros), "zeroed");
        for (unsigned i = 0; i < EARLIER; i++) {
            uint64_t before;
            const uint8_t *content = simdisk_content(store->earlier[i], STORE, name, &before);
            if (content == NULL || at + SIMDISK_SECTOR_BYTES > before) continue;
            if (i + 1 < EARLIER && written_end(content + at, SIMDISK_SECTOR_BYTES) == 0) continue; /* as zeroed */
            lost += replace(store, name, at, content + at, SIMDISK_SECTOR_BYTES, "a lost write");
        }
    }
}

/* A write that went to the place of another one: that has these bytes, and its own place those of before. */
static void swap(const struct store *store, const char *name, uint64_t at, const char *other, uint64_t there, uint32_t size)
{
    uint64_t one_size, other_size;
    char what[160];
    const uint8_t *one = simdisk_content(store->disk, STORE, name, &one_size) + at;
    const uint8_t *two = simdisk_content(store->disk, STORE, other, &other_size) + there;
    if (at + size > one_size || there + size > other_size || memcmp(one, two, size) == 0) return;
    struct simdisk *disk = copy_of(store);
    snprintf(what, sizeof(what), "%s, %s, %llu, and %s, %llu: %u bytes swapped", store->what, name, (unsigned long long)at, other,
             (unsigned long long)there, size);
    simdisk_damage(disk, STORE, name, at, two, size);
    simdisk_damage(disk, STORE, other, there, one, size);
    look_for(store, disk, may_look_like_holes(store, name) || may_look_like_holes(store, other), what);
    simdisk_free(disk);
    astray++;
}

static void swap_all(const struct store *store, const struct names *names, const char *name, uint64_t size,
                     struct random_stream *random)
{
    static const uint32_t units[] = {SIMDISK_SECTOR_BYTES, SIMDISK_BLOCK_BYTES};
    uint64_t end = written_end(simdisk_content(store->disk, STORE, name, &size), size);
    for (unsigned u = 0; u < 2; u++) {
        for (uint64_t at = 0; at < end; at += units[u]) {
            uint64_t other_size = 0;
            const char *other = random_chance(random, 50) ? name : names->names[random_below(random, names->count)];
            (void)simdisk_content(store->disk, STORE, other, &other_size);
            swap(store, name, at, name, at + units[u], units[u]);
            if (other_size >= units[u])
                swap(store, name, at, other, random_below(random, other_size / units[u]) * units[u], units[u]);
        }
    }
}

static void damage_sectors(const struct store *store, const struct names *names, struct random_stream *random)
{
    for (uint32_t k = 0; k < names->count; k++) {
        uint64_t size;
        (void)simdisk_content(store->disk, STORE, names->names[k], &size);
        lose_writes(store, names->names[k], size);
        swap_all(store, names, names->names[k], size, random);
    }
}

/* ---- Every bit --------------------------------------------------------------------------------------------------- */

/* Damages number `from` and on, of one store after the other; at most so many. *number goes on. */
static void flip_every_bit(const struct store *store, const struct names *names, uint64_t *number, uint64_t from, uint64_t end)
{
    for (uint32_t k = 0; k < names->count; k++) {
        uint64_t size;
        (void)simdisk_content(store->disk, STORE, names->names[k], &size);
        for (uint64_t bit = 0; bit < size * 8 && *number < end && check_failures() == 0; bit++) {
            if ((*number)++ < from) continue;
            flip(store, names->names[k], bit / 8, (uint32_t)(bit % 8));
            if (*number % 100000 == 0)
                printf("%s, %s: next is --from %llu; %llu damages, %llu refused, %llu opened\n", store->what, names->names[k],
                       (unsigned long long)*number, (unsigned long long)cases, (unsigned long long)refused,
                       (unsigned long long)opened);
        }
    }
}

static void tell(const struct store *store, uint32_t files)
{
    printf("%s, %u files, so far: %llu damages, %llu refused, %llu opened: %llu with keys that cannot be read, %llu with a log "
           "that ended early, %llu that took no write; sectors: %llu zeroed, %llu lost, %llu swaps; %llu passed over\n",
           store->what, files, (unsigned long long)cases, (unsigned long long)refused, (unsigned long long)opened,
           (unsigned long long)unreadable, (unsigned long long)cut_short, (unsigned long long)append_refused,
           (unsigned long long)zeroed, (unsigned long long)lost, (unsigned long long)astray,
           (unsigned long long)passed_over);
}

int main(int argc, char **argv)
{
    uint64_t seed = 0, step = 300, bits = 1, from = 0, most = UINT64_MAX, number = 0;
    const struct test_option options[] = {
        {.name = "seed", .help = "0 = from the clock", .number = &seed},
        {.name = "step", .help = "mean distance of bytes that are damaged, and of lengths; 1 = each", .number = &step},
        {.name = "bits", .help = "8: every bit of every byte, and nothing else", .number = &bits},
        {.name = "from", .help = "with bits: the first damage, as it was printed", .number = &from},
        {.name = "most", .help = "with bits: so many of them", .number = &most}};
    test_options_parse(argc, argv, "damage to all files of a store", options, sizeof(options) / sizeof(options[0]));
    setvbuf(stdout, NULL, _IOLBF, 0);
    struct random_stream random;
    random_seed(&random, test_seed(seed));
    struct store stores[] = {make_store("closed", true, SIMDISK_DEATH), make_store("dead", false, SIMDISK_DEATH),
                             make_store("without power", false, SIMDISK_DROP)};
    uint64_t end = most > UINT64_MAX - from ? UINT64_MAX : from + most;
    for (uint32_t i = 0; i < 3; i++) {
        struct names names = list_files(stores[i].disk);
        struct simdisk *disk = copy_of(&stores[i]);
        look(&stores[i], disk, stores[i].what);
        simdisk_free(disk);
        CHECK(cut_short == 0 && refused == 0, "%s: undamaged, it is not whole", stores[i].what);
        if (bits == 8) {
            flip_every_bit(&stores[i], &names, &number, from, end);
        } else {
            for (uint32_t k = 0; k < names.count; k++) damage_file(&stores[i], names.names[k], &random, step);
            damage_sectors(&stores[i], &names, &random);
        }
        tell(&stores[i], names.count);
        cut_short = refused = 0;
        simdisk_free(stores[i].disk);
        for (unsigned e = 0; e < EARLIER; e++) simdisk_free(stores[i].earlier[e]);
    }
    if (bits == 8) printf("next is --from %llu\n", (unsigned long long)number);
    CHECK(bits == 8 || (zeroed != 0 && lost != 0 && astray != 0), "no sectors were damaged");
    return check_finish();
}
