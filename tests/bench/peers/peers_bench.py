"""Ferry beside NATS JetStream, RabbitMQ quorum queues and beanstalkd: the same work, in turns.

One client publishes messages of 100 B and of 1 KiB for some seconds, with the same number without
an answer, then one at a time. A message counts when the broker has confirmed it. Then as a work
queue: one publishes and another consumes and acks each message. Three nodes each; beanstalkd knows no
cluster, so it is one, and only a queue, beside which Ferry is measured on one node as well. Each
broker is alone on the machine while it is measured, on an empty folder; every round starts all of them
anew. They do not promise the same: what each has on disk when it confirms stands beside its figures.

Installs nats-server, rabbitmq-server, beanstalkd, C clients and a compiler from Debian's packages when they
are missing (as root or with sudo), and starts none of the machine's services. Not part of the tests.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

import bench  # pylint: disable=wrong-import-position
import results  # pylint: disable=wrong-import-position
from bench import Place, number, spread  # pylint: disable=wrong-import-position
from cluster import Cluster  # pylint: disable=wrong-import-position
from processes import Beanstalk, Nats, Rabbit  # pylint: disable=wrong-import-position

SIZES = (100, 1024)
QUEUE, QUEUE_BYTES = "queue messages/s", 100
QUEUE_PER_SECOND = 100_000  # Ferry's queue_bench counts messages, not seconds: so many for each.
NO_SERVICES = "/usr/sbin/policy-rc.d"  # While it says so, a package starts no service.


def install(packages):
    """What is missing. A service that the package would start is kept from starting."""
    missing = [p for p in packages if subprocess.run(["dpkg-query", "-W", p], capture_output=True,
                                                     check=False).returncode != 0]
    if not missing:
        return
    print("installing", *missing, file=sys.stderr)
    root = [] if os.getuid() == 0 else ["sudo"]
    ours = not os.path.exists(NO_SERVICES)
    if ours:
        subprocess.run([*root, "sh", "-c", f"printf '#!/bin/sh\\nexit 101\\n' >{NO_SERVICES} && "
                        f"chmod +x {NO_SERVICES}"], check=True)
    try:
        subprocess.run([*root, "apt-get", "update"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run([*root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y",
                        "--no-install-recommends", *missing], check=True, stdout=subprocess.DEVNULL)
    finally:
        if ours:
            subprocess.run([*root, "rm", "-f", NO_SERVICES], check=True)


def build(folder, name, library):
    program = os.path.join(folder, name)
    subprocess.run(["cc", "-O2", "-std=c11", "-D_GNU_SOURCE", "-o", program,
                    os.path.join(HERE, name + ".c"), os.path.join(HERE, "peer.c"),
                    *(["-l" + library] if library else []), "-lpthread"], check=True)
    return program


class Peer:
    """One of the others: its processes, and its client."""

    def __init__(self, kind, program, folder):
        self.kind, self.program, self.folder = kind, program, folder
        self.name, self.durability = kind.name, kind.durability

    def version(self):
        return self.kind.version()

    def measure(self, options):
        with self.kind(self.folder) as processes:
            figures = {} if self.kind is Beanstalk else \
                series(options, lambda *words: self.once(processes, *words))
            os.sync()
            figures[QUEUE] = self.once(processes, QUEUE_BYTES, options.queue_in_flight,
                                       options.seconds, "queue")["records_per_second"]
            return figures

    def once(self, processes, size, in_flight, seconds, *more):
        """Retried while the cluster elects for the first time."""
        for left in range(20, -1, -1):
            done = subprocess.run([self.program, processes.url, str(size), str(in_flight),
                                   str(seconds), *more], capture_output=True, text=True, timeout=600,
                                  check=False)
            if done.returncode == 0:
                return json.loads(done.stdout)
            if not left or not processes.alive():
                raise RuntimeError(f"{self.name}: {done.stderr.strip()}")
            time.sleep(1)
        return None


class Ferry:
    def __init__(self, place, nodes, only_queue=False):
        self.place, self.nodes, self.durability, self.known = place, nodes, "", ""
        self.only_queue = only_queue
        self.name = "Ferry (one node)" if nodes == 1 else f"Ferry ({nodes} replicas)"

    def version(self):
        return self.known

    def measure(self, options):
        with Cluster(self.place, self.nodes) as cluster:
            cluster.create("peers", 1)
            figures = {} if self.only_queue else \
                series(options, lambda *words: self.once(cluster, *words))
            self.once(cluster, QUEUE_BYTES, 1, 1)  # What it says of itself.
            figures[QUEUE] = self.queue(cluster, options)
            return figures

    def queue(self, cluster, options):
        cluster.create("queue", 1)
        subprocess.run([self.place.program("ferry"), "--server", cluster.endpoint, "--quiet",
                        "subscription", "create", "queue", "work", "--mode", "queue", "--from",
                        "start", "--in-flight", "100000"], check=True)
        os.sync()
        done = subprocess.run([self.place.program("queue_bench"), cluster.endpoint, "queue", "work",
                               str(QUEUE_BYTES), str(options.queue_in_flight),
                               str(QUEUE_PER_SECOND * options.seconds)], capture_output=True,
                              text=True, timeout=bench.PATIENCE, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"queue_bench: {done.stderr.strip()}")
        return json.loads(done.stdout)["records_per_second"]

    def once(self, cluster, size, in_flight, seconds):
        words = ["--in-flight", in_flight] if in_flight > 1 else ["--sync"]
        result = self.place.bench(cluster, "produce", "--topic", "peers", "--size", size, "--seconds",
                                  seconds, *words)
        self.known = (result["broker"] or {}).get("version", "unknown")
        self.durability = (result["broker"] or {}).get("durability", "unknown")
        return result


def series(options, once):
    """All that is measured of one started cluster: {name: figure}."""
    figures = {}
    for size in SIZES:
        os.sync()
        figures[f"{size} records/s"] = once(size, options.in_flight,
                                            options.seconds)["records_per_second"]
        os.sync()
        figures[f"{size} p50 us"] = once(size, 1, max(1, options.seconds // 2))["latency_us"]["p50"]
    return figures


# ---- The report ---------------------------------------------------------------------------------

def row(words):
    return "| " + " | ".join(words) + " |"


def line(broker, name, rounds, ours):
    """One broker's figure, and Ferry's ratio to it: the median of the rounds'."""
    slow = name.endswith("us")
    values = [r[broker][name] for r in rounds]
    ratio = statistics.median((r[broker][name] / r[ours][name]) if slow else
                              (r[ours][name] / r[broker][name]) for r in rounds)
    size = name.split()[0] + " B"
    work = f"queue {QUEUE_BYTES} B: publish, consume, ack" if name == QUEUE else \
        f"one {size} message at a time, p50" if slow else f"publish {size}"
    shown = spread(values, lambda v: f"{number(v)} us" if slow else number(v))
    return row([work, f"{broker.name} {broker.version()}", broker.durability,
                shown if slow else shown + " messages/s",
                "" if broker is ours else f"{ratio:.1f} x"])


