"""The made-up text: the same prompt, the same answer; and the rest of an answer wherever it was broken."""

from typing import Any

import pytest

from understudy.demo.part import ANSWER_CHARACTERS_MAX, ANSWERS, EMBEDDING_DIMENSIONS, Part, compose, embed, render

ASKED = render([{"role": "user", "content": "who is there?"}])
PROMPTS = [ASKED, "", "once upon a time", "T", "The lead", "a" * 1000, "\ud800", f"{ASKED}x"]


def after(prompt: str, tokens_max: int | None = None) -> Part:
    return compose(prompt, "demo", tokens_max)


def test_the_same_prompt_gets_the_same_answer_and_another_one_another() -> None:
    assert after(ASKED) == after(ASKED)
    assert len({after(render([{"content": text}])).text for text in "abcdefgh"}) > 1
    assert embed("a") == embed("a") != embed("b")
    assert len(embed("a")) == EMBEDDING_DIMENSIONS


def test_an_answer_is_made_of_words_that_add_up_to_it() -> None:
    assert after(ASKED).text in ANSWERS
    assert len(after(ASKED).tokens) == len(after(ASKED).text.split())


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_prompt_that_ends_with_a_part_of_its_answer_gets_the_rest_of_it(prompt: str) -> None:
    whole = after(prompt).text
    assert [whole[:cut] + after(prompt + whole[:cut]).text for cut in range(len(whole) + 1)] == [whole] * (len(whole) + 1)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_rest_of_a_rest_is_no_other_answer(prompt: str) -> None:
    first = prompt + after(prompt, 3).text
    second = first + after(first, 4).text
    assert second + after(second).text == prompt + after(prompt).text


def test_a_prompt_of_any_length_is_read_to_its_last_character() -> None:
    long = "word " * 100_000
    whole = after(long).text
    assert after(long + whole[:50]).text == whole[50:]
    assert len(whole) <= ANSWER_CHARACTERS_MAX


def test_the_count_of_the_prompt_holds_what_it_has_of_the_answer() -> None:
    whole = after(ASKED)
    begun = after(ASKED, 5)
    rest = after(ASKED + begun.text)
    assert rest.prompt_tokens == whole.prompt_tokens + 5
    assert len(begun.tokens) + len(rest.tokens) == len(whole.tokens)


def test_an_answer_is_cut_to_the_asked_length_and_says_so() -> None:
    words = len(after(ASKED).tokens)
    ends = {n: (len(after(ASKED, n).tokens), after(ASKED, n).reason) for n in (0, 3, words, words + 1)}
    assert ends == {0: (0, "length"), 3: (3, "length"), words: (words, "length"), words + 1: (words, "stop")}


def test_an_answer_cut_twice_is_cut_where_it_would_have_been_at_once() -> None:
    at_once = after(ASKED, 10)
    rest = after(ASKED + after(ASKED, 4).text, 6)
    assert (after(ASKED, 4).text + rest.text, rest.reason) == (at_once.text, at_once.reason)


def test_nothing_is_left_to_say_after_the_last_word() -> None:
    rest = after(ASKED + after(ASKED).text)
    assert (rest.tokens, rest.reason) == ((), "stop")


def test_a_chat_is_rendered_with_every_message_and_an_open_turn() -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert render(chat) == ("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


def test_a_last_message_of_the_assistant_is_left_open() -> None:
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Good ev"}]
    assert render(chat) == render(chat[:1]) + "Good ev"
    assert render([*chat, {"role": "user", "content": "What?"}]).count("<|im_end|>") == 3


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], ""),
        (["text"], ""),
        ([{"content": "hello"}], "<|im_start|>user\nhello<|im_end|>\n"),
        ([{"content": [{"type": "text", "text": "a"}, 7, {"type": "text", "text": "b"}]}], "<|im_start|>user\na b<|im_end|>\n"),
        ([{"content": None}], "<|im_start|>user\n<|im_end|>\n"),
    ],
)
def test_a_message_of_any_form_is_rendered(messages: list[Any], words: str) -> None:
    assert render(messages) == f"{words}<|im_start|>assistant\n"
