"""The closed list of log events: every name, its level and the sentence that docs/events.md gives for it.

Read by telemetry.logs and by whoever tells an event. Levels: info for a change an operator caused or must know, warning for
what healed itself, error for what needs a person.
"""

from enum import StrEnum
from types import MappingProxyType


class Level(StrEnum):
    """How much an event matters."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Event(StrEnum):
    """Every event name, `noun.past_verb`."""

    DAEMON_STARTED = "daemon.started"
    DAEMON_STOPPING = "daemon.stopping"
    DAEMON_STOPPED = "daemon.stopped"
    CONFIG_LOADED = "config.loaded"
    CONFIG_RELOADED = "config.reloaded"
    CONFIG_REFUSED = "config.refused"
    BACKEND_WENT_UP = "backend.went_up"
    BACKEND_WENT_DOWN = "backend.went_down"
    BACKEND_WAS_EJECTED = "backend.was_ejected"
    BACKEND_RETURNED = "backend.returned"
    BACKEND_CHANGED_DUTY = "backend.changed_duty"
    BACKEND_CHANGED_ENGINE = "backend.changed_engine"
    BACKEND_LOST_MODEL = "backend.lost_model"
    BACKEND_REGAINED_MODEL = "backend.regained_model"
    BACKEND_LOST_NAME = "backend.lost_name"
    BACKEND_REGAINED_NAME = "backend.regained_name"
    POOL_BECAME_EMPTY = "pool.became_empty"
    POOL_RECOVERED = "pool.recovered"
    EXCHANGE_FINISHED = "exchange.finished"
    EXCHANGE_FAILED_INTERNALLY = "exchange.failed_internally"
    EXCHANGE_OUTGREW_TRANSCRIPT = "exchange.outgrew_transcript"
    SESSION_LOST = "session.lost"
    SESSION_SET_ASIDE = "session.set_aside"
    SESSION_SWEPT = "session.swept"
    STORE_BECAME_UNAVAILABLE = "store.became_unavailable"
    STORE_RECOVERED = "store.recovered"
    ROLLOUT_SWITCHED = "rollout.switched"
    ROLLOUT_ROLLED_BACK = "rollout.rolled_back"
    ROLLOUT_STEPPED = "rollout.stepped"
    ROLLOUT_CANARY_ENDED = "rollout.canary_ended"
    ROLLOUT_REFUSED = "rollout.refused"
    SHADOW_FINISHED = "shadow.finished"
    STATE_UNREADABLE = "state.unreadable"
    STATE_NOT_KEPT = "state.not_kept"
    BACKEND_FAILED_GENERATION = "backend.failed_generation"
    BACKEND_WAS_DEGRADED = "backend.was_degraded"
    BACKEND_RECOVERED_PACE = "backend.recovered_pace"
    BACKEND_WARMED = "backend.warmed"
    BACKEND_NOT_WARMED = "backend.not_warmed"
    BACKEND_WAS_WOKEN = "backend.was_woken"
    BACKEND_NOT_WOKEN = "backend.not_woken"
    BACKEND_LOST_FIGURES = "backend.lost_figures"
    BACKEND_REGAINED_FIGURES = "backend.regained_figures"
    RESTART_STARTED = "restart.started"
    RESTART_SUCCEEDED = "restart.succeeded"
    RESTART_FAILED = "restart.failed"
    RESTART_GAVE_UP = "restart.gave_up"
    RESTART_RECOVERED = "restart.recovered"
    RESTART_REFUSED = "restart.refused"
    CHILD_STARTED = "child.started"
    CHILD_SAID = "child.said"
    CHILD_ENDED = "child.ended"
    CHILD_WAS_LEFT = "child.was_left"
    SLO_WAS_BROKEN = "slo.was_broken"
    SLO_WAS_RESTORED = "slo.was_restored"
    ALERT_DELIVERED = "alert.delivered"
    ALERT_FAILED = "alert.failed"
    CONNECTION_LIMIT_REACHED = "connection.limit_reached"
    LIBRARY_COMPLAINED = "library.complained"
    LOG_DROPPED = "log.dropped"


EVENTS = MappingProxyType(
    {
        Event.DAEMON_STARTED: Level.INFO,
        Event.DAEMON_STOPPING: Level.INFO,
        Event.DAEMON_STOPPED: Level.INFO,
        Event.CONFIG_LOADED: Level.INFO,
        Event.CONFIG_RELOADED: Level.INFO,
        Event.CONFIG_REFUSED: Level.ERROR,
        Event.BACKEND_WENT_UP: Level.INFO,
        Event.BACKEND_WENT_DOWN: Level.WARNING,
        Event.BACKEND_WAS_EJECTED: Level.WARNING,
        Event.BACKEND_RETURNED: Level.INFO,
        Event.BACKEND_CHANGED_DUTY: Level.INFO,
        Event.BACKEND_CHANGED_ENGINE: Level.INFO,
        Event.BACKEND_LOST_MODEL: Level.WARNING,
        Event.BACKEND_REGAINED_MODEL: Level.INFO,
        Event.BACKEND_LOST_NAME: Level.WARNING,
        Event.BACKEND_REGAINED_NAME: Level.INFO,
        Event.POOL_BECAME_EMPTY: Level.ERROR,
        Event.POOL_RECOVERED: Level.INFO,
        # The level of a healthy exchange; the line itself tells warning and error (exchange_line.level_of).
        Event.EXCHANGE_FINISHED: Level.INFO,
        Event.EXCHANGE_FAILED_INTERNALLY: Level.ERROR,
        Event.EXCHANGE_OUTGREW_TRANSCRIPT: Level.INFO,
        Event.SESSION_LOST: Level.WARNING,
        Event.SESSION_SET_ASIDE: Level.WARNING,
        Event.SESSION_SWEPT: Level.DEBUG,
        Event.STORE_BECAME_UNAVAILABLE: Level.ERROR,
        Event.STORE_RECOVERED: Level.INFO,
        Event.ROLLOUT_SWITCHED: Level.INFO,
        Event.ROLLOUT_ROLLED_BACK: Level.WARNING,
        Event.ROLLOUT_STEPPED: Level.INFO,
        Event.ROLLOUT_CANARY_ENDED: Level.INFO,
        Event.ROLLOUT_REFUSED: Level.WARNING,
        Event.SHADOW_FINISHED: Level.DEBUG,
        Event.STATE_UNREADABLE: Level.WARNING,
        Event.STATE_NOT_KEPT: Level.WARNING,
        Event.BACKEND_FAILED_GENERATION: Level.WARNING,
        Event.BACKEND_WAS_DEGRADED: Level.WARNING,
        Event.BACKEND_RECOVERED_PACE: Level.INFO,
        Event.BACKEND_WARMED: Level.INFO,
        Event.BACKEND_NOT_WARMED: Level.WARNING,
        Event.BACKEND_WAS_WOKEN: Level.INFO,
        Event.BACKEND_NOT_WOKEN: Level.WARNING,
        Event.BACKEND_LOST_FIGURES: Level.WARNING,
        Event.BACKEND_REGAINED_FIGURES: Level.INFO,
        Event.RESTART_STARTED: Level.WARNING,
        Event.RESTART_SUCCEEDED: Level.INFO,
        Event.RESTART_FAILED: Level.WARNING,
        Event.RESTART_GAVE_UP: Level.ERROR,
        Event.RESTART_RECOVERED: Level.INFO,
        Event.RESTART_REFUSED: Level.WARNING,
        Event.CHILD_STARTED: Level.INFO,
        Event.CHILD_SAID: Level.INFO,
        Event.CHILD_ENDED: Level.WARNING,
        Event.CHILD_WAS_LEFT: Level.WARNING,
        Event.SLO_WAS_BROKEN: Level.WARNING,
        Event.SLO_WAS_RESTORED: Level.INFO,
        Event.ALERT_DELIVERED: Level.DEBUG,
        Event.ALERT_FAILED: Level.WARNING,
        Event.CONNECTION_LIMIT_REACHED: Level.WARNING,
        Event.LIBRARY_COMPLAINED: Level.WARNING,
        Event.LOG_DROPPED: Level.WARNING,
    }
)
