/*
 * names.h: which names and files of a directory are a store's.
 *
 * Layer 6. Names say what a file should be, its first bytes whether it is. Nothing is changed. Every call waits for the disk.
 */
#ifndef QR_DB_NAMES_H
#define QR_DB_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "os/disk.h"

/* All names of a directory, one behind the other, each with its NUL. */
struct qr_names {
    char *text; /* to be freed by qr_free */
    size_t size, capacity;
};

/* 0, or a negated errno: then there is nothing to free. */
int qr_names_list(struct qr_dir *dir, struct qr_names *ret_names);

/* A segment of the log, of pages or of blobs. */
bool qr_name_is_of_segment(const char *name);
/* Of these, the manifest or the lock. */
bool qr_name_is_of_store(const char *name);

/* The beginning of a file: how much there was, up to `size`, and the size of the file. 0; QUIRE_NOT_FOUND: there is no such file; or a
 * failure with its detail, FOREIGN if it is no plain file. */
int qr_file_read_beginning(struct qr_dir *dir, const char *name, void *memory, size_t size, size_t *ret_got,
                           uint64_t *ret_size_bytes);

/* 1: only Quire can have written this, for the store of the id (16 bytes), as whose manifest `manifest` is known; 0; or a
 * failure. A file that is gone meanwhile is the store's. */
int qr_file_is_of_store(struct qr_dir *dir, const char *name, const uint8_t *id);

#endif
