"""The demo's client: asks the one address as any client does, reads the answer as it comes, and notes where it was broken.

Used by demo.show only. Knows of the daemon what the public and the admin port tell: the headers, the stream with the comment
that marks a seam, and /api/status.
"""

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from understudy.demo.children import DemoError, wait_for

ANSWER_TIMEOUT_S = 10.0
# dialects.splice writes it into the stream before the first words of the next backend.
SEAM = re.compile(r": understudy resumed on (\S+) after (\d+) characters")


@dataclass(frozen=True, slots=True)
class Seam:
    """Where `backend` went on with an answer: after so many characters, and after so many seconds without a word."""

    backend: str
    after_characters: int
    silence_s: float


@dataclass(frozen=True, slots=True)
class Told:
    """One answer as the client got it: who began it after how many attempts, how long it took, and who went on with it."""

    text: str
    backend: str
    attempts: int
    first_words_s: float
    all_words_s: float
    seams: tuple[Seam, ...] = ()


@dataclass(slots=True)
class Reading:
    """What has come of one OpenAI chat stream, read line by line; times are seconds of one clock."""

    started_at_s: float
    pieces: int = 0
    text: str = ""
    is_finished: bool = False
    first_words_at_s: float = 0.0
    last_words_at_s: float = 0.0
    seams: list[Seam] = field(default_factory=list)
    # The daemon's mark, until the words after it come.
    mark: tuple[str, int] | None = None
    heads: set[tuple[Any, ...]] = field(default_factory=set)

    def read(self, line: str, now_s: float) -> None:
        """Take in one line. Raises DemoError when the answer broke off, or a seam is not where the daemon says."""
        if seam := SEAM.fullmatch(line):
            self._mark(seam[1], int(seam[2]))
        elif line.startswith("data: {"):
            self._read_event(json.loads(line.removeprefix("data: ")), now_s)
        elif line == "data: [DONE]":
            self.is_finished = True

    def _mark(self, backend: str, after_characters: int) -> None:
        if after_characters != len(self.text):
            raise DemoError(f"a seam after {after_characters} characters was told where the client has {len(self.text)}")
        self.mark = (backend, after_characters)

    def _read_event(self, event: dict[str, Any], now_s: float) -> None:
        if "error" in event:
            raise DemoError(f"the answer broke off: {event['error'].get('message')}")
        self.heads.add(tuple(event.get(key) for key in ("id", "created", "model")))
        if len(self.heads) > 1:
            raise DemoError("the answer became another one half-way: its id, time or model changed")
        piece = "".join(str(choice["delta"].get("content") or "") for choice in event["choices"])
        if not piece:
            return
        if self.mark:
            self.seams.append(Seam(*self.mark, silence_s=now_s - (self.last_words_at_s or self.started_at_s)))
            self.mark = None
        self.first_words_at_s = self.first_words_at_s or now_s
        self.last_words_at_s = now_s
        self.pieces += 1
        self.text += piece


class Client:
    """What any client does: asks the one address, and reads the answer as it comes."""

    def __init__(self, port: int, admin_port: int) -> None:
        # Proxy settings of the environment are meant for the internet, not for this machine.
        self._http = httpx.Client(trust_env=False, timeout=ANSWER_TIMEOUT_S)
        self._url = f"http://127.0.0.1:{port}"
        self._admin_url = f"http://127.0.0.1:{admin_port}"

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def ask(self, question: str, on_words: Callable[[int], None] | None = None) -> Told:
        """Ask in a streamed chat; `on_words` is called with the number of pieces so far as they come.

        Raises DemoError when no whole answer comes.
        """
        body = {"model": "demo", "messages": [{"role": "user", "content": question}], "stream": True}
        reading = Reading(time.monotonic())
        try:
            with self._http.stream("POST", f"{self._url}/v1/chat/completions", json=body) as response:
                if response.status_code != 200:
                    raise DemoError(f"the daemon answered {response.status_code}: {response.read().decode()}")
                for line in response.iter_lines():
                    pieces = reading.pieces
                    reading.read(line, time.monotonic())
                    if on_words and reading.pieces > pieces:
                        on_words(reading.pieces)
        except httpx.HTTPError as error:
            raise DemoError(f"the daemon gave no answer: {error}") from error
        if not reading.is_finished:
            raise DemoError("the answer broke off")
        return Told(
            reading.text,
            response.headers.get("X-Understudy-Backend", "?"),
            int(response.headers.get("X-Understudy-Attempts", "0")),
            reading.first_words_at_s - reading.started_at_s,
            reading.last_words_at_s - reading.started_at_s,
            tuple(reading.seams),
        )

    def backends(self) -> list[dict[str, Any]]:
        """Return the backends as the admin port shows them. Raises DemoError."""
        try:
            backends: list[dict[str, Any]] = self._http.get(f"{self._admin_url}/api/status").json()["backends"]
        except (httpx.HTTPError, ValueError) as error:
            raise DemoError(f"the admin port gave no answer: {error}") from error
        return backends

    def wait_condition(self, name: str, condition: str) -> float:
        """Return how many seconds it took until backend `name` was in `condition`. Raises DemoError after some seconds."""
        started_at_s = time.monotonic()

        def look() -> bool | None:
            return any(b["name"] == name and b["condition"] == condition for b in self.backends()) or None

        wait_for(look, f"{name} becoming {condition}")
        return time.monotonic() - started_at_s
