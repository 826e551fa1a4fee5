/*
 * Goal: a repair that fails is an error, leaves the original as it was, nothing open or lost, and no store that anybody could take for
 *       the whole; and so does one that is cut off (row I15).
 * Method: a simulated disk with a damaged store on it. Each of its operations, and each allocation, fails: alone, or with all after
 *         it. Before each operation the process dies, or power is lost.
 */
#include "api_sim.h"

#include "base/alloc.h"

TestSuite(repair_fail, .timeout = 300);

#define TARGET "new"
#define KEYS 400u
#define LATER_KEYS 100u

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STRIDE 7
#else
#define STRIDE 1
#endif

static struct simdisk *made; /* with the damaged store */
static uint64_t made_digest;

static void put_large(struct quire_tree *tree, const char *key)
{
    static char value[9000];
    memset(value, 'v', sizeof(value));
    OK(quire_put(tree, key, strlen(key), value, sizeof(value), 0, NULL));
}

/* A block of the mapping does not verify any more. */
static void damage_mapping(struct simdisk *disk)
{
    struct sim_list list = list_files(disk);
    int damaged = 0;
    for (uint32_t i = 0; i < list.count; i++) {
        uint64_t size = 0;
        if (strncmp(list.names[i], "page-", 5) != 0) continue;
        const uint8_t *bytes = simdisk_content(disk, STORE, list.names[i], &size);
        for (uint64_t at = 4096; at + 64 < size; at += 64) {
            if (memcmp(bytes + at, "QIMG", 4) != 0 || bytes[at + 52] != 16) continue;
            const uint8_t other = bytes[at + 100] ^ 0x41;
            simdisk_damage(disk, STORE, list.names[i], at + 100, &other, 1);
            bytes = simdisk_content(disk, STORE, list.names[i], &size);
            damaged++;
        }
    }
    cr_assert_gt(damaged, 0);
}

static void make_store(void)
{
    char key[16];
    made = simdisk_create();
    struct quire *db = open_on(made, sim_options(QUIRE_LEVEL_PROCESS));
    struct quire_tree *tree = open_small_tree(db, "small", QUIRE_VERSIONS_ENGINE);
    struct quire_tree *caller = open_small_tree(db, "caller", QUIRE_VERSIONS_CALLER);
    fill(tree, 0, KEYS);
    for (uint64_t i = 0; i < KEYS; i++) OK(quire_put_at(caller, 1 + i % 3, key, numbered(i / 3, key), "value", 5, 0, NULL));
    put_large(tree, "large");
    OK(quire_checkpoint(db));
    fill(tree, KEYS, KEYS + LATER_KEYS);
    put_large(tree, "large too");
    abandon(db);
    struct simdisk *after = simdisk_crash(made, &(struct simdisk_crash){.mode = SIMDISK_KEEP}); /* so all of it is durable */
    simdisk_free(made);
    made = after;
    damage_mapping(made);
    made_digest = sim_digest(made);
}

static struct simdisk *copy_of(struct simdisk *disk)
{
    return simdisk_crash(disk, &(struct simdisk_crash){.mode = SIMDISK_DEATH});
}

/* What a repair has left. */
enum left { NONE, EMPTY, WHOLE };

static enum left what_is_left(struct simdisk *disk)
{
    struct quire_options options = sim_options(QUIRE_LEVEL_PROCESS);
    struct quire *db = NULL;
    char **names;
    size_t count;
    options.open_mode = QUIRE_OPEN_EXISTING;
    int result = qr_db_open(TARGET, simdisk_disk(disk), &options, &db);
    if (result == QUIRE_NOT_FOUND) return NONE;
    OK(result);
    OK(quire_tree_list(db, &names, &count));
    quire_free(names);
    if (count == 2) {
        uint64_t there = count_all(open_tree(db, "small"), NULL);
        cr_assert_eq(there, KEYS + LATER_KEYS + 2, "%" PRIu64 " keys", there);
        OK(quire_verify(db, NULL, NULL));
    } else {
        cr_assert_eq(count, 0, "%zu trees", count);
    }
    OK(quire_close(db));
    return count == 0 ? EMPTY : WHOLE;
}

/* One repair that something happens to. */
static int repair_on(struct simdisk *disk)
{
    struct quire_repair_report report = {.struct_size = sizeof(report), .trees = 77};
    struct quire_error_detail detail;
    int result = qr_db_repair(STORE, TARGET, simdisk_disk(disk), NULL, NULL, &report);
    quire_error_detail(&detail);
    cr_assert(result < 0 ? detail.result == result && report.trees == 77 : report.trees <= 2, "%d, detail of %d", result, detail.result);
    return result;
}

