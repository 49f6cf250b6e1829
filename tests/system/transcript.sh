#!/bin/bash
# The commands of a cluster, one after another, on this machine.
#
#   tests/system/transcript.sh           runs them and writes what they printed into README.md here
#   tests/system/transcript.sh --check   runs them, and demands only that each ends as it should
#
# Three brokers, then a fourth that joins, on loopback, in a temporary folder that goes at the end.
# Ports 7401-7404 and 7411-7414, or those from $FERRY_TRANSCRIPT_PORT on. Programs from $FERRY_BIN, or
# build/normal.
set -uo pipefail

here=$(cd "$(dirname "$0")" && pwd)
bin=${FERRY_BIN:-$here/../../build/normal}
port=${FERRY_TRANSCRIPT_PORT:-7401}
check=false
[ "${1:-}" = --check ] && check=true
export PATH=$bin:$PATH LC_ALL=C
home=$(mktemp -d -t ferry-transcript-XXXXXX)
pids=()
failures=0

finish() {
    [ ${#pids[@]} -eq 0 ] || kill -9 "${pids[@]}" 2>/dev/null
    wait 2>/dev/null
    rm -rf "$home"
}
trap finish EXIT
trap 'exit 1' INT TERM
cd "$home" || exit 1

client() { echo "tcp://127.0.0.1:$((port + $1 - 1))"; }
peer() { echo "tcp://127.0.0.1:$((port + 10 + $1 - 1))"; }

out() { printf '%s\n' "$*" >>transcript; }

# say TEXT: a paragraph between the commands.
say() {
    out '```'
    out ''
    out "$@"
    out ''
    out '```console'
}

# run STATUS COMMAND…: shows the command and what it prints; it must end with that status.
run() {
    local want=$1 got
    shift
    out "\$ $(shown "$@")"
    "$@" >printed 2>&1
    got=$?
    sed -e 's/[[:blank:]]*$//' printed >>transcript
    if [ $got -ne 0 ]; then
        out "(exit status $got)"
    fi
    if [ $got -ne "$want" ]; then
        echo "transcript: $*: exit status $got instead of $want:" >&2
        cat printed >&2
        failures=$((failures + 1))
    fi
}

# As one would type it: words with blanks or braces in quotes.
shown() {
    local word line=
    for word in "$@"; do
        case $word in
        *[\ \{\}\"\*]*) line+=" '$word'" ;;
        *) line+=" $word" ;;
        esac
    done
    echo "${line# }"
}

# broker NUMBER WORD…: starts one in the background and waits for its ready line.
broker() {
    local number=$1 waited=0
    shift
    local command=(ferryd --data "data-$number" --node "$number" --listen "$(client "$number")"
        --peer-listen "$(peer "$number")" "$@")
    out "\$ $(shown "${command[@]}") &"
    "${command[@]}" --set store.grow_bytes=4M >"log-$number" 2>&1 &
    pids[number]=$!
    while ! grep -q '^ferryd: ready' "log-$number"; do
        sleep 0.1
        waited=$((waited + 1))
        # Those that found a cluster wait for each other.
        if [ $waited -gt "${patience:-300}" ]; then
            echo "transcript: broker $number is not ready:" >&2
            cat "log-$number" >&2
            exit 1
        fi
    done
}

# The three that found the cluster are ready together.
founders() {
    local number list
    list="1=$(peer 1),2=$(peer 2),3=$(peer 3)"
    for number in 1 2 3; do
        out "\$ $(shown ferryd --data "data-$number" --node "$number" --listen "$(client "$number")" \
            --peer-listen "$(peer "$number")" --bootstrap "$list") &"
        ferryd --data "data-$number" --node "$number" --listen "$(client "$number")" \
            --peer-listen "$(peer "$number")" --bootstrap "$list" \
            --set store.grow_bytes=4M >"log-$number" 2>&1 &
        pids[number]=$!
    done
    for number in 1 2 3; do
        wait_for 300 grep -q '^ferryd: ready' "log-$number"
    done
    grep -h '^ferryd: ready' log-1 >>transcript
}

# wait_for TENTHS COMMAND…: until the command succeeds.
wait_for() {
    local tenths=$1
    shift
    while ! "$@" >/dev/null 2>&1; do
        tenths=$((tenths - 1))
        if [ $tenths -le 0 ]; then
            echo "transcript: this does not come true: $*" >&2
            failures=$((failures + 1))
            return 1
        fi
        sleep 0.1
    done
}
