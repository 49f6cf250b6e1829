"""What can be wrong with a configuration or a data folder: each gets an error that names the thing and
the remedy, and nothing that was acked is lost."""
import os
import unittest
from pathlib import Path

from ferry_processes import BIN, Broker, broker, folder, run

FAILED, USAGE = 1, 2


def ferryd(*words, environment=None):
    return run(BIN / "ferryd", *words, env={**os.environ, **(environment or {})})


class ConfigurationTest(unittest.TestCase):
    def test_check_lists_every_problem_with_its_place(self):
        path = folder(self) / "ferryd.conf"
        path.write_text("[node]\nid = many\n[shard]\nbogus = 1\n[listen]\nendpoint = udp://x\n"
                        "no equals sign\n[store]\nmax_bytes = 1\n", encoding="utf-8")
        code, _, err = ferryd("--config", path, "--check")
        self.assertEqual(code, USAGE)
        for part in (":2:", "node.id", ":4:", "shard.bogus", "udp://x", ":7:", "store.max_bytes",
                     "node.data"):
            self.assertIn(part, err)
        self.assertIn("problems", err)

    def test_a_good_configuration_is_said_to_be_good(self):
        home = folder(self)
        source = Path(os.environ["FERRY_SOURCE"]) / "conf/ferryd.conf"
        self.assertEqual(ferryd("--config", source, "--data", home, "--check")[0], 0)
        self.assertEqual(list(home.iterdir()), [], "a check makes nothing")

    def test_an_unknown_key_is_an_error_wherever_it_stands(self):
        home = folder(self)
        for words, environment in ((("--set", "node.shard=2"), {}), ((), {"FERRYD_NODE_SHARD": "2"})):
            code, _, err = ferryd("--data", home, *words, "--check", environment=environment)
            self.assertEqual(code, USAGE)
            self.assertIn("shard", err.lower())

    def test_set_wins_over_the_environment_which_wins_over_the_file(self):
        home = folder(self)
        path = home / "ferryd.conf"
        path.write_text("[topic]\npartitions = 2\n[limit]\nmessage_max_bytes = 2K\n"
                        "[node]\nshards = 1\n", encoding="utf-8")
        made = Broker(home, "--config", str(path), "--set", "topic.partitions=5",
                      environment={"FERRYD_TOPIC_PARTITIONS": "3", "FERRYD_LIMIT_MESSAGE_MAX_BYTES": "3K"})
        self.addCleanup(made.kill)
        made.ok("topic", "create", "t")
        self.assertEqual(len(made.info("t")["partitions"]), 5)
        self.assertEqual(made.ferry("produce", "t", given=b"x" * 2500 + b"\n")[0], 0)
        self.assertEqual(made.ferry("produce", "t", given=b"x" * 3500 + b"\n")[0], FAILED)

    def test_listening_to_the_world_wants_a_word(self):
        home = folder(self)
        code, _, err = ferryd("--data", home, "--listen", "tcp://0.0.0.0:7400", "--check")
        self.assertEqual(code, USAGE)
        self.assertIn("listen.insecure", err)


class FolderTest(unittest.TestCase):
    def filled(self):
        """A broker with 1000 records of 1 KiB in each of two topics."""
        made = broker(self)
        for topic in ("left", "right"):
            made.ok("topic", "create", topic)
            made.produce(topic, [b"%04d " % i + b"v" * 1000 for i in range(1000)])
        return made

    def refused(self, made, *options):
        code, _, err = ferryd("--data", made.data, "--listen", "tcp://127.0.0.1:*", *options)
        self.assertEqual(code, FAILED, err)
        return err

    def test_a_second_ferryd_is_refused_and_the_first_goes_on(self):
        made = self.filled()
        err = self.refused(made)
        self.assertIn("LOCKED", err)
        self.assertIn("stop it first", err)
        self.assertEqual(len(made.consume("left")), 1000)

    def test_the_folder_of_another_node_is_refused(self):
        made = self.filled()
        made.stop()
        err = self.refused(made, "--set", "node.id=2")
        self.assertIn("WRONG_NODE", err)
        self.assertIn("belongs to node 1", err)
        made.start()
        self.assertEqual(len(made.consume("left")), 1000)

    def test_another_number_of_shards_is_refused(self):
        made = self.filled()
        made.stop()
        self.assertIn("WRONG_NODE", self.refused(made, "--set", "node.shards=2"))

    def test_a_newer_format_is_refused(self):
        made = self.filled()
        made.stop()
        path = made.data / "shard-0" / "data.mdb"
        data = bytearray(path.read_bytes())
        at = data.find(b"identity")
        self.assertGreater(at, 0)
        while at >= 0:  # The row and its older copies: magic, then the format.
            data[at + 12] = 99
            at = data.find(b"identity", at + 1)
        path.write_bytes(data)
        err = self.refused(made)
        self.assertIn("NEWER_FORMAT", err)
        self.assertIn("start the newer version", err)

    def test_a_file_that_is_cut_short_is_refused(self):
        made = self.filled()
        made.stop()
        path = made.data / "shard-0" / "data.mdb"
        os.truncate(path, 10000)
        err = self.refused(made)
        self.assertIn("CORRUPT", err)
        self.assertIn("data.mdb", err)

    def test_a_file_of_other_bytes_is_refused(self):
        made = self.filled()
        made.stop()
        (made.data / "shard-0" / "data.mdb").write_bytes(b"not a database" * 10000)
        self.assertIn("CORRUPT", self.refused(made))

    def test_flipped_bytes_are_found_and_never_handed_out(self):
        """Flips the text of one topic's records in the file: its readers are told, the other's read on."""
        made = self.filled()
        made.produce("left", [b"CANARY" * 100])
        made.stop()
        path = made.data / "shard-0" / "data.mdb"
        data = bytearray(path.read_bytes())
        at = data.find(b"CANARYCANARY")
        self.assertGreater(at, 0)
        while at >= 0:
            data[at + 7] ^= 0x20
            at = data.find(b"CANARYCANARY", at + 12)
        path.write_bytes(data)
        made.start()
        code, out, err = made.ferry("consume", "left", "--idle-exit", "500ms")
        self.assertNotIn(b"CANARYc", out)
        self.assertEqual(code, FAILED, err)
        self.assertIn("CORRUPT", err)
        self.assertEqual(len(made.consume("right")), 1000)
        self.assertIsNone(made.process.poll())

    def test_a_folder_that_may_not_be_written_is_told_so(self):
        home = folder(self)
        (home / "file").write_text("in the way", encoding="utf-8")
        code, _, err = ferryd("--data", home / "file", "--listen", "tcp://127.0.0.1:*")
        self.assertEqual(code, FAILED)
        self.assertIn(str(home / "file"), err)


if __name__ == "__main__":
    unittest.main()
