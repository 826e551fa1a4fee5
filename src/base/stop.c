/*
 * The state behind stop points and planted bugs; compiled into the testing library only.
 *
 * Layer 0 (base). Any thread may come by a stop point or ask for a bug; hooks and flags are set by the test's one
 * controlling thread. Wait-free, apart from what a hook does.
 */
#include "base/stop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Stop points ------------------------------------------------------------------------------------------------ */

qr_stop_fn *_Atomic qr_stop_hook;
static void *_Atomic stop_arg;

void qr_stop_set_hook(qr_stop_fn *hook, void *arg)
{
    /* relaxed: ordered by the store of the hook below */
    atomic_store_explicit(&stop_arg, arg, memory_order_relaxed);
    /* order: stop.set publishes the arg and what it points to, pairs with stop.seen */
    atomic_store_explicit(&qr_stop_hook, hook, memory_order_release);
}

void qr_stop_call(qr_stop_fn *hook, const char *name)
{
    /* relaxed: the caller loaded the hook by stop.seen, so this is its arg or, after a change, a later one */
    hook(name, atomic_load_explicit(&stop_arg, memory_order_relaxed));
}

/* ---- Planted bugs ----------------------------------------------------------------------------------------------- */

_Atomic int qr_bug_states[QR_BUG_COUNT];

#define QR_BUG_NAME(name) #name,
static const char *const bug_names[QR_BUG_COUNT] = {QR_BUG_LIST(QR_BUG_NAME)};
#undef QR_BUG_NAME

static int bug_by_name(const char *name)
{
    for (int bug = 0; bug < QR_BUG_COUNT; bug++) {
        if (strcmp(bug_names[bug], name) == 0)
            return bug;
    }
    return -1;
}

int qr_bug_first_use(enum qr_bug bug)
{
    const char *planted = getenv("QUIRE_PLANTED_BUG");
    int found = planted != NULL && planted[0] != '\0' ? bug_by_name(planted) : QR_BUG_COUNT;
    int unknown = QR_BUG_UNKNOWN;

    if (found < 0) {
        fprintf(stderr, "QUIRE_PLANTED_BUG: there is no bug named '%s'\n", planted);
        abort();
    }
    /* relaxed: every thread computes the same state from the environment; a qr_bug_set in between is kept */
    atomic_compare_exchange_strong_explicit(&qr_bug_states[bug], &unknown, found == (int)bug ? QR_BUG_ON : QR_BUG_OFF,
                                            memory_order_relaxed, memory_order_relaxed);
    /* relaxed: as in qr_bug_is_on */
    return atomic_load_explicit(&qr_bug_states[bug], memory_order_relaxed) == QR_BUG_ON;
}

int qr_bug_set(const char *name, int on)
{
    int bug = bug_by_name(name);
    if (bug < 0)
        return -1;
    /* relaxed: as in qr_bug_is_on */
    atomic_store_explicit(&qr_bug_states[bug], on ? QR_BUG_ON : QR_BUG_OFF, memory_order_relaxed);
    return 0;
}
