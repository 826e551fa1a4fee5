/*
 * Goal: power lost, the process killed or a call failing at any operation leaves a manifest with all that was
 * acknowledged, and of what was not, all or nothing; and what is written after the next opening stays. Method: a script
 * of creation, appends and rollovers on the simulated disk. At each of its operations images are taken, of all kinds of
 * crashes; each is opened, compared, opened again with crashes in the recovery, and written to. Then the script again
 * with each operation failing, in several ways.
 */
#include "lib/check.h"
#include "lib/options.h"
#include "lib/simdisk.h"

#include "base/check.h"
#include "store/manifest.h"
#include "store/records.h"

#include <quire/quire.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH "db"

/* ---- Records that show what they are ---------------------------------------------------------------------------- */

/* A payload begins with the record's number; the rest follows from it. */
static void fill_payload(uint8_t *payload, uint32_t size, uint64_t number)
{
    for (uint32_t i = 0; i < size; i++)
        payload[i] = i < 8 ? (uint8_t)(number >> 8 * i) : (uint8_t)(number * 31 + i * (i >> 8) + i);
}

/* What the visits of an opening have shown: the numbers, in order. */
struct state {
    unsigned count;
    uint64_t numbers[64];
};

static int see(void *context, const struct qr_manifest_record *record)
{
    static uint8_t expected[QR_MANIFEST_PAYLOAD_MOST];
    struct state *state = context;
    uint64_t number = 0;

    CHECK(record->size >= 8, "a record of %u bytes", record->size);
    memcpy(&number, record->payload, sizeof(number));
    fill_payload(expected, record->size, number);
    CHECK(memcmp(expected, record->payload, record->size) == 0, "record %llu is wrong", (unsigned long long)number);
    if (CHECK(state->count < QR_ARRAY_COUNT(state->numbers), "too many records"))
        state->numbers[state->count++] = number;
    return 0;
}

static bool is_equal(const struct state *a, const struct state *b)
{
    return a->count == b->count && memcmp(a->numbers, b->numbers, a->count * sizeof(a->numbers[0])) == 0;
}

/* ---- The script ------------------------------------------------------------------------------------------------- */

enum step_kind { CREATE, APPEND, REWRITE };

struct step {
    enum step_kind kind;
    uint32_t sizes[5]; /* of the payloads; 0 ends */
};

static const struct step script[] = {
    {CREATE, {64}},        {APPEND, {64}},
    {APPEND, {192, 16}},   {APPEND, {1500, 900, 8}},
    {APPEND, {4096}},      {REWRITE, {64, 64, 192}},
    {APPEND, {192, 3000}}, {REWRITE, {4096, 4096, 64, 192}}, /* a larger file */
    {APPEND, {16}},        {APPEND, {700, 700}},
    {REWRITE, {64, 192}}, /* a smaller one */
    {APPEND, {192, 16}},
};
enum { STEPS = QR_ARRAY_COUNT(script) };

/* After so many steps. [0]: there is no manifest. */
static struct state states[STEPS + 1];

static size_t count_of(const struct step *step)
{
    size_t count = 0;
    while (count < QR_ARRAY_COUNT(step->sizes) && step->sizes[count] != 0)
        count++;
    return count;
}

static uint64_t number_of(unsigned step, size_t index)
{
    return 100 * (uint64_t)step + index + 1;
}

static void make_states(void)
{
    for (unsigned step = 0; step < STEPS; step++) {
        struct state *after = &states[step + 1];
        *after = script[step].kind == APPEND ? states[step] : (struct state){0};
        for (size_t i = 0; i < count_of(&script[step]); i++)
            after->numbers[after->count++] = number_of(step, i);
    }
}

static int give_id(void *context, void *memory, size_t size)
{
    (void)context;
    memset(memory, 0x1d, size);
    return 0;
}
static const struct qr_manifest_setup setup = {.random = give_id};

