"""What of restarting, waking, alerts and objectives does not go together, and what may surprise."""

import pytest

from understudy.config.schema import Settings
from understudy.config.schema_upkeep import RestartSettings
from understudy.config.upkeep import restart_kinds, upkeep_clashes, upkeep_notes
from understudy.core.upkeep import RestartKind

LOOPBACK = {"name": "b", "url": "http://127.0.0.1:8001"}
PACKET = {"mac": "aa:bb:cc:dd:ee:ff"}


def file(**given: object) -> Settings:
    """One backend on loopback with these keys, and alerts and slo beside it."""
    backend = {key: value for key, value in given.items() if key not in {"alerts", "slo"}}
    alerts, slo = given.get("alerts"), given.get("slo")
    return Settings.model_validate({"backends": [{**LOOPBACK, **backend}], "alerts": alerts, "slo": slo})


def clashes(settings: Settings) -> list[str]:
    return [f"{'.'.join(map(str, clash.location))}: {clash.found}; {clash.want}" for clash in upkeep_clashes(settings)]


@pytest.mark.parametrize(
    ("restart", "kind"),
    [
        ({"command": ["a"]}, RestartKind.COMMAND),
        ({"systemd": "a"}, RestartKind.SYSTEMD),
        ({"docker": "a"}, RestartKind.DOCKER),
        ({"http": "http://a"}, RestartKind.HTTP),
        ({"run": ["a"]}, RestartKind.RUN),
    ],
)
def test_each_means_is_known_by_its_key(restart: dict[str, object], kind: RestartKind) -> None:
    assert restart_kinds(RestartSettings.model_validate(restart)) == (kind,)
    assert clashes(file(restart=restart)) == []


@pytest.mark.parametrize(
    "settings",
    [
        file(),
        file(restart=None, wake=None),
        file(restart={}, wake={}),
        file(restart={"docker": "a", "timeout": "11s"}),
        file(restart={"docker": "a", "timeout": "1s", "grace": "0s"}),
        file(restart={"systemd": "a", "timeout": "1s"}),
        file(restart={"run": ["a"], "timeout": "1s"}),
        file(restart={"run": ["a"], "env": {"A": "b"}, "folder": "/a"}),
        file(restart={"command": ["a"], "systemd": "", "docker": "", "http": "", "run": [], "env": {}, "folder": ""}),
        file(wake={**PACKET, "address": "10.0.0.255", "port": 7}),
        file(wake={"command": ["a"]}),
        file(wake={"mac": "", "address": "10.0.0.255", "port": 7, "command": []}),
        file(wake=""),
        file(wake=PACKET),
    ],
)
def test_what_goes_together_clashes_with_nothing(settings: Settings) -> None:
    assert clashes(settings) == []


@pytest.mark.parametrize(
    ("backend", "told"),
    [
        ({"restart": {"after": 3}}, ["restart: none of its means; exactly one of command, systemd, docker, http, run"]),
        ({"restart": {"systemd": ""}}, ["restart: none of its means; exactly one of command, systemd, docker, http, run"]),
        (
            {"restart": {"command": ["a"], "http": "http://a", "run": ["a"]}},
            [
                "restart.http: http beside command; exactly one of command, systemd, docker, http, run",
                "restart.run: run beside command; exactly one of command, systemd, docker, http, run",
            ],
        ),
        (
            {"restart": {"systemd": "a", "env": {"A": "b"}, "folder": "/a"}},
            ["restart.env: env without run; run, or no env", "restart.folder: folder without run; run, or no folder"],
        ),
        (
            {"restart": {"docker": "a", "timeout": "10s"}},
            ["restart.timeout: 10s, no longer than grace with its 10s; a timeout longer than grace, or a shorter grace"],
        ),
        (
            {"restart": {"docker": "a", "grace": "90s"}},
            ["restart.grace: 90s, no shorter than timeout with its 60s; a grace shorter than timeout, or a longer timeout"],
        ),
        ({"wake": {**PACKET, "command": ["a"]}}, ["wake.command: command beside mac; one of mac, command"]),
        ({"wake": {"address": "10.0.0.255"}}, ["wake.address: address without mac; mac, or no address"]),
        ({"wake": {"command": ["a"], "port": 9}}, ["wake.port: port without mac; mac, or no port"]),
    ],
)
def test_what_does_not_go_together_is_told_where_it_stands(backend: dict[str, object], told: list[str]) -> None:
    assert clashes(file(**backend)) == [f"backends.0.{line}" for line in told]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (file(), []),
        (file(restart={"run": ["a"]}), []),
        (file(restart={"run": ["a"]}, url="http://localhost:1"), []),
        (file(restart={"run": ["a"]}, url="http://[::1]:1"), []),
        (file(restart={"run": ["a"]}, url="http://gpu1"), ["b runs as a child of the daemon, but its url is not on loopback"]),
        (file(restart={"command": ["a"]}, url="http://gpu1"), []),
        (file(warm=["a"], warm_idle="1h"), []),
        (file(warm=[], warm_idle="1h"), []),
        (file(warm_idle="1h"), ["warm_idle of b does nothing without warm"]),
        (file(wake=PACKET), []),
        (file(alerts=({"url": "json://a"},)), []),
        (file(alerts=({"url": "json://a"}, {"url": ""})), ["alerts[1].url is empty, so this channel is left out"]),
        (file(slo={"gpu_busy": "70%"}), ["slo.gpu_busy is never known, because no backend has a metrics_url"]),
        (file(slo={"gpu_busy": "70%"}, metrics_url="http://a/metrics"), []),
        (file(slo={"errors": "1%"}), []),
        (file(slo={"errors": "1%", "window": "5m"}), []),
        (
            file(slo={"errors": "off", "window": "5m"}),
            ["slo.window does nothing without a promise; want errors, p99_first_content or gpu_busy beside it"],
        ),
    ],
)
def test_what_may_surprise_is_a_note(settings: Settings, told: list[str]) -> None:
    assert list(upkeep_notes(settings)) == told


@pytest.mark.parametrize("backend", [{"restart": {"command": ["systemctl hunter2"]}}, {"wake": {"command": ["wake hunter2"]}}])
def test_a_whole_line_as_one_word_is_a_note_that_does_not_show_it(backend: dict[str, object]) -> None:
    (note,) = upkeep_notes(file(**backend))
    assert note.endswith(
        "command of b is one word with spaces in it, which is taken for a program's name; "
        "want each word apart: [systemctl, restart, ollama]"
    )
    assert "hunter2" not in note
