#!/bin/sh
# Shows Quire at work on this machine's own data: installs what is missing (Debian), builds, and runs.
#
# The data are the package indexes that apt keeps: a key for each package and version, its paragraph as the value. The
# program loads them into a store, kills itself in the middle, opens the store again and finds all that was acknowledged; it
# loads them once more, reads both versions in every way there is, walks the pages in place, deletes half, opens the store
# once more, and reports; all that it reads is compared. Then, if they are there, LMDB and RocksDB do a short benchmark beside Quire.
set -u

root=$(cd "$(dirname "$0")/.." && pwd)
build=${QUIRE_BUILD_DIR:-build}
case $build in /*) ;; *) build=$root/$build ;; esac
lists=/var/lib/apt/lists
apt_helper=/usr/lib/apt/apt-helper
needed="gcc libc6-dev pkg-config meson ninja-build liburcu-dev liburing-dev liblz4-dev libjemalloc-dev libxxhash-dev libcjson-dev"
peers="liblmdb-dev librocksdb-dev"
compare=1
prefix=lib
updated=0
scratch=

usage() {
    cat <<END
usage: tools/quickstart.sh [--prefix P] [--no-compare] [FILE...]
  FILE          package indexes, not compressed (default: those that apt keeps; fetched by apt-get update if there are none)
  --prefix P    the prefix to scan (default $prefix)
  --no-compare  without the benchmark beside LMDB and RocksDB
As root it installs what is missing with apt-get; anybody else is told what to install.
Environment: QUIRE_BUILD_DIR (default: build).
Exit code 0: all that was read was right; 1: something was not, or is missing; 2: wrong arguments.
END
}

complain() {
    echo "quickstart.sh: $1" >&2
    exit "${2:-1}"
}

# The packages of the list $1 that are not installed.
missing_of() {
    for package in $1; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || printf ' %s' "$package"
    done
}

# Once a run: the lists may be old or absent.
update_lists() {
    [ "$updated" -eq 1 ] && return 0
    updated=1
    echo "updating the package lists (some seconds to a minute)"
    apt-get update -q >"$scratch/apt.log" 2>&1
}

install_packages() {
    export DEBIAN_FRONTEND=noninteractive
    update_lists || return 1
    echo "installing:$*"
    # shellcheck disable=SC2048,SC2086
    apt-get install -q -y --no-install-recommends $* >"$scratch/apt.log" 2>&1
}

install_missing() {
    command -v dpkg-query >/dev/null || return 0
    missing=$(missing_of "$needed")
    if [ -n "$missing" ]; then
        [ "$(id -u)" -eq 0 ] || complain "missing packages; run as root, or: apt-get install$missing"
        if ! install_packages "$missing"; then
            cat "$scratch/apt.log" >&2
            complain "the packages could not be installed"
        fi
    fi
    [ "$compare" -eq 1 ] || return 0
    missing=$(missing_of "$peers")
    if [ -n "$missing" ] && [ "$(id -u)" -eq 0 ]; then
        install_packages "$missing" || echo "not installable here, left out:$missing"
    fi
    [ -z "$(missing_of "$peers")" ] || compare=0
}

# Builds in release mode, without tests. Configured again each time: a package may have been installed meanwhile.
build_program() {
    echo "building in $build/quickstart (about a minute; what the compiler says: $build/quickstart.log)"
    mkdir -p "$build" || exit 1
    setup="meson setup -Dtests=false -Dbench=disabled"
    [ ! -f "$build/quickstart/build.ninja" ] || setup="$setup --reconfigure"
    if ! $setup "$build/quickstart" "$root" >"$build/quickstart.log" 2>&1 ||
        ! ninja -C "$build/quickstart" tools/quickstart/quire-quickstart >>"$build/quickstart.log" 2>&1; then
        cat "$build/quickstart.log" >&2
        complain "the build failed"
    fi
}

# Each index that apt keeps, decompressed into $scratch: apt's own helper reads whatever compression apt writes.
extract_indexes() {
    set -- "$lists"/*_Packages "$lists"/*_Packages.*
    for index in "$@"; do
        [ -f "$index" ] || continue
        "$apt_helper" cat-file "$index" >"$scratch/$(basename "$index").index" 2>/dev/null ||
            echo "left out, because it cannot be read: $index" >&2
    done
}

have_indexes() {
    for index in "$scratch"/*.index; do
        [ -s "$index" ] && return 0
    done
    return 1
}

find_indexes() {
    [ -x "$apt_helper" ] || complain "apt is not here; name a package index: tools/quickstart.sh FILE"
    extract_indexes
    have_indexes && return 0
    [ "$(id -u)" -eq 0 ] || complain "apt keeps no package index; run as root, or: apt-get update"
    update_lists || cat "$scratch/apt.log" >&2
    extract_indexes
    have_indexes || complain "apt-get update brought no package index; name one: tools/quickstart.sh FILE"
}

while [ $# -gt 0 ]; do
    case $1 in
    -h | --help) usage && exit 0 ;;
    --no-compare) compare=0 ;;
    --prefix)
        [ $# -ge 2 ] || complain "--prefix needs a value" 2
        prefix=$2
        shift
        ;;
    --) shift && break ;;
    -?*)
        usage >&2
        complain "unknown argument \"$1\"" 2
        ;;
    *) break ;;
    esac
    shift
done
for file in "$@"; do
    [ -r "$file" ] || complain "$file: cannot be read"
done

scratch=$(mktemp -d "${TMPDIR:-/tmp}/quire-quickstart.XXXXXX") || exit 1
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM

install_missing
build_program
if [ $# -eq 0 ]; then
    find_indexes
    set -- "$scratch"/*.index
fi
echo
# The store is in $scratch, so that it goes with it, however the program ends.
TMPDIR=$scratch "$build/quickstart/tools/quickstart/quire-quickstart" --prefix "$prefix" "$@" || exit 1

if [ "$compare" -eq 1 ]; then
    # The lock that keeps two comparisons apart may be another user's.
    lock=${QUIRE_BENCH_LOCK:-${TMPDIR:-/tmp}/quire-bench.lock}
    (: >>"$lock") 2>/dev/null || lock=$scratch/lock
    export QUIRE_BENCH_LOCK="$lock"
    printf '\nBeside LMDB and RocksDB, in memory, one thread (tools/compare.sh --help has more)\n\n'
    "$root/tools/compare.sh" --num 200000 --rounds 3 --workloads fillrandom,readrandom,scan || exit 1
fi
