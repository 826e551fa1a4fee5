/*
 * A small database whose content is known, and every way of reading it against the model.
 *
 * Test program (interleave). Read interleave.h first: WORLD-1 tells what a pending write may look like.
 */
#include "interleave.h"

#include "db/db.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

size_t world_key(uint32_t number, char *key)
{
    return (size_t)snprintf(key, 16, "k%03u", number);
}

/* ---- The model -------------------------------------------------------------------------------------------------- */

/* Under the mutex. */
static bool may_show(struct world *world, uint32_t number, uint64_t id)
{
    if (world->cells[number].id == id)
        return true;
    for (uint32_t i = 0; i < world->actor_count; i++) {
        struct actor *actor = world->actors[i];
        if (actor->pending && !actor->pending_seen && actor->pending_key == number && actor->pending_id == id) {
            actor->pending_seen = true;
            world->cells[number].id = id;
            return true;
        }
    }
    return false;
}

bool world_may_show(struct world *world, uint32_t number, uint64_t id)
{
    pthread_mutex_lock(&world->mutex);
    bool right = may_show(world, number, id);
    pthread_mutex_unlock(&world->mutex);
    return right;
}

static void check_shown(struct world *world, const char *how, uint32_t number, uint64_t id)
{
    pthread_mutex_lock(&world->mutex);
    uint64_t expected = world->cells[number].id;
    bool right = may_show(world, number, id);
    pthread_mutex_unlock(&world->mutex);
    CHECK(right, "%s: key %u shows %" PRIu64 ", not %" PRIu64, how, number, id, expected);
}

static uint64_t id_of(const void *value, size_t size)
{
    uint64_t id = 0;
    CHECK(value_verify(value, size, &id), "a torn or foreign value of %zu bytes", size);
    return id;
}

/* ---- Writing ---------------------------------------------------------------------------------------------------- */

static void set_cell(struct world *world, uint32_t number, uint64_t id)
{
    pthread_mutex_lock(&world->mutex);
    world->cells[number].id = id;
    pthread_mutex_unlock(&world->mutex);
}

void world_put_sized(struct world *world, uint32_t number, uint32_t size)
{
    char key[16];
    uint8_t value[VALUE_BYTES_MAX];
    pthread_mutex_lock(&world->mutex);
    uint64_t id = ++world->next_id;
    pthread_mutex_unlock(&world->mutex);
    value_make(id, value, size);
    CHECK_EQUAL(quire_put(world->tree, key, world_key(number, key), value, size, 0, NULL), 0);
    set_cell(world, number, id);
}

void world_put(struct world *world, uint32_t number)
{
    world_put_sized(world, number, world->value_size);
}

void world_delete(struct world *world, uint32_t number)
{
    char key[16];
    CHECK_EQUAL(quire_delete(world->tree, key, world_key(number, key), 0, NULL, NULL), 0);
    set_cell(world, number, 0);
}

/* ---- Reading ---------------------------------------------------------------------------------------------------- */

uint64_t world_read(struct world *world, uint32_t number)
{
    char key[16];
    uint8_t value[VALUE_BYTES_MAX];
    size_t size = 0;
    int result = quire_get(world->tree, NULL, key, world_key(number, key), value, sizeof(value), &size);
    CHECK(result == 0 || result == QUIRE_NOT_FOUND, "get: %d", result);
    return result == 0 ? id_of(value, size) : 0;
}

void world_check_get(struct world *world, uint32_t number)
{
    check_shown(world, "get", number, world_read(world, number));
}

static void check_get_many(struct world *world, struct quire_guard *guard)
{
    char keys[WORLD_KEYS][16];
    struct quire_slice slices[WORLD_KEYS];
    struct quire_value values[WORLD_KEYS];
    int results[WORLD_KEYS];

    for (uint32_t i = 0; i < world->key_count; i++)
        slices[i] = (struct quire_slice){keys[i], world_key(i, keys[i])};
    CHECK_EQUAL(quire_get_many(guard, world->tree, NULL, slices, world->key_count, values, results), 0);
    for (uint32_t i = 0; i < world->key_count; i++) {
        if (CHECK(results[i] == 0 || results[i] == QUIRE_NOT_FOUND, "get_many: %d", results[i]))
            check_shown(world, "get_many", i, results[i] == 0 ? id_of(values[i].data, values[i].size) : 0);
    }
}

