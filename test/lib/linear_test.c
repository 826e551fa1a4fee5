/*
 * Goal: the linearizability checker accepts every history that a correct store can produce, and refuses every other.
 * Method: small histories written by hand, good and bad; random histories of a simulated correct store, long ones too;
 * the same with one answer falsified; small random histories, right and wrong, against a search of all orders.
 *
 * Test library.
 */
#include "check.h"
#include "linear.h"
#include "options.h"
#include "random.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* An event: [begin, end] kind(key, value, expected, sum) -> result. */
#define EVENT(begin, finish, operation, key_, value_, expected_, sum_, answer)                                         \
    {                                                                                                                  \
        .invoked_ns = (begin), .responded_ns = (finish), .kind = HISTORY_##operation, .key = (key_),                   \
        .value = (value_), .expected = (expected_), .sum = (sum_), .result = HISTORY_##answer                          \
    }
#define PUT(begin, finish, value) EVENT(begin, finish, PUT, 1, value, 0, 0, DONE)
#define GET(begin, finish, value) EVENT(begin, finish, GET, 1, value, 0, 0, FOUND)
#define GET_ABSENT(begin, finish) EVENT(begin, finish, GET, 1, 0, 0, 0, ABSENT)
#define DELETE(begin, finish) EVENT(begin, finish, DELETE, 1, 0, 0, 0, DONE)
#define DELETE_EXISTED(begin, finish, answer) EVENT(begin, finish, DELETE_EXISTED, 1, 0, 0, 0, answer)
#define INSERT(begin, finish, value, answer) EVENT(begin, finish, INSERT, 1, value, 0, 0, answer)
#define CAS(begin, finish, expected, value, answer)                                                                    \
    EVENT(begin, finish, COMPARE_AND_SWAP, 1, value, expected, 0, answer)
#define ADD(begin, finish, amount, sum) EVENT(begin, finish, ADD, 1, amount, 0, sum, DONE)
#define EXISTS(begin, finish, answer) EVENT(begin, finish, EXISTS, 1, 0, 0, 0, answer)

static void expect(const char *name, const struct history_event *events, size_t count, enum linear_verdict verdict)
{
    struct linear_report report;
    enum linear_verdict found = linear_check(events, count, &report);
    CHECK(found == verdict, "%s: verdict %d, not %d\n%s", name, found, verdict, report.message);
    if (verdict == LINEAR_VIOLATION)
        CHECK(strstr(report.message, "nothing explains") != NULL, "%s: no report", name);
}

#define ACCEPT(name, ...)                                                                                              \
    expect(name, (const struct history_event[]){__VA_ARGS__}, COUNT(((const struct history_event[]){__VA_ARGS__})),    \
           LINEAR_OK)
#define REFUSE(name, ...)                                                                                              \
    expect(name, (const struct history_event[]){__VA_ARGS__}, COUNT(((const struct history_event[]){__VA_ARGS__})),    \
           LINEAR_VIOLATION)

static void good_histories_are_accepted(void)
{
    ACCEPT("put then get", PUT(1, 2, 5), GET(3, 4, 5));
    ACCEPT("get during put sees old", GET_ABSENT(2, 3), PUT(1, 4, 5), GET(5, 6, 5));
    ACCEPT("get during put sees new", GET(2, 3, 5), PUT(1, 4, 5));
    ACCEPT("overlapping puts, either last", PUT(1, 4, 5), PUT(2, 3, 6), GET(5, 6, 5), GET(7, 8, 5));
    ACCEPT("readers during overlapping puts", PUT(1, 9, 5), PUT(1, 9, 6), GET(2, 3, 6), GET(4, 5, 5), GET(10, 11, 5));
    ACCEPT("touching operations overlap", PUT(1, 2, 5), GET_ABSENT(2, 3));
    ACCEPT("one winner", PUT(1, 2, 5), CAS(3, 6, 5, 7, DONE), CAS(4, 5, 5, 8, REFUSED), GET(7, 8, 7));
    ACCEPT("chain of swaps", PUT(1, 2, 5), CAS(3, 6, 5, 7, DONE), CAS(3, 6, 7, 8, DONE), GET(7, 8, 8));
    ACCEPT("swap on nothing", CAS(1, 2, 0, 1, ABSENT), INSERT(3, 4, 9, DONE), INSERT(5, 6, 8, REFUSED));
    ACCEPT("adds in the order of their sums", ADD(1, 9, 1, 2), ADD(1, 9, 1, 1), ADD(1, 9, 1, 3), GET(10, 11, 3));
    ACCEPT("deletes", PUT(1, 2, 5), DELETE_EXISTED(3, 6, FOUND), DELETE_EXISTED(3, 6, ABSENT), GET_ABSENT(7, 8));
    ACCEPT("delete then add", PUT(1, 2, 5), DELETE(3, 4), ADD(5, 6, 3, 3), EXISTS(7, 8, FOUND), DELETE(9, 10),
           EXISTS(11, 12, ABSENT));
    ACCEPT("a long put takes effect late", PUT(1, 100, 5), GET_ABSENT(2, 3), PUT(4, 5, 6), GET(6, 7, 6), GET(8, 9, 5));
    ACCEPT("keys are independent", PUT(1, 2, 5), EVENT(3, 4, GET, 2, 0, 0, 0, ABSENT), GET(5, 6, 5));
}

