/*
 * Goal: what was entered is read back, before and after checkpoints and openings; dead segments go, others stay.
 * Method: random operations on real files, with and without ring and direct I/O, and on the simulated disk, against an
 * array of generations; then threads that read and enter while checkpoints run.
 */
#include "store/world.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/check.h"
#include "lib/options.h"
#include "store/format.h"

static uint64_t seed;

static int count_name(void *context, const char *name)
{
    uint32_t number;
    *(uint64_t *)context += qr_segment_number_of(name, &number);
    return 0;
}

static uint64_t files_of(struct world *world)
{
    uint64_t count = 0;
    CHECK_EQUAL(world->disk->ops->dir_list(world->dir, count_name, &count), 0);
    return count;
}

struct seen {
    struct world *world;
    uint64_t count, last;
};

static int see_page(void *context, uint64_t pid, const struct qr_store_entry *entry)
{
    struct seen *seen = context;
    CHECK(seen->count == 0 || pid > seen->last, "page %llu", (unsigned long long)pid);
    CHECK(entry->address >> QR_STORE_ADDRESS_BITS == 0, "page %llu", (unsigned long long)pid);
    seen->count++;
    seen->last = pid;
    return 0;
}

static void check_each(struct world *world)
{
    struct seen seen = {.world = world};
    uint64_t count = 0;
    CHECK_EQUAL(qr_store_each(world->store, see_page, &seen), 0);
    for (uint32_t page = 0; page < PAGES; page++)
        count += world->current[page] != 0;
    CHECK_EQUAL(seen.count, count);
}

static void reopen(struct world *world)
{
    bool with_checkpoint = random_chance(&world->random, 50);
    if (with_checkpoint)
        CHECK_EQUAL(world_checkpoint(world, false), 0);
    world_close(world);
    memcpy(world->current, world->durable, sizeof(world->current));
    if (!CHECK_EQUAL(world_open(world), 0))
        abort();
    CHECK_EQUAL(world_compare(world, world->durable, NULL), 0);
    check_each(world);
}

static void check_stats(struct world *world)
{
    struct qr_store_stats stats;
    qr_store_stats(world->store, &stats);
    CHECK_EQUAL(stats.segments + stats.reserve_segments, files_of(world));
    CHECK_EQUAL(stats.checksum_failures, 0);
    CHECK(stats.live_bytes <= stats.segment_bytes, "%llu live", (unsigned long long)stats.live_bytes);
}

static void run(struct world *world, uint64_t steps, const char *what)
{
    random_seed(&world->random, seed);
    if (!CHECK(world_open(world) == 0, "%s", what))
        return;
    CHECK_EQUAL(files_of(world), 0);
    for (uint64_t i = 0; i < steps; i++) {
        world_step(world);
        if (i % 50 == 49)
            check_stats(world);
        if (i % 20 == 19)
            CHECK_EQUAL(world_compare(world, world->current, NULL), 0);
        if (i % 100 == 99)
            reopen(world);
    }
    world_close(world);
}

/* Each page again and again: what is dead is released, and what is not stays readable. */
static void dead_segments_go(struct world *world)
{
    struct qr_store_stats stats;
    CHECK_EQUAL(world_open(world), 0);
    for (uint32_t round = 0; round < 60; round++) {
        for (uint32_t page = 0; page < PAGES; page++)
            world_write_page(world, page);
        CHECK_EQUAL(world_checkpoint(world, false), 0);
        CHECK_EQUAL(world_compare(world, world->current, NULL), 0);
    }
    CHECK_EQUAL(world_checkpoint(world, false), 0);
    qr_store_stats(world->store, &stats);
    CHECK(stats.segments_recycled > 0, "none");
    CHECK(stats.segment_bytes < 6 * stats.live_bytes + (4 << 20), "%llu bytes of segments, %llu live",
          (unsigned long long)stats.segment_bytes, (unsigned long long)stats.live_bytes);
    for (uint32_t page = 0; page < PAGES; page++)
        world_remove(world, page);
    CHECK_EQUAL(world_checkpoint(world, false), 0);
    for (uint32_t page = 0; page < PAGES; page++)
        world_remove(world, page);
    CHECK_EQUAL(world_checkpoint(world, false), 0);
    qr_store_stats(world->store, &stats);
    CHECK(stats.segments <= 4, "%llu segments of an empty store", (unsigned long long)stats.segments);
    check_stats(world);
    world_close(world);
}

