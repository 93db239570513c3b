"""The route table: which requests go where, and on what terms.

Invariant: a path is compared as a whole and in one spelling; what no route names is answered 404
and reaches nobody (tests/envoy/live/test_routes_live.py). Without authorization are the routes of
documents, pages for browsers, the answer to registration, the front door and the issuer's pages.
"""

import re
from collections.abc import Mapping
from typing import Final

from envoy_data_plane.envoy.config.route.v3 import (
    HeaderMatcher,
    RedirectAction,
    RedirectActionRedirectResponseCode,
    Route,
    RouteAction,
    RouteActionClusterNotFoundResponseCode,
    RouteActionMaxStreamDuration,
    RouteActionUpgradeConfig,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
)
from envoy_data_plane.envoy.type.matcher.v3 import (
    RegexMatcher,
    StringMatcher,
)
from envoy_data_plane.google.protobuf import Any

from authz.config.urls import Url
from authz.config.value_types import Rate
from authz.core.admin_pages import BROWSER_HEADER, LOG_OUT, OPEN_SESSION, SESSION_HEADER
from authz.envoy.render.clusters import (
    ISSUER,
    PAGES,
    PASSWORDS,
    cluster_of,
    cluster_of_page,
)
from authz.envoy.render.cookies import all_but_ours, only_ours, shares_host
from authz.envoy.render.direct_responses import (
    closed_endpoints,
    data_only,
    document_routes,
    https_only,
    landing_routes,
    nothing_here,
    registration_routes,
)
from authz.envoy.render.filters import (
    BUFFER,
    CLIENT_ADDRESS,
    EXT_AUTHZ,
    LOCAL_RATE_LIMIT,
    browser_rules,
    buffered,
    check,
    check_page,
    check_unread,
    unchecked,
    unlimited,
)
from authz.envoy.render.messages import duration, exactly, forwarded, method
from authz.envoy.render.proto_json import pack
from authz.envoy.render.rate_limits import (
    Traffic,
    of_kind,
    page_per_address,
    passwords_per_address,
)
from authz.envoy.render.response_headers import CORS, cors_policy
from authz.envoy.render.session_cookie import taken_out
from authz.envoy.render.settings import (
    AdminPageRoute,
    EnvoySettings,
    FrontDoorPages,
    IssuerPortal,
    McpServer,
)

# Removed when the request leaves for the upstream, after authz has seen it. authz removes the
# credentials too; this holds also where it forgets. The Origin has been judged: an MCP server
# that knows no foreign ones would refuse what the gateway admitted.
_NOT_FOR_SERVERS: Final = ("authorization", "cookie", "origin", CLIENT_ADDRESS)
# What Envoy's router adds to a response (what the server sent is response_headers.py's).
_NOT_FOR_CLIENTS: Final = ("x-envoy-upstream-service-time",)
# Names a cluster by a header that nobody can send: a request with an underscore in the name of a
# header is refused before a route is chosen. What the filters strip is read by then.
_NOWHERE: Final = "x_authz_nowhere"
TOKENLESS: Final = "no-token:"
_BEARER: Final = "(?i:bearer) [A-Za-z0-9._~+/-]+"
# Where Authelia is given passwords, those of Basic authentication included.
_PASSWORDS: Final = (
    "firstfactor", "secondfactor/password", "change-password", "reset-password", "authz", "verify",
)  # fmt: skip
_NO_BODY: Final = 1  # the least that the buffer filter takes for a bound
_PAGE_TIMEOUT: Final = 60
_REGISTER: Final = "/register"
# What programs call and what people see: the first are answered in JSON, whatever happens.
_PROGRAMS: Final = ("/token", "/revoke", _REGISTER)
# Those that concern a log-in that was consented to.
_FOR_GRANTS: Final = ("/token", "/revoke")
_AUTHORIZE: Final = "/authorize"
_PEOPLE: Final = "/authz/"
_METADATA: Final = (
    "/.well-known/oauth-authorization-server", "/.well-known/openid-configuration",
)  # fmt: skip
# What the pages take (authz/login/web/requests.py). Envoy waits for it, so that a body which comes
# slowly takes none of the pages' places.
_LONGEST_BODY: Final = 64 * 1024


