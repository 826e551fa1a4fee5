/*
 * Stress mode `counters`: sums lose nothing, and of several threads that want one thing exactly one gets it.
 *
 * Test program (stress). Acceptance rows D05 (one winner of a compare_and_swap), D06 (the stock example) and D13 (sums
 * of concurrent additions), and the same for insert and for delete with its existed answer.
 */
#include "stress.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define SUMS 4
#define ROUNDS_MAX 20000

struct counters_team {
    unsigned threads;
    uint64_t ops;
    uint64_t rounds;
    int64_t delta_sums[STRESS_THREADS_MAX][SUMS];
    int64_t *ones[STRESS_THREADS_MAX]; /* values that additions of 1 returned */
    uint8_t *wins[STRESS_THREADS_MAX]; /* per round: this thread won */
    unsigned stock_wins[STRESS_THREADS_MAX];
};

/* ---- Sums (D13) ------------------------------------------------------------------------------------------------- */

static void add_everywhere(struct stress_worker *worker)
{
    struct counters_team *team = (struct counters_team *)worker->shared;
    struct quire_tree *tree = worker->stress->tree;

    for (uint64_t i = 0; i < team->ops; i++) {
        char key[8] = {'s', (char)('0' + random_below(&worker->random, SUMS))};
        int64_t delta = (int64_t)random_below(&worker->random, 2001) - 1000;
        CHECK_EQUAL(quire_add(tree, key, 2, delta, 0, NULL, NULL), 0);
        team->delta_sums[worker->number][key[1] - '0'] += delta;
        CHECK_EQUAL(quire_add(tree, "one", 3, 1, 0, &team->ones[worker->number][i], NULL), 0);
        if (i != 0)
            CHECK(team->ones[worker->number][i] > team->ones[worker->number][i - 1], "a sum went back");
    }
}

static int64_t read_counter(struct stress *stress, const char *key, size_t key_size)
{
    int64_t value = 0;
    size_t size = 0;
    CHECK_EQUAL(quire_get(stress->tree, NULL, key, key_size, &value, sizeof(value), &size), 0);
    CHECK_EQUAL(size, sizeof(value));
    return value;
}

static void check_sums(struct stress *stress, const struct counters_team *team)
{
    for (unsigned i = 0; i < SUMS; i++) {
        char key[8] = {'s', (char)('0' + i)};
        int64_t right = 0;
        for (unsigned j = 0; j < team->threads; j++)
            right += team->delta_sums[j][i];
        if (right != 0 || team->ops > 100)
            CHECK_EQUAL(read_counter(stress, key, 2), right);
    }
    uint64_t total = team->ops * team->threads;
    uint8_t *seen = calloc(total + 1, 1);
    CHECK_EQUAL(read_counter(stress, "one", 3), total);
    for (unsigned i = 0; i < team->threads && seen != NULL; i++) {
        for (uint64_t j = 0; j < team->ops; j++) {
            int64_t value = team->ones[i][j];
            if (CHECK(value >= 1 && value <= (int64_t)total, "sum %" PRId64, value))
                CHECK(seen[value]++ == 0, "sum %" PRId64 " was returned twice", value);
        }
    }
    free(seen);
}

/* ---- One winner (D05) ------------------------------------------------------------------------------------------- */

/*
 * The value is the number of the round. Everybody tries to lead from each round to the next; a success in round r is
 * counted as r's, and the sum over all threads must be 1.
 */
static void swap_rounds(struct stress_worker *worker)
{
    struct counters_team *team = (struct counters_team *)worker->shared;
    struct quire_tree *tree = worker->stress->tree;
    uint64_t round = 0;
    size_t size;

    while (round < team->rounds && check_failures() == 0) {
        uint64_t next = round + 1;
        int result = quire_compare_and_swap(tree, "round", 5, &round, sizeof(round), &next, sizeof(next), 0, NULL);
        if (result == 0)
            team->wins[worker->number][round] = 1;
        else
            CHECK_EQUAL(result, QUIRE_CONFLICT);
        uint64_t before = round;
        CHECK_EQUAL(quire_get(tree, NULL, "round", 5, &round, sizeof(round), &size), 0);
        CHECK(round > before, "round %" PRIu64 " after %" PRIu64 ": neither won nor lost", round, before);
    }
}

/* A key a round: inserts it, then deletes it; each of the two has one winner. */
static void insert_rounds(struct stress_worker *worker)
{
    struct counters_team *team = (struct counters_team *)worker->shared;
    struct quire_tree *tree = worker->stress->tree;
    char key[32];

    for (uint64_t round = 0; round < team->rounds; round++) {
        size_t size = (size_t)snprintf(key, sizeof(key), "insert/%" PRIu64, round);
        int result = quire_insert(tree, key, size, &worker->number, sizeof(worker->number), 0, NULL);
        CHECK(result == 0 || result == QUIRE_EXISTS, "insert: %d", result);
        team->wins[worker->number][round] = result == 0;
    }
}

