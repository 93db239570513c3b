"""Where Redis is, as a URL says: at one address, or where sentinels or a cluster say."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from authz.ledger.cluster import ClusterPrimary, key_slot
from authz.ledger.connections import RedisEndpoint, TlsFiles, login_commands, parse_redis_url
from authz.ledger.primary import FixedPrimary, PrimaryFinder
from authz.ledger.sentinel import SentinelPrimary, SentinelService

_CLUSTER: Final = "+cluster"
_PORT: Final = 6379
_SENTINEL: Final = "+sentinel"
_SENTINEL_PORT: Final = 26379
_MOST_HOSTS: Final = 32


@dataclass(frozen=True, slots=True)
class SentinelAccess:
    """How to log in at sentinels, which have users of their own.

    Attributes:
        username: the ACL user; empty for the default one.
        password: empty where none is asked.
        tls: whether they are reached by TLS; None as the nodes are.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    tls: bool | None = None


NO_SENTINEL_LOGIN: Final = SentinelAccess()


def find_primary(
    url: str,
    username: str = "",
    password: str = "",
    tls: TlsFiles | None = None,
    sentinel: SentinelAccess = NO_SENTINEL_LOGIN,
    *,
    deployment: str = "authz",
) -> PrimaryFinder:
    """Return what finds the node that takes writes.

    Args:
        url: `redis://host:port/db`, `rediss://…` (TLS, verified; `?ssl_ca_certs=file`),
            `unix:///path?db=0`, `redis+sentinel://host:port,host:port/service/db`, or
            `redis+cluster://host:port,host:port` (`rediss+…` for TLS); without user and password.
        username: the ACL user of the nodes; empty for the default one.
        password: of the nodes; empty where none is asked.
        tls: the files of TLS, in place of those that the URL names; None for those.
        sentinel: how to log in at the sentinels.
        deployment: what the keys begin with, in a cluster.

    Raises:
        ValueError: for what is no such URL.
    """
    scheme = url.partition("://")[0]
    if scheme.endswith(_CLUSTER):
        return _cluster(url, username, password, tls, deployment)
    if not scheme.endswith(_SENTINEL):
        return FixedPrimary(_with_files(parse_redis_url(url, username, password), tls))
    parts = urlsplit(url)
    service, _, database = unquote(parts.path).strip("/").partition("/")
    if not service:
        raise ValueError("the Redis URL of sentinels ends in the name of their service")
    query = f"?{parts.query}" if parts.query else ""
    kind = scheme.removesuffix(_SENTINEL)
    template = parse_redis_url(f"{kind}://localhost/{database}{query}", username, password)
    node = _with_files(template, tls)
    greeting = login_commands(sentinel.username, sentinel.password)
    files = node.tls or tls or TlsFiles()
    asked = replace(
        node,
        greeting=greeting,
        tls=files if (node.tls is not None if sentinel.tls is None else sentinel.tls) else None,
    )
    if node.tls is not None and asked.tls is None and not node.tls.server_name:
        # Whoever is on the way to a sentinel would name a host with some certificate, and be told
        # our password.
        raise ValueError("sentinels asked without TLS need redis.tls.server_name of the nodes")
    sentinels = [
        replace(asked, host=host, port=port) for host, port in _hosts(parts, _SENTINEL_PORT)
    ]
    return SentinelPrimary(SentinelService(tuple(sentinels), service, node))


def _cluster(
    url: str, username: str, password: str, tls: TlsFiles | None, deployment: str
) -> PrimaryFinder:
    parts = urlsplit(url)
    if parts.path.strip("/"):
        raise ValueError("the Redis URL of a cluster ends after its hosts: it has one database")
    query = f"?{parts.query}" if parts.query else ""
    kind = parts.scheme.removesuffix(_CLUSTER)
    node = _with_files(parse_redis_url(f"{kind}://localhost/{query}", username, password), tls)
    seeds = [replace(node, host=host, port=port) for host, port in _hosts(parts, _PORT)]
    return ClusterPrimary(seeds, key_slot(deployment))


def _with_files(endpoint: RedisEndpoint, tls: TlsFiles | None) -> RedisEndpoint:
    return endpoint if endpoint.tls is None or tls is None else replace(endpoint, tls=tls)


def _hosts(parts: SplitResult, port: int) -> Sequence[tuple[str, int]]:
    """Return the hosts and ports that a URL names, with commas between them.

    Raises:
        ValueError: where there is none, or a port is no number.
    """
    if "@" in parts.netloc:
        raise ValueError("credentials do not belong in the Redis URL")
    named = [urlsplit(f"//{each}") for each in parts.netloc.split(",")]
    hosts = [(each.hostname or "", each.port or port) for each in named]
    if not all(host for host, _ in hosts) or len(hosts) > _MOST_HOSTS:
        raise ValueError(f"a Redis URL names 1 to {_MOST_HOSTS} hosts, with commas between them")
    return hosts
