"""The page: readable by itself, and harmless whatever a model wrote."""

import re

from understudy.cli.compare_asking import Answer
from understudy.cli.compare_expectations import Expectation
from understudy.cli.compare_html import page
from understudy.cli.compare_pairs import About, Judged, pair_of, totals_of
from understudy.cli.compare_prompts import Entry
from understudy.cli.compare_verdict import Thresholds, interrupted, verdict_of
from understudy.core.color import Color

EVIL = "<script>alert(1)</script><img src=x onerror=y>\"'</td></details></pre>&amp;\x1b\u202e"
VOID = {"!doctype", "meta", "br"}
TAG = re.compile(r"<(/?)([^\s>/]+)([^>]*)>")


def tags_of(text: str) -> tuple[set[str], set[str]]:
    """Return the names of the tags and of their attributes, once every tag is found to be closed in order."""
    names: set[str] = set()
    attributes: set[str] = set()
    is_open: list[str] = []
    for closing, name, rest in TAG.findall(text):
        if closing:
            assert is_open.pop() == name
            continue
        names.add(name)
        attributes.update(re.findall(r"([\w-]+)=", re.sub(r'"[^"]*"', "", rest)))
        if name not in VOID:
            is_open.append(name)
    assert is_open == []
    return names, attributes


def written(text: str, title: str = "pi") -> str:
    entry = Entry(1, 1, [{"role": "user", "content": text}], name=text, expect=Expectation(contains=(text,)))
    broken = pair_of(entry, Answer(text, text, backend=text, is_truncated=True, faults=(text,)), Answer(text, error=text))
    judged = pair_of(entry, Answer(text), Answer("no"))
    judged.judged = Judged(Color.BLUE)
    totals = totals_of([broken, judged])
    return page(
        [broken, judged], totals, verdict_of(totals, Thresholds()), About((title, title), (title, title), title, title, title)
    )


def test_nothing_of_what_was_written_is_markup() -> None:
    for text in (EVIL, EVIL * 50):
        names, attributes = tags_of(written(text, EVIL))
        assert not names & {"script", "img", "link", "iframe", "a", "base", "form"}
        assert attributes <= {"lang", "charset", "http-equiv", "content", "name", "class"}


def test_it_forbids_what_might_have_slipped_through() -> None:
    assert "default-src &#x27;none&#x27;; style-src &#x27;unsafe-inline&#x27;" in written("x")
    assert "http" not in written("x").replace("http-equiv", "")


def test_it_says_the_verdict_the_totals_and_every_answer() -> None:
    told = written("good & evening")
    for words in ("green is worse: ", "good &amp; evening", "as expected", "error: ", "cut at its limit", "blue judged better"):
        assert words in told
    assert "color-scheme: light dark" in told


def test_a_long_text_is_unfolded_and_whole() -> None:
    told = written("word " * 500)
    assert "<details><summary><span" in told
    assert "word " * 500 in told
    # A summary holds no block (WHATWG HTML, 4.11.2), and what it shows gives way to the whole.
    assert not re.search(r"<summary>(?:(?!</summary>).)*<(?:pre|div|p)\b", told, re.DOTALL)
    assert "details[open] > summary > .said { display: none; }" in told


def test_it_says_what_it_is_of_and_when() -> None:
    about = About(("blue's", "green's"), ("tiny", "large"), "p.yaml", "2026-01-31 12:00:00+01:00", "1.2.3")
    told = page([], totals_of([]), interrupted("interrupted after 1 of 2 prompts"), about)
    assert "2026-01-31 12:00:00+01:00 · prompts: p.yaml · understudy 1.2.3" in told
    assert "<th>model</th><td>tiny</td><td>large</td>" in told
    assert '<p class="verdict none">interrupted after 1 of 2 prompts: no verdict</p>' in told
    assert "<ul>" not in told


def test_every_color_is_said_for_both_themes() -> None:
    told = written("x")
    assert "GrayText" not in told
    light, dark = re.findall(r":root \{(.*?)\}", told, re.DOTALL)
    assert re.findall(r"--\w+", light) == re.findall(r"--\w+", dark)


def test_what_cannot_be_seen_is_written_out() -> None:
    assert r"\x1b\u202e" in written(EVIL)
