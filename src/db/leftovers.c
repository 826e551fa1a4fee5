/*
 * leftovers.c: files that an opening has found and that nothing needs: segments of an old log, page files that no checkpoint names.
 *
 * Layer 6. RECOVER-5 says when they are removed, and by whom. One file at a time under a mutex; whoever needs the space removes what
 * there is, and waits for those who remove, for as long as it says.
 */
#include "db/files.h"

#include <errno.h>

#include "db/db.h"

#define MUCH_SPACE_BYTES (UINT64_C(1) << 30)
#define MUCH_SPACE_LOGS 8u
#define MOMENT_NS 1000000000u
#define NO_END UINT64_MAX
#define WAIT_US 200u

/* Whether a segment of an older incarnation has no frame at or above `lsn`; or it is one that never was in the log. */
static bool is_dead(const struct qr_db_files *files, const struct qr_log_found *found, uint64_t lsn)
{
    const struct qr_log_header *h = &found->header;
    const uint64_t present = files->incarnations[files->incarnation_count - 1].number;
    if (h->incarnation >= present) return false;
    if (found->blank || found->superseded || h->end <= lsn) return true;
    for (uint32_t k = 0; k + 1 < files->incarnation_count; k++)
        if (files->incarnations[k].number == h->incarnation)
            return files->incarnations[k].end <= qr_max(lsn, h->start + QR_LOG_HEADER_BYTES);
    return true; /* its record was rewritten away: it was not in force */
}

/* Under the mutex. False: it stays. */
static bool remove_segment(struct qr_db_files *files, uint32_t i)
{
    struct qr_log_list *old = &files->old;
    char name[QR_LOG_NAME_BYTES];
    qr_log_file_name(old->found[i].number, name);
    if (!is_dead(files, &old->found[i], files->old_needed_from)) return false;
    int error = files->disk->ops->dir_unlink(files->dir, name);
    if (error != 0 && error != -ENOENT) return false;
    /* relaxed: statistics */
    atomic_fetch_sub_explicit(&files->old_log_bytes, old->found[i].header.end - old->found[i].header.start, memory_order_relaxed);
    memmove(&old->found[i], &old->found[i + 1], (old->count - i - 1) * sizeof(old->found[0]));
    old->count--;
    return true;
}

/* What has been passed over, since it is needed or cannot be removed now. */
struct passed {
    uint32_t segments, page_files;
};

/* Takes the mutex, or answers false at the end. */
static bool lock_until(struct qr_db_files *files, uint64_t end_ns)
{
    if (end_ns == NO_END) return pthread_mutex_lock(&files->leftovers_mutex) == 0;
    while (pthread_mutex_trylock(&files->leftovers_mutex) != 0) {
        if (qr_clock_ns() >= end_ns) return false;
        qr_sleep_us(WAIT_US);
    }
    return true;
}

/* One of them, under the mutex. False: there is none any more but what was passed over. */
static bool clear_one(struct quire *db, struct passed *passed)
{
    struct qr_db_files *files = db->files;
    struct qr_store *store = db->checkpointer.store;
    bool removed = false;
    if (passed->segments < files->old.count) {
        removed = remove_segment(files, passed->segments);
        passed->segments += !removed;
    } else if (passed->page_files < qr_store_leftovers(store)) {
        removed = qr_store_clear_leftover(store, passed->page_files) == 0;
        passed->page_files += !removed;
    } else {
        return false;
    }
    /* relaxed: a hint */
    if (removed) atomic_store_explicit(&files->removed_ns, qr_clock_ns(), memory_order_relaxed);
    return true;
}

static void clear(struct quire *db, uint64_t end_ns)
{
    struct qr_db_files *files = db->files;
    struct passed passed = {0};
    bool more = true;
    while (more) {
        if (!lock_until(files, end_ns)) return;
        more = clear_one(db, &passed);
        pthread_mutex_unlock(&files->leftovers_mutex);
        if (more && end_ns != NO_END && qr_clock_ns() >= end_ns) return;
    }
    /* relaxed: a hint */
    atomic_store_explicit(&files->clears_later, 0, memory_order_relaxed);
}

void qr_db_clear_leftovers(struct quire *db)
{
    clear(db, NO_END);
}

bool qr_db_give_up_leftovers(struct quire *db, uint64_t most_ms)
{
    clear(db, qr_clock_ns() + most_ms * UINT64_C(1000000));
    /* relaxed: a hint */
    uint64_t removed_ns = atomic_load_explicit(&db->files->removed_ns, memory_order_relaxed);
    return removed_ns != 0 && qr_clock_ns() - removed_ns < MOMENT_NS;
}

void qr_db_release_old_log(struct quire *db, uint64_t lsn)
{
    struct qr_db_files *files = db->files;
    pthread_mutex_lock(&files->leftovers_mutex);
    files->old_needed_from = qr_max(files->old_needed_from, lsn);
    pthread_mutex_unlock(&files->leftovers_mutex);
}

uint64_t qr_db_old_log_bytes(const struct quire *db)
{
    return atomic_load_explicit(&db->files->old_log_bytes, memory_order_relaxed); /* relaxed: statistics */
}

bool qr_db_clears_later(const struct quire *db)
{
    return atomic_load_explicit(&db->files->clears_later, memory_order_relaxed) != 0; /* relaxed: a hint */
}

/* Of what they take the log's part is known. */
static bool may_clear_later(const struct quire *db)
{
    uint64_t free_bytes;
    if (db->options.background_threads == QUIRE_NO_THREADS || qr_db_is_unlogged(db)) return false;
    if (db->files->disk->ops->dir_free_bytes(db->files->dir, &free_bytes) != 0) return false;
    return free_bytes >= MUCH_SPACE_BYTES && free_bytes / MUCH_SPACE_LOGS >= qr_db_old_log_bytes(db);
}

void qr_db_leftovers_found(struct quire *db)
{
    if (may_clear_later(db))
        atomic_init(&db->files->clears_later, 1);
    else
        qr_db_clear_leftovers(db);
}
