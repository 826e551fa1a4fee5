/*
 * FeOxDB's example "Atomic counters": add 1, add 10, subtract 1.
 *
 * Layer: example. A counter is 8 bytes, little-endian; an absent one counts as 0.
 */
#include "example.h"

#include <inttypes.h>

int main(void)
{
    static const uint8_t zero[8];
    struct quire_tree *tree;
    struct quire *db;
    int64_t visits, downloads;

    OK(quire_open(NULL, NULL, &db));
    OK(quire_tree_open(db, NULL, NULL, &tree));
    OK(quire_put(tree, TEXT("stats:visits"), zero, sizeof(zero), 0, NULL));
    OK(quire_put(tree, TEXT("stats:downloads"), zero, sizeof(zero), 0, NULL));

    OK(quire_add(tree, TEXT("stats:visits"), 1, 0, &visits, NULL));
    printf("Visits: %" PRId64 "\n", visits);
    CHECK(visits == 1);

    OK(quire_add(tree, TEXT("stats:downloads"), 10, 0, &downloads, NULL));
    printf("Downloads: %" PRId64 "\n", downloads);
    CHECK(downloads == 10);

    OK(quire_add(tree, TEXT("stats:visits"), -1, 0, &visits, NULL));
    printf("Visits after decrement: %" PRId64 "\n", visits);
    CHECK(visits == 0);

    OK(quire_close(db));
    return 0;
}
