"""The commands for outbox, inbox and sagas against real databases, with a real broker and relay.

The same transcripts for each database. A database whose driver was not built, or whose server is not
installed, is passed over, and that is said.
"""
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import threading
import time
import unittest
import uuid
from pathlib import Path

import databases
from ferry_processes import BIN, PATIENCE, Broker, run, until

OK, FAILED, USAGE, NOT_FOUND, TIMEOUT, NOT_SAFE, UNKNOWN = 0, 1, 2, 3, 5, 6, 7
SOURCE = Path(os.environ["FERRY_SOURCE"])
NOBODY = "tcp://127.0.0.1:1"  # No broker listens there.


def objects(out):
    return [json.loads(line) for line in out.splitlines()]


class Sqlite:
    """A file; has what tests ask of the servers of databases.py."""

    def __init__(self, folder):
        self.name = uuid.uuid4().hex
        self.path = Path(folder) / f"{self.name}.db"
        self.url = f"sqlite:{self.path}"

    def table(self, name):
        return f"ferry_{name}"

    def sql(self, text, *values):
        with sqlite3.connect(self.path) as db:
            rows = db.execute(text, values).fetchall()
        db.close()
        return [tuple(None if field is None else str(field) for field in row) for row in rows]

    def script(self, text):
        with sqlite3.connect(self.path) as db:
            db.executescript(text)
        db.close()

    def bytes(self, value):
        return f"x'{value.hex()}'"

    def backup(self):
        copy = self.path.with_suffix(".copy")
        with sqlite3.connect(self.path) as db, sqlite3.connect(copy) as other:
            db.backup(other)
        db.close()
        other.close()
        return copy

    def restore(self, copy):
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        shutil.copy(copy, self.path)


class OnServer:
    """A database of its own on the class's server."""

    def __init__(self, server):
        self.server = server
        self.name = f"d{uuid.uuid4().hex[:12]}"
        server.create(self.name)
        self.url = server.url(self.name)

    def sql(self, text):
        return self.server.sql(text, self.name)

    def script(self, text):
        self.server.sql(text, self.name)

    def backup(self):
        copy = self.server.folder / f"copy-{uuid.uuid4().hex}"
        self.server.stop()
        self.server.copy_to(copy)
        self.server.start()
        return copy

    def restore(self, copy):
        self.server.stop()
        self.server.set_back(copy)
        self.server.start()


class PostgreSql(OnServer):
    def table(self, name):
        return f"ferry.{name}"

    def bytes(self, value):
        return f"'\\x{value.hex()}'" if len(value) != 16 else f"'{uuid.UUID(bytes=value)}'"


class MariaDb(OnServer):
    def table(self, name):
        return f"ferry_{name}"

    def bytes(self, value):
        return f"x'{value.hex()}'"


