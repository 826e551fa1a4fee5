/*
 * Goal: a database with files gives back after opening what was written, keeps others out, and refuses what is not its own.
 * Method: small stores in new directories, closed, abandoned and opened again in all modes; a child that ends without closing;
 * directories of other things compared byte by byte before and after.
 */
#include "api_dir.h"

#include <pthread.h>
#include <sys/wait.h>

TestSuite(persist, .init = make_root, .fini = remove_root);

/* ---- What comes back -------------------------------------------------------------------------------------------- */

#define KEYS 3000u

static void fill_tree(struct quire_tree *tree, uint32_t seed)
{
    char key[32];
    char value[512];
    for (uint32_t i = 0; i < KEYS; i++) {
        uint32_t size = (i * 37 + seed) % 400;
        int key_size = snprintf(key, sizeof(key), "key %05u", i * 7 % KEYS);
        memset(value, (int)('a' + seed % 26), size);
        OK(quire_put(tree, key, (size_t)key_size, value, size, 0, NULL));
    }
    for (uint32_t i = seed % 3; i < KEYS; i += 3) {
        int key_size = snprintf(key, sizeof(key), "key %05u", i);
        OK(quire_delete(tree, key, (size_t)key_size, 0, NULL, NULL));
    }
}

static void check_tree(struct quire_tree *tree, uint32_t seed)
{
    char key[32];
    char value[512];
    size_t size;
    for (uint32_t i = 0; i < KEYS; i++) {
        uint32_t k = i * 7 % KEYS;
        int key_size = snprintf(key, sizeof(key), "key %05u", k);
        int result = quire_get(tree, NULL, key, (size_t)key_size, value, sizeof(value), &size);
        if (k % 3 == seed % 3) {
            EXPECT(result, QUIRE_NOT_FOUND);
            continue;
        }
        OK(result);
        cr_assert_eq(size, (i * 37 + seed) % 400);
        if (size != 0) cr_assert_eq(value[size - 1], (char)('a' + seed % 26));
    }
}

/* A08, A11, F06 */
Test(persist, what_was_written_is_there_after_each_reopening)
{
    for (uint32_t round = 0; round < 8; round++) {
        struct quire *db = open_store("s", QUIRE_OPEN_OR_CREATE);
        struct quire_tree *a = open_tree(db, "a");
        struct quire_tree *b = open_small_tree(db, "b", QUIRE_VERSIONS_ENGINE);
        if (round > 0) {
            check_tree(a, round - 1);
            check_tree(b, round + 9);
        }
        fill_tree(a, round);
        fill_tree(b, round + 10);
        OK(quire_close(db));
    }
}

/* B06, M03: caller versions come back with their order of arrival. */
Test(persist, versions_of_callers_come_back)
{
    struct quire *db = open_store("s", QUIRE_OPEN_OR_CREATE);
    struct quire_tree *tree = open_caller_tree(db, "v");
    OK(quire_put_at(tree, 20, TEXT("k"), TEXT("twenty"), 0, NULL));
    OK(quire_put_at(tree, 10, TEXT("k"), TEXT("ten"), 0, NULL));
    OK(quire_delete_at(tree, 30, TEXT("k"), 0, NULL));
    OK(quire_put_at(tree, 10, TEXT("k"), TEXT("ten again"), 0, NULL));
    OK(quire_close(db));
    for (int again = 0; again < 2; again++) {
        db = open_store("s", QUIRE_OPEN_EXISTING);
        tree = open_caller_tree(db, "v");
        expect_at(tree, 9, "k", NULL);
        expect_at(tree, 10, "k", "ten again");
        expect_at(tree, 25, "k", "twenty");
        expect_at(tree, 31, "k", NULL);
        OK(quire_close(db));
    }
}

