/*
 * Goal: whatever was written and however a store ended, without its mapping repair gives what an opening shows; whatever its files
 *       hold, repair answers (rows F15, I15).
 * Method: random stores, built by children that are killed, copied, opened again; QUIRE_REPAIR_SEED is the first seed,
 *         QUIRE_REPAIR_SEEDS how many, QUIRE_REPAIR_ROUNDS how many times each is damaged anywhere.
 */
#include "repair.h"

#include "lib/random.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

TestSuite(repair_random, .init = make_root, .fini = remove_root, .timeout = 600);

enum { TREES = 4, KEYS = 900 };

struct builder {
    struct random_stream random;
    struct quire *db;
    struct quire_tree *trees[TREES];
    bool caller[TREES];
    uint64_t safe[TREES];
    const char *path;
};

static void open_builder(struct builder *b)
{
    struct quire_options options = options_of(0, QUIRE_LEVEL_PROCESS);
    static const uint64_t thresholds[] = {64, 1000, 0, 268435456};
    options.log_segment_bytes = 16384u << (2 * random_below(&b->random, 3));
    options.blob_threshold_bytes = thresholds[random_below(&b->random, 4)];
    options.checkpoint_interval_ms = QUIRE_NO_PERIOD;
    options.background_threads = random_chance(&b->random, 50) ? QUIRE_NO_THREADS : 1;
    options.no_sync_at_close = random_chance(&b->random, 50);
    if (random_chance(&b->random, 20)) {
        options.disable_log = 1;
        options.level = 0;
        options.no_sync_at_close = 0;
    }
    if (quire_open(b->path, &options, &b->db) != 0) _exit(3);
    for (int i = 0; i < TREES; i++) {
        struct quire_tree_options of_tree;
        char name[16];
        snprintf(name, sizeof(name), "t%d", i);
        quire_tree_options_init(&of_tree);
        b->caller[i] = i == 2;
        of_tree.versions = b->caller[i] ? QUIRE_VERSIONS_CALLER : QUIRE_VERSIONS_ENGINE;
        if (i != 1) of_tree.leaf_page_size_bytes = of_tree.inner_page_size_bytes = 512;
        b->trees[i] = NULL;
        /* Some are created late. */
        of_tree.must_exist = random_chance(&b->random, 60);
        int result = quire_tree_open(b->db, name, &of_tree, &b->trees[i]);
        if (result != 0 && result != QUIRE_NOT_FOUND) _exit(4);
        if (result == 0 && b->caller[i]) quire_safe_lsn(b->trees[i], &b->safe[i]);
    }
}

static size_t draw_key(struct builder *b, char *key)
{
    return (size_t)snprintf(key, 64, "%s%05u", random_chance(&b->random, 50) ? "k" : "long prefix of a key ",
                            (unsigned)random_below(&b->random, KEYS));
}

static void write_one(struct builder *b, int i)
{
    static _Thread_local uint8_t value[200000];
    char key[64];
    size_t size = draw_key(b, key), value_size = random_below(&b->random, 60);
    if (random_chance(&b->random, 4)) value_size = random_below(&b->random, 5000);
    if (random_below(&b->random, 500) == 0) value_size = random_below(&b->random, sizeof(value));
    memset(value, (int)random_below(&b->random, 256), value_size);
    struct quire_tree *tree = b->trees[i];
    int result;
    if (b->caller[i]) {
        uint64_t version = b->safe[i] + 1 + random_below(&b->random, 4);
        if (version >= VERSIONS) version = VERSIONS - 1;
        if (version <= b->safe[i]) return;
        result = random_chance(&b->random, 30) ? quire_delete_at(tree, version, key, size, 0, NULL)
                                               : quire_put_at(tree, version, key, size, value, value_size, 0, NULL);
    } else {
        switch (random_below(&b->random, 4)) {
        case 0:
            result = quire_delete(tree, key, size, 0, NULL, NULL);
            break;
        case 1:
            result = quire_insert(tree, key, size, value, value_size, 0, NULL);
            break;
        default:
            result = quire_put(tree, key, size, value, value_size, 0, NULL);
        }
    }
    if (result < 0) _exit(5);
}

