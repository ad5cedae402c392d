"""Keep recent answers for exact repeats of their requests: by a digest of the request, bounded in bytes and in age.

Owned by the relay, filled and asked by dataplane.caching. Pure: `now_s` is an argument. Does not know whether an answer may be
given again (dialects.repeatable), nor when it is (dataplane.caching); never keeps a request or a key, only their digest.
"""

from collections import OrderedDict
from hashlib import blake2b

import msgspec

from understudy.core.snapshot import CacheRules

DIGEST_BYTES = 20
# What one answer costs besides its bytes: the objects and two places in ordered dicts; 350 bytes were measured (CPython 3.11).
ANSWER_OVERHEAD_BYTES = 512
# A single answer takes at most this part of the memory, so that a long one does not push all the others out.
ANSWER_PART = 8
# What may be held besides, of answers that are still coming in.
RECORDED_PART = 4


class CachedAnswer(msgspec.Struct, frozen=True):
    """One whole answer with status 200, as a client got it.

    `lines` are the field lines of its head, each with CRLF, without framing and without ours; `body` has no chunk framing.
    `is_event_stream`: the body is server-sent events. `backend` made it; `made_at_s` is when it was complete.
    """

    lines: bytes
    body: bytes
    is_event_stream: bool
    backend: str
    made_at_s: float

    @property
    def cost_bytes(self) -> int:
        """How much memory it takes, its key and its place included."""
        return len(self.lines) + len(self.body) + DIGEST_BYTES + ANSWER_OVERHEAD_BYTES


def digest_of(*parts: bytes) -> bytes:
    """Return the key of a request that consists of these parts. Where one ends and the next begins counts, too."""
    digest = blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return digest.digest()


class AnswerCache:
    """Answers by the digest of their request.

    `rules` are those in force; `kept_bytes` counts what is kept, overhead included; `epoch` how often all was forgotten. When
    there is no room the least recently used falls out; what is older than `rules.ttl_s` is never given and goes with the next
    call.
    """

    def __init__(self, rules: CacheRules) -> None:
        self.rules = rules
        self.kept_bytes = 0
        self.epoch = 0
        self._recorded_bytes = 0
        self._by_age: OrderedDict[bytes, CachedAnswer] = OrderedDict()
        # The same keys, the least recently used first.
        self._by_use: OrderedDict[bytes, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_age)

    @property
    def is_on(self) -> bool:
        """Whether any answer is kept."""
        return self.rules.size_bytes > 0

    @property
    def answer_bytes_max(self) -> int:
        """The most memory that one answer may take."""
        return self.rules.size_bytes // ANSWER_PART

    def get(self, key: bytes, now_s: float) -> CachedAnswer | None:
        """Return the answer to the request of this digest, None where there is none that is young enough."""
        self._drop_old(now_s)
        answer = self._by_age.get(key)
        if answer is not None:
            self._by_use.move_to_end(key)
        return answer

    def put(self, key: bytes, answer: CachedAnswer, now_s: float) -> None:
        """Keep a new answer in place of an older one to the same request; one that is too large is not kept."""
        self._drop_old(now_s)
        if answer.cost_bytes > self.answer_bytes_max:
            return
        self._drop(key)
        self._by_age[key] = answer
        self._by_use[key] = None
        self.kept_bytes += answer.cost_bytes
        self._make_room()

    def apply(self, rules: CacheRules, now_s: float) -> None:
        """Take other rules; what they have no room for falls out."""
        self.rules = rules
        self._drop_old(now_s)
        for key in [key for key, answer in self._by_age.items() if answer.cost_bytes > self.answer_bytes_max]:
            self._drop(key)
        self._make_room()

    def clear(self) -> None:
        """Forget every answer: what a request asks for is another thing now. What is still coming in is of an earlier epoch."""
        self.epoch += 1
        self._by_age.clear()
        self._by_use.clear()
        self.kept_bytes = 0

    # --- answers that are still coming in

    def reserve(self, size: int) -> bool:
        """Take room for so many bytes of an answer that is coming in; False when all such answers together have no more."""
        if self._recorded_bytes + size > self.rules.size_bytes // RECORDED_PART:
            return False
        self._recorded_bytes += size
        return True

    def release(self, size: int) -> None:
        """Give back what was reserved."""
        self._recorded_bytes -= size

    def _drop_old(self, now_s: float) -> None:
        while self._by_age:
            key, answer = next(iter(self._by_age.items()))
            if now_s - answer.made_at_s < self.rules.ttl_s:
                return
            self._drop(key)

    def _make_room(self) -> None:
        while self.kept_bytes > self.rules.size_bytes:
            self._drop(next(iter(self._by_use)))

    def _drop(self, key: bytes) -> None:
        answer = self._by_age.pop(key, None)
        if answer is not None:
            del self._by_use[key]
            self.kept_bytes -= answer.cost_bytes
