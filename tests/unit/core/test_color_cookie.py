"""A cookie of ours is read as it was written; whatever else a browser sends is nobody's color."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.core.color import Color
from understudy.core.color_cookie import (
    CONVERSATION_S_MAX,
    MARK,
    NO_COOKIES,
    PREVIEW_S_MAX,
    ColorCookie,
    Cookies,
    ended_preview,
    read_cookies,
    write_cookie,
)

SECRET = b"0123456789abcdef"
NOW_S = 1_800_000_000.0


def sent(cookie: ColorCookie, secret: bytes = SECRET) -> bytes:
    """Return what a browser sends back."""
    return write_cookie(cookie, secret).partition(b";")[0]


def read(field: bytes, now_s: float = NOW_S) -> ColorCookie | None:
    """Return what is read of either kind."""
    cookies, _ = read_cookies(field, SECRET, now_s)
    return cookies.preview or cookies.conversation


@pytest.mark.parametrize("color", [Color.BLUE, Color.GREEN])
@pytest.mark.parametrize("is_preview", [True, False])
def test_it_is_read_as_it_was_written(color: Color, is_preview: bool) -> None:
    cookie = ColorCookie(color, is_preview, NOW_S)
    assert read(b"a=1; " + sent(cookie) + b"; b=2", NOW_S + 60) == cookie


def test_both_kinds_stand_beside_each_other() -> None:
    preview, conversation = ColorCookie(Color.GREEN, True, NOW_S), ColorCookie(Color.BLUE, False, NOW_S)
    field = b" %b; x=y; %b" % (sent(conversation), sent(preview))
    assert read_cookies(field, SECRET, NOW_S) == (Cookies(preview, conversation), b"x=y")


def test_the_rest_of_the_field_is_left_as_it_is() -> None:
    assert read_cookies(b'a="b c"; d=e=f', SECRET, NOW_S) == (NO_COOKIES, b'a="b c"; d=e=f')
    assert read_cookies(sent(ColorCookie(Color.GREEN, True, NOW_S)), SECRET, NOW_S)[1] == b""
    assert MARK in sent(ColorCookie(Color.GREEN, True, NOW_S))
    assert MARK in sent(ColorCookie(Color.GREEN, False, NOW_S))


def test_scripts_and_other_sites_do_not_get_it() -> None:
    written = write_cookie(ColorCookie(Color.GREEN, is_preview=True, since_unix_s=NOW_S), SECRET)
    assert b"; HttpOnly; SameSite=Lax" in written
    assert b"; Path=/; Max-Age=86400" in written


def test_one_of_another_secret_is_none() -> None:
    assert read(sent(ColorCookie(Color.GREEN, True, NOW_S), b"another secret....")) is None


def test_one_kind_is_not_taken_for_the_other() -> None:
    conversation = sent(ColorCookie(Color.GREEN, False, NOW_S))
    assert read(conversation.replace(b"understudy_color", b"understudy_preview")) is None


@pytest.mark.parametrize(("is_preview", "age_s_max"), [(True, PREVIEW_S_MAX), (False, CONVERSATION_S_MAX)])
def test_it_ends_by_itself(is_preview: bool, age_s_max: int) -> None:
    field = sent(ColorCookie(Color.GREEN, is_preview, NOW_S))
    assert read(field, NOW_S + age_s_max) is not None
    assert read(field, NOW_S + age_s_max + 1) is None


def test_one_from_the_future_is_none() -> None:
    field = sent(ColorCookie(Color.GREEN, True, NOW_S))
    assert read(field, NOW_S - 61) is None
    assert read(field, NOW_S - 59) is not None


def test_of_many_only_the_first_is_looked_at() -> None:
    """To check a signature takes time, and a browser sends one of each kind."""
    green = sent(ColorCookie(Color.GREEN, True, NOW_S))
    assert read(b"understudy_preview=junk; " + green) is None
    assert read(green + b"; understudy_preview=junk") is not None


@given(st.integers(0, 200), st.integers(0, 7))
def test_a_changed_bit_makes_it_nobodys(at: int, bit: int) -> None:
    value = bytearray(sent(ColorCookie(Color.GREEN, False, NOW_S)))
    at %= len(value)
    value[at] ^= 1 << bit
    found = read(bytes(value))
    assert found is None or value[at : at + 1] in b"; \t"


@given(st.binary(max_size=300))
def test_whatever_comes_is_read_without_a_fault(value: bytes) -> None:
    assert read(b"understudy_color=" + value) is None
    read_cookies(value, SECRET, NOW_S)


def test_an_ended_one_is_none() -> None:
    assert read(ended_preview().partition(b";")[0]) is None
    assert b"Max-Age=0" in ended_preview()


def test_what_was_given_in_the_second_of_a_recall_is_told_apart() -> None:
    cookie = ColorCookie(Color.GREEN, is_preview=False, since_unix_s=NOW_S + 0.75)
    assert read(sent(cookie), NOW_S + 60) == cookie
