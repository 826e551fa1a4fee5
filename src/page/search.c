/*
 * search.c: the calls of search.h, made of the searches for each instruction set, the choice among them, and the rare
 * halves of all.
 *
 * Layer 2. The choice is made once, before main, by what the processor can do.
 */
#include "page/search.h"

#include "page/search_isa.h"

/* ---- Rare halves ------------------------------------------------------------------------------------------------ */

/* A prefix that is not all in the header: the rest is in the key of an entry or record that has it. */
static int prefix_order_long(const struct qr_page *page, const struct qr_key *key, uint32_t index)
{
    uint32_t size = page->prefix_size;
    struct quire_slice whole = page->kind == QR_PAGE_LEAF ? qr_leaf_key(page, index) : qr_inner_key(page, index);
    int order = key->size == 0 ? 0 : memcmp(key->data, whole.data, key->size < size ? key->size : size);
    if (order != 0) return order;
    return key->size < size ? -1 : 0;
}

/* Order of 8 bytes of a key, as a head, against 8 bytes of the inline prefix, as far as the mask goes. */
static int head_order(uint64_t head, const uint8_t *prefix, uint64_t mask)
{
    uint64_t ours = __builtin_bswap64(qr_load_u64(prefix)) & mask;
    return ((head & mask) > ours) - ((head & mask) < ours);
}

int qr_prefix_order(const struct qr_page *page, const struct qr_key *key, uint32_t index, uint32_t *ret_head)
{
    uint32_t size = page->prefix_size;
    int order = head_order(key->head, page->prefix, page->prefix_mask);
    if (order == 0 && size > QR_INLINE_PREFIX)
        order = prefix_order_long(page, key, index);
    else if (order == 0 && size > 8)
        order = head_order(qr_head64(key->data, key->size, 8), page->prefix + 8, qr_head_mask(size - 8));
    if (order == 0 && key->size < size) order = -1;
    if (order == 0) *ret_head = qr_head32(key->data, key->size, size);
    return order;
}

uint32_t qr_inner_find_tied(const struct qr_page *page, const struct qr_key *key, uint32_t from, uint32_t head)
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

/* ---- The choice ------------------------------------------------------------------------------------------------- */

#define SEARCH_OPS(name, suffix)                                                                                       \
    {                                                                                                                  \
        name, leaf_find_##suffix, leaf_lower_bound_##suffix, inner_find_##suffix                                       \
    }

static const struct qr_search_ops plain_ops = SEARCH_OPS(QR_SEARCH_PLAIN, plain);
#if QR_SEARCH_X86
static const struct qr_search_ops avx2_ops = SEARCH_OPS(QR_SEARCH_AVX2, avx2);
static const struct qr_search_ops avx512_ops = SEARCH_OPS(QR_SEARCH_AVX512, avx512);
#endif

struct qr_search_ops qr_search = SEARCH_OPS(QR_SEARCH_PLAIN, plain);

static bool machine_has(enum qr_search_isa isa)
{
#if QR_SEARCH_X86
    __builtin_cpu_init();
    bool bits = __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
    if (isa == QR_SEARCH_AVX2) return bits && __builtin_cpu_supports("avx2");
    if (isa == QR_SEARCH_AVX512)
        return bits && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
#endif
    return isa == QR_SEARCH_PLAIN;
}

bool qr_search_select(enum qr_search_isa isa)
{
    if (!machine_has(isa)) return false;
    qr_search = plain_ops;
#if QR_SEARCH_X86
    if (isa == QR_SEARCH_AVX2) qr_search = avx2_ops;
    if (isa == QR_SEARCH_AVX512) qr_search = avx512_ops;
#endif
    return true;
}

__attribute__((constructor)) static void select_best(void)
{
    if (!qr_search_select(QR_SEARCH_AVX512) && !qr_search_select(QR_SEARCH_AVX2)) qr_search_select(QR_SEARCH_PLAIN);
}
