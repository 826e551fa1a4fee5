/*
 * load: fills trees from standard input or files: dumps, lines of key and value, JSON lines.
 *
 * Layer: tools. A line of the input is in memory at a time.
 */
#include "tool.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct load {
    struct quire *db;
    struct quire_tree *tree;
    bool caller; /* the tree has versions of the caller's */
    char *tree_name;

    FILE *input;
    const char *input_name;
    uint64_t input_bytes, line_number; /* input_bytes 0: not known */
    char *line;
    size_t line_capacity, line_size;

    uint64_t count, read_bytes;
    struct bytes key, value, name; /* name: of a record's tree */
};

/* ---- Input ------------------------------------------------------------------------------------------------------ */

static int wrong_line(const struct load *load, const char *why)
{
    return tool_fail(EXIT_WRONG, "%s, line %" PRIu64 ": %s", load->input_name, load->line_number, why);
}

/* What the line asks for could not be done. */
static int failed_line(const struct load *load, int result)
{
    char place[4200]; /* a path and more; a longer one is cut */
    snprintf(place, sizeof(place), "%s, line %" PRIu64, load->input_name, load->line_number);
    return tool_failed(result, place);
}

/* The next line without its line break. False: there is none, or the input failed. */
static bool next_line(struct load *load)
{
    ssize_t size = getline(&load->line, &load->line_capacity, load->input);
    if (size < 0)
        return false;
    load->read_bytes += (uint64_t)size;
    load->line_number++;
    if (size > 0 && load->line[size - 1] == '\n')
        size--;
    load->line[size] = '\0';
    load->line_size = (size_t)size;
    if ((load->line_number & 255) == 0)
        progress_show("loading", load->input_bytes != 0 ? load->read_bytes : load->count, load->input_bytes);
    return true;
}

static int open_input(struct load *load, const char *name)
{
    struct stat facts;
    load->line_number = load->read_bytes = load->input_bytes = 0;
    load->input_name = name == NULL ? "standard input" : name;
    load->input = name == NULL ? stdin : fopen(name, "r");
    if (load->input == NULL)
        return tool_fail(EXIT_FAILED, "%s: %s", name, strerror(errno));
    if (fstat(fileno(load->input), &facts) == 0 && S_ISREG(facts.st_mode))
        load->input_bytes = (uint64_t)facts.st_size;
    return EXIT_DONE;
}

static int close_input(struct load *load, int code)
{
    bool failed = ferror(load->input);
    if (load->input != stdin)
        fclose(load->input);
    return code == EXIT_DONE && failed ? tool_fail(EXIT_FAILED, "%s cannot be read", load->input_name) : code;
}

/* ---- Writing ---------------------------------------------------------------------------------------------------- */

static int use_tree(struct load *load, const char *name)
{
    struct quire_limits limits;
    quire_limits(&limits);
    if (settings.tree_given)
        name = settings.tree;
    else if (strlen(name) > limits.max_tree_name_size)
        return wrong_line(load, "the name of a tree has more than 255 bytes");
    if (load->tree_name != NULL && strcmp(load->tree_name, name) == 0)
        return EXIT_DONE;
    int code = tool_tree(load->db, name, true, &load->tree, &load->caller);
    if (code != EXIT_DONE)
        return code;
    free(load->tree_name);
    load->tree_name = strdup(name);
    return load->tree_name != NULL ? EXIT_DONE : tool_fail(EXIT_FAILED, "no memory");
}

static int store(struct load *load, bool has_version, uint64_t version)
{
    unsigned flags = settings.durable ? QUIRE_WRITE_DURABLE : QUIRE_WRITE_PROCESS;
    if (load->caller && !has_version)
        return wrong_line(load, "the tree has versions of the caller's: a \"version\", or --at N, is needed");
    int result = load->caller ? quire_put_at(load->tree, version, load->key.data, load->key.size, load->value.data,
                                             load->value.size, flags, NULL)
                              : quire_put(load->tree, load->key.data, load->key.size, load->value.data, load->value.size,
                                          flags, NULL);
    if (result != 0)
        return failed_line(load, result);
    load->count++;
    return EXIT_DONE;
}

