/*
 * simdisk_crash.c: what is left of a simulated disk after the process died or the power went.
 *
 * Test library. An image is made of the durable state and of those unsynced operations that the crash lets through, in
 * their order. Which they are is decided for each operation, or (RANDOM) for each sector, block or word: a number of
 * operations on it from 0 to all, of which it shows the last.
 */
#include "simdisk_state.h"

#include <stdlib.h>
#include <string.h>

/* Independent choices from one seed. */
enum purpose { PURPOSE_UNIT = 1, PURPOSE_SIZE, PURPOSE_NAMES, PURPOSE_WORD, PURPOSE_OPERATION, PURPOSE_STALE };

static uint64_t choose(const struct simdisk_crash *crash, enum purpose purpose, uint64_t a, uint64_t b, uint64_t bound)
{
    uint64_t mixed = random_mix(random_mix(random_mix(crash->seed * 8 + purpose) ^ a) ^ b);
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

/* All modes, but RANDOM with units that are not whole operations. */
static bool survives(const struct plan *plan, uint64_t sequence)
{
    switch (plan->crash->mode) {
    case SIMDISK_RANDOM:
        return choose(plan->crash, PURPOSE_OPERATION, sequence, 0, 2) != 0;
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
    if (crash->mode == SIMDISK_RANDOM && crash->unit != SIMDISK_UNIT_WRITE) {
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

/* A file of the image in the making. */
struct making {
    const struct plan *plan;
    const struct sim_inode *inode;
    uint8_t *content;
    uint8_t *shown; /* by sector: it has bytes of an operation that survived */
    uint64_t sectors;
};

static uint64_t end_of_op(const struct sim_op *op)
{
    return op->kind == SIM_RESIZE ? op->size_bytes : op->offset + op->size_bytes;
}

static void show(struct making *m, const struct sim_op *op, uint64_t begin, uint64_t end)
{
    sim_op_apply(op, m->content, begin, end);
    if (op->kind == SIM_RESIZE)
        return;
    if (begin < op->offset)
        begin = op->offset;
    if (end > end_of_op(op))
        end = end_of_op(op);
    for (uint64_t sector = begin / SIMDISK_SECTOR_BYTES; sector * SIMDISK_SECTOR_BYTES < end; sector++)
        m->shown[sector] = 1;
}

/* The units that an operation touches. */
static void op_range(const struct sim_op *op, uint64_t unit_bytes, uint64_t *ret_begin, uint64_t *ret_end)
{
    *ret_begin = op->offset / unit_bytes;
    uint64_t end = end_of_op(op);
    *ret_end = end < op->offset ? *ret_begin : (end + unit_bytes - 1) / unit_bytes;
}

/* What is known of a unit while it is torn. */
struct unit {
    uint32_t count, seen; /* operations on it; those that were looked at */
    uint32_t taken;       /* it takes part in the first so many */
    bool by_words;
};

/* The words of a sector, each as after a number of operations of its own. */
static void show_words(struct making *m, const struct sim_op *op, uint64_t sector, const struct unit *unit)
{
    for (uint64_t at = sector * SIMDISK_SECTOR_BYTES; at < (sector + 1) * SIMDISK_SECTOR_BYTES; at += 8) {
        uint64_t taken = choose(m->plan->crash, PURPOSE_WORD, m->inode->number, at, (uint64_t)unit->count + 1);
        if (unit->seen < taken)
            show(m, op, at, at + 8);
    }
}

/* Each unit takes part in a random number of the operations that touch it. */
static void tear(struct making *m, uint64_t unit_bytes, bool words)
{
    const struct sim_inode *inode = m->inode;
    uint64_t begin, end, unit_count = m->sectors * SIMDISK_SECTOR_BYTES / unit_bytes + 1;
    struct unit *units = sim_alloc(unit_count * sizeof(*units));
    for (size_t i = 0; i < inode->op_count; i++) {
        op_range(&inode->ops[i], unit_bytes, &begin, &end);
        for (uint64_t u = begin; u < end; u++) {
            units[u].count++;
            units[u].by_words = units[u].by_words || (words && inode->ops[i].kind == SIM_STORE);
        }
    }
    for (uint64_t u = 0; u < unit_count; u++) {
        units[u].taken = (uint32_t)choose(m->plan->crash, PURPOSE_UNIT, inode->number, u, (uint64_t)units[u].count + 1);
        if (units[u].by_words)
            sim_note_effect(SIMDISK_TORN_SECTOR);
    }
    for (size_t i = 0; i < inode->op_count; i++) {
        uint64_t taken = 0;
        op_range(&inode->ops[i], unit_bytes, &begin, &end);
        for (uint64_t u = begin; u < end; u++) {
            struct unit *unit = &units[u];
            if (unit->by_words)
                show_words(m, &inode->ops[i], u, unit);
            else if (unit->seen < unit->taken)
                show(m, &inode->ops[i], u * unit_bytes, (u + 1) * unit_bytes);
            taken += unit->seen++ < unit->taken;
        }
        if (inode->ops[i].kind == SIM_WRITE && taken != 0 && taken != end - begin)
            sim_note_effect(SIMDISK_TORN_WRITE);
    }
    free(units);
}

static void fill_content(struct making *m)
{
    const struct simdisk_crash *crash = m->plan->crash;
    const struct sim_inode *inode = m->inode;
    if (crash->mode == SIMDISK_KEEP) {
        memset(m->content, 0, inode->durable_size_bytes);
        sim_inode_read(inode, m->content, 0, inode->size_bytes);
        return;
    }
    if (crash->mode == SIMDISK_RANDOM && crash->unit != SIMDISK_UNIT_WRITE) {
        tear(m, crash->unit == SIMDISK_UNIT_BLOCK ? SIMDISK_BLOCK_BYTES : SIMDISK_SECTOR_BYTES,
             crash->unit == SIMDISK_UNIT_WORD);
        return;
    }
    for (size_t i = 0; i < inode->op_count; i++) {
        if (survives(m->plan, inode->ops[i].sequence))
            show(m, &inode->ops[i], 0, UINT64_MAX);
    }
}

/* simdisk_crash.stale: sectors behind the durable end that only writes made which did not arrive. */
static void fill_stale(struct making *m, const struct simdisk *disk)
{
    const struct sim_inode *inode = m->inode;
    const struct simdisk_crash *crash = m->plan->crash;
    bool deleted = disk->stale_bytes != 0 && choose(crash, PURPOSE_STALE, inode->number, 0, 2) == 0;
    for (size_t i = 0; i < inode->op_count; i++) {
        if (inode->ops[i].kind == SIM_RESIZE && inode->ops[i].offset < inode->ops[i].size_bytes)
            return; /* it was cut meanwhile, and what is there now may be a hole */
    }
    for (size_t i = 0; i < inode->op_count; i++) {
        uint64_t begin, end;
        const struct sim_op *op = &inode->ops[i];
        if (op->kind != SIM_WRITE || !op->new_space)
            continue;
        op_range(op, SIMDISK_SECTOR_BYTES, &begin, &end);
        for (uint64_t sector = begin; sector < end; sector++) {
            uint64_t at = sector * SIMDISK_SECTOR_BYTES;
            if (at < inode->durable_size_bytes || m->shown[sector] != 0)
                continue;
            if (deleted)
                memcpy(m->content + at, disk->stale + at % disk->stale_bytes, SIMDISK_SECTOR_BYTES);
            else
                memset(m->content + at, 0xA5, SIMDISK_SECTOR_BYTES);
            m->shown[sector] = 1;
            sim_note_effect(SIMDISK_STALE_SECTOR);
        }
    }
}

/* Everything that was written so far, and no more than the file is large, has space. */
static void fill_blocks(struct sim_inode *image, const struct sim_inode *inode)
{
    for (uint64_t block = 0; block * SIMDISK_BLOCK_BYTES < image->size_bytes; block++)
        sim_set_block(image, block, sim_has_block(inode, block));
}

static uint64_t end_of_ops(const struct sim_inode *inode)
{
    uint64_t end = inode->durable_size_bytes > inode->size_bytes ? inode->durable_size_bytes : inode->size_bytes;
    for (size_t i = 0; i < inode->op_count; i++) {
        if (end_of_op(&inode->ops[i]) > end)
            end = end_of_op(&inode->ops[i]);
    }
    return end;
}

static void make_image(struct simdisk *after, const struct simdisk *disk, const struct plan *plan,
                       const struct sim_inode *inode)
{
    struct sim_inode *image = sim_inode_create(after, inode->number);
    uint64_t touched_end = end_of_ops(inode);
    uint64_t sectors = (touched_end + SIMDISK_BLOCK_BYTES) / SIMDISK_SECTOR_BYTES;
    struct making m = {plan, inode, image->cached, sim_alloc(sectors), sectors};
    memcpy(image->cached, inode->durable, inode->durable_size_bytes);
    fill_content(&m);
    image->size_bytes = image->durable_size_bytes = image_size(plan, inode);
    if (plan->crash->stale && plan->crash->mode != SIMDISK_KEEP) {
        fill_stale(&m, disk);
        touched_end += SIMDISK_SECTOR_BYTES;
    }
    if (touched_end > image->size_bytes)
        memset(image->cached + image->size_bytes, 0, touched_end - image->size_bytes);
    memcpy(image->durable, image->cached, image->size_bytes);
    image->touched_end = touched_end > image->size_bytes ? touched_end : image->size_bytes;
    fill_blocks(image, inode);
    free(m.shown);
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
    after->stale_bytes = disk->stale_bytes;
    memcpy(after->stale, disk->stale, sizeof(after->stale));
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
        make_image(after, disk, &plan, inode);
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
