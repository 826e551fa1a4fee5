/*
 * maintain.c: memory that comes back, the background threads, and quire_maintain.
 *
 * Layer 6. quire_maintain walks all trees, slice by slice, until a whole pass has changed nothing. The background
 * threads reclaim what writers retire, prepare memory for them, and do the same walk when they rest.
 */
#include "db/db.h"

#define SLICE_NS 1000000u
#define LEAVES_AT_ONCE 16u
#define IDLE_US 50000u
#define BUSY_US 1000u
#define REST_NS 20000000u /* writers rest when nothing was written for so long */
#define ROUND_BYTES ((uint64_t)4 << 20) /* a round interrupts every processor: it should be worth it */
#define FLUSH_FROM_PERCENT 90u          /* of the limit: above it free memory is shared at once */
#define ROUND_LATEST_NS 20000000u       /* what was retired waits no longer than this for a round */
#define LOOKS 8u                        /* in vain, before a deletion is refused; trims and rounds that a put waits for */
#define LEND_STEPS 64u
#define YIELDS 64u                      /* of a writer, while it retires as much as makes it yield */
#define TRIM_US 50u                     /* a trim takes about so long */

/* ---- Reclamation ------------------------------------------------------------------------------------------------ */

/* One round, or, if another thread is in one, a little wait for it. Whether another round may bring more. */
static bool reclaim(struct quire *db, struct qr_thread *thread)
{
    uint32_t seen = qr_event_count(&db->reclaimed);
    uint64_t before = qr_epoch_reclaimed_bytes(db->epoch);
    /* order: db.reclaimers.in comes before anything is taken, pairs with db.reclaimers.seen */
    atomic_fetch_add_explicit(&db->reclaimers, 1, memory_order_acq_rel);
    bool more = qr_epoch_reclaim(db->epoch, thread);
    if (more && qr_epoch_reclaimed_bytes(db->epoch) == before) qr_event_wait(&db->reclaimed, seen, BUSY_US);
    /* What came back lies in this thread's cache, where others and the trim do not find it. */
    if (qr_arena_over(db->arena, FLUSH_FROM_PERCENT)) qr_arena_cache_flush(db->arena, &thread->cache);
    /* order: db.reclaimers.out publishes what was reclaimed, pairs with db.reclaimers.seen */
    atomic_fetch_sub_explicit(&db->reclaimers, 1, memory_order_release);
    qr_event_signal(&db->reclaimed);
    return more;
}

static bool has_threads(const struct quire *db)
{
    return db->thread_count != 0;
}

/*
 * Free memory may lie in pieces of other sizes. Once for a write: one that needs several blocks may take a chunk for the
 * first, fail at the second, and give the chunk back. Regrouping finds that chunk, so it would be worth another try without
 * end. One that another thread's trim has kept from it does not count.
 */
static bool regroup(struct quire *db, struct qr_thread *thread, struct qr_memory_wait *wait, bool *overtaken)
{
    *overtaken = qr_arena_overtaken(db->arena, &thread->cache);
    if (wait->regrouped || *overtaken) return false;
    bool gained = qr_arena_regroup(db->arena, &thread->cache);
    *overtaken = qr_arena_overtaken(db->arena, &thread->cache);
    wait->regrouped = gained || !*overtaken;
    return gained;
}

/*
 * For a deletion that failed, with little that is retired: whether to try again. Memory is on its way back if something
 * was reclaimed since the last look, or another thread has it in hand; and an operation of another thread may be about to
 * retire or return blocks. So it takes LOOKS looks in a row that find nothing, with a try of the write between any two.
 * One counts only if a round has ended since the one before, and none was under way then: so that round began after the
 * failure. Under a guard of anybody rounds do not end, and are not waited for.
 */
static bool is_on_its_way(struct quire *db, struct qr_memory_wait *wait, bool in_hand, bool guarded)
{
    uint32_t round = qr_event_count(&db->reclaimed);
    uint64_t bytes = qr_epoch_reclaimed_bytes(db->epoch);

    if (in_hand || bytes != wait->seen_bytes)
        wait->looks = 0;
    else if (guarded || round != wait->seen_round)
        wait->looks++;
    wait->seen_bytes = bytes;
    wait->seen_round = round;
    return wait->looks < LOOKS;
}

