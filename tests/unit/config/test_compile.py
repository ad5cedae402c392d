from understudy.config.compile import compile_plan
from understudy.config.load import load_text
from understudy.core.color import Color
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


def test_a_bare_file_compiles_to_the_defaults_of_the_plan() -> None:
    plan = compile_plan(load_text("backends: [{name: a, url: 'http://a'}]", {}))
    assert plan == RoutingPlan(backends=(Backend("a", Address("http", "a", 80)),))


def test_every_key_reaches_its_place_in_the_plan() -> None:
    text = """
backends:
  - {name: a, url: 'https://a:1/x', engine: vllm, role: backup, color: green, weight: 2, in_flight_max: 3, models: {m: n, o: n},
     api_key: k, timeouts: {stall: 9}}
health: {interval: 1, timeout: 2, rise: 3, fall: 4, max_fails: 5, fail_timeout: 6, slow_start: 7}
timeouts: {connect: 1, first_token: 2, stall: 3, total: 4, keepalive: 5}
failover: {tries: 1, budget: 50%, hold: 2, body_max: 3, resume: exact, assemble: no, hedge: yes}
balance: session
sessions: {store: 'file:/s', ttl: 1, messages_max: 2, bytes_max: 3KiB, tokens_max: 4, lock_wait: 5, on_error: refuse}
cache: {size: 1KiB, ttl: 2, when: always}
access: {allow_admin_paths: true, trusted: ["sha256:DIGEST"]}
limits: {head_max: 1, fields_max: 2, target_max: 3, head_timeout: 4, body_timeout: 5, idle_timeout: 6, write_idle: 7,
         connections_max: 8, waiting_max: 9, waiting_s_max: 10, drain_s_max: 11}
""".replace("DIGEST", "0aF1" * 16)
    health = HealthRules(1.0, 2.0, 3, 4, 5, 6.0, 7.0)
    own = Timeouts(1.0, 2.0, 9.0, 4.0, 5.0)
    models = (("m", "n"), ("o", "n"))
    backend = Backend(
        "a", Address("https", "a", 1, "/x"), EngineKind.VLLM, Role.BACKUP, 2, 3, models, "k", health, own, Color.GREEN
    )
    assert compile_plan(load_text(text, {})) == RoutingPlan(
        backends=(backend,),
        balance=Balance.SESSION,
        timeouts=Timeouts(1.0, 2.0, 3.0, 4.0, 5.0),
        failover=FailoverRules(1, 0.5, 2.0, 3, ResumeRule.EXACT, assemble=False, hedge=True),
        limits=Limits(1, 2, 3, 4.0, 5.0, 6.0, 7.0, 8, 9, 10.0, 11.0),
        sessions=SessionRules(True, 2, 3072, 4, 5.0, OnError.REFUSE),
        cache=CacheRules(1024, 2.0, CacheWhen.ALWAYS),
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
