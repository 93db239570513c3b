"""Which groups a person is in now, by the issuer's userinfo endpoint (OpenID Connect Core, 5.3).

Authelia answers it from its directory at that moment (4.39.20, `oidcDetailerFromClaims`), while a
token says what was true when it was signed.

Invariant: an answer counts for the person whose token was sent, or not at all.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import httpx

from authz.core.ledger import UnavailableError
from authz.tokens.claims import is_text
from authz.tokens.issuer import IssuerAddress, read_openid_configuration
from authz.tokens.issuer_http import IssuerEndpoint, IssuerError, IssuerFault, get

_ENDPOINT: Final = "userinfo_endpoint"
_LARGEST: Final = 64 * 1024  # bytes
_MOST_GROUPS: Final = 256  # as of a token


class TokenEndedError(Exception):
    """Say that the issuer knows a token no more: it expired or was revoked, or its person left."""


@dataclass(frozen=True, slots=True)
class UserInfo:
    """Ask which groups people are in.

    Attributes:
        address: the issuer's name and how it is reached.
        client: of `issuer_http.issuer_client`.
        total: seconds for one question.
    """

    address: IssuerAddress
    client: httpx.AsyncClient
    total: float = 5.0

    async def groups(self, token: str, subject: str, address: str) -> frozenset[str]:
        """Return the groups that a person is in.

        Args:
            token: an access token of the person, granted `openid` and `groups`.
            subject: the person's.
            address: of the person: Authelia counts failures by it.

        Raises:
            TokenEndedError: where the issuer takes the token no more.
            UnavailableError: where it gives no usable answer.
        """
        headers = {"Authorization": f"Bearer {token}", "X-Forwarded-For": address}
        try:
            async with asyncio.timeout(self.total):
                document = await read_openid_configuration(self.address, self.client)
                target = self.address.endpoint(_ENDPOINT, document.get(_ENDPOINT))
                asked = IssuerEndpoint(target.url, {**target.headers, **headers})
                claims = await get(self.client, asked, _LARGEST)
        except TimeoutError as error:
            raise UnavailableError("issuer", "userinfo: no whole answer in time") from error
        except IssuerError as error:
            if error.fault is IssuerFault.UNAUTHORIZED:
                raise TokenEndedError from error
            raise UnavailableError("issuer", f"userinfo: {error.detail}") from error
        # OpenID Connect Core, section 5.3.2: another person's answer must not be used.
        if claims.get("sub") != subject:
            raise UnavailableError("issuer", "userinfo: of another person")
        return _groups(claims)


def _groups(claims: Mapping[str, object]) -> frozenset[str]:
    found = claims.get("groups")
    if found is None:
        return frozenset()
    if not isinstance(found, list) or len(found) > _MOST_GROUPS:
        raise UnavailableError("issuer", "userinfo: groups is not a short list")
    groups = frozenset(each for each in found if is_text(each))
    if len(groups) != len(set(map(str, found))):
        raise UnavailableError("issuer", "userinfo: an entry of groups is malformed")
    return groups
