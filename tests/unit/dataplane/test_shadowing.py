"""Which exchanges are handed over for a shadow, when, and with what."""

import pytest

from support.answers import LAST_CHUNK, chunk, stream_head
from support.color_stage import ColorStage
from support.stage import DONE, FINISH, OPENING, chat, delta, request
from support.transports import settle
from understudy.core.ask import DialectName
from understudy.core.color import Color
from understudy.core.rollout import Rollout
from understudy.core.shadowing import ShadowAsk
from understudy.dataplane.shadowing import Shadowing


class Run:
    """A shadow that keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def on_client_done(self, text: str | None, ttft_s: float, duration_s: float) -> None:
        self.heard.append((text, round(ttft_s, 3), round(duration_s, 3)))

    def on_client_left(self) -> None:
        self.heard.append("left")


class Taker:
    """Takes every shadow, or none."""

    def __init__(self, *, takes: bool = True) -> None:
        self.asked: list[ShadowAsk] = []
        self.runs: list[Run] = []
        self._takes = takes

    def begin(self, asked: ShadowAsk) -> Run | None:
        self.asked.append(asked)
        if not self._takes:
            return None
        self.runs.append(Run())
        return self.runs[-1]


def staged(monkeypatch: pytest.MonkeyPatch, taker: Taker, share: float = 1.0) -> ColorStage:
    stage = ColorStage(monkeypatch, shadow=share)
    stage.relay.shadowing = Shadowing(stage.published, taker, stage.report)
    return stage


async def test_it_begins_with_the_clients_first_content_and_hears_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    taker = Taker()
    stage = staged(monkeypatch, taker)
    await stage.ask(chat("X-Request-ID: r1", "Authorization: Bearer k", "Cookie: c=1"))
    await stage.pass_time(0.5)
    await stage.say(0, stream_head() + chunk(OPENING))
    assert not taker.asked
    await stage.say(0, chunk(delta("Hel")))
    [asked] = taker.asked
    assert (asked.color, asked.path, asked.model, asked.dialect) == (
        Color.GREEN,
        "/v1/chat/completions",
        "qwen",
        DialectName.OPENAI,
    )
    assert asked.body in stage.engine(0).data
    assert dict(asked.fields) == {b"authorization": b"Bearer k"}
    assert (asked.is_streaming, asked.request_id) == (True, b"r1")
    await stage.pass_time(1.0)
    await stage.say(0, chunk(delta("lo") + FINISH + DONE) + LAST_CHUNK)
    assert taker.runs[0].heard == [("Hello", 0.5, 1.5)]
    assert len(taker.asked) == 1


async def test_a_client_that_leaves_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    taker = Taker()
    stage = staged(monkeypatch, taker)
    client = await stage.ask(chat())
    await stage.say(0, stream_head() + chunk(OPENING + delta("Hel")))
    client.lose(ConnectionResetError())
    await settle()
    assert taker.runs[0].heard == ["left"]


async def test_what_is_not_taken_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    taker = Taker(takes=False)
    stage = staged(monkeypatch, taker)
    number, client = await stage.answered_by(chat())
    assert (number, len(taker.asked)) == (0, 1)
    assert b"data: [DONE]" in client.data
    assert stage.records[-1].failure is None


@pytest.mark.parametrize("share", [0.0, 0.3])
async def test_only_the_files_share_has_one(monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    taker = Taker()
    stage = staged(monkeypatch, taker, share)
    for _ in range(100):
        await stage.answered_by(chat())
    assert (len(taker.asked) > 0) == (share > 0)
    assert len(taker.asked) < 60


async def test_what_is_no_text_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    taker = Taker()
    stage = staged(monkeypatch, taker)
    await stage.ask(request("POST", "/v1/embeddings", b'{"model":"qwen","input":"x"}'))
    await stage.say(0, b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n" + b'{"data":[]}')
    await stage.ask(request("GET", "/v1/files"))
    assert not taker.asked


async def test_what_the_active_color_is_spared_and_who_tries_a_color_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    taker = Taker()
    stage = staged(monkeypatch, taker)
    await stage.answered_by(chat("X-Session-ID: a"))
    await stage.answered_by(chat("X-Understudy-Color: blue"))
    assert len(taker.asked) == 1
    stage.roll(Rollout(active=Color.GREEN, changed_at_unix_s=stage.unix_s))
    assert (await stage.answered_by(chat("X-Session-ID: a")))[0] == 0
    assert len(taker.asked) == 1


async def test_a_mistake_of_ours_costs_the_shadow_and_not_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Taker):
        def begin(self, asked: ShadowAsk) -> Run | None:
            raise RuntimeError("ours")

    class BrokenRun(Run):
        def on_client_done(self, text: str | None, ttft_s: float, duration_s: float) -> None:
            raise RuntimeError("ours, too")

    stage = staged(monkeypatch, Broken())
    _, client = await stage.answered_by(chat())
    assert b"data: [DONE]" in client.data
    taker = Taker()
    monkeypatch.setattr(taker, "begin", lambda _asked: BrokenRun())
    stage.relay.shadowing = Shadowing(stage.published, taker, stage.report)
    _, client = await stage.answered_by(chat())
    assert b"data: [DONE]" in client.data
    assert [str(error) for error in stage.errors] == ["ours", "ours, too"]
    assert len(stage.records) == 2
