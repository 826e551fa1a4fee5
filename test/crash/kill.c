/*
 * Goal: after SIGKILL at any moment a store opens by itself and has every write that was acknowledged, and of each thread a
 * prefix of what it did.
 * Method: a child of this program writes with some threads, noting in a shared mapping what it is about to do and what was
 * acknowledged; it is killed at a random time, or kills itself at a named point: at once, or after the other threads have gone
 * on for a while. Then the store is opened here and compared with what each thread must have done; then opened once more, and the
 * child goes on with it. Every few kills a new store, of another kind.
 *
 * In a store without a log what is there is what has an LSN up to that of the last checkpoint, and nothing else.
 *
 * The n-th operation of a thread follows from the seed, the thread and n, so the state after n operations can be computed.
 *
 *     crash_kill --kills 200 --threads 4 --seed 1
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <quire/quire.h>

#include "base/stop.h"
#include "db/db.h"
#include "db/testing.h"

#define MOST_THREADS 16u
#define KEYS 512u
#define KILLS_A_STORE 20u
#define MOST_NOTED 65536u /* operations of a thread in one life of a store without a log */

/* ---- What child and parent share -------------------------------------------------------------------------------- */

struct shared {
    uint32_t threads;
    uint64_t seed;
    uint32_t level, buffered, off, threshold, points; /* points: which stop point to die at; 0: none */
    uint32_t point_after, point_pause_us;
    uint64_t start[MOST_THREADS]; /* operations that are done before this life */
    _Atomic uint64_t issued[MOST_THREADS], acked[MOST_THREADS];
    _Atomic uint32_t ready;
    char path[300];
    _Atomic uint64_t lsns[MOST_THREADS][MOST_NOTED]; /* off: of the operations of this life */
};
static struct shared *shared;

static const char *const points[] = {
    NULL,           "write.slot_open", "write.reserved",      "write.leaf_reserved", "write.decided",
    "write.blob_written", "frame.unnamed", "frame.named",
    "write.prepared", "log.boundary_filled", "log.before_sync", "log.synced",
    "checkpoint.postponed", "checkpoint.captured", "checkpoint.committed", "checkpoint.recorded", "checkpoint.bound",
    "checkpoint.as_of",
    "split.left_installed", "merge.sealed", "merge.absorbed", "post.parent_loaded",
};
#define POINTS (sizeof(points) / sizeof(points[0]))

/* ---- Operations ------------------------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
}

enum kind { PUT, DELETE, ADD };
struct operation {
    enum kind kind;
    uint32_t key;
    uint32_t size; /* of the value */
};

/* n counts from 1. */
static struct operation operation_of(uint64_t seed, uint32_t thread, uint64_t n)
{
    uint64_t x = mix(seed * 1000003 + thread * 77 + n * 16);
    struct operation op = {PUT, (uint32_t)(x % KEYS), (uint32_t)(x >> 32) % 200};
    if (x >> 20 & 1 && (x >> 21 & 3) == 0) op.kind = DELETE;
    if ((x >> 24 & 15) == 0) op.kind = ADD;
    if ((x >> 28 & 255) == 0) op.size = 30000; /* more than a frame in small logs, more than a page */
    return op;
}

static void key_of(uint32_t thread, uint32_t key, char *to)
{
    sprintf(to, "thread %02u key %05u", thread, key);
}

static void value_of(uint32_t thread, uint64_t n, uint32_t size, char *to)
{
    memset(to, 'a' + (int)(n % 26), size + 16);
    memcpy(to, &n, 8);
    memcpy(to + 8, &thread, 4);
}

/* ---- The child -------------------------------------------------------------------------------------------------- */

static void die_at(const char *name, void *argument)
{
    static _Atomic uint32_t passes;
    (void)argument;
    if (strcmp(name, points[shared->points]) != 0) return;
    if (atomic_fetch_add(&passes, 1) != shared->point_after) return;
    if (shared->point_pause_us != 0) usleep(shared->point_pause_us); /* the others go on, and acknowledge */
    kill(getpid(), SIGKILL);
    pause();
}

static struct quire *child_db;
static struct quire_tree *child_tree;

static void fail_child(const char *what, int result)
{
    struct quire_error_detail detail;
    quire_error_detail(&detail);
    fprintf(stderr, "child: %s: %s (%s)\n", what, quire_strerror(result), detail.message);
    _exit(3);
}

