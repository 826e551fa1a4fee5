/*
 * simdisk.c: the simulated disk as its harness sees it: life, facts, hook, faults, contents.
 *
 * Test library.
 */
#include "simdisk_state.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void lock(struct simdisk *disk)
{
    pthread_mutex_lock(&disk->mutex);
}

static void unlock(struct simdisk *disk)
{
    pthread_mutex_unlock(&disk->mutex);
}

/* ---- Hooks and faults ------------------------------------------------------------------------------------------- */

static bool is_due(struct sim_fault *fault, enum simdisk_kind kind, bool part)
{
    enum simdisk_kind planned = fault->plan.kind;
    if (planned != SIMDISK_ANY && planned != kind && !(planned == SIMDISK_TRANSFER && part))
        return false;
    fault->seen++;
    return fault->seen == fault->plan.nth || (fault->plan.for_good && fault->seen > fault->plan.nth);
}

static struct sim_verdict judge(struct simdisk *disk, enum simdisk_kind kind, bool part)
{
    struct sim_verdict verdict = {0, UINT64_MAX};
    bool decided = false;
    for (unsigned i = 0; i < disk->fault_count; i++) {
        struct sim_fault *fault = &disk->faults[i];
        if (!is_due(fault, kind, part) || decided)
            continue;
        bool shorten = fault->plan.error == 0;
        if (shorten && kind != SIMDISK_READ && kind != SIMDISK_WRITE)
            continue;
        verdict.error = -fault->plan.error;
        verdict.most_bytes = shorten ? fault->plan.short_bytes : UINT64_MAX;
        fault->fired++;
        decided = true;
    }
    return verdict;
}

struct sim_verdict sim_begin(struct simdisk *disk, enum simdisk_kind kind, const char *name, uint64_t offset,
                             uint64_t size_bytes, bool part)
{
    lock(disk);
    struct simdisk_event event = {++disk->counts[SIMDISK_ANY], kind, name, offset, size_bytes};
    simdisk_hook *hook = disk->hook;
    void *context = disk->hook_context;
    disk->counts[kind]++;
    disk->counts[SIMDISK_TRANSFER] += part;
    unlock(disk);
    if (hook != NULL)
        hook(context, &event);
    lock(disk);
    struct sim_verdict verdict = judge(disk, kind, part);
    unlock(disk);
    return verdict;
}

void simdisk_set_hook(struct simdisk *disk, simdisk_hook *hook, void *context)
{
    lock(disk);
    disk->hook = hook;
    disk->hook_context = context;
    unlock(disk);
}

uint64_t simdisk_count(const struct simdisk *disk, enum simdisk_kind kind)
{
    return disk->counts[kind];
}

unsigned simdisk_fault_set(struct simdisk *disk, const struct simdisk_fault *fault)
{
    lock(disk);
    if (disk->fault_count == SIMDISK_FAULTS_MAX) {
        fprintf(stderr, "simdisk: too many faults\n");
        abort();
    }
    unsigned number = disk->fault_count++;
    disk->faults[number] = (struct sim_fault){*fault, 0, 0};
    unlock(disk);
    return number;
}

void simdisk_faults_clear(struct simdisk *disk)
{
    lock(disk);
    disk->fault_count = 0;
    unlock(disk);
}

static _Atomic uint64_t effects[SIMDISK_EFFECTS];

void sim_note_effect(enum simdisk_effect effect)
{
    effects[effect]++;
}

uint64_t simdisk_effect_count(enum simdisk_effect effect)
{
    return effects[effect];
}

uint64_t simdisk_fault_fired(const struct simdisk *disk, unsigned number)
{
    return disk->faults[number].fired;
}

uint64_t simdisk_late_count(struct simdisk *disk)
{
    uint64_t count = 0;
    lock(disk);
    for (const struct sim_inode *inode = disk->inodes; inode != NULL; inode = inode->next)
        count += inode->late_error != 0;
    unlock(disk);
    return count;
}

