/*
 * mapping.c: the durable mapping in memory: a tree of nodes over blocks, loaded on demand.
 *
 * Layer 4. A block has the entries of 84 page ids, a node 504 addresses; each knows from the outset which ids it is
 * for, and its image says so too, so that a damaged address leads to CORRUPT and never in circles. What is in memory is
 * what the last durable checkpoint says: changes since then are in tables (changes.h), and come in when they are
 * durable.
 *
 * MAPPING-1  A load reads without the mutex, and hangs in what it read only if the address is still the one.
 */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/status.h"
#include "store/internal.h"

uint64_t qr_mapping_span(uint32_t level)
{
    uint64_t span = QR_BLOCK_ENTRIES;
    for (uint32_t i = 0; i < level; i++)
        span *= QR_NODE_CHILDREN;
    return span;
}

static size_t size_of(uint32_t level)
{
    return sizeof(struct qr_map_node) + (level == 0 ? 0 : QR_NODE_CHILDREN * sizeof(struct qr_map_node *));
}

static uint32_t slot_of(const struct qr_map_node *node, uint64_t pid)
{
    return (uint32_t)((pid - node->first_pid) / qr_mapping_span(node->level - 1));
}

/* Not counted yet: see hang_in. */
static struct qr_map_node *allocate(uint64_t first_pid, uint32_t level)
{
    struct qr_map_node *node = qr_calloc(1, size_of(level));
    if (node == NULL) {
        (void)qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for the mapping");
        return NULL;
    }
    node->first_pid = first_pid;
    node->level = level;
    return node;
}

void qr_mapping_free(struct qr_store *store, struct qr_map_node *node)
{
    if (node == NULL)
        return;
    for (uint32_t i = 0; node->level > 0 && i < QR_NODE_CHILDREN; i++)
        qr_mapping_free(store, node->children[i]);
    store->map_memory -= size_of(node->level);
    qr_free(node);
}

/* ---- Loading ---------------------------------------------------------------------------------------------------- */

static void *give_contents(void *context, size_t size)
{
    struct qr_map_node *node = context;
    return size == QR_BLOCK_BYTES ? &node->as : NULL;
}

static bool is_possible(const struct qr_map_node *node)
{
    if (node->level == 0) {
        for (uint32_t i = 0; i < QR_BLOCK_ENTRIES; i++) {
            if (!qr_entry_is_possible(&node->as.entries[i]))
                return false;
        }
        return true;
    }
    for (uint32_t i = 0; i < QR_NODE_CHILDREN; i++) {
        if (node->as.addresses[i] != 0 && !qr_address_is_possible(node->as.addresses[i]))
            return false;
    }
    return true;
}

int qr_mapping_load(struct qr_store *store, uint64_t address, uint64_t first_pid, uint32_t level,
                    struct qr_map_node **ret_node)
{
    void *bytes;
    uint32_t size;
    struct qr_fetch_want want = {address, first_pid, level == 0 ? QR_STORE_BLOCK : QR_STORE_NODE, (uint8_t)level};
    struct qr_map_node *node = allocate(first_pid, level);
    if (node == NULL)
        return QUIRE_ERR_NO_MEMORY;
    int result = qr_fetch(store, &want, give_contents, node, &bytes, &size);
    if (result == 0 && !is_possible(node))
        result = qr_segment_corrupt(store, qr_address_number(address), qr_address_offset(address),
                                    "the mapping has an impossible entry");
    if (result != 0) {
        qr_free(node);
        return result;
    }
    node->address = address;
    qr_lock(store);
    store->stats.blocks_read++;
    qr_unlock(store);
    *ret_node = node;
    return 0;
}

void qr_mapping_set_top(struct qr_store *store, struct qr_map_node *node)
{
    store->top = node;
    store->map_memory += size_of(node->level);
}

/* ---- Finding ---------------------------------------------------------------------------------------------------- */

/* Where a walk ended for want of a node. */
struct gap {
    struct qr_map_node *parent;
    uint32_t slot;
    uint64_t address, first_pid;
    uint32_t level;
};

/* Under the mutex: the node of the level, or NULL and where it, or one on the way, is missing. pid is below the top. */
static struct qr_map_node *walk(struct qr_store *store, uint64_t pid, uint32_t level, struct gap *ret_gap)
{
    struct qr_map_node *node = store->top;
    while (node->level > level) {
        uint32_t slot = slot_of(node, pid);
        struct qr_map_node *child = node->children[slot];
        if (child == NULL) {
            *ret_gap = (struct gap){node, slot, node->as.addresses[slot],
                                    node->first_pid + slot * qr_mapping_span(node->level - 1), node->level - 1};
            return NULL;
        }
        node = child;
    }
    return node;
}

