"""Short forms of Envoy's messages: addresses, headers, matchers, filters, durations."""

from datetime import timedelta
from typing import Final

import betterproto2
from envoy_data_plane.envoy.config.common.mutation_rules.v3 import (
    HeaderMutation,
    HeaderMutationRemoveOnMatch,
)
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    ConfigSource,
    HeaderValue,
    HeaderValueOption,
    HeaderValueOptionHeaderAppendAction,
    PathConfigSource,
    Pipe,
    SocketAddress,
    WatchedDirectory,
)
from envoy_data_plane.envoy.config.route.v3 import HeaderMatcher
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.type.matcher.v3 import RegexMatcher, StringMatcher

from authz.config.endpoints import Tcp, Unix
from authz.config.urls import Url
from authz.envoy.render.proto_json import pack

# Whoever Envoy takes for the client: the peer, or what trusted proxies say of theirs.
TRUSTED_ADDRESS: Final = "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"


def address(place: Tcp | Unix, *, listen: bool = False) -> Address:
    """Return an address (envoy.config.core.v3.Address), to connect to or to listen on."""
    if isinstance(place, Unix):
        return Address(pipe=Pipe(path=place.path))
    # Without ipv4_compat a listener on [::] would not take IPv4 connections.
    both = listen and place.host == "::"
    return Address(
        socket_address=SocketAddress(address=place.host, port_value=place.port, ipv4_compat=both)
    )


def watched_file(folder: str, name: str) -> ConfigSource:
    """Return a file of a folder as a source that is read again when a file there is renamed.

    With the folder named it holds also where files are links that lead elsewhere after a change
    (Kubernetes): without, Envoy sees only a rename of the file itself.
    """
    source = PathConfigSource(
        path=f"{folder}/{name}", watched_directory=WatchedDirectory(path=folder)
    )
    return ConfigSource(path_config_source=source)


def overwrite(name: str, value: str) -> HeaderValueOption:
    """Return a header that replaces whatever was there (a `%` in the value is Envoy's own)."""
    return HeaderValueOption(
        header=HeaderValue(key=name, value=value),
        append_action=HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
    )


def forwarded(url: Url) -> list[HeaderValueOption]:
    """Return the X-Forwarded-* headers: who asks, and for which host and scheme."""
    return [
        overwrite("x-forwarded-for", TRUSTED_ADDRESS),
        overwrite("x-forwarded-host", url.authority),
        overwrite("x-forwarded-proto", url.scheme),
    ]


def http_filter(name: str, config: betterproto2.Message) -> HttpFilter:
    """Return an HTTP filter with its configuration."""
    return HttpFilter(name=name, typed_config=pack(config))


def remove_matching(matcher: StringMatcher) -> HeaderMutation:
    """Return the removal of every header whose name matches."""
    return HeaderMutation(remove_on_match=HeaderMutationRemoveOnMatch(key_matcher=matcher))


def exactly(text: str) -> StringMatcher:
    """Return a matcher of one text."""
    return StringMatcher(exact=text)


def method(*names: str) -> HeaderMatcher:
    """Return a matcher of request methods; they are case-sensitive (RFC 9110, section 9.1)."""
    matchers = [StringMatcher(exact=name) for name in names]
    if len(matchers) == 1:
        return HeaderMatcher(name=":method", string_match=matchers[0])
    pattern = RegexMatcher(regex="|".join(names))
    return HeaderMatcher(name=":method", string_match=StringMatcher(safe_regex=pattern))


def duration(seconds: float) -> timedelta:
    """Return a google.protobuf.Duration; 0 switches Envoy's timeouts off."""
    return timedelta(milliseconds=round(seconds * 1000))
