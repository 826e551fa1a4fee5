/*
 * Shorthand for the tests of databases with files: a directory for each test, stores in it, a digest of what is there.
 *
 * Test programs (api). TestSuite(..., .init = make_root, .fini = remove_root).
 */
#ifndef TEST_API_API_DIR_H
#define TEST_API_API_DIR_H

#include "api.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static char root[64];

HELPER void make_root(void)
{
    snprintf(root, sizeof(root), "/tmp/quire-api-XXXXXX");
    cr_assert_not_null(mkdtemp(root));
}

HELPER void remove_root(void)
{
    char command[128];
    snprintf(command, sizeof(command), "rm -rf %s", root);
    cr_assert_eq(system(command), 0);
}

HELPER const char *path_of(const char *name)
{
    static char path[128];
    snprintf(path, sizeof(path), "%s/%s", root, name);
    return path;
}

HELPER struct quire_options options_of(uint32_t mode, uint32_t level)
{
    struct quire_options options;
    quire_options_init(&options);
    options.open_mode = mode;
    options.level = level;
    options.log_segment_bytes = 65536;
    return options;
}

/* A failure says why. */
HELPER struct quire *open_by(const char *name, const struct quire_options *options)
{
    struct quire *db = NULL;
    int result = quire_open(path_of(name), options, &db);
    struct quire_error_detail detail;
    quire_error_detail(&detail);
    cr_assert(result == 0, "open: %s (%s)", quire_strerror(result), detail.message);
    return db;
}

HELPER struct quire *open_store(const char *name, uint32_t mode)
{
    struct quire_options options = options_of(mode, QUIRE_LEVEL_PROCESS);
    return open_by(name, &options);
}

HELPER int try_open(const char *name, uint32_t mode)
{
    struct quire_options options = options_of(mode, 0);
    struct quire *db = NULL;
    int result = quire_open(path_of(name), &options, &db);
    if (result == 0) OK(quire_close(db));
    return result;
}

/* A number that changes with any byte or name in a directory. */
HELPER uint64_t digest(const char *name)
{
    char command[256];
    char line[128] = "";
    snprintf(command, sizeof(command), "cd %s && (ls -la --time-style=full-iso; find . -type f | sort | xargs -r cat) | md5sum",
             path_of(name));
    FILE *pipe = popen(command, "r");
    cr_assert_not_null(fgets(line, sizeof(line), pipe));
    pclose(pipe);
    return strtoull(line, NULL, 16) ^ strtoull(line + 16, NULL, 16);
}

/* Whether there is something of the name in the test's directory. */
HELPER bool is_there(const char *name)
{
    struct stat facts;
    return lstat(path_of(name), &facts) == 0;
}

/* Runs a command of the shell in the test's directory. */
HELPER void shell(const char *command)
{
    char line[1024];
    snprintf(line, sizeof(line), "cd %s && %s", root, command);
    cr_assert_eq(system(line), 0, "%s", line);
}

#endif
