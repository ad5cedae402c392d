"""`understudy check`: read the file and say what it means, or every mistake in it.

Called by cli.main. Starts nothing and changes nothing; with `--probe` it asks each backend once, as the daemon's probe does.
Never prints a key.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import Any

from understudy.cli.check_upkeep import alert_lines, generate_words, slo_lines, upkeep_lines
from understudy.cli.interruptible import run_interruptible
from understudy.config.colors import color_notes
from understudy.config.compile import alert_channels, compile_plan
from understudy.config.load import DEFAULT_URL, find_file, from_urls, load_file
from understudy.config.quantities import write_duration, write_ratio, write_share, write_size
from understudy.config.schema import Settings
from understudy.config.store_address import RedisUrl
from understudy.config.upkeep import upkeep_notes
from understudy.core.color import GuardRules, Prompt, RolloutRules, Stick, SystemPlace
from understudy.core.health import Seen
from understudy.core.snapshot import (
    Backend,
    Balance,
    CacheWhen,
    EngineKind,
    HealthRules,
    OnError,
    ResumeRule,
    Role,
    RoutingPlan,
    Timeouts,
)
from understudy.engines.contract import Finding
from understudy.errors import ConfigError, Mistake
from understudy.sessions.redis_address import read_redis_address

Probe = Callable[[Backend], Coroutine[Any, Any, Finding]]

_BALANCE_MEANS = {
    Balance.ORDERED: "the first that is usable, in this order",
    Balance.ROUND_ROBIN: "each in turn, by weight",
    Balance.LEAST_IN_FLIGHT: "the one with the fewest exchanges in flight, by weight",
    Balance.FASTEST: "the one that gave its first content soonest of late",
    Balance.SESSION: "always the same one for the same X-Session-ID",
}
_RESUME_MEANS = {
    ResumeRule.ON: "are continued on another backend",
    ResumeRule.EXACT: "are continued on another backend, by token ids where the engine has them",
    ResumeRule.OFF: "are not continued",
}
_ON_ERROR_MEANS = {
    OnError.ANSWER: "is answered without what was kept",
    OnError.REFUSE: "gets 503",
}
_CACHE_MEANS = {
    CacheWhen.ALWAYS: "at once",
    CacheWhen.NO_BACKEND: "when no backend can answer",
}
_STICK_MEANS = {
    Stick.SESSION: "stays where it began",
    Stick.COOKIE: "stays where it began, by a cookie where it has no X-Session-ID",
    Stick.NONE: "goes anew with every request",
}
_SEEN_MEANS = {Seen.GOOD: "up", Seen.LOADING: "loading", Seen.BAD: "down"}


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser(
        "check",
        help="read the file, say what it means or every mistake in it",
        description="Reads the file and prints what it means, exit 0; or every mistake with its line and column, exit 1.",
    )
    parser.add_argument("-c", "--config", metavar="FILE", type=Path, help="the file (default: as for serve)")
    parser.add_argument("--probe", action="store_true", help="also contact each backend once and print what was found")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the meaning on standard output, exit 0; or the mistakes on standard error, exit 1."""
    path = args.config or find_file()
    try:
        settings = load_file(path, os.environ) if path else from_urls([DEFAULT_URL])
        _check_store(settings, path)
        _check_alerts(settings, path)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    source = f"{path} can be used." if path else f"There is no file; without one, the backend is {DEFAULT_URL}."
    _print([source, "", *meaning(settings, channel_notes(settings))])
    if args.probe:
        plan = compile_plan(settings)
        findings = run_interruptible(probe_all(plan, daemons_probe()))
        _print(["", "What the backends said", *found_lines(plan, findings)])
    return 0


def _check_store(settings: Settings, path: Path | None) -> None:
    """Read what config takes as it stands, the URL of a Redis. Raises ConfigError."""
    store = settings.sessions.store
    if isinstance(store, RedisUrl):
        try:
            read_redis_address(store.text)
        except ValueError as error:
            mistake = Mistake("sessions.store", str(store), str(error).removeprefix("want "), str(path or ""))
            raise ConfigError((mistake,)) from error


