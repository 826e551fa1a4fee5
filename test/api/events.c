/*
 * Goal: a host that set a callback is told once of each thing that happened, and nobody is told anything otherwise.
 * Method: each kind is provoked: a simulated disk that fails or is full, a guard that holds memory back, reopening, close.
 */
#include "api_dir.h"

#include "db/db.h"
#include "lib/simdisk.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

TestSuite(events, .init = make_root, .fini = remove_root, .timeout = 60);

/* What was told. */
struct heard {
    pthread_mutex_t mutex;
    struct quire *db;
    unsigned counts[8];
    struct quire_event last[8];
    char messages[8][256];
};

static void hear(void *context, const struct quire_event *event)
{
    struct heard *heard = context;
    struct quire_stats stats = {.struct_size = sizeof(stats)};
    cr_assert_eq(event->struct_size, sizeof(*event));
    cr_assert(event->kind >= 1 && event->kind <= QUIRE_EVENT_CHECKPOINT);
    cr_assert(event->message != NULL && strlen(event->message) > 0 && strchr(event->message, '\n') == NULL);
    OK(quire_stats(heard->db, &stats));
    pthread_mutex_lock(&heard->mutex);
    heard->counts[event->kind]++;
    heard->last[event->kind] = *event;
    snprintf(heard->messages[event->kind], sizeof(heard->messages[0]), "%s", event->message);
    pthread_mutex_unlock(&heard->mutex);
}

static unsigned count_of(struct heard *heard, enum quire_event_kind kind)
{
    pthread_mutex_lock(&heard->mutex);
    unsigned count = heard->counts[kind];
    pthread_mutex_unlock(&heard->mutex);
    return count;
}

static void listen_to(struct quire *db, struct heard *heard)
{
    pthread_mutex_init(&heard->mutex, NULL);
    heard->db = db;
    OK(quire_on_event(db, hear, heard));
}

static struct quire *open_simulated(struct simdisk *disk, uint32_t threads, uint32_t period_ms)
{
    struct quire_options options = options_of(0, QUIRE_LEVEL_PROCESS);
    struct quire *db = NULL;
    options.background_threads = threads;
    options.sync_period_ms = period_ms;
    OK(qr_db_open("store", simdisk_disk(disk), &options, &db));
    return db;
}

/* I18: recovery and close */
Test(events, recovery_is_told_when_the_callback_is_set_and_close_at_the_end)
{
    struct heard heard = {0};
    struct quire *db = open_store("s", QUIRE_OPEN_OR_CREATE);
    uint64_t lsn = 0;
    OK(quire_put(open_tree(db, "t"), TEXT("k"), TEXT("v"), 0, &lsn));
    OK(quire_close(db)); /* silent */
    db = open_store("s", QUIRE_OPEN_EXISTING);
    listen_to(db, &heard);
    cr_assert_eq(count_of(&heard, QUIRE_EVENT_RECOVERY), 1);
    cr_assert_eq(heard.last[QUIRE_EVENT_RECOVERY].lsn, lsn);
    cr_assert_eq(heard.last[QUIRE_EVENT_RECOVERY].severity, QUIRE_SEVERITY_INFO);
    OK(quire_on_event(db, hear, &heard));
    cr_assert_eq(count_of(&heard, QUIRE_EVENT_RECOVERY), 1, "told twice");
    struct quire_guard guard;
    OK(quire_pin(db, NULL, &guard));
    EXPECT(quire_close(db), QUIRE_ERR_BUSY);
    OK(quire_unpin(&guard));
    cr_assert_eq(count_of(&heard, QUIRE_EVENT_CLOSE), 0);
    OK(quire_close(db));
    cr_assert_eq(count_of(&heard, QUIRE_EVENT_CLOSE), 1);
    cr_assert_eq(heard.last[QUIRE_EVENT_CLOSE].result, 0);
    cr_assert_geq(heard.last[QUIRE_EVENT_CLOSE].lsn, lsn);
}

struct meddler {
    struct quire *db;
    int result;
};

static void meddle(void *context, const struct quire_event *event)
{
    struct meddler *m = context;
    (void)event;
    m->result = quire_on_event(m->db, NULL, NULL);
}

