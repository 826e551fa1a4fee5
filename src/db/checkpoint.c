/*
 * checkpoint.c: see checkpoint.h for the steps and the argument.
 *
 * Layer 6.
 */
#include "db/checkpoint.h"

#include <stdlib.h>

#include "base/bugs.h"
#include "base/stop.h"
#include "db/blobs.h"
#include "db/db.h"
#include "db/flush.h"

#define ROUNDS 3u
#define QUIET_NS 1000000u /* how long structure changes are postponed while others come to their end */
#define TRIES 200u
#define HOT_TRIES 16u
#define LOG_CAP_LEAST ((uint64_t)64 << 20)
#define LOG_CAP_MOST ((uint64_t)1536 << 20)
#define LOG_CAP_LESS ((uint64_t)128 << 20)
#define FAILED_PAUSE_NS 1000000000u /* after a failure, until one is tried again without being asked for */
#define FAILED_PAUSE_MOST 4u /* the pause doubles with each failure, so many times */
#define NO_ROOM_PAUSE_NS 100000000u /* between two because space is missing */
#define BLOB_CAP_LEAST ((uint64_t)256 << 20)
#define INTERVAL_LEAST_BYTES 65536u /* for less, no checkpoint is made because time has gone by */

/* ---- Sets of pages ---------------------------------------------------------------------------------------------- */

struct pids {
    uint64_t *ids;
    uint64_t count, capacity;
};

static int add_pid(struct pids *pids, uint64_t pid)
{
    uint64_t *larger = qr_grow(pids->ids, pids->count, &pids->capacity, sizeof(*larger));
    if (larger == NULL) return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for a checkpoint");
    pids->ids = larger;
    pids->ids[pids->count++] = pid;
    return 0;
}

/* Takes S; what cannot be listed is put back. */
static int take_changes(struct quire *db, struct pids *pids)
{
    uint64_t end = qr_map_end(db->map);
    int result = 0;
    for (uint64_t first = 0; first <= end; first += 64) {
        uint64_t bits = qr_map_take_changes(db->map, first);
        for (; bits != 0; bits &= bits - 1) {
            uint64_t pid = first + (uint64_t)__builtin_ctzll(bits);
            if (result == 0) result = add_pid(pids, pid);
            if (result != 0) qr_map_note_change(db->map, pid);
        }
    }
    return result;
}

static void give_changes_back(struct quire *db, const struct pids *pids)
{
    for (uint64_t i = 0; i < pids->count; i++) qr_map_note_change(db->map, pids->ids[i]);
}

/* A page and how old what it has to be saved is. */
struct aged {
    uint64_t first_lsn, pid;
};

static int by_age(const void *a, const void *b)
{
    const struct aged *x = a;
    const struct aged *y = b;
    return x->first_lsn < y->first_lsn ? -1 : x->first_lsn > y->first_lsn;
}

/* The oldest LSN of a page that is in no image; 0: all are, or it is no page. */
static uint64_t first_unsaved_lsn(struct quire *db, struct qr_thread *thread, uint64_t pid)
{
    uint32_t tree_id;
    uint64_t first = 0;
    qr_epoch_enter(thread);
    bool found = qr_tree_first_lsn(db->map, pid, &tree_id, &first);
    qr_epoch_exit(thread);
    return found ? first : 0;
}

/* The oldest LSN in no image, over all pages; with *ret_aged: also the list of pages that have such. */
static int scan_pages(struct quire *db, struct qr_thread *thread, uint64_t *bound, struct aged **ret_aged,
                      uint64_t *ret_count)
{
    uint64_t end = qr_map_end(db->map);
    uint64_t capacity = 0;
    struct aged *aged = NULL;
    uint64_t count = 0;
    for (uint64_t pid = QR_PID_NONE + 1; pid < end; pid++) {
        uint64_t first = first_unsaved_lsn(db, thread, pid);
        QR_STOP("checkpoint.scanned");
        if (first == 0) continue;
        *bound = qr_min(*bound, first);
        if (ret_aged == NULL) continue;
        struct aged *larger = qr_grow(aged, count, &capacity, sizeof(*larger));
        if (larger == NULL) {
            qr_free(aged);
            return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for a checkpoint");
        }
        aged = larger;
        aged[count++] = (struct aged){first, pid};
    }
    if (ret_aged != NULL) {
        if (count != 0) qsort(aged, count, sizeof(*aged), by_age);
        *ret_aged = aged;
        *ret_count = count;
    }
    return 0;
}

/* ---- Flushing --------------------------------------------------------------------------------------------------- */