/* B15: what the safe version refused is refused after reopening. */
Test(persist, safe_versions_come_back)
{
    struct quire *db = open_store("s", QUIRE_OPEN_OR_CREATE);
    struct quire_tree *tree = open_caller_tree(db, "v");
    struct quire_tree *other = open_caller_tree(db, "w");
    uint64_t safe = 0;
    size_t size;
    char value[16];
    for (uint64_t version = 1; version <= 30; version++)
        OK(quire_put_at(tree, version, TEXT("k"), &version, sizeof(version), 0, NULL));
    OK(quire_set_safe_lsn(tree, 10));
    OK(quire_set_safe_lsn(tree, 20));
    OK(quire_set_safe_lsn(tree, 15)); /* ignored */
    OK(quire_close(db));
    for (uint64_t again = 0; again < 3; again++) {
        db = open_store("s", again == 1 ? QUIRE_OPEN_READ_ONLY : QUIRE_OPEN_EXISTING);
        tree = open_caller_tree(db, "v");
        other = open_caller_tree(db, "w");
        OK(quire_safe_lsn(tree, &safe));
        cr_assert_eq(safe, again == 0 ? 20 : 25);
        OK(quire_safe_lsn(other, &safe));
        cr_assert_eq(safe, 0);
        EXPECT(quire_get_at(tree, 19, TEXT("k"), value, sizeof(value), &size), QUIRE_ERR_LSN_TOO_OLD);
        OK(quire_get_at(tree, 26, TEXT("k"), value, sizeof(value), &size));
        cr_assert_eq(value[0], 26);
        if (again == 1) {
            EXPECT(quire_set_safe_lsn(tree, 40), QUIRE_ERR_READ_ONLY);
        } else {
            EXPECT(quire_put_at(tree, 20, TEXT("k"), TEXT("old"), 0, NULL), QUIRE_ERR_LSN_TOO_OLD);
            OK(quire_put_at(tree, 31, TEXT("l"), TEXT("new"), 0, NULL));
            OK(quire_set_safe_lsn(tree, 25));
        }
        OK(quire_close(db));
    }
}

/* The keys with a value at a version. */
static uint64_t count_all_at(struct quire_tree *tree, uint64_t version)
{
    struct quire_pages_options options;
    struct quire_pages *pages;
    struct quire_page page;
    uint64_t count = 0;
    quire_pages_options_init(&options);
    options.version = version;
    OK(quire_pages_open(tree, &options, &pages));
    while (quire_pages_next(pages, &page) == 0) count += page.count;
    OK(quire_pages_close(pages));
    return count;
}

struct raise {
    struct quire_tree *tree;
    uint64_t version;
};

static void *raise_safe_version(void *argument)
{
    struct raise *raise = argument;
    OK(quire_set_safe_lsn(raise->tree, raise->version));
    return NULL;
}

/*
 * B15, CATALOGUE-2: a write that was accepted while the safe version was being raised (which waits for the disk) is in the log
 * behind the raise. A deletion above it that replay collected too early would uncover it.
 */
Test(persist, writes_beside_a_raise_come_back_as_they_were)
{
    enum { ROUNDS = 30 };
    struct quire_options options = options_of(QUIRE_OPEN_OR_CREATE, QUIRE_LEVEL_DURABLE);
    struct quire_tree_options chained;
    struct quire *db = NULL;
    struct raise raise = {0};
    OK(quire_open(path_of("s"), &options, &db));
    quire_tree_options_init(&chained);
    chained.versions = QUIRE_VERSIONS_CALLER;
    chained.page_chain_length = 1;
    OK(quire_tree_open(db, "v", &chained, &raise.tree));
    for (uint64_t round = 0; round < ROUNDS; round++) {
        pthread_t raiser;
        uint64_t safe = raise.version;
        OK(quire_delete_at(raise.tree, safe + 5, &round, sizeof(round), QUIRE_WRITE_PROCESS, NULL));
        raise.version += 10;
        cr_assert_eq(pthread_create(&raiser, NULL, raise_safe_version, &raise), 0);
        int result;
        do {
            result = quire_put_at(raise.tree, safe + 1, &round, sizeof(round), "x", 1, QUIRE_WRITE_PROCESS, NULL);
        } while (result == 0);
        EXPECT(result, QUIRE_ERR_LSN_TOO_OLD);
        pthread_join(raiser, NULL);
    }
    cr_assert_eq(count_all_at(raise.tree, UINT64_MAX), 0);
    OK(quire_close(db));
    db = open_store("s", QUIRE_OPEN_EXISTING);
    cr_assert_eq(count_all_at(open_caller_tree(db, "v"), UINT64_MAX), 0);
    OK(quire_close(db));
}