static void step(struct builder *b)
{
    int i = (int)random_below(&b->random, TREES);
    if (b->trees[i] == NULL) return;
    uint64_t what = random_below(&b->random, 4000);
    if (what == 0 || what == 1) {
        if (quire_checkpoint(b->db) != 0) _exit(6);
    } else if (what == 2) {
        if (quire_close(b->db) != 0) _exit(7);
        open_builder(b);
    } else if (what == 3) { /* a mass deletion: leaves are merged */
        char key[64];
        for (unsigned n = (unsigned)random_below(&b->random, KEYS), end = n + 400; n < end && !b->caller[i]; n++) {
            int size = snprintf(key, sizeof(key), "k%05u", n);
            if (quire_delete(b->trees[i], key, (size_t)size, 0, NULL, NULL) != 0) _exit(8);
        }
    } else if (what == 4 && b->caller[i] && b->safe[i] + 4 < VERSIONS) {
        if (quire_set_safe_lsn(b->trees[i], ++b->safe[i]) != 0) _exit(9);
    } else if (what < 40) {
        if (quire_maintain(b->db) < 0) _exit(10);
    } else {
        write_one(b, i);
    }
}

static void *write_beside(void *context)
{
    struct builder *b = context;
    for (;;) write_one(b, 0);
    return NULL;
}

static void *die_soon(void *context)
{
    usleep(2000 + (useconds_t)random_below(context, 40000));
    kill(getpid(), SIGKILL);
    return NULL;
}

/* A child: builds a store, and is killed or ends. With writers it is killed while they write, maybe in the middle of a checkpoint. */
static void build(const char *path, uint64_t seed, uint64_t most_steps)
{
    struct builder b = {.path = path}, beside[2];
    random_seed(&b.random, seed);
    uint64_t steps = random_between(&b.random, 500, most_steps);
    bool killed = random_chance(&b.random, 70), writers = killed && random_chance(&b.random, 40);
    open_builder(&b);
    for (uint64_t i = 0; i < steps; i++) step(&b);
    if (!killed) _exit(quire_close(b.db) == 0 ? 0 : 11);
    writers = writers && b.trees[0] != NULL && b.trees[1] != NULL;
    for (int i = 0; i < 2 && writers; i++) {
        pthread_t thread;
        beside[i] = b;
        random_seed(&beside[i].random, seed + 1000000 + (uint64_t)i);
        pthread_create(&thread, NULL, write_beside, &beside[i]);
    }
    if (writers) {
        pthread_t thread;
        struct random_stream random = random_split(&b.random);
        bool checkpoints = random_chance(&b.random, 70);
        pthread_create(&thread, NULL, die_soon, &random);
        for (;;) {
            write_one(&b, 1);
            if (checkpoints && random_chance(&b.random, 2)) quire_checkpoint(b.db);
        }
    }
    kill(getpid(), SIGKILL);
}

static uint64_t number_of(const char *variable, uint64_t otherwise)
{
    const char *text = getenv(variable);
    return text == NULL ? otherwise : strtoull(text, NULL, 10);
}

/* In a child of its own: before this process uses Quire. */
static void build_in_child(const char *name, uint64_t seed, uint64_t most_steps)
{
    int status;
    pid_t child = fork();
    if (child == 0) {
        build(path_of(name), seed, most_steps);
        _exit(12);
    }
    waitpid(child, &status, 0);
    cr_assert((WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) || (WIFEXITED(status) && WEXITSTATUS(status) == 0),
              "seed %" PRIu64 ": a child ended with %x", seed, (unsigned)status);
}

/* Some are copied when they were left, which is as after a loss of power: undecided frames end their log, and what lies behind is
 * dead when the next child opens them. */
static void build_all(uint64_t first, uint64_t count)
{
    for (uint64_t seed = first; seed < first + count; seed++) {
        char name[32], command[128];
        snprintf(name, sizeof(name), "s%" PRIu64, seed);
        build_in_child(name, seed, 20000);
        if (seed % 3 == 0) continue;
        snprintf(command, sizeof(command), "cp -a %s copy && rm -r %s && mv copy %s", name, name, name);
        shell(command);
        if (seed % 3 == 2) build_in_child(name, seed + 500000, 3000);
    }
}

static int look_for_range(void *context, const struct quire_manifest_record *record)
{
    bool *always = context;
    if (strcmp(record->name, "lsn-range") == 0) *always = false;
    return 0;
}

