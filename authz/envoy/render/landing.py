"""The page that a browser sees at the gateway's root and at a server's URL: what this address is.

Envoy answers it itself, so it is there whatever else is away. It is static, says nothing that
depends on who asks, and is told apart from an MCP client's GET by three headers: an MCP client
accepts `text/event-stream`, or sends its token, and neither is a browser that opens an address.
"""

import base64
import hashlib
from html import escape
from typing import Final

from envoy_data_plane.envoy.config.core.v3 import DataSource
from envoy_data_plane.envoy.config.route.v3 import (
    DirectResponseAction,
    HeaderMatcher,
    Route,
    RouteMatch,
)
from envoy_data_plane.envoy.type.matcher.v3 import StringMatcher
from envoy_data_plane.google.protobuf import Any

from authz.envoy.render.filters import EXT_AUTHZ, unchecked
from authz.envoy.render.pieces import method, overwrite
from authz.envoy.render.settings import EnvoySettings

_LOG_INS: Final = "/authz/log-ins"
_STYLE: Final = (
    ":root{color-scheme:light dark}"
    "body{font:100%/1.55 system-ui,sans-serif;max-width:34rem;margin:8vh auto;padding:0 1.25rem;"
    "overflow-wrap:anywhere}"
    "h1{font-size:1.4rem;line-height:1.3}"
)
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode("ascii")
# RouteConfiguration.max_direct_response_body_size_bytes: Envoy takes no configuration with more.
_LARGEST: Final = 4096
_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'none'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS: Final = (
    ("content-type", "text/html; charset=utf-8"),
    ("content-security-policy", _POLICY),
    # Another GET of the same URL is an MCP client's.
    ("cache-control", "no-store"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    ("x-robots-tag", "noindex"),
)


def landing_routes(settings: EnvoySettings) -> list[Route]:
    """Return the routes of the pages; they have to stand before those of the servers."""
    logs_in = settings.pages is not None and settings.pages.logs_in
    routes = [_page("page", "/", _root(settings.authority.text), logs_in=logs_in)]
    for server in settings.servers:
        body = _server(
            server.name, f"{settings.authority.scheme}://{settings.authority.text}{server.path}"
        )
        name = f"page:{server.name}"
        routes += [_page(name, path, body, logs_in=logs_in) for path in server.paths]
    return routes


def _page(name: str, path: str, body: str, *, logs_in: bool) -> Route:
    link = f'<p><a href="{_LOG_INS}">See and end what acts in your name</a></p>'
    text = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>MCP gateway</title><style>{_STYLE}</style></head>"
        f"<body><main>{body}{link if logs_in else ''}</main></body></html>\n"
    )
    assert len(text.encode()) <= _LARGEST
    return Route(
        name=name,
        match=RouteMatch(path=path, headers=_of_a_browser()),
        direct_response=DirectResponseAction(status=200, body=DataSource(inline_string=text)),
        response_headers_to_add=[overwrite(*header) for header in _HEADERS],
        typed_per_filter_config={EXT_AUTHZ: Any.pack(unchecked())},
    )


def _root(host: str) -> str:
    return (
        f"<h1>{escape(host)} is an MCP gateway</h1>"
        "<p>AI assistants and other MCP clients reach their servers through it. There is nothing "
        "to see here with a browser. Give your assistant the address of one server, which the "
        "people who run this gateway can tell you.</p>"
    )


def _server(name: str, url: str) -> str:
    return (
        f"<h1>{escape(name)} is an MCP server</h1>"
        "<p>This address is for AI assistants and other MCP clients, not for a browser. Add it to "
        f"yours as a remote server (HTTP): <code>{escape(url)}</code></p>"
        "<p>It asks you to log in by itself.</p>"
    )


def _of_a_browser() -> list[HeaderMatcher]:
    return [
        method("GET", "HEAD"),
        _accepts("text/html"),
        _accepts("text/event-stream", invert=True),
        HeaderMatcher(name="authorization", present_match=True, invert_match=True),
    ]


def _accepts(media_type: str, *, invert: bool = False) -> HeaderMatcher:
    # Media types have no letter case (RFC 9110, section 8.3.1); Envoy joins repeated headers.
    matcher = StringMatcher(contains=media_type, ignore_case=True)
    return HeaderMatcher(name="accept", string_match=matcher, invert_match=invert)
