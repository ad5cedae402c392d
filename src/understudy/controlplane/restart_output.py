"""Keep of what a process writes its last lines, whether they tell that memory ran out, and a bounded share of them for the log.

Used by controlplane.restart_process, restart_command and restart_child. Reduces bytes to short printable lines; reads no pipe,
and holds a few KiB whatever a process writes.
"""

import re
from collections import deque
from collections.abc import Callable
from typing import Final

from understudy.telemetry.console import printable

LINES_KEPT_MAX: Final = 20
LINE_CHARS_MAX: Final = 300
# Of one read so many lines become text; 64 KiB of `yes` would be 32 000.
LINES_PER_READ_MAX: Final = 200
# A caught lack of memory is long forgotten when the process ends of something else.
OUT_OF_MEMORY_COUNTS_S: Final = 60.0

# A character takes up to four bytes, and a color more that is left out.
_LINE_BYTES_MAX: Final = 8 * LINE_CHARS_MAX
_COLORS: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# The kernel's and systemd's words, malloc's and C++'s, CUDA's, Vulkan's and Metal's, llama.cpp's, PyTorch's and vLLM's.
_OUT_OF_MEMORY: Final = re.compile(
    rb"out[ _]?of[ _]?(?:device[ _]?)?memory|\boom[-_ ]kill|cannot allocate memory|bad_alloc|insufficient memory|memoryerror"
    rb"|failed to allocate|no available memory for the cache",
    re.IGNORECASE,
)

Hear = Callable[[list[str], int], None]


class Output:
    """The output of one process. `now` gives seconds; `hear` gets the lines of a read, and how many before them are left out."""

    def __init__(self, now: Callable[[], float], hear: Hear | None = None) -> None:
        self._now = now
        self._hear = hear
        self._lines: deque[str] = deque(maxlen=LINES_KEPT_MAX)
        self._pending = b""
        self._out_of_memory_at_s: float | None = None

    @property
    def lines(self) -> tuple[str, ...]:
        """The last LINES_KEPT_MAX lines that are not empty, each of at most LINE_CHARS_MAX printable characters."""
        return tuple(self._lines)

    @property
    def tells_out_of_memory(self) -> bool:
        """Whether it said so within the last OUT_OF_MEMORY_COUNTS_S."""
        told_at_s = self._out_of_memory_at_s
        return told_at_s is not None and self._now() - told_at_s <= OUT_OF_MEMORY_COUNTS_S

    def feed(self, data: bytes) -> None:
        """Take what was read; it may begin and end anywhere."""
        data = self._pending + data
        if _OUT_OF_MEMORY.search(data):
            self._out_of_memory_at_s = self._now()
        *raw_lines, self._pending = data.rsplit(b"\n", LINES_PER_READ_MAX)
        left_out = 0
        if len(raw_lines) == LINES_PER_READ_MAX:
            # The first piece is all that the limit left unsplit.
            left_out = raw_lines[0].count(b"\n")
            raw_lines[0] = raw_lines[0].rpartition(b"\n")[2]
        if len(self._pending) > _LINE_BYTES_MAX:
            self._pending = _last_writing(self._pending)[:_LINE_BYTES_MAX]
        self._keep([_line(raw) for raw in raw_lines], left_out)

    def end(self) -> None:
        """Take the rest as a line: nothing more will come."""
        rest, self._pending = self._pending, b""
        self._keep([_line(rest)], 0)

    def _keep(self, lines: list[str], left_out: int) -> None:
        lines = [line for line in lines if line]
        self._lines.extend(lines)
        if self._hear is not None and (lines or left_out):
            self._hear(lines, left_out)


def _last_writing(raw: bytes) -> bytes:
    """Return what a terminal would show last of a line that returns to its beginning, as bars of progress do."""
    return raw.rstrip(b"\r").rpartition(b"\r")[2]


def _line(raw: bytes) -> str:
    text = _last_writing(raw)[:_LINE_BYTES_MAX].decode("utf-8", "replace")
    return printable(_COLORS.sub("", text).strip())[:LINE_CHARS_MAX]


class LineShare:
    """Passes on at most `per_second_max` lines of a second, and at its end the last of those left out, with their number.

    `tell` gets a line and how many before it are left out. `call_later` is a loop's.
    """

    def __init__(
        self, tell: Callable[[str, int], None], per_second_max: int, call_later: Callable[[float, Callable[[], None]], object]
    ) -> None:
        self._tell = tell
        self._max = per_second_max
        self._call_later = call_later
        # Of the current second.
        self._is_counting = False
        self._told = 0
        self._left_out = 0
        self._last = ""

    def hear(self, lines: list[str], left_out: int) -> None:
        """Pass on what there is room for. As Output's `hear`."""
        self._left_out += left_out
        for line in lines:
            if self._told < self._max:
                self._told += 1
                self._tell(line, self._left_out)
                self._left_out = 0
                self._last = ""
            else:
                self._left_out += 1
                self._last = line
        if not self._is_counting and (lines or left_out):
            self._is_counting = True
            self._call_later(1.0, self._end_second)

    def flush(self) -> None:
        """Tell what is left out so far, without waiting for the second's end."""
        left_out, self._left_out = self._left_out, 0
        last, self._last = self._last, ""
        if last:
            self._told += 1
            self._tell(last, left_out - 1)

    def _end_second(self) -> None:
        self._is_counting = False
        self._told = 0
        if self._last:
            self.flush()
            self._is_counting = True
            self._call_later(1.0, self._end_second)
