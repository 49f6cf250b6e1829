"""What real brokers do under faults, judged by what their clients saw.

    nemesis_test.py NAME [--seed N] [--rounds N]     one nemesis; without a name, they are listed

Each starts a cluster and clients that produce and consume without a pause, does its harm, lets things
heal, and demands: nothing lost, unseen, unexpected, doubled, out of order or inconsistent, writes
that went on where a majority could, and a cluster that is whole again. See checker.py for the words.
"""
import argparse
import random
import shutil
import subprocess
import sys
import time

import sandbox
from cluster import SANITIZED, Cluster, until
from work import Clients

TOPICS = {"orders": 3, "audit": 2}
DEFAULT_SEED = 20261126
OUTAGE_S = 2.5  # Of a node: longer than the longest election time-out, one second.
HEAL_PATIENCE = 30  # Seconds until a cluster without faults is whole.
NEMESES = {}


class Run:
    """One cluster with its clients."""

    def __init__(self, seed, rounds, count=3, shards=(), options=(), **clients):
        self.rng = random.Random(seed)
        self.rounds = rounds
        self.cluster = Cluster(count, shards, options).start()
        for topic, partitions in TOPICS.items():
            self.cluster.create(topic, partitions, count)
        self.clients = Clients(self.cluster, seed, TOPICS, replicas=count, **clients).start()
        self.began = time.monotonic()
        self.clients.flow()

    def say(self, what):
        print(f"  {time.monotonic() - self.began:6.2f} s, {self.clients.acked()} acked: {what}",
              flush=True)

    def sleep(self, low, high):
        time.sleep(self.rng.uniform(low, high))

    def any_partition(self):
        return self.rng.choice([(topic, partition) for topic, count in TOPICS.items()
                                for partition in range(count)])

    def leader(self):
        """A node that leads some partition, one of chance."""
        topic, partition = self.any_partition()
        node = until(lambda: self.cluster.leader_of(topic, partition),
                     f"{topic}/{partition} has a leader")
        self.say(f"node {node.number} leads {topic}/{partition}")
        return node

    def leads_nothing(self, node):
        """Whether the others have taken over what the node led, as they say."""
        return all(self.cluster.leader_of(topic, partition, self.others(node)) not in (node, None)
                   for topic, count in TOPICS.items() for partition in range(count))

    def others(self, *nodes):
        return [node for node in self.cluster.nodes.values() if node not in nodes]

    def whole(self):
        started = time.monotonic()
        self.cluster.wait_whole(HEAL_PATIENCE)
        self.say(f"whole again after {time.monotonic() - started:.1f} s")

    def flow(self, count=10):
        """Writes go on, to all partitions."""
        started = time.monotonic()
        self.clients.flow(count)
        self.say(f"{count} more acked in each partition after {time.monotonic() - started:.2f} s")

    def finish(self):
        for node in self.cluster.nodes.values():
            node.disk("good")
            node.resume()
        self.cluster.network.heal_all()
        self.flow()
        self.whole()
        judged = self.clients.finish()
        self.cluster.wait_caught_up()
        self.cluster.stop()
        print(judged.report(), flush=True)
        if judged.errors:
            print(f"consumers were told: {dict(judged.errors)}")
        return judged


def nemesis(**options):
    """Registers a function of a Run; `options` are Run's, and needs_network."""
    def register(function):
        NEMESES[function.__name__] = (function, options)
        return function
    return register


# ---- Processes

@nemesis()
def kill_leader(run):
    """kill -9 of a node that leads; writes go on without it, and it catches up."""
    for _ in range(run.rounds):
        node = run.leader()
        node.kill()
        run.flow()
        run.clients.restart_subscriber()
        node.start()
        run.whole()


@nemesis()
def kill_follower(run):
    """kill -9 of a node that follows in a partition; writes to that one go on."""
    for _ in range(run.rounds):
        node = run.rng.choice(run.others(run.leader()))
        node.kill()
        run.flow()
        run.sleep(0.2, 1)
        node.start()
        run.whole()


