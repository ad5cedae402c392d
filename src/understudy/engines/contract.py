"""What a probe asks, what it is told and what it finds: the vocabulary between an engine's knowledge and its driver.

The engines' generators yield `ProbeRequest` and return a `Finding`; controlplane.prober sends the requests and hands the
`Finding` to controlplane.publisher. Holds values only: never contacts a backend and never decides its condition.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field

from understudy.core.ask import DialectName
from understudy.core.health import Seen
from understudy.core.snapshot import EngineKind, Model


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """One question to a backend: always GET, without a body. `path` starts with "/"; the driver puts the prefix before it."""

    path: str


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """What a backend answered. `headers` have lower-case names; `body` is decoded (no Content-Encoding) and at most 4 MiB."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one probe learnt.

    `reason` says in a few words why `seen` is not GOOD ("answered 503: Loading model"), "" when it is, or when nothing was
    answered and only the driver knows why. When `seen` is not GOOD, blank fields mean that nothing was learnt, not that the
    backend lost it: keep what was known. When it is GOOD, `models` None means that the backend does not tell its list.
    """

    seen: Seen
    engine: EngineKind = EngineKind.AUTO
    version: str = ""
    dialects: tuple[DialectName, ...] = ()
    models: tuple[Model, ...] | None = None
    reason: str = ""


# A probe in progress: yields what to ask next, is sent the answer (None: there was none) and returns what it found.
Probe = Generator[ProbeRequest, ProbeAnswer | None, Finding]
