/*
 * The command line of quire-bench: parsing, checking, help.
 *
 * Layer: bench. Every wrong argument is named in one line on standard error.
 */
#include "options.h"

#include "engine.h"
#include "workload.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>

static const char help_text[] =
    "usage: quire-bench [options]\n"
    "Runs workloads in the given order on one store; a fill starts from an empty one. Every read is verified.\n"
    "\n"
    "  --engine NAME         quire (default), lmdb, rocksdb; what was built: --list-engines\n"
    "  --workload A,B,..     fillseq, fillrandom, overwrite, updaterandom, readrandom, readwhilewriting,\n"
    "                        readwhilesaving, readmissing,\n"
    "                        readmany, scan, scan100, mixed, mixed8020, delete, consolidate;\n"
    "                        on stores of their own: groupcommit, logcost, reopen\n"
    "                        (default: fillrandom,readrandom,scan)\n"
    "  --num N               keys (default 1000000)\n"
    "  --ops N               operations of a workload that neither fills nor scans (default: num; scan100: num / 10)\n"
    "  --warmup N            operations of a workload before the measured ones, unmeasured; not of fills, delete and\n"
    "                        consolidate (default 0)\n"
    "  --repeat N            how often a workload is measured; the same exceptions (default 1)\n"
    "  --threads T           threads (default 1); readwhilewriting: readers, beside one that writes; groupcommit: "
    "without\n"
    "                        it 1, 2 and 16 in turn\n"
    "  --rounds R            rounds of a workload that measures things in turn (default 4)\n"
    "  --time-ms M           groupcommit: how long each thing is measured, in all rounds together (default 2000)\n"
    "  --key-size K          bytes of a key (default 16)\n"
    "  --value-size V        bytes of a value (default 100)\n"
    "  --key-format F        be (default): number in 8 bytes, most significant first, then hash bytes;\n"
    "                        decimal: \"user:\" and zero-padded digits; hash: number mixed, keys evenly spread\n"
    "  --dist D              keys chosen uniform (default) or zipf (scrambled, 0.99)\n"
    "  --seed S              seed of everything random (default 1)\n"
    "  --path DIR            where files go, in a fresh directory inside that is removed at the end\n"
    "                        (default: $TMPDIR or /tmp)\n"
    "  --level L             what a put has survived when it returns: off (default; Quire has no files then), process\n"
    "                        or durable; what that is in each engine: bench/README.md\n"
    "  --log-segment N       Quire: bytes of the log's largest segment, a power of two (default: Quire's)\n"
    "  --json                one JSON object for each workload instead of a table\n"
    "  --verify-scan         scans compare every byte of keys and values\n"
    "  --stats               print the engine's own statistics after each workload, on standard error\n"
    "  --no-checkpoint       Quire: the log is kept whole, no checkpoint is made\n"
    "  --no-statistics       Quire: open with disable_statistics, to measure what counting costs\n"
    "  --lmdb-batch N        LMDB: puts and deletes in one write transaction (default: 1000 at level off, else 1)\n"
    "  --list-engines        print the engines that were built, one to a line\n"
    "  --help                this text\n"
    "\n"
    "Exit status: 0 done, 1 an engine failed or answered wrongly, 2 wrong command line.\n";

enum option_code {
    OPTION_ENGINE = 256,
    OPTION_WORKLOAD,
    OPTION_NUM,
    OPTION_OPS,
    OPTION_WARMUP,
    OPTION_REPEAT,
    OPTION_THREADS,
    OPTION_ROUNDS,
    OPTION_TIME_MS,
    OPTION_KEY_SIZE,
    OPTION_VALUE_SIZE,
    OPTION_KEY_FORMAT,
    OPTION_DIST,
    OPTION_SEED,
    OPTION_PATH,
    OPTION_LEVEL,
    OPTION_LOG_SEGMENT,
    OPTION_JSON,
    OPTION_VERIFY_SCAN,
    OPTION_STATS,
    OPTION_NO_CHECKPOINT,
    OPTION_NO_STATISTICS,
    OPTION_CHILD,
    OPTION_LMDB_BATCH,
    OPTION_LIST_ENGINES,
    OPTION_HELP
};

