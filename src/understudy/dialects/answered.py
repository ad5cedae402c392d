"""Read an answer as the message that a session keeps: of a stream what its client received, of a whole answer its body.

Called by dataplane.turn when an answer has ended. How it ended the caller knows: the message's mark is whole here, its tokens and
its time are not set. A whole answer is read as the request will be that sends it back (dialects.messages_*). Decides nothing.
"""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from understudy.core.message import Message, Part, Speaker, TextPart, spoken
from understudy.core.transcript import Shape, Transcript
from understudy.dialects import messages_anthropic, messages_ollama, messages_openai
from understudy.dialects.calls import read_call
from understudy.dialects.pieces import BROKEN_FINISHES, counts_of
from understudy.dialects.raw_json import read_value
from understudy.dialects.wish import shape_of

_TEXT_SHAPES = (Shape.OPENAI_TEXT, Shape.OLLAMA_TEXT)
# With these nothing was said: the engine threw it away, or has only loaded or unloaded its model (Ollama).
_NO_ANSWERS = BROKEN_FINISHES | {"load", "unload"}
# The largest count that every reader of JSON keeps as it is.
_COUNT_MAX = 2**53
_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)


class Answered(msgspec.Struct, frozen=True):
    """One answer. Tokens are 0 and `finish`, the finish reason in the dialect's own words, is "" where no engine told."""

    message: Message
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish: str = ""


class _Choice(msgspec.Struct, gc=False):
    index: int | None = None
    message: Any = None
    text: Any = None
    finish_reason: Any = None


class _Body(msgspec.Struct, gc=False):
    """A whole answer of any shape. What is not named here (logprobs, context) is passed over."""

    choices: list[_Choice] | None = None
    usage: Any = None
    message: Any = None
    response: Any = None
    thinking: Any = None
    content: Any = None
    stop_reason: Any = None
    done: Any = None
    done_reason: Any = None
    prompt_eval_count: Any = None
    eval_count: Any = None
    type: Any = None
    object: Any = None
    error: Any = None


_DECODE = msgspec.json.Decoder(_Body).decode


def answer_of(shape: Shape, transcript: Transcript, *, is_raw: bool = False) -> Answered | None:
    """Return what a client has received of a streamed answer; None where it can have seen nothing, not even a finish.

    None, too, where there are several choices, whose texts a transcript does not keep apart. Calls that the end of a torn answer
    has cut are left out, those of a finished one are as the model made them. An unreadable transcript is read as far as it is
    known: whether that will do `Transcript.has_gap` tells. `is_raw` counts for the text shapes alone.
    """
    if transcript.choices > 1:
        return None
    finish = transcript.finish
    is_over = bool(finish) and finish not in BROKEN_FINISHES
    calls = tuple(call for draft in transcript.calls if (call := read_call(draft, is_over=is_over)) is not None)
    message = spoken(
        Speaker.ASSISTANT,
        transcript.text,
        reasoning=transcript.reasoning,
        calls=calls,
        is_raw=is_raw and shape in _TEXT_SHAPES,
    )
    return _answered(message, _counts(transcript), finish)


def read_answer(path: str, body: bytes, *, is_raw: bool = False) -> Answered | None:
    """Read the body of a whole answer to a POST to `path`, of several choices the first.

    None for an error, for what cannot be read, and where neither anything is said nor why. Several lines of NDJSON are a
    stream. Raises nothing.
    """
    shape = shape_of(path)
    said = _read_body(body) if shape is not None else None
    if shape is None or said is None or said.error or "error" in (said.object, said.type):
        return None
    return _READERS[shape](said, is_raw)


def joined(prefill: Message, answer: Message, *, is_streamed: bool = False) -> Message:
    """Return a client's last message, the assistant's, and the answer that went on from it as one message.

    Texts are joined as they stand. Whole answers of llama.cpp begin with the prefill (observed, b11549), which is then not said
    twice. Streams and other engines leave it out, so that a stream that begins alike repeats it on the model's own account.
    """
    before, thought = prefill.parts, prefill.reasoning
    if not is_streamed:
        if answer.text.startswith(prefill.text):
            before = tuple(part for part in before if not isinstance(part, TextPart))
        if answer.reasoning.startswith(thought):
            thought = ""
    return msgspec.structs.replace(
        answer,
        parts=tuple(_merged(before + answer.parts)),
        reasoning=thought + answer.reasoning,
        calls=prefill.calls + answer.calls,
        name=answer.name or prefill.name,
    )


