/*
 * Linearizability of recorded histories: is there, key by key, one order of the operations that respects real time and
 * explains every result?
 *
 * Test library. Wing and Gong's search in the forward form (just-in-time linearization, with the memo that Lowe added):
 * the events of a key are taken in the order of time, and the checker keeps the set of all configurations (state of the
 * key, which of the operations in progress have taken effect) that can explain what was answered so far. An operation
 * takes effect at the latest when it responds; a response that fits no configuration is a violation. Keys are
 * independent, so each is checked alone. The set shrinks to the possible states whenever no operation is in progress,
 * so that the cost grows with the number of overlapping operations and not with the length of the history.
 *
 * One thread; the input is not changed.
 */
#ifndef TEST_LIB_LINEAR_H
#define TEST_LIB_LINEAR_H

#include "history.h"

enum linear_verdict {
    LINEAR_OK,
    LINEAR_VIOLATION,
    LINEAR_UNDECIDED /* more than 64 operations at once on one key, or more than 4 M configurations */
};

struct linear_report {
    uint64_t key; /* the first key that did not pass */
    size_t keys_checked;
    size_t largest_set; /* configurations, at the worst moment */
    char message[4096]; /* the response that nothing explains, and the operations before it */
};

/*
 * Checks `count` events in any order, of any number of keys. Every key is absent at first. Unsigned 64-bit values; ADD
 * wraps around and counts an absent key as 0.
 */
enum linear_verdict linear_check(const struct history_event *events, size_t count, struct linear_report *ret_report);

#endif
