"""The banks for people to watch: run.sh, once everything is built."""
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/system/torture")]

from torture import Run, options  # noqa: E402

WAYS = ("kill_relay", "kill_clerk", "kill_teller", "kill_broker", "kill_leader", "kill_postmaster",
        "kill_backend", "kill_mariadb", "pause_relay", "pause_clerk")


def interrupted(_signal, _frame):
    raise KeyboardInterrupt


def main():
    signal.signal(signal.SIGTERM, interrupted)  # Of timeout(1), for one: everything ends with us.
    parser = options()
    parser.set_defaults(rounds=1, per_second=20)
    words = parser.parse_args()
    run = Run(words, {"ways": WAYS})
    right = False
    try:
        print("Opening three banks: A on SQLite, B on PostgreSQL, C on MariaDB, and three brokers.",
              flush=True)
        run.world.start()
        right = run.rounds()
        right = run.finish() and right
        if right:
            print(f"good: {words.transfers} transfers, {run.nemesis.kills} kills, "
                  "and not a cent or a message lost or doubled")
        else:
            print(f"BAD: see above, and {run.folder}")
        return 0 if right else 1
    except KeyboardInterrupt:
        print("\nstopped")
        right = True
        return 130
    finally:
        run.world.close()
        if right and not words.keep:
            run.world.remove()
        elif words.keep:
            print(f"kept: {run.folder}")


if __name__ == "__main__":
    sys.exit(main())
