/*
 * The scheduler, and the wrappers of what waits.
 *
 * A client that does not run waits on a semaphore of its own. All fields are the running client's: the semaphore that is
 * posted hands them on.
 */
#include "sim/schedule.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <urcu-bp.h>

#include "base/stop.h"
#include "os/thread.h"

enum client_state { RUNNABLE, YIELDED, WAITS_MUTEX, WAITS_EVENT, WAITS_TIME, WAITS_GRACE, ENDED };

struct client {
    unsigned number;
    pthread_t thread;
    sem_t go, leave;
    enum client_state state;
    const void *object; /* the mutex, the event */
    uint32_t seen;      /* of the event */
    uint64_t until_ns;
    uint64_t outside;                /* points at which it was in no section */
    bool inside;                     /* at its last point */
    uint64_t begun[SCHED_CLIENTS];   /* WAITS_GRACE: the others' `outside` then */
    uint64_t priority;
};

static struct {
    struct sched_setup setup;
    struct random_stream random;
    struct client clients[SCHED_CLIENTS];
    unsigned count;
    struct client *running;
    sem_t all_ended;
    uint64_t first_point, changes[2];
    uint64_t lowest; /* priority given out last to who goes to the end */
    bool on, quiet;  /* quiet: the harness is at work in a client's thread */
    uint64_t now_ns;
    struct random_stream system; /* in the place of getrandom */
    struct sched_counts counts;
} sched;

static _Thread_local struct client *self;

struct sched_counts sched_counts(void)
{
    return sched.counts;
}

void sched_note(uint64_t word)
{
    sched.counts.hash = random_mix(sched.counts.hash ^ word);
}

void sched_begin(uint64_t seed)
{
    sched.on = true;
    sched.now_ns = UINT64_C(1000000000000);
    random_seed(&sched.system, seed);
    sched.counts = (struct sched_counts){.hash = seed};
}

/* ---- Who can run ------------------------------------------------------------------------------------------------ */

static bool grace_is_over(const struct client *client)
{
    for (unsigned i = 0; i < sched.count; i++) {
        const struct client *other = &sched.clients[i];
        if (other != client && other->state != ENDED && other->inside && other->outside == client->begun[i]) return false;
    }
    return true;
}

static bool can_run(const struct client *client)
{
    switch (client->state) {
    case RUNNABLE:
    case YIELDED: return true;
    case WAITS_EVENT:
        if (qr_event_count(client->object) != client->seen) return true;
        return sched.now_ns >= client->until_ns;
    case WAITS_TIME: return sched.now_ns >= client->until_ns;
    case WAITS_GRACE: return grace_is_over(client);
    case WAITS_MUTEX: /* its unlocking makes it runnable */
    case ENDED: break;
    }
    return false;
}

/* The clock goes to the next deadline; false: there is none. */
static bool jump(void)
{
    uint64_t next_ns = UINT64_MAX;
    for (unsigned i = 0; i < sched.count; i++) {
        const struct client *client = &sched.clients[i];
        bool timed = client->state == WAITS_EVENT || client->state == WAITS_TIME;
        if (timed && client->until_ns < next_ns) next_ns = client->until_ns;
    }
    if (next_ns == UINT64_MAX) return false;
    sched.now_ns = next_ns;
    sched.counts.jumps++;
    return true;
}

/* Who yielded runs again when somebody else has had a turn, or nobody else can. */
static unsigned list_of(struct client **list)
{
    unsigned count = 0, yielded = 0;
    for (unsigned i = 0; i < sched.count; i++) {
        if (!can_run(&sched.clients[i])) continue;
        if (sched.clients[i].state == YIELDED)
            yielded++;
        else
            list[count++] = &sched.clients[i];
    }
    for (unsigned i = 0; i < sched.count && count == 0 && yielded != 0; i++)
        if (sched.clients[i].state == YIELDED) list[count++] = &sched.clients[i];
    return count;
}

static struct client *choose(void)
{
    struct client *list[SCHED_CLIENTS];
    unsigned count;
    while ((count = list_of(list)) == 0)
        if (!jump()) return NULL;
    struct client *best = list[0];
    for (unsigned i = 0; i < count; i++) {
        /* Random walk: who runs goes on, mostly. */
        if (sched.setup.kind == SCHED_WALK && list[i] == sched.running && list[i]->state == RUNNABLE &&
            !random_chance(&sched.random, sched.setup.switch_percent))
            return list[i];
        if (sched.setup.kind == SCHED_PCT && list[i]->priority > best->priority) best = list[i];
    }
    return sched.setup.kind == SCHED_PCT ? best : list[random_below(&sched.random, count)];
}

