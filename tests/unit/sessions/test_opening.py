"""The store that the file names, or one line about why it cannot be."""

import sys
from pathlib import Path

import pytest

from support.talk import assistant, kept, user
from understudy.sessions.file_store import FileStore
from understudy.sessions.opening import StoreRules, make_store
from understudy.sessions.redis_store import RedisStore
from understudy.sessions.store import Loss, StoreError

KEY = "00" * 32


def nothing(_event: str, _fields: dict[str, object]) -> None:
    """Tell nobody."""


def files_of(folder: Path) -> list[Path]:
    """Return the sessions' files."""
    return list(folder.rglob("*.session"))


async def test_a_folder_of_files(tmp_path: Path) -> None:
    store = make_store(StoreRules(f"file:{tmp_path}/kept", ttl_s=5.0), nothing)
    assert isinstance(store, FileStore)
    assert store.ttl_s == 5.0


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "redis+sentinel://127.0.0.1:1/master", "redis+cluster://127.0.0.1:1"])
async def test_redis_of_any_kind(url: str) -> None:
    store = make_store(StoreRules(url, ttl_s=5.0), nothing)
    assert isinstance(store, RedisStore)
    assert store.ttl_s == 5.0


async def test_a_key_encrypts(tmp_path: Path) -> None:
    store = make_store(StoreRules(f"file:{tmp_path}", key=KEY), nothing)
    await store.open()
    hold = await store.hold("ada", 1.0)
    await hold.keep(kept(user("secret words"), assistant("a")))
    await hold.release()
    await store.close()
    files = files_of(tmp_path)
    assert len(files) == 1
    assert b"secret" not in files[0].read_bytes()
    assert b"ada" not in files[0].read_bytes()


async def test_a_url_that_cannot_be_read_is_told_without_its_password() -> None:
    with pytest.raises(StoreError) as caught:
        make_store(StoreRules("redis://:hunter2@[::1"), nothing)
    assert caught.value.loss is Loss.REFUSED
    assert "hunter2" not in str(caught.value)


async def test_without_the_package_for_it_a_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(StoreError) as caught:
        make_store(StoreRules(f"file:{tmp_path}", key=KEY), nothing)
    assert "understudy[encryption]" in caught.value.detail


def test_what_the_file_says_is_not_shown() -> None:
    assert "hunter2" not in repr(StoreRules("redis://:hunter2@a", key=KEY))
    assert KEY not in repr(StoreRules("redis://:hunter2@a", key=KEY))
