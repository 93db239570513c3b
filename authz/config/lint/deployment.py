"""Lint issuer, TLS, listeners, Redis and the keys that sign identities."""

import re
from collections.abc import Callable, Iterator
from typing import Final

from authz.config import urls
from authz.config.addresses import worker_addresses
from authz.config.endpoints import Tcp, Unix
from authz.config.model import Config, RedisConfig, RedisSentinelConfig, RedisTlsConfig
from authz.config.problems import Fault, Path, error, field_name, quoted, warning

_LAST_PORT: Final = 65535
_ONE_NAME: Final = re.compile("/[a-z0-9]{1,63}")
# Envoy answers these itself: the well-known documents, and what MCP clients ask at the origin of
# a server that names no authorization server. `authz` is for pages.
RESERVED: Final = frozenset({".well-known", "authorize", "authz", "register", "token", "revoke"})
_ANY_HOST: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, not bound


def _issuer(config: Config) -> Iterator[Fault]:
    issuer = config.issuer
    if issuer.serve and issuer.internal is None:
        yield error(
            ("issuer", "serve"),
            "Envoy is to serve the portal and does not know where it is",
            "write issuer.internal, for example http://authelia:9091",
        )
    if config.shares_origin:
        yield from _one_name(config)
    if issuer.keys.max_age < issuer.keys.refresh:
        yield error(
            ("issuer", "keys"),
            "keys would be distrusted before they are fetched anew",
            "write a max_age longer than refresh",
        )


def _one_name(config: Config) -> Iterator[Fault]:
    """Check the path under which the gateway's own name has the issuer's portal.

    Authelia's `server.address` takes one segment of letters and digits. What differs from an
    address of the gateway's in case alone is refused too: a person would take one for the other.
    """
    path, gateway = urls.split(config.issuer.url).path, config.gateway.url
    where: Path = ("issuer", "url")
    right = f"write a path of one word, as url: {gateway}/auth, and the same in Authelia's "
    right += "server.address"
    if not _ONE_NAME.fullmatch(path):
        wrong = "the portal and the gateway have one name"
        if path:
            wrong += f", and {quoted(path)} is not one word of a-z and 0-9"
        yield error(where, wrong, right, ("gateway", "url"), ("issuer", "serve"))
        return
    if path[1:] in RESERVED:
        yield error(where, f"{quoted(path)} is an address of the gateway's own", right)
    for name in config.servers:
        first = urls.split(config.resource(name)).path.split("/")[1:2]
        if [path[1:]] == [each.lower() for each in first]:
            yield error(
                where,
                f"{quoted(path)} is where the server {name} is",
                "give the portal another path, or the server another name",
                ("servers", name),
            )


def _tls(config: Config) -> Iterator[Fault]:
    gateway = config.gateway
    if gateway.tls is not None:
        return
    if not gateway.trusted_hops:
        yield warning(
            ("gateway", "tls"),
            "there is no certificate, so Envoy would listen without TLS",
            "write tls: {certificate: /run/secrets/tls.crt, key: /run/secrets/tls.key}, unless "
            "something in front of Envoy ends TLS: then trusted_hops (docs/capacity.md)",
        )
    if gateway.http_listen is not None:
        yield error(
            ("gateway", "http_listen"),
            "it would redirect to HTTPS, which has no certificate here",
            "write gateway.tls, or leave http_listen out",
        )


def _listeners(config: Config) -> Iterator[Fault]:
    service = config.service
    checks = worker_addresses(service.check, service.workers)
    addresses: list[tuple[Path, object]] = [
        (("gateway", "listen"), config.gateway.listen),
        (("gateway", "http_listen"), config.gateway.http_listen),
        (("telemetry", "metrics"), config.telemetry.metrics),
        (("telemetry", "pages_metrics"), config.telemetry.pages_metrics),
        *((("service", "check"), address) for address in checks),
    ]
    if config.front_door is not None:
        addresses.append((("service", "pages"), service.pages))
        if service.pages == service.check and isinstance(service.check, Unix):
            wrong, right = "service.check listens there too", "write another path"
            yield error(("service", "pages"), wrong, right, ("service", "check"))
    tcp = [(path, address) for path, address in addresses if isinstance(address, Tcp)]
    tcp = [(path, address) for path, address in tcp if address.port]
    if any(address.port > _LAST_PORT for _, address in tcp):
        wrong = "the workers' ports follow one another, and the last would be above 65535"
        yield error(("service", "check"), wrong, "write a lower port")
    for index, (path, address) in enumerate(tcp):
        for other, taken in tcp[:index]:
            hosts = {address.host, taken.host}
            if address.port == taken.port and (len(hosts) == 1 or hosts & _ANY_HOST):
                wrong = f"{field_name(other)} listens there too"
                yield error(path, wrong, "write another port", other)


