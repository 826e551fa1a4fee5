/*
 * world.c: the operations of world.h, and their oracle.
 */
#include "store/world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "lib/check.h"

#define LARGEST (1u << 20)

uint64_t world_pid(uint32_t page)
{
    static const uint64_t bases[] = {0, 100, 42300, 21337300, UINT64_C(1) << 33};
    return bases[page / 32 % 5] + (page % 32) * (page >= 96 ? 90 : 1);
}

static int draw(void *context, void *to, size_t size)
{
    static uint64_t calls;
    struct random_stream stream;
    (void)context;
    random_seed(&stream, ++calls);
    random_fill(&stream, to, size);
    return 0;
}

/* ---- Contents --------------------------------------------------------------------------------------------------- */

static uint32_t size_of(const struct world *world, uint32_t page, uint64_t generation)
{
    uint64_t mixed = random_mix(page * 1000003u + generation);
    return world->least_bytes + (uint32_t)(mixed % (world->most_bytes - world->least_bytes + 1));
}

/* Some can be compressed, some cannot. */
static void make_contents(uint32_t page, uint64_t generation, uint8_t *to, uint32_t size)
{
    struct random_stream stream;
    random_seed(&stream, page * 7919u + generation);
    if (generation % 3 == 0) {
        random_fill(&stream, to, size);
        return;
    }
    for (uint32_t i = 0; i < size; i++)
        to[i] = (uint8_t)(i / 16 + page + generation);
}

static bool contents_are(const struct world *world, uint32_t page, uint64_t generation, const void *bytes,
                         uint32_t size)
{
    static uint8_t expected[LARGEST];
    if (size != size_of(world, page, generation) || size > LARGEST)
        return false;
    make_contents(page, generation, expected, size);
    return memcmp(expected, bytes, size) == 0;
}

static void *give(void *context, size_t size)
{
    (void)context;
    return malloc(size);
}

/* ---- Life ------------------------------------------------------------------------------------------------------- */

static int see_record(void *context, const struct qr_manifest_record *record)
{
    struct world *world = context;
    if (record->kind != QR_MANIFEST_CHECKPOINT)
        return 0;
    world->has_checkpoint = true;
    return qr_manifest_checkpoint_decode(record, &world->checkpoint);
}

static size_t records_of(struct world *world, uint8_t (*payloads)[256], struct qr_manifest_record *records)
{
    struct qr_manifest_store store = {.has_log = true,
                                      .checksum = QR_MANIFEST_CHECKSUM_CRC32C,
                                      .log_segment_least_bytes = 1 << 18,
                                      .log_segment_most_bytes = 1 << 26,
                                      .log_frame_most_bytes = 1 << 16,
                                      .page_segment_least_bytes = 1 << 18,
                                      .page_segment_most_bytes = 1 << 26};
    records[0] = qr_manifest_store_encode(&store, payloads[0]);
    if (!world->has_checkpoint)
        return 1;
    records[1] = qr_manifest_checkpoint_encode(&world->checkpoint, payloads[1]);
    return 2;
}

static int open_manifest(struct world *world)
{
    uint8_t payloads[2][256];
    struct qr_manifest_record records[2];
    world->has_checkpoint = false;
    int result = qr_manifest_open(world->dir, !world->only_reads, see_record, world, &world->manifest);
    if (result == QUIRE_NOT_FOUND && !world->only_reads) {
        struct qr_manifest_setup setup = {.random = draw};
        return qr_manifest_create(world->dir, &setup, records, records_of(world, payloads, records), &world->manifest);
    }
    if (result != 0 || world->only_reads)
        return result;
    result = qr_manifest_rewrite(world->manifest, records, records_of(world, payloads, records));
    if (result != 0)
        qr_manifest_close(world->manifest);
    return result;
}

int world_open(struct world *world)
{
    const struct qr_disk_ops *ops = world->disk->ops;
    world->dead = false;
    if (ops->dir_open(world->disk, world->path, QR_DIR_CREATE, &world->dir) != 0)
        return QUIRE_ERR_IO;
    int result = open_manifest(world);
    if (result != 0) {
        ops->dir_close(world->dir);
        return result;
    }
    world->options.random = draw;
    memcpy(world->options.store_id, qr_manifest_header(world->manifest)->store_id, 16);
    result = qr_store_open(world->dir, &world->options, world->has_checkpoint ? &world->checkpoint : NULL,
                           world->only_reads, &world->store);
    if (result == 0 && !world->only_reads) {
        result = qr_store_clean_up(world->store);
        if (result != 0)
            qr_store_close(world->store);
    }
    if (result != 0) {
        qr_manifest_close(world->manifest);
        ops->dir_close(world->dir);
        world->store = NULL;
    }
    return result;
}

void world_close(struct world *world)
{
    if (world->store == NULL)
        return;
    qr_store_close(world->store);
    qr_manifest_close(world->manifest);
    world->disk->ops->dir_close(world->dir);
    world->store = NULL;
}

