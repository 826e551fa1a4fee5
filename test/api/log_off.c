/*
 * Goal: without a log a store has after every end exactly the state of its last checkpoint, in all trees: a prefix of the writes.
 * Method: writes that are noted with their LSNs, beside checkpoints and in the midst of one; the database is given up as a
 * killed process would, opened again, and compared with what the notes up to the checkpoint's LSN say.
 */
#include "api_dir.h"
#include "api_inside.h"

#include "base/bugs.h"
#include "base/stop.h"
#include "lib/simdisk.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

TestSuite(log_off, .init = make_root, .fini = remove_root, .timeout = 120);

static struct quire_options options_off(void)
{
    struct quire_options options = options_of(0, 0);
    options.disable_log = 1;
    options.background_threads = QUIRE_NO_THREADS;
    options.checkpoint_interval_ms = QUIRE_NO_PERIOD;
    options.log_segment_bytes = 16384;
    return options;
}

static struct quire *open_with(struct quire_options options)
{
    return open_by("s", &options);
}

static struct quire *open_off(void)
{
    return open_with(options_off());
}

static uint64_t durable_of(struct quire *db)
{
    uint64_t lsn = 0;
    OK(quire_durable_lsn(db, &lsn));
    return lsn;
}

/* ---- What it is ------------------------------------------------------------------------------------------------- */

/* F12: levels, flags and what makes durable; nothing of a log is on disk */
Test(log_off, makes_durable_by_checkpoints_alone)
{
    struct quire *db = open_off();
    struct quire_tree *tree = open_tree(db, "t");
    struct quire_options effective = {.struct_size = sizeof(effective)};
    uint64_t lsn = 0;
    OK(quire_options_get(db, &effective));
    cr_assert_eq(effective.level, QUIRE_LEVEL_CHECKPOINT);
    EXPECT(quire_put(tree, "k", 1, "v", 1, QUIRE_WRITE_DURABLE, NULL), QUIRE_ERR_UNSUPPORTED);
    EXPECT(quire_delete(tree, "k", 1, QUIRE_WRITE_PROCESS, NULL, NULL), QUIRE_ERR_UNSUPPORTED);
    expect(tree, NULL, "k", NULL);
    OK(quire_put(tree, "k", 1, "v", 1, 0, &lsn));
    cr_assert(durable_of(db) < lsn);
    OK(quire_wait_durable(db, lsn));
    cr_assert(durable_of(db) >= lsn);
    OK(quire_put(tree, "k", 1, "w", 1, 0, &lsn));
    OK(quire_sync(db));
    cr_assert(durable_of(db) >= lsn);
    uint64_t number = db->checkpointer.record.number;
    OK(quire_sync(db)); /* there is nothing to write */
    cr_assert_eq(db->checkpointer.record.number, number);
    put(tree, "k", "lost");
    cr_assert_eq(stats_of(db).log_disabled, 1);
    cr_assert_eq(stats_of(db).log_size_bytes, 0);
    shell("! ls s/log-* 2>/dev/null");
    abandon(db);

    db = open_off();
    expect(open_tree(db, "t"), NULL, "k", "w");
    put(open_tree(db, "t"), "k", "kept");
    OK(quire_close(db)); /* makes one */
    db = open_store("s", QUIRE_OPEN_READ_ONLY);
    expect(open_tree(db, "t"), NULL, "k", "kept");
    OK(quire_close(db));
}

/* K12: read-only it says nothing, and the effective options are such as may be opened with */
Test(log_off, has_no_level_of_its_own_where_nothing_is_written)
{
    struct quire_options options = options_off(), effective = {.struct_size = sizeof(effective)};
    struct quire *db = open_off();
    OK(quire_close(db));
    options.open_mode = QUIRE_OPEN_READ_ONLY;
    for (uint32_t level = 0; level <= QUIRE_LEVEL_CHECKPOINT; level += QUIRE_LEVEL_CHECKPOINT) {
        options.level = level;
        OK(quire_open(path_of("s"), &options, &db));
        OK(quire_options_get(db, &effective));
        cr_assert_eq(effective.disable_log, 0);
        cr_assert_eq(effective.level, QUIRE_LEVEL_DURABLE);
        OK(quire_close(db));
        OK(quire_open(path_of("s"), &effective, &db));
        OK(quire_close(db));
    }
}

/* K12: options that contradict it */
Test(log_off, refuses_levels_that_need_a_log)
{
    struct quire_options options = options_off();
    struct quire *db = NULL;
    options.level = QUIRE_LEVEL_DURABLE;
    EXPECT(quire_open(path_of("s"), &options, &db), QUIRE_ERR_INVALID);
    options.level = QUIRE_LEVEL_PROCESS;
    EXPECT(quire_open(path_of("s"), &options, &db), QUIRE_ERR_INVALID);
    options.level = QUIRE_LEVEL_CHECKPOINT;
    options.disable_log = 0;
    EXPECT(quire_open(path_of("s"), &options, &db), QUIRE_ERR_INVALID);
    options.disable_log = 2;
    EXPECT(quire_open(path_of("s"), &options, &db), QUIRE_ERR_INVALID);
    options = options_off();
    options.open_mode = 0;
    EXPECT(quire_open(NULL, &(struct quire_options){.disable_log = 1}, &db), QUIRE_ERR_INVALID);
    cr_assert(!is_there("s"));
}

