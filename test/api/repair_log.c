/*
 * Goal: of the log repair has what an opening has, of images nothing that an opening would not show (rows F15, I15).
 * Method: frames, segments and summaries of batches changed in place; checkpoints that did not come to their end; stores without a
 *         log; the original opened afterwards, and compared.
 */
#include "repair.h"

#include "base/stop.h"

TestSuite(repair_log, .init = make_root, .fini = remove_root, .timeout = 300);

/* I15: what the log has before the damage is there, and nothing behind it */
Test(repair_log, of_a_damaged_log)
{
    char key[16];
    struct quire *db = open_store("s", QUIRE_CREATE_NEW);
    struct quire_tree *tree = open_tree(db, "t");
    for (uint64_t i = 0; i < 100; i++) OK(quire_put(tree, key, numbered(i, key), "value", 5, 0, NULL));
    abandon(db);
    abandon(open_store("s", QUIRE_OPEN_EXISTING)); /* so that incarnation is over */
    numbered(40, key);
    struct found found = find_bytes("s", "log-", key, 10);
    damage_at(found.file, found.offset);
    EXPECT(try_open("s", QUIRE_OPEN_READ_ONLY), QUIRE_ERR_CORRUPT);
    expect_repair("s", "r", QUIRE_INCOMPLETE);
    cr_assert_eq(lost.logs, 1);
    db = open_store("r", QUIRE_OPEN_EXISTING);
    cr_assert_eq(count_all(open_tree(db, "t"), NULL), 40);
    OK(quire_close(db));
}

static bool is_root(void *context, const struct image *image)
{
    (void)context;
    if (image->kind == ROOT) damage_at(image->file, (image->offset - 64) / 4096 * 4096 + 8); /* the summary of its batch */
    return image->kind == ROOT;
}

enum { DONE = 0x4b, TENTATIVE = 0x2d, VOID = 0x87 }; /* a frame's state, which its checksum does not cover */

/* Changes the state of a key's newest frame, as the end of a process or a loss of power may leave it. */
static void set_state(const char *store, const char *key, int state)
{
    struct found found = find_bytes(store, "log-", key, strlen(key));
    FILE *f = fopen(found.file, "r+b");
    long frame = found.offset / 16 * 16;
    for (;; frame -= 16) {
        fseek(f, frame + 2, SEEK_SET);
        if (fgetc(f) == 2 && fgetc(f) == DONE) break;
    }
    fseek(f, frame + 3, SEEK_SET);
    fputc(state, f);
    fclose(f);
}

/* I15: the condition of an undecided write is that of the end of a process: it names the newest record of its key, or is none */
Test(repair_log, of_undecided_conditional_writes)
{
    struct quire *db = open_still("s", QUIRE_CREATE_NEW);
    struct quire_tree *tree = open_small_tree(db, "small", QUIRE_VERSIONS_ENGINE);
    fill(tree, 0, 300);
    put(tree, "in a leaf", "four A");
    put(tree, "in a leaf too", "five A");
    OK(quire_checkpoint(db));
    put(tree, "refused", "one A");
    OK(quire_compare_and_swap(tree, TEXT("refused"), TEXT("one A"), TEXT("one B"), 0, NULL));
    OK(quire_compare_and_swap(tree, TEXT("refused"), TEXT("one B"), TEXT("one C"), 0, NULL)); /* names what is refused */
    OK(quire_insert(tree, TEXT("absent"), TEXT("two A"), 0, NULL));
    put(tree, "there", "three A");
    OK(quire_compare_and_swap(tree, TEXT("there"), TEXT("three A"), TEXT("three B"), 0, NULL));
    OK(quire_compare_and_swap(tree, TEXT("in a leaf"), TEXT("four A"), TEXT("four B"), 0, NULL));
    OK(quire_delete(tree, TEXT("in a leaf too"), 0, NULL, NULL));
    OK(quire_insert(tree, TEXT("in a leaf too"), TEXT("five B"), 0, NULL));
    put(tree, "over", "six A");
    OK(quire_compare_and_swap(tree, TEXT("over"), TEXT("six A"), TEXT("six B"), 0, NULL));
    put(tree, "over", "six C");
    abandon(db);
    static const char *const undecided[] = {"one B", "one C", "two A", "three B", "four B", "five B", "six B"};
    set_state("s", "one A", VOID);
    for (size_t i = 0; i < QR_ARRAY_COUNT(undecided); i++) set_state("s", undecided[i], TENTATIVE);
    expect_repair("s", "r", 0);
    cr_assert_eq(compare_stores("s", "r"), 300 + 5);
    db = open_store("r", QUIRE_OPEN_EXISTING);
    tree = open_tree(db, "small");
    expect(tree, NULL, "refused", NULL);
    expect(tree, NULL, "absent", "two A");
    expect(tree, NULL, "there", "three B");
    expect(tree, NULL, "in a leaf", "four B");
    expect(tree, NULL, "in a leaf too", "five B");
    expect(tree, NULL, "over", "six C");
    OK(quire_close(db));
}

