"""The command status: ask the running daemon what it sees and print it as a table, or as JSON.

Lays the table out itself: a terminal library would take longer to import than the daemon takes to answer.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from understudy.cli.admin_call import CallError, add_admin_option, call, say_error

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001  # argparse gives its type no other name

WATCH_S = 1.0
_COLUMNS: tuple[str, ...] = (
    "BACKEND", "ROLE", "COLOR", "ENGINE", "CONDITION", "FOR", "IN FLIGHT", "FIRST CONTENT", "FAILURES", "MODELS", "REASON"
)  # fmt: skip
_COLOR_COLUMN = _COLUMNS.index("COLOR")
_COUNTS = (("running", "running"), ("waiting", "waiting"), ("connections", "connections"))
_MODELS_SHOWN = 3
# What is promised (core.objectives, which need not be loaded for that).
_SHARES, _SECONDS = ("errors", "gpu_busy"), ("p99_first_content",)
_GREEN, _YELLOW, _RED, _BOLD, _RESET = "\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[1m", "\x1b[0m"
_CLEAR = "\x1b[H\x1b[2J"


def add(subparsers: "Subparsers") -> None:
    """Register the command."""
    parser = subparsers.add_parser("status", help="what the running daemon sees, as a table")
    parser.add_argument("--json", action="store_true", help="as JSON, one line")
    parser.add_argument("--watch", action="store_true", help="again every second, until Ctrl-C")
    add_admin_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the status once, or with --watch until interrupted; 1 when the daemon cannot be asked."""
    is_terminal = sys.stdout.isatty()
    try:
        print(_fetch_view(args, is_terminal=is_terminal), flush=True)
        while args.watch:
            time.sleep(WATCH_S)
            try:
                print(_fetch_view(args, is_terminal=is_terminal), flush=True)
            except CallError as error:
                # A watcher wants to see the daemon come back; who cannot reach it from the start has the address wrong.
                say_error(error)
    except CallError as error:
        say_error(error)
        return 1
    except KeyboardInterrupt:
        if not args.watch:
            raise
    return 0


