#!/bin/bash
# Plants each bug of src/base/bugs.h in the testing library, one after the other, and expects the tests to notice.
#
# Prints a Markdown table: bug, what it breaks, what found it, seconds. First the tests run without a bug and must pass.
# The last line is `N passed, N failed`: a bug is a failure if no test noticed it within the time limit.
set -uo pipefail
# Whether a bug is noticed is a question of the full amount of work, however little a shorter run of the suites does.
unset QUIRE_TEST_SCALE

root=$(cd "$(dirname "$0")/.." && pwd)
build=
short=0
only=
limit=120 # seconds, for each test

usage() {
    cat <<END
usage: tools/planted-bugs.sh [options] [BUILD_DIRECTORY]
  --short      only the scripted interleavings and crashes, which have a case for every bug; each bug until one has noticed it
  --bug NAME   only this bug
  --limit S    a test that takes longer has noticed something, too (default $limit)
The build directory has the tests built; without one, \${QUIRE_BUILD_DIR:-build}/planted is made.
END
}

while [ $# -gt 0 ]; do
    case $1 in
    --short) short=1 ;;
    --bug) only=${2:?--bug needs a name} && shift ;;
    --limit) limit=${2:?--limit needs a number} && shift ;;
    -h | --help) usage && exit 0 ;;
    -*) usage >&2 && exit 2 ;;
    *) build=$1 ;;
    esac
    shift
done

# The rule of the design, or the invariant in the source, that a bug breaks.
rule_of() {
    case $1 in
    skip_growing_lsn) echo "TREE-2, WRITE-2" ;;
    recompute_max_lsn) echo "R15" ;;
    drop_tombstone_over_base) echo "PLAN-3" ;;
    post_separator_late) echo "SPLIT, step 4" ;;
    checkpoint_slots | checkpoint_pages | checkpoint_order) echo "R1, CHECK-2" ;;
    checkpoint_changes) echo "R2" ;;
    checkpoint_parts) echo "R6" ;;
    checkpoint_restless) echo "R9, CHECK-1" ;;
    log_released_early) echo "R3" ;;
    replay_keys_unsorted) echo "BATCH-1" ;;
    replay_judged_late) echo "BULK-1" ;;
    unseal) echo "MERGE, step 2" ;;
    reuse_id_early | free_list_untagged) echo "MAP-2" ;;
    skip_floor) echo "EVICT-2" ;;
    ignore_snapshot_registry) echo "SNAPSHOT-2" ;;
    snapshot_no_wait) echo "SNAPSHOT-1" ;;
    generation_ignored) echo "SNAPSHOT-2" ;;
    forget_high_key) echo "TREE-1" ;;
    reclaim_without_grace) echo "TREE-4" ;;
    lost_cas_ignored) echo "MAP-1" ;;
    blind_write_by_sibling | evict_unposted) echo "EVICT-1" ;;
    collect_above_safe) echo "PLAN-2" ;;
    keep_stale_summary) echo "chain summary" ;;
    absorb_twice) echo "MERGE-5" ;;
    forwarded_followed) echo "MERGE-6" ;;
    mark_neighbours) echo "INNER-2" ;;
    collapse_again) echo "MERGE, collapse" ;;
    read_absorbed) echo "MERGE-2" ;;
    post_to_dead_child) echo "PARENT-1" ;;
    post_over_absorbed) echo "PARENT-3" ;;
    area_overlap) echo "delta area" ;;
    stale_condition) echo "WRITE-3" ;;
    stub_is_whole) echo "stub and image" ;;
    log_ack_unsynced | log_ack_unwritten) echo "SYNC-2" ;;
    log_past_open_slot) echo "SYNC-1" ;;
    log_header_unsynced | log_name_unsynced) echo "FILES-1" ;;
    log_older_attempt) echo "FILES-1" ;;
    dir_sync_retried) echo "DISK-6" ;;
    log_sync_retried) echo "FILES-3" ;;
    log_mark_forgotten | log_mark_ignored) echo "FILES-3, R12" ;;
    log_not_rewritten | log_tail_unsynced) echo "REPLAY-2, R12" ;;
    log_gap_ends) echo "REPLAY-3" ;;
    log_frame_unchecked) echo "FRAME-1" ;;
    log_hole_ends | log_tentative_ends | log_hole_passed) echo "REPLAY-2, R12" ;;
    log_condition_ignored) echo "R8" ;;
    log_undecided_kept | log_repair_unsynced) echo "REPLAY-4, R8" ;;
    log_read_beyond_end) echo "RECOVER-4, R7" ;;
    lsn_reused) echo "RECOVER-2, R7" ;;
    incarnation_lost) echo "RECOVER-4, R7" ;;
    manifest_header_first) echo "MANIFEST-6" ;;
    manifest_new_unsynced) echo "MANIFEST-3" ;;
    manifest_unsettled | manifest_torn_kept) echo "MANIFEST-2" ;;
    manifest_names_unsynced | manifest_append_unsynced) echo "MANIFEST-1" ;;
    manifest_half_append) echo "FORMAT-1" ;;
    store_data_unsynced | store_names_unsynced) echo "STORE-4" ;;
    store_released_early | store_release_pending) echo "R3, STORE-2" ;;
    store_abandon_loses) echo "R2" ;;
    store_resume_over) echo "STORE-1" ;;
    cleaned_early | cleaned_late) echo "RECOVER-5" ;;
    reserve_late | spares_kept) echo "STORE-7" ;;
    space_not_awaited) echo "SPACE-2" ;;
    as_of_unfiltered | equal_not_held | lsn_range_unused | blob_dead_beyond) echo "R14" ;;
    blob_unsynced) echo "R3, BLOB-1" ;;
    blob_not_rewritten | blob_mark_forgotten) echo "BLOB-1, R12" ;;
    blob_unchecked) echo "STORE-6" ;;
    blob_released_early) echo "R3, LIFE-2" ;;
    repair_worse_image) echo "REPAIR-1" ;;
    repair_dead_image) echo "REPAIR-2" ;;
    repair_older_image) echo "REPAIR-3" ;;
    repair_log_skipped | repair_condition_ignored) echo "REPAIR-4" ;;
    repair_hidden_told) echo "REPAIR-5" ;;
    *) echo "-" ;;
    esac
}

