/*
 * Threads that stop at named points, and the watchdog.
 *
 * Test program (interleave). One hook for the whole process; a thread that is no actor passes. An actor that has
 * stopped waits on its own condition variable, wherever the engine was.
 */
#include "interleave.h"

#include "base/stop.h"
#include "lib/history.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static _Thread_local struct actor *self;

static void stop_hook(const char *name, void *unused)
{
    struct actor *actor = self;
    (void)unused;
    if (actor == NULL)
        return;
    pthread_mutex_lock(&actor->mutex);
    if (actor->stop != NULL && strcmp(actor->stop, name) == 0 && ++actor->passed == actor->nth) {
        actor->stopped = true;
        actor->released = false;
        pthread_cond_broadcast(&actor->changed);
        while (!actor->released)
            pthread_cond_wait(&actor->changed, &actor->mutex);
        actor->stopped = false;
    }
    pthread_mutex_unlock(&actor->mutex);
}

/* ---- Actors ----------------------------------------------------------------------------------------------------- */

static void *run_actor(void *argument)
{
    struct actor *actor = (struct actor *)argument;
    self = actor;
    actor->body(actor);
    pthread_mutex_lock(&actor->mutex);
    actor->ended = true;
    pthread_cond_broadcast(&actor->changed);
    pthread_mutex_unlock(&actor->mutex);
    self = NULL;
    return NULL;
}

void actor_launch(struct actor *actor)
{
    struct world *world = actor->world;
    pthread_condattr_t attributes;

    pthread_mutex_init(&actor->mutex, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&actor->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    if (actor->nth == 0)
        actor->nth = 1;
    if (world->actor_count == WORLD_ACTORS)
        abort();
    pthread_mutex_lock(&world->mutex);
    world->actors[world->actor_count++] = actor;
    pthread_mutex_unlock(&world->mutex);
    qr_stop_set_hook(stop_hook, NULL);
    if (pthread_create(&actor->thread, NULL, run_actor, actor) != 0)
        abort();
}

bool actor_wait(struct actor *actor)
{
    pthread_mutex_lock(&actor->mutex);
    while (!actor->ended && !(actor->stopped && !actor->released))
        pthread_cond_wait(&actor->changed, &actor->mutex);
    bool stopped = !actor->ended;
    pthread_mutex_unlock(&actor->mutex);
    return stopped;
}

bool actor_start(struct actor *actor)
{
    actor_launch(actor);
    return actor_wait(actor);
}

bool actor_ends_within(struct actor *actor, unsigned milliseconds)
{
    struct timespec until;
    int waited = 0;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long)milliseconds * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&actor->mutex);
    while (!actor->ended && waited != ETIMEDOUT)
        waited = pthread_cond_timedwait(&actor->changed, &actor->mutex, &until);
    bool ended = actor->ended;
    pthread_mutex_unlock(&actor->mutex);
    return ended;
}

void actor_release(struct actor *actor)
{
    pthread_mutex_lock(&actor->mutex);
    actor->stop = NULL;
    actor->released = true;
    pthread_cond_broadcast(&actor->changed);
    pthread_mutex_unlock(&actor->mutex);
}

bool actor_go_on(struct actor *actor, const char *stop, uint32_t nth)
{
    pthread_mutex_lock(&actor->mutex);
    actor->stop = stop;
    actor->nth = nth;
    actor->passed = 0;
    actor->released = true;
    pthread_cond_broadcast(&actor->changed);
    pthread_mutex_unlock(&actor->mutex);
    return actor_wait(actor);
}

void actor_finish(struct actor *actor)
{
    struct world *world = actor->world;
    actor_release(actor);
    pthread_join(actor->thread, NULL);
    pthread_mutex_lock(&world->mutex);
    uint32_t i = 0;
    while (world->actors[i] != actor)
        i++;
    world->actors[i] = world->actors[--world->actor_count];
    pthread_mutex_unlock(&world->mutex);
    pthread_mutex_destroy(&actor->mutex);
    pthread_cond_destroy(&actor->changed);
}

/* ---- Writes ----------------------------------------------------------------------------------------------------- */

