/*
 * simdisk_inode.c: files of the simulated disk: contents, operations since the last sync, space.
 *
 * Test library. STATE-1 to STATE-3 in simdisk_state.h.
 */
#include "simdisk_state.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define BLOCK_COUNT (SIMDISK_FILE_MAX_BYTES / SIMDISK_BLOCK_BYTES)

void *sim_alloc(size_t size)
{
    void *memory = calloc(1, size != 0 ? size : 1);
    if (memory == NULL) {
        fprintf(stderr, "simdisk: no memory\n");
        abort();
    }
    return memory;
}

char *sim_string(const char *text)
{
    size_t size = strlen(text) + 1;
    return memcpy(sim_alloc(size), text, size);
}

void *sim_grow(void *array, size_t count, size_t *capacity, size_t entry_size)
{
    if (count < *capacity)
        return array;
    *capacity = *capacity == 0 ? 8 : *capacity * 2;
    void *grown = sim_alloc(*capacity * entry_size);
    if (count != 0)
        memcpy(grown, array, count * entry_size);
    free(array);
    return grown;
}

/* ---- Content that threads store into meanwhile ------------------------------------------------------------------ */

/*
 * The disk reads and writes mapped memory as a kernel does: beside the threads, and unseen by ThreadSanitizer. The
 * empty instruction keeps compilers from making a memcpy of the loop, which would be seen.
 */
#define UNSEEN __attribute__((no_sanitize("thread"), noinline))

typedef uint64_t __attribute__((may_alias)) sim_word;

UNSEEN static void copy_unseen(void *to, const void *from, uint64_t size_bytes)
{
    uint8_t *bytes = to;
    const uint8_t *source = from;
    uint64_t at = 0;
    if (((uintptr_t)to | (uintptr_t)from) % 8 == 0) {
        for (; at + 8 <= size_bytes; at += 8) {
            *(sim_word *)(void *)(bytes + at) = *(const sim_word *)(const void *)(source + at);
            __asm__("" ::: "memory");
        }
    }
    for (; at < size_bytes; at++) {
        bytes[at] = source[at];
        __asm__("" ::: "memory");
    }
}

/* Both are aligned to sectors. */
UNSEEN static bool is_equal_unseen(const uint8_t *a, const uint8_t *b)
{
    const sim_word *left = (const sim_word *)(const void *)a;
    const sim_word *right = (const sim_word *)(const void *)b;
    uint64_t differ = 0;
    for (unsigned i = 0; i < SIMDISK_SECTOR_BYTES / 8; i++)
        differ |= left[i] ^ right[i];
    return differ == 0;
}

static uint64_t sectors_end(uint64_t size_bytes)
{
    return (size_bytes + SIMDISK_SECTOR_BYTES - 1) / SIMDISK_SECTOR_BYTES * SIMDISK_SECTOR_BYTES;
}

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Kept for the next file, zeroed: images come and go by the ten thousand. */
#define KEPT_MOST 256u
#define KEPT_BYTES_MOST (512u << 10)
static uint8_t *kept_regions[KEPT_MOST];
static size_t kept_count;

/* A flag and no mutex: the disk's is held here, and the simulation, which stops threads at mutexes, must not stop one that has it. */
static atomic_flag kept_taken = ATOMIC_FLAG_INIT;

static void take_kept(void)
{
    while (atomic_flag_test_and_set(&kept_taken)) {
    }
}

static void leave_kept(void)
{
    atomic_flag_clear(&kept_taken);
}

static bool keep(uint8_t *memory, uint64_t touched_end)
{
    if (touched_end > KEPT_BYTES_MOST)
        return false;
    memset(memory, 0, touched_end);
    take_kept();
    bool room = kept_count < KEPT_MOST;
    if (room)
        kept_regions[kept_count++] = memory;
    leave_kept();
    return room;
}

/* Address space that is zero until it is stored into, and never moves. */
static uint8_t *reserve(void)
{
    take_kept();
    uint8_t *again = kept_count != 0 ? kept_regions[--kept_count] : NULL;
    leave_kept();
    if (again != NULL)
        return again;
    void *memory =
        mmap(NULL, SIMDISK_FILE_MAX_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        perror("simdisk: mmap");
        abort();
    }
    return memory;
}

