/*
 * The model test's reads of single keys in trees with engine versions: newest, and at snapshots.
 *
 * Test program (model). One thread.
 */
#include "model.h"

#include <inttypes.h>
#include <stdlib.h>

#define MANY_MAX 40

struct quire_snapshot *model_draw_snapshot(struct model *model, uint64_t *ret_version)
{
    if (model->snapshot_count == 0 || random_chance(&model->random, 60)) {
        *ret_version = UINT64_MAX;
        return NULL;
    }
    struct model_snapshot *snapshot = &model->snapshots[random_below(&model->random, model->snapshot_count)];
    *ret_version = snapshot->lsn;
    return snapshot->handle;
}

static void expect_bytes(struct model *model, const void *data, size_t size, const struct oracle_value *right)
{
    EXPECT(model, size == right->size && (size == 0 || memcmp(data, right->data, size) == 0),
           "value of %zu bytes differs from that of lsn %" PRIu64 ", %zu bytes", size, right->lsn, right->size);
}

void model_get(struct model *model, struct model_tree *tree)
{
    struct oracle_value right = {0};
    uint64_t version;
    struct quire_snapshot *snapshot = model_draw_snapshot(model, &version);
    size_t key_size = model_draw_key(model, tree, NULL);
    bool present = oracle_get(tree->oracle, version, model->key, key_size, &right);
    size_t size = 12345;

    /* Usually enough room; else a byte too little, exactly enough, or none. */
    size_t capacity = MODEL_VALUE_MAX_BYTES;
    if (random_chance(&model->random, 20))
        capacity = right.size - (right.size != 0 && random_chance(&model->random, 50));
    else if (random_chance(&model->random, 5))
        capacity = 0;

    model_trace(model, "get at %" PRIu64 ", capacity %zu", version, capacity);
    model->read[0] = 0xcc;
    int result =
        quire_get(tree->handle, snapshot, model->key, key_size, capacity != 0 ? model->read : NULL, capacity, &size);
    if (!present) {
        EXPECT_RESULT(model, result, QUIRE_NOT_FOUND);
        EXPECT(model, size == 12345, "size set to %zu", size);
    } else if (capacity < right.size) {
        EXPECT_RESULT(model, result, QUIRE_ERR_BUFFER_TOO_SMALL);
        EXPECT(model, size == right.size && model->read[0] == 0xcc, "needed size %zu, not %zu", size, right.size);
    } else if (EXPECT_RESULT(model, result, 0)) {
        expect_bytes(model, model->read, size, &right);
    }
}

void model_get_copy(struct model *model, struct model_tree *tree)
{
    struct oracle_value right = {0};
    uint64_t version;
    struct quire_snapshot *snapshot = model_draw_snapshot(model, &version);
    size_t key_size = model_draw_key(model, tree, NULL);
    bool present = oracle_get(tree->oracle, version, model->key, key_size, &right);
    void *copy = NULL;
    size_t size = 0;

    model_trace(model, "get_copy at %" PRIu64, version);
    int result = quire_get_copy(tree->handle, snapshot, model->key, key_size, &copy, &size);
    if (EXPECT_RESULT(model, result, present ? 0 : QUIRE_NOT_FOUND) && present) {
        EXPECT(model, copy != NULL, "no copy");
        expect_bytes(model, copy, size, &right);
    }
    quire_free(copy);
}

void model_exists(struct model *model, struct model_tree *tree)
{
    struct oracle_value right;
    uint64_t version;
    struct quire_snapshot *snapshot = model_draw_snapshot(model, &version);
    size_t key_size = model_draw_key(model, tree, NULL);
    bool present = oracle_get(tree->oracle, version, model->key, key_size, &right);

    model_trace(model, "exists at %" PRIu64, version);
    EXPECT_RESULT(model, quire_exists(tree->handle, snapshot, model->key, key_size), present ? 0 : QUIRE_NOT_FOUND);
}

/* ---- Under guards ----------------------------------------------------------------------------------------------- */

static void expect_value(struct model *model, const struct model_tree *tree, int result,
                         const struct quire_value *value, bool present, const struct oracle_value *right)
{
    if (!EXPECT_RESULT(model, result, present ? 0 : QUIRE_NOT_FOUND) || !present)
        return;
    expect_bytes(model, value->data, value->size, right);
    EXPECT(model, value->lsn == right->lsn && value->version == right->version,
           "lsn %" PRIu64 " version %" PRIu64 ", not %" PRIu64, value->lsn, value->version, right->lsn);
    EXPECT(model, value->size == 0 || (uintptr_t)value->data % tree->value_alignment == 0, "alignment of %p",
           value->data);
}

