"""A request that goes on with a conversation is known by what stood before its last answer."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.dialects.history import HISTORY_BYTES_MAX, History, answered_digest, history_of

CHAT = "/v1/chat/completions"
SYSTEM = {"role": "system", "content": "Be kind."}
HI = {"role": "user", "content": "Hi"}
HELLO = {"role": "assistant", "content": "Hello!"}
MORE = {"role": "user", "content": "And then?"}


def read(*messages: Any, path: str = CHAT, client: bytes = b"one", **more: Any) -> History:
    history = history_of(path, json.dumps({"model": "m", "messages": messages, **more}).encode(), client)
    assert history is not None
    return history


@pytest.mark.parametrize("path", [CHAT, "/api/chat", "/v1/messages"])
def test_the_next_turn_is_known(path: str) -> None:
    first = read(SYSTEM, HI, path=path)
    second = read(SYSTEM, HI, HELLO, MORE, path=path)
    assert not first.earlier
    assert second.earlier == first.whole
    assert read(SYSTEM, HI, HELLO, MORE, HELLO, HI, path=path).earlier == second.whole


@pytest.mark.parametrize("content", ["Hello!", " Hello!\n", [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo!"}]])
def test_what_was_answered_tells_apart_what_began_alike(content: object) -> None:
    second = read(SYSTEM, HI, {"role": "assistant", "content": content}, MORE)
    first = read(SYSTEM, HI)
    assert second.answered == answered_digest(first.whole, "Hello!")
    assert second.answered != answered_digest(first.whole, "Good day.")


@pytest.mark.parametrize("answer", [{"role": "assistant"}, {"role": "assistant", "content": [{"type": "image"}]}])
def test_an_answer_without_a_text_has_no_digest(answer: object) -> None:
    assert read(HI, answer, MORE).answered == b""


def test_a_round_of_tools_is_known() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]}
    result = {"role": "tool", "tool_call_id": "1", "content": "42"}
    assert read(HI, call, result).earlier == read(HI).whole


def test_an_answer_of_several_messages_is_one() -> None:
    assert read(HI, HELLO, HELLO, MORE).earlier == read(HI).whole


def test_examples_that_nobody_asked_before_are_no_conversation() -> None:
    """A prompt with examples holds answers, but what stands before the last of them was never a request."""
    asked = {read(HI, HELLO, MORE, HELLO, {"role": "user", "content": f"{number}"}).whole for number in range(3)}
    assert read(HI, HELLO, MORE, HELLO, {"role": "user", "content": "3"}).earlier not in asked


def test_the_same_words_of_another_client_are_another_conversation() -> None:
    assert read(HI, HELLO, MORE, client=b"two").earlier != read(HI).whole


def test_another_system_prompt_is_another_conversation() -> None:
    assert read(HI, HELLO, MORE, path="/v1/messages", system="x").earlier != read(HI, path="/v1/messages").whole


def test_where_one_message_ends_counts() -> None:
    assert read({"role": "user", "content": "ab"}).whole != read({"role": "user", "content": "a"}, {"b": "user"}).whole


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", b'{"messages":[{"role":"user"}]}'),
        (CHAT, b"{}"),
        (CHAT, b'{"messages":[]}'),
        (CHAT, b'{"messages":7}'),
        (CHAT, b'{"messages":[7]}'),
        (CHAT, b'{"messages":[{"role":7}]}'),
        (CHAT, b"no JSON"),
        (CHAT, b""),
        (CHAT, b'{"messages":[{"role":"user","content":"' + b"x" * HISTORY_BYTES_MAX + b'"}]}'),
    ],
)
def test_what_holds_no_conversation_has_none(path: str, body: bytes) -> None:
    assert history_of(path, body, b"") is None


@given(st.binary(max_size=200))
def test_nothing_raises(body: bytes) -> None:
    history_of(CHAT, body, b"")
    history_of(CHAT, b'{"messages":' + body + b"}", b"")
