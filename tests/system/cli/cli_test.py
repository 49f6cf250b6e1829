"""The `ferry` command against a real ferryd: what scripts rely on.

Each test has topics of its own on one broker, which lives for the whole run in a temporary folder.
$FERRY_BIN holds the programs.
"""

import base64
import json
import os
import queue
import re
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import threading
import time
import unittest
import uuid

BIN = os.environ["FERRY_BIN"]
PATIENCE = 30  # Seconds for anything; nothing here should need one.

OK, FAILED, USAGE, NOT_FOUND, TIMEOUT = 0, 1, 2, 3, 5


class Broker:
    """A ferryd on a port of the system's choice."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="ferry-cli-")
        self.process = subprocess.Popen(
            [os.path.join(BIN, "ferryd"), "--data", os.path.join(self.folder, "data"),
             "--listen", "tcp://127.0.0.1:*", "--set", "store.max_bytes=4G"],
            stdout=subprocess.PIPE, text=True)
        lines = queue.Queue()
        threading.Thread(target=lambda: lines.put(self.process.stdout.readline()),
                         daemon=True).start()
        try:
            line = lines.get(timeout=PATIENCE)
        except queue.Empty:
            line = ""
        found = re.search(r"tcp://[0-9.]+:[0-9]+", line)
        if found is None:
            self.stop()
            raise RuntimeError(f"ferryd did not become ready: {line!r}")
        self.endpoint = found.group(0)

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.stdout.close()
            shutil.rmtree(self.folder, ignore_errors=True)


def ferry(*words, given=b"", server=True):
    """Runs the command; answers (exit code, standard output, standard error)."""
    where = ["--server", broker.endpoint] if server else []
    done = subprocess.run([os.path.join(BIN, "ferry"), *where, *words], input=given,
                          capture_output=True, timeout=PATIENCE)
    return done.returncode, done.stdout, done.stderr.decode()


def start(*words):
    return subprocess.Popen([os.path.join(BIN, "ferry"), "--server", broker.endpoint, *words],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def objects(out):
    return [json.loads(line) for line in out.splitlines()]


class CliTest(unittest.TestCase):
    def topic(self, partitions=1):
        name = f"t-{uuid.uuid4()}"
        self.run_ok("topic", "create", name, "--partitions", str(partitions))
        return name

    def run_ok(self, *words, given=b""):
        code, out, err = ferry(*words, given=given)
        self.assertEqual(code, OK, err)
        return out

    def consume(self, topic, *words):
        return self.run_ok("consume", topic, "--idle-exit", "300ms", *words)

    # ---- Topics

    def test_a_topic_is_made_listed_shown_and_deleted(self):
        name = self.topic(partitions=3)
        self.assertIn(name, self.run_ok("topic", "list").decode().split())
        self.assertIn(name, json.loads(self.run_ok("--json", "topic", "list"))["topics"])
        info = json.loads(self.run_ok("topic", "info", name, "--json"))
        self.assertEqual([p["partition"] for p in info["partitions"]], [0, 1, 2])
        self.assertTrue(all(p["end_offset"] == 0 for p in info["partitions"]))
        self.assertIn("partition", self.run_ok("topic", "info", name).decode())
        self.run_ok("topic", "delete", name)
        self.assertEqual(ferry("topic", "info", name)[0], NOT_FOUND)

    def test_making_a_topic_twice_succeeds_only_with_the_same_settings(self):
        name = self.topic(partitions=2)
        self.run_ok("topic", "create", name, "--partitions", "2")
        code, out, err = ferry("topic", "create", name, "--partitions", "3", "--json")
        self.assertEqual(code, USAGE)
        self.assertIn(f"ferry: topic create: {name}: TOPIC_EXISTS: ", err)
        self.assertEqual(json.loads(out)["error"], "TOPIC_EXISTS")

    def test_a_topic_that_is_not_there_is_not_found(self):
        for words in (["topic", "info"], ["topic", "delete"], ["consume"], ["subscription", "list"]):
            code, out, err = ferry(*words, "no-such-topic", "--json")
            self.assertEqual(code, NOT_FOUND, (words, err))
            self.assertEqual(json.loads(out)["class"], "not_found")
            self.assertIn("UNKNOWN_TOPIC", err)

    def test_no_broker_is_exit_code_5(self):
        code, out, err = ferry("topic", "list", "--server", "tcp://127.0.0.1:1", "--timeout",
                               "500ms", "--json", server=False)
        self.assertEqual(code, TIMEOUT, err)
        self.assertIn(json.loads(out)["error"], ("UNREACHABLE", "TIMEOUT"))

    def test_wrong_usage_is_exit_code_2_and_names_the_remedy(self):
        code, _, err = ferry("topic", "create", "x", "--partition", "3")
        self.assertEqual(code, USAGE)
        self.assertIn("did you mean --partitions?", err)
        self.assertEqual(ferry("topic", "create", "no/slash")[0], USAGE)
        self.assertEqual(ferry("--set", "no.such=1", "topic", "list")[0], USAGE)
        self.assertEqual(ferry()[0], USAGE)

    # ---- Produce and consume

    def test_lines_come_back_as_they_went_in(self):
        name = self.topic()
        lines = [b"first", b"", b"caf\xc3\xa9", b"\xff\x00\xfe", b"x" * 300000, b"last without newline"]
        _, _, err = ferry("produce", name, given=b"\n".join(lines))
        self.assertIn("6 of 6 records stored", err)
        self.assertEqual(self.consume(name), b"\n".join(lines) + b"\n")

    def test_every_record_has_one_report(self):
        name = self.topic(partitions=4)
        out = self.run_ok("produce", name, "--json", given=b"".join(b"%d\n" % i for i in range(5000)))
        reports = objects(out)
        self.assertEqual(sorted(r["line"] for r in reports), list(range(1, 5001)))
        self.assertTrue(all(r["outcome"] == "stored" and not r["duplicate"] for r in reports))
        places = {(r["partition"], r["offset"]) for r in reports}
        self.assertEqual(len(places), 5000)

    def test_a_line_over_the_limit_is_refused_and_not_cut(self):
        name = self.topic()
        code, out, err = ferry("produce", name, "--json", given=b"y" * (2 << 20) + b"\nok\n")
        self.assertEqual(code, FAILED, err)
        by_line = {r["line"]: r for r in objects(out)}
        self.assertEqual(by_line[1]["outcome"], "not_stored")
        self.assertEqual(by_line[1]["error"], "TOO_LARGE")
        self.assertEqual(by_line[2]["outcome"], "stored")
        self.assertEqual(self.consume(name), b"ok\n")

    def test_producing_to_no_topic_is_not_found(self):
        code, out, _ = ferry("produce", "no-such-topic", "--json", given=b"a\n")
        self.assertEqual(code, NOT_FOUND)
        self.assertEqual(objects(out)[0]["error"], "UNKNOWN_TOPIC")

    def test_a_key_keeps_records_together_and_comes_back(self):
        name = self.topic(partitions=4)
        self.run_ok("produce", name, "--key", "k1", "--header", "ce_type=a", "--header", "empty=",
                    given=b"one\ntwo\n")
        records = objects(self.consume(name, "--json"))
        self.assertEqual([r["payload"] for r in records], ["one", "two"])
        self.assertEqual({r["key"] for r in records}, {"k1"})
        self.assertEqual(len({r["partition"] for r in records}), 1)
        self.assertEqual(records[0]["headers"], {"ce_type": "a", "empty": ""})
        self.assertEqual(records[0]["topic"], name)
        self.assertIsNone(records[0]["id"])
        self.assertLess(abs(records[0]["timestamp"] / 1000 - time.time()), 600)

    def test_the_key_is_taken_from_json_and_lines_without_one_are_told(self):
        name = self.topic(partitions=2)
        code, out, err = ferry("produce", name, "--key-json", "user", "--json",
                               given=b'{"user":"ann"}\nno json\n{"user":7}\n{"other":1}\n')
        self.assertEqual(code, FAILED)
        outcomes = {r["line"]: r["outcome"] for r in objects(out)}
        self.assertEqual(outcomes, {1: "stored", 2: "not_stored", 3: "stored", 4: "not_stored"})
        self.assertIn("line 2", err)
        keys = {r["key"] for r in objects(self.consume(name, "--json"))}
        self.assertEqual(keys, {"ann", "7"})

    def test_bytes_that_are_not_utf8_are_base64(self):
        name = self.topic()
        self.run_ok("produce", name, given=b"\xff\xfe\n")
        record = objects(self.consume(name, "--json"))[0]
        self.assertNotIn("payload", record)
        self.assertEqual(base64.b64decode(record["payload_base64"]), b"\xff\xfe")

    def test_reading_begins_where_it_is_told_to(self):
        name = self.topic()
        self.run_ok("produce", name, given=b"0\n1\n2\n3\n")
        self.assertEqual(self.consume(name, "--from", "2"), b"2\n3\n")
        self.assertEqual(self.consume(name, "--from", "end"), b"")
        self.assertEqual(self.consume(name, "--from", "1h"), b"0\n1\n2\n3\n")
        self.assertEqual(self.consume(name, "--from", "2999-01-01T00:00:00Z"), b"")
        self.assertEqual(self.consume(name, "--count", "3"), b"0\n1\n2\n")
        code, _, err = ferry("consume", name, "--from", "99", "--idle-exit", "2s")
        self.assertEqual(code, NOT_FOUND, err)
        self.assertIn("OFFSET_OUT_OF_RANGE", err)

    def test_a_subscription_reads_on_where_it_stopped(self):
        name = self.topic(partitions=2)
        self.run_ok("produce", name, "--key", "a", given=b"".join(b"a%d\n" % i for i in range(50)))
        self.run_ok("produce", name, "--key", "b", given=b"".join(b"b%d\n" % i for i in range(50)))
        first = self.consume(name, "--subscription", "s", "--count", "30").splitlines()
        info = json.loads(self.run_ok("subscription", "info", name, "s", "--json"))
        self.assertEqual(info["lag_messages"], 70)
        self.assertGreater(info["lag_seconds"], 0)
        rest = self.consume(name, "--subscription", "s").splitlines()
        self.assertEqual(len(first), 30)
        want = [b"a%d" % i for i in range(50)] + [b"b%d" % i for i in range(50)]
        self.assertEqual(sorted(first + rest), sorted(want))
        info = json.loads(self.run_ok("subscription", "info", name, "s", "--json"))
        self.assertEqual((info["lag_messages"], info["lag_seconds"]), (0, 0))
        self.assertEqual(self.run_ok("subscription", "list", name), b"s\n")
        self.assertEqual(ferry("subscription", "info", name, "none")[0], NOT_FOUND)

    # ---- Interrupts and pipes

    def test_an_interrupt_of_produce_finishes_the_report(self):
        name = self.topic()
        process = start("produce", name, "--json")
        process.stdin.write(b"one\ntwo\n")
        process.stdin.flush()
        reports = [json.loads(process.stdout.readline()) for _ in range(2)]  # As they come.
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
        self.assertEqual(process.returncode, OK)
        self.assertEqual({r["outcome"] for r in reports}, {"stored"})
        self.assertIn(b"2 of 2 records stored", err)

    def test_an_interrupt_of_consume_commits_what_was_printed(self):
        name = self.topic()
        self.run_ok("produce", name, given=b"one\ntwo\n")
        process = start("consume", name, "--subscription", "s")
        self.assertEqual([process.stdout.readline() for _ in range(2)], [b"one\n", b"two\n"])
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
        self.assertEqual(process.returncode, OK)
        self.assertIn(b"2 records", err)
        self.assertEqual(self.consume(name, "--subscription", "s"), b"")

    def test_a_closed_pipe_ends_consume_quietly(self):
        name = self.topic()
        self.run_ok("produce", name, given=b"z" * 1000 + b"\n" + b"y\n" * 400000)
        process = start("consume", name)
        process.stdout.readline()
        process.stdout.close()
        process.wait(PATIENCE)
        self.assertEqual(process.returncode, OK)
        self.assertEqual(process.stderr.read(), b"")
        process.stderr.close()
        process.stdin.close()

    def test_an_interrupted_bench_tells_what_it_measured_and_deletes_its_topic(self):
        before = self.run_ok("topic", "list")
        for what in ("produce", "e2e"):
            process = start("bench", what, "--seconds", "600", "--rate", "200", "--json")
            while self.run_ok("topic", "list") == before:
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGINT)  # As a terminal and a wrapper do: still the first.
            out, err = process.communicate(timeout=PATIENCE)
            self.assertEqual(process.returncode, OK, err)
            self.assertEqual(json.loads(out)["bench"], what)
        self.assertEqual(self.run_ok("topic", "list"), before)

    # ---- Outbox, verify, bench

    def test_an_outbox_is_made_and_shown(self):
        with tempfile.TemporaryDirectory() as folder:
            url = f"sqlite:{folder}/app.db"
            self.assertNotEqual(ferry("outbox", "status", url, server=False)[0], OK)
            code, _, err = ferry("outbox", "init", url, server=False)
            self.assertEqual(code, OK, err)
            code, out, err = ferry("outbox", "status", url, "--json", "--offline", server=False)
            self.assertEqual(code, OK, err)
            self.assertEqual(json.loads(out)["pending_rows"], 0)
            self.assertEqual(ferry("inbox", "status", url, server=False)[0], OK)
            self.assertEqual(ferry("outbox", "status", "nonsense", server=False)[0], USAGE)

    def lists_of(self, folder, **lists):
        path = os.path.join(folder, "lists.db")
        with sqlite3.connect(path) as db:
            for name, ids in lists.items():
                db.execute(f"CREATE TABLE {name} (id)")
                db.executemany(f"INSERT INTO {name} VALUES (?)", [(i,) for i in ids])
        db.close()
        return f"sqlite:{path}"

    def verify(self, name, url, *words):
        code, out, err = ferry("verify", "effects", "--topic", name, "--json", "--committed", url,
                               "SELECT id FROM committed", "--effects", "ledger", url,
                               "SELECT id FROM ledger", *words)
        return code, json.loads(out), err

    def test_verify_is_content_with_one_effect_each_and_names_all_else(self):
        name = self.topic(partitions=2)
        self.run_ok("--set", "message.ids=uuid7", "produce", name,
                    given=b"".join(b"%d\n" % i for i in range(1000)))
        ids = [r["id"] for r in objects(self.consume(name, "--json"))]
        self.assertEqual(len(set(ids)), 1000)
        with tempfile.TemporaryDirectory() as folder:
            undone = str(uuid.uuid4())
            url = self.lists_of(folder, committed=ids, ledger=[uuid.UUID(i).bytes for i in ids],
                                undone=[undone])
            code, verdict, err = self.verify(name, url, "--rolled-back", url, "SELECT id FROM undone")
            self.assertEqual(code, OK, err)
            self.assertEqual((verdict["lost"], verdict["doubled"], verdict["unexpected"]), (0, 0, 0))
            self.assertEqual((verdict["committed"], verdict["rolled_back"]), (1000, 1))
        with tempfile.TemporaryDirectory() as folder:
            never = str(uuid.uuid4())
            url = self.lists_of(folder, committed=ids + [never], undone=[undone],
                                ledger=ids[1:] + [ids[5], ids[6], undone])
            code, verdict, err = self.verify(name, url, "--rolled-back", url, "SELECT id FROM undone")
            self.assertEqual(code, FAILED, err)
            self.assertEqual((verdict["log"]["lost"], verdict["log"]["unexpected"]), (1, 0))
            ledger = verdict["effects"][0]
            self.assertEqual((ledger["lost"], ledger["doubled"], ledger["unexpected"]), (2, 2, 1))
            named = {(f["kind"], f["place"], f["id"]) for f in verdict["findings"]}
            self.assertEqual(named, {("lost", "log", never), ("lost", "ledger", never),
                                     ("lost", "ledger", ids[0]), ("doubled", "ledger", ids[5]),
                                     ("doubled", "ledger", ids[6]), ("unexpected", "ledger", undone)})

    def test_benches_report_and_leave_no_topic(self):
        before = self.run_ok("topic", "list")
        made = json.loads(self.run_ok("bench", "produce", "--records", "20000", "--json"))
        self.assertEqual(made["stored"], 20000)
        self.assertGreaterEqual(made["latency_us"]["max"], made["latency_us"]["p50"])
        self.assertIn("fsync", made["broker"]["durability"])
        one = json.loads(self.run_ok("bench", "produce", "--sync", "--records", "50", "--json"))
        self.assertEqual(one["latency_us"]["count"], 50)
        read = json.loads(self.run_ok("bench", "consume", "--records", "20000", "--partitions", "4",
                                      "--json"))
        self.assertEqual(read["records"], 20000)
        both = json.loads(self.run_ok("bench", "e2e", "--records", "200", "--rate", "400", "--json"))
        self.assertEqual((both["records"], both["open_loop"]), (200, True))
        self.assertIn("speed", self.run_ok("bench", "produce", "--records", "100").decode())
        self.assertEqual(self.run_ok("topic", "list"), before)


if __name__ == "__main__":
    broker = Broker()
    try:
        unittest.main(verbosity=2, exit=True)
    finally:
        broker.stop()
