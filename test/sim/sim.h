/*
 * What the parts of the simulation share: a life of a store, what its clients did, and images cut out of it.
 *
 * main.c command line and counts; schedule.c one thread at a time; life.c opening, cutting, closing; fault.c disks that fail;
 * client.c operations; history.c whether what the clients were answered can be; expect.c whether what an image shows can be.
 *
 * A life begins with an image of a disk (at first an empty one), which is opened; then clients work on it; then it is
 * closed. Meanwhile images are cut out, and each begins a life of its own when this one is over: recovery is cut, and
 * what comes after it (plan.depth). A life that was cut goes on to its end on a disk that matters no more, so
 * what an image may show can be said with knowledge of what every operation came to.
 */
#ifndef TEST_SIM_SIM_H
#define TEST_SIM_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <quire/quire.h>

#include "crash/power_model.h"
#include "lib/random.h"
#include "lib/simdisk.h"
#include "sim/schedule.h"

#define SIM_TREES 7u /* three, what the list of them says, and those that clients make */
#define CELLS 40u    /* of a tree, the most */
#define MOST_OPS 6000u
#define MOST_CUTS 8u
#define MOST_ATTEMPTS 24u
#define MOST_REFUSALS 3u /* openings under a fault, one after the other */
#define NO_BLOBS 268435456u /* the threshold above which no value is one */
#define SEGMENT_BYTES 16384u
#define NEVER UINT64_MAX

/*
 * One tree has caller versions. A cell of it is a version of a key; a deletion is a cell like others, not an absent one. Every key
 * has a version 0, which is never written again, and of the others one alone is deleted: so what a read answers says of
 * each version up to its own whether it is there (VERSIONS-1).
 */
#define VERSIONED_TREE 2u
#define VERSIONED_NAME "versions"
#define VERSIONS 8u /* 1 to this */
#define VERSIONED_KEYS 5u
#define DELETED UINT64_C(1) /* no stamp */

/*
 * No tree, but what the list of trees says: how far the safe version has been raised, and of each tree that clients make, or that is not
 * there yet, a cell of its own: 0, or its id and options (struct made).
 */
#define LIST 3u
#define SAFE_CELL 0u
#define LIST_CELLS 4u
#define MADE_TREE 4u /* the first one that clients make */

static inline uint32_t tree_of_cell(uint32_t key)
{
    return MADE_TREE + key - 1;
}

/* What the list says of a tree that clients made; a cell, or what a call gives. */
struct made {
    uint32_t id, leaf_bytes, alignment; /* given: 0 says nothing */
    enum made_mode { MADE_EITHER, MADE_MUST_EXIST, MADE_MUST_CREATE } mode; /* given */
};

static inline uint64_t made_pack(struct made made)
{
    return (uint64_t)made.id << 40 | (uint64_t)made.leaf_bytes << 16 | (uint64_t)made.alignment << 8 | (uint64_t)made.mode << 2;
}

static inline struct made made_unpack(uint64_t word)
{
    return (struct made){.id = (uint32_t)(word >> 40), .leaf_bytes = word >> 16 & 0xffffff, .alignment = word >> 8 & 0xff,
                         .mode = (enum made_mode)(word >> 2 & 3)};
}

static inline uint32_t cells_of(uint32_t tree)
{
    return tree == VERSIONED_TREE ? VERSIONS * VERSIONED_KEYS : tree == LIST ? LIST_CELLS : KEYS;
}

/* What a store has. 0: absent; NEVER: nobody can say any more what it is. */
struct contents {
    uint64_t cells[SIM_TREES][CELLS];
};

/* ---- What was done ---------------------------------------------------------------------------------------------- */

enum op_kind {
    OP_PUT, /* the first seven write */
    OP_DELETE,
    OP_INSERT,
    OP_SWAP,
    OP_ADD,
    OP_RAISE,    /* the safe version */
    OP_MAKE,     /* a tree, or open it, or give it other sizes */
    OP_READ,     /* newest: by copy, under a guard, or of many keys, in a scan or by their names, which is one of each; so is READ_OLD */
    OP_READ_OLD, /* with a snapshot */
    OP_ASK,      /* whether the safe version is above `expected`, which a read or a write has been told by the way */
    OP_SNAPSHOT,
    OP_SYNC,
    OP_WAIT,
    OP_CHECKPOINT,
    OP_MAINTAIN,
    OP_VERIFY,
    OP_KINDS
};

/* A frame that a write has reserved. Its LSN is at least `position`, and no frame of another lies between. */
struct attempt {
    uint64_t position, time;
    uint64_t lsn; /* of a record of the list of trees, whose size is known; else 0 */
};

