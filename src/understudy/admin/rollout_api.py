"""Answer what an operator asks and orders of blue and green: the status, the switch, the way back, the canary.

Added to the admin port by admin.api, whose guard and pace every request here has passed. Reads an order out of a JSON body, or
out of the query where there is no body, and refuses whatever it does not know: half an order must not move the conversations.
Decides and changes nothing itself; that happens behind the `RolloutOperator`.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from aiohttp import web

from understudy.admin.reply import error_reply, json_reply
from understudy.config.quantities import Unreadable, read_share, write_share
from understudy.config.values import STEPS_MAX
from understudy.core.color import Color

if TYPE_CHECKING:
    from understudy.core.switching import SwitchOutcome

# The word in place of a share that stands for what the file says.
FILE_WORD = "file"
_COLORS = {color.value: color for color in (Color.BLUE, Color.GREEN)}
_FLAG_KEYS = frozenset({"force", "sessions"})
# How a query, which has only text, says true and false.
_FLAGS = {"true": True, "1": True, "false": False, "0": False}
_FOUND_CHARACTERS_MAX = 60

_SWITCH_KEYS = ("color", "force")
_ROLLBACK_KEYS = ("sessions",)
_CANARY_KEYS = ("share", "steps")
_CANARY_WANTED = (
    f'{{"share": "10%"}}, {{"share": "{FILE_WORD}"}}, {{"share": 0}} to end it, or {{"steps": ["5%", "25%", "100%"]}}'
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class RolloutOperator(Protocol):
    """What the admin port needs of the rollout. A refusal is told in the outcome; nothing here raises."""

    async def switch(self, to: Color, *, is_forced: bool) -> "SwitchOutcome":
        """Give the new conversations to `to`, BLUE or GREEN; refused where it could not serve them, unless forced."""
        ...

    async def roll_back(self, *, takes_sessions: bool) -> "SwitchOutcome":
        """End the canary, or else take back the last switch; with `takes_sessions` the conversations come back, too."""
        ...

    async def set_canary(self, shares: tuple[float, ...] | None) -> "SwitchOutcome":
        """Begin a canary at the first of `shares`; None: those of the file, (): end it."""
        ...

    def status(self) -> dict[str, Any]:
        """What is in force, as JSON values; see the schema Rollout in admin.openapi."""
        ...


class _Refused(Exception):  # noqa: N818  an answer on its way, no fault
    def __init__(self, status: int, code: str, words: str) -> None:
        super().__init__(words)
        self.reply = error_reply(status, code, words)


def add_rollout(router: web.UrlDispatcher, find: Callable[[], RolloutOperator | None]) -> None:
    """Add the endpoints; `find` gives the rollout at each request, None where none is in use."""
    for method, path, answer in (
        ("GET", "/api/rollout", _show),
        ("POST", "/api/rollout/switch", _switch),
        ("POST", "/api/rollout/rollback", _roll_back),
        ("POST", "/api/rollout/canary", _set_canary),
    ):
        router.add_route(method, path, _told(find, answer))


def _told(
    find: Callable[[], RolloutOperator | None], answer: Callable[[RolloutOperator, web.Request], Awaitable[web.Response]]
) -> Handler:
    """Turn what may stand between a request and its answer into answers."""

    async def reply(request: web.Request) -> web.Response:
        rollout = find()
        if rollout is None:
            # Loaded with the colors, or else by the first to ask for them.
            from understudy.core.switching import NO_COLORS

            return error_reply(409, "no_colors", NO_COLORS)
        try:
            return await answer(rollout, request)
        except _Refused as refused:
            return refused.reply

    return reply


# --- the answers, one an endpoint


async def _show(rollout: RolloutOperator, _request: web.Request) -> web.Response:
    return json_reply(200, rollout.status())


async def _switch(rollout: RolloutOperator, request: web.Request) -> web.Response:
    asked = await _read_asked(request, "switch_invalid", _SWITCH_KEYS)
    to = _read_color(asked)
    is_forced = _read_flag(asked, "force", "switch_invalid")
    return _told_outcome(rollout, await rollout.switch(to, is_forced=is_forced))


async def _roll_back(rollout: RolloutOperator, request: web.Request) -> web.Response:
    asked = await _read_asked(request, "rollback_invalid", _ROLLBACK_KEYS)
    takes_sessions = _read_flag(asked, "sessions", "rollback_invalid")
    return _told_outcome(rollout, await rollout.roll_back(takes_sessions=takes_sessions))


async def _set_canary(rollout: RolloutOperator, request: web.Request) -> web.Response:
    asked = await _read_asked(request, "canary_invalid", _CANARY_KEYS)
    return _told_outcome(rollout, await rollout.set_canary(_read_shares(asked)))


def _told_outcome(rollout: RolloutOperator, outcome: "SwitchOutcome") -> web.Response:
    if outcome.refusal:
        raise _Refused(409, "switch_refused", outcome.refusal)
    state = outcome.rollout
    # A canary that begins or ends is a change, too, and leaves the time of the last switch as it was.
    is_switch = outcome.is_changed and state.switched_at_unix_s == state.changed_at_unix_s
    told = {
        "active": state.active.value,
        "was": (state.inactive if is_switch else state.active).value,
        "changed": outcome.is_changed,
        "kept": outcome.is_kept,
        "rollout": rollout.status(),
    }
    return json_reply(200, told)


# --- reading an order


async def _read_asked(request: web.Request, code: str, keys: tuple[str, ...]) -> Mapping[str, object]:
    """Return what is asked for by key, from the body or else from the query; refused is whatever has another key."""
    body = (await request.read()).strip()
    if body and request.query_string:
        raise _Refused(400, code, "found a body and a query; want one of the two")
    asked = _read_body(body, code) if body else _read_query(request, code)
    unknown = next((key for key in asked if key not in keys), None)
    if unknown is not None:
        raise _Refused(400, code, f"found the key {_found(unknown)}; want {' or '.join(keys)}")
    return asked


def _read_body(body: bytes, code: str) -> dict[str, object]:
    try:
        return msgspec.json.decode(body, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _Refused(400, code, f"found a body that is no JSON object ({error}); want one, or a query instead") from error


def _read_query(request: web.Request, code: str) -> dict[str, object]:
    twice = next((key for key in request.query if len(request.query.getall(key)) > 1), None)
    if twice is not None:
        raise _Refused(400, code, f"found {_found(twice)} more than once; want it once")
    return {key: _FLAGS.get(text, text) if key in _FLAG_KEYS else text for key, text in request.query.items()}


def _read_color(asked: Mapping[str, object]) -> Color:
    found = asked.get("color")
    color = _COLORS.get(found) if isinstance(found, str) else None
    if color is None:
        shown = f"color: found {_found(found)}" if "color" in asked else "found no color"
        raise _Refused(400, "switch_invalid", f'{shown}; want {{"color": "blue"}} or {{"color": "green"}}')
    return color


def _read_flag(asked: Mapping[str, object], key: str, code: str) -> bool:
    found = asked.get(key, False)
    if not isinstance(found, bool):
        raise _Refused(400, code, f"{key}: found {_found(found)}; want true or false")
    return found


def _read_shares(asked: Mapping[str, object]) -> tuple[float, ...] | None:
    """Return the steps of the canary: () ends it, None is what the file says."""
    if len(asked) != 1:
        raise _Refused(400, "canary_invalid", f"found {'both share and steps' if asked else 'nothing'}; want {_CANARY_WANTED}")
    if "steps" in asked:
        return _read_steps(asked["steps"])
    if asked["share"] == FILE_WORD:
        return None
    share = _read_step(asked["share"], "share")
    return _checked((share,)) if share else ()


def _read_steps(found: object) -> tuple[float, ...]:
    if not isinstance(found, list) or not 1 <= len(found) <= STEPS_MAX:
        raise _Refused(400, "canary_invalid", f"steps: found {_found(found)}; want a list of 1 to {STEPS_MAX} shares")
    steps = tuple(_read_step(each, f"steps[{index}]") for index, each in enumerate(found))
    if not steps[0]:
        words = f"steps: found {write_share(0.0)} as the first step; want more than {write_share(0.0)}, such as 5%, 25%, 100%"
        raise _Refused(400, "canary_invalid", words)
    for earlier, later in pairwise(steps):
        if later <= earlier:
            shown = f"{write_share(later)} after {write_share(earlier)}"
            raise _Refused(400, "canary_invalid", f"steps: found {shown}; want each larger than the one before: 5%, 25%, 100%")
    return _checked(steps)


def _read_step(found: object, where: str) -> float:
    try:
        return read_share(found)
    except Unreadable as error:
        raise _Refused(400, "canary_invalid", f"{where}: found {_found(found)}; want {error.want}") from error


def _checked(steps: tuple[float, ...]) -> tuple[float, ...]:
    # "1" for one in a hundred is read as all of them.
    if steps[0] >= 1.0:
        raise _Refused(400, "canary_invalid", "found a canary that begins with 100%; want a smaller share, or else a switch")
    return steps


def _found(value: object) -> str:
    """Return a value as an error shows it: JSON in ASCII, cut; lists and objects, which may be deep, by their kind alone."""
    if isinstance(value, list | dict):
        return f"a list of {len(value)}" if isinstance(value, list) else "an object"
    shown = json.dumps(value)
    return shown if len(shown) <= _FOUND_CHARACTERS_MAX else f"{shown[:_FOUND_CHARACTERS_MAX]}..."
