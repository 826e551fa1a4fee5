/*
 * db.h: what the files of the public API share: the handles, and the ways in and out of a call.
 *
 * Layer 6. open.c makes and ends a database, trees.c its catalogue, read.c and write.c the operations, pages.c the
 * iterator, guard.c guards and snapshots, maintain.c the background, stats.c statistics.
 *
 * DB-1  Every public call first refuses a child of fork, then finds the calling thread's record. The second needs memory
 *       at a thread's first call; what closes or releases something does without.
 * DB-2  A call that waits (for memory, for a page) does so outside epoch sections and with its slot closed.
 */
#ifndef QR_DB_DB_H
#define QR_DB_DB_H

#include <pthread.h>

#include <quire/quire.h>

#include "base/alloc.h"
#include "base/counter_ids.h"
#include "base/counters.h"
#include "base/status.h"
#include "db/checkpoint.h"
#include "db/events.h"
#include "db/files.h"
#include "db/space.h"
#include "os/thread.h"
#include "tree/tree.h"
#include "txn/snapshot.h"

#define QR_MAX_KEY_SIZE 131072u
#define QR_MAX_VALUE_SIZE (256u << 20) /* that pages hold */
#define QR_MAX_FILE_VALUE_SIZE UINT32_MAX
#define QR_DEFAULT_BLOB_THRESHOLD 4096u
#define QR_LEAST_BLOB_THRESHOLD 64u
#define QR_MAX_TREE_NAME_SIZE 255u
#define QR_MAX_OPTIONS_SIZE 4096u /* struct_size of a newer header; beyond it, it was not set */

/* Where pages are read from when they are not in memory. NULL functions: there is no such place. */
struct qr_page_source {
    void *context;
    /* Reads the page at an address into a block of the arena. 0, a negative result, or QR_RETRY: the page is there no
     * more, its word says something else by now. Outside sections. */
    int (*read)(void *context, struct qr_thread *thread, uint64_t pid, uint64_t address, struct qr_page **ret_page);
    void (*destroy)(void *context);
};

/* What statistics count: the threads' counters, and behind them those of the log, of checkpoints and of the page store. */
enum qr_total {
    QR_TOTAL_LOG_SYNCS = QR_COUNTER_COUNT,
    QR_TOTAL_LOG_SEGMENTS_MADE,
    QR_TOTAL_LOG_SEGMENTS_RECYCLED,
    QR_TOTAL_LOG_PROVISION_WAITS,
    QR_TOTAL_CHECKPOINTS,
    QR_TOTAL_CHECKPOINT_FAILURES,
    QR_TOTAL_CHECKPOINT_RETRIES,
    QR_TOTAL_PAGES_FLUSHED,
    QR_TOTAL_STORE_WRITTEN_BYTES,
    QR_TOTAL_STORE_WRITES,
    QR_TOTAL_STORE_READ_BYTES,
    QR_TOTAL_STORE_READS,
    QR_TOTAL_STORE_SEGMENTS_MADE,
    QR_TOTAL_STORE_SEGMENTS_RECYCLED,
    QR_TOTAL_STORE_SEGMENTS_REMOVED,
    QR_TOTAL_STORE_CHECKSUM_FAILURES,
    QR_TOTAL_BLOBS_WRITTEN,
    QR_TOTAL_BLOB_BYTES_WRITTEN,
    QR_TOTAL_BLOBS_READ,
    QR_TOTAL_BLOB_BYTES_READ,
    QR_TOTAL_COUNT,
};

struct quire_tree {
    struct quire *db;
    struct qr_tree tree;
    uint64_t replayed_safe_version; /* what the catalogue says, while the log is replayed */
    char name[QR_MAX_TREE_NAME_SIZE + 1];
};

/* A slice of maintenance after another; under the mutex. */
struct qr_maintain_state {
    pthread_mutex_t mutex;
    uint32_t tree_index;
    struct qr_walk walk;
    uint64_t changes;        /* in this pass over all trees */
    uint64_t pass_mark;      /* what had been written when the pass began */
    uint64_t clean_mark;     /* ... when a pass began that changed nothing; UINT64_MAX: none yet */
    bool in_pass;
};

struct quire {
    struct quire_options options;
    struct qr_arena *arena;
    struct qr_epoch *epoch;
    struct qr_map *map;
    struct qr_log log;
    struct qr_db_files *files; /* NULL: in memory */
    struct qr_snapshot_registry snapshots;
    struct qr_tree_env env;
    struct qr_page_source source;
    struct qr_checkpointer checkpointer; /* with files */

