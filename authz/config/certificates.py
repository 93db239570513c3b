"""Read what Envoy serves as its certificate: names, dates, and whether chain and key fit.

Nothing of a private key stands in a message. RFC 5280 (certificates), RFC 6125 (names),
RFC 8446, section 4.4.2 (the order of a chain).
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import AuthorityInformationAccessOID

from authz.config.files import read_regular
from authz.config.problems import quoted

LONGEST: Final = 1 << 20  # bytes of a file
_DAY: Final = 86400.0
ENDS_SOON: Final = 14 * _DAY  # seconds before the end
# Of a certificate for a few days: a client renews it when a third of its time is left.
_SOON_OF_SHORT: Final = 0.2


class CertificateFlaw(Enum):
    """Name what is wrong with a certificate, its chain or its key."""

    UNREADABLE = "unreadable"
    KEY_UNREADABLE = "key_unreadable"
    KEY_MISMATCH = "key_mismatch"
    NOT_FIRST = "not_first"
    CHAIN_ORDER = "chain_order"
    CHAIN_INCOMPLETE = "chain_incomplete"
    AUTHORITY = "authority"
    NOT_YET_VALID = "not_yet_valid"
    EXPIRED = "expired"
    EXPIRES_SOON = "expires_soon"
    NAME_MISSING = "name_missing"

    @property
    def is_refused(self) -> bool:
        """Tell whether Envoy does not take such a pair: it keeps the old one, or serves nobody."""
        return self in _REFUSED

    @property
    def of_key(self) -> bool:
        """Tell whether it is the file of the key that is wrong."""
        return self is CertificateFlaw.KEY_UNREADABLE


_REFUSED: Final = frozenset({
    CertificateFlaw.UNREADABLE,
    CertificateFlaw.KEY_UNREADABLE,
    CertificateFlaw.KEY_MISMATCH,
    CertificateFlaw.NOT_FIRST,
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class CertificateFault:
    """State one fault.

    Attributes:
        flaw: its kind.
        wrong: what is wrong, in words that follow "it".
        right: what would be right, beginning with a verb.
    """

    flaw: CertificateFlaw
    wrong: str
    right: str


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """Describe the first certificate of a chain.

    Attributes:
        names: DNS names and IP addresses (subjectAltName), as written.
        issuer: who signed it (RFC 4514).
        serial: lower-case hexadecimal, without leading zeros.
        not_before, not_after: seconds since the epoch.
    """

    names: tuple[str, ...]
    issuer: str
    serial: str
    not_before: float
    not_after: float

    def is_for(self, host: str) -> bool:
        """Tell whether it is for a host; `*` stands for one whole label (RFC 6125, 6.4.3)."""
        asked = host.lower().rstrip(".").strip("[]")
        return any(_matches(name.lower(), asked) for name in self.names)


def read_certificate_file(path: Path) -> ServerCertificate:
    """Return what a file holds (PEM).

    Raises:
        OSError: where it cannot be read.
        ValueError: as `read_certificate`.
    """
    return read_certificate(read_regular(path, LONGEST))


def read_certificate(chain: bytes) -> ServerCertificate:
    """Return the first certificate of a PEM text.

    Raises:
        ValueError: where there is none, or it cannot be read.
    """
    return _describe(load_certificates(chain)[0])


def certificate_faults(
    chain: bytes, key: bytes | None, hosts: Sequence[str], now: float
) -> Iterator[CertificateFault]:
    """Yield what is wrong with a chain and its key, what Envoy refuses first.

    Args:
        chain: PEM, the own certificate first.
        key: PEM; None where it is not to be looked at.
        hosts: whom it has to be for.
        now: seconds since the epoch.
    """
    try:
        certificates = load_certificates(chain)
        own = _describe(certificates[0])
    except ValueError:
        flaw = CertificateFlaw.UNREADABLE
        yield CertificateFault(flaw, "holds no certificate in PEM", "write the whole chain, PEM")
        return
    if key is not None:
        yield from _key_faults(certificates, key)
    yield from _chain_faults(certificates)
    yield from _date_faults(own, now)
    for host in hosts:
        if not own.is_for(host):
            names = ", ".join(map(quoted, own.names[:4])) or "nobody"
            wrong = f"is not for {quoted(host)}: its names are {names}"
            right = f"have one made with the name {host}"
            yield CertificateFault(CertificateFlaw.NAME_MISSING, wrong, right)


def load_certificates(chain: bytes) -> list[x509.Certificate]:
    """Return every certificate of a PEM text.

    Raises:
        ValueError: where there is none, or one cannot be read.
    """
    try:
        return x509.load_pem_x509_certificates(chain)
    except UnsupportedAlgorithm as error:
        raise ValueError("an unknown algorithm") from error


def _describe(certificate: x509.Certificate) -> ServerCertificate:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = [str(name.value) for name in found if isinstance(name, _NAMED)]
    except x509.ExtensionNotFound:
        names = []
    except (x509.DuplicateExtension, UnsupportedAlgorithm) as error:
        raise ValueError("its extensions cannot be read") from error
    return ServerCertificate(
        tuple(names),
        certificate.issuer.rfc4514_string(),
        f"{certificate.serial_number:x}",
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
    )


_NAMED: Final = (x509.DNSName, x509.IPAddress)


def _matches(name: str, host: str) -> bool:
    try:
        return ip_address(host) == ip_address(name)
    except ValueError:
        pass
    if name.startswith("*."):
        label, dot, rest = host.partition(".")
        return bool(label and dot) and rest == name[2:] and not host.replace(".", "").isdecimal()
    return name.rstrip(".") == host


def _key_faults(certificates: list[x509.Certificate], key: bytes) -> Iterator[CertificateFault]:
    try:
        half = load_pem_private_key(key, None).public_key()
        ours = half.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except TypeError:
        wrong, right = "needs a password, and Envoy has none", "write the key without encryption"
        yield CertificateFault(CertificateFlaw.KEY_UNREADABLE, wrong, right)
        return
    except (ValueError, UnsupportedAlgorithm):
        wrong, right = "holds no private key in PEM", "write the key of the certificate, PEM"
        yield CertificateFault(CertificateFlaw.KEY_UNREADABLE, wrong, right)
        return
    fitting = [number for number, each in enumerate(certificates) if _public(each) == ours]
    if not fitting:
        wrong = "does not fit the key: gateway.tls.key is another one's"
        right = "write the two files of one pair"
        yield CertificateFault(CertificateFlaw.KEY_MISMATCH, wrong, right)
    elif fitting[0] != 0:
        wrong = f"begins with another certificate: the own one is number {fitting[0] + 1}"
        right = "write the own certificate first, then who signed it"
        yield CertificateFault(CertificateFlaw.NOT_FIRST, wrong, right)


def _public(certificate: x509.Certificate) -> bytes | None:
    try:
        half = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None
    return half.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _chain_faults(certificates: list[x509.Certificate]) -> Iterator[CertificateFault]:
    own = certificates[0]
    if is_authority(own):
        wrong = "is an authority's, not a server's, which some clients refuse"
        right = (
            "write the own certificate first; one that signs itself (`openssl req -x509`) needs "
            "basicConstraints=CA:FALSE"
        )
        yield CertificateFault(CertificateFlaw.AUTHORITY, wrong, right)
    for number, (each, above) in enumerate(itertools.pairwise(certificates), 1):
        if not _is_signed_by(each, above):
            wrong = (
                f"is out of order: certificate {number} is not signed by certificate {number + 1}"
            )
            right = "write each certificate before the one that signed it"
            yield CertificateFault(CertificateFlaw.CHAIN_ORDER, wrong, right)
            return
    if len(certificates) == 1 and names_issuers_file(own):
        wrong = "is alone: clients need the certificates between it and their authority"
        right = "write the whole chain (of certbot: fullchain.pem)"
        yield CertificateFault(CertificateFlaw.CHAIN_INCOMPLETE, wrong, right)


def is_authority(certificate: x509.Certificate) -> bool:
    """Tell whether it may sign others (RFC 5280, section 4.2.1.9)."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except (x509.ExtensionNotFound, ValueError):
        return False
    return found.value.ca