def table(brokers, rounds):
    """A line for each broker and figure (above 1: Ferry is quicker). What was promised stands beside
    each: an ack without an fsync is another thing than one with it. A broker is set beside Ferry with
    as many nodes."""
    lines = [row(["work", "broker", "confirmed when", "figure", "Ferry to it"]),
             "|---|---|---|---|---|"]
    for name in rounds[0][brokers[0]]:
        ours = None
        for broker in brokers:
            ours = broker if isinstance(broker, Ferry) else ours
            if name in rounds[0][broker]:
                lines.append(line(broker, name, rounds, ours))
    return "\n".join(lines)


RESULTS = """## Beside other brokers

Medians of {runs} rounds, least and greatest in brackets; a ratio is the median of the rounds'
ratios, above 1 where Ferry is quicker. One client, {in_flight} messages in flight for {seconds} s, then one at a time, then as a queue with at most
{queue_in_flight} messages not acked; clients and nodes share one machine and one disk, and each broker is alone while it is measured. Made by
`tests/bench/run.sh --peers{command}` on {date}.

{table}

{load}
"""


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    bin_folder = os.environ.get("FERRY_BIN", os.path.join(bench.SOURCE, "build"))
    parser.add_argument("--bin", default=bin_folder, help="Ferry's build folder")
    parser.add_argument("--dir", default=tempfile.gettempdir(), help="where files are made: on a disk")
    parser.add_argument("--runs", type=int, default=3, help="rounds (default 3)")
    parser.add_argument("--in-flight", type=int, default=1024, help="messages (default 1024)")
    parser.add_argument("--queue-in-flight", type=int, default=8192,
                        help="messages not acked, as a queue (default 8192)")
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement (default 5)")
    parser.add_argument("--write", action="store_true", help="write the section of RESULTS.md")
    return parser.parse_args()


def main():
    options = parse_options()
    install(("gcc", "libc6-dev", *Nats.packages, *Rabbit.packages, *Beanstalk.packages))
    load = results.load()
    with tempfile.TemporaryDirectory(prefix="ferry-peers-", dir=options.dir) as folder:
        brokers = [Ferry(Place(options), 3),
                   Peer(Nats, build(folder, "nats_peer", "nats"), folder),
                   Peer(Rabbit, build(folder, "rabbit_peer", "rabbitmq"), folder),
                   Ferry(Place(options), 1, only_queue=True),
                   Peer(Beanstalk, build(folder, "beanstalk_peer", ""), folder)]
        rounds = []
        for i in range(options.runs):
            rounds.append({})
            for broker in brokers if i % 2 == 0 else reversed(brokers):
                rounds[-1][broker] = broker.measure(options)
                print(broker.name, rounds[-1][broker], file=sys.stderr, flush=True)
    words = results.shown_command()
    text = RESULTS.format(runs=options.runs, in_flight=number(options.in_flight),
                          queue_in_flight=number(options.queue_in_flight),
                          seconds=options.seconds, command=" " + words if words else "",
                          date=time.strftime("%Y-%m-%d"), table=table(brokers, rounds),
                          load=f"The machine: {load} before, {results.load()} after.")
    print(text)
    if options.write:
        results.write("beside other brokers", text)


if __name__ == "__main__":
    main()