/* S, while work goes on: afterwards it is small. What cannot be flushed now stays in it. */
static int flush_changes(struct quire *db, struct qr_thread *thread, bool *is_short)
{
    unsigned flags = 0;
    int result = 0;
    for (unsigned round = 0; round < ROUNDS && result == 0; round++) {
        struct pids pids = {0};
        result = take_changes(db, &pids);
        give_changes_back(db, &pids); /* an id leaves the set when its image is entered */
        bool small = pids.count < 64;
        if (result == 0) result = qr_db_flush(db, thread, pids.ids, pids.count, flags);
        if (result == QUIRE_ERR_NO_SPACE && flags == 0) {
            *is_short = true;
            flags = QR_STORE_RESERVE;
            result = qr_db_flush(db, thread, pids.ids, pids.count, flags);
        }
        qr_free(pids.ids);
        if (small) break;
    }
    return result;
}

/* Whether what was oldest of a page is still in no image. */
static bool is_behind(struct quire *db, struct qr_thread *thread, const struct aged *aged)
{
    uint64_t first = first_unsaved_lsn(db, thread, aged->pid);
    return first != 0 && first <= aged->first_lsn;
}

/* A page that is written to all the time has been built anew before it was its turn in a group of others, and its image is of no use;
 * and so the next time, while the log that it needs grows. By itself it is written sooner. */
static int flush_hot(struct quire *db, struct qr_thread *thread, const struct aged *aged, uint64_t count,
                     unsigned flags)
{
    int result = 0;
    for (uint64_t i = 0; i < count; i++)
        for (unsigned tries = 0; tries < HOT_TRIES && result == 0 && is_behind(db, thread, &aged[i]); tries++)
            result = qr_db_flush(db, thread, &aged[i].pid, 1, flags);
    return result;
}

/* All pages with something to save from up to an LSN, oldest first. flags: of qr_store_write. */
static int flush_oldest(struct quire *db, struct qr_thread *thread, uint64_t up_to_lsn, unsigned flags)
{
    struct aged *aged = NULL;
    uint64_t count = 0;
    uint64_t bound = UINT64_MAX;
    struct pids pids = {0};
    int result = scan_pages(db, thread, &bound, &aged, &count);
    for (uint64_t i = 0; i < count && aged[i].first_lsn <= up_to_lsn && result == 0; i++)
        result = add_pid(&pids, aged[i].pid);
    if (result == 0) result = qr_db_flush(db, thread, pids.ids, pids.count, flags);
    /* As of an LSN such pages are captured (CHECK-8), and one that has newer records, too, stays behind however often it is written. */
    if (result == 0 && db->checkpointer.as_of_lsn == 0) result = flush_hot(db, thread, aged, pids.count, flags);
    qr_free(pids.ids);
    qr_free(aged);
    return result;
}

/* ---- The capture ------------------------------------------------------------------------------------------------ */

struct capture {
    struct pids pids, free_ids;
    struct qr_captured *pages;
    uint64_t page_count, next_pid;
    struct pids gone;  /* of S: what is no page any more */
    struct pids later; /* of S: pages of trees that are not in this checkpoint */
    struct qr_store_capture *store;
};

static void capture_done(struct capture *c)
{
    qr_free(c->pids.ids);
    qr_free(c->free_ids.ids);
    qr_free(c->gone.ids);
    qr_free(c->later.ids);
    qr_free(c->pages);
    *c = (struct capture){0};
}

/* The next checkpoint has what was captured. */
static void abandon(struct quire *db, struct capture *c)
{
    if (c->store != NULL) qr_store_abandoned(db->checkpointer.store, c->store);
    c->store = NULL;
    give_changes_back(db, &c->pids);
}

/* Waits until no thread changes structure. The flag is set. */
static bool wait_quiet(struct quire *db)
{
    uint64_t end_ns = qr_clock_ns() + QUIET_NS;
    while (!qr_structure_is_quiet(db->epoch) && !QR_BUG(checkpoint_restless)) {
        if (qr_clock_ns() > end_ns) return false;
        qr_thread_yield();
    }
    return true;
}

/* CHECK-4. What is later is in the order of ids, as S is. */
static int list_free(struct quire *db, struct capture *c)
{
    int result = 0;
    uint64_t later = 0;
    c->next_pid = qr_map_end(db->map);
    for (uint64_t pid = QR_PID_NONE + 1; pid < c->next_pid && result == 0; pid++) {
        enum qr_word_tag tag = qr_word_tag(qr_map_load(db->map, pid));
        bool is_later = later < c->later.count && c->later.ids[later] == pid;
        if (is_later) later++;
        if (is_later || tag == QR_WORD_FREE || tag == QR_WORD_FORWARD || tag == QR_WORD_PRIVATE)
            result = add_pid(&c->free_ids, pid);
    }
    return result;
}