static void hang_in(struct qr_store *store, const struct gap *gap, struct qr_map_node *node)
{
    gap->parent->children[gap->slot] = node;
    store->map_memory += size_of(node->level);
}

/* Fills the gap, if it is still there. GONE: the segment was released; look again. */
static int fill_gap(struct qr_store *store, uint64_t pid, uint32_t level, const struct gap *gap)
{
    struct qr_map_node *node;
    struct gap again;
    int result = 0;
    if (gap->address != 0)
        result = qr_mapping_load(store, gap->address, gap->first_pid, gap->level, &node);
    else
        result = (node = allocate(gap->first_pid, gap->level)) == NULL ? QUIRE_ERR_NO_MEMORY : 0;
    if (result < 0)
        return result;
    qr_lock(store);
    bool same = walk(store, pid, level, &again) == NULL && again.first_pid == gap->first_pid &&
                again.level == gap->level && again.address == gap->address;
    if (result == 0 && same) {
        hang_in(store, &again, node);
        node = NULL;
    }
    qr_unlock(store);
    if (result == 0) {
        qr_free(node);
        return 0;
    }
    return same ? qr_segment_corrupt(store, qr_address_number(gap->address), qr_address_offset(gap->address),
                                     "the segment that the mapping names is missing")
                : 0;
}

/* Puts new tops over the top until it covers the id. */
static int raise(struct qr_store *store, uint64_t pid)
{
    for (;;) {
        qr_lock(store);
        const struct qr_map_node *top = store->top;
        uint32_t level = top == NULL ? 0 : top->level + 1;
        bool covered = top != NULL && pid < qr_mapping_span(top->level);
        qr_unlock(store);
        if (covered)
            return 0;
        QR_ASSERT(level <= QR_HEIGHT_MOST);
        struct qr_map_node *node = allocate(0, level);
        if (node == NULL)
            return QUIRE_ERR_NO_MEMORY;
        qr_lock(store); /* nobody else raises it */
        if (store->top != NULL) {
            node->as.addresses[0] = store->top->address;
            node->children[0] = store->top;
        }
        qr_mapping_set_top(store, node);
        qr_unlock(store);
    }
}

int qr_mapping_get(struct qr_store *store, uint64_t pid, uint32_t level, bool make, struct qr_map_node **ret_node)
{
    int result = make ? raise(store, pid) : 0;
    while (result == 0) {
        struct gap gap;
        struct qr_map_node *node = NULL;
        qr_lock(store);
        bool covered = store->top != NULL && store->top->level >= level && pid < qr_mapping_span(store->top->level);
        if (covered)
            node = walk(store, pid, level, &gap);
        qr_unlock(store);
        if (node != NULL || !covered || (gap.address == 0 && !make)) {
            *ret_node = node;
            return 0;
        }
        result = fill_gap(store, pid, level, &gap);
    }
    return result;
}

/* ---- Lookup ----------------------------------------------------------------------------------------------------- */

static int tell(uint64_t address, uint32_t stored_bytes, uint64_t max_lsn, struct qr_store_entry *ret_entry)
{
    if (address == 0)
        return QUIRE_NOT_FOUND;
    *ret_entry = (struct qr_store_entry){address, stored_bytes, max_lsn};
    return 0;
}

/* Under the mutex: what the changes say; QUIRE_CONFLICT: nothing. */
static int look_in_changes(struct qr_store *store, uint64_t pid, struct qr_store_entry *ret_entry)
{
    const struct qr_change *change = qr_changes_find(&store->changes, pid);
    if (change == NULL && store->captured != NULL)
        change = qr_changes_find(store->captured, pid);
    return change == NULL ? QUIRE_CONFLICT : tell(change->address, change->stored_bytes, change->max_lsn, ret_entry);
}

