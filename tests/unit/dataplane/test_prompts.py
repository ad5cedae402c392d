"""A backend or a color brings a prompt along; the client's own body stays what it was."""

import json
from dataclasses import replace

import pytest

from support.color_stage import ColorStage, colored
from support.stage import chat
from understudy.core.color import Color, Prompt, RolloutRules
from understudy.core.snapshot import Backend, RoutingPlan, Target
from understudy.dataplane.prompts import Prompts

PIRATE = Prompt("Speak like a pirate.", defaults=(("temperature", "0.1"),))
POET = Prompt("Speak in verse.")
HI = [{"role": "user", "content": "Hi"}]


def prompted(target: Target, prompt: Prompt) -> Target:
    return replace(target, backend=replace(target.backend, prompt=prompt))


def body_at(stage: ColorStage, number: int) -> dict[str, object]:
    body: dict[str, object] = json.loads(stage.engine(number).data.rpartition(b"\r\n\r\n")[2])
    return body


def backend_of(color: Color, prompt: Prompt = Prompt()) -> Backend:  # noqa: B008  # frozen
    return replace(colored(0, color).backend, prompt=prompt)


async def test_each_color_speaks_with_its_own_voice(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = ColorStage(monkeypatch, green=PIRATE)
    await stage.answered_by(chat(messages=HI))
    await stage.answered_by(chat("X-Understudy-Color: green", messages=HI))
    blue, green = body_at(stage, 0), body_at(stage, 1)
    assert "temperature" not in blue
    assert green["temperature"] == 0.1
    messages = green["messages"]
    assert isinstance(messages, list)
    assert messages[0] == {"role": "system", "content": "Speak like a pirate."}
    assert messages[1:] == blue["messages"]


async def test_a_retry_elsewhere_gets_that_ones_prompt_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = ColorStage(monkeypatch, prompted(colored(0, Color.BLUE), PIRATE), prompted(colored(1, Color.BLUE), POET))
    await stage.ask(chat(messages=HI))
    stage.engine(0).lose(ConnectionResetError())
    await stage.pass_time(0.1)
    assert "verse" in json.dumps(body_at(stage, 1))
    assert "pirate" not in json.dumps(body_at(stage, 1))


def test_nothing_is_on_without_a_prompt() -> None:
    assert not Prompts(RoutingPlan((backend_of(Color.BLUE),))).is_on
    assert Prompts(RoutingPlan((backend_of(Color.BLUE, POET),))).is_on
    assert Prompts(RoutingPlan((), rollout=RolloutRules(green=POET))).is_on


@pytest.mark.parametrize(
    ("own", "asked", "expected"),
    [(Color.BLUE, "green", ""), (Color.GREEN, "blue", PIRATE.system), (Color.NONE, "green", PIRATE.system), (Color.NONE, "", "")],
)
def test_a_backend_of_no_color_takes_on_the_exchanges(own: Color, asked: str, expected: str) -> None:
    prompts = Prompts(RoutingPlan((), rollout=RolloutRules(green=PIRATE)))
    assert prompts.of(backend_of(own), asked).system == expected


def test_a_backends_own_goes_first() -> None:
    own = Prompt(defaults=(("top_p", "0.5"), ("temperature", "0.9")))
    prompt = Prompts(RoutingPlan((), rollout=RolloutRules(green=PIRATE))).of(backend_of(Color.GREEN, own), "green")
    assert (prompt.system, dict(prompt.defaults)) == (PIRATE.system, {"top_p": "0.5", "temperature": "0.9"})
