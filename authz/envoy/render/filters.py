"""The HTTP filters of the gateway's listener, in the order in which a request meets them.

Invariant: what a client sent is stripped of everything that speaks for somebody else before any
filter looks at it (tests/envoy/live/test_headers_live.py).
"""

from typing import Final

from envoy_data_plane.envoy.config.common.mutation_rules.v3 import (
    HeaderMutation as Mutation,
)
from envoy_data_plane.envoy.config.core.v3 import (
    ApiVersion,
    GrpcService,
    GrpcServiceEnvoyGrpc,
    HeaderValueOption,
)
from envoy_data_plane.envoy.config.rbac.v3 import Permission, Policy, Principal
from envoy_data_plane.envoy.config.rbac.v3 import Rbac as Rules
from envoy_data_plane.envoy.config.route.v3 import (
    FilterConfig,
    HeaderMatcher,
)
from envoy_data_plane.envoy.extensions.filters.http.buffer.v3 import Buffer, BufferPerRoute
from envoy_data_plane.envoy.extensions.filters.http.cors.v3 import Cors
from envoy_data_plane.envoy.extensions.filters.http.ext_authz.v3 import (
    BufferSettings,
    CheckSettings,
    ExtAuthz,
    ExtAuthzPerRoute,
)
from envoy_data_plane.envoy.extensions.filters.http.header_mutation.v3 import (
    HeaderMutation,
    HeaderMutationPerRoute,
    Mutations,
)
from envoy_data_plane.envoy.extensions.filters.http.rbac.v3 import Rbac
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.type.matcher.v3 import ListStringMatcher, RegexMatcher, StringMatcher
from envoy_data_plane.envoy.type.v3 import HttpStatus, StatusCode
from envoy_data_plane.google.protobuf import Any

from authz.config.urls import Url
from authz.core.admin_pages import PAGE
from authz.envoy.render.clusters import AUTHZ
from authz.envoy.render.cookies import apart_cookies, shares_host
from authz.envoy.render.list_filter import list_filter
from authz.envoy.render.messages import (
    TRUSTED_ADDRESS,
    duration,
    exactly,
    http_filter,
    overwrite,
    remove_matching,
)
from authz.envoy.render.proto_json import pack
from authz.envoy.render.rate_limits import per_address
from authz.envoy.render.response_headers import CORS, FROM_SERVER, replace_refused
from authz.envoy.render.session_cookie import session_cookie
from authz.envoy.render.settings import EnvoySettings

HEADER_MUTATION: Final = "envoy.filters.http.header_mutation"
BUFFER: Final = "envoy.filters.http.buffer"
EXT_AUTHZ: Final = "envoy.filters.http.ext_authz"
LOCAL_RATE_LIMIT: Final = "envoy.filters.http.local_ratelimit"

# The client's address as Envoy trusts it (X-Forwarded-For and trusted hops considered), for authz:
# `attributes.source.address` is the connection's peer, which may be a proxy.
CLIENT_ADDRESS: Final = "x-envoy-external-address"

# Every name here could make somebody behind Envoy believe something that only Envoy or authz may
# say: who is asking (x-authz-, remote-), where from and for which host (x-forwarded- and its
# relatives; Envoy has read X-Forwarded-For by now, and each route says them anew), which path or
# method is meant (x-original-, x-rewrite-url, x-http-method), how Envoy itself should act
# (x-envoy-).
_SPEAKING_FOR_OTHERS: Final = (
    "x-authz-",
    "remote-",
    "x-forwarded-",
    "x-original-",
    "x-http-method",
    "x-envoy-",
)
_SPEAKING_FOR_OTHERS_EXACTLY: Final = (
    "forwarded",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "x-rewrite-url",
    "x-method-override",
    "proxy",
    "proxy-authorization",
)

