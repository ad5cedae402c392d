"""The admin port's word on blue and green, asked over real sockets."""

import json
from typing import Any

import jsonschema
import pytest

from support.admin_rollout import StageRollout, asking, fetch, rolling
from support.admin_stage import StageOperator
from understudy.admin.guard import Pace
from understudy.admin.openapi import document
from understudy.core.color import Color

STEPS = (0.05, 0.25, 1.0)


async def order(operator: StageOperator, verb: str, body: object = None, query: str = "") -> tuple[int, Any]:
    async with asking(operator) as client:
        return await fetch(client, "POST", f"/api/rollout/{verb}{query}", body)


async def refused(verb: str, body: object = None, query: str = "") -> str:
    """Give an order that cannot be read; it changes nothing. Returns the words."""
    operator, rollout = rolling(file_shares=STEPS)
    before = rollout.rollout
    status, answer = await order(operator, verb, body, query)
    assert (status, answer["error"]["code"]) == (400, f"{verb}_invalid")
    assert (rollout.rollout, rollout.recalls) == (before, [])
    message = answer["error"]["message"]
    assert isinstance(message, str)
    assert message.isprintable()
    return message


def fits(answer: object, schema: str) -> None:
    schemas = document()["components"]
    jsonschema.validate(answer, {"$ref": f"#/components/schemas/{schema}", "components": schemas})


# --- what is in force


async def test_what_is_in_force_is_told() -> None:
    operator, rollout = rolling(file_shares=STEPS)
    rollout.guard = {"watching": "green", "verdict": "holds", "reason": "", "figures": None}
    rollout.shadow = dict.fromkeys(("share", "in_flight", "sent", "answered", "failed", "dropped"), 0) | {
        "likeness_mean": None,
        "ttft_mean_s": 0.2,
    }
    rollout.begin(shares=STEPS)
    async with asking(operator) as client:
        status, answer = await fetch(client, "GET", "/api/rollout")
    assert (status, answer) == (200, rollout.status())
    fits(answer, "Rollout")


# --- switch


@pytest.mark.parametrize(
    ("body", "query"),
    [
        ({"color": "green"}, ""),
        ({"color": "green", "force": False}, ""),
        (b' {"color":"green"}\n', ""),
        (None, "?color=green"),
        (b"", "?color=green&force=0"),
        (b" \n", "?color=green&force=false"),
    ],
)
async def test_switch_is_read_from_the_body_or_the_query(body: object, query: str) -> None:
    operator, rollout = rolling()
    status, answer = await order(operator, "switch", body, query)
    assert (status, {key: answer[key] for key in ("active", "was", "changed", "kept")}) == (
        200,
        {"active": "green", "was": "blue", "changed": True, "kept": True},
    )
    assert answer["rollout"] == rollout.status()
    assert rollout.rollout.active is Color.GREEN
    fits(answer, "RolloutOutcome")


async def test_switch_to_the_active_color_changes_nothing() -> None:
    operator, _ = rolling(Color.GREEN)
    _, answer = await order(operator, "switch", {"color": "green"})
    assert (answer["active"], answer["was"], answer["changed"]) == ("green", "green", False)


async def test_switch_to_the_active_color_that_ends_a_canary_is_no_change_of_color() -> None:
    operator, rollout = rolling()
    async with asking(operator) as client:
        await fetch(client, "POST", "/api/rollout/switch", {"color": "green"})
        await fetch(client, "POST", "/api/rollout/canary", {"share": "5%"})
        _, answer = await fetch(client, "POST", "/api/rollout/switch", {"color": "green"})
    assert (answer["active"], answer["was"], answer["changed"]) == ("green", "green", True)
    assert rollout.rollout.shares == ()


async def test_switch_that_is_refused_says_why_unless_forced() -> None:
    operator, rollout = rolling()
    rollout.refusal = "no backend of green is usable: gpu1 (down, refused the connection)"
    error = {"code": "switch_refused", "message": rollout.refusal}
    for body, query in (({"color": "green"}, ""), (None, "?color=green&force=0")):
        assert await order(operator, "switch", body, query) == (409, {"error": error})
    assert rollout.rollout.active is Color.BLUE
    assert (await order(operator, "switch", None, "?color=green&force=1"))[1]["active"] == "green"
    assert (await order(operator, "switch", {"color": "blue", "force": True}))[1]["active"] == "blue"


async def test_switch_that_a_restart_forgets_says_so() -> None:
    operator, rollout = rolling()
    rollout.is_kept = False
    _, answer = await order(operator, "switch", {"color": "green"})
    assert (answer["changed"], answer["kept"], answer["rollout"]["kept"]) == (True, False, False)


