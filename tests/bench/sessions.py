"""What it costs to keep a conversation: the daemon's CPU time a turn with 20 messages kept; part of `make bench`.

The same exchange without a session, with the whole history sent by the client, is measured beside it, so that the difference is
what holding, merging, reading and keeping take, threads and fsync included. The engine is a scripted one of tests/support.
"""

import http.client
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from support.daemon import Daemon, backend, settings
from support.redis_server import RedisServer
from support.scripted import ScriptedEngine

MESSAGES = 20
PATH = "/v1/chat/completions"
TEXT = "What a client of a language model says, and what it is told, is some hundred characters long, more or less."
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def measure_turns(folder: Path, times: int) -> dict[str, float]:
    """Return CPU microseconds a turn by what keeps it; "none" is an exchange of as many messages that nothing keeps."""
    found = {}
    for name, sessions in stores(folder):
        place = folder / f"turns-{name}"
        place.mkdir()
        with ExitStack() as stack:
            if name == "redis":
                sessions = {"store": stack.enter_context(RedisServer()).url}  # noqa: PLW2901  the server's life is this one
            engine = stack.enter_context(ScriptedEngine("gpu0", engine="llamacpp"))
            wanted = settings(backend(engine), sessions={**sessions, "messages_max": MESSAGES})
            daemon = stack.enter_context(Daemon(wanted, place))
            daemon.wait_condition("up")
            found[name] = _turn_us(daemon, times, is_kept=name != "none")
    return found


def stores(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each kind of store with its settings; Redis' URL comes with the server."""
    yield "none", {}
    yield "json", {"store": f"file:{folder / 'json'}"}
    yield "msgpack", {"store": f"file:{folder / 'msgpack'}", "format": "msgpack"}
    yield "sealed", {"store": f"file:{folder / 'sealed'}", "key": "5a" * 32}
    if shutil.which("redis-server"):
        yield "redis", {}


def _turn_us(daemon: Daemon, times: int, *, is_kept: bool) -> float:
    client = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=10.0)
    new = [{"role": "user", "content": TEXT}]
    history = [{"role": role, "content": TEXT} for role in ("user", "assistant")] * (MESSAGES // 2)
    headers = {"Content-Type": "application/json", **({"X-Session-ID": "bench"} if is_kept else {})}
    body = json.dumps({"model": "tiny", "messages": new if is_kept else history + new})

    def ask(count: int) -> None:
        for _ in range(count):
            client.request("POST", PATH, body, headers)
            response = client.getresponse()
            response.read()
            if response.status != 200 or response.getheader("X-Understudy-Session-Loss"):
                raise RuntimeError(f"a turn was answered {response.status} {response.headers}")

    ask(MESSAGES)
    used_s = _cpu_s(daemon.pid)
    ask(times)
    used_s = _cpu_s(daemon.pid) - used_s
    client.close()
    return used_s / times * 1e6


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S
