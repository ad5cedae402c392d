"""Every alert has its words in both languages, and they ask for nothing that no log event carries."""

import re
from string import Formatter

import pytest

from understudy.core.alert_words import PHRASES, SENTENCES, TESTS, TEXTS, UNITS, Saying, Words
from understudy.core.alerting import _FACTS, ALERT_EVENTS
from understudy.core.objectives import Objective
from understudy.core.upkeep import Language

# Ends are told in the words of what they end.
ENDS = {"backend.up", "pool.recovered", "restart.succeeded"}
GIVEN = {"who", "on", "off", "lasts", "since", "lasted", "times", "counted", "state"}


def asked(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def texts_of(words: Words) -> list[str]:
    texts = [words.title, words.over, words.who, words.on, words.off, words.lasts, words.told, *words.lines]
    return [*texts, words.aside, words.may, *(may for _, may in words.may_of)]


@pytest.mark.parametrize("language", Language)
def test_every_event_that_is_no_end_has_its_words(language: Language) -> None:
    assert set(TEXTS[language]) == set(ALERT_EVENTS) - ENDS
    assert set(SENTENCES[language]) == set(Saying) - {Saying.HAPPENED}
    assert PHRASES[language].keys() == PHRASES[Language.ENGLISH].keys()
    assert len(UNITS[language]) == 4
    assert len(TESTS[language]) == 2


@pytest.mark.parametrize("language", Language)
def test_every_event_has_a_state_or_a_sentence_of_its_own(language: Language) -> None:
    for event, words in TEXTS[language].items():
        assert bool(words.told) != bool(words.on and words.off and words.over), event
        assert words.lines, event


@pytest.mark.parametrize("language", Language)
def test_templates_ask_only_for_what_there_is(language: Language) -> None:
    for event, words in TEXTS[language].items():
        for text in texts_of(words):
            assert asked(text) <= GIVEN | set(_FACTS), event
    for text in SENTENCES[language].values():
        assert asked(text) <= GIVEN


def test_both_languages_ask_for_the_same() -> None:
    for event, english in TEXTS[Language.ENGLISH].items():
        chinese = TEXTS[Language.CHINESE][event]
        assert [asked(line) for line in english.lines] == [asked(line) for line in chinese.lines], event
        assert asked(english.told) == asked(chinese.told), event


def test_chinese_is_chinese_and_english_is_not() -> None:
    han = re.compile(r"[\u4e00-\u9fff]")
    assert all(han.search(line) for words in TEXTS[Language.CHINESE].values() for line in words.lines)
    assert not any(han.search(text) for words in TEXTS[Language.ENGLISH].values() for text in texts_of(words))


def test_what_has_begun_has_a_verb_of_its_own_in_english() -> None:
    for event, words in TEXTS[Language.ENGLISH].items():
        assert bool(words.lasts) == bool(words.on), event
        assert words.lasts.startswith("has been ") or words.lasts.endswith(",") or not words.on, event


def test_what_a_person_may_do_is_said_in_both_languages_or_in_none() -> None:
    for event, words in TEXTS[Language.ENGLISH].items():
        assert bool(words.may) == bool(TEXTS[Language.CHINESE][event].may), event
        assert not words.may.startswith("You may")
        of = [[who for who, _ in TEXTS[language][event].may_of] for language in Language]
        assert of[0] == of[1], event


@pytest.mark.parametrize("language", Language)
def test_what_stands_beside_a_sentence_is_one_of_its_lines(language: Language) -> None:
    for event, words in TEXTS[language].items():
        assert not words.aside or words.aside in words.lines, event


def test_what_is_said_of_single_promises_is_said_of_promises() -> None:
    assert {who for who, _ in TEXTS[Language.ENGLISH]["slo.broken"].may_of} <= {str(one) for one in Objective}
