"""Waiting for what has no event of its own: ask again and again, for a bounded time."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(find: Callable[[], T], what: str, *, timeout_s: float = 10.0, every_s: float = 0.02) -> T:
    """Call `find` until what it returns is true, and return that; AssertionError saying `what` after `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    never = threading.Event()
    while True:
        found = find()
        if found:
            return found
        assert time.monotonic() < deadline_s, f"not within {timeout_s} s: {what}"
        never.wait(every_s)
