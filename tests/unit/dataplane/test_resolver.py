"""Plays of names: known addresses go on whatever the name server does, and no request waits for it twice."""

import asyncio
from collections.abc import Callable

import pytest

from support.transports import MemoryNetwork, settle
from understudy.dataplane.resolver import FRESH_S, Resolver, is_literal

HOST = "gpu.example"
FAILURE = OSError(-3, "Temporary failure in name resolution")


class Clock:
    """The loop's time, told by the play."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Stage:
    """A resolver on a network in memory, with the events it told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.network = MemoryNetwork()
        self.network.install(monkeypatch)
        self.network.names[HOST] = ["192.0.2.1", "192.0.2.2"]
        self.clock = Clock()
        self.events: list[tuple[str, dict[str, object]]] = []
        self.resolver = Resolver(lambda event, fields: self.events.append((event, fields)))
        self._patch = monkeypatch

    async def resolve(self) -> tuple[str, ...]:
        """Resolve at the play's time."""
        with self._patch.context() as patch:
            patch.setattr(asyncio.get_running_loop(), "time", self.clock)
            found = await self.resolver.resolve(HOST)
            await settle()
        return found


@pytest.fixture
def make_stage(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Stage]:
    """Make a stage inside of the running loop."""
    return lambda: Stage(monkeypatch)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "fe80::1%eth0", "2001:db8::2"])
def test_address_needs_no_look_up(host: str) -> None:
    assert is_literal(host)


@pytest.mark.parametrize("host", ["localhost", "gpu0.example", "1.2.3", "::g", ""])
def test_name_needs_a_look_up(host: str) -> None:
    assert not is_literal(host)


async def test_addresses_come_in_the_name_servers_order_each_once(make_stage: Callable[[], Stage]) -> None:
    stage = make_stage()
    stage.network.names[HOST] = ["192.0.2.2", "192.0.2.1", "192.0.2.2"]
    assert await stage.resolve() == ("192.0.2.2", "192.0.2.1")


async def test_fresh_addresses_are_not_looked_up_again(make_stage: Callable[[], Stage]) -> None:
    stage = make_stage()
    await stage.resolve()
    stage.clock.now_s += FRESH_S - 0.1
    await stage.resolve()
    assert stage.network.lookups == [HOST]


async def test_old_addresses_are_used_while_they_are_looked_up_again(make_stage: Callable[[], Stage]) -> None:
    stage = make_stage()
    before = await stage.resolve()
    stage.network.names[HOST] = ["192.0.2.9"]
    stage.clock.now_s += FRESH_S
    assert await stage.resolve() == before
    assert await stage.resolve() == ("192.0.2.9",)
    assert stage.network.lookups == [HOST, HOST]


async def test_many_who_ask_at_once_share_one_look_up(make_stage: Callable[[], Stage]) -> None:
    stage = make_stage()
    found = await asyncio.gather(*(stage.resolver.resolve(HOST) for _ in range(5)))
    assert set(found) == {("192.0.2.1", "192.0.2.2")}
    assert stage.network.lookups == [HOST]


async def test_one_who_stops_waiting_does_not_stop_the_look_up_for_the_others(make_stage: Callable[[], Stage]) -> None:
    stage = make_stage()
    impatient = asyncio.ensure_future(stage.resolver.resolve(HOST))
    patient = asyncio.ensure_future(stage.resolver.resolve(HOST))
    await asyncio.sleep(0)
    impatient.cancel()
    assert await patient == ("192.0.2.1", "192.0.2.2")


async def test_name_that_never_resolved_raises_for_everybody_and_is_told_once(make_stage: Callable[[], Stage]) -> None:
    stage = make_stage()
    stage.network.names[HOST] = FAILURE
    for _ in range(2):
        with pytest.raises(OSError, match="Temporary failure"):
            await stage.resolver.resolve(HOST)
    assert [event for event, _ in stage.events] == ["backend.lost_name"]
    assert stage.events[0][1]["host"] == HOST


async def test_old_addresses_go_on_when_the_name_stops_resolving(make_stage: Callable[[], Stage]) -> None:
    stage = make_stage()
    before = await stage.resolve()
    stage.network.names[HOST] = FAILURE
    for _ in range(3):
        stage.clock.now_s += FRESH_S
        assert await stage.resolve() == before
    assert [event for event, _ in stage.events] == ["backend.lost_name"]


async def test_name_that_resolves_again_is_told_once(make_stage: Callable[[], Stage]) -> None:
    stage = make_stage()
    stage.network.names[HOST] = FAILURE
    with pytest.raises(OSError, match="Temporary failure"):
        await stage.resolver.resolve(HOST)
    stage.network.names[HOST] = ["192.0.2.1"]
    assert await stage.resolve() == ("192.0.2.1",)
    await stage.resolve()
    assert [event for event, _ in stage.events] == ["backend.lost_name", "backend.regained_name"]


async def test_addresses_that_did_not_answer_are_looked_up_at_the_next_use(make_stage: Callable[[], Stage]) -> None:
    stage = make_stage()
    await stage.resolve()
    stage.resolver.expire(HOST)
    stage.resolver.expire("never asked")
    await stage.resolve()
    assert stage.network.lookups == [HOST, HOST]


async def test_name_of_a_removed_backend_is_forgotten(make_stage: Callable[[], Stage]) -> None:
    stage = make_stage()
    await stage.resolve()
    stage.resolver.retain({HOST})
    await stage.resolve()
    stage.resolver.retain(set())
    await stage.resolve()
    assert stage.network.lookups == [HOST, HOST]
