/*
 * Goal: nothing is reclaimed while a section or a hold can reach it; everything is afterwards, exactly once.
 * Method: a reader in its own thread that is led step by step through a section; a callback that counts; the planted
 * bug reclaim_without_grace, which the same scenario must notice; stop points inside a round.
 */
#include "base/alloc.h"
#include "base/stop.h"
#include "epoch/epoch.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <semaphore.h>
#include <string.h>
#include <unistd.h>

struct reclaimed {
    _Atomic uint64_t count;
    _Atomic uint64_t bytes;
    void *_Atomic last;
    unsigned kind;
    int retire_again; /* this many callbacks retire one thing more */
};

static void count_reclaimed(void *context, struct qr_thread *thread, unsigned kind, void *pointer, uint64_t size)
{
    struct reclaimed *reclaimed = context;

    atomic_fetch_add(&reclaimed->count, 1);
    atomic_fetch_add(&reclaimed->bytes, size);
    atomic_store(&reclaimed->last, pointer);
    reclaimed->kind = kind;
    if (reclaimed->retire_again > 0) {
        reclaimed->retire_again--;
        qr_epoch_retire(thread, kind, pointer, size);
    }
}

static const struct qr_epoch_ops counting_ops = {count_reclaimed};

struct database {
    struct qr_arena *arena;
    struct qr_epoch *epoch;
    struct reclaimed reclaimed;
};

static struct qr_thread *database_open(struct database *db)
{
    cr_assert_eq(qr_arena_create(0, &db->arena), 0);
    cr_assert_eq(qr_epoch_create(db->arena, &counting_ops, &db->reclaimed, &db->epoch), 0);
    struct qr_thread *self = qr_thread_self(db->epoch);
    cr_assert_not_null(self);
    cr_assert_eq(qr_thread_self(db->epoch), self);
    return self;
}

static void database_close(struct database *db)
{
    qr_epoch_destroy(db->epoch);
    qr_arena_destroy(db->arena);
}

/* ---- A reader that is told what to do --------------------------------------------------------------------------- */

struct reader {
    struct database *db;
    pthread_t thread;
    sem_t next, done;
    struct qr_thread *record;
};

static void *reader_run(void *arg)
{
    struct reader *reader = arg;

    reader->record = qr_thread_self(reader->db->epoch);
    uint64_t ticket = qr_epoch_pin(reader->record, "a reader whose tag is longer than thirty-one bytes");
    sem_post(&reader->done);
    sem_wait(&reader->next);
    qr_epoch_unpin(reader->record, ticket);
    return NULL;
}

static void reader_start(struct reader *reader, struct database *db)
{
    reader->db = db;
    sem_init(&reader->next, 0, 0);
    sem_init(&reader->done, 0, 0);
    cr_assert_eq(pthread_create(&reader->thread, NULL, reader_run, reader), 0);
    sem_wait(&reader->done);
}

static void reader_end(struct reader *reader)
{
    sem_post(&reader->next);
    pthread_join(reader->thread, NULL);
}

struct reclaimer {
    struct database *db;
    pthread_t thread;
    _Atomic int done;
    bool result;
};

static void *reclaimer_run(void *arg)
{
    struct reclaimer *reclaimer = arg;
    reclaimer->result = qr_epoch_reclaim(reclaimer->db->epoch, qr_thread_self(reclaimer->db->epoch));
    atomic_store(&reclaimer->done, 1);
    return NULL;
}

