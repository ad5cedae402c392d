"""The prompts file as an operator writes it: every way to say a prompt, and every mistake with its place."""

import pytest

from understudy.cli import compare_prompts
from understudy.cli.compare_document import PromptsError
from understudy.cli.compare_prompts import Entry, read_prompts


def entries(text: str, file: str = "p.yaml") -> list[Entry]:
    return read_prompts(text.encode(), file)


def mistakes(text: str) -> tuple[str, ...]:
    with pytest.raises(PromptsError) as refused:
        entries(text)
    return refused.value.lines


def test_a_bare_text_is_a_prompt() -> None:
    one, two = entries("- What is 2+2?\n- 42\n")
    assert one.messages == [{"role": "user", "content": "What is 2+2?"}]
    assert (one.number, one.line, two.number, two.line) == (1, 1, 2, 2)
    assert (two.question, two.expect, two.wants_json) == ("42", None, False)


def test_an_entry_says_everything() -> None:
    (entry,) = entries(
        """
- name: capital
  model: qwen2.5
  messages:
    - {role: system, content: Be brief.}
    - {role: user, content: 42}
  temperature: 0
  stop: ["\\n"]
  with: {min_p: 0.1, logit_bias: {"5": -1}}
  expect: {contains: Paris, label: no, labels: [no, yes]}
"""
    )
    assert (entry.name, entry.model, entry.question) == ("capital", "qwen2.5", "42")
    assert entry.messages[1] == {"role": "user", "content": "42"}
    assert entry.fields == {"temperature": 0, "stop": ["\n"], "min_p": 0.1, "logit_bias": {"5": -1}}
    assert entry.expect is not None
    assert entry.expect.unmet("no, Paris") == ()


def test_lines_of_json_say_the_same() -> None:
    (entry,) = entries('{"prompt": "a", "expect": {"equals": "3.10", "contains": ["1"]}}', "p.jsonl")
    assert entry.expect is not None
    assert entry.expect.unmet(" 3.10\n") == ()


def test_a_message_of_parts_is_passed_on_and_read() -> None:
    (entry,) = entries("- messages: [{role: user, content: [{type: text, text: Look}, {type: image_url, image_url: {url: x}}]}]")
    assert entry.question == "Look"
    assert entry.messages[0]["content"][1] == {"type": "image_url", "image_url": {"url": "x"}}


def test_numbers_in_texts_are_texts_however_long() -> None:
    number = "1" * 30
    (entry,) = entries(
        f"- messages: [{{role: user, content: {number}}}, {{role: assistant, content: null, tool_calls: [{{id: a}}]}}]"
    )
    assert entry.messages[0]["content"] == number
    assert entries(f"- {number}")[0].question == number


