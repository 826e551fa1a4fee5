/*
 * Goal: what a database asks of the disk is what its documents promise: what was published is not written over; writes are aligned
 * and large; opening reads little, however much there is; a failed or damaged read concerns its call alone; syncs come before
 * acknowledgements, and hold up nobody who reads.
 * Method: a simulated disk with a hook before each operation, and its contents compared from step to step; a ring where there is
 * one.
 */
#include "api_sim.h"

#include "base/bytes.h"
#include "db/names.h"
#include "log/files.h"
#include "log/frame.h"
#include "os/thread.h"
#include "store/format.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

TestSuite(io, .timeout = 120);

static struct simdisk *disk;
static struct quire *db;
static struct quire_tree *tree;

static void open_again(void)
{
    if (db != NULL) OK(quire_close(db));
    db = open_on(disk, sim_options(QUIRE_LEVEL_PROCESS));
    tree = open_tree(db, "t");
}

static void begin(void)
{
    disk = simdisk_create();
    db = NULL;
    open_again();
}

static void end(void)
{
    simdisk_set_hook(disk, NULL, NULL);
    OK(quire_close(db));
    cr_assert_eq(simdisk_open_count(disk), 0);
    cr_assert_eq(simdisk_mistakes(disk), 0);
    simdisk_free(disk);
}

/* ---- What was published is not written over ---------------------------------------------------------------------- */

/* What a file was when it was looked at last. */
struct seen {
    char name[24];
    uint8_t *bytes;
    uint64_t size;
};
static struct seen seen[MOST_NAMES];
static uint32_t seen_count;
static uint64_t frames_compared, batches_compared, blobs_compared, states_changed;

/* Frames: all but the state byte, which goes from TENTATIVE to DONE or VOID. What is no frame yet is free. */
static void compare_log(const struct seen *old, const uint8_t *now)
{
    const struct qr_log_header *h = (const struct qr_log_header *)(const void *)old->bytes;
    if (memcmp(old->bytes, now, offsetof(struct qr_log_header, poisoned)) != 0) {
        const struct qr_log_header *next = (const struct qr_log_header *)(const void *)now;
        cr_assert(next->start > h->start && next->salt != h->salt, "%s: another header in the same life", old->name);
        return; /* used again */
    }
    for (uint64_t at = QR_LOG_HEADER_BYTES; at < old->size;) {
        uint32_t size = 0;
        if (qr_frame_look(old->bytes + at, old->size - at, h->start + at, h->salt, &size) != QR_FRAME_GOOD) return;
        enum qr_frame_state was = qr_frame_state_at(old->bytes + at), is = qr_frame_state_at(now + at);
        cr_assert(memcmp(old->bytes + at, now + at, 3) == 0 && memcmp(old->bytes + at + 4, now + at + 4, size - 4) == 0,
                  "%s: the frame at %" PRIu64 " was changed", old->name, at);
        cr_assert(was == is || (was == QR_FRAME_TENTATIVE && (is == QR_FRAME_DONE || is == QR_FRAME_VOID)),
                  "%s: the frame at %" PRIu64 " went from state %x to %x", old->name, at, (unsigned)was, (unsigned)is);
        states_changed += was != is;
        frames_compared++;
        at += size;
    }
}

/* Blobs, each with its head; where none begins is free. */
static void compare_blobs(const struct seen *old, const uint8_t *now, uint32_t number)
{
    for (uint64_t at = QR_SEGMENT_HEADER_BYTES, size = 64; at < old->size; at += size, size = 64) {
        const uint8_t *head = old->bytes + at;
        if (memcmp(head, "QBLB", 4) != 0 || qr_load_u64(head + 8) != ((uint64_t)number << 32 | at)) continue;
        size = qr_round_up((uint64_t)qr_load_u32(head + 36) + qr_load_u32(head + 32), 64);
        cr_assert_leq(size, old->size - at);
        cr_assert_eq(memcmp(head, now + at, size), 0, "%s: the large value at %" PRIu64 " was changed", old->name, at);
        blobs_compared++;
    }
}

