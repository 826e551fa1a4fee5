/*
 * Goal: whatever the files of a log hold, replay answers, within the memory that it was given; what it visited is what a second
 * replay visits, and the log is repaired then.
 * Method: the input is what replay is told, and one or two segments: header, frames. They are put on a simulated disk, found,
 * walked over, and replayed into batches, which are sorted and read; then again.
 */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/crc32c.h"
#include "base/hash.h"
#include "fuzz/fuzz.h"
#include "log/batch.h"
#include "page/page.h"

/*
 * An input: 16 bytes, then segments. In the first: flags (1), 64ths of the rest that are the first segment (1), end of the first
 * incarnation behind its start in units of 16 (2), durable end likewise (2), start of the replay likewise (2), zeros. A segment: its
 * header as in the file, then frames.
 */
enum { PRELUDE = 16, HEADER = sizeof(struct qr_log_header), SEGMENTS = 2 };
enum flag { READ_ONLY = 1, SAME_BOOT = 2, SINGLY = 4, SUSPECT_ENDS = 8, ENTRIES_FEW = 16 };
#define FILE_MOST (128u << 10)

static const uint8_t store_id[16] = "fuzz the log...";
static _Alignas(64) uint8_t window[QR_REPLAY_WINDOW_LEAST];

static size_t first_size(const uint8_t *data, size_t size)
{
    return size <= PRELUDE ? 0 : (size - PRELUDE) * qr_min(data[1], 64) / 64;
}

/* ---- What replay shows ------------------------------------------------------------------------------------------ */

/* Of all records: what a second replay has to say too. */
struct sum {
    uint64_t records, hash;
};

struct visitor {
    struct sum sum;
    struct qr_batch batch;
    bool singly, suspect_ends, first_time;
    uint64_t last_lsn;
};

static uint64_t hash_frame(const struct qr_frame *frame, uint64_t lsn)
{
    uint64_t hash = qr_hash(frame->key, frame->key_size) * 31 + qr_hash(frame->value, frame->value_size);
    return (hash * 31 + lsn) * 31 + frame->kind + frame->tree_id + frame->version + frame->named_version;
}

/* A tentative record is void if its LSN says so. */
static bool is_void(const struct qr_replay_record *record)
{
    return record->tentative && record->lsn / QR_FRAME_UNIT % 3 == 0;
}

static int visit(void *context, const struct qr_replay_record *record)
{
    struct visitor *v = context;
    FUZZ_CHECK(record->lsn > v->last_lsn);
    FUZZ_CHECK(v->first_time || !record->tentative);
    FUZZ_CHECK((uintptr_t)record->at % QR_FRAME_UNIT == 0);
    FUZZ_CHECK(record->at >= window && record->at + record->size <= window + sizeof(window));
    v->last_lsn = record->lsn;
    if (record->suspect && v->suspect_ends)
        return QR_REPLAY_END;
    if (is_void(record))
        return QR_REPLAY_VOID;
    v->sum.records++;
    v->sum.hash += hash_frame(&record->frame, record->lsn);
    if (v->singly)
        return 0;
    if (qr_batch_is_full(&v->batch))
        return QUIRE_ERR_STALLED;
    return qr_batch_add(&v->batch, record);
}

static int compare_frames(const struct qr_frame *a, const struct qr_frame *b)
{
    if (a->tree_id != b->tree_id)
        return a->tree_id < b->tree_id ? -1 : 1;
    return qr_compare(a->key, a->key_size, b->key, b->key_size);
}

/* BATCH-1: trees together, by key, by LSN; nothing gets lost. */
static int release(void *context)
{
    struct visitor *v = context;
    struct qr_frame before = {0};
    uint64_t before_lsn = 0;
    uint32_t trees = 0;
    qr_batch_sort(&v->batch);
    for (uint32_t i = 0; i < v->batch.count; i++) {
        struct qr_frame frame;
        uint64_t lsn;
        qr_batch_get(&v->batch, i, &frame, &lsn);
        if (i != 0 && frame.tree_id == before.tree_id) {
            int order = compare_frames(&before, &frame);
            FUZZ_CHECK(order < 0 || (order == 0 && before_lsn < lsn));
        } else {
            trees++;
        }
        before = frame;
        before_lsn = lsn;
    }
    FUZZ_CHECK(trees <= v->batch.count);
    qr_batch_clear(&v->batch);
    return 0;
}

