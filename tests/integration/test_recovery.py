"""Backends go and come back: what is known of them follows within the health times, and no state is for ever."""

import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support import faults
from support.answers import whole
from support.daemon import Daemon, backend, settings
from support.scripted import Pace, ScriptedEngine
from support.steps import Gate, answer, hang, hold, pause
from support.waiting import until
from support.wire import Reply, chat


def test_with_every_backend_down_the_client_hears_when_to_come_back_and_all_recovers_by_itself(
    gpu0: ScriptedEngine, gpu1: ScriptedEngine, tmp_path: Path
) -> None:
    with Daemon(settings(backend(gpu0), backend(gpu1), failover={"hold": "300ms"}), tmp_path) as daemon:
        daemon.wait_condition("up")
        assert daemon.admin("/readyz").status == 200
        for engine in (gpu0, gpu1):
            engine.refuse()
            engine.drop_connections()
        daemon.wait_condition("down")
        reply = daemon.ask(body=chat())
        assert reply.status in {502, 503}
        assert int(reply.head.get("Retry-After")) >= 1
        assert reply.json()["error"]["message"]
        assert set(daemon.ask("/api/chat", chat()).json()) == {"error"}
        assert daemon.admin("/readyz").status == 503
        gpu1.listen()
        until(lambda: daemon.ask(body=chat()).backend == "gpu1", "an answer from gpu1")
        until(lambda: daemon.admin("/readyz").status == 200, "ready again")


def test_the_only_backend_restarts_and_hold_covers_it(gpu0: ScriptedEngine, tmp_path: Path) -> None:
    with Daemon(settings(backend(gpu0), failover={"hold": "5s"}), tmp_path) as daemon:
        daemon.wait_condition("up")
        gpu0.refuse()
        gpu0.drop_connections()
        daemon.wait_condition("down")
        with ThreadPoolExecutor(4) as pool:
            waiting = [pool.submit(daemon.ask, body=chat()) for _ in range(4)]
            back = threading.Timer(1.0, gpu0.listen)
            back.start()
            replies = [each.result() for each in waiting]
            back.join()
        assert [(reply.status, reply.text) for reply in replies] == [(200, gpu0.say)] * 4


def test_the_least_bad_backend_is_tried_when_probes_fail_and_traffic_would_pass(gpu0: ScriptedEngine, tmp_path: Path) -> None:
    with Daemon(settings(backend(gpu0), failover={"hold": "200ms"}), tmp_path) as daemon:
        daemon.wait_condition("up")
        gpu0.on("/health", answer(hang()))
        daemon.wait_condition("down")
        reply = daemon.ask(body=chat())
        assert (reply.status, reply.text) == (200, gpu0.say)


def test_a_backend_that_passes_probes_and_fails_traffic_is_ejected_and_passing_probes_do_not_bring_it_back(
    gpu0: ScriptedEngine, gpu1: ScriptedEngine, tmp_path: Path
) -> None:
    health = {"interval": "100ms", "max_fails": 2, "fail_timeout": "3s"}
    with Daemon(settings(backend(gpu0), backend(gpu1), health=health), tmp_path) as daemon:
        daemon.wait_condition("up")
        gpu0.always(faults.BEFORE_CONTENT["reset before the head"]())
        assert [daemon.ask(body=chat()).attempts for _ in range(3)] == [2, 2, 1]
        daemon.wait_event("backend.was_ejected", backend="gpu0")
        probes = len(gpu0.seen.probes)
        gpu0.wait_for(lambda seen: len(seen.probes) >= probes + 8)
        assert daemon.ask(body=chat()).attempts == 1
        assert len(gpu0.seen.requests) == 2
        gpu0.always(None)
        until(lambda: daemon.ask(body=chat()).backend == "gpu0", "gpu0 back after its ejection")


