"""Where brokers of a test live: a folder, and a network of their own when root allows one.

enter() starts the calling program again as the first process of new process, mount and network
namespaces. All that is made in there (brokers, clients, network interfaces, rules, mounts) goes with
its last process, however the test ends, and nothing in there can meet another run. Where that is not
permitted, brokers listen on loopback, networks cannot be parted, and Network.can_part says so.

The folder goes with a process that waits for the test's end outside of the namespaces, and stays when
the test has called keep().
"""
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SKIPPED = 77  # What ctest takes for "not tested here".
INSIDE = "FERRY_SANDBOX"  # "net" or "loopback", once inside.
FOLDER = "FERRY_SANDBOX_FOLDER"
LIFE = "FERRY_SANDBOX_LIFE"  # A descriptor that is closed when the test has ended.
KEEP = "keep"  # A file in the folder: do not remove it.
SUBNET = "10.213.0"
HOST = f"{SUBNET}.254"
PORTS = 16  # Of a node on loopback: eight shards for clients, eight for peers.
PR_SET_PDEATHSIG = 1
UNSHARE = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


def _works(*command):
    return shutil.which(command[0]) and subprocess.run(command, capture_output=True,
                                                       check=False).returncode == 0


def _can_have_namespaces():
    return os.geteuid() == 0 and all(shutil.which(tool) for tool in ("ip", "nft", "nsenter")) and \
        _works(*UNSHARE, "sh", "-c", "ip link add br0 type bridge && ip link add v1 type veth peer name v2"
                                     " && nft add table inet t && mount -t tmpfs tmpfs /run")


def _leave_a_sweeper(folder):
    """Forks what removes the folder once everybody who has the pipe's other end is gone; that end."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.close(writing)
            nothing = os.open(os.devnull, os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(nothing, fd)
            os.read(reading, 1)
            for _ in range(0 if (Path(folder) / KEEP).exists() else 50):
                shutil.rmtree(folder, ignore_errors=True)
                if not os.path.exists(folder):
                    break
                time.sleep(0.1)  # Somebody in there was just writing.
        os._exit(0)
    os.wait()
    os.close(reading)
    return writing


def enter():
    """Call it first of all, from the main program. Returns inside the sandbox."""
    if INSIDE in os.environ:
        os.set_inheritable(int(os.environ[LIFE]), False)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        return
    folder = tempfile.mkdtemp(prefix=f"ferry-cluster-{os.getpid()}-")
    life = _leave_a_sweeper(folder)
    os.set_inheritable(life, True)
    os.environ.update({FOLDER: folder, LIFE: str(life)})
    words = [sys.executable, *sys.orig_argv[1:]]
    if _can_have_namespaces():
        os.environ[INSIDE] = "net"
        os.execvp(UNSHARE[0], [*UNSHARE, *words])
    os.environ[INSIDE] = "loopback"
    os.execv(sys.executable, words)


def folder():
    return Path(os.environ[FOLDER])


def keep():
    """The folder stays for people to look at."""
    (folder() / KEEP).touch()


def skip(reason):
    print(f"SKIPPED, NOT TESTED HERE: {reason}", flush=True)
    sys.exit(SKIPPED)


def dies_with_us():
    """For Popen's preexec_fn: outside of a process namespace nothing else ends our children."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: {done.stderr}")


class Network:
    """A bridge with a namespace a node; the test and its clients sit at the bridge. Or loopback."""

    @staticmethod
    def permitted():
        """Whether networks can be parted here."""
        return os.environ[INSIDE] == "net"

    def __init__(self):
        self.can_part = self.permitted()
        self.nodes = set()
        self.ports = {}
        if self.can_part:
            os.makedirs("/run/netns", exist_ok=True)
            _run("mount", "-t", "tmpfs", "tmpfs", "/run/netns")
            _run("ip", "link", "set", "lo", "up")
            _run("ip", "link", "add", "br0", "type", "bridge")
            _run("ip", "addr", "add", f"{HOST}/24", "dev", "br0")
            _run("ip", "link", "set", "br0", "up")
        else:
            print("NETWORKS ARE NOT PARTED HERE: namespaces, veth or nftables are not permitted; "
                  "brokers listen on loopback", flush=True)

    def add(self, node):
        """Gives the node its place; may be called again."""
        if node in self.nodes:
            return
        self.nodes.add(node)
        if not self.can_part:
            self.ports[node] = _free_ports(max(self.ports.values(), default=0) + PORTS)
            return
        _run("ip", "netns", "add", f"n{node}")
        _run("ip", "link", "add", f"v{node}", "type", "veth", "peer", "name", "eth0", "netns",
             f"n{node}")
        _run("ip", "link", "set", f"v{node}", "master", "br0", "up")
        for words in (("addr", "add", f"{SUBNET}.{node}/24", "dev", "eth0"),
                      ("link", "set", "eth0", "up"), ("link", "set", "lo", "up")):
            _run("ip", "-n", f"n{node}", *words)
        self.heal(node)

    def endpoints(self, node):
        """Where the node's shard 0 listens: (for clients, for peers)."""
        if self.can_part:
            return f"tcp://{SUBNET}.{node}:7400", f"tcp://{SUBNET}.{node}:7500"
        port = self.ports[node]
        return f"tcp://127.0.0.1:{port}", f"tcp://127.0.0.1:{port + 8}"

    def prefix(self, node):
        """What a program of the node is started with."""
        return ("nsenter", f"--net=/run/netns/n{node}") if self.can_part else ()

    def heal(self, node):
        """Nothing is dropped any more that comes to the node."""
        self._nft(node, "add table inet faults\ndelete table inet faults\nadd table inet faults\n"
                        "add chain inet faults incoming { type filter hook input priority 0; }\n")

    def deafen(self, node, *others):
        """Drops what comes from `others` to the node; it is still heard by them."""
        rules = "".join(f"add rule inet faults incoming ip saddr {SUBNET}.{other} drop\n"
                        for other in others)
        self._nft(node, rules)

    def cut_clients(self, node):
        """The node's peers reach it and its clients do not."""
        self._nft(node, f"add rule inet faults incoming ip saddr {HOST} drop\n")

    def part(self, some, others):
        """Nobody of `some` hears any of `others`, nor the other way."""
        for node in some:
            self.deafen(node, *others)
        for node in others:
            self.deafen(node, *some)

    def heal_all(self):
        if self.can_part:
            for node in self.nodes:
                self.heal(node)

    @staticmethod
    def _nft(node, text):
        done = subprocess.run(["nsenter", f"--net=/run/netns/n{node}", "nft", "-f", "-"], input=text,
                              text=True, capture_output=True, check=False)
        if done.returncode != 0:
            raise AssertionError(f"nft: {done.stderr}")


def _free_ports(least):
    """The first of some ports in a row, not below `least`, that were free just now. Where it begins to
    look is a matter of the process's number."""
    start = max(least, 20000 + os.getpid() * 48 % 10000)
    for first in range(start, start + 20000, PORTS):
        held = []
        try:
            for port in range(first, first + PORTS):
                held.append(socket.socket())
                held[-1].bind(("127.0.0.1", port))
            return first
        except OSError:
            continue
        finally:
            for one in held:
                one.close()
    raise AssertionError("no free ports")
