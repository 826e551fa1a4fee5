/*
 * verify_tree.c: the structure of a tree, page by page from its root.
 *
 * Layer 6. An entry of an inner page says where a page begins; the page says where it ends. So the pages below an inner page
 * have to follow one another from its low key to its high key, each at the entry with its low key, or at the right of one
 * whose split has not reached the parent yet. Keys of entries grow, so a page that is reached twice is found at a key where it
 * does not begin.
 *
 * VERIFY-TREE-1  A page is looked at in one section, and what is needed of it afterwards is copied: no memory is kept from being
 *                reclaimed for longer than that.
 * VERIFY-TREE-2  While others write, what was copied may have become old. Every structure change below an inner page changes
 *                that page first (marks, for merges) or is seen as a page that ends early (splits). So where something does not
 *                fit, the inner page is looked at again, and only what does not fit to one that stays as it is, is a defect.
 */
#include "db/verify.h"

#include "page/inner.h"

#define LOOKS 3u     /* at an inner page that has not changed */
#define TRIES 10000u /* at one that has */
#define ROOT_TRIES 100u

struct child {
    uint64_t pid;
    uint32_t key_at, key_size;
};

/* What is kept of a page. */
struct node {
    uint64_t pid, right_pid;
    qr_word word;
    uint8_t level;
    bool infinite;
    uint32_t count, high_at, high_size;
    struct child *children; /* of an inner page */
    uint8_t *text;          /* keys of the entries, and the high key */
};

/* Up to where pages have followed one another. */
struct position {
    uint8_t *key; /* room for the largest key */
    uint32_t size;
    bool end;
};

struct walk {
    struct qr_verify *v;
    struct quire_tree *tree;
};

enum { DOES_NOT_FIT = 1 }; /* of verify_at: nothing was told */

static void drop_node(struct node *node)
{
    qr_free(node->children);
    qr_free(node->text);
    *node = (struct node){0};
}

/* ---- One page --------------------------------------------------------------------------------------------------- */

/* NULL, or what is wrong with the chain of a leaf. */
static const char *check_chain(const struct qr_page *page, qr_word word, uint32_t limit)
{
    uint32_t chain = qr_word_chain(word);
    uint64_t lsn = page->max_lsn;
    if (chain > limit) return "its chain is too long";
    if (chain == 0) return NULL;
    struct qr_leaf_view view = {page, chain, qr_word_head_offset(word)};
    const struct qr_delta *head = qr_view_head(&view);
    for (uint32_t i = 0; i < chain; i++) {
        const uint8_t *record = qr_delta_record(page, head->offsets[i]);
        if (qr_record_lsn(record) <= lsn) return "LSNs of its chain do not grow";
        lsn = qr_record_lsn(record);
        struct qr_key key = qr_key_make(qr_record_key(record, qr_page_caller(page)), qr_record_key_size(record));
        if (key.fingerprint != head->fingerprints[i]) return "fingerprint of a delta";
        if (qr_page_key_beyond(page, &key) || qr_page_key_below(page, &key)) return "a delta lies outside its bounds";
    }
    return NULL;
}

/* NULL, or what is wrong with the page by itself. */
static const char *check_page(const struct walk *w, const struct qr_evict *at)
{
    const struct qr_page *page = at->page;
    const char *bad = qr_page_check(page);
    if (bad != NULL) return bad;
    if (page->pid != at->pid) return "it says that it is another page";
    if (page->tree_id != w->tree->tree.id) return "it says that it is of another tree";
    return page->level == 0 ? check_chain(page, at->word, w->tree->tree.settings.chain_limit) : NULL;
}

/* In the section. */
static bool copy_node(const struct qr_evict *at, struct node *ret_node)
{
    const struct qr_page *page = at->page;
    uint32_t count = page->level == 0 ? 0 : page->count;
    struct quire_slice high = qr_page_high(page);
    struct node node = {.pid = at->pid,
                        .right_pid = page->right_pid,
                        .word = at->word,
                        .level = page->level,
                        .infinite = (page->flags & QR_PAGE_HIGH_INFINITE) != 0,
                        .count = count,
                        .high_size = (uint32_t)high.size};
    uint64_t bytes = high.size + 1;
    for (uint32_t i = 1; i < count; i++) bytes += qr_inner_key(page, i).size;
    node.text = qr_malloc(bytes);
    node.children = qr_calloc((size_t)count + 1, sizeof(*node.children));
    if (node.text == NULL || node.children == NULL) {
        drop_node(&node);
        return false;
    }
    uint32_t to = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct quire_slice key = i == 0 ? qr_page_low(page) : qr_inner_key(page, i);
        if (i == 0) key.size = 0; /* entry 0 begins where the page does */
        node.children[i] = (struct child){qr_inner_child(page, i), to, (uint32_t)key.size};
        qr_copy(node.text + to, key.data, key.size);
        to += (uint32_t)key.size;
    }
    node.high_at = to;
    qr_copy(node.text + to, high.data, high.size);
    *ret_node = node;
    return true;
}

