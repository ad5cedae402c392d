import os
from pathlib import Path

import pytest

from understudy.config.regular_file import read_regular_file


def test_a_file_is_read_up_to_the_bound(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abcdef")
    assert read_regular_file(tmp_path / "a", 100) == b"abcdef"
    assert read_regular_file(str(tmp_path / "a"), 3) == b"abc"


def test_what_only_looks_like_a_file_is_refused_at_once_and_left_closed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    before = os.listdir("/proc/self/fd")  # noqa: PTH208  descriptors, not paths
    for path in (tmp_path, tmp_path / "pipe", "/dev/zero", tmp_path / "gone", tmp_path / "loop", "a\0b"):
        with pytest.raises(OSError, match=r".+"):
            read_regular_file(path, 10)
    assert len(os.listdir("/proc/self/fd")) == len(before)  # noqa: PTH208  as above