void world_check_gets(struct world *world)
{
    struct quire_guard guard;
    for (uint32_t i = 0; i < world->key_count && !failed(); i++)
        world_check_get(world, i);
    CHECK_EQUAL(quire_pin(world->db, "interleave", &guard), 0);
    for (uint32_t i = 0; i < world->key_count && !failed(); i++) {
        char key[16];
        struct quire_value value;
        int result = quire_guard_get(&guard, world->tree, NULL, key, world_key(i, key), &value);
        check_shown(world, "guard_get", i, result == 0 ? id_of(value.data, value.size) : 0);
    }
    check_get_many(world, &guard);
    CHECK_EQUAL(quire_unpin(&guard), 0);
}

/* One page of a scan: what lies between the last key and the next is absent. `next` is the number expected next. */
static void check_page(struct world *world, const struct quire_page *page, bool reverse, uint32_t *seen)
{
    for (size_t i = 0; i < page->count && !failed(); i++) {
        const struct quire_entry *entry = &page->entries[i];
        char text[16] = "";
        memcpy(text, entry->key, entry->key_size < 15 ? entry->key_size : 15);
        uint32_t number = (uint32_t)strtoul(text + 1, NULL, 10);
        uint32_t place = reverse ? world->key_count - 1 - number : number;
        if (!CHECK(number < world->key_count && place >= *seen, "scan: %s comes again or out of order", text))
            return;
        for (; *seen < place; ++*seen)
            check_shown(world, "scan", reverse ? world->key_count - 1 - *seen : *seen, 0);
        check_shown(world, "scan", number, id_of(entry->value, entry->value_size));
        ++*seen;
    }
}

void world_check_scan(struct world *world, bool reverse)
{
    struct quire_pages_options options;
    struct quire_pages *pages = NULL;
    struct quire_page page;
    uint32_t seen = 0;
    int result;

    quire_pages_options_init(&options);
    options.reverse = reverse;
    if (!CHECK_EQUAL(quire_pages_open(world->tree, &options, &pages), 0))
        return;
    while ((result = quire_pages_next(pages, &page)) == 0 && !failed())
        check_page(world, &page, reverse, &seen);
    CHECK(result == QUIRE_END || failed(), "next: %d", result);
    for (; seen < world->key_count && !failed(); seen++)
        check_shown(world, "scan", reverse ? world->key_count - 1 - seen : seen, 0);
    CHECK_EQUAL(quire_pages_close(pages), 0);
}

void world_check_all(struct world *world)
{
    world_check_gets(world);
    world_check_scan(world, false);
    world_check_scan(world, true);
}

uint32_t world_leaf_first(struct world *world, uint32_t number)
{
    struct quire_pages *pages = NULL;
    struct quire_page page;
    uint32_t first = UINT32_MAX;
    char key[16];
    size_t size = world_key(number, key);

    if (!CHECK_EQUAL(quire_pages_open(world->tree, NULL, &pages), 0))
        return first;
    while (first == UINT32_MAX && quire_pages_next(pages, &page) == 0) {
        size_t at = quire_page_seek(&page, key, size);
        if (at == page.count || page.entries[at].key_size != size || memcmp(page.entries[at].key, key, size) != 0)
            continue;
        char text[16] = "";
        memcpy(text, page.entries[0].key, size);
        first = (uint32_t)strtoul(text + 1, NULL, 10);
    }
    CHECK_EQUAL(quire_pages_close(pages), 0);
    return first;
}

/* ---- Snapshots -------------------------------------------------------------------------------------------------- */

void world_snapshot_take(struct world *world, struct world_snapshot *snapshot)
{
    memset(snapshot, 0, sizeof(*snapshot));
    pthread_mutex_lock(&world->mutex);
    memcpy(snapshot->cells, world->cells, sizeof(world->cells));
    for (uint32_t i = 0; i < world->actor_count; i++) {
        if (world->actors[i]->pending)
            snapshot->unsure[world->actors[i]->pending_key] = true;
    }
    pthread_mutex_unlock(&world->mutex);
    CHECK_EQUAL(quire_snapshot(world->db, "interleave", &snapshot->snapshot), 0);
}

