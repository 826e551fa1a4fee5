/*
 * Goal: every counter counts what its name says, gauges show the present state, and both can be printed, subtracted and
 * reset.
 * Method: scripts of known numbers of operations in one thread; comparison with what must be there.
 */
#include "api_tree.h"
#include "base/alloc.h"
#include "db/testing.h"

#include <stdio.h>
#include <time.h>

TestSuite(stats, .init = open_database, .fini = close_database, .timeout = 60);

/* ---- Counters --------------------------------------------------------------------------------------------------- */

/* I01, I05, M20: exact in one thread */
Test(stats, operations_are_counted_exactly)
{
    char value[16];
    size_t size;
    struct quire_stats before = stats_of(db), after, diff = {.struct_size = sizeof(diff)};
    put(tree, "a", "11111");
    put(tree, "b", "22222");
    put(tree, "c", "33333");
    OK(quire_insert(tree, TEXT("d"), TEXT("4"), 0, NULL));
    OK(quire_compare_and_swap(tree, TEXT("d"), TEXT("4"), TEXT("5"), 0, NULL));
    OK(quire_add(tree, TEXT("e"), 1, 0, NULL, NULL));
    OK(quire_delete(tree, TEXT("a"), 0, NULL, NULL));
    OK(quire_delete(tree, TEXT("b"), 0, NULL, NULL));
    OK(quire_get(tree, NULL, TEXT("c"), value, sizeof(value), &size));
    EXPECT(quire_get(tree, NULL, TEXT("a"), value, sizeof(value), &size), QUIRE_NOT_FOUND);
    EXPECT(quire_get(tree, NULL, TEXT("x"), value, sizeof(value), &size), QUIRE_NOT_FOUND);
    after = stats_of(db);
    OK(quire_stats_diff(&after, &before, &diff));
    cr_expect_eq(diff.puts, 3, "%" PRIu64 " puts", diff.puts);
    cr_expect_eq(diff.inserts, 1, "%" PRIu64 " inserts", diff.inserts);
    cr_expect_eq(diff.compare_and_swaps, 1, "%" PRIu64 " swaps", diff.compare_and_swaps);
    cr_expect_eq(diff.adds, 1, "%" PRIu64 " adds", diff.adds);
    cr_expect_eq(diff.deletes, 2, "%" PRIu64 " deletes", diff.deletes);
    cr_expect_eq(diff.gets, 3, "%" PRIu64 " gets", diff.gets);
    cr_expect_eq(diff.gets_not_found, 2, "%" PRIu64 " gets not found", diff.gets_not_found);
    cr_expect_eq(diff.read_bytes, 5, "%" PRIu64 " bytes read", diff.read_bytes);
    cr_expect_eq(diff.conflicts, 0, "%" PRIu64 " conflicts", diff.conflicts);
    cr_expect_eq(diff.errors, 0, "%" PRIu64 " errors", diff.errors);
}

/* I01 */
Test(stats, bytes_written_are_keys_and_values)
{
    uint64_t before = stats_of(db).write_bytes;
    put(tree, "key", "value");
    put(tree, "key", "");
    cr_assert_eq(stats_of(db).write_bytes - before, 3 + 5 + 3);
}

/* I01 */
Test(stats, conflicts_and_errors_are_counted)
{
    struct quire_stats before, after;
    put(tree, "k", "v");
    before = stats_of(db);
    EXPECT(quire_compare_and_swap(tree, TEXT("k"), TEXT("x"), TEXT("y"), 0, NULL), QUIRE_CONFLICT);
    EXPECT(quire_put(tree, TEXT("k"), TEXT("v"), 3, NULL), QUIRE_ERR_INVALID);
    EXPECT(quire_add(tree, TEXT("k"), 1, 0, NULL, NULL), QUIRE_ERR_WRONG_TYPE);
    after = stats_of(db);
    cr_assert_eq(after.conflicts - before.conflicts, 1);
    cr_assert_eq(after.errors - before.errors, 2);
}

