"""Which header fields do not go on, and which may not be made to vanish.

Read by dataplane.heads, which compares lower-case names with them. Tables only.
"""

from typing import Final

# Fields that belong to one connection (RFC 9110, 7.6.1), that are written anew, or that are words to us alone. X-Conversation-Id
# would make llama.cpp go on generating for a client that left and hand the answer to whoever guesses the name (llama.cpp
# server-stream.cpp).
REQUEST_FIELDS_DROPPED: Final = frozenset(
    {
        b"connection",
        b"content-length",
        b"expect",
        b"host",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"x-conversation-id",
        b"x-forwarded-for",
        b"x-request-id",
        b"x-session-mode",
        b"x-session-on-error",
        b"x-session-reset",
        b"via",
        b"x-understudy-color",
        b"x-understudy-no-resume",
        b"x-understudy-priority",
    }
)
RESPONSE_FIELDS_DROPPED: Final = frozenset(
    {
        b"connection",
        b"content-length",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"x-request-id",
        b"x-understudy-attempts",
        b"x-understudy-backend",
        b"x-understudy-color",
        b"x-understudy-session",
        b"x-understudy-session-loss",
    }
)
# Naming these in Connection must not remove them: it would let a client change what the backend sees of the message itself.
NEVER_BY_CONNECTION: Final = frozenset({b"authorization", b"content-type", b"content-encoding", b"accept-encoding"})
