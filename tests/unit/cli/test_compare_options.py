"""The command line: what its values are, and which are wrong usage."""

import argparse

import pytest

from understudy.cli.compare_options import add_options


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="compare")
    add_options(parser)
    return parser.parse_args([*arguments, "p.yaml"])


def test_values_are_read_as_the_file_reads_them() -> None:
    args = parsed("--max-unmet", "2%", "--ttft", "1.5x", "--speed", "0.7", "--timeout", "500ms", "--parallel", "64")
    assert (args.max_unmet, args.ttft, args.speed, args.timeout, args.parallel) == (0.02, 1.5, 0.7, 0.5, 64)


def test_a_threshold_that_nobody_gave_is_told_from_one_of_zero() -> None:
    assert (parsed().max_unmet, parsed("--max-unmet", "0%").max_unmet, parsed().max_errors) == (None, 0.0, 0.0)


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--ttft", "fast", "want a ratio such as 1.5x or 0.7x"),
        ("--speed", "0x", "want a ratio"),
        ("--ttft", "1001", "want a ratio"),
        ("--max-unmet", "2", "want "),
        ("--parallel", "0", "want a whole number from 1 to 64"),
        ("--parallel", "65", "want a whole number"),
        ("--timeout", "0s", "want "),
    ],
)
def test_wrong_values_are_wrong_usage(option: str, value: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parsed(option, value)
    assert left.value.code == 2
    assert told in capsys.readouterr().err