static int do_step(struct qr_dir *dir, unsigned number, struct qr_manifest **manifest)
{
    static uint8_t payloads[5][QR_MANIFEST_PAYLOAD_MOST];
    struct qr_manifest_record records[5];
    const struct step *step = &script[number];
    size_t count = count_of(step);

    for (size_t i = 0; i < count; i++) {
        fill_payload(payloads[i], step->sizes[i], number_of(number, i));
        records[i] = (struct qr_manifest_record){
            .kind = (uint16_t)(QR_MANIFEST_STORE + i), .size = step->sizes[i], .payload = payloads[i]};
    }
    if (step->kind == CREATE)
        return qr_manifest_create(dir, &setup, records, count, manifest);
    if (step->kind == APPEND)
        return qr_manifest_append(*manifest, records, count);
    return qr_manifest_rewrite(*manifest, records, count);
}

/* ---- Opening and writing on ------------------------------------------------------------------------------------- */

static struct qr_dir *open_dir(struct simdisk *disk, unsigned flags)
{
    struct qr_dir *dir = NULL;
    int error = simdisk_disk(disk)->ops->dir_open(simdisk_disk(disk), PATH, flags, &dir);
    return error == 0 ? dir : NULL;
}

static void close_dir(struct qr_dir *dir)
{
    dir->disk->ops->dir_close(dir);
}

/* What a run may have left: the states first to last, and after them one with the number of write_on. */
struct expected {
    unsigned first, last;
    bool has_more;
};

enum { NUMBER_LATER = 9999 };

static int append_later(struct qr_manifest *manifest, bool by_rewrite, const struct state *state)
{
    static uint8_t payloads[64][8];
    struct qr_manifest_record records[64];
    for (unsigned i = 0; i <= state->count; i++) {
        fill_payload(payloads[i], 8, i < state->count ? state->numbers[i] : NUMBER_LATER);
        records[i] = (struct qr_manifest_record){.kind = QR_MANIFEST_POISON, .size = 8, .payload = payloads[i]};
    }
    return by_rewrite ? qr_manifest_rewrite(manifest, records, state->count + 1)
                      : qr_manifest_append(manifest, records + state->count, 1);
}

static struct state with_later(const struct state *state)
{
    struct state more = *state;
    more.numbers[more.count++] = NUMBER_LATER;
    return more;
}

/* Reads what is there and compares. The number of the state, or -1. */
static int expect_state(int result, const struct state *seen, const struct expected *expected, const char *when)
{
    for (unsigned i = expected->first; i <= expected->last; i++) {
        struct state more = with_later(&states[i]);
        if (i == 0 && result == QUIRE_NOT_FOUND)
            return 0;
        if (i != 0 && result == 0 && (is_equal(seen, &states[i]) || (expected->has_more && is_equal(seen, &more))))
            return (int)i;
    }
    struct quire_error_detail detail;
    quire_error_detail(&detail);
    check_fail(__FILE__, __LINE__, "one of the states", "%s: %d (%s), %u records; expected a state from %u to %u", when,
               result, result < 0 ? detail.message : "", seen->count, expected->first, expected->last);
    return -1;
}

/* Opening for reading writes nothing. */
static void expect_read_only(struct simdisk *disk, const struct expected *expected)
{
    struct state seen = {0};
    struct qr_manifest *manifest = NULL;
    struct qr_dir *dir = open_dir(disk, QR_DIR_READ_ONLY);
    static const enum simdisk_kind changes[] = {SIMDISK_WRITE,  SIMDISK_UNLINK, SIMDISK_RENAME,
                                                SIMDISK_RESIZE, SIMDISK_SYNC,   SIMDISK_DIR_SYNC};
    uint64_t before = 0, after = 0;

    if (dir == NULL)
        return;
    for (size_t i = 0; i < QR_ARRAY_COUNT(changes); i++)
        before += simdisk_count(disk, changes[i]);
    int result = qr_manifest_open(dir, false, see, &seen, &manifest);
    expect_state(result, &seen, expected, "read only");
    if (result == 0) {
        CHECK_EQUAL(append_later(manifest, false, &seen), QUIRE_ERR_INVALID);
        CHECK_EQUAL(append_later(manifest, true, &seen), QUIRE_ERR_INVALID);
        qr_manifest_close(manifest);
    }
    for (size_t i = 0; i < QR_ARRAY_COUNT(changes); i++)
        after += simdisk_count(disk, changes[i]);
    CHECK_EQUAL(after, before);
    close_dir(dir);
}

