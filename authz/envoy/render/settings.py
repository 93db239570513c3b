"""What Envoy's configuration is rendered from: addresses, hosts, paths and documents.

The other files of this package only spell these values in Envoy's messages.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from authz.config import urls
from authz.config.addresses import AddressError, read_address, read_tcp, worker_addresses
from authz.config.compile import metadata_url, upstream_digest
from authz.config.endpoints import Tcp, Unix
from authz.config.load import Settings
from authz.config.model import Config, GatewayConfig
from authz.config.server_metadata import document_scopes, server_metadata
from authz.config.urls import Url
from authz.envoy.files import rendered_mark

Endpoint = Tcp | Unix

TOKEN: Final = "token"  # noqa: S105 - the name of an endpoint
# Authelia's endpoints for programs, below /api/oidc/. The first four count failures per address
# and answer that address 429 afterwards.
ENDPOINTS: Final = (
    TOKEN, "introspection", "revocation", "pushed-authorization-request", "device-authorization",
)  # fmt: skip


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
        pages: where `authz pages` listens, each replica; not named: `service.pages`.
        trusted_ca: the file of certificate authorities that upstreams with https are checked by.
        memory: bytes of heap from which Envoy sheds load.
        stats: the path of a socket at which Envoy tells its statistics and nothing else; empty for
            none.
        replicas: where further replicas of the service answer Check, each with the same number of
            workers; besides `service.check`.
        scrape: where on the network Envoy tells its statistics and whether it is ready.
        drain: a loopback address at which this Envoy is told to close its connections as they
            become free (POST /healthcheck/fail of its admin interface).
    """

    authz: tuple[Endpoint, ...] = ()
    admin: str = "/run/authz/envoy-admin.sock"
    folder: str = "/etc/envoy"
    upstreams: Mapping[str, Endpoint] = field(default_factory=lambda: MappingProxyType({}))
    issuer: Endpoint | None = None
    pages: tuple[Endpoint, ...] = ()
    trusted_ca: str = "/etc/ssl/certs/ca-certificates.crt"
    memory: int = 1 << 30
    stats: str = ""
    replicas: tuple[Endpoint, ...] = ()
    scrape: Tcp | None = None
    drain: Tcp | None = None

    def to_json(self) -> dict[str, object]:
        """Return the members as JSON values; `topology_of` reads them."""
        return {
            "authz": [str(each) for each in self.authz],
            "admin": self.admin,
            "folder": self.folder,
            "upstreams": {name: str(each) for name, each in self.upstreams.items()},
            "issuer": None if self.issuer is None else str(self.issuer),
            "pages": [str(each) for each in self.pages],
            "trusted_ca": self.trusted_ca,
            "memory": self.memory,
            "stats": self.stats,
            "replicas": [str(each) for each in self.replicas],
            "scrape": None if self.scrape is None else str(self.scrape),
            "drain": None if self.drain is None else str(self.drain),
        }


def rendered_from(settings: Settings, where: Topology) -> str:
    """Return the text of `rendered.json`: what watched files were made from."""
    mark = rendered_mark(settings.text, settings.authorities)
    values = {**mark, "topology": where.to_json()}
    return json.dumps(values, indent=2) + "\n"


def topology_of(text: str) -> Topology:
    """Return the topology that a `rendered.json` holds.

    Raises:
        ValueError: where it is not what `rendered_from` writes.
    """
    try:
        said = json.loads(text)["topology"]
        return Topology(
            authz=tuple(map(_endpoint, said["authz"])),
            admin=_path(said["admin"]),
            folder=_path(said["folder"]),
            upstreams={name: _endpoint(each) for name, each in said["upstreams"].items()},
            issuer=None if said["issuer"] is None else _endpoint(said["issuer"]),
            pages=_endpoints(said["pages"]),
            trusted_ca=_path(said["trusted_ca"]),
            memory=int(said["memory"]),
            stats=_path(said["stats"]),
            # A file of an earlier release has none.
            replicas=tuple(map(_endpoint, said.get("replicas", ()))),
            scrape=_tcp(said.get("scrape")),
            drain=_tcp(said.get("drain")),
        )
    except (KeyError, TypeError, AttributeError, RecursionError, AddressError) as error:
        raise ValueError("it is not what `authz envoy-config -o` wrote") from error


