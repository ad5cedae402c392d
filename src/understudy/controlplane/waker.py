"""Wake the machines that sleep while somebody asks for them: by a magic packet (Wake-on-LAN) or by a command.

Built by daemon, which calls `on_exchange` for every exchange and `tick` about twice a second. When is core.waking's to decide,
on the published snapshot, so reloads are followed. Never waits for a machine to come up: probes tell, and others answer
meanwhile.
"""

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from understudy.controlplane.restart_command import Commands
from understudy.core.snapshot import Backend, Published
from understudy.core.tally import Tally
from understudy.core.upkeep import WakeRules
from understudy.core.waking import WANTED_S, WakeFacts, Waking, sleeps, wanted

# A packet may be lost, and nobody answers it.
PACKETS: Final = 3
PACKET_GAP_S: Final = 0.1
COMMAND_S_MAX: Final = 60.0

# Models asked for lately; more than these are not told apart.
_MODELS_MAX: Final = 256
_WORDS_MAX: Final = 300


class Waker:
    """Wakes what sleeps and is wanted; each waking is a task of its own, one a backend.

    `clock` gives loop time in seconds, `tell` gets an event's name and its fields; `commands` runs the argv of `wake.command`.
    """

    def __init__(
        self,
        published: Published,
        tally: Tally,
        commands: Commands,
        *,
        clock: Callable[[], float],
        tell: Callable[[str, dict[str, object]], None],
    ) -> None:
        self._published = published
        self._tally = tally
        self._commands = commands
        self._clock = clock
        self._tell = tell
        self._waking = Waking()
        self._asked_at_s: dict[str, float] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        # Why the last try failed, by backend; told once until it changes.
        self._reasons: dict[str, str] = {}

    def on_exchange(self, model: str) -> None:
        """Hear that a client asks for `model` ("": none named), whatever becomes of it."""
        # The newest stands last, so that the oldest is forgotten first.
        self._asked_at_s.pop(model, None)
        self._asked_at_s[model] = self._clock()
        if len(self._asked_at_s) > _MODELS_MAX:
            del self._asked_at_s[next(iter(self._asked_at_s))]

    def tick(self) -> None:
        """Wake what is to be woken now. To be called about twice a second."""
        now_s = self._clock()
        snapshot = self._published.current
        self._asked_at_s = {model: at_s for model, at_s in self._asked_at_s.items() if now_s - at_s < WANTED_S}
        targets = {one.backend.name: one for one in snapshot.targets if can_wake(one.backend.wake)}
        facts = [
            WakeFacts(name, sleeps(one), wanted(one, snapshot, self._asked_at_s, now_s, self._is_ejected))
            for name, one in targets.items()
        ]
        self._reasons = {one.backend: self._reasons.get(one.backend, "") for one in facts if one.sleeps}
        for wake in self._waking.decide(facts, now_s):
            if wake.backend not in self._running:
                task = asyncio.get_running_loop().create_task(
                    self._wake(targets[wake.backend].backend, is_first=wake.is_first), name=f"waker.{wake.backend}"
                )
                self._running[wake.backend] = task
                task.add_done_callback(partial(self._on_done, wake.backend))

    def status(self, name: str) -> dict[str, Any]:
        """Return what a status tells of one backend, as JSON values."""
        return {"tries": self._waking.tries(name), "reason": self._reasons.get(name, "")}

    async def close(self) -> None:
        """End whatever is under way; returns when it is gone."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _is_ejected(self, name: str) -> bool:
        return self._clock() < self._tally.of(name).ejected_until_s

    def _on_done(self, name: str, task: asyncio.Task[None]) -> None:
        del self._running[name]
        if not task.cancelled() and (error := task.exception()) is not None:
            context = {"message": "waking a machine failed internally", "exception": error, "task": task}
            task.get_loop().call_exception_handler(context)

    async def _wake(self, backend: Backend, *, is_first: bool) -> None:
        name, rules = backend.name, backend.wake
        by = "command" if rules.argv else "packet"
        why = await self._run(rules.argv) if rules.argv else await _send_packets(rules)
        if why:
            if self._reasons.get(name) != why:
                self._tell("backend.not_woken", {"backend": name, "by": by, "reason": why})
        elif is_first or self._reasons.get(name):
            self._tell("backend.was_woken", {"backend": name, "by": by})
        self._reasons[name] = why

    async def _run(self, argv: tuple[str, ...]) -> str:
        outcome = await self._commands.run(argv, COMMAND_S_MAX)
        if outcome.is_done:
            return ""
        return ": ".join((outcome.words, *outcome.output[-1:]))[:_WORDS_MAX]


def can_wake(rules: WakeRules) -> bool:
    """Whether the file knows a way to wake the machine."""
    return bool(rules.mac or rules.argv)


def magic_packet(mac: str) -> bytes:
    """Return the packet that wakes the card with the address `mac`: six bytes of ff, then the address sixteen times (AMD, 20213).

    Takes the address in hexadecimal with or without separators. Raises ValueError for anything else.
    """
    address = bytes.fromhex("".join(character for character in mac if character not in ":-."))
    if len(address) != 6:
        raise ValueError(f"{mac} is no hardware address; want one such as 00:11:22:33:44:55")
    return b"\xff" * 6 + address * 16


async def _send_packets(rules: WakeRules) -> str:
    """Send the magic packet; returns why it cannot be, "" when it is on its way. Nobody tells whether it arrives."""
    packet = magic_packet(rules.mac)
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(rules.address, rules.port, type=socket.SOCK_DGRAM)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as sock:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            for nth in range(PACKETS):
                if nth:
                    await asyncio.sleep(PACKET_GAP_S)
                sock.sendto(packet, address)
    except OSError as exc:
        return f"no packet can be sent to {rules.address}:{rules.port}: {exc.strerror or exc}"
    return ""
