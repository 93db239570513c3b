"""The certificate authority of a folder of `authz init`, under which its certificate is renewed.

`ca.crt` is what clients trust: the authority whose key is in `secrets/`, and while clients change
from one authority to the next, the one before it as well.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from authz.setup.certificates import SigningAuthority, new_authority
from authz.setup.folder import OWNER, Folder

AUTHORITY: Final = "ca.crt"
AUTHORITY_KEY: Final = "secrets/ca.key"
# Browsers of Apple refuse more than 825 days, those of public authorities 398.
LIFETIME: Final = timedelta(days=397)
AUTHORITY_LIFETIME: Final = timedelta(days=3650)


class NoAuthorityError(Exception):
    """The folder has no authority that can sign; its text says why."""


def read_authority(root: Path) -> SigningAuthority:
    """Return the authority whose key the folder has.

    Raises:
        NoAuthorityError: where the key or its certificate is missing or broken.
    """
    try:
        key = (root / AUTHORITY_KEY).read_bytes()
        public = load_pem_private_key(key, None).public_key()
        trusted = x509.load_pem_x509_certificates((root / AUTHORITY).read_bytes())
    except OSError as error:
        raise NoAuthorityError(f"{error.filename}: {error.strerror}") from None
    except (ValueError, TypeError):
        raise NoAuthorityError(f"{AUTHORITY_KEY} or {AUTHORITY} cannot be read") from None
    fitting = [each for each in trusted if each.public_key() == public]
    if not fitting:
        raise NoAuthorityError(f"{AUTHORITY} has no certificate of {AUTHORITY_KEY}")
    return SigningAuthority(fitting[0].public_bytes(Encoding.PEM), key)


def authority_end(root: Path) -> float | None:
    """Return when the authority ends that certificates are renewed under; None where there is none.

    Seconds since the epoch.
    """
    try:
        found = x509.load_pem_x509_certificate(read_authority(root).certificate)
    except NoAuthorityError:
        return None
    return found.not_valid_after_utc.timestamp()


def replace_authority(root: Path, domain: str, uid: int, gid: int) -> None:
    """Make a new authority; `ca.crt` has it first, and those before it that have not ended.

    Args:
        root: the folder.
        domain: the only one that it can vouch for.
        uid: who owns what is written, where root writes.
        gid: their group.

    Raises:
        OSError: where something cannot be read or written.
    """
    made = new_authority(domain, lifetime=AUTHORITY_LIFETIME)
    folder = Folder(root, uid, gid)
    # First the certificate: a key without it would sign what nobody trusts.
    texts = [made.certificate.decode(), *_not_ended(root / AUTHORITY)]
    folder.renew(AUTHORITY, "".join(texts))
    folder.renew(AUTHORITY_KEY, made.key.decode(), OWNER)


def _not_ended(file: Path) -> list[str]:
    try:
        found = x509.load_pem_x509_certificates(file.read_bytes())
    except (OSError, ValueError):
        return []
    now = datetime.now(UTC)
    return [
        each.public_bytes(Encoding.PEM).decode() for each in found if each.not_valid_after_utc > now
    ]
