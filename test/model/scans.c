/*
 * The model test's reads of ranges: pages in both directions, at any version, and counts.
 *
 * Test program (model). One thread.
 */
#include "model.h"

#include <inttypes.h>
#include <stdlib.h>

/* One scan and what it has to yield. */
struct scan {
    struct quire_pages_options options;
    struct oracle_range range;
    uint64_t version;
    bool writes_between; /* only where they must not matter */
    uint64_t pages_max;
    uint8_t *start;
    uint8_t *end;
};

static uint8_t *copy_key(const struct model *model, size_t size)
{
    uint8_t *copy = malloc(size + 1);
    if (copy == NULL)
        abort();
    memcpy(copy, model->key, size);
    return copy;
}

/* Bounds: none, one or both; equal ones and the empty key among them. */
static void draw_range(struct model *model, struct model_tree *tree, struct scan *scan)
{
    struct oracle_range *range = &scan->range;
    if (random_chance(&model->random, 70)) {
        range->start_size = model_draw_key(model, tree, NULL);
        scan->start = copy_key(model, range->start_size);
    }
    if (random_chance(&model->random, 70)) {
        range->end_size = model_draw_key(model, tree, NULL);
        scan->end = copy_key(model, range->end_size);
    }
    range->start = scan->start;
    range->end = scan->end;
    if (range->start != NULL && range->end != NULL &&
        oracle_compare(range->start, range->start_size, range->end, range->end_size) > 0)
        *range = (struct oracle_range){range->end, range->end_size, range->start, range->start_size};
    scan->options.start = (struct quire_slice){range->start, range->start_size};
    scan->options.end = (struct quire_slice){range->end, range->end_size};
}

/* quire_page_seek against the plain definition, with a key of the page or near it. */
static void check_seek(struct model *model, struct model_tree *tree, const struct quire_page *page, bool reverse)
{
    size_t size;
    if (page->count == 1)
        return; /* api/pages.c has this case */
    if (random_chance(&model->random, 50)) {
        const struct quire_entry *entry = &page->entries[random_below(&model->random, page->count)];
        memcpy(model->key, entry->key, entry->key_size);
        size = entry->key_size;
        if (size < KEY_MAX_BYTES && random_chance(&model->random, 50))
            model->key[size++] = (uint8_t)random_next(&model->random);
    } else {
        size = model_draw_key(model, tree, NULL);
    }
    size_t right = 0;
    for (; right < page->count; right++) {
        const struct quire_entry *entry = &page->entries[right];
        int order = oracle_compare(entry->key, entry->key_size, model->key, size);
        if (reverse ? order <= 0 : order >= 0)
            break;
    }
    size_t answer = quire_page_seek(page, model->key, size);
    EXPECT(model, answer == right, "seek in a page of %zu: %zu, not %zu", page->count, answer, right);
}

static bool check_page(struct model *model, const struct model_tree *tree, const struct quire_page *page,
                       struct oracle_walk *walk)
{
    if (!EXPECT(model, page->count >= 1, "an empty page"))
        return false;
    for (size_t i = 0; i < page->count; i++) {
        const struct quire_entry *entry = &page->entries[i];
        struct oracle_item item;
        if (!EXPECT(model, oracle_walk_next(walk, &item), "entry %zu of %zu beyond the end", i, page->count) ||
            !EXPECT(model, oracle_compare(entry->key, entry->key_size, item.key, item.key_size) == 0,
                    "entry %zu of %zu: key of %zu bytes where one of %zu bytes belongs", i, page->count,
                    entry->key_size, item.key_size) ||
            !EXPECT(model, entry->lsn == item.value.lsn && entry->version == item.value.version,
                    "lsn %" PRIu64 " version %" PRIu64 ", not %" PRIu64 " and %" PRIu64, entry->lsn, entry->version,
                    item.value.lsn, item.value.version) ||
            !EXPECT(model,
                    entry->value_size == item.value.size &&
                        (entry->value_size == 0 || memcmp(entry->value, item.value.data, entry->value_size) == 0),
                    "value of %zu bytes differs", entry->value_size) ||
            !EXPECT(model, entry->value_size == 0 || (uintptr_t)entry->value % tree->value_alignment == 0,
                    "alignment of %p", entry->value))
            return false;
    }
    return true;
}

