"""Judges a history of the workload: what clients were told against what clients were given.

Knows nothing but the lines that workload.h describes: no broker is asked and no file of a broker is
read. The classes of what can be wrong are Jepsen's, of total-queue and of kafka:

    lost          acked, and nobody who read the whole log was given it
    unseen        acked, and somebody who read the whole log was not given it
    unexpected    given and never sent, or changed on the way, or in another topic
    duplicated    given at two offsets
    aborted       given, though its producer was told that it never would be stored
    inconsistent  one offset with two contents, or another offset than the ack said
    disorder      a log order that is not the order of sending: of one producer, of one key, or of
                  a message that was acked before another was sent
    gap           an offset that nobody was given, below one that somebody was
    skip          one reader's next record is not the next offset
    position      a subscription that went back behind an acked commit, or ahead of what was read
    denied        a client was told that there is no such topic
    stuck         a reader that did not come to the end

    checker.py FOLDER     prints the counts and what is wrong; exit status 1 when anything is
"""
import bisect
import collections
import sys
from pathlib import Path

CLASSES = ("lost", "unseen", "unexpected", "duplicated", "aborted", "inconsistent", "disorder", "gap",
           "skip", "position", "denied", "stuck")
EXAMPLES_MAX = 5  # Of each class, when a report is printed.

Sent = collections.namedtuple("Sent", "time topic key keyseq sum")
Ack = collections.namedtuple("Ack", "time partition offset duplicate")
Content = collections.namedtuple("Content", "producer seq key keyseq sum")


class Reader:
    """What one consumer process, or several in turn of one name, were given."""

    def __init__(self, name):
        self.name = name
        self.topic = None
        self.subscription = None
        self.complete = False  # Came to the end, the last time it was opened.
        self.seen = collections.defaultdict(dict)  # partition -> offset -> Content
        self.committed = {}  # partition -> highest acked position
        self.next = {}  # partition -> the offset that follows, in this session
        self.fresh = set()  # Partitions read in this session.


