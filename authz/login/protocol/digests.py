"""The name of what must not be stored itself."""

from hashlib import sha256


def digest(text: str) -> str:
    """Return the hex SHA-256 of a text."""
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
