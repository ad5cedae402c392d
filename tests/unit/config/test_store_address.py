"""Where conversations are kept: which forms are taken, and that no password comes out again."""

import pytest

from understudy.config.quantities import Unreadable
from understudy.config.store_address import FileAddress, RedisUrl, read_store, write_store


def test_none_is_nowhere() -> None:
    assert read_store("none") is None
    assert read_store(None) is None
    assert write_store(None) == "none"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("file:/var/lib/understudy", "/var/lib/understudy"),
        ("file:/var/lib/understudy/", "/var/lib/understudy"),
        ("file:///var/lib/understudy", "/var/lib/understudy"),
        ("file:/a folder/Gespräche", "/a folder/Gespräche"),
    ],
)
def test_a_folder_is_an_absolute_path(text: str, path: str) -> None:
    assert read_store(text) == FileAddress(path)
    assert write_store(FileAddress(path)) == f"file:{path}"
    assert read_store(f"file:{path}") == FileAddress(path)


@pytest.mark.parametrize(
    "text",
    [
        "file:",
        "file:sessions",
        "file:~/x",
        "file:./x",
        "file:/",
        "file://host/x",
        "file:////x",
        "file:/a/../b",
        "file:/a\nb",
        "file:/a\0",
    ],
)
def test_another_path_is_refused(text: str) -> None:
    with pytest.raises(Unreadable, match="an absolute path"):
        read_store(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://cache:6379/0", "redis://cache:6379/0"),
        ("rediss://[::1]:6379", "rediss://[::1]:6379"),
        ("redis+sentinel://a:1,b:2/main/0", "redis+sentinel://a:1,b:2/main/0"),
        ("rediss+cluster://a:1,b:2", "rediss+cluster://a:1,b:2"),
        ("redis+unix:///run/redis.sock", "redis+unix:///run/redis.sock"),
        ("redis://me:hunter2@cache/1", "redis://me:***@cache/1"),
        ("redis://:hunter2@cache", "redis://:***@cache"),
        ("redis://hunter2@cache", "redis://***@cache"),
        ("redis://me:hunter@2@cache", "redis://me:***@cache"),
        ("redis://me:hunter2/@cache", "redis://me:***@cache"),
        ("redis://cache?password=hunter2&replicas=1", "redis://cache?password=***&replicas=1"),
        ("redis://cache?hunter2", "redis://cache?***"),
        ("redis://cache?", "redis://cache?"),
        ("redis://cache?password=hunter@2", "redis://***"),
        ("redis://me:hunter?2@cache", "redis://***"),
        ("redis://me:hunter#2@cache", "redis://***"),
        ("redis://cache#hunter2", "redis://***"),
    ],
)
def test_a_redis_url_is_kept_whole_and_shown_without_its_password(text: str, shown: str) -> None:
    store = read_store(text)
    assert isinstance(store, RedisUrl)
    assert store.text == text
    assert write_store(store) == str(store) == f"{store}" == shown
    assert "hunter" not in repr(store)


@pytest.mark.parametrize(
    "value",
    ["", "None", "/var/lib", "redis", "redis:", "redis://", "redis:cache", "http://cache", "redis+http://a", "rediss+unix:///a", "sentinel://a",
     "redis://a b", "redis://ä", "redis://a\n", "redis://" + "a" * 4096, 7, ["none"], {}],
)  # fmt: skip
def test_what_is_no_store_is_refused_with_the_forms_there_are(value: object) -> None:
    with pytest.raises(Unreadable, match="none, file:/absolute/path or redis://HOST:PORT/DB"):
        read_store(value)


@pytest.mark.parametrize("text", ["redis://me:hunter2@a b", "rediz://:hunter2@a", "redis:a?password=hunter2"])
def test_what_may_hold_a_password_is_not_shown_when_it_is_refused(text: str) -> None:
    with pytest.raises(Unreadable) as refused:
        read_store(text)
    assert refused.value.found == "a value that is not shown"


def test_what_was_read_reads_as_itself() -> None:
    for store in (FileAddress("/a"), RedisUrl("redis://a")):
        assert read_store(store) is store
