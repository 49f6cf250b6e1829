#!/bin/bash
# partition_mutants.sh [MUT_nn…]: builds the replica and its store with each known bug of the table
# MUTANTS that is theirs, and tells which of the unit tests that drive replicas find it. A mutant that
# nothing finds makes it fail.
set -euo pipefail

cd "$(dirname "$0")/../.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
flags="-std=c11 -D_GNU_SOURCE -O1 -g -w -Isdk -Isdk/include -Ibroker -I. -Itests"
libs="-llmdb -lmsgpackc -lxxhash -linih -lpthread -lcmocka -licui18n -licuuc"
lib="tests/lib/replica_cluster.c tests/lib/partition_fixture.c tests/lib/hand_fixture.c"
of_partition="replica_cluster replica_snapshot replica_repair partition_claim partition_members
    members_random partition_deliver partition_dead partition_keyed partition_priority
    partition_failover"
of_schedule="partition_schedule partition_publish schedule_failover"
units="$of_partition $of_schedule"

# Those of an area that its own tests must find; the others are for the area "partition".
units_of() { # MUTANT
    case $(awk -F' *[|] *' -v m="$1" '$1 == m { print $2 }' tests/sim/MUTANTS) in
    schedule) echo "$of_schedule" ;;
    *) echo "$of_partition" ;;
    esac
}

compile() { # MUTANT SOURCE…
    local mutant=$1
    shift
    for source in "$@"; do
        # shellcheck disable=SC2086
        cc $flags -D"$mutant" -c "$source" -o "$out/o/${source//\//_}.o"
    done
}

mkdir -p "$out/o"
compile MUT_00 broker/raft/*.c broker/store/*.c sdk/base/*.c sdk/wire/*.c $lib
for unit in $units; do
    # shellcheck disable=SC2086
    cc $flags -c "tests/unit/${unit}_test.c" -o "$out/$unit.o"
done

build() { # MUTANT
    compile "$1" broker/partition/*.c
    for unit in $(units_of "$1"); do
        # shellcheck disable=SC2086
        cc "$out/$unit.o" "$out"/o/*.o $libs -o "$out/$unit"
    done
}

failed=0
mutants=${*:-$(awk -F' *[|] *' '$2 == "partition" || $2 == "schedule" { print $1 }' tests/sim/MUTANTS)}
for mutant in $mutants; do
    build "$mutant"
    by=""
    for unit in $(units_of "$mutant"); do
        timeout 300 "$out/$unit" >"$out/log" 2>&1 || by="$by $unit"
    done
    echo "$mutant | unit tests:${by:- none}"
    [ -n "$by" ] || failed=1
done
exit $failed
