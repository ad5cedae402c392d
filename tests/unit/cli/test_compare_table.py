"""What a person reads at a terminal: two columns that fit, nothing that speaks to the terminal, the verdict last."""

import pytest

from understudy.cli.compare_asking import Answer
from understudy.cli.compare_expectations import Expectation
from understudy.cli.compare_pairs import Judged, Pair, pair_of, totals_of
from understudy.cli.compare_prompts import Entry
from understudy.cli.compare_table import Paper, measured, seconds, shortened, summary, table, width_of, wrapped
from understudy.cli.compare_verdict import Thresholds, verdict_of
from understudy.core.color import Color

TITLES = ("pi at http://pi", "gpu")


def pair(blue: Answer, green: Answer) -> Pair:
    asked = Entry(1, 1, [{"role": "user", "content": "Who\nis \x1bthere?"}], expect=Expectation(contains=("good",)))
    return pair_of(asked, blue, green)


def lines(one: Pair, paper: Paper) -> list[str]:
    return list(table([one], TITLES, paper))


def test_both_answers_stand_beside_each_other() -> None:
    one = pair(
        Answer("good evening", tokens=2, ttft_s=0.184, speed=45.12, backend="pi"), Answer("bye", tokens=1, is_estimated=True)
    )
    one.judged = Judged(Color.BLUE)
    assert lines(one, Paper(80)) == [
        r"1. Who is \x1bthere? (0% alike, blue judged better)",
        "blue: pi at http://pi                    green: gpu",
        "good evening                             bye",
        "[2 tokens, first after 0.184s, 45.1/s,   [~1 token]",
        'by pi]                                   unmet: does not contain "good"',
        "as expected",
        "",
    ]


@pytest.mark.parametrize("width", [10, 40, 81, 1000])
def test_no_line_is_wider_than_the_terminal_may_be(width: int) -> None:
    one = pair(Answer("word " * 99 + "雨" * 99 + "x" * 999), Answer("\x1b[2J\u202e\r\n\tgone", error="lost \x1b" * 20))
    paper = Paper(width)
    told = lines(one, paper)
    assert max(map(width_of, told)) <= min(max(width, 40), 200)
    assert all(line.isprintable() for line in told)


def test_a_long_answer_is_shortened_unless_all_is_wanted() -> None:
    one = pair(Answer("\n".join(f"line {n}" for n in range(20))), Answer("good"))
    short, full = "\n".join(lines(one, Paper(80))), "\n".join(lines(one, Paper(80, lines_max=0)))
    assert "line 5 ..." in short
    assert "line 6" not in short
    assert "line 19" in full


def test_a_megabyte_on_one_line_is_quick() -> None:
    one = pair(Answer("a" * 10**6), Answer("good"))
    assert len(lines(one, Paper(80, lines_max=0))) > 20_000


def test_there_are_colors_only_where_they_are_wanted() -> None:
    one = pair(Answer("good"), Answer(error="lost"))
    assert "\x1b[31m" in "\n".join(lines(one, Paper(80, is_colored=True)))
    assert "\x1b" not in "\n".join(lines(one, Paper(80)))


def test_the_summary_ends_with_the_verdict() -> None:
    one = pair(
        Answer("good", tokens=9, ttft_s=0.1, speed=50.0), Answer("bad", tokens=9, ttft_s=0.2, speed=25.0, is_truncated=True)
    )
    one.judged = Judged(Color.NONE, unreadable=1)
    totals = totals_of([one])
    told = list(summary(totals, verdict_of(totals, Thresholds()), Paper()))
    assert told == [
        "                         blue      green",
        "answered                 1/1       1/1",
        "errors                   0         0",
        "wrong form               0         0",
        "cut at the token limit   0         1",
        "as expected              1/1 100%  0/1 0%",
        "tokens                   9         9",
        "first content, median    0.100s    0.200s (2.00x)",
        "tokens a second, median  50.0      25.0 (0.50x)",
        "",
        "The answers are 0% alike on average.",
        "The judge found blue better in 0, green better in 0, 1 tie (1 unreadable).",
        "--max-unmet 0%: expectations met 0% against 100%, worse",
        "--max-errors 0%: failed 0% against 0%, kept",
        "",
        "green is worse: expectations met 0% against 100% (--max-unmet 0%)",
    ]


def test_texts_are_broken_between_words_and_by_their_width() -> None:
    assert wrapped("one two three", 8) == ["one two", "three"]
    assert wrapped("", 8) == [""]
    assert wrapped("abcdefghij", 4) == ["abcd", "efgh", "ij"]
    assert wrapped("雨雨雨", 5) == ["雨雨", "雨"]
    assert wrapped("雨", 1) == ["雨"]
    assert wrapped("  indented text", 10) == ["  indented", "text"]
    assert (shortened("雨雨雨雨", 7), shortened("abc", 3), width_of("e\u0301")) == ("雨雨...", "abc", 1)


def test_times_are_as_exact_as_they_are_worth() -> None:
    assert [seconds(value) for value in (None, 0.1844, 2.314, 41.03)] == ["-", "0.184s", "2.31s", "41.0s"]
    assert measured(Answer(calls=2)) == "0 tokens, 2 tool calls"
