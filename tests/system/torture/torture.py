"""The three banks under faults, judged from outside.

    torture.py [--transfers N] [--kills N] [--rounds N] [--seed S] [--longest-pause SECONDS] [--keep]

In rounds: transfers begin at all three banks while processes are killed, stopped and misled; then all
faults end, what is in flight ends, and the databases are judged at that quiet point. After the last round
the logs are judged as well. See nemesis.py for the faults and checker.py for what must hold. The same seed
draws the same faults; when they strike is the machine's. A run that fails keeps its folder and names it.
"""
import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path[:0] = [str(ROOT / "tests/lib"), str(ROOT / "examples/bank"), str(HERE)]

import databases  # noqa: E402
from nemesis import Nemesis  # noqa: E402
from world import MONEY, World  # noqa: E402

BIN = Path(os.environ.get("FERRY_BIN", ROOT / "build"))
SKIPPED = 77  # What ctest takes for "not tested here".
PATIENCE = 120  # Seconds until everything in flight has ended, without faults.


class Run:
    """One world under faults."""

    def __init__(self, words, nemesis=None, **options):
        self.words = words
        self.folder = Path(tempfile.mkdtemp(prefix="ferry-bank-"))
        self.world = World(self.folder, BIN, seed=words.seed, **options)
        self.began = self.told = time.monotonic()
        self.nemesis = Nemesis(self.world, words.seed, **{"pause_s": (0.1, words.longest_pause),
                                                          **(nemesis or {})})

    def say(self, what):
        print(f"{time.monotonic() - self.began:7.2f} s  {what}", flush=True)

    def tell(self):
        """A line a second."""
        if time.monotonic() - self.told < 1:
            return
        self.told = time.monotonic()
        states = self.world.transfers()
        money = self.world.money()
        if states is None or money is None:
            return
        flying = states.get("running", 0) + states.get("compensating", 0)
        self.say(f"{sum(states.values())} begun, {states.get('done', 0)} done, "
                 f"{states.get('compensated', 0)} compensated, {flying} in flight, "
                 f"{self.nemesis.kills} kills, money {money} + {MONEY - money} on its way")

    def flow(self, count, kills):
        """Every bank begins transfers until it has begun `count`, while `kills` are made."""
        self.world.begin_transfers(count, self.words.per_second)
        first, until_kills = self.nemesis.kills, self.nemesis.kills + kills
        begun_before = self.begun()
        while self.tellers_work() or self.nemesis.kills < until_kills:
            self.world.tend()
            self.tell()
            if kills == 0:
                self.nemesis.strike()
            elif self.nemesis.kills < until_kills:
                # Kills keep step with transfers.
                share = (self.begun(cached=True) - begun_before) / max(1, 3 * count - begun_before)
                if not self.tellers_work() or self.nemesis.kills - first <= share * kills:
                    self.nemesis.strike()
            time.sleep(0.05)

    def tellers_work(self):
        return not all(one.retired for one in self.world.named("teller"))

    def begun(self, cached=False):
        if cached and time.monotonic() - self.begun_at < 0.5:
            return self.begun_last
        states = self.world.transfers()
        if states is not None:
            self.begun_last = sum(states.values())
        self.begun_at = time.monotonic()
        return self.begun_last

    begun_last, begun_at = 0, 0.0

    def settle(self):
        """All faults end; then everything that is in flight does."""
        self.world.heal()
        deadline = time.monotonic() + self.words.patience
        while time.monotonic() < deadline:
            self.world.tend()
            self.tell()
            states = self.world.transfers()
            if states is not None and not {"running", "compensating"} & set(states):
                return True
            time.sleep(0.1)
        self.say("it does not settle")
        return False

    def judge(self, *words):
        """(whether all is right, what the checker says)."""
        done = subprocess.run([sys.executable, "-B", HERE / "checker.py", self.world.places, *words],
                              capture_output=True, text=True, check=False, timeout=600)
        return done.returncode == 0, done.stdout + done.stderr

    def judge_when_quiet(self, *words):
        """What is wrong may be only late: it is looked at again until patience ends."""
        deadline = time.monotonic() + self.words.patience
        while True:
            right, report = self.judge(*words)
            if right or time.monotonic() > deadline or "duplicate" in report:
                return right, report
            for _ in range(20):
                self.world.tend()
                time.sleep(0.1)

    def rounds(self):
        """Whether all is right."""
        for turn in range(1, self.words.rounds + 1):
            share = turn / self.words.rounds
            self.flow(int(self.words.transfers * share + 2) // 3,
                      int(self.words.kills * share) - self.nemesis.kills)
            settled = self.settle()
            right, report = self.judge("--databases")
            self.say(f"round {turn}: {'right' if right and settled else 'WRONG'}, "
                     f"{self.nemesis.kills} kills")
            if not (right and settled):
                print(report)
                return False
        right, report = self.judge_when_quiet()
        print(report)
        return right

    def finish(self):
        """Whether everything stopped as it should and nothing fell by itself."""
        falls = {one.name: one.falls for one in self.world.processes.values() if one.falls}
        bad = self.world.stop()
        for name, statuses in {**falls, **{one: [status] for one, status in bad.items()}}.items():
            said = (self.folder / f"{name}.log").read_text(errors="replace").splitlines()[-3:]
            print(f"WRONG process: {name} ended by itself with {statuses}: {said}")
        print(f"faults: {self.nemesis.summary()}")
        return not falls and not bad


def tools():
    """What a World needs for all faults."""
    folder = BIN / "tests/system"
    return {"preload": folder / "torture_fault.so", "disk_preload": folder / "disk_fault.so",
            "proxy": folder / "commit_proxy",
            # So that a disk that is full is felt soon.
            "broker_options": ("--set", "store.grow_bytes=1M", "--set", "store.reserve_bytes=1M")}


def options():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transfers", type=int, default=2100)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=20261126)
    parser.add_argument("--per-second", type=int, default=25, help="of each bank")
    parser.add_argument("--longest-pause", type=float, default=5.0)
    parser.add_argument("--patience", type=float, default=PATIENCE)
    parser.add_argument("--keep", action="store_true")
    return parser


def main():
    words = options().parse_args()
    missing = databases.missing()
    if missing:
        print(f"SKIPPED, NOT TESTED HERE: install {' and '.join(missing)}")
        return SKIPPED
    print(f"seed {words.seed}: {words.transfers} transfers, {words.kills} kills", flush=True)
    run = Run(words, **tools())
    right = False
    try:
        run.world.start()
        run.say("three banks are open")
        right = run.rounds()
        right = run.finish() and right
        run.say("all is right" if right else f"WRONG; see {run.folder}")
        return 0 if right else 1
    finally:
        run.world.close()
        if right and not words.keep:
            run.world.remove()


if __name__ == "__main__":
    sys.exit(main())
