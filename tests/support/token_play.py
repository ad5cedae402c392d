"""Plays of controlplane.token_prober over real sockets: one backend, whoever asks it, and what time it is."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from support.asked import AskedServer, Reply, reply
from understudy.controlplane.publisher import Publisher, first_snapshot
from understudy.controlplane.token_prober import TokenProber
from understudy.core.ask import DialectName
from understudy.core.health import Seen
from understudy.core.snapshot import (
    Address,
    Backend,
    BackendState,
    Condition,
    EngineKind,
    HealthRules,
    Model,
    Published,
    RoutingPlan,
)
from understudy.core.tally import Tally
from understudy.core.upkeep import GenerateRules, GenerateWhen
from understudy.engines import Finding

CHAT = "/v1/chat/completions"
SUSPICIOUS = GenerateRules(GenerateWhen.SUSPICIOUS)
RULES = HealthRules(generate=SUSPICIOUS, fall=3, rise=2)
GOOD = Finding(Seen.GOOD, EngineKind.OPENAI, "1.0", (DialectName.OPENAI,), (Model("m"),))
TOKEN = {"choices": [{"message": {"content": "Yes"}, "finish_reason": "length"}], "usage": {"completion_tokens": 1}}


def said(value: object, status: int = 200) -> Reply:
    """Take a whole request, and answer."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not (await reader.read(4096)).endswith(b"}"):
            pass
        writer.write(reply(value, status))
        await writer.drain()

    return play


async def hang(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Never answer."""
    while await reader.read(4096):
        pass


class Stage:
    """One backend "b", which is up, and who asks it. Time is the play's; what falls due happens within some turns of the loop."""

    def __init__(self, backend: Backend, finding: Finding = GOOD) -> None:
        self.ahead_s = 1000.0
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.barren: list[tuple[str, str]] = []
        self.changed = asyncio.Event()
        self.published = Published(first_snapshot(RoutingPlan((backend,))))
        self.publisher = Publisher(self.published, self.now_s, lambda _: None, self.tell)
        self.tally = Tally()
        self.prober = TokenProber(
            self.published,
            self.publisher,
            self.tally,
            self.now_s,
            tell=self.tell,
            on_barren=lambda name, words: self.barren.append((name, words)),
        )
        self.finding = finding
        self.probe()
        self.told.clear()

    def now_s(self) -> float:
        """The time, as far as the play let it pass."""
        return asyncio.get_running_loop().time() + self.ahead_s

    def tell(self, event: str, fields: dict[str, Any]) -> None:
        """Keep the event."""
        self.told.append((event, fields))

    def probe(self, times: int = 1) -> None:
        """The health check is good."""
        for _ in range(times):
            self.prober.on_finding("b", self.finding)

    def fail(self) -> None:
        """An exchange fails, as at an engine that hangs."""
        self.tally.fail("b", RULES, self.now_s(), has_alternative=False)

    @property
    def state(self) -> BackendState:
        """What is published of it."""
        return self.published.current.targets[0].state

    async def until(self, holds: Callable[[], bool]) -> None:
        """Return when that is so."""
        async with asyncio.timeout(20):
            while not holds():  # noqa: ASYNC110  # the end of a question has no event of its own
                await asyncio.sleep(0.001)

    async def look_often(self) -> None:
        """Let it look several times, so that what was due has begun."""
        looks = 0
        look = self.prober._look

        def counted(tasks: asyncio.TaskGroup) -> None:
            nonlocal looks
            look(tasks)
            looks += 1

        self.prober._look = counted  # type: ignore[method-assign]  # counts, and looks as before
        await self.until(lambda: looks >= 3)
        self.prober._look = look  # type: ignore[method-assign]  # as it was

    async def pass_time(self, duration_s: float) -> None:
        """Let time pass and what is due begin."""
        self.ahead_s += duration_s
        await self.look_often()


def condition_of(stage: Stage) -> Condition:
    """What is believed of it now."""
    return stage.state.condition


@contextlib.asynccontextmanager
async def asking(server: AskedServer, finding: Finding = GOOD, health: HealthRules = RULES, **more: Any) -> AsyncIterator[Stage]:
    """Run the prober of a backend that is up."""
    stage = Stage(Backend("b", Address("http", "127.0.0.1", server.port), health=health, **more), finding)
    running = asyncio.ensure_future(stage.prober.run())
    try:
        yield stage
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


def answering(value: object = TOKEN, status: int = 200) -> AskedServer:
    """An engine that answers every chat like this."""
    return AskedServer({CHAT: said(value, status)})
