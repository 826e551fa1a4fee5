/*
 * Quire: an embedded, ordered, multi-version key-value engine.
 *
 * This header is the manual; it reads top to bottom. A program opens a database, opens one or more named trees in it,
 * and reads and writes keys of those trees from any number of threads.
 *
 *     struct quire *db;
 *     struct quire_tree *tree;
 *     if (quire_open(NULL, NULL, &db) == 0 && quire_tree_open(db, "users", NULL, &tree) == 0)
 *         quire_put(tree, "ann", 3, "1815", 4, 0, NULL);
 *
 * RESULTS. Every function that can fail returns an int: 0 done; positive, an expected outcome that is no failure
 * (QUIRE_NOT_FOUND ...); negative, a failure (QUIRE_ERR_...). A call that fails has changed nothing, and leaves its
 * output arguments (`ret_...`) untouched unless its comment says otherwise. Quire never aborts, prints, exits or
 * installs signal handlers. What any call may answer is not said again at each: INVALID for an argument that it cannot take,
 * FORKED, NO_MEMORY at a thread's first call (see below), TOO_LARGE for a key, a bound or a name; and with files, where a page
 * must be read, NO_MEMORY, IO and CORRUPT.
 *
 * KEYS AND VALUES are byte strings with a length. The empty key and the empty value are data; no byte pattern is
 * reserved. Keys are ordered by unsigned bytes, a prefix before its extensions. A NULL pointer is accepted for an empty
 * key or value; NULL with a length above 0 is QUIRE_ERR_INVALID. Limits: see quire_limits.
 *
 * VERSIONS. Every write takes a log sequence number (LSN), its position in one order over the whole database. In a tree
 * with engine versions (the default) the LSN is the version of the record, and the past is read through snapshots. In a
 * tree with caller versions the caller passes a version with each put, delete and get; see "Caller versions" below.
 *
 * THREADS. A database handle, a tree handle and a snapshot may be used by any number of threads at once without outer
 * locking; exceptions (close, guards, pages iterators) are stated where they are declared. Threads need no registration
 * and may end at any time outside a call. A thread's first call on a database takes some memory, and answers
 * QUIRE_ERR_NO_MEMORY if there is none; calls that close or release something take none. get, put, delete and page
 * reads of resident pages are lock-free: they wait for other threads in a few cases only, all listed in
 * doc/concurrency.md ("Waits"), of which memory is the main one.
 *
 * FORK. A child made by fork() may not use a handle that it inherited: every call that can fail answers
 * QUIRE_ERR_FORKED there, except quire_close, which forgets the handle and answers 0 (what the parent mapped stays until
 * the child ends or calls exec; if the parent ends without quire_close, the lock of the store does, too: opening it is BUSY so
 * long). quire_snapshot_lsn answers what it would in the parent. The parent is not affected.
 *
 * C++. Some functions are named as a struct is: quire_snapshot, quire_stats, quire_limits, quire_error_detail. There the
 * name alone means the function, so write `struct quire_snapshot *s`, as in C.
 *
 * CRASH. A database is opened in memory (path NULL), where nothing survives the end of the process, or in a directory, where
 * every write goes to a log first. See quire_open and "Writing" for what survives what.
 * All data must fit in memory in this version, but for large values of a database with files (see "Large values").
 */
#ifndef QUIRE_QUIRE_H
#define QUIRE_QUIRE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define QUIRE_API __attribute__((visibility("default")))
#else
#define QUIRE_API
#endif

#define QUIRE_VERSION_MAJOR 0
#define QUIRE_VERSION_MINOR 1
#define QUIRE_VERSION_PATCH 0

/* ---- Results ---------------------------------------------------------------------------------------------------- */

enum quire_result {
    QUIRE_OK = 0,

    /* Expected outcomes. */
    QUIRE_NOT_FOUND = 1, /* no visible value for the key; no such tree */
    QUIRE_EXISTS = 2,    /* insert: the key has a value; tree creation: the name is taken */
    QUIRE_CONFLICT = 3,  /* compare_and_swap: the present value differs from the expected one */
    QUIRE_END = 4,       /* an iterator has no further page */
    QUIRE_MORE = 5,      /* quire_maintain: there is more to do */
    QUIRE_INCOMPLETE = 6,/* quire_repair: the new store is there, and lacks something that was lost */

    /* Failures. Nothing was changed. */
    QUIRE_ERR_INVALID = -1,          /* an argument or option is out of range; the detail names it */
    QUIRE_ERR_NO_MEMORY = -2,        /* the memory limit, or the machine's memory, leaves no room */
    QUIRE_ERR_TOO_LARGE = -3,        /* key or value above its limit */
    QUIRE_ERR_BUFFER_TOO_SMALL = -4, /* the needed size is in the size output; nothing was copied */
    QUIRE_ERR_BUSY = -5,             /* another opening, of any process, has the store; options.recovery_progress ended this
                                        one. Close while a guard, iterator or snapshot is open, or while the thread has a
                                        guard of another database; maintain, checkpoint, verify under a guard of the thread */
    QUIRE_ERR_FORKED = -6,           /* the handle belongs to the parent process */
    QUIRE_ERR_LSN_TOO_OLD = -7,      /* version at or below (write) or below (read) the tree's safe version */
    QUIRE_ERR_STALLED = -8,          /* memory held by a guard or an iterator kept the write waiting for
                                        stall_timeout_ms */
    QUIRE_ERR_OVERFLOW = -9,         /* quire_add: the sum leaves the range of int64_t */
    QUIRE_ERR_WRONG_TYPE = -10,      /* quire_add: the present value is not 8 bytes */
    QUIRE_ERR_UNSUPPORTED = -11,     /* not for this kind of tree, or not in this version */
    QUIRE_ERR_WRONG_THREAD = -12,    /* a guard was used by a thread that did not pin it */
    QUIRE_ERR_CORRUPT = -13,         /* stored bytes failed verification */
    QUIRE_ERR_IO = -14,              /* the file system failed; the detail has the errno */
    QUIRE_ERR_NO_SPACE = -15,        /* the file system is full, or a quota is used up */
    QUIRE_ERR_FOREIGN = -16,         /* files that are not Quire's; none was touched */
    QUIRE_ERR_NEWER = -17,           /* files of a newer version of Quire, which this one cannot read (or not write);
                                        none was touched */
    QUIRE_ERR_UNKNOWN = -18,         /* the write was done and ret_lsn set, but a sync failed: whether it survives
                                        power loss is not known */
    QUIRE_ERR_READ_ONLY = -19        /* a write to a database that was opened read-only */
};

/* A short English text for a result code; never NULL, also for unknown codes. Static memory. Any thread. */
QUIRE_API const char *quire_strerror(int result);

/*
 * What is known about the calling thread's most recent failure, whichever handle it concerned. The strings stay valid
 * until the thread's next failing call. All zero / empty before the first failure.
 */
struct quire_error_detail {
    int result;          /* the negative code */
    int os_errno;        /* errno of the system call at fault, or 0 */
    const char *message; /* one line that names the argument, field or limit; never NULL */
};
QUIRE_API void quire_error_detail(struct quire_error_detail *ret_detail);

/* "major.minor.patch" of the library at run time. Static memory. */
QUIRE_API const char *quire_version(void);

/* Frees memory that a call handed to the caller (quire_get_copy, quire_tree_list). NULL is fine. Any thread. */
QUIRE_API void quire_free(void *memory);

/* Largest accepted sizes in bytes. */
struct quire_limits {
    size_t max_key_size;       /* 131072 */
    size_t max_value_size;     /* 268435456; in a database without files */
    size_t max_tree_name_size; /* 255 */
    size_t max_file_value_size; /* 4294967295; in a database with files */
};
QUIRE_API void quire_limits(struct quire_limits *ret_limits);

