/*
 * The linearizability checker of linear.h.
 *
 * Test library. One thread.
 *
 * LINEAR-1  A slot is taken by an operation from its invocation to its response; a configuration has a bit per slot.
 * LINEAR-2  The set holds each configuration once, and all that explain the answers so far.
 */
#include "linear.h"

#include "random.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS_MAX 64
#define CONFIGURATIONS_MAX (4u << 20)

/* The state of one key, and the operations in progress that have taken effect. */
struct configuration {
    uint64_t value;
    uint64_t taken; /* a bit per slot */
    bool present;
};

/* A set with open addressing; `members` also keeps the order of insertion, for iteration while it grows. */
struct configuration_set {
    struct configuration *members;
    size_t count;
    size_t capacity;
    uint32_t *table; /* index + 1; 0 = free */
    size_t table_size;
};

/* A begin or an end of an operation, in the order of time. */
struct moment {
    uint64_t time_ns;
    uint32_t event;
    bool response;
};

struct search {
    const struct history_event **events; /* of one key, by invocation */
    size_t event_count;
    struct moment *moments;
    const struct history_event *slots[SLOTS_MAX];
    uint64_t slots_used;
    struct configuration_set current;
    struct configuration_set next;
    struct linear_report *report;
};

static void *allocate(void *old, size_t size)
{
    void *memory = realloc(old, size != 0 ? size : 1);
    if (memory == NULL)
        abort();
    return memory;
}

/* ---- The set ---------------------------------------------------------------------------------------------------- */

static size_t configuration_bucket(const struct configuration *c, size_t table_size)
{
    return (size_t)random_mix(c->value ^ random_mix(c->taken * 2 + c->present)) & (table_size - 1);
}

static bool configuration_equal(const struct configuration *a, const struct configuration *b)
{
    return a->taken == b->taken && a->present == b->present && (!a->present || a->value == b->value);
}

static void set_rehash(struct configuration_set *set)
{
    set->table_size = set->table_size != 0 ? set->table_size * 2 : 64;
    set->table = allocate(set->table, set->table_size * sizeof(*set->table));
    memset(set->table, 0, set->table_size * sizeof(*set->table));
    for (size_t i = 0; i < set->count; i++) {
        size_t at = configuration_bucket(&set->members[i], set->table_size);
        while (set->table[at] != 0)
            at = (at + 1) & (set->table_size - 1);
        set->table[at] = (uint32_t)i + 1;
    }
}

static void set_add(struct configuration_set *set, struct configuration added)
{
    if (!added.present)
        added.value = 0;
    if (set->count * 2 >= set->table_size)
        set_rehash(set);
    size_t at = configuration_bucket(&added, set->table_size);
    for (; set->table[at] != 0; at = (at + 1) & (set->table_size - 1)) {
        if (configuration_equal(&set->members[set->table[at] - 1], &added))
            return;
    }
    if (set->count == set->capacity) {
        set->capacity = set->capacity * 2 + 16;
        set->members = allocate(set->members, set->capacity * sizeof(*set->members));
    }
    set->members[set->count++] = added;
    set->table[at] = (uint32_t)set->count;
}

/* A large table is given up, so that clearing stays cheap after one bad moment. */
static void set_clear(struct configuration_set *set)
{
    set->count = 0;
    if (set->table_size > 4096) {
        set->table_size = 64;
        set->table = allocate(set->table, set->table_size * sizeof(*set->table));
    }
    if (set->table_size != 0)
        memset(set->table, 0, set->table_size * sizeof(*set->table));
}

static void set_free(struct configuration_set *set)
{
    free(set->members);
    free(set->table);
}

/* ---- What an operation does ------------------------------------------------------------------------------------- */

/* Applies the operation to *c; false if in that state it would have answered something else. */
static bool apply(const struct history_event *event, struct configuration *c)
{
    switch (event->kind) {
    case HISTORY_GET:
        return c->present ? event->result == HISTORY_FOUND && event->value == c->value
                          : event->result == HISTORY_ABSENT;
    case HISTORY_EXISTS:
        return event->result == (c->present ? HISTORY_FOUND : HISTORY_ABSENT);
    case HISTORY_PUT:
        c->present = true;
        c->value = event->value;
        return event->result == HISTORY_DONE;
    case HISTORY_DELETE:
        c->present = false;
        return event->result == HISTORY_DONE;
    case HISTORY_DELETE_EXISTED: {
        bool existed = c->present;
        c->present = false;
        return event->result == (existed ? HISTORY_FOUND : HISTORY_ABSENT);
    }
    case HISTORY_INSERT:
        if (c->present)
            return event->result == HISTORY_REFUSED;
        c->present = true;
        c->value = event->value;
        return event->result == HISTORY_DONE;
    case HISTORY_COMPARE_AND_SWAP:
        if (!c->present)
            return event->result == HISTORY_ABSENT;
        if (c->value != event->expected)
            return event->result == HISTORY_REFUSED;
        c->value = event->value;
        return event->result == HISTORY_DONE;
    case HISTORY_ADD:
        c->value = (c->present ? c->value : 0) + event->value;
        c->present = true;
        return event->result == HISTORY_DONE && event->sum == c->value;
    }
    return false;
}

/* ---- The search of one key -------------------------------------------------------------------------------------- */

/*
 * The operation in `slot` responds: keeps what explains it. From every configuration in which it has not taken effect,
 * any operations in progress may take effect before it, in any order; `current` grows while it is walked.
 */
