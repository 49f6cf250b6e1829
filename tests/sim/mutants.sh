#!/bin/bash
# mutants.sh BUILD [--seeds N] [--jobs N] [--table FILE] [--short] [NUMBER…]: the tester tested. Each mutant of
# tests/sim/MUTANTS (a known bug, switched on by -DMUT_nn) is built into the simulator, and seeds run
# until one fails. Without numbers: all of them. Only the files that name the mutant are compiled
# again; the rest of the program is BUILD's. A mutant that lives through all seeds is reported, and
# the exit status is 1 unless MUTANTS says why nobody can see it from here ("unseen").
set -euo pipefail

build=$(cd "${1:?usage: mutants.sh BUILD [--seeds N] [--jobs N] [--table FILE] [--short] [NUMBER...]}" && pwd)
shift
root=$(cd "$(dirname "$0")/../.." && pwd)
seeds=300
jobs=2
table=/dev/null
numbers=()
while [ $# -gt 0 ]; do
    case $1 in
    --seeds) seeds=$2; shift ;;
    --jobs) jobs=$2; shift ;;
    --table) table=$2; shift ;;
    --short) numbers=(02 03 07 08 16 26 30 31 35 36 60 63 66 73) ;; # Found soon.
    *) numbers+=("$1") ;;
    esac
    shift
done
if [ ${#numbers[@]} -eq 0 ]; then
    mapfile -t numbers < <(sed -n 's/^MUT_\([0-9][0-9]\) .*/\1/p' "$root/tests/sim/MUTANTS")
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
link=$(ninja -C "$build" -t commands tests/sim/sim | tail -n 1)

# compile NUMBER FILE OBJECT: as the build does, with the mutant in it.
compile() {
    python3 - "$build/compile_commands.json" "$2" "$1" "$3" <<'PYTHON'
import json, shlex, subprocess, sys
commands, source, number, target = sys.argv[1:]
entry = next(e for e in json.load(open(commands)) if e["file"] == source)
words = shlex.split(entry["command"])
words[words.index("-o") + 1] = target
words = [w for w in words if w != "-Werror"]
subprocess.run(words[:1] + ["-DMUT_" + number, "-w"] + words[1:], cwd=entry["directory"], check=True)
PYTHON
}

# One line a mutant: number, seeds until it was found (or "-"), by which check.
try_mutant() {
    local number=$1 objects=() file object output what
    mapfile -t files < <(grep -rlE "MUT_$number\b" "$root/broker" "$root/sdk" --include='*.c')
    if [ ${#files[@]} -eq 0 ]; then
        echo "$number - no file names it"
        return
    fi
    for file in "${files[@]}"; do
        object=$work/$number.$(basename "$file").o
        compile "$number" "$file" "$object"
        objects+=("$object")
    done
    (cd "$build" && eval "${link//-o tests\/sim\/sim /-o $work\/sim.$number ${objects[*]} }")
    output=$("$work/sim.$number" --seeds "1..$seeds" --jobs "$jobs" --stop-after 1 2>"$work/errors" || true)
    rm -f "$work/sim.$number"
    what=$(grep -oE 'INV-[A-Z0-9]+|FAILED \(crash\)|two runs differ' <<<"$output" | head -n 1 || true)
    if [ -z "$what" ]; then
        echo "$number - alive after $seeds seeds"
    elif [ "$what" = "FAILED (crash)" ]; then
        what=$(grep -oE 'must\(.*\)' "$work/errors" | head -n 1 || true)
        echo "$number $(grep -oE '^[0-9]+ seeds|seed [0-9]+' <<<"$output" | grep -oE '[0-9]+' | head -n 1) ${what:-crash}"
    else
        echo "$number $(grep -oE 'seed [0-9]+' <<<"$output" | head -n 1 | cut -d' ' -f2) $what"
    fi
}

alive=0
{
    echo "| mutant | the bug | found by seed | by |"
    echo "|---|---|---|---|"
} >"$table"
for number in "${numbers[@]}"; do
    line=$(try_mutant "$number")
    read -r _ found what <<<"$line"
    row=$(grep -E "^MUT_$number " "$root/tests/sim/MUTANTS" || echo "MUT_$number | | not in MUTANTS | |")
    text=$(cut -d'|' -f3 <<<"$row" | sed 's/^ *//; s/ *$//')
    why=$(sed -n 's/.*| *unseen: *//p' <<<"$row")
    echo "MUT_$number: $found ($what): $text"
    if [ "$found" = - ] && [ -z "$why" ]; then
        alive=$((alive + 1))
    elif [ "$found" = - ]; then
        what="$what: $why"
    fi
    echo "| $number | $text | $found | $what |" >>"$table"
done
if [ $alive -gt 0 ]; then
    echo "$alive of ${#numbers[@]} mutants live"
    exit 1
fi
echo "all of ${#numbers[@]} mutants found, or known to be out of sight"
