"""G1 to G15: what the outbox has to reach. Each case makes its databases and brokers anew."""

import os
import re
import statistics
import subprocess
import time

from bench import number, spread
from cluster import Cluster, until
from world import PATIENCE, ROW_BYTES, TOPIC, Pto, Relay, last_json, now, run

PARTITIONS = 4
CONTROL_BATCHES = (500, 1000, 4000)
POLLING_SETTINGS = ({"PTO_BATCH": 20}, {"PTO_BATCH": 100}, {"PTO_BATCH": 400, "PTO_POOL": 40})
REPLICATION_SETTINGS = ({"PTO_CONCURRENCY": 10}, {"PTO_CONCURRENCY": 20},
                        {"PTO_CONCURRENCY": 60, "PTO_POOL": 60})
MIB = 1 << 20


class Sizes:
    def __init__(self, smoke, long):
        self.rows = 3_000 if smoke else 300_000
        self.control_rows = 3_000 if smoke else 200_000
        self.polling_rows = 100 if smoke else 1_500
        self.replication_rows = 200 if smoke else 8_000
        self.transactions = 20 if smoke else 500
        self.load_rate = 200 if smoke else 5_000
        self.load_seconds = 1 if smoke else 10
        self.pgbench_seconds = 5 if smoke else 8
        self.held_seconds = 3 if smoke else 1_800 if long else 60
        self.open_seconds = 3 if smoke else 600 if long else 60
        self.backlog = 20_000 if smoke else 10_000_000 if long else 1_000_000
        self.takeovers = 2 if smoke else 10
        self.runs = 1 if smoke else 5


def rows_a_second(n):
    return f"{n:,.0f}"


def percent(share):
    return f"{share:.1%}"


def ms(us):
    return f"{us / 1000:.2f} ms"


# ---- Draining to a sink that counts (G1, G4, G5) --------------------------------------------------

def best(settings, measure):
    """The settings with which a peer is fastest, each tried once."""
    return max(settings, key=lambda one: measure(one)["rows_per_second"])


def null_cases(b):
    """One round is each of them once, in turns; the ratios are of rounds."""
    with b.world.database("postgresql") as d:
        where = d.url
        pto = Pto(b.world)

        def ferry(_=None):
            with b.world.database("postgresql") as own:
                own.fill(b.sizes.rows)
                return last_json(run(b.world.program("null_relay"), own.url, b.sizes.rows, PARTITIONS))

        def control(batch):
            run(b.world.program("control_relay"), where, "setup")
            run(b.world.program("control_relay"), where, "fill", b.sizes.control_rows, ROW_BYTES)
            d.sql("CHECKPOINT")
            return last_json(run(b.world.program("control_relay"), where, "drain",
                                 b.sizes.control_rows, batch))

        def peer(mode, rows, settings):
            pto(d.name, "setup", mode)
            pto(d.name, "fill", str(rows), str(ROW_BYTES - 20))
            return last_json(pto(d.name, "drain", mode, str(rows), **settings))

        def polling(settings):
            return peer("polling", b.sizes.polling_rows, settings)

        def replication(settings):
            found = peer("replication", b.sizes.replication_rows, settings)
            until(lambda: d.sql("SELECT count(*) FROM pg_replication_slots WHERE active") == [("0",)],
                  "the peer's slot is free")
            d.sql("SELECT pg_drop_replication_slot('pto_slot')")
            return found

        chosen = {"ferry": (ferry, None), "control": (control, best(CONTROL_BATCHES, control)),
                  "polling": (polling, best(POLLING_SETTINGS, polling)),
                  "replication": (replication, best(REPLICATION_SETTINGS, replication))}
        rounds = []
        for i in range(b.runs):
            names = list(chosen) if i % 2 == 0 else list(chosen)[::-1]
            rounds.append({name: chosen[name][0](chosen[name][1]) for name in names})
    speeds = {name: [r[name]["rows_per_second"] for r in rounds] for name in chosen}
    b.table.add("G1 drain, PostgreSQL to a sink", ">= 100,000 rows/s",
                f"{spread(speeds['ferry'], rows_a_second)} rows/s", "",
                statistics.median(speeds["ferry"]) >= 100_000)
    goals = (("G4", "pg-transactional-outbox, polling", "polling", 30),
             ("G4", "pg-transactional-outbox, replication", "replication", 10),
             ("G5", "control relay in C, SKIP LOCKED", "control", 3))
    for goal, who, name, factor in goals:
        ratio = statistics.median(f / p for f, p in zip(speeds["ferry"], speeds[name]))
        b.table.add(f"{goal} {who} ({chosen[name][1]})", f"Ferry >= {factor} x",
                    f"{spread(speeds[name], rows_a_second)} rows/s", f"{ratio:.1f} x", ratio >= factor)


