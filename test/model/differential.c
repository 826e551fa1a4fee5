/*
 * Goal: Quire answers as SQLite and LMDB do.
 * Method: rounds of random operations on a tree and on tables of the peers: put, delete, insert, compare-and-swap, add, get, scans
 * from bounds in both directions, all of it also at a snapshot; checkpoints, and closing and opening again all of them. Each answer
 * of all has to be the same, and each round ends with a comparison of everything. A round draws the size of pages, memory or files,
 * the shape of keys (empty, binary, with common prefixes, of many lengths, long where the peers take them), sizes of values.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "lib/check.h"
#include "lib/keys.h"
#include "lib/options.h"
#include "model/peer.h"

#define PEERS_MOST 2
#define VALUE_MOST 150000
#define SCAN_MOST 60

static const char *which = "both", *place = "/tmp";
static uint64_t ops = 60000, seed, round_ops = 20000;

/* ---- The stores ------------------------------------------------------------------------------------------------- */

struct world {
    struct random_stream random;
    char directory[4096];
    const struct peer_ops *peers[PEERS_MOST];
    struct peer *handles[PEERS_MOST];
    uint32_t peer_count;

    struct quire_options options;
    struct quire_tree_options tree_options;
    bool files;
    struct quire *db;
    struct quire_tree *tree;
    struct quire_snapshot *snapshot;

    uint32_t shape; /* of keys; KEY_SHAPE_COUNT: mixed */
    uint64_t keys;
    uint32_t value_most;
    uint64_t written, number; /* of the operation */
    uint8_t key[KEY_MAX_BYTES], bounds[2][KEY_MAX_BYTES], value[VALUE_MOST], got[VALUE_MOST];
};

void peer_fail(const char *what, const char *why)
{
    fprintf(stderr, "a peer failed: %s: %s\n", what, why == NULL ? "" : why);
    exit(2);
}

int peer_compare(struct quire_slice a, struct quire_slice b)
{
    return qr_compare(a.data, a.size, b.data, b.size);
}

/* The first difference ends the program: later ones would follow from it. */
static void expect(const struct world *w, bool right, const char *peer, const char *what)
{
    if (right) {
        check_pass();
        return;
    }
    fprintf(stderr, "operation %" PRIu64 ": %s differs from %s; again: --peer %s --ops %" PRIu64 " --round-ops %" PRIu64
                    " --seed %" PRIu64 "; the files are in %s\n",
            w->number, what, peer, which, ops, round_ops, seed, w->directory);
    exit(1);
}

static void expect_done(const struct world *w, int result, const char *what)
{
    struct quire_error_detail detail;
    if (result == 0)
        return;
    quire_error_detail(&detail);
    fprintf(stderr, "%s: %s: %s\n", what, quire_strerror(result), detail.message);
    expect(w, false, "what is possible", what);
}

static void open_quire(struct world *w)
{
    char path[4200];
    snprintf(path, sizeof(path), "%s/quire", w->directory);
    expect_done(w, quire_open(w->files ? path : NULL, &w->options, &w->db), "open");
    expect_done(w, quire_tree_open(w->db, "t", &w->tree_options, &w->tree), "tree");
}

static void release_snapshot(struct world *w)
{
    if (w->snapshot == NULL)
        return;
    expect_done(w, quire_snapshot_release(w->snapshot), "release");
    w->snapshot = NULL;
    for (uint32_t i = 0; i < w->peer_count; i++)
        w->peers[i]->release(w->handles[i]);
}

static void take_snapshot(struct world *w)
{
    release_snapshot(w);
    expect_done(w, quire_snapshot(w->db, "differential", &w->snapshot), "snapshot");
    for (uint32_t i = 0; i < w->peer_count; i++)
        w->peers[i]->take(w->handles[i]);
}

static void reopen(struct world *w)
{
    release_snapshot(w);
    if (w->files) {
        expect_done(w, quire_close(w->db), "close");
        w->options.log_buffered = (uint32_t)random_below(&w->random, 2);
        open_quire(w);
    }
    for (uint32_t i = 0; i < w->peer_count; i++) {
        w->peers[i]->close(w->handles[i]);
        w->handles[i] = w->peers[i]->open(w->directory);
    }
}

static void checkpoint(struct world *w)
{
    expect_done(w, quire_checkpoint(w->db), "checkpoint");
    for (uint32_t i = 0; i < w->peer_count; i++)
        w->peers[i]->checkpoint(w->handles[i]);
}

/* ---- Keys and values -------------------------------------------------------------------------------------------- */

