/*
 * The world of the tests of failing allocations: a database beside a plain oracle, calls that may fail for
 * want of memory, and the comparison of both.
 *
 * Test programs (api_failing*). Read next: failing_run.h, which has the scenarios' frame.
 *
 * FAIL-1  A call whose allocation fails either does its work all the same, or answers NO_MEMORY (STALLED
 *         where a guard or an iterator retains memory) with a detail, and leaves its outputs alone.
 * FAIL-2  In the database is what the oracle says, newest and in snapshots: a write that answered a failure
 *         has not happened, one that answered 0 has. Reads say so while nothing can be allocated, too.
 * FAIL-3  The structure of every tree is sound, the sums of memory fit together, and the blocks in use are those of the
 *         pages that there are.
 */
#ifndef TEST_API_FAILING_H
#define TEST_API_FAILING_H

#include "api.h"

#include "base/alloc.h"
#include "db/db.h"
#include "db/testing.h"
#include "lib/oracle.h"

#include <stdbool.h>

/* What outputs hold before a call. */
#define UNTOUCHED UINT64_C(0x5a5a5a5a5a5a5a5a)
#define UNTOUCHED_POINTER ((void *)(uintptr_t)UNTOUCHED)

struct world {
    struct quire *db;
    struct quire_tree *tree, *caller; /* small pages; engine versions and caller versions */
    struct oracle *says, *caller_says;
    struct quire_snapshot *snapshot; /* NULL: none is open */
    struct quire_pages *pages;       /* likewise */
    struct quire_guard guard;        /* of this thread, if guard.db is not NULL */
    struct holder *holder;           /* another thread with a guard; NULL: none */
    uint64_t written;                /* values so far: each is different */
    uint64_t safe_version;           /* of the caller's tree; 0: not set */
    uint64_t keys;                   /* above all numbers of keys that were used */
    bool planned;                    /* calls may answer NO_MEMORY now */
    bool may_stall;                  /* ... or STALLED */
    bool dropped;                    /* pages may be in the test store: reads need memory too */
    unsigned failures, stalls;       /* calls that did; those of them that answered STALLED */
};

/* ---- Calls ------------------------------------------------------------------------------------------------------ */

/* FAIL-1: true if the call did its work, whatever the expected outcome was. */
HELPER bool did(struct world *w, int result, const char *call)
{
    if (result >= 0)
        return true;
    cr_assert(w->planned, "%s: %d (%s), and nothing was to fail", call, result, quire_strerror(result));
    cr_assert(result == QUIRE_ERR_NO_MEMORY || (w->may_stall && result == QUIRE_ERR_STALLED), "%s: %d (%s)", call,
              result, quire_strerror(result));
    expect_detail(result, "");
    struct quire_error_detail detail;
    quire_error_detail(&detail);
    cr_assert(detail.message[0] != 0, "%s: no message", call);
    w->failures++;
    w->stalls += result == QUIRE_ERR_STALLED;
    return false;
}

#define DID(w, call) did(w, call, #call)

struct value {
    uint8_t bytes[300000];
    size_t size;
};

/* A value that no other write of this world has. */
HELPER const struct value *next_value(struct world *w, size_t size)
{
    static struct value value;
    cr_assert(size <= sizeof(value.bytes));
    value.size = size;
    uint64_t number = ++w->written;
    for (size_t i = 0; i < size; i++)
        value.bytes[i] = (uint8_t)(number >> (i % 8 * 8) ^ i / 8);
    return &value;
}

/* "key-000042", noted as used. */
HELPER size_t world_key(struct world *w, uint64_t number, char *key)
{
    if (number >= w->keys)
        w->keys = number + 1;
    return numbered(number, key);
}

/* A write's LSN is handed out with 0 only. */
HELPER bool wrote(struct world *w, int result, const char *call, const uint64_t *lsn)
{
    bool done = did(w, result, call) && result == 0;
    cr_assert(done == (*lsn != UNTOUCHED), "%s: %d with LSN %" PRIu64, call, result, *lsn);
    return done;
}

HELPER void world_put(struct world *w, uint64_t number, size_t size)
{
    char key[16];
    size_t key_size = world_key(w, number, key);
    const struct value *value = next_value(w, size);
    uint64_t lsn = UNTOUCHED;
    if (wrote(w, quire_put(w->tree, key, key_size, value->bytes, size, 0, &lsn), "put", &lsn))
        oracle_put(w->says, key, key_size, lsn, lsn, value->bytes, size);
}

HELPER bool world_has(struct world *w, const char *key, size_t key_size)
{
    struct oracle_value value;
    return oracle_get(w->says, UINT64_MAX, key, key_size, &value);
}

HELPER void world_delete(struct world *w, uint64_t number)
{
    char key[16];
    size_t key_size = world_key(w, number, key);
    uint64_t lsn = UNTOUCHED;
    int existed = -1;
    int right = world_has(w, key, key_size);
    bool ask = number % 2 == 0;
    if (wrote(w, quire_delete(w->tree, key, key_size, 0, ask ? &existed : NULL, &lsn), "delete", &lsn)) {
        oracle_delete(w->says, key, key_size, lsn, lsn);
        cr_assert(!ask || existed == right, "existed is %d", existed);
    } else {
        cr_assert_eq(existed, -1);
    }
}