static enum linear_verdict respond(struct search *search, int slot)
{
    uint64_t bit = 1ull << slot;
    set_clear(&search->next);

    for (size_t i = 0; i < search->current.count; i++) {
        struct configuration from = search->current.members[i];
        if (from.taken & bit) {
            from.taken &= ~bit;
            set_add(&search->next, from);
            continue;
        }
        for (uint64_t open = search->slots_used & ~from.taken; open != 0; open &= open - 1) {
            int other = __builtin_ctzll(open);
            struct configuration to = from;
            if (!apply(search->slots[other], &to))
                continue;
            to.taken |= 1ull << other;
            set_add(&search->current, to);
        }
        if (search->current.count > CONFIGURATIONS_MAX)
            return LINEAR_UNDECIDED;
    }
    if (search->current.count > search->report->largest_set)
        search->report->largest_set = search->current.count;

    struct configuration_set swap = search->current;
    search->current = search->next;
    search->next = swap;
    search->slots_used &= ~bit;
    return search->current.count != 0 ? LINEAR_OK : LINEAR_VIOLATION;
}

/* Names the response that fits nothing and the operations that began last before it. */
static void describe(struct search *search, const struct history_event *failed, const char *what)
{
    struct linear_report *report = search->report;
    char line[256];
    size_t last = 0;
    while (last < search->event_count && search->events[last]->invoked_ns <= failed->responded_ns)
        last++;

    history_print_event(failed, line, sizeof(line));
    size_t used =
        (size_t)snprintf(report->message, sizeof(report->message), "%s: %s\noperations before it:", what, line);
    for (size_t i = last > 12 ? last - 12 : 0; i < last && used < sizeof(report->message); i++) {
        history_print_event(search->events[i], line, sizeof(line));
        used += (size_t)snprintf(report->message + used, sizeof(report->message) - used, "\n  %s", line);
    }
}

static enum linear_verdict search_moments(struct search *search, int *slot_of)
{
    for (size_t i = 0; i < search->event_count * 2; i++) {
        const struct moment *moment = &search->moments[i];
        const struct history_event *event = search->events[moment->event];
        if (!moment->response) {
            if (~search->slots_used == 0) {
                describe(search, event, "too many operations at once");
                return LINEAR_UNDECIDED;
            }
            int slot = __builtin_ctzll(~search->slots_used);
            search->slots_used |= 1ull << slot;
            search->slots[slot] = event;
            slot_of[moment->event] = slot;
            continue;
        }
        enum linear_verdict verdict = respond(search, slot_of[moment->event]);
        if (verdict != LINEAR_OK) {
            describe(search, event, verdict == LINEAR_VIOLATION ? "nothing explains" : "too many possibilities at");
            return verdict;
        }
    }
    return LINEAR_OK;
}

/* By time; at equal times begins before ends, so that touching operations overlap. */
static int compare_moments(const void *a, const void *b)
{
    const struct moment *x = (const struct moment *)a;
    const struct moment *y = (const struct moment *)b;
    if (x->time_ns != y->time_ns)
        return x->time_ns < y->time_ns ? -1 : 1;
    if (x->response != y->response)
        return x->response ? 1 : -1;
    return (x->event > y->event) - (x->event < y->event);
}

static enum linear_verdict check_key(const struct history_event **events, size_t count, struct linear_report *report)
{
    struct search search = {.events = events, .event_count = count, .report = report};
    int *slot_of = allocate(NULL, count * sizeof(*slot_of));
    search.moments = allocate(NULL, count * 2 * sizeof(*search.moments));
    for (size_t i = 0; i < count; i++) {
        search.moments[2 * i] = (struct moment){.time_ns = events[i]->invoked_ns, .event = (uint32_t)i};
        search.moments[2 * i + 1] =
            (struct moment){.time_ns = events[i]->responded_ns, .event = (uint32_t)i, .response = true};
    }
    qsort(search.moments, count * 2, sizeof(*search.moments), compare_moments);
    set_add(&search.current, (struct configuration){.present = false});

    enum linear_verdict verdict = search_moments(&search, slot_of);
    set_free(&search.current);
    set_free(&search.next);
    free(search.moments);
    free(slot_of);
    return verdict;
}

/* ---- All keys --------------------------------------------------------------------------------------------------- */

static int compare_events(const void *a, const void *b)
{
    const struct history_event *x = *(const struct history_event *const *)a;
    const struct history_event *y = *(const struct history_event *const *)b;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return (x->invoked_ns > y->invoked_ns) - (x->invoked_ns < y->invoked_ns);
}

enum linear_verdict linear_check(const struct history_event *events, size_t count, struct linear_report *ret_report)
{
    const struct history_event **sorted = allocate(NULL, count * sizeof(*sorted));
    enum linear_verdict verdict = LINEAR_OK;

    *ret_report = (struct linear_report){0};
    for (size_t i = 0; i < count; i++)
        sorted[i] = &events[i];
    qsort(sorted, count, sizeof(*sorted), compare_events);

    for (size_t first = 0, end; first < count && verdict == LINEAR_OK; first = end) {
        for (end = first; end < count && sorted[end]->key == sorted[first]->key; end++)
            continue;
        ret_report->key = sorted[first]->key;
        ret_report->keys_checked++;
        verdict = check_key(sorted + first, end - first, ret_report);
    }
    free(sorted);
    return verdict;
}