/* What was mapped by the engine is given back: a store after the end of its mapping shall be noticed. */
static void release(uint8_t *memory, uint64_t touched_end, bool was_mapped)
{
    if (memory != NULL && (was_mapped || !keep(memory, touched_end)))
        munmap(memory, SIMDISK_FILE_MAX_BYTES);
}

/* ---- Life ------------------------------------------------------------------------------------------------------- */

struct sim_inode *sim_inode_create(struct simdisk *disk, uint64_t number)
{
    struct sim_inode *inode = sim_alloc(sizeof(*inode));
    struct sim_inode **link = &disk->inodes;
    inode->number = number;
    inode->cached = reserve();
    inode->durable = reserve();
    inode->blocks = sim_alloc(BLOCK_COUNT / 8);
    while (*link != NULL)
        link = &(*link)->next;
    *link = inode;
    return inode;
}

static void drop_ops(struct sim_inode *inode)
{
    for (size_t i = 0; i < inode->op_count; i++)
        free(inode->ops[i].bytes);
    inode->op_count = 0;
}

void sim_inode_destroy(struct simdisk *disk, struct sim_inode *inode)
{
    struct sim_inode **link = &disk->inodes;
    while (*link != inode)
        link = &(*link)->next;
    *link = inode->next;
    drop_ops(inode);
    free(inode->ops);
    free(inode->blocks);
    uint64_t touched_end = sectors_end(inode->touched_end);
    release(inode->cached, touched_end, inode->observed != NULL);
    release(inode->durable, touched_end, false);
    release(inode->observed, touched_end, false);
    free(inode);
}

struct sim_inode *sim_inode_find(const struct simdisk *disk, uint64_t number)
{
    struct sim_inode *inode = disk->inodes;
    while (inode != NULL && inode->number != number)
        inode = inode->next;
    return inode;
}

static bool has_cached_name(const struct simdisk *disk, uint64_t number)
{
    for (const struct sim_dir *dir = disk->dirs; dir != NULL; dir = dir->next) {
        if (sim_names_have_inode(&dir->cached, number))
            return true;
    }
    return false;
}

static bool may_come_back(const struct simdisk *disk, uint64_t number)
{
    for (const struct sim_dir *dir = disk->dirs; dir != NULL; dir = dir->next) {
        if (sim_names_have_inode(&dir->durable, number))
            return true;
        for (size_t i = 0; i < dir->op_count; i++) {
            if (dir->ops[i].inode == number)
                return true;
        }
    }
    return false;
}

static bool is_live(const struct simdisk *disk, const struct sim_inode *inode)
{
    return inode->handle_count != 0 || has_cached_name(disk, inode->number);
}

/* What the blocks from `begin` on held is what somebody else may find there: the last such is kept. */
static void leave_stale(struct simdisk *disk, const struct sim_inode *inode, uint64_t begin)
{
    begin -= begin % SIMDISK_SECTOR_BYTES;
    if (begin >= inode->size_bytes)
        return;
    disk->stale_bytes = smaller(sectors_end(inode->size_bytes - begin), SIM_STALE_BYTES);
    copy_unseen(disk->stale, inode->cached + begin, disk->stale_bytes);
}

void sim_inodes_reclaim(struct simdisk *disk)
{
    struct sim_inode *next;
    for (struct sim_inode *inode = disk->inodes; inode != NULL; inode = next) {
        next = inode->next;
        if (!is_live(disk, inode) && !may_come_back(disk, inode->number)) {
            leave_stale(disk, inode, 0);
            sim_inode_destroy(disk, inode);
        }
    }
}

/* No block from there on has space. */
static uint64_t blocks_end(const struct sim_inode *inode)
{
    return (larger(inode->size_bytes, inode->mapped_end) + SIMDISK_BLOCK_BYTES - 1) / SIMDISK_BLOCK_BYTES;
}

