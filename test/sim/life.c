/*
 * A life: opening, clients, cutting, closing; then the lives of what was cut out.
 *
 * LIFE-1  The image opens, at whatever step an earlier opening of it was cut; what it shows can be (expect.c); a check finds
 *         nothing. What it has shown is durable: an image that is cut right after has exactly that.
 * LIFE-2  While clients work every answer can be (history.c); in the end each key holds what the last write has left.
 * LIFE-3  Without a fault nothing fails, and what fails has changed nothing. No block and no file is left over.
 * LIFE-4  An opening that a fault meets answers 0, or what the fault explains: IO, NO_SPACE, and nothing at all for interruptions and
 *         short counts (fault.c). LIFE-1 holds for the next one.
 * LIFE-5  A write that answers UNKNOWN was done: in this life it is there as any other. The next opening shows it or not, as a part of the
 *         prefix that it finds, and then that is so for good (LIFE-1).
 * LIFE-6  Each value that an opening shows has the LSN of its write, which no reader of this life sees otherwise either (HISTORY-3).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "db/db.h"
#include "db/testing.h"
#include "log/files.h"
#include "sim/sim.h"

#define STORE "store"
#define MOST_LOG_FILES 64u
#define MEMORY_LIMIT_BYTES 4194304u /* the lowest one */

static const char *const tree_names[LIST] = {"first", "second", VERSIONED_NAME};

/* ---- Notes ------------------------------------------------------------------------------------------------------ */

struct op *life_begin_op(struct life *life, unsigned client, enum op_kind kind, uint32_t tree, uint32_t key)
{
    if (life->op_count == MOST_OPS) return NULL;
    struct op *op = &life->ops[life->op_count++];
    *op = (struct op){.kind = kind, .client = (uint8_t)client, .tree = (uint8_t)tree, .key = (uint8_t)key};
    op->begin = life->time++;
    op->end = op->shown = NEVER;
    life->current[client] = op;
    life->window[client] = NO_WINDOW;
    if (kind != OP_READ && kind != OP_READ_OLD && kind != OP_ASK) life->begun++;
    return op;
}

/* LIFE-3 */
static bool may_answer(const struct life *life, const struct op *op)
{
    if (op->result == 0) return true;
    if (op->kind == OP_MAKE && (op->result == QUIRE_NOT_FOUND || op->result == QUIRE_ERR_INVALID)) return true;
    if (op->result == QUIRE_EXISTS) return op->kind == OP_INSERT || op->kind == OP_RAISE || op->kind == OP_MAKE;
    if (op->result == QUIRE_ERR_LSN_TOO_OLD) return op->kind == OP_ASK || (op->tree == VERSIONED_TREE && op_writes(op));
    if (op->result == QUIRE_CONFLICT || op->result == QUIRE_NOT_FOUND) return op->kind == OP_SWAP;
    if (memory_may_answer(life, op)) return true;
    if (!life->faulty) return false;
    bool reads_value = op->kind == OP_READ || op->kind == OP_READ_OLD || op->kind == OP_SWAP;
    if (reads_value && fault_may_corrupt(life, op->result)) return true;
    if (op->kind == OP_VERIFY && op->result == QUIRE_ERR_CORRUPT) return fault_fired(life); /* a read failed */
    return fault_may_answer(op->result);
}

/* LIFE-5. It was done, so it had reserved a frame, the last one that was noted. */
static void note_unknown(struct life *life, struct op *op)
{
    sim_counts.unknown_writes++;
    if (op->attempt_count == 0) {
        sim_fail(life, "a write of client %u that answers UNKNOWN had reserved nothing", op->client);
        return;
    }
    op->lsn = op_last_attempt(op)->position;
    op->least = true;
    if (op_last_attempt(op)->lsn == 0) return;
    op->lsn = op_last_attempt(op)->lsn;
    op->least = false;
}

