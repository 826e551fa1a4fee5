/*
 * What the parts of crash_power share: a store on a simulated disk, the model of what is in it, and its cutting.
 *
 * power.c command line and the work; power_model.c values and states; power_run.c operations of a store, each against the
 * model; power_cut.c crash images and what is asked of them; power_script.c scripted cases; power_fault.c failing disks
 * and allocations.
 *
 * A run is the life of one store: its disk, its handle, the state after each operation. An image that is cut out of a run
 * is a run of its own, whose states begin with those that the image may have. Everything in a run follows from its seed,
 * so a run is named by the seed of the program, the scenario and the path of cuts: `12.3/7.0` is plan 0 at event 7 of the
 * run that began with plan 3 at event 12.
 */
#ifndef TEST_CRASH_POWER_H
#define TEST_CRASH_POWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <stdlib.h>

#include <quire/quire.h>

#include "crash/power_model.h"
#include "lib/random.h"
#include "lib/simdisk.h"

#define STORE "store"
#define MOST_OPS 400u
#define MOST_PATH 8u
#define SEGMENT_BYTES 16384u

/* ---- Runs ------------------------------------------------------------------------------------------------------- */

/* Of a scenario: what all runs of it have in common. */
struct setup {
    const char *name;
    uint32_t operations;
    bool buffered, mixed; /* mixed: images are opened in either way */
    uint32_t level;       /* of the database */
    uint32_t off_percent; /* openings with disable_log */
    uint32_t durable_percent;
    uint32_t large_percent;
    uint64_t sync_volume_bytes; /* quire_maintain syncs beyond it */
    uint64_t blob_threshold;    /* 0: no value is a blob */
    uint32_t checkpoint_percent;
    bool lies; /* syncs may lie: the states are kept, not their hashes alone */
};

enum failure_kind { NOT_FAILED, SYNC_FAILED };

/*
 * A sync has answered 0, and nothing was written (SIMDISK_FAILED_LATE). No acknowledgement that counts on it can be right. What
 * is promised then: LIE-1 to LIE-4 in power_fault.c.
 */
enum lie { NO_LIE, LIE_OF_LOG, LIE_OF_OTHERS };

struct run {
    const struct setup *setup;
    struct run *parent;
    unsigned depth;
    uint64_t event, plan; /* where it was cut out of its parent */
    uint64_t seed, cut_seed; /* of what is done, and of which images are made */
    struct random_stream random;

    struct simdisk *disk;
    struct quire *db;
    struct quire_tree *trees[TREES];

    /* hashes[n]: of the state after n operations. What must be there: durable <= n <= issued after power loss, process <= n
     * after death. */
    struct state now;
    uint64_t hashes[MOST_OPS + 1];
    uint64_t issued, process, durable;
    uint64_t low;     /* what the image that the run began with must have: durable or process of the parent */
    uint64_t max_lsn; /* that anybody was told, in this run or before */
    uint64_t max_lsn_operation; /* of this run: 0, none */
    uint64_t version; /* of caller-versioned writes */
    uint8_t *value, *expected; /* of the operation under way: others run in its midst, on images */

    uint64_t stops; /* stop points passed: events, too */
    /* Without a log: nothing but a checkpoint survives. */
    bool off;                 /* since the last opening */
    bool accepted;            /* it was opened, and its content looked at */
    bool ends_only;           /* before that: the content is the first or the last of the states, none between */
    uint64_t checkpoint;      /* under way, after so many operations; 0: none is */
    enum failure_kind failed;
    bool faulty;        /* a fault may be set: results other than 0 are legal */
    bool no_sync; /* closing does not sync */
    bool lasting;       /* it fails again when asked again */
    bool unseen; /* a fault kept the last look from what it looked at */
    bool hurt;   /* a fault has come about: within this boot nothing but what is durable is promised */
    bool nameless; /* a sync of the directory has failed: names that are seen need not be there, ever */
    uint64_t share; /* percent of the usual number of images; 0: all */
    bool lost_power;    /* its disk is one after power loss */
    enum lie lie;
    uint64_t lie_durable; /* what was durable before it */
    uint64_t lie_checkpoint; /* number of the last checkpoint before it */
    bool may_refuse;      /* of an image: LIE-4, not LIE-1 */
    uint64_t late_before; /* late errors that had been answered then */
    bool reverts;         /* a failed sync brings the old content back: blobs that it was for are gone */
    uint32_t corrupt_trees; /* bits of those that could not be opened after a lie */
    struct state *states; /* with lies: those whose hashes there are */
    bool extra_known;   /* the key `extra` of tree 0 must be there */
    bool extra_used;    /* it may be */
};

