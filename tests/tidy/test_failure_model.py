"""docs/failure-model.md says what the code does: repeatable requests, failures, what is continued, refused paths."""

import re

from tidy.source_tree import TOP
from understudy.core.transcript import CARRIES, Case
from understudy.dialects.management import MANAGEMENT_LAST_SEGMENTS, MANAGEMENT_PATHS
from understudy.dialects.routes import GENERATING_PATHS, match
from understudy.errors import MEANING

CASES = {
    "tools offered": Case.TOOLS_OFFERED,
    "thinking": Case.REASONING,
    "thought, then text": Case.REASONED,
    "JSON mode": Case.JSON_MODE,
    "logprobs": Case.LOGPROBS,
    "images": Case.IMAGES,
}
PAGE = (TOP / "docs" / "failure-model.md").read_text(encoding="utf-8")


def table(first_title: str, second_title: str) -> list[list[str]]:
    """Read the one table of the page whose first two titles are these; returns its rows without titles and rule."""
    lines = PAGE.splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith(f"| {first_title} | {second_title} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return rows


def test_the_table_of_repeatable_requests_is_the_dialects_own() -> None:
    written = {(dialect, path.strip("`")) for dialect, _, path in table("dialect", "method")}
    assert written == {(str(dialect.name), path) for dialect, paths in GENERATING_PATHS for path in paths}


def test_what_the_table_calls_repeatable_is_routed_as_generating() -> None:
    for dialect, method, path in table("dialect", "method"):
        route = match(method.encode(), path.strip("`").encode())
        assert (route.kind, route.dialect and str(route.dialect.name)) == ("generating", dialect)


def test_the_table_of_failures_is_the_table_of_meanings() -> None:
    written = {row[0].strip("`"): tuple(row[1:]) for row in table("failure", "side")}
    assert written == {
        str(kind): (str(one.side), str(one.again), str(one.blame), str(one.status), one.words) for kind, one in MEANING.items()
    }


def test_the_table_of_what_is_continued_is_what_each_means_carries() -> None:
    titles = next(line for line in PAGE.splitlines() if line.startswith("| means | plain text |"))
    cases = [CASES[title.strip()] for title in titles.strip("|").split(" | ")[2:]]
    written = {
        row[0].strip("`"): {case for case, cell in zip(cases, row[2:], strict=True) if cell == "yes"}
        for row in table("means", "plain text")
    }
    assert written == {str(method): set(carried) for method, carried in CARRIES.items()}


def test_every_refused_path_is_on_the_page() -> None:
    written = {
        path for row in table("engine, as read", "refused, with everything below") for path in re.findall(r"`([^`]+)`", row[1])
    }
    assert written == {path for paths in MANAGEMENT_PATHS.values() for path in paths}
    assert all(f"`{segment}`" in PAGE for segment in MANAGEMENT_LAST_SEGMENTS)
