#!/bin/bash
# The demo: a business whose transactions become effects elsewhere, exactly once, while its parts are
# killed.
#
#   examples/demo.sh                 sells this machine's installed packages, one transaction each
#   examples/demo.sh --input FILE    any text file instead, a line a transaction
#   examples/demo.sh --brokers 3     a cluster of three brokers, each message on all of them
#   examples/demo.sh --keep          leaves the folder with databases and logs, and says where
#
# shop puts each line and its message into a SQLite database in one transaction, and rolls back every
# tenth. ferry-outbox publishes the messages, ferryd keeps them, ledger and audit apply them to SQLite
# databases of their own. Meanwhile the relay, the ledger and the broker are killed with kill -9, once
# each, and started again; of three brokers first the one that leads, while the others go on without
# it, and later all of them. Then `ferry verify effects` compares what was committed, what is in the log
# and what took effect. The exit status is 0 only if nothing was lost, doubled or unexpected.
#
# Installs the Debian packages that are missing and builds into build/demo, unless FERRY_BIN names a
# folder with the programs.
set -euo pipefail

FERRY_ROOT=$(cd "$(dirname "$0")/.." && pwd)
. "$FERRY_ROOT/tests/lib/packages.sh"
. "$FERRY_ROOT/tests/lib/steps.sh"

TOPIC=packages
PARTITIONS=4
REFUSE_EVERY=10
SLICES=24           # The input is sold in so many parts…
PAUSE=0.4           # …with so many seconds between them, so that there is time to be killed.
READY_SECONDS=20    # To start a broker.
FINISH_SECONDS=30   # For the last effect after the last sale.

usage() {
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
}

input='' keep=false brokers=1
while [ $# -gt 0 ]; do
    case $1 in
    --input)
        input=${2:?--input needs a file}
        shift
        ;;
    --brokers)
        brokers=${2:?--brokers needs 1 or 3}
        shift
        ;;
    --keep) keep=true ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        echo "demo.sh: $1 is not an option; see --help" >&2
        exit 2
        ;;
    esac
    shift
done
if [ "$brokers" != 1 ] && [ "$brokers" != 3 ]; then
    echo "demo.sh: --brokers $brokers: 1 or 3" >&2
    exit 2
fi
if [ -n "$input" ] && [ ! -r "$input" ]; then
    echo "demo.sh: $input: there is no such file, or it may not be read" >&2
    exit 2
fi

# ---- Programs -----------------------------------------------------------------------------------
if [ -z "${FERRY_BIN:-}" ]; then
    FERRY_BIN=$FERRY_ROOT/build/demo
    STEPS_LOG=$FERRY_ROOT/build/demo.log
    mkdir -p "$FERRY_ROOT/build"
    : >"$STEPS_LOG"
    # shellcheck disable=SC2086 # A list of words.
    packages_install $FERRY_BUILD_PACKAGES
    quietly "building" build_tree "$FERRY_BIN" -DFERRY_TESTS=OFF
fi

started=$SECONDS
work=$(mktemp -d "${TMPDIR:-/tmp}/ferry-demo-XXXXXX")
endpoint='tcp://127.0.0.1:*' # A free port; the broker says which, and keeps it when it comes back.
declare -A pids=()

# Three brokers must know of each other before they start: fixed ports, on an address of this machine
# that no other demo has.
host=127.$((1 + ($$ >> 16) % 64)).$((($$ >> 8) % 256)).$(($$ % 256))
founders="1=tcp://$host:7500,2=tcp://$host:7510,3=tcp://$host:7520"
if [ "$brokers" = 3 ]; then
    endpoint="tcp://$host:7400,tcp://$host:7410,tcp://$host:7420"
fi

# ---- Processes ----------------------------------------------------------------------------------
start() { # NAME COMMAND…
    local name=$1
    shift
    # Not the till: the shop closes when its last writer does.
    "$@" >>"$work/$name.log" 2>&1 </dev/null 3>&- &
    pids[$name]=$!
}

