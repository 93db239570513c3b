"""The route table: which requests go where, and on what terms.

Law: a path is compared as a whole and in one spelling; what no route names is answered 404 and
reaches nobody. A route without authorization is open on purpose: a document, a browser's page, the
answer to registration, the front door, or the issuer's own pages.
"""

import re
from typing import Final

from envoy_data_plane.envoy.config.route.v3 import (
    RedirectAction,
    RedirectActionRedirectResponseCode,
    Route,
    RouteAction,
    RouteActionMaxStreamDuration,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
)
from envoy_data_plane.envoy.type.matcher.v3 import RegexMatchAndSubstitute, RegexMatcher
from envoy_data_plane.google.protobuf import Any

from authz.envoy.render.clusters import ISSUER, cluster_of
from authz.envoy.render.filters import (
    CLIENT_ADDRESS,
    CORS,
    EXT_AUTHZ,
    LOCAL_RATE_LIMIT,
    browser_rules,
    check,
    cors_policy,
    unchecked,
    unlimited,
)
from authz.envoy.render.landing import landing_routes
from authz.envoy.render.pages import pages_routes
from authz.envoy.render.pieces import duration, forwarded, method
from authz.envoy.render.site import Authority, McpServer, Portal, Site
from authz.envoy.render.well_known import document_routes, https_only, registration_routes

# Removed when the request leaves for the upstream, after authz has seen it. authz removes the
# credentials too; this holds also where it forgets. The Origin has been judged: an MCP server
# that knows no foreign ones would refuse what the gateway admitted.
_NOT_FOR_SERVERS: Final = ("authorization", "cookie", "origin", CLIENT_ADDRESS)
# What Envoy's router adds to a response (what the server sent is response_headers.py's).
_NOT_FOR_CLIENTS: Final = ("x-envoy-upstream-service-time",)
_PAGE_TIMEOUT: Final = 60


def gateway_routes(site: Site) -> RouteConfiguration:
    """Return the routes of the gateway's listener."""
    hosts = [gateway_host(site)]
    if site.portal is not None:
        hosts.append(portal_host(site.portal))
    return RouteConfiguration(name="gateway", virtual_hosts=hosts)


def gateway_host(site: Site) -> VirtualHost:
    """Return the gateway under its own name: documents, the front door, MCP servers."""
    pages = site.pages
    metadata = pages.document if pages is not None and pages.logs_in else None
    routes = document_routes(site.servers, metadata)
    if pages is None or not pages.registers:
        routes += registration_routes()
    if pages is not None:
        routes += pages_routes(pages, site.authority)
    routes += landing_routes(site)
    routes += [mcp_route(site, server, path) for server in site.servers for path in server.paths]
    return VirtualHost(
        name="gateway",
        domains=list(site.authority.spellings),
        routes=routes,
        typed_per_filter_config=browser_rules(site.authority),
    )


def redirect_routes(site: Site) -> RouteConfiguration:
    """Return the routes of plain HTTP: pages are sent on to HTTPS, anything else is told to go.

    A redirected POST would already have sent its token in the clear, unnoticed for ever.
    """
    places = [site.authority] if site.portal is None else [site.portal.authority, site.authority]
    by_host = {authority.host: authority for authority in places}
    hosts = [_redirect_host(authority) for authority in by_host.values()]
    return RouteConfiguration(name="redirect", virtual_hosts=hosts)


def portal_host(portal: Portal) -> VirtualHost:
    """Return the issuer's pages under their own name, as the issuer itself serves them.

    Authelia takes the leftmost X-Forwarded-For for the client's address and computes its own
    URLs from X-Forwarded-Proto and -Host, so each is said by Envoy alone.
    """
    action = RouteAction(cluster=ISSUER, timeout=duration(_PAGE_TIMEOUT))
    if portal.upstream.path != portal.path:
        action.regex_rewrite = RegexMatchAndSubstitute(
            pattern=RegexMatcher(regex=f"^{re.escape(portal.path)}/*"),
            substitution=f"{portal.upstream.path}/",
        )
    pages = Route(
        name="portal",
        match=RouteMatch(prefix="/"),
        route=action,
        request_headers_to_add=forwarded(portal.authority),
        request_headers_to_remove=[CLIENT_ADDRESS],
        typed_per_filter_config={
            EXT_AUTHZ: Any.pack(unchecked()),
            LOCAL_RATE_LIMIT: Any.pack(unlimited()),
        },
    )
    if portal.path:
        pages.match = RouteMatch(path_separated_prefix=portal.path)
    return VirtualHost(
        name="portal",
        domains=list(portal.authority.spellings),
        routes=[pages],
        typed_per_filter_config=browser_rules(portal.authority),
    )


def mcp_route(site: Site, server: McpServer, path: str) -> Route:
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
            max_stream_duration=duration(site.limits.max_stream)
        ),
    )
    return Route(
        name=f"mcp:{server.name}",
        match=RouteMatch(path=path),
        route=action,
        request_headers_to_add=forwarded(site.authority),
        request_headers_to_remove=list(_NOT_FOR_SERVERS),
        response_headers_to_remove=list(_NOT_FOR_CLIENTS),
        typed_per_filter_config={
            EXT_AUTHZ: Any.pack(check(server.name)),
            CORS: Any.pack(cors_policy(site)),
        },
    )


def _redirect_host(authority: Authority) -> VirtualHost:
    redirect = RedirectAction(
        scheme_redirect=authority.scheme,
        host_redirect=authority.text,
        response_code=RedirectActionRedirectResponseCode.PERMANENT_REDIRECT,
    )
    pages = Route(
        name="https",
        match=RouteMatch(prefix="/", headers=[method("GET", "HEAD")]),
        redirect=redirect,
    )
    # Whatever the port: outside, another one than ours may lead here.
    domains = [authority.host, f"{authority.host}:*"]
    return VirtualHost(name=authority.text, domains=domains, routes=[pages, https_only()])
