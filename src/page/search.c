/*
 * search.c: the searches of search.h for each instruction set, and the choice among them.
 *
 * Layer 2. The shared text is search_body.h; what differs is here: comparing up to 64 bytes with one, and counting the
 * heads below one. The choice is made once, before main, by what the processor can do.
 */
#include "page/search.h"

#include "page/inner.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define QR_SEARCH_X86 1
#else
#define QR_SEARCH_X86 0
#endif

/* Sanitizers check loads; the vector loads below stay inside the arrays, which are padded to whole vectors. */

static inline bool record_has_key(const uint8_t *record, const struct qr_key *key, bool caller)
{
    if (qr_record_key_size(record) != key->size) return false;
    const uint8_t *at = qr_record_key(record, caller);
    if (QR_LIKELY(key->size == 16))
        return ((qr_load_u64(at) ^ qr_load_u64(key->data)) | (qr_load_u64(at + 8) ^ qr_load_u64(key->data + 8))) == 0;
    return key->size == 0 || memcmp(at, key->data, key->size) == 0;
}

/* Order of up to 8 bytes (`size`) of a key, as its head, against those of a prefix; 0 also if the key ended before. */
static inline int head_compare(uint64_t key_head, const uint8_t *prefix, uint32_t size)
{
    uint64_t mask = size >= 8 ? UINT64_MAX : ~(UINT64_MAX >> (8 * size));
    uint64_t ours = __builtin_bswap64(qr_load_u64(prefix)) & mask;
    uint64_t theirs = key_head & mask;
    return (theirs > ours) - (theirs < ours);
}

/* A prefix that is not all in the header: the rest is in the key of an entry or record that has it. */
static QR_NOINLINE int prefix_compare_long(const struct qr_page *page, const struct qr_key *key, uint32_t index)
{
    uint32_t size = page->prefix_size;
    struct quire_slice whole = page->kind == QR_PAGE_LEAF ? qr_leaf_key(page, index) : qr_inner_key(page, index);
    int order = memcmp(key->data, whole.data, key->size < size ? key->size : size);
    if (order != 0) return order;
    return key->size < size ? -1 : 0;
}

/* Order of the key's first prefix_size bytes (at least 1) against the prefix that the page's keys share. `index`: an
 * entry or record that has the prefix. */
static inline int prefix_compare(const struct qr_page *page, const struct qr_key *key, uint32_t index)
{
    uint32_t size = page->prefix_size;
    int order = head_compare(key->head, page->prefix, size);
    if (order != 0) return order;
    if (size > 8) {
        if (size > QR_INLINE_PREFIX) return key->size == 0 ? -1 : prefix_compare_long(page, key, index);
        order = head_compare(qr_head64(key->data, key->size, 8), page->prefix + 8, size - 8);
        if (order != 0) return order;
    }
    return key->size < size ? -1 : 0;
}

/* Entries from `from` on may have the key's head: compares full keys. Entry 0 counts as below every key. */
static QR_NOINLINE uint32_t inner_find_tied(const struct qr_page *page, const struct qr_key *key, uint32_t from,
                                            uint32_t head)
{
    uint32_t low = from == 0 ? 1 : from;
    uint32_t high = page->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        struct quire_slice other = qr_inner_key(page, middle);
        bool tied = qr_inner_group(page, middle / QR_GROUP)->heads[middle % QR_GROUP] == head;
        if (tied && qr_compare(other.data, other.size, key->data, key->size) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low - 1;
}

/* ---- Plain C ---------------------------------------------------------------------------------------------------- */

static inline uint64_t match_bytes_plain(const uint8_t *bytes, uint64_t count, uint8_t wanted)
{
    uint64_t matches = 0;
    for (uint64_t i = 0; i < count; i++) matches |= (uint64_t)(bytes[i] == wanted) << i;
    return matches;
}

static inline uint32_t count_less_plain(const uint32_t *heads, uint32_t count, uint32_t head)
{
    uint32_t below = 0;
    for (uint32_t i = 0; i < count; i++) below += heads[i] < head;
    return below;
}

#define SEARCH(name) name##_plain
#define SEARCH_TARGET
#define match_bytes match_bytes_plain
#define count_less count_less_plain
#include "page/search_body.h"
#undef SEARCH
#undef SEARCH_TARGET
#undef match_bytes
#undef count_less

#if QR_SEARCH_X86

/* ---- AVX2 ------------------------------------------------------------------------------------------------------- */

#define TARGET_AVX2 __attribute__((target("avx2,bmi,lzcnt,popcnt")))

TARGET_AVX2 static inline uint64_t match_bytes_avx2(const uint8_t *bytes, uint64_t count, uint8_t wanted)
{
    __m256i all = _mm256_set1_epi8((char)wanted);
    __m256i low = _mm256_loadu_si256((const __m256i *)(const void *)bytes);
    __m256i high = _mm256_loadu_si256((const __m256i *)(const void *)(bytes + 32));
    uint64_t matches = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(low, all));
    matches |= (uint64_t)(uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(high, all)) << 32;
    return matches & (~0ull >> (64 - count));
}