/* The interval bounds what can be lost, also where little was written. */
Test(log_off, makes_checkpoints_by_itself)
{
    struct quire_options options = options_off();
    uint64_t lsn = 0;
    options.background_threads = 1;
    options.checkpoint_interval_ms = 50;
    struct quire *db = open_with(options);
    struct quire_tree *tree = open_tree(db, "t");
    OK(quire_put(tree, "k", 1, "v", 1, 0, &lsn));
    for (int i = 0; i < 5000 && durable_of(db) < lsn; i++) usleep(1000);
    cr_assert(durable_of(db) >= lsn);
    abandon(db);
    db = open_off();
    expect(open_tree(db, "t"), NULL, "k", "v");
    OK(quire_close(db));
}

static int count_frame(void *context, const struct quire_log_frame *frame)
{
    (void)frame;
    ++*(uint32_t *)context;
    return 0;
}

static int count_record(void *context, const struct quire_manifest_record *record)
{
    if (strcmp(record->name, "lsn-range") == 0) ++*(uint32_t *)context;
    return 0;
}

static int count_log_file(void *context, const struct quire_file *file)
{
    if (file->kind == QUIRE_FILE_LOG) ++*(uint32_t *)context;
    return 0;
}

/* Looking at it, open, given up and closed */
Test(log_off, can_be_looked_at)
{
    for (uint32_t round = 0; round < 3; round++) {
        struct quire *db = open_off();
        struct quire_tree *tree = open_tree(db, "t");
        uint32_t frames = 0, ranges = 0, log_files = 0;
        char key[16];
        for (uint32_t k = 0; k < 1000; k++) OK(quire_put(tree, key, numbered(k, key), "v", 1, 0, NULL));
        OK(quire_verify(db, NULL, NULL));
        OK(quire_checkpoint(db));
        put(tree, "more", "v");
        OK(quire_verify(db, NULL, NULL));
        cr_assert_gt(stats_of(db).checkpoints, 0);
        if (round == 1)
            OK(quire_close(db));
        else
            abandon(db);
        OK(quire_log_each(path_of("s"), count_frame, &frames));
        OK(quire_manifest_each(path_of("s"), count_record, &ranges));
        OK(quire_files_each(path_of("s"), count_log_file, &log_files));
        cr_assert(frames == 0 && ranges != 0 && log_files == 0, "%u frames, %u ranges, %u files", frames, ranges, log_files);
        db = open_store("s", QUIRE_OPEN_READ_ONLY);
        OK(quire_verify(db, NULL, NULL));
        cr_assert_eq(count_all(open_tree(db, "t"), NULL), round == 0 ? 1000 : 1001);
        OK(quire_close(db));
    }
}

/* A store that fills its memory is saved all the same: also when pages that it does not have in memory were written to. */
Test(log_off, is_saved_at_the_memory_limit)
{
    static char value[500];
    struct quire_options options = options_off();
    uint32_t count = 0;
    int result = 0;
    char key[16];
    options.memory_limit_bytes = 8u << 20;
    struct quire *db = open_with(options);
    struct quire_tree *tree = open_tree(db, "t");
    while ((result = quire_put(tree, key, numbered(count, key), value, sizeof(value), 0, NULL)) == 0) count++;
    cr_assert_eq(result, QUIRE_ERR_NO_MEMORY);
    OK(quire_checkpoint(db));
    abandon(db);
    options.memory_limit_bytes = 4u << 20; /* now a part of it fits */
    db = open_with(options);
    tree = open_tree(db, "t");
    uint32_t changed = 0;
    memset(value, 'x', sizeof(value));
    while (changed < count && (result = quire_put(tree, key, numbered(changed, key), value, sizeof(value), 0, NULL)) == 0) changed++;
    cr_assert_eq(result, QUIRE_ERR_NO_MEMORY);
    OK(quire_checkpoint(db));
    abandon(db);
    options.memory_limit_bytes = 0;
    db = open_with(options);
    tree = open_tree(db, "t");
    check_structure(tree);
    cr_assert_eq(count_all(tree, NULL), count);
    for (uint32_t k = 0; k < count; k++) {
        size_t size;
        OK(quire_get(tree, NULL, key, numbered(k, key), value, sizeof(value), &size));
        cr_assert(value[0] == (k < changed ? 'x' : 0), "key %u of %u, %u changed", k, count, changed);
    }
    OK(quire_close(db));
}

/* ---- LSNs ------------------------------------------------------------------------------------------------------- */

