"""What is said of a file that reads as YAML and cannot be used: the words, the place, and what is never shown."""

import pytest

from understudy.config.addresses import ListenAddress
from understudy.config.load import load_text
from understudy.config.validation import address_clashes, written_path
from understudy.errors import ConfigError

WANT_BACKENDS = "for example backends: - {name: pi, url: http://192.168.1.100:11434}"
PI = "backends: [{name: pi, url: 'http://pi'}]\n"
A_PI = "backends: [{name: pi, url: 'http://pi', "


def mistakes_of(text: str, **env: str) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        load_text(text, env, "f")
    return [str(mistake) for mistake in refused.value.mistakes]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("backends:\n  - name: pi\n    url: pi:80\n", "f:3:10: backends[0].url: found pi:80; want a URL such as "),
        ("backends:\n  - name: pi\n", "f:2:5: backends[0].url: found nothing; want this key, for example url: http://192.168.1.100:11434"),
        ("log: {}\n", "f:1:1: backends: found nothing; want this key, " + WANT_BACKENDS),
        ("backends:\n", "f:1:10: backends: found nothing; want a list, " + WANT_BACKENDS),
        ("backends: []\n", "f:1:11: backends: found an empty list; want at least one, " + WANT_BACKENDS),
        (PI + "balance: best\n", "f:2:10: balance: found best; want one of ordered, round_robin, least_in_flight, fa"),
        (PI + "timeouts: {stall: }\n", "f:2:19: timeouts.stall: found nothing; want a duration"),
        (PI + "timeouts: {stal: 1s}\n", "f:2:12: timeouts.stal: found an unknown key; want stall"),
        (PI + "health: 5s\n", "f:2:9: health: found 5s; want keys and values"),
        (PI + "health: [5s]\n", "f:2:9: health: found a list; want keys and values"),
        (PI + "listen: []\n", "f:2:9: listen: found an empty list; want at least one"),
        (PI + "listen: [1, 'a:1']\n", "f:2:10: listen[0]: found 1; want HOST:PORT such as"),
        (PI + "log: {level: loud}\n", "f:2:14: log.level: found loud; want one of debug, info, warning, error"),
        (PI + "limits: {waiting_max: -1}\n", "f:2:23: limits.waiting_max: found -1; want a whole number of 0 or more"),
        (PI + "access: {allow_admin_paths: 2}\n", "f:2:29: access.allow_admin_paths: found 2; want true or false"),
        (PI + "failover: {resume: maybe}\n", "f:2:20: failover.resume: found maybe; want true, exact or false"),
        (PI + "timeouts: {keepalive: x}\n", "f:2:23: timeouts.keepalive: found x; want a duration"),
        (PI + "limits: {waiting_s_max: x}\n", "f:2:25: limits.waiting_s_max: found x; want a duration"),
        (PI + "sessions: {store: sqlite}\n", "f:2:19: sessions.store: found sqlite; want none, file:/absolute/path or redis://"),
        (PI + "sessions: {store: 'file:a'}\n", "f:2:19: sessions.store: found file:a; want file: and an absolute path"),
        (PI + "sessions: {format: xml}\n", "f:2:20: sessions.format: found xml; want one of json, msgpack"),
        (PI + "sessions: {ttl: 0}\n", "f:2:17: sessions.ttl: found 0; want more than 0: a duration"),
        (PI + "sessions: {messages_max: 1}\n", "f:2:26: sessions.messages_max: found 1; want a whole number of 2 or more"),
        (PI + "sessions: {bytes_max: 512}\n", "f:2:23: sessions.bytes_max: found 512; want at least 1KiB"),
        (PI + "sessions: {on_error: cry}\n", "f:2:22: sessions.on_error: found cry; want one of answer, refuse"),
        (PI + "sessions: {timeout: 0s}\n", "f:2:21: sessions.timeout: found 0s; want more than 0"),
        (PI + "sessions: {prefix: 'a*'}\n", "f:2:20: sessions.prefix: found a*; want 1 to 64 characters"),
        (PI + "cache: {size: x}\n", "f:2:15: cache.size: found x; want a size"),
        (PI + "cache: {when: never}\n", "f:2:15: cache.when: found never; want one of always, no_backend"),
        (PI + "rollout: {active: none}\n", "f:2:19: rollout.active: found none; want one of blue, green"),
        (PI + "rollout: {active: green}\n", "f:2:19: rollout.active: found green, and no backend is green; want a backend with"),
        (PI + "rollout: {canary: 5%}\n", "f:2:19: rollout.canary: found 5%, and no backend is green; want a backend with color:"),
        (PI + "rollout: {canary: [5%]}\n", "f:2:19: rollout.canary: found a list, and no backend is green; want a backend w"),
        (PI + "rollout: {shadow: 5%}\n", "f:2:19: rollout.shadow: found 5%, and no backend is green; want a backend with color:"),
        (PI + "rollout: {canary: 101%}\n", "f:2:19: rollout.canary: found 101%; want a share from 0% to 100%"),
        (PI + "rollout: {canary: [5%, x]}\n", "f:2:24: rollout.canary[1]: found x; want a share from 0% to 100%"),
        (PI + "rollout: {canary: [5%, 5%]}\n", "f:2:19: rollout.canary: found a list whose share 2 is not larger than"),
        (PI + "rollout: {canary: [0, 5%]}\n", "f:2:19: rollout.canary: found a list whose share 1 is not more than 0%; want a"),
        (PI + "rollout: {canary: 1}\n", "f:2:19: rollout.canary: found 100% as the first step; want a smaller share, or active"),
        (PI + "rollout: {canary: [100%], active: green}\n", "f:2:19: rollout.canary: found 100% as the first step; want a s"),
        (PI + "rollout: {canary: []}\n", "f:2:19: rollout.canary: found a list of 0 shares; want a share such as 5%, or a list"),
        (PI + "rollout: {stick: ever}\n", "f:2:18: rollout.stick: found ever; want one of session, cookie, none"),
        (PI + "rollout: {guard: {errors: 2x}}\n", "f:2:27: rollout.guard.errors: found 2x; want a share from 0% to 100%, suc"),
        (PI + "rollout:\n  guard:\n    ttft_p95: 1,5x\n", "f:4:15: rollout.guard.ttft_p95: found 1,5x; want a ratio of 1x or"),
        (PI + "rollout: {guard: {speed: 2}}\n", "f:2:26: rollout.guard.speed: found 2; want a ratio over 0x and at most 1x"),
        (PI + "rollout: {green: {sistem: x}}\n", "f:2:19: rollout.green.sistem: found an unknown key; want system"),
        (PI + "rollout: {green: {system_place: in}}\n", "f:2:33: rollout.green.system_place: found in; want one of before, ins"),
        (PI + "rollout: {green: {defaults: 1}}\n", "f:2:29: rollout.green.defaults: found 1; want keys and values"),
        (PI + "rollout: {green: {defaults: {n: 1}}}\n", "f:2:33: rollout.green.defaults.n: found n, which cannot be a default;"),
        (PI + "rollout: {green: {defaults: {a: off}}}\n", "f:2:33: rollout.green.defaults.a: found off; want true or false, or"),
        (PI + "rollout: {green: {defaults: {a: [1, .5]}}}\n", "f:2:37: rollout.green.defaults.a[1]: found .5; want a number su"),
        (PI + "log: {slow: x}\n", "f:2:13: log.slow: found x; want a duration"),
        (PI + "health: {generate: now}\n", "f:2:20: health.generate: found now; want off, suspicious, or more than 0: a durat"),
        (PI + "slo: {errors: 2}\n", "f:2:15: slo.errors: found 2; want a share below 100%, such as 1% or 0.01, or off"),
        (PI + "slo: {errors: 1}\n", "f:2:15: slo.errors: found 100%, which can never be exceeded; want a share below 100%, su"),
        (PI + "slo: {gpu_busy: '1'}\n", "f:2:17: slo.gpu_busy: found 100%, which can never be exceeded; want a share below "),
        (PI + "slo: {gpu_busy: 100.0%}\n", "f:2:17: slo.gpu_busy: found 100%, which can never be exceeded; want a share bel"),
        (PI + "slo: {window: 1ms}\n", "f:2:15: slo.window: found 1ms; want at least 10s: a duration such as 5m"),
        (PI + "slo: {window: soon}\n", "f:2:15: slo.window: found soon; want at least 10s: a duration such as 5m"),
        (PI + "slo: {p99_first_content: 0s}\n", "f:2:26: slo.p99_first_content: found 0s; want more than 0: a duration "),
        (PI + "alerts: {url: x}\n", 'f:2:9: alerts: found keys and values; want a list, for example alerts: - {url: "json:/'),
        (PI + "alerts: [{language: en}]\n", "f:2:10: alerts[0].url: found nothing; want this key, for example url: json://ho"),
        (PI + "alerts: [{url: 'a://b', events: [slo.brok]}]\n", "f:2:34: alerts[0].events[0]: found slo.brok; want slo.broken"),
        (PI + "alerts: [{url: 'a://b', quiet: 7-8}]\n", "f:2:32: alerts[0].quiet: found 7-8; want two different times of "),
        (A_PI + "restart: {command: a b}}]", "f:1:60: backends[0].restart.command: found text; want a list, such as [systemctl,"),
        (A_PI + "restart: {comand: [a]}}]", "f:1:51: backends[0].restart.comand: found an unknown key; want command"),
        (A_PI + "restart: {run: [a, ~]}}]", "f:1:60: backends[0].restart.run[1]: found nothing; want text of at most 32KiB"),
        (A_PI + "restart: {run: [a], env: {1A: b}}}]", "f:1:71: backends[0].restart.env.1A: found a name that no variable has"),
        (A_PI + "restart: {systemd: a, max: 5/h}}]", "f:1:68: backends[0].restart.max: found 5/h; want how often in how lon"),
        (A_PI + "restart: {after: 1}}]", "f:1:50: backends[0].restart: found none of its means; want exactly one of command, "),
        (A_PI + "restart: {systemd: a, docker: b}}]", "f:1:71: backends[0].restart.docker: found docker beside systemd; want e"),
        (A_PI + "restart: {systemd: a, folder: /b}}]", "f:1:71: backends[0].restart.folder: found folder without run; want ru"),
        (A_PI + "wake: pi}]", "f:1:47: backends[0].wake: found pi; want a MAC address such as aa:bb:cc:dd:ee:ff"),
        (A_PI + "wake: [a]}]", """f:1:47: backends[0].wake: found a list; want keys and values, for example wake: "aa:bb:cc"""),
        (A_PI + "wake: {port: 7}}]", "f:1:54: backends[0].wake.port: found port without mac; want mac, or no port"),
        (A_PI + "warm: a}]", "f:1:47: backends[0].warm: found a; want a list, for example warm: [qwen2.5]"),
        (PI + "listen: x\n", "f:2:9: listen: found x; want HOST:PORT"),
        ("backends: [{name: pi, url: 'http://pi', timeouts: {stal: 1}}]", "f:1:52: backends[0].timeouts.stal: found an un"),
        ("backends: [{name: pi, url: 'http://pi', models: {a.b: ''}}]", """f:1:55: backends[0].models["a.b"]: found ''"""),
        ("backends: [{name: pi, url: 'http://pi', models: {'': b}}]", "f:1:54: backends[0].models['']: found b; want a m"),
    ],
)  # fmt: skip
def test_a_mistake_names_place_path_what_was_found_and_what_is_wanted(text: str, mistake: str) -> None:
    found = mistakes_of(text)
    assert len(found) == 1, found
    assert found[0].startswith(mistake)