void life_end_op(struct life *life, struct op *op, int result)
{
    op->result = result;
    op->end = life->time++;
    life->current[op->client] = NULL;
    sched_note(op->lsn * 31 + op->cell);
    sched_note((uint64_t)(uint32_t)result);
    sim_counts.ops[op->kind]++;
    if (sim_trace)
        printf("%*s%llu: client %u, kind %u, tree %u, key %u -> %d, cell %llx, LSN %llu\n", (int)life->depth * 2, "",
               (unsigned long long)op->begin, op->client, op->kind, op->tree, op->key, result, (unsigned long long)op->cell,
               (unsigned long long)op->lsn);
    if (!may_answer(life, op)) {
        struct quire_error_detail detail;
        quire_error_detail(&detail);
        sim_fail(life, "kind %u answers %s (%s)", op->kind, quire_strerror(result), detail.message);
    }
    if (!op_writes(op)) return;
    if (op->attempt_count > 1) sim_counts.retried++;
    if (result < 0 && result != QUIRE_ERR_LSN_TOO_OLD && result != QUIRE_ERR_INVALID) sim_counts.failed_writes++;
    if (result == QUIRE_ERR_UNKNOWN) note_unknown(life, op);
    if (result != 0) return;
    sim_counts.writes_done++;
    life->written[op->tree][op->key] = op->end;
    if (op->lsn > life->returned_lsn) life->returned_lsn = op->lsn;
    if (op->lsn > life->max_lsn) life->max_lsn = op->lsn;
    if (op->durable) life_is_durable(life, op->lsn);
}

void life_drop_op(struct life *life, struct op *op)
{
    op->result = QUIRE_END;
    op->end = life->time++;
    life->current[op->client] = NULL;
}

void life_is_durable(struct life *life, uint64_t lsn)
{
    fault_see_lie(life);
    if (lsn > life->durable_lsn) life->durable_lsn = lsn;
}

/* ---- Cutting ---------------------------------------------------------------------------------------------------- */

/* Whether a failed sync has left its mark in the log. A process that dies before that leaves nothing that tells of it (D-32). */
static bool is_marked(struct life *life)
{
    for (uint32_t number = 0; number < MOST_LOG_FILES; number++) {
        char name[QR_LOG_NAME_BYTES];
        uint64_t size;
        qr_log_file_name(number, name);
        const uint8_t *bytes = simdisk_content(life->disk, STORE, name, &size);
        if (bytes == NULL || size < sizeof(struct qr_log_header)) continue;
        if (((const struct qr_log_header *)(const void *)bytes)->poisoned != 0) return true;
    }
    return false;
}

static struct simdisk_crash random_crash(struct life *life, bool race)
{
    static const enum simdisk_mode modes[] = {SIMDISK_DEATH, SIMDISK_DEATH,  SIMDISK_DEATH,  SIMDISK_DROP, SIMDISK_KEEP,
                                              SIMDISK_ONE,   SIMDISK_BUT_ONE, SIMDISK_RANDOM, SIMDISK_RANDOM, SIMDISK_RANDOM};
    struct simdisk_crash crash = {.seed = random_next(&life->random)};
    crash.mode = modes[random_below(&life->random, sizeof(modes) / sizeof(modes[0]))];
    if (race && random_chance(&life->random, 60)) crash.mode = SIMDISK_DEATH; /* what is undecided counts or not */
    /* A file system that takes nothing any more, or no names, has to be mounted again. */
    if (crash.mode == SIMDISK_DEATH && life->hurt && !life->still_mounted) crash.mode = SIMDISK_RANDOM;
    if (crash.mode == SIMDISK_DEATH && life->lie == LIE_OF_OTHERS) crash.mode = SIMDISK_RANDOM; /* nobody would be told in time */
    bool has_failed = life->client_count != 0 ? life->log_failed : life->hurt;
    if (crash.mode == SIMDISK_DEATH && has_failed && !is_marked(life)) crash.mode = SIMDISK_RANDOM;
    uint64_t unsynced = simdisk_unsynced_count(life->disk);
    if (crash.mode == SIMDISK_ONE || crash.mode == SIMDISK_BUT_ONE) {
        crash.one = random_below(&life->random, unsynced);
        if (unsynced == 0) crash.mode = SIMDISK_DROP;
    }
    uint64_t names = random_below(&life->random, 4);
    if (crash.mode == SIMDISK_RANDOM && names != 0) crash.names = names == 1 ? SIMDISK_NAMES_ALL : SIMDISK_NAMES_SUBSET;
    static const enum simdisk_unit units[] = {SIMDISK_UNIT_SECTOR, SIMDISK_UNIT_SECTOR, SIMDISK_UNIT_WORD, SIMDISK_UNIT_BLOCK,
                                              SIMDISK_UNIT_WRITE};
    if (crash.mode == SIMDISK_RANDOM) crash.unit = units[random_below(&life->random, sizeof(units) / sizeof(units[0]))];
    if (random_chance(&life->random, 50)) crash.sizes = SIMDISK_SIZES_CURRENT;
    if (crash.mode == SIMDISK_DROP) crash.sizes = SIMDISK_SIZES_AS_MODE;
    return crash;
}