/* Batches, of which each says how long it is. A page segment's name is used once. */
static void compare_pages(const struct seen *old, const uint8_t *now)
{
    struct qr_segment_header header;
    cr_assert_eq(memcmp(old->bytes, now, 4096), 0, "%s: another header", old->name);
    if (qr_segment_header_decode(now, &header) && header.stream == QR_STREAM_BLOB) compare_blobs(old, now, header.number);
    for (uint64_t at = 4096; at < old->size && memcmp(old->bytes + at, "QBAT", 4) == 0;) {
        uint32_t size = qr_load_u32(old->bytes + at + 20);
        cr_assert_eq(memcmp(old->bytes + at, now + at, size), 0, "%s: the batch at %" PRIu64 " was changed", old->name, at);
        batches_compared++;
        at += size;
    }
}

/* What is not zero, unless another one took the name. */
static void compare_manifest(const struct seen *old, const uint8_t *now)
{
    if (memcmp(old->bytes, now, 512) != 0) return;
    for (uint64_t at = 512; at < old->size; at++)
        cr_assert(old->bytes[at] == 0 || old->bytes[at] == now[at], "manifest: offset %" PRIu64 " was changed", at);
}

static void look_at_files(void)
{
    struct sim_list list = list_files(disk);
    struct seen next[MOST_NAMES];
    for (uint32_t i = 0; i < list.count; i++) {
        uint64_t size = 0;
        const uint8_t *now = simdisk_content(disk, STORE, list.names[i], &size);
        for (uint32_t k = 0; k < seen_count; k++) {
            if (strcmp(seen[k].name, list.names[i]) != 0) continue;
            cr_assert_eq(seen[k].size, size);
            if (strncmp(seen[k].name, "log-", 4) == 0) compare_log(&seen[k], now);
            if (strncmp(seen[k].name, "page-", 5) == 0) compare_pages(&seen[k], now);
            if (strcmp(seen[k].name, "manifest") == 0) compare_manifest(&seen[k], now);
        }
        snprintf(next[i].name, sizeof(next[i].name), "%s", list.names[i]);
        next[i].bytes = malloc(size + 1);
        next[i].size = size;
        memcpy(next[i].bytes, now, size);
    }
    for (uint32_t k = 0; k < seen_count; k++) free(seen[k].bytes);
    memcpy(seen, next, sizeof(seen));
    seen_count = list.count;
}

/* F23: exceptions are the states of frames, fillers where a frame was reserved and not written, and the mark of a failed sync. */
Test(io, does_not_write_over_what_was_published)
{
    static char value[8000];
    uint64_t n = 0;
    begin();
    for (uint32_t round = 0; round < 40; round++) {
        for (uint32_t step = 0; step < 40; step++, n++) {
            uint64_t key = n * 7919 % 600;
            size_t size = n % 11 == 3 ? 5000 + n % 3000 : n % 400; /* some are large values */
            memset(value, (int)n, sizeof(value));
            if (n % 5 == 4)
                OK(quire_delete(tree, &key, sizeof(key), 0, NULL, NULL));
            else
                OK(quire_put(tree, &key, sizeof(key), value, size, n % 37 == 0 ? QUIRE_WRITE_DURABLE : 0, NULL));
            if (step % 8 == 0) look_at_files();
        }
        if (round % 3 == 0) OK(quire_checkpoint(db));
        look_at_files();
        if (round % 5 == 2) open_again();
        if (round % 7 == 3) {
            abandon(db);
            db = NULL;
            open_again();
        }
        look_at_files();
    }
    cr_assert(frames_compared > 1000 && batches_compared > 100 && blobs_compared > 100,
              "%" PRIu64 " frames, %" PRIu64 " batches, %" PRIu64 " large values", frames_compared, batches_compared,
              blobs_compared);
    for (uint32_t k = 0; k < seen_count; k++) free(seen[k].bytes);
    end();
}

/* ---- Sizes ------------------------------------------------------------------------------------------------------- */

