"""Move finished log lines to standard error from a thread of their own, so that the event loop never waits for a disk or a pipe.

Called by telemetry.logs only. Keeps at most `pending_bytes_max` in memory: what comes on top is dropped and counted, and one
line says so once writing works again. Never raises for a closed, full or failing stream, and never decides what a line says.
"""

import atexit
import os
import select
import threading
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WriterLimits:
    """Bounds of the buffer: written after `flush_s`, or at once when `flush_bytes` are pending."""

    pending_bytes_max: int = 1024 * 1024
    flush_bytes: int = 64 * 1024
    flush_s: float = 0.1


class LineWriter:
    """Lines in, one stream out. `fd` None writes nowhere: the stream was closed before the daemon began.

    `tell_dropped` makes the line that reports a number of dropped lines. The thread starts with the first line and is a daemon
    thread: a stream that blocks for ever must not keep the process from ending.
    """

    def __init__(self, fd: int | None, tell_dropped: Callable[[int], bytes], limits: WriterLimits | None = None) -> None:
        self.dropped_total = 0
        self._fd = fd
        self._tell_dropped = tell_dropped
        self._limits = limits or WriterLimits()
        self._lock = threading.Lock()
        self._has_lines = threading.Event()
        self._is_urgent = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_closing = False
        # Guarded by the lock: lines in order and how many, their bytes together with those being written, drops not yet told.
        self._lines = bytearray()
        self._lines_count = 0
        self._pending_bytes = 0
        self._dropped_untold = 0
        # Of the writing thread alone: a failed write may have left half a line behind.
        self._is_mid_line = False

    def write(self, line: bytes) -> None:
        """Take one whole line with its newline, from any thread; costs about a microsecond and never waits for the stream."""
        with self._lock:
            pending_bytes = self._pending_bytes + len(line)
            if self._is_closing or pending_bytes > self._limits.pending_bytes_max:
                self._count_dropped(1)
                return
            # One growing buffer instead of many kept lines: the memory of a line is used again while it is still in the cache.
            self._lines += line
            self._lines_count += 1
            is_first = self._lines_count == 1
            # Said once, when the mark is crossed: every further word would cost a wake-up while the thread waits for its turn.
            is_full = self._pending_bytes < self._limits.flush_bytes <= pending_bytes
            self._pending_bytes = pending_bytes
        if is_first:
            if self._thread is None:
                self._start()
            self._has_lines.set()
        if is_full:
            self._is_urgent.set()

    def close(self, timeout_s: float = 2.0) -> None:
        """Write what is pending and end the thread, waiting at most `timeout_s`; lines that come later are dropped."""
        with self._lock:
            self._is_closing = True
        self._is_urgent.set()
        self._has_lines.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
        atexit.unregister(self.close)

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None:
                return
            self._thread = threading.Thread(target=self._run, name="log.writer", daemon=True)
        atexit.register(self.close)
        self._thread.start()

    def _count_dropped(self, lines: int) -> None:
        self.dropped_total += lines
        self._dropped_untold += lines

    def _run(self) -> None:
        while True:
            self._has_lines.wait()
            self._is_urgent.wait(self._limits.flush_s)
            with self._lock:
                lines, self._lines = self._lines, bytearray()
                count, self._lines_count = self._lines_count, 0
                dropped, self._dropped_untold = self._dropped_untold, 0
                self._is_urgent.clear()
                self._has_lines.clear()
                is_last = self._is_closing
            self._write_batch(lines, count, dropped)
            if is_last:
                return

    def _write_batch(self, lines: bytearray, count: int, dropped: int) -> None:
        """Write `count` lines and, when lines were dropped before, the one that says so; a failure drops the batch."""
        taken_bytes = len(lines)
        if dropped:
            lines += self._tell_dropped(dropped)
        is_written = not lines or self._write_all(lines)
        with self._lock:
            self._pending_bytes -= taken_bytes
            if not is_written:
                self._count_dropped(count)
                self._dropped_untold += dropped
            elif self._dropped_untold:
                # Dropped while this batch was stuck: said now, not only when the next line comes.
                self._has_lines.set()

    def _write_all(self, data: bytearray) -> bool:
        """Write everything, or return False: the stream is closed, its disk is full, its reader is gone."""
        if self._fd is None:
            return False
        rest = memoryview(b"\n" + data if self._is_mid_line else data)
        while rest:
            try:
                count = os.write(self._fd, rest[: self._limits.flush_bytes])
            except BlockingIOError:
                # Whoever shares the terminal or pipe with us has made it non-blocking.
                self._wait_writable()
            except OSError:
                return False
            else:
                self._is_mid_line = rest[count - 1] != ord("\n") if count else self._is_mid_line
                rest = rest[count:]
        return True

    def _wait_writable(self) -> None:
        poll = select.poll()
        poll.register(self._fd or 0, select.POLLOUT)
        poll.poll(1000)
