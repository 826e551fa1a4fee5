/*
 * An engine for tests of the benchmark: an array of values, and an account of what was asked of it.
 *
 * Layer: bench. One store at a time; keys in the format BENCH_KEY_BIG_ENDIAN, of 8 bytes or more. Every call takes the
 * one lock, so any number of sessions may be used. The account is read, and the faults are set, while no store is open.
 */
#ifndef BENCH_TEST_RECORDER_H
#define BENCH_TEST_RECORDER_H

#include "engine.h"

extern const struct bench_engine test_recorder;

/* What one session did. */
struct test_session_record {
    uint64_t gets;
    uint64_t puts;
    uint64_t dels;
    uint64_t scans;
    uint64_t updates; /* puts of the key that the call before got, with the generation after the one that was got */
    uint64_t choices; /* a hash of the keys that were read or written, in their order */
};

enum { TEST_SESSIONS_MAX = 64 };

struct test_record {
    struct test_session_record sessions[TEST_SESSIONS_MAX]; /* in the order of their ends */
    unsigned session_count;
    unsigned consolidations;
};

extern struct test_record test_record;

enum test_fault {
    TEST_FAULT_NONE,
    TEST_FAULT_MISS,  /* the last key is not found */
    TEST_FAULT_VALUE, /* the last key's value is another key's */
    TEST_FAULT_PUT,   /* puts fail once as many were made as there are keys */
    TEST_FAULT_SLOW   /* a get waits until somebody has put since the session's get before; it fails after 10 s */
};

extern enum test_fault test_fault;

/* Empties the account and sets the fault for the next store. */
void test_recorder_reset(enum test_fault fault);

/* The sum of what all sessions did. */
struct test_session_record test_recorder_total(void);

#endif
