/*
 * Goal: what is stored is never taken for anything else. No value is read as a frame, a page or a header, whatever it looks like, and
 * wherever the process or the power ends; sizes are never cut to fewer bits.
 * Method: a simulated disk. Values made of headers of frames, each with the very position at which it comes to stand, and values
 * that are pieces of the store's own files; keys around the sizes at which fields and frames end. Images of the process's death
 * and of power loss at stop points and before operations of the disk are opened: the contents are those after one of the writes.
 */
#include "api_sim.h"

#include "base/stop.h"
#include "lib/random.h"
#include "log/files.h"
#include "log/frame.h"

#include <pthread.h>

TestSuite(imitation, .timeout = 600);

/* ---- What was written -------------------------------------------------------------------------------------------- */

enum { MOST_KEYS = 32, MOST_WRITES = 600, MOST_IMAGES = 64 };

struct write {
    uint32_t key;
    uint8_t *value; /* begins with the number of the write */
    size_t size;
};

static struct simdisk *disk;
static struct quire *db;
static struct quire_tree *tree;
static struct random_stream stream;
static struct write writes[MOST_WRITES];
static uint64_t issued, acknowledged, durable;
static struct {
    uint8_t *bytes;
    size_t size;
} keys[MOST_KEYS];
static uint32_t key_count;
static uint64_t images_opened;

static void add_key(size_t size)
{
    uint8_t *bytes = malloc(size);
    cr_assert(key_count < MOST_KEYS && size >= 8 && bytes != NULL);
    for (size_t i = 0; i < size; i++) bytes[i] = (uint8_t)(size + i * i);
    memcpy(bytes, &(uint64_t){key_count}, 8);
    keys[key_count].bytes = bytes;
    keys[key_count++].size = size;
}

static void begin(uint64_t seed, struct quire_options options)
{
    random_seed(&stream, seed);
    issued = acknowledged = durable = images_opened = key_count = 0;
    disk = simdisk_create();
    db = open_on(disk, options);
    tree = open_tree(db, "t");
    OK(quire_sync(db));
}

static void end(void)
{
    OK(quire_close(db));
    cr_assert_eq(simdisk_open_count(disk), 0);
    cr_assert_eq(simdisk_mistakes(disk), 0);
    simdisk_free(disk);
    for (uint64_t i = 0; i < issued; i++) free(writes[i].value);
    for (uint32_t i = 0; i < key_count; i++) free(keys[i].bytes);
}

/* The value becomes the model's. */
static uint64_t write_value(uint32_t key, uint8_t *value, size_t size, unsigned flags)
{
    uint64_t lsn = 0;
    cr_assert(issued < MOST_WRITES && size >= 8);
    memcpy(value, &issued, 8);
    writes[issued++] = (struct write){key, value, size};
    OK(quire_put(tree, keys[key].bytes, keys[key].size, value, size, flags, &lsn));
    acknowledged = issued;
    if ((flags & QUIRE_WRITE_DURABLE) != 0) durable = issued;
    return lsn;
}

/* ---- Images ------------------------------------------------------------------------------------------------------ */

struct image {
    struct simdisk *disk;
    uint64_t least, most; /* writes that it must have, and may have */
};
static struct image images[MOST_IMAGES];
static uint32_t image_count;
static bool looking; /* the engine of an image passes stop points, too */

static void take(const struct simdisk_crash *crash)
{
    if (looking || image_count == MOST_IMAGES) return;
    images[image_count++] = (struct image){.disk = simdisk_crash(disk, crash),
                                           .least = crash->mode == SIMDISK_DEATH ? acknowledged : durable,
                                           .most = issued};
}

static void take_all(void)
{
    take(&(struct simdisk_crash){.mode = SIMDISK_DEATH});
    take(&(struct simdisk_crash){.mode = SIMDISK_DROP});
    take(&(struct simdisk_crash){.mode = SIMDISK_KEEP});
    for (unsigned unit = SIMDISK_UNIT_SECTOR; unit <= SIMDISK_UNIT_WRITE; unit++)
        take(&(struct simdisk_crash){.mode = SIMDISK_RANDOM, .unit = unit, .seed = random_next(&stream), .stale = true});
}

