"""What the daemon sees, as a table that people read and as JSON."""

import argparse
import json
import socket
import time
from typing import Any

import pytest

from support.admin_stage import STATUS, StageOperator, open_admin_port
from understudy.cli.main import main
from understudy.cli.status import duration, run, table

PI: dict[str, Any] = STATUS["backends"][0]


def shown(is_colored: bool = False, **changes: Any) -> list[str]:
    return table(STATUS | changes, is_colored=is_colored).splitlines()


def row(**changes: Any) -> str:
    return shown(backends=[PI | changes])[-1]


def test_the_table_reads_well() -> None:
    assert shown() == [
        "understudy 0.1.0, ready, up 1h 2m, listening on 127.0.0.1:8080",
        "3 running, 1 waiting, 12 connections",
        "/etc/understudy/understudy.yaml, generation 4, never reloaded",
        "",
        "BACKEND  ROLE     ENGINE         CONDITION  FOR    IN FLIGHT  FIRST CONTENT  FAILURES  MODELS   REASON",
        "pi       primary  ollama 0.11.4  up         1h 0m  2/4        0.18s          7         qwen2.5",
    ]


def test_colors_have_a_column_where_there_are_any() -> None:
    lines = shown(backends=[PI | {"color": "blue"}, PI | {"name": "laptop", "role": "backup", "color": "green"}, PI])
    assert lines[4].startswith("BACKEND  ROLE     COLOR  ENGINE  ")
    assert [line.split()[2] for line in lines[5:]] == ["blue", "green", "none"]
    assert len({line.index("ollama") for line in lines[5:]}) == 1


def test_rollout_is_one_line_above_the_table() -> None:
    rollout = {"active": "green", "word": "command", "since": time.time() - 720.0, "file_active": "blue", "kept": True}
    lines = shown(rollout=rollout)
    assert lines[3:5] == ["green is active (by command, 12m 0s ago; the file says blue)", ""]
    assert lines[5].startswith("BACKEND")


def test_rollout_goes_on_below_where_it_is_wider_than_the_terminal() -> None:
    rollout = {"active": "green", "word": "command", "file_active": "blue", "kept": False, "reason": "forced"}
    lines = table(STATUS | {"rollout": rollout}, is_colored=False, width=60).splitlines()
    assert lines[3:6] == [
        "green is active (by command; the file says blue);",
        "  last change: forced; not kept across a restart",
        "",
    ]


def test_an_active_color_without_a_backend_is_said() -> None:
    rollout = {"active": "green", "word": "file", "file_active": "green", "kept": True}
    lines = shown(rollout=rollout, backends=[PI | {"color": "blue"}])
    assert lines[3] == "green is active (as the file says); no backend is green; blue answers"
    assert shown(rollout=rollout, backends=[PI | {"color": "blue"}, PI])[3] == "green is active (as the file says)"


def test_columns_fit_the_longest_cell() -> None:
    lines = shown(backends=[PI, PI | {"name": "a-much-longer-name", "role": "backup"}])
    assert len({line.index(word) for line, word in zip(lines[4:], ("ROLE", "primary", "backup"), strict=True)}) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"condition": "down", "reason": "refused the connection"}, "down"),
        ({"duty": "draining"}, "up, draining"),
        ({"ejected_for_s": 8.0}, "up, ejected 8.0s"),
        ({"half_open": True}, "up, half-open"),
        ({"resting_for_s": 3.0}, "up, resting 3.0s"),
    ],
)
def test_condition_and_what_keeps_traffic_away_are_shown(changes: dict[str, Any], words: str) -> None:
    assert words in row(**changes)


def test_a_reason_is_shown() -> None:
    assert row(condition="down", reason="refused the connection").endswith("qwen2.5  refused the connection")


def test_what_is_not_known_yet_is_marked() -> None:
    cells = row(models=None, ttft_ewma_s=None, in_flight_max=0, condition="unknown", engine="auto", version="").split()
    assert cells == ["pi", "primary", "auto", "unknown", "1h", "0m", "2", "-", "7", "?"]


def test_many_models_are_counted() -> None:
    assert row(models=["a", "b", "c", "d", "e"]).endswith("a, b, c +2")
    assert row(models=[]).endswith("none")


def test_a_refused_reload_shows_its_place() -> None:
    reload = {"ok": False, "at": time.time() - 30, "changed": [], "needs_restart": [], "mistakes": ["x.yaml:4:7: balance: bad"]}
    lines = shown(reload=reload)
    assert "reload refused 30s ago" in lines[2]
    assert lines[3] == "  refused: x.yaml:4:7: balance: bad"


def test_a_reload_shows_what_waits_for_a_restart() -> None:
    reload = {"ok": True, "at": time.time(), "changed": ["balance"], "needs_restart": ["listen"], "mistakes": []}
    assert shown(reload=reload)[2].endswith("reloaded 0.0s ago; as before until a restart: listen")