static const struct option long_options[] = {
    {"engine", required_argument, NULL, OPTION_ENGINE},
    {"workload", required_argument, NULL, OPTION_WORKLOAD},
    {"num", required_argument, NULL, OPTION_NUM},
    {"ops", required_argument, NULL, OPTION_OPS},
    {"warmup", required_argument, NULL, OPTION_WARMUP},
    {"repeat", required_argument, NULL, OPTION_REPEAT},
    {"threads", required_argument, NULL, OPTION_THREADS},
    {"rounds", required_argument, NULL, OPTION_ROUNDS},
    {"time-ms", required_argument, NULL, OPTION_TIME_MS},
    {"key-size", required_argument, NULL, OPTION_KEY_SIZE},
    {"value-size", required_argument, NULL, OPTION_VALUE_SIZE},
    {"key-format", required_argument, NULL, OPTION_KEY_FORMAT},
    {"dist", required_argument, NULL, OPTION_DIST},
    {"seed", required_argument, NULL, OPTION_SEED},
    {"path", required_argument, NULL, OPTION_PATH},
    {"level", required_argument, NULL, OPTION_LEVEL},
    {"log-segment", required_argument, NULL, OPTION_LOG_SEGMENT},
    {"json", no_argument, NULL, OPTION_JSON},
    {"verify-scan", no_argument, NULL, OPTION_VERIFY_SCAN},
    {"stats", no_argument, NULL, OPTION_STATS},
    {"no-checkpoint", no_argument, NULL, OPTION_NO_CHECKPOINT},
    {"no-statistics", no_argument, NULL, OPTION_NO_STATISTICS},
    {"child", required_argument, NULL, OPTION_CHILD},
    {"lmdb-batch", required_argument, NULL, OPTION_LMDB_BATCH},
    {"list-engines", no_argument, NULL, OPTION_LIST_ENGINES},
    {"help", no_argument, NULL, OPTION_HELP},
    {NULL, 0, NULL, 0},
};

/* Parses a decimal number in [min, max]. */
static bool parse_number(const char *name, uint64_t min, uint64_t max, uint64_t *ret_number)
{
    char *end;
    unsigned long long number;

    errno = 0;
    number = strtoull(optarg, &end, 10);
    if (errno != 0 || end == optarg || *end != '\0' || *optarg == '-' || number < min || number > max) {
        (void)bench_fail("--%s: \"%s\" is not a number from %llu to %llu", name, optarg, (unsigned long long)min,
                         (unsigned long long)max);
        return false;
    }
    *ret_number = number;
    return true;
}

static bool parse_workloads(const char *list, struct bench_options *options)
{
    char name[32];

    options->workload_count = 0;
    while (*list != '\0') {
        size_t length = strcspn(list, ",");
        const struct bench_workload *workload;

        snprintf(name, sizeof(name), "%.*s", (int)(length < sizeof(name) ? length : sizeof(name)), list);
        workload = bench_workload_find(name);
        if (workload == NULL) {
            (void)bench_fail("--workload: there is no workload \"%s\"", name);
            return false;
        }
        if (options->workload_count == BENCH_MAX_WORKLOADS) {
            (void)bench_fail("--workload: more than %d workloads", BENCH_MAX_WORKLOADS);
            return false;
        }
        options->workloads[options->workload_count++] = workload;
        list += length + (list[length] == ',');
    }
    return options->workload_count > 0 || bench_fail("--workload: the list is empty") == 0;
}

static bool parse_engine(struct bench_options *options)
{
    options->engine = bench_engine_find(optarg);
    return options->engine != NULL || bench_fail("--engine: \"%s\" is unknown, or was not built", optarg) == 0;
}

static bool parse_key_format(struct bench_options *options)
{
    static const char *const names[] = {
        [BENCH_KEY_BIG_ENDIAN] = "be", [BENCH_KEY_DECIMAL] = "decimal", [BENCH_KEY_HASH] = "hash"};

    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(optarg, names[i]) == 0) {
            options->key_format = (enum bench_key_format)i;
            return true;
        }
    return bench_fail("--key-format: \"%s\" is not be, decimal or hash", optarg) == 0;
}

static bool parse_level(struct bench_options *options)
{
    for (enum bench_level level = BENCH_LEVEL_OFF; level <= BENCH_LEVEL_DURABLE; level++)
        if (strcmp(optarg, bench_level_name(level)) == 0) {
            options->level = level;
            return true;
        }
    return bench_fail("--level: \"%s\" is not off, process or durable", optarg) == 0;
}

static bool parse_distribution(struct bench_options *options)
{
    options->zipf = strcmp(optarg, "zipf") == 0;
    return options->zipf || strcmp(optarg, "uniform") == 0 ||
           bench_fail("--dist: \"%s\" is not uniform or zipf", optarg) == 0;
}

