#!/usr/bin/env python3
"""
Goal: the command repair makes a store that has what the damaged one had, tells what it has not, and changes nothing (rows F15, I15).
Method: repair.py TOOL LOADER. Stores that were closed, or left by a process that was killed, have bytes of mapping, pages and log
changed. What the library does in all other cases: test/api/repair.c.
"""

import os
import struct
import subprocess
import sys

from tool import ABSENT, DAMAGED, FAILED, WRONG, Tests, digest, flip

t = Tests()
PAIRS = [(f"key{i:05}".encode(), os.urandom(60)) for i in range(6000)]
t.lines("s", PAIRS)
subprocess.run([sys.argv[2], t.path("killed"), "3000", "kill"], check=False, capture_output=True)
LEAF, BLOCK, ROOT = 1, 16, 18


def images(store, kind, tree=None):
    """(path, offset) of the images of a kind."""
    for name in sorted(os.listdir(t.path(store))):
        if not name.startswith("page-"):
            continue
        path = os.path.join(t.path(store), name)
        with open(path, "rb") as file:
            data = file.read()
        for at in range(4096, len(data) - 64, 64):
            ours = struct.unpack_from("<Q", data, at + 8)[0] >> 32 == int(name[5:], 16)
            if data[at:at + 4] == b"QIMG" and data[at + 52] == kind and ours:
                if tree is None or struct.unpack_from("<I", data, at + 40)[0] == tree:
                    yield path, at


# ---- The mapping: CORRUPT, and nothing is lost ----
for kind in (BLOCK, ROOT):
    damaged = t.copy("s", "d")
    for path, offset in images("d", kind):
        flip(path, offset + 100)
    t.run("scan", damaged, code=DAMAGED)
    before = digest(damaged)
    target = t.path(f"repaired-{kind}")
    text = t.run("repair", damaged, target).decode()
    t.check("lost:" not in text and "records          6000\n" in text and "ranges_lost      0\n" in text, text)
    t.equal(digest(damaged), before, "the original")
    t.equal(t.pairs(target), PAIRS, "what was repaired")
    t.equal(t.run("check", target), b"no defect\n", "check of it")

# ---- A process that was killed: what it wrote is in the log ----
numbers = t.objects("repair", "--json", t.path("killed"), t.path("repaired-killed"))[-1]
t.equal((numbers["trees"], numbers["log_records"], numbers["logs_lost"]), (1, 3000, 0), f"{numbers}")
t.equal(t.pairs("repaired-killed"), t.pairs("killed"), "what the process had written")

# ---- A leaf: its keys are lost, and told ----
damaged = t.copy("s", "d")
leaves = list(images("d", LEAF, 1))
flip(leaves[len(leaves) // 2][0], leaves[len(leaves) // 2][1] + 100)
found = t.objects("repair", "--json", damaged, t.path("repaired-leaf"), code=DAMAGED)
t.equal([o.get("lost") for o in found], ["range", None], f"{found}")
low, high = found[0].get("low", "").encode(), found[0].get("high", "\x7f").encode()
t.equal((found[0]["tree"], found[1]["ranges_lost"], found[1]["pages_damaged"]), ("", 1, 1), f"{found}")
left = [(key, value) for key, value in PAIRS if not low <= key < high]
t.check(0 < len(left) < len(PAIRS), f"{len(left)} are left")
t.equal(t.pairs("repaired-leaf"), left, "what is left")
text = t.run("repair", damaged, t.path("repaired-leaf-2"), code=DAMAGED).decode()
t.check(f'lost: tree "": from "{low.decode()}" to before' in text, text)

# ---- Refusals ----
t.run("repair", t.path("none"), t.path("new"), code=ABSENT)
t.run("repair", t.path("s"), t.path("repaired-leaf"), code=FAILED)
t.run("repair", t.path("s"), t.path("s/new"), code=WRONG)
with subprocess.Popen([sys.argv[2], t.path("live"), "500", "wait"], stdout=subprocess.PIPE) as holder:
    t.equal(holder.stdout.readline(), b"ready\n", "the holder")
    t.run("repair", t.path("live"), t.path("new"), code=FAILED)
    holder.kill()
t.check(not os.path.exists(t.path("new")), "a refused repair left a directory")
t.finish()