TARGET_AVX2 static inline uint32_t count_less_avx2(const uint32_t *heads, uint32_t count, uint32_t head)
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

#define SEARCH(name) name##_avx2
#define SEARCH_TARGET TARGET_AVX2
#define match_bytes match_bytes_avx2
#define count_less count_less_avx2
#include "page/search_body.h"
#undef SEARCH
#undef SEARCH_TARGET
#undef match_bytes
#undef count_less

/* ---- AVX-512 ---------------------------------------------------------------------------------------------------- */

#define TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,bmi,bmi2,lzcnt,popcnt")))

TARGET_AVX512 static inline uint64_t match_bytes_avx512(const uint8_t *bytes, uint64_t count, uint8_t wanted)
{
    __m512i some = _mm512_loadu_si512((const void *)bytes);
    return _mm512_mask_cmpeq_epi8_mask(~0ull >> (64 - count), some, _mm512_set1_epi8((char)wanted));
}

TARGET_AVX512 static inline uint32_t count_less_avx512(const uint32_t *heads, uint32_t count, uint32_t head)
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

#define SEARCH(name) name##_avx512
#define SEARCH_TARGET TARGET_AVX512
#define match_bytes match_bytes_avx512
#define count_less count_less_avx512
#include "page/search_body.h"
#undef SEARCH
#undef SEARCH_TARGET
#undef match_bytes
#undef count_less

#endif

/* ---- The choice ------------------------------------------------------------------------------------------------- */

struct qr_search_ops qr_search = {leaf_find_plain, leaf_lower_bound_plain, inner_find_plain,
                                          leaf_prefetch_match_plain};

static enum qr_search_isa present_isa = QR_SEARCH_PLAIN;

static bool machine_has(enum qr_search_isa isa)
{
#if QR_SEARCH_X86
    __builtin_cpu_init();
    if (isa == QR_SEARCH_AVX2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi");
    if (isa == QR_SEARCH_AVX512)
        return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("bmi2");
#endif
    return isa == QR_SEARCH_PLAIN;
}

bool qr_search_select(enum qr_search_isa isa)
{
    if (!machine_has(isa)) return false;
    qr_search = (struct qr_search_ops){leaf_find_plain, leaf_lower_bound_plain, inner_find_plain,
                                          leaf_prefetch_match_plain};
#if QR_SEARCH_X86
    if (isa == QR_SEARCH_AVX2)
        qr_search = (struct qr_search_ops){leaf_find_avx2, leaf_lower_bound_avx2, inner_find_avx2,
                                          leaf_prefetch_match_avx2};
    if (isa == QR_SEARCH_AVX512)
        qr_search = (struct qr_search_ops){leaf_find_avx512, leaf_lower_bound_avx512, inner_find_avx512,
                                          leaf_prefetch_match_avx512};
#endif
    present_isa = isa;
    return true;
}

enum qr_search_isa qr_search_isa(void)
{
    return present_isa;
}

__attribute__((constructor)) static void select_best(void)
{
    if (!qr_search_select(QR_SEARCH_AVX512) && !qr_search_select(QR_SEARCH_AVX2)) qr_search_select(QR_SEARCH_PLAIN);
}

/* ---- Bounds ----------------------------------------------------------------------------------------------------- */

bool qr_page_key_beyond_slow(const struct qr_page *page, const struct qr_key *key)
{
    if ((page->flags & QR_PAGE_HIGH_INFINITE) != 0) return false;
    if (key->head > page->high_first) return true;
    uint32_t skip = page->bound_skip;
    if (skip != 0 && skip <= QR_INLINE_PREFIX && key->size >= skip) {
        int order = memcmp(key->data, page->prefix, skip); /* skip is not 0, so neither is key->size */
        if (order != 0) return order > 0;
        uint64_t head = qr_head64(key->data, key->size, skip);
        if (head != page->high_head) return head > page->high_head;
    }
    struct quire_slice high = qr_page_high(page);
    return qr_compare(key->data, key->size, high.data, high.size) >= 0;
}
