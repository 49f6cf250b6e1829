"""Judges what workers and members of groups were given and did: see workload.h for the lines.

Knows nothing but histories. A message's hand-outs are told apart by the number that each delivery
carries (the how-manieth it is), so that a worker that was asleep and finds an old hand-out in its
hands is no contradiction.

    lost         acked by the broker when it was sent, and at the end neither acked nor dead, nor in
                 the hands of one who was killed while settling it
    redelivered  handed out again after an ack of an earlier hand-out was confirmed
    both         two settlements of different hand-outs confirmed that exclude each other
    counters     a hand-out number given twice, or more failures than hand-outs before it
    order        of keyed: a message of a key handed out before the one before it was done
    unexpected   handed out and never sent, or changed on the way
    zombie       a commit of a partition confirmed that began after another member had it
    backwards    a member was given a partition and read before what had been committed
    missed       a member began behind what anybody of the group had read
    stuck        the end did not come

    delivery_checker.py FOLDER DEAD_JSON_LINES    prints what is wrong; exit status 1 when anything is
"""
import collections
import json
import sys
from pathlib import Path

CLASSES = ("lost", "redelivered", "both", "counters", "order", "unexpected", "zombie", "backwards",
           "missed", "stuck")
EXAMPLES_MAX = 5
Place = collections.namedtuple("Place", "topic partition offset")
HandOut = collections.namedtuple("HandOut", "worker time failed key keyseq")
Settled = collections.namedtuple("Settled", "worker began time kind")


class Subscription:
    def __init__(self, topic, name):
        self.topic, self.name = topic, name
        self.handed = collections.defaultdict(dict)  # Place -> number -> HandOut
        self.settled = collections.defaultdict(dict)  # Place -> number -> Settled, confirmed
        self.begun = collections.defaultdict(set)  # Place -> numbers whose ack or reject has no answer
        self.dead = {}  # Place -> what the broker tells of it


class Group:
    def __init__(self):
        self.given = collections.defaultdict(list)  # partition -> [(time, member)]
        self.taken = collections.defaultdict(list)  # ... given up by it
        self.commits = collections.defaultdict(list)  # partition -> [(began, time, offset, member)]
        self.reads = collections.defaultdict(list)  # partition -> [(time, offset, member)]


