"""Queues, keys and groups on real brokers under faults, judged by what workers and members saw.

    delivery_test.py NAME [--seed N] [--rounds N]     one nemesis; without a name, they are listed

Producers write all the time; workers of a queue and of a keyed subscription ack, fail, give back and
refuse by chance, and members of a group read a stream. The nemesis kills and stops them, and brokers.
Then workers that ack everything drain the queues, and the history is judged: nothing lost, nothing
handed out again after its ack was confirmed, counters exact, keys in order, no commit of a member that
had lost its partition. See delivery_checker.py for the words.
"""
import argparse
import json
import random
import signal
import subprocess
import sys
import time

import delivery_checker
import sandbox
from cluster import BIN, SANITIZED, Cluster, spawn, until

TOPIC, PARTITIONS = "orders", 3
QUEUE, KEYED, GROUP = "work", "keyed-work", "audit"
WORKLOAD = BIN / "tests/system/workload"
DEFAULT_SEED = 20261126
LEASE_MS, SESSION_MS = 2000, 3000
MAX_DELIVERIES = 6
END_PATIENCE = 150 if SANITIZED else 75
PAGE = 100
NEMESES = {}


class Run:
    """One cluster with its producers, workers and members."""

    def __init__(self, seed, rounds, rate=150):
        self.rng, self.rounds = random.Random(seed), rounds
        self.cluster = Cluster(3).start()
        self.folder = sandbox.folder() / "history"
        self.folder.mkdir()
        self.log = sandbox.folder() / "clients.log"
        self.producers, self.workers, self.members, self.count = {}, {}, {}, 0
        self.cluster.create(TOPIC, PARTITIONS, 3)
        for name, mode in ((QUEUE, "queue"), (KEYED, "keyed")):
            self.cluster.ok("subscription", "create", TOPIC, name, "--mode", mode, "--lease",
                            f"{LEASE_MS}ms", "--max-deliveries", MAX_DELIVERIES, "--backoff",
                            "50ms..500ms", "--from", "start")
        self.began = time.monotonic()
        for number in (1, 2):
            self.spawn(self.producers, "produce", f"p{number}", "producer", f"rate={rate}", "keys=12",
                       "bytes=200")
        for _ in range(3):
            self.add_worker(QUEUE)
            self.add_worker(KEYED)
        for number in (1, 2, 3):
            self.add_member(f"m{number}")
        self.progress()

    def say(self, what):
        print(f"  {time.monotonic() - self.began:6.2f} s: {what}", flush=True)

    def sleep(self, low, high):
        time.sleep(self.rng.uniform(low, high))

    # ---- Clients

    def spawn(self, group, role, name, kind, *options):
        group[name] = spawn([WORKLOAD, role, name, f"servers={self.cluster.servers()}",
                             f"history={self.folder}/{name}.{kind}.hist", f"topics={TOPIC}",
                             f"seed={self.rng.randrange(1 << 32)}", *options], self.log)

    def add_worker(self, subscription, *options):
        self.count += 1
        name = f"{subscription}-{self.count}"
        extend = self.rng.choice((0, 1))
        self.spawn(self.workers, "work", name, "worker", f"subscription={subscription}",
                   f"lease_ms={LEASE_MS}", f"no_extend={extend}", *options)
        return name

    def add_member(self, name):
        """The same name again is the same member: it gets its partitions back."""
        self.spawn(self.members, "join", name, "member", f"subscription={GROUP}",
                   f"session_ms={SESSION_MS}")

    @staticmethod
    def end(process):
        process.kill()
        process.wait()

    def replace_worker(self):
        name = self.rng.choice(sorted(self.workers))
        self.end(self.workers.pop(name))
        self.add_worker(name.rpartition("-")[0])
        self.say(f"kill -9 of {name}")

    def replace_member(self):
        name = self.rng.choice(sorted(self.members))
        self.end(self.members[name])
        self.say(f"kill -9 of {name}")
        if self.rng.random() < 0.5:
            time.sleep(SESSION_MS / 1000 + 1)  # Its partitions go to others first.
        self.add_member(name)

    def put_to_sleep(self):
        """SIGSTOP of a worker past its lease, and of a member past its session: zombies, woken."""
        asleep = [self.rng.choice(sorted(self.workers)), self.rng.choice(sorted(self.members))]
        everybody = {**self.workers, **self.members}
        for name in asleep:
            everybody[name].send_signal(signal.SIGSTOP)
        self.say(f"asleep: {', '.join(asleep)}")
        self.sleep(SESSION_MS / 1000 + 1, SESSION_MS / 1000 + 3)
        for name in asleep:
            everybody[name].send_signal(signal.SIGCONT)

    # ---- Watching

    def info(self, subscription):
        return self.cluster.json("subscription", "info", TOPIC, subscription)

    def total(self, subscription, field):
        return sum(part[field] or 0 for part in self.info(subscription)["partitions"])

    def progress(self):
        """Everybody gets on: more messages are acked in both subscriptions and committed in the group."""
        before = [self.total(QUEUE, "acked"), self.total(KEYED, "acked"),
                  self.total(GROUP, "position")]

        def now():
            return [self.total(QUEUE, "acked"), self.total(KEYED, "acked"),
                    self.total(GROUP, "position")]

        def moved():
            try:
                return all(n >= b + 30 for n, b in zip(now(), before))
            except AssertionError:
                return False  # No answer yet.
        until(moved, lambda: f"all get on from {before}", 60)

    # ---- The end

    def finish(self):
        for process in [*self.workers.values(), *self.members.values()]:
            process.send_signal(signal.SIGCONT)
        self.stop(self.producers, "producers")
        stuck = self.stop(self.workers, "workers")
        # Those that take all there is left.
        self.workers.clear()
        for subscription in (QUEUE, KEYED):
            for _ in range(2):
                self.add_worker(subscription, "faithful=1")
        stuck += self.drain()
        stuck += self.stop(self.workers, "the last workers") + self.stop(self.members, "members")
        dead = self.dead_letters()
        self.check_conservation()
        judged = delivery_checker.check(self.folder, dead)
        judged.found["stuck"] += stuck
        self.cluster.wait_whole()
        self.cluster.stop()
        print(judged.report(), flush=True)
        return judged

    def drain(self):
        def left():
            return {name: [self.total(name, field) for field in ("ready", "leased", "waiting")]
                    for name in (QUEUE, KEYED)}

        try:
            until(lambda: not any(map(sum, left().values())), lambda: f"drained: {left()}",
                  END_PATIENCE)
            until(lambda: self.info(GROUP)["lag_messages"] == 0, "the group has read everything",
                  END_PATIENCE)
        except AssertionError as error:
            return [str(error)]
        return []

    def stop(self, group, what):
        for process in group.values():
            process.send_signal(signal.SIGTERM)
        stuck, deadline = [], time.monotonic() + END_PATIENCE
        for name, process in group.items():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                stuck.append(f"{what}: {name} does not end")
                self.end(process)
        return stuck

    def dead_letters(self):
        path = self.folder / "dead.json"
        with open(path, "w", encoding="utf-8") as out:
            for subscription in (QUEUE, KEYED):
                for line in self.cluster.ok("--json", "dlq", "export", TOPIC,
                                            subscription).splitlines():
                    dead = json.loads(line)
                    out.write(json.dumps({"topic": TOPIC, "subscription": subscription,
                                          "partition": dead["partition"],
                                          "offset": int(dead["headers"]["ferry-dlq-offset"])}) + "\n")
        return path

    def check_conservation(self):
        """Everything that was stored is acked or dead, on every partition, by the broker's own books."""
        for subscription in (QUEUE, KEYED):
            for part in self.info(subscription)["partitions"]:
                done = part["acked"] + part["died"] - part["revived"] + part["expired"]
                left = part["ready"] + part["leased"] + part["waiting"]
                assert done + left == part["end_offset"], (subscription, part)

    def close(self):
        for group in (self.producers, self.workers, self.members):
            for process in group.values():
                self.end(process)
        self.cluster.close()


