/*
 * destroy.c: removing a store.
 *
 * Layer 6.
 *
 * DESTROY-1  Nothing is changed before every file of the directory has been found to be one of this store: by the header of
 *            its manifest, the store's id in the headers of its segments, and what else only Quire writes.
 * DESTROY-2  The manifest loses its name first, and that is made durable: from then on there is no store, and what is left
 *            of it cannot be taken for one. Under its other name it still proves what the rest is, until the rest is gone.
 *            It goes when the rest is known to be gone.
 * DESTROY-3  The lock's file goes last, the lock in hand: whoever opened it meanwhile is refused, or finds that its name is
 *            gone.
 * DESTROY-4  The first proof is without the lock, which would make a file. So it may see a writer's work half done: a file that has
 *            a name of a store's and is not proven to be of this one is told only if nobody has the store open.
 */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/status.h"
#include "db/files.h"
#include "db/names.h"
#include "store/manifest_format.h"

static int unlink_name(struct qr_dir *dir, const char *name)
{
    int error = dir->disk->ops->dir_unlink(dir, name);
    return error == -ENOENT ? 0 : error;
}

static int remove_segments(struct qr_dir *dir, const struct qr_names *names)
{
    int error = 0;
    for (size_t at = 0; at < names->size && error == 0; at += strlen(names->text + at) + 1) {
        const char *name = names->text + at;
        if (qr_name_is_of_segment(name)) error = unlink_name(dir, name);
    }
    return error;
}

void qr_db_remove_temporary(struct qr_dir *dir)
{
    struct qr_names names;
    if (qr_names_list(dir, &names) != 0) return;
    int error = remove_segments(dir, &names);
    qr_free(names.text);
    if (error == 0) error = unlink_name(dir, QR_MANIFEST_NAME);
    if (error == 0) error = unlink_name(dir, QR_MANIFEST_NEW_NAME);
    if (error == 0) (void)unlink_name(dir, QR_LOCK_NAME);
}

/* ---- Proof ------------------------------------------------------------------------------------------------------ */

/* The store's id: of its manifest, or of one that an interrupted removal has renamed. QUIRE_NOT_FOUND: there is none. */
static int read_id(struct qr_dir *dir, bool *ret_renamed, uint8_t *ret_id)
{
    uint8_t bytes[QR_MANIFEST_HEADER_BYTES] = {0};
    struct qr_manifest_header header;
    size_t got;
    uint64_t size;
    int result = qr_file_read_beginning(dir, QR_MANIFEST_NAME, bytes, sizeof(bytes), &got, &size);
    *ret_renamed = result == QUIRE_NOT_FOUND;
    if (*ret_renamed) result = qr_file_read_beginning(dir, QR_MANIFEST_NEW_NAME, bytes, sizeof(bytes), &got, &size);
    if (result != 0) return result;
    result = qr_manifest_header_decode(bytes, got, true, &header);
    if (result != 0 && *ret_renamed && qr_manifest_is_leftover(bytes, size, NULL)) return QUIRE_NOT_FOUND;
    if (result == 0) memcpy(ret_id, header.store_id, sizeof(header.store_id));
    return result;
}

struct proof {
    struct qr_names names; /* of what is there; qr_free */
    bool renamed;
    bool unsure; /* what is not proven may be a writer's work half done */
};

/* DESTROY-1. 0, NOT_FOUND, FOREIGN ... */
static int prove(struct qr_dir *dir, struct proof *ret_proof)
{
    uint8_t id[16] = {0};
    *ret_proof = (struct proof){0};
    int result = read_id(dir, &ret_proof->renamed, id);
    if (result < 0) return result;
    bool none = result == QUIRE_NOT_FOUND;
    int error = qr_names_list(dir, &ret_proof->names);
    if (error != 0) return qr_fail_io(-error, "listing the directory of the store");
    result = 0;
    for (size_t at = 0; at < ret_proof->names.size && result == 0; at += strlen(ret_proof->names.text + at) + 1) {
        const char *name = ret_proof->names.text + at;
        bool beginning = strcmp(name, QR_LOCK_NAME) == 0 || strcmp(name, QR_MANIFEST_NEW_NAME) == 0;
        int ours = none ? beginning : qr_file_is_of_store(dir, name, id);
        if (ours < 0) result = ours;
        if (ours != 0) continue;
        result = qr_fail(QUIRE_ERR_FOREIGN, 0, "%s is not provably a file of the store", name);
        ret_proof->unsure = qr_name_is_of_store(name); /* a manifest, if there was none before */
    }
    return result == 0 && none ? QUIRE_NOT_FOUND : result;
}

