#!/bin/bash
# clang_tidy.sh BUILD [FILE…]: clang-tidy with the checks of .clang-tidy over the sources of sdk, broker
# and outbox, or over the files given, two at a time. BUILD holds compile_commands.json. Slow: a file
# whose text, headers and checks are as they were when it last passed is not looked at again.
set -euo pipefail

build=${1:?usage: clang_tidy.sh BUILD [FILE...]}
shift
cd "$(dirname "$0")/../.."
passed=$build/clang-tidy-passed
mkdir -p "$passed"
# A change of any header, or of the checks, is a change of every file.
common=$( (cat .clang-tidy; find sdk broker outbox -name '*.h' | sort | xargs cat) | sha256sum)
export build passed common

look_at() {
    local stamp
    stamp=$passed/$( (echo "$common $1"; cat "$1") | sha256sum | cut -d' ' -f1)
    if [ -e "$stamp" ]; then
        return 0
    fi
    if clang-tidy --quiet -p "$build" "$1" 2>/dev/null; then
        touch "$stamp"
    else
        echo "clang-tidy: $1 FAILED" >&2
        return 1
    fi
}
export -f look_at

if [ $# -eq 0 ]; then
    mapfile -t files < <(find sdk broker outbox -name '*.c' | sort)
    set -- "${files[@]}"
fi
printf '%s\0' "$@" | xargs -0 -P 2 -I{} bash -c 'look_at {}'
echo "clang-tidy: $# files, nothing found"