def _check_alerts(settings: Settings, path: Path | None) -> None:
    """See whether what sends alerts is installed, as the daemon does at its start. Raises ConfigError."""
    channels = alert_channels(settings)
    if channels:
        from understudy.controlplane.alert_delivery import INSTALL, missing_extra

        if missing_extra():
            found = "channels, and no package apprise to send by"
            raise ConfigError((Mistake("alerts", found, f"{INSTALL}, or no channel", str(path or "")),))


def channel_notes(settings: Settings) -> Iterator[str]:
    """Say of each channel of alerts that Apprise cannot send to why that is so. Imports Apprise where there is a channel."""
    for index, written in enumerate(settings.alerts):
        if written.url:
            from understudy.controlplane.alert_delivery import check, safe_name

            why = check(written.url)
            if why:
                yield f"alerts[{index}] ({safe_name(written.url)}) will tell nobody: {why}"


def meaning(settings: Settings, more_notes: Iterable[str] = ()) -> Iterator[str]:
    """Say line by line, in plain words, what the settings mean, and what may surprise in it at the end. No key is shown."""
    plan = compile_plan(settings)
    yield f"Clients connect to {', '.join(map(str, settings.listen))}."
    token = "asks for the token" if settings.admin.token else "asks for no token"
    yield f"The admin port is {settings.admin.listen} and {token}."
    yield ""
    for role, words in (
        (Role.PRIMARY, "Backends, in order of preference"),
        (Role.BACKUP, "Backups, when no primary can be used"),
    ):
        backends = [backend for backend in plan.backends if backend.role is role]
        if backends:
            yield words
            yield from (line for backend in backends for line in _backend_lines(backend))
    if len(plan.backends) > 1:
        yield f"  Chosen among several: {_BALANCE_MEANS[plan.balance]} (balance: {plan.balance})."
    yield ""
    yield from _rule_lines(settings, plan)
    notes = [*_path_notes(plan), *color_notes(settings), *upkeep_notes(settings), *more_notes]
    if notes:
        yield ""
        yield from (f"note: {note}" for note in notes)


def _backend_lines(backend: Backend) -> Iterator[str]:
    engine = "engine found by the probe" if backend.engine is EngineKind.AUTO else f"engine {backend.engine}"
    facts = [engine]
    if backend.color != "none":
        facts.append(f"color {backend.color}")
    if backend.weight != 1:
        facts.append(f"weight {backend.weight}")
    if backend.in_flight_max:
        facts.append(f"at most {backend.in_flight_max} exchanges at once")
    if backend.api_key:
        facts.append("sends its own key")
    facts += _prompt_facts(backend.prompt)
    address = backend.address
    yield f"  {backend.name}: {address.scheme}://{address.authority}{address.prefix}, {', '.join(facts)}"
    for client_name, own_name in backend.models:
        yield f"    {client_name} is {own_name} there"
    yield from (f"    {line}" for line in upkeep_lines(backend))


def _path_notes(plan: RoutingPlan) -> Iterator[str]:
    for backend in plan.backends:
        if (prefix := backend.address.prefix).endswith("/v1"):
            yield f"clients' paths begin with /v1 already, so {backend.name} will be asked for {prefix}/v1/..."


def _rule_lines(settings: Settings, plan: RoutingPlan) -> Iterator[str]:
    timeouts, failover = plan.timeouts, plan.failover
    yield from _health_lines(plan)
    total = f"{write_duration(timeouts.total_s)} for the whole" if timeouts.total_s else "no limit for the whole"
    yield f"Patience: {_patience(timeouts)}, {total}."
    for backend in plan.backends:
        if backend.timeouts != timeouts:
            yield f"Patience with {backend.name}: {_patience(backend.timeouts)}."
    tries = f"at most {failover.tries} attempts" if failover.tries else "every usable backend once"
    hold = (
        f"waits {write_duration(failover.hold_s)} for a usable backend"
        if failover.hold_s
        else "refuses at once when none is usable"
    )
    yield f"Failover: {tries}, retries up to {write_share(failover.budget)} of the exchanges; {hold}."
    yield from _answer_lines(plan)
    yield from _session_lines(settings, plan)
    yield from _rollout_lines(plan.rollout)
    yield from slo_lines(plan.slo)
    yield from alert_lines(alert_channels(settings))
    yield f"Requests may have {write_size(failover.body_bytes_max)}."
    paths = "are relayed" if plan.allow_admin_paths else "get 403"
    yield f"The engines' model-management paths {paths}."
    slow = f"; exchanges over {write_duration(settings.log.slow)} are said at warning level" if settings.log.slow else ""
    yield f"Log: {settings.log.format}, from level {settings.log.level}{slow}."


