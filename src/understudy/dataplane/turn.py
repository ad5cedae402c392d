"""One exchange's turn in a stored conversation: hold the session, put what is kept before the request, keep what was answered.

Made by dataplane.turns for a request with X-Session-ID. The rule of merging is core.conversation's, what a message looks like
the dialects', where it is kept sessions'. Decides nothing and sends nothing: the exchange goes on as any other once its body is
whole.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import msgspec

from understudy.core.color import Color
from understudy.core.conversation import (
    Conversation,
    Given,
    Merged,
    Merging,
    Mode,
    after_race,
    conclude,
    dated,
    holds,
    merge,
)
from understudy.core.message import Message, Speaker, Wholeness
from understudy.core.snapshot import EngineKind, OnError, SessionRules, Target
from understudy.core.trimming import Bounds, size_bytes, trim
from understudy.dataplane.received import Received
from understudy.dataplane.withheld import WithheldOutlet
from understudy.dialects.answered import Answered, answer_of, joined, read_answer
from understudy.dialects.given import read_given, unkeepable, write_asked
from understudy.dialects.pieces import BROKEN_FINISHES
from understudy.errors import FailureKind
from understudy.sessions.keeper import HeldSession
from understudy.sessions.store import Conflict, HeldElsewhere, Loss, StoreError

if TYPE_CHECKING:
    from understudy.dataplane.relayed import RelayedExchange
    from understudy.dataplane.turns import Turns

_T = TypeVar("_T")

# Requests and conversations from this size on are read and written in a thread, so that the loop goes on meanwhile.
THREAD_BYTES = 64 * 1024
# So many messages are much to read, whatever they say.
MESSAGES_MAX = 500
# A session that others change again and again is tried this often.
CONFLICTS_MAX = 5
# A store that could not be read when the answer began is asked once more at its end; others who have the session are then waited
# for this long.
LATE_S_MAX = 1.0


class SessionWords(msgspec.Struct, frozen=True):
    """What a request's head says of its session."""

    session: str
    mode: Mode = Mode.AUTO
    is_reset: bool = False
    on_error: OnError | None = None


