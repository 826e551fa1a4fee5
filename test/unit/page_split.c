/*
 * Goal: a plan is split at the boundary between keys that is nearest to the byte asked for, the left one of two.
 * Method: every plan of up to six records: all keys, each record dropped, taken from a page or single; compared for
 * every byte with a search that tries the distances one after the other.
 */
#include <criterion/criterion.h>

#include "page_oracle.h"

#define RECORDS 6u

/* What becomes of a record of the page in the plan. */
enum fate { DROPPED, IN_RUN, SINGLE, FATES };

/* A plan, and beside it what its records are. */
struct split_case {
    struct qr_piece pieces[RECORDS];
    struct qr_record_spec specs[RECORDS];
    struct qr_plan plan;
    struct quire_slice keys[RECORDS];
    uint64_t ends[RECORDS]; /* bytes up to and with the record */
};

/* Record i + 1 has another key than record i if bit i of `changes` is set. */
static struct record_list make_list(unsigned changes, uint32_t count)
{
    static const char letters[] = "abcdefg";
    struct record_list list = {0};
    unsigned letter = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct record r = {.key = {letters + letter, 1}, .lsn = 100 - i, .version = 100 - i, .kind = QR_RECORD_PUT};
        r.value = value_of(r.lsn, i * 7 % 5);
        list_add(&list, &r);
        letter += changes >> i & 1;
    }
    return list;
}

static void add_record(struct split_case *c, const struct qr_page *page, uint32_t i, enum fate fate,
                       const struct record *record)
{
    struct qr_plan *plan = &c->plan;
    const uint64_t bytes = qr_leaf_record_offset(page, i + 1) - qr_leaf_record_offset(page, i);
    struct qr_piece *last = plan->piece_count == 0 ? NULL : &c->pieces[plan->piece_count - 1];
    if (fate == IN_RUN && last != NULL && last->page == page && last->to == i) {
        last->to++;
        last->bytes += bytes;
    } else {
        struct qr_piece *piece = &c->pieces[plan->piece_count++];
        *piece = (struct qr_piece){.bytes = bytes};
        c->specs[i] = spec_of(record);
        if (fate == IN_RUN)
            piece->page = page, piece->from = i, piece->to = i + 1;
        else if (i % 2 == 0)
            piece->record = qr_leaf_record(page, i);
        else
            piece->spec = &c->specs[i];
    }
    plan->bytes += bytes;
    c->keys[plan->count] = record->key;
    c->ends[plan->count++] = plan->bytes;
}

/* Digit i of `fates` is what becomes of record i. */
static void make_case(struct split_case *c, const struct qr_page *page, const struct record_list *list, unsigned fates)
{
    qr_plan_init(&c->plan, false, 0);
    for (uint32_t i = 0; i < list->count; i++, fates /= FATES)
        if (fates % FATES != DROPPED)
            add_record(c, page, i, fates % FATES, &list->records[i]);
    c->plan.pieces = c->pieces;
}

static bool is_boundary(const struct split_case *c, uint32_t at)
{
    return !qr_equal(c->keys[at - 1].data, c->keys[at - 1].size, c->keys[at].data, c->keys[at].size);
}

static uint32_t slow_split_index(const struct split_case *c, uint64_t target)
{
    const uint32_t count = c->plan.count;
    uint32_t i = 0;
    if (count < 2)
        return 0;
    while (i < count - 1 && c->ends[i] <= target)
        i++;
    if (i == 0)
        i = 1;
    for (uint32_t distance = 0; distance < count; distance++) {
        if (i > distance && is_boundary(c, i - distance))
            return i - distance;
        if (i + distance < count && is_boundary(c, i + distance))
            return i + distance;
    }
    return 0;
}

static uint64_t expect_same_splits(const struct split_case *c)
{
    for (uint64_t target = 0; target <= c->plan.bytes + 1; target++) {
        uint32_t expected = slow_split_index(c, target);
        uint32_t at = qr_plan_split_index(&c->plan, target);
        if (at != expected)
            cr_assert(false, "%u records, %u pieces, byte %u: %u instead of %u", c->plan.count, c->plan.piece_count,
                      (unsigned)target, at, expected);
    }
    return c->plan.bytes + 2;
}

Test(page_split, the_nearest_boundary_is_found_in_every_small_plan)
{
    struct leaf_shape shape = {.high_infinite = true};
    uint64_t checked = 0;
    for (uint32_t count = 1; count <= RECORDS; count++) {
        unsigned all_fates = 1;
        for (uint32_t i = 0; i < count; i++)
            all_fates *= FATES;
        for (unsigned changes = 0; changes < 1u << (count - 1); changes++) {
            struct record_list list = make_list(changes, count);
            struct leaf leaf = leaf_build(&list, &shape);
            for (unsigned fates = 0; fates < all_fates; fates++) {
                struct split_case c;
                make_case(&c, leaf.page, &list, fates);
                checked += expect_same_splits(&c);
            }
            leaf_free(&leaf);
            list_free(&list);
        }
    }
    cr_assert_gt(checked, 1000000);
}