/* ---- Threads ---------------------------------------------------------------------------------------------------- */

struct shared {
    struct world *world;
    atomic_bool stop;
    atomic_uint_fast64_t reads, gone;
};

static void *allocate(void *context, size_t size)
{
    (void)context;
    return malloc(size);
}

/* Any image of the page will do: it verifies, and is of this page. */
static void *read_always(void *argument)
{
    struct shared *shared = argument;
    struct random_stream random;
    random_seed(&random, 99);
    while (!atomic_load(&shared->stop)) {
        struct qr_store_entry entry;
        void *bytes = NULL;
        uint32_t size, page = (uint32_t)random_below(&random, PAGES);
        int result = qr_store_lookup(shared->world->store, world_pid(page), &entry);
        if (!CHECK(result == 0 || result == QUIRE_NOT_FOUND, "%d", result) || result != 0)
            continue;
        if (random_chance(&random, 30))
            usleep(100); /* the image may go meanwhile */
        result = qr_store_read(shared->world->store, entry.address, world_pid(page), allocate, NULL, &bytes, &size);
        CHECK(result == 0 || result == QR_STORE_GONE, "%d", result);
        atomic_fetch_add(result == 0 ? &shared->reads : &shared->gone, 1);
        free(bytes);
    }
    return NULL;
}

/* Pages of its own, the last eight. */
static void *write_always(void *argument)
{
    struct shared *shared = argument;
    struct qr_store *store = shared->world->store;
    static uint8_t bytes[3000];
    for (uint64_t lsn = 1; !atomic_load(&shared->stop); lsn++) {
        uint64_t pid = 1000 + lsn % 8;
        struct qr_store_image image = {
            .pid = pid, .kind = QR_STORE_LEAF, .max_lsn = lsn, .bytes = bytes, .size = sizeof(bytes)};
        struct qr_store_entry entry;
        CHECK_EQUAL(qr_store_write(store, &image, 1, 0), 0);
        if (lsn % 5 == 0) {
            qr_store_forget(store, image.address);
            continue;
        }
        qr_store_enter(store, pid, image.address);
        CHECK_EQUAL(qr_store_lookup(store, pid, &entry), 0);
        CHECK_EQUAL(entry.max_lsn, lsn);
        if (lsn % 7 == 0)
            qr_store_remove(store, pid);
    }
    return NULL;
}

