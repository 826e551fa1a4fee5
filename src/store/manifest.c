/*
 * manifest.c: the manifest as a file: begun, read, appended to, replaced.
 *
 * Layer 4. manifest.h has the promises, manifest_format.c says what of a file counts.
 */
#include "store/manifest.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bugs.h"
#include "base/bytes.h"
#include "base/status.h"
#include "store/manifest_format.h"
#include "store/records.h"

struct qr_manifest {
    struct qr_dir *dir;
    struct qr_file *file;
    struct qr_manifest_header header;
    struct qr_manifest_extent extent;
    bool for_writing;
    bool has_leftover; /* a rewrite could not remove its new file */
    int failed;        /* MANIFEST-5: the result of the call after which nobody knows; 0: it has not failed */
    int failed_errno;
};

static const struct qr_disk_ops *ops_of(struct qr_dir *dir)
{
    return dir->disk->ops;
}

static int sync_names(struct qr_dir *dir)
{
    return QR_BUG(manifest_names_unsynced) ? 0 : qr_dir_sync(dir);
}

/* ---- A file in the making --------------------------------------------------------------------------------------- */

/* Something that is no plain file is in the way of a name (DISK-5). */
static bool is_no_plain_file(int error)
{
    return error == -ELOOP || error == -EISDIR || error == -EINVAL;
}

static int fail_open(int error, const char *name)
{
    if (is_no_plain_file(error))
        return qr_fail(QUIRE_ERR_FOREIGN, -error, "%s is not a plain file", name);
    return qr_fail_io(-error, "%s: open", name);
}

/* Removes `manifest.new` if it is what a crash left (MANIFEST-6). store_id NULL: of whatever store. */
static int remove_leftover(struct qr_dir *dir, const uint8_t *store_id)
{
    const struct qr_disk_ops *ops = ops_of(dir);
    uint8_t bytes[QR_MANIFEST_HEADER_BYTES];
    struct qr_file_facts facts;
    struct qr_file *file;
    int64_t count;

    int error = ops->file_open(dir, QR_MANIFEST_NEW_NAME, 0, &file);
    if (error == -ENOENT)
        return 0;
    if (error != 0)
        return fail_open(error, QR_MANIFEST_NEW_NAME);
    error = ops->file_facts(file, &facts);
    count = error != 0 ? error : qr_file_read(file, bytes, sizeof(bytes), 0);
    ops->file_close(file);
    if (count < 0)
        return qr_fail_io((int)-count, QR_MANIFEST_NEW_NAME ": read");
    if ((uint64_t)count != qr_min(facts.size_bytes, sizeof(bytes)) ||
        !qr_manifest_is_leftover(bytes, facts.size_bytes, store_id))
        return qr_fail(QUIRE_ERR_FOREIGN, 0, QR_MANIFEST_NEW_NAME " is not a file of this store and in the way");
    error = ops->dir_unlink(dir, QR_MANIFEST_NEW_NAME);
    return error == 0 || error == -ENOENT ? 0 : qr_fail_io(-error, QR_MANIFEST_NEW_NAME ": unlink");
}

/* The magic first, and nothing else before it is durable: of a torn header anything might have arrived but that, and the leftover
 * would be nobody's (MANIFEST-6). Then everything, zeros included (MANIFEST-4). Before it the space, if the file system
 * gives it: that reads as zeros, while a write that makes a file longer and does not arrive may leave anything. */
static int write_whole(struct qr_file *file, const uint8_t *image, uint64_t size)
{
    int error = file->dir->disk->ops->file_allocate(file, 0, size);
    if (error == 0 || error == -EOPNOTSUPP)
        error = qr_file_write(file, image, QR_BUG(manifest_header_first) ? QR_MANIFEST_HEADER_BYTES : QR_MANIFEST_MAGIC_BYTES, 0);
    if (error == 0)
        error = qr_file_sync(file);
    if (error == 0)
        error = qr_file_write(file, image, size, 0);
    if (error == 0 && !QR_BUG(manifest_new_unsynced))
        error = qr_file_sync(file);
    return error;
}

/* Makes a durable file `manifest.new`. On failure it is gone again, or *ret_has_leftover. */
static int make_new(struct qr_dir *dir, const uint8_t *image, uint64_t size, struct qr_file **ret_file,
                    bool *ret_has_leftover)
{
    const struct qr_disk_ops *ops = ops_of(dir);
    struct qr_file *file;
    int error = ops->file_open(dir, QR_MANIFEST_NEW_NAME, QR_FILE_WRITE | QR_FILE_CREATE | QR_FILE_EXCLUSIVE, &file);
    if (error == -EEXIST)
        return qr_fail(QUIRE_ERR_FOREIGN, EEXIST, QR_MANIFEST_NEW_NAME " is in the way");
    if (error != 0)
        return fail_open(error, QR_MANIFEST_NEW_NAME);
    error = write_whole(file, image, size);
    if (error == 0) {
        *ret_file = file;
        return 0;
    }
    ops->file_close(file);
    *ret_has_leftover = ops->dir_unlink(dir, QR_MANIFEST_NEW_NAME) != 0;
    return qr_fail_io(-error, QR_MANIFEST_NEW_NAME ": write of %" PRIu64 " bytes", size);
}

