"""Encrypt what is kept, and name it so that names tell nothing; only where the operator has given `sessions.key`.

Called by sessions.record. AES-256-GCM from `cryptography`, which is loaded here alone and only with a key. Knows no format and
no store. It keeps secrets from whoever reads the store and notices what was changed or moved; it cannot notice an old record that
was put back whole.
"""

import os
from enum import StrEnum
from hmac import digest
from typing import Final

KEY_BYTES: Final = 32
KEY_ID_BYTES: Final = 8
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
# How much longer a text is once it is sealed.
SEAL_BYTES: Final = _NONCE_BYTES + _TAG_BYTES


class Purpose(StrEnum):
    """What a key derived from the operator's is for: one use, one key, so that nothing passes for something else."""

    NAME = "name"
    KEY_ID = "key id"
    HEADER = "header"
    BODY = "body"


class BrokenSeal(Exception):  # noqa: N818  said of the text, not of a program
    """The text was changed, or was sealed with another key, for another purpose or for another place."""


class Seal:
    """One key's seals and names.

    Nonces are random: by NIST SP 800-38D, 8.3, one key is good for 2^32 of each purpose, four thousand million changes of
    sessions. Raises ValueError where the key has another length and ImportError where `cryptography` is missing.
    """

    def __init__(self, key: bytes) -> None:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        if len(key) != KEY_BYTES:
            raise ValueError(f"a key of {KEY_BYTES} bytes is needed, not of {len(key)}")
        self._invalid: Final = InvalidTag
        self._ciphers: Final = {purpose: AESGCM(_derived(key, purpose)) for purpose in (Purpose.HEADER, Purpose.BODY)}
        self._name_key: Final = _derived(key, Purpose.NAME)
        # Stands before what is sealed, so that another key is no damage.
        self.key_id: Final = _derived(key, Purpose.KEY_ID)[:KEY_ID_BYTES]

    def name(self, session: str) -> str:
        """Return 64 hex digits that only this key makes of the session's id."""
        return digest(self._name_key, session.encode(), "sha256").hex()

    def seal(self, purpose: Purpose, text: bytes, place: bytes) -> bytes:
        """Return the nonce and the encrypted text, which open only for the same purpose and the same place."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._ciphers[purpose].encrypt(nonce, text, place)

    def open(self, purpose: Purpose, sealed: bytes, place: bytes) -> bytes:
        """Return the text. Raises `BrokenSeal`."""
        if len(sealed) < SEAL_BYTES:
            raise BrokenSeal
        try:
            return self._ciphers[purpose].decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], place)
        except self._invalid as error:
            raise BrokenSeal from error


def _derived(key: bytes, purpose: Purpose) -> bytes:
    return digest(key, f"understudy sessions: {purpose}".encode(), "sha256")
