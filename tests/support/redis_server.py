"""Real Redis servers for plays: one, a Sentinel set, a Cluster; they can be frozen, killed and started again where they were.

Each writes what it acknowledges to its disk first (appendfsync always), is bound to 127.0.0.1 and to a socket in a folder of its
own, and ends with its play. Nothing here knows the store; what a play knows of a server it asks the server.
"""

import random
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from support.alive import freeze
from support.process import Output, end
from support.waiting import until

START_TIMEOUT_S = 15.0
MASTER_NAME = "conversations"
SLOTS = 16384
# Below the ports that the kernel gives to those who do not care, so that none of these takes ours between look and use.
_PORTS = range(20000, 32000)


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nobody listens."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as tried:
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class RedisServer:
    """One server, entered once it answers. `options` are those of redis.conf; with `is_tcp` it has a port besides its socket."""

    def __init__(self, options: Mapping[str, str] | None = None, *, is_tcp: bool = False) -> None:
        self._options = dict(options or {})
        self._is_tcp = is_tcp
        self.port = 0
        # Not pytest's folder: a socket's path has at most 107 bytes.
        self._folder = Path(tempfile.mkdtemp(prefix="understudy-redis-"))
        self.path = str(self._folder / "s")
        self._process: subprocess.Popen[bytes] | None = None
        self._output: Output | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()
        shutil.rmtree(self._folder)

    # Its process.

    @property
    def url(self) -> str:
        """What an operator writes to reach it over its socket, or over its port where it has one."""
        return f"redis://127.0.0.1:{self.port}" if self._is_tcp else f"redis+unix://{self.path}"

    def start(self) -> None:
        """Start it where it was, with the data that its disk has; return once it answers."""
        while self._is_tcp and self.port == 0:
            self.port = free_port()
            self._launch()
            if self._has_come():
                return
            self.kill()
            self.port = 0
        self._launch()
        assert self._has_come(), "redis-server has not started:\n" + "\n".join(self._output.lines if self._output else [])

    def kill(self) -> None:
        """End it at once, as kill -9 and a power failure do."""
        if self._process is not None and self._output is not None:
            end(self._process)
            self._output.close()
        self._process = self._output = None

    def freeze(self) -> None:
        """Stop it: it takes connections and answers nothing."""
        assert self._process is not None
        freeze(self._process.pid)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _launch(self) -> None:
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port) if self._is_tcp and "tls-port" not in self._options else "0",
            "unixsocket": self.path,
            "dir": str(self._folder),
            "save": '""',
            "appendonly": "yes",
            "appendfsync": "always",
            "repl-diskless-sync-delay": "0",
            **{name: value.replace("PORT", str(self.port)) for name, value in self._options.items()},
        }
        file = self._folder / "redis.conf"
        if not file.exists():
            # Once: Sentinels and Clusters write into their files.
            file.write_text("".join(f"{name} {value}\n" for name, value in options.items()))
        command = ["redis-server", str(file), *self._more_arguments()]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert self._process.stdout is not None
        self._output = Output(self._process.stdout, "redis")

    def _more_arguments(self) -> list[str]:
        return []

    def _has_come(self) -> bool:
        assert self._output is not None
        try:
            self._output.wait_line(lambda line: "eady to accept connections" in line or "Sentinel ID is" in line, START_TIMEOUT_S)
        except AssertionError:
            return False
        return True

    # What it is asked.

    def ask(self, *words: Any) -> Any:
        """Send one command over the socket, as its user with all rights, and return the reply."""
        password = self._options.get("requirepass")
        with redis.Redis(unix_socket_path=self.path, password=password, protocol=2, driver_info=None) as client:
            return client.execute_command(*words)

    def calls(self) -> dict[str, int]:
        """How often each command was called since `CONFIG RESETSTAT`, those within scripts included."""
        found = self.ask("INFO", "commandstats")
        return {name.removeprefix("cmdstat_"): facts["calls"] for name, facts in found.items()}


