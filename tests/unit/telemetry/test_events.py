"""The list of events is closed and well formed."""

import re

from understudy.telemetry.events import EVENTS, Event, Level


def test_every_event_has_a_level() -> None:
    assert set(EVENTS) == set(Event)
    assert all(isinstance(level, Level) for level in EVENTS.values())


def test_names_are_a_noun_and_what_happened_to_it() -> None:
    assert all(re.fullmatch(r"[a-z]+\.[a-z]+(_[a-z]+)*", event) for event in Event)
