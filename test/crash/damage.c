/*
 * Goal: whatever single byte of a store is damaged, and wherever one of its files is cut, opening it and reading from it answer
 * what was written or an error; and where it opens, what is written then is there after the next opening.
 * Method: a small store on the simulated disk, as a clean close leaves it, and as the death of a process and the loss of power
 * leave it, with pages, log, and several incarnations; a bit of each byte flipped (of every n-th in the short form), each file cut at each
 * length; opened, compared with a list of all writes, written to, opened again.
 *
 * DAMAGE-1  Closed: each key answers its last value, or CORRUPT, NEWER.
 * DAMAGE-2  Not closed: the answers are those of one moment, at or after the last checkpoint: damage at the end of the log may be its
 *           torn end.
 * DAMAGE-3  If it opened and took a write, the next opening succeeds, and has the write and all that could be read before.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "db/db.h"
#include "lib/check.h"
#include "lib/options.h"
#include "lib/random.h"
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

struct store {
    const char *what;
    struct simdisk *disk;
    int least; /* writes that must be there */
};

static uint64_t cases, refused, unreadable, opened, cut_short, append_refused;

static int open_on(struct simdisk *disk, uint32_t mode, struct quire **ret_db)
{
    struct quire_options options;
    quire_options_init(&options);
    options.open_mode = mode;
    options.level = QUIRE_LEVEL_PROCESS;
    options.background_threads = QUIRE_NO_THREADS;
    options.sync_period_ms = QUIRE_NO_PERIOD;
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
    struct simdisk *disk = simdisk_create();
    write_some(disk, 0, CHECKPOINT_AT / 2, true, false);
    write_some(disk, CHECKPOINT_AT / 2, CHECKPOINT_AT, true, false);
    write_some(disk, CHECKPOINT_AT, (CHECKPOINT_AT + WRITES) / 2, false, false);
    write_some(disk, (CHECKPOINT_AT + WRITES) / 2, WRITES, false, close);
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

/* disk: a copy of the store's with one damage. */
static void look(const struct store *store, struct simdisk *disk, const char *what)
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
    CHECK(is_a_moment(store, states), "%s", what);
    go_on(disk, db, tree, states, what);
    CHECK_EQUAL(simdisk_open_count(disk), 0);
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

static void damage_file(const struct store *store, const char *name, struct random_stream *random, uint64_t step)
{
    uint64_t size;
    char what[128];
    const uint8_t *content = simdisk_content(store->disk, STORE, name, &size);
    uint64_t end = written_end(content, size);
    for (uint64_t at = random_below(random, step); at < size; at = next_place(random, at, end, step)) {
        uint32_t bit = (uint32_t)random_below(random, 8);
        uint8_t flipped = content[at] ^ (uint8_t)(1u << bit);
        struct simdisk *disk = copy_of(store);
        snprintf(what, sizeof(what), "%s, %s, byte %llu, bit %u", store->what, name, (unsigned long long)at, bit);
        simdisk_damage(disk, STORE, name, at, &flipped, 1);
        look(store, disk, what);
        simdisk_free(disk);
    }
    for (uint64_t at = random_below(random, step); at < size; at = next_place(random, at, end, step)) {
        struct simdisk *disk = copy_of(store);
        snprintf(what, sizeof(what), "%s, %s, cut at %llu", store->what, name, (unsigned long long)at);
        simdisk_damage_size(disk, STORE, name, at);
        look(store, disk, what);
        simdisk_free(disk);
    }
}

int main(int argc, char **argv)
{
    uint64_t seed = 0, step = 300;
    const struct test_option options[] = {
        {.name = "seed", .help = "0 = from the clock", .number = &seed},
        {.name = "step", .help = "mean distance of bytes that are damaged, and of lengths; 1 = each", .number = &step}};
    test_options_parse(argc, argv, "damage to all files of a store", options, 2);
    struct random_stream random;
    random_seed(&random, test_seed(seed));
    const struct store stores[] = {make_store("closed", true, SIMDISK_DEATH), make_store("dead", false, SIMDISK_DEATH),
                                   make_store("without power", false, SIMDISK_DROP)};
    for (uint32_t i = 0; i < 3; i++) {
        struct names names = list_files(stores[i].disk);
        struct simdisk *disk = copy_of(&stores[i]);
        look(&stores[i], disk, stores[i].what);
        simdisk_free(disk);
        CHECK(cut_short == 0 && refused == 0, "%s: undamaged, it is not whole", stores[i].what);
        for (uint32_t k = 0; k < names.count; k++) damage_file(&stores[i], names.names[k], &random, step);
        printf("%s, %u files, so far: %llu damages, %llu refused, %llu opened: %llu with keys that cannot be read, %llu with a log "
               "that ended early, %llu that took no write\n",
               stores[i].what, names.count, (unsigned long long)cases, (unsigned long long)refused,
               (unsigned long long)opened, (unsigned long long)unreadable, (unsigned long long)cut_short,
               (unsigned long long)append_refused);
        cut_short = refused = 0;
        simdisk_free(stores[i].disk);
    }
    return check_finish();
}
