"""The recipes of docs/rollout.md, played as they stand there: its files saved, its commands run, its output expected.

The engines are real llama.cpp servers with different tiny models. Clients ask all the while, and none of them may notice. What
the page calls by a name or port is found where the play has it, times and measured numbers are not compared, and what stands
after `docker compose exec understudy` is run here.
"""

import http.client
import json
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import pytest
import yaml

from support.daemon import Daemon, settings
from support.llama import LlamaServer
from support.tiny_model import tiny_model
from support.waiting import until
from support.wire import ask
from support.writing_cast import CHAT
from tidy.source_tree import TOP

PAGE = (TOP / "docs" / "rollout.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# The page's models by the number of their layers: the third is slow, the fourth as fast as the first.
LAYERS = {"assistant-v1.gguf": 2, "assistant-v2.gguf": 3, "assistant-v3.gguf": 64, "assistant-v4.gguf": 2}
COMMAND_TIMEOUT_S = 60.0
SHOWN_TIMEOUT_S = 40.0
CLIENTS = 2
# `compose exec understudy` stands before a command that is run here.
FUNCTIONS = """
understudy() {{
  case "$1" in check) {program} "$@" ;; *) {program} "$@" --admin {admin} ;; esac
}}
docker() {{ shift 3; "$@"; }}
{ask}
"""


def section(title: str) -> str:
    """Return the page from a heading that begins with `title` to the next one of any level."""
    return re.split(r"^#+ ", PAGE.partition(f"# {title}")[2], maxsplit=1, flags=re.MULTILINE)[0]


ASK = next(text for kind, text in BLOCK.findall(section("Recipes")) if kind == "sh")


def commands(console: str) -> Iterator[tuple[str, str, str]]:
    """Yield of each command in a block: the machine it is typed at ("" this one), the command, and what it prints."""
    for found in re.finditer(r"^(\w*)\$ (.*)\n((?:(?!\w*\$ ).*\n)*)", console, re.MULTILINE):
        yield found[1], found[2], found[3]


def compared(text: str) -> str:
    """Return output without what differs from one run to the next: how long ago, what was measured."""
    text = re.sub(r"last change: (time|speed|errors) .*", "last change: <what the guard found>", text.replace("\r", "").strip())
    text = re.sub(r"(?:\b\d+(?:\.\d+)?[dhms]\b ?)+", "<time>", text)
    return re.sub(r'"prompt_tokens":\d+', '"prompt_tokens":<number>', text)


class Recipe:
    """One section of the page and what it needs to be played. Use as a context manager."""

    def __init__(self, title: str, folder: Path, models_folder: Path, tweaks: Mapping[str, str]) -> None:
        self.blocks = BLOCK.findall(section(title))
        assert self.blocks, title
        self._folder, self._models_folder, self._tweaks = folder, models_folder, tweaks
        # By host and port as the page has them.
        self.engines: dict[str, LlamaServer] = {}
        self._stack = ExitStack()
        self.daemon: Daemon | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        for engine in self.engines.values():
            engine.kill()

    def play(self) -> None:
        """Do what the section says, block by block; a section without a file is about the one in deploy."""
        if not any(kind == "yaml" for kind, _ in self.blocks):
            self.save((TOP / "deploy" / "blue-green.yaml").read_text(encoding="utf-8"))
        for kind, text in self.blocks:
            if kind == "yaml" and text.startswith("-"):
                (self._folder / "prompts.yaml").write_text(text, encoding="utf-8")
            elif kind == "yaml":
                self.save(text)
            elif kind == "console":
                for machine, command, shown in commands(text):
                    self._type(machine, command, shown)

    def save(self, text: str) -> None:
        """Save an understudy.yaml; the first one is what the daemon starts with."""
        for written, instead in self._tweaks.items():
            text = text.replace(written, instead)
        wanted: dict[str, Any] = yaml.safe_load(text)
        wanted.pop("listen", None)
        written = wanted.pop("backends")
        places = [urlsplit(each["url"]).netloc for each in written]
        backends = [each | {"url": self._engine(place).url} for each, place in zip(written, places, strict=True)]
        file = settings(*backends, **wanted)
        if self.daemon is not None:
            count = len(self.daemon.events("config.reloaded"))
            self.daemon.rewrite(file)
            until(lambda: self.daemon is None or len(self.daemon.events("config.reloaded")) > count, "the file is in force")
            return
        # What the file begins with runs already: blue the first version, green the second.
        for each, place in zip(written, places, strict=True):
            self._start(place, "assistant-v2.gguf" if each.get("color") == "green" else "assistant-v1.gguf")
        environment = {"STATE_DIRECTORY": str(self._folder / "state")}
        self.daemon = self._stack.enter_context(Daemon(file, self._folder, environment=environment))
        self._stack.enter_context(clients(self.daemon.port))

    def run(self, command: str) -> tuple[int, str]:
        """Run one command in bash, with the page's `ask`; return its exit status and what it printed."""
        assert self.daemon is not None
        program = shlex.join([sys.executable, "-m", "understudy"])
        functions = FUNCTIONS.format(program=program, admin=self.daemon.admin_url, ask=ASK)
        script = f"{functions}\n{command}".replace("http://127.0.0.1:8080", self.daemon.url).replace('"assistant"', '"tiny"')
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self._folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=COMMAND_TIMEOUT_S,
            env=os.environ | {"COLUMNS": "120"},
            check=False,
        )
        return done.returncode, done.stdout.decode()

    def _type(self, machine: str, command: str, shown: str) -> None:
        if command.startswith("llama-server "):
            model, port = _start_of(command)
            self._start(self._place(machine, port), model)
            return
        self.wait_up()
        want, output = compared(shown), ""
        if not command.startswith(("ask ", "understudy status", "docker compose exec understudy understudy status")):
            _, output = self.run(command)
            assert compared(output) == want, f"$ {command}\n{output}"
        else:
            # These change nothing, and may have to wait until something has happened by itself.
            until(lambda: compared(self.run(command)[1]) == want, f"$ {command}\n{shown}", timeout_s=SHOWN_TIMEOUT_S, every_s=0.3)

    def _place(self, machine: str, port: str) -> str:
        return f"{machine or '127.0.0.1'}:{port}"

    def _engine(self, place: str) -> LlamaServer:
        if place not in self.engines:
            self.engines[place] = LlamaServer(tiny_model(self._models_folder), place)
        return self.engines[place]

    def _start(self, place: str, model: str) -> None:
        """Start the engine that is to be at `place`, in place of the one that runs there, once that has nothing to do."""
        was = self._engine(place)
        self._wait_idle(was)
        was.kill()
        engine = LlamaServer(tiny_model(self._models_folder, layers=LAYERS[model]), place)
        engine.port, engine.url = was.port, was.url
        engine.start()
        self.engines[place] = engine

    def _wait_idle(self, engine: LlamaServer) -> None:
        daemon = self.daemon
        if daemon is not None:
            until(lambda: not any(each["in_flight"] for each in self._at(daemon, engine)), f"nothing in flight at {engine.name}")

    def _at(self, daemon: Daemon, engine: LlamaServer) -> list[dict[str, Any]]:
        return [each for each in daemon.status().values() if str(engine.port) in each["url"]]

    def wait_up(self) -> None:
        """Return once every backend on duty is up."""
        daemon = self.daemon
        assert daemon is not None
        until(
            lambda: all(each["condition"] == "up" or each["duty"] != "ready" for each in daemon.status().values()),
            "every backend on duty is up",
        )


