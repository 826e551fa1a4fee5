/*
 * Goal: a batch of pages that could not be written leaves nothing that a verification takes for damage, in the same opening and in
 * the next one.
 * Method: a store on a simulated disk with one checkpoint; the first write of the next one fails; then one succeeds.
 * The bug: the segment went on as if the batch were in it, and a verification found a batch whose summary is wrong.
 */
#include "db/db.h"
#include "lib/check.h"
#include "lib/simdisk.h"

#include <quire/quire.h>

#include <errno.h>
#include <stdio.h>

static struct simdisk *disk;
static struct quire *db;
static struct quire_tree *tree;

static bool open_store(void)
{
    struct quire_options options;
    quire_options_init(&options);
    options.background_threads = QUIRE_NO_THREADS;
    options.log_segment_bytes = 65536;
    return CHECK_EQUAL(qr_db_open("store", simdisk_disk(disk), &options, &db), 0) &&
           CHECK_EQUAL(quire_tree_open(db, "t", NULL, &tree), 0);
}

static void put_some(unsigned from)
{
    char key[16];
    for (unsigned i = from; i < from + 20; i++) {
        snprintf(key, sizeof(key), "key %03u", i);
        CHECK_EQUAL(quire_put(tree, key, 7, "value", 5, 0, NULL), 0);
    }
}

static int tell(void *context, const struct quire_defect *defect)
{
    (void)context;
    check_fail(__FILE__, __LINE__, "no defect", "%s, at %llu: %s", defect->file == NULL ? "" : defect->file,
               (unsigned long long)defect->offset, defect->text);
    return 0;
}

int main(void)
{
    disk = simdisk_create();
    if (!open_store()) return check_finish();
    put_some(0);
    CHECK_EQUAL(quire_checkpoint(db), 0);

    put_some(100);
    unsigned fault = simdisk_fault_set(disk, &(struct simdisk_fault){.kind = SIMDISK_WRITE, .nth = 1, .error = EIO});
    CHECK_EQUAL(quire_checkpoint(db), QUIRE_ERR_IO);
    CHECK_EQUAL(simdisk_fault_fired(disk, fault), 1);
    simdisk_faults_clear(disk);

    CHECK_EQUAL(quire_verify(db, tell, NULL), 0);
    put_some(200);
    CHECK_EQUAL(quire_checkpoint(db), 0);
    CHECK_EQUAL(quire_verify(db, tell, NULL), 0);
    CHECK_EQUAL(quire_close(db), 0);
    if (!open_store()) return check_finish();
    CHECK_EQUAL(quire_verify(db, tell, NULL), 0);
    put_some(300);
    CHECK_EQUAL(quire_checkpoint(db), 0);
    CHECK_EQUAL(quire_verify(db, tell, NULL), 0);
    CHECK_EQUAL(quire_close(db), 0);
    simdisk_free(disk);
    return check_finish();
}
