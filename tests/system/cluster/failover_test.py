"""How long writes stand still when the leader is killed: from kill -9 to the next acked write, through the
SDK, at default time-outs.

    failover_test.py [--long] [--kills N] [--seed N]      5 kills, 50 with --long

A topic of one partition, three replicas, one producer that sends all the time. For each kill two
figures: `outage`, from the kill to the first ack of a message that was sent after it, and `gap`,
between the last ack before and the first ack after. The history is judged as after every nemesis. The
median and the 99th percentile are printed; --long demands a p99 of at most 1.5 s.
"""
import argparse
import random
import sys
import time

import sandbox
from cluster import Cluster, until
from work import Clients, now_us

TOPIC = "failover"
RATE = 500
P99_MAX_MS = 1500  # Of the long form: what the issue asks for.
OUTAGE_MAX_MS = 5000  # Of every single kill, in any form.


def history(path):
    """([time of each ack], {sequence: time of sending}, [(time of ack, sequence)])"""
    sent, acks = {}, []
    for line in path.read_text(encoding="utf-8").splitlines():
        words = line.split()
        if words[0] == "s":
            sent[int(words[2])] = int(words[1])
        elif words[0] == "+":
            acks.append((int(words[1]), int(words[2])))
    return sent, acks


def measure(sent, acks, killed_us):
    """(outage, gap) in milliseconds of one kill."""
    after = next(when for when, seq in acks if when > killed_us and sent[seq] > killed_us)
    before = max((when for when, _ in acks if when <= killed_us), default=killed_us)
    # What was under way may be acked right after the kill; the gap is the longest pause around it.
    times = [before] + [when for when, _ in acks if killed_us < when <= after]
    gap = max(b - a for a, b in zip(times, times[1:]))
    return (after - killed_us) / 1000, gap / 1000


def percentile(values, share):
    """The smallest value that so large a share does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


def show(name, values):
    print(f"{name}: p50 {percentile(values, 0.5):.0f} ms, p99 {percentile(values, 0.99):.0f} ms, "
          f"least {min(values):.0f} ms, most {max(values):.0f} ms, of {len(values)} kills")


def kill_leaders(cluster, clients, kills, rng):
    """When each was killed."""
    when = []
    for _ in range(kills):
        node = until(lambda: cluster.leader_of(TOPIC), "there is a leader")
        time.sleep(rng.uniform(0.1, 0.6))
        when.append(now_us())
        node.kill()
        clients.flow(20)
        node.start()
        cluster.wait_whole()
    return when


def run(kills, seed, count):
    print(f"failover: {kills} kills of the leader, seed {seed}", flush=True)
    cluster = Cluster(count).start()
    cluster.create(TOPIC, 1, count)
    clients = Clients(cluster, seed, {TOPIC: 1}, rate=RATE, producers=1, replicas=count).start()
    try:
        clients.flow(500)
        when = kill_leaders(cluster, clients, kills, random.Random(seed))
        judged = clients.finish()
    except AssertionError:
        sandbox.keep()
        raise
    finally:
        clients.close()
        cluster.close()
    sent, acks = history(clients.folder / "p1.producer.hist")
    figures = [measure(sent, acks, killed_us) for killed_us in when]
    outages = [outage for outage, _ in figures]
    print(judged.report())
    print("outages in ms:", " ".join(f"{outage:.0f}" for outage in outages))
    show("outage", outages)
    show("gap", [gap for _, gap in figures])
    return judged, outages


def main():
    words = argparse.ArgumentParser(description=__doc__.split(":")[0])
    words.add_argument("--long", action="store_true")
    words.add_argument("--kills", type=int)
    words.add_argument("--nodes", type=int, default=3)
    words.add_argument("--seed", type=int, default=20261126)
    given = words.parse_args()
    sandbox.enter()
    judged, outages = run(given.kills or (50 if given.long else 5), given.seed, given.nodes)
    bad = not judged.is_good() or max(outages) > OUTAGE_MAX_MS
    if given.long and percentile(outages, 0.99) > P99_MAX_MS:
        print(f"the p99 is above {P99_MAX_MS} ms")
        bad = True
    if bad:
        sandbox.keep()
        print(f"FAILED with seed {given.seed}; see {sandbox.folder()}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