static int look(void *context, const struct qr_log_sight *sight)
{
    uint64_t *end = context;
    struct qr_frame frame;
    FUZZ_CHECK(sight->size != 0);
    FUZZ_CHECK(sight->lsn + sight->size <= sight->found->header.end);
    if (sight->verdict == QR_FRAME_GOOD && qr_frame_kind_at(sight->at) == QR_FRAME_RECORD &&
        qr_frame_parse(sight->at, (uint32_t)sight->size, &frame) && frame.last_part == 0)
        *end += hash_frame(&frame, sight->lsn);
    return 0;
}

/* ---- Files ------------------------------------------------------------------------------------------------------ */

/* Says that the segment was written in this boot and file. */
static void set_place(struct qr_log_header *header, struct qr_dir *dir, const char *name)
{
    struct qr_dir_facts here;
    struct qr_file_facts facts;
    struct qr_file *file;
    FUZZ_CHECK(dir->disk->ops->dir_facts(dir, &here) == 0);
    FUZZ_CHECK(dir->disk->ops->file_open(dir, name, QR_FILE_WRITE, &file) == 0);
    FUZZ_CHECK(dir->disk->ops->file_facts(file, &facts) == 0);
    memcpy(header->boot_id, here.boot_id, sizeof(header->boot_id));
    header->device = here.device;
    header->mount_id = here.mount_id;
    header->inode = facts.inode;
    header->crc = qr_crc32c(0, header, offsetof(struct qr_log_header, crc));
    FUZZ_CHECK(qr_file_write(file, header, sizeof(*header), 0) == 0);
    dir->disk->ops->file_close(file);
}

/* ret_header: as the input has it. False: there is none. */
static bool make_segment(struct qr_dir *dir, uint32_t number, struct fuzz_input input, bool same_boot,
                         struct qr_log_header *ret_header)
{
    static uint8_t file[FILE_MOST];
    char name[QR_LOG_NAME_BYTES];
    if (input.left < HEADER)
        return false;
    fuzz_take(&input, ret_header, HEADER);
    uint64_t size = qr_min(ret_header->end - ret_header->start, FILE_MOST);
    if (size < QR_LOG_HEADER_BYTES)
        size = QR_LOG_HEADER_BYTES;
    memset(file, 0, size);
    memcpy(file, ret_header, HEADER);
    fuzz_take(&input, file + QR_LOG_HEADER_BYTES, size - QR_LOG_HEADER_BYTES);
    qr_log_file_name(number, name);
    fuzz_make_file(dir, name, file, size, size);
    if (same_boot)
        set_place(ret_header, dir, name);
    return true;
}

/* ---- The target ------------------------------------------------------------------------------------------------- */

struct told {
    unsigned flags;
    struct qr_incarnation incarnations[SEGMENTS];
    uint32_t incarnation_count;
    uint64_t from, durable_end;
};

/* 0 or a failure; *ret_result is set then. */
static int replay(struct qr_dir *dir, const struct told *told, bool first_time, struct sum *ret_sum,
                  struct qr_replay_result *ret_result)
{
    struct qr_log_list list;
    struct visitor visitor = {.singly = (told->flags & SINGLY) != 0, .suspect_ends = (told->flags & SUSPECT_ENDS) != 0,
                              .first_time = first_time};
    int result = qr_log_list_make(dir, store_id, &list);
    if (result != 0)
        return result;
    struct qr_replay replay = {
        .dir = dir, .list = &list, .from = told->from, .incarnations = told->incarnations,
        .incarnation_count = told->incarnation_count, .durable_end = told->durable_end,
        .read_only = (told->flags & READ_ONLY) != 0, .window = window, .window_bytes = sizeof(window), .visit = visit,
        .release = visitor.singly ? NULL : release, .context = &visitor,
    };
    uint64_t walked = 0;
    FUZZ_CHECK(qr_log_walk(dir, &list, told->incarnations, told->incarnation_count, told->from, look, &walked) == 0);
    FUZZ_CHECK(qr_batch_init(&visitor.batch, window, (told->flags & ENTRIES_FEW) != 0 ? 8 : 8192) == 0);
    result = qr_log_replay(&replay, ret_result);
    qr_batch_done(&visitor.batch);
    qr_log_list_done(&list);
    *ret_sum = visitor.sum;
    return result;
}

