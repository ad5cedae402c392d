"""Turn a seed into a play: backends, tempers, clients and what happens to them, by kind of play.

The same seed gives the same play in every process. `play` runs it to rest and returns what is wrong, one line a broken invariant.
"""

import asyncio
from dataclasses import dataclass, field, replace
from enum import StrEnum
from hashlib import sha256
from random import Random

from simulation.client import Asked, Client, Habit, Leaving, Wanted
from simulation.engine import Temper
from simulation.faults import BREAKING_LATE, Fault
from simulation.invariants import Judge
from simulation.language import SPEECHES, Speech
from simulation.network import Door
from simulation.stage import Stage, with_backends
from simulation.virtual_loop import VirtualLoop, run_virtual
from simulation.watching import USABLE
from simulation.writing import KINDS, SPOKEN, Make, Matter, text_for
from understudy.core.snapshot import (
    Address,
    Backend,
    Balance,
    Duty,
    FailoverRules,
    HealthRules,
    Limits,
    ResumeRule,
    Role,
    RoutingPlan,
    Timeouts,
)

CLIENTS_FOR_S = 12.0
# So many answers make a pace that hedges go by.
PACE_SAMPLES = 20
TRUSTED = (sha256(b"boss").hexdigest(),)
SETTLE_S = 75.0


class Kind(StrEnum):
    """What a play is about."""

    ANYTHING = "anything"
    ONE_IS_STEADY = "one_is_steady"
    ONLY_CLIENTS_MISBEHAVE = "only_clients_misbehave"
    STOPPING = "stopping"
    WAITING = "waiting"
    BREAKING = "breaking"


# One seed after the other. What breaks in the middle has most to go wrong.
TURN = (*Kind, Kind.BREAKING)
FOR_ALL = (Kind.ONE_IS_STEADY, Kind.WAITING, Kind.BREAKING)


@dataclass
class Script:
    """A play before it begins."""

    kind: Kind
    dice: Random
    plan: RoutingPlan
    tempers: dict[str, Temper] = field(default_factory=dict)
    makes: dict[str, Make] = field(default_factory=dict)
    speeches: tuple[Speech, ...] = SPEECHES
    steady: str = ""
    tags: int = 0


def make_script(seed: int) -> Script:
    """Return the play of a seed."""
    dice = Random(seed)
    kind = TURN[seed % len(TURN)]
    count = dice.randint(1, 2 if kind is Kind.WAITING else 4)
    rules = HealthRules(
        interval_s=dice.choice((1.0, 5.0)),
        timeout_s=1.0,
        rise=dice.randint(1, 2),
        fall=dice.randint(1, 3),
        max_fails=dice.choice((0, 1, 3)),
        fail_timeout_s=dice.choice((1.0, 5.0, 10.0)),
        slow_start_s=dice.choice((0.0, 0.0, 3.0)),
    )
    timeouts = Timeouts(
        connect_s=0.5,
        first_token_s=3.0,
        stall_s=2.0,
        total_s=dice.choice((0.0, 0.0, 6.0)),
        keepalive_s=dice.choice((0.0, 0.7, 15.0)),
    )
    backends = tuple(
        Backend(
            name=f"gpu{place}",
            address=Address("http", f"10.0.0.{place + 1}", 8000),
            role=Role.BACKUP if place and dice.random() < 0.4 else Role.PRIMARY,
            in_flight_max=_room(kind, dice),
            models=(("m", "own"),) if dice.random() < 0.3 else (),
            health=rules,
            timeouts=timeouts,
        )
        for place in range(count)
    )
    failover = FailoverRules(
        budget=dice.choice((0.2, 10.0)),
        hold_s=dice.choice((0.0, 1.0, 5.0)),
        tries=dice.choice((0, 0, 2)),
        resume=dice.choice((ResumeRule.ON, ResumeRule.ON, ResumeRule.EXACT, ResumeRule.OFF)),
        assemble=dice.random() < 0.8,
        hedge=dice.random() < 0.3,
    )
    limits = Limits(head_timeout_s=5.0, body_timeout_s=5.0, idle_timeout_s=10.0, write_idle_s=4.0, drain_s_max=5.0)
    if kind is Kind.ONE_IS_STEADY:
        timeouts = replace(timeouts, total_s=0.0)
        failover = replace(failover, budget=10.0, tries=0)
    if kind is Kind.BREAKING:
        failover = replace(failover, resume=dice.choice((ResumeRule.ON, ResumeRule.ON, ResumeRule.EXACT)), budget=10.0, tries=0)
    if kind is Kind.WAITING:
        timeouts = replace(timeouts, total_s=0.0)
        limits = replace(limits, waiting_max=dice.choice((2, 6, 1000)), waiting_s_max=dice.choice((0.0, 2.0, 20.0)))
    balance = dice.choice(list(Balance))
    script = Script(kind, dice, RoutingPlan(backends, balance, timeouts, failover, limits, trusted_keys=TRUSTED))
    _cast(script)
    if kind is Kind.ONE_IS_STEADY:
        script.steady = dice.choice(backends).name
    for backend in backends:
        script.tempers[backend.name] = make_temper(script, backend.name)
    return script


