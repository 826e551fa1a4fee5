/*
 * Shorthand for the tests of repair: bytes of a store that are changed and changed back, repairs of which the original is looked at,
 * stores compared.
 *
 * Test programs (api_repair*).
 */
#ifndef TEST_API_REPAIR_H
#define TEST_API_REPAIR_H

#include "api_dir.h"
#include "api_inside.h"


#include <dirent.h>

/* ---- Damage ----------------------------------------------------------------------------------------------------- */

enum { LEAF = 1, INNER = 2, BLOCK = 16, NODE = 17, ROOT = 18, IMAGE_HEADER = 64, MOST_FLIPS = 65536 };

struct flip {
    char file[300];
    long offset;
};
static struct flip flips[MOST_FLIPS];
static int flip_count;

HELPER void flip_byte(const char *file, long offset)
{
    FILE *f = fopen(file, "r+b");
    cr_assert_not_null(f, "%s", file);
    fseek(f, offset, SEEK_SET);
    int byte = fgetc(f);
    fseek(f, offset, SEEK_SET);
    fputc(byte ^ 0x41, f);
    fclose(f);
}

HELPER void damage_at(const char *file, long offset)
{
    cr_assert(flip_count < MOST_FLIPS);
    struct flip *flip = &flips[flip_count++];
    snprintf(flip->file, sizeof(flip->file), "%s", file);
    flip->offset = offset;
    flip_byte(file, offset);
}

HELPER void undo_damage(void)
{
    while (flip_count > 0) {
        flip_count--;
        flip_byte(flips[flip_count].file, flips[flip_count].offset);
    }
}

/* Where bytes stand in the files of a store whose names begin so: exactly one. */
struct found {
    char file[300];
    long offset;
};

HELPER struct found find_bytes(const char *store, const char *prefix, const void *bytes, size_t size)
{
    char directory[200];
    struct dirent *entry;
    struct found found = {.offset = 0};
    int count = 0;
    snprintf(directory, sizeof(directory), "%s", path_of(store));
    DIR *list = opendir(directory);
    cr_assert_not_null(list);
    while ((entry = readdir(list)) != NULL) {
        static uint8_t content[1 << 20];
        char file[300];
        if (strncmp(entry->d_name, prefix, strlen(prefix)) != 0) continue;
        snprintf(file, sizeof(file), "%s/%.80s", directory, entry->d_name);
        FILE *f = fopen(file, "rb");
        size_t all = fread(content, 1, sizeof(content), f);
        fclose(f);
        const uint8_t *at = memmem(content, all, bytes, size);
        if (at == NULL) continue;
        snprintf(found.file, sizeof(found.file), "%s", file);
        found.offset = at - content;
        count++;
    }
    closedir(list);
    cr_assert_eq(count, 1, "%d files have it", count);
    return found;
}

/* An image as it lies in a file. */
struct image {
    char file[300];
    long offset;
    uint32_t tree, size;
    uint64_t max_lsn, pid;
    int kind;
    uint8_t *bytes; /* of the file, from the image's header on */
};
typedef bool see_image(void *context, const struct image *image); /* true: its byte is to be changed */

/* Sees all images in the page segments of a store. Returns how many were damaged. */
HELPER int each_image(const char *store, see_image *see, void *context)
{
    char directory[200], file[300];
    struct dirent *entry;
    int damaged = 0;
    snprintf(directory, sizeof(directory), "%s", path_of(store));
    DIR *list = opendir(directory);
    cr_assert_not_null(list);
    while ((entry = readdir(list)) != NULL) {
        struct stat facts;
        if (strncmp(entry->d_name, "page-", 5) != 0) continue;
        snprintf(file, sizeof(file), "%s/%.80s", directory, entry->d_name);
        cr_assert_eq(stat(file, &facts), 0);
        uint8_t *bytes = malloc((size_t)facts.st_size + 1);
        FILE *f = fopen(file, "rb");
        size_t size = fread(bytes, 1, (size_t)facts.st_size, f);
        uint64_t number = strtoull(entry->d_name + 5, NULL, 16);
        fclose(f);
        for (size_t at = 4096; at + IMAGE_HEADER < size; at += 64) {
            struct image image = {.offset = (long)at, .bytes = bytes + at};
            uint64_t address;
            memcpy(&address, bytes + at + 8, 8);
            /* Others are of an earlier life of the file. */
            if (memcmp(bytes + at, "QIMG", 4) != 0 || address >> 32 != number || ((uint32_t)address & ~63u) != at) continue;
            snprintf(image.file, sizeof(image.file), "%s", file);
            memcpy(&image.pid, bytes + at + 16, 8);
            memcpy(&image.max_lsn, bytes + at + 32, 8);
            memcpy(&image.tree, bytes + at + 40, 4);
            memcpy(&image.size, bytes + at + 44, 4);
            image.kind = bytes[at + 52];
            if (!see(context, &image)) continue;
            damage_at(file, (long)at + IMAGE_HEADER + 8);
            damaged++;
        }
        free(bytes);
    }
    closedir(list);
    return damaged;
}

