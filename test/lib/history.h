/*
 * Recording of concurrent histories: which operation began and ended when, with what arguments and result.
 *
 * Test library. Each thread writes into a buffer of its own, so recording orders nothing between threads. Values are
 * numbers: the test maps them to the bytes that it stores. Time is the monotonic clock, the same on all processors; at
 * equal times two operations count as overlapping.
 */
#ifndef TEST_LIB_HISTORY_H
#define TEST_LIB_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum history_kind {
    HISTORY_GET,              /* result FOUND and value, or ABSENT */
    HISTORY_PUT,              /* value; result DONE */
    HISTORY_DELETE,           /* result DONE: nobody asked whether it existed */
    HISTORY_DELETE_EXISTED,   /* result FOUND if it removed a value, else ABSENT */
    HISTORY_INSERT,           /* value; DONE, or REFUSED as the key has a value */
    HISTORY_COMPARE_AND_SWAP, /* expected, value; DONE, REFUSED as it differs, or ABSENT */
    HISTORY_ADD,              /* value is the amount; DONE and the sum in `sum` */
    HISTORY_EXISTS            /* FOUND or ABSENT */
};

enum history_result { HISTORY_DONE, HISTORY_FOUND, HISTORY_ABSENT, HISTORY_REFUSED };

struct history_event {
    uint64_t invoked_ns;
    uint64_t responded_ns;
    uint64_t key;      /* a number that names the key */
    uint64_t value;    /* written, added, or (GET) read */
    uint64_t expected; /* COMPARE_AND_SWAP */
    uint64_t sum;      /* ADD */
    uint32_t thread;
    uint32_t sequence; /* position among the thread's operations */
    enum history_kind kind;
    enum history_result result;
};

/* The operations of one thread. */
struct history_buffer {
    struct history_event *events;
    size_t count;
    size_t capacity;
    uint32_t thread;
};

uint64_t history_now_ns(void);

/* A buffer with room for `capacity` operations; it grows. Aborts when out of memory, as all of history does. */
void history_buffer_init(struct history_buffer *ret_buffer, uint32_t thread, size_t capacity);
void history_buffer_free(struct history_buffer *buffer);

/*
 * Call begin directly before the operation, end directly after it. The pointer is valid until the next begin: fill in
 * result, value and sum before or after end.
 */
struct history_event *history_begin(struct history_buffer *buffer, enum history_kind kind, uint64_t key);
void history_end(struct history_event *event);

/* All events of several buffers in one array of *ret_count that the caller frees. Call when the threads have ended. */
struct history_event *history_gather(const struct history_buffer *buffers, size_t buffer_count, size_t *ret_count);

/* One line about an event, for reports. */
void history_print_event(const struct history_event *event, char *text, size_t size);

#endif
