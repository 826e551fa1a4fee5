/*
 * Goal: the engine answers every read as a plain ordered multi-version map does, whatever came before.
 * Method: a long random stream of operations on several trees, in one thread, each answer compared with the oracle;
 * pages are dropped, consolidated and maintained at random; the structure of the trees is checked now and then. With --files
 * the database lies in a directory and is opened again at random, after which everything is compared.
 *
 * Test program (model). A run is a function of its command line: a failure prints the line that repeats it.
 */
#include "model.h"

#include "lib/options.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* An operation and how often it is drawn, by the kind of the tree's versions. */
struct weighted {
    model_operation *run;
    unsigned engine;
    unsigned caller;
};

/* Per 1000 in the STEADY phase; writes and deletes are reweighted in the others. */
static const struct weighted operations[] = {
    {model_put, 200, 0},
    {model_delete, 130, 0},
    {model_insert, 70, 0},
    {model_compare_and_swap, 80, 0},
    {model_add, 60, 0},
    {model_put_at, 0, 350},
    {model_delete_at, 0, 150},
    {model_get_at, 0, 300},
    {model_guard_get_at, 0, 160},
    {model_raise_safe, 0, 2},
    {model_put_too_old, 0, 5},
    {model_refused, 2, 2},
    {model_get, 180, 0},
    {model_get_copy, 50, 0},
    {model_exists, 60, 0},
    {model_guard_get, 110, 0},
    {model_get_many, 20, 0},
    {model_scan, 10, 12},
    {model_count, 3, 0},
    {model_take_snapshot, 4, 0},
    {model_release_snapshot, 4, 0},
    {model_guard, 5, 2},
    {model_maintain, 4, 4},
    {model_consolidate, 1, 1},
};

#define OPERATION_COUNT (sizeof(operations) / sizeof(operations[0]))

void model_stop(struct model *model)
{
    model->failed = true;
}

bool model_expect_result(struct model *model, const char *file, int line, const char *text, int result, int expected)
{
    if (result == expected) {
        check_pass();
        return true;
    }
    check_fail(file, line, text, "result %d (%s), not %d", result, quire_strerror(result), expected);
    model_stop(model);
    return false;
}

void model_trace(const struct model *model, const char *format, ...)
{
    if (model->options.trace == 0 || model->op < model->options.trace)
        return;
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "op %" PRIu64 ": ", model->op);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
}

size_t model_draw_key(struct model *model, struct model_tree *tree, uint64_t *ret_index)
{
    uint64_t index = random_below(&model->random, tree->keys);
    if (random_chance(&model->random, 15))
        index %= 16; /* a few hot keys gather versions and deltas */
    size_t size = key_make_mixed(index, tree->long_keys, model->key);
    model_trace(model, "  tree %s key #%" PRIu64 " of %zu bytes", tree->name, index, size);
    if (ret_index != NULL)
        *ret_index = index;
    return size;
}

/* Many small values, counters, some large ones, few above every page size. */
size_t model_draw_value(struct model *model, struct model_tree *tree)
{
    uint64_t lot = random_below(&model->random, 1000);
    size_t size;
    if (lot < 150)
        size = 8;
    else if (lot < 500)
        size = (size_t)random_below(&model->random, 17);
    else if (lot < 970)
        size = (size_t)random_between(&model->random, 17, 200);
    else if (lot < 998)
        size = (size_t)random_between(&model->random, 200, 3000);
    else if (model->options.files == 0 || lot == 998)
        size = (size_t)random_between(&model->random, 25000, 35000);
    else /* more than the largest frame of a log */
        size = (size_t)random_between(&model->random, 60000, MODEL_VALUE_MAX_BYTES);
    if (!tree->long_keys && size > 3000)
        size = 100;
    value_make(model->op, model->value, size);
    return size;
}

/* ---- Setting up ------------------------------------------------------------------------------------------------- */

static uint32_t draw_page_size(struct random_stream *random, uint64_t wanted)
{
    static const uint32_t sizes[] = {512, 1024, 4096, 8192, 16384, 65536};
    return wanted != 0 ? (uint32_t)wanted : sizes[random_below(random, sizeof(sizes) / sizeof(sizes[0]))];
}

