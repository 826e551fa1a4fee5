/*
 * search_isa.h: the searches for each instruction set, as inline functions.
 *
 * Layer 2. For files that compile a loop around them: search.c, which makes the calls of search.h of them, and
 * tree/read.c, whose way down is compiled once per instruction set like them. Everybody else calls search.h.
 *
 * The shared text is search_body.h; what differs is here: comparing 8 or 64 bytes with one, and ranking a head among 16
 * or more. Functions of an instruction set end in its name and carry its target; `plain` is the oracle of the tests.
 * Vector loads stay inside the arrays, which are padded to whole vectors.
 */
#ifndef QR_PAGE_SEARCH_ISA_H
#define QR_PAGE_SEARCH_ISA_H

#include "page/inner.h"
#include "page/search.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define QR_SEARCH_X86 1
#else
#define QR_SEARCH_X86 0
#endif

/* Not every file that includes this uses every function. */
#define QR_TARGET_PLAIN __attribute__((unused))
#define QR_TARGET_AVX2 __attribute__((unused, target("avx2,bmi,bmi2,lzcnt,popcnt")))
#define QR_TARGET_AVX512 __attribute__((unused, target("avx512f,avx512bw,avx512vl,bmi,bmi2,lzcnt,popcnt")))

/* ---- Shared by all ---------------------------------------------------------------------------------------------- */

static inline bool record_has_key(const uint8_t *record, const struct qr_key *key, bool caller)
{
    if (qr_record_key_size(record) != key->size) return false;
    const uint8_t *at = qr_record_key(record, caller);
    if (QR_LIKELY(key->size == 16))
        return ((qr_load_u64(at) ^ qr_load_u64(key->data)) | (qr_load_u64(at + 8) ^ qr_load_u64(key->data + 8))) == 0;
    return key->size == 0 || memcmp(at, key->data, key->size) == 0;
}

/*
 * The key's head behind the prefix that all keys of the page share. True if the key begins with a prefix that is decided
 * by its first 8 bytes, and has at least 4 more; otherwise qr_prefix_order knows.
 */
static QR_ALWAYS_INLINE bool head_after_prefix(const struct qr_page *page, const struct qr_key *key, uint32_t *ret_head)
{
    uint32_t size = page->prefix_size;
    if (QR_UNLIKELY(size + 4 > key->reach)) return false;
    if (QR_UNLIKELY(((__builtin_bswap64(qr_load_u64(page->prefix)) ^ key->head) & page->prefix_mask) != 0)) return false;
    *ret_head = __builtin_bswap32(qr_load_u32(key->data + size));
    return true;
}

/* ---- Plain C ---------------------------------------------------------------------------------------------------- */

static inline uint64_t match_bytes_plain(const uint8_t *bytes, uint64_t count, uint8_t wanted)
{
    uint64_t matches = 0;
    for (uint64_t i = 0; i < count; i++) matches |= (uint64_t)(bytes[i] == wanted) << i;
    return matches;
}

static inline uint32_t match_8_plain(const uint8_t *bytes, uint8_t wanted)
{
    return (uint32_t)match_bytes_plain(bytes, 8, wanted);
}

static inline uint32_t count_less_plain(const uint32_t *heads, uint32_t count, uint32_t head)
{
    uint32_t below = 0;
    for (uint32_t i = 0; i < count; i++) below += heads[i] < head;
    return below;
}

static inline uint32_t rank_16_plain(const uint32_t *heads, uint32_t head, uint32_t *tied)
{
    for (uint32_t i = 0; i < 16; i++) *tied |= heads[i] == head;
    return count_less_plain(heads, 16, head);
}

#define SEARCH(name) name##_plain
#define SEARCH_TARGET QR_TARGET_PLAIN
#include "page/search_body.h"
#undef SEARCH
#undef SEARCH_TARGET

#if QR_SEARCH_X86

/* ---- AVX2 ------------------------------------------------------------------------------------------------------- */

QR_TARGET_AVX2 static inline uint64_t match_bytes_avx2(const uint8_t *bytes, uint64_t count, uint8_t wanted)
{
    __m256i all = _mm256_set1_epi8((char)wanted);
    __m256i low = _mm256_loadu_si256((const __m256i *)(const void *)bytes);
    __m256i high = _mm256_loadu_si256((const __m256i *)(const void *)(bytes + 32));
    uint64_t matches = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(low, all));
    matches |= (uint64_t)(uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(high, all)) << 32;
    return matches & (~0ull >> (64 - count));
}

