/*
 * Random numbers of the benchmark: set-up of permutations, and the zipfian choice.
 *
 * Layer: bench. See random.h.
 */
#include "random.h"

#include <math.h>

void bench_permutation_init(struct bench_permutation *ret_permutation, uint64_t count, uint64_t seed)
{
    unsigned bits = 0;
    struct bench_rng rng;

    while (bits < 63 && (UINT64_C(1) << bits) < count)
        bits++;
    bench_rng_init(&rng, seed, count);
    ret_permutation->count = count;
    ret_permutation->mask = (UINT64_C(1) << bits) - 1;
    ret_permutation->shift = bits / 2 + 1;
    for (int round = 0; round < BENCH_PERMUTATION_ROUNDS; round++) {
        ret_permutation->multiplier[round] = bench_rng_next(&rng) | 1;
        ret_permutation->addend[round] = bench_rng_next(&rng);
    }
}

void bench_zipf_init(struct bench_zipf *ret_zipf, uint64_t count, double theta)
{
    double zeta = 0;

    for (uint64_t i = 1; i <= count; i++)
        zeta += pow((double)i, -theta);
    ret_zipf->count = count;
    ret_zipf->theta = theta;
    ret_zipf->zeta_count = zeta;
    ret_zipf->half_power = pow(0.5, theta);
    ret_zipf->zeta_two = 1 + ret_zipf->half_power;
    ret_zipf->alpha = 1 / (1 - theta);
    ret_zipf->eta = count > 2 ? (1 - pow(2 / (double)count, 1 - theta)) / (1 - ret_zipf->zeta_two / zeta) : 0;
}

uint64_t bench_zipf_rank(const struct bench_zipf *zipf, struct bench_rng *rng)
{
    double unit = bench_rng_unit(rng);
    double scaled = unit * zipf->zeta_count;
    uint64_t rank;

    if (scaled < 1 || zipf->count == 1)
        return 0;
    if (scaled < zipf->zeta_two || zipf->count == 2)
        return 1;
    rank = (uint64_t)((double)zipf->count * pow(zipf->eta * unit - zipf->eta + 1, zipf->alpha));
    return rank < zipf->count ? rank : zipf->count - 1;
}

/* FNV-1a over the eight bytes of x, as YCSB scrambles. */
static uint64_t fnv_hash(uint64_t x)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    for (int i = 0; i < 8; i++) {
        hash = (hash ^ (x & 0xff)) * UINT64_C(0x100000001b3);
        x >>= 8;
    }
    return hash;
}

uint64_t bench_zipf_next(const struct bench_zipf *zipf, struct bench_rng *rng)
{
    return fnv_hash(bench_zipf_rank(zipf, rng)) % zipf->count;
}
