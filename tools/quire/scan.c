/*
 * scan and pages: a range of a tree, by entries or by leaves.
 *
 * Layer: tools.
 */
#include "tool.h"

#include <inttypes.h>

struct scan {
    struct quire *db;
    struct quire_tree *tree;
    struct quire_pages *pages;
    struct range range;
    bool caller;
};

/* without_values: large values are not read, and a leaf comes whole. */
static int begin(struct scan *scan, bool without_values)
{
    struct quire_pages_options options;
    *scan = (struct scan){0};
    int code = range_from_settings(&scan->range);
    if (code == EXIT_DONE)
        code = tool_open(QUIRE_OPEN_READ_ONLY, &scan->db);
    if (code == EXIT_DONE)
        code = tool_tree(scan->db, settings.tree, false, &scan->tree, &scan->caller);
    if (code != EXIT_DONE)
        return code;
    range_options(&scan->range, &options);
    options.skip_large_values = without_values;
    int result = quire_pages_open(scan->tree, &options, &scan->pages);
    return result == 0 ? EXIT_DONE : tool_failed(result, "scan");
}

static int end(struct scan *scan, int code)
{
    quire_pages_close(scan->pages);
    code = tool_close(scan->db, code);
    range_free(&scan->range);
    return code;
}

/* ---- scan ------------------------------------------------------------------------------------------------------- */

static void print_entry(const struct scan *scan, const struct quire_entry *entry)
{
    if (!settings.json) {
        put_escaped(entry->key, entry->key_size);
        if (!settings.keys_only) {
            putchar('\t');
            put_escaped(entry->value, entry->value_size);
        }
        putchar('\n');
        return;
    }
    putchar('{');
    put_json_bytes("key", entry->key, entry->key_size);
    if (!settings.keys_only) {
        putchar(',');
        put_json_bytes("value", entry->value, entry->value_size);
    }
    printf(",\"lsn\":%" PRIu64, entry->lsn);
    if (scan->caller)
        put_json_version(entry->version);
    printf("}\n");
}

static int run_scan(const struct command *command)
{
    struct scan scan;
    struct quire_page page;
    uint64_t left = settings.limit;
    (void)command;
    int code = begin(&scan, settings.keys_only);
    while (code == EXIT_DONE && left != 0 && !ferror(stdout)) {
        int result = quire_pages_next(scan.pages, &page);
        if (result == QUIRE_END)
            break;
        if (result != 0)
            code = tool_failed(result, "scan");
        for (size_t i = 0; result == 0 && i < page.count && left != 0; i++, left--)
            print_entry(&scan, &page.entries[i]);
    }
    return end(&scan, code);
}

const struct command command_scan = {
    "scan", "[OPTION...] STORE", "Prints keys and values in order",
    "A line for each: key, a tab, value, with escapes; `quire load --format lines` reads them.\n", "tjxseplrkv", 1, 1,
    run_scan,
};

/* ---- pages ------------------------------------------------------------------------------------------------------ */

static uint64_t bytes_of(const struct quire_page *page)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < page->count; i++)
        bytes += page->entries[i].key_size + page->entries[i].value_size;
    return bytes;
}

static void print_page(const struct quire_page *page)
{
    const struct quire_entry *first = &page->entries[0];
    if (!settings.json) {
        printf("%8zu %10" PRIu64 "  ", page->count, bytes_of(page));
        put_escaped(first->key, first->key_size);
        putchar('\n');
        return;
    }
    printf("{\"count\":%zu,\"bytes\":%" PRIu64 ",", page->count, bytes_of(page));
    put_json_bytes("first_key", first->key, first->key_size);
    printf("}\n");
}

static int run_pages(const struct command *command)
{
    struct scan scan;
    struct quire_page page;
    uint64_t left = settings.limit;
    (void)command;
    int code = begin(&scan, true);
    if (code == EXIT_DONE && !settings.json)
        printf("%8s %10s  %s\n", "entries", "bytes", "first key");
    while (code == EXIT_DONE && left-- != 0 && !ferror(stdout)) {
        int result = quire_pages_next(scan.pages, &page);
        if (result == QUIRE_END)
            break;
        if (result != 0)
            code = tool_failed(result, "pages");
        else
            print_page(&page);
    }
    return end(&scan, code);
}

const struct command command_pages = {
    "pages", "[OPTION...] STORE", "Prints the leaf pages of a tree: entries, bytes of keys and values, first key",
    "The pages as the pages iterator hands them out: entries that are visible. A page without any is not among them.\n"
    "Large values count with their size, and are not read.\n",
    "tjxseplrv", 1, 1, run_pages,
};