def _merged(parts: tuple[Part, ...]) -> Iterator[Part]:
    """Yield `parts` with neighbouring texts as one."""
    text = ""
    for part in parts:
        if isinstance(part, TextPart):
            text += part.text
            continue
        if text:
            yield TextPart(text)
            text = ""
        yield part
    if text:
        yield TextPart(text)


def _counts(transcript: Transcript) -> tuple[int | None, int | None]:
    """Return the tokens of prompt and answer: of the usage, else as timings or token ids tell them."""
    prompt, completion = counts_of(transcript.usage)
    if prompt is None and completion is None and transcript.timed is not None:
        return transcript.timed
    return (
        len(transcript.prompt_ids) if prompt is None else prompt,
        transcript.tokens if completion is None else completion,
    )


def _answered(message: Message | None, counts: tuple[int | None, int | None], finish: Any) -> Answered | None:
    """Return the answer; None where its message says nothing, unless that is how it finished."""
    why = _text(finish)
    is_said = message is not None and (message.parts or message.reasoning or message.calls)
    if message is None or not (is_said or (why and why not in _NO_ANSWERS)):
        return None
    prompt, completion = (min(max(count or 0, 0), _COUNT_MAX) for count in counts)
    return Answered(message, prompt, completion, why)


# --- whole answers


def _read_body(body: bytes) -> _Body | None:
    try:
        return _DECODE(body)
    except _UNREADABLE:
        pass  # NaN, half a surrogate pair, or no JSON at all
    try:
        return msgspec.convert(read_value(body), _Body)
    except _UNREADABLE:
        return None


def _read_chat(said: _Body, _: bool) -> Answered | None:
    choice = _first_choice(said)
    return _answered(_sent_back(messages_openai.read_messages, choice.message), _usage(said), choice.finish_reason)


def _read_completion(said: _Body, is_raw: bool) -> Answered | None:
    choice = _first_choice(said)
    return _answered(spoken(Speaker.ASSISTANT, _text(choice.text), is_raw=is_raw), _usage(said), choice.finish_reason)


def _read_chat_line(said: _Body, is_raw: bool) -> Answered | None:
    if said.choices:
        # llama.cpp answers /api/chat as if it were /v1/chat/completions.
        return _read_chat(said, is_raw)
    return _answered(_sent_back(messages_ollama.read_messages, said.message), _counters(said), _done_reason(said))


def _read_text_line(said: _Body, is_raw: bool) -> Answered | None:
    message = spoken(Speaker.ASSISTANT, _text(said.response), reasoning=_text(said.thinking), is_raw=is_raw)
    return _answered(message, _counters(said), _done_reason(said))


def _read_message(said: _Body, _: bool) -> Answered | None:
    message = _sent_back(messages_anthropic.read_messages, {"content": said.content})
    return _answered(message, _usage(said), said.stop_reason)


_READERS: Mapping[Shape, Callable[[_Body, bool], Answered | None]] = MappingProxyType(
    {
        Shape.OPENAI_CHAT: _read_chat,
        Shape.OPENAI_TEXT: _read_completion,
        Shape.OLLAMA_CHAT: _read_chat_line,
        Shape.OLLAMA_TEXT: _read_text_line,
        Shape.ANTHROPIC: _read_message,
    }
)


def _sent_back(read: Callable[[list[Any]], tuple[Message, ...] | str], value: Any) -> Message | None:
    """Read a message as that of a request; None where a client could not send it back."""
    found = read([{**value, "role": "assistant"}]) if isinstance(value, dict) else ()
    return found[0] if found and not isinstance(found, str) else None


def _first_choice(said: _Body) -> _Choice:
    """Return the choice with index 0, be it told or not."""
    return next((choice for choice in said.choices or () if not choice.index), _Choice())


def _usage(said: _Body) -> tuple[int | None, int | None]:
    return counts_of(said.usage if isinstance(said.usage, dict) else None)


def _counters(said: _Body) -> tuple[int | None, int | None]:
    return counts_of({"prompt_eval_count": said.prompt_eval_count, "eval_count": said.eval_count})


def _done_reason(said: _Body) -> Any:
    return said.done_reason or ("stop" if said.done else "")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