static void cut(struct life *life, const char *where, bool race)
{
    static const char *const names[] = {"death", "drop", "keep", "one", "but one", "random"};
    if (life->cut_count == MOST_CUTS) return;
    fault_see_lie(life);
    struct simdisk_crash crash = random_crash(life, race);
    struct image *image = &life->cuts[life->cut_count++];
    bool other_mount = crash.mode == SIMDISK_DEATH && random_chance(&life->random, 12) && life->lie == NO_LIE && !life->image.lied;
    if (!life->accepted) {
        *image = life->image; /* what recovery has done so far changes nothing about what may be seen */
        image->all = image->all && crash.mode == SIMDISK_DEATH && !other_mount;
    } else {
        if (life->client_count != 0 && !life->off) life_is_durable(life, qr_log_durable_end(&life->db->log) - 1);
        *image = (struct image){.from = life, .time = life->time++, .durable_lsn = life->durable_lsn, .max_lsn = life->max_lsn};
        image->all = crash.mode == SIMDISK_DEATH && !other_mount && !life->off && !life->hurt;
        image->trees = life->trees_known || life->image.trees;
        memcpy(image->ids, life->image.ids, sizeof(image->ids));
    }
    fault_mark_image(life, image, crash.mode == SIMDISK_DEATH);
    image->disk = simdisk_crash(life->disk, &crash);
    simdisk_facts(image->disk)->space_bytes = UINT64_MAX;
    if (other_mount) simdisk_facts(image->disk)->mount_id += 1000; /* its cache proves nothing */
    size_t used = strlen(life->image.name);
    if (used < sizeof(image->name) - 40)
        snprintf(image->name, sizeof(image->name), "%.100s/%s%s at %.20s", life->image.name, names[crash.mode],
                 other_mount ? " and mount" : "", where);
    sim_counts.cuts[crash.mode]++;
    sched_note(crash.mode);
}

static void plan_cuts(struct life *life, uint32_t count, uint32_t ops)
{
    static const uint64_t delays[CUT_POINTS] = {40, 10, 6, 3, 12};
    life->planned_count = count;
    for (uint32_t i = 0; i < count; i++) {
        enum cut_point point = (enum cut_point)random_below(&life->random, life->plan->make_percent != 0 ? CUT_POINTS : CUT_IN_MAKING);
        life->planned[i] = (struct planned_cut){point, random_between(&life->random, 1, ops),
                                                random_below(&life->random, delays[point])};
    }
}

/* The client has reserved a frame, and somebody else has written the key since its operation began. */
static bool is_race(const struct life *life, unsigned client)
{
    const struct op *op = life->current[client];
    if (op == NULL || !op_writes(op) || op->attempt_count == 0) return false;
    return life->written[op->tree][op->key] > op->begin;
}

static bool is_at(const struct life *life, unsigned client, const char *point, enum cut_point wanted)
{
    bool window = life->window[client] != NO_WINDOW || strncmp(point, "write.", 6) == 0;
    switch (wanted) {
    case CUT_AT_DISK: return strncmp(point, "disk", 4) == 0;
    case CUT_IN_WINDOW: return window;
    case CUT_IN_RACE: return window && is_race(life, client);
    case CUT_IN_MAKING: return life->current[client] != NULL && life->current[client]->kind == OP_MAKE;
    default: return true;
    }
}

