#!/usr/bin/env python3
"""
Goal: every command of the tool does what its help says, with its exit codes, and those that look change nothing (row K09 as
far as it goes).
Method: commands.py TOOL LOADER runs them on small stores; LOADER is a program that has a store open or was killed with one.
"""

import os
import pty
import subprocess
import sys

from tool import ABSENT, DONE, FAILED, WRONG, Tests, digest

t = Tests()
store = t.path("s")

# ---- get, put, delete ----
t.run("get", store, "a", code=ABSENT)
t.check(not os.path.exists(store), "get has created a store")
t.run("put", store, "a", "one")
t.equal(t.run("get", store, "a"), b"one\n", "get")
t.equal(t.run("get", "--raw", store, "a"), b"one", "get --raw")
t.run("put", store, "a\\x00\\t", given=b"bytes\x00\xff\n")
t.equal(t.run("get", "--raw", store, "a\\x00\\t"), b"bytes\x00\xff\n", "a value from standard input")
t.equal(t.run("get", store, "a\\x00\\t"), b"bytes\\x00\\xff\\n\n", "escapes")
t.equal(t.run("get", "--hex", store, "610009"), b"627974657300ff0a\n", "get --hex")
found = t.objects("get", "--json", store, "a")
t.equal((found[0]["key"], found[0]["value"]), ("a", "one"), "get --json")
t.check(found[0]["lsn"] > 0, "an LSN")
t.equal(t.objects("get", "--json", store, "a\\x00\\t")[0]["value_base64"], "Ynl0ZXMA/wo=", "bytes in JSON")
t.run("get", store, "absent", code=ABSENT)
t.run("get", "--tree", "absent", store, "a", code=ABSENT)
t.check(t.objects("put", "--json", "--tree", "users", store, "ann", "1815")[0]["lsn"] > found[0]["lsn"], "LSNs grow")
t.equal(t.run("get", "--tree", "users", store, "ann"), b"1815\n", "a tree with a name")
t.run("delete", "--tree", "users", store, "ann")
t.run("delete", "--tree", "users", store, "ann", code=ABSENT)
t.run("delete", t.path("none"), "ann", code=ABSENT)
t.check(not os.path.exists(t.path("none")), "delete has created a store")

# ---- scan, pages, trees, stat ----
pairs = [(f"key{i:04}".encode(), f"value {i}".encode() * 5) for i in range(2000)]
t.lines("s", pairs, "--tree", "many")
many = ["--tree", "many"]
t.equal(t.pairs("s", *many), pairs, "scan")
t.equal(t.pairs("s", *many, "--reverse"), pairs[::-1], "scan --reverse")
t.equal(t.pairs("s", *many, "--limit", "0"), [], "scan --limit 0")
t.equal(t.pairs("s", *many, "--limit", "7"), pairs[:7], "scan --limit")
hexed = [value.hex() for value in (b"key0100", b"key0103")]
t.equal(t.pairs("s", *many, "--start", hexed[0], "--end", hexed[1]), pairs[100:103], "scan with bounds")
t.equal(t.pairs("s", *many, "--prefix", b"key01".hex(), "--reverse", "--limit", "3"), pairs[199:196:-1], "scan of a prefix")
t.equal(t.pairs("s", *many, "--prefix", "ff"), [], "scan of a prefix without end")
t.equal(t.run("scan", "--keys", *many, "--limit", "2", store), b"key0000\nkey0001\n", "scan --keys")
t.equal([o["value"] for o in t.objects("scan", "--json", *many, store)], [v.decode() for _, v in pairs], "scan --json")
pages = t.objects("pages", "--json", *many, store)
t.equal(sum(page["count"] for page in pages), 2000, "entries of all pages")
t.equal(sum(page["bytes"] for page in pages), sum(len(k) + len(v) for k, v in pairs), "bytes of all pages")
t.check(len(pages) > 5 and pages[0]["first_key"] == "key0000", f"{len(pages)} pages")
t.equal([page["first_key"] for page in pages], sorted(page["first_key"] for page in pages), "pages in order")
t.equal(len(t.run("pages", *many, store).splitlines()), len(pages) + 1, "pages as text")
trees = {o["tree"]: o for o in t.objects("trees", "--json", store)}
t.equal({name: o["keys"] for name, o in trees.items()}, {"": 2, "many": 2000, "users": 0}, "trees")
t.equal(trees["many"]["versions"], "engine", "kind of versions")
t.equal(len(t.run("trees", store).splitlines()), 4, "trees as text")
stats = t.objects("stat", "--json", store)[0]
t.equal(stats["trees"], 3, "stat")
t.check(b"\ntrees 3\n" in t.run("stat", store), "stat as text")

# ---- What looks changes nothing, not even a name or a time ----
before = digest(store)
for looks in (["get", store, "a"], ["scan", store], ["dump", store], ["pages", *many, store], ["trees", store],
              ["stat", store], ["check", store], ["log", store]):
    t.run(*looks)