# What web interfaces take for the name of who asks, as the proxies before them say it; `remote-`,
# `x-forwarded-` and `x-authz-` are stripped anyway. Names with underscores are refused.
_BELIEVED_BY_PAGES: Final = (
    "x-webauth-",
    "x-auth-",
    "x-authelia-",
    "x-remote-",
    "x-user",
    "x-email",
    "x-groups",
    "x-scope-orgid",
    "x-authentik-",
    "x-pomerium-",
    "x-vouch-",
    "x-token-",
    "x-goog-",
    "x-amzn-",
    "x-ms-",
    "x-client-",
    "x-consumer-",
    "x-hasura-",
    "x-keycloak-",
    "x-okta-",
    "x-proxy-",
    "x-real-",
    "x-ssl-",
    "x-trusted-",
    "x-uid",
    "ssl-client-",
    "cf-access-",
    "tailscale-",
    "auth-",
    "impersonate-",
    "oidc-",
    "sso-",
)
# A list of products is never whole: every name with such a word in it, as `x-sso-user`; not
# `authorization`, which pages have of their own, nor `user-agent`, nor Grafana's `x-dashboard-uid`
# and `x-query-group-id`. Envoy refuses larger programs of RE2 than 100 instructions.
_BELIEVED_WORDS: Final = (
    "(.+-)?(user|userid|username|e?mail|groups?)",
    ".+-(user|userid|username|e?mail)-.*",
    "(.+-)?(roles?|login|account|subject|principal|identity)(-.*)?",
    ".+-(auth|authenticated|authorization|ldap|iap|admin)(-.*)?",
    ".+-(oidc|oauth2?|saml|sso|jwt|id-token|access-token)(-.*)?",
)

# The counter is `http.<listener>.rbac.<this>.shadow_allowed`.
FORWARDED_PORTS: Final = "forwarded_with_port"
# Without counted repetitions: Envoy refuses large programs of RE2 (100 instructions).
_ADDRESS_WITH_PORT: Final = r"([0-9.]+|\[[^,]*\]):[0-9]+"

_HSTS: Final = 365 * 86400

# The answer is to be authz's own 503 with its words; Envoy gives up a little later.
_GRACE: Final = 0.1


def http_filters(settings: EnvoySettings) -> list[HttpFilter]:
    """Return the filters in their order.

    CORS stands before the rate limit, so that a browser can read a 429; a preflight that it
    answers costs authz nothing. The buffer filter acts only on routes that switch it on.
    """
    return [
        http_filter(HEADER_MUTATION, _strip()),
        http_filter(CORS, Cors()),
        http_filter(
            LOCAL_RATE_LIMIT, per_address(settings.gateway, pages=settings.pages is not None)
        ),
        HttpFilter(name=BUFFER, typed_config=pack(Buffer(max_request_bytes=1)), disabled=True),
        *([session_cookie()] if settings.opens_pages else []),
        ext_authz(settings),
        *([apart_cookies()] if shares_host(settings) or settings.opens_pages else []),
        *([list_filter()] if settings.filters_lists else []),
        replace_refused(_hsts(settings.url)),
        http_filter("envoy.filters.http.router", Router()),
    ]


def ext_authz(settings: EnvoySettings) -> HttpFilter:
    """Return the filter that asks authz (envoy.extensions.filters.http.ext_authz.v3.ExtAuthz).

    Left at their defaults because their defaults are the safe ones: failure_mode_allow false,
    clear_route_cache false (the route that was judged is the route that is taken),
    include_peer_certificate false. All headers are sent, since a header that is not seen cannot
    be refused, but the cookies: they are other people's secrets and decide nothing here.
    """
    config = ExtAuthz(
        grpc_service=GrpcService(
            envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name=AUTHZ),
            timeout=duration(settings.deadline + _GRACE),
        ),
        transport_api_version=ApiVersion.V3,
        failure_mode_allow=False,
        status_on_error=HttpStatus(code=StatusCode.ServiceUnavailable),
        validate_mutations=True,
        # What authz refuses is no answer of the server: it is not counted among its 5xx.
        charge_cluster_response_stats=False,
        encode_raw_headers=True,
        # Here and not on the routes: with_request_body of a route (CheckSettings) ignores
        # pack_as_bytes (Envoy 1.39 and 1.40), and without it Envoy writes `!` for what is not
        # UTF-8, so that authz would judge another text than the server gets.
        with_request_body=BufferSettings(
            max_request_bytes=settings.gateway.max_body,
            allow_partial_message=False,
            pack_as_bytes=True,
        ),
        disallowed_headers=ListStringMatcher(patterns=[exactly("cookie")]),
        stat_prefix="authz",
    )
    return http_filter(EXT_AUTHZ, config)


def check(server: str, upstream: str) -> ExtAuthzPerRoute:
    """Return a route's settings: which server it is, and to which upstream it leads.

    Both arrive in `attributes.context_extensions`; authz refuses a route to another upstream than
    its rules are for. Bodies are waited for whatever the
    method: HTTP/2 needs no length to send one with a GET, and what authz has not seen must not
    arrive at a server.
    """
    extensions = {"server": server, "upstream": upstream}
    return ExtAuthzPerRoute(check_settings=CheckSettings(context_extensions=extensions))


