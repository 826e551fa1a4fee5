/*
 * Goal: a stop point calls the hook that is set, with its name and arg, in the thread that came by; else nothing.
 * Method: counting hooks; a hook that holds a thread until the test lets it go.
 */
#include "base/stop.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <semaphore.h>
#include <string.h>

struct visits {
    int count;
    const char *last;
    pthread_t thread;
};

static void count_visit(const char *name, void *arg)
{
    struct visits *visits = arg;
    visits->count++;
    visits->last = name;
    visits->thread = pthread_self();
}

Test(stop, without_a_hook_nothing_happens)
{
    QR_STOP("test.nothing");
    qr_stop_set_hook(NULL, NULL);
    QR_STOP("test.nothing");
}

Test(stop, the_hook_gets_name_arg_and_thread)
{
    struct visits visits = {0};
    qr_stop_set_hook(count_visit, &visits);
    QR_STOP("test.first");
    cr_assert_str_eq(visits.last, "test.first");
    QR_STOP("test.second");
    cr_assert_str_eq(visits.last, "test.second");
    cr_assert_eq(visits.count, 2);
    cr_assert(pthread_equal(visits.thread, pthread_self()));
}

Test(stop, a_hook_can_be_removed_and_replaced)
{
    struct visits first = {0}, second = {0};
    qr_stop_set_hook(count_visit, &first);
    QR_STOP("test.point");
    qr_stop_set_hook(NULL, NULL);
    QR_STOP("test.point");
    qr_stop_set_hook(count_visit, &second);
    QR_STOP("test.point");
    cr_assert_eq(first.count, 1);
    cr_assert_eq(second.count, 1);
}

struct gate {
    sem_t arrived;
    sem_t go_on;
    int passed;
};

static void hold_at_middle(const char *name, void *arg)
{
    struct gate *gate = arg;
    if (strcmp(name, "test.middle") != 0)
        return;
    sem_post(&gate->arrived);
    sem_wait(&gate->go_on);
}

static void *walk(void *arg)
{
    struct gate *gate = arg;
    QR_STOP("test.begin");
    gate->passed = 1;
    QR_STOP("test.middle");
    gate->passed = 2;
    return NULL;
}

Test(stop, a_hook_holds_a_thread_at_the_point_that_it_chooses)
{
    struct gate gate = {.passed = 0};
    pthread_t thread;

    sem_init(&gate.arrived, 0, 0);
    sem_init(&gate.go_on, 0, 0);
    qr_stop_set_hook(hold_at_middle, &gate);
    cr_assert_eq(pthread_create(&thread, NULL, walk, &gate), 0);
    sem_wait(&gate.arrived);
    cr_assert_eq(gate.passed, 1);
    sem_post(&gate.go_on);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_assert_eq(gate.passed, 2);
    qr_stop_set_hook(NULL, NULL);
}