HELPER bool is_of_kind(void *context, const struct image *image)
{
    return image->kind == *(int *)context;
}

HELPER int damage_kind(const char *store, int kind)
{
    return each_image(store, is_of_kind, &kind);
}

HELPER int damage_mapping(const char *store)
{
    return damage_kind(store, BLOCK) + damage_kind(store, NODE) + damage_kind(store, ROOT);
}

/* ---- Repairs ---------------------------------------------------------------------------------------------------- */

struct losses {
    int ranges, values, logs, names, newest;
    char low[600], high[600], tree[300], text[600];
};

HELPER void note_loss(void *context, const struct quire_loss *loss)
{
    struct losses *l = context;
    cr_assert_eq(loss->struct_size, sizeof(*loss));
    l->ranges += loss->kind == QUIRE_LOSS_RANGE;
    l->values += loss->kind == QUIRE_LOSS_VALUE;
    l->logs += loss->kind == QUIRE_LOSS_LOG;
    l->names += loss->kind == QUIRE_LOSS_NAME;
    l->newest += loss->kind == QUIRE_LOSS_NEWEST;
    snprintf(l->low, sizeof(l->low), "%.*s", loss->low.data == NULL ? 4 : (int)loss->low.size,
             loss->low.data == NULL ? "none" : (const char *)loss->low.data);
    snprintf(l->high, sizeof(l->high), "%.*s", loss->high.data == NULL ? 4 : (int)loss->high.size,
             loss->high.data == NULL ? "none" : (const char *)loss->high.data);
    snprintf(l->tree, sizeof(l->tree), "%s", loss->tree == NULL ? "(none)" : loss->tree);
    snprintf(l->text, sizeof(l->text), "%s", loss->text);
}

static struct losses lost;
static struct quire_repair_report report;

/* As digest, but it may lie beside what changes. */
HELPER uint64_t digest_of(const char *name)
{
    char command[600], line[128] = "";
    snprintf(command, sizeof(command),
             "test -d %s && cd %s && (ls -l --time-style=full-iso | tail -n +2; stat -c %%y .; find . -type f | sort | xargs -r cat) | md5sum",
             path_of(name), path_of(name));
    FILE *pipe = popen(command, "r");
    if (fgets(line, sizeof(line), pipe) == NULL) line[0] = '\0';
    pclose(pipe);
    return line[0] == '\0' ? 0 : strtoull(line + 16, NULL, 16); /* half of it is enough */
}

/* Repairs a store; the original is not touched. */
HELPER int repair(const char *from, const char *to)
{
    char from_path[200], to_path[200];
    snprintf(from_path, sizeof(from_path), "%s", path_of(from));
    snprintf(to_path, sizeof(to_path), "%s", path_of(to));
    uint64_t before = digest_of(from);
    lost = (struct losses){0};
    report = (struct quire_repair_report){.struct_size = sizeof(report)};
    int result = quire_repair(from_path, to_path, note_loss, &lost, &report);
    cr_assert_eq(digest_of(from), before, "the original was changed");
    if (result >= 0) {
        cr_assert_eq(report.ranges_lost, (uint64_t)lost.ranges);
        cr_assert_eq(report.values_lost, (uint64_t)lost.values);
        cr_assert_eq(report.logs_lost, (uint64_t)lost.logs);
        cr_assert_eq(report.names_lost, (uint64_t)lost.names);
        cr_assert_eq(report.newest_lost, (uint64_t)lost.newest);
    }
    return result;
}

HELPER void expect_repair(const char *from, const char *to, int right)
{
    struct quire_error_detail detail;
    int result = repair(from, to);
    quire_error_detail(&detail);
    cr_assert(result == right, "repair is %d, not %d (%s); lost %d ranges, %d values, %d logs, %d names; %s [%s, %s) %s", result,
              right, detail.message, lost.ranges, lost.values, lost.logs, lost.names, lost.tree, lost.low, lost.high, lost.text);
}

/* ---- Comparison ------------------------------------------------------------------------------------------------- */

struct cursor {
    struct quire_pages *pages;
    struct quire_page page;
    size_t at;
};

HELPER const struct quire_entry *next_entry(struct cursor *c)
{
    if (c->page.entries == NULL || c->at == c->page.count) {
        int result = quire_pages_next(c->pages, &c->page);
        if (result == QUIRE_END) return NULL;
        OK(result);
        c->at = 0;
    }
    return &c->page.entries[c->at++];
}

HELPER void open_cursor(struct quire_tree *tree, uint64_t version, struct cursor *ret)
{
    struct quire_pages_options options;
    quire_pages_options_init(&options);
    options.version = version;
    *ret = (struct cursor){NULL};
    OK(quire_pages_open(tree, &options, &ret->pages));
}

