/*
 * Trees that clients make while others work, open again, and give other sizes of pages.
 *
 * Making a tree is a write of its cell in the list (sim.h), and so is giving it other sizes; opening one that is there is a read of it, and
 * so is what must_exist, must_create and options that differ are answered.
 *
 * MAKE-1  One call makes a tree, whoever else wants to at the same time; all that open it have the same handle.
 * MAKE-2  What was written to a tree comes behind the record that makes it: an image that shows some of it has the tree (EXPECT-1).
 * MAKE-3  A call that opens a tree, or is told that it is there, may count on it as the call that makes it may when it returns.
 */
#include <string.h>

#include "db/db.h"
#include "sim/sim.h"

#define INNER_BYTES 512u
#define DEFAULT_BYTES 8192u

/* The sizes of inner pages follow from those of leaves. */
static uint32_t inner_of(uint32_t leaf_bytes)
{
    return leaf_bytes == 0 || leaf_bytes == DEFAULT_BYTES ? leaf_bytes : INNER_BYTES;
}

static struct quire_tree_options options_of(struct made given)
{
    struct quire_tree_options options;
    quire_tree_options_init(&options);
    options.leaf_page_size_bytes = given.leaf_bytes;
    options.inner_page_size_bytes = inner_of(given.leaf_bytes);
    options.value_alignment = given.alignment;
    options.must_exist = given.mode == MADE_MUST_EXIST;
    options.must_create = given.mode == MADE_MUST_CREATE;
    return options;
}

/* ---- What can be ------------------------------------------------------------------------------------------------ */

bool make_fits(const struct op *op, uint64_t before)
{
    struct made given = made_unpack(op->expected), is = made_unpack(op->cell), was = made_unpack(before);
    if (before == 0) return given.mode != MADE_MUST_EXIST;
    if (given.mode == MADE_MUST_CREATE || is.leaf_bytes != given.leaf_bytes || is.leaf_bytes == was.leaf_bytes) return false;
    was.leaf_bytes = is.leaf_bytes;
    return made_pack(was) == op->cell && (given.alignment == 0 || given.alignment == was.alignment);
}

bool make_explains(const struct op *op, uint64_t cell)
{
    struct made given = made_unpack(op->expected), was = made_unpack(cell), seen = made_unpack(op->cell);
    bool differs = given.alignment != 0 && given.alignment != was.alignment;
    if (op->result == QUIRE_NOT_FOUND) return given.mode == MADE_MUST_EXIST && cell == 0;
    if (cell == 0) return false;
    if (op->result == QUIRE_ERR_INVALID) return given.mode != MADE_MUST_CREATE && differs;
    if (given.mode == MADE_MUST_CREATE) return op->cell == 0;
    bool same = seen.id == was.id && seen.alignment == was.alignment;
    return same && !differs && (given.leaf_bytes == 0 || given.leaf_bytes == was.leaf_bytes);
}

/* ---- What clients do -------------------------------------------------------------------------------------------- */

/* The tree that has the name, or NULL; under the mutex of trees. */
static const struct quire_tree *find(const struct life *life, const char *name)
{
    uint32_t count;
    struct quire_tree **handles = qr_db_handles(life->db, &count);
    for (uint32_t id = 1; id < count; id++)
        if (strcmp(handles[id]->name, name) == 0) return handles[id];
    return NULL;
}

uint64_t make_written(struct life *life, const struct op *op)
{
    const struct quire_tree *tree = find(life, list_name(op->key));
    struct made made = made_unpack(op->expected);
    uint32_t count;
    qr_db_handles(life->db, &count);
    made.mode = MADE_EITHER;
    made.id = tree != NULL ? tree->tree.id : count;
    if (tree != NULL) made.alignment = 1u << tree->tree.settings.align_log2;
    if (made.alignment == 0) made.alignment = 1;
    if (made.leaf_bytes == 0) made.leaf_bytes = DEFAULT_BYTES;
    return made_pack(made);
}

