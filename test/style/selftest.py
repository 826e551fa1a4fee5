#!/usr/bin/env python3
"""
Goal: style.py finds what it is there to find, and lets through what is right.
Method: each case is a small source tree; good ones must give no finding, bad ones exactly the one that is named.
"""

import argparse
import io
import os
import subprocess
import sys
import tempfile
from contextlib import redirect_stdout

import style

HEAD = "/* Purpose. Layer %d. */\n"
LIST = "test/style/atomics.txt"
DOC = "doc/concurrency.md"
TABLE = "| label | meaning |\n|---|---|\n"
LOAD = "int f(_Atomic int *p)\n{\n    return atomic_load_explicit(p, memory_order_%s);\n}\n"
# Banned words in two parts, so that this file passes its own check.
WORDS = ["G" "C runs", "x_g" "c_y", "TO" "DO: later", "FIX" "ME", "XX" "X here"]


def layer(number, text=""):
    return HEAD % number + text


# (check, title, files, expected): expected is None, or a piece of the one finding.
CASES = [
    ("layers", "lower layer, own folder, system and public header", {
        "src/base/a.h": layer(0), "src/page/b.h": layer(2),
        "src/page/b.c": layer(2, '#include "page/b.h"\n#include "base/a.h"\n#include <stdio.h>\n'
                                 '#include <quire/quire.h>\n')}, None),
    ("layers", "include of a higher layer", {
        "src/tree/a.h": layer(4), "src/page/b.c": layer(2, '#include "tree/a.h"\n')}, "not in a lower layer"),
    ("layers", "include sideways", {
        "src/os/a.h": layer(1), "src/epoch/b.c": layer(1, '#include "os/a.h"\n')}, "not in a lower layer"),
    ("layers", "include relative to the file", {
        "src/page/a.h": layer(2), "src/page/b.c": layer(2, '#include "a.h"\n')}, "no file below src/"),
    ("layers", "include with dots", {
        "src/base/a.h": layer(0), "src/page/b.c": layer(2, '#include "page/../base/a.h"\n')}, "no file below src/"),
    ("layers", "include of nothing", {"src/page/b.c": layer(2, '#include "base/none.h"\n')}, "no file below src/"),
    ("layers", "extensions use the public header", {
        "src/base/a.h": layer(0), "src/ext/b.c": layer(7, '#include "base/a.h"\n')}, "not in a lower layer"),
    ("layers", "liburcu outside epoch", {"src/map/b.c": layer(3, "#include <urcu/urcu-bp.h>\n")}, "liburcu"),
    ("layers", "liburcu in epoch", {"src/epoch/b.c": layer(1, "#include <urcu/urcu-bp.h>\n")}, None),
    ("layers", "wrong layer stated", {"src/map/b.c": layer(2)}, "Layer 3"),
    ("layers", "no first comment", {"src/map/b.c": "int x;\n" + layer(3)}, "Layer 3"),
    ("layers", "unknown folder", {"src/misc/b.c": layer(1)}, "not in a layer folder"),
    ("layers", "a tool with files of its own", {
        "tools/a.c": '#include "b.h"\n#include <quire/quire.h>\n', "tools/b.h": ""}, None),
    ("layers", "a benchmark with a file in a folder below", {
        "bench/x/a.c": '#include "b.h"\n', "bench/b.h": ""}, None),
    ("layers", "a tool with an internal header", {
        "src/base/a.h": layer(0), "tools/a.c": '#include "base/a.h"\n'}, "public header only"),

    ("atomics", "listed file", {"src/map/a.c": LOAD % "relaxed", LIST: "src/map/a.c # why\n"}, None),
    ("atomics", "listed by pattern", {"src/map/a.c": LOAD % "relaxed", LIST: "src/map/*\n"}, None),
    ("atomics", "file that is not listed", {"src/map/a.c": LOAD % "relaxed", LIST: ""}, "not in"),
    ("atomics", "builtin", {"src/map/a.c": "int x = __sync_add(1);\n", LIST: ""}, "not in"),
    ("atomics", "words in comments and strings", {
        "src/map/a.c": '/* atomic_load */ // _Atomic\nconst char *s = "atomic_load";\n', LIST: ""}, None),
    ("atomics", "stale line", {"src/map/a.c": "int x;\n", LIST: "src/map/a.c\n"}, "matches no file"),
    ("atomics", "fence", {
        "src/map/a.c": "_Atomic int a;\nvoid f(void) { atomic_thread_fence(memory_order_seq_cst); }\n",
        LIST: "src/map/a.c\n"}, "fences"),
    ("atomics", "fence in epoch", {
        "src/epoch/a.c": "_Atomic int a;\nvoid f(void) { atomic_thread_fence(memory_order_seq_cst); }\n",
        LIST: "src/epoch/a.c\n"}, None),
    ("atomics", "volatile", {"src/map/a.c": "volatile int x;\n", LIST: ""}, "volatile"),
    ("atomics", "volatile assembly", {"src/map/a.c": 'void f(void) { __asm__ volatile("nop"); }\n', LIST: ""}, None),

    ("ordering", "relaxed with a reason", {
        "src/map/a.c": "/* relaxed: a count */\n" + LOAD % "relaxed", DOC: TABLE}, None),
    ("ordering", "relaxed without a reason", {"src/map/a.c": LOAD % "relaxed", DOC: TABLE}, "relaxed: why"),
    ("ordering", "relaxed with an empty reason", {
        "src/map/a.c": "/* relaxed: */\n" + LOAD % "relaxed", DOC: TABLE}, "relaxed: why"),
    ("ordering", "acquire with a label", {
        "src/map/a.c": "/* order: map.head sees the page */\n" + LOAD % "acquire", DOC: TABLE + "| map.head | x |\n"},
     None),
    ("ordering", "label on the line itself", {
        "src/map/a.c": "int x = atomic_load_explicit(p, memory_order_acquire); /* order: map.head x */\n",
        DOC: TABLE + "| `map.head` | x |\n"}, None),
    ("ordering", "acquire without a label", {"src/map/a.c": LOAD % "acquire", DOC: TABLE}, "order: label"),
    ("ordering", "acquire with a reason for relaxed", {
        "src/map/a.c": "/* relaxed: a count */\n" + LOAD % "acquire", DOC: TABLE}, "order: label"),
    ("ordering", "label four lines above", {
        "src/map/a.c": "/* order: map.head x */\nint a;\nint b;\n" + LOAD % "acquire",
        DOC: TABLE + "| map.head | x |\n"}, "order: label"),
    ("ordering", "label after the operation", {
        "src/map/a.c": LOAD % "acquire" + "/* order: map.head x */\n", DOC: TABLE + "| map.head | x |\n"},
     "order: label"),
    ("ordering", "exchange over several lines, one order stronger", {
        "src/map/a.c": "/* order: map.cas x */\nint x = atomic_compare_exchange_strong_explicit(p, &e,\n    1,\n"
                       "    memory_order_release,\n    memory_order_relaxed);\n",
        DOC: TABLE + "| map.cas | x |\n"}, None),
    ("ordering", "operation without an order", {"src/map/a.c": "int x = atomic_load(p);\n", DOC: TABLE},
     "no explicit memory order"),
    ("ordering", "initialization needs none", {"src/map/a.c": "void f(void) { atomic_init(p, 1); }\n", DOC: TABLE},
     None),
    ("ordering", "order handed to a wrapper", {
        "src/map/a.c": "int x = wrapper(p, memory_order_acquire);\n", DOC: TABLE}, "order: label"),
    ("ordering", "compiler builtin", {
        "src/map/a.c": "int x = __atomic_load_n(p, __ATOMIC_ACQUIRE);\n", DOC: TABLE}, "order: label"),
    ("ordering", "label without a row", {
        "src/map/a.c": "/* order: map.head x */\n" + LOAD % "acquire", DOC: TABLE}, "no row"),
    ("ordering", "row without a label", {"src/map/a.c": "int x;\n", DOC: TABLE + "| map.head | x |\n"},
     "no such label"),
    ("ordering", "other tables do not count", {
        "src/map/a.c": "int x;\n", DOC: "| stop point | x |\n|---|---|\n| split.left | x |\n\n" + TABLE}, None),
    ("ordering", "partner that does not exist", {
        "src/map/a.c": "/* order: map.head pairs with map.tail */\n" + LOAD % "acquire",
        DOC: TABLE + "| map.head | x |\n"}, "nobody's label"),
    ("ordering", "no document", {"src/map/a.c": "/* order: map.head x */\n" + LOAD % "acquire"}, "no row"),

    ("size", "a thousand lines", {"src/map/a.c": "\n" * 1000}, None),
    ("size", "a thousand and one", {"src/map/a.c": "\n" * 1001}, "limit"),
    ("words", "innocent neighbours", {"doc/a.md": "XXH3, /tmp/name-XX" "XXXX, todo list, agc, gcc, GCM\n"}, None),
] + [("words", word, {"doc/a.md": word + "\n"}, "banned word") for word in WORDS]