def table(status: dict[str, Any], *, is_colored: bool, width: int = 0) -> str:
    """Return the status document as a header and one row a backend, without a newline at the end.

    What is in force of blue and green goes on below where it has more than `width` characters; 0: it never does.
    """
    backends = [each for each in status.get("backends") or () if isinstance(each, dict)]
    columns, rows = _COLUMNS, [_row(each) for each in backends]
    if all(each.get("color", "none") == "none" for each in backends):
        columns, *rows = (row[:_COLOR_COLUMN] + row[_COLOR_COLUMN + 1 :] for row in (columns, *rows))
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    lines = [
        *_header(status, is_colored=is_colored),
        *_rollout_lines(status, backends, width),
        *_broken_lines(status),
        "",
        _line(columns, widths, _BOLD if is_colored else "", range(len(columns))),
    ]
    for backend, row in zip(backends, rows, strict=True):
        lines.append(_line(row, widths, _color(backend) if is_colored else "", (columns.index("CONDITION"),)))
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Return a duration as people say it: 0.4s, 12s, 3m 20s, 4h 10m, 2d 3h."""
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    for unit_s, unit, part_s, part in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= unit_s:
            return f"{whole // unit_s}{unit} {whole % unit_s // part_s}{part}"
    return f"{whole}s"


def _fetch_view(args: argparse.Namespace, *, is_terminal: bool) -> str:
    """Ask, and return what is to be printed."""
    import json
    import os
    import shutil

    value = call(args.admin, "GET", "/api/status").value
    if args.json:
        # ASCII only: nothing in it can speak to the terminal.
        return json.dumps(value)
    clear = _CLEAR if args.watch and is_terminal else ""
    # Whoever reads from a pipe wants a line to stay one.
    width = shutil.get_terminal_size().columns if is_terminal else 0
    return clear + table(value, is_colored=is_terminal and not os.environ.get("NO_COLOR"), width=width)


def _header(status: dict[str, Any], *, is_colored: bool) -> list[str]:
    is_ready = bool(status.get("ready"))
    ready = "stopping" if status.get("stopping") else "ready" if is_ready else "not ready: no backend is usable"
    if is_colored:
        ready = f"{_GREEN if is_ready else _RED}{ready}{_RESET}"
    listen = ", ".join(_text(each) for each in status.get("listen") or ())
    counts = [f"{_text(status.get(name))} {words}" for name, words in _COUNTS]
    lines = [
        f"understudy {_text(status.get('version'))}, {ready}, up {duration(_number(status.get('uptime_s')))}"
        + (f", listening on {listen}" if listen else ""),
        ", ".join(counts),
        f"{_text(status.get('file')) or 'settings from the command line'}, generation {_text(status.get('generation'))}"
        + _reload_words(status.get("reload")),
    ]
    if isinstance(last := status.get("reload"), dict) and not last.get("ok"):
        color, end = (_RED, _RESET) if is_colored else ("", "")
        lines += [f"  {color}refused: {_text(mistake)}{end}" for mistake in last.get("mistakes") or ()]
    return lines


def _rollout_lines(status: dict[str, Any], backends: Sequence[dict[str, Any]], width: int) -> list[str]:
    if not isinstance(rollout := status.get("rollout"), dict):
        return []
    from understudy.cli.rollout_line import rollout_lines

    colors = {_text(each.get("color", "none")) for each in backends}
    return rollout_lines(rollout, time.time(), colors, width)


def _broken_lines(status: dict[str, Any]) -> list[str]:
    """Return a line for every promise that is broken and every alert channel that fails."""
    lines = []
    for each in status.get("objectives") or ():
        if isinstance(each, dict) and each.get("broken"):
            objective, lasted = _text(each.get("objective")), duration(_number(each.get("broken_for_s")))
            value, bound = (_measured(objective, _number(each.get(key))) for key in ("value", "bound"))
            lines.append(f"slo {objective}: {value} where {bound} is promised, for {lasted}")
    return lines + [
        f"alerts to {_text(each.get('name'))} fail: {_text(each.get('last_error'))}"
        for each in status.get("alerts") or ()
        if isinstance(each, dict) and each.get("last_error")
    ]


def _measured(objective: str, value: float) -> str:
    """Return what is promised, or was found, as the file would say it; as a bare number where the promise is not known here."""
    if objective in _SHARES:
        return f"{100.0 * value:.4g}%"
    return f"{value:.4g}s" if objective in _SECONDS else f"{value:g}"


def _reload_words(last: object) -> str:
    if not isinstance(last, dict):
        return ", never reloaded"
    ago = duration(max(0.0, time.time() - _number(last.get("at"))))
    if not last.get("ok"):
        return f", reload refused {ago} ago; the settings before it stay"
    restart = ", ".join(_text(each) for each in last.get("needs_restart") or ())
    return f", reloaded {ago} ago" + (f"; as before until a restart: {restart}" if restart else "")


def _row(backend: dict[str, Any]) -> tuple[str, ...]:
    ttft_s = backend.get("ttft_ewma_s")
    in_flight_max = _number(backend.get("in_flight_max"))
    return (
        _text(backend.get("name")),
        _text(backend.get("role")),
        _text(backend.get("color")),
        " ".join(part for part in (_text(backend.get("engine")), _text(backend.get("version"))) if part),
        _condition(backend),
        duration(_number(backend.get("since_s"))),
        _text(backend.get("in_flight")) + (f"/{in_flight_max:.0f}" if in_flight_max else ""),
        "-" if ttft_s is None else f"{_number(ttft_s):.2f}s",
        _text(backend.get("failures_total")),
        _models(backend.get("models")),
        _text(backend.get("reason")),
    )


def _condition(backend: dict[str, Any]) -> str:
    words = [_text(backend.get("condition"))]
    if (duty := backend.get("duty")) != "ready":
        words.append(_text(duty))
    restart, warm = backend.get("restart"), backend.get("warm")
    # One that is well since has no reason any more.
    if isinstance(restart, dict) and restart.get("phase") == "gave_up" and restart.get("reason"):
        words.append("restarts have not helped")
    elif backend.get("restarting"):
        words.append("restarting")
    if backend.get("degraded"):
        words.append("degraded")
    if isinstance(warm, dict) and not warm.get("is_warm"):
        words.append("not warm")
    if left_s := _number(backend.get("ejected_for_s")):
        words.append(f"ejected {duration(left_s)}")
    elif backend.get("half_open"):
        words.append("half-open")
    if left_s := _number(backend.get("resting_for_s")):
        words.append(f"resting {duration(left_s)}")
    return ", ".join(words)


def _models(models: object) -> str:
    if not isinstance(models, list):
        return "?"
    names = ", ".join(_text(each) for each in models[:_MODELS_SHOWN]) or "none"
    return names if len(models) <= _MODELS_SHOWN else f"{names} +{len(models) - _MODELS_SHOWN}"


def _color(backend: dict[str, Any]) -> str:
    if backend.get("condition") == "down":
        return _RED
    is_plain = backend.get("condition") == "up" and _condition(backend) == "up"
    return _GREEN if is_plain else _YELLOW


def _line(cells: Sequence[str], widths: Sequence[int], color: str, colored: Sequence[int]) -> str:
    padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
    padded[-1] = padded[-1].rstrip()
    if color:
        padded = [f"{color}{cell}{_RESET}" if index in colored else cell for index, cell in enumerate(padded)]
    return "  ".join(padded).rstrip()


def _text(value: object) -> str:
    """Return a value of the answer as characters that can be printed; an engine may have written it."""
    from understudy.telemetry.console import printable

    return "" if value is None else printable(str(value))


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
