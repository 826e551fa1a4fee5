/*
 * CRC32C, one byte at a time by a table, and eight bytes at a time by the instruction.
 *
 * Layer 0 (base). Pure but for the choice, which is made once before main; until then the plain version answers.
 *
 * A state is a polynomial over GF(2) of degree below 32, modulo P; bit i is the coefficient of x^(31 - i). A sum is its
 * state with all bits inverted, before and after. What both ways rest on: a state after n more bytes is the state times
 * x^(8n) plus what the bytes alone give, so sums of neighbouring pieces can be made apart and put together.
 */
#include "base/crc32c.h"

#include "base/bytes.h"
#include "base/check.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define CRC32C_X86 1
#else
#define CRC32C_X86 0
#endif

/* ---- Plain ------------------------------------------------------------------------------------------------------ */

/* An entry is the state of one byte; that is linear, so the entries of single bits make all. */
#define BIT(byte, bit, state) (((byte) >> (bit)&1) * (state))
#define ENTRY(byte)                                                                                                    \
    (BIT(byte, 0, 0xf26b8303u) ^ BIT(byte, 1, 0xe13b70f7u) ^ BIT(byte, 2, 0xc79a971fu) ^ BIT(byte, 3, 0x8ad958cfu) ^   \
     BIT(byte, 4, 0x105ec76fu) ^ BIT(byte, 5, 0x20bd8edeu) ^ BIT(byte, 6, 0x417b1dbcu) ^ BIT(byte, 7, 0x82f63b78u))
#define ENTRIES_4(byte) ENTRY(byte), ENTRY((byte) + 1), ENTRY((byte) + 2), ENTRY((byte) + 3)
#define ENTRIES_16(byte) ENTRIES_4(byte), ENTRIES_4((byte) + 4), ENTRIES_4((byte) + 8), ENTRIES_4((byte) + 12)
#define ENTRIES_64(byte) ENTRIES_16(byte), ENTRIES_16((byte) + 16), ENTRIES_16((byte) + 32), ENTRIES_16((byte) + 48)

static const uint32_t state_of_byte[256] = {ENTRIES_64(0u), ENTRIES_64(64u), ENTRIES_64(128u), ENTRIES_64(192u)};

static uint32_t sum_plain(uint32_t crc, const void *data, size_t size)
{
    const uint8_t *at = data;
    uint32_t state = ~crc;
    for (size_t i = 0; i < size; i++)
        state = state >> 8 ^ state_of_byte[(state ^ at[i]) & 0xff];
    return ~state;
}

/* ---- SSE4.2 ----------------------------------------------------------------------------------------------------- */

#if CRC32C_X86

#define TARGET_SSE42 __attribute__((target("sse4.2,pclmul")))

/*
 * The instruction takes 3 cycles and can be begun in each: one sum alone uses a third of it. So three pieces of the
 * same number of words are summed side by side, if there are enough words to pay for putting the sums together.
 */
enum {
    PIECE_WORDS_LEAST = 5, /* measured: below it, one sum after the other is as fast */
    PIECE_WORDS_MOST = 128,
};

/* x^(64 n - 33), n = 1 to 256: what a state is multiplied by to go n words on, see `ahead`. Entry 0 is not used. */
static uint32_t ahead_by_words[2 * PIECE_WORDS_MOST + 1];

/*
 * The state, n words of zero bytes later, not yet reduced: to be added to the last of those words. The product of two
 * mirrored numbers comes out divided by x, and a word that is summed is multiplied by x^32: hence 33.
 */
TARGET_SSE42 static QR_ALWAYS_INLINE uint64_t ahead(uint64_t state, size_t words)
{
    __m128i factor = _mm_cvtsi32_si128((int)ahead_by_words[words]);
    __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)state), factor, 0);
    return (uint64_t)_mm_cvtsi128_si64(product);
}