def _patience(timeouts: Timeouts) -> str:
    return (
        f"{write_duration(timeouts.connect_s)} to connect, {write_duration(timeouts.first_token_s)} to the first content, "
        f"{write_duration(timeouts.stall_s)} of silence"
    )


def _answer_lines(plan: RoutingPlan) -> Iterator[str]:
    failover, limits = plan.failover, plan.limits
    whole = "those that are not streamed, too" if failover.assemble else "those that are not streamed begin again"
    yield f"Broken answers {_RESUME_MEANS[failover.resume]}{'' if failover.resume is ResumeRule.OFF else f'; {whole}'}."
    if failover.hedge:
        yield "A short prompt that waits unusually long is sent to a second backend."
    if plan.timeouts.keepalive_s:
        yield f"A client that waits on an event stream gets a comment every {write_duration(plan.timeouts.keepalive_s)}."
    room_s = limits.waiting_s_max or failover.hold_s
    count = len(plan.trusted_keys)
    trusted = f"; {count} trusted key{'s' * (count > 1)} may set who goes first" if count else ""
    yield f"At most {limits.waiting_max} exchanges wait, for room at most {write_duration(room_s)}{trusted}."


def _session_lines(settings: Settings, plan: RoutingPlan) -> Iterator[str]:
    written, rules, cache = settings.sessions, plan.sessions, plan.cache
    if rules.is_on:
        encrypted = "encrypted" if written.key else "not encrypted"
        tokens = f", {rules.tokens_max} tokens" if rules.tokens_max else ""
        wait = f"waits {write_duration(rules.lock_wait_s)} at most" if rules.lock_wait_s else "does not wait"
        yield f"Conversations are kept in {written.store} as {written.format}, {encrypted}, for {write_duration(written.ttl)}."
        yield f"Each has at most {rules.messages_max} messages and {write_size(rules.bytes_max)}{tokens}; older turns fall off."
        yield f"A request {wait} for another one of its session; while they cannot be read it {_ON_ERROR_MEANS[rules.on_error]}."
    else:
        yield "Conversations are not kept."
    if cache.size_bytes:
        yield (
            f"Exact repeats are answered from up to {write_size(cache.size_bytes)} of the last {write_duration(cache.ttl_s)} "
            f"{_CACHE_MEANS[cache.when]}."
        )


def _rollout_lines(rules: RolloutRules) -> Iterator[str]:
    if not rules.is_on:
        return
    other = rules.active.other
    share = f", {_canary(rules)} to {other}" if rules.shares else ""
    yield f"New conversations go to {rules.active}{share}; a conversation {_STICK_MEANS[rules.stick]}{_stay(rules)}."
    if rules.shadow:
        most = f"at most {rules.shadow_in_flight_max} at once"
        yield f"{write_share(rules.shadow)} of the exchanges are also sent to {other}, {most}; what comes back is dropped."
    if rules.preview:
        yield "A browser chooses its color at /switch/blue and /switch/green, and gives it back at /switch/off."
    if rules.guard.is_on:
        yield _guard_line(rules.guard)
    for prompt, color in ((rules.blue, "Blue"), (rules.green, "Green")):
        if facts := _prompt_facts(prompt):
            yield f"{color} {' and '.join(facts)}."


def _canary(rules: RolloutRules) -> str:
    first, *later = (write_share(share) for share in rules.shares)
    return f"{first} of them, then {', '.join(later)}, every {write_duration(rules.every_s)}," if later else f"{first} of them"


