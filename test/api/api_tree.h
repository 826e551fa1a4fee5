/*
 * A database in memory with one tree, for suites whose every test begins with an empty one.
 *
 * Test programs (api). Included once, in place of api.h.
 */
#ifndef TEST_API_API_TREE_H
#define TEST_API_API_TREE_H

#include "api.h"

static struct quire *db;
static struct quire_tree *tree;

HELPER void open_database(void)
{
    db = open_quiet();
    tree = open_tree(db, NULL);
}

/* With leaves that split after a few records. */
HELPER void open_small_database(void)
{
    db = open_quiet();
    tree = open_small_tree(db, "small", QUIRE_VERSIONS_ENGINE);
}

HELPER void close_database(void)
{
    OK(quire_close(db));
}

#endif
