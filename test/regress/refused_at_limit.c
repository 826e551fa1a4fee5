/*
 * Goal: what cannot be written at the memory limit is refused soon.
 * Method: fill a database with a background thread to its limit, then go on deleting and putting for a while; the time of
 * refused puts is measured. The bug: a writer that found a little retired memory waited 10 ms for a round of reclamation,
 * which the background thread did not think due.
 */
#include "lib/check.h"

#include <quire/quire.h>

#include <stdio.h>
#include <time.h>

#define REFUSALS 300u
#define MOST_US 4000u /* on average: the bug took 10,000, a busy machine under a sanitizer may take 1,000 */
#define MOST_TRIES 200000u

static uint64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static size_t make_key(uint64_t number, char *key)
{
    return (size_t)snprintf(key, 24, "key-%010u", (unsigned)((uint32_t)number * 0x9e3779b1u));
}

int main(void)
{
    static const char value[1000];
    struct quire_options options;
    struct quire *db = NULL;
    struct quire_tree *tree = NULL;
    char key[24];
    uint64_t put = 0, deleted = 0, refused = 0, refused_us = 0;

    quire_options_init(&options);
    options.background_threads = 1;
    options.memory_limit_bytes = 16u << 20;
    CHECK_EQUAL(quire_open(NULL, &options, &db), 0);
    CHECK_EQUAL(quire_tree_open(db, NULL, NULL, &tree), 0);
    for (uint64_t i = 0; i < MOST_TRIES && refused < REFUSALS; i++) {
        uint64_t start = now_us();
        int result = quire_put(tree, key, make_key(put, key), value, sizeof(value), 0, NULL);
        CHECK(result == 0 || result == QUIRE_ERR_NO_MEMORY, "put: %d", result);
        if (result == 0) {
            put++;
            continue;
        }
        refused++;
        refused_us += now_us() - start;
        result = quire_delete(tree, key, make_key(deleted++, key), 0, NULL, NULL);
        CHECK(result == 0 || result == QUIRE_ERR_NO_MEMORY, "delete: %d", result);
    }
    CHECK_EQUAL(refused, REFUSALS);
    CHECK(refused_us < REFUSALS * MOST_US, "%llu us", (unsigned long long)refused_us);
    CHECK_EQUAL(quire_close(db), 0);
    return check_finish();
}
