/*
 * Goal: order, heads, common prefix, loads and stores of base/bytes.h.
 * Method: all strings of up to 4 letters of {00, 01, 7f, 80, ff}, and random long ones, against byte loops.
 */
#include "base/bytes.h"

#include <criterion/criterion.h>
#include <stdlib.h>

/* ---- Oracles: one byte after the other --------------------------------------------------------------------------- */

static int slow_compare(const uint8_t *a, size_t an, const uint8_t *b, size_t bn)
{
    for (size_t i = 0; i < an && i < bn; i++) {
        if (a[i] != b[i])
            return a[i] < b[i] ? -1 : 1;
    }
    return an == bn ? 0 : an < bn ? -1 : 1;
}

static size_t slow_common_prefix(const uint8_t *a, size_t an, const uint8_t *b, size_t bn)
{
    size_t i = 0;
    while (i < an && i < bn && a[i] == b[i])
        i++;
    return i;
}

static uint64_t slow_head(const uint8_t *key, size_t size, size_t skip, size_t width)
{
    uint64_t head = 0;
    for (size_t i = skip; i < skip + width; i++)
        head = head << 8 | (i < size ? key[i] : 0);
    return head;
}

static int sign(int number)
{
    return (number > 0) - (number < 0);
}

/* ---- Material -----------------------------------------------------------------------------------------------------
 */

#define LETTERS 5
#define LONGEST 4
#define STRINGS (1 + 5 + 25 + 125 + 625)

struct string {
    size_t size;
    uint8_t *bytes; /* exactly size bytes: a read beyond them is seen by the sanitizers; NULL if empty */
};

static struct string strings[STRINGS];

static void make_strings(void)
{
    static const uint8_t alphabet[LETTERS] = {0x00, 0x01, 0x7f, 0x80, 0xff};
    size_t made = 0;

    for (size_t size = 0, count = 1; size <= LONGEST; size++, count *= LETTERS) {
        for (size_t number = 0; number < count; number++, made++) {
            size_t rest = number;
            strings[made].size = size;
            strings[made].bytes = size != 0 ? malloc(size) : NULL;
            for (size_t i = 0; i < size; i++, rest /= LETTERS)
                strings[made].bytes[i] = alphabet[rest % LETTERS];
        }
    }
    cr_assert_eq(made, STRINGS);
}

static void free_strings(void)
{
    for (size_t i = 0; i < STRINGS; i++)
        free(strings[i].bytes);
}

TestSuite(bytes, .init = make_strings, .fini = free_strings);

/* A random string whose first bytes come from a shared pattern, so that long prefixes are common. */
static struct string random_string(uint64_t *seed)
{
    struct string string;
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    string.size = *seed >> 33 & 63;
    string.bytes = malloc(string.size + 1);
    size_t shared = *seed >> 40 & 63;
    for (size_t i = 0; i < string.size; i++) {
        *seed = *seed * 6364136223846793005u + 1442695040888963407u;
        string.bytes[i] = i < shared ? (uint8_t)(i * 37) : (uint8_t)(*seed >> 56);
    }
    return string;
}

/* ---- Tests --------------------------------------------------------------------------------------------------------
 */

Test(bytes, compare_and_prefix_agree_with_a_byte_loop_on_all_short_strings)
{
    for (size_t i = 0; i < STRINGS; i++) {
        for (size_t j = 0; j < STRINGS; j++) {
            const struct string *a = &strings[i], *b = &strings[j];
            int order = slow_compare(a->bytes, a->size, b->bytes, b->size);
            if (sign(qr_compare(a->bytes, a->size, b->bytes, b->size)) != order)
                cr_assert(false, "compare: strings %zu and %zu", i, j);
            if (qr_equal(a->bytes, a->size, b->bytes, b->size) != (order == 0))
                cr_assert(false, "equal: strings %zu and %zu", i, j);
            if (qr_common_prefix(a->bytes, a->size, b->bytes, b->size) !=
                slow_common_prefix(a->bytes, a->size, b->bytes, b->size))
                cr_assert(false, "common prefix: strings %zu and %zu", i, j);
        }
    }
}

Test(bytes, compare_and_prefix_agree_with_a_byte_loop_on_random_strings)
{
    uint64_t seed = 20;
    for (int round = 0; round < 200000; round++) {
        struct string a = random_string(&seed), b = random_string(&seed);
        cr_assert_eq(sign(qr_compare(a.bytes, a.size, b.bytes, b.size)), slow_compare(a.bytes, a.size, b.bytes, b.size),
                     "round %d", round);
        cr_assert_eq(qr_common_prefix(a.bytes, a.size, b.bytes, b.size),
                     slow_common_prefix(a.bytes, a.size, b.bytes, b.size), "round %d", round);
        free(a.bytes);
        free(b.bytes);
    }
}

