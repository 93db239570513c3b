"""The addresses that the services will listen on, checked before anything starts.

Envoy would share an address that is taken: it listens with SO_REUSEPORT, and the kernel then gives
connections to either of two Envoys.
"""

import errno
import socket
from collections.abc import Iterator
from typing import Final

from authz.config.endpoints import Tcp
from authz.config.model import Config
from authz.config.tls_files import tls_fault
from authz.local.state import FAILED, MISCONFIGURED, SetupError

_RESERVED: Final = (
    "is not for this user: choose a port from 1024 on, or start authz with the ambient capability"
    " cap_net_bind_service (Envoy's program must not get it as a file capability: the kernel would"
    " then no longer end Envoy with us)"
)
_TROUBLE: Final = {
    errno.EADDRINUSE: ("is taken by another process", FAILED),
    errno.EACCES: (_RESERVED, FAILED),
    errno.EADDRNOTAVAIL: ("is no address of this machine", MISCONFIGURED),
}


def check_free(config: Config) -> None:
    """Bind every address once and let it go.

    Raises:
        SetupError: where one cannot be had.
    """
    if config.telemetry.metrics.port == 0:
        raise SetupError("telemetry.metrics: write a port; readiness is asked there")
    for field, place in _places(config):
        family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # Connections of an earlier run that still wait for their end are no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((place.host, place.port))
            except OSError as error:
                words, code = _TROUBLE.get(error.errno or 0, (f"{error.strerror}", FAILED))
                raise SetupError(f"{field}: {place} {words}", code) from error


def check_certificate(config: Config) -> None:
    """Read the certificate and its key as Envoy will: without them it listens and serves nobody.

    Raises:
        SetupError: where a file cannot be read, or the two do not fit.
    """
    found = tls_fault(config)
    if found is not None:
        between = ": " if found.is_unread else " "
        raise SetupError(f"gateway.tls.{found.field}: {found.file}{between}{found.wrong}")


def _places(config: Config) -> Iterator[tuple[str, Tcp]]:
    yield "gateway.listen", config.gateway.listen
    if config.gateway.http_listen is not None:
        yield "gateway.http_listen", config.gateway.http_listen
    yield "telemetry.metrics", config.telemetry.metrics
