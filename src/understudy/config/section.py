"""What all sections of the file share.

Used by config.schema and its parts, and by config.validation. Holds no key of its own.
"""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """What all sections share: frozen, unknown keys refused, values kept out of pydantic's own messages."""

    # Only the whole file is validated, so what a section would need for itself is not built; nor by defaults (model_construct).
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, defer_build=True)
