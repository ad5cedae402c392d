"""A backend fails before its first content: the client gets its answer from another one, or one honest error.

Each play causes the fault for real, on sockets, and looks only at the wire, the log and the admin port.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support import faults
from support.answers import head_bytes, whole
from support.daemon import Daemon, backend, settings
from support.scripted import ScriptedEngine
from support.steps import Step, answer, close, hang, pause, send
from support.waiting import until
from support.wire import Reply, chat

# Nor do probes that meet one play's fault take a backend out for the next play.
NO_EJECTION = {"interval": "60s", "timeout": "2s", "max_fails": 0, "fall": 1000}
SHORT_FIRST_TOKEN = {"first_token": "300ms", "stall": "2s"}


class Pair:
    """Two engines that are always up for probes, and a daemon that tries gpu0 first and never ejects it."""

    def __init__(self, gpu0: ScriptedEngine, gpu1: ScriptedEngine, daemon: Daemon) -> None:
        self.gpu0, self.gpu1, self.daemon = gpu0, gpu1, daemon

    def ask(self, *, stream: bool = True) -> Reply:
        """Ask in a chat."""
        return self.daemon.ask(body=chat(stream=stream), deadline_s=5.0)


@pytest.fixture(scope="module")
def shared_pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Run one daemon for all plays that leave no trace in it."""
    with ScriptedEngine("gpu0") as gpu0, ScriptedEngine("gpu1") as gpu1:
        wanted = settings(
            backend(gpu0),
            backend(gpu1),
            health=NO_EJECTION,
            timeouts={"connect": "300ms", **SHORT_FIRST_TOKEN},
            failover={"budget": "100%", "hold": "300ms"},
        )
        with Daemon(wanted, tmp_path_factory.mktemp("pair")) as daemon:
            daemon.wait_condition("up")
            yield Pair(gpu0, gpu1, daemon)


@pytest.fixture
def pair(shared_pair: Pair) -> Pair:
    """Hand the shared pair over with empty scripts, both backends up and nothing in flight."""
    shared_pair.gpu0.fresh()
    shared_pair.gpu1.fresh()
    shared_pair.daemon.wait_condition("up")
    shared_pair.daemon.wait_idle()
    return shared_pair


FAILING = {**faults.BEFORE_CONTENT, **faults.BUSY}
STREAMED = [pytest.param(fault, True, id=f"{fault}, streamed") for fault in FAILING]
WHOLE = [pytest.param(fault, False, id=f"{fault}, whole") for fault in FAILING if fault not in faults.IN_EVENTS]


@pytest.mark.parametrize(("fault", "stream"), STREAMED + WHOLE)
def test_a_backend_that_fails_before_content_costs_the_client_nothing(pair: Pair, fault: str, stream: bool) -> None:
    pair.gpu0.always(FAILING[fault]())
    reply = pair.ask(stream=stream)
    assert (reply.status, reply.text, reply.is_cut) == (200, "good evening from gpu1", False)
    assert (reply.backend, reply.attempts) == ("gpu1", 2)
    pair.daemon.wait_idle()


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_backend_that_asks_for_a_rest_gets_it_and_no_blame(
    gpu0: ScriptedEngine, gpu1: ScriptedEngine, tmp_path: Path, status: int
) -> None:
    gpu0.then(whole(status, faults.OVERLOADED, {"Retry-After": "1"}))
    with Daemon(settings(backend(gpu0), backend(gpu1), health={"max_fails": 1, "fail_timeout": "60s"}), tmp_path) as daemon:
        daemon.wait_condition("up")
        assert (daemon.ask(body=chat()).backend, len(gpu0.seen.requests)) == ("gpu1", 1)
        assert daemon.ask(body=chat()).attempts == 1
        until(lambda: daemon.ask(body=chat()).backend == "gpu0", "gpu0 after its rest", timeout_s=5.0)
        assert not daemon.events("backend.was_ejected")


@pytest.mark.parametrize("fault", faults.SILENCE)
def test_a_backend_without_content_in_time_is_left_for_the_next_one(pair: Pair, fault: str) -> None:
    pair.gpu0.always(faults.SILENCE[fault]())
    reply = pair.ask()
    assert (reply.status, reply.text, reply.backend) == (200, "good evening from gpu1", "gpu1")
    # The silent engine is let go, so that it stops generating for nobody.
    pair.gpu0.wait_for(lambda seen: seen.peers_left >= 1)


