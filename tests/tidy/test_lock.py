"""The constraints file pins everything that pyproject.toml asks for, at versions that it allows, and names no index."""

import re
import tomllib
from importlib.metadata import distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tidy.source_tree import TOP

LINES = (TOP / "deploy" / "constraints.txt").read_text(encoding="utf-8").splitlines()
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))


def pins() -> dict[str, str]:
    """Every pinned distribution's canonical name with its version."""
    pinned = [line.split("==") for line in LINES if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pinned}


def asked() -> list[Requirement]:
    """List what the project, its extras and its build ask for."""
    project = PROJECT["project"]
    extras = [text for extra in project["optional-dependencies"].values() for text in extra]
    return [Requirement(text) for text in [*project["dependencies"], *extras, *PROJECT["build-system"]["requires"]]]


def test_every_line_is_one_exact_version() -> None:
    exact = re.compile(r"#.*|[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+")
    wrong = [line for line in LINES if not exact.fullmatch(line)]
    assert not wrong


def test_everything_asked_for_is_pinned_within_its_bounds() -> None:
    pinned = pins()
    wrong = [str(one) for one in asked() if pinned.get(canonicalize_name(one.name), "") not in one.specifier]
    assert not wrong


def test_everything_asked_for_has_a_lower_bound() -> None:
    unbounded = [str(one) for one in asked() if not any(part.operator in {">=", "~=", "=="} for part in one.specifier)]
    assert not unbounded


def test_what_is_installed_here_is_what_is_pinned() -> None:
    pinned = pins()
    different = {
        one.name: distribution(one.name).version
        for one in asked()
        if (one.marker is None or one.marker.evaluate()) and one.name != "hatchling"
        if distribution(one.name).version != pinned[canonicalize_name(one.name)]
    }
    assert not different, f"run `make test`, which installs what is pinned; found {different}"