@pytest.mark.parametrize(
    "color", ["red", "none", "", "GREEN", " green", None, 1, True, ["green"], {"a": 1}, "x" * 9000, "\x9b", 10**4000]
)
async def test_color_is_blue_or_green(color: object) -> None:
    words = await refused("switch", {"color": color})
    assert words.startswith("color: found ")
    assert words.endswith('; want {"color": "blue"} or {"color": "green"}')
    assert len(words) < 200


@pytest.mark.parametrize(("body", "query"), [(None, ""), ({}, ""), ({"force": True}, ""), (None, "?force=1"), (b" ", "")])
async def test_switch_without_a_color_is_asked_for_one(body: object, query: str) -> None:
    assert await refused("switch", body, query) == 'found no color; want {"color": "blue"} or {"color": "green"}'


@pytest.mark.parametrize("force", ["true", "1", 1, 0, None, "yes", 1.5])
async def test_force_is_true_or_false(force: object) -> None:
    words = await refused("switch", {"color": "green", "force": force})
    assert words == f"force: found {json.dumps(force)}; want true or false"


@pytest.mark.parametrize("force", ["", "yes", "2", "True", "%FF"])
async def test_force_in_a_query_is_1_or_0(force: str) -> None:
    assert (await refused("switch", None, f"?color=green&force={force}")).startswith("force: found ")


# --- rollback


@pytest.mark.parametrize(
    ("body", "query", "takes_sessions"),
    [
        (None, "", False),
        (b"", "", False),
        ({}, "", False),
        ({"sessions": False}, "", False),
        ({"sessions": True}, "", True),
        (None, "?sessions=1", True),
        (None, "?sessions=false", False),
    ],
)
async def test_rollback_takes_back_the_switch_and_with_it_the_sessions(body: object, query: str, takes_sessions: bool) -> None:
    operator, rollout = rolling(Color.GREEN)
    rollout.begin(previous=Color.BLUE)
    status, answer = await order(operator, "rollback", body, query)
    assert (status, answer["active"], answer["was"], answer["changed"]) == (200, "blue", "green", True)
    assert rollout.recalls == [takes_sessions]
    fits(answer, "RolloutOutcome")


async def test_rollback_of_a_canary_changes_no_color() -> None:
    operator, rollout = rolling()
    rollout.begin(shares=STEPS, previous=Color.GREEN)
    _, answer = await order(operator, "rollback")
    assert (answer["active"], answer["was"], answer["changed"], answer["rollout"]["canary"]) == ("blue", "blue", True, None)


async def test_nothing_to_take_back_is_a_refusal() -> None:
    status, answer = await order(rolling()[0], "rollback")
    error = {"code": "switch_refused", "message": "there is no switch and no canary to take back"}
    assert (status, answer) == (409, {"error": error})


@pytest.mark.parametrize("sessions", ["true", 1, None, "all"])
async def test_sessions_is_true_or_false(sessions: object) -> None:
    assert await refused("rollback", {"sessions": sessions}) == f"sessions: found {json.dumps(sessions)}; want true or false"


# --- canary


@pytest.mark.parametrize(
    ("body", "query", "shares"),
    [
        ({"share": "10%"}, "", (0.1,)),
        ({"share": 0.1}, "", (0.1,)),
        ({"share": "0.1"}, "", (0.1,)),
        ({"share": "99.5%"}, "", (0.995,)),
        (None, "?share=10%25", (0.1,)),
        (None, "?share=0.1", (0.1,)),
        ({"steps": ["5%"]}, "", (0.05,)),
        ({"steps": ["5%", 0.25, "1"]}, "", (0.05, 0.25, 1.0)),
        ({"steps": [0.05, 0.25, 1]}, "", (0.05, 0.25, 1.0)),
        ({"share": "file"}, "", STEPS),
        (None, "?share=file", STEPS),
    ],
)
async def test_canary_begins_at_its_first_step(body: object, query: str, shares: tuple[float, ...]) -> None:
    operator, rollout = rolling(file_shares=STEPS)
    status, answer = await order(operator, "canary", body, query)
    assert (status, answer["active"], answer["was"], answer["changed"]) == (200, "blue", "blue", True)
    assert (rollout.rollout.shares, rollout.rollout.step) == (shares, 0)
    assert answer["rollout"]["canary"]["share"] == shares[0]
    fits(answer, "RolloutOutcome")