def _is_signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def names_issuers_file(certificate: x509.Certificate) -> bool:
    """Tell whether its authority publishes a certificate of its own, as public ones do."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return False
    wanted = AuthorityInformationAccessOID.CA_ISSUERS
    return any(each.access_method == wanted for each in found.value)


def _date_faults(own: ServerCertificate, now: float) -> Iterator[CertificateFault]:
    left = own.not_after - now
    soon = min(ENDS_SOON, _SOON_OF_SHORT * (own.not_after - own.not_before))
    if left <= 0:
        wrong = f"ended {format_days(-left)} ago: clients refuse it"
        yield CertificateFault(CertificateFlaw.EXPIRED, wrong, _RENEW)
    elif left < soon:
        wrong = f"ends in {format_days(left)}, and is not renewed"
        yield CertificateFault(CertificateFlaw.EXPIRES_SOON, wrong, _RENEW)
    elif own.not_before > now:
        wrong = f"begins in {format_days(own.not_before - now)} only"
        right = "set this machine's clock, or wait"
        yield CertificateFault(CertificateFlaw.NOT_YET_VALID, wrong, right)


def format_days(seconds: float) -> str:
    """Return a time as days, or as hours where it is short."""
    days, hours = int(seconds // _DAY), int(seconds % _DAY // 3600)
    return f"{days} days" if days > 1 else f"{days * 24 + hours} hours"


_RENEW: Final = "renew it (docs/certificates.md)"
