/*
 * snapshot.c: taking, scanning and dropping snapshots.
 *
 * Layer 5. Taking one:
 *
 *   1. register: the place gets COMING | (tail - 1), a lower bound of S       stop point snapshot.registered
 *   2. raise the generation
 *   3. S = tail - 1                                                           stop point snapshot.bounded
 *   4. the place gets S
 *   5. wait, once for each thread, while its slot is open at or below S
 *
 * Why a collection that does not find the place may collect up to its horizon T: the place is stored (1) before the tail is
 * loaded (3), the horizon is loaded before the scan, all four in one order (seq_cst). The scan missed the store, so the
 * store comes after it, hence the load of S after that of T: S >= T.
 *
 * Why 5 is enough: a write with LSN <= S had reserved it before the tail was loaded, so its slot's bound, at most that LSN,
 * is seen (LOG-2), unless the slot was closed since: then the write is installed. A slot that is opened again later has
 * a bound above S, or an old tail that only makes this wait longer.
 */
#include "txn/snapshot.h"

#include <sched.h>
#include <string.h>

#include <quire/quire.h>

#include "base/alloc.h"
#include "base/stop.h"
#include "os/thread.h"

void qr_snapshots_init(struct qr_snapshot_registry *registry, struct qr_log *log, struct qr_epoch *epoch)
{
    atomic_init(&registry->list, NULL);
    atomic_init(&registry->generation, 0);
    registry->log = log;
    registry->epoch = epoch;
}

static struct qr_snapshot *first(struct qr_snapshot_registry *registry)
{
    /* order: txn.list.read pairs with txn.list.push: the place's constant fields */
    return atomic_load_explicit(&registry->list, memory_order_seq_cst);
}

void qr_snapshots_done(struct qr_snapshot_registry *registry)
{
    struct qr_snapshot *snapshot = first(registry);
    while (snapshot != NULL) {
        struct qr_snapshot *next = snapshot->next;
        qr_free_aligned(snapshot);
        snapshot = next;
    }
}

/* A place that was free, or a new one. */
static struct qr_snapshot *acquire(struct qr_snapshot_registry *registry)
{
    for (struct qr_snapshot *s = first(registry); s != NULL; s = s->next) {
        uint32_t free_mark = 0;
        /* order: txn.place.acquire pairs with txn.place.release: the former holder is done with it */
        if (atomic_compare_exchange_strong_explicit(&s->in_use, &free_mark, 1, memory_order_acquire,
                                                    memory_order_relaxed))
            return s;
    }
    struct qr_snapshot *s = qr_malloc_aligned(64, sizeof(*s));
    if (s == NULL) return NULL;
    memset(s, 0, sizeof(*s));
    atomic_init(&s->in_use, 1);
    /* relaxed: the exchange below checks it */
    s->next = atomic_load_explicit(&registry->list, memory_order_relaxed);
    /* order: txn.list.push pairs with txn.list.read; seq_cst: before the tail is loaded, as the bound */
    while (!atomic_compare_exchange_weak_explicit(&registry->list, &s->next, s, memory_order_seq_cst,
                                                  memory_order_relaxed)) {
    }
    return s;
}

static void set_tag(struct qr_snapshot *snapshot, const char *tag)
{
    char text[QR_EPOCH_TAG_BYTES] = {0};
    if (tag != NULL) strncpy(text, tag, sizeof(text) - 1);
    for (size_t i = 0; i < sizeof(text) / 8; i++) {
        uint64_t word;
        memcpy(&word, text + i * 8, 8);
        /* relaxed: statistics; a torn tag is one of two tags' pieces */
        atomic_store_explicit(&snapshot->tag[i], word, memory_order_relaxed);
    }
    /* relaxed: statistics */
    atomic_store_explicit(&snapshot->since_ns, qr_clock_ns(), memory_order_relaxed);
}

static void wait_for_slots(struct qr_epoch *epoch, uint64_t lsn)
{
    for (struct qr_thread *t = qr_thread_first(epoch); t != NULL; t = qr_thread_next(t)) {
        for (unsigned round = 0; qr_log_slot_bound(t) <= lsn; round++) {
            struct timespec nap = {0, 50000};
            if (round < 100)
                sched_yield();
            else
                nanosleep(&nap, NULL);
        }
    }
}

