/*
 * Goal: the numbers that the benchmark prints are what they claim to be, and what it verifies it really verifies.
 * Method: permutations, zipfian choice, histogram and keys are compared with plain oracles; wrong values and scans must
 *         be refused. `test_bench [seed]`; without one the seed is 1.
 *
 * Layer: bench. One thread.
 */
#include "check.h"
#include "engine.h"
#include "histogram.h"

#include <math.h>

static bool is_bijective(uint64_t count, uint64_t permutation_seed)
{
    struct bench_permutation permutation;
    uint8_t *seen = calloc(count, 1);
    bool good = seen != NULL;

    bench_permutation_init(&permutation, count, permutation_seed);
    for (uint64_t i = 0; good && i < count; i++) {
        uint64_t image = bench_permute(&permutation, i);
        good = image < count && !seen[image];
        if (good)
            seen[image] = 1;
    }
    free(seen);
    return good;
}

static void a_permutation_hits_every_number_once(void)
{
    static const uint64_t large[] = {65535, 65536, 65537, 99991, 1000000, 1048576, 1048577};

    for (uint64_t count = 1; count <= 300; count++)
        check(is_bijective(count, check_seed) && is_bijective(count, check_seed + count), "small permutation", count);
    for (size_t i = 0; i < sizeof(large) / sizeof(large[0]); i++)
        check(is_bijective(large[i], check_seed + i), "large permutation", large[i]);
}

/* In a random order about half of the steps go up, and about 1 / n of the numbers stay in place. */
static void a_permutation_looks_random(void)
{
    const uint64_t count = 100000;
    struct bench_permutation permutation;
    uint64_t ascents = 0;
    uint64_t near = 0;
    uint64_t last = 0;

    bench_permutation_init(&permutation, count, check_seed);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t image = bench_permute(&permutation, i);
        ascents += image > last;
        near += (image > last ? image - last : last - image) < count / 100;
        last = image;
    }
    check(ascents > 45 * count / 100 && ascents < 55 * count / 100, "ascents of a permutation", ascents);
    check(near > count / 100 && near < 3 * count / 100, "near neighbours in a permutation", near);
}

/* The share of each of the first ranks must be its term of the zeta sum; the shares of blocks of later ones as well. */
static void zipf_ranks_have_their_probability(void)
{
    const uint64_t count = 10000;
    const uint64_t draws = 2000000;
    struct bench_zipf zipf;
    struct bench_rng rng;
    uint64_t *hits = calloc(count, sizeof(*hits));
    double zeta = 0;
    uint64_t low = 0;

    if (hits == NULL)
        exit(1);
    bench_rng_init(&rng, check_seed, 1);
    bench_zipf_init(&zipf, count, 0.99);
    for (uint64_t i = 1; i <= count; i++)
        zeta += 1 / pow((double)i, 0.99);
    for (uint64_t i = 0; i < draws; i++)
        hits[bench_zipf_rank(&zipf, &rng)]++;
    for (uint64_t high = 1; low < count; high = high < 2 ? high + 1 : 4 * high) {
        double expected = 0;
        double drawn = 0;
        for (uint64_t rank = low; rank < high && rank < count; rank++) {
            expected += 1 / pow((double)rank + 1, 0.99) / zeta;
            drawn += (double)hits[rank] / (double)draws;
        }
        /* The method of Gray et al. is exact for the first two ranks and a fit for the others. */
        check(fabs(drawn - expected) < (high <= 2 ? 0.02 : 0.15) * expected, "share of zipfian ranks up to", high);
        low = high;
    }
    free(hits);
}

static void zipf_spreads_its_ranks_over_all_keys(void)
{
    const uint64_t count = 1000;
    struct bench_zipf zipf;
    struct bench_rng rng;
    uint64_t halves[2] = {0, 0};
    uint64_t popular = 0;
    uint64_t hits[1000] = {0};

    bench_rng_init(&rng, check_seed, 2);
    bench_zipf_init(&zipf, count, 0.99);
    for (uint64_t i = 0; i < 200000; i++) {
        uint64_t index = bench_zipf_next(&zipf, &rng);
        if (index >= count) {
            check(false, "a zipfian choice is in range", index);
            return;
        }
        halves[index >= count / 2]++;
        hits[index]++;
    }
    for (uint64_t i = 0; i < count; i++)
        popular += hits[i] > 2000; /* 1 % and more: the first ranks only */
    check(halves[0] > 40000 && halves[1] > 40000, "zipfian choices in the lower half", halves[0]);
    check(popular >= 5 && popular <= 30, "number of popular keys", popular);
    for (uint64_t tiny = 1; tiny <= 3; tiny++) {
        bench_zipf_init(&zipf, tiny, 0.99);
        bool good = true;
        for (int i = 0; i < 1000; i++)
            good = good && bench_zipf_next(&zipf, &rng) < tiny && bench_zipf_rank(&zipf, &rng) < tiny;
        check(good, "zipfian choice of few", tiny);
    }
}

