/*
 * A latency histogram with buckets of bounded relative width, as HdrHistogram has them.
 *
 * Layer: bench. A histogram belongs to one thread; results are merged after the threads have ended.
 *
 * HISTOGRAM-1  A percentile differs from the exact one by at most 1 / 64 (1.6 %) of it; values below 64 are exact.
 */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include <stdint.h>

enum {
    BENCH_HISTOGRAM_SUB_BITS = 6, /* 64 buckets for each power of two */
    BENCH_HISTOGRAM_BUCKETS = (64 - BENCH_HISTOGRAM_SUB_BITS + 1) << BENCH_HISTOGRAM_SUB_BITS
};

struct bench_histogram {
    uint64_t count;
    uint64_t max;
    uint64_t buckets[BENCH_HISTOGRAM_BUCKETS];
};

static inline unsigned bench_histogram_bucket(uint64_t value)
{
    unsigned exponent;

    if (value < (UINT64_C(1) << BENCH_HISTOGRAM_SUB_BITS))
        return (unsigned)value;
    exponent = 63 - (unsigned)__builtin_clzll(value) - BENCH_HISTOGRAM_SUB_BITS;
    return (exponent << BENCH_HISTOGRAM_SUB_BITS) + (unsigned)(value >> exponent);
}

static inline void bench_histogram_add(struct bench_histogram *histogram, uint64_t value)
{
    histogram->buckets[bench_histogram_bucket(value)]++;
    histogram->count++;
    if (value > histogram->max)
        histogram->max = value;
}

void bench_histogram_merge(struct bench_histogram *into, const struct bench_histogram *from);

/* The smallest value that at least the fraction (0 to 1) of all values does not exceed; 0 if there are none. */
uint64_t bench_histogram_percentile(const struct bench_histogram *histogram, double fraction);

#endif