/*
 * The page of an id, looked at by itself. level UINT8_MAX: any. 0: what is needed of it; QUIRE_EXISTS: it was merged into
 * another; QUIRE_NOT_FOUND: it is not a page of that level and low key; CORRUPT, IO: it cannot be read; NO_MEMORY. *ret_bad: what
 * is wrong with it, not told yet.
 */
static int take(const struct walk *w, uint64_t pid, uint8_t level, struct quire_slice low, struct node *ret_node,
                const char **ret_bad)
{
    struct qr_op op;
    struct qr_evict at;
    int result = qr_epoch_prepare(w->v->thread);
    if (result != 0) return result;
    qr_op_init(&op, &w->tree->tree, w->v->thread);
    op.use_reserve = true;
    qr_epoch_enter(w->v->thread);
    do {
        result = qr_tree_page_at(&op, pid, level, low, &at);
        if (result == QR_FETCH) {
            result = qr_db_fetch(w->v->db, &op);
            if (result == 0) result = QR_RETRY;
        }
    } while (result == QR_RETRY);
    *ret_bad = result == 0 ? check_page(w, &at) : NULL;
    if (result == 0 && *ret_bad == NULL && !copy_node(&at, ret_node))
        result = qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory to verify a page");
    qr_epoch_exit(w->v->thread);
    qr_op_done(&op);
    return result;
}

/* ---- The pages below an entry ----------------------------------------------------------------------------------- */

static struct quire_slice child_key(const struct node *node, struct quire_slice low, uint32_t i)
{
    if (i == 0) return low;
    return (struct quire_slice){node->text + node->children[i].key_at, node->children[i].key_size};
}

static int compare(struct quire_slice a, struct quire_slice b)
{
    return qr_compare(a.data, a.size, b.data, b.size);
}

static void set_position(struct position *position, struct quire_slice key, bool end)
{
    position->end = end;
    position->size = (uint32_t)key.size;
    qr_copy(position->key, key.data, key.size);
}

static struct quire_slice at_position(const struct position *position)
{
    return (struct quire_slice){position->key, position->size};
}

static struct quire_slice high_of(const struct node *node)
{
    return (struct quire_slice){node->text + node->high_at, node->high_size};
}

/* Where pages have to reach. */
struct until {
    struct quire_slice key;
    bool end; /* infinite */
};

static struct until until_of(const struct node *node, struct quire_slice low, uint32_t next)
{
    if (next < node->count) return (struct until){child_key(node, low, next), false};
    return (struct until){high_of(node), node->infinite};
}

static bool has_reached(const struct position *position, const struct until *until)
{
    return position->end || (!until->end && compare(at_position(position), until->key) >= 0);
}

static int verify_at(const struct walk *w, uint64_t pid, uint8_t level, struct quire_slice low, struct until until,
                     struct position *position);

/* The page on the left reaches beyond this entry: then it was merged into that one, and its entry is still to be taken out. */
static int verify_merged(const struct walk *w, const struct node *node, struct quire_slice key, uint32_t i)
{
    struct node merged = {0};
    const char *bad;
    int result = take(w, node->children[i].pid, (uint8_t)(node->level - 1), key, &merged, &bad);
    drop_node(&merged);
    if (result == QUIRE_EXISTS) return 0;
    return result == QUIRE_ERR_NO_MEMORY ? result : DOES_NOT_FIT;
}

/* The entries of an inner page from the position on, not those below `from`. DOES_NOT_FIT: entry *ret_entry, and the position
 * is at it or one before. */
static int verify_entries(const struct walk *w, const struct node *node, struct quire_slice low, uint32_t from,
                          struct position *position, uint32_t *ret_entry)
{
    uint32_t first = from;
    for (; first < node->count; first++) { /* what was looked at before */
        struct until until = until_of(node, low, first + 1);
        if (!has_reached(position, &until)) break;
    }
    for (uint32_t i = first; i < node->count; i++) {
        struct quire_slice key = child_key(node, low, i);
        int order = position->end ? -1 : compare(key, at_position(position));
        int result = 0;
        *ret_entry = i;
        if (order > 0) return DOES_NOT_FIT; /* a gap */
        if (order == 0) {
            result = verify_at(w, node->children[i].pid, (uint8_t)(node->level - 1), key, until_of(node, low, i + 1), position);
            /* If it was merged just now, the page on its left has come to reach beyond it. */
            if (result == DOES_NOT_FIT) set_position(position, i == from ? key : child_key(node, low, i - 1), false);
        } else {
            result = verify_merged(w, node, key, i);
        }
        if (result != 0) return result;
    }
    if (node->infinite ? position->end : !position->end && compare(at_position(position), high_of(node)) == 0) return 0;
    *ret_entry = node->count;
    return DOES_NOT_FIT;
}

