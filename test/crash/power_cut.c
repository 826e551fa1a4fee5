/*
 * Crash images, and what is asked of each.
 *
 * CUT-1  The store opens.
 * CUT-2  Its content is the state after some operation from the last one that must be there to the last one that was begun;
 *        without a log, exactly that of the last checkpoint, or of one that was under way. The trees are sound.
 * CUT-3  Opened again, after closing or power loss, it is the same.
 * CUT-4  It takes writes, with LSNs that nobody has seen, and a durable one of them survives power loss.
 * CUT-5  Read-only it shows the same, and not one byte is written.
 * CUT-6  Half of those of disks that do not fail, after the opening or at the end: quire_verify finds nothing; so what the store says of its space is what a scan
 *        of its mapping finds.
 *
 * At stop points, which may lie in sections and slot windows, images are only made; they are verified when the thread has
 * come out.
 */
#include <pthread.h>
#include <string.h>

#include "base/stop.h"
#include "db/db.h"
#include "power.h"

unsigned cut_depth = 2;
uint64_t cut_effort = 100;
uint64_t cut_only[MOST_PATH][2];
unsigned cut_only_count;

static struct run *current; /* whose stop points these are */
static pthread_t owner;     /* the thread that cuts: others are helpers of scripted cases */

#define MOST_PENDING 256u
static struct run *pending[MOST_PENDING];
static uint32_t pending_count;

/* ---- Making images ---------------------------------------------------------------------------------------------- */

static bool is_asked(const struct run *run, uint64_t event, uint64_t plan)
{
    if (power_failures >= power_most_failures) return false;
    if (run->depth >= cut_only_count) return cut_only_count == 0;
    return cut_only[run->depth][0] == event && cut_only[run->depth][1] == plan;
}

static struct run *make(struct run *run, uint64_t event, uint64_t plan, const struct simdisk_crash *crash)
{
    struct run *child = run_create(run->setup, random_mix(run->cut_seed ^ random_mix(event * 1000 + plan)));
    bool death = crash->mode == SIMDISK_DEATH && !run->hurt;
    child->parent = run;
    child->depth = run->depth + 1;
    child->event = event;
    child->plan = plan;
    child->disk = simdisk_crash(run->disk, crash);
    child->lost_power = run->lost_power || crash->mode != SIMDISK_DEATH;
    simdisk_facts(child->disk)->space_bytes = UINT64_MAX;
    if (death && random_mix(child->seed) % 8 == 0) { /* another mount of it in the same boot: its cache proves nothing */
        simdisk_facts(child->disk)->mount_id += 1000;
        death = false;
    }
    child->now = run->now;
    memcpy(child->hashes, run->hashes, sizeof(child->hashes));
    child->issued = run->issued;
    child->durable = run->durable;
    child->process = child->low = death ? run->process : run->durable;
    child->ends_only = run->ends_only;
    if (run->off && run->accepted) { /* the last checkpoint, or the one under way */
        child->low = run->durable;
        child->issued = run->checkpoint != 0 ? run->checkpoint : run->durable;
        child->ends_only = true;
    }
    child->max_lsn = run->max_lsn;
    child->version = run->version + 1000;
    child->share = run->share;
    child->lie = run->lie;
    child->late_before = run->late_before;
    child->may_refuse = run->lie == LIE_OF_OTHERS || !run->accepted || run->db == NULL || run->checkpoint != 0 ||
                        run->db->checkpointer.record.number != run->lie_checkpoint;
    if (run->lie != NO_LIE && crash->mode != SIMDISK_DEATH) child->low = qr_min(child->low, run->lie_durable);
    if (run->states != NULL) memcpy(child->states, run->states, (run->issued + 1) * sizeof(struct state));
    child->extra_known = run->extra_known;
    child->extra_used = run->extra_used;
    return child;
}

/* The plans of an event: some fixed ones, then some by chance. */
enum { PLAN_DEATH, PLAN_DROP, PLAN_KEEP, PLAN_DATA_ALONE, PLAN_RANDOM, PLAN_ONE = PLAN_RANDOM + 4, PLAN_BUT_ONE = PLAN_ONE + 4,
       PLANS = PLAN_BUT_ONE + 4 };

