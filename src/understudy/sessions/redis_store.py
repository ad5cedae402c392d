"""Keep conversations in Redis: one key per session, one round trip to hold and read it, one to keep it and let it go.

Implements sessions.store for daemon; other daemons may use the same Redis. What keeps them off a held session is a lock that runs
out by itself when its holder dies; what makes sure that no message is lost, though a lock was, is the revision, which Redis
compares as it writes (sessions.redis_scripts). Never decides what becomes of an exchange whose store fails.

Keys: PREFIX{NAME}:s is a session, PREFIX{NAME}:l its lock, PREFIX{NAME}:corrupt what could not be read. The braces make a Cluster
keep them on one server; NAME is a digest of the session's id.
"""

import asyncio
import re
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from understudy.core.conversation import Conversation
from understudy.core.trimming import size_bytes
from understudy.sessions.record import Codec, Reason, Unreadable
from understudy.sessions.redis_address import Kind, RedisAddress
from understudy.sessions.redis_scripts import (
    EXTEND,
    HELD,
    HELD_ELSEWHERE,
    HOLD,
    KEEP,
    NOT_WRITABLE,
    RELEASE,
    SET_ASIDE,
    Command,
    Script,
    loss_of_reply,
)
from understudy.sessions.store import Conflict, HeldElsewhere, Loss, Page, StoreError, Summary, Swept

if TYPE_CHECKING:
    from understudy.sessions.redis_link import Link

# How long a hold that waits for another daemon's sleeps before it looks again.
POLL_S_MIN: Final = 0.02
POLL_S_MAX: Final = 0.2
# Locks that are extended in one go.
_EXTENDED_MAX: Final = 256
# Most keys that a page looks at in one go, and how often it asks before it ends with what it has.
_SCAN_KEYS: Final = 1000
_SCANS_MAX: Final = 16
_SWEEP_KEYS: Final = 200
_SWEEP_PAUSE_S: Final = 0.01
_MS_MAX: Final = 10**15
# What is written and read in a thread, so that the loop goes on meanwhile: 64 KiB take 0.2 ms.
THREAD_BYTES: Final = 64 * 1024
MESSAGES_MAX: Final = 500