def test_every_mistake_is_told_at_once_in_the_order_of_the_file() -> None:
    found = mistakes_of(
        "listen: x\nbackends:\n  - {name: Pi, url: x, wait: 1, engine: olama}\n"
        "  - 7\nhealth: {rise: 0}\nhealth: {}\nbalanc: fastest\n"
    )
    places = [line.split(": ")[0] for line in found]
    assert places == ["f:1:9", "f:3:12", "f:3:21", "f:3:24", "f:3:41", "f:4:5", "f:5:16", "f:6:1", "f:7:1"]


def test_an_unknown_key_without_a_likeness_gets_the_list_and_the_nearest() -> None:
    (mistake,) = mistakes_of(PI + "zzzz: {}\n")
    assert "found an unknown key; want one of listen, admin, backends, " in mistake
    assert "(nearest: " in mistake


def test_the_second_backend_of_a_name_is_refused() -> None:
    (mistake,) = mistakes_of("backends:\n  - {name: pi, url: 'http://a'}\n  - {name: pi, url: 'http://b'}\n")
    assert (
        mistake == "f:3:12: backends[1].name: found pi a second time (first on line 2); want a name of its own for each backend"
    )


def test_an_admin_port_that_others_can_reach_needs_a_token() -> None:
    (mistake,) = mistakes_of(PI + "admin: {listen: '0.0.0.0:9901'}\n")
    assert mistake.startswith(
        "f:2:17: admin.listen: found 0.0.0.0:9901, which others can reach, and no admin.token; want admin.token"
    )
    assert load_text(PI + "admin: {listen: '0.0.0.0:9901', token: x}\n", {}).admin.token == "x"
    assert mistakes_of(PI + "admin: {listen: '0.0.0.0:9901', token: '${T:-}'}\n")


