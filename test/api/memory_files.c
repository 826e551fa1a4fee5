/*
 * Goal: at a memory limit a store with files refuses new data and nothing else: reads, deletions and checkpoints go on, and
 * it can be opened again, with the same limit, however it ended.
 * Method: fill to the limit, delete and fill again, with checkpoints in between or not; abandon or close; open; compare with
 * an array of what was stored; empty it.
 *
 * Test program (api).
 */
#include "api_inside.h"


#include <stdio.h>
#include <unistd.h>

#define MOST_KEYS 200000u

static char root[64];
static uint8_t present[MOST_KEYS]; /* the model: whether key i is stored; its value follows from i */
static uint32_t count;
static uint64_t state;
static char value[8000];

static void make_root(void)
{
    snprintf(root, sizeof(root), "/tmp/quire-memory-XXXXXX");
    cr_assert_not_null(mkdtemp(root));
}

static void remove_root(void)
{
    char command[128];
    snprintf(command, sizeof(command), "rm -rf %s", root);
    cr_assert_eq(system(command), 0);
}

TestSuite(memory_files, .init = make_root, .fini = remove_root, .timeout = 240);

/* One way of using a store up to its limit. */
struct course {
    uint64_t limit_mib;
    uint32_t threads;
    uint32_t page_size;
    uint32_t most_value_size;
    bool checkpoints;
    bool close;
};

static uint32_t draw(uint32_t below)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % below;
}

static size_t key_of(uint32_t i, char key[16])
{
    return (size_t)snprintf(key, 16, "k%010u", i * 2654435761u);
}

static size_t value_size_of(const struct course *c, uint32_t i)
{
    return i * 2246822519u % c->most_value_size;
}

static struct quire_tree *open_store(const struct course *c, struct quire **ret_db)
{
    struct quire_options options;
    struct quire_tree_options tree_options;
    struct quire_error_detail detail;
    struct quire_tree *tree = NULL;
    quire_options_init(&options);
    options.memory_limit_bytes = c->limit_mib << 20;
    options.background_threads = c->threads;
    options.level = QUIRE_LEVEL_PROCESS;
    options.checkpoint_interval_ms = QUIRE_NO_PERIOD;
    int result = quire_open(root, &options, ret_db);
    quire_error_detail(&detail);
    cr_assert(result == 0, "open: %s (%s)", quire_strerror(result), detail.message);
    quire_tree_options_init(&tree_options);
    tree_options.leaf_page_size_bytes = c->page_size;
    OK(quire_tree_open(*ret_db, "tree", &tree_options, &tree));
    return tree;
}

/* Puts new keys until one is refused: how many. */
static uint32_t fill_up(struct quire_tree *tree, const struct course *c)
{
    char key[16];
    uint32_t before = count;
    int result = 0;
    while (result == 0) {
        cr_assert_lt(count, MOST_KEYS);
        result = quire_put(tree, key, key_of(count, key), value, value_size_of(c, count), 0, NULL);
        if (result == 0)
            present[count++] = 1;
    }
    cr_assert_eq(result, QUIRE_ERR_NO_MEMORY, "put: %d", result);
    return count - before;
}

static void delete_key(struct quire_tree *tree, uint32_t i)
{
    char key[16];
    int result = quire_delete(tree, key, key_of(i, key), 0, NULL, NULL);
    cr_assert_eq(result, 0, "deletion of %u: %d", i, result);
    present[i] = 0;
}

static void compare(struct quire_tree *tree, const struct course *c)
{
    char key[16];
    for (uint32_t i = 0; i < count; i++) {
        size_t size = 0;
        int result = quire_get(tree, NULL, key, key_of(i, key), value, sizeof(value), &size);
        cr_assert_eq(result, present[i] ? 0 : QUIRE_NOT_FOUND, "key %u: %d", i, result);
        cr_assert(!present[i] || size == value_size_of(c, i), "key %u: %zu bytes", i, size);
    }
}

static void checkpoint(struct quire *db)
{
    struct quire_error_detail detail;
    int result = quire_checkpoint(db);
    quire_error_detail(&detail);
    cr_assert(result == 0, "checkpoint: %s (%s)", quire_strerror(result), detail.message);
}

static void run(struct course c)
{
    struct quire *db = NULL;
    struct quire_tree *tree = open_store(&c, &db);
    memset(present, 0, sizeof(present));
    count = 0;
    state = c.limit_mib + c.page_size + c.most_value_size;
    fill_up(tree, &c);
    for (unsigned round = 0; round < 4; round++) {
        if (c.checkpoints)
            checkpoint(db);
        for (uint32_t i = 0; i < count / 5; i++)
            delete_key(tree, draw(count));
        fill_up(tree, &c);
    }
    compare(tree, &c);
    db->options.no_sync_at_close = !c.close; /* as a killed process ends */
    OK(quire_close(db));

    tree = open_store(&c, &db);
    /* What opening needed more it may have for a while. */
    cr_assert_leq(stats_of(db).memory_bytes, (c.limit_mib << 20) * 3 / 2);
    if (c.checkpoints || c.close) { /* not all of what is on disk has room beside what is in memory: pages do not leave it */
        db->options.no_sync_at_close = 1;
        OK(quire_close(db));
        c.limit_mib *= 4;
        tree = open_store(&c, &db);
    }
    compare(tree, &c);
    check_structure(tree);
    if (!c.checkpoints && !c.close)
        fill_up(tree, &c);
    checkpoint(db);
    for (uint32_t i = 0; i < count; i++)
        delete_key(tree, i);
    settle(db);
    cr_assert_eq(count_all(tree, NULL), 0);
    cr_assert_eq(qr_arena_limit_bytes(db->arena), qr_db_arena_limit(db), "what was lent is not returned");
    checkpoint(db);
    OK(quire_close(db));
    OK(quire_destroy(root));
}

/* H09, for stores with files; A05 */
Test(memory_files, a_full_store_makes_checkpoints_and_opens_again)
{
    static const uint32_t page_sizes[] = {2048, 8192, 32768};
    static const uint32_t value_sizes[] = {300, 1000, 3000};
    for (unsigned i = 0; i < 9; i++) {
        for (unsigned k = 0; k < 4; k++) {
            if (INSTRUMENTED && (i + k) % 4 != 0)
                continue;
            run((struct course){.limit_mib = 4,
                                .threads = k % 2 == 0 ? QUIRE_NO_THREADS : 1,
                                .page_size = page_sizes[i % 3],
                                .most_value_size = value_sizes[i / 3],
                                .checkpoints = k / 2 != 0,
                                .close = (i + k) % 2 != 0});
        }
    }
}

/* H09: a limit that is much too small for the log is told */
Test(memory_files, a_log_that_does_not_fit_is_refused_with_a_reason)
{
    struct course c = {.limit_mib = 16, .threads = QUIRE_NO_THREADS, .page_size = 8192, .most_value_size = 3000};
    struct quire_options options;
    struct quire *db = NULL;
    struct quire_tree *tree = open_store(&c, &db);
    memset(present, 0, sizeof(present));
    count = 0;
    fill_up(tree, &c);
    db->options.no_sync_at_close = 1;
    OK(quire_close(db));
    quire_options_init(&options);
    options.memory_limit_bytes = 4u << 20;
    EXPECT(quire_open(root, &options, &db), QUIRE_ERR_NO_MEMORY);
    expect_detail(QUIRE_ERR_NO_MEMORY, "memory_limit_bytes");
    tree = open_store(&c, &db);
    compare(tree, &c);
    OK(quire_close(db));
}
