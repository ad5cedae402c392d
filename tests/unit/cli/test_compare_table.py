"""What a person reads at a terminal: two columns that fit, nothing that speaks to the terminal, the verdict last."""

import pytest

from understudy.cli.compare_asking import Answer
from understudy.cli.compare_expectations import Expectation
from understudy.cli.compare_pairs import Judged, Pair, pair_of, totals_of
from understudy.cli.compare_prompts import Entry
from understudy.cli.compare_table import (
    Paper,
    facts_of,
    measured,
    readable,
    seconds,
    shared_lines,
    shortened,
    summary,
    table,
    width_of,
    wrapped,
)
from understudy.cli.compare_verdict import Thresholds, interrupted, verdict_of
from understudy.core.color import Color

TITLES = ("pi at http://pi", "gpu")


def pair(blue: Answer, green: Answer) -> Pair:
    asked = Entry(1, 1, [{"role": "user", "content": "Who\nis \x1bthere?"}], expect=Expectation(contains=("good",)))
    return pair_of(asked, blue, green)


def lines(one: Pair, paper: Paper) -> list[str]:
    return list(table([one], TITLES, paper))


def test_both_answers_stand_beside_each_other() -> None:
    one = pair(
        Answer("good evening", tokens=2, ttft_s=0.184, token_speed=45.12, backend="pi"),
        Answer("bye", tokens=1, is_estimated=True),
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
    painted = lines(one, Paper(80, is_colored=True))
    assert "\x1b[31m" in "\n".join(painted)
    # What has no color has no end of one.
    assert painted[2] == "good"
    assert "\x1b" not in "\n".join(lines(one, Paper(80)))


def test_the_summary_ends_with_the_verdict() -> None:
    blue = Answer("good", tokens=9, ttft_s=0.1, speed=150.0, token_speed=50.0)
    green = Answer("bad", tokens=9, is_estimated=True, ttft_s=0.2, speed=75.0, token_speed=25.0, is_truncated=True)
    one = pair(blue, green)
    one.judged = Judged(Color.NONE, unreadable=1)
    totals = totals_of([one])
    told = list(summary(totals, verdict_of(totals, Thresholds()), Paper()))
    assert told == [
        "                             blue      green",
        "answered                     1/1       1/1",
        "errors                       0         0",
        "wrong form                   0         0",
        "cut at the token limit       0         1",
        "as expected                  1/1 100%  0/1 0%",
        "tokens                       9         ~9",
        "first content, median        0.100s    0.200s (2.00x)",
        "tokens a second, median      50.0      ~25.0",
        "characters a second, median  150       75 (0.50x)",
        "",
        "The answers are 0% alike on average.",
        "The judge's word could not be read in 1.",
        "--max-unmet 0%: green met 0% of the expectations, blue 100%, worse",
        "--max-errors 0%: green failed 0%, blue 0%, kept",
        "",
        "green is worse: green met 0% of the expectations, blue 100% (--max-unmet 0%)",
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
    assert measured(Answer(calls=2, is_estimated=True)) == "0 tokens, 2 tool calls"
    assert measured(Answer(error="refused the connection", is_estimated=True)) == ""
    assert measured(Answer(error="broke off", tokens=2, is_estimated=True)) == "~2 tokens"
    assert measured(Answer(tokens=9, token_speed=3.0, is_estimated=True)) == "~9 tokens, ~3.0/s"


FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"


def test_what_joins_emoji_and_letters_stays_and_all_else_unseen_is_written_out() -> None:
    assert readable(FAMILY) == FAMILY
    assert readable("\u0645\u06cc\u200c\u062e") == "\u0645\u06cc\u200c\u062e"
    assert readable("a\u200db \u200d\u202e") == r"a\u200db \u200d\u202e"
    assert width_of("\u2764\ufe0f") == 1
    assert width_of(FAMILY) == 6


@pytest.mark.parametrize(
    ("judged", "facts"),
    [
        (Judged(Color.GREEN), ["green judged better"]),
        (Judged(Color.NONE), ["judged a tie"]),
        (Judged(Color.NONE, unreadable=1), ["the judge's word could not be read"]),
        (Judged(Color.NONE, error="refused the connection"), ["the judge could not be asked"]),
        (Judged(Color.NONE, is_same=True), []),
    ],
)
def test_a_judge_that_said_nothing_found_no_tie(judged: Judged, facts: list[str]) -> None:
    one = pair(Answer("a"), Answer("b"))
    one.judged = judged
    assert facts_of(one) == ["0% alike", *facts]


def test_why_the_judge_gave_no_word_is_told_apart() -> None:
    said = [Judged(Color.BLUE), Judged(Color.NONE, is_swayed=True), Judged(Color.NONE, unreadable=2)]
    said += [Judged(Color.NONE, is_same=True), Judged(Color.NONE, error="answered 500: \x1b")]
    pairs = [Pair(Entry(1, 1, []), Answer(error="x"), Answer(error="x"), judged=judged) for judged in said]
    assert list(shared_lines(totals_of(pairs))) == [
        "The judge found blue better in 1, green better in 0, 1 tie (1 by order alone).",
        "The judge's word could not be read in 1.",
        r"The judge could not be asked in 1: answered 500: \x1b.",
        "The judge was not asked in 1: the same text twice.",
    ]


def test_an_interrupted_comparison_ends_with_that() -> None:
    totals = totals_of([pair(Answer("good"), Answer("bad"))])
    told = list(summary(totals, interrupted("interrupted after 1 of 2 prompts"), Paper(is_colored=True)))
    assert told[-1] == "\x1b[1minterrupted after 1 of 2 prompts: no verdict\x1b[0m"
    assert not any("--max" in line for line in told)


def test_where_nothing_is_said_of_both_no_line_is_left_for_it() -> None:
    totals = totals_of([pair(Answer(error="lost"), Answer(error="lost"))])
    told = list(summary(totals, interrupted("stopped"), Paper()))
    assert told[-2:] == ["", "stopped: no verdict"]
    assert told[-3] != ""
