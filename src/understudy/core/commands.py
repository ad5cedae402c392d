"""What core.exchange and core.resume tell the data plane to do; each answer to an event is one of these.

Carried out by dataplane.relayed. Values only.
"""

import msgspec

from understudy.core.balancer import Choice
from understudy.core.transcript import Refusal
from understudy.errors import FailureKind


class Attempt(msgspec.Struct, frozen=True):
    """Send the request to `choice`; `is_fresh`: on a new connection, not on a pooled one."""

    choice: Choice
    is_fresh: bool


class Resume(msgspec.Struct, frozen=True):
    """Let `choice` go on with the answer that the client has a part of; `is_fresh` as for an attempt."""

    choice: Choice
    is_fresh: bool = False


class Wait(msgspec.Struct, frozen=True):
    """Nothing can be done now: ask again when something changes, at the latest at `until_s` (loop time)."""

    until_s: float
    kind: FailureKind


class Abort(msgspec.Struct, frozen=True):
    """Give the client an error. `retry_after_s` 0: waiting does not help.

    `is_passed_on`: the last backend's own answer says it best and is handed to the client as it came. `refusal` is why an answer
    that broke does not go on, None where that is told elsewhere.
    """

    kind: FailureKind
    status: int
    retry_after_s: float = 0.0
    is_passed_on: bool = False
    refusal: Refusal | None = None


Command = Attempt | Resume | Wait | Abort