@nemesis()
def kill_all(run):
    """kill -9 of all nodes at once, as when the power goes; what was acked is there when it is back."""
    for _ in range(run.rounds):
        for node in run.cluster.nodes.values():
            node.kill()
        run.sleep(0.2, 1)
        order = list(run.cluster.nodes.values())
        run.rng.shuffle(order)
        for node in order:
            node.start(wait=False)
        for node in order:
            node.wait_ready()
        run.flow()
        run.whole()


@nemesis()
def pause_leader(run):
    """SIGSTOP for longer than the election time-out: the node wakes up believing that it leads."""
    for _ in range(run.rounds):
        node = run.leader()
        node.pause()
        run.flow()
        run.sleep(OUTAGE_S, OUTAGE_S + 1)
        assert run.leads_nothing(node)
        node.resume()
        run.flow()
    run.whole()


@nemesis(shards=(2, 3, 1))
def kill_any_of_different_shards(run):
    """Two shards here, three there, one on the third: the partitions find each other all the same."""
    for _ in range(run.rounds):
        node = run.rng.choice(run.others())
        node.kill()
        run.flow()
        node.start()
        run.whole()


@nemesis(count=5)
def two_of_five(run):
    """Five nodes; two are killed at once, then two are cut off: the rest goes on."""
    for _ in range(run.rounds):
        some = run.rng.sample(run.others(), 2)
        for node in some:
            node.kill()
        run.flow()
        for node in some:
            node.start(wait=False)
        for node in some:
            node.wait_ready()
        run.whole()
        if run.cluster.network.can_part:
            some = [node.number for node in run.rng.sample(run.others(), 2)]
            run.cluster.network.part(some, [number for number in run.cluster.nodes
                                            if number not in some])
            run.sleep(OUTAGE_S, OUTAGE_S + 1)
            run.flow()
            run.cluster.network.heal_all()
            run.whole()


# ---- Networks

@nemesis(needs_network=True)
def part_leader(run):
    """A leader hears nobody and nobody hears it; clients still do."""
    for _ in range(run.rounds):
        node = run.leader()
        run.cluster.network.part([node.number], [other.number for other in run.others(node)])
        run.sleep(OUTAGE_S, OUTAGE_S + 1)
        run.flow()
        assert run.leads_nothing(node)
        run.cluster.network.heal_all()
        run.whole()


@nemesis(needs_network=True)
def part_one_way(run):
    """A leader that is heard and does not hear; then one that hears and is not heard; then two nodes
    that do not hear each other, where a third hears both."""
    net = run.cluster.network
    for _ in range(run.rounds):
        for way in ("deaf", "dumb", "bridge"):
            node = run.leader()
            others = run.others(node)
            if way == "deaf":
                net.deafen(node.number, *(other.number for other in others))
            elif way == "dumb":
                for other in others:
                    net.deafen(other.number, node.number)
            else:
                net.part([node.number], [run.rng.choice(others).number])
            run.say(f"node {node.number}: {way}")
            run.sleep(OUTAGE_S, OUTAGE_S + 1)
            run.flow()
            if way != "bridge":
                assert run.leads_nothing(node)
            net.heal_all()
            run.whole()


@nemesis(needs_network=True, delivery="1500ms")
def cut_from_clients(run):
    """Clients lose a leader that its peers still hear, until they have given messages up. What then comes
    late out of the buffers of TCP must not stand behind younger messages."""
    for _ in range(run.rounds):
        node = run.leader()
        run.cluster.network.cut_clients(node.number)
        run.sleep(OUTAGE_S, OUTAGE_S + 1)
        run.cluster.network.heal_all()
        run.flow()
    run.whole()


# ---- Disks

@nemesis()
def stalled_sync(run):
    """A leader's fsync hangs: it loses its leadership, and is whole again once the disk goes on."""
    for _ in range(run.rounds):
        node = run.leader()
        node.disk("stall")
        run.sleep(OUTAGE_S, OUTAGE_S + 1)
        run.flow()
        assert run.leads_nothing(node)
        node.disk("good")
        run.whole()


@nemesis()
def failed_sync(run):
    """A leader's fsync, then a write, answers EIO once: the node ends at once and says why; started again
    it reads its disk and catches up."""
    for fault in ("sync", "write"):
        node = run.leader()
        node.disk(fault)
        status = node.wait_end()
        assert status not in (0, None) and "STORE_FAILED" in node.said(), (status, node.said())
        run.flow()
        node.disk("good")
        node.start()
        run.whole()


