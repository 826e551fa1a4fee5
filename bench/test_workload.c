/*
 * Goal: each workload does the operations that its name promises, as many as were asked for, and notices wrong answers.
 * Method: the runner runs lists of workloads on an engine that records what is asked of it, and that can be made to
 *         answer wrongly. `test_workload [seed]`; without one the seed is 1.
 *
 * Layer: bench. The runner starts threads.
 */
#include "check.h"
#include "runner.h"
#include "test_recorder.h"
#include "workload.h"

static struct bench_options some_options(void)
{
    const char *temporary = getenv("TMPDIR");

    return (struct bench_options){.engine = &test_recorder,
                                  .num = 100,
                                  .ops = 10000,
                                  .repeats = 1,
                                  .rounds = 2,
                                  .time_ms = 20,
                                  .threads = 1,
                                  .key_size = 16,
                                  .value_size = 20,
                                  .seed = check_seed,
                                  .path = temporary != NULL && *temporary != '\0' ? temporary : "/tmp"};
}

/* Runs fillrandom and this workload; what the runner answers. */
static int run_after_fill(const char *workload, struct bench_options options, enum test_fault fault)
{
    options.workloads[0] = bench_workload_find("fillrandom");
    options.workloads[1] = bench_workload_find(workload);
    options.workload_count = 2;
    if (options.workloads[1] == NULL)
        return bench_fail("there is no workload \"%s\"", workload);
    test_recorder_reset(fault);
    return bench_run_all(&options);
}

static void mixed_work_has_its_share_of_gets(const char *workload, unsigned percent)
{
    const struct bench_options options = some_options();
    struct test_session_record total;
    uint64_t puts;

    check(run_after_fill(workload, options, TEST_FAULT_NONE) == 0, "mixed work is done, percent", percent);
    total = test_recorder_total();
    puts = total.puts - options.num;
    check(total.gets + puts == options.ops, "gets and puts of mixed work are its operations", total.gets + puts);
    /* Four standard deviations of 10000 choices are 2 % at most. */
    check(total.gets > options.ops * (percent - 2) / 100 && total.gets < options.ops * (percent + 2) / 100,
          "share of gets in mixed work", total.gets);
}

static void an_update_writes_the_next_generation_of_what_it_read(unsigned threads)
{
    struct bench_options options = some_options();
    struct test_session_record total;

    options.threads = threads;
    check(run_after_fill("updaterandom", options, TEST_FAULT_NONE) == 0, "updates are done, threads", threads);
    total = test_recorder_total();
    check(total.gets == options.ops, "an update gets once", total.gets);
    check(total.puts - options.num == options.ops, "an update puts once", total.puts);
    check(total.updates == options.ops, "an update writes the next generation", total.updates);
}

/* A slow engine's gets wait for puts, so they end only if somebody else puts without pause. */
static void reads_run_beside_writes_until_they_are_done(unsigned threads)
{
    struct bench_options options = some_options();
    const struct test_session_record *sessions = test_record.sessions;
    const struct test_session_record *writer = &sessions[2 * threads];
    uint64_t gets = 0;

    options.threads = threads;
    options.ops = 300;
    check(run_after_fill("readwhilewriting", options, TEST_FAULT_SLOW) == 0, "reads beside writes, threads", threads);
    check(test_record.session_count == 2 * threads + 1, "sessions that fill, that read, and one that writes", threads);
    for (unsigned i = threads; i < 2 * threads; i++) {
        check(sessions[i].gets > 0 && sessions[i].puts == 0, "a reader reads only", i);
        gets += sessions[i].gets;
    }
    check(gets == options.ops, "all readers together do the operations", gets);
    check(writer->gets == 0, "the writer writes only, and ends last", writer->gets);
    check(writer->puts >= options.ops / threads - 1, "the writer goes on until the readers end", writer->puts);
}

