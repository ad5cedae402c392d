"""In front of a store: sessions one exchange at a time, no store asked that does not answer, counts of it all."""

import asyncio
from contextlib import suppress

import pytest

from support.memory_store import MemoryStore
from support.talk import assistant, kept, user
from understudy.sessions import keeper as keepers
from understudy.sessions.circuit import FAILURES_MAX
from understudy.sessions.keeper import Keeper
from understudy.sessions.store import Conflict, HeldElsewhere, Loss, StoreError

TALK = kept(user("q"), assistant("a"))


class Stage:
    """A keeper before a store in memory, with a clock of its own and what it has told."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.now_s = 0.0
        self.told: list[tuple[str, dict[str, object]]] = []
        self.keeper = Keeper(
            self.store,
            clock=lambda: self.now_s,
            wall=lambda: 1000.0,
            tell=lambda event, fields: self.told.append((event, fields)),
        )

    def events(self) -> list[str]:
        """Return the names of what was told."""
        return [event for event, _ in self.told]


@pytest.fixture
def stage() -> Stage:
    return Stage()


async def test_what_is_kept_is_there_for_the_next_one(stage: Stage) -> None:
    held = await stage.keeper.hold("s", 1.0)
    assert held.conversation is None
    await held.keep(TALK)
    await held.release()
    again = await stage.keeper.hold("s", 1.0)
    assert again.conversation == TALK
    await again.release()
    assert (stage.keeper.kept, stage.keeper.sessions, stage.keeper.held) == (1, 1, 0)


async def test_a_session_is_had_by_one_at_a_time(stage: Stage) -> None:
    held = await stage.keeper.hold("s", 1.0)
    with pytest.raises(HeldElsewhere):
        await stage.keeper.hold("s", 0.001)
    await held.release()
    await (await stage.keeper.hold("s", 0.0)).release()


async def test_to_release_twice_is_to_release(stage: Stage) -> None:
    held = await stage.keeper.hold("s", 1.0)
    await held.release()
    await held.release()
    assert stage.keeper.held == 0


async def test_a_session_that_cannot_be_read_is_let_go(stage: Stage) -> None:
    stage.store.fails["hold"] = StoreError(Loss.UNAVAILABLE, "gone")
    with pytest.raises(StoreError):
        await stage.keeper.hold("s", 1.0)
    assert stage.keeper.held == 0


async def test_a_session_that_another_process_has_is_no_fault_of_the_store(stage: Stage) -> None:
    stage.store.elsewhere.add("s")
    for _ in range(2 * FAILURES_MAX):
        with pytest.raises(HeldElsewhere):
            await stage.keeper.hold("s", 0.0)
    assert (stage.keeper.loss, stage.keeper.held) == (None, 0)


async def test_a_store_that_fails_is_told_once_and_rests(stage: Stage) -> None:
    stage.store.fails["hold"] = StoreError(Loss.UNAVAILABLE, "gone")
    losses = []
    for _ in range(FAILURES_MAX + 2):
        with pytest.raises(StoreError) as caught:
            await stage.keeper.hold("s", 1.0)
        losses.append(caught.value.loss)
    assert losses == [Loss.UNAVAILABLE] * FAILURES_MAX + [Loss.RESTING] * 2
    assert stage.store.asked == ["hold"] * FAILURES_MAX
    assert stage.told == [("store.became_unavailable", {"reason": "unavailable", "detail": "gone"})]
    assert stage.keeper.facts() == {"store": "unavailable", "detail": "gone"}


async def test_a_store_that_comes_back_is_found_and_told_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.store.fails["hold"] = StoreError(Loss.SLOW)
    for _ in range(FAILURES_MAX):
        with suppress(StoreError):
            await stage.keeper.hold("s", 1.0)
    monkeypatch.setattr(keepers, "LOOK_S", 0.0)
    running = asyncio.ensure_future(stage.keeper.run())
    await asyncio.sleep(0.01)
    assert stage.store.asked == ["hold"] * FAILURES_MAX, "it rests"
    stage.now_s = 60.0
    await asyncio.sleep(0.01)
    assert stage.store.asked == ["hold"] * (FAILURES_MAX + 1), "it is tried"
    assert stage.keeper.facts() == {"store": "slow", "detail": ""}
    stage.store.fails.clear()
    stage.now_s = 120.0
    await asyncio.sleep(0.01)
    running.cancel()
    await (await stage.keeper.hold("s", 1.0)).release()
    assert stage.events() == ["store.became_unavailable", "store.recovered"]
    assert stage.store.holders == []


async def test_a_store_that_has_room_again_is_found_without_anybody_asking(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    held = await stage.keeper.hold("s", 1.0)
    stage.store.fails["keep"] = StoreError(Loss.FULL)
    with pytest.raises(StoreError):
        await held.keep(TALK)
    await held.release()
    monkeypatch.setattr(keepers, "LOOK_S", 0.0)
    stage.store.foreseen = Loss.FULL
    running = asyncio.ensure_future(stage.keeper.run())
    stage.now_s = 60.0
    await asyncio.sleep(0.01)
    assert stage.keeper.loss is Loss.FULL
    stage.store.foreseen = None
    stage.now_s = 120.0
    await asyncio.sleep(0.01)
    running.cancel()
    assert stage.keeper.facts() == {"store": "up"}
    assert stage.store.holders == []


async def test_another_ttl_is_swept_by_at_once(stage: Stage) -> None:
    running = asyncio.ensure_future(stage.keeper.run())
    await asyncio.sleep(0.01)
    stage.keeper.set_ttl(5.0)
    await asyncio.sleep(0.01)
    running.cancel()
    assert stage.store.asked == ["sweep", "sweep"]
    assert stage.store.ttl_s == 5.0


async def test_a_full_store_is_full_until_something_is_written(stage: Stage) -> None:
    held = await stage.keeper.hold("s", 1.0)
    stage.store.fails["keep"] = StoreError(Loss.FULL)
    with pytest.raises(StoreError):
        await held.keep(TALK)
    assert await stage.keeper.show("s") is None
    assert stage.keeper.loss is Loss.FULL
    del stage.store.fails["keep"]
    await held.keep(TALK)
    assert stage.keeper.loss is None
    assert stage.events() == ["store.became_unavailable", "store.recovered"]


async def test_a_store_that_answers_and_does_not_write_rests_from_writing_alone(stage: Stage) -> None:
    stage.store.fails["keep"] = StoreError(Loss.SLOW)
    losses = []
    for _ in range(FAILURES_MAX + 2):
        held = await stage.keeper.hold("s", 1.0)
        with pytest.raises(StoreError) as caught:
            await held.keep(TALK)
        losses.append(caught.value.loss)
        await held.release()
    assert losses == [Loss.SLOW] * FAILURES_MAX + [Loss.RESTING] * 2
    assert stage.events() == ["store.became_unavailable"], "to be able to read says nothing of writing"
    stage.now_s = 60.0
    stage.store.fails.clear()
    held = await stage.keeper.hold("s", 1.0)
    await held.keep(TALK)
    assert stage.events() == ["store.became_unavailable", "store.recovered"]


async def test_what_concerns_one_session_says_nothing_of_the_store(stage: Stage) -> None:
    held = await stage.keeper.hold("s", 1.0)
    with pytest.raises(Conflict):
        await held.keep(kept(user("q"), revision=7))
    assert (stage.keeper.loss, stage.keeper.kept) == (None, 0)


async def test_a_store_that_hangs_is_slow(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keepers, "ANSWER_S_MAX", 0.001)
    stage.store.gate = asyncio.Event()
    with pytest.raises(StoreError) as caught:
        await stage.keeper.hold("s", 0.0)
    assert caught.value.loss is Loss.SLOW
    assert stage.keeper.held == 0


async def test_one_who_gives_up_waiting_leaves_nothing_behind(stage: Stage) -> None:
    stage.store.gate = asyncio.Event()
    waiting = asyncio.ensure_future(stage.keeper.hold("s", 1.0))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (stage.keeper.held, stage.keeper.loss) == (0, None)


async def test_a_sweep_counts_and_goes_on_after_a_failure(stage: Stage) -> None:
    stage.store.kept = {"a": TALK, "b": TALK}
    stage.store.fails["sweep"] = StoreError(Loss.UNAVAILABLE)
    stage.keeper.set_ttl(0.0)
    running = asyncio.ensure_future(stage.keeper.run())
    await asyncio.sleep(0.01)
    assert stage.keeper.swept is None
    running.cancel()
    stage.store.fails.clear()
    running = asyncio.ensure_future(stage.keeper.run())
    await asyncio.sleep(0.01)
    running.cancel()
    assert stage.keeper.sessions == 2
    assert stage.events()[-1] == "session.swept"


async def test_purge_goes_through_every_page(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keepers, "PAGE_MAX", 2)
    old = kept(user("q"))
    new = kept(user("q"))
    new = type(new)(messages=new.messages, changed_at_unix_s=990.0)
    stage.store.kept = {f"old{number}": old for number in range(5)} | {"new": new}
    assert await stage.keeper.purge(60.0) == 5
    assert list(stage.store.kept) == ["new"]
    assert await stage.keeper.purge(0) == 1


async def test_an_import_takes_the_place_of_what_is_there(stage: Stage) -> None:
    stage.store.kept["s"] = kept(user("old"), revision=7)
    await stage.keeper.put("s", kept(user("new"), revision=3))
    assert stage.store.kept["s"].messages == (user("new"),)
    assert (stage.store.kept["s"].revision, stage.store.kept["s"].changed_at_unix_s) == (8, 1000.0)
    await stage.keeper.put("t", kept(user("new"), revision=3))
    assert stage.store.kept["t"].revision == 1
    assert stage.store.holders == []


async def test_deleting_counts(stage: Stage) -> None:
    await stage.keeper.put("s", TALK)
    assert [await stage.keeper.delete("s"), await stage.keeper.delete("s")] == [True, False]
    assert stage.keeper.sessions == 0


async def test_it_opens_and_closes_the_store(stage: Stage) -> None:
    await stage.keeper.open()
    assert stage.store.is_open
    await stage.keeper.close()
    assert not stage.store.is_open
