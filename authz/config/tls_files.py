"""Check Envoy's certificate and key as Envoy will read them: without them it serves nobody.

Nothing of a private key stands in a message.
"""

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from authz.config.files import read_regular
from authz.config.model import Config
from authz.config.problems import Fault, ProblemSeverity


@dataclass(frozen=True, slots=True)
class TlsFault:
    """Say what is wrong with one of the two files.

    Attributes:
        field: of `gateway.tls`.
        file: its path.
        wrong: in words that follow the path.
        is_unread: whether it could not be read here; Envoy may run elsewhere, or as another user.
    """

    field: str
    file: str
    wrong: str
    is_unread: bool = False


def tls_fault(config: Config) -> TlsFault | None:
    """Return what is wrong with the certificate and its key; None where Envoy can use them."""
    return next(_found(config), None)


def inspect_tls(config: Config) -> list[Fault]:
    """Return the same as a fault of the configuration."""
    found = tls_fault(config)
    if found is None:
        return []
    path = ("gateway", "tls", found.field)
    if found.is_unread:
        wrong = f"the file cannot be read here: {found.wrong}"
        right = "make it before `authz up`, or check where Envoy runs"
        return [Fault(path, wrong, right, ProblemSeverity.WARNING)]
    return [Fault(path, f"it {found.wrong}", "write the two files of one pair")]


def _found(config: Config) -> Iterator[TlsFault]:
    tls = config.gateway.tls
    if tls is None:
        return
    for field, file in (("certificate", tls.certificate), ("key", tls.key)):
        try:
            read_regular(Path(file), 0)  # whether it is there
        except OSError as error:
            yield TlsFault(field, file, f"{error.strerror}", is_unread=True)
            return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            tls.certificate, tls.key, password=_no_password
        )
    except (ssl.SSLError, ValueError):
        wrong = "is no PEM certificate, or its key is not that of gateway.tls.key"
        yield TlsFault("certificate", tls.certificate, wrong)


def _no_password() -> str:
    """Refuse a key that needs a password: Envoy could not read it either, and nobody can type."""
    raise ValueError("the key is encrypted")
