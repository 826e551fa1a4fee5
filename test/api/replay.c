/*
 * Goal: a log replayed leaf by leaf gives what it gives record by record.
 * Method: a store is written to at random, with checkpoints in between, and copied as it stands; the copies are opened the one way,
 * with a window as large as the log and with a small one, and record by record, which is the oracle. All that they have is compared,
 * LSNs and versions included, then they are written to, closed and opened once more.
 */
#include "api_dir.h"
#include "api_inside.h"

#include <pthread.h>

#include "base/stop.h"
#include "lib/random.h"

TestSuite(replay, .init = make_root, .fini = remove_root);

enum { TREES = 5, VERSIONS = 400, LARGE = 30000 };

static struct quire *open_copy(const char *name, uint64_t limit)
{
    struct quire_options options = options_of(QUIRE_OPEN_OR_CREATE, QUIRE_LEVEL_PROCESS);
    options.background_threads = QUIRE_NO_THREADS;
    options.checkpoint_interval_ms = QUIRE_NO_PERIOD;
    options.memory_limit_bytes = limit;
    return open_by(name, &options);
}

/* Two trees of small pages, one of each kind of versions; the default one; one whose keys begin alike; one with large values. */
static void open_trees(struct quire *db, struct quire_tree *trees[TREES])
{
    trees[0] = open_small_tree(db, "small", QUIRE_VERSIONS_ENGINE);
    trees[1] = open_small_tree(db, "caller", QUIRE_VERSIONS_CALLER);
    trees[2] = open_tree(db, NULL);
    trees[3] = open_tree(db, "alike");
    trees[4] = open_tree(db, "large");
}

static size_t draw_key(struct random_stream *random, unsigned tree, uint64_t keys, char *key)
{
    uint64_t number = random_below(random, keys);
    switch (tree) {
    case 3: /* sixteen bytes that all share, then sixteen that few tell apart, and keys that are beginnings of others */
        return (size_t)snprintf(key, 64, "the same in all0000000000000%03u%.*s", (unsigned)(number % 300), (int)(number % 4), "\1\1\1");
    case 4:
        return numbered(number % 40, key);
    default:
        return random_chance(random, 10) ? (size_t)snprintf(key, 64, "%x", (unsigned)number) : numbered(number, key);
    }
}

static void write_one(struct random_stream *random, struct quire_tree *trees[TREES], unsigned tree, uint64_t keys)
{
    static char value[LARGE];
    char key[64];
    size_t size = draw_key(random, tree, keys, key);
    size_t value_size = tree == 4 ? random_below(random, LARGE) : random_below(random, 120);
    memset(value, (int)random_below(random, 256), value_size);
    if (tree == 1) {
        uint64_t version = 1 + random_below(random, VERSIONS); /* in any order */
        int result;
        if (random_chance(random, 15))
            result = quire_delete_at(trees[tree], version, key, size, 0, NULL);
        else
            result = quire_put_at(trees[tree], version, key, size, value, value_size, 0, NULL);
        cr_assert(result == 0 || result == QUIRE_ERR_LSN_TOO_OLD, "%d", result);
        return;
    }
    unsigned choice = (unsigned)random_below(random, 100);
    if (choice < 20)
        OK(quire_delete(trees[tree], key, size, 0, NULL, NULL));
    else if (choice < 30)
        cr_assert_geq(quire_insert(trees[tree], key, size, value, value_size, 0, NULL), 0);
    else
        OK(quire_put(trees[tree], key, size, value, value_size, 0, NULL));
}

