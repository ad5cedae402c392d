"""The demo's words, its file and its table; the whole show is played in tests/integration."""

import pytest

from understudy.config.load import load_text
from understudy.demo.children import DemoError
from understudy.demo.client import Seam, Told
from understudy.demo.show import check_whole, explain, file_text, table, with_seams


def test_the_file_is_one_that_the_daemon_takes() -> None:
    settings = load_text(file_text([("pi", "http://127.0.0.1:1"), ("laptop", "http://127.0.0.1:2")]), {})
    assert [(backend.name, backend.role) for backend in settings.backends] == [("pi", "primary"), ("laptop", "backup")]
    assert settings.admin.listen.port == settings.listen[0].port == 0


def test_the_table_is_aligned_whatever_the_names() -> None:
    backends = [
        {"name": "pi", "role": "primary", "condition": "down", "reason": "refused the connection"},
        {"name": "a-long-name", "role": "backup", "condition": "warming", "reason": ""},
    ]
    lines = table(backends)
    assert len({line.index(word) for line, word in zip(lines, ("CONDITION", "down", "warming"), strict=True)}) == 1
    assert lines[1].endswith("refused the connection")
    assert lines[2].endswith("-")


@pytest.mark.parametrize(
    ("told", "is_killed", "words"),
    [
        (Told("", "pi", 1, 0.0, 0.0), False, "to pi, the primary"),
        (Told("", "laptop", 2, 0.0, 0.0), True, "tried pi, found nobody there, and had laptop answer"),
        (Told("", "laptop", 1, 0.0, 0.0), True, "knew already that pi is gone"),
    ],
)
def test_the_explanation_says_what_the_daemon_really_did(told: Told, is_killed: bool, words: str) -> None:
    assert words in explain(told, is_killed=is_killed)


def broken(text: str, *after_characters: int) -> Told:
    """Make an answer that was broken after so many characters."""
    return Told(text, "pi", 1, 0.0, 0.0, tuple(Seam("laptop", after, 0.0) for after in after_characters))


def test_an_answer_has_a_note_wherever_it_was_broken() -> None:
    assert with_seams(broken("good evening all")) == "good evening all"
    assert with_seams(broken("good evening all", 4, 12)) == "good [laptop goes on] evening [laptop goes on] all"


def test_a_broken_answer_that_is_whole_passes() -> None:
    check_whole(broken("good evening", 4), "good evening")


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (broken("good evening"), "nobody went on with it"),
        (broken("good vening", 4), "after 5 characters: 'vening' instead of 'evening'"),
        (broken("good  evening", 4), "after 5 characters: ' evening' instead of 'evening'"),
        (broken("good eveningg", 4), "after 12 characters: 'g' instead of ''"),
        (broken("good", 4), "after 4 characters: '' instead of ' evening'"),
    ],
)
def test_a_missing_or_doubled_character_ends_the_demo(told: Told, words: str) -> None:
    with pytest.raises(DemoError, match=words):
        check_whole(told, "good evening")
