"""Where Envoy sends requests: authz, the MCP servers, the pages, the issuer.

Invariant: nothing is tried a second time: a tool call that may have been carried out is not
repeated, and a decision that may have been charged is not asked for again
(tests/envoy/test_render.py).
"""

import ipaddress
from collections.abc import Sequence
from typing import Final

from envoy_data_plane.envoy.config.cluster.v3 import (
    CircuitBreakers,
    CircuitBreakersThresholds,
    Cluster,
    ClusterCommonLbConfig,
    ClusterDiscoveryType,
    ClusterDnsLookupFamily,
    OutlierDetection,
)
from envoy_data_plane.envoy.config.core.v3 import (
    DataSource,
    HealthCheck,
    HealthCheckGrpcHealthCheck,
    Http1ProtocolOptions,
    Http2ProtocolOptions,
    HttpProtocolOptions,
    KeepaliveSettings,
    TransportSocket,
)
from envoy_data_plane.envoy.config.endpoint.v3 import (
    ClusterLoadAssignment,
    Endpoint,
    LbEndpoint,
    LocalityLbEndpoints,
)
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CertificateValidationContext,
    CommonTlsContext,
    SubjectAltNameMatcher,
    SubjectAltNameMatcherSanType,
    UpstreamTlsContext,
)
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptions as Protocols,
)
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptionsExplicitHttpConfig,
)
from envoy_data_plane.envoy.type.v3 import Percent
from envoy_data_plane.google.protobuf import Any

from authz.config.endpoints import Tcp, Unix
from authz.core.exchanges import SERVER_REQUESTS
from authz.envoy.render.messages import address, duration, exactly
from authz.envoy.render.proto_json import pack
from authz.envoy.render.response_headers import upstream_filters
from authz.envoy.render.session_cookie import page_upstream_filters
from authz.envoy.render.settings import (
    AdminPageRoute,
    EnvoySettings,
    HttpUpstream,
    McpServer,
    Topology,
    TracedEdge,
)

AUTHZ: Final = "authz"
ISSUER: Final = "issuer"
# The same issuer, for what makes it compute the hash of a password.
PASSWORDS: Final = "issuer:passwords"
PAGES: Final = "pages"
# Where Envoy's own spans go.
COLLECTOR: Final = "collector"

_PROTOCOLS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_CONNECT: Final = 5.0
_CONNECT_AUTHZ: Final = 0.25
_CONNECT_PAGES: Final = 1.0
# Longer than health checks need to see that an endpoint is away.
_EJECTED: Final = 3.0
# Shorter than the 5 s after which uvicorn and Node.js close an idle connection: otherwise a POST
# now and then meets a connection that is just being closed, and is not repeated.
_IDLE: Final = 4.0
# What Envoy buffers for one connection before it stops reading.
_BUFFER: Final = 32 * 1024
# Streams of MCP servers stay open for long, one a client; Envoy's default is 1024.
_REQUESTS: Final = SERVER_REQUESTS
# More than requests: at this bound Envoy lets a request to an HTTP/1.1 upstream wait in silence, at
# that of requests it answers 503 at once (seen on 1.39.3).
_CONNECTIONS: Final = 2 * _REQUESTS
# Authelia's argon2 takes 64 MiB for each, known user or not, and has no bound of its own. Its
# memory in docker-compose.yml is sized from this.
_AT_ONCE: Final = 4
_HTTP1: Final = HttpProtocolOptionsExplicitHttpConfig(http_protocol_options=Http1ProtocolOptions())


def clusters(settings: EnvoySettings, where: Topology) -> list[Cluster]:
    """Return every cluster."""
    found = [authz(settings)]
    found += [_mcp(server, where) for server in settings.servers]
    found += [_admin(page, where) for page in settings.admin_pages]
    if settings.pages is not None:
        found.append(_pages(settings.pages.upstream, where))
    if settings.portal is not None:
        found.append(_upstream(ISSUER, settings.portal.upstream, where))
        found.append(_passwords(settings.portal.upstream, where))
    if settings.traced is not None:
        found.append(_collector(settings.traced, where))
    return found


