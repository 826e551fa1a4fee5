/*
 * Goal: after power loss at any operation of the disk the store is that of the last checkpoint, or of the one whose
 * record was under way; every image that it names reads back right; and it goes on from there.
 * Method: random operations on the simulated disk; before each operation of the disk images of what would survive are
 * made (nothing unsynced, all of it, all of it with some torn, exactly one, all but one), opened and compared. Some of
 * them go on: written, committed, opened again.
 */
#include "store/world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/check.h"
#include "lib/options.h"

static uint64_t seed, every = 1, cuts, ones_every = 3;
static int first_only;

struct cutter {
    struct world *world;
    struct random_stream random;
    uint64_t seen;
};

static void go_on(struct world *after)
{
    memcpy(after->current, after->durable, sizeof(after->current));
    after->generation = after->generation + 1000;
    for (uint32_t i = 0; i < 6; i++)
        world_write(after, 8);
    CHECK_EQUAL(world_checkpoint(after, false), 0);
    world_write(after, 8);
    world_close(after);
    struct simdisk *dropped = simdisk_crash(after->sim, &(struct simdisk_crash){.mode = SIMDISK_DROP});
    struct world last = *after;
    last.sim = dropped;
    last.disk = simdisk_disk(dropped);
    if (CHECK_EQUAL(world_open(&last), 0)) {
        CHECK_EQUAL(world_compare(&last, last.durable, NULL), 0);
        world_close(&last);
    }
    simdisk_free(dropped);
    CHECK_EQUAL(world_open(after), 0);
}

static void recover(struct cutter *cutter, const struct simdisk_crash *crash)
{
    struct world *before = cutter->world;
    struct world after = {.path = before->path,
                          .options = before->options,
                          .least_bytes = before->least_bytes,
                          .most_bytes = before->most_bytes,
                          .generation = before->generation};
    after.sim = simdisk_crash(before->sim, crash);
    after.disk = simdisk_disk(after.sim);
    after.random = random_split(&cutter->random);
    cuts++;
    struct quire_error_detail detail;
    int result = world_open(&after);
    quire_error_detail(&detail);
    if (CHECK(result == 0, "cut %llu, mode %d, one %llu: %s", (unsigned long long)cuts, (int)crash->mode,
              (unsigned long long)crash->one, detail.message)) {
        bool is_durable = world_is(&after, before->durable);
        bool is_next = !is_durable && before->next_possible && world_is(&after, before->next);
        CHECK(is_durable || is_next, "cut %llu, mode %d, one %llu", (unsigned long long)cuts, (int)crash->mode,
              (unsigned long long)crash->one);
        memcpy(after.durable, is_next ? before->next : before->durable, sizeof(after.durable));
        if (random_chance(&cutter->random, 5))
            go_on(&after);
        world_close(&after);
    }
    CHECK_EQUAL(simdisk_open_count(after.sim), 0);
    simdisk_free(after.sim);
}

static void cut(void *context, const struct simdisk_event *event)
{
    struct cutter *cutter = context;
    if (first_only && check_failures() != 0)
        exit(check_finish());
    if (event->kind == SIMDISK_READ || ++cutter->seen % every != 0)
        return;
    uint64_t unsynced = simdisk_unsynced_count(cutter->world->sim);
    recover(cutter, &(struct simdisk_crash){.mode = SIMDISK_DROP});
    recover(cutter, &(struct simdisk_crash){.mode = SIMDISK_KEEP});
    recover(cutter, &(struct simdisk_crash){.mode = SIMDISK_RANDOM, .seed = random_next(&cutter->random)});
    recover(cutter, &(struct simdisk_crash){
                        .mode = SIMDISK_RANDOM, .seed = random_next(&cutter->random), .names = SIMDISK_NAMES_SUBSET});
    for (uint64_t i = cutter->seen % ones_every; i < unsynced; i += ones_every) {
        recover(cutter, &(struct simdisk_crash){.mode = SIMDISK_ONE, .one = i});
        recover(cutter, &(struct simdisk_crash){.mode = SIMDISK_BUT_ONE, .one = i});
    }
}

static void run(uint64_t number, uint64_t steps)
{
    struct world world = {.path = "db", .least_bytes = 40, .most_bytes = 3000};
    world.options.first_segment_bytes = 32 << 10;
    world.options.most_segment_bytes = 64 << 10;
    world.options.direct = number % 2 == 1;
    world.sim = simdisk_create();
    world.disk = simdisk_disk(world.sim);
    simdisk_facts(world.sim)->direct_align_bytes = 512;
    random_seed(&world.random, seed + number);
    struct cutter cutter = {.world = &world};
    random_seed(&cutter.random, seed + number + 1000);
    CHECK_EQUAL(world_open(&world), 0);
    simdisk_set_hook(world.sim, cut, &cutter);
    for (uint64_t i = 0; i < steps; i++) {
        world_step(&world);
        if (i % 13 == 5) {
            world_write(&world, 5);
            CHECK_EQUAL(world_checkpoint(&world, true), 1);
        }
        if (i % 4 == 3)
            CHECK_EQUAL(world_compare(&world, world.current, NULL), 0);
        if (i % 17 == 16) {
            world_close(&world);
            memcpy(world.current, world.durable, sizeof(world.current));
            CHECK_EQUAL(world_open(&world), 0);
        }
    }
    simdisk_set_hook(world.sim, NULL, NULL);
    CHECK_EQUAL(world_compare(&world, world.current, NULL), 0);
    world_close(&world);
    simdisk_free(world.sim);
}

int main(int argc, char **argv)
{
    uint64_t runs = 4, steps = 40;
    const struct test_option options[] = {
        {.name = "seed", .help = "0 = from the clock", .number = &seed},
        {.name = "runs", .help = "number of runs", .number = &runs},
        {.name = "steps", .help = "of each run", .number = &steps},
        {.name = "every", .help = "power is lost before every n-th operation", .number = &every},
        {.name = "first", .help = "end with the first failure", .flag = &first_only},
        {.name = "ones", .help = "every n-th unsynced operation alone", .number = &ones_every},
    };
    test_options_parse(argc, argv, "power loss under the page store", options, 6);
    seed = test_seed(seed);
    for (uint64_t i = 0; i < test_scaled(runs); i++)
        run(i, steps);
    printf("%llu times power was lost\n", (unsigned long long)cuts);
    return check_finish();
}
