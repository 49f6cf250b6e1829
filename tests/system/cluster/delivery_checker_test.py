"""The checker of deliveries is checked: a good history passes, and each class of bad one is found."""
import json
import tempfile
import unittest
from pathlib import Path

import delivery_checker

TOPIC = "orders"


class Made:
    """Twelve messages of three keys in one partition, all acked in a queue and in a keyed subscription
    but for the last, which is dead; and a group of two members that share the reading."""

    def __init__(self):
        self.clock = 1000
        self.files = {"p.producer": [], "w1.worker": [], "w2.worker": [], "k1.worker": [],
                      "a.member": [], "b.member": []}
        self.dead = []
        keyseq = {}
        self.messages = []
        for n in range(12):
            key = f"k{n % 3}"
            keyseq[key] = keyseq.get(key, -1) + 1
            self.messages.append((key, keyseq[key], f"{n:016x}"))
            self.line("p.producer", "s", n, TOPIC, *self.messages[-1])
            self.line("p.producer", "+", n, 0, n, 0)
        for file, name in (("w1.worker", "work"), ("w2.worker", "work"), ("k1.worker", "keyed-work")):
            self.line(file, "o", TOPIC, name)
        for n in range(11):
            worker = ("w1.worker", "w2.worker")[n % 2]
            self.handed(worker, n, 1, 0)
            self.settle(worker, n, 1, "ack")
            self.handed("k1.worker", n, 1, 0)
            self.settle("k1.worker", n, 1, "ack")
        for worker, name in (("w1.worker", "work"), ("k1.worker", "keyed-work")):
            self.handed(worker, 11, 1, 0)
            self.settle(worker, 11, 1, "nack")
            self.handed(worker, 11, 2, 1)
            self.settle(worker, 11, 2, "reject")
            self.dead.append({"topic": TOPIC, "subscription": name, "partition": 0, "offset": 11})
        for member, reads in (("a.member", range(6)), ("b.member", range(6, 12))):
            self.line(member, "o", TOPIC, "audit")
            self.line(member, "g", 0)
            for n in reads:
                self.read(member, n)
                self.commit(member, n + 1)
            self.line(member, "x", 0)

    def line(self, file, kind, *words):
        self.clock += 10
        self.files[file].append([kind, str(self.clock), *map(str, words)])

    def handed(self, worker, n, number, failed, good=1):
        self.line(worker, "h", 0, n, number, failed, "p", n, *self.messages[n], good)

    def settle(self, worker, n, number, kind, err="OK"):
        self.line(worker, "b", 0, n, number, kind)
        self.line(worker, "d", 0, n, number, kind, err)

    def read(self, member, n):
        self.line(member, "r", 0, n, "p", n, *self.messages[n], 1)

    def commit(self, member, offset):
        self.line(member, "b", 0, offset)
        self.line(member, "c", 0, offset)

    def drop(self, file, *start):
        start = [str(word) for word in start]
        found = [line for line in self.files[file] if [line[0], *line[2:]][:len(start)] == start]
        assert found, start
        self.files[file].remove(found[0])
        return found[0]

    def check(self):
        with tempfile.TemporaryDirectory() as folder:
            for name, lines in self.files.items():
                Path(folder, name + ".hist").write_text(
                    "".join(" ".join(line) + "\n" for line in lines), encoding="utf-8")
            path = Path(folder, "dead.json")
            path.write_text("".join(json.dumps(dead) + "\n" for dead in self.dead), encoding="utf-8")
            return delivery_checker.check(folder, path)


class DeliveryCheckerTest(unittest.TestCase):
    def setUp(self):
        self.made = Made()

    def finds(self, *kinds):
        judged = self.made.check()
        found = {kind for kind, what in judged.found.items() if what}
        self.assertEqual(found, set(kinds), judged.report())

    def test_a_good_history_passes(self):
        self.finds()

    def test_a_message_that_nobody_acked_is_lost(self):
        self.made.drop("w1.worker", "b", 0, 4, 1, "ack")
        self.made.drop("w1.worker", "d", 0, 4, 1, "ack")
        self.finds("lost")

    def test_a_message_whose_ack_was_refused_is_lost(self):
        self.made.drop("w1.worker", "d", 0, 4, 1, "ack")
        self.made.line("w1.worker", "d", 0, 4, 1, "ack", "LEASE_EXPIRED")
        self.finds("lost")

    def test_a_worker_that_is_killed_while_it_acks_has_lost_nothing(self):
        self.made.drop("w1.worker", "d", 0, 4, 1, "ack")
        self.finds()

    def test_a_dead_letter_that_is_not_there_is_lost(self):
        self.made.dead.pop(0)
        self.finds("lost")

    def test_an_acked_message_that_comes_again_is_redelivered(self):
        self.made.handed("w2.worker", 4, 2, 1)
        self.finds("redelivered")

    def test_an_old_hand_out_that_is_found_late_is_no_redelivery(self):
        """Acked as the second hand-out, while the first one lies with somebody who sleeps."""
        self.made.drop("w1.worker", "h", 0, 4, 1)
        self.made.drop("w1.worker", "b", 0, 4, 1)
        self.made.drop("w1.worker", "d", 0, 4, 1)
        self.made.handed("w1.worker", 4, 2, 1)
        self.made.settle("w1.worker", 4, 2, "ack")
        self.made.handed("w2.worker", 4, 1, 0)
        self.made.settle("w2.worker", 4, 1, "ack", "LEASE_EXPIRED")
        self.finds()

    def test_two_acks_of_one_message_exclude_each_other(self):
        self.made.handed("w2.worker", 4, 2, 1)
        self.made.settle("w2.worker", 4, 2, "ack")
        self.finds("redelivered", "both")

    def test_an_acked_message_that_is_dead_too_is_both(self):
        self.made.dead.append({**self.made.dead[0], "offset": 4})
        self.finds("both")

    def test_a_hand_out_number_that_is_given_twice_is_miscounted(self):
        self.made.handed("w2.worker", 4, 1, 0)
        self.finds("counters")

    def test_failures_that_rise_without_reason_are_miscounted(self):
        self.made.drop("w1.worker", "h", 0, 11, 2)
        self.made.handed("w1.worker", 11, 2, 0)
        self.finds("counters")

    def test_a_key_out_of_order_is_found(self):
        line = self.made.drop("k1.worker", "h", 0, 6)
        line[1] = "1000"
        self.made.files["k1.worker"].append(line)
        self.finds("order")

    def test_a_changed_message_is_unexpected(self):
        self.made.drop("w1.worker", "h", 0, 4)
        self.made.handed("w1.worker", 4, 1, 0, good=0)
        self.finds("unexpected")

    def test_a_commit_of_one_who_lost_the_partition_is_a_zombies(self):
        self.made.commit("a.member", 12)
        self.finds("zombie")

    def test_a_member_that_begins_before_the_commit_is_found(self):
        self.made.line("a.member", "g", 0)
        self.made.read("a.member", 3)
        self.finds("backwards")

    def test_a_member_that_begins_ahead_is_found(self):
        self.made.drop("a.member", "r", 0, 5)
        self.made.drop("b.member", "r", 0, 6)
        self.finds("missed")


if __name__ == "__main__":
    unittest.main()
