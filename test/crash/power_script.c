/*
 * Scripted cases: what one thread alone does not bring about.
 *
 * holes, tentative, ...: a second thread stands between its reservation and the end of its slot window, while the first one
 * goes on and is acknowledged. Then the process dies, or the power goes.
 * late: nobody may be told that something is durable that lies behind such a window.
 * rollover: the manifest is full of incarnations, and is written anew.
 */
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "db/db.h"
#include "power.h"

/* ---- A thread in its slot window -------------------------------------------------------------------------------- */

enum window {
    WINDOW_HOLE,      /* reserved, nothing written */
    WINDOW_TENTATIVE, /* written, not decided */
    WINDOW_MET,       /* the same with a condition that holds at recovery */
    WINDOW_MISSED     /* with one that does not */
};

struct holder {
    struct quire *db;
    struct quire_tree *tree;
    enum window window;
    pthread_t thread;
    pthread_barrier_t in, out;
};

static void *hold(void *argument)
{
    struct holder *holder = argument;
    struct qr_log *log = &holder->db->log;
    struct qr_thread *thread = qr_thread_self(holder->db->epoch);
    struct qr_frame frame = {.tree_id = holder->tree->tree.id,
                             .kind = QR_RECORD_PUT,
                             .has_named = holder->window >= WINDOW_MET,
                             .named_version = holder->window == WINDOW_MISSED ? 12345 : 0,
                             .key = "extra",
                             .key_size = 5,
                             .value = "extra",
                             .value_size = 5};
    uint64_t size = qr_frame_size(&frame);
    uint64_t lsn = QR_LOG_NO_ROOM;
    while (lsn == QR_LOG_NO_ROOM) {
        if (!qr_log_slot_open(log, thread)) {
            if (qr_log_provision(log, false) != 0) abort();
            continue;
        }
        lsn = qr_log_reserve(log, thread, size);
        if (lsn == QR_LOG_NO_ROOM) qr_log_slot_close(thread);
    }
    if (holder->window != WINDOW_HOLE) qr_log_write(log, thread, &frame, size, lsn);
    pthread_barrier_wait(&holder->in);
    pthread_barrier_wait(&holder->out);
    if (holder->window == WINDOW_HOLE)
        qr_log_skip(log, thread, lsn, size);
    else
        qr_log_decide(log, thread, lsn, QR_FRAME_VOID);
    qr_log_slot_close(thread);
    return NULL;
}

static void holder_start(struct holder *holder, struct run *run, enum window window)
{
    holder->db = run->db;
    holder->tree = run->trees[0];
    holder->window = window;
    pthread_barrier_init(&holder->in, NULL, 2);
    pthread_barrier_init(&holder->out, NULL, 2);
    if (pthread_create(&holder->thread, NULL, hold, holder) != 0) abort();
    pthread_barrier_wait(&holder->in);
}

static void holder_end(struct holder *holder)
{
    pthread_barrier_wait(&holder->out);
    pthread_join(holder->thread, NULL);
    pthread_barrier_destroy(&holder->in);
    pthread_barrier_destroy(&holder->out);
}

/* ---- Writes behind an open window ------------------------------------------------------------------------------- */

static struct run *begin(const struct scenario *scenario, uint64_t seed)
{
    struct run *run = run_create(&scenario->setup, seed);
    run->disk = simdisk_create();
    bool good = run_open(run, 0) == 0 && run_accept(run);
    for (uint32_t t = 0; t < TREES && good; t++) good = run_tree(run, t);
    for (uint32_t i = 0; i < 4 && good; i++) good = run_durable_write(run);
    if (!good) power_fail(run, "the beginning of the case");
    return run;
}

static void end(struct run *run)
{
    if (run->db != NULL) run_close(run);
    cut_end(run);
    run_free(run);
}

/* A put of `extra` that waits for its durability. */
struct late {
    struct run *run;
    pthread_t thread;
    _Atomic int state; /* 1: acknowledged; 2: failed */
};