class Turn:
    """One exchange's turn. `merging` is what became of the client's messages, None until they are merged.

    `loss` is why the turn is not kept, if so; `foreseen` why it will most likely not be, or why what was kept could not be read.
    `is_ended`: the answer is over, and what is left to do is the turn's.
    """

    merging: Merging | None = None
    loss: Loss | None = None
    foreseen: Loss | None = None
    _beginning: asyncio.Task[None] | None = None
    _held: HeldSession | None = None
    _merged: Merged | None = None
    _given: Given | None = None
    _is_recolored = False
    is_ended = False

    def __init__(self, turns: "Turns", exchange: "RelayedExchange", words: SessionWords) -> None:
        self._turns = turns
        self._exchange = exchange
        self._words = words
        self._rules: SessionRules = turns.rules
        self.outlet = exchange.outlet = WithheldOutlet(exchange.record, exchange.downstream.write)

    # --- before

    def begin(self) -> None:
        """Hold the session and read it, then let the exchange start."""
        self._beginning = self._turns.run(self._begin(), self._exchange)

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
            # Ollama loads or unloads a model that is asked nothing; what follows from rules alone is no turn either, and told so.
            self.loss = Loss.NOT_KEPT if given.system else None
            self._start()
            return
        if self._turns.is_crowded():
            self._refuse(FailureKind.SESSION_HELD)
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
            self.foreseen = error.loss
            self._start()
            return
        self._held = held
        self.foreseen = held.loss
        await self._merge(held.conversation or Conversation(), given)

    async def _merge(self, kept: Conversation, given: Given) -> None:
        exchange, words = self._exchange, self._words
        if words.is_reset:
            kept = Conversation(revision=kept.revision, begun_at_unix_s=self._turns.wall())
        size = len(exchange.body) + _size_of(kept.messages)

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
        color = self._color_of(kept)
        ask = msgspec.structs.replace(exchange.ask, prefer=kept.backend, color=color)
        exchange.ask = exchange.record.ask = exchange.exchange.ask = ask
        self._start()

    def _color_of(self, kept: Conversation) -> str:
        """Return the color that this turn is to have: the session's own, or, where it has none to stay on, a new one's."""
        exchange = self._exchange
        coloring, colored = exchange.relay.coloring, exchange.colored
        if coloring is None or colored is None:
            return ""
        own = coloring.of_kept(colored, kept)
        self._is_recolored = own is Color.NONE and not colored.is_asked_for
        return str(colored.color if own is Color.NONE else own)

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
        loss = self.loss or self.foreseen
        merging = b"X-Understudy-Session: %b\r\n" % self.merging.encode() if self.merging else b""
        return merging + (b"X-Understudy-Session-Loss: %b\r\n" % loss.encode() if loss else b"")

    # --- after

    def end(self, then: Callable[[], None]) -> None:
        """The answer is complete: keep the turn, write the end of the answer, then do the rest."""
        self.is_ended = True
        self._turns.run(self._end(self._received(), then), self._exchange)

    async def _end(self, received: Received | None, then: Callable[[], None]) -> None:
        exchange, kept = self._exchange, None
        try:
            kept = await self._settle(received, Wholeness.WHOLE)
        finally:
            # Whatever became of the turn, the answer is the client's.
            if exchange.is_running:
                self.outlet.release(b": understudy session not kept: %b\n\n" % self.loss.encode() if self.loss else b"")
                then()
        if kept is not None and not self.outlet.is_released:
            # The client has left while its answer was kept.
            await self._mark_abandoned(kept)

    def on_over(self) -> None:
        """The exchange has ended, however: keep what the client has of a broken answer, and let the session go."""
        if self.is_ended:
            return
        self.is_ended = True
        if self._held is None and self._beginning is not None:
            # Nobody is left to wait for the session; once an attempt has begun this task is over.
            self._beginning.cancel()
        exchange = self._exchange
        received = self._received() if exchange.is_committed and self.outlet.kind is not None else None
        mark = Wholeness.ABANDONED if exchange.record.failure in _LEFT else Wholeness.TORN
        self._turns.run(self._settle(received, mark, is_streamed=True), exchange)

    def _received(self) -> Received | None:
        resumer = self._exchange.resumer
        return resumer.received if resumer is not None else None

    async def _settle(self, received: Received | None, mark: Wholeness, *, is_streamed: bool = False) -> Conversation | None:
        """Keep the answer, let the session go and tell what is lost; return what was kept, None where nothing was."""
        answered = None
        try:
            answered = await self._read(received, is_streamed=is_streamed or self.outlet.kind is not None)
            return await self._keep(answered, mark) if answered is not None else None
        except (StoreError, HeldElsewhere) as error:
            self.loss = error.loss if isinstance(error, StoreError) else Loss.RACED
        except Exception as error:  # noqa: BLE001  # our own mistake costs the turn, not the answer
            self._turns.on_mistake(error, self._exchange)
            self.loss = Loss.FAILED
        except asyncio.CancelledError:
            self.loss = Loss.SLOW
            raise
        finally:
            if self._held is not None:
                await self._held.release()
            if self.loss is not None and self._exchange.record.status < 300:
                self._turns.on_lost(self._exchange, self.loss)
        return None

    async def _read(self, received: Received | None, *, is_streamed: bool) -> Answered | None:
        """Read what the client has received; None where that is no answer, or one that cannot be kept (then a loss)."""
        given, path = self._given, self._exchange.ask.path
        if self.loss is not None or given is None or not given.messages or self._exchange.record.status >= 300:
            return None
        is_raw = given.is_text and given.messages[0].is_raw
        if not is_streamed:
            whole = self.outlet.whole
            answered = await self._aside(len(whole), lambda: read_answer(path, whole, is_raw=is_raw))
            self.loss = Loss.UNREADABLE if answered is None else None
            return answered
        if received is None or received.shape is None:
            return None
        transcript = received.transcript()
        if transcript is None or transcript.has_gap:
            self.loss = Loss.TOO_LARGE if received.is_too_long else Loss.UNREADABLE
            return None
        return answer_of(received.shape, transcript, is_raw=is_raw)

    async def _keep(self, answered: Answered, mark: Wholeness) -> Conversation:
        """Write the conversation with the answer and return it. Raises StoreError and HeldElsewhere."""
        held = await self._hold_late()
        current, given = held.conversation, self._given or Given()
        before = current or Conversation()
        if self._merged is None:
            self._merged = merge(Conversation() if self._words.is_reset else before, given, self._words.mode)
        asked = self._merged.asked
        if answered.finish in BROKEN_FINISHES and mark is Wholeness.WHOLE:
            mark = Wholeness.TORN
        for _ in range(CONFLICTS_MAX):
            conclusion = partial(self._conclude, self._facts_of(asked, answered), answered, mark, before.revision)
            conversation = await self._aside(_size_of(asked.messages), conclusion)
            try:
                await held.keep(conversation)
            except Conflict as conflict:
                before = conflict.current or Conversation()
                if holds(before, conversation, len(self._merged.new) + 1):
                    # The answer to an earlier try was lost, and others have gone on since.
                    return conversation
                asked = after_race(before, given, self._merged)
                continue
            if self.foreseen is not Loss.UNREADABLE:
                # What was foreseen has not come true; what could not be read is gone all the same.
                self.foreseen = None
            return conversation
        raise StoreError(Loss.RACED)

    async def _hold_late(self) -> HeldSession:
        """Return the session, held now where the store could not be read before."""
        if self._held is None:
            self._held = await self._turns.keeper.hold(self._words.session, LATE_S_MAX)
        return self._held

    def _facts_of(self, asked: Conversation, answered: Answered) -> Conversation:
        """Return what was asked with the facts of this turn."""
        exchange = self._exchange
        # Who gave the end of the answer has all of it in its cache.
        backend = (exchange.record.backend, *exchange.record.resumed_on)[-1]
        color, colored_at_unix_s = asked.color, asked.colored_at_unix_s
        if not color or self._is_recolored:
            colored = exchange.colored
            color, colored_at_unix_s = exchange.record.color, colored.at_unix_s if colored is not None else 0.0
        return msgspec.structs.replace(
            asked,
            model=exchange.ask.model,
            backend=backend,
            color=color,
            colored_at_unix_s=colored_at_unix_s if color else 0.0,
            prompt_tokens=answered.prompt_tokens,
            completion_tokens=answered.completion_tokens,
        )

    def _conclude(self, asked: Conversation, answered: Answered, mark: Wholeness, revision: int) -> Conversation:
        """Return the conversation as it is to be kept. Raises StoreError where this turn alone is too large."""
        rules, now_unix_s = self._rules, self._turns.wall()
        answer = msgspec.structs.replace(answered.message, mark=mark)
        if asked.messages and asked.messages[-1].speaker is Speaker.ASSISTANT:
            # The client had begun the answer itself.
            # Only whole answers of llama.cpp repeat what was begun.
            is_repeated = self.outlet.kind is None and self._engine_of(asked.backend) is EngineKind.LLAMACPP
            answer = joined(asked.messages[-1], answer, is_streamed=not is_repeated)
            asked = msgspec.structs.replace(asked, messages=asked.messages[:-1])
        whole = conclude(asked, answer, revision + 1, now_unix_s)
        trimmed = trim(whole, Bounds(rules.messages_max, rules.bytes_max, rules.tokens_max))
        if trimmed is None:
            raise StoreError(Loss.TOO_LARGE)
        return dated(trimmed, now_unix_s)

    def _engine_of(self, name: str) -> EngineKind:
        return next((one.state.engine for one in self._targets() if one.backend.name == name), EngineKind.AUTO)

    def _targets(self) -> tuple[Target, ...]:
        return self._exchange.relay.published.current.targets

    async def _mark_abandoned(self, kept: Conversation) -> None:
        held = await self._turns.keeper.hold(self._words.session, LATE_S_MAX)
        try:
            current = held.conversation
            if current is not None and current.revision == kept.revision and current.messages:
                last = msgspec.structs.replace(current.messages[-1], mark=Wholeness.ABANDONED)
                messages = (*current.messages[:-1], last)
                await held.keep(msgspec.structs.replace(current, revision=current.revision + 1, messages=messages))
        except (StoreError, Conflict):
            pass  # somebody has gone on with it: then it was received
        finally:
            await held.release()


_LEFT = frozenset({FailureKind.CLIENT_GONE, FailureKind.CLIENT_SLOW})


def _size_of(messages: Sequence[Message]) -> int:
    """Return about how many bytes there are to go through, cheaply."""
    if len(messages) > MESSAGES_MAX:
        return THREAD_BYTES
    return sum(map(size_bytes, messages))