/* REPLAY-4: the log says the same, and has nothing undecided and no hole left up to its end. */
static void replay_again(struct qr_dir *dir, const struct told *told, const struct sum *sum, const struct qr_replay_result *found)
{
    struct told again = *told;
    struct sum second;
    struct qr_replay_result result;
    again.durable_end = 0;
    FUZZ_CHECK(replay(dir, &again, (told->flags & READ_ONLY) != 0, &second, &result) == 0);
    FUZZ_CHECK(second.records == sum->records);
    FUZZ_CHECK(second.hash == sum->hash);
    FUZZ_CHECK(result.end == found->end);
    FUZZ_CHECK((told->flags & READ_ONLY) != 0 || (result.holes == 0 && result.tentative == 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int64_t begun = fuzz_begin();
    struct fuzz_input input = {data, size};
    struct simdisk *disk = simdisk_create();
    struct qr_dir *dir = fuzz_open_dir(disk, "db");
    struct qr_log_header headers[SEGMENTS] = {{{0}}};
    struct told told = {.flags = (unsigned)fuzz_take_number(&input, 1)};
    size_t first = first_size(data, size);
    (void)fuzz_take_number(&input, 1);
    uint64_t end = fuzz_take_number(&input, 2), durable = fuzz_take_number(&input, 2), from = fuzz_take_number(&input, 2);
    (void)fuzz_take_number(&input, PRELUDE - 8);

    bool same_boot = (told.flags & SAME_BOOT) != 0;
    bool has_first = make_segment(dir, 1, (struct fuzz_input){input.at, first}, same_boot, &headers[0]);
    bool has_second = make_segment(dir, 2, (struct fuzz_input){input.at + first, input.left - first}, same_boot, &headers[1]);
    if (has_first || has_second) {
        const struct qr_log_header *begin = has_first ? &headers[0] : &headers[1];
        struct sum sum;
        struct qr_replay_result found;
        told.from = from == 0 ? 0 : begin->start + from * QR_FRAME_UNIT;
        told.durable_end = durable == 0 ? 0 : begin->start + durable * QR_FRAME_UNIT;
        told.incarnations[told.incarnation_count++] = (struct qr_incarnation){begin->incarnation, begin->start, 0};
        if (has_first && has_second && headers[1].incarnation != begin->incarnation) {
            told.incarnations[0].end = begin->start + end * QR_FRAME_UNIT;
            told.incarnations[told.incarnation_count++] =
                (struct qr_incarnation){headers[1].incarnation, headers[1].start, 0};
        }
        if (replay(dir, &told, true, &sum, &found) == 0 && (told.flags & SUSPECT_ENDS) == 0)
            replay_again(dir, &told, &sum, &found);
    }
    dir->disk->ops->dir_close(dir);
    fuzz_end(begun, disk);
    return 0;
}

/* ---- Repair ----------------------------------------------------------------------------------------------------- */

/* The frames of a segment become those of their positions, as far as their sizes lead. */
static void repair_segment(uint8_t *data, size_t size)
{
    struct qr_log_header header;
    if (size < HEADER)
        return;
    memcpy(&header, data, HEADER);
    memcpy(header.magic, "QUIRELOG", 8);
    memcpy(header.store_id, store_id, sizeof(store_id));
    header.format = QR_LOG_FORMAT;
    header.start &= ~(uint64_t)(QR_FRAME_UNIT - 1);
    header.end = header.start + qr_max(QR_LOG_HEADER_BYTES, (header.end - header.start) & (FILE_MOST - QR_FRAME_UNIT));
    header.crc = qr_crc32c(0, &header, offsetof(struct qr_log_header, crc));
    memcpy(data, &header, HEADER);
    uint8_t *frames = data + HEADER;
    size_t left = (size - HEADER) & ~(size_t)(QR_FRAME_UNIT - 1);
    for (size_t at = 0; at + QR_FRAME_HEADER <= left;) {
        uint64_t lsn = header.start + QR_LOG_HEADER_BYTES + at;
        size_t units = qr_load_u16(frames + at);
        if (units == 0 || units * QR_FRAME_UNIT > left - at) { /* a hole, maybe */
            at += QR_FRAME_UNIT;
            continue;
        }
        size_t covered = qr_frame_kind_at(frames + at) == QR_FRAME_FILLER ? QR_FRAME_HEADER : units * QR_FRAME_UNIT;
        uint64_t first[2] = {units | (uint64_t)frames[at + 2] << 16, lsn};
        uint32_t crc = qr_crc32c(qr_crc32c(header.salt, first, sizeof(first)), frames + at + QR_FRAME_HEADER,
                                 covered - QR_FRAME_HEADER);
        qr_store_u32(frames + at + 4, crc);
        qr_store_u64(frames + at + 8, lsn);
        at += units * QR_FRAME_UNIT;
    }
}

void fuzz_repair(uint8_t *data, size_t size)
{
    size_t first = first_size(data, size);
    if (size <= PRELUDE)
        return;
    repair_segment(data + PRELUDE, first);
    repair_segment(data + PRELUDE + first, size - PRELUDE - first);
}

/* ---- Seeds ------------------------------------------------------------------------------------------------------ */

struct seed {
    uint8_t bytes[8192];
    size_t size, segment; /* where the segment in hand begins */
    struct qr_log_header header;
};

static void begin_seed(struct seed *seed, unsigned flags, uint16_t end, uint16_t durable, uint16_t from)
{
    memset(seed->bytes, 0, sizeof(seed->bytes));
    seed->bytes[0] = (uint8_t)flags;
    seed->bytes[1] = 64;
    qr_store_u16(seed->bytes + 2, end);
    qr_store_u16(seed->bytes + 4, durable);
    qr_store_u16(seed->bytes + 6, from);
    seed->size = PRELUDE;
}

static void begin_segment(struct seed *seed, uint64_t start, uint64_t incarnation)
{
    seed->header = (struct qr_log_header){.format = QR_LOG_FORMAT, .salt = 77, .start = start, .end = start + 16384,
                                          .incarnation = incarnation};
    memcpy(seed->header.magic, "QUIRELOG", 8);
    memcpy(seed->header.store_id, store_id, sizeof(store_id));
    seed->header.crc = qr_crc32c(0, &seed->header, offsetof(struct qr_log_header, crc));
    seed->segment = seed->size;
    memcpy(seed->bytes + seed->size, &seed->header, HEADER);
    seed->size += HEADER;
}

static uint64_t here(const struct seed *seed)
{
    return seed->header.start + QR_LOG_HEADER_BYTES + (seed->size - seed->segment - HEADER);
}

static uint64_t add_frame(struct seed *seed, struct qr_frame frame, enum qr_frame_state state)
{
    _Alignas(16) uint8_t bytes[1024];
    uint32_t size = (uint32_t)qr_frame_size(&frame);
    uint64_t lsn = here(seed);
    qr_frame_write(bytes, &frame, size, lsn, seed->header.salt);
    qr_frame_decide(bytes, state);
    memcpy(seed->bytes + seed->size, bytes, size);
    seed->size += size;
    return lsn;
}

static uint64_t add_part(struct seed *seed, uint64_t before, const char *text)
{
    _Alignas(16) uint8_t bytes[1024];
    struct qr_frame_piece pieces[2] = {{text, (uint32_t)strlen(text)}, {NULL, 0}};
    uint64_t lsn = here(seed);
    qr_frame_write_part(bytes, before, pieces, lsn, seed->header.salt);
    memcpy(seed->bytes + seed->size, bytes, qr_frame_part_size(pieces[0].size));
    seed->size += qr_frame_part_size(pieces[0].size);
    return lsn;
}

static void add_records(struct seed *seed, uint32_t count, enum qr_frame_state state)
{
    for (uint32_t i = 0; i < count; i++) {
        char key[16];
        struct qr_frame frame = {.tree_id = i % 3, .kind = i % 4 == 3 ? QR_RECORD_DELETE : QR_RECORD_PUT, .key = key,
                                 .has_version = i % 5 == 1, .version = i, .has_named = i % 5 == 2, .value = "value"};
        frame.key_size = (uint32_t)snprintf(key, sizeof(key), "key-%u", i * 7 % 10);
        frame.value_size = frame.kind == QR_RECORD_PUT ? i % 6 : 0;
        add_frame(seed, frame, state);
    }
}

static void add_large(struct seed *seed)
{
    uint64_t first = add_part(seed, 0, "a large key, and a ");
    uint64_t last = add_part(seed, first, "large value of it");
    add_frame(seed, (struct qr_frame){.tree_id = 1, .key_size = 11, .value_size = 25, .last_part = last, .part_count = 2},
              QR_FRAME_DONE);
}

static void add_filler(struct seed *seed, uint32_t size)
{
    _Alignas(16) uint8_t bytes[QR_FRAME_HEADER];
    qr_frame_fill_header(bytes, size, here(seed), seed->header.salt);
    memcpy(seed->bytes + seed->size, bytes, sizeof(bytes));
    seed->size += size;
}

/* The second segment begins where it is a 64th of the rest. */
static void end_first(struct seed *seed, size_t all)
{
    size_t rest = all - PRELUDE;
    for (unsigned part = 1; part <= 64; part++) {
        size_t first = rest * part / 64;
        if (first >= seed->size - PRELUDE && first % 16 == 0) {
            seed->bytes[1] = (uint8_t)part;
            seed->size = PRELUDE + first;
            return;
        }
    }
}

static void two_segments(struct seed *seed, uint64_t second_incarnation)
{
    const size_t all = PRELUDE + 2048;
    begin_segment(seed, 1 << 20, 1);
    add_records(seed, 12, QR_FRAME_DONE);
    add_large(seed);
    end_first(seed, all);
    begin_segment(seed, (1 << 20) + 16384, second_incarnation);
    add_records(seed, 6, QR_FRAME_DONE);
    add_records(seed, 2, QR_FRAME_TENTATIVE);
    seed->size = all;
}

void fuzz_seeds(fuzz_sink *sink, void *context)
{
    static struct seed seed;
    begin_seed(&seed, 0, 0, 0, 0);
    begin_segment(&seed, 16, 1);
    add_records(&seed, 9, QR_FRAME_DONE);
    sink(context, "records", seed.bytes, seed.size);

    begin_seed(&seed, SAME_BOOT, 0, 0, 0);
    begin_segment(&seed, 1 << 20, 3);
    add_records(&seed, 5, QR_FRAME_TENTATIVE);
    seed.size += 48; /* a hole */
    add_records(&seed, 5, QR_FRAME_VOID);
    add_filler(&seed, 64);
    add_records(&seed, 5, QR_FRAME_DONE);
    sink(context, "same_boot", seed.bytes, seed.size);

    begin_seed(&seed, SAME_BOOT | SINGLY, 0, 260, 0);
    begin_segment(&seed, 1 << 20, 3);
    add_large(&seed);
    add_large(&seed);
    add_records(&seed, 3, QR_FRAME_DONE);
    sink(context, "parts", seed.bytes, seed.size);

    begin_seed(&seed, READ_ONLY | SAME_BOOT, 0, 0, 260);
    two_segments(&seed, 1);
    sink(context, "two_segments", seed.bytes, seed.size);

    begin_seed(&seed, SUSPECT_ENDS, 1024, 0, 0);
    two_segments(&seed, 2);
    sink(context, "two_incarnations", seed.bytes, seed.size);
}
