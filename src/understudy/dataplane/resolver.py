"""Names of backends to addresses, without a look-up on the path of a request.

Called by dataplane.pool before it connects, and by the prober. Addresses are kept for a while, looked up again in the background,
and the old ones go on when the name stops resolving. Never called for literal addresses.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Callable

FRESH_S = 15.0


def is_literal(host: str) -> bool:
    """Whether `host` is an IP address and needs no look-up."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


class Resolver:
    """Known addresses per name. `on_event` hears when a name stops and starts resolving, once each."""

    def __init__(self, on_event: Callable[[str, dict[str, object]], None]) -> None:
        self._on_event = on_event
        self._known: dict[str, tuple[str, ...]] = {}
        self._looked_up_at_s: dict[str, float] = {}
        self._running: dict[str, asyncio.Task[tuple[str, ...]]] = {}
        self._failing: set[str] = set()

    async def resolve(self, host: str) -> tuple[str, ...]:
        """Return the addresses of `host`, best first; raises OSError when none was ever known and the look-up fails."""
        now_s = asyncio.get_running_loop().time()
        known = self._known.get(host)
        if known and now_s - self._looked_up_at_s.get(host, 0.0) < FRESH_S:
            return known
        task = self._running.get(host)
        if task is None:
            task = self._running[host] = asyncio.get_running_loop().create_task(self._look_up(host), name=f"resolve {host}")
            task.add_done_callback(lambda _: self._running.pop(host, None))
        if known:
            return known
        return await asyncio.shield(task)

    def expire(self, host: str) -> None:
        """A connection to a known address failed: look the name up again at the next use."""
        self._looked_up_at_s.pop(host, None)

    def retain(self, hosts: set[str]) -> None:
        """Forget names that no backend has any more."""
        for host in self._known.keys() - hosts:
            del self._known[host]
            self._looked_up_at_s.pop(host, None)
        self._failing &= hosts

    async def _look_up(self, host: str) -> tuple[str, ...]:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError as error:
            if host not in self._failing:
                self._failing.add(host)
                self._on_event("backend.lost_name", {"host": host, "reason": str(error)})
            if host not in self._known:
                raise
            # The old addresses go on; asked again at the usual pace.
            self._looked_up_at_s[host] = loop.time()
            return self._known[host]
        addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
        if host in self._failing:
            self._failing.discard(host)
            self._on_event("backend.regained_name", {"host": host})
        self._known[host] = addresses
        self._looked_up_at_s[host] = loop.time()
        return addresses
