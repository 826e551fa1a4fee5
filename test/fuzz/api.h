/*
 * api.h: the world in which the API target's programs run, and the model beside it.
 *
 * Test programs (fuzz): shared by api.c, which has the program's steps, and api_misuse.c, which has those that are wrong.
 */
#ifndef TEST_FUZZ_API_H
#define TEST_FUZZ_API_H

#include "db/db.h"
#include "fuzz/fuzz.h"
#include "lib/keys.h"
#include "lib/oracle.h"

enum { TREES = 3, CALLER_TREE = 2, SNAPSHOTS = 3, GUARDS = 3, VALUE_MOST = 9000, KEY_ROOM = 512 };

struct api_tree {
    struct quire_tree *handle;
    struct oracle *oracle;
    uint64_t safe; /* of the tree with versions of the caller's; 0: none was set */
};

struct api {
    struct fuzz_input input;
    struct simdisk *disk; /* NULL: in memory */
    struct quire *db;
    uint32_t level;
    uint64_t blob_threshold;
    struct api_tree trees[TREES];
    struct quire_snapshot *snapshots[SNAPSHOTS];
    struct quire_guard guards[GUARDS];
    bool pinned[GUARDS], ended[GUARDS]; /* ended: it was pinned once in this database */
    uint64_t written;                   /* number of the write, which its value has */
};

/* A number from the program below `bound`. */
static inline uint64_t api_draw(struct api *api, uint64_t bound)
{
    return fuzz_take_number(&api->input, bound > 256 ? 2 : 1) % bound;
}

static inline bool api_is_caller(const struct api *api, const struct api_tree *tree)
{
    return tree == &api->trees[CALLER_TREE];
}

/* A guard is open. */
static inline bool api_is_held(const struct api *api)
{
    bool held = false;
    for (int i = 0; i < GUARDS; i++)
        held = held || api->pinned[i];
    return held;
}

struct api_key {
    uint8_t data[KEY_ROOM];
    size_t size;
};
void api_draw_key(struct api *api, struct api_key *ret_key);
struct api_tree *api_draw_tree(struct api *api);

/* A call that is answered by what its contract says, and changes nothing. */
void api_misuse(struct api *api);

#endif
