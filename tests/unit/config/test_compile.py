from understudy.config.compile import compile_plan
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
