import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.config.document import DEPTH_MAX, FILE_BYTES_MAX, Kind, Node, read_document, shown


def only_mistake(content: bytes) -> str:
    _, mistakes = read_document(content, "f")
    assert len(mistakes) == 1, mistakes
    return str(mistakes[0])


def root_of(text: str) -> Node:
    root, mistakes = read_document(text.encode(), "f")
    assert not mistakes
    assert root is not None
    return root


def test_every_node_knows_its_line_and_column() -> None:
    root = root_of("a: 1\nb:\n  - x\n  - {ü: y, d: }\n")
    inner = root.fields["b"].items[1]
    assert (root.fields["a"].line, root.fields["a"].column) == (1, 4)
    assert (inner.line, inner.column) == (4, 5)
    assert (inner.fields["ü"].line, inner.fields["ü"].column) == (4, 9)
    assert inner.key_places["d"] == (4, 12)
    assert inner.fields["d"].kind is Kind.NOTHING


def test_scalars_stay_as_they_were_written() -> None:
    root = root_of("[on, 010, 1.10, 2024-01-01, 1:30, 'null', null, \"\", ~]")
    assert [item.text for item in root.items[:6]] == ["on", "010", "1.10", "2024-01-01", "1:30", "null"]
    assert [item.kind for item in root.items[5:]] == [Kind.TEXT, Kind.NOTHING, Kind.TEXT, Kind.NOTHING]


def test_whether_a_scalar_stood_in_quotes_is_known() -> None:
    root = root_of("[1, '1', \"1\", ~]\n")
    assert [item.is_plain for item in root.items] == [True, False, False, True]
    assert [item.is_plain for item in root_of("- |\n  1\n- 1\n").items] == [False, True]


def test_an_alias_stands_for_the_node_of_its_anchor() -> None:
    root = root_of("a: &x {k: v}\nb: *x\nc: &x 1\nd: *x\n")
    assert root.fields["b"] is root.fields["a"]
    assert root.fields["d"].text == "1"


@pytest.mark.parametrize(
    ("content", "mistake"),
    [
        (b"a: 1\nb: 2\na: 3\n", "f:3:1: found the key a a second time (first on line 1); want each key once"),
        (b"a: 1\n---\nb: 2\n", "f:2:1: found a second document; want one document in one file: no --- after the first key"),
        (b"a:\n\tb: 1\n", "f:2:1: found a tab; want spaces for indentation"),
        (b"? [a]\n: 1\n", "f:1:3: found a list or a mapping as a key; want a plain key"),
        (b"a: &x 1\n*x : 2\n", "f:2:1: found an alias as a key; want a plain key"),
        (
            b"a: !!python/object:os.system x",
            "f:1:4: found a tag (!); want the value alone; one that begins with ! stands in quotes",
        ),
        (b"a: 1\nb: \xff", "f:2:4: found the byte 0xff, which is not UTF-8; want text in UTF-8"),
        (b"a: 1\nb: \0", "f:2:4: found the control character U+0000; want a text file (this one may be binary)"),
        (b"a: \x1b[0m", "f:1:4: found the control character U+001B; want a text file (this one may be binary)"),
        (b"a" * (FILE_BYTES_MAX + 1), f"f:1:1: found a file of more than {FILE_BYTES_MAX} bytes; want at most 1 MiB"),
    ],
)
def test_what_is_not_one_plain_document_is_refused_with_its_place(content: bytes, mistake: str) -> None:
    assert only_mistake(content) == mistake


@pytest.mark.parametrize(
    ("content", "place"), [(b"a: [1,", "f:2:1"), (b"a: b: c", "f:1:5"), (b"a: @b", "f:1:4"), (b'a: "x', "f:1:6")]
)
def test_text_that_is_no_yaml_is_refused_with_its_place(content: bytes, place: str) -> None:
    mistake = only_mistake(content)
    assert mistake.startswith(f"{place}: found YAML that cannot be read: ")
    assert "want valid YAML" in mistake


def test_a_place_holder_between_braces_gets_advice() -> None:
    assert "between { } or [ ] a ${NAME} stands in quotes" in only_mistake(b"{a: ${HOME}, b: c}")


@pytest.mark.parametrize(
    "content", [b"k: *hunter2", b"k: !hunter2", b"k: !hunter2!a b", b"k: %hunter2", b"k: `hunter2", b"k: &hunter2 *a"]
)
def test_a_key_that_was_not_quoted_is_not_shown(content: bytes) -> None:
    assert "hunter2" not in only_mistake(content)


def test_a_bomb_of_aliases_is_refused_before_it_grows() -> None:
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 10)]
    assert "more than 50000 values" in only_mistake("\n".join(lines).encode())


def test_an_alias_inside_its_own_anchor_is_refused() -> None:
    assert "without a finished anchor" in only_mistake(b"a: &x [*x]")


def test_deep_nesting_is_refused_early() -> None:
    assert f"more than {DEPTH_MAX} levels" in only_mistake(b"[" * 100_000)


def test_a_byte_order_mark_is_no_part_of_the_first_key() -> None:
    assert list(root_of("\ufeffa: 1").fields) == ["a"]


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"---\n"])
def test_an_empty_file_has_no_root_or_an_empty_one(content: bytes) -> None:
    root, mistakes = read_document(content, "f")
    assert not mistakes
    assert root is None or root.kind is Kind.NOTHING


def test_a_value_is_shown_on_one_line_and_short() -> None:
    assert shown("plain") == "plain"
    assert shown("") == "''"
    assert shown("a\nb") == "'a\\nb'"
    assert len(shown("x" * 1000)) == 60


@given(st.binary(max_size=200) | st.text(alphabet="ab:-[]{}&*!|>'\"%@`#?, \n\t$~", max_size=80).map(str.encode))
def test_any_bytes_give_a_tree_or_mistakes(content: bytes) -> None:
    root, mistakes = read_document(content, "f")
    assert root is None or isinstance(root, Node)
    assert all(mistake.line >= 1 and mistake.column >= 1 and "\n" not in str(mistake) for mistake in mistakes)


def test_without_libyaml_the_same_file_gives_the_same_tree_and_mistakes_have_places(monkeypatch: pytest.MonkeyPatch) -> None:
    with_libyaml = root_of("a: 1\nb: [x, {c: d}]\n")
    monkeypatch.delattr("yaml.CSafeLoader", raising=False)
    without = root_of("a: 1\nb: [x, {c: d}]\n")
    assert without.size == with_libyaml.size
    assert without.fields["b"].items[1].key_places == with_libyaml.fields["b"].items[1].key_places
    assert only_mistake(b"a:\n\tb: 1\n") == "f:2:1: found a tab; want spaces for indentation"
    assert "hunter2" not in only_mistake(b"k: !hunter2!a b")
