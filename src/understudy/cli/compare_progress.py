"""Tell how far a comparison has come, on standard error where that is a terminal.

Used by cli.compare. Keeps what it tells of, so that an interrupt can be told with it.
"""

import sys


class Progress:
    """One stage after the other: so many of so many things done."""

    def __init__(self) -> None:
        self._stage = ""
        self._things = ""
        self._done = 0
        self._total = 0
        self._is_on = sys.stderr.isatty()

    def begin(self, stage: str, things: str, total: int) -> None:
        """Begin a stage, such as `asking` of `prompts`."""
        self._stage, self._things, self._done, self._total = stage, things, 0, total
        self._show()

    def step(self) -> None:
        """One more thing is done."""
        self._done += 1
        self._show()

    @property
    def words(self) -> str:
        """How far it is: `2 of 3 prompts`."""
        return f"{self._done} of {self._total} {self._things}"

    def clear(self) -> None:
        """Leave an empty line."""
        self._write("\r\x1b[K")

    def _show(self) -> None:
        self._write(f"\r\x1b[K{self._stage} {self._done}/{self._total}")

    def _write(self, text: str) -> None:
        if self._is_on:
            sys.stderr.write(text)
            sys.stderr.flush()
