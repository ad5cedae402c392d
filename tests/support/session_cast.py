"""Who plays in a session play: engines that write from a small vocabulary, one or two daemons, and the store behind them.

Used by support.session_play. Everything here only acts and tells; what must come of it is support.session_model's.
"""

import os
import signal
import time
import zlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import redis

from support.breaks import Utterance
from support.daemon import Daemon, backend, settings
from support.engine_ollama import Habits, OllamaDialect
from support.engine_vllm import VllmDialect
from support.scripted_model import START, Scene, ScriptedModel
from support.steps import Answer
from support.waiting import until
from support.wire import Reply, ask
from support.writing_engine import WritingEngine

ANSWERS = (
    "yes, of course",
    "no",
    "Once more the sea was calm and nobody came",
    "  I would rather not say so, all things considered \n",
    "<think>hm, what was it again</think>\nIt was the lark, as everybody knows",
    "Caf\u00e9 or tea? \U0001f600 Both are ready when you are",
    "\n\nFirst the left one, then the right one, then both of them at once",
    '{"answer": "in JSON", "sure": true}',
)
CALLING = (
    '<tool_call>{"name": "look", "arguments": {"at": "sea"}}</tool_call>',
    'Let me see. <tool_call>{"name": "look", "arguments": {"at": "the caf\u00e9", "for": [1, 2.5, null]}}</tool_call>',
    '<tool_call>{"name": "listen", "arguments": {}}</tool_call>',
)
TTL_S = 3600


@dataclass(frozen=True, slots=True)
class Setting:
    """How a play is set: the engines' kind, how many daemons, and what their file says of sessions."""

    engine: str = "ollama"
    engines: int = 2
    daemons: int = 1
    messages_max: int = 60
    format: str = "json"


