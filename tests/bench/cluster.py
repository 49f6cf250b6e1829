"""A cluster of real ferryd processes on this machine, for the benches.

Each node has a folder of its own below a temporary one, and ports of its own that it keeps when it
is started again. Everything that is started here is ended here.
"""

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

PATIENCE = 120  # Seconds for a node to become ready, a topic to have its leaders, a copy to catch up.
TICKS = os.sysconf("SC_CLK_TCK")
PR_SET_PDEATHSIG = 1


def until(condition, what, patience=PATIENCE):
    """Polls until the condition holds; its value. `what` is text or a function that has it."""
    deadline = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {patience} s: {what() if callable(what) else what}")
        time.sleep(0.02)


def end_with_us():
    """For a child, before it becomes its program: it is killed when we end in any way."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def free_endpoints(count):
    """Held together, so that they differ, then let go: the ranges of the kernel's own choice."""
    held = []
    try:
        for _ in range(count):
            held.append(socket.socket())
            held[-1].bind(("127.0.0.1", 0))
        return [f"tcp://127.0.0.1:{s.getsockname()[1]}" for s in held]
    finally:
        for s in held:
            s.close()


class Node:
    def __init__(self, cluster, number, client, peer):
        self.cluster, self.number, self.client, self.peer = cluster, number, client, peer
        self.folder = os.path.join(cluster.folder, f"node-{number}")
        self.log_path = self.folder + ".log"
        self.process = None

    def command(self):
        words = [self.cluster.place.program("ferryd"), "--data", self.folder, "--listen", self.client]
        if len(self.cluster.nodes) > 1:
            voters = ",".join(f"{n.number}={n.peer}" for n in self.cluster.nodes)
            words += ["--node", str(self.number), "--peer-listen", self.peer, "--bootstrap", voters]
        return [*words, *self.cluster.options]

    def start(self):
        with open(self.log_path, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log,
                                            preexec_fn=end_with_us)

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return log.read()

    def ready(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"node {self.number} ended: {self.log()[-2000:]}")
        return "ferryd: ready:" in self.log()

    def stop(self):
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(PATIENCE)
            self.process = None

    def cpu_seconds(self):
        """Of all its threads, since it started."""
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii", errors="replace") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


class Cluster:
    """`count` nodes; one alone is started as a single broker, without any option of a cluster."""

    def __init__(self, place, count, options=()):
        self.place, self.options = place, options
        self.folder = tempfile.mkdtemp(prefix="ferry-bench-", dir=place.folder)
        ends = free_endpoints(2 * count)
        self.nodes = []
        for i in range(count):
            self.nodes.append(Node(self, i + 1, ends[2 * i], ends[2 * i + 1]))
        self.endpoint = ",".join(n.client for n in self.nodes)  # As `ferry --server` takes it.
        try:
            for node in self.nodes:
                node.start()
            for node in self.nodes:
                until(node.ready, lambda: f"node {node.number} is ready: {node.log()[-500:]}")
        except BaseException:
            self.stop()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        for node in self.nodes:
            if node.process is not None:
                node.process.terminate()  # All at once: none waits for another.
        for node in self.nodes:
            node.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def create(self, topic, partitions):
        """Retried, as a cluster that was just started may still be electing."""
        def made():
            done = subprocess.run(
                [self.place.program("ferry"), "--server", self.endpoint, "--timeout", "60s", "--quiet",
                 "topic", "create", topic, "--partitions", str(partitions),
                 "--replicas", str(len(self.nodes))],
                capture_output=True, text=True, timeout=PATIENCE, check=False)
            answers.append(done.stderr.strip())
            return done.returncode == 0

        answers = []
        until(made, lambda: f"topic {topic} is made; the last answer: {answers[-1]}")
        until(lambda: all(p["leader_node"] for p in self.partitions(topic)), f"{topic} has leaders")

    def partitions(self, topic):
        done = subprocess.run([self.place.program("ferry"), "--server", self.endpoint, "--json",
                               "topic", "info", topic],
                              capture_output=True, text=True, timeout=PATIENCE, check=False)
        if done.returncode != 0:
            return [{"leader_node": None}]
        return json.loads(done.stdout)["partitions"]

    def leader(self, topic):
        """The node that leads partition 0."""
        found = until(lambda: self.partitions(topic)[0]["leader_node"], f"{topic} has a leader")
        return self.nodes[found - 1]

    def safe_to_stop(self, node):
        """True when every partition has a quorum without this node, as the broker itself sees it."""
        if len(self.nodes) == 1:
            return node.ready()
        done = subprocess.run([self.place.program("ferry"), "--server", self.endpoint, "node", "check",
                               "safe-to-stop", str(node.number)],
                              capture_output=True, timeout=PATIENCE, check=False)
        return done.returncode == 0
