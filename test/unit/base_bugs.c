/*
 * Goal: planted bugs are off unless asked for, by name, in the program or in the environment.
 * Method: all flags of the list; each test is a process of its own, so first use is really first.
 */
#include "base/bugs.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_OF(name) #name,
static const char *const names[QR_BUG_COUNT] = {QR_BUG_LIST(NAME_OF)};

static void forget_environment(void)
{
    unsetenv("QUIRE_PLANTED_BUG");
}

TestSuite(bugs, .init = forget_environment);

static int count_on(void)
{
    int on = 0;
    for (int bug = 0; bug < QR_BUG_COUNT; bug++)
        on += qr_bug_is_on((enum qr_bug)bug);
    return on;
}

Test(bugs, none_is_on_by_itself)
{
    cr_assert_eq(count_on(), 0);
    cr_assert_not(QR_BUG(unseal));
}

Test(bugs, each_is_set_by_its_name_and_alone)
{
    for (int bug = 0; bug < QR_BUG_COUNT; bug++) {
        cr_assert_eq(qr_bug_set(names[bug], 1), 0);
        cr_assert(qr_bug_is_on((enum qr_bug)bug), "%s", names[bug]);
        cr_assert_eq(count_on(), 1);
        cr_assert_eq(qr_bug_set(names[bug], 0), 0);
        cr_assert_eq(count_on(), 0);
    }
}

Test(bugs, the_macro_and_the_name_mean_the_same_flag)
{
    qr_bug_set("skip_floor", 1);
    cr_assert(QR_BUG(skip_floor));
    cr_assert_not(QR_BUG(skip_growing_lsn));
}

Test(bugs, an_unknown_name_is_refused)
{
    cr_assert_eq(qr_bug_set("no_such_bug", 1), -1);
    cr_assert_eq(qr_bug_set("", 1), -1);
    cr_assert_eq(count_on(), 0);
}

Test(bugs, the_environment_turns_one_on)
{
    setenv("QUIRE_PLANTED_BUG", "forget_high_key", 1);
    cr_assert(QR_BUG(forget_high_key));
    cr_assert_eq(count_on(), 1);
}

Test(bugs, the_environment_is_read_at_first_use_only)
{
    cr_assert_not(QR_BUG(unseal));
    setenv("QUIRE_PLANTED_BUG", "unseal", 1);
    cr_assert_not(QR_BUG(unseal));
}

Test(bugs, a_set_flag_wins_over_the_environment)
{
    setenv("QUIRE_PLANTED_BUG", "unseal", 1);
    qr_bug_set("unseal", 0);
    cr_assert_not(QR_BUG(unseal));
}

Test(bugs, an_unknown_name_in_the_environment_is_not_overlooked, .signal = SIGABRT)
{
    setenv("QUIRE_PLANTED_BUG", "unseel", 1);
    (void)QR_BUG(unseal);
}