static void write_some(struct random_stream *random, struct quire *db, unsigned count, unsigned checkpoints_per_mille)
{
    struct quire_tree *trees[TREES];
    uint64_t keys = 10 + random_below(random, 6000);
    open_trees(db, trees);
    for (unsigned i = 0; i < count; i++) {
        unsigned tree = (unsigned)random_below(random, 100);
        write_one(random, trees, tree < 2 ? 4 : tree % 4, keys);
        if (random_below(random, 2000) == 0) {
            uint64_t safe = 0;
            OK(quire_safe_lsn(trees[1], &safe));
            OK(quire_set_safe_lsn(trees[1], qr_min(safe + random_below(random, 30), VERSIONS)));
        }
        if (random_below(random, 1000) * 100 < checkpoints_per_mille)
            OK(qr_db_checkpoint(db, qr_thread_self(db->epoch), random_chance(random, 50)));
    }
}

/* The same trees say the same of every key, at each of these versions. */
static void compare_trees(struct quire_tree *a, struct quire_tree *b, uint64_t version, const char *name)
{
    struct quire_pages_options options;
    struct quire_pages *x = NULL, *y = NULL;
    struct quire_page p = {0}, q = {0};
    size_t i = 0, j = 0;
    quire_pages_options_init(&options);
    options.version = version;
    OK(quire_pages_open(a, &options, &x));
    OK(quire_pages_open(b, &options, &y));
    for (;;) {
        int more_a = 0, more_b = 0;
        if (i == p.count) more_a = quire_pages_next(x, &p), i = 0;
        if (j == q.count) more_b = quire_pages_next(y, &q), j = 0;
        cr_assert(more_a == more_b, "%s at %" PRIu64 ": one ends before the other", name, version);
        if (more_a == QUIRE_END) break;
        cr_assert(more_a == 0, "pages: %d", more_a);
        const struct quire_entry *e = &p.entries[i++];
        const struct quire_entry *f = &q.entries[j++];
        bool same = e->key_size == f->key_size && memcmp(e->key, f->key, e->key_size) == 0 &&
                    e->value_size == f->value_size &&
                    (e->value_size == 0 || memcmp(e->value, f->value, e->value_size) == 0) && e->lsn == f->lsn &&
                    e->version == f->version;
        cr_assert(same, "%s at %" PRIu64 ": %.*s (LSN %" PRIu64 ") and %.*s (LSN %" PRIu64 ")", name, version,
                  (int)e->key_size, (const char *)e->key, e->lsn, (int)f->key_size, (const char *)f->key, f->lsn);
    }
    OK(quire_pages_close(x));
    OK(quire_pages_close(y));
}

static void compare(struct quire *a, struct quire *b)
{
    static const char *const names[TREES] = {"small", "caller", "default", "alike", "large"};
    struct quire_tree *x[TREES], *y[TREES];
    open_trees(a, x);
    open_trees(b, y);
    for (unsigned i = 0; i < TREES; i++) {
        check_structure(x[i]);
        if (i != 1) {
            compare_trees(x[i], y[i], UINT64_MAX, names[i]);
            continue;
        }
        uint64_t safe = 0, other = 0;
        OK(quire_safe_lsn(x[i], &safe));
        OK(quire_safe_lsn(y[i], &other));
        cr_assert_eq(safe, other);
        for (uint64_t version = qr_max(safe, 1); version <= VERSIONS; version += 13)
            compare_trees(x[i], y[i], version, names[i]);
    }
    uint64_t last_a = 0, last_b = 0;
    OK(quire_last_lsn(a, &last_a));
    OK(quire_last_lsn(b, &last_b));
    cr_assert_eq(last_a, last_b);
}

/* What is in "s" is opened in three ways. */
static void replay_and_compare(uint64_t limit)
{
    struct quire *whole, *pieces, *singly;
    shell("rm -rf a b c && cp -r s a && cp -r s b && cp -r s c");
    whole = open_copy("a", 0);
    pieces = open_copy("b", limit);
    qr_testing_replay_singly(1);
    singly = open_copy("c", 0);
    qr_testing_replay_singly(0);
    cr_assert_eq(stats_of(whole).recovery_records, stats_of(singly).recovery_records);
    compare(whole, singly);
    compare(pieces, singly);
    OK(quire_close(singly));
    OK(quire_close(pieces));
    OK(quire_close(whole));
}