/* R14: no LSN is used twice, however far writes went before the end */
Test(log_off, never_uses_an_lsn_twice)
{
    static char value[6000];
    uint64_t last = 0;
    struct quire_options options = options_off();
    options.blob_threshold_bytes = 268435456; /* LSNs as for all of the values */
    for (uint32_t round = 0; round < 12; round++) {
        struct quire *db = open_with(options);
        struct quire_tree *tree = open_tree(db, "t");
        uint64_t lsn = 0;
        for (uint32_t i = 0; i < round * 20; i++) { /* up to 1.3 MB: several ranges of 256 KiB */
            char key[16];
            OK(quire_put(tree, key, numbered(i, key), value, sizeof(value), 0, &lsn));
            cr_assert(lsn > last, "LSN %llu after %llu", (unsigned long long)lsn, (unsigned long long)last);
            last = lsn;
        }
        if (round % 4 == 2) OK(quire_checkpoint(db));
        if (round % 3 == 0)
            OK(quire_close(db));
        else
            abandon(db);
    }
}

/* A value of more than a frame, and of many pages. */
Test(log_off, takes_large_values)
{
    uint32_t size = 5u << 20;
    char *value = calloc(1, size);
    size_t read = 0;
    memset(value, 'x', size);
    struct quire *db = open_off();
    struct quire_tree *tree = open_tree(db, "t");
    for (int i = 0; i < 3; i++) OK(quire_put(tree, "large", 5, value, size, 0, NULL));
    OK(quire_checkpoint(db));
    abandon(db);
    db = open_off();
    char *again = calloc(1, size);
    OK(quire_get(open_tree(db, "t"), NULL, "large", 5, again, size, &read));
    cr_assert(read == size && memcmp(value, again, size) == 0);
    OK(quire_close(db));
    free(value);
    free(again);
}

/* ---- In the midst of a checkpoint ------------------------------------------------------------------------------- */

static struct quire *midst_db;
static bool midst_done;

static void number(struct quire_tree *tree, uint32_t key, uint32_t value)
{
    char name[16];
    OK(quire_put(tree, name, numbered(key, name), &value, sizeof(value), 0, NULL));
}

static void number_at(struct quire_tree *tree, uint64_t version, uint32_t key, uint32_t value)
{
    char name[16];
    OK(quire_put_at(tree, version, name, numbered(key, name), &value, sizeof(value), 0, NULL));
}

static uint32_t number_of(struct quire_tree *tree, uint64_t version, uint32_t key)
{
    char name[16];
    uint32_t value = 0;
    size_t size;
    int result = version == 0 ? quire_get(tree, NULL, name, numbered(key, name), &value, sizeof(value), &size)
                              : quire_get_at(tree, version, name, numbered(key, name), &value, sizeof(value), &size);
    cr_assert(result == 0 || result == QUIRE_NOT_FOUND, "%d", result);
    return value;
}

/* Everything that could spoil what C sees: newer values, equal versions, deletions, collection, splits, merges, a new tree. */
static void change_everything(const char *name, void *argument)
{
    (void)argument;
    if (midst_done || strcmp(name, "checkpoint.as_of") != 0) return;
    midst_done = true;
    struct quire_tree *engine = open_small_tree(midst_db, "engine", QUIRE_VERSIONS_ENGINE);
    struct quire_tree *caller = open_small_tree(midst_db, "caller", QUIRE_VERSIONS_CALLER);
    struct quire_tree *later = open_small_tree(midst_db, "later", QUIRE_VERSIONS_ENGINE);
    char key[16];
    for (uint32_t i = 0; i < 300; i++) number(later, i, i);
    for (uint32_t round = 0; round < 12; round++)
        for (uint32_t k = 0; k < 200; k++) number(engine, k, 7000 + round);
    for (uint32_t k = 1000; k < 1500; k++) number(engine, k, 1);
    for (uint32_t k = 200; k < 400; k++) OK(quire_delete(engine, key, numbered(k, key), 0, NULL, NULL));
    for (uint32_t round = 0; round < 12; round++)
        for (uint32_t k = 0; k < 200; k++) number_at(caller, 10, k, 7000 + round); /* the same version again */
    OK(quire_set_safe_lsn(caller, 15));
    for (uint32_t round = 0; round < 12; round++)
        for (uint32_t k = 0; k < 200; k++) number_at(caller, 20 + round, k, 8000);
    settle(midst_db);
}

/* Needs the testing library's points. Returns the store opened again, given up after a checkpoint with all that within. on_disk: no
 * leaf was in memory when it began, so the first write to each was blind. */
