/*
 * The model test's operations in trees with caller versions: writes that arrive in any order, reads at any version.
 *
 * Test program (model). One thread.
 */
#include "model.h"

#include <inttypes.h>

/* A version above the safe one, somewhere around the frontier, which moves on. */
static uint64_t draw_write_version(struct model *model, struct model_tree *tree)
{
    tree->frontier += random_below(&model->random, 2);
    uint64_t lowest = tree->frontier > 200 ? tree->frontier - 200 : 0;
    if (tree->safe != 0 && lowest <= tree->safe)
        lowest = tree->safe + 1;
    return random_between(&model->random, lowest, tree->frontier > lowest ? tree->frontier + 50 : lowest);
}

/* Sometimes the last (key, version) again: the last completed write of a pair wins. */
static size_t draw_write(struct model *model, struct model_tree *tree, uint64_t *ret_version)
{
    uint64_t index;
    if (random_chance(&model->random, 5) && tree->last_version > tree->safe) {
        *ret_version = tree->last_version;
        return key_make_mixed(tree->last_index, tree->long_keys, model->key);
    }
    size_t key_size = model_draw_key(model, tree, &index);
    *ret_version = draw_write_version(model, tree);
    tree->last_index = index;
    tree->last_version = *ret_version;
    return key_size;
}

void model_put_at(struct model *model, struct model_tree *tree)
{
    uint64_t version, lsn = 0;
    size_t key_size = draw_write(model, tree, &version);
    size_t size = model_draw_value(model, tree);

    model_trace(model, "put at %" PRIu64 ", %zu bytes", version, size);
    int result = quire_put_at(tree->handle, version, model->key, key_size, model->value, size, model_draw_flags(model), &lsn);
    if (!EXPECT_RESULT(model, result, 0))
        return;
    EXPECT(model, lsn > model->last_lsn, "lsn %" PRIu64 " after %" PRIu64, lsn, model->last_lsn);
    model->last_lsn = lsn;
    oracle_put(tree->oracle, model->key, key_size, version, lsn, model->value, size);
}

void model_delete_at(struct model *model, struct model_tree *tree)
{
    uint64_t version, lsn = 0;
    size_t key_size = draw_write(model, tree, &version);

    model_trace(model, "delete at %" PRIu64, version);
    int result = quire_delete_at(tree->handle, version, model->key, key_size, model_draw_flags(model), &lsn);
    if (!EXPECT_RESULT(model, result, 0))
        return;
    EXPECT(model, lsn > model->last_lsn, "lsn %" PRIu64 " after %" PRIu64, lsn, model->last_lsn);
    model->last_lsn = lsn;
    oracle_delete(tree->oracle, model->key, key_size, version, lsn);
}

/* At or below the safe version nothing can be written. */
void model_put_too_old(struct model *model, struct model_tree *tree)
{
    if (tree->safe == 0)
        return;
    size_t key_size = model_draw_key(model, tree, NULL);
    uint64_t version = random_between(&model->random, 0, tree->safe);
    if (random_chance(&model->random, 30))
        version = tree->safe;

    model_trace(model, "write at %" PRIu64 ", safe %" PRIu64, version, tree->safe);
    EXPECT_RESULT(model, quire_put_at(tree->handle, version, model->key, key_size, "old", 3, 0, NULL),
                  QUIRE_ERR_LSN_TOO_OLD);
    EXPECT_RESULT(model, quire_delete_at(tree->handle, version, model->key, key_size, 0, NULL), QUIRE_ERR_LSN_TOO_OLD);
}

static uint64_t draw_read_version(struct model *model, const struct model_tree *tree)
{
    uint64_t lot = random_below(&model->random, 100);
    if (lot < 25)
        return UINT64_MAX;
    if (lot < 30)
        return tree->safe;
    if (lot < 33)
        return random_below(&model->random, tree->safe + 1);
    uint64_t lowest = tree->frontier > 300 ? tree->frontier - 300 : 0;
    if (lowest < tree->safe)
        lowest = tree->safe;
    return random_between(&model->random, lowest, lowest + 400);
}

