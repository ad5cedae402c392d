"""Who talks while colors are flipped: engines that say their color, conversations of every kind, and what of an answer is wrong.

Used by support.flips and by the plays of rollouts. The color of an answer is read from its own words, never from a header alone.
"""

import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.answers import LAST_CHUNK, NDJSON, SSE, chunk, stream_head, whole
from support.daemon import Daemon, settings
from support.faults import SERVER_ERROR
from support.personas import anthropic_events, ollama_lines, openai_chat_events
from support.scripted import Received, ScriptedEngine
from support.steps import Answer, Gate, answer, hold, pause, reset, send
from support.wire import Head, Reply, chat, request_bytes

CHAT, OLLAMA, MESSAGES = "/v1/chat/completions", "/api/chat", "/v1/messages"
PATHS = (CHAT, OLLAMA, MESSAGES)
COLORS = ("blue", "green")
DEADLINE_S = 30.0
READ_BYTES_MAX = 1024 * 1024


class ColorEngine(ScriptedEngine):
    """An engine of a color that speaks every dialect and says who it is; its streams rest `gap_s` in their middle.

    `breaks` is the share of requests that it answers with one of `faults` instead.
    """

    def __init__(self, name: str, color: str, *, models: tuple[str, ...] = ("tiny",), gap_s: float = 0.0) -> None:
        super().__init__(name, engine="ollama", models=models, say=f"{color} I am, {color} I stay, and {name} is my name")
        self.color = color
        self.gap_s = gap_s
        self.breaks = 0.0
        self.faults: tuple[Answer, ...] = (answer(reset()), whole(500, SERVER_ERROR))
        self._dice = random.Random(name)
        # Which tells a probe that it speaks Anthropic's dialect.
        self.on(MESSAGES, whole(405, {"detail": "Method Not Allowed"}))

    def entry(self, **more: Any) -> dict[str, Any]:
        """Write its entry under `backends`."""
        return {"name": self.name, "url": self.url, "engine": "ollama", "color": self.color, **more}

    def late_probes(self, gate: Gate) -> None:
        """Answer probes only once `gate` is open."""
        for path, told in self._probe_answers.items():
            self.on(path, answer(hold(gate), *told.steps))

    def _choose(self, request: Received, *, is_probe: bool) -> Answer:
        if not is_probe and self._always is None and request.path in PATHS:
            if self._dice.random() < self.breaks:
                return self._dice.choice(self.faults)
            body = json.loads(request.body)
            if body.get("stream", request.path == OLLAMA):
                return self._streamed(request.path)
        return super()._choose(request, is_probe=is_probe)

    def _streamed(self, path: str) -> Answer:
        if path == CHAT:
            events = openai_chat_events(self.say, engine="ollama")
        else:
            events = ollama_lines(self.say) if path == OLLAMA else anthropic_events(self.say)
        half = len(events) // 2
        first, rest = b"".join(map(chunk, events[:half])), b"".join(map(chunk, events[half:]))
        head = stream_head(NDJSON if path == OLLAMA else SSE)
        return answer(send(head + first), *((pause(self.gap_s),) if self.gap_s else ()), send(rest + LAST_CHUNK))


@dataclass(slots=True)
class Talk:
    """One conversation. `kind`: in a "session", with its "whole" history in each request, or of a "single" turn.

    `colors` are those of its answers; `sent_epoch` is when its last turn was sent, in changes of the rollout.
    """

    name: str
    kind: str
    path: str
    turns: int
    said: list[dict[str, str]] = field(default_factory=list)
    colors: list[str] = field(default_factory=list)
    sent_epoch: int = 0

    @property
    def is_new(self) -> bool:
        """Whether nothing of it has been answered."""
        return not self.colors

    def request(self, dice: random.Random) -> tuple[bytes, bool]:
        """Write its next turn; whether that asks for a stream."""
        is_streamed = dice.random() < 0.6
        message = {"role": "user", "content": f"turn {len(self.colors)} of {self.name}"}
        if self.kind == "whole":
            self.said.append(message)
        body: dict[str, Any] = {"model": "tiny", "stream": is_streamed, "messages": self.said or [message]}
        if self.path == MESSAGES:
            body["max_tokens"] = 200
        headers = {"X-Session-ID": self.name} if self.kind == "session" else {}
        return request_bytes("POST", self.path, body, headers), is_streamed

    def hear(self, color: str, text: str) -> None:
        """Take its answer."""
        self.colors.append(color)
        if self.kind == "whole":
            self.said.append({"role": "assistant", "content": text})


def new_talk(name: str, kinds: tuple[str, ...], dice: random.Random) -> Talk:
    """Begin a conversation of one of `kinds`."""
    kind = dice.choice(kinds)
    return Talk(name, kind, dice.choice(PATHS), 1 if kind == "single" else dice.randint(2, 8))


