# The Debian 12 packages that Ferry needs, in one place. Sourced by tests/run.sh and
# examples/demo.sh; nothing runs when it is sourced.

# To build everything but the tests.
FERRY_BUILD_PACKAGES="gcc libc6-dev cmake ninja-build pkg-config libzmq3-dev liblmdb-dev
    libmsgpack-dev libinih-dev libxxhash-dev libjansson-dev libsqlite3-dev libicu-dev"
# For outboxes in PostgreSQL and MariaDB, and the relay's HTTP page; the build leaves out what is not there.
FERRY_DATABASE_PACKAGES="libpq-dev libmariadb-dev libmicrohttpd-dev"
# And the tests: cmocka; clang and its run-time for fuzzing; clang-format and clang-tidy; Python for
# the programs that throw broken bytes at a broker; mount and setarch of util-linux and mount; ip, nft
# and unshare for brokers with networks of their own.
# The database servers are started by the tests themselves, with data of their own.
FERRY_TEST_PACKAGES="$FERRY_DATABASE_PACKAGES postgresql-15 mariadb-server python3-psycopg2
    python3-pymysql libcmocka-dev clang libclang-rt-14-dev clang-format clang-tidy python3 procps
    util-linux mount iproute2 nftables"

# Installs those of "$@" that are missing, and says which. Needs root or sudo only when one is.
packages_install() {
    local package missing=() as_root=()
    for package in "$@"; do
        if ! dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed; then
            missing+=("$package")
        fi
    done
    if [ ${#missing[@]} -eq 0 ]; then
        return 0
    fi
    if [ "$(id -u)" -ne 0 ]; then
        as_root=(sudo)
        if ! command -v sudo >/dev/null; then
            echo "These packages are missing: ${missing[*]}" >&2
            echo "Run this again as root, or install them with apt-get install." >&2
            return 1
        fi
    fi
    quietly "installing ${#missing[@]} packages" packages_fetch "${as_root[@]}" || {
        echo "apt-get could not install: ${missing[*]}" >&2
        return 1
    }
}

# Only for packages_install: $@ is how to become root, `missing` is its caller's list. A list that is
# already there may be fresh enough; only when it is not is it fetched anew, once.
packages_fetch() {
    local install=("$@" env DEBIAN_FRONTEND=noninteractive apt-get install -y
        --no-install-recommends "${missing[@]}")
    "$@" apt-get update && "${install[@]}"
}