void sim_inode_clone(struct simdisk *disk, const struct sim_inode *inode)
{
    struct sim_inode *clone = sim_inode_create(disk, inode->number);
    clone->size_bytes = inode->size_bytes;
    clone->durable_size_bytes = inode->durable_size_bytes;
    clone->mapped_end = inode->mapped_end;
    clone->touched_end = inode->touched_end;
    clone->late_error = inode->late_error;
    copy_unseen(clone->cached, inode->cached, sectors_end(inode->size_bytes));
    copy_unseen(clone->durable, inode->durable, sectors_end(inode->durable_size_bytes));
    if (inode->observed != NULL) {
        clone->observed = reserve();
        copy_unseen(clone->observed, inode->observed, sectors_end(inode->size_bytes));
    }
    memcpy(clone->blocks, inode->blocks, blocks_end(inode) / 8 + 1);
    clone->ops = sim_alloc(inode->op_count * sizeof(*clone->ops));
    clone->op_count = clone->op_capacity = inode->op_count;
    for (size_t i = 0; i < inode->op_count; i++) {
        clone->ops[i] = inode->ops[i];
        if (inode->ops[i].bytes != NULL)
            clone->ops[i].bytes =
                memcpy(sim_alloc(inode->ops[i].size_bytes), inode->ops[i].bytes, inode->ops[i].size_bytes);
    }
}

/* ---- Space ------------------------------------------------------------------------------------------------------ */

uint64_t sim_inode_bytes(const struct sim_inode *inode)
{
    uint64_t count = 0;
    for (uint64_t i = 0; i < blocks_end(inode); i++)
        count += sim_has_block(inode, i);
    return count * SIMDISK_BLOCK_BYTES;
}

uint64_t sim_used_bytes(const struct simdisk *disk)
{
    uint64_t used = 0;
    for (const struct sim_inode *inode = disk->inodes; inode != NULL; inode = inode->next) {
        if (is_live(disk, inode))
            used += sim_inode_bytes(inode);
    }
    return used;
}

bool sim_inode_has_space(const struct sim_inode *inode, uint64_t offset, uint64_t size_bytes)
{
    for (uint64_t block = offset / SIMDISK_BLOCK_BYTES; block * SIMDISK_BLOCK_BYTES < offset + size_bytes; block++) {
        if (!sim_has_block(inode, block))
            return false;
    }
    return true;
}

uint64_t sim_inode_provide(struct simdisk *disk, struct sim_inode *inode, uint64_t offset, uint64_t size_bytes)
{
    uint64_t end = offset + size_bytes;
    uint64_t used = UINT64_MAX; /* not counted yet */
    for (uint64_t block = offset / SIMDISK_BLOCK_BYTES; block * SIMDISK_BLOCK_BYTES < end; block++) {
        if (sim_has_block(inode, block))
            continue;
        if (used == UINT64_MAX)
            used = disk->facts.space_bytes == UINT64_MAX ? 0 : sim_used_bytes(disk);
        used += SIMDISK_BLOCK_BYTES;
        if (used > disk->facts.space_bytes)
            return block * SIMDISK_BLOCK_BYTES > offset ? block * SIMDISK_BLOCK_BYTES - offset : 0;
        sim_set_block(inode, block, true);
    }
    return size_bytes;
}

int sim_inode_provide_all(struct simdisk *disk, struct sim_inode *inode, uint64_t offset, uint64_t size_bytes)
{
    uint64_t missing = 0;
    for (uint64_t block = offset / SIMDISK_BLOCK_BYTES; block * SIMDISK_BLOCK_BYTES < offset + size_bytes; block++)
        missing += sim_has_block(inode, block) ? 0 : SIMDISK_BLOCK_BYTES;
    uint64_t used = sim_used_bytes(disk);
    uint64_t free_bytes = used < disk->facts.space_bytes ? disk->facts.space_bytes - used : 0;
    if (missing > free_bytes)
        return -ENOSPC;
    (void)sim_inode_provide(disk, inode, offset, size_bytes);
    return 0;
}

/* ---- Operations ------------------------------------------------------------------------------------------------- */

static struct sim_op *add_op(struct simdisk *disk, struct sim_inode *inode, enum sim_op_kind kind, uint64_t offset,
                             uint64_t size_bytes)
{
    inode->ops = sim_grow(inode->ops, inode->op_count, &inode->op_capacity, sizeof(*inode->ops));
    struct sim_op *op = &inode->ops[inode->op_count++];
    *op = (struct sim_op){kind, false, false, disk->next_sequence++, offset, size_bytes, NULL};
    if (kind != SIM_RESIZE)
        op->bytes = sim_alloc(size_bytes);
    return op;
}

