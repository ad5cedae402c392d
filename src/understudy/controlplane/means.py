"""What restarting a backend came to, and who does it: the contract between the supervisor and the means.

Implemented by controlplane.restart_means, used by controlplane.supervisor. Values and protocols only.
"""

from collections.abc import Collection
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


class Means(Protocol):
    """Restarts backends, each by the means that its `restart` names; owns the children among them."""

    async def restart(self, backend: Backend) -> MeansOutcome:
        """End and begin the backend anew, within its rules' bounds. Raises nothing but CancelledError."""
        ...

    async def follow(self, backends: Collection[Backend]) -> None:
        """Start the children that these have and that do not run; end those that are no longer among them."""
        ...

    async def close(self) -> None:
        """End every child, as a restart would, all at once."""
        ...
