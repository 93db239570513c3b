"""Local rate limits: what one address may send before authz is asked (token buckets in Envoy).

Invariant: requests with a bearer token, requests of the front door's programs, its pages and all
others take from a bucket each, so that whoever sends one kind without end stops none of the others
behind the same address (decision 14).
"""

import math
from enum import Enum
from typing import Final

from envoy_data_plane.envoy.config.core.v3 import Metadata, RuntimeFractionalPercent
from envoy_data_plane.envoy.config.route.v3 import (
    HeaderMatcher,
    RateLimit,
    RateLimitAction,
    RateLimitActionHeaderValueMatch,
    RateLimitActionMaskedRemoteAddress,
    RateLimitActionMetaData,
    RateLimitActionMetaDataSource,
)
from envoy_data_plane.envoy.extensions.common.ratelimit.v3 import (
    LocalRateLimitDescriptor,
    RateLimitDescriptorEntry,
)
from envoy_data_plane.envoy.extensions.filters.http.local_ratelimit.v3 import LocalRateLimit
from envoy_data_plane.envoy.type.matcher.v3 import RegexMatcher, StringMatcher
from envoy_data_plane.envoy.type.metadata.v3 import (
    MetadataKey,
    MetadataKeyPathSegment,
)
from envoy_data_plane.envoy.type.v3 import FractionalPercent, TokenBucket
from envoy_data_plane.google.protobuf import Struct

from authz.config.model import GatewayConfig
from authz.config.value_types import Rate
from authz.envoy.render.messages import duration, exactly, overwrite

# Addresses that are remembered in each kind of bucket; the one unused for longest is forgotten.
_ADDRESSES: Final = 10_000
# Envoy takes no shorter fill_interval (seconds).
_SHORTEST_FILL: Final = 0.05
_ALWAYS: Final = RuntimeFractionalPercent(default_value=FractionalPercent(numerator=100))
_NAMESPACE: Final = "authz"
_KEY: Final = "traffic"


class Traffic(Enum):
    """Name the kinds of requests that are counted apart from one another.

    A route says of which kind its requests are; what no route says is `OTHER`.
    """

    TOKEN = "token"  # noqa: S105 - a request to an MCP server that has a bearer token
    OAUTH = "oauth"  # what clients ask of the front door: codes, refresh tokens, revocations
    PAGE = "page"  # what people open there, and registrations
    OTHER = "other"


def of_kind(traffic: Traffic) -> Metadata:
    """Return the metadata by which a route says of which kind its requests are."""
    return Metadata(filter_metadata={_NAMESPACE: Struct.from_dict({_KEY: traffic.value})})


def per_address(gateway: GatewayConfig, *, pages: bool) -> LocalRateLimit:
    """Return the buckets of each client address.

    Some count requests, others those with a large body. ext_authz and the buffer filter keep a
    body in memory until all of it has arrived, whoever sends it, and Envoy's memory accounting
    does not see those of HTTP/1.1 (envoyproxy/envoy#29581). A body arrives within
    `request_timeout` or is dropped, so a bound on how many begin is a bound on how many are held.
    Bodies of other traffic are not waited for, and not counted.

    Args:
        gateway: the bounds.
        pages: whether there is a front door.
    """
    kinds = tuple(Traffic) if pages else (Traffic.TOKEN, Traffic.OTHER)
    rates = dict.fromkeys(kinds, gateway.address_rate) | {Traffic.TOKEN: gateway.address_calls}
    buckets = [_descriptor(kind, rate) for kind, rate in rates.items()]
    buckets += [
        _descriptor(kind, gateway.address_bodies, large=True)
        for kind in kinds
        if kind is not Traffic.OTHER
    ]
    slowest = max(rate.window / rate.quota for rate in (*rates.values(), gateway.address_bodies))
    limits = [
        RateLimit(actions=[_ADDRESS, _TRAFFIC]),
        RateLimit(actions=[_ADDRESS, _TRAFFIC, RateLimitAction(header_value_match=_LARGE)]),
    ]
    return _local_rate_limit("per_address", gateway.address_rate, limits, buckets, slowest)


