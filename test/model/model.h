/*
 * The model test's shared state: a database, its trees with an oracle each, and what is held open meanwhile.
 *
 * Test program (model). One thread drives everything, so every answer of the engine has exactly one right value.
 *
 * MODEL-1  Between two operations each tree holds what its oracle says, at every version that can be asked for.
 * MODEL-2  The first difference ends the run: later ones would follow from it.
 */
#ifndef TEST_MODEL_MODEL_H
#define TEST_MODEL_MODEL_H

#include "db/testing.h"
#include "lib/check.h"
#include "lib/keys.h"
#include "lib/oracle.h"

#include <quire/quire.h>

#define MODEL_TREES_MAX 8
#define MODEL_SNAPSHOTS_MAX 6
#define MODEL_HELD_MAX 16
#define MODEL_VALUE_MAX_BYTES 200000

/* What the command line says. */
struct model_options {
    uint64_t ops;
    uint64_t seed;
    const char *mode; /* engine, caller, both */
    uint64_t trees;
    uint64_t keys;
    uint64_t page_size_bytes; /* of leaves; 0 = each tree draws one */
    uint64_t inner_page_size_bytes;
    uint64_t chain;
    uint64_t drop_per_mille; /* operations in 1000 that are followed by a drop of pages; 0 = no test store */
    uint64_t threads;        /* background threads */
    uint64_t files;          /* 1: the database lies in a directory */
    uint64_t reopen;         /* with files: operations in 10000 that are followed by a reopening */
    uint64_t trace;          /* operations from this number on are printed; 0 = none */
};

enum model_phase { MODEL_GROW, MODEL_STEADY, MODEL_SHRINK, MODEL_PHASE_COUNT };

struct model_tree {
    struct quire_tree *handle;
    struct oracle *oracle;
    char name[16];
    bool caller_versions;
    bool long_keys;
    uint32_t value_alignment;
    uint64_t keys;
    enum model_phase phase;
    uint64_t collect_at; /* the oracle collects when it holds that many versions */

    /* Caller versions. */
    uint64_t frontier; /* versions in use lie around it; it grows */
    uint64_t safe;     /* 0 = not set */
    uint64_t last_version;
    uint64_t last_index; /* the key of the last write, for duplicates of (key, version) */
};

struct model_snapshot {
    struct quire_snapshot *handle;
    uint64_t lsn; /* the newest write when it was taken: what it must answer */
};

/* A value that a guard keeps alive, and what its bytes were. */
struct model_held {
    struct quire_value value;
    uint8_t *copy;
};

struct model {
    struct model_options options;
    struct random_stream random;
    struct quire *db;
    struct model_tree trees[MODEL_TREES_MAX];
    size_t tree_count;
    struct model_snapshot snapshots[MODEL_SNAPSHOTS_MAX];
    size_t snapshot_count;
    bool pinned;
    struct quire_guard guard;
    struct model_held held[MODEL_HELD_MAX];
    size_t held_count;
    uint64_t op;
    uint64_t last_lsn;
    uint64_t pages_dropped;
    char directory[256];
    uint64_t reopenings;
    bool read_only; /* opened so at present */
    bool no_log;    /* the same */
    bool failed;
    uint8_t *key; /* buffers of this one thread */
    uint8_t *other_key;
    uint8_t *value;
    uint8_t *read;
};

/* Checks, and ends the run if the condition does not hold. */
#define EXPECT(model, condition, ...) (CHECK(condition, __VA_ARGS__) || (model_stop(model), false))

/* A call answered what it should. The call is made once. */
#define EXPECT_RESULT(model, result, expected) model_expect_result(model, __FILE__, __LINE__, #result, result, expected)

bool model_expect_result(struct model *model, const char *file, int line, const char *text, int result, int expected);

void model_stop(struct model *model);

/* Draws a key of the tree into model->key. */
size_t model_draw_key(struct model *model, struct model_tree *tree, uint64_t *ret_index);
size_t model_draw_value(struct model *model, struct model_tree *tree);

/* Prints what happens, from operation --trace on. */
void model_trace(const struct model *model, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A version at which an engine tree can be read now: a snapshot, or NULL and UINT64_MAX. */
struct quire_snapshot *model_draw_snapshot(struct model *model, uint64_t *ret_version);

/* ---- Operations, one a function; all check their answers (writes.c, caller.c, reads.c, scans.c, upkeep.c) ----------
 */

typedef void model_operation(struct model *model, struct model_tree *tree);

model_operation model_put, model_delete, model_insert, model_compare_and_swap, model_add;
model_operation model_put_at, model_delete_at, model_get_at, model_guard_get_at, model_raise_safe, model_put_too_old;
model_operation model_refused;
model_operation model_get, model_get_copy, model_exists, model_guard_get, model_get_many;
model_operation model_scan, model_count;
model_operation model_take_snapshot, model_release_snapshot, model_guard, model_maintain, model_consolidate;
model_operation model_change_phase;

/* Deletes every key of a range that the oracle has, in ascending, descending or random order. */
void model_mass_delete(struct model *model, struct model_tree *tree, bool everything);

/* A write that the caller chooses nothing of; used between the steps of scans. */
void model_any_write(struct model *model, struct model_tree *tree);

/* Opens the database, in memory or in the directory; reopens it, which checks everything (files.c). */
bool model_make_directory(struct model *model);
void model_remove_directory(struct model *model);
bool model_open(struct model *model, uint32_t open_mode);
void model_reopen(struct model *model);

/* Flags of the next write: with files, a level now and then. */
unsigned model_draw_flags(struct model *model);

/* Everything held by the guard still has its bytes; ends the guard. */
void model_unpin(struct model *model);
void model_release_snapshots(struct model *model);
void model_drop_pages(struct model *model);
void model_check_structure(struct model *model);
void model_scan_everything(struct model *model, struct model_tree *tree);
/* Maintains until nothing is left to do. */
void model_settle(struct model *model);

#endif