static struct quire *checkpoint_in_the_midst(bool on_disk)
{
    struct quire *db = open_off();
    struct quire_tree *engine = open_small_tree(db, "engine", QUIRE_VERSIONS_ENGINE);
    struct quire_tree *caller = open_small_tree(db, "caller", QUIRE_VERSIONS_CALLER);
    for (uint32_t k = 0; k < 400; k++) number(engine, k, k + 1);
    for (uint32_t k = 0; k < 200; k++) {
        number_at(caller, 10, k, k + 1);
        if (k % 2 == 0) number_at(caller, 12, k, k + 2);
    }
    OK(quire_set_safe_lsn(caller, 5));
    OK(quire_checkpoint(db)); /* so that there is also what is clean, and what is changed since */
    for (uint32_t k = 0; k < 400; k += 3) number(engine, k, k + 10);
    for (uint32_t k = 0; k < 200; k += 3) number_at(caller, 10, k, k + 10);
    if (on_disk) {
        OK(quire_close(db));
        db = open_off();
    }
    midst_db = db;
    midst_done = false;
    qr_stop_set_hook(change_everything, NULL);
    OK(quire_checkpoint(db));
    qr_stop_set_hook(NULL, NULL);
    cr_assert(midst_done);
    abandon(db);
    return open_off();
}

/* Whether everything is as it was at C. */
static bool is_as_of(struct quire *db)
{
    struct quire_tree *engine = open_small_tree(db, "engine", QUIRE_VERSIONS_ENGINE);
    struct quire_tree *caller = open_small_tree(db, "caller", QUIRE_VERSIONS_CALLER);
    uint64_t safe = 0;
    bool right = true;
    OK(quire_safe_lsn(caller, &safe));
    right = safe == 5 && count_all(engine, NULL) == 400;
    for (uint32_t k = 0; k < 400; k++) right = right && number_of(engine, 0, k) == (k % 3 == 0 ? k + 10 : k + 1);
    for (uint32_t k = 0; k < 200; k++) {
        uint32_t at_10 = k % 3 == 0 ? k + 10 : k + 1;
        right = right && number_of(caller, 11, k) == at_10;
        right = right && number_of(caller, UINT64_MAX, k) == (k % 2 == 0 ? k + 2 : at_10);
    }
    return right;
}

/* F12, R14 */
Test(log_off, has_nothing_of_what_is_written_during_a_checkpoint)
{
    struct quire *db = checkpoint_in_the_midst(false);
    struct quire_tree_options existing;
    struct quire_tree *tree;
    quire_tree_options_init(&existing);
    existing.must_exist = 1;
    cr_assert_leq(db->files->recovery.last_lsn, db->checkpointer.record.as_of_lsn); /* not that of a write that is not there */
    cr_assert(is_as_of(db));
    EXPECT(quire_tree_open(db, "later", &existing, &tree), QUIRE_NOT_FOUND);
    check_structure(open_small_tree(db, "engine", QUIRE_VERSIONS_ENGINE));
    check_structure(open_small_tree(db, "caller", QUIRE_VERSIONS_CALLER));
    /* And it goes on from there: the tree that was lost can be made, its pages' ids are free. */
    tree = open_small_tree(db, "later", QUIRE_VERSIONS_ENGINE);
    for (uint32_t i = 0; i < 300; i++) number(tree, i, i + 3);
    OK(quire_close(db));
    db = open_off();
    tree = open_small_tree(db, "later", QUIRE_VERSIONS_ENGINE);
    cr_assert(is_as_of(db) && count_all(tree, NULL) == 300 && number_of(tree, 0, 299) == 302);
    check_structure(tree);
    OK(quire_close(db));
}

/* What was written during a checkpoint is in the next one. */
Test(log_off, has_all_of_it_in_the_next_one)
{
    struct quire *db = open_off();
    struct quire_tree *engine = open_small_tree(db, "engine", QUIRE_VERSIONS_ENGINE);
    struct quire_tree *caller = open_small_tree(db, "caller", QUIRE_VERSIONS_CALLER);
    for (uint32_t k = 0; k < 400; k++) number(engine, k, k + 1);
    for (uint32_t k = 0; k < 200; k++) number_at(caller, 10, k, k + 1);
    midst_db = db;
    midst_done = false;
    qr_stop_set_hook(change_everything, NULL);
    OK(quire_checkpoint(db));
    qr_stop_set_hook(NULL, NULL);
    cr_assert(midst_done);
    OK(quire_checkpoint(db));
    abandon(db);
    db = open_off();
    engine = open_small_tree(db, "engine", QUIRE_VERSIONS_ENGINE);
    caller = open_small_tree(db, "caller", QUIRE_VERSIONS_CALLER);
    cr_assert_eq(count_all(engine, NULL), 700);
    cr_assert_eq(count_all(open_small_tree(db, "later", QUIRE_VERSIONS_ENGINE), NULL), 300);
    for (uint32_t k = 0; k < 200; k++) {
        cr_assert_eq(number_of(engine, 0, k), 7011);
        cr_assert_eq(number_of(caller, 19, k), 7011);
        cr_assert_eq(number_of(caller, UINT64_MAX, k), 8000);
    }
    EXPECT(quire_put_at(caller, 15, "k", 1, "v", 1, 0, NULL), QUIRE_ERR_LSN_TOO_OLD);
    OK(quire_close(db));
}

/* What a blind write hides is not left out: the image has it. */
Test(log_off, has_what_blind_writes_hide_during_a_checkpoint)
{
    struct quire *db = checkpoint_in_the_midst(true);
    cr_assert(is_as_of(db));
    check_structure(open_small_tree(db, "engine", QUIRE_VERSIONS_ENGINE));
    check_structure(open_small_tree(db, "caller", QUIRE_VERSIONS_CALLER));
    OK(quire_close(db));
}