/* The number of the last of the writes that show, plus one. */
static uint64_t look(struct quire_tree *there)
{
    uint64_t found[MOST_KEYS], last = 0, count = 0;
    for (uint32_t k = 0; k < key_count; k++) {
        void *value = NULL;
        size_t size = 0;
        int result = quire_get_copy(there, NULL, keys[k].bytes, keys[k].size, &value, &size);
        found[k] = UINT64_MAX;
        if (result == QUIRE_NOT_FOUND) continue;
        cr_assert(result == 0 && size >= 8, "key %u: %d, %zu bytes", k, result, size);
        memcpy(&found[k], value, 8);
        cr_assert(found[k] < issued && writes[found[k]].key == k && writes[found[k]].size == size &&
                      memcmp(writes[found[k]].value, value, size) == 0,
                  "key %u has a value that nobody wrote", k);
        quire_free(value);
        last = found[k] + 1 > last ? found[k] + 1 : last;
        count++;
    }
    for (uint32_t k = 0; k < key_count; k++) {
        uint64_t right = UINT64_MAX;
        for (uint64_t i = 0; i < last; i++)
            if (writes[i].key == k) right = i;
        cr_assert_eq(found[k], right, "key %u has write %" PRIu64 ", not %" PRIu64, k, found[k], right);
    }
    cr_assert_eq(count_all(there, NULL), count, "there are keys that nobody wrote");
    return last;
}

/* Opened twice: what the first opening found is there after it. */
static void open_image(struct image *image)
{
    uint64_t first = 0;
    for (unsigned round = 0; round < 2; round++) {
        struct quire *there = open_on(image->disk, sim_options(QUIRE_LEVEL_PROCESS));
        uint64_t last = look(open_tree(there, "t"));
        cr_assert(last >= image->least && last <= image->most, "%" PRIu64 " writes, not %" PRIu64 " to %" PRIu64, last,
                  image->least, image->most);
        if (round != 0) cr_assert_eq(last, first);
        first = last;
        cr_assert_leq(stats_of(there).trees, 2, "there are trees that nobody made");
        OK(quire_close(there));
    }
    simdisk_free(image->disk);
    images_opened++;
}

static void open_images(void)
{
    looking = true;
    for (uint32_t i = 0; i < image_count; i++) open_image(&images[i]);
    looking = false;
    image_count = 0;
}

/* ---- Headers of frames at their own places ------------------------------------------------------------------------ */

/* How many bytes of a frame stand before the value. */
static uint64_t before_value(uint32_t key, size_t value_size)
{
    const struct qr_frame frame = {.tree_id = tree->tree.id,
                                   .kind = QR_RECORD_PUT,
                                   .key_size = (uint32_t)keys[key].size,
                                   .value_size = (uint32_t)value_size};
    return QR_FRAME_HEADER + qr_frame_prefix(&frame) + keys[key].size;
}

static uint64_t frame_size(uint32_t key, size_t value_size)
{
    return qr_round_up(before_value(key, value_size) + value_size, QR_FRAME_UNIT);
}

/* Wherever a frame could begin in the value of the frame at `lsn` stands the header of one that belongs there; only the salt, which is
 * not to be known, is not the segment's. */
static uint8_t *imitate(uint32_t key, size_t size, uint64_t lsn)
{
    static const uint8_t states[] = {QR_FRAME_RESERVED, QR_FRAME_TENTATIVE, QR_FRAME_DONE, QR_FRAME_VOID};
    uint8_t *value = calloc(1, size);
    uint64_t at = lsn + before_value(key, size);
    cr_assert_not_null(value);
    for (uint64_t place = qr_round_up(at + 8, QR_FRAME_UNIT); place + 64 <= at + size;) {
        struct qr_frame frame = {.tree_id = tree->tree.id, .kind = QR_RECORD_PUT, .key = "phantom", .key_size = 7};
        uint32_t bytes = (uint32_t)qr_frame_size(&frame);
        uint8_t *to = value + (place - at);
        uint8_t aligned[64] __attribute__((aligned(16)));
        qr_frame_write(aligned, &frame, bytes, place, random_chance(&stream, 50) ? 0 : (uint32_t)random_next(&stream));
        aligned[3] = states[random_below(&stream, 4)];
        memcpy(to, aligned, bytes);
        place += random_chance(&stream, 50) ? bytes : QR_FRAME_UNIT;
    }
    return value;
}