/* ---- The baton -------------------------------------------------------------------------------------------------- */

static void take(sem_t *semaphore)
{
    while (sem_wait(semaphore) != 0 && errno == EINTR) {
    }
}

static void stuck(const char *why)
{
    sched.quiet = true;
    sched.setup.stuck(sched.setup.context, why);
    abort();
}

/* The calling client's state is set; hands the baton on, and returns when it is back. */
static void hand_on(void)
{
    struct client *me = self;
    bool ends = me->state == ENDED;
    struct client *next = choose();
    if (next == NULL) stuck("nobody can run");
    for (unsigned i = 0; i < sched.count; i++)
        if (sched.clients[i].state == YIELDED && &sched.clients[i] != me) sched.clients[i].state = RUNNABLE;
    next->state = RUNNABLE;
    if (next == me) return;
    sched.running = next;
    sched.counts.switches++;
    sem_post(&next->go);
    if (!ends) take(&me->go);
}

static void demote(struct client *client)
{
    if (sched.setup.kind == SCHED_PCT) client->priority = --sched.lowest;
}

static void visit(const char *what, enum client_state state)
{
    struct client *me = self;
    uint64_t word = 0;
    for (const char *c = what; *c != '\0'; c++) word = word * 131 + (uint8_t)*c;
    sched_note(word << 8 | me->number);
    sched.counts.points++;
    sched.counts.waits += state != RUNNABLE && state != ENDED;
    sched.now_ns += random_below(&sched.random, 4000);
    me->inside = urcu_bp_read_ongoing() != 0;
    me->outside += !me->inside;
    me->state = state;
    sched.quiet = true;
    if (sched.setup.arrives != NULL) sched.setup.arrives(sched.setup.context, me->number, what);
    sched.quiet = false;
    uint64_t point = sched.counts.points - sched.first_point;
    if (point > sched.setup.most_points) stuck("it does not come to an end");
    if (point == sched.changes[0] || point == sched.changes[1] || state == YIELDED) demote(me);
    hand_on();
    if (state == ENDED) return; /* the fields are another's now */
    sched.quiet = true;
    if (sched.setup.goes_on != NULL) sched.setup.goes_on(sched.setup.context, me->number);
    sched.quiet = false;
}

static bool is_client(void)
{
    return self != NULL && !sched.quiet;
}

void sched_point(const char *what)
{
    if (is_client()) visit(what, RUNNABLE);
}

static void at_stop(const char *name, void *unused)
{
    (void)unused;
    sched_point(name);
}

static void *run_client(void *argument)
{
    struct client *client = argument;
    take(&client->go);
    self = client;
    sched.setup.client(sched.setup.context, client->number);
    client->state = ENDED;
    client->inside = false;
    bool last = true;
    for (unsigned i = 0; i < sched.count; i++) last = last && sched.clients[i].state == ENDED;
    if (!last) visit("ends", ENDED);
    self = NULL;
    if (last) sem_post(&sched.all_ended);
    take(&client->leave); /* the ends of threads are no part of the simulation */
    return NULL;
}

void sched_run(const struct sched_setup *setup, unsigned count, struct random_stream random)
{
    sched.setup = *setup;
    sched.random = random;
    sched.count = count;
    sched.first_point = sched.counts.points;
    sched.lowest = 1000;
    sched.running = NULL;
    for (unsigned i = 0; i < 2; i++) sched.changes[i] = random_between(&sched.random, 1, setup->expected_points);
    sem_init(&sched.all_ended, 0, 0);
    for (unsigned i = 0; i < count; i++) {
        sched.clients[i] = (struct client){.number = i, .priority = 1000 + (random_next(&sched.random) >> 32)};
        sem_init(&sched.clients[i].go, 0, 0);
        sem_init(&sched.clients[i].leave, 0, 0);
        if (pthread_create(&sched.clients[i].thread, NULL, run_client, &sched.clients[i]) != 0) abort();
    }
    qr_stop_set_hook(at_stop, NULL);
    sched.running = choose();
    sem_post(&sched.running->go);
    take(&sched.all_ended);
    qr_stop_set_hook(NULL, NULL);
    for (unsigned i = 0; i < count; i++) {
        sem_post(&sched.clients[i].leave);
        pthread_join(sched.clients[i].thread, NULL);
        sem_destroy(&sched.clients[i].go);
        sem_destroy(&sched.clients[i].leave);
    }
    sem_destroy(&sched.all_ended);
    sched.count = 0;
}