/*
 * The header and the bytes of a file that begins with these records. header has store id, generation, first sequence
 * and features; the sizes are set. *ret_image is freed by the caller.
 */
static int make_image(struct qr_manifest_header *header, const struct qr_manifest_record *records, size_t count,
                      uint8_t **ret_image)
{
    size_t append_size = qr_manifest_append_size(records, count);
    if (append_size == 0)
        return qr_fail(QUIRE_ERR_INVALID, 0, "manifest: %zu records, too many, too few or too large", count);
    header->base_end = QR_MANIFEST_HEADER_BYTES + append_size;
    header->size_bytes = QR_MANIFEST_SIZE_LEAST;
    while (header->size_bytes < 2 * header->base_end)
        header->size_bytes *= 2;

    uint8_t *image = qr_calloc(1, header->size_bytes);
    if (image == NULL)
        return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "manifest: %" PRIu64 " bytes", header->size_bytes);
    qr_manifest_header_encode(header, image);
    qr_manifest_append_encode(records, count, header->first_sequence, qr_manifest_seed(header),
                              image + QR_MANIFEST_HEADER_BYTES);
    *ret_image = image;
    return 0;
}

/* The extent of a file that has what it began with. */
static struct qr_manifest_extent base_extent(const struct qr_manifest_header *header, size_t count)
{
    return (struct qr_manifest_extent){QR_MANIFEST_HEADER_BYTES, header->base_end, header->first_sequence + count};
}

/* ---- Creating --------------------------------------------------------------------------------------------------- */

static int check_absent(struct qr_dir *dir)
{
    struct qr_file *file;
    int error = ops_of(dir)->file_open(dir, QR_MANIFEST_NAME, 0, &file);
    if (error == 0)
        ops_of(dir)->file_close(file);
    if (error == 0 || is_no_plain_file(error))
        return QUIRE_EXISTS;
    return error == -ENOENT ? 0 : qr_fail_io(-error, QR_MANIFEST_NAME ": open");
}

/* The new file takes the name, durably. */
static int publish(struct qr_dir *dir)
{
    int error = ops_of(dir)->dir_rename(dir, QR_MANIFEST_NEW_NAME, QR_MANIFEST_NAME);
    if (error == 0)
        error = sync_names(dir);
    return error;
}

int qr_manifest_create(struct qr_dir *dir, const struct qr_manifest_setup *setup,
                       const struct qr_manifest_record *records, size_t count, struct qr_manifest **ret_manifest)
{
    struct qr_manifest_header header = {
        .generation = 1,
        .first_sequence = 1,
        .features_compatible = setup->features_compatible,
        .features_read_compatible = setup->features_read_compatible,
        .features_incompatible = setup->features_incompatible,
    };
    struct qr_manifest *manifest = NULL;
    struct qr_file *file = NULL;
    uint8_t *image = NULL;
    bool has_leftover;

    int result = check_absent(dir);
    if (result != 0)
        return result;
    result = setup->random(setup->context, header.store_id, sizeof(header.store_id));
    if (result != 0)
        return qr_fail_io(-result, "manifest: random bytes for the store's id");
    result = make_image(&header, records, count, &image);
    if (result != 0)
        return result;
    manifest = qr_calloc(1, sizeof(*manifest));
    if (manifest == NULL) {
        result = qr_fail(QUIRE_ERR_NO_MEMORY, 0, "manifest: handle");
        goto have_image;
    }
    result = remove_leftover(dir, NULL);
    if (result == 0)
        result = make_new(dir, image, header.size_bytes, &file, &has_leftover);
    if (result != 0)
        goto have_manifest;
    int error = publish(dir);
    if (error != 0) {
        result = qr_fail_io(-error, QR_MANIFEST_NAME ": rename");
        goto have_file;
    }
    qr_free(image);
    *manifest = (struct qr_manifest){
        .dir = dir, .file = file, .header = header, .extent = base_extent(&header, count), .for_writing = true};
    *ret_manifest = manifest;
    return 0;

have_file:
    ops_of(dir)->file_close(file);
have_manifest:
    qr_free(manifest);
have_image:
    qr_free(image);
    return result;
}

