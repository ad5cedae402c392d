"""Read the file again: swapped whole or refused whole, and said which.

Built by daemon; asked by SIGHUP, by the admin port, and by its own watch on the file. Loads beside what runs, offers the new
settings to daemon (which compiles and publishes them), keeps the old ones on any mistake. Everything runs on the loop, so
that reloads never overlap; a file of 50 backends takes 4 ms. Never touches a connection or an exchange.
"""

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from understudy.config.changes import keep_until_restart, written_changes
from understudy.config.load import NO_OVERRIDES, Overrides, load_bytes, read_file
from understudy.config.schema import Settings
from understudy.config.watch import looks, signature
from understudy.errors import ConfigError, Mistake

# A file that is being written is left alone until nothing changed for this long: half of a file may well be valid.
SETTLE_S: Final = 0.3

FILE_TRIGGER: Final = "file"


@dataclass(frozen=True, slots=True)
class ReloadResult:
    """What one reload did.

    `changed` says line by line what is in force now and was not before; `needs_restart` names the keys of which the file says
    something else than what runs; `mistakes` is not empty exactly when `ok` is False, and then nothing was changed.
    """

    ok: bool
    changed: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()
    mistakes: tuple[Mistake, ...] = ()

    def facts(self) -> dict[str, Any]:
        """Return the same as JSON values."""
        mistakes = [str(mistake) for mistake in self.mistakes]
        return {"ok": self.ok, "changed": list(self.changed), "needs_restart": list(self.needs_restart), "mistakes": mistakes}


class Reloader:
    """Holds what runs and what the file said last.

    `path` is None for a start with URLs alone. `running` are the settings the daemon started with. `offer` gets settings that
    are to be in force from now on, with everything that needs a restart as it runs, and returns why they cannot be, if so;
    `on_event` gets an event's name (telemetry.logs) and its fields. Both are called on the loop and must not block.
    """

    def __init__(
        self,
        path: Path | None,
        env: Mapping[str, str],
        running: Settings,
        offer: Callable[[Settings], Mistake | None],
        on_event: Callable[[str, dict[str, object]], None],
        *,
        overrides: Overrides = NO_OVERRIDES,
        settle_s: float = SETTLE_S,
    ) -> None:
        self._path = path
        self._env = env
        self._running = running
        self._offer = offer
        self._on_event = on_event
        self._overrides = overrides
        self._settle_s = settle_s
        # The content that the last reload read, whether it was taken or refused; "" before the first.
        self._seen = ""
        self.last: ReloadResult | None = None

    @property
    def running(self) -> Settings:
        """The settings in force."""
        return self._running

    def reload(self, trigger: str) -> ReloadResult:
        """Read the file now, whatever it was before, and say what came of it. `trigger` goes into the event.

        An operator asked, so there is an event each time, even when nothing changed.
        """
        if self._path is None:
            mistake = Mistake("", "no file: this daemon was started without one", "a start with -c FILE")
            return self._refuse(trigger, (mistake,))
        content = _Content(self._path)
        self._seen = content.identity
        return self._take(trigger, content)

    async def watch(self) -> None:
        """Reload whenever the file's content becomes another one and stays so for `settle_s`. Runs until cancelled."""
        if self._path is None:
            return
        settled: object = None
        async for _ in looks(self._path):
            if signature(self._path) != settled:
                settled = await self._settle(self._path)
                self._reload_if_changed(self._path)

    async def _settle(self, path: Path) -> object:
        last = signature(path)
        while True:
            await asyncio.sleep(self._settle_s)
            now = signature(path)
            if now == last:
                return now
            last = now

    def _reload_if_changed(self, path: Path) -> None:
        content = _Content(path)
        if content.identity == self._seen:
            return
        is_first = not self._seen
        self._seen = content.identity
        if is_first and self._is_running(content):
            return
        self._take(FILE_TRIGGER, content)

    def _is_running(self, content: "_Content") -> bool:
        """Whether the file still says what the daemon started with."""
        try:
            settings = content.settings(self._env, self._overrides)
        except ConfigError:
            return False
        kept, needs_restart = keep_until_restart(settings, self._running)
        return not needs_restart and not written_changes(self._running, kept)

    def _take(self, trigger: str, content: "_Content") -> ReloadResult:
        try:
            settings = content.settings(self._env, self._overrides)
        except ConfigError as error:
            return self._refuse(trigger, error.mistakes)
        kept, needs_restart = keep_until_restart(settings, self._running)
        changed = written_changes(self._running, kept)
        if changed:
            mistake = self._offer(kept)
            if mistake is not None:
                return self._refuse(trigger, (replace(mistake, file=str(self._path)),))
            self._running = kept
        self.last = ReloadResult(ok=True, changed=changed, needs_restart=needs_restart)
        self._on_event("config.reloaded", {"trigger": trigger, "changed": list(changed), "needs_restart": list(needs_restart)})
        return self.last

    def _refuse(self, trigger: str, mistakes: tuple[Mistake, ...]) -> ReloadResult:
        self.last = ReloadResult(ok=False, mistakes=mistakes)
        self._on_event("config.refused", {"trigger": trigger, "mistakes": [str(mistake) for mistake in mistakes]})
        return self.last


class _Content:
    """The file as it was read once: its bytes, or why it could not be read."""

    __slots__ = ("_error", "_path", "content", "identity")

    def __init__(self, path: Path) -> None:
        self._path = path
        self._error: ConfigError | None = None
        self.content = b""
        try:
            self.content = read_file(path)
            self.identity = hashlib.sha256(self.content).hexdigest()
        except ConfigError as error:
            self._error = error
            self.identity = str(error)

    def settings(self, env: Mapping[str, str], overrides: Overrides) -> Settings:
        """Load it. Raises `ConfigError`."""
        if self._error is not None:
            raise self._error
        return load_bytes(self.content, env, str(self._path), overrides)