def gateway_routes(settings: EnvoySettings) -> RouteConfiguration:
    """Return the routes of the gateway's listener."""
    hosts = [gateway_host(settings), *admin_page_hosts(settings)]
    if settings.portal is not None and not settings.portal.shares_origin:
        hosts.append(portal_host(settings.portal, settings.gateway.address_passwords))
    return RouteConfiguration(name="gateway", virtual_hosts=hosts)


def gateway_host(settings: EnvoySettings) -> VirtualHost:
    """Return the gateway under its own name: documents, the front door, MCP servers."""
    pages, portal = settings.pages, settings.portal
    metadata = pages.document if pages is not None and pages.logs_in else None
    routes = document_routes(settings.servers, metadata)
    if pages is None or not pages.registers:
        routes += registration_routes()
    if pages is not None:
        cookies = only_ours() if shares_host(settings) else {}
        routes += pages_routes(pages, settings.url, cookies)
    if portal is not None and portal.shares_origin:
        # Before the answer to all other well-known paths; the portal's own path meets no other.
        routes = portal_documents(portal) + routes
        routes += portal_routes(portal, settings.gateway.address_passwords)
    routes += landing_routes(settings)
    for server in settings.servers:
        for path in server.paths:
            routes += [
                data_only(path, server.name),
                tokenless_route(settings, server, path),
                bodiless_route(settings, server, path),
                mcp_route(settings, server, path),
            ]
    return VirtualHost(
        name="gateway",
        domains=list(settings.url.authorities),
        routes=routes,
        typed_per_filter_config=browser_rules(settings.url),
    )


def pages_routes(pages: FrontDoorPages, url: Url, cookies: Mapping[str, Any]) -> list[Route]:
    """Return the routes of what the front door does: where nobody logs in there, step-ups alone.

    Args:
        pages: where they are.
        url: the gateway's.
        cookies: the settings that leave others' cookies out; empty where no others come.
    """
    matches = {"pages": RouteMatch(prefix=_PEOPLE)}
    if pages.logs_in:
        paths = [_AUTHORIZE, *_PROGRAMS]
        if not pages.registers:
            paths.remove(_REGISTER)
        matches = {f"pages:{path[1:]}": RouteMatch(path=path) for path in paths} | matches
    routes = [_pages_route(name, match, url) for name, match in matches.items()]
    for route in routes:
        route.typed_per_filter_config.update(cookies)
    return routes


def _pages_route(name: str, match: RouteMatch, url: Url) -> Route:
    """Return one route, for every method: which ones there are is for the pages to say.

    The rate limit per address stays on, and counts a person's pages apart from what clients ask
    for those who have logged in; a client's access token has no business there.
    """
    return Route(
        name=name,
        match=match,
        metadata=of_kind(Traffic.OAUTH if match.path in _FOR_GRANTS else Traffic.PAGE),
        route=RouteAction(cluster=PAGES, timeout=duration(_PAGE_TIMEOUT)),
        request_headers_to_add=forwarded(url),
        request_headers_to_remove=["authorization", CLIENT_ADDRESS],
        typed_per_filter_config={
            EXT_AUTHZ: pack(unchecked()),
            BUFFER: pack(buffered(_LONGEST_BODY)),
        },
    )


def redirect_routes(settings: EnvoySettings) -> RouteConfiguration:
    """Return the routes of plain HTTP: pages are sent on to HTTPS, anything else is told to go.

    A redirected POST would already have sent its token in the clear, unnoticed for ever.
    """
    places = [settings.url] if settings.portal is None else [settings.portal.url, settings.url]
    places = [*(page.url for page in settings.admin_pages), *places]
    by_host = {url.host: url for url in places}
    hosts = [_redirect_host(url) for url in by_host.values()]
    return RouteConfiguration(name="redirect", virtual_hosts=hosts)


def admin_page_hosts(settings: EnvoySettings) -> list[VirtualHost]:
    """Return the hosts of the admin pages: no path of MCP or of the gateway's log-in is on one."""
    hosts = dict[str, list[AdminPageRoute]]()
    for page in settings.admin_pages:
        hosts.setdefault(page.url.host, []).append(page)
    return [_admin_page_host(host, pages, settings) for host, pages in hosts.items()]


