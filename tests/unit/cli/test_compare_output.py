"""Where a comparison is put: whole or not at all, and with the place's name where that fails."""

import io
import os
import stat
import sys
from pathlib import Path

import pytest

from understudy.cli.compare_output import STDOUT, is_same_file, print_text, refuse_unwritable, write_page


def test_a_page_is_written_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    refuse_unwritable(page)
    assert not page.exists()
    write_page(page, "雨\ud800")
    assert page.read_text(encoding="utf-8") == "雨?"
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    masked = os.umask(0)
    os.umask(masked)
    assert stat.S_IMODE(page.stat().st_mode) == 0o666 & ~masked


def test_an_older_page_keeps_its_mode_and_a_link_stays_one(tmp_path: Path) -> None:
    page, link = tmp_path / "report.html", tmp_path / "latest.html"
    page.write_text("old", encoding="utf-8")
    page.chmod(0o640)
    link.symlink_to(page)
    write_page(link, "new")
    assert (page.read_text(encoding="utf-8"), stat.S_IMODE(page.stat().st_mode), link.is_symlink()) == ("new", 0o640, True)


def test_a_device_is_written_where_it_is() -> None:
    refuse_unwritable(Path("/dev/null"))
    write_page(Path("/dev/null"), "page")
    assert Path("/dev/null").is_char_device()


def test_a_place_without_room_is_named() -> None:
    with pytest.raises(OSError, match="No space left") as full:
        write_page(Path("/dev/full"), "page")
    assert full.value.filename == "/dev/full"


def test_a_page_that_cannot_be_put_in_place_leaves_nothing_behind(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    refuse_unwritable(page)
    page.mkdir()
    (page / "in it").touch()
    with pytest.raises(OSError, match=r"\w") as refused:
        write_page(tmp_path / "gone" / "report.html", "page")
    assert refused.value.filename == str(tmp_path / "gone" / "report.html")
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_a_place_where_nothing_can_be_written_is_known_before(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for page in (tmp_path, tmp_path / "gone" / "r.html", tmp_path / "file" / "r.html"):
        with pytest.raises(OSError, match=r"\w") as refused:
            refuse_unwritable(page)
        assert refused.value.filename == str(page)


def test_one_file_is_known_by_whatever_name(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.touch()
    assert not is_same_file(one, other)
    other.symlink_to(one)
    assert is_same_file(one, other)
    assert not is_same_file(Path("/dev/null"), Path("/dev/null"))


def test_what_the_encoding_does_not_have_is_written_as_its_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="latin-1"))
    print_text("é 雨\n")
    assert raw.getvalue() == b"\xe9 \\u96e8\n"


def test_standard_output_without_room_is_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:  # noqa: PTH123  # the play needs a stream
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(OSError, match="No space left") as refused:
            print_text("text")
        assert refused.value.filename == STDOUT
        full.flush()


def test_a_reader_who_left_is_another_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", encoding="utf-8") as pipe:  # noqa: PTH123  # the play needs a stream
        monkeypatch.setattr(sys, "stdout", pipe)
        with pytest.raises(BrokenPipeError):
            print_text("text")
        os.dup2(os.open(os.devnull, os.O_WRONLY), writing)
