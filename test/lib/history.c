/*
 * Buffers of recorded operations, as described in history.h.
 *
 * Test library. A buffer belongs to one thread; gather runs when all have been joined.
 */
#include "history.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

uint64_t history_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static struct history_event *allocate_events(struct history_event *old, size_t count)
{
    struct history_event *events = realloc(old, (count != 0 ? count : 1) * sizeof(*events));
    if (events == NULL)
        abort();
    return events;
}

void history_buffer_init(struct history_buffer *ret_buffer, uint32_t thread, size_t capacity)
{
    *ret_buffer =
        (struct history_buffer){.events = allocate_events(NULL, capacity), .capacity = capacity, .thread = thread};
}

void history_buffer_free(struct history_buffer *buffer)
{
    free(buffer->events);
    *buffer = (struct history_buffer){0};
}

struct history_event *history_begin(struct history_buffer *buffer, enum history_kind kind, uint64_t key)
{
    if (buffer->count == buffer->capacity) {
        buffer->capacity = buffer->capacity * 2 + 64;
        buffer->events = allocate_events(buffer->events, buffer->capacity);
    }
    struct history_event *event = &buffer->events[buffer->count];
    *event =
        (struct history_event){.key = key, .kind = kind, .thread = buffer->thread, .sequence = (uint32_t)buffer->count};
    buffer->count++;
    event->invoked_ns = history_now_ns();
    return event;
}

void history_end(struct history_event *event)
{
    event->responded_ns = history_now_ns();
}

struct history_event *history_gather(const struct history_buffer *buffers, size_t buffer_count, size_t *ret_count)
{
    size_t total = 0;
    for (size_t i = 0; i < buffer_count; i++)
        total += buffers[i].count;

    struct history_event *events = allocate_events(NULL, total);
    size_t at = 0;
    for (size_t i = 0; i < buffer_count; i++) {
        if (buffers[i].count != 0)
            memcpy(events + at, buffers[i].events, buffers[i].count * sizeof(*events));
        at += buffers[i].count;
    }
    *ret_count = total;
    return events;
}

void history_print_event(const struct history_event *event, char *text, size_t size)
{
    static const char *const kinds[] = {"get", "put",   "delete", "delete(existed)", "insert", "compare_and_swap",
                                        "add", "exists"};
    static const char *const results[] = {"done", "found", "absent", "refused"};

    snprintf(text, size,
             "thread %" PRIu32 " #%" PRIu32 " [%" PRIu64 ", %" PRIu64 "] %s key %" PRIu64 " value %" PRIu64
             " expected %" PRIu64 " sum %" PRIu64 " -> %s",
             event->thread, event->sequence, event->invoked_ns, event->responded_ns, kinds[event->kind], event->key,
             event->value, event->expected, event->sum, results[event->result]);
}
