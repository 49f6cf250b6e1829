"""The clients of a test: producers and consumers that run through everything, and what they saw."""
import collections
import random
import signal
import subprocess
import time

import checker
import sandbox
from cluster import BIN, spawn, until

WORKLOAD = BIN / "tests/system/workload"
END_PATIENCE = 60  # Seconds until everybody has read everything, once faults are over.


def now_us():
    return time.monotonic_ns() // 1000


class Watched:
    """A producer's history as it grows."""

    def __init__(self, path):
        self.path = path
        self.at = 0  # Read to here.
        self.rest = b""  # A line that was not whole.
        self.acks = 0
        self.since = 0
        self.topics = {}  # Of messages that have no outcome: sequence -> (time of sending, topic)
        self.fresh = collections.Counter()  # (topic, partition) -> acks of what was sent since then

    def begin(self, since_us):
        self.since = since_us
        self.fresh.clear()

    def read(self):
        if not self.path.exists():
            return
        with open(self.path, "rb") as lines:
            lines.seek(self.at)
            data = lines.read()
        self.at += len(data)
        *whole, self.rest = (self.rest + data).split(b"\n")
        for line in whole:
            kind, when, seq, *words = line.decode().split()
            if kind == "s":
                self.topics[seq] = (int(when), words[0])
                continue
            sent, topic = self.topics.pop(seq)
            if kind == "+":
                self.acks += 1
                self.fresh[topic, int(words[0])] += sent > self.since


class Clients:
    """Two producers over all topics, and of each topic a reader and a subscription. The subscriptions'
    processes can be killed at any time."""

    def __init__(self, cluster, seed, topics, rate=300, keys=20, size=300, delivery="120s",
                 producers=2, replicas=3):
        self.replicas = replicas  # Of each topic.
        self.cluster, self.seed, self.topics = cluster, seed, topics
        self.folder = sandbox.folder() / "history"
        self.folder.mkdir(exist_ok=True)
        self.log = sandbox.folder() / "clients.log"
        self.rng = random.Random(seed)
        self.options = (f"rate={rate}", f"keys={keys}", f"bytes={size}", f"delivery_ms={delivery}")
        self.producers, self.readers, self.subscribers = {}, {}, {}
        self.producer_count = producers
        self.watched = {}

    def start(self):
        for number in range(1, self.producer_count + 1):
            self.add_producer(f"p{number}")
        for topic in self.topics:
            self.readers[f"reader-{topic}"] = self._consumer(f"reader-{topic}", topic)
            self.subscribers[topic] = self._subscriber(topic)
        return self

    def add_producer(self, name, *options):
        self.producers[name] = self._start(
            "produce", name, f"history={self.folder}/{name}.producer.hist",
            f"topics={','.join(self.topics)}", f"seed={self.rng.randrange(1 << 32)}",
            *self.options, *options)

    def _start(self, role, name, *options):
        return spawn([WORKLOAD, role, name, f"servers={self.cluster.servers()}", *options], self.log)

    def _consumer(self, name, topic, *options):
        return self._start("consume", name, f"history={self.folder}/{name}.consumer.hist",
                           f"topics={topic}", *options)

    def _subscriber(self, topic):
        return self._consumer(f"sub-{topic}", topic, f"subscription=s-{topic}")

    def restart_subscriber(self):
        """kill -9 of one that holds a position; its successor goes on from the committed one."""
        topic = self.rng.choice(sorted(self.topics))
        self._end(self.subscribers[topic])
        self.subscribers[topic] = self._subscriber(topic)

    # ---- Watching

    def acked(self):
        """How many messages have been acked so far."""
        for name in self.producers:
            self.watched.setdefault(name, Watched(self.folder / f"{name}.producer.hist")).read()
        return sum(watched.acks for watched in self.watched.values())

    def flow(self, count=10, patience=30):
        """Waits until in every partition so many messages that were sent from now on are acked."""
        self.acked()
        since = now_us()
        wanted = [(topic, partition) for topic, partitions in self.topics.items()
                  for partition in range(partitions)]
        for watched in self.watched.values():
            watched.begin(since)

        def missing():
            self.acked()
            fresh = sum((watched.fresh for watched in self.watched.values()), collections.Counter())
            return [f"{topic}/{partition}" for topic, partition in wanted
                    if fresh[topic, partition] < count]
        until(lambda: not missing(), lambda: f"{count} more messages are acked in {missing()}",
              patience)

    def have_died(self):
        everybody = {**self.producers, **self.readers, **self.subscribers}
        return [name for name, process in everybody.items() if process.poll() is not None]

    # ---- The end

    def finish(self):
        """Producers send no more and tell their outcomes, and readers read to the end. Then each replica in
        turn leads, and its log is read from the start to the end; and the history is judged."""
        dead = self.have_died()
        for process in self.producers.values():
            process.send_signal(signal.SIGTERM)
        self._wait(self.producers, "producers have all outcomes")
        for group in (self.readers, self.subscribers):
            for process in group.values():
                process.send_signal(signal.SIGTERM)
        stuck = [self._wait(group, "consumers come to the end")
                 for group in (self.readers, self.subscribers)]
        stuck += [self._read_all(replica) for replica in range(self.replicas)]
        if dead or any(stuck):
            print(f"died: {dead}; stuck: {stuck}; see {self.log}", flush=True)
        judged = checker.check(self.folder)
        judged.found["stuck"] += [f"{name} ended before it was asked to" for name in dead]
        return judged

    def _read_all(self, replica):
        for topic, partitions in self.topics.items():
            for partition in range(partitions if self.replicas > 1 else 0):
                self.cluster.lead_by(topic, partition, replica)
        last = {topic: self._consumer(f"last{replica}-{topic}", topic, "stop_at_end=1")
                for topic in self.topics}
        return self._wait(last, f"replica {replica} is read to the end")

    def _wait(self, group, what):
        """Names of those that had to be killed."""
        deadline = time.monotonic() + END_PATIENCE
        stuck = []
        for name, process in group.items():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                print(f"not within {END_PATIENCE} s: {what}: {name}", flush=True)
                stuck.append(str(name))
                self._end(process)
        return stuck

    @staticmethod
    def _end(process):
        process.kill()
        process.wait()

    def close(self):
        for group in (self.producers, self.readers, self.subscribers):
            for process in group.values():
                self._end(process)
