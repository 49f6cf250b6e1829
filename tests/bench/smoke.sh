#!/bin/bash
# A few seconds of the benches that need no broker: they start, end, clean up and print JSON.
# smoke.sh LIMIT-PROGRAM
set -eu
limit=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

json() { # json EXPRESSION: the object on standard input must make it true
    python3 -c "import json, sys; r = json.load(sys.stdin); assert $1, r"
}

"$limit" --dir "$folder" --batches 50 | json 'r["bytes_per_second"] > 0 and r["replicas"] == 1'
"$limit" --dir "$folder" --batches 50 --replicas 3 --in-flight 4 | json 'r["latency_us"]["p50"] > 0'
"$limit" --dir "$folder" --batches 50 --batch-bytes 1024 --partitions 16 | json 'r["commits"] > 0'
if "$limit" --dir "$folder/none" --batches 5 2>/dev/null; then
    echo "limit: a missing folder was accepted" >&2
    exit 1
fi
"$FERRY_BIN/ferry" bench iotest --dir "$folder" --seconds 1 --json |
    json 'len(r["pieces"]) == 3 and all(p["writes"] > 0 for p in r["pieces"])'
if [ -n "$(ls -A "$folder")" ]; then
    echo "files were left behind: $(ls -A "$folder")" >&2
    exit 1
fi
