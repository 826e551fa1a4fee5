/*
 * Arguments of the commands.
 *
 * Layer: tools.
 */
#include "tool.h"

#include <stdlib.h>
#include <string.h>

struct settings settings = {.tree = "", .limit = UINT64_MAX};

/* letter: in struct command's options. takes: NULL, or what the value is called. */
struct option {
    char letter;
    const char *name, *takes, *help;
};

static const struct option options[] = {
    {'t', "--tree", "NAME", "the tree (default: the one without a name)"},
    {'j', "--json", NULL, "output as JSON, an object a line"},
    {'x', "--hex", NULL, "keys and values, of arguments and output, are hexadecimal"},
    {'s', "--start", "KEY", "from this key on"},
    {'e', "--end", "KEY", "up to this key, which is not in it"},
    {'p', "--prefix", "KEY", "keys that begin with it"},
    {'l', "--limit", "N", "so many at most"},
    {'r', "--reverse", NULL, "in descending order"},
    {'k', "--keys", NULL, "keys alone"},
    {'w', "--raw", NULL, "the bytes of the value as they are, and nothing else"},
    {'v', "--at", "N", "the version, in a tree with versions of the caller's (reading: default the newest)"},
    {'f', "--format", "F", "of the input: dump (default), lines (key TAB value, with escapes), json (an object a line)"},
    {'P', "--print", NULL, "printable characters as they are (format=print)"},
    {'d', "--durable", NULL, "each write is made durable before the next one"},
};
#define OPTION_COUNT (sizeof(options) / sizeof(options[0]))

static bool has(const struct command *command, char letter)
{
    return strchr(command->options, letter) != NULL;
}

static void help(const struct command *command)
{
    printf("usage: quire %s %s\n%s.\n", command->name, command->arguments, command->summary);
    if (command->help[0] != '\0')
        printf("\n%s", command->help);
    printf("\nOptions:\n");
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        if (has(command, options[i].letter))
            printf("  %-10s %-5s %s\n", options[i].name, options[i].takes == NULL ? "" : options[i].takes, options[i].help);
    }
    printf("  %-16s this text\n", "--help");
    printf("Exit codes: 0 done; 1 no such key, tree or store; 2 wrong arguments or input; 3 failed; 4 damaged.\n");
}

static int number(const struct option *option, const char *text, uint64_t *ret_number)
{
    if (parse_number(text, ret_number))
        return EXIT_DONE;
    return tool_fail(EXIT_WRONG, "%s: \"%s\" is not a number", option->name, text);
}

/* Refused before a store is opened, or made. */
static int tree_name(const char *name)
{
    struct quire_limits limits;
    quire_limits(&limits);
    if (strlen(name) > limits.max_tree_name_size)
        return tool_fail(EXIT_WRONG, "--tree: the name of a tree has at most %zu bytes", limits.max_tree_name_size);
    settings.tree = name;
    return EXIT_DONE;
}

static int take(const struct option *option, const char *value)
{
    switch (option->letter) {
    case 't':
        settings.tree_given = true;
        return tree_name(value);
    case 'j':
        settings.json = true;
        break;
    case 'x':
        settings.hex = true;
        break;
    case 's':
        settings.start = value;
        break;
    case 'e':
        settings.end = value;
        break;
    case 'p':
        settings.prefix = value;
        break;
    case 'l':
        return number(option, value, &settings.limit);
    case 'r':
        settings.reverse = true;
        break;
    case 'k':
        settings.keys_only = true;
        break;
    case 'w':
        settings.raw = true;
        break;
    case 'v':
        settings.version_given = true;
        return number(option, value, &settings.version);
    case 'f':
        settings.format = value;
        break;
    case 'P':
        settings.print = true;
        break;
    case 'd':
        settings.durable = true;
        break;
    }
    return EXIT_DONE;
}

static const struct option *find(const struct command *command, const char *name)
{
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        if (strcmp(options[i].name, name) == 0 && has(command, options[i].letter))
            return &options[i];
    }
    return NULL;
}

int tool_parse(const struct command *command, int count, char **arguments)
{
    bool only_plain = false;
    settings.plain = arguments; /* moved to the front */
    for (int i = 0; i < count; i++) {
        char *argument = arguments[i];
        if (only_plain || argument[0] != '-' || argument[1] == '\0') {
            settings.plain[settings.plain_count++] = argument;
            continue;
        }
        if (strcmp(argument, "--") == 0) {
            only_plain = true;
            continue;
        }
        if (strcmp(argument, "--help") == 0 || strcmp(argument, "-h") == 0) {
            help(command);
            return EXIT_DONE + 1;
        }
        const struct option *option = find(command, argument);
        if (option == NULL)
            return tool_fail(EXIT_WRONG, "%s has no option \"%s\" (quire %s --help)", command->name, argument, command->name) + 1;
        if (option->takes != NULL && i + 1 == count)
            return tool_fail(EXIT_WRONG, "%s needs a value", argument) + 1;
        int code = take(option, option->takes != NULL ? arguments[++i] : NULL);
        if (code != EXIT_DONE)
            return code + 1;
    }
    if (settings.plain_count < command->least || (command->most >= 0 && settings.plain_count > command->most))
        return tool_fail(EXIT_WRONG, "usage: quire %s %s", command->name, command->arguments) + 1;
    return 0;
}
