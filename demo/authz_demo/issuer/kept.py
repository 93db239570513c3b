"""What a stand-in keeps in a file from one start to the next, as Authelia does in its database."""

import pickle
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from authz_demo.issuer.keys import PrivateKey, StandInKeys
from authz_demo.issuer.state import Memory, StandInIssuer


def restore(issuer: StandInIssuer, file: Path) -> None:
    """Take keys and memory from a file; write one where there is none.

    Raises:
        OSError: where it cannot be read or written.
    """
    if not file.exists():
        keep(issuer, file)
        return
    keys, memory = pickle.loads(file.read_bytes())  # noqa: S301 - our own, of mode 600
    first, second = (load_pem_private_key(each, None) for each in keys)
    assert isinstance(first, rsa.RSAPrivateKey)
    assert isinstance(second, ec.EllipticCurvePrivateKey)
    assert isinstance(memory, Memory)
    issuer.keys, issuer.memory = StandInKeys(first, second), memory


def keep(issuer: StandInIssuer, file: Path) -> None:
    """Write keys and memory.

    Raises:
        OSError: where the file cannot be written.
    """
    keys = (_pem(issuer.keys.rsa), _pem(issuer.keys.ec))
    draft = file.with_name(f"{file.name}.new")
    draft.touch(0o600)
    draft.write_bytes(pickle.dumps((keys, issuer.memory)))
    draft.replace(file)


def _pem(key: PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
