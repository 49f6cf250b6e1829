"""Broken bytes at a broker's port: each gets a clear answer or the door, nothing crashes, and another
client goes on producing and consuming all the while with nothing lost."""
import random
import struct
import subprocess
import sys
import tempfile
import threading
import unittest

from ferry_processes import BIN, PATIENCE, Broker, until
from zmtp import (FETCH, HELLO, METADATA, PRODUCE, PRODUCER_INIT, TOPIC_CREATE, Peer, checksum, frame,
                  pack)

SEED = 20240607
OK, INVALID_ARGUMENT, BAD_NAME, BAD_FRAME, BAD_VERSION, BAD_CHECKSUM, BAD_BATCH = 0, 1, 6, 30, 31, 32, 33
UNKNOWN_COMMAND, UNKNOWN_PARTITION, OFFSET_OUT_OF_RANGE = 34, 42, 43
RESIDENT_GROWTH_MAX = 32 << 20  # Once a hostile peer is gone.
GREETED = [HELLO, ["hostile", "0"]]


class Bystander:
    """A client that minds its own business: sends a line every few milliseconds, and reads all."""

    def __init__(self, broker):
        broker.ok("topic", "create", "bystander", "--partitions", "2")
        self.sender = subprocess.Popen([BIN / "ferry", "--server", broker.endpoint, "produce",
                                        "bystander", "--quiet"], stdin=subprocess.PIPE)
        self.reader = subprocess.Popen([BIN / "ferry", "--server", broker.endpoint, "consume",
                                        "bystander", "--quiet"], stdout=subprocess.PIPE)
        self.stopped = threading.Event()
        self.sent = 0
        self.thread = threading.Thread(target=self._send, daemon=True)
        self.thread.start()

    def _send(self):
        while not self.stopped.wait(0.005):
            self.sender.stdin.write(b"%d\n" % self.sent)
            self.sender.stdin.flush()
            self.sent += 1

    def finish(self):
        """(how many were sent, those that came)"""
        self.stopped.set()
        self.thread.join()
        self.sender.stdin.close()
        code = self.sender.wait(PATIENCE)
        came = set()
        while len(came) < self.sent:
            line = self.reader.stdout.readline()
            if not line:
                break
            came.add(int(line))
        self.reader.kill()
        self.reader.wait()
        self.reader.stdout.close()
        return code, self.sent, came


class HostileTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        print(f"seed {SEED}", file=sys.stderr)
        cls.home = tempfile.TemporaryDirectory(prefix="ferry-hostile-")
        cls.broker = Broker(cls.home.name)
        cls.broker.ok("topic", "create", "victim")
        cls.broker.produce("victim", [b"one", b"two", b"three"])
        cls.group = 1  # Groups count from 1; "victim" is the first topic.
        cls.bystander = Bystander(cls.broker)
        cls.pid = cls.broker.process.pid

    @classmethod
    def tearDownClass(cls):
        cls.broker.kill()
        cls.home.cleanup()

    def tearDown(self):
        self.assertIsNone(self.broker.process.poll(), "ferryd died")
        self.assertEqual(self.broker.consume("victim", "--count", "3"), [b"one", b"two", b"three"])

    def peer(self, **more):
        return Peer(self.broker.address(), **more)

    def greeted(self):
        peer = self.peer()
        self.assertEqual(peer.ask(*GREETED), OK)
        return peer

    # ---- Bytes that are no protocol

    def test_random_bytes_are_shown_the_door(self):
        rng = random.Random(SEED)
        for _ in range(50):
            with self.peer(greet=False, timeout=0.05) as peer:
                try:
                    peer.send_raw(rng.randbytes(rng.randrange(1, 5000)))
                    peer.is_cut()
                except OSError:
                    pass

    def test_random_messages_after_a_good_greeting(self):
        rng = random.Random(SEED + 1)
        for _ in range(50):
            with self.peer() as peer:
                peer.send(rng.randbytes(rng.randrange(1, 2000)))
                self.assertTrue(peer.is_cut())

    def test_connections_that_say_nothing_do_not_keep_others_out(self):
        silent = [self.peer(greet=False) for _ in range(300)]
        try:
            with self.greeted() as peer:
                self.assertEqual(peer.ask(METADATA, ["victim"]), OK)
        finally:
            for peer in silent:
                peer.socket.close()

    def test_a_length_that_no_message_has_is_not_waited_for(self):
        for size in (1 << 62, (1 << 64) - 1, 1 << 31):
            with self.peer() as peer:
                peer.send_raw(b"\x02" + struct.pack(">Q", size) + b"x" * 1000)
                self.assertTrue(peer.is_cut())

    def expect_memory_back(self, before):
        """What waits between two looks of the broker's watch is given back when the peer is cut."""
        if not self.broker.gives_memory_back():
            return
        until(lambda: self.broker.resident_bytes() - before < RESIDENT_GROWTH_MAX,
              "the memory of a peer that was cut is given back")

    def test_endless_multipart_is_cut_and_costs_no_memory(self):
        before = self.broker.resident_bytes()
        with self.peer() as peer:
            peer.socket.settimeout(5)
            with self.assertRaises(OSError):
                for _ in range(4000):  # 256 MB, if anybody took them.
                    peer.send(b"y" * 65536, more=True)
        self.expect_memory_back(before)

    # ---- Frames

    def test_truncated_frames_are_refused_at_every_length(self):
        whole = frame(*GREETED)
        for size in range(1, len(whole)):
            with self.peer() as peer:
                peer.send(whole[:size])
                self.assertTrue(peer.is_cut(), size)

    def test_lying_sizes_are_refused(self):
        for lie in ({"body_bytes": 0}, {"body_bytes": 1 << 31}, {"attachment_bytes": 1},
                    {"attachment_bytes": 0xffffffff}, {"body_bytes": 0xffffffff}):
            with self.peer() as peer:
                peer.send(frame(*GREETED, **lie))
                self.assertTrue(peer.is_cut(), lie)

    def test_another_magic_is_no_frame(self):
        with self.peer() as peer:
            peer.send(frame(*GREETED, magic=0x4659))
            self.assertTrue(peer.is_cut())

    def test_another_version_is_told_so(self):
        for version in (0, 2, 255):
            with self.peer() as peer:
                self.assertEqual(peer.ask(*GREETED, version=version), BAD_VERSION)

    def test_a_wrong_checksum_is_told_so_and_the_connection_lives(self):
        with self.greeted() as peer:
            self.assertEqual(peer.ask(METADATA, ["victim"], flip=1), BAD_CHECKSUM)
            self.assertEqual(peer.ask(METADATA, ["victim"]), OK)

    def test_a_command_of_the_future_is_unknown(self):
        with self.greeted() as peer:
            self.assertEqual(peer.ask(9999, []), UNKNOWN_COMMAND)

    def test_lying_counts_in_a_body_are_refused(self):
        bodies = [b"\xdd\xff\xff\xff\xff", b"\x91\xdb\xff\xff\xff\xffab", b"\xdc\xff\xff" + b"\x01" * 9,
                  b"\x91" * 5000 + b"\x01", b"", b"\x91\xca\0\0\0\0", b"\x91\xc1", b"\x91\xa1a\x01"]
        for body in bodies:
            with self.peer() as peer:
                self.assertEqual(peer.ask(*GREETED), OK)
                peer.send(frame(METADATA, body))
                try:
                    self.assertEqual(peer.status(), BAD_FRAME, body[:20])
                except ConnectionError:
                    pass  # The door is an answer too.

    # ---- Names and numbers

    def test_names_that_are_no_names_are_refused(self):
        for name in ("a/b", "../../etc/passwd", "a\0b", "", " ", "-a", ".", "x" * 201, "ü"):
            with self.greeted() as peer:
                status = peer.ask(TOPIC_CREATE, [name, 1, 1, 0, 0, 0])
                self.assertIn(status, (BAD_NAME, BAD_FRAME), repr(name))
        with self.greeted() as peer:
            peer.send(frame(TOPIC_CREATE, ["n" * 65536, 1, 1, 0, 0, 0]))
            try:
                self.assertEqual(peer.status(), BAD_FRAME)
            except ConnectionError:
                pass
        self.assertEqual(self.broker.ok("topic", "list").split(), [b"bystander", b"victim"])

    def fetch_status(self, group, offset):
        with self.greeted() as peer:
            peer.send(frame(FETCH, [100, 1, 1 << 20, [[group, offset]]]))
            reply = peer.receive()
            status = struct.unpack("<H", reply[6:8])[0]
            if status != OK:
                return status
            # fetch_reply = [[[group, status, …]]]: two arrays of one, one of five, then the group.
            self.assertEqual(reply[32:36], b"\x91\x91\x95" + pack(group)[:1])
            return reply[36]

    def test_offsets_outside_the_log_are_told_so(self):
        for offset in (4, 1 << 40, (1 << 63) - 1, -1, -(1 << 63)):
            self.assertIn(self.fetch_status(self.group, offset),
                          (OFFSET_OUT_OF_RANGE, INVALID_ARGUMENT, BAD_FRAME), offset)
        self.assertEqual(self.fetch_status(self.group, 3), OK)

    def test_a_group_that_is_not_there_is_unknown(self):
        self.assertEqual(self.fetch_status(100, 0), UNKNOWN_PARTITION)

    def test_batches_that_lie_are_refused_and_store_nothing(self):
        rng = random.Random(SEED + 2)
        before = self.broker.info("victim")["partitions"][0]["end_offset"]
        with self.greeted() as peer:
            self.assertEqual(peer.ask(PRODUCER_INIT, [""]), OK)
            for size in (0, 1, 63, 64, 500, 100000):
                status = peer.ask(PRODUCE, [self.group], attachment=rng.randbytes(size))
                self.assertIn(status, (BAD_BATCH, BAD_CHECKSUM), size)
        self.assertEqual(self.broker.info("victim")["partitions"][0]["end_offset"], before)

    def test_an_oversized_record_is_refused_and_its_neighbours_are_stored(self):
        self.broker.ok("topic", "create", "sizes")
        code, _, err = self.broker.ferry("produce", "sizes",
                                         given=b"small\n" + b"x" * (3 << 20) + b"\nlast\n")
        self.assertEqual(code, 1)
        self.assertIn("TOO_LARGE", err)
        self.assertEqual(self.broker.consume("sizes"), [b"small", b"last"])
        self.broker.ok("topic", "delete", "sizes")

    def test_a_client_that_never_reads_is_cut_and_others_go_on(self):
        before = self.broker.resident_bytes()
        with self.greeted() as peer:
            peer.socket.settimeout(5)
            request = frame(METADATA, ["victim"])
            try:
                for _ in range(200000):
                    peer.send(request)
            except OSError:
                pass
        self.expect_memory_back(before)

    # ---- At the end (tests run in the order of their names)

    def test_zz_the_bystander_lost_nothing(self):
        code, sent, came = self.bystander.finish()
        self.assertEqual(code, 0)
        self.assertGreater(sent, 0)
        self.assertEqual(came, set(range(sent)))
        self.assertEqual(self.broker.process.pid, self.pid)
        self.assertEqual(self.broker.stop(), 0)
        type(self).broker.start()  # tearDown asks it once more.


if __name__ == "__main__":
    assert checksum(b"") == 0x2d06800538d394c2  # XXH3-64 of nothing: the library is the right one.
    unittest.main()
