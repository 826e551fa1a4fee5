/*
 * Goal: threads and databases begin and end in any order; nothing is left behind, and a forked child is told so.
 * Method: 10 000 short threads that retire; threads that end before, after and during close; several databases in one
 * thread; fork with the answers checked in the child.
 */
#include "base/alloc.h"
#include "base/counters.h"
#include "base/stop.h"
#include "epoch/epoch.h"

#include <quire/quire.h>

#include <criterion/criterion.h>
#include <pthread.h>
#include <semaphore.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct database {
    struct qr_arena *arena;
    struct qr_epoch *epoch;
};

static void database_open(struct database *db)
{
    cr_assert_eq(qr_arena_create(0, &db->arena), 0);
    cr_assert_eq(qr_epoch_create(db->arena, NULL, NULL, &db->epoch), 0);
}

static void database_close(struct database *db)
{
    qr_epoch_destroy(db->epoch);
    qr_arena_destroy(db->arena);
}

static unsigned record_count(struct database *db)
{
    unsigned count = 0;
    for (struct qr_thread *thread = qr_thread_first(db->epoch); thread != NULL; thread = qr_thread_next(thread))
        count++;
    return count;
}

static void work(struct database *db, unsigned blocks)
{
    struct qr_thread *self = qr_thread_self(db->epoch);
    size_t usable_size;

    cr_assert_not_null(self);
    cr_assert_neq(self->random, 0);
    for (unsigned i = 0; i < blocks; i++) {
        qr_epoch_enter(self);
        void *block = qr_arena_alloc(db->arena, &self->cache, 500, false, &usable_size);
        cr_assert_not_null(block);
        qr_epoch_retire(self, QR_RETIRE_BLOCK, block, usable_size);
        qr_counter_add(&self->counters[3], 1);
        qr_epoch_exit(self);
    }
}

static void *short_life(void *arg)
{
    work(arg, 10);
    return NULL;
}

Test(epoch_threads, ten_thousand_short_threads_leave_nothing)
{
    static struct database db;
    struct qr_arena_stats stats;
    uint64_t counted = 0;
    enum { THREADS = 10000, AT_ONCE = 4 };

    database_open(&db);
    struct qr_thread *self = qr_thread_self(db.epoch);
    for (unsigned i = 0; i < THREADS / AT_ONCE; i++) {
        pthread_t threads[AT_ONCE];
        for (unsigned k = 0; k < AT_ONCE; k++)
            cr_assert_eq(pthread_create(&threads[k], NULL, short_life, &db), 0);
        for (unsigned k = 0; k < AT_ONCE; k++)
            pthread_join(threads[k], NULL);
        if (i % 100 == 0)
            qr_epoch_reclaim(db.epoch, self);
    }
    while (qr_epoch_reclaim(db.epoch, self))
        ;
    cr_assert_eq(qr_epoch_retired_bytes(db.epoch), 0);
    cr_assert_leq(record_count(&db), AT_ONCE + 1);
    for (struct qr_thread *thread = qr_thread_first(db.epoch); thread != NULL; thread = qr_thread_next(thread))
        counted += qr_counter_read(&thread->counters[3]);
    cr_assert_eq(counted, THREADS * 10);
    qr_arena_stats(db.arena, &stats);
    cr_assert_eq(stats.in_use_bytes, 0);
    cr_assert_leq(stats.carved_bytes, 16 << 20);
    database_close(&db);
}

/* ---- Orders of ending ------------------------------------------------------------------------------------------- */

struct visitor {
    struct database *databases;
    unsigned count;
    sem_t used, end;
    pthread_t thread;
    bool leave_guard;
    uint64_t ticket; /* of that guard */
};

static void *visit(void *arg)
{
    struct visitor *visitor = arg;

    for (unsigned i = 0; i < visitor->count; i++)
        work(&visitor->databases[i], 200);
    if (visitor->leave_guard)
        visitor->ticket = qr_epoch_pin(qr_thread_self(visitor->databases[0].epoch), "left open");
    sem_post(&visitor->used);
    sem_wait(&visitor->end);
    return NULL;
}

