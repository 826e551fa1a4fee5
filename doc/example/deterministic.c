/*
 * A deterministic run: N keys with values of V bytes are inserted, read and deleted, and every value is checked.
 *
 *     deterministic N V
 *
 * Layer: example. Standard output is the same in each run with the same N and V, down to the last byte: counts and a
 * checksum of all that was read. Times go to standard error. Exit code 0: all right; 1: a value was wrong; 2: usage.
 */
#include "example.h"

#include <errno.h>
#include <inttypes.h>
#include <time.h>

enum { KEY_BYTES = 20 };

static double now_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void report_time(const char *phase, uint64_t count, double since)
{
    double seconds = now_seconds() - since;
    fprintf(stderr, "%-8s %8.3f s %8.0f ns each\n", phase, seconds, seconds / (double)count * 1e9);
}

/* A bijection of the 64-bit numbers that leaves no order in them. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* The key of number i: distinct for each i, in no order. */
static void make_key(uint64_t i, char key[KEY_BYTES + 1])
{
    snprintf(key, KEY_BYTES + 1, "key_%016" PRIx64, mix(i));
}

/* The value of number i; the high bytes of a generator, so that all positions differ. */
static void make_value(uint64_t i, uint8_t *value, size_t size)
{
    uint64_t state = mix(i + 1);
    for (size_t k = 0; k < size; k++) {
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        value[k] = (uint8_t)(state >> 56);
    }
}

static uint64_t add_to_checksum(uint64_t checksum, const uint8_t *data, size_t size)
{
    for (size_t k = 0; k < size; k++)
        checksum = (checksum ^ data[k]) * UINT64_C(0x100000001b3);
    return checksum;
}

static uint64_t count_keys(struct quire_tree *tree)
{
    const struct quire_slice everything = {NULL, 0};
    uint64_t count;
    OK(quire_count(tree, NULL, everything, everything, &count));
    return count;
}

static void insert_all(struct quire_tree *tree, uint64_t n, uint8_t *value, size_t size)
{
    char key[KEY_BYTES + 1];
    double begin = now_seconds();

    for (uint64_t i = 0; i < n; i++) {
        make_key(i, key);
        make_value(i, value, size);
        OK(quire_insert(tree, key, KEY_BYTES, value, size, 0, NULL));
    }
    report_time("insert", n, begin);
    printf("inserted %" PRIu64 ", present %" PRIu64 "\n", n, count_keys(tree));
}

/* Reads the numbers from `first` in steps; each value must be the one that was written. */
static void get_some(struct quire_tree *tree, uint64_t first, uint64_t n, uint64_t step, uint8_t *value, size_t size)
{
    uint8_t *right = malloc(size + 1);
    uint64_t checksum = UINT64_C(0xcbf29ce484222325), count = 0;
    char key[KEY_BYTES + 1];
    double begin = now_seconds();
    size_t found;

    CHECK(right != NULL);
    for (uint64_t i = first; i < n; i += step, count++) {
        make_key(i, key);
        make_value(i, right, size);
        OK(quire_get(tree, NULL, key, KEY_BYTES, value, size, &found));
        CHECK(found == size && memcmp(value, right, size) == 0);
        checksum = add_to_checksum(checksum, value, size);
    }
    report_time("get", count > 0 ? count : 1, begin);
    printf("read %" PRIu64 ", checksum %016" PRIx64 "\n", count, checksum);
    free(right);
}

/* Deletes the numbers from `first` in steps; each must have been there. Afterwards none of them is. */
static void delete_some(struct quire_tree *tree, uint64_t first, uint64_t n, uint64_t step)
{
    char key[KEY_BYTES + 1];
    uint64_t count = 0;
    double begin = now_seconds();
    int existed;

    for (uint64_t i = first; i < n; i += step, count++) {
        make_key(i, key);
        OK(quire_delete(tree, key, KEY_BYTES, 0, &existed, NULL));
        CHECK(existed == 1);
    }
    report_time("delete", count > 0 ? count : 1, begin);
    for (uint64_t i = first; i < n; i += step) {
        make_key(i, key);
        EXPECT(QUIRE_NOT_FOUND, quire_exists(tree, NULL, key, KEY_BYTES));
    }
    printf("deleted %" PRIu64 ", present %" PRIu64 "\n", count, count_keys(tree));
}

/* A number from 0 to limit. */
static int parse_number(const char *text, uint64_t limit, uint64_t *ret_number)
{
    char *end;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || text[0] == '-' || number > limit)
        return -1;
    *ret_number = number;
    return 0;
}

int main(int argc, char **argv)
{
    struct quire_limits limits;
    struct quire_tree *tree;
    struct quire *db;
    uint64_t n, size;

    quire_limits(&limits);
    if (argc != 3 || parse_number(argv[1], UINT64_C(1) << 40, &n) != 0 || n == 0 ||
        parse_number(argv[2], limits.max_value_size, &size) != 0) {
        fprintf(stderr, "usage: deterministic N V: N keys (at least 1) with values of V bytes\n");
        return 2;
    }
    uint8_t *value = malloc(size + 1);
    CHECK(value != NULL);
    OK(quire_open(NULL, NULL, &db));
    OK(quire_tree_open(db, NULL, NULL, &tree));

    printf("%" PRIu64 " keys of %d bytes, values of %" PRIu64 " bytes\n", n, KEY_BYTES, size);
    insert_all(tree, n, value, size);
    get_some(tree, 0, n, 1, value, size);
    delete_some(tree, 0, n, 2);
    get_some(tree, 1, n, 2, value, size);
    delete_some(tree, 1, n, 2);
    CHECK(count_keys(tree) == 0);

    OK(quire_close(db));
    free(value);
    return 0;
}