static struct simdisk_crash plan_of(struct run *run, uint64_t event, uint64_t plan, uint64_t unsynced)
{
    uint64_t seed = random_mix(run->cut_seed ^ random_mix(event * 31 + plan));
    struct simdisk_crash crash = {.mode = run->nameless ? SIMDISK_RANDOM : SIMDISK_DEATH, .seed = seed};
    if (plan == PLAN_DROP) crash.mode = SIMDISK_DROP;
    if (plan == PLAN_KEEP || plan == PLAN_DATA_ALONE) crash.mode = SIMDISK_KEEP;
    if (plan == PLAN_DATA_ALONE) crash.names = SIMDISK_NAMES_PREFIX;
    if (plan >= PLAN_RANDOM) {
        crash.mode = plan < PLAN_ONE ? SIMDISK_RANDOM : plan < PLAN_BUT_ONE ? SIMDISK_ONE : SIMDISK_BUT_ONE;
        static const enum simdisk_unit units[] = {SIMDISK_UNIT_SECTOR, SIMDISK_UNIT_SECTOR, SIMDISK_UNIT_SECTOR,
                                                  SIMDISK_UNIT_WORD,   SIMDISK_UNIT_WORD,   SIMDISK_UNIT_WORD,
                                                  SIMDISK_UNIT_BLOCK,  SIMDISK_UNIT_WRITE};
        crash.unit = units[seed >> 44 & 7];
        crash.stale = (seed >> 48 & 3) == 0;
        crash.one = unsynced <= 4 ? plan & 3 : seed % unsynced;
        uint64_t kind = seed >> 32 & 3;
        if (plan < PLAN_ONE && kind != 0) crash.names = kind == 1 ? SIMDISK_NAMES_ALL : SIMDISK_NAMES_SUBSET;
        if (seed >> 40 & 1) crash.sizes = SIMDISK_SIZES_CURRENT;
    }
    return crash;
}

static bool is_chosen(const struct run *run, uint64_t event, uint64_t plan, uint64_t unsynced)
{
    uint64_t seed = random_mix(run->cut_seed + random_mix(event * 77 + plan));
    if (plan >= PLAN_ONE && unsynced <= (plan & 3)) return false;
    if (unsynced == 0 && plan > PLAN_DROP) return false;
    uint64_t share = cut_effort * (run->share != 0 ? run->share : 100);
    if (run->depth == 0) return seed % 10000 < share;
    return seed % (100000 * PLANS) < 60 * share / 10;
}

/* ---- Verifying -------------------------------------------------------------------------------------------------- */

static uint64_t changes(struct simdisk *disk)
{
    static const enum simdisk_kind kinds[] = {SIMDISK_WRITE, SIMDISK_SYNC,   SIMDISK_DIR_SYNC, SIMDISK_UNLINK,
                                              SIMDISK_RENAME, SIMDISK_RESIZE, SIMDISK_ALLOCATE};
    uint64_t sum = 0;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) sum += simdisk_count(disk, kinds[i]);
    return sum;
}

/* CUT-5. The run is as before. */
static bool read_only(struct run *run, uint64_t *ret_hash)
{
    int result = run_open(run, QUIRE_OPEN_READ_ONLY);
    *ret_hash = 0;
    if (result == QUIRE_NOT_FOUND) return true;
    if (result != 0) {
        struct quire_error_detail detail;
        quire_error_detail(&detail);
        power_fail(run, "opening read-only: %s (%s)", quire_strerror(result), detail.message);
        return false;
    }
    struct run as_before = *run;
    bool good = run_accept(run);
    *ret_hash = run->hashes[0];
    struct quire *db = run->db;
    *run = as_before;
    run->db = db;
    run_close(run);
    *run = as_before;
    run->db = NULL;
    memset(run->trees, 0, sizeof(run->trees));
    if (changes(run->disk) == 0) return good;
    power_fail(run, "opened read-only, it was written to");
    return false;
}

