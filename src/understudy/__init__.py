"""Understudy: a failover proxy for self-hosted language models."""

__version__ = "0.1.0"
