/*
 * Checks for test programs that do not use a framework: they count, report the first failures and go on.
 *
 * Test library. A program ends with `return check_finish();`, which prints the line `N passed, N failed`. Any thread
 * may check; the counters are atomic and order nothing.
 */
#ifndef TEST_LIB_CHECK_H
#define TEST_LIB_CHECK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* How many failures are printed in full; later ones are only counted. */
#define CHECK_REPORTED_MAX 20

extern _Atomic uint64_t check_passed_count;
extern _Atomic uint64_t check_failed_count;

/* Counts one failure and prints it: the condition that did not hold, and a printf format with what is known. */
void check_fail(const char *file, int line, const char *condition, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static inline void check_pass(void)
{
    /* relaxed: only the sum after all threads have ended is read */
    atomic_fetch_add_explicit(&check_passed_count, 1, memory_order_relaxed);
}

/* Failures so far, of all threads. */
uint64_t check_failures(void);

/* Prints `N passed, N failed`. 0 if something passed and nothing failed, else 1: the exit code of the program. */
int check_finish(void);

/* Counts and evaluates to whether the condition held; the rest is a printf format and its arguments. */
#define CHECK(condition, ...)                                                                                          \
    ((condition) ? (check_pass(), true) : (check_fail(__FILE__, __LINE__, #condition, __VA_ARGS__), false))

/* Two integers are equal. Each is evaluated once. */
#define CHECK_EQUAL(actual, expected) check_equal(__FILE__, __LINE__, #actual, (int64_t)(actual), (int64_t)(expected))

bool check_equal(const char *file, int line, const char *text, int64_t actual, int64_t expected);

#endif
