"""What backends and colors add to requests: which prompt goes with which, looked up for every send.

Kept by dataplane.relay for the plan in force. How a prompt is put into a body is dialects.prompting's.
"""

from understudy.core.color import Color, Prompt
from understudy.core.snapshot import Backend, RoutingPlan

_COLORS = {str(color): color for color in Color}


class Prompts:
    """`is_on`: some backend or color adds something."""

    def __init__(self, plan: RoutingPlan) -> None:
        rules = plan.rollout
        self._rules = rules
        own = (backend.prompt for backend in plan.backends)
        self.is_on = any(not prompt.is_empty for prompt in (rules.blue, rules.green, *own))

    def added(self, path: str, body: bytes, backend: Backend, color: str) -> bytes:
        """Return a body as that backend is to get it; `color` is the exchange's, which a backend of no color takes on."""
        # Loaded with the first prompt: most files have none.
        from understudy.dialects.prompting import with_prompt

        return with_prompt(path, body, self.of(backend, color))

    def of(self, backend: Backend, color: str) -> Prompt:
        """Return what a backend adds to an exchange of that color."""
        own = backend.color if backend.color is not Color.NONE else _COLORS.get(color, Color.NONE)
        return self._rules.prompt_of(own).under(backend.prompt)
