/*
 * Disks that fail: while clients work, and while the store is opened.
 *
 * FAULT-1  An interruption, a short count, a disk that is full: nothing is lost by them. After EIO, and where a sync found no space,
 *          nothing but what is durable binds in this boot.
 * FAULT-2  An opening that meets a fault answers 0, or IO or NO_SPACE as the fault was, but not for an interruption or a short count of
 *          what is done piece by piece (reads, writes, syncs). Whatever it answers, what an image had to show binds as before. Only a
 *          sync that failed makes the page cache worthless (D-8, D-32): then it is what was durable.
 * FAULT-3  Where a sync that fails brings the old content back, a large value that no good sync has covered may be CORRUPT until the store
 *          is opened again (FAULT-6 of test/crash/power_fault.c).
 * FAULT-4  A sync that answers 0 and has done nothing, and tells at the next one: what is called durable since binds after the death of the
 *          process, if it was of the log and no checkpoint counts on it: the next opening is told. After power loss what was durable before
 *          binds, as far as it can be read (LIE-1 to LIE-4 there).
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "db/db.h"
#include "log/files.h"
#include "sim/sim.h"

bool fault_fired(const struct life *life)
{
    return life->fault_set && simdisk_fault_fired(life->disk, 0) != 0;
}

bool fault_may_answer(int result)
{
    return result == QUIRE_ERR_IO || result == QUIRE_ERR_NO_SPACE || result == QUIRE_ERR_UNKNOWN;
}

static void set(struct life *life, const struct simdisk_fault *fault)
{
    simdisk_fault_set(life->disk, fault);
    life->fault_set = true;
}

/* ---- While clients work ----------------------------------------------------------------------------------------- */

static void set_fault(struct life *life)
{
    static const enum simdisk_kind kinds[] = {SIMDISK_SYNC, SIMDISK_SYNC, SIMDISK_ANY, SIMDISK_WRITE, SIMDISK_DIR_SYNC, SIMDISK_OPEN};
    struct simdisk_fault fault = {.kind = kinds[random_below(&life->random, 6)], .nth = random_between(&life->random, 1, 6)};
    uint64_t dice = random_below(&life->random, 100);
    life->faulty = true;
    sim_counts.faults_set++;
    if (dice < 20) { /* a disk that is full, for a while */
        simdisk_facts(life->disk)->space_bytes = simdisk_used_bytes(life->disk) + random_below(&life->random, 3 * SEGMENT_BYTES);
        return;
    }
    fault.error = dice < 60 ? EIO : dice < 75 ? ENOSPC : dice < 85 ? EINTR : 0;
    fault.short_bytes = 5;
    fault.for_good = fault.error != EINTR && random_chance(&life->random, 25); /* an interruption that never ends is none */
    bool syncs = fault.kind == SIMDISK_SYNC || fault.kind == SIMDISK_DIR_SYNC || fault.kind == SIMDISK_ANY;
    life->fault_hurts = fault.error == EIO || (fault.error == ENOSPC && syncs);
    life->still_mounted = fault.kind == SIMDISK_SYNC && !fault.for_good; /* recovery writes again what the sync was of (D-32) */
    bool behaves = fault.error == EIO && syncs; /* otherwise as CLEAN, which is the plainest */
    enum simdisk_failed_sync way = behaves ? life->plan->failed_sync : SIMDISK_FAILED_CLEAN;
    if (way == SIMDISK_FAILED_LATE) { /* one lie is enough */
        fault.kind = SIMDISK_SYNC;
        fault.for_good = false;
        life->still_mounted = true;
    }
    simdisk_facts(life->disk)->failed_sync = way;
    set(life, &fault);
}

void fault_if_due(struct life *life)
{
    if (life->fault_at_op == 0 || life->begun < life->fault_at_op) return;
    if (!life->faulty) set_fault(life);
    /* Later there is space again. */
    if (life->begun > life->fault_at_op + 20) simdisk_facts(life->disk)->space_bytes = UINT64_MAX;
    life->hurt = life->hurt || (life->fault_hurts && fault_fired(life));
    life->reverted = life->hurt && simdisk_facts(life->disk)->failed_sync == SIMDISK_FAILED_REVERTS;
    fault_see_lie(life);
}

void fault_end(struct life *life)
{
    if (!life->faulty) return;
    sim_counts.faults_fired += fault_fired(life) || simdisk_facts(life->disk)->space_bytes != UINT64_MAX;
    simdisk_facts(life->disk)->space_bytes = UINT64_MAX;
    simdisk_faults_clear(life->disk);
}

