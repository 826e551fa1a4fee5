/*
 * Goal: a write that cannot get memory says so, changes nothing and leaves the database usable, whichever allocation it
 * is that fails.
 * Method: scenarios of writes and structure changes, run with each of their allocations failing (failing_run.h).
 */
#include "failing_run.h"

TestSuite(failing, .timeout = 120);

/* ---- What happens ----------------------------------------------------------------------------------------------- */

static uint64_t splits(struct world *w)
{
    return stats_of(w->db).tree_splits;
}

static uint64_t merges(struct world *w)
{
    return stats_of(w->db).tree_merges;
}

static uint64_t height(struct world *w)
{
    return stats_of(w->db).height_max;
}

static uint64_t consolidations(struct world *w)
{
    return stats_of(w->db).tree_consolidations;
}

static uint64_t inner_pages(struct world *w)
{
    return stats_of(w->db).pages_inner;
}

/* ---- Puts ------------------------------------------------------------------------------------------------------- */

static void put_ascending(struct world *w, uint64_t step)
{
    world_put(w, step, 16);
}

static void put_descending(struct world *w, uint64_t step)
{
    world_put(w, 999 - step % 1000, 16);
}

static void put_scattered(struct world *w, uint64_t step)
{
    world_put(w, step * 377 % 1000, 16);
}

static void put_one_key(struct world *w, uint64_t step)
{
    (void)step;
    world_put(w, 5, 16);
}

static void put_2000_bytes(struct world *w, uint64_t step)
{
    world_put(w, step, 2000);
}

static void put_300000_bytes(struct world *w, uint64_t step)
{
    world_put(w, 5 + step % 2, 300000);
}

static void fill_50(struct world *w)
{
    world_fill(w, 50, 16);
}

/* Three levels: five inner pages below the root. */
static void fill_500(struct world *w)
{
    world_fill(w, 500, 16);
}

/* H09: room for one record is all that it takes */
Test(failing, a_put_into_an_empty_tree)
{
    run(&(struct scenario){.act = put_2000_bytes});
}

/* H09: the chain is full */
Test(failing, a_put_that_consolidates)
{
    run(&(struct scenario){.act = put_one_key, .happening = consolidations});
    run(&(struct scenario){.prepare = fill_50, .act = put_scattered, .happening = consolidations});
}

/* H09 */
Test(failing, a_put_that_splits_the_only_leaf)
{
    run(&(struct scenario){.act = put_ascending, .happening = height});
    run(&(struct scenario){.act = put_scattered, .happening = height});
}

/* H09 */
Test(failing, a_put_that_splits_a_leaf_below_the_root)
{
    run(&(struct scenario){.prepare = fill_50, .act = put_scattered, .happening = splits});
    run(&(struct scenario){.prepare = fill_50, .act = put_descending, .happening = splits});
}

/* H09: a leaf splits, and its separator makes the root too large */
Test(failing, a_put_that_grows_the_root)
{
    run(&(struct scenario){.prepare = fill_50, .act = put_scattered, .happening = height});
    run(&(struct scenario){.prepare = fill_50, .act = put_descending, .happening = height});
}

/* H09: as above, three levels up */
Test(failing, a_put_that_splits_an_inner_page)
{
    run(&(struct scenario){.prepare = fill_500, .act = put_scattered, .happening = inner_pages});
    run(&(struct scenario){.prepare = fill_500, .act = put_descending, .happening = inner_pages});
}

/* H09: mapped by itself; then one mapping replaces another */
Test(failing, a_put_of_a_large_value)
{
    run(&(struct scenario){.act = put_300000_bytes});
    run(&(struct scenario){.prepare = fill_50, .act = put_300000_bytes});
}

/* Keys that differ in their last byte. */
static void put_long_key(struct world *w, uint64_t step)
{
    static char key[20000];
    uint64_t lsn = UNTOUCHED;
    const struct value *value = next_value(w, 8);
    memset(key, 'x', sizeof(key));
    key[sizeof(key) - 1] = (char)('a' + step);
    if (wrote(w, quire_put(w->tree, key, sizeof(key), value->bytes, 8, 0, &lsn), "put", &lsn))
        oracle_put(w->says, key, sizeof(key), lsn, lsn, value->bytes, 8);
}

/* H09: a separator of 20,000 bytes is needed in the level above; such pages are never merged again */
Test(failing, a_put_of_a_long_key)
{
    run(&(struct scenario){.prepare = fill_50, .act = put_long_key, .shape_varies = true});
}

