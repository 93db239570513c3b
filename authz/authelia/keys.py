"""The key pairs of introspection and the front door: made on the spot; their public halves.

Law: a private key goes from its generator into its file, which only its owner may read, and from
that file nowhere but into the computation of its public half.
"""

import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from authz.authelia.clients import PublicKey
from authz.config.private_keys import read_private_key

_LONGEST = 16 * 1024


def make_key(path: Path) -> None:
    """Make a P-256 key (ES256) where there is no file yet; one that is there stays.

    Raises:
        OSError: where the file cannot be written.
    """
    try:
        # Never there with other rights than these, not for a moment.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    key = ec.generate_private_key(ec.SECP256R1())
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def public_half(path: Path) -> PublicKey | None:
    """Return the public half of a private key; None where the file is not here or is no key."""
    try:
        with path.open("rb") as file:
            key, algorithm = read_private_key(file.read(_LONGEST).decode("ascii"))
    except (OSError, ValueError):
        return None
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(pem.decode("ascii"), algorithm)
