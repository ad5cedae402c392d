"""A comparison for programs."""

import json

from understudy.cli.compare_asking import Answer
from understudy.cli.compare_expectations import Expectation
from understudy.cli.compare_json import json_of
from understudy.cli.compare_pairs import About, Judged, pair_of, totals_of
from understudy.cli.compare_prompts import Entry
from understudy.cli.compare_verdict import Thresholds, interrupted, verdict_of
from understudy.core.color import Color

ABOUT = About(("a", "b"), ("tiny", "large"), "p.yaml", "2026-01-31 12:00:00+00:00", "1.0")


def test_it_says_everything_in_ascii_on_one_line() -> None:
    entry = Entry(3, 7, [{"role": "user", "content": "?"}], name="rain", expect=Expectation(contains=("雨",)))
    pair = pair_of(entry, Answer("雨\n\x9b", tokens=1), Answer("sun"))
    pair.judged = Judged(Color.BLUE)
    totals = totals_of([pair])
    text = json_of([pair], totals, verdict_of(totals, Thresholds()), ABOUT)
    assert text.isascii()
    assert text.isprintable()
    value = json.loads(text)
    (prompt,) = value["prompts"]
    assert (prompt["number"], prompt["line"], prompt["name"], prompt["better"]) == (3, 7, "rain", "blue")
    assert (prompt["blue"]["text"], prompt["blue"]["met"], prompt["green"]["met"]) == ("雨\n\x9b", True, False)
    assert (value["sides"], value["models"]) == ({"blue": "a", "green": "b"}, {"blue": "tiny", "green": "large"})
    assert value["about"] == {"at": "2026-01-31 12:00:00+00:00", "version": "1.0", "prompts": "p.yaml"}
    assert value["totals"]["blue"]["met"] == 1
    assert (value["verdict"]["green_is_worse"], value["verdict"]["is_interrupted"]) == (True, False)
    assert value["verdict"]["checks"][0]["option"] == "--max-unmet 0%"


def test_what_nobody_expected_or_judged_is_null() -> None:
    pairs = [pair_of(Entry(1, 1, [{"role": "user", "content": "?"}]), Answer("a"), Answer("a")) for _ in range(2)]
    pairs[1].judged = Judged(Color.NONE)
    totals = totals_of(pairs)
    first, second = json.loads(json_of(pairs, totals, verdict_of(totals, Thresholds()), ABOUT))["prompts"]
    assert (first["blue"]["met"], first["better"], second["better"]) == (None, None, "tie")


def test_a_judge_that_said_nothing_found_no_tie() -> None:
    said = [Judged(Color.NONE, unreadable=1), Judged(Color.NONE, is_same=True), Judged(Color.NONE, error="answered 500")]
    pairs = [pair_of(Entry(1, 1, []), Answer("a"), Answer("b")) for _ in said]
    for pair, judged in zip(pairs, said, strict=True):
        pair.judged = judged
    totals = totals_of(pairs)
    prompts = json.loads(json_of(pairs, totals, verdict_of(totals, Thresholds()), ABOUT))["prompts"]
    assert [(each["better"], each["judge_error"]) for each in prompts] == [(None, ""), (None, ""), (None, "answered 500")]


def test_an_interrupted_comparison_is_neither_worse_nor_no_worse() -> None:
    verdict = json.loads(json_of([], totals_of([]), interrupted("interrupted after 1 of 2 prompts"), ABOUT))["verdict"]
    assert (verdict["green_is_worse"], verdict["is_interrupted"]) == (None, True)
    assert verdict["line"] == "interrupted after 1 of 2 prompts: no verdict"