def test_one_address_is_used_once() -> None:
    (mistake,) = mistakes_of(PI + "listen: ['127.0.0.1:9901']\n")
    assert "which listen[0] has already" in mistake
    assert load_text(PI + "listen: ['127.0.0.1:0', '127.0.0.1:0']\nadmin: {listen: '127.0.0.1:0'}\n", {})


def test_a_missing_variable_is_one_mistake_and_hides_no_other() -> None:
    found = mistakes_of(
        "backends:\n  - name: ${NAME}\n    url: http://a\n    weight: ${W}\n    api_key: ${file:/gone}\n    role: x\n"
    )
    assert [line.split(": ")[1] for line in found] == [f"backends[0].{key}" for key in ("name", "weight", "api_key", "role")]
    assert found[0] == (
        "f:2:11: backends[0].name: found ${NAME}, which is not set; want NAME in the environment, or a default: ${NAME:-default}"
    )


def test_a_value_from_outside_is_typed_by_its_key_and_never_becomes_yaml() -> None:
    settings = load_text(
        "backends:\n  - {name: pi, url: 'http://pi', weight: '${W}', api_key: '${K}', models: {a: '${M}'}}\n"
        "access: {allow_admin_paths: '${P}'}\ntimeouts: {stall: '${S}'}\n",
        {"W": "3", "K": "123", "M": "x}, b: {y", "P": "yes", "S": "7s"},
    )
    backend = settings.backends[0]
    assert (backend.weight, backend.api_key, dict(backend.models)) == (3, "123", {"a": "x}, b: {y"})
    assert (settings.access.allow_admin_paths, settings.timeouts.stall) == (True, 7.0)