def _collector(edge: TracedEdge, where: Topology) -> Cluster:
    cluster = _upstream(COLLECTOR, edge.upstream, where)
    if edge.is_grpc:
        http2 = HttpProtocolOptionsExplicitHttpConfig(http2_protocol_options=Http2ProtocolOptions())
        cluster.typed_extension_protocol_options = _protocols(http2, _IDLE)
    return cluster


def cluster_of(server: McpServer) -> str:
    """Return the name of an MCP server's cluster: another upstream is another cluster.

    So a route leads to the upstream that it names to authz, whichever file Envoy read last.
    """
    return f"{_stats_of(server)}:{server.digest}"


def _stats_of(server: McpServer) -> str:
    return f"mcp:{server.name}"


def authz(settings: EnvoySettings) -> Cluster:
    """Return the cluster of the service: HTTP/2, its workers as endpoints with gRPC health checks.

    A worker that drains or died gets no more requests; where none is healthy, and only there, Envoy
    asks all of them (its panic threshold), and an unanswered question is a 503. The pings find a
    peer that vanished without closing its connection.
    """
    http2 = Http2ProtocolOptions(
        connection_keepalive=KeepaliveSettings(interval=duration(15), timeout=duration(5))
    )
    cluster = _cluster(AUTHZ, settings.authz)
    cluster.connect_timeout = duration(_CONNECT_AUTHZ)
    if _may_be_several(settings.authz):
        _eject_failing_workers(cluster)
    cluster.health_checks = [
        HealthCheck(
            timeout=duration(0.5),
            interval=duration(1),
            no_traffic_interval=duration(1),
            unhealthy_threshold=2,
            healthy_threshold=1,
            grpc_health_check=HealthCheckGrpcHealthCheck(),
        )
    ]
    cluster.typed_extension_protocol_options = _protocols(
        HttpProtocolOptionsExplicitHttpConfig(http2_protocol_options=http2), idle=None
    )
    return cluster


def _may_be_several(places: tuple[Tcp | Unix, ...]) -> bool:
    """Tell whether there are several endpoints, or a name that may have several addresses."""
    return len(places) > 1 or _is_named(places)


def _is_named(places: tuple[Tcp | Unix, ...]) -> bool:
    return any(isinstance(place, Tcp) and not _is_ip(place.host) for place in places)


def _eject_failing_workers(cluster: Cluster) -> None:
    """Ask a worker whose connection broke no more until a health check has succeeded.

    Health checks alone need two seconds to see it, in which every other request would fail. And
    Envoy keeps back what it has learnt of endpoints for a second (update_merge_window) unless
    told otherwise.
    """
    cluster.outlier_detection = OutlierDetection(
        # Connections that break, time-outs: apart from what a worker answers.
        split_external_local_origin_errors=True,
        consecutive_local_origin_failure=1,
        interval=duration(1),
        base_ejection_time=duration(_EJECTED),
        max_ejection_percent=50,
    )
    cluster.common_lb_config = ClusterCommonLbConfig(
        update_merge_window=duration(0),
        # The default, 50, would ask a replica that is being replaced once a worker fails besides.
        healthy_panic_threshold=Percent(value=1),
    )


def _pages(upstream: HttpUpstream, where: Topology) -> Cluster:
    """Return the pages: of several replicas, one that cannot be reached is left out for a while.

    What a replica answers ejects none: 503 means that Authelia or Redis is away, for each of them.
    Without health checks Envoy leaves a replica as soon as its name has lost the address.
    """
    cluster = _upstream(PAGES, upstream, where)
    if _may_be_several(upstream.endpoints):
        cluster.connect_timeout = duration(_CONNECT_PAGES)
        cluster.outlier_detection = OutlierDetection(
            split_external_local_origin_errors=True,
            consecutive_local_origin_failure=2,
            enforcing_consecutive_5xx=0,
            enforcing_consecutive_gateway_failure=0,
            enforcing_success_rate=0,
            enforcing_local_origin_success_rate=0,
            interval=duration(1),
            base_ejection_time=duration(_EJECTED),
            max_ejection_percent=50,
        )
    return cluster


def _mcp(server: McpServer, where: Topology) -> Cluster:
    """Return the cluster of an MCP server, whose responses are filtered as they come in."""
    cluster = _upstream(cluster_of(server), server.upstream, where)
    cluster.alt_stat_name = _stats_of(server)
    cluster.typed_extension_protocol_options = _protocols(_HTTP1, _IDLE, upstream_filters())
    return cluster


