"""The store as the loop sees it: no wait of its own, no lost message between processes, and an honest word on a bad disk."""

import asyncio
import errno
import os
import stat
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from support import file_store_child as child
from support.stored import CODECS, conversation
from understudy.sessions.file_store import FileHold, FileStore
from understudy.sessions.store import PAGE_MAX, Conflict, HeldElsewhere, Loss, StoreError, Swept

TTL_S = 3600.0


class Reports(list[tuple[str, dict[str, object]]]):
    """What a store reports, and that it does so in the loop's thread."""

    def __call__(self, event: str, fields: dict[str, object]) -> None:
        assert threading.current_thread() is threading.main_thread()
        self.append((event, fields))


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest.fixture
async def store(tmp_path: Path, reports: Reports) -> AsyncIterator[FileStore]:
    store = FileStore(tmp_path / "sessions", CODECS["json"], ttl_s=TTL_S, report=reports)
    await store.open()
    yield store
    await store.close()


async def put(store: FileStore, session: str, *texts: str, revision: int = 1) -> None:
    held = await store.hold(session, 0.0)
    await held.keep(conversation(revision, *texts))
    await held.release()


def files(store: FileStore) -> list[Path]:
    return sorted(store._path.rglob("*.*"))


async def test_a_conversation_outlives_its_store(store: FileStore, tmp_path: Path) -> None:
    assert await store.read("ada") is None
    held = await store.hold("ada", 0.0)
    assert (held.conversation, held.loss) == (None, None)
    await held.keep(conversation(1, "Hi"), is_last=False)
    await held.keep(conversation(2, "Hi", "Hello!"))
    await held.release()
    other = FileStore(tmp_path / "sessions", CODECS["msgpack"], ttl_s=TTL_S, report=lambda event, fields: None)
    await other.open()
    found = await other.read("ada")
    assert found is not None
    assert found[1] == conversation(2, "Hi", "Hello!")
    assert (found[0].session, found[0].revision, found[0].size_bytes) == ("ada", 2, files(store)[0].stat().st_size)
    assert await other.delete("ada")
    assert not await store.delete("ada")
    assert await store.read("ada") is None
    await other.close()


async def test_a_session_is_waited_for_and_had_in_turn(store: FileStore) -> None:
    first = await store.hold("ada", 0.0)
    with pytest.raises(HeldElsewhere):
        await store.hold("ada", 0.0)
    with pytest.raises(HeldElsewhere):
        await store.hold("ada", 0.03)
    waiting = asyncio.ensure_future(store.hold("ada", 10.0))
    await first.keep(conversation(1, "Hi"))
    second = await waiting
    assert second.conversation == conversation(1, "Hi")
    await first.release()
    with pytest.raises(HeldElsewhere):
        await store.hold("ada", 0.0)
    await second.release()


async def test_who_gives_up_waiting_holds_nothing(store: FileStore) -> None:
    first = await store.hold("ada", 0.0)
    for turns in range(20):
        waiting = asyncio.ensure_future(store.hold("ada", 10.0))
        if turns == 10:
            await first.release()
        for _ in range(turns * 5):
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await _released(waiting)
    await (await store.hold("ada", 5.0)).release()
    assert not files(store)


async def _released(waiting: "asyncio.Future[FileHold]") -> None:
    """Await a hold; one that came before its cancelling is given back by whoever has it."""
    held = await waiting
    await held.release()
    raise asyncio.CancelledError


async def test_a_lost_race_is_a_conflict_with_what_is_there(store: FileStore) -> None:
    await put(store, "ada", "Hi")
    held = await store.hold("ada", 0.0)
    with pytest.raises(Conflict) as caught:
        await held.keep(conversation(1, "lost"))
    assert caught.value.current == conversation(1, "Hi")
    assert await store.delete("ada")
    with pytest.raises(Conflict) as caught:
        await held.keep(conversation(2, "lost"))
    assert caught.value.current is None
    await held.release()


async def test_a_session_goes_with_its_ttl_which_may_be_changed(store: FileStore) -> None:
    await put(store, "ada", "Hi")
    os.utime(files(store)[0], (0, 0))
    assert await store.read("ada") is None
    store.ttl_s = 1e12
    assert await store.read("ada") is not None
    store.ttl_s = TTL_S
    assert await store.sweep() == Swept(0, 0, 1)
    assert not files(store)


