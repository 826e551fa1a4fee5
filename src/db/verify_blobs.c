/*
 * verify_blobs.c: the large values of a tree: each that the newest record of a key has is read.
 *
 * Layer 6. Older versions are not looked at: an image that was made before they were dropped may still name what was released.
 * While others write a value may be replaced: only what the record still names when it is looked up again is a defect.
 */
#include "db/blobs.h"
#include "db/verify.h"

#include <stdio.h>

#define DETAIL_BYTES 300u

/* The reference that the newest record of a key has. QR_BLOB, or it has none. */
static int find_reference(const struct qr_verify *v, struct quire_tree *tree, const struct qr_key *key,
                          struct qr_blob_ref *ret_ref)
{
    struct quire_value value;
    int result = qr_epoch_prepare(v->thread);
    if (result != 0) return result;
    qr_epoch_enter(v->thread);
    result = qr_db_find(tree, v->thread, key, UINT64_MAX, &value);
    if (result == QR_BLOB && !qr_blob_ref_decode(value.data, ret_ref))
        result = qr_fail(QUIRE_ERR_CORRUPT, 0, "a blob reference is none");
    qr_epoch_exit(v->thread);
    return result;
}

static int verify_value(struct qr_verify *v, struct quire_tree *tree, const struct quire_entry *entry)
{
    struct qr_store *store = v->db->checkpointer.store;
    struct qr_key key = qr_key_make(entry->key, entry->key_size);
    struct quire_error_detail detail;
    char text[DETAIL_BYTES] = "";
    uint64_t bad = 0; /* the address of what did not verify */
    for (;;) {
        struct qr_blob_ref ref;
        int result = find_reference(v, tree, &key, &ref);
        if (result != QR_BLOB) return result < 0 && result != QUIRE_ERR_CORRUPT ? result : 0; /* bad pages were told */
        if (ref.address == bad)
            return qr_verify_tell(v, NULL, 0, tree->name, 0, "a value of %u bytes: %s", (unsigned)ref.size, text);
        result = qr_blob_verify(store, &ref);
        if (result == QR_STORE_GONE) result = qr_db_blob_missing(&ref);
        if (result == 0 || result == QUIRE_ERR_NO_MEMORY) return result;
        quire_error_detail(&detail);
        snprintf(text, sizeof(text), "%s", detail.message);
        bad = ref.address;
    }
}

int qr_verify_blobs(struct qr_verify *v, struct quire_tree *tree)
{
    struct quire_pages_options options;
    struct quire_pages *pages = NULL;
    struct quire_page page;
    quire_pages_options_init(&options);
    options.skip_large_values = 1;
    int result = quire_pages_open(tree, &options, &pages);
    while (result == 0 && (result = quire_pages_next(pages, &page)) == 0) {
        for (size_t i = 0; i < page.count && result == 0; i++)
            if (page.entries[i].value == NULL && page.entries[i].value_size != 0)
                result = verify_value(v, tree, &page.entries[i]);
    }
    quire_pages_close(pages);
    /* What cannot be read of pages was told as a defect of theirs. */
    return result == QUIRE_END || result == QUIRE_ERR_IO || (result == QUIRE_ERR_CORRUPT && v->defects != 0) ? 0 : result;
}
