#!/usr/bin/env python3
"""
Goal: check finds a damaged byte wherever it matters, says where, and finds nothing where nothing is wrong (rows I16, M20, M22).
Method: damage.py TOOL LOADER. Stores that were closed, or left by a process that was killed, have one byte changed in a copy:
in each image that `check` is to name by file and offset, in the log, in the manifest; files are removed and cut.
"""

import os
import random
import struct
import subprocess
import sys

from tool import ABSENT, DAMAGED, DONE, FAILED, Tests, flip

t = Tests()
seed = int(os.environ.get("QUIRE_TEST_SEED", "1"))
print(f"seed {seed}")
draw = random.Random(seed)
t.lines("s", [(f"key{i:05}".encode(), os.urandom(60)) for i in range(6000)])
subprocess.run([sys.argv[2], t.path("killed"), "3000", "kill"], check=False, capture_output=True)
t.equal(t.run("check", t.path("s")), b"no defect\n", "a whole store")
t.equal(t.run("check", t.path("killed")), b"no defect\n", "the store of a process that was killed")


def names(store, beginning):
    return sorted(name for name in os.listdir(t.path(store)) if name.startswith(beginning))


def images(path):
    """(offset, size) of the images in a segment, by their magic at multiples of 64."""
    with open(path, "rb") as file:
        data = file.read()
    return [(at, 64 + struct.unpack_from("<I", data, at + 48)[0]) for at in range(4096, len(data), 64)
            if data[at:at + 4] == b"QIMG"]


# ---- Pages: any byte of an image, its header or content, and of the summaries of batches ----
flips = 0
for name in names("s", "page-"):
    places = images(t.path(f"s/{name}"))
    for offset, size in draw.sample(places, min(3, len(places))):
        damaged = t.copy("s", "d")
        flip(os.path.join(damaged, name), offset + draw.randrange(size))
        found = t.run("check", damaged, code=DAMAGED).decode()
        t.check(f"{name}, offset {offset}" in found, f"{name}, {offset}: {found}")
        flips += 1
    with open(t.path(f"s/{name}"), "rb") as file:
        batch = file.read().find(b"QBAT")
    if batch >= 0:
        damaged = t.copy("s", "d")
        flip(os.path.join(damaged, name), batch + 8)
        found = t.objects("check", "--json", damaged, code=DAMAGED)
        t.check(any(o.get("file") == name and o.get("offset") == batch for o in found), f"{name}, batch {batch}: {found}")
        flips += 1
t.check(flips > 10, f"{flips} places")

name = next(name for name in names("s", "page-") if images(t.path(f"s/{name}")))  # not one of the reserve
damaged = t.copy("s", "d")
flip(os.path.join(damaged, name), images(os.path.join(damaged, name))[0][0] + 100)
defects = t.objects("check", "--json", damaged, code=DAMAGED)
t.equal(defects[-1]["defects"], len(defects) - 1, "the number of defects")
t.check(all("defect" in o for o in defects[:-1]), f"defects: {defects}")

# ---- Log: of a closed store, where it is not needed any more, and of a killed one, where it is ----
def damage_log(store, frame, text):
    flip(os.path.join(store, frame["file"]), frame["offset"] + draw.choice((4, 16, 17)))
    found = t.run("check", store, code=DAMAGED).decode()
    t.check(f"{frame['file']}, offset {frame['offset']}: a frame of the log does not verify" in found, f"{text}: {found}")


def puts(store):
    return [f for f in t.objects("log", "--json", t.path(store)) if f["kind"] == "put"]


for frame in draw.sample(puts("s"), 5):
    damage_log(t.copy("s", "d"), frame, "closed")
# Not in a copy: there damage of what was not synced looks like what a loss of power leaves.
for i in range(5):
    subprocess.run([sys.argv[2], t.path(f"killed{i}"), "300", "kill"], check=False, capture_output=True)
    damage_log(t.path(f"killed{i}"), draw.choice(puts(f"killed{i}")), "killed")
for store in ("s", "killed"):
    damaged = t.copy(store, "d")
    flip(os.path.join(damaged, puts(store)[0]["file"]), 20)
    t.check("header" in t.run("check", damaged, code=DAMAGED).decode(), "the header of a log segment")

# ---- Manifest ----
damaged = t.copy("s", "d")
flip(os.path.join(damaged, "manifest"), 40)
t.run("check", damaged, code=DAMAGED)
t.run("scan", damaged, code=DAMAGED)
t.run("log", damaged, code=DAMAGED)
damaged = t.copy("s", "d")
flip(os.path.join(damaged, "manifest"), 512 + 40)
t.check("manifest" in t.run("check", damaged, code=DAMAGED).decode(), "the manifest's first record")
damaged = t.copy("s", "d")
flip(os.path.join(damaged, "manifest"), 3)
t.run("check", damaged, code=DAMAGED)
with open(os.path.join(damaged, "manifest"), "r+b") as file:
    file.write(b"not ours" * 64)
t.run("check", damaged, code=FAILED)

# ---- Large values: what needs none reads none ----
large = [(b"large %d" % i, b"value" * 160000) for i in range(6)]
t.lines("l", large + [(b"small", b"value")])
leaves = t.objects("pages", "--json", t.path("l"))
t.equal([(leaf["count"], leaf["bytes"]) for leaf in leaves], [(7, sum(len(k) + len(v) for k, v in large) + 10)], "one leaf")
frames = t.objects("files", "--json", t.path("l"))
for found in frames:
    if found["kind"] == "blobs":
        with open(os.path.join(t.path("l"), found["name"]), "r+b") as file:
            data = file.read()
            file.seek(data.index(b"valuevalue") + 100000)
            file.write(b"damage")
t.run("scan", t.path("l"), code=DAMAGED)
t.equal(t.run("scan", "--keys", t.path("l")).splitlines(), [k for k, _ in large] + [b"small"], "keys beside a damaged value")
t.equal(t.objects("pages", "--json", t.path("l")), leaves, "pages beside a damaged value")
t.equal(t.objects("trees", "--json", t.path("l"))[0]["keys"], 7, "keys counted beside a damaged value")

# ---- Files that are gone, or cut ----
for name in names("s", "page-"):
    if not images(t.path(f"s/{name}")):
        continue
    damaged = t.copy("s", "d")
    os.unlink(os.path.join(damaged, name))
    t.check(name in t.run("check", damaged, code=DAMAGED).decode(), f"{name} is missing")
    damaged = t.copy("s", "d")
    os.truncate(os.path.join(damaged, name), images(os.path.join(damaged, name))[-1][0] + 10)
    found = t.run("check", damaged, code=DAMAGED).decode()
    t.check(name in found, f"{name} is cut: {found}")
damaged = t.copy("s", "d")
os.unlink(os.path.join(damaged, "manifest"))
t.run("check", damaged, code=FAILED)
t.run("check", t.path("none"), code=ABSENT)
t.run("check", t.path("s"), code=DONE)
t.finish()
