/*
 * Every window with every work, and every window with every other.
 *
 * Test program (interleave). One run of run_windows:
 *
 *     actor:       ... operation ... | stopped at the point                        | ... goes on ... end
 *     controller:                    | reads, one work, reads, maintain beside,     | reads, structure, shrink to
 * nothing | a snapshot that waits if and only if a slot  | | is open                                      |
 *
 * and of run_pairs: two actors, stopped one after the other, at all pairs of points; then some works, then they go on,
 * either first.
 */
#include "interleave.h"

#include <stdio.h>
#include <string.h>

/* Counted over a whole mode: what was tried, and the windows that were reached. */
struct tally {
    uint64_t runs, reached;
    bool window_reached[64];
};

static const char *const size_names[WORLD_SIZE_COUNT] = {"tiny", "low", "high"};

static uint32_t focus_of(const struct world *world)
{
    return (world->key_count / 2) & ~1u;
}

/* ---- One window ------------------------------------------------------------------------------------------------- */

static void take_and_check_snapshot(struct actor *actor)
{
    struct world_snapshot *snapshot = (struct world_snapshot *)actor->argument;
    world_snapshot_take(actor->world, snapshot);
    world_snapshot_check(actor->world, snapshot);
}

static void maintain_once(struct actor *actor)
{
    int result = QUIRE_MORE;
    for (unsigned i = 0; i < 50 && result == QUIRE_MORE; i++)
        result = quire_maintain(actor->world->db);
    CHECK(result == 0 || result == QUIRE_MORE, "maintain: %d", result);
}

/* The write under way shows, or not, as the window says. */
static void check_visible(const struct window *window, struct actor *actor)
{
    bool nothing_new = actor->world->cells[actor->pending_key].id == actor->pending_id; /* deletes what is absent */
    world_check_get(actor->world, actor->pending_key);
    if ((window->flags & WINDOW_VISIBLE) != 0)
        CHECK(actor->pending_seen || !actor->pending || nothing_new, "%s: the write does not show yet", window->stop);
    if ((window->flags & WINDOW_INVISIBLE) != 0)
        CHECK(!actor->pending_seen, "%s: the write shows already", window->stop);
}

/* Everything that others do while the actor is stopped. */
static void others(struct world *world, const struct window *window, const struct work *work, struct actor *actor)
{
    struct world_snapshot snapshot;
    struct actor taker = {
        .world = world, .body = take_and_check_snapshot, .argument = &snapshot, .stop = "snapshot.bounded"};
    struct actor keeper = {.world = world, .body = maintain_once};
    bool slot = (window->flags & WINDOW_SLOT) != 0;

    progress_step(work->name);
    check_visible(window, actor);
    work->run(world, actor->focus);
    progress_step("read after the work");
    world_check_all(world);
    progress_step("put beside");
    works[4].run(world, actor->focus);
    if (!slot) {
        progress_step("snapshot");
        take_and_check_snapshot(&taker);
    } else {
        CHECK(actor_start(&taker), "snapshot.bounded is not passed");
        actor_release(&taker);
        CHECK(!actor_ends_within(&taker, 3), "%s: a new snapshot does not wait", window->stop);
    }
    actor_launch(&keeper); /* walks, and waits in a round of reclamation for the actor's section */
    progress_step("second work");
    works[(uint32_t)(work - works + 7) % (work_count - 2)].run(world, actor->focus);
    world_check_all(world);
    progress_step("going on");
    actor_release(actor);
    actor_finish(actor);
    actor_finish(&keeper);
    if (slot)
        actor_finish(&taker);
    world_snapshot_check(world, &snapshot);
    world_snapshot_release(&snapshot);
}

static bool run_window(const struct window *window, const struct work *work, enum world_size size, uint32_t nth)
{
    struct world world;
    struct actor actor;
    char name[128];
    bool store = (window->flags & WINDOW_STORE) != 0 || work->store;

    snprintf(name, sizeof(name), "window %s, %s world, time %u, %s", window->stop, size_names[size], nth, work->name);
    progress_case(name);
    if (!world_open(&world, &(struct world_options){.size = size, .store = store}))
        return false;
    actor = (struct actor){
        .world = &world, .body = window->body, .focus = focus_of(&world), .stop = window->stop, .nth = nth};
    progress_step("to the point");
    bool reached = actor_start(&actor);
    if (reached)
        others(&world, window, work, &actor);
    else
        actor_finish(&actor);
    world_close(&world);
    if (failed())
        fprintf(stderr, "%s\n", name);
    return reached;
}

static bool is_wanted(const char *only, const char *name)
{
    return only == NULL || strstr(name, only) != NULL;
}

