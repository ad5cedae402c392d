import jsonschema
import pydantic
import pytest

from understudy.config.addresses import ListenAddress
from understudy.config.schema import Settings, holds_secret, is_secret, json_schema, sections
from understudy.config.schema_backends import HealthSettings

BACKEND = {"name": "pi", "url": "http://pi:11434"}


def test_only_the_backends_are_required() -> None:
    settings = Settings.model_validate({"backends": [BACKEND]})
    assert settings.listen == (ListenAddress("127.0.0.1", 8080),)
    assert settings.admin.listen == ListenAddress("127.0.0.1", 9901)
    assert settings.backends[0].health == HealthSettings()


def test_settings_are_frozen() -> None:
    settings = Settings.model_validate({"backends": [BACKEND]})
    with pytest.raises(pydantic.ValidationError):
        settings.backends = ()


def test_a_section_with_nothing_in_it_means_its_defaults() -> None:
    bare = Settings.model_validate({"backends": [BACKEND]})
    nothing = dict.fromkeys(
        ("admin", "health", "timeouts", "failover", "sessions", "cache", "rollout", "slo", "alerts", "access", "log", "limits")
    )
    backend = {**BACKEND, **dict.fromkeys(("models", "health", "timeouts", "defaults", "restart", "warm", "wake"))}
    assert Settings.model_validate({"backends": [backend], **nothing}) == bare


@pytest.mark.parametrize("key", ["color", "warm", "restart", "generate", "keepalive", "wake", "metrics_url"])
def test_a_key_of_a_section_is_none_of_the_file(key: str) -> None:
    with pytest.raises(pydantic.ValidationError, match="Extra inputs"):
        Settings.model_validate({"backends": [BACKEND], key: "x"})


def test_what_opens_the_store_stands_in_no_repr() -> None:
    settings = Settings.model_validate(
        {"backends": [BACKEND], "sessions": {"store": "redis://:hunter2@cache", "key": b"hunter2!".hex() * 4}}
    )
    assert "hunter2" not in repr(settings)
    assert settings.sessions.key not in repr(settings)
    assert "hunter2" not in settings.model_dump_json()


def test_every_section_is_listed_once_under_its_keys() -> None:
    for path, section in sections().items():
        above = sections()[path[:-1]] if path else None
        assert above is None or path[-1] in above.model_fields
        assert section.model_config["extra"] == "forbid"


def test_these_are_the_secrets() -> None:
    """The schema tells them by what it keeps out of reprs; here they stand a second time, so that none is lost by a slip."""
    paths = [(*path, key) for path, section in sections().items() for key in section.model_fields]
    assert {".".join(path) for path in paths if is_secret(path)} == {
        "admin.token",
        "backends.api_key",
        "backends.system",
        "backends.restart.command",
        "backends.restart.run",
        "backends.restart.http",
        "backends.restart.env",
        "backends.wake.command",
        "backends.metrics_url",
        "sessions.key",
        "rollout.cookie_key",
        "rollout.blue.system",
        "rollout.green.system",
        "alerts.url",
        "access.trusted",
    }


def test_what_lies_below_a_secret_is_one_and_what_lies_above_it_holds_one() -> None:
    assert is_secret(("backends", "restart", "env", "NAME"))
    assert not is_secret(("backends", "restart"))
    assert not is_secret(("backends", "url"))
    assert holds_secret(("backends", "restart"))
    assert holds_secret(("alerts",))
    assert not holds_secret(("health",))
    assert not holds_secret(("backends", "models"))


def test_the_json_schema_takes_what_the_loader_takes() -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    validator.validate({"listen": ["[::]:80", "unix:/a"], "backends": [{**BACKEND, "weight": 3, "models": {"a": "b"}}]})
    validator.validate({"backends": [{**BACKEND, "weight": "${W}"}], "timeouts": {"stall": 3, "total": "1.5m"}})
    validator.validate({"backends": [{**BACKEND, "timeouts": {"stall": "1s"}}], "failover": {"resume": "exact", "hedge": True}})
    validator.validate({"backends": [BACKEND], "failover": {"resume": False}, "access": {"trusted": ["sha256:" + "0a" * 32]}})
    validator.validate({"backends": [{**BACKEND, "system": "x", "system_place": "instead", "defaults": {"temperature": 0.2}}]})
    validator.validate({"backends": [BACKEND], "log": {"slow": "3s"}})
    validator.validate({"backends": [BACKEND], "sessions": {"store": "file:/a", "messages_max": 2}, "cache": {"size": 0}})


@pytest.mark.parametrize(
    "file",
    [
        {},
        {"backends": []},
        {"backends": [{"name": "a"}]},
        {"backends": [BACKEND], "x": 1},
        {"backends": [{**BACKEND, "weight": 0}]},
        {"backends": [BACKEND], "failover": {"resume": "maybe"}},
        {"backends": [BACKEND], "access": {"trusted": ["my key"]}},
        {"backends": [{**BACKEND, "timeouts": {"total": "1s"}}]},
        {"backends": [{**BACKEND, "defaults": {"messages": []}}]},
        {"backends": [BACKEND], "log": {"slow": "slow"}},
        {"backends": [BACKEND], "sessions": {"store": "sqlite:/a"}},
        {"backends": [BACKEND], "sessions": {"messages_max": 1}},
        {"backends": [BACKEND], "cache": {"when": "never"}},
    ],
)
def test_the_json_schema_refuses_what_the_loader_refuses(file: dict[str, object]) -> None:
    assert not jsonschema.Draft202012Validator(json_schema()).is_valid(file)


def test_what_keeps_backends_well_is_offered_to_an_editor() -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    for wake in ("aa:bb:cc:dd:ee:ff", "${MAC:-}", "", {"mac": "AA-BB-CC-DD-EE-FF", "address": "10.0.0.255", "port": 7}, {}):
        validator.validate({"backends": [{**BACKEND, "wake": wake, "warm": ["a"], "warm_idle": "always"}]})
    assert not validator.is_valid({"backends": [{**BACKEND, "wake": "pi"}]})
    assert json_schema()["properties"]["alerts"]["items"] == {"$ref": "#/$defs/AlertSettings"}
    assert "default" not in json_schema()["$defs"]["BackendSettings"]["properties"]["restart"]


def test_the_json_schema_writes_defaults_as_an_operator_does() -> None:
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$defs"]["HealthSettings"]["properties"]["interval"]["default"] == "5s"
    assert schema["$defs"]["FailoverSettings"]["properties"]["body_max"]["default"] == "32MiB"
    assert schema["properties"]["listen"]["default"] == "127.0.0.1:8080"