/* ---- Deletes ---------------------------------------------------------------------------------------------------- */

/* Each key several times: a consolidation keeps the deletion that it is made for, the next one drops it. */
static void delete_ascending(struct world *w, uint64_t step)
{
    world_delete(w, step / 4 % 500);
}

static void delete_descending(struct world *w, uint64_t step)
{
    world_delete(w, 499 - step / 4 % 500);
}

static void delete_scattered(struct world *w, uint64_t step)
{
    world_delete(w, step * 377 % 500);
}

static void delete_absent(struct world *w, uint64_t step)
{
    (void)step;
    for (uint64_t i = 0; i < 12; i++)
        world_delete(w, 1000 + i % 2);
}

/* H09 */
Test(failing, a_delete_of_an_absent_key)
{
    run(&(struct scenario){.prepare = fill_50, .act = delete_absent});
}

/* H09 */
Test(failing, a_delete_that_merges_leaves)
{
    run(&(struct scenario){.prepare = fill_500, .act = delete_ascending, .happening = merges});
    run(&(struct scenario){.prepare = fill_500, .act = delete_descending, .happening = merges});
    run(&(struct scenario){.prepare = fill_500, .act = delete_scattered, .happening = merges});
}

/* H09: the merge of two leaves leaves an inner page underfull */
Test(failing, a_delete_that_merges_inner_pages)
{
    run(&(struct scenario){.prepare = fill_500, .act = delete_ascending, .happening = inner_pages});
    run(&(struct scenario){.prepare = fill_500, .act = delete_descending, .happening = inner_pages});
    run(&(struct scenario){.prepare = fill_500, .act = delete_scattered, .happening = inner_pages});
}

static void fill_500_leave_200(struct world *w)
{
    fill_500(w);
    for (uint64_t i = 200; i < 500; i++)
        world_delete(w, i);
}

/* H09: the root takes the place of its only child */
Test(failing, a_delete_that_lowers_the_tree)
{
    run(&(struct scenario){.prepare = fill_500, .act = delete_ascending, .happening = height});
    run(&(struct scenario){.prepare = fill_500, .act = delete_descending, .happening = height});
    run(&(struct scenario){.prepare = fill_500_leave_200, .act = delete_ascending, .happening = height});
    run(&(struct scenario){.prepare = fill_50, .act = delete_ascending, .happening = height});
    run(&(struct scenario){.prepare = fill_50, .act = delete_scattered, .happening = height});
}

/* ---- Conditional writes ----------------------------------------------------------------------------------------- */

static void world_insert(struct world *w, uint64_t number, size_t size)
{
    char key[16];
    size_t key_size = world_key(w, number, key);
    const struct value *value = next_value(w, size);
    uint64_t lsn = UNTOUCHED;
    int right = world_has(w, key, key_size) ? QUIRE_EXISTS : 0;
    int result = quire_insert(w->tree, key, key_size, value->bytes, size, 0, &lsn);
    if (wrote(w, result, "insert", &lsn))
        oracle_put(w->says, key, key_size, lsn, lsn, value->bytes, size);
    cr_assert(result < 0 || result == right, "insert: %d", result);
}

/* Swaps what is there, or, with `wrong`, something else. */
static void world_swap(struct world *w, uint64_t number, size_t size, bool wrong)
{
    char key[16];
    size_t key_size = world_key(w, number, key);
    const struct value *value = next_value(w, size);
    struct oracle_value present = {0};
    uint64_t lsn = UNTOUCHED;
    bool has = oracle_get(w->says, UINT64_MAX, key, key_size, &present);
    int right = !has ? QUIRE_NOT_FOUND : wrong ? QUIRE_CONFLICT : 0;
    int result = quire_compare_and_swap(w->tree, key, key_size, present.data, wrong ? present.size / 2 : present.size,
                                        value->bytes, size, 0, &lsn);
    if (wrote(w, result, "compare_and_swap", &lsn))
        oracle_put(w->says, key, key_size, lsn, lsn, value->bytes, size);
    cr_assert(result < 0 || result == right, "compare_and_swap: %d", result);
}

static void world_add(struct world *w, uint64_t number, int64_t delta)
{
    char key[16];
    size_t key_size = world_key(w, number, key);
    struct oracle_value present = {0};
    uint64_t lsn = UNTOUCHED;
    int64_t sum = -77;
    int64_t right = 0;
    if (oracle_get(w->says, UINT64_MAX, key, key_size, &present))
        memcpy(&right, present.data, sizeof(right));
    right += delta;
    if (wrote(w, quire_add(w->tree, key, key_size, delta, 0, &sum, &lsn), "add", &lsn))
        oracle_put(w->says, key, key_size, lsn, lsn, &right, sizeof(right));
    cr_assert_eq(sum, lsn == UNTOUCHED ? -77 : right);
}

