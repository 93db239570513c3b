"""The private authorities that sign the certificates of MCP servers (`servers.<name>.upstream_ca`).

Invariant: what comes out of a file is certificates and nothing else, or a fault says what is wrong
with it (tests/config/test_upstream_authorities.py). RFC 5280, RFC 7468.
"""

import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from authz.config.certificates import ENDS_SOON, format_days, is_authority, load_certificates
from authz.config.files import IrregularFileError, read_regular
from authz.config.location import host_file
from authz.config.model import Config
from authz.config.problems import Fault, WrongValueError, quoted, warning
from authz.config.problems import Path as FieldPath

_LONGEST: Final = 64 * 1024  # bytes of a file
_MOST: Final = 16  # certificates
_RIGHT: Final = "write the authority's certificate, PEM"
_RENEW: Final = "write the one that follows it beside it (docs/certificates.md)"


def read_authorities(
    config: Config, configuration: Path, now: float
) -> tuple[dict[str, str], list[Fault]]:
    """Read the files that servers name.

    Args:
        config: names them.
        configuration: its file.
        now: seconds since the epoch.

    Returns:
        What each server's certificate may be signed by, PEM, by server; and what is wrong.
    """
    found, faults = dict[str, str](), list[Fault]()
    for name, server in config.servers.items():
        if server.upstream_ca is None:
            continue
        path = ("servers", name, "upstream_ca")
        try:
            certificates = parse_authorities(_read(host_file(server.upstream_ca, configuration)))
        except OSError as error:
            words = f"the file cannot be read: {error.strerror}"
            faults.append(Fault(path, words, "give it to this user"))
        except WrongValueError as error:
            faults.append(Fault(path, error.wrong, error.right))
        else:
            found[name] = _written(certificates)
            faults += _faults(path, certificates, now)
    return found, faults


def _read(file: Path) -> bytes:
    try:
        return read_regular(file, _LONGEST)
    except IrregularFileError as error:
        raise WrongValueError(f"{error.strerror}", "name a file") from None


def parse_authorities(data: bytes) -> list[x509.Certificate]:
    """Return the certificates of a PEM text.

    Raises:
        WrongValueError: where there are none, or something else is in it.
    """
    if len(data) > _LONGEST:
        raise WrongValueError("the file is longer than 64 KiB", _RIGHT)
    if b"PRIVATE KEY" in data:
        raise WrongValueError("the file holds a private key, which is nobody's here", _RIGHT)
    try:
        found = load_certificates(data)
        # What its text says in its own words is read here, so that nobody fails at it later.
        for each in found:
            _ = (each.subject.rfc4514_string(), each.not_valid_after_utc, is_authority(each))
    except (ValueError, x509.DuplicateExtension):
        raise WrongValueError("the file holds no certificate that can be read", _RIGHT) from None
    if len(found) > _MOST:
        raise WrongValueError(f"the file holds more than {_MOST} certificates", _RIGHT)
    return found


def _written(certificates: list[x509.Certificate]) -> str:
    """Return them as PEM, the one that ends first in front: Envoy tells its end alone."""
    by_end = sorted(certificates, key=lambda each: each.not_valid_after_utc)
    return b"".join(each.public_bytes(Encoding.PEM) for each in by_end).decode("ascii")


def _faults(path: FieldPath, certificates: list[x509.Certificate], now: float) -> Iterator[Fault]:
    for each in certificates:
        name = quoted(each.subject.rfc4514_string())
        left = each.not_valid_after_utc.timestamp() - now
        early = each.not_valid_before_utc.timestamp() - now
        if left <= 0:
            words = f"{name} ended {format_days(-left)} ago"
            yield warning(path, words, "take it out, with another one in its place")
        elif left < ENDS_SOON:
            yield warning(path, f"{name} ends in {format_days(left)}", _RENEW)
        elif early > 0:
            words = f"{name} begins in {format_days(early)} only"
            yield warning(path, words, "set this machine's clock, or wait")
        if not is_authority(each):
            words = f"{name} is a server's own certificate, good until that is renewed"
            yield warning(path, words, "write the certificate of the authority that signed it")


def upstream_trust(authorities: Mapping[str, str], server: str) -> ssl.SSLContext | None:
    """Return by what a server's certificate is verified, as Envoy does; None for the system's.

    Args:
        authorities: as `read_authorities` returns them.
        server: its name.
    """
    text = authorities.get(server)
    if text is None:
        return None
    trust = ssl.create_default_context(cadata=text)
    # Envoy ends a chain at any certificate that it trusts, and has no strict mode.
    trust.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    trust.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return trust