/* A byte string that the struct does not own. */
struct quire_slice {
    const void *data;
    size_t size;
};

/* ---- Opening and closing ---------------------------------------------------------------------------------------- */

/*
 * Options of a database. Set all to the defaults with quire_options_init, then change fields; a struct of zero bytes
 * (with struct_size set, or 0) means the defaults too. A struct from an older header (smaller struct_size) is accepted,
 * its missing fields are defaults; one from a newer header is accepted if the fields unknown here are zero.
 */
struct quire_options {
    size_t struct_size;            /* sizeof(struct quire_options) */
    uint64_t memory_limit_bytes;   /* 0 = no limit; else at least 4 MiB. Covers pages, deltas, the mapping table and
                                      memory that waits for reclamation. At the limit a write that needs new memory
                                      answers QUIRE_ERR_NO_MEMORY; reads and deletes go on. With files: opening a
                                      store that was full when it ended, or a checkpoint of a full one, may exceed it,
                                      by a few percent mostly and by half at most, until memory becomes free. */
    uint32_t background_threads;   /* 0 = default (1): they reclaim memory, prepare it for a store that grows, and do
                                      what quire_maintain does when nothing has been written for 20 ms.
                                      QUIRE_NO_THREADS = none: the caller drives maintenance by quire_maintain, and
                                      writers reclaim memory themselves; at most 16 */
    uint32_t stall_timeout_ms;     /* 0 = default (10000). How long a write waits for memory that a guard holds back
                                      before QUIRE_ERR_STALLED, at most for memory on its way back, or with another
                                      thread that reclaims or sorts free memory, before QUIRE_ERR_NO_MEMORY, and for a
                                      checkpoint while the disk is nearly full, or too slow; at most 3600000 */
    uint32_t disable_statistics;   /* 1: operation counters and latencies are not kept. 0 = default (kept) */
    uint32_t reserved;             /* must be 0 */

    /* Of a database with files; without a path they must be 0. */
    uint32_t open_mode;            /* enum quire_open_mode */
    uint32_t level;                /* enum quire_level of writes that name none; 0 = QUIRE_LEVEL_DURABLE, with disable_log
                                      QUIRE_LEVEL_CHECKPOINT */
    uint32_t sync_period_ms;       /* writes at QUIRE_LEVEL_PROCESS survive power loss so long after they returned, and
                                      the time of a sync more; 0 = default (100); QUIRE_NO_PERIOD = when asked to */
    uint32_t disable_ring;         /* 1: no io_uring. 0 = default: it is used where the kernel allows it */
    uint64_t sync_volume_bytes;    /* a sync begins when so much log is not durable; 0 = default (64 MiB) */
    uint64_t log_segment_bytes;    /* largest segment of the log, a power of two from 16 KiB to 1 GiB; 0 = default
                                      (64 MiB). Segments start at 256 KiB, or less, and grow */
    uint32_t log_buffered;         /* 1: the log is written by system calls, as on file systems where mapped files are
                                      not safe. 0 = default: it is mapped where it can be */
    uint32_t no_sync_at_close;     /* 1: quire_close does not wait for a sync; what was not durable survives the process,
                                      not power loss. With disable_log: it makes no checkpoint, and what was written
                                      since the last one is lost. So it is in a temporary store */
    uint64_t log_cap_bytes;        /* a checkpoint begins when the log that recovery would read is larger, and writers
                                      wait for it when that is four times as large, and 8 MiB, or 768 segments: not under a guard,
                                      without threads, during quire_verify, or after one that failed. At least 64 KiB; 0 = default:
                                      the memory of the data less 128 MiB, or half of it, whichever is more, from 64 MiB
                                      to 1.5 GiB. Reading it takes seconds a GiB; each checkpoint writes all changes */
    uint32_t checkpoint_interval_ms; /* ... or so long after the last one, if there was something to write; 0 = default
                                      (60000); QUIRE_NO_PERIOD = only for the log's size, and when asked to */
    uint32_t disable_log;          /* 1: no log, for data that can be made again, or that the caller has a log of: writes
                                      wait for nothing, and only checkpoints make them survive anything. See "Durability".
                                      Read-only it says nothing, and the effective options have 0 and another level.
                                      0 = default: every write goes to the log first */
    /* Called while the log is read at opening: bytes done, of all. Not 0: the opening ends with QUIRE_ERR_BUSY. */
    int (*recovery_progress)(void *context, uint64_t done_bytes, uint64_t all_bytes);
    void *recovery_context;
    uint64_t blob_threshold_bytes; /* values of more bytes are large values; from 64 to 268435456; 0 = default (4096). It says how
                                      values are written from now on: those that are there stay as they are. More than
                                      256 log_segment_bytes, a quarter of the largest log, is taken for that much */
};
enum quire_open_mode {
    QUIRE_OPEN_OR_CREATE = 0,
    QUIRE_OPEN_EXISTING = 1, /* QUIRE_NOT_FOUND if there is no store, and nothing is created */
    QUIRE_CREATE_NEW = 2,    /* QUIRE_EXISTS if there is one, and it is not touched */
    QUIRE_OPEN_READ_ONLY = 3,/* as OPEN_EXISTING; not one byte is written, any number of processes may do so at once */
    QUIRE_OPEN_TEMPORARY = 4 /* a new store in a directory of its own, for this user alone, in the directory `path` (NULL: in
                                that of TMPDIR, or /tmp). It is removed when it is closed, and when the opening fails; if the
                                process dies it stays, for quire_destroy. Nothing is synced that was not asked for by a call:
                                level must not be DURABLE, the defaults of period and volume are none */
};
enum quire_level {
    QUIRE_LEVEL_DURABLE = 1, /* the call returns when the write survives power loss */
    QUIRE_LEVEL_PROCESS = 2, /* the call returns when the write survives the death of the process */
    QUIRE_LEVEL_CHECKPOINT = 3 /* the write survives both once a checkpoint that began after it has ended. All writes with
                                  disable_log have this level, and no others: disable_log with another level is INVALID */
};
#define QUIRE_NO_PERIOD UINT32_MAX
#define QUIRE_NO_THREADS UINT32_MAX

QUIRE_API void quire_options_init(struct quire_options *ret_options);

/*
 * Sets of options for databases with files, to start from; what a line does not name has its default. There is no magic in
 * them: each sets what it says, and later versions may set what does not exist yet.
 *
 *   READ_OPTIMIZED   background_threads 2: after writes, leaves are consolidated sooner
 *   WRITE_OPTIMIZED  level PROCESS, sync_period_ms 1000, sync_volume_bytes 256 MiB: less syncing, more to lose at power loss
 *   BALANCED         the defaults
 *   LOW_MEMORY       memory_limit_bytes 64 MiB, log_segment_bytes 1 MiB, sync_volume_bytes 4 MiB
 *   DEVELOPMENT      level PROCESS, no_sync_at_close 1, log_segment_bytes 1 MiB: small stores that open and close at once
 *   MAX_DURABILITY   level DURABLE, sync_period_ms 10, sync_volume_bytes 1 MiB: little to lose for calls that ask for
 *                    PROCESS
 */
enum quire_preset {
    QUIRE_PRESET_READ_OPTIMIZED = 1,
    QUIRE_PRESET_WRITE_OPTIMIZED = 2,
    QUIRE_PRESET_BALANCED = 3,
    QUIRE_PRESET_LOW_MEMORY = 4,
    QUIRE_PRESET_DEVELOPMENT = 5,
    QUIRE_PRESET_MAX_DURABILITY = 6
};

