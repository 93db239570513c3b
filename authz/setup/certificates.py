"""Create a certificate authority, and server certificates signed by it.

A demonstration's authority signs once, and its key is never written. That of `authz init` is kept:
certificates are renewed under it, and whoever trusts it goes on trusting it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
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
    """Hold what was made, PEM: the authority's certificate, the server's, and the server's key."""

    authority: bytes
    certificate: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SigningAuthority:
    """Hold an authority that can sign: its certificate and its key, PEM."""

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
    authority = new_authority(within, now, lifetime)
    certificate, key = issue(authority, names, now, lifetime)
    return CertificatePair(authority.certificate, certificate, key)


def new_authority(
    within: str | None, now: datetime | None = None, lifetime: timedelta = LIFETIME
) -> SigningAuthority:
    """Make an authority; the arguments are those of `new_certificate_pair`."""
    begin = now or datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(_DEMONSTRATION if within is None else f"authz authority for {within} alone"[:64])
    made = _authority(name, key, (begin, begin + lifetime), within)
    return SigningAuthority(made.public_bytes(Encoding.PEM), _private(key))


def issue(
    authority: SigningAuthority,
    names: Sequence[str],
    now: datetime | None = None,
    lifetime: timedelta = LIFETIME,
) -> tuple[bytes, bytes]:
    """Return a new server certificate and its new key, PEM; it ends no later than its authority.

    Raises:
        ValueError: where no name is given, one is not of the authority's domain, the authority has
            ended, or its key is another's.
    """
    if not names:
        raise ValueError("a server certificate needs a name")
    signer = x509.load_pem_x509_certificate(authority.certificate)
    signing = load_pem_private_key(authority.key, None)
    if not isinstance(signing, ec.EllipticCurvePrivateKey) or (
        signing.public_key() != signer.public_key()
    ):
        raise ValueError("the authority's key does not fit its certificate")
    strangers = [name for name in names if not _may_vouch(signer, name)]
    if strangers:
        raise ValueError(
            f"the authority cannot vouch for {strangers[0]}: it is for its domain alone"
        )
    begin = now or datetime.now(UTC)
    end = min(begin + lifetime, signer.not_valid_after_utc)
    if end <= begin:
        raise ValueError("the authority itself has ended")
    key = ec.generate_private_key(ec.SECP256R1())
    made = _server(signer.subject, signing, key, names, (begin, end))
    return made.public_bytes(Encoding.PEM), _private(key)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _may_vouch(authority: x509.Certificate, name: str) -> bool:
    """Tell whether a name is within an authority's domain (RFC 5280, section 4.2.1.10)."""
    try:
        found = authority.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return True
    domains = [str(each.value) for each in found.permitted_subtrees or ()]
    return any(name == domain or name.endswith(f".{domain}") for domain in domains)


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
