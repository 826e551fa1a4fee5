/*
 * Stop points: named places between two steps of a protocol, where a test can hold a thread.
 *
 * Layer 0 (base). `QR_STOP("split.left_installed");` is nothing in the library that users get. In the testing library
 * it calls the hook, if one is set, in the thread that came by. The hook may sleep, count, start threads and call the
 * public API; it must not longjmp. Names are lower-case dotted words: protocol, then what has just been done.
 */
#ifndef QR_BASE_STOP_H
#define QR_BASE_STOP_H

#include "base/bugs.h"

#ifdef QR_TESTING

#include <stdatomic.h>
#include <stddef.h>

typedef void qr_stop_fn(const char *name, void *arg);

extern qr_stop_fn *_Atomic qr_stop_hook;

/*
 * Sets the hook of the whole process; NULL removes it. A thread that is in the old hook stays there until that returns.
 * To go from one hook to another with a different arg while threads may come by, remove the first and let them pass.
 */
void qr_stop_set_hook(qr_stop_fn *hook, void *arg);

/* Calls the hook with its arg. */
void qr_stop_call(qr_stop_fn *hook, const char *name);

static inline void qr_stop_point(const char *name)
{
    /* order: stop.seen pairs with stop.set: the hook's arg was stored before it */
    qr_stop_fn *hook = atomic_load_explicit(&qr_stop_hook, memory_order_acquire);
    if (hook != NULL)
        qr_stop_call(hook, name);
}

#define QR_STOP(name) qr_stop_point(name)

#else
#define QR_STOP(name) ((void)0)
#endif

#endif
