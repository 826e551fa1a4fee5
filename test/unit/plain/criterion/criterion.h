/*
 * The part of Criterion that the unit tests use, as a plain program: each test in a forked process of its own.
 *
 * Sanitizer builds take this header instead of Criterion's. Criterion cannot start under ThreadSanitizer (its shared
 * arena collides with the shadow memory), and its children end without the leak check. One test file a program.
 *
 * A test passes if its process ends as announced: exit code 0, or the .signal or .exit_code of its options; after
 * .timeout seconds it is killed. The program ends with the line `N passed, N failed`; `--filter suite/name` selects.
 */
#ifndef PLAIN_CRITERION_H
#define PLAIN_CRITERION_H

#pragma GCC system_header

#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- Declaring tests ----------------------------------------------------------------------------------------------
 */

struct plain_options {
    int unset; /* keeps the initializer from being empty */
    void (*init)(void);
    void (*fini)(void);
    int signal;
    int exit_code;
    double timeout;
    bool disabled;
    const char *description;
};

struct plain_entry {
    const char *suite;
    const char *name; /* NULL: the options of a suite */
    void (*run)(void);
    struct plain_options options;
    struct plain_entry *next;
};

static struct plain_entry *plain_entries;
static bool plain_failed;

static inline void plain_register(struct plain_entry *entry)
{
    struct plain_entry **end = &plain_entries;
    while (*end != NULL)
        end = &(*end)->next;
    *end = entry;
}

/*
 * The macros hand their arguments on with one more behind them, so that a list that may be empty never is: C11 wants
 * that, and clang says so.
 */
#define PLAIN_REGISTER(symbol, suite_text, name_text, function, ...)                                                   \
    static struct plain_entry symbol = {suite_text, name_text, function, {__VA_ARGS__}, NULL};                         \
    __attribute__((constructor)) static void symbol##_register(void)                                                   \
    {                                                                                                                  \
        plain_register(&symbol);                                                                                       \
    }