static void *work(void *argument)
{
    uint32_t thread = (uint32_t)(uintptr_t)argument;
    char key[64];
    static _Thread_local char value[32768];
    for (uint64_t n = shared->start[thread] + 1;; n++) {
        struct operation op = operation_of(shared->seed, thread, n);
        int result = 0;
        uint64_t lsn = 0;
        while (shared->off && n - shared->start[thread] > MOST_NOTED) pause();
        key_of(thread, op.key, key);
        atomic_store(&shared->issued[thread], n);
        switch (op.kind) {
        case PUT:
            value_of(thread, n, op.size, value);
            result = quire_put(child_tree, key, strlen(key), value, op.size + 16, 0, &lsn);
            break;
        case DELETE:
            result = quire_delete(child_tree, key, strlen(key), 0, NULL, &lsn);
            break;
        case ADD:
            result = quire_add(child_tree, "sum", 3, 1, 0, NULL, &lsn);
            break;
        }
        if (result != 0) fail_child("write", result);
        if (shared->off) atomic_store(&shared->lsns[thread][n - shared->start[thread] - 1], lsn);
        atomic_store(&shared->acked[thread], n);
    }
    return NULL;
}

static struct quire_options options_of_store(void)
{
    struct quire_options options;
    quire_options_init(&options);
    options.level = shared->off ? 0 : shared->level;
    options.disable_log = shared->off;
    options.log_buffered = shared->buffered;
    options.blob_threshold_bytes = shared->threshold;
    options.log_segment_bytes = 65536 << (shared->seed % 4);
    options.sync_period_ms = 5;
    options.log_cap_bytes = 65536 << (shared->seed / 4 % 5);
    options.checkpoint_interval_ms = 1 + shared->seed / 32 % 50;
    return options;
}

static int run_child(const char *shared_path)
{
    int fd = open(shared_path, O_RDWR);
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd < 0 || shared == MAP_FAILED) return 2;
    struct quire_options options = options_of_store();
    int result = quire_open(shared->path, &options, &child_db);
    if (result == 0) result = quire_tree_open(child_db, "t", NULL, &child_tree);
    if (result != 0) fail_child("open", result);
    if (shared->points != 0) qr_stop_set_hook(die_at, NULL);
    for (uint32_t i = 0; i < shared->threads; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, work, (void *)(uintptr_t)i) != 0) return 2;
    }
    atomic_store(&shared->ready, 1);
    for (;;) pause();
}

/* ---- The parent ------------------------------------------------------------------------------------------------- */

static uint64_t failed;
static uint64_t random_state;

static uint64_t draw(uint64_t below)
{
    random_state = mix(random_state + 0x9e3779b97f4a7c15);
    return random_state % below;
}

__attribute__((format(printf, 1, 2))) static void complain(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
    failed++;
}

/* What each thread has done so far: the operation that wrote each key last, 0: none or deleted. */
static uint64_t done[MOST_THREADS], writer[MOST_THREADS][KEYS], adds[MOST_THREADS];

static void advance(uint32_t thread, uint64_t to)
{
    while (done[thread] < to) {
        uint64_t n = ++done[thread];
        struct operation op = operation_of(shared->seed, thread, n);
        if (op.kind == PUT) writer[thread][op.key] = n;
        if (op.kind == DELETE) writer[thread][op.key] = 0;
        if (op.kind == ADD) adds[thread]++;
    }
}

/* The number of the operation that wrote the key's value, 0 if it has none, UINT64_MAX if the value is nobody's. */
static uint64_t read_key(struct quire_tree *tree, uint32_t thread, uint32_t k)
{
    static char value[32768], right[32768];
    char key[64];
    size_t size;
    uint64_t n;
    key_of(thread, k, key);
    int result = quire_get(tree, NULL, key, strlen(key), value, sizeof(value), &size);
    if (result == QUIRE_NOT_FOUND) return 0;
    if (result != 0 || size < 16) return UINT64_MAX;
    memcpy(&n, value, 8);
    struct operation op = operation_of(shared->seed, thread, n);
    value_of(thread, n, op.size, right);
    return size == op.size + 16 && memcmp(value, right, size) == 0 ? n : UINT64_MAX;
}

/* Compares a thread's keys with what is known to be done. */
static bool matches(struct quire_tree *tree, uint32_t thread)
{
    for (uint32_t k = 0; k < KEYS; k++)
        if (read_key(tree, thread, k) != writer[thread][k]) return false;
    return true;
}

static void explain(struct quire_tree *tree, uint32_t thread, uint64_t acked, uint64_t issued)
{
    for (uint32_t k = 0; k < KEYS; k++) {
        uint64_t n = read_key(tree, thread, k);
        if (n != writer[thread][k])
            complain("thread %u, key %u: written by operation %llu, should be %llu (acknowledged %llu, issued %llu)",
                     thread, k, (unsigned long long)n, (unsigned long long)writer[thread][k],
                     (unsigned long long)acked, (unsigned long long)issued);
    }
}

/* Without a log: how many of the operations that were acknowledged the checkpoint has, and whether it may have one more. */
static void count_saved(uint32_t thread, uint64_t as_of_lsn, uint64_t *acked, uint64_t *issued)
{
    uint64_t n = shared->start[thread];
    while (n < *acked && atomic_load(&shared->lsns[thread][n - shared->start[thread]]) <= as_of_lsn) n++;
    if (n < *acked) *issued = n;
    *acked = n;
}

