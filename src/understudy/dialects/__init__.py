"""Translate between the bytes of three APIs and what decisions need: OpenAI's, Ollama's and Anthropic's.

Start at `match` (routes.py), which gives a `Route` with its `Dialect` (contract.py). Called by dataplane and engines; pure.
"""

from understudy.dialects.contract import Dialect, Ending, Mark, Route, RouteKind, StreamKind, StreamReader
from understudy.dialects.framing import whole_until
from understudy.dialects.routes import DIALECTS, GENERATING_PATHS, PLAIN_ERROR, match

__all__ = [
    "DIALECTS",
    "GENERATING_PATHS",
    "PLAIN_ERROR",
    "Dialect",
    "Ending",
    "Mark",
    "Route",
    "RouteKind",
    "StreamKind",
    "StreamReader",
    "match",
    "whole_until",
]