static void delete_rounds(struct stress_worker *worker)
{
    struct counters_team *team = (struct counters_team *)worker->shared;
    char key[32];

    for (uint64_t round = 0; round < team->rounds; round++) {
        size_t size = (size_t)snprintf(key, sizeof(key), "insert/%" PRIu64, round);
        int existed = -1;
        CHECK_EQUAL(quire_delete(worker->stress->tree, key, size, 0, &existed, NULL), 0);
        team->wins[worker->number][round] = existed == 1;
    }
}

static void check_winners(const struct counters_team *team, const char *what)
{
    for (uint64_t round = 0; round < team->rounds; round++) {
        unsigned winners = 0;
        for (unsigned i = 0; i < team->threads; i++)
            winners += team->wins[i][round];
        CHECK(winners == 1, "%s: round %" PRIu64 " has %u winners", what, round, winners);
    }
}

/* The value that an insert left is the winner's. */
static void check_inserted(struct stress *stress, const struct counters_team *team)
{
    char key[32];
    for (uint64_t round = 0; round < team->rounds; round++) {
        size_t key_size = (size_t)snprintf(key, sizeof(key), "insert/%" PRIu64, round);
        unsigned number = 0;
        size_t size = 0;
        CHECK_EQUAL(quire_get(stress->tree, NULL, key, key_size, &number, sizeof(number), &size), 0);
        CHECK(number < team->threads && team->wins[number][round], "round %" PRIu64 ": value of thread %u", round,
              number);
    }
}

/* ---- The stock example (D06) ------------------------------------------------------------------------------------ */

#define BUYERS 5

/* Each buyer tries once to take 10 of the stock, as text. */
static void buy(struct stress_worker *worker)
{
    struct counters_team *team = (struct counters_team *)worker->shared;
    struct quire_tree *tree = worker->stress->tree;
    char current[16] = "", next[16];
    size_t size = 0;

    team->stock_wins[worker->number] = 0;
    CHECK_EQUAL(quire_get(tree, NULL, "product:stock", 13, current, sizeof(current) - 1, &size), 0);
    int stock = atoi(current);
    if (stock < 10)
        return;
    int length = snprintf(next, sizeof(next), "%d", stock - 10);
    int result = quire_compare_and_swap(tree, "product:stock", 13, current, size, next, (size_t)length, 0, NULL);
    CHECK(result == 0 || result == QUIRE_CONFLICT, "compare_and_swap: %d", result);
    team->stock_wins[worker->number] = result == 0;
}

static void check_stock(struct stress *stress, struct counters_team *team)
{
    for (uint64_t i = 0; i < 1 + team->ops / 10 && check_failures() == 0; i++) {
        char left[16] = "";
        size_t size = 0;
        unsigned winners = 0;
        CHECK_EQUAL(quire_put(stress->tree, "product:stock", 13, "50", 2, 0, NULL), 0);
        stress_team(stress, BUYERS, buy, team);
        for (unsigned j = 0; j < BUYERS; j++)
            winners += team->stock_wins[j];
        CHECK_EQUAL(quire_get(stress->tree, NULL, "product:stock", 13, left, sizeof(left) - 1, &size), 0);
        CHECK(winners >= 1 && winners <= BUYERS, "%u winners", winners);
        CHECK_EQUAL(atoi(left), 50 - 10 * (int)winners);
    }
}

/* ---- A round ---------------------------------------------------------------------------------------------------- */

void stress_counters(struct stress *stress)
{
    static struct counters_team team;
    uint64_t zero = 0;

    if (!stress_open(stress, QUIRE_VERSIONS_ENGINE))
        return;
    memset(&team, 0, sizeof(team));
    team.threads = (unsigned)stress->options->threads;
    team.ops = stress->options->ops / 2 + 1;
    team.rounds = stress->options->ops < ROUNDS_MAX ? stress->options->ops : ROUNDS_MAX;
    for (unsigned i = 0; i < team.threads; i++) {
        team.ones[i] = calloc(team.ops, sizeof(*team.ones[i]));
        team.wins[i] = calloc(team.rounds, 1);
        if (team.ones[i] == NULL || team.wins[i] == NULL)
            abort();
    }

    stress_team(stress, team.threads, add_everywhere, &team);
    check_sums(stress, &team);
    CHECK_EQUAL(quire_put(stress->tree, "round", 5, &zero, sizeof(zero), 0, NULL), 0);
    stress_team(stress, team.threads, swap_rounds, &team);
    check_winners(&team, "compare_and_swap");
    stress_team(stress, team.threads, insert_rounds, &team);
    check_winners(&team, "insert");
    check_inserted(stress, &team);
    stress_team(stress, team.threads, delete_rounds, &team);
    check_winners(&team, "delete");
    check_stock(stress, &team);

    for (unsigned i = 0; i < team.threads; i++) {
        free(team.ones[i]);
        free(team.wins[i]);
    }
    stress_close(stress);
}
