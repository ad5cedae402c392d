"""Gather the tool calls of a streamed answer from their pieces, whichever engine wrote them, and tell which are whole.

Called by dialects.fold and dialects.answered. Never tells whether a call makes sense: the tools are their client's. Engines'
varieties are written down as plays in tests/unit/dialects/test_calls.py.
"""

from collections.abc import Iterable
from typing import Any

from understudy.core.message import Call
from understudy.core.transcript import CallDraft
from understudy.dialects.events import read_json
from understudy.dialects.message_parts import read_arguments
from understudy.dialects.raw_json import write

# More calls in one answer are none that a client works off; those behind them are dropped.
CALLS_MAX = 256


def add_calls(drafts: list[CallDraft], items: Iterable[Any]) -> None:
    """Add the items of one OpenAI delta's or Ollama line's `tool_calls`. What is no call adds nothing; raises nothing.

    Arguments as an object are those of a whole call, always a new one (Ollama). Else an item belongs to the call with its index,
    or, where it has no index, with its id; one without index, id and name to the last call. It begins a new call where there is
    none, or where it has a name and another id: Ollama's /v1 gave all calls index 0 for a while.
    """
    for item in items:
        if not isinstance(item, dict):
            continue
        function, place = item.get("function"), item.get("index")
        if not isinstance(function, dict):
            function = {}
        arguments = function.get("arguments")
        found = CallDraft(place if isinstance(place, int) else -1, _text(function.get("name")), _text(item.get("id")))
        if isinstance(arguments, dict):
            draft, piece = None, (write(arguments) or b"").decode()
        else:
            draft, piece = _draft_of(drafts, found), _text(arguments)
        if draft is not None:
            _complete(draft, found)
        elif len(drafts) < CALLS_MAX and (found.name or found.id or piece):
            draft = found
            drafts.append(draft)
        if draft is not None and piece:
            draft.pieces.append(piece)


def _draft_of(drafts: list[CallDraft], found: CallDraft) -> CallDraft | None:
    """Return the draft that an item goes on with; None where it begins a call."""
    if found.place >= 0:
        draft = next((each for each in reversed(drafts) if each.place == found.place), None)
        if draft is not None and found.name and draft.id and not found.id.startswith(draft.id) and found.id:
            return None
    else:
        draft = next((each for each in reversed(drafts) if found.id and each.id == found.id), None)
    if draft is None and drafts and not (found.name or found.id):
        return drafts[-1]
    return draft


def _complete(draft: CallDraft, found: CallDraft) -> None:
    """Take over what the pieces before lacked.

    vLLM repeated the name with each piece of a forced call, llama.cpp may tell name and id again once they have grown, SGLang has
    null for both from the second piece on, and of ids that an engine makes up for each piece the first counts.
    """
    draft.name = found.name or draft.name
    if found.id.startswith(draft.id):
        draft.id = found.id


def begin_block(drafts: list[CallDraft], place: int, block: dict[str, Any]) -> None:
    """Add the call that begins with Anthropic's content block at `place`.

    A server's own tool calls (server_tool_use) are none that a client answers. An input that is {} or missing, as llama.cpp has
    it (observed, b11549), is told by the deltas that follow.
    """
    if block.get("type") == "tool_use" and len(drafts) < CALLS_MAX:
        given = block.get("input")
        written = write(given) if given and isinstance(given, dict) else None
        drafts.append(CallDraft(place, _text(block.get("name")), _text(block.get("id")), (written or b"").decode()))


def add_to_block(drafts: list[CallDraft], place: int, delta: dict[str, Any]) -> None:
    """Add a delta of the content block at `place`; those of a call's input alone say something here."""
    piece = delta.get("partial_json")
    if piece and isinstance(piece, str):
        draft = next((each for each in reversed(drafts) if each.place == place), None)
        if draft is not None:
            draft.pieces.append(piece)


def read_call(draft: CallDraft, *, is_over: bool) -> Call | None:
    """Return the call, or None where it has no name or may lack some of its arguments. `is_over`: no further piece will come.

    Arguments that read as an object are whole, since no beginning of one does. Where the answer is over they are what the model
    has said, whatever it is, and none at all an empty object: so reads what the client sends back.
    """
    arguments = draft.arguments
    if not draft.name or not (is_over or isinstance(read_json(arguments.encode()), dict)):
        return None
    return Call(draft.name, read_arguments(arguments), draft.id)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
