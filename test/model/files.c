/*
 * The model test's database in a directory: opening it, and opening it again in the middle of everything.
 *
 * Test program (model). One thread. After a reopening each tree answers as before: the newest state, at caller versions every
 * version from the safe one on, which is what it was. Snapshots and guards end with the handle.
 */
#include "model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

bool model_make_directory(struct model *model)
{
    const char *parent = getenv("TMPDIR");
    snprintf(model->directory, sizeof(model->directory), "%s/quire-model-XXXXXX", parent != NULL ? parent : "/tmp");
    return CHECK(mkdtemp(model->directory) != NULL, "no directory for the store: %s", model->directory);
}

void model_remove_directory(struct model *model)
{
    if (model->options.files != 0 && !model->failed)
        CHECK_EQUAL(quire_destroy(model->directory), 0);
}

/* Other segments, another way to write them, another level and threshold of large values at each opening; or no log. */
static void draw_options(struct model *model, struct quire_options *options)
{
    struct random_stream *random = &model->random;
    options->log_segment_bytes = (uint64_t)16384 << (2 * random_below(random, 4));
    options->log_buffered = random_chance(random, 30);
    options->no_sync_at_close = random_chance(random, 50);
    options->sync_period_ms = random_chance(random, 50) ? QUIRE_NO_PERIOD : 0;
    options->disable_ring = random_chance(random, 50);
    static const uint64_t thresholds[] = {64, 150, 1000, 0, 268435456};
    options->blob_threshold_bytes = thresholds[random_below(random, 5)];
    options->level = random_chance(random, 10) ? QUIRE_LEVEL_DURABLE : QUIRE_LEVEL_PROCESS;
    model->no_log = random_chance(random, 30);
    if (!model->no_log) return;
    options->disable_log = 1;
    options->level = 0;
    options->no_sync_at_close = 0;
    options->checkpoint_interval_ms = 1 + (uint32_t)random_below(random, 50); /* beside operations, or by quire_maintain */
}

bool model_open(struct model *model, uint32_t open_mode)
{
    struct quire_options options;
    struct quire_error_detail detail;
    quire_options_init(&options);
    options.background_threads = model->options.threads == 0 ? QUIRE_NO_THREADS : (uint32_t)model->options.threads;
    if (model->options.files != 0) {
        draw_options(model, &options);
        options.open_mode = open_mode;
    }
    int result = quire_open(model->options.files != 0 ? model->directory : NULL, &options, &model->db);
    quire_error_detail(&detail);
    if (!EXPECT(model, result == 0, "open: %s (%s)", quire_strerror(result), detail.message))
        return false;
    if (model->options.drop_per_mille != 0)
        EXPECT_RESULT(model, qr_testing_attach_store(model->db), 0);
    return !model->failed;
}

static void open_trees(struct model *model)
{
    for (size_t i = 0; i < model->tree_count && !model->failed; i++) {
        struct model_tree *tree = &model->trees[i];
        struct quire_tree_options options;
        uint64_t safe = UINT64_MAX;
        uint32_t leaf_bytes = 0;
        quire_tree_options_init(&options);
        options.must_exist = 1;
        if (random_chance(&model->random, 30)) { /* pages of another size from now on */
            leaf_bytes = options.leaf_page_size_bytes = 512u << random_below(&model->random, 8);
            options.inner_page_size_bytes = 512u << random_below(&model->random, 8);
        }
        if (!EXPECT_RESULT(model, quire_tree_open(model->db, tree->name, &options, &tree->handle), 0))
            return;
        quire_tree_options_init(&options);
        EXPECT_RESULT(model, quire_tree_options_get(tree->handle, &options), 0);
        EXPECT(model, options.value_alignment == tree->value_alignment, "alignment %u", options.value_alignment);
        EXPECT(model, leaf_bytes == 0 || model->read_only || options.leaf_page_size_bytes == leaf_bytes, "pages of %u bytes",
               options.leaf_page_size_bytes);
        if (!tree->caller_versions)
            continue;
        EXPECT_RESULT(model, quire_safe_lsn(tree->handle, &safe), 0);
        EXPECT(model, safe == tree->safe, "safe version %" PRIu64 ", not %" PRIu64, safe, tree->safe);
    }
}

/* The last LSN is that of the last write; a raise of the safe version may have come after it. */
static void check_lsns(struct model *model)
{
    uint64_t last = 0, durable = 0;
    EXPECT_RESULT(model, quire_last_lsn(model->db, &last), 0);
    EXPECT(model, last >= model->last_lsn, "last LSN %" PRIu64 ", not %" PRIu64, last, model->last_lsn);
    EXPECT_RESULT(model, quire_durable_lsn(model->db, &durable), 0);
    EXPECT(model, durable >= model->last_lsn || model->read_only, "durable up to %" PRIu64 ", not %" PRIu64, durable,
           model->last_lsn);
}

static void check_everything(struct model *model)
{
    check_lsns(model);
    for (size_t i = 0; i < model->tree_count && !model->failed; i++)
        model_scan_everything(model, &model->trees[i]);
    model_check_structure(model);
}

static bool open_again(struct model *model, uint32_t open_mode)
{
    EXPECT_RESULT(model, quire_close(model->db), 0);
    model->db = NULL;
    model->read_only = open_mode == QUIRE_OPEN_READ_ONLY;
    if (model->failed || !model_open(model, open_mode))
        return false;
    open_trees(model);
    if (!model->failed)
        check_everything(model);
    return !model->failed;
}

void model_reopen(struct model *model)
{
    model_unpin(model);
    model_release_snapshots(model);
    if (random_chance(&model->random, 20))
        EXPECT_RESULT(model, quire_sync(model->db), 0);
    model_trace(model, "reopen");
    model->reopenings++;
    if (random_chance(&model->random, 15) && !open_again(model, QUIRE_OPEN_READ_ONLY))
        return;
    if (model->failed || !open_again(model, random_chance(&model->random, 50) ? QUIRE_OPEN_EXISTING : QUIRE_OPEN_OR_CREATE))
        return;
    /* What is written from now on and what is collected must go together with what came back. */
    if (random_chance(&model->random, 30) && model->options.threads == 0)
        model_settle(model);
}
