"""Look after backends that answer far slower than they used to: say so, have them used last, and find out when that is over.

Built and ticked by daemon, fed by dataplane.gauge; core.degradation judges. A degraded backend may get no traffic that could show
that it has recovered, so that it is tried: after a pause, longer each time, it is used as before until a few answers have told.
One token asked for beforehand spares clients most trials that would only show that nothing has changed. Never restarts a backend.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from understudy.controlplane.means import Proof
from understudy.controlplane.publisher import Publisher
from understudy.core.degradation import Degradation, Grade
from understudy.core.shortlist import is_usable
from understudy.core.snapshot import Duty, Target
from understudy.core.tally import Tally
from understudy.core.usual_pace import Measured

# Between two trials.
PAUSE_S: Final = 60.0
PAUSE_S_MAX: Final = 900.0
# As long as it lasts without a trial, whatever tokens say.
UNTRIED_S_MAX: Final = 600.0
# One that was sound for so long begins with short pauses again.
SETTLED_S: Final = 600.0
# A token in less than this share of the time that it took in the slow time is worth a trial.
TOKEN_SHARE: Final = 0.5

Prove = Callable[[str], Awaitable[Proof]]


@dataclass(slots=True)
class _Watch:
    """What is known of one backend. `began_at_s` is when it was told to be degraded, 0.0 while that does not hold.

    `identity` tells whether it is the same software still. `token_s` is how long a token took in the slow time, 0.0 unknown.
    """

    identity: tuple[object, ...]
    degradation: Degradation = field(default_factory=Degradation)
    grade: Grade = Grade.SOUND
    was_usable: bool = False
    began_at_s: float = 0.0
    sound_at_s: float = 0.0
    pause_s: float = PAUSE_S
    retry_at_s: float = 0.0
    tried_at_s: float = 0.0
    token_s: float = 0.0
    asking: asyncio.Task[None] | None = None


class DegradationWatch:
    """All backends of the published plan. `hear` is for the gauge, `tick` to be called every half second.

    `prove` asks a backend for one token (TokenProber.try_token); None: trials come by the clock alone.
    """

    def __init__(
        self,
        publisher: Publisher,
        tally: Tally,
        tell: Callable[[str, dict[str, object]], None],
        clock: Callable[[], float],
        *,
        prove: Prove | None = None,
    ) -> None:
        self._publisher = publisher
        self._tally = tally
        self._tell = tell
        self._clock = clock
        self._prove = prove
        self._watches: dict[str, _Watch] = {}

    def hear(self, name: str, measured: Measured) -> None:
        """Take what an answer told of a backend; nothing of one that the plan does not have (any more)."""
        watch = self._watches.get(name)
        if watch is not None:
            watch.degradation.add(measured, self._clock())

    def tick(self) -> None:
        """Look at every backend, and let what follows follow."""
        now_s = self._clock()
        targets = self._publisher.snapshot.targets
        for name in self._watches.keys() - {target.backend.name for target in targets}:
            self._forget(name)
        for target in targets:
            self._look(target, self._watch_of(target), now_s)

    async def close(self) -> None:
        """End the questions that are under way."""
        asking = [watch.asking for watch in self._watches.values() if watch.asking is not None]
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    # --- one backend

    def _watch_of(self, target: Target) -> _Watch:
        name, identity = target.backend.name, _identity(target)
        watch = self._watches.get(name)
        if watch is not None and not _is_other(watch.identity, identity):
            # What was not known yet may be by now.
            watch.identity = identity
            return watch
        if watch is not None:
            # Other software, or another machine: what was usual is so no more.
            self._forget(name)
            self._publisher.set_upkeep(name, is_degraded=False)
            self._tell_recovered(name, watch, self._clock())
        watch = self._watches[name] = _Watch(identity)
        return watch

    def _forget(self, name: str) -> None:
        watch = self._watches.pop(name)
        if watch.asking is not None:
            watch.asking.cancel()

    def _look(self, target: Target, watch: _Watch, now_s: float) -> None:
        name = target.backend.name
        was_usable, watch.was_usable = watch.was_usable, is_usable(target)
        if target.state.duty is Duty.MAINTENANCE:
            # For whoever was told it ends here: the operator has it. If it is slow afterwards, that is told anew.
            watch.began_at_s = 0.0
        look = watch.degradation.look(now_s)
        before, watch.grade = watch.grade, look.grade
        if look.grade is not before:
            self._turn(name, watch, before, look.words, now_s)
        elif look.grade is Grade.DEGRADED and watch.was_usable:
            if not was_usable:
                # It was restarted, down or looked after: it may well be another one now.
                self._try(name, watch, now_s)
            elif now_s >= watch.retry_at_s and watch.asking is None and self._is_in_service(name, now_s):
                self._retry(name, watch, now_s)

    def _turn(self, name: str, watch: _Watch, before: Grade, words: str, now_s: float) -> None:
        if watch.grade is Grade.DEGRADED:
            self._turn_degraded(name, watch, before, words, now_s)
        elif watch.grade is Grade.SOUND and watch.tried_at_s:
            self._publisher.set_upkeep(name, is_degraded=False)
            self._tell_recovered(name, watch, now_s)
            watch.began_at_s = watch.tried_at_s = watch.token_s = 0.0
            watch.sound_at_s = now_s

    def _tell_recovered(self, name: str, watch: _Watch, now_s: float) -> None:
        if watch.began_at_s:
            self._tell("backend.recovered_pace", {"backend": name, "lasted_s": round(now_s - watch.began_at_s, 3)})

    def _turn_degraded(self, name: str, watch: _Watch, before: Grade, words: str, now_s: float) -> None:
        self._publisher.set_upkeep(name, is_degraded=True)
        if not watch.began_at_s:
            watch.began_at_s = watch.tried_at_s = now_s
            if now_s >= watch.sound_at_s + SETTLED_S:
                watch.pause_s = PAUSE_S
            self._tell("backend.was_degraded", {"backend": name, "reason": words, "was": str(before)})
            self._ask(name, watch, self._learn_token)
        watch.retry_at_s = now_s + watch.pause_s
        watch.pause_s = min(PAUSE_S_MAX, 2 * watch.pause_s)

    def _is_in_service(self, name: str, now_s: float) -> bool:
        counts = self._tally.of(name)
        return not counts.ejected_until_s and counts.rest_until_s <= now_s

    # --- trials

    def _retry(self, name: str, watch: _Watch, now_s: float) -> None:
        if self._prove is None or not watch.token_s or now_s >= watch.tried_at_s + UNTRIED_S_MAX:
            self._try(name, watch, now_s)
        else:
            self._ask(name, watch, self._weigh_token)

    def _try(self, name: str, watch: _Watch, now_s: float) -> None:
        watch.degradation.begin_trial(now_s)
        watch.grade = watch.degradation.grade
        watch.tried_at_s = now_s
        self._publisher.set_upkeep(name, is_degraded=False)

    def _ask(self, name: str, watch: _Watch, take: Callable[[str, _Watch, Proof], None]) -> None:
        if self._prove is None or watch.asking is not None:
            return
        task = watch.asking = asyncio.get_running_loop().create_task(self._fetch(name, watch, take), name=f"degradation.{name}")
        task.add_done_callback(lambda done: _on_task_done(done, watch))

    async def _fetch(self, name: str, watch: _Watch, take: Callable[[str, _Watch, Proof], None]) -> None:
        if self._prove is not None:
            proof = await self._prove(name)
            if watch.grade is Grade.DEGRADED:
                take(name, watch, proof)

    def _learn_token(self, _name: str, watch: _Watch, proof: Proof) -> None:
        watch.token_s = proof.first_content_s

    def _weigh_token(self, name: str, watch: _Watch, proof: Proof) -> None:
        now_s = self._clock()
        is_faster = 0.0 < proof.first_content_s <= TOKEN_SHARE * watch.token_s
        # Nothing could be asked for: only clients can tell.
        is_untold = proof.is_good and not proof.first_content_s
        if is_faster or is_untold:
            self._try(name, watch, now_s)
            return
        watch.retry_at_s = now_s + watch.pause_s
        watch.pause_s = min(PAUSE_S_MAX, 2 * watch.pause_s)


def _on_task_done(task: asyncio.Task[None], watch: _Watch) -> None:
    watch.asking = None
    if not task.cancelled() and (error := task.exception()) is not None:
        # Our own mistake: no client has noticed, somebody must.
        context = {"message": "asking a degraded backend failed internally", "exception": error, "task": task}
        task.get_loop().call_exception_handler(context)


def _identity(target: Target) -> tuple[object, ...]:
    state = target.state
    engine = "" if not state.dialects else str(state.engine)
    return target.backend.address, target.backend.engine, engine, state.version


def _is_other(before: tuple[object, ...], now: tuple[object, ...]) -> bool:
    """Whether something that was known is not as it was."""
    return any(old and new and old != new for old, new in zip(before, now, strict=True))
