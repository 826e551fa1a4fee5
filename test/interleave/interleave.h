/*
 * The interleaving test's common ground: threads that stop at named points, and a small database whose content is
 * known.
 *
 * Test program (interleave). The controller is the main thread. It starts actors, which are stopped at a point that
 * their operation passes, and then does itself what "the others" do: so nothing in a run depends on chance, and "nobody
 * waits for a stopped thread" means that the controller gets on. A watchdog ends the program, with the names of case
 * and step, when it does not.
 *
 * WORLD-1  The model says what each key holds. A write of an actor that is stopped is pending: its key may show the
 *          state before or after, but after the new one was seen the old one may not come back.
 * WORLD-2  While an actor has a write pending the controller leaves its key alone, unless the case says what then
 * holds.
 */
#ifndef TEST_INTERLEAVE_INTERLEAVE_H
#define TEST_INTERLEAVE_INTERLEAVE_H

#include <pthread.h>

#include "db/testing.h"
#include "lib/check.h"
#include "lib/keys.h"

#include <quire/quire.h>

/* ---- The world -------------------------------------------------------------------------------------------------- */

#define WORLD_KEYS 240u /* key numbers 0 to 239 */
#define WORLD_ACTORS 3u
#define VALUE_BYTES_MAX 1000u

/* What a key holds: 0 = nothing, else the id that its value was made from. */
struct cell {
    uint64_t id;
};

enum world_size {
    WORLD_TINY, /* one leaf, the root, nearly full */
    WORLD_LOW,  /* a root with a few leaves */
    WORLD_HIGH, /* three levels or more */
    WORLD_SIZE_COUNT
};

struct actor;

struct world {
    struct quire *db;
    struct quire_tree *tree;
    enum world_size size;
    uint32_t key_count; /* even numbers below it are present at the beginning */
    uint32_t value_size;
    uint64_t next_id;
    struct cell cells[WORLD_KEYS];
    pthread_mutex_t mutex; /* of the cells: actors run beside the controller after their release */
    struct actor *actors[WORLD_ACTORS];
    uint32_t actor_count;
};

struct world_options {
    enum world_size size;
    uint32_t chain_length; /* 0 = 2: structure changes come soon */
    uint32_t value_size;   /* 0 = 56 */
    uint32_t leaf_size;    /* 0 = 512: only empty leaves are underfull */
    bool store;            /* pages can be dropped */
    bool background;       /* a thread reclaims; else nobody but quire_maintain */
};

/* Opens the database, fills and consolidates the tree. */
bool world_open(struct world *world, const struct world_options *options);

/*
 * After all actors were joined: maintains until nothing is left, checks content and structure; deletes everything and
 * checks that one empty leaf and no page id is left over; closes.
 */
void world_close(struct world *world);

/* Key `number` as bytes; returns the size. */
size_t world_key(uint32_t number, char *key);

/* Single writes, checked and entered into the model. put: a new value of the world's usual size. */
void world_put(struct world *world, uint32_t number);
void world_put_sized(struct world *world, uint32_t number, uint32_t size);
void world_delete(struct world *world, uint32_t number);

/* The id that the key's value was made from, 0 if there is none: what a read answers now. */
uint64_t world_read(struct world *world, uint32_t number);

/* Whether the key may show this id now; an answer that decides a pending write decides it for ever. */
bool world_may_show(struct world *world, uint32_t number, uint64_t id);

/* One read of each kind against the model. */
void world_check_get(struct world *world, uint32_t number);
/* All keys: by copy, under a guard, many at once; then by pages, ascending and descending. */
void world_check_gets(struct world *world);
void world_check_scan(struct world *world, bool reverse);
void world_check_all(struct world *world);

/* A snapshot taken now, and what it must show for ever. */
struct world_snapshot {
    struct quire_snapshot *snapshot;
    struct cell cells[WORLD_KEYS];
    bool unsure[WORLD_KEYS]; /* an actor's write was pending */
};
void world_snapshot_take(struct world *world, struct world_snapshot *ret_snapshot);
void world_snapshot_check(struct world *world, const struct world_snapshot *snapshot);
void world_snapshot_release(struct world_snapshot *snapshot);

