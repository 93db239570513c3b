"""Paths of the front door, below the gateway's URL.

Invariant: no server's own path can be one of these (`config.lint.rules`).
"""

from typing import Final

AUTHORIZE: Final = "/authorize"
TOKEN: Final = "/token"  # noqa: S105 - a path
REVOKE: Final = "/revoke"
REGISTER: Final = "/register"
CONSENT: Final = "/authz/consent"
CALLBACK: Final = "/authz/callback"
BACK: Final = "/authz/back"
METADATA: Final = "/.well-known/oauth-authorization-server"


def is_callback(path: str) -> bool:
    """Tell whether Authelia's answers come here: an address with a code, which no page may have."""
    return path.startswith("/authz/") and path.endswith("/callback")
