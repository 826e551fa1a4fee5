#!/usr/bin/env python3
"""
Goal: the log command prints every write, with its place and sizes.
Method: log.py TOOL LOADER writes with the tool and with a process that is killed, and compares frames with what was written.
"""

import struct
import subprocess
import sys

from tool import Tests

t = Tests()
store = t.path("s")
t.run("put", store, "a", "one")
t.run("put", "--tree", "users", store, "ann", "1815")
t.run("delete", store, "a")
t.run("put", store, "large" * 20000, given=b"v" * 3000)
t.run("put", t.path("beside"), "large", given=b"v" * 200000)
subprocess.run([sys.argv[2], t.path("killed"), "300", "kill"], check=False, capture_output=True)

frames = t.objects("log", "--json", t.path("killed"))
puts = [f for f in frames if f["kind"] == "put" and f["tree_id"] == 1]
t.equal([f["key"] for f in puts], [f"key{i:06}" for i in range(300)], "keys of the killed process")
t.check(all(f["needed"] and f["state"] == "done" and f["incarnation"] == 1 for f in puts), "frames that recovery needs")
t.equal([f["lsn"] for f in frames], sorted(f["lsn"] for f in frames), "the order of LSNs")
t.check(all(f["lsn"] % 16 == 0 and f["size_bytes"] % 16 == 0 for f in frames), "frames are multiples of 16")
for frame in puts[:20]:
    with open(f"{t.path('killed')}/{frame['file']}", "rb") as file:
        file.seek(frame["offset"])
        units, kind, state, _, lsn = struct.unpack("<HBBIQ", file.read(16))
    t.equal((units * 16, kind, state, lsn), (frame["size_bytes"], 2, 0x4B, frame["lsn"]), f"the frame at {frame['lsn']}")
t.equal([f["key"] for f in frames if f.get("tree_id") == 0], [""], "the list of trees")

# One large value is beside the log; a large key is in it, in parts that follow one another.
frames = t.objects("log", "--json", store)
beside = [f for f in t.objects("log", "--json", t.path("beside")) if f.get("large")]
t.equal([(f["key"], f["value_size"], f["part_count"] if "part_count" in f else 0) for f in beside], [("large", 200000, 0)], "a large value")
large = [f for f in frames if f.get("last_part") and f["kind"] == "put"][-1]
parts = {f["lsn"]: f for f in frames if f["kind"] == "part"}
t.equal((large["key_size"], large["value_size"], "key" in large), (100000, 3000, False), "a record in parts")
size, at, count = 0, large["last_part"], 0
while at in parts:
    size, at, count = size + parts[at]["piece_size"], parts[at].get("last_part"), count + 1
t.equal((size, count), (103000, large["part_count"]), "its parts")
t.check(not any(f["needed"] for f in frames if f["kind"] == "put"), "after a clean end nothing is needed")
t.equal(len(t.run("log", "--limit", "3", t.path("killed")).splitlines()), 4, "log --limit")
t.check(b" put " in t.run("log", t.path("killed")) and b"key000299" in t.run("log", t.path("killed")), "log as text")
t.finish()
