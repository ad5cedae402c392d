import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.config.addresses import ListenAddress
from understudy.config.load import Overrides, find_file, from_urls, load_bytes, load_file, load_text
from understudy.config.schema import Settings
from understudy.core.snapshot import EngineKind, Role
from understudy.errors import ConfigError

PI = "backends: [{name: pi, url: 'http://pi'}]\n"
KEYS = st.sampled_from(
    ["backends", "name", "url", "health", "listen", "admin", "models", "weight", "rise", "limits", "x", "- name"]
)
VALUES = st.sampled_from(
    ["", "http://a", "pi", "5s", "${A}", "${", "[", "{a: b}", "- x", "*a", "&a", "0", "~", "|", "'", "\t", "unix:/a"]
)
LINES = st.tuples(st.sampled_from(["", "  ", "    ", "  - "]), KEYS, VALUES).map(
    lambda parts: f"{parts[0]}{parts[1]}: {parts[2]}\n"
)
BYTES = (
    st.binary(max_size=300)
    | st.text(max_size=200).map(lambda text: text.encode(errors="surrogatepass"))
    | st.lists(LINES).map(lambda lines: "".join(lines).encode())
)
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)


def mistakes_of(path: Path) -> str:
    with pytest.raises(ConfigError) as refused:
        load_file(path, {})
    return str(refused.value)


def test_a_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "u.yaml"
    file.write_text(PI, encoding="utf-8")
    assert load_file(file, {}) == load_text(PI, {})


def test_a_file_that_cannot_be_read_is_one_mistake_with_its_path(tmp_path: Path) -> None:
    assert (
        mistakes_of(tmp_path / "gone.yaml")
        == f"{tmp_path}/gone.yaml: found no such file or directory; want a file that can be read"
    )
    assert mistakes_of(tmp_path) == f"{tmp_path}: found not a regular file; want a file that can be read"
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in mistakes_of(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("text", "found"), [("", "an empty file"), ("# x\n", "an empty file"), ("- a\n", "a list"), ("a\n", "a single value")]
)
def test_a_file_without_keys_is_refused(text: str, found: str) -> None:
    with pytest.raises(ConfigError, match=f"f:1:1: found {found}; want keys and values, at least backends:"):
        load_text(text, {}, "f")


def test_urls_alone_make_a_primary_and_backups() -> None:
    settings = from_urls(["http://a:1", "http://b:1", "http://c:1"])
    assert [(b.name, b.role, b.url.host, b.engine) for b in settings.backends] == [
        ("primary", Role.PRIMARY, "a", EngineKind.AUTO),
        ("backup", Role.BACKUP, "b", EngineKind.AUTO),
        ("backup-2", Role.BACKUP, "c", EngineKind.AUTO),
    ]


def test_every_url_that_is_none_is_told() -> None:
    with pytest.raises(ConfigError) as refused:
        from_urls(["a:1", "http://b", "http://x:hunter2@c"])
    told = [str(mistake) for mistake in refused.value.mistakes]
    assert told == [
        "URL 1: found a:1; want a URL such as http://gpu1:11434 (http or https)",
        "URL 3: found a URL with a user name or password; want the key under api_key, and a URL without it",
    ]
    with pytest.raises(ConfigError, match="URL: found none; want at least one URL"):
        from_urls([])


def test_the_command_line_wins_over_the_file() -> None:
    settings = load_text(PI + "listen: '127.0.0.1:1'\n", {}, overrides=Overrides(("[::]:2", "unix:/a"), "localhost:3"))
    assert settings.listen == (ListenAddress("::", 2), ListenAddress(path="/a"))
    assert settings.admin.listen == ListenAddress("localhost", 3)


def test_the_command_line_is_checked_like_the_file() -> None:
    with pytest.raises(ConfigError, match="--listen: found 80; want HOST:PORT"):
        load_text(PI, {}, overrides=Overrides(listen=("80",)))
    with pytest.raises(ConfigError, match=r"no admin\.token"):
        from_urls(["http://a"], Overrides(admin="0.0.0.0:1"))


def test_the_first_file_in_its_usual_places_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "understudy.yaml").write_text(PI, encoding="utf-8")
    assert find_file() == Path("understudy.yaml")


def test_fifty_backends_load_in_well_under_50_ms() -> None:
    text = "backends:\n" + "".join(
        f"  - {{name: b{n}, url: 'http://h{n}', engine: vllm, weight: 3, models: {{a: b, c: d}}, "
        "api_key: '${K:-x}', health: {rise: 1}}\n"
        for n in range(50)
    )
    seconds = []
    for _ in range(5):
        began_s = time.perf_counter()
        load_text(text, {})
        seconds.append(time.perf_counter() - began_s)
    assert min(seconds) < 0.05


def test_a_file_of_another_program_gets_a_hundred_mistakes_and_no_more() -> None:
    refused = outcome("".join(f"key{number}: 1\n" for number in range(20_000)).encode())
    assert isinstance(refused, ConfigError)
    assert len(refused.mistakes) == 100


def outcome(content: bytes) -> Settings | ConfigError:
    try:
        return load_bytes(content, {"A": "a"}, "f")
    except ConfigError as error:
        return error


@given(BYTES)
def test_any_bytes_give_settings_or_mistakes_and_nothing_else(content: bytes) -> None:
    given_back = outcome(content)
    if isinstance(given_back, ConfigError):
        assert given_back.mistakes
        assert all(mistake.line >= 1 and mistake.column >= 1 and mistake.want for mistake in given_back.mistakes)
        assert all("\n" not in str(mistake) for mistake in given_back.mistakes)


@given(TREES)
def test_any_tree_gives_settings_or_mistakes_and_nothing_else(tree: object) -> None:
    given_back = outcome(json.dumps(tree).encode())
    assert isinstance(given_back, Settings) or given_back.mistakes


def test_url_that_cannot_be_read_is_the_only_mistake() -> None:
    with pytest.raises(ConfigError) as refused:
        from_urls(["notaurl"])
    assert [mistake.found for mistake in refused.value.mistakes] == ["notaurl"]
