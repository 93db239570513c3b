"""What is wrong between values.

Law: an error where the service could not do what the file says, or would do what nobody can have
meant; a warning where it does exactly what the file says and a person should look again. Clients,
servers and limits are in `lint_rules`, the front door in `lint_front_door`, the kinds of tokens in
`lint_tokens`, whether rules can be met in `reach`.
"""

from collections.abc import Callable, Iterator
from typing import Final

from authz.config import lint_front_door, lint_rules, lint_tokens, reach, urls
from authz.config.model import Config
from authz.config.problems import Fault, Path, Severity
from authz.config.value_types import Tcp, Unix
from authz.config.workers import places

_LAST_PORT: Final = 65535
_ANY_HOST: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, not bound


def lint(config: Config) -> list[Fault]:
    """Return every fault between values."""
    return [fault for check in _CHECKS for fault in check(config)]


def _issuer(config: Config) -> Iterator[Fault]:
    issuer = config.issuer
    if issuer.serve and issuer.internal is None:
        yield Fault(
            ("issuer", "serve"),
            "Envoy is to serve the portal and does not know where it is",
            "write issuer.internal, for example http://authelia:9091",
        )
    if issuer.serve and urls.split(issuer.url)[1:3] == urls.split(config.gateway.url)[1:3]:
        yield Fault(
            ("issuer", "serve"),
            "the portal and the gateway have one name",
            "give the issuer a name of its own, or write serve: false",
            reads=(("gateway", "url"),),
        )
    if issuer.keys.max_age < issuer.keys.refresh:
        yield Fault(
            ("issuer", "keys"),
            "keys would be distrusted before they are fetched anew",
            "write a max_age longer than refresh",
        )


def _tls(config: Config) -> Iterator[Fault]:
    gateway = config.gateway
    if gateway.tls is not None:
        return
    yield Fault(
        ("gateway", "tls"),
        "there is no certificate, so Envoy would listen without TLS",
        "write tls: {certificate: /run/secrets/tls.crt, key: /run/secrets/tls.key}, unless "
        "something in front of Envoy ends TLS",
        Severity.WARNING,
    )
    if gateway.http_listen is not None:
        yield Fault(
            ("gateway", "http_listen"),
            "it would redirect to HTTPS, which has no certificate here",
            "write gateway.tls, or leave http_listen out",
        )


def _listeners(config: Config) -> Iterator[Fault]:
    addresses: list[tuple[Path, object]] = [
        (("gateway", "listen"), config.gateway.listen),
        (("gateway", "http_listen"), config.gateway.http_listen),
        (("telemetry", "metrics"), config.telemetry.metrics),
        (("telemetry", "pages_metrics"), config.telemetry.pages_metrics),
        *((("service", "check"), at) for at in _checks(config)),
    ]
    if config.front_door is not None:
        addresses.append((("service", "pages"), config.service.pages))
        if config.service.pages == config.service.check and isinstance(config.service.check, Unix):
            wrong, right = "service.check listens there too", "write another path"
            yield Fault(("service", "pages"), wrong, right, reads=(("service", "check"),))
    tcp = [(path, at) for path, at in addresses if isinstance(at, Tcp) and at.port]
    if any(at.port > _LAST_PORT for _, at in tcp):
        wrong = "the workers' ports follow one another, and the last would be above 65535"
        yield Fault(("service", "check"), wrong, "write a lower port")
    for index, (path, at) in enumerate(tcp):
        for other, taken in tcp[:index]:
            hosts = {at.host, taken.host}
            if at.port == taken.port and (len(hosts) == 1 or hosts & _ANY_HOST):
                name = ".".join(map(str, other))
                yield Fault(path, f"{name} listens there too", "write another port", reads=(other,))


def _checks(config: Config) -> tuple[Tcp | Unix, ...]:
    return places(config.service.check, config.service.workers)


def _redis(config: Config) -> Iterator[Fault]:
    if config.redis.url is not None:
        return
    if config.service.workers > 1:
        yield Fault(
            ("service", "workers"),
            "without redis.url every worker counts for itself, unless `authz up` brings a server",
            "write redis.url",
            Severity.WARNING,
            reads=(("redis", "url"),),
        )
    for name in ("username", "password_file"):
        if getattr(config.redis, name) is not None:
            yield Fault(
                ("redis", name),
                "there is no redis.url that it could be for",
                f"write redis.url, or leave {name} out",
            )


_CHECKS: Final[tuple[Callable[[Config], Iterator[Fault]], ...]] = (
    _issuer,
    _tls,
    _listeners,
    _redis,
    *lint_front_door.CHECKS,
    *lint_rules.CHECKS,
    *lint_tokens.CHECKS,
    *reach.CHECKS,
)
