import pydantic
import pytest

from understudy.config.section import Section


class Lamp(Section):
    """A section with one key."""

    watts: int = 1


def test_a_section_is_frozen() -> None:
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        Lamp().watts = 2


def test_an_unknown_key_is_refused_without_its_value() -> None:
    with pytest.raises(pydantic.ValidationError, match="Extra inputs") as refused:
        Lamp.model_validate({"wats": "hunter2"})
    assert "hunter2" not in str(refused.value)
