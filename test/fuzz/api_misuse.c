/*
 * api_misuse.c: wrong calls, each with the answer that its contract gives; and options of any bytes.
 */
#include "fuzz/api.h"

#include <stdio.h>
#include <stdlib.h>

static uint8_t huge[200000]; /* more than a key may have */

/* ---- Writes and reads ------------------------------------------------------------------------------------------- */

struct call {
    struct quire_tree *tree;
    const void *key;
    size_t key_size;
    unsigned flags;
};

/* The writes of trees with engine versions. */
static int write_of(unsigned number, const struct call *call)
{
    switch (number % 5) {
    case 0:
        return quire_put(call->tree, call->key, call->key_size, "v", 1, call->flags, NULL);
    case 1:
        return quire_delete(call->tree, call->key, call->key_size, call->flags, NULL, NULL);
    case 2:
        return quire_insert(call->tree, call->key, call->key_size, "v", 1, call->flags, NULL);
    case 3:
        return quire_compare_and_swap(call->tree, call->key, call->key_size, "v", 1, "w", 1, call->flags, NULL);
    default:
        return quire_add(call->tree, call->key, call->key_size, 1, call->flags, NULL, NULL);
    }
}

static int write_at_of(unsigned number, const struct call *call)
{
    return number % 2 == 0 ? quire_put_at(call->tree, UINT64_MAX, call->key, call->key_size, "v", 1, call->flags, NULL)
                           : quire_delete_at(call->tree, UINT64_MAX, call->key, call->key_size, call->flags, NULL);
}

static void wrong_write(struct api *api)
{
    unsigned number = (unsigned)api_draw(api, 10), what = (unsigned)api_draw(api, 5);
    bool at = api_draw(api, 3) == 0;
    struct call call = {api->trees[at ? CALLER_TREE : 0].handle, "key", 3, 0};
    int expected = QUIRE_ERR_INVALID;
    if (what == 0) {
        call.tree = NULL;
    } else if (what == 1) {
        call.key = NULL;
    } else if (what == 2) {
        call.key = huge;
        call.key_size = 131073 + api_draw(api, 60000);
        expected = QUIRE_ERR_TOO_LARGE;
    } else if (what == 3) {
        call.flags = 3 + (unsigned)fuzz_take_number(&api->input, 4) % (UINT32_MAX - 3);
    } else {
        call.tree = api->trees[at ? 0 : CALLER_TREE].handle;
        expected = QUIRE_ERR_UNSUPPORTED;
    }
    FUZZ_CHECK((at ? write_at_of(number, &call) : write_of(number, &call)) == expected);
}

static void wrong_read(struct api *api)
{
    struct quire_tree *engine = api->trees[0].handle, *caller = api->trees[CALLER_TREE].handle;
    struct quire_pages *pages = NULL;
    uint64_t number;
    size_t size;
    void *copy;
    switch (api_draw(api, 9)) {
    case 0:
        FUZZ_CHECK(quire_get(caller, NULL, "k", 1, NULL, 0, &size) == QUIRE_ERR_UNSUPPORTED);
        break;
    case 1:
        FUZZ_CHECK(quire_get_at(engine, api_draw(api, 64), "k", 1, NULL, 0, &size) == QUIRE_ERR_UNSUPPORTED);
        break;
    case 2:
        FUZZ_CHECK(quire_get(engine, NULL, huge, 131073, NULL, 0, &size) == QUIRE_ERR_TOO_LARGE);
        break;
    case 3:
        FUZZ_CHECK(quire_get(engine, NULL, "k", 1, NULL, 1 + api_draw(api, 300), &size) == QUIRE_ERR_INVALID);
        break;
    case 4:
        FUZZ_CHECK(quire_get_copy(engine, NULL, NULL, 1 + api_draw(api, 300), &copy, &size) == QUIRE_ERR_INVALID);
        break;
    case 5:
        FUZZ_CHECK(quire_pages_next(NULL, &(struct quire_page){0}) == QUIRE_ERR_INVALID);
        break;
    case 6: {
        struct quire_pages_options options;
        quire_pages_options_init(&options);
        options.start = (struct quire_slice){"b", 1};
        options.end = (struct quire_slice){"a", 1};
        FUZZ_CHECK(quire_pages_open(engine, &options, &pages) == QUIRE_ERR_INVALID);
        break;
    }
    case 7:
        FUZZ_CHECK(quire_count(engine, NULL, (struct quire_slice){NULL, 1 + api_draw(api, 9)}, (struct quire_slice){0}, &number) ==
                   QUIRE_ERR_INVALID);
        break;
    default:
        FUZZ_CHECK(quire_safe_lsn(engine, &number) == QUIRE_ERR_UNSUPPORTED);
        FUZZ_CHECK(quire_set_safe_lsn(engine, 5) == QUIRE_ERR_UNSUPPORTED);
    }
    FUZZ_CHECK(pages == NULL);
}

