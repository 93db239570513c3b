"""Revocation by a client (RFC 7009): of either token, it ends the grant.

Law: a client ends its own grants only, and learns nothing of anybody's: whatever it sends, the
answer is the same.
"""

import hmac

from authz.core.principal import LoginRecord
from authz.login.protocol.digests import digest
from authz.login.protocol.parameters import Parameters
from authz.login.protocol.values import OAuthError
from authz.login.service.client_authentication import check_authenticated
from authz.login.service.grant_end import REVOKED, end
from authz.login.service.means import Means
from authz.login.service.person_address import person_address
from authz.login.service.refresh_tokens import RefreshToken, open_refresh
from authz.tokens.sealing import NotSealedError


class TokenRevocation:
    """Revoke tokens."""

    def __init__(self, means: Means) -> None:
        """Take the parts."""
        self._means = means

    async def revoke(self, parameters: Parameters, *, authenticated: bool = False) -> None:
        """End the grant of a token, if it is this client's.

        Args:
            parameters: of the request.
            authenticated: whether the client has authenticated.

        Raises:
            OAuthError: where the request is malformed.
            UnavailableError: where Redis does not answer; the token lives on (RFC 7009, section
                2.2.1).
        """
        # token_type_hint is a hint (section 2.1), and not needed.
        text, client_id = parameters.needed("token"), parameters.needed("client_id")
        try:
            token = open_refresh(self._means.sealer, text, self._means.grants.issuer)
            await self._refresh(token, client_id, authenticated)
        except NotSealedError:
            await self._access(text, client_id, authenticated)

    async def _check_client(self, client_id: str, authenticated: bool) -> None:
        """Refuse a client that has to authenticate, and has not.

        While its document cannot be had that is not known: what ends then is what whoever holds
        the token could use.
        """
        try:
            client = await self._means.clients.find(client_id)
        except OAuthError:
            return
        check_authenticated(client, authenticated=authenticated)

    async def _refresh(self, token: RefreshToken, client_id: str, authenticated: bool) -> None:
        if hmac.compare_digest(digest(client_id), token.client):
            await self._check_client(client_id, authenticated)
            await end(
                self._means,
                token.subject,
                token.grant,
                REVOKED,
                two_factor=token.two_factor,
                token=token.upstream,
                address=token.address,
            )
            self._means.tell("revoke", "ok", client=token.name, grant=token.grant)

    async def _access(self, text: str, client_id: str, authenticated: bool) -> None:
        log_in: LoginRecord | None = await self._means.log_ins.get(text)
        if log_in is None or not hmac.compare_digest(digest(client_id), digest(log_in.client_id)):
            return
        await self._check_client(client_id, authenticated)
        held = await self._means.grants.find(log_in.subject, log_in.grant)
        await end(
            self._means,
            log_in.subject,
            log_in.grant,
            REVOKED,
            # Of a grant that is past its age nobody knows through which client it was.
            two_factor=held is not None and held.grant.two_factor,
            token=text if held is not None else "",
            address=person_address(self._means.sealer, log_in.subject),
        )
        await self._means.log_ins.expire(text, 0)
        self._means.tell("revoke", "ok", client=log_in.client, grant=log_in.grant)