/* As quire_options_init, and then the preset. INVALID: NULL, or no such preset. */
QUIRE_API int quire_options_preset(struct quire_options *ret_options, enum quire_preset preset);

struct quire;      /* a database */
struct quire_tree; /* a named tree of a database */

/*
 * Opens a database. path: NULL for a database in memory, else the directory of a store, which is created if it is not there
 * (open_mode). options: NULL = defaults; copied. On 0 the caller owns *ret_db and ends it with quire_close.
 *
 * One process at a time has a store open for writing; the lock goes with the process (see FORK for children that outlive it).
 * It is of the directory (flock) and of the file `lock` in it: removing the file lets nobody in, but on a file system that
 * cannot lock directories. After a crash opening it is all that there is to do: it reads the log and finds every write that
 * was acknowledged, at DURABLE after power loss, at PROCESS after the death of the process, unless LOG_FAILED came first. What it had to decide is
 * durable when it returns, and so is a store that it created.
 *
 * Results: QUIRE_NOT_FOUND, QUIRE_EXISTS (open_mode). Errors: INVALID (the detail names the field), NO_MEMORY; BUSY (another
 * opener has it, or it is being removed; the detail has the process id of one that writes, if its file says it); FOREIGN (the path is a file, or a
 * directory with other things in it), NEWER, CORRUPT, IO, NO_SPACE; FORKED in a child made by fork whose parent has used
 * Quire (before exec). After any of these the path holds what it held before, but for a store whose creation had begun.
 */
QUIRE_API int quire_open(const char *path, const struct quire_options *options, struct quire **ret_db);

/*
 * Closes the database and frees everything, tree handles included. NULL is fine. No other call may be running or start
 * on it. QUIRE_ERR_BUSY while a guard, pages iterator or snapshot is open, or while the calling thread holds a guard of
 * any other database (or is in a section of its own of liburcu-bp): nothing happened, the handle stays valid. Waits for
 * the background threads to end, which may be waiting for guards of other databases in other threads. After fork, in
 * the child: forgets the handle and answers 0. A database with files makes all writes durable first (no_sync_at_close);
 * if that fails the answer is UNKNOWN, and the handle is freed all the same. With disable_log it makes a checkpoint
 * (but with no_sync_at_close), and answers what that answers (NO_SPACE, IO, NO_MEMORY: what was written since the last one is lost).
 */
QUIRE_API int quire_close(struct quire *db);

/*
 * Removes a store that nobody has open, and its directory (not where the path is a link to it, or ends in `.`). QUIRE_NOT_FOUND: there is
 * no store. Errors: BUSY (somebody has it open); FOREIGN: there is something in the directory that is not provably a file of this store, and
 * nothing was removed; NEWER, CORRUPT (a manifest that cannot be read proves nothing); INVALID, NO_MEMORY, IO. From the first change on there
 * is no store for quire_open; if the call is interrupted, calling it again removes what is left, at the end all but a file `lock`.
 */
QUIRE_API int quire_destroy(const char *path);

/* The effective options, defaults filled in. ret_options->struct_size must be set (quire_options_init does); what a
 * larger struct has beyond this library's is set to zero. */
QUIRE_API int quire_options_get(struct quire *db, struct quire_options *ret_options);

/* ---- Trees ------------------------------------------------------------------------------------------------------ */

enum quire_versions {
    QUIRE_VERSIONS_ENGINE = 0, /* the LSN is the version (default) */
    QUIRE_VERSIONS_CALLER = 1  /* the caller passes versions */
};

/* Options of a tree; same rules for struct_size and zero as struct quire_options. Fixed when the tree is created, but for
 * the sizes of pages. */
struct quire_tree_options {
    size_t struct_size;            /* sizeof(struct quire_tree_options) */
    uint32_t versions;             /* enum quire_versions */
    uint32_t leaf_page_size_bytes; /* split threshold of leaves; 0 = default (8192); 512 to 65536 */
    uint32_t inner_page_size_bytes;/* split threshold of inner pages; 0 = default (8192); 512 to 65536 */
    uint32_t page_chain_length;    /* most deltas on a leaf before it is consolidated; 0 = default (8); 1 to 8 */
    uint32_t value_alignment;      /* alignment of values in memory: 1, 2, 4, 8, 16, 32 or 64; 0 = default (1) */
    uint32_t must_exist;           /* 1: QUIRE_NOT_FOUND instead of creating. Not both of must_exist, must_create */
    uint32_t must_create;          /* 1: QUIRE_EXISTS if there is a tree of this name */
};
QUIRE_API void quire_tree_options_init(struct quire_tree_options *ret_options);

/*
 * Opens the tree `name` (a C string; NULL or "" = the default tree), creating it if it is not there. options: NULL =
 * defaults. For an existing tree the options that are not 0 must equal those that it was created with (INVALID), but for the
 * sizes of pages: others take the place of the tree's, for all its users, from now on and after reopening (in a database that was
 * opened read-only they are ignored). Pages that are there stay as they are until they are written to; 0 leaves the sizes.
 * The handle belongs to the database; quire_close frees it. Opening a tree twice gives the same handle. Any thread; one at a
 * time, so a call may wait for another that waits for memory or the disk. Results: NOT_FOUND (must_exist), EXISTS
 * (must_create); errors: INVALID, NO_MEMORY, TOO_LARGE (name). Creating a tree, and giving one other sizes, is a write, without
 * flags: the common errors of writes.
 */
QUIRE_API int quire_tree_open(struct quire *db, const char *name, const struct quire_tree_options *options,
                              struct quire_tree **ret_tree);

/* The options that the tree was created with, defaults filled in; struct_size as in quire_options_get. */
QUIRE_API int quire_tree_options_get(struct quire_tree *tree, struct quire_tree_options *ret_options);

/*
 * Names of all trees in order, the default tree's as "". *ret_names is an array of *ret_count C strings in one block
 * that the caller frees with quire_free. Errors: INVALID, NO_MEMORY.
 */
QUIRE_API int quire_tree_list(struct quire *db, char ***ret_names, size_t *ret_count);

/* ---- Writing ---------------------------------------------------------------------------------------------------- */

/*
 * flags: 0, or one of enum quire_write_flags. ret_lsn: NULL, or receives the LSN of the write. All writes are atomic and visible to every
 * thread from the moment the call returns. Lock-free: a write that loses a race to others tries again; what it may wait
 * for is listed in doc/concurrency.md ("Waits"), above all memory (NO_MEMORY at once, from a deletion
 * after some rounds of reclamation; STALLED after waiting). Common
 * errors: INVALID, TOO_LARGE, NO_MEMORY, STALLED, FORKED; UNSUPPORTED in a tree with caller versions. With files: NO_SPACE
 * (nothing was changed; writes go on by themselves when there is space again, or a checkpoint has found some; deletions and
 * checkpoints have a reserve from 2 MiB on), IO (a sync has failed before: reads go on, writes do not,
 * until the store is opened again), READ_ONLY; and UNKNOWN, where the write was done and is visible, but a sync failed that
 * should have made it durable.
 *
 * CRASH. In memory nothing survives. With files a write survives what its level says from the moment that the call returns;
 * a write whose call did not return may be there or not, as a whole. With disable_log, see "Durability": flags other than 0
 * are UNSUPPORTED then, since what they ask for cannot be had, and NO_SPACE and IO mean that the last checkpoint failed with
 * that; writes go on when one has succeeded, deletions go on without space.
 */
enum quire_write_flags {
    QUIRE_WRITE_DURABLE = 1, /* QUIRE_LEVEL_DURABLE for this call; without files, no difference */
    QUIRE_WRITE_PROCESS = 2  /* QUIRE_LEVEL_PROCESS */
};

