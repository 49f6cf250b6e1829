#!/bin/bash
# raft_mutants.sh [SEEDS] [MUT_nn…]: builds the Raft core with each known bug of the table MUTANTS that
# is its own, and tells how many seeds the in-memory cluster (lib/raft_cluster.h) needed to find it,
# from three places of the seeds' range; and which unit tests find it. A mutant that nothing finds
# makes it fail.
set -euo pipefail

cd "$(dirname "$0")/../.."
seeds=${1:-2000}
shift || true
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
flags="-std=c11 -D_GNU_SOURCE -O2 -g -w -Isdk -Isdk/include -Ibroker -I. -Itests"
units=$(ls tests/unit/raft_*_test.c | sed 's|.*/raft_||; s|_test.c||' | grep -vx 'cluster\|purity')

build() { # MUTANT TEST
    # shellcheck disable=SC2086
    cc $flags -D"$1" tests/unit/raft_"$2"_test.c tests/lib/raft_*.c broker/raft/*.c sdk/base/mem.c \
        sdk/base/must.c sdk/base/prng.c -lcmocka -lpthread -o "$out/$2"
}

# The cases of the cluster run one after the other; the first that fails has told its seed last.
hunt() { # FIRST
    local first=$1 needed=- log=$out/log
    FERRY_RAFT_FIRST=$first FERRY_RAFT_SEEDS=$seeds timeout 900 "$out/cluster" >"$log" 2>&1 || true
    needed=$(awk -v first="$first" '
        /^seed / { seed = $2; ran++ }
        / nodes, .* seeds / && !/ERROR/ { if (block && !whole) exit; block = 1; whole = 0 }
        / steps, / { whole = 1; done = ran }
        END { if (block && !whole) print ran - done, seed - first + 1; else print "-" }' "$log")
    if grep -q "FAILED\|bug:" "$log"; then
        echo "${needed##* }"
    else
        echo -
    fi
}

failed=0
mutants=${*:-$(awk -F' *[|] *' '$2 == "raft" { print $1 }' tests/sim/MUTANTS)}
for mutant in $mutants; do
    build "$mutant" cluster
    found="$(hunt 1) $(hunt 100001) $(hunt 200001)"
    by=""
    for unit in $units; do
        build "$mutant" "$unit"
        timeout 120 "$out/$unit" >/dev/null 2>&1 || by="$by $unit"
    done
    echo "$mutant | seeds $found | unit tests:${by:- none}"
    if [ "$found" = "- - -" ] && [ -z "$by" ]; then
        failed=1
    fi
done
exit $failed
