"""Whether the token ids of a broken answer can be continued at a backend: its vocabulary reads them as what the client has.

Called by the recipes of engines whose prompts may be ids (vLLM, llama.cpp). Ids go on where text would be tokenised otherwise
than it was written (engines.md 3.3, re-tokenisation); another vocabulary or template is found out here, before
anything is generated.
"""

from collections.abc import Callable
from typing import Final

from understudy.engines.broken import Asking, Cut

# Read together with the ids, since tokenizers drop a space at the start of a text.
_PROMPT_IDS: Final = 8
# A character has four bytes at most, each of which may be a token.
_CUT_IDS_MAX: Final = 4
_REPLACEMENT: Final = "\ufffd"


def ids_to_continue(cut: Cut, read: Callable[[Cut, list[int]], Asking[str | None]]) -> Asking[tuple[list[int], str] | None]:
    """Return the answer's ids up to its last whole character, and the text among them that the client has not received.

    `read` asks what ids stand for. None when they do not stand for the text that the client has.
    """
    transcript = cut.broken.transcript
    before, ids = transcript.prompt_ids[-_PROMPT_IDS:], list(transcript.ids)
    head = yield from read(cut, before)
    if head is None:
        return None
    for _ in range(_CUT_IDS_MAX):
        whole = yield from read(cut, before + ids)
        if whole is None or not whole.startswith(head + cut.text):
            return None
        undelivered = whole[len(head) + len(cut.text) :]
        # A prompt that ends inside a character makes vLLM repeat the whole prompt, and llama.cpp begin with U+FFFD.
        if not undelivered.endswith(_REPLACEMENT):
            return ids, undelivered
        ids.pop()
    return None
