"""Plays of servers of which only the dialect is known."""

import pytest

from support.probing import answer, play
from understudy.core.ask import DialectName
from understudy.core.health import Seen
from understudy.core.snapshot import EngineKind, Model
from understudy.engines.contract import Finding, ProbeAnswer
from understudy.engines.openai import judge_unsigned, probe_openai

KNOWN = Finding(Seen.GOOD, EngineKind.OPENAI, dialects=(DialectName.OPENAI,), models=(Model("m", '{"id":"m"}'),))


def told(models: ProbeAnswer | None, known: Finding | None = None) -> Finding:
    return play(probe_openai(known), {"/v1/models": models}).told


def test_a_server_with_a_list_serves_what_it_lists() -> None:
    assert told(answer({"data": [{"id": "m"}]})) == Finding(
        Seen.GOOD, EngineKind.OPENAI, dialects=(DialectName.OPENAI,), models=(Model("m", '{"id": "m"}'),)
    )


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_server_without_a_list_is_alive_and_may_serve_anything(status: int) -> None:
    finding = told(answer(b"no", status))
    assert (finding.seen, finding.models) == (Seen.GOOD, None)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_bad_and_names_the_setting(status: int) -> None:
    finding = told(answer(b"", status))
    assert (finding.seen, finding.reason) == (Seen.BAD, f"answered {status}: it refuses the key; set or correct api_key")


def test_a_server_at_its_limit_stays_what_it_was() -> None:
    """A probe must not take out a backend that works as hard as it can."""
    assert told(answer({"error": {"message": "rate limit"}}, 429), KNOWN) == KNOWN
    assert told(answer(b"", 429)).seen is Seen.GOOD


@pytest.mark.parametrize(
    ("models", "reason"),
    [
        (answer(b"<html>hello</html>"), "/v1/models gave a list that is not JSON"),
        (answer({"data": 5}), "/v1/models gave a list of an unknown shape"),
        (answer({"error": "x"}), "/v1/models gave a list without data"),
        (answer(b"", 302), "answered 302: a redirect is not followed; correct the url"),
        (answer(b"<html>Bad Gateway</html>", 502), "answered 502"),
        (None, ""),
    ],
)
def test_what_cannot_be_read_is_bad(models: ProbeAnswer | None, reason: str) -> None:
    finding = told(models)
    assert (finding.seen, finding.reason) == (Seen.BAD, reason)


@pytest.mark.parametrize(
    ("listed", "seen", "reason"),
    [
        (
            answer(b"", 404),
            Seen.BAD,
            "answered 404 to /v1/models, as no vllm does; if it is another engine now, set engine: openai",
        ),
        (answer(b"<html>It works!</html>"), Seen.BAD, "/v1/models gave a list that is not JSON"),
        (answer(b"", 502), Seen.BAD, "answered 502"),
        (None, Seen.BAD, ""),
    ],
)
def test_what_stands_before_a_known_engine_is_no_engine(listed: ProbeAnswer | None, seen: Seen, reason: str) -> None:
    assert judge_unsigned(listed, EngineKind.VLLM) == Finding(seen, EngineKind.AUTO, reason=reason)


def test_a_list_that_a_known_engine_would_have_signed_is_another_servers() -> None:
    finding = judge_unsigned(answer({"data": [{"id": "m"}]}), EngineKind.VLLM)
    assert (finding.seen, finding.engine) == (Seen.GOOD, EngineKind.OPENAI)
