"""Those who look after conversations: the commands as processes against a real daemon, keys, reloads, and what stops a start."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from support.answers import whole
from support.daemon import Daemon, backend, settings
from support.personas import openai_chat
from support.scripted import ScriptedEngine
from support.steps import Gate, answer, hold
from support.waiting import until
from support.wire import Reply, Wire, chat, request_bytes

CHAT = "/v1/chat/completions"
ANSWER = "good evening from gpu0"
TOKEN = "let-me-in"
KEY, OTHER_KEY = "ab" * 32, "cd" * 32
NOWHERE = {"name": "gpu0", "url": "http://127.0.0.1:1"}


class Stage:
    """A daemon that keeps conversations below `folder`, the engine behind it, and the commands about it."""

    def __init__(self, daemon: Daemon, engine: ScriptedEngine, folder: Path) -> None:
        self.daemon = daemon
        self.engine = engine
        self.folder = folder

    def ask(self, session: str, text: str, path: str = CHAT, **more: Any) -> Reply:
        """Say something in a session; `more` goes into the request."""
        body = chat(text, max_tokens=100, **more)
        if path in ("/v1/completions", "/api/generate"):
            body["prompt"] = text
        reply = self.daemon.ask(path, body, headers={"X-Session-ID": session})
        assert reply.status == 200, reply
        return reply

    def given(self) -> Any:
        """Return the messages or the prompt of the engine's last request."""
        body = self.engine.seen.requests[-1].json()
        return body.get("prompt") or body["messages"]

    def run(self, *words: str, stdin: str = "", token: str = "") -> subprocess.CompletedProcess[str]:
        """Run `understudy sessions` with these words."""
        return sessions(*words, "--admin", self.daemon.admin_url, stdin=stdin, token=token)

    def told(self, *words: str, **more: str) -> str:
        """Run `understudy sessions`, which must work and say nothing else, and return what it says."""
        ended = self.run(*words, **more)
        assert (ended.returncode, ended.stderr) == (0, ""), ended
        return ended.stdout

    def shown(self, session: str) -> dict[str, Any]:
        """Return what the admin port shows of a session."""
        reply = self.daemon.admin(f"/api/sessions?id={quote(session, safe='')}")
        assert reply.status == 200, reply
        record: dict[str, Any] = reply.json()
        return record

    def send(self, method: str, target: str, body: Any) -> Reply:
        """Send a body to the admin port."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        with Wire(self.daemon.admin_port) as wire:
            wire.send(request_bytes(method, target, data, headers={"Host": f"127.0.0.1:{self.daemon.admin_port}"}))
            return wire.read_reply()


def sessions(*words: str, stdin: str = "", token: str = "") -> subprocess.CompletedProcess[str]:
    """Run `understudy sessions`, with a token or without."""
    environment = {name: value for name, value in os.environ.items() if name != "UNDERSTUDY_ADMIN_TOKEN"}
    environment |= {"UNDERSTUDY_ADMIN_TOKEN": token} if token else {}
    command = [sys.executable, "-m", "understudy", "sessions", *words]
    return subprocess.run(command, input=stdin, env=environment, capture_output=True, text=True, timeout=30, check=False)


@contextmanager
def keeping(folder: Path, *, token: str = "", **more: Any) -> Iterator[Stage]:
    """Start a daemon that keeps conversations in FOLDER/kept."""
    with ExitStack() as stack:
        engine = stack.enter_context(ScriptedEngine("gpu0", engine="ollama"))
        admin = {"token": token} if token else {}
        wanted = settings(backend(engine, "ollama"), admin=admin, sessions={"store": f"file:{folder / 'kept'}", **more})
        daemon = stack.enter_context(Daemon(wanted, folder))
        if not token:
            daemon.wait_condition("up")
        yield Stage(daemon, engine, folder / "kept")


@pytest.fixture(scope="module")
def shared_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Share one daemon among the plays that may."""
    with keeping(tmp_path_factory.mktemp("operating")) as stage:
        yield stage


@pytest.fixture
def stage(shared_stage: Stage) -> Stage:
    """Hand it over with nothing kept and nothing seen."""
    shared_stage.engine.fresh()
    assert shared_stage.send("POST", "/api/sessions/purge", {"older_than_s": 0}).status == 200
    return shared_stage


# The commands.


