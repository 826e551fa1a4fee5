/*
 * log: prints the frames of the log.
 *
 * Layer: tools.
 */
#include "tool.h"

#include <inttypes.h>

static const char *kind_of(const struct quire_log_frame *frame)
{
    static const char *const names[] = {"?", "put", "delete", "part", "filler", "hole", "damaged"};
    return frame->kind < sizeof(names) / sizeof(names[0]) ? names[frame->kind] : "?";
}

static const char *state_of(const struct quire_log_frame *frame)
{
    static const char *const names[] = {"-", "undecided", "done", "void"};
    return frame->state < sizeof(names) / sizeof(names[0]) ? names[frame->state] : "?";
}

static void print_text(const struct quire_log_frame *frame)
{
    bool record = frame->kind == QUIRE_FRAME_PUT || frame->kind == QUIRE_FRAME_DELETE;
    printf("%12" PRIu64 " %s+%-9" PRIu64 " %3" PRIu64 " %-7s %-9s %7" PRIu64, frame->lsn, frame->file, frame->offset,
           frame->incarnation, kind_of(frame), state_of(frame), frame->size_bytes);
    if (record)
        printf("  tree %u key %" PRIu64 " value %" PRIu64, frame->tree_id, frame->key_size, frame->value_size);
    if (frame->kind == QUIRE_FRAME_PART)
        printf("  piece %" PRIu64, frame->value_size);
    if (frame->has_version)
        printf(" version %" PRIu64, frame->version);
    if (frame->conditional)
        printf(" replaces %" PRIu64, frame->replaces);
    if (frame->last_part != 0)
        printf(record ? " in parts, the last at %" PRIu64 : " behind %" PRIu64, frame->last_part);
    if (frame->key != NULL) {
        printf("  ");
        put_escaped(frame->key, frame->key_size < 64 ? frame->key_size : 64);
        fputs(frame->key_size > 64 ? "..." : "", stdout);
    }
    printf("%s\n", frame->needed ? "" : "  (not needed)");
}

static void print_json(const struct quire_log_frame *frame)
{
    printf("{\"lsn\":%" PRIu64 ",\"file\":", frame->lsn);
    put_json_text(frame->file);
    printf(",\"offset\":%" PRIu64 ",\"incarnation\":%" PRIu64 ",\"kind\":\"%s\",\"state\":\"%s\",\"size_bytes\":%" PRIu64
           ",\"needed\":%s",
           frame->offset, frame->incarnation, kind_of(frame), state_of(frame), frame->size_bytes,
           frame->needed ? "true" : "false");
    if (frame->kind == QUIRE_FRAME_PUT || frame->kind == QUIRE_FRAME_DELETE)
        printf(",\"tree_id\":%u,\"key_size\":%" PRIu64 ",\"value_size\":%" PRIu64, frame->tree_id, frame->key_size,
               frame->value_size);
    if (frame->kind == QUIRE_FRAME_PART)
        printf(",\"piece_size\":%" PRIu64, frame->value_size);
    if (frame->has_version)
        put_json_version(frame->version);
    if (frame->conditional)
        printf(",\"replaces\":%" PRIu64, frame->replaces);
    if (frame->last_part != 0)
        printf(",\"last_part\":%" PRIu64, frame->last_part);
    if (frame->large)
        printf(",\"large\":true");
    if (frame->part_count != 0)
        printf(",\"part_count\":%u", frame->part_count);
    if (frame->key != NULL) {
        putchar(',');
        put_json_bytes("key", frame->key, frame->key_size);
    }
    printf("}\n");
}

enum { ENOUGH = 1000 }; /* no result of the library */

static int print_frame(void *context, const struct quire_log_frame *frame)
{
    uint64_t *left = context;
    if (*left == 0 || ferror(stdout))
        return ENOUGH;
    --*left;
    if (settings.json)
        print_json(frame);
    else
        print_text(frame);
    return 0;
}

static int run_log(const struct command *command)
{
    uint64_t left = settings.limit;
    (void)command;
    if (!settings.json)
        printf("%12s %-22s %3s %-7s %-9s %7s\n", "LSN", "file+offset", "inc", "kind", "state", "bytes");
    int result = quire_log_each(settings.plain[0], print_frame, &left);
    if (result == 0 || (result == ENOUGH && (left == 0 || ferror(stdout))))
        return EXIT_DONE;
    return result == QUIRE_NOT_FOUND ? tool_fail(EXIT_ABSENT, "%s: there is no store", settings.plain[0])
                                     : tool_failed(result, "log");
}

const struct command command_log = {
    "log", "[OPTION...] STORE", "Prints the frames of the log: LSN, place, kind, state, tree, sizes, key",
    "Reads the files as they are, without recovery. Frames that a checkpoint has made superfluous are there until their\n"
    "segment is used again. Trees are numbered as they were created, 0 is the list of trees.\n",
    "jxl", 1, 1, run_log,
};