stop() { # NAME SIGNAL
    if [ -n "${pids[$1]:-}" ]; then
        kill -s "$2" "${pids[$1]}" 2>/dev/null || true
        wait "${pids[$1]}" 2>/dev/null || true # Also hides the shell's own note of the death.
        unset "pids[$1]"
    fi
}

clean_up() {
    local name
    for name in audit ledger relay shop ferryd ferryd-1 ferryd-2 ferryd-3; do
        stop "$name" KILL
    done
    if $keep; then
        echo "kept: $work"
    else
        rm -rf "$work"
    fi
}
trap clean_up EXIT
trap 'exit 130' INT TERM

fail() {
    printf '\ndemo.sh: %s\n' "$1" >&2
    tail -n 5 "$work"/*.log >&2 || true
    exit 1
}

wait_ready() { # NAME
    local log=$work/$1.log until=$((SECONDS + READY_SECONDS))
    until grep -q '^ferryd: ready' "$log"; do
        if [ $SECONDS -ge $until ] || ! kill -0 "${pids[$1]}" 2>/dev/null; then
            fail "the broker does not start"
        fi
        sleep 0.02
    done
}

start_node() { # NODE
    : >"$work/ferryd-$1.log"
    start "ferryd-$1" "$FERRY_BIN/ferryd" --data "$work/data-$1" --node "$1" \
        --listen "tcp://$host:$((7390 + 10 * $1))" --peer-listen "tcp://$host:$((7490 + 10 * $1))" \
        --bootstrap "$founders"
}

start_brokers() {
    local log=$work/ferryd.log n
    if [ "$brokers" = 3 ]; then
        for n in 1 2 3; do start_node $n; done
        for n in 1 2 3; do wait_ready ferryd-$n; done
        return
    fi
    : >"$log"
    start ferryd "$FERRY_BIN/ferryd" --data "$work/data" --listen "$endpoint"
    wait_ready ferryd
    endpoint=$(sed -n 's/^ferryd: ready: \(tcp:[^ ,]*\).*/\1/p' "$log")
}

start_relay() {
    start relay "$FERRY_BIN/ferry-outbox" --db "sqlite:$work/shop.db" --server "$endpoint"
}

start_subscriber() { # NAME
    start "$1" "$FERRY_BIN/examples/$1" "$work/$1.db" "$endpoint" "$TOPIC"
}

stop_brokers() { # SIGNAL
    local name
    for name in ferryd ferryd-1 ferryd-2 ferryd-3; do stop $name "$1"; done
}

# ---- Progress -----------------------------------------------------------------------------------
ferry() {
    "$FERRY_BIN/ferry" --server "$endpoint" "$@"
}

# The sum of a field of JSON on standard input; 0 when it is not there.
sum_of() {
    { grep -o "\"$1\": *[0-9]*" || true; } | awk -F': *' '{ sum += $2 } END { print sum + 0 }'
}

effects_at() { # NAME
    { ferry --json inbox status "sqlite:$work/$1.db" 2>/dev/null || true; } | sum_of position
}

line() {
    printf 'sold %d of %d   effects: ledger %d, audit %d   %s' "$sold" "$total" \
        "$(effects_at ledger)" "$(effects_at audit)" "$1"
}

progress() { # WHAT HAPPENS; a line that stays if it is said to
    if [ -t 1 ]; then
        printf '\r\033[K%s' "$(line "$1")"
        [ -z "${2:-}" ] || printf '\n'
    elif [ -n "${2:-}" ]; then
        printf '%s\n' "$(line "$1")"
    fi
}

# ---- The broker's death: of three, of the one that leads partition 0 ------------------------------
kill_broker() {
    if [ "$brokers" = 1 ]; then
        stop ferryd KILL
        progress 'kill -9 of the broker' stays
        return
    fi
    leader=$(ferry --json partition info "$TOPIC" 0 | sum_of leader_node)
    [ "$leader" != 0 ] || leader=1 # Nobody at this moment.
    stop "ferryd-$leader" KILL
    progress "kill -9 of broker $leader, a leader" stays
}