/*
 * Large values. In a database with files a value above blob_threshold_bytes is written once, to a file for such values; the
 * log, the tree and memory have a reference to it. It is a value as any other: visible, versioned, atomic and durable as the
 * calls say. What differs: reading it asks the file system each time, and verifies it (CORRUPT: this value is damaged; others can
 * be read. IO, NO_MEMORY); a write of it answers NO_SPACE where there is no space for it. Space of values that were replaced or
 * deleted comes back when all values of their file are, and checkpoints have been made since.
 */

/* Stores value under key, whether or not it had one. */
QUIRE_API int quire_put(struct quire_tree *tree, const void *key, size_t key_size, const void *value,
                        size_t value_size, unsigned flags, uint64_t *ret_lsn);

/*
 * Deletes key; that it is absent is no failure. ret_existed: NULL (cheapest), or receives 1 if the delete removed
 * a value and 0 if there was none.
 */
QUIRE_API int quire_delete(struct quire_tree *tree, const void *key, size_t key_size, unsigned flags, int *ret_existed,
                           uint64_t *ret_lsn);

/* Stores value if key has none; else QUIRE_EXISTS. */
QUIRE_API int quire_insert(struct quire_tree *tree, const void *key, size_t key_size, const void *value,
                           size_t value_size, unsigned flags, uint64_t *ret_lsn);

/*
 * Replaces the value by `value` if it equals `expected` byte by byte. QUIRE_CONFLICT if it differs, QUIRE_NOT_FOUND
 * if there is none. Of several calls with the same expected value exactly one succeeds (unless value = expected).
 */
QUIRE_API int quire_compare_and_swap(struct quire_tree *tree, const void *key, size_t key_size, const void *expected,
                                     size_t expected_size, const void *value, size_t value_size, unsigned flags,
                                     uint64_t *ret_lsn);

/*
 * Adds delta to the counter under key: an 8-byte little-endian signed integer; an absent key counts as 0.
 * ret_value: NULL, or receives the value after the addition. Errors besides the common ones: WRONG_TYPE if the
 * present value is not 8 bytes, OVERFLOW if the sum leaves the range of int64_t; the value is unchanged then.
 */
QUIRE_API int quire_add(struct quire_tree *tree, const void *key, size_t key_size, int64_t delta, unsigned flags,
                        int64_t *ret_value, uint64_t *ret_lsn);

/* ---- Durability ------------------------------------------------------------------------------------------------- */

/*
 * WITHOUT A LOG (disable_log). A checkpoint has the state at one LSN, of all trees with all that they say, and after any end
 * of the process opening the store finds exactly that of the last one: a prefix of the writes in the order of their LSNs, as
 * long as quire_durable_lsn said. quire_close makes one; else one is made every checkpoint_interval_ms if there was something
 * to write, and when more was written than log_cap_bytes: these bound what can be lost. quire_sync and quire_wait_durable make
 * a checkpoint. While one is under way, versions that it needs stay in memory. A store may be opened with a log and without in
 * turns: what the log has is in a checkpoint before an opening without one returns.
 */

/* Makes all writes that have returned durable; waits for the disk. 0; UNKNOWN, INVALID, FORKED; with disable_log, in place of UNKNOWN,
 * what quire_checkpoint answers (BUSY: the thread holds a guard). In memory: 0 at once. */
QUIRE_API int quire_sync(struct quire *db);

/* Waits until the write with this LSN, and all with lower ones, are durable. Results as quire_sync; INVALID for an LSN that the log
 * has not reached: that of the next write (log_tail_lsn of the statistics), or a higher one. */
QUIRE_API int quire_wait_durable(struct quire *db, uint64_t lsn);

/*
 * Writes all pages that changed to the page store, and a small record that makes them count, so that the log before is not
 * needed any more: opening the store reads only what is written from now on. Reads and writes go on meanwhile. Waits for the
 * disk, and for another checkpoint. Errors: INVALID, NO_MEMORY, FORKED, READ_ONLY; NO_SPACE, IO: nothing is lost, the one before
 * still counts; BUSY: the thread holds a guard, or structure changes did not come to an end. In memory: 0 at once.
 */
QUIRE_API int quire_checkpoint(struct quire *db);

/*
 * Asks for a checkpoint and returns at once. A background thread makes it; where there are none, quire_maintain. Writes do not wait
 * for it. Asked for once more before it has begun, it is one; while one is under way, it is the next. QUIRE_EVENT_CHECKPOINT
 * tells its end, and the statistics count it. One that fails is made again after a second, until one succeeds. Errors: INVALID,
 * NO_MEMORY, FORKED, READ_ONLY; IO: the log has failed, and no checkpoint is made. In memory: 0.
 */
QUIRE_API int quire_checkpoint_start(struct quire *db);

/* All writes with an LSN up to *ret_lsn survive power loss. In memory: 0. Does not wait. Errors: INVALID, FORKED. */
QUIRE_API int quire_durable_lsn(struct quire *db, uint64_t *ret_lsn);

/* The highest LSN of a write that has returned, or that the opening found; 0: none. Errors: INVALID, NO_MEMORY, FORKED. */
QUIRE_API int quire_last_lsn(struct quire *db, uint64_t *ret_lsn);

/* ---- Reading by copy -------------------------------------------------------------------------------------------- */

struct quire_snapshot;

/*
 * Reads answer the newest value, or with a snapshot the newest at the snapshot. snapshot: NULL = newest; it must be of
 * the tree's database (INVALID). Results: 0, QUIRE_NOT_FOUND; errors: INVALID, TOO_LARGE, FORKED, and UNSUPPORTED for a tree
 * with caller versions. A read of pages in memory needs no more of it but what its comment names. Large values: + CORRUPT, IO, and
 * NO_MEMORY for some.
 */

/*
 * Copies the value into buffer (capacity bytes; NULL with 0 is fine) and sets *ret_size to its size. If it does not
 * fit: QUIRE_ERR_BUFFER_TOO_SMALL, nothing is copied, and *ret_size is the needed size.
 */
QUIRE_API int quire_get(struct quire_tree *tree, struct quire_snapshot *snapshot, const void *key, size_t key_size,
                        void *buffer, size_t capacity, size_t *ret_size);

/* Hands out a copy that the caller frees with quire_free (never NULL on 0, also for an empty value). + NO_MEMORY. */
QUIRE_API int quire_get_copy(struct quire_tree *tree, struct quire_snapshot *snapshot, const void *key, size_t key_size,
                             void **ret_value, size_t *ret_size);

/* 0 if the key has a value, else QUIRE_NOT_FOUND. */
QUIRE_API int quire_exists(struct quire_tree *tree, struct quire_snapshot *snapshot, const void *key, size_t key_size);

/*
 * Counts the keys with a value in [start, end) by reading the range: exact at the snapshot; without one, exact if
 * nobody writes meanwhile. Bounds and errors as those of pages.
 */
QUIRE_API int quire_count(struct quire_tree *tree, struct quire_snapshot *snapshot, struct quire_slice start,
                          struct quire_slice end, uint64_t *ret_count);

/* ---- Reading without copying: guards ---------------------------------------------------------------------------- */

/*
 * A guard keeps every page alive that its thread can reach: pointers handed out under it stay valid and unchanged
 * until it is unpinned or repinned, whatever writers do meanwhile. Pinning is cheap (no lock, no allocation, no wait)
 * and nests: a thread may hold many guards, and end them in any order. The struct belongs to the caller and is used by
 * the pinning thread only (WRONG_THREAD). While a guard is open, memory that writers replace cannot be reclaimed: keep
 * it short.
 *
 * A guard that is open when its thread ends, ends with it; what was read under it is invalid. Later calls with it answer
 * INVALID or WRONG_THREAD, in whatever thread. Do not copy the struct: a copy is the same guard, and once it was
 * unpinned through one of them, calls with the others answer INVALID. (If a thread holds more than 32 guards of a
 * database, such a copy may be taken for another one of those above 32.)
 */
