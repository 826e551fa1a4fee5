/*
 * The oracle of page_oracle.h.
 */
#include "page_oracle.h"

#include <stdlib.h>

#include "base/alloc.h"

/* ---- Lists of records ------------------------------------------------------------------------------------------- */

void list_add(struct record_list *list, const struct record *record)
{
    if (list->count == list->capacity) {
        list->capacity = list->capacity == 0 ? 8 : list->capacity * 2;
        list->records = realloc(list->records, list->capacity * sizeof(*list->records));
        if (list->records == NULL)
            abort();
    }
    list->records[list->count++] = *record;
}

void list_free(struct record_list *list)
{
    free(list->records);
    *list = (struct record_list){0};
}

struct quire_slice value_of(uint64_t lsn, uint32_t size)
{
    static uint8_t pattern[VALUE_MAX + 256];
    if (pattern[1] == 0)
        for (uint32_t i = 0; i < sizeof(pattern); i++)
            pattern[i] = (uint8_t)random_mix(i + 1) | 1;
    return (struct quire_slice){pattern + lsn % 256, size};
}

static int key_order(struct quire_slice a, struct quire_slice b)
{
    size_t common = a.size < b.size ? a.size : b.size;
    int order = common == 0 ? 0 : memcmp(a.data, b.data, common);
    return order != 0 ? order : (a.size > b.size) - (a.size < b.size);
}

static bool same_bytes(struct quire_slice a, struct quire_slice b)
{
    return key_order(a, b) == 0;
}

static int sort_order(const void *x, const void *y)
{
    const struct record *a = x, *b = y;
    int order = key_order(a->key, b->key);
    if (order != 0)
        return order;
    if (a->version != b->version)
        return a->version > b->version ? -1 : 1;
    return (a->lsn < b->lsn) - (a->lsn > b->lsn);
}

void list_sort(struct record_list *list)
{
    if (list->count > 1)
        qsort(list->records, list->count, sizeof(*list->records), sort_order);
}

const struct record *list_visible(const struct record_list *list, struct quire_slice key, uint64_t version)
{
    const struct record *found = NULL;
    for (uint32_t i = 0; i < list->count; i++) {
        const struct record *r = &list->records[i];
        if (!same_bytes(r->key, key) || r->version > version)
            continue;
        if (found == NULL || r->version > found->version || (r->version == found->version && r->lsn > found->lsn))
            found = r;
    }
    return found;
}

static bool is_retained(const struct record_list *list, const struct record *r, const struct qr_retention *retention,
                        bool caller, bool full)
{
    for (uint32_t i = 0; caller && i < list->count; i++) { /* PLAN-3 */
        const struct record *other = &list->records[i];
        if (other->version == r->version && other->lsn > r->lsn && same_bytes(other->key, r->key))
            return false;
    }
    if (retention->count == 0 || r->version > retention->bounds[0])
        return true;
    bool seen = false; /* PLAN-1 */
    for (uint32_t i = 0; i < retention->count; i++)
        seen |= list_visible(list, r->key, retention->bounds[i]) == r;
    bool needless = full && r->kind == QR_RECORD_DELETE && r->version <= retention->bounds[retention->count - 1];
    return seen && !needless; /* PLAN-2 */
}

struct record_list list_retained(const struct record_list *list, const struct qr_retention *retention, bool caller,
                                 bool full)
{
    struct record_list kept = {0};
    for (uint32_t i = 0; i < list->count; i++)
        if (is_retained(list, &list->records[i], retention, caller, full))
            list_add(&kept, &list->records[i]);
    list_sort(&kept);
    return kept;
}

bool list_is_multi(const struct record_list *list)
{
    for (uint32_t i = 0; i < list->count; i++) {
        if (list->records[i].kind != QR_RECORD_PUT)
            return true;
        for (uint32_t j = i + 1; j < list->count; j++)
            if (same_bytes(list->records[i].key, list->records[j].key))
                return true;
    }
    return false;
}

