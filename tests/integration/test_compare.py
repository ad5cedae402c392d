"""`understudy compare` against the real daemon with two colors, and against what stands behind it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from support.answers import begun_stream, stream
from support.daemon import Daemon, backend, settings
from support.personas import openai_chat_events
from support.scripted import ScriptedEngine
from support.steps import hang

KEY = "a-trusted-key"
PROMPTS = """
- name: greeting
  prompt: Who is there?
  expect: {contains: evening}
- {prompt: Where are you?, model: tiny, expect: {regex: "gpu[01]"}}
"""


@pytest.fixture
def daemon(gpu0: ScriptedEngine, gpu1: ScriptedEngine, tmp_path: Path) -> Iterator[Daemon]:
    """Run a daemon with gpu0 in blue and gpu1 in green, whose operator trusts one key."""
    wanted = settings(
        backend(gpu0, color="blue"),
        backend(gpu1, color="green", system="Be green."),
        access={"trusted": [f"sha256:{sha256(KEY.encode()).hexdigest()}"]},
    )
    with Daemon(wanted, tmp_path) as running:
        running.wait_condition("up")
        yield running


def compare(folder: Path, *arguments: str, prompts: str = PROMPTS, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command as an operator does."""
    command = [sys.executable, "-m", "understudy", "compare", *arguments, "-"]
    environment = {**os.environ, "UNDERSTUDY_KEY": KEY, **variables}
    return subprocess.run(
        command, input=prompts, capture_output=True, text=True, timeout=60, check=False, cwd=folder, env=environment
    )


