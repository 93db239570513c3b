"""Certificates of every kind, made for tests: chains, other dates, names and keys."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

PEM = Encoding.PEM


@dataclass(frozen=True, slots=True)
class MadeCertificate:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(PEM)

    @property
    def key_pem(self) -> bytes:
        return self.private(NoEncryption())

    @property
    def encrypted_key(self) -> bytes:
        return self.private(BestAvailableEncryption(b"a password"))

    def private(self, how: KeySerializationEncryption) -> bytes:
        return self.key.private_bytes(PEM, PrivateFormat.PKCS8, how)


def made(
    *names: str,
    by: MadeCertificate | None = None,
    is_authority: bool = False,
    lives: tuple[datetime, datetime] | None = None,
    issuers_file: bool = False,
    subject: str = "a test",
    extra: Sequence[x509.GeneralName] = (),
) -> MadeCertificate:
    """Make one.

    Args:
        names: DNS names; none leaves subjectAltName out.
        by: who signs it; itself by default.
        is_authority: whether it may sign others.
        lives: when it begins and ends; a day ago and in ninety days by default.
        issuers_file: whether it says where its issuer's certificate is, as public ones do.
        subject: its common name.
        extra: further names.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    now = datetime.now(UTC)
    begin, end = lives or (now - timedelta(days=1), now + timedelta(days=89))
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name if by is None else by.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
    )
    if names or extra:
        general = [*map(x509.DNSName, names), *extra]
        builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
    if issuers_file:
        place = x509.UniformResourceIdentifier("http://ca.test/ca.der")
        where = x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, place)
        builder = builder.add_extension(x509.AuthorityInformationAccess([where]), critical=False)
    return MadeCertificate(builder.sign((by.key if by else key), hashes.SHA256()), key)
