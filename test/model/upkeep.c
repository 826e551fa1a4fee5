/*
 * The model test's snapshots, maintenance, dropped pages, structure checks and phases.
 *
 * Test program (model). One thread.
 */
#include "model.h"

#include <inttypes.h>

/* ---- Snapshots -------------------------------------------------------------------------------------------------- */

void model_take_snapshot(struct model *model, struct model_tree *tree)
{
    (void)tree;
    if (model->snapshot_count == MODEL_SNAPSHOTS_MAX)
        return;
    struct model_snapshot *snapshot = &model->snapshots[model->snapshot_count];

    model_trace(model, "snapshot");
    if (!EXPECT_RESULT(model, quire_snapshot(model->db, "model.snapshot", &snapshot->handle), 0))
        return;
    snapshot->lsn = model->last_lsn;
    EXPECT(model, quire_snapshot_lsn(snapshot->handle) >= snapshot->lsn, "snapshot at %" PRIu64 " after lsn %" PRIu64,
           quire_snapshot_lsn(snapshot->handle), snapshot->lsn);
    model->snapshot_count++;
}

static void release_snapshot(struct model *model, size_t index)
{
    EXPECT_RESULT(model, quire_snapshot_release(model->snapshots[index].handle), 0);
    model->snapshots[index] = model->snapshots[--model->snapshot_count];
}

void model_release_snapshot(struct model *model, struct model_tree *tree)
{
    (void)tree;
    if (model->snapshot_count == 0)
        return;
    model_trace(model, "release a snapshot");
    release_snapshot(model, (size_t)random_below(&model->random, model->snapshot_count));
}

void model_release_snapshots(struct model *model)
{
    while (model->snapshot_count != 0)
        release_snapshot(model, model->snapshot_count - 1);
}

/* ---- Maintenance ------------------------------------------------------------------------------------------------ */

void model_maintain(struct model *model, struct model_tree *tree)
{
    (void)tree;
    model_trace(model, "maintain");
    int result = quire_maintain(model->db);
    if (model->pinned)
        EXPECT_RESULT(model, result, QUIRE_ERR_BUSY);
    else
        EXPECT(model, result == 0 || result == QUIRE_MORE, "result %d", result);
}

void model_settle(struct model *model)
{
    int result = QUIRE_MORE;
    for (unsigned i = 0; i < 1000000 && result == QUIRE_MORE; i++)
        result = quire_maintain(model->db);
    EXPECT_RESULT(model, result, 0);
}

void model_consolidate(struct model *model, struct model_tree *tree)
{
    unsigned percent = (unsigned)random_between(&model->random, 1, 100);
    model_trace(model, "consolidate %u %%", percent);
    int result = qr_testing_consolidate(tree->handle, random_next(&model->random), percent);
    EXPECT(model, result >= 0, "result %d", result);
}

void model_drop_pages(struct model *model)
{
    unsigned percent = random_chance(&model->random, 5) ? 100 : (unsigned)random_between(&model->random, 1, 20);
    uint64_t dropped = qr_testing_drop_pages(model->db, random_next(&model->random), percent);
    model_trace(model, "dropped %" PRIu64 " pages", dropped);
    model->pages_dropped += dropped;
}

void model_check_structure(struct model *model)
{
    char message[512] = "";
    model_trace(model, "structure check");
    for (size_t i = 0; i < model->tree_count; i++) {
        int result = qr_testing_check(model->trees[i].handle, message, sizeof(message));
        EXPECT(model, result == 0, "tree %s: structure check says %d: %s", model->trees[i].name, result, message);
    }
}

/* ---- Phases ----------------------------------------------------------------------------------------------------- */

/* Trees grow, stay and shrink in turn, so that splits and merges of leaves and inner pages happen. */
void model_change_phase(struct model *model, struct model_tree *tree)
{
    tree->phase = (enum model_phase)random_below(&model->random, MODEL_PHASE_COUNT);
    model_trace(model, "phase %d", (int)tree->phase);
    if (random_chance(&model->random, 25))
        model_mass_delete(model, tree, random_chance(&model->random, 40));
}
