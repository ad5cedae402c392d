"""Ask backends for one token by the path that clients use: where the file wants it (`health.generate`), or to prove a restart.

Built and run by daemon; stands between controlplane.prober and the publisher, whose findings pass through it. An engine that
hangs still answers its health check, so that a question that generated nothing is held against it: until a token comes, or a
client gets an answer, every good probe of that backend counts as a bad one. So it goes down after `fall` of them like any other,
and does not come back by a health check alone. Never wakes or pins a model, and loads one only to prove a restart
(engines.token_probe); counts in no tally.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final

from understudy.controlplane.fetcher import Resolve
from understudy.controlplane.means import Proof
from understudy.controlplane.prober import Audience
from understudy.controlplane.token_sender import TokenSender
from understudy.core.health import Health, Seen
from understudy.core.shortlist import is_serving, own_name
from understudy.core.snapshot import Backend, Condition, Duty, EngineKind, Published, Target
from understudy.core.tally import BackendTally, Tally
from understudy.core.upkeep import GenerateWhen
from understudy.engines import Finding
from understudy.engines.progress import PROGRESS_INTERVAL_S, tells_progress
from understudy.engines.token_probe import NOTHING_SPENT, PROMPT, TokenFinding, TokenSeen, ask_expiries, ask_token

TOKEN_S_MAX: Final = 120.0
LOOK_S: Final = 0.5
# Streams that brought something this lately show that the engine works.
MOVING_S: Final = 5.0
# Between two questions that failures of traffic ask for.
SUSPECT_GAP_S: Final = 10.0
# Such a question waits for so many times what first contents usually take, and for this at least.
SUSPECT_TIMES: Final = 5.0
SUSPECT_BOUND_S_MIN: Final = 15.0
# After one that failed, with nothing else against the backend: a second one decides.
CONFIRM_S: Final = 1.0
# While it is held against the backend, each time twice as long.
RETRY_S: Final = 5.0
RETRY_S_MAX: Final = 60.0
# A llama.cpp that nobody else uses is asked ever more rarely, so that its own time to fall asleep is over once in between.
RARE_S_MAX: Final = 3600.0
# Ollama notes the end of a request a little after its answer.
NOTED_S: Final = 1.0
# Answers that come later than that after their bound came while the daemon itself stood still.
LATE_S_MAX: Final = 2.0
BARREN: Final = "answers its health check and generates nothing"


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What one question came to. `is_reached` False: there was no connection, of which the health check tells as well."""

    finding: TokenFinding
    first_content_s: float = 0.0
    is_reached: bool = True


@dataclass(slots=True)
class _Watch:
    """What is known of a backend. `barren_at_s` is when it was found to generate nothing, 0.0 while that is not held against it.

    `failed_at_s` is when traffic last failed, `used_at_s` when it last succeeded; `asks` counts the questions since.
    """

    backend: Backend
    failures_total: int
    since_s: float
    used_at_s: float = 0.0
    failed_at_s: float = 0.0
    asked_at_s: float = 0.0
    asks: int = 0
    misses: int = 0
    barren_at_s: float = 0.0
    reason: str = ""
    retry_s: float = RETRY_S
    retry_at_s: float = 0.0
    task: asyncio.Task[None] | None = None


