"""The whole of Envoy's configuration, and the pieces of it for people who have an Envoy.

Law: the same settings give the same text. Nothing of Envoy is on the network but its listeners.
"""

from typing import Final

import betterproto2
from envoy_data_plane.envoy.config.bootstrap.v3 import (
    Admin,
    Bootstrap,
    BootstrapStaticResources,
)
from envoy_data_plane.envoy.config.core.v3 import Address, Node, Pipe
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
from envoy_data_plane.google.protobuf import Any

from authz.envoy.render.clusters import clusters
from authz.envoy.render.listener import CERTIFICATE_FILE, certificate, listeners
from authz.envoy.render.pieces import duration
from authz.envoy.render.settings import EnvoySettings, Topology
from authz.envoy.render.text import yaml

ENVOY_FILE: Final = "envoy.yaml"
_HEADER: Final = """\
Envoy's configuration, from authz.yaml by `authz envoy-config`. Do not edit: run it again.

A request meets: the listener's bounds and path normalisation; the route table, whose MCP routes
name their server in context_extensions; the filters, which strip what speaks for somebody else,
answer preflights, limit each address and ask authz; the router, which strips credentials. What
is false in Envoy by default (failure_mode_allow, allow_partial_message) is not written, and
stays false."""
_CERTIFICATE_HEADER: Final = """\
Where Envoy finds its certificate (SDS from a file), by `authz envoy-config`. Envoy reads the
certificate and the key again when a file in their folder is renamed into place."""
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
            listeners=listeners(settings, where), clusters=clusters(settings, where)
        ),
        overload_manager=_overload(settings, where),
    )


def files(settings: EnvoySettings, where: Topology) -> dict[str, str]:
    """Return the text of every file that Envoy reads, by name."""
    found = {ENVOY_FILE: _text(bootstrap(settings, where), _HEADER)}
    if settings.tls is not None:
        found[CERTIFICATE_FILE] = _text(certificate(settings.tls), _CERTIFICATE_HEADER)
    return found


def _text(message: betterproto2.Message, header: str) -> str:
    return yaml(message.to_dict(casing=betterproto2.Casing.SNAKE), header)


def _overload(settings: EnvoySettings, where: Topology) -> OverloadManager:
    """Return when Envoy sheds load: bodies wait in memory while authz is asked."""
    monitors = {
        _HEAP: FixedHeapConfig(max_heap_size_bytes=where.memory),
        _CONNECTIONS: DownstreamConnectionsConfig(
            max_active_downstream_connections=settings.limits.connections
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
            ResourceMonitor(name=name, typed_config=Any.pack(config))
            for name, config in monitors.items()
        ],
        actions=[
            OverloadAction(name=name, triggers=[trigger]) for name, trigger in triggers.items()
        ],
    )
