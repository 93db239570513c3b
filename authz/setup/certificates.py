"""Create a certificate authority, and a server certificate signed by it.

The authority's key is never written: it signs once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from authz.config.files import READABLE, write_atomically

LIFETIME = timedelta(days=7)
_CLOCKS_DIFFER = timedelta(minutes=5)
_DEMONSTRATION = "authz demonstration authority, not for production"


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Name the files that were written (PEM).

    Attributes:
        authority: the authority's certificate, for clients to trust.
        certificate: the server's certificate.
        key: the server's private key, mode 600.
    """

    authority: Path
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class CertificatePair:
    """Hold what was made, PEM."""

    authority: bytes
    certificate: bytes
    key: bytes = field(repr=False)


def new_certificate_pair(
    names: Sequence[str],
    now: datetime | None = None,
    lifetime: timedelta = LIFETIME,
    within: str | None = None,
) -> CertificatePair:
    """Make an authority and a server certificate of it.

    Args:
        names: DNS names and IP addresses; the first is the subject's common name.
        now: when their lifetime begins; this moment by default.
        lifetime: how long they are good for.
        within: a domain; the authority can vouch for names in it and for nothing else, so that who
            trusts it trusts it for no bank (RFC 5280, section 4.2.1.10). None: a demonstration's.

    Raises:
        ValueError: where no name is given.
    """
    if not names:
        raise ValueError("a server certificate needs a name")
    begin = now or datetime.now(UTC)
    span = (begin, begin + lifetime)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    server_key = ec.generate_private_key(ec.SECP256R1())
    issuer = _name(_DEMONSTRATION if within is None else f"authz authority for {within} alone"[:64])
    authority = _authority(issuer, authority_key, span, within)
    server = _server(issuer, authority_key, server_key, names, span)
    private = server_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pem = Encoding.PEM
    return CertificatePair(authority.public_bytes(pem), server.public_bytes(pem), private)


def write_certificates(
    folder: Path, names: Sequence[str], now: datetime | None = None
) -> CertificateFiles:
    """Make an authority and a server certificate for seven days, and write them.

    Args:
        folder: where the files go; made with mode 700 where it is not there.
        names: as for `pair`.
        now: as for `pair`.

    Raises:
        ValueError: where no name is given.
        OSError: where the folder cannot be written.
    """
    made = new_certificate_pair(names, now)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    paths = CertificateFiles(folder / "ca.crt", folder / "tls.crt", folder / "tls.key")
    write_atomically(paths.authority, made.authority, READABLE)
    write_atomically(paths.key, made.key)
    write_atomically(paths.certificate, made.certificate, READABLE)
    return paths


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    span: tuple[datetime, datetime],
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(span[0] - _CLOCKS_DIFFER)
        .not_valid_after(span[1])
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _authority(
    name: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    span: tuple[datetime, datetime],
    within: str | None,
) -> x509.Certificate:
    builder = (
        _builder(name, name, key.public_key(), span)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
    )
    if within is not None:
        # Names of other kinds are not of the domain either: no address at all.
        nowhere = [ip_network("0.0.0.0/0"), ip_network("::/0")]
        constraints = x509.NameConstraints(
            [x509.DNSName(within)], [x509.IPAddress(each) for each in nowhere]
        )
        builder = builder.add_extension(constraints, critical=True)
    return builder.sign(key, hashes.SHA256())


def _server(
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    key: ec.EllipticCurvePrivateKey,
    names: Sequence[str],
    span: tuple[datetime, datetime],
) -> x509.Certificate:
    signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    return (
        _builder(_name(names[0]), issuer, key.public_key(), span)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(purpose, critical=False)
        .add_extension(signer, critical=False)
        .add_extension(x509.SubjectAlternativeName(map(_general_name, names)), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
