"""Which header fields and statuses of an MCP server's response reach the client.

Invariant: a response of an MCP server carries the fields of `ALLOWED` and those that Envoy and
authz write, and no others; those of `INERT` always (tests/envoy/live/test_responses_live.py).

Envoy has no allow-list of response headers, and RE2 no negative look-ahead. Since the list is
finite, its complement is a regular language: `others` writes it as plain regular expressions, and
header_mutation removes what they match. The filter stands in the upstream's own filter chain, so
that it sees what the server sent and nothing that Envoy, the cors filter or authz adds.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import betterproto2
from envoy_data_plane.envoy.config.common.mutation_rules.v3 import HeaderMutation as Mutation
from envoy_data_plane.envoy.config.core.v3 import HeaderValueOption
from envoy_data_plane.envoy.extensions.filters.http.cors.v3 import CorsPolicy
from envoy_data_plane.envoy.extensions.filters.http.custom_response.v3 import CustomResponse
from envoy_data_plane.envoy.extensions.filters.http.header_mutation.v3 import (
    HeaderMutation,
    Mutations,
)
from envoy_data_plane.envoy.extensions.filters.http.upstream_codec.v3 import UpstreamCodec
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.extensions.http.custom_response.local_response_policy.v3 import (
    LocalResponsePolicy,
)
from envoy_data_plane.envoy.type.matcher.v3 import (
    HttpResponseHeaderMatchInput,
    HttpResponseStatusCodeClassMatchInput,
    HttpResponseStatusCodeMatchInput,
    RegexMatcher,
    StringMatcher,
)
from envoy_data_plane.xds.core.v3 import TypedExtensionConfig
from envoy_data_plane.xds.type.matcher.v3 import (
    Matcher,
    MatcherMatcherList,
    MatcherMatcherListFieldMatcher,
    MatcherMatcherListPredicate,
    MatcherMatcherListPredicatePredicateList,
    MatcherMatcherListPredicateSinglePredicate,
    MatcherOnMatch,
)
from envoy_data_plane.xds.type.matcher.v3 import StringMatcher as XdsStringMatcher

from authz.envoy.render.messages import exactly, http_filter, overwrite, remove_matching
from authz.envoy.render.proto_json import pack

# What MCP (both eras), HTTP's framing, and streaming through further proxies need.
# A name that ends in `*` allows whatever begins with it.
ALLOWED: Final = (
    "allow",
    "cache-control",
    "content-encoding",
    "content-length",
    "content-type",
    "date",
    "mcp-*",
    "ratelimit",
    "ratelimit-policy",
    "retry-after",
    "vary",
    "x-accel-buffering",
)
# Set on every response of an MCP server on its way in, removed on its way out: ext_authz's own
# 401 passes the same filters and does not have it.
FROM_SERVER: Final = "x-authz-from-server"
BAD_GATEWAY: Final = 502
# An MCP server's response is of the origin of the gateway's own pages, and of the issuer's where
# they share one (decision 24): a browser that were to show it, or to load it as something else than
# data, would run nothing of it and know it as no part of that origin.
INERT: Final = (
    ("content-security-policy", "sandbox; default-src 'none'; frame-ancestors 'none'"),
    ("x-content-type-options", "nosniff"),
    ("cross-origin-resource-policy", "same-origin"),
)

CORS: Final = "envoy.filters.http.cors"

# What MCP clients in a browser send and read (both eras).
_METHODS: Final = "GET, POST, DELETE"
_ALLOWED: Final = (
    "authorization, content-type, accept, mcp-protocol-version, mcp-method, mcp-name, "
    "mcp-session-id, last-event-id"
)
_EXPOSED: Final = (
    "www-authenticate, mcp-session-id, retry-after, ratelimit, ratelimit-policy, x-authz-limit-near"
)
_MAX_AGE: Final = "7200"

# Pseudo headers (`:status`) are never removed.
_PSEUDO: Final = ":"
# Envoy refuses expressions whose RE2 program is larger than 100 (re2.max_program_size.error_level).
# Each place in the tree of names takes about 8 of it.
_PLACES: Final = 8


def upstream_filters() -> list[HttpFilter]:
    """Return the filters of an MCP server's cluster (HttpProtocolOptions.http_filters)."""
    mutations = [
        remove_matching(StringMatcher(safe_regex=RegexMatcher(regex=regex)))
        for regex in others(ALLOWED)
    ]
    own = ((FROM_SERVER, "1"), *INERT)
    mutations += [Mutation(append=overwrite(*header)) for header in own]
    config = HeaderMutation(mutations=Mutations(response_mutations=mutations))
    return [
        http_filter("envoy.filters.http.header_mutation", config),
        http_filter("envoy.filters.http.upstream_codec", UpstreamCodec()),
    ]