class RedisStore:
    """Conversations in the Redis at `address`.

    `ttl_s` may be changed at any time. Each question is bounded by about twice `timeout_s`. A lock whose holder has died lasts
    `lease_s`. `report` is given the events that operators must know.
    """

    def __init__(
        self,
        address: RedisAddress,
        codec: Codec,
        *,
        ttl_s: float,
        timeout_s: float,
        prefix: str,
        report: Callable[[str, dict[str, object]], None],
        lease_s: float = 10.0,
    ) -> None:
        self.ttl_s = ttl_s
        self.lease_s = lease_s
        self.address = address
        self.codec = codec
        self._timeout_s = timeout_s
        self._prefix = prefix
        self._report = report
        self._link: Link | None = None
        self._is_closed = False
        # Half of our own bound: Redis looks at its clock ten times a second, and its answer must be in time.
        wait = ("WAIT", address.replicas, ms(timeout_s / 2))
        self.wait_for_replicas: tuple[Command, ...] = (wait,) if address.replicas else ()
        # Who we are among the stores of this Redis, and the number of the last hold: together they are a lock's token.
        self._id = secrets.token_hex(8)
        self._number = 0
        # How many holds of a session begin or last here, by its name; and those whose lock is extended, by their token.
        self._claims: Counter[str] = Counter()
        self._locked: dict[str, RedisHold] = {}
        self._extending: asyncio.Task[None] | None = None

    # --- life

    async def open(self) -> None:
        """Get ready; Redis need not be there yet. Raises StoreError where the package is missing or a TLS file is unusable."""
        self.link()

    async def close(self) -> None:
        """Let go of all connections. Locks that are held run out by themselves."""
        if self._extending is not None:
            self._extending.cancel()
            with suppress(asyncio.CancelledError):
                await self._extending
        self._is_closed = True
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    def link(self) -> "Link":
        """Return the way to Redis, made at the first call."""
        if self._is_closed:
            raise StoreError(Loss.UNAVAILABLE, "the store is closed")
        if self._link is None:
            try:
                from understudy.sessions.redis_link import Link
            except ImportError as error:
                raise StoreError(Loss.REFUSED, "redis is not installed: pip install 'understudy[redis]'") from error
            self._link = Link(self.address, self._timeout_s)
        return self._link

    # --- one session

    async def hold(self, session: str, wait_s: float) -> "RedisHold":
        """Hold the session and read it in one round trip; see `SessionStore.hold`.

        Where Redis can be read but not written, the hold tells so by its `loss` and keeps nobody off.
        """
        name = self.codec.name(session)
        self._claims[name] += 1
        try:
            return await self._hold(session, name, wait_s)
        except BaseException:
            self.unclaim(name)
            raise

    async def _hold(self, session: str, name: str, wait_s: float) -> "RedisHold":
        self._number += 1
        number = self._number
        keys = (self.key(name, "s"), self.key(name, "l"))
        clock = asyncio.get_running_loop().time
        until_s, pause_s = clock() + wait_s, POLL_S_MIN
        while True:
            # What an earlier hold of ours has left is ours to take; not so what another one has now.
            takes_over = self._claims[name] == 1
            arguments = (self._id, number, ms(self.lease_s), int(takes_over))
            (reply,) = await self.link().run(HOLD, keys, arguments)
            if reply[0] == NOT_WRITABLE and self.address.kind is Kind.SENTINEL:
                # The master of yesterday; the Sentinels know today's.
                (reply,) = await self.link().run(HOLD, keys, arguments, is_fresh=True)
            if reply[0] != HELD_ELSEWHERE:
                return await self._held(session, name, f"{self._id}.{number}", reply)
            left_s = until_s - clock()
            if left_s <= 0:
                raise HeldElsewhere
            await asyncio.sleep(min(pause_s, left_s))
            pause_s = min(POLL_S_MAX, pause_s * 1.5)

    async def _held(self, session: str, name: str, token: str, reply: list[Any]) -> "RedisHold":
        state, error, *record = reply
        hold = RedisHold(self, session, name, token)
        if state == NOT_WRITABLE:
            text = error.decode(errors="replace")
            hold.loss = loss_of_reply(text)
            if hold.loss not in (Loss.FULL, Loss.READ_ONLY):
                raise StoreError(hold.loss, text)
        try:
            hold.conversation = await self.decoded(name, record)
        except Unreadable as unreadable:
            if hold.loss is None:
                hold.loss = Loss.UNREADABLE
                try:
                    await self._set_aside(name, str(unreadable))
                except StoreError:
                    await self.unlock(name, token)
                    raise
        if state == HELD:
            hold.is_locked = True
            self._locked[token] = hold
            if self._extending is None or self._extending.done():
                self._extending = asyncio.get_running_loop().create_task(self._extend(), name="sessions.redis.extend")
        return hold

    async def read(self, session: str) -> tuple[Summary, Conversation] | None:
        """Read a session without holding it. Raises StoreError, UNREADABLE where it cannot be decoded."""
        name = self.codec.name(session)
        key = self.key(name, "s")
        record = await self._ask(("HMGET", key, "r", "h", "b"), key=key)
        try:
            conversation = await self.decoded(name, record)
            return None if conversation is None else (self.codec.read_header(record[1], name), conversation)
        except Unreadable as unreadable:
            raise StoreError(Loss.UNREADABLE, str(unreadable)) from unreadable

    async def delete(self, session: str) -> bool:
        """Remove a session, held or not, and what was set aside of it. Who holds it meets a `Conflict` with nothing."""
        name = self.codec.name(session)
        key, aside = self.key(name, "s"), self.key(name, "corrupt")
        is_gone = bool(await self._ask(("UNLINK", key), key=key))
        await self._ask(("UNLINK", aside), key=aside)
        return is_gone

    # --- all sessions

    async def page(self, cursor: str, count: int) -> Page:
        """List sessions; a cursor is the server's place in the list of servers and Redis' own cursor. Others end the listing."""
        link, nodes = self.link(), await self.link().nodes()
        found = re.fullmatch(r"([0-9]{1,4})\.([0-9]{1,20})", cursor or "0.0")
        index, at = (int(found[1]), int(found[2])) if found else (len(nodes), 0)
        summaries: dict[bytes, Summary] = {}
        keys_max = count
        for _ in range(_SCANS_MAX):
            if index >= len(nodes) or len(summaries) >= count:
                break
            at, keys = await self._scan(nodes[index], at, "s", keys_max)
            headers = await link.ask([("HGET", key, "h") for key in keys], node=nodes[index]) if keys else []
            for key, header in zip(keys, headers, strict=True):
                with suppress(Unreadable):
                    if isinstance(header, bytes):
                        summaries[key] = self.codec.read_header(header, key[-67:-3].decode(errors="replace"))
            # Where other programs' keys are many, ours are sought with longer steps.
            keys_max = max(1, count - len(summaries)) if keys else min(_SCAN_KEYS, 2 * keys_max)
            index += at == 0
        return Page(tuple(summaries.values()), f"{index}.{at}" if index < len(nodes) else "")

    async def sweep(self) -> Swept:
        """Count sessions, their bytes and what was set aside; Redis itself removes what has expired."""
        link = self.link()
        sessions = size_bytes = set_aside = 0
        for node in await link.nodes():
            at, is_begun = 0, False
            while at or not is_begun:
                at, keys = await self._scan(node, at, "[sc]*", _SWEEP_KEYS)
                kept = [key for key in keys if key.endswith(b":s")]
                set_aside += len(keys) - len(kept)
                lengths = await link.ask([("HSTRLEN", key, field) for key in kept for field in "hb"], node=node) if kept else []
                sessions += len(kept)
                size_bytes += sum(length for length in lengths if isinstance(length, int))
                is_begun = True
                await asyncio.sleep(_SWEEP_PAUSE_S)
        return Swept(sessions, size_bytes, expired=0, set_aside=set_aside)

    async def _scan(self, node: Any, at: int, kind: str, count: int) -> tuple[int, list[bytes]]:
        """Return the next cursor and some keys of ours, each once."""
        pattern = re.sub(r"([*?\[\]\\])", r"\\\1", self._prefix) + "{*}:" + kind
        reply = await self._ask(("SCAN", at, "MATCH", pattern, "COUNT", count), node=node)
        return int(reply[0]), list(dict.fromkeys(reply[1]))

    # --- what holds use, too

    def key(self, name: str, kind: str) -> str:
        """Return a session's key: `s` the session, `l` its lock, `corrupt` what was set aside."""
        return f"{self._prefix}{{{name}}}:{kind}"

    def conversation(self, name: str, record: list[Any]) -> Conversation | None:
        """Read revision, header and body as Redis has them; None where there is nothing. Raises Unreadable."""
        revision, header, body = record
        if revision is None and header is None and body is None:
            return None
        conversation = self.codec.decode(header or b"", body or b"", name)
        if revision != b"%d" % conversation.revision:
            # What Redis compares must be what the record says, or no keep would ever fit.
            raise Unreadable(Reason.CORRUPTED)
        return conversation

    async def decoded(self, name: str, record: list[Any]) -> Conversation | None:
        """The same, in a thread where it takes long."""
        if len(record[2] or b"") < THREAD_BYTES:
            return self.conversation(name, record)
        return await asyncio.get_running_loop().run_in_executor(None, self.conversation, name, record)

    async def run(self, script: Script, keys: tuple[str, ...], arguments: Command, then: Sequence[Command] = ()) -> list[Any]:
        """Run a script; see `Link.run`."""
        return await self.link().run(script, keys, arguments, then=then)

    async def unlock(self, name: str, token: str) -> None:
        """Let go of a lock that is still held, at once where Redis answers, else when its lease ends. Raises nothing."""
        self.let_go(token)
        with suppress(StoreError):
            await self.run(RELEASE, (self.key(name, "l"),), (token,))

    def let_go(self, token: str) -> None:
        """Extend a lock no more."""
        self._locked.pop(token, None)

    def unclaim(self, name: str) -> None:
        """A hold of the session has ended here, or has come to nothing."""
        self._claims[name] -= 1
        if not self._claims[name]:
            del self._claims[name]

    async def _ask(self, command: Command, *, key: str = "", node: Any = None) -> Any:
        (reply,) = await self.link().ask([command], key=key, node=node)
        if isinstance(reply, Exception):
            from understudy.sessions.redis_link import store_error

            raise store_error(reply) from reply
        return reply

    async def _set_aside(self, name: str, reason: str) -> None:
        await self.run(SET_ASIDE, (self.key(name, "s"), self.key(name, "corrupt")), (ms(self.ttl_s),))
        self._report("session.set_aside", {"file": name[:12], "reason": reason})

    async def _extend(self) -> None:
        """Extend the locks of all holds, a few times within each lease, as long as there are any: an answer may take minutes."""
        while self._locked:
            await asyncio.sleep(self.lease_s / 3)
            locked = list(self._locked.values())
            for first in range(0, len(locked), _EXTENDED_MAX):
                some = locked[first : first + _EXTENDED_MAX]
                # As text, since this is no place to find out that a server has yet to learn the script.
                commands = [("EVAL", EXTEND.text, 1, self.key(one.name, "l"), one.token, ms(self.lease_s)) for one in some]
                try:
                    replies = await self.link().ask(commands)
                except StoreError:
                    continue  # the next round may be in time; if not, the revision guards the session
                for one, reply in zip(some, replies, strict=True):
                    if reply == 0:
                        self.let_go(one.token)