class TokenProber:
    """Asks, and lets findings pass (controlplane.prober.Audience, to be given to the prober in the publisher's place).

    `audience` is the publisher, `clock` gives loop time in seconds, `resolve` as in Fetcher. `on_barren` gets the name and the
    words of a backend that is found to generate nothing, once each time.
    """

    def __init__(
        self,
        published: Published,
        audience: Audience,
        tally: Tally,
        clock: Callable[[], float],
        resolve: Resolve | None = None,
        *,
        tell: Callable[[str, dict[str, object]], None],
        on_barren: Callable[[str, str], None] | None = None,
    ) -> None:
        self._published = published
        self._audience = audience
        self._tally = tally
        self._clock = clock
        self._sender = TokenSender(resolve)
        self._tell = tell
        self._on_barren = on_barren
        self._watches: dict[str, _Watch] = {}
        # What the last question has left behind, by backend (engines.token_probe, ask_expiries).
        self._spent: dict[str, Mapping[str, str]] = {}

    async def run(self) -> None:
        """Look every half second whom to ask, and ask, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._look(tasks)
                await asyncio.sleep(LOOK_S)

    async def prove(self, name: str, loaded: Collection[str] = ()) -> Proof:
        """Ask for a token now, whatever the file says; takes at most `timeouts.first_token_s` seconds, and 120.

        An engine that has nothing in memory, as an Ollama after a restart, loads a model for it, in as long as a restart may take
        to be ready: one that `warm` names, else one of `loaded`, its own names of what it had before. Good, too, where there is
        neither, or nothing can be asked without waking an engine. Clears what was held against the backend.
        """
        return (await self._prove(name, NOTHING_SPENT, loaded=loaded, may_load=True))[0]

    async def try_token(self, name: str) -> Proof:
        """The same for who asks again and again: a model that nobody else has used since is not kept in memory for that."""
        proof, outcome = await self._prove(name, self._spent_of(name))
        if outcome is not None:
            await self._note_spent(name, outcome)
        return proof

    # --- what passes through

    def on_finding(self, name: str, finding: Finding) -> None:
        """Hand a probe's finding on; a good one as a bad one while the backend is known to generate nothing."""
        watch = self._watches.get(name)
        if watch is not None and watch.barren_at_s:
            if finding.is_refusing or finding.seen is Seen.LOADING:
                # What hung is gone; the next one begins anew.
                _forgive(watch)
            elif finding.seen is Seen.GOOD and not self._has_answered(watch, name):
                finding = replace(finding, seen=Seen.BAD, reason=f"{BARREN}: {watch.reason}")
        self._audience.on_finding(name, finding)

    def health_of(self, name: str) -> Health:
        """Tell what is believed of that backend."""
        return self._audience.health_of(name)

    def _has_answered(self, watch: _Watch, name: str) -> bool:
        if self._tally.of(name).last_success_at_s <= watch.barren_at_s:
            return False
        _forgive(watch)
        return True

    # --- whom to ask, and when

    def _look(self, tasks: asyncio.TaskGroup) -> None:
        now_s = self._clock()
        wanted = {target.backend.name: target for target in self._published.current.targets if _is_watched(target)}
        for name, watch in list(self._watches.items()):
            if name not in wanted or wanted[name].backend != watch.backend:
                if watch.task is not None:
                    watch.task.cancel()
                del self._watches[name]
        for name in self._spent.keys() - {target.backend.name for target in self._published.current.targets}:
            del self._spent[name]
        for name, target in wanted.items():
            counts = self._tally.of(name)
            watch = self._watches.setdefault(name, _Watch(target.backend, counts.failures_total, now_s))
            _note_traffic(watch, counts, now_s)
            if watch.task is None and self._may_ask(target, watch, counts, now_s) and _is_due(watch, target, counts, now_s):
                self._begin(tasks, watch, counts, now_s)

    def _may_ask(self, target: Target, watch: _Watch, counts: BackendTally, now_s: float) -> bool:
        """Whether a question would tell something and be in nobody's way."""
        if counts.rest_until_s > now_s or (watch.backend.in_flight_max and counts.in_flight >= watch.backend.in_flight_max):
            return False
        if counts.in_flight and now_s - counts.evidence.moved_at_s < MOVING_S:
            return False
        # What the health check finds wrong needs no token.
        return bool(watch.barren_at_s) or (is_serving(target) and not self._audience.health_of(watch.backend.name).bad)

    def _begin(self, tasks: asyncio.TaskGroup, watch: _Watch, counts: BackendTally, now_s: float) -> None:
        is_suspicious = _has_failed(watch, counts) or bool(watch.barren_at_s)
        watch.asked_at_s = now_s
        watch.asks += 1
        # One that is suspicious has clients who want it; else a model is not kept in memory by questions alone.
        name = watch.backend.name
        spent = NOTHING_SPENT if is_suspicious or watch.misses else self._spent_of(name)
        bound_s = _bound_s(watch.backend)
        usual_s = counts.pace.expected_s(len(PROMPT)) if is_suspicious else None
        if usual_s is not None:
            bound_s = min(bound_s, max(SUSPECT_BOUND_S_MIN, SUSPECT_TIMES * usual_s))
        asking = self._ask(watch, spent, bound_s, is_suspicious=is_suspicious)
        task = watch.task = tasks.create_task(asking, name=f"token.{name}")
        task.add_done_callback(lambda _: setattr(watch, "task", None))

    async def _ask(self, watch: _Watch, spent: Mapping[str, str], bound_s: float, *, is_suspicious: bool) -> None:
        name, began_at_s = watch.backend.name, self._clock()
        target = self._target(name)
        if target is None:
            return
        outcome = await self._fetch(target, spent, bound_s)
        ended_at_s = self._clock()
        has_worked = outcome.finding.seen is TokenSeen.BARREN and await self._has_worked(target, began_at_s)
        target = self._target(name)
        if target is None or not _is_watched(target) or self._watches.get(name) is not watch:
            return
        if ended_at_s - began_at_s > bound_s + LATE_S_MAX:
            return
        if outcome.finding.seen is not TokenSeen.BARREN or has_worked:
            _forgive(watch)
        elif watch.barren_at_s:
            watch.retry_at_s = ended_at_s + watch.retry_s
            watch.retry_s = min(RETRY_S_MAX, 2 * watch.retry_s)
        elif outcome.is_reached:
            self._miss(watch, outcome.finding.reason, ended_at_s, is_suspicious=is_suspicious)
        else:
            watch.misses = 0
        await self._note_spent(name, outcome)

    def _miss(self, watch: _Watch, reason: str, now_s: float, *, is_suspicious: bool) -> None:
        """Hold a failed question against the backend: at once where traffic fails as well, else with the second in a row."""
        watch.misses += 1
        if watch.misses < 2 and not is_suspicious:
            watch.retry_at_s = now_s + CONFIRM_S
            return
        name = watch.backend.name
        watch.barren_at_s = now_s
        watch.reason = reason
        watch.retry_at_s = now_s + watch.retry_s
        self._tell("backend.failed_generation", {"backend": name, "reason": reason})
        self._audience.on_finding(name, Finding(Seen.BAD, reason=f"{BARREN}: {reason}"))
        if self._on_barren is not None:
            self._on_barren(name, reason)

    async def _has_worked(self, target: Target, since_s: float) -> bool:
        """Whether the backend has generated something since, though not for us: it is busy, and maybe with others' requests."""
        backend, engine = target.backend, target.state.engine
        counts = self._tally.of(backend.name)
        if max(counts.evidence.moved_at_s, counts.last_success_at_s) > since_s:
            return True
        if not tells_progress(engine):
            return False
        before = await self._sender.fetch_figures(backend, engine)
        if before is None:
            return False
        await asyncio.sleep(PROGRESS_INTERVAL_S)
        after = await self._sender.fetch_figures(backend, engine)
        return after is not None and after != before

    # --- asking

    async def _prove(
        self, name: str, spent: Mapping[str, str], *, loaded: Collection[str] = (), may_load: bool = False
    ) -> tuple[Proof, _Outcome | None]:
        target = self._target(name)
        if target is None:
            return Proof(is_good=False, words="there is no such backend"), None
        backend = target.backend
        bound_s, loadable = _bound_s(backend), _loadable(target, loaded) if may_load else ()
        if loadable and backend.restart is not None:
            bound_s = max(bound_s, backend.restart.ready_s)
        outcome = await self._fetch(target, spent, bound_s, loadable)
        is_good = outcome.finding.seen in (TokenSeen.TOKEN, TokenSeen.UNTOLD)
        watch = self._watches.get(name)
        if is_good and watch is not None:
            _forgive(watch)
        return Proof(is_good, outcome.finding.reason, outcome.first_content_s), outcome

    async def _fetch(self, target: Target, spent: Mapping[str, str], bound_s: float, loadable: tuple[str, ...] = ()) -> _Outcome:
        backend, state = target.backend, target.state
        wanted = tuple(own for _, own in backend.models)
        asking = ask_token(state.engine, state.version, state.models, wanted, spent, loadable=loadable)
        finding, sent = await self._sender.fetch(backend, asking, bound_s)
        if finding.seen is TokenSeen.BARREN and not finding.reason:
            finding = replace(finding, reason=sent.reason)
        took_s = sent.posted_s if finding.seen is TokenSeen.TOKEN else 0.0
        return _Outcome(finding, took_s, sent.is_reached)

    async def _note_spent(self, name: str, outcome: _Outcome) -> None:
        """Note until when models stay now that they were asked; what differs later has been used by others."""
        target = self._target(name)
        if outcome.finding.seen is TokenSeen.TOKEN and target is not None and target.state.engine is EngineKind.OLLAMA:
            await asyncio.sleep(NOTED_S)
            backend = target.backend
            self._spent[name], _ = await self._sender.fetch(backend, ask_expiries(EngineKind.OLLAMA), backend.health.timeout_s)

    def _spent_of(self, name: str) -> Mapping[str, str]:
        """Return what the last question has left behind, without the models that are kept anyway: questions pin none of those."""
        target = self._target(name)
        kept = _kept(target) if target is not None else ()
        return {model: until for model, until in self._spent.get(name, NOTHING_SPENT).items() if model not in kept}

    def _target(self, name: str) -> Target | None:
        return next((target for target in self._published.current.targets if target.backend.name == name), None)


