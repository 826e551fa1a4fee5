/*
 * Goal: a frame says what was written, and no bytes that are not a frame of their position pass for one.
 * Method: frames of all shapes around the unit sizes, written and parsed; every bit of a frame flipped; random bytes.
 */
#include "log/frame.h"

#include <criterion/criterion.h>
#include <stdlib.h>

#define SALT 0x12345678u
#define LSN 4096u

static _Alignas(16) uint8_t memory[QR_FRAME_MOST_BYTES + 64];
static uint8_t bytes[QR_FRAME_MOST_BYTES];

static struct qr_frame frame_of(uint32_t tree_id, uint32_t key_size, uint32_t value_size, unsigned shape)
{
    for (size_t i = 0; i < sizeof(bytes); i++) bytes[i] = (uint8_t)(i * 31 + 7);
    return (struct qr_frame){
        .tree_id = tree_id,
        .kind = (uint8_t)(1 + shape % 2),
        .has_version = (shape & 2) != 0,
        .has_named = (shape & 4) != 0,
        .key_size = key_size,
        .value_size = value_size,
        .key = bytes,
        .value = bytes + key_size,
        .version = 77,
        .named_version = 1u << 30,
    };
}

static void check_round_trip(uint32_t tree_id, uint32_t key_size, uint32_t value_size, unsigned shape)
{
    struct qr_frame frame = frame_of(tree_id, key_size, value_size, shape);
    struct qr_frame got;
    uint32_t found;
    uint32_t size = (uint32_t)qr_frame_size(&frame);
    memset(memory, 0xa5, sizeof(memory));
    qr_frame_write(memory, &frame, size, LSN, SALT);
    cr_assert_eq(memory[size], 0xa5, "wrote beyond its size");
    cr_assert_eq(qr_frame_look(memory, size, LSN, SALT, &found), QR_FRAME_GOOD);
    cr_assert_eq(found, size);
    cr_assert_eq(qr_frame_state_at(memory), QR_FRAME_TENTATIVE);
    cr_assert(qr_frame_parse(memory, size, &got));
    cr_assert_eq(got.tree_id, tree_id);
    cr_assert_eq(got.kind, frame.kind);
    cr_assert_eq(got.key_size, key_size);
    cr_assert_eq(got.value_size, value_size);
    cr_assert_eq(memcmp(got.key, frame.key, key_size), 0);
    cr_assert_eq(memcmp(got.value, frame.value, value_size), 0);
    cr_assert_eq(got.version, frame.has_version ? 77 : 0);
    cr_assert_eq(got.named_version, frame.has_named ? 1u << 30 : 0);
    cr_assert_neq(qr_frame_look(memory, size, LSN + 16, SALT, &found), QR_FRAME_GOOD, "of another position");
    cr_assert_neq(qr_frame_look(memory, size, LSN, SALT + 1, &found), QR_FRAME_GOOD, "of another segment");
    cr_assert_neq(qr_frame_look(memory, size - 16, LSN, SALT, &found), QR_FRAME_GOOD, "cut");
}

Test(log_frames, say_what_was_written)
{
    static const uint32_t trees[] = {0, 1, 127, 128, 16383, 16384, 1u << 21, 1u << 28, UINT32_MAX};
    for (unsigned shape = 0; shape < 8; shape++) {
        for (uint32_t key = 0; key < 40; key++)
            for (uint32_t value = 0; value < 40; value++) check_round_trip(1, key, value, shape);
        for (size_t i = 0; i < sizeof(trees) / sizeof(trees[0]); i++) check_round_trip(trees[i], 16, 100, shape);
        for (uint32_t value = 900; value < 1100; value++) check_round_trip(3, 16, value, shape); /* put together aside, or in place */
        check_round_trip(3, 130, 60000, shape);
        check_round_trip(3, 60000, 130, shape);
    }
}

Test(log_frames, do_not_verify_with_any_bit_flipped)
{
    struct qr_frame frame = frame_of(9, 16, 100, 7);
    uint32_t size = (uint32_t)qr_frame_size(&frame);
    uint32_t found;
    qr_frame_write(memory, &frame, size, LSN, SALT);
    for (uint32_t bit = 0; bit < size * 8; bit++) {
        bool state = bit / 8 == 3;
        memory[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (!state) cr_assert_neq(qr_frame_look(memory, size, LSN, SALT, &found), QR_FRAME_GOOD, "bit %u", bit);
        memory[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    cr_assert_eq(qr_frame_look(memory, size, LSN, SALT, &found), QR_FRAME_GOOD);
}

/* FRAME-2: not even one whose LSN was damaged, which is a hole as long as nobody has decided about it */
Test(log_frames, that_are_decided_are_damage_and_no_hole_with_any_bit_flipped)
{
    struct qr_frame frame = frame_of(9, 16, 100, 7);
    uint32_t size = (uint32_t)qr_frame_size(&frame);
    uint32_t found;
    for (unsigned state = 0; state < 3; state++) {
        static const enum qr_frame_state states[] = {QR_FRAME_TENTATIVE, QR_FRAME_DONE, QR_FRAME_VOID};
        qr_frame_write(memory, &frame, size, LSN, SALT);
        memory[3] = (uint8_t)states[state];
        for (uint32_t bit = 0; bit < size * 8; bit++) {
            bool lsn = bit / 8 >= 8 && bit / 8 < 16;
            memory[bit / 8] ^= (uint8_t)(1u << bit % 8);
            cr_assert_eq(qr_frame_look(memory, size, LSN, SALT, &found),
                         lsn && state == 0 ? QR_FRAME_HOLE : QR_FRAME_DAMAGE, "state %u, bit %u", state, bit);
            memory[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
    }
}

Test(log_frames, fillers_cover_any_size_whatever_lies_behind_them)
{
    for (uint32_t size = 16; size <= 4096; size += 16) {
        uint32_t found;
        memset(memory, (int)(size / 16), sizeof(memory));
        qr_frame_fill(memory, size, LSN, SALT);
        cr_assert_eq(qr_frame_look(memory, size, LSN, SALT, &found), QR_FRAME_GOOD);
        cr_assert_eq(found, size);
        cr_assert_eq(qr_frame_kind_at(memory), QR_FRAME_FILLER);
        cr_assert_eq(qr_frame_state_at(memory), QR_FRAME_VOID);
    }
}

Test(log_frames, random_payloads_are_parsed_without_reading_beyond_them)
{
    srandom(1);
    for (unsigned round = 0; round < 200000; round++) {
        uint32_t size = 16u + 16u * (uint32_t)(random() % 8);
        uint8_t *exact = malloc(size); /* the sanitizer sees what lies beyond */
        struct qr_frame got;
        uint64_t before;
        const uint8_t *data;
        uint32_t data_size;
        for (uint32_t i = 0; i < size; i++) exact[i] = (uint8_t)random();
        if (round % 2 == 0 && size > 20) exact[17] &= 15;
        if (qr_frame_parse(exact, size, &got) && got.last_part == 0) {
            cr_assert_leq((uint64_t)got.key_size + got.value_size, size);
            cr_assert_geq((const uint8_t *)got.key, exact);
        }
        if (qr_frame_parse_part(exact, size, &before, &data, &data_size)) cr_assert_leq(data_size, size);
        free(exact);
    }
}