/*
 * What a store does after a crash: opens, and writes; creates if nothing is there. *ret_reached: the state found; then,
 * when 0 was returned, there is one more record in it.
 */
static int recover(struct simdisk *disk, bool by_rewrite, const struct expected *expected, int *ret_reached)
{
    struct state seen = {0};
    struct qr_manifest *manifest = NULL;
    struct qr_dir *dir = open_dir(disk, QR_DIR_CREATE);
    uint64_t size;

    if (dir == NULL)
        return QUIRE_ERR_IO;
    *ret_reached = 0;
    int result = qr_manifest_open(dir, true, see, &seen, &manifest);
    if (result >= 0)
        *ret_reached = expect_state(result, &seen, expected, "recovery");
    if (result == QUIRE_NOT_FOUND) {
        result = do_step(dir, 0, &manifest);
        seen = states[1];
    }
    if (result == 0) {
        CHECK(simdisk_content(disk, PATH, QR_MANIFEST_NEW_NAME, &size) == NULL, "manifest.new is still there");
        if (seen.count == 0 || seen.numbers[seen.count - 1] != NUMBER_LATER)
            result = append_later(manifest, by_rewrite, &seen);
        if (result == QR_MANIFEST_FULL)
            result = append_later(manifest, true, &seen);
        qr_manifest_close(manifest);
    }
    close_dir(dir);
    return result;
}

/* After a power loss that takes all that it can: what recovery acknowledged is there. */
static void expect_recovered(struct simdisk *disk, int reached, const char *when)
{
    struct simdisk *after = simdisk_crash(disk, &(struct simdisk_crash){.mode = SIMDISK_DROP});
    struct qr_dir *dir = open_dir(after, 0);
    struct state seen = {0}, wanted = with_later(&states[reached == 0 ? 1 : reached]);
    struct qr_manifest *manifest = NULL;

    if (CHECK(dir != NULL, "%s: the directory is gone", when)) {
        int result = qr_manifest_open(dir, true, see, &seen, &manifest);
        CHECK(result == 0 && is_equal(&seen, &wanted), "%s: %d, %u records after state %d", when, result, seen.count,
              reached);
        qr_manifest_close(result == 0 ? manifest : NULL);
        close_dir(dir);
    }
    simdisk_free(after);
}

/* ---- Crashes ---------------------------------------------------------------------------------------------------- */

static uint64_t image_count;
static int ends_early; /* at the first image that fails */

typedef void image_check(void *context, struct simdisk *after);

/* All kinds of crashes of a moment; `seeds` of the random ones. */
static void crash_in_all_ways(struct simdisk *disk, unsigned seeds, image_check *check, void *context)
{
    struct simdisk_crash crashes[64] = {{.mode = SIMDISK_DROP}, {.mode = SIMDISK_KEEP}, {.mode = SIMDISK_DEATH}};
    size_t count = 3;
    for (uint64_t i = 0; i < simdisk_unsynced_count(disk) && count + 2 <= 32; i++) {
        crashes[count++] = (struct simdisk_crash){.mode = SIMDISK_ONE, .one = i};
        crashes[count++] = (struct simdisk_crash){.mode = SIMDISK_BUT_ONE, .one = i};
    }
    for (unsigned i = 0; i < seeds && simdisk_unsynced_count(disk) != 0; i++) {
        crashes[count++] = (struct simdisk_crash){
            .mode = SIMDISK_RANDOM,
            .seed = simdisk_count(disk, SIMDISK_ANY) * 64 + i,
            .names = i % 2 == 0 ? SIMDISK_NAMES_AS_MODE : SIMDISK_NAMES_SUBSET,
        };
    }
    for (size_t i = 0; i < count; i++) {
        struct simdisk *after = simdisk_crash(disk, &crashes[i]);
        image_count++;
        check(context, after);
        simdisk_free(after);
        if (ends_early && check_failures() != 0)
            exit(check_finish());
    }
}

/* An image of power lost during recovery: the same again, with the record that recovery may have written. */
struct second {
    struct simdisk *disk;
    struct expected expected;
    unsigned seeds;
};

