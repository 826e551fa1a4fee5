/*
 * changes.c: the table of images.
 *
 * Layer 4. Read changes.h first. With b buckets and 2^k the least power of two not below b, a key is in bucket
 * hash mod 2^k, or, if there is none yet, in the one without the highest bit. The next bucket to come takes its part of
 * that one.
 */
#include "store/changes.h"

#include <string.h>

#include "base/alloc.h"

#define LEAST (UINT64_C(1) << QR_CHANGES_LEAST_LOG2)

static uint64_t hash_of(uint64_t key)
{
    key *= UINT64_C(0x9e3779b97f4a7c15);
    return key ^ key >> 32;
}

static unsigned log2_of(uint64_t value)
{
    return 63u - (unsigned)__builtin_clzll(value);
}

/* Of the array that has bucket i, i at least LEAST. */
static unsigned array_of(uint64_t i)
{
    return log2_of(i) - QR_CHANGES_LEAST_LOG2;
}

static struct qr_change **bucket_at(struct qr_changes *changes, uint64_t i)
{
    if (i < LEAST)
        return &changes->least[i];
    unsigned array = array_of(i);
    return &changes->arrays[array][i - (LEAST << array)];
}

static struct qr_change **bucket_of(struct qr_changes *changes, uint64_t key)
{
    uint64_t buckets = changes->buckets;
    uint64_t mask = buckets == LEAST ? LEAST - 1 : (UINT64_C(2) << log2_of(buckets - 1)) - 1;
    uint64_t i = hash_of(key) & mask;
    return bucket_at(changes, i < buckets ? i : i & mask >> 1);
}

void qr_changes_init(struct qr_changes *changes)
{
    memset(changes, 0, sizeof(*changes));
    changes->buckets = LEAST;
}

void qr_changes_done(struct qr_changes *changes)
{
    for (uint64_t i = 0; i < changes->buckets; i++) {
        struct qr_change *next, *change = *bucket_at(changes, i);
        for (; change != NULL; change = next) {
            next = change->next;
            qr_free(change);
        }
    }
    for (unsigned i = 0; i < QR_CHANGES_ARRAYS; i++)
        qr_free(changes->arrays[i]);
    qr_changes_init(changes);
}

struct qr_change *qr_changes_find(struct qr_changes *changes, uint64_t key)
{
    struct qr_change *change = *bucket_of(changes, key);
    while (change != NULL && change->key != key)
        change = change->next;
    return change;
}

static void grow(struct qr_changes *changes)
{
    uint64_t i = changes->buckets;
    unsigned array = array_of(i);
    if (array >= QR_CHANGES_ARRAYS)
        return;
    if (changes->arrays[array] == NULL)
        changes->arrays[array] = qr_calloc((size_t)(LEAST << array), sizeof(struct qr_change *));
    if (changes->arrays[array] == NULL)
        return;
    struct qr_change **from = bucket_at(changes, i - (UINT64_C(1) << log2_of(i)));
    struct qr_change *next, *change = *from;
    *from = NULL;
    changes->buckets++;
    for (; change != NULL; change = next) {
        struct qr_change **to = bucket_of(changes, change->key);
        next = change->next;
        change->next = *to;
        *to = change;
    }
}

void qr_changes_add(struct qr_changes *changes, struct qr_change *change)
{
    struct qr_change **bucket = bucket_of(changes, change->key);
    change->next = *bucket;
    *bucket = change;
    if (++changes->count > changes->buckets)
        grow(changes);
}

struct qr_change *qr_changes_take(struct qr_changes *changes, uint64_t key)
{
    struct qr_change **at = bucket_of(changes, key);
    while (*at != NULL && (*at)->key != key)
        at = &(*at)->next;
    struct qr_change *change = *at;
    if (change == NULL)
        return NULL;
    *at = change->next;
    changes->count--;
    return change;
}

struct qr_change *qr_changes_take_from(struct qr_changes *changes, uint64_t i)
{
    struct qr_change **at = bucket_at(changes, i);
    struct qr_change *change = *at;
    if (change == NULL)
        return NULL;
    *at = change->next;
    changes->count--;
    return change;
}

void qr_changes_list(struct qr_changes *changes, struct qr_change **ret_changes)
{
    for (uint64_t i = 0; i < changes->buckets; i++) {
        for (struct qr_change *change = *bucket_at(changes, i); change != NULL; change = change->next)
            *ret_changes++ = change;
    }
}

uint64_t qr_changes_memory(struct qr_changes *changes)
{
    return changes->count * sizeof(struct qr_change) + changes->buckets * sizeof(struct qr_change *);
}
