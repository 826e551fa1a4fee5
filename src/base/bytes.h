/*
 * Byte strings: unaligned loads and stores, the order of keys, big-endian heads, small arithmetic on sizes.
 *
 * Layer 0 (base). Pure functions without state; any thread, wait-free.
 *
 * BYTES-1  Keys are ordered by unsigned bytes, a prefix before its extensions (qr_compare).
 * BYTES-2  For keys a <= b and one skip within their common prefix, head(a) <= head(b). Equal heads decide nothing: a
 *          head pads with zero bytes, so "k" and "k\0" share one.
 * BYTES-3  A NULL pointer is accepted wherever the size is 0; nothing is read from it.
 */
#ifndef QR_BASE_BYTES_H
#define QR_BASE_BYTES_H

#include "base/check.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

QR_STATIC_ASSERT(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "page and frame layouts are little endian");

/* ---- Unaligned little-endian loads and stores ------------------------------------------------------------------- */

static inline uint16_t qr_load_u16(const void *from)
{
    uint16_t value;
    memcpy(&value, from, sizeof(value));
    return value;
}

static inline uint32_t qr_load_u32(const void *from)
{
    uint32_t value;
    memcpy(&value, from, sizeof(value));
    return value;
}

static inline uint64_t qr_load_u64(const void *from)
{
    uint64_t value;
    memcpy(&value, from, sizeof(value));
    return value;
}

static inline void qr_store_u16(void *to, uint16_t value)
{
    memcpy(to, &value, sizeof(value));
}

static inline void qr_store_u32(void *to, uint32_t value)
{
    memcpy(to, &value, sizeof(value));
}

static inline void qr_store_u64(void *to, uint64_t value)
{
    memcpy(to, &value, sizeof(value));
}

/* Copies size bytes; unlike memcpy it takes NULL with size 0. */
static inline void qr_copy(void *to, const void *from, size_t size)
{
    if (size != 0)
        memcpy(to, from, size);
}

/* ---- Arithmetic ------------------------------------------------------------------------------------------------- */

static inline uint64_t qr_min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t qr_max(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* value must leave room: value + power_of_two - 1 may not overflow. */
static inline size_t qr_round_up(size_t value, size_t power_of_two)
{
    QR_ASSERT(power_of_two != 0 && (power_of_two & (power_of_two - 1)) == 0);
    return (value + power_of_two - 1) & ~(power_of_two - 1);
}

/* ---- Heads ------------------------------------------------------------------------------------------------------ */

/* The last bytes of a key of fewer than `width` bytes after skip: slow side of the two heads below. */
static inline uint64_t qr_head_short(const uint8_t *key, size_t size, size_t skip, unsigned width)
{
    uint64_t head = 0;
    for (unsigned i = 0; i < width; i++) {
        head <<= 8;
        if (skip < size && i < size - skip)
            head |= key[skip + i];
    }
    return head;
}

/* The 4 bytes after skip as a big-endian number, zero bytes where the key has ended. */
static inline uint32_t qr_head32(const uint8_t *key, size_t size, size_t skip)
{
    if (QR_LIKELY(size >= 4 && skip <= size - 4))
        return __builtin_bswap32(qr_load_u32(key + skip));
    return (uint32_t)qr_head_short(key, size, skip, 4);
}

/* The 8 bytes after skip, likewise. */
static inline uint64_t qr_head64(const uint8_t *key, size_t size, size_t skip)
{
    if (QR_LIKELY(size >= 8 && skip <= size - 8))
        return __builtin_bswap64(qr_load_u64(key + skip));
    return qr_head_short(key, size, skip, 8);
}

/* The bits of a qr_head64 that its first `size` bytes decide. */
static inline uint64_t qr_head_mask(size_t size)
{
    return size >= 8 ? UINT64_MAX : ~(UINT64_MAX >> (8 * size));
}

/* ---- Order ------------------------------------------------------------------------------------------------------ */

/*
 * Negative, 0, positive as a sorts before, equals, sorts after b (BYTES-1). The first 16 bytes are compared as two
 * numbers: most comparisons end there, without a call.
 */
static inline int qr_compare(const void *a, size_t an, const void *b, size_t bn)
{
    const uint8_t *x = (const uint8_t *)a;
    const uint8_t *y = (const uint8_t *)b;
    size_t common = an < bn ? an : bn;

    for (int words = 0; words < 2 && common >= 8; words++) {
        uint64_t x_head = __builtin_bswap64(qr_load_u64(x));
        uint64_t y_head = __builtin_bswap64(qr_load_u64(y));
        if (x_head != y_head)
            return x_head < y_head ? -1 : 1;
        x += 8;
        y += 8;
        common -= 8;
    }
    if (common != 0) {
        int order = memcmp(x, y, common);
        if (order != 0)
            return order;
    }
    return (an > bn) - (an < bn);
}

static inline bool qr_equal(const void *a, size_t an, const void *b, size_t bn)
{
    return an == bn && (an == 0 || memcmp(a, b, an) == 0);
}

/* How many leading bytes a and b share. */
static inline size_t qr_common_prefix(const void *a, size_t an, const void *b, size_t bn)
{
    const uint8_t *x = (const uint8_t *)a;
    const uint8_t *y = (const uint8_t *)b;
    size_t common = an < bn ? an : bn;
    size_t i = 0;

    for (; common - i >= 8; i += 8) {
        uint64_t difference = qr_load_u64(x + i) ^ qr_load_u64(y + i);
        if (difference != 0)
            return i + (size_t)(__builtin_ctzll(difference) / 8);
    }
    while (i < common && x[i] == y[i])
        i++;
    return i;
}

#endif
