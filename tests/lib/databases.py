"""PostgreSQL and MariaDB of this machine for tests: started in a folder that the test gives, killed,
started again, copied and set back; ended by close() or with this process.

Servers listen on a unix socket in their folder and on a free port of loopback, which they keep. fsync is
on. Neither server runs as root: when this process does, the server gets a user of its own (postgres,
mysql, or nobody), and the folders above must let it pass. Only processes that were started here are ever
touched. Questions are asked with the servers' own command lines, so no Python package is needed.
"""
import atexit
import ctypes
import glob
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

PATIENCE = 60  # Seconds for a server to start or to end.
PR_SET_PDEATHSIG = 1
NULL = "\\N"


def missing():
    """The Debian packages that would have to be installed, if any."""
    packages = []
    if PostgreSQL.programs() is None:
        packages.append("postgresql")
    if not all(map(shutil.which, MariaDB.PROGRAMS)):
        packages.append("mariadb-server")
    return packages


def _dies_with_us():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def free_port(host="127.0.0.1"):
    with socket.socket() as one:
        one.bind((host, 0))
        return one.getsockname()[1]


def _until(condition, what, patience=PATIENCE):
    deadline = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {patience} s: {what}")
        time.sleep(0.02)


def _children(pid):
    """Processes whose parent it is, with the words they show."""
    found = []
    for stat in glob.glob("/proc/[0-9]*/stat"):
        try:
            text = Path(stat).read_text(encoding="utf-8", errors="replace")
            if int(text.rpartition(")")[2].split()[1]) == pid:
                child = int(text.split()[0])
                words = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode(
                    errors="replace").strip()
                found.append((child, words))
        except (OSError, ValueError, IndexError):
            continue  # It has just ended.
    return found


class Server:
    """What the two have in common."""

    user_names = ("nobody",)

    def __init__(self, folder, host="127.0.0.1", port=None):
        self.host = host
        self.folder = Path(folder).resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.data = self.folder / "data"
        self.log = self.folder / "server.log"
        self.port = port or free_port(host)
        self.process = None
        self.user = self._user()
        self._give(self.folder)
        atexit.register(self.close)
        self._init()

    def _user(self):
        """Whom the server runs as; None: as this process."""
        if os.geteuid() != 0:
            return None
        for name in self.user_names:
            try:
                return pwd.getpwnam(name)
            except KeyError:
                continue
        raise AssertionError("no user for a database server")

    def _give(self, path):
        if self.user:
            os.chown(path, self.user.pw_uid, self.user.pw_gid)
            for root, folders, files in os.walk(path):
                for name in folders + files:
                    os.chown(os.path.join(root, name), self.user.pw_uid, self.user.pw_gid,
                             follow_symlinks=False)

    def _as_user(self):
        if not self.user:
            return {}
        return {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}

    def _environment(self):
        """Its temporary files are its own: $TMPDIR may be somebody else's."""
        return {**os.environ, "TMPDIR": str(self.folder)}

    def _run(self, *words, **more):
        done = subprocess.run([str(word) for word in words], capture_output=True, text=True,
                              check=False, cwd=self.folder, timeout=PATIENCE,
                              env=self._environment(), **more)
        if done.returncode != 0:
            raise AssertionError(f"{words[0]}: {done.stderr or done.stdout}")
        return done.stdout

    # ---- For the drivers

    def _init(self):
        """Makes the data folder."""
        raise NotImplementedError

    def _command(self):
        raise NotImplementedError

    def ask(self, database=None):
        """The command that takes a query as its last word and prints the answer: a row a line,
        fields separated by tabs."""
        raise NotImplementedError

    def url(self, database, port=None):
        """For programs of Ferry; another port is a proxy's."""
        raise NotImplementedError

    # ---- Life

    def start(self, wait=True):
        assert self.process is None
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([str(word) for word in self._command()], stdout=log,
                                            stderr=log, stdin=subprocess.DEVNULL, cwd=self.folder,
                                            preexec_fn=_dies_with_us, env=self._environment(),
                                            **self._as_user())
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self):
        _until(self.is_ready, f"{self.folder}: the server is ready, see {self.log}")

    def is_ready(self):
        if self.process is not None and self.process.poll() is not None:
            tail = self.log.read_text(encoding="utf-8", errors="replace")[-2000:]
            raise AssertionError(f"the server ended with {self.process.returncode}: {tail}")
        return self.try_sql("SELECT 1") is not None

    def kill(self):
        """kill -9 of the server; returns when its last process is gone."""
        if self.process is None:
            return
        family = [child for child, _ in _children(self.process.pid)]
        self.process.kill()
        self.process.wait()
        self.process = None
        _until(lambda: not any(os.path.exists(f"/proc/{child}") for child in family),
               "the server's children have ended")

    def stop(self):
        """As an administrator does."""
        if self.process is None:
            return
        process, self.process = self.process, None
        process.send_signal(self.stop_signal)
        try:
            process.wait(PATIENCE)
        finally:
            process.kill()
            process.wait()

    stop_signal = signal.SIGTERM

    def close(self):
        self.kill()

    # ---- Copies

    def copy_to(self, place):
        """A copy of the files of a server that has ended."""
        assert self.process is None
        shutil.copytree(self.data, place, symlinks=True)

    def set_back(self, place):
        """The files are those of the copy from now on."""
        assert self.process is None
        shutil.rmtree(self.data)
        shutil.copytree(place, self.data, symlinks=True)
        self._give(self.data)

    # ---- Questions

    def try_sql(self, sql, database=None):
        """Rows of texts; None when nobody answers or it is refused."""
        try:
            return self.sql(sql, database)
        except AssertionError:
            return None

    def sql(self, sql, database=None):
        """Rows of texts; NULL is None."""
        out = self._run(*self.ask(database), sql)
        return [tuple(None if field == NULL else field for field in line.split("\t"))
                for line in out.splitlines()]