def nemesis(function):
    NEMESES[function.__name__] = function
    return function


@nemesis
def kill_clients(run):
    """kill -9 of workers with messages in their hands, and of members of the group."""
    for _ in range(run.rounds * 2):
        run.replace_worker()
        run.replace_member()
        run.progress()


@nemesis
def sleeping_clients(run):
    """Workers that sleep past their leases and members past their sessions wake up and go on."""
    for _ in range(run.rounds):
        run.put_to_sleep()
        run.progress()


@nemesis
def kill_brokers(run):
    """kill -9 of brokers one at a time and of all at once, while messages are in everybody's hands."""
    for n in range(run.rounds * 2):
        nodes = list(run.cluster.nodes.values())
        chosen = nodes if n % 3 == 2 else [run.rng.choice(nodes)]
        run.say(f"kill -9 of nodes {[node.number for node in chosen]}")
        for node in chosen:
            node.kill()
        run.sleep(0.2, 2)
        for node in chosen:
            node.start(wait=False)
        for node in chosen:
            node.wait_ready()
        run.progress()


@nemesis
def everything(run):
    """Clients are killed and put to sleep while brokers are killed."""
    for _ in range(run.rounds * 2):
        node = run.rng.choice(list(run.cluster.nodes.values()))
        node.kill()
        run.say(f"kill -9 of node {node.number}")
        run.rng.choice((run.replace_worker, run.replace_member, run.put_to_sleep))()
        node.start()
        run.replace_worker()
        run.progress()


def run_one(name, seed, rounds):
    print(f"{name}: {NEMESES[name].__doc__} Seed {seed}, {rounds} rounds.", flush=True)
    run = None
    try:
        run = Run(seed, rounds)
        NEMESES[name](run)
        judged = run.finish()
    except (AssertionError, OSError, subprocess.SubprocessError):
        sandbox.keep()
        print(f"{name}: FAILED with seed {seed}; see {sandbox.folder()}", flush=True)
        raise
    finally:
        if run is not None:
            run.close()
    if not judged.is_good():
        sandbox.keep()
        print(f"{name}: FAILED with seed {seed}; see {sandbox.folder()}", flush=True)
    return judged.is_good()


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", choices=sorted(NEMESES))
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    if options.name is None:
        for name, function in NEMESES.items():
            print(f"{name:20} {function.__doc__}")
        return 0
    sandbox.enter()
    return 0 if run_one(options.name, options.seed, options.rounds) else 1


if __name__ == "__main__":
    sys.exit(main())
