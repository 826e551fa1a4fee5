/*
 * repair.h: a new store from what can be read of a damaged one.
 *
 * Layer 6. One thread. The damaged store is opened by nobody: its lock is taken as a reader takes it, and nothing is written to
 * it. Its leaves are found by the mapping where that verifies, else by the batches of the segments (store/salvage.h); what is
 * above the leaves is not needed, since the new store, written by the public calls, builds its own. Then the log's writes that
 * the leaves lack are done again.
 *
 *     repair.c       the order of steps, trees and their names, the report
 *     repair_place.c opening both stores, where the new one may be
 *     repair_lay.c   which image is right for which keys
 *     repair_fill.c  records of leaves, and values, into the new store
 *     repair_log.c   the log
 *
 * Why that gives what an opening would have shown, where nothing is lost:
 *
 * REPAIR-1  An image with the max LSN x has, of every key in its bounds, all writes of the living log up to x and none above
 *             (D-15, R15). So of all images whose bounds have a key, that with the greatest x knows most of it, whatever page it
 *             is of and however old its structure: the others can bring back no deleted key. Those of equal x say the same of the
 *             key.
 * REPAIR-2  "Of the living log": an image that is not sure to be of a checkpoint that counted (SALVAGE-5) counts only below the
 *             checkpoint's durable LSN, under which every frame was decided and durable (D-2, CHECK-3), and not between the end of an
 *             incarnation and the start of the next (R7). So a write that an opening would not have shown does not come back with an
 *             image. With a log all images of the checkpoint are below it.
 * REPAIR-3  A leaf that is damaged has no older image in its place: overwritten values and deleted keys would come back with
 *             that. If an inner page names it, its bounds there are lost from its max LSN on: older images do not count in them,
 *             newer ones do. Older images of the page count nowhere. What no image covers is lost, too.
 * REPAIR-4  A frame of the log above the x of its key's image is done again, in the order of LSNs, by the rules of replay
 *             (log/replay.h), which decide where the log ends. In what is lost, each frame is: the last one of a key says what it
 *             is now.
 * REPAIR-5  A large value may have been released though an image names it, if a later frame replaces it (D-25). So one that
 *             cannot be read is told to be lost only if nothing in the log, or in the leaf, hides it.
 * REPAIR-6  Without a log an image is as of the LSN of a checkpoint, and its max LSN may be above that (D-28). Of two with the same
 *             max LSN the later one is as of a later LSN, and that which the mapping names is as of the last: it counts. By REPAIR-2
 *             one that is not sure may be taken for dead and be none, so in a store that was without a log its keys are lost in place
 *             of it.
 */
#ifndef QR_DB_REPAIR_H
#define QR_DB_REPAIR_H

#include "db/db.h"
#include "store/salvage.h"

/* An image of a leaf, or of something that may have been one. */
struct qr_laid {
    uint64_t address, pid, max_lsn, sequence;
    uint32_t tree_id;
    uint8_t kind; /* enum qr_laid_kind */
    bool named, infinite;
    bool doubtful; /* REPAIR-6 */
    struct quire_slice low, high; /* owned */
};
enum qr_laid_kind {
    QR_LAID_LEAF = 1,
    QR_LAID_LOST,   /* a leaf whose records count for nothing, but whose bounds are known */
    QR_LAID_DAMAGED,/* does not verify: its bounds are not known */
    QR_LAID_INNER,  /* right above leaves */
    QR_LAID_NOTHING,
};

/* Keys [low, high) of a tree, and the image that has them. */
struct qr_laid_piece {
    struct quire_slice low, high; /* point into images */
    bool infinite;
    const struct qr_laid *from;   /* NULL or QR_LAID_LOST: they are lost */
};

struct qr_repair_tree {
    uint32_t id;
    bool named; /* the catalogue, or the log, has its name and options; else it has leaves only */
    bool renamed;
    bool caller_versions;
    char name[QR_MAX_TREE_NAME_SIZE + 1];
    struct quire_tree_options options;
    uint64_t safe_version;
    struct qr_laid_piece *pieces; /* in the order of keys; none: it began empty, in the log */
    uint32_t piece_count;
    struct quire_tree *to;
};

/* A value that cannot be read, unless something hides it (REPAIR-5). */
struct qr_lost_value {
    struct qr_repair_tree *tree;
    struct quire_slice key; /* owned */
    uint64_t version;       /* caller versions */
    uint64_t hidden_by;     /* caller versions: the lowest above it that the key has; UINT64_MAX: none */
};

struct qr_repair {
    struct quire *from; /* for its files alone */
    struct qr_store *store; /* NULL: it never had a page store that counts */
    struct quire *to;
    quire_loss_callback *callback;
    void *context;
    struct quire_repair_report report;