class Sentinel(RedisServer):
    """One Sentinel that watches a master, finds it down after a second, and decides alone."""

    def __init__(self, master_port: int) -> None:
        super().__init__(is_tcp=True)
        self._lines = [
            f"monitor {MASTER_NAME} 127.0.0.1 {master_port} 1",
            f"down-after-milliseconds {MASTER_NAME} 1000",
            f"failover-timeout {MASTER_NAME} 3000",
        ]

    def _launch(self) -> None:
        file = self._folder / "redis.conf"
        if self._process is None:
            options = ["bind 127.0.0.1", f"port {self.port}", f"unixsocket {self.path}", f"dir {self._folder}"]
            file.write_text("\n".join([*options, *(f"sentinel {line}" for line in self._lines)]) + "\n")
        super()._launch()

    def _more_arguments(self) -> list[str]:
        return ["--sentinel"]

    def master_port(self) -> int:
        """Who it believes is the master."""
        return int(self.ask("SENTINEL GET-MASTER-ADDR-BY-NAME", MASTER_NAME)[1])


def wait_follows(replica: RedisServer, master: RedisServer) -> None:
    """Wait until what the master is told reaches the replica at once; its link is up a second before that."""
    until(lambda: replica.ask("INFO", "replication").get("master_link_status") == "up", "the replica has the master's data")
    probe = f"probe {replica.port}"
    master.ask("SET", probe, "x", "PX", 60_000)
    until(lambda: replica.ask("INFO", "replication")["slave_repl_offset"] >= offset(master), "the replica follows")


def offset(server: RedisServer) -> int:
    """How many bytes of changes a server has made."""
    return int(server.ask("INFO", "replication")["master_repl_offset"])


@contextmanager
def sentinel_set(replica_count: int = 1) -> Iterator[tuple[RedisServer, list[RedisServer], Sentinel]]:
    """Run a master, so many replicas that follow it, and a Sentinel that knows them."""
    with ExitStack() as running:
        master = running.enter_context(RedisServer(is_tcp=True))
        follow = {"replicaof": f"127.0.0.1 {master.port}"}
        replicas = [running.enter_context(RedisServer(follow, is_tcp=True)) for _ in range(replica_count)]
        for replica in replicas:
            wait_follows(replica, master)
        sentinel = running.enter_context(Sentinel(master.port))

        def is_known() -> bool:
            known = sentinel.ask("SENTINEL SLAVES", MASTER_NAME)
            return len(known) == replica_count and all(one["master-link-status"] == "ok" for one in known)

        until(is_known, "the Sentinel knows the replicas", timeout_s=20.0)
        yield master, replicas, sentinel


@contextmanager
def cluster(count: int = 3) -> Iterator[tuple[list[RedisServer], RedisServer]]:
    """Run a Cluster of so many primaries that have all slots between them, and a replica of the first one."""
    with ExitStack() as running:
        options = {"cluster-enabled": "yes", "cluster-node-timeout": "1000"}
        nodes: list[RedisServer] = []
        for number in range(count + 1):
            node = RedisServer({**options, "cluster-port": str(free_port())}, is_tcp=True)
            nodes.append(running.enter_context(node))
            if number < count:
                node.ask("CLUSTER ADDSLOTSRANGE", SLOTS * number // count, SLOTS * (number + 1) // count - 1)
            node.ask("CLUSTER SET-CONFIG-EPOCH", number + 1)
            for other in nodes[:number]:
                node.ask("CLUSTER MEET", "127.0.0.1", other.port, other.ask("CONFIG GET", "cluster-port")["cluster-port"])

        def is_ready(node: RedisServer) -> bool:
            facts = node.ask("CLUSTER INFO")
            return bool(facts["cluster_state"] == "ok" and facts["cluster_known_nodes"] == str(count + 1))

        until(lambda: all(map(is_ready, nodes)), "the cluster has come together", timeout_s=30.0)
        *primaries, replica = nodes
        replica.ask("CLUSTER REPLICATE", primaries[0].ask("CLUSTER MYID").decode())
        until(lambda: replica.ask("INFO", "replication").get("master_link_status") == "up", "the replica has the data")
        until(lambda: replica.ask("INFO", "replication")["slave_repl_offset"] >= offset(primaries[0]), "the replica follows")
        yield primaries, replica