#define PLAIN_TEST(suite, name, ...)                                                                                   \
    static void suite##_##name##_impl(void);                                                                           \
    PLAIN_REGISTER(suite##_##name##_entry, #suite, #name, suite##_##name##_impl, __VA_ARGS__)                          \
    static void suite##_##name##_impl(void)

#define PLAIN_SUITE(suite, ...)                                                                                        \
    PLAIN_REGISTER(suite##_suite_entry, #suite, NULL, NULL, __VA_ARGS__)                                               \
    struct plain_entry

#define Test(...) PLAIN_TEST(__VA_ARGS__, .unset = 0)
#define TestSuite(...) PLAIN_SUITE(__VA_ARGS__, .unset = 0)

/* ---- Checks -------------------------------------------------------------------------------------------------------
 */

/* format is a printf format; the compiler checks it in builds with Criterion (the last argument is a surplus one). */
static inline void plain_check(bool fatal, const char *file, int line, const char *condition, const char *format, ...)
{
    va_list arguments;

    fprintf(stderr, "%s:%d: not true: %s: ", file, line, condition);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    plain_failed = true;
    if (fatal) {
        fflush(NULL);
        _exit(99);
    }
}

#define PLAIN_CHECK(fatal, condition, ...)                                                                             \
    ((condition) ? (void)0 : plain_check(fatal, __FILE__, __LINE__, #condition, __VA_ARGS__))
#define PLAIN_CHECK_NOT(fatal, condition, ...) PLAIN_CHECK(fatal, !(condition), __VA_ARGS__)
#define PLAIN_COMPARE(fatal, operator, a, b, ...) PLAIN_CHECK(fatal, (a) operator(b), __VA_ARGS__)
#define PLAIN_STRINGS(fatal, operator, a, b, ...) PLAIN_CHECK(fatal, strcmp(a, b) operator 0, __VA_ARGS__)
#define PLAIN_ARRAYS(fatal, operator, a, b, size, ...) PLAIN_CHECK(fatal, memcmp(a, b, size) operator 0, __VA_ARGS__)
#define PLAIN_POINTER(fatal, operator, a, ...) PLAIN_CHECK(fatal, (a) operator NULL, __VA_ARGS__)

#define cr_assert(...) PLAIN_CHECK(true, __VA_ARGS__, "")
#define cr_assert_not(...) PLAIN_CHECK_NOT(true, __VA_ARGS__, "")
#define cr_assert_eq(...) PLAIN_COMPARE(true, ==, __VA_ARGS__, "")
#define cr_assert_neq(...) PLAIN_COMPARE(true, !=, __VA_ARGS__, "")
#define cr_assert_lt(...) PLAIN_COMPARE(true, <, __VA_ARGS__, "")
#define cr_assert_leq(...) PLAIN_COMPARE(true, <=, __VA_ARGS__, "")
#define cr_assert_gt(...) PLAIN_COMPARE(true, >, __VA_ARGS__, "")
#define cr_assert_geq(...) PLAIN_COMPARE(true, >=, __VA_ARGS__, "")
#define cr_assert_null(...) PLAIN_POINTER(true, ==, __VA_ARGS__, "")
#define cr_assert_not_null(...) PLAIN_POINTER(true, !=, __VA_ARGS__, "")
#define cr_assert_str_eq(...) PLAIN_STRINGS(true, ==, __VA_ARGS__, "")
#define cr_assert_str_neq(...) PLAIN_STRINGS(true, !=, __VA_ARGS__, "")
#define cr_assert_arr_eq(...) PLAIN_ARRAYS(true, ==, __VA_ARGS__, "")
#define cr_assert_arr_neq(...) PLAIN_ARRAYS(true, !=, __VA_ARGS__, "")
#define cr_assert_fail(...) PLAIN_CHECK(true, false, "" __VA_ARGS__)
#define cr_expect(...) PLAIN_CHECK(false, __VA_ARGS__, "")
#define cr_expect_not(...) PLAIN_CHECK_NOT(false, __VA_ARGS__, "")
#define cr_expect_eq(...) PLAIN_COMPARE(false, ==, __VA_ARGS__, "")
#define cr_expect_neq(...) PLAIN_COMPARE(false, !=, __VA_ARGS__, "")
#define cr_expect_lt(...) PLAIN_COMPARE(false, <, __VA_ARGS__, "")
#define cr_expect_leq(...) PLAIN_COMPARE(false, <=, __VA_ARGS__, "")
#define cr_expect_gt(...) PLAIN_COMPARE(false, >, __VA_ARGS__, "")
#define cr_expect_geq(...) PLAIN_COMPARE(false, >=, __VA_ARGS__, "")
#define cr_expect_null(...) PLAIN_POINTER(false, ==, __VA_ARGS__, "")
#define cr_expect_not_null(...) PLAIN_POINTER(false, !=, __VA_ARGS__, "")
#define cr_expect_str_eq(...) PLAIN_STRINGS(false, ==, __VA_ARGS__, "")
#define cr_expect_str_neq(...) PLAIN_STRINGS(false, !=, __VA_ARGS__, "")
#define cr_expect_arr_eq(...) PLAIN_ARRAYS(false, ==, __VA_ARGS__, "")
#define cr_expect_arr_neq(...) PLAIN_ARRAYS(false, !=, __VA_ARGS__, "")
#define cr_fail(...) PLAIN_CHECK(false, false, "" __VA_ARGS__)
#define cr_log_info(...) ((void)fprintf(stderr, __VA_ARGS__), (void)fputc('\n', stderr))
#define cr_log_warn cr_log_info
#define cr_log_error cr_log_info

/* ---- Running ------------------------------------------------------------------------------------------------------
 */

static inline const struct plain_options *plain_suite_options(const char *suite)
{
    static const struct plain_options none;
    for (const struct plain_entry *entry = plain_entries; entry != NULL; entry = entry->next) {
        if (entry->name == NULL && strcmp(entry->suite, suite) == 0)
            return &entry->options;
    }
    return &none;
}

/* In the child: the suite's init around the test's own. Ends by exit, so that the leak check runs. */
static inline void plain_run_child(const struct plain_entry *test)
{
    const struct plain_options *suite = plain_suite_options(test->suite);
    double timeout = test->options.timeout > 0 ? test->options.timeout : suite->timeout;

    if (timeout > 0)
        alarm((unsigned)(timeout + 0.999));
    if (suite->init != NULL)
        suite->init();
    if (test->options.init != NULL)
        test->options.init();
    test->run();
    if (test->options.fini != NULL)
        test->options.fini();
    if (suite->fini != NULL)
        suite->fini();
    exit(plain_failed ? 99 : 0);
}

static inline bool plain_run(const struct plain_entry *test)
{
    int status = 0;

    fflush(NULL);
    pid_t child = fork();
    if (child == 0)
        plain_run_child(test);
    if (child < 0 || waitpid(child, &status, 0) != child) {
        perror("fork");
        return false;
    }
    if (WIFSIGNALED(status) ? WTERMSIG(status) == test->options.signal
                            : test->options.signal == 0 && WEXITSTATUS(status) == test->options.exit_code)
        return true;
    fprintf(stderr, "[FAIL] %s/%s: %s %d\n", test->suite, test->name, WIFSIGNALED(status) ? "signal" : "exit code",
            WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    return false;
}

static inline bool plain_is_selected(const struct plain_entry *test, int argc, char **argv)
{
    char full_name[512];

    if (test->name == NULL || test->options.disabled || plain_suite_options(test->suite)->disabled)
        return false;
    snprintf(full_name, sizeof(full_name), "%s/%s", test->suite, test->name);
    for (int i = 1; i + 1 < argc; i++) {
        if (strcmp(argv[i], "--filter") == 0 && strcmp(argv[i + 1], full_name) != 0)
            return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    int passed = 0, failed = 0;

    for (const struct plain_entry *entry = plain_entries; entry != NULL; entry = entry->next) {
        if (!plain_is_selected(entry, argc, argv))
            continue;
        if (plain_run(entry))
            passed++;
        else
            failed++;
    }
    printf("%d passed, %d failed\n", passed, failed);
    return failed == 0 && passed > 0 ? 0 : 1;
}

#endif