struct quire_guard {
    struct quire *db; /* the fields are private */
    void *thread;
    uint64_t state[2];
};

/* tag: NULL, or a static string that names the holder in statistics. Errors: INVALID, NO_MEMORY, FORKED. */
QUIRE_API int quire_pin(struct quire *db, const char *tag, struct quire_guard *ret_guard);

/* Gives up everything held and starts anew; pointers from before are invalid. If this thread holds another guard of
 * any database, memory stays held until that one is unpinned as well. */
QUIRE_API int quire_repin(struct quire_guard *guard);

/* Ends the guard. Errors: INVALID (not pinned, or ended), WRONG_THREAD, FORKED. */
QUIRE_API int quire_unpin(struct quire_guard *guard);

/* A value inside a page. lsn orders the write; version is the LSN, or the caller's version. */
struct quire_value {
    const void *data;
    size_t size;
    uint64_t lsn;
    uint64_t version;
};

/*
 * Finds the value; the pointer in *ret_value is valid until the guard ends. Unless 0 is answered *ret_value says nothing. Trees
 * with engine versions. A large value is read to memory that counts as retained by the guard: NO_MEMORY if the limit leaves no
 * room for it; + CORRUPT, IO. Errors as those of reads by copy; INVALID (a guard of another database, not pinned, or ended), WRONG_THREAD.
 */
QUIRE_API int quire_guard_get(struct quire_guard *guard, struct quire_tree *tree, struct quire_snapshot *snapshot,
                              const void *key, size_t key_size, struct quire_value *ret_value);

/*
 * Finds many values at once, overlapping their memory latencies: several times faster than single reads of a large
 * tree. keys: count keys in any order, duplicates allowed. ret_results[i] is 0 or QUIRE_NOT_FOUND, ret_values[i] is set
 * where it is 0. Returns 0, or an error that concerns the whole call; then the outputs may have been written to in part
 * and say nothing. Large values as in quire_guard_get, one after the other.
 */
QUIRE_API int quire_get_many(struct quire_guard *guard, struct quire_tree *tree, struct quire_snapshot *snapshot,
                             const struct quire_slice *keys, size_t count, struct quire_value *ret_values,
                             int *ret_results);

/* ---- Snapshots -------------------------------------------------------------------------------------------------- */

/*
 * A snapshot fixes what is visible in all trees with engine versions: every write that returned before the call is in
 * it, no write that starts after the call is. The versions that it sees are kept until it is released; later
 * versions that no snapshot sees are still collected. Taking one waits for writes that are between their LSN and
 * their installation. Usable by any thread. tag: as in quire_pin. Errors: INVALID, NO_MEMORY, FORKED.
 */
QUIRE_API int quire_snapshot(struct quire *db, const char *tag, struct quire_snapshot **ret_snapshot);
QUIRE_API uint64_t quire_snapshot_lsn(const struct quire_snapshot *snapshot);
/* NULL is fine. No other thread may be using it. */
QUIRE_API int quire_snapshot_release(struct quire_snapshot *snapshot);

/* ---- Caller versions -------------------------------------------------------------------------------------------- */

/*
 * For trees with QUIRE_VERSIONS_CALLER (others: UNSUPPORTED). Versions may arrive in any order: a read at version v
 * answers the value (or deletion) with the highest version not above v, whatever came first. For equal (key, version)
 * the last completed write wins. The safe version only grows; it allows the tree to collect what a read
 * at or above it cannot see.
 */

/* Errors: the common ones of writes, and LSN_TOO_OLD if version is at or below the safe version (when that is set). */
QUIRE_API int quire_put_at(struct quire_tree *tree, uint64_t version, const void *key, size_t key_size,
                           const void *value, size_t value_size, unsigned flags, uint64_t *ret_lsn);
QUIRE_API int quire_delete_at(struct quire_tree *tree, uint64_t version, const void *key, size_t key_size,
                              unsigned flags, uint64_t *ret_lsn);

/* As quire_get and quire_guard_get, at a version. LSN_TOO_OLD if it is below the safe version. */
QUIRE_API int quire_get_at(struct quire_tree *tree, uint64_t version, const void *key, size_t key_size, void *buffer,
                           size_t capacity, size_t *ret_size);
QUIRE_API int quire_guard_get_at(struct quire_guard *guard, struct quire_tree *tree, uint64_t version, const void *key,
                                 size_t key_size, struct quire_value *ret_value);

/*
 * Raises the safe version; a smaller one than before is ignored (0 returned). A write of another thread that has begun before may
 * yet be done below it. With files it is a write, without flags: it survives what the level of the database says, and after
 * a reopening the tree refuses what it refused before. Errors: INVALID, FORKED; with files the common ones of writes.
 */
QUIRE_API int quire_set_safe_lsn(struct quire_tree *tree, uint64_t version);
QUIRE_API int quire_safe_lsn(struct quire_tree *tree, uint64_t *ret_version);

/* ---- Pages ------------------------------------------------------------------------------------------------------ */

/*
 * Iteration page by page: each step hands out one leaf's visible records as pointers into the page, in key order.
 * Deletions are skipped, each key comes once with one value. Keys that exist during the whole iteration appear exactly
 * once; without a snapshot, keys changed meanwhile appear in one of their states, and each page is consistent.
 *
 * Large values are read for the step that hands them out, to memory of the iterator which is not counted in the limit: up to 1 MiB
 * of them, or one that is larger; a leaf that has more comes in several steps. With skip_large_values they are not read.
 */
/*
 * Same rules for struct_size as struct quire_options. Zero bytes are the defaults in a tree with engine versions; with
 * caller versions they are not, since 0 is a version as any other: such a struct reads at version 0. Use
 * quire_pages_options_init, or set version.
 */
struct quire_pages_options {
    size_t struct_size;              /* sizeof(struct quire_pages_options) */
    struct quire_slice start;        /* first key; data NULL = from the smallest key */
    struct quire_slice end;          /* first key beyond the range; data NULL = to the largest key */
    struct quire_snapshot *snapshot; /* engine versions: NULL = newest state of each page */
    uint64_t version;                /* caller versions: read at this version; UINT64_MAX = newest, 0 = version 0 */
    uint32_t reverse;                /* 1: pages, and the entries in them, come in descending order */
    uint32_t skip_large_values;      /* 1: the entry of a large value has value NULL, and value_size says how large it is */
};
/* The defaults: everything, ascending, newest. Sets version to UINT64_MAX, which zero bytes do not. */
QUIRE_API void quire_pages_options_init(struct quire_pages_options *ret_options);

struct quire_entry {
    const void *key;
    size_t key_size;
    const void *value;
    size_t value_size;
    uint64_t lsn;
    uint64_t version;
};

struct quire_page {
    size_t count; /* at least 1 */
    const struct quire_entry *entries;
    uint32_t reverse; /* 1: in descending order */
};

struct quire_pages; /* an iterator: one thread at a time; may move between threads */

/*
 * options: NULL = defaults; the bounds are copied. The snapshot must stay open as long as the iterator.
 * Errors: INVALID (start above end, a bound with NULL and a size, another database's snapshot), TOO_LARGE (a bound above the
 * limit of keys), NO_MEMORY, FORKED, LSN_TOO_OLD, UNSUPPORTED (snapshot with caller versions).
 */
QUIRE_API int quire_pages_open(struct quire_tree *tree, const struct quire_pages_options *options,
                               struct quire_pages **ret_pages);