/* The tests above notice what they are for. */
Test(log_off, a_planted_bug_of_it_is_noticed)
{
    static const char *const bugs[] = {"as_of_unfiltered", "equal_not_held"};
    for (size_t i = 0; i < 4; i++) {
        cr_assert_eq(qr_bug_set(bugs[i % 2], 1), 0);
        struct quire *db = checkpoint_in_the_midst(i >= 2);
        cr_assert_eq(qr_bug_set(bugs[i % 2], 0), 0);
        cr_assert(!is_as_of(db), "%s, %zu", bugs[i % 2], i);
        abandon(db);
        shell("rm -rf s");
    }
}

/* ---- Large values ----------------------------------------------------------------------------------------------- */

#define LARGE_KEYS 40u
#define LARGE_BYTES 20000u

/* A value that is a file's matter: it says which it is. */
static void large(struct quire_tree *tree, uint64_t version, uint32_t key, uint32_t number)
{
    static char value[LARGE_BYTES];
    char name[16];
    size_t key_size = numbered(key, name);
    memset(value, (int)number, sizeof(value));
    memcpy(value, &number, sizeof(number));
    if (version == 0)
        OK(quire_put(tree, name, key_size, value, sizeof(value), 0, NULL));
    else
        OK(quire_put_at(tree, version, name, key_size, value, sizeof(value), 0, NULL));
}

static bool is_large(struct quire_tree *tree, uint64_t version, uint32_t key, uint32_t number)
{
    static char value[LARGE_BYTES];
    char name[16];
    uint32_t found = 0;
    size_t size = 0;
    size_t key_size = numbered(key, name);
    int result = version == 0 ? quire_get(tree, NULL, name, key_size, value, sizeof(value), &size)
                              : quire_get_at(tree, version, name, key_size, value, sizeof(value), &size);
    memcpy(&found, value, sizeof(found));
    return result == 0 && size == sizeof(value) && found == number && value[size - 1] == (char)number;
}

/* At the choice of C and behind the images: what C sees is replaced, and its values die; others come and are lost. */
static void replace_large(const char *name, void *argument)
{
    uint32_t *passes = argument;
    bool chosen = strcmp(name, "checkpoint.as_of") == 0;
    if ((!chosen && strcmp(name, "checkpoint.as_of_over") != 0) || *passes >= 2) return;
    (*passes)++;
    struct quire_tree *engine = open_small_tree(midst_db, "engine", QUIRE_VERSIONS_ENGINE);
    struct quire_tree *caller = open_small_tree(midst_db, "caller", QUIRE_VERSIONS_CALLER);
    for (uint32_t k = chosen ? 0 : 1; k < LARGE_KEYS; k += 2) {
        large(engine, 0, k, 100 + k);
        large(caller, chosen ? 10 : 16, k, 100 + k);
        large(caller, 20, k, 200 + k);
    }
    OK(quire_set_safe_lsn(caller, chosen ? 15 : 25));
    settle(midst_db);
}

/* A store with two trees of large values, given up after a checkpoint in whose midst all of them were replaced. */
static struct quire *give_up_large(void)
{
    uint32_t passes = 0;
    midst_db = open_off();
    struct quire_tree *engine = open_small_tree(midst_db, "engine", QUIRE_VERSIONS_ENGINE);
    struct quire_tree *caller = open_small_tree(midst_db, "caller", QUIRE_VERSIONS_CALLER);
    for (uint32_t round = 0; round < 2; round++) { /* the first values are dead */
        for (uint32_t k = 0; k < LARGE_KEYS; k++) {
            large(engine, 0, k, round + k);
            large(caller, 10, k, round + k);
        }
        settle(midst_db);
        if (round == 0) OK(quire_checkpoint(midst_db));
    }
    qr_stop_set_hook(replace_large, &passes);
    OK(quire_checkpoint(midst_db));
    qr_stop_set_hook(NULL, NULL);
    cr_assert_eq(passes, 2);
    abandon(midst_db);
    return open_off();
}

/* Whether all that C sees is there; and stays there. */
static bool has_large(struct quire *db)
{
    struct quire_tree *engine = open_small_tree(db, "engine", QUIRE_VERSIONS_ENGINE);
    struct quire_tree *caller = open_small_tree(db, "caller", QUIRE_VERSIONS_CALLER);
    bool right = true;
    for (uint32_t round = 0; round < 3 && right; round++) {
        for (uint32_t k = 0; k < LARGE_KEYS; k++)
            right = right && is_large(engine, 0, k, 1 + k) && is_large(caller, 30, k, 1 + k);
        put(engine, "another", "small");
        OK(quire_checkpoint(db)); /* releases what is dead */
    }
    return right;
}

