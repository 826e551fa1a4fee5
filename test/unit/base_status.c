/*
 * Goal: every result has a text; the detail belongs to the thread that failed.
 * Method: all codes by value; two threads that fail differently; messages of every length around the limit.
 */
#include "base/status.h"

#include "base/alloc.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

Test(status, every_result_has_a_text_of_its_own)
{
    for (int result = QUIRE_ERR_NEWER; result <= QUIRE_INCOMPLETE; result++) {
        cr_assert_str_neq(quire_strerror(result), "unknown result", "result %d", result);
        for (int other = QUIRE_ERR_NEWER; other < result; other++)
            cr_assert_str_neq(quire_strerror(result), quire_strerror(other), "results %d and %d", result, other);
    }
}

Test(status, unknown_results_have_a_text_too)
{
    static const int unknown[] = {QUIRE_INCOMPLETE + 1, QUIRE_ERR_READ_ONLY - 1, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < QR_ARRAY_COUNT(unknown); i++)
        cr_assert_str_eq(quire_strerror(unknown[i]), "unknown result");
}

Test(status, a_thread_that_never_failed_has_an_empty_detail)
{
    struct quire_error_detail detail = {7, 7, NULL};
    quire_error_detail(&detail);
    cr_assert_eq(detail.result, 0);
    cr_assert_eq(detail.os_errno, 0);
    cr_assert_str_eq(detail.message, "");
}

Test(status, fail_returns_its_result_and_keeps_the_newest_detail)
{
    struct quire_error_detail detail;
    cr_assert_eq(qr_fail(QUIRE_ERR_INVALID, 0, "key_size is %d", 12), QUIRE_ERR_INVALID);
    cr_assert_eq(qr_fail(QUIRE_ERR_NO_MEMORY, ENOMEM, "no room for %s", "a page"), QUIRE_ERR_NO_MEMORY);
    quire_error_detail(&detail);
    cr_assert_eq(detail.result, QUIRE_ERR_NO_MEMORY);
    cr_assert_eq(detail.os_errno, ENOMEM);
    cr_assert_str_eq(detail.message, "no room for a page");
}

Test(status, what_the_file_system_answers_has_results_of_its_own)
{
    struct quire_error_detail detail;
    cr_assert_eq(qr_fail_io(ENOSPC, "manifest: write"), QUIRE_ERR_NO_SPACE);
    cr_assert_eq(qr_fail_io(EDQUOT, "manifest: write"), QUIRE_ERR_NO_SPACE);
    cr_assert_eq(qr_fail_io(ENOMEM, "manifest: write"), QUIRE_ERR_NO_MEMORY);
    cr_assert_eq(qr_fail_io(EROFS, "%s: %s", "manifest", "write"), QUIRE_ERR_IO);
    quire_error_detail(&detail);
    cr_assert_eq(detail.result, QUIRE_ERR_IO);
    cr_assert_eq(detail.os_errno, EROFS);
    cr_assert_str_eq(detail.message, "manifest: write");
}

Test(status, asking_for_a_detail_into_nothing_is_harmless)
{
    quire_error_detail(NULL);
}

static void *fail_elsewhere(void *arg)
{
    struct quire_error_detail *seen = arg;
    quire_error_detail(&seen[0]);
    cr_assert_eq(seen[0].result, 0);
    qr_fail(QUIRE_ERR_BUSY, EBUSY, "other thread");
    quire_error_detail(&seen[1]);
    cr_assert_str_eq(seen[1].message, "other thread");
    return NULL;
}

Test(status, a_detail_belongs_to_its_thread)
{
    struct quire_error_detail mine, theirs[2];
    pthread_t thread;

    qr_fail(QUIRE_ERR_INVALID, EINVAL, "this thread");
    cr_assert_eq(pthread_create(&thread, NULL, fail_elsewhere, theirs), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_assert_eq(theirs[0].result, 0);
    cr_assert_eq(theirs[1].result, QUIRE_ERR_BUSY);
    cr_assert_eq(theirs[1].os_errno, EBUSY);

    quire_error_detail(&mine);
    cr_assert_eq(mine.result, QUIRE_ERR_INVALID);
    cr_assert_eq(mine.os_errno, EINVAL);
    cr_assert_str_eq(mine.message, "this thread");
}

Test(status, a_long_message_is_cut_and_ended)
{
    char text[2 * QR_STATUS_MESSAGE_BYTES];
    struct quire_error_detail detail;

    for (size_t size = 0; size < sizeof(text); size++) {
        memset(text, 'x', size);
        text[size] = '\0';
        qr_fail(QUIRE_ERR_INVALID, 0, "%s", text);
        quire_error_detail(&detail);
        size_t expected = size < QR_STATUS_MESSAGE_BYTES ? size : QR_STATUS_MESSAGE_BYTES - 1;
        cr_assert_eq(strlen(detail.message), expected, "size %zu", size);
        cr_assert_eq(strncmp(detail.message, text, expected), 0);
    }
}

Test(status, the_version_is_that_of_the_header)
{
    char expected[32];
    snprintf(expected, sizeof(expected), "%d.%d.%d", QUIRE_VERSION_MAJOR, QUIRE_VERSION_MINOR, QUIRE_VERSION_PATCH);
    cr_assert_str_eq(quire_version(), expected);
}

Test(status, the_public_free_takes_blocks_of_the_library_and_null)
{
    void *block = qr_malloc(100);
    cr_assert_not_null(block);
    memset(block, 1, 100);
    quire_free(block);
    quire_free(NULL);
}