static void *put_late(void *argument)
{
    struct late *late = argument;
    int result = quire_put(late->run->trees[0], "extra", 5, "extra", 5, QUIRE_WRITE_DURABLE, NULL);
    atomic_store(&late->state, result == 0 ? 1 : 2);
    return NULL;
}

static void windows(const struct scenario *scenario, uint64_t seed)
{
    struct holder holders[2];
    struct late late = {0};
    enum window window = (enum window)(scenario->variant % 8);
    bool with_late = scenario->variant >= 8;
    struct run *run = begin(scenario, seed);
    bool good = true;
    run->extra_used = window == WINDOW_TENTATIVE || window == WINDOW_MET || with_late;
    cut_begin(run);
    for (uint32_t i = 0; i < 5 && good; i++) good = run_put(run, (uint32_t)(i % TREES), i, QUIRE_WRITE_PROCESS);
    holder_start(&holders[0], run, window);
    cut_here(run);
    for (uint32_t i = 0; i < scenario->setup.operations && good; i++) {
        good = run_put(run, (uint32_t)random_below(&run->random, TREES),
                       (uint32_t)random_below(&run->random, KEYS - COUNTERS), QUIRE_WRITE_PROCESS);
        cut_here(run);
        if (i == 3) holder_start(&holders[1], run, WINDOW_HOLE);
    }
    if (with_late) {
        late.run = run;
        if (pthread_create(&late.thread, NULL, put_late, &late) != 0) abort();
        for (int i = 0; i < 20 && atomic_load(&late.state) == 0; i++) usleep(1000);
        if (atomic_load(&late.state) == 1) {
            run->extra_known = true;
            run->durable = run->process = run->issued;
        }
        cut_here(run);
    }
    holder_end(&holders[0]);
    if (scenario->setup.operations > 3) holder_end(&holders[1]);
    if (with_late) {
        pthread_join(late.thread, NULL);
        if (atomic_load(&late.state) != 1) power_fail(run, "the late write failed");
        run->extra_known = true;
        run->durable = run->process = run->issued;
    }
    cut_here(run);
    if (good) good = run_sync(run);
    cut_here(run);
    if (good) good = run_reopen(run);
    if (good) run_durable_write(run);
    end(run);
}

/* ---- A manifest that is full ------------------------------------------------------------------------------------ */

static void rollover(const struct scenario *scenario, uint64_t seed)
{
    struct run *run = begin(scenario, seed);
    bool good = true;
    for (uint32_t i = 0; i < 155 && good; i++) {
        good = run_reopen(run);
        if (good && i % 40 == 7) good = run_put(run, 0, i % KEYS % 10, QUIRE_WRITE_PROCESS);
    }
    cut_begin(run);
    for (uint32_t i = 0; i < scenario->setup.operations && good; i++) {
        good = run_reopen(run);
        if (good && i % 3 == 1) good = run_put(run, 1, i % 10, QUIRE_WRITE_PROCESS);
    }
    end(run);
}

#define WINDOWS(Operations, Large)                                                                                     \
    {                                                                                                                  \
        .operations = (Operations), .level = QUIRE_LEVEL_PROCESS, .large_percent = (Large), .mixed = true              \
    }
const struct scenario power_scripts[] = {
    {"holes", windows, WINDOWS(8, 20), WINDOW_HOLE},
    {"tentative", windows, WINDOWS(8, 20), WINDOW_TENTATIVE},
    {"tentative_met", windows, WINDOWS(6, 0), WINDOW_MET},
    {"tentative_missed", windows, WINDOWS(6, 0), WINDOW_MISSED},
    {"late", windows, WINDOWS(6, 0), 8 + WINDOW_HOLE},
    {"rollover", rollover, {.operations = 14, .level = QUIRE_LEVEL_DURABLE, .durable_percent = 50, .mixed = true}, 0},
};
const uint32_t power_script_count = sizeof(power_scripts) / sizeof(power_scripts[0]);