static void cut_if_due(struct life *life, unsigned client, const char *point)
{
    for (uint32_t i = 0; i < life->planned_count; i++) {
        struct planned_cut *planned = &life->planned[i];
        if (life->begun < planned->at_op || !is_at(life, client, point, planned->point)) continue;
        if (planned->delay-- != 0) continue;
        planned->at_op = NEVER;
        cut(life, point, planned->point == CUT_IN_RACE);
    }
}

/* ---- Points ----------------------------------------------------------------------------------------------------- */

/* The first point after a reservation: since the client went on last it alone has moved the tail. What a reservation could not
 * use is filled, as frames are, and then it reserves anew: the last frame of a window is the write's. */
static void note_attempt(struct life *life, unsigned client)
{
    struct op *op = life->current[client];
    if (op == NULL || !op_writes(op)) return;
    if (life->window[client] == WINDOW_OPEN) op->attempt_count++;
    uint32_t last = op->attempt_count < MOST_ATTEMPTS ? op->attempt_count - 1 : MOST_ATTEMPTS - 1;
    op->attempts[last] = (struct attempt){.position = life->resumed_at[client], .time = life->time++};
    if (op->tree == LIST) op->attempts[last].lsn = list_reserved_lsn(life, op->key);
    if (op->kind == OP_MAKE) op->cell = make_written(life, op);
    life->window[client] = WINDOW_NOTED;
}

static void follow_window(struct life *life, unsigned client, const char *point)
{
    enum window window = life->window[client];
    bool reserved = strcmp(point, "write.reserved") == 0 || strcmp(point, "write.leaf_reserved") == 0 ||
                    strcmp(point, "write.blind_reserved") == 0;
    if (strcmp(point, "write.slot_open") == 0) life->window[client] = WINDOW_OPEN;
    if (window == NO_WINDOW) return;
    if (strcmp(point, "frame.unnamed") == 0 || (reserved && window == WINDOW_OPEN)) note_attempt(life, client);
    if (reserved) life->window[client] = NO_WINDOW;
}

static void arrives(void *context, unsigned client, const char *point)
{
    struct life *life = context;
    life->log_failed = life->log_failed || qr_log_failure(&life->db->log) != 0;
    follow_window(life, client, point);
    fault_if_due(life);
    cut_if_due(life, client, point);
}

static void goes_on(void *context, unsigned client)
{
    struct life *life = context;
    life->resumed_at[client] = qr_log_tail(&life->db->log);
}

static void at_disk(void *context, const struct simdisk_event *event)
{
    static const char *const names[SIMDISK_KINDS] = {
        "disk",        "disk.dir_open", "disk.list",   "disk.dir_sync", "disk.unlink", "disk.rename", "disk.lock",    "disk.open",
        "disk.read",   "disk.write",    "disk.resize", "disk.allocate", "disk.sync",   "disk.map",    "disk.populate", "disk.transfer"};
    struct life *life = context;
    sched_point(names[event->kind]);
    if (event->kind == SIMDISK_SYNC) fault_note_sync(life, event->name);
    if (life->client_count != 0) return;
    sched_note((uint64_t)event->kind << 32 ^ event->offset); /* outside of the clients' time */
    fault_follow_opening(life, event->kind);
    if (++life->disk_ops == life->opening_cut) {
        cut(life, names[event->kind], false);
        if (life->accepted)
            sim_counts.cuts_closing++;
        else
            sim_counts.cuts_opening++;
    }
}

static void stuck(void *context, const char *why)
{
    struct life *life = context;
    sim_fail(life, "%s", why);
    for (unsigned i = 0; i < life->client_count; i++)
        if (life->current[i] != NULL)
            printf("    client %u: kind %u, tree %u, key %u since %llu\n", i, life->current[i]->kind, life->current[i]->tree,
                   life->current[i]->key, (unsigned long long)life->current[i]->begin);
    fflush(stdout);
    _Exit(1);
}

