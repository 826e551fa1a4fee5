/*
 * CRC32C: the checksum of everything that Quire stores (Castagnoli's polynomial, as iSCSI and ext4 have it).
 *
 * Layer 0 (base). Pure; any thread, wait-free. By the processor's instruction where there is one (SSE4.2 with
 * PCLMULQDQ), chosen before main; the plain version is the oracle of the tests. NULL with size 0 is fine.
 *
 * A sum continues: qr_crc32c(qr_crc32c(crc, a, an), b, bn) is the sum of a and b together begun with crc. Begun with 0
 * it is the usual CRC32C; begun with a secret of its place (a store's id, a segment's salt) it also tells the bytes of
 * that place from equal ones of another.
 */
#ifndef QR_BASE_CRC32C_H
#define QR_BASE_CRC32C_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum qr_crc32c_way { QR_CRC32C_PLAIN, QR_CRC32C_SSE42 };

extern uint32_t (*qr_crc32c_sum)(uint32_t crc, const void *data, size_t size);

static inline uint32_t qr_crc32c(uint32_t crc, const void *data, size_t size)
{
    return qr_crc32c_sum(crc, data, size);
}

/* For tests and measurements, while nobody else sums: takes one way from now on. False: this machine has it not. */
bool qr_crc32c_select(enum qr_crc32c_way way);

#endif