class History:
    """Everything that happened, by client."""

    def __init__(self):
        self.sent = {}  # (producer, seq) -> Sent
        self.acks = {}  # (producer, seq) -> Ack
        self.failed = {}  # (producer, seq) -> error
        self.unknown = {}  # (producer, seq) -> error
        self.readers = {}
        self.errors = collections.Counter()  # What consumers were answered.
        self.found = {name: [] for name in CLASSES}

    def add(self, kind, what):
        self.found[kind].append(what)

    # ---- Reading the files

    def load(self, folder):
        for path in sorted(Path(folder).glob("*.producer.hist")):
            with open(path, encoding="utf-8") as lines:
                self._producer(path.name.split(".")[0], lines)
        for path in sorted(Path(folder).glob("*.consumer.hist")):
            name = path.name.split(".")[0]
            with open(path, encoding="utf-8", errors="replace") as lines:
                self._consumer(self.readers.setdefault(name, Reader(name)), lines)
        return self

    def _producer(self, name, lines):
        for line in lines:
            words = line.split()
            if words[0] == "s":
                self.sent[name, int(words[2])] = Sent(int(words[1]), words[3], words[4],
                                                      int(words[5]), words[6])
            elif words[0] == "+":
                self.acks[name, int(words[2])] = Ack(int(words[1]), int(words[3]), int(words[4]),
                                                     words[5] == "1")
            elif words[0] == "-":
                self.failed[name, int(words[2])] = words[3]
            else:
                self.unknown[name, int(words[2])] = words[3]

    def _consumer(self, reader, lines):
        for line in lines:
            words = line.split()
            if words[0] == "r":
                content = Content(words[4], int(words[5]), words[6], int(words[7]), words[8])
                self._given(reader, int(words[2]), int(words[3]), content, words[9] == "1")
            elif words[0] == "c":
                partition, offset = int(words[2]), int(words[3])
                reader.committed[partition] = max(offset, reader.committed.get(partition, 0))
            elif words[0] == "o":
                self._opened(reader, words[2], None if words[3] == "-" else words[3])
            elif words[0] == "z":
                reader.complete = True
            else:
                self.errors[words[2]] += 1
                if words[2] == "UNKNOWN_TOPIC":
                    self.add("denied", f"{reader.name} at {words[1]}")

    @staticmethod
    def _opened(reader, topic, subscription):
        reader.topic, reader.subscription = topic, subscription
        reader.complete = False
        reader.fresh = set()
        if subscription is None:
            reader.next = {}

    def _given(self, reader, partition, offset, content, good):
        where = f"{reader.name} {reader.topic}/{partition}@{offset}"
        self._order_of(reader, partition, offset, where)
        before = reader.seen[partition].setdefault(offset, content)
        if before != content:
            self.add("inconsistent", f"{where}: {before}, then {content}")
        sent = self.sent.get((content.producer, content.seq))
        if not good or sent is None:
            self.add("unexpected", f"{where}: {content}, {'never sent' if good else 'a bad sum'}")
        elif (sent.topic, sent.key, sent.keyseq, sent.sum) != (reader.topic, content.key,
                                                              content.keyseq, content.sum):
            self.add("unexpected", f"{where}: {content} was sent as {sent}")

    def _order_of(self, reader, partition, offset, where):
        """The offset must follow the one before; the first of a session says where it began."""
        first = partition not in reader.fresh
        expected = reader.next.get(partition, 0)
        committed = reader.committed.get(partition, 0) if reader.subscription else 0
        reader.fresh.add(partition)
        reader.next[partition] = offset + 1
        if first:
            if offset < committed:
                self.add("position", f"{where}: begins behind the acked commit of {committed}")
            if offset > expected:
                self.add("position", f"{where}: begins ahead of {expected}, the next not yet given")
        elif offset != expected:
            self.add("skip", f"{where}: the next would be {expected}")

    # ---- Judging

    def check(self):
        log = self._log()
        places = self._places(log)
        self._check_acks(log)
        self._check_failures(places)
        self._check_readers(log)
        self._check_gaps(log)
        self._check_order(log)
        self._check_real_time(places)
        return self

    def _log(self):
        """(topic, partition) -> offset -> Content: what readers agree on."""
        log = collections.defaultdict(dict)
        for reader in self.readers.values():
            for partition, seen in reader.seen.items():
                merged = log[reader.topic, partition]
                for offset, content in seen.items():
                    before = merged.setdefault(offset, content)
                    if before != content:
                        self.add("inconsistent",
                                 f"{reader.topic}/{partition}@{offset}: {before} for one reader, "
                                 f"{content} for {reader.name}")
        return log

    def _places(self, log):
        """(producer, seq) -> (topic, partition, offset); says which have two."""
        places = {}
        for (topic, partition), seen in log.items():
            for offset, content in seen.items():
                place = (topic, partition, offset)
                before = places.setdefault((content.producer, content.seq), place)
                if before != place:
                    self.add("duplicated", f"{content} at {before} and at {place}")
        return places

    def _check_acks(self, log):
        holders = {}
        for (producer, seq), ack in self.acks.items():
            topic = self.sent[producer, seq].topic
            place = (topic, ack.partition, ack.offset)
            holder = holders.setdefault(place, (producer, seq))
            if holder != (producer, seq):
                self.add("inconsistent", f"{place} was acked to {holder} and to {(producer, seq)}")
            there = log[topic, ack.partition].get(ack.offset)
            if there is None:
                continue  # Lost or unseen: told of each reader below.
            if (there.producer, there.seq) != (producer, seq):
                self.add("inconsistent", f"{place} was acked to {(producer, seq)} and holds {there}")

    def _check_failures(self, places):
        for which, error in self.failed.items():
            if error == "UNKNOWN_TOPIC":
                self.add("denied", f"{which} was answered so")
            if which in places:
                self.add("aborted", f"{which} was answered {error} and is at {places[which]}")

    def _check_readers(self, log):
        """Everybody who came to the end must have been given everything that was acked. Nothing is
        "unseen" by all: that is lost."""
        by_topic = collections.defaultdict(list)
        for reader in self.readers.values():
            if not reader.complete:
                self.add("stuck", f"{reader.name} of {reader.topic} did not come to the end")
            else:
                by_topic[reader.topic].append(reader)
        for topic in {self.sent[which].topic for which in self.acks} - set(by_topic):
            self.add("stuck", f"nobody read {topic} to the end")
        for (producer, seq), ack in self.acks.items():
            topic = self.sent[producer, seq].topic
            what = f"{(producer, seq)} acked at {topic}/{ack.partition}@{ack.offset}"
            if by_topic[topic] and ack.offset not in log[topic, ack.partition]:
                self.add("lost", what)
                continue
            for reader in by_topic[topic]:
                if ack.offset not in reader.seen[ack.partition]:
                    self.add("unseen", f"{what} by {reader.name}")

    def _check_gaps(self, log):
        for (topic, partition), seen in log.items():
            missing = (max(seen) + 1 - len(seen)) if seen else 0
            if missing:
                first = next(i for i in range(max(seen)) if i not in seen)
                self.add("gap", f"{topic}/{partition}: {missing} offsets, the first is {first}")

    def _check_order(self, log):
        """In one partition, the order of one producer and of one key is the order of sending."""
        homes = {}
        for (topic, partition), seen in log.items():
            last, key_last = {}, {}
            for offset in sorted(seen):
                c = seen[offset]
                if last.get(c.producer, -1) > c.seq:
                    self.add("disorder", f"{topic}/{partition}@{offset}: {c} follows sequence "
                                         f"{last[c.producer]}")
                if key_last.get((c.producer, c.key), -1) > c.keyseq:
                    self.add("disorder", f"{topic}/{partition}@{offset}: {c} follows number "
                                         f"{key_last[c.producer, c.key]} of its key")
                last[c.producer] = max(c.seq, last.get(c.producer, -1))
                key_last[c.producer, c.key] = max(c.keyseq, key_last.get((c.producer, c.key), -1))
                if homes.setdefault((topic, c.key), partition) != partition:
                    self.add("disorder", f"{topic}: key {c.key} is in {partition} and in "
                                         f"{homes[topic, c.key]}")

    def _check_real_time(self, places):
        """What was acked before another was sent is before it in the log."""
        acked = collections.defaultdict(list)
        for (producer, seq), ack in self.acks.items():
            acked[self.sent[producer, seq].topic, ack.partition].append((ack.time, ack.offset))
        highest = {}
        for where, pairs in acked.items():
            pairs.sort()
            top, tops = -1, []
            for _, offset in pairs:
                top = max(top, offset)
                tops.append(top)
            highest[where] = ([time for time, _ in pairs], tops)
        for which, (topic, partition, offset) in places.items():
            sent = self.sent.get(which)
            if sent is None or (topic, partition) not in highest:
                continue
            times, tops = highest[topic, partition]
            before = bisect.bisect_left(times, sent.time)
            if before and tops[before - 1] >= offset:
                self.add("disorder", f"{which} at {topic}/{partition}@{offset} was sent after "
                                     f"{tops[before - 1]} was acked")

    # ---- Telling

    def counts(self):
        given = sum(len(seen) for reader in self.readers.values() for seen in reader.seen.values())
        return {"sent": len(self.sent), "acked": len(self.acks), "not stored": len(self.failed),
                "unknown": len(self.unknown), "given": given,
                "repeats dropped": sum(ack.duplicate for ack in self.acks.values())}

    def is_good(self):
        return not any(self.found.values())

    def report(self):
        lines = [", ".join(f"{count} {name}" for name, count in self.counts().items())]
        lines.append(", ".join(f"{len(self.found[name])} {name}" for name in CLASSES))
        for name in CLASSES:
            lines += [f"  {name}: {what}" for what in self.found[name][:EXAMPLES_MAX]]
        return "\n".join(lines)


def check(folder):
    return History().load(folder).check()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: checker.py FOLDER")
    judged = check(sys.argv[1])
    print(judged.report())
    sys.exit(0 if judged.is_good() else 1)
