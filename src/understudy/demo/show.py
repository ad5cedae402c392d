"""Show a failover to a newcomer: two small engines, the daemon and a client, and what each of them sees.

Called by cli.demo. Tells in plain words what happens, with what the wire really carried; its own knowledge of the daemon comes
from the public and the admin port alone, as everyone's does. Leaves no process and no file behind, however it ends.
"""

import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

import httpx

from understudy.demo.children import DaemonChild, DemoError, EngineChild, wait_for

PRIMARY, BACKUP = "pi", "laptop"
TOKEN_DELAY_MS = 12.0
ANSWER_TIMEOUT_S = 10.0
QUESTIONS = ("Who speaks tonight?", "And if the lead falls ill?", "Who is on stage now?")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Told:
    """One answer as the client got it: who gave it after how many attempts, and how long it took in seconds."""

    text: str
    backend: str
    attempts: int
    first_words_s: float
    all_words_s: float


def file_text(engines: Sequence[tuple[str, str]]) -> str:
    """Write the daemon's file for (name, url) pairs, the first one primary; probes are quicker than by default."""
    backends = "".join(
        f"  - name: {name}\n    url: {url}\n    role: {'backup' if i else 'primary'}\n" for i, (name, url) in enumerate(engines)
    )
    return (
        "listen: 127.0.0.1:0\n"
        "admin:\n  listen: 127.0.0.1:0\n"
        f"backends:\n{backends}"
        "health:\n  interval: 500ms\n  timeout: 500ms\n  fall: 2\n  fail_timeout: 1s\n"
        "log:\n  format: json\n"
    )