/* How many things are reclaimed while a reader, pinned before they were retired, is still there. */
static uint64_t reclaimed_under_a_reader(struct database *db, struct qr_thread *self)
{
    static struct reader reader;
    static struct reclaimer reclaimer;
    struct qr_epoch_stats stats;
    uint64_t early;

    reader_start(&reader, db);
    for (uintptr_t i = 1; i <= 300; i++)
        qr_epoch_retire(self, 1, (void *)i, 100);
    reclaimer.db = db;
    cr_assert_eq(pthread_create(&reclaimer.thread, NULL, reclaimer_run, &reclaimer), 0);
    for (int i = 0; i < 100 && !atomic_load(&reclaimer.done); i++)
        usleep(1000);
    early = atomic_load(&db->reclaimed.count);
    qr_epoch_stats(db->epoch, &stats);
    cr_assert_eq(stats.guards_open, 1);
    cr_assert_str_eq(stats.oldest_guard_tag, "a reader whose tag is longer th");
    reader_end(&reader);
    pthread_join(reclaimer.thread, NULL);
    cr_assert(reclaimer.result);
    cr_assert_eq(atomic_load(&db->reclaimed.count), 300);
    cr_assert_eq(atomic_load(&db->reclaimed.bytes), 30000);
    cr_assert_eq(db->reclaimed.kind, 1);
    return early;
}

Test(epoch, what_a_reader_can_reach_waits_for_the_reader)
{
    static struct database db;
    struct qr_epoch_stats stats;
    struct qr_thread *self = database_open(&db);

    cr_assert_eq(reclaimed_under_a_reader(&db, self), 0);
    qr_epoch_stats(db.epoch, &stats);
    cr_assert_eq(stats.retired_bytes, 0);
    cr_assert_eq(stats.retired_count, 0);
    cr_assert_eq(stats.reclaimed_bytes, 30000);
    cr_assert_eq(stats.reclaimed_count, 300);
    cr_assert_eq(stats.rounds, 1);
    cr_assert_eq(stats.guards_open, 0);
    cr_assert_eq(stats.oldest_guard_age_ms, 0);
    cr_assert_eq(qr_epoch_queued_bytes(db.epoch), 0);
    database_close(&db);
}

Test(epoch, the_same_test_notices_the_planted_bug)
{
    static struct database db;
    struct qr_thread *self = database_open(&db);

    cr_assert_eq(qr_bug_set("reclaim_without_grace", 1), 0);
    cr_assert_eq(reclaimed_under_a_reader(&db, self), 300);
    qr_bug_set("reclaim_without_grace", 0);
    database_close(&db);
}

/* ---- One thread ------------------------------------------------------------------------------------------------- */

Test(epoch, sections_and_guards_nest)
{
    static struct database db;
    struct qr_thread *self = database_open(&db);

    qr_epoch_enter(self);
    uint64_t outer = qr_epoch_pin(self, "outer");
    uint64_t inner = qr_epoch_pin(self, "inner");
    qr_epoch_repin(self);
    cr_assert_eq(qr_epoch_guards_open(db.epoch), 2);
    qr_epoch_unpin(self, inner);
    struct qr_epoch_stats stats;
    qr_epoch_stats(db.epoch, &stats);
    cr_assert_str_eq(stats.oldest_guard_tag, "outer");
    qr_epoch_repin(self);
    qr_epoch_unpin(self, outer);
    cr_assert(qr_epoch_inside(self));
    qr_epoch_exit(self);
    cr_assert_not(qr_epoch_inside(self));
    cr_assert_not(qr_epoch_reclaim(db.epoch, self));
    outer = qr_epoch_pin(self, NULL);
    qr_epoch_stats(db.epoch, &stats);
    cr_assert_str_eq(stats.oldest_guard_tag, "");
    cr_assert_eq(stats.guards_open, 1);
    qr_epoch_unpin(self, outer);
    database_close(&db);
}

