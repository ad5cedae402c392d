"""Wire what there is only while there are two colors: the rollout's driver, colors of requests, the guard's witness, shadows.

Kept by daemon.wiring. Everything here is loaded and made with the first plan that has colors, and stays from then on.
"""

import secrets
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from understudy.core.color import Color
from understudy.core.rollout import Rollout
from understudy.core.snapshot import RoutingPlan
from understudy.errors import Mistake

if TYPE_CHECKING:
    from understudy.controlplane.rollout_driver import RolloutDriver
    from understudy.controlplane.shadows import Shadows
    from understudy.core.comparison import Comparison
    from understudy.core.switching import SwitchOutcome
    from understudy.daemon.wiring import Daemon

SECRET_BYTES = 32


class Colors:
    """`driver` is None until a plan has colors, `shadows` until one asks for them."""

    def __init__(self, daemon: "Daemon", env: Mapping[str, str]) -> None:
        self.driver: RolloutDriver | None = None
        self.shadows: Shadows | None = None
        self._daemon = daemon
        self._env = env
        self._comparison: Comparison | None = None
        self._guarded_by: object = None
        if daemon.published.current.plan.rollout.is_on:
            self._make_driver().begin()
            self.on_plan()

    @property
    def is_on(self) -> bool:
        """Whether the plan in force has colors."""
        return self._daemon.published.current.plan.rollout.is_on

    def offered(self, plan: RoutingPlan) -> tuple[Rollout | None, Mistake | None]:
        """Return what is in force with another plan, None for no change, and why that may not be, if so."""
        if not plan.rollout.is_on and self.driver is None:
            return None, None
        driver = self.driver or self._make_driver()
        rollout, refusal = driver.offered(plan)
        if refusal:
            active = plan.rollout.active
            want = f"{active.other} until {active} can take over, or understudy switch {active} --force"
            return rollout, Mistake("rollout.active", f"{active}, but {refusal}", want)
        return rollout, None

    def on_plan(self) -> None:
        """A plan was published with what was `offered` for it."""
        daemon, driver = self._daemon, self.driver
        relay, plan = daemon.relay, daemon.published.current.plan
        if driver is None:
            return
        driver.on_published_plan()
        rules = plan.rollout
        daemon.rollout = self if rules.is_on else None
        if not rules.is_on:
            relay.coloring = relay.witness = None
            return
        secret = driver.cookie_secret.encode()
        if relay.coloring is None:
            from understudy.dataplane.coloring import Coloring

            relay.coloring = Coloring(daemon.published, secret, time.time)
        relay.coloring.secret = secret
        self._watch(plan)
        if rules.shadow:
            # It stays, for those that are on their way when the file asks for no more.
            self._shadow()

    def _watch(self, plan: RoutingPlan) -> None:
        """Let the guard have its witness, which begins anew when what a color is has changed."""
        relay, comparison = self._daemon.relay, self._comparison
        if not plan.rollout.guard.is_on or comparison is None:
            relay.witness = None
            return
        if relay.witness is None:
            from understudy.dataplane.witness import Witness

            relay.witness = Witness(comparison)
        if plan.meaning != self._guarded_by:
            self._guarded_by = plan.meaning
            comparison.clear()

    def _shadow(self) -> None:
        daemon = self._daemon
        if self.shadows is None:
            from understudy.controlplane.shadows import Shadows
            from understudy.telemetry.shadow_counts import ShadowCounts

            self.shadows = Shadows(
                daemon.published,
                daemon.tally,
                ShadowCounts(),
                clock=daemon.clock,
                tell=daemon.tell,
                resolve=daemon.resolver.resolve,
            )
        if daemon.relay.shadowing is None:
            from understudy.dataplane.shadowing import Shadowing

            daemon.relay.shadowing = Shadowing(daemon.published, self.shadows, daemon.report)

    def _make_driver(self) -> "RolloutDriver":
        from understudy.controlplane.rollout_driver import RolloutDriver
        from understudy.controlplane.state_file import StateFile, state_path
        from understudy.core.comparison import Comparison

        daemon = self._daemon
        self._comparison = Comparison()
        self.driver = RolloutDriver(
            daemon.published,
            daemon.publisher,
            self._comparison,
            StateFile(state_path(self._env, daemon.source)),
            clock=daemon.clock,
            wall=time.time,
            tell=daemon.tell,
            ejected=self._ejected,
            secret=lambda: secrets.token_hex(SECRET_BYTES),
        )
        return self.driver

    def _ejected(self) -> tuple[str, ...]:
        daemon, now_s = self._daemon, self._daemon.clock()
        names = (backend.name for backend in daemon.published.current.plan.backends)
        return tuple(name for name in names if daemon.tally.of(name).ejected_until_s > now_s)

    def tick(self) -> None:
        """Let time pass: canary steps, the guard's looks."""
        if self.driver is not None:
            self.driver.tick()

    # --- the operator's word (admin.rollout_api)

    async def switch(self, to: Color, *, is_forced: bool) -> "SwitchOutcome":
        """Give the new conversations to `to`; see RolloutDriver.switch."""
        return await self._driven().switch(to, is_forced=is_forced)

    async def roll_back(self, *, takes_sessions: bool) -> "SwitchOutcome":
        """End the canary, or else take back the last switch; see RolloutDriver.roll_back."""
        return await self._driven().roll_back(takes_sessions=takes_sessions)

    async def set_canary(self, shares: tuple[float, ...] | None) -> "SwitchOutcome":
        """Begin or end a canary; see RolloutDriver.set_canary."""
        return await self._driven().set_canary(shares)

    def status(self) -> dict[str, Any]:
        """Return what is in force, as JSON values."""
        return {**self._driven().status(), "shadow": self._shadow_status()}

    def _driven(self) -> "RolloutDriver":
        if self.driver is None:
            raise RuntimeError("there are no colors to drive")
        return self.driver

    def _shadow_status(self) -> dict[str, Any] | None:
        rules = self._daemon.published.current.plan.rollout
        return self.shadows.facts() if self.shadows is not None and rules.shadow else None

    async def close(self) -> None:
        """End the shadows, and wait for what is being kept."""
        if self.shadows is not None:
            await self.shadows.close()
        if self.driver is not None:
            await self.driver.settle()