static bool parse_one(enum option_code code, struct bench_options *options)
{
    uint64_t number = 0;
    bool good;

    switch (code) {
    case OPTION_ENGINE:
        return parse_engine(options);
    case OPTION_WORKLOAD:
        return parse_workloads(optarg, options);
    case OPTION_NUM:
        return parse_number("num", 1, UINT64_C(1) << 40, &options->num);
    case OPTION_OPS:
        return parse_number("ops", 1, UINT64_C(1) << 50, &options->ops);
    case OPTION_WARMUP:
        return parse_number("warmup", 0, UINT64_C(1) << 50, &options->warmup);
    case OPTION_REPEAT:
        good = parse_number("repeat", 1, 1000, &number);
        options->repeats = (unsigned)number;
        return good;
    case OPTION_THREADS:
        good = parse_number("threads", 1, BENCH_MAX_THREADS, &number);
        options->threads = (unsigned)number;
        options->threads_given = true;
        return good;
    case OPTION_ROUNDS:
        good = parse_number("rounds", 1, 1000, &number);
        options->rounds = (unsigned)number;
        return good;
    case OPTION_TIME_MS:
        return parse_number("time-ms", 1, 1000 * 86400, &options->time_ms);
    case OPTION_KEY_SIZE:
        good = parse_number("key-size", 1, BENCH_MAX_KEY_SIZE_BYTES, &number);
        options->key_size = number;
        return good;
    case OPTION_VALUE_SIZE:
        good = parse_number("value-size", 1, 64 << 20, &number);
        options->value_size = number;
        return good;
    case OPTION_KEY_FORMAT:
        return parse_key_format(options);
    case OPTION_DIST:
        return parse_distribution(options);
    case OPTION_SEED:
        return parse_number("seed", 0, UINT64_MAX, &options->seed);
    case OPTION_LMDB_BATCH:
        good = parse_number("lmdb-batch", 1, 1u << 30, &number);
        options->lmdb_batch = (unsigned)number;
        return good;
    case OPTION_PATH:
        options->path = optarg;
        return true;
    case OPTION_LEVEL:
        return parse_level(options);
    case OPTION_LOG_SEGMENT:
        return parse_number("log-segment", 1, UINT64_MAX, &options->log_segment_bytes);
    case OPTION_JSON:
        options->json = true;
        return true;
    case OPTION_VERIFY_SCAN:
        options->verify_scan = true;
        return true;
    case OPTION_STATS:
        options->stats = true;
        return true;
    case OPTION_NO_CHECKPOINT:
        options->no_checkpoint = true;
        return true;
    case OPTION_NO_STATISTICS:
        options->no_statistics = true;
        return true;
    case OPTION_CHILD:
        options->child = optarg;
        return true;
    case OPTION_LIST_ENGINES:
    case OPTION_HELP:
        break;
    }
    return false;
}

static void set_defaults(struct bench_options *options)
{
    const char *temporary = getenv("TMPDIR");

    *options = (struct bench_options){.num = 1000000, .threads = 1, .key_size = 16, .value_size = 100, .seed = 1};
    options->repeats = 1;
    options->rounds = 4;
    options->time_ms = 2000;
    options->engine = bench_engines[0];
    options->path = temporary != NULL && *temporary != '\0' ? temporary : "/tmp";
    (void)parse_workloads("fillrandom,readrandom,scan", options);
}

/* What only shows when all options are known. */
static bool check_together(const struct bench_options *options)
{
    if (options->engine == NULL)
        return bench_fail("no engine was built") == 0;
    if (!bench_data_key_fits(options->key_format, options->key_size, 2 * options->num))
        return bench_fail("--key-size: keys of %zu bytes in this format cannot tell %llu numbers apart",
                          options->key_size, 2 * (unsigned long long)options->num) == 0;
    if (options->verify_scan && options->value_size < 8)
        return bench_fail("--verify-scan needs values of 8 bytes or more") == 0;
    return true;
}

enum bench_parse bench_options_parse(int argc, char **argv, struct bench_options *ret_options)
{
    int code;

    set_defaults(ret_options);
    ret_options->argument_count = argc;
    ret_options->arguments = argv;
    while ((code = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        if (code == OPTION_HELP) {
            fputs(help_text, stdout);
            return BENCH_PARSE_DONE;
        }
        if (code == OPTION_LIST_ENGINES) {
            for (const struct bench_engine *const *engine = bench_engines; *engine != NULL; engine++)
                printf("%s\n", (*engine)->name);
            return BENCH_PARSE_DONE;
        }
        if (code == '?' || !parse_one((enum option_code)code, ret_options))
            return BENCH_PARSE_WRONG;
    }
    if (optind < argc) {
        (void)bench_fail("unexpected argument \"%s\"", argv[optind]);
        return BENCH_PARSE_WRONG;
    }
    return check_together(ret_options) ? BENCH_PARSE_RUN : BENCH_PARSE_WRONG;
}
