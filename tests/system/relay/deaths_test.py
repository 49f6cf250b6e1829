"""ferry-outbox that dies and is started again, as by a service manager: of a row that ends it, of kill -9
at any moment, and while topics grow. In the log each row is there once, and each key in its order."""
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "lib"))
import databases  # noqa: E402
import ferry_processes  # noqa: E402
from ferry_processes import BIN, PATIENCE, run, until  # noqa: E402

DEADLY = BIN / "tests/system/deadly"
GROWN = BIN / "tests/system/relay_grown_topic"
KEYS = 7
DEATHS = (8, 12)  # As conf/ferry-outbox.conf says; of a full page.


class Sqlite:
    scheme = "sqlite"
    table = "ferry_outbox"

    def __init__(self, folder):
        self.path = folder / "shop.db"
        self.url = f"sqlite:{self.path}"

    def sql(self, text):
        connection = sqlite3.connect(self.path, timeout=30)
        try:
            with connection:
                connection.execute(text)
        finally:
            connection.close()


class PostgreSql:
    scheme = "postgresql"
    table = "ferry.outbox"

    def __init__(self, server, name):
        self.server, self.name = server, name
        server.create(name)
        self.url = server.url(name)

    def sql(self, text):
        self.server.sql(text, self.name)


class Supervised:
    """A relay that is started anew whenever it ended; `tend` sees to that."""

    def __init__(self, test, url, *words, program=BIN / "ferry-outbox", environment=None):
        self.folder = ferry_processes.folder(test)
        self.command = [program, "--db", url, "--server", test.broker.endpoint, "--set",
                        "relay.retry_max_ms=200", *words]
        self.environment = {**os.environ, "FERRY_DRIVERS": str(BIN), **(environment or {})}
        self.deaths = []
        self.start()
        test.addCleanup(self.kill)

    def start(self):
        with open(self.folder / "relay.log", "ab") as log:
            self.process = subprocess.Popen([str(word) for word in self.command], stdout=log,
                                            stderr=log, env=self.environment)

    def text(self):
        return (self.folder / "relay.log").read_text(encoding="utf-8", errors="replace")

    def tend(self):
        code = self.process.poll()
        if code is not None:
            self.deaths.append(code)
            assert code == -signal.SIGKILL, f"{code}: {self.text()}"
            self.start()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def kill_and_start(self):
        self.kill()
        self.start()


class Load:
    """Puts rows until it is stopped, some at a time; their payloads are "KEY:NUMBER"."""

    def __init__(self, test, topic, pause_s):
        self.test, self.topic, self.pause_s = test, topic, pause_s
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.failed = None
        self.thread.start()
        test.addCleanup(self.ended.set)

    def work(self):
        try:
            while not self.ended.is_set():
                self.test.put(self.topic, 20)
                time.sleep(self.pause_s)
        except Exception as error:  # Told by the test's thread.
            self.failed = error

    def end(self):
        self.ended.set()
        self.thread.join(PATIENCE)
        if self.failed:
            raise self.failed