class Deliveries:
    def __init__(self):
        self.found = {name: [] for name in CLASSES}
        self.sent, self.acks = {}, {}
        self.subscriptions, self.groups = {}, collections.defaultdict(Group)
        self.errors = collections.Counter()

    def add(self, kind, what):
        self.found[kind].append(what)

    # ---- Reading

    def load(self, folder):
        for path in sorted(Path(folder).glob("*.producer.hist")):
            self._producer(path)
        for path in sorted(Path(folder).glob("*.worker.hist")):
            self._worker(path)
        for path in sorted(Path(folder).glob("*.member.hist")):
            self._member(path)
        return self

    @staticmethod
    def _lines(path):
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                if line.endswith("\n"):  # The last of a killed process may be cut.
                    yield line.split()

    def _producer(self, path):
        name = path.name.removesuffix(".producer.hist")
        for words in self._lines(path):
            if words[0] == "s":
                self.sent[name, int(words[2])] = (words[3], words[4], int(words[5]), words[6])
            elif words[0] == "+":
                topic = self.sent[name, int(words[2])][0]
                self.acks[name, int(words[2])] = Place(topic, int(words[3]), int(words[4]))

    def subscription(self, topic, name):
        return self.subscriptions.setdefault((topic, name), Subscription(topic, name))

    def _worker(self, path):
        name, sub, began = path.name.removesuffix(".worker.hist"), None, {}
        for words in self._lines(path):
            kind, time = words[0], int(words[1])
            if kind == "o":
                sub = self.subscription(words[2], words[3])
            elif kind == "h":
                self._handed(sub, name, time, words[2:])
            elif kind == "b":
                began[words[2], words[3], words[4]] = time
                if words[5] in ("ack", "reject"):
                    sub.begun[self._place(sub, words)].add(int(words[4]))
            elif kind == "d" and words[6] == "OK":
                sub.settled[self._place(sub, words)][int(words[4])] = \
                    Settled(name, began[words[2], words[3], words[4]], time, words[5])
                sub.begun[self._place(sub, words)].discard(int(words[4]))
            elif kind == "d":
                if words[6] == "LEASE_EXPIRED":
                    sub.begun[self._place(sub, words)].discard(int(words[4]))
                self.errors[words[6]] += 1
            else:
                self.errors[words[-1]] += 1

    @staticmethod
    def _place(sub, words):
        return Place(sub.topic, int(words[2]), int(words[3]))

    def _handed(self, sub, worker, time, words):
        partition, offset, number, failed, producer, seq, key, keyseq, total, good = words
        place, number = Place(sub.topic, int(partition), int(offset)), int(number)
        sent = self.sent.get((producer, int(seq)))
        if good != "1" or sent is None or sent != (sub.topic, key, int(keyseq), total):
            self.add("unexpected", f"{sub.name} {place}: {producer} {seq}, sent as {sent}")
        before = sub.handed[place].get(number)
        if before is not None:
            self.add("counters", f"{sub.name} {place}: hand-out {number} at {before.worker} and {worker}")
        if int(failed) >= number:
            self.add("counters", f"{sub.name} {place}: hand-out {number} after {failed} failures")
        sub.handed[place][number] = HandOut(worker, time, int(failed), (producer, key), int(keyseq))

    def _member(self, path):
        name, group, began = path.name.removesuffix(".member.hist"), None, {}
        for words in self._lines(path):
            kind, time = words[0], int(words[1])
            if kind == "o":
                group = self.groups[words[2], words[3]]
            elif kind == "g":
                group.given[int(words[2])].append((time, name))
            elif kind == "x":
                group.taken[int(words[2])].append((time, name))
            elif kind == "b":
                began[words[2], words[3]] = time
            elif kind == "c":
                group.commits[int(words[2])].append((began[words[2], words[3]], time, int(words[3]),
                                                     name))
            elif kind == "r":
                group.reads[int(words[2])].append((time, int(words[3]), name))
            else:
                self.errors[words[-1]] += 1

    def load_dead(self, path):
        """Lines of {"topic", "subscription", "partition", "offset", "failed", …}."""
        if not Path(path).exists():
            return self
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                dead = json.loads(line)
                sub = self.subscription(dead["topic"], dead["subscription"])
                sub.dead[Place(dead["topic"], dead["partition"], dead["offset"])] = dead
        return self

    # ---- Judging

    def check(self):
        for sub in self.subscriptions.values():
            self._check_ends(sub)
            self._check_counters(sub)
            if sub.name.startswith("keyed"):
                self._check_keys(sub)
        for (topic, name), group in self.groups.items():
            self._check_group(f"{topic} {name}", group)
        return self

    def _check_ends(self, sub):
        acked = {place: min(n for n, s in settled.items() if s.kind == "ack")
                 for place, settled in sub.settled.items()
                 if any(s.kind == "ack" for s in settled.values())}
        for place, number in acked.items():
            later = [n for n in sub.handed[place] if n > number]
            if later:
                self.add("redelivered", f"{sub.name} {place}: acked as hand-out {number}, then {later}")
            others = [n for n, s in sub.settled[place].items() if n > number or
                      (n != number and s.kind in ("ack", "reject"))]
            if others or place in sub.dead:
                self.add("both", f"{sub.name} {place}: {sub.settled[place]}, dead: {place in sub.dead}")
        for which, place in self.acks.items():
            done = place in acked or place in sub.dead or sub.begun[place]
            if place.topic == sub.topic and not done:
                self.add("lost", f"{sub.name} {which} at {place}: handed out "
                                 f"{sorted(sub.handed[place])}, settled {sub.settled[place]}")

    def _check_counters(self, sub):
        """From one hand-out to the next the failures rise by one or by none: by one unless it was
        released, or the one in between was not seen by anybody."""
        for place, handed in sub.handed.items():
            for number, hand_out in handed.items():
                after = handed.get(number + 1)
                settled = sub.settled[place].get(number)
                if after is None:
                    continue
                risen = after.failed - hand_out.failed
                released = settled is not None and settled.kind == "release"
                nacked = settled is not None and settled.kind == "nack"
                if risen not in (0, 1) or (released and risen) or (nacked and not risen):
                    self.add("counters", f"{sub.name} {place}: {hand_out}, {settled}, then {after}")

    def _check_keys(self, sub):
        """The next message of a key is handed out only once the one before was on its way to be
        settled for good."""
        by_key = collections.defaultdict(dict)
        for place, handed in sub.handed.items():
            first = min(handed.values(), key=lambda h: h.time)
            by_key[place.partition, first.key][first.keyseq] = (place, first)
        for messages in by_key.values():
            order = sorted(messages)
            for one, two in zip(order, order[1:]):
                place, _ = messages[one]
                ends = [s for s in sub.settled[place].values() if s.kind in ("ack", "reject")]
                if ends and messages[two][1].time < min(s.began for s in ends):
                    self.add("order", f"{sub.name} {place}: {messages[two]} came before {ends}")

    def _check_group(self, what, group):
        for partition, commits in group.commits.items():
            for began, _, offset, member in commits:
                # Who had it when the commit began, as far as members were told.
                given = [(time, who) for time, who in group.given[partition] if time <= began]
                if given and max(given)[1] != member:
                    self.add("zombie", f"{what} {partition}: {member} committed {offset} after "
                                       f"{max(given)} had it")
        for partition, given in group.given.items():
            given.sort()
            for at, (time, member) in enumerate(given):
                until = given[at + 1][0] if at + 1 < len(given) else float("inf")
                mine = [offset for when, offset, who in group.reads[partition]
                        if who == member and time <= when < until]
                committed = max((offset for _, when, offset, _ in group.commits[partition]
                                 if when < time), default=0)
                read = max((offset + 1 for when, offset, _ in group.reads[partition] if when < time),
                           default=0)
                if mine and mine[0] < committed:
                    self.add("backwards", f"{what} {partition}: {member} began at {mine[0]}, "
                                          f"{committed} was committed")
                if mine and mine[0] > read:
                    self.add("missed", f"{what} {partition}: {member} began at {mine[0]}, {read} is next")

    # ---- Telling

    def counts(self):
        subs = self.subscriptions.values()
        return {"sent": len(self.sent), "stored": len(self.acks),
                "handed out": sum(len(h) for s in subs for h in s.handed.values()),
                "acked": sum(s.kind == "ack" for sub in subs for settled in sub.settled.values()
                             for s in settled.values()),
                "dead": sum(len(s.dead) for s in subs),
                "given to members": sum(len(g) for group in self.groups.values()
                                        for g in group.given.values()),
                "commits": sum(len(c) for group in self.groups.values()
                               for c in group.commits.values()),
                "refused late": self.errors["LEASE_EXPIRED"], "fenced": self.errors["MEMBER_FENCED"]}

    def is_good(self):
        return not any(self.found.values())

    def report(self):
        lines = [", ".join(f"{count} {name}" for name, count in self.counts().items())]
        lines.append(", ".join(f"{len(self.found[name])} {name}" for name in CLASSES))
        for name in CLASSES:
            lines += [f"  {name}: {what}" for what in self.found[name][:EXAMPLES_MAX]]
        return "\n".join(lines)


def check(folder, dead):
    return Deliveries().load(folder).load_dead(dead).check()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: delivery_checker.py FOLDER DEAD_JSON_LINES")
    judged = check(*sys.argv[1:])
    print(judged.report())
    sys.exit(0 if judged.is_good() else 1)