def test_readiness_is_said() -> None:
    assert "not ready: no backend is usable" in shown(ready=False)[0]
    assert "stopping" in shown(ready=False, stopping=True)[0]


@pytest.mark.parametrize(("condition", "color"), [("up", 32), ("warming", 33), ("down", 31)])
def test_colors_follow_the_condition_and_leave_the_columns_alone(condition: str, color: int) -> None:
    for blue in ("none", "blue"):
        line = shown(is_colored=True, backends=[PI | {"condition": condition, "color": blue}])[-1]
        assert f"\x1b[{color}m{condition}" in line
        assert line.replace(f"\x1b[{color}m", "").replace("\x1b[0m", "") == row(condition=condition, color=blue)


def test_an_engine_cannot_speak_to_the_terminal() -> None:
    text = table(STATUS | {"backends": [PI | {"version": "\x1b[2J", "models": ["a\nb"], "reason": "\x9b"}]}, is_colored=False)
    assert "\x1b" not in text
    assert len(text.splitlines()) == 6


def test_an_empty_document_is_still_shown() -> None:
    assert table({}, is_colored=False).startswith("understudy , not ready")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0s"),
        (9.94, "9.9s"),
        (9.96, "10s"),
        (59.4, "59s"),
        (59.6, "1m 0s"),
        (200, "3m 20s"),
        (15000, "4h 10m"),
        (183600, "2d 3h"),
    ],
)
def test_durations_read_as_people_say_them(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_the_command_prints_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    with open_admin_port(StageOperator()) as url:
        assert main(["status", "--admin", url]) == 0
    assert capsys.readouterr().out.splitlines() == shown()


def test_json_is_one_line_of_the_document(capsys: pytest.CaptureFixture[str]) -> None:
    with open_admin_port(StageOperator()) as url:
        assert main(["status", "--json", "--admin", url]) == 0
    text = capsys.readouterr().out
    assert text.count("\n") == 1
    assert json.loads(text) == STATUS


def test_no_daemon_is_one_line_and_1(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert main(["status", "--watch", "--admin", f"http://127.0.0.1:{port}"]) == 1
    assert capsys.readouterr().err == f"understudy: no daemon answers at http://127.0.0.1:{port}: connection refused\n"


def test_watching_goes_on_until_interrupted(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon meets a bug at the second look and is well again at the third; then the operator has seen enough."""
    operator = StageOperator()
    looks = 0

    def sleep(_seconds: float) -> None:
        nonlocal looks
        looks += 1
        operator.bug = RuntimeError("a bug") if looks == 1 else None
        if looks == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    with open_admin_port(operator) as url:
        assert run(argparse.Namespace(admin=url, json=False, watch=True)) == 0
    told = capsys.readouterr()
    assert told.out.count("BACKEND") == 2
    assert told.err.startswith("understudy: understudy failed at this request")


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"restarting": True}, "up, restarting"),
        ({"degraded": True}, "up, degraded"),
        ({"restart": {"phase": "gave_up", "reason": "no token"}}, "up, restarts have not helped"),
        ({"restarting": True, "restart": {"phase": "gave_up", "reason": "no token"}}, "up, restarts have not helped"),
        ({"restarting": False, "restart": {"phase": "gave_up", "reason": ""}}, "up "),
        ({"warm": {"is_warm": False}}, "up, not warm"),
        ({"warm": {"is_warm": True}}, "up "),
    ],
)
def test_what_upkeep_does_stands_beside_the_condition(facts: dict[str, Any], words: str) -> None:
    assert words in table(STATUS | {"backends": [PI | facts]}, is_colored=False)


def test_what_is_broken_is_told_above_the_table() -> None:
    objective = {"objective": "errors", "value": 0.05, "bound": 0.001, "broken": True, "broken_for_s": 90.0}
    channel = {"name": "dingtalk", "last_error": "answered 500\x1b"}
    slow = {"objective": "p99_first_content", "value": 2.71828, "bound": 1.0, "broken": True, "broken_for_s": 5.0}
    busy, other = slow | {"objective": "gpu_busy", "value": 1.0, "bound": 0.7}, slow | {"objective": "else"}
    objectives = [objective, {"broken": False}, slow, busy, other]
    text = table(STATUS | {"objectives": objectives, "alerts": [channel, {"last_error": ""}]}, is_colored=False)
    assert "slo errors: 5% where 0.1% is promised, for 1m 30s\n" in text
    assert "slo p99_first_content: 2.718s where 1s is promised, for 5.0s\n" in text
    assert "slo gpu_busy: 100% where 70% is promised, for 5.0s\n" in text
    assert "slo else: 2.71828 where 1 is promised, for 5.0s\n" in text
    assert "alerts to dingtalk fail: answered 500\\x1b\n" in text