extern uint64_t power_images, power_depths[MOST_PATH], power_opens, power_failures;
/* After a lie: images that were refused, those with parts that cannot be read, and those that were whole. */
extern uint64_t power_lied_refused, power_lied_partly, power_lied_whole;
extern uint64_t power_digest;   /* of the operations of disks and of what was found: the same for the same seed */
extern uint64_t power_verified; /* images that quire_verify was asked of */
extern uint64_t power_lost_blobs; /* that a sync had brought to their old content: looked for, and CORRUPT */
/* A fault, or whatever a run shall have had, came about so often. */
void power_fired(const char *what, uint64_t count);
extern uint64_t power_most_failures; /* after so many a run ends */
extern bool power_trace;

/* Reports a failure with the command that repeats it. */
void power_fail(const struct run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));

struct run *run_create(const struct setup *setup, uint64_t seed);
void run_free(struct run *run);
/* Opens the store; what it answers. Trees are opened as far as they are there. */
int run_open(struct run *run, uint32_t mode);
int run_close(struct run *run);
/* The same in the midst of a fault; nothing was promised since it was opened. */
void run_give_up(struct run *run);
/* Reads everything, and says which state it is: from run->low to issued. That state is the run's first one then. If a fault
 * keeps it from that the store is closed, and nothing has changed. */
bool run_accept(struct run *run);
/* After a lie about others than the log, and power loss: the same for what can be read; all else is CORRUPT. *ret_whole: nothing
 * is. False: it is not right. */
bool run_accept_part(struct run *run, bool *ret_whole);
/* Everything must be as the model says. */
bool run_check(struct run *run);
/* The next operation by chance, or a durable write; false: it went wrong and was reported. */
bool run_operation(struct run *run);
bool run_durable_write(struct run *run);
bool run_put(struct run *run, uint32_t tree, uint32_t key, unsigned flags);
bool run_sync(struct run *run);
bool run_checkpoint(struct run *run);
/* Creates the tree. */
bool run_tree(struct run *run, uint32_t tree);
/* Closes and opens again in good order. */
bool run_reopen(struct run *run);

/* ---- Cutting ---------------------------------------------------------------------------------------------------- */

/* Makes images of the run's disk at every operation of it and at every stop point, as deep as asked. */
void cut_begin(struct run *run);
void cut_end(struct run *run);
/* Images of right now, of the run and of nobody in its midst. */
void cut_here(struct run *run);
/* Verifies the images that were made at stop points. */
void cut_pending(struct run *run);
/* Two images of right now, whatever the effort: what is durable and nothing else, and a torn one. */
void cut_always(struct run *run);
/* The run goes on after a crash. */
void cut_off(struct run *run, const struct simdisk_crash *crash);

extern unsigned cut_depth;   /* levels of images */
extern uint64_t cut_effort;  /* percent of the usual number of images */
extern uint64_t cut_only[MOST_PATH][2];
extern unsigned cut_only_count;

/* ---- Scenarios -------------------------------------------------------------------------------------------------- */

struct scenario {
    const char *name;
    void (*act)(const struct scenario *scenario, uint64_t seed);
    struct setup setup;
    uint32_t variant;
};
extern const struct scenario power_scripts[], power_faults[];
extern const uint32_t power_script_count, power_fault_count;

/* For the replay command. */
extern uint64_t power_seed;
extern const struct scenario *power_scenario;

#endif
