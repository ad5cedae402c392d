"""What the guard gets to see of attempts: answers, failures, how fast; nothing of what says nothing."""

from dataclasses import replace

import pytest

from support.answers import LAST_CHUNK, chunk, stream_head
from support.color_stage import ANSWER, ColorStage, colored
from support.stage import DONE, FINISH, OPENING, chat, delta, request
from support.transports import settle
from understudy.core.color import Color
from understudy.core.comparison import Comparison, Samples
from understudy.core.rollout import Rollout
from understudy.core.snapshot import HealthRules
from understudy.dataplane.witness import Witness

WINDOW_S = 300.0
NOT_FOUND = b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
BUSY = b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


class Watched(ColorStage):
    """A stage with a witness."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(monkeypatch)
        self.comparison = Comparison()
        self.relay.witness = Witness(self.comparison)

    def seen(self, color: Color) -> Samples:
        return self.comparison.samples(color, WINDOW_S, self.clock())


async def test_an_answer_counts_with_how_fast_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Watched(monkeypatch)
    await stage.ask(chat())
    await stage.pass_time(0.5)
    await stage.say(0, stream_head() + chunk(OPENING + delta("ab")))
    await stage.pass_time(2.0)
    await stage.say(0, chunk(delta("cd") + FINISH + DONE) + LAST_CHUNK)
    seen = stage.seen(Color.BLUE)
    assert (seen.total, seen.failed) == (1, 0)
    assert seen.ttfts == pytest.approx((0.5,))
    assert seen.speeds == pytest.approx((2.0,))
    assert stage.seen(Color.GREEN).total == 0


async def test_a_failure_counts_though_the_client_is_answered_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Watched(monkeypatch)
    await stage.ask(chat())
    stage.engine(0).lose(ConnectionResetError())
    await settle()
    await stage.say(1, ANSWER)
    assert stage.seen(Color.BLUE).failed == stage.seen(Color.BLUE).total == 1
    assert (stage.seen(Color.GREEN).failed, stage.seen(Color.GREEN).total) == (0, 1)


@pytest.mark.parametrize("answer", [NOT_FOUND, BUSY])
async def test_being_sent_away_counts_as_a_failure(monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    stage = Watched(monkeypatch)
    await stage.ask(chat())
    await stage.say(0, answer)
    assert (stage.seen(Color.BLUE).failed, stage.seen(Color.BLUE).total) == (1, 1)


async def test_an_answer_without_a_word_counts_as_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Watched(monkeypatch)
    await stage.ask(chat())
    await stage.say(0, stream_head() + chunk(OPENING + FINISH + DONE) + LAST_CHUNK)
    assert (stage.seen(Color.BLUE).failed, stage.seen(Color.BLUE).total) == (1, 1)


async def test_a_client_that_leaves_says_nothing_of_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Watched(monkeypatch)
    client = await stage.ask(chat())
    client.lose(ConnectionResetError())
    await settle()
    assert stage.seen(Color.BLUE).total == 0


async def test_what_generates_nothing_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Watched(monkeypatch)
    await stage.ask(request("GET", "/v1/files"))
    await stage.say(0, NOT_FOUND)
    assert stage.seen(Color.BLUE).total == 0


async def test_a_backend_of_no_color_counts_for_the_exchanges(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Watched(monkeypatch)
    current = stage.published.current
    nobodys = colored(0, Color.NONE)
    plan = replace(current.plan, backends=(nobodys.backend,))
    stage.published.current = replace(current, plan=plan, targets=(nobodys,), rollout=Rollout(active=Color.GREEN))
    await stage.ask(chat())
    await stage.say(0, ANSWER)
    assert stage.seen(Color.GREEN).total == 1


async def test_what_was_asked_of_one_color_on_purpose_is_no_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else anybody could have a canary rolled back, or carried on."""
    stage = Watched(monkeypatch)
    await stage.ask(chat("X-Understudy-Color: green"))
    await stage.say(1, NOT_FOUND)
    await stage.ask(chat("X-Understudy-Color: green"))
    await stage.say(1, ANSWER)
    assert stage.seen(Color.GREEN).total == 0


async def test_a_client_that_waited_in_vain_tells_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Watched(monkeypatch)
    client = await stage.ask(chat())
    await stage.pass_time(5.0)
    client.lose(ConnectionResetError())
    await settle()
    assert stage.seen(Color.BLUE).ttfts == pytest.approx((5.0,))


async def test_only_a_few_answers_a_second_are_read_for_their_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Watched(monkeypatch)
    for _ in range(3):
        await stage.ask(chat())
        await stage.say(0, stream_head() + chunk(OPENING + delta("ab")))
        stage.clock.now_s += 0.01
        await stage.say(0, chunk(FINISH + DONE) + LAST_CHUNK)
    seen = stage.seen(Color.BLUE)
    assert (seen.total, len(seen.speeds)) == (3, 1)


async def test_what_a_color_is_not_even_tried_for_counts_as_its_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else one that is ejected or down would never be found worse."""
    stage = Watched(monkeypatch)
    while not stage.tally.fail("gpu0", HealthRules(), stage.clock(), has_alternative=True):
        pass
    await stage.ask(chat())
    await stage.say(1, ANSWER)
    assert (stage.seen(Color.BLUE).failed, stage.seen(Color.BLUE).total) == (1, 1)
    assert (stage.seen(Color.GREEN).failed, stage.seen(Color.GREEN).total) == (0, 1)
