/*
 * files, manifest: print of what files a store consists, and what its manifest says.
 *
 * Layer: tools.
 */
#include "tool.h"

#include <inttypes.h>

/* ---- files ------------------------------------------------------------------------------------------------------ */

static const char *kind_of(const struct quire_file *file)
{
    static const char *const names[] = {"?", "other", "manifest", "lock", "log", "pages", "blobs"};
    return file->kind < sizeof(names) / sizeof(names[0]) ? names[file->kind] : "?";
}

static const char *state_of(const struct quire_file *file)
{
    static const char *const names[] = {"?", "needed", "leftover", "unknown"};
    return file->state < sizeof(names) / sizeof(names[0]) ? names[file->state] : "?";
}

static void print_text(const struct quire_file *file)
{
    printf("%-14s %-8s %-8s %12" PRIu64, file->name, kind_of(file), state_of(file), file->size_bytes);
    if (file->kind == QUIRE_FILE_LOG)
        printf("  incarnation %" PRIu64 ", LSNs %" PRIu64 " to %" PRIu64, file->incarnation, file->first_lsn, file->end_lsn);
    else if (file->used_bytes != 0)
        printf("  used %" PRIu64 ", live %" PRIu64, file->used_bytes, file->live_bytes);
    putchar('\n');
}

static void print_json(const struct quire_file *file)
{
    printf("{\"name\":");
    put_json_text(file->name);
    printf(",\"kind\":\"%s\",\"state\":\"%s\",\"size_bytes\":%" PRIu64, kind_of(file), state_of(file), file->size_bytes);
    if (file->number != 0)
        printf(",\"number\":%" PRIu64, file->number);
    if (file->kind == QUIRE_FILE_LOG)
        printf(",\"incarnation\":%" PRIu64 ",\"first_lsn\":%" PRIu64 ",\"end_lsn\":%" PRIu64, file->incarnation,
               file->first_lsn, file->end_lsn);
    if (file->used_bytes != 0)
        printf(",\"used_bytes\":%" PRIu64 ",\"live_bytes\":%" PRIu64, file->used_bytes, file->live_bytes);
    printf("}\n");
}

static int print_file(void *context, const struct quire_file *file)
{
    (void)context;
    if (settings.json)
        print_json(file);
    else
        print_text(file);
    return ferror(stdout);
}

/* ---- manifest --------------------------------------------------------------------------------------------------- */

static int print_record(void *context, const struct quire_manifest_record *record)
{
    (void)context;
    if (settings.json)
        printf("{\"sequence\":%" PRIu64 ",\"kind\":\"%s\",\"number\":%u,\"size_bytes\":%" PRIu64 ",\"fields\":%s}\n", record->sequence,
               record->name, record->kind, record->size_bytes, record->fields);
    else
        printf("%6" PRIu64 " %-12s %s\n", record->sequence, record->name, record->fields);
    return ferror(stdout);
}

/* ---- Commands --------------------------------------------------------------------------------------------------- */

static int finish(int result, const char *what)
{
    if (result == 0 || ferror(stdout))
        return EXIT_DONE; /* a failed output is told by whoever flushes it */
    return result == QUIRE_NOT_FOUND ? tool_fail(EXIT_ABSENT, "%s: there is no store", settings.plain[0]) : tool_failed(result, what);
}

static int run_files(const struct command *command)
{
    (void)command;
    return finish(quire_files_each(settings.plain[0], print_file, NULL), "files");
}

static int run_manifest(const struct command *command)
{
    (void)command;
    return finish(quire_manifest_each(settings.plain[0], print_record, NULL), "manifest");
}

const struct command command_files = {
    "files", "[OPTION...] STORE", "Lists the files of a store: what each is, whether it is needed, sizes",
    "A leftover is removed or used again at the next opening for writing.\n",
    "j", 1, 1, run_files,
};

const struct command command_manifest = {
    "manifest", "[OPTION...] STORE", "Prints the records of the manifest, oldest first",
    "The last record of a kind is in force.\n",
    "j", 1, 1, run_manifest,
};
