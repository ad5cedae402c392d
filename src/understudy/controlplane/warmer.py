"""Keep the models loaded that the file names, so that whoever takes over need not load them first.

Built by daemon, which calls `on_exchange` for every exchange and `tick` about twice a second. When and what is core.warmth's to
decide, how an engine is asked engines.warming's to know. Follows reloads: the plan is that of the published snapshot. Never
unloads a model, never takes a backend out of service, and never holds up an exchange.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from understudy.controlplane.fetcher import Fetcher, Question, Resolve, Silence
from understudy.core.shortlist import is_serving, is_wanted, own_name
from understudy.core.snapshot import Backend, EngineKind, HealthRules, Published, Target
from understudy.core.tally import Tally
from understudy.core.warmth import LOAD_S_MAX, Footprint, Load, Named, WarmFacts, Warmth
from understudy.engines.warming import Warmed, footprint, is_asleep, lets_go, warm

_ANY_TAG: Final = ":latest"


class Warmer:
    """Drives the one load or renewal that is under way.

    `clock` gives loop time in seconds and `tell` gets an event's name and its fields; `resolve` as in Fetcher; `look` is called
    with a backend's name when its lists have changed by what was done here, `leave_cold` also with what is not about to be loaded
    there, when its state tells something else. `load_s_max` bounds one load.
    """

    def __init__(
        self,
        published: Published,
        tally: Tally,
        *,
        clock: Callable[[], float],
        tell: Callable[[str, dict[str, object]], None],
        resolve: Resolve | None = None,
        look: Callable[[str], None] | None = None,
        leave_cold: Callable[[str, tuple[str, ...]], object] | None = None,
        load_s_max: float = LOAD_S_MAX,
    ) -> None:
        self._published = published
        self._tally = tally
        self._clock = clock
        self._tell = tell
        self._look = look
        self._leave_cold = leave_cold
        self._load_s_max = load_s_max
        self._fetcher = Fetcher(resolve)
        self._warmth = Warmth()
        # When each model that any backend keeps warm was last asked for, under the client's name without ":latest".
        self._exchange_at_s: dict[str, float] = {}
        self._names: frozenset[str] = frozenset()
        self._task: asyncio.Task[None] | None = None
        self._load: tuple[Load, Backend] | None = None
        self._is_closed = False

    def on_exchange(self, model: str) -> None:
        """Hear that a client has asked for `model`, on whichever backend. Costs two look-ups where it is not kept warm."""
        name = model.removesuffix(_ANY_TAG)
        if name in self._names:
            self._exchange_at_s[name] = self._clock()

    def tick(self) -> None:
        """Follow the snapshot, tell what cannot be loaded, begin what is due. To be called about twice a second."""
        targets = {one.backend.name: one for one in self._published.current.targets if one.backend.warm.models}
        self._names = frozenset(model.removesuffix(_ANY_TAG) for one in targets.values() for model in one.backend.warm.models)
        self._exchange_at_s = {name: at_s for name, at_s in self._exchange_at_s.items() if name in self._names}
        facts = {name: self._facts(one) for name, one in targets.items()}
        self._drop_outdated(targets, facts)
        decision = self._warmth.decide(tuple(facts.values()), self._clock(), is_busy=self._task is not None)
        for refused in decision.refused:
            self._tell_not_warmed(refused.backend, refused.model, refused.reason)
        self._show_cold(targets)
        load = decision.load
        if load is None or self._is_closed:
            return
        target = targets[load.backend]
        self._load = (load, target.backend)
        running = self._run(load, target)
        self._task = asyncio.get_running_loop().create_task(running, name=f"warmer.{load.backend}")
        self._task.add_done_callback(self._on_done)

    def status(self, name: str) -> dict[str, Any] | None:
        """Return what a status tells of one backend, as JSON values; None where the file names no models to keep warm.

        `is_warm`: all of them are loaded, as far as is known.
        """
        models = next((one.warm.models for one in self._published.current.plan.backends if one.name == name), ())
        if not models:
            return None
        loading = self._load[0] if self._load is not None and not self._load[0].is_renewal else None
        return {
            "is_warm": all(self._warmth.is_warm(name, model) for model in models),
            "models": {
                model: {
                    "is_warm": self._warmth.is_warm(name, model),
                    "is_loading": loading is not None and (loading.backend, loading.model) == (name, model),
                    "reason": self._warmth.reason(name, model),
                }
                for model in models
            },
        }

    async def close(self) -> None:
        """Begin nothing more and end what is under way; returns when it is gone."""
        self._is_closed = True
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _show_cold(self, targets: dict[str, Target]) -> None:
        for name, target in targets.items():
            left_cold = self._warmth.left_cold(name)
            if self._leave_cold is not None and left_cold != target.state.left_cold:
                self._leave_cold(name, left_cold)

    # --- the facts

    def _facts(self, target: Target) -> WarmFacts:
        backend, state = target.backend, target.state
        sleeps = is_asleep(state)
        prints = tuple(footprint(model) for model in state.models or ())
        return WarmFacts(
            backend.name,
            backend.warm,
            can_load=is_wanted(target) and (is_serving(target) or sleeps),
            in_flight=self._tally.of(backend.name).in_flight,
            named=tuple(self._named(target, model, prints, sleeps=sleeps) for model in backend.warm.models),
            loaded=() if sleeps else tuple(one for one in prints if one.is_loaded),
            lets_go=lets_go(state.engine),
            settle_s=_settle_s(backend.health),
        )

    def _named(self, target: Target, model: str, prints: tuple[Footprint, ...], *, sleeps: bool) -> Named:
        own = own_name(target, model)
        at_s = self._exchange_at_s.get(model.removesuffix(_ANY_TAG), 0.0)
        if own is None:
            return Named(model, None, at_s)
        tag = _ANY_TAG if target.state.engine is EngineKind.OLLAMA else ""
        found = (one for one in prints if one.name.removesuffix(tag) == own.removesuffix(tag))
        # An engine that does not tell what it has, has it.
        one = next(found, Footprint(own, is_loaded=True))
        return Named(model, replace(one, is_loaded=one.is_loaded and not sleeps), at_s)

    # --- the one load that is under way

    def _drop_outdated(self, targets: dict[str, Target], facts: dict[str, WarmFacts]) -> None:
        """End a load of a backend that is another one now, or may no longer be asked."""
        if self._task is None or self._load is None:
            return
        load, backend = self._load
        target = targets.get(load.backend)
        if target is None or target.backend != backend or not facts[load.backend].can_load:
            self._task.cancel()

    async def _run(self, load: Load, target: Target) -> None:
        began_at_s = self._clock()
        try:
            async with asyncio.timeout(self._load_s_max):
                warmed = await self._converse(load, target)
        except TimeoutError:
            warmed = Warmed(is_warm=False, reason=f"was not loaded within {self._load_s_max:g}s")
        now_s = self._clock()
        if not warmed.is_warm:
            if self._warmth.on_failed(load, warmed.reason, now_s):
                self._tell_not_warmed(load.backend, load.model, warmed.reason)
        elif self._warmth.on_warmed(load, _settle_s(target.backend.health), warmed.lasts_s, now_s):
            fields: dict[str, object] = {"backend": load.backend, "model": load.model}
            self._tell("backend.warmed", fields | {"took_s": round(now_s - began_at_s, 3)})
        if self._look is not None:
            self._look(load.backend)

    async def _converse(self, load: Load, target: Target) -> Warmed:
        """Carry the engine's conversation to its end; the caller bounds the time."""
        asking = warm(target.state.engine, load)
        reason = ""
        try:
            request = next(asking)
            while True:
                if request.after_s:
                    await asyncio.sleep(request.after_s)
                question = Question(request.path, request.method, request.body, "understudy-warmer")
                # Only connecting is bounded: a load is answered when it is done.
                answer = await self._fetcher.ask(target.backend, question, target.backend.timeouts.connect_s)
                reason = answer.words if isinstance(answer, Silence) else ""
                request = asking.send(None if isinstance(answer, Silence) else answer)
        except StopIteration as end:
            warmed: Warmed = end.value
        return warmed if warmed.is_warm or not reason else replace(warmed, reason=reason)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._task = self._load = None
        if not task.cancelled() and (error := task.exception()) is not None:
            context = {"message": "keeping a model warm failed internally", "exception": error, "task": task}
            task.get_loop().call_exception_handler(context)

    def _tell_not_warmed(self, backend: str, model: str, reason: str) -> None:
        self._tell("backend.not_warmed", {"backend": backend, "model": model, "reason": reason})


def _settle_s(health: HealthRules) -> float:
    """Two probes, each late by its jitter and slow: by then the lists show what was done."""
    return 2 * (health.interval_s * 1.2 + health.timeout_s)
