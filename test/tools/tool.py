"""
What the tests of the command-line tool share: running it, counting, stores to play with.

A test is a program: `NAME.py TOOL [HELPER...]`; its last line is `N passed, N failed`.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile

DONE, ABSENT, WRONG, FAILED, DAMAGED = range(5)


class Tests:
    """Runs TOOL in a directory of its own, which is gone afterwards."""

    def __init__(self):
        self.tool = os.path.abspath(sys.argv[1])
        self.passed = self.failed = 0
        self.directory = tempfile.mkdtemp(prefix="quire-tool-")

    def path(self, name):
        return os.path.join(self.directory, name)

    def check(self, holds, text):
        if holds:
            self.passed += 1
        else:
            self.failed += 1
            print(f"FAILED: {text}")
        return holds

    def equal(self, actual, expected, text):
        return self.check(actual == expected, f"{text}: {actual!r:.2000} instead of {expected!r:.2000}")

    def run(self, *arguments, code=DONE, given=b""):
        """The tool's output; its exit code has to be `code`. A failure says something on standard error."""
        done = subprocess.run([self.tool, *arguments], input=given, capture_output=True, check=False)
        self.check(done.returncode == code,
                   f"{' '.join(map(str, arguments))}: exit code {done.returncode} instead of {code}: {done.stderr!r}")
        if code == DONE:
            self.equal(done.stderr, b"", f"{arguments}: standard error")
        if code in (WRONG, FAILED):
            self.check(done.stderr.startswith(b"quire: ") or b"\nquire: " in done.stderr,
                       f"{arguments}: no message: {done.stderr!r}")
        return done.stdout

    def objects(self, *arguments, **more):
        """The output's JSON lines."""
        return [json.loads(line) for line in self.run(*arguments, **more).decode().splitlines()]

    def lines(self, store, pairs, *options):
        """Loads pairs of bytes."""
        text = "".join(f"{key.hex()}\t{value.hex()}\n" for key, value in pairs)
        return self.run("load", "--format", "lines", "--hex", *options, self.path(store), given=text.encode())

    def pairs(self, store, *options):
        """What a scan gives, as bytes."""
        text = self.run("scan", "--hex", *options, self.path(store)).decode()
        return [tuple(bytes.fromhex(part) for part in line.split("\t")) for line in text.splitlines()]

    def copy(self, source, target):
        shutil.rmtree(self.path(target), ignore_errors=True)
        shutil.copytree(self.path(source), self.path(target))
        return self.path(target)

    def finish(self):
        shutil.rmtree(self.directory, ignore_errors=True)
        print(f"{self.passed} passed, {self.failed} failed")
        sys.exit(0 if self.failed == 0 and self.passed > 0 else 1)


def digest(path):
    """All that can be seen of a directory: names, contents, times of change."""
    found = {}
    for name in sorted(os.listdir(path)):
        with open(os.path.join(path, name), "rb") as file:
            facts = os.stat(file.fileno())
            found[name] = (facts.st_mtime_ns, facts.st_ino, hash(file.read()))
    return found


def flip(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


# Keys and values of all kinds: empty, every byte, longer than a frame of the log, what looks like an escape.
AWKWARD = [(b"", b"of the empty key"), (b"empty value", b""), (bytes(range(256)), bytes(reversed(range(256)))),
           (b"tab\there", b"line\nbreak\r"), (b"\\x41", b"\\\\"), (b"\xff\xff", b"\xc3\x28"), ("größe".encode(), "日本".encode()),
           (b"large", b"\x00v" * 150000), (b"k" * 100000, b"long key"), (b"nul\x00key", b"a\x00b"), (b'"quoted"', b"{}")]
