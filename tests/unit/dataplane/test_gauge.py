"""What a gauge hears of attempts: good streamed answers with how fast they were and beside how many, and nothing else."""

from dataclasses import replace

import pytest

from support.answers import LAST_CHUNK, chunk, stream_head
from support.continuing import broken, llamas, until_asked
from support.stage import DONE, FINISH, OPENING, Stage, chat, delta, request
from support.targets import UP, target
from support.transports import settle
from understudy.core.snapshot import Model, Target
from understudy.core.usual_pace import Measured
from understudy.dataplane.gauge import ENDS_KEPT, Gauge

WORDS = "x" * 150
END = chunk(FINISH + DONE) + LAST_CHUNK
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
REFUSED = WHOLE.replace(b"200 OK", b"400 Bad Request")


class Gauged(Stage):
    """A stage with a gauge; `heard` is what it told, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *pool: Target) -> None:
        super().__init__(monkeypatch, *(pool or (target(0),)))
        self.heard: list[tuple[str, Measured]] = []
        self.gauge = Gauge(lambda name, one: self.heard.append((name, one)))
        self.relay.gauges = (self.gauge,)

    async def answer(self, first_s: float = 0.5, lasted_s: float = 2.0, text: str = WORDS) -> None:
        """Ask, and let gpu0 begin after `first_s` and end after further `lasted_s` seconds."""
        await self.ask(chat())
        await self.pass_time(first_s)
        await self.say(0, stream_head() + chunk(OPENING + delta(text)))
        await self.pass_time(lasted_s)
        await self.say(0, chunk(delta(text)) + END)


async def test_a_good_streamed_answer_tells_how_soon_it_began_and_how_fast_it_was_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Gauged(monkeypatch)
    await stage.answer()
    ((name, one),) = stage.heard
    assert (name, one.model) == ("gpu0", "qwen")
    assert one.prompt_bytes > 20
    assert [one.first_content_s, one.speed] == pytest.approx([0.5, 150.0])
    assert (one.waiting_load, one.writing_load) == (1.0, 1.0)


async def test_what_is_written_counts_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token of Chinese has fewer characters than one of English, and about as many bytes."""
    stage = Gauged(monkeypatch)
    await stage.answer(text="是" * 50)
    assert stage.heard[0][1].speed == pytest.approx(150.0)


@pytest.mark.parametrize(("lasted_s", "text"), [(0.1, WORDS), (2.0, "x")])
async def test_a_short_answer_tells_no_speed(monkeypatch: pytest.MonkeyPatch, lasted_s: float, text: str) -> None:
    stage = Gauged(monkeypatch)
    await stage.answer(lasted_s=lasted_s, text=text)
    assert [stage.heard[0][1].speed, stage.heard[0][1].first_content_s] == pytest.approx([0.0, 0.5])


async def test_a_first_content_that_a_load_came_before_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    unloaded = replace(UP, models=(Model("qwen", is_loaded=False),))
    stage = Gauged(monkeypatch, target(0, unloaded))
    await stage.answer()
    assert [stage.heard[0][1].speed, stage.heard[0][1].first_content_s] == pytest.approx([150.0, 0.0])


async def test_what_ran_beside_an_answer_is_told_for_both_of_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Gauged(monkeypatch)
    await stage.ask(chat())
    first = stage.engine(0)
    await stage.pass_time(1.0)
    first.feed(stream_head() + chunk(OPENING + delta(WORDS)))
    await settle()
    await stage.answer(first_s=0.5, lasted_s=0.5)
    await stage.pass_time(1.0)
    first.feed(chunk(delta(WORDS)) + END)
    await settle()
    second, beside = (one for _, one in stage.heard)
    assert [second.waiting_load, second.writing_load, second.writers] == pytest.approx([2.0, 2.0, 2.0])
    # Of the two seconds in which the first one wrote, the second ran for one, and wrote for half of it.
    assert [beside.waiting_load, beside.writing_load, beside.writers] == pytest.approx([1.0, 1.5, 1.25])
    # While the second wrote nobody waited, while the first did the second waited for half a second.
    assert not second.stalls
    assert [each[0] for each in beside.stalls] == pytest.approx([0.5])
    # The first one's prompt had been taken in when the second came.
    assert not second.ahead
    assert beside.stalls[0][1] == beside.prompt_bytes


