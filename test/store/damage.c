/*
 * Goal: whatever bytes the files have, a page reads right or says CORRUPT.
 * Method: a small store; each byte of its segments (a part of them in the short form) has a bit flipped, each file is
 * cut at each of some lengths, exchanged for another or removed; it is opened and everything is read. Then made-up
 * blocks and roots with right checksums: endless, overlapping, out of range.
 */
#include "store/world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "lib/check.h"
#include "lib/options.h"
#include "store/format.h"

static uint64_t seed, flips, refused, corrupt_pages;

static struct world make_world(void)
{
    struct world world = {.path = "db", .least_bytes = 40, .most_bytes = 400};
    world.options.first_segment_bytes = 32 << 10;
    world.options.most_segment_bytes = 32 << 10;
    world.sim = simdisk_create();
    world.disk = simdisk_disk(world.sim);
    random_seed(&world.random, seed);
    CHECK_EQUAL(world_open(&world), 0);
    for (uint32_t page = 0; page < PAGES; page += 4)
        world_write_page(&world, page);
    CHECK_EQUAL(world_checkpoint(&world, false), 0);
    for (uint32_t page = 0; page < PAGES; page += 16)
        world_write_page(&world, page);
    CHECK_EQUAL(world_checkpoint(&world, false), 0);
    world_close(&world);
    return world;
}

static void end_world(struct world *world)
{
    CHECK_EQUAL(simdisk_open_count(world->sim), 0);
    simdisk_free(world->sim);
}

/* Right, or CORRUPT. Read only: the damaged bytes are the next case's too. */
static void look(struct world *world)
{
    uint64_t corrupt = 0;
    world->only_reads = true;
    int result = world_open(world);
    if (result != 0) {
        struct quire_error_detail detail;
        quire_error_detail(&detail);
        CHECK(result == QUIRE_ERR_CORRUPT || result == QUIRE_ERR_NEWER, "%d: %s", result, detail.message);
        refused++;
        return;
    }
    (void)world_compare(world, world->durable, &corrupt);
    corrupt_pages += corrupt;
    world_close(world);
}

static void every_bit(struct world *world, uint64_t step)
{
    for (uint32_t number = 1; number < 40; number++) {
        char name[QR_SEGMENT_NAME_BYTES];
        uint64_t size;
        qr_segment_name(number, name);
        const uint8_t *content = simdisk_content(world->sim, world->path, name, &size);
        if (content == NULL)
            continue;
        uint8_t *copy = malloc(size);
        memcpy(copy, content, size);
        for (uint64_t bit = random_below(&world->random, step); bit < size * 8;
             bit += random_between(&world->random, 1, 2 * step - 1)) {
            uint8_t flipped = copy[bit / 8] ^ (uint8_t)(1u << bit % 8);
            simdisk_damage(world->sim, world->path, name, bit / 8, &flipped, 1);
            look(world);
            simdisk_damage(world->sim, world->path, name, bit / 8, &copy[bit / 8], 1);
            flips++;
        }
        for (uint64_t length = 0; length < size; length += 509 * (step > 100 ? 8 : 1)) {
            simdisk_damage_size(world->sim, world->path, name, length);
            look(world);
            simdisk_damage_size(world->sim, world->path, name, size);
            simdisk_damage(world->sim, world->path, name, 0, copy, size);
        }
        free(copy);
    }
    CHECK(refused != 0, "no damage was seen at an opening");
    CHECK(corrupt_pages != 0, "no damage was seen at a read");
    world->only_reads = false;
    CHECK_EQUAL(world_open(world), 0);
    CHECK_EQUAL(world_compare(world, world->durable, NULL), 0);
    world_close(world);
}

static void files_in_one_anothers_place(struct world *world)
{
    char names[2][QR_SEGMENT_NAME_BYTES];
    uint8_t *copies[2];
    uint64_t sizes[2];
    uint32_t found = 0;
    for (uint32_t number = 1; number < 40 && found < 2; number++) {
        qr_segment_name(number, names[found]);
        const uint8_t *content = simdisk_content(world->sim, world->path, names[found], &sizes[found]);
        if (content == NULL)
            continue;
        copies[found] = malloc(sizes[found]);
        memcpy(copies[found], content, sizes[found]);
        found++;
    }
    if (!CHECK(found == 2, "%u segments", found))
        return;
    for (uint32_t i = 0; i < 2; i++)
        simdisk_damage(world->sim, world->path, names[i], 0, copies[!i], sizes[i]);
    look(world);
    for (uint32_t i = 0; i < 2; i++) {
        simdisk_damage(world->sim, world->path, names[i], 0, copies[i], sizes[i]);
        free(copies[i]);
    }
}

