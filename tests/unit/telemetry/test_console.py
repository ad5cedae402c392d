"""Lines for people are readable, and nobody else can write on their terminal."""

from understudy.telemetry.console import console_line, printable

LEAD = {"timestamp": "2026-01-31T23:59:59.123Z", "level": "info", "event": "backend.went_up"}


def test_fields_stand_behind_the_name() -> None:
    line = console_line(LEAD | {"backend": "pi", "was_for_s": 2.5, "models": ["a", "b"], "half_open": False}, is_colored=False)
    assert line == "2026-01-31 23:59:59.123Z info    backend.went_up  backend=pi was_for_s=2.5 models=a,b half_open=no\n"


def test_an_event_without_fields_is_its_name() -> None:
    assert console_line(LEAD, is_colored=False) == "2026-01-31 23:59:59.123Z info    backend.went_up\n"


def test_text_with_spaces_and_no_text_are_quoted() -> None:
    line = console_line(LEAD | {"reason": "refused the connection", "why": "", "tried": []}, is_colored=False)
    assert line.endswith('  reason="refused the connection" why="" tried=-\n')


def test_colors_are_on_the_level_and_end() -> None:
    line = console_line(LEAD, is_colored=True)
    assert "\x1b[32minfo" in line
    assert line.count("\x1b[") == line.count("\x1b[0m") * 2


def test_control_characters_come_out_as_escapes() -> None:
    hostile = "m\n2026 error fake\r\x1b[2J\x9b31m\u202e\u2028\udcff"
    shown = printable(hostile)
    assert shown == "m\\n2026 error fake\\r\\x1b[2J\\x9b31m\\u202e\\u2028\\udcff"
    line = console_line(LEAD | {"model": hostile}, is_colored=False)
    assert line.count("\n") == 1
    assert "\x1b" not in line


def test_letters_of_any_script_are_left_alone() -> None:
    assert printable("通义千问 é ñ 🎭") == "通义千问 é ñ 🎭"


def test_a_traceback_follows_indented() -> None:
    line = console_line(LEAD | {"exception": 'Traceback\n  File "x"\nValueError: \x1b[0m'}, is_colored=False)
    assert line.splitlines()[1:] == ["    Traceback", '      File "x"', "    ValueError: \\x1b[0m"]
