/*
 * Disks that fail, disks that are full, and no memory.
 *
 * Each operation of the disk fails in turn, once or from then on, while a store is created, used, and recovered. What is
 * asked besides CUT-1 to CUT-4:
 *
 * FAULT-1  Results are those of quire.h: a write that answers NO_SPACE, IO or NO_MEMORY has changed nothing; one that answers
 *          UNKNOWN was done. EINTR and short counts are not seen at all.
 * FAULT-2  After a failed sync of the log writes answer IO, reads go on, and nothing more is called durable.
 * FAULT-3  If no sync has failed, writes go on when the fault is over, without opening anew.
 * FAULT-4  What was acknowledged as durable is there after opening again, in the same boot and after power loss; and what the
 *          opening shows is still there after power loss.
 * FAULT-5  No memory, file or directory is left over.
 * FAULT-6  Where a failed sync brings the old content back (SIMDISK_FAILED_REVERTS), the same; a large value that no good sync has
 *          covered may answer CORRUPT until the store is opened again, and is not there then.
 *
 * A sync that answers 0 and has done nothing (SIMDISK_FAILED_LATE, "the lie"; the next sync of that file answers the error) makes
 * every acknowledgement wrong that counts on it. What is promised is this:
 *
 * LIE-1  A lie about frames of the log, while no checkpoint is made: after power loss the state is one from the last that was durable before
 *        the lie. Only what was acknowledged since may be lost, and what is there is a prefix.
 * LIE-2  Once the error has been answered the log has failed (FAULT-2), unless the file that it was about is of no use any more (a
 *        segment that was being made).
 * LIE-3  The death of the process loses nothing that was acknowledged as DURABLE: the next opening is told of the error, and writes the
 *        log again. From then on all that it shows is durable.
 * LIE-4  Else (about pages, blobs, the manifest, a segment that is being made; about frames, and a checkpoint counts on it; during recovery): after power loss the
 *        opening or a read may answer CORRUPT. What can be read is of one state, not older than the last that was durable before.
 *        (If the syncs of several files lie, the state may be an older one: nothing may be left that tells of a newer.)
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "base/alloc.h"
#include "base/stop.h"
#include "db/db.h"
#include "power.h"

enum phase { PHASE_CREATE, PHASE_WORK, PHASE_RECOVER, PHASE_RECOVER_HOLES, PHASES };

/* ---- The stores that faults meet -------------------------------------------------------------------------------- */

/* A store that was used, and whose process died in the middle of it. */
static struct run *used(const struct scenario *scenario, uint64_t seed)
{
    struct run *run = run_create(&scenario->setup, seed);
    run->disk = simdisk_create();
    bool good = run_open(run, 0) == 0 && run_accept(run);
    for (uint32_t t = 0; t < TREES && good; t++) good = run_tree(run, t);
    /* The next incarnation's record is the first one that lies in two sectors of the manifest. */
    for (uint32_t i = 0; i < 3 && good; i++) good = run_reopen(run);
    for (uint32_t i = 0; i < 10 && good; i++) {
        good = run_put(run, i % TREES, (uint32_t)random_below(&run->random, KEYS - COUNTERS),
                       i == 5 ? QUIRE_WRITE_DURABLE : QUIRE_WRITE_PROCESS);
        if (good && i == 3) good = run_checkpoint(run);
    }
    if (!good) power_fail(run, "the beginning of the case");
    return run;
}

/* Leaves the process without a word: everything unsynced is in the page cache. */
static void abandon(struct run *run, bool with_hole)
{
    if (with_hole && !run->setup->buffered) {
        struct qr_thread *thread = qr_thread_self(run->db->epoch);
        if (qr_log_slot_open(&run->db->log, thread)) {
            uint64_t lsn = qr_log_reserve(&run->db->log, thread, 64);
            qr_log_slot_close(thread);
            (void)lsn;
        }
        for (uint32_t i = 0; i < 3; i++) run_put(run, 0, i, QUIRE_WRITE_PROCESS);
    }
    struct simdisk *after = simdisk_crash(run->disk, &(struct simdisk_crash){.mode = SIMDISK_DEATH});
    struct run as_is = *run;
    run_close(run);
    simdisk_free(run->disk);
    *run = as_is;
    run->db = NULL;
    memset(run->trees, 0, sizeof(run->trees));
    run->disk = after;
    run->low = run->process;
}

