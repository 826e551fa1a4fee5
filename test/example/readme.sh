#!/bin/sh
# Goal: the README's program does what the README says.
# Method: readme.sh README PROGRAM compares what the program (compiled from the first ```c block) prints with the first
#         ```text block. It runs in a directory of its own, where its store is.
set -u
expected=$(awk '/^```text$/ { inside = 1; next } /^```$/ && inside { exit } inside' "$1")
directory=$(mktemp -d) || exit 1
trap 'rm -rf "$directory"' EXIT
# Twice: the second run finds the store of the first.
program=$(cd "$(dirname "$2")" && pwd)/$(basename "$2")
printed=$(cd "$directory" && "$program" >/dev/null && "$program")
status=$?
if [ -n "$expected" ] && [ "$status" -eq 0 ] && [ "$printed" = "$expected" ]; then
    echo "1 passed, 0 failed"
    exit 0
fi
printf 'exit status %s, printed:\n%s\ninstead of:\n%s\n' "$status" "$printed" "$expected"
echo "0 passed, 1 failed"
exit 1
