"""Listeners that pass on little of Envoy's admin interface: statistics, readiness, the drain.

The admin socket can stop Envoy and show its configuration. Whoever writes the watched files only
has to know what became of them.
"""

from collections.abc import Sequence
from typing import Final

from envoy_data_plane.envoy.config.cluster.v3 import Cluster, ClusterDiscoveryType
from envoy_data_plane.envoy.config.core.v3 import Address, HttpProtocolOptions, Pipe
from envoy_data_plane.envoy.config.endpoint.v3 import (
    ClusterLoadAssignment,
    Endpoint,
    LbEndpoint,
    LocalityLbEndpoints,
)
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener
from envoy_data_plane.envoy.config.route.v3 import (
    Route,
    RouteAction,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
)
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.network.connection_limit.v3 import ConnectionLimit
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
)

from authz.config.endpoints import Tcp, Unix
from authz.envoy.render.messages import address, duration, http_filter, method
from authz.envoy.render.proto_json import pack

STATISTICS: Final = "statistics"
_ADMIN: Final = "admin"
_PATHS: Final = ("/stats", "/stats/prometheus", "/ready")
# On the network: what Prometheus and probes ask.
SCRAPE: Final = "scrape"
_SCRAPED: Final = ("/stats/prometheus", "/ready")
# Every answer then closes its connection (GOAWAY in HTTP/2), and /ready is 503.
DRAIN: Final = "drain"
_DRAIN: Final = ("/healthcheck/fail",)
_OWNER_ONLY: Final = 0o600
_TIMEOUT: Final = 5
_CONNECTIONS: Final = 64


def statistics_listener(path: str) -> Listener:
    """Return a listener on a Unix socket that passes on GET of three paths."""
    at = Address(pipe=Pipe(path=path, mode=_OWNER_ONLY))
    return _listener(STATISTICS, at, "GET", _PATHS)


def scrape_listener(at: Tcp) -> Listener:
    """Return a listener on the network that passes on GET of two paths."""
    return _listener(SCRAPE, address(at), "GET", _SCRAPED)


def drain_listener(at: Tcp) -> Listener:
    """Return a listener that passes on the one POST before a stop."""
    return _listener(DRAIN, address(at), "POST", _DRAIN)


def _listener(called: str, at: Address, verb: str, paths: Sequence[str]) -> Listener:
    routes = [
        Route(
            name=f"{called}:{each}",
            match=RouteMatch(path=each, headers=[method(verb)]),
            route=RouteAction(cluster=_ADMIN, timeout=duration(_TIMEOUT)),
        )
        for each in paths
    ]
    manager = HttpConnectionManager(
        stat_prefix=called,
        route_config=RouteConfiguration(
            name=called,
            virtual_hosts=[VirtualHost(name=called, domains=["*"], routes=routes)],
        ),
        http_filters=[http_filter("envoy.filters.http.router", Router())],
        common_http_protocol_options=HttpProtocolOptions(idle_timeout=duration(_TIMEOUT)),
        normalize_path=True,
    )
    name = "envoy.filters.network.http_connection_manager"
    # Not counted among the connections of the gateway, so that they need a bound of their own.
    bound = ConnectionLimit(stat_prefix=called, max_connections=_CONNECTIONS)
    filters = [
        Filter(name="envoy.filters.network.connection_limit", typed_config=pack(bound)),
        Filter(name=name, typed_config=pack(manager)),
    ]
    chain = FilterChain(filters=filters)
    return Listener(
        name=called,
        address=at,
        filter_chains=[chain],
        per_connection_buffer_limit_bytes=32 * 1024,
        # Whatever connections and memory strangers hold at the gateway: probes are answered.
        bypass_overload_manager=True,
    )


def admin_cluster(path: str) -> Cluster:
    """Return the cluster of Envoy's own admin socket."""
    place = LbEndpoint(endpoint=Endpoint(address=address(Unix(path))))
    return Cluster(
        name=_ADMIN,
        type=ClusterDiscoveryType.STATIC,
        connect_timeout=duration(_TIMEOUT),
        load_assignment=ClusterLoadAssignment(
            cluster_name=_ADMIN, endpoints=[LocalityLbEndpoints(lb_endpoints=[place])]
        ),
    )
