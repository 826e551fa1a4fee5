/*
 * A latency histogram with buckets of bounded relative width: merging and percentiles.
 *
 * Layer: bench. See histogram.h.
 */
#include "histogram.h"

void bench_histogram_merge(struct bench_histogram *into, const struct bench_histogram *from)
{
    for (unsigned i = 0; i < BENCH_HISTOGRAM_BUCKETS; i++)
        into->buckets[i] += from->buckets[i];
    into->count += from->count;
    if (from->max > into->max)
        into->max = from->max;
}

/* The middle of the values that fall into a bucket. */
static uint64_t bucket_middle(unsigned bucket)
{
    const unsigned sub_count = 1u << BENCH_HISTOGRAM_SUB_BITS;
    unsigned exponent;
    uint64_t low;

    if (bucket < 2 * sub_count)
        return bucket;
    exponent = (bucket >> BENCH_HISTOGRAM_SUB_BITS) - 1;
    low = (uint64_t)((bucket & (sub_count - 1)) + sub_count) << exponent;
    return low + (UINT64_C(1) << exponent) / 2;
}

uint64_t bench_histogram_percentile(const struct bench_histogram *histogram, double fraction)
{
    uint64_t rank = (uint64_t)(fraction * (double)histogram->count);
    uint64_t seen = 0;

    if (histogram->count == 0)
        return 0;
    if ((double)rank < fraction * (double)histogram->count)
        rank++;
    if (rank == 0)
        rank = 1;
    for (unsigned i = 0; i < BENCH_HISTOGRAM_BUCKETS; i++) {
        seen += histogram->buckets[i];
        if (seen >= rank) {
            uint64_t middle = bucket_middle(i);
            return middle < histogram->max ? middle : histogram->max;
        }
    }
    return histogram->max;
}