/* ---- One fault -------------------------------------------------------------------------------------------------- */

struct plan {
    enum phase phase;
    int error; /* 0: short */
    bool for_good;
    uint64_t nth;
    enum simdisk_kind kind; /* ANY: of all operations the nth */
    enum simdisk_failed_sync behaviour;
    bool quota;     /* of operations that take space the nth: from then on there is none, until the fault ends */
    int64_t memory; /* not 0: allocations fail instead, from the n-th on, or (negative) the n-th alone */
};

static enum simdisk_kind hit; /* what the fault hit first */

/* The fault that is set. */
static struct {
    struct run *run;
    const struct plan *plan;
    uint64_t left; /* operations of its kind until it */
} target;

static bool takes_space(enum simdisk_kind kind)
{
    return kind == SIMDISK_WRITE || kind == SIMDISK_ALLOCATE || kind == SIMDISK_POPULATE;
}

/* Whether it is a segment that frames are written to, not one that is being made. */
static bool is_in_use(const struct run *run, const char *name)
{
    const struct qr_log_files *files = run->db != NULL ? run->db->log.files : NULL;
    char segment[QR_LOG_NAME_BYTES];
    for (uint64_t i = files == NULL ? 0 : files->first; files != NULL && i < files->next; i++) {
        qr_log_file_name(files->ring[i % QR_LOG_RING]->number, segment);
        if (strcmp(segment, name) == 0) return true;
    }
    return false;
}

static void note_lie(struct run *run, const char *name)
{
    bool of_log = target.plan->phase < PHASE_RECOVER && !target.plan->for_good && run->accepted && is_in_use(run, name);
    if (power_trace) printf("the sync of %s lies\n", name);
    run->lie = of_log ? LIE_OF_LOG : LIE_OF_OTHERS;
    run->lie_durable = target.plan->for_good ? 0 : run->durable;
    run->late_before = simdisk_effect_count(SIMDISK_SYNC_WAS_LATE);
    run->lie_checkpoint = run->db != NULL ? run->db->checkpointer.record.number : 0;
}

static void note(void *context, const struct simdisk_event *event)
{
    const struct plan *plan = target.plan;
    (void)context;
    if (plan->quota ? !takes_space(event->kind) : plan->kind != SIMDISK_ANY && plan->kind != event->kind) return;
    if (target.left == 0 || --target.left != 0) return;
    hit = event->kind;
    if (plan->quota) simdisk_facts(target.run->disk)->space_bytes = simdisk_used_bytes(target.run->disk);
    if (plan->behaviour == SIMDISK_FAILED_LATE) note_lie(target.run, event->name);
}

static void set_fault(struct run *run, const struct plan *plan)
{
    hit = SIMDISK_ANY;
    run->faulty = true;
    run->lasting = plan->for_good || plan->memory > 0;
    if (plan->memory != 0) {
        if (plan->memory > 0)
            qr_alloc_fail_from(plan->memory);
        else
            qr_alloc_fail_after(-plan->memory);
        return;
    }
    target.run = run;
    target.plan = plan;
    target.left = plan->nth;
    simdisk_set_hook(run->disk, note, NULL);
    simdisk_facts(run->disk)->failed_sync = plan->behaviour;
    run->reverts = plan->behaviour == SIMDISK_FAILED_REVERTS;
    struct simdisk_fault fault = {
        .kind = plan->kind, .nth = plan->nth, .for_good = plan->for_good, .error = plan->error, .short_bytes = 5};
    if (!plan->quota) simdisk_fault_set(run->disk, &fault);
}

