/*
 * What the examples share: a check that ends the program, and keys and values written as string literals.
 *
 * Layer: example. A program of your own would handle the results in its own way; QUIRE_NOT_FOUND and the other positive
 * ones are answers, the negative ones are failures.
 */
#ifndef EXAMPLE_H
#define EXAMPLE_H

#include <quire/quire.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A string literal as pointer and size. */
#define TEXT(literal) (literal), (sizeof(literal) - 1)

/* The call answered `right`; else says what it answered and ends the program. */
#define EXPECT(right, call) example_expect(__FILE__, __LINE__, #call, (right), (call))
#define OK(call) EXPECT(QUIRE_OK, call)

/* The condition holds; else says where it does not and ends the program. */
#define CHECK(condition) example_check(__FILE__, __LINE__, #condition, (condition) != 0)

static inline void example_expect(const char *file, int line, const char *call, int right, int result)
{
    struct quire_error_detail detail;

    if (result == right)
        return;
    fprintf(stderr, "%s:%d: %s: %s instead of %s\n", file, line, call, quire_strerror(result), quire_strerror(right));
    quire_error_detail(&detail);
    if (result < 0)
        fprintf(stderr, "%s\n", detail.message);
    exit(1);
}

static inline void example_check(const char *file, int line, const char *condition, int holds)
{
    if (holds)
        return;
    fprintf(stderr, "%s:%d: not true: %s\n", file, line, condition);
    exit(1);
}

/* The bytes are those of the text. */
static inline int example_equal(const void *data, size_t size, const char *text)
{
    return size == strlen(text) && (size == 0 || memcmp(data, text, size) == 0);
}

#endif