/* K18: it would wait for its own end */
Test(events, a_callback_cannot_replace_itself)
{
    struct meddler m = {.db = open_store("s", QUIRE_OPEN_OR_CREATE)};
    put(open_tree(m.db, "t"), "k", "v");
    OK(quire_close(m.db));
    m.db = open_store("s", QUIRE_OPEN_EXISTING);
    OK(quire_on_event(m.db, meddle, &m)); /* recovery is told */
    cr_assert_eq(m.result, QUIRE_ERR_INVALID);
    OK(quire_on_event(m.db, NULL, NULL));
    OK(quire_close(m.db));
}

/* K18: silent by default, and again after NULL */
Test(events, nobody_is_told_without_a_callback)
{
    struct heard heard = {0};
    struct quire *db = open_store("s", QUIRE_OPEN_OR_CREATE);
    listen_to(db, &heard);
    OK(quire_on_event(db, NULL, NULL));
    OK(quire_close(db));
    cr_assert_eq(count_of(&heard, QUIRE_EVENT_RECOVERY), 1);
    cr_assert_eq(count_of(&heard, QUIRE_EVENT_CLOSE), 0);
    EXPECT(quire_on_event(NULL, hear, &heard), QUIRE_ERR_INVALID);
}

/* I18, F30: by the call that met it */
Test(events, a_failed_log_is_told_once)
{
    struct heard heard = {0};
    struct simdisk *disk = simdisk_create();
    struct quire *db = open_simulated(disk, QUIRE_NO_THREADS, QUIRE_NO_PERIOD);
    struct quire_tree *tree = open_tree(db, "t");
    listen_to(db, &heard);
    simdisk_fault_set(disk, &(struct simdisk_fault){.kind = SIMDISK_SYNC, .nth = 1, .error = EIO});
    EXPECT(quire_put(tree, TEXT("a"), TEXT("1"), QUIRE_WRITE_DURABLE, NULL), QUIRE_ERR_UNKNOWN);
    cr_assert_eq(count_of(&heard, QUIRE_EVENT_LOG_FAILED), 1);
    cr_assert_eq(heard.last[QUIRE_EVENT_LOG_FAILED].os_errno, EIO);
    cr_assert_eq(heard.last[QUIRE_EVENT_LOG_FAILED].severity, QUIRE_SEVERITY_ERROR);
    EXPECT(quire_put(tree, TEXT("b"), TEXT("1"), 0, NULL), QUIRE_ERR_IO);
    EXPECT(quire_sync(db), QUIRE_ERR_UNKNOWN);
    EXPECT(quire_close(db), QUIRE_ERR_UNKNOWN);
    cr_assert_eq(count_of(&heard, QUIRE_EVENT_LOG_FAILED), 1);
    cr_assert_eq(heard.last[QUIRE_EVENT_CLOSE].result, QUIRE_ERR_UNKNOWN);
    simdisk_free(disk);
}

/* I18: by the thread that syncs, while nobody is in a call */
Test(events, a_failed_log_is_told_by_the_thread_that_syncs)
{
    struct heard heard = {0};
    struct simdisk *disk = simdisk_create();
    struct quire *db = open_simulated(disk, 1, 50);
    struct quire_tree *tree = open_tree(db, "t");
    listen_to(db, &heard);
    OK(quire_sync(db));
    /* For good: the thread may be making a segment, whose sync is not the log's. */
    simdisk_fault_set(disk, &(struct simdisk_fault){.kind = SIMDISK_SYNC, .nth = 1, .for_good = true, .error = EIO});
    put(tree, "k", "v");
    for (int i = 0; i < 2000 && count_of(&heard, QUIRE_EVENT_LOG_FAILED) == 0; i++) usleep(5000);
    cr_assert_eq(count_of(&heard, QUIRE_EVENT_LOG_FAILED), 1);
    EXPECT(quire_close(db), QUIRE_ERR_UNKNOWN);
    simdisk_free(disk);
}

