"""Whether somebody already listens where a child of ours is to answer; a stranger there would be taken for the engine.

Called by controlplane.restart_child before it starts one. Reads what Linux tells of its listening sockets (proc_net(5), net/tcp
and net/tcp6) in our own network namespace; where that cannot be read, nothing is known. Never connects, and never tells whose a
port is.
"""

import asyncio
import ipaddress
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from understudy.core.snapshot import Address

# A listener that is just going, as a worker outside of its child's group does, has this long.
GOING_S_MAX: Final = 2.0
LOOK_INTERVAL_S: Final = 0.1

TABLES: Final = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))

# Of include/net/tcp_states.h. The kernel writes all listeners before anything else; older ones put half-open connections between.
_LISTEN: Final = "0A"
_FIRST: Final = frozenset({_LISTEN, "03"})

IP = ipaddress.IPv4Address | ipaddress.IPv6Address
_LOOPBACKS: Final[tuple[IP, ...]] = (ipaddress.IPv4Address("127.0.0.1"), ipaddress.IPv6Address("::1"))


async def is_free(address: Address, is_over: Callable[[], bool], tables: Iterable[Path] = TABLES) -> bool:
    """Return whether a child may be started for `address`: nobody listens there, or nothing is known of it.

    Looks again for up to GOING_S_MAX seconds while somebody does, and no longer once `is_over`. An address of another machine,
    or of one of this machine's that is not its loopback, is always free.
    """
    wanted = own_ips(address.host)
    until_s = asyncio.get_running_loop().time() + GOING_S_MAX
    while wanted and _is_taken(wanted, address.port, tables):
        if is_over() or asyncio.get_running_loop().time() >= until_s:
            return False
        await asyncio.sleep(LOOK_INTERVAL_S)
    return True


def own_ips(host: str) -> tuple[IP, ...]:
    """Return the loopback addresses that `host` stands for, none for any other; `0.0.0.0` and `::` lead there, too."""
    if host.lower().rstrip(".") == "localhost":
        return _LOOPBACKS
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return ()
    if ip.is_unspecified:
        return _LOOPBACKS
    return (ip,) if ip.is_loopback else ()


def read_listeners(lines: Iterable[str]) -> Iterator[tuple[IP, int]]:
    """Yield address and port of each listener of a table; lines that cannot be read are left out. Source: proc_net(5)."""
    for line in lines:
        words = line.split()
        if len(words) < 4 or words[0] == "sl":
            continue
        if words[3] not in _FIRST:
            return
        host, _, port = words[1].partition(":")
        if words[3] == _LISTEN:
            with suppress(ValueError):
                yield _read_ip(host), int(port, 16)


def _read_ip(text: str) -> IP:
    """Read 8 or 32 hex digits: words of 32 bits, each as the machine's own order of bytes has it. Raises ValueError."""
    words = (text[start : start + 8] for start in range(0, len(text), 8))
    packed = b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in words)
    ip = ipaddress.ip_address(packed)
    return ip.ipv4_mapped or ip if isinstance(ip, ipaddress.IPv6Address) else ip


def answers_at(listener: IP, wanted: IP) -> bool:
    """Whether who listens at `listener` is reached by who connects to `wanted`. `::` takes IPv4 as well, as Linux has it."""
    if listener.is_unspecified:
        return listener.version >= wanted.version
    return listener == wanted


def _is_taken(wanted: tuple[IP, ...], port: int, tables: Iterable[Path]) -> bool:
    for table in tables:
        with suppress(OSError), table.open(encoding="ascii", errors="replace") as lines:
            for listener, its_port in read_listeners(lines):
                if its_port == port and any(answers_at(listener, one) for one in wanted):
                    return True
    return False
