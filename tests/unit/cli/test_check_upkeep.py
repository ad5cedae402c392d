"""What check says of restarts, warmth, waking, objectives and alerts, and what it never shows."""

import pytest

from understudy.cli.check_upkeep import alert_lines, generate_words, slo_lines, upkeep_lines
from understudy.core.snapshot import Address, Backend, HealthRules
from understudy.core.upkeep import (
    NO_GENERATION,
    NO_SLO,
    AlertChannel,
    GenerateRules,
    GenerateWhen,
    Language,
    RestartKind,
    RestartRules,
    Severity,
    Slo,
    WakeRules,
    WarmRules,
)

ADDRESS = Address("http", "a", 80)


def test_a_backend_that_is_left_alone_has_no_line() -> None:
    assert list(upkeep_lines(Backend("a", ADDRESS))) == []


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (RestartRules(RestartKind.COMMAND, argv=("/usr/bin/ssh", "pi", "hunter2")), "by the command ssh with 2 arguments after"),
        (RestartRules(RestartKind.COMMAND, argv=("reboot",)), "by the command reboot after"),
        (RestartRules(RestartKind.COMMAND, argv=("curl -H hunter2",)), "by the command curl after"),
        (RestartRules(RestartKind.SYSTEMD, subject="ollama.service"), "as the systemd unit ollama.service after"),
        (RestartRules(RestartKind.DOCKER, subject="ollama"), "as the container ollama after"),
        (RestartRules(RestartKind.HTTP, subject="https://me:hunter2@hook/hunter2?hunter2"), "by a POST to https://hook after"),
        (RestartRules(RestartKind.RUN, argv=("vllm", "hunter2")), "as a child of the daemon, vllm with 1 argument, after"),
    ],
)
def test_each_means_is_told_without_what_may_be_a_secret(rules: RestartRules, words: str) -> None:
    (line,) = upkeep_lines(Backend("a", ADDRESS, restart=rules))
    assert line.startswith(f"is restarted {words} 6 failed probes; its exchanges move at once; it has 5m to answer; ")
    assert line.endswith("at most 5 per 1h, from 10s apart")
    assert "hunter2" not in line


def test_when_a_restart_comes_and_what_becomes_of_its_exchanges_is_told() -> None:
    rules = RestartRules(
        RestartKind.SYSTEMD, subject="u", after=0, drain_s=5.0, times_max=1, window_s=60.0, is_degraded_enough=True
    )
    (line,) = upkeep_lines(Backend("a", ADDRESS, restart=rules, health=HealthRules(fall=2)))
    assert line == (
        "is restarted as the systemd unit u after 2 failed probes, or when it is far slower than it was; its exchanges may go on "
        "for 5s, then move; it has 5m to answer; at most 1 per 60s, from 10s apart"
    )


def test_warmth_waking_and_load_are_a_line_each() -> None:
    backend = Backend(
        "a",
        ADDRESS,
        warm=WarmRules(("m", "n")),
        wake=WakeRules("aa:bb:cc:dd:ee:ff", "10.0.0.255"),
        metrics_url="http://me:hunter2@gpu1:9400/metrics",
    )
    assert list(upkeep_lines(backend)) == [
        "keeps m, n in memory, until 30m after its last exchange",
        "is woken by a packet for aa:bb:cc:dd:ee:ff to 10.0.0.255, port 9",
        "tells its load at http://gpu1:9400",
    ]
    other = Backend("a", ADDRESS, warm=WarmRules(("m",), 0.0), wake=WakeRules(argv=("wakeonlan", "hunter2")))
    assert list(upkeep_lines(other)) == ["keeps m in memory, always", "is woken by the command wakeonlan with 1 argument"]


def test_when_a_token_is_generated_ends_the_line_of_health() -> None:
    assert generate_words(NO_GENERATION) == ""
    assert (
        generate_words(GenerateRules(GenerateWhen.SUSPICIOUS))
        == "; one token is generated when probes are good and traffic is not"
    )
    assert generate_words(GenerateRules(GenerateWhen.EVERY, 600.0)).startswith(
        "; one token is generated after 10m without an answer"
    )


def test_what_is_promised_is_one_line() -> None:
    assert list(slo_lines(NO_SLO)) == []
    (line,) = slo_lines(Slo(0.001, 1.0, 0.7, 600.0))
    assert line == (
        "Promised, over 10m: at most 0.1% of the exchanges fail, 99 in 100 have their first content within 1s, "
        "GPUs are busy for at most 70% of the time."
    )


def test_a_channel_is_told_by_its_scheme() -> None:
    channels = (
        AlertChannel(
            "dingtalk://hunter2/", ("pool.empty", "slo.broken"), Language.CHINESE, 0.0, 22 * 60, 7 * 60, Severity.WARNING
        ),
        AlertChannel("mailto://hunter2"),
    )
    assert list(alert_lines(channels)) == [
        "Alerts by dingtalk, in Chinese: pool.empty, slo.broken, each once; warnings and errors in 22:00-07:00.",
        "Alerts by mailto, in English: everything, what lasts again every 4h.",
    ]