def _room(kind: Kind, dice: Random) -> int:
    if kind is Kind.WAITING:
        return dice.choice((1, 2))
    return dice.choice((0, 0, 1, 3)) if kind is Kind.ANYTHING else 0


def _cast(script: Script) -> None:
    """Choose the engines, and the dialects in which they are asked: where all of them must be able to, what all speak."""
    dice = script.dice
    makes = dice.choice((*((make,) for make in Make), (Make.VLLM, Make.LLAMACPP), (Make.OLLAMA, Make.LLAMACPP), tuple(Make)))
    if script.kind is Kind.WAITING:
        makes = makes[:1]
    script.makes = {backend.name: dice.choice(makes) for backend in script.plan.backends}
    spoken = [set(SPOKEN[KINDS[make]]) for make in script.makes.values()]
    names = set.intersection(*spoken) if script.kind in FOR_ALL or dice.random() < 0.7 else set.union(*spoken)
    script.speeches = tuple(speech for speech in SPEECHES if speech.kind in names)


def make_temper(script: Script, name: str) -> Temper:
    """Return how an engine of this play behaves."""
    dice = script.dice
    temper = Temper(
        gap_s=0.1 if script.kind is Kind.WAITING else dice.choice((0.001, 0.02, 0.1)),
        piece_bytes=20_000 if dice.random() < 0.05 else 0,
    )
    temper.make = script.makes[name]
    if script.kind in (Kind.ONLY_CLIENTS_MISBEHAVE, Kind.WAITING) or name == script.steady:
        temper.faults = {Fault.NONE: 5.0, Fault.CLOSES_AFTERWARDS: 1.0, Fault.UNTIL_CLOSE: 0.5, Fault.COMMENTS_FIRST: 1.0}
        return temper
    temper.refuses_to_go_on = dice.random() < 0.15
    is_breaking = script.kind is Kind.BREAKING
    share = dice.choice((0.3, 0.6, 0.8) if is_breaking else (0.1, 0.5, 1.0))
    faults = [one for one in Fault if one is not Fault.NONE]
    if script.kind is Kind.ONE_IS_STEADY:
        faults.remove(Fault.OUT_OF_MEMORY)
    # What comes before any answer hides what comes later.
    chosen = dice.sample(sorted(BREAKING_LATE, key=str) if is_breaking or dice.random() < 0.3 else faults, dice.randint(1, 6))
    temper.faults = {Fault.NONE: 1.0 - share, **{fault: share / len(chosen) for fault in chosen}}
    return temper


def know_the_pace(stage: Stage) -> None:
    """Let it be known how fast the backends are, so that what is late gets a hedge."""
    for backend in stage.published.current.plan.backends:
        for _ in range(PACE_SAMPLES):
            stage.tally.of(backend.name).pace.add(1, 0.2)


async def play(loop: VirtualLoop, script: Script) -> list[str]:
    """Run a play to rest and return what is wrong."""
    stage = Stage(loop, script.dice, script.plan, script.tempers)
    stage.start()
    if script.plan.failover.hedge:
        know_the_pace(stage)
    if script.kind in (Kind.ONE_IS_STEADY, Kind.ONLY_CLIENTS_MISBEHAVE):
        await asyncio.sleep(1.5)
    _plan_clients(stage, script)
    if script.kind not in (Kind.ONLY_CLIENTS_MISBEHAVE, Kind.WAITING):
        _plan_troubles(stage, script)
    await asyncio.sleep(CLIENTS_FOR_S)
    if script.kind is Kind.STOPPING:
        stage.relay.stop_taking()
        await asyncio.sleep(script.dice.choice((0.0, 0.5, 5.0)))
        stage.relay.stop()
    stage.heal()
    await asyncio.sleep(SETTLE_S)
    await _settle_clients(stage)
    judge = _judge(stage, script)
    judge.judge_recovery()
    if script.kind is not Kind.STOPPING:
        await _judge_service(stage, judge)
    await stage.stop()
    await asyncio.sleep(SETTLE_S)
    judge.judge_rest()
    return judge.wrong


