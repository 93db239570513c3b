"""Envoy's own spans, where `telemetry.otlp.envoy` asks for them.

Invariant: a client decides nothing about them: its trace context is taken away before Envoy reads
it, and no path or query, where codes stand, is in a span (tests/server/test_otlp_live.py).
"""

from typing import Final

from envoy_data_plane.envoy.config.common.mutation_rules.v3 import HeaderMutation as Mutation
from envoy_data_plane.envoy.config.core.v3 import (
    GrpcService,
    GrpcServiceEnvoyGrpc,
    HttpService,
    HttpUri,
    TypedExtensionConfig,
)
from envoy_data_plane.envoy.config.trace.v3 import OpenTelemetryConfig, TracingHttp
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManagerTracing,
)
from envoy_data_plane.envoy.extensions.http.early_header_mutation.header_mutation.v3 import (
    HeaderMutation,
)
from envoy_data_plane.envoy.type.v3 import Percent

from authz.envoy.render.clusters import COLLECTOR
from authz.envoy.render.messages import duration
from authz.envoy.render.proto_json import pack
from authz.envoy.render.settings import TracedEdge

SERVICE: Final = "authz-envoy"
_TRACER: Final = "envoy.tracers.opentelemetry"
_EARLY: Final = "envoy.http.early_header_mutation.header_mutation"
_CONTEXT: Final = ("traceparent", "tracestate")
_TIMEOUT: Final = 5.0


def tracing(edge: TracedEdge) -> HttpConnectionManagerTracing:
    """Return which requests Envoy keeps, and where their spans go.

    An x-client-trace-id forces nothing, and the URL of a span ends with the host.
    """
    provider = OpenTelemetryConfig(service_name=SERVICE)
    if edge.is_grpc:
        collector = GrpcServiceEnvoyGrpc(cluster_name=COLLECTOR)
        provider.grpc_service = GrpcService(envoy_grpc=collector, timeout=duration(_TIMEOUT))
    else:
        uri = HttpUri(
            uri=f"{edge.endpoint}/v1/traces", cluster=COLLECTOR, timeout=duration(_TIMEOUT)
        )
        provider.http_service = HttpService(http_uri=uri)
    return HttpConnectionManagerTracing(
        client_sampling=Percent(value=0),
        random_sampling=Percent(value=edge.sample * 100),
        overall_sampling=Percent(value=100),
        max_path_tag_length=0,
        provider=TracingHttp(name=_TRACER, typed_config=pack(provider)),
        spawn_upstream_span=True,
    )


def restarts_traces() -> TypedExtensionConfig:
    """Return what takes a client's trace context away, before Envoy's tracer looks for one."""
    config = HeaderMutation(mutations=[Mutation(remove=name) for name in _CONTEXT])
    return TypedExtensionConfig(name=_EARLY, typed_config=pack(config))
