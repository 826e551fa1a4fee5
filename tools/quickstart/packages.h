/*
 * Package indexes as Debian's apt keeps them: paragraphs of `Field: text` lines with an empty line between them.
 *
 * Layer: tools. One thread. What was read stays in memory until packages_free; keys and texts point into it.
 */
#ifndef QUICKSTART_PACKAGES_H
#define QUICKSTART_PACKAGES_H

#include <stddef.h>

/* A paragraph. Its key is "package/version". */
struct package {
    const char *key;
    size_t key_size;
    const char *text; /* its lines, each with its line break */
    size_t text_size;
    size_t position; /* among all that were read */
};

struct packages {
    struct package *all; /* in the order of the indexes */
    size_t count;
    const struct package **distinct; /* by key; of equal keys the last one read */
    size_t distinct_count;
    size_t text_bytes; /* of all */
    size_t index_count;
    size_t skipped; /* paragraphs without a package or version */
    void **memory;  /* blocks to free */
    size_t memory_count;
};

/*
 * Reads the files ("-": standard input) into *ret_packages. 0, or -1 after a message on standard error: a file that
 * cannot be read, no package in any of them, no memory; nothing is kept then.
 */
int packages_read(char *const *files, size_t file_count, struct packages *ret_packages);

void packages_free(struct packages *packages);

#endif