/* Loads the words of S. QR_RETRY: one is in the middle of a change that somebody has left. */
static int load_words(struct quire *db, struct capture *c)
{
    const struct qr_checkpointer *cp = &db->checkpointer;
    c->pages = qr_malloc((c->pids.count + 1) * sizeof(*c->pages));
    if (c->pages == NULL) return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for a checkpoint");
    for (uint64_t i = 0; i < c->pids.count; i++) {
        uint64_t pid = c->pids.ids[i];
        qr_word word = qr_map_load_latest(db->map, pid);
        int result = 0;
        switch (qr_word_tag(word)) {
        case QR_WORD_HEAD:
            if (cp->as_of_lsn != 0 && ((const struct qr_page *)qr_word_block(word))->tree_id >= cp->as_of_trees) {
                result = add_pid(&c->later, pid);
                if (result == 0) result = add_pid(&c->gone, pid);
                break;
            }
            c->pages[c->page_count++] = (struct qr_captured){pid, word};
            break;
        case QR_WORD_SEALED:
            return QR_RETRY;
        case QR_WORD_DISK:
        case QR_WORD_UNLOADED: /* its image has all */
            break;
        case QR_WORD_FREE:
        case QR_WORD_PRIVATE:
        case QR_WORD_FORWARD:
        default:
            result = add_pid(&c->gone, pid);
            break;
        }
        if (result != 0) return result;
    }
    return 0;
}

/* With structure changes postponed and quiet. 0; QR_RETRY; a failure. On other than 0 S is as it was. */
static int capture_quiet(struct quire *db, struct capture *c)
{
    int result = take_changes(db, &c->pids);
    if (result == 0) result = load_words(db, c);
    if (result == 0) result = list_free(db, c);
    if (result == 0) result = qr_store_capture(db->checkpointer.store, &c->store);
    QR_STOP("checkpoint.captured");
    /* CHECK-1: who helped or began without the flag has its slot open, or has closed it and noted what it changed. */
    bool restless = !qr_structure_is_quiet(db->epoch) || qr_map_has_changes(db->map);
    if (result == 0 && restless && !QR_BUG(checkpoint_restless)) result = QR_RETRY;
    if (result == 0 && qr_structure_has_left(&db->checkpointer.structure)) result = QR_RETRY;
    if (result != 0) abandon(db, c);
    return result;
}

/* One try at a page: what others have left half done there. */
static int finish_once(struct quire *db, struct qr_thread *thread, uint64_t pid)
{
    uint32_t count;
    struct quire_tree **handles = qr_db_handles(db, &count);
    int result = qr_epoch_prepare(thread);
    if (result != 0) return result;
    qr_epoch_enter(thread);
    qr_word word = qr_map_load(db->map, pid);
    enum qr_word_tag tag = qr_word_tag(word);
    uint32_t tree_id = tag == QR_WORD_SEALED || tag == QR_WORD_HEAD
                           ? ((const struct qr_page *)qr_word_block(word))->tree_id
                           : count;
    if (tree_id < count) {
        struct qr_op op;
        qr_op_init(&op, &handles[tree_id]->tree, thread);
        while ((result = qr_tree_finish(&op, pid)) == QR_FETCH && (result = qr_db_fetch(db, &op)) == 0)
            ;
        qr_op_done(&op);
    }
    qr_epoch_exit(thread);
    return result;
}

/* Merges that were left half done: sealed pages of S. */
static void finish_sealed(struct quire *db, struct qr_thread *thread, const struct pids *pids)
{
    for (uint64_t i = 0; i < pids->count; i++) {
        if (qr_word_tag(qr_map_load(db->map, pids->ids[i])) == QR_WORD_SEALED) (void)finish_once(db, thread, pids->ids[i]);
    }
}

/* CHECK-6. All pages in memory, if something was left: what is not in memory was in order when it left, or when it was captured. */
static int finish_left(struct quire *db, struct qr_thread *thread)
{
    struct qr_structure *structure = &db->checkpointer.structure;
    int result = 0;
    if (!qr_structure_take_left(structure)) return 0;
    for (uint64_t pid = QR_PID_NONE + 1; pid < qr_map_end(db->map) && result == 0; pid++) {
        struct qr_memory_wait wait = {.use_reserve = true};
        do {
            result = finish_once(db, thread, pid);
        } while (result == QUIRE_ERR_NO_MEMORY &&
                 (qr_db_wait_memory(db, thread, &wait) == 0 || qr_db_lend_memory(db)));
    }
    qr_db_return_memory(db);
    if (result == 0) return 0;
    qr_structure_note_left(structure);
    return result == QUIRE_ERR_NO_MEMORY ? qr_fail(result, 0, "the memory limit leaves no room for a checkpoint") : result;
}

static void note_postponed(struct qr_checkpointer *cp, uint64_t ns)
{
    /* relaxed: statistics, written under the mutex */
    if (ns > atomic_load_explicit(&cp->longest_postponed_ns, memory_order_relaxed)) {
        /* relaxed: as above */
        atomic_store_explicit(&cp->longest_postponed_ns, ns, memory_order_relaxed);
    }
}