/* I01: what quire.h says that errors do not count */
Test(stats, errors_are_those_of_calls_on_the_database)
{
    struct quire *nothing = NULL;
    struct quire_guard guard;
    uint64_t before = stats_of(db).errors;
    EXPECT(quire_put(NULL, TEXT("k"), TEXT("v"), 0, NULL), QUIRE_ERR_INVALID);
    EXPECT(quire_open("/dev/null", NULL, &nothing), QUIRE_ERR_FOREIGN);
    OK(quire_pin(db, NULL, &guard));
    EXPECT(quire_close(db), QUIRE_ERR_BUSY);
    cr_assert_eq(stats_of(db).errors, before);
    EXPECT(quire_maintain(db), QUIRE_ERR_BUSY);
    cr_assert_eq(stats_of(db).errors, before + 1);
    OK(quire_unpin(&guard));
}

/* I01: bytes of values that were not handed out do not count */
Test(stats, bytes_read_are_those_handed_out)
{
    struct quire_tree *versions = open_caller_tree(db, "versions");
    struct quire_guard guard;
    struct quire_value value;
    char buffer[100];
    void *copy;
    size_t size;
    put(tree, "k", "12345");
    OK(quire_put_at(versions, 10, TEXT("k"), TEXT("1234567"), 0, NULL));
    struct quire_stats before = stats_of(db);
    EXPECT(quire_get(tree, NULL, TEXT("k"), buffer, 4, &size), QUIRE_ERR_BUFFER_TOO_SMALL);
    EXPECT(quire_get_at(versions, 10, TEXT("k"), buffer, 6, &size), QUIRE_ERR_BUFFER_TOO_SMALL);
    qr_alloc_fail_after(1);
    EXPECT(quire_get_copy(tree, NULL, TEXT("k"), &copy, &size), QUIRE_ERR_NO_MEMORY);
    OK(quire_set_safe_lsn(versions, 20));
    EXPECT(quire_get_at(versions, 10, TEXT("k"), buffer, sizeof(buffer), &size), QUIRE_ERR_LSN_TOO_OLD);
    OK(quire_pin(db, NULL, &guard));
    EXPECT(quire_guard_get_at(&guard, versions, 10, TEXT("k"), &value), QUIRE_ERR_LSN_TOO_OLD);
    OK(quire_exists(tree, NULL, TEXT("k")));
    struct quire_stats after = stats_of(db);
    cr_assert_eq(after.gets - before.gets, 6);
    cr_assert_eq(after.read_bytes, before.read_bytes, "%" PRIu64 " bytes", after.read_bytes - before.read_bytes);
    OK(quire_get(tree, NULL, TEXT("k"), buffer, 5, &size));
    OK(quire_get_copy(tree, NULL, TEXT("k"), &copy, &size));
    OK(quire_get_at(versions, 20, TEXT("k"), buffer, 7, &size));
    OK(quire_guard_get_at(&guard, versions, 20, TEXT("k"), &value));
    OK(quire_guard_get(&guard, tree, NULL, TEXT("k"), &value));
    cr_assert_eq(stats_of(db).read_bytes - before.read_bytes, 5 + 5 + 7 + 7 + 5);
    quire_free(copy);
    OK(quire_unpin(&guard));
}

/* I01 */
Test(stats, reading_pages_and_many_are_counted)
{
    struct quire_slice keys[4] = {slice("key-000001"), slice("key-000002"), slice("x"), slice("y")};
    struct quire_value values[4];
    int results[4];
    struct quire_guard guard;
    struct quire_pages *pages;
    struct quire_page page;
    uint64_t steps = 0, entries = 0;
    fill(tree, 0, 2000);
    struct quire_stats before = stats_of(db), after;
    OK(quire_pages_open(tree, NULL, &pages));
    for (; quire_pages_next(pages, &page) == 0; steps++)
        entries += page.count;
    OK(quire_pages_close(pages));
    OK(quire_pin(db, NULL, &guard));
    OK(quire_get_many(&guard, tree, NULL, keys, 4, values, results));
    OK(quire_unpin(&guard));
    after = stats_of(db);
    cr_assert_eq(entries, 2000);
    cr_expect_eq(after.entries_read - before.entries_read, 2000);
    cr_expect_eq(after.pages_read - before.pages_read, steps);
    cr_expect_eq(after.get_manys - before.get_manys, 1);
}

