"""Three brokers beside their limit: runs both on the same work, in turns, and prints ratios.

The limit (limit.c --replicas 3) is client, leader and two followers over ZeroMQ with an LMDB commit
on each and the answer at a quorum, with nothing of Ferry in between. Every round has a cluster of
its own on empty folders, as the limit has. All processes share this machine's cores and its disk,
so the figures say what the software costs and not what three machines would give.
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
from bench import Place, Table, in_turns, megabytes, number, spread
from cluster import Cluster, end_with_us, until

RATE_WHILE_KILLING = 1000  # Records a second, one client.
NOTHING_MISSING = "0 missing"


class Sizes:
    """How much work; the smoke test does a little of everything."""

    def __init__(self, smoke):
        self.work_bytes = 2_000_000 if smoke else bench.WORK_BYTES
        self.waits = 20 if smoke else bench.SEND_WAIT_RECORDS
        self.partitions = 20 if smoke else 1000
        self.idle_seconds = 1 if smoke else 20
        self.settle_seconds = 0.5 if smoke else 10
        self.kills = 2 if smoke else 50
        self.runs = 1 if smoke else 5


class Bench:
    def __init__(self, options):
        self.place, self.table = Place(options), Table()
        self.sizes, self.nodes = Sizes(options.smoke), options.nodes
        self.runs = options.runs or self.sizes.runs

    def cluster(self):
        return Cluster(self.place, self.nodes)

    def produce(self, partitions, *words):
        """One measurement on a new cluster."""
        with self.cluster() as cluster:
            cluster.create("bench", partitions)
            os.sync()
            return self.place.bench(cluster, "produce", "--topic", "bench", *words)

    def limit_speed(self):
        """Bytes a second with the better batch size, once."""
        return max(self.place.limit(batch_bytes=b, batches=max(1, self.sizes.work_bytes // b),
                                    in_flight=bench.IN_FLIGHT_BYTES // b,
                                    replicas=self.nodes)["bytes_per_second"]
                   for b in bench.LIMIT_BATCHES)


# ---- Produce ------------------------------------------------------------------------------------

def produce_case(b, name, payload, mean_bytes, goal):
    """`goal` is ("ratio", 0.6) or ("records", 7e5)."""
    limits, ours, records = [], [], []
    count = int(b.sizes.work_bytes / mean_bytes)
    for i in range(b.runs):
        limit, result = in_turns(i, b.limit_speed, lambda: b.produce(1, *payload, "--records", count))
        limits.append(limit)
        ours.append(result["bytes_per_second"])
        records.append(result["records_per_second"])
    ratio = statistics.median(our / limit for our, limit in zip(ours, limits))
    kind, least = goal
    passed = ratio >= least if kind == "ratio" else statistics.median(records) >= least
    target = f">= {least:.0%} of the limit" if kind == "ratio" else f">= {number(least)} records/s"
    b.table.add(f"produce {name}", target,
                f"{number(statistics.median(records))} records/s, {spread(ours, megabytes)}",
                f"{ratio:.0%} of {spread(limits, megabytes)}", passed)


def produce_cases(b, events, events_name):
    produce_case(b, "1 KiB", ("--size", "1024"), 1024, ("ratio", 0.6))
    produce_case(b, events_name, ("--input", events), bench.mean_payload_bytes(events),
                 ("ratio", 0.6))
    produce_case(b, "100 B", ("--size", "100"), 100, ("records", 700_000))


def wait_case(b):
    limits, ours = [], []

    def wait_for_each():
        return b.produce(1, "--sync", "--size", "1024", "--records", b.sizes.waits)["latency_us"]["p50"]

    def limit_of_each():
        return b.place.limit(batch_bytes=1024, batches=b.sizes.waits, in_flight=1,
                             replicas=b.nodes)["latency_us"]["p50"]

    for i in range(b.runs):
        limit, our = in_turns(i, limit_of_each, wait_for_each)
        limits.append(limit)
        ours.append(our)
    ratio = statistics.median(our / limit for our, limit in zip(ours, limits))
    show = lambda us: f"{us:,.0f} us"
    b.table.add("one record of 1 KiB at a time, p50", "<= 150% of the limit", spread(ours, show),
                f"{ratio:.0%} of {spread(limits, show)}", ratio <= 1.5)


# ---- Many partitions ----------------------------------------------------------------------------

def idle_shares(b, cluster):
    """Of one core, by node, over some seconds in which nobody asks for anything."""
    time.sleep(b.sizes.settle_seconds)
    before = [node.cpu_seconds() for node in cluster.nodes]
    began = time.monotonic()
    time.sleep(b.sizes.idle_seconds)
    seconds = time.monotonic() - began
    return [(node.cpu_seconds() - used) / seconds for node, used in zip(cluster.nodes, before)]


def partitions_case(b):
    many = f"{b.sizes.partitions:,} partitions"
    words = ("--size", "1024", "--records", b.sizes.work_bytes // 1024)
    idle, one, all_of_them = [], [], []

    def over_all():
        with b.cluster() as cluster:
            cluster.create("bench", b.sizes.partitions)
            if len(idle) < 2:  # Twice is enough: seconds of nothing.
                idle.append(max(idle_shares(b, cluster)))
            os.sync()
            return b.place.bench(cluster, "produce", "--topic", "bench", *words)["bytes_per_second"]

    for i in range(b.runs):
        first, second = in_turns(i, lambda: b.produce(1, *words)["bytes_per_second"], over_all)
        one.append(first)
        all_of_them.append(second)
    b.table.add(f"{many}, idle, the busiest node", "< 5% of a core",
                f"{max(idle):.1%} of a core over {b.sizes.idle_seconds} s", "", max(idle) < 0.05)
    ratio = statistics.median(a / o for a, o in zip(all_of_them, one))
    b.table.add(f"{many}, produce 1 KiB over all", ">= 50% of one partition",
                spread(all_of_them, megabytes), f"{ratio:.0%} of one's {spread(one, megabytes)}",
                ratio >= 0.5)


# ---- Failover -----------------------------------------------------------------------------------

class Writer:
    """failover_bench: writes on and on, kills when told, and compares at the end."""

    def __init__(self, place, cluster, topic):
        self.process = subprocess.Popen(
            [place.program("failover_bench"), cluster.endpoint, topic, str(RATE_WHILE_KILLING)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=end_with_us)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def ask(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"failover_bench ended at: {command}")
        return json.loads(line)


def kill_leaders(b, cluster, writer):
    """How long each kill kept writes from being acknowledged, in milliseconds."""
    outages = []
    for n in range(b.sizes.kills):
        leader = cluster.leader("failover")
        outages.append(writer.ask(f"kill {leader.process.pid}")["outage_us"] / 1000)
        leader.process.wait()
        leader.start()
        until(leader.ready, f"node {leader.number} is ready again after kill {n + 1}")
        for node in cluster.nodes:
            until(lambda: cluster.safe_to_stop(node), f"every partition is whole after kill {n + 1}")
    return outages


def failover_case(b):
    with b.cluster() as cluster:
        cluster.create("failover", 1)
        with Writer(b.place, cluster, "failover") as writer:
            time.sleep(1)
            outages = sorted(kill_leaders(b, cluster, writer))
            found = writer.ask("check")
    p99 = outages[-(-99 * len(outages) // 100) - 1]  # The nearest rank.
    b.table.add(f"SIGKILL of the leader to the next acked write, {len(outages)} kills", "p99 <= 1.5 s",
                f"p50 {statistics.median(outages):,.0f} ms, p99 {p99:,.0f} ms, "
                f"most {outages[-1]:,.0f} ms", "", p99 <= 1500)
    bad = {name: found[name] for name in ("missing", "doubled", "misplaced", "out_of_order", "alien")}
    told = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in bad.items())
    b.table.add("  what was acked is there", NOTHING_MISSING, f"{number(found['acked'])} acked: {told}; "
                f"{found['unknown']} unknown, {found['not_stored']} not stored", "",
                not any(bad.values()))


# ---- The report ---------------------------------------------------------------------------------

CASES = "produce,wait,partitions,failover"

RESULTS = """## {title}