/* Captures, and makes the images of what was captured. The section is left only after that. */
static int capture(struct quire *db, struct qr_thread *thread, struct capture *c, struct qr_db_images **ret_images)
{
    struct qr_checkpointer *cp = &db->checkpointer;
    int result = QR_RETRY;
    int finished = finish_left(db, thread);
    if (finished != 0) return finished;
    for (unsigned i = 0; i < TRIES && result == QR_RETRY; i++) {
        capture_done(c);
        qr_epoch_enter(thread);
        uint64_t start_ns = qr_clock_ns();
        qr_structure_postpone(&cp->structure, true);
        QR_STOP("checkpoint.postponed");
        result = wait_quiet(db) ? capture_quiet(db, c) : QR_RETRY;
        qr_structure_postpone(&cp->structure, false);
        note_postponed(cp, qr_clock_ns() - start_ns);
        if (result == 0) {
            for (uint64_t l = 0; l < c->later.count; l++) qr_map_note_change(db->map, c->later.ids[l]);
            result = qr_db_flush_captured(db, thread, c->pages, c->page_count, ret_images);
            if (result == 0 && !QR_BUG(blob_dead_beyond)) result = qr_blob_capture(c->store, cp->as_of_lsn != 0);
            if (result != 0) abandon(db, c);
        }
        qr_epoch_exit(thread);
        if (result == QR_RETRY) {
            /* relaxed: statistics */
            atomic_fetch_add_explicit(&cp->retries, 1, memory_order_relaxed);
            finish_sealed(db, thread, &c->pids);
            finished = finish_left(db, thread);
            if (finished != 0) return finished;
            qr_sleep_us(i < 10 ? 100 : 1000);
        }
    }
    return result == QR_RETRY ? qr_fail(QUIRE_ERR_BUSY, 0, "structure changes did not come to an end") : result;
}

/* ---- The record ------------------------------------------------------------------------------------------------- */

/* The record is in force, for whoever rewrites the manifest, when it is written. *ret_unknown: after a failure, whether it may be
 * there all the same (MANIFEST-5); no space or memory for a new manifest leaves the old one in force. */
static int append_record(struct quire *db, const struct qr_manifest_checkpoint *record, bool *ret_unknown)
{
    uint8_t payload[QR_MANIFEST_CHECKPOINT_BYTES];
    struct qr_manifest_record stored = qr_manifest_checkpoint_encode(record, payload);
    pthread_mutex_lock(&db->files->manifest_mutex);
    int result = qr_manifest_append(db->files->manifest, &stored, 1);
    if (result == QR_MANIFEST_FULL) result = qr_db_rewrite_manifest(db, NULL, record);
    if (result == 0) db->checkpointer.record = *record;
    *ret_unknown = qr_manifest_has_failed(db->files->manifest);
    pthread_mutex_unlock(&db->files->manifest_mutex);
    return result;
}

/* The log up to the newest LSN in any image; without a log there is none to wait for. */
static int sync_log(struct quire *db, uint64_t newest, uint64_t as_of_lsn, struct qr_manifest_checkpoint *record)
{
    int result = 0;
    if (as_of_lsn == 0) {
        result = qr_log_wait(&db->log, newest, QR_LOG_DURABLE);
        record->durable_lsn = qr_log_durable_end(&db->log);
    } else {
        record->durable_lsn = as_of_lsn + 1;
    }
    return result;
}

/* If it was a sync that failed. It may have been to cover blobs that frames name which were not synced yet: the log is marked, so
 * that the next opening does not take them from the page cache (R12). */
static void fail_log(struct quire *db)
{
    int failed_errno = qr_store_failed_errno(db->checkpointer.store);
    if (db->log.files != NULL && failed_errno != 0 && !QR_BUG(blob_mark_forgotten)) qr_log_fail(db->log.files, -failed_errno);
}

/* The images of the capture, the mapping, and the record that makes them count. as_of_lsn: C, or 0. blob_bytes: written when it
 * began. */
