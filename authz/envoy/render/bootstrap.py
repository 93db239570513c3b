"""The files that Envoy reads, and the pieces of them for people who have an Envoy.

Invariant: the same settings give the same text (tests/envoy/test_render.py).
"""

from collections.abc import Sequence
from typing import Final

import betterproto2
from envoy_data_plane.envoy.config.bootstrap.v3 import (
    Admin,
    Bootstrap,
    BootstrapDynamicResources,
    BootstrapStaticResources,
    Watchdog,
    Watchdogs,
)
from envoy_data_plane.envoy.config.cluster.v3 import Cluster
from envoy_data_plane.envoy.config.core.v3 import Address, Node, Pipe
from envoy_data_plane.envoy.config.listener.v3 import Listener
from envoy_data_plane.envoy.config.overload.v3 import (
    BufferFactoryConfig,
    OverloadAction,
    OverloadManager,
    ResourceMonitor,
    ScaledTrigger,
    ThresholdTrigger,
    Trigger,
)
from envoy_data_plane.envoy.extensions.resource_monitors.downstream_connections.v3 import (
    DownstreamConnectionsConfig,
)
from envoy_data_plane.envoy.extensions.resource_monitors.fixed_heap.v3 import FixedHeapConfig

from authz.config.yaml_writer import comment_text, to_yaml
from authz.envoy.files import (
    CERTIFICATE_FILE,
    CLUSTERS_FILE,
    ENVOY_FILE,
    LISTENERS_FILE,
    ROUTES_FILE,
    watched_text,
)
from authz.envoy.render.clusters import COLLECTOR, ISSUER, PASSWORDS, clusters
from authz.envoy.render.filters import http_filters
from authz.envoy.render.listener import certificate, listeners
from authz.envoy.render.messages import duration, watched_file
from authz.envoy.render.proto_json import pack, to_plain
from authz.envoy.render.routes import gateway_host, gateway_routes
from authz.envoy.render.settings import EnvoySettings, Topology
from authz.envoy.render.statistics import (
    admin_cluster,
    drain_listener,
    scrape_listener,
    statistics_listener,
)

_HEADER: Final = """\
Envoy's configuration, from authz.yaml by `authz envoy-config`. Do not edit: run it again.

A request meets: the listener's bounds and path normalisation; the route table, whose MCP routes
name their server in context_extensions; the filters, which strip what speaks for somebody else,
answer preflights, limit each address and ask authz; the router, which strips credentials. What
is false in Envoy by default (failure_mode_allow, allow_partial_message) is not written, and
stays false."""
_WATCHING_HEADER: Final = """\
Envoy's configuration, from authz.yaml by `authz envoy-config`. Do not edit: run it again.

Listeners, clusters, routes and the certificate are in the files beside this one, which Envoy reads
again whenever one is replaced by a rename; only what stands here needs a restart. Start Envoy with
--reject-unknown-dynamic-fields: without it a field that it does not know is passed over."""
_CERTIFICATE_HEADER: Final = """\
Where Envoy finds its certificate (SDS from a file), by `authz envoy-config`. Envoy reads the
certificate and the key again when a file in their folder is renamed into place."""
_FRAGMENT_HEADER: Final = """\
Pieces of Envoy's configuration for an Envoy that is there already, from authz.yaml by
`authz envoy-config --fragment`.

http_filters: put them into the HTTP connection manager in this order, before its router filter.
  The first takes X-Forwarded-* and its relatives from every request of that listener; routes of
  yours that need them must add them anew, as virtual_host does.
virtual_host: put it into the route configuration. On every other route of that listener switch
  ext_authz off (ExtAuthzPerRoute.disabled), or authz is asked about it and refuses it.
clusters: put them with the others.

The connection manager must have these settings; with them the address, path and headers that
authz judges are the ones that the servers get:
  use_remote_address: true
  xff_num_trusted_hops: {hops}
  internal_address_config: {{cidr_ranges: [{{address_prefix: 255.255.255.255, prefix_len: 32}}]}}
  normalize_path: true
  merge_slashes: true
  path_with_escaped_slashes_action: REJECT_REQUEST
  common_http_protocol_options: {{headers_with_underscores_action: REJECT_REQUEST}}
and no early filter may change the path or the route (clear_route_cache).
Envoy's own errors (413, 429, 503) become JSON-RPC with the local_reply_config of the whole
configuration (`authz envoy-config`)."""
_OWNER_ONLY: Final = 0o600
# Streams of HTTP/2 that hold 64 KiB or more (2^16) are told apart: under pressure the largest of
# them are reset first.
_TRACKED: Final = 16
_HEAP: Final = "envoy.resource_monitors.fixed_heap"
_CONNECTIONS: Final = "envoy.resource_monitors.global_downstream_max_connections"


def bootstrap(settings: EnvoySettings, where: Topology) -> Bootstrap:
    """Return Envoy's configuration (envoy.config.bootstrap.v3.Bootstrap)."""
    return Bootstrap(
        # Envoy wants to be called something before it reads a secret from a file.
        node=Node(id="gateway", cluster="authz"),
        admin=Admin(address=Address(pipe=Pipe(path=where.admin, mode=_OWNER_ONLY))),
        static_resources=BootstrapStaticResources(
            listeners=[*listeners(settings, where), *_statistics(where)],
            clusters=[*clusters(settings, where), *_admin(where)],
        ),
        watchdogs=_watchdogs(),
        overload_manager=_overload_manager(settings, where),
    )