/* ---- Handles ---------------------------------------------------------------------------------------------------- */

static void nothing_to_end(struct api *api)
{
    FUZZ_CHECK(quire_close(NULL) == 0);
    FUZZ_CHECK(quire_snapshot_release(NULL) == 0);
    FUZZ_CHECK(quire_pages_close(NULL) == 0);
    quire_free(NULL);
    FUZZ_CHECK(quire_maintain(NULL) == QUIRE_ERR_INVALID);
    FUZZ_CHECK(quire_checkpoint(NULL) == QUIRE_ERR_INVALID);
    FUZZ_CHECK(quire_checkpoint_start(NULL) == QUIRE_ERR_INVALID);
    FUZZ_CHECK(quire_sync(NULL) == QUIRE_ERR_INVALID);
    FUZZ_CHECK(quire_verify(NULL, NULL, NULL) == QUIRE_ERR_INVALID);
    FUZZ_CHECK(api->disk == NULL || quire_wait_durable(api->db, UINT64_MAX - api_draw(api, 9)) == QUIRE_ERR_INVALID);
}

static void ended_guard(struct api *api)
{
    uint64_t number = api_draw(api, GUARDS);
    struct quire_guard *guard = &api->guards[number], zero = {0};
    struct quire_value value;
    if (!api->ended[number])
        guard = &zero;
    FUZZ_CHECK(quire_guard_get(guard, api->trees[0].handle, NULL, "k", 1, &value) == QUIRE_ERR_INVALID);
    FUZZ_CHECK(quire_unpin(guard) == QUIRE_ERR_INVALID);
    FUZZ_CHECK(quire_repin(guard) == QUIRE_ERR_INVALID);
}

/* A copy of a guard is the same one: ended through one of them. */
static void copied_guard(struct api *api)
{
    struct quire_guard guard, copy;
    FUZZ_CHECK(quire_pin(api->db, "first", &guard) == 0);
    copy = guard;
    FUZZ_CHECK(quire_unpin(&copy) == 0);
    FUZZ_CHECK(quire_unpin(&guard) == QUIRE_ERR_INVALID);
}

/* ---- Options ---------------------------------------------------------------------------------------------------- */

/* A second database, of options of any bytes: they are refused, or it opens, and closes. */
static void any_options(struct api *api)
{
    struct quire_options options;
    struct quire *db = NULL;
    quire_options_init(&options);
    for (uint64_t n = 1 + api_draw(api, 3); n > 0; n--) {
        size_t at = api_draw(api, sizeof(options) / 4) * 4;
        uint32_t value = (uint32_t)fuzz_take_number(&api->input, 4);
        memcpy((uint8_t *)&options + at, &value, 4);
    }
    options.recovery_progress = NULL;
    if (options.background_threads <= 16) /* threads would be slow, and come in any order */
        options.background_threads = QUIRE_NO_THREADS;
    if (options.struct_size > sizeof(options))
        options.struct_size = sizeof(options);
    bool files = api->disk != NULL && api_draw(api, 2) == 0;
    int result = files ? qr_db_open("second", simdisk_disk(api->disk), &options, &db) : quire_open(NULL, &options, &db);
    if (result == 0) {
        struct quire_options effective = {.struct_size = sizeof(effective)};
        FUZZ_CHECK(quire_options_get(db, &effective) == 0);
        FUZZ_CHECK(quire_close(db) == (api_is_held(api) ? QUIRE_ERR_BUSY : 0));
        if (api_is_held(api)) { /* a thread with a guard cannot close any database */
            for (int i = 0; i < GUARDS; i++) {
                if (api->pinned[i])
                    FUZZ_CHECK(quire_unpin(&api->guards[i]) == 0);
                api->ended[i] = api->ended[i] || api->pinned[i];
                api->pinned[i] = false;
            }
            FUZZ_CHECK(quire_close(db) == 0);
        }
    } else {
        FUZZ_CHECK(db == NULL);
        FUZZ_CHECK(result == QUIRE_ERR_INVALID || result == QUIRE_ERR_NO_MEMORY || (files && (result == QUIRE_NOT_FOUND || result == QUIRE_EXISTS)));
    }
}

