"""Plays of probing over time: the real publisher, real sockets, short intervals."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from support.asked import AskedServer, Reply, reply
from understudy.controlplane.prober import SUSPECT_S, Prober, interval_to_next_s
from understudy.controlplane.publisher import Publisher, first_snapshot
from understudy.core.evidence import Evidence
from understudy.core.health import Health
from understudy.core.snapshot import (
    Address,
    Backend,
    BackendState,
    Condition,
    Duty,
    EngineKind,
    HealthRules,
    Published,
    RoutingPlan,
    RoutingSnapshot,
)
from understudy.core.tally import Tally

QUICK = HealthRules(interval_s=0.02, timeout_s=5.0, rise=2, fall=2)
RARE = replace(QUICK, interval_s=3600.0)
LIST: dict[str, Reply] = {"/v1/models": reply({"data": [{"id": "m"}]})}
VLLM: dict[str, Reply] = {
    "/v1/models": reply({"data": [{"id": "m", "owned_by": "vllm"}]}),
    "/health": reply(b""),
    "/version": reply({"version": "0.32.0"}),
}


class Stage:
    """A prober at work on a plan. `until` waits for a snapshot."""

    def __init__(self, *backends: Backend) -> None:
        self.published = Published(first_snapshot(RoutingPlan(backends)))
        self.ahead_s = 0.0
        self._changed = asyncio.Event()
        self.told: list[tuple[str, dict[str, object]]] = []
        self.publisher = Publisher(
            self.published, self.now_s, self._on_change, lambda event, fields: self.told.append((event, dict(fields)))
        )
        self.tally = Tally()
        self.prober = Prober(self.published, self.publisher, self.now_s, lambda: 0.5, evidence=self.tally.evidence_of)

    def now_s(self) -> float:
        return asyncio.get_running_loop().time() + self.ahead_s

    def _on_change(self, snapshot: RoutingSnapshot) -> None:
        self._changed.set()

    def evidence(self, name: str = "b") -> Evidence:
        return self.tally.evidence_of(name)

    def state(self, name: str = "b") -> BackendState:
        return next(target.state for target in self.published.current.targets if target.backend.name == name)

    async def until(self, holds: Callable[[BackendState], bool], name: str = "b") -> BackendState:
        async with asyncio.timeout(20):
            while not holds(self.state(name)):
                self._changed.clear()
                await self._changed.wait()
        return self.state(name)

    def reload(self, *backends: Backend) -> None:
        self.publisher.set_plan(RoutingPlan(backends))
        self.prober.on_plan_change()


@contextlib.asynccontextmanager
async def probing(*backends: Backend) -> AsyncIterator[Stage]:
    stage = Stage(*backends)
    running = asyncio.ensure_future(stage.prober.run())
    try:
        yield stage
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


def backend(
    server: AskedServer, name: str = "b", *, health: HealthRules = QUICK, engine: EngineKind = EngineKind.OPENAI
) -> Backend:
    return Backend(name, Address("http", "127.0.0.1", server.port), engine=engine, health=health)


def is_up(state: BackendState) -> bool:
    return state.condition is Condition.UP


def is_down(state: BackendState) -> bool:
    return state.condition is Condition.DOWN


async def test_a_backend_is_probed_at_once_and_goes_down_and_up_with_its_answers() -> None:
    async with AskedServer(dict(LIST)) as server, probing(backend(server)) as stage:
        state = await stage.until(is_up)
        assert (state.engine, state.models and state.models[0].name) == (EngineKind.OPENAI, "m")
        server.answers["/v1/models"] = reply({"error": {"message": "broken"}}, 500)
        assert (await stage.until(is_down)).reason == "answered 500: broken"
        server.answers.update(LIST)
        await stage.until(is_up)


async def test_other_software_on_the_port_is_noticed_when_it_was_down_between() -> None:
    async with AskedServer(dict(LIST)) as server, probing(backend(server, engine=EngineKind.AUTO)) as stage:
        await stage.until(lambda state: state.engine is EngineKind.OPENAI)
        server.answers["/v1/models"] = reply(b"", 500)
        await stage.until(is_down)
        server.answers = {
            "/": reply(b"Ollama is running"),
            "/v1/models": reply({"object": "list", "data": None}),
            "/api/version": reply({"version": "0.32.15"}),
            "/api/tags": reply({"models": []}),
            "/v1/messages": reply(b"", 405),
        }
        state = await stage.until(is_up)
        assert (state.engine, state.version, state.models) == (EngineKind.OLLAMA, "0.32.15", ())


async def test_an_engine_whose_list_breaks_stays_what_it_was_known_to_be() -> None:
    async with AskedServer(dict(VLLM)) as server, probing(backend(server, engine=EngineKind.AUTO)) as stage:
        await stage.until(is_up)
        server.answers["/v1/models"] = reply(b"<html>oops</html>")
        state = await stage.until(is_down)
        assert (state.engine, state.version) == (EngineKind.VLLM, "0.32.0")
        server.answers.update(VLLM)
        state = await stage.until(is_up)
    assert (state.engine, state.version) == (EngineKind.VLLM, "0.32.0")


async def test_an_engine_behind_an_ingress_that_has_lost_it_for_a_while_is_down_and_then_the_same_again() -> None:
    async with AskedServer(dict(VLLM)) as server, probing(backend(server, engine=EngineKind.AUTO)) as stage:
        await stage.until(is_up)
        server.answers.clear()
        await stage.until(is_down)
        await server.wait_asked(len(server.asked) + 20)
        state = stage.state()
        assert (state.condition, state.engine, state.version) == (Condition.DOWN, EngineKind.VLLM, "0.32.0")
        assert state.reason.startswith("answered 404")
        server.answers.update(VLLM)
        state = await stage.until(is_up)
    assert (state.engine, state.version) == (EngineKind.VLLM, "0.32.0")
    assert not [fields for event, fields in stage.told if event == "backend.changed_engine"]


async def test_an_engine_that_is_known_and_asks_for_a_key_after_an_outage_stays_what_it_is() -> None:
    async with AskedServer(dict(VLLM)) as server, probing(backend(server, engine=EngineKind.AUTO)) as stage:
        await stage.until(is_up)
        server.answers["/health"] = reply(b"", 500)
        await stage.until(is_down)
        server.answers |= {"/health": reply(b"", 401), "/v1/models": reply(b"", 401)}
        assert (await stage.until(is_up)).engine is EngineKind.VLLM


async def test_a_server_that_looked_generic_is_looked_at_anew_every_tenth_probe() -> None:
    async with AskedServer({}) as server, probing(backend(server, engine=EngineKind.AUTO)) as stage:
        assert (await stage.until(is_up)).engine is EngineKind.OPENAI
        await server.wait_asked(16)
        assert server.asked[:16] == ["/v1/models", "/", *["/v1/models"] * 10, "/", *["/v1/models"] * 3]
        server.answers.update(VLLM)
        await stage.until(lambda state: state.engine is EngineKind.VLLM)


async def test_a_server_that_the_file_calls_generic_is_never_asked_what_it_is() -> None:
    async with AskedServer({}) as server, probing(backend(server)) as stage:
        await stage.until(is_up)
        await server.wait_asked(25)
        assert set(server.asked) == {"/v1/models"}


async def test_a_probe_can_be_asked_for_between_two_intervals() -> None:
    async with AskedServer(dict(LIST)) as server, probing(backend(server, health=RARE)) as stage:
        await stage.until(is_up)
        stage.prober.probe_soon("b")
        stage.prober.probe_soon("nobody")
        await server.wait_asked(2)


async def test_probes_of_a_backend_never_overlap_however_often_they_are_asked_for() -> None:
    begun = asyncio.Event()
    go_on = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begun.set()
        await go_on.wait()
        writer.write(reply({"data": []}))

    async with AskedServer({"/v1/models": slow}) as server, probing(backend(server)) as stage:
        await begun.wait()
        for _ in range(100):
            stage.prober.probe_soon("b")
            await asyncio.sleep(0)
        assert len(server.asked) == 1
        go_on.set()
        await server.wait_asked(4)
        assert server.at_once_most == 1


async def test_a_reload_adds_removes_and_moves_backends() -> None:
    async with AskedServer(dict(LIST)) as first, AskedServer(dict(LIST)) as second, probing(backend(first)) as stage:
        await stage.until(is_up)
        stage.reload(backend(second), backend(second, "c"))
        await stage.until(is_up)
        await stage.until(is_up, "c")
        asked = len(first.asked)
        await second.wait_asked(len(second.asked) + 4)
        assert len(first.asked) == asked
        stage.reload(backend(first))
        await first.wait_asked(asked + 2)


async def test_a_probe_on_its_way_says_nothing_about_the_address_that_follows() -> None:
    begun = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begun.set()
        await reader.read()

    async with AskedServer({"/v1/models": slow}) as first, AskedServer(dict(LIST)) as second, probing(backend(first)) as stage:
        await begun.wait()
        stage.reload(backend(second))
        assert (await stage.until(is_up)).models is not None


async def test_maintenance_is_not_probed_until_it_ends() -> None:
    async with AskedServer(dict(LIST)) as server, probing(backend(server), backend(server, "c")) as stage:
        await stage.until(is_up)
        stage.publisher.set_duty("b", Duty.MAINTENANCE)
        stage.publisher.set_duty("c", Duty.MAINTENANCE)
        await asyncio.sleep(0)
        asked = len(server.asked)
        stage.prober.probe_soon("b")
        stage.publisher.set_duty("c", Duty.READY)
        stage.prober.probe_soon("c")
        await stage.until(is_up, "c")
        await server.wait_asked(asked + 3)
        assert stage.state("b").condition is Condition.UNKNOWN
        stage.publisher.set_duty("b", Duty.READY)
        await stage.until(is_up)


async def test_what_was_seen_while_the_daemon_itself_was_stopped_does_not_count() -> None:
    async def after_a_stop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stage.ahead_s += 5.0
        writer.write(reply(b"", 500))

    async with AskedServer({"/v1/models": after_a_stop}) as server, probing(backend(server)) as stage:
        await server.wait_asked(3)
        assert stage.state().condition is Condition.UNKNOWN


async def test_ending_leaves_no_task() -> None:
    before = asyncio.all_tasks()
    async with AskedServer(dict(LIST)) as server:
        async with probing(backend(server), backend(server, "c")) as stage:
            await stage.until(is_up)
        left = {task.get_name() for task in asyncio.all_tasks() - before}
    assert not {name for name in left if name.startswith("prober")}


async def test_every_probe_leaves_evidence_of_when_it_began() -> None:
    async with AskedServer(dict(LIST)) as server, probing(backend(server)) as stage:
        began_s = stage.now_s()
        await stage.until(is_up)
        assert began_s <= stage.evidence().answered_at_s <= stage.now_s()
        server.answers["/v1/models"] = reply(b"", 500)
        await stage.until(is_down)
        assert stage.evidence().failed_at_s > stage.evidence().answered_at_s
        assert stage.evidence().failed >= QUICK.fall
        assert not stage.evidence().is_refusing


async def test_a_closed_listener_is_told_from_a_bad_answer() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = Backend("b", Address("http", "127.0.0.1", unused.getsockname()[1]), health=RARE)
        async with probing(closed) as stage:
            await stage.until(is_down)
            assert stage.evidence().is_refusing


async def test_a_backend_that_refuses_our_key_is_alive() -> None:
    async with AskedServer({"/v1/models": reply({"error": "Unauthorized"}, 401)}) as server:
        keyed = replace(backend(server, health=RARE), api_key="wrong")
        async with probing(keyed) as stage:
            await stage.until(is_down)
            assert (stage.evidence().failed, stage.evidence().answered_at_s > 0.0) == (0, True)


async def test_a_suspect_backend_is_probed_at_once_and_not_once_more_for_every_time_it_is_said() -> None:
    async with AskedServer(dict(LIST)) as server, probing(backend(server, health=RARE)) as stage:
        await stage.until(is_up)
        stage.prober.suspect("nobody")
        stage.prober.suspect("b")
        await server.wait_asked(2)
        watch = stage.prober._watches["b"]
        stage.prober.suspect("b")
        assert not watch.soon.is_set()
        stage.ahead_s += SUSPECT_S
        stage.prober.suspect("b")
        assert watch.soon.is_set()
        await server.wait_asked(3)


async def test_a_backend_that_stays_suspect_is_probed_at_the_fast_pace() -> None:
    calm = replace(QUICK, interval_s=1.5)
    slow = replace(QUICK, interval_s=2.5)
    async with (
        AskedServer(dict(LIST)) as server,
        AskedServer(dict(LIST)) as other,
        probing(backend(server, health=slow), backend(other, "c", health=calm)) as stage,
    ):
        await stage.until(is_up)
        await stage.until(is_up, "c")
        stage.prober.suspect("b")
        await server.wait_asked(3)
        assert len(other.asked) == 1


SLOTS = '[{"id":0,"id_task":7,"is_processing":true,"n_prompt_tokens_processed":%d}]'
LLAMACPP: dict[str, Reply] = LIST | {
    "/health": reply({"status": "ok"}),
    "/props": reply({"build_info": "b11549-abcdef0"}),
    "/slots": reply((SLOTS % 2048).encode()),
}


async def test_the_work_of_a_suspect_backend_is_looked_at_until_it_is_so_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("understudy.controlplane.prober.PROGRESS_INTERVAL_S", 0.005)
    async with AskedServer(dict(LLAMACPP)) as server:
        llama = backend(server, engine=EngineKind.LLAMACPP)
        async with asyncio.timeout(20), probing(llama) as stage:
            await stage.until(is_up)
            assert "/slots" not in server.asked
            watch = stage.prober._watches["b"]
            stage.prober.suspect("b")
            while server.asked.count("/slots") < 3:
                await server.wait_asked(len(server.asked) + 1)
            assert stage.evidence().moved_at_s == 0.0
            server.answers["/slots"] = reply((SLOTS % 4096).encode())
            while not stage.evidence().moved_at_s:
                await server.wait_asked(len(server.asked) + 1)
            stage.ahead_s += SUSPECT_S
            # Three further probes, each later than the next look at the work would be.
            await server.wait_asked(len(server.asked) + 9)
            assert not watch.suspected.is_set()


async def test_an_engine_without_figures_is_only_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("understudy.controlplane.prober.PROGRESS_INTERVAL_S", 0.005)
    async with AskedServer(dict(LIST)) as server, probing(backend(server)) as stage:
        await stage.until(is_up)
        stage.prober.suspect("b")
        await server.wait_asked(5)
        assert set(server.asked) == {"/v1/models"}


@pytest.mark.parametrize(
    ("interval_s", "health", "next_s"),
    [
        (5.0, Health(Condition.UP), 5.0),
        (5.0, Health(Condition.UP, bad=1), 1.0),
        (5.0, Health(Condition.UNKNOWN), 1.0),
        (2.0, Health(Condition.DOWN), 0.5),
        (0.1, Health(Condition.DOWN), 0.1),
    ],
)
def test_a_backend_in_doubt_is_probed_faster(interval_s: float, health: Health, next_s: float) -> None:
    assert interval_to_next_s(HealthRules(interval_s=interval_s), health) == pytest.approx(next_s)


def test_a_suspect_backend_is_probed_faster_although_nothing_speaks_against_it_yet() -> None:
    assert interval_to_next_s(HealthRules(interval_s=5.0), Health(Condition.UP), is_suspect=True) == pytest.approx(1.0)