static void a_failed_put_fails_the_run(void)
{
    static const char *const writers[] = {"overwrite", "mixed", "mixed8020", "updaterandom", "readwhilewriting"};

    for (size_t i = 0; i < sizeof(writers) / sizeof(writers[0]); i++)
        check(run_after_fill(writers[i], some_options(), TEST_FAULT_PUT) != 0, "a failed put is noticed, workload", i);
}

/* What fillrandom and this workload ask of the engine, without and with a warm-up of 300 and three repeats. */
static void counts_with_warm_up_and_repeats(const char *workload, uint64_t (*count)(void), uint64_t once,
                                            uint64_t warm_and_thrice)
{
    struct bench_options options = some_options();

    options.ops = 1000;
    options.threads = 2;
    check(run_after_fill(workload, options, TEST_FAULT_NONE) == 0, workload, 1);
    check(count() == once, workload, count());
    options.warmup = 300;
    options.repeats = 3;
    check(run_after_fill(workload, options, TEST_FAULT_NONE) == 0, workload, 3);
    check(count() == warm_and_thrice, workload, count());
}

static uint64_t count_gets(void)
{
    return test_recorder_total().gets;
}

static uint64_t count_puts(void)
{
    return test_recorder_total().puts;
}

static uint64_t count_dels(void)
{
    return test_recorder_total().dels;
}

static uint64_t count_scans(void)
{
    return test_recorder_total().scans;
}

static uint64_t count_consolidations(void)
{
    return test_record.consolidations;
}

/* 100 keys are filled in by 100 puts, once; the first workload that only reads after that is preceded by a scan. */
static void only_what_leaves_the_keys_is_warmed_up_and_repeated(void)
{
    counts_with_warm_up_and_repeats("readrandom", count_gets, 1000, 300 + 3 * 1000);
    counts_with_warm_up_and_repeats("readmissing", count_gets, 1000, 300 + 3 * 1000);
    counts_with_warm_up_and_repeats("readwhilewriting", count_gets, 1000, 300 + 3 * 1000);
    counts_with_warm_up_and_repeats("updaterandom", count_gets, 1000, 300 + 3 * 1000);
    counts_with_warm_up_and_repeats("updaterandom", count_puts, 100 + 1000, 100 + 300 + 3 * 1000);
    counts_with_warm_up_and_repeats("overwrite", count_puts, 100 + 1000, 100 + 300 + 3 * 1000);
    counts_with_warm_up_and_repeats("scan100", count_scans, 1 + 1000, 1 + 300 + 3 * 1000);
    /* Each of two threads makes 10 passes; to warm up, 300 entries are one and a half passes of both: one. */
    counts_with_warm_up_and_repeats("scan", count_scans, 1 + 2 * 10, 1 + 2 * 1 + 3 * 2 * 10);
    counts_with_warm_up_and_repeats("fillrandom", count_puts, 2 * 100, 2 * 100);
    counts_with_warm_up_and_repeats("delete", count_dels, 100, 100);
    counts_with_warm_up_and_repeats("consolidate", count_consolidations, 1, 1);
}

/* The sessions of one run of each: fill, warm-up, repeats. */
static void runs_differ_and_the_same_seed_repeats_them(void)
{
    struct bench_options options = some_options();
    struct test_record first;

    options.warmup = options.ops;
    options.repeats = 4;
    check(run_after_fill("overwrite", options, TEST_FAULT_NONE) == 0, "overwrite", 0);
    first = test_record;
    check(first.session_count == 1 + 1 + 4, "a session for each run", first.session_count);
    for (unsigned i = 0; i < first.session_count; i++)
        for (unsigned k = 0; k < i; k++)
            check(first.sessions[i].choices != first.sessions[k].choices, "every run makes its own choices", i);
    check(run_after_fill("overwrite", options, TEST_FAULT_NONE) == 0, "overwrite", 1);
    check(memcmp(&first, &test_record, sizeof(first)) == 0, "the same seed makes the same choices", 0);
    options.seed++;
    check(run_after_fill("overwrite", options, TEST_FAULT_NONE) == 0, "overwrite", 2);
    check(first.sessions[1].choices != test_record.sessions[1].choices, "another seed makes others", 0);
}

