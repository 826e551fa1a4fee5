/*
 * Goal: what is written to the log is read back in order, and by the right rule after each kind of end; nothing dead is revived.
 * Method: a log in small segments on real files, written by one or several threads in the steps of the write path, closed without
 * ceremony, listed and replayed; holes, undecided frames, marks, damage and cuts made by hand in between.
 */
#include "base/alloc.h"
#include "base/crc32c.h"
#include "log/files.h"
#include "log/replay.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEGMENT 16384u
#define CAP 2048u

static const uint8_t store_id[16] = "a store for test";

struct world {
    char path[64];
    struct qr_disk *disk;
    struct qr_dir *dir;
    struct qr_arena *arena;
    struct qr_epoch *epoch;
    struct qr_log log;
    struct qr_log_options options;
    struct qr_incarnation incarnations[16];
    uint32_t incarnation_count;
};

static int draw(void *context, void *to, size_t size)
{
    static uint32_t state = 99;
    (void)context;
    for (size_t i = 0; i < size; i++) {
        state = state * 1664525 + 1013904223;
        ((uint8_t *)to)[i] = (uint8_t)(state >> 24);
    }
    return 0;
}

static void world_make(struct world *w)
{
    memset(w, 0, sizeof(*w));
    snprintf(w->path, sizeof(w->path), "/tmp/quire-log-XXXXXX");
    cr_assert_not_null(mkdtemp(w->path));
    cr_assert_eq(qr_disk_posix(&w->disk), 0);
    cr_assert_eq(w->disk->ops->dir_open(w->disk, w->path, 0, &w->dir), 0);
    cr_assert_eq(qr_arena_create(0, &w->arena), 0);
    cr_assert_eq(qr_epoch_create(w->arena, NULL, NULL, &w->epoch), 0);
    w->options = (struct qr_log_options){
        .first_segment_bytes = SEGMENT, .most_segment_bytes = SEGMENT * 4, .frame_cap_bytes = CAP, .random = draw};
    memcpy(w->options.store_id, store_id, 16);
}

static void world_done(struct world *w)
{
    char command[128];
    qr_log_close(&w->log);
    qr_epoch_destroy(w->epoch);
    qr_arena_destroy(w->arena);
    w->disk->ops->dir_close(w->dir);
    w->disk->ops->disk_free(w->disk);
    snprintf(command, sizeof(command), "rm -rf %s", w->path);
    cr_assert_eq(system(command), 0);
}

static void list(struct world *w, struct qr_log_list *ret_list)
{
    cr_assert_eq(qr_log_list_make(w->dir, store_id, ret_list), 0);
}

/* Begins an incarnation above all that there is, as a database does. */
static void begin(struct world *w)
{
    struct qr_log_list found;
    list(w, &found);
    uint32_t i = w->incarnation_count++;
    w->incarnations[i] = (struct qr_incarnation){.number = i + 1, .first_lsn = found.top};
    qr_log_init(&w->log);
    cr_assert_eq(qr_log_open(&w->log, w->epoch, w->dir, &w->options, i + 1, found.top, found.next_number), 0);
    qr_log_list_done(&found);
    /* The records of this epoch's threads remember the windows of the log before. */
    for (struct qr_thread *t = qr_thread_first(w->epoch); t != NULL; t = qr_thread_next(t)) {
        t->log_window_start = t->log_window_end = 0;
        t->log_writer = false;
    }
}

/* ---- Writing ---------------------------------------------------------------------------------------------------- */

enum end { DONE, VOIDED, UNDECIDED, UNWRITTEN, SKIPPED };

static uint64_t write_record(struct world *w, struct qr_thread *thread, uint64_t number, uint32_t value_size, enum end end)
{
    static const uint8_t zeros[CAP];
    uint8_t key[16];
    struct qr_frame frame = {
        .tree_id = 1, .kind = 1, .key = key, .key_size = 16, .value = zeros, .value_size = value_size};
    qr_store_u64(key, number);
    qr_store_u64(key + 8, (uint64_t)end);
    uint64_t size = qr_frame_size(&frame);
    uint64_t lsn = QR_LOG_NO_ROOM;
    for (;;) {
        if (qr_log_slot_open(&w->log, thread)) {
            lsn = qr_log_reserve(&w->log, thread, size);
            if (lsn != QR_LOG_NO_ROOM) break;
            qr_log_slot_close(thread);
        }
        cr_assert_eq(qr_log_provision(&w->log, false), 0);
    }
    if (end == SKIPPED)
        qr_log_skip(&w->log, thread, lsn, size);
    else if (end != UNWRITTEN)
        qr_log_write(&w->log, thread, &frame, size, lsn);
    if (end == DONE) qr_log_decide(&w->log, thread, lsn, QR_FRAME_DONE);
    if (end == VOIDED) qr_log_decide(&w->log, thread, lsn, QR_FRAME_VOID);
    qr_log_slot_close(thread);
    return lsn;
}

