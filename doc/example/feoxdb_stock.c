/*
 * FeOxDB's example "Compare-and-swap": five orders of ten want some of a stock of fifty, each with a single attempt.
 *
 *     feoxdb_stock [RUNS]     (default 1)
 *
 * Layer: example. Whoever loses the race goes without. However it ends, what is left is the stock without ten for each
 * winner, and there is at least one.
 */
#include "example.h"

#include <pthread.h>

enum { ORDERS = 5, QUANTITY = 10, STOCK = 50 };

#define STOCK_KEY TEXT("product:iPhone16:stock")

struct order {
    pthread_t thread;
    pthread_barrier_t *barrier;
    struct quire_tree *tree;
    int successful;
};

/* The text in the store as a number; *ret_size: its length in `text`. */
static int read_stock(struct quire_tree *tree, char text[16], size_t *ret_size)
{
    OK(quire_get(tree, NULL, STOCK_KEY, text, 15, ret_size));
    text[*ret_size] = '\0';
    return atoi(text);
}

static void *place_order(void *argument)
{
    struct order *order = argument;
    char current[16], next[16];
    size_t current_size;

    pthread_barrier_wait(order->barrier); /* all orders at once */
    int stock = read_stock(order->tree, current, &current_size);
    if (stock < QUANTITY)
        return NULL;
    int next_size = snprintf(next, sizeof(next), "%d", stock - QUANTITY);
    int result = quire_compare_and_swap(order->tree, STOCK_KEY, current, current_size, next, (size_t)next_size, 0, NULL);
    CHECK(result == QUIRE_OK || result == QUIRE_CONFLICT);
    order->successful = result == QUIRE_OK;
    return NULL;
}

/* Returns how many orders were successful. */
static int run(struct quire_tree *tree, pthread_barrier_t *barrier)
{
    struct order orders[ORDERS] = {0};
    char text[16];
    size_t size;
    int successful = 0;

    OK(quire_put(tree, STOCK_KEY, TEXT("50"), 0, NULL));
    for (int i = 0; i < ORDERS; i++) {
        orders[i].tree = tree;
        orders[i].barrier = barrier;
        CHECK(pthread_create(&orders[i].thread, NULL, place_order, &orders[i]) == 0);
    }
    for (int i = 0; i < ORDERS; i++) {
        CHECK(pthread_join(orders[i].thread, NULL) == 0);
        successful += orders[i].successful;
    }
    CHECK(successful >= 1 && successful <= ORDERS);
    CHECK(read_stock(tree, text, &size) == STOCK - QUANTITY * successful);
    return successful;
}

int main(int argc, char **argv)
{
    int runs = argc > 1 ? atoi(argv[1]) : 1;
    int outcomes[ORDERS + 1] = {0};
    pthread_barrier_t barrier;
    struct quire_tree *tree;
    struct quire *db;

    CHECK(runs >= 1);
    OK(quire_open(NULL, NULL, &db));
    OK(quire_tree_open(db, NULL, NULL, &tree));
    CHECK(pthread_barrier_init(&barrier, NULL, ORDERS) == 0);
    for (int i = 0; i < runs; i++)
        outcomes[run(tree, &barrier)]++;
    for (int i = 1; i <= ORDERS; i++)
        printf("Successful orders: %d/%d, final stock %d: %d times\n", i, ORDERS, STOCK - QUANTITY * i, outcomes[i]);
    CHECK(pthread_barrier_destroy(&barrier) == 0);
    OK(quire_close(db));
    return 0;
}
