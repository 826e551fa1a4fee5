/*
 * The model test's writes in trees with engine versions.
 *
 * Test program (model). One thread.
 */
#include "model.h"

#include <inttypes.h>

/* The newest value according to the oracle. */
static bool newest(const struct model *model, const struct model_tree *tree, size_t key_size, struct oracle_value *ret)
{
    return oracle_get(tree->oracle, UINT64_MAX, model->key, key_size, ret);
}

/* A write took `lsn`: above all earlier ones, and the database knows it. */
static void expect_lsn(struct model *model, uint64_t lsn)
{
    uint64_t last = 0;
    EXPECT(model, lsn > model->last_lsn, "lsn %" PRIu64 " after %" PRIu64, lsn, model->last_lsn);
    EXPECT_RESULT(model, quire_last_lsn(model->db, &last), 0);
    EXPECT(model, last >= lsn, "last lsn %" PRIu64 " below %" PRIu64, last, lsn);
    model->last_lsn = lsn;
}

static void record_put(struct model *model, struct model_tree *tree, size_t key_size, uint64_t lsn, const void *value,
                       size_t value_size)
{
    expect_lsn(model, lsn);
    oracle_put(tree->oracle, model->key, key_size, lsn, lsn, value, value_size);
}

void model_put(struct model *model, struct model_tree *tree)
{
    uint64_t lsn = 0;
    size_t key_size = model_draw_key(model, tree, NULL);
    size_t size = model_draw_value(model, tree);

    model_trace(model, "put %zu bytes", size);
    int result = quire_put(tree->handle, model->key, key_size, model->value, size, model_draw_flags(model), &lsn);
    if (EXPECT_RESULT(model, result, 0))
        record_put(model, tree, key_size, lsn, model->value, size);
}

static void delete_key(struct model *model, struct model_tree *tree, size_t key_size)
{
    struct oracle_value old;
    uint64_t lsn = 0;
    int existed = -1;
    bool ask = random_chance(&model->random, 50);
    bool present = newest(model, tree, key_size, &old);

    model_trace(model, "delete%s", ask ? " (existed)" : "");
    int result = quire_delete(tree->handle, model->key, key_size, model_draw_flags(model), ask ? &existed : NULL, &lsn);
    if (!EXPECT_RESULT(model, result, 0))
        return;
    if (ask)
        EXPECT(model, existed == (int)present, "existed %d, not %d", existed, (int)present);
    if (!ask || present) {
        expect_lsn(model, lsn);
        oracle_delete(tree->oracle, model->key, key_size, lsn, lsn);
    }
}

void model_delete(struct model *model, struct model_tree *tree)
{
    delete_key(model, tree, model_draw_key(model, tree, NULL));
}

void model_insert(struct model *model, struct model_tree *tree)
{
    struct oracle_value old;
    uint64_t lsn = 0;
    size_t key_size = model_draw_key(model, tree, NULL);
    size_t size = model_draw_value(model, tree);
    bool present = newest(model, tree, key_size, &old);

    model_trace(model, "insert %zu bytes", size);
    int result = quire_insert(tree->handle, model->key, key_size, model->value, size, model_draw_flags(model), &lsn);
    if (EXPECT_RESULT(model, result, present ? QUIRE_EXISTS : 0) && !present)
        record_put(model, tree, key_size, lsn, model->value, size);
}

void model_compare_and_swap(struct model *model, struct model_tree *tree)
{
    struct oracle_value old = {0};
    uint64_t lsn = 0;
    size_t key_size = model_draw_key(model, tree, NULL);
    size_t size = model_draw_value(model, tree);
    bool present = newest(model, tree, key_size, &old);

    /* Usually the present value; else one that differs in its size, or in its last byte only. */
    size_t expected_size = old.size;
    uint8_t *expected = model->read;
    if (old.size != 0)
        memcpy(expected, old.data, old.size);
    bool equal = random_chance(&model->random, 60);
    if (!equal && (old.size == 0 || random_chance(&model->random, 50)))
        expected[expected_size++] = 0;
    else if (!equal)
        expected[expected_size - 1] ^= 0x80;

    model_trace(model, "compare_and_swap %s, %zu bytes", equal ? "equal" : "unequal", size);
    int result = quire_compare_and_swap(tree->handle, model->key, key_size, expected, expected_size, model->value, size,
                                        0, &lsn);
    int right = !present ? QUIRE_NOT_FOUND : (equal ? 0 : QUIRE_CONFLICT);
    if (EXPECT_RESULT(model, result, right) && right == 0)
        record_put(model, tree, key_size, lsn, model->value, size);
}

void model_add(struct model *model, struct model_tree *tree)
{
    struct oracle_value old = {0};
    int64_t before = 0, sum = 0, answer = 77;
    uint64_t lsn = 0;
    size_t key_size = model_draw_key(model, tree, NULL);
    bool present = newest(model, tree, key_size, &old);
    int64_t delta = (int64_t)random_next(&model->random) >> random_below(&model->random, 64);
    int right = 0;

    if (present && old.size != sizeof(before))
        right = QUIRE_ERR_WRONG_TYPE;
    else if (present)
        memcpy(&before, old.data, sizeof(before));
    if (right == 0 && __builtin_add_overflow(before, delta, &sum))
        right = QUIRE_ERR_OVERFLOW;

    model_trace(model, "add %" PRId64, delta);
    int result = quire_add(tree->handle, model->key, key_size, delta, model_draw_flags(model), &answer, &lsn);
    if (!EXPECT_RESULT(model, result, right))
        return;
    EXPECT(model, answer == (right == 0 ? sum : 77), "sum %" PRId64 ", not %" PRId64, answer, sum);
    if (right == 0)
        record_put(model, tree, key_size, lsn, &sum, sizeof(sum));
}

void model_any_write(struct model *model, struct model_tree *tree)
{
    static model_operation *const operations[] = {model_put, model_put, model_delete, model_insert};
    if (tree->caller_versions)
        model_put_at(model, tree);
    else
        operations[random_below(&model->random, 4)](model, tree);
}

/* ---- Mass deletion ---------------------------------------------------------------------------------------------- */

static void delete_item(struct model *model, struct model_tree *tree, const struct oracle_item *item)
{
    memcpy(model->key, item->key, item->key_size);
    if (!tree->caller_versions) {
        delete_key(model, tree, item->key_size);
    } else {
        uint64_t lsn = 0;
        int result = quire_delete_at(tree->handle, tree->frontier, model->key, item->key_size, model_draw_flags(model), &lsn);
        if (EXPECT_RESULT(model, result, 0))
            oracle_delete(tree->oracle, model->key, item->key_size, tree->frontier, lsn);
        model->last_lsn = lsn;
    }
    model->op++;
}

void model_mass_delete(struct model *model, struct model_tree *tree, bool everything)
{
    struct oracle_range range = {0};
    struct oracle_walk walk;
    struct oracle_item item;

    if (!everything) {
        range.start_size = model_draw_key(model, tree, NULL);
        memcpy(model->other_key, model->key, range.start_size);
        range.start = model->other_key;
    }
    if (tree->caller_versions)
        tree->frontier += 100; /* above all versions in use */
    model_trace(model, "mass delete");
    oracle_walk_start(&walk, tree->oracle, range, UINT64_MAX, random_chance(&model->random, 50));
    while (!model->failed && oracle_walk_next(&walk, &item)) {
        if (everything || !random_chance(&model->random, 10))
            delete_item(model, tree, &item);
        if (random_below(&model->random, 1000) < model->options.drop_per_mille)
            model_drop_pages(model);
    }
}
