import argparse
from pathlib import Path

import pytest

from understudy.cli import check
from understudy.config.compile import compile_plan
from understudy.config.load import load_text
from understudy.controlplane import alert_delivery
from understudy.core.health import Seen
from understudy.core.snapshot import Backend, EngineKind, Model
from understudy.engines.contract import Finding

FULL = """
admin: {token: hunter1}
backends:
  - name: pi
    url: http://127.0.0.1:1/v1
    api_key: hunter2
    models: {qwen2.5: "qwen2.5:0.5b"}
    health: {interval: 1s, max_fails: 0}
    timeouts: {first_token: 3s}
  - {name: gpu, url: 'https://gpu', engine: vllm, role: backup, weight: 3, in_flight_max: 4}
timeouts: {total: 10m}
failover: {tries: 2, hold: 0s, resume: exact, hedge: true, assemble: false}
balance: session
access: {allow_admin_paths: true, trusted: ["sha256:ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"]}
sessions: {store: 'redis://me:hunter4@cache/0', key: KEY, messages_max: 20, tokens_max: 8000, on_error: refuse}
cache: {size: 8MiB}
limits: {waiting_max: 7, waiting_s_max: 9s}
""".replace("KEY", "5" * 64)


def run(*args: str) -> int:
    parser = argparse.ArgumentParser()
    check.add(parser.add_subparsers())
    parsed = parser.parse_args(["check", *args])
    result = parsed.run(parsed)
    assert isinstance(result, int)
    return result


def meaning(text: str) -> str:
    return "\n".join(check.meaning(load_text(text, {})))


def test_a_good_file_is_told_in_plain_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "u.yaml"
    file.write_text(FULL, encoding="utf-8")
    assert run("-c", str(file)) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.startswith(f"{file} can be used.\n\nClients connect to 127.0.0.1:8080.\n")


def test_every_mistake_is_told_with_its_place_and_exit_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "u.yaml"
    file.write_text("backends:\n  - {name: A, url: b}\n", encoding="utf-8")
    assert run("-c", str(file)) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert [line.split(": ")[:2] for line in printed.err.splitlines()] == [
        [f"{file}:2:12", "backends[0].name"],
        [f"{file}:2:20", "backends[0].url"],
    ]


@pytest.mark.parametrize("store", ["redis://a:99999", "redis://me:hunter2@a/x", "redis://a,b"])
def test_a_store_that_redis_cannot_be_is_one_line(store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "u.yaml"
    file.write_text(f"backends: [{{name: a, url: 'http://a'}}]\nsessions: {{store: '{store}'}}\n", encoding="utf-8")
    assert run("-c", str(file)) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith(f"{file}: sessions.store: found {store.replace('hunter2', '***')}; want redis://")
    assert printed.out == ""


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
def test_a_channel_that_apprise_cannot_send_to_is_noted_without_its_secrets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "u.yaml"
    channels = "[{url: 'json://hooks.example.org/hunter2'}, {url: 'nonsense://hunter2'}, {url: ''}]"
    file.write_text(f"backends: [{{name: a, url: 'http://a'}}]\nalerts: {channels}\n", encoding="utf-8")
    assert run("-c", str(file)) == 0
    printed = capsys.readouterr()
    notes = [line for line in printed.out.splitlines() if line.startswith("note: alerts[") and "left out" not in line]
    (note,) = notes
    assert note.startswith("note: alerts[1] (nonsense) will tell nobody: Apprise does not take this URL; https://")
    assert "hunter2" not in printed.out + printed.err


def test_channels_without_what_sends_them_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alert_delivery, "find_spec", lambda _: None)
    file = tmp_path / "u.yaml"
    file.write_text("backends: [{name: a, url: 'http://a'}]\nalerts: [{url: 'json://a/b'}]\n", encoding="utf-8")
    assert run("-c", str(file)) == 1
    want = "pip install 'understudy[alerts]', or no channel"
    assert capsys.readouterr().err == f"{file}: alerts: found channels, and no package apprise to send by; want {want}\n"


def test_a_file_that_is_gone_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-c", str(tmp_path / "gone")) == 1
    assert capsys.readouterr().err == f"{tmp_path}/gone: found no such file or directory; want a file that can be read\n"