def test_json_is_wanted_where_it_is_asked_for_or_expected() -> None:
    texts = (
        "{prompt: a, expect: {json_schema: {}}}",
        "{prompt: a, response_format: {type: json_object}}",
        "{prompt: a, seed: 1}",
    )
    assert [entries(f"- {text}")[0].wants_json for text in texts] == [True, True, False]


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("{}", "found neither prompt nor messages; want one of them"),
        ("{prompt: a, messages: []}", "found prompt and messages; want one of them"),
        ("[a]", "found a list; want a prompt, or a mapping with prompt: or messages:"),
        ("~", "found nothing; want a text"),
        ("{prompt: ' '}", "prompt: found nothing; want a text"),
        ("{prompt: [a]}", "prompt: found a list; want a text"),
        ("{prompt: {a: b}}", "prompt: found keys and values; want a text"),
        ("{promt: a}", "promt: found an unknown key; want prompt"),
        ("{prompt: a, xyz: 1}", "xyz: found an unknown key; want one of name, prompt, "),
        ("{prompt: a, expect: {contain: b}}", "expect.contain: found an unknown key; want contains"),
        ("{prompt: a, expect: {}}", "expect: found nothing; want one or more of contains, regex"),
        ("{prompt: a, expect: Paris}", "expect: found Paris; want one or more of contains, regex"),
        ("{prompt: a, expect: {contains: []}}", "expect.contains: found an empty list; want at least one text"),
        (
            "{prompt: a, expect: {regex: 'a('}}",
            "expect.regex: found a( (missing ), unterminated subpattern at position 1); want a",
        ),
        (
            "{prompt: a, expect: {json_schema: {type: nope}}}",
            "expect.json_schema: found a schema that cannot be used (type: 'nope'",
        ),
        ("{prompt: a, expect: {labels: [a, b]}}", "expect.labels: found labels without label; want the one that is right"),
        ("{prompt: a, expect: {label: c, labels: [a, b]}}", "expect.label: found c; want one of labels: a, b"),
        ("{prompt: a, with: 1}", "with: found no mapping; want fields of the request"),
        ("{prompt: a, with: {stream: false}}", "with.stream: found false; want nothing: every answer is streamed"),
        ("{prompt: a, with: {messages: [a]}}", "with.messages: found a value; want messages: or prompt: in the entry"),
        ("{prompt: a, seed: 1, with: {seed: 2}}", "with.seed: found a field that stands in the entry, too; want it once"),
        ("{messages: []}", "messages: found an empty list; want a list of messages"),
        ("{messages: a}", "messages: found no list; want a list of messages"),
        ("{messages: [a]}", "messages: found a message without a role; want"),
        ("{messages: [{role: user}]}", "messages: found a message without content; want"),
        ("{messages: [{role: user, content: }]}", "messages: found a message without content; want"),
        ("{messages: [{role: usr, content: a}]}", "messages.role: found usr; want user"),
        (
            "{messages: [{role: bot, content: a}]}",
            "messages.role: found bot; want one of system, user, assistant, tool, developer",
        ),
        (
            "{messages: [{role: user, content: {a: b}}]}",
            "messages.content: found keys and values; want a text, or a list of parts",
        ),
        ("{messages: [{role: user, content: [a]}]}", "messages.content: found a part that is no mapping; want a text, or a list"),
        ("{prompt: a, temperature: hot}", "temperature: found the text hot; want a number"),
        ("{prompt: a, temperature: '0'}", "temperature: found the text 0; want a number"),
        ("{prompt: a, temperature: true}", "temperature: found true; want a number"),
        ("{prompt: a, temperature: }", "temperature: found nothing; want a number"),
        ("{prompt: a, max_tokens: 1.5}", "max_tokens: found 1.5; want a whole number"),
        ("{prompt: a, seed: [1]}", "seed: found a list; want a whole number"),
        ("{prompt: a, seed: 1" + "0" * 400 + "}", "seed: found 1" + "0" * 56 + "...; want a number of at most 64 bits"),
        ("{prompt: a, stop: [a, 1]}", "stop: found a list; want a text or a list of texts"),
        ("{prompt: a, response_format: json}", "response_format: found the text json; want keys and values"),
        ("{prompt: a, with: {top_p: high}}", "with.top_p: found the text high; want a number"),
        ("{prompt: a, with: {x: {y: [1e999]}}}", "with.x.y: found 1e999; want a number of at most 64 bits"),
        ("{messages: [{role: tool, content: a, x: 1e999}]}", "messages.x: found 1e999; want a number of at most 64 bits"),
        ("{prompt: a, expect: {json_schema: {const: 1e999}}}", "expect.json_schema.const: found 1e999; want a number of at most"),
        (
            "{prompt: a, expect: {json_schema: {$id: 'http://a/', $ref: b}}}",
            "expect.json_schema: found a schema that cannot be used ($ref b is not in it, and nothing is fetched)",
        ),
    ],
)
def test_a_mistake_is_told_with_its_line_and_entry(entry: str, told: str) -> None:
    (line,) = mistakes(f"- fine\n- {entry}\n")
    assert line.startswith(f"p.yaml:2: entry 2: {told}")


def test_every_entry_with_a_mistake_is_told_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [line.partition(": found")[0] for line in mistakes("- {}\n- a\n- {}\n")] == ["p.yaml:1: entry 1", "p.yaml:3: entry 3"]
    monkeypatch.setattr(compare_prompts, "MISTAKES_MAX", 1)
    assert len(mistakes("- {}\n- a\n- {}\n")) == 1


def test_there_is_at_least_one_prompt_and_not_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    assert mistakes("[]") == ("p.yaml: found no prompt; want at least one",)
    monkeypatch.setattr(compare_prompts, "ENTRIES_MAX", 2)
    assert mistakes("[a, b, c]") == ("p.yaml: found 3 prompts; want at most 2",)


def test_a_prompt_is_in_no_repr() -> None:
    (entry,) = entries("- {prompt: hunter2, with: {user: hunter3}}")
    assert "hunter" not in repr(entry)