/* Changes and block under one lock: a change that is not in the tables any more is in the block. */
int qr_store_lookup(struct qr_store *store, uint64_t pid, struct qr_store_entry *ret_entry)
{
    for (;;) {
        struct gap gap = {0};
        const struct qr_map_node *block = NULL;
        qr_lock(store);
        int result = look_in_changes(store, pid, ret_entry);
        bool covered = store->top != NULL && pid < qr_mapping_span(store->top->level);
        if (result == QUIRE_CONFLICT && covered)
            block = walk(store, pid, 0, &gap);
        if (block != NULL) {
            const struct qr_entry *entry = &block->as.entries[pid - block->first_pid];
            result = tell(entry->address, entry->stored_bytes, entry->max_lsn, ret_entry);
        }
        qr_unlock(store);
        if (result != QUIRE_CONFLICT)
            return result;
        if (!covered || gap.address == 0)
            return QUIRE_NOT_FOUND;
        result = fill_gap(store, pid, 0, &gap);
        if (result != 0)
            return result;
    }
}

void qr_store_trim(struct qr_store *store)
{
    qr_lock(store);
    for (uint32_t i = 0; store->captured == NULL && store->top != NULL && store->top->level > 0 && i < QR_NODE_CHILDREN;
         i++) {
        qr_mapping_free(store, store->top->children[i]);
        store->top->children[i] = NULL;
    }
    qr_unlock(store);
}

/* ---- All of it -------------------------------------------------------------------------------------------------- */

static int visit_block(struct qr_store *store, uint64_t first_pid, qr_store_visit *visit, void *context)
{
    for (uint64_t pid = first_pid; pid < first_pid + QR_BLOCK_ENTRIES; pid++) {
        struct qr_store_entry entry;
        int result = qr_store_lookup(store, pid, &entry);
        if (result == 0)
            result = visit(context, pid, &entry);
        if (result != 0 && result != QUIRE_NOT_FOUND)
            return result;
    }
    return 0;
}

static int compare_pids(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Under the mutex: copies the ids in the changes, if there is room for them. */
static bool copy_changed(struct qr_store *store, struct qr_change **changes, uint64_t *pids, uint64_t room)
{
    uint64_t count = store->changes.count;
    if (count > room)
        return false;
    qr_changes_list(&store->changes, changes);
    for (uint64_t i = 0; i < count; i++)
        pids[i] = changes[i]->pid;
    return true;
}

/* The ids in the changes, rising. Ids may become free meanwhile. */
static int list_changed(struct qr_store *store, uint64_t **ret_pids, uint64_t *ret_count)
{
    bool complete = false;
    while (!complete) {
        qr_lock(store);
        uint64_t room = store->changes.count + 64;
        qr_unlock(store);
        struct qr_change **changes = qr_calloc(room, sizeof(struct qr_change *));
        uint64_t *pids = qr_calloc(room, sizeof(uint64_t));
        if (changes == NULL || pids == NULL) {
            qr_free(changes);
            qr_free(pids);
            return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for a list of changes");
        }
        qr_lock(store);
        complete = copy_changed(store, changes, pids, room);
        *ret_count = store->changes.count;
        qr_unlock(store);
        qr_free(changes);
        *ret_pids = pids;
        if (!complete)
            qr_free(pids);
    }
    qsort(*ret_pids, *ret_count, sizeof(uint64_t), compare_pids);
    return 0;
}

/* Is there something in the mapping in the span of a node of level 1? */
static int has_blocks(struct qr_store *store, uint64_t first_pid, bool *ret_has)
{
    struct qr_map_node *node = NULL;
    uint32_t level = store->top == NULL ? 0 : (uint32_t)qr_min(store->top->level, 1);
    int result = qr_mapping_get(store, first_pid, level, false, &node);
    *ret_has = node != NULL;
    return result;
}

int qr_store_each(struct qr_store *store, qr_store_visit *visit, void *context)
{
    uint64_t *changed = NULL, count = 0, next = 0;
    int result = list_changed(store, &changed, &count);
    if (result != 0)
        return result;
    uint64_t end = store->top == NULL ? 0 : qr_mapping_span(store->top->level);
    end = count == 0 ? end : qr_max(end, changed[count - 1] + 1);
    for (uint64_t first = 0, span = qr_mapping_span(1); first < end && result == 0; first += span) {
        bool has;
        result = has_blocks(store, first, &has);
        bool has_changes = next < count && changed[next] < first + span;
        while (next < count && changed[next] < first + span)
            next++;
        for (uint64_t pid = first; result == 0 && (has || has_changes) && pid < first + span; pid += QR_BLOCK_ENTRIES)
            result = visit_block(store, pid, visit, context);
    }
    qr_free(changed);
    return result;
}
