"""Ask both sides for every prompt, in turns that favour neither, and let the judge have its say afterwards.

Called by cli.compare. Bounded: `--parallel` prompts at once, one side of each after the other; whoever is not there is not asked
for ever. Measures nothing itself (compare_asking) and prints nothing.
"""

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from typing import TypeVar

from understudy.cli.compare_asking import Answer, fetch_answer, fetch_models, opened
from understudy.cli.compare_judge import fetch_judgement
from understudy.cli.compare_pairs import COLORS, Judged, Pair
from understudy.cli.compare_prompts import Entry
from understudy.cli.compare_sides import CannotCompareError, Side
from understudy.core.color import Color

# So often in a row nobody was there, and nobody will be.
UNREACHED_MAX = 3
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
) -> str:
    """Ask both for every entry and hand over the answers as they are there, maybe in another order.

    They are held against what was expected later, because that takes processor time in which other answers would seem slow.
    Returns "", or in words why not all were asked for: one of them was not there `UNREACHED_MAX` times in a row.
    """
    absences = [_Absence(), _Absence()]
    left = len(entries)

    def until_absent() -> Iterator[Entry]:
        nonlocal left
        for entry in entries:
            if any(absence.is_for_good for absence in absences):
                return
            left -= 1
            yield entry

    async with AsyncExitStack() as stack:
        blue, green = [await stack.enter_async_context(opened(side)) for side in sides]

        async def ask_both(entry: Entry) -> None:
            turns = [(0, blue), (1, green)]
            answers: dict[int, Answer] = {}
            # Whoever is asked second finds caches warmer, in the daemon and in an engine that both share.
            for index, client in turns if entry.number % 2 else reversed(turns):
                answers[index] = await fetch_answer(client, sides[index], entry, model, args.timeout)
                absences[index].see(answers[index].error if answers[index].is_unreached else "")
            on_answered((entry, answers[0], answers[1]))

        await _at_once(until_absent(), args.parallel, ask_both)
    gone = [f"{color} {absence.words}" for color, absence in zip(COLORS, absences, strict=True) if absence.is_for_good]
    return " and ".join(gone) if left else ""


async def judge_all(pairs: Sequence[Pair], judge: Side, args: argparse.Namespace, on_judged: Callable[[], None]) -> None:
    """Put the judge's word to every pair of which both answers are whole; a judge that is not there is asked no more."""
    absence = _Absence()
    async with opened(judge) as client:

        async def judge_one(pair: Pair) -> None:
            if absence.is_for_good:
                pair.judged = Judged(Color.NONE, error=absence.error)
            else:
                pair.judged = await fetch_judgement(client, judge, pair, args.timeout)
                if not pair.judged.is_same:
                    absence.see(pair.judged.error if pair.judged.is_unreached else "")
            on_judged()

        await _at_once([pair for pair in pairs if pair.is_whole], args.parallel, judge_one)


class _Absence:
    """How often in a row somebody was not there, and what it was the last time."""

    def __init__(self) -> None:
        self._times = 0
        self.error = ""

    def see(self, error: str) -> None:
        """Count an error with which there was no connection; "" there was one."""
        if not self.is_for_good:
            self._times, self.error = (self._times + 1, error) if error else (0, "")

    @property
    def is_for_good(self) -> bool:
        """Whether it is of no use to try again."""
        return self._times >= UNREACHED_MAX

    @property
    def words(self) -> str:
        """What happened."""
        return f"{self.error} {self._times} times in a row"


async def _at_once(things: Iterable[_T], count: int, work: Callable[[_T], Awaitable[None]]) -> None:
    """Do `work` for each of `things`, `count` at once."""
    left = iter(things)

    async def take_turns() -> None:
        for thing in left:
            await work(thing)

    async with asyncio.TaskGroup() as tasks:
        for number in range(count):
            tasks.create_task(take_turns(), name=f"compare.{number}")
