"""The three banks as processes: databases, brokers, relays, clerks, tellers, and what can be done to them.

run.py shows it to people, tests/system/torture breaks it. Nothing here judges. Everything lives in one
folder and on one address of loopback; what is started is ended by close(), or with this process.
"""
import ctypes
import json
import mmap
import os
import re
import shutil
import signal
import sqlite3
import struct
import subprocess
import time
from pathlib import Path

import databases

LETTERS = "abc"
NODES = (1, 2, 3)
PARTITIONS = 4
TOPICS = [f"bank.{letter}" for letter in LETTERS] + ["bank.events"]
MONEY = 3 * (95 * 100000 + 5 * 500)  # What bank.h gives to the payers.
STATES = {1: "running", 2: "compensating", 3: "done", 4: "compensated", 5: "stuck", 6: "aborted"}
PATIENCE = 60
RESTART_S = 0.2  # A process that ended is started again after so long.
PR_SET_PDEATHSIG = 1


def until(condition, what, patience=PATIENCE, pause=0.05):
    deadline = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {patience} s: {what}")
        time.sleep(pause)


def _dies_with_us():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Process:
    """A program that is started again whenever it ends, until it is retired."""

    def __init__(self, name, command, log, environment=None):
        self.name, self.command, self.log = name, [str(word) for word in command], log
        self.environment = environment or {}
        self.process = None
        self.starts_at = 0.0  # When it is to be started again.
        self.wakes_at = None  # When it is to go on after a pause.
        self.retired = False
        self.falls = []  # Exit statuses with which it ended by itself.

    def start(self):
        with open(self.log, "ab") as out:
            self.process = subprocess.Popen(self.command, stdout=out, stderr=out,
                                            stdin=subprocess.DEVNULL, preexec_fn=_dies_with_us,
                                            env={**os.environ, **self.environment})
        self.wakes_at = None

    def is_alive(self):
        return self.process is not None and self.process.poll() is None

    def kill(self, down_s=RESTART_S):
        """kill -9; false when it does not run."""
        if not self.is_alive():
            return False
        self.process.kill()
        self.process.wait()
        self.process = None
        self.starts_at = time.monotonic() + down_s
        return True

    def pause(self, for_s):
        if not self.is_alive() or self.wakes_at is not None:
            return False
        self.process.send_signal(signal.SIGSTOP)
        self.wakes_at = time.monotonic() + for_s
        return True

    def resume(self):
        if self.wakes_at is not None and self.is_alive():
            self.process.send_signal(signal.SIGCONT)
        self.wakes_at = None

    def tend(self):
        """Does what is due."""
        now = time.monotonic()
        if self.wakes_at is not None and now >= self.wakes_at:
            self.resume()
        if self.retired:
            return
        if self.process is not None and self.process.poll() is not None:
            self.falls.append(self.process.returncode)
            self.process = None
            self.starts_at = now + RESTART_S
        if self.process is None and now >= self.starts_at:
            self.start()

    def stop(self, patience=PATIENCE):
        """As a service manager does; the exit status, None when it did not run."""
        self.resume()
        self.retired = True
        process, self.process = self.process, None
        if process is None:
            return None
        process.terminate()
        try:
            return process.wait(patience)
        except subprocess.TimeoutExpired:
            return "does not stop"
        finally:
            process.kill()
            process.wait()


class Faults:
    """What fault.c reads in a process that has it preloaded: a step of its clock, and deafness."""

    def __init__(self, path):
        self.path = path
        with open(path, "w+b") as file:
            file.write(bytes(16))
            file.flush()
            self.map = mmap.mmap(file.fileno(), 16)

    def set(self, step_s=0, deaf=0):
        self.map[:] = struct.pack("qq", step_s, deaf)