static struct quire *midst_db; /* of the checkpoint under way, and how often a hook has come by */
static int midst_count;

static void write_behind(const char *name, void *context)
{
    (void)context;
    if (strcmp(name, "checkpoint.bound") != 0 || midst_count++ != 0) return;
    put(open_tree(midst_db, "small"), "key-000100", "of log");
}

/* I15: pages that a checkpoint left behind have their writes in the log, below what it says is durable, and below the max LSN of others */
Test(repair_log, of_pages_that_lag_behind_the_checkpoint)
{
    midst_db = open_still("s", QUIRE_CREATE_NEW);
    struct quire_tree *tree = open_small_tree(midst_db, "small", QUIRE_VERSIONS_ENGINE);
    fill(tree, 0, 2000);
    settle(midst_db);
    OK(quire_checkpoint(midst_db));
    fill(tree, 5000, 5100);
    qr_stop_set_hook(write_behind, NULL);
    OK(quire_checkpoint(midst_db));
    qr_stop_set_hook(NULL, NULL);
    const struct qr_manifest_checkpoint *record = &midst_db->checkpointer.record;
    cr_assert(midst_count > 0 && record->replay_from < record->durable_lsn);
    abandon(midst_db);
    damage_mapping("s");
    expect_repair("s", "r", 0);
    cr_assert_eq(report.log_records, 1);
    undo_damage();
    cr_assert_eq(compare_stores("s", "r"), 2100);
}

/* I15: the header of a segment of the log */
Test(repair_log, of_a_damaged_header_of_the_log)
{
    char file[300];
    struct quire *db = open_still("s", QUIRE_CREATE_NEW);
    struct quire_tree *tree = open_tree(db, "t");
    put(tree, "a", "in a page");
    OK(quire_checkpoint(db));
    put(tree, "b", "in the log");
    abandon(db);
    struct found found = find_bytes("s", "log-", "in the log", 10);
    snprintf(file, sizeof(file), "%s", found.file);
    damage_at(file, 20);
    EXPECT(try_open("s", QUIRE_OPEN_READ_ONLY), QUIRE_ERR_CORRUPT);
    expect_repair("s", "r", QUIRE_INCOMPLETE);
    cr_assert(lost.logs == 1 && lost.ranges + lost.values == 0);
    db = open_store("r", QUIRE_OPEN_EXISTING);
    expect(open_tree(db, "t"), NULL, "a", "in a page");
    expect(open_tree(db, "t"), NULL, "b", NULL);
    OK(quire_close(db));
}

/* I15: images of a checkpoint that did not come to its end, with writes that the loss of power took back; once before the store
 * was opened again, and once after it had a checkpoint of its own */