class PostgreSQL(Server):
    """Version 13 or later, from Debian's or the distribution's folder."""

    user_names = ("postgres", "nobody")
    stop_signal = signal.SIGINT  # Fast: clients are disconnected.

    @staticmethod
    def programs():
        """The folder with initdb and postgres; None when they are not installed."""
        found = sorted(glob.glob("/usr/lib/postgresql/*/bin/postgres"),
                       key=lambda path: int(re.search(r"/(\d+)", path).group(1)))
        if found:
            return Path(found[-1]).parent
        one = shutil.which("postgres")
        return Path(one).resolve().parent if one else None

    def _init(self):
        self.bin = self.programs()
        if not self.data.exists():
            self._run(self.bin / "initdb", "-D", self.data, "-A", "trust", "-U", "postgres", "-E",
                      "UTF8", "--no-locale", "-N", **self._as_user())

    def _command(self):
        settings = {"listen_addresses": self.host, "port": self.port, "fsync": "on",
                    "unix_socket_directories": self.folder, "max_connections": 60,
                    "shared_buffers": "32MB", "synchronous_commit": "on",
                    "restart_after_crash": "on", "log_min_messages": "warning"}
        words = [self.bin / "postgres", "-D", self.data]
        for name, value in settings.items():
            words += ["-c", f"{name}={value}"]
        return words

    def ask(self, database=None):
        return (self.bin / "psql", "-X", "-q", "-A", "-t", "-F", "\t", "-P", f"null={NULL}", "-v",
                "ON_ERROR_STOP=1", "-h", self.folder, "-p", self.port, "-U", "postgres", "-d",
                database or "postgres", "-c")

    def url(self, database, port=None):
        return f"postgresql://postgres@{self.host}:{port or self.port}/{database}"

    def create(self, database):
        self.sql(f"CREATE DATABASE {database}")

    def backends(self):
        """Processes that serve clients on TCP."""
        return [pid for pid, words in _children(self.process.pid)
                if re.match(r"postgres: \S+ \S+ 127\.[0-9.]+\(", words)]

    def kill_backend(self, choose):
        """kill -9 of a process that serves a client: PostgreSQL then ends all others and recovers.
        False when there is none."""
        some = self.backends()
        if some:
            os.kill(choose(some), signal.SIGKILL)
        return bool(some)


class MariaDB(Server):
    """Version 10.6 or later."""

    user_names = ("mysql", "nobody")
    PROGRAMS = ("mariadbd", "mariadb-install-db", "mariadb")

    def _init(self):
        self.socket = self.folder / "socket"
        if not self.data.exists():
            self.data.mkdir(mode=0o700)
            self._give(self.data)
            self._run("mariadb-install-db", "--no-defaults", f"--datadir={self.data}",
                      "--auth-root-authentication-method=normal", "--skip-test-db",
                      "--skip-name-resolve", *self._as_whom())

    def _as_whom(self):
        return (f"--user={self.user.pw_name}",) if self.user else ()

    def _command(self):
        return ["mariadbd", "--no-defaults", f"--datadir={self.data}", f"--socket={self.socket}",
                f"--port={self.port}", f"--bind-address={self.host}", "--skip-name-resolve",
                f"--pid-file={self.folder}/pid", "--innodb-flush-log-at-trx-commit=1",
                "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=48M",
                "--max-connections=60", "--innodb-lock-wait-timeout=5", f"--tmpdir={self.folder}"]

    def ask(self, database=None):
        return ("mariadb", "--no-defaults", f"--socket={self.socket}", "--user=root", "--batch",
                "--skip-column-names", "--raw", f"--database={database or ''}", "-e")

    def sql(self, sql, database=None):
        return [tuple(None if field == "NULL" else field for field in row)
                for row in super().sql(sql, database)]

    def url(self, database, port=None):
        return f"mariadb://ferry@{self.host}:{port or self.port}/{database}"

    def create(self, database):
        self.sql(f"CREATE DATABASE {database}; CREATE USER IF NOT EXISTS 'ferry'@'127.%'; "
                 f"GRANT ALL ON {database}.* TO 'ferry'@'127.%'")