@pytest.mark.parametrize("key", ["name", "url", "engine", "role", "weight", "in_flight_max", "api_key", "health", "models"])
def test_a_mistake_in_a_value_from_outside_shows_its_name_and_not_the_value(key: str) -> None:
    given = {"name": "pi", "url": "http://pi", key: "${SECRET}"}
    text = "backends:\n  - {" + ", ".join(f"{name}: '{value}'" for name, value in given.items()) + "}\n"
    for mistake in mistakes_of(text, SECRET="hunter2 gets: [out"):
        assert "hunter2" not in mistake
        assert "gets" not in mistake


def test_a_clash_of_addresses_from_outside_shows_their_names() -> None:
    found = mistakes_of(PI + "listen: ${A}\nadmin: {listen: '${A}'}\n", A="10.9.8.7:1")
    assert found
    assert all("10.9.8.7" not in mistake and "${A}" in mistake for mistake in found)


def test_a_mistake_in_a_key_shows_nothing_of_it() -> None:
    (mistake,) = mistakes_of("backends:\n  - {name: pi, url: 'http://pi', api_key: 'hunter2 x'}\n")
    assert "hunter2" not in mistake
    for trusted in ("[hunter2]", "hunter2", "{hunter: 2}", "[[hunter2]]", "['sha256:hunter2']"):
        (mistake,) = mistakes_of(PI + f"access: {{trusted: {trusted}}}\n")
        assert "access.trusted" in mistake
        assert "hunter2" not in mistake
    (mistake,) = mistakes_of("backends:\n  - {name: pi, url: 'http://me:hunter2@pi'}\n")
    assert "hunter2" not in mistake


def test_a_mistake_in_what_opens_the_store_shows_nothing_of_it() -> None:
    for line in (
        "key: hunter2",
        "key: [hunter2]",
        "store: 'redis://me:hunter2@a b'",
        "store: 'rediz://:hunter2@a'",
        "store: '${S}'",
    ):
        (mistake,) = mistakes_of(PI + f"sessions: {{{line}}}\n", S="rediz://hunter2")
        assert "hunter2" not in mistake
        assert mistake.startswith("f:2:")


