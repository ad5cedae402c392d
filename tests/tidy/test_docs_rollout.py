"""What docs/rollout.md shows is right as it stands there: every file loads, every command is one that understudy takes."""

import re
import shlex

import pytest

from tidy.source_tree import TOP
from understudy.cli.check import meaning
from understudy.cli.compare_prompts import read_prompts
from understudy.cli.main import _parser
from understudy.config.load import load_text

PAGE = (TOP / "docs" / "rollout.md").read_text(encoding="utf-8")
FILES = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
# In blocks, and in the text between backquotes; whatever else the shell has stands before or after.
COMMANDS = sorted(set(re.findall(r"(?:^|[`$ ])(understudy (?!understudy)[a-z]+(?: [^`|&>\n]+)?)", PAGE, re.MULTILINE)))
METRICS = (TOP / "docs" / "metrics.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("text", [text for text in FILES if not text.startswith("-")])
def test_every_file_on_the_page_can_be_used(text: str) -> None:
    assert list(meaning(load_text(text, {})))


def test_the_prompts_on_the_page_can_be_used() -> None:
    prompts = [text for text in FILES if text.startswith("-")]
    assert prompts
    for text in prompts:
        assert read_prompts(text.encode(), "prompts.yaml")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_on_the_page_is_one_that_understudy_takes(command: str) -> None:
    _, *arguments = shlex.split(command)
    assert _parser(arguments).parse_args(arguments).run


def test_every_metric_on_the_page_is_on_the_page_of_metrics() -> None:
    named = set(re.findall(r"`(understudy_[a-z_]+[a-z])(?:\{[a-z,]+\})?`", PAGE))
    assert named
    assert not [name for name in named if f"`{name}`" not in METRICS]