/* Waits until the trim that runs has ended, or the deadline has come. */
static void await_trim(struct quire *db, uint64_t deadline_ns)
{
    uint32_t trims = qr_arena_trims(db->arena);
    uint64_t pause_us = TRIM_US;
    while (trims % 2 != 0 && qr_arena_trims(db->arena) == trims && qr_clock_ns() < deadline_ns) {
        qr_sleep_us(pause_us);
        pause_us = qr_min(pause_us * 2, BUSY_US);
    }
}

/* Waits until a round has ended, the deadline has come, or somebody has a guard. */
static void await_end(struct quire *db, uint32_t seen, uint64_t deadline_ns)
{
    while (qr_event_count(&db->reclaimed) == seen && qr_clock_ns() < deadline_ns && !qr_epoch_process_guarded())
        qr_event_wait(&db->reclaimed, seen, BUSY_US * 10);
}

/* Has a background thread do a round and waits for its end, or a little while. A round that brought nothing is not asked
 * for again, unless `ask`: guards or iterators hold what there is, and the threads look at it in their own time. */
static void await_round(struct quire *db, struct qr_memory_wait *wait, bool ask)
{
    uint32_t seen = qr_event_count(&db->reclaimed);
    uint64_t reclaimed_bytes = qr_epoch_reclaimed_bytes(db->epoch);
    /* relaxed: the signal publishes it; a thread that misses it finds it when it looks next */
    if (ask || reclaimed_bytes != wait->reclaimed_bytes)
        atomic_store_explicit(&db->round_wanted, 1, memory_order_relaxed);
    wait->reclaimed_bytes = reclaimed_bytes;
    qr_event_signal(&db->wake);
    qr_event_wait(&db->reclaimed, seen, BUSY_US * 10);
}

/*
 * Whether so little is retired that neither rounds nor guards are what the write lacks. After a first round, that is: until
 * then all of it may come back. Iterators at rest keep a leaf each, for as long as they like: of that it takes more.
 */
static bool is_little(struct quire *db, const struct qr_memory_wait *wait, uint64_t retired)
{
    uint64_t limit = db->options.memory_limit_bytes;
    uint64_t held = qr_min(retired, qr_epoch_held_bytes(db->epoch));
    return retired == 0 || (wait->asked && retired - held < limit / 64 && held < limit / 8);
}

/* The wait for a round, or for guards that keep one from ending. */
static void await_memory(struct quire *db, struct qr_thread *thread, struct qr_memory_wait *wait, bool little)
{
    bool first = !wait->asked;
    wait->asked = true;
    if (first) qr_db_note_stall(db);
    if (has_threads(db)) {
        await_round(db, wait, first || little);
    } else if (qr_epoch_process_guarded() || !reclaim(db, thread)) {
        /* Rounds wait for guards: only when there is none can this thread do one without being held by it. One that brings
         * nothing leaves what iterators hold: they may let it go. */
        qr_sleep_us(BUSY_US);
    }
}