static void check_second(void *context, struct simdisk *after)
{
    struct second *second = context;
    int reached = -1;
    expect_read_only(after, &second->expected);
    CHECK_EQUAL(recover(after, false, &second->expected, &reached), 0);
    if (reached >= 0)
        expect_recovered(after, reached, "second recovery");
}

static void second_hook(void *context, const struct simdisk_event *event)
{
    struct second *second = context;
    (void)event;
    crash_in_all_ways(second->disk, second->seeds, check_second, second);
}

/* What the script has done when an image is taken. */
struct run {
    struct simdisk *disk;
    struct expected expected;
    unsigned seeds, second_seeds;
};

/* What a crashed recovery may leave: any of the states, that of a creation, and one more record. */
static struct expected after_recovery(const struct expected *expected)
{
    return (struct expected){expected->first, expected->last == 0 ? 1 : expected->last, true};
}

static void check_image(void *context, struct simdisk *after)
{
    struct run *run = context;
    struct second second = {.expected = after_recovery(&run->expected), .seeds = run->second_seeds};
    int reached = -1;

    expect_read_only(after, &run->expected);
    second.disk = simdisk_crash(after, &(struct simdisk_crash){.mode = SIMDISK_KEEP});
    simdisk_set_hook(second.disk, second_hook, &second);
    CHECK_EQUAL(recover(second.disk, image_count % 2 == 0, &run->expected, &reached), 0);
    simdisk_free(second.disk);

    CHECK_EQUAL(recover(after, image_count % 3 == 0, &run->expected, &reached), 0);
    if (reached >= 0)
        expect_recovered(after, reached, "recovery");
}

static void run_hook(void *context, const struct simdisk_event *event)
{
    struct run *run = context;
    (void)event;
    crash_in_all_ways(run->disk, run->seeds, check_image, run);
}

static void crash_everywhere(unsigned seeds, unsigned second_seeds)
{
    struct run run = {.disk = simdisk_create(), .seeds = seeds, .second_seeds = second_seeds};
    struct qr_dir *dir = open_dir(run.disk, QR_DIR_CREATE);
    struct qr_manifest *manifest = NULL;

    simdisk_set_hook(run.disk, run_hook, &run);
    for (unsigned step = 0; step < STEPS; step++) {
        run.expected = (struct expected){step, step + 1, false};
        CHECK_EQUAL(do_step(dir, step, &manifest), 0);
        run.expected = (struct expected){step + 1, step + 1, false};
        run_hook(&run, NULL);
    }
    simdisk_set_hook(run.disk, NULL, NULL);
    qr_manifest_close(manifest);
    close_dir(dir);
    CHECK_EQUAL(simdisk_open_count(run.disk), 0);
    simdisk_free(run.disk);
}

/* ---- Failures --------------------------------------------------------------------------------------------------- */

/* How far a run came in which something failed. */
struct failed_run {
    struct simdisk *disk;
    struct expected expected;
    bool names_in_doubt; /* a sync of the directory failed */
};

static void check_after_failure(void *context, struct simdisk *after)
{
    const struct failed_run *run = context;
    int reached = -1;
    CHECK_EQUAL(recover(after, run->names_in_doubt, &run->expected, &reached), 0);
    if (reached >= 0)
        expect_recovered(after, reached, "after a failure");
}

/* A manifest whose write or sync failed takes nothing more; one whose rewrite did not begin goes on. */
static void expect_failed(struct qr_manifest *manifest, unsigned step, int result, bool is_rewrite)
{
    int again = append_later(manifest, false, &states[step]);
    if (again == 0 && is_rewrite)
        return;
    CHECK(again == result, "step %u: %d first, then %d", step, result, again);
    CHECK_EQUAL(append_later(manifest, true, &states[step]), result);
}

