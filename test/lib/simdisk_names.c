/*
 * simdisk_names.c: directories of the simulated disk: names as a process sees them, as they survive, and what lies
 * between.
 *
 * Test library.
 */
#include "simdisk_state.h"

#include <stdlib.h>
#include <string.h>

/* ---- Lists of names --------------------------------------------------------------------------------------------- */

static struct sim_name *find(const struct sim_names *names, const char *name)
{
    for (size_t i = 0; i < names->count; i++) {
        if (strcmp(names->names[i].name, name) == 0)
            return &names->names[i];
    }
    return NULL;
}

uint64_t sim_names_find(const struct sim_names *names, const char *name)
{
    const struct sim_name *found = find(names, name);
    return found != NULL ? found->inode : 0;
}

bool sim_names_have_inode(const struct sim_names *names, uint64_t inode)
{
    for (size_t i = 0; i < names->count; i++) {
        if (names->names[i].inode == inode)
            return true;
    }
    return false;
}

static void set_name(struct sim_names *names, const char *name, uint64_t inode)
{
    struct sim_name *found = find(names, name);
    if (found != NULL) {
        found->inode = inode;
        return;
    }
    names->names = sim_grow(names->names, names->count, &names->capacity, sizeof(*names->names));
    names->names[names->count++] = (struct sim_name){sim_string(name), inode};
}

/* A crash may apply an unlink without the creation before it. */
static void remove_name(struct sim_names *names, const char *name)
{
    struct sim_name *found = find(names, name);
    if (found == NULL)
        return;
    free(found->name);
    names->count--;
    memmove(found, found + 1, (size_t)(names->names + names->count - found) * sizeof(*found));
}

static void clear_names(struct sim_names *names)
{
    for (size_t i = 0; i < names->count; i++)
        free(names->names[i].name);
    free(names->names);
    *names = (struct sim_names){0};
}

void sim_names_copy(struct sim_names *to, const struct sim_names *from)
{
    clear_names(to);
    for (size_t i = 0; i < from->count; i++)
        set_name(to, from->names[i].name, from->names[i].inode);
}

/* ---- Directories ------------------------------------------------------------------------------------------------ */

struct sim_dir *sim_dir_find(const struct simdisk *disk, const char *path)
{
    struct sim_dir *dir = disk->dirs;
    while (dir != NULL && strcmp(dir->path, path) != 0)
        dir = dir->next;
    return dir;
}

struct sim_dir *sim_dir_create(struct simdisk *disk, const char *path, uint64_t number)
{
    struct sim_dir *dir = sim_alloc(sizeof(*dir));
    struct sim_dir **link = &disk->dirs;
    dir->path = sim_string(path);
    dir->number = number;
    while (*link != NULL)
        link = &(*link)->next;
    *link = dir;
    return dir;
}

static void free_op(struct sim_name_op *op)
{
    free(op->name);
    free(op->to);
}

void sim_dir_destroy(struct simdisk *disk, struct sim_dir *dir)
{
    struct sim_dir **link = &disk->dirs;
    while (*link != dir)
        link = &(*link)->next;
    *link = dir->next;
    for (size_t i = 0; i < dir->op_count; i++)
        free_op(&dir->ops[i]);
    free(dir->ops);
    clear_names(&dir->cached);
    clear_names(&dir->durable);
    free(dir->path);
    free(dir);
}

void sim_name_op_apply(const struct sim_name_op *op, struct sim_names *names, bool *exists)
{
    switch (op->kind) {
    case SIM_MAKE_DIR:
        *exists = true;
        break;
    case SIM_CREATE:
        set_name(names, op->name, op->inode);
        break;
    case SIM_UNLINK:
        remove_name(names, op->name);
        break;
    case SIM_RENAME:
        remove_name(names, op->name);
        set_name(names, op->to, op->inode);
        break;
    }
}

void sim_dir_change(struct simdisk *disk, struct sim_dir *dir, enum sim_name_op_kind kind, const char *name,
                    const char *to, uint64_t inode)
{
    bool exists = true;
    dir->ops = sim_grow(dir->ops, dir->op_count, &dir->op_capacity, sizeof(*dir->ops));
    struct sim_name_op *op = &dir->ops[dir->op_count++];
    *op = (struct sim_name_op){kind, false, disk->next_sequence++, sim_string(name), to != NULL ? sim_string(to) : NULL,
                               inode};
    sim_name_op_apply(op, &dir->cached, &exists);
}

static bool touches(const struct sim_name_op *op, const char *name)
{
    return strcmp(op->name, name) == 0 || (op->to != NULL && strcmp(op->to, name) == 0);
}

/* Whether later changes decide about the name. */
static bool is_decided_later(const struct sim_dir *dir, size_t index, const char *name)
{
    for (size_t i = index + 1; i < dir->op_count; i++) {
        if (!dir->ops[i].doubtful && touches(&dir->ops[i], name))
            return true;
    }
    return false;
}

/* Doubtful changes stay where they are: a later good sync says nothing about them. But it does about the names that were
 * changed again: those are as the later change left them. */
void sim_dir_sync(struct sim_dir *dir)
{
    size_t kept = 0;
    for (size_t i = 0; i < dir->op_count; i++) {
        const struct sim_name_op *op = &dir->ops[i];
        if (op->doubtful && is_decided_later(dir, i, op->name) && (op->to == NULL || is_decided_later(dir, i, op->to))) {
            free_op(&dir->ops[i]);
            continue;
        }
        if (op->doubtful) {
            dir->ops[kept++] = dir->ops[i];
            continue;
        }
        sim_name_op_apply(&dir->ops[i], &dir->durable, &dir->durable_exists);
        free_op(&dir->ops[i]);
    }
    dir->op_count = kept;
}

void sim_dir_fail_sync(struct sim_dir *dir)
{
    for (size_t i = 0; i < dir->op_count; i++)
        dir->ops[i].doubtful = true;
}

void sim_dir_clone(struct simdisk *disk, const struct sim_dir *dir)
{
    struct sim_dir *clone = sim_dir_create(disk, dir->path, dir->number);
    clone->durable_exists = dir->durable_exists;
    sim_names_copy(&clone->cached, &dir->cached);
    sim_names_copy(&clone->durable, &dir->durable);
    clone->ops = sim_alloc(dir->op_count * sizeof(*clone->ops));
    clone->op_count = clone->op_capacity = dir->op_count;
    for (size_t i = 0; i < dir->op_count; i++) {
        clone->ops[i] = dir->ops[i];
        clone->ops[i].name = sim_string(dir->ops[i].name);
        clone->ops[i].to = dir->ops[i].to != NULL ? sim_string(dir->ops[i].to) : NULL;
    }
}
