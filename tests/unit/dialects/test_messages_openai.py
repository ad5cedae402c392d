"""OpenAI's messages say the same as neutral ones, and neutral ones are written so that every engine takes them."""

from typing import Any

import pytest

from understudy.core.message import Call, ImagePart, Message, OtherPart, Speaker, TextPart, spoken
from understudy.dialects.messages_openai import read_messages, write_messages

USER, ASSISTANT, TOOL, SYSTEM = Speaker.USER, Speaker.ASSISTANT, Speaker.TOOL, Speaker.SYSTEM
AUDIO = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}


def one(**value: Any) -> Message:
    messages = read_messages([value])
    assert isinstance(messages, tuple)
    assert len(messages) == 1
    return messages[0]


@pytest.mark.parametrize(
    ("role", "speaker"),
    [
        ("system", SYSTEM),
        ("developer", SYSTEM),
        ("user", USER),
        ("assistant", ASSISTANT),
        ("assistantassistantassistant", ASSISTANT),
        ("tool", TOOL),
        ("function", TOOL),
    ],
)
def test_every_role_is_somebody(role: str, speaker: Speaker) -> None:
    assert one(role=role, content="hi") == spoken(speaker, "hi")


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("hi", [TextPart("hi")]),
        ("", []),
        (None, []),
        ([], []),
        (["a", {"type": "text", "text": "b"}, {"text": "c"}], [TextPart("a"), TextPart("b"), TextPart("c")]),
        ([{"type": "input_text", "text": "a"}, {"type": "output_text", "text": "b"}], [TextPart("a"), TextPart("b")]),
        ([{"type": "refusal", "refusal": "no"}], [TextPart("no")]),
        ([{"type": "text", "text": ""}, {"type": "text"}], []),
        ([{"type": "image_url", "image_url": {"url": "https://x", "detail": "low"}}], [ImagePart(url="https://x")]),
        ([{"type": "image_url", "image_url": "data:image/gif;base64,R0"}], [ImagePart(media_type="image/gif", data="R0")]),
        ([{"type": "input_image", "image_url": "https://x"}], [ImagePart(url="https://x")]),
        ([{"image_url": "https://x"}], [ImagePart(url="https://x")]),
        (
            [{"type": "image_url", "image_url": "data:,"}],
            [OtherPart("openai", '{"type":"image_url","image_url":"data:,"}')],
        ),
        ([{"type": "image_url"}], [OtherPart("openai", '{"type":"image_url"}')]),
        ([{"type": "text", "text": 7}], [OtherPart("openai", '{"type":"text","text":7}')]),
        ([{"type": ["odd"]}], [OtherPart("openai", '{"type":["odd"]}')]),
        (
            [AUDIO],
            [OtherPart("openai", '{"type":"input_audio","input_audio":{"data":"AAAA","format":"wav"}}')],
        ),
    ],
)
def test_content_is_read_part_by_part(content: Any, parts: list[Any]) -> None:
    assert one(role="user", content=content).parts == tuple(parts)


def test_content_may_be_absent_and_a_participants_name_is_kept() -> None:
    assert one(role="user") == Message(USER)
    assert one(role="user", content="hi", name="ann") == spoken(USER, "hi", name="ann")
    assert one(role="user", content="hi", name=7) == spoken(USER, "hi")


@pytest.mark.parametrize(
    ("value", "reasoning"),
    [
        ({"reasoning_content": "hm"}, "hm"),
        ({"reasoning": "hm", "reasoning_content": None}, "hm"),
        ({"thinking": "hm", "reasoning": ""}, "hm"),
        ({"reasoning": {"odd": 1}}, ""),
        ({"content": [{"type": "thinking", "thinking": "h"}, {"type": "reasoning", "text": "m"}]}, "hm"),
        ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}, 7]}]}, "hm"),
    ],
)
def test_thoughts_are_kept_by_whatever_name_they_go(value: dict[str, Any], reasoning: str) -> None:
    message = one(role="assistant", **value)
    assert (message.reasoning, message.parts) == (reasoning, ())


def test_a_refusal_is_what_the_assistant_said() -> None:
    assert one(role="assistant", content=None, refusal="no") == spoken(ASSISTANT, "no")
    assert one(role="assistant", content="yes", refusal=None) == spoken(ASSISTANT, "yes")