/* I05: none is zero after some work */
Test(stats, latencies_are_measured)
{
    char key[16];
    uint64_t value;
    size_t size;
    fill(tree, 0, 20000);
    for (uint64_t i = 0; i < 20000; i++)
        OK(quire_get(tree, NULL, key, numbered(i, key), &value, sizeof(value), &size));
    for (uint64_t i = 0; i < 20000; i++)
        OK(quire_delete(tree, key, numbered(i, key), 0, NULL, NULL));
    struct quire_stats stats = stats_of(db);
    cr_assert(stats.get_latency_mean_ns > 0 && stats.put_latency_mean_ns > 0 && stats.delete_latency_mean_ns > 0,
              "%" PRIu64 " %" PRIu64 " %" PRIu64, stats.get_latency_mean_ns, stats.put_latency_mean_ns,
              stats.delete_latency_mean_ns);
}

/* I08 */
Test(stats, disabled_counters_stay_zero_and_gauges_do_not)
{
    struct quire *silent = NULL;
    struct quire_options options;
    quire_options_init(&options);
    options.disable_statistics = 1;
    OK(quire_open(NULL, &options, &silent));
    struct quire_tree *other = open_tree(silent, NULL);
    fill(other, 0, 1000);
    expect(other, NULL, "absent", NULL);
    struct quire_stats stats = stats_of(silent);
    cr_assert(stats.puts == 0 && stats.gets == 0 && stats.get_latency_mean_ns == 0, "counters moved");
    cr_assert_gt(stats.memory_page_bytes, 0);
    cr_assert_eq(stats.trees, 1);
    OK(quire_close(silent));
}

/* A16, I01 */
Test(stats, consolidations_keep_chains_within_the_limit)
{
    struct quire_tree_options options;
    struct quire_tree *chained = NULL;
    quire_tree_options_init(&options);
    options.page_chain_length = 2;
    OK(quire_tree_open(db, "chained", &options, &chained));
    uint64_t before = stats_of(db).tree_consolidations;
    for (unsigned i = 0; i < 300; i++) {
        put(chained, "k", "v");
        struct quire_stats stats = stats_of(db);
        for (unsigned length = 3; length < 9; length++)
            cr_assert_eq(stats.chain_length[length], 0, "a chain of %u", length);
    }
    cr_assert_geq(stats_of(db).tree_consolidations - before, 300 / 3 - 1);
}

/* I01 */
Test(stats, splits_and_merges_are_counted)
{
    struct quire_tree *small = open_small_tree(db, "small", QUIRE_VERSIONS_ENGINE);
    char key[16];
    fill(small, 0, 3000);
    struct quire_stats full = stats_of(db);
    cr_assert_gt(full.tree_splits, 100);
    cr_assert_geq(full.tree_installs, 3000);
    for (uint64_t i = 0; i < 3000; i++)
        OK(quire_delete(small, key, numbered(i, key), 0, NULL, NULL));
    settle(db);
    cr_assert_gt(stats_of(db).tree_merges, 100);
}

/* ---- Gauges ----------------------------------------------------------------------------------------------------- */

/* I12, G16 */
Test(stats, structure_gauges_show_growth_and_shrinking)
{
    struct quire_tree *small = open_small_tree(db, "small", QUIRE_VERSIONS_ENGINE);
    char key[16];
    struct quire_stats empty = stats_of(db);
    cr_assert_eq(empty.trees, 2);
    cr_assert_eq(empty.height_max, 1);
    fill(small, 0, 5000);
    struct quire_stats full = stats_of(db);
    uint64_t chains = 0;
    for (unsigned i = 0; i < 9; i++)
        chains += full.chain_length[i];
    cr_assert_geq(full.height_max, 3);
    cr_assert_gt(full.pages_leaf, 5000 / 30);
    cr_assert_gt(full.pages_inner, 1);
    cr_assert_eq(chains, full.pages_leaf);
    cr_assert_geq(full.records_live_estimate, 5000);
    for (uint64_t i = 0; i < 5000; i++)
        OK(quire_delete(small, key, numbered(i, key), 0, NULL, NULL));
    settle(db);
    struct quire_stats after = stats_of(db);
    cr_assert_eq(after.height_max, 1, "height %" PRIu64, after.height_max);
    cr_assert_eq(after.pages_leaf, 2, "%" PRIu64 " leaves", after.pages_leaf);
    cr_assert_eq(after.pages_inner, 0, "%" PRIu64 " inner pages", after.pages_inner);
}

