/*
 * flush.h: pages of the trees to the store, and back: what checkpoint.c and the fetching of pages ask for.
 *
 * Layer 6. Flushing is done under the mutex of checkpoints.
 */
#ifndef QR_DB_FLUSH_H
#define QR_DB_FLUSH_H

#include <stdint.h>

#include "store/store.h"
#include "tree/tree.h"

struct quire;

/* Writes images of those pages that have none, and enters them. Outside sections. flags: of qr_store_write. 0 or a failure. */
int qr_db_flush(struct quire *db, struct qr_thread *thread, const uint64_t *pids, uint64_t count, unsigned flags);

/* A word of S. */
struct qr_captured {
    uint64_t pid;
    qr_word word;
};

/* Images of captured pages, copied: the section may end. */
struct qr_db_images {
    uint32_t count;
    struct group *groups[];
};

/* Makes them; in the section in which the words were loaded. */
int qr_db_flush_captured(struct quire *db, struct qr_thread *thread, const struct qr_captured *pages, uint64_t count,
                         struct qr_db_images **ret_images);

/* Writes them and enters them in the capture; *max_lsn rises to the newest LSN in them. */
int qr_db_images_write(struct quire *db, struct qr_db_images *images, struct qr_store_capture *capture,
                       uint64_t *max_lsn);

/* NULL is fine. */
void qr_db_images_free(struct qr_db_images *images);

/* The bytes of an image, `size` of them in a block of block_size, become a page. NULL, or what is wrong with them. */
const char *qr_db_adopt_image(void *bytes, uint32_t size, size_t block_size, uint64_t pid, uint64_t address);

/* struct qr_page_source. */
int qr_db_read_page(void *context, struct qr_thread *thread, uint64_t pid, uint64_t address, struct qr_page **ret_page);

/* A page of which only the id is known: its word becomes DISK, or is another by now. 0, CORRUPT, IO, NO_MEMORY. */
int qr_db_locate_page(struct quire *db, uint64_t pid);

#endif