/* EPOCH-6: each ticket is open from its pin to its unpin, in any order, with and without a place */
Test(epoch, tickets_are_open_until_they_are_unpinned)
{
    enum { COUNT = QR_EPOCH_PLACES + 8 };
    static struct database db;
    struct qr_thread *self = database_open(&db);
    uint64_t tickets[COUNT], older[COUNT];

    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < COUNT; i++) {
            tickets[i] = qr_epoch_pin(self, NULL);
            for (unsigned k = 0; k <= i; k++)
                cr_assert(qr_epoch_pinned(self, tickets[k]), "ticket %u of %u", k, i);
            for (unsigned k = 0; round > 0 && k < COUNT; k++)
                cr_assert_not(qr_epoch_pinned(self, older[k]), "ticket %u of the round before", k);
        }
        for (unsigned i = 0; i < COUNT; i++) {
            unsigned k = (i * 7 + round) % COUNT; /* 7 and COUNT have no common divisor */
            qr_epoch_unpin(self, tickets[k]);
            if (k < QR_EPOCH_PLACES)
                cr_assert_not(qr_epoch_pinned(self, tickets[k]), "ticket %u is open still", k);
            for (unsigned later = i + 1; later < COUNT; later++)
                cr_assert(qr_epoch_pinned(self, tickets[(later * 7 + round) % COUNT]), "a ticket ended with another");
        }
        for (unsigned k = 0; k < COUNT; k++)
            cr_assert_not(qr_epoch_pinned(self, tickets[k]), "ticket %u is open still", k);
        memcpy(older, tickets, sizeof(older));
        cr_assert_not(qr_epoch_pinned(self, 0));
        cr_assert_eq(qr_epoch_guards_open(db.epoch), 0);
    }
    database_close(&db);
}

Test(epoch, a_guard_shows_its_age_and_repin_makes_it_young)
{
    static struct database db;
    struct qr_thread *self = database_open(&db);
    struct qr_epoch_stats stats;

    uint64_t ticket = qr_epoch_pin(self, "old");
    usleep(60000);
    qr_epoch_stats(db.epoch, &stats);
    cr_assert_geq(stats.oldest_guard_age_ms, 40);
    qr_epoch_repin(self);
    qr_epoch_stats(db.epoch, &stats);
    cr_assert_leq(stats.oldest_guard_age_ms, 39);
    cr_assert_str_eq(stats.oldest_guard_tag, "old");
    qr_epoch_unpin(self, ticket);
    database_close(&db);
}

Test(epoch, blocks_return_to_the_arena)
{
    static struct database db;
    struct qr_thread *self = database_open(&db);
    struct qr_arena_stats stats;
    uint64_t retired_bytes = 0;

    for (unsigned i = 0; i < 1000; i++) {
        size_t usable_size;
        void *block = qr_arena_alloc(db.arena, &self->cache, 50 * i, false, &usable_size);
        cr_assert_not_null(block);
        qr_epoch_retire(self, QR_RETIRE_BLOCK, block, usable_size);
        retired_bytes += usable_size;
    }
    cr_assert_eq(qr_epoch_retired_bytes(db.epoch), retired_bytes);
    cr_assert_gt(qr_epoch_queued_bytes(db.epoch), 0);
    cr_assert(qr_epoch_reclaim(db.epoch, self));
    cr_assert_not(qr_epoch_reclaim(db.epoch, self));
    cr_assert_eq(qr_epoch_retired_bytes(db.epoch), 0);
    qr_arena_stats(db.arena, &stats);
    cr_assert_eq(stats.in_use_bytes, 0);
    cr_assert_eq(atomic_load(&db.reclaimed.count), 0);
    database_close(&db);
}

Test(epoch, callbacks_may_retire_and_destruction_leaves_nothing)
{
    static struct database db;
    struct qr_thread *self = database_open(&db);

    db.reclaimed.retire_again = 500;
    for (uintptr_t i = 1; i <= 200; i++)
        qr_epoch_retire(self, 7, (void *)i, 1);
    cr_assert(qr_epoch_reclaim(db.epoch, self));
    cr_assert_eq(atomic_load(&db.reclaimed.count), 200);
    cr_assert_eq(qr_epoch_retired_bytes(db.epoch), 200);
    database_close(&db);
    cr_assert_eq(atomic_load(&db.reclaimed.count), 700);
}