void model_get_at(struct model *model, struct model_tree *tree)
{
    struct oracle_value right = {0};
    uint64_t version = draw_read_version(model, tree);
    size_t key_size = model_draw_key(model, tree, NULL);
    size_t size = 0;

    model_trace(model, "get at %" PRIu64, version);
    int result = quire_get_at(tree->handle, version, model->key, key_size, model->read, MODEL_VALUE_MAX_BYTES, &size);
    if (version < tree->safe) {
        EXPECT_RESULT(model, result, QUIRE_ERR_LSN_TOO_OLD);
        return;
    }
    bool present = oracle_get(tree->oracle, version, model->key, key_size, &right);
    if (EXPECT_RESULT(model, result, present ? 0 : QUIRE_NOT_FOUND) && present)
        EXPECT(model, size == right.size && memcmp(model->read, right.data, size) == 0,
               "value of %zu bytes differs from version %" PRIu64 " of %zu bytes", size, right.version, right.size);
}

void model_guard_get_at(struct model *model, struct model_tree *tree)
{
    struct oracle_value right = {0};
    struct quire_value value = {0};
    struct quire_guard guard;
    uint64_t version = draw_read_version(model, tree);
    size_t key_size = model_draw_key(model, tree, NULL);

    model_trace(model, "guard get at %" PRIu64, version);
    EXPECT_RESULT(model, quire_pin(model->db, "model.at", &guard), 0);
    int result = quire_guard_get_at(&guard, tree->handle, version, model->key, key_size, &value);
    if (version < tree->safe) {
        EXPECT_RESULT(model, result, QUIRE_ERR_LSN_TOO_OLD);
    } else {
        bool present = oracle_get(tree->oracle, version, model->key, key_size, &right);
        if (EXPECT_RESULT(model, result, present ? 0 : QUIRE_NOT_FOUND) && present) {
            EXPECT(model, value.version == right.version && value.lsn == right.lsn,
                   "version %" PRIu64 " lsn %" PRIu64 ", not %" PRIu64 " and %" PRIu64, value.version, value.lsn,
                   right.version, right.lsn);
            EXPECT(model, value.size == right.size && memcmp(value.data, right.data, value.size) == 0,
                   "value of %zu bytes differs", value.size);
            EXPECT(model, (uintptr_t)value.data % tree->value_alignment == 0, "alignment of %p", value.data);
        }
    }
    EXPECT_RESULT(model, quire_unpin(&guard), 0);
}

void model_raise_safe(struct model *model, struct model_tree *tree)
{
    uint64_t answer = 0;
    uint64_t version = tree->frontier > 100 ? tree->frontier - random_below(&model->random, 100) - 1 : 1;

    model_trace(model, "safe version %" PRIu64, version);
    EXPECT_RESULT(model, quire_set_safe_lsn(tree->handle, version), 0);
    if (version > tree->safe)
        tree->safe = version;
    if (random_chance(&model->random, 30))
        EXPECT_RESULT(model, quire_set_safe_lsn(tree->handle, tree->safe / 2), 0); /* ignored */
    EXPECT_RESULT(model, quire_safe_lsn(tree->handle, &answer), 0);
    EXPECT(model, answer == tree->safe, "safe version %" PRIu64 ", not %" PRIu64, answer, tree->safe);
}

/* What the tree's kind of versions does not offer is refused, and changes nothing (the next reads would tell). */
void model_refused(struct model *model, struct model_tree *tree)
{
    size_t key_size = model_draw_key(model, tree, NULL);
    size_t size = 5;
    int result;

    if (tree->caller_versions) {
        result = random_chance(&model->random, 50)
                     ? quire_put(tree->handle, model->key, key_size, "x", 1, 0, NULL)
                     : quire_get(tree->handle, NULL, model->key, key_size, model->read, 1, &size);
    } else {
        result = random_chance(&model->random, 50)
                     ? quire_put_at(tree->handle, 1, model->key, key_size, "x", 1, 0, NULL)
                     : quire_get_at(tree->handle, UINT64_MAX, model->key, key_size, model->read, 1, &size);
    }
    EXPECT_RESULT(model, result, QUIRE_ERR_UNSUPPORTED);
    EXPECT(model, size == 5, "output of a refused call was set to %zu", size);
}