void sim_op_apply(const struct sim_op *op, uint8_t *content, uint64_t begin, uint64_t end)
{
    if (op->kind == SIM_RESIZE) { /* what is cut off reads as zeros if the file grows again */
        begin = larger(begin, op->offset);
        end = smaller(end, op->size_bytes);
        if (begin < end)
            memset(content + begin, 0, end - begin);
        return;
    }
    begin = larger(begin, op->offset);
    end = smaller(end, op->offset + op->size_bytes);
    if (begin < end)
        copy_unseen(content + begin, op->bytes + (begin - op->offset), end - begin);
}

uint64_t sim_op_size_after(const struct sim_op *op, uint64_t size_bytes)
{
    switch (op->kind) {
    case SIM_WRITE:
        return larger(size_bytes, op->offset + op->size_bytes);
    case SIM_RESIZE:
        return op->offset;
    default:
        return size_bytes;
    }
}

void sim_inode_read(const struct sim_inode *inode, void *memory, uint64_t offset, uint64_t size_bytes)
{
    copy_unseen(memory, inode->cached + offset, size_bytes);
}

static void apply_to_cached(struct sim_inode *inode, const struct sim_op *op)
{
    sim_op_apply(op, inode->cached, 0, UINT64_MAX);
    if (inode->observed != NULL)
        sim_op_apply(op, inode->observed, 0, UINT64_MAX);
    inode->size_bytes = sim_op_size_after(op, inode->size_bytes);
    inode->touched_end = larger(inode->touched_end, inode->size_bytes);
}

void sim_inode_write(struct simdisk *disk, struct sim_inode *inode, const void *memory, uint64_t offset,
                     uint64_t size_bytes, bool new_space)
{
    if (size_bytes == 0)
        return;
    sim_inode_observe(disk, inode); /* stores that were there before come before it */
    struct sim_op *op = add_op(disk, inode, SIM_WRITE, offset, size_bytes);
    copy_unseen(op->bytes, memory, size_bytes);
    op->new_space = new_space;
    apply_to_cached(inode, op);
}

void sim_inode_resize(struct simdisk *disk, struct sim_inode *inode, uint64_t size_bytes)
{
    if (size_bytes == inode->size_bytes)
        return;
    sim_inode_observe(disk, inode);
    uint64_t old_bytes = inode->size_bytes;
    leave_stale(disk, inode, size_bytes);
    apply_to_cached(inode, add_op(disk, inode, SIM_RESIZE, size_bytes, old_bytes));
    for (uint64_t block = (size_bytes + SIMDISK_BLOCK_BYTES - 1) / SIMDISK_BLOCK_BYTES;
         block * SIMDISK_BLOCK_BYTES < old_bytes; block++)
        sim_set_block(inode, block, false);
}

/* ---- Mappings --------------------------------------------------------------------------------------------------- */

void sim_inode_map(struct sim_inode *inode, uint64_t end)
{
    if (inode->observed == NULL) {
        inode->observed = reserve();
        copy_unseen(inode->observed, inode->cached, sectors_end(inode->size_bytes));
    }
    inode->mapped_end = larger(inode->mapped_end, end);
}

void sim_inode_observe(struct simdisk *disk, struct sim_inode *inode)
{
    if (inode->observed == NULL)
        return;
    uint64_t end = sectors_end(smaller(inode->size_bytes, inode->mapped_end));
    for (uint64_t at = 0; at < end; at += SIMDISK_SECTOR_BYTES) {
        if (is_equal_unseen(inode->cached + at, inode->observed + at))
            continue;
        const struct sim_op *op = add_op(disk, inode, SIM_STORE, at, SIMDISK_SECTOR_BYTES);
        copy_unseen(op->bytes, inode->cached + at, SIMDISK_SECTOR_BYTES);
        copy_unseen(inode->observed + at, op->bytes, SIMDISK_SECTOR_BYTES);
        disk->mistakes += !sim_has_block(inode, at / SIMDISK_BLOCK_BYTES);
    }
}

/* ---- Syncs ------------------------------------------------------------------------------------------------------ */

/* SIMDISK-3: a doubtful sector that no later operation touches is clean in the eyes of the kernel, and stays as it is.
 */
