/*
 * The hash of a key: one 64-bit number per byte string, from which fingerprints and bucket indexes are taken.
 *
 * Layer 0 (base). Pure, wait-free. Fingerprints are stored in pages, so the function is part of the page format:
 * XXH3 (64 bits, no seed), whose values are fixed since xxHash 0.8. A unit test holds known answers.
 */
#ifndef QR_BASE_HASH_H
#define QR_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

/* NULL with size 0 is the empty string. */
static inline uint64_t qr_hash(const void *data, size_t size)
{
    return XXH3_64bits(size != 0 ? data : "", size);
}

/* The byte kept per record; from the top, while bucket indexes take low bits. */
static inline uint8_t qr_fingerprint(uint64_t hash)
{
    return (uint8_t)(hash >> 56);
}

#endif