static int compare_numbers(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static void percentiles_are_within_their_error(unsigned shift)
{
    enum { COUNT = 50000 };
    static const double fractions[] = {0, 0.001, 0.25, 0.5, 0.9, 0.99, 0.999, 1};
    uint64_t *values = malloc(COUNT * sizeof(*values));
    struct bench_histogram *parts = calloc(2, sizeof(*parts));
    struct bench_rng rng;

    if (values == NULL || parts == NULL)
        exit(1);
    bench_rng_init(&rng, check_seed, shift);
    for (unsigned i = 0; i < COUNT; i++) {
        values[i] = bench_rng_next(&rng) >> shift >> bench_rng_below(&rng, 64 - shift);
        bench_histogram_add(&parts[i & 1], values[i]);
    }
    bench_histogram_merge(&parts[0], &parts[1]);
    qsort(values, COUNT, sizeof(*values), compare_numbers);
    check(parts[0].count == COUNT && parts[0].max == values[COUNT - 1], "count and maximum", parts[0].count);
    for (unsigned i = 0; i < sizeof(fractions) / sizeof(fractions[0]); i++) {
        double rank = ceil(fractions[i] * COUNT);
        uint64_t exact = values[rank < 1 ? 0 : (unsigned)rank - 1];
        uint64_t given = bench_histogram_percentile(&parts[0], fractions[i]);
        double error = fabs((double)given - (double)exact);
        check(exact < 64 ? given == exact : error <= (double)exact / 64, "percentile beside its exact value", exact);
    }
    free(values);
    free(parts);
}

static void an_empty_histogram_answers_zero(void)
{
    struct bench_histogram *histogram = calloc(1, sizeof(*histogram));

    if (histogram == NULL)
        exit(1);
    check(bench_histogram_percentile(histogram, 0.5) == 0, "empty histogram", 0);
    bench_histogram_add(histogram, UINT64_MAX);
    check(bench_histogram_percentile(histogram, 0.5) >= UINT64_MAX - UINT64_MAX / 64, "largest value", 0);
    free(histogram);
}

/* Keys of neighbouring numbers differ, and are in order unless the format mixes them. */
static void keys_are_distinct_and_in_order(enum bench_key_format format, size_t key_size)
{
    struct bench_data data;
    uint8_t last[BENCH_MAX_KEY_SIZE_BYTES], key[BENCH_MAX_KEY_SIZE_BYTES];
    bool distinct = true;
    bool ordered = true;

    if (!bench_data_init(&data, format, key_size, 100))
        exit(1);
    bench_key(&data, 0, last);
    for (uint64_t number = 1; number < 50000; number++) {
        bench_key(&data, number, key);
        distinct = distinct && memcmp(last, key, key_size) != 0;
        ordered = ordered && memcmp(last, key, key_size) < 0;
        memcpy(last, key, key_size);
    }
    check(distinct, "neighbouring keys differ, format", format);
    check(ordered == (format != BENCH_KEY_HASH), "order of keys, format", format);
    if (key_size == 16 && format != BENCH_KEY_DECIMAL) {
        bench_key(&data, 4711, key);
        bench_key_slow(&data, 4711, last);
        check(memcmp(key, last, key_size) == 0, "inlined and general form of a key, format", format);
    }
    bench_data_free(&data);
}

static void key_sizes_are_checked(void)
{
    check(bench_data_key_fits(BENCH_KEY_BIG_ENDIAN, 2, 65536), "2 bytes tell 65536 numbers apart", 0);
    check(!bench_data_key_fits(BENCH_KEY_BIG_ENDIAN, 2, 65537), "2 bytes cannot tell 65537 apart", 0);
    check(bench_data_key_fits(BENCH_KEY_DECIMAL, 4, 10000), "4 digits", 0);
    check(!bench_data_key_fits(BENCH_KEY_DECIMAL, 4, 10001), "4 digits are too few", 0);
    check(!bench_data_key_fits(BENCH_KEY_HASH, 7, 2), "a hash needs 8 bytes", 0);
    check(!bench_data_key_fits(BENCH_KEY_BIG_ENDIAN, 0, 1), "no bytes", 0);
    check(bench_data_key_fits(BENCH_KEY_DECIMAL, 100, UINT64_MAX), "many digits", 0);
}

static void values_verify_their_own_key_only(size_t value_size)
{
    struct bench_data data;
    uint8_t *value = malloc(value_size + 1);
    bool own = true;
    bool other = false;

    if (value == NULL || !bench_data_init(&data, BENCH_KEY_BIG_ENDIAN, 16, value_size))
        exit(1);
    for (uint64_t index = 0; index < 200; index++) {
        bench_value(&data, index, (uint8_t)index, value);
        own = own && bench_value_is_of(&data, index, value, value_size);
        other = other || bench_value_is_of(&data, index + 1, value, value_size) ||
                bench_value_is_of(&data, index, value, value_size + 1) ||
                bench_value_is_of(&data, index, value, value_size - 1);
        if (value_size > 9) {
            value[value_size - 1] ^= 1;
            other = other || bench_value_is_of(&data, index, value, value_size);
        }
    }
    check(own, "a value is its key's, size", value_size);
    check(!other, "a changed value is refused, size", value_size);
    free(value);
    bench_data_free(&data);
}

/* Feeds keys first, second to a scan; true if both were taken. */
static bool scan_accepts(const struct bench_data *data, uint64_t first, uint64_t second, bool exact, bool damage)
{
    struct bench_scan scan = {.data = data, .limit = 10, .exact = exact};
    uint64_t numbers[2] = {first, second};
    uint8_t key[64], value[100];

    for (int i = 0; i < 2; i++) {
        bench_key(data, bench_stored_number(numbers[i]), key);
        bench_value(data, numbers[i], 7, value);
        if (damage && i == 1)
            value[50] ^= 1;
        (void)bench_scan_take(&scan, key, data->key_size, value, sizeof(value));
        if (scan.failed)
            return false;
    }
    return scan.count == 2;
}

/* Each refused scan prints its reason; that is part of what is tested. */
static void scans_notice_disorder_and_damage(enum bench_key_format format, size_t key_size)
{
    struct bench_data data;

    if (!bench_data_init(&data, format, key_size, 100))
        exit(1);
    check(scan_accepts(&data, 5, 6, false, false), "ascending entries", key_size);
    check(scan_accepts(&data, 5, 6, true, false), "ascending entries, exact", key_size);
    check(!scan_accepts(&data, 6, 5, false, false), "descending entries are refused", key_size);
    check(!scan_accepts(&data, 5, 5, false, false), "a repeated entry is refused", key_size);
    check(!scan_accepts(&data, 5, 6, true, true), "a damaged value is refused", key_size);
    bench_data_free(&data);
}

int main(int argc, char **argv)
{
    static const size_t key_sizes[] = {8, 11, 16, 17, 40};
    static const size_t value_sizes[] = {8, 9, 10, 16, 100, 5000};

    check_begin(argc, argv);
    a_permutation_hits_every_number_once();
    a_permutation_looks_random();
    zipf_ranks_have_their_probability();
    zipf_spreads_its_ranks_over_all_keys();
    for (unsigned shift = 0; shift < 60; shift += 12)
        percentiles_are_within_their_error(shift);
    an_empty_histogram_answers_zero();
    for (unsigned i = 0; i < sizeof(key_sizes) / sizeof(key_sizes[0]); i++) {
        for (enum bench_key_format format = BENCH_KEY_BIG_ENDIAN; format <= BENCH_KEY_HASH; format++)
            keys_are_distinct_and_in_order(format, key_sizes[i]);
        scans_notice_disorder_and_damage(BENCH_KEY_BIG_ENDIAN, key_sizes[i]);
        scans_notice_disorder_and_damage(BENCH_KEY_DECIMAL, key_sizes[i]);
    }
    key_sizes_are_checked();
    for (unsigned i = 0; i < sizeof(value_sizes) / sizeof(value_sizes[0]); i++)
        values_verify_their_own_key_only(value_sizes[i]);
    return check_end();
}
