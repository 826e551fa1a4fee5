/*
 * thread.h: clock, named threads, and waiting that somebody else can end.
 *
 * Layer 1.
 */
#ifndef QR_OS_THREAD_H
#define QR_OS_THREAD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

/* Monotonic time in nanoseconds. */
uint64_t qr_clock_ns(void);

/* The same at the resolution of the scheduler's tick, cheaper. */
uint64_t qr_clock_coarse_ns(void);

#ifdef QR_TESTING
/* Tests: time goes forward by so much at once, for all who ask these two; waiting takes as long as before. */
void qr_clock_advance_ns(uint64_t ns);
#endif

/* Sleeps in the calling thread. */
void qr_sleep_us(uint64_t microseconds);

/* Lets other threads that are ready to run go first. */
void qr_thread_yield(void);

/* Starts a joinable thread with all signals blocked, so that the host's handlers run elsewhere. name: at most 15 bytes.
 * 0 or an errno. */
int qr_thread_start(pthread_t *ret_thread, const char *name, void *(*run)(void *), void *argument);

/* A thing to wait for: a count of events. */
struct qr_event {
    _Atomic uint32_t count;
    _Atomic uint32_t waiters;
};

/* The count now: pass it to qr_event_wait, so that a signal in between is not missed. */
uint32_t qr_event_count(const struct qr_event *event);

/* Waits until the count differs from `seen`, or for that long; may return early. */
void qr_event_wait(struct qr_event *event, uint32_t seen, uint64_t timeout_us);

/* Raises the count and wakes all who wait. No system call if nobody does. */
void qr_event_signal(struct qr_event *event);

#endif