static void visitor_start(struct visitor *visitor, struct database *databases, unsigned count)
{
    visitor->databases = databases;
    visitor->count = count;
    sem_init(&visitor->used, 0, 0);
    sem_init(&visitor->end, 0, 0);
    cr_assert_eq(pthread_create(&visitor->thread, NULL, visit, visitor), 0);
    sem_wait(&visitor->used);
}

static void visitor_end(struct visitor *visitor)
{
    sem_post(&visitor->end);
    pthread_join(visitor->thread, NULL);
}

Test(epoch_threads, threads_and_databases_end_in_any_order)
{
    enum { DATABASES = 3 };

    /* Bit i of `before`: database i is closed before the thread ends, in one of two directions. */
    for (unsigned before = 0; before < 1 << DATABASES; before++) {
        for (int backwards = 0; backwards < 2; backwards++) {
            static struct database databases[DATABASES];
            static struct visitor visitor;
            for (unsigned i = 0; i < DATABASES; i++)
                database_open(&databases[i]);
            visitor_start(&visitor, databases, DATABASES);
            for (unsigned i = 0; i < DATABASES; i++) {
                unsigned k = backwards ? DATABASES - 1 - i : i;
                if (before >> k & 1)
                    database_close(&databases[k]);
            }
            visitor_end(&visitor);
            for (unsigned i = 0; i < DATABASES; i++) {
                if (!(before >> i & 1))
                    database_close(&databases[i]);
            }
        }
    }
}

Test(epoch_threads, a_record_goes_to_the_next_thread_with_its_backlog)
{
    static struct database db;
    static struct visitor first, second;
    struct qr_arena_stats stats;

    database_open(&db);
    visitor_start(&first, &db, 1);
    visitor_end(&first);
    struct qr_thread *record = qr_thread_first(db.epoch);
    cr_assert_gt(qr_epoch_retired_bytes(db.epoch), 0);
    visitor_start(&second, &db, 1);
    cr_assert_eq(qr_thread_first(db.epoch), record);
    cr_assert_null(qr_thread_next(record));
    visitor_end(&second);
    cr_assert(qr_epoch_reclaim(db.epoch, qr_thread_self(db.epoch)));
    cr_assert_eq(qr_epoch_retired_bytes(db.epoch), 0);
    qr_arena_stats(db.arena, &stats);
    cr_assert_eq(stats.in_use_bytes, 0);
    database_close(&db);
}

static void *fill_cache(void *arg)
{
    struct database *db = arg;
    struct qr_thread *self = qr_thread_self(db->epoch);
    static void *blocks[100];
    size_t usable_size;

    for (unsigned i = 0; i < 100; i++)
        blocks[i] = qr_arena_alloc(db->arena, &self->cache, 1000, false, &usable_size);
    for (unsigned i = 0; i < 100; i++)
        qr_arena_free(db->arena, &self->cache, blocks[i], usable_size);
    return NULL;
}

Test(epoch_threads, what_a_thread_has_cached_is_free_for_others_when_it_ends)
{
    static struct database db;
    struct qr_arena_stats stats;
    pthread_t thread;

    database_open(&db);
    cr_assert_eq(pthread_create(&thread, NULL, fill_cache, &db), 0);
    pthread_join(thread, NULL);
    qr_arena_stats(db.arena, &stats);
    cr_assert_gt(stats.carved_bytes, 0);
    cr_assert_eq(qr_arena_trim(db.arena), stats.carved_bytes);
    database_close(&db);
}

Test(epoch_threads, a_guard_ends_with_its_thread)
{
    static struct database db;
    static struct visitor visitor = {.leave_guard = true};

    database_open(&db);
    struct qr_thread *self = qr_thread_self(db.epoch);
    visitor_start(&visitor, &db, 1);
    cr_assert_eq(qr_epoch_guards_open(db.epoch), 1);
    struct qr_thread *record = qr_thread_first(db.epoch);
    cr_assert(record != self && qr_epoch_pinned(record, visitor.ticket));
    visitor_end(&visitor);
    cr_assert_eq(qr_epoch_guards_open(db.epoch), 0);
    cr_assert_not(qr_epoch_pinned(record, visitor.ticket));
    cr_assert(qr_epoch_reclaim(db.epoch, self), "the grace period does not wait for the dead thread");
    cr_assert_eq(qr_epoch_retired_bytes(db.epoch), 0);
    database_close(&db);
}