static int make_durable(struct quire *db, struct capture *c, struct qr_db_images *images, uint64_t replay_from,
                        uint64_t as_of_lsn, uint64_t blob_bytes)
{
    struct qr_checkpointer *cp = &db->checkpointer;
    /* CHECK-3: no image that was entered so far has a newer LSN, nor has what hid the blobs that were captured as dead (LIFE-1) */
    uint64_t newest = qr_log_tail(&db->log) - 1;
    struct qr_manifest_checkpoint record = {
        .number = cp->record.number + 1,
        .replay_from = replay_from,
        .as_of_lsn = as_of_lsn,
        .next_page_id = c->next_pid,
        .last_lsn = qr_max(qr_db_last_lsn(db), cp->record.last_lsn),
        .catalogue_root_id = db->catalogue->tree.root,
    };
    uint32_t trees;
    qr_db_handles(db, &trees);
    record.next_tree_id = trees;
    record.tree_count = trees;
    int result = QR_BUG(blob_dead_beyond) ? qr_blob_capture(c->store, false) : 0;
    if (result == 0) result = qr_db_images_write(db, images, c->store, &newest);
    for (uint64_t i = 0; i < c->gone.count && result == 0; i++) qr_store_capture_remove(c->store, c->gone.ids[i]);
    if (result == 0) result = sync_log(db, newest, as_of_lsn, &record);
    if (result == 0) result = qr_store_commit(cp->store, c->store, c->free_ids.ids, c->free_ids.count, &record);
    if (as_of_lsn != 0) record.last_lsn = qr_min(record.last_lsn, as_of_lsn); /* the LSN of an image may be that of a write it lacks */
    if (result == QUIRE_ERR_IO) fail_log(db);
    if (result != 0) {
        abandon(db, c);
        return result;
    }
    QR_STOP("checkpoint.committed");
    bool unknown;
    result = append_record(db, &record, &unknown);
    if (result != 0 && !unknown) {
        abandon(db, c);
        return result;
    }
    if (result != 0) {
        qr_store_unknown(cp->store, c->store);
        c->store = NULL;
        cp->unknown = true;
        return result;
    }
    QR_STOP("checkpoint.recorded");
    qr_store_committed(cp->store, c->store);
    c->store = NULL;
    /* relaxed: a threshold */
    atomic_store_explicit(&cp->last_ns, qr_clock_ns(), memory_order_relaxed);
    /* relaxed: a threshold */
    atomic_store_explicit(&cp->blob_mark, blob_bytes, memory_order_relaxed);
    /* relaxed: a threshold */
    atomic_store_explicit(&cp->replay_from, replay_from, memory_order_relaxed);
    /* relaxed: what is told of it is durable, whatever else is seen */
    atomic_store_explicit(&cp->durable_end, record.durable_lsn, memory_order_relaxed);
    /* relaxed: statistics */
    atomic_fetch_add_explicit(&cp->count, 1, memory_order_relaxed);
    return 0;
}

/* Without a log: chooses C, writes what there was to save then, and captures. */
static int capture_as_of(struct quire *db, struct qr_thread *thread, struct capture *c, struct qr_db_images **ret_images,
                         uint64_t *ret_as_of_lsn, bool *is_short)
{
    int result = qr_db_as_of_begin(db);
    if (result != 0) return result;
    qr_blob_mark(db->checkpointer.store);
    QR_STOP("checkpoint.as_of");
    *ret_as_of_lsn = db->checkpointer.as_of_lsn;
    result = flush_oldest(db, thread, *ret_as_of_lsn, 0);
    if (result == QUIRE_ERR_NO_SPACE) {
        *is_short = true;
        result = flush_oldest(db, thread, *ret_as_of_lsn, QR_STORE_RESERVE);
    }
    if (result == 0) result = flush_changes(db, thread, is_short);
    if (result == 0) result = capture(db, thread, c, ret_images);
    qr_db_as_of_end(db);
    QR_STOP("checkpoint.as_of_over");
    return result;
}

/*
 * With a log: pages as they come, and then replay_from. The reserve is not for pages whose frames are in the log: with
 * `left_out` they are left out if there is no space, and that is answered. What is not needed any more after such a checkpoint
 * makes space for another one.
 */
static int capture_logged(struct quire *db, struct qr_thread *thread, bool full, struct capture *c,
                          struct qr_db_images **ret_images, uint64_t *ret_replay_from, bool *is_short, bool *left_out)
{
    uint64_t cap = qr_db_log_cap(db);
    uint64_t all_from = atomic_load_explicit(&db->checkpointer.replay_from, memory_order_relaxed); /* relaxed: own */
    uint64_t log_bytes = qr_log_tail(&db->log) - all_from;
    int result = flush_changes(db, thread, is_short);
    if (result == 0 && (full || log_bytes > cap / 2)) {
        result = flush_oldest(db, thread, UINT64_MAX, 0);
        if (result == QUIRE_ERR_NO_SPACE) *is_short = true;
        if (result == QUIRE_ERR_NO_SPACE && left_out != NULL) {
            *left_out = true;
            result = 0;
        }
    }
    if (result != 0) return result;
    /* R1, in this order. */
    *ret_replay_from = QR_BUG(checkpoint_slots) ? qr_log_tail(&db->log) : qr_log_open_bound(&db->log, db->epoch);
    if (QR_BUG(checkpoint_order)) *ret_replay_from = UINT64_MAX;
    QR_STOP("checkpoint.bound");
    if (!QR_BUG(checkpoint_pages)) result = scan_pages(db, thread, ret_replay_from, NULL, NULL);
    if (QR_BUG(checkpoint_order)) *ret_replay_from = qr_min(*ret_replay_from, qr_log_open_bound(&db->log, db->epoch));
    *ret_replay_from = qr_max(*ret_replay_from, db->checkpointer.record.replay_from); /* CHECK-7 */
    return result == 0 ? capture(db, thread, c, ret_images) : result;
}

