/*
 * What the files of the tool `quire` share: arguments, the way to a store, failures, exit codes, output.
 *
 * Layer: tools, on the public header alone. One thread.
 *
 * A command is a function of its arguments that returns an exit code. Commands that only look open the store read-only: they
 * change no byte of it, and never bring its format up to date.
 */
#ifndef TOOL_H
#define TOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <quire/quire.h>

enum tool_exit {
    EXIT_DONE = 0,
    EXIT_ABSENT = 1,  /* there is no such key, tree or store */
    EXIT_WRONG = 2,   /* arguments, or input that cannot be understood, or is too large to be stored */
    EXIT_FAILED = 3,  /* the store could not be opened, read or written; the message says why */
    EXIT_DAMAGED = 4, /* stored bytes do not verify, or check found a defect */
};

struct command {
    const char *name;
    const char *arguments; /* as in the usage line */
    const char *summary;   /* one line */
    const char *help;      /* what --help says beyond that */
    const char *options;   /* letters of the options that it has, see tool_parse */
    int least, most;       /* plain arguments, the store first; most -1: any number */
    int (*run)(const struct command *command);
};

/* What was given; the same for all commands, each of which names those that it has. */
struct settings {
    char **plain; /* arguments that are no options */
    int plain_count;
    const char *tree;         /* --tree; "": the default tree */
    bool tree_given;
    bool json;                /* --json */
    bool hex;                 /* --hex: keys and values of arguments and output are hexadecimal */
    bool reverse;             /* --reverse */
    bool keys_only;           /* --keys */
    bool raw;                 /* --raw */
    bool print;               /* --print: dump in the format print */
    const char *start, *end, *prefix, *format;
    uint64_t limit;           /* --limit; UINT64_MAX: none */
    bool version_given;
    uint64_t version;         /* --at */
    bool durable;             /* --durable */
};
extern struct settings settings;

/* Reads the arguments behind the command's name. 0, or an exit code + 1 when the command is not to run. */
int tool_parse(const struct command *command, int count, char **arguments);

/* ---- Failures: a message on standard error, and the exit code ---- */

__attribute__((format(printf, 2, 3))) int tool_fail(int exit_code, const char *format, ...);
/* Of a call that answered `result`; what: what was being done. INVALID, TOO_LARGE: arguments or input were wrong. */
int tool_failed(int result, const char *what);

/* ---- The store ---- */

/* Opens the store of the first plain argument. An exit code. */
int tool_open(uint32_t open_mode, struct quire **ret_db);
/* Closes it; the exit code is `code` unless that is 0 and closing fails. */
int tool_close(struct quire *db, int code);
/* Opens the tree of the settings, or `name`. create: makes it if it is not there. *ret_caller: it has caller versions. */
int tool_tree(struct quire *db, const char *name, bool create, struct quire_tree **ret_tree, bool *ret_caller);

/* ---- Bytes ---- */

/* Bytes that grow. */
struct bytes {
    char *data;
    size_t size, capacity;
};
bool bytes_add(struct bytes *to, const void *data, size_t size);
void bytes_free(struct bytes *bytes);

/* An argument or a field as bytes: escapes (\\ \t \n \r \xHH \HH), or hexadecimal. 0, or -1 with *ret_why. */
int bytes_parse(struct bytes *to, const char *text, size_t size, bool hex, const char **ret_why);
int bytes_argument(struct bytes *to, const char *argument); /* by --hex; an exit code, with the message */
int bytes_from_base64(struct bytes *to, const char *text);   /* 0 or -1 */

/* ---- Output (to standard output) ---- */

void put_escaped(const void *data, size_t size); /* the inverse of bytes_parse, or hexadecimal with --hex */
void put_hex(const void *data, size_t size);
/* A JSON member: "name":"text", or "name_base64":"..." if the bytes are no UTF-8 or have a NUL. */
void put_json_bytes(const char *name, const void *data, size_t size);
void put_json_version(uint64_t version); /* ,"version":N; a string above VERSION_EXACT, up to which readers of JSON are exact */
#define VERSION_EXACT (UINT64_C(1) << 53)
void put_json_text(const char *text); /* a JSON string of a C string; what is no UTF-8 becomes U+FFFD */
/* A whole number in decimal digits and nothing else. */
bool parse_number(const char *text, uint64_t *ret_number);
/* Standard output, flushed: EXIT_DONE or EXIT_FAILED with a message. */
int tool_flush(int code);

/* ---- Ranges ---- */

/* The bounds of --start, --end, --prefix. */
struct range {
    struct bytes start, end;
    bool has_start, has_end;
};
int range_from_settings(struct range *ret_range); /* an exit code */
void range_options(const struct range *range, struct quire_pages_options *ret_options);
void range_free(struct range *range);

/* ---- Progress: a bar on standard error, if that is a terminal ---- */

void progress_show(const char *what, uint64_t done, uint64_t all); /* all 0: not known */
void progress_end(void);
int progress_of_recovery(void *context, uint64_t done_bytes, uint64_t all_bytes);

/* ---- The commands ---- */

extern const struct command command_load, command_dump, command_get, command_put, command_delete, command_scan,
    command_pages, command_trees, command_stat, command_check, command_log, command_copy, command_files, command_manifest,
    command_repair;

#endif
