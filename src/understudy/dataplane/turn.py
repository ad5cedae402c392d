"""One exchange's turn in a stored conversation: hold the session, put what is kept before the request, keep what was answered.

Made by dataplane.turns for a request with X-Session-ID. The rule of merging is core.conversation's, what a message looks like
the dialects', where it is kept sessions'. Decides nothing and sends nothing: the exchange goes on as any other once its body is
whole.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import msgspec

from understudy.core.conversation import Conversation, Given, Merged, Merging, Mode, merge
from understudy.core.message import Mark, Message, Speaker
from understudy.core.snapshot import Color, OnError, SessionRules
from understudy.core.trimming import Bounds, trim
from understudy.dataplane.withheld import WithheldOutlet
from understudy.dialects.answered import Answered, answer_of, joined, read_answer
from understudy.dialects.given import read_given, unkeepable, write_asked
from understudy.errors import FailureKind
from understudy.sessions.keeper import HeldSession
from understudy.sessions.store import Conflict, HeldElsewhere, Loss, StoreError

if TYPE_CHECKING:
    from understudy.dataplane.relayed import RelayedExchange
    from understudy.dataplane.turns import Turns

_T = TypeVar("_T")

# Requests and conversations from this size on are read and written in a thread, so that the loop goes on meanwhile.
THREAD_BYTES = 64 * 1024
# What a message is taken for where its text is not looked at.
MESSAGE_BYTES = 256
# A session that others change again and again is tried this often.
CONFLICTS_MAX = 5
# A store that could not be read when the answer began is asked once more at its end, for at most this long.
LATE_S_MAX = 1.0


class Words(msgspec.Struct, frozen=True):
    """What a request's head says of its session."""

    session: str
    mode: Mode = Mode.AUTO
    is_reset: bool = False
    on_error: OnError | None = None


