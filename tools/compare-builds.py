#!/usr/bin/env python3
"""
Measures two builds of Quire beside each other: what a change gains or costs, with a bound.

A single run here differs from the next by a third. So the builds run in turns, old, new, new, old, each time in a new process,
and each group of four gives one ratio of geometric means. Printed for each workload: the medians of all runs, the mean of the
ratios, and between which bounds that mean lies in 19 of 20 draws of groups with replacement (bootstrap).

    tools/compare-builds.py OLD/bench/quire-bench NEW/bench/quire-bench [--rounds 9] [-- options of quire-bench]

One lock is held meanwhile (QUIRE_BENCH_LOCK, as in compare.sh). Exit status: 0 done, 1 a run failed, 2 wrong arguments.
"""
import argparse
import fcntl
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile

DRAWS = 4000
DEFAULT = ("--workload fillrandom,readrandom,readmissing,readmany,consolidate,readrandom,readmissing,scan,scan100 "
           "--num 1000000 --ops 1000000 --warmup 200000 --repeat 2").split()


def measure(program, options):
    """{workload: logarithms of its figures}; what comes after `consolidate` counts by itself."""
    run = subprocess.run([program, "--json"] + options, stdout=subprocess.PIPE, text=True, check=False)
    if run.returncode != 0:
        sys.exit(f"compare-builds.py: {program} ended with {run.returncode}")
    figures, behind = {}, ""
    for line in run.stdout.splitlines():
        result = json.loads(line)
        name = result["workload"]
        if name == "consolidate":
            behind = ", consolidated"
        elif result["ops_per_sec"] > 0:
            figures.setdefault(name + behind, []).append(math.log(result["ops_per_sec"]))
    return figures


def report(old, new):
    print(f"{'workload':26} {'old':>10} {'new':>10}  ratio  bounds (95 %)")
    for name in old[0]:
        medians = [math.exp(statistics.median(f for run in runs for f in run[name])) for runs in (old, new)]
        ratios = [statistics.mean(f for run in new[i:i + 2] for f in run[name]) -
                  statistics.mean(f for run in old[i:i + 2] for f in run[name]) for i in range(0, len(old), 2)]
        draws = sorted(statistics.mean(random.choices(ratios, k=len(ratios))) for _ in range(DRAWS))
        low, high = draws[DRAWS // 40], draws[-DRAWS // 40]
        print(f"{name:26} {medians[0]:10.4g} {medians[1]:10.4g}  {math.exp(statistics.mean(ratios)):5.3f}"
              f"  {math.exp(low):.3f} to {math.exp(high):.3f}")


def main():
    arguments = argparse.ArgumentParser(usage="compare-builds.py OLD NEW [--rounds N] [-- options of quire-bench]")
    arguments.add_argument("old")
    arguments.add_argument("new")
    arguments.add_argument("--rounds", type=int, default=9)
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    mine, options = sys.argv[1:end], sys.argv[end + 1:]
    given = arguments.parse_args(mine)
    if given.rounds < 1:
        arguments.error("--rounds must be 1 or more")
    random.seed(1)
    lock = os.environ.get("QUIRE_BENCH_LOCK", os.path.join(tempfile.gettempdir(), "quire-bench.lock"))
    old, new = [], []
    with open(lock, "w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for _ in range(given.rounds):
            for program, runs in ((given.old, old), (given.new, new), (given.new, new), (given.old, old)):
                runs.append(measure(program, options or DEFAULT))
    report(old, new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
