"""A kept conversation as a person reads it."""

import json

import msgspec
import pytest

from understudy.cli.session_transcript import ago, size, transcript
from understudy.core.conversation import Conversation
from understudy.core.message import Call, ImagePart, Message, OtherPart, Speaker, TextPart, Wholeness, spoken

NOW_UNIX_S = 1_800_000_000.0


def shown(conversation: Conversation, session: str = "a") -> list[str]:
    record = {"id": session, "bytes": 1536, **json.loads(msgspec.json.encode(conversation))}
    return list(transcript(record, NOW_UNIX_S))


def said(*messages: Message) -> list[str]:
    """Return the lines below the heading."""
    return shown(Conversation(messages=messages))[2:]


def test_the_heading_tells_whose_and_how_much() -> None:
    messages = (spoken(Speaker.USER, "hello"), spoken(Speaker.ASSISTANT, "good evening"))
    kept = Conversation(3, (), messages, "qwen2.5", "pi", fallen=4, changed_at_unix_s=NOW_UNIX_S - 200)
    assert shown(kept)[:3] == [
        "a: 2 messages, 1.5 KiB, changed 3m 20s ago, qwen2.5, last answered by pi",
        "4 earlier messages have fallen off",
        "",
    ]


def test_the_system_message_comes_first() -> None:
    kept = Conversation(system=(spoken(Speaker.SYSTEM, "be brief"),), messages=(spoken(Speaker.USER, "hello"),))
    assert shown(kept)[2:] == ["system: be brief", "user: hello"]


def test_no_line_passes_for_another_speakers() -> None:
    assert said(spoken(Speaker.USER, "one\nassistant: two\r\n\n  three\rfour")) == [
        "user: one",
        "  assistant: two",
        "",
        "    three\\rfour",
    ]


def test_nothing_speaks_to_the_terminal() -> None:
    hostile = "\x1b[2J\x9b1m\u202e\u2028"
    kept = Conversation(
        messages=(
            Message(
                Speaker.TOOL,
                (TextPart(hostile), ImagePart(media_type=hostile, url=hostile), OtherPart(hostile, "{}")),
                reasoning=hostile,
                calls=(Call(hostile, hostile),),
                name=hostile,
            ),
        ),
        model=hostile,
        backend=hostile,
    )
    assert all(line.isprintable() for line in shown(kept, hostile))


def test_tools_thoughts_and_pictures_are_told() -> None:
    assert said(
        Message(Speaker.USER, (TextPart("look"), ImagePart("image/png", "A" * 4096), ImagePart(url="https://x/y.png"))),
        Message(Speaker.ASSISTANT, reasoning="hm\nwell", calls=(Call("weather", '{"city":"Paris"}'), Call("time"))),
        Message(Speaker.TOOL, (TextPart("12 degrees"),), name="weather"),
        Message(Speaker.USER, (OtherPart("openai", '{"type":"file"}'),)),
        Message(Speaker.ASSISTANT),
    ) == [
        "user: look",
        "  [image image/png 3.0 KiB]",
        "  [image https://x/y.png]",
        "assistant: [thought: hm",
        "  well]",
        '  [calls weather {"city":"Paris"}]',
        "  [calls time {}]",
        "tool weather: 12 degrees",
        "user: [something that only openai has, 15 B]",
        "assistant:",
    ]


@pytest.mark.parametrize(
    ("mark", "words"),
    [
        (Wholeness.TORN, "[torn: the answer broke and could not go on]"),
        (Wholeness.ABANDONED, "[abandoned: the client left before the end]"),
    ],
)
def test_an_answer_that_did_not_come_whole_says_so(mark: Wholeness, words: str) -> None:
    assert said(spoken(Speaker.ASSISTANT, "I was", mark=mark)) == ["assistant: I was", f"  {words}"]


@pytest.mark.parametrize("record", [{}, {"messages": None}, {"messages": [7, {}, {"parts": "x"}]}, {"id": 7, "bytes": "x"}])
def test_a_record_of_another_form_is_shown_as_far_as_it_goes(record: dict[str, object]) -> None:
    assert list(transcript(record, NOW_UNIX_S))


def test_times_and_sizes_are_written_as_people_say_them() -> None:
    assert [size(812), size(1536), size(3 * 1024**2)] == ["812 B", "1.5 KiB", "3.0 MiB"]
    assert (ago(0.0, 5.0), ago(9.0, 5.0), ago(1.0, 13.0)) == ("-", "0.0s ago", "12s ago")
