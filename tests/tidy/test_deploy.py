"""deploy/understudy.service starts the daemon as it is, and leaves it the time it may take to stop."""

import configparser
import shlex

from tidy.source_tree import TOP
from understudy.cli.main import _parser
from understudy.core.snapshot import Limits

UNIT = configparser.ConfigParser(strict=False, interpolation=None)
UNIT.optionxform = str  # type: ignore[assignment,method-assign]  # keys keep their capitals, as the library documents it
UNIT.read_string((TOP / "deploy" / "understudy.service").read_text(encoding="utf-8"))
SERVICE = UNIT["Service"]


def test_the_command_line_is_one_that_understudy_takes() -> None:
    program, *arguments = shlex.split(SERVICE["ExecStart"])
    assert program == "/opt/understudy/bin/understudy"
    args = _parser(arguments).parse_args(arguments)
    assert str(args.config) == "/etc/understudy/understudy.yaml"


def test_systemd_waits_longer_than_the_drain() -> None:
    assert int(SERVICE["TimeoutStopSec"]) > Limits().drain_s_max


def test_a_reload_is_the_daemons_signal() -> None:
    assert SERVICE["ExecReload"].split()[1:] == ["-HUP", "$MAINPID"]


def test_there_are_descriptors_for_every_connection_and_its_backends() -> None:
    assert int(SERVICE["LimitNOFILE"]) > 2 * Limits().connections_max


def test_the_user_of_the_service_is_the_one_that_sysusers_makes() -> None:
    sysusers = (TOP / "deploy" / "understudy.sysusers").read_text(encoding="utf-8")
    users = [line.split()[1] for line in sysusers.splitlines() if line.startswith("u ")]
    assert users == [SERVICE["User"]] == [SERVICE["Group"]]