int qr_db_wait_memory(struct quire *db, struct qr_thread *thread, struct qr_memory_wait *wait)
{
    bool inside = qr_epoch_inside(thread); /* the caller's own guard may be what retains it: no round ends then */
    bool little = inside || is_little(db, wait, qr_epoch_retired_bytes(db->epoch));
    bool overtaken = false, busy = false;
    uint32_t round = qr_event_count(&db->reclaimed);
    if (little) {
        if (regroup(db, thread, wait, &overtaken)) return 0;
        bool guarded = inside || qr_epoch_process_guarded();
        /* order: db.reclaimers.seen pairs with db.reclaimers.out and db.reclaimers.in */
        busy = !guarded && atomic_load_explicit(&db->reclaimers, memory_order_acquire) != 0;
        /* Without a limit it is the machine's memory that has ended, not what other threads have in hand. */
        bool patient = wait->use_reserve && db->options.memory_limit_bytes != 0 && !qr_epoch_inside_any();
        bool again = patient ? is_on_its_way(db, wait, overtaken || busy, guarded)
                             : (overtaken || busy) && wait->hands++ < LOOKS;
        if (!again) return QUIRE_ERR_NO_MEMORY;
    }

    uint64_t now = qr_clock_ns();
    if (wait->deadline_ns == 0) {
        wait->deadline_ns = now + db->options.stall_timeout_ms * 1000000ull;
        qr_counter_add(&thread->counters[QR_COUNTER_STALLS], 1);
    }
    if (now >= wait->deadline_ns) return little ? QUIRE_ERR_NO_MEMORY : QUIRE_ERR_STALLED;
    if (overtaken)
        await_trim(db, wait->deadline_ns);
    else if (busy)
        await_end(db, round, wait->deadline_ns);
    else
        await_memory(db, thread, wait, little);
    qr_counter_add(&thread->counters[QR_COUNTER_STALL_MS], (qr_clock_ns() - now) / 1000000);
    return 0;
}

/*
 * A writer while `most` bytes and more wait for a round. Without background threads it does one; else it gives them its processor
 * now and then, and sleeps a little if guards retain more than a quarter of the limit.
 */
static QR_NOINLINE void slow_writer(struct quire *db, struct qr_thread *thread, uint64_t most)
{
    uint64_t limit = db->options.memory_limit_bytes;
    if (!has_threads(db)) {
        if (!qr_epoch_process_guarded()) reclaim(db, thread);
        return;
    }
    /* Where writers fill all processors, the background thread would wait for its turn. It may also be in the middle of a round
     * or prepare memory; so not at each write. */
    /* relaxed: only this thread writes it */
    uint64_t retired_bytes = atomic_load_explicit(&thread->retired_bytes, memory_order_relaxed);
    if (retired_bytes - thread->yielded_bytes >= most / YIELDS) {
        thread->yielded_bytes = retired_bytes;
        qr_event_signal(&db->wake);
        qr_thread_yield();
    }
    if (limit == 0 || qr_epoch_queued_bytes(db->epoch) <= limit / 4) return;
    qr_counter_add(&thread->counters[QR_COUNTER_STALLS], 1);
    qr_counter_add(&thread->counters[QR_COUNTER_STALL_MS], 1);
    qr_db_note_stall(db);
    qr_db_tell(db);
    qr_sleep_us(BUSY_US);
}

void qr_db_after_write(struct quire *db, struct qr_thread *thread)
{
    uint64_t limit = db->options.memory_limit_bytes;
    uint64_t most = limit == 0 ? ROUND_BYTES * 4 : qr_min(ROUND_BYTES * 4, limit / 8);
    if (QR_LIKELY(qr_epoch_queued_bytes(db->epoch) < most)) return;
    if (!qr_epoch_inside(thread)) slow_writer(db, thread, most);
}

/* ---- The limit while the log is replayed ------------------------------------------------------------------------ */

bool qr_db_lend_memory(struct quire *db)
{
    uint64_t own = qr_db_arena_limit(db);
    uint64_t limit = qr_arena_limit_bytes(db->arena) + own / LEND_STEPS;
    if (own == 0 || limit > own + own / 2) return false;
    qr_arena_set_limit(db->arena, limit);
    return true;
}

