"""Where the pages are, below the gateway's URL.

Law: no server's own path can be one of these (`config.lint_rules`).
"""

from typing import Final

AUTHORIZE: Final = "/authorize"
TOKEN: Final = "/token"  # noqa: S105 - a path
REVOKE: Final = "/revoke"
REGISTER: Final = "/register"
CONSENT: Final = "/authz/consent"
CALLBACK: Final = "/authz/callback"
METADATA: Final = "/.well-known/oauth-authorization-server"
OPENID_METADATA: Final = "/.well-known/openid-configuration"
