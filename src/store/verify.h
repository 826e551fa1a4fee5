/*
 * verify.h: reading all of a page store, and comparing it with itself.
 *
 * Layer 4. The mapping leads to each image, which is read and handed to the caller, who knows what a page is. Each segment is
 * read from its header to the end of its last batch: summaries and all images in them, also such that no page has any more; of
 * segments of blobs the header.
 * Nothing is changed. The caller sees to it that no image is entered meanwhile and no capture is open.
 */
#ifndef QR_STORE_VERIFY_H
#define QR_STORE_VERIFY_H

#include "store/store.h"

struct qr_store_fault {
    char file[16]; /* empty: none in particular */
    uint64_t offset, pid;
    const char *text;
};

struct qr_store_verifier {
    /* Not 0 ends the verification, which answers it. */
    int (*fault)(void *context, const struct qr_store_fault *fault);
    /* Looks at an image that verified; the memory, 64-byte aligned, may be changed. NULL, or what is wrong with it. */
    const char *(*page)(void *context, uint64_t pid, const struct qr_store_entry *entry, void *bytes, uint32_t size);
    void *context;
};

/* 0, whatever was found; what the fault function answered; NO_MEMORY. */
int qr_store_verify(struct qr_store *store, const struct qr_store_verifier *verifier);

#endif