bring_broker_back() {
    if [ "$brokers" = 1 ]; then
        start_brokers
        progress 'the broker is back' stays
        return
    fi
    start_node "$leader"
    wait_ready "ferryd-$leader"
    progress "broker $leader is back" stays
}

# ---- The run ------------------------------------------------------------------------------------
if [ -n "$input" ]; then
    awk 1 "$input" >"$work/lines" # The last line gets its newline.
    what="the lines of $input"
else
    dpkg-query -W -f '${binary:Package}\t${Version}\t${Section}\t${Installed-Size}\n' >"$work/lines"
    what="this machine's installed packages"
fi
total=$(wc -l <"$work/lines")
sold=0
if [ "$total" -eq 0 ]; then
    fail "there is nothing to sell: the input is empty"
fi
echo "Selling $what: $total transactions, every ${REFUSE_EVERY}th is rolled back."

start_brokers
ferry topic create "$TOPIC" --partitions $PARTITIONS --quiet >/dev/null
ferry outbox init "sqlite:$work/shop.db" --quiet >/dev/null
start_relay
start_subscriber ledger
start_subscriber audit
mkfifo "$work/till"
"$FERRY_BIN/examples/shop" "$work/shop.db" "$TOPIC" $REFUSE_EVERY \
    <"$work/till" >"$work/rolled-back" 2>"$work/shop.log" &
pids[shop]=$!
exec 3>"$work/till"

for ((slice = 1; slice <= SLICES; slice++)); do
    from=$((sold + 1))
    sold=$((total * slice / SLICES))
    [ $sold -lt $from ] || sed -n -e "${from},${sold}p" -e "${sold}q" "$work/lines" >&3
    case $slice in # Killed while the sales just made are on their way.
    3) stop relay KILL && progress 'kill -9 of the relay' stays ;;
    4) start_relay && progress 'the relay is back' stays ;;
    12) stop ledger KILL && progress 'kill -9 of the ledger' stays ;;
    13) start_subscriber ledger && progress 'the ledger is back' stays ;;
    16) kill_broker ;;
    17) bring_broker_back ;;
    20) [ "$brokers" = 1 ] || { stop_brokers KILL && progress 'kill -9 of all brokers' stays; } ;;
    21) [ "$brokers" = 1 ] || { start_brokers && progress 'the brokers are back' stays; } ;;
    *) progress '' ;;
    esac
    sleep $PAUSE
done
exec 3>&-
wait "${pids[shop]}" || fail "the shop failed"
unset "pids[shop]"

committed=$((total - $(wc -l <"$work/rolled-back")))
until=$((SECONDS + FINISH_SECONDS))
while [ "$(effects_at ledger)" -lt $committed ] || [ "$(effects_at audit)" -lt $committed ]; do
    if [ $SECONDS -ge $until ]; then
        progress "not all effects came within $FINISH_SECONDS s" stays
        break
    fi
    progress 'the last messages are on their way'
    sleep 0.2
done
progress 'done' stays
stop audit TERM
stop ledger TERM
stop relay TERM

# ---- The verdict --------------------------------------------------------------------------------
echo
verdict=0
ferry verify effects --topic "$TOPIC" \
    --committed "sqlite:$work/shop.db" 'SELECT message_id FROM sale' \
    --rolled-back-file "$work/rolled-back" \
    --effects ledger "sqlite:$work/ledger.db" 'SELECT message_id FROM entry' \
    --effects audit "sqlite:$work/audit.db" 'SELECT message_id FROM trail' \
    --inbox ledger "sqlite:$work/ledger.db" --inbox audit "sqlite:$work/audit.db" || verdict=$?
stop_brokers TERM
echo
if [ "$brokers" = 1 ]; then
    killed='Relay, ledger and broker were killed once each.'
else
    killed='Relay, ledger and a leading broker were killed once each, and all brokers at once.'
fi
echo "$killed It took $((SECONDS - started)) s."
exit $verdict