uint64_t list_max_version(const struct record_list *list)
{
    uint64_t highest = 0;
    for (uint32_t i = 0; i < list->count; i++)
        highest = qr_max(highest, list->records[i].version);
    return highest;
}

uint64_t list_max_lsn(const struct record_list *list)
{
    uint64_t highest = 0;
    for (uint32_t i = 0; i < list->count; i++)
        highest = qr_max(highest, list->records[i].lsn);
    return highest;
}

/* ---- Keys ------------------------------------------------------------------------------------------------------- */

#define POOL_KEY_MAX 320u

static size_t make_key(enum key_shape shape, uint32_t index, struct random_stream *random, uint8_t *out)
{
    size_t size = 0;
    switch (shape) {
    case SHAPE_PREFIX:
        size = 41;
        memset(out, 'p', size);
        for (uint64_t tail = random_below(random, 5); tail > 0; tail--)
            out[size++] = (uint8_t)random_below(random, 256);
        return size;
    case SHAPE_ZEROS:
    case SHAPE_HIGH:
        size = random_below(random, 13);
        for (size_t i = 0; i < size; i++)
            out[i] = (uint8_t)((shape == SHAPE_ZEROS ? 0 : 0xfe) + random_below(random, 2));
        return size;
    case SHAPE_HEADS:
        memset(out, 'h', 8);
        out[random_below(random, 6)] = (uint8_t)('h' + random_below(random, 2));
        out[6] = (uint8_t)random_below(random, 256);
        out[7] = (uint8_t)random_below(random, 256);
        return 8;
    case SHAPE_LENGTHS:
        size = random_below(random, 297);
        memset(out, 'l', size);
        for (uint64_t tail = random_below(random, 4); tail > 0; tail--)
            out[size++] = (uint8_t)random_below(random, 256);
        return size;
    case SHAPE_RANDOM:
        random_fill(random, out, 16);
        return 16;
    default:
        for (unsigned i = 0; i < 8; i++)
            out[i] = (uint8_t)((uint64_t)index >> (56 - 8 * i));
        return 8;
    }
}

static int slice_order(const void *a, const void *b)
{
    return key_order(*(const struct quire_slice *)a, *(const struct quire_slice *)b);
}

struct key_pool keys_make(enum key_shape shape, uint32_t count, struct random_stream *random)
{
    struct key_pool pool = {.keys = malloc(count * sizeof(*pool.keys)), .bytes = malloc((size_t)count * POOL_KEY_MAX)};
    if (pool.keys == NULL || pool.bytes == NULL)
        abort();
    for (uint32_t i = 0; i < count; i++) {
        uint8_t *at = pool.bytes + (size_t)i * POOL_KEY_MAX;
        pool.keys[i] = (struct quire_slice){at, make_key(shape, i, random, at)};
    }
    qsort(pool.keys, count, sizeof(*pool.keys), slice_order);
    for (uint32_t i = 0; i < count; i++)
        if (pool.count == 0 || !same_bytes(pool.keys[pool.count - 1], pool.keys[i]))
            pool.keys[pool.count++] = pool.keys[i];
    return pool;
}

void keys_free(struct key_pool *pool)
{
    free(pool->keys);
    free(pool->bytes);
    *pool = (struct key_pool){0};
}

struct quire_slice key_near(const struct key_pool *pool, struct random_stream *random, uint8_t *buffer)
{
    struct quire_slice key = pool->keys[random_below(random, pool->count)];
    qr_copy(buffer, key.data, key.size);
    switch (random_below(random, 4)) {
    case 0:
        key.size = random_below(random, key.size + 1);
        break;
    case 1:
        buffer[key.size++] = (uint8_t)(random_chance(random, 50) ? 0 : random_below(random, 256));
        break;
    case 2:
        if (key.size != 0)
            buffer[random_below(random, key.size)] ^= (uint8_t)(1u << random_below(random, 8));
        break;
    default:
        break;
    }
    return (struct quire_slice){buffer, key.size};
}

