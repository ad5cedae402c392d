"""Log lines reach the stream, and a stream that cannot take them costs lines but never time."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from understudy.telemetry.writer import LineWriter, WriterLimits

PATIENT = WriterLimits(flush_s=60.0)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for fd in (reader, writer):
        try:
            os.close(fd)
        except OSError:
            continue


def tell_dropped(lines: int) -> bytes:
    return b"dropped %d\n" % lines


def read_all(fd: int) -> bytes:
    """Read what was written until every writer has closed."""
    pieces = []
    while piece := os.read(fd, 65536):
        pieces.append(piece)
    return b"".join(pieces)


def test_lines_are_written_in_order(pipe: tuple[int, int]) -> None:
    reader, fd = pipe
    writer = LineWriter(fd, tell_dropped)
    for number in range(100):
        writer.write(b"line %d\n" % number)
    writer.close()
    os.close(fd)
    assert read_all(reader).splitlines() == [b"line %d" % number for number in range(100)]
    assert writer.dropped_total == 0


def test_a_lone_line_is_written_without_a_second_one(pipe: tuple[int, int]) -> None:
    reader, fd = pipe
    writer = LineWriter(fd, tell_dropped)
    writer.write(b"alone\n")
    assert os.read(reader, 100) == b"alone\n"
    writer.close()


def test_many_bytes_are_written_before_the_time_is_up(pipe: tuple[int, int]) -> None:
    """The reader would wait a minute if 64 KiB were not urgent."""
    reader, fd = pipe
    writer = LineWriter(fd, tell_dropped, PATIENT)
    writer.write(b"x" * 65535 + b"\n")
    assert os.read(reader, 10) == b"x" * 10
    read = 10
    while read < 65536:
        read += len(os.read(reader, 65536))
    writer.close()


def test_closing_writes_what_is_pending(pipe: tuple[int, int]) -> None:
    reader, fd = pipe
    writer = LineWriter(fd, tell_dropped, PATIENT)
    writer.write(b"last\n")
    writer.close()
    assert os.read(reader, 100) == b"last\n"


def test_a_line_after_closing_is_counted_as_dropped(pipe: tuple[int, int]) -> None:
    writer = LineWriter(pipe[1], tell_dropped)
    writer.close()
    writer.write(b"late\n")
    assert writer.dropped_total == 1


def test_a_stuck_stream_drops_and_tells_once_it_moves(pipe: tuple[int, int]) -> None:
    """Nobody reads: the pipe holds 64 KiB, the buffer 128 KiB, and the rest is dropped; then somebody reads."""
    reader, fd = pipe
    writer = LineWriter(fd, tell_dropped, WriterLimits(pending_bytes_max=128 * 1024))
    line = b"y" * 1023 + b"\n"
    for _ in range(1000):
        writer.write(line)
    dropped = writer.dropped_total
    assert dropped >= 1000 - 128 - 64 - 1
    seen = b""
    while b"dropped" not in seen:
        seen += os.read(reader, 65536)
    assert b"\ndropped %d\n" % dropped in seen
    assert seen.count(line) == 1000 - dropped
    writer.close()


def test_closing_does_not_wait_for_a_stream_that_is_stuck(pipe: tuple[int, int]) -> None:
    _, fd = pipe
    writer = LineWriter(fd, tell_dropped, WriterLimits(pending_bytes_max=512 * 1024))
    writer.write(b"z" * 256 * 1024 + b"\n")
    writer.close(timeout_s=0.01)
    assert writer._thread is not None
    assert writer._thread.is_alive()


@pytest.mark.parametrize("way", ["closed", "reader_gone", "none"])
def test_a_stream_that_is_gone_raises_nothing(pipe: tuple[int, int], way: str) -> None:
    reader, fd = pipe
    if way == "closed":
        # A number that stays free: were it reused, the lines would land somewhere else.
        fd = 900_000
    if way == "reader_gone":
        os.close(reader)
    writer = LineWriter(None if way == "none" else fd, tell_dropped)
    writer.write(b"one\n")
    writer.write(b"two\n")
    writer.close()
    assert writer.dropped_total == 2


def test_a_full_disk_costs_lines_only() -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    writer = LineWriter(fd, tell_dropped)
    writer.write(b"lost\n")
    writer.close()
    os.close(fd)
    assert writer.dropped_total == 1


def test_a_non_blocking_stream_gets_everything(pipe: tuple[int, int]) -> None:
    reader, fd = pipe
    os.set_blocking(fd, False)
    writer = LineWriter(fd, tell_dropped)
    for _ in range(300):
        writer.write(b"n" * 1023 + b"\n")
    read = 0
    while read < 300 * 1024:
        read += len(os.read(reader, 65536))
    writer.close()
    assert writer.dropped_total == 0


def test_half_a_line_left_by_a_failure_does_not_swallow_the_next(tmp_path: Path) -> None:
    """A file size limit would end a line in its middle; what comes after begins on a line of its own."""
    path = tmp_path / "log"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    writer = LineWriter(fd, tell_dropped)
    os.write(fd, b"half")
    writer._is_mid_line = True
    writer.write(b"whole\n")
    writer.close()
    os.close(fd)
    assert path.read_bytes() == b"half\nwhole\n"
