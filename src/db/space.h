/*
 * space.h: a file system with little space left, or none, and one that is slower than its writers.
 *
 * Layer 6. What brings space back is a checkpoint: log, pages and large values go only when one has been made, and it needs space
 * itself. So there has to be enough for it, whatever comes first.
 *
 * SPACE-1  From some size of the store on files are kept for it, and for deletions: FILES-6, STORE-7.
 * SPACE-2  What came to the log since the last checkpoint is kept small beside the space that is left (that reserve counted): at half of
 *          what is allowed one is made, and before log, parts of a record or large values take more than that writers wait for it.
 *          Allowed is a quarter of what is left, since for new records a checkpoint writes about as much; and if all pages could be
 *          written anew, which changed records may ask for, half of what is left beside that.
 * SPACE-3  What log and page store keep only to use it again goes before NO_SPACE is answered.
 * SPACE-4  Nothing is refused for what a file system says of its free space: that may be wrong, or nothing. It makes checkpoints come
 *          early, writers wait, and segments smaller.
 * SPACE-5  Where checkpoints do not keep up with the writers, as on a slow disk, these wait for one when the log that recovery would
 *          read is four times its cap, or 8 MiB if that is more, or three quarters of the segments that it can have: in the same
 *          place, and as long, as for space. But for the last not while the thread that makes checkpoints is still removing files
 *          from before the opening (RECOVER-5).
 *
 * Any thread, outside of sections and slots. Waits: qr_db_wait_space.
 */
#ifndef QR_DB_SPACE_H
#define QR_DB_SPACE_H

#include <stdbool.h>
#include <stdint.h>

struct quire;
struct qr_thread;

#define QR_FIRST_SEGMENT_MOST (UINT64_C(256) << 10)

/* How large the first segments of log and page store are: so that a small file system has room for many. A power of two. */
uint64_t qr_db_first_segment_bytes(struct quire *db);

/* SPACE-1: the page store has its reserve by itself, the log is told. To be called when either has grown; there is a log. */
void qr_db_keep_reserve(struct quire *db);

/* What is left: the reserve, and what else there is as far as the file system says; UINT64_MAX: it does not say. */
uint64_t qr_db_room_bytes(struct quire *db);

/* SPACE-2: whether a checkpoint should be made. */
bool qr_db_space_is_little(struct quire *db);

/* SPACE-2, SPACE-5: whether log and large values should take no more before one was made; there is a thread that makes it, and the last one
 * has not failed. */
bool qr_db_space_is_short(struct quire *db);

/* SPACE-2: in what steps the log is made ready. To be called now and then; there is a log. */
void qr_db_adapt_steps(struct quire *db);

/* When a wait that begins now is over: stall_timeout_ms. */
uint64_t qr_db_stall_end_ns(const struct quire *db);

/* Waits while space is short, until two checkpoints have ended since (of which one has begun since), or the longest stall is over:
 * *end_ns, 0 before the first wait. Not at all for who has a guard, or a hold on the log, which no
 * checkpoint can give up; nor while quire_verify keeps checkpoints waiting. */
void qr_db_wait_space(struct quire *db, struct qr_thread *thread, uint64_t *end_ns);

/* The same if somebody waits already: before a large value. */
void qr_db_join_wait(struct quire *db, struct qr_thread *thread, uint64_t *end_ns);

/* SPACE-3, after NO_SPACE: removes those files, which log and page store have each before it asks for space, but not the other one.
 * Whether there were any: then it may be tried again. Of an opening's leftovers (RECOVER-5) as many as it comes to in that time. */
bool qr_db_give_up_spares(struct quire *db, uint64_t most_ms);

#endif
