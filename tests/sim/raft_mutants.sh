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

mkdir "$out/lib"
for source in tests/lib/raft_*.c sdk/base/mem.c sdk/base/must.c sdk/base/prng.c; do
    # shellcheck disable=SC2086
    cc $flags -c "$source" -o "$out/lib/$(basename "$source").o"
done

build_core() { # MUTANT
    rm -rf "$out/core" && mkdir "$out/core"
    for source in broker/raft/*.c; do
        # shellcheck disable=SC2086
        cc $flags -D"$1" -c "$source" -o "$out/core/$(basename "$source").o"
    done
}

for test in cluster $units; do
    # shellcheck disable=SC2086
    cc $flags -c tests/unit/raft_"$test"_test.c -o "$out/$test.o"
done

link() { # TEST
    cc "$out/$1.o" "$out"/core/*.o "$out"/lib/*.o -lcmocka -lpthread -o "$out/$1"
}

# It stops at the first seed that fails, which it has told last.
hunt() { # FIRST
    local log=$out/log
    if FERRY_RAFT_FIRST=$1 FERRY_RAFT_SEEDS=$seeds timeout 900 "$out/cluster" >"$log" 2>&1; then
        echo -
        return
    fi
    grep -c '^seed ' "$log"
}

failed=0
mutants=${*:-$(awk -F' *[|] *' '$2 == "raft" { print $1 }' tests/sim/MUTANTS)}
for mutant in $mutants; do
    build_core "$mutant"
    link cluster
    found="$(hunt 1) $(hunt 100001) $(hunt 200001)"
    by=""
    for unit in $units; do
        link "$unit"
        (timeout 120 "$out/$unit" || exit 1) >/dev/null 2>&1 || by="$by $unit"
    done
    echo "$mutant | seeds $found | unit tests:${by:- none}"
    if [ "$found" = "- - -" ] && [ -z "$by" ]; then
        failed=1
    fi
done
exit $failed
