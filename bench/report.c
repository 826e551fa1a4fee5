/*
 * The results of one workload, as a line of JSON or of a table; and the process's memory.
 *
 * Layer: bench. See report.h. Memory is what /proc/self/status calls VmRSS and VmHWM: it includes the
 * pages of mapped files.
 */
#include "report.h"

#include "engine.h"

#include <inttypes.h>

void bench_memory_reset_peak(void)
{
    FILE *file = fopen("/proc/self/clear_refs", "w");

    if (file == NULL)
        return;
    fputs("5\n", file);
    (void)fclose(file);
}

void bench_memory_measure(struct bench_result *result)
{
    char line[256];
    FILE *file = fopen("/proc/self/status", "r");

    if (file == NULL)
        return;
    while (fgets(line, sizeof(line), file) != NULL) {
        unsigned long long kib;
        if (sscanf(line, "VmRSS: %llu", &kib) == 1)
            result->rss_bytes = kib * 1024;
        else if (sscanf(line, "VmHWM: %llu", &kib) == 1)
            result->max_rss_bytes = kib * 1024;
    }
    (void)fclose(file);
}

void bench_report_begin(const struct bench_options *options)
{
    if (options->json)
        return;
    printf("%s %s, %" PRIu64 " keys, %u thread(s), keys of %zu bytes, values of %zu bytes, %s, %s, seed %" PRIu64 "\n",
           options->engine->name, options->engine->version(), options->num, options->threads, options->key_size,
           options->value_size, options->zipf ? "zipf" : "uniform",
           options->level == BENCH_LEVEL_UNSET ? "default level" : bench_level_name(options->level), options->seed);
    printf("%-16s %12s %9s %12s %10s %10s %10s %9s %9s %12s\n", "workload", "ops", "seconds", "ops/s", "p50 ns",
           "p99 ns", "p99.9 ns", "RSS MiB", "peak MiB", "background");
}

void bench_report_extra(struct bench_result *result, const char *name, double value)
{
    if (result->extra_count < BENCH_EXTRAS_MAX)
        result->extras[result->extra_count++] = (struct bench_extra){name, value};
}

static double per_second(const struct bench_result *result)
{
    return result->seconds > 0 ? (double)result->ops / result->seconds : 0;
}

static void report_json(const struct bench_options *options, const struct bench_result *result)
{
    static const char *const formats[] = {
        [BENCH_KEY_BIG_ENDIAN] = "be", [BENCH_KEY_DECIMAL] = "decimal", [BENCH_KEY_HASH] = "hash"};

    printf("{\"engine\":\"%s\",\"engine_version\":\"%s\",\"workload\":\"%s\",\"position\":%u,\"repeat\":%u,",
           options->engine->name, options->engine->version(), result->workload, result->position, result->repeat);
    printf("\"level\":\"%s\",\"threads\":%u,\"num\":%" PRIu64 ",\"ops\":%" PRIu64 ",\"background_ops\":%" PRIu64 ",",
           bench_level_name(result->level), result->threads, options->num, result->ops, result->background_ops);
    printf("\"seconds\":%.6f,\"ops_per_sec\":%.1f,", result->seconds, per_second(result));
    printf("\"p50_ns\":%" PRIu64 ",\"p99_ns\":%" PRIu64 ",\"p999_ns\":%" PRIu64 ",", result->p50_ns, result->p99_ns,
           result->p999_ns);
    printf("\"max_rss_bytes\":%" PRIu64 ",\"rss_bytes\":%" PRIu64 ",\"live_bytes\":%" PRIu64 ",", result->max_rss_bytes,
           result->rss_bytes, result->stored * (options->key_size + options->value_size));
    printf("\"key_size\":%zu,\"value_size\":%zu,\"key_format\":\"%s\",\"dist\":\"%s\",\"seed\":%" PRIu64,
           options->key_size, options->value_size, formats[options->key_format], options->zipf ? "zipf" : "uniform",
           options->seed);
    for (unsigned i = 0; i < result->extra_count; i++)
        printf(",\"%s\":%.6g", result->extras[i].name, result->extras[i].value);
    printf("}\n");
}

static void report_text(const struct bench_result *result)
{
    printf("%-16s %12" PRIu64 " %9.3f %12.0f %10" PRIu64 " %10" PRIu64 " %10" PRIu64 " %9.1f %9.1f %12" PRIu64 "\n",
           result->workload, result->ops, result->seconds, per_second(result), result->p50_ns, result->p99_ns,
           result->p999_ns, (double)result->rss_bytes / 1048576, (double)result->max_rss_bytes / 1048576,
           result->background_ops);
    if (result->extra_count == 0)
        return;
    printf("    level %s, %u thread(s)", bench_level_name(result->level), result->threads);
    for (unsigned i = 0; i < result->extra_count; i++)
        printf(", %s %.6g", result->extras[i].name, result->extras[i].value);
    printf("\n");
}

void bench_report(const struct bench_options *options, const struct bench_result *result)
{
    if (options->json)
        report_json(options, result);
    else
        report_text(result);
    (void)fflush(stdout);
}