/* ---- Life and facts -----------------------------------------------------------------------------------------------
 */

struct simdisk *simdisk_create(void)
{
    struct simdisk *disk = sim_alloc(sizeof(*disk));
    disk->disk = (struct qr_disk){&sim_ops, "simulated"};
    pthread_mutex_init(&disk->mutex, NULL);
    disk->facts = (struct simdisk_facts){
        .boot_id = {1},
        .device = 1,
        .mount_id = 1,
        .pid = 1,
        .can_map = true,
        .direct_align_bytes = SIMDISK_SECTOR_BYTES,
        .space_bytes = UINT64_MAX,
    };
    disk->next_number = 1;
    return disk;
}

void simdisk_free(struct simdisk *disk)
{
    if (simdisk_open_count(disk) != 0) {
        fprintf(stderr, "simdisk: freed while %" PRIu64 " handles are open\n", simdisk_open_count(disk));
        abort();
    }
    while (disk->inodes != NULL)
        sim_inode_destroy(disk, disk->inodes);
    while (disk->dirs != NULL)
        sim_dir_destroy(disk, disk->dirs);
    pthread_mutex_destroy(&disk->mutex);
    free(disk);
}

struct qr_disk *simdisk_disk(struct simdisk *disk)
{
    return &disk->disk;
}

uint64_t simdisk_open_count(const struct simdisk *disk)
{
    uint64_t count = disk->file_handle_count;
    for (const struct sim_dir_handle *handle = disk->dir_handles; handle != NULL; handle = handle->next)
        count++;
    return count;
}

struct simdisk_facts *simdisk_facts(struct simdisk *disk)
{
    return &disk->facts;
}

uint64_t simdisk_used_bytes(struct simdisk *disk)
{
    lock(disk);
    uint64_t used = sim_used_bytes(disk);
    unlock(disk);
    return used;
}

uint64_t simdisk_mistakes(const struct simdisk *disk)
{
    return disk->mistakes;
}

/* ---- What is on it ---------------------------------------------------------------------------------------------- */

static struct sim_inode *inode_of(struct simdisk *disk, const char *path, const char *name)
{
    const struct sim_dir *dir = sim_dir_find(disk, path);
    return dir != NULL ? sim_inode_find(disk, sim_names_find(&dir->cached, name)) : NULL;
}

const uint8_t *simdisk_content(struct simdisk *disk, const char *path, const char *name, uint64_t *ret_size_bytes)
{
    lock(disk);
    const struct sim_inode *inode = inode_of(disk, path, name);
    if (inode != NULL)
        *ret_size_bytes = inode->size_bytes;
    unlock(disk);
    return inode != NULL ? inode->cached : NULL;
}

void simdisk_damage(struct simdisk *disk, const char *path, const char *name, uint64_t offset, const void *bytes,
                    size_t size)
{
    lock(disk);
    struct sim_inode *inode = inode_of(disk, path, name);
    memcpy(inode->cached + offset, bytes, size);
    memcpy(inode->durable + offset, bytes, size);
    if (inode->observed != NULL)
        memcpy(inode->observed + offset, bytes, size);
    unlock(disk);
}

static void cut(uint8_t *content, uint64_t size_bytes, uint64_t old_bytes)
{
    if (content != NULL && old_bytes > size_bytes)
        memset(content + size_bytes, 0, old_bytes - size_bytes);
}

void simdisk_damage_size(struct simdisk *disk, const char *path, const char *name, uint64_t size_bytes)
{
    lock(disk);
    struct sim_inode *inode = inode_of(disk, path, name);
    cut(inode->cached, size_bytes, inode->size_bytes);
    cut(inode->observed, size_bytes, inode->size_bytes);
    cut(inode->durable, size_bytes, inode->durable_size_bytes);
    inode->size_bytes = inode->durable_size_bytes = size_bytes;
    if (size_bytes > inode->touched_end)
        inode->touched_end = size_bytes;
    unlock(disk);
}