def _judge(stage: Stage, script: Script) -> Judge:
    judge = Judge(stage)
    judge.judge_answers()
    judge.judge_attempts()
    judge.judge_leaving()
    judge.judge_deadlines()
    if script.kind is Kind.ONE_IS_STEADY:
        judge.judge_success(script.steady)
        judge.judge_going_on(script.steady)
    if script.kind is Kind.WAITING:
        judge.judge_waiting()
    if script.kind is Kind.ONLY_CLIENTS_MISBEHAVE:
        _judge_calm(judge)
    return judge


def run_seed(seed: int, start_s: float | None = None) -> list[str]:
    """Run the play of a seed; returns what is wrong, each line with the seed."""
    loop = VirtualLoop(Random(seed).choice((0.5, 1000.0, 1e6)) if start_s is None else start_s)
    script = make_script(seed)
    return [f"seed {seed} ({script.kind}): {what}" for what in run_virtual(loop, play(loop, script))]


async def _settle_clients(stage: Stage) -> None:
    """Clients that still hold a connection and read nothing would wait for ever: nobody owes them more."""
    for client in stage.clients:
        if client.end is not None and not client.is_over:
            client.end.resume_reading()
            if not client.left_at_s:
                client.left_at_s = stage.loop.time()
                client.end.close()
    await asyncio.sleep(2.0)


async def _judge_service(stage: Stage, judge: Judge) -> None:
    """With every engine well, a new request succeeds."""
    client = stage.enter([Asked("last1", Wanted.STREAM, is_last=True)])
    await asyncio.sleep(10.0)
    response = client.answers()[0]
    if response is None or response.status != 200 or not response.is_whole:
        judge.say("with one engine good for 5 s, new requests succeed", f"{response and (response.status, response.body)}")


def _judge_calm(judge: Judge) -> None:
    for target in judge.stage.published.current.targets:
        name = target.backend.name
        counts = judge.stage.tally.of(name)
        if counts.failures_total or counts.ejections or counts.suspect_until_s or target.state.condition not in USABLE:
            judge.say(
                "a client's fault never changes a backend's state", f"{name}: {counts.failures_total} failures, {target.state}"
            )
    for _, event, fields in judge.stage.events:
        if event.startswith("backend.") and event != "backend.went_up":
            judge.say("a client's fault never changes a backend's state", f"{event} {fields}")


# --- clients


def _plan_clients(stage: Stage, script: Script) -> None:
    dice = script.dice
    for _ in range(dice.randint(4, 20)):
        asked = [_make_asked(script) for _ in range(dice.choice((1, 1, 2, 3)))]
        habit = _make_habit(script)
        if habit.is_pipelining:
            for one in asked:
                one.is_http10 = False
        if dice.random() < 0.3:
            asked[-1].is_last = True
        within_s = 3.0 if script.kind is Kind.WAITING else CLIENTS_FOR_S - 2.0
        stage.loop.call_later(dice.uniform(0.0, within_s), stage.enter, asked, habit)


def _make_asked(script: Script) -> Asked:
    dice = script.dice
    script.tags += 1
    others = () if script.kind in (Kind.WAITING, Kind.BREAKING) else (2, 1, 1, 1, 1, 0.3)
    wanted = dice.choices(list(Wanted)[: 2 + len(others)], (12, 5, *others))[0]
    speech = dice.choice(script.speeches)
    path = speech.path if wanted in (Wanted.STREAM, Wanted.WHOLE, Wanted.UNKNOWN_MODEL, Wanted.WRONG_BODY) else SPEECHES[0].path
    if wanted is Wanted.PLAIN:
        path = "/api/version"
    model = "nobody-has-it" if wanted is Wanted.UNKNOWN_MODEL else "m"
    asked = Asked(f"r{script.tags}", wanted, path, model, is_http10=dice.random() < 0.1, words=dice.choice((1, 4, 10, 25)))
    if script.kind is Kind.WAITING:
        asked.words = 25
    if asked.is_generating:
        _make_wishes(script, asked, set(script.makes.values()))
    return asked