void run_windows(const char *only, uint64_t every, uint64_t seed)
{
    static const uint32_t times[] = {1, 2, 4};
    struct tally tally = {0};
    for (uint32_t i = 0; i < window_count * WORLD_SIZE_COUNT * 3 && !failed(); i++) {
        uint32_t w = i / (WORLD_SIZE_COUNT * 3);
        if (!is_wanted(only, windows[w].stop))
            continue;
        for (uint32_t j = 0; j < work_count && !failed(); j++) {
            if (random_mix(seed + i * work_count + j) % every != 0 && !(j == 0 && i % 3 == 0))
                continue;
            bool reached =
                run_window(&windows[w], &works[j], (enum world_size)(i / 3 % WORLD_SIZE_COUNT), times[i % 3]);
            tally.runs++;
            tally.reached += reached;
            tally.window_reached[w] |= reached;
            if (!reached)
                break;
        }
    }
    for (uint32_t w = 0; w < window_count && !failed(); w++) {
        if (is_wanted(only, windows[w].stop))
            CHECK(tally.window_reached[w], "no run reached %s (window %u)", windows[w].stop, w);
    }
    printf("windows: %llu runs, %llu stopped at their point\n", (unsigned long long)tally.runs,
           (unsigned long long)tally.reached);
}

/* ---- Two windows ------------------------------------------------------------------------------------------------ */

struct pair {
    const struct window *first, *second;
    uint32_t distance; /* of the second's focus, in keys */
    bool second_first; /* the second goes on first */
    const struct work *work;
    enum world_size size;
};

static bool run_pair(const struct pair *pair)
{
    struct world world;
    char name[160];

    snprintf(name, sizeof(name), "pair %s and %s at %u, %s world, %s, the %s goes on first", pair->first->stop,
             pair->second->stop, pair->distance, size_names[pair->size], pair->work->name,
             pair->second_first ? "second" : "first");
    progress_case(name);
    if (!world_open(&world, &(struct world_options){.size = pair->size, .store = true}))
        return false;
    uint32_t focus = focus_of(&world);
    uint32_t other = (focus + pair->distance) % world.key_count;
    struct actor first = {.world = &world, .body = pair->first->body, .focus = focus, .stop = pair->first->stop};
    struct actor second = {.world = &world, .body = pair->second->body, .focus = other, .stop = pair->second->stop};
    struct actor *one = pair->second_first ? &second : &first;
    struct actor *other_one = pair->second_first ? &first : &second;
    bool waits = ((pair->first->flags | pair->second->flags) & WINDOW_WAITS) != 0;

    progress_step("first to its point");
    bool both = actor_start(&first);
    progress_step("second to its point");
    both = actor_start(&second) && both;
    progress_step("work");
    pair->work->run(&world, focus + 1);
    world_check_all(&world);
    progress_step("one goes on");
    actor_release(one);
    if (!waits)
        actor_finish(one);
    if (!waits || actor_ends_within(one, 1)) /* else it may be waiting for the other */
        world_check_all(&world);
    progress_step("the other goes on");
    actor_finish(other_one);
    if (waits)
        actor_finish(one);
    world_close(&world);
    if (failed())
        fprintf(stderr, "%s\n", name);
    return both;
}

void run_pairs(const char *only, uint64_t every, uint64_t seed)
{
    struct tally tally = {0};
    uint64_t count = (uint64_t)window_count * window_count * 8;
    for (uint64_t i = 0; i < count && !failed(); i++) {
        uint64_t draw = random_mix(seed + i);
        struct pair pair = {.first = &windows[i / 8 % window_count],
                            .second = &windows[i / 8 / window_count],
                            .distance = (const uint32_t[]){2, 8, 0, 16}[i % 4],
                            .second_first = (i & 4) != 0,
                            .work = &works[draw / 7 % work_count],
                            .size = draw % 3 == 0 ? WORLD_LOW : WORLD_HIGH};
        if (!is_wanted(only, pair.first->stop) && !is_wanted(only, pair.second->stop))
            continue;
        /* Two writers of the same key would make the model guess. */
        if (pair.distance == 0 && (pair.first->flags != 0 || pair.second->flags != 0))
            continue;
        /* What maintains reaches its point only when no other is stopped: it comes first. */
        if ((pair.second->flags & WINDOW_WAITS) != 0 && (pair.second->flags & WINDOW_VISIBLE) != 0)
            continue;
        if (draw / 101 % every != 0)
            continue;
        tally.reached += run_pair(&pair);
        tally.runs++;
    }
    printf("pairs: %llu runs, %llu with both stopped\n", (unsigned long long)tally.runs,
           (unsigned long long)tally.reached);
}