HEADER_CASES = [
    ("complete header", "src/map/a.h", "#include <stdint.h>\nstatic inline uint8_t f(void) { return 1; }\n", None),
    ("type without its include", "src/map/a.h", "uint8_t f(void);\n", "does not compile alone"),
    ("no guard", "src/map/a.h", "struct a { int x; };\n", "does not compile alone"),
    ("only right for tests", "src/map/a.h", "#ifdef QR_TESTING\nmissing_t f(void);\n#endif\n", "-DQR_TESTING"),
    ("piece of code", "src/map/a_body.h", "missing_t f(void);\n", None),
    ("public header", "include/quire/quire.h", "int f(void);\n", None),
    ("public header with a C++ keyword", "include/quire/quire.h", "int f(int class);\n", "-std=c++17"),
    ("public header of C11", "include/quire/quire.h", "_Static_assert(1, \"\");\n", "-std=c99"),
]


def write_tree(root, files):
    for name, text in files.items():
        path = os.path.join(root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if name.endswith(".h") and "#ifndef" not in text and "no guard" not in text and "struct a" not in text:
            guard = name.upper().replace("/", "_").replace(".", "_")
            first, _, rest = text.partition("\n") if text.startswith("/*") else ("", "", text)
            text = f"{first}\n#ifndef {guard}\n#define {guard}\n{rest}\n#endif\n"
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)


