"""Who is asked when: both sides in turns, no more at once than was said, and the model that both have."""

import argparse
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from support.answers import whole
from support.scripted import ScriptedEngine
from support.steps import Gate, answer, hold
from understudy.cli.compare_asking import Answer
from understudy.cli.compare_pairs import Judged, Pair
from understudy.cli.compare_prompts import Entry
from understudy.cli.compare_run import Answered, ask_all, judge_all, pick_model
from understudy.cli.compare_sides import CannotCompareError, Side
from understudy.core.color import Color

ENTRIES = [Entry(number, number, [{"role": "user", "content": "?"}]) for number in range(1, 5)]


def options(parallel: int = 1) -> argparse.Namespace:
    return argparse.Namespace(parallel=parallel, timeout=10.0)


@contextmanager
def two_engines(*models: tuple[str, ...]) -> Iterator[tuple[ScriptedEngine, ScriptedEngine]]:
    lists = models or (("tiny",), ("tiny",))
    with ScriptedEngine("gpu0", models=lists[0]) as blue, ScriptedEngine("gpu1", models=lists[1]) as green:
        yield blue, green


def sides(blue: ScriptedEngine, green: ScriptedEngine) -> tuple[Side, Side]:
    return Side(blue.name, blue.url), Side(green.name, green.url)


async def test_blue_and_green_take_turns_in_going_first() -> None:
    with ScriptedEngine() as engine:
        answered: list[Answered] = []
        both = (Side("a", engine.url, model="blue"), Side("b", engine.url, model="green"))
        await ask_all(ENTRIES, both, "", options(), answered.append)
        assert [request.json()["model"][0] for request in engine.seen.requests] == list("bggbbggb")
        assert [entry.number for entry, _, _ in answered] == [1, 2, 3, 4]


async def test_no_more_prompts_run_at_once_than_was_said() -> None:
    """1 and 3 begin with blue, 2 with green; the fourth must wait until one of them is over."""
    gate = Gate()
    with two_engines() as (blue, green):
        held = answer(hold(gate), *whole(500).steps)
        blue.always(held)
        green.always(held)
        begun: list[int] = []

        def open_when_three_run() -> None:
            blue.wait_requests(2)
            green.wait_requests(1)
            begun.append(len(blue.seen.requests) + len(green.seen.requests))
            gate.open()

        opener = threading.Thread(target=open_when_three_run)
        opener.start()
        answered: list[Answered] = []
        await ask_all(ENTRIES, sides(blue, green), "tiny", options(parallel=3), answered.append)
        opener.join()
        assert begun == [3]
        assert sorted(entry.number for entry, _, _ in answered) == [1, 2, 3, 4]


@pytest.mark.parametrize(("lists", "picked"), [((("a", "b"), ("b", "a")), "a"), ((("a", "b"), ("b", "c")), "b")])
async def test_the_first_model_that_both_list_is_asked_for(lists: tuple[tuple[str, ...], ...], picked: str) -> None:
    with two_engines(*lists) as (blue, green):
        assert await pick_model(ENTRIES, sides(blue, green), "", 5.0) == picked


async def test_no_list_is_asked_for_where_none_is_needed() -> None:
    nobody = (Side("a", "http://127.0.0.1:1"), Side("b", "http://127.0.0.1:1"))
    assert await pick_model(ENTRIES, nobody, "given", 5.0) == "given"
    assert await pick_model([Entry(1, 1, [], model="own")], nobody, "", 5.0) == ""
    named = (Side("a", "http://127.0.0.1:1", model="x"), Side("b", "http://127.0.0.1:1", model="y"))
    assert await pick_model(ENTRIES, named, "", 5.0) == ""


async def test_lists_with_nothing_in_common_or_none_at_all_are_told() -> None:
    with two_engines(("a",), ("b",)) as (blue, green):
        with pytest.raises(CannotCompareError, match="no model that both list; want --model"):
            await pick_model(ENTRIES, sides(blue, green), "", 5.0)
        green.refuse()
        with pytest.raises(CannotCompareError, match="gpu1 refused the connection; want --model"):
            await pick_model(ENTRIES, sides(blue, green), "", 5.0)


async def test_only_whole_pairs_are_judged() -> None:
    with ScriptedEngine(say="FIRST") as engine:
        whole_pair, broken = Pair(ENTRIES[0], Answer("a"), Answer("b")), Pair(ENTRIES[1], Answer("a"), Answer(error="lost"))
        judged: list[None] = []
        await judge_all([whole_pair, broken], Side("judge", engine.url, model="m"), options(), lambda: judged.append(None))
        assert len(judged) == 1
        assert broken.judged is None
        assert whole_pair.judged is not None
        assert (whole_pair.judged.better, whole_pair.judged.is_swayed) == (Color.NONE, True)
        assert len(engine.seen.requests) == 2


async def test_whoever_is_not_there_three_times_in_a_row_is_not_asked_for_ever() -> None:
    with two_engines() as (blue, green):
        green.refuse()
        answered: list[Answered] = []
        told = await ask_all(ENTRIES, sides(blue, green), "tiny", options(), answered.append)
        assert told == "green refused the connection 3 times in a row"
        assert [entry.number for entry, _, _ in answered] == [1, 2, 3]
        assert len(blue.seen.requests) == 3


async def test_of_three_prompts_all_are_asked_whoever_is_there() -> None:
    with two_engines() as (blue, green):
        green.refuse()
        answered: list[Answered] = []
        assert await ask_all(ENTRIES[:3], sides(blue, green), "tiny", options(), answered.append) == ""
        assert len(answered) == 3


async def test_an_answer_of_any_kind_shows_that_it_is_there() -> None:
    with two_engines() as (blue, green):
        answered: list[Answered] = []
        green.refuse()

        def come_back(each: Answered) -> None:
            answered.append(each)
            if len(answered) == 2:
                green.listen()
                green.always(whole(500))

        assert await ask_all(ENTRIES, sides(blue, green), "tiny", options(), come_back) == ""
        assert [green_answer.is_unreached for _, _, green_answer in answered] == [True, True, False, False]


async def test_a_judge_that_is_not_there_is_asked_no_more() -> None:
    with ScriptedEngine() as engine:
        engine.refuse()
        pairs = [Pair(entry, Answer("a"), Answer("b")) for entry in (*ENTRIES, *ENTRIES)]
        done: list[None] = []
        await judge_all(pairs, Side("judge", engine.url, model="m"), options(), lambda: done.append(None))
        assert len(done) == 8
        assert [pair.judged for pair in pairs[3:]] == [Judged(Color.NONE, error="refused the connection")] * 5