/* R14, R3 */
Test(log_off, keeps_the_large_values_of_a_checkpoint_and_no_others)
{
    struct quire *db = give_up_large();
    struct quire_tree *engine = open_small_tree(db, "engine", QUIRE_VERSIONS_ENGINE);
    struct quire_tree *caller = open_small_tree(db, "caller", QUIRE_VERSIONS_CALLER);
    settle(db);
    uint64_t live = stats_of(db).blob_live_bytes; /* one value of each key, with its head, in units of 64 */
    cr_assert(live >= 2 * LARGE_KEYS * LARGE_BYTES && live <= 2 * LARGE_KEYS * (LARGE_BYTES + 256), "%llu bytes live",
              (unsigned long long)live);
    cr_assert(has_large(db));
    OK(quire_verify(db, NULL, NULL));
    for (uint32_t k = 0; k < LARGE_KEYS; k++) {
        char name[16];
        OK(quire_delete(engine, name, numbered(k, name), 0, NULL, NULL));
        OK(quire_delete_at(caller, 40, name, numbered(k, name), 0, NULL));
    }
    OK(quire_set_safe_lsn(caller, 50));
    settle(db);
    OK(quire_close(db));
    db = open_off();
    cr_assert_eq(stats_of(db).blob_live_bytes, 0);
    cr_assert_leq(stats_of(db).blob_segments, 1);
    OK(quire_close(db));
}

/* And notices what it is for. */
Test(log_off, values_that_are_dead_too_early_are_noticed)
{
    cr_assert_eq(qr_bug_set("blob_dead_beyond", 1), 0);
    struct quire *db = give_up_large();
    cr_assert_eq(qr_bug_set("blob_dead_beyond", 0), 0);
    cr_assert(!has_large(db));
    abandon(db);
}

/* With a log and without, in turns, some of it never saved: what is promised is there, and what is lost takes no space. */
Test(log_off, large_values_come_and_go_with_a_log_and_without)
{
    for (uint32_t round = 0; round < 12; round++) {
        bool off = round % 2 == 1;
        struct quire_options options = options_off();
        options.disable_log = off;
        options.level = off ? 0 : QUIRE_LEVEL_PROCESS;
        struct quire *db = open_with(options);
        struct quire_tree *tree = open_small_tree(db, "t", QUIRE_VERSIONS_ENGINE);
        for (uint32_t k = 0; k < LARGE_KEYS && round != 0; k++) cr_assert(is_large(tree, 0, k, round + k), "round %u key %u", round, k);
        for (uint32_t k = 0; k < LARGE_KEYS; k++) large(tree, 0, k, round + 1 + k);
        settle(db);
        if (off) {
            OK(quire_checkpoint(db));
            for (uint32_t k = 0; k < LARGE_KEYS; k++) large(tree, 0, k, 99 + k); /* is lost */
        }
        if (round % 3 == 0)
            OK(quire_close(db));
        else
            abandon(db);
        if (off && round % 3 == 0) { /* it was not lost */
            db = open_off();
            tree = open_small_tree(db, "t", QUIRE_VERSIONS_ENGINE);
            for (uint32_t k = 0; k < LARGE_KEYS; k++) large(tree, 0, k, round + 1 + k);
            OK(quire_close(db));
        }
    }
    struct quire *db = open_off();
    struct quire_tree *tree = open_small_tree(db, "t", QUIRE_VERSIONS_ENGINE);
    settle(db);
    cr_assert_leq(stats_of(db).blob_live_bytes, LARGE_KEYS * (LARGE_BYTES + 256));
    OK(quire_verify(db, NULL, NULL));
    check_structure(tree);
    OK(quire_close(db));
}

/* ---- Beside many writers ---------------------------------------------------------------------------------------- */

#define WRITERS 3u
#define KEYS 300u
#define NOTES 12000u
#define MOST_VALUE 300u
enum { FIRST, SECOND, VERSIONS, TREES };

/* A write: value 0 is a deletion. */
struct note {
    uint64_t lsn, version;
    uint32_t tree, key, value;
};
static struct note *notes[WRITERS];
static uint32_t note_counts[WRITERS];
static struct quire_tree *trees[TREES];
static _Atomic uint32_t writers_stop;
static _Atomic uint64_t safe_now;

static void *write_much(void *argument)
{
    uint32_t me = (uint32_t)(uintptr_t)argument;
    uint64_t state = me + 1 + note_counts[me];
    while (atomic_load(&writers_stop) == 0 && note_counts[me] < NOTES) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        struct note *n = &notes[me][note_counts[me]];
        uint32_t dice = (uint32_t)(state >> 33);
        uint32_t size = 4 + dice % 50 + (dice % 8 == 0 ? 200 : 0); /* or a large value */
        char value[MOST_VALUE] = {0};
        char key[16];
        *n = (struct note){.tree = dice / 64 % TREES, .key = dice / 256 % KEYS, .value = note_counts[me] * WRITERS + me + 1};
        size_t key_size = numbered(n->key, key);
        if (dice % 5 == 0) n->value = 0;
        memcpy(value, &n->value, 4);
        int result;
        if (n->tree == VERSIONS) {
            n->version = atomic_load(&safe_now) + 1 + dice / 4096 % 6;
            result = n->value == 0
                         ? quire_delete_at(trees[VERSIONS], n->version, key, key_size, 0, &n->lsn)
                         : quire_put_at(trees[VERSIONS], n->version, key, key_size, value, size, 0, &n->lsn);
            if (result == QUIRE_ERR_LSN_TOO_OLD) continue;
        } else {
            result = n->value == 0 ? quire_delete(trees[n->tree], key, key_size, 0, NULL, &n->lsn)
                                   : quire_put(trees[n->tree], key, key_size, value, size, 0, &n->lsn);
        }
        cr_assert_eq(result, 0);
        note_counts[me]++;
    }
    return NULL;
}