static void bad_histories_are_refused(void)
{
    REFUSE("stale read", PUT(1, 2, 5), PUT(3, 4, 6), GET(5, 6, 5));
    REFUSE("read of a value never written", PUT(1, 2, 5), GET(3, 4, 7));
    REFUSE("read of a value from the future", GET(1, 2, 5), PUT(3, 4, 5));
    REFUSE("non-monotone reads", PUT(1, 2, 5), PUT(3, 20, 6), GET(4, 5, 6), GET(6, 7, 5));
    REFUSE("two readers disagree on an order", PUT(1, 9, 5), PUT(1, 9, 6), GET(10, 11, 5), GET(12, 13, 6));
    REFUSE("lost put", PUT(1, 2, 5), GET_ABSENT(3, 4));
    REFUSE("deleted value comes back", PUT(1, 2, 5), DELETE(3, 4), GET(5, 6, 5));
    REFUSE("lost update of two adds", ADD(1, 9, 1, 1), ADD(1, 9, 1, 1));
    REFUSE("lost update seen at the end", ADD(1, 2, 1, 1), ADD(3, 4, 1, 2), GET(5, 6, 1));
    REFUSE("two winners of a swap", PUT(1, 2, 5), CAS(3, 6, 5, 7, DONE), CAS(3, 6, 5, 8, DONE));
    REFUSE("no winner of a swap", PUT(1, 2, 5), CAS(3, 6, 5, 7, REFUSED), CAS(3, 6, 5, 8, REFUSED));
    REFUSE("swap of an absent key succeeds", CAS(1, 2, 0, 7, DONE));
    REFUSE("two winners of an insert", INSERT(1, 4, 5, DONE), INSERT(1, 4, 6, DONE));
    REFUSE("refused insert without a value", INSERT(1, 2, 5, REFUSED));
    REFUSE("two deletes of one value", PUT(1, 2, 5), DELETE_EXISTED(3, 6, FOUND), DELETE_EXISTED(3, 6, FOUND));
    REFUSE("delete denies a value", PUT(1, 2, 5), DELETE_EXISTED(3, 4, ABSENT));
    REFUSE("exists denies a value", PUT(1, 2, 5), EXISTS(3, 4, ABSENT));
    REFUSE("exists invents a value", EXISTS(1, 2, FOUND));
    REFUSE("late violation on another key", PUT(1, 2, 5), EVENT(1, 2, PUT, 9, 1, 0, 0, DONE), GET(3, 4, 5),
           EVENT(3, 4, GET, 9, 2, 0, 0, FOUND));
}

/* ---- Random histories ------------------------------------------------------------------------------------------- */

struct model_state {
    bool present;
    uint64_t value;
};

/* Runs the operation on the state, and writes the answers of a correct store into the event. */
static void answer(struct model_state *state, struct history_event *event)
{
    bool present = state->present;
    event->result = HISTORY_DONE;
    switch (event->kind) {
    case HISTORY_GET:
        event->value = present ? state->value : 0;
        event->result = present ? HISTORY_FOUND : HISTORY_ABSENT;
        return;
    case HISTORY_EXISTS:
        event->result = present ? HISTORY_FOUND : HISTORY_ABSENT;
        return;
    case HISTORY_PUT:
        *state = (struct model_state){true, event->value};
        return;
    case HISTORY_DELETE:
    case HISTORY_DELETE_EXISTED:
        if (event->kind == HISTORY_DELETE_EXISTED)
            event->result = present ? HISTORY_FOUND : HISTORY_ABSENT;
        state->present = false;
        return;
    case HISTORY_INSERT:
        if (present)
            event->result = HISTORY_REFUSED;
        else
            *state = (struct model_state){true, event->value};
        return;
    case HISTORY_COMPARE_AND_SWAP:
        if (!present)
            event->result = HISTORY_ABSENT;
        else if (state->value != event->expected)
            event->result = HISTORY_REFUSED;
        else
            state->value = event->value;
        return;
    case HISTORY_ADD:
        *state = (struct model_state){true, (present ? state->value : 0) + event->value};
        event->sum = state->value;
        return;
    }
}

/*
 * A correct history: operations take effect one a tick, and begin and end up to `spread` ticks around that. Times of
 * one simulated thread do not matter to the checker.
 */
static void make_history(struct random_stream *stream, struct history_event *events, size_t count, unsigned keys,
                         uint64_t spread)
{
    struct model_state *states = calloc(keys, sizeof(*states));
    for (size_t i = 0; i < count && states != NULL; i++) {
        uint64_t at = 1000 + i * 10;
        uint64_t key = random_below(stream, keys);
        events[i] = (struct history_event){.invoked_ns = at - random_below(stream, spread * 10 + 1),
                                           .responded_ns = at + 1 + random_below(stream, spread * 10 + 1),
                                           .key = key,
                                           .value = random_between(stream, 1, 4),
                                           .expected = random_between(stream, 1, 4),
                                           .kind = (enum history_kind)random_below(stream, HISTORY_EXISTS + 1),
                                           .sequence = (uint32_t)i};
        answer(&states[key], &events[i]);
    }
    free(states);
}

