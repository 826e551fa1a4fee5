#!/bin/bash
# Measures Quire beside LMDB and RocksDB on this machine, and prints a Markdown table of throughput and ratios.
#
# Builds the benchmark in release mode, then runs the engines in turn, round after round, with the same parameters: each
# figure is the median of all repeats of all rounds, and what disturbs the machine disturbs all. One lock is held
# meanwhile, so two comparisons do not measure each other. Exit status: 0 done, 1 a run failed or something is missing,
# 2 wrong arguments.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
build=${QUIRE_BUILD_DIR:-$root/build}/compare
num=1000000
threads=1
engines=quire,lmdb,rocksdb
workloads=fillseq,fillrandom,readrandom,readmissing,readmany,scan,scan100,consolidate,readrandom,readmissing,scan
workloads=$workloads,overwrite,mixed,delete,consolidate
rounds=3
repeats=1
dist=uniform
level=off
out=
dir=
pass=()

usage() {
    cat <<END
usage: tools/compare.sh [options]
  --num N           keys (default $num)
  --threads T       threads (default $threads)
  --engines A,B     engines, in the order of the columns (default $engines)
  --workloads A,B   workloads in order; a fill comes first
                    (default $workloads)
  --rounds R        runs of each engine; the median counts (default $rounds)
  --repeat N        measurements of a workload in each round, except of fills, delete and consolidate; the median of
                    all of them counts (default $repeats)
  --dist D          uniform (default) or zipf
  --key-size K, --value-size V, --key-format F, --ops N, --warmup N, --seed S, --lmdb-batch N, --level L,
  --log-segment N, --time-ms M
                    as for quire-bench (see bench/README.md)
  --path DIR        where files go (default: /dev/shm for workloads at level off if there is room, else \$TMPDIR
                    or /tmp)
  --out FILE        write the table to FILE as well, and every single result to FILE.jsonl
Environment: QUIRE_BUILD_DIR (default: build), QUIRE_BENCH_LOCK (default: quire-bench.lock in \$TMPDIR or /tmp).
END
}

complain() {
    echo "compare.sh: $1" >&2
    exit "${2:-1}"
}

while [ $# -gt 0 ]; do
    case $1 in
    --help)
        usage
        exit 0
        ;;
    --num | --threads | --engines | --workloads | --rounds | --repeat | --dist | --out | --path | --key-size | \
        --value-size | --key-format | --ops | --warmup | --seed | --lmdb-batch | --level | --log-segment | --time-ms)
        [ $# -ge 2 ] || complain "$1 needs a value" 2
        case $1 in
        --num) num=$2 ;;
        --threads) threads=$2 pass+=("$1" "$2") ;;
        --engines) engines=$2 ;;
        --workloads) workloads=$2 ;;
        --rounds) rounds=$2 ;;
        --repeat) repeats=$2 ;;
        --dist) dist=$2 ;;
        --out) out=$2 ;;
        --path) dir=$2 ;;
        --level) level=$2 pass+=("$1" "$2") ;;
        *) pass+=("$1" "$2") ;;
        esac
        shift 2
        ;;
    *)
        usage >&2
        complain "unknown argument \"$1\"" 2
        ;;
    esac
done
[[ $num =~ ^[1-9][0-9]*$ ]] || complain "--num: \"$num\" is not a positive number" 2
[[ $rounds =~ ^[1-9][0-9]*$ ]] || complain "--rounds: \"$rounds\" is not a positive number" 2
[[ $repeats =~ ^[1-9][0-9]*$ ]] || complain "--repeat: \"$repeats\" is not a positive number" 2

for tool in meson ninja flock awk; do
    command -v "$tool" >/dev/null ||
        complain "$tool is missing; on Debian: apt-get install meson ninja-build util-linux mawk"
done