Test(epoch, a_prepared_thread_retires_without_memory)
{
    static struct database db;
    struct qr_thread *self = database_open(&db);
    struct qr_epoch_stats stats;

    cr_assert_eq(qr_epoch_prepare(self), 0);
    for (uintptr_t i = 1; i <= QR_RETIRE_BATCH_COUNT / 2; i++)
        qr_epoch_retire(self, 1, (void *)i, 1);
    cr_assert_eq(qr_epoch_prepare(self), 0);
    for (uintptr_t i = 1; i <= QR_RETIRE_BATCH_COUNT; i++) {
        qr_alloc_fail_after(1);
        qr_epoch_retire(self, 1, (void *)i, QR_RETIRE_BATCH_BYTES);
        qr_alloc_fail_after(-1);
    }
    qr_epoch_stats(db.epoch, &stats);
    cr_assert_eq(stats.lost_bytes, 0);
    cr_assert_eq(stats.retired_count, QR_RETIRE_BATCH_COUNT * 3 / 2);
    qr_alloc_fail_after(1);
    int result = qr_epoch_prepare(self);
    qr_alloc_fail_after(-1);
    cr_assert_lt(result, 0);
    cr_assert(qr_epoch_reclaim(db.epoch, self));
    cr_assert_eq(atomic_load(&db.reclaimed.count), QR_RETIRE_BATCH_COUNT * 3 / 2);
    database_close(&db);
}

Test(epoch, without_preparation_and_memory_a_thing_is_counted_as_lost)
{
    static struct database db;
    struct qr_thread *self = database_open(&db);
    struct qr_epoch_stats stats;

    qr_alloc_fail_after(1);
    qr_epoch_retire(self, 1, self, 77);
    qr_alloc_fail_after(-1);
    qr_epoch_stats(db.epoch, &stats);
    cr_assert_eq(stats.lost_bytes, 77);
    cr_assert_eq(stats.retired_bytes, 0);
    database_close(&db);
}

/* ---- Holds ------------------------------------------------------------------------------------------------------ */

Test(epoch, a_held_block_outlives_its_section_and_goes_when_released)
{
    static struct database db;
    struct qr_thread *self = database_open(&db);
    enum { BLOCKS = 400, HOLDS = 100 };
    struct qr_hold *holds[HOLDS];
    static uint8_t *blocks[BLOCKS];
    size_t usable_size;

    qr_epoch_enter(self);
    for (unsigned i = 0; i < BLOCKS; i++) {
        blocks[i] = qr_arena_alloc(db.arena, &self->cache, 4096, false, &usable_size);
        memset(blocks[i], (int)(i & 0xff), usable_size);
    }
    for (unsigned i = 0; i < HOLDS; i++) {
        holds[i] = qr_hold_acquire(db.epoch);
        cr_assert_not_null(holds[i]);
        qr_hold_set(holds[i], blocks[i * 4]);
    }
    qr_epoch_exit(self);
    cr_assert_eq(qr_epoch_holds_open(db.epoch), HOLDS);
    for (unsigned i = 0; i < BLOCKS; i++)
        qr_epoch_retire(self, QR_RETIRE_BLOCK, blocks[i], usable_size);
    cr_assert(qr_epoch_reclaim(db.epoch, self));
    cr_assert_eq(qr_epoch_retired_bytes(db.epoch), HOLDS * usable_size);
    cr_assert_not(qr_epoch_reclaim(db.epoch, self), "what holds retain is nothing that could be done");
    for (unsigned i = 0; i < HOLDS; i++) {
        cr_assert_eq(blocks[i * 4][usable_size - 1], (uint8_t)(i * 4));
        if (i % 2 == 0)
            qr_hold_set(holds[i], NULL);
    }
    cr_assert(qr_epoch_reclaim(db.epoch, self));
    cr_assert_eq(qr_epoch_retired_bytes(db.epoch), HOLDS / 2 * usable_size);
    for (unsigned i = 0; i < HOLDS; i++)
        qr_hold_release(holds[i]);
    cr_assert(qr_epoch_reclaim(db.epoch, self));
    cr_assert_eq(qr_epoch_retired_bytes(db.epoch), 0);
    cr_assert_eq(qr_epoch_holds_open(db.epoch), 0);
    struct qr_hold *again = qr_hold_acquire(db.epoch);
    cr_assert(again == holds[0] || qr_epoch_holds_open(db.epoch) == 1);
    qr_hold_release(again);
    qr_hold_release(NULL);
    database_close(&db);
}

