"""Write a comparison as one HTML page that needs nothing else: the verdict, the totals, each prompt with both answers.

Called by cli.compare for `--html`. Everything that a model or a person wrote is escaped, and the page's own policy forbids
whatever might have slipped through to load or run. Measures nothing.
"""

from collections.abc import Iterator, Sequence
from html import escape

from understudy.cli.compare_pairs import COLORS, Pair, Totals
from understudy.cli.compare_table import measured, shared_lines, total_rows
from understudy.cli.compare_verdict import Verdict, share
from understudy.core.color import Color
from understudy.telemetry.console import printable

# Of an answer beside the others; the whole of it is unfolded.
SHOWN_CHARACTERS_MAX = 280
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = """
:root { color-scheme: light dark; --line: #d5d9e0; --soft: #f4f6f9; --bad: #b3261e; --good: #1b7f3b; --blue: #1d5fd1; }
@media (prefers-color-scheme: dark) {
  :root { --line: #3a3f47; --soft: #1d2127; --bad: #ff8a80; --good: #6fd08c; --blue: #82b1ff; }
}
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.verdict { border-left: .4rem solid; padding: .5rem 1rem; background: var(--soft); font-weight: 600; }
table { border-collapse: collapse; width: 100%; table-layout: fixed; }
th, td { border: 1px solid var(--line); padding: .4rem .6rem; text-align: left; vertical-align: top; overflow-wrap: anywhere; }
thead th { background: var(--soft); } table.totals { width: auto; table-layout: auto; }
th.prompt { width: 22%; font-weight: 400; } th.blue { color: var(--blue); } th.green { color: var(--good); }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: .3rem 0; font: 13px/1.45 ui-monospace, monospace; }
.note { color: GrayText; font-size: .85rem; } .bad { color: var(--bad); } .good { color: var(--good); }
summary { cursor: pointer; }
"""


def page(pairs: Sequence[Pair], totals: Totals, verdict: Verdict, titles: tuple[str, str]) -> str:
    """Return the whole page."""
    tone = "bad" if verdict.is_worse else "good"
    lines = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="referrer" content="no-referrer">',
        f"<title>Blue and green: {_text(verdict.line)}</title><style>{_STYLE}</style></head><body>",
        "<h1>Blue and green compared</h1>",
        f'<p class="verdict {tone}">{_text(verdict.line)}</p>',
        *_totals(totals, verdict, titles),
        "<h2>Prompts</h2>",
        '<table><thead><tr><th class="prompt">prompt</th>',
        '<th class="blue">blue</th><th class="green">green</th></tr></thead><tbody>',
        *(line for pair in pairs for line in _row(pair)),
        "</tbody></table></body></html>",
    ]
    return "\n".join(lines) + "\n"


def _totals(totals: Totals, verdict: Verdict, titles: tuple[str, str]) -> Iterator[str]:
    heads = "".join(f'<th class="{color}">{color}: {_text(title)}</th>' for color, title in zip(COLORS, titles, strict=True))
    yield f'<table class="totals"><thead><tr><th></th>{heads}</tr></thead><tbody>'
    for name, blue, green in total_rows(totals):
        yield f"<tr><th>{_text(name)}</th><td>{_text(blue)}</td><td>{_text(green)}</td></tr>"
    yield "</tbody></table>"
    for line in shared_lines(totals):
        yield f"<p>{_text(line)}</p>"
    yield "<ul>"
    for check in verdict.checks:
        words = '<b class="bad">worse</b>' if check.is_broken else "kept"
        yield f"<li><code>{_text(check.option)}</code>: {_text(check.words)}, {words}</li>"
    yield "</ul>"


def _row(pair: Pair) -> Iterator[str]:
    facts = [] if pair.similarity is None else [f"{share(pair.similarity)} alike"]
    if pair.judged is not None:
        facts.append("judged a tie" if pair.judged.better is Color.NONE else f"{pair.judged.better} judged better")
    name = f"<b>{_text(pair.entry.name)}</b><br>" if pair.entry.name else ""
    yield f'<tr><th class="prompt">{pair.entry.number}. {name}{_unfolded(pair.entry.question)}'
    yield f'<p class="note">{_text(", ".join(facts))}</p></th>'
    for color in COLORS:
        yield from _cell(pair, color)
    yield "</tr>"


def _cell(pair: Pair, color: Color) -> Iterator[str]:
    answer, unmet = pair.answer(color), pair.unmet(color)
    yield "<td>"
    yield _unfolded(answer.text)
    if answer.thought:
        yield f"<details><summary>thought</summary><pre>{_text(answer.thought)}</pre></details>"
    yield f'<p class="note">{_text(measured(answer))}</p>'
    problems = [f"error: {answer.error}"] if answer.error else list(answer.faults)
    problems += ["cut at its limit of tokens"] if answer.is_truncated else []
    problems += [f"unmet: {reason}" for reason in unmet or () if not answer.error]
    for problem in problems:
        yield f'<p class="bad">{_text(problem)}</p>'
    if unmet == ():
        yield '<p class="good">as expected</p>'
    yield "</td>"


def _unfolded(text: str) -> str:
    """Return a text, the rest of a long one to be unfolded."""
    if len(text) <= SHOWN_CHARACTERS_MAX:
        return f"<pre>{_text(text)}</pre>"
    return f"<details><summary><pre>{_text(text[:SHOWN_CHARACTERS_MAX])} ...</pre></summary><pre>{_text(text)}</pre></details>"


def _text(text: str) -> str:
    """Return a text that is nothing but text: no markup, no character that is unseen or turns the direction of others."""
    lines = text.replace("\r\n", "\n").split("\n")
    return escape("\n".join(printable(line.replace("\t", "    ")) for line in lines))