/* I18: the catalogue's record fails under a lock, and is told outside it */
Test(events, a_log_that_fails_under_a_lock_is_told_outside)
{
    struct heard heard = {0};
    struct quire_options options = options_of(0, QUIRE_LEVEL_DURABLE);
    struct simdisk *disk = simdisk_create();
    struct quire *db = NULL;
    struct quire_tree *tree = NULL;
    options.background_threads = QUIRE_NO_THREADS;
    OK(qr_db_open("store", simdisk_disk(disk), &options, &db));
    struct quire_tree *caller = open_caller_tree(db, "v");
    listen_to(db, &heard);
    simdisk_fault_set(disk, &(struct simdisk_fault){.kind = SIMDISK_SYNC, .nth = 1, .error = EIO});
    EXPECT(quire_set_safe_lsn(caller, 10), QUIRE_ERR_UNKNOWN);
    cr_assert_eq(count_of(&heard, QUIRE_EVENT_LOG_FAILED), 1);
    uint64_t safe = 0;
    OK(quire_safe_lsn(caller, &safe));
    cr_assert_eq(safe, 10, "the raise is in the log, and may survive");
    EXPECT(quire_set_safe_lsn(caller, 20), QUIRE_ERR_IO);
    int result = quire_tree_open(db, "new", NULL, &tree);
    cr_assert_lt(result, 0, "%d", result);
    EXPECT(quire_close(db), QUIRE_ERR_UNKNOWN);
    simdisk_free(disk);
}

/* I18, F31: once, and once more when there is space again */
Test(events, missing_space_and_its_end_are_told)
{
    struct heard heard = {0};
    struct simdisk *disk = simdisk_create();
    struct quire *db = open_simulated(disk, QUIRE_NO_THREADS, QUIRE_NO_PERIOD);
    struct quire_tree *tree = open_tree(db, "t");
    char key[16];
    listen_to(db, &heard);
    for (unsigned round = 1; round <= 2; round++) {
        int result = 0;
        simdisk_facts(disk)->space_bytes = simdisk_used_bytes(disk);
        for (uint64_t i = 0; i < 100000 && result == 0; i++)
            result = quire_put(tree, key, numbered(i, key), TEXT("a value of some bytes"), 0, NULL);
        EXPECT(result, QUIRE_ERR_NO_SPACE);
        for (int i = 0; i < 3; i++) EXPECT(quire_put(tree, TEXT("k"), TEXT("v"), 0, NULL), QUIRE_ERR_NO_SPACE);
        cr_assert_eq(count_of(&heard, QUIRE_EVENT_NO_SPACE), round);
        cr_assert_eq(count_of(&heard, QUIRE_EVENT_SPACE), round - 1);
        simdisk_facts(disk)->space_bytes = UINT64_MAX;
        put(tree, "k", "v");
        cr_assert_eq(count_of(&heard, QUIRE_EVENT_SPACE), round);
    }
    OK(quire_close(db));
    simdisk_free(disk);
}

/* I18: each that succeeds, with what it wrote; of those that fail one after the other the first */
Test(events, checkpoints_are_told)
{
    struct heard heard = {0};
    struct simdisk *disk = simdisk_create();
    struct quire *db = open_simulated(disk, QUIRE_NO_THREADS, QUIRE_NO_PERIOD);
    struct quire_tree *tree = open_tree(db, "t");
    uint64_t lsn = 0;
    listen_to(db, &heard);
    for (unsigned i = 1; i <= 3; i++) {
        OK(quire_put(tree, TEXT("k"), TEXT("v"), 0, &lsn));
        OK(quire_checkpoint(db));
        cr_assert_eq(count_of(&heard, QUIRE_EVENT_CHECKPOINT), i);
        cr_assert_eq(heard.last[QUIRE_EVENT_CHECKPOINT].result, 0);
        cr_assert_gt(heard.last[QUIRE_EVENT_CHECKPOINT].lsn, lsn, "recovery would still read the write");
        cr_assert_gt(heard.last[QUIRE_EVENT_CHECKPOINT].amount, 0);
    }
    unsigned fault = simdisk_fault_set(disk, &(struct simdisk_fault){.kind = SIMDISK_WRITE, .nth = 1, .for_good = true, .error = ENOSPC});
    for (unsigned i = 0; i < 3; i++) {
        OK(quire_delete(tree, TEXT("k"), 0, NULL, NULL)); /* others are refused while a checkpoint finds no space */
        EXPECT(quire_checkpoint(db), QUIRE_ERR_NO_SPACE);
    }
    EXPECT(quire_put(tree, TEXT("k"), TEXT("w"), 0, NULL), QUIRE_ERR_NO_SPACE);
    cr_assert_eq(count_of(&heard, QUIRE_EVENT_NO_SPACE), 1);
    cr_assert_eq(count_of(&heard, QUIRE_EVENT_SPACE), 0);
    cr_assert_gt(simdisk_fault_fired(disk, fault), 0);
    cr_assert_eq(count_of(&heard, QUIRE_EVENT_CHECKPOINT), 4);
    cr_assert_eq(heard.last[QUIRE_EVENT_CHECKPOINT].result, QUIRE_ERR_NO_SPACE);
    cr_assert_eq(heard.last[QUIRE_EVENT_CHECKPOINT].severity, QUIRE_SEVERITY_WARNING);
    struct quire_stats stats = {.struct_size = sizeof(stats)};
    OK(quire_stats(db, &stats));
    cr_assert_eq(stats.checkpoints, 3);
    cr_assert_eq(stats.checkpoint_failures, 3);
    simdisk_faults_clear(disk);
    OK(quire_checkpoint(db));
    cr_assert_eq(count_of(&heard, QUIRE_EVENT_CHECKPOINT), 5);
    cr_assert_eq(count_of(&heard, QUIRE_EVENT_SPACE), 1);
    put(tree, "k", "w");
    OK(quire_close(db));
    simdisk_free(disk);
}

