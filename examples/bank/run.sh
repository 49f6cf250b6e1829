#!/bin/bash
# Three banks, three databases, and not a cent lost: transfers among them as sagas, while their parts are
# killed.
#
#   examples/bank/run.sh                 6,000 transfers and 60 kills
#   examples/bank/run.sh --short         600 transfers and 10 kills, within two minutes
#   … --transfers N --kills N --seed S   as you like
#   … --keep                             leaves the folder with databases and logs, and says where
#
# Bank A stands on SQLite, B on PostgreSQL, C on MariaDB; both servers are started in a temporary folder and
# end with the demonstration. A cluster of three brokers carries the messages; each bank has two relays and two
# clerks. A line a second says how many transfers began, are done, were compensated and are in flight, how
# often something was killed with kill -9, and how much money there is. The last line is the verdict, and the
# exit status follows it: 0 only if every transfer has its three effects or none, and every message that was
# put is in the logs once. Ctrl-C ends everything that was started.
#
# Installs the Debian packages that building needs and builds into build/demo, unless FERRY_BIN names a folder
# with the programs. The servers (postgresql, mariadb-server) you install yourself.
set -euo pipefail

FERRY_ROOT=$(cd "$(dirname "$0")/../.." && pwd)
. "$FERRY_ROOT/tests/lib/packages.sh"
. "$FERRY_ROOT/tests/lib/steps.sh"

words=(--transfers 6000 --kills 60)
while [ $# -gt 0 ]; do
    case $1 in
    --short) words=(--transfers 600 --kills 10) ;;
    --transfers | --kills | --seed)
        words+=("$1" "${2:?$1 needs a number}")
        shift
        ;;
    --keep) words+=(--keep) ;;
    -h | --help)
        sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
        exit 0
        ;;
    *)
        echo "run.sh: $1 is not an option; see --help" >&2
        exit 2
        ;;
    esac
    shift
done

missing=()
compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || command -v postgres >/dev/null ||
    missing+=(postgresql)
command -v mariadbd >/dev/null && command -v mariadb-install-db >/dev/null || missing+=(mariadb-server)
if [ ${#missing[@]} -gt 0 ]; then
    echo "run.sh: the banks need PostgreSQL and MariaDB: apt-get install ${missing[*]}" >&2
    exit 3
fi

if [ -z "${FERRY_BIN:-}" ]; then
    FERRY_BIN=$FERRY_ROOT/build/demo
    STEPS_LOG=$FERRY_ROOT/build/demo.log
    mkdir -p "$FERRY_ROOT/build"
    : >"$STEPS_LOG"
    # shellcheck disable=SC2086 # Lists of words.
    packages_install $FERRY_BUILD_PACKAGES $FERRY_DATABASE_PACKAGES python3
    quietly "building" build_tree "$FERRY_BIN" -DFERRY_TESTS=OFF
fi
export FERRY_BIN
exec python3 -B "$FERRY_ROOT/examples/bank/run.py" "${words[@]}"
