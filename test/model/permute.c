/*
 * Goal: in a tree with caller versions the answers depend on the set of writes only, never on their order of arrival,
 * nor on when pages were consolidated or dropped.
 * Method: one short list of writes in 1000 random orders, each order in three trees: left alone, consolidated by force
 * after random writes, and with its pages dropped as well; every key is read at every version, by key and by pages.
 *
 * Test program (model). Acceptance row B05. One thread.
 */
#include "db/testing.h"
#include "lib/check.h"
#include "lib/options.h"
#include "lib/oracle.h"
#include "lib/random.h"

#include <quire/quire.h>

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define WRITES 40
#define KEYS 6
#define VERSIONS 12
#define TREES 3 /* how a tree is disturbed: not, consolidated, consolidated and dropped */

struct write {
    unsigned key;
    uint64_t version;
    bool deleted;
    size_t size;
    uint8_t value[200];
};

static const char *const keys[KEYS] = {"", "a", "ab", "b", "ba", "\xff\xff"};

/* Each (key, version) at most once: of two writes of a pair the later one would win, which is another property. */
static void make_writes(struct random_stream *random, struct write *writes, struct oracle *oracle)
{
    bool used[KEYS][VERSIONS + 1] = {{false}};
    for (size_t i = 0; i < WRITES; i++) {
        struct write *write = &writes[i];
        do {
            write->key = (unsigned)random_below(random, KEYS);
            write->version = random_between(random, 1, VERSIONS);
        } while (used[write->key][write->version]);
        used[write->key][write->version] = true;
        write->deleted = random_chance(random, 35);
        write->size = (size_t)random_below(random, sizeof(write->value) + 1);
        random_fill(random, write->value, write->size);
        if (write->deleted)
            oracle_delete(oracle, keys[write->key], strlen(keys[write->key]), write->version, 0);
        else
            oracle_put(oracle, keys[write->key], strlen(keys[write->key]), write->version, 0, write->value,
                       write->size);
    }
}

static void shuffle(struct random_stream *random, size_t *order)
{
    for (size_t i = 0; i < WRITES; i++)
        order[i] = i;
    for (size_t i = WRITES - 1; i > 0; i--) {
        size_t j = (size_t)random_below(random, i + 1);
        size_t swap = order[i];
        order[i] = order[j];
        order[j] = swap;
    }
}

static void apply(struct quire *db, struct quire_tree *tree, struct random_stream *random, const struct write *writes,
                  const size_t *order, int disturbance)
{
    for (size_t i = 0; i < WRITES; i++) {
        const struct write *write = &writes[order[i]];
        const char *key = keys[write->key];
        int result = write->deleted
                         ? quire_delete_at(tree, write->version, key, strlen(key), 0, NULL)
                         : quire_put_at(tree, write->version, key, strlen(key), write->value, write->size, 0, NULL);
        CHECK_EQUAL(result, 0);
        if (disturbance >= 1 && random_chance(random, 20))
            CHECK(qr_testing_consolidate(tree, random_next(random), 100) >= 0, "after write %zu", i);
        if (disturbance >= 2 && random_chance(random, 15))
            qr_testing_drop_pages(db, random_next(random), 60);
    }
}

static bool compare_gets(struct quire_tree *tree, const struct oracle *oracle, uint64_t version)
{
    bool equal = true;
    for (unsigned key = 0; key < KEYS; key++) {
        struct oracle_value right = {0};
        uint8_t value[256];
        size_t size = 0;
        bool present = oracle_get(oracle, version, keys[key], strlen(keys[key]), &right);
        int result = quire_get_at(tree, version, keys[key], strlen(keys[key]), value, sizeof(value), &size);
        equal &= CHECK(result == (present ? 0 : QUIRE_NOT_FOUND), "key %u at %" PRIu64 ": %d", key, version, result);
        if (present && result == 0)
            equal &=
                CHECK(size == right.size && memcmp(value, right.data, size) == 0, "key %u at %" PRIu64, key, version);
    }
    return equal;
}

