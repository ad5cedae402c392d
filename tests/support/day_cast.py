"""Who plays in plays of upkeep: engines that are processes of their own, clients that hold answers against a model, a webhook.

Used by support.day and tests/integration/test_upkeep.py; run as `python day_cast.py engine NAME PORT FOLDER` it is one of the
engines. An engine writes its process's id to FOLDER/NAME.pid and reads its mood from FOLDER/NAME.mood.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from support.alive import is_alive
from support.daemon import Daemon, settings
from support.endings import whole_story
from support.engine_vllm import VllmDialect
from support.flips_talk import Link
from support.llama import free_port
from support.scripted import Received, _bound_socket
from support.scripted_model import ScriptedModel
from support.steps import Answer, answer, hang
from support.waiting import until
from support.wire import CutShortError, Reply, ask, chat, request_bytes
from support.writing_engine import WritingEngine

TESTS = Path(__file__).parents[1]
GAP_S = 0.005
SLOW_TIMES = 6
PROMPTS = tuple(f"tell me of evening number {number}" for number in range(8))
# By a script of an operator's: kill what is there, leave the new one behind.
COMMAND = '[ ! -e "$0" ] || kill -9 "$(cat "$0")"; "$@" >/dev/null 2>&1 &'
QUICK_RESTART: dict[str, Any] = {"after": 1, "backoff": "200ms", "ready": "5s", "grace": "300ms"}
HEALTH: dict[str, Any] = {"interval": "200ms", "timeout": "500ms", "rise": 1, "fall": 2, "fail_timeout": "1s"}
TIMEOUTS = {"connect": "500ms", "first_token": "2s", "stall": "1s"}


# --- the engines


class DayEngine(WritingEngine):
    """A vLLM that writes, on a port that is given, with moods that a play sets from outside (`Actor.mood`).

    "barren": its health is good and nothing is generated; "slow": every token takes six times as long.
    """

    def __init__(self, name: str, port: int, mood: Path) -> None:
        super().__init__(name, VllmDialect(ScriptedModel()), engine="vllm")
        self._listener.close()
        self._listener = _bound_socket(port)
        self._mood = mood

    def _choose(self, request: Received, *, is_probe: bool) -> Answer:
        mood = self._mood.read_text() if self._mood.exists() else ""
        if mood == "barren" and not is_probe:
            return answer(hang())
        self.gap_s = GAP_S * (SLOW_TIMES if mood == "slow" else 1)
        return super()._choose(request, is_probe=is_probe)


def serve(name: str, port: int, folder: Path) -> None:
    """Be one engine until killed; a mood of "broken" ends it at once, any other is over with the process that had it."""
    mood = folder / f"{name}.mood"
    if mood.exists() and mood.read_text() == "broken":
        sys.stderr.write("CUDA error: no device\n")
        sys.exit(3)
    mood.unlink(missing_ok=True)
    with DayEngine(name, port, mood):
        (folder / f"{name}.pid").write_text(str(os.getpid()))
        signal.pause()


class Actor:
    """One engine's process as a play sees it: where it listens, how it is started, and what befalls it."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.argv = [sys.executable, str(Path(__file__)), "engine", name, str(self.port), str(folder)]
        self.pid_file = folder / f"{name}.pid"
        self.command = ["sh", "-c", COMMAND, str(self.pid_file), *self.argv]
        self._mood = folder / f"{name}.mood"

    def entry(self, means: str, **more: Any) -> dict[str, Any]:
        """Write its entry under `backends`, restarted by `run` or by `command`; `more` is put beside, or into its restart."""
        argv = self.argv if means == "run" else self.command
        restart = {means: argv, **QUICK_RESTART, **more.pop("restart", {})}
        return {"name": self.name, "url": self.url, "engine": "vllm", "restart": restart, **more}

    def start(self) -> None:
        """Start it, as whoever set up the machine did, and return when it listens."""
        subprocess.run(self.command, env={**os.environ, "PYTHONPATH": str(TESTS)}, check=True)
        self.wait_listening()

    def wait_listening(self) -> None:
        """Return when it answers its health check."""

        def answers() -> bool:
            with contextlib.suppress(OSError, CutShortError):
                return ask(self.port, "/health", deadline_s=1.0).status == 200
            return False

        until(answers, f"{self.name} listens")

    @property
    def pid(self) -> int:
        """The process that runs, or ran last."""
        return int(self.pid_file.read_text())

    def signal(self, number: signal.Signals) -> None:
        """Signal it."""
        os.kill(self.pid, number)

    def mood(self, mood: str) -> None:
        """Put it in a mood, "" in none."""
        self._mood.write_text(mood)

    def end(self) -> None:
        """Kill whatever is left of it."""
        if self.pid_file.exists() and is_alive(self.pid) and self.argv[2] in Path(f"/proc/{self.pid}/cmdline").read_text():
            os.kill(self.pid, signal.SIGKILL)