/* ---- What waits ------------------------------------------------------------------------------------------------- */

/* The linker gives these names: `--wrap=f` makes f __wrap_f, and __real_f the f that was. */
int __real_pthread_mutex_lock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex);
int __real_pthread_mutex_unlock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex);
int __wrap_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex);
int __real_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex);
int __real_sched_yield(void);
int __wrap_sched_yield(void);
int __real_nanosleep(const struct timespec *time, struct timespec *ret_left);
int __wrap_nanosleep(const struct timespec *time, struct timespec *ret_left);
int __real_clock_gettime(clockid_t clock, struct timespec *ret_now);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ret_now);
ssize_t __real_getrandom(void *memory, size_t size, unsigned flags);
ssize_t __wrap_getrandom(void *memory, size_t size, unsigned flags);
void __real_qr_event_wait(struct qr_event *event, uint32_t seen, uint64_t timeout_us);
void __wrap_qr_event_wait(struct qr_event *event, uint32_t seen, uint64_t timeout_us);
void __real_urcu_bp_synchronize_rcu(void);
void __wrap_urcu_bp_synchronize_rcu(void);

int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex)
{
    if (!is_client()) return __real_pthread_mutex_lock(mutex);
    if (random_below(&sched.random, 16) == 0) visit("mutex", RUNNABLE); /* some are taken for every page */
    while (pthread_mutex_trylock(mutex) != 0) {
        self->object = mutex;
        visit("mutex.taken", WAITS_MUTEX);
    }
    return 0;
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex)
{
    int error = __real_pthread_mutex_unlock(mutex);
    if (self == NULL) return error;
    for (unsigned i = 0; i < sched.count; i++)
        if (sched.clients[i].state == WAITS_MUTEX && sched.clients[i].object == mutex) sched.clients[i].state = RUNNABLE;
    return error;
}

int __wrap_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex)
{
    if (is_client()) stuck("pthread_cond_wait: a wait that the scheduler does not know");
    return __real_pthread_cond_wait(condition, mutex);
}

int __wrap_sched_yield(void)
{
    if (!is_client()) return __real_sched_yield();
    visit("yield", YIELDED);
    return 0;
}

int __wrap_nanosleep(const struct timespec *time, struct timespec *ret_left)
{
    if (!is_client()) return __real_nanosleep(time, ret_left);
    self->until_ns = sched.now_ns + (uint64_t)time->tv_sec * 1000000000u + (uint64_t)time->tv_nsec;
    visit("sleep", WAITS_TIME);
    return 0;
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *ret_now)
{
    if (!sched.on || (clock != CLOCK_MONOTONIC && clock != CLOCK_MONOTONIC_COARSE))
        return __real_clock_gettime(clock, ret_now);
    sched.now_ns += 100;
    ret_now->tv_sec = (time_t)(sched.now_ns / 1000000000u);
    ret_now->tv_nsec = (long)(sched.now_ns % 1000000000u);
    return 0;
}

ssize_t __wrap_getrandom(void *memory, size_t size, unsigned flags)
{
    if (!sched.on) return __real_getrandom(memory, size, flags);
    random_fill(&sched.system, memory, size);
    return (ssize_t)size;
}

void __wrap_qr_event_wait(struct qr_event *event, uint32_t seen, uint64_t timeout_us)
{
    if (!is_client()) {
        __real_qr_event_wait(event, seen, timeout_us);
        return;
    }
    self->object = event;
    self->seen = seen;
    self->until_ns = sched.now_ns + timeout_us * 1000;
    visit("event", WAITS_EVENT);
}

/* A grace period: whoever is in a section at its begin has been out of it. Clients are seen at their points; one that has
 * left a section and entered the next without a point between would be waited for too long, and comes to one in between. */
void __wrap_urcu_bp_synchronize_rcu(void)
{
    if (!is_client()) {
        __real_urcu_bp_synchronize_rcu();
        return;
    }
    for (unsigned i = 0; i < sched.count; i++) self->begun[i] = sched.clients[i].outside;
    visit("grace", WAITS_GRACE);
}
