/*
 * snapshot.h: the registry of snapshots: what must not be collected.
 *
 * Layer 5.
 *
 * SNAPSHOT-1  A snapshot with LSN S sees exactly the installed writes with LSN <= S, in all trees with engine versions,
 *             and every write with LSN <= S is installed or voided when the snapshot is handed out.
 * SNAPSHOT-2  From before S is chosen until release, a collection that loads its horizon and then scans the registry
 *             keeps what the snapshot sees.
 *
 * Taking a snapshot waits for slots that are open below S (a documented wait); everything else is lock-free.
 */
#ifndef QR_TXN_SNAPSHOT_H
#define QR_TXN_SNAPSHOT_H

#include "epoch/epoch.h"
#include "log/log.h"

/* A place in the registry; reused, never freed before the registry. */
struct qr_snapshot {
    QR_CACHE_ALIGNED _Atomic uint64_t bound; /* 0: free. QR_SNAPSHOT_COMING | b: S is not known yet, but > b */
    _Atomic uint32_t in_use;
    _Atomic uint64_t since_ns;
    _Atomic uint64_t tag[QR_EPOCH_TAG_BYTES / 8];
    struct qr_snapshot *next; /* constant */
    uint64_t lsn;
};
#define QR_SNAPSHOT_COMING ((uint64_t)1 << 63)

struct qr_snapshot_registry {
    _Atomic(struct qr_snapshot *) list;
    QR_CACHE_ALIGNED _Atomic uint64_t generation; /* raised by each snapshot between registration and its tail */
    struct qr_log *log;
    struct qr_epoch *epoch;
};

void qr_snapshots_init(struct qr_snapshot_registry *registry, struct qr_log *log, struct qr_epoch *epoch);
void qr_snapshots_done(struct qr_snapshot_registry *registry);

/* tag: NULL or text that is copied. 0 or NO_MEMORY. The caller's own slot must be closed. */
int qr_snapshot_take(struct qr_snapshot_registry *registry, const char *tag, struct qr_snapshot **ret_snapshot);
void qr_snapshot_drop(struct qr_snapshot *snapshot);

/* For collection: see struct qr_tree_ops. */
uint32_t qr_snapshots_bounds(struct qr_snapshot_registry *registry, uint64_t *ret_bounds, uint32_t capacity,
                             uint64_t *ret_keep_above);

struct qr_snapshot_stats {
    uint64_t open, oldest_age_ms;
    char oldest_tag[QR_EPOCH_TAG_BYTES];
};
void qr_snapshots_stats(struct qr_snapshot_registry *registry, struct qr_snapshot_stats *ret_stats);

#endif
