"""tests/unit mirrors src one to one, so that a file's tests are found without searching, and none goes without."""

from tidy.source_tree import PACKAGE, UNIT_TESTS

# Files that only state facts in frozen types: what they hold is tested where it is used.
DATA_ONLY = {
    "controlplane/means.py": "protocols and frozen fields only; restart_means is what they describe",
    "core/upkeep.py": "frozen fields only; config compiles them, restart, warmth and objectives read them",
    "core/ask.py": "frozen fields only; dialects make them, core.balancer reads them",
    "core/record.py": "slots only; dataplane.relay fills them, telemetry reads them",
    "dataplane/contract.py": "protocols only; dataplane.relay and dataplane.relayed are what they describe",
    "sessions/store.py": "protocols, frozen fields and outcomes only; every store and sessions.keeper are what they describe",
    "engines/contract.py": "frozen fields only; engines' probes yield and return them, controlplane.fetcher answers them",
}


def source_files() -> set[str]:
    """List every source file that owes a test, relative to the package."""
    found = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")}
    return {name for name in found if not name.endswith(("__init__.py", "__main__.py"))}


def twin(source: str) -> str:
    """Name the test file of a source file, relative to tests/unit."""
    folder, _, name = source.rpartition("/")
    return f"{folder}/test_{name}" if folder else f"test_{name}"


def test_every_source_file_has_its_own_tests() -> None:
    missing = [name for name in sorted(source_files() - set(DATA_ONLY)) if not (UNIT_TESTS / twin(name)).is_file()]
    assert not missing, f"no tests/unit twin for {missing}"


def test_every_unit_test_file_has_its_source() -> None:
    twins = {twin(name) for name in source_files()}
    packages = {f"{path.parent.relative_to(PACKAGE).as_posix()}/test_init.py" for path in PACKAGE.rglob("*/__init__.py")}
    found = {path.relative_to(UNIT_TESTS).as_posix() for path in UNIT_TESTS.rglob("test_*.py")}
    orphans = sorted(found - twins - packages - {"test_main.py"})
    assert not orphans, f"tests/unit files whose source is gone: {orphans}"


def test_the_list_of_data_only_files_is_not_longer_than_it_must_be() -> None:
    stale = [name for name in DATA_ONLY if not (PACKAGE / name).is_file() or (UNIT_TESTS / twin(name)).is_file()]
    assert not stale, f"gone, or tested after all: {stale}"
