/*
 * thread.c: clock, threads and futex waits on Linux.
 *
 * Layer 1.
 */
#include "os/thread.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"

#ifdef QR_TESTING
static _Atomic uint64_t advanced_ns;

void qr_clock_advance_ns(uint64_t ns)
{
    /* relaxed: a clock */
    atomic_fetch_add_explicit(&advanced_ns, ns, memory_order_relaxed);
}
#endif

static uint64_t read_clock(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    uint64_t ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
#ifdef QR_TESTING
    /* relaxed: as above */
    ns += atomic_load_explicit(&advanced_ns, memory_order_relaxed);
#endif
    return ns;
}

uint64_t qr_clock_ns(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

uint64_t qr_clock_coarse_ns(void)
{
    return read_clock(CLOCK_MONOTONIC_COARSE);
}

void qr_sleep_us(uint64_t microseconds)
{
    struct timespec nap = {(time_t)(microseconds / 1000000), (long)(microseconds % 1000000 * 1000)};
    nanosleep(&nap, NULL);
}

void qr_thread_yield(void)
{
    sched_yield();
}

int qr_thread_start(pthread_t *ret_thread, const char *name, void *(*run)(void *), void *argument)
{
    sigset_t all;
    sigset_t before;
    if (qr_alloc_must_fail()) return EAGAIN;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(ret_thread, NULL, run, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error == 0) pthread_setname_np(*ret_thread, name);
    return error;
}

uint32_t qr_event_count(const struct qr_event *event)
{
    /* order: os.event.read pairs with os.event.raise: what was done before the signal */
    return atomic_load_explicit(&event->count, memory_order_acquire);
}

void qr_event_wait(struct qr_event *event, uint32_t seen, uint64_t timeout_us)
{
    struct timespec timeout = {(time_t)(timeout_us / 1000000), (long)(timeout_us % 1000000 * 1000)};
    /* order: os.event.announce pairs with os.event.raise: of a waiter and a signaller at least one sees what the other
     * has done first */
    atomic_fetch_add_explicit(&event->waiters, 1, memory_order_seq_cst);
    /* order: os.event.announce: as above; the kernel looks at the count once more */
    if (atomic_load_explicit(&event->count, memory_order_seq_cst) == seen)
        syscall(SYS_futex, &event->count, FUTEX_WAIT_PRIVATE, seen, &timeout, NULL, 0);
    /* relaxed: one waiter too many costs a system call */
    atomic_fetch_sub_explicit(&event->waiters, 1, memory_order_relaxed);
}

void qr_event_signal(struct qr_event *event)
{
    /* order: os.event.raise pairs with os.event.read and os.event.announce */
    atomic_fetch_add_explicit(&event->count, 1, memory_order_seq_cst);
    /* order: os.event.raise: as above */
    if (atomic_load_explicit(&event->waiters, memory_order_seq_cst) != 0)
        syscall(SYS_futex, &event->count, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}