def record(session: str, changed_at_unix_s: float, *texts: str) -> dict[str, Any]:
    """Make a line of an export, in which the texts are said by turns."""
    messages = [
        {"speaker": ("user", "assistant")[number % 2], "parts": [{"kind": "text", "text": text}]}
        for number, text in enumerate(texts)
    ]
    return {"id": session, "messages": messages, "model": "tiny", "changed_at_unix_s": changed_at_unix_s}


def test_hundreds_of_conversations_are_listed_page_by_page(stage: Stage) -> None:
    names = [f"number {number:03d}" for number in range(240)]
    lines = "\n".join(json.dumps(record(name, 1e9 + number, "one", "two")) for number, name in enumerate(names))
    assert stage.told("import", stdin=lines) == "240 imported\n"
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = stage.daemon.admin(f"/api/sessions?limit=30&cursor={cursor}").json()
        assert len(page["sessions"]) <= 30
        found += [summary["id"] for summary in page["sessions"]]
        cursor = page["cursor"]
    assert sorted(found) == names
    header, *rows = stage.told("list").splitlines()
    assert header.split() == ["SESSION", "MESSAGES", "CHANGED", "SIZE", "MODEL", "BACKEND"]
    assert [row[:10] for row in rows] == names[::-1]
    few = stage.run("list", "--limit", "7")
    assert (few.returncode, len(few.stdout.splitlines()), few.stderr.count("\n")) == (0, 8, 1)
    listed = json.loads(stage.told("list", "--json"))
    assert (sorted(each["id"] for each in listed["sessions"]), listed["more"]) == (names, False)
    assert stage.told("purge", "--older-than", "24h", "--yes") == "240 forgotten\n"
    assert stage.told("list") == "no conversation is kept\n"


def test_one_conversation_is_shown_and_deleted(stage: Stage) -> None:
    session = "../odd \u00fc name"
    stage.ask(session.encode().decode("latin-1"), "Who are you?")
    text = stage.told("show", session)
    assert f"{session}: 2 messages" in text
    assert f"\nuser: Who are you?\nassistant: {ANSWER}\n" in text
    assert json.loads(stage.told("show", session, "--json")) == stage.shown(session)
    assert stage.told("delete", session) == f"{session} is forgotten\n"
    for command in ("show", "delete"):
        ended = stage.run(command, session)
        assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (1, "", 1)
    assert stage.ask(session.encode().decode("latin-1"), "again").head.get("X-Understudy-Session") == "new"


def test_a_purge_that_nobody_confirms_forgets_nothing_and_an_age_spares_what_is_young(stage: Stage) -> None:
    stage.ask("young", "one")
    assert stage.told("import", stdin=json.dumps(record("old", 1e9, "one", "two"))) == "1 imported\n"
    ended = stage.run("purge")
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (1, "", 1)
    assert stage.told("purge", "--older-than", "30m", "--yes") == "1 forgotten\n"
    assert [each["id"] for each in json.loads(stage.told("list", "--json"))["sessions"]] == ["young"]
    assert stage.told("purge", "--yes") == "1 forgotten\n"


PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
TOOLS: list[Any] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Look."}, PICTURE]},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "fog \u2028 \U0001f32b"},
]


def test_what_was_exported_and_purged_goes_on_after_an_import(stage: Stage, tmp_path: Path) -> None:
    paths = {"openai": CHAT, "ollama": "/api/chat", "text": "/v1/completions", "tools": CHAT, "../\u00fc": CHAT, "torn": CHAT}
    torn = record("torn", 1e9, "one", "tw")
    torn["messages"][-1]["mark"] = "torn"
    stage.told("import", stdin=json.dumps(torn))
    stage.ask("tools", "", messages=TOOLS)

    def grow(turn: int) -> dict[str, Any]:
        given = {}
        for session, path in paths.items():
            stage.ask(session.encode().decode("latin-1"), f"question {turn}", path, stream=True)
            given[session] = stage.given()
        return given

    grow(1)
    before = grow(2)
    kept = {session: stage.shown(session) for session in paths}
    file = tmp_path / "all.jsonl"
    assert stage.told("export", str(file)) == f"6 exported to {file}\n"
    assert file.stat().st_mode & 0o777 == 0o600
    assert stage.told("export") == file.read_text()
    assert stage.told("purge", "--yes") == "6 forgotten\n"
    assert stage.told("import", str(file)) == "6 imported\n"
    for session, one in kept.items():
        again = stage.shown(session)
        assert {**again, "revision": 0, "bytes": 0} == {**one, "revision": 0, "bytes": 0}
    for session, given in grow(3).items():
        # All but the last question stands where it stood: among messages, and in the one text of a prompt.
        asked = before[session][:-1]
        assert given[: len(asked)] == asked
        assert len(given) > len(asked) + 2
    # A line that is none is told with its place, and the others are kept.
    ended = stage.run("import", stdin=f"nonsense\n{file.read_text()}{{}}\n")
    assert (ended.returncode, ended.stdout) == (1, "6 imported, 2 not\n")
    assert [line.split(": ")[1] for line in ended.stderr.splitlines()] == ["standard input:1", "standard input:8"]