/* Whether it was never open without one. */
static bool had_a_log(const char *store)
{
    bool always = true;
    OK(quire_manifest_each(path_of(store), look_for_range, &always));
    return always;
}

/* F15, I15: whatever was written and however it ended: without the mapping the store is what an opening shows */
Test(repair_random, of_random_stores_gives_what_an_opening_shows)
{
    const uint64_t first = number_of("QUIRE_REPAIR_SEED", 1), count = number_of("QUIRE_REPAIR_SEEDS", INSTRUMENTED ? 10 : 20);
    uint64_t keys = 0, by_log = 0, by_pages = 0, unlogged = 0;
    build_all(first, count);
    for (uint64_t seed = first; seed < first + count; seed++) {
        char from[32], to[32];
        snprintf(from, sizeof(from), "s%" PRIu64, seed);
        snprintf(to, sizeof(to), "r%" PRIu64, seed);
        fprintf(stderr, "seed %" PRIu64 "\n", seed);
        bool log = had_a_log(from); /* else the root must stay: repair_log.c has why */
        if (seed % 4 == 1) log ? damage_mapping(from) : damage_kind(from, BLOCK) + damage_kind(from, NODE);
        if (seed % 4 == 2) damage_kind(from, BLOCK);
        if (seed % 4 == 3) damage_kind(from, log ? ROOT : BLOCK), damage_kind(from, INNER);
        unlogged += !log;
        expect_repair(from, to, 0);
        by_log += report.log_records;
        by_pages += report.records;
        undo_damage();
        keys += compare_stores(from, to);
    }
    cr_assert(count < 10 || (keys > 1000 && by_log > 1000 && by_pages > 1000 && unlogged > 0));
}

/* Flips a few bytes anywhere in the files of a store. */
static void damage_anywhere(const char *store, struct random_stream *random)
{
    char directory[200], names[64][300];
    struct dirent *entry;
    int count = 0;
    snprintf(directory, sizeof(directory), "%s", path_of(store));
    DIR *list = opendir(directory);
    while ((entry = readdir(list)) != NULL && count < 64)
        if (entry->d_name[0] != '.' && strcmp(entry->d_name, "lock") != 0)
            snprintf(names[count++], sizeof(names[0]), "%s/%.80s", directory, entry->d_name);
    closedir(list);
    for (uint64_t left = random_between(random, 1, 40); left > 0; left--) {
        const char *file = names[random_below(random, (uint64_t)count)];
        struct stat facts;
        cr_assert_eq(stat(file, &facts), 0);
        if (facts.st_size == 0) continue;
        uint64_t most = random_chance(random, 50) ? (uint64_t)facts.st_size : 20000; /* what is written lies in front */
        damage_at(file, (long)random_below(random, most < (uint64_t)facts.st_size ? most : (uint64_t)facts.st_size));
    }
}

/* I15: whatever the files hold, repair answers, and what it makes is whole */
Test(repair_random, of_any_damage_answers)
{
    const uint64_t first = number_of("QUIRE_REPAIR_SEED", 1), count = INSTRUMENTED ? 3 : 4;
    const uint64_t rounds = number_of("QUIRE_REPAIR_ROUNDS", INSTRUMENTED ? 15 : 25);
    struct random_stream random;
    uint64_t whole = 0, incomplete = 0;
    random_seed(&random, first);
    build_all(first, count);
    for (uint64_t seed = first; seed < first + count; seed++) {
        char from[32];
        snprintf(from, sizeof(from), "s%" PRIu64, seed);
        for (uint64_t round = 0; round < rounds; round++) {
            damage_anywhere(from, &random);
            int result = repair(from, "r");
            cr_assert(result == 0 || result == QUIRE_INCOMPLETE || result == QUIRE_ERR_FOREIGN || result == QUIRE_ERR_NEWER,
                      "repair answers %d", result);
            whole += result == 0;
            incomplete += result == QUIRE_INCOMPLETE;
            cr_assert_eq(is_there("r"), result >= 0);
            if (result >= 0) {
                struct quire *db = open_store("r", QUIRE_OPEN_EXISTING);
                OK(quire_verify(db, NULL, NULL));
                OK(quire_close(db));
                OK(quire_destroy(path_of("r")));
            }
            undo_damage();
        }
    }
    cr_assert(whole > 0 && incomplete > 0, "%" PRIu64 " whole, %" PRIu64 " incomplete", whole, incomplete);
}
