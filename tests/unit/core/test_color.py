"""Which color is the other one, and what a backend makes of its color's prompt."""

import pytest

from understudy.core.color import NO_PROMPT, Color, GuardRules, Prompt, RolloutRules, SystemPlace


def test_blue_and_green_are_each_other_s_other_and_none_has_none() -> None:
    assert [color.other for color in (Color.BLUE, Color.GREEN, Color.NONE)] == [Color.GREEN, Color.BLUE, Color.NONE]


def test_prompt_is_empty_as_long_as_it_adds_nothing() -> None:
    assert NO_PROMPT.is_empty
    assert Prompt(place=SystemPlace.INSTEAD).is_empty
    assert not Prompt(system="Be brief.").is_empty
    assert not Prompt(defaults=(("temperature", "0"),)).is_empty


def test_backend_without_a_prompt_has_its_color_s() -> None:
    of_color = Prompt("Be brief.", SystemPlace.INSTEAD, (("temperature", "0"),))
    assert of_color.under(NO_PROMPT) is of_color


def test_backend_s_own_system_and_defaults_go_first() -> None:
    of_color = Prompt("Be brief.", SystemPlace.BEFORE, (("temperature", "0"), ("seed", "1")))
    own = Prompt("Be kind.", SystemPlace.INSTEAD, (("temperature", "1"),))
    assert of_color.under(own) == Prompt("Be kind.", SystemPlace.INSTEAD, (("temperature", "1"), ("seed", "1")))


def test_backend_with_defaults_alone_keeps_its_color_s_system_and_its_place() -> None:
    of_color = Prompt("Be brief.", SystemPlace.INSTEAD)
    own = Prompt(place=SystemPlace.BEFORE, defaults=(("seed", "1"),))
    assert of_color.under(own) == Prompt("Be brief.", SystemPlace.INSTEAD, (("seed", "1"),))


@pytest.mark.parametrize("bounds", [{"errors": 0.0}, {"ttft_p95": 1.5}, {"speed": 0.7}])
def test_guard_is_on_with_any_one_bound(bounds: dict[str, float]) -> None:
    assert GuardRules(**bounds).is_on  # type: ignore[arg-type]  # the keys are of bounds alone
    assert not GuardRules(window_s=60.0).is_on


def test_each_color_has_its_own_prompt_and_none_has_nothing() -> None:
    rules = RolloutRules(blue=Prompt("B"), green=Prompt("G"))
    assert [rules.prompt_of(color).system for color in Color] == ["B", "G", ""]


def test_repr_tells_neither_a_prompt_nor_the_key_of_cookies() -> None:
    shown = repr(RolloutRules(cookie_key="hush", blue=Prompt("Be brief.")))
    assert "hush" not in shown
    assert "brief" not in shown
