"""One exchange, interrupted at every single step: whenever somebody leaves, stops or reloads, nothing is left behind.

Each play is run once to count its steps (turns of the loop between two pieces of news) and then once for every step, with the
interruption at that step.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random

import pytest

from simulation.client import Asked, Client, Habit, Leaving, Wanted
from simulation.engine import Temper
from simulation.faults import Fault
from simulation.invariants import Judge
from simulation.scenario import know_the_pace
from simulation.stage import Stage, with_backends
from simulation.virtual_loop import VirtualLoop, run_virtual
from simulation.writing import Make
from understudy.core.snapshot import Address, Backend, Duty, FailoverRules, HealthRules, RoutingPlan, Timeouts

STEPS_MAX = 400
# So many more turns of the loop follow each piece of news before nothing new can come of it.
STILL_MAX = 1
RULES = HealthRules(interval_s=5.0, timeout_s=1.0, rise=1, fall=1, max_fails=1, fail_timeout_s=1.0)


def plan_of(situation: "Situation") -> RoutingPlan:
    """Return a plan with equal backends."""
    timeouts = Timeouts(connect_s=0.5, first_token_s=2.0, stall_s=1.0)
    backends = tuple(
        Backend(
            f"gpu{i}", Address("http", f"10.0.0.{i + 1}", 8000), health=RULES, timeouts=timeouts, in_flight_max=situation.room
        )
        for i in range(situation.count)
    )
    return RoutingPlan(backends, timeouts=timeouts, failover=FailoverRules(hold_s=3.0, budget=10.0, hedge=situation.hedges))


@dataclass(frozen=True)
class Situation:
    """How a play begins: the faults of gpu0, and what happens as the client asks."""

    count: int = 2
    fault: Fault = Fault.NONE
    before: Callable[[Stage], None] = lambda stage: None
    requests: int = 1
    habit: Habit = field(default_factory=Habit)
    path: str = "/v1/chat/completions"
    first: Wanted = Wanted.STREAM
    make: Make = Make.VLLM
    hedges: bool = False
    room: int = 0


def stop_for_a_second(stage: Stage) -> None:
    """Restart gpu0."""
    engine = stage.engine("gpu0")
    engine.stop()
    stage.loop.call_later(1.0, engine.start)


def eject_and_wait(stage: Stage) -> None:
    """Let gpu0 be ejected, its time be over: the next exchange there is the trial."""
    counts = stage.tally.of("gpu0")
    stage.tally.fail("gpu0", RULES, stage.loop.time() - 5.0, has_alternative=True)
    assert counts.is_half_open(stage.loop.time())


def heal_in_a_second(stage: Stage) -> None:
    """Let gpu0 break now and be well soon."""
    stage.loop.call_later(1.0, stage.engine("gpu0").heal)


def somebody_asks(stage: Stage) -> None:
    """Let another client have what room there is."""
    stage.enter([Asked("other1", Wanted.STREAM, is_last=True, words=1)])


SITUATIONS = {
    "a stream": Situation(),
    "a whole answer, asked in pieces": Situation(habit=Habit(sends_bytes=40, send_gap_s=0.01)),
    "a body in chunks": Situation(habit=Habit(is_chunking=True)),
    "the first resets": Situation(fault=Fault.RESETS_WITHOUT_A_BYTE),
    "the first errs after its opening": Situation(fault=Fault.OPENING_THEN_ERROR),
    "the first is silent": Situation(fault=Fault.NO_CONTENT),
    "the first is busy": Situation(fault=Fault.BUSY_FOR_A_WHILE),
    "the first breaks off": Situation(fault=Fault.CUT),
    "the only one restarts": Situation(count=1, before=stop_for_a_second),
    "the first is on trial": Situation(before=eject_and_wait),
    "the first breaks off and another engine goes on": Situation(fault=Fault.RESET, make=Make.LLAMACPP),
    "a line breaks off": Situation(fault=Fault.CUT_IN_A_CHARACTER, make=Make.OLLAMA, path="/api/chat"),
    "a whole answer breaks off": Situation(fault=Fault.ERROR_BEFORE_DONE, first=Wanted.WHOLE),
    "the only one breaks off and comes back": Situation(count=1, fault=Fault.CUT, before=heal_in_a_second),
    "the first is late and another one faster": Situation(fault=Fault.NO_CONTENT, before=know_the_pace, hedges=True),
    "somebody else has the room": Situation(count=1, room=1, before=somebody_asks),
    "the connection was closed meanwhile": Situation(fault=Fault.CLOSES_AFTERWARDS, requests=2),
    "two in a pipeline": Situation(requests=2, habit=Habit(is_pipelining=True)),
    "a client that does not read": Situation(habit=Habit(stops_reading_after=0, reads_again_after_s=1.0, window_bytes=300)),
}

Interruption = Callable[[Stage, Client], None]


def leave_by_reset(stage: Stage, client: Client) -> None:
    client.habit = replace(client.habit, leaving=Leaving.RESET)
    client.leave()


def leave_by_close(stage: Stage, client: Client) -> None:
    client.habit = replace(client.habit, leaving=Leaving.CLOSE)
    client.leave()


def stop_the_daemon(stage: Stage, _client: Client) -> None:
    stage.relay.stop_taking()
    stage.relay.stop()
    for one in stage.clients:
        one.left_at_s = stage.loop.time()  # What they get from now on is an end, not always an answer.


def stop_the_engine(stage: Stage, client: Client) -> None:
    stage.engine("gpu0").stop()


def take_the_backend_away(stage: Stage, client: Client) -> None:
    plan = stage.published.current.plan
    stage.offer(with_backends(plan, tuple(one for one in plan.backends if one.name != "gpu0")))


def put_it_in_maintenance(stage: Stage, client: Client) -> None:
    stage.set_duty("gpu0", Duty.MAINTENANCE)


INTERRUPTIONS: dict[str, Interruption] = {
    "the client resets": leave_by_reset,
    "the client closes": leave_by_close,
    "the daemon stops": stop_the_daemon,
    "the engine dies": stop_the_engine,
    "a reload takes the backend away": take_the_backend_away,
    "maintenance begins": put_it_in_maintenance,
}


@pytest.mark.parametrize("interruption", INTERRUPTIONS)
@pytest.mark.parametrize("situation", SITUATIONS)
def test_interrupted_at_any_step_nothing_is_left(situation: str, interruption: str) -> None:
    steps, wrong = _run(SITUATIONS[situation], None, 0)
    assert not wrong, wrong
    for step in range(min(steps, STEPS_MAX)):
        _, wrong = _run(SITUATIONS[situation], INTERRUPTIONS[interruption], step)
        assert not wrong, f"{interruption} at step {step}: {wrong}"


def _run(situation: Situation, interrupt: Interruption | None, at_step: int) -> tuple[int, list[str]]:
    loop = VirtualLoop(100.0)
    return run_virtual(loop, _play(loop, situation, interrupt, at_step))


async def _play(loop: VirtualLoop, situation: Situation, interrupt: Interruption | None, at_step: int) -> tuple[int, list[str]]:
    tempers = {"gpu0": Temper({situation.fault: 1.0}, 0.02, make=situation.make), "gpu1": Temper(make=situation.make)}
    stage = Stage(loop, Random(7), plan_of(situation), tempers)
    stage.start()
    await asyncio.sleep(0.3)
    situation.before(stage)
    asked = [Asked(f"r{i}", Wanted.WHOLE if i else situation.first, situation.path, words=2) for i in range(situation.requests)]
    client = stage.enter(asked, replace(situation.habit))
    steps = still = 0
    news: tuple[int, ...] = ()

    def on_turn() -> None:
        nonlocal steps, news, still
        was, news = news, stage.news()
        still = 0 if news != was else still + 1
        if still > STILL_MAX:
            # The clock alone goes on: leaving now is like leaving a moment before.
            return
        if steps == at_step and interrupt is not None:
            interrupt(stage, client)
        if not client.is_over:
            steps += 1

    loop.at_turns(on_turn)
    await asyncio.sleep(11.0)
    loop.at_turns(None)
    judge = Judge(stage)
    judge.judge_answers()
    judge.judge_attempts()
    judge.judge_leaving()
    judge.judge_waiting()
    if not client.is_over:
        judge.say("rest", "the client still waits")
    await stage.stop()
    await asyncio.sleep(70.0)
    judge.judge_rest()
    return steps, judge.wrong
