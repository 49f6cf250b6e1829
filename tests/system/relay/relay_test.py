"""ferry-outbox as a program: many databases in one process, some of them down; what it answers on its
status port against what is so; what it refuses, and in which words."""
import http.client
import json
import math
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "lib"))
import databases  # noqa: E402
import ferry_processes  # noqa: E402
from ferry_processes import BIN, PATIENCE, run, until  # noqa: E402

SOURCE = Path(__file__).parents[3]
SECRET = "geheim"
SERIES = re.compile(r'^(\w+)\{(.*)\} (\S+)$')
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def has_driver(scheme):
    path = BIN / f"libferry_outbox_{scheme}.so"
    return path.exists() and f"ferry_outbox_driver_{scheme}".encode() in path.read_bytes()


class Database:
    """A SQLite outbox."""

    def __init__(self, path, tables=True):
        self.path = Path(path)
        self.url = f"sqlite:{path}"
        if tables:
            self.init()

    def init(self):
        code, _, err = run(BIN / "ferry", "outbox", "init", self.url)
        assert code == 0, err

    def put(self, topic, payloads, key=None):
        connection = sqlite3.connect(self.path, timeout=30)
        with connection:
            connection.executemany(
                "INSERT INTO ferry_outbox (topic, mkey, payload) VALUES (?, ?, ?)",
                [(topic, key, payload) for payload in payloads])
        connection.close()

    def number(self, sql):
        connection = sqlite3.connect(self.path, timeout=30)
        try:
            return connection.execute(sql).fetchone()[0]
        finally:
            connection.close()

    def change(self, sql):
        connection = sqlite3.connect(self.path, timeout=30)
        with connection:
            connection.execute(sql)
        connection.close()


class Relay:
    """A ferry-outbox with its status port on a free port of loopback."""

    def __init__(self, test, *words, broker=None, environment=None):
        self.log = ferry_processes.folder(test) / "relay.log"
        self.command = [str(BIN / "ferry-outbox"), *map(str, words), "--set",
                        "relay.http=127.0.0.1:0", "--set", "relay.retry_max_ms=200"]
        if broker is not None:
            self.command += ["--server", broker.endpoint]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log,
                                            env={**os.environ, **(environment or {})})
        test.addCleanup(self.kill)
        self.port = int(until(self._port, "the relay says its port"))

    def text(self):
        return self.log.read_text(encoding="utf-8", errors="replace")

    def _port(self):
        if self.process.poll() is not None:
            raise AssertionError(f"the relay ended: {self.text()}")
        found = re.search(r"status at http://127\.0\.0\.1:(\d+)/", self.text())
        return found and found.group(1)

    def get(self, path, method="GET"):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def ready(self):
        """(whether all are ready, state by database)"""
        status, text = self.get("/readyz")
        page = json.loads(text)
        assert (status == 200) == page["ready"], text
        return page["ready"], {one["database"]: one for one in page["outboxes"]}

    def until_ready(self):
        until(lambda: self.ready()[0], "all outboxes are ready")

    def metrics(self):
        """{(name, sorted labels): value}; fails where the text is not as Prometheus wants it."""
        status, text = self.get("/metrics")
        assert status == 200
        values, types = {}, {}
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split(" ")
                assert name not in types, f"two types of {name}"
                types[name] = kind
            elif not line.startswith("# HELP "):
                name, labels, value = SERIES.match(line).groups()
                family = re.sub(r"_(bucket|sum|count)$", "", name)
                assert types.get(name) or types.get(family) == "histogram", f"no type: {line}"
                key = (name, tuple(sorted(LABEL.findall(labels))))
                assert key not in values, f"twice: {line}"
                values[key] = float(value)
        return values

    def metric(self, name, database, values=None, **labels):
        wanted = {**labels, "source": escaped(getattr(database, "url", database))}
        found = [value for (one, of), value in (values or self.metrics()).items()
                 if one == f"ferry_outbox_{name}" and wanted.items() <= dict(of).items()]
        assert found, name
        return sum(found)  # Over topics, where they have figures of their own.

    def stop(self):
        self.process.terminate()
        return self.process.wait(PATIENCE)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def escaped(text):
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


