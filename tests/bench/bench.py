"""Ferry beside its limit: runs both on the same work, in turns, and prints medians and ratios.

The limit (limit.c) is ZeroMQ and LMDB with nothing of Ferry in between. Absolute figures drift with
the disk and the neighbours; a ratio of medians taken in turns drifts much less. Every round has a
broker of its own on an empty folder, as the limit has. The folder must be on a real disk: figures
from a tmpfs say nothing about fsync.
"""

import argparse
import json
import os
import queue
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import results  # Beside this file.

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.dirname(os.path.dirname(HERE))
PATIENCE = 600

# Bytes of one measurement: enough that starting up does not show.
WORK_BYTES = 400_000_000
IN_FLIGHT_BYTES = 32 << 20  # The client's queue.bytes; the limit gets the same.
LIMIT_BATCHES = (64 << 10, 256 << 10)  # The better of the two is the limit.
SEND_WAIT_RECORDS = 3000

BENCH_PROGRAMS = ("limit", "relay_bench", "failover_bench", "queue_bench")  # Built in tests/bench.

MIB = 1 << 20


def run(*words, **more):
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, **more)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: exit code {done.returncode}: {done.stderr.strip()}")
    return done.stdout


class Broker:
    """A ferryd on a folder; a new and temporary one unless `data` is given."""

    def __init__(self, place, data=None):
        self.temporary = data is None
        self.data = data or tempfile.mkdtemp(prefix="ferry-bench-", dir=place.folder)
        began = time.monotonic()
        self.process = subprocess.Popen(
            [place.program("ferryd"), "--data", self.data, "--listen", "tcp://127.0.0.1:*"],
            stdout=subprocess.PIPE, text=True)
        lines = queue.Queue()
        threading.Thread(target=lambda: lines.put((self.process.stdout.readline(),
                                                   time.monotonic())), daemon=True).start()
        try:
            line, ready = lines.get(timeout=PATIENCE)
        except queue.Empty:
            line, ready = "", began
        self.ready_ms = (ready - began) * 1000
        found = re.search(r"tcp://[0-9.]+:[0-9]+", line)
        if found is None:
            self.stop()
            raise RuntimeError(f"ferryd did not become ready: {line!r}")
        self.endpoint = found.group(0)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self, kill=False):
        if kill:
            self.process.kill()
        else:
            self.process.terminate()
        self.process.wait(PATIENCE)
        self.process.stdout.close()
        if self.temporary:
            shutil.rmtree(self.data, ignore_errors=True)

    def resident_bytes(self):
        """Memory beside the mapped file of the store."""
        total, counted = 0, True
        with open(f"/proc/{self.process.pid}/smaps", encoding="ascii", errors="replace") as smaps:
            for line in smaps:
                if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                    counted = not line.rstrip().endswith("data.mdb")
                elif counted and line.startswith("Rss:"):
                    total += int(line.split()[1]) * 1024
        return total


class Place:
    """Where programs are found and files are made."""

    def __init__(self, options):
        self.bin, self.folder = options.bin, options.dir

    def program(self, name):
        path = os.path.join(self.bin, "tests", "bench", name) if name in BENCH_PROGRAMS \
            else os.path.join(self.bin, name)
        if not os.access(path, os.X_OK):
            sys.exit(f"bench: {path} is not there: build first, or give --bin")
        return path

    def limit(self, **options):
        words = [w for name, value in options.items()
                 for w in ("--" + name.replace("_", "-"), str(value))]
        return json.loads(run(self.program("limit"), "--dir", self.folder, *words))

    def bench(self, broker, what, *words):
        return json.loads(run(self.program("ferry"), "--server", broker.endpoint, "--json",
                              "--timeout", "60s", "bench", what, *map(str, words)))

    def ferry(self, broker, *words):
        where = ["--server", broker.endpoint] if broker else []
        return run(self.program("ferry"), *where, *map(str, words))


