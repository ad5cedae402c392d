"""Each kind of value for keeping backends well: what is taken, what it means, what is refused, how it is written again."""

from typing import Any

import jsonschema
import pytest
from pydantic import TypeAdapter, ValidationError

from understudy.config.values_upkeep import (
    ALERT_URL_WANTED,
    ARGV_MAX,
    VARIABLES_MAX,
    WORD_BYTES_MAX,
    AlertUrl,
    Argv,
    Container,
    DurationOrOff,
    Environment,
    Events,
    Folder,
    FullUrl,
    Generate,
    Idle,
    Ip,
    Mac,
    Models,
    Often,
    Port,
    Quiet,
    Unit,
    alert_events,
    as_mac,
    each_once,
    write_quiet,
)
from understudy.core.alerting import ALERT_EVENTS
from understudy.core.upkeep import NO_GENERATION, GenerateRules, GenerateWhen


def read(kind: Any, value: object) -> Any:
    return TypeAdapter[Any](kind).validate_python(value)


def written(kind: Any, value: object) -> Any:
    return TypeAdapter[Any](kind).dump_python(read(kind, value), mode="json")


def is_offered(kind: Any, value: object) -> bool:
    """Whether an editor takes the value."""
    return jsonschema.Draft202012Validator(TypeAdapter[Any](kind).json_schema()).is_valid(value)


def refusal(kind: Any, value: object) -> str:
    """Return what is told of a value that is not taken: what was found, where it is said, and what is wanted."""
    with pytest.raises(ValidationError) as refused:
        read(kind, value)
    details = refused.value.errors(include_input=False, include_url=False)
    return "; ".join(f"{getattr(detail.get('ctx', {}).get('error'), 'found', '')}, {detail['msg']}" for detail in details)


def test_a_command_is_a_list_of_words_and_numbers_among_them_are_text() -> None:
    assert read(Argv, ["sleep", 5, "", "a b"]) == ("sleep", "5", "", "a b")
    assert read(Argv, None) == ()
    assert written(Argv, ["a, b"]) == ["a, b"]


def test_one_text_is_no_command_for_no_shell_would_split_it() -> None:
    told = refusal(Argv, "systemctl restart hunter2")
    assert "a list, such as [systemctl, restart, ollama]" in told
    assert "hunter2" not in told
    assert not is_offered(Argv, "systemctl restart hunter2")


@pytest.mark.parametrize(
    "argv", [[""], [" ", "a"], ["a\0b"], ["a", None], ["a", "\ud800"], ["a" * (WORD_BYTES_MAX + 1)], ["a"] * (ARGV_MAX + 1)]
)
def test_what_no_program_can_be_given_is_refused(argv: object) -> None:
    assert refusal(Argv, argv)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (
            Unit,
            ["ollama", "ollama.service", "vllm@0.service", r"a\x2db.service", ""],
            ["-x", "a b", "a/b", "a" * 256, None, ["a"]],
        ),
        (Container, ["ollama", "a_1.b-c", "0123456789ab", ""], ["-a", "a/b", "a b", "a" * 256, None]),
        (Folder, ["/srv/models", "/", ""], ["models", "~/a", None]),
        (FullUrl, ["http://a", "https://me:x@a/b?c", ""], ["a", "ftp://a", None]),
    ],
)
def test_a_name_is_taken_as_it_is_and_an_empty_one_is_none(kind: Any, good: list[str], bad: list[object]) -> None:
    for value in good:
        assert read(kind, value) == value
        assert written(kind, value) == value
        assert is_offered(kind, value)
    for wrong in bad:
        assert refusal(kind, wrong)
        assert not is_offered(kind, wrong)


@pytest.mark.parametrize("folder", ["/a\0b", "/a\nb", "/" + "a" * 4095, "/\ud800"])
def test_a_folder_that_no_system_has_is_refused(folder: str) -> None:
    assert refusal(Folder, folder)


def test_an_environment_is_names_and_texts() -> None:
    assert read(Environment, {"A": 1, "_b2": ""}) == {"A": "1", "_b2": ""}
    assert read(Environment, None) == {}
    for wrong in ({"1A": "x"}, {"A-B": "x"}, {"": "x"}, {"A=B": "x"}, {"A": None}, {"A": ["x"]}, ["A=x"], "A=x"):
        assert refusal(Environment, wrong)
        assert not is_offered(Environment, wrong)
    assert refusal(Environment, {f"A{number}": "" for number in range(VARIABLES_MAX + 1)})
    assert "hunter2" not in refusal(Environment, {"A": "hunter2\0"})


@pytest.mark.parametrize("text", ["AA-BB-CC-DD-EE-FF", "aa:bb:cc:dd:ee:ff", "Aa:bB:cc:dd:ee:FF"])
def test_a_mac_address_is_one_value_however_it_is_written(text: str) -> None:
    assert read(Mac, text) == "aa:bb:cc:dd:ee:ff"
    assert is_offered(Mac, text)


