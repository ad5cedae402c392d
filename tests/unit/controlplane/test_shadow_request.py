"""Whom a shadow goes to, and what is sent."""

import contextlib
import json
import socket
from dataclasses import replace

import httpx
import pytest

from support.scripted import ScriptedEngine
from support.targets import CHAT_PATH, UP, snapshot_of, target
from understudy.controlplane.fetcher import BROKEN, failure_of
from understudy.controlplane.shadow_request import ShadowSender, body_for, path_of, pick_target
from understudy.core.ask import DialectName
from understudy.core.color import Color, Prompt, RolloutRules
from understudy.core.shadowing import ShadowAsk
from understudy.core.snapshot import Address, Backend, Condition, Duty, Model, Role, RoutingSnapshot, Target
from understudy.core.tally import Tally
from understudy.dialects import match
from understudy.errors import FailureKind

BODY = b'{"model":"qwen","stream":true,"messages":[{"role":"user","content":"hello"}]}'
ASKED = ShadowAsk(Color.GREEN, CHAT_PATH, BODY, "qwen", DialectName.OPENAI, is_streaming=True, request_id=b"id-1")
NOW_S = 100.0


def green(number: int, *, in_flight_max: int = 0, **more: object) -> Target:
    one = target(number, in_flight_max=in_flight_max)
    return replace(one, backend=replace(one.backend, color=Color.GREEN, **more))  # type: ignore[arg-type]  # a play's own fields


def picked(*targets: Target, tally: Tally | None = None, asked: ShadowAsk = ASKED, shadows: int = 0) -> str | None:
    found = pick_target(plan(*targets), asked, (tally or Tally()).of, lambda _: shadows, NOW_S)
    return found.backend.name if found else None


def plan(*targets: Target) -> RoutingSnapshot:
    return snapshot_of(*targets)


# --- whom


def test_it_goes_to_a_backend_of_exactly_that_color() -> None:
    blue = replace(target(0), backend=replace(target(0).backend, color=Color.BLUE))
    assert picked(blue, target(1), green(2)) == "gpu2"
    assert picked(blue, target(1)) is None
    assert picked(target(1), asked=replace(ASKED, color=Color.NONE)) is None


@pytest.mark.parametrize(
    "state",
    [
        replace(UP, condition=Condition.DOWN),
        replace(UP, duty=Duty.DRAINING),
        replace(UP, dialects=(DialectName.OLLAMA,)),
        replace(UP, models=(Model("another"),)),
    ],
)
def test_one_that_is_down_taken_out_or_cannot_answer_is_passed_over(state: object) -> None:
    unfit = replace(green(1), state=state)  # type: ignore[arg-type]  # a parametrised state
    assert picked(unfit) is None
    assert picked(unfit, green(2)) == "gpu2"


def test_a_primary_goes_before_a_backup_and_the_emptier_one_first() -> None:
    tally = Tally()
    tally.begin("gpu2", is_trial=False)
    assert picked(green(1, role=Role.BACKUP), green(2), green(3), tally=tally) == "gpu3"
    assert picked(green(1, role=Role.BACKUP), green(2), tally=tally) == "gpu2"


@pytest.mark.parametrize(("in_flight", "shadows", "is_taken"), [(0, 0, True), (1, 0, True), (2, 0, False), (1, 1, False)])
def test_half_of_a_bound_stays_free_for_clients(in_flight: int, shadows: int, is_taken: bool) -> None:
    tally = Tally()
    for _ in range(in_flight):
        tally.begin("gpu1", is_trial=False)
    assert (picked(green(1, in_flight_max=4), tally=tally, shadows=shadows) is not None) is is_taken
    assert picked(green(1), tally=tally, shadows=shadows) == "gpu1"


def test_one_that_traffic_found_failing_or_busy_is_left_alone() -> None:
    tally = Tally()
    tally.rest("gpu1", NOW_S + 1.0)
    tally.of("gpu2").ejected_until_s = NOW_S - 1.0  # half-open: its one trial is a client's
    assert picked(green(1), green(2), tally=tally) is None
    assert picked(green(1), green(2), green(3), tally=tally) == "gpu3"


# --- what