def test_a_token_opens_the_commands_and_nothing_else_does(tmp_path: Path) -> None:
    with keeping(tmp_path, token=TOKEN) as stage:
        until(lambda: stage.daemon.events("backend.went_up"), "the backend is up")
        stage.ask("s", "one")
        commands = (["list"], ["show", "s"], ["delete", "s"], ["export"], ["purge", "--yes"], ["import"])
        for words, token in zip(commands, ("", "wrong") * 3, strict=True):
            ended = stage.run(*words, token=token, stdin=json.dumps(record("s", 1e9, "another")))
            assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (1, "", 1)
            assert ("is not the daemon's" if token else "UNDERSTUDY_ADMIN_TOKEN is not set") in ended.stderr
        for target in ("/api/sessions", "/api/sessions/s", "/api/sessions?id=s"):
            assert stage.daemon.admin(target).status == 401
        assert "user: one" in stage.told("show", "s", token=TOKEN)
        assert stage.told("purge", "--yes", token=TOKEN) == "1 forgotten\n"


def test_the_admin_port_says_what_is_wrong(stage: Stage) -> None:
    stage.ask("s", "one")
    gets = {
        "/api/sessions?limit=0": 400,
        "/api/sessions?limit=1001": 400,
        f"/api/sessions?id={'x' * 257}": 400,
        "/api/sessions?id=": 400,
        "/api/sessions?id=nobody": 404,
        "/api/sessions/nobody": 404,
        "/api/sessions/s": 200,
        "/api/sessions?cursor=..%2F..%2Fetc": 200,
    }
    assert {target: stage.daemon.admin(target).status for target in gets} == gets
    good = record("s", 1e9, "one")
    sent: list[tuple[str, str, Any, int]] = [
        ("PUT", "/api/sessions?id=t", b"{", 400),
        ("PUT", "/api/sessions?id=t", {"messages": []}, 400),
        ("PUT", "/api/sessions?id=t", {"messages": [{"speaker": "nobody"}]}, 400),
        ("PUT", "/api/sessions", good, 400),
        ("PUT", "/api/sessions/t", good, 405),
        ("POST", "/api/sessions/purge", {}, 400),
        ("POST", "/api/sessions/purge", {"older_than_s": -1}, 400),
        ("POST", "/api/sessions/purge", {"older_than_s": 0, "really": True}, 400),
    ]
    for method, target, body, status in sent:
        assert stage.send(method, target, body).status == status, (method, target, body)
    assert [each["id"] for each in stage.daemon.admin("/api/sessions").json()["sessions"]] == ["s"]


def test_a_conversation_that_is_deleted_while_it_is_answered_begins_with_that_turn(stage: Stage) -> None:
    stage.ask("s", "one")
    gate = Gate()
    stage.engine.then(answer(hold(gate), *whole(200, openai_chat("at last", model="tiny")).steps))
    with Wire(stage.daemon.port) as wire:
        wire.send(request_bytes("POST", CHAT, chat("two"), headers={"X-Session-ID": "s"}))
        gate.wait_reached()
        assert stage.daemon.admin("/api/sessions/s", method="DELETE").status == 200
        gate.open()
        assert wire.read_reply().text == "at last"
    assert stage.given()[0]["content"] == "one"
    stage.ask("s", "three")
    assert [message["content"] for message in stage.given()] == ["two", "at last", "three"]


# Keys.


def test_with_a_key_nothing_can_be_read_and_another_key_begins_anew(tmp_path: Path) -> None:
    with keeping(tmp_path, key=KEY) as stage:
        for turn in ("one", "two"):
            stage.ask("a-session", f"zanzibar {turn}")
        written = b"".join(path.name.encode() + path.read_bytes() for path in stage.folder.rglob("*") if path.is_file())
        assert written
        assert not [word for word in (b"zanzibar", b"a-session", b"evening", b"tiny", b"gpu0", b"user") if word in written]
        assert [each["id"] for each in stage.daemon.admin("/api/sessions").json()["sessions"]] == ["a-session"]
    for key, merging, said in ((OTHER_KEY, "new", 1), (KEY, "appended", 5)):
        with keeping(tmp_path, key=key) as stage:
            assert stage.ask("a-session", "three").head.get("X-Understudy-Session") == merging
            assert len(stage.given()) == said
            listed = stage.daemon.admin("/api/sessions").json()["sessions"]
            assert [each["id"] for each in listed] == ["a-session"], "of each key its own"


