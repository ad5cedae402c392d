"""Which colors a file has, and what of its rollout would go to one that is not there."""

import pytest

from understudy.config.colors import color_clashes, color_notes, is_there, tells_colors_apart
from understudy.config.schema import Settings
from understudy.core.color import Color

TRUSTED = {"trusted": ["sha256:" + "0" * 64]}


def file(*colors: str, **rollout: object) -> Settings:
    backends = [{"name": f"b{number}", "url": "http://b", "color": color} for number, color in enumerate(colors)]
    return Settings.model_validate({"backends": backends, "rollout": rollout, "access": TRUSTED})


def clashes(settings: Settings) -> list[str]:
    return [f"{'.'.join(clash.location)}: {clash.written}, {clash.fault}" for clash in color_clashes(settings)]


@pytest.mark.parametrize(
    ("settings", "is_on", "has_blue", "has_green"),
    [
        (file("none", "none"), False, False, False),
        (file("blue"), True, True, False),
        (file("green", "green"), True, False, True),
        (file("blue", "green"), True, True, True),
        (file("blue", "none"), True, True, True),
        (file("none", green={"system": "x"}), True, True, True),
        (file("none", blue={"defaults": {"top_k": 1}}), True, True, True),
    ],
)
def test_a_color_is_there_with_a_backend_of_its_own_or_one_of_none(
    settings: Settings, is_on: bool, has_blue: bool, has_green: bool
) -> None:
    assert tells_colors_apart(settings) is is_on
    assert (is_there(settings, Color.BLUE), is_there(settings, Color.GREEN)) == (has_blue, has_green)


@pytest.mark.parametrize(
    "settings",
    [
        file("none"),
        file("none", active="blue", stick="cookie", preview=True, guard={"errors": 0.1}),
        file("blue", active="blue", preview=True, stick="cookie"),
        file("green"),
        file("green", active="green"),
        file("blue", "green", active="green", canary="5%", shadow="5%"),
        file("none", canary="5%", shadow="5%", green={"system": "x"}),
    ],
)
def test_a_rollout_that_is_prepared_or_complete_clashes_with_nothing(settings: Settings) -> None:
    assert clashes(settings) == []


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (file("none", active="green"), ["rollout.active: green, and no backend is green"]),
        (file("blue", active="green"), ["rollout.active: green, and no backend is green"]),
        (file("green", active="blue"), ["rollout.active: blue, and no backend is blue"]),
        (file("none", canary="5%"), ["rollout.canary: 5%, and no backend is green"]),
        (file("green", active="green", shadow="5%"), ["rollout.shadow: 5%, and no backend is blue"]),
        (
            file("blue", canary=["5%", "100%"], shadow="1%"),
            ["rollout.canary: 5%, and no backend is green", "rollout.shadow: 1%, and no backend is green"],
        ),
    ],
)
def test_what_would_go_to_a_color_that_is_not_there_clashes(settings: Settings, told: list[str]) -> None:
    assert clashes(settings) == told


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (file("none"), []),
        (file("none", preview=True), ["no backend has a color and no color has a prompt, so rollout does nothing yet"]),
        (file("blue", "green"), []),
        (file("blue"), ["no backend is green yet, so there is nothing to switch to"]),
        (file("green"), ["no backend is blue, which is active; want rollout.active: green"]),
        (file("blue", "none", "green"), ["b1 has no color and serves blue and green"]),
        (file("none", "blue", "none"), ["b0, b2 have no color and serve blue and green"]),
        (file("none", green={"system": "x"}), []),
    ],
)
def test_what_may_surprise_is_a_note(settings: Settings, told: list[str]) -> None:
    assert list(color_notes(settings)) == told


def test_that_everybody_may_choose_is_a_note_where_there_is_a_choice() -> None:
    settings = file("blue", "green").model_copy(update={"access": file("none").access.model_copy(update={"trusted": ()})})
    assert list(color_notes(settings)) == ["access.trusted is empty, so every client may choose with X-Understudy-Color"]