# ---- Draining to brokers (G2, G3, G6, G13, G15) ---------------------------------------------------

def drain(b, kind, nodes, rows, watch=None):
    """Rows a second from the relay's start to the last row in the log; and what the relay used."""
    with b.world.database(kind) as d, Cluster(b.world.place, nodes) as cluster:
        d.fill(rows)
        cluster.create(TOPIC, PARTITIONS)
        if watch:
            watch.before(d)
        began = now()
        with Relay(b.world, cluster, d) as relay:
            b.world.wait_stored(cluster, rows, relay)
            seconds = now() - began
            used = {"rows_per_second": rows / seconds, "rss_bytes": relay.rss_peak_bytes(),
                    "cpu_us_per_row": relay.cpu_seconds() * 1e6 / rows}
            if watch:
                watch.after(d)
        assert b.world.stored(cluster) == rows, "a row is in the log twice"
        return used


def drain_cases(b):
    goals = (("G2", "postgresql", 1, 40_000), ("G3", "postgresql", 3, 20_000),
             ("G6", "sqlite", 1, 60_000), ("G6", "mariadb", 1, 25_000))
    for goal, kind, nodes, least in goals:
        found = [drain(b, kind, nodes, b.sizes.rows) for _ in range(b.runs)]
        speeds = [one["rows_per_second"] for one in found]
        b.table.add(f"{goal} drain, {kind}, {nodes} broker{'s' if nodes > 1 else ''}, fsynced",
                    f">= {number(least)} rows/s", f"{spread(speeds, rows_a_second)} rows/s", "",
                    statistics.median(speeds) >= least)
        cpu = statistics.median(one["cpu_us_per_row"] for one in found)
        rss = statistics.median(one["rss_bytes"] for one in found)
        b.table.add(f"G15 the same, what the relay used, {kind}, {nodes}", "<= 20 us a row, <= 30 MiB",
                    f"{cpu:.1f} us a row, {rss / MIB:.1f} MiB", "", cpu <= 20 and rss <= 30 * MIB)


def backlog_case(b):
    small = drain(b, "postgresql", 1, b.sizes.rows)
    large = drain(b, "postgresql", 1, b.sizes.backlog)
    share = large["rows_per_second"] / small["rows_per_second"]
    b.table.add(f"G13 backlog of {number(b.sizes.backlog)} rows beside {number(b.sizes.rows)}",
                ">= 90 %, <= 64 MiB",
                f"{number(large['rows_per_second'])} rows/s, {large['rss_bytes'] / MIB:.1f} MiB",
                f"{share:.0%}", share >= 0.9 and large["rss_bytes"] <= 64 * MIB)


# ---- What the relay does to the database (G15) ----------------------------------------------------

