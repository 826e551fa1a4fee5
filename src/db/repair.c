/*
 * repair.c: the public repair: the order of its steps, the trees and their names, what is told.
 *
 * Layer 6. See repair.h for the argument. The steps: files of the old store, leaves, catalogue, trees of the log, the new store,
 * records of leaves, writes of the log.
 */
#include "db/repair.h"

#include <stdio.h>

#include "db/inspect.h"

/* ---- What is told ----------------------------------------------------------------------------------------------- */

void qr_repair_tell(struct qr_repair *r, enum quire_loss_kind kind, const char *tree, struct quire_slice low,
                    struct quire_slice high, const char *text)
{
    const struct quire_loss loss = {sizeof(loss), kind, tree, low, high, text};
    r->report.ranges_lost += kind == QUIRE_LOSS_RANGE;
    r->report.values_lost += kind == QUIRE_LOSS_VALUE;
    r->report.logs_lost += kind == QUIRE_LOSS_LOG;
    r->report.names_lost += kind == QUIRE_LOSS_NAME;
    r->report.newest_lost += kind == QUIRE_LOSS_NEWEST;
    if (r->callback != NULL) r->callback(r->context, &loss);
}

static const struct quire_slice no_bound = {NULL, 0};

/* ---- Trees ------------------------------------------------------------------------------------------------------ */

