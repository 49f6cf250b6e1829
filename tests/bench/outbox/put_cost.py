#!/usr/bin/env python3
"""Instructions that PostgreSQL executes for one put, and what each part of the table adds.

Unlike transactions a second they are the same whatever else the machine does: for weighing a change of the
schema. Counted by valgrind in a server of one process (postgres --single), a prepared statement by itself:
the difference of a longer and a shorter run. Locks, the disk and the client are not in it.

    tests/bench/outbox/put_cost.py [name ...]
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import world  # Beside this file; finds the folders of the others.

SCHEMA = Path(world.HERE).parents[2] / "outbox/postgresql/schema"
PAYLOAD = "convert_to(repeat('x', 200), 'UTF8')"
SQL_PUT = f"INSERT INTO ferry.outbox (topic, mkey, payload) VALUES ('orders', int8send($1), {PAYLOAD})"
PUT = ("INSERT INTO ferry.outbox (lane, topic, mkey, msg_id, headers, payload, created_ms) VALUES (0, "
       f"'orders', int8send($1), '01900000-0000-7000-8000-000000000001', NULL, {PAYLOAD}, $1)")
ALTER = "ALTER TABLE ferry.outbox ALTER "
FLAT = ("CREATE TABLE ferry.flat (LIKE ferry.outbox INCLUDING DEFAULTS); DROP TABLE ferry.outbox; "
        "ALTER TABLE ferry.flat RENAME TO outbox; CREATE INDEX ON ferry.outbox (lane, xid); "
        "CREATE INDEX ON ferry.outbox (lane, seq)")
# Name: what is changed of the schema, the statement.
VARIANTS = {
    "select": ("", "SELECT 1 WHERE $1 = 0"),
    "bare table": ("CREATE TABLE bare (id bigint NOT NULL, payload bytea NOT NULL)",
                   f"INSERT INTO bare VALUES ($1, {PAYLOAD})"),
    "put": ("", PUT),
    "put by SQL": ("", SQL_PUT),
    "without the index on seq": ("DROP INDEX ferry.outbox_lane_seq", PUT),
    "without an index": ("DROP INDEX ferry.outbox_lane_seq; DROP INDEX ferry.outbox_lane_xid", PUT),
    "without partitions": (FLAT, PUT),
    "topic of no domain": (ALTER + "topic TYPE text", PUT),
    "headers_json of no domain": (ALTER + "headers_json TYPE jsonb", PUT),
    "tli a constant": (ALTER + "tli SET DEFAULT 1", PUT),
    "seq a constant": (ALTER + "seq SET DEFAULT 1", PUT),
}
SHORT, LONG = 100, 300


class Single:
    """A server of one process; not as root."""

    def __init__(self, folder):
        self.server = world.databases.PostgreSQL(folder)
        self.user = self.server.user.pw_uid if self.server.user else None

    def run(self, *before, sql):
        words = [*before, self.server.bin / "postgres", "--single", "-D", self.server.data, "postgres"]
        done = subprocess.run([str(word) for word in words], input=sql, capture_output=True, text=True,
                              check=False, cwd=self.server.folder, timeout=world.PATIENCE, user=self.user)
        if done.returncode != 0 or "ERROR:" in done.stderr:
            raise RuntimeError(done.stderr)
        return done.stderr

    def instructions(self, statement, times):
        """Of a session that executes the statement so many times."""
        lines = ["SET plan_cache_mode = force_generic_plan", f"PREPARE p(bigint) AS {statement}"]
        lines += [f"EXECUTE p({i})" for i in range(times)]
        told = self.run("valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null",
                        sql="\n".join(lines) + "\n")
        return int(re.search(r"I +refs: +([0-9,]+)", told).group(1).replace(",", ""))


def measure(change, statement):
    with tempfile.TemporaryDirectory(prefix="ferry-put-cost-") as folder:
        os.chmod(folder, 0o755)  # The server's user goes through it.
        single = Single(Path(folder) / "pg")
        steps = sorted(SCHEMA.glob("postgresql_*.sql"), key=lambda path: int(path.stem.split("_")[1]))
        text = "".join(step.read_text(encoding="utf-8") for step in steps) + change + ";\n"
        single.server.start()
        single.server.sql(text)
        single.server.stop()
        return (single.instructions(statement, LONG) - single.instructions(statement, SHORT)) / (LONG - SHORT)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="*", help=f"of: {', '.join(VARIANTS)}; all unless given")
    options = parser.parse_args()
    unknown = set(options.name) - set(VARIANTS)
    if unknown:
        parser.error(f"no such variant: {', '.join(sorted(unknown))}")
    for name in options.name or VARIANTS:
        print(f"{name:28}{measure(*VARIANTS[name]):>12,.0f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