/* What a read of the key answers at LSN `as_of`, and at `version` in the tree with caller versions. */
static uint32_t right_value(uint32_t tree, uint32_t key, uint64_t as_of, uint64_t version)
{
    const struct note *best = NULL;
    for (uint32_t w = 0; w < WRITERS; w++) {
        for (uint32_t i = 0; i < note_counts[w]; i++) {
            const struct note *n = &notes[w][i];
            if (n->tree != tree || n->key != key || n->lsn > as_of || n->version > version) continue;
            if (best == NULL || n->version > best->version || (n->version == best->version && n->lsn > best->lsn)) best = n;
        }
    }
    return best == NULL ? 0 : best->value;
}

static uint32_t value_there(uint32_t tree, uint32_t key, uint64_t version)
{
    char name[16];
    char value[MOST_VALUE];
    uint32_t found = 0;
    size_t size;
    size_t key_size = numbered(key, name);
    int result = tree == VERSIONS ? quire_get_at(trees[tree], version, name, key_size, value, sizeof(value), &size)
                                  : quire_get(trees[tree], NULL, name, key_size, value, sizeof(value), &size);
    cr_assert(result == 0 || result == QUIRE_NOT_FOUND, "%d", result);
    if (result == 0) memcpy(&found, value, 4);
    return found;
}

static void open_three(struct quire *db)
{
    trees[FIRST] = open_small_tree(db, "first", QUIRE_VERSIONS_ENGINE);
    trees[SECOND] = open_tree(db, "second");
    trees[VERSIONS] = open_small_tree(db, "versions", QUIRE_VERSIONS_CALLER);
}

/* F12, R14: as the opening found it, and it forgets what was lost */
static void compare_at(uint64_t as_of)
{
    uint64_t safe = 0;
    OK(quire_safe_lsn(trees[VERSIONS], &safe));
    atomic_store(&safe_now, safe);
    for (uint32_t w = 0; w < WRITERS; w++) {
        uint32_t kept = 0;
        for (uint32_t i = 0; i < note_counts[w]; i++)
            if (notes[w][i].lsn <= as_of) notes[w][kept++] = notes[w][i];
        note_counts[w] = kept;
    }
    for (uint32_t t = 0; t < TREES; t++) {
        check_structure(trees[t]);
        for (uint32_t k = 0; k < KEYS; k++) {
            for (uint64_t version = t == VERSIONS ? safe : 0; version <= (t == VERSIONS ? safe + 8 : 0); version++) {
                uint64_t at = t == VERSIONS ? version : UINT64_MAX;
                uint32_t right = right_value(t, k, as_of, at);
                uint32_t there = value_there(t, k, at);
                cr_assert(right == there, "tree %u key %u version %llu as of %llu: %u, should be %u", t, k,
                          (unsigned long long)at, (unsigned long long)as_of, there, right);
            }
        }
    }
}

Test(log_off, has_a_prefix_of_what_many_write)
{
    for (uint32_t w = 0; w < WRITERS; w++) notes[w] = calloc(NOTES, sizeof(struct note));
    for (uint32_t round = 0; round < 5; round++) {
        struct quire_options options = options_off();
        pthread_t threads[WRITERS];
        options.background_threads = round % 2 == 0 ? 1 : QUIRE_NO_THREADS;
        options.blob_threshold_bytes = 64;
        struct quire *db = open_with(options);
        open_three(db);
        if (round == 0) OK(quire_checkpoint(db));
        atomic_store(&writers_stop, 0);
        for (uintptr_t w = 0; w < WRITERS; w++) pthread_create(&threads[w], NULL, write_much, (void *)w);
        for (uint32_t i = 0; i < 8; i++) {
            usleep(3000);
            uint64_t safe = atomic_load(&safe_now) + 1;
            OK(quire_set_safe_lsn(trees[VERSIONS], safe));
            atomic_store(&safe_now, safe);
            OK(quire_checkpoint(db));
        }
        atomic_store(&writers_stop, 1);
        for (uint32_t w = 0; w < WRITERS; w++) pthread_join(threads[w], NULL);
        uint64_t durable = durable_of(db);
        uint64_t as_of = db->checkpointer.record.as_of_lsn;
        cr_assert_eq(durable, as_of);
        abandon(db);
        db = open_off();
        open_three(db);
        cr_assert_eq(db->checkpointer.record.as_of_lsn, as_of);
        OK(quire_verify(db, NULL, NULL));
        compare_at(as_of);
        abandon(db);
    }
    for (uint32_t w = 0; w < WRITERS; w++) free(notes[w]);
}

