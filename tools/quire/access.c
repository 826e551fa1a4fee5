/*
 * get, put, delete: one key.
 *
 * Layer: tools.
 */
#include "tool.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Opens store and tree for one key. */
static int begin(uint32_t open_mode, bool create, struct quire **ret_db, struct quire_tree **ret_tree, bool *ret_caller,
                 struct bytes *key)
{
    int code = bytes_argument(key, settings.plain[1]);
    if (code != EXIT_DONE)
        return code;
    code = tool_open(open_mode, ret_db);
    if (code != EXIT_DONE)
        return code;
    code = tool_tree(*ret_db, settings.tree, create, ret_tree, ret_caller);
    if (code == EXIT_DONE && *ret_caller && !settings.version_given && open_mode != QUIRE_OPEN_READ_ONLY)
        code = tool_fail(EXIT_WRONG, "the tree has versions of the caller's: --at N is needed");
    return code == EXIT_DONE ? code : tool_close(*ret_db, code);
}

/* ---- get -------------------------------------------------------------------------------------------------------- */

static void print_value(const struct bytes *key, bool caller, const struct quire_value *value)
{
    if (settings.raw) {
        fwrite(value->data, 1, value->size, stdout);
        return;
    }
    if (!settings.json) {
        put_escaped(value->data, value->size);
        putchar('\n');
        return;
    }
    putchar('{');
    put_json_bytes("key", key->data, key->size);
    putchar(',');
    put_json_bytes("value", value->data, value->size);
    printf(",\"lsn\":%" PRIu64, value->lsn);
    if (caller)
        put_json_version(value->version);
    printf("}\n");
}

static int run_get(const struct command *command)
{
    struct quire *db;
    struct quire_tree *tree;
    struct quire_guard guard;
    struct quire_value value;
    struct bytes key = {0};
    bool caller;
    (void)command;
    int code = begin(QUIRE_OPEN_READ_ONLY, false, &db, &tree, &caller, &key);
    if (code == EXIT_DONE) {
        uint64_t version = settings.version_given ? settings.version : UINT64_MAX;
        int result = quire_pin(db, "quire get", &guard);
        if (result == 0) {
            result = caller ? quire_guard_get_at(&guard, tree, version, key.data, key.size, &value)
                            : quire_guard_get(&guard, tree, NULL, key.data, key.size, &value);
            if (result == 0)
                print_value(&key, caller, &value);
            quire_unpin(&guard);
        }
        code = result == 0 ? EXIT_DONE : result == QUIRE_NOT_FOUND ? EXIT_ABSENT : tool_failed(result, "get");
        code = tool_close(db, code);
    }
    bytes_free(&key);
    return code;
}

const struct command command_get = {
    "get", "[OPTION...] STORE KEY", "Prints the value of a key",
    "Keys and values are text with escapes: \\\\ \\t \\n \\r and \\xHH for any byte. Exit code 1: the key has no value.\n",
    "tjxwv", 2, 2, run_get,
};

/* ---- put -------------------------------------------------------------------------------------------------------- */

static int read_value(struct bytes *to)
{
    char piece[65536];
    size_t size;
    if (settings.plain_count == 3)
        return bytes_argument(to, settings.plain[2]);
    if (!bytes_add(to, "", 0))
        return tool_fail(EXIT_FAILED, "no memory for the value");
    while ((size = fread(piece, 1, sizeof(piece), stdin)) != 0) {
        if (!bytes_add(to, piece, size))
            return tool_fail(EXIT_FAILED, "no memory for the value");
    }
    return ferror(stdin) ? tool_fail(EXIT_FAILED, "standard input: %s", strerror(errno)) : EXIT_DONE;
}

static int done_json(uint64_t lsn)
{
    if (settings.json)
        printf("{\"lsn\":%" PRIu64 "}\n", lsn);
    return EXIT_DONE;
}

static int run_put(const struct command *command)
{
    struct quire *db;
    struct quire_tree *tree;
    struct bytes key = {0}, value = {0};
    bool caller;
    (void)command;
    int code = read_value(&value);
    if (code == EXIT_DONE)
        code = begin(QUIRE_OPEN_OR_CREATE, true, &db, &tree, &caller, &key);
    if (code == EXIT_DONE) {
        uint64_t lsn = 0;
        int result = caller ? quire_put_at(tree, settings.version, key.data, key.size, value.data, value.size, 0, &lsn)
                            : quire_put(tree, key.data, key.size, value.data, value.size, 0, &lsn);
        code = tool_close(db, result == 0 ? done_json(lsn) : tool_failed(result, "put"));
    }
    bytes_free(&key);
    bytes_free(&value);
    return code;
}

const struct command command_put = {
    "put", "[OPTION...] STORE KEY [VALUE]", "Stores a value, durably",
    "Creates store and tree if they are not there. Without VALUE the bytes of standard input, as they are, are the value.\n",
    "tjxv", 2, 3, run_put,
};

/* ---- delete ----------------------------------------------------------------------------------------------------- */

static int run_delete(const struct command *command)
{
    struct quire *db;
    struct quire_tree *tree;
    struct bytes key = {0};
    bool caller;
    (void)command;
    int code = begin(QUIRE_OPEN_EXISTING, false, &db, &tree, &caller, &key);
    if (code == EXIT_DONE) {
        uint64_t lsn = 0;
        int existed = 1;
        int result = caller ? quire_delete_at(tree, settings.version, key.data, key.size, 0, &lsn)
                            : quire_delete(tree, key.data, key.size, 0, &existed, &lsn);
        code = result == 0 ? done_json(lsn) : tool_failed(result, "delete");
        if (code == EXIT_DONE && !existed)
            code = EXIT_ABSENT;
        code = tool_close(db, code);
    }
    bytes_free(&key);
    return code;
}

const struct command command_delete = {
    "delete", "[OPTION...] STORE KEY", "Deletes a key, durably",
    "Exit code 1: it had no value. In a tree with versions of the caller's that is not looked at.\n", "tjxv", 2, 2,
    run_delete,
};
