"""The real daemon as a child process, started from a dict, with its log at hand.

Plays give it backends and the keys they are about; everything else is set for quick plays: loopback ports chosen by the kernel,
JSON log, short health times. Never reaches into the daemon: what a play knows, it knows from the wire, the admin port or the log.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import yaml

from support.process import Output, end
from support.waiting import until
from support.wire import Reply, ask

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 15.0
QUICK: dict[str, Any] = {
    "listen": "127.0.0.1:0",
    "admin": {"listen": "127.0.0.1:0"},
    "health": {"interval": "500ms", "timeout": "500ms", "rise": 1, "fall": 2, "fail_timeout": "1s"},
    "failover": {"hold": "2s"},
    "log": {"format": "json"},
}


class HasAddress(Protocol):
    """An engine of any kind: a name and a URL."""

    name: str
    url: str


def backend(engine: HasAddress, kind: str = "llamacpp", **more: Any) -> dict[str, Any]:
    """Write an engine's entry under `backends`."""
    return {"name": engine.name, "url": engine.url, "engine": kind, **more}


def settings(*backends: Mapping[str, Any], **sections: Any) -> dict[str, Any]:
    """Write a whole file: QUICK with `sections` put over it; one that is a dict changes only the keys it has."""
    wanted = {**QUICK, "backends": [dict(entry) for entry in backends]}
    for key, value in sections.items():
        wanted[key] = {**wanted.get(key, {}), **value} if isinstance(value, dict) else value
    return wanted


class Daemon:
    """One daemon, run from FOLDER/understudy.yaml. Use as a context manager: entered once it listens.

    `launcher` is put before its command, as `nice` would be; it must become the daemon by exec.
    Leaving kills it, and fails the play when it had told an internal error or a traceback that the play did not ask for.
    """

    def __init__(
        self,
        wanted: Mapping[str, Any],
        folder: Path,
        *,
        environment: Mapping[str, str] | None = None,
        launcher: Sequence[str] = (),
    ) -> None:
        self._launcher = launcher
        self.file = folder / "understudy.yaml"
        self.may_fail_internally = False
        # What a daemon keeps for its next start is no business of others.
        self._environment = {**os.environ, "XDG_STATE_HOME": str(folder / "state"), **(environment or {})}
        self.rewrite(wanted)

    def __enter__(self) -> Self:
        command = [*self._launcher, sys.executable, "-m", "understudy", "serve", "-c", str(self.file)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=self._environment)
        assert self._process.stderr is not None
        self._output = Output(self._process.stderr, "daemon")
        try:
            started = self.wait_event("daemon.started", timeout_s=START_TIMEOUT_S)
        except AssertionError:
            end(self._process)
            self._output.close()
            raise
        self.port = int(started["listen"][0].rpartition(":")[2])
        admin = started["admin"]
        self.admin_port = int((admin if isinstance(admin, str) else admin[0]).rpartition(":")[2])
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        end(self._process)
        self._output.close()
        if kind is None and not self.may_fail_internally:
            bad = [text for text in self.log if "Traceback" in text or '"exchange.failed_internally"' in text]
            assert not bad, f"the daemon failed internally: {bad[:3]}"

    # Its process and its file.

    @property
    def url(self) -> str:
        """Where clients go."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def admin_url(self) -> str:
        """Where operators go."""
        return f"http://127.0.0.1:{self.admin_port}"

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def send_signal(self, number: signal.Signals) -> None:
        """Signal the process."""
        self._process.send_signal(number)

    def hang_up(self) -> None:
        """Ask for a reload (SIGHUP)."""
        self.send_signal(signal.SIGHUP)

    def stop(self) -> int:
        """Ask for an orderly end (SIGTERM) and return the exit status."""
        self.send_signal(signal.SIGTERM)
        return self.wait_ended()

    def wait_ended(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Return the exit status once the process has ended by itself."""
        return self._process.wait(timeout_s)

    def rewrite(self, wanted: Mapping[str, Any] | str) -> None:
        """Put a new file in place, whole, as editors do."""
        text = wanted if isinstance(wanted, str) else yaml.safe_dump(dict(wanted))
        unfinished = self.file.with_suffix(".new")
        unfinished.write_text(text)
        unfinished.replace(self.file)

    def open_files(self) -> int:
        """How many file descriptors it has open."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def resident_bytes(self) -> int:
        """How much memory it holds."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    # Its log.

    @property
    def log(self) -> list[str]:
        """Every line so far, as written."""
        return self._output.lines

    def events(self, name: str = "", **fields: Any) -> list[dict[str, Any]]:
        """Return the events so far with this name and these fields, oldest first."""
        found = (_event(text) for text in self.log)
        return [event for event in found if event and _is_it(event, name, fields)]

    def wait_event(self, name: str, *, timeout_s: float = 10.0, **fields: Any) -> dict[str, Any]:
        """Return the first event with this name and these fields, told already or yet to come."""

        def is_it(text: str) -> bool:
            event = _event(text)
            return event is not None and _is_it(event, name, fields)

        line = self._output.wait_line(is_it, timeout_s)
        event: dict[str, Any] = json.loads(line)
        return event

    # Its two ports.

    def ask(self, target: str = "/v1/chat/completions", body: bytes | Mapping[str, Any] | None = None, **more: Any) -> Reply:
        """Send one request to the public port; see wire.ask."""
        return ask(self.port, target, body, **more)

    def admin(self, target: str, *, method: str = "GET", headers: Mapping[str, str] | None = None) -> Reply:
        """Send one request to the admin port."""
        return ask(self.admin_port, target, method=method, headers=headers)

    def status(self) -> dict[str, dict[str, Any]]:
        """Return the backends as /api/status shows them, by name."""
        reply = self.admin("/api/status")
        assert reply.status == 200, reply
        return {entry["name"]: entry for entry in reply.json()["backends"]}

    def wait_condition(self, condition: str, *names: str, timeout_s: float = 10.0) -> None:
        """Return once every named backend (none named: all of them) is in `condition`."""

        def is_so() -> bool:
            status = self.status()
            return all(status[name]["condition"] == condition for name in (names or status))

        until(is_so, f"{names or 'every backend'} {condition}; {self.log[-3:]}", timeout_s=timeout_s)

    def wait_idle(self, timeout_s: float = 5.0) -> None:
        """Return once no exchange is in flight at any backend."""
        until(
            lambda: not any(entry["in_flight"] for entry in self.status().values()),
            "in-flight counts at zero",
            timeout_s=timeout_s,
        )

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that have these labels; 0.0 when there is none."""
        total = 0.0
        for line in self.admin("/metrics").body.decode().splitlines():
            if line.startswith((f"{name}{{", f"{name} ")) and all(f'{key}="{value}"' in line for key, value in labels.items()):
                total += float(line.rpartition(" ")[2])
        return total


def _event(text: str) -> dict[str, Any] | None:
    if not text.startswith("{"):
        return None
    try:
        event: dict[str, Any] = json.loads(text)
    except ValueError:
        return None
    return event


def _is_it(event: Mapping[str, Any], name: str, fields: Mapping[str, Any]) -> bool:
    return (not name or event.get("event") == name) and all(event.get(key) == value for key, value in fields.items())


def seconds_since(started_at_s: float) -> float:
    """How long ago `started_at_s` (time.monotonic()) was."""
    return time.monotonic() - started_at_s