    /* The catalogue is tree 0: name to settings and id. Handles by id; slot i holds tree i. Under the mutex. */
    pthread_mutex_t trees_mutex;
    struct quire_tree *catalogue;
    _Atomic(struct quire_tree **) handles;
    _Atomic uint32_t handle_count;
    uint32_t handle_capacity;

    _Atomic uint32_t snapshots_open, iterators_open;
    _Atomic uint32_t snapshots_done; /* released after something had been written: there may be versions to collect */

    /* Background. */
    pthread_t *threads;
    uint32_t thread_count;
    struct qr_event wake;      /* there is work, or the end */
    struct qr_event reclaimed; /* a round of reclamation has ended */
    _Atomic uint32_t reclaimers;   /* threads in a round, until what they reclaimed is where others find it */
    _Atomic uint32_t round_wanted; /* a writer waits for one: it is due, however little was retired */
    _Atomic uint32_t stopping;
    struct qr_maintain_state maintain;

    struct qr_db_events events;

    pthread_mutex_t stats_mutex;
    uint64_t stats_base[QR_TOTAL_COUNT]; /* taken off by quire_stats_reset */
};

struct quire_snapshot {
    struct quire *db;
    struct qr_snapshot *place;
};

/* ---- In and out of a call --------------------------------------------------------------------------------------- */

/* Records the failure in the detail and the statistics. thread may be NULL. */
QR_COLD QR_PRINTF(3, 4) int qr_db_fail(struct qr_thread *thread, int result, const char *format, ...);

/* The first half of DB-1, all of it for calls that only give something back: those need no memory. */
static inline int qr_db_refuse_child(struct quire *db)
{
    if (QR_LIKELY(!qr_epoch_forked(db->epoch))) return 0;
    return qr_db_fail(NULL, QUIRE_ERR_FORKED, "the handle was opened before fork");
}

/* DB-1. *ret_thread on 0. */
static inline int qr_db_begin(struct quire *db, struct qr_thread **ret_thread)
{
    if (QR_UNLIKELY(db == NULL)) return qr_db_fail(NULL, QUIRE_ERR_INVALID, "database handle is NULL");
    int result = qr_db_refuse_child(db);
    if (QR_UNLIKELY(result != 0)) return result;
    struct qr_thread *thread = qr_thread_self(db->epoch);
    if (QR_UNLIKELY(thread == NULL))
        return qr_db_fail(NULL, QUIRE_ERR_NO_MEMORY, "no memory for the thread's record");
    *ret_thread = thread;
    return 0;
}

static inline int qr_db_begin_tree(struct quire_tree *tree, struct qr_thread **ret_thread)
{
    if (QR_UNLIKELY(tree == NULL)) return qr_db_fail(NULL, QUIRE_ERR_INVALID, "tree handle is NULL");
    return qr_db_begin(tree->db, ret_thread);
}

/* The same for what a lower layer answered: the detail of a file's failure is there already. */
QR_COLD int qr_db_fail_below(struct qr_thread *thread, int result);

/* Counts a call that answered a failure. */
void qr_db_count_failure(struct qr_thread *thread, int result);

/* Checks a key argument. */
static inline int qr_db_check_key(struct qr_thread *thread, const void *key, size_t key_size)
{
    if (QR_UNLIKELY(key_size > QR_MAX_KEY_SIZE))
        return qr_db_fail(thread, QUIRE_ERR_TOO_LARGE, "key of %zu bytes; at most %u", key_size, QR_MAX_KEY_SIZE);
    if (QR_UNLIKELY(key == NULL && key_size != 0))
        return qr_db_fail(thread, QUIRE_ERR_INVALID, "key is NULL, its size is %zu", key_size);
    return 0;
}

#define QR_DB_GUARD_ENDED "the guard has ended: it was unpinned through a copy, or its thread has ended"

/* Checks the snapshot that a tree is to be read at; NULL: none. */
static inline int qr_db_check_snapshot(struct qr_thread *thread, const struct quire_tree *tree,
                                       const struct quire_snapshot *snapshot)
{
    if (snapshot == NULL) return 0;
    if (QR_UNLIKELY(snapshot->db != tree->db))
        return qr_db_fail(thread, QUIRE_ERR_INVALID, "snapshot of another database");
    if (QR_UNLIKELY(tree->tree.settings.caller_versions))
        return qr_db_fail(thread, QUIRE_ERR_UNSUPPORTED, "snapshots do not apply to trees with caller versions");
    return 0;
}

/* Reads the page that the op asked for. Called inside a section, which it leaves and enters again. 0 or a failure. */
int qr_db_fetch(struct quire *db, struct qr_op *op);