@pytest.mark.parametrize(
    ("body", "query"),
    [({"share": 0}, ""), ({"share": 0.0}, ""), ({"share": "0%"}, ""), ({"share": "0"}, ""), (None, "?share=0"),
     (None, "?share=0%25")],
)  # fmt: skip
async def test_share_of_nothing_ends_the_canary(body: object, query: str) -> None:
    operator, rollout = rolling()
    rollout.begin(shares=STEPS)
    assert (await order(operator, "canary", body, query))[1]["changed"] is True
    assert rollout.rollout.shares == ()
    assert (await order(operator, "canary", body, query))[1]["changed"] is False


async def test_canary_that_is_refused_says_why() -> None:
    operator, rollout = rolling()
    rollout.refusal = "green has no qwen2.5, which blue serves"
    status, answer = await order(operator, "canary", {"share": "5%"})
    assert (status, answer["error"]) == (409, {"code": "switch_refused", "message": rollout.refusal})


@pytest.mark.parametrize(
    "share",
    ["", "ten", "10 %", "-1%", "-0.1", "101%", "1e-3", "5%,25%", "off", "FILE", 10, 1.5, -0.1, 1e-9, 1e308, 10**30, True, None,
     [], {}, "٣%", "10%\n", "\x9b"],
)  # fmt: skip
async def test_share_that_is_none_is_refused(share: object) -> None:
    words = await refused("canary", {"share": share})
    assert words.startswith("share: found ")
    assert words.endswith("; want a share from 0% to 100%, such as 20% or 0.2")


@pytest.mark.parametrize("body", [{"share": "100%"}, {"share": 1}, {"share": 1.0}, {"steps": [1]}, {"steps": ["100%"]}])
async def test_canary_of_everything_is_a_switch(body: object) -> None:
    """Who writes 1 may mean one in a hundred."""
    assert await refused("canary", body) == "found a canary that begins with 100%; want a smaller share, or else a switch"


@pytest.mark.parametrize(
    "steps", [[], "5%", {}, None, 0.05, True, [0.001 * number for number in range(1, 102)], {"a": 1}]
)  # fmt: skip
async def test_steps_are_a_list_of_bounded_length(steps: object) -> None:
    words = await refused("canary", {"steps": steps})
    assert words.startswith("steps: found ")
    assert words.endswith("; want a list of 1 to 100 shares")


@pytest.mark.parametrize("steps", [["5%", "5%"], ["25%", "5%"], [0.05, 1, 1], ["5%", 0]])
async def test_steps_go_up(steps: object) -> None:
    assert (await refused("canary", {"steps": steps})).endswith("; want each larger than the one before: 5%, 25%, 100%")


@pytest.mark.parametrize("steps", [[0], ["0%", "5%"], [0.0, 0.0], ["0"]])
async def test_first_step_is_more_than_nothing(steps: object) -> None:
    words = "steps: found 0% as the first step; want more than 0%, such as 5%, 25%, 100%"
    assert await refused("canary", {"steps": steps}) == words


@pytest.mark.parametrize(
    ("step", "shown"),
    [(25, "25"), ("file", '"file"'), (None, "null"), (True, "true"), (["5%"], "a list of 1"), ({}, "an object")],
)
async def test_step_that_is_no_share_is_named(step: object, shown: str) -> None:
    assert (await refused("canary", {"steps": ["5%", step]})).startswith(f"steps[1]: found {shown}; want a share")


@pytest.mark.parametrize(
    ("body", "query", "found"),
    [
        (None, "", "nothing"),
        ({}, "", "nothing"),
        ({"share": 0.1, "steps": [0.1]}, "", "both share and steps"),
        (None, "?share=0.1&steps=0.1", "both share and steps"),
    ],
)
async def test_canary_is_one_share_or_one_list(body: object, query: str, found: str) -> None:
    assert (await refused("canary", body, query)).startswith(f'found {found}; want {{"share": "10%"}}, ')


async def test_steps_are_for_bodies() -> None:
    assert (await refused("canary", None, "?steps=5%25,25%25")).endswith("; want a list of 1 to 100 shares")


# --- whatever the order

GOOD: dict[str, dict[str, Any]] = {"switch": {"color": "green"}, "rollback": {"sessions": True}, "canary": {"share": 0.1}}
CALLS = [("GET", "/api/rollout", None), *(("POST", f"/api/rollout/{verb}", body) for verb, body in GOOD.items())]


@pytest.mark.parametrize("verb", GOOD)
@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b"null", b"1", b'"green"', b"\xff", b'{"color":"\xff"}', b'{"color":NaN}', b"color=green", b"[" * 60_000,
     b'{"color":' * 6_000, b'{"color":"\\ud800"}', b'{"color":' + b"1" * 5_000 + b"}",
     b'{"color":"green"}{}', b"\xef\xbb\xbf{}", b"\x00"],
)  # fmt: skip
async def test_body_that_is_no_object_is_refused(verb: str, body: bytes) -> None:
    words = await refused(verb, body)
    assert words.startswith("found a body that is no JSON object (")
    assert words.endswith("); want one, or a query instead")


