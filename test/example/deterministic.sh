#!/bin/sh
# Goal: the deterministic program checks every value, prints the same in each run, and refuses wrong arguments (K12).
# Method: deterministic.sh PROGRAM N V runs it twice and compares; then with arguments that it has to refuse.
set -u
. "$(dirname "$0")/../lib/results.sh"
program=$1 n=$2 v=$3

refuse() {
    "$program" "$@" >/dev/null 2>&1
    [ $? -eq 2 ]
    result $? "not refused: $*"
}

first=$("$program" "$n" "$v")
result $? "the first run"
second=$("$program" "$n" "$v")
result $? "the second run"
[ -n "$first" ] && [ "$first" = "$second" ]
result $? "the runs differ: $first / $second"
printf '%s\n' "$first" | grep -qx "inserted $n, present $n"
result $? "does not say that all keys were inserted: $first"
[ "$(printf '%s\n' "$first" | grep -c '^read [0-9]*, checksum [0-9a-f]\{16\}$')" -eq 2 ]
result $? "does not say what was read: $first"
other=$("$program" "$n" "$((v + 1))")
[ "$other" != "$first" ]
result $? "other values, the same output"
"$program" 1 0 >/dev/null
result $? "one key with an empty value"
refuse
refuse 10
refuse 0 10
refuse 10 x
refuse -1 10
refuse 10 10 10
finish
