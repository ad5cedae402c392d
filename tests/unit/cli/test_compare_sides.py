"""Whom the command line means: the daemon, a backend of the file, a URL; and where the daemon is reached."""

import argparse
from pathlib import Path
from typing import Any

import pytest

from support.admin_stage import STATUS, StageOperator, open_admin_port
from understudy.cli.admin_call import CallError
from understudy.cli.compare_sides import CannotCompareError, Side, judge_of, judge_warning, sides_of
from understudy.core.color import Color
from understudy.errors import ConfigError

FILE = """
backends:
  - {name: pi, url: http://pi:11434/, color: blue, api_key: hunter2, models: {tiny: "tiny:q4"}, system: Be a pi.}
  - {name: both, url: http://both}
rollout: {blue: {system: Be blue.}, green: {system: Be green.}}
"""


GPU = STATUS["backends"][0]


def options(**given: Any) -> argparse.Namespace:
    keys = ("blue", "green", "blue_model", "green_model", "url", "judge", "judge_url", "config")
    return argparse.Namespace(**{**dict.fromkeys(keys), "admin": "http://127.0.0.1:1", **given})


def sides_with(listen: list[str], admin_path: Path | None = None, **given: Any) -> tuple[Side, Side]:
    operator = StageOperator()
    operator.document |= {"listen": listen, "rollout": {"active": "blue"}, **given}
    with open_admin_port(operator, path=admin_path) as admin:
        return sides_of(options(admin=admin))


def test_the_daemon_is_asked_for_each_color_at_its_public_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERSTUDY_KEY", " hunter2\n")
    blue, green = sides_with(["unix:/run/u.sock", "127.0.0.1:8080"])
    assert (blue.url, blue.asked_color, green.asked_color) == ("http://127.0.0.1:8080", Color.BLUE, Color.GREEN)
    assert (blue.key, blue.listed, blue.title) == (b"hunter2", ("qwen2.5",), "the daemon at http://127.0.0.1:8080")


@pytest.mark.parametrize(
    ("listen", "url", "socket"),
    [
        ("0.0.0.0:80", "http://127.0.0.1:80", ""),
        ("[::]:80", "http://127.0.0.1:80", ""),
        ("[fd00::1]:80", "http://[fd00::1]:80", ""),
        ("unix:/run/u.sock", "http://localhost", "/run/u.sock"),
    ],
)
def test_an_address_to_listen_on_becomes_one_to_ask(listen: str, url: str, socket: str, tmp_path: Path) -> None:
    blue, _ = sides_with([listen], tmp_path / "admin.sock")
    assert (blue.url, blue.socket) == (url, socket)


def test_a_model_list_that_one_backend_does_not_tell_is_unknown() -> None:
    unknown = {**STATUS["backends"][0], "models": None, "color": "green"}
    blue, green = sides_with(["127.0.0.1:80"], backends=[STATUS["backends"][0], unknown])
    assert (blue.listed, green.listed) == (("qwen2.5",), None)


def test_a_daemon_without_colors_is_refused() -> None:
    with pytest.raises(CannotCompareError, match=r"^no backend has a color; set backends\[\].color, or say whom"):
        sides_with(["127.0.0.1:80"], rollout=None)


@pytest.mark.parametrize(
    ("standing", "told"),
    [
        (
            {"condition": "down", "reason": "refused"},
            "green has no backend that is up (gpu1 is down: refused); want one, or --green URL",
        ),
        ({"condition": "up", "duty": "draining"}, "green has no backend that is up (gpu1 is draining)"),
        ({"condition": "up", "duty": "maintenance"}, "green has no backend that is up (gpu1 is in maintenance)"),
    ],
)
def test_a_color_that_nobody_can_answer_for_is_refused(standing: dict[str, str], told: str) -> None:
    backends = [{**GPU, "color": "blue"}, {**GPU, "name": "gpu1", "color": "green", **standing}]
    with pytest.raises(CannotCompareError) as refused:
        sides_with(["127.0.0.1:80"], backends=backends)
    assert str(refused.value).startswith(told)
    with pytest.raises(CannotCompareError, match=r"green has no backend that is up \(it has none\)"):
        sides_with(["127.0.0.1:80"], backends=backends[:1])


def test_a_color_with_a_backend_that_is_not_known_yet_is_asked() -> None:
    backends = [{**GPU, "color": "blue", "condition": "unknown"}, {**GPU, "color": "green", "condition": "down"}, GPU]
    assert sides_with(["127.0.0.1:80"], backends=backends)[1].asked_color is Color.GREEN


def test_where_one_color_alone_is_asked_the_other_does_not_matter() -> None:
    operator = StageOperator()
    operator.document |= {"rollout": {"active": "blue"}, "backends": [{**GPU, "color": "blue"}]}
    with open_admin_port(operator) as admin:
        blue, green = sides_of(options(admin=admin, green="http://b"))
    assert (blue.asked_color, green.asked_color) == (Color.BLUE, Color.NONE)


def test_a_daemon_that_does_not_say_where_it_is_is_told() -> None:
    with pytest.raises(CannotCompareError, match="does not say where it listens; say it with --url"):
        sides_with([])


