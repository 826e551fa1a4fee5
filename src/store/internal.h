/*
 * internal.h: what the page store's files share: segments, the mapping in memory, the capture.
 *
 * Layer 4. Only src/store includes it; README.md says how the parts work together.
 *
 *   segments.c  files: opened, read by many, synced                      (segment table, under `mutex`)
 *   files.c     files: made, released, cleared away
 *   append.c    images to batches, batches to segments                   (under `write_mutex`)
 *   fetch.c     addresses to verified bytes
 *   mapping.c   the durable mapping in memory, loaded on demand          (nodes, under `mutex`)
 *   commit.c    a capture: construction, and what becomes of it
 *   blob.c      blobs written, read, synced                          (a place under `mutex`)
 *   blob_life.c which blobs are dead
 *   store.c     open, close, changes, statistics
 *   salvage.c   images where the mapping is damaged
 *
 * INTERNAL-1  `mutex` is held for some instructions, and never while the disk is asked. `write_mutex` is held for a
 *             write, and taken before `mutex`.
 * INTERNAL-2  A segment in the table is freed by release alone, which leaves alone what has pins.
 * INTERNAL-3  Each image that was written is in one of these: `written` (neither entered nor forgotten), `changes`, the
 *             captured changes; all of them count as `pending` bytes of its segment. Or in the durable mapping
 *             (`mapped`), or one of its places (`meta`: root, free ids, range tombstones). Or it is dead.
 */
#ifndef QR_STORE_INTERNAL_H
#define QR_STORE_INTERNAL_H

#include <pthread.h>

#include "store/blob.h"
#include "store/changes.h"
#include "store/format.h"
#include "store/store.h"

/* ---- Segments --------------------------------------------------------------------------------------------------- */

/* Places of blobs in a segment, by offset: offset (32 bits) | extent (32), in units of QR_BLOB_UNIT. */
struct qr_blob_places {
    uint64_t *places;
    uint32_t count;
    uint64_t room;
};

struct qr_segment {
    uint32_t number, stream, salt;
    uint64_t size, used;            /* used: where the next batch goes; the appender's */
    uint64_t mapped, pending, meta; /* bytes of images, by who names them */
    int64_t delta;                  /* of mapped, by the mapping under construction */
    struct qr_file *file;           /* NULL: not open */
    uint32_t align;                 /* of offsets, sizes and memory that the file wants */
    uint32_t pins;
    struct qr_segment *left; /* append.c: of one call */
    uint64_t settled;        /* append.c: `used` before the call that is under way wrote to it; 0: it has not */
    bool dirty;              /* written to since the last sync began */
    bool verified;           /* its header was compared */
    bool visited;            /* for the choice of a file to close */
    uint64_t scanned;        /* verify.c: bytes of images in it that the mapping names */

    /* Of blobs. */
    struct qr_blob_places dead;
    uint64_t dead_bytes, dead_lsn;       /* dead_lsn: none of them died later */
    bool dead_changed;                   /* since the list was written */
    bool left_out;                       /* the durable checkpoint does not know it any more */
    struct qr_manifest_place dead_place; /* of the list */
    uint64_t mark;                       /* `used` at qr_blob_mark; 0: it was not there yet */
    uint64_t known;                      /* recovery: `used` of the checkpoint */
    struct qr_blob_places named;         /* recovery: behind that, by frames */
};

/* A file that holds nothing: kept for a full disk, or to be used again. */
struct qr_spare {
    uint32_t number; /* in its name */
    uint64_t size;
};
#define QR_SPARES_MOST 16u

/* ---- The mapping in memory -------------------------------------------------------------------------------------- */

struct qr_map_node {
    uint64_t address; /* of its image; 0: never written, and empty as far as it is durable */
    uint64_t first_pid;
    uint32_t level; /* 0: a block */
    union {
        struct qr_entry entries[QR_BLOCK_ENTRIES];
        uint64_t addresses[QR_NODE_CHILDREN];
    } as;
    struct qr_map_node *children[]; /* of a node; NULL: not in memory */
};

/* So far sequence numbers of batches jump at an opening: above those of batches that no checkpoint knows of. */
#define QR_SEQUENCE_JUMP (UINT64_C(1) << 32)

