/*
 * Results and their detail: what the calling thread's last failure was about.
 *
 * Layer 0 (base). Thread-local, so any thread, wait-free. The detail is written only where a failure is returned;
 * expected outcomes (positive results) leave it alone.
 */
#ifndef QR_BASE_STATUS_H
#define QR_BASE_STATUS_H

#include "base/check.h"

#include <quire/quire.h>

/* Room for the message of a detail, NUL included; a longer one is cut. */
#define QR_STATUS_MESSAGE_BYTES 256

/*
 * Records result (negative), os_errno (0 = no system call was at fault) and the formatted message as the calling
 * thread's detail, and returns result: `return qr_fail(QUIRE_ERR_INVALID, 0, "key_size is %zu", key_size);`
 */
QR_COLD QR_PRINTF(3, 4) int qr_fail(int result, int os_errno, const char *format, ...);

/* The same for what the file system answered, an errno above 0: NO_SPACE, NO_MEMORY, or else IO. */
QR_COLD QR_PRINTF(2, 3) int qr_fail_io(int os_errno, const char *format, ...);

#endif