/* ---- Lines ------------------------------------------------------------------------------------------------------ */

static int load_lines(struct load *load)
{
    int code = use_tree(load, "");
    while (code == EXIT_DONE && next_line(load)) {
        const char *why;
        const char *tab = memchr(load->line, '\t', load->line_size);
        if (tab == NULL)
            return wrong_line(load, "there is no tab between key and value");
        size_t key_size = (size_t)(tab - load->line);
        if (bytes_parse(&load->key, load->line, key_size, settings.hex, &why) != 0 ||
            bytes_parse(&load->value, tab + 1, load->line_size - key_size - 1, settings.hex, &why) != 0)
            return wrong_line(load, why);
        code = store(load, settings.version_given, settings.version);
    }
    return code;
}

/* ---- JSON ------------------------------------------------------------------------------------------------------- */

/* NULL, or what is wrong. The member `name`, or `name`_base64. */
static const char *take_member(struct bytes *to, const cJSON *object, const char *name, const char *name_base64)
{
    const cJSON *text = cJSON_GetObjectItemCaseSensitive(object, name);
    const cJSON *base64 = cJSON_GetObjectItemCaseSensitive(object, name_base64);
    to->size = 0;
    if ((text != NULL) == (base64 != NULL))
        return "one of key, key_base64 is needed, and one of value, value_base64, and at most one of tree, tree_base64";
    if (!cJSON_IsString(text != NULL ? text : base64))
        return "keys, values and trees are strings";
    if (text == NULL)
        return bytes_from_base64(to, base64->valuestring) == 0 ? NULL : "it is not base64";
    return bytes_add(to, text->valuestring, strlen(text->valuestring)) ? NULL : "no memory";
}

/* A member that comes twice would be taken once, and it could not be said which. */
static const char *find_twice(const cJSON *object)
{
    static const char *const names[] = {"key", "key_base64", "value", "value_base64", "tree", "tree_base64", "version"};
    unsigned counts[sizeof(names) / sizeof(names[0])] = {0};
    for (const cJSON *member = object->child; member != NULL; member = member->next) {
        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
            if (strcmp(member->string, names[i]) == 0 && counts[i]++ != 0)
                return "a member comes twice";
        }
    }
    return NULL;
}

/* The tree's name: that of the default tree if there is none. */
static const char *take_name(struct bytes *to, const cJSON *object)
{
    const char *wrong = NULL;
    to->size = 0;
    if (cJSON_GetObjectItemCaseSensitive(object, "tree") != NULL ||
        cJSON_GetObjectItemCaseSensitive(object, "tree_base64") != NULL)
        wrong = take_member(to, object, "tree", "tree_base64");
    else if (!bytes_add(to, "", 0))
        wrong = "no memory";
    if (wrong == NULL && strlen(to->data) != to->size)
        wrong = "the name of a tree has no NUL";
    return wrong;
}

/* A version is a whole number, which cJSON keeps as a double, exact up to VERSION_EXACT; or a string of its digits. */
static const char *take_version(const cJSON *object, bool *ret_has, uint64_t *ret_version)
{
    const cJSON *version = cJSON_GetObjectItemCaseSensitive(object, "version");
    *ret_has = settings.version_given;
    *ret_version = settings.version;
    if (version == NULL)
        return NULL;
    *ret_has = true;
    if (cJSON_IsString(version))
        return parse_number(version->valuestring, ret_version) ? NULL : "version is a string, but not of a whole number";
    if (!cJSON_IsNumber(version) || version->valuedouble < 0 || version->valuedouble > (double)VERSION_EXACT ||
        version->valuedouble != (double)(uint64_t)version->valuedouble)
        return "version is not a whole number up to 2^53; above it is a string";
    *ret_version = (uint64_t)version->valuedouble;
    return NULL;
}