    bool was_there; /* the directory of the new store */
    bool manifest_lost, catalogue_lost, log_lost;
    uint64_t log_lost_lsn; /* what lies behind it */
    struct qr_laid *laid;
    uint64_t laid_count, laid_room;
    struct qr_repair_tree **trees; /* by id; [0] is the catalogue */
    uint32_t tree_count;
    uint64_t tree_room;
    struct qr_lost_value *lost_values; /* by tree, key, version */
    uint64_t lost_count, lost_room;
};

/* ---- repair.c --------------------------------------------------------------------------------------------------- */

/* Tells of a loss and counts it. low.data NULL: from the first key; high.data NULL: to the last. */
void qr_repair_tell(struct qr_repair *r, enum quire_loss_kind kind, const char *tree, struct quire_slice low,
                    struct quire_slice high, const char *text);

/* NULL: there is none. */
struct qr_repair_tree *qr_repair_tree_find(const struct qr_repair *r, uint32_t id);
/* Finds or adds it; NULL: no memory. */
struct qr_repair_tree *qr_repair_tree_get(struct qr_repair *r, uint32_t id);

/* Takes a record of the catalogue. False: it does not say what one says. 0 or NO_MEMORY in *ret_result. */
bool qr_repair_take_tree(struct qr_repair *r, struct quire_slice key, struct quire_slice value, int *ret_result);

/* ---- repair_place.c --------------------------------------------------------------------------------------------- */

/* Opens the files of the old store; a manifest that does not verify leaves the page segments, and is told. disk: of both, NULL: the
 * machine's. 0, NOT_FOUND, or as quire_open. */
int qr_repair_open_old(struct qr_repair *r, const char *path, struct qr_disk *disk);

/* Creates the new one, in a directory that is not there or empty. 0, EXISTS, or as quire_repair. */
int qr_repair_open_new(struct qr_repair *r, const char *path, struct qr_disk *disk);

/* Closes it, if it is open, and after a failure removes it. What the repair answers: `result`, or a failure of closing. */
int qr_repair_close_new(struct qr_repair *r, const char *path, int result);

/* ---- repair_lay.c ----------------------------------------------------------------------------------------------- */

/* Finds and reads all images, and gives each tree its pieces. 0, NO_MEMORY, NEWER. */
int qr_repair_lay(struct qr_repair *r);
void qr_repair_lay_done(struct qr_repair *r);

/* The piece that has a key; NULL: the tree has none. */
const struct qr_laid_piece *qr_repair_piece_of(const struct qr_repair_tree *tree, struct quire_slice key);

/* Whether no leaf counts for its keys. */
static inline bool qr_repair_is_lost(const struct qr_laid_piece *piece)
{
    return piece->from == NULL || piece->from->kind != QR_LAID_LEAF;
}

/* Frames up to it are in what the piece has; 0: none is. */
static inline uint64_t qr_repair_known_lsn(const struct qr_laid_piece *piece)
{
    return piece == NULL || qr_repair_is_lost(piece) ? 0 : piece->from->max_lsn;
}

/* Reads the image of a leaf again; the page, to be freed by qr_free_aligned. 0, a failure. */
int qr_repair_read_leaf(struct qr_repair *r, const struct qr_laid *laid, struct qr_page **ret_page);

/* The records of a piece: [first, end) of the page. */
void qr_repair_records(const struct qr_page *page, const struct qr_laid_piece *piece, uint32_t *ret_first,
                       uint32_t *ret_end);

/* ---- repair_fill.c ---------------------------------------------------------------------------------------------- */

/* Creates the trees in the new store and puts the records of their leaves there. 0 or a failure. */
int qr_repair_fill(struct qr_repair *r);

/* Puts one record to the new store. kind: PUT, DELETE, BLOB, whose value is a reference. 0 or a failure. */
int qr_repair_put(struct qr_repair *r, struct qr_repair_tree *tree, unsigned kind, uint64_t version, struct quire_slice key,
                  struct quire_slice value);

/* A record of the key that is newer has come, or at this version: what cannot be read may be hidden by it. */
void qr_repair_hide(struct qr_repair *r, const struct qr_repair_tree *tree, struct quire_slice key, uint64_t version);

/* After all records: tells of the values that are lost, and raises the safe versions. */
int qr_repair_finish_values(struct qr_repair *r);
void qr_repair_fill_done(struct qr_repair *r);

/* ---- repair_log.c ----------------------------------------------------------------------------------------------- */

/* Reads the log for the records of the catalogue. After the leaves of the catalogue were read. 0 or a failure. */
int qr_repair_log_trees(struct qr_repair *r);

/* Does the other writes again. 0 or a failure. */
int qr_repair_log(struct qr_repair *r);

#endif
