"""Pictures, arguments and parts of one dialect alone are the same whichever dialect they are read from."""

import json

import pytest

from understudy.core.ask import DialectName
from understudy.core.message import ImagePart, Message, OtherPart, Part, Speaker, TextPart
from understudy.dialects.message_parts import (
    UnreadableError,
    arguments_object,
    image_url,
    is_plain,
    media_type_of,
    other_part,
    read_arguments,
    read_each,
    read_image_url,
    uncarried,
)

OPENAI, OLLAMA, ANTHROPIC = DialectName.OPENAI, DialectName.OLLAMA, DialectName.ANTHROPIC


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("https://x/y.png", ImagePart(url="https://x/y.png")),
        ("data:image/png;base64,AAAA", ImagePart(media_type="image/png", data="AAAA")),
        ("DATA:image/png;name=a;Base64,AA,A", ImagePart(media_type="image/png", data="AA,A")),
        ("data:;base64,AAAA", ImagePart(data="AAAA")),
        ("data:image/svg+xml,%3Csvg/%3E", None),
        ("data:,", None),
        ("", None),
    ],
)
def test_a_picture_in_a_data_url_is_its_data(url: str, part: ImagePart | None) -> None:
    assert read_image_url(url) == part


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        ("iVBORw0KGgoAAAA", "image/png"),
        ("/9j/4AAQ", "image/jpeg"),
        ("R0lGODlh", "image/gif"),
        ("UklGRiQA", "image/webp"),
        ("QkA2", "image/bmp"),
        ("????", "image/png"),
    ],
)
def test_a_picture_of_an_untold_kind_is_told_by_its_first_bytes(data: str, media_type: str) -> None:
    assert media_type_of(ImagePart(data=data)) == media_type
    assert image_url(ImagePart(data=data)) == f"data:{media_type};base64,{data}"
    assert media_type_of(ImagePart(data=data, media_type="image/x")) == "image/x"
    assert image_url(ImagePart(url="https://x")) == "https://x"


@pytest.mark.parametrize(
    ("value", "text"),
    [('{"a": 1}', '{"a": 1}'), ("", "{}"), (" ", "{}"), (None, "{}"), ({"a": [1]}, '{"a":[1]}'), ("{broken", "{broken")],
)
def test_arguments_are_text_however_they_came(value: object, text: str) -> None:
    assert read_arguments(value) == text


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        ("{}", {}),
        ("[1]", {"arguments": [1]}),
        ('"ls -l"', {"arguments": "ls -l"}),
        ("{broken", {"arguments": "{broken"}),
        ("[" * 100_000, {"arguments": "[" * 100_000}),
    ],
)
def test_arguments_that_are_no_object_become_the_member_of_one(arguments: str, value: dict[str, object]) -> None:
    assert arguments_object(arguments) == value


def test_a_part_of_one_dialect_is_kept_without_what_belongs_to_one_request() -> None:
    part = other_part(ANTHROPIC, {"type": "document", "cache_control": {"type": "ephemeral"}, "n": 1})
    assert part == OtherPart("anthropic", '{"type":"document","n":1}')


def test_one_text_or_nothing_is_plain() -> None:
    assert is_plain(())
    assert is_plain((TextPart("a"),))
    assert not is_plain((TextPart("a"), TextPart("b")))
    assert not is_plain((ImagePart(url="x"),))


@pytest.mark.parametrize(
    ("part", "speaker", "dialect", "what"),
    [
        (OtherPart("openai", '{"type":"input_audio"}'), Speaker.USER, OLLAMA, "an input_audio part that the ollama API"),
        (OtherPart("anthropic", '{"type":"document"}'), Speaker.USER, OPENAI, "a document part that the openai API"),
        (OtherPart("openai", '{"type":"a secret"}'), Speaker.USER, OLLAMA, "a part of the openai API that the ollama API"),
        (OtherPart("openai", "[1]"), Speaker.USER, OLLAMA, "a part of the openai API that the ollama API"),
        (OtherPart("odd one", "{"), Speaker.USER, OLLAMA, "a part of the other API that the ollama API"),
        (ImagePart(url="https://x"), Speaker.USER, OLLAMA, "an image at a URL that the ollama API"),
        (ImagePart(data="AAAA"), Speaker.SYSTEM, ANTHROPIC, "an image in a system message that the anthropic API"),
    ],
)
def test_what_a_dialect_cannot_carry_is_named_without_a_clients_words(
    part: Part, speaker: Speaker, dialect: DialectName, what: str
) -> None:
    messages = [Message(Speaker.USER, (TextPart("a"),)), Message(speaker, (TextPart("b"), part))]
    assert uncarried(messages, dialect) == f"the stored conversation has {what} cannot carry"


def test_what_every_dialect_carries_is_no_matter() -> None:
    assert not uncarried([Message(Speaker.USER, (TextPart("a"), ImagePart(data="AAAA")))], OLLAMA)
    assert not uncarried([Message(Speaker.USER, (ImagePart(url="https://x"),))], ANTHROPIC)
    assert not uncarried([Message(Speaker.USER, (OtherPart("openai", "{}"),))], OPENAI)


def test_the_message_that_cannot_be_read_is_named_by_its_place() -> None:
    def read(value: object) -> list[Message]:
        if value == "wrong":
            raise UnreadableError(".content is odd")
        if value == "deep":
            raise RecursionError
        return [Message(Speaker.USER)] * 2

    assert read_each(["a"], read) == (Message(Speaker.USER),) * 2
    assert read_each(["a", "wrong"], read) == "messages[1].content is odd"
    assert read_each(["a", "b", "deep"], read) == "messages[2] is nested too deeply"
    assert read_each([], read) == ()


def test_a_part_nested_deeply_is_no_reason_to_fall() -> None:
    value: list[object] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(RecursionError):
        other_part(OPENAI, {"type": "x", "deep": value})
    assert json.loads(read_arguments({"a": 1})) == {"a": 1}
