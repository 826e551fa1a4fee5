/*
 * quire: a store of Quire, from the command line.
 *
 * Layer: tools. Next: tool.h, and a file for each group of commands.
 */
#include "tool.h"

#include <string.h>

static const struct command *const commands[] = {
    &command_get,   &command_put,  &command_delete, &command_scan,  &command_load, &command_dump,
    &command_trees, &command_pages, &command_stat,  &command_check, &command_log,  &command_copy,
    &command_files, &command_manifest, &command_repair,
};
#define COMMAND_COUNT (sizeof(commands) / sizeof(commands[0]))

static void usage(FILE *to)
{
    fprintf(to, "usage: quire COMMAND [OPTION...] STORE [ARGUMENT...]\n\n");
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        fprintf(to, "  %-8s %s\n", commands[i]->name, commands[i]->summary);
    fprintf(to, "\nSTORE is a directory. `quire COMMAND --help` says more; `man quire` says all.\n"
                "Exit codes: 0 done; 1 no such key, tree or store; 2 wrong arguments or input; 3 failed; 4 damaged.\n");
}

int main(int count, char **arguments)
{
    if (count < 2) {
        usage(stderr);
        return EXIT_WRONG;
    }
    const char *name = arguments[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        usage(stdout);
        return tool_flush(EXIT_DONE);
    }
    if (strcmp(name, "--version") == 0) {
        printf("quire %s\n", quire_version());
        return tool_flush(EXIT_DONE);
    }
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(commands[i]->name, name) != 0)
            continue;
        int code = tool_parse(commands[i], count - 2, arguments + 2);
        return tool_flush(code != 0 ? code - 1 : commands[i]->run(commands[i]));
    }
    usage(stderr);
    return tool_fail(EXIT_WRONG, "there is no command \"%s\"", name);
}