/* I12, H09 */
Test(stats, memory_gauges_fit_together)
{
    fill(tree, 0, 20000);
    settle(db);
    struct quire_stats stats = stats_of(db);
    cr_assert_gt(stats.memory_page_bytes, 20000 * 18);
    cr_assert_geq(stats.memory_bytes, stats.memory_page_bytes);
    cr_assert_gt(stats.memory_mapping_bytes, 0);
    cr_assert_eq(stats.memory_retired_bytes, 0);
}

/* I12 */
Test(stats, open_guards_and_iterators_are_shown_with_age_and_tag)
{
    struct quire_guard guard;
    struct quire_pages *pages;
    struct timespec pause = {.tv_nsec = 30000000};
    OK(quire_pin(db, "a tag that is longer than thirty-one bytes", &guard));
    OK(quire_pages_open(tree, NULL, &pages));
    nanosleep(&pause, NULL);
    struct quire_stats stats = stats_of(db);
    cr_assert_eq(stats.guards_open, 1);
    cr_assert_eq(stats.iterators_open, 1);
    cr_assert(stats.oldest_guard_age_ms >= 20 && stats.oldest_guard_age_ms < 30000, "%" PRIu64 " ms",
              stats.oldest_guard_age_ms);
    cr_assert_eq(strncmp(stats.oldest_guard_tag, "a tag that is longer", 20), 0);
    OK(quire_unpin(&guard));
    OK(quire_pages_close(pages));
    stats = stats_of(db);
    cr_assert(stats.guards_open == 0 && stats.iterators_open == 0 && stats.oldest_guard_age_ms == 0, "still open");
}

/* ---- Copies ----------------------------------------------------------------------------------------------------- */

/* I07 */
Test(stats, diff_subtracts_counters_and_keeps_gauges)
{
    struct quire_stats first, second, diff = {.struct_size = sizeof(diff)};
    fill(tree, 0, 10);
    first = stats_of(db);
    fill(tree, 10, 100);
    second = stats_of(db);
    OK(quire_stats_diff(&second, &first, &diff));
    cr_assert_eq(diff.puts, 90);
    cr_assert_eq(diff.trees, second.trees);
    cr_assert_eq(diff.memory_bytes, second.memory_bytes);
    cr_assert_eq(diff.put_latency_mean_ns, second.put_latency_mean_ns);
}

/* I07 */
Test(stats, reset_starts_counters_at_zero)
{
    fill(tree, 0, 100);
    OK(quire_stats_reset(db));
    struct quire_stats stats = stats_of(db);
    cr_assert(stats.puts == 0 && stats.write_bytes == 0 && stats.tree_installs == 0, "%" PRIu64 " puts", stats.puts);
    cr_assert_gt(stats.memory_bytes, 0);
    cr_assert_eq(stats.records_live_estimate, 100);
    fill(tree, 0, 5);
    cr_assert_eq(stats_of(db).puts, 5);
}

/* The number after `name` at the start of a line, whatever stands between them. */
static uint64_t number_in_line(const char *text, const char *name)
{
    for (const char *line = text; line != NULL; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, name, strlen(name)) == 0 && line[strlen(name)] == ' ')
            return strtoull(line + strlen(name), NULL, 10);
    }
    cr_assert(false, "no line with %s", name);
    return 0;
}

/* I07 */
Test(stats, print_as_text_has_a_line_for_each_number)
{
    static char text[65536];
    size_t size = 0;
    fill(tree, 0, 123);
    struct quire_stats stats = stats_of(db);
    OK(quire_stats_print(&stats, QUIRE_FORMAT_TEXT, text, sizeof(text), &size));
    cr_assert_eq(size, strlen(text) + 1);
    cr_assert_eq(number_in_line(text, "puts"), 123);
    cr_assert_eq(number_in_line(text, "memory_bytes"), stats.memory_bytes);
    cr_assert_eq(number_in_line(text, "height_max"), 1);
}