def _stay(rules: RolloutRules) -> str:
    if rules.stick is Stick.NONE:
        return ""
    return f", for {write_duration(rules.stick_s_max)} after a change" if rules.stick_s_max else ", as long as it lasts"


def _guard_line(guard: GuardRules) -> str:
    bounds = []
    if guard.errors is not None:
        bounds.append(f"{write_share(guard.errors)} more of its attempts fail than the other's")
    if guard.ttft_p95 is not None:
        bounds.append(f"its first content takes over {write_ratio(guard.ttft_p95)} the other's time (95th percentile)")
    if guard.speed is not None:
        bounds.append(f"its speed is below {write_ratio(guard.speed)} the other's (median)")
    watched = f" and for {write_duration(guard.watch_s)} after a switch" if guard.watch_s else ""
    conversations = f"{'with' if guard.takes_sessions else 'without'} its conversations"
    return (
        f"Guard: in a canary{watched}, the new color is rolled back, {conversations}, when {', or '.join(bounds)}; "
        f"it looks at the last {write_duration(guard.window_s)}, from {guard.exchanges_min} exchanges of each color on."
    )


def _prompt_facts(prompt: Prompt) -> list[str]:
    facts = []
    if prompt.system:
        place = "before" if prompt.place is SystemPlace.BEFORE else "instead of"
        size = len(prompt.system)
        facts.append(f"puts a system prompt of {size} character{'s' * (size > 1)} {place} the client's")
    filled = [key for key, text in prompt.defaults if text != "null"]
    if filled:
        facts.append(f"fills in {', '.join(filled)}")
    return facts


def _health_lines(plan: RoutingPlan) -> Iterator[str]:
    groups: dict[HealthRules, list[str]] = {}
    for backend in plan.backends:
        groups.setdefault(backend.health, []).append(backend.name)
    for rules, names in groups.items():
        whose = f"Health of {', '.join(names)}" if len(groups) > 1 else "Health"
        ejected = (
            f"{rules.max_fails} failed exchanges in {write_duration(rules.fail_timeout_s)} rest a backend as long"
            if rules.max_fails
            else "failed exchanges rest no backend"
        )
        yield (
            f"{whose}: probed every {write_duration(rules.interval_s)} for at most {write_duration(rules.timeout_s)}; "
            f"up after {rules.rise} good probes, down after {rules.fall} bad ones; {ejected}"
            f"{generate_words(rules.generate)}."
        )


def daemons_probe() -> Probe:
    """Return the probe that the daemon makes, knowing nothing of what was found before."""
    from understudy.controlplane.fetcher import Fetcher

    fetcher = Fetcher()

    async def probe(backend: Backend) -> Finding:
        return await fetcher.fetch_finding(backend, backend.engine)

    return probe


async def probe_all(plan: RoutingPlan, probe: Probe) -> list[Finding]:
    """Probe all backends at once; findings in the plan's order. Each probe keeps to its backend's health.timeout."""
    async with asyncio.TaskGroup() as tasks:
        probes = [tasks.create_task(probe(backend), name=f"check.{backend.name}") for backend in plan.backends]
    return [task.result() for task in probes]


def found_lines(plan: RoutingPlan, findings: Iterable[Finding]) -> Iterator[str]:
    """Say what each backend answered, and which mapped models it does not list."""
    for backend, finding in zip(plan.backends, findings, strict=True):
        known = "" if finding.engine is EngineKind.AUTO else str(finding.engine)
        software = " ".join(word for word in (known or "engine not known", finding.version) if word)
        reason = f" ({finding.reason})" if finding.reason else ""
        yield f"  {backend.name}: {_SEEN_MEANS[finding.seen]}, {software}{reason}"
        if finding.models is None:
            continue
        listed = [model.name for model in finding.models]
        yield f"    lists {', '.join(listed)}" if listed else "    lists no model"
        for client_name, own_name in backend.models:
            if not {own_name, f"{own_name}:latest", own_name.removesuffix(":latest")} & set(listed):
                yield f"    does not list {own_name}, which clients call {client_name}"


def _print(lines: Iterable[str]) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
