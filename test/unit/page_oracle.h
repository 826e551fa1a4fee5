/*
 * An oracle for pages: a plain list of records, with answers taken from definitions, and leaves built from such a list.
 *
 * Unit tests of src/page. Nothing here is clever: visible, retained and ordered are loops over the whole list. The leaf
 * builder fills a plan by hand, record by record, so that it uses none of the merging that the tests are about.
 * Comparisons return NULL, or a text that says what differs.
 */
#ifndef TEST_UNIT_PAGE_ORACLE_H
#define TEST_UNIT_PAGE_ORACLE_H

#include "../lib/random.h"
#include "page/leaf.h"
#include "page/plan.h"
#include "page/search.h"

/* ---- Lists of records ------------------------------------------------------------------------------------------- */

struct record {
    struct quire_slice key;
    struct quire_slice value;
    uint64_t lsn;
    uint64_t version; /* with engine versions: the LSN, but UINT64_MAX while the record is pending */
    unsigned kind;
};

struct record_list {
    struct record *records;
    uint32_t count, capacity;
};

void list_add(struct record_list *list, const struct record *record);
void list_free(struct record_list *list);

/* `size` bytes that depend on the LSN; static memory. size <= VALUE_MAX. */
#define VALUE_MAX 3000u
struct quire_slice value_of(uint64_t lsn, uint32_t size);

/* Key ascending, version descending, LSN descending. */
void list_sort(struct record_list *list);

/* The record of that key with the highest version not above `version`, of equal ones that with the highest LSN. */
const struct record *list_visible(const struct record_list *list, struct quire_slice key, uint64_t version);

/* What PLAN-1, PLAN-2 and PLAN-3 leave of the list, sorted. full: nothing older lies below. */
struct record_list list_retained(const struct record_list *list, const struct qr_retention *retention, bool caller,
                                 bool full);

/* Whether some key has several records, or one is a deletion. */
bool list_is_multi(const struct record_list *list);

uint64_t list_max_version(const struct record_list *list);
uint64_t list_max_lsn(const struct record_list *list);

/* ---- Keys ------------------------------------------------------------------------------------------------------- */

/* What makes the searches of a page stumble. */
enum key_shape {
    SHAPE_PREFIX,  /* 41 bytes shared, then up to 4 */
    SHAPE_ZEROS,   /* up to 12 bytes 0 or 1: many equal heads, keys that are prefixes of others */
    SHAPE_HIGH,    /* up to 12 bytes 0xff or 0xfe */
    SHAPE_HEADS,   /* 6 bytes of few values, then 2 that differ: ties after the prefix */
    SHAPE_LENGTHS, /* 0 to 300 bytes of one letter and a tail */
    SHAPE_RANDOM,  /* 16 random bytes */
    SHAPE_COUNTER, /* 8 bytes, big endian */
    SHAPE_COUNT
};

/* Keys without repetition, ascending. */
struct key_pool {
    struct quire_slice *keys;
    uint32_t count;
    uint8_t *bytes;
};

/* At most `count` keys: the small shapes have no more. */
struct key_pool keys_make(enum key_shape shape, uint32_t count, struct random_stream *random);
void keys_free(struct key_pool *pool);

/* Some key near those of the pool: one of them, cut, extended or changed in a byte. buffer: 512 bytes. */
struct quire_slice key_near(const struct key_pool *pool, struct random_stream *random, uint8_t *buffer);

/* ---- Leaves ----------------------------------------------------------------------------------------------------- */

/* How a leaf is to look, beside its records. */
struct leaf_shape {
    bool caller;
    uint8_t align_log2;
    uint8_t flags; /* QR_PAGE_STUB */
    uint32_t area_bytes;
    bool high_infinite;
    struct quire_slice low, high;
};

/* A leaf and the chain that the test has put on it. */
struct leaf {
    struct qr_page *page;
    struct qr_leaf_view view;
    uint32_t area_used;
};

struct qr_record_spec spec_of(const struct record *record);
struct qr_page_identity identity_of(const struct leaf_shape *shape, uint64_t max_lsn);

/* Builds a leaf of the sorted list. Freed by leaf_free. */
struct leaf leaf_build(const struct record_list *sorted, const struct leaf_shape *shape);
void leaf_free(struct leaf *leaf);

/* Puts a delta with this record on the chain. False if the area is full. */
bool leaf_add(struct leaf *leaf, const struct record *record);

/* Room in the area for `count` deltas with records of at most these sizes. */
uint32_t area_for(uint32_t count, uint32_t key_size, uint32_t value_size);

/*
 * Measures and writes the records [from, to) of a plan into a block of just the needed size, plus the shape's area. A
 * pending record gets `pending_lsn`, as its writer would give it.
 */
struct leaf leaf_write(const struct qr_plan *plan, uint32_t from, uint32_t to, const struct leaf_shape *shape,
                       uint64_t max_lsn, uint64_t pending_lsn);

/* ---- Comparing -------------------------------------------------------------------------------------------------- */

/* The page passes qr_page_check and holds exactly records [from, to) of the sorted list. */
const char *page_differs(const struct qr_page *page, const struct record_list *sorted, uint32_t from, uint32_t to);

/* qr_leaf_find answers as the list for that key and version, in every instruction set. */
const char *find_differs(const struct qr_leaf_view *view, const struct record_list *list, struct quire_slice key,
                         uint64_t version);

/* The entries of the view (and of the image, if it is not NULL) are what the list shows at the version. */
const char *entries_differ(const struct qr_leaf_view *view, const struct qr_page *image, const struct record_list *list,
                           uint64_t version);

/* Every legal split of the plan gives two good leaves, and qr_plan_split_index names a legal and balanced one. */
const char *splits_differ(const struct qr_plan *plan, const struct record_list *sorted, const struct leaf_shape *shape);
const char *split_index_differs(const struct qr_plan *plan, const struct record_list *sorted);

#endif
