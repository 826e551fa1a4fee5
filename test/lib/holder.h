/*
 * A thread that pins a guard on a database and holds it until it is told to end: what others replace meanwhile is not
 * reclaimed.
 *
 * Test library; the program links Quire. Start and end are called by one thread, and answer whether all went well.
 */
#ifndef TEST_LIB_HOLDER_H
#define TEST_LIB_HOLDER_H

#include <quire/quire.h>

#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>

struct holder {
    struct quire *db;
    pthread_t thread;
    sem_t pinned, release;
};

static inline void *holder_run(void *argument)
{
    struct holder *holder = argument;
    struct quire_guard guard;
    int result = quire_pin(holder->db, "holder", &guard);
    sem_post(&holder->pinned);
    while (sem_wait(&holder->release) != 0) {
    }
    return result == 0 && quire_unpin(&guard) == 0 ? NULL : holder;
}

/* Returns when the guard is pinned. */
static inline bool holder_start(struct holder *holder, struct quire *db)
{
    holder->db = db;
    if (sem_init(&holder->pinned, 0, 0) != 0 || sem_init(&holder->release, 0, 0) != 0 ||
        pthread_create(&holder->thread, NULL, holder_run, holder) != 0)
        return false;
    while (sem_wait(&holder->pinned) != 0) {
    }
    return true;
}

static inline bool holder_end(struct holder *holder)
{
    void *failed = NULL;
    sem_post(&holder->release);
    return pthread_join(holder->thread, &failed) == 0 && failed == NULL;
}

#endif