/* ---- What a failed sync leaves ---------------------------------------------------------------------------------- */

bool fault_may_corrupt(const struct life *life, int result)
{
    if (!life->reverted || result != QUIRE_ERR_CORRUPT || life->plan->blob_threshold == NO_BLOBS) return false;
    sim_counts.reverted_corrupt++;
    return true;
}

static bool is_of_log(const struct life *life, const char *name)
{
    const struct qr_log_files *files = life->db->log.files;
    char segment[QR_LOG_NAME_BYTES];
    for (uint64_t i = files == NULL ? 0 : files->first; files != NULL && i < files->next; i++) {
        qr_log_file_name(files->ring[i % QR_LOG_RING]->number, segment);
        if (strcmp(segment, name) == 0) return true;
    }
    return false;
}

void fault_note_sync(struct life *life, const char *name)
{
    fault_see_lie(life); /* that of the sync before */
    if (life->faulty && life->lie == NO_LIE && life->client_count != 0) life->sync_of_log = is_of_log(life, name);
}

void fault_see_lie(struct life *life)
{
    if (!life->faulty || life->lie != NO_LIE || simdisk_effect_count(SIMDISK_SYNC_LIED) == life->lies_before) return;
    life->lie = life->sync_of_log ? LIE_OF_LOG : LIE_OF_OTHERS;
    life->lie_durable_lsn = life->durable_lsn;
    life->lie_checkpoint = life->db->checkpointer.record.number;
    life->hurt = true;
    sim_counts.lies++;
}

/* No checkpoint counts on frames that a lie was about. */
static bool is_of_log_alone(const struct life *life)
{
    if (life->lie != LIE_OF_LOG || life->db == NULL || life->client_count == 0) return false;
    for (uint32_t i = 0; i < life->client_count; i++) {
        const struct op *op = life->current[i];
        if (op != NULL && (op->kind == OP_CHECKPOINT || op->kind == OP_MAINTAIN)) return false;
    }
    return life->db->checkpointer.record.number == life->lie_checkpoint;
}

bool fault_lie_explains(const struct life *life, int result)
{
    if (!life->image.may_be_corrupt || (result != QUIRE_ERR_CORRUPT && result != QUIRE_ERR_FOREIGN)) return false;
    sim_counts.lied_corrupt++;
    return true;
}

bool fault_defect_explained(struct life *life, const struct quire_defect *defect)
{
    bool explained = life->image.lied_once && strstr(defect->text, "it is not needed any more") != NULL;
    life->defects++;
    life->defects_explained += explained;
    return explained;
}

int fault_of_check(struct life *life, int result)
{
    bool explained = life->defects != 0 && life->defects == life->defects_explained;
    life->defects = life->defects_explained = 0;
    return explained && result == QUIRE_ERR_CORRUPT ? 0 : result;
}

void fault_mark_image(struct life *life, struct image *image, bool death)
{
    if (life->accepted && life->lie != NO_LIE) {
        image->lied = true;
        image->lie_durable_lsn = life->lie_durable_lsn;
    }
    image->lied_once = life->image.lied_once || image->lied;
    if (!image->lied || death) return;
    image->may_be_corrupt = !life->accepted || !is_of_log_alone(life);
    if (image->lie_durable_lsn < image->durable_lsn) image->durable_lsn = image->lie_durable_lsn;
    sim_counts.lied_images++;
}

/* ---- While it is opened ----------------------------------------------------------------------------------------- */

void fault_set_for_opening(struct life *life)
{
    static const enum simdisk_kind kinds[] = {SIMDISK_ANY, SIMDISK_ANY, SIMDISK_ANY, SIMDISK_SYNC, SIMDISK_SYNC, SIMDISK_READ, SIMDISK_READ};
    static const uint64_t most[SIMDISK_KINDS] = {[SIMDISK_ANY] = 40, [SIMDISK_READ] = 12};
    struct simdisk_fault fault = {.kind = kinds[random_below(&life->random, 7)], .short_bytes = 5};
    uint64_t dice = random_below(&life->random, 100);
    if (random_chance(&life->random, 30))
        fault.kind = (enum simdisk_kind)random_between(&life->random, SIMDISK_DIR_OPEN, SIMDISK_POPULATE);
    fault.nth = random_between(&life->random, 1, most[fault.kind] != 0 ? most[fault.kind] : 5);
    fault.error = dice < 50 ? EIO : dice < 70 ? ENOSPC : dice < 85 ? EINTR : 0;
    fault.for_good = fault.error != EINTR && random_chance(&life->random, 25);
    life->opening_error = fault.error;
    life->opening_for_good = fault.for_good;
    life->opening_full = fault.error == ENOSPC && random_chance(&life->random, 50);
    life->opening_fired = 0;
    life->opening_hits = 0;
    life->opening_last = SIMDISK_ANY;
    sim_counts.opening_set++;
    simdisk_facts(life->disk)->failed_sync =
        life->plan->failed_sync == SIMDISK_FAILED_REVERTS ? SIMDISK_FAILED_REVERTS : SIMDISK_FAILED_CLEAN;
    if (life->opening_full)
        simdisk_facts(life->disk)->space_bytes = simdisk_used_bytes(life->disk) + random_below(&life->random, 2 * SEGMENT_BYTES);
    else
        set(life, &fault);
}