static void open_tree(struct model *model, size_t number)
{
    struct model_tree *tree = &model->trees[number];
    struct random_stream *random = &model->random;
    struct quire_tree_options options;
    bool both = strcmp(model->options.mode, "both") == 0;

    tree->caller_versions = both ? number % 2 == 1 : strcmp(model->options.mode, "caller") == 0;
    tree->oracle = oracle_create();
    tree->long_keys = number == 0 || random_chance(random, 50);
    tree->keys = number == 0 ? model->options.keys : random_between(random, 1, model->options.keys);
    tree->value_alignment = 1u << random_below(random, 7);
    tree->frontier = 1;
    if (number != 0)
        snprintf(tree->name, sizeof(tree->name), "t%u", (unsigned)number);

    quire_tree_options_init(&options);
    options.versions = tree->caller_versions ? QUIRE_VERSIONS_CALLER : QUIRE_VERSIONS_ENGINE;
    options.leaf_page_size_bytes = draw_page_size(random, model->options.page_size_bytes);
    options.inner_page_size_bytes = draw_page_size(random, model->options.inner_page_size_bytes);
    options.page_chain_length =
        model->options.chain != 0 ? (uint32_t)model->options.chain : (uint32_t)random_between(random, 1, 8);
    options.value_alignment = tree->value_alignment;
    printf("tree '%s': %s versions, leaves %u, inner %u, chain %u, alignment %u, %" PRIu64 " keys%s\n", tree->name,
           tree->caller_versions ? "caller" : "engine", options.leaf_page_size_bytes, options.inner_page_size_bytes,
           options.page_chain_length, options.value_alignment, tree->keys, tree->long_keys ? ", long ones too" : "");
    EXPECT_RESULT(model, quire_tree_open(model->db, tree->name, &options, &tree->handle), 0);
}

static bool set_up(struct model *model)
{
    if (model->options.files != 0 && !model_make_directory(model))
        return false;
    if (!model_open(model, QUIRE_OPEN_OR_CREATE))
        return false;
    for (size_t i = 0; i < model->options.trees && !model->failed; i++) {
        open_tree(model, i);
        model->tree_count++;
    }
    return !model->failed;
}

/* ---- The stream ------------------------------------------------------------------------------------------------- */

static unsigned weight(const struct weighted *operation, const struct model_tree *tree)
{
    unsigned steady = tree->caller_versions ? operation->caller : operation->engine;
    bool deletes = operation->run == model_delete || operation->run == model_delete_at;
    bool puts = operation->run == model_put || operation->run == model_insert || operation->run == model_put_at;

    if (tree->phase == MODEL_GROW)
        return deletes ? steady / 8 : steady;
    if (tree->phase == MODEL_SHRINK)
        return deletes ? steady * 4 : (puts ? steady / 8 : steady);
    return steady;
}

static void one_operation(struct model *model)
{
    struct model_tree *tree = &model->trees[random_below(&model->random, model->tree_count)];
    unsigned total = 0;
    for (size_t i = 0; i < OPERATION_COUNT; i++)
        total += weight(&operations[i], tree);
    unsigned lot = (unsigned)random_below(&model->random, total);
    for (size_t i = 0; i < OPERATION_COUNT; i++) {
        unsigned mine = weight(&operations[i], tree);
        if (lot < mine) {
            operations[i].run(model, tree);
            return;
        }
        lot -= mine;
    }
}

unsigned model_draw_flags(struct model *model)
{
    if (model->options.files == 0 || model->no_log)
        return 0;
    uint64_t lot = random_below(&model->random, 1000);
    return lot < 2 ? QUIRE_WRITE_DURABLE : lot < 950 ? QUIRE_WRITE_PROCESS : 0;
}

/* The oracle forgets what nobody can ask for any more, when it has grown much. */
static void collect(struct model *model)
{
    uint64_t lowest = model->last_lsn;
    for (size_t i = 0; i < model->snapshot_count; i++)
        lowest = model->snapshots[i].lsn < lowest ? model->snapshots[i].lsn : lowest;
    for (size_t i = 0; i < model->tree_count; i++) {
        struct model_tree *tree = &model->trees[i];
        if (oracle_versions(tree->oracle) < tree->collect_at)
            continue;
        if (!tree->caller_versions)
            oracle_collect(tree->oracle, lowest);
        else if (tree->safe != 0)
            oracle_collect(tree->oracle, tree->safe);
        tree->collect_at = oracle_versions(tree->oracle) * 2 + 2000;
    }
}

static void run(struct model *model)
{
    uint64_t ops = model->options.ops;
    uint64_t phase_ops = model->options.keys * 2 + 500;

    for (model->op = 1; model->op <= ops && !model->failed; model->op++) {
        one_operation(model);
        if (random_below(&model->random, 1000) < model->options.drop_per_mille && !model->failed)
            model_drop_pages(model);
        if (model->op % 64 == 0)
            collect(model);
        if (random_below(&model->random, phase_ops) == 0 && !model->failed)
            model_change_phase(model, &model->trees[random_below(&model->random, model->tree_count)]);
        if (model->options.files != 0 && random_below(&model->random, 10000) < model->options.reopen && !model->failed)
            model_reopen(model);
        if (model->op % 5003 == 0 && !model->failed && model->options.threads == 0)
            model_check_structure(model);
    }
}

/* ---- The end ---------------------------------------------------------------------------------------------------- */

