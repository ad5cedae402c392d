"""The command line of `understudy compare`: its options, and how their values are read.

Called by cli.compare. Everything wrong with a value is wrong usage, said by argparse. Opens no file and asks nobody.
"""

import argparse
from pathlib import Path
from typing import Any

from understudy.cli.admin_call import add_admin_option

_TIMEOUT_S = 120.0
_PARALLEL_MAX = 64
_RATIO_MAX = 1000.0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add everything that may be said."""
    parser.add_argument("prompts", metavar="PROMPTS", help="YAML list or lines of JSON; - for standard input")
    whom = parser.add_argument_group("whom to ask")
    for color in ("blue", "green"):
        whom.add_argument(f"--{color}", metavar="B" if color == "blue" else "G", help="a URL, or a backend of the file")
        whom.add_argument(f"--{color}-model", metavar="M", help=f"what {color} is asked for, whatever the prompts say")
    whom.add_argument("-c", "--config", metavar="FILE", type=Path, help="the file that names backends (default: as for serve)")
    whom.add_argument("--url", metavar="URL", help="the daemon's public address (default: asked from its admin port)")
    add_admin_option(parser)
    whom.add_argument("--model", metavar="M", help="for prompts that name none (default: the first that both list)")
    whom.add_argument("--parallel", metavar="N", type=_parallel, default=1, help="so many prompts at once (default 1)")
    whom.add_argument("--timeout", metavar="DURATION", type=_duration, default=_TIMEOUT_S, help="for an answer (default 120s)")
    whom.add_argument("--judge", metavar="MODEL", help="ask this model which answer is better")
    whom.add_argument("--judge-url", metavar="URL", help="where the judge is (default: behind the daemon)")
    _add_thresholds(parser)
    told = parser.add_argument_group("what is told")
    told.add_argument("--json", action="store_true", help="as JSON, one line")
    told.add_argument("--html", metavar="FILE", type=Path, help="also write a page for a person to read")
    told.add_argument("--full", action="store_true", help="show answers whole")


def _add_thresholds(parser: argparse.ArgumentParser) -> None:
    limits = parser.add_argument_group("thresholds: exit 1 when green is worse than one of them")
    limits.add_argument("--max-unmet", metavar="SHARE", type=_share, help="fewer expectations met by (default 0%%)")
    limits.add_argument("--max-errors", metavar="SHARE", type=_share, default=0.0, help="more prompts failed by (default 0%%)")
    limits.add_argument("--ttft", metavar="RATIO", type=_ratio, help="time to first content at most, such as 1.5x blue's")
    limits.add_argument("--speed", metavar="RATIO", type=_ratio, help="characters a second at least, such as 0.7x blue's")
    limits.add_argument("--min-similarity", metavar="SHARE", type=_share, default=0.0, help="answers alike by at least")
    limits.add_argument("--max-judged-worse", metavar="SHARE", type=_share, help="answers that the judge finds worse at most")


def _share(text: str) -> float:
    from understudy.config.quantities import read_share

    return _quantity(read_share, text)


def _duration(text: str) -> float:
    from understudy.config.quantities import read_positive_duration

    return _quantity(read_positive_duration, text)


def _quantity(read: Any, text: str) -> float:
    from understudy.config.quantities import Unreadable

    try:
        return float(read(text))
    except Unreadable as error:
        raise argparse.ArgumentTypeError(f"want {error.want}") from error


def _ratio(text: str) -> float:
    import re

    found = re.fullmatch(r"([0-9]{1,4}(\.[0-9]{1,6})?)x?", text)
    if not found or not 0.0 < float(found[1]) <= _RATIO_MAX:
        raise argparse.ArgumentTypeError("want a ratio such as 1.5x or 0.7x")
    return float(found[1])


def _parallel(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= _PARALLEL_MAX:
        raise argparse.ArgumentTypeError(f"want a whole number from 1 to {_PARALLEL_MAX}")
    return int(text)
