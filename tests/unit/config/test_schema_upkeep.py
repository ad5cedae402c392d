import jsonschema
import pydantic
import pytest

from understudy.config.schema import Settings, json_schema
from understudy.config.schema_upkeep import AlertSettings, RestartSettings, SloSettings, WakeSettings
from understudy.core.upkeep import AlertChannel, Language, RestartKind, RestartRules, Severity, Slo, WakeRules

BACKEND = {"name": "pi", "url": "http://pi:11434"}


def file(
    restart: object = None, wake: object = None, alerts: object = None, slo: object = None, **backend: object
) -> dict[str, object]:
    sections = {"restart": restart, "wake": wake}
    given = {**BACKEND, **backend, **{key: value for key, value in sections.items() if value is not None}}
    outside = {key: value for key, value in (("alerts", alerts), ("slo", slo)) if value is not None}
    return {"backends": [given], **outside}


def test_the_defaults_are_those_of_the_rules() -> None:
    restart, rules = RestartSettings(), RestartRules(RestartKind.COMMAND)
    assert (restart.after, restart.drain, restart.grace) == (rules.after, rules.drain_s, rules.grace_s)
    assert (restart.timeout, restart.ready, restart.backoff) == (rules.timeout_s, rules.ready_s, rules.backoff_s)
    assert (restart.max, restart.degraded) == ((rules.times_max, rules.window_s), rules.is_degraded_enough)
    wake = WakeSettings()
    assert (wake.mac, wake.address, wake.port, wake.command) == (WakeRules().mac, WakeRules().address, WakeRules().port, ())
    alert, channel = AlertSettings(url=""), AlertChannel("")
    assert (alert.events, alert.language, alert.repeat) == (channel.events, channel.language, channel.repeat_s)
    assert (alert.quiet, alert.quiet_below) == (None, channel.quiet_below)
    slo = SloSettings()
    assert (slo.errors, slo.p99_first_content, slo.gpu_busy, slo.window) == (None, None, None, Slo().window_s)


def test_every_key_is_read() -> None:
    restart = RestartSettings.model_validate(
        {
            "run": ["llama-server", "--port", 8001],
            "env": {"CUDA_VISIBLE_DEVICES": 0, "EMPTY": ""},
            "folder": "/srv/models",
            "after": 0,
            "drain": "5s",
            "max": "3 per 30m",
            "degraded": "yes",
        }
    )
    assert restart.run == ("llama-server", "--port", "8001")
    assert restart.env == {"CUDA_VISIBLE_DEVICES": "0", "EMPTY": ""}
    assert (restart.folder, restart.after, restart.drain) == ("/srv/models", 0, 5.0)
    assert (restart.max.times, restart.max.window_s, restart.degraded) == (3, 1800.0, True)
    alert = AlertSettings.model_validate(
        {
            "url": "dingtalk://secret/",
            "events": ["pool.empty", "backend.down", "pool.empty"],
            "language": "zh",
            "repeat": "0s",
            "quiet": "22:00-07:00",
            "quiet_below": "info",
        }
    )
    assert (alert.events, alert.language, alert.repeat) == (("pool.empty", "backend.down"), Language.CHINESE, 0.0)
    assert (alert.quiet, alert.quiet_below) == ((22 * 60, 7 * 60), Severity.INFO)
    slo = SloSettings.model_validate({"errors": "0.1%", "p99_first_content": "1s", "gpu_busy": "70%", "window": "10m"})
    assert (slo.errors, slo.p99_first_content, slo.gpu_busy, slo.window) == (0.001, 1.0, 0.7, 600.0)


def test_what_may_hold_a_secret_stands_in_no_repr() -> None:
    url = "json://hunter2"
    assert "hunter2" not in repr(AlertSettings(url=url))
    assert "hunter2" not in repr(WakeSettings.model_validate({"command": ["hunter2"]}))