class RedisHold:
    """One session, held in Redis; see `store.Hold`."""

    def __init__(self, store: RedisStore, session: str, name: str, token: str) -> None:
        self.conversation: Conversation | None = None
        self.loss: Loss | None = None
        self.name = name
        self.token = token
        self._store = store
        self._session = session
        self._keys = (store.key(name, "s"), store.key(name, "l"))
        # Whether others are kept off; not where the lock could not be written.
        self.is_locked = False
        # Writes so far, and of those the first one of a revision whose outcome we do not know.
        self._writes = 0
        self._unsure: tuple[int, int] | None = None

    async def keep(self, conversation: Conversation, *, is_last: bool = True) -> None:
        """Write the conversation, and with `is_last` let go of the lock, in one round trip; see `store.Hold.keep`.

        A write whose answer was lost counts as ours when it is asked for again, not as a conflict. Raises Conflict, StoreError;
        UNAVAILABLE, too, where the master has it but too few replicas.
        """
        store, revision = self._store, conversation.revision
        encode = partial(store.codec.encode, self._session, conversation)
        is_long = len(conversation.messages) > MESSAGES_MAX or sum(map(size_bytes, conversation.messages)) > THREAD_BYTES
        header, body = await asyncio.get_running_loop().run_in_executor(None, encode) if is_long else encode()
        self._writes += 1
        if self._unsure is None or self._unsure[0] != revision:
            self._unsure = (revision, self._writes)
        arguments = (
            *(revision - 1, revision, header, body, ms(store.ttl_s)),
            *(self.token, self._writes, self._unsure[1], int(is_last)),
        )
        reply, *replicas = await store.run(KEEP, self._keys, arguments, then=store.wait_for_replicas)
        if isinstance(reply, list):
            self._unsure = None
            try:
                current = await store.decoded(self.name, reply)
            except Unreadable as unreadable:
                raise StoreError(Loss.UNREADABLE, str(unreadable)) from unreadable
            raise Conflict(current)
        if is_last:
            self.is_locked = False
            store.let_go(self.token)
        if replicas and (isinstance(replicas[0], Exception) or replicas[0] < store.address.replicas):
            store.link().doubt()
            raise StoreError(Loss.UNAVAILABLE, f"the master has it, but not {store.address.replicas} of its replicas")
        self._unsure = None

    async def release(self) -> None:
        """Let go of the lock, unless the last `keep` has."""
        is_locked, self.is_locked = self.is_locked, False
        self._store.unclaim(self.name)
        if is_locked:
            await self._store.unlock(self.name, self.token)


def ms(seconds: float) -> int:
    """Return milliseconds, as Redis counts: at least one, and not more than it can add to its clock."""
    return min(_MS_MAX, max(1, round(seconds * 1000)))
