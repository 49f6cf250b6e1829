"""What the outbox bench starts: databases with an outbox, relays, peers. Everything is ended here."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
BENCH = os.path.dirname(HERE)
sys.path += [BENCH, os.path.join(os.path.dirname(BENCH), "lib")]

import databases  # pylint: disable=wrong-import-position
from cluster import TICKS, end_with_us, until  # pylint: disable=wrong-import-position

PATIENCE = 2400  # Longer than the half hour of G11.
KEYS = 1000
ROW_BYTES = 200
TOPIC = "bench"
FILL_BATCH = 500_000


def run(*words, **more):
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, timeout=PATIENCE,
                          check=False, **more)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, words))}: exit code {done.returncode}: "
                           f"{done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def last_json(text):
    return json.loads(text.strip().splitlines()[-1])


class Tuned(databases.PostgreSQL):
    """PostgreSQL as a server of this size would be set: fsync and synchronous_commit stay on."""

    def _command(self):
        settings = {"shared_buffers": "512MB", "max_wal_size": "4GB", "max_connections": 200,
                    "wal_level": "logical", "max_replication_slots": 10,
                    "shared_preload_libraries": "pg_stat_statements", "track_io_timing": "off",
                    "checkpoint_timeout": "15min"}
        words = super()._command()
        for name, value in settings.items():
            words += ["-c", f"{name}={value}"]
        return words

    def psql(self, database):
        """The command of a session that reads statements from its standard input."""
        return [str(self.bin / "psql"), "-X", "-q", "-A", "-t", "-h", str(self.folder), "-p",
                str(self.port), "-U", "postgres", "-d", database]


class TunedMaria(databases.MariaDB):
    """MariaDB with as much memory; innodb_flush_log_at_trx_commit stays 1."""

    def _command(self):
        return [*super()._command(), "--innodb-buffer-pool-size=512M", "--innodb-log-file-size=512M",
                "--max-connections=200"]


class Database:
    """One outbox on one kind of database, made anew for each measurement."""

    def __init__(self, world, kind, name):
        self.world, self.kind, self.name = world, kind, name
        if kind == "sqlite":
            self.path = os.path.join(world.folder, f"{name}.db")
            self.url = f"sqlite:{self.path}"
        else:
            self.server = world.server(kind)
            self.server.create(name)
            self.url = self.server.url(name)
        run(world.place.program("ferry"), "outbox", "init", self.url, "--quiet")

    def sql(self, text):
        return self.server.sql(text, self.name)

    def fill(self, rows):
        """A backlog of `rows`, settled on disk, nothing in the caches' way that a day would not have."""
        if self.kind == "sqlite":
            run(self.world.place.program("relay_bench"), "fill", self.path, TOPIC, rows, ROW_BYTES)
            return
        for first in range(0, rows, FILL_BATCH):
            last = min(first + FILL_BATCH, rows) - 1
            if self.kind == "postgresql":
                self.sql("INSERT INTO ferry.outbox (topic, mkey, payload) SELECT "
                         f"'{TOPIC}', convert_to('key-' || n % {KEYS}, 'UTF8'), "
                         f"convert_to(repeat('x', {ROW_BYTES}), 'UTF8') "
                         f"FROM generate_series({first}, {last}) n")
            else:
                self.sql("INSERT INTO ferry_outbox (topic, mkey, payload) SELECT "
                         f"'{TOPIC}', CONCAT('key-', seq MOD {KEYS}), REPEAT('x', {ROW_BYTES}) "
                         f"FROM seq_{first}_to_{last}")
        if self.kind == "postgresql":
            self.sql("CHECKPOINT")

    def drop(self):
        if self.kind == "sqlite":
            for ending in ("", "-wal", "-shm", "-ferry-relay"):
                if os.path.exists(self.path + ending):
                    os.unlink(self.path + ending)
        elif self.kind == "postgresql":
            self.server.sql(f"DROP DATABASE {self.name} WITH (FORCE)")
        else:
            self.server.sql(f"DROP DATABASE {self.name}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.drop()


class Relay:
    """A ferry-outbox process."""

    def __init__(self, world, cluster, database, *options):
        self.log_path = os.path.join(world.folder, f"relay-{world.next_number()}.log")
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [world.place.program("ferry-outbox"), "--server", cluster.endpoint, "--db",
                 database.url, *options], stdout=log, stderr=log, preexec_fn=end_with_us)

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return log.read()[-2000:]

    def check(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"the relay ended with {self.process.returncode}: {self.log()}")

    def cpu_seconds(self):
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii", errors="replace") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def rss_peak_bytes(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        raise RuntimeError("no VmHWM")

    def kill(self):
        self.process.kill()
        self.process.wait(PATIENCE)

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class World:
    def __init__(self, place):
        self.place = place
        self.folder = tempfile.mkdtemp(prefix="ferry-outbox-bench-", dir=place.folder)
        os.chmod(self.folder, 0o755)  # The servers' users pass.
        self.servers, self.count = {}, 0
        os.environ["FERRY_DRIVERS"] = os.path.abspath(place.bin)

    def next_number(self):
        self.count += 1
        return self.count

    def server(self, kind):
        if kind not in self.servers:
            made = {"postgresql": Tuned, "mariadb": TunedMaria}[kind]
            self.servers[kind] = made(os.path.join(self.folder, kind)).start()
        return self.servers[kind]

    def database(self, kind):
        return Database(self, kind, f"bench{self.next_number()}")

    def program(self, name):
        path = os.path.join(self.place.bin, "tests", "bench", "outbox", name)
        if not os.access(path, os.X_OK):
            raise RuntimeError(f"{path} is not there: build with libpq and libmariadb")
        return path

    def stored(self, cluster):
        info = json.loads(self.place.ferry(cluster, "--json", "topic", "info", TOPIC))
        return sum(p["end_offset"] for p in info["partitions"])

    def wait_stored(self, cluster, rows, relay):
        def there():
            relay.check()
            return self.stored(cluster) >= rows
        until(there, lambda: f"{rows} rows in the log: {relay.log()}", PATIENCE)

    def close(self):
        for server in self.servers.values():
            server.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


# ---- Peers --------------------------------------------------------------------------------------

class Pto:
    """pg-transactional-outbox from npm, in a folder of its own."""

    def __init__(self, world):
        self.folder = os.path.join(world.folder, "pto")
        shutil.copytree(os.path.join(HERE, "pto"), self.folder)
        run("npm", "install", "--no-audit", "--no-fund", "--no-package-lock", cwd=self.folder)
        self.server = world.server("postgresql")

    def __call__(self, database, *words, **settings):
        environment = {**os.environ, "PGHOST": str(self.server.folder), "PGPORT": str(self.server.port),
                       "PGUSER": "postgres", "PGDATABASE": database,
                       **{name: str(value) for name, value in settings.items()}}
        return run("node", "pto.mjs", *words, cwd=self.folder, env=environment)


def now():
    return time.monotonic()
