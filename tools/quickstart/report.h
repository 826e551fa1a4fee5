/*
 * What the quickstart shows: a progress bar on a terminal, and a line of a table for each step.
 *
 * Layer: tools. One thread.
 */
#ifndef QUICKSTART_REPORT_H
#define QUICKSTART_REPORT_H

#include <stddef.h>
#include <stdint.h>

/* A step that is under way. */
struct step {
    const char *name;
    uint64_t total;
    uint64_t begin_ns;
    unsigned shown; /* of the bar, in parts of the whole */
};

/* Seconds and rates are those between begin and end. The bar goes to standard error, if that is a terminal. */
void step_begin(struct step *step, const char *name, uint64_t total);
void step_progress(struct step *step, uint64_t done);
/* Prints the step's line: its name, how many `unit`s, how long, how many in a second. unit: NULL = none is named. */
void step_end(struct step *step, uint64_t done, const char *unit);

/* The headings of the lines that step_end prints. */
void report_headings(void);

/* The number with commas between thousands, or bytes in MiB, in one of a few static buffers: good for one printf. */
const char *report_number(uint64_t number);
const char *report_mib(uint64_t bytes);

#endif
