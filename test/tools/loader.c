/*
 * Goal: a process that has a store open, or dies with one, for the tests of the tool.
 * Method: loader PATH COUNT MODE puts COUNT keys at level PROCESS. MODE: wait (says "ready" and waits to be killed), kill (kills
 * itself), caller (a tree with versions of the caller's; each key at 5; closes).
 */
#include <quire/quire.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void must(int result)
{
    struct quire_error_detail detail;
    if (result == 0)
        return;
    quire_error_detail(&detail);
    fprintf(stderr, "%s: %s\n", quire_strerror(result), detail.message);
    exit(1);
}

int main(int argc, char **argv)
{
    struct quire_options options;
    struct quire_tree_options tree_options;
    struct quire *db;
    struct quire_tree *tree;
    if (argc != 4)
        return 2;
    int caller = strcmp(argv[3], "caller") == 0;
    quire_options_init(&options);
    options.level = QUIRE_LEVEL_PROCESS;
    quire_tree_options_init(&tree_options);
    tree_options.versions = caller ? QUIRE_VERSIONS_CALLER : QUIRE_VERSIONS_ENGINE;
    must(quire_open(argv[1], &options, &db));
    must(quire_tree_open(db, NULL, &tree_options, &tree));
    for (int i = 0; i < atoi(argv[2]); i++) {
        char key[32];
        size_t size = (size_t)snprintf(key, sizeof(key), "key%06d", i);
        must(caller ? quire_put_at(tree, 5, key, size, "value", 5, 0, NULL) : quire_put(tree, key, size, "value", 5, 0, NULL));
    }
    if (caller)
        return quire_close(db) != 0;
    if (strcmp(argv[3], "kill") == 0)
        kill(getpid(), SIGKILL);
    printf("ready\n");
    fflush(stdout);
    for (;;)
        pause();
}