static void run_scan(struct model *model, struct model_tree *tree, struct scan *scan)
{
    struct quire_pages *pages = NULL;
    struct quire_page page = {0};
    struct oracle_walk walk;
    struct oracle_item item;
    int result = 0;

    model_trace(model, "scan at %" PRIu64 "%s%s", scan->version, scan->options.reverse ? " reverse" : "",
                scan->writes_between ? " with writes" : "");
    oracle_walk_start(&walk, tree->oracle, scan->range, scan->version, scan->options.reverse != 0);
    if (!EXPECT_RESULT(model, quire_pages_open(tree->handle, &scan->options, &pages), 0))
        return;
    for (uint64_t i = 0; i < scan->pages_max && !model->failed; i++) {
        result = quire_pages_next(pages, &page);
        if (result != 0)
            break;
        if (check_page(model, tree, &page, &walk) && i == 0)
            check_seek(model, tree, &page, scan->options.reverse != 0);
        for (unsigned j = 0; scan->writes_between && j < 5 && !model->failed; j++)
            model_any_write(model, tree);
        if (scan->writes_between && model->options.drop_per_mille != 0)
            model_drop_pages(model);
    }
    if (result != 0 && !model->failed) {
        EXPECT_RESULT(model, result, QUIRE_END);
        EXPECT(model, !oracle_walk_next(&walk, &item), "the scan ended before a key of %zu bytes", item.key_size);
        EXPECT_RESULT(model, quire_pages_next(pages, &page), QUIRE_END);
    }
    EXPECT_RESULT(model, quire_pages_close(pages), 0);
}

static bool draw_version(struct model *model, struct model_tree *tree, struct scan *scan)
{
    if (!tree->caller_versions) {
        scan->options.snapshot = model_draw_snapshot(model, &scan->version);
        scan->writes_between = scan->options.snapshot != NULL && random_chance(&model->random, 30);
        return true;
    }
    scan->version = random_chance(&model->random, 40) ? UINT64_MAX
                                                      : random_between(&model->random, tree->safe, tree->frontier + 60);
    scan->options.version = scan->version;
    if (tree->safe == 0 || !random_chance(&model->random, 5))
        return true;

    struct quire_pages *pages = NULL;
    scan->options.version = random_below(&model->random, tree->safe);
    EXPECT_RESULT(model, quire_pages_open(tree->handle, &scan->options, &pages), QUIRE_ERR_LSN_TOO_OLD);
    return false;
}

void model_scan(struct model *model, struct model_tree *tree)
{
    struct scan scan = {0};
    quire_pages_options_init(&scan.options);
    scan.options.reverse = random_chance(&model->random, 50);
    scan.pages_max = random_chance(&model->random, 70) ? random_between(&model->random, 1, 6) : UINT64_MAX;
    draw_range(model, tree, &scan);
    if (draw_version(model, tree, &scan))
        run_scan(model, tree, &scan);
    free(scan.start);
    free(scan.end);
}

void model_scan_everything(struct model *model, struct model_tree *tree)
{
    for (uint32_t reverse = 0; reverse < 2 && !model->failed; reverse++) {
        struct scan scan = {.version = UINT64_MAX, .pages_max = UINT64_MAX};
        quire_pages_options_init(&scan.options);
        scan.options.reverse = reverse;
        run_scan(model, tree, &scan);
    }
}

void model_count(struct model *model, struct model_tree *tree)
{
    struct scan scan = {0};
    uint64_t version = UINT64_MAX, count = 0;
    struct quire_snapshot *snapshot = model_draw_snapshot(model, &version);

    draw_range(model, tree, &scan);
    model_trace(model, "count at %" PRIu64, version);
    int result = quire_count(tree->handle, snapshot, scan.options.start, scan.options.end, &count);
    if (EXPECT_RESULT(model, result, 0)) {
        uint64_t right = oracle_count(tree->oracle, scan.range, version);
        EXPECT(model, count == right, "%" PRIu64 " keys, not %" PRIu64, count, right);
    }
    free(scan.start);
    free(scan.end);
}
