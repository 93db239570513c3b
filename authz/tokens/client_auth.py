"""Client authentication at the issuer's introspection endpoint.

A proof is made for one request and has no repr. An assertion lives for a minute, is for this
issuer alone and has a `jti` of its own (RFC 7523).
"""

import base64
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Protocol
from urllib.parse import quote_plus

import jwt

from authz.config.key_files import read_private_key

_LIFETIME: Final = 60  # seconds; the issuer's clock may be behind or ahead by about as much
# RFC 7523, section 2.2.
_JWT_BEARER: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@dataclass(frozen=True, slots=True)
class ClientProof:
    """Hold what goes with one request.

    Attributes:
        form: members for the form.
        headers: headers.
    """

    form: Mapping[str, str] = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)


class ClientAuth(Protocol):
    """Prove who asks, once per request."""

    def proof(self) -> ClientProof:
        """Return a new proof."""
        ...


class PrivateKeyJwt:
    """Sign an assertion (RFC 7523; `private_key_jwt` of OpenID Connect Core, section 9).

    For Authelia it is by far the cheapest proof: a client secret is a password hash to it.
    """

    def __init__(
        self,
        client_id: str,
        pem: str,
        issuer: str,
        key_id: str | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take the private key as PEM; it signs ES256 (P-256) or RS256 (RSA).

        Args:
            client_id: as registered at the issuer.
            pem: the private key, without a passphrase.
            issuer: the audience of the assertions. Authelia also takes its token endpoint; the
                address of the introspection endpoint it refuses, though that is where we ask.
            key_id: the `kid` of the header; None where the issuer knows one key of ours.
            clock: seconds since the epoch.

        Raises:
            ValueError: where it is no such key.
        """
        self._client_id = client_id
        self._key, self._algorithm = read_private_key(pem)
        self._issuer = issuer
        self._headers = None if key_id is None else {"kid": key_id}
        self._clock = clock

    def proof(self) -> ClientProof:
        """Return a form with a new assertion."""
        claims = {
            "iss": self._client_id,
            "sub": self._client_id,
            "aud": self._issuer,
            "jti": secrets.token_urlsafe(24),
            # No `iat`: RFC 7523 does not ask for it, and a clock that is ahead of the issuer's
            # would be the end of every assertion.
            "exp": int(self._clock()) + _LIFETIME,
        }
        assertion = jwt.encode(claims, self._key, self._algorithm, headers=self._headers)
        return ClientProof(
            {
                "client_id": self._client_id,
                "client_assertion_type": _JWT_BEARER,
                "client_assertion": assertion,
            }
        )


class ClientSecretBasic:
    """Send the secret in the Authorization header (RFC 6749, section 2.3.1)."""

    def __init__(self, client_id: str, secret: str) -> None:
        """Take the client's id and secret."""
        # Both halves are form-encoded before they are joined, or a colon in an id would move
        # the border between them.
        pair = f"{quote_plus(client_id)}:{quote_plus(secret)}"
        value = base64.b64encode(pair.encode()).decode("ascii")
        self._proof = ClientProof({}, {"Authorization": f"Basic {value}"})

    def proof(self) -> ClientProof:
        """Return the header."""
        return self._proof


class ClientSecretPost:
    """Send the secret in the form (RFC 6749, section 2.3.1)."""

    def __init__(self, client_id: str, secret: str) -> None:
        """Take the client's id and secret."""
        self._proof = ClientProof({"client_id": client_id, "client_secret": secret})

    def proof(self) -> ClientProof:
        """Return the form."""
        return self._proof
