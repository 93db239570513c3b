"""What web pages of other origins may ask and read of MCP servers (Fetch, section 3.3).

Law: an origin is compared as a whole text, and only those of `gateway.origins` are answered.

Envoy's cors filter writes it on every answer that passes the filters. One does not: what replaces a
server's answer (`response_headers.replace_refused`) goes straight out, and gets the same fields by
the words of local_reply_config.
"""

from collections.abc import Sequence
from typing import Final

from envoy_data_plane.envoy.config.core.v3 import HeaderValueOption
from envoy_data_plane.envoy.extensions.filters.http.cors.v3 import CorsPolicy

from authz.envoy.render.pieces import exactly, overwrite

CORS: Final = "envoy.filters.http.cors"

# What MCP clients in a browser send and read (both eras).
_METHODS: Final = "GET, POST, DELETE"
_ALLOWED: Final = (
    "authorization, content-type, accept, mcp-protocol-version, mcp-method, mcp-name, "
    "mcp-session-id, last-event-id"
)
_EXPOSED: Final = "www-authenticate, mcp-session-id, retry-after, ratelimit, ratelimit-policy"
_MAX_AGE: Final = "7200"


def cors_policy(origins: Sequence[str]) -> CorsPolicy:
    """Return what browsers are told on MCP routes."""
    return CorsPolicy(
        allow_origin_string_match=[exactly(origin) for origin in origins],
        allow_methods=_METHODS,
        allow_headers=_ALLOWED,
        expose_headers=_EXPOSED,
        max_age=_MAX_AGE,
    )


def cors_headers(origin: str) -> list[HeaderValueOption]:
    """Return the fields that the filter would write on an answer to an origin that is allowed."""
    return [
        overwrite("access-control-allow-origin", origin),
        overwrite("access-control-expose-headers", _EXPOSED),
    ]
