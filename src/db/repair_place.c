/*
 * repair_place.c: opening both stores of a repair, and ending them.
 *
 * Layer 6. The old one is its files alone. The new one has no log: until its only checkpoint, the last step, it is an empty store
 * for whoever opens it, however the repair ends (D-26). There are no threads beside the caller's, and so no other checkpoint.
 */
#include <errno.h>
#include <stdio.h>

#include "db/inspect.h"
#include "db/names.h"
#include "db/repair.h"
#include "store/manifest_format.h"

/* ---- The old store ---------------------------------------------------------------------------------------------- */

int qr_repair_open_old(struct qr_repair *r, const char *path, struct qr_disk *disk)
{
    struct quire_error_detail detail;
    char text[400];
    const struct quire_slice none = {NULL, 0};
    int result = qr_db_inspect_open(path, disk, &r->from);
    if (result != QUIRE_ERR_CORRUPT) return result;
    quire_error_detail(&detail);
    snprintf(text, sizeof(text), "writes since the newest checkpoint whose root verifies: the manifest does not: %s", detail.message);
    r->manifest_lost = true;
    r->from->files->incarnation_count = 0;
    r->from->files->lsn_range_end = 0;
    r->from->checkpointer.record = (struct qr_manifest_checkpoint){0};
    qr_repair_tell(r, QUIRE_LOSS_LOG, NULL, none, none, text);
    return 0;
}

/* ---- Where the new one may be ----------------------------------------------------------------------------------- */

#define MOST_ABOVE 256u /* directories */

/* The facts of a directory, and of `ret_names` if that is not NULL the names in it. A negated errno. */
static int look_at(struct qr_disk *disk, const char *path, struct qr_dir_facts *ret_facts, struct qr_names *ret_names)
{
    struct qr_dir *dir;
    int error;
    do {
        error = disk->ops->dir_open(disk, path, QR_DIR_READ_ONLY, &dir);
    } while (error == -EINTR);
    if (error != 0) return error;
    error = disk->ops->dir_facts(dir, ret_facts);
    if (error == 0 && ret_names != NULL) error = qr_names_list(dir, ret_names);
    disk->ops->dir_close(dir);
    return error;
}

static bool is_same(const struct qr_dir_facts *a, const struct qr_dir_facts *b)
{
    return a->device == b->device && a->inode == b->inode;
}

/* The directory that a path names, or would be made in. */
static void begin_above(const char *path, bool there, char *to)
{
    size_t size = strlen(path);
    memcpy(to, path, size + 1);
    if (there) return;
    while (size > 1 && to[size - 1] == '/') size--;
    while (size != 0 && to[size - 1] != '/') size--;
    to[size] = '\0';
    if (size == 0) memcpy(to, ".", 2);
}

/* Goes up, by what is really above, whatever links the path has. */
static int refuse_below(struct qr_disk *disk, const struct qr_dir_facts *from, const char *to, bool there)
{
    struct qr_dir_facts facts = {0}, below = {0};
    char *path = qr_malloc(strlen(to) + 3 * (size_t)MOST_ABOVE + 2);
    int error = 0;
    bool found = false, top = false;
    if (path == NULL) return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for a path");
    begin_above(to, there, path);
    for (unsigned i = 0; i < MOST_ABOVE && !found && !top && (error == 0 || error == -EACCES); i++) {
        bool known = i != 0 && error == 0;
        error = look_at(disk, path, &facts, NULL);
        found = error == 0 && is_same(&facts, from);
        top = error == 0 && known && is_same(&facts, &below);
        below = facts;
        strcat(path, "/..");
    }
    qr_free(path);
    if (found) return qr_fail(QUIRE_ERR_INVALID, 0, "the new store would be in the directory of the old one");
    if (error == 0 || error == -EACCES || error == -ENOENT || error == -ENOTDIR) return 0; /* opening it says what there is to say */
    return qr_fail_io(-error, "looking for the directory of the new store");
}

static int check_place(struct qr_repair *r, const char *to)
{
    struct qr_disk *disk = r->from->files->disk;
    struct qr_dir_facts from, facts;
    struct qr_names names = {0};
    int error = disk->ops->dir_facts(r->from->files->dir, &from);
    if (error != 0) return qr_fail_io(-error, "facts of the directory");
    error = look_at(disk, to, &facts, &names);
    if (error != 0 && error != -ENOENT && error != -ENOTDIR) return qr_fail_io(-error, "opening the directory of the new store");
    r->was_there = error == 0;
    int result = refuse_below(disk, &from, to, r->was_there);
    for (size_t at = 0; at < names.size && result == 0; at += strlen(names.text + at) + 1)
        if (strcmp(names.text + at, QR_MANIFEST_NAME) == 0) result = QUIRE_EXISTS;
    if (result == 0 && names.size != 0) result = qr_fail(QUIRE_ERR_FOREIGN, 0, "the directory for the new store is not empty");
    qr_free(names.text);
    return result;
}

/* ---- The new store ---------------------------------------------------------------------------------------------- */

int qr_repair_open_new(struct qr_repair *r, const char *path, struct qr_disk *disk)
{
    struct quire_options options;
    int result = check_place(r, path);
    if (result != 0) return result;
    quire_options_init(&options);
    options.open_mode = QUIRE_CREATE_NEW;
    options.disable_log = 1;
    options.background_threads = QUIRE_NO_THREADS;
    options.checkpoint_interval_ms = QUIRE_NO_PERIOD;
    return qr_db_open(path, disk, &options, &r->to);
}

/* The detail stays that of the failure. */
int qr_repair_close_new(struct qr_repair *r, const char *path, int result)
{
    struct quire_error_detail detail;
    char text[QR_STATUS_MESSAGE_BYTES];
    if (r->to == NULL) return result;
    if (result != 0) r->to->options.no_sync_at_close = 1;
    quire_error_detail(&detail);
    snprintf(text, sizeof(text), "%s", detail.message);
    int closed = quire_close(r->to);
    if (result == 0) return closed;
    (void)qr_db_destroy(r->from->files->disk, path, r->was_there);
    return qr_fail(result, detail.os_errno, "%s", text);
}
