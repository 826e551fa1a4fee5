/*
 * events.c: noting what happens, and telling it.
 *
 * Layer 6. See events.h.
 */
#include "db/events.h"

#include <errno.h>
#include <stdio.h>

#include "db/db.h"

#define STALL_PAUSE_NS 1000000000u
#define MESSAGE_BYTES 200u

/* Of the callback that this thread is in; NULL: of none. */
static _Thread_local const struct qr_db_events *telling;

void qr_db_events_init(struct quire *db)
{
    pthread_mutex_init(&db->events.mutex, NULL);
    pthread_cond_init(&db->events.idle, NULL);
}

void qr_db_events_done(struct quire *db)
{
    pthread_mutex_destroy(&db->events.mutex);
    pthread_cond_destroy(&db->events.idle);
}

/* ---- Noting ----------------------------------------------------------------------------------------------------- */

void qr_db_note_stall(struct quire *db)
{
    struct qr_db_events *e = &db->events;
    uint64_t now = qr_clock_ns();
    pthread_mutex_lock(&e->mutex);
    if (e->last_stall_ns == 0 || now - e->last_stall_ns >= STALL_PAUSE_NS) {
        e->stall_pending = true;
        e->last_stall_ns = now;
    }
    pthread_mutex_unlock(&e->mutex);
}

void qr_db_note_room(struct quire *db, enum qr_room of, int result)
{
    struct qr_db_events *e = &db->events;
    if (result != 0 && result != QUIRE_ERR_NO_SPACE) return;
    pthread_mutex_lock(&e->mutex);
    e->no_room = result != 0 ? e->no_room | of : e->no_room & ~(uint32_t)of;
    e->room_pending = (e->no_room != 0) != e->no_room_told;
    pthread_mutex_unlock(&e->mutex);
}

bool qr_db_has_no_room(struct quire *db)
{
    pthread_mutex_lock(&db->events.mutex);
    bool none = db->events.no_room != 0;
    pthread_mutex_unlock(&db->events.mutex);
    return none;
}

/* ---- Telling ---------------------------------------------------------------------------------------------------- */

/* Calls the callback; the mutex is held before and after, and not meanwhile. */
static void call(struct qr_db_events *e, struct quire_event *event)
{
    quire_event_callback *callback = e->callback;
    void *context = e->context;
    if (callback == NULL) return;
    event->struct_size = sizeof(*event);
    e->running++;
    pthread_mutex_unlock(&e->mutex);
    const struct qr_db_events *outer = telling; /* a callback may use another database */
    telling = e;
    callback(context, event);
    telling = outer;
    pthread_mutex_lock(&e->mutex);
    if (--e->running == 0) pthread_cond_broadcast(&e->idle);
}

static uint64_t durable_lsn(struct quire *db)
{
    uint64_t end = qr_db_durable_end(db);
    return end == 0 ? 0 : end - 1;
}

static void tell_failure(struct quire *db)
{
    int error = -qr_log_failure(&db->log);
    char message[MESSAGE_BYTES];
    snprintf(message, sizeof(message), "a sync or write of the log failed (errno %d): no writes until the store is opened again",
             error);
    db->events.failure_told = true;
    call(&db->events, &(struct quire_event){.kind = QUIRE_EVENT_LOG_FAILED,
                                            .severity = QUIRE_SEVERITY_ERROR,
                                            .result = QUIRE_ERR_IO,
                                            .os_errno = error,
                                            .lsn = durable_lsn(db),
                                            .message = message});
}

static void tell_room(struct quire *db)
{
    bool none = db->events.no_room != 0;
    db->events.room_pending = false;
    db->events.no_room_told = none;
    call(&db->events,
         &(struct quire_event){.kind = none ? QUIRE_EVENT_NO_SPACE : QUIRE_EVENT_SPACE,
                               .severity = none ? QUIRE_SEVERITY_ERROR : QUIRE_SEVERITY_INFO,
                               .result = none ? QUIRE_ERR_NO_SPACE : 0,
                               .lsn = qr_log_tail(&db->log),
                               .message = none ? "no space for the log, a checkpoint or a large value: writes are refused until there is"
                                               : "there is space again"});
}

