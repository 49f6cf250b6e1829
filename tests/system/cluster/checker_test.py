"""The checker is checked: a good history passes, and every known kind of bad one is found, made by
hand and made by chance. A check that cannot fail would make all the tests of the cluster say nothing."""
import random
import sys
import tempfile
import unittest
from pathlib import Path

import checker

SEED = 20261126
TOPIC = "orders"


class Made:
    """A history to be spoilt: two producers, three readers of the one topic, two partitions. Lines are
    lists of words, so that a test can change one."""

    def __init__(self, messages=40):
        self.files = {"p1.producer": [], "p2.producer": [], "tail.consumer": [], "late.consumer": [],
                      "sub.consumer": []}
        self.clock = 1000
        logs = {0: [], 1: []}
        keyseq = {}
        for n in range(messages):
            producer, seq = ("p1", "p2")[n % 2], n // 2
            key = f"k{n % 5}"
            partition = n % 5 % 2
            number = keyseq[producer, key] = keyseq.get((producer, key), -1) + 1
            total = f"{n:016x}"
            offset = len(logs[partition])
            self.line(f"{producer}.producer", "s", seq, TOPIC, key, number, total)
            logs[partition].append((producer, seq, key, number, total))
            self.line(f"{producer}.producer", "+", seq, partition, offset, 0)
        for name, subscription in (("tail", "-"), ("late", "-"), ("sub", "billing")):
            self.line(f"{name}.consumer", "o", TOPIC, subscription)
            for partition, log in logs.items():
                for offset, content in enumerate(log):
                    if name == "sub" and offset == 5:  # Killed after an acked commit of three.
                        self.line("sub.consumer", "c", partition, 3)
                        self.line("sub.consumer", "o", TOPIC, subscription)
                        for again in (3, 4):
                            self.line("sub.consumer", "r", partition, again, *log[again], 1)
                    self.line(f"{name}.consumer", "r", partition, offset, *content, 1)
            self.line(f"{name}.consumer", "z")

    def line(self, file, kind, *words):
        self.clock += 10
        self.files[file].append([kind, str(self.clock), *map(str, words)])

    def find(self, file, *start):
        """The lines whose kind and words after the time begin so."""
        start = [str(word) for word in start]
        return [line for line in self.files[file]
                if [line[0], *line[2:]][:len(start)] == start]

    def drop(self, file, line):
        self.files[file].remove(line)

    def readers(self):
        return [file for file in self.files if file.endswith("consumer")]

    def judge(self):
        with tempfile.TemporaryDirectory(prefix="ferry-checker-") as folder:
            for name, lines in self.files.items():
                text = "".join(" ".join(line) + "\n" for line in lines)
                (Path(folder) / f"{name}.hist").write_text(text, encoding="utf-8")
            return checker.check(folder)

    def found(self):
        return {kind for kind, what in self.judge().found.items() if what}