/* ---- Made up, with right checksums ------------------------------------------------------------------------------ */

/* Anything may be said of a page, and files that nothing names may go, but nothing may break; a checkpoint may fail. On
 * a disk of its own. */
static void try_forged(struct world *world, const char *name, const uint8_t *bytes, uint64_t size)
{
    struct world copy = *world;
    copy.sim = simdisk_crash(world->sim, &(struct simdisk_crash){.mode = SIMDISK_DEATH});
    copy.disk = simdisk_disk(copy.sim);
    copy.only_reads = false;
    simdisk_damage(copy.sim, copy.path, name, 0, bytes, size);
    if (world_open(&copy) == 0) {
        struct qr_store_entry entry;
        struct qr_store_capture *capture;
        struct qr_manifest_checkpoint record = {.number = 9, .next_page_id = UINT64_C(1) << 40};
        for (uint32_t page = 0; page < PAGES; page++)
            (void)qr_store_lookup(copy.store, world_pid(page), &entry);
        for (uint32_t page = 0; page < PAGES; page += 3)
            qr_store_remove(copy.store, world_pid(page));
        world_write_page(&copy, 1);
        CHECK_EQUAL(qr_store_capture(copy.store, &capture), 0);
        if (qr_store_commit(copy.store, capture, NULL, 0, &record) == 0)
            qr_store_committed(copy.store, capture);
        else
            qr_store_abandoned(copy.store, capture);
        world_close(&copy);
    }
    CHECK_EQUAL(simdisk_open_count(copy.sim), 0);
    simdisk_free(copy.sim);
}

/* Changes words of an image and makes its checksum right again. */
static void forge(struct world *world, uint8_t kind, struct random_stream *random)
{
    for (uint32_t number = 1; number < 40; number++) {
        char name[QR_SEGMENT_NAME_BYTES];
        struct qr_segment_header header;
        uint64_t size;
        qr_segment_name(number, name);
        const uint8_t *content = simdisk_content(world->sim, world->path, name, &size);
        if (content == NULL || !qr_segment_header_decode(content, &header))
            continue;
        uint8_t *copy = malloc(size), *changed = malloc(size);
        memcpy(copy, content, size);
        for (uint64_t at = QR_SEGMENT_HEADER_BYTES; at + QR_IMAGE_HEADER_BYTES <= size; at += QR_IMAGE_UNIT) {
            uint32_t stored = qr_load_u32(copy + at + 48);
            if (memcmp(copy + at, "QIMG", 4) != 0 || copy[at + 52] != kind ||
                stored > size - at - QR_IMAGE_HEADER_BYTES)
                continue;
            for (uint32_t n = 0; n < 60; n++) {
                memcpy(changed, copy, size);
                uint8_t *word = changed + at + 8 + random_below(random, (QR_IMAGE_HEADER_BYTES + stored - 16) / 4) * 4;
                uint64_t values[] = {0,  UINT64_MAX, qr_load_u64(word) + 1,     random_next(random),
                                     64, 4096,       qr_load_u64(copy + at + 8)};
                qr_store_u64(word, values[random_below(random, 7)]);
                uint32_t sum = qr_load_u32(changed + at + 48);
                sum = sum > size - at - QR_IMAGE_HEADER_BYTES ? stored : sum;
                qr_store_u32(changed + at + 4,
                             qr_crc32c(header.salt, changed + at + 8, QR_IMAGE_HEADER_BYTES - 8 + sum));
                try_forged(world, name, changed, size);
                flips++;
            }
        }
        free(copy);
        free(changed);
    }
}

int main(int argc, char **argv)
{
    uint64_t step = 150;
    const struct test_option options[] = {
        {.name = "seed", .help = "0 = from the clock", .number = &seed},
        {.name = "step", .help = "mean distance of the bits that are flipped; 1 = each", .number = &step}};
    test_options_parse(argc, argv, "damage to the page store's files", options, 2);
    seed = test_seed(seed);
    struct world world = make_world();
    every_bit(&world, step);
    files_in_one_anothers_place(&world);
    struct random_stream random;
    random_seed(&random, seed);
    for (uint8_t kind = QR_STORE_BLOCK; kind <= QR_STORE_ROOT; kind++)
        forge(&world, kind, &random);
    end_world(&world);
    printf("%llu damages\n", (unsigned long long)flips);
    return check_finish();
}
