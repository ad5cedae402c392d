"""Ask both sides for every prompt, in turns that favour neither, and let the judge have its say afterwards.

Called by cli.compare. Bounded: `--parallel` prompts at once, one side of each after the other. Measures nothing itself
(compare_asking) and prints nothing.
"""

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from typing import TypeVar

from understudy.cli.compare_asking import Answer, fetch_answer, fetch_models, opened
from understudy.cli.compare_judge import fetch_judgement
from understudy.cli.compare_pairs import Pair
from understudy.cli.compare_prompts import Entry
from understudy.cli.compare_sides import CannotCompareError, Side

_MODELS_S_MAX = 10.0
_T = TypeVar("_T")

Answered = tuple[Entry, Answer, Answer]
"""A prompt with blue's answer and green's."""


async def pick_model(entries: Iterable[Entry], sides: tuple[Side, Side], given: str, timeout_s: float) -> str:
    """Return the model for prompts that name none: `given`, else the first that both sides list; "" where all name one.

    Raises CannotCompareError when a list is needed and not to be had, or has nothing in common with the other.
    """
    unnamed = [side for side in sides if not side.model]
    if given or not unnamed or all(entry.model for entry in entries):
        return given
    lists: list[list[str]] = []
    for side in unnamed:
        async with opened(side) as client:
            found = await fetch_models(client, side, min(timeout_s, _MODELS_S_MAX))
        if isinstance(found, str):
            raise CannotCompareError(f"{side.title} {found}; want --model for the prompts that name none")
        lists.append(found)
    common = [name for name in lists[0] if all(name in other for other in lists[1:])]
    if not common:
        raise CannotCompareError("found no model that both list; want --model, or --blue-model and --green-model")
    return common[0]


async def ask_all(
    entries: Sequence[Entry],
    sides: tuple[Side, Side],
    model: str,
    args: argparse.Namespace,
    on_answered: Callable[[Answered], None],
) -> None:
    """Ask both for every entry and hand over the answers as they are there, maybe in another order.

    They are held against what was expected later, because that takes processor time in which other answers would seem slow.
    """
    async with AsyncExitStack() as stack:
        blue, green = [await stack.enter_async_context(opened(side)) for side in sides]

        async def ask_both(entry: Entry) -> None:
            turns = [(0, blue), (1, green)]
            answers: dict[int, Answer] = {}
            # Whoever is asked second finds caches warmer, in the daemon and in an engine that both share.
            for index, client in turns if entry.number % 2 else reversed(turns):
                answers[index] = await fetch_answer(client, sides[index], entry, model, args.timeout)
            on_answered((entry, answers[0], answers[1]))

        await _at_once(entries, args.parallel, ask_both)


async def judge_all(pairs: Sequence[Pair], judge: Side, args: argparse.Namespace) -> None:
    """Put the judge's word to every pair of which both answers are whole."""
    async with opened(judge) as client:

        async def judge_one(pair: Pair) -> None:
            pair.judged = await fetch_judgement(client, judge, pair, args.timeout)

        await _at_once([pair for pair in pairs if pair.is_whole], args.parallel, judge_one)


async def _at_once(things: Iterable[_T], count: int, work: Callable[[_T], Awaitable[None]]) -> None:
    """Do `work` for each of `things`, `count` at once."""
    left = iter(things)

    async def take_turns() -> None:
        for thing in left:
            await work(thing)

    async with asyncio.TaskGroup() as tasks:
        for number in range(count):
            tasks.create_task(take_turns(), name=f"compare.{number}")