static bool has_fired(const struct run *run, const struct plan *plan)
{
    if (plan->memory != 0) return qr_alloc_fail_pending() == 0;
    return plan->quota ? hit != SIMDISK_ANY : simdisk_fault_fired(run->disk, 0) != 0;
}

static const char *const kind_names[SIMDISK_KINDS] = {
    "none",   "dir_open", "list",     "dir_sync", "unlink", "rename",   "lock",    "open",
    "read",   "write",    "resize",   "allocate", "sync",   "map",      "populate", "transfer"};

static void count_fault(const struct plan *plan)
{
    static char text[64];
    static const char *const behaviours[] = {"", ", reverts", ", late"};
    const char *what = plan->quota        ? "quota"
                       : plan->error == 0 ? "short"
                       : plan->error == EIO ? "EIO"
                       : plan->error == ENOSPC ? "ENOSPC" : "EINTR";
    snprintf(text, sizeof(text), "%s of %s%s", what, kind_names[hit], behaviours[plan->behaviour]);
    power_fired(plan->memory != 0 ? "no memory" : text, 1);
}

/* Ends it; whether it came about. */
static bool end_fault(struct run *run, const struct plan *plan)
{
    bool fired = has_fired(run, plan);
    if (fired) count_fault(plan);
    if (plan->memory != 0) {
        qr_alloc_fail_after(-1);
    } else {
        simdisk_faults_clear(run->disk);
        simdisk_set_hook(run->disk, NULL, NULL);
        simdisk_facts(run->disk)->space_bytes = UINT64_MAX;
    }
    /* An error that was not answered yet is still to come. */
    run->faulty = simdisk_late_count(run->disk) != 0;
    run->lasting = false;
    run->hurt = fired && plan->memory == 0 && !plan->quota;
    /* A file system that takes nothing has to be mounted again before it does. */
    if (fired && (hit == SIMDISK_DIR_SYNC || (plan->for_good && plan->kind == SIMDISK_ANY))) run->nameless = true;
    return fired || hit != SIMDISK_ANY; /* reached */
}

static bool is_legal_failure(const struct plan *plan, int result)
{
    if (plan->memory != 0) return result == QUIRE_ERR_NO_MEMORY;
    if (result == QUIRE_ERR_NO_SPACE) return plan->error == ENOSPC;
    if (result != QUIRE_ERR_IO) return false;
    /* EINTR of what opens, renames or removes is an error like others. */
    bool continued = hit == SIMDISK_READ || hit == SIMDISK_WRITE || hit == SIMDISK_SYNC || hit == SIMDISK_DIR_SYNC;
    if (plan->error == 0 || (plan->error == EINTR && continued)) return false;
    return plan->error != ENOSPC || hit != SIMDISK_WRITE || plan->for_good || plan->quota;
}

static bool open_under_fault(struct run *run, const struct plan *plan)
{
    int result = run_open(run, 0);
    if (result == 0) {
        /* A sync of the tail that failed has made the page cache worthless. */
        if (plan->memory == 0 && !plan->quota && has_fired(run, plan)) run->low = run->process = run->durable;
        return run_accept(run);
    }
    struct quire_error_detail detail;
    quire_error_detail(&detail);
    if (!is_legal_failure(plan, result))
        power_fail(run, "opening answers %s (%s)", quire_strerror(result), detail.message);
    return true;
}

/* FAULT-2 */
static void check_failed(struct run *run)
{
    struct quire_tree *tree = NULL;
    uint64_t before = 0, after = 0;
    quire_durable_lsn(run->db, &before);
    if (run->trees[0] != NULL) {
        int result = quire_put(run->trees[0], "later", 5, "", 0, QUIRE_WRITE_PROCESS, NULL);
        if (result != QUIRE_ERR_IO) power_fail(run, "after a failed sync a write answers %s", quire_strerror(result));
        result = quire_delete(run->trees[0], "later", 5, QUIRE_WRITE_DURABLE, NULL, NULL);
        if (result != QUIRE_ERR_IO) power_fail(run, "after a failed sync a deletion answers %s", quire_strerror(result));
    }
    int result = quire_tree_open(run->db, "another", NULL, &tree);
    if (result != QUIRE_ERR_IO) power_fail(run, "after a failed sync the creation of a tree answers %s", quire_strerror(result));
    result = quire_sync(run->db);
    quire_durable_lsn(run->db, &after);
    if (result == 0 && run->durable != run->issued && run->process != run->issued && after != before)
        power_fail(run, "after a failed sync another one answers 0");
    if (after != before) power_fail(run, "after a failed sync more is called durable");
    run_check(run);
}

