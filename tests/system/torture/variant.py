"""A broken variant of the relay or of a consumer under the faults that find it out.

    variant.py NAME [as torture.py]      id_reader, xmin_reader, ack_first, dedupe_window, no_epoch

Each is what others do, or an obvious shortcut; see variants/. The exit status is 0 when the checker says what
is wrong with it, in the right words, and 1 when it does not: then the checker, or the situation, is too weak.
"""
import sys
import time

from torture import BIN, SKIPPED, Run, databases, options, tools

FOLDER = BIN / "tests/system"
REST_S = 3  # So that relays publish what is there.


def reader(name):
    return {"relay_environment": {"FERRY_DRIVERS": str(FOLDER / f"torture_{name}")}}


def relay(name):
    return {"relay": FOLDER / f"torture_{name}", "relay_environment": {"FERRY_DRIVERS": str(BIN)}}


# Program, faults, and what the checker must say at least one of.
VARIANTS = {
    # Two clerks and a teller of one bank commit in another order than they took numbers: no fault is needed.
    "id_reader": (reader("id_reader"), {"ways": ()}, {"missing message"}),
    # A transaction that has nothing to do with it stays open.
    "xmin_reader": (reader("xmin_reader"), {"ways": ("hold_transaction",)},
                    {"missing message", "event order"}),
    "ack_first": (relay("ack_first"), {"ways": ("kill_relay",)}, {"missing message"}),
    # Killed for longer than the window.
    "dedupe_window": ({"bank": FOLDER / "torture_dedupe_window"},
                      {"ways": ("kill_clerk",), "down_s": (1.5, 3.0)}, {"money", "transfer"}),
    # Stopped for longer than the lease.
    "no_epoch": (relay("no_epoch"), {"ways": ("pause_relay",), "pause_s": (2.0, 4.0)},
                 {"duplicate message"}),
}


def judge_at_rest(run):
    """A broken bank may never come to rest by itself."""
    for one in run.world.named("teller", "clerk"):
        one.stop()
    deadline = time.monotonic() + REST_S
    while time.monotonic() < deadline:
        run.world.tend()
        time.sleep(0.05)
    return run.judge()


def main():
    parser = options()
    parser.add_argument("variant", choices=VARIANTS)
    parser.set_defaults(transfers=600, kills=6, patience=6)
    words = parser.parse_args()
    if databases.missing():
        print(f"SKIPPED, NOT TESTED HERE: install {' and '.join(databases.missing())}")
        return SKIPPED
    world, nemesis, must_say = VARIANTS[words.variant]
    run = Run(words, nemesis, **{**tools(), **world})
    found = False
    try:
        run.world.start()
        if words.variant == "xmin_reader":
            run.nemesis.hold_transaction(300)
        run.flow(words.transfers // 3, words.kills if "kill" in str(nemesis["ways"]) else 0)
        run.settle()
        right, report = judge_at_rest(run)
        print(report)
        found = not right and any(f"WRONG {kind}:" in report for kind in must_say)
        print(f"faults: {run.nemesis.summary()}")
        print(f"{words.variant}: " + ("found out" if found else "NOT FOUND OUT: " + str(must_say)))
        return 0 if found else 1
    finally:
        run.world.close()
        if found and not words.keep:
            run.world.remove()


if __name__ == "__main__":
    sys.exit(main())