/*
 * The next page. Its entries stay valid until the next call on this iterator: it keeps one page alive and needs no
 * guard. QUIRE_END when there is none, again and again. Errors: NO_MEMORY, FORKED, CORRUPT and IO (a page, or the value of its
 * first entry, could not be read); the same step can be tried again.
 * LSN_TOO_OLD if the safe version has been raised above the version of the iterator.
 */
QUIRE_API int quire_pages_next(struct quire_pages *pages, struct quire_page *ret_page);

/* NULL is fine. */
QUIRE_API int quire_pages_close(struct quire_pages *pages);

/* Position of the first entry with a key at or after `key` (ascending page), or at or before (descending); count if
 * there is none. */
QUIRE_API size_t quire_page_seek(const struct quire_page *page, const void *key, size_t key_size);

/* ---- Maintenance and statistics --------------------------------------------------------------------------------- */

/*
 * Does a slice of background work (merging, consolidation, collection, reclamation; about a millisecond) in the calling
 * thread. QUIRE_MORE if there is more to do, 0 if nothing is left that could be done now: at the memory limit what finds
 * no memory is left out, and done when it is called again and there is some. Not under a guard of this thread (BUSY). Any
 * thread, also beside background threads. NO_MEMORY: the machine has none, or a page could not be read for want of it;
 * calling again may help.
 */
QUIRE_API int quire_maintain(struct quire *db);

/*
 * All counters since open (or the last quire_stats_reset); gauges are the present state. struct_size is set by the
 * caller, in outputs too. Structs of older and newer headers are accepted by all calls: only fields that a struct has
 * are read, written or printed; what a larger one has beyond this library's is set to zero.
 */
struct quire_stats {
    size_t struct_size; /* in: sizeof(struct quire_stats) */

    /* Operations. */
    uint64_t gets, gets_not_found, puts, deletes, inserts, compare_and_swaps, adds, pages_read, entries_read, get_manys;
    uint64_t conflicts;           /* conditional operations that found another value */
    uint64_t errors;              /* calls on this database that answered a failure code. Not: quire_open, quire_close, and
                                     calls refused before the database is looked at (NULL handle, FORKED, no memory for
                                     the thread's record) */
    uint64_t errors_no_memory;    /* ... of these NO_MEMORY */
    uint64_t errors_stalled;      /* ... of these STALLED */
    uint64_t read_bytes;          /* values handed out; not those that did not fit the buffer, nor by pages */
    uint64_t write_bytes;         /* keys and values written */
    uint64_t get_latency_mean_ns; /* of a sample of the calls */
    uint64_t put_latency_mean_ns;
    uint64_t delete_latency_mean_ns;

    /* Tree: successes, and attempts that lost a race. */
    uint64_t tree_installs, tree_install_conflicts;
    uint64_t tree_consolidations, tree_consolidation_conflicts;
    uint64_t tree_splits, tree_split_conflicts;
    uint64_t tree_merges, tree_merge_conflicts;
    uint64_t tree_helps;              /* separators posted or merges finished for somebody else */
    uint64_t versions_collected;      /* records dropped because nobody can see them */
    uint64_t log_frames, log_bytes, log_voids;

    /* Gauges. */
    uint64_t trees;
    uint64_t pages_leaf, pages_inner;
    uint64_t height_max;              /* levels of the highest tree; 1 = a single leaf */
    uint64_t chain_length[9];         /* leaves by number of deltas, from a walk of all trees */
    uint64_t records_live_estimate;   /* records in leaves, older versions and deletions included */
    uint64_t memory_bytes;            /* all memory counted against the limit */
    uint64_t memory_page_bytes;       /* ... blocks of pages in use */
    uint64_t memory_free_bytes;       /* ... in the arena's free lists */
    uint64_t memory_mapping_bytes;    /* ... mapping table */
    uint64_t memory_retired_bytes;    /* ... waiting for guards to end */
    uint64_t memory_returned_bytes;   /* given back to the operating system so far */
    uint64_t guards_open, snapshots_open, iterators_open;
    uint64_t oldest_guard_age_ms, oldest_snapshot_age_ms;
    char oldest_guard_tag[32], oldest_snapshot_tag[32];
    uint64_t reclaim_batches, reclaimed_bytes;
    uint64_t stalls, stall_ms;        /* writes that waited for memory, and how long in all */

    /* Files; without them zero. Counters. */
    uint64_t errors_io;               /* of the errors IO */
    uint64_t errors_no_space;         /* ... NO_SPACE */
    uint64_t errors_unknown;          /* ... UNKNOWN */
    uint64_t log_syncs;               /* each makes durable whatever was written before it, by whomever */
    uint64_t log_segments_made, log_segments_recycled;
    uint64_t log_provision_waits;     /* writes that made room in the log themselves */
    /* Gauges. */
    char io_way[32];                  /* how files are reached: "uring", "posix" */
    uint64_t log_mapped;              /* 1: the log is written through mapped memory, 0: by system calls */
    uint64_t log_size_bytes;          /* all segments of the log */
    uint64_t log_tail_lsn;            /* the LSN of the next write */
    uint64_t log_durable_lsn;         /* as quire_durable_lsn */
    uint64_t log_failure_errno;       /* of the first failed sync or write; 0: none. Then writes are refused */
    uint64_t recovery_ms, recovery_bytes, recovery_records; /* what the opening read of the log, and did again */
    uint64_t recovery_holes;          /* places where a process had died between reserving and writing */
    uint64_t recovery_same_boot;      /* 1: the log was read by the rule for the death of the process alone */

    /* Checkpoints and the page store; without files zero. Counters. */
    uint64_t checkpoints, checkpoint_failures;
    uint64_t checkpoint_retries;      /* moments of rest that structure changes did not leave it */
    uint64_t pages_flushed;           /* images that were written while work went on */
    uint64_t store_written_bytes, store_write_operations, store_read_bytes, store_reads;
    uint64_t store_segments_made, store_segments_recycled, store_segments_removed;
    uint64_t store_checksum_failures; /* images that did not verify */
    /* Gauges. */
    uint64_t checkpoint_postponed_max_ns; /* the longest time for which structure changes were put off */
    uint64_t checkpoint_age_ms;       /* since the last one ended, or since the opening */
    uint64_t store_segments, store_size_bytes; /* files, without the reserve */
    uint64_t store_reserve_bytes;     /* kept for a full disk */
    uint64_t store_live_bytes;        /* of the segments: what some mapping names, or may yet */

    /* Large values (blobs), with their heads. The first four are counters, the others gauges. */
    uint64_t blobs_written, blob_bytes_written;
    uint64_t blobs_read, blob_bytes_read;
    uint64_t blob_segments, blob_segment_bytes; /* files that they lie in */
    uint64_t blob_live_bytes;         /* that records have */
    uint64_t blob_dead_bytes;         /* that none has any more, in files that others are in too */
    uint64_t log_disabled;            /* 1: the store was opened with disable_log */
};

/* Fills *ret_stats; walks all trees for the structure gauges. */
QUIRE_API int quire_stats(struct quire *db, struct quire_stats *ret_stats);
/* counters: later - earlier; gauges and latencies: later's. Fields that a struct lacks count as 0. ret_diff->struct_size must
 * be set, as in quire_stats (INVALID). */
QUIRE_API int quire_stats_diff(const struct quire_stats *later, const struct quire_stats *earlier,
                               struct quire_stats *ret_diff);
/* Counters start at 0 again for this database. */
QUIRE_API int quire_stats_reset(struct quire *db);

enum quire_format { QUIRE_FORMAT_TEXT = 0, QUIRE_FORMAT_JSON = 1 };
/*
 * Writes the statistics as text (name value, a line each) or one JSON object, ended by NUL. *ret_size: size with the
 * NUL. BUFFER_TOO_SMALL: nothing written, *ret_size set. Tags are UTF-8; in both formats control characters and
 * backslashes are escaped as JSON does it, and bytes that are no UTF-8 are replaced by \ufffd.
 */