/* MAKE-3. The call that makes it has not returned, but somebody was told: of those that are under way, the one that reserved first. */
static void note_told(struct life *life, uint32_t key)
{
    struct op *make = NULL;
    if (life->made[key]) return;
    life->made[key] = true;
    for (uint32_t i = 0; i < life->client_count; i++) {
        struct op *op = life->current[i];
        bool may = op != NULL && op->kind == OP_MAKE && op->key == key && op->attempt_count != 0;
        if (may && (make == NULL || op_last_attempt(op)->lsn < op_last_attempt(make)->lsn)) make = op;
    }
    if (make != NULL) list_told(life, make);
}

static struct made random_given(struct random_stream *random)
{
    static const uint32_t leaves[] = {0, 512, 512, 1024}, alignments[] = {0, 0, 1, 8};
    uint64_t dice = random_below(random, 10);
    return (struct made){.leaf_bytes = leaves[random_below(random, 4)],
                         .alignment = alignments[random_below(random, 4)],
                         .mode = dice < 2 ? MADE_MUST_EXIST : dice < 4 ? MADE_MUST_CREATE : MADE_EITHER};
}

/* MAKE-1. Of a tree that was opened: what its handle says, which does not change. */
static void take_handle(struct life *life, struct op *op, struct quire_tree *tree, bool wrote)
{
    struct quire_tree **known = &life->trees[tree_of_cell(op->key)];
    struct quire_tree_options options = {.struct_size = sizeof(options)};
    int result = quire_tree_options_get(tree, &options);
    if (result != 0 || options.versions != QUIRE_VERSIONS_ENGINE || options.page_chain_length != 8)
        sim_fail(life, "the options of a tree are not those that it was made with");
    struct made made = {.id = tree->tree.id, .alignment = options.value_alignment};
    struct made written = made_unpack(op->cell);
    if (!wrote) op->cell = made_pack(made);
    if (wrote && (written.id != made.id || written.alignment != made.alignment)) sim_fail(life, "a tree is not the one that was made");
    if (*known != NULL && *known != tree) sim_fail(life, "a tree that is opened again has another handle");
    *known = tree;
}

void make_tree(struct life *life, unsigned client, struct random_stream *random, uint32_t key)
{
    struct made given = random_given(random);
    struct quire_tree_options options = options_of(given);
    struct quire_tree *tree = NULL;
    struct op *op = life_begin_op(life, client, OP_MAKE, LIST, key);
    if (op == NULL) return;
    op->expected = made_pack(given);
    op->durable = !life->off && life->plan->level == QUIRE_LEVEL_DURABLE;
    int result = quire_tree_open(life->db, list_name(key), &options, &tree);
    bool wrote = op->attempt_count != 0;
    if (wrote) op->lsn = op_last_attempt(op)->lsn;
    if (result == 0) take_handle(life, op, tree, wrote);
    bool is_there = result == 0 || result == QUIRE_EXISTS || result == QUIRE_ERR_INVALID;
    if (is_there && !wrote) note_told(life, key);
    sim_counts.opened += result == 0 && !wrote;
    sim_counts.made += result == 0 && wrote && !life->made[key];
    sim_counts.adopted += result == 0 && wrote && life->made[key];
    if (wrote && (result == 0 || result == QUIRE_ERR_UNKNOWN)) life->made[key] = true;
    life_end_op(life, op, result == 0 && !wrote ? QUIRE_EXISTS : result);
}

/* ---- After an opening ------------------------------------------------------------------------------------------- */

int make_look(struct life *life, uint32_t key, uint64_t *ret_cell)
{
    struct quire_tree_options options = options_of((struct made){.mode = MADE_MUST_EXIST});
    struct quire_tree *tree = NULL;
    int result = quire_tree_open(life->db, list_name(key), &options, &tree);
    if (result != 0) return result == QUIRE_NOT_FOUND ? 0 : result;
    result = quire_tree_options_get(tree, &options);
    if (result != 0) return result;
    if (options.inner_page_size_bytes != inner_of(options.leaf_page_size_bytes) || options.versions != QUIRE_VERSIONS_ENGINE)
        sim_fail(life, "the options of a tree are not those that it was made with");
    *ret_cell = made_pack((struct made){
        .id = tree->tree.id, .leaf_bytes = options.leaf_page_size_bytes, .alignment = options.value_alignment});
    life->trees[tree_of_cell(key)] = tree;
    return 0;
}
