#!/bin/bash
# Installs what is missing, builds, and runs every test of Ferry through one ctest.
#
#   tests/run.sh            everything, below 20 minutes on 2 cores
#   tests/run.sh --quick    the normal build only: no sanitizers, no fuzzing, no clang-tidy
#   tests/run.sh [--quick] -R REGEX    only the tests whose name matches
#
# Trees, all under build/: normal (unit, system, examples), asan (the same under AddressSanitizer and
# UBSan, names begin with `asan.`), tsan (the SDK and the relay as a thread under ThreadSanitizer,
# `tsan.`) and fuzz (the decoders under libFuzzer, some seconds each). The exit status is ctest's.
set -euo pipefail

FERRY_ROOT=$(cd "$(dirname "$0")/.." && pwd)
STEPS_LOG=$FERRY_ROOT/build/run.log
. "$FERRY_ROOT/tests/lib/packages.sh"
. "$FERRY_ROOT/tests/lib/steps.sh"
. "$FERRY_ROOT/tests/lib/join.sh"

quick=false
select=()
while [ $# -gt 0 ]; do
    case $1 in
    --quick) quick=true ;;
    -R)
        select=(-R "${2:?-R needs a regular expression}")
        shift
        ;;
    -h | --help)
        sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
        exit 0
        ;;
    *)
        echo "tests/run.sh: $1 is not an option: --quick, -R REGEX or --help" >&2
        exit 2
        ;;
    esac
    shift
done

# Names of the programs that the given sources become; a pattern that matched nothing names none.
programs_of() {
    local source
    for source in "$@"; do
        if [ -e "$source" ]; then
            basename "$source" .c
        fi
    done
}

build=$FERRY_ROOT/build
mkdir -p "$build/all"
: >"$STEPS_LOG"
: >"$build/all/CTestTestfile.cmake"

# shellcheck disable=SC2086 # Lists of words.
packages_install $FERRY_BUILD_PACKAGES $FERRY_TEST_PACKAGES

quietly "building" build_tree "$build/normal"
if $quick; then
    join_tree "$build/all" "$build/normal" "" "(unit|system|examples|bench|tidy\.sources)[^ ]*"
else
    join_tree "$build/all" "$build/normal" "" "[^ ]*"
    quietly "building with AddressSanitizer and UBSan" \
        build_tree "$build/asan" -DFERRY_SANITIZE=address
    join_tree "$build/all" "$build/asan" asan. "(unit|system)[^ ]*"
    quietly "building the SDK's tests with ThreadSanitizer" \
        build_tree "$build/tsan" -DFERRY_SANITIZE=thread -- $(programs_of "$FERRY_ROOT"/tests/unit/{net,net_hostile,client_*,embedded_relay}_test.c)
    join_tree "$build/all" "$build/tsan" tsan. "unit\.(net|net_hostile|client_[a-z_]*|embedded_relay)\]"
    quietly "building the fuzz targets" \
        build_tree "$build/fuzz" -DCMAKE_C_COMPILER=clang -DFERRY_SANITIZE=address -DFERRY_FUZZ=ON \
        -- $(programs_of "$FERRY_ROOT"/tests/fuzz/*_fuzz.c)
    join_tree "$build/all" "$build/fuzz" "" "fuzz\.[^ ]*"
fi

# The sanitizers want a layout of memory that the kernel may not give under full randomisation.
fixed_layout=()
if setarch "$(uname -m)" -R true 2>/dev/null; then
    fixed_layout=(setarch "$(uname -m)" -R)
fi
export ASAN_OPTIONS=detect_leaks=1:abort_on_error=0
export UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS=suppressions=$FERRY_ROOT/tests/lib/tsan.supp:halt_on_error=1

# LeakSanitizer attaches to its own process, which some sandboxes forbid; better without leaks
# checked than not at all, and said so.
if [ -e "$build/asan/tests/err_test" ] && ! "$build/asan/tests/err_test" >/dev/null 2>&1; then
    if ASAN_OPTIONS=detect_leaks=0 "$build/asan/tests/err_test" >/dev/null 2>&1; then
        echo "note: leaks cannot be checked here (ptrace is not permitted)"
        export ASAN_OPTIONS=detect_leaks=0:abort_on_error=0
    fi
fi

# Not `exec`: the folder's own Testing/ keeps the logs, and the last lines are ctest's.
"${fixed_layout[@]}" ctest --test-dir "$build/all" --output-on-failure --no-tests=error \
    -j "$(nproc)" "${select[@]}" </dev/null
