/*
 * maintain.c: memory that comes back, the background threads, and quire_maintain.
 *
 * Layer 6. The background threads reclaim what writers retire. quire_maintain walks all trees, slice by slice, until a
 * whole pass has changed nothing.
 */
#include "db/db.h"

#define SLICE_NS 1000000u
#define LEAVES_AT_ONCE 16u
#define IDLE_US 50000u
#define BUSY_US 1000u
#define ROUND_BYTES ((uint64_t)4 << 20) /* a round interrupts every processor: it should be worth it */
#define ROUND_LATEST_NS 20000000u       /* what was retired waits no longer than this for a round */

/* ---- Reclamation ------------------------------------------------------------------------------------------------ */

/* One round, or, if another thread is in one, a little wait for it. Whether another round may bring more. */
static bool reclaim(struct quire *db, struct qr_thread *thread)
{
    uint32_t seen = qr_event_count(&db->reclaimed);
    uint64_t before = qr_epoch_reclaimed_bytes(db->epoch);
    bool more = qr_epoch_reclaim(db->epoch, thread);
    if (more && qr_epoch_reclaimed_bytes(db->epoch) == before) qr_event_wait(&db->reclaimed, seen, BUSY_US);
    qr_event_signal(&db->reclaimed);
    return more;
}

static bool has_threads(const struct quire *db)
{
    return db->thread_count != 0;
}

/* Free memory may lie in blocks of other sizes: whole free chunks can be carved anew. Whether there were any. */
static bool regroup(struct quire *db, struct qr_thread *thread)
{
    qr_arena_cache_flush(db->arena, &thread->cache);
    return qr_arena_trim(db->arena) != 0;
}

int qr_db_wait_memory(struct quire *db, struct qr_thread *thread, uint64_t *deadline_ns)
{
    uint64_t limit = db->options.memory_limit_bytes;
    if (qr_epoch_inside(thread)) return QUIRE_ERR_NO_MEMORY; /* the caller's own guard may be what retains it */
    uint64_t retired = qr_epoch_retired_bytes(db->epoch);
    bool first = *deadline_ns == 0;
    if (retired == 0 || (!first && retired < limit / 64)) return regroup(db, thread) ? 0 : QUIRE_ERR_NO_MEMORY;

    uint64_t now = qr_clock_ns();
    if (first) {
        *deadline_ns = now + db->options.stall_timeout_ms * 1000000ull;
        qr_counter_add(&thread->counters[QR_COUNTER_STALLS], 1);
    }
    if (now >= *deadline_ns) return QUIRE_ERR_STALLED;
    if (!has_threads(db)) {
        /* Rounds wait for guards: only when there is none can this thread do one without being held by it. One that brings
         * nothing leaves what iterators hold: they may let it go. */
        if (qr_epoch_guards_open(db->epoch) != 0 || !reclaim(db, thread)) qr_sleep_us(BUSY_US);
    } else {
        uint32_t seen = qr_event_count(&db->reclaimed);
        qr_event_signal(&db->wake);
        qr_event_wait(&db->reclaimed, seen, BUSY_US * 10);
    }
    qr_counter_add(&thread->counters[QR_COUNTER_STALL_MS], (qr_clock_ns() - now) / 1000000);
    return 0;
}

/* A writer whose batches pile up: sleeps a little if guards retain more than a quarter of the limit. */
static QR_NOINLINE void slow_writer(struct quire *db, struct qr_thread *thread)
{
    uint64_t limit = db->options.memory_limit_bytes;
    if (!has_threads(db)) {
        if (qr_epoch_guards_open(db->epoch) == 0) reclaim(db, thread);
        return;
    }
    qr_event_signal(&db->wake);
    if (limit == 0 || qr_epoch_queued_bytes(db->epoch) <= limit / 4) return;
    qr_counter_add(&thread->counters[QR_COUNTER_STALLS], 1);
    qr_counter_add(&thread->counters[QR_COUNTER_STALL_MS], 1);
    qr_sleep_us(BUSY_US);
}

void qr_db_after_write(struct quire *db, struct qr_thread *thread)
{
    uint64_t limit = db->options.memory_limit_bytes;
    uint64_t most = limit == 0 ? ROUND_BYTES * 4 : qr_min(ROUND_BYTES * 4, limit / 8);
    if (QR_LIKELY(qr_epoch_queued_bytes(db->epoch) < most)) return;
    if (!qr_epoch_inside(thread)) slow_writer(db, thread);
}

/* ---- Background threads ----------------------------------------------------------------------------------------- */

/* Whether a round is due: much has been retired, or the last round was some time ago. */
static bool round_is_due(struct quire *db, uint64_t last_ns)
{
    uint64_t limit = db->options.memory_limit_bytes;
    uint64_t enough = limit == 0 ? ROUND_BYTES : qr_min(ROUND_BYTES, limit / 16);
    if (qr_epoch_queued_bytes(db->epoch) >= enough) return true;
    return qr_clock_ns() - last_ns >= ROUND_LATEST_NS && qr_epoch_retired_bytes(db->epoch) != 0;
}

static void *background(void *argument)
{
    struct quire *db = argument;
    struct qr_thread *thread = qr_thread_self(db->epoch);
    uint64_t pause_us = BUSY_US;
    uint64_t last_ns = 0;
    for (;;) {
        uint32_t seen = qr_event_count(&db->wake);
        /* order: db.stop.seen pairs with db.stop.set: only the flag itself */
        if (atomic_load_explicit(&db->stopping, memory_order_acquire) != 0) return NULL;
        if (thread == NULL) thread = qr_thread_self(db->epoch);
        bool busy = thread != NULL && round_is_due(db, last_ns);
        if (busy) {
            reclaim(db, thread);
            last_ns = qr_clock_ns();
        }
        /* Idle, it looks less and less often. */
        pause_us = busy ? BUSY_US : qr_min(pause_us + pause_us / 4, IDLE_US);
        qr_event_wait(&db->wake, seen, pause_us);
    }
}

