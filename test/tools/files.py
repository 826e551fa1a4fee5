#!/usr/bin/env python3
"""
Goal: the commands files and manifest print what is in the directory, byte for byte where it is known.
Method: files.py TOOL LOADER writes stores with the tool and with a process that is killed, plants files, and compares what is
printed with the directory and with the bytes that doc/file-format.md describes.
"""

import os
import struct
import subprocess
import sys

from tool import ABSENT, DAMAGED, Tests

t = Tests()
store = t.path("s")
t.run("put", store, "large", given=b"v" * 300000)
t.run("put", store, "a", "one")
t.run("put", "--tree", "users", store, "ann", "1815")


def files(of):
    return {f["name"]: f for f in t.objects("files", "--json", of)}


found = files(store)
t.equal(sorted(found), sorted(os.listdir(store)), "the names")
for name, file in found.items():
    t.equal(file["size_bytes"], os.path.getsize(f"{store}/{name}"), f"{name}: size")
kinds = {file["kind"] for file in found.values()}
t.equal(kinds, {"manifest", "lock", "log", "pages", "blobs"}, "kinds")
t.check(all(f["state"] == "needed" for f in found.values() if f["kind"] in ("manifest", "lock", "pages", "blobs")), "needed")
for file in found.values():
    with open(f"{store}/{file['name']}", "rb") as opened:
        first = opened.read(64)
    if file["kind"] == "log":
        t.equal(struct.unpack("<QQQ", first[16:40]), (file["first_lsn"], file["end_lsn"], file["incarnation"]), "the log's header")
        t.equal(file["end_lsn"] - file["first_lsn"], file["size_bytes"], "LSNs are bytes")
    if file["kind"] in ("pages", "blobs"):
        t.equal(struct.unpack("<I", first[32:36])[0], file["number"], "the segment's header")
        t.equal(struct.unpack("<I", first[36:40])[0] == 2, file["kind"] == "blobs", "the stream of large values")
        t.check(file["live_bytes"] <= file["used_bytes"] <= file["size_bytes"], "live, used, size")
blob = [f for f in found.values() if f["kind"] == "blobs"][0]
t.check(300000 <= blob["live_bytes"] < 301000, f"one large value: {blob}")
t.run("delete", store, "large")
t.run("put", store, "a", "two")
t.check(all(f["live_bytes"] == 0 for f in files(store).values() if f["kind"] == "blobs"), "no large value")

# What is not the store's, and what a crash leaves.
with open(f"{store}/page-0000ffff", "wb") as file:
    file.write(b"somebody's" * 100)
with open(f"{store}/notes", "wb") as file:
    file.write(b"x")
with open(f"{store}/manifest.new", "wb") as file:
    file.write(b"\0" * 512)
more = files(store)
t.equal((more["notes"]["kind"], more["notes"]["state"]), ("other", "unknown"), "a stranger")
t.equal(more["page-0000ffff"]["state"], "unknown", "a stranger with a name of ours")
t.equal((more["manifest.new"]["kind"], more["manifest.new"]["state"]), ("manifest", "leftover"), "a manifest in the making")
for name in ("page-0000ffff", "notes", "manifest.new"):
    os.unlink(f"{store}/{name}")

# The manifest.
records = t.objects("manifest", "--json", store)
t.equal([r["sequence"] for r in records], list(range(records[0]["sequence"], records[0]["sequence"] + len(records))), "sequence")
t.equal(records[0]["kind"], "store", "the first record")
with open(f"{store}/manifest", "rb") as file:
    data = file.read()
at = 512
for record in records:
    _, size, sequence, kind, _, _, _, payload = struct.unpack("<IIQHHHHI", data[at:at + 28])
    t.equal((sequence, kind, payload), (record["sequence"], record["number"], record["size_bytes"]), f"the record at {at}")
    body = data[at + 32:at + 32 + payload]
    fields = record["fields"]
    if record["kind"] == "store":
        t.equal(struct.unpack("<QII", body[:16]), (fields["created"], fields["log"], fields["checksum"]), "store")
    if record["kind"] == "incarnation":
        t.equal(struct.unpack("<QQQ", body[:24]) + (body[24:40].hex(),),
                (fields["number"], fields["first_lsn"], fields["previous_end_lsn"], fields["boot_id"]), "incarnation")
    if record["kind"] == "checkpoint":
        t.equal(struct.unpack("<QQQQ", body[:32]),
                (fields["number"], fields["replay_from"], fields["durable_lsn"], fields["as_of_lsn"]), "checkpoint")
        address = struct.unpack("<Q", body[32:40])[0]
        root = fields["mapping_root"]
        t.equal((root["file"], root["offset"]), (f"page-{address >> 32:08x}", address & 0xffffffc0), "the root of the mapping")
        t.check(root["file"] in found or root["file"] in files(store), "its file is there")
    at += size
last = [r for r in records if r["kind"] == "checkpoint"][-1]["fields"]
t.equal(last["trees"], 3, "the list of trees, the default tree, users")
t.equal(len(t.run("manifest", store).splitlines()), len(records), "manifest as text")
t.equal(len(t.run("files", store).splitlines()), len(files(store)), "files as text")

# The log is needed from where the last checkpoint says on.
subprocess.run([sys.argv[2], t.path("killed"), "300", "kill"], check=False, capture_output=True)
t.check(any(f["state"] == "needed" for f in files(t.path("killed")).values() if f["kind"] == "log"), "the log of a killed process")
for file in files(store).values():
    if file["kind"] == "log":
        t.equal(file["state"] == "needed", file["end_lsn"] > last["replay_from"], f"the log of a closed store: {file}")

t.run("files", t.path("none"), code=ABSENT)
t.run("manifest", t.path("none"), code=ABSENT)
with open(f"{store}/manifest", "r+b") as file:
    file.seek(600)
    file.write(b"damaged!")
t.run("manifest", store, code=DAMAGED)
t.run("files", store, code=DAMAGED)
t.finish()