def test_the_only_backend_is_never_ejected(gpu0: ScriptedEngine, tmp_path: Path) -> None:
    with Daemon(settings(backend(gpu0), health={"max_fails": 1, "fail_timeout": "60s"}), tmp_path) as daemon:
        daemon.wait_condition("up")
        # Each is asked once more, because the backend may be restarting.
        gpu0.then(*(faults.BEFORE_CONTENT["reset before the head"]() for _ in range(6)))
        assert [daemon.ask(body=chat()).status for _ in range(3)] == [502] * 3
        assert daemon.ask(body=chat()).status == 200


def test_one_trial_at_a_time_goes_to_a_backend_that_comes_back_from_ejection(
    gpu0: ScriptedEngine, gpu1: ScriptedEngine, tmp_path: Path
) -> None:
    with Daemon(settings(backend(gpu0), backend(gpu1), health={"max_fails": 1, "fail_timeout": "500ms"}), tmp_path) as daemon:
        daemon.wait_condition("up")
        gpu0.then(faults.BEFORE_CONTENT["reset before the head"]())
        assert daemon.ask(body=chat()).attempts == 2
        gate = Gate()
        slow = answer(hold(gate), *whole(200, {"choices": []}).steps)
        gpu0.always(slow)
        with ThreadPoolExecutor(1) as pool:

            def trial_is_held() -> bool:
                if len(gpu0.seen.requests) < 2:
                    pool.submit(daemon.ask, body=chat())
                return len(gpu0.seen.requests) >= 2

            until(trial_is_held, "the trial", every_s=0.1)
            replies = [daemon.ask(body=chat()) for _ in range(20)]
            assert {reply.backend for reply in replies} == {"gpu1"}
            assert len(gpu0.seen.requests) == 2
            gate.open()
        until(lambda: daemon.ask(body=chat()).backend == "gpu0", "gpu0 back in service")


def test_a_crowd_that_waits_for_a_backend_is_served_whole_when_it_returns(gpu0: ScriptedEngine, tmp_path: Path) -> None:
    with Daemon(settings(backend(gpu0, in_flight_max=8), failover={"hold": "10s"}), tmp_path) as daemon:
        daemon.wait_condition("up")
        gpu0.refuse()
        gpu0.drop_connections()
        daemon.wait_condition("down")
        with ThreadPoolExecutor(60) as pool:
            waiting = [pool.submit(daemon.ask, body=chat(), deadline_s=20.0) for _ in range(60)]
            until(lambda: daemon.admin("/api/status").json()["waiting"] == 60, "all of them waiting")
            gpu0.listen()
            replies = [each.result() for each in waiting]
        assert [reply.status for reply in replies] == [200] * 60
        assert len(gpu0.seen.requests) == 60
        daemon.wait_idle()


def test_a_backend_that_flaps_causes_no_storm_of_events_and_no_failed_request(
    gpu0: ScriptedEngine, gpu1: ScriptedEngine, tmp_path: Path
) -> None:
    with Daemon(settings(backend(gpu0), backend(gpu1), health={"interval": "200ms", "rise": 2}), tmp_path) as daemon:
        daemon.wait_condition("up")
        never = threading.Event()
        replies: list[Reply] = []
        for _ in range(4):
            gpu0.refuse()
            gpu0.drop_connections()
            replies += [daemon.ask(body=chat()) for _ in range(5)]
            never.wait(0.25)
            gpu0.listen()
            replies += [daemon.ask(body=chat()) for _ in range(5)]
            never.wait(0.25)
        assert {reply.status for reply in replies} == {200}
        changes = [*daemon.events("backend.went_up", backend="gpu0"), *daemon.events("backend.went_down", backend="gpu0")]
        assert len(changes) <= 10


@pytest.mark.parametrize("balance", ["ordered", "round_robin", "least_in_flight", "fastest", "session"])
def test_a_backend_that_fails_fast_attracts_no_traffic(tmp_path: Path, balance: str) -> None:
    engines = [ScriptedEngine(f"gpu{i}") for i in range(3)]
    with engines[0], engines[1], engines[2]:
        engines[1].always(whole(500, faults.SERVER_ERROR))
        wanted = settings(
            *(backend(engine) for engine in engines), balance=balance, health={"fail_timeout": "60s"}, failover={"budget": "100%"}
        )
        with Daemon(wanted, tmp_path) as daemon:
            daemon.wait_condition("up")
            replies = [daemon.ask(body=chat(), headers={"X-Session-ID": f"s{i}"}) for i in range(40)]
        assert {reply.status for reply in replies} == {200}
        assert len(engines[1].seen.requests) <= 4