async def test_all_are_listed_page_by_page_and_swept_past(store: FileStore) -> None:
    sessions = {f"session-{index}" for index in range(40)}
    for session in sessions:
        await put(store, session, "Hi")
    assert {summary.session for summary in (await store.page("", PAGE_MAX)).summaries} == sessions
    seen, cursor, pages = list[str](), "", 0
    while True:
        page = await store.page(cursor, 7)
        assert len(page.summaries) <= 7
        seen += [summary.session for summary in page.summaries]
        cursor, pages = page.cursor, pages + 1
        if not cursor:
            break
    assert sorted(seen) == sorted(sessions)
    assert 6 <= pages <= 7
    size_bytes = sum(path.stat().st_size for path in files(store))
    assert await store.sweep() == Swept(40, size_bytes, 0)


@pytest.mark.parametrize("cursor", ["\x00", "../../etc", "zz", "é", "f" * 64, "x" * 10_000])
async def test_any_cursor_is_somewhere_in_the_list(store: FileStore, cursor: str) -> None:
    await put(store, "ada", "Hi")
    page = await store.page(cursor, 0)
    assert [summary.session for summary in page.summaries] == (["ada"] if cursor < files(store)[0].name else [])


async def test_what_is_set_aside_is_reported_by_its_file_alone(store: FileStore, reports: Reports) -> None:
    await put(store, "ada", "Hi")
    file = files(store)[0]
    file.write_bytes(b"junk")
    held = await store.hold("ada", 0.0)
    assert (held.conversation, held.loss) == (None, Loss.UNREADABLE)
    assert reports == [("session.set_aside", {"file": file.name, "reason": "foreign"})]
    await held.keep(conversation(1, "anew"))
    await held.release()
    assert (await store.sweep()).set_aside == 1


async def test_a_store_makes_its_folder_for_its_owner_alone(tmp_path: Path, reports: Reports) -> None:
    path = tmp_path / "a" / "b" / "c"
    await FileStore(path, CODECS["json"], ttl_s=TTL_S, report=reports).open()
    assert {stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent, path.parent.parent)} == {0o700}


async def test_a_folder_by_a_link_or_open_to_all_is_taken_and_its_files_are_not(tmp_path: Path, reports: Reports) -> None:
    (tmp_path / "real").mkdir(mode=0o777)
    (tmp_path / "link").symlink_to("real")
    store = FileStore(tmp_path / "link", CODECS["json"], ttl_s=TTL_S, report=reports)
    await store.open()
    await put(store, "ada", "Hi")
    (file,) = (tmp_path / "real").rglob("*.session")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    await store.close()


async def test_a_path_that_is_no_folder_is_refused_in_one_line(tmp_path: Path, reports: Reports) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nothing")
    for path, loss in (("file", Loss.REFUSED), ("file/below", Loss.REFUSED), ("link", Loss.UNAVAILABLE)):
        with pytest.raises(StoreError) as caught:
            await FileStore(tmp_path / path, CODECS["json"], ttl_s=TTL_S, report=reports).open()
        assert caught.value.loss is loss
        assert str(tmp_path / path) in caught.value.detail
        assert "\n" not in caught.value.detail


@pytest.mark.parametrize(
    ("number", "loss"), [(errno.ENOSPC, Loss.FULL), (errno.EROFS, Loss.READ_ONLY), (errno.ETIMEDOUT, Loss.UNAVAILABLE)]
)
async def test_an_error_of_the_system_is_a_loss(
    store: FileStore, number: int, loss: Loss, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **more: object) -> None:
        raise OSError(number, os.strerror(number))

    held = await store.hold("ada", 0.0)
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", fail)
        with pytest.raises(StoreError) as caught:
            await held.keep(conversation(1, "Hi"))
    assert caught.value.loss is loss
    assert os.strerror(number) in caught.value.detail
    assert "ada" not in caught.value.detail
    await held.keep(conversation(1, "Hi"))
    await held.release()