@pytest.mark.parametrize("text", ["aa:bb:cc:dd:ee", "aabbccddeeff", "aa:bb-cc:dd:ee:ff", "ga:bb:cc:dd:ee:ff", "pi", None, 5])
def test_what_is_no_mac_address_is_refused(text: object) -> None:
    assert "a MAC address such as" in refusal(Mac, text)
    assert not is_offered(Mac, text)


def test_a_packet_goes_to_an_address_and_a_port() -> None:
    assert [read(Ip, text) for text in ("192.168.1.255", "FF02::1", "fe80::1%eth0")] == [
        "192.168.1.255",
        "ff02::1",
        "fe80::1%eth0",
    ]
    wrong: object
    for wrong in ("pi", "1.2.3", "999.1.1.1", "", None, ["1.2.3.4"]):
        assert refusal(Ip, wrong)
    assert [read(Port, text) for text in ("1", 65535)] == [1, 65535]
    for wrong in (0, 65536, "x", None):
        assert "a whole number from 1 to 65535" in refusal(Port, wrong)


def test_models_stay_warm_for_a_while_or_always() -> None:
    assert (read(Idle, "30m"), written(Idle, "30m")) == (1800.0, "30m")
    assert (read(Idle, "always"), written(Idle, "always")) == (0.0, "always")
    for wrong in ("0s", "never", "", None, False):
        assert "or always" in refusal(Idle, wrong)
    assert read(Models, ["b", "a", "b", 1.5]) == ("b", "a", "1.5")
    assert read(Models, None) == ()
    assert refusal(Models, "a")


def test_a_token_is_generated_never_in_doubt_or_every_so_often() -> None:
    for off in ("off", "no", False, NO_GENERATION):
        assert read(Generate, off) == NO_GENERATION
    assert read(Generate, "suspicious") == GenerateRules(GenerateWhen.SUSPICIOUS)
    assert read(Generate, "90s") == GenerateRules(GenerateWhen.EVERY, 90.0)
    assert [written(Generate, text) for text in ("off", "suspicious", "90s")] == ["off", "suspicious", "90s"]
    for wrong in ("on", "every", "", None, True, 0):
        assert "off, suspicious, or" in refusal(Generate, wrong)
        assert not is_offered(Generate, wrong)
    assert refusal(Generate, "0s")


def test_a_bound_in_time_may_be_off() -> None:
    assert [read(DurationOrOff, value) for value in ("1s", "off", False)] == [1.0, None, None]
    assert [written(DurationOrOff, value) for value in ("250ms", "off")] == ["250ms", "off"]
    wrong: object
    for wrong in (0, "x", None):
        assert "or off" in refusal(DurationOrOff, wrong)
        assert not is_offered(DurationOrOff, wrong)


def test_how_often_is_written_as_it_was_read() -> None:
    assert read(Often, "5 per 1h") == (5, 3600.0)
    assert written(Often, "5 per 60m") == "5 per 1h"


@pytest.mark.parametrize("url", ["dingtalk://token/", "mailto://me:pw@mail.example", "json://host:1/a b", "a+b://c", ""])
def test_any_url_with_a_scheme_may_be_a_channel(url: str) -> None:
    assert read(AlertUrl, url) == url
    assert is_offered(AlertUrl, url)


@pytest.mark.parametrize(
    "url", ["hunter2", "://hunter2", "hunter2://", "a://hunter2\nb", "a://hunter2" + "b" * 4096, ["a://hunter2"]]
)
def test_what_is_no_channel_is_refused_without_being_shown(url: object) -> None:
    told = refusal(AlertUrl, url)
    assert ALERT_URL_WANTED in told
    assert "hunter2" not in told


def test_alerts_are_about_events_of_a_closed_list() -> None:
    assert alert_events() == ALERT_EVENTS
    assert read(Events, ["slo.broken", "backend.up", "slo.broken"]) == ("slo.broken", "backend.up")
    assert read(Events, None) == ()
    assert "Value error, backend.down" in refusal(Events, ["backend.don"])
    assert "one of backend.down, " in refusal(Events, ["zzz"])
    assert "(nearest: " in refusal(Events, ["zzz"])
    assert refusal(Events, [None])


def test_quiet_hours_may_go_past_midnight() -> None:
    assert read(Quiet, "22:00-07:30") == (22 * 60, 7 * 60 + 30)
    assert read(Quiet, (60, 120)) == (60, 120)
    assert [read(Quiet, value) for value in ("off", "no", False, None)] == [None] * 4
    assert written(Quiet, "22:00-07:30") == "22:00-07:30"
    assert [write_quiet(None), write_quiet((0, 1439))] == ["off", "00:00-23:59"]


@pytest.mark.parametrize(
    "text", ["22-7", "24:00-07:00", "07:00", "7:00-8:00", "22:60-23:00", "08:00-08:00", "22:00 - 07:00", "", 5]
)
def test_what_is_no_pair_of_times_is_refused(text: object) -> None:
    assert "two different times of the day" in refusal(Quiet, text)


def test_one_text_where_a_section_may_stand_is_its_mac_address() -> None:
    assert as_mac("x") == {"mac": "x"}
    assert as_mac({"port": 7}) == {"port": 7}


def test_what_is_said_twice_counts_once() -> None:
    assert each_once(("b", "a", "b")) == ("b", "a")
