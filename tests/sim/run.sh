#!/bin/bash
# run.sh SEEDS [--from N] [--jobs N] [--build DIR]: runs so many seeds of the simulator, nine of ten on
# its own store and one on the real one, and writes them into the ledger in tests/sim/RESULTS.md.
# Without --from it goes on where the ledger ends, so that no seed is run twice.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
seeds=${1:?usage: run.sh SEEDS [--from N] [--jobs N] [--build DIR]}
shift
jobs=$(nproc)
build=$root/build/normal
results=$root/tests/sim/RESULTS.md
from=
while [ $# -gt 0 ]; do
    case $1 in
    --from) from=$2 ;;
    --jobs) jobs=$2 ;;
    --build) build=$2 ;;
    *)
        echo "run.sh: $1 is not an option: --from, --jobs or --build" >&2
        exit 2
        ;;
    esac
    shift 2
done

# Rows of the ledger: | date | commit | binary | seeds | hours | acked | failures |
last=$(sed -n 's/^| 20[0-9-]* | [^|]* | [^|]* | [0-9]*\.\.\([0-9]*\) .*/\1/p' "$results" | sort -n | tail -n 1)
from=${from:-$((${last:-0} + 1))}
cmake --build "$build" --target sim sim_lmdb >/dev/null
ledger=$(mktemp)
trap 'rm -f "$ledger"' EXIT

add_row() {
    local binary=$1 first to _ hours acked failures
    read -r first to _ hours acked failures <"$ledger"
    sed -i "s#^<!-- next row -->#| $(date +%F) | $(git -C "$root" rev-parse --short HEAD) | $binary | $first..$to | $hours | $acked | $failures |\n&#" "$results"
    : >"$ledger"
}

status=0
real=$((seeds / 10))
own=$((seeds - real))
"$build/tests/sim/sim" --seeds "$from..$((from + own - 1))" --jobs "$jobs" --cover --ledger "$ledger" || status=$?
add_row simulated
if [ $real -gt 0 ]; then
    "$build/tests/sim/sim_lmdb" --seeds "$((from + own))..$((from + seeds - 1))" --jobs "$jobs" --ledger "$ledger" || status=$?
    add_row LMDB
fi
awk -F'|' '/^\| 20/ {h += $6; split($5, r, /\.\./); n += r[2] - r[1] + 1} END {printf "ledger: %d seeds, %.1f simulated hours\n", n, h}' "$results"
exit $status