/* ---- Reading ---------------------------------------------------------------------------------------------------- */

struct seen {
    uint64_t count, last_lsn, sum;
    uint64_t numbers[100000];
    bool void_tentative;
    uint64_t large_size;
};
static struct seen seen;

static _Alignas(QR_FRAME_UNIT) uint8_t window[QR_REPLAY_WINDOW_LEAST];

static int see(void *context, const struct qr_replay_record *record)
{
    (void)context;
    cr_assert_gt(record->lsn, seen.last_lsn);
    seen.last_lsn = record->lsn;
    if (record->frame.key_size == 16) {
        uint64_t number = qr_load_u64(record->frame.key);
        seen.numbers[seen.count++] = number;
        seen.sum += number;
    } else {
        seen.large_size = (uint64_t)record->frame.key_size + record->frame.value_size;
        for (uint32_t i = 0; i < record->frame.value_size; i++)
            cr_assert_eq(((const uint8_t *)record->frame.value)[i], (uint8_t)(i * 7));
    }
    return record->tentative && seen.void_tentative ? QR_REPLAY_VOID : 0;
}

static int replay(struct world *w, uint64_t durable_end, struct qr_replay_result *ret_result)
{
    struct qr_log_list found;
    list(w, &found);
    bool void_tentative = seen.void_tentative;
    memset(&seen, 0, sizeof(seen));
    seen.void_tentative = void_tentative;
    struct qr_replay r = {.dir = w->dir,
                          .list = &found,
                          .incarnations = w->incarnations,
                          .incarnation_count = w->incarnation_count,
                          .durable_end = durable_end,
                          .window = window,
                          .window_bytes = sizeof(window),
                          .visit = see};
    int result = qr_log_replay(&r, ret_result);
    qr_log_list_done(&found);
    return result;
}

/* As a database that was opened again: the incarnation gets its end, a new one begins. */
static void end_incarnation(struct world *w, const struct qr_replay_result *result)
{
    w->incarnations[w->incarnation_count - 1].end = result->end;
    begin(w);
}

static void file_of(struct world *w, uint32_t number, char *path)
{
    char name[QR_LOG_NAME_BYTES];
    qr_log_file_name(number, name);
    sprintf(path, "%s/%s", w->path, name);
}

static void poke(struct world *w, uint32_t number, uint64_t offset, const void *bytes, size_t size)
{
    char path[128];
    file_of(w, number, path);
    int fd = open(path, O_WRONLY);
    cr_assert_geq(fd, 0);
    cr_assert_eq(pwrite(fd, bytes, size, (off_t)offset), (ssize_t)size);
    close(fd);
}

/* Another boot, or a failed sync: either way the strict rule. */
static void poison(struct world *w, uint32_t files)
{
    uint32_t one = 1;
    for (uint32_t i = 0; i < files; i++) poke(w, i, offsetof(struct qr_log_header, poisoned), &one, sizeof(one));
}

/* ---- Tests ------------------------------------------------------------------------------------------------------ */

Test(log_files, all_that_was_decided_is_read_in_order)
{
    static struct world w;
    struct qr_replay_result result;
    world_make(&w);
    begin(&w);
    struct qr_thread *thread = qr_thread_self(w.epoch);
    for (uint64_t i = 0; i < 3000; i++) write_record(&w, thread, i, (uint32_t)(i * 37 % 1500), i % 7 == 3 ? VOIDED : DONE);
    qr_log_close(&w.log);
    for (unsigned again = 0; again < 2; again++) {
        cr_assert_eq(replay(&w, 0, &result), 0);
        cr_assert(result.same_boot);
        cr_assert_eq(seen.count, 3000 - 3000 / 7 - 1 + (3000 % 7 <= 3));
        uint64_t expected = 0;
        for (uint64_t i = 0; i < seen.count; i++, expected++) {
            if (expected % 7 == 3) expected++;
            cr_assert_eq(seen.numbers[i], expected);
        }
        end_incarnation(&w, &result);
        qr_log_close(&w.log);
    }
    world_done(&w);
}

