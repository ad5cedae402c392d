import jsonschema
import pydantic
import pytest

from understudy.config.schema import Settings, json_schema
from understudy.config.schema_rollout import GuardSettings, PromptSettings, RolloutSettings
from understudy.core.color import Color, GuardRules, RolloutRules, Stick, SystemPlace

BACKENDS = [{"name": "pi", "url": "http://pi:11434"}]


def test_the_defaults_are_those_of_the_rules() -> None:
    rollout, rules = RolloutSettings(), RolloutRules()
    assert (rollout.active, rollout.stick, rollout.stick_max) == (rules.active, rules.stick, rules.stick_s_max)
    assert (rollout.canary, rollout.every, rollout.shadow) == (rules.shares, rules.every_s, rules.shadow)
    guard = GuardSettings()
    assert (guard.errors, guard.ttft_p95, guard.speed) == (None, None, None)
    assert (guard.window, guard.min_exchanges) == (GuardRules().window_s, GuardRules().exchanges_min)


def test_a_section_with_nothing_in_it_means_its_defaults() -> None:
    nothing = RolloutSettings.model_validate(dict.fromkeys(("guard", "blue", "green")))
    assert nothing == RolloutSettings()
    assert PromptSettings.model_validate({"defaults": None}) == PromptSettings()


def test_every_key_is_read() -> None:
    rollout = RolloutSettings.model_validate(
        {
            "active": "green",
            "stick": "cookie",
            "stick_max": "0s",
            "canary": ["5%", "25%", "100%"],
            "guard": {"errors": "2%", "ttft_p95": "1.5x", "speed": "off", "sessions": "no"},
            "green": {"system": "Be brief.\n", "system_place": "instead", "defaults": {"stop": ["\n"], "temperature": 0.2}},
        }
    )
    assert (rollout.active, rollout.stick, rollout.stick_max) == (Color.GREEN, Stick.COOKIE, 0.0)
    assert rollout.canary == (0.05, 0.25, 1.0)
    assert (rollout.guard.errors, rollout.guard.ttft_p95, rollout.guard.speed) == (0.02, 1.5, None)
    assert (rollout.green.system, rollout.green.system_place) == ("Be brief.", SystemPlace.INSTEAD)
    assert list(rollout.green.defaults.items()) == [("stop", '["\\n"]'), ("temperature", "0.2")]


def test_neither_a_prompt_nor_the_cookies_key_stands_in_a_repr() -> None:
    rollout = RolloutSettings.model_validate({"cookie_key": "hunter2" * 3, "green": {"system": "hunter2"}})
    assert "hunter2" not in repr(rollout)


@pytest.mark.parametrize("active", ["none", "Blue", "", None, 1])
def test_only_blue_and_green_can_be_active(active: object) -> None:
    with pytest.raises(pydantic.ValidationError, match="one of blue, green"):
        RolloutSettings.model_validate({"active": active})


@pytest.mark.parametrize(
    ("rollout", "other"),
    [
        ({"canary": "1"}, "green"),
        ({"canary": "100%"}, "green"),
        ({"canary": ["100%"]}, "green"),
        ({"active": "green", "canary": 1.0}, "blue"),
        ({"active": "gren", "canary": 1}, "green"),
    ],
)
def test_a_canary_of_everything_is_a_switch(rollout: dict[str, object], other: str) -> None:
    """Who writes 1 may mean one in a hundred; and who gives everything to green would wait for it to become active."""
    with pytest.raises(pydantic.ValidationError, match=f"a smaller share, or active: {other}"):
        RolloutSettings.model_validate(rollout)


@pytest.mark.parametrize(
    "rollout",
    [
        {},
        {"active": "green", "stick": "none", "stick_max": "0s", "canary": "5%", "shadow": 0.1, "preview": True},
        {"active": "${ACTIVE}", "canary": "${CANARY}", "cookie_key": "${KEY}"},
        {"canary": ["5%", 0.25, "${LAST}"], "every": "10m"},
        {"canary": ["99.9%", "100%"], "shadow": "100%"},
        {"canary": ["${FIRST}", 1], "shadow": 1, "cookie_key": "k" * 16},
        {"canary": 0, "shadow": "1.0", "cookie_key": ""},
        {"canary": "0%", "cookie_key": "${file:/run/k}"},
        {"guard": {"errors": "2%", "ttft_p95": "1.5x", "speed": 0.7, "window": "5m", "watch": "0s", "sessions": False}},
        {"guard": {"errors": "off", "ttft_p95": False, "speed": "${SPEED}"}},
        {"blue": {"system": "x", "system_place": "instead", "defaults": {"a": 1, "b": [None, {"c": "d"}]}}},
    ],
)
def test_an_editor_takes_what_the_loader_takes(rollout: dict[str, object]) -> None:
    jsonschema.Draft202012Validator(json_schema()).validate({"backends": BACKENDS, "rollout": rollout})


@pytest.mark.parametrize(
    "rollout",
    [
        {"active": "none"},
        {"stick": "forever"},
        {"canary": []},
        {"canary": "5"},
        {"canary": 10},
        {"canary": "200%"},
        {"canary": 1},
        {"canary": "1"},
        {"canary": "100%"},
        {"canary": ["100%"]},
        {"canary": [1, 1]},
        {"canary": ["5%", 2]},
        {"canary": ["5%", "200%"]},
        {"shadow": 10},
        {"shadow": "200%"},
        {"cookie_key": "k" * 15},
        {"cookie_key": "k" * 16 + " "},
        {"canary": ["5 %"]},
        {"canary": {"a": 1}},
        {"shadow": "all"},
        {"shadow_in_flight_max": 0},
        {"guard": {"ttft_p95": 0.9}},
        {"guard": {"ttft_p95": "1,5x"}},
        {"guard": {"speed": 1.1}},
        {"guard": {"errors": 2}},
        {"guard": {"errors": "200%"}},
        {"guard": {"errors": True}},
        {"guard": {"error": "2%"}},
        {"green": {"system": ["x"]}},
        {"green": {"system_place": "after"}},
        {"green": {"defaults": {"model": "x"}}},
        {"green": {"defaults": {"a b": 1}}},
        {"green": {"defaults": {f"k{number}": 1 for number in range(51)}}},
        {"green": {"defaults": [1]}},
    ],
)
def test_an_editor_refuses_what_the_loader_refuses(rollout: dict[str, object]) -> None:
    file = {"backends": BACKENDS, "rollout": rollout}
    assert not jsonschema.Draft202012Validator(json_schema()).is_valid(file)
    with pytest.raises(pydantic.ValidationError):
        Settings.model_validate(file)


def test_the_json_schema_writes_defaults_as_an_operator_does() -> None:
    keys = json_schema()["$defs"]["RolloutSettings"]["properties"]
    assert (keys["canary"]["default"], keys["every"]["default"], keys["active"]["default"]) == ("0%", "10m", "blue")
    assert json_schema()["$defs"]["GuardSettings"]["properties"]["errors"]["default"] == "off"