Test(persist, conditional_writes_and_counters_come_back)
{
    struct quire *db = open_store("s", QUIRE_OPEN_OR_CREATE);
    struct quire_tree *tree = open_tree(db, "t");
    int64_t sum = 0;
    for (int i = 0; i < 1000; i++) OK(quire_add(tree, TEXT("counter"), i, 0, &sum, NULL));
    OK(quire_insert(tree, TEXT("once"), TEXT("1"), 0, NULL));
    EXPECT(quire_insert(tree, TEXT("once"), TEXT("2"), 0, NULL), QUIRE_EXISTS);
    OK(quire_compare_and_swap(tree, TEXT("once"), TEXT("1"), TEXT("3"), 0, NULL));
    OK(quire_close(db));
    db = open_store("s", QUIRE_OPEN_EXISTING);
    tree = open_tree(db, "t");
    expect(tree, NULL, "once", "3");
    OK(quire_add(tree, TEXT("counter"), 0, 0, &sum, NULL));
    cr_assert_eq(sum, 999 * 1000 / 2);
    OK(quire_close(db));
}

Test(persist, large_keys_and_values_come_back)
{
    struct quire_limits limits;
    quire_limits(&limits);
    size_t sizes[][2] = {{0, 0}, {1, 200000}, {limits.max_key_size, 0}, {limits.max_key_size, 3000000}, {60000, 60000}};
    char *bytes = malloc(4000000);
    char *got = malloc(4000000);
    for (size_t i = 0; i < 4000000; i++) bytes[i] = (char)(i * 2654435761u >> 13);
    struct quire *db = open_store("s", QUIRE_OPEN_OR_CREATE);
    struct quire_tree *tree = open_tree(db, "t");
    for (unsigned i = 0; i < 5; i++) OK(quire_put(tree, bytes + i, sizes[i][0], bytes, sizes[i][1], 0, NULL));
    OK(quire_close(db));
    db = open_store("s", QUIRE_OPEN_EXISTING);
    tree = open_tree(db, "t");
    for (unsigned i = 0; i < 5; i++) {
        size_t size;
        OK(quire_get(tree, NULL, bytes + i, sizes[i][0], got, 4000000, &size));
        cr_assert_eq(size, sizes[i][1]);
        cr_assert_eq(memcmp(got, bytes, size), 0);
    }
    OK(quire_close(db));
    free(bytes);
    free(got);
}

/* M12, F07: what was acknowledged at PROCESS survives a process that just ends. */
Test(persist, a_process_that_ends_without_closing_loses_nothing)
{
    for (uint32_t buffered = 0; buffered < 2; buffered++) { /* before this process uses Quire itself */
        const char *name = buffered ? "b" : "m";
        pid_t child = fork();
        if (child == 0) {
            struct quire_options options = options_of(0, QUIRE_LEVEL_PROCESS);
            struct quire *db = NULL;
            struct quire_tree *tree = NULL;
            options.log_buffered = buffered;
            options.sync_period_ms = QUIRE_NO_PERIOD;
            if (quire_open(path_of(name), &options, &db) != 0 || quire_tree_open(db, "t", NULL, &tree) != 0) _exit(1);
            fill_tree(tree, 5);
            _exit(0);
        }
        int status = 0;
        waitpid(child, &status, 0);
        cr_assert_eq(status, 0);
    }
    for (uint32_t buffered = 0; buffered < 2; buffered++) {
        const char *name = buffered ? "b" : "m";
        struct quire *db = open_store(name, QUIRE_OPEN_EXISTING);
        check_tree(open_tree(db, "t"), 5);
        OK(quire_close(db));
    }
}

Test(persist, opening_and_closing_many_times_does_not_grow_the_store)
{
    char command[256];
    struct quire *db = open_store("s", QUIRE_OPEN_OR_CREATE);
    put(open_tree(db, "t"), "k", "v");
    OK(quire_close(db));
    for (int i = 0; i < 300; i++) OK(try_open("s", QUIRE_OPEN_EXISTING));
    db = open_store("s", QUIRE_OPEN_EXISTING);
    expect(open_tree(db, "t"), NULL, "k", "v");
    OK(quire_close(db));
    snprintf(command, sizeof(command), "test $(du -sk %s | cut -f1) -lt 1024", path_of("s"));
    cr_assert_eq(system(command), 0, "more than a mebibyte");
}

static int count_incarnations(void *context, const struct quire_manifest_record *record)
{
    uint32_t *count = context;
    *count += strcmp(record->name, "incarnation") == 0;
    return 0;
}

