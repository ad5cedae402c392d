"""What every child process of a play needs: its output line by line while it runs, and an end that always comes."""

import subprocess
import threading
from collections.abc import Callable
from typing import IO

END_TIMEOUT_S = 10.0


class Output:
    """The lines of one pipe, gathered by a thread of its own until the pipe closes, so that the child never blocks on it."""

    def __init__(self, pipe: IO[bytes], name: str) -> None:
        self._pipe = pipe
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._is_ended = False
        self._thread = threading.Thread(target=self._gather, name=f"output.{name}", daemon=True)
        self._thread.start()

    @property
    def lines(self) -> list[str]:
        """Everything so far, as a copy."""
        with self._changed:
            return list(self._lines)

    def wait_line(self, is_it: Callable[[str], bool], timeout_s: float, *, start: int = 0) -> str:
        """Return the first line from number `start` on that `is_it`; AssertionError with the last lines when none comes."""
        found: list[str] = []

        def has_come() -> bool:
            found[:] = [text for text in self._lines[start:] if is_it(text)][:1]
            return bool(found) or self._is_ended

        with self._changed:
            self._changed.wait_for(has_come, timeout_s)
            assert found, "the line did not come; the last ones:\n" + "\n".join(self._lines[-15:])
            return found[0]

    def close(self) -> None:
        """Wait until everything the ended child wrote is gathered, and close the pipe."""
        self._thread.join(END_TIMEOUT_S)
        self._pipe.close()

    def _gather(self) -> None:
        for raw in self._pipe:
            with self._changed:
                self._lines.append(raw.decode(errors="replace").rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._is_ended = True
            self._changed.notify_all()


def end(process: subprocess.Popen[bytes]) -> int:
    """Kill the process whatever state it is in, frozen ones too, and return its exit status."""
    if process.poll() is None:
        process.kill()
    return process.wait(END_TIMEOUT_S)
