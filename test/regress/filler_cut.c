/*
 * Goal: a thread that is killed while it fills a piece of the log, or writes a part of a large value, takes nothing with it that
 * another thread was told is safe.
 * Method: a child whose first thread stops between two stores of a frame at the boundary of a segment, or of a PART; its second
 * thread writes, and is answered; then the child kills itself, and the store is opened here. At each such place in turn.
 * The bug: such frames were decided before they had their LSN, so what was cut there was taken for damage, and damage ends the log.
 */
#include "base/stop.h"
#include "lib/check.h"

#include <quire/quire.h>

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define STEPS 6u

static struct quire *db;
static struct quire_tree *tree;
static pthread_t first;
static const char *where; /* the stop point */
static unsigned steps;    /* how many more are let pass */
static bool counting;     /* at the boundary, or in the large value */

static bool open_store(const char *path)
{
    struct quire_options options;
    quire_options_init(&options);
    options.level = QUIRE_LEVEL_PROCESS;
    options.log_segment_bytes = 65536;
    options.blob_threshold_bytes = 1 << 20; /* large values go to the log */
    options.background_threads = QUIRE_NO_THREADS;
    int result = quire_open(path, &options, &db);
    return CHECK(result == 0, "open: %s", quire_strerror(result)) && CHECK_EQUAL(quire_tree_open(db, "t", NULL, &tree), 0);
}

static void *write_and_kill(void *argument)
{
    char key[16];
    (void)argument;
    for (unsigned i = 0; i < 20; i++) {
        snprintf(key, sizeof(key), "safe %02u", i);
        if (quire_put(tree, key, 7, "told", 4, 0, NULL) != 0) _exit(3);
    }
    kill(getpid(), SIGKILL);
    return NULL;
}

static void at_stop(const char *name, void *argument)
{
    pthread_t second;
    (void)argument;
    if (!pthread_equal(pthread_self(), first)) return;
    if (!counting || strcmp(name, where) != 0 || steps-- != 0) return;
    if (pthread_create(&second, NULL, write_and_kill, NULL) != 0) _exit(3);
    pause();
}

/* large: stops in a large value's PARTs; else in a frame near the boundary, where its reservation is filled. */
static _Noreturn void child(const char *path, bool large)
{
    static char value[30000];
    char key[16];
    first = pthread_self();
    if (!open_store(path)) _exit(3);
    qr_stop_set_hook(at_stop, NULL);
    counting = large;
    for (unsigned i = 0; i < 100; i++) {
        snprintf(key, sizeof(key), "key %03u", i);
        if (!large && i == 55) counting = true; /* 1 KiB each: the segment ends soon */
        if (quire_put(tree, key, 7, value, large ? sizeof(value) : 1000, 0, NULL) != 0) _exit(3);
    }
    _exit(0); /* it did not stop */
}

static void run(char *program, char *path, const char *name, unsigned step, bool large)
{
    char key[16], value[8];
    size_t size;
    int status = 0;
    char number[16], kind[2] = {large ? 'l' : 's', 0};
    char *const arguments[] = {program, path, (char *)(uintptr_t)name, number, kind, NULL};
    snprintf(number, sizeof(number), "%u", step);
    pid_t pid = fork();
    if (pid == 0) {
        execv(program, arguments); /* a process that has had a store open is not to have children that open one */
        _exit(2);
    }
    CHECK_EQUAL(waitpid(pid, &status, 0), pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "the child ended with status %d", status);
    if (!open_store(path)) return;
    for (unsigned i = 0; i < 20; i++) {
        snprintf(key, sizeof(key), "safe %02u", i);
        int result = quire_get(tree, NULL, key, 7, value, sizeof(value), &size);
        CHECK(result == 0, "%s, step %u, large %d: key %u: %s", name, step, large, i, quire_strerror(result));
    }
    CHECK_EQUAL(quire_close(db), 0);
}

int main(int argc, char **argv)
{
    if (argc == 5) {
        where = argv[2];
        steps = (unsigned)strtoul(argv[3], NULL, 10);
        child(argv[1], argv[4][0] == 'l');
    }
    static const char *const names[] = {"frame.unnamed", "frame.named"};
    char root[] = "/tmp/quire-regress-XXXXXX";
    char path[64];
    CHECK(mkdtemp(root) != NULL, "no directory");
    for (unsigned i = 0; i < 4; i++) {
        for (unsigned step = 0; step < STEPS * (i < 2 ? 3 : 1); step++) {
            snprintf(path, sizeof(path), "%s/%u-%u", root, i, step);
            run(argv[0], path, names[i % 2], step, i >= 2);
        }
    }
    snprintf(path, sizeof(path), "rm -rf %s", root);
    CHECK_EQUAL(system(path), 0);
    return check_finish();
}
