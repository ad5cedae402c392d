"""The house words: no cupboard files, no function that only `handles`, no promise in a comment, no ignore without a reason."""

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from tidy.source_tree import TOP, functions, python_files

CUPBOARDS = {"utils", "util", "helpers", "helper", "common", "base", "misc", "manager", "managers", "tools"}
VAGUE_VERB = re.compile(r"_*(handle|process|do|perform)(_|$)")
# Names that a library calls and we do not choose: http.server's verbs for scripted engines.
GIVEN_NAMES = {"do_GET", "do_POST", "do_HEAD", "do_DELETE", "do_PUT", "do_OPTIONS"}
# Written apart, so that this file does not find itself.
PROMISE = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK")) + r")\b")
# A silenced check names what it silences and then says why, in at least two words.
SILENCED = re.compile(r"#\s*(noqa|type:\s*ignore|pragma:\s*no cover|mypy:)", re.IGNORECASE)
SILENCED_WITH_REASON = re.compile(
    r"#\s*(?:noqa:\s*[A-Z]+[0-9]+(?:\s*,\s*[A-Z]+[0-9]+)*|type:\s*ignore\[[a-z-]+(?:,\s*[a-z-]+)*\]|pragma:\s*no cover)"
    r"\s*[#-]?\s*[^\s#-]\S*\s+\S+",
)


def comments(path: Path) -> Iterator[tuple[int, str]]:
    """Yield every comment of a Python file with its line number."""
    for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def test_no_file_is_a_cupboard() -> None:
    cupboards = [path for path in python_files("src", "tests") if {path.stem, path.parent.name} & CUPBOARDS]
    assert not cupboards, [str(path.relative_to(TOP)) for path in cupboards]


def test_function_names_start_with_a_word_that_tells_something() -> None:
    vague = [
        function.place
        for path in python_files("src", "tests")
        for function in functions(path)
        if VAGUE_VERB.match(function.tree.name) and function.tree.name not in GIVEN_NAMES
    ]
    assert not vague


def test_no_comment_promises_work_for_later() -> None:
    promises = [
        f"{path.relative_to(TOP)}:{line}"
        for path in python_files("src", "tests")
        for line, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if PROMISE.search(text)
    ]
    assert not promises


def test_every_silenced_check_names_its_code_and_its_reason() -> None:
    bare = [
        f"{path.relative_to(TOP)}:{line} {text}"
        for path in python_files("src", "tests")
        for line, text in comments(path)
        if SILENCED.search(text) and not SILENCED_WITH_REASON.search(text)
    ]
    assert not bare


def test_no_test_is_skipped_where_it_counts() -> None:
    """A skipped test says nothing; only the real vLLM play may step back, and only when it was asked for and has no room."""
    skipping = re.compile(r"pytest\.(skip|importorskip|xfail)\(|mark\.(skip|skipif|xfail)\b")
    found = [
        str(path.relative_to(TOP))
        for path in python_files("tests")
        if skipping.search(path.read_text(encoding="utf-8")) and path.name not in {"test_real_vllm.py", Path(__file__).name}
    ]
    assert not found
