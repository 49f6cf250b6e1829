"""A disk that fills up (a tmpfs of 48 MiB): produce is refused, reads and commits go on, nothing acked is
lost, and room brings it back. Needs the right to mount; without it ctest says "Skipped"."""
import os
import subprocess
import sys
import unittest

from ferry_processes import Broker, folder, until

FAILED, SKIPPED = 1, 77
DISK_BYTES = 48 << 20


def mount(path):
    return subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(path)],
                          capture_output=True, check=False).returncode == 0


class FullDiskTest(unittest.TestCase):
    def setUp(self):
        self.disk = folder(self) / "disk"
        self.disk.mkdir()
        if not mount(self.disk):
            print("THE FULL DISK IS NOT TESTED: mounting a tmpfs is not permitted here")
            self.doCleanups()
            sys.stdout.flush()
            os._exit(SKIPPED)
        self.addCleanup(subprocess.run, ["umount", "-l", str(self.disk)], check=False)

    def test_a_full_disk_refuses_produce_and_loses_nothing(self):
        ballast = self.disk / "ballast"
        ballast.write_bytes(b"\0" * (8 << 20))
        made = Broker(self.disk, "--set", "store.grow_bytes=4M", "--set", "store.reserve_bytes=4M")
        self.addCleanup(made.kill)
        made.ok("topic", "create", "t")
        made.ok("--set", "delivery.timeout_ms=3s", "produce", "t", given=b"first\n")
        lines = b"".join(b"%06d " % i + b"z" * 4000 + b"\n" for i in range(16000))
        code, out, err = made.ferry("--json", "--set", "delivery.timeout_ms=3s", "produce", "t",
                                    given=lines)
        self.assertEqual(code, FAILED)
        self.assertIn("STORAGE_FULL", out.decode() + err)
        acked = 1 + out.count(b'"outcome":"stored"')
        self.assertGreater(acked, 1000)

        # Reads and commits go on.
        self.assertIsNone(made.process.poll())
        self.assertEqual(len(made.consume("t", "--subscription", "s")), acked)
        code, _, err = made.ferry("--set", "delivery.timeout_ms=1s", "produce", "t", given=b"y" * 1000000)
        self.assertEqual(code, FAILED, "still full")

        # Nothing acked is lost by a crash on the full disk, and room brings it back by itself.
        made.kill()
        made.start()
        self.assertEqual(len(made.consume("t")), acked)
        ballast.unlink()
        until(lambda: made.ferry("--set", "delivery.timeout_ms=2s", "produce", "t",
                                 given=b"room again\n")[0] == 0, "produce after space was freed")
        self.assertEqual(made.consume("t")[-1], b"room again")


if __name__ == "__main__":
    unittest.main()