/* ---- Removal ---------------------------------------------------------------------------------------------------- */

/* DESTROY-2, DESTROY-3 */
static int remove_store(struct qr_dir *dir, const struct proof *proof)
{
    const struct qr_disk_ops *ops = dir->disk->ops;
    int error = proof->renamed ? 0 : ops->dir_rename(dir, QR_MANIFEST_NAME, QR_MANIFEST_NEW_NAME);
    if (error == 0) error = qr_dir_sync(dir);
    if (error == 0) error = remove_segments(dir, &proof->names);
    if (error == 0) error = qr_dir_sync(dir);
    if (error == 0) error = unlink_name(dir, QR_MANIFEST_NEW_NAME);
    if (error == 0) error = unlink_name(dir, QR_LOCK_NAME);
    return error == 0 ? 0 : qr_fail_io(-error, "removing the store");
}

/* DESTROY-4. What the proof answered; BUSY. */
static int explain(struct qr_dir *dir, int answer)
{
    struct proof proof;
    int64_t pid = 0;
    int error = dir->disk->ops->dir_lock(dir, QR_LOCK_NAME, true, &pid); /* makes no file */
    if (error == -EWOULDBLOCK) return qr_db_fail_lock(error, pid);
    if (error != 0) return answer;
    answer = prove(dir, &proof); /* again, now that nobody changes it */
    qr_free(proof.names.text);
    return answer == 0 ? qr_fail(QUIRE_ERR_BUSY, 0, "somebody had the store open a moment ago") : answer;
}

/* The lock in hand. */
static int prove_and_remove(struct qr_dir *dir)
{
    struct proof proof;
    int result = prove(dir, &proof); /* as it is now that nobody else changes it */
    if (result == 0) result = remove_store(dir, &proof);
    qr_free(proof.names.text);
    if (result != QUIRE_NOT_FOUND) return result;
    int error = unlink_name(dir, QR_LOCK_NAME); /* somebody else has removed it: what the lock has made goes, too */
    return error == 0 ? 0 : qr_fail_io(-error, "removing the store");
}

static int destroy(struct qr_dir *dir)
{
    struct proof proof;
    int64_t pid = 0;
    int result = prove(dir, &proof);
    qr_free(proof.names.text);
    if (result != 0) return proof.unsure ? explain(dir, result) : result;
    int error = dir->disk->ops->dir_lock(dir, QR_LOCK_NAME, false, &pid);
    if (error == -ENOENT) return QUIRE_NOT_FOUND; /* the directory is gone */
    return error == 0 ? prove_and_remove(dir) : qr_db_fail_lock(error, pid);
}

int qr_db_destroy(struct qr_disk *disk, const char *path, bool keep_directory)
{
    struct qr_dir *dir = NULL;
    int error = disk->ops->dir_open(disk, path, 0, &dir);
    if (error == -ENOENT) return QUIRE_NOT_FOUND;
    if (error == -ENOTDIR) return qr_fail(QUIRE_ERR_FOREIGN, ENOTDIR, "the path is not a directory");
    if (error != 0) return qr_fail_io(-error, "opening the directory of the store");
    int result = destroy(dir);
    disk->ops->dir_close(dir);
    error = result == 0 && !keep_directory ? disk->ops->dir_remove(disk, path) : 0;
    /* ENOTEMPTY: somebody began another store there. ENOENT: somebody else removed it. ENOTDIR, EINVAL: a link to it, or `.`, stays. */
    if (error != 0 && error != -ENOTEMPTY && error != -EEXIST && error != -ENOENT && error != -ENOTDIR && error != -EINVAL)
        result = qr_fail_io(-error, "removing the directory of the store");
    return result;
}

int quire_destroy(const char *path)
{
    struct qr_disk *disk = NULL;
    if (path == NULL) return qr_fail(QUIRE_ERR_INVALID, 0, "path is NULL");
    int error = qr_disk_posix(&disk);
    if (error != 0) return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory to remove a store");
    int result = qr_db_destroy(disk, path, false);
    disk->ops->disk_free(disk);
    return result;
}