static int run_once(struct quire *db, struct qr_thread *thread, bool full, bool *is_short, bool *left_out)
{
    struct capture c = {0};
    struct qr_db_images *images = NULL;
    uint64_t as_of_lsn = 0;
    uint64_t replay_from = 0;
    uint64_t blob_bytes = qr_blob_written_bytes(db->checkpointer.store);
    int result = qr_db_is_unlogged(db) ? capture_as_of(db, thread, &c, &images, &as_of_lsn, is_short)
                                       : capture_logged(db, thread, full, &c, &images, &replay_from, is_short, left_out);
    if (as_of_lsn != 0) replay_from = as_of_lsn + 1; /* no log from before is read again */
    if (result == 0 && as_of_lsn == 0 && QR_BUG(log_released_early)) (void)qr_log_release(&db->log, replay_from);
    if (result == 0) result = make_durable(db, &c, images, replay_from, as_of_lsn, blob_bytes);
    qr_db_images_free(images);
    capture_done(&c);
    if (result == 0) {
        int released = as_of_lsn == 0 ? qr_log_release(&db->log, replay_from) : 0;
        qr_db_release_old_log(db, replay_from);
        qr_db_clear_leftovers(db);
        if (released != 0) result = released;
    }
    return result;
}

int qr_db_checkpoint_refusal(const struct quire *db)
{
    /* relaxed: only the code itself */
    return atomic_load_explicit(&db->checkpointer.refusal, memory_order_relaxed);
}

/* The reserve is for what there is, not for new data: these wait until a checkpoint could do without it, and it is complete. */
static void note_refusal(struct quire *db, int result, bool is_short)
{
    int before = qr_db_checkpoint_refusal(db);
    int refusal = before;
    struct qr_store_stats stats;
    qr_store_stats(db->checkpointer.store, &stats);
    if (stats.reserve_missing) is_short = true;
    if (is_short || result == QUIRE_ERR_NO_SPACE)
        refusal = QUIRE_ERR_NO_SPACE;
    else if (result == QUIRE_ERR_IO && qr_db_is_unlogged(db))
        refusal = QUIRE_ERR_IO;
    else if (result == 0)
        refusal = 0;
    /* relaxed: only the code itself */
    atomic_store_explicit(&db->checkpointer.refusal, refusal, memory_order_relaxed);
    qr_log_set_short(&db->log, QR_LOG_PAGES_SHORT, refusal == QUIRE_ERR_NO_SPACE);
    if (refusal == QUIRE_ERR_NO_SPACE || before == QUIRE_ERR_NO_SPACE) qr_db_note_room(db, QR_ROOM_PAGES, refusal);
    if (result == 0 && refusal == 0 && qr_db_has_no_room(db)) qr_db_note_room(db, QR_ROOM_BLOBS, 0); /* the next one finds out */
}

static int run(struct quire *db, struct qr_thread *thread, bool full)
{
    bool is_short = false;
    bool left_out = false;
    qr_db_clear_leftovers(db); /* it may need the space */
    int result = run_once(db, thread, full, &is_short, &left_out);
    if (result == 0 && left_out) result = run_once(db, thread, full, &is_short, NULL);
    bool more = (is_short || result == QUIRE_ERR_NO_SPACE) && qr_db_give_up_spares(db, db->options.stall_timeout_ms);
    if (more && result == QUIRE_ERR_NO_SPACE) result = run_once(db, thread, full, &is_short, &left_out);
    note_refusal(db, result, is_short);
    return result;
}

/* Keeps account of one that has ended; under the mutex. began_at: where the log's tail was. */
static struct qr_checkpoint_end note_end(struct quire *db, int result, uint64_t began_at)
{
    struct qr_checkpointer *cp = &db->checkpointer;
    struct qr_store_stats store;
    qr_store_stats(cp->store, &store);
    struct qr_checkpoint_end end = {.written_bytes = store.written_bytes - cp->written_bytes, .replay_from = cp->record.replay_from};
    cp->written_bytes = store.written_bytes;
    /* relaxed: written under the mutex */
    uint64_t failed = atomic_load_explicit(&cp->failed_in_a_row, memory_order_relaxed);
    /* relaxed: a threshold */
    atomic_store_explicit(&cp->failed_in_a_row, result != 0 ? failed + 1 : 0, memory_order_relaxed);
    if (result != 0) {
        end.repeated = failed != 0;
        /* relaxed: statistics */
        atomic_fetch_add_explicit(&cp->failures, 1, memory_order_relaxed);
    }
    /* relaxed: thresholds */
    atomic_store_explicit(&cp->failed_ns, result != 0 ? qr_clock_ns() : 0, memory_order_relaxed);
    /* relaxed: as above */
    atomic_store_explicit(&cp->began_at, began_at, memory_order_relaxed);
    bool found_none = result == QUIRE_ERR_NO_SPACE || (result == 0 && store.reserve_missing);
    /* relaxed: as above. What another failure leaves says nothing of the space that is needed. */
    if (found_none) atomic_store_explicit(&cp->room_bytes, qr_db_room_bytes(db), memory_order_relaxed);
    /* relaxed: as above; raised by who has the mutex */
    uint64_t flushed = atomic_load_explicit(&cp->pages_flushed, memory_order_relaxed);
    /* relaxed: as above */
    atomic_store_explicit(&cp->came_further, flushed != cp->flushed, memory_order_relaxed);
    cp->flushed = flushed;
    return end;
}