class Turn:
    """`merging` is what became of the client's messages, None until they are merged; `loss` why the turn is not kept, if so.

    `is_ended`: the answer is over, and what is left to do is the turn's.
    """

    merging: Merging | None = None
    loss: Loss | None = None
    _held: HeldSession | None = None
    _merged: Merged | None = None
    _given: Given | None = None
    is_ended = False
    _is_unread = False

    def __init__(self, turns: "Turns", exchange: "RelayedExchange", words: Words) -> None:
        self._turns = turns
        self._exchange = exchange
        self._words = words
        self._rules: SessionRules = turns.rules
        self.outlet = exchange.outlet = WithheldOutlet(exchange.record, exchange.downstream.write)

    # --- before

    def begin(self) -> None:
        """Hold the session and read it, then let the exchange start."""
        self._turns.run(self._begin(), self._exchange)

    async def _begin(self) -> None:
        exchange, rules, words = self._exchange, self._rules, self._words
        path, body = exchange.ask.path, exchange.body
        is_unkeepable, given = await self._aside(len(body), lambda: (unkeepable(path, body), read_given(path, body)))
        if is_unkeepable:
            self.loss = Loss.NOT_KEPT
        if isinstance(given, str):
            if self.loss is None:
                self._refuse(FailureKind.CONVERSATION_UNREADABLE, given)
            else:
                self._start()
            return
        self._given = given
        if not given.messages:
            # Ollama loads or unloads a model that is asked nothing.
            self._start()
            return
        try:
            held = await self._turns.keeper.hold(words.session, rules.lock_wait_s)
        except HeldElsewhere:
            self._refuse(FailureKind.SESSION_HELD)
            return
        except StoreError as error:
            if (words.on_error or rules.on_error) is OnError.REFUSE:
                self._refuse(FailureKind.STORE_UNAVAILABLE)
                return
            self.loss = error.loss
            self._start()
            return
        if not exchange.is_running:
            await held.release()
            return
        self._held = held
        self.loss = self.loss or held.loss
        await self._merge(held.conversation or Conversation(), given)

    async def _merge(self, kept: Conversation, given: Given) -> None:
        exchange, words = self._exchange, self._words
        if words.is_reset:
            kept = Conversation(revision=kept.revision, begun_at_unix_s=self._turns.wall())
        size = len(exchange.body) + MESSAGE_BYTES * len(kept.messages)

        def written() -> tuple[Merged, bytes | str]:
            merged = merge(kept, given, words.mode)
            return merged, write_asked(exchange.ask.path, exchange.body, merged)

        merged, body = await self._aside(size, written)
        if not exchange.is_running:
            return
        if isinstance(body, str):
            self._refuse(FailureKind.CONVERSATION_UNWRITABLE, body)
            return
        self._merged, self.merging = merged, merged.merging
        exchange.record.merging = str(merged.merging)
        exchange.body = body
        ask = msgspec.structs.replace(exchange.ask, prefer=kept.backend, color=kept.color)
        exchange.ask = exchange.record.ask = exchange.exchange.ask = ask
        self._start()

    async def _aside(self, size: int, work: Callable[[], _T]) -> _T:
        """Work here, or in a thread where there is much to read."""
        if size < THREAD_BYTES:
            return work()
        return await asyncio.get_running_loop().run_in_executor(None, work)

    def _start(self) -> None:
        if self._exchange.is_running:
            self._exchange.start()

    def _refuse(self, kind: FailureKind, words: str = "") -> None:
        if self._exchange.is_running:
            self._exchange.own_words = words
            self._exchange.end_as(kind)

    def fields(self) -> bytes:
        """Return the field lines that say what became of the conversation, with CRLF."""
        merging = b"X-Understudy-Session: %b\r\n" % self.merging.encode() if self.merging else b""
        return merging + (b"X-Understudy-Session-Loss: %b\r\n" % self.loss.encode() if self.loss else b"")

    # --- after

    def end(self, then: Callable[[], None]) -> None:
        """The answer is complete: keep the turn, write the end of the answer, then do the rest."""
        self.is_ended = True
        streamed = self._read_streamed() if self.outlet.kind is not None else None
        self._turns.run(self._end(streamed, then), self._exchange)

    async def _end(self, streamed: Answered | None, then: Callable[[], None]) -> None:
        exchange, kept = self._exchange, None
        try:
            answered = streamed if self.outlet.kind is not None else await self._read_whole()
            if answered is None and self._is_asked:
                self._note_unread(Loss.UNREADABLE)
            kept = await self._keep(answered, Mark.WHOLE)
        except Exception as error:  # noqa: BLE001  # our own mistake costs the turn, not the answer
            self._turns.on_mistake(error, exchange)
            self.loss = Loss.FAILED
            self._turns.on_lost(exchange, self.loss)
        if exchange.is_running:
            comment = b": understudy session not kept: %b\n\n" % self.loss.encode() if self.loss else b""
            self.outlet.release(comment)
            then()
        elif kept is not None:
            # The client has left while its answer was kept.
            await self._mark_abandoned(kept)

    def on_over(self) -> None:
        """The exchange has ended, however: keep what the client has of a broken answer, and let the session go."""
        if self.is_ended:
            return
        self.is_ended = True
        answered = self._read_streamed() if self._exchange.is_committed and self.outlet.kind is not None else None
        mark = Mark.ABANDONED if self._exchange.record.failure in _LEFT else Mark.TORN
        self._turns.run(self._let_go(answered, mark), self._exchange)

    async def _let_go(self, answered: Answered | None, mark: Mark) -> None:
        if answered is not None:
            await self._keep(answered, mark)
        elif self._held is not None:
            await self._held.release()

    @property
    def _is_raw(self) -> bool:
        given = self._given
        return given is not None and given.is_text and given.messages[0].is_raw

    @property
    def _is_asked(self) -> bool:
        """Whether there is a question that may have been answered."""
        return self._given is not None and bool(self._given.messages) and self._exchange.record.status < 300

    async def _read_whole(self) -> Answered | None:
        """Read an answer that is no stream."""
        path, whole, is_raw = self._exchange.ask.path, self.outlet.whole, self._is_asked and self._is_raw
        return await self._aside(len(whole), lambda: read_answer(path, whole, is_raw=is_raw)) if self._is_asked else None

    def _read_streamed(self) -> Answered | None:
        """Read what the client has received of a stream; where that cannot be read the turn is lost."""
        resumer = self._exchange.resumer
        if not self._is_asked or resumer is None or resumer.received.shape is None:
            return None
        received = resumer.received
        transcript = received.transcript()
        if transcript is None or transcript.has_gap:
            self._note_unread(Loss.TOO_LARGE if received.is_too_long else Loss.UNREADABLE)
            return None
        return answer_of(resumer.received.shape, transcript, is_raw=self._is_raw)

    def _note_unread(self, loss: Loss) -> None:
        self.loss = self.loss or loss
        self._is_unread = True

    async def _keep(self, answered: Answered | None, mark: Mark) -> Conversation | None:
        """Write the conversation with the answer and let the session go; return what was written, None where nothing was."""
        try:
            if answered is None or self.loss is Loss.NOT_KEPT:
                return None
            held = await self._hold_late()
            return await self._write(held, answered, mark)
        except (StoreError, HeldElsewhere) as error:
            self.loss = error.loss if isinstance(error, StoreError) else Loss.RACED
            return None
        finally:
            if self._held is not None:
                await self._held.release()
            if self.loss is not None and (answered is not None or self._is_unread):
                self._turns.on_lost(self._exchange, self.loss)

    async def _hold_late(self) -> HeldSession:
        """Return the session, held now where the store could not be read before."""
        if self._held is None:
            self._held = await self._turns.keeper.hold(self._words.session, LATE_S_MAX)
        return self._held

    async def _write(self, held: HeldSession, answered: Answered, mark: Mark) -> Conversation:
        current = held.conversation
        asked = self._merged.asked if self._merged is not None else self._asked_late(current)
        for _ in range(CONFLICTS_MAX):
            size, revision = MESSAGE_BYTES * len(asked.messages), current.revision if current else 0
            facts = self._facts_of(asked, answered)
            conversation = await self._aside(size, partial(self._with_answer, facts, answered, mark, revision))
            try:
                await held.keep(conversation)
            except Conflict as conflict:
                current = conflict.current
                asked = self._asked_late(current)
                continue
            # An expectation of a loss that did not come true.
            self.loss = None
            return conversation
        raise StoreError(Loss.RACED)

    def _asked_late(self, current: Conversation | None) -> Conversation:
        """Return what was asked as it stands in a conversation that is not the one it was asked in."""
        before, given = current or Conversation(), self._given or Given()
        if self._merged is None:
            return merge(Conversation() if self._words.is_reset else before, given, self._words.mode).asked
        # Whoever has written meanwhile keeps what they wrote.
        system = given.system or before.system
        return msgspec.structs.replace(before, system=system, messages=(*before.messages, *self._merged.new))

    def _facts_of(self, asked: Conversation, answered: Answered) -> Conversation:
        """Return what was asked with the facts of this turn."""
        exchange = self._exchange
        return msgspec.structs.replace(
            asked,
            model=exchange.ask.model,
            backend=exchange.record.backend,
            color=asked.color or self._color_of(exchange.record.backend),
            prompt_tokens=answered.prompt_tokens,
            completion_tokens=answered.completion_tokens,
        )

    def _with_answer(self, asked: Conversation, answered: Answered, mark: Mark, revision: int) -> Conversation:
        """Return the conversation as it is to be kept. Raises StoreError where this turn alone is too large."""
        now_unix_s = self._turns.wall()
        total = answered.prompt_tokens + answered.completion_tokens
        cost = max(0, total - sum(message.tokens for message in asked.messages)) if total else 0
        answer = msgspec.structs.replace(answered.message, mark=mark, tokens=cost)
        messages = asked.messages
        if messages[-1].speaker is Speaker.ASSISTANT:
            # The client had begun the answer itself.
            messages, answer = messages[:-1], joined(messages[-1], answer, is_streamed=self.outlet.kind is not None)
        rules = self._rules
        bounds = Bounds(rules.messages_max, rules.bytes_max, rules.tokens_max)
        trimmed = trim(msgspec.structs.replace(asked, messages=(*messages, answer)), bounds)
        if trimmed is None:
            raise StoreError(Loss.TOO_LARGE)
        return msgspec.structs.replace(
            trimmed,
            revision=revision + 1,
            messages=tuple(_dated(message, now_unix_s) for message in trimmed.messages),
            begun_at_unix_s=asked.begun_at_unix_s or now_unix_s,
            changed_at_unix_s=now_unix_s,
        )

    def _color_of(self, name: str) -> str:
        """Return the color of the backend that answered, "" where it has none."""
        targets = self._exchange.relay.published.current.targets
        color = next((target.backend.color for target in targets if target.backend.name == name), Color.NONE)
        return "" if color is Color.NONE else str(color)

    async def _mark_abandoned(self, kept: Conversation) -> None:
        held = await self._turns.keeper.hold(self._words.session, LATE_S_MAX)
        try:
            current = held.conversation
            if current is not None and current.revision == kept.revision and current.messages:
                last = msgspec.structs.replace(current.messages[-1], mark=Mark.ABANDONED)
                messages = (*current.messages[:-1], last)
                await held.keep(msgspec.structs.replace(current, revision=current.revision + 1, messages=messages))
        except (StoreError, Conflict):
            pass  # somebody has gone on with it: then it was received
        finally:
            await held.release()


_LEFT = frozenset({FailureKind.CLIENT_GONE, FailureKind.CLIENT_SLOW})


def _dated(message: Message, now_unix_s: float) -> Message:
    return message if message.at_unix_s else msgspec.structs.replace(message, at_unix_s=now_unix_s)
