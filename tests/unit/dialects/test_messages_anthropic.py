"""Anthropic's messages say the same as neutral ones, and neutral ones are written as its API wants them."""

from typing import Any

import msgspec
import pytest

from understudy.core.message import Call, ImagePart, Message, OtherPart, Part, Speaker, TextPart, spoken
from understudy.dialects.messages_anthropic import read_messages, read_system, write_messages, write_system

USER, ASSISTANT, TOOL, SYSTEM = Speaker.USER, Speaker.ASSISTANT, Speaker.TOOL, Speaker.SYSTEM
EPHEMERAL = {"type": "ephemeral"}
DOCUMENT = OtherPart("anthropic", '{"type":"document"}')


def read(*values: Any) -> list[Message]:
    messages = read_messages(list(values))
    assert isinstance(messages, tuple)
    return list(messages)


@pytest.mark.parametrize(
    ("system", "messages"),
    [
        ("be brief", (spoken(SYSTEM, "be brief"),)),
        ("", ()),
        (None, ()),
        ([], ()),
        (
            [{"type": "text", "text": "be", "cache_control": EPHEMERAL}, {"type": "text", "text": " brief"}],
            (Message(SYSTEM, (TextPart("be"), TextPart(" brief"))),),
        ),
        (7, "system is neither text nor a list of blocks"),
        (["be brief"], "system has a block that is not an object"),
    ],
)
def test_the_system_prompt_is_one_message(system: Any, messages: Any) -> None:
    assert read_system(system) == messages


def test_a_system_prompt_nested_too_deeply_is_no_reason_to_fall() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert read_system([{"type": "document", "deep": deep}]) == "system is nested too deeply"


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("hi", (TextPart("hi"),)),
        (None, ()),
        ([], ()),
        ([{"type": "text", "text": "a", "cache_control": EPHEMERAL}, {"type": "text", "text": ""}], (TextPart("a"),)),
        (
            [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}],
            (ImagePart(media_type="image/png", data="AAAA"),),
        ),
        ([{"type": "image", "source": {"type": "url", "url": "https://x"}}], (ImagePart(url="https://x"),)),
        ([{"type": "document", "cache_control": EPHEMERAL}], (DOCUMENT,)),
        ([{"type": "text", "text": 7}], (OtherPart("anthropic", '{"type":"text","text":7}'),)),
        ([{"type": "image"}], (OtherPart("anthropic", '{"type":"image"}'),)),
        (
            [{"type": "image", "source": {"type": "file", "file_id": "f"}}],
            (OtherPart("anthropic", '{"type":"image","source":{"type":"file","file_id":"f"}}'),),
        ),
        (
            [{"type": "image", "source": {"type": "base64", "data": ""}}],
            (OtherPart("anthropic", '{"type":"image","source":{"type":"base64","data":""}}'),),
        ),
    ],
)
def test_what_a_user_says_is_read_block_by_block(content: Any, parts: tuple[Part, ...]) -> None:
    assert read({"role": "user", "content": content}) == [Message(USER, parts)]


def test_an_answer_is_its_text_its_thoughts_and_its_calls() -> None:
    blocks = [
        {"type": "thinking", "thinking": "h", "signature": "s"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "thinking", "thinking": "m"},
        {"type": "text", "text": "look"},
        {"type": "tool_use", "id": "a", "name": "now", "input": {"z": 1}},
        {"type": "tool_use", "name": "here"},
        {"type": "server_tool_use", "id": "b"},
    ]
    other = OtherPart("anthropic", '{"type":"server_tool_use","id":"b"}')
    assert read({"role": "assistant", "content": blocks}, {"role": "assistant", "content": "hi"}) == [
        Message(ASSISTANT, (TextPart("look"), other), reasoning="hm", calls=(Call("now", '{"z":1}', "a"), Call("here"))),
        spoken(ASSISTANT, "hi"),
    ]


def test_results_are_messages_of_their_own_before_what_else_the_user_says() -> None:
    blocks = [
        {"type": "tool_result", "tool_use_id": "a", "content": "12:00", "is_error": True},
        {"type": "text", "text": "and?"},
        {"type": "tool_result", "tool_use_id": "b", "content": [{"type": "text", "text": "x"}, {"type": "document"}]},
        {"type": "tool_result"},
    ]
    results = [
        spoken(TOOL, "12:00", call_id="a"),
        Message(TOOL, (TextPart("x"), DOCUMENT), call_id="b"),
        Message(TOOL),
    ]
    assert read({"role": "user", "content": blocks}) == [*results, spoken(USER, "and?")]
    assert read({"role": "user", "content": blocks[:1]}) == results[:1]


