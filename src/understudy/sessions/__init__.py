"""Remembers conversations: one contract, a store of files, a store over Redis, and the keeper in front of them."""
