"""Plays of the members that every continuation changes, and of what is remembered of a template."""

from typing import Any

import pytest

from support.cutting import CHAT, HELLO, TEXT, chat, cut, received
from understudy.engines.broken import (
    KEY_CHARACTERS_MAX,
    SENTINEL,
    SHOWN_MAX,
    Abilities,
    Fit,
    Shown,
    encode,
    fit_of,
    going_on,
    template_key,
    tokens_left,
    with_partial,
)

PARTIAL = {"role": "assistant", "content": "Once"}


@pytest.mark.parametrize(
    ("shown", "fit"),
    [
        (f"<a>{SENTINEL}", Fit.SAME),
        (f"<a>{SENTINEL.rstrip()}", Fit.TRIMMED),
        (f"<a><think></think>{SENTINEL}", Fit.OTHER),
        (f"<a>{SENTINEL}</a><a>", Fit.NONE),
        (f"<a><think></think>{SENTINEL.rstrip()}", Fit.NONE),
        ("", Fit.NONE),
    ],
)
def test_a_trial_shows_what_the_template_does(shown: str, fit: Fit) -> None:
    assert fit_of("<a>", shown, SENTINEL) is fit
    assert fit_of("", shown, SENTINEL) is Fit.NONE


@pytest.mark.parametrize(
    ("content", "joined"),
    [
        ("Well. ", "Well. Once"),
        (None, "Once"),
        ([{"type": "text", "text": "Well. "}], [{"type": "text", "text": "Well. Once"}]),
    ],
)
def test_a_partial_is_joined_to_the_clients_own(content: Any, joined: Any) -> None:
    messages = [HELLO, {"role": "assistant", "name": "x", "content": content}]
    assert with_partial(messages, PARTIAL, joins=True) == [HELLO, {"role": "assistant", "name": "x", "content": joined}]
    assert with_partial(messages, PARTIAL, joins=False) == [*messages, PARTIAL]


def test_a_partial_that_cannot_be_joined_is_not() -> None:
    pictures = [HELLO, {"role": "assistant", "content": [{"type": "image_url"}]}]
    assert with_partial(pictures, PARTIAL, joins=True) is None
    assert with_partial("none", PARTIAL, joins=True) is None


@pytest.mark.parametrize(("delivered", "left"), [(4, 6), (None, 3)])
def test_what_nobody_counted_is_taken_for_one_token_a_piece(delivered: int | None, left: int) -> None:
    one = cut(CHAT, chat(), received("Once", pieces=7))
    assert tokens_left(one, delivered, 10) == left
    assert tokens_left(one, delivered, None) is None


def test_the_request_goes_on_with_what_is_left_of_its_bounds() -> None:
    ask = chat(max_tokens=10, max_completion_tokens=10, n_predict=None, min_tokens=3, stream=False, seed=1, verbose=True)
    written = going_on(cut(CHAT, ask, received("Once")), 6, 4)
    assert written == {
        "model": "tiny",
        "messages": [HELLO],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 6,
        "max_completion_tokens": 6,
        "n_predict": None,
        "min_tokens": 0,
        "seed": 1,
    }
    # The request as read stays what it is.
    assert ask["max_tokens"] == 10


def test_requests_alike_to_a_template_have_one_key() -> None:
    def key(**members: Any) -> str:
        return template_key(cut(CHAT, chat(**members), received("Once")), "text")

    assert key() == key(temperature=1, max_tokens=9) != key(chat_template_kwargs={"enable_thinking": False})
    assert key(tools=[1]) == key(tools=[2]) != key(tools=[]) == key()


def test_what_is_remembered_is_bounded() -> None:
    abilities = Abilities()
    for number in range(SHOWN_MAX + 1):
        abilities.learn(str(number), Shown(Fit.SAME))
    abilities.learn("x" * (KEY_CHARACTERS_MAX + 1), Shown(Fit.SAME))
    assert len(abilities.shown) == SHOWN_MAX
    assert "0" not in abilities.shown


def test_lone_surrogates_are_encoded_as_they_came() -> None:
    assert encode({"a": "\ud83d"}) == b'{"a": "\\ud83d"}'


@pytest.mark.parametrize(
    ("prompt", "given"), [("a", "a"), (["a"], "a"), (["a", "b"], None), ([1, 2], None), ([7], None), (None, None), ([], None)]
)
def test_a_prompt_is_given_where_it_is_one_text(prompt: object, given: str | None) -> None:
    assert cut(TEXT, {"prompt": prompt}, received("Once")).given_prompt == given
