"""What a client may send next in a session, chosen by chance: new messages, the history in many forms, another one, texts.

Called by support.session_play with what is kept and what the client has heard. Texts come from a small vocabulary, so that equal
messages occur. Pure but for the dice it is given.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from support.session_cast import ANSWERS, Setting
from support.session_model import GAP, Asked, Call, Kept, Said, text_of
from support.session_pen import TOOLS, Pen
from support.session_wire import CHAT, GENERATE, MESSAGES, OLLAMA, TEXT, read_request

QUESTIONS = ("why?", "and then?", "my name is Ada", "tell me\nmore", "\u00e4\u00f6 \U0001f600", " and then?", "no")
RULES = ("Be brief.", "Speak French.\nOr not.", "Be kind.")
RESULTS = ("done", "42", "")
# How often each form of a request comes.
FORMS = {
    "new": 30,
    "whole": 14,
    "window": 10,
    "again": 8,
    "edited": 5,
    "back": 5,
    "elsewhere": 3,
    "begun": 4,
    "foreign": 3,
    "chain": 2,
    "many": 2,
}
MODES = {"": 84, "append": 5, "replace": 5, "reset": 4, "off": 2}


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `told` says how it was made; `is_off`: it has nothing to do with its session."""

    session: str
    path: str
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)
    told: str = ""
    mode: str = ""

    @property
    def is_streamed(self) -> bool:
        """Whether a stream is asked for."""
        return bool(self.body["stream"])

    @property
    def is_off(self) -> bool:
        """Whether it has nothing to do with its session."""
        return self.mode == "off"

    @property
    def asked(self) -> Asked:
        """What it says, as the model reads it."""
        mode = self.mode if self.mode in ("append", "replace") else ""
        return read_request(self.path, self.body, mode=mode, is_reset=self.mode == "reset")