@nemesis(size=12000, rate=500, options=("--set", "limit.turn_bytes=256K"))
def full_disk(run):
    """The disk of a node is full, of one that leads: the others lead and go on, and it catches up once
    there is room."""
    for _ in range(run.rounds):
        node = run.leader()
        node.disk("full")
        until(lambda n=node: run.leads_nothing(n), "the full node has given its leaderships away")
        run.say(f"node {node.number} is full")
        run.flow(100)
        assert node.is_alive(), node.said()
        node.disk("good")
        run.whole()


# ---- Folders

@nemesis()
def wiped_folder(run):
    """One node after the other loses its folder; each comes back by itself, as a new member, and is
    filled by its peers. At the end nobody has the disk that the first messages were acked on."""
    for node in run.rng.sample(run.others(), len(run.cluster.nodes)):
        before = run.cluster.member(node.number)
        node.kill()
        node.wipe()
        run.flow()
        node.start()
        run.whole()
        after = run.cluster.member(node.number)
        assert before != after, f"node {node.number} lost its folder and is still member {before}"


@nemesis()
def restored_folder(run):
    """A node is started on an old copy of its folder: it notices, says so and does not take part;
    emptied, it is filled again."""
    node = run.rng.choice(run.others())
    assert node.stop() == 0
    shutil.copytree(node.data, node.folder / "copy")
    node.start()
    run.whole()
    run.flow(200)
    node.kill()
    shutil.rmtree(node.data)
    shutil.move(node.folder / "copy", node.data)
    node.start(wait=False)
    status = node.wait_end()
    run.say(f"node {node.number} ended with {status}: {node.said().strip().splitlines()[-1]}")
    assert status != 0 and "OLD_FOLDER" in node.said(), node.said()
    run.flow()
    node.wipe()
    node.start()
    run.whole()


# ---- Members

@nemesis()
def join_and_leave(run):
    """A fourth node joins and takes its share; then the first is drained, removed and gone."""
    run.cluster.add(4).start()
    run.cluster.wait_node(4)
    run.say(f"node 4 has joined, {run.cluster.rebalance()} moves are planned")
    run.cluster.wait_moved()
    run.whole()
    assert run.cluster.node_state(4)["replicas"] > 0, "it has its share"
    run.cluster.ok("node", "drain", 1, "--no-wait")
    run.cluster.wait_node(1, "drained")
    run.say("node 1 is drained")
    run.cluster.ok("node", "remove", 1)
    run.cluster.nodes.pop(1).stop_removed()
    run.flow()
    run.whole()


@nemesis()
def killed_while_moving(run):
    """Nodes are killed while partitions move: the moves are resumed, and end."""
    run.cluster.add(4).start()
    run.cluster.wait_node(4)
    moves = run.cluster.rebalance()
    assert moves > 0
    run.say(f"{moves} moves")
    for _ in range(run.rounds):
        node = run.rng.choice(run.others())
        node.kill()
        run.sleep(0.2, 1)
        node.start()
        run.flow()
    run.whole()


@nemesis()
def rolling_restart(run):
    """Each node in turn is stopped and started when it is safe to, and only then."""
    for number, node in sorted(run.cluster.nodes.items()):
        until(lambda n=number: run.cluster.is_safe_to_stop(n), f"node {number} is safe to stop")
        assert node.stop() == 0
        other = run.rng.choice(run.others(node)).number
        assert not run.cluster.is_safe_to_stop(other), "with one down, no other may be stopped"
        run.flow()
        node.start()
    run.whole()


# ---- All of it