def _is_watched(target: Target) -> bool:
    """Whether the file wants tokens of this backend, and neither the operator nor a restart has taken it out."""
    is_off = target.backend.health.generate.when is GenerateWhen.OFF
    is_there = target.state.duty is Duty.READY and not target.state.is_restarting
    return is_there and not is_off and target.state.condition is not Condition.UNKNOWN


def _loadable(target: Target, loaded: Collection[str]) -> tuple[str, ...]:
    """Return the backend's own names of what may be loaded to prove it: clients get it anyway, or had it."""
    if any(model.is_loaded for model in target.state.models or ()):
        return ()
    return tuple(dict.fromkeys((*_warm(target), *loaded)))


def _warm(target: Target) -> tuple[str, ...]:
    """Return the models of its `warm` under the names that its list has for them."""
    warm = (own for model in target.backend.warm.models if (own := own_name(target, model)))
    # A list may write the tag that the file leaves out.
    listed = {model.name.removesuffix(":latest"): model.name for model in target.state.models or ()}
    return tuple(listed.get(own.removesuffix(":latest"), own) for own in warm)


def _kept(target: Target) -> tuple[str, ...]:
    """Return the backend's own names of the models that the file has it keep in memory for ever."""
    return () if target.backend.warm.idle_s else _warm(target)


