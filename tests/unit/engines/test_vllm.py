"""Plays of a vLLM's answers; shapes from engines.md sections 1 and 8."""

import pytest

from support.probing import answer, play
from understudy.core.ask import DialectName
from understudy.core.health import Seen
from understudy.core.snapshot import EngineKind, Model
from understudy.engines.contract import ProbeAnswer
from understudy.engines.vllm import is_asleep, probe_vllm

ENTRY = '{"id":"tiny","object":"model","owned_by":"vllm","parent":null}'
AWAKE = b"""# HELP vllm:engine_sleep_state Engine sleep state; awake = 0 means engine is sleeping
# TYPE vllm:engine_sleep_state gauge
vllm:engine_sleep_state{engine="0",model_name="tiny",sleep_state="awake"} 1.0
vllm:engine_sleep_state{engine="0",model_name="tiny",sleep_state="weights_offloaded"} 0.0
"""
ASLEEP = AWAKE.replace(b'"awake"} 1.0', b'"awake"} 0.0')

VLLM: dict[str, ProbeAnswer | None] = {
    "/health": answer(b""),
    "/v1/models": answer(b'{"object":"list","data":[' + ENTRY.encode() + b"]}"),
    "/version": answer({"version": "0.32.0"}),
    "/v1/messages": answer({"detail": "Method Not Allowed"}, 405),
    "/metrics": answer(AWAKE),
}


def test_a_vllm_that_is_awake_is_good() -> None:
    finding = play(probe_vllm(), VLLM).told
    assert (finding.seen, finding.engine, finding.version) == (Seen.GOOD, EngineKind.VLLM, "0.32.0")
    assert finding.dialects == (DialectName.OPENAI, DialectName.ANTHROPIC)
    assert finding.models == (Model("tiny", ENTRY),)


def test_a_vllm_that_sleeps_is_not_usable_although_every_probe_path_is_good() -> None:
    finding = play(probe_vllm(), VLLM | {"/metrics": answer(ASLEEP)}).told
    assert (finding.seen, finding.reason, finding.is_asleep) == (Seen.LOADING, "asleep", True)
    assert finding.models == (Model("tiny", ENTRY),)


def test_a_vllm_that_answers_nothing_but_what_matters_is_good() -> None:
    finding = play(probe_vllm(), VLLM | {"/metrics": None, "/version": None, "/v1/messages": None}).told
    assert (finding.seen, finding.version, finding.dialects) == (Seen.GOOD, "", (DialectName.OPENAI,))


def test_an_older_vllm_does_not_speak_anthropic() -> None:
    finding = play(probe_vllm(), VLLM | {"/v1/messages": answer({"detail": "Not Found"}, 404)}).told
    assert finding.dialects == (DialectName.OPENAI,)


def test_the_dialects_are_asked_for_once_per_version() -> None:
    first = play(probe_vllm(), VLLM).told
    assert play(probe_vllm(first), VLLM).asked == ["/health", "/v1/models", "/version", "/metrics"]


def test_a_dead_core_is_bad() -> None:
    finding = play(probe_vllm(), VLLM | {"/health": answer(b"", 503)}).told
    assert (finding.seen, finding.reason) == (Seen.BAD, "answered 503")


def test_a_vllm_that_scales_is_not_usable_yet() -> None:
    busy = answer({"error": "The model is currently scaling. Please try again later."}, 503)
    assert play(probe_vllm(), VLLM | {"/health": busy}).told.seen is Seen.LOADING


def test_a_router_without_a_health_path_is_judged_by_its_list() -> None:
    assert play(probe_vllm(), VLLM | {"/health": answer({"detail": "Not Found"}, 404)}).told.seen is Seen.GOOD


def test_a_refused_key_is_bad_and_names_the_setting() -> None:
    finding = play(probe_vllm(), VLLM | {"/v1/models": answer({"error": "Unauthorized"}, 401)}).told
    assert finding.seen is Seen.BAD
    assert "api_key" in finding.reason


@pytest.mark.parametrize(
    ("metrics", "asleep"),
    [
        (None, False),
        (answer(b"", 404), False),
        (answer(b"vllm:num_requests_running 0\n"), False),
        (answer(ASLEEP), True),
        # Of several engines behind one port one is enough.
        (answer(ASLEEP + b'vllm:engine_sleep_state{engine="1",sleep_state="awake"} 1.0\n'), False),
        # A model's name may hold anything.
        (answer(b'vllm:engine_sleep_state{model_name="a} 1 {",sleep_state="awake"} 0\n'), True),
        (answer(b'vllm:engine_sleep_state{sleep_state="awake"} e-.\n'), False),
        (answer(b"vllm:engine_sleep_state{" + b"}" * 1_000_000), False),
    ],
)
def test_the_sleep_gauge(metrics: ProbeAnswer | None, asleep: bool) -> None:
    assert is_asleep(metrics) is asleep