@pytest.mark.parametrize("fault", [*faults.BEFORE_CONTENT, *faults.SILENCE])
def test_when_every_backend_fails_the_client_gets_one_honest_error(pair: Pair, fault: str) -> None:
    for engine in (pair.gpu0, pair.gpu1):
        engine.always((faults.BEFORE_CONTENT | faults.SILENCE)[fault]())
    reply = pair.ask()
    wanted = {504} if fault in faults.SILENCE else {502, 503}
    assert reply.status in wanted, reply
    error = reply.json()["error"]
    assert error["message"]
    assert error["code"]
    assert not reply.is_cut


@pytest.mark.parametrize("fault", faults.CLIENTS_FAULT)
def test_the_clients_own_fault_is_passed_on_and_nobody_else_is_asked(pair: Pair, fault: str) -> None:
    pair.gpu0.always(faults.CLIENTS_FAULT[fault]())
    reply = pair.ask(stream=False)
    assert (reply.status, reply.attempts, reply.backend) == (int(fault), 1, "gpu0")
    assert reply.json() == {"error": {"message": "not like this", "type": "invalid_request_error"}}
    assert not pair.gpu1.seen.requests


def test_a_refused_connection_leads_to_the_next_backend(pair: Pair) -> None:
    pair.gpu0.refuse()
    pair.gpu0.drop_connections()
    try:
        reply = pair.ask()
    finally:
        pair.gpu0.listen()
    assert (reply.status, reply.backend) == (200, "gpu1")


def test_an_unanswered_connection_attempt_ends_with_the_connect_deadline(pair: Pair) -> None:
    pair.gpu0.swallow()
    pair.gpu0.drop_connections()
    try:
        reply = pair.ask()
    finally:
        pair.gpu0.listen()
    assert (reply.status, reply.backend) == (200, "gpu1")


def test_a_connection_closed_on_accept_leads_to_the_next_backend(pair: Pair) -> None:
    pair.gpu0.drop_connections()
    pair.gpu0.on_accept = close()
    reply = pair.ask()
    assert (reply.status, reply.backend, reply.attempts) == (200, "gpu1", 2)


def test_a_reused_connection_that_was_closed_costs_no_attempt_and_no_blame(
    gpu0: ScriptedEngine, gpu1: ScriptedEngine, tmp_path: Path
) -> None:
    with Daemon(settings(backend(gpu0), backend(gpu1), health={"max_fails": 1, "fail_timeout": "60s"}), tmp_path) as daemon:
        daemon.wait_condition("up")
        gpu0.closes_reused = True
        for _ in range(4):
            reply = daemon.ask(body=chat())
            assert (reply.status, reply.backend) == (200, "gpu0")
        assert not gpu1.seen.requests
        assert not daemon.events("backend.was_ejected")


def test_connections_that_the_engine_closes_when_idle_are_not_missed(pair: Pair) -> None:
    pair.gpu0.idle_s = 0.05
    for _ in range(3):
        assert pair.ask().backend == "gpu0"
        pair.gpu0.wait_for(lambda seen: seen.connections_open == 0)


def test_an_out_of_memory_answer_is_tried_once_more_and_no_further(tmp_path: Path) -> None:
    engines = [ScriptedEngine(f"gpu{i}", engine="ollama") for i in range(3)]
    with engines[0], engines[1], engines[2]:
        for engine in engines:
            engine.always(whole(500, faults.OUT_OF_MEMORY))
        wanted = settings(*(backend(engine, "ollama") for engine in engines), health=NO_EJECTION)
        with Daemon(wanted, tmp_path) as daemon:
            daemon.wait_condition("up")
            reply = daemon.ask("/api/chat", chat())
        assert reply.status == 502
        assert [len(engine.seen.requests) for engine in engines] == [1, 1, 0]


def test_a_request_that_breaks_two_backends_is_not_tried_on_a_third(tmp_path: Path) -> None:
    engines = [ScriptedEngine(f"gpu{i}") for i in range(3)]
    with engines[0], engines[1], engines[2]:
        for engine in engines[:2]:
            engine.always(faults.BEFORE_CONTENT["body reset at once"]())
        wanted = settings(*(backend(engine) for engine in engines), health=NO_EJECTION)
        with Daemon(wanted, tmp_path) as daemon:
            daemon.wait_condition("up")
            reply = daemon.ask(body=chat())
        assert reply.status == 502
        assert [len(engine.seen.requests) for engine in engines] == [1, 1, 0]