/* ---- Comparing -------------------------------------------------------------------------------------------------- */

/* 0 right, 1 wrong, 2 a failure that says so. */
static int look(struct world *world, uint32_t page, uint64_t generation)
{
    struct qr_store_entry entry;
    void *bytes = NULL;
    uint32_t size;
    int result = qr_store_lookup(world->store, world_pid(page), &entry);
    if (result == QUIRE_NOT_FOUND)
        return generation == 0 ? 0 : 1;
    if (result < 0)
        return 2;
    if (generation == 0 || entry.max_lsn != generation)
        return 1;
    result = qr_store_read(world->store, entry.address, world_pid(page), give, NULL, &bytes, &size);
    bool right = result == 0 && contents_are(world, page, generation, bytes, size);
    free(bytes);
    return right ? 0 : result < 0 ? 2 : 1;
}

uint64_t world_compare(struct world *world, const uint64_t *generations, uint64_t *ret_corrupt)
{
    uint64_t different = 0, corrupt = 0;
    for (uint32_t page = 0; page < PAGES; page++) {
        int answer = look(world, page, generations[page]);
        struct quire_error_detail detail;
        quire_error_detail(&detail);
        if (answer == 2 && ret_corrupt != NULL) {
            CHECK(detail.result == QUIRE_ERR_CORRUPT || detail.result == QUIRE_ERR_NEWER, "%s", detail.message);
            corrupt++;
        } else if (!CHECK(answer == 0, "page %u, generation %llu, answer %d: %s", page,
                          (unsigned long long)generations[page], answer, detail.message)) {
            different++;
        }
    }
    if (ret_corrupt != NULL)
        *ret_corrupt = corrupt;
    return different;
}

bool world_is(struct world *world, const uint64_t *generations)
{
    for (uint32_t page = 0; page < PAGES; page++) {
        if (look(world, page, generations[page]) != 0)
            return false;
    }
    return true;
}

/* ---- Changing --------------------------------------------------------------------------------------------------- */

static bool failed(struct world *world, int result)
{
    struct quire_error_detail detail;
    if (result >= 0)
        return false;
    quire_error_detail(&detail);
    CHECK(world->may_fail, "%d: %s", result, detail.message);
    world->failures++;
    return true;
}

/* Images of pages at generations to come; they are the caller's to enter. False: nothing was written. */
static bool write_images(struct world *world, const uint32_t *pages, struct qr_store_image *images, uint32_t count)
{
    memset(images, 0, count * sizeof(*images));
    for (uint32_t i = 0; i < count; i++) {
        uint64_t generation = ++world->generation;
        uint32_t size = size_of(world, pages[i], generation);
        uint8_t *bytes = malloc(size);
        make_contents(pages[i], generation, bytes, size);
        images[i] = (struct qr_store_image){.pid = world_pid(pages[i]),
                                            .tree_id = 1,
                                            .kind = QR_STORE_LEAF,
                                            .codec = (uint8_t)random_below(&world->random, 3),
                                            .min_lsn = 1,
                                            .max_lsn = generation,
                                            .bytes = bytes,
                                            .size = size};
    }
    int result = qr_store_write(world->store, images, count,
                                random_chance(&world->random, 20) ? QR_STORE_COLD : QR_STORE_RESERVE);
    for (uint32_t i = 0; i < count; i++)
        free((void *)(uintptr_t)images[i].bytes);
    return !failed(world, result);
}

void world_write_page(struct world *world, uint32_t page)
{
    struct qr_store_image image;
    if (!write_images(world, &page, &image, 1))
        return;
    qr_store_enter(world->store, image.pid, image.address);
    world->current[page] = image.max_lsn;
}

void world_write(struct world *world, uint32_t count)
{
    struct qr_store_image *images = calloc(count, sizeof(*images));
    uint32_t *pages = calloc(count, sizeof(*pages));
    for (uint32_t i = 0; i < count; i++)
        pages[i] = (uint32_t)random_below(&world->random, PAGES);
    if (write_images(world, pages, images, count)) {
        for (uint32_t i = 0; i < count; i++) {
            if (random_chance(&world->random, 10)) {
                qr_store_forget(world->store, images[i].address);
                continue;
            }
            qr_store_enter(world->store, images[i].pid, images[i].address);
            world->current[pages[i]] = images[i].max_lsn;
        }
    }
    free(images);
    free(pages);
}

void world_remove(struct world *world, uint32_t page)
{
    qr_store_remove(world->store, world_pid(page));
    world->current[page] = 0;
}

/* ---- Checkpoint ------------------------------------------------------------------------------------------------- */