static int load_object(struct load *load, const cJSON *object)
{
    bool has_version;
    uint64_t version;
    const char *wrong = find_twice(object);
    if (wrong == NULL)
        wrong = take_member(&load->key, object, "key", "key_base64");
    if (wrong == NULL)
        wrong = take_member(&load->value, object, "value", "value_base64");
    if (wrong == NULL)
        wrong = take_name(&load->name, object);
    if (wrong == NULL)
        wrong = take_version(object, &has_version, &version);
    if (wrong != NULL)
        return wrong_line(load, wrong);
    int code = use_tree(load, load->name.data);
    return code == EXIT_DONE ? store(load, has_version, version) : code;
}

/* cJSON ends a text at \u0000. */
static bool has_escaped_nul(const char *line)
{
    for (const char *at = line; (at = strchr(at, '\\')) != NULL; at += 2) {
        if (strncmp(at, "\\u0000", 6) == 0)
            return true;
        if (at[1] == '\0')
            return false;
    }
    return false;
}

static int load_json(struct load *load)
{
    int code = EXIT_DONE;
    while (code == EXIT_DONE && next_line(load)) {
        if (load->line_size == 0)
            continue;
        if (has_escaped_nul(load->line))
            return wrong_line(load, "\\u0000 in a text: key_base64 and value_base64 have any bytes");
        cJSON *object = cJSON_ParseWithLengthOpts(load->line, load->line_size + 1, NULL, 1);
        code = cJSON_IsObject(object) ? load_object(load, object) : wrong_line(load, "it is not a JSON object");
        cJSON_Delete(object);
    }
    return code;
}

/* ---- Dumps ------------------------------------------------------------------------------------------------------ */

struct dump_header {
    bool print;
    char *database;
};

/* A line NAME=VALUE of a header. Names that say how another store is laid out are passed over. */
static int take_field(struct load *load, struct dump_header *header)
{
    char *value = strchr(load->line, '=');
    const char *why;
    if (value == NULL)
        return wrong_line(load, "a header's line is NAME=VALUE");
    *value++ = '\0';
    const char *name = load->line;
    if (strcmp(name, "VERSION") == 0 && strcmp(value, "3") != 0 && strcmp(value, "2") != 0)
        return wrong_line(load, "a dump of an unknown version");
    if (strcmp(name, "format") == 0) {
        header->print = strcmp(value, "print") == 0;
        if (!header->print && strcmp(value, "bytevalue") != 0)
            return wrong_line(load, "the format is neither bytevalue nor print");
    }
    if (strcmp(name, "type") == 0 && strcmp(value, "btree") != 0 && strcmp(value, "hash") != 0)
        return wrong_line(load, "the type is neither btree nor hash: its records have no keys");
    if ((strcmp(name, "duplicates") == 0 || strcmp(name, "dupsort") == 0) && strcmp(value, "0") != 0)
        return wrong_line(load, "a key of it may have several values: here it has one");
    if (strcmp(name, "database") == 0) {
        if (bytes_parse(&load->key, value, strlen(value), false, &why) != 0)
            return wrong_line(load, why);
        free(header->database);
        header->database = strdup(load->key.data);
        if (header->database == NULL)
            return tool_fail(EXIT_FAILED, "no memory");
    }
    return EXIT_DONE;
}

/* *ret_found: there is another tree. */
static int read_header(struct load *load, struct dump_header *header, bool *ret_found)
{
    bool first = true;
    *ret_found = false;
    while (next_line(load)) {
        if (first && strncmp(load->line, "VERSION=", 8) != 0)
            return wrong_line(load, "a dump begins with VERSION=");
        first = false;
        if (strcmp(load->line, "HEADER=END") == 0) {
            *ret_found = true;
            return EXIT_DONE;
        }
        int code = take_field(load, header);
        if (code != EXIT_DONE)
            return code;
    }
    return first ? EXIT_DONE : wrong_line(load, "the dump ends in its header");
}