struct op {
    enum op_kind kind;
    uint8_t client, tree, key;
    bool durable;
    int result;
    uint64_t begin, end; /* times of the life; NEVER: under way */
    uint64_t shown;      /* raise, make: when somebody else was told of it first */
    uint64_t lsn;        /* of a write that was done; of a value read under a guard; of a snapshot */
    bool least;          /* the LSN is this or higher, and no other write's lies between: its write answered UNKNOWN */
    uint64_t cell;       /* written, summed up or read */
    uint64_t expected;   /* swap: a cell; delete: whether it said that there was one, or NEVER; make: what was given */
    uint64_t delta;
    struct attempt attempts[MOST_ATTEMPTS]; /* the last one is that which was done, if one was */
    uint32_t attempt_count;                 /* more: those in the middle are not kept */
};

static inline bool op_writes(const struct op *op)
{
    return op->kind <= OP_MAKE;
}

/* The last attempt that was noted. */
static inline const struct attempt *op_last_attempt(const struct op *op)
{
    return &op->attempts[op->attempt_count < MOST_ATTEMPTS ? op->attempt_count - 1 : MOST_ATTEMPTS - 1];
}

/* It was done, and that is known. */
static inline bool op_was_done(const struct op *op)
{
    return op_writes(op) && op->end != NEVER && op->result == 0;
}

/* It was done, and others see it; what it leaves is known (0), or to be seen after the next opening (UNKNOWN). */
static inline bool op_took_effect(const struct op *op)
{
    return op_was_done(op) || (op_writes(op) && op->end != NEVER && op->result == QUIRE_ERR_UNKNOWN);
}

/* ---- Lives ------------------------------------------------------------------------------------------------------ */

struct life;

/* A disk, and what it may show. */
struct image {
    struct simdisk *disk;
    const struct life *from; /* NULL: an empty disk */
    uint64_t time;           /* of that life, when it was cut */
    uint64_t durable_lsn;    /* what was done up to it must be there */
    bool all;                /* ... and whatever was done at all */
    bool trees;              /* ... and the trees */
    uint64_t max_lsn;        /* nobody may get one again up to this */
    uint32_t ids[LIST];      /* of the first trees; 0: not known */
    bool lied;               /* a sync of the log has answered 0 and done nothing, and nobody was told yet */
    bool lied_once;          /* ... or was: what is left of it in the log, and not needed any more, is a defect to a check */
    bool may_be_corrupt;     /* ... and the power has gone: some of it, or all, may be CORRUPT */
    uint64_t lie_durable_lsn; /* what was done up to it must be there all the same */
    char name[160];          /* how it came about, for a failure */
};

/* Of a seed: what all its lives have in common. */
struct plan {
    uint32_t clients, ops; /* of the first life */
    enum sched_kind kind;
    unsigned switch_percent;
    uint32_t leaf_bytes, keys;
    bool mixed, buffered;
    unsigned off_percent, durable_percent, large_percent, fault_percent, checkpoint_percent, conditional_percent, read_percent,
        burst_percent, hot_percent, opening_fault_percent, raise_percent,
        make_percent, memory_percent; /* hot: on one key */
    uint32_t level;
    uint64_t blob_threshold, log_cap;
    unsigned depth;
    enum simdisk_failed_sync failed_sync;
};

/* At the so manieth point of a kind after so many operations were begun. */
struct planned_cut {
    enum cut_point {
        CUT_ANYWHERE,
        CUT_AT_DISK,
        CUT_IN_WINDOW,
        CUT_IN_RACE,   /* another has written the same key */
        CUT_IN_MAKING, /* ... a tree, or right after */
        CUT_POINTS
    } point;
    uint64_t at_op, delay;
};

struct life {
    const struct plan *plan;
    struct image image; /* that it began with */
    unsigned depth;
    struct random_stream random;
    struct simdisk *disk;
    struct quire *db;
    struct quire_tree *trees[SIM_TREES];
    bool buffered, off, accepted, trees_known;
    bool closing_syncs;

    struct contents base;                 /* what the opening showed */
    uint64_t base_lsns[SIM_TREES][CELLS]; /* ... and with what LSNs; 0: not known, or nothing is there */
    uint64_t time;     /* counts what is noted below */
    struct op *ops;
    uint32_t op_count;
    uint32_t *order; /* of what was done, by LSN; after the clients have ended */
    uint32_t order_count;
    uint64_t returned_lsn, durable_lsn; /* the highest of a write that has returned; all up to it are durable */
    uint64_t max_lsn;
    uint64_t written[SIM_TREES][CELLS]; /* when a write of the key has ended last */

    uint64_t safe;          /* the highest safe version that anybody was told of */
    bool made[LIST_CELLS];  /* somebody was told that the tree is there */
    bool limited;           /* memory may have come to its limit */
    int64_t ballast_bytes;  /* what counts against the limit, and is not the store's */