/* ---- Opening ---------------------------------------------------------------------------------------------------- */

static int open_tree(struct life *life, uint32_t tree, bool create)
{
    struct quire_tree_options options;
    quire_tree_options_init(&options);
    options.must_exist = !create;
    options.versions = tree == VERSIONED_TREE ? QUIRE_VERSIONS_CALLER : QUIRE_VERSIONS_ENGINE;
    options.leaf_page_size_bytes = life->plan->leaf_bytes;
    options.inner_page_size_bytes = 512;
    return quire_tree_open(life->db, tree_names[tree], &options, &life->trees[tree]);
}

static void fail_result(const struct life *life, const char *what, int result)
{
    struct quire_error_detail detail;
    quire_error_detail(&detail);
    sim_fail(life, "%s: %s (%s)", what, quire_strerror(result), detail.message);
}

static int try_to_open(struct life *life)
{
    const struct plan *plan = life->plan;
    struct quire_options options;
    quire_options_init(&options);
    options.background_threads = QUIRE_NO_THREADS;
    options.sync_period_ms = QUIRE_NO_PERIOD;
    options.checkpoint_interval_ms = random_chance(&life->random, 20) ? 1 : QUIRE_NO_PERIOD;
    options.log_segment_bytes = SEGMENT_BYTES;
    options.log_cap_bytes = plan->log_cap;
    options.blob_threshold_bytes = plan->blob_threshold;
    options.log_buffered = plan->mixed ? random_chance(&life->random, 50) : plan->buffered;
    life->buffered = options.log_buffered != 0;
    life->off = random_chance(&life->random, plan->off_percent);
    options.disable_log = life->off;
    options.level = life->off ? 0 : plan->level;
    if (plan->memory_percent != 0) options.memory_limit_bytes = MEMORY_LIMIT_BYTES;
    if (plan->memory_percent != 0) options.stall_timeout_ms = 2;
    options.no_sync_at_close = random_chance(&life->random, 50);
    life->closing_syncs = options.no_sync_at_close == 0;
    int result = qr_db_open(STORE, simdisk_disk(life->disk), &options, &life->db);
    sched_note((uint64_t)(uint32_t)result);
    return result;
}

/* The process that could not open it tries again, or another one in this boot does, or the power goes first. */
static void begin_again(struct life *life)
{
    bool power = life->needs_mount || random_chance(&life->random, 20);
    if (!power && random_chance(&life->random, 60)) return;
    struct simdisk_crash crash = {.mode = power ? SIMDISK_RANDOM : SIMDISK_DEATH, .seed = random_next(&life->random)};
    struct simdisk *after = simdisk_crash(life->disk, &crash);
    simdisk_set_hook(life->disk, NULL, NULL);
    simdisk_free(life->disk);
    life->disk = after;
    simdisk_set_hook(life->disk, at_disk, life);
    life->image.all = life->image.all && !power;
    fault_mark_image(life, &life->image, !power);
}

/* LIFE-4 */
static bool open_store(struct life *life)
{
    int result = -1;
    for (uint32_t i = 0; i < MOST_REFUSALS && random_chance(&life->random, life->plan->opening_fault_percent); i++) {
        fault_set_for_opening(life);
        result = try_to_open(life);
        fault_end_of_opening(life, result);
        if (result == 0 || sim_failures != 0) return result == 0;
        if (simdisk_open_count(life->disk) != 0) sim_fail(life, "an opening that failed leaves files open");
        begin_again(life);
    }
    result = try_to_open(life);
    /* Of a lie it is told once for each file. */
    for (uint32_t i = 0; i < MOST_REFUSALS && result == QUIRE_ERR_IO && life->image.lied; i++) result = try_to_open(life);
    if (result != 0 && !fault_lie_explains(life, result)) fail_result(life, "open", result);
    return result == 0;
}