QR_TARGET_AVX2 static inline uint32_t match_8_avx2(const uint8_t *bytes, uint8_t wanted)
{
    __m128i some = _mm_loadl_epi64((const __m128i *)(const void *)bytes);
    return (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(some, _mm_set1_epi8((char)wanted))) & 0xffu;
}

QR_TARGET_AVX2 static inline uint32_t count_less_avx2(const uint32_t *heads, uint32_t count, uint32_t head)
{
    const __m256i sign = _mm256_set1_epi32(INT32_MIN);
    const __m256i wanted = _mm256_set1_epi32((int32_t)(head ^ 0x80000000u));
    uint32_t below = 0;
    uint32_t i = 0;
    for (; i + 8 <= count; i += 8) {
        __m256i some = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(const void *)(heads + i)), sign);
        below += (uint32_t)__builtin_popcount(
            (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(wanted, some))));
    }
    for (; i < count; i++) below += heads[i] < head;
    return below;
}

QR_TARGET_AVX2 static inline uint32_t rank_16_avx2(const uint32_t *heads, uint32_t head, uint32_t *tied)
{
    const __m256i wanted = _mm256_set1_epi32((int32_t)head);
    __m256i low = _mm256_loadu_si256((const __m256i *)(const void *)heads);
    __m256i high = _mm256_loadu_si256((const __m256i *)(const void *)(heads + 8));
    __m256i equal = _mm256_or_si256(_mm256_cmpeq_epi32(low, wanted), _mm256_cmpeq_epi32(high, wanted));
    *tied |= (uint32_t)_mm256_movemask_epi8(equal);
    return count_less_avx2(heads, 16, head);
}

#define SEARCH(name) name##_avx2
#define SEARCH_TARGET QR_TARGET_AVX2
#include "page/search_body.h"
#undef SEARCH
#undef SEARCH_TARGET

/* ---- AVX-512 ---------------------------------------------------------------------------------------------------- */

QR_TARGET_AVX512 static inline uint64_t match_bytes_avx512(const uint8_t *bytes, uint64_t count, uint8_t wanted)
{
    __m512i some = _mm512_loadu_si512((const void *)bytes);
    return _mm512_mask_cmpeq_epi8_mask(~0ull >> (64 - count), some, _mm512_set1_epi8((char)wanted));
}

QR_TARGET_AVX512 static inline uint32_t match_8_avx512(const uint8_t *bytes, uint8_t wanted)
{
    __m128i some = _mm_loadl_epi64((const __m128i *)(const void *)bytes);
    return (uint32_t)_mm_cmpeq_epi8_mask(some, _mm_set1_epi8((char)wanted)) & 0xffu;
}

QR_TARGET_AVX512 static inline uint32_t count_less_avx512(const uint32_t *heads, uint32_t count, uint32_t head)
{
    const __m512i wanted = _mm512_set1_epi32((int32_t)head);
    uint32_t below = 0;
    for (uint32_t i = 0; i < count; i += 16) {
        __mmask16 mask = count - i >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << (count - i)) - 1);
        __m512i some = _mm512_maskz_loadu_epi32(mask, heads + i);
        below += (uint32_t)__builtin_popcount(_mm512_mask_cmplt_epu32_mask(mask, some, wanted));
    }
    return below;
}

QR_TARGET_AVX512 static inline uint32_t rank_16_avx512(const uint32_t *heads, uint32_t head, uint32_t *tied)
{
    __m512i some = _mm512_loadu_si512((const void *)heads);
    __m512i wanted = _mm512_set1_epi32((int32_t)head);
    *tied |= _mm512_cmpeq_epi32_mask(some, wanted);
    return (uint32_t)__builtin_popcount(_mm512_cmplt_epu32_mask(some, wanted));
}

#define SEARCH(name) name##_avx512
#define SEARCH_TARGET QR_TARGET_AVX512
#include "page/search_body.h"
#undef SEARCH
#undef SEARCH_TARGET

#endif

#endif