void world_snapshot_check(struct world *world, const struct world_snapshot *snapshot)
{
    char key[16];
    uint8_t value[VALUE_BYTES_MAX];
    uint64_t count = 0, present = 0, unsure = 0;
    struct quire_slice all = {NULL, 0};

    for (uint32_t i = 0; i < world->key_count && !failed(); i++) {
        size_t size = 0;
        unsure += snapshot->unsure[i];
        present += !snapshot->unsure[i] && snapshot->cells[i].id != 0;
        if (snapshot->unsure[i])
            continue;
        int result = quire_get(world->tree, snapshot->snapshot, key, world_key(i, key), value, sizeof(value), &size);
        uint64_t id = result == 0 ? id_of(value, size) : 0;
        CHECK(id == snapshot->cells[i].id, "the snapshot shows %" PRIu64 " for key %u, not %" PRIu64, id, i,
              snapshot->cells[i].id);
    }
    CHECK_EQUAL(quire_count(world->tree, snapshot->snapshot, all, all, &count), 0);
    CHECK(count >= present && count <= present + unsure, "the snapshot counts %" PRIu64 ", not %" PRIu64, count,
          present);
}

void world_snapshot_release(struct world_snapshot *snapshot)
{
    CHECK_EQUAL(quire_snapshot_release(snapshot->snapshot), 0);
}

/* ---- Opening and closing ---------------------------------------------------------------------------------------- */

static void maintain(struct world *world)
{
    int result = QUIRE_MORE;
    for (unsigned i = 0; i < 100000 && result == QUIRE_MORE; i++)
        result = quire_maintain(world->db);
    CHECK_EQUAL(result, 0);
}

static void fill(struct world *world)
{
    static const uint32_t counts[WORLD_SIZE_COUNT] = {10, 40, WORLD_KEYS};
    world->key_count = counts[world->size];
    /* Downwards: leaves that are filled upwards have no room for deltas. */
    for (uint32_t i = (world->key_count + 1) / 2; i-- > 0;)
        world_put(world, i * 2);
    maintain(world);
}

bool world_open(struct world *world, const struct world_options *wanted)
{
    struct quire_options options;
    struct quire_tree_options tree_options;

    memset(world, 0, sizeof(*world));
    world->size = wanted->size;
    world->value_size = wanted->value_size == 0 ? 56 : wanted->value_size;
    pthread_mutex_init(&world->mutex, NULL);
    quire_options_init(&options);
    options.background_threads = wanted->background ? 1 : QUIRE_NO_THREADS;
    quire_tree_options_init(&tree_options);
    tree_options.leaf_page_size_bytes = wanted->leaf_size == 0 ? 512 : wanted->leaf_size;
    tree_options.inner_page_size_bytes = 512;
    tree_options.page_chain_length = wanted->chain_length == 0 ? 2 : wanted->chain_length;
    if (!CHECK_EQUAL(quire_open(NULL, &options, &world->db), 0))
        return false;
    if (wanted->store)
        CHECK_EQUAL(qr_testing_attach_store(world->db), 0);
    if (!CHECK_EQUAL(quire_tree_open(world->db, NULL, &tree_options, &world->tree), 0))
        return false;
    fill(world);
    return !failed();
}

static void check_structure(struct world *world)
{
    char message[512] = "";
    int result = qr_testing_check(world->tree, message, sizeof(message));
    CHECK(result == 0, "structure check says %d: %s", result, message);
}

/* Deletes everything: whatever structure change was begun, what is left is one empty leaf. */
static void check_shrinks(struct world *world)
{
    struct quire_stats stats = {.struct_size = sizeof(stats)};
    for (uint32_t i = 0; i < world->key_count; i++)
        world_delete(world, i);
    maintain(world);
    check_structure(world);
    CHECK_EQUAL(quire_stats(world->db, &stats), 0);
    CHECK_EQUAL(stats.height_max, 1);
    CHECK_EQUAL(stats.memory_retired_bytes, 0);
    /* The roots of the catalogue and of this tree. */
    CHECK_EQUAL(qr_map_ids_in_use(world->db->map), 2);
}

void world_close(struct world *world)
{
    CHECK_EQUAL(world->actor_count, 0);
    progress_step("afterwards");
    world_check_all(world);
    maintain(world);
    world_check_all(world);
    check_structure(world);
    if (!failed())
        check_shrinks(world);
    CHECK_EQUAL(quire_close(world->db), 0);
    pthread_mutex_destroy(&world->mutex);
}