@contextmanager
def actors(folder: Path, *names: str) -> Iterator[list[Actor]]:
    """Cast engines, which are not started; whatever is left of them afterwards is killed."""
    made = [Actor(name, folder) for name in names]
    try:
        yield made
    finally:
        for actor in made:
            actor.end()


def upkeep_daemon(folder: Path, *entries: dict[str, Any], **sections: Any) -> Daemon:
    """Make a daemon with quick health, not yet running, whose engines find the tests' modules."""
    wanted = settings(*entries, **({"health": HEALTH, "timeouts": TIMEOUTS} | sections))
    return Daemon(wanted, folder, environment={"PYTHONPATH": str(TESTS)})


# --- who is told


@dataclass(slots=True)
class Mailman:
    """A webhook on a free port of loopback: the messages that came, as (seconds by time.monotonic, subject, body)."""

    url: str = ""
    mails: list[tuple[float, str, str]] = field(default_factory=list)
    status: int = 200

    @property
    def subjects(self) -> list[str]:
        """What the messages are about, in order."""
        return [subject for _, subject, _ in self.mails]

    def about(self, words: str) -> list[str]:
        """Return the subjects in which these words are."""
        return [subject for subject in self.subjects if words in subject]


@contextmanager
def open_mailman() -> Iterator[Mailman]:
    """Serve one; its `url` is what goes under `alerts`."""
    mailman = Mailman()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Take one message."""
            told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if mailman.status == 200:
                mailman.mails.append((time.monotonic(), told["title"], told["message"]))
            self.send_response(mailman.status)
            self.end_headers()

        def log_message(self, *_args: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    mailman.url = f"json://127.0.0.1:{server.server_port}/"
    try:
        yield mailman
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# --- the load


class Crowd:
    """Clients that ask without end, streams and whole answers, and hold every answer against what the model says."""

    def __init__(self, daemon: Daemon, texts: dict[str, str], clients: int, seed: int) -> None:
        self.answered: Counter[str] = Counter()
        self.resumed = 0
        self.lost: list[str] = []
        self._daemon, self._texts = daemon, texts
        self._clients, self._seed = clients, seed
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="crowd")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def wait_answers(self, count: int, name: str = "", timeout_s: float = 10.0) -> None:
        """Return when so many more answers have come (from that backend)."""
        before = self.answered[name] if name else self.answered.total()
        until(
            lambda: (self.answered[name] if name else self.answered.total()) >= before + count,
            f"{count} answers of {name or 'anyone'}; {dict(self.answered)}",
            timeout_s=timeout_s,
        )

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(self._clients):
                tasks.create_task(self._client(random.Random(f"{self._seed}.{number}")))

    async def _client(self, dice: random.Random) -> None:
        link = Link()
        while not self._is_over.is_set():
            prompt, is_streamed = dice.choice(PROMPTS), dice.random() < 0.7
            request = request_bytes("POST", "/v1/chat/completions", chat(prompt, stream=is_streamed))
            sent_at_s = time.monotonic()
            try:
                reply = await link.ask(self._daemon.port, request)
                why = self._wrong_with(reply, prompt, is_streamed=is_streamed)
            except (OSError, AssertionError, TimeoutError) as error:
                why = repr(error)
            if why:
                self.lost.append(f"at {time.monotonic():.2f}, after {time.monotonic() - sent_at_s:.2f} s: {why}")
            await asyncio.sleep(0.02)
        link.close()

    def _wrong_with(self, reply: Reply, prompt: str, *, is_streamed: bool) -> str:
        if reply.status != 200:
            return f"status {reply.status}: {reply.body[-200:]!r}"
        if not is_streamed:
            text, last = reply.text, reply.backend
        else:
            story = whole_story(reply)
            text, last = story.text, story.seams[-1][0] if story.seams else reply.backend
            self.resumed += bool(story.seams)
        self.answered[last] += 1
        return "" if text == self._texts[prompt] else f"not what the model says: {text!r}"


def texts_of(actor: Actor) -> dict[str, str]:
    """Ask an engine itself what the model says to each prompt."""
    return {prompt: ask(actor.port, body=chat(prompt)).text for prompt in PROMPTS}


if __name__ == "__main__":
    serve(sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
