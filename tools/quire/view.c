/*
 * trees and stat: what there is in a store.
 *
 * Layer: tools.
 */
#include "tool.h"

#include <inttypes.h>
#include <stdlib.h>

/* ---- trees ------------------------------------------------------------------------------------------------------ */

/* Keys with a value; UINT64_MAX after a message. */
static uint64_t count_keys(struct quire_tree *tree)
{
    struct quire_pages_options options;
    struct quire_pages *pages = NULL;
    struct quire_page page;
    uint64_t count = 0;
    quire_pages_options_init(&options);
    options.skip_large_values = 1;
    int result = quire_pages_open(tree, &options, &pages);
    while (result == 0 && (result = quire_pages_next(pages, &page)) == 0)
        count += page.count;
    quire_pages_close(pages);
    if (result == QUIRE_END)
        return count;
    tool_failed(result, "counting keys");
    return UINT64_MAX;
}

static int print_tree(struct quire *db, const char *name)
{
    struct quire_tree_options options;
    struct quire_tree *tree;
    bool caller;
    int code = tool_tree(db, name, false, &tree, &caller);
    if (code != EXIT_DONE)
        return code;
    quire_tree_options_init(&options);
    quire_tree_options_get(tree, &options);
    uint64_t keys = count_keys(tree);
    if (keys == UINT64_MAX)
        return EXIT_FAILED;
    if (!settings.json) {
        printf("%12" PRIu64 "  %-8s %6u %6u  \"%s\"\n", keys, caller ? "caller" : "engine", options.leaf_page_size_bytes,
               options.inner_page_size_bytes, name);
        return EXIT_DONE;
    }
    printf("{\"tree\":");
    put_json_text(name);
    printf(",\"keys\":%" PRIu64 ",\"versions\":\"%s\",\"leaf_page_size_bytes\":%u,\"inner_page_size_bytes\":%u,"
           "\"page_chain_length\":%u,\"value_alignment\":%u}\n",
           keys, caller ? "caller" : "engine", options.leaf_page_size_bytes, options.inner_page_size_bytes,
           options.page_chain_length, options.value_alignment);
    return EXIT_DONE;
}

static int run_trees(const struct command *command)
{
    struct quire *db;
    char **names = NULL;
    size_t count = 0;
    (void)command;
    int code = tool_open(QUIRE_OPEN_READ_ONLY, &db);
    if (code != EXIT_DONE)
        return code;
    int result = quire_tree_list(db, &names, &count);
    if (result != 0)
        code = tool_failed(result, "listing trees");
    if (code == EXIT_DONE && !settings.json)
        printf("%12s  %-8s %6s %6s  %s\n", "keys", "versions", "leaf", "inner", "tree");
    for (size_t i = 0; i < count && code == EXIT_DONE; i++)
        code = print_tree(db, names[i]);
    quire_free(names);
    return tool_close(db, code);
}

const struct command command_trees = {
    "trees", "[OPTION...] STORE", "Prints the trees: keys, kind of versions, page sizes, name", "", "j", 1, 1, run_trees,
};

/* ---- stat ------------------------------------------------------------------------------------------------------- */

static int run_stat(const struct command *command)
{
    struct quire *db;
    struct quire_stats stats = {.struct_size = sizeof(stats)};
    size_t size = 0;
    char *text = NULL;
    (void)command;
    int code = tool_open(QUIRE_OPEN_READ_ONLY, &db);
    if (code != EXIT_DONE)
        return code;
    enum quire_format format = settings.json ? QUIRE_FORMAT_JSON : QUIRE_FORMAT_TEXT;
    int result = quire_stats(db, &stats);
    if (result == 0 && quire_stats_print(&stats, format, NULL, 0, &size) == QUIRE_ERR_BUFFER_TOO_SMALL)
        text = malloc(size);
    if (result == 0)
        result = text == NULL ? QUIRE_ERR_NO_MEMORY : quire_stats_print(&stats, format, text, size, &size);
    if (result != 0)
        code = tool_failed(result, "statistics");
    else
        printf("%s%s", text, size > 1 && text[size - 2] == '\n' ? "" : "\n");
    free(text);
    return tool_close(db, code);
}

const struct command command_stat = {
    "stat", "[OPTION...] STORE", "Prints the statistics of the store as it was opened",
    "What include/quire/quire.h says of struct quire_stats; counters are those of this opening: recovery, reads.\n", "j", 1,
    1, run_stat,
};
