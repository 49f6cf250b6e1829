"""A work queue from end to end: produced, handed out, acked, everything fsynced on a quorum.

One client produces and another receives and acks, on this machine, as the brokers do. A message
counts when its ack is confirmed. Each case has a cluster of its own on empty folders. What slows down
with a backlog is measured against the same work without one, in turns.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import bench
import results
from bench import Place, Table, in_turns, number, spread
from cluster import Cluster

SUBSCRIPTION = "work"
TARGETS = {1: 150_000, 3: 80_000}
LATENCY_RATE = 10_000
LATENCY_TARGET_US = 3_000
DRAIN_TARGET = 100_000
SLOWER_BY = 0.10
CASES = "speed,latency,backlog,delayed"


class Sizes:
    def __init__(self, smoke):
        self.messages = 20_000 if smoke else 1_500_000
        self.in_flight = 8_192
        self.seconds_at_rate = 1 if smoke else 10
        self.backlog = 40_000 if smoke else 10_000_000
        self.part = 10_000 if smoke else 3_000_000
        self.delayed = 10_000 if smoke else 1_000_000
        self.ahead_s = 3 if smoke else 20
        self.runs = 1 if smoke else 5


class Bench:
    def __init__(self, options):
        self.place, self.table, self.sizes = Place(options), Table(), Sizes(options.smoke)
        self.runs = options.runs or self.sizes.runs
        self.partitions = options.partitions

    def cluster(self, nodes):
        return Cluster(self.place, nodes)

    def ferry(self, cluster, *words):
        done = subprocess.run([self.place.program("ferry"), "--server", cluster.endpoint, "--timeout",
                               "60s", "--quiet", *words], capture_output=True, text=True,
                              timeout=bench.PATIENCE, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"ferry {' '.join(words)}: {done.stderr.strip()}")

    def make(self, cluster):
        cluster.create("queue", self.partitions)
        self.ferry(cluster, "subscription", "create", "queue", SUBSCRIPTION, "--mode", "queue",
                   "--from", "start", "--in-flight", "100000")
        os.sync()

    def queue(self, cluster, *words):
        done = subprocess.run([self.place.program("queue_bench"), cluster.endpoint, "queue",
                               SUBSCRIPTION, *map(str, words)], capture_output=True, text=True,
                              timeout=bench.PATIENCE, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"queue_bench {words}: {done.stderr.strip()} {done.stdout.strip()}")
        return json.loads(done.stdout)

    def produce(self, cluster, count):
        return self.place.bench(cluster, "produce", "--topic", "queue", "--size", 100, "--records",
                                count)["records_per_second"]


def shown(nodes):
    return "one node" if nodes == 1 else f"{nodes} replicas"


def speed_case(b, nodes):
    figures = []
    for _ in range(b.runs):
        with b.cluster(nodes) as cluster:
            b.make(cluster)
            figures.append(b.queue(cluster, 100, b.sizes.in_flight, b.sizes.messages)
                           ["records_per_second"])
    target = TARGETS[nodes]
    b.table.add(f"produce, hand out, ack, 100 B, {shown(nodes)}", f">= {number(target)} messages/s",
                spread(figures, number) + " messages/s", "", statistics.median(figures) >= target)


def latency_case(b, nodes):
    p50, p99 = [], []
    for _ in range(b.runs):
        with b.cluster(nodes) as cluster:
            b.make(cluster)
            found = b.queue(cluster, 100, LATENCY_RATE * b.sizes.seconds_at_rate,
                            LATENCY_RATE * b.sizes.seconds_at_rate, LATENCY_RATE)["latency_us"]
            p50.append(found["p50"])
            p99.append(found["p99"])
    show = lambda us: f"{us / 1000:,.2f} ms"
    b.table.add(f"from sending to ack-able at {number(LATENCY_RATE)}/s, {shown(nodes)}, p50",
                "<= 3 ms", spread(p50, show), f"p99 {spread(p99, show)}",
                statistics.median(p50) <= LATENCY_TARGET_US)


def backlog_once(b, nodes, backlog):
    """(produce, drain): messages a second, with so many waiting before."""
    with b.cluster(nodes) as cluster:
        b.make(cluster)
        b.produce(cluster, backlog)
        os.sync()
        produced = b.produce(cluster, b.sizes.part)
        os.sync()
        return produced, b.queue(cluster, "drain", b.sizes.part)["records_per_second"]


def backlog_case(b, nodes):
    small, large = [], []
    runs = min(b.runs, 3)  # Each fills gigabytes.
    for i in range(runs):
        without, with_it = in_turns(i, lambda: backlog_once(b, nodes, b.sizes.part),
                                    lambda: backlog_once(b, nodes, b.sizes.backlog))
        small.append(without)
        large.append(with_it)
    for at, name in enumerate(("produce", "hand out and ack")):
        ratio = statistics.median(l[at] / s[at] for l, s in zip(large, small))
        b.table.add(f"{name} behind {number(b.sizes.backlog)} messages, {shown(nodes)}",
                    ">= 90% of the speed without", spread([l[at] for l in large], number)
                    + " messages/s", f"{ratio:.0%} of {spread([s[at] for s in small], number)}",
                    ratio >= 1 - SLOWER_BY)


def delayed_case(b, nodes):
    figures = []
    for _ in range(min(b.runs, 3)):
        with b.cluster(nodes) as cluster:
            b.make(cluster)
            figures.append(b.queue(cluster, "delayed", 100, b.sizes.delayed, b.sizes.ahead_s)
                           ["records_per_second"])
    b.table.add(f"{number(b.sizes.delayed)} messages due at one time, until acked, {shown(nodes)}",
                f">= {number(DRAIN_TARGET)} messages/s", spread(figures, number) + " messages/s", "",
                statistics.median(figures) >= DRAIN_TARGET)


RESULTS = """## A work queue

