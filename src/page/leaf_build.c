/*
 * leaf_build.c: from a plan to a leaf: measuring, writing, choosing where to split.
 *
 * Layer 2. Read plan.h first. Writing copies run by run: record bytes, fingerprints, and heads as long as the prefix
 * that the keys share is the old one. Records end up in key order, without holes (PAGE-2).
 */
#include "base/bytes.h"
#include "page/plan.h"
#include "page/search.h"

/* One piece, cut to the records [from, to) of the plan. */
struct cut {
    const struct qr_piece *piece;
    uint32_t from, to; /* indexes in the piece's page, or 0, 1 */
};

static uint32_t piece_records(const struct qr_piece *piece)
{
    return piece->page != NULL ? piece->to - piece->from : 1;
}

/* Calls for each piece that overlaps [from, to): a loop over cuts without a callback. `at` is the plan index at which
 * the piece begins. Returns false if the piece lies outside. */
static bool cut_piece(const struct qr_piece *piece, uint32_t at, uint32_t from, uint32_t to, struct cut *ret_cut)
{
    uint32_t records = piece_records(piece);
    uint32_t first = at > from ? at : from;
    uint32_t last = at + records < to ? at + records : to;
    if (first >= last) return false;
    uint32_t base = piece->page != NULL ? piece->from : 0;
    *ret_cut = (struct cut){piece, base + (first - at), base + (last - at)};
    return true;
}

static struct quire_slice single_key(const struct qr_plan *plan, const struct qr_piece *piece)
{
    if (piece->spec != NULL) return (struct quire_slice){piece->spec->key, piece->spec->key_size};
    return (struct quire_slice){qr_record_key(piece->record, plan->caller), qr_record_key_size(piece->record)};
}

/* A record of a plan, in the piece that has it. No piece is empty. */
struct place {
    const struct qr_piece *piece;
    uint32_t index; /* in the piece */
};

static struct place place_of(const struct qr_plan *plan, uint32_t i)
{
    QR_ASSERT(i < plan->count);
    struct place place = {plan->pieces, i};
    while (place.index >= piece_records(place.piece)) {
        place.index -= piece_records(place.piece);
        place.piece++;
    }
    return place;
}

static struct place place_before(struct place place)
{
    if (place.index != 0) return (struct place){place.piece, place.index - 1};
    return (struct place){place.piece - 1, piece_records(place.piece - 1) - 1};
}

static struct place place_after(struct place place)
{
    if (place.index + 1 != piece_records(place.piece)) return (struct place){place.piece, place.index + 1};
    return (struct place){place.piece + 1, 0};
}

static struct quire_slice key_at(const struct qr_plan *plan, struct place place)
{
    const struct qr_piece *piece = place.piece;
    return piece->page != NULL ? qr_leaf_key(piece->page, piece->from + place.index) : single_key(plan, piece);
}

struct quire_slice qr_plan_key(const struct qr_plan *plan, uint32_t i)
{
    return key_at(plan, place_of(plan, i));
}

/* ---- Measuring -------------------------------------------------------------------------------------------------- */

struct layout {
    uint64_t slots, heads, records, fences, end;
};

static struct layout lay_out(uint32_t count, uint64_t bytes, bool slots, uint8_t align_log2,
                             const struct qr_page_identity *identity)
{
    struct layout at;
    uint64_t align = (uint64_t)1 << align_log2;
    at.slots = QR_PAGE_HEADER + qr_round_up(count, 64);
    at.heads = at.slots + (slots ? 4 * ((uint64_t)count + 1) : 0);
    at.records = qr_round_up(at.heads + 4 * (uint64_t)count, align < 4 ? 4 : align);
    at.fences = at.records + bytes;
    at.end = at.fences + identity->low.size + (identity->high_infinite ? 0 : identity->high.size);
    return at;
}

