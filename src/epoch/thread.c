/*
 * Which record belongs to which thread; the end of threads; fork.
 * Layer 1 (epoch). Read epoch.h first.
 *
 * Each thread that has used a database has one anchor, the value of a process-wide thread key: the list of its records,
 * one for each database. Three events change anchors and ownership, all under one process-wide mutex, so they may come
 * in any order: a thread's first call on a database (claims a record), the end of a thread (gives up its records), and
 * the end of a database (takes its records out of all anchors, then frees them).
 *
 *   thread ends first:   its records become nobody's, batches stay in them, the next new thread continues there
 *   database ends first: the thread's anchor has no record of it any more, its end finds nothing to do
 *
 * THREAD-1  A record is in exactly one anchor's list while it has an owner, in none otherwise.
 * THREAD-2  qr_thread_recent never leads to a freed record: serial numbers are not used twice.
 * THREAD-3  An anchor outlives the list of records that it holds. (It is not in thread-local storage: a thread that
 * calls again after its key's last destructor leaves an anchor behind, not a dangling list.)
 *
 * The mutex is never taken while a thread does an ordinary operation; liburcu takes one of its own at the same places.
 */
#include "epoch/internal.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <quire/quire.h>

#include "base/alloc.h"
#include "base/stop.h"

struct qr_thread_anchor {
    struct qr_thread *records;
};

_Thread_local struct qr_thread_recent qr_thread_recent[QR_THREAD_RECENT_COUNT];
static _Thread_local struct qr_thread_anchor *anchor_of_self;

static pthread_mutex_t registry_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct qr_epoch *registry_epochs;
static pthread_key_t registry_key;
static _Atomic bool registry_ready; /* constant once it is true */

/* ---- Fork ------------------------------------------------------------------------------------------------------- */

static _Atomic uint64_t fork_word_static;
_Atomic uint64_t *qr_epoch_fork_word = &fork_word_static;

/* Only where the kernel cannot wipe a page in the child. */
static void wipe_in_child(void)
{
    /* relaxed: a child of fork has one thread */
    atomic_store_explicit(qr_epoch_fork_word, 0, memory_order_relaxed);
}

static bool process_forked(void)
{
    return qr_epoch_forked(NULL);
}

