"""Client of the issuer's introspection endpoint (RFC 7662).

Every request is authenticated, goes to the address that the issuer's metadata names, and has a
whole answer within its time or none.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final

import httpx

from authz.tokens.client_auth import ClientAuth
from authz.tokens.issuer import IssuerAddress, read_metadata
from authz.tokens.issuer_http import IssuerEndpoint, IssuerError, IssuerFault, post

_LARGEST: Final = 64 * 1024  # bytes; an answer is a few hundred
_METADATA_AGE: Final = 3600.0  # seconds; a fault forgets it at once
_MEMBER: Final = "introspection_endpoint"


class IntrospectionEndpoint:
    """Send one introspection request per token; it bounds nothing (`Bulkhead` does)."""

    def __init__(
        self,
        address: IssuerAddress,
        auth: ClientAuth,
        client: httpx.AsyncClient,
        *,
        total: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take where the issuer is, how we prove who asks, and seconds for a whole question."""
        self._address = address
        self._auth = auth
        self._client = client
        self._total = total
        self._clock = clock
        self._found: tuple[IssuerEndpoint, float] | None = None
        self._finding = asyncio.Lock()

    async def ask(self, token: str) -> Mapping[str, object]:
        """Return the issuer's response about a token.

        Raises:
            IssuerError: where it gives no usable answer.
        """
        try:
            async with asyncio.timeout(self._total):
                return await self._ask(token)
        except TimeoutError as error:
            self._found = None
            raise IssuerError(IssuerFault.LATE, "no whole answer in time") from error
        except IssuerError:
            self._found = None
            raise

    async def _ask(self, token: str) -> Mapping[str, object]:
        target = await self._target()
        proof = self._auth.proof()
        form = {"token": token, "token_type_hint": "access_token", **proof.form}
        there = IssuerEndpoint(target.url, {**target.headers, **proof.headers})
        return await post(self._client, there, form, _LARGEST)

    async def _target(self) -> IssuerEndpoint:
        """Return the endpoint; concurrent callers share one request for the metadata."""
        async with self._finding:
            if self._found is None or self._clock() - self._found[1] >= _METADATA_AGE:
                metadata = await read_metadata(self._address, self._client)
                target = self._address.endpoint(_MEMBER, metadata.get(_MEMBER))
                self._found = target, self._clock()
            return self._found[0]
