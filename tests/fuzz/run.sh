#!/bin/sh
# Runs fuzz targets: run.sh SECONDS BUILD [NAME…]. Each for SECONDS, from its seeds in corpus/; all
# of them unless named. Exits 1 when one crashes, hangs or eats memory, and says how to repeat it.
set -eu

if [ $# -lt 2 ]; then
    echo "usage: $0 SECONDS BUILD [NAME...]   (BUILD was configured with CC=clang -DFERRY_FUZZ=ON)" >&2
    exit 2
fi
seconds=$1
build=$(cd "$2" && pwd)
shift 2
here=$(cd "$(dirname "$0")" && pwd)

if [ $# -eq 0 ]; then
    for source in "$here"/*_fuzz.c; do
        set -- "$@" "$(basename "$source" _fuzz.c)"
    done
fi

failed=0
for name in "$@"; do
    program=$build/tests/fuzz/${name}_fuzz
    work=$build/fuzz/$name
    if [ ! -x "$program" ]; then
        echo "$program is not there: configure with CC=clang -DFERRY_FUZZ=ON and build" >&2
        exit 2
    fi
    mkdir -p "$work/found"
    # A fixed seed, so that the same build repeats the same run.
    if "$program" -seed=1 -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 \
        -print_final_stats=1 -artifact_prefix="$work/" "$work/found" "$here/corpus/$name" \
        >"$work/log" 2>&1; then
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work/log")
        echo "fuzz $name: $runs runs, nothing found"
    else
        tail -n 40 "$work/log" >&2
        input=$(sed -n "s/.*Test unit written to //p" "$work/log" | tail -n 1)
        echo "fuzz $name: FAILED; all of it is in $work/log; repeat with: $program $input" >&2
        failed=1
    fi
done
exit $failed