/* Both trees have the same keys and values at a version. Returns how many. */
HELPER uint64_t compare_at(struct quire_tree *a, struct quire_tree *b, uint64_t version, bool caller)
{
    struct cursor x, y;
    const struct quire_entry *e, *f;
    uint64_t count = 0;
    open_cursor(a, version, &x);
    open_cursor(b, version, &y);
    do {
        e = next_entry(&x);
        f = next_entry(&y);
        if (e == NULL && f == NULL) break;
        cr_assert(e != NULL && f != NULL, "%s has more: '%.*s'", e == NULL ? "the repaired" : "the original",
                  (int)(e == NULL ? f : e)->key_size, (const char *)(e == NULL ? f : e)->key);
        cr_assert(e->key_size == f->key_size && memcmp(e->key, f->key, e->key_size) == 0, "key '%.*s', repaired '%.*s'",
                  (int)e->key_size, (const char *)e->key, (int)f->key_size, (const char *)f->key);
        cr_assert(e->value_size == f->value_size && memcmp(e->value, f->value, e->value_size) == 0,
                  "value of '%.*s' (%zu bytes, repaired %zu)", (int)e->key_size, (const char *)e->key, e->value_size, f->value_size);
        cr_assert(!caller || e->version == f->version);
        count++;
    } while (true);
    quire_pages_close(x.pages);
    quire_pages_close(y.pages);
    return count;
}

enum { VERSIONS = 40 }; /* that tests use */

HELPER uint64_t compare_trees(struct quire *a, struct quire *b, const char *name)
{
    struct quire_tree *x = open_tree(a, name), *y = open_tree(b, name);
    struct quire_tree_options of_x, of_y;
    quire_tree_options_init(&of_x);
    quire_tree_options_init(&of_y);
    OK(quire_tree_options_get(x, &of_x));
    OK(quire_tree_options_get(y, &of_y));
    cr_assert_eq(memcmp(&of_x, &of_y, sizeof(of_x)), 0, "options of %s", name);
    bool caller = of_x.versions == QUIRE_VERSIONS_CALLER;
    if (caller) {
        uint64_t safe_x = 0, safe_y = 0;
        OK(quire_safe_lsn(x, &safe_x));
        OK(quire_safe_lsn(y, &safe_y));
        cr_assert_eq(safe_x, safe_y);
        for (uint64_t version = safe_x; version < VERSIONS; version++) compare_at(x, y, version, true);
    }
    return compare_at(x, y, UINT64_MAX, caller);
}

/* The stores answer the same. */
HELPER uint64_t compare_stores(const char *original, const char *repaired)
{
    struct quire *a = open_store(original, QUIRE_OPEN_EXISTING), *b = open_store(repaired, QUIRE_OPEN_EXISTING);
    char **names, **others;
    size_t count, other_count;
    uint64_t keys = 0;
    OK(quire_tree_list(a, &names, &count));
    OK(quire_tree_list(b, &others, &other_count));
    cr_assert_eq(count, other_count, "%zu trees, repaired %zu", count, other_count);
    for (size_t i = 0; i < count; i++) {
        cr_assert_str_eq(names[i], others[i]);
        keys += compare_trees(a, b, names[i]);
    }
    OK(quire_verify(b, NULL, NULL));
    quire_free(names);
    quire_free(others);
    OK(quire_close(a));
    OK(quire_close(b));
    return keys;
}

/* Reading everything answers CORRUPT somewhere, or the store does not open. */
HELPER void expect_corrupt(const char *name)
{
    struct quire_options options = options_of(QUIRE_OPEN_READ_ONLY, QUIRE_LEVEL_PROCESS);
    struct quire *db = NULL;
    int result = quire_open(path_of(name), &options, &db);
    if (result == 0) {
        struct quire_tree *tree = NULL;
        uint64_t count;
        struct quire_slice none = {NULL, 0};
        result = quire_tree_open(db, "small", NULL, &tree);
        if (result == 0) result = quire_count(tree, NULL, none, none, &count);
        OK(quire_close(db));
    }
    EXPECT(result, QUIRE_ERR_CORRUPT);
}

/* Without background threads: pages change when the test says so, and the images of the last checkpoint are the only ones at it. */
HELPER struct quire *open_still(const char *name, uint32_t mode)
{
    struct quire_options options = options_of(mode, QUIRE_LEVEL_PROCESS);
    options.background_threads = QUIRE_NO_THREADS;
    return open_by(name, &options);
}

HELPER void make_plain(const char *name)
{
    struct quire *db = open_still(name, QUIRE_CREATE_NEW);
    struct quire_tree *tree = open_small_tree(db, "small", QUIRE_VERSIONS_ENGINE);
    fill(tree, 0, 5000);
    put(open_tree(db, "other"), "a", "1");
    settle(db);
    OK(quire_checkpoint(db));
    OK(quire_close(db));
}

#endif