struct sizes {
    uint64_t page_writes, page_bytes, unaligned;
    uint64_t reads, read_bytes;
};

static void measure(void *context, const struct simdisk_event *event)
{
    struct sizes *sizes = context;
    if (event->kind == SIMDISK_READ) {
        sizes->reads++;
        sizes->read_bytes += event->size_bytes;
    }
    if (event->kind != SIMDISK_WRITE || strncmp(event->name, "page-", 5) != 0) return;
    sizes->page_writes++;
    sizes->page_bytes += event->size_bytes;
    sizes->unaligned += event->offset % 4096 != 0 || event->size_bytes % 4096 != 0;
}

/* F29, L13: pages are written in units of 4096, and much of it in large pieces. */
Test(io, writes_pages_aligned_and_in_large_pieces)
{
    struct sizes sizes = {0};
    static char value[100];
    begin();
    simdisk_set_hook(disk, measure, &sizes);
    for (uint64_t i = 0; i < 100000; i++) OK(quire_put(tree, &i, sizeof(i), value, sizeof(value), 0, NULL));
    OK(quire_checkpoint(db));
    cr_assert_eq(sizes.unaligned, 0);
    cr_assert_gt(sizes.page_bytes, 100000u * 100);
    cr_assert(sizes.page_bytes / sizes.page_writes >= 128 << 10, "%" PRIu64 " writes of %" PRIu64 " bytes",
              sizes.page_writes, sizes.page_bytes);
    end();
}

/* G17, F28: of 1000 versions of each key one is written; the dead ones cost no byte of the pages */
Test(io, writes_a_key_once_however_often_it_was_put)
{
    enum { KEYS = 100, ROUNDS = 1000 };
    struct sizes sizes = {0};
    static char value[100];
    begin();
    simdisk_set_hook(disk, measure, &sizes);
    for (uint64_t round = 0; round < ROUNDS; round++)
        for (uint64_t i = 0; i < KEYS; i++) OK(quire_put(tree, &i, sizeof(i), value, sizeof(value), 0, NULL));
    OK(quire_checkpoint(db));
    cr_assert(sizes.page_bytes <= 3 * KEYS * 120 + 16 * 4096, "%" PRIu64 " bytes for %d puts", sizes.page_bytes,
              KEYS * ROUNDS);
    end();
}

/* F15: the reads of an opening, and what they read, do not depend on the amount of data, but for the rest of a log segment */
Test(io, reads_little_to_open_however_much_there_is)
{
    struct sizes sizes[2] = {{0}};
    static char value[100];
    for (unsigned large = 0; large < 2; large++) {
        begin();
        for (uint64_t i = 0; i < (large ? 100000u : 1000u); i++)
            OK(quire_put(tree, &i, sizeof(i), value, sizeof(value), 0, NULL));
        OK(quire_close(db));
        simdisk_set_hook(disk, measure, &sizes[large]);
        db = open_on(disk, sim_options(QUIRE_LEVEL_PROCESS));
        simdisk_set_hook(disk, NULL, NULL);
        tree = open_tree(db, "t");
        cr_assert_eq(count_all(tree, NULL), large ? 100000 : 1000);
        end();
    }
    cr_assert(sizes[1].reads <= sizes[0].reads + 8, "%" PRIu64 " reads, not %" PRIu64, sizes[1].reads, sizes[0].reads);
    cr_assert(sizes[1].read_bytes <= sizes[0].read_bytes + 131072, "%" PRIu64 " bytes, not %" PRIu64, sizes[1].read_bytes,
              sizes[0].read_bytes);
}

/* ---- Reads that fail --------------------------------------------------------------------------------------------- */

static int get(uint64_t number)
{
    char key[16];
    uint64_t value = UINT64_MAX;
    size_t size = 0;
    int result = quire_get(tree, NULL, key, numbered(number, key), &value, sizeof(value), &size);
    if (result == 0) cr_assert(size == 8 && value == number, "%" PRIu64, value);
    return result;
}