/* ---- Opening ---------------------------------------------------------------------------------------------------- */

/* Reads the file, and what its header says. *ret_image: header.size_bytes bytes, zeros beyond the end of the file. */
static int read_whole(struct qr_manifest *manifest, uint8_t **ret_image)
{
    uint8_t first[QR_MANIFEST_HEADER_BYTES];
    int64_t count = qr_file_read(manifest->file, first, sizeof(first), 0);
    if (count < 0)
        return qr_fail_io((int)-count, QR_MANIFEST_NAME ": read");
    int result = qr_manifest_header_decode(first, (size_t)count, manifest->for_writing, &manifest->header);
    if (result != 0)
        return result;

    uint8_t *image = qr_calloc(1, manifest->header.size_bytes);
    if (image == NULL)
        return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "manifest: %" PRIu64 " bytes", manifest->header.size_bytes);
    count = qr_file_read(manifest->file, image, manifest->header.size_bytes, 0);
    if (count < 0)
        result = qr_fail_io((int)-count, QR_MANIFEST_NAME ": read");
    else
        result = qr_manifest_scan(image, (uint64_t)count, &manifest->header, &manifest->extent);
    if (result != 0) {
        qr_free(image);
        return result;
    }
    *ret_image = image;
    return 0;
}

static int check_kinds(const uint8_t *image, uint64_t end)
{
    struct qr_manifest_record record;
    for (uint64_t offset = QR_MANIFEST_HEADER_BYTES; offset < end;) {
        offset = qr_manifest_record_at(image, offset, &record);
        if (!qr_manifest_kind_is_known(record.kind) && !record.optional)
            return qr_fail(QUIRE_ERR_NEWER, 0, "manifest: a record of kind %u", record.kind);
    }
    return 0;
}

static int visit_all(const uint8_t *image, uint64_t end, qr_manifest_visit *visit, void *context)
{
    struct qr_manifest_record record;
    int result = check_kinds(image, end);
    for (uint64_t offset = QR_MANIFEST_HEADER_BYTES; offset < end && result == 0;) {
        offset = qr_manifest_record_at(image, offset, &record);
        if (qr_manifest_kind_is_known(record.kind))
            result = visit(context, &record);
    }
    return result;
}

/*
 * Brings about MANIFEST-2. What was read may be in the page cache alone: a process died between write and sync, or its
 * sync failed and the kernel, having given up, counts the bytes as written. Only the last append can be in that state,
 * and what lies behind it. So these are written again, a torn append as zeros, and synced. Bytes that are durable
 * already do not change, and what becomes zero is in no append that counts: power lost meanwhile leaves what could be
 * there before. The directory: a rollover may have died before it synced it.
 */
static int settle(struct qr_manifest *manifest, uint8_t *image)
{
    uint64_t begin = manifest->extent.last_begin, end = manifest->extent.end, size = manifest->header.size_bytes;

    if (QR_BUG(manifest_unsettled))
        return 0;
    if (!QR_BUG(manifest_torn_kept))
        memset(image + end, 0, size - end);
    int error = qr_file_write(manifest->file, image + begin, size - begin, begin);
    if (error == 0)
        error = qr_file_sync(manifest->file);
    if (error == 0)
        error = sync_names(manifest->dir);
    if (error != 0)
        return qr_fail_io(-error, QR_MANIFEST_NAME ": write of %" PRIu64 " bytes at %" PRIu64, size - begin, begin);
    return 0;
}

int qr_manifest_open(struct qr_dir *dir, bool for_writing, qr_manifest_visit *visit, void *context,
                     struct qr_manifest **ret_manifest)
{
    uint8_t *image = NULL;
    struct qr_manifest *manifest = qr_calloc(1, sizeof(*manifest));
    if (manifest == NULL)
        return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "manifest: handle");
    manifest->dir = dir;
    manifest->for_writing = for_writing;

    int result = 0;
    int error = ops_of(dir)->file_open(dir, QR_MANIFEST_NAME, for_writing ? QR_FILE_WRITE : 0, &manifest->file);
    if (error != 0) {
        result = error == -ENOENT ? QUIRE_NOT_FOUND : fail_open(error, QR_MANIFEST_NAME);
        goto have_manifest;
    }
    result = read_whole(manifest, &image);
    if (result != 0)
        goto have_file;
    result = visit_all(image, manifest->extent.end, visit, context);
    if (result == 0 && for_writing)
        result = remove_leftover(dir, manifest->header.store_id);
    if (result == 0 && for_writing)
        result = settle(manifest, image);
    qr_free(image);
    if (result != 0)
        goto have_file;
    *ret_manifest = manifest;
    return 0;

have_file:
    ops_of(dir)->file_close(manifest->file);
