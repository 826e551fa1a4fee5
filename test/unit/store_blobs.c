/*
 * Goal: a blob has the bytes that doc/file-format.md says; a reference, whatever it says, gives the value or a failure; and what is
 * dead is what was said to be dead, once, through checkpoints and openings, until its segment is released.
 * Method: a page store on a simulated disk; a blob's file compared with the table; references with each field changed; random
 * writes, deaths (some said twice), checkpoints and openings, with what the log would name handed in, against a list.
 */
#include "../lib/random.h"
#include "../lib/simdisk.h"
#include "base/crc32c.h"
#include "base/status.h"
#include "store/blob.h"
#include "store/internal.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

TestSuite(store_blobs, .timeout = 120);

static struct simdisk *sim;
static struct qr_dir *dir;
static struct qr_store *store;
static struct qr_manifest_checkpoint record;
static uint64_t tail = 100; /* of a log that there is not */

static int draw(void *context, void *bytes, size_t size)
{
    static struct random_stream stream;
    static bool seeded;
    (void)context;
    if (!seeded)
        random_seed(&stream, 7);
    seeded = true;
    for (size_t i = 0; i < size; i++)
        ((uint8_t *)bytes)[i] = (uint8_t)random_below(&stream, 256);
    return 0;
}

static void open_store(void)
{
    struct qr_store_options options = {.first_segment_bytes = 32768, .most_segment_bytes = 131072, .random = draw};
    memset(options.store_id, 9, sizeof(options.store_id));
    int result = qr_store_open(dir, &options, record.mapping_index.size_bytes == 0 ? NULL : &record, false, &store);
    cr_assert_eq(result, 0, "open: %d", result);
}

static void begin(void)
{
    sim = simdisk_create();
    cr_assert_eq(simdisk_disk(sim)->ops->dir_open(simdisk_disk(sim), "store", QR_DIR_CREATE, &dir), 0);
    memset(&record, 0, sizeof(record));
    open_store();
}

static void end(void)
{
    qr_store_close(store);
    dir->disk->ops->dir_close(dir);
    simdisk_free(sim);
}

/* With the oldest frame that recovery would read; as_of_lsn: 0, or without a log, after a mark. */
static void checkpoint_as_of(uint64_t replay_from, uint64_t as_of_lsn)
{
    struct qr_store_capture *capture;
    struct qr_manifest_checkpoint next = {
        .number = record.number + 1, .replay_from = replay_from, .as_of_lsn = as_of_lsn, .next_page_id = 1};
    cr_assert_eq(qr_store_capture(store, &capture), 0);
    cr_assert_eq(qr_blob_capture(capture, as_of_lsn != 0), 0);
    cr_assert_eq(qr_store_commit(store, capture, NULL, 0, &next), 0);
    record = next;
    qr_store_committed(store, capture);
}

static void checkpoint(uint64_t replay_from)
{
    checkpoint_as_of(replay_from, 0);
}

static uint8_t *value_of(uint64_t seed, uint32_t size)
{
    uint8_t *value = malloc(size);
    for (uint32_t i = 0; i < size; i++)
        value[i] = (uint8_t)(random_mix(seed + i / 8) >> (i % 8 * 8));
    return value;
}

static struct qr_blob_ref write_blob(uint64_t seed, uint32_t size)
{
    char key[32];
    struct qr_blob_ref ref;
    uint8_t *value = value_of(seed, size);
    uint32_t key_size = (uint32_t)sprintf(key, "key %llu", (unsigned long long)seed);
    struct qr_blob blob = {
        .tree_id = 3, .key = key, .key_size = key_size, .value = value, .size = size, .lsn = tail};
    cr_assert_eq(qr_blob_write(store, &blob, &ref), 0);
    free(value);
    return ref;
}