/* F32, I06: EIO at a read is that call's, which may be made again; writes and other reads go on, and nothing is lost */
Test(io, a_failed_read_concerns_its_call_alone)
{
    begin();
    fill(tree, 0, 20000);
    open_again();
    uint64_t failed = 0;
    for (uint64_t i = 0; i < 20000; i += 97) {
        unsigned fault = simdisk_fault_set(disk, &(struct simdisk_fault){.kind = SIMDISK_READ, .nth = 1, .error = EIO});
        int result = get(i);
        if (simdisk_fault_fired(disk, fault) != 0) {
            EXPECT(result, QUIRE_ERR_IO);
            failed++;
        } else {
            OK(result); /* the page is there already */
        }
        simdisk_faults_clear(disk);
        OK(get(i));
        fill(tree, i, i + 1);
    }
    cr_assert_geq(failed, 50);
    cr_assert_eq(stats_of(db).errors_io, failed);
    cr_assert_eq(count_all(tree, NULL), 20000);
    open_again();
    cr_assert_eq(count_all(tree, NULL), 20000);
    end();
}

/* M22, F19, K02, I16: bytes that were changed on the disk are CORRUPT to who reads them, with the place in the detail, and
 * never a value; the rest is read as before */
Test(io, damaged_pages_are_corrupt_and_the_others_are_read)
{
    begin();
    fill(tree, 0, 20000);
    open_again();
    OK(get(0)); /* the way to the leaves is in memory */
    struct sim_list list = list_files(disk);
    uint64_t damaged = 0;
    for (uint32_t i = 0; i < list.count; i++) {
        uint64_t size = 0;
        if (strncmp(list.names[i], "page-", 5) != 0) continue;
        const uint8_t *content = simdisk_content(disk, STORE, list.names[i], &size);
        for (uint64_t at = 4096; at + 64 < size; at += 64) {
            /* leaves, every third; the first one has been read */
            if (memcmp(content + at, "QIMG", 4) != 0 || content[at + 52] != 1 || damaged++ % 3 != 1) continue;
            uint8_t flipped = content[at + 64 + 300] ^ 4;
            simdisk_damage(disk, STORE, list.names[i], at + 64 + 300, &flipped, 1);
        }
    }
    uint64_t corrupt = 0;
    for (uint64_t i = 0; i < 20000; i++) {
        int result = get(i);
        cr_assert(result == 0 || result == QUIRE_ERR_CORRUPT, "%d", result);
        if (result == QUIRE_ERR_CORRUPT && corrupt++ == 0) expect_detail(QUIRE_ERR_CORRUPT, "page-");
    }
    cr_assert(corrupt > 2000 && corrupt < 12000, "%" PRIu64 " of 20000", corrupt);
    abandon(db);
    simdisk_free(disk);
}

/* ---- Syncs ------------------------------------------------------------------------------------------------------- */

static const char *awaited;
static uint64_t syncs_seen;

static bool survives(const char *key)
{
    struct simdisk *after = simdisk_crash(disk, &(struct simdisk_crash){.mode = SIMDISK_DROP});
    struct quire *again = open_on(after, sim_options(0));
    int result = quire_exists(open_tree(again, "t"), NULL, key, strlen(key));
    abandon(again);
    simdisk_free(after);
    cr_assert(result == 0 || result == QUIRE_NOT_FOUND, "%d", result);
    return result == 0;
}

static void before_sync(void *context, const struct simdisk_event *event)
{
    (void)context;
    if (event->kind != SIMDISK_SYNC || strncmp(event->name, "log-", 4) != 0 || awaited == NULL) return;
    cr_assert(!survives(awaited), "durable before the sync");
    awaited = NULL;
    syncs_seen++;
}