static void work_under_fault(struct run *run)
{
    bool seen = false;
    for (uint32_t i = 0; i < 8 && run->db != NULL; i++) {
        bool good = i == 3   ? run_checkpoint(run)
                    : i == 5 ? run_sync(run)
                    : i == 7 ? run_reopen(run)
                             : run_operation(run);
        if (!good) return;
        /* A later sync proves nothing about what the failed one was to cover. */
        if (hit == SIMDISK_SYNC && !seen) cut_always(run);
        seen = hit == SIMDISK_SYNC;
        if (run->db != NULL && run->failed == NOT_FAILED) run_check(run);
    }
}

/* FAULT-3 and FAULT-4. */
static void go_on(struct run *run, const struct plan *plan)
{
    bool failed = run->db != NULL && qr_log_failure(&run->db->log) != 0;
    if (failed && (plan->error == 0 || plan->error == EINTR) && plan->memory == 0)
        power_fail(run, "the log has failed, and should not");
    if (failed) check_failed(run);
    if (run->db != NULL && !failed) {
        run->hurt = false;
        bool good = run_check(run) && (run->trees[0] != NULL || run_tree(run, 0));
        for (uint32_t i = 0; i < 3 && good; i++) good = run_put(run, 0, i, QUIRE_WRITE_PROCESS);
        if (good) run_durable_write(run);
    }
    if (failed) run->process = run->durable;
    cut_here(run);
    if (run->db != NULL) {
        int result = run_close(run);
        if (result != 0 && !failed && !run->faulty) power_fail(run, "close: %s", quire_strerror(result));
        if (failed) run->process = run->durable;
    }
    if (run->nameless && run->lie == NO_LIE) {
        struct simdisk_crash crash = {.mode = SIMDISK_RANDOM, .seed = run->seed};
        cut_off(run, &crash);
        run->nameless = false;
    }
    run->hurt = failed || run->hurt;
    run->low = run->hurt ? run->durable : run->process;
    int result = run_open(run, 0);
    for (unsigned tries = 0; result == QUIRE_ERR_IO && run->faulty && tries < 5; tries++) result = run_open(run, 0); /* late errors */
    run->faulty = simdisk_late_count(run->disk) != 0;
    if (result != 0) {
        struct quire_error_detail detail;
        quire_error_detail(&detail);
        power_fail(run, "opening after the fault: %s (%s)", quire_strerror(result), detail.message);
        return;
    }
    if (!run_accept(run)) return;
    run->hurt = false;
    cut_always(run); /* what was shown must stay, whatever the page cache said */
    cut_here(run);
    for (uint32_t i = 0; i < 2; i++)
        if (!run_durable_write(run)) return;
    cut_always(run);
    cut_here(run);
}

static bool once(const struct scenario *scenario, uint64_t seed, const struct plan *plan)
{
    struct run *run;
    bool fired = false;
    if (plan->phase == PHASE_CREATE) {
        run = run_create(&scenario->setup, seed);
        run->disk = simdisk_create();
    } else {
        run = used(scenario, seed);
        if (plan->phase >= PHASE_RECOVER) abandon(run, plan->phase == PHASE_RECOVER_HOLES);
    }
    run->share = 6;
    run->cut_seed = random_mix(seed ^ random_mix(plan->nth * 4 + plan->phase));
    set_fault(run, plan);
    if (plan->phase == PHASE_WORK || (open_under_fault(run, plan) && run->db != NULL && plan->phase == PHASE_CREATE))
        work_under_fault(run);
    fired = end_fault(run, plan);
    if (power_failures < power_most_failures) go_on(run, plan);
    if (run->db != NULL) run_close(run);
    run_free(run);
    return fired;
}

