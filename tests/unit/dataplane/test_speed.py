"""How much was written, in bytes; how fast is played in test_witness and test_gauge."""

import pytest

from support.answers import LAST_CHUNK, chunk, stream_head
from support.stage import DONE, FINISH, OPENING, Stage, chat, delta
from support.targets import target
from understudy.core.transcript import CallDraft, Transcript
from understudy.dataplane.attempt import RunningAttempt
from understudy.dataplane.speed import characters_a_second, size_bytes, written_by
from understudy.errors import FailureKind


class Reader:
    """Reads every attempt at its end."""

    def __init__(self) -> None:
        self.text = ""
        self.speeds: list[float] = []

    def on_attempt(self, attempt: RunningAttempt, kind: FailureKind | None, now_s: float) -> None:
        transcript = written_by(attempt)
        self.text = transcript.text if transcript is not None else "unknown"
        self.speeds = [characters_a_second(attempt, at_s) for at_s in (now_s, attempt.content_at_s)]


@pytest.fixture
def reader() -> Reader:
    return Reader()


async def test_what_was_written_can_be_read_when_an_attempt_ends(monkeypatch: pytest.MonkeyPatch, reader: Reader) -> None:
    stage = Stage(monkeypatch, target(0))
    stage.relay.gauges = (reader,)
    await stage.ask(chat())
    await stage.pass_time(0.5)
    await stage.say(0, stream_head() + chunk(OPENING + delta("ab")))
    await stage.pass_time(2.0)
    await stage.say(0, chunk(delta("cd") + FINISH + DONE) + LAST_CHUNK)
    assert reader.text == "abcd"
    assert reader.speeds == [pytest.approx(2.0), 0.0]


async def test_what_did_not_come_as_a_stream_is_not_known(monkeypatch: pytest.MonkeyPatch, reader: Reader) -> None:
    stage = Stage(monkeypatch, target(0))
    stage.relay.gauges = (reader,)
    await stage.ask(chat())
    await stage.pass_time(0.5)
    await stage.say(0, b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
    assert (reader.text, reader.speeds) == ("unknown", [0.0, 0.0])


def test_text_reasoning_and_calls_are_written_and_half_a_pair_does_not_matter() -> None:
    transcript = Transcript(texts=["是", "\ud83d"], reasonings=["ab"], calls=[CallDraft(given="{}")])
    assert size_bytes(transcript) == 3 + 3 + 2 + 2
