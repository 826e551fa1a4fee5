/*
 * Keys, values and numbers as text: escapes, hexadecimal, base64, JSON.
 *
 * Layer: tools.
 */
#include "tool.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char hex_digits[] = "0123456789abcdef";
static const char base64_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* ---- Bytes that grow -------------------------------------------------------------------------------------------- */

bool bytes_add(struct bytes *to, const void *data, size_t size)
{
    if (to->size + size + 1 > to->capacity) {
        size_t capacity = (to->size + size + 1) * 2;
        char *grown = realloc(to->data, capacity);
        if (grown == NULL)
            return false;
        to->data = grown;
        to->capacity = capacity;
    }
    if (size != 0)
        memcpy(to->data + to->size, data, size);
    to->size += size;
    to->data[to->size] = '\0';
    return true;
}

void bytes_free(struct bytes *bytes)
{
    free(bytes->data);
    *bytes = (struct bytes){0};
}

/* ---- Reading ---------------------------------------------------------------------------------------------------- */

static int hex_value(char digit)
{
    const char *found = digit == '\0' ? NULL : strchr(hex_digits, digit >= 'A' && digit <= 'F' ? digit + 32 : digit);
    return found == NULL ? -1 : (int)(found - hex_digits);
}

/* The byte of an escape whose backslash stands before *at; *at moves beyond it. -1: there is no such escape. */
static int escaped_byte(const char **at, const char *end)
{
    if (*at == end)
        return -1;
    char kind = *(*at)++;
    switch (kind) {
    case '\\':
        return '\\';
    case 't':
        return '\t';
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 'x':
        break;
    default:
        (*at)--; /* \HH, as in dumps of the format print */
    }
    if (end - *at < 2 || hex_value((*at)[0]) < 0 || hex_value((*at)[1]) < 0)
        return -1;
    int byte = hex_value((*at)[0]) * 16 + hex_value((*at)[1]);
    *at += 2;
    return byte;
}

int bytes_parse(struct bytes *to, const char *text, size_t size, bool hex, const char **ret_why)
{
    const char *end = text + size;
    to->size = 0;
    *ret_why = "no memory";
    if (!bytes_add(to, "", 0))
        return -1;
    while (text < end) {
        int byte = (unsigned char)*text++;
        if (hex) {
            int high = hex_value((char)byte), low = text < end ? hex_value(*text++) : -1;
            *ret_why = "it is not hexadecimal";
            byte = high < 0 || low < 0 ? -1 : high * 16 + low;
        } else if (byte == '\\') {
            *ret_why = "a backslash that begins no escape";
            byte = escaped_byte(&text, end);
        }
        if (byte < 0)
            return -1;
        char one = (char)byte;
        *ret_why = "no memory";
        if (!bytes_add(to, &one, 1))
            return -1;
    }
    return 0;
}

int bytes_argument(struct bytes *to, const char *argument)
{
    const char *why;
    if (bytes_parse(to, argument, strlen(argument), settings.hex, &why) == 0)
        return EXIT_DONE;
    return tool_fail(EXIT_WRONG, "\"%s\": %s", argument, why);
}

int bytes_from_base64(struct bytes *to, const char *text)
{
    size_t size = strlen(text);
    to->size = 0;
    if (size % 4 != 0 || !bytes_add(to, "", 0))
        return -1;
    for (size_t i = 0; i < size; i += 4) {
        unsigned bits = 0, padding = 0;
        for (size_t k = 0; k < 4; k++) {
            const char *found = strchr(base64_digits, text[i + k]);
            bool is_padding = text[i + k] == '=' && i + 4 == size && k >= 2;
            if (!is_padding && (found == NULL || padding != 0))
                return -1;
            padding += is_padding;
            bits = bits << 6 | (is_padding ? 0 : (unsigned)(found - base64_digits));
        }
        char three[3] = {(char)(bits >> 16), (char)(bits >> 8), (char)bits};
        if (!bytes_add(to, three, 3 - padding))
            return -1;
    }
    return 0;
}

/* ---- Writing ---------------------------------------------------------------------------------------------------- */

