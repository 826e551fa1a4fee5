#!/bin/sh
# Installs what is missing (Debian), builds Quire in four configurations, tests each, and sums up.
#
#   tools/test.sh            gcc, clang (built without io_uring), address + undefined-behaviour sanitizers, thread sanitizer
#   tools/test.sh --quick    gcc only
#
# Build directories: ${QUIRE_BUILD_DIR:-build}/{gcc,clang,asan,tsan}, kept for the next run. The last line of output is
# `N passed, N failed`, counting the tests of all configurations; one that cannot be built counts as one failure.
#
# The first configuration does the full amount of random work, the others a part of it, to keep the whole short.
# QUIRE_TEST_SCALE, if set, is the part for all of them: 1 is a full run everywhere, 10 a long one.
set -u

root=$(cd "$(dirname "$0")/.." && pwd)
build=${QUIRE_BUILD_DIR:-build}
case $build in /*) ;; *) build=$root/$build ;; esac
packages="gcc g++ binutils pkg-config meson ninja-build python3 libc6-dev liburcu-dev liburing-dev liblz4-dev libjemalloc-dev
libxxhash-dev libcjson-dev libcriterion-dev liblmdb-dev libsqlite3-dev librocksdb-dev lmdb-utils"
passed=0
failed=0
summary=""
failures=""
wrapper=""

usage() {
    sed -n '2,/^set /s/^# \{0,1\}//p' "$0"
}

finish() {
    [ -z "$failures" ] || printf '\n==== failed\n%s' "$failures"
    printf '\n%-8s %-7s %-7s %-7s %s\n' "" passed failed skipped seconds
    printf '%s' "$summary"
    echo "$passed passed, $failed failed"
    [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
    exit
}

# configuration passed failed skipped seconds
count() {
    passed=$((passed + $2))
    failed=$((failed + $3))
    summary="$summary$(printf '%-8s %-7s %-7s %-7s %s' "$@")
"
}

install_missing() {
    command -v dpkg-query >/dev/null || return 0
    missing=""
    for package in $packages; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
    done
    [ -z "$missing" ] && return 0
    if [ "$(id -u)" -ne 0 ]; then
        echo "missing packages (run as root, or: apt-get install$missing)" >&2
        return 1
    fi
    echo "installing:$missing"
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086
    apt-get update -q && apt-get install -q -y --no-install-recommends $missing
}

# Results of the last `meson test` in directory $1: "passed failed skipped".
results() {
    python3 - "$1/meson-logs/testlog.json" <<'PYTHON'
import json, os, sys
counts = {"passed": 0, "failed": 0, "skipped": 0}
if os.path.exists(sys.argv[1]):
    with open(sys.argv[1], encoding="utf-8") as log:
        for line in log:
            result = json.loads(line)["result"]
            kind = {"OK": "passed", "EXPECTEDFAIL": "passed", "SKIP": "skipped"}.get(result, "failed")
            counts[kind] += 1
print(*counts.values())
PYTHON
}

# What failed in the last `meson test` in directory $1, with the end of what it printed: for the last lines of a long output.
failed_tests() {
    python3 - "$1/meson-logs/testlog.json" "$2" <<'PYTHON'
import json, os, sys
if os.path.exists(sys.argv[1]):
    with open(sys.argv[1], encoding="utf-8") as log:
        for line in log:
            test = json.loads(line)
            if test["result"] in ("OK", "EXPECTEDFAIL", "SKIP"):
                continue
            print(f"---- {sys.argv[2]}: {test['name']}: {test['result']}")
            printed = (test.get("stdout") or "") + (test.get("stderr") or "")
            print("\n".join(printed.splitlines()[-25:]))
PYTHON
}

# configuration compiler "suites" timeout-multiplier scale [meson options]
run() {
    name=$1 compiler=$2 suites=$3 multiplier=$4 scale=${QUIRE_TEST_SCALE:-$5}
    shift 5
    directory=$build/$name
    begin=$(date +%s)
    printf '\n==== %s: building, some minutes the first time (%s)\n' "$name" "$build/$name.log"
    if [ ! -f "$directory/build.ninja" ] &&
        ! CC=$compiler meson setup "$directory" "$root" -Dwerror=true "$@" >"$build/$name.log" 2>&1; then
        cat "$build/$name.log"
        failures="$failures---- $name: cannot be set up
"
        count "$name" 0 1 0 $(($(date +%s) - begin))
        return
    fi
    # A directory of an earlier run may have been made with other options.
    [ $# -eq 0 ] || meson configure "$directory" "$@" >/dev/null 2>&1
    if ! ninja -C "$directory" >"$build/$name.log" 2>&1; then
        grep -v '^\[' "$build/$name.log"
        failures="$failures---- $name: cannot be built
"
        count "$name" 0 1 0 $(($(date +%s) - begin))
        return
    fi
    rm -f "$directory/meson-logs/testlog.json"
    arguments=""
    for suite in $suites; do
        arguments="$arguments --suite $suite"
    done
    # shellcheck disable=SC2086
    QUIRE_TEST_SCALE=$scale $wrapper meson test -C "$directory" --no-rebuild --print-errorlogs --timeout-multiplier "$multiplier" $arguments
    failures="$failures$(failed_tests "$directory" "$name" && echo .)"
    failures=${failures%.}
    # shellcheck disable=SC2046
    set -- $(results "$directory")
    # A run that tested nothing proves nothing.
    [ "$1" -gt 0 ] || set -- "$1" $(($2 + 1)) "$3"
    count "$name" "$1" "$2" "$3" $(($(date +%s) - begin))
}

quick=0
for argument in "$@"; do
    case $argument in
    --quick) quick=1 ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
    esac
done

mkdir -p "$build" || exit 1
[ "$quick" -eq 1 ] || packages="$packages clang"
if ! install_missing; then
    count install 0 1 0 0
    finish
fi

run gcc gcc "quick style model interleave stress crash" 1 1
[ "$quick" -eq 1 ] && finish

# Without rings, as where there is no liburing.
run clang clang "quick model interleave stress" 1 0.25 -During=disabled

export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_stack_use_after_return=1}"
export UBSAN_OPTIONS="${UBSAN_OPTIONS:-print_stacktrace=1}"
run asan gcc "quick model interleave stress" 5 0.3 -Dallocator=system -Db_sanitize=address,undefined -Db_lundef=false
# The thread sanitizer of this compiler does not start where addresses are randomized by many bits.
setarch "$(uname -m)" -R true 2>/dev/null && wrapper="setarch $(uname -m) -R"
export TSAN_OPTIONS="${TSAN_OPTIONS:-halt_on_error=1}" # one report is enough to fail
# What one thread does is of less interest to it than what several do.
run tsan gcc "interleave stress" 8 0.2 -Dallocator=system -Db_sanitize=thread -Db_lundef=false
run tsan gcc "quick model" 8 0.03 -Dallocator=system -Db_sanitize=thread -Db_lundef=false
finish