class CheckerTest(unittest.TestCase):
    def setUp(self):
        self.made = Made()

    def finds(self, *kinds):
        self.assertEqual(self.made.found(), set(kinds))

    def cut(self, file, offset):
        """The reader is not given what is from `offset` on in partition 0."""
        for line in self.made.find(file, "r", 0):
            if int(line[3]) >= offset:
                self.made.drop(file, line)

    def test_a_good_history_has_nothing_wrong(self):
        judged = self.made.judge()
        self.assertTrue(judged.is_good(), judged.report())
        self.assertEqual(judged.counts()["acked"], 40)

    def test_unknown_messages_may_be_there_or_not(self):
        for line in self.made.find("p1.producer", "+"):
            line[:] = ["?", line[1], line[2], "TIMEOUT"]
        self.finds()
        for file in self.made.readers():
            self.cut(file, 15)
        for line in self.made.find("p2.producer", "+"):
            line[:] = ["?", line[1], line[2], "TIMEOUT"]
        self.finds()

    def test_a_killed_producer_leaves_messages_without_an_outcome(self):
        self.made.drop("p1.producer", self.made.find("p1.producer", "+")[-1])
        self.finds()

    def test_lost_is_found_in_the_end_and_in_the_middle(self):
        for file in self.made.readers():
            self.cut(file, 20)
        self.finds("lost")
        self.made = Made()
        for file in self.made.readers():
            for line in self.made.find(file, "r", 0, 10):
                self.made.drop(file, line)
        self.finds("lost", "skip", "gap")

    def test_unseen_is_found(self):
        self.cut("late.consumer", 20)
        self.finds("unseen")

    def test_a_message_that_nobody_sent_is_unexpected(self):
        for line in self.made.find("p1.producer", "s", 7) + self.made.find("p1.producer", "+", 7):
            self.made.drop("p1.producer", line)
        self.finds("unexpected")

    def test_a_bad_sum_is_unexpected(self):
        self.made.find("tail.consumer", "r", 1, 2)[0][-1] = "0"
        self.finds("unexpected")

    def test_a_message_in_another_topic_is_unexpected(self):
        for line in self.made.find("p1.producer", "s", 7):
            line[3] = "payments"
        self.assertIn("unexpected", self.made.found())

    def test_two_offsets_are_duplicated(self):
        for file in self.made.readers():
            last = self.made.find(file, "r", 0)[-1]
            end = int(last[3]) + 1
            at = self.made.files[file].index(last) + 1
            self.made.files[file].insert(at, ["r", last[1], "0", str(end), *last[4:]])
        self.finds("duplicated")

    def test_what_was_refused_and_is_given_is_aborted(self):
        line = self.made.find("p2.producer", "+", 3)[0]
        line[:] = ["-", line[1], line[2], "THROTTLED"]
        self.finds("aborted")

    def test_two_readers_that_differ_are_inconsistent(self):
        one = self.made.find("late.consumer", "r", 0, 22)[0]
        two = self.made.find("late.consumer", "r", 0, 23)[0]
        one[4:], two[4:] = two[4:], one[4:]
        self.assertIn("inconsistent", self.made.found())

    def test_one_reader_given_two_contents_is_inconsistent(self):
        again = self.made.find("sub.consumer", "r", 0, 4)[1]
        again[4:] = self.made.find("sub.consumer", "r", 0, 20)[0][4:]
        self.assertIn("inconsistent", self.made.found())

    def test_two_acks_of_one_offset_are_inconsistent(self):
        one, two = self.made.find("p1.producer", "+")[:2]
        two[3:5] = one[3:5]
        self.finds("inconsistent")

    def test_an_ack_of_another_offset_is_inconsistent(self):
        self.made.find("p1.producer", "+", 5)[0][4] = "8"
        self.assertIn("inconsistent", self.made.found())

    def swap(self, partition, first, second):
        for file in self.made.readers():
            for one, two in zip(self.made.find(file, "r", partition, first),
                                self.made.find(file, "r", partition, second)):
                one[4:], two[4:] = two[4:], one[4:]

    def test_a_producers_order_is_checked_without_any_ack(self):
        for name in ("p1", "p2"):
            for line in self.made.find(f"{name}.producer", "+"):
                line[:] = ["?", line[1], line[2], "TIMEOUT"]
        self.swap(0, 10, 15)
        self.finds("disorder")

    def test_the_order_between_producers_is_that_of_acks_and_sends(self):
        lines = self.made.find("tail.consumer", "r", 0)
        at = next(i for i in range(8, 20) if lines[i][4] != lines[i + 1][4])
        for line, offset in ((lines[at], at + 1), (lines[at + 1], at)):
            self.made.find(f"{line[4]}.producer", "+", line[5])[0][4] = str(offset)
        self.swap(0, at, at + 1)
        self.finds("disorder")

    def test_a_key_in_two_partitions_is_disorder(self):
        self.made.find("p1.producer", "s", 19)[0][4] = "k0"
        for file in self.made.readers():
            for partition in (0, 1):
                for line in self.made.find(file, "r", partition):
                    if line[4:6] == ["p1", "19"]:
                        line[6] = "k0"
        self.assertIn("disorder", self.made.found())

    def test_a_hole_that_nobody_was_given_is_a_gap(self):
        for name in ("p1", "p2"):
            for line in self.made.find(f"{name}.producer", "+"):
                line[:] = ["?", line[1], line[2], "TIMEOUT"]
        for file in self.made.readers():
            for line in self.made.find(file, "r", 1, 9):
                self.made.drop(file, line)
        self.finds("gap", "skip")

    def test_a_reader_that_leaves_one_out_skips(self):
        self.made.drop("late.consumer", self.made.find("late.consumer", "r", 1, 9)[0])
        self.finds("skip", "unseen")

    def test_a_reader_that_is_given_one_twice_skips(self):
        line = self.made.find("late.consumer", "r", 1, 9)[0]
        at = self.made.files["late.consumer"].index(line)
        self.made.files["late.consumer"].insert(at, list(line))
        self.finds("skip")

    def test_a_subscription_that_goes_back_behind_its_commit_is_found(self):
        self.made.find("sub.consumer", "c", 0)[0][3] = "4"
        self.finds("position")

    def test_a_subscription_that_jumps_ahead_is_found(self):
        """Nothing was read between the kill and the end, and the new session begins behind it."""
        for line in self.made.find("sub.consumer", "r", 0)[5:12]:
            self.made.drop("sub.consumer", line)
        self.finds("position", "unseen")

    def test_a_reader_that_did_not_come_to_the_end_is_stuck(self):
        self.made.drop("late.consumer", self.made.find("late.consumer", "z")[0])
        self.finds("stuck")

    def test_a_topic_that_is_denied_is_told(self):
        """To a reader, and to a producer; other errors on the way are no news."""
        self.made.line("late.consumer", "e", "TIMEOUT")
        self.finds()
        self.made.line("late.consumer", "e", "UNKNOWN_TOPIC")
        self.finds("denied")
        self.made = Made()
        self.made.line("p1.producer", "s", 900, TOPIC, "k1", 900, "ff")
        self.made.line("p1.producer", "-", 900, "UNKNOWN_TOPIC")
        self.finds("denied")

    def test_a_topic_that_nobody_read_is_told(self):
        for file in self.made.readers():
            del self.made.files[file]
        self.finds("stuck")

    def test_chance_finds_no_way_past_it(self):
        """Spoils a history in one of the ways at a place of chance: each time something is found."""
        rng = random.Random(SEED)
        ways = (self._lose, self._give_twice, self._change, self._exchange, self._deny, self._move_ack)
        for round_ in range(120):
            self.made = Made(rng.randrange(20, 60))
            way = rng.choice(ways)
            way(rng)
            self.assertTrue(self.made.found(), f"round {round_} of seed {SEED}: {way.__name__}")

    def _any(self, rng, file):
        return rng.choice(self.made.find(file, "r"))

    def _lose(self, rng):
        line = self._any(rng, "tail.consumer")
        for file in self.made.readers():
            for same in self.made.find(file, "r", *line[2:4]):
                self.made.drop(file, same)

    def _give_twice(self, rng):
        line = self._any(rng, "tail.consumer")
        end = len(self.made.find("tail.consumer", "r", line[2]))
        for file in self.made.readers():
            last = self.made.find(file, "r", line[2])[-1]
            at = self.made.files[file].index(last) + 1
            self.made.files[file].insert(at, ["r", last[1], line[2], str(end), *line[4:]])

    def _change(self, rng):
        line = self._any(rng, rng.choice(self.made.readers()))
        line[rng.choice((5, 7, 8))] = "77"

    def _exchange(self, rng):
        line = self._any(rng, "tail.consumer")
        others = [other for other in self.made.find("tail.consumer", "r", line[2])
                  if other is not line]
        self.swap(line[2], line[3], rng.choice(others)[3])

    def _deny(self, rng):
        ack = rng.choice(self.made.find("p1.producer", "+"))
        ack[:] = ["-", ack[1], ack[2], "TIMEOUT"]

    def _move_ack(self, rng):
        ack = rng.choice(self.made.find("p2.producer", "+"))
        ack[4] = str(int(ack[4]) + rng.choice((-1, 1, 5)))


if __name__ == "__main__":
    print(f"seed {SEED}", file=sys.stderr)
    unittest.main()
