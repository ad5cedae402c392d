"""The vocabulary of routing: how an address is written, and that a snapshot is one frozen value of plain facts."""

import pickle
from dataclasses import FrozenInstanceError, fields, is_dataclass

import pytest

from support.targets import UP, snapshot_of, target, targets
from understudy.core.snapshot import Address, Backend, BackendState, Condition, Duty, Published, Timeouts


@pytest.mark.parametrize(
    ("host", "authority"),
    [
        ("gpu0", "gpu0:8000"),
        ("127.0.0.1", "127.0.0.1:8000"),
        ("::1", "[::1]:8000"),
        ("fe80::1%eth0", "[fe80::1%eth0]:8000"),
    ],
)
def test_address_is_written_as_a_host_field_wants_it(host: str, authority: str) -> None:
    assert Address("http", host, 8000).authority == authority


def test_key_is_not_in_the_words_that_a_log_could_show() -> None:
    backend = Backend("gpu0", Address("http", "gpu0", 8000), api_key="sk-secret")
    assert "sk-secret" not in repr(backend)
    assert "sk-secret" not in repr(snapshot_of(target(0, api_key="sk-secret")))


def test_backends_that_differ_in_their_key_only_are_not_equal() -> None:
    assert target(0, api_key="one").backend != target(0, api_key="two").backend


def test_snapshot_can_be_sent_to_another_process() -> None:
    snapshot = snapshot_of(*targets(3), target(3, models=(("public", "own"),)))
    assert pickle.loads(pickle.dumps(snapshot)) == snapshot


def test_snapshot_holds_plain_and_frozen_facts_only() -> None:
    def walk(value: object) -> None:
        if isinstance(value, tuple):
            for each in value:
                walk(each)
        elif is_dataclass(value) and not isinstance(value, type):
            assert value.__hash__ is not None, f"{type(value)} can change"
            for field in fields(value):
                walk(getattr(value, field.name))
        else:
            assert value is None or isinstance(value, (str, int, float, bool)), type(value)

    walk(snapshot_of(*targets(2), target(2, models=(("public", "own"),))))


def test_snapshot_cannot_be_changed_in_place() -> None:
    snapshot = snapshot_of(*targets(1))
    with pytest.raises(FrozenInstanceError):
        snapshot.generation = 2  # type: ignore[misc]  # the point of the play
    with pytest.raises(FrozenInstanceError):
        snapshot.targets[0].state.condition = Condition.DOWN  # type: ignore[misc]  # the point of the play


def test_nothing_is_known_of_a_backend_before_its_first_probe() -> None:
    state = BackendState()
    assert (state.condition, state.duty, state.models, state.dialects) == (Condition.UNKNOWN, Duty.READY, None, ())


def test_exchanges_have_no_total_bound_unless_one_is_set() -> None:
    assert Timeouts().total_s == 0.0


def test_readers_keep_the_snapshot_that_they_took_while_a_new_one_is_published() -> None:
    first, second = snapshot_of(*targets(1)), snapshot_of(target(0, UP), target(1, UP))
    published = Published(first)
    taken = published.current
    published.current = second
    assert taken is first
    assert published.current is second
