/*
 * names.c: which names and files of a directory are a store's.
 *
 * Layer 6.
 */
#include "db/names.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/status.h"
#include "db/files.h"
#include "store/format.h"
#include "store/manifest_format.h"

#define LOCK_TEXT_BYTES 32u

/* ---- Names ------------------------------------------------------------------------------------------------------ */

static int add_name(void *context, const char *name)
{
    struct qr_names *names = context;
    size_t size = strlen(name) + 1;
    if (names->size + size > names->capacity) {
        size_t capacity = names->capacity * 2 + size + 256;
        char *grown = qr_realloc(names->text, capacity);
        if (grown == NULL) return -ENOMEM;
        names->text = grown;
        names->capacity = capacity;
    }
    memcpy(names->text + names->size, name, size);
    names->size += size;
    return 0;
}

int qr_names_list(struct qr_dir *dir, struct qr_names *ret_names)
{
    *ret_names = (struct qr_names){0};
    int error = dir->disk->ops->dir_list(dir, add_name, ret_names);
    if (error == 0) return 0;
    qr_free(ret_names->text);
    *ret_names = (struct qr_names){0};
    return error;
}

bool qr_name_is_of_segment(const char *name)
{
    uint32_t number;
    return qr_log_name_is_ours(name) || qr_segment_number_of(name, &number);
}

bool qr_name_is_of_store(const char *name)
{
    return strcmp(name, QR_MANIFEST_NAME) == 0 || strcmp(name, QR_MANIFEST_NEW_NAME) == 0 ||
           strcmp(name, QR_LOCK_NAME) == 0 || qr_name_is_of_segment(name);
}

/* ---- Files ------------------------------------------------------------------------------------------------------ */

int qr_file_read_beginning(struct qr_dir *dir, const char *name, void *memory, size_t size, size_t *ret_got,
                           uint64_t *ret_size_bytes)
{
    const struct qr_disk_ops *ops = dir->disk->ops;
    struct qr_file_facts facts;
    struct qr_file *file;
    int error = ops->file_open(dir, name, 0, &file);
    if (error == -ENOENT) return QUIRE_NOT_FOUND;
    if (error == -ELOOP || error == -EINVAL || error == -EISDIR)
        return qr_fail(QUIRE_ERR_FOREIGN, -error, "%s is not a plain file", name);
    if (error != 0) return qr_fail_io(-error, "%s: opening", name);
    int64_t got = qr_file_read(file, memory, size, 0);
    error = ops->file_facts(file, &facts);
    ops->file_close(file);
    if (got < 0 || error != 0) return qr_fail_io(got < 0 ? (int)-got : -error, "%s: reading", name);
    *ret_got = (size_t)got;
    *ret_size_bytes = facts.size_bytes;
    return 0;
}

/* As below, for a segment of pages: its header, or the zeros before it. */
static int is_page_segment(struct qr_dir *dir, const char *name, const uint8_t *id)
{
    static const uint8_t zeros[QR_SEGMENT_HEADER_USED];
    uint8_t bytes[QR_SEGMENT_HEADER_USED] = {0};
    struct qr_segment_header header;
    size_t got;
    uint64_t size;
    int result = qr_file_read_beginning(dir, name, bytes, sizeof(bytes), &got, &size);
    if (result != 0) return result == QUIRE_NOT_FOUND ? 1 : result;
    if (memcmp(bytes, zeros, sizeof(bytes)) == 0) return 1;
    return qr_segment_header_decode(bytes, &header) && memcmp(header.store_id, id, sizeof(header.store_id)) == 0;
}

int qr_file_is_of_store(struct qr_dir *dir, const char *name, const uint8_t *id)
{
    uint8_t bytes[QR_MANIFEST_HEADER_BYTES] = {0};
    uint64_t size;
    if (strcmp(name, QR_MANIFEST_NAME) == 0) return 1; /* whoever has the id has read it there */
    if (qr_log_name_is_ours(name)) return qr_log_file_is_ours(dir, name, id);
    if (!qr_name_is_of_store(name)) return 0;
    uint32_t number;
    if (qr_segment_number_of(name, &number)) return is_page_segment(dir, name, id);
    size_t got;
    int result = qr_file_read_beginning(dir, name, bytes, sizeof(bytes), &got, &size);
    if (result != 0) return result == QUIRE_NOT_FOUND ? 1 : result;
    if (strcmp(name, QR_MANIFEST_NEW_NAME) == 0) return qr_manifest_is_leftover(bytes, size, id);
    for (size_t i = 0; i < got; i++) /* the lock: a process id, or zeros where power was lost before it was on the disk */
        if ((bytes[i] < '0' || bytes[i] > '9') && bytes[i] != '\n' && bytes[i] != '\0') return 0;
    return got < LOCK_TEXT_BYTES;
}