/* I07 */
Test(stats, print_as_json_is_one_object)
{
    static char text[65536];
    size_t size = 0;
    int depth = 0;
    fill(tree, 0, 123);
    struct quire_stats stats = stats_of(db);
    OK(quire_stats_print(&stats, QUIRE_FORMAT_JSON, text, sizeof(text), &size));
    cr_assert_eq(size, strlen(text) + 1);
    cr_assert(text[0] == '{', "starts with '%c'", text[0]);
    for (const char *at = text; *at != 0; at++) {
        depth += (*at == '{') - (*at == '}');
        cr_assert(depth > 0 || strspn(at + 1, " \n") == strlen(at + 1), "something after the object");
    }
    cr_assert_eq(depth, 0);
    const char *puts = strstr(text, "\"puts\":");
    cr_assert_not_null(puts);
    cr_assert_eq(strtoull(puts + 7, NULL, 10), 123);
}

/* I07, B22 */
Test(stats, print_into_a_short_buffer_says_what_is_needed)
{
    struct quire_stats stats = stats_of(db);
    char text[65536] = "untouched";
    size_t size = 0, again = 0;
    EXPECT(quire_stats_print(&stats, QUIRE_FORMAT_TEXT, NULL, 0, &size), QUIRE_ERR_BUFFER_TOO_SMALL);
    cr_assert_gt(size, 100);
    EXPECT(quire_stats_print(&stats, QUIRE_FORMAT_TEXT, text, size - 1, &again), QUIRE_ERR_BUFFER_TOO_SMALL);
    cr_assert_eq(again, size);
    cr_assert_str_eq(text, "untouched");
    OK(quire_stats_print(&stats, QUIRE_FORMAT_TEXT, text, size, &again));
    cr_assert_eq(again, size);
}

/* Bad input: a struct of an older header is not written beyond its end */
Test(stats, stay_within_the_size_that_they_are_given)
{
    struct quire_stats stats, untouched;
    memset(&stats, 0xaa, sizeof(stats));
    memset(&untouched, 0xaa, sizeof(untouched));
    stats.struct_size = offsetof(struct quire_stats, trees);
    fill(tree, 0, 7);
    OK(quire_stats(db, &stats));
    cr_assert_eq(stats.puts, 7);
    cr_assert_eq(memcmp(&stats.trees, &untouched.trees, sizeof(stats) - offsetof(struct quire_stats, trees)), 0);
}

/* Bad input: a struct of a newer header; what this library does not know is zero */
Test(stats, zero_what_a_newer_header_has_more)
{
    struct {
        struct quire_stats stats;
        uint64_t unknown[2];
    } newer;
    memset(&newer, 0xaa, sizeof(newer));
    newer.stats.struct_size = offsetof(__typeof__(newer), unknown[1]);
    fill(tree, 0, 7);
    OK(quire_stats(db, &newer.stats));
    cr_assert_eq(newer.stats.struct_size, offsetof(__typeof__(newer), unknown[1]));
    cr_assert_eq(newer.stats.puts, 7);
    cr_assert_eq(newer.unknown[0], 0);
    cr_assert_eq(newer.unknown[1], 0xaaaaaaaaaaaaaaaa, "written beyond the end");
}

/* I07, bad input: differences of structs of other sizes, in all combinations */
Test(stats, diff_takes_structs_of_other_headers)
{
    struct newer {
        struct quire_stats stats;
        uint64_t unknown;
    } first, second, diff, untouched;
    const size_t sizes[] = {offsetof(struct quire_stats, trees), sizeof(struct quire_stats), sizeof(struct newer)};
    memset(&untouched, 0xaa, sizeof(untouched));
    for (unsigned i = 0; i < 27; i++) {
        memset(&first, 0xaa, sizeof(first));
        memset(&second, 0xaa, sizeof(second));
        memset(&diff, 0xaa, sizeof(diff));
        first.stats.struct_size = sizes[i % 3];
        second.stats.struct_size = sizes[i / 3 % 3];
        diff.stats.struct_size = sizes[i / 9];
        OK(quire_stats(db, &first.stats));
        fill(tree, 0, 9);
        OK(quire_stats(db, &second.stats));
        OK(quire_stats_diff(&second.stats, &first.stats, &diff.stats));
        cr_assert_eq(diff.stats.struct_size, sizes[i / 9]);
        cr_assert_eq(diff.stats.puts, 9);
        if (i / 9 == 0)
            cr_assert_eq(memcmp(&diff.stats.trees, &untouched.stats.trees,
                                sizeof(diff) - offsetof(struct quire_stats, trees)), 0, "written beyond the end");
        else
            cr_assert_eq(diff.stats.trees, i / 3 % 3 == 0 ? 0 : 1, "sizes %u", i);
        cr_assert_eq(diff.unknown, i / 9 == 2 ? 0 : untouched.unknown);
    }
    diff.stats.struct_size = 0;
    EXPECT(quire_stats_diff(&second.stats, &first.stats, &diff.stats), QUIRE_ERR_INVALID);
}

