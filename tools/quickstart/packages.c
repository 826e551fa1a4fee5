/*
 * Reading package indexes: whole files into memory, cut into paragraphs, sorted by key.
 *
 * Layer: tools. One thread.
 */
#include "packages.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Memory ----------------------------------------------------------------------------------------------------- */

/* Remembers a block for packages_free; NULL stays NULL. Frees it if there is no room to remember it. */
static void *remember(struct packages *packages, void *block)
{
    void **grown;

    if (block == NULL)
        return NULL;
    grown = realloc(packages->memory, (packages->memory_count + 1) * sizeof(*grown));
    if (grown == NULL) {
        free(block);
        return NULL;
    }
    packages->memory = grown;
    packages->memory[packages->memory_count++] = block;
    return block;
}

void packages_free(struct packages *packages)
{
    for (size_t i = 0; i < packages->memory_count; i++)
        free(packages->memory[i]);
    free(packages->memory);
    free(packages->all);
    free(packages->distinct);
    memset(packages, 0, sizeof(*packages));
}

/* ---- Files ------------------------------------------------------------------------------------------------------ */

/* The rest of a file in one block; NULL with errno set if it cannot be read. */
static char *read_stream(FILE *stream, size_t *ret_size)
{
    size_t size = 0, capacity = 1 << 20;
    char *data = malloc(capacity);

    while (data != NULL) {
        size += fread(data + size, 1, capacity - size, stream);
        if (ferror(stream)) {
            free(data);
            return NULL;
        }
        if (size < capacity) {
            *ret_size = size;
            return data;
        }
        capacity *= 2;
        char *grown = realloc(data, capacity);
        if (grown == NULL)
            free(data);
        data = grown;
    }
    return NULL;
}

static char *read_file(const char *name, size_t *ret_size)
{
    FILE *stream = strcmp(name, "-") == 0 ? stdin : fopen(name, "rb");
    char *data = stream != NULL ? read_stream(stream, ret_size) : NULL;

    if (data == NULL)
        fprintf(stderr, "%s: %s\n", name, strerror(errno != 0 ? errno : EIO));
    if (stream != NULL && stream != stdin)
        fclose(stream);
    return data;
}

/* ---- Paragraphs ------------------------------------------------------------------------------------------------- */

struct span {
    const char *data;
    size_t size;
};

/* The end of the line that begins here, behind its line break or at `end`. */
static const char *line_end(const char *line, const char *end)
{
    const char *found = memchr(line, '\n', (size_t)(end - line));
    return found != NULL ? found + 1 : end;
}

/* If the line is of this field ("Name:"), the text behind it without blanks around. */
static int field_of(const char *line, const char *end, const char *field, struct span *ret_text)
{
    size_t size = strlen(field);

    if ((size_t)(end - line) < size || memcmp(line, field, size) != 0)
        return 0;
    line += size;
    while (line < end && (*line == ' ' || *line == '\t'))
        line++;
    while (line < end && (end[-1] == '\n' || end[-1] == '\r' || end[-1] == ' '))
        end--;
    *ret_text = (struct span){line, (size_t)(end - line)};
    return ret_text->size > 0;
}

/* Adds the paragraph [text, end). False: no memory. */
static int add_paragraph(struct packages *packages, size_t *capacity, const char *text, const char *end, char **key_room)
{
    struct span name = {NULL, 0}, version = {NULL, 0};

    for (const char *line = text; line < end; line = line_end(line, end)) {
        const char *next = line_end(line, end);
        if (!field_of(line, next, "Package:", &name))
            field_of(line, next, "Version:", &version);
    }
    if (name.size == 0 || version.size == 0) {
        packages->skipped++;
        return 1;
    }
    if (packages->count == *capacity) {
        struct package *grown = realloc(packages->all, *capacity * 2 * sizeof(*grown));
        if (grown == NULL)
            return 0;
        packages->all = grown;
        *capacity *= 2;
    }
    struct package *package = &packages->all[packages->count];
    *package = (struct package){*key_room, name.size + 1 + version.size, text, (size_t)(end - text), packages->count};
    memcpy(*key_room, name.data, name.size);
    (*key_room)[name.size] = '/';
    memcpy(*key_room + name.size + 1, version.data, version.size);
    *key_room += package->key_size;
    packages->count++;
    packages->text_bytes += package->text_size;
    return 1;
}

/* Cuts a file into paragraphs. Keys are shorter than the lines they come from, so they fit into a block of its size. */
static int add_file(struct packages *packages, size_t *capacity, const char *data, size_t size)
{
    char *key_room = remember(packages, malloc(size + 1));
    const char *end = data + size;
    const char *begin = data;

    if (key_room == NULL)
        return 0;
    for (const char *line = data; line < end; line = line_end(line, end)) {
        if (*line != '\n' && *line != '\r')
            continue;
        if (line > begin && !add_paragraph(packages, capacity, begin, line, &key_room))
            return 0;
        begin = line_end(line, end);
    }
    return begin >= end || add_paragraph(packages, capacity, begin, end, &key_room);
}

/* ---- Order ------------------------------------------------------------------------------------------------------ */

static int compare_keys(const struct package *a, const struct package *b)
{
    size_t shorter = a->key_size < b->key_size ? a->key_size : b->key_size;
    int order = memcmp(a->key, b->key, shorter);
    return order != 0 ? order : (a->key_size > b->key_size) - (a->key_size < b->key_size);
}

/* By key; of equal ones the last that was read comes first. */
static int compare_packages(const void *a, const void *b)
{
    const struct package *left = *(const struct package *const *)a, *right = *(const struct package *const *)b;
    int order = compare_keys(left, right);
    return order != 0 ? order : (left->position < right->position) - (left->position > right->position);
}

static int sort_distinct(struct packages *packages)
{
    const struct package **sorted = malloc(packages->count * sizeof(*sorted));
    size_t kept = 0;

    if (sorted == NULL)
        return 0;
    for (size_t i = 0; i < packages->count; i++)
        sorted[i] = &packages->all[i];
    qsort(sorted, packages->count, sizeof(*sorted), compare_packages);
    for (size_t i = 0; i < packages->count; i++) {
        if (kept == 0 || compare_keys(sorted[kept - 1], sorted[i]) != 0)
            sorted[kept++] = sorted[i];
    }
    packages->distinct = sorted;
    packages->distinct_count = kept;
    return 1;
}

int packages_read(char *const *files, size_t file_count, struct packages *ret_packages)
{
    struct packages packages = {.index_count = file_count};
    size_t capacity = 4096;
    int done = (packages.all = malloc(capacity * sizeof(*packages.all))) != NULL;

    for (size_t i = 0; i < file_count && done; i++) {
        size_t size = 0;
        char *data = read_file(files[i], &size);
        if (data == NULL) {
            packages_free(&packages);
            return -1;
        }
        data = remember(&packages, data);
        done = data != NULL && add_file(&packages, &capacity, data, size);
    }
    if (done && packages.count == 0) {
        fprintf(stderr, "there is no package in what was read\n");
        packages_free(&packages);
        return -1;
    }
    if (!done || !sort_distinct(&packages)) {
        fprintf(stderr, "no memory for the indexes\n");
        packages_free(&packages);
        return -1;
    }
    *ret_packages = packages;
    return 0;
}