int qr_db_checkpoint(struct quire *db, struct qr_thread *thread, bool full)
{
    struct qr_checkpointer *cp = &db->checkpointer;
    int error = qr_log_failure(&db->log);
    if (error != 0) return qr_fail(QUIRE_ERR_IO, -error, "the log has failed: no checkpoint is made");
    pthread_mutex_lock(&cp->mutex);
    /* relaxed: who asks from here on wants the next one */
    bool asked = atomic_exchange_explicit(&cp->asked, 0, memory_order_relaxed) != 0;
    uint64_t began_at = qr_log_tail(&db->log);
    int result = cp->unknown ? qr_fail(QUIRE_ERR_IO, 0, "the manifest has failed: no checkpoint until the store is opened again")
                             : run(db, thread, full);
    /* relaxed: as above */
    if (result != 0 && asked) atomic_store_explicit(&cp->asked, 1, memory_order_relaxed);
    struct qr_checkpoint_end end = note_end(db, result, began_at);
    pthread_mutex_unlock(&cp->mutex);
    if (!end.repeated) qr_db_tell_checkpoint(db, result, &end);
    qr_db_tell(db);
    return result;
}

static uint64_t count_of(const _Atomic uint64_t *count)
{
    return atomic_load_explicit(count, memory_order_relaxed); /* relaxed: statistics */
}

void qr_db_checkpoint_counts(struct quire *db, struct qr_checkpoint_counts *ret_counts)
{
    const struct qr_checkpointer *cp = &db->checkpointer;
    *ret_counts = (struct qr_checkpoint_counts){
        .count = count_of(&cp->count),
        .failures = count_of(&cp->failures),
        .pages_flushed = count_of(&cp->pages_flushed),
        .retries = count_of(&cp->retries),
        .longest_postponed_ns = count_of(&cp->longest_postponed_ns),
        .age_ns = qr_clock_ns() - count_of(&cp->last_ns),
    };
}

/* ---- When ------------------------------------------------------------------------------------------------------- */

uint64_t qr_db_log_cap(struct quire *db)
{
    uint64_t most = QR_LOG_RING / 2 * db->options.log_segment_bytes; /* of segments there are not more than a ring holds */
    if (db->options.log_cap_bytes != 0) return qr_min(db->options.log_cap_bytes, most);
    uint64_t data = qr_arena_total_bytes(db->arena);
    uint64_t cap = qr_max(data / 2, data - qr_min(data, LOG_CAP_LESS));
    return qr_min(qr_min(qr_max(cap, LOG_CAP_LEAST), LOG_CAP_MOST), most);
}

/* While space is missing: whether another one can bring some back, since something was written, or there is space that it did not find.
 * failed_ns: when the last one failed; 0: it was complete but for the reserve. After failures one is made now and then whatever there is
 * to see of space: a quota says nothing before it is asked. */
static bool may_help(struct quire *db, uint64_t now, uint64_t failed_ns)
{
    struct qr_checkpointer *cp = &db->checkpointer;
    /* relaxed: a threshold */
    if (qr_log_tail(&db->log) != atomic_load_explicit(&cp->began_at, memory_order_relaxed)) return true;
    /* relaxed: as above */
    if (now - atomic_load_explicit(&cp->looked_ns, memory_order_relaxed) < FAILED_PAUSE_NS) return false;
    /* relaxed: as above */
    atomic_store_explicit(&cp->looked_ns, now, memory_order_relaxed);
    bool whole = qr_store_regain(cp->store);
    if (failed_ns == 0) return whole;
    /* relaxed: as above */
    uint64_t doublings = qr_min(atomic_load_explicit(&cp->failed_in_a_row, memory_order_relaxed), FAILED_PAUSE_MOST);
    if (now - failed_ns >= (uint64_t)FAILED_PAUSE_NS << doublings) return true;
    if (atomic_load_explicit(&cp->came_further, memory_order_relaxed) != 0) return true; /* relaxed: as above; it goes on there */
    uint64_t room = qr_db_room_bytes(db);
    return room == UINT64_MAX || room > atomic_load_explicit(&cp->room_bytes, memory_order_relaxed); /* relaxed: as above */
}