/* The fault at every step, until it comes too late. */
static void everywhere(const struct scenario *scenario, uint64_t seed, struct plan plan)
{
    bool fired = true;
    once(scenario, seed, &(struct plan){.phase = plan.phase, .nth = UINT64_MAX / 2, .error = EIO}); /* threads keep memory */
    for (uint64_t n = 1; fired && power_failures < power_most_failures; n++) {
        uint64_t failures = power_failures;
        int64_t blocks = qr_alloc_live_count();
        plan.nth = n;
        if (plan.memory != 0) plan.memory = plan.memory > 0 ? (int64_t)n : -(int64_t)n;
        fired = once(scenario, seed, &plan);
        if (qr_alloc_live_count() != blocks && power_failures == failures)
            power_fail(NULL, "%lld blocks were not given back", (long long)(qr_alloc_live_count() - blocks));
        if (power_failures != failures)
            printf("    phase %u, error %d, %s, at operation %llu (a %u)%s\n", plan.phase, plan.error,
                   plan.for_good ? "for good" : "once", (unsigned long long)n, hit,
                   plan.memory > 0 ? ", memory from then on" : plan.memory < 0 ? ", memory" : "");
    }
}

/* EIO at every sync, in each way that file systems have. variant: the behaviour, + 4: from then on */
static void sync_faults(const struct scenario *scenario, uint64_t seed)
{
    for (enum phase phase = 0; phase < PHASES; phase++)
        everywhere(scenario, seed,
                   (struct plan){.phase = phase, .kind = SIMDISK_SYNC, .error = EIO, .for_good = scenario->variant >= 4,
                                 .behaviour = (enum simdisk_failed_sync)(scenario->variant % 4)});
}

/* The space ends at every operation that takes some, and is back later. */
static void no_space(const struct scenario *scenario, uint64_t seed)
{
    for (enum phase phase = 0; phase < PHASES; phase++)
        everywhere(scenario, seed, (struct plan){.phase = phase, .error = ENOSPC, .quota = true});
}

static void faults(const struct scenario *scenario, uint64_t seed)
{
    static const int errors[] = {EIO, ENOSPC, EINTR, 0};
    int error = errors[scenario->variant / 2];
    for (enum phase phase = 0; phase < PHASES; phase++)
        everywhere(scenario, seed, (struct plan){.phase = phase, .error = error, .for_good = scenario->variant % 2 != 0});
}

static void no_memory(const struct scenario *scenario, uint64_t seed)
{
    for (enum phase phase = 0; phase < PHASES; phase++)
        everywhere(scenario, seed, (struct plan){.phase = phase, .memory = scenario->variant == 0 ? -1 : 1});
}

/* ---- A segment that is made twice ------------------------------------------------------------------------------- */

/* The sync of a new segment's header fails (the one before it is that of its zeros), and the file cannot be removed: the next one is
 * made for the same place. */
static void made_twice(const struct scenario *scenario, uint64_t seed)
{
    struct run *run = used(scenario, seed);
    bool good = true;
    run->faulty = true;
    simdisk_fault_set(run->disk, &(struct simdisk_fault){.kind = SIMDISK_SYNC, .nth = 2, .error = EIO});
    unsigned unlink = simdisk_fault_set(run->disk, &(struct simdisk_fault){.kind = SIMDISK_UNLINK, .nth = 1, .error = EIO});
    for (uint32_t i = 0; i < 60 && good && simdisk_fault_fired(run->disk, unlink) == 0; i++)
        good = run_put(run, i % TREES, i % 10, QUIRE_WRITE_PROCESS);
    if (simdisk_fault_fired(run->disk, unlink) == 0) power_fail(run, "no segment was made");
    simdisk_faults_clear(run->disk);
    run->faulty = false;
    uint64_t end = qr_log_tail(&run->db->log) + SEGMENT_BYTES; /* by then that place is written to */
    for (uint32_t i = 0; i < 100 && good && (i < 12 || qr_log_tail(&run->db->log) < end); i++) {
        good = run_put(run, i % TREES, i % 10, i % 4 == 3 ? QUIRE_WRITE_DURABLE : QUIRE_WRITE_PROCESS);
        cut_always(run);
        cut_here(run);
    }
    if (good) good = run_durable_write(run);
    if (good) cut_always(run);
    if (good) good = run_reopen(run);
    if (good) cut_always(run);
    if (run->db != NULL) run_close(run);
    run_free(run);
}