/* Three pieces of `words` each, which follow one another. */
TARGET_SSE42 static QR_ALWAYS_INLINE uint64_t three(uint64_t state, const uint8_t *from, size_t words)
{
    uint64_t first = state, second = 0, third = 0;
    size_t piece = 8 * words, last = piece - 8;

    for (size_t i = 0; i < last; i += 8) {
        first = _mm_crc32_u64(first, qr_load_u64(from + i));
        second = _mm_crc32_u64(second, qr_load_u64(from + piece + i));
        third = _mm_crc32_u64(third, qr_load_u64(from + 2 * piece + i));
    }
    first = _mm_crc32_u64(first, qr_load_u64(from + last));
    second = _mm_crc32_u64(second, qr_load_u64(from + piece + last));
    return _mm_crc32_u64(third, qr_load_u64(from + 2 * piece + last) ^ ahead(first, 2 * words) ^ ahead(second, words));
}

/* Fewer than 8 bytes in all. */
TARGET_SSE42 static QR_ALWAYS_INLINE uint64_t few(uint64_t state, const uint8_t *from, size_t size)
{
    uint32_t narrow = (uint32_t)state;
    if (size & 4) narrow = _mm_crc32_u32(narrow, qr_load_u32(from));
    if (size & 2) narrow = _mm_crc32_u16(narrow, qr_load_u16(from + (size & 4)));
    if (size & 1) narrow = _mm_crc32_u8(narrow, from[size - 1]);
    return narrow;
}

/*
 * The 1 to 7 bytes that end at `end`, after at least 8 others, in one step: the word that ends there, with zeros for
 * what was summed before. Zero bytes leave a state of zero what it is, so the state is added to the bytes themselves;
 * what of it reaches beyond them (fewer than 4 bytes) only moves along.
 */
TARGET_SSE42 static QR_ALWAYS_INLINE uint64_t rest(uint64_t state, const uint8_t *end, size_t size)
{
    unsigned shift = 64 - 8 * (unsigned)size;
    return _mm_crc32_u64(0, (qr_load_u64(end - 8) >> shift ^ state) << shift) ^ state >> (64 - shift);
}

TARGET_SSE42 static uint32_t sum_sse42(uint32_t crc, const void *data, size_t size)
{
    const uint8_t *from = data;
    uint64_t state = (uint32_t)~crc;

    if (QR_UNLIKELY(size < 8)) return (uint32_t)~few(state, from, size);
    while (size >= 3 * 8 * PIECE_WORDS_LEAST) {
        size_t words = size / (3 * 8);
        words = words < PIECE_WORDS_MOST ? words : PIECE_WORDS_MOST;
        state = three(state, from, words);
        from += 3 * 8 * words;
        size -= 3 * 8 * words;
    }
    for (; size >= 8; size -= 8, from += 8) state = _mm_crc32_u64(state, qr_load_u64(from));
    if (size != 0) state = rest(state, from + size, size);
    return (uint32_t)~state;
}

/* One word further is one word of zeros summed; for one word it is x^31, which is bit 0. */
TARGET_SSE42 static void fill_ahead(void)
{
    uint64_t state = 1;
    for (size_t words = 1; words < QR_ARRAY_COUNT(ahead_by_words); words++) {
        ahead_by_words[words] = (uint32_t)state;
        state = _mm_crc32_u64(state, 0);
    }
}

#endif

/* ---- The choice ------------------------------------------------------------------------------------------------- */

uint32_t (*qr_crc32c_sum)(uint32_t crc, const void *data, size_t size) = sum_plain;

bool qr_crc32c_select(enum qr_crc32c_way way)
{
    if (way == QR_CRC32C_PLAIN) {
        qr_crc32c_sum = sum_plain;
        return true;
    }
#if CRC32C_X86
    __builtin_cpu_init();
    if (way == QR_CRC32C_SSE42 && __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul")) {
        fill_ahead();
        qr_crc32c_sum = sum_sse42;
        return true;
    }
#endif
    return false;
}

__attribute__((constructor)) static void select_best(void)
{
    (void)qr_crc32c_select(QR_CRC32C_SSE42);
}
