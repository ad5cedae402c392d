"""Plays of looking who listens where a child is to answer."""

import asyncio
import socket
import sys
from ipaddress import ip_address
from pathlib import Path

import pytest

from understudy.controlplane.restart_port import TABLES, answers_at, is_free, own_ips, read_listeners
from understudy.core.snapshot import Address

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def hexed(ip: str) -> str:
    """Write an address as the kernel of this machine does: words in its own order of bytes."""
    packed = ip_address(ip).packed
    words = (packed[start : start + 4] for start in range(0, len(packed), 4))
    return "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)


def line(ip: str, port: int, state: str = "0A") -> str:
    return f"   0: {hexed(ip)}:{port:04X} {hexed('0.0.0.0')}:0000 {state} 00000000:00000000 00:00000000 00000000 0 0 6701510 1\n"


def table(folder: Path, *lines: str) -> tuple[Path, ...]:
    path = folder / "tcp"
    path.write_text(HEAD + "".join(lines))
    return (folder / "none", path)


def backend(host: str = "127.0.0.1", port: int = 8081) -> Address:
    return Address("http", host, port)


def test_the_listeners_are_read_and_nothing_behind_them() -> None:
    lines = [HEAD, line("127.0.0.1", 80), line("::1", 81), line("127.0.0.1", 82, "03"), line("::ffff:127.0.0.1", 83)]
    behind = [line("127.0.0.1", 84, "01"), line("127.0.0.1", 85)]
    found = [(ip_address(ip), port) for ip, port in [("127.0.0.1", 80), ("::1", 81), ("127.0.0.1", 83)]]
    assert list(read_listeners(lines + behind)) == found


@pytest.mark.parametrize("broken", ["", "\n", "0: x:y z 0A", "0: 0100007F 0 0A", "0: :: :: 0A", "0: 0100007F:G 0 0A"])
def test_a_line_that_cannot_be_read_is_left_out(broken: str) -> None:
    assert list(read_listeners([broken, line("127.0.0.1", 80)])) == [(ip_address("127.0.0.1"), 80)]


@pytest.mark.parametrize(
    ("host", "ips"),
    [
        ("127.0.0.1", ["127.0.0.1"]),
        ("127.0.0.2", ["127.0.0.2"]),
        ("::1", ["::1"]),
        ("localhost", ["127.0.0.1", "::1"]),
        ("Localhost.", ["127.0.0.1", "::1"]),
        ("0.0.0.0", ["127.0.0.1", "::1"]),
        ("::", ["127.0.0.1", "::1"]),
        ("10.0.0.5", []),
        ("gpu1", []),
    ],
)
def test_what_a_backends_host_stands_for_on_this_machine(host: str, ips: list[str]) -> None:
    assert own_ips(host) == tuple(ip_address(ip) for ip in ips)


@pytest.mark.parametrize(
    ("listener", "wanted", "answers"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("0.0.0.0", "127.0.0.1", True),
        ("::", "127.0.0.1", True),
        ("::", "::1", True),
        ("0.0.0.0", "::1", False),
        ("::1", "127.0.0.1", False),
        ("10.0.0.5", "127.0.0.1", False),
    ],
)
def test_who_answers_at_an_address(listener: str, wanted: str, answers: bool) -> None:
    assert answers_at(ip_address(listener), ip_address(wanted)) is answers


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
async def test_a_listener_of_this_machine_is_seen_and_gone_when_it_is_closed(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        assert not await is_free(backend(host, port), lambda: True)
        looking = asyncio.ensure_future(is_free(backend(host, port), lambda: False))
        await asyncio.wait([looking], timeout=0.0)
        assert not looking.done()
    assert await looking


async def test_who_connects_from_a_port_does_not_listen_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert await is_free(backend(port=client.getsockname()[1]), lambda: True)


async def test_another_port_and_another_machine_are_free(tmp_path: Path) -> None:
    tables = table(tmp_path, line("0.0.0.0", 8081))
    assert not await is_free(backend(), lambda: True, tables)
    assert await is_free(backend(port=8082), lambda: True, tables)
    assert await is_free(backend("10.0.0.5"), lambda: True, tables)
    assert await is_free(backend("gpu1"), lambda: True, tables)


async def test_where_nothing_can_be_read_nothing_is_known(tmp_path: Path) -> None:
    assert await is_free(backend(), lambda: True, (tmp_path / "none", tmp_path))


def test_both_families_are_looked_at() -> None:
    assert [path.name for path in TABLES] == ["tcp", "tcp6"]