Test(repair_log, does_not_bring_back_what_power_loss_took)
{
    char key[16];
    struct quire_options options = options_of(QUIRE_CREATE_NEW, QUIRE_LEVEL_PROCESS);
    struct quire *db = NULL;
    options.background_threads = QUIRE_NO_THREADS;
    OK(quire_open(path_of("live"), &options, &db));
    struct quire_tree *tree = open_small_tree(db, "small", QUIRE_VERSIONS_ENGINE);
    fill(tree, 0, 500);
    OK(quire_checkpoint(db));
    put(tree, "marker", "is undecided");
    for (uint64_t i = 0; i < 500; i += 2) OK(quire_put(tree, key, numbered(i, key), "taken back", 10, 0, NULL));
    OK(quire_sync(db));
    shell("cp -a live s");
    OK(quire_checkpoint(db)); /* its record is not in s, its images are */
    shell("cp -a live/page-* s");
    abandon(db);
    set_state("s", "marker", TENTATIVE);
    each_image("s", is_root, NULL);
    expect_repair("s", "r1", 0);
    undo_damage();
    cr_assert_eq(compare_stores("s", "r1"), 500);
    db = open_store("s", QUIRE_OPEN_EXISTING);
    expect(open_tree(db, "small"), NULL, "marker", NULL);
    put(open_tree(db, "small"), "key-000499", "of now");
    OK(quire_checkpoint(db));
    abandon(db);
    each_image("s", is_root, NULL);
    expect_repair("s", "r2", 0);
    undo_damage();
    cr_assert_eq(compare_stores("s", "r2"), 500);
}

/* The root's image, and the summary of its batch, beyond recognition. */
static bool is_root_to_hide(void *context, const struct image *image)
{
    (void)context;
    if (image->kind != ROOT) return false;
    const uint8_t *file = image->bytes - image->offset;
    long at = image->offset / 4096 * 4096;
    while (memcmp(file + at, "QBAT", 4) != 0) at -= 4096;
    damage_at(image->file, at);      /* its magic */
    damage_at(image->file, at + 28); /* the size that its count has */
    damage_at(image->file, image->offset);
    return false;
}

/* I15: the same, where nothing is left that says which batch had the root: then LSNs say what counts */
Test(repair_log, does_not_bring_back_what_power_loss_took_without_a_trace_of_the_root)
{
    char key[16];
    struct quire *db = open_still("live", QUIRE_CREATE_NEW);
    struct quire_tree *tree = open_small_tree(db, "small", QUIRE_VERSIONS_ENGINE);
    fill(tree, 0, 500);
    settle(db);
    OK(quire_checkpoint(db));
    put(tree, "marker", "is undecided");
    for (uint64_t i = 0; i < 500; i += 2) OK(quire_put(tree, key, numbered(i, key), "taken back", 10, 0, NULL));
    OK(quire_sync(db));
    shell("cp -a live s");
    OK(quire_checkpoint(db));
    shell("cp -a live/page-* s");
    abandon(db);
    set_state("s", "marker", TENTATIVE);
    each_image("s", is_root_to_hide, NULL);
    cr_assert_eq(flip_count, 6);
    expect_repair("s", "r", QUIRE_INCOMPLETE); /* nothing is lost here; but nothing says that */
    cr_assert(report.newest_lost == 1 && report.ranges_lost + report.logs_lost == 0);
    undo_damage();
    cr_assert_eq(compare_stores("s", "r"), 500);
}

/* ---- Without a log ---------------------------------------------------------------------------------------------- */

static struct quire *open_unlogged(const char *name)
{
    struct quire_options options = options_of(0, 0);
    struct quire *db = NULL;
    options.background_threads = QUIRE_NO_THREADS;
    options.checkpoint_interval_ms = QUIRE_NO_PERIOD;
    options.disable_log = 1;
    OK(quire_open(path_of(name), &options, &db));
    return db;
}

static void put_large(struct quire_tree *tree, const char *key, int byte)
{
    char value[9000];
    memset(value, byte, sizeof(value));
    OK(quire_put(tree, key, strlen(key), value, sizeof(value), 0, NULL));
}

/* In a checkpoint, after its LSN was chosen: so images of these pages are as of an LSN below their own. */
static void write_in_the_midst(const char *name, void *context)
{
    char key[16];
    (void)context;
    if (strcmp(name, "checkpoint.as_of") != 0 || midst_count++ != 0) return;
    struct quire_tree *tree = open_tree(midst_db, "small"), *caller = open_tree(midst_db, "caller");
    for (uint64_t i = 0; i < 3000; i += 5) OK(quire_put(tree, key, numbered(i, key), "later", 5, 0, NULL));
    for (uint64_t i = 1; i < 3000; i += 5) OK(quire_delete(tree, key, numbered(i, key), 0, NULL, NULL));
    for (uint64_t i = 0; i < 300; i++) OK(quire_put_at(caller, 3, key, numbered(i, key), "later", 5, 0, NULL));
    put_large(tree, "large", 'l');
}