if [ -z "$build" ]; then
    build=${QUIRE_BUILD_DIR:-$root/build}/planted
    [ -f "$build/build.ninja" ] || meson setup "$build" "$root" >/dev/null || exit 1
    ninja -C "$build" >/dev/null || exit 1
fi

interleave=$build/test/interleave/interleave
model=$build/test/model/model
stress=$build/test/stress/stress
power=$build/test/crash/crash_power
# These are scripted cases, or short, and have something for every bug.
names=(cases names torn manifest store rules replay repair repair_log blobs unlogged power_twice power_cuts power_io power_sync_blobs
    power_blob_behind power_sync_late full_disk small_disk cleaned attempt)
commands=("$interleave --mode cases --limit-ms 3000" "$build/test/regress/regress_names_of_failed_sync"
    "$build/test/regress/regress_manifest_torn"
    "$build/test/store/store_manifest_crash --first"
    "$build/test/store/store_power --seed 1 --every 3 --first" "$build/test/api/api_checkpoint_rules --jobs 1"
    "$build/test/api/api_replay --jobs 1" "$build/test/api/api_repair --jobs 1" "$build/test/api/api_repair_log --jobs 1"
    "$power --seed 1 --effort 10 --scenario blobs --first"
    "$build/test/api/api_log_off --jobs 1 --filter log_off/*"
    "$power --seed 1 --effort 10 --scenario made_twice_buffered --first"
    "$power --seed 1 --effort 10 --no-faults --first" "$power --seed 1 --effort 10 --scenario io_once --first"
    "$power --seed 1 --effort 10 --scenario sync_blobs --first" "$power --seed 1 --effort 10 --scenario blob_behind --first"
    "$power --seed 1 --effort 10 --scenario sync_late --first"
    "$build/test/api/api_full_disk --jobs 1" "$build/test/api/api_small_disk --jobs 1" "$build/test/regress/regress_cleaned_early"
    "$build/test/regress/regress_segment_of_failed_attempt")
if [ "$short" -eq 0 ]; then
    names+=(windows pairs random model_engine model_caller stress_history stress_scan stress_versions stress_counters)
    commands+=(
        "$interleave --mode windows --every 8 --limit-ms 5000"
        "$interleave --mode pairs --every 16 --limit-ms 5000"
        "$build/test/interleave/interleave_random --rounds 100 --limit-ms 5000"
        "$model --mode engine --ops 60000 --page-size 512 --inner-page-size 512 --drop 20 --seed 2"
        "$model --mode caller --ops 60000 --page-size 512 --inner-page-size 512 --drop 20 --seed 8"
        "$stress --mode history --seconds 2 --seed 1"
        "$stress --mode scan --seconds 2 --seed 1"
        "$stress --mode versions --seconds 2 --seed 1"
        "$stress --mode counters --seconds 2 --seed 1"
    )
    names+=(power_faults kill)
    commands+=("$power --seed 1 --effort 10 --no-cuts --first" "$build/test/crash/crash_kill --kills 60 --seed 1")
