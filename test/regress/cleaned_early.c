/*
 * Goal: an opening removes no page file that another opening may still need.
 * Method: keys are written and checkpoints made until the manifest is written anew, and the sync of its name fails; the process dies.
 * The next opening is cut off when it has removed page files, by the loss of power and by death followed by the loss of power
 * behind the next sync of the directory; every opening after that has to find all keys.
 * The bug: files were removed that the new manifest does not name, before the opening had written a manifest of its own; the name went
 * back to the old one, which named them.
 */
#include <errno.h>

#include "large_value.h"

#define KEYS 3000u
#define ROUNDS 1000u
#define LOSSES 40u

/* What the disk's operations are looked at for. */
enum phase { NOTHING, FAIL_RENAME, CUT_AT_REMOVAL, CUT_AT_SYNC };

struct watch {
    struct simdisk *disk;
    enum phase phase;
    bool failed, seen;
    struct simdisk *cut; /* NULL: not yet */
};

static bool is_removal(const struct simdisk_event *event)
{
    return event->kind == SIMDISK_UNLINK && strncmp(event->name, "page", 4) == 0;
}

/* Before each operation. An opening looks at each file that it removes, so it is done with that when it writes something. */
static void look(void *context, const struct simdisk_event *event)
{
    struct watch *w = context;
    bool writes = event->kind == SIMDISK_WRITE || event->kind == SIMDISK_ALLOCATE || event->kind == SIMDISK_DIR_SYNC;
    switch (w->phase) {
    case FAIL_RENAME:
        if (w->failed || event->kind != SIMDISK_RENAME || strstr(event->name, "manifest") == NULL) return;
        simdisk_fault_set(w->disk, &(struct simdisk_fault){.kind = SIMDISK_DIR_SYNC, .nth = 1, .error = EIO});
        w->failed = true;
        return;
    case CUT_AT_REMOVAL:
        if (w->seen && w->cut == NULL && writes)
            w->cut = simdisk_crash(w->disk, &(struct simdisk_crash){.mode = SIMDISK_DEATH});
        w->seen = w->seen || is_removal(event);
        return;
    case CUT_AT_SYNC:
        if (w->seen && w->cut == NULL) w->cut = simdisk_crash(w->disk, &(struct simdisk_crash){.mode = SIMDISK_DROP});
        w->seen = w->seen || event->kind == SIMDISK_DIR_SYNC;
        return;
    case NOTHING:
        return;
    }
}

static int fill(struct quire *db, struct quire_tree *tree, uint32_t round)
{
    char value[256];
    int result = 0;
    memset(value, 'a' + (int)(round % 26), sizeof(value));
    for (uint32_t i = 0; i < KEYS && result == 0; i++)
        result = quire_put(tree, &i, sizeof(i), value, sizeof(value), QUIRE_WRITE_PROCESS, NULL);
    return result == 0 ? quire_checkpoint(db) : result;
}

/* Opens what is left, finds all keys, and closes. */
static void find_all(struct simdisk *disk, const char *when)
{
    struct quire *db;
    struct quire_tree *tree;
    struct quire_slice all = {NULL, 0};
    uint64_t count = 0;
    int result = open_on(disk, &db, &tree);
    if (!CHECK(result == 0, "%s: %s", when, quire_strerror(result))) return;
    CHECK_EQUAL(quire_verify(db, NULL, NULL), 0);
    CHECK_EQUAL(quire_count(tree, NULL, all, all, &count), 0);
    CHECK_EQUAL(count, KEYS);
    CHECK_EQUAL(quire_close(db), 0);
}

/* Opens and closes, and gives what was cut out meanwhile. */
static struct simdisk *cut_opening(struct watch *w, struct simdisk *disk, enum phase phase)
{
    *w = (struct watch){.disk = disk, .phase = phase};
    simdisk_set_hook(disk, look, w);
    find_all(disk, "an opening that goes on");
    simdisk_set_hook(disk, NULL, NULL);
    CHECK(w->cut != NULL, "nothing was cut out");
    return w->cut;
}

int main(void)
{
    struct watch w = {.disk = simdisk_create(), .phase = FAIL_RENAME};
    struct quire *db;
    struct quire_tree *tree;
    int result = 0;
    CHECK_EQUAL(open_on(w.disk, &db, &tree), 0);
    CHECK_EQUAL(fill(db, tree, 0), 0);
    simdisk_set_hook(w.disk, look, &w);
    for (uint32_t round = 1; round < ROUNDS && result == 0; round++) result = fill(db, tree, round);
    CHECK(w.failed && result == QUIRE_ERR_IO, "the manifest was not written anew: %s", quire_strerror(result));
    struct simdisk *dead = simdisk_crash(w.disk, &(struct simdisk_crash){.mode = SIMDISK_DEATH});
    simdisk_set_hook(w.disk, NULL, NULL);
    (void)quire_close(db);
    simdisk_free(w.disk);

    struct simdisk *killed = cut_opening(&w, dead, CUT_AT_REMOVAL);
    if (killed != NULL) {
        for (uint64_t i = 0; i < LOSSES; i++) {
            struct simdisk *after = simdisk_crash(
                killed, &(struct simdisk_crash){.mode = SIMDISK_RANDOM, .seed = i, .names = SIMDISK_NAMES_SUBSET});
            find_all(after, "after the loss of power in the first opening");
            simdisk_free(after);
        }
        struct simdisk *lost = cut_opening(&w, killed, CUT_AT_SYNC);
        if (lost != NULL) find_all(lost, "after the loss of power in the second opening");
        simdisk_free(lost);
    }
    simdisk_free(killed);
    simdisk_free(dead);
    return check_finish();
}
