/*
 * fuzz.h: what a fuzz target has, and what the targets share.
 *
 * Test programs (fuzz); README.md says how they are run. A target is one file with the three functions below. It is linked with
 * main.c to a program that replays a corpus and mutates it by itself, built by any compiler; and with libFuzzer (-Dfuzz=true).
 *
 * FUZZ-1  The same input does the same: nothing depends on time, addresses, the inputs before, or chance.
 * FUZZ-2  An input leaves nothing: no memory, no open file of the simulated disk.
 */
#ifndef TEST_FUZZ_FUZZ_H
#define TEST_FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/bytes.h"
#include "lib/simdisk.h"

/* ---- What a target has ------------------------------------------------------------------------------------------ */

/* Takes any bytes. What they say may be refused; if it is taken, it has to be right. Always 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* After a mutation: makes sums, and whatever else follows from other bytes, right again, so that what lies behind the look at them
 * is reached. Of bytes of any kind. */
void fuzz_repair(uint8_t *data, size_t size);

/* Calls the sink for each input that the corpus begins with. */
typedef void fuzz_sink(void *context, const char *name, const void *data, size_t size);
void fuzz_seeds(fuzz_sink *sink, void *context);

/* ---- What they share -------------------------------------------------------------------------------------------- */

/* Something does not hold: says what, and ends the process by abort. */
_Noreturn void fuzz_fail(const char *file, int line, const char *condition);
#define FUZZ_CHECK(condition) ((condition) ? (void)0 : fuzz_fail(__FILE__, __LINE__, #condition))

/* At the beginning and at the end of an input (FUZZ-2). disk: NULL, or one that is freed here. */
int64_t fuzz_begin(void);
int64_t fuzz_begin_database(void); /* of an input for which databases are opened: what a thread keeps of them is there before */
void fuzz_end(int64_t begun, struct simdisk *disk);

/* A piece of the input, as far as there is one: copied to `to`, the rest of which becomes zero. */
struct fuzz_input {
    const uint8_t *at;
    size_t left;
};
void fuzz_take(struct fuzz_input *input, void *to, size_t size);
uint64_t fuzz_take_number(struct fuzz_input *input, size_t size); /* little endian, of 1 to 8 bytes */

/* Opens the directory of a simulated disk, and makes a file in it of these bytes, and zeros up to `size_bytes`. */
struct qr_dir *fuzz_open_dir(struct simdisk *disk, const char *path);
void fuzz_make_file(struct qr_dir *dir, const char *name, const void *data, size_t data_size, uint64_t size_bytes);

/* Numbers from a counter, for salts and ids: FUZZ-1. */
int fuzz_random(void *context, void *memory, size_t size);

/* One mutation after another, without libFuzzer; returns the new size, at most `most`. */
size_t fuzz_mutate(uint8_t *data, size_t size, size_t most, uint64_t seed);

/* libFuzzer's, which main.c calls too: a mutation, and in most cases repair. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed);

#endif