/* The script with a fault. True: it came to its end without. */
static bool run_with_fault(const struct simdisk_fault *fault, bool is_harmless, unsigned seeds)
{
    struct failed_run run = {.disk = simdisk_create()};
    struct qr_dir *dir = open_dir(run.disk, QR_DIR_CREATE);
    struct qr_manifest *manifest = NULL;
    unsigned number = simdisk_fault_set(run.disk, fault), step = 0;
    int result = 0;

    while (step < STEPS) {
        uint64_t name_syncs = simdisk_count(run.disk, SIMDISK_DIR_SYNC);
        result = do_step(dir, step, &manifest);
        run.names_in_doubt = simdisk_count(run.disk, SIMDISK_DIR_SYNC) != name_syncs;
        if (result != 0)
            break;
        step++;
    }
    bool has_fired = simdisk_fault_fired(run.disk, number) != 0;
    simdisk_faults_clear(run.disk);
    if (is_harmless || !has_fired) {
        CHECK(result == 0, "step %u: %d", step, result);
        run.expected = (struct expected){STEPS, STEPS, false};
    } else {
        /* A failure may be without consequence (an unlink); if it is reported, it is by its name. */
        CHECK(result == 0 || result == (fault->error == ENOSPC ? QUIRE_ERR_NO_SPACE : QUIRE_ERR_IO), "step %u: %d",
              step, result);
        run.expected = (struct expected){step, step + (result != 0), result != 0 && step != 0};
        if (result != 0 && step != 0)
            expect_failed(manifest, step, result, script[step].kind == REWRITE);
    }
    qr_manifest_close(step == 0 ? NULL : manifest);
    close_dir(dir);
    CHECK_EQUAL(simdisk_open_count(run.disk), 0);
    crash_in_all_ways(run.disk, seeds, check_after_failure, &run);
    simdisk_free(run.disk);
    return !has_fired;
}

static void fail_everywhere(unsigned seeds)
{
    static const struct simdisk_fault faults[] = {
        {.kind = SIMDISK_ANY, .error = EIO},
        {.kind = SIMDISK_ANY, .error = EIO, .for_good = true},
        {.kind = SIMDISK_ANY, .error = ENOSPC},
        {.kind = SIMDISK_WRITE, .short_bytes = 100},
        {.kind = SIMDISK_WRITE, .short_bytes = 0, .error = EINTR},
        {.kind = SIMDISK_SYNC, .error = EINTR},
        {.kind = SIMDISK_DIR_SYNC, .error = EINTR},
        {.kind = SIMDISK_READ, .short_bytes = 10},
    };
    for (size_t i = 0; i < QR_ARRAY_COUNT(faults); i++) {
        struct simdisk_fault fault = faults[i];
        bool is_harmless = fault.error == 0 || fault.error == EINTR;
        for (fault.nth = 1; fault.nth < 1000 && !run_with_fault(&fault, is_harmless, seeds); fault.nth++)
            continue;
        CHECK(fault.nth < 1000, "fault %zu never ends", i);
    }
}

/* The same for what opening for writing does. */
static void fail_opening(unsigned seeds)
{
    bool has_fired = true;
    for (uint64_t nth = 1; has_fired; nth++) {
        struct failed_run run = {.disk = simdisk_create(), .expected = {STEPS, STEPS, false}};
        struct qr_dir *dir = open_dir(run.disk, QR_DIR_CREATE);
        struct qr_manifest *manifest = NULL;
        struct state seen = {0};
        for (unsigned step = 0; step < STEPS; step++)
            CHECK_EQUAL(do_step(dir, step, &manifest), 0);
        qr_manifest_close(manifest);
        unsigned fault = simdisk_fault_set(run.disk, &(struct simdisk_fault){.nth = nth, .error = EIO});
        int result = qr_manifest_open(dir, true, see, &seen, &manifest);
        has_fired = simdisk_fault_fired(run.disk, fault) != 0;
        CHECK(result == (has_fired ? QUIRE_ERR_IO : 0), "operation %llu: %d", (unsigned long long)nth, result);
        if (result == 0)
            qr_manifest_close(manifest);
        simdisk_faults_clear(run.disk);
        close_dir(dir);
        CHECK_EQUAL(simdisk_open_count(run.disk), 0);
        crash_in_all_ways(run.disk, seeds, check_after_failure, &run);
        simdisk_free(run.disk);
    }
}

/* ---- Damage ----------------------------------------------------------------------------------------------------- */

