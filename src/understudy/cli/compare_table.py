"""Write a comparison for a person at a terminal: each prompt with both answers side by side, then the totals and the verdict.

Called by cli.compare. What models and clients wrote stands as printable characters only. Measures nothing.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from unicodedata import category, east_asian_width

from understudy.cli.compare_asking import Answer
from understudy.cli.compare_pairs import COLORS, Pair, Total, Totals
from understudy.cli.compare_verdict import Verdict, percent, share
from understudy.core.color import Color
from understudy.telemetry.console import printable

WIDTH_MIN, WIDTH_MAX = 40, 200
LINES_MAX = 6
_GAP = "  "
_RED, _GREEN, _BLUE, _BOLD, _RESET = "\x1b[31m", "\x1b[32m", "\x1b[34m", "\x1b[1m", "\x1b[0m"
# They join what stands on both sides of them, in emoji and in some scripts, and are harmless there.
_JOINERS = re.compile(r"(?<=[^\x00-\x7f])([\u200c\u200d])(?=[^\x00-\x7f])")
_NO_WIDTH = ("Mn", "Me", "Cf")


@dataclass(frozen=True, slots=True)
class Paper:
    """What it is written on. `width` in columns; `lines_max` is how much of an answer is shown, 0: all of it."""

    width: int = 100
    is_colored: bool = False
    lines_max: int = LINES_MAX

    @property
    def column(self) -> int:
        """The width of each of two columns."""
        return (min(max(self.width, WIDTH_MIN), WIDTH_MAX) - len(_GAP)) // 2

    def painted(self, text: str, paint: str) -> str:
        """Return the text in a color, where there are colors."""
        return f"{paint}{text}{_RESET}" if self.is_colored and text and paint else text


def table(pairs: Sequence[Pair], titles: tuple[str, str], paper: Paper) -> Iterator[str]:
    """Yield the lines of every prompt."""
    for pair in pairs:
        yield from _pair_lines(pair, titles, paper)
        yield ""


def _pair_lines(pair: Pair, titles: tuple[str, str], paper: Paper) -> Iterator[str]:
    said = pair.entry.name or " ".join(pair.entry.question.split())
    facts = facts_of(pair)
    after = f" ({', '.join(facts)})" if facts else ""
    lead = f"{pair.entry.number}. "
    room = max(8, 2 * paper.column - len(lead) - len(after))
    yield paper.painted(f"{lead}{shortened(readable(said), room)}", _BOLD) + after
    heads = [shortened(f"{color}: {title}", paper.column) for color, title in zip(COLORS, map(readable, titles), strict=True)]
    yield _row(heads, [_BLUE, _GREEN], paper)
    columns = [_shown(pair.answer(color), paper) for color in COLORS]
    for cells in zip_longest(*columns, fillvalue=""):
        yield _row(cells, ["", ""], paper)
    notes = [list(_notes(pair, color, paper)) for color in COLORS]
    for marked in zip_longest(*notes, fillvalue=("", "")):
        yield _row([text for text, _ in marked], [paint for _, paint in marked], paper)


def facts_of(pair: Pair) -> list[str]:
    """Say what is known of both answers together: how alike they are, and the judge's word."""
    facts = [] if pair.similarity is None else [f"{share(pair.similarity)} alike"]
    judged = pair.judged
    if judged is None or judged.is_same:
        return facts
    if judged.error:
        return [*facts, "the judge could not be asked"]
    if judged.unreadable:
        return [*facts, "the judge's word could not be read"]
    return [*facts, "judged a tie" if judged.better is Color.NONE else f"{judged.better} judged better"]


def readable(text: str) -> str:
    """Return the text in characters that can be seen or join such; others as their escapes."""
    if text.isprintable():
        return text
    parts = _JOINERS.split(text)
    return "".join(part if index % 2 else printable(part) for index, part in enumerate(parts))


def _row(cells: Sequence[str], paints: Sequence[str], paper: Paper) -> str:
    left, right = cells
    gap = " " * (paper.column - width_of(left)) + _GAP
    return (paper.painted(left, paints[0]) + gap + paper.painted(right, paints[1])).rstrip()


def _shown(answer: Answer, paper: Paper) -> list[str]:
    """Return the answer's text in lines that fit, shortened."""
    lines: list[str] = []
    for line in answer.text.replace("\r\n", "\n").strip("\n").split("\n"):
        lines.extend(wrapped(readable(line.expandtabs(4)), paper.column))
        if paper.lines_max and len(lines) > paper.lines_max:
            lines = [*lines[: paper.lines_max - 1], shortened(f"{lines[paper.lines_max - 1]} ...", paper.column)]
            break
    return lines


def _notes(pair: Pair, color: Color, paper: Paper) -> Iterator[tuple[str, str]]:
    """Yield what was measured of one answer, each line with its color."""
    answer, unmet = pair.answer(color), pair.unmet(color)
    if facts := measured(answer):
        for line in wrapped(f"[{facts}]", paper.column):
            yield line, ""
    problems = [f"error: {answer.error}"] if answer.error else list(answer.faults)
    if answer.is_truncated:
        problems.append("cut at its limit of tokens")
    problems += [f"unmet: {reason}" for reason in unmet or () if not answer.error]
    for problem in problems:
        for line in wrapped(readable(problem), paper.column):
            yield line, _RED
    if unmet == ():
        yield "as expected", _GREEN


