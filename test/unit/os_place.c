/*
 * A directory on each kind of disk, for the tests of src/os. What fails here ends the program: a header in the place of
 * Criterion's can be in one file of a program only.
 */
#include "os_place.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void must(bool condition, const char *what)
{
    if (condition)
        return;
    fprintf(stderr, "%s\n", what);
    abort();
}

static void make_disk(struct os_place *place)
{
    switch (place->kind) {
    case OS_POSIX:
        must(qr_disk_posix(&place->disk) == 0, "qr_disk_posix");
        break;
    case OS_URING:
        must(qr_disk_open(true, &place->disk) == 0, "qr_disk_open");
        if (strcmp(place->disk->name, "uring") != 0)
            fprintf(stderr, "no rings here: tested with system calls\n");
        break;
    case OS_SIMULATED:
        place->simulated = simdisk_create();
        place->disk = simdisk_disk(place->simulated);
        break;
    }
}

static void open_at(struct os_place *place, const char *base)
{
    snprintf(place->path, sizeof(place->path), "%s/db", base);
    place->dir = os_place_dir(place, QR_DIR_CREATE);
}

void os_place_open(struct os_place *place, enum os_kind kind)
{
    *place = (struct os_place){.kind = kind};
    make_disk(place);
    if (kind != OS_SIMULATED) {
        const char *temporary = getenv("TMPDIR");
        snprintf(place->base, sizeof(place->base), "%s/quire-os.XXXXXX", temporary != NULL ? temporary : "/tmp");
        must(mkdtemp(place->base) != NULL, "mkdtemp");
    }
    open_at(place, place->base);
}

void os_place_open_at(struct os_place *place, enum os_kind kind, const char *base)
{
    *place = (struct os_place){.kind = kind};
    make_disk(place);
    open_at(place, base);
}

/* What is in a directory may be links, pipes and directories. */
static void remove_tree(const char *path)
{
    char name[600];
    DIR *dir = opendir(path);
    const struct dirent *entry;
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 && unlink(name) != 0)
            rmdir(name);
    }
    if (dir != NULL)
        closedir(dir);
    rmdir(path);
}

void os_place_close(struct os_place *place)
{
    place->disk->ops->dir_close(place->dir);
    place->disk->ops->disk_free(place->disk);
    if (place->simulated != NULL) {
        simdisk_free(place->simulated);
        return;
    }
    remove_tree(place->path);
    if (place->base[0] != '\0')
        remove_tree(place->base);
}

struct qr_dir *os_place_dir(const struct os_place *place, unsigned flags)
{
    struct qr_dir *dir = NULL;
    must(place->disk->ops->dir_open(place->disk, place->path, flags, &dir) == 0, "dir_open");
    return dir;
}

struct qr_file *os_place_file(const struct os_place *place, const char *name, unsigned flags)
{
    struct qr_file *file = NULL;
    must(place->disk->ops->file_open(place->dir, name, flags, &file) == 0, "file_open");
    return file;
}

uint8_t os_pattern(uint64_t offset)
{
    return (uint8_t)(offset * 7 + (offset >> 8) * 13 + 1);
}

void os_check_pattern(const uint8_t *memory, uint64_t size, uint64_t offset)
{
    for (uint64_t i = 0; i < size; i++) {
        if (memory[i] != os_pattern(offset + i)) {
            fprintf(stderr, "byte %llu is %u\n", (unsigned long long)(offset + i), memory[i]);
            abort();
        }
    }
}

struct qr_file *os_place_filled(const struct os_place *place, const char *name, uint32_t size)
{
    struct qr_file *file = os_place_file(place, name, QR_FILE_WRITE | QR_FILE_CREATE | QR_FILE_EXCLUSIVE);
    uint8_t *bytes = malloc(size);
    must(bytes != NULL, "malloc");
    for (uint32_t i = 0; i < size; i++)
        bytes[i] = os_pattern(i);
    must(qr_file_write(file, bytes, size, 0) == 0, "qr_file_write");
    free(bytes);
    return file;
}
