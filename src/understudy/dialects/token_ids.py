"""Take the token ids that `resume: exact` asked for out of what the client gets.

Called by dataplane for each chunk of such a stream.
"""

import re

# In a JSON text an unescaped quote right before a colon ends a member's name, so that no string's content looks like this.
_MEMBER = rb'(?<!\\)"(?:token_ids|prompt_token_ids|prompt_text)"\s*:\s*(?:\[[0-9,\s-]*\]|null|"[^"\\]*(?:\\.[^"\\]*)*")'
_MEMBERS = re.compile(rb",\s*" + _MEMBER + rb"|" + _MEMBER + rb"\s*,?\s*", re.DOTALL)


def strip_ids(data: bytes) -> bytes:
    """Return whole events without their members `token_ids`, `prompt_token_ids` and `prompt_text`, every other byte as it was."""
    if b'token_ids"' not in data and b'prompt_text"' not in data:
        return data
    return _MEMBERS.sub(b"", data)
