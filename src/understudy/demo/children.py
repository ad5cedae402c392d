"""The demo's child processes: two small engines and the daemon, started on free ports and gone when the demo is.

Used by demo.show only. Every child runs in a session of its own, so that Ctrl-C reaches the demo alone, which then ends them.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 3.0
PR_SET_PDEATHSIG = 1
LOOK_AGAIN_S = 0.02


class DemoError(Exception):
    """The demo cannot go on; the message is one line for the person who watches."""


def wait_for(find: Callable[[], T | None], what: str, timeout_s: float = START_TIMEOUT_S) -> T:
    """Call `find` until it returns something, and return that. Raises DemoError saying `what` did not happen in time."""
    deadline_s = time.monotonic() + timeout_s
    while (found := find()) is None:
        if time.monotonic() > deadline_s:
            raise DemoError(f"{what} did not happen within {timeout_s:.0f} s")
        time.sleep(LOOK_AGAIN_S)
    return found


def _end_with_parent() -> None:
    """Have the child told to stop when the demo is killed in a way that it cannot answer (prctl(2), PR_SET_PDEATHSIG)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Child:
    """One process with its output in `log`; `arguments` are those of `python`."""

    def __init__(self, arguments: tuple[str, ...], log: Path) -> None:
        self._log = log
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        with log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603  # our own interpreter with our own arguments
                [sys.executable, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                preexec_fn=_end_with_parent,  # noqa: PLW1509  # the demo has one thread
            )

    def wait_line(self, read: Callable[[str], T | None], what: str) -> T:
        """Return what `read` makes of the first line that it does not answer with None. Raises DemoError when none comes."""

        def look() -> T | None:
            lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
            found = next((value for value in map(read, lines) if value is not None), None)
            if found is None and self._process.poll() is not None:
                said = lines[-1] if lines else "it said nothing"
                raise DemoError(f"{what} ended with exit code {self._process.returncode}: {said}")
            return found

        return wait_for(look, f"the start of {what}")

    def kill(self) -> None:
        """End it at once (SIGKILL), as a crash would."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it in order (SIGTERM), or at once when it takes too long; nothing when it has ended."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.kill()

    def wait_ended(self, timeout_s: float) -> bool:
        """Tell whether it has ended by itself within `timeout_s`."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True


class EngineChild:
    """One small engine under a backend's name. After `kill` it can be started again on the port that it had."""

    def __init__(self, name: str, folder: Path, token_delay_ms: float) -> None:
        self.name = name
        self.port = 0
        self._folder = folder
        self._token_delay_ms = token_delay_ms
        self._child: Child | None = None

    @property
    def url(self) -> str:
        """Where it listens, once started."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and return when it listens. Raises DemoError."""
        options = ("--port", str(self.port), "--token-delay-ms", str(self._token_delay_ms))
        self._child = Child(("-m", "understudy.demo.engine", *options), self._folder / f"{self.name}.log")
        self.port = self._child.wait_line(_read_port, f"the engine {self.name}")

    def kill(self) -> None:
        """End it at once; nothing when it does not run."""
        if self._child is not None:
            self._child.kill()


class DaemonChild:
    """The daemon with the file at `file`. `port` and `admin_port` are known once it listens."""

    def __init__(self, file: Path) -> None:
        self._child = Child(("-m", "understudy", "serve", "-c", str(file)), file.with_suffix(".log"))
        self.port = 0
        self.admin_port = 0

    def wait_listening(self) -> None:
        """Return when it has told its addresses. Raises DemoError."""
        self.port, self.admin_port = self._child.wait_line(_read_addresses, "the daemon")

    def stop(self) -> None:
        """End it in order."""
        self._child.stop()

    def wait_ended(self, timeout_s: float) -> bool:
        """Tell whether it has ended by itself within `timeout_s`."""
        return self._child.wait_ended(timeout_s)


def _read_port(line: str) -> int | None:
    return int(line.removeprefix("READY ")) if line.startswith("READY ") else None


def _read_addresses(line: str) -> tuple[int, int] | None:
    """Read the public and the admin port from the event daemon.started; None from any other line."""
    if '"daemon.started"' not in line:
        return None
    event = json.loads(line)
    return int(event["listen"][0].rpartition(":")[2]), int(event["admin"].rpartition(":")[2])
