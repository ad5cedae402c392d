"""An engine that does exactly what a play tells it, byte for byte, on a port of its own in a thread of its own.

It answers GET requests, which probes are, with a persona's manners, and every other request from its script; it keeps what it
received, as it came. Plays are plain sequential code: they script, act on the wire, and ask the engine what it saw. A play that
waits, waits for a condition.
"""

import asyncio
import contextlib
import json
import socket
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from support.answers import whole
from support.personas import PERSONAS, Persona, tell
from support.steps import Answer, Step, abort_with_reset

CALL_TIMEOUT_S = 10.0


@dataclass(slots=True)
class Received:
    """One request as it came. `raw` is every byte of it; `nth` counts the requests of its connection from 1."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    connection: int
    nth: int
    raw: bytes
    body: bytes = b""
    is_whole: bool = False

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    def header(self, name: str) -> str:
        """Return the field's values joined by ", "; "" when absent."""
        return ", ".join(value for key, value in self.headers if key.lower() == name.lower())

    def json(self) -> Any:
        """Read the body as JSON."""
        return json.loads(self.body)


class ScriptedConnection:
    """The engine's side of one connection; steps act through it."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.is_closed = False
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Write and wait until the kernel has nearly all; raises ConnectionError when the peer has left."""
        self._writer.write(data)
        await self._writer.drain()

    async def wait_gone(self) -> None:
        """Read and drop whatever comes until the peer closes."""
        while await self._reader.read(65536):
            pass
        raise ConnectionResetError

    def close(self) -> None:
        """Close in order."""
        self.is_closed = True
        self._writer.close()

    def reset(self) -> None:
        """Close with RST."""
        self.is_closed = True
        abort_with_reset(self._writer.get_extra_info("socket"))
        self._writer.transport.abort()

    async def read_request(self, nth: int) -> Received | None:
        """Read the next head; None when the peer closed instead."""
        try:
            raw = await self._reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        first, *lines = raw[:-4].decode("latin-1").split("\r\n")
        method, target, _version = first.split(" ", 2)
        headers = tuple((name, value.strip()) for name, _, value in (text.partition(":") for text in lines))
        return Received(method, target, headers, self.number, nth, raw)

    async def read_body(self, request: Received, pace: "Pace | None") -> None:
        """Read the request's body into `request`, framed either way; at `pace` when there is one."""
        if "chunked" in request.header("transfer-encoding"):
            while True:
                size_line = await self._reader.readuntil(b"\r\n")
                size = int(size_line.split(b";")[0], 16)
                data = await self._reader.readexactly(size + 2)
                request.raw += size_line + data
                request.body += data[:-2]
                if size == 0:
                    break
        else:
            rest = int(request.header("content-length") or "0")
            pieces: list[bytes] = []
            while rest:
                data = await self._reader.read(min(rest, pace.piece_bytes if pace else 1024 * 1024))
                if not data:
                    raise ConnectionResetError
                rest -= len(data)
                pieces.append(data)
                if pace:
                    await asyncio.sleep(pace.gap_s)
            request.body = b"".join(pieces)
            request.raw += request.body
        request.is_whole = True


@dataclass(frozen=True, slots=True)
class Pace:
    """How slowly a body is read: `piece_bytes` at once, then a rest of `gap_s`."""

    piece_bytes: int
    gap_s: float


@dataclass(slots=True)
class Seen:
    """What an engine has seen; grows under `ScriptedEngine.changed`."""

    requests: list[Received] = field(default_factory=list)
    probes: list[Received] = field(default_factory=list)
    connections_total: int = 0
    connections_open: int = 0
    peers_left: int = 0  # peers that closed while an answer was going on


