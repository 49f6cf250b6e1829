#!/bin/bash
# Ferry beside its limit, on the same work, in turns, in one go: see bench.py --help.
#
#   tests/bench/run.sh                 five rounds, a table on standard output
#   tests/bench/run.sh --write         and RESULTS.md beside this script
#   tests/bench/run.sh --big 10        also: how soon a broker with 10 GB of log is ready
#
# The programs are found in $FERRY_BIN, or in the folder given with --bin, or in ./build.
exec python3 "$(dirname "$0")/bench.py" "$@"
