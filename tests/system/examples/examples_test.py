"""Every program of examples/ does what it says."""
import os
import re
import unittest
from pathlib import Path

from ferry_processes import BIN, Broker, folder, run, until

DEMO = Path(os.environ["FERRY_SOURCE"]) / "examples/demo.sh"
BANK = Path(os.environ["FERRY_SOURCE"]) / "examples/bank/run.sh"
CLUSTER = Path(os.environ["FERRY_SOURCE"]) / "examples/cluster.sh"


class ExamplesTest(unittest.TestCase):
    def demo(self, *words):
        home = folder(self)
        result = run(DEMO, *words, env={**os.environ, "TMPDIR": str(home)}, patience=100)
        return home, *result

    def test_the_demo_ends_with_nothing_lost_doubled_or_unexpected(self):
        home, code, out, err = self.demo()
        text = out.decode()
        self.assertEqual(code, 0, text + err)
        for name in ("relay", "ledger", "broker"):
            self.assertIn(f"kill -9 of the {name}", text)
        for row in ("committed", "rolled back", "in the log", "effects at ledger", "effects at audit"):
            self.assertRegex(text, rf"(?m)^{row} ")
        self.assertEqual(list(home.iterdir()), [], "it cleans up after itself")

    def test_the_demo_ends_as_well_with_three_brokers(self):
        home, code, out, err = self.demo("--brokers", "3")
        text = out.decode()
        self.assertEqual(code, 0, text + err)
        self.assertRegex(text, r"kill -9 of broker [123], a leader")
        self.assertIn("kill -9 of all brokers", text)
        self.assertRegex(text, r"(?m)^effects at audit ")
        self.assertEqual(list(home.iterdir()), [], "it cleans up after itself")
        self.assertEqual(self.demo("--brokers", "2")[1], 2)

    def test_the_demo_takes_any_file_and_keeps_what_it_made_when_asked(self):
        lines = folder(self) / "lines"
        lines.write_bytes(b"\n".join(b"k%d\tv\tsection\t%d" % (i % 7, i) for i in range(205)) +
                          b"\n\n\xff\xfe raw\nlast, without a newline")
        home, code, out, err = self.demo("--input", str(lines), "--keep")
        text = out.decode()
        self.assertEqual(code, 0, text + err)
        self.assertRegex(text, r"(?m)^committed +188\b")
        self.assertRegex(text, r"(?m)^rolled back +20\b")
        kept = [path.name for path in next(home.iterdir()).iterdir()]
        for name in ("shop.db", "ledger.db", "audit.db", "ferryd.log"):
            self.assertIn(name, kept)

    def test_the_demo_says_what_is_wrong_with_its_words(self):
        self.assertEqual(self.demo("--input", "/no/such/file")[1], 2)
        self.assertEqual(self.demo("--no-such-option")[1], 2)
        self.assertEqual(self.demo("--help")[1], 0)

    def bank(self, *words):
        home = folder(self)
        home.chmod(0o711)  # The servers' users come through.
        result = run(BANK, *words, env={**os.environ, "TMPDIR": str(home)}, patience=150)
        return home, *result

    @unittest.skipUnless((BIN / "examples/bank").exists(), "PostgreSQL's or MariaDB's library is missing")
    @unittest.skipIf(b"__asan_init" in (BIN / "ferryd").read_bytes(), "too slow with a sanitizer")
    def test_the_bank_ends_with_not_a_cent_lost(self):
        home, code, out, err = self.bank("--transfers", "150", "--kills", "4", "--seed", "3")
        text = out.decode()
        self.assertEqual(code, 0, text + err)
        self.assertRegex(text, r"\d+ begun, \d+ done, \d+ compensated, \d+ in flight, \d+ kills, money")
        self.assertRegex(text.splitlines()[-1], r"^good: 150 transfers, [4-9] kills, and not a cent")
        self.assertEqual(list(home.iterdir()), [], "it cleans up after itself")
        self.assertEqual(self.bank("--help")[1], 0)
        self.assertEqual(self.bank("--no-such-option")[1], 2)

    def cluster(self, word, home, port):
        env = {**os.environ, "FERRY_PORT": str(port)}
        code, out, err = run(CLUSTER, word, home, env=env, patience=60)
        return code, out.decode(), err

    def is_healthy(self, home, port):
        code, out, err = self.cluster("status", home, port)
        self.assertEqual(code, 0, out + err)
        return re.search(r"(?m)^healthy +2 of 2$", out) is not None

    def test_a_cluster_starts_serves_stops_and_goes_on(self):
        home = folder(self)
        port = 21000 + os.getpid() % 500 * 20  # Below those of outgoing connections.
        self.addCleanup(self.cluster, "stop", home, port)
        for turn in range(2):
            code, out, err = self.cluster("start", home, port)
            self.assertEqual(code, 0, out + err)
            server = re.search(r"^server: (\S+)$", out, re.M).group(1)
            self.assertEqual(len(server.split(",")), 3)
            code, out, err = run(BIN / "ferry", "--server", server, "topic", "create", "t")
            self.assertEqual(code, 0, err)
            until(lambda: self.is_healthy(home, port), "every replica was heard by its leader")
            code, out, err = self.cluster("stop", home, port)
            self.assertEqual(code, 0, out + err)
            self.assertEqual(out.count("stopped"), 3)
        self.assertEqual(self.cluster("stop", home, port)[1].count("not running"), 3)
        self.assertEqual(run(CLUSTER, "no-such-word")[0], 2)
        self.assertEqual(run(CLUSTER, "--help")[0], 0)

    def test_hello_has_each_effect_once(self):
        home = folder(self)
        for effects in (1, 2):
            code, out, err = run(BIN / "examples/hello", home)
            self.assertEqual(code, 0, err)
            self.assertIn(b"effects: %d\n" % effects, out)

    def mode(self, name):
        """A program that ends by itself, with a verdict."""
        code, out, err = run(BIN / "examples" / name, folder(self) / "data")
        text = out.decode()
        self.assertEqual(code, 0, text + err)
        self.assertRegex(text.splitlines()[-1], "^good: ")
        return text

    def test_a_stream_is_shared_out_over_its_members(self):
        text = self.mode("stream")
        self.assertIn("ben has 2 of 4 partitions", text)
        self.assertIn("sent 6000, read 6000", text)

    def test_a_queue_does_every_job_once(self):
        text = self.mode("queue")
        self.assertIn("jobs 300, acked 294, dead letters 6, tried again 30", text)
        self.assertEqual(text.count("no such customer"), 6)

    def test_keys_stay_in_order(self):
        self.assertIn("updates 600, ", self.mode("keyed"))

    def test_a_transformation_makes_no_duplicates(self):
        text = self.mode("transform")
        self.assertRegex(text, r"recognised as repeats [1-9]\d*, invoices 500, twice 0")

    def test_an_order_is_done_everywhere_or_nowhere(self):
        home = folder(self)
        code, out, err = run(BIN / "examples/saga", home, patience=60)
        text = out.decode()
        self.assertEqual(code, 0, text + err)
        self.assertRegex(text, r"(?m)^good: ")
        for line in ("order 1: carrier does its part", "order 2: carrier refuses",
                     "order 2: store takes it back", "order 2: bank takes it back",
                     "order 3: bank refuses"):
            self.assertEqual(text.count(line), 1, text)
        self.assertLess(text.index("order 2: store takes"), text.index("order 2: bank takes"))

    def test_an_application_is_its_own_relay(self):
        home = folder(self)
        broker = Broker(home)
        self.addCleanup(broker.stop)
        code, _, err = run(BIN / "examples/embedded_relay", home / "shop.db", broker.endpoint, 40)
        self.assertEqual(code, 1, "it does not say that all is out where there is no topic")
        self.assertIn("ferry topic create sales", err)
        broker.ok("topic", "create", "sales", "--partitions", "1")
        for start in (2, 3):
            code, _, err = run(BIN / "examples/embedded_relay", home / "shop.db", broker.endpoint, 40)
            self.assertEqual(code, 0, err)
            self.assertEqual(len(broker.consume("sales")), start * 40, "all are out when it ends")

    def test_programs_say_how_they_are_used(self):
        for name in ("shop", "ledger", "audit", "hello", "embedded",
                     "embedded_relay", "stream", "queue", "keyed",
                     "transform", "saga"):
            code, _, err = run(BIN / "examples" / name)
            self.assertEqual(code, 2)
            self.assertIn(f"usage: {name}", err)


if __name__ == "__main__":
    unittest.main()
