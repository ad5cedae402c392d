"""Which exchanges have a shadow."""

import pytest

from understudy.core.ask import DialectName
from understudy.core.color import Color
from understudy.core.shadowing import SHADOW_FIELDS, ShadowAsk, is_shadowed

IDS = [b"%032x" % number for number in range(4000)]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_the_share_of_exchanges_is_the_one_asked_for(share: float) -> None:
    found = sum(is_shadowed(one, share) for one in IDS) / len(IDS)
    # Four standard deviations of a fair coin of that kind.
    assert abs(found - share) < 4 * (share * (1 - share) / len(IDS)) ** 0.5


def test_none_and_all_are_exact() -> None:
    assert not any(is_shadowed(one, 0.0) for one in IDS)
    assert all(is_shadowed(one, 1.0) for one in IDS)


def test_an_id_is_always_picked_alike_and_stays_picked_when_the_share_grows() -> None:
    for one in IDS[:200]:
        assert is_shadowed(one, 0.3) == is_shadowed(one, 0.3)
        assert not is_shadowed(one, 0.3) or is_shadowed(one, 0.4)


def test_what_is_the_clients_stands_in_no_repr() -> None:
    fields = ((b"authorization", b"Bearer secret"),)
    asked = ShadowAsk(Color.GREEN, "/v1/messages", b"a prompt", "m", DialectName.ANTHROPIC, is_streaming=True, fields=fields)
    assert "secret" not in repr(asked)
    assert "prompt" not in repr(asked)


def test_no_cookie_and_no_session_is_among_the_fields_that_go_on() -> None:
    assert not SHADOW_FIELDS & {b"cookie", b"x-session-id", b"x-forwarded-for", b"traceparent"}
