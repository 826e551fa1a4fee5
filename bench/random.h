/*
 * Random numbers of the benchmark: a fast generator, random permutations without an array, and the zipfian choice.
 *
 * Layer: bench (uses nothing of the project). Every structure belongs to one thread, or is read-only once set up.
 * All of it is a function of the seed: the same command line gives every engine the same operations.
 *
 * RANDOM-1  A permutation of n numbers is a bijection on [0, n) for every seed (test_bench.c).
 */
#ifndef BENCH_RANDOM_H
#define BENCH_RANDOM_H

#include <stdint.h>

__extension__ typedef unsigned __int128 bench_uint128;

/* The finalizer of splitmix64: a bijection on 64-bit numbers that spreads every input bit over all output bits. */
static inline uint64_t bench_mix64(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

struct bench_rng {
    uint64_t state;
};

static inline void bench_rng_init(struct bench_rng *rng, uint64_t seed, uint64_t stream)
{
    rng->state = bench_mix64(seed ^ bench_mix64(stream + UINT64_C(0x9e3779b97f4a7c15)));
}

static inline uint64_t bench_rng_next(struct bench_rng *rng)
{
    rng->state += UINT64_C(0x9e3779b97f4a7c15);
    return bench_mix64(rng->state);
}

/* A number in [0, count); count is at least 1. */
static inline uint64_t bench_rng_below(struct bench_rng *rng, uint64_t count)
{
    return (uint64_t)(((bench_uint128)bench_rng_next(rng) * count) >> 64);
}

/* A number in [0, 1). */
static inline double bench_rng_unit(struct bench_rng *rng)
{
    return (double)(bench_rng_next(rng) >> 11) * 0x1p-53;
}

enum { BENCH_PERMUTATION_ROUNDS = 3 };

/*
 * A permutation of [0, count): a few rounds of bijections (odd multiplication, addition, exclusive or with the own
 * upper half) on the next power of two, walked along its cycle until the result is below count.
 */
struct bench_permutation {
    uint64_t count;
    uint64_t mask; /* next power of two - 1 */
    unsigned shift;
    uint64_t multiplier[BENCH_PERMUTATION_ROUNDS];
    uint64_t addend[BENCH_PERMUTATION_ROUNDS];
};

void bench_permutation_init(struct bench_permutation *ret_permutation, uint64_t count, uint64_t seed);

/* The image of x, which must be below count. */
static inline uint64_t bench_permute(const struct bench_permutation *permutation, uint64_t x)
{
    do {
        for (int round = 0; round < BENCH_PERMUTATION_ROUNDS; round++) {
            x = (x * permutation->multiplier[round] + permutation->addend[round]) & permutation->mask;
            x ^= x >> permutation->shift;
        }
    } while (x >= permutation->count);
    return x;
}

/*
 * The scrambled zipfian distribution of YCSB: rank r is drawn with a probability proportional to 1 / (r + 1)^theta by
 * the method of Gray et al. (1994), and the rank is spread over the keys by a hash, so that the popular keys do not lie
 * together. As in YCSB two ranks may hit the same key.
 */
struct bench_zipf {
    uint64_t count;
    double theta, zeta_count, zeta_two, alpha, eta, half_power;
};

/* Computes the sum over count terms: about 0.3 s for ten million. count is at least 1, theta between 0 and 1. */
void bench_zipf_init(struct bench_zipf *ret_zipf, uint64_t count, double theta);
uint64_t bench_zipf_rank(const struct bench_zipf *zipf, struct bench_rng *rng);
uint64_t bench_zipf_next(const struct bench_zipf *zipf, struct bench_rng *rng);

#endif
