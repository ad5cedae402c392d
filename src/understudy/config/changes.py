"""Say what differs between two settings, in the file's own words, and which of it needs a restart.

Called by config.reload; the lines go into the log, into `status` and to whoever asked for the reload. Pure. Never shows the
value of a key that holds a secret, nor a prompt.
"""

import re
from operator import attrgetter
from typing import Any, Final

from understudy.config.schema import Settings, is_secret
from understudy.config.schema_backends import BackendSettings
from understudy.config.schema_upkeep import AlertSettings

# These are built into listening sockets, the log's writer and the session store, which outlive a reload.
RESTART_KEYS: Final = (
    "listen",
    "admin.listen",
    "admin.token",
    "sessions.store",
    "sessions.format",
    "sessions.timeout",
    "sessions.prefix",
    "sessions.key",
    "log.format",
)

Path = tuple[str, ...]

_ABSENT: Final = "not set"
# Under `defaults` stands any JSON, and text there may be a prompt: numbers, true, false, null and single words are shown.
_SHORT_JSON: Final = re.compile(r'[0-9.eE+-]{1,40}|true|false|null|"[A-Za-z0-9_.:/-]{0,40}"')


def keep_until_restart(new: Settings, running: Settings) -> tuple[Settings, tuple[str, ...]]:
    """Return `new` with what is fixed until a restart as it runs now, and the keys of which the file says otherwise."""
    needs_restart = tuple(key for key in RESTART_KEYS if attrgetter(key)(new) != attrgetter(key)(running))
    kept: dict[str, Any] = {}
    for key in RESTART_KEYS:
        section, _, inner = key.rpartition(".")
        value = attrgetter(key)(running)
        # A later key of the same section goes on from what an earlier one has made of it.
        kept[section or inner] = kept.get(section, getattr(new, section)).model_copy(update={inner: value}) if section else value
    return new.model_copy(update=kept), needs_restart


def written_changes(old: Settings, new: Settings) -> tuple[str, ...]:
    """Return one line for each difference: `backends: gpu1 added`, `timeouts.stall: 30s -> 20s`. Empty: no difference."""
    return (
        *_backend_changes(old.backends, new.backends),
        *_differences((), "", _written(old), _written(new)),
        *_alert_changes(old.alerts, new.alerts),
    )


def _backend_changes(old: tuple[BackendSettings, ...], new: tuple[BackendSettings, ...]) -> list[str]:
    before, after = {backend.name: backend for backend in old}, {backend.name: backend for backend in new}
    lines = [f"backends: {name} removed" for name in before if name not in after]
    lines += [f"backends: {name} added" for name in after if name not in before]
    kept = [name for name in after if name in before]
    if kept != [name for name in before if name in after]:
        lines.append(f"backends: order is now {', '.join(after)}")
    for name in kept:
        written = (_written_backend(before[name]), _written_backend(after[name]))
        lines += _differences(("backends",), f"backends.{name}.", *written)
    return lines


def _alert_changes(old: tuple[AlertSettings, ...], new: tuple[AlertSettings, ...]) -> list[str]:
    lines = []
    for index, (before, after) in enumerate(zip(old, new, strict=False)):
        written = (before.model_dump(mode="json"), after.model_dump(mode="json"))
        lines += _differences(("alerts",), f"alerts[{index}].", *written)
    lines += [f"alerts[{index}]: removed" for index in range(len(new), len(old))]
    lines += [f"alerts[{index}]: added" for index in range(len(old), len(new))]
    return lines


def _differences(path: Path, above: str, old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Compare what stands at `path`, of which `above` is how an operator writes it."""
    before, after = _flat(old), _flat(new)
    keys = [*before, *(key for key in after if key not in before)]
    return [
        _line((*path, *key), above + ".".join(key), before.get(key), after.get(key))
        for key in keys
        if before.get(key) != after.get(key)
    ]


def _line(path: Path, key: str, old: object, new: object) -> str:
    before, after = _text(old), _text(new)
    is_long = "defaults" in path and any(text != _ABSENT and not _SHORT_JSON.fullmatch(text) for text in (before, after))
    return f"{key}: changed" if is_long or is_secret(path) else f"{key}: {before} -> {after}"


def _written(settings: Settings) -> dict[str, Any]:
    return settings.model_dump(mode="json", exclude={"backends", "alerts"})


def _written_backend(backend: BackendSettings) -> dict[str, Any]:
    written = backend.model_dump(mode="json", exclude={"health", "timeouts"})
    # Only the keys that the backend has of its own: the others follow the common ones.
    own = backend.model_dump(mode="json", include={"health", "timeouts"}, exclude_unset=True)
    return {**written, **own}


def _flat(written: dict[str, Any], above: Path = ()) -> dict[Path, object]:
    """Flatten sections to values by their keys. Values are compared as they are: written out, two may look the same."""
    flat: dict[Path, object] = {}
    for key, value in written.items():
        if isinstance(value, dict):
            flat.update(_flat(value, (*above, key)))
        else:
            flat[(*above, key)] = value
    return flat


def _text(value: object) -> str:
    """Write the value as it stands in the file; None is what does not stand there."""
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "[]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return _ABSENT if value is None else str(value) if value != "" else "''"
