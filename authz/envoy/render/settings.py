"""What the edge needs to know of a deployment, decided once.

Law: plain values in the field's own words. Every address, name and duration of the rendered
configuration comes from here; the other files of this room only spell them in Envoy's terms.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from authz.config import urls
from authz.config.compile import metadata_url
from authz.config.model import Config
from authz.config.server_metadata import document_scopes, server_metadata
from authz.config.value_types import Rate, Tcp, Unix
from authz.config.workers import places

Endpoint = Tcp | Unix

TOKEN: Final = "token"  # noqa: S105 - the name of an endpoint
# Authelia's endpoints for programs, below /api/oidc/. The first four count failures per address
# and answer that address 429 afterwards.
ENDPOINTS: Final = (
    TOKEN, "introspection", "revocation", "pushed-authorization-request", "device-authorization",
)  # fmt: skip
_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Topology:
    """State where the parts of one deployment are, as Envoy sees them.

    Attributes:
        authz: every worker of the service that answers Check; none named: as
            `service.check` and `service.workers` say.
        admin: the path of Envoy's admin socket; it is never on the network, because whoever
            reaches it can stop Envoy and read its configuration.
        folder: where the rendered files will lie when Envoy reads them.
        upstreams: servers that are reached elsewhere than authz.yaml says, by name.
        issuer: the same for the issuer.
        pages: where `authz pages` listens; not named: `service.pages`.
        trusted_ca: the file of certificate authorities that upstreams with https are checked by.
        memory: bytes of heap from which Envoy sheds load.
    """

    authz: tuple[Endpoint, ...] = ()
    admin: str = "/run/authz/envoy-admin.sock"
    folder: str = "/etc/envoy"
    upstreams: Mapping[str, Endpoint] = field(default_factory=lambda: MappingProxyType({}))
    issuer: Endpoint | None = None
    pages: Endpoint | None = None
    trusted_ca: str = "/etc/ssl/certs/ca-certificates.crt"
    memory: int = 1 << 30


@dataclass(frozen=True, slots=True)
class Authority:
    """Name one origin: what clients write in Host and `:authority`.

    Attributes:
        scheme: `https` or `http`.
        host: the name, lower case; IPv6 in brackets.
        port: always known, also where the URL leaves it out.
    """

    scheme: str
    host: str
    port: int

    @property
    def text(self) -> str:
        """Return the spelling without a default port."""
        return self.host if self._is_default else f"{self.host}:{self.port}"

    @property
    def spellings(self) -> tuple[str, ...]:
        """Return every Host that means this origin (RFC 9110, section 4.2.3); no other does."""
        full = f"{self.host}:{self.port}"
        return (self.host, full) if self._is_default else (full,)

    @property
    def _is_default(self) -> bool:
        return self.port == _PORTS[self.scheme]


@dataclass(frozen=True, slots=True)
class HttpUpstream:
    """State how Envoy reaches one HTTP server behind it.

    Attributes:
        endpoint: where it listens.
        host: the Host that it is sent; a client that talked to it directly would send the same.
        tls_name: the name or IP address that its certificate must have; None without TLS.
        path: the path of its URL; empty or with a slash in front.
    """

    endpoint: Endpoint
    host: str
    tls_name: str | None
    path: str


@dataclass(frozen=True, slots=True)
class McpServer:
    """Hold one MCP server as the edge shows it.

    Attributes:
        name: as in authz.yaml; the `server` of the route's context_extensions.
        path: its path, compared as a whole; `paths` are all that lead to it.
        upstream: where its requests go.
        document: its RFC 9728 document.
        document_path: where that is, as challenges say it.
    """

    name: str
    path: str
    upstream: HttpUpstream
    document: Mapping[str, object]
    document_path: str

    @property
    def paths(self) -> tuple[str, str]:
        """Return the two spellings of its path that lead to it: without and with a last slash.

        A token for the URL with a slash is taken (`core.audience`), so the URL is, too.
        """
        return self.path, f"{self.path}/"


@dataclass(frozen=True, slots=True)
class IssuerPortal:
    """Hold the issuer's own pages, where Envoy serves them.

    Attributes:
        authority: the issuer's origin.
        path: the path of the issuer's URL, as a rule empty; its pages are under it.
        upstream: where they are; its path stands in place of the public one.
        closed: the last segments of the issuer's endpoints that nobody outside has a use for.
    """

    authority: Authority
    path: str
    upstream: HttpUpstream
    closed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FrontDoorPages:
    """State how the front door and the step-up are reached, where there is a front door.

    Attributes:
        upstream: where `authz pages` listens.
        logs_in: whether anybody logs in there; else it is there for step-ups alone.
        registers: whether it, and not Envoy, answers at /register.
        document: its RFC 8414 metadata, served where somebody logs in there.
    """

    upstream: HttpUpstream
    logs_in: bool
    registers: bool
    document: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Tls:
    """Hold the files of the certificate (PEM) and the oldest protocol that is spoken."""

    certificate: str
    key: str
    minimum: str


@dataclass(frozen=True, slots=True)
class Limits:
    """Hold what clients may use of Envoy.

    Attributes:
        connections: the most at a time, from all clients.
        streams: the most HTTP/2 streams at a time on one connection.
        address_rate: the most requests of one address without a token, of each kind.
        address_calls: the most requests of one address with one.
        address_bodies: the most requests of one address with a large body, of each kind.
        address_passwords: the most passwords that one address may try at the portal.
        request_timeout: seconds in which a request arrives whole.
        max_body: the longest body of a POST in bytes.
        max_stream: seconds after which any MCP stream ends.
    """

    connections: int
    streams: int
    address_rate: Rate
    address_calls: Rate
    address_bodies: Rate
    address_passwords: Rate
    request_timeout: float
    max_body: int
    max_stream: float


@dataclass(frozen=True, slots=True)
class EnvoySettings:
    """Hold all that is rendered, besides what only a `Topology` knows.

    Attributes:
        authority: the gateway's own origin; every MCP server lies under it.
        listen: where clients connect.
        redirect: where plain HTTP is sent on to HTTPS; None where nothing listens for it.
        tls: None where TLS ends before Envoy.
        trusted_hops: proxies before Envoy whose X-Forwarded-For is believed.
        origins: the web origins that may call.
        limits: what clients may use.
        deadline: seconds that a decision may take at most.
        authz: where the service answers.
        servers: the MCP servers.
        portal: None where the issuer is served elsewhere.
        pages: None where there is no front door.
    """

    authority: Authority
    listen: Tcp
    redirect: Tcp | None
    tls: Tls | None
    trusted_hops: int
    origins: tuple[str, ...]
    limits: Limits
    deadline: float
    authz: tuple[Endpoint, ...]
    servers: tuple[McpServer, ...]
    portal: IssuerPortal | None
    pages: FrontDoorPages | None


def envoy_settings(config: Config, where: Topology) -> EnvoySettings:
    """Return what is to be rendered of a configuration that `lint` has passed."""
    gateway = config.gateway
    tls = gateway.tls
    return EnvoySettings(
        authority=_authority(urls.split(gateway.url)),
        listen=gateway.listen,
        redirect=gateway.http_listen,
        tls=None if tls is None else Tls(tls.certificate, tls.key, tls.minimum),
        trusted_hops=gateway.trusted_hops,
        origins=gateway.origins,
        limits=Limits(
            connections=gateway.max_connections,
            streams=gateway.max_concurrent_streams,
            address_rate=gateway.address_rate,
            address_calls=gateway.address_calls,
            address_bodies=gateway.address_bodies,
            address_passwords=gateway.address_passwords,
            request_timeout=gateway.request_timeout,
            max_body=gateway.max_body,
            max_stream=gateway.max_stream,
        ),
        deadline=config.issuer.deadline,
        authz=where.authz or places(config.service.check, config.service.workers),
        servers=tuple(_server(config, name, where) for name in config.servers),
        portal=_portal(config, where),
        pages=_pages(config, where),
    )


def _server(config: Config, name: str, where: Topology) -> McpServer:
    server, resource = config.servers[name], config.resource(name)
    logs_in_at = config.gateway.url if config.login == "front_door" else config.issuer.url
    return McpServer(
        name=name,
        path=urls.split(resource).path,
        upstream=_upstream(server.upstream, where.upstreams.get(name) or server.socket),
        document=_document(name, resource, logs_in_at, document_scopes(config, name)),
        document_path=urls.split(metadata_url(resource)).path,
    )


def _document(name: str, resource: str, issuer: str, scopes: list[str]) -> dict[str, object]:
    """Return the metadata of RFC 9728, section 2; the issuer is named exactly as it names itself.

    Official clients refuse an authorization server whose `issuer` is spelled otherwise.
    """
    document: dict[str, object] = {
        "resource": resource,
        "authorization_servers": [issuer],
        "bearer_methods_supported": ["header"],
        "resource_name": name,
    }
    return document | ({"scopes_supported": scopes} if scopes else {})


def _portal(config: Config, where: Topology) -> IssuerPortal | None:
    issuer = config.issuer
    if not issuer.serve or issuer.internal is None:
        return None
    url = urls.split(issuer.url)
    upstream = _upstream(issuer.internal, where.issuer)
    return IssuerPortal(_authority(url), url.path, upstream, _closed(config))


def _closed(config: Config) -> tuple[str, ...]:
    """Return the endpoints of the issuer that no client in authz.yaml calls from outside.

    Behind the front door only authz calls them, at `issuer.internal`. A machine gets its tokens
    at the token endpoint; a client that logs in at the issuer itself may use all of them.
    """
    if config.issuer.serve_endpoints is not None:
        return () if config.issuer.serve_endpoints else ENDPOINTS
    if config.login == "direct" or config.direct:
        return ()
    machines = any(client.machine for client in config.named.values())
    return tuple(name for name in ENDPOINTS if not (machines and name == TOKEN))


def _pages(config: Config, where: Topology) -> FrontDoorPages | None:
    if config.front_door is None:
        return None
    authority = _authority(urls.split(config.gateway.url))
    return FrontDoorPages(
        upstream=HttpUpstream(where.pages or config.service.pages, authority.text, None, ""),
        logs_in=config.logs_in,
        registers=config.login == "front_door",
        document=server_metadata(config),
    )


def _authority(url: urls.Url) -> Authority:
    return Authority(url.scheme, url.host, url.port)


def _upstream(text: str, endpoint: Endpoint | None) -> HttpUpstream:
    url = urls.split(text)
    name = url.host.strip("[]")
    return HttpUpstream(
        endpoint=endpoint or Tcp(name, url.port),
        host=_authority(url).text,
        tls_name=name if url.scheme == "https" else None,
        path=url.path,
    )