Medians of {runs} rounds (backlog and delays: of 3), least and greatest in brackets. One client
produces, another receives and acks; they and the brokers share this machine and its disk. A message
counts when its ack is confirmed: message, hand-out and ack are then fsynced on a quorum. At most {in_flight}
messages are not acked at a time; {partitions} partition(s). Made by `tests/bench/run.sh --queue{command}` on {date}.

{machine}

{table}
"""


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    build = os.environ.get("FERRY_BIN", os.path.join(bench.SOURCE, "build"))
    parser.add_argument("--bin", default=build, help="the build folder (default: $FERRY_BIN, build)")
    parser.add_argument("--dir", default=tempfile.gettempdir(), help="where files are made: on a disk")
    parser.add_argument("--nodes", default="1,3", help="of which clusters (default 1,3)")
    parser.add_argument("--partitions", type=int, default=1, help="of the topic (default 1)")
    parser.add_argument("--runs", type=int, help="rounds of each case (default 5)")
    parser.add_argument("--only", default=CASES, help=f"which of {CASES}")
    parser.add_argument("--smoke", action="store_true",
                        help="a little of everything, in seconds: figures that say nothing")
    parser.add_argument("--write", action="store_true", help="write the section of RESULTS.md")
    return parser.parse_args()


def main():
    options = parse_options()
    b = Bench(options)
    cases = {"speed": speed_case, "latency": latency_case, "backlog": backlog_case,
             "delayed": delayed_case}
    date, load = time.strftime("%Y-%m-%d"), results.load()
    with b.cluster(1) as cluster:
        cluster.create("facts", 1)
        machine = bench.facts(b.place.bench(cluster, "produce", "--topic", "facts", "--records", 100))
    for name in options.only.split(","):
        for nodes in map(int, options.nodes.split(",")):
            cases[name](b, nodes)
    machine += [f"{load} before, {results.load()} after"]
    words = results.shown_command()
    text = RESULTS.format(runs=b.runs, in_flight=number(b.sizes.in_flight), partitions=b.partitions,
                          command=" " + words if words else "", date=date,
                          machine="\n".join("- " + fact for fact in machine), table=b.table.text())
    print(text)
    if options.write:
        results.write("a work queue", text)
    return 1 if not options.smoke and any(row[4] == "MISS" for row in b.table.rows) else 0


if __name__ == "__main__":
    sys.exit(main())