/* ---- The store -------------------------------------------------------------------------------------------------- */

/* What a checkpoint says of a segment of blobs. */
struct qr_blob_captured {
    uint32_t number;
    bool all_dead, left_out, written;
    uint64_t used, dead_bytes, dead_lsn;
    uint8_t *bytes; /* the list, if it is a new one */
    uint32_t size;
    struct qr_manifest_place place; /* of the list; size 0: none */
};

enum qr_place { QR_PLACE_ROOT, QR_PLACE_FREE_IDS, QR_PLACE_TOMBSTONES, QR_PLACES };

struct qr_store {
    struct qr_dir *dir;
    struct qr_store_options options;
    bool read_only;

    pthread_mutex_t write_mutex;
    struct qr_segment *open[QR_STREAMS]; /* where batches go; NULL: none. Pinned. */
    uint32_t resume[QR_STREAMS];         /* number of the segment that goes on after the opening; 0: none */
    uint64_t sequence;                   /* of the next batch */

    pthread_mutex_t mutex;
    struct qr_segment **segments; /* by number */
    uint32_t segment_count;
    uint64_t segment_room;
    uint64_t segment_bytes;
    uint32_t next_number, open_files, close_hand;
    uint32_t *leftovers, leftover_count; /* numbers of files that nothing names */
    bool names_dirty; /* a name changed since the last sync of the directory began */
    pthread_mutex_t blob_mutex;      /* of the segment that blobs go to; taken before `mutex` */
    pthread_mutex_t blob_sync_mutex; /* as above */
    pthread_mutex_t reserve_mutex;   /* of who makes files for the reserve; taken before `mutex`, after the other ones */
    bool keeps_reserve; /* QR_STORE_RESERVE_FROM */
    uint64_t coming_bytes; /* of segments of large values that are being made */
    bool has_grown;     /* qr_store_has_grown */
    bool blobs_dirty, blob_names_dirty;
    struct qr_blob_stats blob_stats;
    bool frozen;      /* nothing is released any more */
    int failed;       /* STORE-5; the result of a sync */
    int failed_errno;
    struct qr_spare spares[QR_SPARES_MOST];
    uint32_t spare_count;

    struct qr_changes written;   /* by address */
    struct qr_changes changes;   /* by page id */
    struct qr_changes *captured; /* those of the open capture; NULL: none */

    struct qr_map_node *top; /* NULL: no page */
    uint64_t map_memory;
    uint64_t pages, live_bytes; /* of the durable mapping */
    struct qr_manifest_place places[QR_PLACES];

    struct qr_store_stats stats;
};

static inline void qr_lock(struct qr_store *store)
{
    pthread_mutex_lock(&store->mutex);
}

static inline void qr_unlock(struct qr_store *store)
{
    pthread_mutex_unlock(&store->mutex);
}

/* ---- segments.c ------------------------------------------------------------------------------------------------- */

/* A detail and a result for a negated errno of the disk. */
int qr_segment_failure(int error, uint32_t number, const char *what);
int qr_segment_corrupt(struct qr_store *store, uint32_t number, uint64_t offset, const char *what);

/* Under the mutex. NULL: not in the table. */
struct qr_segment *qr_segment_find(struct qr_store *store, uint32_t number);
/* Puts a segment into the table, which then owns it. NO_MEMORY. */
int qr_segment_register(struct qr_store *store, struct qr_segment *segment);
void qr_segment_free(struct qr_segment *segment);

/* Keeps the segment, and its file open. QR_STORE_GONE: there is none of the number. */
int qr_segment_pin(struct qr_store *store, uint32_t number, struct qr_segment **ret_segment);
void qr_segment_unpin(struct qr_store *store, struct qr_segment *segment);

/* A segment from its file's header alone, not in the table. */
int qr_segment_load(struct qr_store *store, uint32_t number, struct qr_segment **ret_segment);

/* Opens the file of a number; a negated errno. Past the page cache if that is wanted, and its alignment suits ours. */
int qr_segment_open_file(struct qr_store *store, uint32_t number, unsigned flags, struct qr_file **ret_file,
                         uint32_t *ret_align);
/* Closes a file that nobody uses. False: there is none. */
bool qr_segment_close_idle(struct qr_store *store);

