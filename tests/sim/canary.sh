#!/bin/bash
# canary.sh BUILD: a run in which a lie is planted must fail, and say which. If it passes, the checkers
# have gone blind.
set -euo pipefail

sim=${1:?usage: canary.sh BUILD}/tests/sim/sim
for lie in lost moved forged reordered unsaid again undone; do
    status=0
    output=$("$sim" --seed 14 --lie "$lie") || status=$?
    if [ $status -ne 10 ]; then
        echo "the lie '$lie' was not noticed (exit code $status): $(tail -n 1 <<<"$output")"
        exit 1
    fi
    echo "$lie: $(tail -n 1 <<<"$output" | grep -o 'INV-.*')"
done
