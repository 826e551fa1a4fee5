/*
 * Goal: at the memory limit, with the reserve used up too, reads go on.
 * Method: fill a database to its limit, let a guard hold back what is replaced, delete until that is refused; every get
 * must answer. The bugs: a walker that could not post a missing separator gave up, though the sibling link leads on;
 * and so did a reader who could not finish a merge.
 */
#include "lib/check.h"
#include "lib/holder.h"

#include <stdio.h>
#include <string.h>

#define MOST_KEYS 40000u

static size_t make_key(uint64_t number, char *key)
{
    return (size_t)snprintf(key, 16, "key-%06u", (unsigned)number);
}

static struct quire_tree *open_limited(uint32_t page_size, struct quire **ret_db)
{
    struct quire_options options;
    struct quire_tree_options tree_options;
    struct quire_tree *tree = NULL;
    quire_options_init(&options);
    options.background_threads = QUIRE_NO_THREADS;
    options.memory_limit_bytes = 4u << 20;
    options.stall_timeout_ms = 1;
    CHECK_EQUAL(quire_open(NULL, &options, ret_db), 0);
    quire_tree_options_init(&tree_options);
    tree_options.leaf_page_size_bytes = page_size;
    tree_options.inner_page_size_bytes = page_size;
    CHECK_EQUAL(quire_tree_open(*ret_db, NULL, &tree_options, &tree), 0);
    return tree;
}

/* 1 = present, 0 = absent, in state[]. */
static uint64_t wrong_reads(struct quire_tree *tree, const uint8_t *state, uint64_t keys)
{
    uint64_t wrong = 0;
    char key[16], value[100];
    size_t size;
    for (uint64_t i = 0; i < keys; i++) {
        int result = quire_get(tree, NULL, key, make_key(i, key), value, sizeof(value), &size);
        wrong += result != (state[i] != 0 ? 0 : QUIRE_NOT_FOUND);
    }
    return wrong;
}

static void run(uint32_t page_size, uint64_t stride)
{
    static uint8_t state[MOST_KEYS];
    static const char value[100];
    struct holder holder;
    char key[16];
    uint64_t keys = 0, refused = 0, wrong = 0;
    struct quire *db = NULL;
    struct quire_tree *tree = open_limited(page_size, &db);

    memset(state, 0, sizeof(state));
    while (keys < MOST_KEYS && quire_put(tree, key, make_key(keys, key), value, sizeof(value), 0, NULL) == 0)
        state[keys++] = 1;
    CHECK(keys > 1000 && keys < MOST_KEYS, "%llu keys", (unsigned long long)keys);
    CHECK(holder_start(&holder, db), "no holder");
    for (uint64_t i = 0; i < 4 * keys && refused < 10; i++) {
        uint64_t number = i / 4 * stride % keys; /* several times: a later write drops what was deleted */
        int result = quire_delete(tree, key, make_key(number, key), 0, NULL, NULL);
        CHECK(result == 0 || result == QUIRE_ERR_NO_MEMORY || result == QUIRE_ERR_STALLED, "delete: %d", result);
        if (result == 0)
            state[number] = 0;
        else if (refused++ % 3 == 0)
            wrong += wrong_reads(tree, state, keys);
    }
    CHECK(refused > 0, "nothing was refused");
    CHECK_EQUAL(wrong, 0);
    CHECK(holder_end(&holder), "the holder's guard");
    CHECK_EQUAL(wrong_reads(tree, state, keys), 0);
    CHECK_EQUAL(quire_close(db), 0);
}

int main(void)
{
    run(4096, 1);   /* a merge is left half done */
    run(2048, 1);   /* likewise */
    run(4096, 377); /* a split's separator is missing */
    run(512, 7);
    return check_finish();
}
