"""The keys of `backends`, and of `health` and `timeouts` as far as a backend may have its own.

Part of config.schema, which says what holds for all keys. What concerns several keys at once is in config.upkeep.
"""

from typing import Annotated

from pydantic import BeforeValidator, Field

from understudy.config.schema_upkeep import RestartSettings, WakeSettings
from understudy.config.section import Section
from understudy.config.values import (
    Defaults,
    Duration,
    ModelName,
    Name,
    PositiveDuration,
    Secret,
    SystemText,
    Url,
    Weight,
    WholeFromOne,
    WholeFromZero,
    nothing_is_empty,
)
from understudy.config.values_upkeep import MAC_PATTERN, FullUrl, Generate, Idle, Models, OrText, as_mac
from understudy.core.color import Color, SystemPlace
from understudy.core.snapshot import EngineKind, HealthRules, Role, Timeouts
from understudy.core.upkeep import NO_WARMTH

_HEALTH, _TIMEOUTS = HealthRules(), Timeouts()


class HealthSettings(Section):
    """When a backend counts as down, up or ejected. Under a backend, the keys given there replace these."""

    interval: PositiveDuration = Field(default=_HEALTH.interval_s, description="Time between two probes of a backend.")
    timeout: PositiveDuration = Field(default=_HEALTH.timeout_s, description="Longest time that one probe may take.")
    rise: WholeFromOne = Field(default=_HEALTH.rise, description="Good probes in a row before a down backend is up.")
    fall: WholeFromOne = Field(default=_HEALTH.fall, description="Bad probes in a row before an up backend is down.")
    max_fails: WholeFromZero = Field(
        default=_HEALTH.max_fails, description="Failed exchanges within fail_timeout that eject a backend; 0 ejects none."
    )
    fail_timeout: PositiveDuration = Field(
        default=_HEALTH.fail_timeout_s,
        description="The time in which max_fails are counted, and how long an ejected backend rests.",
    )
    slow_start: Duration = Field(
        default=_HEALTH.slow_start_s,
        description="Time over which a backend's share of traffic grows after coming back; 0s: at once.",
    )
    generate: Generate = Field(
        default=_HEALTH.generate,
        description="Probe by generating one token of a loaded model: suspicious: while probes say yes and traffic no; "
        "a DURATION: after this long without an answer to a client.",
    )


class AttemptTimeoutSettings(Section):
    """How long one attempt may take. Under a backend, the keys given there replace the common ones."""

    connect: PositiveDuration = Field(default=_TIMEOUTS.connect_s, description="Longest wait for a connection to a backend.")
    first_token: PositiveDuration = Field(
        default=_TIMEOUTS.first_token_s, description="Longest wait from sending the request to the first content."
    )
    stall: PositiveDuration = Field(default=_TIMEOUTS.stall_s, description="Longest silence between two pieces of an answer.")


class BackendSettings(Section):
    """One engine at one URL. The list's order is the order of preference."""

    name: Name = Field(description="The backend's name in headers, logs and commands; unique.", examples=["pi"])
    url: Url = Field(description="Where the backend listens.", examples=["http://192.168.1.100:11434"])
    engine: EngineKind = Field(default=EngineKind.AUTO, description="The software it runs; auto lets the probe find out.")
    role: Role = Field(default=Role.PRIMARY, description="A backup is used when no primary can be.")
    color: Color = Field(default=Color.NONE, description="The color that it belongs to (see rollout); none serves both.")
    weight: Weight = Field(default=1, description="Share among equals, 1 to 1000.")
    in_flight_max: WholeFromZero = Field(default=0, description="Exchanges at this backend at once; 0: no limit.")
    models: Annotated[dict[ModelName, ModelName], nothing_is_empty(dict)] = Field(
        default_factory=dict, description="What clients call a model: what this backend calls it."
    )
    api_key: Secret = Field(
        default="", repr=False, description="Sent to this backend as a bearer token; empty: what the client sent goes on."
    )
    health: Annotated[HealthSettings, nothing_is_empty(dict)] = Field(
        default_factory=HealthSettings.model_construct, description="Any keys of health, for this backend alone."
    )
    timeouts: Annotated[AttemptTimeoutSettings, nothing_is_empty(dict)] = Field(
        default_factory=AttemptTimeoutSettings.model_construct,
        description="connect, first_token and stall of timeouts, for this backend alone.",
    )
    system: SystemText = Field(
        default="", repr=False, description="A system prompt for this backend; it stands in place of its color's."
    )
    system_place: SystemPlace = Field(
        default=SystemPlace.BEFORE, description="Where it goes: before the client's own, in one message, or instead of it."
    )
    defaults: Defaults = Field(
        default_factory=dict,
        description="Settings such as temperature, filled in where a request says nothing of them; they go before its color's.",
    )
    restart: Annotated[RestartSettings, nothing_is_empty(dict)] = Field(
        default_factory=RestartSettings.model_construct,
        description="How it is restarted when it is down for longer, or on an operator's word; absent: never.",
    )
    warm: Models = Field(
        default=(), description="Models, by the clients' names, that are kept in its memory.", examples=["[qwen2.5]"]
    )
    warm_idle: Idle = Field(
        default=NO_WARMTH.idle_s,
        description="They are kept this long after the last exchange for them, on whichever backend; or always.",
    )
    wake: Annotated[WakeSettings, OrText(MAC_PATTERN), BeforeValidator(as_mac), nothing_is_empty(dict)] = Field(
        default_factory=WakeSettings.model_construct,
        description="How its machine is woken from sleep: a MAC address, or the keys below; absent: not at all.",
        examples=['"aa:bb:cc:dd:ee:ff"'],
    )
    metrics_url: FullUrl = Field(
        default="",
        repr=False,
        description="Where its engine, or an exporter beside it, tells its load as Prometheus reads it; empty: nowhere.",
        examples=["http://gpu1:9400/metrics"],
    )
