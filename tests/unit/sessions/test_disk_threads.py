"""A disk that hangs holds threads, never the loop, the daemon's end or a result that nobody takes."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial

import pytest

from understudy.sessions.disk_threads import DiskThreads, _Errand
from understudy.sessions.store import Loss, StoreError


class Stuck:
    """A job that hangs, as on a file server that is gone, until it is let go."""

    def __init__(self) -> None:
        self.has_begun = threading.Event()
        self.may_end = threading.Event()

    def __call__(self) -> str:
        self.has_begun.set()
        assert self.may_end.wait(10)
        return "late"

    async def begun(self) -> None:
        await asyncio.to_thread(self.has_begun.wait, 10)


async def until(is_so: Callable[[], bool]) -> None:
    """Let the loop turn until something is so."""
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110  it happens in a thread that tells nobody
            await asyncio.sleep(0.001)


async def test_a_job_returns_and_raises_where_it_is_awaited() -> None:
    threads = DiskThreads("t")
    assert await threads.run(lambda: threading.current_thread().name) == "t-1"
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0)
    await threads.close()


async def test_one_after_another_needs_one_thread_and_many_at_once_no_more_than_allowed() -> None:
    threads = DiskThreads("t", threads_max=3)
    assert {await threads.run(lambda: threading.current_thread().name) for _ in range(20)} == {"t-1"}
    jobs = [Stuck() for _ in range(5)]
    runs = [asyncio.ensure_future(threads.run(job)) for job in jobs]
    for job in jobs[:3]:
        await job.begun()
    assert [job.has_begun.is_set() for job in jobs] == [True, True, True, False, False]
    for job in jobs:
        job.may_end.set()
    assert await asyncio.gather(*runs) == ["late"] * 5
    await threads.close()


async def test_a_job_that_waits_is_dropped_with_its_caller() -> None:
    threads = DiskThreads("t", threads_max=1, waiting_max=1)
    first, second = Stuck(), Stuck()
    running = asyncio.ensure_future(threads.run(first))
    await first.begun()
    waiting = asyncio.ensure_future(threads.run(second, pytest.fail))
    await asyncio.sleep(0)
    with pytest.raises(StoreError) as caught:
        await threads.run(pytest.fail)
    assert caught.value.loss is Loss.SLOW
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    first.may_end.set()
    assert await running == "late"
    assert await threads.run(lambda: "next") == "next"
    assert not second.has_begun.is_set()
    await threads.close()


async def test_what_a_job_returns_after_its_caller_has_gone_is_taken_back() -> None:
    threads = DiskThreads("t")
    job, undone = Stuck(), list[str]()
    running = asyncio.ensure_future(threads.run(job, undone.append))
    await job.begun()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not undone
    job.may_end.set()
    await until(lambda: undone == ["late"])
    await threads.close()


async def test_a_result_that_comes_in_the_turn_of_the_cancelling_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a future's result and its awaiter's next step there is one turn of the loop."""
    threads = DiskThreads("t")
    add, undone = threads._add, list[str]()

    def add_and_cancel(errand: _Errand) -> None:
        # Its callback comes before that of the task, which awaits the future later.
        errand.future.add_done_callback(lambda _: running.cancel())
        monkeypatch.undo()
        add(errand)

    monkeypatch.setattr(threads, "_add", add_and_cancel)
    running = asyncio.ensure_future(threads.run(lambda: "made", undone.append))
    with pytest.raises(asyncio.CancelledError):
        await running
    await until(lambda: undone == ["made"])
    await threads.close()


async def test_a_failure_after_the_caller_has_gone_is_nobodys() -> None:
    threads = DiskThreads("t")
    job = Stuck()

    def fail() -> str:
        job()
        raise OSError

    running = asyncio.ensure_future(threads.run(fail, lambda _: pytest.fail("undone")))
    await job.begun()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    job.may_end.set()
    await threads.close()


async def test_what_must_be_done_is_done_whoever_is_cancelled_and_after_the_close() -> None:
    threads = DiskThreads("t", threads_max=1, waiting_max=1)
    first, done = Stuck(), list[int]()
    running = asyncio.ensure_future(threads.run(first))
    await first.begun()
    finishing = [asyncio.ensure_future(threads.finish(partial(done.append, index))) for index in range(3)]
    await asyncio.sleep(0)
    finishing[1].cancel()
    first.may_end.set()
    assert await running == "late"
    await asyncio.gather(*finishing, return_exceptions=True)
    assert done == [0, 1, 2]
    await threads.close()
    await threads.finish(lambda: done.append(3))
    assert done == [0, 1, 2, 3]


async def test_a_close_lets_jobs_end_and_takes_no_more() -> None:
    threads = DiskThreads("t")
    job = Stuck()
    running = asyncio.ensure_future(threads.run(job))
    await job.begun()
    closing = asyncio.ensure_future(threads.close(10))
    await asyncio.sleep(0)
    with pytest.raises(StoreError):
        await threads.run(pytest.fail)
    assert not closing.done()
    job.may_end.set()
    assert await running == "late"
    await closing
    await threads.close()


async def test_a_close_does_not_wait_for_what_is_stuck() -> None:
    threads = DiskThreads("t")
    job = Stuck()
    running = asyncio.ensure_future(threads.run(job))
    await job.begun()
    await threads.close(0.01)
    assert not running.done()
    job.may_end.set()
    assert await running == "late"


def test_a_loop_that_has_ended_leaves_nothing_behind() -> None:
    threads, job, undone = DiskThreads("t"), Stuck(), threading.Event()

    async def leave() -> None:
        running = asyncio.ensure_future(threads.run(job, lambda _: undone.set()))
        await job.begun()
        running.cancel()

    asyncio.run(leave())
    job.may_end.set()
    assert undone.wait(10)


def test_the_process_ends_with_threads_that_are_stuck() -> None:
    script = (
        "import asyncio, threading\n"
        "from understudy.sessions.disk_threads import DiskThreads\n"
        "async def main():\n"
        "    threads, begun = DiskThreads('t'), threading.Event()\n"
        "    stuck = asyncio.ensure_future(threads.run(lambda: (begun.set(), threading.Event().wait())))\n"
        "    await asyncio.to_thread(begun.wait)\n"
        "    await threads.close(0.01)\n"
        "    print('ended')\n"
        "asyncio.run(main())\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=30)
    assert (ended.stdout, ended.stderr) == ("ended\n", "")


async def test_a_system_that_gives_no_thread_is_said_and_gotten_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    threads, done = DiskThreads("t"), list[str]()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(StoreError, match="no thread"):
            await threads.run(pytest.fail)
        finishing = asyncio.ensure_future(threads.finish(lambda: done.append("kept")))
        await asyncio.sleep(0)
    assert await threads.run(lambda: "again") == "again"
    await finishing
    assert done == ["kept"]
    await threads.close()