/* Beyond the entry that does not fit, so that the others are looked at. */
static void pass_over(const struct node *node, struct quire_slice low, uint32_t entry, struct position *position)
{
    struct until until = until_of(node, low, entry + 1);
    set_position(position, until.key, until.end);
}

/* An inner page: its entries, as often as it takes. */
static int verify_inner(const struct walk *w, struct node *node, struct quire_slice low, struct position *position)
{
    uint32_t looks = 0, last_entry = UINT32_MAX, from = 0;
    for (uint32_t tries = 0; tries < TRIES; tries++) {
        uint32_t entry = 0;
        uint64_t before = node->word.bits;
        const char *bad = NULL;
        int result = verify_entries(w, node, low, from, position, &entry);
        if (result != DOES_NOT_FIT) return result;
        struct node again = {0};
        result = take(w, node->pid, node->level, low, &again, &bad);
        if (result == QUIRE_ERR_NO_MEMORY) return result;
        if (result != 0 || bad != NULL) return DOES_NOT_FIT;
        drop_node(node);
        *node = again;
        if (node->word.bits != before) { /* other entries, another end perhaps: all over again */
            from = 0;
            set_position(position, low, false);
        }
        looks = node->word.bits == before && entry == last_entry ? looks + 1 : 0;
        last_entry = entry;
        if (looks < LOOKS) continue;
        looks = 0;
        result = entry == node->count
                     ? qr_verify_tell(w->v, NULL, 0, w->tree->name, node->pid, "its last page does not end where it does")
                     : qr_verify_tell(w->v, NULL, 0, w->tree->name, node->pid,
                                      "entry %u leads to page %llu, which is not where it should be", entry,
                                      (unsigned long long)node->children[entry].pid);
        if (result != 0) return result;
        pass_over(node, low, entry, position);
        from = entry + 1;
        if (position->end || entry == node->count) return 0;
    }
    return qr_fail(QUIRE_ERR_BUSY, 0, "structure changes did not come to an end");
}

static bool was_told(const struct qr_verify *v, uint64_t pid)
{
    for (uint64_t i = 0; i < v->bad_count; i++)
        if (v->bad_pids[i] == pid) return true;
    return false;
}

/* A page that cannot be read, or is wrong by itself. What is below it, and behind it up to the next entry, is not looked at. */
static int tell_bad(const struct walk *w, uint64_t pid, int result, const char *bad)
{
    struct quire_error_detail detail;
    if (was_told(w->v, pid)) return 0;
    if (result == 0) return qr_verify_tell(w->v, NULL, 0, w->tree->name, pid, "%s", bad);
    quire_error_detail(&detail);
    return qr_verify_tell(w->v, NULL, 0, w->tree->name, pid, "it cannot be read: %s", detail.message);
}

/* The page with that low key and those that were split off it, until what is next in the inner page above. */
static int verify_at(const struct walk *w, uint64_t pid, uint8_t level, struct quire_slice low, struct until until,
                     struct position *position)
{
    struct node before = {0};
    for (;;) {
        struct node node = {0};
        const char *bad = NULL;
        int result = take(w, pid, level, low, &node, &bad);
        if (result < 0 && result != QUIRE_ERR_NO_MEMORY) {
            result = tell_bad(w, pid, result, NULL);
            set_position(position, until.key, until.end);
        } else if (bad != NULL) {
            result = tell_bad(w, pid, 0, bad);
            set_position(position, until.key, until.end);
        } else if (result == 0) {
            if (node.level != 0) result = verify_inner(w, &node, low, position);
            if (result == 0) set_position(position, high_of(&node), node.infinite);
        } else if (result > 0) {
            result = DOES_NOT_FIT;
        }
        drop_node(&before);
        if (result != 0 || has_reached(position, &until)) {
            drop_node(&node);
            return result;
        }
        before = node;
        pid = node.right_pid;
        level = node.level;
        low = high_of(&before);
    }
}

/* ---- The tree --------------------------------------------------------------------------------------------------- */

int qr_verify_tree(struct qr_verify *v, struct quire_tree *tree)
{
    const struct walk w = {v, tree};
    const struct quire_slice lowest = {"", 0};
    struct position position = {.key = qr_malloc(QR_MAX_KEY_SIZE)};
    if (position.key == NULL) return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory to verify a tree");
    uint64_t before = v->defects;
    int result = DOES_NOT_FIT;
    /* A root changes its level when it takes the place of its only child, or gets a level more below it. */
    for (uint32_t tries = 0; result == DOES_NOT_FIT && tries < ROOT_TRIES; tries++) {
        set_position(&position, lowest, false);
        result = verify_at(&w, tree->tree.root, UINT8_MAX, lowest, (struct until){.end = true}, &position);
    }
    if (result == DOES_NOT_FIT) result = 0;
    if (result == 0 && v->defects == before && !position.end)
        result = qr_verify_tell(v, NULL, 0, tree->name, tree->tree.root, "the tree's root is not a root, or does not reach to its end");
    qr_free(position.key);
    return result;
}