void put_hex(const void *data, size_t size)
{
    const unsigned char *bytes = data;
    for (size_t i = 0; i < size; i++) {
        putchar(hex_digits[bytes[i] >> 4]);
        putchar(hex_digits[bytes[i] & 15]);
    }
}

/* The size of the character of UTF-8 at the beginning; 0: there is none. */
static size_t utf8_size(const unsigned char *bytes, size_t size)
{
    size_t count = bytes[0] < 0x80 ? 1 : bytes[0] < 0xc2 ? 0 : bytes[0] < 0xe0 ? 2 : bytes[0] < 0xf0 ? 3 : bytes[0] < 0xf5 ? 4 : 0;
    if (count > size)
        return 0;
    for (size_t i = 1; i < count; i++) {
        if ((bytes[i] & 0xc0) != 0x80)
            return 0;
    }
    bool wrong = (bytes[0] == 0xe0 && bytes[1] < 0xa0) || (bytes[0] == 0xed && bytes[1] > 0x9f) ||
                 (bytes[0] == 0xf0 && bytes[1] < 0x90) || (bytes[0] == 0xf4 && bytes[1] > 0x8f);
    return wrong ? 0 : count;
}

void put_escaped(const void *data, size_t size)
{
    const unsigned char *bytes = data;
    if (settings.hex) {
        put_hex(data, size);
        return;
    }
    for (size_t i = 0; i < size;) {
        size_t count = utf8_size(bytes + i, size - i);
        if (bytes[i] == '\\')
            fputs("\\\\", stdout);
        else if (bytes[i] == '\t')
            fputs("\\t", stdout);
        else if (bytes[i] == '\n')
            fputs("\\n", stdout);
        else if (count == 0 || bytes[i] < 0x20 || bytes[i] == 0x7f)
            printf("\\x%02x", bytes[i]);
        else
            fwrite(bytes + i, 1, count, stdout);
        i += count == 0 ? 1 : count;
    }
}

static void put_json_string(const unsigned char *bytes, size_t size)
{
    putchar('"');
    for (size_t i = 0; i < size;) {
        size_t count = utf8_size(bytes + i, size - i);
        if (bytes[i] == '"' || bytes[i] == '\\')
            printf("\\%c", bytes[i]);
        else if (bytes[i] < 0x20 || bytes[i] == 0x7f)
            printf("\\u%04x", bytes[i]);
        else if (count == 0)
            fputs("\\ufffd", stdout);
        else
            fwrite(bytes + i, 1, count, stdout);
        i += count == 0 ? 1 : count;
    }
    putchar('"');
}

void put_json_text(const char *text)
{
    put_json_string((const unsigned char *)text, strlen(text));
}

static void put_base64(const unsigned char *bytes, size_t size)
{
    for (size_t i = 0; i < size; i += 3) {
        size_t left = size - i;
        unsigned bits = (unsigned)bytes[i] << 16 | (left > 1 ? (unsigned)bytes[i + 1] << 8 : 0) | (left > 2 ? bytes[i + 2] : 0);
        putchar(base64_digits[bits >> 18]);
        putchar(base64_digits[bits >> 12 & 63]);
        putchar(left > 1 ? base64_digits[bits >> 6 & 63] : '=');
        putchar(left > 2 ? base64_digits[bits & 63] : '=');
    }
}

void put_json_bytes(const char *name, const void *data, size_t size)
{
    const unsigned char *bytes = data;
    bool is_text = true;
    for (size_t i = 0, count; i < size && is_text; i += count) {
        count = utf8_size(bytes + i, size - i);
        is_text = count != 0 && bytes[i] != 0;
    }
    printf("\"%s%s\":", name, is_text ? "" : "_base64");
    if (is_text) {
        put_json_string(bytes, size);
        return;
    }
    putchar('"');
    put_base64(bytes, size);
    putchar('"');
}

void put_json_version(uint64_t version)
{
    const char *quote = version > VERSION_EXACT ? "\"" : "";
    printf(",\"version\":%s%" PRIu64 "%s", quote, version, quote);
}

bool parse_number(const char *text, uint64_t *ret_number)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || *end != '\0' || text[0] < '0' || text[0] > '9')
        return false;
    *ret_number = value;
    return true;
}
