#!/usr/bin/env python3
"""
Goal: what is dumped is loaded again, byte by byte, in each format; what is not such a text is refused with its line.
Method: load_dump.py TOOL LOADER dumps awkward keys and values and loads them into another store; reads a sample in the shape
that Berkeley DB gives; feeds texts with one thing wrong.
"""

import json
import subprocess
import sys

from tool import AWKWARD, FAILED, WRONG, Tests

t = Tests()
t.equal(t.lines("a", AWKWARD), f"{len(AWKWARD)} loaded\n".encode(), "load")
t.equal(t.pairs("a"), sorted(AWKWARD), "what was loaded")
t.lines("a", [(b"x", b"y")], "--tree", "other tree")
t.lines("a", [(b"\x01", b"\x02")], "--tree", "line\nbreak \\ and größe")
dumped = t.run("dump", t.path("a"))

# ---- Round trips ----
for name, arguments, load in (("bytes", [], []), ("print", ["--print"], []), ("json", ["--json"], ["--format", "json"])):
    text = t.run("dump", *arguments, t.path("a"))
    t.run("load", *load, t.path(name), given=text)
    t.equal(t.run("dump", t.path(name)), dumped, f"the dump of what was loaded from {name}")
t.equal({line.startswith(b" ") or line in (b"DATA=END", b"HEADER=END") or b"=" in line for line in dumped.splitlines()},
        {True}, "each line of a dump is a field or data")
t.equal(dumped.count(b"VERSION=3\nformat=bytevalue\n"), 3, "three trees")
t.check(all(json.loads(line) for line in t.run("dump", "--json", t.path("a")).decode().splitlines()), "JSON lines")
scanned = t.run("scan", t.path("a"))
t.run("load", "--format", "lines", t.path("lines"), given=scanned)
t.equal(t.pairs("lines"), sorted(AWKWARD), "what was loaded from the lines of a scan")
one = t.run("dump", "--tree", "other tree", t.path("a"))
t.equal(one, b"VERSION=3\nformat=bytevalue\ndatabase=other tree\ntype=btree\nHEADER=END\n 78\n 79\nDATA=END\n", "one tree")
t.run("load", "--tree", "renamed", t.path("lines"), given=one)
t.equal(t.pairs("lines", "--tree", "renamed"), [(b"x", b"y")], "into another tree")
with open(t.path("text"), "wb") as file:
    file.write(one)
t.equal(t.objects("load", "--json", t.path("files"), t.path("text"), t.path("text")), [{"loaded": 2}], "from files")
t.run("load", t.path("files"), t.path("none"), code=FAILED)

# ---- As db_dump -p and mdb_dump write it ----
SAMPLE = b"""VERSION=3
format=print
database=fruit
type=btree
db_pagesize=4096
HEADER=END
 apple
 red\\0agreen \\\\ \\c3\\a9
 pear

 \\00
 zero
DATA=END
VERSION=3
format=bytevalue
type=btree
mapsize=1048576
maxreaders=126
HEADER=END
 6B6579
 76616C7565
DATA=END
"""
t.run("load", t.path("sample"), given=SAMPLE.replace(b" pear\n\n", b" pear\n \n"))
t.equal(t.pairs("sample", "--tree", "fruit"),
        [(b"\x00", b"zero"), (b"apple", "red\ngreen \\ é".encode()), (b"pear", b"")], "the sample's named tree")
t.equal(t.pairs("sample"), [(b"key", b"value")], "the sample's tree without a name")

# ---- A tree whose name is no UTF-8: it was loaded to the default tree ----
t.run("load", t.path("named"), given=b"VERSION=3\nformat=print\ndatabase=\\ff\\2e\ntype=btree\nHEADER=END\n k\n v\nDATA=END\n")
lines = t.run("dump", "--json", t.path("named"))
t.check(b'"tree_base64":"/y4="' in lines, f"the name in base64: {lines}")
t.run("load", "--format", "json", t.path("named again"), given=lines)
t.equal(t.run("dump", "--json", t.path("named again")), lines, "a tree whose name is no UTF-8")

# ---- What is refused ----
HEADER = b"VERSION=3\nformat=bytevalue\ntype=btree\nHEADER=END\n"
for wrong in (b"apple\n", SAMPLE, HEADER, HEADER + b" 61\n", HEADER + b" 61\n 62\n", HEADER + b" 6\n 62\nDATA=END\n",
              HEADER + b" 61\n62\nDATA=END\n", HEADER + b" zz\n 62\nDATA=END\n", b"VERSION=3\n", b"VERSION=9\nHEADER=END\n",
              HEADER.replace(b"btree", b"recno"), HEADER.replace(b"bytevalue", b"other"),
              b"VERSION=3\nformat=print\nduplicates=1\ntype=btree\nHEADER=END\nDATA=END\n", b"VERSION=3\nnonsense\n",
              HEADER + b" 61\n 62\nDATA=END\ntrailing\n", b"VERSION=3\nformat=print\nHEADER=END\n \\zz\n a\nDATA=END\n"):
    t.run("load", t.path("wrong"), code=WRONG, given=wrong)
