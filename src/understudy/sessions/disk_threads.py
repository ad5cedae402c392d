"""Run blocking jobs in a few threads of their own, so that the event loop never waits for a disk.

Called by sessions.file_store only. A disk that never answers (a dead NFS server) holds the threads, not the daemon: they are
daemon threads, which the end of the process does not wait for, as it would for those of concurrent.futures. Knows nothing of what
the jobs are about.
"""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final, TypeVar

from understudy.sessions.store import Loss, StoreError

THREADS_MAX: Final = 8
# More than this wait only when the disk has stopped answering.
WAITING_MAX: Final = 1024

T = TypeVar("T")


class _Errand:
    """One job and whoever waits for it. `undo` takes back a result that nobody was there to receive."""

    __slots__ = ("future", "job", "loop", "undo")

    def __init__(self, job: Callable[[], Any], undo: Callable[[Any], None] | None, loop: asyncio.AbstractEventLoop) -> None:
        self.job = job
        self.undo = undo
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()


class DiskThreads:
    """At most `threads_max` threads, begun when they are needed."""

    def __init__(self, name: str, threads_max: int = THREADS_MAX, waiting_max: int = WAITING_MAX) -> None:
        self._name = name
        self._threads_max = threads_max
        self._waiting_max = waiting_max
        # Guarded by the condition's lock.
        self._change = threading.Condition()
        self._waiting: deque[_Errand] = deque()
        self._threads = 0
        # Threads that will take the next job, those among them that have only been begun.
        self._free = 0
        self._is_closed = False
        self._on_last_end: Callable[[], object] | None = None

    async def run(self, job: Callable[[], T], undo: Callable[[T], None] | None = None) -> T:
        """Return what `job` returns, or raise what it raises.

        Cancelled, a job that waits is dropped; one that runs goes on to its end, and what it returns is given to `undo`, in a
        thread. Raises StoreError where too many wait or `close` was called.
        """
        with self._change:
            if self._is_closed:
                raise StoreError(Loss.UNAVAILABLE, "the store is closed")
            if len(self._waiting) >= self._waiting_max:
                raise StoreError(Loss.SLOW, f"{len(self._waiting)} operations wait for the disk")
        errand = _Errand(job, undo, asyncio.get_running_loop())
        try:
            self._add(errand)
            result: T = await errand.future
        except (asyncio.CancelledError, StoreError):
            self._leave(errand)
            raise
        return result

    async def finish(self, job: Callable[[], None]) -> None:
        """Run a job that must not be dropped, whoever is cancelled, however many wait, and after `close`, too."""
        errand = _Errand(job, None, asyncio.get_running_loop())
        with contextlib.suppress(StoreError):
            # Without a thread now, the next one that begins takes it.
            self._add(errand)
        await errand.future

    async def close(self, wait_s: float = 2.0) -> None:
        """Take no more jobs, and wait at most `wait_s` for those that run or wait. Threads that are stuck are left behind."""
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        with self._change:
            self._is_closed = True
            self._on_last_end = lambda: loop.call_soon_threadsafe(over.set)
            self._change.notify_all()
            if not self._threads:
                return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await over.wait()

    def _add(self, errand: _Errand) -> None:
        with self._change:
            self._waiting.append(errand)
            if self._free >= len(self._waiting) or self._threads >= self._threads_max:
                self._change.notify()
                return
            self._threads += 1
            self._free += 1
            name = f"{self._name}-{self._threads}"
        try:
            threading.Thread(target=self._work, name=name, daemon=True).start()
        except RuntimeError as error:
            with self._change:
                self._threads -= 1
                self._free -= 1
                if self._threads:
                    return
            raise StoreError(Loss.UNAVAILABLE, "the system gives no thread") from error

    def _leave(self, errand: _Errand) -> None:
        """Forget an errand that nobody waits for any more."""
        with self._change, contextlib.suppress(ValueError):
            self._waiting.remove(errand)
            return
        # The result may have come in the same turn of the loop in which its receiver was cancelled.
        future = errand.future
        if future.done() and not future.cancelled() and future.exception() is None:
            self._take_back(errand, future.result())

    def _take_back(self, errand: _Errand, result: Any) -> None:
        undo = errand.undo
        if undo is not None:
            with contextlib.suppress(StoreError):
                self._add(_Errand(lambda: undo(result), None, errand.loop))

    def _work(self) -> None:
        while (errand := self._next()) is not None:
            result, error = None, None
            try:
                result = errand.job()
            except Exception as raised:  # noqa: BLE001  it is raised where the job is waited for
                error = raised
            with self._change:
                # Before the caller hears of it, or his next job would begin another thread.
                self._free += 1
            try:
                errand.loop.call_soon_threadsafe(self._deliver, errand, result, error)
            except RuntimeError:
                # The loop has been closed meanwhile.
                if error is None and errand.undo is not None:
                    errand.undo(result)
            # A thread that waits for its next job must not keep the last one's content.
            del errand, result, error

    def _next(self) -> _Errand | None:
        with self._change:
            while not self._waiting and not self._is_closed:
                self._change.wait()
            self._free -= 1
            if self._waiting:
                return self._waiting.popleft()
            self._threads -= 1
            if not self._threads and self._on_last_end is not None:
                with contextlib.suppress(RuntimeError):
                    self._on_last_end()
            return None

    def _deliver(self, errand: _Errand, result: Any, error: Exception | None) -> None:
        if errand.future.cancelled():
            if error is None:
                self._take_back(errand, result)
        elif error is not None:
            errand.future.set_exception(error)
        else:
            errand.future.set_result(result)
