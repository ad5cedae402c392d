"""Files, functions and parameter lists stay short enough to be read in one go."""

import ast

from tidy.source_tree import TOP, functions, python_files

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
PARAMETERS_MAX = 6
CONSTRUCTORS = {"__init__", "__new__"}


def test_files_are_at_most_400_lines() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in python_files("src", "tests")}
    long = [f"{path.relative_to(TOP)}: {lines}" for path, lines in lengths.items() if lines > FILE_LINES_MAX]
    assert not long


def test_functions_are_at_most_60_lines() -> None:
    long = []
    for path in python_files("src", "tests"):
        for function in functions(path):
            lines = (function.tree.end_lineno or 0) - function.tree.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                long.append(f"{function.place}: {lines}")
    assert not long


def test_functions_take_at_most_6_parameters() -> None:
    many = []
    for path in python_files("src", "tests"):
        for function in functions(path):
            count = _parameters(function.tree.args) - (1 if function.owner else 0)
            if count > PARAMETERS_MAX and function.tree.name not in CONSTRUCTORS:
                many.append(f"{function.place}: {count}")
    assert not many


def _parameters(arguments: ast.arguments) -> int:
    return len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)
