/*
 * fuzz.c: what fuzz targets share.
 */
#include "fuzz/fuzz.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/alloc.h"
#include "db/db.h"
#include "lib/random.h"

_Noreturn void fuzz_fail(const char *file, int line, const char *condition)
{
    struct quire_error_detail detail;
    quire_error_detail(&detail);
    /* A target may have another stderr. */
    dprintf(STDERR_FILENO, "%s:%d: does not hold: %s\nthe last failure: %d, %s\n", file, line, condition, detail.result,
            detail.message);
    abort();
}

int64_t fuzz_begin(void)
{
    (void)qr_alloc_largest_size();
    return qr_alloc_live_count();
}

int64_t fuzz_begin_database(void)
{
    static bool warm;
    struct quire_options options;
    struct quire *db;
    quire_options_init(&options);
    options.background_threads = QUIRE_NO_THREADS;
    if (!warm)
        FUZZ_CHECK(qr_db_open(NULL, NULL, &options, &db) == 0 && quire_sync(db) == 0 && quire_close(db) == 0);
    warm = true;
    return fuzz_begin();
}

/* What bytes of a few KiB say is no size for an allocation. */
#define MOST_ALLOCATION_BYTES (64u << 20)

void fuzz_end(int64_t begun, struct simdisk *disk)
{
    FUZZ_CHECK(qr_alloc_largest_size() <= MOST_ALLOCATION_BYTES);
    if (disk != NULL) {
        FUZZ_CHECK(simdisk_open_count(disk) == 0);
        simdisk_free(disk);
    }
    FUZZ_CHECK(qr_alloc_live_count() == begun);
}

/* ---- Input ------------------------------------------------------------------------------------------------------ */

void fuzz_take(struct fuzz_input *input, void *to, size_t size)
{
    size_t here = size < input->left ? size : input->left;
    qr_copy(to, input->at, here);
    memset((uint8_t *)to + here, 0, size - here);
    input->at += here;
    input->left -= here;
}

uint64_t fuzz_take_number(struct fuzz_input *input, size_t size)
{
    uint8_t bytes[8] = {0};
    fuzz_take(input, bytes, size);
    return qr_load_u64(bytes);
}

/* ---- Files ------------------------------------------------------------------------------------------------------ */

struct qr_dir *fuzz_open_dir(struct simdisk *disk, const char *path)
{
    struct qr_disk *table = simdisk_disk(disk);
    struct qr_dir *dir;
    FUZZ_CHECK(table->ops->dir_open(table, path, QR_DIR_CREATE, &dir) == 0);
    return dir;
}

void fuzz_make_file(struct qr_dir *dir, const char *name, const void *data, size_t data_size, uint64_t size_bytes)
{
    struct qr_file *file;
    FUZZ_CHECK(dir->disk->ops->file_open(dir, name, QR_FILE_WRITE | QR_FILE_CREATE, &file) == 0);
    if (size_bytes != 0)
        FUZZ_CHECK(dir->disk->ops->file_resize(file, size_bytes) == 0);
    if (data_size != 0)
        FUZZ_CHECK(qr_file_write(file, data, data_size, 0) == 0);
    dir->disk->ops->file_close(file);
}

int fuzz_random(void *context, void *memory, size_t size)
{
    struct random_stream stream;
    (void)context;
    random_seed(&stream, size);
    random_fill(&stream, memory, size);
    return 0;
}

/* ---- Mutation --------------------------------------------------------------------------------------------------- */

static void mutate_once(uint8_t *data, size_t *size, size_t most, struct random_stream *random)
{
    static const uint64_t edges[] = {0, 1, 2, 7, 15, 16, 63, 64, 127, 128, 255, 4095, 4096, 65535, 65536, INT32_MAX,
                                     UINT32_MAX, UINT32_MAX - 15, INT64_MAX, UINT64_MAX};
    size_t at = random_below(random, *size);
    size_t length = 1 + random_below(random, random_below(random, 64) + 1);
    size_t width = (size_t)1 << random_below(random, 4);
    uint64_t number = edges[random_below(random, QR_ARRAY_COUNT(edges))];

    switch (random_below(random, 7)) {
    case 0: /* a bit */
        if (*size != 0)
            data[at] ^= (uint8_t)(1u << random_below(random, 8));
        break;
    case 1: /* a byte */
        if (*size != 0)
            data[at] = (uint8_t)random_next(random);
        break;
    case 2: /* a number becomes an edge, or a near one */
    case 3:
        at -= random_chance(random, 70) ? at % width : 0;
        if (*size < width || at > *size - width)
            break;
        if (random_chance(random, 50)) {
            number = 0;
            memcpy(&number, data + at, width);
            number += random_below(random, 33) - 16;
        }
        memcpy(data + at, &number, width);
        break;
    case 4: /* a piece goes */
        length = qr_min(length, *size - at);
        memmove(data + at, data + at + length, *size - at - length);
        *size -= length;
        break;
    case 5: /* a piece comes in between, of other bytes or random ones */
        if (*size + length > most)
            break;
        memmove(data + at + length, data + at, *size - at);
        *size += length;
        if (random_chance(random, 50))
            random_fill(random, data + at, length);
        break;
    default: /* a piece is copied elsewhere */
        length = qr_min(length * 4, *size - at);
        if (*size != 0)
            memmove(data + random_below(random, *size - length + 1), data + at, length);
    }
}

size_t fuzz_mutate(uint8_t *data, size_t size, size_t most, uint64_t seed)
{
    struct random_stream random;
    random_seed(&random, seed);
    for (uint64_t n = random_between(&random, 1, 5); n > 0; n--)
        mutate_once(data, &size, most, &random);
    return size;
}

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most) __attribute__((weak));

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed)
{
    size = LLVMFuzzerMutate != NULL && seed % 4 != 0 ? LLVMFuzzerMutate(data, size, most)
                                                     : fuzz_mutate(data, size, most, seed);
    if (seed / 4 % 16 != 0)
        fuzz_repair(data, size);
    return size;
}