/* ---- Leaves ----------------------------------------------------------------------------------------------------- */

struct qr_record_spec spec_of(const struct record *record)
{
    return (struct qr_record_spec){
        .key = record->key.data,
        .key_size = (uint32_t)record->key.size,
        .value = record->value.data,
        .value_size = (uint32_t)record->value.size,
        .lsn = record->lsn,
        .version = record->version,
        .kind = record->kind,
        .fingerprint = qr_key_make(record->key.data, record->key.size).fingerprint,
    };
}

struct qr_page_identity identity_of(const struct leaf_shape *shape, uint64_t max_lsn)
{
    return (struct qr_page_identity){
        .pid = 7,
        .right_pid = shape->high_infinite ? 0 : 8,
        .tree_id = 3,
        .high_infinite = shape->high_infinite,
        .low = shape->low,
        .high = shape->high,
        .max_lsn = max_lsn,
    };
}

static struct leaf leaf_over(struct qr_page *page)
{
    return (struct leaf){.page = page, .view = {.page = page}};
}

struct leaf leaf_build(const struct record_list *sorted, const struct leaf_shape *shape)
{
    struct qr_plan plan;
    struct qr_record_spec *specs = qr_malloc(sorted->count * sizeof(*specs));
    struct qr_piece *pieces = qr_malloc(sorted->count * sizeof(*pieces));
    if (specs == NULL || pieces == NULL)
        abort();

    qr_plan_init(&plan, shape->caller, shape->align_log2);
    for (uint32_t i = 0; i < sorted->count; i++) {
        const struct record *r = &sorted->records[i];
        specs[i] = spec_of(r);
        uint64_t bytes = qr_record_size_for((uint32_t)r->key.size, r->value.size, shape->caller, shape->align_log2);
        pieces[i] = (struct qr_piece){.spec = &specs[i], .bytes = bytes, .fingerprint = specs[i].fingerprint};
        plan.bytes += bytes;
        plan.multi |= r->kind != QR_RECORD_PUT || (i > 0 && same_bytes(r->key, sorted->records[i - 1].key));
    }
    plan.pieces = pieces;
    plan.piece_count = plan.piece_capacity = plan.count = sorted->count;
    plan.max_version = list_max_version(sorted);
    struct leaf leaf = leaf_write(&plan, 0, plan.count, shape, list_max_lsn(sorted), 0);
    qr_plan_done(&plan);
    qr_free(specs);
    return leaf;
}

void leaf_free(struct leaf *leaf)
{
    qr_free_aligned(leaf->page);
    *leaf = (struct leaf){0};
}

uint32_t area_for(uint32_t count, uint32_t key_size, uint32_t value_size)
{
    uint64_t largest = 0;
    for (unsigned align_log2 = 0; align_log2 <= 6; align_log2++)
        largest =
            qr_max(largest, qr_delta_size(qr_record_size_for(key_size, value_size, true, align_log2), align_log2));
    return (uint32_t)(count * largest + 64);
}

bool leaf_add(struct leaf *leaf, const struct record *record)
{
    const struct qr_page *page = leaf->page;
    struct qr_record_spec spec = spec_of(record);
    uint64_t size = qr_delta_size(
        qr_record_size_for(spec.key_size, spec.value_size, qr_page_caller(page), page->align_log2), page->align_log2);
    uint32_t offset = page->area_offset + leaf->area_used;

    if (offset + size > page->block_size || leaf->view.chain == QR_CHAIN_MAX)
        return false;
    qr_delta_write(page, offset, &spec);
    qr_delta_link(&leaf->view, offset, spec.fingerprint);
    leaf->view = (struct qr_leaf_view){page, leaf->view.chain + 1, offset / QR_DELTA_UNIT};
    leaf->area_used += (uint32_t)size;
    return true;
}