static bool compare_pages(struct quire_tree *tree, const struct oracle *oracle, uint64_t version)
{
    struct quire_pages_options options;
    struct quire_pages *pages = NULL;
    struct quire_page page;
    struct oracle_walk walk;
    struct oracle_item item;
    bool equal = true;

    quire_pages_options_init(&options);
    options.version = version;
    oracle_walk_start(&walk, oracle, (struct oracle_range){0}, version, false);
    if (!CHECK_EQUAL(quire_pages_open(tree, &options, &pages), 0))
        return false;
    while (equal && quire_pages_next(pages, &page) == 0) {
        for (size_t i = 0; equal && i < page.count; i++) {
            const struct quire_entry *entry = &page.entries[i];
            equal = CHECK(oracle_walk_next(&walk, &item) && entry->version == item.value.version &&
                              oracle_compare(entry->key, entry->key_size, item.key, item.key_size) == 0 &&
                              entry->value_size == item.value.size &&
                              memcmp(entry->value, item.value.data, item.value.size) == 0,
                          "entry %zu at %" PRIu64, i, version);
        }
    }
    equal &= CHECK(!equal || !oracle_walk_next(&walk, &item), "pages end early at %" PRIu64, version);
    CHECK_EQUAL(quire_pages_close(pages), 0);
    return equal;
}

/* One order of arrival, in fresh trees. False: a difference was found and reported. */
static bool permute_once(struct random_stream *random, const struct write *writes, const struct oracle *oracle)
{
    struct quire_options options;
    struct quire *db;
    size_t order[WRITES];
    bool equal = true;

    quire_options_init(&options);
    options.background_threads = QUIRE_NO_THREADS;
    if (!CHECK_EQUAL(quire_open(NULL, &options, &db), 0) || !CHECK_EQUAL(qr_testing_attach_store(db), 0))
        return false;
    shuffle(random, order);
    for (int disturbance = 0; disturbance < TREES; disturbance++) {
        struct quire_tree_options tree_options;
        struct quire_tree *tree;
        char name[8] = {'t', (char)('0' + disturbance)};
        quire_tree_options_init(&tree_options);
        tree_options.versions = QUIRE_VERSIONS_CALLER;
        tree_options.leaf_page_size_bytes = disturbance == 2 ? 512 : 2048;
        tree_options.page_chain_length = (uint32_t)random_between(random, 1, 8);
        if (!CHECK_EQUAL(quire_tree_open(db, name, &tree_options, &tree), 0))
            return false;
        apply(db, tree, random, writes, order, disturbance);
        for (uint64_t version = 0; version <= VERSIONS + 1; version++)
            equal &= compare_gets(tree, oracle, version) && compare_pages(tree, oracle, version);
        equal &= compare_gets(tree, oracle, UINT64_MAX);
    }
    CHECK_EQUAL(quire_close(db), 0);
    return equal;
}

int main(int argc, char **argv)
{
    uint64_t seed = 0, orders = 1000;
    const struct test_option table[] = {
        {.name = "seed", .help = "0 = from the clock", .number = &seed},
        {.name = "orders", .help = "how many orders of arrival", .number = &orders},
    };
    test_options_parse(argc, argv, "one set of writes in many orders of arrival", table, 2);
    orders = test_scaled(orders);
    seed = test_seed(seed);

    static struct write writes[WRITES];
    struct random_stream random;
    random_seed(&random, seed);
    for (uint64_t i = 0; i < orders; i++) {
        struct oracle *oracle = oracle_create();
        struct random_stream same; /* a new list of writes every 100 orders */
        random_seed(&same, seed + i / 100);
        make_writes(&same, writes, oracle);
        bool equal = permute_once(&random, writes, oracle);
        oracle_destroy(oracle);
        if (!equal) {
            fprintf(stderr, "failed in order %" PRIu64 "; to repeat: %s --seed %" PRIu64 " --orders %" PRIu64 "\n", i,
                    argv[0], seed, i + 1);
            break;
        }
    }
    return check_finish();
}
