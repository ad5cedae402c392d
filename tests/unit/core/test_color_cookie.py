"""A cookie of ours is read as it was written; whatever else a browser sends is nobody's color."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.core.color import Color
from understudy.core.color_cookie import (
    CONVERSATION_S_MAX,
    NAME,
    PREVIEW_S_MAX,
    ColorCookie,
    ended_cookie,
    read_cookie,
    write_cookie,
)

SECRET = b"0123456789abcdef"
NOW_S = 1_800_000_000.0


def sent(cookie: ColorCookie, secret: bytes = SECRET) -> bytes:
    """Return what a browser sends back."""
    return write_cookie(cookie, secret).partition(b";")[0]


@pytest.mark.parametrize("color", [Color.BLUE, Color.GREEN])
@pytest.mark.parametrize("is_preview", [True, False])
def test_it_is_read_as_it_was_written(color: Color, is_preview: bool) -> None:
    cookie = ColorCookie(color, is_preview, NOW_S)
    assert read_cookie(b"a=1; " + sent(cookie) + b"; b=2", SECRET, NOW_S + 60) == cookie


def test_scripts_and_other_sites_do_not_get_it() -> None:
    written = write_cookie(ColorCookie(Color.GREEN, is_preview=True, since_unix_s=NOW_S), SECRET)
    assert b"; HttpOnly; SameSite=Lax" in written
    assert b"; Path=/; Max-Age=86400" in written


def test_one_of_another_secret_is_none() -> None:
    assert read_cookie(sent(ColorCookie(Color.GREEN, True, NOW_S), b"another secret...."), SECRET, NOW_S) is None


@pytest.mark.parametrize(("is_preview", "age_s_max"), [(True, PREVIEW_S_MAX), (False, CONVERSATION_S_MAX)])
def test_it_ends_by_itself(is_preview: bool, age_s_max: int) -> None:
    field = sent(ColorCookie(Color.GREEN, is_preview, NOW_S))
    assert read_cookie(field, SECRET, NOW_S + age_s_max) is not None
    assert read_cookie(field, SECRET, NOW_S + age_s_max + 1) is None


def test_one_from_the_future_is_none() -> None:
    field = sent(ColorCookie(Color.GREEN, True, NOW_S))
    assert read_cookie(field, SECRET, NOW_S - 61) is None
    assert read_cookie(field, SECRET, NOW_S - 59) is not None


def test_the_first_sound_one_counts() -> None:
    blue, green = (ColorCookie(color, True, NOW_S) for color in (Color.BLUE, Color.GREEN))
    field = NAME + b"=junk; " + sent(green) + b"; " + sent(blue)
    assert read_cookie(field, SECRET, NOW_S) == green


@given(st.integers(0, 200), st.integers(0, 7))
def test_a_changed_bit_makes_it_nobodys(at: int, bit: int) -> None:
    value = bytearray(sent(ColorCookie(Color.GREEN, False, NOW_S)))
    at = len(NAME) + 1 + at % (len(value) - len(NAME) - 1)
    value[at] ^= 1 << bit
    found = read_cookie(bytes(value), SECRET, NOW_S)
    assert found is None or value[at : at + 1] in b"; \t"


@given(st.binary(max_size=300))
def test_whatever_comes_is_read_without_a_fault(value: bytes) -> None:
    assert read_cookie(NAME + b"=" + value, SECRET, NOW_S) is None
    read_cookie(value, SECRET, NOW_S)


def test_an_ended_one_is_none() -> None:
    assert read_cookie(ended_cookie().partition(b";")[0], SECRET, NOW_S) is None
    assert b"Max-Age=0" in ended_cookie()