/* A tree of options of any numbers; and the same tree again. */
static void any_tree_options(struct api *api)
{
    struct quire_tree_options options;
    struct quire_tree *tree = NULL;
    char name[300];
    size_t size = api_draw(api, 290);
    quire_tree_options_init(&options);
    memset(name, 'n', size);
    name[size] = '\0';
    for (uint64_t n = api_draw(api, 3); n > 0; n--) {
        size_t at = 8 + api_draw(api, (sizeof(options) - 8) / 4) * 4;
        uint32_t value = (uint32_t)fuzz_take_number(&api->input, api_draw(api, 2) == 0 ? 1 : 4);
        memcpy((uint8_t *)&options + at, &value, 4);
    }
    int result = quire_tree_open(api->db, name, &options, &tree);
    FUZZ_CHECK(result == 0 || tree == NULL);
    FUZZ_CHECK(size <= 255 ? result != QUIRE_ERR_TOO_LARGE : result == QUIRE_ERR_TOO_LARGE || result == QUIRE_ERR_INVALID);
    FUZZ_CHECK(result == 0 || result == QUIRE_ERR_TOO_LARGE || result == QUIRE_ERR_INVALID || result == QUIRE_NOT_FOUND ||
               result == QUIRE_EXISTS);
    if (result == 0) {
        struct quire_tree *again;
        FUZZ_CHECK(quire_tree_open(api->db, name, NULL, &again) == 0);
        FUZZ_CHECK(again == tree);
    }
}

/* A struct of an older or newer header, in a block of its size. */
static void any_stats(struct api *api)
{
    size_t size = api_draw(api, sizeof(struct quire_stats) + 64), needed = 0;
    struct quire_stats *stats = calloc(1, size < 8 ? 8 : size);
    char *text = malloc(1 + api_draw(api, 300));
    FUZZ_CHECK(stats != NULL && text != NULL);
    memcpy(stats, &size, 8);
    int result = quire_stats(api->db, stats);
    FUZZ_CHECK(result == 0 || (result == QUIRE_ERR_INVALID && size < 8));
    if (result == 0)
        FUZZ_CHECK(quire_stats_print(stats, QUIRE_FORMAT_JSON, text, 1, &needed) == QUIRE_ERR_BUFFER_TOO_SMALL && needed > 1);
    free(text);
    free(stats);
}

static void any_preset(struct api *api)
{
    struct quire_options options;
    unsigned preset = (unsigned)fuzz_take_number(&api->input, 1);
    FUZZ_CHECK(quire_options_preset(&options, (enum quire_preset)preset) ==
               (preset >= QUIRE_PRESET_READ_OPTIMIZED && preset <= QUIRE_PRESET_MAX_DURABILITY ? 0 : QUIRE_ERR_INVALID));
    FUZZ_CHECK(quire_options_preset(NULL, QUIRE_PRESET_BALANCED) == QUIRE_ERR_INVALID);
    FUZZ_CHECK(quire_strerror((int)preset - 128) != NULL);
}

void api_misuse(struct api *api)
{
    static void (*const misuses[])(struct api *api) = {
        wrong_write, wrong_write,  wrong_read,       wrong_read, nothing_to_end, ended_guard,
        copied_guard, any_options, any_tree_options, any_stats,  any_preset,
    };
    misuses[api_draw(api, QR_ARRAY_COUNT(misuses))](api);
}