static void threads_read_and_enter(struct world *world, uint64_t rounds)
{
    struct shared shared = {.world = world};
    pthread_t threads[3];
    random_seed(&world->random, seed);
    CHECK_EQUAL(world_open(world), 0);
    for (uint32_t page = 0; page < PAGES; page++)
        world_write_page(world, page);
    for (uint32_t i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, i == 2 ? write_always : read_always, &shared);
    for (uint64_t i = 0; i < rounds; i++) {
        world_write(world, 10);
        if (i % 3 == 0)
            qr_store_trim(world->store);
        CHECK(world_checkpoint(world, i % 5 == 4) >= 0, "round %llu", (unsigned long long)i);
    }
    atomic_store(&shared.stop, true);
    for (uint32_t i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    CHECK(atomic_load(&shared.reads) > 0, "none");
    CHECK_EQUAL(world_compare(world, world->current, NULL), 0);
    world_close(world);
}

/* ---- Sizes ------------------------------------------------------------------------------------------------------ */

/* Images larger than a batch, than a read by the address alone, than a segment. */
static void large_images(struct world *world)
{
    world->least_bytes = 30 << 10;
    world->most_bytes = 900 << 10;
    run(world, test_scaled(40), "large images");
}

static void empty_store(struct world *world)
{
    CHECK_EQUAL(world_open(world), 0);
    struct qr_store_capture *capture;
    struct qr_manifest_checkpoint record = {.number = 1, .next_page_id = 1};
    CHECK_EQUAL(qr_store_capture(world->store, &capture), 0);
    CHECK_EQUAL(qr_store_commit(world->store, capture, NULL, 0, &record), 0);
    qr_store_committed(world->store, capture);
    CHECK_EQUAL(record.mapping_index.size_bytes, 0);
    CHECK_EQUAL(record.page_count, 0);
    CHECK_EQUAL(files_of(world), 0);
    world_close(world);
}

/* More blocks than go into one batch, and an opening that reads none of them. */
static void many_pages(struct world *world)
{
    enum { COUNT = 40000, STRIDE = 50, AT_ONCE = 1000 };
    static struct qr_store_image images[AT_ONCE];
    struct qr_store_stats stats;
    struct qr_store_entry entry;
    world->plain = true;
    CHECK_EQUAL(world_open(world), 0);
    for (uint64_t i = 0; i < COUNT; i += AT_ONCE) {
        for (uint64_t k = 0; k < AT_ONCE; k++)
            images[k] = (struct qr_store_image){.pid = (i + k) * STRIDE + 1,
                                                .kind = QR_STORE_LEAF,
                                                .max_lsn = i + k + 1,
                                                .bytes = "a few bytes",
                                                .size = 11};
        CHECK_EQUAL(qr_store_write(world->store, images, AT_ONCE, 0), 0);
        for (uint64_t k = 0; k < AT_ONCE; k++)
            qr_store_enter(world->store, images[k].pid, images[k].address);
    }
    for (uint32_t round = 0; round < 2; round++) {
        CHECK_EQUAL(world_checkpoint(world, false), 0);
        CHECK_EQUAL(world->checkpoint.page_count, round == 0 ? COUNT : COUNT / 2);
        world_close(world);
        CHECK_EQUAL(world_open(world), 0);
        qr_store_stats(world->store, &stats);
        CHECK_EQUAL(stats.reads, 2);
        CHECK_EQUAL(stats.pages, round == 0 ? COUNT : COUNT / 2);
        for (uint64_t i = 0; i < COUNT; i++) {
            int result = qr_store_lookup(world->store, i * STRIDE + 1, &entry);
            CHECK_EQUAL(result, round == 1 && i % 2 == 0 ? QUIRE_NOT_FOUND : 0);
            CHECK(result != 0 || entry.max_lsn == i + 1, "page %llu", (unsigned long long)i);
        }
        qr_store_stats(world->store, &stats);
        uint64_t memory = stats.memory_bytes;
        qr_store_trim(world->store);
        qr_store_stats(world->store, &stats);
        CHECK(stats.memory_bytes < memory / 10, "%llu of %llu bytes", (unsigned long long)stats.memory_bytes,
              (unsigned long long)memory);
        for (uint64_t i = 0; i < COUNT && round == 0; i += 2)
            qr_store_remove(world->store, i * STRIDE + 1);
    }
    world_close(world);
}

/* Batch follows batch, each says what is in it. */
static void summaries_say_what_is_there(struct world *world)
{
    uint64_t batches = 0, entries = 0;
    for (uint32_t number = 1; number < 1000; number++) {
        char name[QR_SEGMENT_NAME_BYTES];
        struct qr_segment_header header;
        struct qr_batch batch;
        uint64_t size, sequence = 0;
        qr_segment_name(number, name);
        const uint8_t *content = simdisk_content(world->sim, world->path, name, &size);
        if (content == NULL || !qr_segment_header_decode(content, &header) || header.number != number)
            continue;
        for (uint64_t at = QR_SEGMENT_HEADER_BYTES;
             at < size && qr_batch_decode(content + at, size - at, (uint32_t)at, header.salt, &batch) &&
             batch.sequence > sequence;
             at += batch.size) {
            sequence = batch.sequence;
            batches++;
            for (uint32_t i = 0; i < batch.count; i++, entries++) {
                struct qr_image_header said, is;
                qr_batch_entry_decode(content + at + QR_BATCH_HEADER_BYTES + (size_t)i * QR_BATCH_ENTRY_BYTES, number,
                                      &said);
                const uint8_t *image = content + qr_address_offset(said.address);
                const char *wrong = qr_image_header_decode(image, said.address, said.pid, &is);
                CHECK(wrong == NULL && qr_image_sum_is_right(image, is.stored_size, header.salt), "%s: %s", name,
                      wrong);
                CHECK(said.max_lsn == is.max_lsn && said.kind == is.kind && said.stored_size == is.stored_size &&
                          said.min_lsn >= batch.min_lsn && said.max_lsn <= batch.max_lsn,
                      "%s", name);
            }
        }
    }
    CHECK(batches > 20 && entries > batches, "%llu batches, %llu images", (unsigned long long)batches,
          (unsigned long long)entries);
}

/* ---- Worlds ----------------------------------------------------------------------------------------------------- */

enum where { SIMULATED, FILES, RING };

static struct world make_world(enum where where, bool direct, uint64_t first_segment_bytes)
{
    static char path[64];
    struct world world = {.least_bytes = 40, .most_bytes = 6000};
    world.options.first_segment_bytes = first_segment_bytes;
    world.options.most_segment_bytes = UINT64_C(1) << 20;
    world.options.direct = direct;
    world.options.most_open_files = 6;
    if (where == SIMULATED) {
        world.sim = simdisk_create();
        simdisk_facts(world.sim)->direct_align_bytes = direct ? 512 : 0;
        world.disk = simdisk_disk(world.sim);
        world.path = "db";
        return world;
    }
    snprintf(path, sizeof(path), "%s/quire-store-XXXXXX", direct ? "/var/tmp" : "/tmp");
    CHECK(mkdtemp(path) != NULL, "%s", path);
    CHECK_EQUAL(where == RING ? qr_disk_open(true, &world.disk) : qr_disk_posix(&world.disk), 0);
    world.path = path;
    return world;
}

static void end_world(struct world *world)
{
    char command[128];
    if (world->sim != NULL) {
        CHECK_EQUAL(simdisk_open_count(world->sim), 0);
        simdisk_free(world->sim);
        return;
    }
    world->disk->ops->disk_free(world->disk);
    snprintf(command, sizeof(command), "rm -rf %s", world->path);
    CHECK_EQUAL(system(command), 0);
}

int main(int argc, char **argv)
{
    uint64_t steps = 400;
    const struct test_option options[] = {{.name = "seed", .help = "0 = from the clock", .number = &seed},
                                          {.name = "steps", .help = "of each run", .number = &steps}};
    test_options_parse(argc, argv, "the page store against an array", options, 2);
    seed = test_seed(seed);
    for (enum where where = SIMULATED; where <= RING; where++) {
        for (int direct = 0; direct <= 1; direct++) {
            struct world world = make_world(where, direct, 32 << 10);
            run(&world, test_scaled(steps), where == SIMULATED ? "simulated" : where == FILES ? "files" : "ring");
            if (where == SIMULATED)
                summaries_say_what_is_there(&world);
            end_world(&world);
        }
    }
    struct world world = make_world(SIMULATED, false, 32 << 10);
    dead_segments_go(&world);
    end_world(&world);
    world = make_world(SIMULATED, false, 32 << 10);
    empty_store(&world);
    end_world(&world);
    world = make_world(FILES, false, 32 << 10);
    many_pages(&world);
    end_world(&world);
    world = make_world(RING, true, 32 << 10);
    large_images(&world);
    end_world(&world);
    world = make_world(FILES, false, 32 << 10);
    threads_read_and_enter(&world, test_scaled(100));
    end_world(&world);
    return check_finish();
}