def _make_wishes(script: Script, asked: Asked, makes: set[Make]) -> None:
    """Ask for more than plain text, where all engines of the play understand it alike."""
    dice, kind = script.dice, asked.speech.kind
    asked.declines_resume = dice.random() < 0.1
    asked.key = dice.choice(("", "", "boss", "one", "two", "three"))
    asked.priority = dice.choice(("", "", "high", "low"))
    asked.wants_usage = kind == "openai" and asked.wanted is Wanted.STREAM and dice.random() < 0.4
    asked.tokens_max = dice.choice((0, 0, 0, 3, 11))
    if dice.random() < (0.4 if script.kind is Kind.BREAKING else 0.2):
        right = text_for(asked.tag, Matter.PLAIN, asked.words)
        start = dice.randrange(len(right))
        asked.stop = right[start : start + dice.choice((1, 3, 12))].strip()
    if Make.SGLANG in makes or dice.random() < 0.6:
        return
    what = dice.choice((*Matter, "choices", "logprobs"))
    if what == "choices" and kind == "openai" and asked.speech.is_chat and asked.wanted is Wanted.STREAM:
        asked.choices = 2
    elif what == "logprobs" and kind != "anthropic" and asked.wanted is Wanted.STREAM:
        asked.wants_logprobs = True
    elif asked.wanted is Wanted.WHOLE and what is not Matter.JSON and makes != {Make.VLLM}:
        return  # Scripted engines write neither thoughts nor calls into whole answers.
    elif what in (Matter.THOUGHT, Matter.CALL, Matter.JSON) and kind != "anthropic":
        is_for_chats = what is Matter.CALL or kind == "openai"
        if asked.speech.is_chat or not is_for_chats:
            asked.matter, asked.stop = Matter(what), ""
    if asked.matter is Matter.CALL:
        asked.tokens_max = 0


def _make_habit(script: Script) -> Habit:
    dice = script.dice
    habit = Habit(pause_s=dice.choice((0.0, 0.0, 0.5, 3.0)), is_chunking=dice.random() < 0.2)
    habit.is_pipelining = dice.random() < 0.15
    if dice.random() < 0.2:
        habit.sends_bytes, habit.send_gap_s = dice.choice(((1, 0.0), (7, 0.01), (50, 0.2)))
    if dice.random() < 0.35:
        habit.leaving = dice.choice(list(Leaving))
        when = dice.randrange(3)
        if when == 0 or habit.leaving is Leaving.HALF_CLOSE:
            habit.leaves_after_s = dice.uniform(0.001, 4.0) if habit.leaving is not Leaving.HALF_CLOSE else 0.0
        elif when == 1:
            habit.leaves_after_received = dice.choice((1, 100, 300, 1000))
        else:
            habit.leaves_after_sent = dice.choice((1, 100, 250, 10_000))
    elif dice.random() < 0.15:
        habit.stops_reading_after = dice.choice((0, 10, 400))
        habit.reads_again_after_s = dice.choice((0.0, 0.5, 2.0))
        habit.window_bytes = dice.choice((2_000, 20_000))
    return habit


# --- troubles


def _plan_troubles(stage: Stage, script: Script) -> None:
    dice, loop = script.dice, stage.loop
    names = [backend.name for backend in script.plan.backends if backend.name != script.steady]
    if not names:
        return
    for _ in range(dice.choice((0, 1, 3, 6))):
        engine = stage.engine(dice.choice(names))
        at_s, for_s = dice.uniform(0.0, CLIENTS_FOR_S), dice.choice((0.05, 0.5, 3.0, 8.0))
        trouble = dice.choice(("stop", "freeze", "swallow", "unreachable", "loading", "duty", "models", "reload", "reload"))
        if trouble == "stop":
            loop.call_later(at_s, engine.stop)
        elif trouble == "freeze":
            loop.call_later(at_s, engine.freeze)
        elif trouble in ("swallow", "unreachable"):
            loop.call_later(at_s, setattr, engine.machine, "door", Door.SWALLOWING if trouble == "swallow" else Door.UNREACHABLE)
        elif trouble == "loading":
            loop.call_later(at_s, setattr, engine, "is_loading", True)
        elif trouble == "models":
            loop.call_later(at_s, setattr, engine, "lost_models", True)
            loop.call_later(at_s + for_s, setattr, engine, "lost_models", False)
        elif trouble == "duty":
            loop.call_later(at_s, stage.set_duty, engine.name, dice.choice((Duty.DRAINING, Duty.MAINTENANCE)))
            loop.call_later(at_s + for_s, stage.set_duty, engine.name, Duty.READY)
        else:
            loop.call_later(at_s, stage.offer, _other_plan(script, engine.name))
            loop.call_later(at_s + for_s, stage.offer, script.plan)
        loop.call_later(at_s + for_s, engine.start)
    loop.call_later(CLIENTS_FOR_S, stage.offer, script.plan)


def _other_plan(script: Script, name: str) -> RoutingPlan:
    """Return the plan as an operator may change it: a backend gone, moved, or other rules for all."""
    dice, plan = script.dice, script.plan
    backends = plan.backends
    change = dice.randrange(3)
    if change == 0 and len(backends) > 1:
        return with_backends(plan, tuple(one for one in backends if one.name != name))
    if change == 1:
        moved = {one.name: replace(one, address=replace(one.address, host="10.0.1.1")) for one in backends if one.name == name}
        return with_backends(plan, tuple(moved.get(one.name, one) for one in backends))
    return replace(plan, balance=dice.choice(list(Balance)))


__all__ = ["Client", "Kind", "make_script", "play", "run_seed"]