def others(allowed: Sequence[str]) -> list[str]:
    """Return regular expressions, of which one matches exactly the names that are not in a list.

    They follow the tree of the allowed names. At each place they match where a name ends that is
    not in the list, and where it goes on with a character that no name of the list has there.

    Args:
        allowed: lower-case names; one that ends in `*` allows whatever begins with it.
    """
    regexes, stems = list[str](), [""]
    while stems:
        stem = stems.pop(0)
        cut = _Cut(_PLACES)
        regexes.append(re.escape(stem) + _others(stem, allowed, cut))
        stems += cut.stems
    return regexes


@dataclass(slots=True)
class _Cut:
    """Hold how many places an expression may still take, and the stems left to others."""

    places: int
    stems: list[str] = field(default_factory=list)


def _others(stem: str, allowed: Sequence[str], cut: _Cut) -> str:
    """Return what may follow a stem in a name that is not allowed."""
    following = {name[len(stem)] for name in allowed if name.startswith(stem) and name != stem}
    known = "".join(sorted(following)) + ("" if stem else _PSEUDO)
    choices = [f"[^{re.escape(known)}].*" if known else ".+"]
    for character in sorted(following):
        longer = stem + character
        if f"{longer}*" in allowed:
            continue
        if cut.places > 0:
            cut.places -= 1
            choices.append(re.escape(character) + _others(longer, allowed, cut))
        else:
            cut.stems.append(longer)
    end = "" if stem in allowed or not stem else "?"
    return f"(?:{'|'.join(choices)}){end}"


def replace_refused(headers: Sequence[HeaderValueOption]) -> HttpFilter:
    """Return the filter that answers 502 in place of what only the gateway may answer.

    A 401 or 407 of an MCP server asks for credentials that no client of the gateway can have: MCP
    clients would log their person in again, and be refused again. A redirect leads to an address
    behind the gateway. local_reply_config has the words.

    Args:
        headers: what every answer has; this one passes no filter that would write it.
    """
    refused = _any(
        _is(HttpResponseStatusCodeMatchInput(), "401"),
        _is(HttpResponseStatusCodeMatchInput(), "407"),
        _is(HttpResponseStatusCodeClassMatchInput(), "3xx"),
    )
    from_server = _is(HttpResponseHeaderMatchInput(header_name=FROM_SERVER), "1")
    policy = LocalResponsePolicy(status_code=BAD_GATEWAY, response_headers_to_add=list(headers))
    answer = _typed("answer", policy)
    row = MatcherMatcherListFieldMatcher(
        predicate=_all(from_server, refused), on_match=MatcherOnMatch(action=answer)
    )
    config = CustomResponse(
        custom_response_matcher=Matcher(matcher_list=MatcherMatcherList(matchers=[row]))
    )
    return http_filter("envoy.filters.http.custom_response", config)


_Predicate = MatcherMatcherListPredicate


def _is(tested: betterproto2.Message, text: str) -> _Predicate:
    single = MatcherMatcherListPredicateSinglePredicate(
        input=_typed("input", tested), value_match=XdsStringMatcher(exact=text)
    )
    return _Predicate(single_predicate=single)


def _any(*predicates: _Predicate) -> _Predicate:
    members = MatcherMatcherListPredicatePredicateList(predicate=list(predicates))
    return _Predicate(or_matcher=members)


def _all(*predicates: _Predicate) -> _Predicate:
    members = MatcherMatcherListPredicatePredicateList(predicate=list(predicates))
    return _Predicate(and_matcher=members)


def _typed(name: str, config: betterproto2.Message) -> TypedExtensionConfig:
    return TypedExtensionConfig(name=name, typed_config=pack(config))


def cors_policy(origins: Sequence[str]) -> CorsPolicy:
    """Return what pages of other origins may ask and read of MCP servers (Fetch, section 3.3).

    An origin is compared as a whole text.
    """
    return CorsPolicy(
        allow_origin_string_match=[exactly(origin) for origin in origins],
        allow_methods=_METHODS,
        allow_headers=_ALLOWED,
        expose_headers=_EXPOSED,
        max_age=_MAX_AGE,
    )


def cors_headers(origin: str) -> list[HeaderValueOption]:
    """Return the fields that the cors filter would write on an answer to an origin that is allowed.

    What replaces a server's answer (`replace_refused`) passes no filter, and gets the same fields
    by local_reply_config.
    """
    return [
        overwrite("access-control-allow-origin", origin),
        overwrite("access-control-expose-headers", _EXPOSED),
    ]