/* The same answers after everything was maintained; then every tree is emptied and must be small. */
static void finish(struct model *model)
{
    struct quire_stats stats = {.struct_size = sizeof(stats)};

    if (model->options.files != 0)
        model_reopen(model);
    if (model->failed)
        return;
    model_unpin(model);
    model_release_snapshots(model);
    model_settle(model);
    for (size_t i = 0; i < model->tree_count && !model->failed; i++)
        model_scan_everything(model, &model->trees[i]);
    model_check_structure(model);
    EXPECT_RESULT(model, quire_stats(model->db, &stats), 0);
    printf("consolidations %" PRIu64 ", splits %" PRIu64 ", merges %" PRIu64 ", versions collected %" PRIu64
           ", pages dropped %" PRIu64 ", height %" PRIu64 "\n",
           stats.tree_consolidations, stats.tree_splits, stats.tree_merges, stats.versions_collected,
           model->pages_dropped, stats.height_max);
    if (model->options.files != 0)
        printf("reopenings %" PRIu64 "\n", model->reopenings);

    for (size_t i = 0; i < model->tree_count && !model->failed; i++) {
        struct model_tree *tree = &model->trees[i];
        model_mass_delete(model, tree, true);
        if (!tree->caller_versions || model->failed)
            continue;
        tree->safe = tree->frontier + 1000;
        EXPECT_RESULT(model, quire_set_safe_lsn(tree->handle, tree->safe), 0);
    }
    if (model->failed)
        return;
    model_settle(model);
    model_check_structure(model);
    if (model->options.files != 0)
        model_reopen(model);
    for (size_t i = 0; i < model->tree_count && !model->failed; i++)
        model_scan_everything(model, &model->trees[i]);
}

static void tear_down(struct model *model)
{
    model_unpin(model);
    model_release_snapshots(model);
    CHECK_EQUAL(quire_close(model->db), 0);
    model_remove_directory(model);
    for (size_t i = 0; i < model->tree_count; i++)
        oracle_destroy(model->trees[i].oracle);
    free(model->key);
    free(model->other_key);
    free(model->value);
    free(model->read);
}

static void print_replay(const char *program, const struct model *model)
{
    const struct model_options *o = &model->options;
    fprintf(stderr,
            "failed at operation %" PRIu64 "; to repeat (QUIRE_TEST_SCALE unset): %s --ops %" PRIu64 " --seed %" PRIu64
            " --mode %s --trees %" PRIu64 " --keys %" PRIu64 " --page-size %" PRIu64 " --inner-page-size %" PRIu64
            " --chain %" PRIu64 " --drop %" PRIu64 " --threads %" PRIu64 " --files %" PRIu64 " --reopen %" PRIu64
            " (and --trace %" PRIu64 ")\n",
            model->op, program, o->ops, o->seed, o->mode, o->trees, o->keys, o->page_size_bytes,
            o->inner_page_size_bytes, o->chain, o->drop_per_mille, o->threads, o->files, o->reopen,
            model->op > 20 ? model->op - 20 : 1);
    if (o->files != 0)
        fprintf(stderr, "the store: %s\n", model->directory);
}

int main(int argc, char **argv)
{
    static struct model model = {
        .options = {
            .ops = 200000, .mode = "both", .trees = 3, .keys = 3000, .reopen = 5}};
    struct model_options *o = &model.options;
    const struct test_option table[] = {
        {.name = "ops", .help = "operations", .number = &o->ops},
        {.name = "seed", .help = "0 = from the clock", .number = &o->seed},
        {.name = "mode", .help = "engine, caller or both: versions of the trees", .text = &o->mode},
        {.name = "trees", .help = "trees, 1 to 8", .number = &o->trees},
        {.name = "keys", .help = "different keys of the first tree, most in the others", .number = &o->keys},
        {.name = "page-size", .help = "of leaves; 0 = each tree draws one", .number = &o->page_size_bytes},
        {.name = "inner-page-size", .help = "of inner pages; 0 = drawn", .number = &o->inner_page_size_bytes},
        {.name = "chain", .help = "longest chain, 1 to 8; 0 = drawn", .number = &o->chain},
        {.name = "drop", .help = "operations in 1000 that drop pages", .number = &o->drop_per_mille},
        {.name = "threads", .help = "background threads; 0 = the test drives maintenance", .number = &o->threads},
        {.name = "files", .help = "1: the database lies in a directory, and is opened again now and then", .number = &o->files},
        {.name = "reopen", .help = "operations in 10000 that are followed by a reopening", .number = &o->reopen},
        {.name = "trace", .help = "print operations from this number on; 0 = none", .number = &o->trace},
    };
    test_options_parse(argc, argv, "random operations against a plain map", table, sizeof(table) / sizeof(table[0]));
    o->ops = test_scaled(o->ops);
    o->seed = test_seed(o->seed);
    if (o->trees < 1 || o->trees > MODEL_TREES_MAX || o->keys < 1) {
        fprintf(stderr, "--trees is 1 to %d, --keys at least 1\n", MODEL_TREES_MAX);
        return 2;
    }

    random_seed(&model.random, o->seed);
    model.key = malloc(KEY_MAX_BYTES + 16);
    model.other_key = malloc(KEY_MAX_BYTES + 16);
    model.value = malloc(MODEL_VALUE_MAX_BYTES + 16);
    model.read = malloc(MODEL_VALUE_MAX_BYTES + 16);
    if (set_up(&model)) {
        run(&model);
        if (!model.failed)
            finish(&model);
    }
    if (model.failed)
        print_replay(argv[0], &model);
    tear_down(&model);
    return check_finish();
}