def _watchdogs() -> Watchdogs:
    """Return how slow a thread is counted: by default the question wakes each ten times a second.

    Nothing else depends on it: a thread is killed only where `kill_timeout` is set.
    """
    slow = Watchdog(miss_timeout=duration(2), megamiss_timeout=duration(10))
    return Watchdogs(main_thread_watchdog=slow, worker_watchdog=slow)


def _statistics(where: Topology) -> list[Listener]:
    found = [statistics_listener(where.stats)] if where.stats else []
    if where.scrape is not None:
        found.append(scrape_listener(where.scrape))
    if where.drain is not None:
        found.append(drain_listener(where.drain))
    return found


def _admin(where: Topology) -> list[Cluster]:
    return [admin_cluster(where.admin)] if _statistics(where) else []


def files(settings: EnvoySettings, where: Topology) -> dict[str, str]:
    """Return the text of every file that Envoy reads, by name."""
    found = {ENVOY_FILE: _text(bootstrap(settings, where), _HEADER)}
    if settings.gateway.tls is not None:
        found[CERTIFICATE_FILE] = _text(certificate(settings.gateway.tls), _CERTIFICATE_HEADER)
    return found


def watched_files(settings: EnvoySettings, where: Topology) -> dict[str, str]:
    """Return the text of every file of an Envoy that follows changes.

    Only what `envoy.yaml` holds needs a restart.
    """
    found = {ENVOY_FILE: _text(_watching(settings, where), _WATCHING_HEADER)}
    if settings.gateway.tls is not None:
        found[CERTIFICATE_FILE] = _text(certificate(settings.gateway.tls), _CERTIFICATE_HEADER)
    resources: dict[str, Sequence[betterproto2.Message]] = {
        CLUSTERS_FILE: clusters(settings, where),
        LISTENERS_FILE: listeners(settings, where, watched=True),
        ROUTES_FILE: [gateway_routes(settings)],
    }
    for name, messages in resources.items():
        found[name] = watched_text([to_plain(pack(message)) for message in messages])
    return found


def _watching(settings: EnvoySettings, where: Topology) -> Bootstrap:
    """Return an envoy.yaml that names the watched files."""
    return Bootstrap(
        node=Node(id="gateway", cluster="authz"),
        admin=Admin(address=Address(pipe=Pipe(path=where.admin, mode=_OWNER_ONLY))),
        static_resources=BootstrapStaticResources(
            listeners=_statistics(where), clusters=_admin(where)
        ),
        dynamic_resources=BootstrapDynamicResources(
            lds_config=watched_file(where.folder, LISTENERS_FILE),
            cds_config=watched_file(where.folder, CLUSTERS_FILE),
        ),
        watchdogs=_watchdogs(),
        overload_manager=_overload_manager(settings, where),
    )


def fragment(settings: EnvoySettings, where: Topology) -> str:
    """Return the filters, the gateway's virtual host and the clusters alone, as YAML.

    They are the pieces of the whole configuration; the header says what the surrounding connection
    manager must do for them to be safe.
    """
    pieces = {
        "http_filters": [to_plain(each) for each in http_filters(settings)[:-1]],
        "virtual_host": to_plain(gateway_host(settings)),
        "clusters": [
            to_plain(cluster)
            for cluster in clusters(settings, where)
            if cluster.name not in {ISSUER, PASSWORDS, COLLECTOR}
        ],
    }
    header = _FRAGMENT_HEADER.format(hops=settings.gateway.trusted_hops)
    return comment_text(header.splitlines()) + to_yaml(pieces)


def _text(message: betterproto2.Message, header: str) -> str:
    return comment_text(header.splitlines()) + to_yaml(to_plain(message))


def _overload_manager(settings: EnvoySettings, where: Topology) -> OverloadManager:
    """Return when Envoy sheds load: bodies wait in memory while authz is asked."""
    monitors = {
        _HEAP: FixedHeapConfig(max_heap_size_bytes=where.memory),
        _CONNECTIONS: DownstreamConnectionsConfig(
            max_active_downstream_connections=settings.gateway.max_connections
        ),
    }
    full = ScaledTrigger(scaling_threshold=0.9, saturation_threshold=0.98)
    triggers = {
        "envoy.overload_actions.shrink_heap": Trigger(_HEAP, threshold=ThresholdTrigger(0.9)),
        "envoy.overload_actions.reset_high_memory_stream": Trigger(_HEAP, scaled=full),
        "envoy.overload_actions.stop_accepting_requests": Trigger(
            _HEAP, threshold=ThresholdTrigger(0.95)
        ),
    }
    return OverloadManager(
        refresh_interval=duration(0.25),
        buffer_factory_config=BufferFactoryConfig(minimum_account_to_track_power_of_two=_TRACKED),
        resource_monitors=[
            ResourceMonitor(name=name, typed_config=pack(config))
            for name, config in monitors.items()
        ],
        actions=[
            OverloadAction(name=name, triggers=[trigger]) for name, trigger in triggers.items()
        ],
    )
