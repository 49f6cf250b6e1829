"""A thousand consumers of one queue on one machine: all of them wait at next to no cost, every message
goes to one of them, and all get their share."""
import json
import os
import subprocess
import sys
import time
import unittest

from ferry_processes import BIN, PATIENCE, broker

CONSUMERS = int(os.environ.get("FERRY_CONSUMERS", "1000"))
MESSAGES = 200 * CONSUMERS
PARTITIONS = 16
IDLE_S = 5
IDLE_SHARE_MAX = 0.3  # Of one core, for all that wait; 0.1 on a machine with nothing else to do.
BROKER_MAX_BYTES = 256 << 20
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class ManyTest(unittest.TestCase):
    def run_mode(self, mode):
        served = broker(self, "--set", "node.shards=1")
        served.ok("topic", "create", "jobs", "--partitions", PARTITIONS)
        served.ok("subscription", "create", "jobs", "work", "--mode", mode, "--from", "start")
        with subprocess.Popen([str(w) for w in (BIN / "tests/system/many", served.endpoint, "jobs",
                                                "work", CONSUMERS, MESSAGES, IDLE_S)],
                              stdout=subprocess.PIPE, text=True) as process:
            self.addCleanup(process.kill)
            self.assertEqual(process.stdout.readline(), "idle\n")
            time.sleep(1)
            before, began = cpu_seconds(served.process.pid), time.monotonic()
            self.assertEqual(process.stdout.readline(), "work\n")
            share = (cpu_seconds(served.process.pid) - before) / (time.monotonic() - began)
            told = json.loads(process.stdout.readline())
            self.assertEqual(process.wait(PATIENCE), 0)
        resident = served.resident_bytes()
        print(f"{mode}: {told}, broker {resident >> 20} MiB, {share:.1%} of a core idle",
              file=sys.stderr)
        for name in ("doubled", "alien", "refused", "unstored", "without"):
            self.assertEqual(told[name], 0, name)
        self.assertEqual(told["acked"], MESSAGES)
        self.assertLess(share, IDLE_SHARE_MAX)
        if served.gives_memory_back():
            self.assertLess(resident, BROKER_MAX_BYTES)

    def test_a_thousand_share_a_queue(self):
        self.run_mode("queue")

    def test_a_thousand_share_keys(self):
        self.run_mode("keyed")


if __name__ == "__main__":
    unittest.main()
