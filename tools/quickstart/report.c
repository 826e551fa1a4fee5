/*
 * The report of the quickstart: times, a bar, aligned lines.
 *
 * Layer: tools. One thread.
 */
#include "report.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { BAR_PARTS = 40, BUFFERS = 8, BUFFER_BYTES = 32 };

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- Numbers ---------------------------------------------------------------------------------------------------- */

static char *next_buffer(void)
{
    static char buffers[BUFFERS][BUFFER_BYTES];
    static unsigned next;
    return buffers[next++ % BUFFERS];
}

const char *report_number(uint64_t number)
{
    char digits[BUFFER_BYTES];
    char *text = next_buffer();
    char *to = text;
    int count = snprintf(digits, sizeof(digits), "%" PRIu64, number);

    for (int i = 0; i < count; i++) {
        if (i > 0 && (count - i) % 3 == 0)
            *to++ = ',';
        *to++ = digits[i];
    }
    *to = '\0';
    return text;
}

const char *report_mib(uint64_t bytes)
{
    char *text = next_buffer();
    snprintf(text, BUFFER_BYTES, "%.1f MiB", (double)bytes / (1024 * 1024));
    return text;
}

/* ---- Steps ------------------------------------------------------------------------------------------------------ */

static int has_bar(void)
{
    return isatty(STDERR_FILENO);
}

static void draw_bar(const struct step *step)
{
    char bar[BAR_PARTS + 1];
    memset(bar, '.', BAR_PARTS);
    memset(bar, '#', step->shown);
    bar[BAR_PARTS] = '\0';
    fprintf(stderr, "\r  %-44s [%s] %3u %%", step->name, bar, step->shown * 100 / BAR_PARTS);
    fflush(stderr);
}

static void clear_bar(void)
{
    fprintf(stderr, "\r\033[K");
    fflush(stderr);
}

void step_begin(struct step *step, const char *name, uint64_t total)
{
    *step = (struct step){name, total, 0, 0};
    if (has_bar()) {
        fflush(stdout);
        draw_bar(step);
    }
    step->begin_ns = now_ns();
}

void step_progress(struct step *step, uint64_t done)
{
    if (step->total == 0 || done * BAR_PARTS / step->total <= step->shown || !has_bar())
        return;
    step->shown = done < step->total ? (unsigned)(done * BAR_PARTS / step->total) : BAR_PARTS;
    draw_bar(step);
}

void step_end(struct step *step, uint64_t done, const char *unit)
{
    double seconds = (double)(now_ns() - step->begin_ns) * 1e-9;
    double rate = seconds > 0 ? (double)done / seconds : 0;

    if (has_bar())
        clear_bar();
    printf("  %-46s %10s %-8s %8.3f s", step->name, report_number(done), unit != NULL ? unit : "", seconds);
    if (done > 1)
        printf(" %12s/s", report_number((uint64_t)rate));
    putchar('\n');
    fflush(stdout);
}

void report_headings(void)
{
    printf("  %-46s %10s %-8s %10s %14s\n", "step", "number", "", "time", "rate");
}