@pytest.mark.parametrize(
    ("verb", "want"), [("switch", "color or force"), ("rollback", "sessions"), ("canary", "share or steps")]
)  # fmt: skip
async def test_unknown_key_is_refused_with_the_known_ones(verb: str, want: str) -> None:
    assert await refused(verb, GOOD[verb] | {"colour": "green"}) == f'found the key "colour"; want {want}'
    assert await refused(verb, None, "?colour=green") == f'found the key "colour"; want {want}'
    assert (await refused(verb, {"\n\x9b": 1})).startswith('found the key "\\n')
    assert (await refused(verb, None, "?%FF=1")).startswith("found the key ")


@pytest.mark.parametrize(
    ("verb", "query"), [("switch", "?color=green"), ("rollback", "?sessions=1"), ("canary", "?share=0.1")]
)  # fmt: skip
async def test_order_stands_in_one_place_once(verb: str, query: str) -> None:
    assert await refused(verb, GOOD[verb], query) == "found a body and a query; want one of the two"
    key = query[1:].partition("=")[0]
    assert await refused(verb, None, f"{query}&{query[1:]}") == f'found "{key}" more than once; want it once'


@pytest.mark.parametrize("verb", GOOD)
async def test_content_type_does_not_matter_and_size_does(verb: str) -> None:
    operator, rollout = rolling(Color.GREEN)
    async with asking(operator) as client:
        path = f"/api/rollout/{verb}"
        rollout.begin(previous=Color.BLUE)
        for content_type in ("text/plain", "application/x-www-form-urlencoded"):
            rollout.begin(active=Color.GREEN, previous=Color.BLUE)
            assert (await fetch(client, "POST", path, GOOD[verb], headers={"Content-Type": content_type}))[0] == 200
        status, answer = await fetch(client, "POST", path, b" " * 100_000)
        assert (status, answer["error"]["code"]) == (413, "refused")


@pytest.mark.parametrize(("method", "path", "body"), CALLS)
async def test_without_colors_there_is_nothing_to_order(method: str, path: str, body: object) -> None:
    async with asking(StageOperator()) as client:
        assert await fetch(client, method, path, body) == (
            409,
            {"error": {"code": "no_colors", "message": "no backend has a color; set backends[].color"}},
        )


@pytest.mark.parametrize(("method", "path", "body"), CALLS)
async def test_the_token_is_asked_for_before_all_else(method: str, path: str, body: object) -> None:
    operator, rollout = rolling(Color.GREEN)
    rollout.begin(previous=Color.BLUE)
    async with asking(operator, "s3cret") as client:
        assert (await fetch(client, method, path, body))[0] == 401
        assert (rollout.rollout.active, rollout.rollout.shares, rollout.recalls) == (Color.GREEN, (), [])
        assert (await fetch(client, method, path, body, headers={"Authorization": "Bearer s3cret"}))[0] == 200


@pytest.mark.parametrize(("method", "path", "body"), CALLS[1:])
async def test_a_foreign_page_changes_nothing(method: str, path: str, body: object) -> None:
    operator, rollout = rolling()
    before = rollout.rollout
    async with asking(operator) as client:
        for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            status, answer = await fetch(client, method, path, body, headers=headers)
            assert (status, answer["error"]["code"]) == (403, "cross_site")
        assert (await fetch(client, method, path, body, headers={"Host": "evil.example"}))[0] == 403
    assert (rollout.rollout, rollout.recalls) == (before, [])


@pytest.mark.parametrize("verb", GOOD)
async def test_an_order_is_no_link_to_follow(verb: str) -> None:
    operator, rollout = rolling()
    async with asking(operator) as client:
        status, answer = await fetch(client, "GET", f"/api/rollout/{verb}?color=green")
    assert (status, answer["error"]["code"]) == (405, "method_not_allowed")
    assert rollout.rollout.active is Color.BLUE


async def test_the_pace_holds_for_the_rollout_too() -> None:
    operator, rollout = rolling()
    async with asking(operator, pace=Pace(per_s=0.001, burst=1, wait_s_max=0.01)) as client:
        assert (await fetch(client, "GET", "/api/rollout"))[0] == 200
        assert (await fetch(client, "POST", "/api/rollout/switch", {"color": "green"}))[0] == 429
    assert isinstance(rollout, StageRollout)
    assert rollout.rollout.active is Color.BLUE


@pytest.mark.parametrize("verb", GOOD)
def test_orders_of_these_tests_fit_their_schemas(verb: str) -> None:
    fits(GOOD[verb], verb.capitalize())
