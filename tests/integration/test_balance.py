"""Which backend gets a request, seen from the wire."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.answers import whole
from support.daemon import Daemon, backend, settings
from support.scripted import ScriptedEngine
from support.steps import Gate, answer, hold, pause
from support.waiting import until
from support.wire import chat


@pytest.fixture
def engines() -> Iterator[list[ScriptedEngine]]:
    """Run three engines."""
    with ScriptedEngine("gpu0") as gpu0, ScriptedEngine("gpu1") as gpu1, ScriptedEngine("gpu2") as gpu2:
        yield [gpu0, gpu1, gpu2]


def answered_by(daemon: Daemon, count: int, session: str = "") -> Counter[str]:
    """Ask `count` times, one after the other, and count who answered."""
    headers = {"X-Session-ID": session} if session else {}
    return Counter(daemon.ask(body=chat(), headers=headers).backend for _ in range(count))


def test_ordered_takes_the_first_and_backups_only_when_no_primary_can(engines: list[ScriptedEngine], tmp_path: Path) -> None:
    wanted = settings(backend(engines[0], role="backup"), backend(engines[1]), backend(engines[2]))
    with Daemon(wanted, tmp_path) as daemon:
        daemon.wait_condition("up")
        assert answered_by(daemon, 5) == {"gpu1": 5}
        for name, engine in (("gpu2", engines[1]), ("gpu0", engines[2])):
            engine.refuse()
            engine.drop_connections()
            daemon.wait_condition("down", engine.name)
            assert answered_by(daemon, 5) == {name: 5}


def test_round_robin_shares_by_weight(engines: list[ScriptedEngine], tmp_path: Path) -> None:
    wanted = settings(
        *(backend(engine, weight=weight) for engine, weight in zip(engines, (1, 2, 3), strict=True)), balance="round_robin"
    )
    with Daemon(wanted, tmp_path) as daemon:
        daemon.wait_condition("up")
        assert answered_by(daemon, 24) == {"gpu0": 4, "gpu1": 8, "gpu2": 12}


def test_least_in_flight_avoids_the_busy_one(engines: list[ScriptedEngine], tmp_path: Path) -> None:
    gate = Gate()
    with Daemon(settings(*map(backend, engines), balance="least_in_flight"), tmp_path) as daemon, ThreadPoolExecutor(3) as pool:
        daemon.wait_condition("up")
        for engine in engines:
            engine.always(answer(hold(gate), *whole(200, {"choices": []}).steps))
        held = [pool.submit(daemon.ask, body=chat()) for _ in range(3)]
        until(lambda: sum(len(engine.seen.requests) for engine in engines) == 3, "three requests")
        assert [len(engine.seen.requests) for engine in engines] == [1, 1, 1]
        gate.open()
        assert {each.result().status for each in held} == {200}


def test_fastest_prefers_the_one_that_answers_sooner(engines: list[ScriptedEngine], tmp_path: Path) -> None:
    for engine, delay_s in zip(engines, (0.1, 0.0, 0.1), strict=True):
        engine.always(answer(pause(delay_s), *whole(200, {"choices": []}).steps))
    with Daemon(settings(*map(backend, engines), balance="fastest"), tmp_path) as daemon:
        daemon.wait_condition("up")
        answered_by(daemon, 6)
        assert answered_by(daemon, 10)["gpu1"] >= 8


def test_a_session_stays_on_its_backend_and_moves_only_when_that_is_gone(engines: list[ScriptedEngine], tmp_path: Path) -> None:
    with Daemon(settings(*map(backend, engines), balance="session"), tmp_path) as daemon:
        daemon.wait_condition("up")
        before = {f"s{i}": answered_by(daemon, 3, f"s{i}") for i in range(12)}
        homes = {session: next(iter(counted)) for session, counted in before.items()}
        assert all(len(counted) == 1 for counted in before.values())
        assert len(set(homes.values())) > 1
        gone = next(engine for engine in engines if engine.name == homes["s0"])
        gone.refuse()
        gone.drop_connections()
        daemon.wait_condition("down", gone.name)
        after = {session: next(iter(answered_by(daemon, 1, session))) for session in homes}
        assert all(after[session] == home for session, home in homes.items() if home != gone.name)
        assert gone.name not in after.values()


def test_a_full_primary_spills_over_and_a_full_house_waits_for_room(
    gpu0: ScriptedEngine, gpu1: ScriptedEngine, tmp_path: Path
) -> None:
    gate = Gate()
    wanted = settings(backend(gpu0, in_flight_max=1), backend(gpu1, in_flight_max=1, role="backup"), failover={"hold": "5s"})
    with Daemon(wanted, tmp_path) as daemon, ThreadPoolExecutor(3) as pool:
        daemon.wait_condition("up")
        for engine in (gpu0, gpu1):
            engine.always(answer(hold(gate), *whole(200, {"choices": []}).steps))
        held = [pool.submit(daemon.ask, body=chat()) for _ in range(3)]
        until(lambda: daemon.admin("/api/status").json()["waiting"] == 1, "one waiting")
        gpu0.wait_requests(1)
        gpu1.wait_requests(1)
        assert (len(gpu0.seen.requests), len(gpu1.seen.requests)) == (1, 1)
        gate.open()
        assert {each.result().status for each in held} == {200}


def test_a_house_that_stays_full_is_told_with_503_and_when_to_come_back(gpu0: ScriptedEngine, tmp_path: Path) -> None:
    gate = Gate()
    wanted = settings(backend(gpu0, in_flight_max=1), failover={"hold": "200ms"})
    with Daemon(wanted, tmp_path) as daemon, ThreadPoolExecutor(1) as pool:
        daemon.wait_condition("up")
        gpu0.always(answer(hold(gate), *whole(200, {"choices": []}).steps))
        held = pool.submit(daemon.ask, body=chat())
        gpu0.wait_requests(1)
        refused = daemon.ask(body=chat())
        assert refused.status == 503
        assert int(refused.head.get("Retry-After")) >= 1
        gate.open()
        assert held.result().status == 200


@pytest.mark.parametrize("duty", ["drain", "maintenance"])
def test_an_operators_word_takes_a_backend_out_and_back(
    gpu0: ScriptedEngine, gpu1: ScriptedEngine, tmp_path: Path, duty: str
) -> None:
    gate = Gate()
    with Daemon(settings(backend(gpu0), backend(gpu1)), tmp_path) as daemon, ThreadPoolExecutor(1) as pool:
        daemon.wait_condition("up")
        gpu0.then(answer(hold(gate), *whole(200, {"choices": []}).steps))
        held = pool.submit(daemon.ask, body=chat())
        gpu0.wait_requests(1)
        assert daemon.admin(f"/api/backends/gpu0/{duty}", method="POST").status == 200
        assert answered_by(daemon, 3) == {"gpu1": 3}
        gate.open()
        assert (held.result().status, held.result().backend) == (200, "gpu0")
        assert daemon.admin("/api/backends/gpu0/ready", method="POST").status == 200
        until(lambda: daemon.ask(body=chat()).backend == "gpu0", "gpu0 in service again")
