/*
 * The key shapes and self-describing values of keys.h.
 *
 * Test library. Pure; any thread.
 */
#include "keys.h"

static size_t make_short(struct random_stream *stream, uint8_t *buffer)
{
    size_t size = (size_t)random_between(stream, 1, 12);
    random_fill(stream, buffer, size);
    return size;
}

static size_t make_prefix(uint64_t index, uint8_t *buffer)
{
    static const size_t prefix_sizes[] = {40, 41, 64, 100};
    size_t prefix_size = prefix_sizes[index % 4];

    memset(buffer, 'p', prefix_size);
    buffer[prefix_size - 1] = (uint8_t)('a' + index % 4);
    uint32_t tail = (uint32_t)random_mix(index);
    memcpy(buffer + prefix_size, &tail, sizeof(tail));
    return prefix_size + sizeof(tail);
}

static size_t make_sequential(uint64_t index, uint8_t *buffer)
{
    for (unsigned i = 0; i < 8; i++)
        buffer[i] = (uint8_t)(index >> (56 - 8 * i));
    return 8;
}

static size_t make_binary(struct random_stream *stream, uint8_t *buffer)
{
    static const uint8_t bytes[] = {0x00, 0x01, 0xfe, 0xff};
    size_t size = (size_t)random_below(stream, 11);
    for (size_t i = 0; i < size; i++)
        buffer[i] = bytes[random_below(stream, 4)];
    return size;
}

static size_t make_lengths(struct random_stream *stream, uint8_t *buffer)
{
    size_t size = (size_t)random_below(stream, 201);
    memset(buffer, 'k', size);
    if (size >= 2)
        buffer[size - 1] = (uint8_t)random_next(stream);
    return size;
}

static size_t make_long(struct random_stream *stream, uint64_t index, uint8_t *buffer)
{
    size_t size = (size_t)random_between(stream, 4000, KEY_MAX_BYTES);
    memset(buffer, (int)('A' + index % 3), size);
    random_fill(stream, buffer + size - 16, 16);
    return size;
}

size_t key_make(enum key_shape shape, uint64_t index, uint8_t *buffer)
{
    struct random_stream stream;
    random_seed(&stream, index * KEY_SHAPE_COUNT + (uint64_t)shape);

    switch (shape) {
    case KEY_SHORT:
        return make_short(&stream, buffer);
    case KEY_PREFIX:
        return make_prefix(index, buffer);
    case KEY_SEQUENTIAL:
        return make_sequential(index, buffer);
    case KEY_ONE_BYTE:
        buffer[0] = (uint8_t)index;
        return 1;
    case KEY_BINARY:
        return make_binary(&stream, buffer);
    case KEY_LENGTHS:
        return make_lengths(&stream, buffer);
    case KEY_LONG:
        return make_long(&stream, index, buffer);
    case KEY_EMPTY:
    case KEY_SHAPE_COUNT:
        break;
    }
    return 0;
}

size_t key_make_mixed(uint64_t index, bool long_keys, uint8_t *buffer)
{
    uint64_t lot = random_mix(index) % 1000;
    if (lot == 0 && long_keys)
        return key_make(KEY_LONG, index, buffer);
    if (lot < 3)
        return key_make(KEY_EMPTY, index, buffer);
    if (lot < 30)
        return key_make(KEY_ONE_BYTE, index, buffer);
    if (lot < 130)
        return key_make(KEY_BINARY, index, buffer);
    if (lot < 250)
        return key_make(KEY_LENGTHS, index, buffer);
    if (lot < 500)
        return key_make(KEY_PREFIX, index, buffer);
    if (lot < 750)
        return key_make(KEY_SEQUENTIAL, index, buffer);
    return key_make(KEY_SHORT, index, buffer);
}

void value_make(uint64_t id, uint8_t *buffer, size_t size)
{
    size_t head = size < sizeof(id) ? size : sizeof(id);
    struct random_stream stream;

    memcpy(buffer, &id, head);
    if (size > head) {
        random_seed(&stream, id);
        random_fill(&stream, buffer + head, size - head);
    }
}

bool value_verify(const void *value, size_t size, uint64_t *ret_id)
{
    const uint8_t *bytes = (const uint8_t *)value;
    uint64_t id = 0;
    size_t head = size < sizeof(id) ? size : sizeof(id);
    struct random_stream stream;

    if (head != 0)
        memcpy(&id, bytes, head);
    random_seed(&stream, id);
    for (size_t at = head; at < size;) {
        uint64_t word = random_next(&stream);
        size_t part = size - at < sizeof(word) ? size - at : sizeof(word);
        if (memcmp(bytes + at, &word, part) != 0)
            return false;
        at += part;
    }
    *ret_id = id;
    return true;
}
