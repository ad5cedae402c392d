"""The kernel's count of what it killed for want of memory, and whom each of those kills explains."""

from pathlib import Path

import pytest

from understudy.controlplane.restart_memory import MemoryKills, events_path


def counting(path: Path, count: int) -> None:
    path.write_text(f"low 0\nhigh 0\nmax 7\noom 9\noom_kill {count}\noom_group_kill 0\n")


@pytest.mark.parametrize(
    ("told", "below"),
    [
        ("0::/system.slice/understudy.service\n", "system.slice/understudy.service/memory.events"),
        ("0::/\n", "memory.events"),
        ("4:memory:/a\n0::/b\n", "b/memory.events"),
        ("4:memory:/a\n", None),
        ("", None),
    ],
)
def test_the_events_are_those_of_our_own_group(told: str, below: str | None, tmp_path: Path) -> None:
    ours = tmp_path / "cgroup"
    ours.write_text(told)
    assert events_path(ours, tmp_path) == (None if below is None else tmp_path / below)


def test_where_there_is_no_kernel_that_tells_there_are_no_events(tmp_path: Path) -> None:
    assert events_path(tmp_path / "none", tmp_path) is None


@pytest.mark.parametrize("text", [None, "", "oom_kill\n", "oom_kill x\n", "low 1\n"])
def test_what_is_not_told_is_no_kill(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "memory.events"
    if text is not None:
        path.write_text(text)
    assert MemoryKills(path).count() == 0
    assert not MemoryKills(path).claim(0)
    assert not MemoryKills(None).claim(0)


def test_a_kill_explains_one_end_and_none_that_began_after_it(tmp_path: Path) -> None:
    path = tmp_path / "memory.events"
    counting(path, 3)
    kills = MemoryKills(path)
    before = kills.count()
    assert before == 3
    assert not kills.claim(before)
    counting(path, 5)
    assert not kills.claim(kills.count())
    assert [kills.claim(before) for _ in range(3)] == [True, True, False]
