#!/usr/bin/env python3
"""
Checks of the source text: what a compiler does not see, and a reviewer should not have to.

    style.py [--root DIR] layers | atomics | ordering | size | words
    style.py [--root DIR] headers [--cc CC] [--cxx CXX]
    style.py [--root DIR] symbols --shared LIB [--static LIB]

Each check is a generator of findings (file, line, text) and counts what it looked at; the last line of output is
`N passed, N failed`. selftest.py runs every check against small good and bad trees.
"""

import argparse
import bisect
import fnmatch
import os
import re
import subprocess
import sys
import tempfile

LAYERS = {"base": 0, "os": 1, "epoch": 1, "page": 2, "map": 3, "log": 3, "tree": 4, "store": 4, "txn": 5, "db": 6,
          "ext": 7}
PUBLIC_USERS = ("tools", "bench", "doc/example")
URCU_FOLDER = "src/epoch/"
MOST_LINES, MANY_LINES = 1000, 800


class Report:
    """Counts things that were looked at, and prints the findings about them."""

    def __init__(self):
        self.passed = 0
        self.failed = 0

    def item(self, name, findings):
        findings = list(findings)
        for line, text in findings:
            print(f"{name}:{line}: {text}" if line else f"{name}: {text}")
        if findings:
            self.failed += 1
        else:
            self.passed += 1

    def finish(self):
        print(f"{self.passed} passed, {self.failed} failed")
        return 0 if self.failed == 0 and self.passed > 0 else 1


# ---- Reading ---------------------------------------------------------------------------------------------------------

def files_of(root, folders, endings):
    """Paths relative to root, sorted; build directories and dot folders are left out."""
    found = []
    for folder in folders:
        for path, names, files in os.walk(os.path.join(root, folder)):
            names[:] = [n for n in names if not n.startswith((".", "build", "__pycache__"))]
            relative = os.path.relpath(path, root)
            found += [os.path.normpath(os.path.join(relative, f)) for f in files if f.endswith(endings)]
    return sorted(found)


def read(root, name):
    with open(os.path.join(root, name), encoding="utf-8", errors="replace") as file:
        return file.read()


TOKEN = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)


def split_comments(text):
    """(code, comments): code has blanks for comments and strings, same line breaks; comments are (begin, end, text)."""
    comments = []

    def blank(match):
        token = match.group(0)
        if token.startswith("/"):
            comments.append((match.start(), match.end(), token))
        return re.sub(r"[^\n]", " ", token)

    return TOKEN.sub(blank, text), comments


class Lines:
    """Line numbers (from 1) of offsets."""

    def __init__(self, text):
        self.starts = [0] + [m.end() for m in re.finditer("\n", text)]

    def of(self, offset):
        return bisect.bisect_right(self.starts, offset)


# ---- Layers ----------------------------------------------------------------------------------------------------------

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(?:"([^"\n]+)"|<([^>\n]+)>)', re.M)


def layer_findings(root, name, text):
    """An internal file includes lower layers and its own folder; it says in its first comment which layer it is."""
    folder = name.split("/")[1]
    lines = Lines(text)
    if folder not in LAYERS or name.count("/") != 2:
        yield 0, f"not in a layer folder of src/ ({', '.join(LAYERS)})"
        return
    first = re.match(r"/\*.*?\*/", text, re.S)
    stated = re.search(r"layer:?\s*(\d)", first.group(0), re.I) if first else None
    if stated is None or int(stated.group(1)) != LAYERS[folder]:
        yield 1, f"the file does not begin with a comment that says `Layer {LAYERS[folder]}`"
    for match in INCLUDE.finditer(text):
        line = lines.of(match.start())
        quoted, angled = match.groups()
        if angled is not None:
            if angled.startswith("urcu") and not name.startswith(URCU_FOLDER):
                yield line, f"<{angled}>: liburcu is used in {URCU_FOLDER} only"
            continue
        other = quoted.split("/")[0]
        if not os.path.isfile(os.path.join(root, "src", quoted)) or ".." in quoted or "/" not in quoted:
            yield line, f'"{quoted}" is no file below src/ (includes are written from there)'
        elif other != folder and (folder == "ext" or LAYERS.get(other, 99) >= LAYERS[folder]):
            yield line, f'"{quoted}" is not in a lower layer than {folder}'