static int tell_defect(void *context, const struct quire_defect *defect)
{
    power_fail(context, "%s, %llu: %s", defect->file == NULL ? "-" : defect->file, (unsigned long long)defect->offset, defect->text);
    return 0;
}

/* CUT-6 */
static bool is_sound(struct run *run)
{
    int result = quire_verify(run->db, tell_defect, run);
    if (result != 0) power_fail(run, "verification answers %s", quire_strerror(result));
    power_verified++;
    return result == 0;
}

static bool live_on(struct run *run)
{
    uint64_t count = random_below(&run->random, run->depth < cut_depth ? 6 : 3);
    if (random_chance(&run->random, 30) && !run_reopen(run)) return false;
    for (uint64_t i = 0; i < count; i++)
        if (!run_operation(run)) return false;
    if (!run_durable_write(run)) return false;
    return !random_chance(&run->random, 20) || run_reopen(run);
}

/* LIE-1, LIE-4: of an image after a lie, which is not looked at any further. */
static void verify_after_lie(struct run *run)
{
    bool whole = false;
    int result = run_open(run, 0);
    /* FOREIGN: what was to become a manifest has no header, and could be anybody's. */
    if ((result == QUIRE_ERR_CORRUPT || result == QUIRE_ERR_FOREIGN) && run->may_refuse) {
        power_lied_refused++;
        return;
    }
    if (result != 0) {
        struct quire_error_detail detail;
        quire_error_detail(&detail);
        power_fail(run, "after a sync that lied, open: %s (%s)", quire_strerror(result), detail.message);
    } else if (run_accept_part(run, &whole)) {
        if (!whole && !run->may_refuse) power_fail(run, "after a sync of the log that lied, some of it is CORRUPT");
        *(whole ? &power_lied_whole : &power_lied_partly) += 1;
    }
}

static void verify(struct run *run, bool leaf)
{
    uint64_t shown = 0;
    struct run *outer = current;
    current = NULL;
    power_images++;
    power_depths[run->depth < MOST_PATH ? run->depth : MOST_PATH - 1]++;
    if (run->lie != NO_LIE && run->lost_power) {
        verify_after_lie(run);
        if (run->db != NULL) {
            run->db->options.no_sync_at_close = 1;
            (void)quire_close(run->db);
            run->db = NULL;
        }
        run_free(run);
        current = outer;
        return;
    }
    bool good = leaf || random_chance(&run->random, 90) || read_only(run, &shown);
    if (good && !leaf && run->depth < cut_depth) cut_begin(run);
    if (good) {
        uint64_t late = simdisk_late_count(run->disk);
        int result = run_open(run, 0);
        for (; result == QUIRE_ERR_IO && late != 0; late--) result = run_open(run, 0); /* LIE-3: it is told */
        struct quire_error_detail detail;
        quire_error_detail(&detail);
        if (result != 0) power_fail(run, "open: %s (%s)", quire_strerror(result), detail.message);
        good = result == 0;
    }
    if (good) good = run_accept(run);
    if (good && shown != 0 && shown != run->hashes[0]) {
        power_fail(run, "read-only it was something else");
        good = false;
    }
    bool faultless = run->share == 0; /* what an operation that failed has left may be told of */
    if (good && faultless && random_mix(run->seed) % 4 == 0) good = is_sound(run);
    if (good && !leaf) good = live_on(run);
    if (good && faultless && !leaf && random_mix(run->seed) % 4 == 1) good = is_sound(run);
    if (good && !leaf && random_chance(&run->random, 50)) {
        struct simdisk_crash crash = {.mode = random_chance(&run->random, 70) ? SIMDISK_DROP : SIMDISK_RANDOM,
                                      .seed = random_next(&run->random)};
        if (is_asked(run, 0, 0)) verify(make(run, 0, 0, &crash), true);
    }
    cut_end(run);
    if (run->db != NULL) run_close(run);
    run_free(run);
    current = outer;
}

