"""The form of a prompts file: what YAML and lines of JSON become, and where each mistake of form is found."""

import pytest

from understudy.cli import compare_document
from understudy.cli.compare_document import PromptsError, read_nodes, shown


def mistake(content: str | bytes, file: str = "p.yaml") -> str:
    with pytest.raises(PromptsError) as refused:
        read_nodes(content.encode() if isinstance(content, str) else content, file)
    (line,) = refused.value.lines
    return line


def test_scalars_have_the_types_of_json_and_keep_how_they_were_written() -> None:
    (node,) = read_nodes(b"- [1, -2.5, 1e3, true, null, ~, no, 010, 3.10, '1', 2026-01-31, 1e999]", "p.yaml")
    assert node.value() == [1, -2.5, 1000.0, True, None, None, "no", "010", 3.1, "1", "2026-01-31", "1e999"]
    assert [item.text for item in node.items or ()][8] == "3.10"


def test_numbers_that_are_none_any_more_are_known() -> None:
    (node,) = read_nodes(
        b"- [18446744073709551615, 18446744073709551616, 1e999, '1e999', 010, 1.5, -9223372036854775809]", "p.yaml"
    )
    assert [item.is_out_of_range for item in node.items or ()] == [False, True, True, False, False, False, True]
    assert node.value()[0] == 2**64 - 1
    (line,) = read_nodes(b'{"a": [18446744073709551615, -9223372036854775808, 1e22, 5e-324]}', "p.jsonl")
    assert line.value() == {"a": [2**64 - 1, -(2**63), 1e22, 5e-324]}


def test_every_node_knows_its_line() -> None:
    first, second = read_nodes(b"# prompts\n- a\n- b:\n    c: d\n", "p.yaml")
    assert (first.line, second.line) == (2, 3)
    assert second.fields is not None
    assert second.fields["b"].line == 4


def test_an_alias_is_what_it_stands_for() -> None:
    assert [node.value() for node in read_nodes(b"- &x {a: 1}\n- *x\n", "p.yaml")] == [{"a": 1}, {"a": 1}]


def test_lines_of_json_are_told_by_the_name_or_by_their_look() -> None:
    lines = '{"a": [1, "no", null, 2.5]}\n\n{"b": "\\ud83d\\ude00 \u2028"}\n'.encode()
    for file in ("p.jsonl", "standard input"):
        first, second = read_nodes(lines, file)
        assert (first.value(), first.line) == ({"a": [1, "no", None, 2.5]}, 1)
        assert (second.value(), second.line) == ({"b": "\U0001f600 \u2028"}, 3)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "p.yaml: found nothing; want a list of prompts, each beginning with -"),
        ("a: b", "p.yaml:1: found keys and values; want a list"),
        ("\nword", "p.yaml:2: found a single value; want a list"),
        ("- a\n- [b}", "p.yaml:2: found YAML that cannot be read ("),
        ("- a\n- {b: 1, b: 2}", "p.yaml:2: found the key b a second time; want each key once"),
        ("- a\n- *b", "p.yaml:2: found an alias (*) without a finished anchor (&)"),
        ("- &a [*a]", "p.yaml:1: found an alias (*) without a finished anchor"),
        ("- !!python/object:os.system x", "p.yaml:1: found a tag (!); want the value alone"),
        ("- a\n---\n- b", "p.yaml:2: found a second document"),
        ("- {[a]: b}", "p.yaml:1: found a list or a mapping as a key; want a plain key"),
        ("- " + "[" * 70, "p.yaml:1: found more than 64 levels"),
        ("- a\n- b\x01", "p.yaml:2: found a character that YAML does not have (U+0001); want valid YAML"),
        ("- a\n- \x00", "p.yaml:2: found a character that YAML does not have (U+0000); want valid YAML"),
        (b"- a\n- \xff", "p.yaml:2: found the byte 0xff, which is not UTF-8; want text in UTF-8"),
    ],
)
def test_yaml_of_another_form_is_told_with_its_line(content: str | bytes, told: str) -> None:
    assert mistake(content).startswith(told)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"a": 1}\n{"a"', "p.jsonl:2: found no JSON ("),
        ('{"a": 1, "a": 2}', "p.jsonl:1: found a key twice in one object; want JSON that engines take"),
        ('{"a": NaN}', "p.jsonl:1: found NaN, which is not JSON"),
        ('{}\n{"a": 1' + "0" * 5000 + "}", f"p.jsonl:2: found the number 1{'0' * 56}..., which has more than 64 bits; want JSON"),
        ('{"a": 18446744073709551616}', "p.jsonl:1: found the number 18446744073709551616, which has more than 64 bits"),
        ('{"a": 1e999}', "p.jsonl:1: found the number 1e999, which is too large; want JSON that engines take"),
        ('{"a": "\x00"}', "p.jsonl:1: found no JSON (invalid control character at in column 8)"),
        ('{"a": ' + "[" * 70 + "]" * 70 + "}", "p.jsonl:1: found more than 64 levels"),
        ('{"a": ' + "[" * 9000, "p.jsonl:1: found more than 64 levels"),
    ],
)
def test_lines_of_another_form_are_told_with_their_number(content: str, told: str) -> None:
    assert mistake(content, "p.jsonl").startswith(told)


def test_a_file_that_is_too_large_is_refused_unread() -> None:
    assert mistake(b"-" * (compare_document.FILE_BYTES_MAX + 1)) == "p.yaml: found more than 10485760 bytes; want at most 10 MiB"


def test_aliases_cannot_make_a_small_file_large() -> None:
    levels = "\n".join(f"- &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 9))
    assert "aliases counted as often as they are used" in mistake(f"- &l0 [x]\n{levels}")


def test_many_values_in_lines_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_document, "NODES_MAX", 10)
    assert mistake('{"a": [1, 2, 3]}\n' * 3, "p.jsonl") == "p.jsonl:3: found more than 10 values; want a smaller file"


def test_what_is_shown_stands_on_one_line() -> None:
    assert (shown("word"), shown("a\nb"), shown("x" * 99)) == ("word", r"'a\nb'", "x" * 57 + "...")