def public_user_findings(root, name, text):
    """Tools, benchmarks and examples see the public header and files of their own folder."""
    lines = Lines(text)
    for match in INCLUDE.finditer(text):
        quoted, angled = match.groups()
        top = next(folder for folder in PUBLIC_USERS if name.startswith(folder + "/"))
        places = [os.path.join(root, os.path.dirname(name)), os.path.join(root, top)]
        if quoted and (".." in quoted or not any(os.path.isfile(os.path.join(p, quoted)) for p in places)):
            yield lines.of(match.start()), f'"{quoted}": {top}/ uses the public header only'
        if angled and angled.startswith("quire/") and angled != "quire/quire.h":
            yield lines.of(match.start()), f"<{angled}>: {top}/ uses the public header only"


def check_layers(root, report):
    for name in files_of(root, ["src"], (".c", ".h")):
        report.item(name, layer_findings(root, name, read(root, name)))
    for name in files_of(root, PUBLIC_USERS, (".c", ".h")):
        report.item(name, public_user_findings(root, name, read(root, name)))


# ---- Atomics ---------------------------------------------------------------------------------------------------------

ATOMIC_USE = re.compile(r"\b(_Atomic|atomic_\w+|__atomic_\w+|__sync_\w+|uatomic_\w+|cmm_\w+|memory_order_\w+)\b"
                        r"|#[ \t]*include[ \t]*<stdatomic\.h>")
FENCE = re.compile(r"\b(atomic_thread_fence|atomic_signal_fence|__sync_synchronize|__atomic_thread_fence|cmm_smp_\w+)\b")
VOLATILE = re.compile(r"(?<!asm )(?<!asm__ )\b(?:__)?volatile(?:__)?\b")


def read_list(root, name):
    """Lines of a list file without comments; shell patterns are allowed."""
    entries = []
    for number, line in enumerate(read(root, name).splitlines(), 1):
        entry = line.split("#")[0].strip()
        if entry:
            entries.append((number, entry))
    return entries


def atomic_findings(name, text, listed):
    code, _ = split_comments(text)
    lines = Lines(code)
    use = ATOMIC_USE.search(code)
    if use and not listed:
        yield lines.of(use.start()), f"uses `{use.group(0).strip()}` and is not in test/style/atomics.txt"
    for match in FENCE.finditer(code):
        if not name.startswith(URCU_FOLDER):
            yield lines.of(match.start()), f"`{match.group(0)}`: no lone fences outside {URCU_FOLDER}"
    for match in VOLATILE.finditer(code):
        yield lines.of(match.start()), "`volatile` orders nothing: use an atomic"


def check_atomics(root, report):
    entries = read_list(root, "test/style/atomics.txt")
    names = files_of(root, ["src"], (".c", ".h"))
    users = set()
    for name in names:
        text = read(root, name)
        if ATOMIC_USE.search(split_comments(text)[0]):
            users.add(name)
        listed = any(fnmatch.fnmatchcase(name, entry) for _, entry in entries)
        report.item(name, atomic_findings(name, text, listed))
    stale = [(number, f"{entry} matches no file that uses atomics") for number, entry in entries
             if not fnmatch.filter(users, entry)]
    report.item("test/style/atomics.txt", stale)


# ---- Ordering --------------------------------------------------------------------------------------------------------

ATOMIC_CALL = re.compile(r"\b(?:atomic_\w+|__atomic_\w+)[ \t]*\(")
ORDER = re.compile(r"\bmemory_order_(\w+)\b|\b__ATOMIC_(\w+)\b")
ORDERLESS = ("atomic_init", "atomic_is_lock_free", "atomic_flag_test_and_set")
LABEL = r"[a-z][a-z0-9_]*(?:\.[a-z0-9_]+)+"
LINES_ABOVE = 3


def end_of_call(code, open_parenthesis):
    depth = 0
    for offset in range(open_parenthesis, len(code)):
        depth += {"(": 1, ")": -1}.get(code[offset], 0)
        if depth == 0:
            return offset + 1
    return len(code)