def test_the_meaning_says_everything_but_the_keys() -> None:
    told = meaning(FULL)
    for words in (
        "The admin port is 127.0.0.1:9901 and asks for the token.",
        "pi: http://127.0.0.1:1/v1, engine found by the probe, sends its own key",
        "qwen2.5 is qwen2.5:0.5b there",
        "note: clients' paths begin with /v1 already, so pi will be asked for /v1/v1/...",
        "gpu: https://gpu:443, engine vllm, weight 3, at most 4 exchanges at once",
        "always the same one for the same X-Session-ID",
        "Health of pi: probed every 1s",
        "failed exchanges rest no backend",
        "Health of gpu: probed every 5s",
        "10m for the whole",
        "Patience with pi: 2s to connect, 3s to the first content, 30s of silence.",
        "Broken answers are continued on another backend, by token ids where the engine has them; those that are not streamed b",
        "is sent to a second backend",
        "gets a comment every 15s",
        "At most 7 exchanges wait, for room at most 9s; 1 trusted key may set who goes first.",
        "at most 2 attempts",
        "refuses at once when none is usable",
        "model-management paths are relayed",
        "Conversations are kept in redis://me:***@cache/0 as json, encrypted, for 24h.",
        "Each has at most 20 messages and 1MiB, 8000 tokens; older turns fall off.",
        "A request waits 30s at most for another one of its session; while they cannot be read it gets 503.",
        "Exact repeats are answered from up to 8MiB of the last 10m when no backend can answer.",
    ):
        assert words in told
    assert "hunter" not in told
    assert "ffff" not in told
    assert "5555" not in told
    assert "Patience with gpu" not in told


def test_a_bare_file_means_the_defaults() -> None:
    told = meaning("backends: [{name: a, url: 'http://a'}]")
    assert "no limit for the whole" in told
    assert "Conversations are not kept." in told
    assert "Exact repeats" not in told
    assert "every usable backend once, retries up to 20% of the exchanges; waits 5s for a usable backend." in told
    assert "Broken answers are continued on another backend; those that are not streamed, too." in told
    assert "At most 1000 exchanges wait, for room at most 5s." in told
    assert "Chosen among several" not in told
    assert "Backups" not in told
    assert "second backend" not in told


def test_what_is_turned_off_is_told() -> None:
    told = meaning("backends: [{name: a, url: 'http://a'}]\nfailover: {resume: false}\ntimeouts: {keepalive: 0s}")
    assert "Broken answers are not continued." in told
    assert "comment" not in told


def test_a_rollout_is_told_in_a_few_lines() -> None:
    told = meaning("""
backends:
  - {name: a, url: 'http://a', color: blue, system: hunter2, system_place: instead, defaults: {temperature: 0.2, stop: null}}
  - {name: b, url: 'http://b', color: green}
rollout:
  canary: [5%, 25%]
  shadow: 1%
  preview: true
  cookie_key: hunter2hunter2hunter2
  guard: {errors: 2%, ttft_p95: 1.5x, speed: 0.7x}
  green: {system: hunter2, defaults: {top_k: 1}}
log: {slow: 3s}
""")
    for words in (
        "color blue, puts a system prompt of 7 characters instead of the client's, fills in temperature\n",
        "New conversations go to blue, 5% of them, then 25%, every 10m, to green; a conversation stays where it began, for 24h",
        "1% of the exchanges are also sent to green, at most 4 at once; what comes back is dropped.",
        "A browser chooses its color at /switch/blue and /switch/green",
        "Guard: in a canary and for 1h after a switch, the new color is rolled back, with its conversations, when 2% more of",
        " its attempts fail than the other's, or its first content takes over 1.5x the other's time (95th percentile), or its",
        " speed is below 0.7x the other's (median); it looks at the last 5m, from 50 exchanges of each color on.",
        "Green puts a system prompt of 7 characters before the client's and fills in top_k.",
        "note: access.trusted is empty, so every client may choose with X-Understudy-Color",
        "Log: auto, from level info; exchanges over 3s are said at warning level.",
    ):
        assert words in told
    assert "hunter2" not in told


def test_notes_come_last() -> None:
    told = meaning("""
backends: [{name: a, url: 'http://a/v1', color: blue}, {name: b, url: 'http://b', color: green, system: x}]
""").splitlines()
    assert [line.startswith("note: ") for line in told] == [False] * (len(told) - 2) + [True] * 2
    assert told[-3] == ""
    assert any(line.endswith("puts a system prompt of 1 character before the client's") for line in told)