void qr_db_return_memory(struct quire *db)
{
    uint64_t own = qr_db_arena_limit(db);
    uint64_t limit = qr_arena_limit_bytes(db->arena);
    if (QR_LIKELY(limit <= own)) return;
    limit = qr_min(limit, qr_arena_total_bytes(db->arena));
    qr_arena_set_limit(db->arena, qr_max(limit, own)); /* of two that return at once the later may return less */
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

/* What maintenance depends on, as one number: two states have the same only by chance. */
static uint64_t mark_of(struct quire *db, uint64_t snapshots_begun)
{
    uint64_t parts[4] = {qr_log_tail(&db->log), snapshots_begun, qr_db_open_count(&db->snapshots_done), 0};
    uint32_t count;
    struct quire_tree **handles = qr_db_handles(db, &count);
    for (uint32_t i = 0; i < count; i++) parts[3] += qr_tree_safe_version(&handles[i]->tree);
    return qr_hash(parts, sizeof(parts));
}

/* It changes whenever something was written, a snapshot was taken or released, or a safe version was raised. */
static uint64_t work_mark(struct quire *db)
{
    /* order: txn.generation.read pairs with txn.generation.raise */
    return mark_of(db, atomic_load_explicit(&db->snapshots.generation, memory_order_seq_cst));
}

/* Some leaves of the tree in hand. 0: go on; QUIRE_END: a pass over all trees has ended. */
static int walk_some(struct quire *db, struct qr_thread *thread, bool use_reserve)
{
    struct qr_maintain_state *m = &db->maintain;
    struct qr_op op;
    uint32_t count;
    struct quire_tree **handles = qr_db_handles(db, &count);
    if (m->tree_index >= count) return QUIRE_END;
    int result = qr_epoch_prepare(thread);
    if (result != 0) return result;
    qr_op_init(&op, &handles[m->tree_index]->tree, thread);
    op.use_reserve = use_reserve;
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

/*
 * Under the mutex; waits for no grace period there. use_reserve: at the memory limit too, for what it brings; then the
 * reserve is not there for deletions meanwhile. 0: nothing is left to do; QUIRE_MORE; NO_MEMORY: a round may help; a whole
 * pass has changed nothing, and what it would have changed found no memory.
 */
static int slice(struct quire *db, struct qr_thread *thread, bool use_reserve)
{
    struct qr_maintain_state *m = &db->maintain;
    uint64_t end_ns = qr_clock_ns() + SLICE_NS;
    if (!m->in_pass && m->clean_mark == work_mark(db)) return 0;
    do {
        if (!m->in_pass) {
            m->in_pass = true;
            m->tree_index = 0;
            m->changes = 0;
            m->walk.skipped = 0;
            m->pass_mark = work_mark(db);
        }
        int result = walk_some(db, thread, use_reserve);
        if (result == QUIRE_END) {
            m->in_pass = false;
            if (m->changes != 0) return QUIRE_MORE;
            if (m->walk.skipped != 0) return QUIRE_ERR_NO_MEMORY;
            m->clean_mark = m->pass_mark;
            return QUIRE_MORE;
        }
        if (result != 0) return result;
    } while (qr_clock_ns() < end_ns);
    return QUIRE_MORE;
}

int quire_maintain(struct quire *db)
{
    struct qr_thread *thread = NULL;
    int result = qr_db_begin(db, &thread);
    if (result != 0) return result;
    if (qr_epoch_inside(thread)) return qr_db_fail(thread, QUIRE_ERR_BUSY, "the thread holds a guard");
    pthread_mutex_lock(&db->maintain.mutex);
    result = slice(db, thread, true);
    pthread_mutex_unlock(&db->maintain.mutex);
    /* A round waits for guards of the whole process: not for one that the caller, or anybody, may keep. */
    bool round = result != QUIRE_MORE || !has_threads(db);
    bool reclaimed = round && !qr_epoch_process_guarded() && reclaim(db, thread);
    if (!has_threads(db)) { /* what fails there fails for whoever needs it */
        qr_db_log_work(db);
        if (qr_db_checkpoint_is_due(db)) qr_db_checkpoint(db, thread, true);
    }
    if (result == 0 || result == QUIRE_ERR_NO_MEMORY) {
        if (reclaimed) return QUIRE_MORE; /* once more, with what has come back */
        qr_arena_trim(db->arena);
        qr_db_return_memory(db);
        result = 0; /* without memory: nothing that could be done now */
    }
    return result >= 0 ? result : qr_db_fail_below(thread, result);
}

/* ---- Background threads ----------------------------------------------------------------------------------------- */

/* Whether a round is due: somebody waits for one, much has been retired, or the last round was some time ago. */
static bool round_is_due(struct quire *db, uint64_t last_ns)
{
    /* relaxed: only the flag itself, and whoever clears it does a round */
    if (QR_UNLIKELY(atomic_load_explicit(&db->round_wanted, memory_order_relaxed) != 0)) {
        /* relaxed: as above */
        atomic_store_explicit(&db->round_wanted, 0, memory_order_relaxed);
        return true;
    }
    uint64_t limit = db->options.memory_limit_bytes;
    uint64_t enough = limit == 0 ? ROUND_BYTES : qr_min(ROUND_BYTES, limit / 16);
    if (qr_epoch_queued_bytes(db->epoch) >= enough) return true;
    return qr_clock_ns() - last_ns >= ROUND_LATEST_NS && qr_epoch_retired_bytes(db->epoch) != 0;
}

#define PREPARE_FROM_BYTES ((uint64_t)64 << 20) /* small stores stay small */
#define PREPARE_CHUNKS 4u
#define PASS_PAUSES 20u

/* How a store grows, as a background thread sees it. */
struct growth {
    uint64_t bytes;  /* that writers had at the last look */
    uint32_t wanted; /* chunks that are still to be prepared for what they carved */
};

/* Memory that writers are about to carve, if they have carved lately: one chunk, since it may take milliseconds, and what
 * was retired must come back first. Whether there was something to do. */
static bool prepare_memory(struct quire *db, struct growth *growth)
{
    uint64_t bytes = qr_arena_total_bytes(db->arena) - qr_arena_prepared_bytes(db->arena);
    if (bytes > growth->bytes) growth->wanted = PREPARE_CHUNKS; /* they may have taken several since then */
    growth->bytes = bytes;
    if (bytes < PREPARE_FROM_BYTES || growth->wanted == 0 || qr_arena_over(db->arena, 90)) return false;
    growth->wanted--;
    return qr_arena_prepare(db->arena, PREPARE_CHUNKS);
}

/* What a background thread remembers of writers and of its own work. */
struct rest {
    uint64_t tail;         /* of the log, when it was seen to have moved last */
    uint64_t since_ns;     /* when that was */
    uint64_t settled_mark; /* of a time when nothing was left to do */
    uint64_t pass_ns;      /* what the present pass has taken so far */
    uint64_t next_ns;      /* no pass begins before */
};

/*
 * A slice of maintenance, if writers rest. Whether to look again soon. A pass looks at every leaf, however little was
 * written: so after it follows a pause of PASS_PAUSES times as long. A snapshot that is taken gives nothing to do.
 */
static bool maintain_at_rest(struct quire *db, struct qr_thread *thread, struct rest *rest)
{
    struct qr_maintain_state *m = &db->maintain;
    uint64_t tail = qr_log_tail(&db->log);
    uint64_t now = qr_clock_ns();
    if (tail != rest->tail) {
        rest->tail = tail;
        rest->since_ns = now;
    }
    uint64_t mark = mark_of(db, 0);
    if (now - rest->since_ns < REST_NS || now < rest->next_ns || mark == rest->settled_mark) return false;
    if (pthread_mutex_trylock(&m->mutex) != 0) return false; /* a caller of quire_maintain does it */
    int result = slice(db, thread, false);
    bool ended = !m->in_pass;
    pthread_mutex_unlock(&m->mutex);
    uint64_t end = qr_clock_ns();
    rest->pass_ns += end - now;
    if (ended) {
        rest->next_ns = end + rest->pass_ns * PASS_PAUSES;
        rest->pass_ns = 0;
    }
    if (result != QUIRE_MORE) {
        rest->settled_mark = mark;
        qr_arena_cache_flush(db->arena, &thread->cache);
        qr_arena_trim(db->arena);
    }
    return result == QUIRE_MORE;
}

static void *background(void *argument)
{
    struct quire *db = argument;
    struct qr_thread *thread = qr_thread_self(db->epoch);
    struct rest rest = {.settled_mark = UINT64_MAX};
    uint64_t pause_us = BUSY_US;
    uint64_t last_ns = 0;
    struct growth growth = {.bytes = qr_arena_total_bytes(db->arena)};
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
        if (prepare_memory(db, &growth)) busy = true;
        qr_db_return_memory(db);
        if (thread != NULL && maintain_at_rest(db, thread, &rest)) busy = true;
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