/* ---- With a log and without, in turns --------------------------------------------------------------------------- */

/* What a log has is kept when the store is opened without one, after a good end and after a bad one; and the other way. */
Test(log_off, and_on_again_loses_nothing_that_was_promised)
{
    uint64_t last = 0;
    for (uint32_t round = 0; round < 16; round++) {
        bool off = round % 2 == 1;
        bool good_end = (round / 2) % 2 == 0;
        struct quire_options options = options_off();
        options.disable_log = off;
        options.level = off ? 0 : QUIRE_LEVEL_PROCESS;
        struct quire *db = open_with(options);
        struct quire_tree *tree = open_small_tree(db, "t", QUIRE_VERSIONS_ENGINE);
        struct quire_tree *caller = open_small_tree(db, "c", QUIRE_VERSIONS_CALLER);
        if (off) shell("! ls s/log-* 2>/dev/null");
        cr_assert_eq(count_all(tree, NULL), round == 0 ? 0 : 300);
        for (uint32_t k = 0; k < 300 && round != 0; k++) {
            cr_assert_eq(number_of(tree, 0, k), k + round, "round %u key %u", round, k);
            cr_assert_eq(number_of(caller, UINT64_MAX, k), k + round);
            cr_assert_eq(number_of(caller, round, k), k + round);
        }
        for (uint32_t k = 0; k < 300; k++) number(tree, k, k + round + 1);
        for (uint32_t k = 0; k < 300; k++) number_at(caller, round + 1, k, k + round + 1);
        uint64_t lsn = 0;
        OK(quire_last_lsn(db, &lsn));
        cr_assert(lsn > last);
        last = lsn;
        if (off && !good_end) OK(quire_checkpoint(db));
        if (!good_end)
            abandon(db);
        else
            OK(quire_close(db));
    }
}

/* ---- Failure ---------------------------------------------------------------------------------------------------- */

static struct quire *open_on(struct simdisk *disk)
{
    struct quire_options options = options_off();
    struct quire *db = NULL;
    OK(qr_db_open("store", simdisk_disk(disk), &options, &db));
    return db;
}

/* F31: what cannot be saved is not taken, and writes go on by themselves when it can */
Test(log_off, refuses_writes_while_there_is_no_space_for_a_checkpoint)
{
    struct simdisk *disk = simdisk_create();
    struct quire *db = open_on(disk);
    struct quire_tree *tree = open_tree(db, "t");
    put(tree, "k", "v");
    put(tree, "l", "v");
    simdisk_fault_set(disk, &(struct simdisk_fault){.kind = SIMDISK_WRITE, .nth = 1, .for_good = true, .error = ENOSPC});
    EXPECT(quire_checkpoint(db), QUIRE_ERR_NO_SPACE);
    EXPECT(quire_put(tree, "k", 1, "w", 1, 0, NULL), QUIRE_ERR_NO_SPACE);
    expect(tree, NULL, "k", "v");
    OK(quire_delete(tree, "l", 1, 0, NULL, NULL));
    simdisk_faults_clear(disk);
    OK(quire_checkpoint(db));
    put(tree, "k", "w");
    OK(quire_close(db));
    db = open_on(disk);
    expect(open_tree(db, "t"), NULL, "k", "w");
    expect(open_tree(db, "t"), NULL, "l", NULL);
    OK(quire_close(db));
    simdisk_free(disk);
}

/* F30: a sync that fails */
Test(log_off, refuses_writes_after_a_checkpoint_has_failed)
{
    struct simdisk *disk = simdisk_create();
    struct quire *db = open_on(disk);
    struct quire_tree *tree = open_tree(db, "t");
    put(tree, "k", "v");
    OK(quire_checkpoint(db));
    put(tree, "k", "lost");
    simdisk_fault_set(disk, &(struct simdisk_fault){.kind = SIMDISK_SYNC, .nth = 1, .error = EIO});
    EXPECT(quire_sync(db), QUIRE_ERR_IO);
    EXPECT(quire_put(tree, "k", 1, "w", 1, 0, NULL), QUIRE_ERR_IO);
    EXPECT(quire_sync(db), QUIRE_ERR_IO); /* nothing is synced again and called durable */
    expect(tree, NULL, "k", "lost");
    EXPECT(quire_close(db), QUIRE_ERR_IO);
    struct simdisk *after = simdisk_crash(disk, &(struct simdisk_crash){.mode = SIMDISK_DROP});
    db = open_on(after);
    expect(open_tree(db, "t"), NULL, "k", "v");
    put(open_tree(db, "t"), "k", "w");
    OK(quire_close(db));
    simdisk_free(after);
    simdisk_free(disk);
}
