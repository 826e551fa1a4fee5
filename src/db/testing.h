/*
 * testing.h: what tests may do to a database behind its back.
 *
 * Layer 6, testing library only. The test store keeps images of pages in memory and gives them back on request, so that
 * the tree's dealings with pages that are not in memory run before there is a disk.
 */
#ifndef QR_DB_TESTING_H
#define QR_DB_TESTING_H

#include <stdint.h>

#include <quire/quire.h>

/* Gives the database a test store: from now on pages can be dropped. Before other threads use it. 0 or NO_MEMORY;
 * UNSUPPORTED for a database with files. */
int qr_testing_attach_store(struct quire *db);

/*
 * Drops about `percent` of the pages in memory, chosen by the seed: leaves whole, leaves down to a stub that keeps the
 * chain, inner pages. Any thread, at any time. Returns how many were dropped.
 */
uint64_t qr_testing_drop_pages(struct quire *db, uint64_t seed, unsigned percent);

/* Consolidates about `percent` of the leaves of a tree. 0 or a failure. */
int qr_testing_consolidate(struct quire_tree *tree, uint64_t seed, unsigned percent);

/*
 * Checks the structure of a tree while nobody writes: each page by itself, levels linked without gap or overlap, every
 * page reachable from its parent, no open structure change that is not finished by walking. 0, or a negative result with
 * a message.
 */
int qr_testing_check(struct quire_tree *tree, char *message, size_t size);

/*
 * The n-th read of a page from the store from now on fails, once, as one whose bytes do not verify (CORRUPT); 0 = none.
 * Any thread.
 */
void qr_testing_fail_read(struct quire *db, uint64_t n);

/* 1: openings from now on apply the log's records one by one, as writes are: the oracle of the faster way. No other opening may be
 * under way. */
void qr_testing_replay_singly(int on);

/* Pages that the test store holds. */
uint64_t qr_testing_stored_pages(struct quire *db);

#endif