def _admin_page_host(
    host: str, pages: list[AdminPageRoute], settings: EnvoySettings
) -> VirtualHost:
    url = pages[0].url._replace(path="")
    # What of ours is there: the beginning of a session and its end, and nothing beside them.
    routes = [
        _session_route(name, RouteMatch(path=path), url)
        for name, path in (("admin:session", OPEN_SESSION), ("admin:log-out", LOG_OUT))
    ]
    routes.append(nothing_here("admin:reserved", RouteMatch(prefix=_PEOPLE)))
    routes += [_admin_page_route(page, settings) for page in pages]
    return VirtualHost(
        name=f"admin:{host}",
        domains=list(url.authorities),
        routes=routes,
        typed_per_filter_config=browser_rules(url, strips=True),
    )


def _session_route(name: str, match: RouteMatch, url: Url) -> Route:
    route = _pages_route(name, match, url)
    route.typed_per_filter_config.update(only_ours())
    return route


def _admin_page_route(page: AdminPageRoute, settings: EnvoySettings) -> Route:
    """Return the route of an admin page, for every method, WebSockets included.

    Path and Host go on as they are: web interfaces compare them with Origin and make their links
    of them. A stream, or a WebSocket, ends in time to be decided about anew.
    """
    match = RouteMatch(prefix="/")
    if page.url.path:
        match = RouteMatch(path_separated_prefix=page.url.path)
    return Route(
        name=f"admin:{page.name}",
        match=match,
        route=RouteAction(
            cluster=cluster_of_page(page),
            timeout=duration(0),
            idle_timeout=duration(0),
            max_stream_duration=RouteActionMaxStreamDuration(
                max_stream_duration=duration(page.recheck)
            ),
            upgrade_configs=[RouteActionUpgradeConfig(upgrade_type="websocket")],
        ),
        request_headers_to_add=forwarded(page.url),
        request_headers_to_remove=[SESSION_HEADER, BROWSER_HEADER, CLIENT_ADDRESS],
        response_headers_to_remove=list(_NOT_FOR_CLIENTS),
        typed_per_filter_config={
            EXT_AUTHZ: pack(check_page(page.name, page.digest)),
            LOCAL_RATE_LIMIT: pack(page_per_address(settings.gateway.address_calls)),
            **taken_out(),
        },
    )


def portal_host(portal: IssuerPortal, passwords: Rate) -> VirtualHost:
    """Return the issuer's pages under their own name, as the issuer itself serves them.

    Args:
        portal: the issuer.
        passwords: how many one address may try.
    """
    return VirtualHost(
        name="portal",
        domains=list(portal.url.authorities),
        routes=portal_routes(portal, passwords),
        typed_per_filter_config=browser_rules(portal.url),
    )


def portal_routes(portal: IssuerPortal, passwords: Rate) -> list[Route]:
    """Return the routes of the issuer's pages, and of what is closed among them.

    Authelia takes the leftmost X-Forwarded-For for the client's address and computes its own
    URLs from X-Forwarded-Proto and -Host, so each is said by Envoy alone.

    Args:
        portal: the issuer.
        passwords: how many one address may try.
    """
    pages = _portal_route(portal, "portal", ISSUER)
    pages.match = RouteMatch(prefix="/")
    if portal.url.path:
        pages.match = RouteMatch(path_separated_prefix=portal.url.path)
    below = portal.url.path if portal.shares_origin else None
    return [*closed_endpoints(portal.closed, below), _password_route(portal, passwords), pages]


def portal_documents(portal: IssuerPortal) -> list[Route]:
    """Return the routes of the issuer's metadata where its path is at the end of the URL.

    RFC 8414, section 3.1 puts the well-known part between host and path, where the issuer itself,
    which is under the path alone, would not be asked.
    """
    routes = []
    for name in _METADATA:
        route = _portal_route(portal, "portal:metadata", ISSUER)
        assert route.route is not None
        route.match = RouteMatch(path=f"{name}{portal.url.path}", headers=[method("GET", "HEAD")])
        route.route.prefix_rewrite = f"{portal.upstream.path}{name}"
        routes.append(route)
    return routes


def _password_route(portal: IssuerPortal, rate: Rate) -> Route:
    """Return the route to what makes the issuer compute hashes.

    Few at a time pass, whoever asks, and so many of one address. It is one route, since each route
    has token buckets of its own.
    """
    route = _portal_route(portal, "portal:passwords", PASSWORDS)
    regex = f"{re.escape(portal.url.path)}/(?:.*/)?api/(?:{'|'.join(_PASSWORDS)})(?:[^a-z-].*)?"
    route.match = RouteMatch(safe_regex=RegexMatcher(regex=regex))
    limit = passwords_per_address(rate)
    route.typed_per_filter_config[LOCAL_RATE_LIMIT] = pack(limit)
    return route