struct writer {
    struct world *w;
    uint64_t id;
};

static void *write_many(void *argument)
{
    struct writer *writer = argument;
    struct qr_thread *thread = qr_thread_self(writer->w->epoch);
    for (uint64_t i = 0; i < 4000; i++) {
        uint64_t lsn = write_record(writer->w, thread, writer->id * 10000 + i, (uint32_t)(i % 300), DONE);
        if (i % 512 == 0) {
            cr_assert_eq(qr_log_wait(&writer->w->log, lsn, QR_LOG_DURABLE), 0);
            cr_assert_gt(qr_log_durable_end(&writer->w->log), lsn);
        }
    }
    return NULL;
}

static void many_writers(bool buffered)
{
    static struct world w;
    struct qr_replay_result result;
    pthread_t threads[4];
    struct writer writers[4];
    uint64_t next[4] = {0};
    world_make(&w);
    w.options.buffered = buffered;
    begin(&w);
    for (uint64_t i = 0; i < 4; i++) {
        writers[i] = (struct writer){&w, i};
        cr_assert_eq(pthread_create(&threads[i], NULL, write_many, &writers[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    cr_assert_eq(qr_log_wait(&w.log, qr_log_tail(&w.log) - 1, QR_LOG_PROCESS), 0);
    qr_log_close(&w.log);
    cr_assert_eq(replay(&w, 0, &result), 0);
    cr_assert_eq(seen.count, 16000);
    for (uint64_t i = 0; i < seen.count; i++) {
        uint64_t id = seen.numbers[i] / 10000;
        cr_assert_eq(seen.numbers[i] % 10000, next[id]++, "a thread's writes out of order");
    }
    world_done(&w);
}

Test(log_files, threads_write_at_once_to_mapped_segments)
{
    many_writers(false);
}

Test(log_files, threads_write_at_once_to_buffers)
{
    many_writers(true);
}

Test(log_files, in_the_same_boot_holes_are_passed_over_and_closed)
{
    static struct world w;
    struct qr_replay_result result;
    world_make(&w);
    begin(&w);
    struct qr_thread *thread = qr_thread_self(w.epoch);
    for (uint64_t i = 0; i < 200; i++) {
        static const enum end ends[] = {DONE, UNWRITTEN, DONE, UNDECIDED, SKIPPED};
        write_record(&w, thread, i, 300, ends[i % 5]);
    }
    qr_log_close(&w.log);
    seen.void_tentative = true;
    cr_assert_eq(replay(&w, 0, &result), 0);
    cr_assert_eq(seen.count, 120); /* the undecided ones are visited */
    cr_assert_eq(result.tentative, 40);
    cr_assert_geq(result.holes, 40);
    end_incarnation(&w, &result);
    write_record(&w, thread, 7777, 10, DONE);
    qr_log_close(&w.log);
    /* Now it is an older incarnation, read strictly: what was undecided is decided. */
    poison(&w, 3);
    cr_assert_eq(replay(&w, 0, &result), 0);
    cr_assert_eq(seen.count, 81);
    cr_assert_eq(seen.numbers[80], 7777);
    cr_assert_eq(result.holes, 0);
    world_done(&w);
}

Test(log_files, otherwise_the_log_ends_at_the_first_hole)
{
    static const enum end ends[] = {UNWRITTEN, UNDECIDED};
    for (unsigned kind = 0; kind < 2; kind++) {
        static struct world w;
        struct qr_replay_result result;
        world_make(&w);
        begin(&w);
        struct qr_thread *thread = qr_thread_self(w.epoch);
        for (uint64_t i = 0; i < 20; i++) write_record(&w, thread, i, 100, DONE);
        uint64_t hole = write_record(&w, thread, 20, 100, ends[kind]);
        for (uint64_t i = 21; i < 40; i++) write_record(&w, thread, i, 100, DONE);
        qr_log_close(&w.log);
        poison(&w, 1);
        cr_assert_eq(replay(&w, 0, &result), 0);
        cr_assert(!result.same_boot);
        cr_assert_eq(seen.count, 20);
        cr_assert_eq(result.end, hole);
        cr_assert_eq(replay(&w, hole, &result), 0, "all that was synced is there");
        cr_assert_eq(replay(&w, hole + 16, &result), QUIRE_ERR_CORRUPT, "what was synced is gone");
        /* What lies behind the hole stays dead. */
        cr_assert_eq(replay(&w, 0, &result), 0);
        end_incarnation(&w, &result);
        write_record(&w, thread, 500, 100, DONE);
        qr_log_close(&w.log);
        cr_assert_eq(replay(&w, 0, &result), 0);
        cr_assert_eq(seen.count, 21);
        cr_assert_eq(seen.numbers[20], 500);
        world_done(&w);
    }
}

/* Writes the frame of a large write, whose PARTs are written. */
static void write_named(struct world *w, struct qr_thread *thread, const struct qr_frame *frame, enum qr_frame_state state)
{
    uint64_t size = qr_frame_size(frame);
    cr_assert_lt(size, 128);
    while (!qr_log_slot_open(&w->log, thread)) cr_assert_eq(qr_log_provision(&w->log, false), 0);
    uint64_t lsn = qr_log_reserve(&w->log, thread, size);
    cr_assert_neq(lsn, QR_LOG_NO_ROOM);
    qr_log_write(&w->log, thread, frame, size, lsn);
    qr_log_decide(&w->log, thread, lsn, state);
    qr_log_slot_close(thread);
}

Test(log_files, large_records_go_to_parts_across_segments)
{
    static const uint32_t sizes[][2] = {{100, 5000}, {20000, 20000}, {3000, 0}, {17, 100000}};
    static struct world w;
    struct qr_replay_result result;
    uint8_t *bytes = malloc(200000);
    for (uint32_t i = 0; i < 200000; i++) bytes[i] = (uint8_t)(i * 7);
    for (unsigned i = 0; i < 4; i++) {
        world_make(&w);
        begin(&w);
        struct qr_thread *thread = qr_thread_self(w.epoch);
        struct qr_frame frame = {.tree_id = 1,
                                 .kind = 1,
                                 .key = bytes,
                                 .key_size = sizes[i][0],
                                 .value = bytes,
                                 .value_size = sizes[i][1]};
        cr_assert(qr_log_is_large(&w.log, frame.key_size, frame.value_size));
        uint64_t done = 0;
        while (!qr_log_write_parts(&w.log, thread, &frame, &done)) cr_assert_eq(qr_log_provision(&w.log, false), 0);
        write_named(&w, thread, &frame, QR_FRAME_DONE);
        qr_log_close(&w.log);
        cr_assert_eq(replay(&w, 0, &result), 0);
        cr_assert_eq(result.records, 1);
        cr_assert_eq(seen.large_size, (uint64_t)sizes[i][0] + sizes[i][1]);
        world_done(&w);
    }
    free(bytes);
}

/* Else a log of PARTs, and of as many frames that name all of them, would take the square of its size to replay. */
Test(log_files, parts_that_two_records_name_are_corrupt)
{
    static const enum qr_frame_state first[] = {QR_FRAME_VOID, QR_FRAME_DONE};
    static struct world w;
    struct qr_replay_result result;
    static uint8_t bytes[20000];
    for (uint32_t i = 0; i < sizeof(bytes); i++) bytes[i] = (uint8_t)(i * 7);
    for (unsigned i = 0; i < 2; i++) {
        world_make(&w);
        begin(&w);
        struct qr_thread *thread = qr_thread_self(w.epoch);
        struct qr_frame frame = {.tree_id = 1, .kind = 1, .key = bytes, .key_size = 100, .value = bytes, .value_size = sizeof(bytes)};
        uint64_t done = 0;
        while (!qr_log_write_parts(&w.log, thread, &frame, &done)) cr_assert_eq(qr_log_provision(&w.log, false), 0);
        cr_assert_gt(frame.part_count, 1);
        write_named(&w, thread, &frame, first[i]);
        write_named(&w, thread, &frame, QR_FRAME_DONE);
        qr_log_close(&w.log);
        cr_assert_eq(replay(&w, 0, &result), first[i] == QR_FRAME_VOID ? 0 : QUIRE_ERR_CORRUPT);
        world_done(&w);
    }
}

static unsigned count_files(struct world *w)
{
    struct stat facts;
    char path[128];
    unsigned files = 0;
    for (uint32_t i = 0; i < 1000; i++) {
        file_of(w, i, path);
        files += stat(path, &facts) == 0;
    }
    return files;
}

Test(log_files, released_segments_are_used_again_and_nothing_in_them_comes_back)
{
    static struct world w;
    struct qr_replay_result result;
    world_make(&w);
    w.options.most_segment_bytes = SEGMENT;
    begin(&w);
    struct qr_thread *thread = qr_thread_self(w.epoch);
    uint64_t lsn = 0;
    for (uint64_t i = 0; i < 5000; i++) {
        lsn = write_record(&w, thread, i, 200, DONE);
        if (i % 50 != 49) continue;
        cr_assert_eq(qr_log_wait(&w.log, lsn, QR_LOG_DURABLE), 0);
        cr_assert_eq(qr_log_release(&w.log, lsn), 0);
    }
    cr_assert_gt(w.log.files->segments_recycled, 10);
    qr_log_close(&w.log);
    cr_assert_lt(count_files(&w), 6);
    struct qr_log_list found;
    list(&w, &found);
    struct qr_replay r = {.dir = w.dir,
                          .list = &found,
                          .from = lsn,
                          .incarnations = w.incarnations,
                          .incarnation_count = 1,
                          .window = window,
                          .window_bytes = sizeof(window),
                          .visit = see};
    memset(&seen, 0, sizeof(seen));
    cr_assert_eq(qr_log_replay(&r, &result), 0);
    cr_assert_eq(seen.count, 1);
    cr_assert_eq(seen.numbers[0], 4999);
    qr_log_list_done(&found);
    world_done(&w);
}

Test(log_files, segments_that_never_came_to_be_are_listed_to_be_removed)
{
    static struct world w;
    struct qr_replay_result result;
    struct qr_log_list found;
    struct qr_log_header header;
    char path[128];
    world_make(&w);
    begin(&w);
    struct qr_thread *thread = qr_thread_self(w.epoch);
    for (uint64_t i = 0; i < 10; i++) write_record(&w, thread, i, 100, DONE);
    qr_log_close(&w.log);
    list(&w, &found);
    cr_assert_eq(found.count, 1);
    header = found.found[0].header;
    qr_log_list_done(&found);
    /* File 1: an earlier attempt at the place of file 0. File 2: zeros. */
    header.attempt--;
    header.salt++;
    header.crc = qr_crc32c(0, &header, offsetof(struct qr_log_header, crc));
    for (uint32_t i = 1; i <= 2; i++) {
        file_of(&w, i, path);
        int fd = open(path, O_WRONLY | O_CREAT, 0666);
        cr_assert_geq(fd, 0);
        cr_assert_eq(ftruncate(fd, (off_t)(header.end - header.start)), 0);
        close(fd);
    }
    poke(&w, 1, 0, &header, sizeof(header));
    list(&w, &found);
    cr_assert_eq(found.count, 3);
    for (uint32_t i = 0; i < 3; i++) {
        cr_assert_eq(found.found[i].superseded, found.found[i].number == 1);
        cr_assert_eq(found.found[i].blank, found.found[i].number == 2);
    }
    qr_log_list_done(&found);
    cr_assert_eq(replay(&w, 0, &result), 0);
    cr_assert_eq(seen.count, 10);
    world_done(&w);
}

Test(log_files, an_lsn_that_nobody_can_have_is_refused)
{
    static struct world w;
    struct qr_log_list found;
    struct qr_log_header header;
    world_make(&w);
    begin(&w);
    qr_log_close(&w.log);
    list(&w, &found);
    header = found.found[0].header;
    qr_log_list_done(&found);
    uint64_t size = header.end - header.start;
    const uint64_t ends[] = {QR_LOG_LSN_MOST, QR_LOG_LSN_MOST + 16, UINT64_MAX - 15};
    for (unsigned i = 0; i < 3; i++) {
        header.end = ends[i];
        header.start = header.end - size;
        header.crc = qr_crc32c(0, &header, offsetof(struct qr_log_header, crc));
        poke(&w, 0, 0, &header, sizeof(header));
        int result = qr_log_list_make(w.dir, store_id, &found);
        cr_assert_eq(result, i == 0 ? 0 : QUIRE_ERR_CORRUPT);
        if (result == 0) qr_log_list_done(&found);
    }
    world_done(&w);
}

/* Segments that one release sets free are all used again, and leave no file behind. */
Test(log_files, as_many_segments_are_kept_spare_as_were_in_use)
{
    static struct world w;
    world_make(&w);
    w.options.most_segment_bytes = SEGMENT;
    begin(&w);
    struct qr_thread *thread = qr_thread_self(w.epoch);
    for (unsigned round = 0; round < 8; round++) {
        uint64_t lsn = 0;
        for (uint64_t i = 0; i < 600; i++) lsn = write_record(&w, thread, i, 200, DONE);
        cr_assert_eq(qr_log_wait(&w.log, lsn, QR_LOG_DURABLE), 0);
        cr_assert_eq(qr_log_release(&w.log, lsn), 0);
    }
    struct qr_log_counts counts;
    qr_log_counts(&w.log, &counts);
    cr_assert_gt(counts.segments_recycled, 4 * counts.segments_made);
    uint64_t files = count_files(&w);
    cr_assert_eq(counts.size_bytes, files * SEGMENT);
    cr_assert_gt(files, 5);
    for (unsigned i = 0; i < 2; i++) cr_assert_eq(qr_log_release(&w.log, qr_log_tail(&w.log)), 0); /* little is in use now */
    cr_assert_lt(count_files(&w), files / 2 + 2);
    qr_log_close(&w.log);
    cr_assert_leq(count_files(&w), 2);
    world_done(&w);
}

/* FILES-5 */
Test(log_files, zeros_are_written_page_by_page_where_syncs_come_often)
{
    static struct world w;
    world_make(&w);
    w.options.first_segment_bytes = w.options.most_segment_bytes = 1 << 20;
    begin(&w);
    struct qr_thread *thread = qr_thread_self(w.epoch);
    cr_assert(qr_log_segment_last(w.log.files)->fine);
    for (uint64_t i = 0; i < 40000; i++) write_record(&w, thread, i, 200, DONE); /* no sync in some segments */
    cr_assert_not(qr_log_segment_last(w.log.files)->fine);
    for (uint64_t i = 0; i < 10000; i++) {
        uint64_t lsn = write_record(&w, thread, i, 200, DONE);
        if (i % 8 == 0) cr_assert_eq(qr_log_wait(&w.log, lsn, QR_LOG_DURABLE), 0);
    }
    cr_assert(qr_log_segment_last(w.log.files)->fine);
    world_done(&w);
}

Test(log_files, cut_or_flipped_anywhere_it_gives_a_prefix_or_says_corrupt)
{
    static struct world w;
    static uint8_t original[SEGMENT];
    struct qr_replay_result result;
    char path[128];
    world_make(&w);
    begin(&w);
    struct qr_thread *thread = qr_thread_self(w.epoch);
    for (uint64_t i = 0; i < 30; i++) write_record(&w, thread, i, 40, DONE);
    uint64_t used = qr_log_tail(&w.log);
    qr_log_close(&w.log);
    file_of(&w, 0, path);
    int fd = open(path, O_RDWR);
    cr_assert_eq(pread(fd, original, SEGMENT, 0), SEGMENT);
    for (unsigned strict = 0; strict < 2; strict++) {
        original[offsetof(struct qr_log_header, poisoned)] = (uint8_t)strict;
        cr_assert_eq(pwrite(fd, original, SEGMENT, 0), SEGMENT);
        for (uint64_t at = 0; at < used; at = at == 128 ? QR_LOG_HEADER_BYTES : at + 1) {
            uint8_t flipped = original[at] ^ (uint8_t)(1u << at % 8);
            cr_assert_eq(pwrite(fd, &flipped, 1, (off_t)at), 1);
            int answer = replay(&w, 0, &result);
            cr_assert(answer == 0 || answer == QUIRE_ERR_CORRUPT || answer == QUIRE_ERR_NEWER);
            if (answer == 0)
                for (uint64_t i = 0; i < seen.count; i++) {
                    bool in_order = i == 0 || seen.numbers[i] > seen.numbers[i - 1];
                    cr_assert(in_order && seen.numbers[i] < 30, "byte %llu", (unsigned long long)at);
                    if (strict) cr_assert_eq(seen.numbers[i], i);
                }
            cr_assert_eq(pwrite(fd, original, SEGMENT, 0), SEGMENT);
        }
    }
    close(fd);
    world_done(&w);
}

/* A directory that lists one file more, which is gone by the time that it is opened. */
static int (*list_names)(struct qr_dir *dir, qr_dir_visit *visit, void *context);

static int list_one_more(struct qr_dir *dir, qr_dir_visit *visit, void *context)
{
    int result = list_names(dir, visit, context);
    return result == 0 ? visit(context, "log-000000aa") : result;
}

Test(log_files, a_spare_segment_that_is_removed_while_the_log_is_listed_is_no_failure)
{
    static struct world w;
    struct qr_log_list found;
    world_make(&w);
    begin(&w);
    const struct qr_disk_ops *ops = w.disk->ops;
    struct qr_disk_ops changed = *ops;
    list_names = ops->dir_list;
    changed.dir_list = list_one_more;
    w.disk->ops = &changed;
    list(&w, &found);
    w.disk->ops = ops;
    cr_assert_eq(found.count, w.log.files->next - w.log.files->first);
    qr_log_list_done(&found);
    world_done(&w);
}

/* ---- A log that fails meanwhile --------------------------------------------------------------------------------- */

static struct {
    struct world *world;
    const struct qr_disk_ops *own;
    pthread_t second;
    int answer, second_result;
    bool waits; /* another one waits to make a segment */
} meanwhile;

static void *provide(void *context)
{
    (void)context;
    meanwhile.second_result = qr_log_provision(&meanwhile.world->log, false);
    return NULL;
}

static int map_while_it_fails(struct qr_file *file, uint64_t offset, uint64_t size, void **ret_memory)
{
    if (meanwhile.waits) {
        cr_assert_eq(pthread_create(&meanwhile.second, NULL, provide, NULL), 0);
        while (atomic_load(&meanwhile.world->log.files->provision_waits) < 2) usleep(1000); /* it has looked at the log's failure */
    }
    qr_log_fail(meanwhile.world->log.files, -EIO);
    return meanwhile.answer != 0 ? meanwhile.answer : meanwhile.own->file_map(file, offset, size, ret_memory);
}

/* A log whose first segment is full; what making the next one answers. */
static int make_while_it_fails(struct world *w, int answer, bool waits)
{
    world_make(w);
    begin(w);
    meanwhile.world = w;
    meanwhile.own = w->disk->ops;
    meanwhile.answer = answer;
    meanwhile.waits = waits;
    struct qr_disk_ops changed = *w->disk->ops;
    changed.file_map = map_while_it_fails;
    atomic_store(&w->log.tail, SEGMENT - 64);
    w->disk->ops = &changed;
    int result = qr_log_provision(&w->log, false);
    if (waits) pthread_join(meanwhile.second, NULL);
    w->disk->ops = meanwhile.own;
    return result;
}

/* FILES-3 */
Test(log_files, a_segment_that_is_made_while_the_log_fails_is_marked)
{
    struct world w;
    struct qr_log_list found;
    cr_assert_eq(make_while_it_fails(&w, 0, false), QUIRE_ERR_IO);
    list(&w, &found);
    cr_assert_eq(found.count, 2);
    for (uint32_t i = 0; i < found.count; i++) cr_assert_neq(found.found[i].header.poisoned, 0, "%u", i);
    qr_log_list_done(&found);
    world_done(&w);
}

/* Nor is what somebody else made meanwhile written to. */
Test(log_files, nothing_is_made_after_the_log_has_failed)
{
    for (int error = 0; error >= -ENOMEM; error -= ENOMEM) {
        struct world w;
        struct qr_log_list found;
        cr_assert_eq(make_while_it_fails(&w, error, true), error == 0 ? QUIRE_ERR_IO : QUIRE_ERR_NO_MEMORY);
        cr_assert_eq(meanwhile.second_result, QUIRE_ERR_IO);
        qr_log_keep_reserve(&w.log);
        cr_assert_eq(qr_log_regain(&w.log), QUIRE_ERR_IO);
        list(&w, &found);
        cr_assert_eq(found.count, error == 0 ? 2 : 1);
        qr_log_list_done(&found);
        world_done(&w);
    }
}
