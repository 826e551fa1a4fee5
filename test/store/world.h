/*
 * world.h: a page store with its manifest, and what has to be in it.
 *
 * Tests of src/store. Pages are numbers; what a page contains follows from its id and its generation, which grows with
 * each image, so that an oracle is an array of generations: `current` now, `durable` at the last checkpoint, `next` at
 * the one whose manifest record is under way.
 */
#ifndef TEST_STORE_WORLD_H
#define TEST_STORE_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/random.h"
#include "lib/simdisk.h"
#include "store/store.h"

#define PAGES 160u

struct world {
    /* Set before world_open. */
    struct simdisk *sim; /* NULL: real files at `path` */
    struct qr_disk *disk;
    const char *path;
    struct qr_store_options options;
    uint32_t least_bytes, most_bytes; /* of a page */
    bool may_fail;                    /* faults are planned: what fails has to leave everything as it was */
    bool only_reads;
    bool plain; /* checkpoints capture and commit, and write no page in between */

    struct random_stream random;
    struct qr_dir *dir;
    struct qr_manifest *manifest;
    struct qr_store *store;
    struct qr_manifest_checkpoint checkpoint; /* in force */
    bool has_checkpoint, dead;                /* dead: store or manifest has failed for good */

    uint64_t generation;
    uint64_t current[PAGES], durable[PAGES], next[PAGES]; /* 0: no page */
    bool next_possible;                                   /* its record may be in the manifest */
    uint64_t failures;                                    /* calls that failed */
};

/* Ids are spread over blocks, nodes and levels. */
uint64_t world_pid(uint32_t page);

/* Opens, or creates, directory, manifest and store. 0 or a negative result; nothing is open then. */
int world_open(struct world *world);
void world_close(struct world *world);

/* Every page reads as `generations` say. Returns the number of differences; each is a failed check. Those that
 * answered CORRUPT are counted apart if ret_corrupt is not NULL. */
uint64_t world_compare(struct world *world, const uint64_t *generations, uint64_t *ret_corrupt);
bool world_is(struct world *world, const uint64_t *generations);

/* One random thing: pages written, entered, forgotten, removed; a checkpoint; reads. */
void world_step(struct world *world);
void world_write(struct world *world, uint32_t count);
void world_write_page(struct world *world, uint32_t page);
void world_remove(struct world *world, uint32_t page);
/* 0 if it is durable. abandon: the manifest is left as it is. */
int world_checkpoint(struct world *world, bool abandon);

#endif
