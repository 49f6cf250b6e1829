"""A cluster of real brokers, each in its own place of the sandbox's network, and what can be done to them.

Nothing here judges. Processes that are started are ended by close() or with the sandbox; no other
process is ever touched.
"""
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import sandbox

BIN = Path(os.environ.get("FERRY_BIN", Path(__file__).parents[3] / "build/normal"))
# A sanitizer takes the same calls as the preload, so disks do not fail there.
SANITIZED = b"__asan_init" in (BIN / "ferryd").read_bytes()
PATIENCE = 60 if SANITIZED else 30  # Seconds for anything that should take one.
READY = re.compile(r"^ferryd: ready: ", re.M)
OK, FAILED, USAGE, NOT_FOUND = 0, 1, 2, 3


def until(condition, what, patience=PATIENCE, pause=0.05):
    """Polls until the condition holds; its value. `what` is text, or what tells it."""
    deadline = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            what = what if isinstance(what, str) else what()
            raise AssertionError(f"not within {patience} s: {what}")
        time.sleep(pause)


def spawn(command, log, environment=None):
    """Starts a process that ends with us at the latest; what it prints goes to the end of `log`."""
    alone = None if os.environ[sandbox.INSIDE] == "net" else sandbox.dies_with_us
    with open(log, "ab") as out:
        return subprocess.Popen([str(word) for word in command], stdout=out, stderr=out,
                                stdin=subprocess.DEVNULL, preexec_fn=alone,
                                env={**os.environ, **(environment or {})})


