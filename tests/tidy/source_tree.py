"""Where the repository's files are, and their functions as the tidy tests see them.

Read by every test beside it. Looks at files only; imports nothing of the package it looks at.
"""

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).parents[2]
PACKAGE = TOP / "src" / "understudy"
UNIT_TESTS = TOP / "tests" / "unit"

Definition = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Function:
    """One function or method: where it stands, what it is called and its syntax tree."""

    path: Path
    tree: Definition
    owner: str

    @property
    def place(self) -> str:
        """FILE:LINE NAME, relative to the repository."""
        name = f"{self.owner}.{self.tree.name}" if self.owner else self.tree.name
        return f"{self.path.relative_to(TOP)}:{self.tree.lineno} {name}"


def tracked_files(*patterns: str) -> list[Path]:
    """List the files that git knows or would add, sorted; all of them without `patterns` (git's own, such as `*.md`).

    Where git cannot tell (an unpacked archive), every file that is neither hidden nor in a folder that tools make.
    """
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *patterns],
        cwd=TOP,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0 and listed.stdout:
        return sorted({TOP / name for name in listed.stdout.split("\0") if name and (TOP / name).is_file()})
    made = {"build", "dist", "__pycache__"}
    found = []
    for pattern in patterns or ("*",):
        for path in TOP.rglob(pattern):
            inner = path.relative_to(TOP).parts
            if path.is_file() and not any(part in made or part.startswith(".") for part in inner):
                found.append(path)
    return sorted(set(found))


def python_files(*under: str) -> list[Path]:
    """List every Python file below the named top-level folders, sorted."""
    return [path for path in tracked_files("*.py") if path.relative_to(TOP).parts[0] in under]


def functions(path: Path) -> Iterator[Function]:
    """Yield every function and method of a file, inner ones included."""
    yield from _functions(path, ast.parse(path.read_text(encoding="utf-8")), owner="")


def _functions(path: Path, tree: ast.AST, owner: str) -> Iterator[Function]:
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, Definition):
            yield Function(path, child, owner)
            yield from _functions(path, child, owner="")
        else:
            yield from _functions(path, child, owner=child.name if isinstance(child, ast.ClassDef) else owner)