static bool reads_as(const struct qr_blob_ref *ref, uint64_t seed, uint32_t size)
{
    uint8_t *value = value_of(seed, size), *found = malloc(ref->size);
    bool same = ref->size == size && qr_blob_read(store, ref, found) == 0 && memcmp(found, value, size) == 0;
    free(value);
    free(found);
    return same;
}

static void say_dead(const struct qr_blob_ref *ref)
{
    uint8_t reference[QR_BLOB_REF_BYTES];
    qr_blob_ref_encode(ref, reference);
    qr_blob_dead(store, reference, 1, tail);
}

/* ---- Bytes ------------------------------------------------------------------------------------------------------ */

Test(store_blobs, the_bytes_are_those_of_the_table)
{
    static const uint32_t sizes[] = {1, 5000, 65536, 65537, 300000};
    begin();
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        uint32_t size = sizes[i], blocks = (size + 65535) / 65536;
        struct qr_blob_ref ref = write_blob(i, size);
        uint8_t *value = value_of(i, size), *bytes = malloc(ref.head_size + size);
        struct qr_segment *segment = qr_segment_find(store, (uint32_t)(ref.address >> 32));
        uint32_t salt = segment->salt;
        cr_assert_eq(qr_file_read(segment->file, bytes, ref.head_size + size, ref.address & UINT32_MAX),
                     ref.head_size + size);
        cr_assert_eq(memcmp(bytes, "QBLB", 4), 0);
        cr_assert_eq(qr_load_u32(bytes + 4), qr_crc32c(salt, bytes + 8, ref.head_size - 8));
        cr_assert_eq(qr_load_u64(bytes + 8), ref.address);
        cr_assert_eq(qr_load_u64(bytes + 16), tail);
        cr_assert_eq(qr_load_u32(bytes + 24), 3);
        cr_assert_eq(qr_load_u32(bytes + 28), 5);
        cr_assert_eq(qr_load_u32(bytes + 32), size);
        cr_assert_eq(qr_load_u32(bytes + 36), ref.head_size);
        for (uint32_t b = 0; b < blocks; b++) {
            uint32_t at = b * 65536, part = size - at < 65536 ? size - at : 65536;
            cr_assert_eq(qr_load_u32(bytes + 64 + 4 * b), qr_crc32c(salt, value + at, part));
        }
        cr_assert_eq(memcmp(bytes + 64 + 4 * blocks, "key ", 4), 0);
        cr_assert_eq(ref.head_size, (64 + 4 * blocks + 5 + 63) / 64 * 64);
        cr_assert_eq(memcmp(bytes + ref.head_size, value, size), 0);
        cr_assert_eq(ref.crc, blocks == 1 ? qr_load_u32(bytes + 64) : qr_crc32c(salt, bytes + 64, 4 * blocks));
        cr_assert_eq(ref.address % 64, 0);
        free(value);
        free(bytes);
    }
    end();
}

Test(store_blobs, a_reference_that_is_wrong_gives_a_failure)
{
    begin();
    struct qr_blob_ref right = write_blob(1, 70000), other;
    uint8_t bytes[QR_BLOB_REF_BYTES], *found = malloc(UINT32_C(1) << 20);
    (void)write_blob(2, 70000);
    cr_assert(reads_as(&right, 1, 70000));
    for (uint32_t bit = 0; bit < QR_BLOB_REF_BYTES * 8; bit++) {
        qr_blob_ref_encode(&right, bytes);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (!qr_blob_ref_decode(bytes, &other) || other.size > UINT32_C(1) << 20)
            continue;
        int result = qr_blob_read(store, &other, found);
        cr_assert(result == QUIRE_ERR_CORRUPT || result == QR_STORE_GONE, "bit %u: %d", bit, result);
    }
    free(found);
    end();
}

/* ---- Life and death --------------------------------------------------------------------------------------------- */

struct blob {
    struct qr_blob_ref ref;
    uint64_t seed, born; /* born: the LSN of its frame */
    uint32_t size;
    bool dead;
};
static struct blob blobs[4000];
static uint32_t blob_count;

