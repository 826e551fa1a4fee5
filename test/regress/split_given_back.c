/*
 * Goal: a page that a split gives back, because it has lost its race, is not used again while a checkpoint looks at it.
 * Method: a split is held when the word of its right page is PRIVATE; a checkpoint is held with that page in hand; another
 * writer makes the split lose. While the checkpoint is held, many pages are made, and the one in hand must stay as it is. The
 * bug: it went back to the free blocks at once, without a grace period, and the checkpoint read of whatever came there.
 */
#include "base/stop.h"
#include "db/db.h"
#include "lib/check.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEYS 64u
#define MORE 1000u

static struct quire *db;
static struct quire_tree *tree;
static pthread_t writer, checkpointer;
static char key_of_split[16];
static bool held; /* the writer's: it has been at the point */
static const struct qr_page *given_back;
static uint8_t content[QR_PAGE_HEADER];
static _Atomic bool in_hand, go_on;

static void put(uint32_t number)
{
    char value[120];
    memset(value, (int)number, sizeof(value));
    snprintf(key_of_split, sizeof(key_of_split), "%08u", number * 2654435761u % 100000000u);
    CHECK_EQUAL(quire_put(tree, key_of_split, 8, value, sizeof(value), 0, NULL), 0);
}

static void *run_checkpoint(void *argument)
{
    CHECK_EQUAL(quire_checkpoint(db), 0);
    return argument;
}

static void *overtake(void *argument)
{
    CHECK_EQUAL(quire_put(tree, argument, 8, "other", 5, 0, NULL), 0);
    return argument;
}

static const struct qr_page *private_page(void)
{
    for (uint64_t pid = QR_PID_NONE + 1; pid < qr_map_end(db->map); pid++) {
        qr_word word = qr_map_load(db->map, pid);
        if (qr_word_tag(word) == QR_WORD_PRIVATE) return qr_word_block(word);
    }
    return NULL;
}

static void at_stop(const char *name, void *argument)
{
    (void)argument;
    if (strcmp(name, "flush.private_seen") == 0) {
        atomic_store(&in_hand, true);
        while (!atomic_load(&go_on)) sched_yield();
    }
    if (strcmp(name, "split.right_private") != 0 || !pthread_equal(pthread_self(), writer) || held) return;
    held = true;
    given_back = private_page();
    CHECK(given_back != NULL, "no page is PRIVATE");
    memcpy(content, given_back, sizeof(content));
    CHECK_EQUAL(pthread_create(&checkpointer, NULL, run_checkpoint, NULL), 0);
    while (!atomic_load(&in_hand)) sched_yield();
    pthread_t other;
    CHECK_EQUAL(pthread_create(&other, NULL, overtake, key_of_split), 0);
    CHECK_EQUAL(pthread_join(other, NULL), 0);
}

int main(void)
{
    char root[] = "/tmp/quire-regress-XXXXXX";
    char command[64];
    struct quire_options options;
    struct quire_tree_options small = {.struct_size = sizeof(small), .leaf_page_size_bytes = 1024};
    struct quire_stats stats = {.struct_size = sizeof(stats)};
    CHECK(mkdtemp(root) != NULL, "no directory");
    CHECK_EQUAL(quire_options_preset(&options, QUIRE_PRESET_DEVELOPMENT), 0);
    options.background_threads = QUIRE_NO_THREADS;
    CHECK_EQUAL(quire_open(root, &options, &db), 0);
    CHECK_EQUAL(quire_tree_open(db, NULL, &small, &tree), 0);
    for (uint32_t i = 0; i < KEYS; i++) put(i);
    writer = pthread_self();
    qr_stop_set_hook(at_stop, NULL);
    for (uint32_t i = KEYS; i < KEYS + MORE; i++) put(i);
    CHECK(held, "there was no split");
    CHECK_EQUAL(quire_stats(db, &stats), 0);
    CHECK(stats.tree_split_conflicts != 0, "no split has lost");
    CHECK(memcmp(content, given_back, sizeof(content)) == 0, "the page in hand has changed");
    atomic_store(&go_on, true);
    CHECK_EQUAL(pthread_join(checkpointer, NULL), 0);
    qr_stop_set_hook(NULL, NULL);
    CHECK_EQUAL(quire_close(db), 0);
    snprintf(command, sizeof(command), "rm -rf %s", root);
    CHECK_EQUAL(system(command), 0);
    return check_finish();
}