class WithBroker(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.place = cls.enterClassContext(tempfile.TemporaryDirectory(prefix="ferry-test-"))
        cls.broker = ferry_processes.Broker(cls.place)
        cls.addClassCleanup(cls.broker.kill)
        cls.topics = 0

    def topic(self):
        """A new topic with one partition."""
        type(self).topics += 1
        name = f"orders-{self.topics}"
        self.broker.ok("topic", "create", name, "--partitions", "1")
        return name

    def database(self, name="shop.db", tables=True):
        return Database(ferry_processes.folder(self) / name, tables)

    def relay(self, *databases, words=(), **more):
        named = [word for one in databases for word in ("--db", getattr(one, "url", one))]
        return Relay(self, *named, *words, broker=self.broker, **more)

    def consumed(self, topic):
        return self.broker.consume(topic)


class Program(WithBroker):
    # ---- Many databases

    def test_a_database_that_is_missing_holds_up_none_of_the_others(self):
        topic = self.topic()
        good = [self.database(f"{i}.db") for i in range(3)]
        late = self.database("late.db", tables=False)
        for i, one in enumerate(good):
            one.put(topic, [b"%d" % i])
        relay = self.relay(good[0], late, *good[1:])
        until(lambda: sorted(self.consumed(topic)) == [b"0", b"1", b"2"], "all are published")
        ready, outboxes = relay.ready()
        self.assertFalse(ready)
        self.assertTrue(all(outboxes[one.url]["state"] == "active" for one in good))
        self.assertFalse(outboxes[late.url]["ready"])
        self.assertEqual(outboxes[late.url]["state"], "connecting")
        self.assertIn("ferry outbox init", outboxes[late.url]["error"])
        late.init()
        late.put(topic, [b"late"])
        relay.until_ready()
        until(lambda: b"late" in self.consumed(topic), "the late one is published")
        self.assertEqual(relay.get("/livez")[0], 200)
        self.assertEqual(relay.stop(), 0)

    def test_one_process_serves_paths_with_commas_from_the_environment(self):
        topic = self.topic()
        a, b = self.database("a,1.db"), self.database("b.db")
        a.put(topic, [b"a"])
        b.put(topic, [b"b"])
        relay = Relay(self, broker=self.broker,
                      environment={"FERRY_OUTBOX_RELAY_DB": f"{a.url}, {b.url}"})
        relay.until_ready()
        until(lambda: sorted(self.consumed(topic)) == [b"a", b"b"], "both are published")

    def test_once_publishes_what_is_there_and_ends(self):
        topic = self.topic()
        a, b = self.database("a.db"), self.database("b.db")
        a.put(topic, [b"%d" % i for i in range(500)])
        command = [BIN / "ferry-outbox", "--db", a.url, "--db", b.url, "--server",
                   self.broker.endpoint, "--once"]
        code, out, err = run(*command)
        self.assertEqual(code, 0, err)
        self.assertIn(b"500 published", out)
        self.assertEqual(len(self.consumed(topic)), 500)
        code, out, _ = run(*command, "--db", "sqlite:/nowhere/at.all")
        self.assertEqual(code, 3)
        self.assertIn(b"No such file", out)

    # ---- Ready, active, standing by

    def test_a_standby_is_ready_and_takes_over(self):
        topic = self.topic()
        one = self.database()
        first = self.relay(one)
        first.until_ready()
        second = self.relay(one)
        second.until_ready()
        self.assertEqual(second.ready()[1][one.url]["state"], "standby")
        self.assertEqual(second.metric("relay_state", one, state="standby"), 1)
        first.kill()
        one.put(topic, [b"x"])
        until(lambda: self.consumed(topic) == [b"x"], "the standby publishes")
        until(lambda: second.ready()[1][one.url]["state"] == "active", "it says so")

    def test_without_a_broker_it_lives_and_is_not_ready(self):
        one = self.database()
        relay = Relay(self, "--db", one.url, "--server", "tcp://127.0.0.1:9")
        until(lambda: relay.ready()[1][one.url]["state"] == "outage", "the outage is told")
        self.assertFalse(relay.ready()[0])
        self.assertEqual(relay.get("/livez")[0], 200)
        self.assertEqual(relay.metric("relay_state", one, state="outage"), 1)
        self.assertEqual(relay.stop(), 0)

    def test_a_pause_is_ready_and_shown(self):
        topic = self.topic()
        one = self.database()
        one.change("INSERT OR REPLACE INTO ferry_meta (name, value) VALUES ('paused', 1)")
        one.put(topic, [b"x"])
        relay = self.relay(one)
        until(lambda: relay.ready()[1][one.url]["state"] == "paused", "the pause is told")
        self.assertTrue(relay.ready()[0])
        one.change("UPDATE ferry_meta SET value = 0 WHERE name = 'paused'")
        until(lambda: self.consumed(topic) == [b"x"], "it is published")

    def test_a_database_that_was_set_back_halts_until_it_is_another(self):
        topic = self.topic()
        one, other = self.database("one.db"), self.database("other.db")
        one.put(topic, [b"before"])
        self.assertEqual(run(BIN / "ferry-outbox", "--db", one.url, "--server",
                             self.broker.endpoint, "--once")[0], 0)
        copy = one.path.with_suffix(".copy")
        shutil.copy(one.path, copy)
        one.put(topic, [b"lost"])
        self.assertEqual(run(BIN / "ferry-outbox", "--db", one.url, "--server",
                             self.broker.endpoint, "--once")[0], 0)
        for left in one.path.parent.glob(one.path.name + "-*"):
            left.unlink()
        shutil.copy(copy, one.path)
        one.put(topic, [b"instead"])
        relay = self.relay(one, other)
        until(lambda: relay.ready()[1][one.url]["state"] == "halted", "it halts")
        until(lambda: relay.ready()[1][other.url]["ready"], "the other one is served")
        ready, outboxes = relay.ready()
        self.assertFalse(ready)
        self.assertIn("set back", outboxes[one.url]["error"])
        self.assertEqual(relay.metric("timetravel_total", one), 1)
        one.change("UPDATE ferry_meta SET value = randomblob(16) WHERE name = 'source_uuid'")
        until(lambda: self.consumed(topic).count(b"instead") == 1, "it is served again by itself")
        relay.until_ready()
        self.assertGreaterEqual(relay.metric("connects_total", one), 2)
        self.assertEqual(relay.stop(), 0)

    # ---- Metrics

    def test_metrics_say_what_is_so(self):
        topic = self.topic()
        one = self.database('sh"op.db')
        relay = self.relay(one)
        relay.until_ready()
        series = set(relay.metrics())
        one.put(topic, [b"%d" % i for i in range(1000)])
        one.put("no-such-topic", [b"waits"])
        until(lambda: relay.metric("rows_published_total", one) == 1000, "all are counted")
        until(lambda: relay.metric("blocked_topics", one) == 1, "the topic is told")
        until(lambda: relay.metric("pending_rows", one) == 1, "the database was asked again")
        values = relay.metrics()
        met = {key for key in values if dict(key[1]).get("topic") in (topic, "no-such-topic")}
        self.assertTrue(met, "topics have series once they are met")
        self.assertEqual(set(values) - met, series, "every series is there from the start")
        self.assertEqual(relay.metric("rows_published_total", one, values, topic=topic), 1000)
        self.assertEqual(relay.metric("rows_published_total", one, values, topic="other"), 0)
        self.assertEqual(relay.metric("batch_rows_sum", one, values, topic=topic), 1000)
        self.assertEqual(len(self.consumed(topic)), 1000)
        self.assertEqual(relay.metric("pending_rows", one, values), 1)
        self.assertGreater(relay.metric("oldest_pending_seconds", one, values), 0)
        self.assertEqual(relay.metric("database_reachable", one, values), 1)
        self.assertEqual(relay.metric("relay_state", one, values, state="active"), 1)
        self.assertEqual(relay.metric("rows_dead_total", one, values), 0)
        for name in ("read_seconds", "append_seconds", "commit_to_append_seconds"):
            count = relay.metric(f"{name}_count", one, values)
            self.assertGreater(count, 0, name)
            buckets = [value for (of, labels), value in values.items()
                       if of == f"ferry_outbox_{name}_bucket"
                       and dict(labels).get("topic", topic) == topic]
            self.assertEqual(buckets, sorted(buckets), "buckets only rise")
            self.assertEqual(buckets[-1], count)

    def test_alerts_and_the_readme_name_what_there_is(self):
        relay = self.relay(self.database())
        relay.until_ready()
        families = set(re.findall(r"(?m)^# TYPE ferry_outbox_(\w+) ", relay.get("/metrics")[1]))
        rules = (SOURCE / "conf/ferry-alerts.yml").read_text(encoding="utf-8")
        named = {name for expr in re.findall(r"(?m)^ +expr: (.+)$", rules)
                 for name in re.findall(r"ferry_outbox_(\w+)", expr)}
        self.assertEqual(named - families, set(), "alerts about what is not there never fire")
        alerts = re.findall(r"(?m)^      - alert: (\w+)\n        expr: \S", rules)
        self.assertGreater(len(alerts), 10)
        self.assertEqual(len(set(alerts)), rules.count("- alert:"))
        readme = (SOURCE / "README.md").read_text(encoding="utf-8")
        table = readme.split("## What the relay tells")[1].split("\n## ")[0]
        shown = {name for line in re.findall(r"(?m)^\| (`.*?) \|", table)
                 for name in re.findall(r"`(\w+)`", line)}
        self.assertEqual(shown, families)

    def test_refused_rows_are_counted_and_kept(self):
        topic = self.topic()
        one = self.database()
        one.put(topic, [b"a", bytes(3 << 20), b"b"], key=b"k")
        relay = self.relay(one)
        until(lambda: self.consumed(topic) == [b"a", b"b"], "the others are published")
        until(lambda: relay.metric("rows_dead_total", one) == 1, "it is counted")
        self.assertEqual(one.number("SELECT count(*) FROM ferry_outbox_dead"), 1)

    def test_a_program_decides_about_a_refused_row(self):
        topic = self.topic()
        one = self.database()
        script = one.path.parent / "decide"
        script.write_text(f"#!/bin/sh\ncat > {one.path.parent}/asked\necho park\n",
                          encoding="utf-8")
        script.chmod(0o755)
        one.put(topic, [b"a", bytes(3 << 20), b"b"], key=b"k")
        one.put(topic, [b"c"], key=b"other")
        relay = self.relay(one, words=("--set", "relay.poison=callback", "--set",
                                       f"relay.poison_command={script}"))
        until(lambda: self.consumed(topic) == [b"a", b"c"], "other keys are published")
        until(lambda: relay.metric("rows_parked_total", one) == 1, "its key is parked")
        asked = json.loads((one.path.parent / "asked").read_text(encoding="utf-8"))
        self.assertEqual((asked["topic"], asked["number"], asked["database"]),
                         (topic, 2, one.url))

    def test_a_slow_client_keeps_nobody_from_the_status_port(self):
        one = self.database()
        relay = self.relay(one)
        slow = [socket.create_connection(("127.0.0.1", relay.port)) for _ in range(8)]
        for connection in slow:
            self.addCleanup(connection.close)
            connection.sendall(b"GET /metrics HTTP/1.1\r\n")
        began = time.monotonic()
        self.assertEqual(relay.get("/livez")[0], 200)
        self.assertLess(time.monotonic() - began, 4)
        self.assertEqual(relay.get("/nothing")[0], 404)
        self.assertEqual(relay.get("/metrics", method="POST")[0], 405)
        status, body = relay.get("/metrics", method="HEAD")
        self.assertEqual((status, body), (200, ""))

    # ---- Options

    def test_check_tells_of_each_database(self):
        good, missing = self.database(), self.database("missing.db", tables=False)
        code, out, err = run(BIN / "ferry-outbox", "--db", good.url, "--check")
        self.assertEqual((code, err), (0, ""))
        self.assertIn(f"{good.url}: ok", out.decode())
        code, out, err = run(BIN / "ferry-outbox", "--db", missing.url, "--db", good.url, "--check")
        self.assertEqual(code, 3)
        self.assertIn("No such file", err)
        self.assertIn(f"{good.url}: ok", out.decode())

    def test_what_is_wrong_is_told_at_once(self):
        code, _, err = run(BIN / "ferry-outbox", "--db", "shop.db", "--db",
                           f"oracle://u:{SECRET}@h/d", "--set", "relay.lanes=1,x", "--set",
                           "relay.poison=callback", "--set", "relay.http_stuck_ms=10s")
        self.assertEqual(code, 2)
        for words in ("postgresql://USER@HOST", "relay.lanes", "relay.poison_command",
                      "relay.http_stuck_ms"):
            self.assertIn(words, err)
        self.assertNotIn(SECRET, err)
        code, _, err = run(BIN / "ferry-outbox")
        self.assertEqual(code, 2)
        self.assertIn("no database is given", err)
        one = self.database()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = "127.0.0.1:%d" % taken.getsockname()[1]
            code, _, err = run(BIN / "ferry-outbox", "--db", one.url, "--set",
                               f"relay.http={address}")
        self.assertEqual(code, 1)
        self.assertIn(address, err)

    def test_a_driver_that_is_not_there_says_what_to_install(self):
        place = ferry_processes.folder(self)
        program = shutil.copy(BIN / "ferry-outbox", place)
        environment = {key: value for key, value in os.environ.items() if key != "FERRY_DRIVERS"}
        code, _, err = run(program, "--db", f"mariadb://u:{SECRET}@127.0.0.1/d", "--check",
                           env=environment)
        if code == 1:
            self.skipTest("a driver is installed on this machine")
        self.assertEqual(code, 2)
        self.assertIn("libferry_outbox_mariadb.so", err)
        self.assertIn("libmariadb3", err)
        self.assertIn(str(place), err)
        self.assertNotIn(SECRET, err)

    @unittest.skipUnless(has_driver("postgresql"), "built without PostgreSQL")
    def test_a_password_is_seen_nowhere(self):
        one = self.database()
        url = f"postgresql://someone:{SECRET}@127.0.0.1:9/nothing"
        relay = self.relay(one, url)
        until(lambda: not relay.ready()[1][one.url]["error"] and len(relay.ready()[1]) == 2 and
              all(of["error"] or of["ready"] for of in relay.ready()[1].values()), "it is tried")
        self.assertNotIn(SECRET.encode(), Path(f"/proc/{relay.process.pid}/cmdline").read_bytes())
        self.assertNotIn(SECRET, relay.get("/readyz")[1] + relay.get("/metrics")[1])
        self.assertEqual(relay.stop(), 0)
        self.assertNotIn(SECRET, relay.text())
        secrets = one.path.parent / "urls"
        secrets.write_text(f"# ours\n{url}\n", encoding="utf-8")
        code, out, err = run(BIN / "ferry-outbox", "--db", f"@{secrets}", "--check")
        self.assertEqual(code, 1)
        self.assertIn("someone", err)
        self.assertNotIn(SECRET, out.decode() + err)


class Servers(WithBroker):
    """A relay of a server's database and of a file, while the server comes and goes."""

    def server(self, kind, scheme):
        if not has_driver(scheme):
            self.skipTest(f"built without {scheme}")
        if kind.__name__ == "PostgreSQL" and kind.programs() is None or \
                kind.__name__ == "MariaDB" and not all(map(shutil.which, kind.PROGRAMS)):
            self.skipTest(f"{kind.__name__} is not installed")
        place = ferry_processes.folder(self)
        place.chmod(0o755)
        server = kind(place / "server").start()
        self.addCleanup(server.close)
        server.create("shop")
        self.init(server)
        return server

    def init(self, server):
        code, _, err = run(BIN / "ferry", "outbox", "init", server.url("shop"))
        self.assertEqual(code, 0, err)

    def outage(self, server, put, words=()):
        """The file goes on while the server is gone; the server's outbox goes on when it is back."""
        topic = self.topic()
        one = self.database()
        relay = self.relay(one, server.url("shop"), words=words)
        relay.until_ready()
        put(topic, "a")
        until(lambda: self.consumed(topic) == [b"a"], "the server's outbox is published")
        server.kill()
        one.put(topic, [b"b"])
        until(lambda: self.consumed(topic) == [b"a", b"b"], "the file's outbox goes on")
        until(lambda: [of["ready"] for of in relay.ready()[1].values()].count(False) == 1,
              "the one that is gone is named")
        self.assertTrue(relay.ready()[1][one.url]["ready"])
        self.assertEqual(relay.get("/livez")[0], 200)
        self.assertEqual(relay.get("/metrics")[0], 200)
        server.start()
        put(topic, "c")
        until(lambda: self.consumed(topic) == [b"a", b"b", b"c"], "it is published")
        relay.until_ready()
        self.assertEqual(relay.stop(), 0)
        self.assertEqual(self.consumed(topic), [b"a", b"b", b"c"], "once each")

    def test_postgresql_comes_and_goes(self):
        server = self.server(databases.PostgreSQL, "postgresql")
        self.outage(server, lambda topic, payload: server.sql(
            f"SELECT ferry.put('{topic}', 'k', '{payload}')", "shop"))

    def test_mariadb_comes_and_goes(self):
        server = self.server(databases.MariaDB, "mariadb")
        self.outage(server, lambda topic, payload: server.sql(
            f"INSERT INTO ferry_outbox (topic, mkey, payload) VALUES ('{topic}', 'k', "
            f"'{payload}')", "shop"))

    def figures(self, server, put, table, blob):
        """Known rows, a refused one and what is parked behind it, an inbox and sagas: /metrics
        tells each. `table` names a table, `blob` writes n bytes."""
        first, second = self.topic(), self.topic()
        long_ago, soon = 1000, 32503680000000
        for number in range(3):
            put(first, f"a{number}", "'1'")
        put(second, "k", "'1'")
        put(second, "k", blob(3 << 20))
        put(second, "k", "'2'")
        ids = self.uuid(server)
        for offset in range(-1, 4):
            server.sql(f"INSERT INTO {table('inbox_chain')} (grp, topic_id, part, start_off, "
                       f"end_off) VALUES ('bi@lls', {ids(1)}, 0, {offset}, {offset + 1})", "shop")
        for number in range(2):
            server.sql(f"INSERT INTO {table('inbox_id')} (grp, msg_id, day) VALUES "
                       f"('queue', {ids(number)}, 1)", "shop")
        server.sql(f"INSERT INTO {table('inbox_dead')} (grp, topic_id, part, off, msg_id, reason, "
                   f"payload, ts_ms) VALUES ('bi@lls', {ids(1)}, 0, 9, {ids(9)}, 'no', '', 1)",
                   "shop")
        for number, (kind, state, step, deadline) in enumerate((
                ("pay", 1, 0, soon), ("pay", 1, 1, long_ago), ("pay", 2, 1, soon),
                ("ship", 1, 0, 0), ("pay", 3, 2, 0), ("pay", 4, 0, long_ago), ("pay", 4, 0, 0),
                ("ship", 5, 1, long_ago))):
            server.sql(f"INSERT INTO {table('saga')} (saga_id, type, state, step, ver, deadline_ms,"
                       f" reason, data) VALUES ({ids(number)}, '{kind}', {state}, {step}, 1, "
                       f"{deadline}, '', '')", "shop")
        url = server.url("shop")
        relay = self.relay(url, words=("--set", "relay.figures_ms=1s", "--set",
                                       f"relay.poison_topics={second}=park_key,later=dead"))

        def read(name, values=None, **labels):
            return relay.metric(name, url, values, **labels)
        until(lambda: read("rows_parked_total", topic=second) == 1, "the third row is parked")
        until(lambda: read("rows_published_total") == 4, "what can be published is")
        until(lambda: read("sagas", state="stuck") == 1, "the figures are asked for")
        values = relay.metrics()
        for topic, name, value in (
                (first, "rows_published_total", 3), (second, "rows_published_total", 1),
                (second, "rows_refused_total", 1), (second, "rows_dead_total", 1),
                (first, "rows_refused_total", 0), (second, "rows_parked_total", 1),
                (first, "batch_rows_sum", 3), ("later", "rows_dead_total", 0),
                ("other", "rows_published_total", 0)):
            self.assertEqual(read(name, values, topic=topic), value, (topic, name))
        for group, name, value in (("bi@lls", "inbox_chain_rows", 5), ("bi@lls", "inbox_id_rows", 0),
                                   ("bi@lls", "inbox_dead_rows", 1), ("queue", "inbox_id_rows", 2),
                                   ("queue", "inbox_chain_rows", 0)):
            self.assertEqual(read(name, values, group=group), value, (group, name))
        for state, value in (("running", 3), ("compensating", 1), ("done", 1), ("compensated", 2),
                             ("stuck", 1), ("aborted", 0)):
            self.assertEqual(read("sagas", values, state=state), value, state)
        self.assertEqual(read("saga_open", values, type="pay", step="1"), 2)
        self.assertEqual(read("saga_open", values, type="ship", step="0"), 1)
        self.assertEqual(read("saga_open", values), 4)
        self.assertEqual(read("saga_overdue", values), 1)
        self.assertEqual(read("figures_cut", values), 0)
        self.assertTrue(0 < read("saga_oldest_open_seconds", values) < PATIENCE)
        if server.__class__ is databases.PostgreSQL:
            server.sql("ALTER TABLE ferry.saga RENAME TO gone", "shop")
            until(lambda: math.isnan(read("saga_overdue")), "what cannot be known is not 0")
            self.assertTrue(math.isnan(read("sagas", state="done")))

    @staticmethod
    def uuid(server):
        if isinstance(server, databases.PostgreSQL):
            return lambda n: f"'00000000-0000-0000-0000-{n:012d}'"
        return lambda n: f"x'{n:032x}'"

    def test_postgresql_s_inbox_and_sagas_are_told(self):
        server = self.server(databases.PostgreSQL, "postgresql")
        self.figures(server, lambda topic, key, payload: server.sql(
            f"SELECT ferry.put('{topic}', '{key}'::text, ({payload})::text)", "shop"),
                     lambda name: f"ferry.{name}", lambda n: f"repeat('x', {n})")

    def test_mariadb_s_inbox_and_sagas_are_told(self):
        server = self.server(databases.MariaDB, "mariadb")
        self.figures(server, lambda topic, key, payload: server.sql(
            f"INSERT INTO ferry_outbox (topic, mkey, payload) VALUES ('{topic}', '{key}', "
            f"{payload})", "shop"), lambda name: f"ferry_{name}", lambda n: f"REPEAT('x', {n})")

    def test_each_lane_has_an_active_relay(self):
        topic = self.topic()
        server = self.server(databases.PostgreSQL, "postgresql")
        server.sql("UPDATE ferry.meta SET value = '3' WHERE name = 'lanes'", "shop")
        first = self.relay(server.url("shop"), words=("--set", "relay.lanes=0,2"))
        second = self.relay(server.url("shop"), words=("--set", "relay.lanes=1,9"))
        for number in range(30):
            server.sql(f"SELECT ferry.put('{topic}', 'k{number}', '{number}')", "shop")
        until(lambda: len(self.consumed(topic)) == 30, "all lanes are published")
        counts = {}
        for relay in (first, second):
            for (name, labels), value in relay.metrics().items():
                if name == "ferry_outbox_rows_published_total":
                    lane = dict(labels)["lane"]
                    counts[lane] = counts.get(lane, 0) + value
        self.assertEqual(sorted(counts), ["0", "1", "2"])
        self.assertEqual(sum(counts.values()), 30)
        self.assertTrue(all(counts.values()), counts)
        server.sql("SELECT setval('ferry.outbox_seq', 1 << 20)", "shop")
        server.sql(f"SELECT ferry.put('{topic}', 'k1', 'the next leaf')", "shop")
        until(lambda: server.sql("SELECT count(*) FROM ferry.outbox_0", "shop") == [("0",)],
              "the leaf is emptied once every lane has published what is in it")
        self.assertEqual(server.sql("SELECT count(*) FROM ferry.outbox", "shop"), [("1",)])

    def test_once_publishes_every_lane(self):
        topic = self.topic()
        server = self.server(databases.PostgreSQL, "postgresql")
        server.sql("UPDATE ferry.meta SET value = '4' WHERE name = 'lanes'", "shop")
        server.sql(f"SELECT ferry.put('{topic}', 'k' || n, '' || n) FROM generate_series(1, 200) n",
                   "shop")
        code, out, err = run(BIN / "ferry-outbox", "--db", server.url("shop"), "--server",
                             self.broker.endpoint, "--once")
        self.assertEqual(code, 0, err)
        self.assertEqual(len(self.consumed(topic)), 200, out)

    def test_check_tells_of_a_server(self):
        server = self.server(databases.PostgreSQL, "postgresql")
        code, out, err = run(BIN / "ferry-outbox", "--db", server.url("shop"), "--check")
        self.assertEqual((code, err), (0, ""))
        self.assertIn(b": ok, schema 1, 1 lane\n", out)
        server.sql("DROP SCHEMA ferry CASCADE", "shop")
        code, _, err = run(BIN / "ferry-outbox", "--db", server.url("shop"), "--check")
        self.assertEqual(code, 1)
        self.assertIn("ferry outbox init", err)
        server.kill()
        code, _, err = run(BIN / "ferry-outbox", "--db", server.url("shop"), "--check")
        self.assertEqual(code, 1)
        self.assertIn("127.0.0.1", err)


if __name__ == "__main__":
    unittest.main()