def test_a_generation_that_hangs_behind_good_probes_is_caught_by_traffic(
    gpu0: ScriptedEngine, gpu1: ScriptedEngine, tmp_path: Path
) -> None:
    wanted = settings(
        backend(gpu0), backend(gpu1), timeouts={"first_token": "200ms"}, health={"max_fails": 2, "fail_timeout": "60s"}
    )
    with Daemon(wanted, tmp_path) as daemon:
        daemon.wait_condition("up")
        gpu0.always(answer(hang()))
        assert [daemon.ask(body=chat()).attempts for _ in range(4)] == [2, 2, 1, 1]


def test_a_slow_backend_below_the_deadlines_is_not_ejected(gpu0: ScriptedEngine, gpu1: ScriptedEngine, tmp_path: Path) -> None:
    gpu0.body_pace = Pace(piece_bytes=100_000, gap_s=0.05)
    wanted = settings(backend(gpu0), backend(gpu1), timeouts={"first_token": "5s", "stall": "1s"}, health={"max_fails": 1})
    with Daemon(wanted, tmp_path) as daemon:
        daemon.wait_condition("up")
        gpu0.then(answer(pause(0.5), *whole(200, {"choices": []}).steps))
        reply = daemon.ask(body=chat("x" * 1_000_000))
        assert (reply.status, reply.backend, reply.attempts) == (200, "gpu0", 1)
        assert not daemon.events("backend.was_ejected")


def test_verdicts_of_a_time_in_which_the_daemon_itself_stood_still_are_discarded(gpu0: ScriptedEngine, tmp_path: Path) -> None:
    health = {"interval": "100ms", "timeout": "300ms", "fall": 1}
    with Daemon(settings(backend(gpu0), health=health), tmp_path) as daemon:
        daemon.wait_condition("up")
        gpu0.on("/health", answer(pause(0.1), *whole(200, {"status": "ok"}).steps))
        probes = len(gpu0.seen.probes)
        gpu0.wait_for(lambda seen: len(seen.probes) > probes)
        daemon.send_signal(signal.SIGSTOP)
        threading.Event().wait(2.0)
        daemon.send_signal(signal.SIGCONT)
        probes = len(gpu0.seen.probes)
        gpu0.wait_for(lambda seen: len(seen.probes) > probes + 3)
        assert not daemon.events("backend.went_down")


def test_a_backend_that_loses_its_last_model_is_up_and_gets_nothing(
    gpu0: ScriptedEngine, gpu1: ScriptedEngine, tmp_path: Path
) -> None:
    with Daemon(settings(backend(gpu0), backend(gpu1)), tmp_path) as daemon:
        daemon.wait_condition("up")
        gpu0.list_models()
        daemon.wait_event("backend.lost_model", backend="gpu0")
        assert daemon.ask(body=chat()).backend == "gpu1"
        assert daemon.status()["gpu0"]["condition"] == "up"
        gpu0.list_models("tiny")
        until(lambda: daemon.ask(body=chat()).backend == "gpu0", "gpu0 chosen again")


def test_nothing_is_left_open_after_a_storm_of_faults(gpu0: ScriptedEngine, gpu1: ScriptedEngine, tmp_path: Path) -> None:
    wanted = settings(backend(gpu0), backend(gpu1), health={"max_fails": 0}, failover={"budget": "100%"})
    with Daemon(wanted, tmp_path) as daemon:
        daemon.wait_condition("up")
        daemon.ask(body=chat())
        before = daemon.open_files()
        for fault in faults.BEFORE_CONTENT.values():
            gpu0.then(fault())
            assert daemon.ask(body=chat(stream=True)).status == 200
        daemon.wait_idle()
        # Idle connections to both engines and a probe may be open, no more.
        until(lambda: daemon.open_files() <= before + 6, f"file descriptors back at about {before}")