def _keeps_all(target: Target) -> bool:
    """Whether every model in its memory is one of these."""
    kept = _kept(target)
    return bool(kept) and all(model.name in kept for model in target.state.models or () if model.is_loaded)


def _bound_s(backend: Backend) -> float:
    return min(backend.timeouts.first_token_s, TOKEN_S_MAX)


def _note_traffic(watch: _Watch, counts: BackendTally, now_s: float) -> None:
    if counts.failures_total != watch.failures_total:
        watch.failures_total = counts.failures_total
        watch.failed_at_s = now_s
    if counts.last_success_at_s != watch.used_at_s:
        watch.used_at_s = counts.last_success_at_s
        watch.asks = 0


def _has_failed(watch: _Watch, counts: BackendTally) -> bool:
    """Whether traffic has failed since it last succeeded and since the last question."""
    return watch.failed_at_s > max(counts.last_success_at_s, watch.asked_at_s)


def _is_due(watch: _Watch, target: Target, counts: BackendTally, now_s: float) -> bool:
    if watch.barren_at_s or watch.misses:
        return now_s >= watch.retry_at_s
    if _has_failed(watch, counts):
        return now_s >= watch.asked_at_s + SUSPECT_GAP_S
    rules = watch.backend.health.generate
    if rules.when is not GenerateWhen.EVERY or counts.in_flight:
        return False
    gap_s = rules.every_s
    if target.state.engine is EngineKind.LLAMACPP and not _keeps_all(target):
        gap_s = max(gap_s, min(gap_s * 2.0 ** min(watch.asks, 16), RARE_S_MAX))
    return now_s >= max(watch.since_s, counts.last_success_at_s, watch.asked_at_s) + gap_s


def _forgive(watch: _Watch) -> None:
    watch.barren_at_s = watch.retry_at_s = 0.0
    watch.misses = 0
    watch.retry_s = RETRY_S
    watch.reason = ""