class Deaths:
    """Mixed into a test case for each database."""

    @classmethod
    def setUpClass(cls):
        cls.home = Path(cls.enterClassContext(tempfile.TemporaryDirectory(prefix="ferry-deaths-")))
        os.chmod(cls.home, 0o755)
        (cls.home / "broker").mkdir()
        cls.broker = ferry_processes.Broker(cls.home / "broker")
        cls.addClassCleanup(cls.broker.kill)
        cls.prepare()

    @classmethod
    def prepare(cls):
        pass

    def setUp(self):
        self.random = random.Random(20261127)
        self.db = self.make()
        self.count = 0
        code, _, err = run(BIN / "ferry", "outbox", "init", self.db.url)
        self.assertEqual(code, 0, err)

    def topic(self, partitions):
        name = f"t{time.monotonic_ns()}"
        self.broker.ok("topic", "create", name, "--partitions", str(partitions))
        return name

    def put(self, topic, rows, deadly=None):
        """In one transaction; `deadly`: the payload of one more in their midst."""
        values = []
        for i in range(rows):
            self.count += 1
            key = f"k{self.count % KEYS}"
            values.append(f"('{topic}', '{key}', '{key}:{self.count}')")
        if deadly:
            values.insert(rows // 2, f"('{topic}', 'k0', '{deadly}')")
        self.db.sql(f"INSERT INTO {self.db.table} (topic, mkey, payload) VALUES {', '.join(values)}")

    def log(self, topic):
        """Payloads by partition."""
        info = self.broker.info(topic)
        return [[json.loads(line)["payload"] for line in self.broker.ok(
            "--json", "peek", topic, "--partition", str(p), "--count", "1000000").splitlines()]
            for p in range(len(info["partitions"]))]

    def published(self, topic):
        return sum(len(rows) for rows in self.log(topic))

    def dead(self):
        return [json.loads(line) for line in
                self.broker.ok("--json", "outbox", "dead", self.db.url).splitlines()]

    def expect_each_once(self, topic):
        """All rows that were put, and none twice; of a key in order, where it went first, then where
        it went after the topic had grown."""
        log = self.log(topic)
        numbers = {}
        for rows in log:
            for payload in rows:
                key, number = payload.split(":")
                numbers.setdefault(key, []).append(int(number))
        self.assertEqual(sorted(n for of in numbers.values() for n in of),
                         list(range(1, self.count + 1)))
        for rows in log:
            for key in numbers:
                own = [int(p.split(":")[1]) for p in rows if p.startswith(f"{key}:")]
                self.assertEqual(own, sorted(own), key)
        return log

    def wait_for(self, relays, topic, rows):
        def all_there():
            for relay in relays:
                relay.tend()
            return self.published(topic) >= rows
        until(all_there, f"{rows} rows are in the log")

    # ---- A row that ends the process

    def deadly(self, at, **more):
        library = BIN / f"libferry_outbox_{self.db.scheme}.so"
        return {"FERRY_DRIVERS": str(DEADLY), "FERRY_DEADLY_DRIVER": str(library),
                "FERRY_DEADLY_ROW": "deadly", "FERRY_DEADLY_AT": at, **more}

    def until_dead(self, relay, at_least=DEATHS[0], before=0):
        def is_dead():
            relay.tend()
            return self.dead()
        rows = until(is_dead, "the row is set aside")
        self.assertEqual([row["payload"] for row in rows], ["deadly"])
        self.assertIn("the relay's process has ended 3 times while it had only this row",
                      rows[0]["reason"])
        self.assertIn(len(relay.deaths) - before, range(at_least, DEATHS[1] + 1))
        return rows[0]

    def deadly_row_is_set_aside(self, at):
        topic = self.topic(3)
        self.put(topic, 400, deadly="deadly")
        relay = Supervised(self, self.db.url, environment=self.deadly(at))
        self.until_dead(relay)
        self.wait_for([relay], topic, self.count)
        self.expect_each_once(topic)
        return topic, relay

    def test_a_row_that_is_deadly_when_it_is_read_is_set_aside(self):
        topic, relay = self.deadly_row_is_set_aside("read")
        deaths = len(relay.deaths)
        self.put(topic, 100)
        self.wait_for([relay], topic, self.count)
        self.assertEqual(len(relay.deaths), deaths, "it is not met again")
        # A person who puts it back finds out again what it does; the relay may be careful yet.
        self.broker.ok("outbox", "requeue", self.db.url, "--all")
        self.put(topic, 100)
        self.until_dead(relay, at_least=3, before=deaths)
        self.wait_for([relay], topic, self.count)
        self.expect_each_once(topic)

    def test_a_row_that_is_deadly_when_it_is_sent_is_set_aside(self):
        self.deadly_row_is_set_aside("send")

    def test_a_row_that_is_in_the_log_is_not_blamed(self):
        """The third of the deaths for which it would be came when it had been appended."""
        topic = self.topic(2)
        self.put(topic, 0, deadly="deadly")
        relay = Supervised(self, self.db.url, "--set", "relay.page_rows=8",
                           environment=self.deadly("read"))

        def is_somewhere():
            relay.environment["FERRY_DEADLY_AT"] = "sent" if len(relay.deaths) >= 5 else "read"
            relay.tend()
            return len(relay.deaths) >= 7
        until(is_somewhere, "three deaths of eight rows, one of less, three of one")
        self.assertEqual(self.published(topic), 1)
        relay.environment["FERRY_DEADLY_ROW"] = ""
        self.put(topic, 20)
        self.wait_for([relay], topic, self.count + 1)
        self.assertEqual(self.dead(), [])
        self.assertEqual(self.published(topic), self.count + 1)

    # ---- kill -9 of a healthy one

    def killed_at_any_moment(self, standbys):
        topic = self.topic(3)
        relays = [Supervised(self, self.db.url) for _ in range(1 + standbys)]
        load = Load(self, topic, 0.02)
        for i in range(50):
            time.sleep(self.random.uniform(0, 0.3 if i % 2 else 0.1))
            self.random.choice(relays).kill_and_start()
        load.end()
        self.wait_for(relays, topic, self.count)
        self.expect_each_once(topic)
        self.assertEqual(self.dead(), [])

    def test_a_relay_that_is_killed_at_any_moment_sets_nothing_aside(self):
        self.killed_at_any_moment(0)

    def test_with_a_standby_nothing_is_set_aside(self):
        self.killed_at_any_moment(1)

    # ---- Growth

    def test_a_topic_grows_while_relays_are_killed(self):
        topic = self.topic(5)
        told = self.home / f"{topic}.partitions"
        told.write_text("2")
        relay = Supervised(self, self.db.url, program=GROWN,
                           environment={"FERRY_PARTITIONS_FILE": str(told)})
        self.put(topic, 2000)
        load = Load(self, topic, 0.05)
        until(lambda: self.published(topic) > 100, "it publishes")
        relay.kill_and_start()
        other = self.home / f"{topic}.other"
        other.write_text("5")
        other.rename(told)
        for _ in range(8):
            time.sleep(self.random.uniform(0.1, 0.8))
            relay.kill_and_start()
        until(lambda: any(self.log(topic)[2:]), "the new partitions are used")
        for _ in range(4):
            time.sleep(self.random.uniform(0.05, 0.5))
            relay.kill_and_start()
        load.end()
        self.wait_for([relay], topic, self.count)
        self.expect_switch_once(self.expect_each_once(topic))
        self.assertEqual(self.dead(), [])

    def expect_switch_once(self, log):
        """Each key is in one partition, or in one of the first two and then in another."""
        where = {}
        for partition, rows in enumerate(log):
            for payload in rows:
                key, number = payload.split(":")
                where.setdefault(key, []).append((int(number), partition))
        for key, rows in where.items():
            partitions = [partition for _, partition in sorted(rows)]
            switches = sum(a != b for a, b in zip(partitions, partitions[1:]))
            self.assertLessEqual(switches, 1, key)
            self.assertLess(partitions[0], 2, key)


class OnSqlite(Deaths, unittest.TestCase):
    def make(self):
        return Sqlite(ferry_processes.folder(self))


@unittest.skipIf(databases.PostgreSQL.programs() is None
                 or not (DEADLY / "libferry_outbox_postgresql.so").exists(),
                 "PostgreSQL is not installed")
class OnPostgreSql(Deaths, unittest.TestCase):
    @classmethod
    def prepare(cls):
        cls.server = databases.PostgreSQL(cls.home / "postgresql").start()
        cls.addClassCleanup(cls.server.close)

    def make(self):
        return PostgreSql(self.server, f"d{time.monotonic_ns()}")


if __name__ == "__main__":
    unittest.main(verbosity=2)
