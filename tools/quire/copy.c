/*
 * copy: the files of a store that nobody has open for writing.
 *
 * Layer: tools. The source is open read-only meanwhile: so nobody can open it for writing, and one that is open for writing, or
 * does not open, is refused. So is one whose log has places that the death of its last process left undecided: where the process
 * wrote it, what comes behind them counts; in a copy it would not, since it looks like what a loss of power leaves
 * (doc/durability.md).
 */
#include "tool.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIECE_BYTES = 1 << 20 };

static int failed(const char *name, const char *what)
{
    return tool_fail(EXIT_FAILED, "%s: %s: %s", name, what, strerror(errno));
}

static int copy_bytes(int from, int to, const char *name, char *piece, uint64_t *bytes)
{
    for (;;) {
        ssize_t size = read(from, piece, PIECE_BYTES);
        if (size == 0)
            return fsync(to) == 0 ? EXIT_DONE : failed(name, "sync");
        if (size < 0)
            return failed(name, "read");
        for (ssize_t done = 0, count; done < size; done += count) {
            count = write(to, piece + done, (size_t)(size - done));
            if (count < 0)
                return failed(name, "write");
        }
        *bytes += (uint64_t)size;
        progress_show("bytes copied", *bytes, 0);
    }
}

static int copy_file(int source, int target, const char *name, char *piece, uint64_t *bytes)
{
    int code;
    int from = openat(source, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    int to = from < 0 ? -1 : openat(target, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (to < 0)
        code = failed(name, "open");
    else
        code = copy_bytes(from, to, name, piece, bytes);
    if (to >= 0 && close(to) != 0 && code == EXIT_DONE)
        code = failed(name, "close");
    if (from >= 0)
        close(from);
    return code;
}

/* All files of a store: the manifest last, so that what is not whole is no store. */
static bool is_file_of_store(const char *name)
{
    return strncmp(name, "log-", 4) == 0 || strncmp(name, "page-", 5) == 0;
}

static int copy_files(int source, int target, uint64_t *bytes)
{
    const struct dirent *entry;
    int code = EXIT_DONE;
    char *piece = malloc(PIECE_BYTES);
    int again = openat(source, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = again < 0 ? NULL : fdopendir(again);
    if (list == NULL || piece == NULL)
        code = failed("the store", "listing");
    while (code == EXIT_DONE && (entry = readdir(list)) != NULL) {
        if (is_file_of_store(entry->d_name))
            code = copy_file(source, target, entry->d_name, piece, bytes);
    }
    if (code == EXIT_DONE && fsync(target) != 0)
        code = failed("the copy", "sync");
    if (code == EXIT_DONE)
        code = copy_file(source, target, "manifest", piece, bytes);
    if (code == EXIT_DONE && fsync(target) != 0)
        code = failed("the copy", "sync");
    if (list != NULL)
        closedir(list);
    free(piece);
    return code;
}

static int sync_parent(int target)
{
    int parent = openat(target, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int code = parent >= 0 && fsync(parent) == 0 ? EXIT_DONE : failed("the copy's parent directory", "sync");
    if (parent >= 0)
        close(parent);
    return code;
}

static int copy_store(const char *from, const char *to, uint64_t *bytes)
{
    int code;
    int source = open(from, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (source < 0)
        return failed(from, "open");
    if (mkdir(to, 0777) != 0) {
        close(source);
        return failed(to, "mkdir");
    }
    int target = open(to, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (target < 0) {
        code = failed(to, "open");
    } else {
        code = copy_files(source, target, bytes);
        if (code == EXIT_DONE)
            code = sync_parent(target);
        close(target);
    }
    close(source);
    return code;
}

/* Not 0: a copy would be read otherwise than the original. */
static int find_undecided(void *context, const struct quire_log_frame *frame)
{
    bool *found = context;
    bool undecided = frame->kind == QUIRE_FRAME_HOLE || frame->kind == QUIRE_FRAME_DAMAGED ||
                     frame->state == QUIRE_FRAME_UNDECIDED;
    *found = *found || (frame->needed && undecided);
    return 0;
}

static int run_copy(const struct command *command)
{
    struct quire *db;
    uint64_t bytes = 0;
    bool undecided = false;
    (void)command;
    int code = tool_open(QUIRE_OPEN_READ_ONLY, &db);
    if (code != EXIT_DONE)
        return code;
    int result = quire_log_each(settings.plain[0], find_undecided, &undecided);
    if (result != 0)
        code = tool_failed(result, "reading the log");
    else if (undecided)
        code = tool_fail(EXIT_FAILED, "%s was left by a process that died: open it once for writing (quire load STORE </dev/null)",
                         settings.plain[0]);
    else
        code = copy_store(settings.plain[0], settings.plain[1], &bytes);
    code = tool_close(db, code);
    if (code != EXIT_DONE)
        return code;
    if (settings.json)
        printf("{\"copied_bytes\":%" PRIu64 "}\n", bytes);
    else
        printf("%" PRIu64 " bytes copied\n", bytes);
    return EXIT_DONE;
}

const struct command command_copy = {
    "copy", "[OPTION...] STORE TARGET", "Copies a store that nobody has open for writing to a new directory",
    "A store that a process has open for writing is refused, and so is one whose log has places that the death of a\n"
    "process left undecided: open it once for writing. If copying fails, what is in TARGET is no store, and can be removed.\n",
    "j", 2, 2, run_copy,
};