def measured(answer: Answer) -> str:
    """Write what was measured of an answer: 12 tokens, first after 0.18s, 45.1/s, by gpu0; "" where nothing came."""
    about = "~" if answer.is_estimated and answer.tokens else ""
    tokens = "" if answer.error and not answer.tokens else f"{about}{answer.tokens} token{'' if answer.tokens == 1 else 's'}"
    facts = [tokens, "" if answer.ttft_s is None else f"first after {seconds(answer.ttft_s)}"]
    facts.append("" if answer.token_speed is None else f"{about}{answer.token_speed:.1f}/s")
    facts.append(f"{answer.calls} tool call{'s' * (answer.calls > 1)}" if answer.calls else "")
    facts.append(f"by {readable(answer.backend)}" if answer.backend else "")
    return ", ".join(fact for fact in facts if fact)


def seconds(value: float | None) -> str:
    """Write a time as exactly as it is worth: 0.184s, 2.31s, 41.0s."""
    if value is None:
        return "-"
    return f"{value:.3f}s" if value < 1 else f"{value:.2f}s" if value < 10 else f"{value:.1f}s"


# --- the totals


def total_rows(totals: Totals) -> Iterator[tuple[str, str, str]]:
    """Yield (what, blue's, green's) for the totals of both sides."""
    blue, green = totals.blue, totals.green
    yield "answered", f"{blue.answered}/{totals.prompts}", f"{green.answered}/{totals.prompts}"
    yield "errors", str(blue.errors), str(green.errors)
    yield "wrong form", str(blue.faults), str(green.faults)
    yield "cut at the token limit", str(blue.truncated), str(green.truncated)
    if totals.expected:
        yield "as expected", _met(blue, totals), _met(green, totals)
    yield "tokens", _tokens(blue), _tokens(green)
    yield "first content, median", seconds(blue.ttft_s), seconds(green.ttft_s) + _times(totals.ttft_ratio)
    yield "tokens a second, median", _token_speed(blue), _token_speed(green)
    yield "characters a second, median", _speed(blue), _speed(green) + _times(totals.speed_ratio)


def shared_lines(totals: Totals) -> Iterator[str]:
    """Yield what is said of both sides at once."""
    if totals.similarity is not None:
        yield f"The answers are {share(totals.similarity)} alike on average."
    judgement = totals.judgement
    if judgement.readable:
        aside = f" ({judgement.swayed} by order alone)" if judgement.swayed else ""
        ties = f"{judgement.ties} tie{'' if judgement.ties == 1 else 's'}{aside}"
        yield f"The judge found blue better in {judgement.blue}, green better in {judgement.green}, {ties}."
    if judgement.unreadable:
        yield f"The judge's word could not be read in {judgement.unreadable}."
    if judgement.unasked:
        yield f"The judge could not be asked in {judgement.unasked}: {readable(judgement.error)}."
    if judgement.same:
        yield f"The judge was not asked in {judgement.same}: the same text twice."


def summary(totals: Totals, verdict: Verdict, paper: Paper) -> Iterator[str]:
    """Yield the lines of the totals, and the verdict as the last one."""
    rows = [("", "blue", "green"), *total_rows(totals)]
    widths = [max(len(row[index]) for row in rows) for index in range(3)]
    for index, row in enumerate(rows):
        line = _GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        yield paper.painted(line, _BOLD) if index == 0 else line
    yield ""
    worse = paper.painted("worse", _RED)
    checks = [f"{check.option}: {check.words}, {worse if check.is_broken else 'kept'}" for check in verdict.checks]
    said = [*shared_lines(totals), *checks]
    yield from [*said, ""] if said else []
    yield paper.painted(readable(verdict.line), _BOLD if verdict.is_interrupted else _RED if verdict.is_worse else _GREEN)


def _met(total: Total, totals: Totals) -> str:
    return f"{total.met}/{totals.expected} {percent(total.met, totals.expected)}"


def _tokens(total: Total) -> str:
    return f"{'~' if total.is_estimated else ''}{total.tokens}"


def _token_speed(total: Total) -> str:
    return "-" if total.token_speed is None else f"{'~' if total.is_estimated else ''}{total.token_speed:.1f}"


def _speed(total: Total) -> str:
    return "-" if total.speed is None else f"{total.speed:.0f}"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f" ({ratio:.2f}x)"


# --- columns of characters


def width_of(text: str) -> int:
    """Return how many columns of a terminal a printable text takes."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(character: str) -> int:
    return 0 if category(character) in _NO_WIDTH else 2 if east_asian_width(character) in "WF" else 1


def wrapped(text: str, columns: int) -> list[str]:
    """Return the text in lines of at most `columns`, broken between words where it can be; [""] for an empty one."""
    text = text.rstrip()
    lines: list[str] = []
    start = 0
    while (end := _fitting(text, columns, start)) < len(text):
        space = text.rfind(" ", start + 1, end + 1)
        end = space if space > 0 and text[start:space].strip() else end
        lines.append(text[start:end].rstrip())
        start = end
        while text[start] == " ":
            start += 1
    return [*lines, text[start:]]


def _fitting(text: str, columns: int, start: int = 0) -> int:
    """Return where the text must end to fit into `columns` from `start` on, at least one character after it."""
    used = 0
    for index in range(start, len(text)):
        used += _columns(text[index])
        if used > columns:
            return max(start + 1, index)
    return len(text)


def shortened(text: str, columns: int) -> str:
    """Return the text, or as much of it as fits with `...` after it."""
    return text if _fitting(text, columns) == len(text) else text[: _fitting(text, columns - 3)] + "..."