    struct random_stream streams[SCHED_CLIENTS];
    struct op *current[SCHED_CLIENTS];  /* the operation under way */
    enum window { NO_WINDOW, WINDOW_OPEN, WINDOW_NOTED } window[SCHED_CLIENTS]; /* the slot; NOTED: an attempt of it is */
    uint64_t resumed_at[SCHED_CLIENTS]; /* the log's tail when the client went on last */
    uint32_t ops_each, client_count;

    struct planned_cut planned[MOST_CUTS];
    uint32_t planned_count, begun;
    struct image cuts[MOST_CUTS];
    uint32_t cut_count;
    uint64_t opening_cut, disk_ops; /* the operation of the disk, outside of the clients' time, at which one is cut; 0: none */

    uint64_t fault_at_op; /* 0: none */
    bool fault_set;       /* on the disk, as its number 0 */
    bool faulty, hurt;  /* a fault may be there; one has come about: nothing but what is durable binds in this boot */
    bool fault_hurts;   /* the one that was set is of the kind that does */
    bool still_mounted; /* it was a sync that failed once */
    bool log_failed;    /* the engine knows */
    uint32_t defects_explained, defects; /* that a check has told */
    bool reverted;      /* a sync has failed, and the old content came back */
    /* A sync has lied: of the log (what is told when the store is opened in this boot), or of others; and how many had before. */
    enum lie { NO_LIE, LIE_OF_LOG, LIE_OF_OTHERS } lie;
    uint64_t lies_before, lie_durable_lsn, lie_checkpoint; /* the number of the last checkpoint before it */
    bool sync_of_log; /* the last one that began was of a segment with frames */
    bool needs_mount;   /* an opening has met what a file system does not get over without being mounted again */
    int opening_error;  /* of its fault; 0: short counts */
    bool opening_for_good, opening_full; /* full: the space ends, and no operation fails otherwise */
    uint64_t opening_fired;
    uint32_t opening_hits;          /* bits: the kinds of operations that it hit */
    enum simdisk_kind opening_last; /* the operation under way */
};

/* The operation is noted as begun; NULL: there is no room. */
struct op *life_begin_op(struct life *life, unsigned client, enum op_kind kind, uint32_t tree, uint32_t key);
void life_end_op(struct life *life, struct op *op, int result);
/* A read that has not said anything of its cell. */
void life_drop_op(struct life *life, struct op *op);
/* Everything up to it is durable. */
void life_is_durable(struct life *life, uint64_t lsn);

/* Lives the image, and all that are cut out of it. Frees its disk. */
void life_run(const struct plan *plan, const struct image *image, unsigned depth, uint64_t seed);

/* ---- Faults ----------------------------------------------------------------------------------------------------- */

/* While clients work: sets the one that is planned, sees what became of it, ends it. */
void fault_if_due(struct life *life);
void fault_end(struct life *life);
/* It has hit an operation. */
bool fault_fired(const struct life *life);
/* An answer that a fault explains. */
bool fault_may_answer(int result);

/* What a sync that lied takes away: before anything else is taken for durable, and of an image. */
void fault_see_lie(struct life *life);
void fault_note_sync(struct life *life, const char *name);
void fault_mark_image(struct life *life, struct image *image, bool death);
/* Whether a check may find this: what a lie has left in the log where it is not needed. */
bool fault_defect_explained(struct life *life, const struct quire_defect *defect);
/* The answer of a check, without that. */
int fault_of_check(struct life *life, int result);
/* Whether it is CORRUPT for a lie, and of no more use. */
bool fault_lie_explains(const struct life *life, int result);
/* A large value that no sync has covered may be CORRUPT when the old content is back. */
bool fault_may_corrupt(const struct life *life, int result);

/* While the store is opened: before; before each operation of the disk; after it, whether the answer can be. */
void fault_set_for_opening(struct life *life);
void fault_follow_opening(struct life *life, enum simdisk_kind kind);
void fault_end_of_opening(struct life *life, int result);

/* ---- Memory ----------------------------------------------------------------------------------------------------- */

/* Of a seed with a limit of memory (memory.c): before an operation, how much is left may change. */
void memory_if_due(struct life *life, struct random_stream *random);
/* An answer that the limit explains. */
bool memory_may_answer(const struct life *life, const struct op *op);
/* Under a guard: others may find that it holds what they need. */
void memory_hold(const struct life *life, unsigned client);
/* When clients have ended. */
void memory_end(struct life *life);

/* ---- Clients ---------------------------------------------------------------------------------------------------- */