/* A store of which the last checkpoint has the state before what was written in its midst. crashes: it had some before. */
static void make_unlogged(const char *name, bool crashes)
{
    char key[16];
    struct quire *db = open_unlogged(name);
    struct quire_tree *tree = open_small_tree(db, "small", QUIRE_VERSIONS_ENGINE);
    struct quire_tree *caller = open_small_tree(db, "caller", QUIRE_VERSIONS_CALLER);
    fill(tree, 0, 3000);
    for (uint64_t v = 1; v < 3; v++)
        for (uint64_t i = 0; i < 300; i++) OK(quire_put_at(caller, v, key, numbered(i, key), "early", 5, 0, NULL));
    put_large(tree, "large", 'e');
    OK(quire_checkpoint(db));
    for (int i = 0; i < (crashes ? 2 : 1); i++) {
        OK(quire_put(tree, TEXT("round"), i == 0 ? "0" : "1", 1, 0, NULL));
        midst_db = db;
        midst_count = 0;
        qr_stop_set_hook(write_in_the_midst, NULL);
        OK(quire_checkpoint(db));
        qr_stop_set_hook(NULL, NULL);
        cr_assert_gt(midst_count, 0);
        abandon(db);
        if (i != 0 || !crashes) break;
        db = open_unlogged(name);
        tree = open_tree(db, "small");
    }
}

/* F15, I15: what was written in the midst of the checkpoint is not there, and all else is */
static void unlogged(int kind, bool crashes)
{
    make_unlogged("s", crashes);
    cr_assert_gt(damage_kind("s", kind), 0);
    expect_corrupt("s");
    expect_repair("s", "r", 0);
    undo_damage();
    cr_assert_eq(compare_stores("s", "r"), 3000 + 2 + 300);
}

Test(repair_log, of_a_store_without_a_log_whose_mapping_is_damaged) { unlogged(BLOCK, false); }
Test(repair_log, of_a_store_without_a_log_that_crashed_before) { unlogged(BLOCK, true); }
Test(repair_log, of_a_store_without_a_log_with_damaged_nodes) { unlogged(NODE, true); }

/* I15: without the root an image as of an LSN cannot be told from one of a checkpoint that did not come to its end: its keys are lost,
 * and none is wrong */
Test(repair_log, of_a_store_without_a_log_whose_root_is_damaged)
{
    make_unlogged("s", false);
    damage_kind("s", ROOT);
    expect_repair("s", "r", QUIRE_INCOMPLETE);
    cr_assert(lost.ranges > 0 && lost.values + lost.logs + lost.names == 0);
    undo_damage();
    struct quire *a = open_store("s", QUIRE_OPEN_READ_ONLY), *b = open_store("r", QUIRE_OPEN_READ_ONLY);
    struct quire_tree *right = open_tree(a, "small");
    struct cursor c;
    const struct quire_entry *e;
    open_cursor(open_tree(b, "small"), UINT64_MAX, &c);
    while ((e = next_entry(&c)) != NULL) {
        static char value[9000];
        size_t size = 0;
        OK(quire_get(right, NULL, e->key, e->key_size, value, sizeof(value), &size));
        cr_assert(size == e->value_size && memcmp(value, e->value, size) == 0, "'%.*s'", (int)e->key_size, (const char *)e->key);
    }
    quire_pages_close(c.pages);
    OK(quire_close(a));
    OK(quire_close(b));
}

/* I15: a store that was opened with a log and without in turns */
Test(repair_log, of_a_store_with_a_log_in_turns)
{
    make_unlogged("s", true);
    struct quire *db = open_still("s", QUIRE_OPEN_EXISTING);
    struct quire_tree *tree = open_tree(db, "small");
    put(tree, "key-000010", "with a log");
    OK(quire_checkpoint(db));
    put(tree, "key-000011", "in the log");
    abandon(db);
    cr_assert_gt(damage_kind("s", BLOCK), 0);
    expect_repair("s", "r", 0);
    cr_assert_gt(report.log_records, 0);
    undo_damage();
    cr_assert_eq(compare_stores("s", "r"), 3000 + 2 + 300);
}