static bool fork_word_start(void)
{
    const size_t page_bytes = 4096;
    void *page;

    if (!process_forked())
        return true; /* an earlier try came as far as this */
    if (qr_alloc_must_fail())
        return false;
    page = mmap(NULL, page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return false;
    if (madvise(page, page_bytes, MADV_WIPEONFORK) == 0)
        qr_epoch_fork_word = page;
    else if (munmap(page, page_bytes) != 0 || pthread_atfork(NULL, NULL, wipe_in_child) != 0)
        return false;
    /* relaxed: the thread that hands the epoch to others orders this */
    atomic_store_explicit(qr_epoch_fork_word, 1, memory_order_relaxed);
    return true;
}

/* ---- The end of a thread ---------------------------------------------------------------------------------------- */

/*
 * Under the mutex. A guard that is still open ends here; liburcu ends its section when it unregisters the thread, which
 * may have happened already, so nothing of it is called.
 */
static void give_up(struct qr_thread *thread)
{
#ifdef QR_EPOCH_TSAN
    __tsan_release(thread);
#endif
    thread->nesting = 0;
    thread->in_reclaim = false;
    /* EPOCH-6: the serial stays. */
    thread->places_used = 0;
    thread->crowd = 0;
    memset(thread->tickets, 0, sizeof(thread->tickets));
    /* relaxed: statistics */
    atomic_store_explicit(&thread->pins, 0, memory_order_relaxed);
    /* relaxed: statistics */
    atomic_store_explicit(&thread->pinned_since_ns, 0, memory_order_relaxed);
    qr_arena_cache_flush(thread->epoch->arena, &thread->cache);
    thread->anchor = NULL;
    thread->anchor_next = NULL;
}

static void thread_ends(void *value)
{
    struct qr_thread_anchor *anchor = value;

    if (process_forked())
        return;
    pthread_mutex_lock(&registry_mutex);
    while (anchor->records != NULL) {
        struct qr_thread *thread = anchor->records;
        anchor->records = thread->anchor_next;
        give_up(thread);
    }
    pthread_mutex_unlock(&registry_mutex);
    for (unsigned i = 0; i < QR_THREAD_RECENT_COUNT; i++)
        qr_thread_recent[i] = (struct qr_thread_recent){0};
    anchor_of_self = NULL;
    qr_free(anchor);
}

/* ---- Start ------------------------------------------------------------------------------------------------------ */

/* What could not be had is tried again by the next who comes. */
static bool registry_try(void)
{
    bool ready;

    pthread_mutex_lock(&registry_mutex);
    /* relaxed: under the mutex */
    ready = atomic_load_explicit(&registry_ready, memory_order_relaxed);
    if (!ready) {
        ready = fork_word_start() && !qr_alloc_must_fail() && pthread_key_create(&registry_key, thread_ends) == 0;
        /* order: epoch.registry_start publishes the key and the word, pairs with epoch.registry_started */
        atomic_store_explicit(&registry_ready, ready, memory_order_release);
    }
    pthread_mutex_unlock(&registry_mutex);
    return ready;
}

int qr_registry_start(void)
{
    /* order: epoch.registry_started pairs with epoch.registry_start; without the mutex, which a child may find locked */
    if (!atomic_load_explicit(&registry_ready, memory_order_acquire) && !registry_try())
        return QUIRE_ERR_NO_MEMORY;
    return process_forked() ? QUIRE_ERR_FORKED : 0;
}

uint64_t qr_registry_serial(void)
{
    static _Atomic uint64_t last;
    /* relaxed: a number that nobody else gets */
    return atomic_fetch_add_explicit(&last, 1, memory_order_relaxed) + 1;
}

/* ---- A thread's first call on a database ------------------------------------------------------------------------ */

static struct qr_thread_anchor *anchor_get(void)
{
    if (anchor_of_self != NULL)
        return anchor_of_self;

    struct qr_thread_anchor *anchor = qr_calloc(1, sizeof(*anchor));
    if (anchor == NULL)
        return NULL;
    if (pthread_setspecific(registry_key, anchor) != 0) {
        qr_free(anchor);
        return NULL;
    }
    anchor_of_self = anchor;
    return anchor;
}

static uint64_t mix(uint64_t value)
{
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
    value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
    return (value ^ (value >> 31)) | 1;
}

/* A new record, on the database's list. Under the mutex. */
static struct qr_thread *record_make(struct qr_epoch *epoch)
{
    struct qr_thread *thread = qr_malloc_aligned(QR_CACHE_LINE_BYTES, sizeof(*thread));
    if (thread == NULL)
        return NULL;

    *thread = (struct qr_thread){.epoch = epoch, .random = mix((uintptr_t)thread + epoch->serial)};
    qr_arena_cache_init(epoch->arena, &thread->cache);
    /* relaxed: the mutex orders all writers of the list */
    thread->next = atomic_load_explicit(&epoch->threads, memory_order_relaxed);
    /* order: epoch.thread_link publishes the record, pairs with epoch.thread_walk */
    atomic_store_explicit(&epoch->threads, thread, memory_order_release);
    return thread;
}

/* The anchor's record of this database: the one that it has, one without owner, or a new one. Under the mutex. */
static struct qr_thread *record_claim(struct qr_epoch *epoch, struct qr_thread_anchor *anchor)
{
    struct qr_thread *thread;

    for (thread = anchor->records; thread != NULL; thread = thread->anchor_next) {
        if (thread->epoch == epoch)
            return thread;
    }
    for (thread = qr_thread_first(epoch); thread != NULL; thread = qr_thread_next(thread)) {
        if (thread->anchor == NULL)
            break;
    }
    if (thread == NULL)
        thread = record_make(epoch);
    if (thread != NULL) {
        thread->anchor = anchor;
        thread->anchor_next = anchor->records;
        anchor->records = thread;
    }
    return thread;
}

QR_COLD struct qr_thread *qr_thread_self_slow(struct qr_epoch *epoch)
{
    struct qr_thread_anchor *anchor;
    struct qr_thread *thread;

    if (process_forked())
        return NULL;
    anchor = anchor_get();
    if (anchor == NULL)
        return NULL;
    urcu_bp_register_thread();
    pthread_mutex_lock(&registry_mutex);
    thread = record_claim(epoch, anchor);
    pthread_mutex_unlock(&registry_mutex);
    if (thread != NULL)
        qr_thread_recent[epoch->serial % QR_THREAD_RECENT_COUNT] = (struct qr_thread_recent){epoch->serial, thread};
    return thread;
}

/* ---- The end of a database -------------------------------------------------------------------------------------- */

void qr_registry_attach(struct qr_epoch *epoch)
{
    pthread_mutex_lock(&registry_mutex);
    epoch->next_in_process = registry_epochs;
    registry_epochs = epoch;
    pthread_mutex_unlock(&registry_mutex);
}

bool qr_epoch_process_guarded(void)
{
    bool found = false;
    pthread_mutex_lock(&registry_mutex);
    for (struct qr_epoch *epoch = registry_epochs; epoch != NULL && !found; epoch = epoch->next_in_process)
        found = qr_epoch_guards_open(epoch) != 0;
    pthread_mutex_unlock(&registry_mutex);
    return found;
}

void qr_registry_detach(struct qr_epoch *epoch)
{
    struct qr_epoch **place = &registry_epochs;
    pthread_mutex_lock(&registry_mutex);
    while (*place != epoch)
        place = &(*place)->next_in_process;
    *place = epoch->next_in_process;
    for (struct qr_thread *thread = qr_thread_first(epoch); thread != NULL; thread = qr_thread_next(thread)) {
        if (thread->anchor == NULL)
            continue;
        struct qr_thread **link = &thread->anchor->records;
        while (*link != thread)
            link = &(*link)->anchor_next;
        *link = thread->anchor_next;
        thread->anchor = NULL;
    }
    pthread_mutex_unlock(&registry_mutex);
}

/* ---- Walking ---------------------------------------------------------------------------------------------------- */

struct qr_thread *qr_thread_first(struct qr_epoch *epoch)
{
    /* order: epoch.thread_walk sees every record that it finds complete, pairs with epoch.thread_link */
    return atomic_load_explicit(&epoch->threads, memory_order_acquire);
}

struct qr_thread *qr_thread_next(struct qr_thread *thread)
{
    return thread->next;
}