/* A08, F05 */
Test(replay, leaf_by_leaf_gives_what_record_by_record_gives)
{
    const unsigned rounds = INSTRUMENTED ? 3 : 6;
    for (uint64_t seed = 1; seed <= rounds; seed++) {
        struct random_stream random;
        random_seed(&random, seed);
        shell("rm -rf s");
        struct quire *db = open_copy("s", 0);
        write_some(&random, db, 12000, seed % 3 == 0 ? 0 : 30);
        abandon(db);
        replay_and_compare(16 << 20);
        db = open_copy("s", 0); /* what was replayed is written to, and replayed again */
        write_some(&random, db, 3000, seed % 2 == 0 ? 0 : 100);
        abandon(db);
        replay_and_compare(16 << 20);
    }
}

/* Of one key all versions, one of which is the last; far more than a leaf has records. */
Test(replay, one_key_written_very_often)
{
    struct quire *db = open_copy("s", 0);
    struct quire_tree *trees[TREES];
    open_trees(db, trees);
    for (uint64_t i = 1; i <= 3000; i++) {
        OK(quire_put(trees[0], TEXT("a key"), &i, sizeof(i), 0, NULL));
        OK(quire_put_at(trees[1], 1 + (i * 7919) % VERSIONS, TEXT("a key"), &i, sizeof(i), 0, NULL));
    }
    abandon(db);
    replay_and_compare(16 << 20);
}

/* More records for one leaf than a step takes, and the leaf has keys beyond all of them: it is divided in the midst of them. With
 * `small`, by pages that have become smaller since. */
static void replay_to_a_wide_leaf(uint32_t small)
{
    struct quire_tree_options options;
    struct quire_tree *tree, *other;
    char key[32];
    quire_tree_options_init(&options);
    options.leaf_page_size_bytes = 65536;
    struct quire *db = open_copy("s", 0);
    OK(quire_tree_open(db, "t", &options, &tree));
    for (uint64_t i = 0; i < 300; i++) OK(quire_put(tree, key, numbered(i * 20, key), TEXT("was there"), 0, NULL));
    OK(quire_checkpoint(db));
    for (uint64_t i = 0; i < 3000; i++) { /* LSNs fall where keys rise, and rise */
        uint64_t number = i % 2 == 0 ? i * 2 + 1 : 6000 - i * 2 + 1;
        OK(quire_put(tree, key, numbered(number, key), TEXT("a value of some length, so that leaves fill"), 0, NULL));
    }
    options.leaf_page_size_bytes = options.inner_page_size_bytes = small;
    if (small != 0) OK(quire_tree_open(db, "t", &options, &tree));
    abandon(db);
    shell("rm -rf c && cp -r s c");
    db = open_copy("s", 0);
    qr_testing_replay_singly(1);
    struct quire *singly = open_copy("c", 0);
    qr_testing_replay_singly(0);
    tree = open_tree(db, "t");
    other = open_tree(singly, "t");
    check_structure(tree);
    compare_trees(tree, other, UINT64_MAX, "t");
    cr_assert_eq(count_all(tree, NULL), 3300);
    OK(quire_close(singly));
    OK(quire_close(db));
}

Test(replay, many_records_of_one_wide_leaf)
{
    replay_to_a_wide_leaf(0);
}

Test(replay, many_records_of_a_leaf_wider_than_pages_are_now)
{
    replay_to_a_wide_leaf(512);
}

