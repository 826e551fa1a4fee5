/*
 * testing_check.c: the structure of a tree, checked page by page while nobody writes.
 *
 * Layer 6, testing library only. Level by level from the root: follows the sibling links from the left-most page and
 * compares with the entries of the level above.
 */
#include <stdarg.h>
#include <stdio.h>

#include "db/db.h"
#include "db/testing.h"
#include "page/inner.h"

struct check {
    struct qr_op op;
    struct quire *db;
    char *message;
    size_t size;
};

QR_PRINTF(2, 3) static int wrong(struct check *c, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(c->message, c->size, format, arguments);
    va_end(arguments);
    return QUIRE_ERR_CORRUPT;
}

/* Settles the word of an id as a walker would, reading what is on disk. */
static int load(struct check *c, uint64_t pid, uint8_t level, struct quire_slice low, struct qr_evict *ret_page)
{
    for (;;) {
        int result = qr_tree_page_at(&c->op, pid, level, low, ret_page);
        if (result == QR_FETCH) result = qr_db_fetch(c->db, &c->op);
        else if (result != QR_RETRY) return result;
        if (result != 0 && result != QR_RETRY) return result;
    }
}

static int check_page(struct check *c, const struct qr_evict *at, uint8_t level)
{
    const struct qr_page *page = at->page;
    const char *fault = qr_page_check(page);
    if (fault != NULL) return wrong(c, "page %llu: %s", (unsigned long long)at->pid, fault);
    if (page->pid != at->pid) return wrong(c, "page %llu says it is %llu", (unsigned long long)at->pid,
                                           (unsigned long long)page->pid);
    if (page->level != level) return wrong(c, "page %llu: level", (unsigned long long)at->pid);
    if (page->tree_id != c->op.tree->id) return wrong(c, "page %llu: tree", (unsigned long long)at->pid);
    uint32_t chain = qr_word_chain(at->word);
    if (chain > c->op.tree->settings.chain_limit) return wrong(c, "page %llu: chain", (unsigned long long)at->pid);
    struct qr_leaf_view view = {page, chain, qr_word_head_offset(at->word)};
    if (level == 0 && chain != 0) {
        const struct qr_delta *head = qr_view_head(&view);
        uint64_t lsn = page->max_lsn;
        for (uint32_t i = 0; i < chain; i++) {
            const uint8_t *record = qr_delta_record(page, head->offsets[i]);
            if (qr_record_lsn(record) <= lsn) return wrong(c, "page %llu: LSNs do not grow", (unsigned long long)at->pid);
            lsn = qr_record_lsn(record);
            struct qr_key key =
                qr_key_make(qr_record_key(record, qr_page_caller(page)), qr_record_key_size(record));
            if (key.fingerprint != head->fingerprints[i])
                return wrong(c, "page %llu: fingerprint of a delta", (unsigned long long)at->pid);
            if (qr_page_key_beyond(page, &key) || qr_page_key_below(page, &key))
                return wrong(c, "page %llu: a delta lies outside its bounds", (unsigned long long)at->pid);
        }
    }
    return 0;
}

/* Whether the level's next page begins where this one ends. */
static int check_link(struct check *c, const struct qr_page *page, const struct qr_page *right)
{
    struct quire_slice high = qr_page_high(page);
    struct quire_slice low = qr_page_low(right);
    if (qr_equal(high.data, high.size, low.data, low.size)) return 0;
    return wrong(c, "page %llu does not begin where page %llu ends", (unsigned long long)right->pid,
                 (unsigned long long)page->pid);
}

/* All entries of an inner page lead to pages with those low keys. */
static int check_children(struct check *c, const struct qr_page *page)
{
    for (uint32_t i = 0; i < page->count; i++) {
        struct quire_slice key = i == 0 ? qr_page_low(page) : qr_inner_key(page, i);
        struct qr_evict child;
        int result = load(c, qr_inner_child(page, i), (uint8_t)(page->level - 1), key, &child);
        if (result == QUIRE_EXISTS) continue; /* merged away: whoever walks there takes the separator out */
        if (result != 0) return result < 0 && c->message[0] != 0 ? result
                                : wrong(c, "page %llu: entry %u leads to no page of that low key (%d)",
                                        (unsigned long long)page->pid, i, result);
    }
    return 0;
}

static int check_level(struct check *c, uint64_t pid, uint8_t level)
{
    struct quire_slice low = {"", 0};
    struct qr_evict at;
    struct qr_evict right;
    int result = load(c, pid, level, low, &at);
    if (result != 0) return wrong(c, "left-most page of level %u: %d", level, result);
    for (;;) {
        result = check_page(c, &at, level);
        if (result == 0 && level > 0) result = check_children(c, at.page);
        if (result != 0) return result;
        if ((at.page->flags & QR_PAGE_HIGH_INFINITE) != 0) return 0;
        result = load(c, at.page->right_pid, level, qr_page_high(at.page), &right);
        if (result != 0) return wrong(c, "right sibling of page %llu: %d", (unsigned long long)at.pid, result);
        result = check_link(c, at.page, right.page);
        if (result != 0) return result;
        at = right;
    }
}

/* All levels, from the root down. QUIRE_EXISTS: the root has taken the place of its only child meanwhile. */
static int check_levels(struct check *c, uint64_t pid)
{
    struct quire_slice lowest = {"", 0};
    struct qr_evict at;
    int result = load(c, pid, UINT8_MAX, lowest, &at);
    while (result == 0) {
        uint8_t level = at.page->level;
        result = check_level(c, pid, level);
        if (result != 0 || level == 0) break;
        pid = qr_inner_child(at.page, 0);
        result = load(c, pid, (uint8_t)(level - 1), lowest, &at);
    }
    return result;
}

int qr_testing_check(struct quire_tree *tree, char *message, size_t size)
{
    struct qr_thread *thread = NULL;
    struct check c = {.db = tree->db, .message = message, .size = size};
    message[0] = 0;
    int result = qr_db_begin_tree(tree, &thread);
    if (result != 0) return result;
    if (qr_epoch_prepare(thread) != 0) return QUIRE_ERR_NO_MEMORY;
    qr_op_init(&c.op, &tree->tree, thread);
    c.op.use_reserve = true;
    qr_epoch_enter(thread);
    do {
        result = check_levels(&c, tree->tree.root);
    } while (result == QUIRE_EXISTS); /* the walk itself has finished a merge */
    qr_epoch_exit(thread);
    qr_op_done(&c.op);
    return result;
}
