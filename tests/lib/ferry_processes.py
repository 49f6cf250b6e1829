"""Real programs for system tests in Python: a broker that can be killed, and the command line.

Everything lives in the folder that the test gives; what is started is ended by stop() or by the
interpreter's end. $FERRY_BIN holds the programs.
"""
import atexit
import json
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

BIN = Path(os.environ["FERRY_BIN"])
PATIENCE = 60  # Seconds for anything; sanitizers are slow.


def until(condition, what, patience=PATIENCE):
    """Polls until the condition holds; its value."""
    deadline = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {patience} s: {what}")
        time.sleep(0.02)


class Broker:
    """A ferryd on a free port, which it keeps when it is started again."""

    def __init__(self, folder, *options, environment=None, prefix=()):
        self.folder = Path(folder)
        self.data = self.folder / "data"
        self.options = options
        self.environment = environment or {}
        self.prefix = prefix
        self.endpoint = "tcp://127.0.0.1:*"
        self.log = self.folder / "ferryd.log"
        self.process = None
        atexit.register(self.kill)
        self.start()

    def start(self):
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [*self.prefix, BIN / "ferryd", "--data", self.data, "--listen", self.endpoint,
                 *self.options], stdout=log, stderr=log, env={**os.environ, **self.environment})
        found = until(self._ready, "ferryd is ready")
        self.endpoint = found.group(1)

    def _ready(self):
        if self.process.poll() is not None:
            raise AssertionError("ferryd ended: " + self.log.read_text(encoding="utf-8"))
        return re.search(r"^ferryd: ready: (tcp://[0-9.:]+)", self.log.read_text(encoding="utf-8"),
                         re.M)

    def address(self):
        host, port = self.endpoint.removeprefix("tcp://").split(":")
        return host, int(port)

    def gives_memory_back(self):
        """AddressSanitizer keeps what is freed, to see it used again: its size tells nothing."""
        return b"__asan_init" not in (BIN / "ferryd").read_bytes()

    def resident_bytes(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return int(re.search(r"^VmRSS:\s+(\d+) kB", status, re.M).group(1)) * 1024

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self):
        """As a service manager does; the exit code."""
        process, self.process = self.process, None
        if process is None:
            return None
        process.terminate()
        try:
            return process.wait(PATIENCE)
        finally:
            process.kill()

    def ferry(self, *words, given=b""):
        """Runs the command; (exit code, standard output, standard error)."""
        return run(BIN / "ferry", "--server", self.endpoint, *words, given=given)

    def ok(self, *words, given=b""):
        code, out, err = self.ferry(*words, given=given)
        if code != 0:
            raise AssertionError(f"ferry {' '.join(words)}: {code}: {err}")
        return out

    def produce(self, topic, lines):
        self.ok("produce", topic, "--quiet", given=b"".join(line + b"\n" for line in lines))

    def consume(self, topic, *words):
        return self.ok("consume", topic, "--idle-exit", "500ms", "--quiet", *words).splitlines()

    def info(self, topic):
        return json.loads(self.ok("--json", "topic", "info", topic))


def run(*command, given=b"", patience=PATIENCE, **more):
    done = subprocess.run([str(word) for word in command], input=given, capture_output=True,
                          timeout=patience, check=False, **more)
    return done.returncode, done.stdout, done.stderr.decode(errors="replace")


def folder(test):
    """A temporary folder that goes with the test."""
    made = tempfile.TemporaryDirectory(prefix="ferry-test-")
    test.addCleanup(made.cleanup)
    return Path(made.name)


def broker(test, *options, **more):
    made = Broker(folder(test), *options, **more)
    test.addCleanup(made.kill)
    return made
