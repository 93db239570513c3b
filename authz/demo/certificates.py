"""A certificate authority made on the spot, and a server certificate from it.

Law: the authority's key is never written anywhere: it signs once and is forgotten. The server's
key is its owner's alone from the moment the file exists.
"""

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = timedelta(days=7)
_CLOCKS_DIFFER = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Paths:
    """Name the files that were written (PEM).

    Attributes:
        authority: the authority's certificate, for clients to trust.
        certificate: the server's certificate.
        key: the server's private key, mode 600.
    """

    authority: Path
    certificate: Path
    key: Path


def make(folder: Path, names: Sequence[str], now: datetime | None = None) -> Paths:
    """Make an authority and a server certificate for seven days.

    Args:
        folder: where the files go; made with mode 700 where it is not there.
        names: DNS names and IP addresses; the first is the subject's common name.
        now: when the seven days begin; this moment by default.

    Raises:
        ValueError: where no name is given.
        OSError: where the folder cannot be written.
    """
    if not names:
        raise ValueError("a server certificate needs a name")
    begin = now or datetime.now(UTC)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    server_key = ec.generate_private_key(ec.SECP256R1())
    issuer = _name("authz demonstration authority, not for production")
    authority = _authority(issuer, authority_key, begin)
    server = _server(issuer, authority_key, server_key, names, begin)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    paths = Paths(folder / "ca.crt", folder / "tls.crt", folder / "tls.key")
    private = server_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    _write(paths.authority, authority.public_bytes(Encoding.PEM), 0o644)
    _write(paths.key, private, 0o600)
    _write(paths.certificate, server.public_bytes(Encoding.PEM), 0o644)
    return paths


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, begin: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin - _CLOCKS_DIFFER)
        .not_valid_after(begin + LIFETIME)
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
    name: x509.Name, key: ec.EllipticCurvePrivateKey, begin: datetime
) -> x509.Certificate:
    return (
        _builder(name, name, key.public_key(), begin)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )


def _server(
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    key: ec.EllipticCurvePrivateKey,
    names: Sequence[str],
    begin: datetime,
) -> x509.Certificate:
    signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    return (
        _builder(_name(names[0]), issuer, key.public_key(), begin)
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


def _write(path: Path, content: bytes, mode: int) -> None:
    """Write a file in one step: readers see the old one or the new one, never a part."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
