/*
 * The testing hooks of the engine, for tests that drop pages and force maintenance.
 *
 * Test library. The functions exist only in the testing library of the engine. Any thread unless said.
 */
#ifndef TEST_LIB_HOOKS_H
#define TEST_LIB_HOOKS_H

#if __has_include("db/testing.h")
#include "db/testing.h"
#else

#include <quire/quire.h>

/* From now on pages can be dropped: images are kept by an in-memory test store, reads go through fetch. */
int qr_testing_attach_store(struct quire *db);

/* Drops about `percent` of the leaves and inner pages at random to the test store; returns how many. */
uint64_t qr_testing_drop_pages(struct quire *db, uint64_t seed, unsigned percent);

/* Forces the consolidation of about `percent` of the leaves. */
int qr_testing_consolidate(struct quire_tree *tree, uint64_t seed, unsigned percent);

/* Structure check while nobody writes: 0, or negative with a message. */
int qr_testing_check(struct quire_tree *tree, char *message, size_t size);

#endif
#endif