class Table:
    """Lines of: what, target, figure, ratio, pass or miss."""

    def __init__(self, ratio_of="of the limit"):
        self.rows, self.ratio_of = [], ratio_of

    def add(self, what, target, figure, ratio="", passed=None):
        verdict = "" if passed is None else "pass" if passed else "MISS"
        self.rows.append((what, target, figure, ratio, verdict))
        print("  ".join(part for part in self.rows[-1] if part), file=sys.stderr, flush=True)

    def text(self):
        rows = [("what", "target", "figure", self.ratio_of, ""), *self.rows]
        widths = [max(len(r[i]) for r in rows) for i in range(5)]
        lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(r, widths)) + " |" for r in rows]
        lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
        return "\n".join(lines)


def number(n):
    return f"{n:,.0f}"


def megabytes(bytes_per_second):
    return f"{bytes_per_second / 1e6:,.0f} MB/s"


def spread(values, show):
    """The median, and the least and the greatest: how far to trust it."""
    return f"{show(statistics.median(values))} ({show(min(values))} to {show(max(values))})"


# ---- Real events --------------------------------------------------------------------------------

# Deciles of the payloads of real webhook deliveries, in bytes: what the made-up ones follow.
DECILES = (900, 2900, 6200, 6800, 7500, 7900, 8600, 9800, 12300, 19700, 25200)


def made_up_events(folder):
    chance = random.Random(20260101)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz_", k=chance.randint(3, 12)))
             for _ in range(2000)]
    path = os.path.join(folder, "events.ndjson")
    with open(path, "w", encoding="ascii") as out:
        for _ in range(300):
            at = chance.randrange(len(DECILES) - 1)
            size, fields = chance.randint(DECILES[at], DECILES[at + 1]), {}
            while size > 0:
                name, value = chance.choice(words), " ".join(chance.choices(words, k=4))
                fields[name] = value
                size -= len(name) + len(value) + 6
            out.write(json.dumps({"key": chance.choice(words), "payload": fields}) + "\n")
    return path


def events_file(options, folder):
    given = options.data
    usual = os.path.join(SOURCE, "..", "shared", "data", "github-webhooks.ndjson")
    if given is None and os.path.exists(usual):
        given = usual
    if given is not None:
        return given, f"real events: {os.path.basename(given)}"
    return made_up_events(folder), "made-up events with the size distribution of real ones"


def mean_payload_bytes(path):
    sizes = []
    with open(path, "rb") as lines:
        for line in lines:
            try:
                payload = json.loads(line)["payload"]
                sizes.append(len(json.dumps(payload, separators=(",", ":"), ensure_ascii=False)
                                 .encode()))
            except (ValueError, KeyError, TypeError):
                sizes.append(len(line))
    return statistics.mean(sizes)


# ---- What is measured ---------------------------------------------------------------------------

def in_turns(round_number, first, second):
    """Both once, every other round in the other order, each on a disk that has nothing left to do."""
    results = {}
    for measure in ((first, second) if round_number % 2 == 0 else (second, first)):
        os.sync()
        results[measure] = measure()
    return results[first], results[second]


def measure_limit(place, partitions):
    """Bytes a second with the better batch size, once."""
    return max(place.limit(batch_bytes=b, batches=WORK_BYTES // b, in_flight=IN_FLIGHT_BYTES // b,
                        partitions=partitions)["bytes_per_second"] for b in LIMIT_BATCHES)


def produce_case(place, table, runs, name, payload, mean_bytes, partitions, goal):
    """`goal` is ("ratio", 0.7) or ("records", 1e6)."""
    limits, ours, records = [], [], []

    def produce():
        with Broker(place) as broker:
            return place.bench(broker, "produce", *payload, "--partitions", partitions, "--records",
                               int(WORK_BYTES / mean_bytes))

    for i in range(runs):
        limit, result = in_turns(i, lambda: measure_limit(place, partitions), produce)
        limits.append(limit)
        ours.append(result["bytes_per_second"])
        records.append(result["records_per_second"])
    ratio = statistics.median(our / limit for our, limit in zip(ours, limits))
    kind, least = goal
    passed = ratio >= least if kind == "ratio" else statistics.median(records) >= least
    target = f">= {least:.0%} of the limit" if kind == "ratio" else f">= {number(least)} records/s"
    table.add(f"produce {name}, {partitions} partition{'s' if partitions > 1 else ''}", target,
              f"{number(statistics.median(records))} records/s, {spread(ours, megabytes)}",
              f"{ratio:.0%} of {spread(limits, megabytes)}", passed)