class Harm:
    """What the random nemesis does, each time to one node or to all."""

    def __init__(self, run):
        self.run = run
        net = run.cluster.network
        self.ways = [self.kill, self.kill_two, self.kill_all, self.pause, self.wipe, self.stop,
                     self.transfer]
        if not SANITIZED:
            self.ways += [self.stall, self.fail]
        if net.can_part:
            self.ways += [self.part, self.deafen, self.dumb, self.bridge, self.part_clients]

    def one(self):
        node = self.run.rng.choice(self.run.others())
        way = self.run.rng.choice(self.ways)
        self.run.say(f"{way.__name__} of node {node.number}")
        way(node, [other.number for other in self.run.others(node)])
        self.run.cluster.network.heal_all()
        if self.run.rng.random() < 0.5:
            self.run.clients.restart_subscriber()

    def wait(self):
        self.run.sleep(0.1, OUTAGE_S)

    def kill(self, node, _):
        node.kill()
        self.wait()
        node.start()

    def kill_two(self, _, others):
        """Nothing is promised until one is back."""
        for number in others:
            self.run.cluster.nodes[number].kill()
        self.wait()
        for number in others:
            self.run.cluster.nodes[number].start(wait=False)
        for number in others:
            self.run.cluster.nodes[number].wait_ready()

    def transfer(self, node, _):
        for topic, count in TOPICS.items():
            for partition in range(count):
                self.run.cluster.ferry("partition", "transfer", topic, partition, node.number)

    def kill_all(self, *_):
        for node in self.run.others():
            node.kill()
        for node in self.run.others():
            node.start(wait=False)
        for node in self.run.others():
            node.wait_ready()

    def pause(self, node, _):
        node.pause()
        self.wait()
        node.resume()

    def stall(self, node, _):
        node.disk("stall")
        self.wait()
        node.disk("good")

    def fail(self, node, _):
        node.disk(self.run.rng.choice(("sync", "write")))
        node.wait_end()
        node.disk("good")
        node.start()

    def wipe(self, node, _):
        """Losing one disk is survived when the others have everything."""
        self.run.whole()
        node.kill()
        node.wipe()
        node.start()
        self.run.whole()

    def stop(self, node, _):
        assert node.stop() == 0, node.said()
        node.start()

    def part(self, node, others):
        self.run.cluster.network.part([node.number], others)
        self.wait()

    def deafen(self, node, others):
        self.run.cluster.network.deafen(node.number, *others)
        self.wait()

    def dumb(self, node, others):
        for other in others:
            self.run.cluster.network.deafen(other, node.number)
        self.wait()

    def bridge(self, node, others):
        self.run.cluster.network.part([node.number], [self.run.rng.choice(others)])
        self.wait()

    def part_clients(self, node, _):
        self.run.cluster.network.cut_clients(node.number)
        self.wait()


@nemesis(shards=(1, 2, 1), delivery="3s")
def anything(run):
    """All of the above by chance, and messages that are given up after three seconds, so that there are
    outcomes of all three kinds."""
    harm = Harm(run)
    for _ in range(run.rounds * 3):
        harm.one()
        run.flow()


# ---- The program

def run_one(name, seed, rounds):
    function, options = NEMESES[name]
    options = dict(options)
    print(f"{name}: {function.__doc__.split(':')[0].split(';')[0]}; seed {seed}, {rounds} rounds",
          flush=True)
    sandbox_can = sandbox.Network.permitted()
    if options.pop("needs_network", False) and not sandbox_can:
        sandbox.skip("networks cannot be parted: namespaces, veth or nftables are not permitted")
    run = None
    try:
        run = Run(seed, rounds, **options)
        function(run)
        judged = run.finish()
    except (AssertionError, OSError, subprocess.SubprocessError):
        sandbox.keep()
        print(f"{name}: FAILED with seed {seed}; see {sandbox.folder()}", flush=True)
        raise
    finally:
        if run is not None:
            run.clients.close()
            run.cluster.close()
    if not judged.is_good():
        sandbox.keep()
        print(f"{name}: FAILED with seed {seed}; see {sandbox.folder()}", flush=True)
        return 1
    print(f"{name}: good, seed {seed}, {time.monotonic() - run.began:.1f} s")
    return 0


def main():
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("name", nargs="?", choices=sorted(NEMESES))
    words.add_argument("--seed", type=int, default=DEFAULT_SEED)
    words.add_argument("--rounds", type=int, default=1)
    given = words.parse_args()
    if given.name is None:
        for name, (function, _) in NEMESES.items():
            print(f"{name:30} {' '.join(function.__doc__.split())}")
        return 0
    sandbox.enter()
    return run_one(given.name, given.seed, given.rounds)


if __name__ == "__main__":
    sys.exit(main())