fi
[ -x "$interleave" ] || { echo "there is no $interleave: build the tests first" >&2 && exit 1; }

passed=0
failed=0

# Has test number $1 to do with bug $2? What concerns files alone has programs of its own.
concerns() {
    case $2:${names[$1]} in
    cleaned_late:full_disk | reserve_late:full_disk | spares_kept:full_disk | space_not_awaited:small_disk | cleaned_early:cleaned | log_older_attempt:attempt) true ;;
    cleaned_*:* | reserve_late:* | spares_kept:* | space_not_awaited:* | log_older_attempt:* | *:full_disk | *:small_disk | *:cleaned | *:attempt) false ;;
    dir_*:names) true ;;
    dir_*:* | *:names) false ;;
    manifest_header_first:torn) true ;;
    manifest_header_first:* | *:torn) false ;;
    manifest_*:manifest | store_*:store | checkpoint_*:rules | replay_*:replay | repair_*:repair | repair_*:repair_log) true ;;
    blob_not_rewritten:power_sync_blobs | blob_mark_forgotten:power_blob_behind | log_gap_ends:power_sync_late) true ;;
    blob_not_rewritten:* | blob_mark_forgotten:* | log_gap_ends:* | *:power_sync_* | *:power_blob_behind) false ;;
    as_of_*:unlogged | equal_*:unlogged | lsn_range_*:unlogged | blob_dead_beyond:unlogged) true ;;
    as_of_*:* | equal_*:* | lsn_range_*:* | blob_dead_beyond:* | *:unlogged) false ;;
    blob_*:blobs) true ;;
    log_released_early:power_twice | log_released_early:power_cuts) false ;; # it shows when a checkpoint fails
    log_sync_*:power_cuts | log_mark_*:power_cuts | log_not_rewritten:power_cuts) false ;; # they need a fault
    log_*:power_* | log_*:kill | lsn_*:power_* | lsn_*:kill | incarnation_*:power_* | incarnation_*:kill) true ;;
    manifest_*:* | store_*:* | checkpoint_*:* | replay_*:* | repair_*:* | blob_*:* | log_*:* | lsn_*:* | incarnation_*:*) false ;;
    *:manifest | *:store | *:rules | *:replay | *:repair | *:repair_log | *:blobs | *:power_* | *:kill) false ;;
    *) true ;;
    esac
}

# Runs test number $1 with bug $2; true if it fails.
notices() {
    # shellcheck disable=SC2086
    ! QUIRE_PLANTED_BUG=$2 timeout -k 5 "$limit" ${commands[$1]} >/dev/null 2>&1
}

# Runs test number $1 without a bug; true if it passes. Its output is in $output. A machine may be slow: with longer limits.
is_sound() {
    # shellcheck disable=SC2086
    timeout -k 5 $((limit * 10)) ${commands[$1]//--limit-ms /--limit-ms 1} >"$output" 2>&1
}

echo "| bug | breaks | rule | found by | s |"
echo "|---|---|---|---|---|"
sound=
output=$(mktemp)
trap 'rm -f "$output"' EXIT
for i in "${!names[@]}"; do
    if ! is_sound "$i"; then
        echo "| (none) | nothing | - | ${names[$i]} fails without a bug | - |"
        tail -n 15 "$output" >&2
        failed=$((failed + 1))
    else
        sound="$sound $i"
    fi
done

while IFS='|' read -r bug text; do
    [ -n "$only" ] && [ "$bug" != "$only" ] && continue
    begin=$(date +%s.%N)
    found=
    for i in $sound; do
        concerns "$i" "$bug" || continue
        notices "$i" "$bug" 2>/dev/null && found="$found ${names[$i]}"
        [ -n "$found" ] && [ "$short" -ne 0 ] && break
    done
    seconds=$(awk -v from="$begin" -v to="$(date +%s.%N)" 'BEGIN { printf "%.1f", to - from }')
    if [ -n "$found" ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
    echo "| $bug | $text | $(rule_of "$bug") |${found:- NOTHING} | $seconds |"
done < <(sed -n 's|^ *X(\([a-z_]*\)) */\* \(.*\) \*/.*|\1\|\2|p' "$root/src/base/bugs.h")

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
