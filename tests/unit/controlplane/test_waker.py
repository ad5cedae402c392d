"""Plays of waking machines: the packet is caught on loopback, the command is a real one."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from support.targets import DOWN, UP, snapshot_of, target
from understudy.controlplane.restart_command import Commands
from understudy.controlplane.waker import PACKETS, Waker, can_wake, magic_packet
from understudy.core.snapshot import BackendState, Published
from understudy.core.tally import Tally
from understudy.core.upkeep import NO_WAKING, WakeRules

MAC = "00:1B:44:11:3a:b7"
PACKET = b"\xff" * 6 + bytes.fromhex("001b44113ab7") * 16


class Catcher(asyncio.DatagramProtocol):
    """What a card would hear."""

    def __init__(self) -> None:
        self.packets: asyncio.Queue[bytes] = asyncio.Queue(100)

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.packets.put_nowait(data)


class Stage:
    """A waker for one sleeping backend, gpu0."""

    def __init__(self, rules: WakeRules) -> None:
        self.now_s = 1000.0
        self.told: list[tuple[str, dict[str, object]]] = []
        self.rules = rules
        self.published = Published(snapshot_of())
        self.commands = Commands(os.environ)
        self.waker = Waker(
            self.published,
            Tally(),
            self.commands,
            clock=lambda: self.now_s,
            tell=lambda event, fields: self.told.append((event, fields)),
        )

    def tick(self, state: BackendState = DOWN, *, passing_s: float = 0.5) -> None:
        one = target(0, state)
        self.published.current = snapshot_of(replace(one, backend=replace(one.backend, wake=self.rules)))
        self.now_s += passing_s
        self.waker.tick()

    async def ask(self, *, after_s: float = 0.0) -> None:
        """Let a client ask after a while, and wait for what comes of it."""
        self.now_s += after_s
        self.waker.on_exchange("qwen")
        self.tick()
        await self.done()

    async def done(self) -> None:
        await asyncio.gather(*self.waker._running.values())
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def caught() -> AsyncIterator[tuple[Stage, Catcher]]:
    transport, catcher = await asyncio.get_running_loop().create_datagram_endpoint(Catcher, ("127.0.0.1", 0))
    stage = Stage(WakeRules(mac=MAC, address="127.0.0.1", port=transport.get_extra_info("sockname")[1]))
    yield stage, catcher
    await stage.waker.close()
    stage.commands.close()
    transport.close()


@pytest.mark.parametrize("mac", [MAC, "00-1b-44-11-3A-B7", "001b.4411.3ab7", "001b44113ab7"])
def test_the_packet_is_six_bytes_of_ff_and_sixteen_times_the_address(mac: str) -> None:
    assert magic_packet(mac) == PACKET
    assert len(PACKET) == 102


@pytest.mark.parametrize("mac", ["", "00:11:22:33:44", "00:11:22:33:44:55:66", "not an address"])
def test_what_is_no_hardware_address_is_refused(mac: str) -> None:
    with pytest.raises(ValueError, match=r"address|hexadecimal"):
        magic_packet(mac)


def test_a_machine_can_be_woken_by_an_address_or_a_command() -> None:
    assert not can_wake(NO_WAKING)
    assert can_wake(WakeRules(mac=MAC))
    assert can_wake(WakeRules(argv=("true",)))


async def test_a_sleeping_machine_that_is_asked_for_hears_the_packet_and_it_is_told_once() -> None:
    async with caught() as (stage, catcher):
        stage.waker.on_exchange("qwen")
        stage.tick()
        assert [await catcher.packets.get() for _ in range(PACKETS)] == [PACKET] * PACKETS
        await stage.done()
        stage.waker.on_exchange("qwen")
        stage.tick(passing_s=59.0)
        assert stage.waker.status("gpu0") == {"tries": 1, "reason": ""}
        stage.waker.on_exchange("qwen")
        stage.tick(passing_s=1.0)
        assert [await catcher.packets.get() for _ in range(PACKETS)] == [PACKET] * PACKETS
        await stage.done()
        assert stage.told == [("backend.was_woken", {"backend": "gpu0", "by": "packet"})]
        assert stage.waker.status("gpu0") == {"tries": 2, "reason": ""}
        stage.tick(UP)
        assert stage.waker.status("gpu0") == {"tries": 0, "reason": ""}


async def test_a_machine_that_nobody_asks_for_and_one_that_is_up_hear_nothing() -> None:
    async with caught() as (stage, catcher):
        stage.tick()
        stage.waker.on_exchange("qwen")
        stage.tick(UP)
        stage.tick(passing_s=60.0)
        assert stage.waker._running == {}
        assert catcher.packets.empty()
        assert stage.told == []


async def test_names_of_models_are_kept_in_bounds() -> None:
    async with caught() as (stage, _):
        for nth in range(1000):
            stage.waker.on_exchange(f"model{nth}")
        assert len(stage.waker._asked_at_s) == 256
        assert "model999" in stage.waker._asked_at_s
        stage.tick(passing_s=60.0)
        assert stage.waker._asked_at_s == {}


async def test_an_address_that_cannot_be_reached_is_told_with_what_was_meant() -> None:
    stage = Stage(WakeRules(mac=MAC, address="understudy-has-no-such-name.invalid"))
    stage.waker.on_exchange("qwen")
    stage.tick()
    await stage.done()
    event, fields = stage.told[0]
    assert event == "backend.not_woken"
    assert str(fields["reason"]).startswith("no packet can be sent to understudy-has-no-such-name.invalid:9: ")


async def test_a_command_is_run_without_a_shell(tmp_path: Path) -> None:
    mark = tmp_path / "woken; echo"
    stage = Stage(WakeRules(argv=(sys.executable, "-c", "import pathlib, sys; pathlib.Path(sys.argv[1]).touch()", str(mark))))
    stage.waker.on_exchange("qwen")
    stage.tick()
    await stage.done()
    assert mark.exists()
    assert stage.told == [("backend.was_woken", {"backend": "gpu0", "by": "command"})]
    stage.commands.close()


async def test_a_failing_command_is_told_once_with_its_status_and_its_last_word_and_told_again_when_it_works() -> None:
    failing = (sys.executable, "-c", "print('no route'); raise SystemExit(3)")
    stage = Stage(WakeRules(argv=failing))
    await stage.ask()
    await stage.ask(after_s=60.0)
    reason = f"{sys.executable} ended with exit status 3: no route"
    assert stage.told == [("backend.not_woken", {"backend": "gpu0", "by": "command", "reason": reason})]
    assert stage.waker.status("gpu0") == {"tries": 2, "reason": reason}
    stage.rules = WakeRules(argv=(sys.executable, "-c", ""))
    await stage.ask(after_s=120.0)
    assert stage.told[-1] == ("backend.was_woken", {"backend": "gpu0", "by": "command"})
    stage.commands.close()


async def test_the_close_ends_a_command_that_is_under_way(tmp_path: Path) -> None:
    fifo = tmp_path / "pid"
    os.mkfifo(fifo)
    program = "import os, pathlib, signal, sys; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); signal.pause()"
    stage = Stage(WakeRules(argv=(sys.executable, "-c", program, str(fifo))))
    stage.waker.on_exchange("qwen")
    stage.tick()
    pid = int(await asyncio.to_thread(fifo.read_text))
    descriptor, gone = os.pidfd_open(pid), asyncio.Event()
    asyncio.get_running_loop().add_reader(descriptor, gone.set)
    await stage.waker.close()
    assert stage.waker._running == {}
    await gone.wait()
    asyncio.get_running_loop().remove_reader(descriptor)
    os.close(descriptor)
    stage.commands.close()