class Node:
    """One ferryd with its folder, which can be killed, paused, wiped and started again."""

    def __init__(self, cluster, number, shards=1, options=()):
        self.cluster, self.number = cluster, number
        self.folder = sandbox.folder() / f"node-{number}"
        self.folder.mkdir(exist_ok=True)
        self.data = self.folder / "data"
        self.log = self.folder / "ferryd.log"
        self.fault_file = self.folder / "disk-fault"
        self.options = [*options, "--set", f"node.shards={shards}"]
        self.entry = ()  # --bootstrap or --join, and where.
        self.process = None
        self.paused = False
        self.log_from = 0  # Of the present process.
        cluster.network.add(number)
        self.client, self.peer = cluster.network.endpoints(number)

    def command(self):
        words = [*self.cluster.network.prefix(self.number), BIN / "ferryd", "--data", self.data,
                 "--listen", self.client, "--set", "listen.insecure=true",
                 "--set", "store.grow_bytes=4M", "--set", "store.reserve_bytes=1M", *self.options]
        if self.entry:
            words += ["--node", self.number, "--peer-listen", self.peer, *self.entry]
        return words

    def start(self, wait=True):
        self.log_from = self.log.stat().st_size if self.log.exists() else 0
        self.process = spawn(self.command(), self.log, {} if SANITIZED else {
            "LD_PRELOAD": str(BIN / "tests/system/disk_fault.so"),
            "FERRY_DISK_FAULT": str(self.fault_file)})
        self.paused = False
        if wait:
            self.wait_ready()

    def wait_ready(self, patience=PATIENCE):
        until(self.is_ready, f"node {self.number} is ready, see {self.log}", patience)

    def said(self):
        """What the present or the last process printed."""
        with open(self.log, "rb") as log:
            log.seek(self.log_from)
            return log.read().decode(errors="replace")

    def is_ready(self):
        if not self.is_alive():
            raise AssertionError(f"node {self.number} ended: {self.said()}")
        return READY.search(self.said())

    def is_alive(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        """kill -9 of one that runs."""
        assert self.is_alive(), f"node {self.number} ended by itself: {self.said()}"
        self.end()

    def end(self):
        """Whatever it does, it does it no longer."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        self.paused = False

    def stop(self, patience=PATIENCE):
        """As a service manager does; the exit status."""
        assert self.is_alive(), f"node {self.number} ended by itself: {self.said()}"
        process, self.process = self.process, None
        process.terminate()
        try:
            return process.wait(patience)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"node {self.number} does not stop when it is asked to") from error
        finally:
            process.kill()
            process.wait()

    def wait_end(self, patience=PATIENCE):
        """Its exit status, once it has ended by itself."""
        until(lambda: self.process.poll() is not None, f"node {self.number} ends by itself", patience)
        status, self.process = self.process.returncode, None
        return status

    def stop_removed(self):
        """The cluster has removed it: it ends by itself as soon as it is told, or when it is asked to."""
        self.process.terminate()
        status = self.process.wait(PATIENCE)
        self.process = None
        assert status == 0 or "NODE_REPLACED" in self.said(), f"{status}: {self.said()}"

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)
        self.paused = True

    def resume(self):
        if self.paused and self.process is not None:
            self.process.send_signal(signal.SIGCONT)
        self.paused = False

    def wipe(self):
        """Takes the folder's content away; the process must have ended."""
        assert self.process is None
        shutil.rmtree(self.data)

    def disk(self, fault):
        """From now on: stall, sync, write, full, or good. See disk_fault.c."""
        self.fault_file.write_text(fault, encoding="utf-8")


class Cluster:
    """Brokers, and the command line that speaks to them."""

    def __init__(self, count=3, shards=(), options=()):
        self.network = sandbox.Network()
        self.nodes = {}
        self.options = options
        for number in range(1, count + 1):
            self.nodes[number] = Node(self, number, shards[number - 1] if shards else 1, options)
        if count > 1:
            listed = ",".join(f"{number}={node.peer}" for number, node in self.nodes.items())
            for node in self.nodes.values():
                node.entry = ("--bootstrap", listed)

    def start(self):
        for node in self.nodes.values():
            node.start(wait=False)
        for node in self.nodes.values():
            node.wait_ready()
        return self

    def close(self):
        for node in self.nodes.values():
            node.end()

    def stop(self):
        """All are asked to stop at once, and do; what a sanitizer finds at the end is a bad status."""
        processes = {number: node.process for number, node in self.nodes.items()}
        for process in processes.values():
            process.terminate()
        for number, process in processes.items():
            status = process.wait(PATIENCE)
            assert status == 0, f"node {number} ended with {status}: {self.nodes[number].said()}"

    def add(self, number, shards=1):
        """A further node that joins by way of the others."""
        peers = [node.peer for node in self.nodes.values() if node.is_alive()]
        assert number not in self.nodes
        node = self.nodes[number] = Node(self, number, shards, self.options)
        node.entry = ("--join", peers[0])
        return node

    def alive(self):
        return [node for node in self.nodes.values() if node.is_alive() and not node.paused]

    def servers(self):
        return ",".join(node.client for node in self.nodes.values())

    # ---- The command line

    def ferry(self, *words, nodes=(), patience=PATIENCE, given=b""):
        """(exit status, standard output, standard error), from some nodes or from whoever answers."""
        where = ",".join(node.client for node in nodes or self.nodes.values())
        command = [str(word) for word in (BIN / "ferry", "--server", where, *words)]
        done = subprocess.run(command, input=given, capture_output=True, timeout=patience,
                              check=False)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def ok(self, *words, **more):
        code, out, err = self.ferry(*words, **more)
        if code != OK:
            raise AssertionError(f"ferry {' '.join(map(str, words))}: {code}: {out}{err}")
        return out

    def json(self, *words, **more):
        return json.loads(self.ok("--json", *words, **more))

    def create(self, topic, partitions, replicas):
        self.ok("topic", "create", topic, "--partitions", partitions, "--replicas", replicas)

    def partitions(self, topic):
        return self.json("topic", "info", topic)["partitions"]

    def leader_of(self, topic, partition=0, nodes=()):
        """The Node that leads, as the nodes say; None while nobody does."""
        code, out, _ = self.ferry("--json", "topic", "info", topic, nodes=nodes)
        if code != OK:
            return None
        return self.nodes.get(json.loads(out)["partitions"][partition]["leader_node"])

    # ---- What state it is in

    def status(self):
        return self.json("cluster", "status")

    def wait_whole(self, patience=PATIENCE):
        """Every node is there, every partition has its leader and replicas, and nothing moves."""
        until(lambda: not self.why_not_whole(), lambda: f"whole: {self.why_not_whole()}", patience)

    def why_not_whole(self):
        """Empty when it is."""
        dead = [number for number, node in self.nodes.items() if not node.is_alive()]
        if dead:
            return f"nodes {dead} are not there"
        code, out, err = self.ferry("--json", "cluster", "status")
        if code != OK:
            return f"cluster status: {code}: {out}{err}"
        state = json.loads(out)
        bad = [node for node in state["nodes"] if node["state"] != "up" or not node["answers"]]
        known = {node["node"] for node in state["nodes"]}
        if bad or known != set(self.nodes):
            return f"nodes {sorted(known)}, of which not well: {bad}"
        if state["healthy"] != state["partitions"] + 1 or state["moves_left"]:
            return f"{state['troubles']}, {state['moves_left']} moves left"
        return ""

    def wait_caught_up(self, patience=PATIENCE):
        """Once nobody writes: every replica has every entry."""
        def behind():
            return {node["node"]: node["lag_entries"] for node in self.status()["nodes"]
                    if node["lag_entries"] != 0}
        until(lambda: not behind(), lambda: f"replicas are behind: {behind()}", patience)

    def node_state(self, number):
        """What the cluster says of the node; None when it does not know it."""
        return next((node for node in self.json("node", "list")["nodes"]
                     if node["node"] == number), None)

    def member(self, number):
        return self.node_state(number)["member"]

    def wait_node(self, number, state="up", patience=PATIENCE):
        until(lambda: (self.node_state(number) or {}).get("state") == state,
              lambda: f"node {number} is {state}: {self.node_state(number)}", patience)

    def is_safe_to_stop(self, number):
        return self.ferry("node", "check", "safe-to-stop", number)[0] == OK

    def rebalance(self):
        """Applies what the plan says now; how many moves that is."""
        moves = len(self.json("cluster", "plan")["moves"])
        self.ok("cluster", "apply", "--no-wait")
        return moves

    def wait_moved(self, patience=PATIENCE):
        until(lambda: self.status()["moves_left"] == 0, lambda: f"moves end: {self.status()}",
              patience)

    def transfer(self, topic, partition, number):
        self.ok("partition", "transfer", topic, partition, number)

    def lead_by(self, topic, partition, which):
        """Lets the replica lead that is the n-th of those placed."""
        placed = self.json("partition", "info", topic, partition)["placed"]
        self.transfer(topic, partition, placed[which])