static void check(uint64_t *ret_live)
{
    struct qr_blob_stats stats;
    uint64_t live = 0;
    for (uint32_t i = 0; i < blob_count; i++) {
        if (blobs[i].dead)
            continue;
        live += qr_blob_extent(&blobs[i].ref);
        cr_assert(reads_as(&blobs[i].ref, blobs[i].seed, blobs[i].size), "blob %u is not there", i);
    }
    qr_blob_stats(store, &stats);
    cr_assert_eq(stats.live_bytes, live);
    *ret_live = live;
}

/* What a crash and the replay of a whole log do. */
static void reopen(void)
{
    qr_store_close(store);
    open_store();
    for (uint32_t i = 0; i < blob_count; i++) {
        if (blobs[i].born >= record.replay_from)
            cr_assert_eq(qr_blob_replayed(store, &blobs[i].ref, i % 7 == 0 && !blobs[i].dead, i % 2 == 0), 0);
    }
    for (uint32_t i = 0; i < blob_count; i++) { /* records that hid others do so again */
        if (blobs[i].dead)
            say_dead(&blobs[i].ref);
    }
    qr_blob_recovered(store);
    cr_assert_eq(qr_blob_sync(store), 0);
    cr_assert_eq(qr_store_clean_up(store), 0);
}

Test(store_blobs, the_dead_are_counted_once_and_released)
{
    struct random_stream random;
    uint64_t live, released = 0;
    random_seed(&random, 11);
    begin();
    while (blob_count < 3000) {
        uint64_t dice = random_below(&random, 100);
        tail += 10;
        if (dice < 60) {
            struct blob *blob = &blobs[blob_count++];
            blob->seed = blob_count;
            blob->size = (uint32_t)random_between(&random, 1, random_chance(&random, 3) ? 200000 : 6000);
            blob->ref = write_blob(blob->seed, blob->size);
            blob->born = tail += 10;
        } else if (dice < 62) { /* a writer dies with it in hand, or its write fails */
            struct qr_blob_ref ref = write_blob(99, 3000);
            say_dead(&ref);
        } else if (dice < 97 && blob_count != 0) {
            uint32_t newest = blob_count < 40 ? blob_count : 40; /* most die young: so there are segments of the dead */
            struct blob *blob = &blobs[blob_count - 1 - random_below(&random, random_chance(&random, 80) ? newest : blob_count)];
            blob->dead = true;
            say_dead(&blob->ref);
            if (random_chance(&random, 20))
                say_dead(&blob->ref);
        } else if (dice < 99) {
            checkpoint(random_chance(&random, 50) ? tail : record.replay_from + (tail - record.replay_from) / 2);
        } else {
            reopen();
        }
    }
    check(&live);
    for (uint32_t i = 0; i < blob_count; i++) {
        blobs[i].dead = true;
        say_dead(&blobs[i].ref);
    }
    tail += 10;
    checkpoint(tail);
    reopen();
    check(&live);
    cr_assert_eq(live, 0);
    struct qr_blob_stats stats;
    qr_blob_stats(store, &stats);
    cr_assert_leq(stats.segments, 1, "%llu segments, and all is dead", (unsigned long long)stats.segments);
    for (uint32_t i = 0; i < blob_count; i++) {
        uint8_t *found = malloc(blobs[i].ref.size);
        released += qr_blob_read(store, &blobs[i].ref, found) == QR_STORE_GONE;
        free(found);
    }
    cr_assert_gt(released, 2500);
    end();
}

