"""A TCP relay before a real engine that kills the connection of an answer after so many events, as the engine's death would.

Bytes pass as they come; only whole events are counted. The engine itself lives on, so one server serves every cut of a play.
"""

import asyncio
import contextlib
import threading
from collections import deque
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from support.steps import abort_with_reset

CALL_TIMEOUT_S = 10.0
HEAD_END = b"\r\n\r\n"


class CuttingRelay:
    """Passes connections on to `port`. Use as a context manager; each `cut(...)` holds for one answer that is a stream."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self._target = port
        self._cuts: deque[_Cut] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"relay.{name}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(CALL_TIMEOUT_S)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(CALL_TIMEOUT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_TIMEOUT_S)
        self._loop.close()

    def cut(self, after_events: int, *, extra_bytes: int = 0, how: str = "reset") -> None:
        """Cut the next streamed answer after so many events and `extra_bytes` of what follows; `how`: reset, close or silence."""
        self._cuts.append(_Cut(after_events, extra_bytes, how))

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def _stop(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        up_writer: asyncio.StreamWriter | None = None
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target)
            async with asyncio.TaskGroup() as group:
                group.create_task(_pass_on(reader, up_writer))
                group.create_task(self._answer(up_reader, writer))
        except* (OSError, asyncio.IncompleteReadError, _EndError):
            pass
        finally:
            self._tasks.discard(task)
            for side in (writer, up_writer):
                if side is not None:
                    side.close()
                    with contextlib.suppress(OSError, asyncio.CancelledError):
                        await side.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen, passed = b"", 0
        while data := await reader.read(65536):
            if data.startswith(b"HTTP/1.1 "):
                seen, passed = b"", 0
            seen += data
            is_stream = b"text/event-stream" in seen.partition(HEAD_END)[0]
            cut = self._cuts[0] if self._cuts and is_stream else None
            end = _end_of_event(seen, cut.after_events) if cut else None
            may_pass = len(seen) if cut is None or end is None else min(len(seen), end + cut.extra_bytes)
            writer.write(seen[passed:may_pass])
            await writer.drain()
            passed = may_pass
            if cut is not None and end is not None and passed == end + cut.extra_bytes:
                self._cuts.popleft()
                await _break_off(writer, cut.how)
        raise _EndError


@dataclass(frozen=True, slots=True)
class _Cut:
    after_events: int
    extra_bytes: int
    how: str


class _EndError(Exception):
    """One of the sides has closed, or the answer was cut."""


async def _break_off(writer: asyncio.StreamWriter, how: str) -> None:
    if how == "silence":
        await asyncio.Event().wait()  # until the other side leaves
    if how == "reset":
        await asyncio.sleep(0.01)  # a reset that overtakes the bytes before it would take them away
        abort_with_reset(writer.get_extra_info("socket"))
    raise _EndError


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    raise _EndError


def _end_of_event(seen: bytes, count: int) -> int | None:
    """Return where the `count`th event of a chunked stream ends, with its chunk's end where that has come; None before."""
    at = seen.find(HEAD_END) + len(HEAD_END)
    for _ in range(count):
        found = seen.find(b"\n\n", at)
        if found < 0:
            return None
        at = found + 2
    if seen[at : at + 2] == b"\r\n":
        return at + 2
    return at