# ---- Build ----------------------------------------------------------------------------------------------------------
log=$(mktemp)
scratch=
cleanup() {
    rm -f "$log"
    [ -z "$scratch" ] || rm -rf "$scratch"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

echo "building in $build" >&2
setup=(meson setup -Dbench=enabled -Dtests=false -Dtools=false)
# The project's default build type is release. Configured again each time: a peer may have been installed meanwhile.
[ ! -f "$build/build.ninja" ] || setup+=(--reconfigure)
if ! "${setup[@]}" "$build" "$root" >"$log" 2>&1 || ! ninja -C "$build" bench/quire-bench >>"$log" 2>&1; then
    cat "$log" >&2
    complain "the build failed"
fi
bench=$build/bench/quire-bench

built=$("$bench" --list-engines)
IFS=, read -ra engine_list <<<"$engines"
for engine in "${engine_list[@]}"; do
    if ! grep -qx "$engine" <<<"$built"; then
        case $engine in
        lmdb) hint="; on Debian: apt-get install liblmdb-dev" ;;
        rocksdb) hint="; on Debian: apt-get install librocksdb-dev" ;;
        *) hint= ;;
        esac
        complain "engine $engine was not built$hint (built: $(tr '\n' ' ' <<<"$built"))"
    fi
done

# ---- Run ------------------------------------------------------------------------------------------------------------
# At level off the peers keep their data in files all the same: in memory if there is room for several times the data, as
# memory is compared.
if [ -z "$dir" ]; then
    dir=${TMPDIR:-/tmp}
    need=$((num * 232 * 4 / 1024 + 1048576))
    if [ "$level" = off ] && [[ ! $workloads =~ groupcommit|logcost|reopen ]] && [ -d /dev/shm ] && [ -w /dev/shm ] && [ "$(df -k --output=avail /dev/shm | tail -n 1)" -gt "$need" ] &&
        [ "$(awk '/^MemAvailable:/ { print $2 }' /proc/meminfo)" -gt $((2 * need)) ]; then
        dir=/dev/shm
    fi
fi
scratch=$(mktemp -d "$dir/quire-compare.XXXXXX") || complain "--path: cannot write to \"$dir\""
results=$scratch/results.jsonl
exec 9>"${QUIRE_BENCH_LOCK:-${TMPDIR:-/tmp}/quire-bench.lock}"
flock -x 9

for ((round = 1; round <= rounds; round++)); do
    for engine in "${engine_list[@]}"; do
        echo "round $round of $rounds: $engine" >&2
        "$bench" --engine "$engine" --workload "$workloads" --num "$num" --dist "$dist" \
            --repeat "$repeats" --path "$scratch" --json "${pass[@]}" >>"$results" 9>&- ||
            complain "the run of $engine failed"
    done
done
flock -u 9

