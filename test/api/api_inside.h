/*
 * Shorthand for the tests of the public interface that look behind it: the end of a process, the structure of a tree.
 *
 * Test programs (api).
 */
#ifndef TEST_API_API_INSIDE_H
#define TEST_API_API_INSIDE_H

#include "api.h"

#include "db/db.h"
#include "db/testing.h"

/* Ends the database as the death of its process would, but that memory is freed: nothing is synced or written any more. */
HELPER void abandon(struct quire *db)
{
    db->options.no_sync_at_close = 1;
    OK(quire_close(db));
}

HELPER void check_structure(struct quire_tree *tree)
{
    char message[256] = "";
    int result = qr_testing_check(tree, message, sizeof(message));
    struct quire_error_detail detail;
    quire_error_detail(&detail);
    cr_assert(result == 0, "%d %s (%s)", result, message, detail.message);
}

#endif