int qr_snapshot_take(struct qr_snapshot_registry *registry, const char *tag, struct qr_snapshot **ret_snapshot)
{
    struct qr_snapshot *snapshot = acquire(registry);
    if (snapshot == NULL) return QUIRE_ERR_NO_MEMORY;
    set_tag(snapshot, tag);
    uint64_t lower = qr_log_tail(registry->log) - 1;
    /* order: txn.bound.coming pairs with txn.bound.read: before the tail is loaded */
    atomic_store_explicit(&snapshot->bound, QR_SNAPSHOT_COMING | lower, memory_order_seq_cst);
    QR_STOP("snapshot.registered");
    /* order: txn.generation.raise pairs with txn.generation.read: consolidate.c tells why */
    atomic_fetch_add_explicit(&registry->generation, 1, memory_order_seq_cst);
    snapshot->lsn = qr_log_tail(registry->log) - 1;
    QR_STOP("snapshot.bounded");
    /* order: txn.bound.set pairs with txn.bound.read: a narrower promise; nothing else is published */
    atomic_store_explicit(&snapshot->bound, snapshot->lsn, memory_order_release);
    if (!QR_BUG(snapshot_no_wait)) wait_for_slots(registry->epoch, snapshot->lsn);
    *ret_snapshot = snapshot;
    return 0;
}

void qr_snapshot_drop(struct qr_snapshot *snapshot)
{
    /* order: txn.bound.clear pairs with txn.bound.read: reads at the snapshot come before what is collected then */
    atomic_store_explicit(&snapshot->bound, 0, memory_order_release);
    /* order: txn.place.release pairs with txn.place.acquire */
    atomic_store_explicit(&snapshot->in_use, 0, memory_order_release);
}

uint32_t qr_snapshots_bounds(struct qr_snapshot_registry *registry, uint64_t *bounds, uint32_t capacity,
                             uint64_t *ret_keep_above)
{
    uint32_t count = 0;
    bool more = false;
    *ret_keep_above = UINT64_MAX;
    for (struct qr_snapshot *s = first(registry); s != NULL; s = s->next) {
        /* order: txn.bound.read pairs with txn.bound.coming, txn.bound.set, txn.bound.clear; seq_cst: after the horizon */
        uint64_t bound = atomic_load_explicit(&s->bound, memory_order_seq_cst);
        if (bound == 0) continue;
        if ((bound & QR_SNAPSHOT_COMING) != 0) {
            *ret_keep_above = qr_min(*ret_keep_above, bound & ~QR_SNAPSHOT_COMING);
            continue;
        }
        if (count == capacity) {
            more = true;
            if (bound <= bounds[capacity - 1]) continue;
            count--;
        }
        uint32_t i = count++;
        for (; i > 0 && bounds[i - 1] < bound; i--) bounds[i] = bounds[i - 1];
        bounds[i] = bound;
    }
    return more ? capacity + 1 : count;
}

void qr_snapshots_stats(struct qr_snapshot_registry *registry, struct qr_snapshot_stats *ret_stats)
{
    uint64_t now = qr_clock_ns();
    uint64_t oldest = UINT64_MAX;
    *ret_stats = (struct qr_snapshot_stats){0};
    for (struct qr_snapshot *s = first(registry); s != NULL; s = s->next) {
        /* order: txn.bound.read as above; for statistics any order would do */
        if (atomic_load_explicit(&s->bound, memory_order_seq_cst) == 0) continue;
        ret_stats->open++;
        /* relaxed: statistics */
        uint64_t since = atomic_load_explicit(&s->since_ns, memory_order_relaxed);
        if (since >= oldest) continue;
        oldest = since;
        ret_stats->oldest_age_ms = now > since ? (now - since) / 1000000 : 0;
        for (size_t i = 0; i < QR_EPOCH_TAG_BYTES / 8; i++) {
            /* relaxed: statistics */
            uint64_t word = atomic_load_explicit(&s->tag[i], memory_order_relaxed);
            memcpy(ret_stats->oldest_tag + i * 8, &word, 8);
        }
        ret_stats->oldest_tag[QR_EPOCH_TAG_BYTES - 1] = 0;
    }
}