def run(arguments):
    output = io.StringIO()
    with redirect_stdout(output):
        code = style.main(arguments)
    return code, output.getvalue().splitlines()


def wrong(code, lines, expected, exact):
    """None, or why the outcome is not the expected one."""
    findings = [line for line in lines[:-1] if "warning" not in line]
    if expected is None:
        return "findings in a good tree" if code != 0 or findings else None
    if code == 0 or not any(expected in line for line in findings):
        return f"no finding with `{expected}`"
    return "more than one finding" if exact and len(findings) > 1 else None


def symbol_outcome(root, cc, exported, declared, library_flags):
    write_tree(root, {"include/quire/quire.h": "#define QUIRE_API\n/* QUIRE_API int comment(void); */\n" +
                                               "".join(f"QUIRE_API const char *{name}(int x);\n" for name in declared)})
    source, library = os.path.join(root, "a.c"), os.path.join(root, "a.so")
    with open(source, "w", encoding="utf-8") as file:
        file.write("".join(f"const char *{name}(int x) {{ return x ? 0 : \"\"; }}\n" for name in exported))
    subprocess.run(cc.split() + ["-shared", "-fPIC", "-o", library, source] + library_flags, check=True)
    return run(["--root", root, "symbols", "--shared", library])


def main():
    parser = argparse.ArgumentParser(description="Test of the style checks.")
    parser.add_argument("--cc", default="cc")
    parser.add_argument("--cxx", default="c++")
    options = parser.parse_args()
    passed = failed = 0

    def judge(title, reason, lines):
        nonlocal passed, failed
        if reason is None:
            passed += 1
        else:
            failed += 1
            print(f"{title}: {reason}")
            print("\n".join("    " + line for line in lines))

    for check, title, files, expected in CASES:
        with tempfile.TemporaryDirectory() as root:
            # A tree of nothing but documents still has one item to pass.
            write_tree(root, {"src/base/zero.h": layer(0)} | files)
            code, lines = run(["--root", root, check])
            # Some trees earn a second, unasked finding (a missing row beside a missing comment).
            judge(f"{check}: {title}", wrong(code, lines, expected, check not in ("ordering",)), lines)
    for title, name, text, expected in HEADER_CASES:
        with tempfile.TemporaryDirectory() as root:
            write_tree(root, {"src/base/zero.h": layer(0), name: text})
            code, lines = run(["--root", root, "headers", "--cc", options.cc, "--cxx", options.cxx])
            judge(f"headers: {title}", wrong(code, lines, expected, False), lines)
    for title, exported, declared, expected in [
            ("as declared", ["quire_a", "quire_b"], ["quire_a", "quire_b"], None),
            ("one too many", ["quire_a", "quire_b"], ["quire_a"], "quire_b: exported by"),
            ("one missing", ["quire_a"], ["quire_a", "quire_b"], "quire_b: declared")]:
        with tempfile.TemporaryDirectory() as root:
            code, lines = symbol_outcome(root, options.cc, exported, declared, [])
            judge(f"symbols: {title}", wrong(code, lines, expected, True), lines)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