HELPER void world_put_at(struct world *w, uint64_t version, uint64_t number, size_t size)
{
    char key[16];
    size_t key_size = world_key(w, number, key);
    const struct value *value = next_value(w, size);
    uint64_t lsn = UNTOUCHED;
    if (wrote(w, quire_put_at(w->caller, version, key, key_size, value->bytes, size, 0, &lsn), "put_at", &lsn))
        oracle_put(w->caller_says, key, key_size, version, lsn, value->bytes, size);
}

HELPER void world_delete_at(struct world *w, uint64_t version, uint64_t number)
{
    char key[16];
    size_t key_size = world_key(w, number, key);
    uint64_t lsn = UNTOUCHED;
    if (wrote(w, quire_delete_at(w->caller, version, key, key_size, 0, &lsn), "delete_at", &lsn))
        oracle_delete(w->caller_says, key, key_size, version, lsn);
}

HELPER void world_fill(struct world *w, uint64_t count, size_t size)
{
    for (uint64_t i = 0; i < count; i++)
        world_put(w, i, size);
}

/* ---- Comparing -------------------------------------------------------------------------------------------------- */

/* A state of a tree, and what it should say. version: UINT64_MAX unless it is the snapshot's or the caller's. */
struct view {
    struct quire_tree *tree;
    const struct oracle *oracle;
    struct quire_snapshot *snapshot;
    uint64_t version;
    bool caller;
};

HELPER void expect_value(const struct view *view, int result, const char *key, size_t key_size, const void *data,
                         size_t size)
{
    struct oracle_value right;
    bool present = oracle_get(view->oracle, view->version, key, key_size, &right);
    cr_assert(result == (present ? 0 : QUIRE_NOT_FOUND), "get %s: %d (%s)", key, result, quire_strerror(result));
    if (present)
        cr_assert(size == right.size && (size == 0 || memcmp(data, right.data, size) == 0), "value of %s", key);
}

/* Reads of pages in memory need none, except for the copy that get_copy hands out. */
HELPER bool read_did(struct world *w, int result, const char *call, bool allocates)
{
    cr_assert(result >= 0 || allocates || w->dropped, "%s: %d (%s)", call, result, quire_strerror(result));
    return did(w, result, call);
}

/* One key by the calls that copy. */
HELPER void compare_get(struct world *w, const struct view *view, uint64_t number)
{
    static struct value out;
    void *copy = UNTOUCHED_POINTER;
    char key[16];
    size_t key_size = numbered(number, key);
    int result;
    out.size = 0;
    if (view->caller) {
        result = quire_get_at(view->tree, view->version, key, key_size, out.bytes, sizeof(out.bytes), &out.size);
        if (read_did(w, result, "get_at", false))
            expect_value(view, result, key, key_size, out.bytes, out.size);
        return;
    }
    result = quire_get(view->tree, view->snapshot, key, key_size, out.bytes, sizeof(out.bytes), &out.size);
    if (read_did(w, result, "get", false))
        expect_value(view, result, key, key_size, out.bytes, out.size);
    if (number % 8 != 0)
        return;
    result = quire_get_copy(view->tree, view->snapshot, key, key_size, &copy, &out.size);
    if (read_did(w, result, "get_copy", true))
        expect_value(view, result, key, key_size, copy, out.size);
    if (result == 0)
        quire_free(copy);
    else
        cr_assert(copy == UNTOUCHED_POINTER);
}

/* All keys under a guard: at once, and some of them singly. */
HELPER void compare_guarded(struct world *w, const struct view *view)
{
    enum { MOST = 1100 };
    static char keys[MOST][16];
    static struct quire_slice slices[MOST];
    static struct quire_value values[MOST];
    static int results[MOST];
    struct quire_guard guard;
    size_t count = w->keys < MOST ? w->keys : MOST;
    for (size_t i = 0; i < count; i++)
        slices[i] = (struct quire_slice){keys[i], numbered(i, keys[i])};
    OK(quire_pin(w->db, "compare", &guard));
    if (read_did(w, quire_get_many(&guard, view->tree, view->snapshot, slices, count, values, results), "get_many",
                 false)) {
        for (size_t i = 0; i < count; i++)
            expect_value(view, results[i], keys[i], slices[i].size, values[i].data, values[i].size);
    }
    for (size_t i = 0; i < count; i += 8) {
        int result = quire_guard_get(&guard, view->tree, view->snapshot, keys[i], slices[i].size, &values[0]);
        if (read_did(w, result, "guard_get", false))
            expect_value(view, result, keys[i], slices[i].size, values[0].data, values[0].size);
    }
    OK(quire_unpin(&guard));
}

