/*
 * Goal: whatever `quire load` reads (dumps, lines, JSON) is refused or stored, and what was stored is what `quire dump` prints and
 * what a load of that stores.
 * Method: the tool's own load and dump, on stores of simulated disks. The input is a byte of options and a text. If all of it is
 * loaded, the store is dumped, as JSON and in both formats of dumps; each is loaded to another store, whose JSON has to be the same.
 * The tree "c" has versions of the caller's; dumps do not, so where it has records there is the JSON alone.
 *
 * quire_open is wrapped (meson.build): the store of either path is on a simulated disk.
 */
#include <stdio.h>
#include <stdlib.h>

#include "db/db.h"
#include "fuzz/fuzz.h"

/* Last: it has a variable of a common name. */
#include "../../tools/quire/tool.h"

enum { OPTION_FORMAT = 3, OPTION_HEX = 4, OPTION_VERSION = 8, OPTION_TREE = 16 };
static const char *const formats[] = {"dump", "lines", "json", "json"};

static struct simdisk *disk;

int __wrap_quire_open(const char *path, const struct quire_options *options, struct quire **ret_db);
int __wrap_quire_open(const char *path, const struct quire_options *options, struct quire **ret_db)
{
    struct quire_options quiet = *options;
    quiet.background_threads = QUIRE_NO_THREADS;
    quiet.sync_period_ms = QUIRE_NO_PERIOD;
    quiet.checkpoint_interval_ms = QUIRE_NO_PERIOD;
    quiet.log_segment_bytes = 65536;
    return qr_db_open(path, simdisk_disk(disk), &quiet, ret_db);
}

/* ---- Commands --------------------------------------------------------------------------------------------------- */

static void make_store(char *path)
{
    struct quire_options options;
    struct quire_tree_options tree_options;
    struct quire *db;
    struct quire_tree *tree;
    quire_options_init(&options);
    quire_tree_options_init(&tree_options);
    tree_options.versions = QUIRE_VERSIONS_CALLER;
    FUZZ_CHECK(__wrap_quire_open(path, &options, &db) == 0);
    FUZZ_CHECK(quire_tree_open(db, "c", &tree_options, &tree) == 0);
    FUZZ_CHECK(quire_close(db) == 0);
}

/* An exit code. What the commands say is not printed. */
static int load(char *path, const void *text, size_t size)
{
    FILE *in = stdin, *out = stdout, *errors = stderr;
    settings.plain = &path;
    settings.plain_count = 1;
    stdin = fmemopen((void *)(uintptr_t)(size == 0 ? "" : text), size, "r");
    stdout = stderr = fopen("/dev/null", "w");
    FUZZ_CHECK(stdin != NULL && stdout != NULL);
    int code = command_load.run(&command_load);
    fclose(stdin);
    fclose(stdout);
    stdin = in;
    stdout = out;
    stderr = errors;
    return code;
}

struct text {
    char *data;
    size_t size;
};

static struct text dump(char *path, bool json, bool print)
{
    FILE *out = stdout;
    struct text text;
    settings = (struct settings){.plain = &path, .plain_count = 1, .json = json, .print = print};
    stdout = open_memstream(&text.data, &text.size);
    FUZZ_CHECK(stdout != NULL);
    FUZZ_CHECK(command_dump.run(&command_dump) == EXIT_DONE);
    fclose(stdout);
    stdout = out;
    return text;
}

/* ---- The target ------------------------------------------------------------------------------------------------- */

/* Loads the text to a store of its own, which has to print as that JSON. */
static void expect_again(char *path, const struct text *text, const char *format, const struct text *json)
{
    make_store(path);
    settings = (struct settings){.tree = "", .format = format, .limit = UINT64_MAX};
    FUZZ_CHECK(load(path, text->data, text->size) == EXIT_DONE);
    struct text again = dump(path, true, false);
    FUZZ_CHECK(again.size == json->size);
    FUZZ_CHECK(memcmp(again.data, json->data, json->size) == 0);
    free(again.data);
}

static void go_round(char *path)
{
    struct text json = dump(path, true, false);
    expect_again("json", &json, "json", &json);
    if (strstr(json.data, "\"version\":") == NULL) { /* of a key or value, maybe: then less is tested */
        for (int print = 0; print < 2; print++) {
            struct text text = dump(path, false, print != 0);
            expect_again(print != 0 ? "print" : "bytevalue", &text, "dump", &json);
            free(text.data);
        }
    }
    free(json.data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int64_t begun = fuzz_begin_database();
    unsigned options = size == 0 ? 0 : data[0];
    disk = simdisk_create();
    make_store("first");
    settings = (struct settings){.tree = (options & OPTION_TREE) != 0 ? "c" : "",
                                 .tree_given = (options & OPTION_TREE) != 0,
                                 .hex = (options & OPTION_HEX) != 0,
                                 .version_given = (options & OPTION_VERSION) != 0,
                                 .version = 7,
                                 .format = formats[options & OPTION_FORMAT],
                                 .limit = UINT64_MAX};
    if (load("first", data + (size != 0), size - (size != 0)) == EXIT_DONE)
        go_round("first");
    fuzz_end(begun, disk);
    return 0;
}

/* A text has no sums. */
void fuzz_repair(uint8_t *data, size_t size)
{
    (void)data;
    (void)size;
}

/* ---- Seeds ------------------------------------------------------------------------------------------------------ */

static void seed(const char *name, unsigned options, const char *text, fuzz_sink *sink, void *context)
{
    char data[1024];
    size_t size = (size_t)snprintf(data, sizeof(data), "%c%s", '@' + (int)options, text);
    sink(context, name, data, size);
}

void fuzz_seeds(fuzz_sink *sink, void *context)
{
    seed("bytevalue", 0,
         "VERSION=3\nformat=bytevalue\ntype=btree\nHEADER=END\n 6b\n 7631\n 6b32\n \nDATA=END\n"
         "VERSION=3\nformat=bytevalue\ndatabase=t\ntype=btree\nHEADER=END\n 00ff\n 7631\nDATA=END\n",
         sink, context);
    seed("print", 0,
         "VERSION=3\nformat=print\ndatabase=a\\5cb\ntype=hash\nmapsize=1048576\nduplicates=0\nHEADER=END\n"
         " key\\00\n value \\\\\\ff\nDATA=END\n",
         sink, context);
    seed("lines", 1, "key\tvalue\nk\\x00\\t\tv\\n\\\\\n\t\n", sink, context);
    seed("lines_hex", 1 | OPTION_HEX, "6b\t76\n00ff\t\n", sink, context);
    seed("json", 2,
         "{\"key\":\"a\",\"value\":\"b\"}\n{\"tree\":\"t\\u00e4\",\"key_base64\":\"AP8=\",\"value_base64\":\"\"}\n\n"
         "{\"key\":\"\",\"value\":\"\\\"\\\\\\u0001\"}\n",
         sink, context);
    seed("json_versions", 2,
         "{\"tree\":\"c\",\"key\":\"a\",\"value\":\"b\",\"version\":12}\n{\"tree\":\"c\",\"key\":\"a\",\"value\":\"c\",\"version\":9}\n",
         sink, context);
    seed("version_given", 2 | OPTION_VERSION | OPTION_TREE, "{\"key\":\"a\",\"value\":\"b\"}\n", sink, context);
}
