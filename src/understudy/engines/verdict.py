"""What the engines' probes have in common: the first rungs, and turning an answer that is no success into a `Finding`.

Called by the probes of this room only. Knows no engine by name.
"""

from typing import Final

import msgspec

from understudy.core.ask import DialectName
from understudy.core.health import Seen
from understudy.core.snapshot import EngineKind
from understudy.engines.answers import classify, read_error
from understudy.engines.contract import Asking, Finding, ProbeAnswer, ProbeRequest
from understudy.engines.listing import Listed, read_openai_list
from understudy.errors import FailureKind

# A reason stands in one line of `understudy status`.
REASON_CHARACTERS_MAX: Final = 120

# Statuses with which a server says that it has no such path (or not for GET): it is alive, and this question was the wrong one.
ABSENT: Final = frozenset({404, 405, 501})

# Which path tells whether an engine speaks Anthropic: it takes POST only, so a GET answers 405 where it exists and 404 where it
# does not (FastAPI in vLLM and SGLang; gin with HandleMethodNotAllowed in Ollama). Nothing is generated.
MESSAGES_PATH: Final = "/v1/messages"


class _Fields(msgspec.Struct):
    version: object = None
    build_info: object = None
    models_autoload: object = None


_FIELDS: Final = msgspec.json.Decoder(_Fields)


def judge(engine: EngineKind, answer: ProbeAnswer | None, known: Finding | None = None) -> ProbeAnswer | Finding:
    """Judge an answer that the probe depends on: the answer itself when it is a success, else the finding that ends the probe.

    No answer and every error is BAD; a model that loads is LOADING; a busy engine is GOOD with what was `known`, for a probe
    must not take out a backend that works at its limit.
    """
    if answer is None:
        return Finding(Seen.BAD, engine)
    status = answer.status
    if 200 <= status < 300:
        return answer
    if status in {401, 403}:
        return Finding(Seen.BAD, engine, reason=f"answered {status}: it refuses the key; set or correct api_key", wants_key=True)
    if 300 <= status < 400:
        return Finding(Seen.BAD, engine, reason=f"answered {status}: a redirect is not followed; correct the url")
    kind = classify(engine, status=status, retry_after=answer.headers.get("retry-after", ""), body=answer.body)
    if kind is FailureKind.BUSY:
        return known if known is not None else Finding(Seen.GOOD, engine, dialects=(DialectName.OPENAI,))
    seen = Seen.LOADING if kind is FailureKind.LOADING else Seen.BAD
    return Finding(seen, engine, reason=answered(answer))


def answered(answer: ProbeAnswer) -> str:
    """Put an error answer into one short line, such as `answered 503: Loading model`."""
    error = read_error(answer.body)
    # Markup is an error page of something in front of the engine, and tells less than its status.
    words = error.message or error.detail
    line = "" if words.lstrip().startswith("<") else " ".join(words.split())
    printable = "".join(character for character in line if character.isprintable())
    return f"answered {answer.status}: {printable}"[:REASON_CHARACTERS_MAX].rstrip(": ")


def ask_list(engine: EngineKind, known: Finding | None) -> Asking[tuple[Listed, ...] | Finding]:
    """Ask for /v1/models; returns what it lists, or the finding that ends the probe."""
    answer = judge(engine, (yield ProbeRequest("/v1/models")), known)
    if isinstance(answer, Finding):
        return answer
    listed = read_openai_list(answer.body)
    return unlike(engine, "/v1/models", listed) if isinstance(listed, str) else listed


def ask_alive_and_list(engine: EngineKind, path: str, known: Finding | None) -> Asking[tuple[Listed, ...] | Finding]:
    """Ask whether the engine is alive at `path`, then for its list; returns as `ask_list`.

    Where that path is missing (an older version, a router in front of the engine) the list alone decides.
    """
    alive = yield ProbeRequest(path)
    if alive is None or alive.status not in ABSENT:
        verdict = judge(engine, alive, known)
        if isinstance(verdict, Finding):
            return verdict
    return (yield from ask_list(engine, known))


def unlike(engine: EngineKind, path: str, what: str) -> Finding:
    """Make the finding for a success that cannot be read; `what` says in a few words what came instead."""
    return Finding(Seen.BAD, engine, reason=f"{path} gave {what}"[:REASON_CHARACTERS_MAX])


def read_field(answer: ProbeAnswer | None, name: str) -> str:
    """Read `version` or `build_info` of a JSON answer; "" when there is no answer, no success or no such text."""
    value = getattr(_read_fields(answer), name)
    return value if isinstance(value, str) and value.isprintable() and len(value) <= REASON_CHARACTERS_MAX else ""


def is_autoloading(answer: ProbeAnswer | None) -> bool:
    """Whether a llama.cpp router loads a model when it is asked for; True where /props does not tell otherwise."""
    return _read_fields(answer).models_autoload is not False


def _read_fields(answer: ProbeAnswer | None) -> _Fields:
    if answer is None or answer.status != 200:
        return _Fields()
    try:
        return _FIELDS.decode(answer.body)
    except (ValueError, RecursionError):
        return _Fields()


def speaks_anthropic(answer: ProbeAnswer | None) -> bool:
    """Read the answer to a GET of `MESSAGES_PATH`."""
    return answer is not None and answer.status == 405