class Network:
    """Between programs and a broker; can hold back what was sent on the connections of now."""

    def __init__(self, test):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self.listener.getsockname()[1]}"
        self.lock = threading.Lock()
        self.ways = []
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.leads_to = free.getsockname()
        test.addCleanup(self.end)
        threading.Thread(target=self.accept, daemon=True).start()

    def broker_options(self):
        host, port = self.leads_to
        return "--listen", f"tcp://{host}:{port}", "--set", f"listen.advertise={self.endpoint}"

    def end(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


    def accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return  # The test is over.
            far = socket.create_connection(self.leads_to)
            way = {"far": far, "near": near, "held": None, "back": 0}
            with self.lock:
                self.ways.append(way)
            for name, other in (("near", "far"), ("far", "near")):
                threading.Thread(target=self.carry, args=(way, name, other), daemon=True).start()

    def carry(self, way, name, other):
        try:
            while piece := way[name].recv(65536):
                with self.lock:
                    way["back"] += len(piece) if name == "far" else 0
                    if name == "near" and way["held"] is not None:
                        way["held"] += piece
                        continue
                way[other].sendall(piece)
        except OSError:
            pass
        with contextlib.suppress(OSError):
            way[other].shutdown(socket.SHUT_WR)
        if name == "far":
            way["near"].close()
            way["far"].close()

    def hold(self):
        with self.lock:
            for way in self.ways:
                way["held"] = b""

    def holds(self, text):
        with self.lock:
            return any(text in (way["held"] or b"") for way in self.ways)

    def release(self):
        """Lets it arrive; whether all that was held back on a connection got an answer."""
        with self.lock:
            ways = [(way, way["back"]) for way in self.ways if way["held"]]
            for way, _ in ways:
                way["far"].sendall(way["held"])
                way["held"] = None
        return lambda: all(way["back"] > back for way, back in ways)


class Transcripts:
    """Mixed into a test case for each database, which says how to make one."""

    @classmethod
    def setUpClass(cls):
        cls.home = cls.enterClassContext(tempfile.TemporaryDirectory(prefix="ferry-outbox-"))
        os.chmod(cls.home, 0o755)
        (Path(cls.home) / "broker").mkdir()
        cls.broker = Broker(Path(cls.home) / "broker", "--set", "store.max_bytes=4G")
        cls.addClassCleanup(cls.broker.kill)
        cls.prepare()

    @classmethod
    def prepare(cls):
        pass

    def setUp(self):
        self.db = self.make()
        code, _, err = self.broker.ferry("outbox", "init", self.db.url)
        if "NOT_READY" in err:
            self.skipTest(err)
        self.assertEqual(code, OK, err)

    # ---- What the tests have in common.

    def ok(self, *words, given=b""):
        code, out, err = self.broker.ferry(*words, given=given)
        self.assertEqual(code, OK, f"ferry {' '.join(words)}: {err}")
        return out

    def json(self, *words):
        return objects(self.ok("--json", *words))

    def refused(self, code, text, *words):
        got, out, err = self.broker.ferry(*words)
        self.assertEqual(got, code, err)
        self.assertIn(text, err)
        return out

    def elsewhere(self, *words):
        """With a server where nobody listens."""
        return run(BIN / "ferry", "--server", NOBODY, "--timeout", "500ms", *words)

    def topic(self):
        name = f"t-{uuid.uuid4().hex[:12]}"
        self.ok("topic", "create", name, "--partitions", "2")
        return name

    def put(self, topic, *rows):
        for key, payload in rows:
            self.db.sql(f"INSERT INTO {self.db.table('outbox')} (topic, mkey, payload) VALUES "
                        f"('{topic}', '{key}', '{payload}')")

    def relay(self):
        done = subprocess.run([BIN / "ferry-outbox", "--once", "--db", self.db.url, "--server",
                               self.broker.endpoint], capture_output=True, text=True, check=False,
                              timeout=PATIENCE)
        return done.returncode, done.stdout + done.stderr

    def published(self, topic):
        return [row["payload"] for row in self.json("peek", topic, "--count", "1000")]

    def status(self):
        return self.json("outbox", "status", self.db.url)[0]

    # ---- Tables

    def test_printed_sql_makes_what_init_makes(self):
        other = self.make()
        other.script(self.ok("outbox", "init", other.url, "--print-sql").decode())
        code, _, err = self.broker.ferry("outbox", "init", other.url)
        self.assertEqual(code, OK, err)
        other_version = self.json("outbox", "status", other.url)[0]["schema_version"]
        self.assertEqual(other_version, self.status()["schema_version"])
        self.refused(USAGE, "--print-sql", "outbox", "init", other.url, "--from", "1")

    # ---- Rows

    def test_an_error_names_the_database_once(self):
        """The database is not there at all, or the tables are not."""
        commands = [["ferry", *words] for words in
                    (["outbox", "status"], ["outbox", "peek"], ["outbox", "pause"],
                     ["inbox", "status"], ["saga", "list"])]
        commands.append(["ferry-outbox", "--once", "--server", NOBODY, "--db"])
        for url in (self.db.url.replace(self.db.name, "nowhere"), self.make().url):
            for words in commands:
                with self.subTest(url=url, words=words):
                    code, out, err = run(BIN / words[0], *words[1:], url)
                    line = (out.decode() + err).strip().splitlines()[-1]
                    place = url.rpartition("@" if "@" in url else "/")[2]
                    self.assertNotEqual(code, OK, line)
                    self.assertEqual(re.sub("`.*?`", "", line).count(place), 1, line)

    def test_a_url_is_read_from_a_file(self):
        file = Path(self.home) / f"{uuid.uuid4().hex}.url"
        file.write_text(f"# Not for everybody.\n{self.db.url}\n")
        self.assertEqual(self.json("outbox", "status", f"@{file}")[0]["lanes"], 1)
        file.write_text("# Nothing yet.\n")
        self.refused(USAGE, f"{file} has no URL", "outbox", "status", f"@{file}")

    def test_a_row_is_shown_skipped_and_put_back(self):
        topic = self.topic()
        self.put(topic, ("k1", "one"), ("k2", "two"), ("k1", "three"))
        rows = self.json("outbox", "peek", self.db.url)
        self.assertEqual([(r["topic"], r["key"], r["payload"]) for r in rows],
                         [(topic, "k1", "one"), (topic, "k2", "two"), (topic, "k1", "three")])
        self.assertNotIn("published", [r["state"] for r in rows])
        self.assertEqual([r["payload"] for r in self.json("outbox", "peek", self.db.url, "--key",
                                                          "k1")], ["one", "three"])
        self.assertEqual(len(self.json("outbox", "peek", self.db.url, "--count", "2")), 2)
        number = str(rows[1]["number"])
        whole = self.ok("outbox", "peek", self.db.url, "--number", number).decode()
        self.assertIn(rows[1]["id"], whole)
        self.assertIn("two", whole)
        self.refused(USAGE, "--reason", "outbox", "skip", self.db.url, "--number", number)
        self.ok("outbox", "skip", self.db.url, "--number", number, "--reason", "wrong amount")
        self.refused(NOT_FOUND, "UNKNOWN_MESSAGE", "outbox", "skip", self.db.url, "--number", number,
                     "--reason", "again")
        dead = self.json("outbox", "dead", self.db.url)
        self.assertEqual([(r["number"], r["reason"], r["state"]) for r in dead],
                         [(int(number), "wrong amount", "dead")])
        self.assertEqual(self.status()["dead_rows"], 1)
        self.refused(USAGE, "which ones", "outbox", "requeue", self.db.url)
        self.assertEqual(self.json("outbox", "requeue", self.db.url, "--all", "--dry-run")[0]["rows"],
                         1)
        self.assertEqual(self.json("outbox", "requeue", self.db.url, "--id", dead[0]["id"])[0]
                         ["requeued"], 1)
        last = self.json("outbox", "peek", self.db.url)[-1]
        self.assertEqual((last["payload"], last["id"]), ("two", dead[0]["id"]))
        self.assertEqual(self.json("outbox", "dead", self.db.url), [])
        self.refused(NOT_FOUND, "no such row", "outbox", "peek", self.db.url, "--number", number)
        self.assertEqual(self.relay()[0], OK)
        self.assertEqual(sorted(self.published(topic)), ["one", "three", "two"])

    def test_a_parked_key_comes_back_in_order(self):
        topic = self.topic()
        other_topic = self.topic()
        self.ok("outbox", "park", self.db.url, topic, "k")
        self.put(topic, ("k", "one"), ("free", "other"), ("k", "two"))
        self.put(other_topic, ("k", "a"), ("k", "b"))
        code, said = self.relay()
        self.assertEqual(code, OK, said)
        self.assertEqual(self.published(topic), ["other"])
        self.assertEqual(self.published(other_topic), ["a", "b"])
        aside = self.json("outbox", "peek", self.db.url, "--topic", topic, "--key", "k")
        self.assertIn([(r["payload"], r["state"]) for r in aside],
                      ([], [("one", "parked"), ("two", "parked")]))  # PostgreSQL deletes none.
        self.refused(NOT_FOUND, "not parked", "outbox", "unpark", self.db.url, other_topic, "k")
        status = self.status()
        self.assertEqual((status["parked_keys"], status["parked_rows"]), (1, 2))
        keys = self.json("outbox", "parked", self.db.url)[0]["keys"]
        self.assertEqual([(k["topic"], k["key"], k["rows"]) for k in keys], [(topic, "k", 2)])
        again = self.json("outbox", "requeue", self.db.url, "--all")[0]
        self.assertEqual((again["requeued"], again["parked"]), (0, 2))
        self.put(topic, ("k", "three"))
        self.assertEqual(self.json("outbox", "unpark", self.db.url, topic, "k")[0]["rows"], 3)
        self.refused(NOT_FOUND, "not parked", "outbox", "unpark", self.db.url, topic, "k")
        self.put(topic, ("k", "four"))
        code, said = self.relay()
        self.assertEqual(code, OK, said)
        self.assertEqual([p for p in self.published(topic) if p != "other"],
                         ["one", "two", "three", "four"])
        self.assertEqual(self.published(other_topic), ["a", "b"])
        self.assertEqual(self.status()["parked_rows"], 0)

    # ---- Lanes

    def test_lanes_change_only_when_nothing_is_on_its_way(self):
        topic = self.topic()
        lanes = ("outbox", "lanes", self.db.url)
        self.refused(USAGE, "from 1 to", *lanes, "0")
        if isinstance(self.db, Sqlite):
            self.refused(USAGE, "one lane", *lanes, "2")
            return
        self.put(topic, ("k", "one"))
        code, _, err = self.elsewhere(*lanes, "2")
        self.assertEqual(code, USAGE, err)
        self.assertIn("no broker says", err)
        self.refused(USAGE, "pending", *lanes, "2")
        self.ok(*lanes, "1")  # It is.
        self.ok("outbox", "park", self.db.url, topic, "other")
        self.assertEqual(self.relay()[0], OK)
        self.refused(USAGE, "set aside", *lanes, "2")
        self.ok("outbox", "unpark", self.db.url, topic, "other")
        until(lambda: self.broker.ferry(*lanes, "3")[0] == OK, "lanes are set")
        self.assertEqual(self.status()["lanes"], 3)
        for lane in range(3):
            self.db.sql(f"INSERT INTO {self.db.table('outbox')} (lane, topic, mkey, payload) VALUES "
                        f"({lane}, '{topic}', 'k{lane}', '{lane}')")
        self.refused(USAGE, "pending", *lanes, "1")
        self.assertEqual(self.relay()[0], OK)
        self.assertEqual(sorted(self.published(topic)), ["0", "1", "2", "one"])

    # ---- Status

    def test_what_is_not_known_is_never_zero(self):
        topic = self.topic()
        self.put(topic, ("k", "one"), ("k", "two"))
        code, out, err = self.elsewhere("outbox", "status", self.db.url, "--json")
        self.assertEqual(code, UNKNOWN, err)
        status = json.loads(out)
        self.assertIsNone(status["relays"])
        self.assertIn(status["pending_rows"], (2, None))
        code, out, err = self.broker.ferry("outbox", "status", self.db.url, "--offline")
        self.assertEqual(code, OK, err)
        self.assertIn("unknown: no broker was asked", out.decode())
        relays = self.status()["relays"]
        self.assertEqual([(r["active"], r["holder"], r["epoch"]) for r in relays],
                         [(False, None, None)])
        self.assertEqual(self.relay()[0], OK)
        status = self.status()
        self.assertEqual(status["pending_rows"], 0)
        self.assertIsNone(status["oldest_pending_seconds"])
        self.assertGreaterEqual(status["relays"][0]["epoch"], 1)

    def test_a_pause_is_seen_and_ends(self):
        topic = self.topic()
        self.put(topic, ("k", "one"))
        self.ok("outbox", "pause", self.db.url)
        self.assertTrue(self.status()["paused"])
        code, said = self.relay()  # --once: it does not wait for a person.
        self.assertEqual(code, FAILED, said)
        self.assertIn("ferry outbox resume", said)
        self.assertEqual(self.published(topic), [])
        self.ok("outbox", "resume", self.db.url)
        self.assertFalse(self.status()["paused"])
        self.assertEqual(self.relay()[0], OK)
        self.assertEqual(self.published(topic), ["one"])

    # ---- Rebase

    def test_a_restored_backup_is_published_once_after_a_rebase(self):
        topic = self.topic()
        self.put(topic, *[("k", f"before-{i}") for i in range(10)])
        copy = self.db.backup()
        self.assertEqual(self.relay()[0], OK)
        self.put(topic, *[("k", f"gone-{i}") for i in range(5)])
        self.assertEqual(self.relay()[0], OK)
        source = self.status()["source_id"]
        self.db.restore(copy)
        code, said = self.relay()
        self.assertNotEqual(code, OK, said)
        self.assertIn("set back in time", said)
        self.put(topic, *[("k", f"after-{i}") for i in range(3)])
        plan = self.json("outbox", "rebase", self.db.url, "--dry-run")[0]
        self.assertEqual((plan["deleted"], plan["kept"], plan["possible_duplicates"]), (10, 3, 0))
        self.refused(USAGE, "--yes", "outbox", "rebase", self.db.url)
        self.assertEqual(self.status()["source_id"], source)
        done = self.json("outbox", "rebase", self.db.url, "--yes")[0]
        self.assertEqual((done["deleted"], done["kept"]), (10, 3))
        self.assertNotEqual(done["source_id"], source)
        self.assertEqual(self.status()["source_id"], done["source_id"])
        code, said = self.relay()
        self.assertEqual(code, OK, said)
        wanted = [f"{what}-{i}" for what, count in (("before", 10), ("gone", 5), ("after", 3))
                  for i in range(count)]
        self.assertEqual(sorted(self.published(topic)), sorted(wanted))

    def test_rows_from_before_the_log_begins_need_a_decision(self):
        topic = f"t-{uuid.uuid4().hex[:12]}"
        self.ok("topic", "create", topic, "--partitions", "1", "--retention-acked")
        self.ok("subscription", "create", topic, "work", "--mode", "queue")
        self.put(topic, ("k", "one"))
        copy = self.db.backup()
        self.assertEqual(self.relay()[0], OK)
        self.ok("consume", topic, "--subscription", "work", "--count", "1")
        self.wait_trimmed(topic)
        self.put(topic, ("k", "two"))
        self.assertEqual(self.relay()[0], OK)
        self.db.restore(copy)
        self.refused(NOT_SAFE, "--accept-duplicates", "outbox", "rebase",
                     self.db.url, "--yes")
        done = self.json("outbox", "rebase", self.db.url, "--yes", "--accept-duplicates")[0]
        self.assertEqual((done["kept"], done["possible_duplicates"]), (1, 1))
        row = self.json("outbox", "peek", self.db.url)[0]
        self.assertEqual(row["headers"], {"ferry-possible-duplicate": "1"})

    def wait_trimmed(self, topic):
        deadline = time.monotonic() + PATIENCE
        while self.broker.info(topic)["partitions"][0]["start_offset"] == 0:
            self.assertLess(time.monotonic(), deadline, "retention has not dropped the record")
            time.sleep(0.1)

    # ---- Trace

    def test_a_message_is_followed_from_outbox_to_inbox(self):
        topic = self.topic()
        self.put(topic, ("k", "one"))
        message = self.json("outbox", "peek", self.db.url)[0]["id"]
        code, out, err = self.broker.ferry("trace", message, "--db", self.db.url, "--topic", topic,
                                           "--json")
        self.assertEqual(code, OK, err)
        self.assertEqual(objects(out)[0]["event"], "put")
        self.assertEqual(self.relay()[0], OK)
        record = self.json("peek", topic)[0]
        self.inbox_row(topic, record, message)
        chains = self.json("inbox", "status", self.db.url)[0]["chains"]
        self.assertEqual([(c["group"], c["by"], c["position"], c["rows"]) for c in chains],
                         [("ledger", "chain", record["offset"] + 5, 1), ("work", "id", None, 1)])
        events = self.json("trace", message, "--db", self.db.url)
        self.assertIn("stored", [e.get("event") for e in events])
        done = {(e["group"], e["by"]): e for e in events if e.get("event") == "done"}
        self.assertEqual(set(done), {("ledger", "chain"), ("work", "id")})
        self.assertEqual(done["ledger", "chain"]["time_ms"], 1764000000000)
        places = f"{topic}/{record['partition']}/{record['offset']}"
        self.assertIn("inbox of", self.ok("trace", places, "--db", self.db.url).decode())
        self.assertEqual(self.broker.ferry("trace", str(uuid.uuid4()), "--db", self.db.url)[0],
                         NOT_FOUND)
        self.assertEqual(self.elsewhere("trace", message, "--db", self.db.url)[0], TIMEOUT)

    def inbox_row(self, topic, record, message):
        topic_id = uuid.UUID(self.broker.info(topic)["id"]).bytes
        self.db.sql(f"INSERT INTO {self.db.table('inbox_chain')} (grp, topic_id, part, start_off, "
                    f"end_off, done_ms) VALUES ('ledger', {self.db.bytes(topic_id)}, "
                    f"{record['partition']}, {record['offset']}, {record['offset'] + 5}, "
                    "1764000000000)")
        self.db.sql(f"INSERT INTO {self.db.table('inbox_id')} (grp, day, msg_id) VALUES ('work', "
                    f"20000, {self.db.bytes(uuid.UUID(message).bytes)})")

    # ---- Inbox

    def test_dead_records_of_an_inbox_are_shown_and_requeued(self):
        topic_id, message = uuid.uuid4(), uuid.uuid4()
        for offset, parked in ((7, 0), (8, 1)):
            self.db.sql(
                f"INSERT INTO {self.db.table('inbox_dead')} (grp, topic_id, part, off, msg_id, "
                "reason, parked, mkey, payload, ts_ms) VALUES ('ledger', "
                f"{self.db.bytes(topic_id.bytes)}, 0, {offset}, {self.db.bytes(message.bytes)}, "
                f"'no such account', {'TRUE' if parked else 'FALSE'}, {self.db.bytes(b'k')}, {self.db.bytes(b'body')}, "
                "1764000000000)")
        dead = self.json("inbox", "dead", self.db.url, "--group", "ledger")
        self.assertEqual([(r["offset"], r["state"], r["key"], r["payload"]) for r in dead],
                         [(7, "dead", "k", "body"), (8, "parked", "k", "body")])
        self.assertEqual(dead[0]["topic_id"], str(topic_id))
        self.assertEqual(self.json("inbox", "dead", self.db.url, "--group", "other"), [])
        self.assertIn("no such account",
                      self.ok("inbox", "dead", self.db.url, "--number",
                              str(dead[0]["number"])).decode())
        self.assertEqual(self.json("inbox", "requeue", self.db.url, "--key", "k")[0]["requeued"], 2)
        self.assertEqual({r["state"] for r in self.json("inbox", "dead", self.db.url)}, {"requeued"})

    # ---- Sagas

    def test_a_saga_is_listed_and_what_is_not_there_is_said(self):
        saga = uuid.uuid4()
        self.db.sql(f"INSERT INTO {self.db.table('saga')} (saga_id, type, state, step, ver, "
                    "deadline_ms, reason, data, created_ms, changed_ms) VALUES "
                    f"({self.db.bytes(saga.bytes)}, 'transfer', 5, 1, 4, 0, 'no such account', "
                    f"{self.db.bytes(b'')}, 1764000000000, 1764000000000)")
        listed = self.json("saga", "list", self.db.url)
        self.assertEqual([(s["id"], s["type"], s["state"], s["step"]) for s in listed],
                         [(str(saga), "transfer", "stuck", 1)])
        self.assertEqual(self.json("saga", "list", self.db.url, "--state", "running"), [])
        self.refused(USAGE, "--state", "saga", "list", self.db.url, "--state", "lost")
        self.assertIn("no such account", self.ok("saga", "show", self.db.url, str(saga)).decode())
        other = str(uuid.uuid4())
        self.refused(NOT_FOUND, other, "saga", "show", self.db.url, other)
        self.refused(NOT_FOUND, other, "saga", "retry", self.db.url, other)
        self.refused(USAGE, "--yes", "saga", "abort", self.db.url, other, "--reason", "r")
        self.refused(NOT_FOUND, other, "saga", "abort", self.db.url, other, "--reason", "r", "--yes")

    # ---- Bench and verify

    def test_a_bench_puts_and_says_how_fast(self):
        code, out, err = run(BIN / "ferry", "outbox", "bench", self.db.url, "--topic", "anything",
                             "--records", "50", "--per-commit", "7", "--keys", "3", "--json")
        self.assertEqual(code, OK, err)
        made = json.loads(out)
        self.assertIsNone(made["published_us"])
        self.assertEqual(made["rows"], 50)
        self.assertGreater(made["rows_per_second"], 0)

    def test_effects_are_verified_over_several_databases(self):
        ids = [str(uuid.uuid4()) for _ in range(20)]
        self.db.script("CREATE TABLE sent (id CHAR(36)); " + "".join(
            f"INSERT INTO sent VALUES ('{i}');" for i in ids))
        with tempfile.TemporaryDirectory() as folder:
            others = [Sqlite(folder), Sqlite(folder)]
            for other, part in zip(others, (ids[:12], ids[12:])):
                other.script("CREATE TABLE done (id TEXT);" + "".join(
                    f"INSERT INTO done VALUES ('{i}');" for i in part))
            words = ["verify", "effects", "--json", "--committed", self.db.url,
                     "SELECT id FROM sent", "--effects", "own", self.db.url, "SELECT id FROM sent"]
            for other in others:
                words += ["--effects", "shards", other.url, "SELECT id FROM done"]
            verdict = self.json(*words)[0]
            self.assertTrue(verdict["good"])
            self.assertIsNone(verdict["log"])
            others[0].sql("DELETE FROM done WHERE id = ?", ids[0])
            others[0].sql("INSERT INTO done VALUES (?)", ids[15])
            code, out, err = self.broker.ferry(*words)
            self.assertEqual(code, FAILED, err)
            found = {(f["kind"], f["place"], f["id"]) for f in json.loads(out)["findings"]}
            self.assertEqual(found, {("lost", "shards", ids[0]), ("doubled", "shards", ids[15])})


class SqliteTest(Transcripts, unittest.TestCase):
    def make(self):
        return Sqlite(self.home)

    def test_a_missing_file_is_no_empty_outbox(self):
        for words in (("outbox", "status"), ("outbox", "peek"), ("inbox", "status"),
                      ("saga", "list")):
            code, out, err = self.broker.ferry(*words, f"sqlite:{self.home}/none.db")
            self.assertEqual((code, out), (FAILED, b""), err)
        self.refused(USAGE, "sqlite:PATH", "outbox", "status", "oracle:x")

    def test_random_ids_that_look_like_a_time_are_found(self):
        topic = self.topic()
        message = "742821cd-b9b2-7a81-b04c-adca00ff934a"  # As version 7 it is of the year 6017.
        self.db.sql("INSERT INTO ferry_outbox (topic, payload, msg_id) VALUES "
                    f"('{topic}', 'x', {self.db.bytes(uuid.UUID(message).bytes)})")
        self.assertEqual(self.relay()[0], OK)
        events = self.json("trace", message, "--db", self.db.url)
        self.assertIn("stored", [e.get("event") for e in events])

    def test_a_halted_relay_goes_on_after_a_rebase(self):
        topic = self.topic()
        self.put(topic, *[("k", f"before-{i}") for i in range(3)])
        copy = self.db.backup()
        self.assertEqual(self.relay()[0], OK)
        self.put(topic, ("k", "gone"))
        self.assertEqual(self.relay()[0], OK)
        self.db.restore(copy)
        self.put(topic, ("k", "after"))
        said = Path(self.home) / "relay.log"
        with open(said, "w", encoding="utf-8") as log:
            relay = subprocess.Popen([BIN / "ferry-outbox", "--db", self.db.url, "--server",
                                      self.broker.endpoint], stdout=log, stderr=log)
        try:
            until(lambda: "halted" in said.read_text(encoding="utf-8"), "the relay has halted")
            self.ok("outbox", "rebase", self.db.url, "--yes")
            until(lambda: len(self.published(topic)) >= 5, "the relay goes on")
            self.assertEqual(sorted(self.published(topic)),
                             ["after", "before-0", "before-1", "before-2", "gone"])
        finally:
            relay.terminate()
            relay.wait(PATIENCE)

    def test_a_relay_that_was_stopped_while_it_appended_adds_nothing_after_a_rebase(self):
        """Its append is in the network while it is stopped, and arrives when all is done."""
        network = Network(self)
        (Path(self.home) / "far").mkdir()
        broker = Broker(Path(self.home) / "far", *network.broker_options(), "--set",
                        "store.max_bytes=4G")
        self.addCleanup(broker.kill)
        topic = f"t-{uuid.uuid4().hex[:12]}"
        broker.ok("topic", "create", topic, "--partitions", "1")

        def published():
            return broker.ok("consume", topic, "--from", "start", "--idle-exit", "300ms",
                             "--quiet").decode().split()

        self.put(topic, ("k", "before"))
        relay = subprocess.Popen([BIN / "ferry-outbox", "--db", self.db.url, "--server",
                                  network.endpoint], stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
        self.addCleanup(relay.wait, PATIENCE)
        self.addCleanup(relay.kill)
        until(lambda: published() == ["before"], "the relay publishes")
        network.hold()
        self.put(topic, ("k", "stuck-0"), ("k", "stuck-1"), ("k", "stuck-2"))
        until(lambda: network.holds(b"stuck-2"), "the relay appends")
        os.kill(relay.pid, signal.SIGSTOP)
        until(lambda: broker.ferry("outbox", "rebase", self.db.url, "--yes")[0] == OK,
              "the relay's lease ends")
        self.assertEqual(published(), ["before"])
        answered = network.release()
        until(answered, "the broker answers the old append")
        self.assertEqual(published(), ["before"])
        os.kill(relay.pid, signal.SIGCONT)
        until(lambda: len(published()) >= 4, "it goes on under the new id")
        self.assertEqual(published(), ["before", "stuck-0", "stuck-1", "stuck-2"])

    def test_a_relay_that_is_active_keeps_a_rebase_away(self):
        relay = subprocess.Popen([BIN / "ferry-outbox", "--db", self.db.url, "--server",
                                  self.broker.endpoint], stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + PATIENCE
            while not any(r["active"] for r in self.status()["relays"]):
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.05)
            self.refused(FAILED, "is active", "outbox", "rebase", self.db.url, "--yes")
            made = self.json("outbox", "bench", self.db.url, "--records", "200")[0]
            self.assertEqual(made["put_to_log_us"]["count"], 200)
        finally:
            relay.terminate()
            relay.wait(PATIENCE)


class ReadmeTest(unittest.TestCase):
    def test_the_lines_of_the_readme_work(self):
        text = (SOURCE / "README.md").read_text(encoding="utf-8")
        lines = re.search(r"run by tests/system/cli/outbox_test.py.*?```sh\n(.*?)```", text,
                          re.S).group(1)
        with tempfile.TemporaryDirectory(prefix="ferry-readme-") as folder:
            (Path(folder) / "broker").mkdir()
            broker = Broker(Path(folder) / "broker", "--set", "store.max_bytes=4G")
            relay = None
            try:
                for line in filter(None, lines.splitlines()):
                    command = line.split("#")[0].replace(
                        "ferry ", f"{BIN}/ferry --server {broker.endpoint} ")
                    done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True,
                                          text=True, check=False, timeout=PATIENCE)
                    self.assertEqual(done.returncode, OK, f"{line}: {done.stderr}")
                    relay = relay or subprocess.Popen(
                        [BIN / "ferry-outbox", "--db", "sqlite:shop.db", "--server",
                         broker.endpoint], cwd=folder, stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL)
            finally:
                broker.kill()
                if relay is not None:
                    relay.terminate()
                    relay.wait(PATIENCE)


@unittest.skipIf(databases.PostgreSQL.programs() is None, "PostgreSQL is not installed")
class PostgreSqlTest(Transcripts, unittest.TestCase):
    @classmethod
    def prepare(cls):
        cls.server = databases.PostgreSQL(Path(cls.home) / "postgresql").start()
        cls.addClassCleanup(cls.server.close)

    def make(self):
        return PostgreSql(self.server)

    def test_a_password_is_not_seen_among_the_processes(self):
        """A server that takes the connection and says nothing: the command waits meanwhile."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"postgresql://someone:geheim@127.0.0.1:{silent.getsockname()[1]}/nothing"
            with subprocess.Popen([BIN / "ferry", "outbox", "status", url],
                                  stderr=subprocess.DEVNULL) as command:
                try:
                    silent.settimeout(PATIENCE)
                    with silent.accept()[0]:
                        words = Path(f"/proc/{command.pid}/cmdline").read_bytes()
                    self.assertIn(b"someone:******@", words)
                    self.assertNotIn(b"geheim", words)
                finally:
                    command.kill()


@unittest.skipIf(any(shutil.which(p) is None for p in databases.MariaDB.PROGRAMS),
                 "MariaDB is not installed")
class MariaDbTest(Transcripts, unittest.TestCase):
    @classmethod
    def prepare(cls):
        cls.server = databases.MariaDB(Path(cls.home) / "mariadb").start()
        cls.addClassCleanup(cls.server.close)

    def make(self):
        return MariaDb(self.server)


if __name__ == "__main__":
    unittest.main(verbosity=2)