def operations(code):
    """(begin, end, name, orders) of atomic calls, and of orders that stand elsewhere."""
    covered = []
    for match in ATOMIC_CALL.finditer(code):
        end = end_of_call(code, match.end() - 1)
        if any(begin <= match.start() < stop for begin, stop in covered):
            continue
        covered.append((match.start(), end))
        orders = [a or b.lower() for a, b in ORDER.findall(code[match.start():end])]
        yield match.start(), end, match.group(0).rstrip("( \t"), orders
    for match in ORDER.finditer(code):
        if not any(begin <= match.start() < stop for begin, stop in covered):
            yield match.start(), match.end(), match.group(0), [match.group(1) or match.group(2).lower()]


def ordering_findings(text, labels, references):
    """Adds the labels to `labels`, and (line, label) of the partners that are named to `references`."""
    code, comments = split_comments(text)
    lines = Lines(code)
    notes = []
    for begin, end, comment in comments:
        notes.append((lines.of(begin), lines.of(end - 1), comment))
        for match in re.finditer(r"\bpairs\s+(?:\*\s+)?with\s+(?:\*\s+)?(" + LABEL + ")", comment):
            references.append((lines.of(begin), match.group(1)))
        labels.update(re.findall(r"\border:\s*(" + LABEL + ")", comment))
    for begin, end, name, orders in operations(code):
        first, last = lines.of(begin), lines.of(end - 1)
        near = [note for _, note_end, note in [n for n in notes if n[0] <= last] if note_end >= first - LINES_ABOVE]
        if not orders:
            if name not in ORDERLESS:
                yield first, f"{name}: no explicit memory order"
        elif all(order == "relaxed" for order in orders):
            if not any(re.search(r"\brelaxed:\s*[A-Za-z0-9]", note) for note in near):
                yield first, f"{name}: no `relaxed: why` comment on the line or the {LINES_ABOVE} above"
        elif not any(re.search(r"\border:\s*" + LABEL, note) for note in near):
            yield first, f"{name}: no `order: label` comment on the line or the {LINES_ABOVE} above"


def table_labels(text):
    """First cells of the tables whose first column is headed `label`."""
    rows, inside = {}, False
    for number, line in enumerate(text.splitlines(), 1):
        if not line.startswith("|"):
            inside = False
            continue
        cell = line.split("|")[1].strip().strip("`")
        if cell.lower() == "label":
            inside = True
        elif inside and not re.fullmatch(r":?-+:?", cell):
            rows[cell] = number
    return rows


def check_ordering(root, report):
    labels, references = set(), {}
    for name in files_of(root, ["src"], (".c", ".h")):
        references[name] = []
        report.item(name, ordering_findings(read(root, name), labels, references[name]))
    for name, partners in references.items():
        unknown = [(line, f"pairs with {label}, which is nobody's label") for line, label in partners
                   if label not in labels]
        report.item(name + " (partners)", unknown)
    table = "doc/concurrency.md"
    rows = table_labels(read(root, table)) if os.path.isfile(os.path.join(root, table)) else {}
    missing = [(0, f"no row `| {label} |`") for label in sorted(labels - set(rows))]
    surplus = [(rows[label], f"row `| {label} |`: no such label in src/") for label in sorted(set(rows) - labels)]
    report.item(table, missing + surplus)


# ---- Size and words --------------------------------------------------------------------------------------------------

TEXT_ENDINGS = (".c", ".h", ".py", ".sh", ".md", ".build", ".txt", ".map", ".in")
# Written in two parts, so that this file does not contain them.
BANNED = re.compile(r"(?<![A-Za-z0-9])[Gg]" r"[Cc](?![A-Za-z0-9])|\bTO" r"DO\b|\bFIX" r"ME\b|(?<![A-Za-z])X" r"XX(?![A-Za-z])")


def size_findings(text):
    count = text.count("\n")
    if count > MOST_LINES:
        yield 0, f"{count} lines; {MOST_LINES} is the limit"


def check_size(root, report):
    for name in files_of(root, ["."], TEXT_ENDINGS):
        text = read(root, name)
        if text.count("\n") > MANY_LINES:
            print(f"{name}: warning: {text.count(chr(10))} lines")
        report.item(name, size_findings(text))


def word_findings(text):
    for number, line in enumerate(text.splitlines(), 1):
        for match in BANNED.finditer(line):
            yield number, f"banned word `{match.group(0)}` (say reclaim or clean; finish it or open an issue)"


def check_words(root, report):
    for name in files_of(root, ["."], TEXT_ENDINGS):
        report.item(name, word_findings(read(root, name)))


