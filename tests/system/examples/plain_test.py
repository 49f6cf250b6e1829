"""The examples that put messages by plain SQL, in other languages than C."""
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import unittest
from pathlib import Path

from databases import MariaDB, PostgreSQL
from ferry_processes import BIN, folder, run

SOURCE = Path(os.environ["FERRY_SOURCE"])
LINES = "ann\tapples\nbob\trefuse\nann\tpears; \\ \"quoted\" ünïcode\n"
MESSAGES = [("ann", "apples"), ("ann", "pears; \\ \"quoted\" ünïcode")]


def python_with(module):
    """An interpreter that has the driver: Debian installs it for its own."""
    for python in (sys.executable, "/usr/bin/python3"):
        if run(python, "-c", f"import {module}")[0] == 0:
            return python
    raise AssertionError(f"no Python here has {module}: apt-get install python3-{module}")


class PlainInsertTest(unittest.TestCase):
    def feed(self, *words, cwd=None):
        done = subprocess.run([str(word) for word in words], input=LINES, capture_output=True,
                              text=True, check=False, timeout=60, cwd=cwd)
        self.assertEqual((done.returncode, done.stdout), (0, "sold 2, refused 1\n"), done.stderr)

    def server(self, database):
        home = folder(self)
        home.chmod(0o755)  # The server is not this user.
        server = database(home / "server")
        self.addCleanup(server.close)
        server.start()
        server.create("shop")
        return server

    def postgresql(self):
        server = self.server(PostgreSQL)
        server.sql((SOURCE / "outbox/postgresql/schema/postgresql_1.sql").read_text(), "shop")
        return server

    def expect(self, rows):
        """Rows of (topic, key, payload, headers), all as text, in order."""
        self.assertEqual([row[0] for row in rows], ["orders", "orders"])
        for (_, key, payload, headers), (customer, what) in zip(rows, MESSAGES):
            self.assertEqual(key, customer)
            self.assertEqual(json.loads(payload), {"customer": customer, "what": what})
            self.assertEqual(json.loads(headers), {"content-type": "application/json"})

    def expect_in(self, server):
        self.assertEqual(server.sql("SELECT count(*) FROM sale", "shop"), [("2",)])
        rows = server.sql("SELECT topic, encode(mkey, 'hex'), encode(payload, 'hex'), headers_json "
                          "FROM ferry.outbox ORDER BY seq", "shop")
        self.expect([(topic, bytes.fromhex(key).decode(), bytes.fromhex(payload).decode(), headers)
                     for topic, key, payload, headers in rows])

    def test_python_puts_into_sqlite(self):
        path = folder(self) / "shop.db"
        self.assertEqual(run(BIN / "ferry", "outbox", "init", f"sqlite:{path}")[0], 0)
        self.feed(sys.executable, SOURCE / "examples/outbox.py", f"sqlite:{path}", "orders")
        with sqlite3.connect(path) as connection:
            self.assertEqual(connection.execute("SELECT count(*) FROM sale").fetchall(), [(2,)])
            rows = connection.execute("SELECT topic, mkey, payload, headers FROM ferry_outbox "
                                      "ORDER BY id").fetchall()
        connection.close()
        self.expect([(topic, key.decode(), payload.decode(), headers)
                     for topic, key, payload, headers in rows])

    def test_python_puts_into_postgresql(self):
        server = self.postgresql()
        self.feed(python_with("psycopg2"), SOURCE / "examples/outbox.py", server.url("shop"),
                  "orders")
        self.expect_in(server)

    def test_python_puts_into_mariadb(self):
        server = self.server(MariaDB)
        code, _, words = run(BIN / "ferry", "outbox", "init", server.url("shop"))
        self.assertEqual(code, 0, words)
        self.feed(python_with("pymysql"), SOURCE / "examples/outbox.py", server.url("shop"), "orders")
        self.assertEqual(server.sql("SELECT count(*) FROM sale", "shop"), [("2",)])
        rows = server.sql("SELECT topic, HEX(mkey), HEX(payload), headers FROM ferry_outbox "
                          "ORDER BY id", "shop")
        self.expect([(topic, bytes.fromhex(key).decode(), bytes.fromhex(payload).decode(), headers)
                     for topic, key, payload, headers in rows])

    def test_nodejs_puts_into_postgresql(self):
        """$FERRY_NODE_MODULES: a node_modules folder with the driver, pg."""
        modules = os.environ.get("FERRY_NODE_MODULES", SOURCE / "examples/node_modules")
        if not shutil.which("node") or not (Path(modules) / "pg").exists():
            self.skipTest("Node.js or its driver is not here: FERRY_NODE_MODULES names its folder")
        home = folder(self)
        shutil.copy(SOURCE / "examples/outbox.mjs", home)
        (home / "node_modules").symlink_to(modules)
        server = self.postgresql()
        self.feed("node", "outbox.mjs", server.url("shop"), "orders", cwd=home)
        self.expect_in(server)

    def test_nodejs_says_how_to_get_the_driver(self):
        if not shutil.which("node"):
            self.skipTest("Node.js is not here")
        home = folder(self)
        shutil.copy(SOURCE / "examples/outbox.mjs", home)
        done = subprocess.run(["node", "outbox.mjs", "postgresql://nobody@127.0.0.1/x", "t"], cwd=home,
                              input="", capture_output=True, text=True, check=False, timeout=60)
        self.assertEqual(done.returncode, 1)
        self.assertIn("npm install pg", done.stderr)


if __name__ == "__main__":
    unittest.main()
