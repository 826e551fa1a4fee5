/*
 * Options of a store that rests: no thread works in it, nothing is synced and no checkpoint made but when a call asks for that.
 */
#ifndef TEST_LIB_RESTING_H
#define TEST_LIB_RESTING_H

#include <quire/quire.h>

static inline struct quire_options resting_options(uint32_t level)
{
    struct quire_options options;
    quire_options_init(&options);
    options.level = level;
    options.background_threads = QUIRE_NO_THREADS;
    options.sync_period_ms = QUIRE_NO_PERIOD;
    options.checkpoint_interval_ms = QUIRE_NO_PERIOD;
    return options;
}

#endif