class World:
    """All of it. `bank` and `relay` are programs; `preload` the library of Faults, or None; `proxy`
    a program that stands between clerks, tellers and their servers, or None."""

    def __init__(self, folder, binaries, *, seed=1, bank=None, relay=None, relay_environment=None,
                 preload=None, disk_preload=None, proxy=None, broker_options=()):
        self.folder = Path(folder).resolve()
        os.chmod(self.folder, 0o711)  # The database servers' users come through.
        self.bin = Path(binaries)
        self.bank = bank or self.bin / "examples/bank"
        self.relay = relay or self.bin / "ferry-outbox"
        self.relay_environment = relay_environment or {}
        self.preload, self.disk_preload, self.proxy_program = preload, disk_preload, proxy
        self.seed, self.broker_options = seed, broker_options
        pid = os.getpid()
        self.host = f"127.{65 + (pid >> 16) % 64}.{(pid >> 8) % 256}.{1 + pid % 254}"
        self.processes = {}
        self.faults = {}
        self.servers = {}
        self.down = {}  # Servers that are to be started again, and when.
        self.places = self.folder / "places.json"

    # ---- Start

    def start(self):
        self._start_brokers()
        self._start_databases()
        self._write_places()
        for topic in TOPICS:
            self.ferry("topic", "create", topic, "--partitions", PARTITIONS, "--replicas",
                       len(NODES))
        for letter in LETTERS:
            self._run(self.bank, "open", letter, self.url(letter))
        for letter in LETTERS:
            for number in (1, 2):
                self._add(f"relay-{letter}{number}", self.relay, "--db", self.url(letter),
                          "--server", self.endpoints(), environment=self.relay_environment)
            for number in (1, 2):
                self._add(f"clerk-{letter}{number}", self.bank, "clerk", letter,
                          self.url(letter, proxied=True), self.endpoints(), f"{letter}{number}")
        return self

    def _start_brokers(self):
        founders = ",".join(f"{n}=tcp://{self.host}:{7490 + 10 * n}" for n in NODES)
        for n in NODES:
            self._add(f"broker-{n}", self.bin / "ferryd", "--data", self.folder / f"broker-{n}",
                      "--node", n, "--listen", self.endpoint(n), "--peer-listen",
                      f"tcp://{self.host}:{7490 + 10 * n}", "--bootstrap", founders,
                      *self.broker_options, disk=True)
        for n in NODES:
            self.wait_broker(n)

    def _start_databases(self):
        made = {"b": databases.PostgreSQL, "c": databases.MariaDB}
        port = {"b": 5432, "c": 3306}
        for letter, kind in made.items():
            server = self.servers[letter] = kind(self.folder / letter, self.host, port[letter])
            server.start(wait=False)
        for letter, server in self.servers.items():
            server.wait_ready()
            server.create("bank")
            if self.proxy_program:
                self._add(f"proxy-{letter}", self.proxy_program, self.host, server.port + 10000,
                          server.port)

    def _add(self, name, program, *words, environment=None, disk=False):
        preload = []
        environment = dict(environment or {})
        if disk and self.disk_preload:
            preload.append(str(self.disk_preload))
            environment["FERRY_DISK_FAULT"] = str(self.folder / f"{name}.disk")
        if self.preload and not name.startswith("proxy"):
            preload.append(str(self.preload))
            self.faults[name] = Faults(self.folder / f"{name}.faults")
            environment["FERRY_TORTURE_FAULTS"] = str(self.faults[name].path)
        if preload:
            environment["LD_PRELOAD"] = ":".join(preload)
        self.processes[name] = Process(name, [program, *words], self.folder / f"{name}.log",
                                       environment)
        self.processes[name].start()

    def _run(self, *words, patience=PATIENCE):
        done = subprocess.run([str(word) for word in words], capture_output=True, text=True,
                              check=False, timeout=patience)
        if done.returncode != 0:
            raise AssertionError(f"{' '.join(map(str, words))}: {done.returncode}: {done.stderr}")
        return done.stdout

    def _write_places(self):
        """Where a checker finds things; see tests/system/torture/checker.py."""
        places = {"ferry": str(self.bin / "ferry"), "servers": self.endpoints(),
                  "a": f"{self.folder}/a.db"}
        for letter, server in self.servers.items():
            places[letter] = [str(word) for word in server.ask("bank")]
        self.places.write_text(json.dumps(places), encoding="utf-8")

    # ---- Names

    def endpoint(self, node):
        return f"tcp://{self.host}:{7390 + 10 * node}"

    def endpoints(self):
        return ",".join(self.endpoint(node) for node in NODES)

    def url(self, letter, proxied=False):
        if letter == "a":
            return f"sqlite:{self.folder}/a.db"
        port = self.servers[letter].port + (10000 if proxied and self.proxy_program else 0)
        return self.servers[letter].url("bank", port)

    def named(self, *kinds):
        return [one for name, one in sorted(self.processes.items()) if name.split("-")[0] in kinds]

    # ---- Brokers

    def ferry(self, *words, patience=PATIENCE):
        return self._run(self.bin / "ferry", "--server", self.endpoints(), *words, patience=patience)

    def wait_broker(self, node):
        log = self.folder / f"broker-{node}.log"
        until(lambda: re.search(r"^ferryd: ready", log.read_text(errors="replace"), re.M),
              f"broker {node} is ready, see {log}")

    def leader(self, topic, partition):
        """The node that leads; None while nobody answers."""
        try:
            told = json.loads(self.ferry("--json", "--timeout", "2s", "partition", "info", topic,
                                         partition))
        except (AssertionError, subprocess.TimeoutExpired):
            return None
        return told.get("leader_node") or None

    def disk(self, node, fault):
        (self.folder / f"broker-{node}.disk").write_text(fault, encoding="utf-8")

    # ---- Tellers

    def begin_transfers(self, count, per_second):
        """Lets every bank begin transfers until it has begun `count` since its opening."""
        for letter in LETTERS:
            name = f"teller-{letter}"
            if name in self.processes:
                self.processes[name].stop()
            self._add(name, self.bank, "teller", letter, self.url(letter, proxied=True), count,
                      per_second, self.seed)

    # ---- Databases

    def sql(self, letter, text):
        """Rows of texts, as the database's own command line prints them."""
        if letter == "a":
            connection = sqlite3.connect(f"file:{self.folder}/a.db?mode=ro", uri=True, timeout=10)
            try:
                return [tuple(None if field is None else str(field) for field in row)
                        for row in connection.execute(text)]
            finally:
                connection.close()
        return self.servers[letter].sql(text, "bank")

    def kill_server(self, letter, down_s=RESTART_S):
        """kill -9 of PostgreSQL's postmaster or of mariadbd."""
        server = self.servers[letter]
        if server.process is None:
            return False
        server.kill()
        self.down[letter] = time.monotonic() + down_s
        return True

    def start_server(self, letter):
        self.down.pop(letter, None)
        if self.servers[letter].process is None:
            self.servers[letter].start(wait=False)

    # ---- Life

    def tend(self):
        """Starts again what has ended, and lets go on what was paused. Call it often."""
        for process in self.processes.values():
            if process.name.startswith("teller") and process.process is not None and \
                    process.process.poll() == 0:
                process.retired = True  # It has begun all of its transfers.
            process.tend()
        for letter, at in list(self.down.items()):
            if time.monotonic() >= at:
                self.start_server(letter)

    def heal(self):
        """All faults end."""
        for process in self.processes.values():
            process.resume()
        for fault in self.faults.values():
            fault.set()
        for node in NODES:
            if self.disk_preload:
                self.disk(node, "good")
        for letter in list(self.down):
            self.start_server(letter)

    def transfers(self):
        """How many transfers are in which state; None when a database does not answer just now."""
        found = {}
        for letter in LETTERS:
            try:
                rows = self.sql(letter, "SELECT state, count(*) FROM transfer GROUP BY state")
            except (AssertionError, sqlite3.Error, subprocess.TimeoutExpired):
                return None
            for state, count in rows:
                found[STATES[int(state)]] = found.get(STATES[int(state)], 0) + int(count)
        return found

    def money(self):
        """In all accounts now; None when a database does not answer."""
        try:
            return sum(int(self.sql(letter, "SELECT sum(balance) FROM account")[0][0])
                       for letter in LETTERS)
        except (AssertionError, sqlite3.Error, subprocess.TimeoutExpired):
            return None

    def stop(self):
        """Everything is asked to stop, applications first; what did not stop well, by name."""
        bad = {}
        for kinds in (("teller",), ("clerk",), ("relay",), ("broker",), ("proxy",)):
            for process in self.named(*kinds):
                status = process.stop()
                if status not in (0, None, -signal.SIGTERM if "proxy" in kinds else 0):
                    bad[process.name] = status
        for server in self.servers.values():
            server.stop()
        return bad

    def close(self):
        """Whatever runs ends now."""
        for process in self.processes.values():
            process.retired = True
            if process.process is not None:
                process.process.kill()
                process.process.wait()
        for server in self.servers.values():
            server.close()

    def remove(self):
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)
