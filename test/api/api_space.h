/*
 * Shorthand for the tests of disks that are small or full.
 *
 * Test programs (api). TestSuite(..., .init = make_root, .fini = clean_up).
 */
#ifndef TEST_API_API_SPACE_H
#define TEST_API_API_SPACE_H

#include "api_dir.h"

HELPER void clean_up(void)
{
    char command[128];
    snprintf(command, sizeof(command), "umount -l %s/m 2>/dev/null", root);
    (void)!system(command); /* where a test has mounted one, and has not come to its end */
    remove_root();
}

/* Mounts a file system as root/m. %1$s in `mount` is root. False: it cannot be tried here. */
HELPER bool mount_one(const char *mount)
{
    char command[512];
    snprintf(command, sizeof(command), mount, root);
    return system(command) == 0;
}

/* A write that may have to wait for a checkpoint, which a background thread would make. */
HELPER void put_soon(struct quire *db, struct quire_tree *tree, uint64_t k, const char *bytes, size_t size)
{
    char key[16];
    int result = quire_put(tree, key, numbered(k, key), bytes, size, 0, NULL);
    for (int tries = 0; tries < 3000 && result == QUIRE_ERR_NO_SPACE; tries++) {
        usleep(1000);
        quire_maintain(db);
        result = quire_put(tree, key, numbered(k, key), bytes, size, 0, NULL);
    }
    OK(result);
}

#endif
