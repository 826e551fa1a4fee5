#!/usr/bin/env python3
"""
Goal: the shared library can be used by a program that was not compiled against the header (acceptance row K05).
Method: foreign.py LIBRARY loads it with ctypes, opens a database, writes, reads, lists and closes.

Ends with the line `N passed, N failed`.
"""

import ctypes
import sys

passed = failed = 0


def check(what, actual, expected):
    global passed, failed
    if actual == expected:
        passed += 1
    else:
        failed += 1
        print(f"FAILED: {what} is {actual!r}, not {expected!r}")


def main():
    library = ctypes.CDLL(sys.argv[1])
    for name in ("quire_version", "quire_strerror"):
        getattr(library, name).restype = ctypes.c_char_p
    size = ctypes.c_size_t
    database, tree = ctypes.c_void_p(), ctypes.c_void_p()
    check("version", library.quire_version().count(b"."), 2)
    check("open", library.quire_open(None, None, ctypes.byref(database)), 0)
    check("tree", library.quire_tree_open(database, b"t", None, ctypes.byref(tree)), 0)
    for key, value in ((b"a", b"1"), (b"b", b"two"), (b"", b"")):
        check("put", library.quire_put(tree, key, size(len(key)), value, size(len(value)), 0, None), 0)
    buffer, needed = ctypes.create_string_buffer(16), size()
    check("get", library.quire_get(tree, None, b"b", size(1), buffer, size(16), ctypes.byref(needed)), 0)
    check("value", buffer.raw[:needed.value], b"two")
    check("absent", library.quire_get(tree, None, b"c", size(1), buffer, size(16), ctypes.byref(needed)), 1)
    check("null tree", library.quire_get(None, None, b"c", size(1), buffer, size(16), ctypes.byref(needed)), -1)
    check("text", len(library.quire_strerror(-1)) > 0, True)
    check("close", library.quire_close(database), 0)
    print(f"{passed} passed, {failed} failed")
    return 0 if failed == 0 and passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
