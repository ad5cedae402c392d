"""A comparison for programs."""

import json

from understudy.cli.compare_asking import Answer
from understudy.cli.compare_expectations import Expectation
from understudy.cli.compare_json import json_of
from understudy.cli.compare_pairs import Judged, pair_of, totals_of
from understudy.cli.compare_prompts import Entry
from understudy.cli.compare_verdict import Thresholds, verdict_of
from understudy.core.color import Color


def test_it_says_everything_in_ascii_on_one_line() -> None:
    entry = Entry(3, 7, [{"role": "user", "content": "?"}], name="rain", expect=Expectation(contains=("雨",)))
    pair = pair_of(entry, Answer("雨\n\x9b", tokens=1), Answer("sun"))
    pair.judged = Judged(Color.BLUE)
    totals = totals_of([pair])
    text = json_of([pair], totals, verdict_of(totals, Thresholds()), ("a", "b"))
    assert text.isascii()
    assert text.isprintable()
    value = json.loads(text)
    (prompt,) = value["prompts"]
    assert (prompt["number"], prompt["line"], prompt["name"], prompt["better"]) == (3, 7, "rain", "blue")
    assert (prompt["blue"]["text"], prompt["blue"]["met"], prompt["green"]["met"]) == ("雨\n\x9b", True, False)
    assert value["sides"] == {"blue": "a", "green": "b"}
    assert value["totals"]["blue"]["met"] == 1
    assert value["verdict"]["green_is_worse"] is True
    assert value["verdict"]["checks"][0]["option"] == "--max-unmet 0%"


def test_what_nobody_expected_or_judged_is_null() -> None:
    pairs = [pair_of(Entry(1, 1, [{"role": "user", "content": "?"}]), Answer("a"), Answer("a")) for _ in range(2)]
    pairs[1].judged = Judged(Color.NONE)
    totals = totals_of(pairs)
    first, second = json.loads(json_of(pairs, totals, verdict_of(totals, Thresholds()), ("a", "b")))["prompts"]
    assert (first["blue"]["met"], first["better"], second["better"]) == (None, None, "tie")
