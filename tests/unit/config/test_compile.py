import pytest

from understudy.config.compile import alert_channels, compile_plan
from understudy.config.load import load_text
from understudy.core.color import Color, GuardRules, Prompt, RolloutRules, Stick, SystemPlace
from understudy.core.snapshot import (
    Address,
    Backend,
    Balance,
    CacheRules,
    CacheWhen,
    EngineKind,
    FailoverRules,
    HealthRules,
    Limits,
    OnError,
    ResumeRule,
    Role,
    RoutingPlan,
    SessionRules,
    Timeouts,
)
from understudy.core.upkeep import (
    NO_GENERATION,
    AlertChannel,
    GenerateRules,
    GenerateWhen,
    Language,
    RestartKind,
    RestartRules,
    Severity,
    Slo,
    WakeRules,
    WarmRules,
)


def test_a_bare_file_compiles_to_the_defaults_of_the_plan() -> None:
    plan = compile_plan(load_text("backends: [{name: a, url: 'http://a'}]", {}))
    assert plan == RoutingPlan(backends=(Backend("a", Address("http", "a", 80)),))


def test_every_key_reaches_its_place_in_the_plan() -> None:
    text = """
backends:
  - {name: a, url: 'https://a:1/x', engine: vllm, role: backup, color: green, weight: 2, in_flight_max: 3, models: {m: n, o: n},
     api_key: k, timeouts: {stall: 9}, system: s, system_place: instead, defaults: {temperature: 0.2, stop: ["1"]}}
  - {name: b, url: 'http://b', color: blue}
health: {interval: 1, timeout: 2, rise: 3, fall: 4, max_fails: 5, fail_timeout: 6, slow_start: 7}
timeouts: {connect: 1, first_token: 2, stall: 3, total: 4, keepalive: 5}
failover: {tries: 1, budget: 50%, hold: 2, body_max: 3, resume: exact, assemble: no, hedge: yes}
balance: session
sessions: {store: 'file:/s', ttl: 1, messages_max: 2, bytes_max: 3KiB, tokens_max: 4, lock_wait: 5, on_error: refuse}
cache: {size: 1KiB, ttl: 2, when: always}
rollout: {active: green, stick: cookie, stick_max: 1, canary: [5%, 25%, 100%], every: 2, shadow: 3%, shadow_in_flight_max: 4,
          preview: yes, cookie_key: kkkkkkkkkkkkkkkk, blue: {system: old}, green: {defaults: {top_k: 5}},
          guard: {errors: 2%, ttft_p95: 1.5x, speed: 0.7x, window: 6, min_exchanges: 7, watch: 8, sessions: no}}
access: {allow_admin_paths: true, trusted: ["sha256:DIGEST"]}
limits: {head_max: 1, fields_max: 2, target_max: 3, head_timeout: 4, body_timeout: 5, idle_timeout: 6, write_idle: 7,
         connections_max: 8, waiting_max: 9, waiting_s_max: 10, drain_s_max: 11}
""".replace("DIGEST", "0aF1" * 16)
    health = HealthRules(1.0, 2.0, 3, 4, 5, 6.0, 7.0)
    own = Timeouts(1.0, 2.0, 9.0, 4.0, 5.0)
    models = (("m", "n"), ("o", "n"))
    prompt = Prompt("s", SystemPlace.INSTEAD, (("temperature", "0.2"), ("stop", '["1"]')))
    backend = Backend(
        "a", Address("https", "a", 1, "/x"), EngineKind.VLLM, Role.BACKUP, 2, 3, models, "k", health, own, Color.GREEN, prompt
    )
    other = Backend("b", Address("http", "b", 80), health=health, timeouts=Timeouts(1.0, 2.0, 3.0, 4.0, 5.0), color=Color.BLUE)
    assert compile_plan(load_text(text, {})) == RoutingPlan(
        backends=(backend, other),
        balance=Balance.SESSION,
        timeouts=Timeouts(1.0, 2.0, 3.0, 4.0, 5.0),
        failover=FailoverRules(1, 0.5, 2.0, 3, ResumeRule.EXACT, assemble=False, hedge=True),
        limits=Limits(1, 2, 3, 4.0, 5.0, 6.0, 7.0, 8, 9, 10.0, 11.0),
        sessions=SessionRules(True, 2, 3072, 4, 5.0, OnError.REFUSE),
        cache=CacheRules(1024, 2.0, CacheWhen.ALWAYS),
        rollout=RolloutRules(
            is_on=True,
            active=Color.GREEN,
            stick=Stick.COOKIE,
            stick_s_max=1.0,
            shares=(0.05, 0.25, 1.0),
            every_s=2.0,
            shadow=0.03,
            shadow_in_flight_max=4,
            preview=True,
            cookie_key="k" * 16,
            guard=GuardRules(0.02, 1.5, 0.7, 6.0, 7, 8.0, takes_sessions=False),
            blue=Prompt("old"),
            green=Prompt(defaults=(("top_k", "5"),)),
        ),
        allow_admin_paths=True,
        trusted_keys=("0af1" * 16,),
    )


