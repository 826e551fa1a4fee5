/*
 * uring.c: the disk of posix.c with rings for transfers of several parts.
 *
 * Layer 1. A transfer of one part is a system call like any other. A larger one takes a ring for itself, keeps it
 * filled until all parts are done, and gives it back. Rings are made when they are first needed, the first one at open
 * as the probe.
 *
 * URING-1  A part that the kernel has in hand is waited for, whatever else fails: it uses the caller's memory.
 * URING-2  What a ring did not take, posix.c runs: nobody learns that a ring could not be made or failed.
 * URING-3  A ring's fields are its holder's, who has its mutex; but for the two counts, which anybody may read.
 *
 * What waits: a transfer for its parts; if all rings are taken, for the end of another transfer, before its own begins.
 * The fields of struct io_uring are shared with the parent after fork: a child must not come here (disk.h).
 *
 * ThreadSanitizer does not see what the kernel does: an edge from the submission of a part to its completion stands for
 * it.
 */
#include "os/posix.h"

#include "base/alloc.h"

#ifdef QR_URING

#include <errno.h>
#include <liburing.h>
#include <stdatomic.h>

#include "os/thread.h"

#if defined(__SANITIZE_THREAD__)
#define QR_URING_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define QR_URING_TSAN 1
#endif
#endif

#ifdef QR_URING_TSAN
#include <sanitizer/tsan_interface.h>
#endif

enum {
    RINGS = 4,      /* transfers that run at once */
    RING_DEPTH = 64 /* parts of one that are in hand at once */
};

enum ring_state { RING_NOT_MADE, RING_READY, RING_GIVEN_UP };

struct ring {
    QR_CACHE_ALIGNED pthread_mutex_t taken;
    enum ring_state state;
    struct io_uring uring;
    _Atomic uint64_t operations;
    _Atomic uint32_t depth_max;
};

struct uring_disk {
    struct qr_disk disk;
    struct qr_disk_ops ops; /* those of posix.c but for two */
    _Atomic uint32_t turn;
    struct ring rings[RINGS];
};

static struct uring_disk *uring_disk(struct qr_disk *disk)
{
    return QR_CONTAINER_OF(disk, struct uring_disk, disk);
}

static void tell_submitted(struct qr_io *io)
{
#ifdef QR_URING_TSAN
    __tsan_release(io);
#else
    (void)io;
#endif
}

static void tell_completed(struct qr_io *io)
{
#ifdef QR_URING_TSAN
    __tsan_acquire(io);
#else
    (void)io;
#endif
}

/* ---- Rings ------------------------------------------------------------------------------------------------------ */

/* The kernel may let rings be made and not used. */
static bool does_nothing(struct io_uring *uring)
{
    struct io_uring_cqe *cqe;
    io_uring_prep_nop(io_uring_get_sqe(uring));
    if (io_uring_submit_and_wait(uring, 1) != 1 || io_uring_peek_cqe(uring, &cqe) != 0)
        return false;
    bool done = cqe->res == 0;
    io_uring_cqe_seen(uring, cqe);
    return done;
}

static bool has_operations(struct io_uring *uring)
{
    struct io_uring_probe *probe = io_uring_get_probe_ring(uring);
    if (probe == NULL)
        return false;
    bool has = io_uring_opcode_supported(probe, IORING_OP_READ) && io_uring_opcode_supported(probe, IORING_OP_WRITE) &&
               io_uring_opcode_supported(probe, IORING_OP_FSYNC);
    io_uring_free_probe(probe);
    return has;
}

/* The holder's. What cannot be made once is not tried again. */
static bool is_ready(struct ring *ring)
{
    if (ring->state != RING_NOT_MADE)
        return ring->state == RING_READY;
    ring->state = RING_GIVEN_UP;
    if (qr_alloc_must_fail() || io_uring_queue_init(RING_DEPTH, &ring->uring, 0) != 0)
        return false;
    if (has_operations(&ring->uring) && does_nothing(&ring->uring))
        ring->state = RING_READY;
    else
        io_uring_queue_exit(&ring->uring);
    return ring->state == RING_READY;
}

/* After an error: of want of memory, the next transfer tries again. */
static void drop_ring(struct ring *ring, int error)
{
    io_uring_queue_exit(&ring->uring);
    ring->state = error == -EAGAIN || error == -EBUSY || error == -ENOMEM ? RING_NOT_MADE : RING_GIVEN_UP;
}