/* A tree, or the list of them. */
static int look_at(struct life *life, uint32_t tree, struct contents *ret_contents, uint64_t (*ret_lsns)[CELLS])
{
    if (tree == LIST) return list_look(life, ret_contents, ret_lsns);
    if (tree == VERSIONED_TREE) return version_look(life, ret_contents, ret_lsns);
    for (uint32_t k = 0; k < KEYS; k++) {
        int result = client_look(life, tree, k, &ret_contents->cells[tree][k], &ret_lsns[tree][k]);
        if (fault_may_corrupt(life, result))
            ret_contents->cells[tree][k] = NEVER;
        else if (result != 0)
            return result;
    }
    return 0;
}

static bool look(struct life *life, struct contents *ret_contents, uint64_t (*ret_lsns)[CELLS])
{
    char message[256];
    memset(ret_contents, 0, sizeof(*ret_contents));
    memset(ret_lsns, 0, SIM_TREES * sizeof(*ret_lsns));
    for (uint32_t t = 0; t < SIM_TREES; t++) {
        if (t != LIST && life->trees[t] == NULL) continue;
        if (t != LIST && qr_testing_check(life->trees[t], message, sizeof(message)) != 0) {
            if (!fault_lie_explains(life, QUIRE_ERR_CORRUPT)) sim_fail(life, "tree %u: %s", t, message);
            return false;
        }
        int result = look_at(life, t, ret_contents, ret_lsns);
        if (result != 0 && !fault_lie_explains(life, result)) fail_result(life, "a read", result);
        if (result != 0) return false;
    }
    return sim_failures == 0;
}

static int tell_defect(void *context, const struct quire_defect *defect)
{
    struct life *life = context;
    if (!fault_defect_explained(life, defect) && !life->image.may_be_corrupt)
        sim_fail(life, "the check finds: %s (%s)", defect->text, defect->file == NULL ? "" : defect->file);
    return 0;
}

/* LIFE-6 */
static bool accept_lsns(const struct life *life, uint64_t last)
{
    for (uint32_t t = 0; t < SIM_TREES; t++) {
        for (uint32_t k = 0; k < cells_of(t); k++) {
            uint64_t lsn = life->base_lsns[t][k], cell = life->base.cells[t][k];
            if (lsn == 0 || (lsn <= last && expect_lsn(&life->image, t, k, cell, lsn))) continue;
            sim_fail(life, "tree %u, key %u is %llx with LSN %llu, which no write of it had; the last one is %llu", t, k,
                     (unsigned long long)cell, (unsigned long long)lsn, (unsigned long long)last);
            return false;
        }
    }
    return true;
}

static uint64_t contents_hash(const struct contents *contents)
{
    uint64_t hash = 0;
    for (uint32_t t = 0; t < SIM_TREES; t++)
        for (uint32_t k = 0; k < cells_of(t); k++) hash = random_mix(hash ^ contents->cells[t][k]);
    return hash;
}

/* LIFE-1 */
static bool accept(struct life *life)
{
    char text[256];
    uint64_t last = 0;
    for (uint32_t t = 0; t < LIST; t++) {
        int result = open_tree(life, t, false);
        if (result == QUIRE_NOT_FOUND && !life->image.trees) continue;
        if (result != 0 && !fault_lie_explains(life, result)) fail_result(life, "opening a tree", result);
        if (result != 0) return false;
    }
    if (!look(life, &life->base, life->base_lsns)) return false;
    if (!expect_check(&life->image, &life->base, text, sizeof(text))) {
        sim_fail(life, "%s", text);
        return false;
    }
    int result = quire_last_lsn(life->db, &last);
    if (result != 0) fail_result(life, "the last LSN", result);
    if (!accept_lsns(life, last)) return false;
    life->max_lsn = last > life->image.max_lsn ? last : life->image.max_lsn;
    life->image.max_lsn = life->max_lsn;
    life->safe = life->base.cells[LIST][SAFE_CELL];
    for (uint32_t k = 1; k < LIST_CELLS; k++) {
        life->made[k] = life->base.cells[LIST][k] != 0;
        sim_counts.made_found += life->made[k];
    }
    life->accepted = true;
    sched_note(contents_hash(&life->base));
    result = fault_of_check(life, quire_verify(life->db, tell_defect, life));
    if (result != 0 && !fault_lie_explains(life, result)) fail_result(life, "the check", result);
    life->image.may_be_corrupt = false;
    if (simdisk_late_count(life->disk) != 0) life->faulty = life->hurt = life->still_mounted = true; /* what is still to be told */
    return result == 0;
}