have_manifest:
    qr_free(manifest);
    return result;
}

/* ---- Writing ---------------------------------------------------------------------------------------------------- */

static int check_writable(const struct qr_manifest *manifest)
{
    if (!manifest->for_writing)
        return qr_fail(QUIRE_ERR_INVALID, 0, "manifest: opened for reading");
    if (manifest->failed != 0)
        return qr_fail(manifest->failed, manifest->failed_errno, "manifest: an earlier write to it failed");
    return 0;
}

/* From now on nobody knows what the next opening will find (MANIFEST-5). */
static int fail_for_good(struct qr_manifest *manifest, int error, const char *what)
{
    manifest->failed = qr_fail_io(-error, QR_MANIFEST_NAME ": %s", what);
    manifest->failed_errno = -error;
    return manifest->failed;
}

int qr_manifest_append(struct qr_manifest *manifest, const struct qr_manifest_record *records, size_t count)
{
    struct qr_manifest_extent *extent = &manifest->extent;
    size_t size = qr_manifest_append_size(records, count);

    int result = check_writable(manifest);
    if (result != 0)
        return result;
    if (size == 0)
        return qr_fail(QUIRE_ERR_INVALID, 0, "manifest: %zu records, too many, too few or too large", count);
    if (size > manifest->header.size_bytes - extent->end)
        return QR_MANIFEST_FULL;
    uint8_t *bytes = qr_malloc(size);
    if (bytes == NULL)
        return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "manifest: %zu bytes", size);

    qr_manifest_append_encode(records, count, extent->next_sequence, qr_manifest_seed(&manifest->header), bytes);
    int error = qr_file_write(manifest->file, bytes, size, extent->end);
    if (error == 0 && !QR_BUG(manifest_append_unsynced))
        error = qr_file_sync(manifest->file);
    qr_free(bytes);
    if (error != 0)
        return fail_for_good(manifest, error, "append");
    *extent = (struct qr_manifest_extent){extent->end, extent->end + size, extent->next_sequence + count};
    return 0;
}

/*
 * The new file is durable; it takes the name. A rename that fails has not happened, unless it says EIO: then it may
 * have. After a failed sync of the directory the old file may come back. Both are files that count, but only one will
 * be found.
 */
static int take_over(struct qr_manifest *manifest)
{
    const struct qr_disk_ops *ops = ops_of(manifest->dir);
    int error = ops->dir_rename(manifest->dir, QR_MANIFEST_NEW_NAME, QR_MANIFEST_NAME);
    if (error == 0) {
        error = sync_names(manifest->dir);
        return error == 0 ? 0 : fail_for_good(manifest, error, "sync of the directory");
    }
    if (error == -EIO)
        return fail_for_good(manifest, error, "rename");
    manifest->has_leftover = ops->dir_unlink(manifest->dir, QR_MANIFEST_NEW_NAME) != 0;
    return qr_fail_io(-error, QR_MANIFEST_NEW_NAME ": rename");
}

int qr_manifest_rewrite(struct qr_manifest *manifest, const struct qr_manifest_record *records, size_t count)
{
    struct qr_manifest_header header = manifest->header;
    struct qr_file *file = NULL;
    uint8_t *image = NULL;

    int result = check_writable(manifest);
    if (result != 0)
        return result;
    header.generation++;
    header.first_sequence = manifest->extent.next_sequence;
    result = make_image(&header, records, count, &image);
    if (result == 0 && manifest->has_leftover)
        result = remove_leftover(manifest->dir, header.store_id);
    if (result == 0) {
        manifest->has_leftover = false;
        result = make_new(manifest->dir, image, header.size_bytes, &file, &manifest->has_leftover);
    }
    qr_free(image);
    if (result != 0)
        return result;
    result = take_over(manifest);
    if (result != 0) {
        ops_of(manifest->dir)->file_close(file);
        return result;
    }
    ops_of(manifest->dir)->file_close(manifest->file);
    manifest->file = file;
    manifest->header = header;
    manifest->extent = base_extent(&header, count);
    return 0;
}

/* ---- Facts ------------------------------------------------------------------------------------------------------ */

const struct qr_manifest_header *qr_manifest_header(const struct qr_manifest *manifest)
{
    return &manifest->header;
}

bool qr_manifest_has_failed(const struct qr_manifest *manifest)
{
    return manifest->failed != 0;
}

uint64_t qr_manifest_used_bytes(const struct qr_manifest *manifest)
{
    return manifest->extent.end;
}

void qr_manifest_close(struct qr_manifest *manifest)
{
    if (manifest == NULL)
        return;
    ops_of(manifest->dir)->file_close(manifest->file);
    qr_free(manifest);
}