def produce_cases(place, table, runs, events, events_name):
    sized = [("100 B", ("--size", "100"), 100, ("records", 1_000_000)),
             ("1 KiB", ("--size", "1024"), 1024, ("ratio", 0.7)),
             (events_name, ("--input", events), mean_payload_bytes(events), ("ratio", 0.7))]
    for name, payload, mean_bytes, goal in sized:
        for partitions in (1, 16):
            produce_case(place, table, runs, name, payload, mean_bytes, partitions, goal)


def consume_cases(place, table, runs):
    for partitions in (1, 16):
        speeds = []
        for _ in range(runs):
            with Broker(place) as broker:
                speeds.append(place.bench(broker, "consume", "--size", 100, "--partitions",
                                          partitions, "--records", 3_000_000)["records_per_second"])
        table.add(f"consume 100 B, {partitions} partition{'s' if partitions > 1 else ''}",
                  ">= 2,000,000 records/s", f"{spread(speeds, number)} records/s", "",
                  statistics.median(speeds) >= 2e6)


def send_wait_case(place, table, runs):
    limits, ours = [], []

    def wait_for_each():
        with Broker(place) as broker:
            return place.bench(broker, "produce", "--sync", "--size", 1024, "--records",
                               SEND_WAIT_RECORDS)["latency_us"]["p50"]

    def limit_of_each():
        return place.limit(batch_bytes=1024, batches=SEND_WAIT_RECORDS,
                           in_flight=1)["latency_us"]["p50"]

    for i in range(runs):
        limit, our = in_turns(i, limit_of_each, wait_for_each)
        limits.append(limit)
        ours.append(our)
    ratio = statistics.median(our / limit for our, limit in zip(ours, limits))
    show = lambda us: f"{us:,.0f} us"
    table.add("one record of 1 KiB at a time, p50", "<= 150% of the limit", spread(ours, show),
              f"{ratio:.0%} of {spread(limits, show)}", ratio <= 1.5)