async def test_a_write_that_hangs_keeps_the_session_until_it_ends(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else another process would write meanwhile, and the late write undo what it wrote."""
    has_begun, may_end, real = threading.Event(), threading.Event(), os.fsync

    def fsync(fd: int) -> None:
        has_begun.set()
        assert may_end.wait(10)
        real(fd)

    await put(store, "ada", "Hi")
    held = await store.hold("ada", 0.0)
    monkeypatch.setattr(os, "fsync", fsync)
    keeping = asyncio.ensure_future(held.keep(conversation(2, "Hi", "Hello!")))
    await asyncio.to_thread(has_begun.wait, 10)
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    with pytest.raises(StoreError) as caught:
        await held.keep(conversation(2, "another"))
    assert caught.value.loss is Loss.SLOW
    await held.release()
    with pytest.raises(HeldElsewhere):
        await store.hold("ada", 0.0)
    may_end.set()
    later = await store.hold("ada", 10.0)
    assert later.conversation == conversation(2, "Hi", "Hello!")
    await later.release()
    assert [path.suffix for path in files(store)] == [".session"]


async def test_a_session_is_given_back_after_the_close(store: FileStore) -> None:
    held = await store.hold("ada", 0.0)
    await store.close()
    await held.release()
    assert not files(store)
    with pytest.raises(StoreError):
        await store.hold("ada", 0.0)


def test_the_daemon_ends_while_a_write_hangs(tmp_path: Path) -> None:
    child.seed(tmp_path, "Hi")
    assert child.answer_of("hang", tmp_path) == {"keep": "timed out", "hold": "held elsewhere"}
    found = child.files_of(tmp_path).read(child.CODEC.name(child.SESSION), TTL_S)
    assert found is not None
    assert found[1] == conversation(1, "Hi")


async def test_a_session_of_a_killed_process_is_free(store: FileStore) -> None:
    process = child.start("hold", store._path)
    try:
        assert process.stdout is not None
        assert b"true" in await asyncio.to_thread(process.stdout.readline)
        with pytest.raises(HeldElsewhere):
            await store.hold(child.SESSION, 0.0)
    finally:
        process.kill()
        process.communicate()
    held = await store.hold(child.SESSION, 0.0)
    await held.keep(conversation(1, "Hi"))
    await held.release()


@pytest.mark.parametrize("locks", ["with", "without"])
def test_four_processes_at_once_lose_no_message(tmp_path: Path, locks: str) -> None:
    children = [child.start("add", tmp_path / "sessions", who, 15, locks) for who in "abcd"]
    ends = [each.communicate(timeout=60)[0] for each in children]
    assert [each.returncode for each in children] == [0] * 4, ends
    found = child.files_of(tmp_path / "sessions").read(child.CODEC.name(child.SESSION), TTL_S)
    assert found is not None
    texts = [message.text for message in found[1].messages]
    assert sorted(texts) == sorted(f"{who}-{index}" for who in "abcd" for index in range(15))
    assert found[1].revision == 60
    # Each in its own order.
    assert all([text for text in texts if text[0] == who] == [f"{who}-{index}" for index in range(15)] for who in "abcd")
    assert [path.suffix for path in (tmp_path / "sessions").rglob("*.*")] == [".session"]


def _by_mount(path: Path) -> tuple[str, tuple[str, ...]]:
    prefix = child.mounting(path)
    return ("inject", ()) if prefix is None else ("mount", prefix)


def _by_injection(path: Path) -> tuple[str, tuple[str, ...]]:
    return "inject", ()


@pytest.mark.parametrize("way_of", [_by_mount, _by_injection])
def test_a_full_or_read_only_disk_is_known_early_read_from_and_recovers(
    tmp_path: Path, way_of: Callable[[Path], tuple[str, tuple[str, ...]]]
) -> None:
    """A real one of 1 MiB where this may mount, and the same errors at the same calls anywhere."""
    way, prefix = way_of(tmp_path)
    seen = child.answer_of("bad_disk", tmp_path, way, prefix=prefix)

    def expected(loss: str | None, revision: int, kept: object, read: int) -> dict[str, object]:
        listing = {"listed": 1, "swept": 1}
        return {"loss": loss, "revision": revision, "kept": kept, "read": read, "new": [loss, None], **listing}

    assert seen == {
        "before": expected(None, 0, True, 1),
        "full": expected("full", 1, "full", 1),
        "well": expected(None, 1, True, 2),
        "read-only": expected("read_only", 2, "read_only", 2),
        "well again": expected(None, 2, True, 3),
        "left": [".session"],
    }


@pytest.fixture
def anybodys() -> Iterator[Path]:
    """A folder that another user may enter, which none below pytest's own is."""
    with TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_folder_of_another_user_is_refused_but_read_where_it_may_be(anybodys: Path) -> None:
    for name, mode in (("unentered", 0o600), ("unwritten", 0o555)):
        child.seed(anybodys / name, "Hi")
        (anybodys / name).chmod(mode)
    for path in (anybodys / "unwritten").rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    seen = child.answer_of("refused", anybodys)
    assert {name: seen[name][0] for name in seen if name.startswith("un")} == dict.fromkeys(
        ("unentered", "unwritten", "unentered/below", "unwritten/below"), "refused"
    )
    assert seen["unwritten"][1] == f"{anybodys / 'unwritten'}: may not be written"
    assert (seen["hold"], seen["keep"], seen["swept"]) == (["refused", 1], "refused", 1)