static bool make_trees(struct life *life)
{
    bool made = false;
    for (uint32_t t = 0; t < LIST; t++) {
        if (life->trees[t] != NULL) continue;
        int result = open_tree(life, t, true);
        if (result != 0) fail_result(life, "making a tree", result);
        if (result != 0) return false;
        made = true;
    }
    if (made || !life->image.trees) {
        int result = version_begin(life);
        if (result == 0) result = quire_sync(life->db);
        if (result != 0) fail_result(life, "the beginning of the trees", result);
        if (result != 0) return false;
    }
    for (uint32_t t = 0; t < LIST; t++) life->image.ids[t] = life->trees[t]->tree.id;
    life->trees_known = true;
    return true;
}

/* ---- Work ------------------------------------------------------------------------------------------------------- */

static void client(void *context, unsigned number)
{
    client_run(context, number);
}

static void work(struct life *life)
{
    const struct plan *plan = life->plan;
    uint32_t ops = life->depth == 0 ? plan->ops : plan->ops / 4;
    uint32_t count = plan->clients;
    struct sched_setup setup = {
        .kind = plan->kind,
        .switch_percent = plan->switch_percent,
        .expected_points = ops * 15,
        .most_points = 4000000,
        .client = client,
        .arrives = arrives,
        .goes_on = goes_on,
        .stuck = stuck,
        .context = life,
    };
    life->ops_each = ops / count + 1;
    for (uint32_t i = 0; i < count; i++) life->streams[i] = random_split(&life->random);
    uint32_t counted = ops * (100 - plan->read_percent) / 100; /* reads are not */
    plan_cuts(life, life->depth == 0 ? (uint32_t)random_between(&life->random, 2, 4) : 1, counted);
    if (random_chance(&life->random, plan->fault_percent)) life->fault_at_op = random_between(&life->random, 1, counted);
    life->client_count = count;
    sched_run(&setup, count, random_split(&life->random));
    life->client_count = 0;
    fault_end(life);
    memory_end(life);
    history_check(life);
}

/* LIFE-2 */
static void check_last(struct life *life)
{
    struct contents shown, last;
    uint64_t lsns[SIM_TREES][CELLS];
    if (sim_failures != 0 || !look(life, &shown, lsns)) return;
    history_last(life, &last);
    for (uint32_t t = 0; t < SIM_TREES; t++)
        for (uint32_t k = 0; k < cells_of(t); k++)
            if (shown.cells[t][k] != NEVER && shown.cells[t][k] != last.cells[t][k])
                sim_fail(life, "in the end tree %u, key %u is %llx, should be %llx", t, k,
                         (unsigned long long)shown.cells[t][k], (unsigned long long)last.cells[t][k]);
    if (life->faulty || !random_chance(&life->random, 25)) return;
    /* With nothing written since, the check compares the accounts of space with a scan. */
    int result = quire_checkpoint(life->db);
    if (result == 0) result = fault_of_check(life, quire_verify(life->db, tell_defect, life));
    if (result != 0) fail_result(life, "a checkpoint and a check in the end", result);
}

/* ---- The life --------------------------------------------------------------------------------------------------- */

/* In the opening or closing one may be cut. */
static void plan_cut_outside(struct life *life, unsigned percent, uint64_t most)
{
    life->disk_ops = 0;
    bool wanted = life->depth < life->plan->depth && random_chance(&life->random, percent);
    life->opening_cut = wanted ? random_between(&life->random, 1, most) : 0;
}