static void long_correct_histories_are_accepted(struct random_stream *stream)
{
    size_t count = (size_t)test_scaled(200000);
    struct history_event *events = calloc(count, sizeof(*events));
    struct linear_report report;

    make_history(stream, events, count, 1, 5);
    CHECK(linear_check(events, count, &report) == LINEAR_OK, "one key: %s", report.message);
    make_history(stream, events, count, 50, 100);
    CHECK(linear_check(events, count, &report) == LINEAR_OK && report.keys_checked > 0, "50 keys: %s", report.message);

    struct history_event *late = &events[count / 2];
    *late = (struct history_event){.invoked_ns = late->invoked_ns,
                                   .responded_ns = late->responded_ns,
                                   .key = late->key,
                                   .kind = HISTORY_GET,
                                   .value = 1000,
                                   .result = HISTORY_FOUND};
    CHECK(linear_check(events, count, &report) == LINEAR_VIOLATION, "a value never written in a long history");
    CHECK(report.key == late->key, "key %" PRIu64, report.key);
    free(events);
}

/* All orders, one operation after the other: the plain definition. */
static bool some_order_explains(const struct history_event *events, size_t count, unsigned done,
                                struct model_state state)
{
    if (done == (1u << count) - 1)
        return true;
    for (size_t i = 0; i < count; i++) {
        if (done & (1u << i))
            continue;
        bool first = true;
        for (size_t j = 0; j < count; j++)
            first = first && ((done & (1u << j)) || events[j].responded_ns >= events[i].invoked_ns);
        struct model_state after = state;
        struct history_event expected = events[i];
        answer(&after, &expected);
        if (first && expected.result == events[i].result && expected.value == events[i].value &&
            expected.sum == events[i].sum && some_order_explains(events, count, done | (1u << i), after))
            return true;
    }
    return false;
}

static void falsify(struct random_stream *stream, struct history_event *event)
{
    switch (event->kind) {
    case HISTORY_GET:
        event->result = random_chance(stream, 50) ? HISTORY_FOUND : HISTORY_ABSENT;
        event->value = event->result == HISTORY_FOUND ? random_between(stream, 1, 4) : 0;
        return;
    case HISTORY_EXISTS:
    case HISTORY_DELETE_EXISTED:
        event->result = event->result == HISTORY_FOUND ? HISTORY_ABSENT : HISTORY_FOUND;
        return;
    case HISTORY_INSERT:
        event->result = event->result == HISTORY_DONE ? HISTORY_REFUSED : HISTORY_DONE;
        return;
    case HISTORY_COMPARE_AND_SWAP:
        event->result = event->result == HISTORY_DONE ? HISTORY_REFUSED : HISTORY_DONE;
        return;
    case HISTORY_ADD:
        event->sum = random_between(stream, 1, 6);
        return;
    case HISTORY_PUT:
    case HISTORY_DELETE:
        event->invoked_ns += 15;
        event->responded_ns += 15;
        return;
    }
}

static void small_histories_agree_with_all_orders(struct random_stream *stream)
{
    uint64_t rounds = test_scaled(20000);
    uint64_t bad = 0;
    for (uint64_t i = 0; i < rounds; i++) {
        struct history_event events[7];
        size_t count = (size_t)random_between(stream, 2, COUNT(events));
        struct linear_report report;

        make_history(stream, events, count, 1, 2);
        if (random_chance(stream, 80))
            falsify(stream, &events[random_below(stream, count)]);
        bool right = some_order_explains(events, count, 0, (struct model_state){0});
        bad += !right;
        if (!CHECK((linear_check(events, count, &report) == LINEAR_OK) == right, "round %" PRIu64 ": %s", i,
                   report.message))
            return;
    }
    CHECK(bad * 10 > rounds && bad * 10 < rounds * 9, "%" PRIu64 " of %" PRIu64 " bad: not both kinds tested", bad,
          rounds);
}

static void an_overload_is_not_called_right(void)
{
    struct history_event events[70];
    struct linear_report report;
    for (size_t i = 0; i < COUNT(events); i++)
        events[i] = (struct history_event)PUT(1, 10, i);
    CHECK(linear_check(events, COUNT(events), &report) == LINEAR_UNDECIDED, "70 operations at once");
}

int main(int argc, char **argv)
{
    uint64_t seed = 0;
    const struct test_option options[] = {{.name = "seed", .help = "0 = from the clock", .number = &seed}};
    test_options_parse(argc, argv, "tests of the linearizability checker", options, 1);

    struct random_stream stream;
    random_seed(&stream, test_seed(seed));
    good_histories_are_accepted();
    bad_histories_are_refused();
    small_histories_agree_with_all_orders(&stream);
    long_correct_histories_are_accepted(&stream);
    an_overload_is_not_called_right();
    return check_finish();
}
