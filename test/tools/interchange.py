#!/usr/bin/env python3
"""
Goal: dumps go to LMDB and Berkeley DB and back.
Method: interchange.py TOOL uses mdb_load, mdb_dump, db_load, db_dump, those that are installed; none: the test is skipped.
"""

import os
import shutil
import subprocess
import sys

from tool import Tests

SKIPPED = 77
# LMDB has neither the empty key nor keys above 511 bytes.
PAIRS = [(f"key{i:04}".encode(), f"value {i}".encode()) for i in range(500)]
PAIRS += [(b"binary\x00\xff", bytes(range(128, 256)) * 2), (b"empty", b""), (b"large", b"x" * 30000)]
# In the format print LMDB 0.9.24 writes a backslash as it is, and reads two of them wrong.
BACKSLASH = [(b"\\", b"a\\b\\"), (b"c:\\x", bytes(range(256)))]

has_lmdb = shutil.which("mdb_load") and shutil.which("mdb_dump")
has_berkeley = shutil.which("db5.3_load") and shutil.which("db5.3_dump") and ("db5.3_load", "db5.3_dump")
has_berkeley = has_berkeley or (shutil.which("db_load") and shutil.which("db_dump") and ("db_load", "db_dump"))
if not has_lmdb and not has_berkeley:
    print("neither lmdb-utils nor db-util is installed")
    sys.exit(SKIPPED)

t = Tests()
t.lines("s", PAIRS)
t.lines("backslash", PAIRS + BACKSLASH)


def output(*arguments, given=b""):
    done = subprocess.run(arguments, input=given, capture_output=True, check=False)
    t.equal(done.returncode, 0, f"{' '.join(arguments)}: {done.stderr!r}")
    return done.stdout


def through(load, dump, target, store, pairs, forms):
    """From a store into another system and back, in each pair of formats."""
    for there in forms:
        shutil.rmtree(t.path(target), ignore_errors=True)
        os.mkdir(t.path(target))
        place = t.path(target) if load == "mdb_load" else t.path(f"{target}/file")
        output(load, place, given=t.run("dump", *(["--print"] if there else []), t.path(store)))
        for back in forms:
            shutil.rmtree(t.path("back"), ignore_errors=True)
            t.run("load", t.path("back"), given=output(dump, *(["-p"] if back else []), place))
            t.equal(t.pairs("back"), sorted(pairs), f"through {load}, {dump}, print {there} {back}")


if has_lmdb:
    through("mdb_load", "mdb_dump", "lmdb", "s", PAIRS, (False, True))
    through("mdb_load", "mdb_dump", "lmdb", "backslash", PAIRS + BACKSLASH, (False,))
if has_berkeley:
    through(*has_berkeley, "berkeley", "backslash", PAIRS + BACKSLASH, (False, True))
t.finish()
