/*
 * Goal: doc/file-format.md shows a segment of the log as it is written.
 * Method: a small segment with a frame of each kind, with fixed numbers, compared with the dump there.
 */
#include "document.h"

#include "base/crc32c.h"
#include "log/files.h"

enum { SALT = 0x5a17, START = 65536, SIZE = 8192 };

static _Alignas(16) uint8_t segment[SIZE];

static void write_header(void)
{
    struct qr_log_header h = {.magic = {'Q', 'U', 'I', 'R', 'E', 'L', 'O', 'G'},
                              .format = QR_LOG_FORMAT,
                              .salt = SALT,
                              .start = START,
                              .end = START + SIZE,
                              .incarnation = 3,
                              .device = 2049,
                              .mount_id = 29,
                              .inode = 4711};
    for (uint8_t i = 0; i < 16; i++) {
        h.store_id[i] = (uint8_t)(i * 0x11);
        h.boot_id[i] = (uint8_t)(0xb0 + i);
    }
    h.crc = qr_crc32c(0, &h, offsetof(struct qr_log_header, crc));
    memcpy(segment, &h, sizeof(h));
}

/* Returns where the next frame is. */
static uint32_t write_record(uint32_t at, const struct qr_frame *frame, enum qr_frame_state state)
{
    uint32_t size = (uint32_t)qr_frame_size(frame);
    qr_frame_write(segment + at, frame, size, START + at, SALT);
    qr_frame_decide(segment + at, state);
    return at + size;
}

Test(log_document, the_dump_in_the_document_is_what_is_written)
{
    struct qr_frame put = {.tree_id = 1, .kind = 0, .key_size = 3, .key = "ann", .value_size = 4, .value = "1815"};
    struct qr_frame deletion = {
        .tree_id = 1, .kind = 1, .key_size = 3, .key = "ann", .has_named = true, .named_version = START + 4096};
    struct qr_frame versioned = {.tree_id = 300, .kind = 0, .key_size = 1, .key = "k", .has_version = true, .version = 7};
    struct qr_frame_piece pieces[2] = {{"large key", 9}, {"and its value", 13}};
    struct qr_frame large = {.tree_id = 1, .kind = 0, .key_size = 9, .value_size = 13, .part_count = 1};
    uint32_t at = 4096;
    write_header();
    at = write_record(at, &put, QR_FRAME_DONE);
    at = write_record(at, &deletion, QR_FRAME_DONE);
    at = write_record(at, &versioned, QR_FRAME_VOID);
    large.last_part = START + at;
    qr_frame_write_part(segment + at, 0, pieces, START + at, SALT);
    at += (uint32_t)qr_frame_part_size(22);
    at = write_record(at, &large, QR_FRAME_TENTATIVE);
    qr_frame_fill(segment + at, SIZE - at, START + at, SALT);
    expect_in_document(segment, SIZE);
}