static void tell_stall(struct quire *db)
{
    struct qr_epoch_stats epoch;
    char message[MESSAGE_BYTES];
    qr_epoch_stats(db->epoch, &epoch);
    snprintf(message, sizeof(message), "writes wait for memory that guards or iterators hold; the oldest guard is '%.31s'",
             epoch.oldest_guard_tag);
    db->events.stall_pending = false;
    call(&db->events, &(struct quire_event){.kind = QUIRE_EVENT_STALL,
                                            .severity = QUIRE_SEVERITY_WARNING,
                                            .amount = epoch.retired_bytes,
                                            .message = message});
}

void qr_db_tell(struct quire *db)
{
    struct qr_db_events *e = &db->events;
    pthread_mutex_lock(&e->mutex);
    if (e->callback != NULL) {
        if (!e->failure_told && qr_log_failure(&db->log) != 0) tell_failure(db);
        if (e->room_pending) tell_room(db);
        if (e->stall_pending) tell_stall(db);
    }
    pthread_mutex_unlock(&e->mutex);
}

static void tell_recovery(struct quire *db)
{
    const struct qr_recovery *r = &db->files->recovery;
    char message[MESSAGE_BYTES];
    snprintf(message, sizeof(message), "read %llu bytes of log and did %llu writes again, in %llu ms",
             (unsigned long long)r->log.bytes, (unsigned long long)r->applied, (unsigned long long)(r->ns / 1000000));
    db->events.recovery_told = true;
    call(&db->events, &(struct quire_event){.kind = QUIRE_EVENT_RECOVERY,
                                            .severity = QUIRE_SEVERITY_INFO,
                                            .lsn = r->last_lsn,
                                            .amount = r->log.bytes,
                                            .message = message});
}

void qr_db_tell_checkpoint(struct quire *db, int result, const struct qr_checkpoint_end *end)
{
    struct qr_db_events *e = &db->events;
    char message[MESSAGE_BYTES];
    if (result == 0)
        snprintf(message, sizeof(message), "checkpoint: %llu bytes written, recovery would begin at LSN %llu",
                 (unsigned long long)end->written_bytes, (unsigned long long)end->replay_from);
    else
        snprintf(message, sizeof(message), "no checkpoint: %s", quire_strerror(result));
    pthread_mutex_lock(&e->mutex);
    call(e, &(struct quire_event){.kind = QUIRE_EVENT_CHECKPOINT,
                                  .severity = result == 0 ? QUIRE_SEVERITY_INFO : QUIRE_SEVERITY_WARNING,
                                  .result = result,
                                  .lsn = end->replay_from,
                                  .amount = end->written_bytes,
                                  .message = message});
    pthread_mutex_unlock(&e->mutex);
}

void qr_db_tell_close(struct quire *db, int result)
{
    struct qr_db_events *e = &db->events;
    qr_db_tell(db);
    pthread_mutex_lock(&e->mutex);
    call(e, &(struct quire_event){.kind = QUIRE_EVENT_CLOSE,
                                  .severity = result == 0 ? QUIRE_SEVERITY_INFO : QUIRE_SEVERITY_ERROR,
                                  .result = result,
                                  .os_errno = -qr_log_failure(&db->log),
                                  .lsn = durable_lsn(db),
                                  .message = result == 0 ? "closed" : "closed, and the last sync failed"});
    pthread_mutex_unlock(&e->mutex);
}

/* ---- The call --------------------------------------------------------------------------------------------------- */

int quire_on_event(struct quire *db, quire_event_callback *callback, void *context)
{
    struct qr_thread *thread = NULL;
    int result = qr_db_begin(db, &thread);
    if (result != 0) return result;
    struct qr_db_events *e = &db->events;
    if (telling == e) return qr_db_fail(thread, QUIRE_ERR_INVALID, "quire_on_event in a callback would wait for itself");
    pthread_mutex_lock(&e->mutex);
    while (e->running != 0) pthread_cond_wait(&e->idle, &e->mutex); /* EVENT-2 */
    e->callback = callback;
    e->context = context;
    if (callback != NULL && db->files != NULL && !e->recovery_told) tell_recovery(db);
    pthread_mutex_unlock(&e->mutex);
    qr_db_tell(db);
    return 0;
}