Test(bytes, one_differing_byte_is_found_at_every_position_of_every_length)
{
    for (size_t size = 1; size <= 40; size++) {
        for (size_t position = 0; position < size; position++) {
            uint8_t *a = calloc(1, size), *b = calloc(1, size);
            memset(a, 0x7f, size);
            memset(b, 0x7f, size);
            b[position] = 0x80;
            cr_assert_lt(qr_compare(a, size, b, size), 0);
            cr_assert_gt(qr_compare(b, size, a, size), 0);
            cr_assert_eq(qr_common_prefix(a, size, b, size), position);
            cr_assert_not(qr_equal(a, size, b, size));
            cr_assert_lt(qr_compare(a, position, a, size), 0);
            free(a);
            free(b);
        }
    }
}

Test(bytes, an_empty_string_may_be_null)
{
    cr_assert_eq(qr_compare(NULL, 0, NULL, 0), 0);
    cr_assert_lt(qr_compare(NULL, 0, "", 1), 0);
    cr_assert_gt(qr_compare("a", 1, NULL, 0), 0);
    cr_assert(qr_equal(NULL, 0, "x", 0));
    cr_assert_eq(qr_common_prefix(NULL, 0, "x", 1), 0);
    cr_assert_eq(qr_head32(NULL, 0, 0), 0);
    cr_assert_eq(qr_head64(NULL, 0, 0), 0);
    qr_copy(NULL, NULL, 0);
}

Test(bytes, heads_agree_with_a_byte_loop_for_every_length_and_skip)
{
    for (size_t size = 0; size <= 24; size++) {
        uint8_t *key = size != 0 ? malloc(size) : NULL;
        for (size_t i = 0; i < size; i++)
            key[i] = (uint8_t)(0xf1 + i * 29);
        for (size_t skip = 0; skip <= size + 9; skip++) {
            cr_assert_eq(qr_head32(key, size, skip), (uint32_t)slow_head(key, size, skip, 4), "%zu %zu", size, skip);
            cr_assert_eq(qr_head64(key, size, skip), slow_head(key, size, skip, 8), "%zu %zu", size, skip);
        }
        free(key);
    }
}

Test(bytes, the_order_of_heads_never_contradicts_the_order_of_keys)
{
    for (size_t i = 0; i < STRINGS; i++) {
        for (size_t j = 0; j < STRINGS; j++) {
            const struct string *a = &strings[i], *b = &strings[j];
            size_t shared = slow_common_prefix(a->bytes, a->size, b->bytes, b->size);
            int order = slow_compare(a->bytes, a->size, b->bytes, b->size);
            for (size_t skip = 0; skip <= shared; skip++) {
                uint32_t x = qr_head32(a->bytes, a->size, skip), y = qr_head32(b->bytes, b->size, skip);
                if ((x < y && order >= 0) || (x > y && order <= 0))
                    cr_assert(false, "strings %zu and %zu, skip %zu", i, j, skip);
            }
        }
    }
}

Test(bytes, loads_and_stores_are_little_endian_at_any_address)
{
    for (size_t offset = 0; offset < 9; offset++) {
        uint8_t bytes[24] = {0};
        qr_store_u16(bytes + offset, 0x1122);
        cr_assert_eq(bytes[offset], 0x22);
        cr_assert_eq(qr_load_u16(bytes + offset), 0x1122);
        qr_store_u32(bytes + offset, 0x11223344);
        cr_assert_eq(bytes[offset + 3], 0x11);
        cr_assert_eq(qr_load_u32(bytes + offset), 0x11223344);
        qr_store_u64(bytes + offset, 0x1122334455667788);
        cr_assert_eq(bytes[offset], 0x88);
        cr_assert_eq(qr_load_u64(bytes + offset), 0x1122334455667788);
        cr_assert_eq(bytes[offset + 8], 0);
    }
}

Test(bytes, sizes_round_up_to_powers_of_two)
{
    for (size_t power = 1; power <= 4096; power *= 2) {
        cr_assert_eq(qr_round_up(0, power), 0);
        for (size_t value = 1; value <= 3 * power; value++) {
            size_t rounded = qr_round_up(value, power);
            cr_assert(rounded >= value && rounded < value + power && rounded % power == 0);
        }
    }
    cr_assert_eq(qr_min(3, 4), 3);
    cr_assert_eq(qr_max(3, 4), 4);
    cr_assert_eq(qr_max(UINT64_MAX, 0), UINT64_MAX);
}
