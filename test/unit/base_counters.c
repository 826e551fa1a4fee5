/*
 * Goal: a per-thread counter loses nothing of its owner's and never runs backwards for a reader.
 * Method: owners add while a reader sums; exact totals once the owners have ended.
 */
#include "base/counters.h"

#include "base/check.h"

#include <criterion/criterion.h>
#include <pthread.h>

enum { OWNERS = 3, COUNTERS = 2, ADDITIONS = 200000 };

struct QR_CACHE_ALIGNED owner {
    _Atomic uint64_t counters[COUNTERS];
};

static void *add(void *arg)
{
    struct owner *owner = arg;
    for (uint64_t i = 0; i < ADDITIONS; i++) {
        qr_counter_add(&owner->counters[0], 1);
        qr_counter_add(&owner->counters[1], i);
    }
    return NULL;
}

Test(counters, sums_grow_while_owners_add_and_end_exact)
{
    static struct owner owners[OWNERS];
    pthread_t threads[OWNERS];
    uint64_t last[COUNTERS] = {0};

    for (int i = 0; i < OWNERS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, add, &owners[i]), 0);
    for (int round = 0; round < 2000; round++) {
        uint64_t totals[COUNTERS] = {0};
        for (int i = 0; i < OWNERS; i++)
            qr_counters_sum(totals, owners[i].counters, COUNTERS);
        for (int i = 0; i < COUNTERS; i++) {
            cr_assert_geq(totals[i], last[i]);
            last[i] = totals[i];
        }
    }
    for (int i = 0; i < OWNERS; i++)
        cr_assert_eq(pthread_join(threads[i], NULL), 0);

    uint64_t totals[COUNTERS] = {0};
    for (int i = 0; i < OWNERS; i++)
        qr_counters_sum(totals, owners[i].counters, COUNTERS);
    cr_assert_eq(totals[0], (uint64_t)OWNERS * ADDITIONS);
    cr_assert_eq(totals[1], (uint64_t)OWNERS * ADDITIONS * (ADDITIONS - 1) / 2);
}