/* Each opening has a record in the manifest, which is needed as long as its log is. */
Test(persist, ends_without_a_checkpoint_may_follow_one_another_for_ever)
{
    struct quire_options options;
    uint32_t incarnations = 0;
    char value[16];
    quire_options_init(&options);
    options.background_threads = QUIRE_NO_THREADS;
    options.checkpoint_interval_ms = QUIRE_NO_PERIOD;
    options.no_sync_at_close = 1;
    options.level = QUIRE_LEVEL_PROCESS;
    options.log_segment_bytes = 65536;
    for (int i = 0; i < 600; i++) {
        struct quire *db = NULL;
        OK(quire_open(path_of("s"), &options, &db));
        if (i != 0) expect(open_tree(db, "t"), NULL, "k", value);
        snprintf(value, sizeof(value), "%d", i);
        put(open_tree(db, "t"), "k", value);
        OK(quire_close(db));
    }
    OK(quire_manifest_each(path_of("s"), count_incarnations, &incarnations));
    cr_assert(incarnations > 50 && incarnations < 300, "%u incarnations", incarnations);
}

/* ---- The shape of a tree ---------------------------------------------------------------------------------------- */

enum { SHAPE_LEAVES = 8192 };
struct shape {
    uint64_t leaves, height, records;
    uint32_t counts[SHAPE_LEAVES];
    uint64_t firsts[SHAPE_LEAVES]; /* the numbers of the first keys */
};

static void take_shape(struct quire *db, struct quire_tree *tree, struct shape *shape)
{
    struct quire_pages *pages;
    struct quire_page page;
    memset(shape, 0, sizeof(*shape));
    OK(quire_pages_open(tree, NULL, &pages));
    while (quire_pages_next(pages, &page) == 0) {
        cr_assert_lt(shape->leaves, (uint64_t)SHAPE_LEAVES);
        shape->counts[shape->leaves] = (uint32_t)page.count;
        shape->firsts[shape->leaves++] = strtoull((const char *)page.entries[0].key + 4, NULL, 10);
        shape->records += page.count;
    }
    OK(quire_pages_close(pages));
    shape->height = stats_of(db).height_max;
}

/* Grows, changes and shrinks; the same for the same number. */
static void change(struct quire_tree *tree, uint64_t number)
{
    static char value[120];
    char key[16];
    uint64_t draw = number * 6364136223846793005u + 1442695040888963407u;
    size_t size = numbered((draw >> 33) % 6000, key);
    bool shrinks = number / 12000 % 2 == 1;
    if ((draw >> 20) % 10 < (shrinks ? 8u : 2u))
        OK(quire_delete(tree, key, size, 0, NULL, NULL));
    else
        OK(quire_put(tree, key, size, value, (draw >> 25) % sizeof(value), 0, NULL));
}

/*
 * M07: when to split and to merge follows from a page's bytes and the tree's settings, which are in the files; nothing else is
 * remembered. So the same operations with the same reopenings give the same pages. With other reopenings they do not: a page
 * that was flushed and read again has no chain and none of the records that are dead, and splits later than one that has;
 * replay does not merge (R4). The contents are the same, and the number of pages is near.
 */
Test(persist, the_shape_of_a_tree_follows_from_operations_and_reopenings)
{
    static struct shape shapes[3];
    for (unsigned again = 0; again < 3; again++) {
        static const char *const names[] = {"open", "reopened", "the same"};
        const char *name = names[again];
        struct quire_options options = options_of(0, QUIRE_LEVEL_PROCESS);
        struct quire *db = NULL;
        options.background_threads = QUIRE_NO_THREADS;
        OK(quire_open(path_of(name), &options, &db));
        struct quire_tree *tree = open_small_tree(db, "t", QUIRE_VERSIONS_ENGINE);
        for (uint64_t i = 0; i < 30000; i++) {
            change(tree, i);
            if (again == 0 || i % 5000 != 4999) continue;
            options.no_sync_at_close = i / 5000 % 2; /* from the log, or from pages */
            OK(quire_close(db));
            OK(quire_open(path_of(name), &options, &db));
            tree = open_small_tree(db, "t", QUIRE_VERSIONS_ENGINE);
        }
        settle(db);
        take_shape(db, tree, &shapes[again]);
        OK(quire_close(db));
    }
    cr_assert_eq(memcmp(&shapes[1], &shapes[2], sizeof(shapes[1])), 0, "%d and %d leaves", (int)shapes[1].leaves,
                 (int)shapes[2].leaves);
    cr_assert_gt(shapes[0].leaves, 1000);
    cr_assert(shapes[1].leaves * 4 > shapes[0].leaves * 3 && shapes[1].leaves * 4 < shapes[0].leaves * 5, "%d and %d leaves",
              (int)shapes[0].leaves, (int)shapes[1].leaves);
    cr_assert(shapes[1].height + 1 >= shapes[0].height && shapes[1].height <= shapes[0].height + 1);
    cr_assert_eq(shapes[0].records, shapes[1].records);
}

