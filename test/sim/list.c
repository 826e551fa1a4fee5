/*
 * The list of trees: which are there, with what ids and options, and how far the safe version of one is raised.
 *
 * Each is a cell (sim.h). The call that changes one does not tell the LSN of its record; but what it reserves has a known size, and the
 * first point after that comes before anybody else has reserved.
 *
 * LIST-1  No two trees have the same id, and a tree keeps its own as long as it is there, whoever opens the store.
 * LIST-2  The list has the trees that are there, and no others.
 */
#include <stdio.h>
#include <string.h>

#include "db/db.h"
#include "log/frame.h"
#include "sim/sim.h"

#define RECORD_BYTES 48u /* what the list says of a tree */
#define LONG_NAME \
    "a name of many bytes: one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen " \
    "seventeen eighteen nineteen twenty twenty-one twenty-two"

const char *list_name(uint32_t key)
{
    /* Also the default tree, and a name whose length takes two bytes. */
    static const char *const names[LIST_CELLS] = {
        VERSIONED_NAME, "", "late", LONG_NAME};
    return names[key];
}

uint64_t list_reserved_lsn(const struct life *life, uint32_t key)
{
    const struct qr_frame frame = {.key_size = (uint32_t)strlen(list_name(key)), .value_size = RECORD_BYTES};
    return qr_log_tail(&life->db->log) - qr_frame_size(&frame);
}

int list_record_lsn(struct life *life, uint32_t key, uint64_t *ret_lsn)
{
    struct quire_guard guard;
    struct quire_value record;
    int result = quire_pin(life->db, "look", &guard);
    if (result != 0) return result;
    result = quire_guard_get(&guard, life->db->catalogue, NULL, list_name(key), strlen(list_name(key)), &record);
    if (result == 0) *ret_lsn = record.lsn;
    if (result == 0 && record.size != RECORD_BYTES) sim_fail(life, "a record of the list of trees has %zu bytes", record.size);
    quire_unpin(&guard);
    return result == QUIRE_NOT_FOUND ? 0 : result;
}

/* What is in force, or there for others, is as durable as the level says (SAFE-2, MAKE-3). */
void list_told(struct life *life, struct op *op)
{
    op->shown = life->time++;
    if (op->durable && !life->faulty) life_is_durable(life, op_last_attempt(op)->lsn);
}

/* ---- What is there ---------------------------------------------------------------------------------------------- */

/* LIST-1 */
static void check_ids(struct life *life)
{
    for (uint32_t a = 0; a < SIM_TREES; a++) {
        if (life->trees[a] == NULL) continue;
        uint32_t id = life->trees[a]->tree.id;
        if (a < LIST && life->image.ids[a] != 0 && life->image.ids[a] != id)
            sim_fail(life, "tree %u has the id %u, and had %u before", a, id, life->image.ids[a]);
        for (uint32_t b = 0; b < a; b++)
            if (life->trees[b] != NULL && life->trees[b]->tree.id == id) sim_fail(life, "trees %u and %u have the id %u", b, a, id);
    }
}

/* LIST-2 */
static int check_names(struct life *life)
{
    char **names = NULL;
    size_t count = 0;
    uint32_t there = 0, found = 0;
    int result = quire_tree_list(life->db, &names, &count);
    if (result != 0) return result;
    for (uint32_t t = 0; t < SIM_TREES; t++) there += life->trees[t] != NULL;
    for (uint32_t key = 1; key < LIST_CELLS; key++)
        for (size_t i = 0; i < count; i++)
            if (strcmp(names[i], list_name(key)) == 0 && life->trees[tree_of_cell(key)] != NULL) found++;
    for (uint32_t key = 1; key < LIST_CELLS; key++) there -= life->trees[tree_of_cell(key)] != NULL;
    if (count != there + found) sim_fail(life, "%zu trees are listed, and %u are there", count, there + found);
    quire_free(names);
    return 0;
}

int list_look(struct life *life, struct contents *ret_contents, uint64_t (*ret_lsns)[CELLS])
{
    uint64_t *cells = ret_contents->cells[LIST];
    int result = safe_look(life, &cells[SAFE_CELL]);
    for (uint32_t key = 1; key < LIST_CELLS && result == 0; key++) result = make_look(life, key, &cells[key]);
    for (uint32_t key = 0; key < LIST_CELLS && result == 0; key++)
        if (cells[key] != 0) result = list_record_lsn(life, key, &ret_lsns[LIST][key]);
    if (result != 0) return result;
    check_ids(life);
    return check_names(life);
}