def test_a_mistake_in_a_prompt_or_the_cookies_key_shows_nothing_of_it() -> None:
    for line in (
        "cookie_key: hunter2",
        "cookie_key: 'hunter2 hunter2 hunter2'",
        f"green: {{system: {'hunter2' * 10_000}}}",
        "green: {system: [hunter2]}",
        "green: {defaults: {temperature: '${T}', model: '${T}'}}",
        "green: {defaults: {'hunter2 is a key': 1}}",
    ):
        (mistake,) = mistakes_of(PI + f"rollout: {{{line}}}\n", T="hunter2")
        assert "hunter2" not in mistake.partition(": found ")[2]


def test_a_mistake_in_a_command_a_variable_or_a_hook_shows_nothing_of_it() -> None:
    for line in (
        "restart: hunter2",
        "restart: {run: hunter2}",
        "restart: {run: {a: hunter2}}",
        'restart: {run: [a, "hunter2\\0"]}',
        "restart: {run: [a], env: hunter2}",
        'restart: {run: [a], env: {A: "hunter2\\0"}}',
        "restart: {http: 'ftp://hunter2'}",
        "metrics_url: 'hunter2'",
        "metrics_url: '${T}'",
    ):
        (mistake,) = mistakes_of(f"{A_PI}{line}}}]\n", T="hunter2")
        assert "hunter2" not in mistake


def test_a_mistake_in_a_channel_shows_nothing_of_its_url() -> None:
    for alerts in ("hunter2", "['json://hunter2']", "[{url: hunter2}]", "[{url: [hunter2]}]", "[{url: '${T}'}]"):
        (mistake,) = mistakes_of(f"{PI}alerts: {alerts}\n", T="hunter2")
        assert mistake.startswith("f:2:")
        assert "hunter2" not in mistake


def test_what_stands_in_defaults_is_typed_as_json_and_quotes_mean_text() -> None:
    settings = load_text(
        "backends:\n  - name: pi\n    url: http://pi\n    models: {defaults: 010}\n    defaults:\n"
        "      temperature: 0.2\n      seed: '7'\n      think: true\n      stop: [a, \"1\", 1, null]\n      effort: low\n"
        '      logit_bias: {7: -1}\n      top_p: ${P}\n      user: "${P}"\n      note: ${N}\n      gone: ${G:-}\n',
        {"P": "0.5", "N": "[1, 2]"},
    )
    backend = settings.backends[0]
    assert backend.models == {"defaults": "010"}
    assert backend.defaults == {
        "temperature": "0.2",
        "seed": '"7"',
        "think": "true",
        "stop": '["a","1",1,null]',
        "effort": '"low"',
        "logit_bias": '{"7":-1}',
        "top_p": "0.5",
        "user": '"0.5"',
        "note": '"[1, 2]"',
        "gone": "null",
    }


def test_what_is_wrong_with_a_default_from_outside_shows_its_name() -> None:
    (mistake,) = mistakes_of(PI + "rollout:\n  green:\n    defaults:\n      a: ${T}\n", T="0x1F")
    assert mistake.startswith("f:5:10: rollout.green.defaults.a: found ${T}; want a number such as 5, 0.2")


def test_a_color_that_is_not_there_is_told_beside_every_other_clash() -> None:
    found = mistakes_of(PI + "listen: 127.0.0.1:9901\nrollout: {canary: '${C}'}\n", C="5%")
    assert [mistake.split(": ")[1] for mistake in found] == ["admin.listen", "rollout.canary"]
    assert "rollout.canary: found ${C}, and no backend is green" in found[1]


def test_a_path_is_written_as_an_operator_would() -> None:
    assert written_path(("backends", 1, "models", "qwen2.5")) == 'backends[1].models["qwen2.5"]'
    assert written_path(("health", "fail_timeout")) == "health.fail_timeout"


def test_addresses_that_could_not_be_read_clash_with_nothing() -> None:
    assert not list(address_clashes([], None, has_token=False))
    listen = [(("listen", 0), ListenAddress("::", 80)), (("listen", 1), ListenAddress("::", 80))]
    assert [location for location, _, _, _ in address_clashes(listen, None, has_token=False)] == [("listen", 1)]