/* M23: before the sync that a call makes, its write would be lost; when the call returns, it would not */
Test(io, a_sync_comes_before_the_acknowledgement)
{
    enum { ROUNDS = 60 };
    begin();
    OK(quire_sync(db));
    simdisk_set_hook(disk, before_sync, NULL);
    for (uint64_t i = 0; i < ROUNDS; i++) {
        char key[16];
        numbered(i, key);
        awaited = key;
        OK(quire_put(tree, key, 10, TEXT("v"), i % 3 == 0 ? QUIRE_WRITE_DURABLE : 0, NULL));
        if (i % 3 == 1) OK(quire_sync(db));
        uint64_t lsn;
        OK(quire_last_lsn(db, &lsn));
        if (i % 3 == 2) OK(quire_wait_durable(db, lsn));
        cr_assert_eq(syncs_seen, i + 1, "no sync");
        cr_assert(survives(key));
    }
    end();
}

static void slow_sync(void *context, const struct simdisk_event *event)
{
    (void)context;
    if (event->kind == SIMDISK_SYNC) usleep(1000000);
}

static void *commit(void *argument)
{
    _Atomic int *stop = argument;
    for (uint64_t i = 0; atomic_load(stop) == 0; i++)
        OK(quire_put(tree, &i, sizeof(i), &i, sizeof(i), QUIRE_WRITE_DURABLE, NULL));
    return NULL;
}