static int compare_ids(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static uint64_t free_ids_of(const uint64_t *generations, uint64_t *ret_ids)
{
    uint64_t count = 0;
    for (uint32_t page = 0; page < PAGES; page++) {
        if (generations[page] == 0)
            ret_ids[count++] = world_pid(page);
    }
    qsort(ret_ids, count, sizeof(uint64_t), compare_ids);
    return count;
}

/* Captured pages that are written after the capture, beside new images of others and of the same. */
static void write_after_capture(struct world *world, struct qr_store_capture *capture)
{
    struct qr_store_image image;
    for (uint32_t n = (uint32_t)random_below(&world->random, 6); n != 0; n--) {
        uint32_t page = (uint32_t)random_below(&world->random, PAGES);
        bool same = world->current[page] == world->next[page];
        if (random_chance(&world->random, 50)) {
            world_write_page(world, page);
            continue;
        }
        if (!write_images(world, &page, &image, 1))
            continue;
        qr_store_capture_enter(capture, image.pid, image.address);
        world->next[page] = image.max_lsn;
        if (same)
            world->current[page] = image.max_lsn;
        else if (!same && random_chance(&world->random, 50))
            world_write_page(world, page);
    }
}

static int append_record(struct world *world, const struct qr_manifest_checkpoint *record)
{
    uint8_t payloads[2][256];
    struct qr_manifest_record records[2];
    struct qr_manifest_checkpoint before = world->checkpoint;
    bool had = world->has_checkpoint;
    struct qr_manifest_record one = qr_manifest_checkpoint_encode(record, payloads[0]);
    int result = qr_manifest_append(world->manifest, &one, 1);
    if (result == QR_MANIFEST_FULL) {
        world->checkpoint = *record;
        world->has_checkpoint = true;
        result = qr_manifest_rewrite(world->manifest, records, records_of(world, payloads, records));
    }
    world->checkpoint = result == 0 ? *record : before;
    world->has_checkpoint = result == 0 || had;
    return result;
}

/* Is the list of free ids what it was? */
static void check_free_ids(struct world *world, const uint64_t *ids, uint64_t count)
{
    uint64_t *read = NULL, read_count = 0;
    int result = qr_store_read_free_ids(world->store, &world->checkpoint, &read, &read_count);
    if (!failed(world, result))
        CHECK(read_count == count && (count == 0 || memcmp(read, ids, count * 8) == 0), "%llu ids, not %llu",
              (unsigned long long)read_count, (unsigned long long)count);
    qr_free(read);
}

int world_checkpoint(struct world *world, bool abandon)
{
    struct qr_store_capture *capture;
    uint64_t ids[PAGES];
    memcpy(world->next, world->current, sizeof(world->next));
    int result = qr_store_capture(world->store, &capture);
    if (failed(world, result))
        return result;
    if (!world->plain)
        write_after_capture(world, capture);
    uint64_t count = free_ids_of(world->next, ids);
    struct qr_manifest_checkpoint record = {.number = world->has_checkpoint ? world->checkpoint.number + 1 : 1,
                                            .replay_from = 1,
                                            .durable_lsn = world->generation,
                                            .next_page_id = UINT64_C(1) << 40};
    result = qr_store_commit(world->store, capture, ids, count, &record);
    bool commit_failed = failed(world, result);
    if (commit_failed || abandon) {
        qr_store_abandoned(world->store, capture);
        return commit_failed ? result : 1;
    }
    world->next_possible = true;
    result = append_record(world, &record);
    if (failed(world, result)) {
        qr_store_unknown(world->store, capture);
        world->dead = true;
        return result;
    }
    memcpy(world->durable, world->next, sizeof(world->durable));
    world->next_possible = false;
    qr_store_committed(world->store, capture);
    check_free_ids(world, ids, count);
    return 0;
}

/* ---- Reading several -------------------------------------------------------------------------------------------- */

static void read_many(struct world *world)
{
    struct qr_store_read reads[40];
    uint32_t pages[40], count = 0;
    for (uint32_t i = 0; i < 40; i++) {
        struct qr_store_entry entry;
        uint32_t page = (uint32_t)random_below(&world->random, PAGES);
        int result = qr_store_lookup(world->store, world_pid(page), &entry);
        if (failed(world, result) || result != 0)
            continue;
        pages[count] = page;
        reads[count++] = (struct qr_store_read){.address = entry.address, .pid = world_pid(page)};
    }
    (void)failed(world, qr_store_read_many(world->store, reads, count, give, NULL));
    for (uint32_t i = 0; i < count; i++) {
        if (reads[i].result == 0)
            CHECK(contents_are(world, pages[i], world->current[pages[i]], reads[i].bytes, reads[i].size), "page %u",
                  pages[i]);
        else
            CHECK(world->may_fail, "page %u: %d", pages[i], reads[i].result);
        free(reads[i].bytes);
    }
}

void world_step(struct world *world)
{
    uint64_t kind = random_below(&world->random, 100);
    if (kind < 40)
        world_write(world, (uint32_t)random_between(&world->random, 1, 12));
    else if (kind < 55)
        world_remove(world, (uint32_t)random_below(&world->random, PAGES));
    else if (kind < 75)
        (void)world_checkpoint(world, random_chance(&world->random, 20));
    else if (kind < 90)
        read_many(world);
    else
        qr_store_trim(world->store);
}
