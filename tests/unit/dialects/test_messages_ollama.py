"""Ollama's messages say the same as neutral ones, and neutral ones are written as its server reads them."""

from typing import Any

import pytest

from understudy.core.message import Call, ImagePart, Message, OtherPart, Speaker, TextPart, spoken
from understudy.dialects.messages_ollama import read_images, read_messages, write_messages

USER, ASSISTANT, TOOL, SYSTEM = Speaker.USER, Speaker.ASSISTANT, Speaker.TOOL, Speaker.SYSTEM


def one(**value: Any) -> Message:
    messages = read_messages([value])
    assert isinstance(messages, tuple)
    assert len(messages) == 1
    return messages[0]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"role": "system", "content": "be brief"}, spoken(SYSTEM, "be brief")),
        ({"role": "User", "content": "hi"}, spoken(USER, "hi")),
        ({"role": "user"}, Message(USER)),
        ({"role": "user", "content": "hi", "images": ["AAAA"]}, Message(USER, (TextPart("hi"), ImagePart(data="AAAA")))),
        ({"role": "assistant", "content": "hi", "thinking": "hm"}, spoken(ASSISTANT, "hi", reasoning="hm")),
        (
            {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "now", "arguments": {"z": 1}}}]},
            Message(ASSISTANT, calls=(Call("now", '{"z":1}'),)),
        ),
        (
            {"role": "assistant", "tool_calls": [{"id": "a", "function": {"index": 0, "name": "now"}}]},
            Message(ASSISTANT, calls=(Call("now", "{}", "a"),)),
        ),
        ({"role": "tool", "content": "12", "tool_name": "now"}, spoken(TOOL, "12", name="now")),
        ({"role": "tool", "content": "12", "name": "now", "tool_call_id": "a"}, spoken(TOOL, "12", name="now", call_id="a")),
        ({"role": "user", "content": [{"type": "text", "text": "hi"}]}, spoken(USER, "hi")),
    ],
)
def test_messages_are_read(value: dict[str, Any], message: Message) -> None:
    assert one(**value) == message


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        (7, " is not an object"),
        ({"role": "developer"}, ".role is none of system, user, assistant, tool"),
        ({"role": None}, ".role is none of system, user, assistant, tool"),
        ({"role": "user", "content": 7}, ".content is neither text nor a list of parts"),
        ({"role": "user", "images": "AAAA"}, ".images is not a list of strings"),
        ({"role": "user", "images": [7]}, ".images is not a list of strings"),
        ({"role": "assistant", "tool_calls": {}, "content": 7}, ".content is neither text nor a list of parts"),
        ({"role": "assistant", "tool_calls": [{}]}, ".tool_calls has one that names no tool"),
    ],
)
def test_what_cannot_be_read_is_named_by_its_place(value: Any, wrong: str) -> None:
    assert read_messages([value]) == f"messages[0]{wrong}"


def test_images_of_a_prompt_are_read_alike() -> None:
    assert read_images(None) == ()
    assert read_images(["AA"]) == (ImagePart(data="AA"),)
    assert read_images({}) is None


def test_messages_are_written_with_text_as_one_string_and_pictures_beside_it() -> None:
    assert write_messages(
        [
            spoken(SYSTEM, "be brief"),
            Message(USER, (TextPart("a"), ImagePart(media_type="image/png", data="AAAA"), TextPart("b"))),
            Message(ASSISTANT, reasoning="hm", calls=(Call("now", '{"z": 1}', "a"),)),
            spoken(TOOL, "12:00", call_id="a"),
            Message(ASSISTANT),
        ]
    ) == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "ab", "images": ["AAAA"]},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "a", "function": {"name": "now", "arguments": {"z": 1}}}]},
        {"role": "tool", "content": "12:00", "tool_name": "now", "tool_call_id": "a"},
        {"role": "assistant", "content": ""},
    ]


def test_no_id_is_invented_but_a_name_is_found() -> None:
    assert write_messages(
        [Message(ASSISTANT, calls=(Call("now"), Call("here", "ls"))), spoken(TOOL, "12"), spoken(TOOL, "x")]
    ) == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"function": {"name": "now", "arguments": {}}},
                {"function": {"name": "here", "arguments": {"arguments": "ls"}}},
            ],
        },
        {"role": "tool", "content": "12", "tool_name": "now"},
        {"role": "tool", "content": "x", "tool_name": "here"},
    ]
    assert write_messages([spoken(TOOL, "12", call_id="a")]) == [{"role": "tool", "content": "12", "tool_call_id": "a"}]


@pytest.mark.parametrize(
    ("part", "what"),
    [
        (ImagePart(url="https://x"), "an image at a URL"),
        (OtherPart("openai", '{"type":"input_audio"}'), "an input_audio part"),
    ],
)
def test_what_ollama_cannot_carry_is_refused_in_words(part: Any, what: str) -> None:
    assert write_messages([Message(USER, (part,))]) == f"the stored conversation has {what} that the ollama API cannot carry"
