"""Moves bytes: the hot path, on asyncio protocols. What it does next comes from core."""
