/*
 * What the steps of the quickstart share.
 *
 * Layer: tools. One thread.
 */
#ifndef QUICKSTART_H
#define QUICKSTART_H

#include "packages.h"

#include <quire/quire.h>

struct quickstart {
    struct packages packages;
    const char *path; /* the store's directory */
    struct quire *db;
    struct quire_tree *tree;
    struct quire_snapshot *snapshot; /* of revision 1 */
    char *buffer;                    /* room for the longest value */
    size_t buffer_bytes;
    const char *prefix;
};

/* Ends the program with a message. */
__attribute__((noreturn, format(printf, 1, 2))) void fail(const char *format, ...);
/* The call has to answer 0. */
void must(int result, const char *what);

/* Opens store and tree; existing: they have to be there. */
void open_store(struct quickstart *q, int existing);
/* Stores the package's paragraph with the field of this revision; compares what was read with that. */
void put_package(struct quickstart *q, const struct package *package, unsigned revision);
void check_value(const struct package *package, unsigned revision, const void *data, size_t size);

/* The distinct packages in an order without order: multiples of a step that has no divisor in common with their count. */
struct shuffle {
    size_t count, stride, at;
};
struct shuffle shuffle_begin(size_t count);
const struct package *shuffle_next(struct quickstart *q, struct shuffle *shuffle);

/*
 * Loads in a process of its own, which is killed in the middle; opens the store again, compares what had been acknowledged, and
 * loads the rest. Before anything else uses Quire: a child made by fork could not.
 */
void load_and_crash(struct quickstart *q);

#endif
