"""A seal opens for its purpose and its place with its key, and not otherwise."""

import subprocess
import sys

import pytest

from support.stored import KEY, OTHER_KEY
from understudy.sessions.seal import KEY_ID_BYTES, SEAL_BYTES, BrokenSeal, Purpose, Seal

SEALS = (Purpose.HEADER, Purpose.BODY)


@pytest.mark.parametrize("text", [b"", b"x", b"text" * 10_000])
@pytest.mark.parametrize("purpose", SEALS)
def test_a_text_comes_back(purpose: Purpose, text: bytes) -> None:
    seal = Seal(KEY)
    sealed = seal.seal(purpose, text, b"here")
    assert len(sealed) == len(text) + SEAL_BYTES
    assert Seal(KEY).open(purpose, sealed, b"here") == text


def test_the_same_text_is_never_sealed_twice_alike() -> None:
    seal = Seal(KEY)
    assert len({seal.seal(Purpose.BODY, b"text", b"") for _ in range(100)}) == 100


def test_another_place_purpose_or_key_opens_nothing() -> None:
    sealed = Seal(KEY).seal(Purpose.BODY, b"text", b"here")
    for seal, purpose, place in (
        (Seal(KEY), Purpose.BODY, b"there"),
        (Seal(KEY), Purpose.HEADER, b"here"),
        (Seal(OTHER_KEY), Purpose.BODY, b"here"),
    ):
        with pytest.raises(BrokenSeal):
            seal.open(purpose, sealed, place)


def test_a_sealed_text_that_is_torn_or_changed_opens_nothing() -> None:
    seal = Seal(KEY)
    sealed = seal.seal(Purpose.BODY, b"text", b"here")
    for at in range(len(sealed)):
        for broken in (sealed[:at], sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]):
            with pytest.raises(BrokenSeal):
                seal.open(Purpose.BODY, broken, b"here")


def test_names_and_key_ids_are_the_keys_own() -> None:
    seal, other = Seal(KEY), Seal(OTHER_KEY)
    assert seal.name("ada") == Seal(KEY).name("ada")
    assert len({seal.name("ada"), seal.name("eve"), other.name("ada")}) == 3
    assert len(seal.key_id) == KEY_ID_BYTES
    assert seal.key_id == Seal(KEY).key_id != other.key_id
    assert seal.key_id.hex() not in seal.name("")


def test_the_library_is_loaded_with_a_key_alone() -> None:
    """A Raspberry Pi that encrypts nothing loads none of it."""
    script = (
        "import sys\n"
        "from understudy.core.conversation import Conversation\n"
        "from understudy.sessions.record import Codec, Format\n"
        "Codec(Format.JSON, None).encode('s', Conversation())\n"
        "assert 'cryptography' not in sys.modules\n"
        "Codec(Format.JSON, b'x' * 32)\n"
        "assert 'cryptography' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_without_the_library_a_key_is_an_import_error() -> None:
    script = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from understudy.sessions.record import Codec, Format\n"
        "try: Codec(Format.JSON, b'x' * 32)\n"
        "except ImportError: print('told')"
    )
    ended = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert ended.stdout == "told\n"