void client_run(struct life *life, unsigned number);
/* A write by chance, of this kind. */
void client_write(struct life *life, unsigned client, struct random_stream *random, enum op_kind kind, uint32_t tree, uint32_t key);
/* A cell of the others as it is now, and its LSN (0: absent), without noting it: 0 or a failing result. */
int client_look(struct life *life, uint32_t tree, uint32_t key, uint64_t *ret_cell, uint64_t *ret_lsn);
/* Whether bytes are what their beginning says; and that, the cell. */
bool client_decode(const struct life *life, uint32_t tree, uint32_t key, const void *bytes, size_t size, uint64_t *ret_cell);

/* Of the tree with caller versions, `cell` says which key and version. */
uint32_t version_cell(const struct life *life, struct random_stream *random);
bool version_deletes(uint32_t cell);
int version_write(struct life *life, uint32_t cell, bool deletes, const void *value, size_t size, unsigned flags, uint64_t *ret_lsn);
void version_get(struct life *life, unsigned client, struct random_stream *random, uint32_t cell);
void version_scan(struct life *life, unsigned client, struct random_stream *random);
/* All cells as they are now, those that nobody can say NEVER, and their LSNs (0: as above); 0 or a failing result. */
int version_look(struct life *life, struct contents *ret_contents, uint64_t (*ret_lsns)[CELLS]);
/* Writes version 0 of each key. */
int version_begin(struct life *life);

/* The list of trees (list.c): the name of the tree that a cell of it is about; the LSN of a record that has just been reserved, and of the
 * newest one (0: none), which changes nothing. */
const char *list_name(uint32_t key);
uint64_t list_reserved_lsn(const struct life *life, uint32_t key);
int list_record_lsn(struct life *life, uint32_t key, uint64_t *ret_lsn);
/* All its cells as they are now, and their LSNs. Trees that are there are opened. 0 or a failing result. */
int list_look(struct life *life, struct contents *ret_contents, uint64_t (*ret_lsns)[CELLS]);
/* Somebody was told of what this call does, which may not have returned. */
void list_told(struct life *life, struct op *op);

/* Trees that clients make (make.c). What such a call writes, once it has reserved. */
uint64_t make_written(struct life *life, const struct op *op);
void make_tree(struct life *life, unsigned client, struct random_stream *random, uint32_t key);
int make_look(struct life *life, uint32_t key, uint64_t *ret_cell);
/* Whether what a call wrote goes with what was there; whether an answer does. */
bool make_fits(const struct op *op, uint64_t before);
bool make_explains(const struct op *op, uint64_t cell);

/* The safe version (safe.c). Before a write of a version, and when it has been answered: whether it was refused is right, or wrong. */
struct op *safe_begin_ask(struct life *life, unsigned client, uint64_t version);
void safe_end_ask(struct life *life, struct op *op, int result);
void safe_raise(struct life *life, unsigned client, struct random_stream *random);
void safe_read(struct life *life, unsigned client);
/* The safe version as it is now; 0 or a failing result. It refuses what it has to. */
int safe_look(struct life *life, uint64_t *ret_cell);

/* ---- Judges ----------------------------------------------------------------------------------------------------- */

/* Puts the writes in order, and looks at every answer. */
void history_check(struct life *life);
/* What the life holds in the end. */
void history_last(const struct life *life, struct contents *ret_contents);
/* Whether the image may show this. */
bool expect_check(const struct image *image, const struct contents *shown, char *text, size_t size);
/* ... and the LSN of what it shows there. */
bool expect_lsn(const struct image *image, uint32_t tree, uint32_t key, uint64_t cell, uint64_t lsn);

/* ---- The run ---------------------------------------------------------------------------------------------------- */

struct sim_counts {
    uint64_t seeds, lives, images, ops[OP_KINDS], writes_done, failed_writes, unknown_writes;
    uint64_t points, switches, waits, jumps;
    uint64_t cuts[SIMDISK_RANDOM + 1], cuts_opening, cuts_closing, reopened;
    uint64_t faults_set, faults_fired;
    uint64_t lies, lied_images, lied_corrupt, reverted_corrupt; /* lied_corrupt: of these images, refused or not all read */
    uint64_t opening_set, opening_fired, opening_refused, opening_hits[SIMDISK_KINDS];
    uint64_t retried; /* writes that reserved more than once */
    uint64_t raised, refused; /* safe versions; what lay below them */
    uint64_t no_memory, stalled, limits; /* answers; how often it was changed how much is left */
    uint64_t made, adopted, opened, made_found; /* trees: made, given other sizes, opened; found by openings of the store */
    uint64_t splits, merges, consolidations, checkpoints, log_segments;
};
extern struct sim_counts sim_counts;
extern bool sim_trace;
extern uint64_t sim_failures;

/* Reports a failure with the command that repeats it. */
void sim_fail(const struct life *life, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
