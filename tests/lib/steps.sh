# Steps that a person watches: one line each, the noise in a log that is shown when a step fails.
# Sourced. The caller sets STEPS_LOG, the file that takes the noise.

# quietly LABEL COMMAND…: "LABEL …" while it runs, "LABEL: 12 s" when it is done.
quietly() {
    local label=$1 started=$SECONDS pid status=0
    shift
    printf '\n== %s\n' "$label" >>"$STEPS_LOG"
    "$@" >>"$STEPS_LOG" 2>&1 </dev/null &
    pid=$!
    if [ -t 1 ]; then
        while kill -0 "$pid" 2>/dev/null; do
            printf '\r%s … %d s ' "$label" $((SECONDS - started))
            sleep 0.5
        done
        printf '\r\033[K'
    else
        printf '%s …\n' "$label"
    fi
    wait "$pid" || status=$?
    if [ $status -ne 0 ]; then
        printf '%s: FAILED after %d s; the end of %s:\n' "$label" $((SECONDS - started)) "$STEPS_LOG"
        tail -n 40 "$STEPS_LOG"
        return $status
    fi
    printf '%s: %d s\n' "$label" $((SECONDS - started))
}

# build_tree FOLDER OPTION… [-- TARGET…]: configures with CMake and builds with ninja. All of it
# unless targets are named.
build_tree() {
    local folder=$1 options=()
    shift
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        options+=("$1")
        shift
    done
    [ $# -eq 0 ] || shift
    if command -v ccache >/dev/null; then
        options+=(-DCMAKE_C_COMPILER_LAUNCHER=ccache)
    fi
    cmake -S "$FERRY_ROOT" -B "$folder" -G Ninja "${options[@]}" &&
        cmake --build "$folder" --target "${@:-all}"
}
