/*
 * check: reads everything and reports each defect.
 *
 * Layer: tools.
 */
#include "tool.h"

#include <inttypes.h>

static void print_defect(const char *file, uint64_t offset, const char *tree, uint64_t page_id, const char *text)
{
    if (!settings.json) {
        if (file != NULL)
            printf("%s, offset %" PRIu64 ": ", file, offset);
        if (page_id != 0)
            printf("page %" PRIu64 "%s", page_id, tree == NULL ? ": " : "");
        if (tree != NULL)
            printf("%stree \"%s\": ", page_id != 0 ? " of " : "", tree);
        printf("%s\n", text);
        return;
    }
    printf("{\"defect\":");
    put_json_text(text);
    if (file != NULL) {
        printf(",\"file\":");
        put_json_text(file);
        printf(",\"offset\":%" PRIu64, offset);
    }
    if (tree != NULL) {
        printf(",\"tree\":");
        put_json_text(tree);
    }
    if (page_id != 0)
        printf(",\"page\":%" PRIu64, page_id);
    printf("}\n");
}

static int tell(void *context, const struct quire_defect *defect)
{
    uint64_t *defects = context;
    ++*defects;
    print_defect(defect->file, defect->offset, defect->tree, defect->page_id, defect->text);
    return 0;
}

static void print_sum(uint64_t defects)
{
    if (settings.json)
        printf("{\"defects\":%" PRIu64 "}\n", defects);
    else if (defects == 0)
        printf("no defect\n");
    else
        printf("%" PRIu64 " defect%s\n", defects, defects == 1 ? "" : "s");
}

static int run_check(const struct command *command)
{
    struct quire *db;
    struct quire_options options;
    struct quire_error_detail detail;
    uint64_t defects = 0;
    (void)command;
    quire_options_init(&options);
    options.open_mode = QUIRE_OPEN_READ_ONLY;
    options.recovery_progress = progress_of_recovery;
    options.background_threads = QUIRE_NO_THREADS;
    int result = quire_open(settings.plain[0], &options, &db);
    progress_end();
    if (result == QUIRE_ERR_CORRUPT) {
        quire_error_detail(&detail);
        print_defect(NULL, 0, NULL, 0, detail.message);
        print_sum(1);
        return EXIT_DAMAGED;
    }
    if (result != 0)
        return result == QUIRE_NOT_FOUND ? tool_fail(EXIT_ABSENT, "%s: there is no store", settings.plain[0])
                                         : tool_failed(result, settings.plain[0]);
    result = quire_verify(db, tell, &defects);
    int code = EXIT_DONE;
    if (result != 0 && result != QUIRE_ERR_CORRUPT)
        code = tool_failed(result, "check");
    else
        print_sum(defects);
    if (result == QUIRE_ERR_CORRUPT)
        code = EXIT_DAMAGED;
    return tool_close(db, code);
}

const struct command command_check = {
    "check", "[OPTION...] STORE", "Reads everything and reports each defect",
    "Checksums of manifest, pages and log; the mapping of pages against the segments; order, bounds and reachability in\n"
    "every tree. A store that cannot be opened because it is damaged has one defect, which says where. Changes nothing.\n"
    "Exit code 4: there are defects.\n",
    "j", 1, 1, run_check,
};