/* R6: what a large record needs of the log is kept as long as no image has it, also after it was replayed. */
Test(replay, a_large_value_that_was_replayed_outlives_the_next_checkpoint)
{
    static char value[20000]; /* too large for a frame, and no reason to split the leaf, which would be written then */
    static char read[sizeof(value)];
    struct quire_tree_options options;
    struct quire_tree *tree;
    size_t size = 0;
    quire_tree_options_init(&options);
    options.leaf_page_size_bytes = 65536;
    memset(value, 'v', sizeof(value));
    struct quire *db = open_copy("s", 0);
    OK(quire_tree_open(db, "t", &options, &tree));
    fill(tree, 0, 100);
    OK(quire_checkpoint(db));
    OK(quire_put(tree, TEXT("key-000050"), value, sizeof(value), 0, NULL));
    abandon(db);
    for (unsigned round = 0; round < 3; round++) {
        db = open_copy("s", 0);
        tree = open_tree(db, "t");
        OK(quire_get(tree, NULL, TEXT("key-000050"), read, sizeof(read), &size));
        cr_assert(size == sizeof(value) && memcmp(read, value, size) == 0, "round %u: %zu bytes", round, size);
        OK(quire_put(tree, TEXT("key-000001"), "x", 1, 0, NULL));
        OK(qr_db_checkpoint(db, qr_thread_self(db->epoch), false));
        abandon(db);
    }
}

/* The root of a tree created since the checkpoint may have the id of a page that another tree had in it, and has lost since. */
Test(replay, a_new_tree_whose_root_has_the_id_of_a_page_of_the_checkpoint)
{
    char name[16], key[32];
    struct quire *db = open_copy("s", 0);
    struct quire_tree *old = open_small_tree(db, "old", QUIRE_VERSIONS_ENGINE);
    fill(old, 0, 2000);
    OK(quire_checkpoint(db));
    for (uint64_t i = 0; i < 2000; i++) OK(quire_delete(old, key, numbered(i, key), 0, NULL, NULL));
    while (quire_maintain(db) == QUIRE_MORE)
        ;
    for (unsigned i = 0; i < 40; i++) { /* ids come back after a grace period */
        snprintf(name, sizeof(name), "new %u", i);
        put(open_tree(db, name), name, "its own");
    }
    put(old, "old", "its own");
    abandon(db);
    for (unsigned round = 0; round < 2; round++) {
        db = open_copy("s", 0);
        for (unsigned i = 0; i < 40; i++) {
            snprintf(name, sizeof(name), "new %u", i);
            struct quire_tree *tree = open_tree(db, name);
            check_structure(tree);
            cr_assert_eq(count_all(tree, NULL), 1, "%s", name);
            expect(tree, NULL, name, "its own");
        }
        old = open_tree(db, "old");
        check_structure(old);
        cr_assert_eq(count_all(old, NULL), 1);
        OK(quire_close(db));
    }
}

/* Keys of all sizes up to the largest, which differ at their ends, or are beginnings of one another, in pages of 512 bytes. */
Test(replay, keys_of_all_sizes)
{
    enum { LARGEST = 131072 };
    char *key = malloc(LARGEST);
    cr_assert_not_null(key);
    for (uint64_t seed = 1; seed <= 2; seed++) {
        struct random_stream random;
        struct quire_tree *trees[TREES];
        random_seed(&random, seed);
        shell("rm -rf s");
        struct quire *db = open_copy("s", 0);
        open_trees(db, trees);
        for (unsigned i = 0; i < 400; i++) {
            size_t size = random_chance(&random, 20) ? LARGEST - random_below(&random, 3) : random_below(&random, 20);
            if (random_chance(&random, 10)) size = random_below(&random, 9000);
            memset(key, 'k', size);
            if (size != 0 && random_chance(&random, 70)) key[size - 1] = (char)random_below(&random, 30);
            if (size != 0 && random_chance(&random, 20)) key[random_below(&random, size)] = 'a';
            if (random_chance(&random, 20))
                OK(quire_delete(trees[0], key, size, 0, NULL, NULL));
            else
                OK(quire_put(trees[0], key, size, &i, sizeof(i), 0, NULL));
            OK(quire_put_at(trees[1], 1 + random_below(&random, VERSIONS), key, size, &i, sizeof(i), 0, NULL));
            if (random_below(&random, 150) == 0) OK(qr_db_checkpoint(db, qr_thread_self(db->epoch), random_chance(&random, 50)));
        }
        abandon(db);
        replay_and_compare(64 << 20);
    }
    free(key);
}

