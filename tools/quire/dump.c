/*
 * dump: trees as text, in the format of Berkeley DB's db_dump and of mdb_dump, or as JSON lines.
 *
 * Layer: tools.
 */
#include "tool.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- The dump format -------------------------------------------------------------------------------------------- */

static void put_printable(const void *data, size_t size)
{
    const unsigned char *bytes = data;
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] == '\\')
            fputs("\\\\", stdout);
        else if (bytes[i] < 0x20 || bytes[i] > 0x7e)
            printf("\\%02x", bytes[i]);
        else
            putchar(bytes[i]);
    }
}

static void put_line(const void *data, size_t size)
{
    putchar(' ');
    if (settings.print)
        put_printable(data, size);
    else
        put_hex(data, size);
    putchar('\n');
}

static void put_header(const char *name)
{
    printf("VERSION=3\nformat=%s\n", settings.print ? "print" : "bytevalue");
    if (name[0] != '\0') {
        printf("database=");
        put_printable(name, strlen(name));
        putchar('\n');
    }
    printf("type=btree\nHEADER=END\n");
}

/* ---- JSON ------------------------------------------------------------------------------------------------------- */

static void put_object(const char *name, bool caller, const struct quire_entry *entry)
{
    putchar('{');
    put_json_bytes("tree", name, strlen(name));
    putchar(',');
    put_json_bytes("key", entry->key, entry->key_size);
    putchar(',');
    put_json_bytes("value", entry->value, entry->value_size);
    if (caller)
        put_json_version(entry->version);
    printf("}\n");
}

/* ---- Trees ------------------------------------------------------------------------------------------------------ */

static int dump_pages(const char *name, bool caller, struct quire_pages *pages)
{
    struct quire_page page;
    int result;
    while ((result = quire_pages_next(pages, &page)) == 0) {
        for (size_t i = 0; i < page.count; i++) {
            if (settings.json) {
                put_object(name, caller, &page.entries[i]);
                continue;
            }
            put_line(page.entries[i].key, page.entries[i].key_size);
            put_line(page.entries[i].value, page.entries[i].value_size);
        }
        if (ferror(stdout))
            return EXIT_FAILED; /* tool_flush says it */
    }
    return result == QUIRE_END ? EXIT_DONE : tool_failed(result, "dump");
}

static int dump_tree(struct quire *db, const char *name)
{
    struct quire_pages_options options;
    struct quire_pages *pages;
    struct quire_tree *tree;
    bool caller;
    int code = tool_tree(db, name, false, &tree, &caller);
    if (code != EXIT_DONE)
        return code;
    quire_pages_options_init(&options);
    if (settings.version_given)
        options.version = settings.version;
    int result = quire_pages_open(tree, &options, &pages);
    if (result != 0)
        return tool_failed(result, "dump");
    if (!settings.json)
        put_header(name);
    code = dump_pages(name, caller, pages);
    quire_pages_close(pages);
    if (!settings.json && code == EXIT_DONE)
        printf("DATA=END\n");
    return code;
}

static int dump_all(struct quire *db)
{
    char **names;
    size_t count;
    int code = EXIT_DONE;
    int result = quire_tree_list(db, &names, &count);
    if (result != 0)
        return tool_failed(result, "listing trees");
    for (size_t i = 0; i < count && code == EXIT_DONE; i++)
        code = dump_tree(db, names[i]);
    quire_free(names);
    return code;
}

static int run_dump(const struct command *command)
{
    struct quire *db;
    (void)command;
    int code = tool_open(QUIRE_OPEN_READ_ONLY, &db);
    if (code != EXIT_DONE)
        return code;
    return tool_close(db, settings.tree_given || settings.version_given ? dump_tree(db, settings.tree) : dump_all(db));
}

const struct command command_dump = {
    "dump", "[OPTION...] STORE", "Prints trees as text that `quire load`, db_load and mdb_load read",
    "All trees one after the other, or the one of --tree. Of each key the newest value: a dump has no older versions. With\n"
    "--json an object a line, with the versions of trees that have the caller's.\n",
    "tjPv", 1, 1, run_dump,
};