static void consider(struct run *run, uint64_t event, uint64_t plan, uint64_t unsynced, bool later)
{
    if (!is_asked(run, event, plan)) return;
    if (cut_only_count == 0 && !is_chosen(run, event, plan, unsynced)) return;
    struct simdisk_crash crash = plan_of(run, event, plan, unsynced);
    struct run *child = make(run, event, plan, &crash);
    if (!later) {
        verify(child, false);
        return;
    }
    if (pending_count == MOST_PENDING) abort();
    pending[pending_count++] = child;
}

void cut_pending(struct run *run)
{
    for (uint32_t i = 0; i < pending_count;) {
        struct run *child = pending[i];
        if (child->parent != run) {
            i++;
            continue;
        }
        memmove(&pending[i], &pending[i + 1], (pending_count - i - 1) * sizeof(struct run *));
        pending_count--;
        verify(child, false);
    }
}

static void consider_all(struct run *run, uint64_t event)
{
    uint64_t unsynced = simdisk_unsynced_count(run->disk);
    cut_pending(run);
    for (uint64_t plan = 0; plan < PLANS; plan++) consider(run, event, plan, unsynced, false);
}

/* ---- Where ------------------------------------------------------------------------------------------------------ */

static void at_operation(void *context, const struct simdisk_event *event)
{
    struct run *run = context;
    if (!pthread_equal(owner, pthread_self())) return;
    power_digest = random_mix(power_digest ^ (event->number << 24 ^ event->offset << 8 ^ event->kind));
    switch (event->kind) {
    case SIMDISK_WRITE:
    case SIMDISK_SYNC:
    case SIMDISK_DIR_SYNC:
    case SIMDISK_UNLINK:
    case SIMDISK_RENAME:
    case SIMDISK_LOCK:
        consider_all(run, event->number * 2);
        break;
    default:
        break; /* changes nothing, or what it changes is seen at the next one */
    }
}

static void at_stop(const char *name, void *argument)
{
    struct run *run = current;
    (void)argument;
    if (!pthread_equal(owner, pthread_self())) return;
    if (run == NULL) return;
    if (strncmp(name, "write.", 6) != 0 && strncmp(name, "log.", 4) != 0 && strncmp(name, "checkpoint.", 11) != 0) return;
    if (pending_count > MOST_PENDING - 4) return;
    uint64_t event = ++run->stops * 2 + 1;
    uint64_t unsynced = simdisk_unsynced_count(run->disk);
    if (run->share != 0) return;
    if (run->depth == 0 || random_mix(run->cut_seed + event) % 16 == 0) consider(run, event, PLAN_DEATH, unsynced, true);
    consider(run, event, PLAN_RANDOM + random_mix(run->cut_seed + event) % 3, unsynced, true);
}

void cut_begin(struct run *run)
{
    simdisk_set_hook(run->disk, at_operation, run);
    current = run;
    owner = pthread_self();
    qr_stop_set_hook(at_stop, NULL);
}

void cut_end(struct run *run)
{
    cut_pending(run);
    simdisk_set_hook(run->disk, NULL, NULL);
    current = NULL;
}

void cut_here(struct run *run)
{
    run->stops++;
    consider_all(run, run->stops * 2 + 1);
}

void cut_always(struct run *run)
{
    uint64_t event = ++run->stops * 2 + 1;
    static const uint64_t plans[] = {PLAN_DROP, PLAN_RANDOM};
    for (size_t i = 0; i < 2; i++) {
        if (!is_asked(run, event, plans[i])) continue;
        struct simdisk_crash crash = plan_of(run, event, plans[i], simdisk_unsynced_count(run->disk));
        verify(make(run, event, plans[i], &crash), true);
    }
}

void cut_off(struct run *run, const struct simdisk_crash *crash)
{
    struct simdisk *after = simdisk_crash(run->disk, crash);
    simdisk_set_hook(run->disk, NULL, NULL);
    simdisk_free(run->disk);
    run->disk = after;
    run->low = crash->mode == SIMDISK_DEATH && !run->hurt ? run->process : run->durable;
    run->process = run->low;
    run->lost_power = run->lost_power || crash->mode != SIMDISK_DEATH;
}