def _endpoint(text: str) -> Endpoint:
    return read_address("rendered.json", text)


def _endpoints(said: object) -> tuple[Endpoint, ...]:
    """Return what is a list today; in a file of an earlier release one address, or null."""
    if not isinstance(said, list):
        return () if said is None else (_endpoint(_path(said)),)
    return tuple(map(_endpoint, said))


def _tcp(said: object) -> Tcp | None:
    return None if said is None else read_tcp("rendered.json", _path(said))


def _path(text: object) -> str:
    if not isinstance(text, str):
        raise TypeError
    return text


@dataclass(frozen=True, slots=True)
class HttpUpstream:
    """State how Envoy reaches one HTTP server behind it.

    Attributes:
        endpoint: where it listens.
        host: the Host that it is sent; a client that talked to it directly would send the same.
        tls_name: the name or IP address that its certificate must have; None without TLS.
        path: the path of its URL; empty or with a slash in front.
        authorities: what that certificate must be signed by, PEM; empty for `Topology.trusted_ca`.
        replicas: where else it listens.
    """

    endpoint: Endpoint
    host: str
    tls_name: str | None
    path: str
    authorities: str = ""
    replicas: tuple[Endpoint, ...] = ()

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return every place where it listens."""
        return (self.endpoint, *self.replicas)


@dataclass(frozen=True, slots=True)
class McpServer:
    """Hold one MCP server as the edge shows it.

    Attributes:
        name: as in authz.yaml; the `server` of the route's context_extensions.
        path: its path, compared as a whole; `paths` are all that lead to it.
        upstream: where its requests go.
        digest: of where that is (config/compile.py, upstream_digest).
        document: its RFC 9728 document.
        document_path: where that is, as challenges say it.
    """

    name: str
    path: str
    upstream: HttpUpstream
    digest: str
    document: Mapping[str, object]
    document_path: str

    @property
    def paths(self) -> tuple[str, str]:
        """Return the two spellings of its path that lead to it: without and with a last slash.

        A token for the URL with a slash is taken (`principal.names_resource`), so the URL is, too.
        """
        return self.path, f"{self.path}/"


@dataclass(frozen=True, slots=True)
class IssuerPortal:
    """Hold the issuer's own pages, where Envoy serves them.

    Attributes:
        url: the issuer's; its path, as a rule empty, is that of its pages.
        upstream: where they are, with the same path.
        closed: the last segments of the issuer's endpoints that nobody outside has a use for.
        shares_host: whether browsers send it the gateway's cookies, and the gateway its: they
            keep them by host, whatever the port (RFC 6265, section 8.5).
        shares_origin: whether it is under a path of the gateway's own origin, in whose virtual host
            its routes are then.
    """

    url: Url
    upstream: HttpUpstream
    closed: tuple[str, ...]
    shares_host: bool = False
    shares_origin: bool = False


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
class TracedEdge:
    """State where Envoy's own spans go, and how many.

    Attributes:
        upstream: the collector.
        endpoint: its URL.
        is_grpc: whether it speaks gRPC.
        sample: the share of requests, 0 to 1.
    """

    upstream: HttpUpstream
    endpoint: str
    is_grpc: bool
    sample: float


@dataclass(frozen=True, slots=True)
class AdminPageRoute:
    """Hold one web interface behind the log-in as the edge shows it.

    Attributes:
        name: as in authz.yaml; the `page` of the route's context_extensions.
        url: where browsers find it; its path, as a rule empty, is what its paths begin with.
        upstream: where its requests go, as they are.
        digest: of where that is (config/compile.py, upstream_digest).
        recheck: seconds after which a stream ends, to be decided about anew.
    """

    name: str
    url: Url
    upstream: HttpUpstream
    digest: str
    recheck: float


@dataclass(frozen=True, slots=True)
class EnvoySettings:
    """Hold all that is rendered, besides what only a `Topology` knows.

    Attributes:
        url: the gateway's; every MCP server lies under it.
        gateway: listeners, certificate and bounds, as configured.
        deadline: seconds that a decision may take at most.
        authz: where the service answers.
        servers: the MCP servers.
        portal: None where the issuer is served elsewhere.
        pages: None where there is no front door.
        filters_lists: whether the list filter is there.
        traced: where Envoy's own spans go; None where it makes none.
        admin_pages: the web interfaces behind the log-in.
        opens_pages: whether what these need of the listener is there.
    """

    url: Url
    gateway: GatewayConfig
    deadline: float
    authz: tuple[Endpoint, ...]
    servers: tuple[McpServer, ...]
    portal: IssuerPortal | None
    pages: FrontDoorPages | None
    filters_lists: bool = False
    traced: TracedEdge | None = None
    admin_pages: tuple[AdminPageRoute, ...] = ()
    opens_pages: bool = False


def envoy_settings(settings: Settings, where: Topology, *, watched: bool = False) -> EnvoySettings:
    """Return what is to be rendered of a configuration that `lint` has passed.

    Args:
        settings: the configuration.
        where: the parts.
        watched: whether Envoy is to follow changes. The list filter, and what pages need, are there
            before they are needed then: were they to come with the first one, open streams would be
            cut.

    Raises:
        KeyError: where the files of `upstream_ca` were not read.
    """
    config = settings.config
    is_ours = config.service.data_plane == "envoy"
    return EnvoySettings(
        url=urls.split(config.gateway.url),
        gateway=config.gateway,
        deadline=config.issuer.deadline,
        authz=where.authz or _check_addresses(config, where),
        servers=tuple(_server(settings, name, where) for name in config.servers),
        portal=_portal(config, where),
        pages=_pages(config, where),
        filters_lists=is_ours if watched else settings.filters_lists,
        admin_pages=tuple(_admin_page(config, name) for name in config.pages),
        opens_pages=is_ours and (watched or bool(config.pages)),
        traced=_traced(config),
    )


def _admin_page(config: Config, name: str) -> AdminPageRoute:
    page = config.pages[name]
    upstream = _upstream(page.upstream, page.socket)
    url, digest = urls.split(config.page_url(name)), upstream_digest(page)
    # Without a front door, which is an error, no page is opened.
    recheck = 1.0 if config.front_door is None else config.front_door.page_recheck
    return AdminPageRoute(name, url, upstream, digest, recheck)


def _traced(config: Config) -> TracedEdge | None:
    otlp = config.telemetry.otlp
    if otlp is None or not otlp.envoy:
        return None
    upstream = _upstream(otlp.endpoint, None)
    return TracedEdge(upstream, otlp.endpoint, otlp.protocol == "grpc", otlp.sample)


def _check_addresses(config: Config, where: Topology) -> tuple[Endpoint, ...]:
    """Return where every worker of every replica answers."""
    places = (config.service.check, *where.replicas)
    workers = config.service.workers
    return tuple(each for place in places for each in worker_addresses(place, workers))


def _server(settings: Settings, name: str, where: Topology) -> McpServer:
    config = settings.config
    server, resource = config.servers[name], config.resource(name)
    upstream = _upstream(server.upstream, where.upstreams.get(name) or server.socket)
    if server.upstream_ca is not None:
        # Never without: what is not read must not end in trust in the system's authorities.
        upstream = replace(upstream, authorities=settings.authorities[name])
    logs_in_at = config.gateway.url if config.login == "front_door" else config.issuer.url
    return McpServer(
        name=name,
        path=urls.split(resource).path,
        upstream=upstream,
        digest=upstream_digest(server),
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
    # authz asks for the public path there too (tokens/issuer.py): it is the issuer's own.
    upstream = replace(_upstream(issuer.internal, where.issuer), path=url.path)
    return IssuerPortal(
        url,
        upstream,
        _closed(config),
        shares_host=url.host == urls.split(config.gateway.url).host,
        shares_origin=config.shares_origin,
    )


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
    host = urls.split(config.gateway.url).authority
    first, *others = where.pages or (config.service.pages,)
    return FrontDoorPages(
        upstream=HttpUpstream(first, host, None, "", replicas=tuple(others)),
        logs_in=config.logs_in,
        registers=config.login == "front_door",
        document=server_metadata(config),
    )


def _upstream(text: str, endpoint: Endpoint | None) -> HttpUpstream:
    url = urls.split(text)
    name = url.host.strip("[]")
    return HttpUpstream(
        endpoint=endpoint or Tcp(name, url.port),
        host=url.authority,
        tls_name=name if url.scheme == "https" else None,
        path=url.path,
    )