def test_the_body_is_under_the_backends_name_for_the_model_and_otherwise_untouched() -> None:
    dialect = match(b"POST", CHAT_PATH.encode()).dialect
    assert dialect is not None
    assert body_for(ASKED, dialect, green(1), RolloutRules()) == BODY
    mapped = replace(green(1, models=(("qwen", "qwen-q4"),)), state=replace(UP, models=(Model("qwen-q4"),)))
    assert body_for(ASKED, dialect, mapped, RolloutRules()) == BODY.replace(b'"qwen"', b'"qwen-q4"')


def test_the_body_has_the_prompt_of_its_color_under_the_backends_own() -> None:
    dialect = match(b"POST", CHAT_PATH.encode()).dialect
    assert dialect is not None
    rules = RolloutRules(green=Prompt("Be brief.", defaults=(("temperature", "0"),)), blue=Prompt("Be blue."))
    with_query = replace(ASKED, path=CHAT_PATH + "?beta=true")
    sent = json.loads(body_for(with_query, dialect, green(1), rules))
    assert sent["messages"][0] == {"role": "system", "content": "Be brief."}
    assert sent["temperature"] == 0
    sent = json.loads(body_for(ASKED, dialect, green(1, prompt=Prompt("Be mine.")), rules))
    assert sent["messages"][0]["content"] == "Be mine."
    assert sent["temperature"] == 0


def test_the_path_is_told_without_its_query() -> None:
    assert path_of(replace(ASKED, path="/v1/messages?beta=true")) == "/v1/messages"


# --- over the wire

FIELDS = (
    (b"authorization", b"Bearer theirs"),
    (b"x-api-key", b"theirs, too"),
    (b"anthropic-version", b"2023-06-01"),
    (b"content-type", b"application/json; charset=utf-8"),
    (b"cookie", b"understudy=blue"),
    (b"x-session-id", b"s1"),
)


async def sent(engine: ScriptedEngine, key: str = "") -> dict[str, str]:
    """Send one shadow and return the fields that came."""
    backend = Backend("g", Address("http", "127.0.0.1", engine.port, "/up"), color=Color.GREEN, api_key=key)
    asked = replace(ASKED, path=CHAT_PATH + "?beta=true", fields=FIELDS)
    async with ShadowSender().send(asked, backend, BODY) as response:
        await response.aread()
    got = engine.seen.requests[-1]
    assert (got.method, got.target, got.body) == ("POST", "/up" + CHAT_PATH + "?beta=true", BODY)
    return {name.lower(): value for name, value in got.headers}


async def test_only_what_must_go_on_goes_on_and_the_id_says_that_it_is_a_shadow() -> None:
    with ScriptedEngine() as engine:
        fields = await sent(engine)
        assert fields["host"] == f"127.0.0.1:{engine.port}"
    assert fields["x-request-id"] == "id-1-shadow"
    assert (fields["authorization"], fields["x-api-key"]) == ("Bearer theirs", "theirs, too")
    assert (fields["anthropic-version"], fields["content-type"]) == ("2023-06-01", "application/json; charset=utf-8")
    assert fields["accept-encoding"] == "identity"
    assert not fields.keys() & {"cookie", "x-session-id", "transfer-encoding"}


async def test_a_backend_with_a_key_of_its_own_gets_that_and_no_key_of_a_client() -> None:
    with ScriptedEngine() as engine:
        fields = await sent(engine, key="ours")
    assert fields["authorization"] == "Bearer ours"
    assert "x-api-key" not in fields


def refusing_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        return port


async def test_of_several_addresses_one_that_accepts_is_found() -> None:
    async def resolve(host: str) -> tuple[str, ...]:
        assert host == "gpu.invalid"
        return "127.0.0.2", "127.0.0.1"

    with ScriptedEngine() as engine:
        backend = Backend("g", Address("http", "gpu.invalid", engine.port), color=Color.GREEN)
        async with ShadowSender(resolve).send(ASKED, backend, BODY) as response:
            assert response.status_code == 200
        assert engine.seen.requests[0].header("host") == f"gpu.invalid:{engine.port}"


async def test_where_none_accepts_the_kind_of_failure_is_known() -> None:
    backend = Backend("g", Address("http", "127.0.0.1", refusing_port()), color=Color.GREEN)
    kinds = []
    with contextlib.suppress(httpx.HTTPError):
        try:
            async with ShadowSender().send(ASKED, backend, BODY):
                pytest.fail("nobody listens there")
        except BROKEN as exc:
            kinds.append(failure_of(exc, has_head=False))
            raise
    assert kinds == [FailureKind.REFUSED]
