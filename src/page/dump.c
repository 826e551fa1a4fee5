/*
 * dump.c: a page and its chain as text, for people with a debugger or a failing test.
 *
 * Layer 2. For pages that pass qr_page_check. A line for the header, one for each bound, one a record, entry or delta;
 * keys in quotes with \xNN for what is not printable, long ones cut. Values are given by size only.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "page/inner.h"

#define SHOWN_KEY_BYTES 40u

/* Text so far: what fits goes to out, the length counts all. */
struct text {
    char *out;
    size_t capacity;
    size_t length;
};

QR_PRINTF(2, 3) static void add(struct text *text, const char *format, ...)
{
    size_t left = text->length < text->capacity ? text->capacity - text->length : 0;
    va_list arguments;
    va_start(arguments, format);
    int added = vsnprintf(left != 0 ? text->out + text->length : NULL, left, format, arguments);
    va_end(arguments);
    if (added > 0)
        text->length += (size_t)added;
}

static void add_key(struct text *text, struct quire_slice key)
{
    const uint8_t *bytes = key.data;
    add(text, "\"");
    for (size_t i = 0; i < key.size && i < SHOWN_KEY_BYTES; i++) {
        bool plain = bytes[i] >= ' ' && bytes[i] <= '~' && bytes[i] != '"' && bytes[i] != '\\';
        if (plain)
            add(text, "%c", bytes[i]);
        else
            add(text, "\\x%02x", bytes[i]);
    }
    if (key.size > SHOWN_KEY_BYTES)
        add(text, "\"... (%zu bytes)", key.size);
    else
        add(text, "\"");
}

static const char *kind_name(unsigned kind)
{
    static const char *const names[] = {"put", "delete", "merge", "range-delete", "blob", "intent"};
    return kind < QR_ARRAY_COUNT(names) ? names[kind] : "unknown";
}

static void add_record(struct text *text, const struct qr_page *page, const uint8_t *record)
{
    bool caller = qr_page_caller(page);
    add_key(text, (struct quire_slice){qr_record_key(record, caller), qr_record_key_size(record)});
    add(text, " %s lsn %" PRIu64, kind_name(qr_record_kind(record)), qr_record_lsn(record));
    if (caller)
        add(text, " version %" PRIu64, qr_record_version(record, caller));
    add(text, " value %" PRIu32 " bytes\n", qr_record_value_size(record));
}

static void add_header(struct text *text, const struct qr_page *page)
{
    static const struct {
        unsigned flag;
        const char *name;
    } flags[] = {{QR_PAGE_CALLER, " caller-versions"},
                 {QR_PAGE_MULTI, " multi"},
                 {QR_PAGE_STUB, " stub"},
                 {QR_PAGE_COLLECTED, " collected"},
                 {QR_PAGE_BLOBS, " blobs"}};

    add(text, "%s pid %" PRIu64 " tree %" PRIu32 " level %u right %" PRIu64 " count %" PRIu32,
        page->kind == QR_PAGE_LEAF ? "leaf" : "inner", page->pid, page->tree_id, page->level, page->right_pid,
        page->count);
    for (size_t i = 0; i < QR_ARRAY_COUNT(flags); i++)
        if ((page->flags & flags[i].flag) != 0)
            add(text, "%s", flags[i].name);
    add(text, "\n  block %" PRIu32 " content %" PRIu32 " area %" PRIu32 " stride %" PRIu32 " align %u prefix %" PRIu32,
        page->block_size, page->content_bytes, page->block_size - page->area_offset, page->record_stride,
        1u << page->align_log2, page->prefix_size);
    add(text, "\n  max_lsn %" PRIu64 " max_version %" PRIu64 " safe_version %" PRIu64 " first_lsn %" PRIu64,
        page->max_lsn, page->max_version, page->safe_version, page->first_lsn);
    if (page->image_address != 0)
        add(text, " image %" PRIu64, page->image_address);
    add(text, "\n  low ");
    add_key(text, qr_page_low(page));
    add(text, "\n  high ");
    if ((page->flags & QR_PAGE_HIGH_INFINITE) != 0)
        add(text, "infinite");
    else
        add_key(text, qr_page_high(page));
    add(text, "\n");
}

static void add_chain(struct text *text, const struct qr_leaf_view *view)
{
    if (view->chain == 0)
        return;
    const struct qr_delta *head = qr_view_head(view);
    for (uint32_t i = view->chain; i-- > 0;) {
        const struct qr_delta *delta = qr_page_delta(view->page, head->offsets[i]);
        add(text, "  delta %" PRIu32 " at %u fingerprint %02x highest below %" PRIu64 ": ", i,
            head->offsets[i] * QR_DELTA_UNIT, head->fingerprints[i], delta->highest_below);
        add_record(text, view->page, qr_delta_record(view->page, head->offsets[i]));
    }
}

static void add_leaf(struct text *text, const struct qr_leaf_view *view)
{
    const struct qr_page *page = view->page;
    add_chain(text, view);
    for (uint32_t i = 0; i < page->count; i++) {
        add(text, "  record %" PRIu32 " at %" PRIu32 " fingerprint %02x: ", i, qr_leaf_record_offset(page, i),
            qr_page_fingerprints(page)[i]);
        add_record(text, page, qr_leaf_record(page, i));
    }
}

static void add_inner(struct text *text, const struct qr_page *page)
{
    for (uint32_t i = 0; i < page->count; i++) {
        add(text, "  entry %" PRIu32 ": ", i);
        add_key(text, i == 0 ? qr_page_low(page) : qr_inner_key(page, i));
        add(text, " child %" PRIu64 "%s\n", qr_inner_child(page, i), qr_inner_merging(page, i) ? " merging" : "");
    }
}

size_t qr_page_dump(const struct qr_leaf_view *view, char *out, size_t capacity)
{
    struct text text = {.out = out, .capacity = capacity};
    if (capacity != 0)
        out[0] = '\0';
    add_header(&text, view->page);
    if (view->page->kind == QR_PAGE_LEAF)
        add_leaf(&text, view);
    else
        add_inner(&text, view->page);
    return text.length;
}
