"""Three NATS servers, three RabbitMQ nodes, one beanstalkd, on loopback: in a temporary folder, on
free ports.

Every process started here is a child in a session of its own and is ended by its number. Nothing of
the machine's own services is used or changed: not their ports, their folders, their cookie.
"""

import os
import signal
import socket
import subprocess
import tempfile
import shutil
import time

PATIENCE = 180


def free_ports(count):
    held = []
    try:
        for _ in range(count):
            held.append(socket.socket())
            held[-1].bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in held]
    finally:
        for s in held:
            s.close()


def version_of(package):
    done = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", package], capture_output=True,
                          text=True, check=False)
    return done.stdout.strip() or "unknown"


class Processes:
    """Children with a folder; ended together, the folder removed."""

    def __init__(self, folder, name):
        self.folder = tempfile.mkdtemp(prefix=f"ferry-bench-{name}-", dir=folder)
        self.children = []

    def start(self, words, name, **more):
        with open(os.path.join(self.folder, name + ".log"), "wb") as log:
            self.children.append(subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log,
                                                  stderr=log, start_new_session=True, **more))

    def log(self, name):
        with open(os.path.join(self.folder, name + ".log"), encoding="utf-8", errors="replace") as f:
            return f.read()[-2000:]

    def alive(self):
        return all(child.poll() is None for child in self.children)

    def stop(self):
        for how in (signal.SIGTERM, signal.SIGKILL):
            for child in self.children:
                if child.poll() is None or how == signal.SIGKILL:
                    try:
                        os.killpg(child.pid, how)  # Its own session: the shell and what it started.
                    except ProcessLookupError:
                        pass
            for child in self.children:
                try:
                    child.wait(20)
                except subprocess.TimeoutExpired:
                    pass
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


NATS_CONFIG = """server_name: n{number}
listen: 127.0.0.1:{client}
jetstream {{ store_dir: "{folder}/n{number}", max_memory_store: 64MB, max_file_store: 32GB }}
cluster {{ name: ferry-bench, listen: 127.0.0.1:{peer}, routes: [{routes}] }}
"""


class Nats(Processes):
    name = "NATS JetStream (R3, file)"
    packages = ("nats-server", "libnats-dev")
    # 2.9 has no other way: `sync: always` came with 2.10.
    durability = "on a quorum, **not fsynced** (every 2 minutes, the default)"

    def __init__(self, folder):
        super().__init__(folder, "nats")
        ports = free_ports(6)
        routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports[3:])
        self.url = f"nats://127.0.0.1:{ports[0]}"
        for i in range(3):
            path = os.path.join(self.folder, f"n{i}.conf")
            with open(path, "w", encoding="ascii") as out:
                out.write(NATS_CONFIG.format(number=i, client=ports[i], peer=ports[3 + i],
                                             folder=self.folder, routes=routes))
            self.start(["nats-server", "-c", path], f"n{i}")

    @staticmethod
    def version():
        return version_of("nats-server")


RABBIT_CONFIG = """listeners.tcp.1 = 127.0.0.1:{client}
cluster_formation.peer_discovery_backend = classic_config
cluster_formation.classic_config.nodes.1 = ferry1@localhost
cluster_formation.classic_config.nodes.2 = ferry2@localhost
cluster_formation.classic_config.nodes.3 = ferry3@localhost
loopback_users.guest = true
log.console = true
log.console.level = warning
log.file = false
"""
ON_LOOPBACK = "-kernel inet_dist_use_interface {127,0,0,1}"


class Rabbit(Processes):
    name = "RabbitMQ (quorum queue, 3 nodes)"
    packages = ("rabbitmq-server", "librabbitmq-dev")
    durability = "fsynced on a quorum (persistent, the default)"

    def __init__(self, folder):
        super().__init__(folder, "rabbit")
        clients, distribution, (self.epmd,) = free_ports(3), free_ports(3), free_ports(1)
        self.url = f"127.0.0.1:{clients[0]}"
        cookie = os.path.join(self.folder, ".erlang.cookie")
        with open(cookie, "w", encoding="ascii") as out:
            out.write("FERRYBENCH")
        os.chmod(cookie, 0o400)
        with open(os.path.join(self.folder, "plugins"), "w", encoding="ascii") as out:
            out.write("[].\n")
        # Ours, and before the nodes, which would start one that outlives them.
        self.start(["epmd", "-port", str(self.epmd), "-address", "127.0.0.1"], "epmd")
        time.sleep(0.5)
        for i in range(3):
            with open(os.path.join(self.folder, f"ferry{i + 1}.conf"), "w", encoding="ascii") as out:
                out.write(RABBIT_CONFIG.format(client=clients[i]))
            self.start(["/usr/lib/rabbitmq/bin/rabbitmq-server"], f"ferry{i + 1}",
                       env=self.environment(f"ferry{i + 1}", distribution[i]))
        self.wait_until_three()

    def environment(self, node, distribution=0):
        mine = {
            "HOME": self.folder,
            "ERL_EPMD_PORT": str(self.epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"{node}@localhost",
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_CONFIG_FILE": os.path.join(self.folder, f"{node}.conf"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_ADVANCED_CONFIG_FILE": os.path.join(self.folder, "none.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": os.path.join(self.folder, "plugins"),
            "RABBITMQ_MNESIA_BASE": self.folder,
            "RABBITMQ_LOG_BASE": self.folder,
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": ON_LOOPBACK,
            "RABBITMQ_CTL_ERL_ARGS": ON_LOOPBACK,
        }
        if not distribution:
            del mine["RABBITMQ_DIST_PORT"]
        return {**os.environ, **mine}

    def wait_until_three(self):
        deadline = time.monotonic() + PATIENCE
        while self.running_nodes() < 3:
            if not self.alive() or time.monotonic() > deadline:
                logs = "\n".join(self.log(f"ferry{i}") for i in (1, 2, 3))
                self.stop()
                raise RuntimeError("RabbitMQ did not become a cluster of three:\n" + logs)
            time.sleep(1)

    def running_nodes(self):
        asked = "length(rabbit_nodes:all_running())."
        done = subprocess.run(["/usr/lib/rabbitmq/bin/rabbitmqctl", "-n", "ferry1@localhost", "eval",
                               asked], capture_output=True, text=True, env=self.environment("ferry1"),
                              timeout=PATIENCE, check=False)
        return int(done.stdout) if done.stdout.strip().isdigit() else 0

    @staticmethod
    def version():
        return version_of("rabbitmq-server")


class Beanstalk(Processes):
    name = "beanstalkd (one node, -b, -f 0)"
    packages = ("beanstalkd",)
    durability = "fsynced on its one disk, each message for itself"

    def __init__(self, folder):
        super().__init__(folder, "beanstalk")
        (port,) = free_ports(1)
        self.url = f"127.0.0.1:{port}"
        log = os.path.join(self.folder, "log")
        os.mkdir(log)
        self.start(["beanstalkd", "-l", "127.0.0.1", "-p", str(port), "-b", log, "-f", "0"],
                   "beanstalkd")

    @staticmethod
    def version():
        return version_of("beanstalkd")
