"""deploy/compose.blue-green.yaml starts the daemon as it is, with a file that can be used and the engines that it names."""

from typing import Any

import yaml

from tidy.source_tree import TOP
from understudy.cli.check import run as run_check
from understudy.cli.main import _parser
from understudy.config.compile import compile_plan
from understudy.config.load import load_file
from understudy.config.quantities import read_duration
from understudy.core.snapshot import Limits

DEPLOY = TOP / "deploy"
SERVICES: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.blue-green.yaml").read_text(encoding="utf-8"))["services"]
DAEMON = SERVICES["understudy"]
# Where in the container, and what of ours is there.
MOUNTS = {place.split(":")[1]: place.split(":")[0] for place in DAEMON["volumes"]}
FILE = DEPLOY / "blue-green.yaml"


def test_the_command_line_is_one_that_understudy_takes() -> None:
    program, *arguments = DAEMON["command"]
    assert program == "understudy"
    config = _parser(arguments).parse_args(arguments).config
    assert (DEPLOY / MOUNTS[str(config.parent)] / config.name).resolve() == FILE


def test_the_file_can_be_used() -> None:
    arguments = ["check", "-c", str(FILE)]
    assert run_check(_parser(arguments).parse_args(arguments)) == 0


def test_every_backend_is_an_engine_of_that_color_at_that_port() -> None:
    for backend in compile_plan(load_file(FILE, {})).backends:
        command = SERVICES[backend.address.host]["command"]
        assert command[command.index("--port") + 1] == str(backend.address.port)
        assert backend.address.host == backend.color


def test_both_engines_call_their_model_the_same() -> None:
    names = {(command := SERVICES[color]["command"])[command.index("--alias") + 1] for color in ("blue", "green")}
    assert len(names) == 1


def test_the_public_port_is_the_one_that_the_daemon_listens_on() -> None:
    inside = {int(port.rpartition(":")[2]) for port in DAEMON["ports"]}
    assert inside == {int(str(each).rpartition(":")[2]) for each in load_file(FILE, {}).listen}


def test_compose_waits_longer_than_the_drain() -> None:
    assert read_duration(DAEMON["stop_grace_period"]) > Limits().drain_s_max


def test_what_is_active_survives_a_new_container() -> None:
    volume = MOUNTS[DAEMON["environment"]["STATE_DIRECTORY"]]
    assert volume in yaml.safe_load((DEPLOY / "compose.blue-green.yaml").read_text(encoding="utf-8"))["volumes"]


def test_the_image_is_built_of_what_is_there() -> None:
    lines = DAEMON["build"]["dockerfile_inline"].splitlines()
    copied = [name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]]
    assert "src" in copied
    assert not [name for name in copied if not (DEPLOY / DAEMON["build"]["context"] / name).exists()]