/* False if another actor's write to the key is under way: the model could not tell which comes last. */
static bool begin_write(struct actor *actor, uint32_t number, uint64_t id)
{
    struct world *world = actor->world;
    bool taken = false;
    pthread_mutex_lock(&world->mutex);
    for (uint32_t i = 0; i < world->actor_count; i++)
        taken |= world->actors[i]->pending && world->actors[i]->pending_key == number;
    actor->pending = !taken;
    actor->pending_seen = false;
    actor->pending_key = number;
    actor->pending_id = id;
    pthread_mutex_unlock(&world->mutex);
    return !taken;
}

/* A write that nobody has seen takes effect at the latest now. */
static void end_write(struct actor *actor)
{
    struct world *world = actor->world;
    pthread_mutex_lock(&world->mutex);
    if (!actor->pending_seen)
        world->cells[actor->pending_key].id = actor->pending_id;
    actor->pending = false;
    pthread_mutex_unlock(&world->mutex);
}

void actor_put(struct actor *actor, uint32_t number)
{
    struct world *world = actor->world;
    char key[16];
    uint8_t value[VALUE_BYTES_MAX];

    pthread_mutex_lock(&world->mutex);
    uint64_t id = ++world->next_id;
    pthread_mutex_unlock(&world->mutex);
    value_make(id, value, world->value_size);
    if (!begin_write(actor, number, id))
        return;
    CHECK_EQUAL(quire_put(world->tree, key, world_key(number, key), value, world->value_size, 0, NULL), 0);
    end_write(actor);
}

void actor_delete(struct actor *actor, uint32_t number)
{
    char key[16];
    if (!begin_write(actor, number, 0))
        return;
    CHECK_EQUAL(quire_delete(actor->world->tree, key, world_key(number, key), 0, NULL, NULL), 0);
    end_write(actor);
}

void actor_get(struct actor *actor, uint32_t number)
{
    struct world *world = actor->world;
    pthread_mutex_lock(&world->mutex);
    uint64_t before = world->cells[number].id;
    pthread_mutex_unlock(&world->mutex);
    uint64_t id = world_read(world, number);
    CHECK(id == before || world_may_show(world, number, id), "key %u shows %" PRIu64 ", at the beginning %" PRIu64,
          number, id, before);
}

/* ---- Progress --------------------------------------------------------------------------------------------------- */

static struct {
    pthread_t thread;
    pthread_mutex_t mutex;
    char name[128], step[128];
    uint64_t since_ns, limit_ns;
    bool ending;
} watchdog = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static void *watch(void *unused)
{
    (void)unused;
    for (;;) {
        struct timespec pause = {.tv_nsec = 20000000};
        nanosleep(&pause, NULL);
        pthread_mutex_lock(&watchdog.mutex);
        bool ending = watchdog.ending;
        if (!ending && history_now_ns() - watchdog.since_ns > watchdog.limit_ns) {
            check_fail(__FILE__, __LINE__, "progress", "%s: %s: nothing moves for %" PRIu64 " ms", watchdog.name,
                       watchdog.step, watchdog.limit_ns / 1000000);
            check_finish();
            _exit(1);
        }
        pthread_mutex_unlock(&watchdog.mutex);
        if (ending)
            return NULL;
    }
}

void progress_step(const char *name)
{
    pthread_mutex_lock(&watchdog.mutex);
    snprintf(watchdog.step, sizeof(watchdog.step), "%s", name);
    watchdog.since_ns = history_now_ns();
    pthread_mutex_unlock(&watchdog.mutex);
}

void progress_case(const char *name)
{
    pthread_mutex_lock(&watchdog.mutex);
    snprintf(watchdog.name, sizeof(watchdog.name), "%s", name);
    pthread_mutex_unlock(&watchdog.mutex);
    progress_step("begin");
}

void progress_begin(uint64_t limit_ms)
{
    watchdog.limit_ns = limit_ms * 1000000;
    progress_case("");
    if (pthread_create(&watchdog.thread, NULL, watch, NULL) != 0)
        abort();
}

void progress_end(void)
{
    pthread_mutex_lock(&watchdog.mutex);
    watchdog.ending = true;
    pthread_mutex_unlock(&watchdog.mutex);
    pthread_join(watchdog.thread, NULL);
}