/* Each refused answer prints its reason; that is part of what is tested. */
static void a_wrong_answer_fails_the_run(void)
{
    static const char *const readers[] = {"readrandom", "readmany",     "mixed",
                                          "mixed8020",  "updaterandom", "readwhilewriting"};
    const struct bench_options options = some_options();

    for (size_t i = 0; i < sizeof(readers) / sizeof(readers[0]); i++) {
        check(run_after_fill(readers[i], options, TEST_FAULT_NONE) == 0, "right answers are accepted, workload", i);
        check(run_after_fill(readers[i], options, TEST_FAULT_MISS) != 0, "a missing key is noticed, workload", i);
        check(run_after_fill(readers[i], options, TEST_FAULT_VALUE) != 0, "a wrong value is noticed, workload", i);
    }
}

static int run_alone(const char *workload, struct bench_options options)
{
    options.workloads[0] = bench_workload_find(workload);
    options.workload_count = 1;
    if (options.workloads[0] == NULL)
        return bench_fail("there is no workload \"%s\"", workload);
    test_recorder_reset(TEST_FAULT_NONE);
    return bench_run_all(&options);
}

/* Two rounds; sessions: of 1, 2 and 16 threads, or of as many as were asked for. */
static void threads_commit_in_groups_of_1_2_and_16(void)
{
    struct bench_options options = some_options();

    check(run_alone("groupcommit", options) == 0, "group commit is measured", 0);
    check(test_record.session_count == 2 * (1 + 2 + 16), "as many sessions as threads", test_record.session_count);
    for (unsigned i = 0; i < test_record.session_count; i++)
        check(test_record.sessions[i].puts > 0, "every thread commits", i);
    options.threads = 3;
    options.threads_given = true;
    check(run_alone("groupcommit", options) == 0, "group commit of 3 is measured", 0);
    check(test_record.session_count == 2 * 3, "as many sessions as --threads", test_record.session_count);
}

/* Two rounds of a fill and an overwriting on two stores. */
static void both_sides_of_a_comparison_get_the_same_keys(void)
{
    struct bench_options options = some_options();
    const struct test_session_record *sessions = test_record.sessions;

    options.ops = 500;
    check(run_alone("logcost", options) == 0, "the cost of a log is measured", 0);
    check(test_record.session_count == 2 * 2 * 2, "a session for each run", test_record.session_count);
    for (unsigned i = 0; i < test_record.session_count; i++)
        check(sessions[i].puts == (i % 2 == 0 ? options.num : options.ops), "a fill, then an overwriting", i);
    for (unsigned round = 0; round < 2; round++)
        for (unsigned phase = 0; phase < 2; phase++)
            check(sessions[4 * round + phase].choices == sessions[4 * round + 2 + phase].choices,
                  "both stores get the same keys in the same order", round);
    check(sessions[1].choices != sessions[5].choices, "another round gets others", 0);
    options.level = BENCH_LEVEL_OFF;
    check(run_alone("logcost", options) != 0, "a comparison of off with off is refused", 0);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    mixed_work_has_its_share_of_gets("mixed", 50);
    mixed_work_has_its_share_of_gets("mixed8020", 80);
    an_update_writes_the_next_generation_of_what_it_read(1);
    an_update_writes_the_next_generation_of_what_it_read(3);
    for (unsigned threads = 1; threads <= 3; threads++)
        reads_run_beside_writes_until_they_are_done(threads);
    only_what_leaves_the_keys_is_warmed_up_and_repeated();
    runs_differ_and_the_same_seed_repeats_them();
    a_failed_put_fails_the_run();
    a_wrong_answer_fails_the_run();
    threads_commit_in_groups_of_1_2_and_16();
    both_sides_of_a_comparison_get_the_same_keys();
    return check_end();
}
