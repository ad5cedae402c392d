from understudy.config.changes import keep_until_restart, written_changes
from understudy.config.load import load_text
from understudy.config.schema import Settings

A = "  - {name: a, url: 'http://a'"
B = "  - {name: b, url: 'http://b'}\n"


def file(*backends: str, rest: str = "") -> Settings:
    return load_text("backends:\n" + "".join(backends) + rest, {})


def changes(old: Settings, new: Settings) -> list[str]:
    return list(written_changes(old, new))


def test_the_same_settings_have_no_changes() -> None:
    assert changes(file(A + "}\n"), file(A + ", weight: 1}\n", rest="health: {rise: 2}\n")) == []


def test_backends_come_go_and_move() -> None:
    assert changes(file(A + "}\n"), file(A + "}\n", B)) == ["backends: b added"]
    assert changes(file(A + "}\n", B), file(B)) == ["backends: a removed"]
    assert changes(file(A + "}\n", B), file(B, A + "}\n")) == ["backends: order is now b, a"]


def test_values_are_written_as_in_the_file() -> None:
    new = file(
        "  - {name: a, url: 'http://c:1', weight: 3, models: {m: n}, health: {interval: 1m}, timeouts: {stall: 4s}}\n",
        rest="timeouts: {stall: 20s}\naccess: {allow_admin_paths: yes}\n"
        "log: {level: debug}\nfailover: {budget: 0.5, resume: no, body_max: 1KiB}\n",
    )
    assert changes(file(A + "}\n"), new) == [
        "backends.a.url: http://a:80 -> http://c:1",
        "backends.a.weight: 1 -> 3",
        "backends.a.models.m: not set -> n",
        "backends.a.health.interval: not set -> 60s",
        "backends.a.timeouts.stall: not set -> 4s",
        "timeouts.stall: 30s -> 20s",
        "failover.budget: 20% -> 50%",
        "failover.resume: true -> false",
        "failover.body_max: 32MiB -> 1KiB",
        "access.allow_admin_paths: false -> true",
        "log.level: info -> debug",
    ]


def test_a_health_key_of_a_backend_that_equals_the_common_one_is_a_change() -> None:
    assert changes(file(A + "}\n"), file(A + ", health: {rise: 2}}\n")) == ["backends.a.health.rise: not set -> 2"]


def test_a_changed_key_is_told_without_its_value() -> None:
    assert changes(file(A + ", api_key: hunter1}\n"), file(A + ", api_key: hunter2}\n")) == ["backends.a.api_key: changed"]
    trusting = file(A + "}\n", rest=f"access: {{trusted: ['sha256:{'0' * 64}']}}\n")
    assert changes(file(A + "}\n"), trusting) == ["access.trusted: changed"]


def test_what_needs_a_restart_is_named_and_kept_as_it_runs() -> None:
    running = file(B)
    new = file(
        B,
        rest="listen: ':::1'\n".replace(":::1", "[::]:1")
        + "admin: {listen: '[::1]:2', token: t}\nlog: {format: json, level: debug}\n",
    )
    kept, needs_restart = keep_until_restart(new, running)
    assert needs_restart == ("listen", "admin.listen", "admin.token", "log.format")
    assert (kept.listen, kept.admin, kept.log.format) == (running.listen, running.admin, running.log.format)
    assert changes(running, kept) == ["log.level: info -> debug"]


def test_a_store_stays_as_it_is_until_a_restart_and_its_bounds_change_at_once() -> None:
    running = file(B, rest=f"sessions: {{store: 'redis://:hunter1@cache', key: {'0' * 64}}}\n")
    new = file(
        B,
        rest=f"sessions: {{store: 'redis://:hunter2@cache', key: {'1' * 64}, format: msgpack, timeout: 2s, prefix: x,"
        " ttl: 1h, messages_max: 10, lock_wait: 0s, on_error: refuse}\ncache: {size: 1MiB}\n",
    )
    kept, needs_restart = keep_until_restart(new, running)
    assert needs_restart == ("sessions.store", "sessions.format", "sessions.timeout", "sessions.prefix", "sessions.key")
    fixed = ("store", "format", "timeout", "prefix", "key")
    assert all(getattr(kept.sessions, key) == getattr(running.sessions, key) for key in fixed)
    assert changes(running, kept) == [
        "sessions.ttl: 24h -> 1h",
        "sessions.messages_max: 200 -> 10",
        "sessions.lock_wait: 30s -> 0s",
        "sessions.on_error: answer -> refuse",
        "cache.size: 0 -> 1MiB",
    ]


def test_what_opens_the_store_is_told_without_its_value() -> None:
    told = changes(file(B), file(B, rest=f"sessions: {{store: 'redis://:hunter2@cache', key: {'1' * 64}}}\n"))
    assert told == ["sessions.store: none -> redis://:***@cache", "sessions.key: changed"]