/* The operation that was under way, if the fault has hit it, and what that means for images that are cut from now on. */
static void see_what_it_hit(struct life *life)
{
    uint64_t fired = fault_fired(life) ? simdisk_fault_fired(life->disk, 0) : 0;
    if (fired == life->opening_fired) return;
    life->opening_fired = fired;
    if ((life->opening_hits >> life->opening_last & 1) == 0) sim_counts.opening_hits[life->opening_last]++;
    life->opening_hits |= 1u << life->opening_last;
    if (life->opening_error != EIO && life->opening_error != ENOSPC) return;
    bool sync = life->opening_last == SIMDISK_SYNC, names = life->opening_last == SIMDISK_DIR_SYNC;
    bool writes = sync || life->opening_last == SIMDISK_WRITE || life->opening_last == SIMDISK_RESIZE;
    if (sync || names) life->image.all = false;
    life->hurt = life->hurt || sync || names;
    /* A directory that cannot be synced, and a disk to which nothing can be written any more. */
    life->needs_mount = life->needs_mount || names || (life->opening_for_good && writes);
    life->still_mounted = !life->needs_mount;
}

void fault_follow_opening(struct life *life, enum simdisk_kind kind)
{
    if (life->accepted || !life->fault_set) return;
    see_what_it_hit(life);
    life->opening_last = kind;
}

/* FAULT-2 */
static bool may_refuse(const struct life *life, int result)
{
    uint32_t pieces = 1u << SIMDISK_READ | 1u << SIMDISK_WRITE | 1u << SIMDISK_SYNC | 1u << SIMDISK_DIR_SYNC;
    if (life->image.lied && result == QUIRE_ERR_IO) return true; /* it is told now */
    if (life->opening_full) return result == QUIRE_ERR_NO_SPACE;
    if (life->opening_hits == 0) return false;
    if (life->opening_error == ENOSPC) return result == QUIRE_ERR_NO_SPACE || result == QUIRE_ERR_IO;
    if (life->opening_error == EINTR && (life->opening_hits & ~pieces) == 0) return false;
    return life->opening_error != 0 && result == QUIRE_ERR_IO;
}

void fault_end_of_opening(struct life *life, int result)
{
    if (life->fault_set) see_what_it_hit(life);
    simdisk_faults_clear(life->disk);
    simdisk_facts(life->disk)->space_bytes = UINT64_MAX;
    sim_counts.opening_fired += life->opening_hits != 0;
    sim_counts.opening_refused += result != 0;
    life->fault_set = false;
    if (sim_trace)
        printf("%*sopening with error %d%s%s, operations %x: %d\n", (int)life->depth * 2, "", life->opening_error,
               life->opening_for_good ? " for good" : "", life->opening_full ? ", full" : "", life->opening_hits, result);
    if (result != 0 && !may_refuse(life, result) && !fault_lie_explains(life, result)) {
        struct quire_error_detail detail;
        quire_error_detail(&detail);
        sim_fail(life, "with error %d of operations %x opening answers %s (%s)", life->opening_error, life->opening_hits,
                 quire_strerror(result), detail.message);
    }
    /* A checkpoint of the opening that had to use the reserve: until another one finds space, new data have none. */
    if (result == 0 && life->opening_error == ENOSPC && qr_db_checkpoint_refusal(life->db) == QUIRE_ERR_NO_SPACE)
        (void)quire_checkpoint(life->db); /* whether it did is asked next */
    if (result == 0 && qr_db_checkpoint_refusal(life->db) != 0) sim_fail(life, "with space again an opened store refuses writes");
    /* Opened all the same: all that it shows it has made durable, and it goes on as any other; but for names that were not synced. */
    life->hurt = result == 0 && life->needs_mount;
    life->faulty = life->hurt;
}
