/*
 * Goal: a child made by fork cannot use what it inherited, and harms neither itself nor the parent.
 * Method: open one of everything, fork, call every function in the child; the parent goes on afterwards.
 */
#include "api_dir.h"

#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

TestSuite(fork, .timeout = 60);

/* Everything that a parent may have open when it forks. */
struct inherited {
    struct quire *db;
    struct quire_tree *tree;
    struct quire_tree *caller;
    struct quire_guard guard;
    struct quire_snapshot *snapshot;
    uint64_t snapshot_lsn;
    struct quire_pages *pages;
};

static void open_all(struct inherited *all, uint32_t background_threads)
{
    struct quire_options options;
    quire_options_init(&options);
    options.background_threads = background_threads;
    OK(quire_open(NULL, &options, &all->db));
    all->tree = open_tree(all->db, NULL);
    all->caller = open_caller_tree(all->db, "caller");
    fill(all->tree, 0, 1000);
    OK(quire_pin(all->db, "parent", &all->guard));
    OK(quire_snapshot(all->db, "parent", &all->snapshot));
    all->snapshot_lsn = quire_snapshot_lsn(all->snapshot);
    cr_assert_gt(all->snapshot_lsn, 0);
    OK(quire_pages_open(all->tree, NULL, &all->pages));
}

/* The parent's handles work, and can be ended. */
static void use_and_close_all(struct inherited *all)
{
    struct quire_page page;
    struct quire_value value;
    put(all->tree, "after", "fork");
    expect(all->tree, NULL, "after", "fork");
    expect(all->tree, all->snapshot, "after", NULL);
    OK(quire_guard_get(&all->guard, all->tree, NULL, TEXT("key-000001"), &value));
    OK(quire_pages_next(all->pages, &page));
    OK(quire_pages_close(all->pages));
    OK(quire_snapshot_release(all->snapshot));
    OK(quire_unpin(&all->guard));
    OK(quire_close(all->db));
}

#define FORKED(call)                                                                                                   \
    do {                                                                                                               \
        int result_ = (call);                                                                                          \
        if (result_ != QUIRE_ERR_FORKED) {                                                                             \
            fprintf(stderr, "in the child: %s is %d\n", #call, result_);                                               \
            wrong++;                                                                                                   \
        }                                                                                                              \
    } while (0)

/* How many calls did not answer FORKED. */
static int writes_in_the_child(struct inherited *all)
{
    int wrong = 0;
    FORKED(quire_put(all->tree, TEXT("k"), TEXT("v"), 0, NULL));
    FORKED(quire_delete(all->tree, TEXT("k"), 0, NULL, NULL));
    FORKED(quire_insert(all->tree, TEXT("k"), TEXT("v"), 0, NULL));
    FORKED(quire_compare_and_swap(all->tree, TEXT("k"), TEXT("v"), TEXT("w"), 0, NULL));
    FORKED(quire_add(all->tree, TEXT("k"), 1, 0, NULL, NULL));
    FORKED(quire_put_at(all->caller, 1, TEXT("k"), TEXT("v"), 0, NULL));
    FORKED(quire_delete_at(all->caller, 1, TEXT("k"), 0, NULL));
    FORKED(quire_set_safe_lsn(all->caller, 1));
    FORKED(quire_maintain(all->db));
    FORKED(quire_verify(all->db, NULL, NULL));
    return wrong;
}

static int reads_in_the_child(struct inherited *all)
{
    struct quire_slice key = slice("k"), none = {NULL, 0};
    struct quire_value value;
    struct quire_pages *pages;
    struct quire_page page;
    uint64_t number;
    size_t size;
    void *copy;
    int result, wrong = 0;
    FORKED(quire_get(all->tree, NULL, TEXT("k"), NULL, 0, &size));
    FORKED(quire_get_copy(all->tree, all->snapshot, TEXT("k"), &copy, &size));
    FORKED(quire_exists(all->tree, NULL, TEXT("k")));
    FORKED(quire_count(all->tree, NULL, none, none, &number));
    FORKED(quire_get_at(all->caller, 1, TEXT("k"), NULL, 0, &size));
    FORKED(quire_guard_get(&all->guard, all->tree, NULL, TEXT("k"), &value));
    FORKED(quire_guard_get_at(&all->guard, all->caller, 1, TEXT("k"), &value));
    FORKED(quire_get_many(&all->guard, all->tree, NULL, &key, 1, &value, &result));
    FORKED(quire_pages_open(all->tree, NULL, &pages));
    FORKED(quire_pages_next(all->pages, &page));
    FORKED(quire_safe_lsn(all->caller, &number));
    FORKED(quire_last_lsn(all->db, &number));
    FORKED(quire_durable_lsn(all->db, &number));
    FORKED(quire_sync(all->db));
    FORKED(quire_wait_durable(all->db, 1));
    FORKED(quire_on_event(all->db, NULL, NULL));
    return wrong;
}

static int handles_in_the_child(struct inherited *all)
{
    struct quire_options options;
    struct quire_tree_options tree_options;
    struct quire_stats stats = {.struct_size = sizeof(stats)};
    struct quire_tree *tree;
    struct quire_snapshot *snapshot;
    struct quire_guard guard;
    char **names;
    size_t count;
    int wrong = 0;
    quire_options_init(&options);
    quire_tree_options_init(&tree_options);
    FORKED(quire_options_get(all->db, &options));
    FORKED(quire_tree_open(all->db, "t", NULL, &tree));
    FORKED(quire_tree_options_get(all->tree, &tree_options));
    FORKED(quire_tree_list(all->db, &names, &count));
    FORKED(quire_pin(all->db, NULL, &guard));
    FORKED(quire_repin(&all->guard));
    FORKED(quire_unpin(&all->guard));
    FORKED(quire_snapshot(all->db, NULL, &snapshot));
    FORKED(quire_snapshot_release(all->snapshot));
    FORKED(quire_pages_close(all->pages));
    FORKED(quire_stats(all->db, &stats));
    FORKED(quire_stats_reset(all->db));
    if (quire_snapshot_lsn(all->snapshot) != all->snapshot_lsn) {
        fprintf(stderr, "in the child: another LSN of the snapshot\n");
        wrong++;
    }
    return wrong;
}

/* Runs body in a child and returns its exit code. */
static int in_child(struct inherited *all, int (*body)(struct inherited *all))
{
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        alarm(30);
        _exit(body(all));
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status), "the child died of signal %d", WTERMSIG(status));
    return WEXITSTATUS(status);
}