static int compare_times(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* F02, L05: a checkpoint is asked for and made beside puts, none of which waits for its syncs of a second */
Test(io, a_checkpoint_is_asked_for_and_nobody_waits_for_it)
{
    struct quire_options options = sim_options(QUIRE_LEVEL_PROCESS);
    options.background_threads = 1;
    options.log_segment_bytes = 1u << 20; /* the next one is not needed meanwhile: its name would have to be synced */
    disk = simdisk_create();
    db = open_on(disk, options);
    tree = open_tree(db, "t");
    fill(tree, 0, 30000);
    OK(quire_checkpoint(db));
    uint64_t before = stats_of(db).checkpoints;
    fill(tree, 0, 1000);
    simdisk_set_hook(disk, slow_sync, NULL);
    uint64_t start = qr_clock_ns();
    OK(quire_checkpoint_start(db));
    OK(quire_checkpoint_start(db));
    uint64_t puts = 0, longest = 0;
    for (uint64_t at = qr_clock_ns(); stats_of(db).checkpoints == before && at - start < 60000000000u; puts++) {
        fill(tree, puts % 1000, puts % 1000 + 1);
        OK(get(puts * 7 % 1000));
        uint64_t now = qr_clock_ns();
        longest = now - at > longest ? now - at : longest;
        at = now;
        usleep(1000);
    }
    cr_assert_gt(stats_of(db).checkpoints, before);
    cr_assert(qr_clock_ns() - start > 900000000, "no sync was slow");
    cr_assert_gt(puts, 100);
    cr_assert(longest < 900000000, "a put and a get took %" PRIu64 " ns", longest);
    simdisk_set_hook(disk, NULL, NULL);
    end();
}

/* F02: without threads quire_maintain makes it, once, and again if it failed */
Test(io, a_checkpoint_that_was_asked_for_is_made_by_maintenance)
{
    begin();
    fill(tree, 0, 100);
    uint64_t before = stats_of(db).checkpoints;
    OK(quire_checkpoint_start(db));
    cr_assert_eq(stats_of(db).checkpoints, before);
    settle(db);
    cr_assert_eq(stats_of(db).checkpoints, before + 1);
    settle(db);
    cr_assert_eq(stats_of(db).checkpoints, before + 1);

    /* One that fails is made again, after a second. */
    const struct simdisk_fault fault = {.kind = SIMDISK_WRITE, .nth = 1, .error = EIO};
    fill(tree, 0, 100);
    OK(quire_checkpoint_start(db));
    simdisk_fault_set(disk, &fault);
    settle(db);
    cr_assert_eq(stats_of(db).checkpoint_failures, 1);
    settle(db);
    cr_assert_eq(stats_of(db).checkpoints, before + 1);
    qr_clock_advance_ns(1100000000);
    settle(db);
    cr_assert_eq(stats_of(db).checkpoints, before + 2);
    end();
}

/* L05, M16: syncs of commits that take a second, and reads of what is in memory beside them */
Test(io, reads_do_not_wait_for_a_sync_of_a_second)
{
    enum { READS_MOST = 1 << 20 };
    static uint64_t times[READS_MOST];
    struct quire_options options = sim_options(QUIRE_LEVEL_PROCESS);
    _Atomic int stop = 0;
    pthread_t threads[2];
    size_t count = 0;
    options.background_threads = 1;
    disk = simdisk_create();
    db = open_on(disk, options);
    tree = open_tree(db, "t");
    fill(tree, 0, 1000);
    simdisk_set_hook(disk, slow_sync, NULL);
    for (int i = 0; i < 2; i++) cr_assert_eq(pthread_create(&threads[i], NULL, commit, &stop), 0);
    for (uint64_t until = qr_clock_ns() + 2200000000u; count < READS_MOST && qr_clock_ns() < until; count++) {
        uint64_t start = qr_clock_ns();
        OK(get(count * 7 % 1000));
        times[count] = qr_clock_ns() - start;
        if (count % 64 == 0) usleep(100); /* on a machine of one core the others want to run too */
    }
    atomic_store(&stop, 1);
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    qsort(times, count, sizeof(times[0]), compare_times);
    cr_assert_geq(count, 1000);
    cr_assert(times[count * 99 / 100] < 1000000, "p99 is %" PRIu64 " ns", times[count * 99 / 100]);
    cr_assert(times[count - 1] < 900000000, "a read took %" PRIu64 " ns", times[count - 1]);
    simdisk_set_hook(disk, NULL, NULL);
    end();
}

/* A04, A10: no memory to look at a file proves nothing of it: quire_destroy would remove what is another's. */
Test(io, a_file_that_could_not_be_looked_at_is_not_taken_for_ours)
{
    const struct simdisk_fault fault = {.kind = SIMDISK_OPEN, .nth = 1, .error = ENOMEM};
    begin();
    const uint8_t *id = qr_manifest_header(db->files->manifest)->store_id;
    EXPECT(qr_file_is_of_store(db->files->dir, "page-0000abcd", id), 1); /* there is none */
    EXPECT(qr_file_is_of_store(db->files->dir, "log-0000abcd", id), 1);
    simdisk_fault_set(disk, &fault);
    EXPECT(qr_file_is_of_store(db->files->dir, "page-0000abcd", id), QUIRE_ERR_NO_MEMORY);
    end();
}

/* ---- The ring ---------------------------------------------------------------------------------------------------- */

/* F24: batches go through the ring, several at once, wherever there is one */
Test(io, batches_go_through_the_ring_several_at_once)
{
    struct quire_options options = sim_options(QUIRE_LEVEL_PROCESS);
    struct qr_disk_counts before, after;
    struct qr_store_stats store_before, store_after;
    char path[] = "/tmp/quire-io-XXXXXX", command[64];
    static char value[100];
    cr_assert_not_null(mkdtemp(path));
    OK(quire_open(path, &options, &db));
    if (strcmp(stats_of(db).io_way, "uring") == 0) {
        tree = open_tree(db, "t");
        for (uint64_t i = 0; i < 60000; i++) OK(quire_put(tree, &i, sizeof(i), value, sizeof(value), 0, NULL));
        qr_disk_counts(db->files->disk, &before);
        qr_store_stats(db->checkpointer.store, &store_before);
        OK(quire_checkpoint(db));
        qr_disk_counts(db->files->disk, &after);
        qr_store_stats(db->checkpointer.store, &store_after);
        uint64_t writes = store_after.write_operations - store_before.write_operations;
        uint64_t ring = after.ring_operations - before.ring_operations;
        cr_assert_geq(after.ring_depth_max, 2);
        cr_assert(writes >= 20 && ring + writes / 4 >= writes, "%" PRIu64 " of %" PRIu64 " writes", ring, writes);
    }
    OK(quire_close(db));
    snprintf(command, sizeof(command), "rm -rf %s", path);
    cr_assert_eq(system(command), 0);
}
