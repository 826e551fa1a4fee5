/*
 * Goal: each preset is the set of options that quire.h says, and a database opens and works with it.
 * Method: every field compared with the defaults but for those that the preset names; a store written and read with each.
 */
#include "api_dir.h"

TestSuite(presets, .init = make_root, .fini = remove_root);

static struct quire_options defaults(void)
{
    struct quire_options options;
    quire_options_init(&options);
    return options;
}

static void expect_preset(enum quire_preset preset, struct quire_options right)
{
    struct quire_options options;
    memset(&options, 0xaa, sizeof(options));
    OK(quire_options_preset(&options, preset));
    cr_assert_eq(memcmp(&options, &right, sizeof(options)), 0, "preset %d", (int)preset);
}

/* A14 */
Test(presets, set_what_they_say_and_nothing_else)
{
    struct quire_options right = defaults();
    expect_preset(QUIRE_PRESET_BALANCED, right);
    right.background_threads = 2;
    expect_preset(QUIRE_PRESET_READ_OPTIMIZED, right);
    right = defaults();
    right.level = QUIRE_LEVEL_PROCESS;
    right.sync_period_ms = 1000;
    right.sync_volume_bytes = 268435456;
    expect_preset(QUIRE_PRESET_WRITE_OPTIMIZED, right);
    right = defaults();
    right.memory_limit_bytes = 67108864;
    right.log_segment_bytes = 1048576;
    right.sync_volume_bytes = 4194304;
    expect_preset(QUIRE_PRESET_LOW_MEMORY, right);
    right = defaults();
    right.level = QUIRE_LEVEL_PROCESS;
    right.no_sync_at_close = 1;
    right.log_segment_bytes = 1048576;
    expect_preset(QUIRE_PRESET_DEVELOPMENT, right);
    right = defaults();
    right.level = QUIRE_LEVEL_DURABLE;
    right.sync_period_ms = 10;
    right.sync_volume_bytes = 1048576;
    expect_preset(QUIRE_PRESET_MAX_DURABILITY, right);
}

/* A14: one store, opened with each */
Test(presets, open_a_database_that_works)
{
    for (int preset = QUIRE_PRESET_READ_OPTIMIZED; preset <= QUIRE_PRESET_MAX_DURABILITY; preset++) {
        struct quire_options options, effective = defaults();
        struct quire *db = NULL;
        uint64_t lsn = 0, durable = 0;
        OK(quire_options_preset(&options, preset));
        OK(quire_open(path_of("s"), &options, &db));
        OK(quire_options_get(db, &effective));
        cr_assert_eq(effective.level, options.level == 0 ? QUIRE_LEVEL_DURABLE : options.level);
        struct quire_tree *tree = open_tree(db, "t");
        cr_assert_eq(count_all(tree, NULL), (uint64_t)(preset - 1) * 100);
        for (int i = 0; i < 100; i++) {
            int key = preset * 1000 + i;
            OK(quire_put(tree, &key, sizeof(key), TEXT("v"), 0, &lsn));
        }
        OK(quire_durable_lsn(db, &durable));
        cr_assert(effective.level == QUIRE_LEVEL_PROCESS || durable >= lsn);
        OK(quire_close(db));
    }
}

Test(presets, that_do_not_exist_are_refused)
{
    struct quire_options options, untouched;
    memset(&options, 0xaa, sizeof(options));
    untouched = options;
    EXPECT(quire_options_preset(&options, (enum quire_preset)0), QUIRE_ERR_INVALID);
    EXPECT(quire_options_preset(&options, (enum quire_preset)7), QUIRE_ERR_INVALID);
    EXPECT(quire_options_preset(NULL, QUIRE_PRESET_BALANCED), QUIRE_ERR_INVALID);
    cr_assert_eq(memcmp(&options, &untouched, sizeof(options)), 0);
}