/* ---- Durability ------------------------------------------------------------------------------------------------- */

/* B31, F01, E30 */
Test(persist, durable_lsns_follow_the_level_of_the_call)
{
    struct quire_options options = options_of(0, 0);
    struct quire *db = NULL;
    uint64_t lsn, durable, last;
    options.sync_period_ms = QUIRE_NO_PERIOD;
    OK(quire_open(path_of("s"), &options, &db));
    struct quire_tree *tree = open_tree(db, "t");
    OK(quire_put(tree, TEXT("a"), TEXT("1"), 0, &lsn));
    OK(quire_durable_lsn(db, &durable));
    cr_assert_geq(durable, lsn, "DURABLE is the default");
    OK(quire_put(tree, TEXT("b"), TEXT("1"), QUIRE_WRITE_PROCESS, &lsn));
    OK(quire_durable_lsn(db, &durable));
    cr_assert_lt(durable, lsn);
    OK(quire_last_lsn(db, &last));
    cr_assert_eq(last, lsn);
    OK(quire_wait_durable(db, lsn));
    OK(quire_durable_lsn(db, &durable));
    cr_assert_geq(durable, lsn);
    uint64_t next = stats_of(db).log_tail_lsn;
    OK(quire_wait_durable(db, next - 1)); /* no write has it, and all below are durable */
    EXPECT(quire_wait_durable(db, next), QUIRE_ERR_INVALID);
    expect_detail(QUIRE_ERR_INVALID, "has not reached");
    EXPECT(quire_wait_durable(db, lsn + 1000), QUIRE_ERR_INVALID);
    OK(quire_put(tree, TEXT("c"), TEXT("1"), QUIRE_WRITE_PROCESS, &lsn));
    OK(quire_sync(db));
    OK(quire_durable_lsn(db, &durable));
    cr_assert_geq(durable, lsn);
    OK(quire_put(tree, TEXT("d"), TEXT("1"), QUIRE_WRITE_DURABLE, &lsn));
    EXPECT(quire_put(tree, TEXT("d"), TEXT("1"), 3, &lsn), QUIRE_ERR_INVALID);
    OK(quire_close(db));
}

/* F03, F05 */
Test(persist, a_period_makes_writes_durable)
{
    struct quire_options options = options_of(0, QUIRE_LEVEL_PROCESS);
    struct quire *db = NULL;
    uint64_t lsn, durable = 0;
    options.sync_period_ms = 20;
    OK(quire_open(path_of("s"), &options, &db));
    OK(quire_put(open_tree(db, "t"), TEXT("a"), TEXT("1"), 0, &lsn));
    for (int i = 0; i < 1000 && durable < lsn; i++) {
        usleep(5000);
        OK(quire_durable_lsn(db, &durable));
    }
    cr_assert_geq(durable, lsn);
    OK(quire_close(db));
}

/* F04 */
Test(persist, a_volume_makes_writes_durable)
{
    struct quire_options options = options_of(0, QUIRE_LEVEL_PROCESS);
    struct quire *db = NULL;
    uint64_t lsn, durable = 0;
    char value[1000] = "";
    options.sync_period_ms = QUIRE_NO_PERIOD;
    options.sync_volume_bytes = 100000;
    OK(quire_open(path_of("s"), &options, &db));
    struct quire_tree *tree = open_tree(db, "t");
    for (int i = 0; i < 300; i++) OK(quire_put(tree, &i, sizeof(i), value, sizeof(value), 0, &lsn));
    for (int i = 0; i < 1000 && durable + 100000 < lsn; i++) {
        usleep(5000);
        OK(quire_durable_lsn(db, &durable));
    }
    cr_assert_geq(durable + 100000, lsn);
    OK(quire_close(db));
}

/* ---- Modes ------------------------------------------------------------------------------------------------------ */