def memory_case(place, table):
    most, stop = [0], threading.Event()

    def watch(broker):
        while not stop.wait(0.05):
            most[0] = max(most[0], broker.resident_bytes())

    with Broker(place) as broker:
        watcher = threading.Thread(target=watch, args=(broker,))
        watcher.start()
        try:
            for size in (100, 1024):
                place.bench(broker, "produce", "--size", size, "--partitions", 16, "--records",
                            WORK_BYTES // size)
                place.bench(broker, "consume", "--size", size, "--partitions", 16, "--records",
                            WORK_BYTES // size // 2)
        finally:
            stop.set()
            watcher.join()
    table.add("memory of ferryd beside the mapped file, most under load", "<= 40 MiB",
              f"{most[0] / MIB:.1f} MiB", "", most[0] <= 40 * MIB)


def start_cases(place, table, runs, gigabytes):
    times = []
    for _ in range(runs):
        with Broker(place) as broker:
            times.append(broker.ready_ms)
    show = lambda ms: f"{ms:,.0f} ms"
    table.add("start to ready, empty folder", "<= 100 ms", spread(times, show), "",
              statistics.median(times) <= 100)
    if not gigabytes:
        return
    data = tempfile.mkdtemp(prefix="ferry-big-", dir=place.folder)
    try:
        broker = Broker(place, data)
        place.ferry(broker, "topic", "create", "big", "--partitions", "4", "--quiet")
        place.bench(broker, "produce", "--topic", "big", "--size", 1024, "--records",
                    int(gigabytes * 1e9 / 1024))
        broker.stop(kill=True)
        times = []
        for i in range(runs):
            broker = Broker(place, data)
            times.append(broker.ready_ms)
            broker.stop(kill=i % 2 == 0)  # After a kill, and after a clean end.
        table.add(f"start to ready, {gigabytes:g} GB of log", "<= 1 s", spread(times, show), "",
                  statistics.median(times) <= 1000)
    finally:
        shutil.rmtree(data, ignore_errors=True)


# ---- The report ---------------------------------------------------------------------------------

def parse_options():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    build = os.environ.get("FERRY_BIN", os.path.join(SOURCE, "build"))
    parser.add_argument("--bin", default=build, help="the build folder (default: $FERRY_BIN, build)")
    parser.add_argument("--dir", default=tempfile.gettempdir(), help="where files are made: on a disk")
    parser.add_argument("--runs", type=int, default=5, help="rounds of each case (default 5)")
    parser.add_argument("--data", metavar="FILE", help="real events: one JSON object a line with "
                        "`key` and `payload`")
    parser.add_argument("--big", type=float, default=0, metavar="GB",
                        help="also measure the start with so much log")
    parser.add_argument("--only", default="produce,consume,wait,memory,start,relay",
                        help="which cases, parted by commas (default: all)")
    parser.add_argument("--write", action="store_true", help="write the section of RESULTS.md")
    return parser.parse_args()


def measure(place, options, table, folder):
    events, events_name = events_file(options, folder)
    only = options.only.split(",")
    kind = "real events" if events_name.startswith("real") else "made-up events"
    if "produce" in only:
        produce_cases(place, table, options.runs, events, kind)
    if "consume" in only:
        consume_cases(place, table, options.runs)
    if "wait" in only:
        send_wait_case(place, table, options.runs)
    if "memory" in only:
        memory_case(place, table)
    if "start" in only:
        start_cases(place, table, options.runs, options.big)
    if "relay" in only:
        import relay  # Beside this file.
        relay.cases(place, table, options.runs, Broker, folder)
    return events_name


def facts(result):
    """On what was measured: from the JSON of any `ferry bench`."""
    machine, status = result["machine"], result["broker"] or {}
    return [f"{machine['cpu']}, {machine['cores']} cores, {machine['kernel']}",
            f"file system {status.get('file_system')}, {status.get('lmdb')}, "
            f"ZeroMQ {status.get('zeromq')}",
            f"ferry {machine['client_version']}, ferryd {status.get('version')}, "
            f"compiler {machine['compiler']}",
            f"durability: {status.get('durability')}"]


def describe(place):
    with Broker(place) as broker:
        return "\n".join("- " + fact for fact in
                         facts(place.bench(broker, "produce", "--records", 100)))


RESULTS = """## One node

Medians of {runs} rounds, least and greatest in brackets; the share is the median of the rounds'
shares. Ferry and the limit run in turns, each on an empty folder and a disk that is idle; client and
broker on the same machine. The limit is `limit.c`: ZeroMQ and LMDB with
nothing of Ferry in between, the same bytes, the same bytes in flight, the better of 64 KiB and
256 KiB batches. Made by `tests/bench/run.sh {command}` on {date}.

{machine}
- {events}

{table}
"""


def main():
    options = parse_options()
    place, table = Place(options), Table()
    began = time.strftime("%Y-%m-%d")
    with tempfile.TemporaryDirectory(prefix="ferry-bench-", dir=options.dir) as folder:
        machine = describe(place)
        events = measure(place, options, table, folder)
    command = results.shown_command()
    text = RESULTS.format(runs=options.runs, command=command, date=began, machine=machine,
                          events=events, table=table.text())
    print(text)
    if options.write:
        results.write("one node", text)
    return 1 if any(row[4] == "MISS" for row in table.rows) else 0


if __name__ == "__main__":
    sys.exit(main())