def test_where_nothing_is_to_be_noted_the_log_is_the_last_line() -> None:
    assert meaning("backends: [{name: a, url: 'http://a'}]").splitlines()[-1].startswith("Log: ")


@pytest.mark.parametrize(
    ("rollout", "words"),
    [
        (
            "canary: 5%, stick_max: 0s",
            "New conversations go to blue, 5% of them to green; a conversation stays where it began, as",
        ),
        ("active: green, stick: none", "New conversations go to green; a conversation goes anew with every request."),
        (
            "stick: cookie",
            "a conversation stays where it began, by a cookie where it has no X-Session-ID, for 24h after a change.",
        ),
        (
            "guard: {speed: 1x, watch: 0s, sessions: no}",
            "Guard: in a canary, the new color is rolled back, without its conversat",
        ),
    ],
)
def test_what_a_rollout_leaves_out_is_not_told(rollout: str, words: str) -> None:
    told = meaning(
        f"backends: [{{name: a, url: 'http://a', color: blue}}, {{name: b, url: 'http://b', color: green}}]\n"
        f"rollout: {{{rollout}}}\n"
    )
    assert words in told
    assert "also sent" not in told
    assert "browser" not in told


def test_a_file_without_colors_says_nothing_of_them() -> None:
    bare = "backends: [{name: a, url: 'http://a'}]\n"
    assert "olor" not in meaning(bare)
    assert "note: no backend has a color and no color has a prompt" in meaning(bare + "rollout: {preview: true}\n")


def test_how_backends_are_kept_is_told_where_it_belongs() -> None:
    told = meaning("""
backends:
  - name: a
    url: http://gpu1
    restart: {run: [/usr/bin/llama-server, hunter2], env: {KEY: hunter2}}
    health: {generate: 10m}
slo: {errors: 0.1%, gpu_busy: 70%}
alerts: [{url: 'dingtalk://hunter2/', language: zh}, {url: ''}]
""")
    lines = told.splitlines()
    backend = next(number for number, line in enumerate(lines) if line.startswith("  a: "))
    assert lines[backend + 1].startswith(
        "    is restarted as a child of the daemon, llama-server with 1 argument, after 6 failed pr"
    )
    for words in (
        "as long; one token is generated after 10m without an answer to a client.",
        "Promised, over 5m: at most 0.1% of the exchanges fail",
        "Alerts by dingtalk, in Chinese: everything",
        "note: a runs as a child of the daemon, but its url is not on loopback",
        "note: alerts[1].url is empty, so this channel is left out",
        "note: slo.gpu_busy is never known, because no backend has a metrics_url",
    ):
        assert words in told
    assert "hunter2" not in told


async def test_what_the_probes_found_is_told_in_the_files_order() -> None:
    plan = compile_plan(load_text(FULL, {}))
    findings = {
        "pi": Finding(Seen.GOOD, EngineKind.OLLAMA, "0.9", models=(Model("llama3:latest"), Model("qwen3"))),
        "gpu": Finding(Seen.BAD, reason="refused the connection"),
    }

    async def probe(backend: Backend) -> Finding:
        return findings[backend.name]

    told = list(check.found_lines(plan, await check.probe_all(plan, probe)))
    assert told == [
        "  pi: up, ollama 0.9",
        "    lists llama3:latest, qwen3",
        "    does not list qwen2.5:0.5b, which clients call qwen2.5",
        "  gpu: down, engine not known (refused the connection)",
    ]


def test_a_model_is_listed_with_and_without_latest() -> None:
    plan = compile_plan(load_text("backends: [{name: a, url: 'http://a', models: {x: llama3, y: 'qwen3:latest'}}]", {}))
    finding = Finding(Seen.GOOD, EngineKind.OLLAMA, models=(Model("llama3:latest"), Model("qwen3")))
    assert not any("does not list" in line for line in check.found_lines(plan, [finding]))


def test_a_backend_that_refuses_is_told_as_down_and_the_file_is_still_good(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "u.yaml"
    # Nobody listens on port 1 of loopback, so the connection is refused at once.
    file.write_text("backends: [{name: a, url: 'http://127.0.0.1:1'}]\n", encoding="utf-8")
    assert run("-c", str(file), "--probe") == 0
    assert "  a: down, engine not known (" in capsys.readouterr().out
