#!/bin/bash
# The commands of a cluster, one after another, on this machine.
#
#   tests/system/transcript.sh           runs them and writes what they printed into README.md here
#   tests/system/transcript.sh --check   runs them, and demands only that each ends as it should
#
# Three brokers, then a fourth that joins, on loopback, in a temporary folder that goes at the end.
# Ports from 7401, or $FERRY_TRANSCRIPT_PORT, on. Programs from $FERRY_BIN, or
# build/normal.
set -uo pipefail

here=$(cd "$(dirname "$0")" && pwd)
bin=${FERRY_BIN:-$here/../../build/normal}
port=${FERRY_TRANSCRIPT_PORT:-7401}
check=false
if [ "${1:-}" = --check ]; then
    check=true
    port=${FERRY_TRANSCRIPT_PORT:-$((10000 + $$ % 500 * 40))} # Two runs do not meet.
fi
export PATH=$bin:$PATH LC_ALL=C
home=$(mktemp -d -t ferry-transcript-XXXXXX)
pids=()
failures=0

finish() {
    [ ! -d three ] || "$here/../../examples/cluster.sh" stop three >/dev/null 2>&1
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
    : >"log-$number"
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

# How a script waits for a state: the command's JSON is grepped.
has_node() { ferry --json node list | grep -q "\"node\":$1,"; }
is_healthy() { ferry --json cluster status | grep -q '"under_replicated":0,"without_leader":0,"unknown":0'; }

# ---- The transcript -------------------------------------------------------------------------------

server="$(client 1),$(client 2),$(client 3)"
ferry() { command ferry --server "$server" "$@"; }

out '```console'
founders
wait_for 300 is_healthy
run 0 ferry node list
run 0 ferry topic create orders --partitions 4 --replicas 3
out '$ seq 1 1000 | ferry produce orders'
seq 1 1000 | ferry produce orders 2>/dev/null
run 0 ferry cluster status
run 0 ferry partition info orders 2

say 'The leader of a partition is another one, by hand:'
run 0 ferry partition transfer orders 2 1
run 0 ferry partition transfer orders 2 3
run 3 ferry partition transfer orders 2 9

say 'A fourth node joins. Nothing moves before somebody has seen what would:'
broker 4 --join "$(peer 1)"
wait_for 300 has_node 4
run 0 ferry cluster plan
run 1 ferry cluster apply --plan 0123456789abcdef
run 0 ferry cluster apply
run 0 ferry cluster plan
run 0 ferry cluster abort
run 0 ferry node list

say 'The first node is to go: emptied, then removed, then stopped.'
run 2 ferry node remove 1
run 0 ferry node drain 1
run 0 ferry node undrain 1
run 0 ferry node drain 1
run 0 ferry node list
run 0 ferry node remove 1
out '$ kill %1'
kill "${pids[1]}"
wait "${pids[1]}" 2>/dev/null
unset 'pids[1]'
server="$(client 2),$(client 3),$(client 4)"
wait_for 300 is_healthy
run 0 ferry cluster status

say 'A rolling restart asks before each step; with one node down, the answer is no (exit status 6):'
run 0 ferry node check safe-to-stop 2
out '$ kill -9 %3'
kill -9 "${pids[3]}"
wait "${pids[3]}" 2>/dev/null
run 6 ferry node check safe-to-stop 2
broker 3 --join "$(peer 2)"
wait_for 300 is_healthy
run 0 ferry node check safe-to-stop 2

say 'Leases, with tokens that rise:'
run 0 ferry lease acquire nightly --holder alice --ttl 60s
run 1 ferry lease acquire nightly --holder bob
run 0 ferry lease renew nightly --holder alice --token 1 --ttl 30s
run 0 ferry lease list
run 0 ferry lease release nightly --holder alice --token 1
run 0 ferry lease acquire nightly --holder bob --wait 5s
run 1 ferry lease renew nightly --holder alice --token 1

say 'Three brokers on this machine in one command:'
server="tcp://127.0.0.1:$((port + 200)),tcp://127.0.0.1:$((port + 210)),tcp://127.0.0.1:$((port + 220))"
export FERRY_BIN=$bin FERRY_PORT=$((port + 200))
examples/cluster.sh() { "$here/../../examples/cluster.sh" "$@"; }
run 0 examples/cluster.sh start three
run 0 ferry topic create orders --partitions 4 --replicas 3
run 0 examples/cluster.sh status three
run 0 examples/cluster.sh stop three
out '```'

# ---- Into the README ------------------------------------------------------------------------------

if [ $failures -gt 0 ]; then
    echo "transcript: $failures commands did not end as they should" >&2
    exit 1
fi
if $check; then
    echo "transcript: $(grep -c '^\$ ' transcript) commands ended as they should"
    exit 0
fi
readme=$here/README.md
sed -i -e "s|$home/||g" -e '/^$/N;/^\n$/D' transcript
{
    sed '/^<!-- transcript -->$/q' "$readme"
    cat transcript
    sed -n '/^<!-- end of transcript -->$/,$p' "$readme"
} >new
cat new >"$readme"
echo "transcript: written into $readme"