/* Wherever a frame could begin stand the first ones of the log, which verify, but not here. */
static uint8_t *old_frames(uint32_t key, size_t size, uint64_t lsn)
{
    uint64_t there = 0, first = 0;
    struct sim_list list = list_files(disk);
    uint8_t *value = calloc(1, size);
    cr_assert_not_null(value);
    for (uint32_t i = 0; i < list.count && there == 0; i++) {
        if (strncmp(list.names[i], "log-", 4) != 0) continue;
        const uint8_t *content = simdisk_content(disk, STORE, list.names[i], &there);
        uint64_t at = lsn + before_value(key, size);
        first = qr_round_up(at, QR_FRAME_UNIT) - at;
        memcpy(value + first, content + QR_LOG_HEADER_BYTES, qr_min(size - first, there - QR_LOG_HEADER_BYTES));
    }
    return value;
}

static uint64_t exact; /* imitations that came to stand where they say */

static void write_imitation(uint32_t key, unsigned flags)
{
    size_t size = random_between(&stream, 100, 5000);
    uint8_t *value = malloc(8);
    uint64_t lsn = write_value(key, value, 8, 0);
    lsn += frame_size(key, 8);
    if (write_value(key, imitate(key, size, lsn), size, flags) == lsn) exact++;
}

static void at_stop(const char *name, void *arg)
{
    (void)arg;
    if (!looking && strncmp(name, "frame.", 6) == 0) take_all();
}

/* M11, F08: in a frame that was not finished, and in one that was torn, too */
Test(imitation, a_value_that_looks_like_frames_is_a_value)
{
    exact = 0;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        begin(seed, sim_options(QUIRE_LEVEL_PROCESS));
        for (size_t i = 0; i < 8; i++) add_key(8 + i * 3);
        qr_stop_set_hook(at_stop, NULL);
        for (unsigned i = 0; i < 12; i++) {
            write_imitation((uint32_t)random_below(&stream, key_count), random_chance(&stream, 30) ? QUIRE_WRITE_DURABLE : 0);
            take_all();
            open_images();
        }
        qr_stop_set_hook(NULL, NULL);
        cr_assert_gt(images_opened, 12 * 6);
        end();
    }
    cr_assert_gt(exact, 25, "only %" PRIu64 " of 36 imitations came to stand where they should", exact);
}

/* A thread that stands where its frame is written, but has no position yet, while others go on. */
static pthread_barrier_t stands, goes_on;
static pthread_t who_stands;
static bool is_to_stand;

static void stand(const char *name, void *arg)
{
    (void)arg;
    if (!is_to_stand || !pthread_equal(pthread_self(), who_stands) || strcmp(name, "frame.unnamed") != 0) return;
    is_to_stand = false;
    pthread_barrier_wait(&stands);
    pthread_barrier_wait(&goes_on);
}

static void *write_and_stand(void *arg)
{
    struct write *w = arg;
    who_stands = pthread_self();
    is_to_stand = true;
    OK(quire_put(tree, keys[w->key].bytes, keys[w->key].size, w->value, w->size, 0, NULL));
    return NULL;
}

/* M11, F07: a hole with acknowledged writes behind it, which the death of the process leaves, is passed over to these writes, and not to
 * what the value in it looks like */
Test(imitation, a_hole_is_passed_over_to_what_was_written)
{
    uint64_t stood = 0;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        pthread_t thread;
        begin(seed, sim_options(QUIRE_LEVEL_PROCESS));
        for (size_t i = 0; i < 8; i++) add_key(8 + i * 3);
        for (uint32_t i = 0; i < 4; i++) write_value(i, calloc(1, 3000), 3000, 0);
        uint64_t tail = stats_of(db).log_tail_lsn;
        size_t size = random_between(&stream, 100, 5000);
        /* Of a key that nothing else is written to: it shows only if the hole is taken for a frame. */
        struct write lost = {.key = 7, .value = seed % 2 == 0 ? imitate(7, size, tail) : old_frames(7, size, tail), .size = size};
        pthread_barrier_init(&stands, NULL, 2);
        pthread_barrier_init(&goes_on, NULL, 2);
        qr_stop_set_hook(stand, NULL);
        cr_assert_eq(pthread_create(&thread, NULL, write_and_stand, &lost), 0);
        pthread_barrier_wait(&stands);
        stood += stats_of(db).log_tail_lsn == tail + frame_size(7, size);
        for (uint32_t i = 0; i < 6; i++) write_imitation((uint32_t)random_below(&stream, 7), 0);
        take(&(struct simdisk_crash){.mode = SIMDISK_DEATH});
        pthread_barrier_wait(&goes_on);
        pthread_join(thread, NULL);
        qr_stop_set_hook(NULL, NULL);
        open_images();
        pthread_barrier_destroy(&stands);
        pthread_barrier_destroy(&goes_on);
        end();
        free(lost.value);
    }
    cr_assert_gt(stood, 15, "only %" PRIu64 " of 20 imitations came to stand where they should", stood);
}