/* LIFE-4: references that overlap are somebody's damage; a list with both would keep the store from opening. */
Test(store_blobs, dead_places_never_overlap)
{
    struct qr_blob_stats stats;
    begin();
    struct qr_blob_ref first = write_blob(1, 1000), second = write_blob(2, 1000), third = write_blob(3, 1000);
    struct qr_blob_ref before = second, behind = second, all = first;
    before.address -= QR_BLOB_UNIT;
    behind.address += QR_BLOB_UNIT;
    all.size += 2 * (uint32_t)qr_blob_extent(&second);
    say_dead(&second);
    say_dead(&before);
    say_dead(&behind);
    say_dead(&all);
    qr_blob_stats(store, &stats);
    cr_assert_eq(stats.dead_bytes, qr_blob_extent(&second));
    checkpoint(tail);
    qr_store_close(store);
    open_store();
    say_dead(&first);
    say_dead(&third);
    qr_blob_stats(store, &stats);
    cr_assert_eq(stats.dead_bytes, 3 * qr_blob_extent(&second));
    cr_assert_eq(stats.live_bytes, 0);
    end();
}

/* The same without a log: a damaged place that ends behind the mark is in no list of the checkpoint. */
Test(store_blobs, a_dead_place_across_the_mark_is_not_captured)
{
    begin();
    struct qr_blob_ref first = write_blob(1, 1000), all = first;
    qr_blob_mark(store);
    tail += 10;
    struct qr_blob_ref second = write_blob(2, 1000);
    tail += 10;
    all.size += (uint32_t)qr_blob_extent(&second);
    say_dead(&all); /* a damaged reference */
    checkpoint_as_of(tail, tail - 1);
    qr_store_close(store);
    open_store();
    end();
}

/* R3: replay may still name what died */
Test(store_blobs, nothing_is_released_before_replay_has_passed_its_end)
{
    begin();
    struct qr_blob_ref first = write_blob(1, 30000);
    uint64_t born = tail += 10;
    for (uint64_t i = 2; i < 12; i++)
        (void)write_blob(i, 30000); /* so that another segment is open */
    tail += 10;
    say_dead(&first);
    for (uint64_t from = born; from < tail; from += 5) {
        checkpoint(from);
        cr_assert(reads_as(&first, 1, 30000), "replay from %llu names it", (unsigned long long)from);
    }
    checkpoint(tail); /* every frame is below the tail, also one that names it */
    uint8_t *found = malloc(first.size);
    cr_assert_eq(qr_blob_read(store, &first, found), QR_STORE_GONE);
    free(found);
    end();
}

/* R14: a checkpoint as of an LSN knows of what there was when that was chosen, and of the dead of it */
Test(store_blobs, what_comes_behind_the_mark_is_in_no_checkpoint)
{
    begin();
    struct qr_blob_ref early[3], late[8];
    for (uint64_t i = 0; i < 3; i++) early[i] = write_blob(i, 5000);
    checkpoint(tail);
    qr_blob_mark(store);
    tail += 10;
    for (uint64_t i = 0; i < 8; i++) late[i] = write_blob(10 + i, i == 0 ? 5000 : 30000); /* in this segment, and in others */
    tail += 10;
    say_dead(&early[0]);
    say_dead(&late[0]);
    say_dead(&late[7]);
    checkpoint_as_of(tail, tail - 1);
    for (uint64_t i = 1; i < 7; i++) cr_assert(reads_as(&late[i], 10 + i, 30000), "this life goes on with it");

    qr_store_close(store); /* as a crash would */
    open_store();
    qr_blob_recovered(store);
    cr_assert_eq(qr_store_clean_up(store), 0);
    struct qr_blob_stats stats;
    qr_blob_stats(store, &stats);
    cr_assert_eq(stats.dead_bytes, qr_blob_extent(&early[0]));
    cr_assert_eq(stats.live_bytes, qr_blob_extent(&early[1]) + qr_blob_extent(&early[2]));
    cr_assert_eq(stats.segments, 1);
    for (uint64_t i = 1; i < 3; i++) cr_assert(reads_as(&early[i], i, 5000));
    struct qr_blob_ref next_one = write_blob(50, 6000);
    cr_assert_eq(next_one.address, late[0].address, "the place is used again");
    cr_assert(reads_as(&next_one, 50, 6000));
    end();
}