/* Looks a key up, fetching what is needed; inside a section. QR_BLOB: see db/blobs.h. */
int qr_db_find(struct quire_tree *tree, struct qr_thread *thread, const struct qr_key *key, uint64_t version,
               struct quire_value *ret_value);

/* Stores a record of the database's own, such as the catalogue's: not counted as a user's. 0 or a failure. What there was to
 * wait for is noted only: the caller has a lock, and calls qr_db_tell without. */
int qr_db_put(struct quire_tree *tree, struct qr_thread *thread, const void *key, size_t key_size, const void *value,
              size_t value_size);

/* Runs a write to its end: pages are fetched, memory and room in the log are waited for, and what there was to wait for is told
 * to the host. What qr_tree_write answers, or why it could not go on. */
int qr_db_run_write(struct quire_tree *tree, struct qr_thread *thread, struct qr_write *write);

/* Does a record of the catalogue again: creates the tree, or notes its safe version. 0, CORRUPT, NO_MEMORY. */
int qr_db_catalogue_replay(struct quire *db, struct qr_thread *thread, struct qr_write *write);

/* The highest LSN of a write that has returned, or that the opening found; 0: none. */
uint64_t qr_db_last_lsn(struct quire *db);

/* All LSNs below survive power loss. */
uint64_t qr_db_durable_end(struct quire *db);

/* The trees of a checkpoint: those that its catalogue lists. 0, or a failure with its detail. */
int qr_db_catalogue_load(struct quire *db, struct qr_thread *thread);

/* What a record of the catalogue says of a tree. False: it does not say what one says. */
struct qr_catalogue_tree {
    uint32_t id;
    char name[QR_MAX_TREE_NAME_SIZE + 1];
    struct quire_tree_options options;
    uint64_t safe_version;
};
bool qr_db_catalogue_describe(struct quire_slice key, struct quire_slice value, struct qr_catalogue_tree *ret_tree);

/* Raises the safe version of a tree with caller versions: with files, in the catalogue first. As qr_db_put. */
int qr_db_catalogue_raise_safe(struct quire_tree *tree, struct qr_thread *thread, uint64_t version);

/* After the last record: the trees take the safe versions that were noted. */
void qr_db_catalogue_replayed(struct quire *db);

/* Replays the log into the trees. */
int qr_db_replay(struct quire *db, struct qr_thread *thread, const struct qr_log_list *list);

static inline uint64_t qr_db_version_of(const struct quire_snapshot *snapshot)
{
    return snapshot == NULL ? UINT64_MAX : snapshot->place->lsn;
}

/* All trees by id, tree 0 being the catalogue; the array stays readable until the database closes. Any thread. */
struct quire_tree **qr_db_handles(struct quire *db, uint32_t *ret_count);

/* How many snapshots or iterators are open: changed by their calls, looked at by close and statistics. */
void qr_db_open_count_add(_Atomic uint32_t *count, uint32_t amount);
uint32_t qr_db_open_count(const _Atomic uint32_t *count);

/* Fills a caller's struct, of another header perhaps: what is smaller is cut, what is larger ends in zero bytes. */
static inline void qr_db_hand_out(void *to, size_t to_size, const void *from, size_t from_size)
{
    memcpy(to, from, qr_min(to_size, from_size));
    if (to_size > from_size) memset((char *)to + from_size, 0, to_size - from_size);
}

/*
 * Takes a caller's options over the defaults in `to`. Every struct of options begins with its struct_size; one from another
 * header may be smaller, or larger if what `to` lacks is zero. from: NULL means the defaults. name: what failures call it.
 */
int qr_db_take_options(struct qr_thread *thread, const char *name, const void *from, void *to, size_t to_size);

/* Fills a caller's struct of options, whose struct_size must be set. */
int qr_db_hand_out_options(struct qr_thread *thread, const void *options, size_t size, void *ret_options);

/* Statistics. */
static inline void qr_db_count(struct quire *db, struct qr_thread *thread, enum qr_counter counter, uint64_t amount)
{
    if (QR_LIKELY(db->options.disable_statistics == 0)) qr_counter_add(&thread->counters[counter], amount);
}

/* Every 64th call of a kind is timed: 0 = not this one. */
static inline uint64_t qr_db_sample_start(struct quire *db, struct qr_thread *thread, enum qr_counter calls)
{
    if (QR_LIKELY((qr_counter_read(&thread->counters[calls]) & 63) != 0)) return 0;
    return db->options.disable_statistics != 0 ? 0 : qr_clock_ns();
}