@pytest.mark.parametrize(
    ("value", "calls"),
    [
        (
            {"tool_calls": [{"id": "a", "type": "function", "function": {"name": "now", "arguments": '{"z": 1}'}}]},
            [Call("now", '{"z": 1}', "a")],
        ),
        ({"tool_calls": [{"function": {"name": "now", "arguments": {"z": 1}}}]}, [Call("now", '{"z":1}')]),
        ({"tool_calls": [{"function": {"name": "now", "arguments": ""}}, {"function": {"name": "b"}}]}, [Call("now"), Call("b")]),
        ({"tool_calls": []}, []),
        ({"tool_calls": None, "function_call": None}, []),
        ({"function_call": {"name": "now", "arguments": "{}"}}, [Call("now")]),
        ({"tool_calls": [{"id": "a", "type": "custom", "custom": {"name": "sh", "input": "ls"}}]}, [Call("sh", '"ls"', "a")]),
    ],
)
def test_calls_are_read_in_each_of_their_forms(value: dict[str, Any], calls: list[Call]) -> None:
    assert one(role="assistant", content=None, **value).calls == tuple(calls)


def test_a_result_tells_the_call_and_the_tool() -> None:
    assert one(role="tool", content="12", tool_call_id="a") == spoken(TOOL, "12", call_id="a")
    assert one(role="function", content="12", name="now") == spoken(TOOL, "12", name="now")


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        ("hi", " is not an object"),
        (None, " is not an object"),
        ({}, ".role is none of system, developer, user, assistant, tool, function"),
        ({"role": "narrator"}, ".role is none of system, developer, user, assistant, tool, function"),
        ({"role": ["user"]}, ".role is none of system, developer, user, assistant, tool, function"),
        ({"role": "user", "content": 7}, ".content is neither text nor a list of parts"),
        ({"role": "user", "content": {"type": "text"}}, ".content is neither text nor a list of parts"),
        ({"role": "user", "content": [7]}, ".content has a part that is not an object"),
        ({"role": "assistant", "tool_calls": "now"}, ".tool_calls is not a list"),
        ({"role": "assistant", "tool_calls": [{"function": "now"}]}, ".tool_calls has one that names no tool"),
        ({"role": "assistant", "tool_calls": [{"function": {"name": 7}}]}, ".tool_calls has one that names no tool"),
        ({"role": "assistant", "tool_calls": [None]}, ".tool_calls has one that names no tool"),
    ],
)
def test_what_cannot_be_read_is_named_by_its_place(value: Any, wrong: str) -> None:
    assert read_messages([{"role": "user", "content": "hi"}, value]) == f"messages[1]{wrong}"


def test_plain_text_is_written_as_a_string_and_calls_beside_null() -> None:
    assert write_messages(
        [
            spoken(SYSTEM, "be brief"),
            spoken(USER, "time?", name="ann", is_raw=True),
            Message(ASSISTANT, reasoning="hm", calls=(Call("now", '{"z": 1}', "a"),)),
            spoken(TOOL, "12:00", call_id="a"),
            spoken(ASSISTANT, "noon", reasoning="hm"),
            Message(ASSISTANT),
        ]
    ) == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "time?", "name": "ann"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "a", "type": "function", "function": {"name": "now", "arguments": '{"z": 1}'}}],
        },
        {"role": "tool", "content": "12:00", "tool_call_id": "a"},
        {"role": "assistant", "content": "noon"},
        {"role": "assistant", "content": ""},
    ]


def test_a_conversation_without_ids_gets_them() -> None:
    written = write_messages([Message(ASSISTANT, calls=(Call("now"),)), spoken(TOOL, "12:00", name="now")])
    assert isinstance(written, list)
    assert written[0]["tool_calls"][0]["id"] == written[1]["tool_call_id"] == "call00001"
    assert written[1]["name"] == "now"


def test_parts_are_written_as_parts() -> None:
    parts = (
        TextPart("a"),
        TextPart("b"),
        ImagePart(data="/9j/"),
        ImagePart(url="https://x"),
        OtherPart("openai", '{"type":"x"}'),
    )
    assert write_messages([Message(USER, parts)]) == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "a"},
                {"type": "text", "text": "b"},
                {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,/9j/"}},
                {"type": "image_url", "image_url": {"url": "https://x"}},
                {"type": "x"},
            ],
        }
    ]


def test_a_part_of_another_dialect_is_refused_in_words() -> None:
    assert write_messages([Message(USER, (OtherPart("anthropic", '{"type":"document"}'),))]) == (
        "the stored conversation has a document part that the openai API cannot carry"
    )
