"""Turn settings as written into the plan that exchanges and probes follow.

Called by daemon at start and on every reload, and by `understudy check`. Pure; never fails for settings that were loaded.
"""

from dataclasses import replace
from typing import Final

from understudy.config.colors import tells_colors_apart
from understudy.config.schema import Settings
from understudy.config.schema_backends import AttemptTimeoutSettings, BackendSettings, HealthSettings
from understudy.config.schema_rollout import PromptSettings
from understudy.config.schema_upkeep import RestartSettings
from understudy.config.upkeep import restart_kinds
from understudy.core.color import GuardRules, Prompt, RolloutRules
from understudy.core.snapshot import (
    Backend,
    CacheRules,
    FailoverRules,
    HealthRules,
    Limits,
    RoutingPlan,
    SessionRules,
    Timeouts,
)
from understudy.core.upkeep import AlertChannel, RestartKind, RestartRules, Slo, WakeRules, WarmRules

_BACKOFF_S_MAX: Final = RestartRules(RestartKind.COMMAND).backoff_s_max


def compile_plan(settings: Settings) -> RoutingPlan:
    """Return the plan for `settings`: units in the names, each backend's own rules worked out, order kept."""
    written, failover, limits, sessions = settings.timeouts, settings.failover, settings.limits, settings.sessions
    timeouts = Timeouts(written.connect, written.first_token, written.stall, written.total, written.keepalive)
    return RoutingPlan(
        backends=tuple(_backend(backend, settings.health, timeouts) for backend in settings.backends),
        balance=settings.balance,
        timeouts=timeouts,
        failover=FailoverRules(
            tries=failover.tries,
            budget=failover.budget,
            hold_s=failover.hold,
            body_bytes_max=failover.body_max,
            resume=failover.resume,
            assemble=failover.assemble,
            hedge=failover.hedge,
        ),
        limits=Limits(
            head_bytes_max=limits.head_max,
            fields_max=limits.fields_max,
            target_bytes_max=limits.target_max,
            head_timeout_s=limits.head_timeout,
            body_timeout_s=limits.body_timeout,
            idle_timeout_s=limits.idle_timeout,
            write_idle_s=limits.write_idle,
            connections_max=limits.connections_max,
            waiting_max=limits.waiting_max,
            waiting_s_max=limits.waiting_s_max,
            drain_s_max=limits.drain_s_max,
        ),
        sessions=SessionRules(
            is_on=sessions.store is not None,
            messages_max=sessions.messages_max,
            bytes_max=sessions.bytes_max,
            tokens_max=sessions.tokens_max,
            lock_wait_s=sessions.lock_wait,
            on_error=sessions.on_error,
        ),
        cache=CacheRules(settings.cache.size, settings.cache.ttl, settings.cache.when),
        rollout=_rollout(settings),
        slo=Slo(settings.slo.errors, settings.slo.p99_first_content, settings.slo.gpu_busy, settings.slo.window),
        allow_admin_paths=settings.access.allow_admin_paths,
        trusted_keys=tuple(digest.partition(":")[2] for digest in settings.access.trusted),
    )


def alert_channels(settings: Settings) -> tuple[AlertChannel, ...]:
    """Return who is told of what happens, in the file's order; a channel whose URL is empty is left out."""
    return tuple(
        AlertChannel(
            url=alert.url,
            events=alert.events,
            language=alert.language,
            repeat_s=alert.repeat,
            quiet_from_min=alert.quiet[0] if alert.quiet else 0,
            quiet_to_min=alert.quiet[1] if alert.quiet else 0,
            quiet_below=alert.quiet_below,
        )
        for alert in settings.alerts
        if alert.url
    )


def _backend(written: BackendSettings, health: HealthSettings, timeouts: Timeouts) -> Backend:
    return Backend(
        name=written.name,
        address=written.url,
        engine=written.engine,
        role=written.role,
        color=written.color,
        weight=written.weight,
        in_flight_max=written.in_flight_max,
        models=tuple(written.models.items()),
        api_key=written.api_key,
        health=_rules(health, written.health),
        timeouts=_patience(timeouts, written.timeouts),
        prompt=_prompt(written),
        restart=_restart(written.restart),
        warm=WarmRules(written.warm, written.warm_idle),
        wake=WakeRules(written.wake.mac, written.wake.address, written.wake.port, written.wake.command),
        metrics_url=written.metrics_url,
    )


def _restart(written: RestartSettings) -> RestartRules | None:
    kinds = restart_kinds(written)
    if not kinds:
        return None
    kind = kinds[0]
    return RestartRules(
        kind=kind,
        argv=written.run if kind is RestartKind.RUN else written.command,
        subject=written.systemd or written.docker or written.http,
        env=tuple(written.env.items()),
        folder=written.folder,
        after=written.after,
        drain_s=written.drain,
        grace_s=written.grace,
        timeout_s=written.timeout,
        ready_s=written.ready,
        times_max=written.max.times,
        window_s=written.max.window_s,
        backoff_s=written.backoff,
        backoff_s_max=max(written.backoff, _BACKOFF_S_MAX),
        is_degraded_enough=written.degraded,
    )


def _rollout(settings: Settings) -> RolloutRules:
    written, guard = settings.rollout, settings.rollout.guard
    return RolloutRules(
        is_on=tells_colors_apart(settings),
        active=written.active,
        stick=written.stick,
        stick_s_max=written.stick_max,
        shares=written.canary,
        every_s=written.every,
        shadow=written.shadow,
        shadow_in_flight_max=written.shadow_in_flight_max,
        preview=written.preview,
        cookie_key=written.cookie_key,
        guard=GuardRules(
            errors=guard.errors,
            ttft_p95=guard.ttft_p95,
            speed=guard.speed,
            window_s=guard.window,
            exchanges_min=guard.min_exchanges,
            watch_s=guard.watch,
            takes_sessions=guard.sessions,
        ),
        blue=_prompt(written.blue),
        green=_prompt(written.green),
    )


def _prompt(written: PromptSettings | BackendSettings) -> Prompt:
    return Prompt(written.system, written.system_place, tuple(written.defaults.items()))


def _patience(common: Timeouts, own: AttemptTimeoutSettings) -> Timeouts:
    """Return the common timeouts with those that the backend has of its own."""
    return replace(common, **{f"{key}_s": getattr(own, key) for key in own.model_fields_set})


def _rules(common: HealthSettings, own: HealthSettings) -> HealthRules:
    """Return the common rules with the keys that the backend has of its own; a key it does not name is not replaced."""
    merged = common.model_copy(update={key: getattr(own, key) for key in own.model_fields_set})
    return HealthRules(
        interval_s=merged.interval,
        timeout_s=merged.timeout,
        rise=merged.rise,
        fall=merged.fall,
        max_fails=merged.max_fails,
        fail_timeout_s=merged.fail_timeout,
        slow_start_s=merged.slow_start,
        generate=merged.generate,
    )