/* A hold that is set while the round waits already, by the last section that can find the block. */
struct late {
    struct database *db;
    struct qr_hold *hold;
    void *block;
    sem_t inside, round_waits;
};

static void post_round_taken(const char *name, void *arg)
{
    struct late *late = arg;
    if (strcmp(name, "epoch.round_taken") == 0)
        sem_post(&late->round_waits);
}

static void *hold_late(void *arg)
{
    struct late *late = arg;
    struct qr_thread *self = qr_thread_self(late->db->epoch);

    qr_epoch_enter(self);
    sem_post(&late->inside);
    sem_wait(&late->round_waits);
    usleep(5000);
    qr_hold_set(late->hold, late->block);
    qr_epoch_exit(self);
    return NULL;
}

Test(epoch, a_hold_set_while_the_round_waits_counts)
{
    static struct database db;
    static struct late late;
    struct qr_thread *self = database_open(&db);
    pthread_t thread;
    size_t usable_size;

    late.db = &db;
    late.hold = qr_hold_acquire(db.epoch);
    late.block = qr_arena_alloc(db.arena, &self->cache, 2000, false, &usable_size);
    sem_init(&late.inside, 0, 0);
    sem_init(&late.round_waits, 0, 0);
    cr_assert_eq(pthread_create(&thread, NULL, hold_late, &late), 0);
    sem_wait(&late.inside);
    qr_epoch_retire(self, QR_RETIRE_BLOCK, late.block, usable_size);
    qr_stop_set_hook(post_round_taken, &late);
    cr_assert_not(qr_epoch_reclaim(db.epoch, self));
    qr_stop_set_hook(NULL, NULL);
    pthread_join(thread, NULL);
    cr_assert_eq(qr_epoch_retired_bytes(db.epoch), usable_size);
    qr_hold_release(late.hold);
    cr_assert(qr_epoch_reclaim(db.epoch, self));
    cr_assert_eq(qr_epoch_retired_bytes(db.epoch), 0);
    database_close(&db);
}

Test(epoch, holds_work_without_memory_for_their_array)
{
    static struct database db;
    struct qr_thread *self = database_open(&db);
    struct qr_hold *hold = qr_hold_acquire(db.epoch);
    size_t usable_size;
    void *block = qr_arena_alloc(db.arena, &self->cache, 100, false, &usable_size);

    qr_hold_set(hold, block);
    qr_epoch_retire(self, QR_RETIRE_BLOCK, block, usable_size);
    qr_alloc_fail_after(1);
    cr_assert_not(qr_epoch_reclaim(db.epoch, self));
    cr_assert_eq(qr_alloc_fail_pending(), 0);
    cr_assert_eq(qr_epoch_retired_bytes(db.epoch), usable_size);
    qr_hold_release(hold);
    cr_assert(qr_epoch_reclaim(db.epoch, self));
    cr_assert_eq(qr_epoch_retired_bytes(db.epoch), 0);
    database_close(&db);
}

/* ---- Windows of a round ----------------------------------------------------------------------------------------- */

struct window {
    const char *name;
    struct database *db;
    _Atomic uint64_t seen;
    uint64_t reclaimed_then;
};

