/*
 * repair: a new store from what can be read of a damaged one.
 *
 * Layer: tools.
 */
#include "tool.h"

#include <inttypes.h>
#include <string.h>

static const char *name_of(uint32_t kind)
{
    switch ((enum quire_loss_kind)kind) {
    case QUIRE_LOSS_RANGE:
        return "range";
    case QUIRE_LOSS_VALUE:
        return "value";
    case QUIRE_LOSS_LOG:
        return "log";
    case QUIRE_LOSS_NAME:
        return "name";
    case QUIRE_LOSS_NEWEST:
        return "newest";
    }
    return "unknown";
}

static void print_json(const struct quire_loss *loss)
{
    printf("{\"lost\":\"%s\"", name_of(loss->kind));
    if (loss->tree != NULL) {
        printf(",\"tree\":");
        put_json_text(loss->tree);
    }
    if (loss->low.data != NULL) {
        putchar(',');
        put_json_bytes(loss->kind == QUIRE_LOSS_VALUE ? "key" : "low", loss->low.data, loss->low.size);
    }
    if (loss->high.data != NULL && loss->kind != QUIRE_LOSS_VALUE) {
        putchar(',');
        put_json_bytes("high", loss->high.data, loss->high.size);
    }
    printf(",\"text\":");
    put_json_text(loss->text);
    printf("}\n");
}

static void print_bound(const struct quire_slice *bound, const char *otherwise)
{
    if (bound->data == NULL) {
        printf("%s", otherwise);
        return;
    }
    putchar('"');
    put_escaped(bound->data, bound->size);
    putchar('"');
}

static void print_loss(void *context, const struct quire_loss *loss)
{
    (void)context;
    progress_end();
    if (settings.json) {
        print_json(loss);
        return;
    }
    printf("lost: ");
    if (loss->tree != NULL)
        printf("tree \"%s\": ", loss->tree);
    if (loss->kind == QUIRE_LOSS_VALUE) {
        printf("key ");
        print_bound(&loss->low, "");
        printf(": ");
    } else if (loss->kind == QUIRE_LOSS_RANGE || loss->tree == NULL) {
        if (loss->kind != QUIRE_LOSS_LOG) {
            printf("from ");
            print_bound(&loss->low, "the first");
            printf(" to before ");
            print_bound(&loss->high, "the end");
            printf(": ");
        }
    }
    printf("%s\n", loss->text);
}

static void print_report(const struct quire_repair_report *r)
{
    const struct {
        const char *name;
        uint64_t value;
    } lines[] = {
        {"trees", r->trees},
        {"records", r->records},
        {"log_records", r->log_records},
        {"pages_read", r->pages_read},
        {"bytes_read", r->bytes_read},
        {"pages_damaged", r->pages_damaged},
        {"mapping_damaged", r->mapping_damaged},
        {"segments_damaged", r->segments_damaged},
        {"ranges_lost", r->ranges_lost},
        {"values_lost", r->values_lost},
        {"logs_lost", r->logs_lost},
        {"names_lost", r->names_lost},
        {"newest_lost", r->newest_lost},
    };
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        if (settings.json)
            printf("%c\"%s\":%" PRIu64, i == 0 ? '{' : ',', lines[i].name, lines[i].value);
        else
            printf("%-17s%" PRIu64 "\n", lines[i].name, lines[i].value);
    }
    if (settings.json)
        printf("}\n");
}

static int run_repair(const struct command *command)
{
    struct quire_repair_report report = {.struct_size = sizeof(report)};
    const char *from = settings.plain[0], *to = settings.plain[1];
    (void)command;
    int result = quire_repair(from, to, print_loss, NULL, &report);
    if (result == QUIRE_NOT_FOUND)
        return tool_fail(EXIT_ABSENT, "%s: there is no store", from);
    if (result == QUIRE_EXISTS)
        return tool_fail(EXIT_FAILED, "%s: there is a store already", to);
    if (result < 0)
        return tool_failed(result, "repair");
    print_report(&report);
    return result == QUIRE_INCOMPLETE ? EXIT_DAMAGED : EXIT_DONE;
}

const struct command command_repair = {
    "repair", "[OPTION...] STORE TARGET", "Makes a new store of what can be read of a damaged one",
    "The damaged store is not changed, and nobody may have it open for writing. TARGET is not there, or is an empty\n"
    "directory. Prints what was lost, and what was read. Exit code 4: something was lost; TARGET has all the rest.\n",
    "jx", 2, 2, run_repair,
};