def passwords_per_address(rate: Rate) -> LocalRateLimit:
    """Return the buckets of each client address for the route to the issuer's passwords.

    They are the route's own, so that their Retry-After is.
    """
    limits = [RateLimit(actions=[_ADDRESS])]
    bucket = LocalRateLimitDescriptor(entries=[_BY_ADDRESS], token_bucket=_bucket(rate))
    slowest = rate.window / rate.quota
    return _local_rate_limit("passwords_per_address", rate, limits, [bucket], slowest)


def page_per_address(rate: Rate) -> LocalRateLimit:
    """Return the buckets of each client address for an admin page, which loads much at once.

    They are the route's own: nobody who opens pages takes from what MCP clients have.
    """
    limits = [RateLimit(actions=[_ADDRESS])]
    bucket = LocalRateLimitDescriptor(entries=[_BY_ADDRESS], token_bucket=_bucket(rate))
    return _local_rate_limit("page_per_address", rate, limits, [bucket], rate.window / rate.quota)


def _local_rate_limit(
    name: str,
    rate: Rate,
    limits: list[RateLimit],
    buckets: list[LocalRateLimitDescriptor],
    slowest: float,
) -> LocalRateLimit:
    """Return the filter's configuration.

    The bucket without descriptors must exist and is never taken from: every request has an
    address, and always_consume_default_token_bucket is off.
    """
    return LocalRateLimit(
        stat_prefix=name,
        filter_enabled=_ALWAYS,
        filter_enforced=_ALWAYS,
        token_bucket=_bucket(rate),
        always_consume_default_token_bucket=False,
        rate_limits=limits,
        descriptors=buckets,
        max_dynamic_descriptors=_ADDRESSES,
        response_headers_to_add=[overwrite("retry-after", str(math.ceil(slowest)))],
    )


def _descriptor(kind: Traffic, rate: Rate, *, large: bool = False) -> LocalRateLimitDescriptor:
    entries = [_BY_ADDRESS, RateLimitDescriptorEntry(key=_KEY, value=kind.value)]
    if large:
        entries.append(RateLimitDescriptorEntry(key="header_match", value="large"))
    return LocalRateLimitDescriptor(entries=entries, token_bucket=_bucket(rate))


_ADDRESS: Final = RateLimitAction(
    masked_remote_address=RateLimitActionMaskedRemoteAddress(
        v4_prefix_mask_len=32, v6_prefix_mask_len=64
    )
)
_BY_ADDRESS: Final = RateLimitDescriptorEntry(key="masked_remote_address")
_TRAFFIC: Final = RateLimitAction(
    metadata=RateLimitActionMetaData(
        descriptor_key=_KEY,
        metadata_key=MetadataKey(key=_NAMESPACE, path=[MetadataKeyPathSegment(key=_KEY)]),
        default_value=Traffic.OTHER.value,
        source=RateLimitActionMetaDataSource.ROUTE_ENTRY,
    )
)
_SMALL: Final = StringMatcher(safe_regex=RegexMatcher(regex="[0-9]{1,4}"))
# A POST that does not say that its body is small. Other methods have none (render/routes.py).
_LARGE: Final = RateLimitActionHeaderValueMatch(
    descriptor_value="large",
    expect_match=True,
    headers=[
        HeaderMatcher(name=":method", string_match=exactly("POST")),
        HeaderMatcher(
            name="content-length",
            string_match=_SMALL,
            invert_match=True,
            treat_missing_header_as_empty=True,
        ),
    ],
)


def refill(rate: Rate) -> tuple[int, float]:
    """Return how many tokens come back every how many seconds: never more than the rate."""
    step = max(_SHORTEST_FILL, rate.window / rate.quota)
    return max(1, int(rate.quota * step / rate.window)), math.ceil(step * 1000) / 1000


def _bucket(rate: Rate) -> TokenBucket:
    """Return a bucket that holds the whole quota and is refilled in small steps."""
    tokens, step = refill(rate)
    return TokenBucket(max_tokens=rate.quota, tokens_per_fill=tokens, fill_interval=duration(step))
