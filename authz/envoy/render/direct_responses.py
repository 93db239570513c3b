"""Direct responses: metadata documents, registration, closed endpoints, pages for browsers.

They are open to everybody and say nothing that depends on who asks. A well-known path is never
answered with 401, 429 or 5xx, since clients give up on those, and any web origin may read it: the
cors filter does not touch answers that Envoy makes itself.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Final

from envoy_data_plane.envoy.config.core.v3 import DataSource
from envoy_data_plane.envoy.config.route.v3 import (
    DirectResponseAction,
    HeaderMatcher,
    Route,
    RouteMatch,
)
from envoy_data_plane.envoy.type.matcher.v3 import RegexMatcher, StringMatcher

from authz.core.answers import NOBODY_TYPE
from authz.envoy.render.filters import EXT_AUTHZ, LOCAL_RATE_LIMIT, unchecked, unlimited
from authz.envoy.render.local_replies import HTTPS_ONLY, json_rpc_error
from authz.envoy.render.messages import method, overwrite
from authz.envoy.render.proto_json import pack
from authz.envoy.render.settings import EnvoySettings, McpServer

_METADATA: Final = "/.well-known/oauth-protected-resource"
_WELL_KNOWN: Final = "/.well-known/"
_REGISTER: Final = "/register"
# RFC 8414, section 3.1. The issuer has no path, so nothing is inserted, and with a path it stays
# unknown. There is none at /.well-known/openid-configuration (decision 8): OpenID Connect Discovery
# wants a jwks_uri, subject types and signing algorithms of ID tokens, of which the front door gives
# none, so that every document there would be refused or untrue. Clients that look there look here.
_SERVER_METADATA: Final = "/.well-known/oauth-authorization-server"

_ANY_ORIGIN: Final = ("access-control-allow-origin", "*")
_JSON: Final = ("content-type", "application/json")
_CACHED: Final = ("cache-control", "public, max-age=300")
_FRESH: Final = ("cache-control", "no-store")
_PREFLIGHT: Final = (
    _ANY_ORIGIN,
    ("access-control-allow-methods", "GET, HEAD, POST, OPTIONS"),
    ("access-control-allow-headers", "authorization, content-type, accept, mcp-protocol-version"),
    ("access-control-max-age", "7200"),
)

_NOT_HERE: Final = {
    "error": "not_found",
    "error_description": (
        "There is no such document here. The protected resource metadata of an MCP server "
        f"is at {_METADATA} followed by the server's path; it names the authorization server."
    ),
}
# RFC 7591, section 3.2.2 is the shape; the official MCP client shows the text.
_NO_REGISTRATION: Final = {
    "error": "access_denied",
    "error_description": (
        "This gateway has no dynamic client registration. Its operator registers clients in "
        "Authelia's configuration.yml (identity_providers.oidc.clients) and names them under "
        "clients in authz.yaml. Ask for a client_id and give it to your MCP client."
    ),
}
# RFC 6749, section 5.2 is the shape.
_CLOSED: Final = {
    "error": "unauthorized_client",
    "error_description": (
        "This endpoint is not served here. MCP clients log in at the gateway: its "
        "/.well-known/oauth-authorization-server names the endpoints. Where other applications "
        "log in at this issuer, its operator writes issuer.serve_endpoints: true in authz.yaml."
    ),
}
_DATA_ONLY: Final = {
    "error": "not_a_page",
    "error_description": (
        "This address is for AI assistants and other MCP clients, not for a browser to show."
    ),
}
_LOADS: Final = HeaderMatcher(
    name="sec-fetch-dest",
    string_match=StringMatcher(exact="empty"),
    invert_match=True,
)
_LOG_INS: Final = "/authz/log-ins"
_STYLE: Final = (
    ":root{color-scheme:light dark}"
    "body{font:100%/1.55 system-ui,sans-serif;max-width:34rem;margin:8vh auto;padding:0 1.25rem;"
    "overflow-wrap:anywhere}"
    "h1{font-size:1.4rem;line-height:1.3}"
)
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode("ascii")
# RouteConfiguration.max_direct_response_body_size_bytes: Envoy takes no configuration with more.
_LARGEST_PAGE: Final = 4096
_CONTENT_SECURITY_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'none'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
_PAGE_HEADERS: Final = (
    ("content-type", "text/html; charset=utf-8"),
    ("content-security-policy", _CONTENT_SECURITY_POLICY),
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


def document_routes(
    servers: Sequence[McpServer], front_door: Mapping[str, object] | None
) -> list[Route]:
    """Return the routes under /.well-known/ of one host.

    With one server its document is at the root too (RFC 9728, section 3.1: clients that do not
    know the path look there); with several none could be true there for all of them.

    Args:
        servers: the MCP servers.
        front_door: the metadata of the authorization server; None where it is the issuer.
    """
    places = [place for server in servers for place in _places(server)]
    if len(servers) == 1 and servers[0].document_path != _METADATA:
        places.append((_METADATA, _named(servers[0]), servers[0].document))
    if front_door is not None:
        places.append((_SERVER_METADATA, "server-metadata", front_door))
    documents = [_document(*place) for place in places]
    missing = _json_response(
        "no-document", RouteMatch(prefix=_WELL_KNOWN), 404, (_ANY_ORIGIN, _JSON), _NOT_HERE
    )
    routes = [_preflight(RouteMatch(prefix=_WELL_KNOWN)), *documents, missing]
    for route in routes:
        route.typed_per_filter_config[LOCAL_RATE_LIMIT] = pack(unlimited())
    return routes


def registration_routes() -> list[Route]:
    """Return the answer to POST /register, where MCP clients without a client id turn to."""
    register = RouteMatch(path=_REGISTER, headers=[method("POST")])
    headers = (_ANY_ORIGIN, _JSON, _FRESH)
    return [
        _preflight(RouteMatch(path=_REGISTER)),
        _json_response("register", register, 400, headers, _NO_REGISTRATION),
    ]


def closed_endpoints(names: Sequence[str], below: str | None = None) -> list[Route]:
    """Return the answers at endpoints of the issuer that nobody outside has a use for.

    The issuer counts failures there per address, and whoever shares an address with a stranger
    who fails would be refused with him. More is closed than Authelia's router takes for them: any
    case, whatever path stands in front (the issuer may strip one) or behind, and every path with a
    percent-encoded character, of which the portal has none. On the gateway's own origin the pages
    that document its API are closed as well: their scripts would be of that origin.

    Args:
        names: the last segments of their paths.
        below: the path of the portal on the gateway's own origin; None on another one.
    """
    front = "" if below is None else f"{re.escape(below)}(?:/.*)?"
    closed = {name: f"(?i:{front or '.*'}/api/oidc/{name}(?:[^a-z-].*)?)" for name in names}
    if names or below is not None:
        closed["encoded"] = f"{front or '.*'}%.*"
    if below is not None:
        closed["api-pages"] = f"(?i:{front}/api(?:/(?:[^/]*[.][^/]*)?)?)"
    routes = []
    for name, regex in closed.items():
        match = RouteMatch(safe_regex=RegexMatcher(regex=regex))
        route = _json_response(f"closed:{name}", match, 403, (_JSON, _FRESH), _CLOSED)
        route.typed_per_filter_config[LOCAL_RATE_LIMIT] = pack(unlimited())
        routes.append(route)
    return routes


def data_only(path: str, name: str) -> Route:
    """Return the answer to a browser that would show a server's response, or run it.

    Scripts that call an MCP server have it as data (`Sec-Fetch-Dest: empty`, of fetch and
    EventSource), programs send no such header. A document, script, worker or picture of a server's
    would be of the origin of our pages. A page may not set the header (Fetch, section 2.2.2).
    """
    match = RouteMatch(path=path, headers=[_LOADS])
    return _json_response(f"data-only:{name}", match, 403, (_JSON, _FRESH), _DATA_ONLY)


def nothing_here(name: str, match: RouteMatch) -> Route:
    """Return the answer at addresses that are kept for ours, and are none."""
    body = {"error": "not_found", "error_description": "There is nothing at this address."}
    return _json_response(name, match, 404, (_JSON, _FRESH), body)


def https_only() -> Route:
    """Return the answer to whatever cannot be sent on from plain HTTP."""
    body = json_rpc_error(HTTPS_ONLY, None)
    media = (("content-type", NOBODY_TYPE),)
    route = _json_response("https-only", RouteMatch(prefix="/"), HTTPS_ONLY.status, media, body)
    route.typed_per_filter_config.clear()  # no filter but the router stands on that listener
    return route


def _places(server: McpServer) -> Iterator[tuple[str, str, Mapping[str, object]]]:
    """Yield where a server's document is.

    A client that was given the server's URL with a slash at its end looks for the document of that
    URL, and compares (RFC 9728, section 3.3).
    """
    yield server.document_path, _named(server), server.document
    slashed = {**server.document, "resource": f"{server.document['resource']}/"}
    yield f"{server.document_path}/", _named(server), slashed


def _named(server: McpServer) -> str:
    return f"metadata:{server.name}"


def _document(path: str, name: str, document: Mapping[str, object]) -> Route:
    match = RouteMatch(path=path, headers=[method("GET", "HEAD")])
    headers = (_ANY_ORIGIN, _JSON, _CACHED)
    return _json_response(name, match, 200, headers, document)


def landing_routes(settings: EnvoySettings) -> list[Route]:
    """Return the routes of the pages that a browser sees at the root and at a server's URL.

    They have to stand before those of the servers. An MCP client's GET is told apart by three
    headers: it accepts `text/event-stream`, or sends its token.
    """
    logs_in = settings.pages is not None and settings.pages.logs_in
    routes = [_page("page", "/", _root(settings.url.authority), logs_in=logs_in)]
    for server in settings.servers:
        body = _server(
            server.name, f"{settings.url.scheme}://{settings.url.authority}{server.path}"
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
    assert len(text.encode()) <= _LARGEST_PAGE
    match = RouteMatch(path=path, headers=_of_a_browser())
    return _direct_response(name, match, 200, _PAGE_HEADERS, text)


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


def _json_response(
    name: str,
    match: RouteMatch,
    status: int,
    headers: Sequence[tuple[str, str]],
    body: Mapping[str, object],
) -> Route:
    return _direct_response(name, match, status, headers, json.dumps(body))


def _direct_response(
    name: str, match: RouteMatch, status: int, headers: Sequence[tuple[str, str]], body: str | None
) -> Route:
    text = None if body is None else DataSource(inline_string=body)
    return Route(
        name=name,
        match=match,
        direct_response=DirectResponseAction(status=status, body=text),
        response_headers_to_add=[overwrite(*header) for header in headers],
        typed_per_filter_config={EXT_AUTHZ: pack(unchecked())},
    )


def _preflight(match: RouteMatch) -> Route:
    match.headers = [method("OPTIONS")]
    return _direct_response("preflight", match, 204, _PREFLIGHT, None)
