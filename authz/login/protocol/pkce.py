"""PKCE (RFC 7636) with S256, the only method here."""

from authlib.oauth2.rfc7636 import create_s256_code_challenge


def s256_challenge(verifier: str) -> str:
    """Return the code challenge of a verifier of the characters of section 4.1."""
    return str(create_s256_code_challenge(verifier))  # type: ignore[no-untyped-call]