class Statements:
    """What was written to the outbox while the relay ran, by the database's own counters."""

    COUNTERS = ("SELECT sum(n_tup_ins), sum(n_tup_upd), sum(n_tup_del), sum(n_dead_tup) "
                "FROM pg_stat_user_tables WHERE schemaname = 'ferry'")
    WRITES = ("SELECT calls, query FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid "
              "WHERE d.datname = current_database() AND query !~* "
              "'^\\s*(select|begin|commit|set|show|copy \\(|listen|rollback|deallocate|close|fetch|declare)'")

    def before(self, d):
        d.sql("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        time.sleep(1.2)  # Counters are told once a second.
        self.counted = d.sql(self.COUNTERS)
        d.sql("SELECT pg_stat_statements_reset()")

    def after(self, d):
        self.writes = [row for row in d.sql(self.WRITES) if "pg_stat_statements" not in row[1]]
        time.sleep(1.2)
        self.counted_after = d.sql(self.COUNTERS)


def writes_case(b):
    watch = Statements()
    drain(b, "postgresql", 1, b.sizes.rows, watch)
    quiet = watch.counted == watch.counted_after and not watch.writes
    b.table.add("G15 writes to PostgreSQL on the hot path", "none, no dead tuples",
                "none" if quiet else f"{watch.writes} {watch.counted} {watch.counted_after}",
                "", quiet)


# ---- Latency (G7, G8, G9) -------------------------------------------------------------------------

def app(b, *words):
    return last_json(run(b.world.program("outbox_app"), *words))


def running(b, kind, nodes, measure, *options):
    with b.world.database(kind) as d, Cluster(b.world.place, nodes) as cluster:
        cluster.create(TOPIC, PARTITIONS)
        with Relay(b.world, cluster, d, *options):
            return measure(d, cluster)


def latency_cases(b):
    goals = (("postgresql", 1, 2, 8), ("postgresql", 3, 4, 15), ("sqlite", 1, 2, 8),
             ("mariadb", 1, 2, 8))
    for kind, nodes, p50, p99 in goals:
        found = [running(b, kind, nodes, lambda d, c: app(
            b, "latency", d.url, c.endpoint, TOPIC, b.sizes.transactions)) for _ in range(b.runs)]
        middle = [one["latency_us"]["p50"] for one in found]
        tail = [one["latency_us"]["p99"] for one in found]
        b.table.add(f"G7 idle, COMMIT to received, {kind}, {nodes}", f"p50 <= {p50} ms, p99 <= {p99} ms",
                    f"{spread(middle, ms)}, p99 {ms(statistics.median(tail))}", "",
                    statistics.median(middle) <= p50 * 1000 and statistics.median(tail) <= p99 * 1000)


LOAD_CONNECTIONS = 24  # A pool as two cores want it: 16 fall behind on a slow disk, 48 are in each other's way.
LOAD_REACHED = 0.97  # Of the rate: a figure of less load is none.


def load_case(b):
    found = [running(b, "postgresql", 1, lambda d, c: app(
        b, "load", d.url, c.endpoint, TOPIC, b.sizes.load_rate, b.sizes.load_seconds, LOAD_CONNECTIONS))
        for _ in range(b.runs)]
    tail = [one["latency_us"]["p99"] for one in found]
    reached = statistics.median(one["per_second"] for one in found)
    cpu = statistics.median(one["cpu_us"] for one in found)
    b.table.add(f"G8 COMMIT to received at {number(b.sizes.load_rate)} tx/s, {LOAD_CONNECTIONS} connections",
                "p99 <= 25 ms",
                f"p99 {spread(tail, ms)}; {number(reached)} tx/s were reached; {cpu:.0f} us CPU each in the "
                "program that measures", "",
                statistics.median(tail) <= 25_000 and reached >= LOAD_REACHED * b.sizes.load_rate)


def effect_case(b):
    def measure(d, cluster):
        with b.world.database("mariadb") as other:
            return app(b, "effect", d.url, cluster.endpoint, TOPIC, other.url, b.sizes.transactions)
    found = [running(b, "postgresql", 1, measure) for _ in range(b.runs)]
    middle = [one["latency_us"]["p50"] for one in found]
    tail = statistics.median(one["latency_us"]["p99"] for one in found)
    b.table.add("G9 COMMIT to COMMIT of the handler, PostgreSQL to MariaDB",
                "p50 <= 6 ms, p99 <= 25 ms", f"{spread(middle, ms)}, p99 {ms(tail)}", "",
                statistics.median(middle) <= 6_000 and tail <= 25_000)


# ---- What the application pays (G10) --------------------------------------------------------------

TRANSACTION = """\\set aid random(1, 100000)
\\set delta random(-5000, 5000)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (1, 1, :aid, :delta, CURRENT_TIMESTAMP);
"""
PUT = ("INSERT INTO ferry.outbox (topic, mkey, payload) VALUES ('" + TOPIC +
       "', int8send(:aid), convert_to(repeat('x', 200), 'UTF8'));\n")
# The statement of ferry_outbox_put() and ferry_outbox_put_async(): the client makes the id and the time.
LIBRARY_PUT = ("INSERT INTO ferry.outbox (lane, topic, mkey, msg_id, headers, payload, created_ms) VALUES (0, '" +
               TOPIC + "', int8send(:aid), '01900000-0000-7000-8000-000000000001', NULL, "
               "convert_to(repeat('x', 200), 'UTF8'), 1700000000000 + :aid);\n")
# What no outbox can be below: a row as large, in a table with no index, no default and no partition.
BARE = "INSERT INTO bare VALUES (:aid, convert_to(repeat('x', 200), 'UTF8'));\n"


def with_commit(put):
    """In one message with COMMIT, as ferry_outbox_put_async sends it."""
    return "\\startpipeline\n" + put + "COMMIT;\n\\endpipeline\n"


ENDS = {"none": "COMMIT;\n", "put": PUT + "COMMIT;\n", "piped": with_commit(LIBRARY_PUT),
        "bare": BARE + "COMMIT;\n", "bare piped": with_commit(BARE)}


def pgbench(b, d, end, clients):
    path = os.path.join(b.world.folder, "transaction.sql")
    with open(path, "w", encoding="ascii") as script:
        script.write(TRANSACTION + ENDS[end])
    out = run(d.server.bin / "pgbench", "-h", d.server.folder, "-p", d.server.port, "-U", "postgres",
              "-n", "-M", "prepared", "-f", path, "-c", clients, "-j", min(clients, 2), "-T",
              b.sizes.pgbench_seconds, d.name)
    found = re.search(r"^tps = ([0-9.]+)", out, re.M)
    if found is None:
        raise RuntimeError(f"pgbench tells no speed: {out}")
    return float(found.group(1))


def cost_round(b, clients, backwards):
    """Transactions a second with each end, and with the trigger that nobody needs."""
    with b.world.database("postgresql") as d:
        run(d.server.bin / "pgbench", "-h", d.server.folder, "-p", d.server.port, "-U", "postgres", "-i",
            "-q", d.name)
        d.sql("CREATE TABLE bare (id bigint NOT NULL, payload bytea NOT NULL)")
        order = list(ENDS)[::-1] if backwards else list(ENDS)
        found = {end: pgbench(b, d, end, clients) for end in order}
        d.sql("CREATE TRIGGER outbox_notify AFTER INSERT ON ferry.outbox FOR EACH STATEMENT "
              "EXECUTE FUNCTION ferry.notify()")
        found["notify"] = pgbench(b, d, "put", clients)
        return found


def cost_cases(b):
    for clients in (1, 64):
        rounds = [cost_round(b, clients, i % 2 == 1) for i in range(b.runs)]
        lost = {end: [1 - one[end] / one["none"] for one in rounds] for end in (*ENDS, "notify")}
        middle = {end: statistics.median(shares) for end, shares in lost.items()}
        speed = number(statistics.median(one["none"] for one in rounds))
        who = f"{clients} client{'s' if clients > 1 else ''}"
        b.table.add(f"G10 one put, sent with COMMIT (ferry_outbox_put_async), {who}", "<= 10 % of TPS",
                    f"{spread(lost['piped'], percent)} of {speed} tx/s", "", middle["piped"] <= 0.10)
        b.table.add(f"G10 one put with a round trip of its own, {who}", "<= 10 % of TPS",
                    f"{spread(lost['put'], percent)}; with the NOTIFY trigger {percent(middle['notify'])}",
                    "", middle["put"] <= 0.10)
        b.table.add(f"One row more in a bare table, {who}", "",
                    f"with COMMIT {spread(lost['bare piped'], percent)}, with a round trip of its own "
                    f"{spread(lost['bare'], percent)}")


# ---- Long transactions (G11, G12) -----------------------------------------------------------------

def steady(b, d, cluster, seconds):
    rate = max(b.sizes.load_rate * 2 // 5, 100)
    return app(b, "load", d.url, cluster.endpoint, TOPIC, rate, seconds, 32)


class OpenTransaction:
    """A session that holds its transaction open until it is told to end."""

    def __init__(self, d, first):
        self.process = subprocess.Popen(d.server.psql(d.name), stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        self.say(f"BEGIN ISOLATION LEVEL REPEATABLE READ; {first}; SELECT 'open';")
        while "open" not in self.process.stdout.readline():
            pass

    def say(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def commit(self):
        self.say("COMMIT;")
        self.process.stdin.close()
        self.process.wait(PATIENCE)


def held_cases(b):
    def measure(d, cluster):
        without = steady(b, d, cluster, b.sizes.load_seconds)
        holder = OpenTransaction(d, "SELECT count(*) FROM ferry.outbox")
        held = steady(b, d, cluster, b.sizes.held_seconds)
        dead = d.sql("SELECT coalesce(sum(n_dead_tup), 0) FROM pg_stat_user_tables "
                     "WHERE schemaname = 'ferry'")[0][0]
        holder.commit()
        return without, held, int(dead)
    without, held, dead = running(b, "postgresql", 1, measure)
    slower = 1 - held["per_second"] / without["per_second"]
    b.table.add(f"G11 a snapshot held for {b.sizes.held_seconds} s at 2,000 tx/s",
                "no dead tuples, <= 5 % slower",
                f"{dead} dead tuples, {slower:+.1%}, p99 {ms(without['latency_us']['p99'])} then "
                f"{ms(held['latency_us']['p99'])}", "", dead == 0 and slower <= 0.05)


def open_case(b):
    late_payload = "decode(repeat('ff', 8), 'hex')"

    def measure(d, cluster):
        cluster.create("late", 1)
        put = f"INSERT INTO ferry.outbox (topic, payload) VALUES ('late', {late_payload})"
        d.sql(put)  # What a topic costs once, when it is met first, is not this row's.
        # Long enough for the database's checkpoints to be in it, as they are in what follows.
        without = steady(b, d, cluster, max(b.sizes.load_seconds, b.sizes.open_seconds // 2))
        holder = OpenTransaction(d, put)
        with_it = steady(b, d, cluster, b.sizes.open_seconds)
        reader = subprocess.Popen([b.world.place.program("ferry"), "--server", cluster.endpoint,
                                   "--json", "--quiet", "consume", "late", "--from", "start", "--count", "2"],
                                  stdout=subprocess.PIPE, text=True)
        others = app_started(b, d, cluster)  # The relay is awake: psql wakes nobody.
        time.sleep(2)
        began = time.time()
        holder.commit()
        line = last_json(reader.communicate(timeout=PATIENCE)[0])
        others.communicate(timeout=PATIENCE)
        return without, with_it, line["append_time"] - began * 1000
    without, with_it, late_ms = running(b, "postgresql", 1, measure)
    change = with_it["latency_us"]["p99"] / without["latency_us"]["p99"] - 1
    b.table.add(f"G12 a transaction left open for {b.sizes.open_seconds} s",
                "others' p99 as before; its row <= 20 ms after COMMIT was sent",
                f"p99 {ms(without['latency_us']['p99'])}, then {ms(with_it['latency_us']['p99'])}; "
                f"its row {late_ms:.0f} ms", f"{change:+.0%}", change <= 0.10 and late_ms <= 20)


# ---- A standby takes over (G14) -------------------------------------------------------------------

def takeover_case(b):
    """The longest pause in what a consumer receives around a kill -9 of the active relay."""
    pauses = []

    def longest_pause(d, cluster):
        relays = [Relay(b.world, cluster, d), Relay(b.world, cluster, d)]
        try:
            time.sleep(2)
            for i in range(b.sizes.takeovers):
                source = app_started(b, d, cluster)
                time.sleep(1.5)
                active = relays[0] if i % 2 == 0 else relays[1]
                active.kill()
                found = last_json(source.communicate(timeout=PATIENCE)[0])
                pauses.append(found["latency_us"]["max"])
                relays[i % 2] = Relay(b.world, cluster, d)
                time.sleep(1.5)  # The new one stands by.
        finally:
            for relay in relays:
                relay.stop()
        return b.world.stored(cluster)

    with b.world.database("postgresql") as d, Cluster(b.world.place, 1) as cluster:
        cluster.create(TOPIC, PARTITIONS)
        stored = longest_pause(d, cluster)
        rows = int(d.sql("SELECT count(*) FROM ferry.outbox")[0][0])  # Not by the sequence: it has gaps.
    b.table.add(f"G14 kill -9 of the active relay, {b.sizes.takeovers} times, longest wait of a message",
                "<= 1.5 s, 0 duplicates in the log",
                f"{spread(pauses, ms)}, {stored - rows} duplicates", "",
                max(pauses) <= 1_500_000 and stored == rows)


def app_started(b, d, cluster):
    return subprocess.Popen([b.world.program("outbox_app"), "load", d.url, cluster.endpoint, TOPIC,
                             "200", "5", "4"], stdout=subprocess.PIPE, text=True)


CASES = {"null": null_cases, "drain": drain_cases, "writes": writes_case, "latency": latency_cases,
         "load": load_case, "effect": effect_case, "cost": cost_cases, "held": held_cases,
         "open": open_case, "backlog": backlog_case, "takeover": takeover_case}
ONCE = ("writes", "held", "open", "backlog", "takeover")  # Whatever --runs says.