/* L09: use after fork is an error, everywhere */
Test(fork, every_call_of_the_child_is_refused)
{
    for (int threads = 0; threads < 2; threads++) {
        struct inherited all;
        open_all(&all, threads ? 2 : QUIRE_NO_THREADS);
        cr_assert_eq(in_child(&all, writes_in_the_child), 0);
        cr_assert_eq(in_child(&all, reads_in_the_child), 0);
        cr_assert_eq(in_child(&all, handles_in_the_child), 0);
        use_and_close_all(&all);
    }
}

static int close_in_the_child(struct inherited *all)
{
    return quire_close(all->db) == 0 ? 0 : 1;
}

/* L09: close forgets the handle, although things are open in the parent */
Test(fork, close_in_the_child_is_fine)
{
    for (int threads = 0; threads < 2; threads++) {
        struct inherited all;
        open_all(&all, threads ? 1 : QUIRE_NO_THREADS);
        cr_assert_eq(in_child(&all, close_in_the_child), 0);
        use_and_close_all(&all);
    }
}

static int open_in_the_child(struct inherited *all)
{
    struct quire *db = NULL;
    struct quire_error_detail detail;
    (void)all;
    if (quire_open(NULL, NULL, &db) != QUIRE_ERR_FORKED || db != NULL)
        return 1;
    quire_error_detail(&detail);
    return detail.result == QUIRE_ERR_FORKED && strstr(detail.message, "fork") != NULL ? 0 : 2;
}

/* L09: reclamation cannot start anew in a child whose parent uses it; exec gives a new start */
Test(fork, the_child_may_not_open_a_database_of_its_own)
{
    struct inherited all;
    open_all(&all, 1);
    cr_assert_eq(in_child(&all, open_in_the_child), 0);
    use_and_close_all(&all);
}

static int repair_in_the_child(struct inherited *all)
{
    char from[128];
    (void)all;
    snprintf(from, sizeof(from), "%s", path_of("s"));
    if (quire_repair(from, path_of("r"), NULL, NULL, NULL) != QUIRE_ERR_FORKED)
        return 1;
    return is_there("r") ? 2 : 0;
}

/* L09: nor repair a store, which makes one */
Test(fork, the_child_may_not_repair_a_store, .init = make_root, .fini = remove_root)
{
    struct inherited all;
    OK(quire_close(open_store("s", QUIRE_CREATE_NEW)));
    open_all(&all, 1);
    cr_assert_eq(in_child(&all, repair_in_the_child), 0);
    use_and_close_all(&all);
}
