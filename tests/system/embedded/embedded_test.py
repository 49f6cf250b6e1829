"""An application with the broker inside writes; then ferryd opens the same folder."""
import unittest

from ferry_processes import BIN, Broker, folder, run


class EmbeddedTest(unittest.TestCase):
    def test_ferryd_opens_what_an_application_wrote(self):
        home = folder(self)
        code, out, err = run(BIN / "examples/embedded", home / "data", "5000")
        self.assertEqual(code, 0, err)
        self.assertEqual(out, b"stored 5000, read 5000\n")
        made = Broker(home)
        self.addCleanup(made.kill)
        self.assertEqual(made.consume("embedded"), [b"message %d" % i for i in range(5000)])
        made.produce("embedded", [b"from outside"])
        self.assertEqual(made.stop(), 0)
        # And back: the application reads what came over the network.
        code, out, err = run(BIN / "examples/embedded", home / "data", "10")
        self.assertEqual(code, 0, err)
        self.assertEqual(out, b"stored 10, read 5011\n")

    def test_two_cannot_have_the_folder(self):
        home = folder(self)
        made = Broker(home)
        self.addCleanup(made.kill)
        code, _, err = run(BIN / "examples/embedded", home / "data", "1")
        self.assertEqual(code, 1)
        self.assertIn("LOCKED", err)


if __name__ == "__main__":
    unittest.main()