def color_of(text: str) -> str:
    """Return the one color that an answer names, "" where it names none or both."""
    named = [color for color in COLORS if color in text]
    return named[0] if len(named) == 1 else ""


def wrong_with(reply: Reply, path: str, *, is_streamed: bool, says: dict[str, str]) -> str:
    """Return what is wrong with an answer, "" nothing; `says` is what each backend would have said, by name."""
    if reply.status != 200 or reply.is_cut or not is_ended(path, reply.body, is_streamed=is_streamed):
        return f"no whole answer: status {reply.status}, cut {reply.is_cut}, {reply.body[-300:]!r}"
    if reply.text not in says.values():
        return f"no engine's whole text: {reply.text!r}"
    if reply.text != says[reply.backend]:
        return f"{reply.text!r} under the name of {reply.backend}"
    if color_of(reply.text) != reply.head.get("X-Understudy-Color"):
        return f"{reply.text!r} under X-Understudy-Color: {reply.head.get('X-Understudy-Color')}"
    return ""


def is_ended(path: str, body: bytes, *, is_streamed: bool) -> bool:
    """Whether the answer ends as its dialect has it."""
    if path == OLLAMA:
        return bool(json.loads(body.rstrip().rpartition(b"\n")[2]).get("done"))
    if not is_streamed:
        return bool(json.loads(body))
    if path == CHAT:
        return body.endswith(b"data: [DONE]\n\n")
    return body.rstrip().rpartition(b"\n")[2] == b'data: {"type": "message_stop"}'


class Link:
    """One client's connection, kept alive and made again where it was closed between two answers."""

    def __init__(self) -> None:
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, port: int, request: bytes) -> Reply:
        """Send a request and read the whole answer. Raises ConnectionError where no byte of an answer came."""
        async with asyncio.timeout(DEADLINE_S):
            if self._writer is None or self._writer.get_extra_info("peername")[1] != port or self._is_closed():
                self.close()
                self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port, limit=READ_BYTES_MAX)
            assert self._reader is not None
            self._writer.write(request)
            try:
                raw = await self._reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                self.close()
                if isinstance(error, asyncio.IncompleteReadError) and error.partial:
                    return Reply(Head(0, (), error.partial), error.partial, is_cut=True)
                raise ConnectionError("closed without a byte") from error
            return await self._answer(_head(raw), self._reader)

    def close(self) -> None:
        """Leave."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None

    def _is_closed(self) -> bool:
        return self._writer is None or self._writer.is_closing() or self._reader is None or self._reader.at_eof()

    async def _answer(self, head: Head, reader: asyncio.StreamReader) -> Reply:
        body = b""
        try:
            if "chunked" in head.get("Transfer-Encoding"):
                while size := int(await reader.readuntil(b"\r\n"), 16):
                    body += (await reader.readexactly(size + 2))[:-2]
                await reader.readexactly(2)
            else:
                body = await reader.readexactly(int(head.get("Content-Length")))
        except (asyncio.IncompleteReadError, ConnectionError):
            self.close()
            return Reply(head, body, is_cut=True)
        if head.get("Connection").lower() == "close":
            self.close()
        return Reply(head, body)


def _head(raw: bytes) -> Head:
    first, *lines = raw[:-4].decode("latin-1").split("\r\n")
    fields = tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in lines))
    return Head(int(first.split(" ")[1]), fields, raw)


def colored_daemon(folder: Path, *entries: dict[str, Any], **sections: Any) -> Daemon:
    """Make a daemon, not yet running, whose state folder is FOLDER/state."""
    return Daemon(settings(*entries, **sections), folder, environment={"XDG_STATE_HOME": str(folder / "state")})


def chat_request(words: str = "who is there?", *, session: str = "", stream: bool = False, **headers: str) -> bytes:
    """Write a chat; `headers` with underscores for dashes."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return request_bytes("POST", CHAT, chat(words, stream=stream), ({"X-Session-ID": session} if session else {}) | fields)


def ask_all(port: int, requests: Sequence[bytes], clients: int = 16) -> list[Reply]:
    """Send the requests from so many clients at once and return the answers in the requests' order."""

    async def gathered() -> list[Reply]:
        replies: dict[int, Reply] = {}
        numbered = iter(enumerate(requests))

        async def client() -> None:
            link = Link()
            for number, request in numbered:
                replies[number] = await link.ask(port, request)
            link.close()

        async with asyncio.TaskGroup() as tasks:
            for _ in range(clients):
                tasks.create_task(client())
        return [replies[number] for number in range(len(requests))]

    return asyncio.run(gathered())


def order(daemon: Daemon, what: str, status: int = 200) -> dict[str, Any]:
    """Give an order at the admin port, as "switch?color=green", and return what it says; it must have this status."""
    reply = daemon.admin(f"/api/rollout/{what}", method="POST")
    assert reply.status == status, reply
    told: dict[str, Any] = reply.json()
    return told