static void *write_until_refused(void *argument)
{
    static char value[1000];
    char key[16];
    int result = 0;
    for (uint64_t i = 0; i < 400000 && result == 0; i++)
        result = quire_put(argument, key, numbered(i % 500, key), value, sizeof(value), 0, NULL);
    return (void *)(intptr_t)result;
}

/* I18: also in memory */
Test(events, stalls_are_told_with_the_holder)
{
    struct heard heard = {0};
    struct quire_options options;
    struct quire *db = NULL;
    struct quire_guard guard;
    pthread_t writer;
    void *result = NULL;
    quire_options_init(&options);
    options.memory_limit_bytes = 8u << 20;
    options.stall_timeout_ms = 200;
    OK(quire_open(NULL, &options, &db));
    struct quire_tree *tree = open_tree(db, NULL);
    listen_to(db, &heard);
    cr_assert_eq(count_of(&heard, QUIRE_EVENT_RECOVERY), 0);
    OK(quire_pin(db, "holder", &guard));
    cr_assert_eq(pthread_create(&writer, NULL, write_until_refused, tree), 0);
    pthread_join(writer, &result);
    cr_assert_eq((intptr_t)result, QUIRE_ERR_STALLED);
    OK(quire_unpin(&guard));
    unsigned told = count_of(&heard, QUIRE_EVENT_STALL);
    cr_assert(told >= 1 && told <= 30, "%u times", told);
    cr_assert_not_null(strstr(heard.messages[QUIRE_EVENT_STALL], "holder"));
    cr_assert_gt(heard.last[QUIRE_EVENT_STALL].amount, 0);
    OK(quire_close(db));
    cr_assert_eq(count_of(&heard, QUIRE_EVENT_CLOSE), 1);
}

struct slow {
    struct quire *db;
    _Atomic int entered, left;
};

static void hear_slowly(void *context, const struct quire_event *event)
{
    struct slow *slow = context;
    if (event->kind != QUIRE_EVENT_LOG_FAILED) return;
    atomic_store(&slow->entered, 1);
    usleep(100000);
    atomic_store(&slow->left, 1);
}

static void *fail_to_write(void *argument)
{
    struct slow *slow = argument;
    (void)quire_sync(slow->db);
    return NULL;
}

/* EVENT-1, EVENT-2 */
Test(events, a_callback_that_was_replaced_is_over_and_stops_nobody)
{
    struct slow slow = {0};
    struct simdisk *disk = simdisk_create();
    struct quire *db = open_simulated(disk, QUIRE_NO_THREADS, QUIRE_NO_PERIOD);
    struct quire_tree *tree = open_tree(db, "t");
    pthread_t thread;
    slow.db = db;
    OK(quire_on_event(db, hear_slowly, &slow));
    put(tree, "k", "v");
    simdisk_fault_set(disk, &(struct simdisk_fault){.kind = SIMDISK_SYNC, .nth = 1, .error = EIO});
    cr_assert_eq(pthread_create(&thread, NULL, fail_to_write, &slow), 0);
    while (atomic_load(&slow.entered) == 0) usleep(100);
    expect(open_tree(db, "t"), NULL, "k", "v"); /* a call that takes the catalogue's lock */
    cr_assert_eq(atomic_load(&slow.left), 0, "the call waited for the callback");
    OK(quire_on_event(db, NULL, NULL));
    cr_assert_eq(atomic_load(&slow.left), 1, "the callback is still running");
    pthread_join(thread, NULL);
    EXPECT(quire_close(db), QUIRE_ERR_UNKNOWN);
    simdisk_free(disk);
}
