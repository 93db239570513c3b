"""Private keys that files of authz.yaml hold, to sign client assertions with.

Law: a key signs with one algorithm, which it is made for; and no message quotes it.
"""

from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

PrivateKey = EllipticCurvePrivateKey | RSAPrivateKey

_MIN_RSA_BITS: Final = 2048  # RFC 7518, section 3.3


def read_private_key(pem: str) -> tuple[PrivateKey, str]:
    """Return a key and its algorithm: P-256 with ES256, RSA with RS256.

    Raises:
        ValueError: where the text is no such key in PEM, or one under a passphrase.
    """
    try:
        key = load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("it holds no private key in PEM without a passphrase") from None
    if isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1):
        return key, "ES256"
    if isinstance(key, RSAPrivateKey) and key.key_size >= _MIN_RSA_BITS:
        return key, "RS256"
    raise ValueError("its key is neither P-256 nor RSA of 2048 bits or more")