def cluster_of_page(page: AdminPageRoute) -> str:
    """Return the name of a page's cluster: another upstream is another cluster."""
    return f"admin:{page.name}:{page.digest}"


def _admin(page: AdminPageRoute, where: Topology) -> Cluster:
    """Return the cluster of a page, whose responses set none of our cookies."""
    cluster = _upstream(cluster_of_page(page), page.upstream, where)
    cluster.alt_stat_name = f"admin:{page.name}"
    cluster.typed_extension_protocol_options = _protocols(_HTTP1, _IDLE, page_upstream_filters())
    return cluster


def _passwords(upstream: HttpUpstream, where: Topology) -> Cluster:
    """Return the issuer as a cluster that is full soon: the excess is answered 503 at once."""
    cluster = _upstream(PASSWORDS, upstream, where)
    assert cluster.circuit_breakers is not None
    (limits,) = cluster.circuit_breakers.thresholds
    limits.max_requests = limits.max_pending_requests = _AT_ONCE
    return cluster


def _upstream(name: str, upstream: HttpUpstream, where: Topology) -> Cluster:
    cluster = _cluster(name, upstream.endpoints)
    cluster.connect_timeout = duration(_CONNECT)
    cluster.typed_extension_protocol_options = _protocols(_HTTP1, _IDLE)
    if upstream.tls_name is not None:
        cluster.transport_socket = _tls(upstream.tls_name, _authorities(upstream, where))
    return cluster


def _cluster(name: str, places: tuple[Tcp | Unix, ...]) -> Cluster:
    endpoints = [LbEndpoint(endpoint=Endpoint(address=address(place))) for place in places]
    limits = CircuitBreakersThresholds(
        max_connections=_CONNECTIONS, max_pending_requests=_REQUESTS, max_requests=_REQUESTS
    )
    return Cluster(
        name=name,
        type=ClusterDiscoveryType.STRICT_DNS if _is_named(places) else ClusterDiscoveryType.STATIC,
        # All addresses of a name are tried: `localhost` may be ::1 while the server listens on
        # 127.0.0.1 only.
        dns_lookup_family=ClusterDnsLookupFamily.ALL,
        per_connection_buffer_limit_bytes=_BUFFER,
        circuit_breakers=CircuitBreakers(thresholds=[limits]),
        load_assignment=ClusterLoadAssignment(
            cluster_name=name, endpoints=[LocalityLbEndpoints(lb_endpoints=endpoints)]
        ),
    )


def _protocols(
    config: HttpProtocolOptionsExplicitHttpConfig,
    idle: float | None,
    filters: Sequence[HttpFilter] = (),
) -> dict[str, Any]:
    options = Protocols(explicit_http_config=config, http_filters=list(filters))
    if idle is not None:
        options.common_http_protocol_options = HttpProtocolOptions(idle_timeout=duration(idle))
    return {_PROTOCOLS: pack(options)}


def _authorities(upstream: HttpUpstream, where: Topology) -> DataSource:
    """Return by which authorities a server is trusted: its private ones alone, or the system's.

    Private ones are written out: authz reads their file again when it changes, however it is
    replaced, and Envoy, which may not have it, follows.
    """
    if upstream.authorities:
        return DataSource(inline_string=upstream.authorities)
    return DataSource(filename=where.trusted_ca)


def _tls(name: str, trusted_ca: DataSource) -> TransportSocket:
    """Return TLS whose certificate must be signed by a trusted authority and have that name."""
    is_ip = _is_ip(name)
    kind = SubjectAltNameMatcherSanType.IP_ADDRESS if is_ip else SubjectAltNameMatcherSanType.DNS
    validation = CertificateValidationContext(
        trusted_ca=trusted_ca,
        match_typed_subject_alt_names=[SubjectAltNameMatcher(san_type=kind, matcher=exactly(name))],
    )
    context = UpstreamTlsContext(
        # RFC 6066, section 3: an IP address is no server name.
        sni="" if is_ip else name,
        common_tls_context=CommonTlsContext(validation_context=validation),
    )
    return TransportSocket(name="envoy.transport_sockets.tls", typed_config=pack(context))


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