/* A01-A03 */
Test(persist, modes_say_whether_a_store_must_be_there)
{
    struct stat facts;
    EXPECT(try_open("s", QUIRE_OPEN_EXISTING), QUIRE_NOT_FOUND);
    EXPECT(try_open("s", QUIRE_OPEN_READ_ONLY), QUIRE_NOT_FOUND);
    cr_assert_neq(stat(path_of("s"), &facts), 0, "something was created");
    OK(try_open("s", QUIRE_CREATE_NEW));
    uint64_t before = digest("s");
    EXPECT(try_open("s", QUIRE_CREATE_NEW), QUIRE_EXISTS);
    cr_assert_eq(digest("s"), before);
    OK(try_open("s", QUIRE_OPEN_EXISTING));
    OK(try_open("s", QUIRE_OPEN_OR_CREATE));
    OK(try_open("s", QUIRE_OPEN_READ_ONLY));
    cr_assert_eq(mkdir(path_of("empty"), 0700), 0);
    EXPECT(try_open("empty", QUIRE_OPEN_EXISTING), QUIRE_NOT_FOUND);
    OK(try_open("empty", QUIRE_OPEN_OR_CREATE));
    EXPECT(try_open("no/such", QUIRE_OPEN_OR_CREATE), QUIRE_ERR_IO);
}

/* A04, M13 */
Test(persist, what_is_not_ours_is_refused_and_not_touched)
{
    char command[512];
    snprintf(command, sizeof(command),
             "cd %s && mkdir d1 d2 d3 d4 && echo hello > d1/manifest && echo hello > d2/notes && "
             "head -c 65536 /dev/urandom > d3/manifest && truncate -s 64K d4/manifest && echo text > file && "
             "ln -s d2 link && mkfifo fifo && truncate -s 64M zeros && : > nothing",
             root);
    cr_assert_eq(system(command), 0);
    for (uint32_t mode = 0; mode <= QUIRE_OPEN_READ_ONLY; mode++) {
        static const char *const names[] = {"d1", "d2", "d3", "d4", "link"};
        for (unsigned i = 0; i < 5; i++) {
            uint64_t before = digest(names[i]);
            int result = try_open(names[i], mode);
            cr_assert(result == QUIRE_ERR_FOREIGN || (mode == QUIRE_CREATE_NEW && result == QUIRE_EXISTS), "%s: %d",
                      names[i], result);
            cr_assert_eq(digest(names[i]), before, "%s was touched", names[i]);
        }
        EXPECT(try_open("file", mode), QUIRE_ERR_FOREIGN);
        EXPECT(try_open("fifo", mode), QUIRE_ERR_FOREIGN);
        EXPECT(try_open("zeros", mode), QUIRE_ERR_FOREIGN);
        EXPECT(try_open("nothing", mode), QUIRE_ERR_FOREIGN);
    }
    shell("test $(stat -c %s zeros) -eq 67108864 && cmp -n 67108864 zeros /dev/zero && test ! -s nothing");
}

/* A26: a store is a directory. An empty one becomes a store, one with what a crash left of a beginning too; a file does not,
 * whatever is in it. */
Test(persist, an_empty_directory_becomes_a_store)
{
    cr_assert_eq(mkdir(path_of("empty"), 0700), 0);
    shell("mkdir begun && truncate -s 512 begun/manifest.new && echo 1 > begun/lock");
    static const char *const names[] = {"empty", "begun"};
    for (unsigned i = 0; i < 2; i++) {
        EXPECT(try_open(names[i], QUIRE_OPEN_EXISTING), QUIRE_NOT_FOUND);
        struct quire *db = open_store(names[i], QUIRE_CREATE_NEW);
        put(open_tree(db, "t"), "k", "v");
        OK(quire_close(db));
        db = open_store(names[i], QUIRE_OPEN_EXISTING);
        expect(open_tree(db, "t"), NULL, "k", "v");
        OK(quire_close(db));
    }
}

