"""Find stop strings that begin in a text already delivered and end in what continues it: engines look at new text only.

Used by dialects.splice for the first characters after a seam. Stop strings that begin in the new text are the engine's to find.
"""


class SeamStops:
    """Looks at the text around one seam. `undelivered` is old text to the engine, though the client has not received it.

    `is_open` while new text may still complete a stop string. Once `found`, the stop string, is set, `rest` is what the client
    still gets before it: nothing but undelivered text.
    """

    __slots__ = ("_old", "_stops", "_tail_characters", "_text", "found", "is_open", "rest")

    def __init__(self, stops: tuple[str, ...], text: str, undelivered: str) -> None:
        most = max(map(len, stops), default=0) - 1
        tail = text[-most:] if most > 0 else ""
        self._stops = stops
        self._text = tail
        self._tail_characters = len(tail)
        # A stop string that begins before this index is not the engine's to find.
        self._old = len(tail) + len(undelivered)
        self.found = ""
        self.rest = ""
        self.is_open = bool(stops) and (bool(undelivered) or self._may_begin_anywhere())

    def add(self, text: str) -> None:
        """Take the next characters behind the delivered text, the undelivered ones first."""
        self._text += text
        hits = [(start + len(stop), start, stop) for stop in self._stops if (start := self._find(stop)) >= 0]
        if hits:
            _, start, self.found = min(hits)
            self.rest = self._text[self._tail_characters : start]
            self.is_open = False
            return
        self.is_open = self._may_begin_anywhere()

    def _find(self, stop: str) -> int:
        """Return where `stop` begins in the old text and ends in the new, -1 for nowhere."""
        # One that ends in the tail has been delivered: the engine was not to stop there.
        first = max(0, self._tail_characters - len(stop) + 1)
        return self._text.find(stop, first, self._old - 1 + len(stop))

    def _may_begin_anywhere(self) -> bool:
        return any(self._may_begin(start) for start in range(min(self._old, len(self._text))))

    def _may_begin(self, start: int) -> bool:
        ending = self._text[start:]
        return any(len(ending) < len(stop) and stop.startswith(ending) for stop in self._stops)