/* The first that is free, so that no more are made than transfers run at once; else one of them in turn, when it is. */
static struct ring *take_ring(struct uring_disk *disk)
{
    for (uint32_t i = 0; i < RINGS; i++) {
        if (pthread_mutex_trylock(&disk->rings[i].taken) == 0)
            return &disk->rings[i];
    }
    /* relaxed: any ring will do */
    uint32_t turn = atomic_fetch_add_explicit(&disk->turn, 1, memory_order_relaxed);
    struct ring *ring = &disk->rings[turn % RINGS];
    pthread_mutex_lock(&ring->taken);
    return ring;
}

/* ---- One transfer ----------------------------------------------------------------------------------------------- */

#define QUEUED INT64_MIN /* the result of a part until it completes */

struct transfer {
    struct ring *ring;
    struct qr_io *ios;
    uint32_t count;
    uint32_t next;  /* the first that is not in the submission queue yet */
    uint32_t ready; /* in the queue or in the kernel's hand */
};

static void prepare(struct io_uring_sqe *sqe, struct qr_io *io)
{
    int fd = qr_posix_file(io->file)->fd;
    switch (io->kind) {
    case QR_IO_READ:
        io_uring_prep_read(sqe, fd, io->memory, io->size, io->offset);
        break;
    case QR_IO_WRITE:
        io_uring_prep_write(sqe, fd, io->memory, io->size, io->offset);
        break;
    case QR_IO_SYNC:
        io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
        break;
    }
    io_uring_sqe_set_data(sqe, io);
}

/* DISK-4: the kernel would signal one of its workers, that is, the process. And an offset of -1 has a meaning of its
 * own. */
static int check_range(const struct qr_io *io)
{
    if (io->kind == QR_IO_SYNC)
        return 0;
    if (io->offset > INT64_MAX - (uint64_t)io->size)
        return -EINVAL;
    return io->kind == QR_IO_WRITE ? qr_posix_limit(io->offset + io->size) : 0;
}

static void fill_queue(struct transfer *transfer)
{
    while (transfer->next < transfer->count && transfer->ready < RING_DEPTH) {
        struct qr_io *io = &transfer->ios[transfer->next];
        io->result = check_range(io);
        if (io->result == 0) {
            struct io_uring_sqe *sqe = io_uring_get_sqe(&transfer->ring->uring);
            if (sqe == NULL)
                return; /* the kernel did not take all of the queue the last time */
            prepare(sqe, io);
            io->result = QUEUED;
            tell_submitted(io);
            transfer->ready++;
        }
        transfer->next++;
    }
}

static void complete(struct qr_io *io, int result)
{
    tell_completed(io);
    io->result = result;
    if (result == -EAGAIN)
        qr_posix_run(io); /* a device that the ring will not wait for */
}

static void reap(struct transfer *transfer)
{
    struct io_uring_cqe *cqe;
    while (io_uring_peek_cqe(&transfer->ring->uring, &cqe) == 0) {
        struct qr_io *io = io_uring_cqe_get_data(cqe);
        int result = cqe->res;
        io_uring_cqe_seen(&transfer->ring->uring, cqe);
        transfer->ready--;
        complete(io, result);
    }
}

static uint32_t in_kernel(const struct transfer *transfer)
{
    return transfer->ready - io_uring_sq_ready(&transfer->ring->uring);
}

static void count_operations(struct transfer *transfer, uint32_t submitted)
{
    struct ring *ring = transfer->ring;
    /* relaxed: statistics; only the holder writes them */
    uint64_t operations = atomic_load_explicit(&ring->operations, memory_order_relaxed);
    /* relaxed: as above */
    atomic_store_explicit(&ring->operations, operations + submitted, memory_order_relaxed);
    /* relaxed: as above */
    if (in_kernel(transfer) > atomic_load_explicit(&ring->depth_max, memory_order_relaxed))
        /* relaxed: as above */
        atomic_store_explicit(&ring->depth_max, in_kernel(transfer), memory_order_relaxed);
}

/*
 * Submits what is in the queue and waits: for all parts if there are no more to come, else until half of the ring is
 * free again. -EINTR, and -EAGAIN or -EBUSY while the kernel has parts in hand, mean to come again.
 */