Medians of {runs} rounds, least and greatest in brackets; the share is the median of the rounds'
shares. Ferry and the limit run in turns, each on empty folders and a disk that is idle; the client
and all brokers share one machine and one disk. The limit is `limit.c --replicas {nodes}`: the same bytes, the
same bytes in flight, the better of 64 KiB and 256 KiB batches. Made by
`tests/bench/run.sh --cluster{command}` on {date}.

{machine}

{table}
"""


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    build = os.environ.get("FERRY_BIN", os.path.join(bench.SOURCE, "build"))
    parser.add_argument("--bin", default=build, help="the build folder (default: $FERRY_BIN, build)")
    parser.add_argument("--dir", default=tempfile.gettempdir(), help="where files are made: on a disk")
    parser.add_argument("--nodes", type=int, default=3, choices=(1, 3),
                        help="1: a broker alone, beside the limit of one replica")
    parser.add_argument("--runs", type=int, help="rounds of each case (default 5)")
    parser.add_argument("--data", metavar="FILE", help="real events: one JSON object a line with "
                        "`key` and `payload`")
    parser.add_argument("--only", default=CASES, help=f"which of {CASES}")
    parser.add_argument("--smoke", action="store_true",
                        help="a little of everything, in seconds: figures that say nothing")
    parser.add_argument("--write", action="store_true", help="write the section of RESULTS.md")
    return parser.parse_args()


def measure(b, options, folder):
    events, events_name = bench.events_file(options, folder)
    kind = "real events" if events_name.startswith("real") else "made-up events"
    only = options.only.split(",")
    if "produce" in only:
        produce_cases(b, events, kind)
    if "wait" in only:
        wait_case(b)
    if "partitions" in only:
        partitions_case(b)
    if "failover" in only and b.nodes > 1:
        failover_case(b)
    return events_name


def main():
    options = parse_options()
    b = Bench(options)
    date, load = time.strftime("%Y-%m-%d"), results.load()
    with tempfile.TemporaryDirectory(prefix="ferry-bench-", dir=options.dir) as folder:
        machine = bench.facts(b.produce(1, "--records", 100))
        events = measure(b, options, folder)
    machine += [events, f"{load} before, {results.load()} after"]
    words = results.shown_command()
    text = RESULTS.format(title="Three nodes" if b.nodes > 1 else "One node, as a cluster is measured",
                          runs=b.runs, nodes=b.nodes, command=" " + words if words else "", date=date,
                          machine="\n".join("- " + fact for fact in machine), table=b.table.text())
    print(text)
    if options.write:
        results.write("three nodes", text)
    # So little work meets no target; but what was acked must be there at any size.
    counted = [row for row in b.table.rows if not options.smoke or row[1] == NOTHING_MISSING]
    return 1 if any(row[4] == "MISS" for row in counted) else 0


if __name__ == "__main__":
    sys.exit(main())
