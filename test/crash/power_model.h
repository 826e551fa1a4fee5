/*
 * What is in a store: states, and values that say by themselves what they are.
 *
 * For crash_power, and for the simulation (test/sim).
 */
#ifndef TEST_CRASH_POWER_MODEL_H
#define TEST_CRASH_POWER_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TREES 3u    /* the last one with caller versions */
#define KEYS 20u    /* of a tree */
#define COUNTERS 4u /* the last keys of the first tree are counters */

/* 0: absent. A counter: what it says. Else the stamp of the value, from which size and bytes follow. */
struct state {
    uint64_t cells[TREES][KEYS];
    bool exists[TREES];
};

bool is_counter(uint32_t tree, uint32_t key);
size_t key_of(uint32_t key, char *to);
uint64_t state_hash(const struct state *state);
/* Size of the value with this stamp; its bytes, made in memory of MOST_VALUE. */
#define MOST_VALUE 65536u
uint32_t value_size_of(uint64_t stamp);
const uint8_t *value_of(uint64_t stamp, uint8_t *bytes);
bool value_is(uint64_t stamp, const void *bytes, size_t size);

#endif