/* A05, M10 */
Test(persist, one_process_has_a_store_for_writing)
{
    int ready[2];
    char word = 0;
    cr_assert_eq(pipe(ready), 0);
    pid_t child = fork(); /* before this process has used Quire, so both may */
    if (child == 0) {
        struct quire *db = NULL;
        struct quire_options options = options_of(QUIRE_OPEN_OR_CREATE, QUIRE_LEVEL_PROCESS);
        word = quire_open(path_of("s"), &options, &db) == 0 ? 'o' : 'f';
        if (write(ready[1], &word, 1) == 1) pause();
        _exit(1);
    }
    cr_assert_eq(read(ready[0], &word, 1), 1);
    cr_assert_eq(word, 'o');
    close(ready[0]);
    close(ready[1]);
    EXPECT(try_open("s", QUIRE_OPEN_OR_CREATE), QUIRE_ERR_BUSY);
    EXPECT(try_open("s", QUIRE_OPEN_READ_ONLY), QUIRE_ERR_BUSY);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    struct quire *db = open_store("s", QUIRE_OPEN_EXISTING);
    EXPECT(try_open("s", QUIRE_OPEN_OR_CREATE), QUIRE_ERR_BUSY);
    EXPECT(try_open("s", QUIRE_OPEN_READ_ONLY), QUIRE_ERR_BUSY);
    OK(quire_close(db));
}

/* By another process that was there before this one used Quire; what it answers, negated. */
static pid_t opened_elsewhere(const char *path)
{
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        struct quire *db = NULL;
        raise(SIGSTOP);
        _exit(-quire_open(path, NULL, &db));
    }
    cr_assert_eq(waitpid(child, &status, WUNTRACED), child);
    return child;
}

static int answer_of(pid_t child)
{
    int status = 0;
    kill(child, SIGCONT);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status));
    return -WEXITSTATUS(status);
}

Test(persist, removing_the_lock_file_of_an_open_store_lets_nobody_in)
{
    char path[300];
    snprintf(path, sizeof(path), "%s", path_of("s"));
    pid_t other = opened_elsewhere(path), later = opened_elsewhere(path);
    struct quire *db = open_store("s", QUIRE_OPEN_OR_CREATE);
    put(open_tree(db, "t"), "k", "v");
    shell("rm s/lock");
    EXPECT(answer_of(other), QUIRE_ERR_BUSY);
    EXPECT(try_open("s", QUIRE_OPEN_OR_CREATE), QUIRE_ERR_BUSY);
    EXPECT(try_open("s", QUIRE_OPEN_READ_ONLY), QUIRE_ERR_BUSY);
    EXPECT(quire_destroy(path), QUIRE_ERR_BUSY);
    shell("test ! -e s/lock && touch s/lock"); /* nobody who was refused has made one */
    EXPECT(try_open("s", QUIRE_OPEN_OR_CREATE), QUIRE_ERR_BUSY);
    OK(quire_close(db));
    EXPECT(answer_of(later), 0);
    db = open_store("s", QUIRE_OPEN_EXISTING);
    expect(open_tree(db, "t"), NULL, "k", "v");
    OK(quire_close(db));
}

static int seen;

static int try_to_write_beside(void *context, const struct quire_manifest_record *record)
{
    (void)context;
    (void)record;
    seen = try_open("s", QUIRE_OPEN_OR_CREATE);
    return 1;
}

Test(persist, who_reads_a_store_without_a_lock_file_keeps_writers_out)
{
    pid_t other = opened_elsewhere(path_of("s"));
    OK(quire_close(open_store("s", QUIRE_OPEN_OR_CREATE)));
    shell("rm s/lock");
    struct quire *a = open_store("s", QUIRE_OPEN_READ_ONLY), *b = open_store("s", QUIRE_OPEN_READ_ONLY);
    EXPECT(answer_of(other), QUIRE_ERR_BUSY);
    OK(quire_close(a));
    EXPECT(try_open("s", QUIRE_OPEN_EXISTING), QUIRE_ERR_BUSY);
    OK(quire_close(b));
    EXPECT(quire_manifest_each(path_of("s"), try_to_write_beside, NULL), 1);
    EXPECT(seen, QUIRE_ERR_BUSY);
    shell("test ! -e s/lock");
    OK(quire_close(open_store("s", QUIRE_OPEN_EXISTING)));
}

