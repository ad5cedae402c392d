"""Give the garbage collector back to a test run after a daemon has tuned it for itself."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def spared_collector() -> Iterator[None]:
    """The daemon tunes the garbage collector of its process, which is the tests' here."""
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)