/* ---- A blob that comes while a checkpoint syncs ------------------------------------------------------------------ */

/* Another thread writes a large value after the checkpoint has synced the log, and the sync of blobs that follows fails. Within this
 * boot nothing may take that value from the page cache: the log is marked. */
static struct {
    struct run *run;
    bool written, good;
} late_blob;

static void *write_late_blob(void *context)
{
    (void)context;
    late_blob.good = run_put(late_blob.run, 0, 1, QUIRE_WRITE_PROCESS);
    return NULL;
}

static void at_log_synced(const char *name, void *argument)
{
    pthread_t thread;
    (void)argument;
    if (late_blob.written || strcmp(name, "log.synced") != 0) return;
    late_blob.written = true;
    if (pthread_create(&thread, NULL, write_late_blob, NULL) != 0) abort();
    pthread_join(thread, NULL);
    simdisk_fault_set(late_blob.run->disk, &(struct simdisk_fault){.kind = SIMDISK_SYNC, .nth = 1, .error = EIO});
}

static void blob_behind(const struct scenario *scenario, uint64_t seed)
{
    struct run *run = used(scenario, seed);
    bool good = run_put(run, 0, 0, QUIRE_WRITE_PROCESS);
    late_blob.run = run;
    late_blob.written = false;
    simdisk_facts(run->disk)->failed_sync = (enum simdisk_failed_sync)scenario->variant;
    run->reverts = scenario->variant == SIMDISK_FAILED_REVERTS;
    run->faulty = true;
    qr_stop_set_hook(at_log_synced, NULL);
    int result = quire_checkpoint(run->db);
    qr_stop_set_hook(NULL, NULL);
    if (!late_blob.written || !late_blob.good || simdisk_fault_fired(run->disk, 0) != 1 || result != QUIRE_ERR_IO)
        power_fail(run, "no sync of blobs failed behind that of the log: %s", quire_strerror(result));
    simdisk_faults_clear(run->disk);
    run->process = run->durable;
    run->hurt = true;
    abandon(run, false);
    run->faulty = false;
    run->low = run->durable;
    if (good && run_open(run, 0) == 0 && run_accept(run)) {
        run->hurt = false;
        cut_always(run); /* what was shown must stay */
        if (run_durable_write(run)) cut_always(run);
    } else if (good) {
        power_fail(run, "it does not open again");
    }
    if (run->db != NULL) run_close(run);
    run_free(run);
}

/* ---- A full disk ------------------------------------------------------------------------------------------------ */

static void full_disk(const struct scenario *scenario, uint64_t seed)
{
    struct run *run = used(scenario, seed);
    uint64_t refused = 0;
    run->share = 20;
    cut_begin(run);
    for (uint32_t round = 0; round < scenario->setup.operations && power_failures < power_most_failures; round++) {
        simdisk_facts(run->disk)->space_bytes =
            simdisk_used_bytes(run->disk) + random_below(&run->random, 3) * SEGMENT_BYTES / 2;
        run->faulty = true;
        for (uint32_t i = 0; i < 12; i++) {
            struct state before = run->now;
            run_put(run, i % TREES, (uint32_t)random_below(&run->random, KEYS - COUNTERS),
                    i % 3 == 0 ? QUIRE_WRITE_DURABLE : QUIRE_WRITE_PROCESS);
            refused += memcmp(&before, &run->now, sizeof(before)) == 0;
        }
        if (qr_log_failure(&run->db->log) != 0) power_fail(run, "the log has failed on a full disk");
        run_check(run);
        run->faulty = false;
        if (round % 3 == 2 && !run_sync(run)) break;
        simdisk_facts(run->disk)->space_bytes = UINT64_MAX;
        if (!run_put(run, 0, round % 8, QUIRE_WRITE_DURABLE) || !run_check(run)) break;
        if (!run_reopen(run)) break;
    }
    if (refused == 0) power_fail(run, "no write was refused");
    if (run->db != NULL) run_close(run);
    cut_end(run);
    run_free(run);
}