/* Remembers what the long guard handed out. */
static void hold(struct model *model, const struct quire_value *value)
{
    if (model->held_count == MODEL_HELD_MAX)
        return;
    struct model_held *held = &model->held[model->held_count];
    held->copy = malloc(value->size + 1);
    if (held->copy == NULL)
        return;
    if (value->size != 0)
        memcpy(held->copy, value->data, value->size);
    held->value = *value;
    model->held_count++;
}

/* Everything that was handed out still has its bytes. */
static void release_held(struct model *model)
{
    for (size_t i = 0; i < model->held_count; i++) {
        struct model_held *held = &model->held[i];
        EXPECT(model, held->value.size == 0 || memcmp(held->value.data, held->copy, held->value.size) == 0,
               "bytes under the guard changed, lsn %" PRIu64, held->value.lsn);
        free(held->copy);
    }
    model->held_count = 0;
}

void model_unpin(struct model *model)
{
    if (!model->pinned)
        return;
    release_held(model);
    EXPECT_RESULT(model, quire_unpin(&model->guard), 0);
    model->pinned = false;
}

/* Opens, repins or ends the long guard, under which other operations go on. */
void model_guard(struct model *model, struct model_tree *tree)
{
    (void)tree;
    if (!model->pinned) {
        model_trace(model, "pin");
        model->pinned = EXPECT_RESULT(model, quire_pin(model->db, "model.long", &model->guard), 0);
    } else if (random_chance(&model->random, 30)) {
        model_trace(model, "repin");
        release_held(model);
        EXPECT_RESULT(model, quire_repin(&model->guard), 0);
    } else {
        model_trace(model, "unpin");
        model_unpin(model);
    }
}

void model_guard_get(struct model *model, struct model_tree *tree)
{
    struct oracle_value right = {0};
    struct quire_value value = {0};
    struct quire_guard own;
    uint64_t version;
    struct quire_snapshot *snapshot = model_draw_snapshot(model, &version);
    size_t key_size = model_draw_key(model, tree, NULL);
    bool present = oracle_get(tree->oracle, version, model->key, key_size, &right);
    bool long_guard = model->pinned && random_chance(&model->random, 70);

    model_trace(model, "guard get at %" PRIu64, version);
    if (!long_guard)
        EXPECT_RESULT(model, quire_pin(model->db, NULL, &own), 0);
    int result =
        quire_guard_get(long_guard ? &model->guard : &own, tree->handle, snapshot, model->key, key_size, &value);
    expect_value(model, tree, result, &value, present, &right);
    if (long_guard && result == 0)
        hold(model, &value);
    if (!long_guard)
        EXPECT_RESULT(model, quire_unpin(&own), 0);
}

void model_get_many(struct model *model, struct model_tree *tree)
{
    struct quire_slice keys[MANY_MAX];
    struct quire_value values[MANY_MAX];
    int results[MANY_MAX];
    struct quire_guard guard;
    uint64_t version;
    struct quire_snapshot *snapshot = model_draw_snapshot(model, &version);
    size_t count = (size_t)random_below(&model->random, MANY_MAX + 1);

    for (size_t i = 0; i < count; i++) {
        size_t size = model_draw_key(model, tree, NULL);
        uint8_t *key = malloc(size + 1);
        if (key == NULL)
            abort();
        memcpy(key, model->key, size);
        keys[i] = (struct quire_slice){key, size};
        results[i] = 999;
    }
    model_trace(model, "get_many of %zu at %" PRIu64, count, version);
    EXPECT_RESULT(model, quire_pin(model->db, "model.many", &guard), 0);
    EXPECT_RESULT(model, quire_get_many(&guard, tree->handle, snapshot, keys, count, values, results), 0);
    for (size_t i = 0; i < count; i++) {
        struct oracle_value right = {0};
        bool present = oracle_get(tree->oracle, version, keys[i].data, keys[i].size, &right);
        expect_value(model, tree, results[i], &values[i], present, &right);
    }
    EXPECT_RESULT(model, quire_unpin(&guard), 0);
    for (size_t i = 0; i < count; i++)
        free((void *)(uintptr_t)keys[i].data);
}