static int submit_and_wait(struct transfer *transfer)
{
    bool last = transfer->next == transfer->count;
    uint32_t half = transfer->ready / 2 + 1;
    int answer = io_uring_submit_and_wait(&transfer->ring->uring, last ? transfer->ready : half);
    if (answer >= 0) {
        count_operations(transfer, (uint32_t)answer);
        return 0;
    }
    if (answer == -EINTR)
        return 0;
    if ((answer == -EAGAIN || answer == -EBUSY) && in_kernel(transfer) != 0) {
        qr_thread_yield();
        return 0;
    }
    return answer;
}

/* After an error that stays: waits for what the kernel has, which needs no call to the ring (URING-1), then runs the
 * rest. */
static void finish_without(struct transfer *transfer, int error)
{
    while (in_kernel(transfer) != 0) {
        qr_sleep_us(50);
        reap(transfer);
    }
    for (uint32_t i = 0; i < transfer->count; i++) {
        if (i >= transfer->next || transfer->ios[i].result == QUEUED)
            qr_posix_run(&transfer->ios[i]);
    }
    drop_ring(transfer->ring, error);
}

static void run(struct transfer *transfer)
{
    do {
        fill_queue(transfer);
        if (transfer->ready == 0)
            continue; /* each one was refused */
        int error = submit_and_wait(transfer);
        if (error != 0) {
            finish_without(transfer, error);
            return;
        }
        reap(transfer);
    } while (transfer->next < transfer->count || transfer->ready != 0);
}

static int uring_transfer(struct qr_disk *disk, struct qr_io *ios, uint32_t count)
{
    if (count <= 1)
        return qr_posix_ops.transfer(disk, ios, count);
    struct ring *ring = take_ring(uring_disk(disk));
    bool ready = is_ready(ring);
    if (ready)
        run(&(struct transfer){ring, ios, count, 0, 0});
    pthread_mutex_unlock(&ring->taken);
    return ready ? 0 : qr_posix_ops.transfer(disk, ios, count);
}

/* ---- The disk --------------------------------------------------------------------------------------------------- */

static void uring_disk_free(struct qr_disk *base)
{
    struct uring_disk *disk = uring_disk(base);
    for (uint32_t i = 0; i < RINGS; i++) {
        if (disk->rings[i].state == RING_READY)
            io_uring_queue_exit(&disk->rings[i].uring);
        pthread_mutex_destroy(&disk->rings[i].taken);
    }
    qr_free_aligned(disk);
}

static int uring_disk_create(struct qr_disk **ret_disk)
{
    struct uring_disk *disk = qr_malloc_aligned(QR_CACHE_LINE_BYTES, sizeof(*disk));
    if (disk == NULL)
        return -ENOMEM;
    *disk = (struct uring_disk){.disk = {&disk->ops, "uring"}, .ops = qr_posix_ops};
    disk->ops.disk_free = uring_disk_free;
    disk->ops.transfer = uring_transfer;
    for (uint32_t i = 0; i < RINGS; i++)
        pthread_mutex_init(&disk->rings[i].taken, NULL); /* of the default kind: cannot fail */
    if (!is_ready(&disk->rings[0])) {
        uring_disk_free(&disk->disk);
        return -ENOSYS;
    }
    *ret_disk = &disk->disk;
    return 0;
}

int qr_disk_open(bool want_ring, struct qr_disk **ret_disk)
{
    return want_ring && uring_disk_create(ret_disk) == 0 ? 0 : qr_disk_posix(ret_disk);
}

void qr_disk_counts(const struct qr_disk *base, struct qr_disk_counts *ret_counts)
{
    struct qr_disk_counts counts = {0};
    if (base->ops->transfer == uring_transfer) {
        const struct uring_disk *disk = (const struct uring_disk *)(const void *)base;
        for (uint32_t i = 0; i < RINGS; i++) {
            /* relaxed: statistics */
            counts.ring_operations += atomic_load_explicit(&disk->rings[i].operations, memory_order_relaxed);
            /* relaxed: statistics */
            uint32_t depth = atomic_load_explicit(&disk->rings[i].depth_max, memory_order_relaxed);
            if (depth > counts.ring_depth_max)
                counts.ring_depth_max = depth;
        }
    }
    *ret_counts = counts;
}

#else

/* Built without rings. */
int qr_disk_open(bool want_ring, struct qr_disk **ret_disk)
{
    (void)want_ring;
    return qr_disk_posix(ret_disk);
}

void qr_disk_counts(const struct qr_disk *disk, struct qr_disk_counts *ret_counts)
{
    (void)disk;
    *ret_counts = (struct qr_disk_counts){0};
}

#endif