for wrong in (b"no tab\n", b"a\\q\tb\n", b"a\tb\\x1\n"):
    t.run("load", "--format", "lines", t.path("wrong"), code=WRONG, given=wrong)
for wrong in (b"[]\n", b"{\n", b"{}\n", b'{"key":"a"}\n', b'{"key":1,"value":"b"}\n', b'{"key":"a","value":"b"} x\n',
              b'{"key":"a","key_base64":"YQ==","value":"b"}\n', b'{"key_base64":"Y","value":"b"}\n',
              b'{"key_base64":"YQ=a","value":"b"}\n', b'{"key":"a\\u0000","value":"b"}\n',
              b'{"tree":1,"key":"a","value":"b"}\n', b'{"tree":"a","tree_base64":"YQ==","key":"a","value":"b"}\n',
              b'{"tree_base64":"AAA=","key":"a","value":"b"}\n', b'{"key":"a","value":"b","version":-1}\n',
              b'{"key":"a","value":"b","version":1.5}\n', b'{"key":"a","value":"b","version":9007199254740994}\n',
              b'{"key":"a","value":"b","key":"c"}\n', b'{"key":"a","value":"b","value":"b"}\n',
              b'{"key":"a","value":"b","tree":"t","tree":"u"}\n', b'{"key":"a","value":"b","version":"1x"}\n', b'{"key":"a","value":"b","version":"18446744073709551616"}\n'):
    t.run("load", "--format", "json", t.path("wrong"), code=WRONG, given=wrong)
LONG_KEY, LONG_NAME = b"k" * 131073, b"t" * 256
for form, line, given, count in (
        ("lines", b"line 3", b"a\tb\nc\td\nwrong\ne\tf\n", 2), ("lines", b"line 2", b"a\tb\n" + LONG_KEY + b"\tv\nc\td\n", 1),
        ("json", b"line 2", b'{"key":"a","value":"b"}\n{"key":"%b","value":"b"}\n' % LONG_KEY, 1),
        ("json", b"line 2", b'{"key":"a","value":"b"}\n{"tree":"%b","key":"a","value":"b"}\n' % LONG_NAME, 1),
        ("json", b"line 2", b'{"key":"a","value":"b"}\n{"key":"a","value":"b","key":"c"}\n', 1),
        ("dump", b"line 6", HEADER + LONG_KEY.hex().join((" ", "\n 62\nDATA=END\n")).encode(), 0),
        ("dump", b"line 5", HEADER.replace(b"type", b"database=" + LONG_NAME + b"\ntype") + b" 61\n 62\nDATA=END\n", 0)):
    message = subprocess.run([t.tool, "load", "--format", form, t.path("wrong")], input=given, capture_output=True, check=False)
    t.check(message.returncode == WRONG and line in message.stderr and message.stdout == b"%d loaded\n" % count,
            f"the wrong line is named, {line}: {message!r:.1000}")
t.equal(t.run("check", t.path("wrong")), b"no defect\n", "the store that all of it went to")

# ---- Trees with versions of the caller's ----
subprocess.run([sys.argv[2], t.path("versions"), "10", "caller"], check=True, capture_output=True)
t.run("put", t.path("versions"), "k", "v", code=WRONG)
t.run("put", "--at", "7", t.path("versions"), "zz", "seven")
t.run("put", "--at", "3", t.path("versions"), "zz", "three")
t.equal(t.run("get", t.path("versions"), "zz"), b"seven\n", "the newest")
t.equal(t.run("get", "--at", "6", t.path("versions"), "zz"), b"three\n", "at a version")
t.run("delete", "--at", "9", t.path("versions"), "zz")
t.equal(t.run("scan", "--prefix", "zz", "--at", "8", t.path("versions")), b"zz\tseven\n", "a scan at a version")
lines = t.run("dump", "--json", t.path("versions"))
LARGEST = b'{"tree":"","key":"large","value":"v","version":"18446744073709551615"}\n'  # a number would not come back exact
t.run("load", "--format", "json", t.path("versions"), given=LARGEST)
t.equal(t.run("dump", "--json", t.path("versions")), lines + LARGEST, "2^64 - 1")
t.run("delete", "--at", "18446744073709551615", t.path("versions"), "large")
t.check(all(json.loads(line)["version"] == 5 for line in lines.splitlines()) and lines.count(b"\n") == 10, "versions in JSON")
subprocess.run([sys.argv[2], t.path("again"), "0", "caller"], check=True, capture_output=True)
t.run("load", t.path("again"), code=WRONG, given=t.run("dump", t.path("versions")))
t.run("load", "--format", "json", t.path("again"), given=lines)
t.equal(t.run("dump", "--json", t.path("again")), lines, "versions that were loaded")
t.finish()