def test_a_rollout_changes_at_once_line_by_line() -> None:
    running = file(A + ", color: blue}\n", B)
    new = file(
        A + ", color: green, system: hunter2, defaults: {temperature: 0.2, stop: [hunter2], effort: low}}\n",
        B,
        rest="rollout: {active: green, canary: [5%, 100%], every: 5m, shadow: 10%, preview: yes, stick: cookie,"
        f" cookie_key: {'hunter2' * 3}, guard: {{errors: 2%, ttft_p95: 1.5x}},"
        " green: {system: hunter2, system_place: instead, defaults: {user: hunter two}}}\nlog: {slow: 3s}\n",
    )
    kept, needs_restart = keep_until_restart(new, running)
    assert (kept, needs_restart) == (new, ())
    assert changes(running, kept) == [
        "backends.a.color: blue -> green",
        "backends.a.system: changed",
        "backends.a.defaults.temperature: not set -> 0.2",
        "backends.a.defaults.stop: changed",
        'backends.a.defaults.effort: not set -> "low"',
        "rollout.active: blue -> green",
        "rollout.stick: session -> cookie",
        "rollout.canary: 0% -> 5%, 100%",
        "rollout.every: 10m -> 5m",
        "rollout.shadow: 0% -> 10%",
        "rollout.preview: false -> true",
        "rollout.cookie_key: changed",
        "rollout.guard.errors: off -> 2%",
        "rollout.guard.ttft_p95: off -> 1.5x",
        "rollout.green.system: changed",
        "rollout.green.system_place: before -> instead",
        "log.slow: 0s -> 3s",
        "rollout.green.defaults.user: changed",
    ]


def test_a_default_that_goes_is_told_and_one_that_was_text_is_not_shown() -> None:
    some = file(A + ", defaults: {temperature: 0.2, note: 'a prompt', think: true}}\n")
    assert changes(some, file(A + ", defaults: {think: false}}\n")) == [
        "backends.a.defaults.temperature: 0.2 -> not set",
        "backends.a.defaults.note: changed",
        "backends.a.defaults.think: true -> false",
    ]


def test_nothing_needs_a_restart_when_nothing_of_it_changed() -> None:
    assert keep_until_restart(file(B), file(A + "}\n")) == (file(B), ())


def test_how_backends_are_kept_changes_at_once_and_what_may_hold_a_secret_is_not_shown() -> None:
    running = file(A + "}\n")
    new = file(
        A + ", warm: [m, n], warm_idle: always, wake: 'AA-BB-CC-DD-EE-FF', metrics_url: 'http://:hunter2@b',"
        " restart: {run: [hunter2], env: {TOKEN: hunter2}, folder: /srv, max: 3 per 10m, degraded: yes},"
        " health: {generate: 10m}}\n",
        rest="health: {generate: suspicious}\nslo: {errors: 0.1%, p99_first_content: 1s, gpu_busy: 70%}\n",
    )
    kept, needs_restart = keep_until_restart(new, running)
    assert (kept, needs_restart) == (new, ())
    assert changes(running, new) == [
        "backends.a.restart.run: changed",
        "backends.a.restart.folder: '' -> /srv",
        "backends.a.restart.max: 5 per 1h -> 3 per 10m",
        "backends.a.restart.degraded: false -> true",
        "backends.a.warm: [] -> m, n",
        "backends.a.warm_idle: 30m -> always",
        "backends.a.wake.mac: '' -> aa:bb:cc:dd:ee:ff",
        "backends.a.metrics_url: changed",
        "backends.a.restart.env.TOKEN: changed",
        "backends.a.health.generate: not set -> 10m",
        "health.generate: off -> suspicious",
        "slo.errors: off -> 0.1%",
        "slo.p99_first_content: off -> 1s",
        "slo.gpu_busy: off -> 70%",
    ]


def test_a_command_that_only_looks_the_same_is_a_change() -> None:
    """What is not told as changed is not put in force either."""
    one, two = (file(A + f", restart: {{command: {argv}}}}}\n") for argv in ("['a, b']", "[a, b]"))
    assert changes(one, two) == ["backends.a.restart.command: changed"]
    posted = (file(A + f", restart: {{http: 'http://h?{key}'}}}}\n") for key in ("hunter1", "hunter2"))
    assert changes(*posted) == ["backends.a.restart.http: changed"]


def test_channels_come_go_and_change_by_their_place() -> None:
    one = file(B, rest="alerts: [{url: 'json://hunter1'}]\n")
    two = file(B, rest="alerts: [{url: 'json://hunter2', events: [slo.broken, pool.empty], quiet: 22:00-07:00}, {url: ''}]\n")
    assert changes(one, two) == [
        "alerts[0].url: changed",
        "alerts[0].events: [] -> slo.broken, pool.empty",
        "alerts[0].quiet: off -> 22:00-07:00",
        "alerts[1]: added",
    ]
    assert changes(two, file(B)) == ["alerts[0]: removed", "alerts[1]: removed"]
