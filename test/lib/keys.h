/*
 * Keys and values for tests: many shapes of keys, each a pure function of (shape, index), and values that prove whose
 * they are.
 *
 * Test library. Pure; any thread. The same (shape, index) always gives the same key, so a test hits a key again by
 * drawing its index again. Two indices of one shape may give one key (the shapes ONE_BYTE and EMPTY are small).
 */
#ifndef TEST_LIB_KEYS_H
#define TEST_LIB_KEYS_H

#include "random.h"

enum key_shape {
    KEY_SHORT,      /* 1 to 12 random bytes */
    KEY_PREFIX,     /* one of four prefixes of 40 to 100 bytes, then 4 bytes: heads after the prefix decide */
    KEY_SEQUENTIAL, /* 8-byte big-endian index */
    KEY_ONE_BYTE,   /* each of the 256 one-byte keys */
    KEY_EMPTY,      /* the empty key */
    KEY_BINARY,     /* 0 to 10 bytes, each 0x00, 0x01, 0xfe or 0xff: prefixes of each other, ties of heads */
    KEY_LENGTHS,    /* 0 to 200 bytes of one letter and a tail: order decided by length */
    KEY_LONG,       /* 4,000 to 70,000 bytes */
    KEY_SHAPE_COUNT
};

#define KEY_MAX_BYTES 70000

/* Writes the key to buffer (KEY_MAX_BYTES long) and returns its size. */
size_t key_make(enum key_shape shape, uint64_t index, uint8_t *buffer);

/*
 * A key of the usual mixture: index in [0, space). One index in 1,000 is a LONG key if long_keys, a few are EMPTY and
 * ONE_BYTE, the rest spread over the other shapes.
 */
size_t key_make_mixed(uint64_t index, bool long_keys, uint8_t *buffer);

/*
 * Fills a value of `size` bytes from `id`: the first 8 bytes are the id, the rest follows from it, so that a torn or
 * foreign value does not verify. Values below 8 bytes hold the id's low bytes.
 */
void value_make(uint64_t id, uint8_t *buffer, size_t size);

/* True if these bytes are what value_make wrote for some id, which goes to *ret_id (sizes below 8: its low bytes). */
bool value_verify(const void *value, size_t size, uint64_t *ret_id);

#endif
