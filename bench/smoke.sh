#!/bin/sh
# Goal: every engine that was built does every workload, and wrong command lines are refused.
# Method: smoke.sh QUIRE-BENCH [NUM] runs all workloads on NUM keys (default 20000) with 1 and 2 threads, uniform and
#         zipf, in all key formats, and counts the lines of JSON that come out with operations in them; a few
#         workloads are warmed up and repeated.
set -u
. "$(dirname "$0")/../test/lib/results.sh"

bench=$1
num=${2:-20000}
workloads=fillseq,readrandom,fillrandom,readrandom,readmissing,readmany,scan,scan100,consolidate,scan,overwrite,mixed
workloads=$workloads,readrandom,scan,mixed8020,updaterandom,readwhilewriting,delete,readmissing,consolidate,scan
expected=21

run() { # run text arguments: all workloads, each one line with its name
    text=$1
    shift
    if output=$("$bench" --num "$num" --workload "$workloads" --json "$@"); then
        lines=$(printf '%s\n' "$output" | grep -c '^{"engine":.*"ops_per_sec":.*"p999_ns":.*"max_rss_bytes":.*}$')
        # Operations in the background: some in readwhilewriting, none elsewhere.
        background=$(printf '%s\n' "$output" | grep -v '"background_ops":0,' | sed 's/.*"workload":"\([^"]*\)".*/\1/')
        reads=$(printf '%s\n' "$output" | grep '"workload":"readrandom"' | grep -c "\"ops\":$num,")
        [ "$lines" -eq "$expected" ] && [ "$reads" -eq 3 ]
        result $? "$text: $lines lines instead of $expected, $reads of 3 readrandom with $num operations"
        [ "$background" = readwhilewriting ]
        result $? "$text: operations in the background of: $background"
    else
        result 1 "$text: exit status $?"
    fi
}

repeat() { # repeat arguments: which workloads are measured how often, by the lines that say so
    seen=$("$bench" --num 1000 --workload fillrandom,readrandom,readwhilewriting,scan,delete,consolidate --json \
        --warmup 500 --repeat 3 "$@" | sed 's/.*"workload":"\([^"]*\)".*"repeat":\([0-9]*\),.*/\1 \2/' | tr '\n' ' ')
    wanted="fillrandom 0 readrandom 0 readrandom 1 readrandom 2 readwhilewriting 0 readwhilewriting 1"
    wanted="$wanted readwhilewriting 2 scan 0 scan 1 scan 2 delete 0 consolidate 0 "
    [ "$seen" = "$wanted" ]
    result $? "$*, repeats: $seen"
}

counted() { # counted puts arguments: how many puts Quire's own statistics show after a fill of 1000
    wanted=$1
    shift
    seen=$("$bench" --engine quire --num 1000 --workload fillseq --stats "$@" 2>&1 >/dev/null | sed -n 's/^puts //p')
    [ "$seen" = "$wanted" ]
    result $? "$*: statistics show $seen puts instead of $wanted"
}

levels() { # levels engine: the same work at each level, by the lines that say so; few keys, as each put may wait for a disk
    for level in off process durable; do
        seen=$("$bench" --engine "$1" --level "$level" --num 100 --threads 2 --json --log-segment 65536 \
            --workload fillrandom,readrandom,overwrite,scan,delete,readmissing | grep -c "\"level\":\"$level\",")
        [ "$seen" -eq 6 ]
        result $? "$1, level $level: $seen lines instead of 6"
    done
}

group() { # group engine: a line for each number of threads, with the yardsticks' figures
    seen=$("$bench" --engine "$1" --workload groupcommit --num 100 --json --rounds 2 --time-ms 20 |
        sed -n 's/.*"level":"durable","threads":\([0-9]*\),.*"ops":[1-9].*"ratio_to_loop":[0-9].*"ratio_to_group":.*/\1/p' |
        tr '\n' ' ')
    [ "$seen" = "1 2 16 " ]
    result $? "$1, groupcommit: threads $seen"
}

cost() { # cost engine: lines of both phases
    seen=$("$bench" --engine "$1" --workload logcost --num 2000 --rounds 2 --log-segment 65536 --json |
        sed -n 's/.*"workload":"\([^"]*\)".*"level":"process",.*"ops":4000,.*"cost_ns":.*/\1/p' | tr '\n' ' ')
    [ "$seen" = "logcost-fill logcost-over " ]
    result $? "$1, logcost: $seen"
}

reopen() { # reopen engine arguments: killed and opened again, twice, after the fill at least; nothing stays behind
    dir=$(mktemp -d)
    seen=$("$bench" --engine "$@" --workload reopen --num 2000 --repeat 2 --path "$dir" --json |
        sed -n 's/.*"workload":"reopen".*"ops":[0-9]\{4,\},.*"open_ms":[0-9].*/x/p' | wc -l)
    [ "$seen" -eq 2 ]
    result $? "$*, reopen: $seen lines instead of 2"
    rmdir "$dir"
    result $? "$*, reopen: files stay behind"
}

refuse() { # refuse status arguments
    status=$1
    shift
    "$bench" "$@" >/dev/null 2>&1
    got=$?
    [ "$got" -eq "$status" ]
    result $? "$*: exit status $got instead of $status"
}

engines=$("$bench" --list-engines)
[ -n "$engines" ]
result $? "no engine was built"
for engine in $engines; do
    run "$engine, 1 thread" --engine "$engine" --verify-scan
    run "$engine, 2 threads, zipf, decimal keys" --engine "$engine" --threads 2 --dist zipf --key-format decimal
    run "$engine, hashed keys, short values" --engine "$engine" --key-format hash --key-size 24 --value-size 12
    repeat --engine "$engine" --threads 2
    levels "$engine"
    group "$engine"
    cost "$engine"
    reopen "$engine"
    reopen "$engine" --level durable --threads 2
    refuse 1 --engine "$engine" --workload logcost --level off
    refuse 1 --engine "$engine" --workload reopen --level off
    refuse 1 --engine "$engine" --workload readrandom --num 10
    refuse 1 --engine "$engine" --workload fillseq,delete,readrandom --num 10
done
counted 1000
counted 0 --no-statistics
refuse 2 --workload nonsense
refuse 2 --engine nonsense
refuse 2 --num 0
refuse 2 --num 12x
refuse 2 --warmup -1
refuse 2 --repeat 0
refuse 2 --rounds 0
refuse 2 --time-ms 0
refuse 2 --key-size 1 --num 1000
refuse 2 --dist normal
refuse 2 --level safe
refuse 1 --path /nonexistent --workload fillseq --num 10
refuse 1 --level process --log-segment 17 --workload fillseq --num 10
refuse 2 stray
refuse 0 --help
finish
