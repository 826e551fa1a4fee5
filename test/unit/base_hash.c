/*
 * Goal: the hash never changes (pages store fingerprints of it), and is spread well enough to be one.
 * Method: known answers of XXH3; unaligned copies; collision and fingerprint counts over sequential keys.
 */
#include "base/hash.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

Test(hash, known_answers_hold)
{
    uint8_t bytes[300];
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)i;

    /* One length of each of the function's branches. */
    static const struct {
        size_t size;
        uint64_t hash;
    } known[] = {
        {0, 0x2d06800538d394c2},   {1, 0xc44bdff4074eecdb},   {3, 0x5f4299fc161c9cbb},   {4, 0x60dab036a58211f2},
        {8, 0x3a1c2d7c85af88f8},   {9, 0xe9612598145bb9dc},   {16, 0x8355e3a6f61770db},  {17, 0x9ef341a99de37328},
        {128, 0x85c6174c7ff4c46b}, {129, 0xec7642b431ba3e5a}, {240, 0x375a384d957fe865}, {241, 0x02e8cd95421c6d02},
        {300, 0xd44052f5a3485425},
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        cr_assert_eq(qr_hash(bytes, known[i].size), known[i].hash, "size %zu: 0x%016llx", known[i].size,
                     (unsigned long long)qr_hash(bytes, known[i].size));
}

Test(hash, null_is_the_empty_string)
{
    cr_assert_eq(qr_hash(NULL, 0), qr_hash("x", 0));
}

Test(hash, the_address_does_not_matter)
{
    uint8_t buffer[128 + 16];
    for (size_t size = 0; size <= 128; size++) {
        uint64_t expected = 0;
        for (size_t offset = 0; offset < 16; offset++) {
            for (size_t i = 0; i < size; i++)
                buffer[offset + i] = (uint8_t)(i * 7 + 3);
            uint64_t hash = qr_hash(buffer + offset, size);
            if (offset == 0)
                expected = hash;
            cr_assert_eq(hash, expected, "size %zu offset %zu", size, offset);
        }
    }
}

static int compare_hashes(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

Test(hash, sequential_keys_neither_collide_nor_crowd_a_fingerprint)
{
    enum { KEYS = 100000 };
    static uint64_t hashes[KEYS];
    static unsigned fingerprints[256];

    for (size_t i = 0; i < KEYS; i++) {
        char key[17];
        snprintf(key, sizeof(key), "%016zu", i);
        hashes[i] = qr_hash(key, 16);
        fingerprints[qr_fingerprint(hashes[i])]++;
    }
    qsort(hashes, KEYS, sizeof(hashes[0]), compare_hashes);
    for (size_t i = 1; i < KEYS; i++)
        cr_assert_neq(hashes[i], hashes[i - 1]);
    /* 390 expected each, standard deviation 20: 8 of them either way never happen. */
    for (size_t i = 0; i < 256; i++)
        cr_assert(fingerprints[i] > 390 - 160 && fingerprints[i] < 390 + 160, "fingerprint %zu: %u", i,
                  fingerprints[i]);
}
