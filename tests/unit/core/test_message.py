"""Two copies of one message are known for the same, whatever else their clients keep or drop."""

import pytest

from support.talk import assistant, user
from understudy.core.message import Call, ImagePart, Message, OtherPart, Speaker, TextPart, Wholeness, identity, spoken

PICTURE = ImagePart("image/png", data="AAAA")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Message(Speaker.USER, (TextPart("a"), TextPart("b"))), user("ab")),
        (assistant("a"), assistant("a ", Wholeness.TORN)),
        (assistant("<think>hm\n</think>\n\na"), assistant("a")),
        (spoken(Speaker.ASSISTANT, "a", reasoning="hm"), assistant("a")),
        (Message(Speaker.ASSISTANT, calls=(Call("f", '{"a": 1, "b": 2}', "x"),)),) * 2,
        (
            Message(Speaker.ASSISTANT, calls=(Call("f", '{"b":2,"a":1}'),)),
            Message(Speaker.ASSISTANT, calls=(Call("f", '{"a": 1, "b": 2}', "x"),)),
        ),
        (Message(Speaker.TOOL, (TextPart("r"),), call_id="x"), Message(Speaker.TOOL, (TextPart("r"),), name="f")),
        (Message(Speaker.USER, (PICTURE,)), Message(Speaker.USER, (ImagePart(data="AAAA"),))),
        (Message(Speaker.USER, (OtherPart("openai", '{"a":1}'),)), Message(Speaker.USER, (OtherPart("openai", '{ "a": 1 }'),))),
        (Message(Speaker.USER), user("")),
    ],
)
def test_these_are_the_same(one: Message, other: Message) -> None:
    assert identity(one) == identity(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (user("a"), assistant("a")),
        (user("a"), user("a ")),
        (user("a"), Message(Speaker.USER, (TextPart("a"), PICTURE))),
        (Message(Speaker.ASSISTANT, calls=(Call("f", "{}"),)), Message(Speaker.ASSISTANT, calls=(Call("g", "{}"),))),
        (Message(Speaker.ASSISTANT, calls=(Call("f", "{broken"),)), Message(Speaker.ASSISTANT, calls=(Call("f", "{"),))),
        (assistant("<think>never closed"), assistant("")),
    ],
)
def test_these_are_not(one: Message, other: Message) -> None:
    assert identity(one) != identity(other)


def test_text_is_joined_over_everything_else() -> None:
    assert Message(Speaker.USER, (TextPart("a"), PICTURE, TextPart("b"))).text == "ab"
