"""Finished exchanges are told together, in order, and none is lost."""

import asyncio
from collections.abc import Sequence

from understudy.core.ask import Ask
from understudy.core.record import ExchangeRecord
from understudy.telemetry.ledger import RECORDS_MAX, Ledger


class Play:
    """A ledger with a clock of whole seconds, and what it told."""

    def __init__(self) -> None:
        self.told: list[list[str]] = []
        self.now_s = 100.0
        self.is_told = asyncio.Event()
        self.ledger = Ledger(self._tell_all, self._tick)

    def _tick(self) -> float:
        self.now_s += 1.0
        return self.now_s

    def _tell_all(self, records: Sequence[ExchangeRecord]) -> None:
        self.told.append([f"{record.request_id}@{record.finished_unix_s:g}" for record in records])
        self.is_told.set()

    def add(self, *names: str) -> None:
        """Let exchanges finish."""
        for name in names:
            self.ledger.add(ExchangeRecord(Ask(), name, "POST", "/v1/chat/completions", 1))


async def test_what_finishes_within_a_moment_is_told_together_with_its_own_time() -> None:
    play = Play()
    play.add("a", "b")
    assert play.told == []
    await play.is_told.wait()
    assert play.told == [["a@101", "b@102"]]


async def test_many_are_told_at_once() -> None:
    play = Play()
    play.add(*(str(n) for n in range(RECORDS_MAX + 1)))
    assert [len(told) for told in play.told] == [RECORDS_MAX]
    play.ledger.flush()
    assert [len(told) for told in play.told] == [RECORDS_MAX, 1]


async def test_flushing_tells_at_once_and_only_once() -> None:
    play = Play()
    play.add("a")
    play.ledger.flush()
    play.ledger.flush()
    assert play.told == [["a@101"]]