QUIRE_API int quire_stats_print(const struct quire_stats *stats, enum quire_format format, char *buffer,
                                size_t capacity, size_t *ret_size);

/* ---- Verification, and a look at the log ------------------------------------------------------------------------- */

/* What is wrong in one place. Later versions may have more fields behind these. */
struct quire_defect {
    size_t struct_size; /* of the library's struct */
    const char *file;   /* its name in the store's directory; NULL: it is not about a place in a file */
    uint64_t offset;    /* in the file */
    const char *tree;   /* the tree's name ("" is the default tree); NULL: not about a tree */
    uint64_t page_id;   /* 0: not about a page */
    const char *text;   /* one line of English; like the other strings, valid during the call */
};

/* Called in the thread that verifies. Not 0 ends the verification. It may not call functions on the database. */
typedef int quire_verify_callback(void *context, const struct quire_defect *defect);

/*
 * Reads everything of a database, compares it with its checksums and with what it has to be, and tells each defect to the
 * callback (NULL: none is told). The manifest; each segment of pages: header, batches, images, the mapping and that the images
 * which it names are there and are those pages; the log: each frame that is there and, of a database that is open for writing,
 * still needed; each tree: order of keys, bounds of pages, and that each page is reached exactly once; the large values of the
 * newest records. In a database in memory: the trees.
 *
 * Changes no file; pages are fetched, so all data must fit in memory. Others may read and write meanwhile; what they
 * write is not verified, and no checkpoint is made, so the log grows. Waits for the disk, and for a checkpoint. What only the
 * opening can see (a manifest that does not verify, a log that ends too early) is its answer: CORRUPT. One place may be told
 * as the cause of several defects; below an inner page that cannot be read nothing is looked at.
 *
 * 0: no defect. CORRUPT: at least one, or the callback has ended it. Other errors: INVALID, NO_MEMORY, FORKED; BUSY: the
 * thread holds a guard, or structure changes did not come to an end.
 */
QUIRE_API int quire_verify(struct quire *db, quire_verify_callback *callback, void *context);

/* What stands at a position of the log. */
enum quire_frame_kind {
    QUIRE_FRAME_PUT = 1,
    QUIRE_FRAME_DELETE = 2,
    QUIRE_FRAME_PART = 3,   /* a piece of a key and value that are too large for one frame */
    QUIRE_FRAME_FILLER = 4, /* nothing: the end of a segment, or a position that a process died on */
    QUIRE_FRAME_HOLE = 5,   /* no frame: a process died between reserving the position and writing */
    QUIRE_FRAME_DAMAGED = 6 /* a frame that does not verify */
};
enum quire_frame_state {
    QUIRE_FRAME_UNDECIDED = 1, /* written; the process died before it was known whether it counts: the next opening decides */
    QUIRE_FRAME_DONE = 2,
    QUIRE_FRAME_VOID = 3 /* it does not count */
};

/* Later versions may have more fields behind these. What a kind does not have is 0. */
struct quire_log_frame {
    size_t struct_size; /* of the library's struct */
    uint64_t lsn;
    const char *file;      /* its name in the store's directory */
    uint64_t offset;       /* in the file */
    uint64_t size_bytes;   /* in the file; of a hole or damaged place: up to the next frame */
    uint64_t incarnation;  /* which opening for writing wrote it: 1, 2, 3 ... */
    uint32_t kind;         /* enum quire_frame_kind */
    uint32_t state;        /* enum quire_frame_state */
    uint32_t needed;       /* 1: an opening would read it; 0: a checkpoint has made it superfluous */
    uint32_t tree_id;      /* PUT, DELETE: trees are numbered as they were created; 0: the list of trees */
    uint32_t has_version;  /* 1: `version` is that of a tree with caller versions */
    uint32_t conditional;  /* 1: it replaces the record with LSN `replaces` (0: none), and counts only if it does */
    uint64_t version, replaces;
    uint64_t key_size;
    uint64_t value_size;   /* PART: of its piece */
    const void *key, *value; /* NULL if they are in PARTs. PART: value is the piece. Like `file` valid during the call */
    uint64_t last_part;    /* PUT, DELETE with key and value in PARTs: the LSN of the last one. PART: of the one before, or 0 */
    uint32_t part_count;
    uint32_t large;        /* 1: PUT of a large value, which lies in a file for such: value is NULL */
};

/* Not 0 ends the reading. */
typedef int quire_log_callback(void *context, const struct quire_log_frame *frame);

/*
 * Reads the log of the store in the directory `path` as it is in the files, and calls the callback for each frame, in the
 * order of LSNs; opens no database, writes nothing, and needs memory for one segment. No other process may have the store open
 * for writing (BUSY), and none can open it meanwhile. 0, or what the callback answered; QUIRE_NOT_FOUND: there is no store.
 * Errors: INVALID, NO_MEMORY, BUSY, FOREIGN, NEWER, CORRUPT (the manifest), IO.
 */
QUIRE_API int quire_log_each(const char *path, quire_log_callback *callback, void *context);

/* A record of the manifest; doc/file-format.md has the kinds. Later versions may have more fields behind these. */
struct quire_manifest_record {
    size_t struct_size; /* of the library's struct */
    uint64_t sequence;  /* one more from record to record; optional ones of later versions are passed over */
    uint32_t kind;      /* its number in the file */
    const char *name;   /* "store", "incarnation", "checkpoint", "lsn-range" */
    uint64_t size_bytes;
    const void *payload; /* as it stands in the file. Like `name` and `fields` valid during the call */
    const char *fields;  /* what it says, as a JSON object */
};

/* Not 0 ends the reading. */
typedef int quire_manifest_callback(void *context, const struct quire_manifest_record *record);

/*
 * Reads the manifest of the store in the directory `path`, and calls the callback for each record, oldest first: the last one
 * of a kind is in force. Opens no database, writes nothing. No other process may have the store open for writing (BUSY), and
 * none can open it meanwhile. 0, or what the callback answered; QUIRE_NOT_FOUND: there is no store. Errors: INVALID,
 * NO_MEMORY, BUSY, FOREIGN, NEWER, CORRUPT, IO.
 */
QUIRE_API int quire_manifest_each(const char *path, quire_manifest_callback *callback, void *context);

enum quire_file_kind {
    QUIRE_FILE_OTHER = 1, /* not provably of this store */
    QUIRE_FILE_MANIFEST = 2,
    QUIRE_FILE_LOCK = 3,
    QUIRE_FILE_LOG = 4,   /* a segment of the log */
    QUIRE_FILE_PAGES = 5, /* a segment of pages */
    QUIRE_FILE_BLOBS = 6  /* a segment of large values */
};
enum quire_file_state {
    QUIRE_FILE_NEEDED = 1,   /* an opening reads it, or data lie in it */
    QUIRE_FILE_LEFTOVER = 2, /* nothing in it counts: an opening for writing removes it or uses it again */
    QUIRE_FILE_UNKNOWN = 3   /* it cannot be told from its first bytes that it is of this store */
};

/* Later versions may have more fields behind these. What a kind does not have is 0. */
struct quire_file {
    size_t struct_size; /* of the library's struct */
    const char *name;   /* in the store's directory; valid during the call */
    uint32_t kind;      /* enum quire_file_kind */
    uint32_t state;     /* enum quire_file_state */
    uint64_t size_bytes;
    uint64_t number;     /* of a segment */
    uint64_t used_bytes; /* MANIFEST, and PAGES and BLOBS that are needed: how far it is written */
    uint64_t live_bytes; /* of these: what the last checkpoint names */
    uint64_t incarnation, first_lsn, end_lsn; /* LOG: which opening for writing wrote it, and the LSNs that it stands for */
};

