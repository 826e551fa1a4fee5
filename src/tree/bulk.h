/*
 * bulk.h: records of the log installed by leaves, many at a time.
 *
 * Layer 4. For recovery: one thread, and nobody else in the trees. Records come in the order of keys, those of a key by LSN;
 * each leaf that has some is built anew once with all of them, and divided into as many leaves as that takes.
 *
 * BULK-1  What a leaf has already is not applied again (R4): records at or below the max_lsn that the page had when the run came
 *         to it. Not the one that it has by then: of what was applied in the run, later keys may have lower LSNs.
 * BULK-2  After a run each page has a max_lsn not below that of any of its records, so a later run, whose LSNs are all higher,
 *         is judged rightly.
 * BULK-3  No leaf is read if it is on disk and has few records to come: they go to a stub.
 * BULK-4  Separators of new leaves are posted after the last record, level by level. Until then siblings lead there: a run that
 *         is not finished leaves a legal tree.
 */
#ifndef QR_TREE_BULK_H
#define QR_TREE_BULK_H

#include "tree/tree.h"

struct qr_bulk_record {
    struct qr_record_spec spec;
    uint64_t first_lsn; /* of the frames that it needs: that of its first PART, or its own */
};

/* Fills in records [from, from + count) of the run. What they point to stays until the run is done. */
typedef void qr_bulk_fill(void *context, uint32_t from, uint32_t count, struct qr_bulk_record *ret_records);

struct qr_bulk {
    qr_bulk_fill *fill;
    void *context;
    uint32_t next, end; /* records to be installed */

    /* Records [next, next + ahead) that were filled in, from `at` on in the array. */
    struct qr_bulk_record *records;
    struct qr_record_spec *chosen; /* those that go to the leaf in hand */
    uint32_t at, ahead, capacity;

    /* Where the last records went: a leaf, or the first one of those that it was divided into, and the last one of them. Records
     * to come may belong to any of them, by the key. QR_PID_NONE: nowhere yet. */
    uint64_t leaf_pid, last_pid;
    uint64_t leaf_max_lsn; /* BULK-1 */

    /* Pages of `level` whose separators are to be posted, by key, from `posted` on; and new ones of the level above. */
    uint64_t *posts, *above;
    uint32_t post_count, post_capacity, posted, above_count, above_capacity;
    uint8_t level;
};

/* A run of `count` records. */
void qr_bulk_init(struct qr_bulk *bulk, qr_bulk_fill *fill, void *context, uint32_t count);
void qr_bulk_done(struct qr_bulk *bulk);

/* Goes on with some records. Inside a section. 0: more to do; QUIRE_END: all is done; QR_FETCH, NO_MEMORY: call again after
 * that was seen to; another failure of the page store. */
int qr_bulk_step(struct qr_op *op, struct qr_bulk *bulk);

#endif
