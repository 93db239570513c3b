"""Lint what is sent to an OpenTelemetry collector."""

import ipaddress
from collections.abc import Callable, Iterator
from typing import Final

from authz.config import urls
from authz.config.model import Config
from authz.config.problems import Fault, Path, error, warning

_OTLP: Final[Path] = ("telemetry", "otlp")


def _otlp(config: Config) -> Iterator[Fault]:
    otlp = config.telemetry.otlp
    if otlp is None:
        return
    url = urls.split(otlp.endpoint)
    if otlp.protocol == "grpc" and url.path:
        yield error(
            (*_OTLP, "endpoint"),
            "gRPC has no path before its own",
            "leave the path out, or write protocol: http/protobuf",
            (*_OTLP, "protocol"),
        )
    if otlp.headers_file is not None and url.scheme == "http" and not _is_loopback(url.host):
        yield warning(
            (*_OTLP, "endpoint"),
            "the headers of headers_file would go over the network unprotected",
            "write https://",
            (*_OTLP, "headers_file"),
        )
    if not (otlp.traces or otlp.metrics or otlp.logs):
        yield error(
            (*_OTLP, "traces"),
            "nothing would be sent",
            "write traces, metrics or logs: true, or leave otlp out",
        )


def _traced_envoy(config: Config) -> Iterator[Fault]:
    otlp = config.telemetry.otlp
    if otlp is None or not otlp.envoy:
        return
    where: Path = (*_OTLP, "envoy")
    if not otlp.traces:
        yield error(where, "Envoy's spans would have none of ours", "write traces: true")
    if config.service.data_plane != "envoy":
        yield error(
            where,
            "this data plane's tracing is configured by hand",
            "leave envoy out; docs/opentelemetry.md says what matters there",
            ("service", "data_plane"),
        )
    if otlp.headers_file is not None:
        yield error(
            where,
            "the headers would stand in Envoy's configuration",
            "send to a collector of your own that needs none and passes on, or leave envoy out",
            (*_OTLP, "headers_file"),
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


CHECKS: Final[tuple[Callable[[Config], Iterator[Fault]], ...]] = (_otlp, _traced_envoy)