struct leaf leaf_write(const struct qr_plan *plan, uint32_t from, uint32_t to, const struct leaf_shape *shape,
                       uint64_t max_lsn, uint64_t pending_lsn)
{
    struct qr_page_identity identity = identity_of(shape, max_lsn);
    struct qr_leaf_properties properties = {.flags = shape->flags};
    struct qr_leaf_measure measure;

    qr_plan_measure(plan, from, to, &identity, &measure);
    size_t size = measure.size + shape->area_bytes;
    struct qr_page *page = qr_malloc_aligned(64, size);
    if (page == NULL)
        abort();
    memset(page, 0xa5, size);
    uint8_t *pending = qr_plan_write(plan, &measure, &identity, &properties, page, size);
    if (pending != NULL && pending_lsn != 0) {
        qr_record_set_lsn(pending, pending_lsn);
        page->max_lsn = qr_max(page->max_lsn, pending_lsn);
        if (!plan->caller)
            page->max_version = qr_max(page->max_version, pending_lsn);
    }
    return leaf_over(page);
}

/* ---- Comparing -------------------------------------------------------------------------------------------------- */

static bool is_record(const uint8_t *raw, bool caller, unsigned align_log2, const struct record *r)
{
    struct quire_slice key = {qr_record_key(raw, caller), qr_record_key_size(raw)};
    struct quire_slice value = {qr_record_value(raw, caller, align_log2), qr_record_value_size(raw)};
    return same_bytes(key, r->key) && same_bytes(value, r->value) && qr_record_lsn(raw) == r->lsn &&
           qr_record_version(raw, caller) == r->version && qr_record_kind(raw) == r->kind &&
           (uintptr_t)value.data % ((uintptr_t)1 << align_log2) == 0;
}

const char *page_differs(const struct qr_page *page, const struct record_list *sorted, uint32_t from, uint32_t to)
{
    const char *wrong = qr_page_check(page);
    if (wrong != NULL)
        return wrong;
    if (page->count != to - from)
        return "page has another number of records";
    for (uint32_t i = from; i < to; i++)
        if (!is_record(qr_leaf_record(page, i - from), qr_page_caller(page), page->align_log2, &sorted->records[i]))
            return "page has another record";
    return NULL;
}

const char *find_differs(const struct qr_leaf_view *view, const struct record_list *list, struct quire_slice key,
                         uint64_t version)
{
    static const char *const texts[] = {"plain lookup differs", "AVX2 lookup differs", "AVX-512 lookup differs"};
    const struct qr_page *page = view->page;
    const struct record *expected = list_visible(list, key, version);
    struct qr_key wanted = qr_key_make(key.data, key.size);
    enum qr_search_isa before = qr_search_isa();
    const char *wrong = NULL;

    for (int isa = QR_SEARCH_PLAIN; isa <= QR_SEARCH_AVX512; isa++) {
        if (!qr_search_select((enum qr_search_isa)isa))
            continue;
        const uint8_t *found = qr_leaf_find(view, &wanted, version);
        if ((found == NULL) != (expected == NULL) ||
            (found != NULL && !is_record(found, qr_page_caller(page), page->align_log2, expected)))
            wrong = texts[isa];
    }
    qr_search_select(before);
    return wrong;
}

static bool is_entry(const struct quire_entry *entry, const struct record *r, unsigned align_log2)
{
    return same_bytes((struct quire_slice){entry->key, entry->key_size}, r->key) &&
           same_bytes((struct quire_slice){entry->value, entry->value_size}, r->value) && entry->lsn == r->lsn &&
           entry->version == r->version && (uintptr_t)entry->value % ((uintptr_t)1 << align_log2) == 0;
}