# ---- Headers ---------------------------------------------------------------------------------------------------------

INTERNAL_FLAGS = ["-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function",
                  "-Wno-unused-const-variable"]
PUBLIC_FLAGS = ["-pedantic", "-Wall", "-Wextra", "-Werror", "-Wno-long-long"]

# Structs with the name of a function, as quire.h says that they are written in C++.
CXX_USE = "extern struct quire_snapshot *style_snapshot; extern struct quire_stats *style_stats;"


def compile_findings(root, compiler, flags, header, use="extern int style_check;"):
    """Twice in one file: the header is complete, and guarded. And a use of it."""
    source = f"#include <{header}>\n" * 2 + use + "\n"
    with tempfile.NamedTemporaryFile("w", suffix=".c") as file:
        file.write(source)
        file.flush()
        command = compiler.split() + flags + ["-fsyntax-only", "-I", os.path.join(root, "src"), "-I",
                                              os.path.join(root, "include"), file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        yield 0, f"does not compile alone ({' '.join(flags)}):\n{done.stderr.strip()}"


def check_headers(root, report, cc, cxx):
    """A header named *_body.h is a piece of code that is included many times, and is left out."""
    for name in files_of(root, ["src"], (".h",)):
        if name.endswith("_body.h"):
            continue
        header = os.path.relpath(name, "src")
        for testing in ([], ["-DQR_TESTING"]):
            report.item(" ".join([name] + testing), compile_findings(root, cc, INTERNAL_FLAGS + testing, header))
    for name in files_of(root, ["include"], (".h",)):
        header = os.path.relpath(name, "include")
        for standard in ("-std=c99", "-std=c11"):
            report.item(f"{name} {standard}", compile_findings(root, cc, [standard] + PUBLIC_FLAGS, header))
        for standard in ("-std=c++98", "-std=c++17"):
            flags = ["-x", "c++", standard] + PUBLIC_FLAGS
            report.item(f"{name} {standard}", compile_findings(root, cxx, flags, header, CXX_USE))


# ---- Symbols ---------------------------------------------------------------------------------------------------------

def declared_functions(header_text):
    code, _ = split_comments(header_text)
    code = re.sub(r"^[ \t]*#.*$", "", code, flags=re.M)
    return {match.group(1) for match in re.finditer(r"\bQUIRE_API\b[^;(]*?\b(\w+)\s*\(", code)}


def defined_symbols(library, *flags):
    done = subprocess.run(["nm", "--defined-only", *flags, library], capture_output=True, text=True, check=True)
    fields = [line.split() for line in done.stdout.splitlines()]
    return {f[2].split("@")[0] for f in fields if len(f) == 3 and f[1] not in "aA"}


def check_symbols(root, report, shared, static):
    declared = declared_functions(read(root, "include/quire/quire.h"))
    exported = defined_symbols(shared, "-D")
    for name in sorted(declared | exported):
        findings = []
        if name not in exported:
            findings.append((0, "declared QUIRE_API in quire.h, not exported by the shared library"))
        if name not in declared:
            findings.append((0, "exported by the shared library, not declared QUIRE_API in quire.h"))
        report.item(name, findings)
    if static:
        outside = [s for s in defined_symbols(static, "-g") if not s.startswith(("qr_", "quire_", "__odr_asan"))]
        report.item("static library", [(0, f"{s}: no prefix qr_ or quire_") for s in sorted(outside)])


# ---- The program -----------------------------------------------------------------------------------------------------

def main(arguments):
    parser = argparse.ArgumentParser(description="Checks of the source text.")
    parser.add_argument("--root", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
    parser.add_argument("check", choices=["layers", "atomics", "ordering", "size", "words", "headers", "symbols"])
    parser.add_argument("--cc", default="cc")
    parser.add_argument("--cxx", default="c++")
    parser.add_argument("--shared")
    parser.add_argument("--static")
    options = parser.parse_args(arguments)
    root, report = os.path.normpath(options.root), Report()
    if options.check == "headers":
        check_headers(root, report, options.cc, options.cxx)
    elif options.check == "symbols":
        if not options.shared:
            parser.error("symbols needs --shared")
        check_symbols(root, report, options.shared, options.static)
    else:
        {"layers": check_layers, "atomics": check_atomics, "ordering": check_ordering, "size": check_size,
         "words": check_words}[options.check](root, report)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
