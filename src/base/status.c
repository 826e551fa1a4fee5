/*
 * Results and their detail, and the public functions that need no handle: strerror, error detail, version, free.
 *
 * Layer 0 (base). All state is thread-local: any thread, wait-free. A thread that never failed has no detail.
 */
#include "base/status.h"

#include "base/alloc.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

static _Thread_local struct {
    int result;
    int os_errno;
    char message[QR_STATUS_MESSAGE_BYTES];
} detail;

static QR_PRINTF(3, 0) int fail(int result, int os_errno, const char *format, va_list arguments)
{
    QR_ASSERT(result < 0);
    detail.result = result;
    detail.os_errno = os_errno;
    if (vsnprintf(detail.message, sizeof(detail.message), format, arguments) < 0)
        detail.message[0] = '\0';
    return result;
}

int qr_fail(int result, int os_errno, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    fail(result, os_errno, format, arguments);
    va_end(arguments);
    return result;
}

static int result_of_errno(int os_errno)
{
    switch (os_errno) {
    case ENOMEM:
        return QUIRE_ERR_NO_MEMORY;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return QUIRE_ERR_NO_SPACE;
    default:
        return QUIRE_ERR_IO;
    }
}

int qr_fail_io(int os_errno, const char *format, ...)
{
    va_list arguments;
    int result;

    va_start(arguments, format);
    result = fail(result_of_errno(os_errno), os_errno, format, arguments);
    va_end(arguments);
    return result;
}

void quire_error_detail(struct quire_error_detail *ret_detail)
{
    if (ret_detail == NULL)
        return;
    ret_detail->result = detail.result;
    ret_detail->os_errno = detail.os_errno;
    ret_detail->message = detail.message;
}

const char *quire_strerror(int result)
{
    /* No default: the compiler names a code that is missing here. */
    switch ((enum quire_result)result) {
    case QUIRE_OK:
        return "done";
    case QUIRE_NOT_FOUND:
        return "not found";
    case QUIRE_EXISTS:
        return "exists already";
    case QUIRE_CONFLICT:
        return "the present value differs from the expected one";
    case QUIRE_END:
        return "no further page";
    case QUIRE_MORE:
        return "more to do";
    case QUIRE_INCOMPLETE:
        return "something was lost";
    case QUIRE_ERR_INVALID:
        return "invalid argument or option";
    case QUIRE_ERR_NO_MEMORY:
        return "out of memory";
    case QUIRE_ERR_TOO_LARGE:
        return "key, value or name too large";
    case QUIRE_ERR_BUFFER_TOO_SMALL:
        return "buffer too small";
    case QUIRE_ERR_BUSY:
        return "busy: the store, or a guard, an iterator or a snapshot of it, is in use; or the opening was ended";
    case QUIRE_ERR_FORKED:
        return "the handle belongs to the parent process";
    case QUIRE_ERR_LSN_TOO_OLD:
        return "version too old for the tree's safe version";
    case QUIRE_ERR_STALLED:
        return "stalled: memory held by a guard was not released in time";
    case QUIRE_ERR_OVERFLOW:
        return "sum out of range";
    case QUIRE_ERR_WRONG_TYPE:
        return "the value is not a counter";
    case QUIRE_ERR_UNSUPPORTED:
        return "not supported for this kind of tree or in this version";
    case QUIRE_ERR_WRONG_THREAD:
        return "the guard belongs to another thread";
    case QUIRE_ERR_CORRUPT:
        return "stored bytes failed verification";
    case QUIRE_ERR_IO:
        return "the file system failed";
    case QUIRE_ERR_NO_SPACE:
        return "no space left for files";
    case QUIRE_ERR_FOREIGN:
        return "not files of Quire";
    case QUIRE_ERR_NEWER:
        return "files of a newer version of Quire";
    case QUIRE_ERR_UNKNOWN:
        return "a sync failed: unknown whether the write survives power loss";
    case QUIRE_ERR_READ_ONLY:
        return "the database was opened read-only";
    }
    return "unknown result";
}

#define TEXT_OF(number) TEXT_OF_EXPANDED(number)
#define TEXT_OF_EXPANDED(number) #number

const char *quire_version(void)
{
    return TEXT_OF(QUIRE_VERSION_MAJOR) "." TEXT_OF(QUIRE_VERSION_MINOR) "." TEXT_OF(QUIRE_VERSION_PATCH);
}

void quire_free(void *memory)
{
    qr_free(memory);
}
