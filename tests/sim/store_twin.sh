#!/bin/bash
# store_twin.sh BUILD: the simulator's store does what the real one does, operation by operation, over
# some random runs. The first seed that differs is printed with the first turn that does.
set -euo pipefail

build=${1:?usage: store_twin.sh BUILD}/tests/sim
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

for seed in $(seq 1 20); do
    "$build/store_ops_sim" "$seed" "$folder/simulated" >"$folder/a"
    "$build/store_ops_lmdb" "$seed" "$folder/real.$seed" >"$folder/b"
    if ! cmp -s "$folder/a" "$folder/b"; then
        echo "seed $seed: the stores differ:"
        diff "$folder/a" "$folder/b" | head -n 4
        exit 1
    fi
done
echo "20 seeds, no difference"
