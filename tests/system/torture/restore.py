"""A database is set back to a backup while everything else runs.

    restore.py [LETTER …] [as torture.py]      of bank a (SQLite), b (PostgreSQL), c (MariaDB); all by default

For each: transfers run; the server is stopped, its files are copied, and it goes on; later it is killed and
started on the copy. Its relays must halt and say so, and publish nothing, until `ferry outbox rebase` has been
called. Then what the database still holds is in the logs, twice only where it says that it may be; and
transfers that begin afterwards come to their end.
"""
import shutil
import subprocess
import sys
import time

from torture import SKIPPED, Run, databases, options, tools
from world import LETTERS, until

HALTED = "set back in time"
FLOW_S = 4


class Restore(Run):
    def flow_for(self, seconds):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.world.tend()
            self.tell()
            time.sleep(0.05)

    def of_bank(self, letter):
        """Everything that has the SQLite file open."""
        return [one for name, one in self.world.processes.items()
                if name.split("-")[1].startswith(letter)]

    def files(self):
        return [self.world.folder / f"a.db{end}" for end in ("", "-wal", "-shm")]

    def back_up(self, letter):
        """A copy of the files at this moment."""
        copy = self.folder / f"backup-{letter}"
        if letter == "a":
            copy.mkdir()
            for one in self.of_bank(letter):
                one.kill(0.5)
            for file in self.files():
                if file.exists():
                    shutil.copy2(file, copy)
        else:
            self.world.servers[letter].stop()
            self.world.servers[letter].copy_to(copy)
            self.world.start_server(letter)

    def restore(self, letter):
        copy = self.folder / f"backup-{letter}"
        if letter == "a":
            for one in self.of_bank(letter):
                one.kill(0.5)
            for file in self.files():
                file.unlink(missing_ok=True)
                if (copy / file.name).exists():
                    shutil.copy2(copy / file.name, file)
        else:
            self.world.kill_server(letter)
            self.world.servers[letter].set_back(copy)
            self.world.start_server(letter)

    def halted(self, letter, since):
        """Whether a relay of the bank has said so, and in these words."""
        self.world.tend()
        for one in self.world.named("relay"):
            if one.name.startswith(f"relay-{letter}"):
                with open(one.log, encoding="utf-8", errors="replace") as log:
                    log.seek(since.get(one.name, 0))
                    if HALTED in log.read():
                        return True
        return False

    def one(self, letter):
        self.flow_for(FLOW_S)
        self.back_up(letter)
        self.say(f"bank {letter}: copied")
        self.flow_for(FLOW_S)
        since = {one.name: one.log.stat().st_size for one in self.world.named("relay")}
        self.restore(letter)
        self.say(f"bank {letter}: set back")
        until(lambda: self.halted(letter, since), f"a relay of bank {letter} halts")
        self.say(f"bank {letter}: its relay has halted")
        self.flow_for(1)
        print(self.world.ferry("outbox", "rebase", self.world.url(letter), "--yes"), end="")
        self.flow_for(1)


def drained(run):
    """Tellers end here: what is in flight at a bank that was set back may never end."""
    for teller in run.world.named("teller"):
        teller.stop()


def later_transfers(run, count):
    """Transfers that begin after it all: do they end? How many did not."""
    before = {letter: int(run.world.sql(letter, "SELECT coalesce(max(number), 0) FROM transfer")[0][0])
              for letter in LETTERS}
    run.world.begin_transfers(max(before.values()) + count, 50)

    def open_ones():
        run.world.tend()
        run.tell()
        if run.tellers_work():
            return None
        return sum(int(run.world.sql(letter, "SELECT count(*) FROM transfer WHERE state < 3 AND "
                                     f"number > {before[letter]}")[0][0]) for letter in LETTERS)
    try:
        until(lambda: open_ones() == 0, "later transfers end", run.words.patience)
    except AssertionError:
        return open_ones()
    return 0


def main():
    parser = options()
    parser.add_argument("letters", nargs="*", default=list(LETTERS))
    parser.set_defaults(transfers=1000000, patience=45)
    words = parser.parse_args()
    if databases.missing():
        print(f"SKIPPED, NOT TESTED HERE: install {' and '.join(databases.missing())}")
        return SKIPPED
    run = Restore(words, **tools())
    right = False
    try:
        run.world.start()
        run.world.begin_transfers(words.transfers, words.per_second)
        for letter in words.letters:
            run.one(letter)
        drained(run)
        unfinished = later_transfers(run, 60)
        right, report = run.judge_when_quiet("--set-back", "".join(words.letters))
        print(report)
        if unfinished:
            print(f"WRONG transfers: {unfinished} that began later do not end")
            right = False
        print("all is right" if right else f"WRONG; see {run.folder}")
        return 0 if right else 1
    finally:
        run.world.close()
        if right and not words.keep:
            run.world.remove()


if __name__ == "__main__":
    sys.exit(main())