@pytest.mark.parametrize(
    "given",
    [
        file(restart={"command": ["ssh", "pi", "true"]}),
        file(restart={"systemd": "ollama.service", "max": "5 per 1h"}),
        file(restart={"systemd": "vllm@0.service", "max": "${MAX}"}),
        file(restart={"docker": "ollama", "degraded": True}),
        file(restart={"http": "https://me:key@hooks/x?y=z"}),
        file(restart={"http": "${HOOK}"}),
        file(restart={"run": ["a", 1, 0.5], "env": {"A": 1, "B": "x"}, "folder": "/a", "ready": "5m", "drain": 0}),
        file(restart={"command": [], "systemd": "", "docker": "", "http": "", "run": ["a"], "folder": "", "env": {}}),
        file(wake={"command": ["wake", "pi"]}),
        file(wake={"mac": "aa:bb:cc:dd:ee:ff", "address": "ff02::1", "port": "${PORT}"}),
        file(warm=["a", 1.5], warm_idle="always", metrics_url="http://a/metrics?x=y"),
        file(warm_idle=60),
        file(alerts=[]),
        file(alerts=[{"url": ""}, {"url": "${U:-}"}, {"url": "tgram://${TOKEN}/1", "events": []}]),
        file(alerts=[{"url": "mailto://a:b@c", "events": ["slo.broken", "${E}"], "quiet": False, "quiet_below": "info"}]),
        file(alerts=[{"url": "json://a", "quiet": "22:00-07:00", "language": "zh", "repeat": 0}]),
        file(slo={"errors": 0.001, "p99_first_content": 1.5, "gpu_busy": "70%", "window": "5m"}),
        file(slo={"errors": 0, "gpu_busy": "99.9%", "window": 10}),
        file(slo={"errors": "off", "p99_first_content": False, "gpu_busy": "${BUSY}"}),
    ],
)
def test_an_editor_takes_what_the_loader_takes(given: dict[str, object]) -> None:
    jsonschema.Draft202012Validator(json_schema()).validate(given)
    # A place-holder is filled before anything is read.
    if "${" not in str(given):
        Settings.model_validate(given)


@pytest.mark.parametrize(
    "given",
    [
        file(restart={"command": "systemctl restart ollama"}),
        file(restart={"command": [["a"]]}),
        file(restart={"run": [None]}),
        file(restart={"systemd": "-x"}),
        file(restart={"systemd": "a b"}),
        file(restart={"docker": "a/b"}),
        file(restart={"http": "ftp://a"}),
        file(restart={"env": {"1A": "x"}}),
        file(restart={"env": {"A": ["x"]}}),
        file(restart={"env": ["A=x"]}),
        file(restart={"folder": "models"}),
        file(restart={"after": -1}),
        file(restart={"max": "5/h"}),
        file(restart={"max": "0 per 1h"}),
        file(restart={"degraded": "x"}),
        file(restart={"comand": ["a"]}),
        file(restart=["a"]),
        file(wake={"mac": "aa:bb:cc:dd:ee"}),
        file(wake={"mac": "aa:bb-cc:dd:ee:ff"}),
        file(wake={"port": 0}),
        file(wake={"address": "pi"}),
        file(wake=["a"]),
        file(warm="a"),
        file(warm_idle="never"),
        file(metrics_url="gpu1:9400"),
        file(alerts={"url": "json://a"}),
        file(alerts=[{}]),
        file(alerts=["json://a"]),
        file(alerts=[{"url": "hunter2"}]),
        file(alerts=[{"url": "json://a", "events": ["backend.don"]}]),
        file(alerts=[{"url": "json://a", "events": "backend.down"}]),
        file(alerts=[{"url": "json://a", "language": "fr"}]),
        file(alerts=[{"url": "json://a", "quiet": "7-8"}]),
        file(alerts=[{"url": "json://a", "quiet_below": "loud"}]),
        file(slo={"errors": 2}),
        file(slo={"errors": 1}),
        file(slo={"errors": "1"}),
        file(slo={"gpu_busy": "100%"}),
        file(slo={"window": 9}),
        file(slo={"window": "long"}),
        file(slo={"p99_first_content": 0}),
        file(slo={"p99_first_content": "fast"}),
        file(slo={"gpu_busy": "170%"}),
    ],
)
def test_an_editor_refuses_what_the_loader_refuses(given: dict[str, object]) -> None:
    assert not jsonschema.Draft202012Validator(json_schema()).is_valid(given)
    with pytest.raises(pydantic.ValidationError):
        Settings.model_validate(given)


def test_the_json_schema_writes_defaults_as_an_operator_does() -> None:
    schemas = json_schema()["$defs"]
    restart, alert = schemas["RestartSettings"]["properties"], schemas["AlertSettings"]["properties"]
    assert (restart["max"]["default"], restart["ready"]["default"], restart["run"]["default"]) == ("5 per 1h", "5m", [])
    assert (alert["repeat"]["default"], alert["quiet"]["default"], alert["events"]["default"]) == ("4h", "off", [])
    assert schemas["SloSettings"]["properties"]["p99_first_content"]["default"] == "off"