/* It is as it was, and nothing is open. */
static void check_original(struct simdisk *disk)
{
    cr_assert_eq(simdisk_open_count(disk), 0);
    cr_assert_eq(sim_digest(disk), made_digest, "the original was changed");
}

/* stuck: the failure that came last kept it from removing what it had made, too. */
static void expect_left(struct simdisk *disk, int result, bool stuck, uint64_t n)
{
    if (result == QUIRE_INCOMPLETE) return; /* what could not be read is told */
    enum left left = what_is_left(disk);
    cr_assert(result == 0 ? left == WHOLE : left != WHOLE || result == QUIRE_ERR_IO || stuck, "failure %" PRIu64 ": %d, %d is left", n, result,
              left);
}

/* I15 */
Test(repair_fail, with_any_operation_of_the_disk)
{
    make_store();
    for (int for_good = 0; for_good < 2; for_good++) {
        uint64_t errors = 0, incomplete = 0, n = 1;
        for (bool met = true; met; n += STRIDE) {
            struct simdisk *disk = copy_of(made);
            int64_t blocks = qr_alloc_live_count();
            unsigned fault = simdisk_fault_set(
                disk, &(struct simdisk_fault){.kind = SIMDISK_ANY, .nth = n, .for_good = for_good != 0, .error = n % 3 == 0 ? ENOSPC : EIO});
            int result = repair_on(disk);
            met = simdisk_fault_fired(disk, fault) != 0;
            simdisk_faults_clear(disk);
            check_original(disk);
            cr_assert(n == 1 || qr_alloc_live_count() == blocks, "%" PRId64 " blocks lost", qr_alloc_live_count() - blocks);
            expect_left(disk, result, for_good != 0, n);
            errors += result < 0;
            incomplete += result == QUIRE_INCOMPLETE;
            simdisk_free(disk);
        }
        cr_log_info("%" PRIu64 " operations, %" PRIu64 " errors, %" PRIu64 " incomplete", n, errors, incomplete);
        cr_assert(errors > 10 && (for_good || incomplete > 0));
    }
}

/* I15 */
Test(repair_fail, with_any_allocation)
{
    make_store();
    struct simdisk *first = copy_of(made);
    OK(repair_on(first));
    simdisk_free(first);
    for (int for_good = 0; for_good < 2; for_good++) {
        uint64_t errors = 0;
        int64_t n = 1;
        for (bool met = true; met; n += n < 300 ? STRIDE : STRIDE * 13) {
            struct simdisk *disk = copy_of(made);
            int64_t blocks = qr_alloc_live_count();
            if (for_good)
                qr_alloc_fail_from(n);
            else
                qr_alloc_fail_after(n);
            int result = repair_on(disk);
            met = qr_alloc_fail_pending() == 0;
            qr_alloc_fail_after(-1);
            cr_assert(result == 0 || result == QUIRE_ERR_NO_MEMORY, "allocation %" PRId64 ": %d", n, result);
            cr_assert_eq(qr_alloc_live_count(), blocks, "%" PRId64 " blocks lost", qr_alloc_live_count() - blocks);
            check_original(disk);
            enum left left = what_is_left(disk);
            cr_assert((result == 0) == (left == WHOLE), "allocation %" PRId64 ": %d, %d is left", n, result, left);
            errors += result < 0;
            simdisk_free(disk);
        }
        cr_assert_gt(errors, 20);
    }
}

struct cuts {
    struct simdisk *disk;
    uint64_t left[3];
};

static void cut(void *context, const struct simdisk_event *event)
{
    static const enum simdisk_mode modes[] = {SIMDISK_DEATH, SIMDISK_DROP, SIMDISK_KEEP};
    struct cuts *cuts = context;
    if (event->number % STRIDE != 0) return;
    simdisk_set_hook(cuts->disk, NULL, NULL);
    struct simdisk *after =
        simdisk_crash(cuts->disk, &(struct simdisk_crash){.mode = modes[event->number % 3], .seed = event->number});
    cuts->left[what_is_left(after)]++;
    cr_assert_eq(sim_digest(after), made_digest);
    simdisk_free(after);
    simdisk_set_hook(cuts->disk, cut, cuts);
}

/* I15: whenever it is cut off, what it leaves is no store, an empty one, or the whole */
Test(repair_fail, when_it_is_cut_off_anywhere)
{
    make_store();
    struct cuts cuts = {.disk = copy_of(made)};
    simdisk_set_hook(cuts.disk, cut, &cuts);
    OK(qr_db_repair(STORE, TARGET, simdisk_disk(cuts.disk), NULL, NULL, NULL));
    simdisk_set_hook(cuts.disk, NULL, NULL);
    cr_assert_eq(what_is_left(cuts.disk), WHOLE);
    cr_assert(cuts.left[NONE] > 0 && cuts.left[EMPTY] > 0);
    simdisk_free(cuts.disk);
}