/* Not 0 ends the reading. */
typedef int quire_file_callback(void *context, const struct quire_file *file);

/*
 * Looks at each file in the directory of a store, in the order of names: what it is, and whether it is needed. As
 * quire_manifest_each in all else; CORRUPT also if the list of segments does not verify.
 */
QUIRE_API int quire_files_each(const char *path, quire_file_callback *callback, void *context);

/* ---- Repair ----------------------------------------------------------------------------------------------------- */

enum quire_loss_kind {
    QUIRE_LOSS_RANGE = 1, /* keys of a tree from `low` to below `high`; what the log says of them is there */
    QUIRE_LOSS_VALUE = 2, /* the large value of the key `low` (= `high`): the key is deleted in the new store */
    QUIRE_LOSS_LOG = 3,   /* the end of the log, or all of it; without the manifest all since a checkpoint */
    QUIRE_LOSS_NAME = 4,  /* the name and options of a tree, which is there as `tree`; or, if tree is NULL, of an unknown number
                             of trees with names from `low` to below `high`: those that have pages are there by other names */
    QUIRE_LOSS_NEWEST = 5 /* the root of the mapping and what was written with it cannot be found: the last checkpoint may be gone as
                             a whole. Keys may have values that were replaced, or that were deleted */
};

/* Something that is not in the new store. Later versions may have more fields behind these. */
struct quire_loss {
    size_t struct_size;    /* of the library's struct */
    uint32_t kind;         /* enum quire_loss_kind */
    const char *tree;      /* its name in the new store; NULL: it is not about one tree */
    struct quire_slice low, high; /* low.data NULL: from the smallest key; high.data NULL: to the largest */
    const char *text;      /* one line of English; like the others valid during the call */
};
typedef void quire_loss_callback(void *context, const struct quire_loss *loss);

struct quire_repair_report {
    size_t struct_size;        /* in: sizeof(struct quire_repair_report); as in quire_stats */
    uint64_t pages_read;       /* images of pages that verify, older ones of a page among them where the mapping is damaged */
    uint64_t bytes_read;       /* ... their bytes */
    uint64_t pages_damaged;    /* images that do not verify; one that something newer replaces is no loss */
    uint64_t mapping_damaged;  /* blocks and nodes of the mapping, and its root, that do not verify: no loss */
    uint64_t segments_damaged; /* page segments whose header does not verify, and that the root of the mapping does not list */
    uint64_t trees;            /* in the new store */
    uint64_t records;          /* that pages gave; of a tree with caller versions all versions */
    uint64_t log_records;      /* that the log gave */
    uint64_t ranges_lost, values_lost, logs_lost, names_lost, newest_lost; /* what the callback is told of, by kind */
};

/*
 * Makes a new store in `to` from what can be read of the damaged store in `from`: the newest image that verifies of each leaf,
 * found without the mapping of pages where that is damaged, and the writes of the log that it lacks, by the rules of an opening.
 * Damage to the mapping and to inner pages alone loses nothing, but in a store that was ever open without a log: if the root of the
 * mapping does not verify there, keys that were written during a checkpoint are lost. Where nothing was lost the new store answers
 * what the old one would have: newest values and, in trees with caller versions, all versions that were kept, and the safe version.
 * What is lost is told, and nothing older stands in its place: never a value that was replaced or a key that was deleted. Without
 * the root of the mapping that holds as far as LSNs and the numbers of batches tell the images of checkpoints that did not come to
 * their end, and only if no image is gone without a trace, its batch's summary with it (doc/durability.md, "Repair"); if the root's own
 * batch is gone that is told (QUIRE_LOSS_NEWEST). Without the manifest, which is told, the state is that of the newest root that
 * verifies, and without one, too, of the newest images.
 *
 * Of `from` not one byte is changed; no process may have it open for writing (BUSY), and none can open it meanwhile. `to` is a
 * directory that is not there, or an empty one, and is neither `from` nor inside it, whatever links lead there (INVALID). What is
 * made there has the default options, and LSNs are new ones. All data must fit in memory; the call works in its thread alone.
 * callback: NULL, or told of each loss, also if the call fails after that. report: NULL, or filled in if the result is not negative.
 *
 * 0: nothing was lost. QUIRE_INCOMPLETE: something was, and was told; all else is in the new store. After both it is durable.
 * QUIRE_NOT_FOUND: there is no store in `from`; QUIRE_EXISTS: there is one in `to`. Errors: INVALID, NO_MEMORY, BUSY, FOREIGN
 * (`from` is no store, or its manifest does not begin as one; `to` is not empty, or no directory), NEWER, IO, NO_SPACE, CORRUPT
 * (two trees of one name), FORKED. `to` was not touched if it was refused. Whenever a repair is cut off, what is in `to` is no store,
 * or an empty one, or, at the very end, the whole; after an error that is removed where that can be done.
 */
QUIRE_API int quire_repair(const char *from, const char *to, quire_loss_callback *callback, void *context,
                           struct quire_repair_report *ret_report);

/* ---- Events ----------------------------------------------------------------------------------------------------- */

/*
 * What a host may want to know without asking: for its log file, its alarms. By default nobody is told anything.
 *
 * A stall is told at most once a second; a failed log once; missing space once, until there is space again.
 */
enum quire_event_kind {
    QUIRE_EVENT_RECOVERY = 1,   /* to the first callback, when it is set: the opening read the log. lsn: the last one found;
                                   amount: bytes read */
    QUIRE_EVENT_STALL = 2,      /* writes wait for memory that guards or iterators hold. amount: bytes that are held */
    QUIRE_EVENT_NO_SPACE = 3,   /* no room can be made in the log, for a checkpoint or for a large value: writes are refused, or will
                                   be */
    QUIRE_EVENT_SPACE = 4,      /* room could be made again */
    QUIRE_EVENT_LOG_FAILED = 5, /* a sync or write of the log failed: no more writes until the store is opened again.
                                   os_errno; lsn: the last one that is durable */
    QUIRE_EVENT_CLOSE = 6,      /* the last event: quire_close is ending the database. result: of its last sync; lsn: the last
                                   one that is durable */
    QUIRE_EVENT_CHECKPOINT = 7  /* a checkpoint has ended. result: 0, or why it failed (told once, until one succeeds); lsn: where
                                   recovery would begin; amount: bytes written to the page store since the one before */
};
enum quire_severity { QUIRE_SEVERITY_INFO = 1, QUIRE_SEVERITY_WARNING = 2, QUIRE_SEVERITY_ERROR = 3 };

/* Later versions have more kinds, and more fields behind these. What a kind does not name is 0. */
struct quire_event {
    size_t struct_size; /* of the library's struct */
    uint32_t kind;      /* enum quire_event_kind */
    uint32_t severity;  /* enum quire_severity */
    int result;         /* the failure that it is about, or 0 */
    int os_errno;
    uint64_t lsn;
    uint64_t amount;
    const char *message; /* one line of English; valid during the call */
};

/*
 * Called by any thread, by several at once, also by one of Quire's own; without a lock, and before the call in which the
 * event happened returns. It may not call functions on this database but quire_stats.
 */
typedef void quire_event_callback(void *context, const struct quire_event *event);

/*
 * Sets the callback; NULL: nobody is told any more. When it returns, the callback before is not running and is not called
 * again. Any thread. Errors: INVALID (also from the callback itself), NO_MEMORY, FORKED.
 */
QUIRE_API int quire_on_event(struct quire *db, quire_event_callback *callback, void *context);

#ifdef __cplusplus
}
#endif

#endif
