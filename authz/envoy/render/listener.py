"""The listeners: TLS, the HTTP connection manager, and the way from HTTP to HTTPS.

What arrives is bounded in size, number and time, and normalised or refused, before any filter sees
it; X-Forwarded-For is believed from trusted proxies only.
"""

from typing import Final

from envoy_data_plane.envoy.config.core.v3 import (
    CidrRange,
    DataSource,
    Http2ProtocolOptions,
    HttpProtocolOptions,
    HttpProtocolOptionsHeadersWithUnderscoresAction,
    TransportSocket,
    WatchedDirectory,
)
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener
from envoy_data_plane.envoy.config.route.v3 import RouteConfiguration
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpConnectionManagerInternalAddressConfig,
    HttpConnectionManagerPathWithEscapedSlashesAction,
    HttpFilter,
    LocalReplyConfig,
    Rds,
)
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CommonTlsContext,
    DownstreamTlsContext,
    SdsSecretConfig,
    Secret,
    TlsCertificate,
    TlsParameters,
    TlsParametersTlsProtocol,
)
from envoy_data_plane.envoy.service.discovery.v3 import DiscoveryResponse

from authz.config.endpoints import Tcp
from authz.config.model import TlsConfig
from authz.envoy.files import CERTIFICATE_FILE, ROUTES_FILE
from authz.envoy.render.filters import forwarded_ports, http_filters
from authz.envoy.render.local_replies import access_log, local_replies, plain_replies
from authz.envoy.render.messages import address, duration, http_filter, watched_file
from authz.envoy.render.proto_json import pack
from authz.envoy.render.routes import gateway_routes, redirect_routes
from authz.envoy.render.settings import EnvoySettings, Topology
from authz.envoy.render.tracing import restarts_traces, tracing

GATEWAY: Final = "gateway"
REDIRECT: Final = "redirect"
CERTIFICATE: Final = "certificate"

_BUFFER: Final = 32 * 1024
# A token of 8 KiB, generous cookies of the portal, and headers; authz takes 64 KiB a request.
_HEADERS_KIB: Final = 32
_HEADERS: Final = 100
_IDLE_CONNECTION: Final = 60
_WAIT_FOR_HEADERS: Final = 5
_WAIT_FOR_HANDSHAKE: Final = 5
_VERSIONS: Final = {
    "1.2": TlsParametersTlsProtocol.TLSv1_2,
    "1.3": TlsParametersTlsProtocol.TLSv1_3,
}


def listeners(settings: EnvoySettings, where: Topology, *, watched: bool = False) -> list[Listener]:
    """Return the gateway's listener and, where there is one, that of plain HTTP.

    Args:
        settings: what is rendered.
        where: the parts.
        watched: whether the gateway's routes are in a file of their own. Nothing of a server is in
            the listeners then: another filter chain would cut the streams that are open.
    """
    routes = _watched_routes(where.folder) if watched else gateway_routes(settings)
    front_door = None if settings.pages is None else settings.url
    replies = local_replies(settings.portal, front_door, pages=settings.opens_pages)
    filters = [*forwarded_ports(settings.gateway.trusted_hops), *http_filters(settings)]
    manager = _manager(GATEWAY, settings, routes, filters, replies)
    if settings.traced is not None:
        manager.tracing = tracing(settings.traced)
        manager.early_header_mutation_extensions = [restarts_traces()]
    main = _chain(manager)
    if settings.gateway.tls is not None:
        main.transport_socket = _tls(settings.gateway.tls, where.folder)
        main.transport_socket_connect_timeout = duration(_WAIT_FOR_HANDSHAKE)
    found = [_listener(GATEWAY, settings.gateway.listen, main)]
    if settings.gateway.http_listen is not None:
        router = http_filter("envoy.filters.http.router", Router())
        manager = _manager(REDIRECT, settings, redirect_routes(settings), [router], plain_replies())
        found.append(_listener(REDIRECT, settings.gateway.http_listen, _chain(manager)))
    return found


