"""`understudy compare`: the same prompts to blue and to green, side by side, with a verdict that a pipeline can gate on.

Called by cli.main. Reads the prompts (compare_prompts), asks both sides (compare_run), and says what came of it (compare_table,
compare_json, compare_html, compare_output). Changes nothing at the daemon; never logs.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.cli.admin_call import CallError, say_error
from understudy.cli.compare_options import add_options
from understudy.cli.interruptible import run_interruptible

if TYPE_CHECKING:
    from understudy.cli.compare_pairs import About, Pair, Totals
    from understudy.cli.compare_progress import Progress
    from understudy.cli.compare_prompts import Entry
    from understudy.cli.compare_run import Answered
    from understudy.cli.compare_sides import Side
    from understudy.cli.compare_verdict import Thresholds, Verdict

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001  # argparse gives its type no other name

_INTERRUPTED = 130
_MODELS_SHOWN_MAX = 3


def add(subparsers: "Subparsers") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "compare",
        help="the same prompts to blue and green, side by side",
        description="Sends every prompt to blue and to green and shows the answers side by side; exit 1 when green is worse than "
        "the thresholds allow. Without --blue or --green the running daemon is asked for that color.",
    )
    add_options(parser)
    parser.set_defaults(run=run, usage_error=parser.error)


def run(args: argparse.Namespace) -> int:
    """Compare and print: 0 when green is no worse, 1 when it is or it cannot be told, 130 after Ctrl-C, with what there is."""
    from understudy.cli.compare_document import PromptsError
    from understudy.cli.compare_sides import CannotCompareError
    from understudy.errors import ConfigError

    _refuse_wrong_usage(args)
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
        _say_os_error(error)
    return 1


def _refuse_wrong_usage(args: argparse.Namespace) -> None:
    from understudy.cli.compare_output import is_same_file

    if args.max_judged_worse is not None and not args.judge:
        args.usage_error("--max-judged-worse needs --judge")
    if args.judge_url and not args.judge:
        args.usage_error("--judge-url needs --judge")
    kept = (("the prompts", Path(args.prompts)), ("the configuration", args.config), ("what is printed", Path("/dev/stdout")))
    for what, file in kept:
        if args.html and file is not None and is_same_file(args.html, file):
            args.usage_error(f"--html {args.html} would overwrite {what}")


def _say_os_error(error: OSError) -> None:
    words = (error.strerror or type(error).__name__).lower()
    say_error(f"{error.filename}: {words}" if error.filename else words)


class _Course:
    """What a comparison has come to so far, whatever ends it. `stopped` says in words why not all was asked for."""

    def __init__(self, progress: "Progress") -> None:
        self.progress = progress
        self.model = ""
        self.answered: list[Answered] = []
        self.pairs: list[Pair] = []
        self.stopped = ""
        self.is_interrupted = False

    def take(self, answered: "Answered") -> None:
        """Add a prompt that both have answered."""
        self.answered.append(answered)
        self.progress.step()

    def end(self) -> None:
        """Bring what was answered and not yet held against what was expected to the rest, and all in order."""
        from understudy.cli.compare_pairs import Pair

        checked = {pair.entry.number for pair in self.pairs}
        self.pairs += [Pair(*answered) for answered in self.answered if answered[0].number not in checked]
        self.pairs.sort(key=lambda pair: pair.entry.number)


def _compare(args: argparse.Namespace) -> int:
    """Do it all. Raises PromptsError, CannotCompareError, CallError, ConfigError, OSError."""
    from understudy.cli.compare_output import refuse_unwritable
    from understudy.cli.compare_progress import Progress
    from understudy.cli.compare_prompts import read_prompts
    from understudy.cli.compare_sides import judge_of, judge_warning, sides_of

    entries = read_prompts(*_read(args.prompts))
    sides = sides_of(args)
    judge = judge_of(args) if args.judge else None
    if args.html:
        # Found out now rather than after an hour of asking.
        refuse_unwritable(args.html)
    if judge is not None and (warning := judge_warning(args)):
        say_error(warning)
    course = _Course(Progress())
    try:
        _run_course(course, entries, (sides, judge), args)
    except KeyboardInterrupt:
        course.is_interrupted = True
    finally:
        course.progress.clear()
    if not course.answered:
        say_error("interrupted before the first answer")
        return _INTERRUPTED
    course.end()
    return _tell(course, _about(course, entries, sides, args), args)


def _run_course(
    course: _Course, entries: "list[Entry]", whom: "tuple[tuple[Side, Side], Side | None]", args: argparse.Namespace
) -> None:
    """Ask, check and judge. Raises CannotCompareError, KeyboardInterrupt."""
    from understudy.cli.compare_pairs import pair_of
    from understudy.cli.compare_run import ask_all, judge_all, pick_model

    sides, judge = whom
    progress = course.progress
    progress.begin("asking", "prompts", len(entries))
    course.model = run_interruptible(pick_model(entries, sides, args.model or "", args.timeout))
    gone = run_interruptible(ask_all(entries, sides, course.model, args, course.take))
    course.stopped = f"stopped after {progress.words}: {gone}" if gone else ""
    progress.begin("checking", "prompts checked", len(course.answered))
    for answered in course.answered:
        course.pairs.append(pair_of(*answered))
        progress.step()
    if judge is not None and not gone:
        progress.begin("judging", "pairs judged", sum(pair.is_whole for pair in course.pairs))
        run_interruptible(judge_all(course.pairs, judge, args, progress.step))


def _tell(course: _Course, about: "About", args: argparse.Namespace) -> int:
    """Print, then write the page; what goes wrong with one does not keep the other back. Returns the exit code."""
    from understudy.cli.compare_output import print_text, write_page
    from understudy.cli.compare_pairs import totals_of

    totals = totals_of(course.pairs)
    verdict = _verdict(course, totals, args)
    failures: list[OSError] = []
    try:
        print_text(_printed(course.pairs, totals, verdict, about, args))
    except OSError as error:
        failures.append(error)
    # An older page is worth more than one without a single answer.
    if args.html and any(not (pair.blue.error and pair.green.error) for pair in course.pairs):
        from understudy.cli.compare_html import page

        try:
            write_page(args.html, page(course.pairs, totals, verdict, about))
        except OSError as error:
            failures.append(error)
    if course.is_interrupted:
        say_error(f"interrupted after {course.progress.words}")
    for failure in failures:
        if not isinstance(failure, BrokenPipeError):
            _say_os_error(failure)
    for failure in failures:
        if isinstance(failure, BrokenPipeError):
            raise failure
    return _INTERRUPTED if course.is_interrupted else int(bool(failures) or verdict.is_worse)


def _verdict(course: _Course, totals: "Totals", args: argparse.Namespace) -> "Verdict":
    from understudy.cli.compare_verdict import interrupted, stopped, verdict_of

    if course.is_interrupted:
        return interrupted(f"interrupted after {course.progress.words}")
    return stopped(course.stopped) if course.stopped else verdict_of(totals, _thresholds(args))


def _printed(pairs: "list[Pair]", totals: "Totals", verdict: "Verdict", about: "About", args: argparse.Namespace) -> str:
    if args.json:
        from understudy.cli.compare_json import json_of

        return json_of(pairs, totals, verdict, about) + "\n"
    from understudy.cli.compare_table import summary, table

    paper = _paper(is_full=args.full)
    lines = [*table(pairs, about.titles, paper), *summary(totals, verdict, paper)]
    return "".join(f"{line}\n" for line in lines)


def _about(course: _Course, entries: "list[Entry]", sides: "tuple[Side, Side]", args: argparse.Namespace) -> "About":
    from datetime import datetime

    from understudy import __version__
    from understudy.cli.compare_asking import model_of
    from understudy.cli.compare_pairs import About

    names = (list(dict.fromkeys(model_of(side, entry, course.model) for entry in entries)) for side in sides)
    blue, green = (", ".join(each[:_MODELS_SHOWN_MAX]) + (", ..." if len(each) > _MODELS_SHOWN_MAX else "") for each in names)
    at = datetime.now().astimezone().isoformat(" ", timespec="seconds")
    prompts = "standard input" if args.prompts == "-" else args.prompts
    return About((sides[0].title, sides[1].title), (blue, green), prompts, at, __version__)


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