void qr_db_sample_add(struct qr_thread *thread, uint64_t start_ns, enum qr_counter samples);
static inline void qr_db_sample_end(struct qr_thread *thread, uint64_t start_ns, enum qr_counter samples)
{
    if (QR_UNLIKELY(start_ns != 0)) qr_db_sample_add(thread, start_ns, samples);
}

/* ---- Without a log (unlogged.c) --------------------------------------------------------------------------------- */

/* Whether the database has files and no log, and is written to. */
static inline bool qr_db_is_unlogged(const struct quire *db)
{
    return db->options.disable_log != 0;
}

/* Begins and ends the time in which what a checkpoint without log needs is kept: sets cp->as_of_lsn. Under the mutex of
 * checkpoints, outside slots; waits for slots below. 0, NO_MEMORY. */
int qr_db_as_of_begin(struct quire *db);
void qr_db_as_of_end(struct quire *db);

/* Where a range of LSNs ends that begins at `from`. */
uint64_t qr_db_lsn_range(const struct quire *db, uint64_t from);

/* As qr_log_provision, without a log: reserves more LSNs. */
int qr_db_reserve_lsns(struct quire *db);

/* The last checkpoint of a database that is closed in good order; thread: NULL, there is no memory for one. */
int qr_db_close_unlogged(struct quire *db, struct qr_thread *thread);

/* ---- Memory ----------------------------------------------------------------------------------------------------- */

/* What one write has done so far for want of memory; all zero at first. */
struct qr_memory_wait {
    uint64_t deadline_ns;
    uint64_t reclaimed_bytes; /* since creation, when it last waited */
    bool asked;          /* it has waited for a round */
    bool regrouped;
    bool use_reserve;    /* deletions: not refused as long as memory may be on its way back */
    uint32_t hands;      /* how often it has waited for what other threads had in their hands */
    uint32_t looks;      /* one after the other that found nothing on its way */
    uint64_t seen_bytes; /* reclaimed since creation, at the last look */
    uint32_t seen_round; /* count of db->reclaimed then */
};

/*
 * A write found no memory: waits, outside sections, for retired memory to come back, and for what another thread's round or
 * trim has in its hands. 0: try again; NO_MEMORY: nothing to wait for; STALLED: it did not come in time. One wait for all
 * tries of a write: so they end. With use_reserve, and a limit, NO_MEMORY comes only after a round that began after the
 * failure has ended, several tries have gained nothing, and no other thread has memory in its hands; or after
 * stall_timeout_ms. Under a guard of the thread it waits for trims only.
 */
int qr_db_wait_memory(struct quire *db, struct qr_thread *thread, struct qr_memory_wait *wait);

/* What of the limit is the arena's. It may exceed that by a reserve, for deletions and structure changes; both together are
 * the user's limit. 0: none. */
static inline uint64_t qr_db_arena_limit(const struct quire *db)
{
    uint64_t limit_bytes = db->options.memory_limit_bytes;
    return limit_bytes == 0 ? 0 : limit_bytes - qr_max(limit_bytes / 16, (uint64_t)1 << 20);
}

/*
 * For what must not fail at the limit: the replay of a log (the store that wrote it may have been full, with its blocks lying
 * better), and the separators that a checkpoint posts. Raises the arena's limit by a step; false: by no more than half of
 * it. One thread at a time, under the mutex of checkpoints or before there are others. Maintenance returns what was lent as
 * soon as it is not in use any more.
 */
bool qr_db_lend_memory(struct quire *db);
void qr_db_return_memory(struct quire *db);

/* After a write, outside sections: slows the writer if guards retain much, reclaims if nobody else does. */
void qr_db_after_write(struct quire *db, struct qr_thread *thread);

/* ---- Parts of open and close ------------------------------------------------------------------------------------ */

/* As quire_repair; disk: of both stores, see qr_db_files_open. */
int qr_db_repair(const char *from, const char *to, struct qr_disk *disk, quire_loss_callback *callback, void *context,
                 struct quire_repair_report *ret_report);
/* As quire_open; disk: see qr_db_files_open. */
int qr_db_open(const char *path, struct qr_disk *disk, const struct quire_options *options, struct quire **ret_db);
/* root: of the last checkpoint's catalogue; QR_PID_NONE: there is none, an empty one is made. */
int qr_db_catalogue_open(struct quire *db, struct qr_thread *thread, uint64_t root);
void qr_db_catalogue_close(struct quire *db);
int qr_db_background_start(struct quire *db);
void qr_db_background_stop(struct quire *db);
void qr_db_maintain_init(struct quire *db);
void qr_db_maintain_done(struct quire *db);

#endif
