/*
 * A database's epoch: creation and end, guards, statistics.
 * Layer 1 (epoch). Read epoch.h first; reclaim.c has the protocol.
 *
 * The tag of a guard is read by others while its thread writes it: a word at a time, between two loads of the time
 * since when it is pinned. The writer sets that to 0 first and to the time last, so a reader that sees the same time
 * before and after has the words of one guard (or of two of the same clock tick and thread, which does no harm).
 */
#include "epoch/epoch.h"
#include "epoch/internal.h"

#include <string.h>
#include <time.h>

#include <quire/quire.h>

#include "base/alloc.h"
#include "base/counters.h"

enum { TAG_WORDS = QR_EPOCH_TAG_BYTES / 8 };

/* ---- Creation and end ------------------------------------------------------------------------------------------- */

int qr_epoch_create(struct qr_arena *arena, const struct qr_epoch_ops *ops, void *context, struct qr_epoch **ret_epoch)
{
    struct qr_epoch *epoch;
    int result = qr_registry_start();

    if (result != 0)
        return result;
    epoch = qr_malloc_aligned(QR_CACHE_LINE_BYTES, sizeof(*epoch));
    if (epoch == NULL)
        return QUIRE_ERR_NO_MEMORY;
    *epoch = (struct qr_epoch){
        .serial = qr_registry_serial(), .arena = arena, .ops = ops, .context = context, .held_complete = true};
    qr_registry_attach(epoch);
    *ret_epoch = epoch;
    return 0;
}

void qr_epoch_destroy(struct qr_epoch *epoch)
{
    if (epoch == NULL)
        return;
    qr_registry_detach(epoch);
    if (qr_thread_first(epoch) != NULL)
        qr_reclaim_all(epoch, qr_thread_first(epoch));
    qr_hold_destroy_all(epoch);
    for (struct qr_thread *thread = qr_thread_first(epoch); thread != NULL;) {
        struct qr_thread *next = qr_thread_next(thread);
        qr_free_aligned(thread);
        thread = next;
    }
    qr_free_aligned(epoch);
}

/* ---- Guards ----------------------------------------------------------------------------------------------------- */

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void tag_publish(struct qr_thread *thread, const char *tag)
{
    uint64_t words[TAG_WORDS] = {0};

    if (tag != NULL)
        memcpy(words, tag, strnlen(tag, QR_EPOCH_TAG_BYTES - 1));
    /* relaxed: each word's store below orders it */
    atomic_store_explicit(&thread->pinned_since_ns, 0, memory_order_relaxed);
    for (unsigned i = 0; i < TAG_WORDS; i++) {
        /* order: epoch.tag_word comes after the time was set to 0, pairs with epoch.tag_read */
        atomic_store_explicit(&thread->pin_tag[i], words[i], memory_order_release);
    }
    /* order: epoch.tag_done publishes the words, pairs with epoch.tag_since */
    atomic_store_explicit(&thread->pinned_since_ns, now_ns(), memory_order_release);
}

bool qr_epoch_inside_any(void)
{
    return urcu_bp_read_ongoing() != 0;
}

QR_STATIC_ASSERT(QR_EPOCH_PLACES < 1 << QR_EPOCH_PLACE_BITS && QR_EPOCH_PLACES == 32, "places_used has a bit for each");

static uint64_t ticket_take(struct qr_thread *thread)
{
    uint64_t ticket = ++thread->ticket_serial << QR_EPOCH_PLACE_BITS;

    if (QR_LIKELY(thread->places_used != UINT32_MAX)) {
        unsigned place = (unsigned)__builtin_ctz(~thread->places_used);
        thread->places_used |= 1u << place;
        thread->tickets[place] = ticket | place;
        return ticket | place;
    }
    if (thread->crowd++ == 0)
        thread->crowd_since = thread->ticket_serial;
    return ticket | QR_EPOCH_PLACES;
}

static void ticket_return(struct qr_thread *thread, uint64_t ticket)
{
    unsigned place = ticket & ((1u << QR_EPOCH_PLACE_BITS) - 1);

    if (QR_LIKELY(place < QR_EPOCH_PLACES)) {
        thread->places_used &= ~(1u << place);
        thread->tickets[place] = 0;
    } else {
        thread->crowd--;
    }
}

uint64_t qr_epoch_pin(struct qr_thread *thread, const char *tag)
{
    /* relaxed: only this thread writes it */
    uint32_t pins = atomic_load_explicit(&thread->pins, memory_order_relaxed);

    qr_epoch_enter(thread);
    if (pins == 0)
        tag_publish(thread, tag);
    /* relaxed: statistics */
    atomic_store_explicit(&thread->pins, pins + 1, memory_order_relaxed);
    return ticket_take(thread);
}

