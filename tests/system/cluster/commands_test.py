"""The commands of a cluster on a cluster: what they print, as JSON and for people, and how they end.

Tests run in the order of their names on one cluster of three, which each leaves as it found it."""
import json
import subprocess
import time
import unittest

import sandbox
from cluster import BIN, FAILED, NOT_FOUND, OK, USAGE, Cluster, until

TIMEOUT, NOT_SAFE = 5, 6
TOPIC, PARTITIONS = "orders", 4
PRODUCED = 100


class CommandsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(3).start()
        cls.cluster.create(TOPIC, PARTITIONS, 3)
        cls.cluster.ok("produce", TOPIC, "--quiet", given=b"".join(b"%d\n" % n
                                                                   for n in range(PRODUCED)))
        cls.cluster.wait_whole()

    @classmethod
    def tearDownClass(cls):
        cls.cluster.close()

    def tearDown(self):
        self.cluster.wait_whole()

    def ends(self, status, *words, **more):
        code, out, err = self.cluster.ferry(*words, **more)
        self.assertEqual(code, status, f"ferry {' '.join(map(str, words))}: {out}{err}")
        return out + err

    def start(self, *words):
        return subprocess.Popen([str(word) for word in (BIN / "ferry", "--server",
                                                        self.cluster.servers(), *words)],
                                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def leaders(self):
        return sum(node["leaders"] for node in self.cluster.status()["nodes"])

    # ---- Looking

    def test_cluster_status_tells_of_nodes_leaders_and_health(self):
        until(lambda: self.leaders() == PARTITIONS, "every node has told what it leads")
        state = self.cluster.status()
        self.assertEqual([node["node"] for node in state["nodes"]], [1, 2, 3])
        self.assertEqual(state["partitions"], PARTITIONS)
        self.assertEqual(state["healthy"], PARTITIONS + 1)
        for name in ("under_replicated", "without_leader", "unknown", "moves_left"):
            self.assertEqual(state[name], 0, name)
        self.assertEqual(sum(node["replicas"] for node in state["nodes"]), PARTITIONS * 3)
        self.assertAlmostEqual(sum(node["ring_permille"] for node in state["nodes"]), 1000, delta=3)
        self.assertIn(state["metadata_leader"], (1, 2, 3))
        text = self.ends(OK, "cluster", "status")
        for part in (f"metadata  led by node {state['metadata_leader']}", "NODE", "LAG", "healthy"):
            self.assertIn(part, text)

    def test_node_list_tells_of_each_node(self):
        nodes = self.cluster.json("node", "list")["nodes"]
        self.assertEqual({node["state"] for node in nodes}, {"up"})
        self.assertEqual(sorted(node["metadata"] for node in nodes), ["leader", "voter", "voter"])
        self.assertEqual(len({node["member"] for node in nodes}), 3)
        text = self.ends(OK, "node", "list")
        for node in self.cluster.nodes.values():
            self.assertIn(node.client, text)

    def test_every_node_tells_the_same(self):
        told = [self.cluster.json("topic", "info", TOPIC, nodes=[node])
                for node in self.cluster.nodes.values()]
        for one in told:
            self.assertEqual([p["end_offset"] for p in one["partitions"]],
                             [p["end_offset"] for p in told[0]["partitions"]])
        self.assertEqual(sum(p["end_offset"] for p in told[0]["partitions"]), PRODUCED)

    def test_partition_info_tells_of_replicas(self):
        found = self.cluster.json("partition", "info", TOPIC, 1)
        self.assertEqual(sorted(found["placed"]), [1, 2, 3])
        self.assertTrue(all(member["in_sync"] for member in found["members"]))
        self.assertEqual({member["match"] for member in found["members"]}, {found["commit"]})
        self.assertIn(f"node {found['leader_node']}", self.ends(OK, "partition", "info", TOPIC, 1))

    def test_what_is_not_there_is_not_found_at_once(self):
        started = time.monotonic()
        for words in (("topic", "info", "nothing"), ("partition", "info", "nothing", 0),
                      ("partition", "info", TOPIC, PARTITIONS), ("node", "drain", 9),
                      ("partition", "transfer", "nothing", 0, 1), ("node", "remove", 9),
                      ("partition", "transfer", TOPIC, PARTITIONS, 1), ("node", "undrain", 9),
                      ("partition", "transfer", TOPIC, 0, 9), ("consume", "nothing"),
                      ("node", "check", "safe-to-stop", 9)):
            code, out, err = self.cluster.ferry("--json", *words)
            self.assertEqual(code, NOT_FOUND, f"{words}: {out}{err}")
            self.assertIn(json.loads(out)["error"], ("UNKNOWN_TOPIC", "UNKNOWN_PARTITION", "UNKNOWN_NODE"))
        self.assertLess(time.monotonic() - started, 25)

    def test_wrong_words_are_wrong_usage(self):
        for words in (("node",), ("cluster",), ("cluster", "bogus"), ("node", "drain"),
                      ("node", "drain", "one"), ("partition", "transfer", TOPIC, 0),
                      ("lease", "acquire"), ("cluster", "status", "extra"),
                      ("lease", "renew", "L", "--holder", "me")):
            self.ends(USAGE, *words)

    # ---- Changing

    def test_partition_transfer_moves_the_leader(self):
        for _ in range(2):
            leader = self.cluster.leader_of(TOPIC, 2).number
            other = leader % 3 + 1
            self.assertIn(f"is led by node {other}",
                          self.ends(OK, "partition", "transfer", TOPIC, 2, other))
            self.assertEqual(self.cluster.leader_of(TOPIC, 2).number, other)

    def test_a_fourth_node_joins_takes_its_share_and_leaves(self):
        self.assertIn("nothing to move", self.ends(OK, "cluster", "plan"))
        self.assertIn("nothing", self.ends(OK, "cluster", "apply"))
        self.assertIn("nothing", self.ends(OK, "cluster", "abort"))
        node = self.cluster.add(4)
        node.start()
        self.cluster.wait_node(4)
        self.ends(FAILED, "cluster", "apply", "--plan", "0123456789abcdef")
        plan = self.cluster.json("cluster", "plan")
        self.assertGreater(len(plan["moves"]), 0)
        self.assertTrue(any(4 in move["to"] for move in plan["moves"]))
        self.assertIn("to copy", self.ends(OK, "cluster", "plan"))
        self.ends(OK, "cluster", "apply", "--plan", plan["plan"])
        share = self.cluster.node_state(4)["replicas"]
        self.assertEqual(share, sum(4 in move["to"] for move in plan["moves"]))

        self.ends(USAGE, "node", "remove", 4)
        self.ends(OK, "node", "drain", 4)
        self.assertEqual(self.cluster.node_state(4)["state"], "drained")
        self.assertEqual(self.cluster.node_state(4)["replicas"], 0)
        self.ends(OK, "node", "undrain", 4)
        self.assertEqual(self.cluster.node_state(4)["state"], "up")
        self.ends(OK, "node", "drain", 4)
        self.ends(OK, "node", "remove", 4)
        self.assertIsNone(self.cluster.node_state(4))
        del self.cluster.nodes[4]
        node.stop_removed()
        node.wipe()
        self.assertEqual(len(self.ends(OK, "consume", TOPIC, "--from", "start", "--idle-exit",
                                       "500ms", "--quiet").splitlines()), PRODUCED)

    def test_moves_can_be_aborted(self):
        """Node 4 is down when the moves to it begin: they cannot end, and abort takes them back."""
        node = self.cluster.add(4)
        node.start()
        self.cluster.wait_node(4)
        before = {p: self.cluster.json("partition", "info", TOPIC, p)["placed"]
                  for p in range(PARTITIONS)}
        node.kill()
        self.ends(OK, "cluster", "apply", "--no-wait")
        self.assertGreater(self.cluster.status()["moves_left"], 0)
        self.ends(OK, "cluster", "abort")
        self.cluster.wait_moved()
        for p, placed in before.items():
            self.assertEqual(sorted(self.cluster.json("partition", "info", TOPIC, p)["placed"]),
                             sorted(placed))
        self.ends(OK, "node", "drain", 4)
        self.ends(OK, "node", "remove", 4)
        del self.cluster.nodes[4]
        node.wipe()

    def test_safe_to_stop_ends_with_six_when_it_is_not(self):
        self.ends(OK, "node", "check", "safe-to-stop", 2)
        self.assertTrue(self.cluster.json("node", "check", "safe-to-stop", 2)["safe"])
        self.cluster.nodes[3].kill()
        self.assertIn("must not be stopped", self.ends(NOT_SAFE, "node", "check", "safe-to-stop", 2))
        code, out, _ = self.cluster.ferry("--json", "node", "check", "safe-to-stop", 2)
        self.assertEqual(code, NOT_SAFE)
        self.assertFalse(json.loads(out)["safe"])
        until(lambda: self.cluster.node_state(3)["state"] == "silent", "node 3 is silent")
        self.assertGreater(self.cluster.status()["under_replicated"], 0)
        self.cluster.nodes[3].start()

    # ---- Leases

    def lease(self, *words):
        return self.cluster.json("lease", *words)

    def test_leases_have_one_holder_and_tokens_that_rise(self):
        first = self.lease("acquire", "db", "--holder", "a", "--ttl", "30s")
        self.assertEqual((first["holder"], first["ttl_ms"]), ("a", 30000))
        self.assertIn("LEASE_HELD", self.ends(FAILED, "lease", "acquire", "db", "--holder", "b"))
        again = self.lease("renew", "db", "--holder", "a", "--token", str(first["token"]))
        self.assertEqual(again["token"], first["token"])
        self.assertIn("LEASE_LOST", self.ends(FAILED, "lease", "renew", "db", "--holder", "b",
                                              "--token", first["token"]))
        listed = self.lease("list")["leases"]
        self.assertEqual([(one["lease"], one["holder"]) for one in listed], [("db", "a")])
        self.ends(OK, "lease", "release", "db", "--holder", "a", "--token", first["token"])
        second = self.lease("acquire", "db", "--holder", "b")
        self.assertGreater(second["token"], first["token"])
        self.ends(OK, "lease", "release", "db", "--holder", "b", "--token", second["token"])
        self.assertEqual(self.lease("list")["leases"], [])

    def test_who_waits_for_a_lease_is_served_in_the_order_of_asking(self):
        held = self.lease("acquire", "line", "--holder", "zero")
        waiting = []
        for name in ("one", "two", "three"):
            waiting.append((name, self.start("--json", "lease", "acquire", "line", "--holder", name,
                                             "--wait", "20s")))
            until(lambda n=len(waiting): self.lease("list")["leases"][0]["waiting"] == n,
                  f"{name} waits")
        for name, process in waiting:
            self.ends(OK, "lease", "release", "line", "--holder", held["holder"], "--token",
                      held["token"])
            out, _ = process.communicate(timeout=20)
            given = json.loads(out)
            self.assertEqual(given["holder"], name)
            self.assertGreater(given["token"], held["token"])
            held = given
        self.ends(OK, "lease", "release", "line", "--holder", held["holder"], "--token",
                  held["token"])

    def test_a_lease_outlives_the_leader_of_the_metadata(self):
        held = self.lease("acquire", "kept", "--holder", "a", "--ttl", "30s")
        leader = self.cluster.nodes[self.cluster.status()["metadata_leader"]]
        leader.kill()
        again = self.lease("renew", "kept", "--holder", "a", "--token", str(held["token"]))
        self.assertEqual(again["token"], held["token"])
        self.ends(FAILED, "lease", "acquire", "kept", "--holder", "b")
        leader.start()
        self.ends(OK, "lease", "release", "kept", "--holder", "a", "--token", held["token"])

    def test_a_lease_ends_by_itself(self):
        held = self.lease("acquire", "short", "--holder", "a", "--ttl", "1s")
        given = self.lease("acquire", "short", "--holder", "b", "--wait", "10s")
        self.assertGreater(given["token"], held["token"])
        self.ends(FAILED, "lease", "renew", "short", "--holder", "a", "--token", held["token"])
        self.ends(OK, "lease", "release", "short", "--holder", "b", "--token", given["token"])

    # ---- Without a majority

    def test_without_a_majority_nothing_is_promised(self):
        self.cluster.nodes[2].kill()
        self.cluster.nodes[3].kill()
        started = time.monotonic()
        code, _, _ = self.cluster.ferry("--timeout", "2s", "lease", "acquire", "late", "--holder", "a")
        self.assertIn(code, (FAILED, TIMEOUT))
        self.ends(TIMEOUT, "--timeout", "2s", "topic", "create", "nowhere")
        self.ends(TIMEOUT, "--timeout", "2s", "lease", "list")
        self.assertLess(time.monotonic() - started, 15)
        until(lambda: self.cluster.ferry("node", "check", "safe-to-stop", 1)[0] != OK,
              "the last node is not said to be safe to stop")
        for number in (2, 3):
            self.cluster.nodes[number].start(wait=False)
        for number in (2, 3):
            self.cluster.nodes[number].wait_ready()


if __name__ == "__main__":
    sandbox.enter()
    unittest.main(verbosity=2, failfast=True)
