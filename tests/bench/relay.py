"""The relay's part of bench.py: how fast it drains a backlog, and how soon it sees a commit."""

import json
import os
import statistics
import subprocess
import time

ROWS = 300_000
ROW_BYTES = 200
TRANSACTIONS = 300
PATIENCE = 300


class Relay:
    def __init__(self, place, broker, path):
        self.process = subprocess.Popen(
            [place.program("ferry-outbox"), "--db", f"sqlite:{path}",
             "--server", broker.endpoint],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(60)


def stored(place, broker, topic):
    info = json.loads(place.ferry(broker, "--json", "topic", "info", topic))
    return sum(p["end_offset"] for p in info["partitions"])


def drain_once(place, start_broker, folder, round_number):
    """Rows a second, from the start of the relay to the last row in the log."""
    path = os.path.join(folder, f"backlog-{round_number}.db")
    subprocess.run([place.program("relay_bench"), "fill", path, "backlog", str(ROWS), str(ROW_BYTES)],
                   check=True, timeout=PATIENCE)
    with start_broker(place) as broker:
        place.ferry(broker, "topic", "create", "backlog", "--partitions", "4", "--quiet")
        began = time.monotonic()
        with Relay(place, broker, path) as relay:
            while stored(place, broker, "backlog") < ROWS:
                if relay.process.poll() is not None or time.monotonic() - began > PATIENCE:
                    raise RuntimeError("the relay did not drain its backlog")
                time.sleep(0.02)
        return ROWS / (time.monotonic() - began)


def idle_once(place, start_broker, folder, round_number):
    path = os.path.join(folder, f"idle-{round_number}.db")
    place.ferry(None, "outbox", "init", f"sqlite:{path}", "--quiet")
    with start_broker(place) as broker:
        place.ferry(broker, "topic", "create", "idle", "--quiet")
        with Relay(place, broker, path):
            done = subprocess.run([place.program("relay_bench"), "latency", path, "idle",
                                   broker.endpoint, str(TRANSACTIONS)],
                                  check=True, capture_output=True, timeout=PATIENCE)
        return json.loads(done.stdout)["latency_us"]["p50"]


def cases(place, table, runs, start_broker, folder):
    if not os.access(os.path.join(place.bin, "ferry-outbox"), os.X_OK):
        table.add("relay", "", "not measured: ferry-outbox is not built")
        return
    rates = [drain_once(place, start_broker, folder, i) for i in range(runs)]
    table.add(f"relay, backlog of {ROWS:,} rows of {ROW_BYTES} B", ">= 60,000 rows/s",
              f"{statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f}) rows/s", "",
              statistics.median(rates) >= 60_000)
    waits = [idle_once(place, start_broker, folder, i) for i in range(runs)]
    table.add("relay, idle, commit to received, p50", "<= 2 ms to the append",
              f"{statistics.median(waits) / 1000:.2f} ({min(waits) / 1000:.2f} to "
              f"{max(waits) / 1000:.2f}) ms", "", statistics.median(waits) <= 2000)