Test(epoch_threads, one_thread_uses_many_databases)
{
    enum { DATABASES = 9 };
    static struct database databases[DATABASES];
    struct qr_thread *records[DATABASES];

    for (unsigned i = 0; i < DATABASES; i++) {
        database_open(&databases[i]);
        records[i] = qr_thread_self(databases[i].epoch);
    }
    for (unsigned round = 0; round < 100; round++) {
        for (unsigned i = 0; i < DATABASES; i++) {
            cr_assert_eq(qr_thread_self(databases[i].epoch), records[i]);
            work(&databases[i], 3);
        }
    }
    /* Inside a section of one database a round of another would wait for itself: it does nothing. */
    qr_epoch_enter(records[0]);
    cr_assert_not(qr_epoch_reclaim(databases[1].epoch, records[1]));
    cr_assert_gt(qr_epoch_retired_bytes(databases[1].epoch), 0);
    qr_epoch_exit(records[0]);
    for (unsigned i = 0; i < DATABASES; i++) {
        cr_assert_eq(record_count(&databases[i]), 1);
        cr_assert(qr_epoch_reclaim(databases[i].epoch, records[i]));
        cr_assert_eq(qr_epoch_retired_bytes(databases[i].epoch), 0);
        database_close(&databases[i]);
    }
}

static void *visit_briefly(void *arg)
{
    struct visitor *visitor = arg;
    work(visitor->databases, 50);
    sem_post(&visitor->used);
    return NULL;
}

Test(epoch_threads, threads_may_end_during_close)
{
    for (unsigned round = 0; round < 300; round++) {
        enum { THREADS = 4 };
        static struct database db;
        struct visitor visitors[THREADS];
        database_open(&db);
        for (unsigned i = 0; i < THREADS; i++) {
            visitors[i].databases = &db;
            sem_init(&visitors[i].used, 0, 0);
            cr_assert_eq(pthread_create(&visitors[i].thread, NULL, visit_briefly, &visitors[i]), 0);
        }
        for (unsigned i = 0; i < THREADS; i++)
            sem_wait(&visitors[i].used);
        database_close(&db);
        for (unsigned i = 0; i < THREADS; i++)
            pthread_join(visitors[i].thread, NULL);
    }
}

/* ---- No memory, fork -------------------------------------------------------------------------------------------- */

static void *register_without_memory(void *arg)
{
    struct database *db = arg;

    /* The anchor first, then the record. */
    for (int64_t n = 1; n <= 2; n++) {
        qr_alloc_fail_after(n);
        cr_assert_null(qr_thread_self(db->epoch));
        cr_assert_eq(qr_alloc_fail_pending(), 0);
    }
    work(db, 5);
    return NULL;
}

Test(epoch_threads, a_thread_without_memory_gets_no_record_and_tries_again)
{
    static struct database db;
    struct qr_epoch *epoch = NULL;
    pthread_t thread;

    database_open(&db);
    cr_assert_eq(pthread_create(&thread, NULL, register_without_memory, &db), 0);
    pthread_join(thread, NULL);
    qr_alloc_fail_after(1);
    cr_assert_eq(qr_epoch_create(db.arena, NULL, NULL, &epoch), QUIRE_ERR_NO_MEMORY);
    qr_alloc_fail_after(-1);
    cr_assert_null(epoch);
    database_close(&db);
}

Test(epoch_threads, a_forked_child_is_told_so)
{
    static struct database db;
    static struct visitor other;
    int status = 0;

    database_open(&db);
    work(&db, 10);
    visitor_start(&other, &db, 1);
    cr_assert_not(qr_epoch_forked(db.epoch));
    pid_t child = fork();
    if (child == 0) {
        struct qr_epoch *epoch = NULL;
        bool refused = qr_epoch_forked(db.epoch) && qr_epoch_create(db.arena, NULL, NULL, &epoch) == QUIRE_ERR_FORKED &&
                       qr_thread_self_slow(db.epoch) == NULL;
        _exit(refused ? 17 : 18);
    }
    cr_assert_gt(child, 0);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status));
    cr_assert_eq(WEXITSTATUS(status), 17);
    cr_assert_not(qr_epoch_forked(db.epoch));
    visitor_end(&other);
    cr_assert(qr_epoch_reclaim(db.epoch, qr_thread_self(db.epoch)));
    database_close(&db);
}