# ---- Report ---------------------------------------------------------------------------------------------------------
report() {
    echo "$num keys, $threads thread(s), $dist, level $level, $rounds round(s) of $repeats repeat(s), median; files in $dir;" \
        "$(nproc) cores, $(awk -F': ' '/^model name/ { print $2; exit }' /proc/cpuinfo)"
    echo
    awk -v engines="$engines" '
    function field(name,    rest) {
        if (!match($0, "\"" name "\":"))
            return ""
        rest = substr($0, RSTART + RLENGTH)
        sub(/^"/, "", rest)
        sub(/["},].*$/, "", rest)
        return rest
    }
    # The median of the values of one cell, which lie in list[cell, 1 ..].
    function median(list, cell,    n, i, k, t, v) {
        n = count[cell]
        for (i = 1; i <= n; i++)
            v[i] = list[cell, i] + 0
        for (i = 2; i <= n; i++)
            for (k = i; k > 1 && v[k] < v[k - 1]; k--) {
                t = v[k]; v[k] = v[k - 1]; v[k - 1] = t
            }
        return n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2
    }
    function rate(x) {
        return x >= 1e6 ? sprintf("%.2f M/s", x / 1e6) : x > 0 ? sprintf("%.0f k/s", x / 1e3) : "-"
    }
    function ratio(x, y) {
        return x > 0 && y > 0 ? sprintf("%.2f", x / y) : "-"
    }
    function line(n, cells,    i, text) {
        text = "|"
        for (i = 1; i <= n; i++)
            text = text " " cells[i] " |"
        print text
    }
    function rule(n,    i, text) {
        text = "|---|"
        for (i = 2; i <= n; i++)
            text = text "---:|"
        print text
    }
    # A row of rates, with the ratios that are asked for.
    function rates(text, list, p,    i, k, x, best, quire, lmdb, row) {
        row[k = 1] = text
        for (i = 1; i <= n; i++) {
            x = median(list, engine[i] SUBSEP p)
            row[++k] = rate(x)
            if (engine[i] == "quire") quire = x
            else if (x > best) best = x
            if (engine[i] == "lmdb") lmdb = x
        }
        if (has_quire && n > 1)
            row[++k] = ratio(quire, best)
        if (has_quire && has_lmdb)
            row[++k] = ratio(quire, lmdb)
        line(k, row)
    }
    # A row of the times that consolidate took.
    function times(text, p,    i, x, row) {
        row[1] = text
        for (i = 1; i <= n; i++) {
            x = median(seconds, engine[i] SUBSEP p)
            row[i + 1] = x > 0 ? sprintf("%.3f s", x) : "-"
        }
        while (i < columns)
            row[++i] = "-"
        line(columns, row)
    }
    {
        # A row for each workload at its place in the list; groupcommit and logcost have several there.
        place = field("position") SUBSEP field("workload") SUBSEP field("threads")
        if (!(place in row_of))
            row_of[place] = rows++
        position = row_of[place]
        cell = field("engine") SUBSEP position
        i = ++count[cell]
        ops[cell, i] = field("ops_per_sec")
        time = field("seconds") + 0
        seconds[cell, i] = time
        beside[cell, i] = time > 0 ? field("background_ops") / time : 0
        p50[cell, i] = field("p50_ns"); p99[cell, i] = field("p99_ns"); p999[cell, i] = field("p999_ns")
        rss[cell, i] = field("rss_bytes"); peak[cell, i] = field("max_rss_bytes"); live[cell, i] = field("live_bytes")
        workload[position] = field("workload")
        threads[position] = field("threads")
        if (position > last)
            last = position
    }
    END {
        n = split(engines, engine, ",")
        consolidated = 0
        for (p = 0; p <= last; p++) {
            if (workload[p] ~ /^(fill|overwrite|update|readwhilewriting|mixed|delete|groupcommit|logcost|reopen)/)
                consolidated = 0
            label[p] = workload[p] (consolidated && workload[p] != "consolidate" ? ", consolidated" : "")
            if (workload[p] == "groupcommit")
                label[p] = label[p] ", " threads[p] " thread(s)"
            if (workload[p] == "consolidate")
                consolidated = 1
        }
        for (i = 1; i <= n; i++) {
            has_quire = has_quire || engine[i] == "quire"
            has_lmdb = has_lmdb || engine[i] == "lmdb"
        }
        print "Operations a second (scan: entries); the time of consolidate and reopen\n"
        columns = 1
        head[1] = "workload"
        for (i = 1; i <= n; i++)
            head[++columns] = engine[i]
        if (has_quire && n > 1)
            head[++columns] = "quire / best peer"
        if (has_quire && has_lmdb)
            head[++columns] = "quire / lmdb"
        line(columns, head)
        rule(columns)
        for (p = 0; p <= last; p++) {
            if (workload[p] == "consolidate" || workload[p] == "reopen")
                times(label[p], p)
            else
                rates(label[p], ops, p)
            if (workload[p] == "readwhilewriting")
                rates(label[p] ": its writes", beside, p)
        }
        print "\nLatency p50 / p99 / p99.9 in ns (readmany: a batch of 16; scan: a pass)\n"
        line(n + 1, head)
        rule(n + 1)
        for (p = 0; p <= last; p++) {
            if (workload[p] == "consolidate" || workload[p] == "reopen")
                continue
            row[1] = label[p]
            for (i = 1; i <= n; i++) {
                cell = engine[i] SUBSEP p
                row[i + 1] = sprintf("%.0f / %.0f / %.0f", median(p50, cell), median(p99, cell), median(p999, cell))
            }
            line(n + 1, row)
        }
        print "\nMemory of the process after the workload in MiB (times the live bytes) / peak during it\n"
        line(n + 1, head)
        rule(n + 1)
        for (p = 0; p <= last; p++) {
            row[1] = label[p]
            for (i = 1; i <= n; i++) {
                cell = engine[i] SUBSEP p
                x = median(live, cell)
                row[i + 1] = sprintf("%.0f (%s) / %.0f", median(rss, cell) / 1048576,
                                     x > 0 ? sprintf("%.2f", median(rss, cell) / x) : "-", median(peak, cell) / 1048576)
            }
            line(n + 1, row)
        }
    }' "$results"
}

if [ -n "$out" ]; then
    report | tee "$out"
    cp "$results" "$out.jsonl"
else
    report
fi