static struct quire_tree *other_tree;
static unsigned boundaries;

static void *write_other(void *argument)
{
    put(argument, "key-000050", "between its parts");
    return NULL;
}

/* The writer's slot is open, so another thread writes. */
static void write_between_parts(const char *name, void *argument)
{
    pthread_t thread;
    (void)argument;
    if (strcmp(name, "log.boundary_filled") != 0 || ++boundaries != 60) return;
    cr_assert_eq(pthread_create(&thread, NULL, write_other, other_tree), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
}

/* R6: the record is in its page's image, so of its PARTs, which are much more than the log that is left, some are gone. */
Test(replay, a_large_value_most_of_whose_parts_are_gone)
{
    const size_t size = 4 << 20;
    struct quire_options options = options_of(QUIRE_OPEN_OR_CREATE, QUIRE_LEVEL_PROCESS);
    struct quire *db = NULL;
    char *value = malloc(size);
    cr_assert_not_null(value);
    memset(value, 'v', size);
    options.background_threads = QUIRE_NO_THREADS;
    options.checkpoint_interval_ms = QUIRE_NO_PERIOD;
    options.blob_threshold_bytes = 256 << 20;
    OK(quire_open(path_of("s"), &options, &db));
    struct quire_tree *tree = open_tree(db, "t");
    other_tree = open_tree(db, "other");
    fill(tree, 0, 1000);
    fill(other_tree, 0, 1000);
    OK(quire_checkpoint(db));
    boundaries = 0;
    qr_stop_set_hook(write_between_parts, NULL);
    OK(quire_put(tree, TEXT("key-000050"), value, size, 0, NULL)); /* splits its leaf */
    qr_stop_set_hook(NULL, NULL);
    cr_assert_geq(boundaries, 60u);
    OK(qr_db_checkpoint(db, qr_thread_self(db->epoch), false));
    abandon(db);
    OK(quire_open(path_of("s"), &options, &db));
    tree = open_tree(db, "t");
    size_t got = 0;
    memset(value, 0, size);
    OK(quire_get(tree, NULL, TEXT("key-000050"), value, size, &got));
    cr_assert(got == size && value[0] == 'v' && value[size - 1] == 'v');
    expect(open_tree(db, "other"), NULL, "key-000050", "between its parts");
    check_structure(tree);
    OK(quire_close(db));
    free(value);
}

/* ---- Undecided frames ------------------------------------------------------------------------------------------- */

struct last_frame {
    char file[32];
    uint64_t offset;
    uint32_t state, conditional;
};

static int keep_last(void *context, const struct quire_log_frame *frame)
{
    struct last_frame *last = context;
    if (frame->kind != QUIRE_FRAME_PUT) return 0;
    snprintf(last->file, sizeof(last->file), "%s", frame->file);
    last->offset = frame->offset;
    last->state = frame->state;
    last->conditional = frame->conditional;
    return 0;
}

/* As if the process had died before it decided its last write, which was conditional, and was done or not. */
static void undecide_last(const char *store, uint32_t state)
{
    static const uint8_t tentative = QR_FRAME_TENTATIVE;
    struct last_frame last = {.state = 0};
    char name[64];
    OK(quire_log_each(path_of(store), keep_last, &last));
    cr_assert(last.state == state && last.conditional == 1, "state %u, conditional %u", last.state, last.conditional);
    snprintf(name, sizeof(name), "%s/%s", store, last.file);
    int fd = open(path_of(name), O_WRONLY);
    cr_assert_geq(fd, 0);
    cr_assert_eq(pwrite(fd, &tentative, 1, (off_t)last.offset + 3), 1);
    close(fd);
}

static struct quire_tree *overtaken;

static void *write_and_save(void *argument)
{
    struct quire_tree *tree = argument;
    OK(quire_put(tree, TEXT("k"), TEXT("of another"), 0, NULL));
    OK(quire_checkpoint(tree->db));
    return NULL;
}

/* The writer is in a section, so another thread does it. */
static void overtake(const char *name, void *argument)
{
    pthread_t thread;
    (void)argument;
    if (overtaken == NULL || strcmp(name, "write.prepared") != 0) return;
    struct quire_tree *tree = overtaken;
    overtaken = NULL;
    cr_assert_eq(pthread_create(&thread, NULL, write_and_save, tree), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
}

/* R8: its condition does not hold any more; what shows that is in the leaf's image alone. */
Test(replay, an_undecided_write_that_was_overtaken_before_the_checkpoint)
{
    struct quire *db = open_copy("s", 0);
    struct quire_tree *tree = open_tree(db, "t");
    struct quire_slice expected = slice("before"), desired = slice("after");
    fill(tree, 0, 1000);
    put(tree, "k", "before");
    OK(quire_checkpoint(db));
    put(tree, "l", "gives the leaf room for deltas");
    overtaken = tree;
    qr_stop_set_hook(overtake, NULL);
    EXPECT(quire_compare_and_swap(tree, TEXT("k"), expected.data, expected.size, desired.data, desired.size, 0, NULL),
           QUIRE_CONFLICT);
    qr_stop_set_hook(NULL, NULL);
    cr_assert_null(overtaken);
    abandon(db);
    undecide_last("s", QUIRE_FRAME_VOID);
    for (unsigned round = 0; round < 2; round++) {
        db = open_copy("s", 0);
        cr_assert_eq(stats_of(db).recovery_same_boot, 1);
        expect(open_tree(db, "t"), NULL, "k", "of another");
        abandon(db);
    }
}

/* D-10: others may have seen it. What it replaced is in the image, and the leaf has other records to come. */
Test(replay, an_undecided_write_that_was_done_on_a_leaf_on_disk)
{
    for (unsigned others = 0; others < 2; others++) {
        int64_t sum = 0;
        shell("rm -rf s");
        struct quire *db = open_copy("s", 0);
        struct quire_tree *tree = open_tree(db, "t");
        fill(tree, 0, 1000);
        OK(quire_add(tree, TEXT("sum"), 1, 0, NULL, NULL));
        OK(quire_checkpoint(db));
        if (others != 0) put(tree, "sun", "of the same leaf");
        OK(quire_add(tree, TEXT("sum"), 1, 0, &sum, NULL));
        cr_assert_eq(sum, 2);
        abandon(db);
        undecide_last("s", QUIRE_FRAME_DONE);
        db = open_copy("s", 0);
        OK(quire_add(open_tree(db, "t"), TEXT("sum"), 0, 0, &sum, NULL));
        cr_assert_eq(sum, 2, "with others: %u", others);
        OK(quire_close(db));
    }
}

/* Whether a deletion is still there depends on when the page was consolidated, and not on what was written. */
Test(replay, an_undecided_write_of_a_key_that_was_deleted)
{
    for (unsigned way = 0; way < 4; way++) {
        shell("rm -rf s");
        struct quire *db = open_copy("s", 0);
        struct quire_tree *tree = open_tree(db, "t");
        fill(tree, 0, 10);
        put(tree, "k", "before");
        if ((way & 1) != 0) OK(quire_checkpoint(db));
        OK(quire_delete(tree, TEXT("k"), 0, NULL, NULL));
        if ((way & 2) != 0)
            while (quire_maintain(db) == QUIRE_MORE)
                ;
        OK(quire_insert(tree, TEXT("k"), TEXT("again"), 0, NULL));
        abandon(db);
        undecide_last("s", QUIRE_FRAME_DONE);
        db = open_copy("s", 0);
        expect(open_tree(db, "t"), NULL, "k", "again");
        OK(quire_close(db));
    }
}
