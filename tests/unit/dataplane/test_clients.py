"""Plays of clients' connections: how many there may be, and which of them have become late."""

import pytest

from support.answers import LAST_CHUNK
from support.continuing import BEGUN
from support.stage import Stage, chat, request, stream_of
from support.targets import targets
from support.transports import MemoryTransport, settle
from understudy.core.snapshot import Limits


def status_of(client: MemoryTransport) -> int:
    """Return the status of the answer a client got."""
    return int(client.data.split(b" ")[1])


class Gate:
    """The listener's door, as its orders were."""

    def __init__(self) -> None:
        self.orders: list[str] = []

    def pause(self) -> None:
        """Let nobody in for now."""
        self.orders.append("pause")

    def resume(self) -> None:
        """Let clients in again."""
        self.orders.append("resume")


async def test_connections_have_a_limit_that_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1), limits=Limits(connections_max=2))
    clients = [stage.client() for _ in range(4)]
    await settle()
    assert [bool(client.data) for client in clients] == [False, False, True, True]
    assert status_of(clients[2]) == 503
    assert [event for event, _ in stage.events] == ["connection.limit_reached"]


async def test_place_of_a_client_that_left_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1), limits=Limits(connections_max=1))
    first = stage.client()
    first.lose()
    client = await stage.ask(request("GET", "/healthz"))
    assert status_of(client) == 200


async def test_descriptors_bound_connections_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    stage.relay.clients.own_max = 1
    clients = [stage.client() for _ in range(2)]
    assert [bool(client.data) for client in clients] == [False, True]


async def test_idle_and_slow_connections_are_ended_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(head_timeout_s=4.0, body_timeout_s=8.0, idle_timeout_s=12.0)
    stage = Stage(monkeypatch, *targets(1), limits=limits)
    head, body, idle = (
        await stage.ask(b"GET / HT"),
        await stage.ask(chat()[:-3]),
        await stage.ask(request("GET", "/healthz")),
    )
    idle.take()
    await stage.pass_time(3.0)
    assert head.data == b""
    await stage.pass_time(3.0)
    assert status_of(head) == 408
    assert body.data == b""
    await stage.pass_time(4.0)
    assert status_of(body) == 408
    assert not idle.is_closing()
    await stage.pass_time(4.0)
    assert idle.is_closing()
    assert idle.data == b""


async def test_pooled_connections_are_closed_when_idle_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    await stage.ask(chat())
    await stage.say(0, stream_of("a"))
    await stage.pass_time(6.0)
    assert stage.engine(0).is_closing()


async def test_door_is_closed_at_the_limit_and_opened_with_the_next_place(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1), limits=Limits(connections_max=2))
    gate = stage.relay.clients.gate = Gate()
    clients = [stage.client() for _ in range(2)]
    assert gate.orders == ["pause"]
    clients[0].lose()
    assert gate.orders == ["pause", "resume"]
    stage.client()
    assert gate.orders == ["pause", "resume", "pause"]
    # Going up and down at the limit is told once.
    assert len(stage.events) == 1


async def test_limit_is_told_again_when_there_was_room_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1), limits=Limits(connections_max=5))
    clients = [stage.client() for _ in range(5)]
    for client in clients[:3]:
        client.lose()
    assert [event for event, _ in stage.events] == ["connection.limit_reached"]
    for _ in range(3):
        stage.client()
    told = ("connection.limit_reached", {"connections": 5, "connections_max": 5})
    assert stage.events == [told, told]


async def test_client_that_is_being_answered_is_not_late(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1), limits=Limits(head_timeout_s=4.0, body_timeout_s=4.0, idle_timeout_s=4.0))
    client = await stage.ask(chat())
    await stage.say(0, BEGUN)
    await stage.pass_time(20.0)
    assert not client.is_closing()


async def test_time_in_which_the_daemon_did_not_run_makes_nobody_late(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1), limits=Limits(head_timeout_s=4.0))
    client = await stage.ask(b"GET / HT")
    await stage.pass_time(1.0)
    stage.clock.now_s += 60.0
    await stage.pass_time(1.5)
    assert client.data == b""
    await stage.pass_time(3.0)
    assert status_of(client) == 408


async def test_sweeping_ends_with_the_last_connection_and_begins_with_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    stage.client().lose()
    await stage.pass_time(2.0)
    assert stage.relay.clients._timer is None
    stage.client()
    assert stage.relay.clients._timer is not None


async def test_idle_connections_are_closed_and_busy_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    idle, reading, answered = await stage.ask(request("GET", "/healthz")), await stage.ask(b"GET / HT"), await stage.ask(chat())
    stage.relay.clients.close_idle()
    assert [client.is_closing() for client in (idle, reading, answered)] == [True, False, False]
    await stage.say(0, stream_of("a"))
    assert answered.data.endswith(LAST_CHUNK)


async def test_all_connections_are_closed_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    clients = [await stage.ask(request("GET", "/healthz")), await stage.ask(b"GET / HT"), stage.client()]
    stage.relay.clients.close_all()
    await settle()
    assert all(client.is_closing() for client in clients)
    assert not stage.relay.clients.connections