def _portal_route(portal: IssuerPortal, name: str, cluster: str) -> Route:
    return Route(
        name=name,
        route=RouteAction(cluster=cluster, timeout=duration(_PAGE_TIMEOUT)),
        request_headers_to_add=forwarded(portal.url),
        request_headers_to_remove=[CLIENT_ADDRESS],
        typed_per_filter_config={
            EXT_AUTHZ: pack(unchecked()),
            LOCAL_RATE_LIMIT: pack(unlimited()),
            **(all_but_ours() if portal.shares_host else {}),
        },
    )


def tokenless_route(settings: EnvoySettings, server: McpServer, path: str) -> Route:
    """Return the route of a server's requests without a bearer token, which lead nowhere.

    authz is asked as ever and challenges them, but nobody waits for their bodies: strangers would
    hold Envoy's memory with bodies that never end. The header is read as authz reads it
    (authz/core/request.py, bearer_token): what does not match has no token for authz either, and
    if it had, there would be no server behind this route.
    """
    bearer = HeaderMatcher(
        name="authorization",
        string_match=StringMatcher(safe_regex=RegexMatcher(regex=_BEARER)),
        invert_match=True,
        treat_missing_header_as_empty=True,
    )
    return Route(
        name=f"{TOKENLESS}{server.name}",
        match=RouteMatch(path=path, headers=[bearer]),
        # A route that answers by itself (direct_response) would have no CORS.
        route=RouteAction(
            cluster_header=_NOWHERE,
            cluster_not_found_response_code=(
                RouteActionClusterNotFoundResponseCode.SERVICE_UNAVAILABLE
            ),
        ),
        typed_per_filter_config={
            EXT_AUTHZ: pack(check_unread(server.name)),
            CORS: pack(cors_policy(settings.gateway.origins)),
        },
    )


def mcp_route(settings: EnvoySettings, server: McpServer, path: str) -> Route:
    """Return a server's route of one of its paths, for every method.

    Methods that MCP does not have go to authz all the same: it refuses them with words. The whole
    path is replaced by the upstream's, so both spellings arrive as the same one.
    """
    upstream = server.upstream
    action = RouteAction(
        cluster=cluster_of(server),
        prefix_rewrite=upstream.path or "/",
        # MCP servers check Host against DNS rebinding, and know only their own.
        host_rewrite_literal=upstream.host,
        timeout=duration(0),
        idle_timeout=duration(0),
        max_stream_duration=RouteActionMaxStreamDuration(
            max_stream_duration=duration(settings.gateway.max_stream)
        ),
    )
    return Route(
        name=f"mcp:{server.name}",
        match=RouteMatch(path=path),
        metadata=of_kind(Traffic.TOKEN),
        route=action,
        request_headers_to_add=forwarded(settings.url),
        request_headers_to_remove=list(_NOT_FOR_SERVERS),
        response_headers_to_remove=list(_NOT_FOR_CLIENTS),
        typed_per_filter_config={
            EXT_AUTHZ: pack(check(server.name, server.digest)),
            CORS: pack(cors_policy(settings.gateway.origins)),
        },
    )


def bodiless_route(settings: EnvoySettings, server: McpServer, path: str) -> Route:
    """Return the route of a server's requests by any method but POST, which have no body.

    authz refuses a body there; until it has arrived it would be held in memory, and nothing in
    the head of a request of HTTP/2 tells of it.
    """
    route = mcp_route(settings, server, path)
    no_post = HeaderMatcher(name=":method", string_match=exactly("POST"), invert_match=True)
    route.name += ":bodiless"
    route.match = RouteMatch(path=path, headers=[no_post])
    route.typed_per_filter_config[BUFFER] = pack(buffered(_NO_BODY))
    return route


def _redirect_host(url: Url) -> VirtualHost:
    redirect = RedirectAction(
        scheme_redirect=url.scheme,
        host_redirect=url.authority,
        response_code=RedirectActionRedirectResponseCode.PERMANENT_REDIRECT,
    )
    pages = Route(
        name="https",
        match=RouteMatch(prefix="/", headers=[method("GET", "HEAD")]),
        redirect=redirect,
    )
    # Whatever the port: outside, another one than ours may lead here.
    domains = [url.host, f"{url.host}:*"]
    return VirtualHost(name=url.authority, domains=domains, routes=[pages, https_only()])