def check_unread(server: str) -> ExtAuthzPerRoute:
    """Return the settings of a route whose requests have no token, and whose bodies are not read.

    A stranger's body is not waited for: authz refuses such a request by its head alone.
    """
    return ExtAuthzPerRoute(
        check_settings=CheckSettings(
            context_extensions={"server": server}, disable_request_body_buffering=True
        )
    )


def check_page(page: str, upstream: str) -> ExtAuthzPerRoute:
    """Return the settings of a route to an admin page: which it is, and to which upstream it leads.

    Nothing of a body is decided about, so nobody waits for one: uploads, and WebSockets, which have
    no end.
    """
    return ExtAuthzPerRoute(
        check_settings=CheckSettings(
            context_extensions={PAGE: page, "upstream": upstream},
            disable_request_body_buffering=True,
        )
    )


def unchecked() -> ExtAuthzPerRoute:
    """Return the settings of a route that is open to everybody."""
    return ExtAuthzPerRoute(disabled=True)


def buffered(longest: int) -> BufferPerRoute:
    """Return the settings of a route whose requests go on once their bodies are whole.

    Args:
        longest: the length of the longest body; a longer one is answered with 413.
    """
    return BufferPerRoute(buffer=Buffer(max_request_bytes=longest))


def unlimited() -> FilterConfig:
    """Return the settings of a route on which the rate limit per address does not count."""
    return FilterConfig(disabled=True)


def browser_rules(url: Url, *, strips: bool = False) -> dict[str, Any]:
    """Return what a virtual host adds to every response, also to Envoy's own and authz's.

    HSTS (RFC 6797) is said by the gateway alone, and where it is reached by https: the name is
    then never asked over plain HTTP again, a token sent that way being lost.

    Args:
        url: of the host.
        strips: whether what web interfaces believe of who asks is taken out of its requests, too.
    """
    believed = [StringMatcher(prefix=prefix) for prefix in _BELIEVED_BY_PAGES]
    believed += [StringMatcher(safe_regex=RegexMatcher(regex=each)) for each in _BELIEVED_WORDS]
    stripped = [remove_matching(matcher) for matcher in believed] if strips else []
    mutations = [Mutation(append=header) for header in _hsts(url)]
    if not stripped and not mutations:
        return {}
    both = Mutations(request_mutations=stripped, response_mutations=mutations)
    return {HEADER_MUTATION: pack(HeaderMutationPerRoute(mutations=both))}


def _hsts(url: Url) -> list[HeaderValueOption]:
    if url.scheme != "https":
        return []
    return [overwrite("strict-transport-security", f"max-age={_HSTS}")]


def _strip() -> HeaderMutation:
    matchers = [StringMatcher(prefix=prefix) for prefix in _SPEAKING_FOR_OTHERS]
    matchers += [exactly(name) for name in _SPEAKING_FOR_OTHERS_EXACTLY]
    mutations = [remove_matching(matcher) for matcher in matchers]
    mutations.append(Mutation(append=overwrite(CLIENT_ADDRESS, TRUSTED_ADDRESS)))
    internal = [Mutation(remove=FROM_SERVER)]
    return HeaderMutation(
        mutations=Mutations(request_mutations=mutations, response_mutations=internal)
    )


def forwarded_ports(trusted_hops: int) -> list[HttpFilter]:
    """Count requests whose proxy writes `address:port` into X-Forwarded-For, for `authz doctor`.

    Envoy does not read such a value and takes the proxy's own address, so that everybody behind it
    is one address in all bounds by address. Shadow rules alone refuse nothing. The filter stands
    before the one that strips the header; there is none without a proxy.

    Args:
        trusted_hops: how many proxies before Envoy are believed. Envoy has added the last one's
            address by then, so that many entries follow the one that it would take.
    """
    if not trusted_hops:
        return []
    regex = rf"(.*,)? *{_ADDRESS_WITH_PORT} *" + ",[^,]*" * trusted_hops
    header = HeaderMatcher(
        name="x-forwarded-for", string_match=StringMatcher(safe_regex=RegexMatcher(regex=regex))
    )
    policy = Policy(permissions=[Permission(header=header)], principals=[Principal(any=True)])
    config = Rbac(
        shadow_rules=Rules(policies={"address-and-port": policy}),
        shadow_rules_stat_prefix=FORWARDED_PORTS,
    )
    return [http_filter("envoy.filters.http.rbac", config)]