/* I07, bad input */
Test(stats, print_takes_structs_of_other_headers)
{
    static char text[65536], whole[65536];
    struct {
        struct quire_stats stats;
        uint64_t unknown;
    } newer;
    size_t size = 0;
    memset(&newer, 0xaa, sizeof(newer));
    newer.stats.struct_size = sizeof(newer);
    OK(quire_stats(db, &newer.stats));
    OK(quire_stats_print(&newer.stats, QUIRE_FORMAT_TEXT, text, sizeof(text), &size));
    newer.stats.struct_size = sizeof(newer.stats);
    OK(quire_stats_print(&newer.stats, QUIRE_FORMAT_TEXT, whole, sizeof(whole), &size));
    cr_assert_str_eq(text, whole);
    newer.stats.struct_size = offsetof(struct quire_stats, trees);
    memset(&newer.stats.trees, 0xaa, sizeof(newer) - offsetof(struct quire_stats, trees));
    OK(quire_stats_print(&newer.stats, QUIRE_FORMAT_JSON, text, sizeof(text), &size));
    cr_assert_not_null(strstr(text, "\"log_voids\":"));
    cr_assert_null(strstr(text, "\"trees\":"), "a field that the struct does not have");
    cr_assert_eq(text[size - 2], '}');
    newer.stats.struct_size = 0;
    EXPECT(quire_stats_print(&newer.stats, QUIRE_FORMAT_JSON, text, sizeof(text), &size), QUIRE_ERR_INVALID);
}

/* How a tag is printed. */
static void expect_printed(const char *tag, const char *as_text, const char *as_json)
{
    static char text[65536];
    char wanted[256];
    struct quire_guard guard;
    size_t size;
    OK(quire_pin(db, tag, &guard));
    struct quire_stats stats = stats_of(db);
    OK(quire_unpin(&guard));
    OK(quire_stats_print(&stats, QUIRE_FORMAT_TEXT, text, sizeof(text), &size));
    snprintf(wanted, sizeof(wanted), "\noldest_guard_tag %s\n", as_text);
    cr_assert_not_null(strstr(text, wanted), "no line%sin\n%s", wanted, text);
    OK(quire_stats_print(&stats, QUIRE_FORMAT_JSON, text, sizeof(text), &size));
    snprintf(wanted, sizeof(wanted), "\"oldest_guard_tag\":\"%s\",", as_json);
    cr_assert_not_null(strstr(text, wanted), "no %s in\n%s", wanted, text);
}

/* I07: a tag is one line of UTF-8, whatever bytes it has */
Test(stats, print_tags_as_utf8_on_one_line)
{
    expect_printed("plain", "plain", "plain");
    expect_printed("na\xc3\xafve \xe2\x82\xac \xf0\x9f\x98\x80", "na\xc3\xafve \xe2\x82\xac \xf0\x9f\x98\x80",
                   "na\xc3\xafve \xe2\x82\xac \xf0\x9f\x98\x80");
    expect_printed("a\nputs 7\t\x7f\xc2\x85", "a\\u000aputs 7\\u0009\\u007f\\u0085",
                   "a\\u000aputs 7\\u0009\\u007f\\u0085");
    expect_printed("\"\\n\"", "\"\\\\n\"", "\\\"\\\\n\\\"");
    expect_printed("\xff" "a\xc3(\xe2\x82", "\\ufffda\\ufffd(\\ufffd\\ufffd", "\\ufffda\\ufffd(\\ufffd\\ufffd");
    expect_printed("\xc0\xaf\xed\xa0\x80", "\\ufffd\\ufffd\\ufffd\\ufffd\\ufffd", /* too long a form; a surrogate */
                   "\\ufffd\\ufffd\\ufffd\\ufffd\\ufffd");
    expect_printed("123456789012345678901234567890\xc3\xaf", "123456789012345678901234567890\\ufffd",
                   "123456789012345678901234567890\\ufffd"); /* cut at 31 bytes */
}