/* ---- Pieces of the store's own files ------------------------------------------------------------------------------ */

static uint8_t *piece(size_t size)
{
    struct sim_list list = list_files(disk);
    uint8_t *value = calloc(1, size);
    cr_assert_not_null(value);
    for (size_t at = 0; at < size;) {
        uint64_t there = 0;
        const uint8_t *content = simdisk_content(disk, STORE, list.names[random_below(&stream, list.count)], &there);
        uint64_t from = there > 64 ? random_below(&stream, there / 16) * 16 : 0;
        uint64_t bytes = qr_min(qr_min(random_between(&stream, 64, 16384), size - at), there - from);
        memcpy(value + at, content + from, bytes);
        at += bytes + 1;
    }
    return value;
}

static void before_operation(void *context, const struct simdisk_event *event)
{
    (void)context;
    if (looking || event->kind == SIMDISK_READ || !random_chance(&stream, 10)) return;
    take(&(struct simdisk_crash){.mode = SIMDISK_RANDOM, .unit = SIMDISK_UNIT_SECTOR, .seed = random_next(&stream), .stale = true});
    take(&(struct simdisk_crash){.mode = SIMDISK_RANDOM, .unit = SIMDISK_UNIT_WORD, .seed = random_next(&stream), .stale = true});
}

/* Segments of the log are used again, and page segments made where others were. */
static void write_pieces(uint64_t seed, uint64_t blob_threshold)
{
    struct quire_options options = sim_options(QUIRE_LEVEL_PROCESS);
    options.blob_threshold_bytes = blob_threshold;
    begin(seed, options);
    for (size_t i = 0; i < 12; i++) add_key(8 + i * 3);
    simdisk_set_hook(disk, before_operation, NULL);
    for (unsigned i = 0; i < 150; i++) {
        size_t size = random_chance(&stream, 20) ? random_between(&stream, 4000, 40000) : random_between(&stream, 16, 4000);
        write_value((uint32_t)random_below(&stream, key_count), piece(size), size, random_chance(&stream, 10) ? QUIRE_WRITE_DURABLE : 0);
        if (random_chance(&stream, 10)) {
            OK(quire_checkpoint(db));
            durable = issued;
        }
        if (random_chance(&stream, 5)) take_all();
        open_images();
    }
    simdisk_set_hook(disk, NULL, NULL);
    cr_assert_eq(look(tree), issued);
    cr_assert_gt(stats_of(db).log_segments_recycled, 0);
    cr_assert_gt(images_opened, 100);
    end();
}

/* M11, F08, F19 */
Test(imitation, a_value_that_is_a_piece_of_the_store_is_a_value)
{
    for (uint64_t seed = 1; seed <= 4; seed++) write_pieces(seed, seed % 2 == 0 ? 0 : 65536);
}

/* ---- Sizes -------------------------------------------------------------------------------------------------------- */

/* M11: keys at which fields of two bytes, pages and frames end, with values of such sizes */
Test(imitation, no_size_is_cut)
{
    static const size_t around[] = {4090,  4091,  4092,  4093,  4094,  4095,  4096,  4097,   4098,  4099,
                                    4100,  8191,  8192,  16383, 16384, 32767, 32768, 65519,  65520, 65535,
                                    65536, 65537, 65552, 131071, 131072};
    enum { SIZES = sizeof(around) / sizeof(around[0]) };
    for (unsigned fill = 0; fill < 2; fill++) {
        struct quire_options options = sim_options(QUIRE_LEVEL_PROCESS);
        if (fill == 1) options.blob_threshold_bytes = 262144; /* no value is a large one */
        options.log_segment_bytes = 1 << 20;
        begin(fill, options);
        for (size_t i = 0; i < SIZES; i++) add_key(around[i]);
        for (unsigned i = 0; i < 3 * SIZES; i++) {
            size_t size = around[random_below(&stream, SIZES)];
            write_value(i % SIZES, piece(size), size, i % 7 == 0 ? QUIRE_WRITE_DURABLE : 0);
            if (i % 20 == 19) {
                OK(quire_checkpoint(db));
                durable = issued;
            }
            if (i % 8 == 0) take_all();
            open_images();
        }
        cr_assert_eq(look(tree), issued);
        cr_assert_gt(images_opened, 50);
        end();
    }
}