class Client:
    """Somebody who speaks in one session. `manner`: tools (chats with tools), mixed (chats and texts), texts."""

    def __init__(self, session: str, manner: str, dice: Random, setting: Setting) -> None:
        self.session = session
        self._manner = manner
        self._dice = dice
        self._setting = setting
        self._pen = Pen(dice)

    def request(
        self, kept: Kept, *, streamed: bool | None = None, mode: str | None = None, form: str = "", tools: bool = True
    ) -> Request:
        """Make the next request; what is not said is chosen. Without `tools` it offers none."""
        mode = self._drawn(MODES) if mode is None else mode
        paths = [TEXT, GENERATE] if self._setting.engine == "ollama" else [TEXT]
        if self._manner == "texts" or (self._manner == "mixed" and self._is(0.3)):
            path = self._dice.choice(paths)
            told, body = self._text(path, kept, form)
        else:
            told, path, body = self._chat(kept, form or self._drawn(FORMS))
            if tools and self._manner == "tools" and path != MESSAGES and self._is(0.5):
                body["tools"] = TOOLS
        streamed = self._is(0.5) if streamed is None else streamed
        body = {"model": "tiny", **body, "stream": streamed}
        headers = {"X-Session-ID": self.session.encode().decode("latin-1")}
        headers |= {"X-Session-Reset": "1"} if mode == "reset" else {}
        headers |= {"X-Session-Mode": mode} if mode in ("append", "replace", "off") else {}
        if mode == "off" and self._is(0.3):
            headers = {}
        return Request(self.session, path, body, headers, f"{told} {mode}".strip(), mode)

    def _is(self, share: float) -> bool:
        return self._dice.random() < share

    def _drawn(self, weights: dict[str, int]) -> str:
        return self._dice.choices([*weights], [*weights.values()])[0]

    # --- chats

    def _chat(self, kept: Kept, form: str) -> tuple[str, str, dict[str, Any]]:
        history = self._pen.history(kept.told, keeps_ids=self._is(0.7))
        form = form if history or form in ("foreign", "chain", "many") else "new"
        messages = self._messages(form, history)
        system = [Said("system", self._dice.choice(RULES)) for _ in range(self._dice.choice([1, 1, 2]))] if self._is(0.2) else []
        path = self._dice.choice(self._paths(messages))
        body = self._pen.chat(path, system, messages)
        return form, path, body

    def _paths(self, messages: Sequence[Said]) -> list[str]:
        """Return the paths that can carry these messages."""
        lacks_ids = any(not call.id for said in messages for call in said.calls)
        lacks_ids |= any(said.speaker == "tool" and not said.answers for said in messages)
        if lacks_ids and self._setting.engine == "ollama":
            return [OLLAMA]
        paths = [CHAT, OLLAMA] if self._setting.engine == "ollama" else [CHAT]
        return paths if any(said.speaker == "system" for said in messages) else [*paths, MESSAGES]

    def _messages(self, form: str, history: list[Said]) -> list[Said]:
        """Return what is sent; `history` is all that the client has heard, as it copies it."""
        forms: dict[str, Callable[[list[Said]], list[Said]]] = {
            "new": self._new,
            "whole": lambda told: told + self._new(told),
            "window": lambda told: told[-self._dice.randint(1, min(6, len(told))) :] + self._new(told),
            "again": self._last_question,
            "edited": lambda told: self._edited(told) + self._new(told),
            "back": self._back,
            "elsewhere": lambda told: told + self._foreign(),
            "foreign": lambda _: self._foreign(),
            "begun": self._begun,
            "chain": lambda told: told + self._chain(),
            "many": lambda _: [self._question() for _ in range(self._dice.randint(3, 9))],
        }
        return forms[form](history)

    def _back(self, history: list[Said]) -> list[Said]:
        """Go back to an earlier question, or to another one in its place."""
        starts = [at for at, said in enumerate(history) if said.speaker == "user"] or [0]
        cut = self._dice.choice(starts)
        return history[: cut + 1] if self._is(0.5) else [*history[:cut], self._question()]

    def _foreign(self) -> list[Said]:
        """Go on from a turn that the daemon has not seen."""
        told = self._dice.choice(ANSWERS)
        if self._manner == "tools" and self._is(0.5):
            return [self._question(), *self._exchange(), *([Said("assistant", told), *self._new(())] if self._is(0.7) else [])]
        return [self._question(), Said("assistant", told), *self._new(())]

    def _chain(self) -> list[Said]:
        """Go on with one turn in which tools are called again and again."""
        if self._manner != "tools":
            return self._foreign()
        return [self._question(), *(said for _ in range(self._dice.randint(1, 3)) for said in self._exchange())]

    def _exchange(self) -> list[Said]:
        """Call two tools at once; their results come in any order, or one does not. An Ollama's client may tell no ids."""
        has_ids = self._setting.engine != "ollama" or self._is(0.7)
        calls = [Call(name, '{"at": "sea"}', f"call-{at}" if has_ids else "") for at, name in enumerate(("look", "listen"))]
        results = [Said("tool", self._dice.choice(RESULTS), answers=call.id, tool=call.name) for call in calls]
        answered = self._dice.sample(results, self._dice.choice([1, 2, 2]))
        return [Said("assistant", self._dice.choice(["", "wait"]), tuple(calls)), *answered]

    def _begun(self, history: list[Said]) -> list[Said]:
        """End with an answer: the last one, or one that the client begins."""
        if self._is(0.4):
            return history
        return [*history, *self._new(()), Said("assistant", self._dice.choice(["Well,", "no"]))]

    def _question(self) -> Said:
        return Said("user", self._dice.choice(QUESTIONS))

    def _new(self, history: Sequence[Said]) -> list[Said]:
        """Say something new: results of the calls that were made last, mostly, else one or two questions."""
        calls = history[-1].calls if history else ()
        questions = [self._question() for _ in range(self._dice.choice([1, 1, 1, 2]))]
        if calls and self._is(0.75):
            results = [Said("tool", self._dice.choice(RESULTS), answers=call.id, tool=call.name) for call in calls]
            return results + (questions if self._is(0.2) else [])
        if self._manner == "tools" and self._is(0.03):
            return [Said("tool", "nobody has asked", answers="call-of-nobody", tool="look"), *questions]
        if self._manner == "tools" and self._is(0.05):
            return [*questions, Said("system", self._dice.choice(RULES))]
        return questions

    def _last_question(self, history: Sequence[Said]) -> list[Said]:
        end = len(history) - 1
        start = end
        while start and history[start - 1].speaker != "assistant":
            start -= 1
        return list(history[start:end]) or self._new(())

    def _edited(self, history: Sequence[Said]) -> list[Said]:
        place = self._dice.randrange(len(history))
        edited = replace(history[place], text=f"{history[place].text} (edited)")
        return [*history[:place], edited, *history[place + 1 :]]

    # --- texts

    def _text(self, path: str, kept: Kept, form: str) -> tuple[str, dict[str, Any]]:
        """Write a prompt: a new text, the whole one with or without more, or the last one again."""
        is_raw = path == TEXT or self._is(0.4)
        form = form or self._dice.choice(["new", "new", "whole", "again", "context"])
        prompt = self._dice.choice(QUESTIONS)
        if form == "whole" and kept.messages:
            first = kept.system if is_raw and self._is(0.5) else ()
            more = self._dice.choice([prompt, GAP + prompt, ""])
            prompt = text_of((*first, *kept.messages)) + more
        if form == "again" and len(kept.messages) > 1:
            prompt = kept.messages[-2].text or prompt
        body: dict[str, Any] = {"prompt": prompt}
        if path == TEXT:
            return form, {**body, "max_tokens": 400}
        if is_raw:
            return form, {**body, "raw": True}
        if self._is(0.15):
            body["system"] = self._dice.choice(RULES)
        if form == "context":
            body["context"] = [1, 2, 3]
        return form, body