static uint64_t check_thread(struct quire_tree *tree, uint32_t thread, uint64_t as_of_lsn)
{
    uint64_t acked = atomic_load(&shared->acked[thread]);
    uint64_t issued = atomic_load(&shared->issued[thread]);
    if (shared->off) count_saved(thread, as_of_lsn, &acked, &issued);
    uint64_t maybe = 0;
    advance(thread, acked);
    bool all = matches(tree, thread);
    if (issued > done[thread]) {
        struct operation op = operation_of(shared->seed, thread, issued);
        maybe = op.kind == ADD;
        if (!all) {
            advance(thread, issued);
            all = matches(tree, thread);
        } else if (op.kind != ADD) {
            /* It may also be there without a difference: a deletion of an absent key. Then it counts as not done. */
        }
    }
    if (!all) explain(tree, thread, acked, issued);
    return maybe && done[thread] < issued ? 1 : 0;
}

static void check_sum(struct quire_tree *tree, uint64_t maybe)
{
    uint64_t least = 0;
    int64_t sum = 0;
    size_t size;
    for (uint32_t i = 0; i < shared->threads; i++) least += adds[i];
    int result = quire_get(tree, NULL, "sum", 3, &sum, sizeof(sum), &size);
    if (result == QUIRE_NOT_FOUND) sum = 0;
    if ((uint64_t)sum < least || (uint64_t)sum > least + maybe)
        complain("sum is %lld, should be %llu to %llu", (long long)sum, (unsigned long long)least,
                 (unsigned long long)(least + maybe));
    /* An addition that nobody acknowledged and that was done all the same: take it off, so that the books balance. */
    if (failed == 0 && sum != 0 && (uint64_t)sum != least) {
        result = quire_add(tree, "sum", 3, (int64_t)least - sum, shared->off ? 0 : QUIRE_WRITE_PROCESS, NULL, NULL);
        if (result != 0) complain("correcting the sum: %s", quire_strerror(result));
    }
}

static struct quire *open_here(struct quire_tree **ret_tree)
{
    struct quire_options options = options_of_store();
    struct quire *db = NULL;
    struct quire_error_detail detail;
    options.background_threads = QUIRE_NO_THREADS;
    options.checkpoint_interval_ms = QUIRE_NO_PERIOD;
    int result = quire_open(shared->path, &options, &db);
    if (result == 0) result = quire_tree_open(db, "t", NULL, ret_tree);
    if (result == 0) return db;
    quire_error_detail(&detail);
    complain("open after the kill: %s (%s)", quire_strerror(result), detail.message);
    return NULL;
}

/* What the kill has left, for whoever has to explain a failure: an opening changes it. */
static void keep_copy(void)
{
    char command[1000];
    snprintf(command, sizeof(command), "rm -rf '%s.before' && cp -a '%s' '%s.before'", shared->path, shared->path, shared->path);
    if (system(command) != 0) complain("copying %s", shared->path);
}

/* After a failure the database stays open, so that its files stay as the opening has left them. */
static void verify(void)
{
    struct quire_tree *tree = NULL;
    char message[256];
    uint64_t maybe = 0;
    keep_copy();
    struct quire *db = open_here(&tree);
    if (db == NULL) return;
    if (qr_testing_check(tree, message, sizeof(message)) != 0) complain("structure: %s", message);
    uint64_t as_of_lsn = db->checkpointer.record.as_of_lsn;
    for (uint32_t i = 0; i < shared->threads; i++) maybe += check_thread(tree, i, as_of_lsn);
    check_sum(tree, maybe);
    if (failed != 0) return;
    if (draw(4) == 0) { /* a second opening gives the same */
        int result = quire_close(db);
        if (result != 0) complain("close: %s", quire_strerror(result));
        db = open_here(&tree);
        if (db == NULL) return;
        for (uint32_t i = 0; i < shared->threads; i++)
            if (!matches(tree, i)) complain("thread %u: the second opening differs", i);
    }
    int result = draw(2) == 0 ? quire_checkpoint(db) : 0;
    if (result != 0) complain("checkpoint: %s", quire_strerror(result));
    result = quire_close(db);
    if (result != 0) complain("close: %s", quire_strerror(result));
}