def test_a_backends_own_health_replaces_only_the_keys_it_names() -> None:
    text = """
health: {rise: 5, interval: 9s}
backends:
  - {name: a, url: 'http://a', health: {interval: 5s}}
  - {name: b, url: 'http://b'}
"""
    own, common = compile_plan(load_text(text, {})).backends
    # 5s is also the default: that the backend wrote it is what counts.
    assert (own.health.interval_s, own.health.rise) == (5.0, 5)
    assert (common.health.interval_s, common.health.rise) == (9.0, 5)


def test_a_backends_own_timeouts_replace_only_the_keys_they_name() -> None:
    text = """
timeouts: {stall: 9s, first_token: 20s, total: 7m}
backends:
  - {name: a, url: 'http://a', timeouts: {stall: 30s}}
  - {name: b, url: 'http://b'}
"""
    plan = compile_plan(load_text(text, {}))
    own, common = plan.backends
    assert (own.timeouts.stall_s, own.timeouts.first_token_s, own.timeouts.total_s) == (30.0, 20.0, 420.0)
    assert common.timeouts == plan.timeouts


def test_a_prompt_of_a_color_turns_the_rollout_on_without_any_colored_backend() -> None:
    bare = "backends: [{name: a, url: 'http://a', system: x}]\n"
    assert not compile_plan(load_text(bare, {})).rollout.is_on
    assert compile_plan(load_text(bare + "rollout: {green: {system: y}}\n", {})).rollout.is_on


def test_how_backends_are_kept_reaches_its_place_in_the_plan() -> None:
    text = """
health: {generate: suspicious}
slo: {errors: 1%, p99_first_content: 2, gpu_busy: 3%, window: 14}
backends:
  - {name: a, url: 'http://a', warm: [m, n], warm_idle: 1, metrics_url: 'http://a/metrics',
     wake: {mac: AA-BB-CC-DD-EE-FF, address: 10.0.0.255, port: 7},
     restart: {run: [r, -x], env: {A: 1, B: ''}, folder: /f, after: 1, drain: 2, grace: 3, timeout: 4, ready: 5, max: 6 per 7,
               backoff: 8, degraded: yes}}
  - {name: b, url: 'http://b', warm_idle: always, wake: {command: [w, x]}, health: {generate: 9}}
"""
    plan = compile_plan(load_text(text, {}))
    first, second = plan.backends
    assert first.restart == RestartRules(
        kind=RestartKind.RUN,
        argv=("r", "-x"),
        env=(("A", "1"), ("B", "")),
        folder="/f",
        after=1,
        drain_s=2.0,
        grace_s=3.0,
        timeout_s=4.0,
        ready_s=5.0,
        times_max=6,
        window_s=7.0,
        backoff_s=8.0,
        is_degraded_enough=True,
    )
    assert first.warm == WarmRules(("m", "n"), 1.0)
    assert first.wake == WakeRules("aa:bb:cc:dd:ee:ff", "10.0.0.255", 7)
    assert first.metrics_url == "http://a/metrics"
    assert first.health.generate == GenerateRules(GenerateWhen.SUSPICIOUS)
    assert (second.restart, second.warm, second.wake) == (None, WarmRules((), 0.0), WakeRules(argv=("w", "x")))
    assert second.health.generate == GenerateRules(GenerateWhen.EVERY, 9.0)
    assert plan.slo == Slo(0.01, 2.0, 0.03, 14.0)


def test_a_backend_may_turn_generating_off_for_itself() -> None:
    text = "health: {generate: 1m}\nbackends: [{name: a, url: 'http://a', health: {generate: off}}]"
    assert compile_plan(load_text(text, {})).backends[0].health.generate == NO_GENERATION


@pytest.mark.parametrize(
    ("restart", "rules"),
    [
        ("command: [a, b]", RestartRules(RestartKind.COMMAND, argv=("a", "b"))),
        ("systemd: u.service", RestartRules(RestartKind.SYSTEMD, subject="u.service")),
        ("docker: c", RestartRules(RestartKind.DOCKER, subject="c")),
        ("http: 'http://h?k'", RestartRules(RestartKind.HTTP, subject="http://h?k")),
        ("systemd: u, backoff: 1h", RestartRules(RestartKind.SYSTEMD, subject="u", backoff_s=3600.0, backoff_s_max=3600.0)),
    ],
)
def test_each_means_of_a_restart_becomes_its_rules(restart: str, rules: RestartRules) -> None:
    text = f"backends: [{{name: a, url: 'http://a', restart: {{{restart}}}}}]"
    assert compile_plan(load_text(text, {})).backends[0].restart == rules


def test_channels_keep_their_order_and_one_without_a_url_is_left_out() -> None:
    text = """
backends: [{name: a, url: 'http://a'}]
alerts:
  - {url: 'json://a', events: [slo.broken], language: zh, repeat: 1, quiet: 22:00-07:00, quiet_below: info}
  - {url: '${U:-}'}
  - {url: 'json://b'}
"""
    settings = load_text(text, {})
    assert alert_channels(settings) == (
        AlertChannel("json://a", ("slo.broken",), Language.CHINESE, 1.0, 22 * 60, 7 * 60, Severity.INFO),
        AlertChannel("json://b"),
    )
    assert compile_plan(settings) == compile_plan(load_text("backends: [{name: a, url: 'http://a'}]", {}))