Test(persist, several_read_at_once_and_write_nothing)
{
    struct quire *db = open_store("s", QUIRE_OPEN_OR_CREATE);
    put(open_tree(db, "t"), "k", "v");
    OK(quire_close(db));
    uint64_t before = digest("s");
    struct quire *a = open_store("s", QUIRE_OPEN_READ_ONLY);
    struct quire *b = open_store("s", QUIRE_OPEN_READ_ONLY);
    EXPECT(try_open("s", QUIRE_OPEN_EXISTING), QUIRE_ERR_BUSY);
    struct quire_tree *tree = open_tree(a, "t");
    struct quire_tree *none = NULL;
    expect(tree, NULL, "k", "v");
    expect(open_tree(b, "t"), NULL, "k", "v");
    EXPECT(quire_put(tree, TEXT("k"), TEXT("w"), 0, NULL), QUIRE_ERR_READ_ONLY);
    EXPECT(quire_delete(tree, TEXT("k"), 0, NULL, NULL), QUIRE_ERR_READ_ONLY);
    EXPECT(quire_tree_open(a, "new", NULL, &none), QUIRE_ERR_READ_ONLY);
    OK(quire_sync(a));
    OK(quire_close(a));
    OK(quire_close(b));
    cr_assert_eq(digest("s"), before);
}

Test(persist, options_of_files_need_files_and_sense)
{
    struct quire_options options;
    struct quire *db = NULL;
    struct quire_error_detail detail;
#define REFUSE(path, field, value)                                                                                     \
    do {                                                                                                               \
        quire_options_init(&options);                                                                                  \
        options.field = (value);                                                                                       \
        EXPECT(quire_open(path, &options, &db), QUIRE_ERR_INVALID);                                                    \
        quire_error_detail(&detail);                                                                                   \
        cr_assert(strstr(detail.message, #field) != NULL, "%s", detail.message);                                       \
    } while (0)
    REFUSE(NULL, open_mode, 1);
    REFUSE(NULL, level, 1);
    REFUSE(NULL, sync_period_ms, 1);
    REFUSE(NULL, disable_ring, 1);
    REFUSE(NULL, sync_volume_bytes, 1);
    REFUSE(NULL, log_segment_bytes, 65536);
    REFUSE(NULL, log_buffered, 1);
    REFUSE(NULL, no_sync_at_close, 1);
    REFUSE(NULL, recovery_context, &db);
    const char *path = path_of("s");
    REFUSE(path, open_mode, 5);
    REFUSE(path, level, 3);
    REFUSE(path, sync_period_ms, 3600001);
    REFUSE(path, disable_ring, 2);
    REFUSE(path, log_segment_bytes, 8192);
    REFUSE(path, log_segment_bytes, 100000);
    REFUSE(path, log_segment_bytes, (uint64_t)2 << 30);
    REFUSE(path, log_buffered, 2);
    REFUSE(path, no_sync_at_close, 2);
}

/* ---- Recovery --------------------------------------------------------------------------------------------------- */

static int count_progress(void *context, uint64_t done, uint64_t all)
{
    unsigned *calls = context;
    cr_assert_leq(done, all);
    return ++*calls == 1;
}

Test(persist, the_progress_of_recovery_is_told_and_can_end_it)
{
    struct quire_options options = options_of(QUIRE_OPEN_OR_CREATE, 0);
    struct quire *db = NULL;
    unsigned calls = 0;
    options.no_sync_at_close = 1; /* nor a checkpoint: the log is read */
    OK(quire_open(path_of("s"), &options, &db));
    fill_tree(open_tree(db, "t"), 1);
    OK(quire_close(db));
    options.open_mode = QUIRE_OPEN_EXISTING;
    options.recovery_progress = count_progress;
    options.recovery_context = &calls;
    EXPECT(quire_open(path_of("s"), &options, &db), QUIRE_ERR_BUSY);
    cr_assert_eq(calls, 1);
    OK(quire_open(path_of("s"), &options, &db)); /* does not end it again */
    check_tree(open_tree(db, "t"), 1);
    OK(quire_close(db));
}

/* J10 */
Test(persist, a_copied_directory_opens_beside_the_original)
{
    char command[300];
    struct quire *db = open_store("s", QUIRE_OPEN_OR_CREATE);
    fill_tree(open_tree(db, "t"), 2);
    OK(quire_close(db));
    snprintf(command, sizeof(command), "cd %s && cp -r s copy && cp -r s bare && rm bare/lock", root);
    cr_assert_eq(system(command), 0);
    db = open_store("s", QUIRE_OPEN_EXISTING);
    struct quire *copy = open_store("copy", QUIRE_OPEN_EXISTING);
    check_tree(open_tree(db, "t"), 2);
    check_tree(open_tree(copy, "t"), 2);
    struct quire *bare = open_store("bare", QUIRE_OPEN_EXISTING);
    check_tree(open_tree(bare, "t"), 2);
    OK(quire_close(bare));
    OK(quire_close(copy));
    OK(quire_close(db));
}
