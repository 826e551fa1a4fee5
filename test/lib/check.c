/*
 * Counters and reports of the checks in check.h.
 *
 * Test library. Any thread. Reports go to standard error, the final line to standard output.
 */
#include "check.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

_Atomic uint64_t check_passed_count;
_Atomic uint64_t check_failed_count;

void check_fail(const char *file, int line, const char *condition, const char *format, ...)
{
    /* relaxed: a counter; two threads that fail at once only compete for who is reported */
    uint64_t before = atomic_fetch_add_explicit(&check_failed_count, 1, memory_order_relaxed);
    if (before >= CHECK_REPORTED_MAX)
        return;

    char message[2048];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    fprintf(stderr, "%s:%d: FAILED %s: %s\n", file, line, condition, message);
}

bool check_equal(const char *file, int line, const char *text, int64_t actual, int64_t expected)
{
    if (actual == expected) {
        check_pass();
        return true;
    }
    check_fail(file, line, text, "is %" PRId64 ", not %" PRId64, actual, expected);
    return false;
}

uint64_t check_failures(void)
{
    /* relaxed: exact once the failing threads have been joined, a hint before */
    return atomic_load_explicit(&check_failed_count, memory_order_relaxed);
}

int check_finish(void)
{
    /* relaxed: called when all threads of the test have been joined */
    uint64_t passed = atomic_load_explicit(&check_passed_count, memory_order_relaxed);
    uint64_t failed = check_failures();

    printf("%" PRIu64 " passed, %" PRIu64 " failed\n", passed, failed);
    fflush(stdout);
    return passed != 0 && failed == 0 ? 0 : 1;
}