t.equal(digest(store), before, "the files, after looking")
t.equal(t.objects("check", "--json", store), [{"defects": 0}], "check --json")
t.equal(t.run("check", store), b"no defect\n", "check")

# ---- Wrong arguments: nothing is done ----
for wrong in ([], ["nonsense"], ["get", store], ["get", store, "a", "b"], ["get", "--nonsense", store, "a"],
              ["scan", "--limit", "x", store], ["scan", "--limit"], ["scan", "--prefix", "a", "--start", "b", store],
              ["get", store, "\\q"], ["get", "--hex", store, "1"], ["get", "--hex", store, "zz"], ["get", "--at", "1", store, "a"],
              ["load", "--format", "xml", store], ["dump", "--reverse", store], ["scan", "--start", "b", "--end", "a", store],
              ["pages", "--start", "b", "--end", "a", "--reverse", store], ["scan", "--tree", "t" * 256, store],
              ["load", "--tree", "t" * 256, store]):
    t.run(*wrong, code=WRONG) if wrong else t.equal(subprocess.run([t.tool], check=False, capture_output=True).returncode,
                                                    WRONG, "no arguments")
t.equal(digest(store), before, "the files, after wrong arguments")
with open(t.path("file"), "w", encoding="utf-8") as file:
    file.write("not a store")
for command in (["scan"], ["check"], ["log"], ["dump"]):
    t.run(*command, t.path("file"), code=FAILED)
    t.run(*command, t.path("none"), code=ABSENT)
t.run("put", t.path("file"), "a", "b", code=FAILED)

# ---- Help ----
for command in ("get put delete scan load dump trees pages stat check log files manifest copy repair").split():
    text = t.run(command, "--help").decode()
    t.check(text.startswith(f"usage: quire {command} ") and "Exit codes" in text, f"{command} --help: {text}")
    t.check(command in t.run("--help").decode(), f"{command} in the list of commands")
t.check(t.run("--version").startswith(b"quire "), "--version")
full = subprocess.run(f"{t.tool} scan --tree many {store} >/dev/full", shell=True, check=False, capture_output=True)
t.equal(full.returncode, FAILED, "a full standard output")

# ---- A bar where standard error is a terminal ----
def check_bar():
    try:
        terminal, end = pty.openpty()
    except OSError as error:
        print(f"left out, no terminal can be made here: the bar ({error})")
        return
    text = b"".join(b"%d\tvalue\n" % i for i in range(5000))
    subprocess.run([t.tool, "load", "--format", "lines", t.path("bar")], input=text, stderr=end, stdout=subprocess.DEVNULL, check=True)
    os.close(end)
    shown = b""
    try:
        while piece := os.read(terminal, 65536):
            shown += piece
    except OSError:
        pass  # nobody has the other end any more
    t.check(b"loading" in shown and shown.endswith(b"\r\x1b[K"), f"the bar: {shown}")
    os.close(terminal)


check_bar()

# ---- copy: not of a store that is open, or has to be recovered first (M10, J10) ----
t.run("copy", store, t.path("copy"))
t.equal(t.pairs("copy", *many), pairs, "the copy")
t.run("put", t.path("copy"), "of", "the copy")
t.equal(digest(store), before, "the original")
t.run("copy", store, t.path("copy"), code=FAILED)
t.run("copy", t.path("none"), t.path("copy2"), code=ABSENT)
with subprocess.Popen([sys.argv[2], t.path("live"), "500", "wait"], stdout=subprocess.PIPE) as holder:
    t.equal(holder.stdout.readline(), b"ready\n", "the holder")
    for busy in (["copy", t.path("live"), t.path("copy3")], ["scan", t.path("live")], ["log", t.path("live")],
                 ["check", t.path("live")], ["put", t.path("live"), "a", "b"]):
        t.run(*busy, code=FAILED)
    t.check(not os.path.exists(t.path("copy3")), "a live store was copied")
    holder.kill()
frame = [f for f in t.objects("log", "--json", t.path("live")) if f["kind"] == "put"][-1]
with open(os.path.join(t.path("live"), frame["file"]), "r+b") as file:
    file.seek(frame["offset"] + 3)
    file.write(b"\x2d")  # as if the process had died before it had decided it
t.equal(t.objects("log", "--json", t.path("live"))[-1]["state"], "undecided", "its last frame")
t.run("copy", t.path("live"), t.path("copy3"), code=FAILED)
t.check(not os.path.exists(t.path("copy3")), "a store that has to be recovered first was copied")
t.equal(len(t.pairs("live")), 500, "what the process that died had written")
t.equal(t.run("load", t.path("live")), b"0 loaded\n", "opened for writing, and closed")
t.run("copy", t.path("live"), t.path("copy3"))
t.equal(len(t.pairs("copy3")), 500, "the copy of it")
t.finish()
