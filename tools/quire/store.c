/*
 * The way to a store and back, and what is said when it fails.
 *
 * Layer: tools.
 */
#include "tool.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

int tool_fail(int exit_code, const char *format, ...)
{
    va_list arguments;
    progress_end();
    fflush(stdout);
    fprintf(stderr, "quire: ");
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    return exit_code;
}

static int exit_code_of(int result)
{
    if (result == QUIRE_ERR_INVALID || result == QUIRE_ERR_TOO_LARGE)
        return EXIT_WRONG; /* a range that ends before it starts, a key or a name above its limit */
    return result == QUIRE_ERR_CORRUPT ? EXIT_DAMAGED : EXIT_FAILED;
}

int tool_failed(int result, const char *what)
{
    struct quire_error_detail detail;
    if (result > 0)
        return tool_fail(EXIT_ABSENT, "%s: %s", what, quire_strerror(result));
    quire_error_detail(&detail);
    int code = exit_code_of(result);
    if (detail.os_errno != 0)
        return tool_fail(code, "%s: %s: %s (%s)", what, quire_strerror(result), detail.message, strerror(detail.os_errno));
    return tool_fail(code, "%s: %s: %s", what, quire_strerror(result), detail.message);
}

int tool_open(uint32_t open_mode, struct quire **ret_db)
{
    struct quire_options options;
    quire_options_init(&options);
    options.open_mode = open_mode;
    options.recovery_progress = progress_of_recovery;
    if (open_mode == QUIRE_OPEN_READ_ONLY)
        options.background_threads = QUIRE_NO_THREADS; /* there is nothing to do for them; so pages are as they are in the files */
    int result = quire_open(settings.plain[0], &options, ret_db);
    progress_end();
    if (result == QUIRE_NOT_FOUND)
        return tool_fail(EXIT_ABSENT, "%s: there is no store", settings.plain[0]);
    return result == 0 ? EXIT_DONE : tool_failed(result, settings.plain[0]);
}

int tool_close(struct quire *db, int code)
{
    int result = quire_close(db);
    if (result == 0 || code != EXIT_DONE)
        return code;
    return tool_failed(result, "closing the store");
}

int tool_tree(struct quire *db, const char *name, bool create, struct quire_tree **ret_tree, bool *ret_caller)
{
    struct quire_tree_options options;
    quire_tree_options_init(&options);
    options.must_exist = !create;
    int result = quire_tree_open(db, name, &options, ret_tree);
    if (result == QUIRE_NOT_FOUND)
        return tool_fail(EXIT_ABSENT, "there is no tree \"%s\"", name);
    if (result == 0)
        result = quire_tree_options_get(*ret_tree, &options);
    if (result != 0)
        return tool_failed(result, "opening the tree");
    *ret_caller = options.versions == QUIRE_VERSIONS_CALLER;
    if (settings.version_given && !*ret_caller)
        return tool_fail(EXIT_WRONG, "--at is for trees with versions of the caller's");
    return EXIT_DONE;
}

int tool_flush(int code)
{
    progress_end();
    if (fflush(stdout) == 0 && !ferror(stdout))
        return code;
    return code != EXIT_DONE ? code : tool_fail(EXIT_FAILED, "standard output: %s", strerror(errno));
}