static int take_data(const struct load *load, bool print, struct bytes *to)
{
    const char *why = "a line of data begins with a space";
    if (load->line[0] == ' ' && bytes_parse(to, load->line + 1, load->line_size - 1, !print, &why) == 0)
        return EXIT_DONE;
    return wrong_line(load, why);
}

static int load_data(struct load *load, bool print)
{
    while (next_line(load)) {
        if (strcmp(load->line, "DATA=END") == 0)
            return EXIT_DONE;
        int code = take_data(load, print, &load->key);
        if (code == EXIT_DONE && !next_line(load))
            return wrong_line(load, "the dump ends behind a key");
        if (code == EXIT_DONE)
            code = take_data(load, print, &load->value);
        if (code == EXIT_DONE)
            code = store(load, settings.version_given, settings.version);
        if (code != EXIT_DONE)
            return code;
    }
    return wrong_line(load, "the dump ends without DATA=END: it is not whole");
}

static int load_dump(struct load *load)
{
    for (;;) {
        struct dump_header header = {0};
        bool found;
        int code = read_header(load, &header, &found);
        if (code == EXIT_DONE && found)
            code = use_tree(load, header.database == NULL ? "" : header.database);
        if (code == EXIT_DONE && found)
            code = load_data(load, header.print);
        free(header.database);
        if (code != EXIT_DONE || !found)
            return code;
    }
}

/* ---- The command ------------------------------------------------------------------------------------------------ */

typedef int load_function(struct load *load);

static load_function *function_of(const char *format)
{
    if (format == NULL || strcmp(format, "dump") == 0)
        return load_dump;
    if (strcmp(format, "lines") == 0)
        return load_lines;
    return strcmp(format, "json") == 0 ? load_json : NULL;
}

static int load_input(struct load *load, load_function *function, const char *name)
{
    int code = open_input(load, name);
    return code == EXIT_DONE ? close_input(load, function(load)) : code;
}

static int run_load(const struct command *command)
{
    struct load load = {0};
    load_function *function = function_of(settings.format);
    (void)command;
    if (function == NULL)
        return tool_fail(EXIT_WRONG, "--format is dump, lines or json");
    int code = tool_open(QUIRE_OPEN_OR_CREATE, &load.db);
    if (code != EXIT_DONE)
        return code;
    if (settings.plain_count == 1)
        code = load_input(&load, function, NULL);
    for (int i = 1; i < settings.plain_count && code == EXIT_DONE; i++)
        code = load_input(&load, function, settings.plain[i]);
    int result = quire_sync(load.db);
    if (result != 0 && code == EXIT_DONE)
        code = tool_failed(result, "sync");
    code = tool_close(load.db, code);
    progress_end();
    if (settings.json)
        printf("{\"loaded\":%" PRIu64 "}\n", load.count);
    else
        printf("%" PRIu64 " loaded\n", load.count);
    free(load.line);
    free(load.tree_name);
    bytes_free(&load.key);
    bytes_free(&load.value);
    bytes_free(&load.name);
    return code;
}

const struct command command_load = {
    "load", "[OPTION...] STORE [FILE...]", "Stores what is in files, or on standard input; creates the store if need be",
    "dump: the text of `quire dump`, db_dump or mdb_dump; database=NAME is the tree, unless --tree says another.\n"
    "lines: key, a tab, value; escapes \\\\ \\t \\n \\r \\xHH.\n"
    "json: {\"key\": \"...\", \"value\": \"...\"}, with key_base64, value_base64 for any bytes; \"tree\" (or\n"
    "tree_base64) and \"version\" if there are; each once.\n"
    "Values that were there are replaced. When it ends with exit code 0 all is durable; when it fails, what came before\n"
    "the line at fault has been stored, and its number is told: of a dump that of the line with the value.\n",
    "tjxvfd", 1, -1, run_load,
};