void qr_plan_measure(const struct qr_plan *plan, uint32_t from, uint32_t to, const struct qr_page_identity *identity,
                     struct qr_leaf_measure *ret_measure)
{
    uint64_t bytes = 0;
    uint64_t stride = 0;
    bool mixed = false;
    uint32_t at = 0;
    for (uint32_t p = 0; p < plan->piece_count; p++) {
        const struct qr_piece *piece = &plan->pieces[p];
        struct cut cut;
        if (cut_piece(piece, at, from, to, &cut)) {
            uint64_t size = piece->page == NULL ? piece->bytes : piece->page->record_stride;
            bytes += piece->page == NULL ? piece->bytes
                                         : (uint64_t)qr_leaf_record_offset(piece->page, cut.to) -
                                               qr_leaf_record_offset(piece->page, cut.from);
            if (size == 0 || (stride != 0 && size != stride)) mixed = true;
            stride = size;
        }
        at += piece_records(piece);
    }
    if (stride == 0 || stride > UINT32_MAX) mixed = true; /* 0: no records; PAGE-3 wants slots then */
    *ret_measure = (struct qr_leaf_measure){.from = from, .to = to, .bytes = bytes};
    ret_measure->stride = mixed ? 0 : (uint32_t)stride;
    ret_measure->size = lay_out(to - from, bytes, mixed, plan->align_log2, identity).end;
}

/* ---- Writing ---------------------------------------------------------------------------------------------------- */

/* The arrays of a leaf under construction, and how far they are filled. */
struct fill {
    struct qr_page *page;
    uint8_t *bytes;
    uint8_t *fingerprints;
    uint32_t *slots; /* NULL: uniform */
    uint32_t *heads;
    uint32_t count;
    uint32_t offset;
    uint8_t *pending;
};

static void fill_run(struct fill *f, const struct qr_page *from_page, uint32_t from, uint32_t to)
{
    uint32_t records = to - from;
    uint32_t source = qr_leaf_record_offset(from_page, from);
    uint32_t size = qr_leaf_record_offset(from_page, to) - source;

    memcpy(f->bytes + f->offset, qr_page_bytes(from_page) + source, size);
    memcpy(f->fingerprints + f->count, qr_page_fingerprints(from_page) + from, records);
    if (f->slots != NULL)
        for (uint32_t i = 0; i < records; i++)
            f->slots[f->count + i] = f->offset + (qr_leaf_record_offset(from_page, from + i) - source);
    if (from_page->prefix_size == f->page->prefix_size) {
        memcpy(f->heads + f->count, qr_leaf_heads(from_page) + from, 4 * (size_t)records);
    } else {
        for (uint32_t i = 0; i < records; i++) {
            struct quire_slice key = qr_leaf_key(from_page, from + i);
            f->heads[f->count + i] = qr_head32(key.data, key.size, f->page->prefix_size);
        }
    }
    f->count += records;
    f->offset += size;
}

static void fill_single(struct fill *f, const struct qr_plan *plan, const struct qr_piece *piece)
{
    struct quire_slice key = single_key(plan, piece);
    uint8_t *to = f->bytes + f->offset;
    if (piece->spec != NULL) {
        qr_record_write(to, piece->spec, plan->caller, plan->align_log2);
        f->pending = to;
    } else {
        memcpy(to, piece->record, piece->bytes);
    }
    f->fingerprints[f->count] = piece->fingerprint;
    if (f->slots != NULL) f->slots[f->count] = f->offset;
    f->heads[f->count] = qr_head32(key.data, key.size, f->page->prefix_size);
    f->count++;
    f->offset += (uint32_t)piece->bytes;
}

static void write_header(struct qr_page *page, const struct qr_plan *plan, const struct qr_leaf_measure *measure,
                         const struct qr_page_identity *identity, const struct qr_leaf_properties *properties,
                         size_t block_size)
{
    uint32_t count = measure->to - measure->from;
    bool mixed = measure->stride == 0;
    struct layout at = lay_out(count, measure->bytes, mixed, plan->align_log2, identity);
    uint64_t unit = qr_max(QR_DELTA_UNIT, (uint64_t)1 << plan->align_log2);
    uint64_t area = qr_round_up(at.end, unit);

    memset(page, 0, sizeof(*page));
    page->block_size = (uint32_t)block_size;
    page->kind = QR_PAGE_LEAF;
    page->flags = (uint8_t)(properties->flags | (plan->caller ? QR_PAGE_CALLER : 0) |
                            (plan->multi ? QR_PAGE_MULTI : 0) | (plan->collected ? QR_PAGE_COLLECTED : 0) |
                            (plan->blobs ? QR_PAGE_BLOBS : 0));
    page->align_log2 = plan->align_log2;
    page->count = count;
    page->record_stride = measure->stride;
    page->records_offset = (uint32_t)at.records;
    page->slots_offset = (uint32_t)at.slots;
    page->heads_offset = (uint32_t)at.heads;
    page->area_offset = block_size > QR_AREA_END_MAX || area > block_size ? (uint32_t)block_size : (uint32_t)area;
    qr_page_set_identity(page, identity, (uint32_t)at.fences);
    page->max_version = plan->max_version;
    page->safe_version = properties->safe_version;
    page->image_address = properties->image_address;
    page->first_lsn = properties->first_lsn;
    page->content_bytes = (uint32_t)at.end;
    if (count != 0)
        qr_page_set_bounds(page, true, qr_plan_key(plan, measure->from), qr_plan_key(plan, measure->to - 1));
    else
        qr_page_set_bounds(page, false, (struct quire_slice){0}, (struct quire_slice){0});
}