def test_a_system_message_between_the_others_stays_there() -> None:
    assert read({"role": "user", "content": "a"}, {"role": "system", "content": "b"}) == [spoken(USER, "a"), spoken(SYSTEM, "b")]


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        ("hi", " is not an object"),
        ({"role": "tool"}, ".role is none of user, assistant, system"),
        ({"role": {}}, ".role is none of user, assistant, system"),
        ({"role": "user", "content": 7}, ".content is neither text nor a list of blocks"),
        ({"role": "assistant", "content": {}}, ".content is neither text nor a list of blocks"),
        ({"role": "user", "content": ["hi"]}, ".content has a block that is not an object"),
        ({"role": "assistant", "content": ["hi"]}, ".content has a block that is not an object"),
        (
            {"role": "user", "content": [{"type": "tool_result", "content": 7}]},
            ".content is neither text nor a list of blocks",
        ),
        ({"role": "assistant", "content": [{"type": "tool_use"}]}, ".content has a tool_use that names no tool"),
    ],
)
def test_what_cannot_be_read_is_named_by_its_place(value: Any, wrong: str) -> None:
    assert read_messages([{"role": "user", "content": "hi"}, value]) == f"messages[1]{wrong}"


def test_results_and_the_user_behind_them_are_written_as_one_message() -> None:
    assert write_messages(
        [
            spoken(USER, "time?"),
            Message(ASSISTANT, (TextPart("look"),), reasoning="hm", calls=(Call("now", '{"z": 1}', "a"), Call("here", "ls"))),
            spoken(TOOL, "12:00", call_id="a"),
            Message(TOOL, (TextPart("x"), ImagePart(data="AAAA", media_type="image/gif")), name="here"),
            spoken(USER, "and?"),
            Message(ASSISTANT, calls=(Call("now", id="functions.now:0"),)),
            Message(TOOL, call_id="functions.now:0"),
            spoken(ASSISTANT, "noon"),
        ]
    ) == [
        {"role": "user", "content": "time?"},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "look"},
                {"type": "tool_use", "id": "a", "name": "now", "input": {"z": 1}},
                {"type": "tool_use", "id": "call00001", "name": "here", "input": {"arguments": "ls"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": "12:00"},
                {
                    "type": "tool_result",
                    "tool_use_id": "call00001",
                    "content": [
                        {"type": "text", "text": "x"},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/gif", "data": "AAAA"}},
                    ],
                },
                {"type": "text", "text": "and?"},
            ],
        },
        {"role": "assistant", "content": [{"type": "tool_use", "id": "call00002", "name": "now", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call00002"}]},
        {"role": "assistant", "content": "noon"},
    ]


def test_results_at_the_end_are_a_message_of_the_users() -> None:
    result = {"type": "tool_result", "tool_use_id": "a", "content": "12"}
    assert write_messages([spoken(TOOL, "12", call_id="a")]) == [{"role": "user", "content": [result]}]


def test_nothing_is_written_of_messages_that_say_nothing() -> None:
    blank = [Message(USER), spoken(USER, " \n"), Message(ASSISTANT, reasoning="hm"), spoken(SYSTEM, "be brief")]
    assert write_messages(blank) == []


def test_white_space_of_its_own_goes_into_the_text_beside_it() -> None:
    parts = (TextPart("\n"), TextPart("a"), TextPart(" "), ImagePart(url="https://x"), TextPart("\t"), TextPart("b"))
    assert write_messages([Message(USER, parts)]) == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "\na "},
                {"type": "image", "source": {"type": "url", "url": "https://x"}},
                {"type": "text", "text": "\tb"},
            ],
        }
    ]


def test_a_part_of_another_dialect_is_refused_in_words() -> None:
    assert write_messages([Message(USER, (OtherPart("openai", '{"type":"input_audio"}'),))]) == (
        "the stored conversation has an input_audio part that the anthropic API cannot carry"
    )
    assert write_messages([Message(USER, (DOCUMENT,))]) == [{"role": "user", "content": [{"type": "document"}]}]


@pytest.mark.parametrize(
    ("messages", "own", "system"),
    [
        ([], b"null", None),
        ([spoken(SYSTEM, " ")], b'""', None),
        ([spoken(SYSTEM, "a")], b"null", "a"),
        ([spoken(SYSTEM, "a"), spoken(SYSTEM, "b")], b"null", [{"type": "text", "text": "a"}, {"type": "text", "text": "\n\nb"}]),
        ([spoken(SYSTEM, "b")], b'"a"', [{"type": "text", "text": "a"}, {"type": "text", "text": "\n\nb"}]),
        (
            [Message(SYSTEM, (TextPart("b"), TextPart("c"), DOCUMENT))],
            b'[{"type": "text",  "text":"a","cache_control":{}}]',
            [
                {"type": "text", "text": "a", "cache_control": {}},
                {"type": "text", "text": "\n\nb"},
                {"type": "text", "text": "c"},
                {"type": "document"},
            ],
        ),
    ],
)
def test_system_messages_stand_behind_the_clients_own_and_apart(messages: list[Message], own: bytes, system: Any) -> None:
    written = msgspec.json.encode(write_system(messages, own))
    assert msgspec.json.decode(written) == system
    if own.startswith(b"["):
        assert own[1:-1] in written