#define FAULTY(Buffered)                                                                                               \
    {                                                                                                                  \
        .operations = 6, .level = QUIRE_LEVEL_DURABLE, .durable_percent = 40, .large_percent = 30, .buffered = (Buffered)\
    }
#define FAULTY_BLOBS                                                                                                   \
    {                                                                                                                  \
        .operations = 6, .level = QUIRE_LEVEL_PROCESS, .durable_percent = 40, .large_percent = 30, .blob_threshold = 64,\
        .lies = true                                                                                                   \
    }
#define LYING(Buffered)                                                                                                \
    {                                                                                                                  \
        .operations = 6, .level = QUIRE_LEVEL_DURABLE, .durable_percent = 40, .large_percent = 30, .lies = true,       \
        .buffered = (Buffered)                                                                                         \
    }
const struct scenario power_faults[] = {
    {"sync_reverts", sync_faults, FAULTY(false), 1},
    {"sync_reverts_buffered", sync_faults, FAULTY(true), 1},
    {"sync_reverts_for_good", sync_faults, FAULTY(false), 5},
    {"sync_late", sync_faults, LYING(false), 2},
    {"sync_late_buffered", sync_faults, LYING(true), 2},
    {"sync_late_for_good", sync_faults, LYING(false), 6},
    {"sync_blobs", sync_faults, FAULTY_BLOBS, 0},
    {"sync_blobs_reverts", sync_faults, FAULTY_BLOBS, 1},
    {"sync_blobs_late", sync_faults, FAULTY_BLOBS, 2},
    {"blob_behind", blob_behind, FAULTY_BLOBS, 0},
    {"blob_behind_reverts", blob_behind, FAULTY_BLOBS, 1},
    {"quota", no_space, FAULTY(false), 0},
    {"quota_buffered", no_space, FAULTY(true), 0},
    {"quota_blobs", no_space, FAULTY_BLOBS, 0},
    {"made_twice", made_twice, FAULTY(false), 0},
    {"made_twice_buffered", made_twice, FAULTY(true), 0},
    {"io_once", faults, FAULTY(false), 0},
    {"io_once_buffered", faults, FAULTY(true), 0},
    {"io_for_good", faults, FAULTY(false), 1},
    {"io_for_good_buffered", faults, FAULTY(true), 1},
    {"space_once", faults, FAULTY(false), 2},
    {"space_once_buffered", faults, FAULTY(true), 2},
    {"space_for_good", faults, FAULTY(false), 3},
    {"space_for_good_buffered", faults, FAULTY(true), 3},
    {"interrupted", faults, FAULTY(false), 4},
    {"interrupted_buffered", faults, FAULTY(true), 4},
    {"short", faults, FAULTY(false), 6},
    {"short_for_good", faults, FAULTY(true), 7},
    {"memory_once", no_memory, FAULTY(false), 0},
    {"memory_once_buffered", no_memory, FAULTY(true), 0},
    {"memory_for_good", no_memory, FAULTY(false), 1},
    {"memory_for_good_buffered", no_memory, FAULTY(true), 1},
    {"full", full_disk, FAULTY(false), 0},
    {"full_buffered", full_disk, FAULTY(true), 0},
};
const uint32_t power_fault_count = sizeof(power_faults) / sizeof(power_faults[0]);