def _data_plane(config: Config) -> Iterator[Fault]:
    service = config.service
    if service.match == "by_url" and service.data_plane == "envoy":
        yield error(
            ("service", "match"),
            "our own Envoy names the server of every route, and a Host that a client made up would "
            "choose it where it did not",
            "write match: context, or data_plane: envoy_gateway where it is not our Envoy",
            ("service", "data_plane"),
        )


def _upstream_ca(config: Config) -> Iterator[Fault]:
    plane = config.service.data_plane
    for name, server in config.servers.items():
        where: Path = ("servers", name, "upstream_ca")
        if server.upstream_ca is None:
            continue
        if urls.split(server.upstream).scheme != "https":
            yield error(
                where,
                "the upstream is reached without TLS, so that no certificate is looked at",
                "write upstream: https://..., or leave upstream_ca out",
                ("servers", name, "upstream"),
            )
        if plane != "envoy":
            yield warning(
                where,
                f"{plane} trusts what its own configuration says; this counts for doctor and tools",
                "name the authority there, too",
                ("service", "data_plane"),
            )


def _redis(config: Config) -> Iterator[Fault]:
    if config.redis.url is not None:
        yield from _redis_sections(config.redis, config.redis.url)
        return
    if config.service.workers > 1:
        yield warning(
            ("service", "workers"),
            "without redis.url every worker counts for itself, unless `authz up` brings a server",
            "write redis.url",
            ("redis", "url"),
        )
    unset = RedisConfig()
    for name in ("username", "password_file", "tls", "sentinel"):
        if getattr(config.redis, name) != getattr(unset, name):
            yield error(
                ("redis", name),
                "there is no redis.url that it could be for",
                f"write redis.url, or leave {name} out",
            )


def _redis_sections(redis: RedisConfig, url: str) -> Iterator[Fault]:
    scheme = url.partition(":")[0]
    by_tls = scheme.startswith("rediss") or redis.sentinel.tls is True
    if redis.tls != RedisTlsConfig() and not by_tls:
        yield error(
            ("redis", "tls"),
            "redis.url is reached without TLS, so that no certificate is looked at",
            "write url: rediss://..., or leave tls out",
            ("redis", "url"),
        )
    if (redis.tls.certificate is None) != (redis.tls.key is None):
        yield error(
            ("redis", "tls"),
            "a certificate and its key go together",
            "write certificate and key, or neither",
        )
    if scheme == "rediss+sentinel" and redis.sentinel.tls is False and not redis.tls.server_name:
        yield error(
            ("redis", "sentinel", "tls"),
            "whoever is on the way to a sentinel could name a host that has some certificate, and "
            "it would be told the password",
            "write redis.tls.server_name, the name of the nodes' certificate, or leave tls out",
            ("redis", "tls"),
        )
    if redis.sentinel != RedisSentinelConfig() and not scheme.endswith("+sentinel"):
        yield error(
            ("redis", "sentinel"),
            "redis.url names no sentinels",
            "write url: redis+sentinel://host:26379,host:26379/service, or leave sentinel out",
            ("redis", "url"),
        )


def _identity_keys(config: Config) -> Iterator[Fault]:
    """Check that the files are nobody else's; `secret_files` looks at the keys themselves."""
    gateway = config.gateway
    for name, server in config.servers.items():
        if server.identity == "signed" and gateway.identity_key_file is None:
            yield error(
                ("servers", name, "identity"),
                "there is no key to sign with",
                "write gateway.identity_key_file, or identity: headers",
                ("gateway",),
            )
    for name in ("identity_key_file", "identity_other_key_file"):
        file = getattr(gateway, name)
        for path, other in _other_keys(config):
            if file is not None and file == other:
                yield shared_identity_key(name, path)
    if gateway.identity_other_key_file is not None and gateway.identity_key_file is None:
        yield error(
            ("gateway", "identity_other_key_file"),
            "there is no key that it would be published beside",
            "write gateway.identity_key_file, or leave it out",
        )


def _other_keys(config: Config) -> Iterator[tuple[Path, str | None]]:
    if config.front_door is not None:
        yield ("front_door", "key_file"), config.front_door.key_file
        yield ("front_door", "seal_file"), config.front_door.seal_file
    if config.issuer.introspection is not None:
        yield ("issuer", "introspection", "key_file"), config.issuer.introspection.key_file
    if config.gateway.tls is not None:
        yield ("gateway", "tls", "key"), config.gateway.tls.key


def shared_identity_key(name: str, other: Path) -> Fault:
    """Return the fault of a key that signs identities and something else besides.

    Whoever takes the one signature could be shown the other.
    """
    return error(
        ("gateway", name),
        f"the key of {field_name(other)} is to sign who calls, too",
        "write another file; `authz identity-keys --make-key` makes it",
        other,
    )


CHECKS: Final[tuple[Callable[[Config], Iterator[Fault]], ...]] = (
    _issuer,
    _tls,
    _listeners,
    _data_plane,
    _upstream_ca,
    _redis,
    _identity_keys,
)