/* Retires a full batch from within the window: it must be neither lost nor reclaimed before its own grace period. */
static void retire_in_window(const char *name, void *arg)
{
    struct window *window = arg;

    if (strcmp(name, window->name) != 0 || atomic_fetch_add(&window->seen, 1) != 0)
        return;
    struct qr_thread *self = qr_thread_self(window->db->epoch);
    for (uintptr_t i = 1; i <= QR_RETIRE_BATCH_COUNT; i++)
        qr_epoch_retire(self, 2, (void *)i, 1);
}

static void check_window(const char *name, uint64_t reclaimed_by_round)
{
    struct database db = {0};
    struct qr_thread *self = database_open(&db);
    struct window window = {.name = name, .db = &db};

    for (uintptr_t i = 1; i <= 50; i++)
        qr_epoch_retire(self, 1, (void *)i, 1);
    qr_stop_set_hook(retire_in_window, &window);
    cr_assert(qr_epoch_reclaim(db.epoch, self));
    qr_stop_set_hook(NULL, NULL);
    cr_assert_geq(atomic_load(&window.seen), 1, "%s was not passed", name);
    cr_assert_eq(atomic_load(&db.reclaimed.count), reclaimed_by_round, "%s", name);
    cr_assert(qr_epoch_reclaim(db.epoch, self));
    cr_assert_eq(atomic_load(&db.reclaimed.count), 50 + QR_RETIRE_BATCH_COUNT);
    cr_assert_eq(qr_epoch_queued_bytes(db.epoch), 0);
    database_close(&db);
}

Test(epoch, what_is_retired_inside_a_round_is_reclaimed_once_and_after_its_own_grace_period)
{
    /* Between the looks: the batch is handed over and found twice, as a range and whole. 50 + 78 fill it. */
    check_window("epoch.ranges_taken", QR_RETIRE_BATCH_COUNT);
    check_window("epoch.round_taken", 50);
    check_window("epoch.grace_over", 50);
}

/* A thread between its record and the queue keeps its batch, and nobody else's. */
struct stopped {
    struct database *db;
    sem_t arrived, go_on;
    pthread_t thread;
    _Atomic int armed;
};

static void stop_detached(const char *name, void *arg)
{
    struct stopped *stopped = arg;
    if (strcmp(name, "epoch.batch_detached") != 0 || atomic_exchange(&stopped->armed, 0) == 0)
        return;
    sem_post(&stopped->arrived);
    sem_wait(&stopped->go_on);
}

static void *retire_batch(void *arg)
{
    struct stopped *stopped = arg;
    struct qr_thread *self = qr_thread_self(stopped->db->epoch);
    for (uintptr_t i = 1; i <= QR_RETIRE_BATCH_COUNT; i++)
        qr_epoch_retire(self, 3, (void *)i, 1);
    return NULL;
}

Test(epoch, a_thread_stopped_while_handing_over_keeps_one_batch)
{
    static struct database db;
    static struct stopped stopped;
    struct qr_thread *self = database_open(&db);

    stopped.db = &db;
    sem_init(&stopped.arrived, 0, 0);
    sem_init(&stopped.go_on, 0, 0);
    atomic_store(&stopped.armed, 1);
    qr_stop_set_hook(stop_detached, &stopped);
    cr_assert_eq(pthread_create(&stopped.thread, NULL, retire_batch, &stopped), 0);
    sem_wait(&stopped.arrived);
    for (uintptr_t i = 1; i <= 1000; i++)
        qr_epoch_retire(self, 3, (void *)i, 1);
    cr_assert(qr_epoch_reclaim(db.epoch, self));
    cr_assert_eq(atomic_load(&db.reclaimed.count), 1000);
    cr_assert_eq(qr_epoch_retired_bytes(db.epoch), QR_RETIRE_BATCH_COUNT);
    sem_post(&stopped.go_on);
    pthread_join(stopped.thread, NULL);
    cr_assert(qr_epoch_reclaim(db.epoch, self));
    cr_assert_eq(qr_epoch_retired_bytes(db.epoch), 0);
    qr_stop_set_hook(NULL, NULL);
    database_close(&db);
}
