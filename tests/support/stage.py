"""The data plane in memory: real relay, connections and pool between clients and engines that a play speaks for byte by byte.

Time is the play's: `Stage.pass_time` moves the loop's clock, so deadlines pass without waiting. Never opens a socket.
"""

import asyncio
import json
from typing import Any

import pytest

from support.answers import LAST_CHUNK, chunk, sse, stream_head
from support.targets import CHAT_PATH, snapshot_of
from support.transports import MemoryNetwork, MemoryTransport, connected, settle
from understudy.core.record import ExchangeRecord
from understudy.core.snapshot import FailoverRules, Limits, Published, Target, Timeouts
from understudy.core.tally import Tally
from understudy.dataplane.downstream import DownstreamConnection
from understudy.dataplane.pool import Pool
from understudy.dataplane.relay import Relay
from understudy.dataplane.resolver import Resolver
from understudy.errors import FailureKind

START_S = 5000.0
STEP_S = 0.05
# A longer step would look as if the daemon had been stopped.
STEP_S_MAX = 0.25
OPENING = sse({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
FINISH = sse({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
DONE = sse("[DONE]")


class Clock:
    """The loop's time, moved by the play."""

    def __init__(self) -> None:
        self.now_s = START_S

    def __call__(self) -> float:
        return self.now_s


class Stage:
    """A relay with its surroundings. What it told is in `events`, `observed`, `records` and `errors`, in order."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        *pool: Target,
        failover: FailoverRules = FailoverRules(),  # noqa: B008  # frozen
        limits: Limits = Limits(),  # noqa: B008  # frozen
        timeouts: Timeouts = Timeouts(),  # noqa: B008  # frozen
    ) -> None:
        self.clock = Clock()
        monkeypatch.setattr(asyncio.get_running_loop(), "time", self.clock)
        self.network = MemoryNetwork()
        self.network.install(monkeypatch)
        self.events: list[tuple[str, dict[str, object]]] = []
        self.observed: list[tuple[str, FailureKind | None]] = []
        self.suspected: list[str] = []
        self.records: list[ExchangeRecord] = []
        self.errors: list[BaseException] = []
        self.tally = Tally()
        self.published = Published(snapshot_of(*pool, failover=failover, limits=limits, timeouts=timeouts))
        resolver = Resolver(self.tell)
        self.relay = Relay(self.published, self.tally, Pool(resolver), self, id_prefix="play-", clock=self.clock)

    # --- what the relay tells

    def observe(self, name: str, kind: FailureKind | None) -> None:
        """Keep what traffic has shown."""
        self.observed.append((name, kind))

    def suspect(self, name: str) -> None:
        """Keep who is suspect."""
        self.suspected.append(name)

    def finished(self, record: ExchangeRecord) -> None:
        """Keep the record."""
        self.records.append(record)

    def tell(self, event: str, fields: dict[str, object]) -> None:
        """Keep the event."""
        self.events.append((event, fields))

    def report(self, error: BaseException, request_id: str) -> None:
        """Keep our own mistake."""
        self.errors.append(error)

    # --- what the play does

    def client(self, peer: object = ("192.0.2.7", 50000)) -> MemoryTransport:
        """Connect a client."""
        return connected(DownstreamConnection(self.relay), peer)

    async def ask(self, data: bytes) -> MemoryTransport:
        """Connect a client that sends `data`; what that leads to has happened when this returns."""
        client = self.client()
        client.feed(data)
        await settle()
        return client

    def engine(self, number: int, nth: int = -1) -> MemoryTransport:
        """Return gpuN's side of its nth connection, by default of the last one."""
        return self.network.opened[8000 + number][nth]

    async def say(self, number: int, *pieces: bytes) -> None:
        """Let gpuN send the pieces on its last connection."""
        for piece in pieces:
            self.engine(number).feed(piece)
        await settle()

    def publish(self, *pool: Target) -> None:
        """Publish another snapshot under the same rules."""
        plan = self.published.current.plan
        self.published.current = snapshot_of(*pool, failover=plan.failover, limits=plan.limits, timeouts=plan.timeouts)
        self.relay.on_published(self.published.current)

    async def pass_time(self, duration_s: float) -> None:
        """Let time pass in small steps; whatever falls due in it happens."""
        end_s = self.clock.now_s + duration_s
        while self.clock.now_s < end_s:
            self.clock.now_s = min(end_s, self.clock.now_s + min(STEP_S_MAX, max(STEP_S, duration_s / 100)))
            await settle()

    @property
    def record(self) -> ExchangeRecord:
        """The only record there is."""
        assert len(self.records) == 1, self.records
        return self.records[0]

    @property
    def in_flight(self) -> int:
        """Attempts in flight at any backend."""
        names = [target.backend.name for target in self.published.current.targets]
        return sum(self.tally.of(name).in_flight for name in names)


def request(method: str, path: str, body: bytes = b"", *fields: str, version: str = "1.1") -> bytes:
    """Write a request; a body gets its length."""
    lines = [f"{method} {path} HTTP/{version}", "Host: gw", *fields]
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def chat(*fields: str, stream: bool = True, model: str = "qwen", version: str = "1.1", **more: Any) -> bytes:
    """Write a request for a chat completion."""
    body = json.dumps({"model": model, "stream": stream, "messages": [], **more}).encode()
    return request("POST", CHAT_PATH, body, *fields, version=version)


def delta(text: str) -> bytes:
    """Write the event of one piece of an answer."""
    return sse({"choices": [{"index": 0, "delta": {"content": text}}]})


def stream_of(*texts: str) -> bytes:
    """Write a whole answer of these pieces in chunks."""
    events = [OPENING, *(delta(text) for text in texts), FINISH, DONE]
    return stream_head() + b"".join(chunk(event) for event in events) + LAST_CHUNK


def dechunk(data: bytes) -> tuple[bytes, bytes, bool]:
    """Split what a client got into head, body without its chunks, and whether the last chunk has come."""
    head, _, rest = data.partition(b"\r\n\r\n")
    body, is_whole = b"", False
    while rest and not is_whole:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        body, rest = body + rest[:length], rest[length + 2 :]
        is_whole = length == 0
    return head, body, is_whole