def write_answer(prompt: str) -> str:
    """Say what the scripted model says: the same for the same prompt; a call of a tool only where tools are offered."""
    number = zlib.crc32(prompt.encode())
    if f"{START}tools" in prompt and number % 3 == 0:
        return CALLING[number // 3 % len(CALLING)]
    return ANSWERS[number // 3 % len(ANSWERS)]


class Author(ScriptedModel):
    """Writes by `write_answer`. A bare text it takes for all that was asked, so that it has always something to say."""

    def __init__(self) -> None:
        super().__init__(write=write_answer)

    def _plain_scene(self, body: bytes) -> Scene:
        return Scene(body)


class LastApart(OllamaDialect):
    """An Ollama whose last line, the one that is done, ends the stream, so that an answer may break right before it."""

    def answer(self, path: str, body: Mapping[str, Any]) -> Utterance | Answer | None:
        """Answer one request; None for a path that Ollama does not have."""
        answer = super().answer(path, body)
        if isinstance(answer, Utterance) and not answer.closing:
            return replace(answer, pieces=answer.pieces[:-1], closing=answer.pieces[-1:])
        return answer


class Shelf:
    """The store, from outside: in files below a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.url = f"file:{folder}"

    def expire(self, session: str) -> None:
        """Let the session's last change lie longer ago than it is kept."""
        long_ago_s = time.time() - TTL_S - 60
        os.utime(self._file(session), (long_ago_s, long_ago_s))

    def spoil(self, session: str, share: float) -> None:
        """Cut the session's record off after that share of it."""
        data = self._file(session).read_bytes()
        self._file(session).write_bytes(data[: int(len(data) * share)])

    def is_set_aside(self, session: str) -> bool:
        """Whether a record that could not be read lies there."""
        file = self._file(session)
        return any(file.parent.glob(f"{file.stem}*.corrupt"))

    def free(self, session: str) -> None:
        """Let the lock of a daemon that was killed run out; the system has done so with a file's."""

    def _file(self, session: str) -> Path:
        name = sha256(session.encode()).hexdigest()
        return self._folder / name[:2] / f"{name}.session"


class RedisShelf(Shelf):
    """The store in Redis, reached by `url`; `prefix` keeps plays apart."""

    def __init__(self, url: str, prefix: str) -> None:
        self.url = url
        self.prefix = prefix
        self._redis = redis.Redis.from_url(url.replace("redis+unix://", "unix://"), protocol=2, driver_info=None)

    def expire(self, session: str) -> None:
        """Let Redis forget the session as it does at the end of its time."""
        self._redis.pexpire(self._key(session, "s"), 1)
        until(lambda: not self._redis.exists(self._key(session, "s")), "it has expired", every_s=0.002)

    def spoil(self, session: str, share: float) -> None:
        """Cut the session's body off after that share of it."""
        body: Any = self._redis.hget(self._key(session, "s"), "b")
        self._redis.hset(self._key(session, "s"), "b", body[: int(len(body) * share)])

    def is_set_aside(self, session: str) -> bool:
        """Whether a record that could not be read is there."""
        return bool(self._redis.exists(self._key(session, "corrupt")))

    def free(self, session: str) -> None:
        """Let the lock of a daemon that was killed run out, as it does after some seconds."""
        self._redis.delete(self._key(session, "l"))

    def close(self) -> None:
        """Let go of the connection."""
        self._redis.close()

    def _key(self, session: str, kind: str) -> str:
        return f"{self.prefix}{{{sha256(session.encode()).hexdigest()}}}:{kind}"


class Cast:
    """Engines and daemons of one play, in FOLDER. Use as a context manager; entered once all is up."""

    def __init__(self, setting: Setting, folder: Path, shelf: Shelf) -> None:
        self.setting = setting
        self.shelf = shelf
        self.engines: list[WritingEngine] = []
        self.daemons: list[Daemon] = []
        self._folder = folder
        self._away: WritingEngine | None = None
        self._running = ExitStack()

    def __enter__(self) -> Self:
        model = Author()
        habits = Habits(is_native=True, context_tokens=10**9)
        for number in range(self.setting.engines):
            dialect = LastApart(model, habits) if self.setting.engine == "ollama" else VllmDialect(model)
            engine = WritingEngine(f"gpu{number}", dialect, engine=self.setting.engine)
            self.engines.append(self._running.enter_context(engine))
        for number in range(self.setting.daemons):
            (self._folder / f"daemon{number}").mkdir()
            self.daemons.append(self._started(number))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            for daemon in self.daemons:
                daemon.__exit__(kind, error, trace)
        finally:
            self._running.__exit__(kind, error, trace)

    # --- daemons

    def restart(self, daemon: Daemon, number: signal.Signals | None = None) -> None:
        """End a daemon by this signal, or let it end by itself, and start it again."""
        place = self.daemons.index(daemon)
        if number is not None:
            daemon.send_signal(number)
        status = daemon.wait_ended()
        assert status in (0, -signal.SIGKILL), f"the daemon ended with {status}"
        daemon.__exit__(None, None, None)
        self.daemons[place] = self._started(place)

    def _started(self, number: int) -> Daemon:
        sessions: dict[str, Any] = {
            "store": self.shelf.url,
            "messages_max": self.setting.messages_max,
            "format": self.setting.format,
            "ttl": f"{TTL_S}s",
        }
        if isinstance(self.shelf, RedisShelf):
            sessions["prefix"] = self.shelf.prefix
        wanted = settings(
            *(backend(engine, self.setting.engine) for engine in self.engines),
            sessions=sessions,
            # An engine that is away refuses; one that answers late, on a machine that is busy with other plays, is not away.
            health={"interval": "100ms", "timeout": "10s", "max_fails": 0},
            failover={"budget": 1},
        )
        daemon = Daemon(wanted, self._folder / f"daemon{number}")
        daemon.__enter__()
        self._wait_up(daemon)
        return daemon

    def _wait_up(self, daemon: Daemon) -> None:
        daemon.wait_condition("up", *(engine.name for engine in self.engines if engine is not self._away))

    # --- engines

    @property
    def is_complete(self) -> bool:
        """Whether no engine is away."""
        return self._away is None

    def send_away(self, engine: WritingEngine) -> None:
        """Let an engine die, the only one that is away."""
        self._away = engine
        engine.refuse()
        engine.drop_connections()

    def take_back(self) -> None:
        """Let the engine that is away come back, and every daemon know it."""
        assert self._away is not None
        for daemon in self.daemons:
            # Else it might find out only when another one is away.
            daemon.wait_condition("down", self._away.name)
        self._away.listen()
        self._away = None
        for daemon in self.daemons:
            self._wait_up(daemon)

    def forget_given(self) -> None:
        """Forget what engines were given so far."""
        for engine in self.engines:
            engine.generated.clear()
            engine.seen.requests.clear()

    def all_given(self) -> list[tuple[str, dict[str, Any]]]:
        """Return path and body of what engines were given since, in no order between two engines."""
        return [asked for engine in self.engines for asked in engine.generated]

    def raw_given(self) -> list[bytes]:
        """Return the bodies that engines were given since, byte for byte, questions that generate nothing among them."""
        return [request.body for engine in self.engines for request in engine.seen.requests]

    # --- the admin port

    def record(self, session: str) -> dict[str, Any] | None:
        """Return what any daemon shows of a session; None: it knows none."""
        reply = self.daemons[-1].admin(f"/api/sessions?id={quote(session, safe='')}")
        assert reply.status in (200, 404), reply
        return dict(reply.json()) if reply.status == 200 else None

    def copy(self, source: str, target: str) -> None:
        """Export a session and import it as another, which it takes the place of."""
        record = self.record(source)
        path = f"/api/sessions?id={quote(target, safe='')}"
        reply = ask(self.daemons[0].admin_port, path, record, method="PUT")
        assert reply.status == 200, reply

    def delete(self, session: str) -> Reply:
        """Delete a session by the admin port."""
        return self.daemons[0].admin(f"/api/sessions?id={quote(session, safe='')}", method="DELETE")


def is_beginning(text: str, of: Sequence[str] = (*ANSWERS, *CALLING)) -> bool:
    """Whether an engine of these plays can have begun to say that."""
    return any(whole.startswith(text) for whole in of)
