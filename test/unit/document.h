/*
 * Comparing bytes with the dump of them in doc/file-format.md.
 *
 * Unit tests. Included once by each test file that needs it, after the framework's header or before.
 */
#ifndef TEST_UNIT_DOCUMENT_H
#define TEST_UNIT_DOCUMENT_H

#include <criterion/criterion.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* As `hexdump -C` prints. */
static void dump_bytes(FILE *to, const uint8_t *bytes, size_t size)
{
    bool is_star = false;
    for (size_t offset = 0; offset < size; offset += 16) {
        if (offset != 0 && memcmp(bytes + offset, bytes + offset - 16, 16) == 0) {
            if (!is_star)
                fprintf(to, "*\n");
            is_star = true;
            continue;
        }
        is_star = false;
        fprintf(to, "%08zx ", offset);
        for (size_t i = 0; i < 16; i++)
            fprintf(to, "%s%02x", i == 8 ? "  " : " ", bytes[offset + i]);
        fprintf(to, "  |");
        for (size_t i = 0; i < 16; i++)
            fputc(bytes[offset + i] >= ' ' && bytes[offset + i] <= '~' ? bytes[offset + i] : '.', to);
        fprintf(to, "|\n");
    }
    fprintf(to, "%08zx\n", size);
}

static char *read_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    char *text = NULL;
    size_t size = 0, capacity = 0, count;
    cr_assert_not_null(file, "%s cannot be opened", path);
    do {
        capacity += 1 << 16;
        text = realloc(text, capacity + 1);
        count = fread(text + size, 1, capacity - size, file);
        size += count;
    } while (count != 0);
    fclose(file);
    text[size] = 0;
    return text;
}

/* The document has a dump of exactly these bytes, of which there is a multiple of 16. */
static void expect_in_document(const uint8_t *bytes, size_t size)
{
    char *expected = NULL;
    size_t expected_size = 0;
    FILE *memory = open_memstream(&expected, &expected_size);
    char *document = read_file(QUIRE_SOURCE_ROOT "/doc/file-format.md");

    dump_bytes(memory, bytes, size);
    fclose(memory);
    cr_assert_not_null(strstr(document, expected), "doc/file-format.md should have:\n%s", expected);
    free(document);
    free(expected);
}

#endif