def table(backends: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lay out the backends of /api/status as lines of a table."""
    rows = [("BACKEND", "ROLE", "CONDITION", "WHY")]
    rows += [(str(b["name"]), str(b["role"]), str(b["condition"]), str(b.get("reason") or "-")) for b in backends]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return [
        "   " + "  ".join(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)) + f"  {row[3]}" for row in rows
    ]


def explain(told: Told, *, is_killed: bool) -> str:
    """Say in one sentence what the daemon did for this answer."""
    if not is_killed:
        return f"The daemon sent the question to {told.backend}, the primary."
    if told.attempts > 1:
        return f"The daemon tried {PRIMARY}, found nobody there, and had {told.backend} answer. The client saw nothing of it."
    return f"The daemon knew already that {PRIMARY} is gone and had {told.backend} answer."


class Client:
    """What any client does: asks the one address, and reads the answer as it comes."""

    def __init__(self, port: int, admin_port: int) -> None:
        # Proxy settings of the environment are meant for the internet, not for this machine.
        self._http = httpx.Client(trust_env=False, timeout=ANSWER_TIMEOUT_S)
        self._url = f"http://127.0.0.1:{port}"
        self._admin_url = f"http://127.0.0.1:{admin_port}"

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def ask(self, question: str) -> Told:
        """Ask in a streamed chat. Raises DemoError when no whole answer comes."""
        body = {"model": "demo", "messages": [{"role": "user", "content": question}], "stream": True}
        started_at_s = time.monotonic()
        first_words_s, text, is_finished = 0.0, "", False
        try:
            with self._http.stream("POST", f"{self._url}/v1/chat/completions", json=body) as response:
                if response.status_code != 200:
                    raise DemoError(f"the daemon answered {response.status_code}: {response.read().decode()}")
                for line in response.iter_lines():
                    piece = _content(line)
                    if piece and not text:
                        first_words_s = time.monotonic() - started_at_s
                    text += piece
                    is_finished = is_finished or line == "data: [DONE]"
        except httpx.HTTPError as error:
            raise DemoError(f"the daemon gave no answer: {error}") from error
        if not is_finished:
            raise DemoError("the answer broke off")
        attempts = int(response.headers.get("X-Understudy-Attempts", "0"))
        backend = response.headers.get("X-Understudy-Backend", "?")
        return Told(text.strip(), backend, attempts, first_words_s, time.monotonic() - started_at_s)

    def backends(self) -> list[dict[str, Any]]:
        """Return the backends as the admin port shows them. Raises DemoError."""
        try:
            backends: list[dict[str, Any]] = self._http.get(f"{self._admin_url}/api/status").json()["backends"]
        except (httpx.HTTPError, ValueError) as error:
            raise DemoError(f"the admin port gave no answer: {error}") from error
        return backends

    def wait_condition(self, name: str, condition: str) -> float:
        """Return how many seconds it took until backend `name` was in `condition`. Raises DemoError after some seconds."""
        started_at_s = time.monotonic()

        def look() -> bool | None:
            return any(b["name"] == name and b["condition"] == condition for b in self.backends()) or None

        wait_for(look, f"{name} becoming {condition}")
        return time.monotonic() - started_at_s


def run(say: Say, *, is_staying: bool) -> None:
    """Play the whole show; with `is_staying` everything then runs on until Ctrl-C.

    Raises DemoError when something does not go as it must, KeyboardInterrupt when it was interrupted before the end.
    """
    with contextlib.ExitStack() as cleanup:
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="understudy-demo-")))
        started_at_s = time.monotonic()
        say("Understudy keeps one address answering while the engines behind it come and go.")
        say("Here is all of it on this machine: two small engines with made-up answers, the daemon and a client.\n")
        engines = [EngineChild(name, folder, TOKEN_DELAY_MS) for name in (PRIMARY, BACKUP)]
        for engine in engines:
            cleanup.callback(engine.kill)
            engine.start()
        file = folder / "understudy.yaml"
        file.write_text(file_text([(engine.name, engine.url) for engine in engines]), encoding="utf-8")
        daemon = DaemonChild(file)
        cleanup.callback(daemon.stop)
        daemon.wait_listening()
        client = Client(daemon.port, daemon.admin_port)
        cleanup.callback(client.close)
        for engine in engines:
            client.wait_condition(engine.name, "up")
        rows = [(e.name, e.url, "backup" if i else "primary") for i, e in enumerate(engines)]
        rows.append(("understudy", f"http://127.0.0.1:{daemon.port}", "the one address that clients use"))
        for name, url, words in rows:
            say(f"   {name:<11} {url}   {words}")
        say(f"\nReady after {time.monotonic() - started_at_s:.1f} s.")
        _play(say, client, engines[0])
        if is_staying:
            _stay(say, daemon)


def _play(say: Say, client: Client, primary: EngineChild) -> None:
    say("\n1. A client asks, and the primary answers.\n")
    _ask(say, client, QUESTIONS[0], expected=PRIMARY)

    say("\n2. The primary is killed. The client asks again at once, at the same address.\n")
    primary.kill()
    _ask(say, client, QUESTIONS[1], expected=BACKUP)
    client.wait_condition(PRIMARY, "down")
    say("\n   What the daemon sees now (`understudy status`):\n")
    _print_table(say, client)

    say("\n3. The primary comes back.\n")
    primary.start()
    returned_s = client.wait_condition(PRIMARY, "up")
    say(f"   The daemon noticed by itself, {returned_s:.1f} s after it was back.\n")
    _ask(say, client, QUESTIONS[2], expected=PRIMARY)
    say("")
    _print_table(say, client)
    say("\nNothing failed, and the client never had to know. With engines of your own:\n")
    say("   understudy serve http://192.168.1.100:11434 http://192.168.1.101:11434")


def _ask(say: Say, client: Client, question: str, *, expected: str) -> None:
    told = client.ask(question)
    if told.backend != expected:
        raise DemoError(f"{told.backend} answered where {expected} should have")
    say(f"   > {question}")
    say(fill(told.text, 96, initial_indent="   < ", subsequent_indent="     "))
    say(f"\n   X-Understudy-Backend: {told.backend}   X-Understudy-Attempts: {told.attempts}")
    say(f"   first words after {told.first_words_s * 1000:.0f} ms, the last after {told.all_words_s * 1000:.0f} ms")
    say(f"   {explain(told, is_killed=expected == BACKUP)}")


def _print_table(say: Say, client: Client) -> None:
    for line in table(client.backends()):
        say(line)


def _stay(say: Say, daemon: DaemonChild) -> None:
    body = '{"model": "demo", "messages": [{"role": "user", "content": "Hello"}]}'
    say("\nAll of it stays until Ctrl-C:\n")
    say(f"   curl http://127.0.0.1:{daemon.port}/v1/chat/completions -d '{body}'")
    say(f"   understudy status --admin http://127.0.0.1:{daemon.admin_port}")
    try:
        while not daemon.wait_ended(timeout_s=3600.0):
            pass
    except KeyboardInterrupt:
        say("\nStopped.")
        return
    raise DemoError("the daemon ended by itself")


def _content(line: str) -> str:
    """Read the words of one line of an OpenAI chat stream; "" when it carries none."""
    if not line.startswith("data: {"):
        return ""
    event = json.loads(line.removeprefix("data: "))
    if "error" in event:
        raise DemoError(f"the answer broke off: {event['error'].get('message')}")
    return "".join(str(choice["delta"].get("content") or "") for choice in event["choices"])
