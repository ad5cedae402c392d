import jsonschema
import pydantic
import pytest

from understudy.config.schema import json_schema
from understudy.config.schema_backends import BackendSettings, HealthSettings
from understudy.config.schema_upkeep import RestartSettings, WakeSettings
from understudy.core.upkeep import NO_GENERATION, GenerateRules, GenerateWhen

BACKEND = {"name": "pi", "url": "http://pi:11434"}


@pytest.mark.parametrize("key", ["total", "keepalive", "hold"])
def test_what_concerns_a_whole_exchange_is_no_key_of_one_backend(key: str) -> None:
    with pytest.raises(pydantic.ValidationError, match="Extra inputs"):
        BackendSettings.model_validate({**BACKEND, "timeouts": {key: "1s"}})


def test_secrets_stand_in_no_repr_and_in_no_message() -> None:
    restart = {"run": ["hunter2"], "command": ["hunter2"], "env": {"A": "hunter2"}, "http": "http://hunter2"}
    given = {"api_key": "hunter2", "system": "hunter2", "metrics_url": "http://hunter2", "wake": {"command": ["hunter2"]}}
    backend = BackendSettings.model_validate({**BACKEND, **given, "restart": restart})
    assert "hunter2" not in repr(backend)
    for key, value in (("api_key", "hunter2 x"), ("metrics_url", "hunter2"), ("restart", {"command": "hunter2"})):
        with pytest.raises(pydantic.ValidationError) as refused:
            BackendSettings.model_validate({**BACKEND, key: value})
        assert "hunter2" not in str(refused.value)


def test_a_backend_is_neither_restarted_nor_warmed_nor_woken_unless_it_says_so() -> None:
    bare = BackendSettings.model_validate(BACKEND)
    assert bare.restart == RestartSettings()
    assert bare.wake == WakeSettings()
    assert (bare.warm, bare.warm_idle, bare.metrics_url) == ((), 1800.0, "")
    assert bare.health.generate == NO_GENERATION


def test_a_mac_address_stands_for_the_section_of_waking() -> None:
    short = BackendSettings.model_validate({**BACKEND, "wake": "AA-BB-CC-DD-EE-FF"})
    full = BackendSettings.model_validate({**BACKEND, "wake": {"mac": "aa:bb:cc:dd:ee:ff", "port": 9}})
    assert short.wake == full.wake
    assert BackendSettings.model_validate({**BACKEND, "wake": ""}).wake == WakeSettings()


@pytest.mark.parametrize(
    ("written", "rules", "again"),
    [
        ("off", NO_GENERATION, "off"),
        (False, NO_GENERATION, "off"),
        ("suspicious", GenerateRules(GenerateWhen.SUSPICIOUS), "suspicious"),
        ("10m", GenerateRules(GenerateWhen.EVERY, 600.0), "10m"),
    ],
)
def test_when_a_token_is_generated_is_a_word_or_a_duration(written: object, rules: GenerateRules, again: str) -> None:
    health = HealthSettings.model_validate({"generate": written})
    assert health.generate == rules
    assert health.model_dump(mode="json")["generate"] == again
    jsonschema.Draft202012Validator(json_schema()).validate({"backends": [BACKEND], "health": {"generate": written}})