static void insert_scattered(struct world *w, uint64_t step)
{
    world_insert(w, step * 377 % 1000, 16);
}

static void swap_scattered(struct world *w, uint64_t step)
{
    uint64_t number = step * 377 % 500;
    world_swap(w, number, 40, true);
    world_swap(w, number, 40, false); /* they grow: leaves split */
    world_swap(w, 500 + number, 40, false);
}

static void add_scattered(struct world *w, uint64_t step)
{
    world_add(w, 1000 + step * 377 % 500, (int64_t)step - 10);
}

/* H09 */
Test(failing, an_insert)
{
    run(&(struct scenario){.act = insert_scattered, .happening = splits});
    run(&(struct scenario){.prepare = fill_50, .act = insert_scattered, .happening = splits});
    run(&(struct scenario){.prepare = fill_500, .act = insert_scattered, .happening = inner_pages});
}

/* H09, D01 */
Test(failing, a_compare_and_swap)
{
    run(&(struct scenario){.prepare = fill_50, .act = swap_scattered, .happening = consolidations});
    run(&(struct scenario){.prepare = fill_500, .act = swap_scattered, .happening = splits});
}

/* H09, D08 */
Test(failing, an_addition)
{
    run(&(struct scenario){.act = add_scattered, .happening = consolidations});
    run(&(struct scenario){.prepare = fill_500, .act = add_scattered, .happening = splits});
}

/* ---- Caller versions -------------------------------------------------------------------------------------------- */

static void put_at_scattered(struct world *w, uint64_t step)
{
    world_put_at(w, 1 + step * 7 % 31, step * 377 % 500, 16);
}

static void put_at_one_key(struct world *w, uint64_t step)
{
    world_put_at(w, 1 + step * 7 % 31, 5, 60);
}

static void delete_at_scattered(struct world *w, uint64_t step)
{
    world_delete_at(w, 1 + step * 11 % 31, step * 377 % 500);
}

static void fill_versions(struct world *w)
{
    for (uint64_t i = 0; i < 500; i++)
        put_at_scattered(w, i);
}

/* H09, B01 */
Test(failing, a_put_of_a_version)
{
    run(&(struct scenario){.act = put_at_scattered, .happening = consolidations});
    run(&(struct scenario){.act = put_at_scattered, .happening = height});
    run(&(struct scenario){.prepare = fill_versions, .act = put_at_scattered, .happening = splits});
}

/* H09, B11: a page of one key stays larger than its size */
Test(failing, a_put_of_many_versions_of_one_key)
{
    run(&(struct scenario){.act = put_at_one_key, .happening = consolidations});
    run(&(struct scenario){.prepare = fill_versions, .act = put_at_one_key, .happening = consolidations});
}

/* H09, B03 */
Test(failing, a_delete_of_a_version)
{
    run(&(struct scenario){.prepare = fill_versions, .act = delete_at_scattered, .happening = consolidations});
    run(&(struct scenario){.prepare = fill_versions, .act = delete_at_scattered, .happening = splits});
}

/* ---- What others hold ------------------------------------------------------------------------------------------- */

static void fill_50_take_snapshot(struct world *w)
{
    world_fill(w, 50, 16);
    OK(quire_snapshot(w->db, "test", &w->snapshot));
}

static void fill_500_take_snapshot(struct world *w)
{
    world_fill(w, 500, 16);
    OK(quire_snapshot(w->db, "test", &w->snapshot));
}

/* H09: what the snapshot sees stays, so pages grow and split */
Test(failing, a_put_below_a_snapshot)
{
    run(&(struct scenario){.prepare = fill_50_take_snapshot, .act = put_one_key, .happening = consolidations});
    run(&(struct scenario){.prepare = fill_50_take_snapshot, .act = put_one_key, .happening = splits});
    run(&(struct scenario){.prepare = fill_500_take_snapshot, .act = put_scattered, .happening = splits});
}

/* H09 */
Test(failing, a_delete_below_a_snapshot)
{
    run(&(struct scenario){.prepare = fill_50_take_snapshot, .act = delete_scattered, .happening = consolidations});
    run(&(struct scenario){.prepare = fill_500_take_snapshot, .act = delete_scattered, .happening = splits});
}
