"""What restarting a backend came to, and what proves it afterwards: the contract between the supervisor and its means.

Means are controlplane.restart_means, proofs controlplane.token_prober's, surroundings daemon's; controlplane.supervisor uses
them. Values and protocols only.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Protocol

from understudy.core.snapshot import Backend


@dataclass(frozen=True, slots=True)
class MeansOutcome:
    """What became of one use of the means.

    `is_done`: it did what it is there for; whether that helped only a probe can tell. `words` say why not, in one line.
    `exit_status` is a process's, negative for the signal that ended it, None where there was none. `output` holds its last lines,
    cut and without control characters. `was_out_of_memory`: the exit or the output says that memory had run out.
    """

    is_done: bool
    words: str = ""
    exit_status: int | None = None
    output: tuple[str, ...] = field(default=(), repr=False)
    was_out_of_memory: bool = False


@dataclass(frozen=True, slots=True)
class Proof:
    """What asking a backend for one token came to.

    `is_good`: it gave one, `first_content_s` seconds after it was asked; or there is nothing that it could be asked for, and then
    that is 0.0. `words` say in one line why no token came.
    """

    is_good: bool
    words: str = ""
    first_content_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the supervisor asks of, and tells, the rest of the daemon, each by a backend's name.

    `leave` moves every exchange away; `in_flight` counts them; `moved_at_s` is the loop time at which its work was last seen to
    go on; `renew` forgets what was held against what ran there before; `probe_soon` asks for a probe.
    """

    leave: Callable[[str], None]
    in_flight: Callable[[str], int]
    moved_at_s: Callable[[str], float]
    renew: Callable[[str], None]
    probe_soon: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class RestartOrder:
    """What came of the operator's word: `refusal` says why nothing has begun, "" where it has."""

    refusal: str = ""
    is_known: bool = True


class Means(Protocol):
    """Restarts backends, each by the means that its `restart` names; owns the children among them."""

    async def restart(self, backend: Backend) -> MeansOutcome:
        """End and begin the backend anew, within its rules' bounds. Raises nothing but CancelledError."""
        ...

    def is_running(self, backend: Backend) -> bool:
        """Whether the backend's child runs; True where it is none of ours."""
        ...

    async def follow(self, backends: Collection[Backend]) -> None:
        """Start the children that these have and that were never started, or not with these words; end those that are gone."""
        ...

    async def close(self) -> None:
        """End every child, as a restart would, all at once."""
        ...