def test_a_model_missing_on_one_backend_is_routed_around_and_its_list_read_again(gpu1: ScriptedEngine, tmp_path: Path) -> None:
    with ScriptedEngine("gpu0", engine="vllm") as gpu0:
        wanted = settings(backend(gpu0, "vllm"), backend(gpu1), health={"interval": "60s", "max_fails": 1})
        with Daemon(wanted, tmp_path) as daemon:
            daemon.wait_condition("up")
            gpu0.list_models("other")
            gpu0.checks_models = True
            reply = daemon.ask(body=chat())
            assert (reply.status, reply.backend, reply.attempts) == (200, "gpu1", 2)
            daemon.wait_event("backend.lost_model", backend="gpu0")
            assert daemon.ask(body=chat()).attempts == 1
            assert daemon.status()["gpu0"]["condition"] == "up"
            assert not daemon.events("backend.was_ejected")


def test_a_model_that_nobody_has_is_404_in_the_dialect(pair: Pair) -> None:
    reply = pair.daemon.ask(body=chat(model="nobody-has-it"))
    assert (reply.status, set(reply.json())) == (404, {"error"})
    assert not pair.gpu0.seen.requests
    assert not pair.gpu1.seen.requests


def test_an_answer_before_the_body_was_read_is_delivered_and_the_rest_not_sent(gpu0: ScriptedEngine, tmp_path: Path) -> None:
    body = b'{"error": {"message": "too much"}}'
    head = head_bytes(413, {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"})
    gpu0.then(answer(send(head + body), hang(), reads_body=False))
    with Daemon(settings(backend(gpu0)), tmp_path) as daemon:
        daemon.wait_condition("up")
        reply = daemon.ask(body=chat("x" * 16_000_000), deadline_s=10.0)
        assert (reply.status, reply.body) == (413, body)
        gpu0.wait_for(lambda seen: seen.peers_left == 1)
        assert daemon.ask(body=chat()).text == gpu0.say


def test_a_connection_that_the_engine_wants_closed_is_not_used_again(pair: Pair) -> None:
    for _ in range(3):
        pair.gpu0.then(whole(200, {"choices": []}, {"Connection": "close"}))
        assert pair.ask(stream=False).backend == "gpu0"
    assert {request.nth for request in pair.gpu0.seen.requests[1:]} == {1}


def test_a_large_error_of_the_clients_own_is_passed_on_whole_and_mixed_up_with_nothing(pair: Pair) -> None:
    body = b'{"error": {"message": "' + b"x" * 90_000 + b'"}}'
    head = head_bytes(400, {"Content-Type": "application/json", "Content-Length": str(len(body))})
    for _ in range(3):
        pair.gpu0.then(answer(send(head + body[:70_000]), send(body[70_000:])))
        reply = pair.ask(stream=False)
        assert (reply.status, reply.body) == (400, body)
        assert pair.ask(stream=False).text == "good evening from gpu0"


def test_two_answers_to_one_request_are_both_disbelieved_and_the_connection_is_dropped(pair: Pair) -> None:
    body = b'{"choices": [{"message": {"content": "mine"}}]}'
    one = head_bytes(200, {"Content-Type": "application/json", "Content-Length": str(len(body))}) + body
    pair.gpu0.then(answer(send(one + one.replace(b"mine", b"ours"))))
    reply = pair.ask(stream=False)
    assert (reply.text, reply.backend, reply.attempts) == ("good evening from gpu1", "gpu1", 2)
    assert pair.ask(stream=False).text == "good evening from gpu0"
    assert pair.gpu0.seen.requests[-1].connection != pair.gpu0.seen.requests[0].connection


def test_a_backend_that_does_not_read_the_request_is_left_for_the_next_one(
    gpu0: ScriptedEngine, gpu1: ScriptedEngine, tmp_path: Path
) -> None:
    gpu0.then(answer(hang_without_reading(), reads_body=False))
    wanted = settings(backend(gpu0), backend(gpu1), timeouts={"stall": "500ms", "first_token": "1s"})
    with Daemon(wanted, tmp_path) as daemon:
        daemon.wait_condition("up")
        reply = daemon.ask(body=chat("x" * 16_000_000), deadline_s=10.0)
        assert (reply.status, reply.backend) == (200, "gpu1")


def hang_without_reading() -> Step:
    """Leave the request where it is, longer than any deadline of the play."""
    return pause(20.0)


def test_a_name_that_does_not_resolve_leads_to_the_next_backend(gpu1: ScriptedEngine, tmp_path: Path) -> None:
    lost = {"name": "lost", "url": "http://no-such-host.invalid:1", "engine": "llamacpp"}
    with Daemon(settings(lost, backend(gpu1)), tmp_path) as daemon:
        daemon.wait_condition("up", "gpu1")
        reply = daemon.ask(body=chat())
        assert (reply.status, reply.backend) == (200, "gpu1")