bool qr_db_checkpoint_is_due(struct quire *db)
{
    struct qr_checkpointer *cp = &db->checkpointer;
    bool unlogged = qr_db_is_unlogged(db);
    if ((db->log.files == NULL && !unlogged) || qr_log_failure(&db->log) != 0) return false;
    uint64_t now = qr_clock_ns();
    /* relaxed: a threshold */
    uint64_t failed_ns = atomic_load_explicit(&cp->failed_ns, memory_order_relaxed);
    if (failed_ns != 0 && now - failed_ns < FAILED_PAUSE_NS) return false;
    /* relaxed: only the flag itself, which whoever makes one takes */
    if (atomic_load_explicit(&cp->asked, memory_order_relaxed) != 0) return true;
    bool refuses = qr_db_checkpoint_refusal(db) == QUIRE_ERR_NO_SPACE;
    if (failed_ns != 0 && refuses) return may_help(db, now, failed_ns);
    /* relaxed: a threshold */
    uint64_t last_ns = atomic_load_explicit(&cp->last_ns, memory_order_relaxed);
    uint64_t tail = qr_log_tail(&db->log);
    /* relaxed: a threshold */
    uint64_t from = atomic_load_explicit(&cp->replay_from, memory_order_relaxed);
    if (tail - from > qr_db_log_cap(db)) return true;
    if (!unlogged && now - last_ns >= NO_ROOM_PAUSE_NS && qr_db_space_is_little(db)) return true;
    /* relaxed: only the number itself */
    if (atomic_load_explicit(&cp->waiting, memory_order_relaxed) != 0 && qr_db_space_is_short(db)) return true;
    if (tail > from && now - last_ns >= NO_ROOM_PAUSE_NS && qr_db_has_no_room(db)) return true; /* what it releases is used again */
    if (refuses && now - last_ns >= FAILED_PAUSE_NS && may_help(db, now, 0)) return true;
    /* relaxed: a threshold. After power loss recovery reads the blobs that were written since. */
    uint64_t blobs = qr_blob_written_bytes(cp->store) - atomic_load_explicit(&cp->blob_mark, memory_order_relaxed);
    if (blobs > (unlogged ? qr_db_log_cap(db) : qr_max(qr_db_log_cap(db), BLOB_CAP_LEAST))) return true;
    uint32_t interval = db->options.checkpoint_interval_ms;
    uint64_t least = unlogged ? from : qr_max(from, qr_log_first_lsn(&db->log)) + INTERVAL_LEAST_BYTES;
    bool written = blobs + tail > least;
    return interval != QUIRE_NO_PERIOD && written && now - last_ns >= interval * 1000000ull;
}

static void *run_checkpoints(void *argument)
{
    struct quire *db = argument;
    struct qr_checkpointer *cp = &db->checkpointer;
    qr_db_clear_leftovers(db); /* to the end: else stores that are opened for moments would gather them */
    for (;;) {
        uint32_t seen = qr_event_count(&cp->wake);
        /* order: db.stop.seen pairs with db.stop.set: only the flag itself */
        if (atomic_load_explicit(&db->stopping, memory_order_acquire) != 0) return NULL;
        struct qr_thread *thread = qr_thread_self(db->epoch);
        if (thread != NULL && qr_db_checkpoint_is_due(db)) qr_db_checkpoint(db, thread, true); /* else it stays due */
        qr_event_wait(&cp->wake, seen, 20000);
    }
}

int qr_db_checkpoint_thread_start(struct quire *db)
{
    if (db->files == NULL || db->files->read_only || db->options.background_threads == QUIRE_NO_THREADS) return 0;
    db->checkpointer.thread_runs = true; /* it asks, too */
    if (qr_thread_start(&db->checkpointer.thread, "quire-check", run_checkpoints, db) == 0) return 0;
    db->checkpointer.thread_runs = false;
    return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no thread for checkpoints");
}

void qr_db_checkpoint_thread_stop(struct quire *db)
{
    if (!db->checkpointer.thread_runs) return;
    qr_event_signal(&db->checkpointer.wake);
    pthread_join(db->checkpointer.thread, NULL);
    db->checkpointer.thread_runs = false;
}

/* ---- Life ------------------------------------------------------------------------------------------------------- */

int qr_db_checkpointer_open(struct quire *db)
{
    struct qr_checkpointer *cp = &db->checkpointer;
    cp->first_segment_bytes = qr_db_first_segment_bytes(db);
    struct qr_store_options options = {.first_segment_bytes = cp->first_segment_bytes, .random = qr_db_random};
    memcpy(options.store_id, qr_manifest_header(db->files->manifest)->store_id, sizeof(options.store_id));
    pthread_mutex_init(&cp->mutex, NULL);
    atomic_init(&cp->last_ns, qr_clock_ns());
    int result = qr_map_keep_changes(db->map);
    if (result != 0) return qr_fail(result, 0, "no memory for the set of changed pages");
    db->env.structure = &cp->structure;
    db->source = (struct qr_page_source){.context = db, .read = qr_db_read_page};
    return qr_store_open(db->files->dir, &options, cp->record.number == 0 ? NULL : &cp->record, db->files->read_only,
                         &cp->store);
}

void qr_db_checkpointer_close(struct quire *db)
{
    if (db->env.structure == NULL) return;
    qr_store_close(db->checkpointer.store);
    pthread_mutex_destroy(&db->checkpointer.mutex);
}