def test_no_daemon_is_a_call_error_and_a_url_needs_none() -> None:
    with pytest.raises(CallError, match="no daemon answers"):
        sides_of(options())
    blue, green = sides_of(options(url="http://gpu:80/llm/v1"))
    assert (blue.url, green.asked_color, blue.listed) == ("http://gpu:80/llm", Color.GREEN, None)


def test_a_url_is_asked_without_color_and_with_a_key_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERSTUDY_KEY", "hunter1")
    monkeypatch.setenv("UNDERSTUDY_GREEN_KEY", "hunter2")
    blue, green = sides_of(options(blue="http://a", green="https://b/v1", green_model="m"))
    assert (blue.url, blue.key, blue.asked_color) == ("http://a:80", b"", Color.NONE)
    assert (green.url, green.key, green.model) == ("https://b:443", b"hunter2", "m")


def test_a_backend_of_the_file_brings_its_names_key_and_prompt(tmp_path: Path) -> None:
    file = tmp_path / "u.yaml"
    file.write_text(FILE, encoding="utf-8")
    blue, green = sides_of(options(blue="pi", green="both", config=file))
    assert (blue.url, blue.key, blue.models) == ("http://pi:11434", b"hunter2", (("tiny", "tiny:q4"),))
    assert (blue.prompt.system, green.prompt.system, green.title) == ("Be a pi.", "Be green.", "both at http://both:80")


def test_what_is_no_backend_and_no_url_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "u.yaml"
    file.write_text(FILE, encoding="utf-8")
    with pytest.raises(
        CannotCompareError, match=r"--blue gpu: found no backend of this name in .*; want one of pi, both, or a URL"
    ):
        sides_of(options(blue="gpu", green="http://a", config=file))
    with pytest.raises(CannotCompareError, match="--green: found 'ftp://a'; want a URL such as"):
        sides_of(options(blue="http://a", green="ftp://a"))
    with pytest.raises(ConfigError):
        sides_of(options(blue="pi", green="http://a", config=tmp_path / "gone"))
    for address in ("127.0.0.1:9", "gpu:8000/v1", "gpu.lan", "[::1]:9"):
        with pytest.raises(CannotCompareError) as refused:
            sides_of(options(blue=address, green="http://a"))
        assert str(refused.value) == f"--blue: found {address}; want a URL such as http://{address}, or the name of a backend"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CannotCompareError, match="want -c FILE that has this backend, or a URL"):
        sides_of(options(blue="pi", green="http://a"))


def test_a_daemon_elsewhere_is_asked_there_unless_it_listens_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    from understudy.cli import compare_sides

    door = compare_sides._Door(options(admin="http://gpu1:9901"))
    door._status = {"listen": ["0.0.0.0:8080"]}
    assert door.place() == ("http://gpu1:8080", "")
    door._status = {"listen": ["127.0.0.1:8080"]}
    with pytest.raises(CannotCompareError, match=r"listens on 127.0.0.1:8080 of its own machine alone; .* --url"):
        door.place()


def test_the_judge_is_behind_the_daemon_or_where_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERSTUDY_KEY", "hunter1")
    monkeypatch.setenv("UNDERSTUDY_JUDGE_KEY", "hunter2")
    behind = judge_of(options(judge="wise", url="http://a"))
    assert (behind.url, behind.key, behind.model, behind.asked_color) == ("http://a:80", b"hunter1", "wise", Color.NONE)
    elsewhere = judge_of(options(judge="wise", judge_url="http://b"))
    assert (elsewhere.url, elsewhere.key) == ("http://b:80", b"hunter2")


def test_a_key_with_a_line_break_is_told_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERSTUDY_KEY", "hunter1\nhunter2")
    with pytest.raises(CannotCompareError) as refused:
        sides_of(options(url="http://a"))
    assert str(refused.value) == "UNDERSTUDY_KEY: found a line break or another control character in it; want the key alone"


def test_a_judge_among_backends_with_prompts_of_their_own_is_warned_of(tmp_path: Path) -> None:
    file = tmp_path / "u.yaml"
    file.write_text(FILE, encoding="utf-8")
    told = (
        "the judge is asked behind the daemon, where blue, green, pi have prompts of their own; "
        "--judge-url with an engine is better"
    )
    assert judge_warning(options(url="http://a", config=file)) == told
    operator = StageOperator()
    operator.document |= {"file": str(file)}
    with open_admin_port(operator) as admin:
        assert judge_warning(options(admin=admin)) == told
        assert judge_warning(options(admin=admin, judge_url="http://b")) == ""


def test_where_no_prompt_is_known_there_is_nothing_to_warn_of(tmp_path: Path) -> None:
    file = tmp_path / "u.yaml"
    assert judge_warning(options(url="http://a")) == ""
    assert judge_warning(options(url="http://a", config=file)) == ""
    file.write_text("backends: [{name: pi, url: http://pi}]", encoding="utf-8")
    assert judge_warning(options(url="http://a", config=file)) == ""
    file.write_text("backends: [{name: pi, url: http://pi, system: x}]", encoding="utf-8")
    assert "pi has a prompt of its own" in judge_warning(options(url="http://a", config=file))