/* The leaf boundaries as a scan shows them: first key of the leaf that holds the key, or UINT32_MAX if it is absent. */
uint32_t world_leaf_first(struct world *world, uint32_t number);

/* ---- Actors ----------------------------------------------------------------------------------------------------- */

typedef void actor_fn(struct actor *actor);

struct actor {
    struct world *world;
    actor_fn *body;
    uint32_t focus;   /* the key number about which it works */
    uint32_t count;   /* the case's own: how many keys */
    void *argument;   /* the case's own */
    int result;       /* the case's own */
    const char *stop; /* the point at which it stops; NULL: nowhere */
    uint32_t nth;     /* at the nth time that it comes by, from 1 */

    /* Below: of actor.c. */
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    uint32_t passed; /* how often it came by the point */
    bool stopped, released, ended;

    /* The write under way; under the world's mutex. */
    bool pending, pending_seen;
    uint32_t pending_key;
    uint64_t pending_id;
};

/* Starts the body in a thread. Fields up to nth are the caller's; false if it ended without stopping. Returns when it
 * has stopped or ended. */
bool actor_start(struct actor *actor);

/* As actor_start, but returns at once; see actor_wait. */
void actor_launch(struct actor *actor);
/* Waits until it has stopped (true) or ended (false). */
bool actor_wait(struct actor *actor);
/* Whether it has ended within so many milliseconds. */
bool actor_ends_within(struct actor *actor, unsigned milliseconds);

/* Lets a stopped actor go on, and waits for its end. */
void actor_finish(struct actor *actor);
/* Lets a stopped actor go on to another stop; false if it ended. */
bool actor_go_on(struct actor *actor, const char *stop, uint32_t nth);
/* Lets it go on, and does not wait. */
void actor_release(struct actor *actor);

/* Writes of an actor: pending while under way. */
void actor_put(struct actor *actor, uint32_t number);
void actor_delete(struct actor *actor, uint32_t number);
/* A read of an actor: may show what the key held when it began, or what it holds when it ends. */
void actor_get(struct actor *actor, uint32_t number);

/* ---- Progress --------------------------------------------------------------------------------------------------- */

/* Names what is going on, and gives it the time of the watchdog. The texts are copied. */
void progress_case(const char *name);
void progress_step(const char *name);
void progress_begin(uint64_t limit_ms);
void progress_end(void);

/* ---- Windows ---------------------------------------------------------------------------------------------------- */

/* What the controller may find out of the step that a window opens. */
enum window_flags {
    WINDOW_VISIBLE = 1,   /* the write that is under way can be seen */
    WINDOW_INVISIBLE = 2, /* it cannot */
    WINDOW_SLOT = 4,      /* the slot is open: new snapshots wait */
    WINDOW_STORE = 8,     /* needs pages that can be dropped */
    WINDOW_WAITS = 16,    /* the operation may wait later on: for a slot, or for sections to end */
};

/* A stop point and an operation that passes it. */
struct window {
    const char *stop;
    actor_fn *body;
    unsigned flags;
};

extern const struct window windows[];
extern const uint32_t window_count;

/* What others do while an actor is stopped. */
struct work {
    const char *name;
    void (*run)(struct world *world, uint32_t focus);
    bool store; /* needs pages that can be dropped */
};

extern const struct work works[];
extern const uint32_t work_count;

/* ---- Modes ------------------------------------------------------------------------------------------------------ */

/* A case: its name is its sentence. */
struct interleave_case {
    const char *name;
    void (*run)(void);
};
extern const struct interleave_case structure_cases[], write_cases[], memory_cases[];

/* every: only each so-manieth combination, from the seed on. */
void run_windows(const char *only, uint64_t every, uint64_t seed);
void run_pairs(const char *only, uint64_t every, uint64_t seed);

/* Whether the program is to end: a check has failed. */
static inline bool failed(void)
{
    return check_failures() != 0;
}

#endif