static bool stays_doubtful(const struct sim_inode *inode, size_t index)
{
    const struct sim_op *op = &inode->ops[index];
    if (!op->doubtful || op->kind != SIM_STORE)
        return false;
    for (size_t i = index + 1; i < inode->op_count; i++) {
        const struct sim_op *later = &inode->ops[i];
        uint64_t later_end =
            later->kind == SIM_RESIZE ? larger(later->offset, later->size_bytes) : later->offset + later->size_bytes;
        uint64_t later_begin = later->kind == SIM_RESIZE ? smaller(later->offset, later->size_bytes) : later->offset;
        if (later_begin < op->offset + op->size_bytes && op->offset < later_end)
            return false;
    }
    return true;
}

static void make_durable(struct simdisk *disk, struct sim_inode *inode)
{
    size_t kept = 0;
    sim_inode_observe(disk, inode);
    for (size_t i = 0; i < inode->op_count; i++) {
        struct sim_op op = inode->ops[i];
        if (stays_doubtful(inode, i)) {
            inode->ops[kept++] = op; /* to a place that was looked at */
            continue;
        }
        /* In order, so that the latest wins. */
        sim_op_apply(&op, inode->durable, 0, UINT64_MAX);
        inode->durable_size_bytes = sim_op_size_after(&op, inode->durable_size_bytes);
        free(op.bytes);
        op.bytes = NULL;
    }
    inode->op_count = kept;
}

static void leave_clean(struct simdisk *disk, struct sim_inode *inode)
{
    uint64_t end = sectors_end(larger(inode->size_bytes, inode->durable_size_bytes));
    sim_inode_observe(disk, inode);
    drop_ops(inode);
    if (inode->size_bytes != inode->durable_size_bytes)
        add_op(disk, inode, SIM_RESIZE, inode->size_bytes, inode->durable_size_bytes)->doubtful = true;
    for (uint64_t at = 0; at < end; at += SIMDISK_SECTOR_BYTES) {
        if (is_equal_unseen(inode->cached + at, inode->durable + at))
            continue;
        struct sim_op *op = add_op(disk, inode, SIM_STORE, at, SIMDISK_SECTOR_BYTES);
        copy_unseen(op->bytes, inode->cached + at, SIMDISK_SECTOR_BYTES);
        if (inode->observed != NULL)
            copy_unseen(inode->observed + at, op->bytes, SIMDISK_SECTOR_BYTES);
        op->doubtful = true;
    }
}

/* Operations that no sync has reached are gone, as if nothing had been done since the last good one. */
static void revert(struct sim_inode *inode)
{
    uint64_t end = sectors_end(larger(inode->size_bytes, inode->durable_size_bytes));
    uint64_t first_block = (inode->durable_size_bytes + SIMDISK_BLOCK_BYTES - 1) / SIMDISK_BLOCK_BYTES;
    uint64_t last_block = blocks_end(inode);
    for (uint64_t block = inode->size_bytes / SIMDISK_BLOCK_BYTES; block < first_block; block++)
        sim_set_block(inode, block, true); /* what was cut is there again */
    drop_ops(inode);
    copy_unseen(inode->cached, inode->durable, end);
    if (inode->observed != NULL)
        copy_unseen(inode->observed, inode->durable, end);
    inode->size_bytes = inode->durable_size_bytes;
    for (uint64_t block = first_block; block < last_block; block++)
        sim_set_block(inode, block, false);
}

int sim_inode_sync_with(struct simdisk *disk, struct sim_inode *inode, int error)
{
    enum simdisk_failed_sync behaviour = disk->facts.failed_sync;
    if (error == -EINTR)
        return error;
    if (error == 0 && inode->late_error == 0) {
        make_durable(disk, inode);
        return 0;
    }
    if (error == 0) behaviour = SIMDISK_FAILED_LATE; /* what is to be told is told, in whatever way syncs fail by now */
    sim_inode_observe(disk, inode);
    if (behaviour == SIMDISK_FAILED_REVERTS) {
        sim_note_effect(SIMDISK_SYNC_REVERTED);
        revert(inode);
        return error;
    }
    leave_clean(disk, inode);
    if (behaviour == SIMDISK_FAILED_CLEAN) {
        sim_note_effect(SIMDISK_SYNC_LEFT_CLEAN);
        return error;
    }
    int answer = inode->late_error;
    sim_note_effect(answer == 0 ? SIMDISK_SYNC_LIED : SIMDISK_SYNC_WAS_LATE);
    inode->late_error = error;
    return answer;
}