def _start_of(command: str) -> tuple[str, str]:
    """Return the name of the model and the port of a command that starts an engine."""
    words = command.split()
    return Path(words[words.index("-m") + 1]).name, words[words.index("--port") + 1]


@contextmanager
def clients(port: int) -> Iterator[None]:
    """Ask on and on, each time as a new conversation; AssertionError at the end when one of them was not answered well."""
    over, failures = threading.Event(), list[str]()

    def ask_on(number: int) -> None:
        count = 0
        while not over.wait(0.01):
            count += 1
            asked = {"model": "tiny", "stream": True, "max_tokens": 20}
            body = json.dumps(asked | {"messages": [{"role": "user", "content": f"Good evening, I am guest {number}.{count}"}]})
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30.0)
            try:
                connection.request("POST", CHAT, body, {"Content-Type": "application/json"})
                reply = connection.getresponse()
                answer = reply.read()
                if reply.status != 200 or b"[DONE]" not in answer or b'"error"' in answer:
                    failures.append(f"{reply.status} {answer[-300:]!r}")
            except OSError as error:
                failures.append(repr(error))
            finally:
                connection.close()

    threads = [threading.Thread(target=ask_on, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(30.0)
    assert not failures, failures[:3]


@pytest.mark.parametrize(
    ("title", "tweaks"),
    [
        ("1. One machine", {}),
        ("2. Two machines", {}),
        ("3. With a compose", {}),
        ("4. The same weights", {}),
        ("5. A canary", {"every: 10m": "every: 2s"}),
        ("6. A pipeline", {}),
    ],
)
def test_a_recipe_does_what_the_page_shows(title: str, tweaks: dict[str, str], tmp_path: Path, models_folder: Path) -> None:
    with Recipe(title, tmp_path, models_folder, tweaks) as recipe:
        recipe.play()


def test_a_pipeline_begins_no_canary_where_green_is_worse(tmp_path: Path, models_folder: Path) -> None:
    with Recipe("6. A pipeline", tmp_path, models_folder, {}) as recipe:
        recipe.save(recipe.blocks[0][1])
        recipe.wait_up()
        asked = {"model": "tiny", "temperature": 0, "max_tokens": 10, "messages": [{"role": "user", "content": "Good evening"}]}
        known = ask(recipe.engines["127.0.0.1:8081"].port, CHAT, asked).json()["choices"][0]["message"]["content"]
        prompts = [{"prompt": "Good evening", "temperature": 0, "max_tokens": 10, "expect": {"equals": known}}]
        (tmp_path / "prompts.yaml").write_text(yaml.safe_dump(prompts, allow_unicode=True), encoding="utf-8")
        command = next(command for _, command, _ in commands(recipe.blocks[-1][1]) if "compare" in command)
        status, _ = recipe.run(command)
        assert status == 1
        assert "\ngreen is worse: " in (tmp_path / "compare.txt").read_text(encoding="utf-8")
        assert "<html" in (tmp_path / "compare.html").read_text(encoding="utf-8")
        assert "canary" not in recipe.run("understudy status")[1]
