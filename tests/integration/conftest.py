"""What every integration play may ask for."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.daemon import Daemon
from support.scripted import ScriptedEngine


@pytest.fixture(scope="session")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where tiny models are made once per run."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def engine(shared: tuple[ScriptedEngine, Daemon]) -> ScriptedEngine:
    """Hand over the one engine of a file whose plays are `shared`, with an empty script."""
    shared[0].fresh()
    return shared[0]


@pytest.fixture
def gpu0() -> Iterator[ScriptedEngine]:
    """Run the first scripted engine of a play."""
    with ScriptedEngine("gpu0") as engine:
        yield engine


@pytest.fixture
def gpu1() -> Iterator[ScriptedEngine]:
    """Run the second."""
    with ScriptedEngine("gpu1") as engine:
        yield engine


@pytest.fixture
def gpu2() -> Iterator[ScriptedEngine]:
    """Run the third."""
    with ScriptedEngine("gpu2") as engine:
        yield engine