class ScriptedEngine:
    """One scripted engine. Use as a context manager; every method may be called from the play's thread.

    `say` is what it answers unless scripted otherwise. `closes_reused` drops a connection on its second request without a byte,
    `idle_s` closes idle connections, `receive_buffer_bytes` bounds what the kernel takes for it, `body_pace` slows its reading.
    """

    def __init__(
        self, name: str = "engine", *, engine: str = "llamacpp", models: tuple[str, ...] = ("tiny",), say: str = ""
    ) -> None:
        self.name = name
        self.seen = Seen()
        self.say = say or f"good evening from {name}"
        self.closes_reused = False
        self.idle_s = 0.0
        self.body_pace: Pace | None = None
        self.on_accept: Step | None = None
        self.checks_models = False
        self._persona: Persona = PERSONAS[engine]
        self._paths: dict[str, Answer] = {}
        self._script: deque[Answer] = deque()
        self._always: Answer | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._fillers: list[socket.socket] = []
        self._changed = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"engine.{name}", daemon=True)
        self._listener = _bound_socket(0)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.models: tuple[str, ...] = ()
        self.list_models(*models)

    def __enter__(self) -> Self:
        self._thread.start()
        self.listen()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_TIMEOUT_S)
        self._loop.close()
        self._listener.close()

    # Scripting.

    def always(self, answer: Answer | None) -> None:
        """Answer every request but GET with `answer`; None: say `say` in the request's dialect."""
        self._always = answer

    def then(self, *answers: Answer) -> None:
        """Answer the next requests with these, one each, before what `always` says."""
        self._script.extend(answers)

    def on(self, path: str, answer: Answer | None) -> None:
        """Answer GET `path` with `answer`; None: as the persona does."""
        if answer is None:
            self._paths.pop(path, None)
        else:
            self._paths[path] = answer

    def list_models(self, *models: str) -> None:
        """List exactly these from now on."""
        self.models = models
        self._probe_answers = self._persona.probe_answers(models)

    def fresh(self) -> None:
        """Forget scripts and what was seen, for the next play on a shared engine."""
        self._paths.clear()
        self._script.clear()
        self._always = None
        self.closes_reused, self.idle_s, self.body_pace, self.on_accept = False, 0.0, None, None
        with self._changed:
            self.seen.requests.clear()
            self.seen.probes.clear()
            self.seen.peers_left = 0

    # The listener.

    def listen(self, backlog: int = 512) -> None:
        """Accept connections (again), on the same port."""
        self._call(self._listen(backlog))

    def refuse(self) -> None:
        """Refuse new connections and keep the port; open connections go on."""
        self._call(self._refuse())

    def swallow(self) -> None:
        """Leave connection attempts unanswered: nobody accepts and the backlog is full."""
        self._call(self._swallow())

    def drop_connections(self) -> None:
        """Reset every open connection."""
        self._call(self._cancel_tasks())

    # What it saw.

    def wait_for(self, is_true: Callable[[Seen], bool], timeout_s: float = 10.0) -> None:
        """Return as soon as `is_true(seen)`; AssertionError after `timeout_s`."""
        with self._changed:
            assert self._changed.wait_for(lambda: is_true(self.seen), timeout_s), f"{self.name} saw only {self.seen}"

    def wait_requests(self, count: int, timeout_s: float = 10.0) -> None:
        """Return once `count` requests came in whole."""
        self.wait_for(lambda seen: sum(r.is_whole for r in seen.requests) >= count, timeout_s)

    # Its own loop.

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_TIMEOUT_S)

    async def _listen(self, backlog: int) -> None:
        if self._fillers:
            await self._refuse()
        self._listener.listen(backlog)
        self._loop.add_reader(self._listener, self._accept)

    async def _refuse(self) -> None:
        self._loop.remove_reader(self._listener)
        # A socket that is bound and does not listen refuses connections and keeps the port from others.
        self._listener.close()
        self._listener = _bound_socket(self.port)
        for filler in self._fillers:
            filler.close()
        self._fillers.clear()

    async def _swallow(self) -> None:
        await self._refuse()
        self._listener.listen(0)
        for _ in range(4):
            filler = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", self.port))
            self._fillers.append(filler)

    async def _cancel_tasks(self) -> None:
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _stop(self) -> None:
        await self._refuse()
        await self._cancel_tasks()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                task = self._loop.create_task(self._serve(peer))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _serve(self, peer: socket.socket) -> None:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader, writer = await asyncio.open_connection(sock=peer, limit=1024 * 1024)
        with self._changed:
            self.seen.connections_total += 1
            self.seen.connections_open += 1
            side = ScriptedConnection(self.seen.connections_total, reader, writer)
            self._changed.notify_all()
        is_answering = [False]
        try:
            await self._serve_requests(side, is_answering)
        except (OSError, asyncio.IncompleteReadError):
            with self._changed:
                self.seen.peers_left += is_answering[0]
        except asyncio.CancelledError:
            side.reset()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            with self._changed:
                self.seen.connections_open -= 1
                self._changed.notify_all()

    async def _serve_requests(self, side: ScriptedConnection, is_answering: list[bool]) -> None:
        if self.on_accept is not None:
            await self.on_accept(side)
            return
        nth = 0
        while not side.is_closed:
            nth += 1
            try:
                async with asyncio.timeout(self.idle_s or None):
                    request = await side.read_request(nth)
            except TimeoutError:
                return
            if request is None or (self.closes_reused and nth > 1):
                return
            is_probe = request.method == "GET"
            with self._changed:
                (self.seen.probes if is_probe else self.seen.requests).append(request)
                self._changed.notify_all()
            is_answering[0] = True
            answer = self._script.popleft() if self._script and not is_probe else None
            if answer is None or answer.reads_body:
                await side.read_body(request, self.body_pace)
                with self._changed:
                    self._changed.notify_all()
            for step in (answer or self._choose(request, is_probe=is_probe)).steps:
                await step(side)
                if side.is_closed:
                    return
            is_answering[0] = False
            if "close" in request.header("connection").lower():
                return

    def _choose(self, request: Received, *, is_probe: bool) -> Answer:
        if is_probe:
            return self._paths.get(request.path) or self._probe_answers.get(request.path) or self._persona.not_found()
        if self._always is not None:
            return self._always
        body = json.loads(request.body or b"{}")
        asked = str(body.get("model", "")).removesuffix(":latest")
        if self.checks_models and asked not in [model.removesuffix(":latest") for model in self.models]:
            return whole(404, self._persona.model_missing(asked))
        return tell(request.path, body, self.say, engine=self._persona.engine)


def _bound_socket(port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    bound.setblocking(False)
    return bound