HELPER void expect_entry(const struct quire_entry *entry, const struct oracle_item *right)
{
    cr_assert(entry->key_size == right->key_size && memcmp(entry->key, right->key, right->key_size) == 0,
              "'%.*s' instead of '%.*s'", (int)entry->key_size, (const char *)entry->key, (int)right->key_size,
              (const char *)right->key);
    cr_assert(entry->value_size == right->value.size &&
                  (entry->value_size == 0 || memcmp(entry->value, right->value.data, entry->value_size) == 0),
              "value of '%.*s'", (int)right->key_size, (const char *)right->key);
    cr_assert(entry->lsn == right->value.lsn && entry->version == right->value.version, "LSN of '%.*s'",
              (int)right->key_size, (const char *)right->key);
}

/* All pages in one direction. While failures are planned the walk may end early. */
HELPER void compare_pages(struct world *w, const struct view *view, bool reverse)
{
    struct quire_pages_options options;
    struct quire_pages *pages = UNTOUCHED_POINTER;
    struct quire_page page = {0};
    struct oracle_walk walk;
    struct oracle_item item;
    int result;
    quire_pages_options_init(&options);
    options.snapshot = view->snapshot;
    options.version = view->version;
    options.reverse = reverse;
    oracle_walk_start(&walk, view->oracle, (struct oracle_range){0}, view->version, reverse);
    if (!DID(w, quire_pages_open(view->tree, &options, &pages))) {
        cr_assert(pages == UNTOUCHED_POINTER);
        return;
    }
    while ((result = quire_pages_next(pages, &page)) == 0) {
        for (size_t i = 0; i < page.count; i++) {
            cr_assert(oracle_walk_next(&walk, &item), "'%.*s' is surplus", (int)page.entries[i].key_size,
                      (const char *)page.entries[i].key);
            expect_entry(&page.entries[i], &item);
        }
    }
    if (DID(w, result)) {
        cr_assert_eq(result, QUIRE_END);
        cr_assert_not(oracle_walk_next(&walk, &item), "the pages end before '%.*s'", (int)item.key_size,
                      (const char *)item.key);
    }
    OK(quire_pages_close(pages));
}

HELPER void compare_view(struct world *w, const struct view *view)
{
    for (uint64_t i = 0; i < w->keys; i++)
        compare_get(w, view, i);
    compare_get(w, view, 999999);
    if (!view->caller)
        compare_guarded(w, view);
    compare_pages(w, view, false);
    compare_pages(w, view, true);
}

/* FAIL-2 */
HELPER void compare(struct world *w)
{
    compare_view(w, &(struct view){w->tree, w->says, NULL, UINT64_MAX, false});
    if (w->snapshot != NULL)
        compare_view(w, &(struct view){w->tree, w->says, w->snapshot, quire_snapshot_lsn(w->snapshot), false});
    compare_pages(w, &(struct view){w->caller, w->caller_says, NULL, UINT64_MAX, true}, false);
    if (oracle_versions(w->caller_says) == 0)
        return;
    for (uint64_t version = w->safe_version + 1; version < w->safe_version + 32; version = version * 2 + 1)
        compare_view(w, &(struct view){w->caller, w->caller_says, NULL, version, true});
}

/* The blocks in use are those of the pages that page ids name: none was lost, none is counted twice. (Mappings of their
 * own, of large blocks, are counted with what surrounds the block.) */
HELPER void check_accounts(struct world *w)
{
    struct quire_stats stats = stats_of(w->db);
    uint64_t sum =
        stats.memory_page_bytes + stats.memory_retired_bytes + stats.memory_free_bytes + stats.memory_mapping_bytes;
    cr_assert_eq(stats.memory_bytes, sum, "%" PRIu64 " bytes in all, %" PRIu64 " in parts", stats.memory_bytes, sum);

    struct qr_arena_stats arena;
    uint64_t bytes = 0, pages = 0;
    qr_arena_stats(w->db->arena, &arena);
    if (arena.large_bytes != 0)
        return;
    /* relaxed: nobody else is there */
    uint64_t end = atomic_load_explicit(&w->db->map->next_pid, memory_order_relaxed);
    for (uint64_t pid = QR_PID_NONE + 1; pid < end; pid++) {
        qr_word word = qr_map_load(w->db->map, pid);
        enum qr_word_tag tag = qr_word_tag(word);
        if (tag != QR_WORD_PRIVATE && tag != QR_WORD_HEAD && tag != QR_WORD_SEALED)
            continue;
        bytes += ((const struct qr_page *)qr_word_block(word))->block_size;
        pages++;
    }
    cr_assert_eq(stats.memory_page_bytes, bytes, "%" PRIu64 " bytes of pages, and %" PRIu64 " pages of %" PRIu64,
                 stats.memory_page_bytes, pages, bytes);
}

/* FAIL-3 */
HELPER void check_structure(struct world *w)
{
    uint32_t count;
    struct quire_tree **handles = qr_db_handles(w->db, &count);
    for (uint32_t i = 0; i < count; i++) {
        char message[256] = "";
        int result = qr_testing_check(handles[i], message, sizeof(message));
        cr_assert_eq(result, 0, "tree %u: %d: %s", i, result, message);
    }
    check_accounts(w);
}

#endif