# Reloading.


def test_a_reload_changes_bounds_at_once_and_names_what_waits_for_a_restart(tmp_path: Path) -> None:
    with keeping(tmp_path) as stage:
        for turn in range(4):
            stage.ask("s", f"question {turn}")
        wanted = yaml.safe_load(stage.daemon.file.read_text())
        wanted["sessions"] |= {"messages_max": 4, "store": f"file:{tmp_path / 'elsewhere'}", "format": "msgpack", "key": KEY}
        stage.daemon.rewrite(wanted)
        outcome = stage.send("POST", "/api/reload", b"").json()
        assert (outcome["ok"], sorted(outcome["needs_restart"])) == (
            True,
            ["sessions.format", "sessions.key", "sessions.store"],
        )
        stage.ask("s", "question 4")
        assert len(stage.given()) == 9
        shown = stage.shown("s")
        assert (len(shown["messages"]), shown["fallen"]) == (4, 6)
        assert not (tmp_path / "elsewhere").exists()
        wanted["sessions"]["ttl"] = "500ms"
        stage.daemon.rewrite(wanted)
        assert stage.send("POST", "/api/reload", b"").json()["ok"]
        until(lambda: stage.daemon.admin("/api/sessions/s").status == 404, "it has expired")
        assert stage.ask("s", "anew").head.get("X-Understudy-Session") == "new"


# Starting.


UNSTARTABLE = {
    "a file": ("file:{place}", {}, "{place}"),
    "below a file": ("file:{place}/below", {}, "{place}/below"),
    "a link to nowhere": ("file:{link}", {}, "{link}"),
    "a port that is none": ("redis://ada:secret@127.0.0.1:99999/0", {}, "sessions.store"),
    "a database that is none": ("redis://:secret@127.0.0.1/first", {}, "sessions.store"),
    "sentinels without a name": ("redis+sentinel://127.0.0.1:26379", {}, "sessions.store"),
    "a key that is too short": ("file:{kept}", {"key": "secret"}, "sessions.key"),
}


@pytest.mark.parametrize("case", UNSTARTABLE)
def test_what_keeps_it_from_starting_is_told_in_one_line(tmp_path: Path, case: str) -> None:
    places = {name: str(tmp_path / name) for name in ("place", "link", "kept")}
    Path(places["place"]).touch()
    Path(places["link"]).symlink_to(tmp_path / "nowhere")
    store, more, word = UNSTARTABLE[case]
    file = tmp_path / "understudy.yaml"
    file.write_text(yaml.safe_dump(settings(NOWHERE, sessions={"store": store.format(**places), **more})))
    command = [sys.executable, "-m", "understudy", "serve", "-c", str(file)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    (line,) = (line for line in ended.stderr.splitlines() if "config.loaded" not in line)
    assert word.format(**places) in line
    assert "secret" not in line


def test_a_folder_that_is_not_there_is_made_for_us_alone(stage: Stage) -> None:
    stage.ask("s", "one")
    (file,) = stage.folder.rglob("*.session")
    assert [path.stat().st_mode & 0o777 for path in (stage.folder, file.parent, file)] == [0o700, 0o700, 0o600]


def test_without_a_store_there_is_nothing_to_look_after(tmp_path: Path) -> None:
    with keeping(tmp_path, store="none") as stage:
        assert not stage.ask("s", "one").head.get("X-Understudy-Session")
        assert stage.daemon.admin("/api/sessions").status == 404
        told = "no conversations are kept: sessions.store is none"
        for words in (["list"], ["purge", "--yes"]):
            ended = stage.run(*words)
            assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", f"understudy: {told}\n")
        ended = stage.run("import", stdin=json.dumps(record("t", 1e9, "one")))
        assert (ended.returncode, ended.stderr) == (1, f"understudy: standard input:1: {told}; 0 were imported\n")
        assert "sessions" not in stage.daemon.admin("/readyz").json()
        assert "understudy_sessions" not in stage.daemon.admin("/metrics").body.decode()
