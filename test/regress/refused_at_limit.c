/*
 * Goal: who waits at the memory limit for a round of reclamation gets one.
 * Method: fill a database with a background thread to its limit, then go on deleting and putting; of refused puts that have waited
 * those are counted in which no round has ended. The bug: a writer that found a little retired memory waited for a round without
 * asking for it, which the background thread did not think due for twice as long as the wait: nearly all waited in vain,
 * 10 ms each.
 */
#include "db/db.h"
#include "lib/check.h"

#include <stdio.h>

#define WAITS 50u
#define MOST_IN_VAIN (WAITS / 2) /* none, where the background thread gets a processor while a writer waits */
#define MOST_TRIES 200000u

static uint64_t waits_of(const struct qr_thread *thread)
{
    return qr_counter_read(&thread->counters[QR_COUNTER_STALLS]);
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
    uint64_t put = 0, deleted = 0, waited = 0, in_vain = 0;

    quire_options_init(&options);
    options.background_threads = 1;
    options.memory_limit_bytes = 16u << 20;
    CHECK_EQUAL(quire_open(NULL, &options, &db), 0);
    CHECK_EQUAL(quire_tree_open(db, NULL, NULL, &tree), 0);
    const struct qr_thread *thread = qr_thread_self(db->epoch);
    for (uint64_t i = 0; i < MOST_TRIES && waited < WAITS; i++) {
        uint64_t waits = waits_of(thread);
        uint32_t rounds = qr_event_count(&db->reclaimed);
        int result = quire_put(tree, key, make_key(put, key), value, sizeof(value), 0, NULL);
        CHECK(result == 0 || result == QUIRE_ERR_NO_MEMORY, "put: %d", result);
        if (result == 0) {
            put++;
            continue;
        }
        if (waits_of(thread) != waits) {
            waited++;
            in_vain += qr_event_count(&db->reclaimed) == rounds;
        }
        result = quire_delete(tree, key, make_key(deleted++, key), 0, NULL, NULL);
        CHECK(result == 0 || result == QUIRE_ERR_NO_MEMORY, "delete: %d", result);
    }
    CHECK_EQUAL(waited, WAITS);
    CHECK(in_vain <= MOST_IN_VAIN, "%llu of %u waits saw no round", (unsigned long long)in_vain, WAITS);
    CHECK_EQUAL(quire_close(db), 0);
    return check_finish();
}