const char *entries_differ(const struct qr_leaf_view *view, const struct qr_page *image, const struct record_list *list,
                           uint64_t version)
{
    const struct qr_page *page = view->page;
    struct record_list sorted = {0};
    for (uint32_t i = 0; i < list->count; i++)
        list_add(&sorted, &list->records[i]);
    list_sort(&sorted);

    uint32_t room = page->count + view->chain + (image != NULL ? image->count : 0);
    struct quire_entry *entries = qr_malloc((room + 1) * sizeof(*entries));
    if (entries == NULL)
        abort();
    uint32_t count =
        image == NULL ? qr_leaf_entries(view, version, entries) : qr_leaf_entries_joined(view, image, version, entries);
    const char *wrong = count > room ? "more entries than there is room for" : NULL;
    uint32_t at = 0;
    for (uint32_t i = 0; wrong == NULL && i < sorted.count; i++) {
        if (i > 0 && same_bytes(sorted.records[i].key, sorted.records[i - 1].key))
            continue;
        const struct record *expected = list_visible(&sorted, sorted.records[i].key, version);
        if (expected == NULL || expected->kind != QR_RECORD_PUT)
            continue;
        if (at == count || !is_entry(&entries[at], expected, page->align_log2))
            wrong = "an entry differs or is missing";
        at++;
    }
    if (wrong == NULL && at != count)
        wrong = "an entry too many";
    qr_free(entries);
    list_free(&sorted);
    return wrong;
}

/* ---- Splits ----------------------------------------------------------------------------------------------------- */

static bool is_boundary(const struct record_list *sorted, uint32_t i)
{
    return i > 0 && i < sorted->count && !same_bytes(sorted->records[i - 1].key, sorted->records[i].key);
}

const char *splits_differ(const struct qr_plan *plan, const struct record_list *sorted, const struct leaf_shape *shape)
{
    const char *wrong = NULL;
    uint64_t max_lsn = list_max_lsn(sorted);
    for (uint32_t i = 1; wrong == NULL && i < sorted->count; i++) {
        if (!is_boundary(sorted, i))
            continue;
        struct leaf_shape left_shape = *shape, right_shape = *shape;
        left_shape.high = right_shape.low = sorted->records[i].key;
        left_shape.high_infinite = false;
        struct leaf left = leaf_write(plan, 0, i, &left_shape, max_lsn, max_lsn);
        struct leaf right = leaf_write(plan, i, plan->count, &right_shape, max_lsn, max_lsn);
        wrong = page_differs(left.page, sorted, 0, i);
        if (wrong == NULL)
            wrong = page_differs(right.page, sorted, i, sorted->count);
        leaf_free(&left);
        leaf_free(&right);
    }
    return wrong;
}

/* Bytes of the records [from, to). */
static uint64_t bytes_of(const struct qr_plan *plan, const struct record_list *sorted, uint32_t from, uint32_t to)
{
    uint64_t bytes = 0;
    for (uint32_t i = from; i < to; i++)
        bytes += qr_record_size_for((uint32_t)sorted->records[i].key.size, sorted->records[i].value.size, plan->caller,
                                    plan->align_log2);
    return bytes;
}

const char *split_index_differs(const struct qr_plan *plan, const struct record_list *sorted)
{
    bool any = false;
    for (uint32_t i = 1; i < sorted->count; i++)
        any |= is_boundary(sorted, i);
    uint64_t all = bytes_of(plan, sorted, 0, sorted->count);
    if (plan->bytes != all || plan->count != sorted->count)
        return "plan counts other records or bytes";
    for (int near_end = 0; near_end < 2; near_end++) {
        uint64_t target = near_end ? all - all / 16 : all / 2;
        uint32_t at = qr_plan_split_index(plan, target);
        if (!any && at != 0)
            return "a single key is split";
        if (!any)
            continue;
        if (!is_boundary(sorted, at))
            return "a split that is not between keys";
        /* No further from the ideal byte than the versions of the key in which that lies. */
        uint32_t from = 0, to = 0;
        while (to < sorted->count && bytes_of(plan, sorted, 0, to) <= target) {
            from = to++;
            while (to < sorted->count && !is_boundary(sorted, to))
                to++;
        }
        if (at != from && at != to)
            return "a split that is not at the key nearest to the ideal byte";
    }
    return NULL;
}
