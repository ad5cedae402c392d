"""Write a comparison as one HTML page that needs nothing else: the verdict, the totals, each prompt with both answers.

Called by cli.compare for `--html`. Everything that a model or a person wrote is escaped, and the page's own policy forbids
whatever might have slipped through to load or run. Measures nothing.
"""

from collections.abc import Iterator, Sequence
from html import escape

from understudy.cli.compare_pairs import COLORS, About, Pair, Totals
from understudy.cli.compare_table import facts_of, measured, readable, shared_lines, total_rows
from understudy.cli.compare_verdict import Verdict
from understudy.core.color import Color

# Of an answer beside the others; the whole of it is unfolded.
SHOWN_CHARACTERS_MAX = 280
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = """
:root {
  color-scheme: light dark; --paper: #fff; --ink: #1a1d21; --faint: #565e69; --line: #d5d9e0; --soft: #f4f6f9;
  --bad: #b3261e; --good: #1b7f3b; --blue: #1d5fd1; --green: #1b7f3b;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171b; --ink: #e4e7eb; --faint: #a3abb6; --line: #3a3f47; --soft: #1f242b;
    --bad: #ff8a80; --good: #6fd08c; --blue: #82b1ff; --green: #6fd08c;
  }
}
body {
  font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem;
  background: var(--paper); color: var(--ink);
}
h1 { font-size: 1.4rem; margin-bottom: .2rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.verdict { border-left: .4rem solid; padding: .5rem 1rem; background: var(--soft); font-weight: 600; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; table-layout: fixed; }
th, td { border: 1px solid var(--line); padding: .4rem .6rem; text-align: left; vertical-align: top; overflow-wrap: anywhere; }
thead th { background: var(--soft); } table.totals { width: auto; table-layout: auto; }
table.totals tbody th { font-weight: 400; color: var(--faint); }
th.prompt { width: 22%; font-weight: 400; } th.blue { color: var(--blue); } th.green { color: var(--green); }
.said { display: block; white-space: pre-wrap; margin: .3rem 0; font: 13px/1.45 ui-monospace, monospace; }
.note { color: var(--faint); font-size: .85rem; margin: .3rem 0; }
p.bad, p.good { margin: .3rem 0; font-size: .9rem; } .bad { color: var(--bad); } .good { color: var(--good); }
.none { color: var(--faint); }
summary { cursor: pointer; list-style: none; } summary::-webkit-details-marker { display: none; }
summary::after { content: "show all"; color: var(--blue); font-size: .85rem; }
details[open] > summary::after { content: "show less"; }
details[open] > summary > .said { display: none; }
"""


def page(pairs: Sequence[Pair], totals: Totals, verdict: Verdict, about: About) -> str:
    """Return the whole page."""
    tone = "none" if verdict.is_interrupted else "bad" if verdict.is_worse else "good"
    lines = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="referrer" content="no-referrer">',
        f"<title>Blue and green: {_text(verdict.line)}</title><style>{_STYLE}</style></head><body>",
        "<h1>Blue and green compared</h1>",
        f'<p class="note">{_text(_origin(about))}</p>',
        f'<p class="verdict {tone}">{_text(verdict.line)}</p>',
        *_totals(totals, verdict, about),
        "<h2>Prompts</h2>",
        '<table><thead><tr><th class="prompt">prompt</th>',
        '<th class="blue">blue</th><th class="green">green</th></tr></thead><tbody>',
        *(line for pair in pairs for line in _row(pair)),
        "</tbody></table></body></html>",
    ]
    return "\n".join(lines) + "\n"


def _origin(about: About) -> str:
    parts = [
        about.at,
        f"prompts: {about.prompts}" if about.prompts else "",
        f"understudy {about.version}" if about.version else "",
    ]
    return " · ".join(part for part in parts if part)


def _totals(totals: Totals, verdict: Verdict, about: About) -> Iterator[str]:
    heads = "".join(
        f'<th class="{color}">{color}: {_text(title)}</th>' for color, title in zip(COLORS, about.titles, strict=True)
    )
    yield f'<table class="totals"><thead><tr><th></th>{heads}</tr></thead><tbody>'
    models = [("model", *about.models)] if any(about.models) else []
    for name, blue, green in (*models, *total_rows(totals)):
        yield f"<tr><th>{_text(name)}</th><td>{_text(blue)}</td><td>{_text(green)}</td></tr>"
    yield "</tbody></table>"
    for line in shared_lines(totals):
        yield f"<p>{_text(line)}</p>"
    if verdict.checks:
        yield "<ul>"
        for check in verdict.checks:
            words = '<b class="bad">worse</b>' if check.is_broken else '<span class="good">kept</span>'
            yield f"<li><code>{_text(check.option)}</code>: {_text(check.words)}, {words}</li>"
        yield "</ul>"


def _row(pair: Pair) -> Iterator[str]:
    name = f"<b>{_text(pair.entry.name)}</b>" if pair.entry.name else ""
    yield f'<tr><th class="prompt">{pair.entry.number}. {name}{_unfolded(pair.entry.question)}'
    if facts := facts_of(pair):
        yield f'<p class="note">{_text(", ".join(facts))}</p>'
    yield "</th>"
    for color in COLORS:
        yield from _cell(pair, color)
    yield "</tr>"


def _cell(pair: Pair, color: Color) -> Iterator[str]:
    answer, unmet = pair.answer(color), pair.unmet(color)
    yield "<td>"
    if answer.text:
        yield _unfolded(answer.text)
    if answer.thought:
        yield f'<p class="note">thought:</p>{_unfolded(answer.thought)}'
    if facts := measured(answer):
        yield f'<p class="note">{_text(facts)}</p>'
    problems = [f"error: {answer.error}"] if answer.error else list(answer.faults)
    problems += ["cut at its limit of tokens"] if answer.is_truncated else []
    problems += [f"unmet: {reason}" for reason in unmet or () if not answer.error]
    for problem in problems:
        yield f'<p class="bad">{_text(problem)}</p>'
    if unmet == ():
        yield '<p class="good">as expected</p>'
    yield "</td>"


def _unfolded(text: str) -> str:
    """Return a text; of a long one the beginning, in whose place the whole of it can be unfolded."""
    if len(text) <= SHOWN_CHARACTERS_MAX:
        return f'<span class="said">{_text(text)}</span>'
    short = f'<span class="said">{_text(text[:SHOWN_CHARACTERS_MAX])} ...</span>'
    return f'<details><summary>{short}</summary><div class="said">{_text(text)}</div></details>'


def _text(text: str) -> str:
    """Return a text that is nothing but text: no markup, no character that is unseen or turns the direction of others."""
    lines = text.replace("\r\n", "\n").split("\n")
    return escape("\n".join(readable(line.replace("\t", "    ")) for line in lines))