static uint64_t hash_of(struct simdisk *disk)
{
    uint64_t size = 0;
    const uint8_t *bytes = simdisk_content(disk, PATH, QR_MANIFEST_NAME, &size);
    uint64_t hash = size;
    for (uint64_t i = 0; i < size; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}

/* Opened and written to; or refused, and not touched. M06: what was appended after a torn tail is there. */
static void expect_after_damage(struct simdisk *damaged, const struct expected *expected, bool must_open,
                                const char *what, uint64_t at)
{
    uint64_t before = hash_of(damaged);
    int reached = -1;
    int result = recover(damaged, at % 2 == 0, expected, &reached);
    if (result == 0 && reached >= 0) {
        expect_recovered(damaged, reached, what);
        return;
    }
    CHECK(!must_open && (result == QUIRE_ERR_CORRUPT || result == QUIRE_ERR_FOREIGN), "%s at %llu: %d", what,
          (unsigned long long)at, result);
    CHECK(hash_of(damaged) == before, "%s at %llu: refused and changed", what, (unsigned long long)at);
}

/* F17, M06: every length, every bit. test/unit/store_format.c knows which answer is the right one where. */
static void damage_everywhere(uint64_t every)
{
    enum { STEPS_DONE = 4 };
    const struct expected all = {STEPS_DONE, STEPS_DONE, false}, all_or_less = {STEPS_DONE - 1, STEPS_DONE, false};
    const struct simdisk_crash keep = {.mode = SIMDISK_KEEP};
    struct simdisk *disk = simdisk_create();
    struct qr_dir *dir = open_dir(disk, QR_DIR_CREATE);
    struct qr_manifest *manifest = NULL;
    uint64_t size;

    for (unsigned step = 0; step < STEPS_DONE; step++)
        CHECK_EQUAL(do_step(dir, step, &manifest), 0);
    uint64_t used = qr_manifest_used_bytes(manifest);
    qr_manifest_close(manifest);
    close_dir(dir);
    const uint8_t *bytes = simdisk_content(disk, PATH, QR_MANIFEST_NAME, &size);
    for (uint64_t cut = 0; cut < size; cut += cut < used + 64 ? 1 : 97) {
        struct simdisk *damaged = simdisk_crash(disk, &keep);
        simdisk_damage_size(damaged, PATH, QR_MANIFEST_NAME, cut);
        expect_after_damage(damaged, &all, cut >= used + 16, "cut", cut);
        simdisk_free(damaged);
    }
    for (uint64_t bit = 0; bit < 8 * (used + 64); bit += every) {
        struct simdisk *damaged = simdisk_crash(disk, &keep);
        uint8_t flipped = (uint8_t)(bytes[bit / 8] ^ 1u << bit % 8);
        simdisk_damage(damaged, PATH, QR_MANIFEST_NAME, bit / 8, &flipped, 1);
        expect_after_damage(damaged, bit / 8 < used ? &all_or_less : &all, bit / 8 >= used, "bit", bit);
        simdisk_free(damaged);
    }
    simdisk_free(disk);
}

int main(int argc, char **argv)
{
    uint64_t seed = 1, seeds = 8, second_seeds = 2, every = 5;
    const struct test_option options[] = {
        {.name = "seed", .help = "taken for the sake of the others: nothing here is random", .number = &seed},
        {.name = "seeds", .help = "random crashes at each operation", .number = &seeds},
        {.name = "second-seeds", .help = "the same in each recovery", .number = &second_seeds},
        {.name = "first", .help = "ends at the first failure", .flag = &ends_early},
        {.name = "every", .help = "bits are flipped so many apart", .number = &every},
    };
    test_options_parse(argc, argv, "Crashes and failures of the manifest.", options, QR_ARRAY_COUNT(options));
    seeds = seeds < 32 ? seeds : 32;
    second_seeds = second_seeds < 32 ? second_seeds : 32;

    make_states();
    crash_everywhere((unsigned)seeds, (unsigned)second_seeds);
    fail_everywhere((unsigned)seeds);
    fail_opening((unsigned)seeds);
    damage_everywhere(every != 0 ? every : 1);
    printf("%llu images\n", (unsigned long long)image_count);
    return check_finish();
}
