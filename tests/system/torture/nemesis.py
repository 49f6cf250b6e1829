"""What is done to the three banks: one fault after another, drawn from a seed.

Processes are killed with kill -9 and started again soon; relays and clerks are stopped for longer than
their leases and sessions, and wake up as zombies; wakes are swallowed; the answer to a COMMIT is lost; a
broker's disk is full; the clock of one process jumps by an hour; somebody leaves a transaction open.
"""
import collections
import random
import signal
import subprocess
import time

from world import NODES, PARTITIONS, TOPICS

PAUSE_S = 0.25  # Between two faults, on average.
DOWN_S = (0.05, 1.0)  # A killed process is started again after so long.
MISLED_S = (1.0, 4.0)  # How long wakes are lost, a disk is full, a clock is wrong.
HOUR_S = 3600


class Nemesis:
    """`ways` names some of those below; without it, all are drawn."""

    def __init__(self, world, seed, pause_s, ways=None, down_s=DOWN_S):
        self.world = world
        self.rng = random.Random(seed)
        self.pause_s, self.down_range_s = pause_s, down_s
        self.held = []
        self.kills = 0
        self.done = collections.Counter()
        self.next_at = 0.0
        self.undo = []  # (when, what): faults that end by themselves.
        self.ways = [(self.kill_relay, 20), (self.kill_clerk, 20), (self.kill_teller, 10),
                     (self.kill_broker, 8), (self.kill_leader, 8), (self.kill_all_brokers, 1),
                     (self.kill_postmaster, 4), (self.kill_backend, 4), (self.kill_mariadb, 6),
                     (self.pause_relay, 5), (self.pause_clerk, 5), (self.lose_commit, 14),
                     (self.deafen, 3), (self.fill_disk, 4), (self.step_clock, 4),
                     (self.hold_transaction, 2)]
        if ways is not None:
            self.ways = [(way, often) for way, often in self.ways if way.__name__ in ways]

    def summary(self):
        return ", ".join(f"{name} {count}" for name, count in sorted(self.done.items()))

    def strike(self):
        """One fault, if it is time."""
        now = time.monotonic()
        for one in [one for one in self.undo if one[0] <= now]:
            self.undo.remove(one)
            one[1]()
        if now < self.next_at or not self.ways:
            return
        self.next_at = now + self.rng.expovariate(1 / PAUSE_S)
        way = self.rng.choices([way for way, _ in self.ways],
                               [weight for _, weight in self.ways])[0]
        if way():
            self.done[way.__name__] += 1

    def one_of(self, *kinds):
        return self.rng.choice(self.world.named(*kinds))

    def killed(self, happened, count=1):
        self.kills += count if happened else 0
        return happened

    def down_s(self):
        return self.rng.uniform(*self.down_range_s)

    def later(self, what):
        self.undo.append((time.monotonic() + self.rng.uniform(*MISLED_S), what))
        return True

    # ---- kill -9

    def kill_relay(self):
        return self.killed(self.one_of("relay").kill(self.down_s()))

    def kill_clerk(self):
        return self.killed(self.one_of("clerk").kill(self.down_s()))

    def kill_teller(self):
        one = self.one_of("teller")
        return self.killed(not one.retired and one.kill(self.down_s()))

    def all_brokers_run(self):
        return all(one.is_alive() for one in self.world.named("broker"))

    def kill_broker(self):
        """One at a time: of three, two must be there."""
        return self.all_brokers_run() and self.killed(self.one_of("broker").kill(self.down_s()))

    def kill_leader(self):
        if not self.all_brokers_run():
            return False
        node = self.world.leader(self.rng.choice(TOPICS), self.rng.randrange(PARTITIONS))
        return node is not None and \
            self.killed(self.world.processes[f"broker-{node}"].kill(self.down_s()))

    def kill_all_brokers(self):
        """As when the power goes."""
        if not self.all_brokers_run():
            return False
        for node in NODES:
            self.killed(self.world.processes[f"broker-{node}"].kill(self.down_s()))
        return True

    def kill_postmaster(self):
        return self.killed(self.world.kill_server("b", self.down_s()))

    def kill_backend(self):
        server = self.world.servers["b"]
        return server.process is not None and self.killed(server.kill_backend(self.rng.choice))

    def kill_mariadb(self):
        return self.killed(self.world.kill_server("c", self.down_s()))

    # ---- Zombies

    def pause_relay(self):
        return self.one_of("relay").pause(self.rng.uniform(*self.pause_s))

    def pause_clerk(self):
        return self.one_of("clerk").pause(self.rng.uniform(*self.pause_s))

    # ---- Lies and losses

    def lose_commit(self):
        one = self.one_of("proxy")
        if not one.is_alive():
            return False
        one.process.send_signal(signal.SIGUSR1)
        return True

    def deafen(self):
        """The wakes of one process reach nobody: relays find by themselves what is there."""
        fault = self.world.faults[self.one_of("clerk", "teller").name]
        fault.set(deaf=1)
        return self.later(fault.set)

    def hold_transaction(self, for_s=8):
        """Somebody who has nothing to do with it leaves a transaction open that has written."""
        self.held = [one for one in self.held if one.poll() is None]
        server = self.world.servers["b"]
        if server.process is None or self.held:
            return False
        query = f"SELECT pg_current_xact_id(), pg_sleep({for_s})"
        self.held.append(subprocess.Popen([*map(str, server.ask("bank")), query],
                                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return True

    def fill_disk(self):
        node = self.rng.choice(NODES)
        self.world.disk(node, "full")
        return self.later(lambda: self.world.disk(node, "good"))

    def step_clock(self):
        fault = self.world.faults[self.one_of("relay", "clerk", "teller", "broker").name]
        fault.set(step_s=self.rng.choice((-HOUR_S, HOUR_S)))
        return self.later(fault.set)
