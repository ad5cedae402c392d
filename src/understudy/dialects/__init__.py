"""Translate between the bytes of three APIs and what decisions need: OpenAI's, Ollama's and Anthropic's.

Start at `match` (routes.py), which gives a `Route` with its `Dialect` (contract.py). Called by dataplane and engines; pure.
"""

from understudy.dialects.routes import PLAIN_ERROR, match

__all__ = ["PLAIN_ERROR", "match"]
