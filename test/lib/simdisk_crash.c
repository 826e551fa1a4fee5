/*
 * simdisk_crash.c: what is left of a simulated disk after the process died or the power went.
 *
 * Test library. An image is made of the durable state and of those unsynced operations that the crash lets through, in
 * their order. Which they are is decided for each operation, or (RANDOM) for each sector: a number of operations on it
 * from 0 to all, of which it shows the last.
 */
#include "simdisk_state.h"

#include <stdlib.h>
#include <string.h>

/* Independent choices from one seed. */
enum purpose { PURPOSE_SECTOR = 1, PURPOSE_SIZE, PURPOSE_NAMES };

static uint64_t choose(const struct simdisk_crash *crash, enum purpose purpose, uint64_t a, uint64_t b, uint64_t bound)
{
    uint64_t mixed = random_mix(random_mix(random_mix(crash->seed * 4 + purpose) ^ a) ^ b);
    return (uint64_t)(((random_wide)mixed * bound) >> 64);
}

/* ---- Numbering -------------------------------------------------------------------------------------------------- */

static int compare_numbers(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

/* The sequence numbers of all unsynced operations in order; the caller frees them. */
static uint64_t *unsynced(const struct simdisk *disk, size_t *ret_count)
{
    size_t count = 0;
    for (const struct sim_inode *inode = disk->inodes; inode != NULL; inode = inode->next)
        count += inode->op_count;
    for (const struct sim_dir *dir = disk->dirs; dir != NULL; dir = dir->next)
        count += dir->op_count;
    uint64_t *numbers = sim_alloc(count * sizeof(*numbers));
    count = 0;
    for (const struct sim_inode *inode = disk->inodes; inode != NULL; inode = inode->next) {
        for (size_t i = 0; i < inode->op_count; i++)
            numbers[count++] = inode->ops[i].sequence;
    }
    for (const struct sim_dir *dir = disk->dirs; dir != NULL; dir = dir->next) {
        for (size_t i = 0; i < dir->op_count; i++)
            numbers[count++] = dir->ops[i].sequence;
    }
    qsort(numbers, count, sizeof(*numbers), compare_numbers);
    *ret_count = count;
    return numbers;
}

static void observe(struct simdisk *disk)
{
    for (struct sim_inode *inode = disk->inodes; inode != NULL; inode = inode->next)
        sim_inode_observe(disk, inode);
}

void simdisk_observe(struct simdisk *disk)
{
    pthread_mutex_lock(&disk->mutex);
    observe(disk);
    pthread_mutex_unlock(&disk->mutex);
}

uint64_t simdisk_unsynced_count(struct simdisk *disk)
{
    size_t count;
    pthread_mutex_lock(&disk->mutex);
    observe(disk);
    free(unsynced(disk, &count));
    pthread_mutex_unlock(&disk->mutex);
    return count;
}

/* ---- Which operations survive ----------------------------------------------------------------------------------- */

/* A crash with the sequence number of its one operation. */
struct plan {
    const struct simdisk_crash *crash;
    uint64_t one; /* UINT64_MAX: there is no such operation */
};

static struct plan plan_of(const struct simdisk *disk, const struct simdisk_crash *crash)
{
    size_t count;
    uint64_t *numbers = unsynced(disk, &count);
    struct plan plan = {crash, crash->one < count ? numbers[crash->one] : UINT64_MAX};
    free(numbers);
    return plan;
}

/* All modes but RANDOM. */
static bool survives(const struct plan *plan, uint64_t sequence)
{
    switch (plan->crash->mode) {
    case SIMDISK_KEEP:
        return true;
    case SIMDISK_ONE:
        return sequence == plan->one;
    case SIMDISK_BUT_ONE:
        return sequence != plan->one;
    default:
        return false;
    }
}

/* ---- Files ------------------------------------------------------------------------------------------------------ */

static uint64_t image_size(const struct plan *plan, const struct sim_inode *inode)
{
    const struct simdisk_crash *crash = plan->crash;
    uint64_t size_bytes = inode->durable_size_bytes;
    if (crash->sizes != SIMDISK_SIZES_AS_MODE)
        return crash->sizes == SIMDISK_SIZES_CURRENT ? inode->size_bytes : size_bytes;
    if (crash->mode == SIMDISK_KEEP)
        return inode->size_bytes;
    if (crash->mode == SIMDISK_RANDOM) {
        uint64_t count = choose(crash, PURPOSE_SIZE, inode->number, 0, inode->op_count + 1);
        for (size_t i = 0; i < count; i++)
            size_bytes = sim_op_size_after(&inode->ops[i], size_bytes);
        return size_bytes;
    }
    for (size_t i = 0; i < inode->op_count; i++) {
        if (survives(plan, inode->ops[i].sequence))
            size_bytes = sim_op_size_after(&inode->ops[i], size_bytes);
    }
    return size_bytes;
}

static void op_range(const struct sim_op *op, uint64_t *ret_begin, uint64_t *ret_end)
{
    *ret_begin = op->offset / SIMDISK_SECTOR_BYTES;
    uint64_t end = op->kind == SIM_RESIZE ? op->size_bytes : op->offset + op->size_bytes;
    *ret_end = end < op->offset ? *ret_begin : (end + SIMDISK_SECTOR_BYTES - 1) / SIMDISK_SECTOR_BYTES;
}

/* Each sector takes part in a random number of the operations that touch it. */
static void tear(const struct plan *plan, const struct sim_inode *inode, uint8_t *content)
{
    uint64_t begin, end, sectors = 0;
    for (size_t i = 0; i < inode->op_count; i++) {
        op_range(&inode->ops[i], &begin, &end);
        if (end > sectors)
            sectors = end;
    }
    uint32_t *left =
        sim_alloc(sectors * sizeof(*left)); /* operations on the sector, then those that it takes part in */
    for (size_t i = 0; i < inode->op_count; i++) {
        op_range(&inode->ops[i], &begin, &end);
        for (uint64_t sector = begin; sector < end; sector++)
            left[sector]++;
    }
    for (uint64_t sector = 0; sector < sectors; sector++)
        left[sector] = (uint32_t)choose(plan->crash, PURPOSE_SECTOR, inode->number, sector, (uint64_t)left[sector] + 1);
    for (size_t i = 0; i < inode->op_count; i++) {
        op_range(&inode->ops[i], &begin, &end);
        for (uint64_t sector = begin; sector < end; sector++) {
            if (left[sector] == 0)
                continue;
            left[sector]--;
            sim_op_apply(&inode->ops[i], content, sector * SIMDISK_SECTOR_BYTES, (sector + 1) * SIMDISK_SECTOR_BYTES);
        }
    }
    free(left);
}

static void fill_content(const struct plan *plan, const struct sim_inode *inode, uint8_t *content)
{
    if (plan->crash->mode == SIMDISK_KEEP) {
        memset(content, 0, inode->durable_size_bytes);
        sim_inode_read(inode, content, 0, inode->size_bytes);
        return;
    }
    if (plan->crash->mode == SIMDISK_RANDOM) {
        tear(plan, inode, content);
        return;
    }
    for (size_t i = 0; i < inode->op_count; i++) {
        if (survives(plan, inode->ops[i].sequence))
            sim_op_apply(&inode->ops[i], content, 0, UINT64_MAX);
    }
}

/* Everything that was written so far, and no more than the file is large, has space. */
static void fill_blocks(struct sim_inode *image, const struct sim_inode *inode)
{
    for (uint64_t block = 0; block * SIMDISK_BLOCK_BYTES < image->size_bytes; block++)
        image->blocks[block] = inode->blocks[block];
}

static uint64_t end_of_ops(const struct sim_inode *inode)
{
    uint64_t end = inode->durable_size_bytes > inode->size_bytes ? inode->durable_size_bytes : inode->size_bytes;
    for (size_t i = 0; i < inode->op_count; i++) {
        const struct sim_op *op = &inode->ops[i];
        uint64_t op_end = op->kind == SIM_RESIZE ? op->size_bytes : op->offset + op->size_bytes;
        if (op_end > end)
            end = op_end;
    }
    return end;
}

static void make_image(struct simdisk *after, const struct plan *plan, const struct sim_inode *inode)
{
    struct sim_inode *image = sim_inode_create(after, inode->number);
    uint64_t touched_end = end_of_ops(inode);
    memcpy(image->cached, inode->durable, inode->durable_size_bytes);
    fill_content(plan, inode, image->cached);
    image->size_bytes = image->durable_size_bytes = image_size(plan, inode);
    if (touched_end > image->size_bytes)
        memset(image->cached + image->size_bytes, 0, touched_end - image->size_bytes);
    memcpy(image->durable, image->cached, image->size_bytes);
    fill_blocks(image, inode);
}

/* ---- Names ------------------------------------------------------------------------------------------------------ */

static bool name_survives(const struct plan *plan, const struct sim_dir *dir, size_t index, uint64_t prefix)
{
    const struct simdisk_crash *crash = plan->crash;
    switch (crash->names) {
    case SIMDISK_NAMES_ALL:
        return true;
    case SIMDISK_NAMES_PREFIX:
        return index < crash->names_count;
    case SIMDISK_NAMES_SUBSET:
        return choose(crash, PURPOSE_NAMES, dir->number, dir->ops[index].sequence, 2) != 0;
    default:
        return crash->mode == SIMDISK_RANDOM ? index < prefix : survives(plan, dir->ops[index].sequence);
    }
}

static void make_dir(struct simdisk *after, const struct plan *plan, const struct sim_dir *dir)
{
    struct sim_dir *image = sim_dir_create(after, dir->path, dir->number);
    bool exists = dir->durable_exists;
    uint64_t prefix = choose(plan->crash, PURPOSE_NAMES, dir->number, 0, dir->op_count + 1);
    sim_names_copy(&image->cached, &dir->durable);
    for (size_t i = 0; i < dir->op_count; i++) {
        if (name_survives(plan, dir, i, prefix))
            sim_name_op_apply(&dir->ops[i], &image->cached, &exists);
    }
    image->durable_exists = true;
    sim_names_copy(&image->durable, &image->cached);
    if (!exists)
        sim_dir_destroy(after, image);
}

/* ---- The disk --------------------------------------------------------------------------------------------------- */

static struct simdisk *copy_of(const struct simdisk *disk)
{
    struct simdisk *after = simdisk_create();
    after->facts = disk->facts;
    after->next_number = disk->next_number;
    after->next_sequence = disk->next_sequence;
    return after;
}

static struct simdisk *after_death(const struct simdisk *disk)
{
    struct simdisk *after = copy_of(disk);
    for (const struct sim_inode *inode = disk->inodes; inode != NULL; inode = inode->next)
        sim_inode_clone(after, inode);
    for (const struct sim_dir *dir = disk->dirs; dir != NULL; dir = dir->next)
        sim_dir_clone(after, dir);
    sim_inodes_reclaim(after);
    return after;
}

static struct simdisk *after_power_loss(const struct simdisk *disk, const struct simdisk_crash *crash)
{
    struct plan plan = plan_of(disk, crash);
    struct simdisk *after = copy_of(disk);
    uint64_t boot;
    memcpy(&boot, after->facts.boot_id, sizeof(boot));
    boot++;
    memcpy(after->facts.boot_id, &boot, sizeof(boot));
    after->facts.mount_id++;
    for (const struct sim_inode *inode = disk->inodes; inode != NULL; inode = inode->next)
        make_image(after, &plan, inode);
    for (const struct sim_dir *dir = disk->dirs; dir != NULL; dir = dir->next)
        make_dir(after, &plan, dir);
    sim_inodes_reclaim(after);
    return after;
}

struct simdisk *simdisk_crash(struct simdisk *disk, const struct simdisk_crash *crash)
{
    pthread_mutex_lock(&disk->mutex);
    observe(disk);
    struct simdisk *after = crash->mode == SIMDISK_DEATH ? after_death(disk) : after_power_loss(disk, crash);
    pthread_mutex_unlock(&disk->mutex);
    return after;
}
