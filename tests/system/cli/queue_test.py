"""The commands of queue and keyed delivery, groups, dead letters, schedules, traces and quotas
against a real ferryd: each at work, as a script would use it."""
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
import unittest
import uuid
from pathlib import Path

from ferry_processes import BIN, Broker, until

OK, FAILED, USAGE, NOT_FOUND = 0, 1, 2, 3


def objects(out):
    return [json.loads(line) for line in out.splitlines()]


class QueueTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        home = cls.enterClassContext(tempfile.TemporaryDirectory(prefix="ferry-queue-"))
        cls.broker = Broker(home, "--set", "store.max_bytes=4G")
        cls.addClassCleanup(cls.broker.kill)

    # ---- What the tests have in common.

    def ok(self, *words, given=b""):
        code, out, err = self.broker.ferry(*words, given=given)
        self.assertEqual(code, OK, f"ferry {' '.join(words)}: {err}")
        return out

    def json(self, *words, given=b""):
        return objects(self.ok("--json", *words, given=given))

    def refused(self, code, text, *words, given=b""):
        got, _, err = self.broker.ferry(*words, given=given)
        self.assertEqual(got, code, err)
        self.assertIn(text, err)

    def topic(self, *words, lines=(), partitions=1):
        name = f"t-{uuid.uuid4().hex[:12]}"
        self.ok("topic", "create", name, "--partitions", str(partitions), *words)
        if lines:
            self.produce(name, lines)
        return name

    def produce(self, topic, lines, *words):
        self.ok("produce", topic, "--quiet", *words,
                given=b"".join(line.encode() + b"\n" for line in lines))

    def queue(self, topic, *words, mode="queue", name="work"):
        self.ok("subscription", "create", topic, name, "--mode", mode, *words)
        return name

    def take(self, topic, *words, idle="500ms", name="work"):
        return self.ok("consume", topic, "--subscription", name, "--idle-exit", idle, "--quiet",
                       *words).decode().splitlines()

    def info(self, topic, name="work"):
        return self.json("subscription", "info", topic, name)[0]

    def dead(self, count, *words):
        """A topic with so many dead letters: every message fails once, and that is enough."""
        topic = self.topic(*words, lines=[f"m{i}" for i in range(count)])
        self.queue(topic, "--max-deliveries", "1")
        self.take(topic, "--nack-every", "1", "--count", str(count))
        return topic

    # ---- Subscriptions.

    def test_a_subscription_is_made_altered_paused_and_deleted(self):
        topic = self.topic(lines=["a", "b"])
        self.queue(topic, "--lease", "5s", "--max-deliveries", "3", "--backoff", "100ms..2s",
                   "--in-flight", "7")
        info = self.info(topic)
        self.assertEqual((info["mode"], info["lease_ms"], info["max_deliveries"]),
                         ("queue", 5000, 3))
        self.assertEqual((info["backoff_min_ms"], info["backoff_max_ms"], info["in_flight"]),
                         (100, 2000, 7))
        self.assertEqual((info["ready"], info["lag_messages"], info["paused"]), (2, 2, False))
        self.ok("subscription", "alter", topic, "work", "--lease", "9s")
        self.assertEqual(self.info(topic)["lease_ms"], 9000)
        self.assertEqual(self.info(topic)["max_deliveries"], 3)
        self.ok("subscription", "pause", topic, "work")
        self.assertTrue(self.info(topic)["paused"])
        self.assertEqual(self.take(topic), [])
        self.ok("subscription", "resume", topic, "work")
        self.assertEqual(sorted(self.take(topic, "--count", "2")), ["a", "b"])
        self.ok("subscription", "delete", topic, "work")
        self.refused(NOT_FOUND, "UNKNOWN_SUBSCRIPTION", "subscription", "info", topic, "work")

    def test_settings_that_do_not_fit_are_refused_with_the_remedy(self):
        topic = self.topic()
        for words, text in ((("--mode", "both"), "stream, queue or keyed"),
                            (("--lease", "5s"), "of --mode queue and keyed"),
                            (("--mode", "queue", "--key-policy", "park"), "of --mode keyed"),
                            (("--mode", "queue", "--backoff", "10m..1s"), "MIN..MAX"),
                            (("--mode", "queue", "--lease", "1ms"), "--lease"),
                            (("--mode", "queue", "--from", "10m"), "subscription reset")):
            self.refused(USAGE, text, "subscription", "create", topic, "work", *words)
        self.refused(USAGE, "nothing to alter", "subscription", "alter", topic, "work")
        self.queue(topic)
        self.refused(USAGE, "SUBSCRIPTION_EXISTS", "subscription", "create", topic, "work",
                     "--mode", "keyed")

    def test_a_reset_shows_what_it_would_do_and_does_it(self):
        topic = self.topic(lines=["a", "b", "c"])
        self.queue(topic)
        for number in ("-1", "-2", "-4"):
            self.refused(USAGE, "--to takes", "subscription", "reset", topic, "work", "--to", number)
        self.take(topic, "--count", "3")
        until(lambda: self.info(topic)["acked"] == 3, "all are acked")
        [would] = self.json("subscription", "reset", topic, "work", "--to", "start", "--dry-run")
        self.assertEqual((would["dry_run"], would["partitions"][0]["to"]), (True, 0))
        self.assertEqual(self.take(topic), [])
        self.ok("subscription", "reset", topic, "work", "--to", "1")
        self.assertEqual(self.take(topic), ["b", "c"])
        out = self.ok("subscription", "reset", topic, "work", "--to", "1h").decode()
        self.assertRegex(out, r"come again")
        self.assertEqual(self.take(topic), ["a", "b", "c"])
        self.refused(USAGE, "--to", "subscription", "reset", topic, "work")
        self.refused(NOT_FOUND, "UNKNOWN_SUBSCRIPTION", "subscription", "reset", topic, "x",
                     "--to", "end")

    # ---- Consuming.

    def test_every_message_goes_to_one_reader_and_is_acked(self):
        lines = [f"m{i}" for i in range(300)]
        topic = self.topic(lines=lines, partitions=2)
        self.queue(topic)
        words = [BIN / "ferry", "--server", self.broker.endpoint, "consume", topic,
                 "--subscription", "work", "--idle-exit", "1s", "--quiet"]
        readers = [subprocess.Popen([*words, "--member", name], stdout=subprocess.PIPE)
                   for name in ("ann", "ben")]
        got = [reader.communicate(timeout=60)[0].decode().splitlines() for reader in readers]
        self.assertEqual([reader.returncode for reader in readers], [0, 0])
        self.assertEqual(sorted(got[0] + got[1]), sorted(lines))
        info = self.info(topic)
        self.assertEqual((info["acked"], info["ready"], info["leased"]), (300, 0, 0))

    def test_what_is_not_acked_comes_again_when_its_lease_ends(self):
        topic = self.topic(lines=["a"])
        self.queue(topic, "--lease", "300ms", "--backoff", "10ms..20ms")
        [first] = self.json("consume", topic, "--subscription", "work", "--ack", "none",
                            "--count", "1", "--quiet")
        self.assertEqual((first["handed_out"], first["failed"]), (1, 0))
        [again] = self.json("consume", topic, "--subscription", "work", "--count", "1", "--quiet")
        self.assertEqual((again["payload"], again["handed_out"], again["failed"]), ("a", 2, 1))
        self.assertEqual(self.take(topic), [])

    def test_a_nacked_message_is_tried_again(self):
        topic = self.topic(lines=["a", "b", "c"])
        self.queue(topic, "--backoff", "10ms..20ms")
        got = self.take(topic, "--nack-every", "2", "--count", "4")
        self.assertEqual(sorted(set(got)), ["a", "b", "c"])
        self.assertEqual(len(got), 4)
        self.refused(USAGE, "--nack-every", "consume", topic, "--subscription", "work", "--ack",
                     "none", "--nack-every", "2")

    def test_a_subscription_is_made_by_its_first_reader_and_its_mode_is_known(self):
        topic = self.topic(lines=["a", "b"])
        self.assertEqual(self.take(topic, "--mode", "keyed", "--count", "1"), ["a"])
        self.assertEqual(self.info(topic)["mode"], "keyed")
        self.assertEqual(self.take(topic), ["b"])
        self.refused(USAGE, "SUBSCRIPTION_EXISTS", "consume", topic, "--subscription", "work",
                     "--mode", "stream", "--idle-exit", "1ms")
        self.refused(USAGE, "--subscription", "consume", topic, "--mode", "queue")

    def test_keys_stay_in_order_through_failures(self):
        topic = self.topic(partitions=2)
        for i in range(10):
            for key in ("x", "y"):
                self.produce(topic, [f"{key}{i}"], "--key", key)
        self.queue(topic, "--backoff", "10ms..20ms", mode="keyed")
        got = self.take(topic, "--nack-every", "3", idle="1s")
        for key in ("x", "y"):
            mine = [line for line in got if line[0] == key]
            kept = [line for i, line in enumerate(mine) if mine[i + 1:i + 2] != [line]]
            self.assertEqual(kept, [f"{key}{i}" for i in range(10)])

    def test_higher_priorities_go_first(self):
        topic = self.topic()
        self.produce(topic, ["low"])
        self.produce(topic, ["high"], "--priority", "7")
        self.queue(topic)
        self.assertEqual(self.take(topic, "--count", "1"), ["high"])
        self.assertEqual(self.take(topic, "--count", "1"), ["low"])

    def test_what_is_acked_is_dropped_where_the_topic_says_so(self):
        topic = self.topic("--retention-acked", lines=["a"])
        self.assertTrue(self.json("topic", "info", topic)[0]["retention_acked"])
        self.queue(topic)
        self.assertEqual(self.take(topic), ["a"])
        until(lambda: self.json("topic", "info", topic)[0]["partitions"][0]["start_offset"] == 1,
              "the acked message is dropped")

    def test_members_of_a_stream_share_the_partitions(self):
        topic = self.topic(lines=[f"m{i}" for i in range(40)], partitions=4)
        words = [BIN / "ferry", "--server", self.broker.endpoint, "consume", topic,
                 "--subscription", "group", "--mode", "stream", "--idle-exit", "12s", "--quiet"]
        readers = [subprocess.Popen([*words, "--member", name], stdout=subprocess.PIPE)
                   for name in ("ann", "ben")]

        def members():
            listed = self.json("subscription", "members", topic, "group")[0]["members"]
            return sorted((m["member"], m["held"]) for m in listed) == [("ann", 2), ("ben", 2)]
        try:
            until(lambda: self.broker.ferry("subscription", "info", topic, "group")[0] == 0,
                  "the subscription is made")
            until(members, "each has two partitions")
        finally:
            got = [reader.communicate(timeout=60)[0].decode().splitlines() for reader in readers]
        self.assertEqual([reader.returncode for reader in readers], [0, 0])
        self.assertEqual(set(got[0] + got[1]), {f"m{i}" for i in range(40)})
        events = self.json("subscription", "history", topic, "group")
        self.assertTrue({"joined", "left"} <= {event["event"] for event in events}, events)
        self.assertIn("ann", {event["who"] for event in events})
        self.assertIn("joined", self.ok("subscription", "history", topic, "group").decode())

    # ---- Peeking and tracing.

    def test_peek_consumes_nothing(self):
        topic = self.topic(lines=["a", "b", "c"])
        self.queue(topic)
        out = self.ok("peek", topic, "--count", "2").decode().splitlines()
        self.assertEqual([line.split("\t")[3] for line in out], ["a", "b"])
        self.assertEqual(out[1].split("\t")[0], "0/1")
        self.assertEqual([o["payload"] for o in self.json("peek", topic, "--offset", "2")], ["c"])
        self.assertEqual(len(self.json("peek", topic, "--time", "1h")), 3)
        self.assertEqual(self.json("peek", topic, "--time", "0ms"), [])
        self.assertEqual(self.info(topic)["ready"], 3)
        self.refused(USAGE, "exclude each other", "peek", topic, "--offset", "1", "--time", "1h")
        self.refused(NOT_FOUND, "UNKNOWN_PARTITION", "peek", topic, "--partition", "3")
        self.refused(NOT_FOUND, "UNKNOWN_TOPIC", "peek", "no-such-topic")

    def test_peek_finds_a_key_and_an_id(self):
        topic = self.topic(partitions=3)
        for key in ("x", "y", "z"):
            self.produce(topic, [f"of {key}"], "--key", key, "--set", "message.ids=uuid7")
        [found] = self.json("peek", topic, "--key", "y")
        self.assertEqual(found["payload"], "of y")
        self.assertEqual(self.json("peek", topic, "--id", found["id"]), [found])
        self.refused(NOT_FOUND, "UNKNOWN_MESSAGE", "peek", topic, "--id", str(uuid.uuid4()))
        self.refused(USAGE, "--id", "peek", topic, "--id", "x")

    def test_trace_tells_the_life_of_a_message(self):
        topic = self.topic()
        self.produce(topic, ["a"], "--set", "message.ids=uuid7")
        self.queue(topic, "--backoff", "3s..6s")  # Ann is gone when it comes again.
        self.take(topic, "--nack-every", "1", "--count", "1", "--member", "ann")
        self.take(topic, "--count", "1", "--member", "ben", idle="20s")
        [record] = self.json("peek", topic)
        head, *events = self.json("trace", record["id"])
        self.assertEqual((head["topic"], head["partition"], head["offset"]), (topic, 0, 0))
        self.assertEqual([event["event"] for event in events],
                         ["stored", "handed out", "nacked", "handed out", "acked"])
        self.assertEqual([event["member"] for event in events[1:]], ["ann", "ann", "ben", "ben"])
        self.assertEqual(events[2]["reason"], "consume --nack-every")
        self.assertTrue(all(event["time_ms"] > 0 for event in events))
        self.assertEqual({event["node"] for event in events[1:]}, {1})
        text = self.ok("trace", f"{topic}/0/0").decode()
        self.assertRegex(text, r"nacked +node 1 +work +by ann: consume --nack-every")
        self.assertEqual(self.ok("trace", record["id"], "--topic", topic).decode(), text)

    def test_trace_says_what_it_does_not_know(self):
        topic = self.topic()
        self.refused(NOT_FOUND, "UNKNOWN_MESSAGE", "trace", str(uuid.uuid4()))
        self.refused(NOT_FOUND, "UNKNOWN_TOPIC", "trace", "no-such-topic/0/0")
        self.refused(USAGE, "neither", "trace", "x")
        code, _, err = self.broker.ferry("trace", f"{topic}/0/7")
        self.assertEqual(code, NOT_FOUND)
        self.assertNotEqual(err, "")

    # ---- Dead letters.

    def test_dead_letters_are_grouped_by_reason(self):
        topic = self.dead(3)
        [listed] = self.json("dlq", "list", topic, "work")
        self.assertEqual(listed["letters"], 3)
        [group] = listed["reasons"]
        self.assertEqual((group["reason"], group["letters"]), ("consume --nack-every", 3))
        self.assertGreaterEqual(group["newest_ms"], group["oldest_ms"])
        self.assertRegex(self.ok("dlq", "list", topic, "work").decode(),
                         r"(?m)^ +3 +0 .*consume --nack-every$")
        each = self.ok("dlq", "list", topic, "work", "--reason", group["reason"]).decode()
        self.assertEqual([line.split("\t")[:3] for line in each.splitlines()],
                         [["0", "1", "0"], ["0", "2", "1"], ["0", "3", "2"]])
        self.assertEqual(self.ok("dlq", "list", topic, "work", "--reason", "other"), b"")

    def test_one_is_shown_whole_with_its_failures(self):
        topic = self.dead(1)
        [letter] = self.json("dlq", "show", topic, "work", "--partition", "0", "--number", "1")
        self.assertEqual((letter["offset"], letter["failed"]), (0, 1))
        self.assertEqual(letter["message"]["payload"], "m0")
        self.assertEqual(letter["failures"][-1]["kind"], "nacked")
        text = self.ok("dlq", "show", topic, "work", "--partition", "0", "--number", "1").decode()
        self.assertRegex(text, r"(?m)^reason +consume --nack-every$")
        self.assertTrue(text.endswith("m0\n"))
        self.refused(NOT_FOUND, "no such dead letter", "dlq", "show", topic, "work", "--partition",
                     "0", "--number", "9")
        self.refused(USAGE, "give both", "dlq", "show", topic, "work", "--number", "9")

    def test_they_are_exported_and_read_as_a_topic(self):
        topic = self.dead(3)
        exported = objects(self.ok("dlq", "export", topic, "work"))
        self.assertEqual([o["payload"] for o in exported], ["m0", "m1", "m2"])
        self.assertEqual(exported[0]["headers"]["ferry-dlq-reason"], "consume --nack-every")
        read = self.json("consume", f"{topic}.dlq.work", "--idle-exit", "300ms", "--quiet")
        self.assertEqual([o["payload"] for o in read], ["m0", "m1", "m2"])
        self.assertEqual(len(self.json("peek", f"{topic}.dlq.work", "--count", "2")), 2)

    def test_a_replay_takes_a_word_for_everything(self):
        topic = self.dead(5)
        self.refused(USAGE, "which ones", "dlq", "replay", topic, "work")
        self.refused(USAGE, "which ones", "dlq", "drop", topic, "work", "--all", "--reason", "r")
        self.assertIn(b"5 dead letters would be replayed",
                      self.ok("dlq", "replay", topic, "work", "--all", "--dry-run"))
        self.assertEqual(self.take(topic), [])
        self.assertIn(b"5 of 5 dead letters replayed",
                      self.ok("dlq", "replay", topic, "work", "--all", "--rate", "1000"))
        self.assertEqual(sorted(self.take(topic, "--count", "5")), [f"m{i}" for i in range(5)])
        until(lambda: self.info(topic)["dead"] == 0, "the letters have gone")
        self.assertEqual(self.json("dlq", "replay", topic, "work", "--all")[0]["replayed"], 0)

    def test_a_replay_keeps_to_its_rate(self):
        topic = self.dead(30)
        began = time.monotonic()
        self.ok("dlq", "replay", topic, "work", "--reason", "consume --nack-every", "--rate", "30")
        self.assertGreater(time.monotonic() - began, 0.8)

    def test_one_is_edited_and_replayed(self):
        topic = self.topic()
        self.produce(topic, ["bad"], "--key", "k", "--header", "h=v")
        self.queue(topic, "--max-deliveries", "1")
        self.take(topic, "--nack-every", "1", "--count", "1")
        words = ("--partition", "0", "--number", "1")
        self.assertIn("id               -\n", self.ok("dlq", "show", topic, "work", *words).decode())
        self.refused(USAGE, "TOO_LARGE", "dlq", "replay", topic, "work", *words, "--edit", "-",
                     given=bytes(2 << 20))
        self.ok("dlq", "replay", topic, "work", *words, "--edit", "-", given=b"good")
        [got] = self.json("consume", topic, "--subscription", "work", "--count", "1", "--quiet")
        self.assertEqual((got["payload"], got["key"], got["headers"]), ("good", "k", {"h": "v"}))
        self.refused(USAGE, "--edit is for one", "dlq", "replay", topic, "work", "--all", "--edit",
                     "-")
        self.refused(NOT_FOUND, "no such dead letter", "dlq", "replay", topic, "work",
                     "--partition", "0", "--number", "99")

    def test_dropped_ones_are_gone(self):
        topic = self.dead(3)
        self.assertIn(b"1 of 1", self.ok("dlq", "drop", topic, "work", "--partition", "0",
                                         "--number", "2"))
        self.assertEqual([o["payload"] for o in objects(self.ok("dlq", "export", topic, "work"))],
                         ["m0", "m2"])
        self.assertEqual(self.json("dlq", "drop", topic, "work", "--all")[0]["dropped"], 2)
        self.assertEqual(self.info(topic)["dead"], 0)

    # ---- Schedules.

    def test_delayed_messages_come_when_they_are_due(self):
        topic = self.topic()
        began = time.time()
        [report] = self.json("produce", topic, "--in", "1s", "--quiet", given=b"later\n")
        self.assertIsNone(report["offset"])
        self.assertRegex(report["schedule"], r"^0/\d+/\d+$")
        self.produce(topic, ["now"])
        got = self.ok("consume", topic, "--count", "2", "--quiet").decode().splitlines()
        self.assertEqual(got, ["now", "later"])
        self.assertGreater(time.time() - began, 0.9)
        self.refused(USAGE, "a time to come", "produce", topic, "--at", "2001-01-01T00:00:00Z")
        self.refused(USAGE, "exclude each other", "produce", topic, "--in", "1s", "--at",
                     "2101-01-01T00:00:00Z")

    def test_delayed_messages_are_listed_and_taken_back(self):
        topic = self.topic()
        words = self.ok("schedule", "add", topic, "--in", "1h", "--key", "k", "--quiet",
                        given=b"a\nb\nc\n").decode().split()
        self.assertEqual(len(words), 3)
        [listed] = self.json("schedule", "list", topic)
        self.assertEqual(listed["waiting"], 3)
        self.assertEqual([d["schedule"] for d in listed["delayed"]], words)
        self.assertEqual(listed["delayed"][0]["key"], "k")
        self.assertIn("(1 of 3", self.ok("schedule", "list", topic, "--count", "1").decode())
        self.assertIn(b"1 of 1", self.ok("schedule", "cancel", topic, "--schedule", words[1]))
        self.refused(NOT_FOUND, "", "schedule", "cancel", topic, "--schedule", words[1])
        self.assertEqual(self.json("schedule", "cancel", topic, "--all")[0]["cancelled"], 2)
        self.assertEqual(self.json("schedule", "list", topic)[0]["waiting"], 0)
        self.refused(USAGE, "which ones", "schedule", "cancel", topic)
        self.refused(USAGE, "PARTITION/DUE/NUMBER", "schedule", "cancel", topic, "--schedule", "x")

    def test_a_recurring_message_comes_again_until_it_is_cancelled(self):
        topic = self.topic(partitions=2)
        self.ok("schedule", "add", topic, "--every", "1s", "--name", "tick", given=b"tick\n")
        self.assertEqual(self.ok("consume", topic, "--count", "2", "--quiet"), b"tick\ntick\n")
        self.ok("schedule", "add", topic, "--cron", "0 9 * * 1", "--tz", "Europe/Berlin", "--name",
                "monday", given=b"up")
        [listed] = self.json("schedule", "list", topic)
        found = {r["name"]: r for r in listed["recurring"]}
        self.assertEqual(found["monday"]["zone"], "Europe/Berlin")
        self.assertGreaterEqual(found["tick"]["fired"], 2)
        self.ok("schedule", "cancel", topic, "--name", "tick")
        self.refused(NOT_FOUND, "no recurring message", "schedule", "cancel", topic, "--name",
                     "tick")
        for words, text in (((), "when?"), (("--every", "1s"), "--name"),
                            (("--cron", "0 9 * * 1", "--name", "n"), "--tz"),
                            (("--cron", "nonsense", "--tz", "UTC", "--name", "n"), "INVALID"),
                            (("--cron", "* * * * *", "--tz", "Mars/Base", "--name", "n"),
                             "INVALID"),
                            (("--every", "1500ms", "--name", "n"), "whole seconds")):
            self.refused(USAGE, text, "schedule", "add", topic, *words, given=b"x")
        self.refused(USAGE, "TOO_LARGE", "schedule", "add", topic, "--every", "1s", "--name", "n",
                     given=bytes(2 << 20))

    def test_dead_letters_that_cannot_be_there_are_no_reason_to_wait(self):
        topic = self.topic(lines=["a"])
        self.ok("subscription", "create", topic, "log")
        for words in (("peek", f"{topic}.dlq.none"), ("dlq", "export", topic, "none"),
                      ("consume", f"{topic}.dlq.none", "--idle-exit", "5s")):
            self.refused(NOT_FOUND, "UNKNOWN_SUBSCRIPTION", *words)
        for words in (("dlq", "list", topic, "log"), ("dlq", "export", topic, "log")):
            self.refused(USAGE, "a stream has no dead letters", *words)
        self.queue(topic)
        for words in (("peek", f"{topic}.dlq.work"), ("dlq", "export", topic, "work")):
            self.assertEqual(self.ok(*words), b"")
        for words in (("create",), ("info",), ("delete",), ("reset", "--to", "end")):
            self.refused(USAGE, "only read", "subscription", words[0], f"{topic}.dlq.work", "work",
                         *words[1:])

    # ---- Quotas.

    def test_quotas_are_set_shown_and_kept_to(self):
        topic = self.topic()
        self.ok("quota", "set", "--topic", topic, "--messages", "50")
        shown = [q for q in self.json("quota", "show")[0]["quotas"] if q["topic"] == topic]
        self.assertEqual(shown, [{"client": None, "topic": topic, "bytes_per_second": 0,
                                  "messages_per_second": 50, "requests_per_second": 0}])
        self.assertRegex(self.ok("quota", "show").decode(),
                         rf"(?m)^\* +{topic} +no limit +50 +no limit$")
        began = time.monotonic()
        for _ in range(3):
            self.produce(topic, [str(i) for i in range(50)])
        self.assertGreater(time.monotonic() - began, 0.8)
        self.ok("quota", "set", "--topic", topic, "--messages", "0")
        self.assertNotIn(topic, self.ok("quota", "show").decode())
        self.refused(USAGE, "how much", "quota", "set", "--topic", topic)

    # ---- All of them.

    def test_the_tour_of_the_readme_works_as_printed(self):
        readme = (Path(os.environ["FERRY_SOURCE"]) / "README.md").read_text(encoding="utf-8")
        block = re.search(r"run by tests/system/cli/queue_test.py.*?```sh\n(.*?)```", readme, re.S)
        script = ('set -eu -o pipefail\nferry() { command ferry --server "$SERVER" "$@"; }\n' +
                  block.group(1))
        home = self.enterContext(tempfile.TemporaryDirectory(prefix="ferry-tour-"))
        done = subprocess.run(["bash", "-c", script], cwd=home, capture_output=True, timeout=120,
                              env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}",
                                   "SERVER": self.broker.endpoint}, check=False)
        self.assertEqual(done.returncode, 0, done.stdout.decode() + done.stderr.decode())
        self.assertGreater(len((Path(home) / "letters.json").read_text(encoding="utf-8")), 0)

    def test_every_command_explains_itself(self):
        overview = self.ok("--help").decode()
        names = re.findall(r"(?m)^  ([a-z][a-z0-9 -]*?)  ", overview)
        self.assertGreater(len(names), 45)
        for name in names:
            self.assertTrue(self.ok(*name.split(), "--help").decode().startswith("usage: ferry "))

    def test_the_formatter_has_no_warning_about_any_manual_page(self):
        pages = sorted((BIN / "man").glob("*.[18]"))
        self.assertTrue({"ferry.1", "ferryd.8", "ferry-outbox.8"} <= {page.name for page in pages})
        if shutil.which("groff") is None:
            self.skipTest("groff is not installed")
        done = subprocess.run(["groff", "-man", "-ww", "-z", *pages], capture_output=True,
                              timeout=60, check=False)
        self.assertEqual(done.stderr.decode(), "")


if __name__ == "__main__":
    unittest.main()
