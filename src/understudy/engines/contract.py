"""What a probe asks, what it is told and what it finds: the vocabulary between an engine's knowledge and its driver.

The engines' generators yield `ProbeRequest` and return a `Finding`; controlplane.prober sends the requests and hands the
`Finding` to controlplane.publisher. Holds values only: never contacts a backend and never decides its condition.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from understudy.core.ask import DialectName
from understudy.core.health import Seen
from understudy.core.snapshot import EngineKind, Model

# What a driver reads of one answer at most, and how many models of one list we keep: a backend may lie, or never end.
PROBE_BODY_BYTES_MAX: Final = 4 * 1024 * 1024
MODELS_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """One question to a backend: always GET, without a body. `path` starts with "/"; the driver puts the prefix before it."""

    path: str


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """What a backend answered. `headers` have lower-case names; `body` is its first PROBE_BODY_BYTES_MAX bytes."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one probe learnt.

    `reason` says in a few words why `seen` is not GOOD ("answered 503: Loading model"), "" when it is, or when nothing was
    answered and only the driver knows why. When `seen` is not GOOD, blank fields mean that nothing was learnt, not that the
    backend lost it: keep what was known. When it is GOOD, `models` None means that the backend does not tell its list.
    `wants_key`: an answer asked for a key, or for another one. `is_refusing`: the listener is closed. `is_asleep`: it was put to
    sleep, and answers nothing that generates until somebody wakes it.
    """

    seen: Seen
    engine: EngineKind = EngineKind.AUTO
    version: str = ""
    dialects: tuple[DialectName, ...] = ()
    models: tuple[Model, ...] | None = None
    reason: str = ""
    wants_key: bool = False
    is_refusing: bool = False
    is_asleep: bool = False


_Told = TypeVar("_Told")

# Questions in progress: yields what to ask next, is sent the answer (None: there was none) and returns what it was told.
Asking = Generator[ProbeRequest, ProbeAnswer | None, _Told]
Probe = Asking[Finding]