async def test_of_those_that_wait_still_one_may_be_having_its_prompt_taken_in(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Gauged(monkeypatch)
    await stage.ask(chat())
    engine = stage.engine(0)
    await stage.pass_time(0.5)
    engine.feed(stream_head() + chunk(OPENING + delta(WORDS)))
    await settle()
    for _ in range(3):
        await stage.ask(chat())
    await stage.pass_time(2.0)
    engine.feed(chunk(delta(WORDS)) + END)
    await settle()
    ((_, one),) = stage.heard
    assert (one.writing_load, one.writers, len(one.stalls)) == (4.0, 1.0, 1)


async def test_prompts_that_were_taken_in_before_its_own_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Gauged(monkeypatch)
    for _ in range(2):
        await stage.ask(chat())
    first, second = (stage.engine(0, nth) for nth in (0, 1))
    for engine in (first, second):
        await stage.pass_time(1.0)
        engine.feed(stream_head() + chunk(OPENING + delta(WORDS)))
        await settle()
    await stage.pass_time(1.0)
    second.feed(chunk(delta(WORDS)) + END)
    await settle()
    ((_, one),) = stage.heard
    assert [each[0] for each in one.ahead] == pytest.approx([1.0])


async def test_how_often_a_backend_is_asked_is_counted_over_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Gauged(monkeypatch)
    for _ in range(30):
        await stage.answer(first_s=0.5, lasted_s=3.5)
    assert stage.heard[-1][1].rate == pytest.approx(0.25, rel=0.1)
    for _ in range(ENDS_KEPT + 20):
        await stage.answer(first_s=0.05, lasted_s=0.05)
    assert stage.heard[-1][1].rate == pytest.approx(10.0, rel=0.1), "more in a minute than are kept"


async def test_pieces_are_counted_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token of one character is as much work as a long one."""
    stage = Gauged(monkeypatch)
    await stage.ask(chat())
    await stage.pass_time(0.5)
    await stage.say(0, stream_head() + chunk(OPENING + delta("7")))
    await stage.pass_time(2.0)
    await stage.say(0, chunk(delta("7") * 29) + END)
    ((_, one),) = stage.heard
    assert [one.speed, one.pieces_s, one.lasted_s] == pytest.approx([15.0, 15.0, 2.0])


async def test_only_a_few_answers_a_second_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Gauged(monkeypatch)
    for _ in range(3):
        await stage.ask(chat())
        stage.clock.now_s += 0.01
        await stage.say(0, stream_head() + chunk(OPENING + delta("ab")) + END)
    assert len(stage.heard) == 1


async def test_a_failure_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Gauged(monkeypatch)
    await stage.ask(chat())
    await stage.pass_time(0.5)
    await stage.say(0, stream_head() + chunk(OPENING + delta("ab")))
    stage.engine(0).lose(ConnectionResetError())
    await settle()
    assert stage.heard == []


async def test_an_answer_that_goes_on_with_anothers_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Gauged(monkeypatch, *llamas(2))
    await broken(stage)
    await until_asked(stage, 1)
    await stage.say(1, stream_head() + chunk(delta(WORDS)) + END)
    assert stage.record.resumed_on == ("gpu1",)
    assert stage.heard == []


@pytest.mark.parametrize("said", [WHOLE, REFUSED, stream_head() + chunk(OPENING) + END])
async def test_what_is_no_stream_of_words_tells_nothing(monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    stage = Gauged(monkeypatch)
    await stage.ask(chat())
    await stage.pass_time(0.5)
    await stage.say(0, said)
    assert stage.heard == []


async def test_what_generates_nothing_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Gauged(monkeypatch)
    await stage.ask(request("GET", "/v1/files"))
    await stage.pass_time(0.5)
    await stage.say(0, WHOLE)
    assert stage.heard == []


async def test_backends_that_are_gone_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Gauged(monkeypatch)
    await stage.answer()
    stage.gauge.retain(())
    assert stage.gauge._ends == {}
    stage.gauge.retain(("gpu0",))
