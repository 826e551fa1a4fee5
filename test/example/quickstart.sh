#!/bin/sh
# Goal: the quickstart's program loads indexes in all their shapes, and fails where it has to.
# Method: quickstart.sh PROGRAM runs it on small indexes that are written here.
set -u
. "$(dirname "$0")/../lib/results.sh"
program=$1
directory=$(mktemp -d) || exit 1
trap 'rm -rf "$directory"' EXIT

# says TEXT: the latest output has it.
says() {
    printf '%s\n' "$output" | grep -qF -- "$1"
    result $? "does not say \"$1\": $output"
}

fails() { # fails STATUS arguments
    status=$1
    shift
    output=$("$program" "$@" 2>&1 </dev/null)
    got=$?
    [ "$got" -eq "$status" ]
    result $? "exit status $got instead of $status: $*"
}

# paragraphs NUMBER PREFIX: an index with so many packages, some with long values.
paragraphs() {
    awk -v n="$1" -v prefix="$2" 'BEGIN {
        for (i = 0; i < n; i++) {
            printf "Package: %s%d\nArchitecture: all\nVersion: 1:%d.0-1+b%d\nDescription: number %d\n", prefix, i, i, i % 7, i
            for (k = 0; k < i % 50; k++)
                print " a line of the long description"
            print ""
        }
    }'
}

paragraphs 3000 libquire >"$directory/one"
paragraphs 500 other >"$directory/two"
printf 'Package: last\nVersion: 1' >"$directory/unended"
printf '\n\n\r\nPackage: a\r\nVersion: 1\r\n\r\n\n\nPackage: b\nVersion:2\n\nComment: of nobody\n' >"$directory/odd"
: >"$directory/empty"

output=$("$program" "$directory/one")
result $? "one index"
says "3,000 paragraphs, 3,000 different keys"
says "everything that was read was right"

output=$("$program" --prefix other "$directory/one" "$directory/two" "$directory/one" "$directory/empty")
result $? "the same index twice"
says "4 indexes: 6,500 paragraphs, 3,500 different keys"
printf '%s\n' "$output" | grep -q 'prefix "other".* 500 entries'
result $? "not 500 entries with the prefix: $output"

output=$("$program" --prefix zzz - <"$directory/two")
result $? "standard input, a prefix of nothing"
output=$("$program" --prefix "" "$directory/two")
result $? "the empty prefix"
printf '%s\n' "$output" | grep -q 'prefix "".* 500 entries'
result $? "not all entries with the empty prefix: $output"
output=$("$program" "$directory/unended")
result $? "one package, no line break at the end"
output=$("$program" "$directory/odd")
result $? "empty lines and carriage returns"
says "2 paragraphs"

fails 1 "$directory/absent"
fails 1 "$directory/empty"
fails 1 "$directory"
fails 2
fails 2 --nonsense
fails 2 --prefix
fails 0 --help
finish