static struct quire_slice draw_key(struct world *w, uint8_t *to)
{
    uint64_t index = random_below(&w->random, w->keys);
    size_t size = w->shape == KEY_SHAPE_COUNT ? key_make_mixed(index, false, to) : key_make((enum key_shape)w->shape, index, to);
    for (uint32_t i = 0; i < w->peer_count; i++)
        size = qr_min(size, w->peers[i]->most_key_bytes);
    return (struct quire_slice){to, size};
}

static struct quire_slice draw_value(struct world *w, uint8_t *to)
{
    uint64_t most = random_chance(&w->random, 5) ? w->value_most : qr_min(w->value_most, 120);
    size_t size = random_chance(&w->random, 10) ? 0 : random_chance(&w->random, 15) ? 8 : random_below(&w->random, most + 1);
    value_make(++w->written, to, size);
    return (struct quire_slice){to, size};
}

static bool equal(struct quire_slice a, struct quire_slice b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

/* What Quire has; false: nothing. */
static bool read_quire(struct world *w, struct quire_snapshot *snapshot, struct quire_slice key, struct quire_slice *ret_value)
{
    size_t size = 0;
    int result = quire_get(w->tree, snapshot, key.data, key.size, w->got, sizeof(w->got), &size);
    if (result != QUIRE_NOT_FOUND)
        expect_done(w, result, "get");
    *ret_value = (struct quire_slice){w->got, size};
    return result == 0;
}

/* ---- Writes ----------------------------------------------------------------------------------------------------- */

static void put_to_peers(struct world *w, struct quire_slice key, struct quire_slice value)
{
    for (uint32_t i = 0; i < w->peer_count; i++)
        w->peers[i]->put(w->handles[i], key, value);
}

static void do_put(struct world *w)
{
    struct quire_slice key = draw_key(w, w->key), value = draw_value(w, w->value);
    expect_done(w, quire_put(w->tree, key.data, key.size, value.data, value.size, 0, NULL), "put");
    put_to_peers(w, key, value);
}

static void do_delete(struct world *w)
{
    struct quire_slice key = draw_key(w, w->key);
    int existed = 0;
    expect_done(w, quire_delete(w->tree, key.data, key.size, 0, &existed, NULL), "delete");
    for (uint32_t i = 0; i < w->peer_count; i++)
        expect(w, w->peers[i]->delete(w->handles[i], key) == (existed != 0), w->peers[i]->name, "whether the key was there to delete");
}

static void do_insert(struct world *w)
{
    struct quire_slice key = draw_key(w, w->key), value = draw_value(w, w->value);
    int result = quire_insert(w->tree, key.data, key.size, value.data, value.size, 0, NULL);
    if (result != QUIRE_EXISTS)
        expect_done(w, result, "insert");
    for (uint32_t i = 0; i < w->peer_count; i++)
        expect(w, w->peers[i]->insert(w->handles[i], key, value) == (result == 0), w->peers[i]->name, "insert");
}

/* The peers have no such call: what it has to answer follows from what they have. */
static void do_swap(struct world *w)
{
    static uint8_t other[VALUE_MOST];
    struct quire_slice key = draw_key(w, w->key), value = draw_value(w, w->value), expected = draw_value(w, other), present;
    bool there = w->peers[0]->get(w->handles[0], false, key, &present);
    if (there && random_chance(&w->random, 70)) {
        qr_copy(other, present.data, present.size);
        expected.size = present.size;
    }
    int right = !there ? QUIRE_NOT_FOUND : equal(present, expected) ? 0 : QUIRE_CONFLICT;
    int result = quire_compare_and_swap(w->tree, key.data, key.size, expected.data, expected.size, value.data, value.size, 0, NULL);
    expect(w, result == right, w->peers[0]->name, "compare-and-swap");
    if (result == 0)
        put_to_peers(w, key, value);
}

static void do_add(struct world *w)
{
    struct quire_slice key = draw_key(w, w->key), present = {0};
    int64_t delta = (int64_t)random_below(&w->random, 2000) - 1000, before = 0, sum = 0, after = 0;
    bool there = w->peers[0]->get(w->handles[0], false, key, &present);
    if (there && present.size == 8)
        memcpy(&before, present.data, 8);
    int right = there && present.size != 8 ? QUIRE_ERR_WRONG_TYPE
                                           : __builtin_add_overflow(before, delta, &sum) ? QUIRE_ERR_OVERFLOW : 0;
    int result = quire_add(w->tree, key.data, key.size, delta, 0, &after, NULL);
    expect(w, result == right && (result != 0 || after == sum), w->peers[0]->name, "add");
    if (result == 0)
        put_to_peers(w, key, (struct quire_slice){&sum, 8});
}

/* ---- Reads ------------------------------------------------------------------------------------------------------ */

static void do_get(struct world *w)
{
    struct quire_slice key = draw_key(w, w->key), mine, theirs;
    bool then = w->snapshot != NULL && random_chance(&w->random, 50);
    bool there = read_quire(w, then ? w->snapshot : NULL, key, &mine);
    for (uint32_t i = 0; i < w->peer_count; i++) {
        bool same = w->peers[i]->get(w->handles[i], then, key, &theirs) == there;
        expect(w, same && (!there || equal(mine, theirs)), w->peers[i]->name, then ? "a value at the snapshot" : "a value");
    }
}

/* What Quire's iterator has to show next. */
struct scan {
    struct world *world;
    const char *peer;
    struct quire_pages *pages;
    struct quire_page page;
    size_t next;
    bool ended;
    uint64_t left;
};

static bool next_entry(struct scan *scan)
{
    if (scan->ended || (scan->page.count != 0 && ++scan->next < scan->page.count))
        return !scan->ended;
    int result = quire_pages_next(scan->pages, &scan->page);
    scan->next = 0;
    scan->ended = result == QUIRE_END;
    if (!scan->ended)
        expect_done(scan->world, result, "pages");
    return !scan->ended;
}

static bool visit(void *context, struct quire_slice key, struct quire_slice value)
{
    struct scan *scan = context;
    expect(scan->world, next_entry(scan), scan->peer, "the end of a scan");
    const struct quire_entry *entry = &scan->page.entries[scan->next];
    expect(scan->world, equal((struct quire_slice){entry->key, entry->key_size}, key), scan->peer, "a key of a scan");
    expect(scan->world, equal((struct quire_slice){entry->value, entry->value_size}, value), scan->peer, "a value of a scan");
    return --scan->left != 0;
}

static void compare_scan(struct world *w, bool then, const struct quire_pages_options *options, uint64_t most)
{
    for (uint32_t i = 0; i < w->peer_count; i++) {
        struct scan scan = {.world = w, .peer = w->peers[i]->name, .left = most};
        expect_done(w, quire_pages_open(w->tree, options, &scan.pages), "pages");
        w->peers[i]->scan(w->handles[i], then, options->start, options->end, options->reverse != 0, visit, &scan);
        if (scan.left != 0)
            expect(w, !next_entry(&scan), scan.peer, "the end of a scan");
        quire_pages_close(scan.pages);
    }
}

static void do_scan(struct world *w)
{
    struct quire_pages_options options;
    bool then = w->snapshot != NULL && random_chance(&w->random, 50);
    struct quire_slice a = draw_key(w, w->bounds[0]), b = draw_key(w, w->bounds[1]);
    bool swapped = peer_compare(a, b) > 0;
    quire_pages_options_init(&options);
    options.snapshot = then ? w->snapshot : NULL;
    options.reverse = random_chance(&w->random, 50);
    if (random_chance(&w->random, 80))
        options.start = swapped ? b : a;
    if (random_chance(&w->random, 50))
        options.end = swapped ? a : b;
    compare_scan(w, then, &options, random_between(&w->random, 1, SCAN_MOST));
}

static void compare_all(struct world *w)
{
    struct quire_pages_options options;
    for (uint32_t reverse = 0; reverse < 2; reverse++) {
        quire_pages_options_init(&options);
        options.reverse = reverse;
        compare_scan(w, false, &options, UINT64_MAX);
        options.snapshot = w->snapshot;
        if (w->snapshot != NULL)
            compare_scan(w, true, &options, UINT64_MAX);
    }
}

/* ---- Rounds ----------------------------------------------------------------------------------------------------- */

static void step(struct world *w)
{
    uint64_t draw = random_below(&w->random, 1000);
    if (draw < 300)
        do_put(w);
    else if (draw < 420)
        do_delete(w);
    else if (draw < 500)
        do_insert(w);
    else if (draw < 580)
        do_swap(w);
    else if (draw < 640)
        do_add(w);
    else if (draw < 940)
        do_get(w);
    else if (draw < 990)
        do_scan(w);
    else if (draw < 994)
        take_snapshot(w);
    else if (draw < 997)
        release_snapshot(w);
    else if (draw < 999)
        (void)quire_maintain(w->db);
    else if (random_chance(&w->random, 50))
        checkpoint(w);
    else if (random_chance(&w->random, 30))
        reopen(w);
    w->number++;
}

/* What this round is like. */
static void draw_round(struct world *w)
{
    static const uint32_t sizes[] = {512, 1024, 4096, 8192, 65536};
    static const uint64_t keys[] = {30, 500, 5000, 40000};
    static const uint32_t values[] = {20, 300, 3000, VALUE_MOST};
    quire_options_init(&w->options);
    quire_tree_options_init(&w->tree_options);
    w->files = random_chance(&w->random, 60);
    w->tree_options.leaf_page_size_bytes = sizes[random_below(&w->random, 5)];
    w->tree_options.inner_page_size_bytes = sizes[random_below(&w->random, 5)];
    w->tree_options.page_chain_length = (uint32_t)random_between(&w->random, 1, 8);
    w->options.background_threads = random_chance(&w->random, 50) ? 1 : QUIRE_NO_THREADS;
    if (w->files) {
        w->options.level = QUIRE_LEVEL_PROCESS;
        w->options.log_segment_bytes = random_chance(&w->random, 50) ? 65536 : 1 << 20;
        w->options.log_cap_bytes = random_chance(&w->random, 50) ? 1 << 20 : 0;
        w->options.blob_threshold_bytes = random_chance(&w->random, 50) ? random_between(&w->random, 64, 5000) : 0;
    }
    w->shape = (uint32_t)random_below(&w->random, KEY_SHAPE_COUNT + 3);
    if (w->shape > KEY_SHAPE_COUNT || w->shape == KEY_EMPTY)
        w->shape = KEY_SHAPE_COUNT;
    if (w->shape == KEY_LONG && w->peers[0]->most_key_bytes < KEY_MAX_BYTES)
        w->shape = KEY_LENGTHS;
    w->keys = w->shape == KEY_LONG ? 300 : keys[random_below(&w->random, QR_ARRAY_COUNT(keys))];
    w->value_most = values[random_below(&w->random, QR_ARRAY_COUNT(values))];
}

static void remove_directory(const char *directory)
{
    char command[4200];
    snprintf(command, sizeof(command), "rm -rf '%s'", directory);
    if (system(command) != 0)
        fprintf(stderr, "%s cannot be removed\n", directory);
}

static void run_round(struct world *w, uint64_t number, uint64_t count)
{
    random_seed(&w->random, seed * 1000003u + number);
    snprintf(w->directory, sizeof(w->directory), "%s/quire-differential-XXXXXX", place);
    if (mkdtemp(w->directory) == NULL)
        peer_fail("mkdtemp", w->directory);
    draw_round(w);
    open_quire(w);
    for (uint32_t i = 0; i < w->peer_count; i++)
        w->handles[i] = w->peers[i]->open(w->directory);
    for (uint64_t i = 0; i < count; i++) {
        step(w);
        if (i % 5000 == 4999)
            compare_all(w);
    }
    reopen(w);
    compare_all(w);
    expect_done(w, quire_verify(w->db, NULL, NULL), "verify");
    expect_done(w, quire_close(w->db), "close");
    for (uint32_t i = 0; i < w->peer_count; i++)
        w->peers[i]->close(w->handles[i]);
    remove_directory(w->directory);
}

static void add_peer(struct world *w, const struct peer_ops *peer, const char *name)
{
    if (peer != NULL && (strcmp(which, "both") == 0 || strcmp(which, name) == 0))
        w->peers[w->peer_count++] = peer;
}

int main(int argc, char **argv)
{
    static struct world world;
    uint64_t first = 0;
    const struct test_option options[] = {
        {.name = "ops", .help = "operations in all", .number = &ops},
        {.name = "round-ops", .help = "operations of a round", .number = &round_ops},
        {.name = "first", .help = "number of the first round", .number = &first},
        {.name = "seed", .help = "0: from the clock", .number = &seed},
        {.name = "peer", .help = "sqlite, lmdb, or both", .text = &which},
        {.name = "dir", .help = "where files are made", .text = &place},
    };
    test_options_parse(argc, argv, "Compares Quire with SQLite and LMDB.", options, QR_ARRAY_COUNT(options));
    seed = test_seed(seed);
    ops = test_scaled(ops);
    add_peer(&world, peer_lmdb, "lmdb");
    add_peer(&world, peer_sqlite, "sqlite");
    if (world.peer_count == 0) {
        fprintf(stderr, "there is no such peer\n");
        return 2;
    }
    for (uint64_t number = first, done = 0; done < ops; number++) {
        uint64_t count = qr_min(round_ops, ops - done);
        run_round(&world, number, count);
        done += count;
    }
    printf("%" PRIu64 " operations\n", world.number);
    return check_finish();
}
