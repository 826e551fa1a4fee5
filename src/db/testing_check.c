/*
 * testing_check.c: the structure of a tree, checked page by page while nobody writes.
 *
 * Layer 6, testing library only.
 */
#include <stdio.h>

#include "db/testing.h"
#include "db/verify.h"

struct note {
    char *message;
    size_t size;
};

static int note(void *context, const struct quire_defect *defect)
{
    const struct note *note = context;
    snprintf(note->message, note->size, "page %llu: %s", (unsigned long long)defect->page_id, defect->text);
    return 1;
}

int qr_testing_check(struct quire_tree *tree, char *message, size_t size)
{
    struct note to = {message, size};
    struct qr_verify v = {.callback = note, .context = &to};
    message[0] = 0;
    int result = qr_db_begin_tree(tree, &v.thread);
    if (result != 0) return result;
    v.db = tree->db;
    return qr_verify_tree(&v, tree);
}
