/*
 * events.h: what a database tells its host, by the callback of quire_on_event.
 *
 * Layer 6. What happens is noted where it happens, in whatever lock or section that is, and told where there is none:
 * before a call returns, or by the thread that syncs.
 *
 * EVENT-1  The callback is called without a lock, outside sections and slots of the engine, by a thread that is in a call of
 *          the host or by one of the engine's.
 * EVENT-2  After quire_on_event has returned, the callback before is not running and is not called again.
 * EVENT-3  Each failure of the log is told once; room that is missing once until there is room again, and that once.
 *
 * Any thread. Waits: qr_db_events_set, for callbacks that are running.
 */
#ifndef QR_DB_EVENTS_H
#define QR_DB_EVENTS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <quire/quire.h>

struct qr_db_events {
    pthread_mutex_t mutex;
    pthread_cond_t idle; /* nobody is in the callback */
    quire_event_callback *callback;
    void *context;
    uint32_t running;

    /* Noted and not told yet. */
    bool stall_pending, room_pending;
    uint32_t no_room;     /* the present state: bits of enum qr_room */
    bool no_room_told;    /* what has been told of it */
    bool failure_told, recovery_told;
    uint64_t last_stall_ns; /* of the last one that was noted: at most one a second is */
};

void qr_db_events_init(struct quire *db);
void qr_db_events_done(struct quire *db);

/* Notes that a write waits for memory that somebody holds. */
void qr_db_note_stall(struct quire *db);

/* Who needs space on the disk: the log, checkpoints, large values. */
enum qr_room { QR_ROOM_LOG = 1, QR_ROOM_PAGES = 2, QR_ROOM_BLOBS = 4 };

/* Notes how looking for space ended: 0 or a failure. */
void qr_db_note_room(struct quire *db, enum qr_room of, int result);
/* Whether somebody has found none, and has not found some since. */
bool qr_db_has_no_room(struct quire *db);

/* Tells what was noted, and that the log has failed. EVENT-1 is the caller's. */
void qr_db_tell(struct quire *db);

/* How a checkpoint has ended. */
struct qr_checkpoint_end {
    uint64_t written_bytes, replay_from;
    bool repeated; /* it failed, as the one before */
};

/* EVENT-1 is the caller's. */
void qr_db_tell_checkpoint(struct quire *db, int result, const struct qr_checkpoint_end *end);

/* Tells the last event of a database. result: of its last sync. */
void qr_db_tell_close(struct quire *db, int result);

#endif