static void count_work(struct life *life)
{
    struct quire_stats stats = {.struct_size = sizeof(stats)};
    if (quire_stats(life->db, &stats) != 0) return;
    sim_counts.splits += stats.tree_splits;
    sim_counts.merges += stats.tree_merges;
    sim_counts.consolidations += stats.tree_consolidations;
    sim_counts.checkpoints += stats.checkpoints;
    sim_counts.log_segments += stats.log_segments_made + stats.log_segments_recycled;
}

static void close_store(struct life *life)
{
    if (life->db == NULL) return;
    if (life->client_count == 0 && life->op_count != 0) count_work(life);
    int result = quire_close(life->db);
    life->db = NULL;
    if (result != 0 && !(life->faulty && fault_may_answer(result))) fail_result(life, "close", result);
    if (result == 0 && life->accepted && life->closing_syncs) life->durable_lsn = NEVER - 1;
}

/* The same disk, opened again in good order, or after a sync has failed. */
static void keep_for_reopening(struct life *life)
{
    if (life->cut_count == MOST_CUTS || life->depth >= life->plan->depth || !life->accepted) return;
    if (life->hurt && (!life->still_mounted || life->lie == LIE_OF_OTHERS)) return;
    struct simdisk_crash crash = {.mode = SIMDISK_DEATH};
    struct image *image = &life->cuts[life->cut_count++];
    *image = (struct image){.from = life, .time = life->time++, .durable_lsn = life->durable_lsn, .max_lsn = life->max_lsn};
    image->all = !life->off && !life->hurt;
    image->trees = life->trees_known || life->image.trees;
    memcpy(image->ids, life->image.ids, sizeof(image->ids));
    fault_mark_image(life, image, true);
    image->disk = simdisk_crash(life->disk, &crash);
    snprintf(image->name, sizeof(image->name), "%.120s/reopened", life->image.name);
    sim_counts.reopened++;
}

static struct life *life_create(const struct plan *plan, const struct image *image, unsigned depth, uint64_t seed)
{
    struct life *life = calloc(1, sizeof(*life));
    if (life == NULL || (life->ops = calloc(MOST_OPS, sizeof(*life->ops))) == NULL ||
        (life->order = calloc(MOST_OPS, sizeof(*life->order))) == NULL)
        abort();
    life->plan = plan;
    life->image = *image;
    life->depth = depth;
    life->disk = image->disk;
    life->lies_before = simdisk_effect_count(SIMDISK_SYNC_LIED);
    random_seed(&life->random, seed);
    return life;
}

static void life_free(struct life *life)
{
    simdisk_set_hook(life->disk, NULL, NULL);
    if (simdisk_mistakes(life->disk) != 0) sim_fail(life, "stores where there is no space");
    if (simdisk_open_count(life->disk) != 0)
        sim_fail(life, "files or directories are left open");
    else
        simdisk_free(life->disk);
    free(life->ops);
    free(life->order);
    free(life);
}

void life_run(const struct plan *plan, const struct image *image, unsigned depth, uint64_t seed)
{
    struct life *life = life_create(plan, image, depth, seed);
    bool last = depth >= plan->depth;
    sim_counts.lives++;
    simdisk_set_hook(life->disk, at_disk, life);
    plan_cut_outside(life, 50, 40);
    bool good = open_store(life) && accept(life);
    /* What it has shown must stay, whatever the page cache had said. */
    bool doubtful = (life->opening_hits >> SIMDISK_SYNC & 1) != 0;
    if (good && !last && (doubtful || random_chance(&life->random, 30))) cut(life, "opened", false);
    if (good && !last && !life->hurt && make_trees(life)) {
        work(life);
        check_last(life);
    }
    plan_cut_outside(life, 30, 12);
    close_store(life);
    if (good && !last && (life->hurt || random_chance(&life->random, 40))) keep_for_reopening(life);
    for (uint32_t i = 0; i < life->cut_count; i++) {
        sim_counts.images++;
        if (sim_failures == 0)
            life_run(plan, &life->cuts[i], depth + 1, random_mix(seed ^ random_mix(i + 1)));
        else
            simdisk_free(life->cuts[i].disk);
    }
    life_free(life);
}