void qr_epoch_unpin(struct qr_thread *thread, uint64_t ticket)
{
    /* relaxed: only this thread writes it */
    uint32_t pins = atomic_load_explicit(&thread->pins, memory_order_relaxed);

    QR_ASSERT(pins > 0);
    QR_ASSERT(qr_epoch_pinned(thread, ticket));
    ticket_return(thread, ticket);
    /* relaxed: statistics */
    atomic_store_explicit(&thread->pins, pins - 1, memory_order_relaxed);
    qr_epoch_exit(thread);
}

void qr_epoch_repin(struct qr_thread *thread)
{
    /* relaxed: only this thread writes it */
    uint32_t pins = atomic_load_explicit(&thread->pins, memory_order_relaxed);

    QR_ASSERT(pins > 0);
    qr_epoch_exit(thread);
    qr_epoch_enter(thread);
    if (pins == 1) {
        /* relaxed: statistics; the tag stays */
        atomic_store_explicit(&thread->pinned_since_ns, now_ns(), memory_order_relaxed);
    }
}

/* ---- Statistics ------------------------------------------------------------------------------------------------- */

uint64_t qr_epoch_guards_open(struct qr_epoch *epoch)
{
    uint64_t count = 0;

    for (struct qr_thread *thread = qr_thread_first(epoch); thread != NULL; thread = qr_thread_next(thread)) {
        /* relaxed: statistics */
        count += atomic_load_explicit(&thread->pins, memory_order_relaxed);
    }
    return count;
}

/* Reads the sum of one counter over all records. A record's counters lie in it at the same offset. */
static uint64_t sum_of(struct qr_epoch *epoch, size_t offset)
{
    uint64_t sum = 0;

    for (struct qr_thread *thread = qr_thread_first(epoch); thread != NULL; thread = qr_thread_next(thread))
        sum += qr_counter_read((const _Atomic uint64_t *)(const void *)((const char *)thread + offset));
    return sum;
}

static uint64_t above(uint64_t sum, uint64_t part)
{
    return sum > part ? sum - part : 0;
}

uint64_t qr_epoch_retired_bytes(struct qr_epoch *epoch)
{
    /* What is reclaimed was retired before: read in this order the difference is never too small by much. */
    uint64_t reclaimed_bytes = qr_counter_read(&epoch->reclaimed_bytes);
    return above(sum_of(epoch, offsetof(struct qr_thread, retired_bytes)), reclaimed_bytes);
}

/* A record's guard, if it has one that is older than *since_ns: sets that and the tag. */
static void note_if_older(struct qr_thread *thread, uint64_t *since_ns, char *tag)
{
    uint64_t words[TAG_WORDS];
    /* order: epoch.tag_since comes before the words are read, pairs with epoch.tag_done */
    uint64_t since = atomic_load_explicit(&thread->pinned_since_ns, memory_order_acquire);

    /* relaxed: statistics */
    if (atomic_load_explicit(&thread->pins, memory_order_relaxed) == 0 || since == 0 || since >= *since_ns)
        return;
    for (unsigned i = 0; i < TAG_WORDS; i++) {
        /* order: epoch.tag_read comes before the second look at the time, pairs with epoch.tag_word */
        words[i] = atomic_load_explicit(&thread->pin_tag[i], memory_order_acquire);
    }
    /* relaxed: ordered by the loads of the words */
    if (atomic_load_explicit(&thread->pinned_since_ns, memory_order_relaxed) != since)
        return;
    *since_ns = since;
    memcpy(tag, words, QR_EPOCH_TAG_BYTES);
}

void qr_epoch_stats(struct qr_epoch *epoch, struct qr_epoch_stats *ret_stats)
{
    uint64_t since_ns = UINT64_MAX;
    uint64_t now = now_ns();

    *ret_stats = (struct qr_epoch_stats){0};
    ret_stats->reclaimed_bytes = qr_counter_read(&epoch->reclaimed_bytes);
    ret_stats->reclaimed_count = qr_counter_read(&epoch->reclaimed_count);
    ret_stats->retired_bytes =
        above(sum_of(epoch, offsetof(struct qr_thread, retired_bytes)), ret_stats->reclaimed_bytes);
    ret_stats->retired_count =
        above(sum_of(epoch, offsetof(struct qr_thread, retired_count)), ret_stats->reclaimed_count);
    ret_stats->lost_bytes = sum_of(epoch, offsetof(struct qr_thread, lost_bytes));
    ret_stats->rounds = qr_counter_read(&epoch->rounds);
    ret_stats->guards_open = qr_epoch_guards_open(epoch);
    ret_stats->holds_open = qr_epoch_holds_open(epoch);
    for (struct qr_thread *thread = qr_thread_first(epoch); thread != NULL; thread = qr_thread_next(thread))
        note_if_older(thread, &since_ns, ret_stats->oldest_guard_tag);
    if (since_ns != UINT64_MAX)
        ret_stats->oldest_guard_age_ms = above(now, since_ns) / 1000000;
}