def certificate(tls: TlsConfig) -> DiscoveryResponse:
    """Return the file that Envoy reads the certificate by (SDS from a file).

    Only a certificate that comes by SDS is watched (TlsCertificate.watched_directory): a rename
    within its folder makes Envoy read both files again; a pair that does not fit is not taken,
    so that the chain and the key may be renamed one after the other.
    """
    folder = tls.certificate.rpartition("/")[0] or "/"
    files = TlsCertificate(
        certificate_chain=DataSource(filename=tls.certificate),
        private_key=DataSource(filename=tls.key),
        watched_directory=WatchedDirectory(path=folder),
    )
    secret = Secret(name=CERTIFICATE, tls_certificate=files)
    return DiscoveryResponse(resources=[pack(secret)])


def _watched_routes(folder: str) -> Rds:
    source = watched_file(folder, ROUTES_FILE)
    return Rds(config_source=source, route_config_name=GATEWAY)


def _listener(name: str, place: Tcp, chain: FilterChain) -> Listener:
    return Listener(
        name=name,
        address=address(place, listen=True),
        per_connection_buffer_limit_bytes=_BUFFER,
        filter_chains=[chain],
    )


def _chain(manager: HttpConnectionManager) -> FilterChain:
    name = "envoy.filters.network.http_connection_manager"
    return FilterChain(filters=[Filter(name=name, typed_config=pack(manager))])


def _manager(
    name: str,
    settings: EnvoySettings,
    routes: RouteConfiguration | Rds,
    filters: list[HttpFilter],
    replies: LocalReplyConfig,
) -> HttpConnectionManager:
    """Return the HTTP connection manager.

    generate_request_id is on by default and preserve_external_request_id off: a request id is
    always Envoy's own.
    """
    return HttpConnectionManager(
        stat_prefix=name,
        route_config=routes if isinstance(routes, RouteConfiguration) else None,
        rds=routes if isinstance(routes, Rds) else None,
        http_filters=filters,
        access_log=[access_log()],
        local_reply_config=replies,
        # Who is asking.
        use_remote_address=True,
        xff_num_trusted_hops=settings.gateway.trusted_hops,
        internal_address_config=_nobody_is_internal(),
        always_set_request_id_in_response=True,
        server_name=GATEWAY,
        # What is asked for: one spelling, or nothing.
        normalize_path=True,
        merge_slashes=True,
        path_with_escaped_slashes_action=(
            HttpConnectionManagerPathWithEscapedSlashesAction.REJECT_REQUEST
        ),
        # How much, for how long. stream_idle_timeout is off on MCP routes.
        max_request_headers_kb=_HEADERS_KIB,
        request_headers_timeout=duration(_WAIT_FOR_HEADERS),
        request_timeout=duration(settings.gateway.request_timeout),
        common_http_protocol_options=HttpProtocolOptions(
            idle_timeout=duration(_IDLE_CONNECTION),
            max_headers_count=_HEADERS,
            headers_with_underscores_action=(
                HttpProtocolOptionsHeadersWithUnderscoresAction.REJECT_REQUEST
            ),
        ),
        http2_protocol_options=Http2ProtocolOptions(
            max_concurrent_streams=settings.gateway.max_concurrent_streams,
            initial_stream_window_size=64 * 1024,
            initial_connection_window_size=1024 * 1024,
            # A malformed request ends its stream, not the connection: behind a proxy that is
            # everybody's.
            override_stream_error_on_invalid_http_message=True,
        ),
    )


def _nobody_is_internal() -> HttpConnectionManagerInternalAddressConfig:
    """Trust no address with headers of Envoy's own.

    The message without ranges would trust all private addresses and loopback (RFC 1918): their
    x-request-id and x-envoy-* would be believed.
    """
    nowhere = CidrRange(address_prefix="255.255.255.255", prefix_len=32)
    return HttpConnectionManagerInternalAddressConfig(cidr_ranges=[nowhere])


def _tls(tls: TlsConfig, folder: str) -> TransportSocket:
    source = watched_file(folder, CERTIFICATE_FILE)
    context = DownstreamTlsContext(
        common_tls_context=CommonTlsContext(
            tls_params=TlsParameters(tls_minimum_protocol_version=_VERSIONS[tls.minimum]),
            alpn_protocols=["h2", "http/1.1"],
            tls_certificate_sds_secret_configs=[
                SdsSecretConfig(name=CERTIFICATE, sds_config=source)
            ],
        )
    )
    return TransportSocket(name="envoy.transport_sockets.tls", typed_config=pack(context))