/* Where the tree is or would be. */
static uint32_t index_of(const struct qr_repair *r, uint32_t id)
{
    uint32_t low = 0, high = r->tree_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (r->trees[middle]->id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct qr_repair_tree *qr_repair_tree_find(const struct qr_repair *r, uint32_t id)
{
    uint32_t i = index_of(r, id);
    return i < r->tree_count && r->trees[i]->id == id ? r->trees[i] : NULL;
}

struct qr_repair_tree *qr_repair_tree_get(struct qr_repair *r, uint32_t id)
{
    uint32_t i = index_of(r, id);
    if (i < r->tree_count && r->trees[i]->id == id) return r->trees[i];
    struct qr_repair_tree **larger = qr_grow(r->trees, r->tree_count, &r->tree_room, sizeof(*larger));
    if (larger == NULL) return NULL;
    r->trees = larger;
    struct qr_repair_tree *tree = qr_calloc(1, sizeof(*tree));
    if (tree == NULL) return NULL;
    tree->id = id;
    quire_tree_options_init(&tree->options);
    memmove(&r->trees[i + 1], &r->trees[i], (r->tree_count - i) * sizeof(struct qr_repair_tree *));
    r->trees[i] = tree;
    r->tree_count++;
    return tree;
}

static void free_trees(struct qr_repair *r)
{
    for (uint32_t i = 0; i < r->tree_count; i++) {
        qr_free(r->trees[i]->pieces);
        qr_free(r->trees[i]);
    }
    qr_free(r->trees);
}

bool qr_repair_take_tree(struct qr_repair *r, struct quire_slice key, struct quire_slice value, int *ret_result)
{
    struct qr_catalogue_tree said;
    *ret_result = 0;
    if (!qr_db_catalogue_describe(key, value, &said)) return false;
    struct qr_repair_tree *tree = qr_repair_tree_get(r, said.id);
    if (tree == NULL) {
        *ret_result = qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for a tree");
        return true;
    }
    if (tree->named && strcmp(tree->name, said.name) != 0) return false;
    tree->safe_version = tree->named ? qr_max(tree->safe_version, said.safe_version) : said.safe_version;
    tree->named = true;
    tree->options = said.options;
    tree->caller_versions = said.options.versions == QUIRE_VERSIONS_CALLER;
    memcpy(tree->name, said.name, sizeof(tree->name));
    return true;
}

/* A tree that the checkpoint lists has a page. */
static int expect_page(struct qr_repair_tree *tree)
{
    if (tree->piece_count != 0) return 0;
    tree->pieces = qr_calloc(1, sizeof(*tree->pieces));
    if (tree->pieces == NULL) return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for a map of the keys");
    tree->pieces[0] = (struct qr_laid_piece){.low = {"", 0}, .infinite = true};
    tree->piece_count = 1;
    return 0;
}

static int take_listed(struct qr_repair *r, const struct qr_page *page, uint32_t i)
{
    const uint8_t *record = qr_leaf_record(page, i);
    struct quire_slice value = {qr_record_value(record, false, page->align_log2), qr_record_value_size(record)};
    struct qr_catalogue_tree said;
    int result = 0;
    if (qr_record_kind(record) != QR_RECORD_PUT) return 0;
    if (!qr_repair_take_tree(r, qr_leaf_key(page, i), value, &result))
        r->catalogue_lost = true;
    else if (result == 0 && qr_db_catalogue_describe(qr_leaf_key(page, i), value, &said))
        result = expect_page(qr_repair_tree_find(r, said.id));
    return result;
}

/* The newest record of each name in a piece of the catalogue. */
static int read_list(struct qr_repair *r, const struct qr_laid_piece *piece)
{
    struct qr_page *page;
    uint32_t first, end;
    if (qr_repair_is_lost(piece)) {
        r->catalogue_lost = true;
        qr_repair_tell(r, QUIRE_LOSS_NAME, NULL, piece->low, piece->infinite ? no_bound : piece->high,
                       "the list of trees does not verify there");
        return 0;
    }
    int result = qr_repair_read_leaf(r, piece->from, &page);
    if (result != 0) return result;
    if (qr_page_caller(page)) {
        r->catalogue_lost = true; /* nobody writes such */
        qr_free_aligned(page);
        return 0;
    }
    qr_repair_records(page, piece, &first, &end);
    for (uint32_t i = first; i < end && result == 0; i++) {
        struct quire_slice key = qr_leaf_key(page, i), before = i == first ? no_bound : qr_leaf_key(page, i - 1);
        if (i == first || qr_compare(key.data, key.size, before.data, before.size) != 0) result = take_listed(r, page, i);
    }
    qr_free_aligned(page);
    return result;
}

/* The list of trees at the checkpoint. */
static int read_catalogue(struct qr_repair *r)
{
    struct qr_repair_tree *catalogue = qr_repair_tree_get(r, 0);
    int result = catalogue == NULL ? qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for the trees") : expect_page(catalogue);
    for (uint32_t i = 0; result == 0 && i < catalogue->piece_count; i++) result = read_list(r, &catalogue->pieces[i]);
    return result;
}

static bool is_taken(const struct qr_repair *r, const char *name)
{
    for (uint32_t i = 0; i < r->tree_count; i++)
        if (r->trees[i]->named && strcmp(r->trees[i]->name, name) == 0) return true;
    return false;
}

/* Trees whose record was lost get names made of their numbers. If no record can have been lost, a tree without one is none: its
 * creation did not come to be (D-7). */
static void name_trees(struct qr_repair *r)
{
    if (!r->catalogue_lost && !r->manifest_lost && !r->log_lost) return;
    for (uint32_t i = 0; i < r->tree_count; i++) {
        struct qr_repair_tree *tree = r->trees[i];
        if (tree->id == 0 || tree->named) continue;
        snprintf(tree->name, sizeof(tree->name), "tree-%u", tree->id);
        for (uint32_t n = 2; is_taken(r, tree->name); n++) /* a name that is free comes before there are no more trees */
            snprintf(tree->name, sizeof(tree->name), "tree-%u+%u", tree->id, n);
        tree->named = true;
        qr_repair_tell(r, QUIRE_LOSS_NAME, tree->name, no_bound, no_bound, "the name and options of a tree are lost");
    }
}

/* ---- The old store ---------------------------------------------------------------------------------------------- */

static int read_old(struct qr_repair *r)
{
    const struct qr_db_files *files = r->from->files;
    const uint8_t *store_id = r->manifest_lost ? NULL : qr_manifest_header(files->manifest)->store_id;
    int result = qr_salvage_open(files->dir, store_id, &r->store, &r->report.segments_damaged);
    /* Before the first checkpoint everything is in the log, and no image counts. */
    if (result == 0 && (r->manifest_lost || r->from->checkpointer.record.number != 0)) {
        result = qr_repair_lay(r);
        if (result == 0) result = read_catalogue(r);
    }
    if (result == 0) result = qr_repair_log_trees(r);
    if (result == 0) name_trees(r);
    return result;
}

/* ---- The new store ---------------------------------------------------------------------------------------------- */

static int write_new(struct qr_repair *r)
{
    int result = qr_repair_fill(r);
    if (result == 0) result = qr_repair_log(r);
    if (result == 0) result = qr_repair_finish_values(r);
    return result == 0 ? quire_checkpoint(r->to) : result;
}

static bool is_incomplete(const struct quire_repair_report *report)
{
    return report->ranges_lost + report->values_lost + report->logs_lost + report->names_lost + report->newest_lost != 0;
}

int qr_db_repair(const char *from, const char *to, struct qr_disk *disk, quire_loss_callback *callback, void *context,
                 struct quire_repair_report *ret_report)
{
    struct qr_repair r = {.callback = callback, .context = context};
    if (from == NULL || to == NULL) return qr_fail(QUIRE_ERR_INVALID, 0, "a path is NULL");
    if (ret_report != NULL && ret_report->struct_size < sizeof(ret_report->struct_size))
        return qr_fail(QUIRE_ERR_INVALID, 0, "ret_report->struct_size is not set");
    int result = qr_repair_open_old(&r, from, disk);
    if (result == 0) result = qr_repair_open_new(&r, to, disk); /* early: so that nothing is read in vain */
    if (result == 0) result = read_old(&r);
    if (result == 0) result = write_new(&r);
    result = qr_repair_close_new(&r, to, result);
    qr_repair_fill_done(&r);
    qr_repair_lay_done(&r);
    free_trees(&r);
    qr_store_close(r.store);
    qr_db_inspect_close(r.from);
    if (result != 0) return result;
    if (ret_report != NULL) {
        size_t size = ret_report->struct_size;
        qr_db_hand_out(ret_report, size, &r.report, sizeof(r.report));
        ret_report->struct_size = size;
    }
    return is_incomplete(&r.report) ? QUIRE_INCOMPLETE : 0;
}

int quire_repair(const char *from, const char *to, quire_loss_callback *callback, void *context,
                 struct quire_repair_report *ret_report)
{
    return qr_db_repair(from, to, NULL, callback, context, ret_report);
}
