/*
 * The quickstart: Quire at work on the package indexes of a Debian machine, with everything that is read checked.
 *
 * Layer: tools, on the public header alone. Next: tools/quickstart.sh, which finds the indexes; doc/example/.
 *
 * One key for each package and version, its paragraph as the value, and a field behind it that tells the revision. A process
 * loads them into a store and is killed in the middle (crash.c); the store is opened again, what had been acknowledged is
 * there, and the rest is loaded. A snapshot is taken, all are loaded again with the field changed: two versions of each key,
 * read in every way that there is. Then half is deleted, the snapshot released, and memory and files are looked at; at
 * last the store is closed, opened once more, compared, verified and removed.
 */
#include "quickstart.h"
#include "report.h"

#include <quire/quire.h>

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BATCH = 16, FIELD_BYTES = 32 };

/* ---- Failures --------------------------------------------------------------------------------------------------- */

void fail(const char *format, ...)
{
    va_list arguments;

    fflush(stdout);
    fprintf(stderr, "\nFAILED: ");
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

void must(int result, const char *what)
{
    struct quire_error_detail detail;

    if (result == 0)
        return;
    quire_error_detail(&detail);
    fail("%s: %s%s%s", what, quire_strerror(result), result < 0 ? ": " : "", result < 0 ? detail.message : "");
}

/* ---- Values ----------------------------------------------------------------------------------------------------- */

static size_t write_field(char field[FIELD_BYTES], unsigned revision)
{
    return (size_t)snprintf(field, FIELD_BYTES, "Quire-Revision: %u\n", revision);
}

void check_value(const struct package *package, unsigned revision, const void *data, size_t size)
{
    char field[FIELD_BYTES];
    size_t field_size = write_field(field, revision);
    const char *bytes = data;

    if (size != package->text_size + field_size || memcmp(bytes, package->text, package->text_size) != 0 ||
        memcmp(bytes + package->text_size, field, field_size) != 0)
        fail("%.*s: the value that was read is not the one of revision %u", (int)package->key_size, package->key,
             revision);
}

static void check_entry(const struct package *package, unsigned revision, const struct quire_entry *entry)
{
    if (entry->key_size != package->key_size || memcmp(entry->key, package->key, package->key_size) != 0)
        fail("%.*s was read where %.*s is next", (int)entry->key_size, (const char *)entry->key,
             (int)package->key_size, package->key);
    check_value(package, revision, entry->value, entry->value_size);
}

void put_package(struct quickstart *q, const struct package *package, unsigned revision)
{
    memcpy(q->buffer, package->text, package->text_size);
    size_t size = package->text_size + write_field(q->buffer + package->text_size, revision);
    must(quire_put(q->tree, package->key, package->key_size, q->buffer, size, 0, NULL), "put");
}

/* ---- Steps ------------------------------------------------------------------------------------------------------ */

static void load(struct quickstart *q, unsigned revision, const char *name)
{
    struct step step;

    step_begin(&step, name, q->packages.count);
    for (size_t i = 0; i < q->packages.count; i++) {
        put_package(q, &q->packages.all[i], revision);
        step_progress(&step, i + 1);
    }
    step_end(&step, q->packages.count, "puts");
}

static void take_snapshot(struct quickstart *q)
{
    struct step step;

    step_begin(&step, "take a snapshot", 1);
    must(quire_snapshot(q->db, "quickstart", &q->snapshot), "take a snapshot");
    step_end(&step, 1, "");
}

static size_t common_divisor(size_t a, size_t b)
{
    while (b != 0) {
        size_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

struct shuffle shuffle_begin(size_t count)
{
    size_t stride = (size_t)((double)count * 0.6180339887) + 1;
    while (common_divisor(stride, count) != 1)
        stride++;
    return (struct shuffle){count, stride, 0};
}

const struct package *shuffle_next(struct quickstart *q, struct shuffle *shuffle)
{
    shuffle->at = (shuffle->at + shuffle->stride) % shuffle->count;
    return q->packages.distinct[shuffle->at];
}

static void read_newest(struct quickstart *q)
{
    struct shuffle shuffle = shuffle_begin(q->packages.distinct_count);
    struct step step;

    step_begin(&step, "read each key, newest, copied", shuffle.count);
    for (size_t i = 0; i < shuffle.count; i++) {
        const struct package *package = shuffle_next(q, &shuffle);
        size_t size = 0;
        must(quire_get(q->tree, NULL, package->key, package->key_size, q->buffer, q->buffer_bytes, &size), "get");
        check_value(package, 2, q->buffer, size);
        step_progress(&step, i + 1);
    }
    step_end(&step, shuffle.count, "gets");
}

static void read_snapshot(struct quickstart *q)
{
    struct shuffle shuffle = shuffle_begin(q->packages.distinct_count);
    struct quire_guard guard;
    struct step step;

    step_begin(&step, "read each key, at the snapshot, in place", shuffle.count);
    must(quire_pin(q->db, "quickstart", &guard), "pin");
    for (size_t i = 0; i < shuffle.count; i++) {
        const struct package *package = shuffle_next(q, &shuffle);
        struct quire_value value;
        must(quire_guard_get(&guard, q->tree, q->snapshot, package->key, package->key_size, &value), "get in place");
        check_value(package, 1, value.data, value.size);
        step_progress(&step, i + 1);
    }
    must(quire_unpin(&guard), "unpin");
    step_end(&step, shuffle.count, "gets");
}

static void read_many(struct quickstart *q)
{
    struct shuffle shuffle = shuffle_begin(q->packages.distinct_count);
    const struct package *packages[BATCH];
    struct quire_slice keys[BATCH];
    struct quire_value values[BATCH];
    int results[BATCH];
    struct quire_guard guard;
    struct step step;

    step_begin(&step, "read each key, 16 at a time, in place", shuffle.count);
    must(quire_pin(q->db, "quickstart", &guard), "pin");
    for (size_t done = 0; done < shuffle.count;) {
        size_t count = shuffle.count - done < BATCH ? shuffle.count - done : BATCH;
        for (size_t i = 0; i < count; i++) {
            packages[i] = shuffle_next(q, &shuffle);
            keys[i] = (struct quire_slice){packages[i]->key, packages[i]->key_size};
        }
        must(quire_get_many(&guard, q->tree, NULL, keys, count, values, results), "get many");
        for (size_t i = 0; i < count; i++) {
            must(results[i], "one of many");
            check_value(packages[i], 2, values[i].data, values[i].size);
        }
        done += count;
        step_progress(&step, done);
    }
    must(quire_unpin(&guard), "unpin");
    step_end(&step, shuffle.count, "gets");
}

/*
 * Walks the pages of a range and compares each entry with the packages [first, first + count), backwards if so asked.
 * packages that are deleted are left out (`every` 2: only each second one, from the first, is there).
 */
static void walk(struct quickstart *q, const char *name, const struct quire_pages_options *options, unsigned revision,
                 size_t first, size_t count, size_t every)
{
    struct quire_pages *pages;
    struct quire_page page;
    struct step step;
    uint64_t page_count = 0;
    size_t seen = 0;
    int result;

    step_begin(&step, name, count);
    must(quire_pages_open(q->tree, options, &pages), "open pages");
    while ((result = quire_pages_next(pages, &page)) == 0) {
        page_count++;
        for (size_t i = 0; i < page.count; i++, seen++) {
            if (seen >= count)
                fail("%s: more than %zu entries", name, count);
            size_t at = options->reverse ? count - 1 - seen : seen;
            check_entry(q->packages.distinct[first + at * every], revision, &page.entries[i]);
        }
        step_progress(&step, seen);
    }
    if (result != QUIRE_END)
        must(result, "next page");
    must(quire_pages_close(pages), "close pages");
    if (seen != count)
        fail("%s: %zu entries instead of %zu", name, seen, count);
    step_end(&step, seen, "entries");
}

static int begins_with(const struct package *package, const char *prefix)
{
    size_t size = strlen(prefix);
    return package->key_size >= size && memcmp(package->key, prefix, size) == 0;
}

/* A prefix is the range from it to the first text that does not begin with it: its last byte that can grow, grown. */
static void walk_prefix(struct quickstart *q)
{
    const struct packages *packages = &q->packages;
    size_t first = 0, last, end_size = strlen(q->prefix);
    struct quire_pages_options options;
    char *end = strdup(q->prefix);
    char name[80];

    if (end == NULL)
        fail("no memory");
    while (first < packages->distinct_count && !begins_with(packages->distinct[first], q->prefix))
        first++;
    for (last = first; last < packages->distinct_count && begins_with(packages->distinct[last], q->prefix);)
        last++;
    while (end_size > 0 && (unsigned char)end[end_size - 1] == 0xff)
        end_size--;
    quire_pages_options_init(&options);
    options.start = (struct quire_slice){q->prefix, strlen(q->prefix)};
    if (end_size > 0) {
        end[end_size - 1]++;
        options.end = (struct quire_slice){end, end_size};
    }
    snprintf(name, sizeof(name), "scan the prefix \"%.20s\", newest, in place", q->prefix);
    walk(q, name, &options, 2, first, last - first, 1);
    free(end);
}

static void walk_all(struct quickstart *q)
{
    struct quire_pages_options options;

    quire_pages_options_init(&options);
    walk(q, "walk all pages, newest, in place", &options, 2, 0, q->packages.distinct_count, 1);
    options.reverse = 1;
    options.snapshot = q->snapshot;
    walk(q, "walk all pages backwards, at the snapshot", &options, 1, 0, q->packages.distinct_count, 1);
}

/* A pointer into a page stays as it is under its guard, while the key is overwritten and deleted. */
static void hold_value(struct quickstart *q)
{
    const struct package *package = q->packages.distinct[q->packages.distinct_count / 2];
    struct quire_guard guard;
    struct quire_value old, newest;
    struct step step;

    step_begin(&step, "hold a value while its key is overwritten", 1);
    must(quire_pin(q->db, "quickstart", &guard), "pin");
    must(quire_guard_get(&guard, q->tree, NULL, package->key, package->key_size, &old), "get in place");
    put_package(q, package, 3);
    must(quire_guard_get(&guard, q->tree, NULL, package->key, package->key_size, &newest), "get in place");
    check_value(package, 3, newest.data, newest.size);
    must(quire_delete(q->tree, package->key, package->key_size, 0, NULL, NULL), "delete");
    if (quire_exists(q->tree, NULL, package->key, package->key_size) != QUIRE_NOT_FOUND)
        fail("%.*s was deleted and is there", (int)package->key_size, package->key);
    check_value(package, 2, old.data, old.size);
    must(quire_unpin(&guard), "unpin");
    put_package(q, package, 2);
    step_end(&step, 1, "value");
}

/* Every second key is deleted. The newest state is the other half; the snapshot still has all of revision 1. */
static void delete_half(struct quickstart *q)
{
    const struct packages *packages = &q->packages;
    struct quire_pages_options options;
    struct step step;
    size_t deleted = 0;

    step_begin(&step, "delete every second key", packages->distinct_count / 2);
    for (size_t i = 1; i < packages->distinct_count; i += 2) {
        const struct package *package = packages->distinct[i];
        int existed = 0;
        must(quire_delete(q->tree, package->key, package->key_size, 0, &existed, NULL), "delete");
        if (!existed)
            fail("%.*s was not there to be deleted", (int)package->key_size, package->key);
        step_progress(&step, ++deleted);
    }
    step_end(&step, deleted, "deletes");
    for (size_t i = 1; i < packages->distinct_count; i += 2) {
        const struct package *package = packages->distinct[i];
        if (quire_exists(q->tree, NULL, package->key, package->key_size) != QUIRE_NOT_FOUND)
            fail("%.*s was deleted and is there", (int)package->key_size, package->key);
    }
    quire_pages_options_init(&options);
    walk(q, "walk what is left", &options, 2, 0, packages->distinct_count - deleted, 2);
    options.snapshot = q->snapshot;
    walk(q, "walk the snapshot: all of it is still there", &options, 1, 0, packages->distinct_count, 1);
}

static void maintain(struct quickstart *q)
{
    struct step step;
    uint64_t slices = 0;
    int result;

    step_begin(&step, "release the snapshot, maintain until all is done", 0);
    must(quire_snapshot_release(q->snapshot), "release the snapshot");
    q->snapshot = NULL;
    while ((result = quire_maintain(q->db)) == QUIRE_MORE)
        slices++;
    must(result, "maintain");
    step_end(&step, slices + 1, "slices");
}

/* Closed in good order: everything is in pages, and opening reads no log. */
static void reopen(struct quickstart *q)
{
    struct quire_pages_options options;
    size_t left = q->packages.distinct_count - q->packages.distinct_count / 2;
    struct step step;

    step_begin(&step, "close the store", 0);
    must(quire_close(q->db), "close");
    step_end(&step, 1, "");
    step_begin(&step, "open it again", 0);
    open_store(q, 1);
    step_end(&step, 1, "");
    quire_pages_options_init(&options);
    walk(q, "walk what is left", &options, 2, 0, left, 2);
    step_begin(&step, "verify all files and pages", 0);
    must(quire_verify(q->db, NULL, NULL), "verify");
    step_end(&step, 1, "");
}

/* ---- The report ------------------------------------------------------------------------------------------------- */

static void take_stats(struct quickstart *q, struct quire_stats *stats)
{
    stats->struct_size = sizeof(*stats);
    must(quire_stats(q->db, stats), "statistics");
}

static void print_gauges(const char *when, const struct quire_stats *stats)
{
    printf("  %-32s %9s %8s %6" PRIu64 " %12s %12s %12s\n", when, report_number(stats->records_live_estimate),
           report_number(stats->pages_leaf), stats->height_max, report_mib(stats->memory_page_bytes),
           report_mib(stats->memory_free_bytes), report_mib(stats->memory_bytes));
}

static void print_stats(const struct quire_stats *loaded, const struct quire_stats *deleted,
                        const struct quire_stats *end, const struct quire_stats *opened)
{
    printf("\n  %-32s %9s %8s %6s %12s %12s %12s\n", "state", "records", "leaves", "height", "in pages", "kept free",
           "memory");
    print_gauges("two versions of each key", loaded);
    print_gauges("half deleted, snapshot open", deleted);
    print_gauges("snapshot released, maintained", end);
    print_gauges("closed, opened again", opened);
    printf("\n  consolidations %s, splits %s, merges %s, lost races %s, versions collected %s\n",
           report_number(end->tree_consolidations), report_number(end->tree_splits), report_number(end->tree_merges),
           report_number(end->tree_install_conflicts + end->tree_consolidation_conflicts + end->tree_split_conflicts +
                         end->tree_merge_conflicts),
           report_number(end->versions_collected));
    printf("  mean of sampled calls: get %s ns, put %s ns, delete %s ns\n", report_number(end->get_latency_mean_ns),
           report_number(end->put_latency_mean_ns), report_number(end->delete_latency_mean_ns));
}

static void run(struct quickstart *q)
{
    struct quire_stats loaded, deleted, end, opened;

    report_headings();
    load_and_crash(q);
    take_snapshot(q);
    load(q, 2, "load them again, a field changed");
    take_stats(q, &loaded);
    read_newest(q);
    read_snapshot(q);
    read_many(q);
    walk_prefix(q);
    walk_all(q);
    hold_value(q);
    delete_half(q);
    take_stats(q, &deleted);
    maintain(q);
    take_stats(q, &end);
    reopen(q);
    take_stats(q, &opened);
    print_stats(&loaded, &deleted, &end, &opened);
    printf("\n  everything that was read was right\n");
}

/* ---- The program ------------------------------------------------------------------------------------------------ */

static void usage(FILE *stream)
{
    fputs("usage: quire-quickstart [--prefix P] FILE...\n"
          "Loads package indexes (FILE: as apt keeps them, not compressed; - = standard input) into a Quire store, is\n"
          "killed in the middle, opens the store again, goes on, reads in every way, deletes half, and reports how long each\n"
          "step took. The store is a new directory in TMPDIR or /tmp, and is removed at the end.\n"
          "  --prefix P   the prefix to scan (default lib)\n"
          "Exit code 0: everything that was read was right; 1: something was not, or a file could not be read.\n",
          stream);
}

void open_store(struct quickstart *q, int existing)
{
    struct quire_options options;
    quire_options_init(&options);
    options.open_mode = existing ? QUIRE_OPEN_EXISTING : QUIRE_OPEN_OR_CREATE;
    options.level = QUIRE_LEVEL_PROCESS;
    must(quire_open(q->path, &options, &q->db), "open");
    must(quire_tree_open(q->db, "packages", NULL, &q->tree), "open the tree");
}

static void make_buffer(struct quickstart *q)
{
    for (size_t i = 0; i < q->packages.count; i++) {
        size_t needed = q->packages.all[i].text_size + FIELD_BYTES;
        if (needed > q->buffer_bytes)
            q->buffer_bytes = needed;
    }
    q->buffer = malloc(q->buffer_bytes);
    if (q->buffer == NULL)
        fail("no memory");
}

/* A directory of its own for the store: removed with it, and by nobody if something was not right. */
static char *make_directory(void)
{
    const char *parent = getenv("TMPDIR");
    char *path = NULL;
    if (parent == NULL || parent[0] == '\0')
        parent = "/tmp";
    if (asprintf(&path, "%s/quire-quickstart-store.XXXXXX", parent) < 0 || mkdtemp(path) == NULL)
        fail("a directory for the store in %s", parent);
    return path;
}

int main(int argc, char **argv)
{
    struct quickstart q = {.prefix = "lib"};
    int first = 1;

    for (; first < argc && strncmp(argv[first], "--", 2) == 0; first++) {
        if (strcmp(argv[first], "--help") == 0) {
            usage(stdout);
            return 0;
        }
        if (strcmp(argv[first], "--prefix") != 0 || first + 1 >= argc)
            break;
        q.prefix = argv[++first];
    }
    if (first >= argc || strncmp(argv[first], "--", 2) == 0) {
        usage(stderr);
        return 2;
    }
    if (packages_read(argv + first, (size_t)(argc - first), &q.packages) != 0)
        return 1;

    char *path = make_directory();
    q.path = path;
    printf("Quire %s, one thread, in %s; each write survives the death of the process when its call returns (PROCESS).\n", quire_version(),
           path);
    printf("%s index%s: %s paragraphs, %s different keys, %s.\n\n",
           report_number(q.packages.index_count), q.packages.index_count == 1 ? "" : "es",
           report_number(q.packages.count), report_number(q.packages.distinct_count),
           report_mib(q.packages.text_bytes));
    make_buffer(&q);
    run(&q);
    must(quire_close(q.db), "close");
    must(quire_destroy(path), "remove the store");
    free(path);
    free(q.buffer);
    packages_free(&q.packages);
    return 0;
}
