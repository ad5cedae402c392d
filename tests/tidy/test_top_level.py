"""The top of the repository holds what a newcomer looks for, and nothing else."""

from tidy.source_tree import TOP, tracked_files

BELONGS = {
    "LICENSE",
    "Makefile",
    "README.md",
    "config.example.yaml",
    "deploy",
    "docs",
    "pyproject.toml",
    "src",
    "tests",
}


def test_the_top_holds_only_what_belongs_there() -> None:
    found = {path.relative_to(TOP).parts[0] for path in tracked_files()}
    assert {name for name in found if not name.startswith(".")} == BELONGS


def test_what_is_run_is_executable() -> None:
    assert (TOP / ".ci" / "run").stat().st_mode & 0o111


def test_the_readme_begins_with_the_two_commands_that_matter() -> None:
    readme = (TOP / "README.md").read_text(encoding="utf-8")
    commands = [line.strip() for block in readme.split("```sh\n")[1:] for line in block.split("```")[0].splitlines()]
    assert [command.split("#")[0].strip() for command in commands[:2]] == ["make demo", "make test"]
