#!/bin/bash
# A cluster of three brokers on this machine.
#
#   examples/cluster.sh start  [DIR]    starts it, or what of it does not run; prints where clients connect
#   examples/cluster.sh status [DIR]    what runs, who leads, what is healthy
#   examples/cluster.sh stop   [DIR]    stops the three that it started, and nothing else
#
# DIR keeps their data, logs and process ids: by default ferry-cluster in the folder for temporary
# files. It stays when they are stopped, so that start goes on with what was there; remove it to begin
# anew. Ports are 7400, 7410 and 7420 for clients and 100 higher for the brokers among themselves;
# FERRY_PORT is another first one.
#
# Installs the Debian packages that are missing and builds into build/demo, unless FERRY_BIN names a
# folder with the programs.
set -euo pipefail

FERRY_ROOT=$(cd "$(dirname "$0")/.." && pwd)
. "$FERRY_ROOT/tests/lib/packages.sh"
. "$FERRY_ROOT/tests/lib/steps.sh"

NODES="1 2 3"
READY_SECONDS=30
STOP_SECONDS=15
first_port=${FERRY_PORT:-7400}

usage() {
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
}

fail() {
    echo "cluster.sh: $1" >&2
    exit 1
}

programs() {
    if [ -z "${FERRY_BIN:-}" ]; then
        FERRY_BIN=$FERRY_ROOT/build/demo
        STEPS_LOG=$FERRY_ROOT/build/demo.log
        mkdir -p "$FERRY_ROOT/build"
        : >"$STEPS_LOG"
        # shellcheck disable=SC2086 # A list of words.
        packages_install $FERRY_BUILD_PACKAGES
        quietly "building" build_tree "$FERRY_BIN" -DFERRY_TESTS=OFF
    fi
}

client_endpoint() { # NODE
    echo "tcp://127.0.0.1:$((first_port + 10 * ($1 - 1)))"
}

peer_endpoint() { # NODE
    echo "tcp://127.0.0.1:$((first_port + 100 + 10 * ($1 - 1)))"
}

all_of() { # FUNCTION PREFIX?
    local n list=''
    for n in $NODES; do
        list+="${list:+,}${2:+$n=}$($1 "$n")"
    done
    echo "$list"
}

# The process id of a node that this script started and that still runs; empty else. A number alone
# would not do: it may be another's by now.
pid_of() { # NODE
    local pid
    pid=$(cat "$dir/$1.pid" 2>/dev/null) || return 0
    if { tr '\0' ' ' <"/proc/$pid/cmdline"; } 2>/dev/null | grep -qF -- "--data $dir/$1 "; then
        echo "$pid"
    fi
}

start_node() { # NODE
    if [ -n "$(pid_of "$1")" ]; then
        return
    fi
    : >"$dir/$1.log"
    setsid "$FERRY_BIN/ferryd" --data "$dir/$1" --node "$1" --listen "$(client_endpoint "$1")" \
        --peer-listen "$(peer_endpoint "$1")" --bootstrap "$(all_of peer_endpoint with-id)" \
        >>"$dir/$1.log" 2>&1 </dev/null &
    echo $! >"$dir/$1.pid"
}

wait_ready() { # NODE
    local tenths
    for ((tenths = 0; tenths < READY_SECONDS * 10; tenths++)); do
        if grep -q '^ferryd: ready' "$dir/$1.log"; then
            return
        fi
        if ! kill -0 "$(cat "$dir/$1.pid")" 2>/dev/null; then
            tail -n 5 "$dir/$1.log" >&2
            fail "node $1 has ended: see $dir/$1.log"
        fi
        sleep 0.1
    done
    fail "node $1 is not ready after $READY_SECONDS s: see $dir/$1.log"
}

start() {
    local n
    programs
    mkdir -p "$dir"
    for n in $NODES; do
        start_node "$n"
    done
    for n in $NODES; do
        wait_ready "$n"
    done
    echo "three brokers are ready; data and logs are in $dir"
    echo "server: $(all_of client_endpoint)"
}

status() {
    local n pid
    for n in $NODES; do
        pid=$(pid_of "$n")
        if [ -n "$pid" ]; then
            echo "node $n: process $pid, $(client_endpoint "$n")"
        else
            echo "node $n: not running"
        fi
    done
    programs
    "$FERRY_BIN/ferry" --server "$(all_of client_endpoint)" cluster status
}

stop() {
    local n pid tenths
    for n in $NODES; do
        pid=$(pid_of "$n")
        if [ -z "$pid" ]; then
            echo "node $n: not running"
            continue
        fi
        kill -TERM "$pid"
        for ((tenths = 0; tenths < STOP_SECONDS * 10; tenths++)); do
            [ -n "$(pid_of "$n")" ] || break
            sleep 0.1
        done
        [ -z "$(pid_of "$n")" ] || fail "node $n, process $pid, does not stop: see $dir/$n.log"
        rm -f "$dir/$n.pid"
        echo "node $n: stopped"
    done
}

case ${1:-} in
start | stop | status) ;;
-h | --help)
    usage
    exit 0
    ;;
*)
    echo "usage: cluster.sh start|stop|status [DIR]; see --help" >&2
    exit 2
    ;;
esac
dir=$(realpath -m "${2:-${TMPDIR:-/tmp}/ferry-cluster}")
"$1"