/* Syncs what was written, and the directory. A failure is final. */
int qr_segments_sync(struct qr_store *store);
/* Whether anything may be written: no sync has failed (STORE-5), and the store is not open for reading. 0 or a failure. */
int qr_store_may_write(struct qr_store *store);
/* STORE-5. */
int qr_segment_fail_for_good(struct qr_store *store, int error, const char *what);

/* ---- files.c ---------------------------------------------------------------------------------------------------- */

/* Under the write mutex: makes a segment with room for `need` bytes behind the header; registered and pinned. */
int qr_segment_make(struct qr_store *store, enum qr_stream stream, uint64_t need, bool use_reserve,
                    struct qr_segment **ret_segment);

/* The numbers of all files of segments, rising; to be freed by qr_free. NULL: there are none. */
int qr_segment_numbers(struct qr_store *store, uint32_t **ret_numbers, uint32_t *ret_count);

/* Before the store is used: each segment of the table has a file; numbers go on above all that there are. */
int qr_segments_compare(struct qr_store *store);

/* Releases what is dead: to the spares, or removed. Then makes the reserve complete, if it can. */
void qr_segments_release(struct qr_store *store);

/* ---- append.c --------------------------------------------------------------------------------------------------- */

/*
 * The bytes of the root, which tell of its own place: in `segment`, whose batches then end at `end`. to NULL: only the
 * size; segment NULL: at most that. Under the write mutex. Returns the size.
 */
typedef uint32_t qr_append_fill(void *context, const struct qr_segment *segment, uint64_t end, uint8_t *to);

/* As qr_store_write of one image whose bytes `fill` makes. */
int qr_append_root(struct qr_store *store, qr_append_fill *fill, void *context, struct qr_store_image *image);

/* ---- fetch.c ---------------------------------------------------------------------------------------------------- */

/* What an image has to be. */
struct qr_fetch_want {
    uint64_t address, pid;
    uint8_t kind;  /* 0: one of the caller's */
    uint8_t level; /* of a block or node */
};

/* As qr_store_read; GONE whenever the segment is not there. */
int qr_fetch(struct qr_store *store, const struct qr_fetch_want *want, qr_store_alloc *alloc, void *context,
             void **ret_bytes, uint32_t *ret_size);

/* ---- mapping.c -------------------------------------------------------------------------------------------------- */

uint64_t qr_mapping_span(uint32_t level); /* page ids below a node of the level */
/* Under the mutex. */
void qr_mapping_free(struct qr_store *store, struct qr_map_node *node);
/* Reads the top or a node, which is not in the tree yet. GONE: its segment is not there. */
int qr_mapping_load(struct qr_store *store, uint64_t address, uint64_t first_pid, uint32_t level,
                    struct qr_map_node **ret_node);
/* Counts the memory of a node, which becomes the top. */
void qr_mapping_set_top(struct qr_store *store, struct qr_map_node *node);
/* The node of a level that has the page id, loaded if need be. make: made if there is none, up to a higher top. NULL:
 * there is none. The pointer holds while no trim runs. */
int qr_mapping_get(struct qr_store *store, uint64_t pid, uint32_t level, bool make, struct qr_map_node **ret_node);

/* ---- commit.c, first part: tables of changes ---- */

void qr_change_enter(struct qr_store *store, struct qr_changes *to, uint64_t pid, uint64_t address);
void qr_change_remove(struct qr_store *store, struct qr_changes *from, uint64_t pid);

/* ---- commit.c --------------------------------------------------------------------------------------------------- */

struct qr_built {
    struct qr_map_node *node;
    uint64_t address; /* of its new image; 0: empty */
    uint32_t stored_bytes;
};

struct qr_store_capture {
    struct qr_store *store;
    struct qr_changes changes;
    struct qr_change **sorted; /* by page id, once construction has begun */
    uint64_t sorted_count;
    struct qr_built *built; /* blocks, then nodes level by level */
    uint64_t built_count, built_room;
    bool complete; /* construction has ended well */
    uint64_t top_address;
    uint32_t height;
    uint64_t pages, live_bytes;
    struct qr_manifest_place places[QR_PLACES];
    struct qr_blob_captured *blobs; /* by number */
    uint32_t blob_count;
};

#endif