uint8_t *qr_plan_write(const struct qr_plan *plan, const struct qr_leaf_measure *measure,
                       const struct qr_page_identity *identity, const struct qr_leaf_properties *properties,
                       void *block, size_t block_size)
{
    struct qr_page *page = block;
    write_header(page, plan, measure, identity, properties, block_size);

    struct fill f = {.page = page, .bytes = block, .offset = page->records_offset};
    f.fingerprints = f.bytes + QR_PAGE_HEADER;
    f.slots = measure->stride == 0 ? (uint32_t *)(void *)(f.bytes + page->slots_offset) : NULL;
    f.heads = (uint32_t *)(void *)(f.bytes + page->heads_offset);
    uint32_t at = 0;
    for (uint32_t p = 0; p < plan->piece_count && at < measure->to; p++) {
        const struct qr_piece *piece = &plan->pieces[p];
        struct cut cut;
        if (cut_piece(piece, at, measure->from, measure->to, &cut)) {
            if (piece->page != NULL)
                fill_run(&f, piece->page, cut.from, cut.to);
            else
                fill_single(&f, plan, piece);
        }
        at += piece_records(piece);
    }
    QR_ASSERT(f.count == page->count);
    if (f.slots != NULL) f.slots[f.count] = f.offset;
    memset(f.fingerprints + f.count, 0, qr_round_up(f.count, 64) - f.count);
    return f.pending;
}

/* ---- Where to split --------------------------------------------------------------------------------------------- */

static bool has_key(const struct qr_plan *plan, struct place place, struct quire_slice key)
{
    struct quire_slice is = key_at(plan, place);
    return qr_equal(is.data, is.size, key.data, key.size);
}

/* The boundary between keys nearest to plan index i, the left one of two: an end of the records with that index's key. 0 if
 * all records have it. */
static uint32_t nearest_boundary(const struct qr_plan *plan, uint32_t i)
{
    const struct place place = place_of(plan, i);
    const struct quire_slice key = key_at(plan, place);
    uint32_t from = i;
    uint32_t to = i + 1;
    for (struct place p = place; from > 0; from--) {
        p = place_before(p);
        if (!has_key(plan, p, key)) break;
    }
    for (struct place p = place; to < plan->count; to++) {
        p = place_after(p);
        if (!has_key(plan, p, key)) break;
    }
    if (from != 0 && (to == plan->count || i - from <= to - i)) return from;
    return to == plan->count ? 0 : to;
}

/* Index of the record in which the byte `target` lies. */
static uint32_t index_at_byte(const struct qr_plan *plan, uint64_t target)
{
    uint32_t at = 0;
    uint64_t bytes = 0;
    for (uint32_t p = 0; p < plan->piece_count; p++) {
        const struct qr_piece *piece = &plan->pieces[p];
        if (bytes + piece->bytes > target) {
            if (piece->page == NULL) return at;
            uint32_t start = qr_leaf_record_offset(piece->page, piece->from);
            uint32_t low = piece->from;
            uint32_t high = piece->to - 1;
            while (low < high) { /* last record that starts at or before the target */
                uint32_t middle = low + (high - low + 1) / 2;
                if (qr_leaf_record_offset(piece->page, middle) - start + bytes <= target)
                    low = middle;
                else
                    high = middle - 1;
            }
            return at + (low - piece->from);
        }
        bytes += piece->bytes;
        at += piece_records(piece);
    }
    return plan->count == 0 ? 0 : plan->count - 1;
}

uint32_t qr_plan_split_index(const struct qr_plan *plan, uint64_t left_bytes)
{
    if (plan->count < 2) return 0;
    uint32_t i = index_at_byte(plan, left_bytes);
    return nearest_boundary(plan, i == 0 ? 1 : i);
}
