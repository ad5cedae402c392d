import os
from pathlib import Path

import pytest

from understudy.config.quantities import Unreadable
from understudy.config.substitution import SECRET_BYTES_MAX, fill

ENV = {"PI_KEY": "secret", "EMPTY": "", "NESTED": "${PI_KEY} $$"}


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("plain", "plain"),
        ("${PI_KEY}", "secret"),
        ("a-${PI_KEY}-${PI_KEY}", "a-secret-secret"),
        ("${GONE:-default}", "default"),
        ("${EMPTY:-default}", "default"),
        ("${GONE:-}", ""),
        ("${EMPTY}", ""),
        ("${GONE:-a:-b c}", "a:-b c"),
        ("$$", "$"),
        ("$${PI_KEY}", "${PI_KEY}"),
        ("pa$word$", "pa$word$"),
        ("$$$$", "$$"),
        ("${NESTED}", "${PI_KEY} $$"),
    ],
)
def test_place_holders_are_filled_once(text: str, filled: str) -> None:
    assert fill(text, ENV) == filled


@pytest.mark.parametrize("text", ["${GONE}", "${", "${PI_KEY", "${}", "${a b}", "${1A}", "${GONE:-${PI_KEY}}", "${GONE-x}"])
def test_a_place_holder_that_cannot_be_filled_is_refused_without_a_value(text: str) -> None:
    with pytest.raises(Unreadable) as refused:
        fill(text, ENV)
    assert "secret" not in refused.value.found + refused.value.want


def test_a_file_is_filled_in_without_its_last_line_end(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    for content, value in ((b"abc\n", "abc"), (b"abc\r\n", "abc"), (b"abc", "abc"), (b"a\n\n", "a\n"), (b"", "")):
        secret.write_bytes(content)
        assert fill(f"${{file:{secret}}}", {}) == value


def test_a_file_that_cannot_be_read_is_refused_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "nul").write_bytes(b"a\0b")
    (tmp_path / "large").write_bytes(b"a" * (SECRET_BYTES_MAX + 1))
    os.mkfifo(tmp_path / "pipe")
    for name in ("gone", "folder", "binary", "nul", "large", "pipe"):
        with pytest.raises(Unreadable) as refused:
            fill(f"${{file:{tmp_path / name}}}", {})
        assert str(tmp_path / name) in refused.value.found


def test_a_relative_path_is_refused_because_nobody_knows_from_where() -> None:
    with pytest.raises(Unreadable, match="absolute"):
        fill("${file:key}", {})


def test_a_value_of_the_environment_that_is_no_text_is_refused() -> None:
    with pytest.raises(Unreadable) as refused:
        fill("${A}", {"A": "a\udcff"})
    assert refused.value.found == "${A}, which is not text"
