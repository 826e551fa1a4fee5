/*
 * Goal: a C program that links libquire.so and a library written in C++ keeps its malloc, and both work.
 * Method: memory goes back and forth between C, C++ (RocksDB) and Quire; an allocator that replaced operator new and not
 *         malloc would be given memory that is not its own, and abort. Then malloc is looked up: it is the C library's.
 */
#include <quire/quire.h>

#include <dlfcn.h>
#include <rocksdb/c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failed;
static int passed;

static void check(int condition, const char *text)
{
    if (condition) {
        passed++;
        return;
    }
    failed++;
    printf("FAILED: %s\n", text);
}

/* RocksDB's C interface hands out strings from malloc that C++ code filled, and objects from operator new. */
static void use_rocksdb(const char *directory)
{
    char *error = NULL, *value;
    size_t size = 0;
    rocksdb_options_t *options = rocksdb_options_create();
    rocksdb_writeoptions_t *write = rocksdb_writeoptions_create();
    rocksdb_readoptions_t *read = rocksdb_readoptions_create();

    rocksdb_options_set_create_if_missing(options, 1);
    rocksdb_t *store = rocksdb_open(options, directory, &error);
    check(error == NULL, "rocksdb_open");
    if (error == NULL) {
        rocksdb_put(store, write, "key", 3, "value", 5, &error);
        value = rocksdb_get(store, read, "key", 3, &size, &error);
        check(error == NULL && size == 5 && memcmp(value, "value", 5) == 0, "rocksdb_get");
        free(value);
        rocksdb_close(store);
        rocksdb_destroy_db(options, directory, &error);
    }
    free(error);
    rocksdb_readoptions_destroy(read);
    rocksdb_writeoptions_destroy(write);
    rocksdb_options_destroy(options);
}

static void use_quire(void)
{
    struct quire *db;
    struct quire_tree *tree;
    void *value = NULL;
    size_t size = 0;

    check(quire_open(NULL, NULL, &db) == 0, "quire_open");
    check(quire_tree_open(db, NULL, NULL, &tree) == 0, "quire_tree_open");
    check(quire_put(tree, "key", 3, "value", 5, 0, NULL) == 0, "quire_put");
    check(quire_get_copy(tree, NULL, "key", 3, &value, &size) == 0 && size == 5, "quire_get_copy");
    quire_free(value);
    check(quire_close(db) == 0, "quire_close");
}

int main(void)
{
    char directory[] = "/tmp/quire-host.XXXXXX";
    Dl_info where = {0};

    check(mkdtemp(directory) != NULL, "mkdtemp");
    use_quire();
    use_rocksdb(directory);
    use_quire();
    check(dladdr(dlsym(RTLD_DEFAULT, "malloc"), &where) != 0 && strstr(where.dli_fname, "libc.so") != NULL,
          "malloc is not the C library's");
    check(dlsym(RTLD_DEFAULT, "mallocx") == NULL, "there is another allocator in the process");
    remove(directory);
    printf("%d passed, %d failed\n", passed, failed);
    return failed == 0 ? 0 : 1;
}