int qr_db_background_start(struct quire *db)
{
    uint32_t count = db->options.background_threads == QUIRE_NO_THREADS ? 0 : db->options.background_threads;
    if (count == 0) return 0;
    db->threads = qr_calloc(count, sizeof(*db->threads));
    if (db->threads == NULL) return QUIRE_ERR_NO_MEMORY;
    for (uint32_t i = 0; i < count; i++) {
        if (qr_thread_start(&db->threads[i], "quire-work", background, db) != 0) {
            qr_db_background_stop(db);
            return QUIRE_ERR_NO_MEMORY;
        }
        db->thread_count++;
    }
    return 0;
}

void qr_db_background_stop(struct quire *db)
{
    /* order: db.stop.set pairs with db.stop.seen */
    atomic_store_explicit(&db->stopping, 1, memory_order_release);
    qr_event_signal(&db->wake);
    for (uint32_t i = 0; i < db->thread_count; i++) pthread_join(db->threads[i], NULL);
    db->thread_count = 0;
    qr_free(db->threads);
    db->threads = NULL;
}

/* ---- quire_maintain --------------------------------------------------------------------------------------------- */

void qr_db_maintain_init(struct quire *db)
{
    pthread_mutex_init(&db->maintain.mutex, NULL);
    db->maintain.clean_mark = UINT64_MAX;
}

void qr_db_maintain_done(struct quire *db)
{
    qr_walk_done(&db->maintain.walk);
    pthread_mutex_destroy(&db->maintain.mutex);
}

/* A number that changes whenever something was written, or a snapshot was taken or released. */
static uint64_t work_mark(struct quire *db)
{
    /* order: txn.generation.read pairs with txn.generation.raise */
    uint64_t snapshots = atomic_load_explicit(&db->snapshots.generation, memory_order_seq_cst);
    uint64_t open = qr_db_open_count(&db->snapshots_open); /* changes when one is released */
    uint64_t safe = 0;
    uint32_t count;
    struct quire_tree **handles = qr_db_handles(db, &count);
    for (uint32_t i = 0; i < count; i++) safe += qr_tree_safe_version(&handles[i]->tree);
    return qr_log_tail(&db->log) * 31 + snapshots * 7 + open + safe * 13;
}

/* Some leaves of the tree in hand. 0: go on; QUIRE_END: a pass over all trees has ended. */
static int walk_some(struct quire *db, struct qr_thread *thread)
{
    struct qr_maintain_state *m = &db->maintain;
    struct qr_op op;
    uint32_t count;
    struct quire_tree **handles = qr_db_handles(db, &count);
    if (m->tree_index >= count) return QUIRE_END;
    int result = qr_epoch_prepare(thread);
    if (result != 0) return result;
    qr_op_init(&op, &handles[m->tree_index]->tree, thread);
    bool again;
    qr_epoch_enter(thread);
    do {
        result = qr_tree_maintain(&op, &m->walk, LEAVES_AT_ONCE, &m->changes);
        again = result == QR_FETCH;
        if (again) result = qr_db_fetch(db, &op);
    } while (again && result == 0);
    qr_epoch_exit(thread);
    qr_op_done(&op);
    if (result != QUIRE_END) return result;
    m->tree_index++;
    return 0;
}

/* Under the mutex. */
static int slice(struct quire *db, struct qr_thread *thread)
{
    struct qr_maintain_state *m = &db->maintain;
    uint64_t end_ns = qr_clock_ns() + SLICE_NS;
    if (!m->in_pass && m->clean_mark == work_mark(db)) {
        if (qr_epoch_guards_open(db->epoch) == 0 && reclaim(db, thread)) return QUIRE_MORE;
        qr_arena_trim(db->arena);
        return 0;
    }
    do {
        if (!m->in_pass) {
            m->in_pass = true;
            m->tree_index = 0;
            m->changes = 0;
            m->pass_mark = work_mark(db);
        }
        int result = walk_some(db, thread);
        if (result == QUIRE_END) {
            m->in_pass = false;
            if (m->changes == 0) m->clean_mark = m->pass_mark;
            return QUIRE_MORE;
        }
        if (result == QUIRE_ERR_NO_MEMORY && qr_epoch_guards_open(db->epoch) == 0 && reclaim(db, thread))
            return QUIRE_MORE; /* the same leaves again, with what has come back */
        if (result != 0) return result;
    } while (qr_clock_ns() < end_ns);
    if (!has_threads(db) && qr_epoch_guards_open(db->epoch) == 0) reclaim(db, thread);
    return QUIRE_MORE;
}

int quire_maintain(struct quire *db)
{
    struct qr_thread *thread = NULL;
    int result = qr_db_begin(db, &thread);
    if (result != 0) return result;
    if (qr_epoch_inside(thread)) return qr_db_fail(thread, QUIRE_ERR_BUSY, "the thread holds a guard");
    pthread_mutex_lock(&db->maintain.mutex);
    result = slice(db, thread);
    pthread_mutex_unlock(&db->maintain.mutex);
    return result >= 0 ? result : qr_db_fail(thread, result, "%s", quire_strerror(result));
}
