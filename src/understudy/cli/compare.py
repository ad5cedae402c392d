"""`understudy compare`: the same prompts to blue and to green, side by side, with a verdict that a pipeline can gate on.

Called by cli.main. Reads the prompts (compare_prompts), asks both sides (compare_run), and says what came of it (compare_table,
compare_json, compare_html). Changes nothing at the daemon; never logs.
"""

import argparse
import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.cli.admin_call import CallError, add_admin_option, say_error

if TYPE_CHECKING:
    from understudy.cli.compare_pairs import Pair
    from understudy.cli.compare_run import Answered
    from understudy.cli.compare_verdict import Thresholds

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001  # argparse gives its type no other name

_TIMEOUT_S = 120.0
_PARALLEL_MAX = 64
_RATIO_MAX = 1000.0


def add(subparsers: "Subparsers") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "compare",
        help="the same prompts to blue and green, side by side",
        description="Sends every prompt to blue and to green and shows the answers side by side; exit 1 when green is worse than "
        "the thresholds allow. Without --blue or --green the running daemon is asked for that color.",
    )
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
    parser.set_defaults(run=run, usage_error=parser.error)


def _add_thresholds(parser: argparse.ArgumentParser) -> None:
    limits = parser.add_argument_group("thresholds: exit 1 when green is worse than one of them")
    limits.add_argument("--max-unmet", metavar="SHARE", type=_share, default=0.0, help="fewer expectations met by (default 0%%)")
    limits.add_argument("--max-errors", metavar="SHARE", type=_share, default=0.0, help="more prompts failed by (default 0%%)")
    limits.add_argument("--ttft", metavar="RATIO", type=_ratio, help="time to first content at most, such as 1.5x blue's")
    limits.add_argument("--speed", metavar="RATIO", type=_ratio, help="tokens a second at least, such as 0.7x blue's")
    limits.add_argument("--min-similarity", metavar="SHARE", type=_share, default=0.0, help="answers alike by at least")
    limits.add_argument("--max-judged-worse", metavar="SHARE", type=_share, help="answers that the judge finds worse at most")


def run(args: argparse.Namespace) -> int:
    """Compare and print: 0 when green is no worse, 1 when it is or it cannot be told, 130 after Ctrl-C, with what there is."""
    from understudy.cli.compare_document import PromptsError
    from understudy.cli.compare_sides import CannotCompareError
    from understudy.errors import ConfigError

    if args.max_judged_worse is not None and not args.judge:
        args.usage_error("--max-judged-worse needs --judge")
    if args.judge_url and not args.judge:
        args.usage_error("--judge-url needs --judge")
    try:
        return _compare(args)
    except BrokenPipeError:
        raise
    except PromptsError as error:
        from understudy.telemetry.console import printable

        sys.stderr.write("".join(f"{printable(line)}\n" for line in error.lines))
    except (CannotCompareError, CallError) as error:
        say_error(error)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
    except OSError as error:
        say_error(f"{error.filename}: {(error.strerror or type(error).__name__).lower()}" if error.filename else error)
    return 1


def _compare(args: argparse.Namespace) -> int:
    """Do it all. Raises PromptsError, CannotCompareError, CallError, ConfigError, OSError."""
    from understudy.cli.compare_pairs import pair_of
    from understudy.cli.compare_prompts import read_prompts
    from understudy.cli.compare_run import ask_all, judge_all, pick_model
    from understudy.cli.compare_sides import judge_of, sides_of

    entries = read_prompts(*_read(args.prompts))
    sides = sides_of(args)
    judge = judge_of(args) if args.judge else None
    if args.html:
        # Found out now rather than after an hour of asking.
        args.html.open("a", encoding="utf-8").close()
    progress = _Progress(len(entries))
    is_interrupted = False
    try:
        model = asyncio.run(pick_model(entries, sides, args.model or "", args.timeout))
        asyncio.run(ask_all(entries, sides, model, args, progress.take))
    except KeyboardInterrupt:
        is_interrupted = True
    finally:
        progress.clear()
    pairs = [pair_of(*answered) for answered in sorted(progress.answered, key=lambda each: each[0].number)]
    if judge is not None and not is_interrupted:
        try:
            asyncio.run(judge_all(pairs, judge, args))
        except KeyboardInterrupt:
            is_interrupted = True
    is_worse = _tell(pairs, (sides[0].title, sides[1].title), args)
    if is_interrupted:
        say_error(f"interrupted after {len(pairs)} of {len(entries)} prompts")
        return 130
    return int(is_worse)


def _tell(pairs: "list[Pair]", titles: tuple[str, str], args: argparse.Namespace) -> bool:
    """Write and print what came of it; returns whether green is worse. Raises OSError."""
    from understudy.cli.compare_pairs import totals_of
    from understudy.cli.compare_verdict import verdict_of

    totals = totals_of(pairs)
    verdict = verdict_of(totals, _thresholds(args))
    if args.html:
        from understudy.cli.compare_html import page

        args.html.write_text(page(pairs, totals, verdict, titles), encoding="utf-8", errors="replace")
    if args.json:
        from understudy.cli.compare_json import json_of

        print(json_of(pairs, totals, verdict, titles))
        return verdict.is_worse
    from understudy.cli.compare_table import summary, table

    paper = _paper(is_full=args.full)
    for line in table(pairs, titles, paper):
        print(line)
    for line in summary(totals, verdict, paper):
        print(line)
    return verdict.is_worse


def _read(file: str) -> tuple[bytes, str]:
    """Return the prompts' bytes, at most one more than may be, and their name. Raises OSError."""
    from understudy.cli.compare_document import FILE_BYTES_MAX

    if file == "-":
        return sys.stdin.buffer.read(FILE_BYTES_MAX + 1), "standard input"
    with Path(file).open("rb") as source:
        return source.read(FILE_BYTES_MAX + 1), file


def _thresholds(args: argparse.Namespace) -> "Thresholds":
    from understudy.cli.compare_verdict import Thresholds

    return Thresholds(args.max_unmet, args.max_errors, args.ttft, args.speed, args.min_similarity, args.max_judged_worse)


def _paper(*, is_full: bool) -> Any:
    import shutil

    from understudy.cli.compare_table import LINES_MAX, Paper

    is_terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size((100, 24)).columns
    return Paper(width, is_terminal and not os.environ.get("NO_COLOR"), 0 if is_full else LINES_MAX)


class _Progress:
    """What is answered already; how far that is stands on standard error where that is a terminal."""

    def __init__(self, total: int) -> None:
        self.answered: list[Answered] = []
        self._total = total
        self._is_on = sys.stderr.isatty()

    def take(self, answered: "Answered") -> None:
        """Add a prompt that both have answered."""
        self.answered.append(answered)
        if self._is_on:
            sys.stderr.write(f"\r{len(self.answered)}/{self._total}")
            sys.stderr.flush()

    def clear(self) -> None:
        """Leave an empty line."""
        if self._is_on:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


# --- values of the command line


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