def prompts_of(ended: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert ended.stderr == ""
    found: list[dict[str, Any]] = json.loads(ended.stdout)["prompts"]
    return found


def test_the_daemon_is_asked_for_each_color(daemon: Daemon, gpu0: ScriptedEngine, gpu1: ScriptedEngine, tmp_path: Path) -> None:
    ended = compare(tmp_path, "--admin", daemon.admin_url, "--json")
    first, second = prompts_of(ended)
    assert (first["blue"]["text"], first["blue"]["backend"]) == ("good evening from gpu0", "gpu0")
    assert (first["green"]["text"], first["green"]["backend"]) == ("good evening from gpu1", "gpu1")
    assert second["green"]["met"] is True
    assert ended.returncode == 0
    assert [len(engine.seen.requests) for engine in (gpu0, gpu1)] == [2, 2]
    assert gpu1.seen.requests[0].json()["messages"][0] == {"role": "system", "content": "Be green."}


def test_without_a_trusted_key_the_other_color_is_not_taken_for_the_asked_one(daemon: Daemon, tmp_path: Path) -> None:
    ended = compare(tmp_path, "--admin", daemon.admin_url, "--json", UNDERSTUDY_KEY="")
    for prompt in prompts_of(ended):
        assert (prompt["blue"]["error"], prompt["green"]["text"]) == ("", "")
        assert prompt["green"]["error"] == "answered by blue; is UNDERSTUDY_KEY a trusted client's?"
    assert ended.returncode == 1


def test_a_green_that_hangs_is_an_error_in_time(daemon: Daemon, gpu1: ScriptedEngine, tmp_path: Path) -> None:
    gpu1.always(begun_stream(openai_chat_events("good evening")[:3], hang()))
    ended = compare(tmp_path, "--admin", daemon.admin_url, "--timeout", "500ms")
    assert ended.returncode == 1
    assert ended.stdout.count("error: gave no whole answer within 0.5s") == 2
    assert ended.stdout.splitlines()[-1].startswith("green is worse: green met 0% of the expectations, blue 100% (")
    assert ended.stderr == ""


def test_backends_of_the_file_are_asked_directly_with_their_prompts(
    daemon: Daemon, gpu0: ScriptedEngine, gpu1: ScriptedEngine, tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    ended = compare(tmp_path, "-c", str(daemon.file), "--blue", "gpu0", "--green", "gpu1", "--html", str(page))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines()[-1] == "green is no worse"
    assert gpu1.seen.requests[0].json()["messages"][0] == {"role": "system", "content": "Be green."}
    assert gpu0.seen.requests[0].header("x-understudy-color") == ""
    assert "good evening from gpu1" in page.read_text(encoding="utf-8")


def test_a_url_may_stand_beside_a_color_of_the_daemon(daemon: Daemon, gpu1: ScriptedEngine, tmp_path: Path) -> None:
    ended = compare(tmp_path, "--admin", daemon.admin_url, "--green", f"{gpu1.url}/v1", "--json")
    first, _ = prompts_of(ended)
    assert (first["blue"]["backend"], first["green"]["backend"]) == ("gpu0", "")
    assert gpu1.seen.requests[0].header("authorization") == ""


def test_the_judge_is_asked_behind_the_daemon(daemon: Daemon, gpu0: ScriptedEngine, tmp_path: Path) -> None:
    ended = compare(tmp_path, "--admin", daemon.admin_url, "--judge", "tiny", "--max-judged-worse", "50%")
    assert "The judge's word could not be read in 2." in ended.stdout
    told = "green is worse: the judge gave its word on 0 of 2 pairs, under half (--max-judged-worse 50%)"
    assert ended.stdout.splitlines()[-1] == told
    assert ended.returncode == 1
    warned = "understudy: the judge is asked behind the daemon, where gpu1 has a prompt of its own; "
    assert ended.stderr == f"{warned}--judge-url with an engine is better\n"


def test_a_dead_color_is_told_before_anything_is_asked(
    daemon: Daemon, gpu0: ScriptedEngine, gpu1: ScriptedEngine, tmp_path: Path
) -> None:
    gpu1.refuse()
    daemon.wait_condition("down", "gpu1")
    ended = compare(tmp_path, "--admin", daemon.admin_url)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("understudy: green has no backend that is up (gpu1 is down: ")
    assert ended.stderr.endswith("); want one, or --green URL\n")
    assert gpu0.seen.requests == []


def test_a_daemon_without_colors_is_told_as_for_switch(gpu0: ScriptedEngine, tmp_path: Path) -> None:
    with Daemon(settings(backend(gpu0)), tmp_path) as daemon:
        ended = compare(tmp_path, "--admin", daemon.admin_url)
    assert (ended.returncode, ended.stdout) == (1, "")
    told = "understudy: no backend has a color; set backends[].color, or say whom to ask with --blue and --green\n"
    assert ended.stderr == told


def test_a_terminal_of_another_encoding_gets_escapes(daemon: Daemon, gpu0: ScriptedEngine, tmp_path: Path) -> None:
    gpu0.always(stream(openai_chat_events("good 雨")))
    ended = compare(tmp_path, "--admin", daemon.admin_url, "--max-unmet", "100%", PYTHONIOENCODING="latin-1")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert r"good \u96e8" in ended.stdout


def test_ctrl_c_shows_what_there_is(daemon: Daemon, gpu1: ScriptedEngine, tmp_path: Path) -> None:
    gpu1.then(stream(openai_chat_events("good evening from green")))
    gpu1.always(begun_stream(openai_chat_events("good evening")[:3], hang()))
    file = tmp_path / "prompts.yaml"
    file.write_text(PROMPTS, encoding="utf-8")
    command = [sys.executable, "-m", "understudy", "compare", "--admin", daemon.admin_url, str(file)]
    environment = {**os.environ, "UNDERSTUDY_KEY": KEY}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as running:
        gpu1.wait_requests(2)
        running.send_signal(signal.SIGINT)
        told, errors = running.communicate(timeout=20)
    assert (running.returncode, errors) == (130, "understudy: interrupted after 1 of 2 prompts\n")
    assert "good evening from green" in told
    assert told.endswith("\n\ninterrupted after 1 of 2 prompts: no verdict\n")
    gpu1.wait_for(lambda seen: seen.connections_open == 0)


def test_an_older_page_stays_where_nothing_was_answered(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text("older")
    dead = "http://127.0.0.1:9"
    ended = compare(tmp_path, "--blue", dead, "--green", dead, "--model", "tiny", "--html", str(page))
    assert ended.returncode == 1
    assert page.read_text() == "older"