static void new_store(const char *root, uint64_t number, uint32_t threads)
{
    char command[1000];
    if (shared->path[0] != '\0') {
        snprintf(command, sizeof(command), "rm -rf '%s' '%s.before'", shared->path, shared->path);
        if (system(command) != 0) complain("removal of %s", shared->path);
    }
    memset(shared, 0, sizeof(*shared));
    memset(done, 0, sizeof(done));
    memset(writer, 0, sizeof(writer));
    memset(adds, 0, sizeof(adds));
    snprintf(shared->path, sizeof(shared->path), "%s/store%llu", root, (unsigned long long)number);
    shared->threads = threads;
    shared->seed = draw(1u << 30);
    shared->level = draw(3) == 0 ? QUIRE_LEVEL_DURABLE : QUIRE_LEVEL_PROCESS;
    shared->buffered = draw(3) == 0;
    shared->off = number / KILLS_A_STORE % 3 == 1;
    shared->threshold = draw(3) == 0 ? 0 : draw(2) == 0 ? 64 : 268435456;
}

/* One life of the child. */
static void kill_once(char *program, char *shared_path, uint64_t number)
{
    char *const arguments[] = {program, (char *)"--child", shared_path, NULL};
    for (uint32_t i = 0; i < shared->threads; i++) {
        shared->start[i] = done[i];
        atomic_store(&shared->issued[i], done[i]);
        atomic_store(&shared->acked[i], done[i]);
    }
    shared->points = number % 2 == 0 ? 0 : (uint32_t)(1 + draw(POINTS - 1));
    shared->point_after = (uint32_t)draw(draw(2) == 0 ? 20 : 2000);
    shared->point_pause_us = draw(2) == 0 ? 0 : (uint32_t)draw(5000);
    atomic_store(&shared->ready, 0);
    pid_t child = fork();
    if (child == 0) {
        execv(program, arguments);
        _exit(2);
    }
    int status = 0;
    bool over = false;
    for (int i = 0; i < 2000 && !over && atomic_load(&shared->ready) == 0; i++) {
        over = waitpid(child, &status, WNOHANG) == child;
        usleep(1000);
    }
    if (!over) {
        usleep((useconds_t)draw(60000));
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
    }
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) complain("the child ended with status %d", status);
}

int main(int argc, char **argv)
{
    static const struct option long_options[] = {{"kills", required_argument, NULL, 'k'},
                                                 {"threads", required_argument, NULL, 't'},
                                                 {"seed", required_argument, NULL, 's'},
                                                 {"dir", required_argument, NULL, 'd'},
                                                 {"child", required_argument, NULL, 'c'},
                                                 {0}};
    uint64_t kills = 40;
    uint64_t seed = 1;
    uint32_t threads = 0; /* 0: a number from 1 to 16 for each store */
    const char *parent = "/tmp";
    for (int c; (c = getopt_long(argc, argv, "", long_options, NULL)) != -1;) {
        if (c == 'k') kills = strtoull(optarg, NULL, 0);
        else if (c == 't') threads = (uint32_t)strtoul(optarg, NULL, 0);
        else if (c == 's') seed = strtoull(optarg, NULL, 0);
        else if (c == 'd') parent = optarg;
        else if (c == 'c') return run_child(optarg);
        else return 2;
    }
    if (threads > MOST_THREADS) return 2;
    char root[200];
    char shared_path[320];
    snprintf(root, sizeof(root), "%s/quire-kill-XXXXXX", parent);
    if (mkdtemp(root) == NULL) return 2;
    snprintf(shared_path, sizeof(shared_path), "%s/shared", root);
    int fd = open(shared_path, O_RDWR | O_CREAT, 0600);
    if (fd < 0 || ftruncate(fd, sizeof(*shared)) != 0) return 2;
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (shared == MAP_FAILED) return 2;
    random_state = seed;
    uint64_t writes = 0;
    uint64_t i = 0;
    for (; i < kills && failed == 0; i++) {
        if (i % KILLS_A_STORE == 0)
            new_store(root, i, threads != 0 ? threads : (uint32_t)(1 + (draw(2) == 0 ? draw(4) : draw(MOST_THREADS))));
        for (uint32_t t = 0; t < shared->threads; t++) writes -= done[t];
        kill_once(argv[0], shared_path, i);
        verify();
        for (uint32_t t = 0; t < shared->threads; t++) writes += done[t];
        if (failed != 0)
            printf("kill %llu of seed %llu: threads %u, level %u, buffered %u, off %u, point %s after %u, pause %u us; store %s, and as the kill left it: %s.before\n",
                   (unsigned long long)i, (unsigned long long)seed, shared->threads, shared->level, shared->buffered, shared->off,
                   shared->points == 0 ? "none" : points[shared->points], shared->point_after, shared->point_pause_us,
                   shared->path, shared->path);
    }
    printf("%llu kills, %llu acknowledged writes\n", (unsigned long long)i, (unsigned long long)writes);
    char command[400];
    snprintf(command, sizeof(command), "rm -rf '%s'", root);
    if (failed == 0 && system(command) != 0) return 2;
    printf("%d passed, %d failed\n", failed == 0, failed != 0);
    return failed != 0;
}
