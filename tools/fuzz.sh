#!/bin/sh
# Fuzzes: builds the targets of test/fuzz with libFuzzer and runs one after the other, each for a time.
#
#   tools/fuzz.sh [--seconds N] [--corpus DIR] [--make-corpus] [TARGET...]
#
#   --seconds N     for each target; default 600
#   --corpus DIR    where corpora are kept and grow, one directory a target; default ${QUIRE_BUILD_DIR:-build}/fuzz-corpus
#   --make-corpus   writes the seeds to test/fuzz/corpus instead, and runs nothing; what is there besides stays
#
# Needs clang and its runtime (on Debian: clang libclang-rt-14-dev). An input that fails is kept as DIR/TARGET-crash-... (or
# -timeout-, -oom-, -leak-); build/fuzz/test/fuzz/fuzz_TARGET --corpus FILE --rounds 0 replays it. The last line is
# `N passed, N failed`, counting targets.
set -u

root=$(cd "$(dirname "$0")/.." && pwd)
build=${QUIRE_BUILD_DIR:-$root/build}
case $build in /*) ;; *) build=$root/$build ;; esac
corpus=$build/fuzz-corpus
seconds=600
make=0
targets=""
passed=0
failed=0

usage() {
    sed -n '2,/^set /s/^# \{0,1\}//p' "$0"
}

while [ $# -gt 0 ]; do
    case $1 in
    --seconds) seconds=$2 && shift ;;
    --corpus) corpus=$2 && shift ;;
    --make-corpus) make=1 ;;
    -h | --help) usage && exit 0 ;;
    -*) usage >&2 && exit 2 ;;
    *) targets="$targets $1" ;;
    esac
    shift
done
[ -n "$targets" ] || targets=$(cd "$root/test/fuzz/corpus" && echo *)

compiler=${CC:-clang}
mkdir -p "$build" || exit 1
if [ ! -f "$build/fuzz/build.ninja" ] &&
    ! CC=$compiler meson setup "$build/fuzz" "$root" -Dfuzz=true -Dallocator=system -Db_sanitize=address,undefined \
        -Db_lundef=false -Dbench=disabled >"$build/fuzz.log" 2>&1; then
    cat "$build/fuzz.log"
    exit 1
fi
programs=""
for target in $targets; do
    programs="$programs test/fuzz/fuzz_$target test/fuzz/libfuzzer_$target"
done
# shellcheck disable=SC2086
if ! ninja -C "$build/fuzz" $programs >"$build/fuzz.log" 2>&1; then
    grep -v '^\[' "$build/fuzz.log"
    exit 1
fi

for target in $targets; do
    if [ "$make" -eq 1 ]; then
        mkdir -p "$root/test/fuzz/corpus/$target"
        "$build/fuzz/test/fuzz/fuzz_$target" --make "$root/test/fuzz/corpus/$target" || exit 1
        continue
    fi
    mkdir -p "$corpus/$target"
    # An input is to need less than a tenth of these limits.
    if "$build/fuzz/test/fuzz/libfuzzer_$target" -max_total_time="$seconds" -timeout=60 -rss_limit_mb=2048 \
        -malloc_limit_mb=1024 -print_final_stats=1 -artifact_prefix="$corpus/$target-" "$corpus/$target" \
        "$root/test/fuzz/corpus/$target" >"$corpus/$target.log" 2>&1; then
        passed=$((passed + 1))
        verdict=passed
    else
        failed=$((failed + 1))
        verdict=FAILED
        tail -n 30 "$corpus/$target.log"
    fi
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$corpus/$target.log")
    edges=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$corpus/$target.log" | tail -n 1)
    printf '%-10s %s, %s inputs, %s edges, %s in the corpus\n' "$target" "$verdict" "${runs:-?}" "${edges:-?}" \
        "$(find "$corpus/$target" -type f | wc -l)"
done
[ "$make" -eq 1 ] && exit 0
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
