"""Revocation by a client (RFC 7009): of either token, it ends the grant.

Invariant: a client ends its own grants only, and learns nothing of anybody's: whatever it sends,
the answer is the same.
"""

import hmac

from authz.core.principal import LoginRecord
from authz.ledger.login_records import LoginRecords
from authz.login.protocol.members import digest
from authz.login.protocol.parameters import Parameters
from authz.login.protocol.refresh import RefreshToken
from authz.login.protocol.values import OAuthError
from authz.login.service import ports
from authz.login.service.client_authentication import check_authenticated
from authz.login.service.grant_end import REVOKED, GrantEnder
from authz.login.store.grants import GrantStore
from authz.login.store.person_address import person_address
from authz.login.store.sealed import open_refresh
from authz.tokens.sealing import NotSealedError, Sealer


class TokenRevocation:
    """Revoke tokens."""

    def __init__(
        self,
        *,
        clients: ports.ClientFinder,
        grants: GrantStore,
        records: LoginRecords,
        ender: GrantEnder,
        sealer: Sealer,
        log: ports.StepLog,
    ) -> None:
        self._clients = clients
        self._grants = grants
        self._records = records
        self._ender = ender
        self._sealer = sealer
        self._log = log

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
            token = open_refresh(self._sealer, text, self._grants.issuer)
            await self._refresh(token, client_id, authenticated)
        except NotSealedError:
            await self._access(text, client_id, authenticated)

    async def _check_client(self, client_id: str, authenticated: bool) -> None:
        """Refuse a client that has to authenticate, and has not.

        While its document cannot be had that is not known: what ends then is what whoever holds
        the token could use.
        """
        try:
            client = await self._clients.find(client_id)
        except OAuthError:
            return
        check_authenticated(client, authenticated=authenticated)

    async def _refresh(self, token: RefreshToken, client_id: str, authenticated: bool) -> None:
        if hmac.compare_digest(digest(client_id), token.client_digest):
            await self._check_client(client_id, authenticated)
            await self._ender.end(
                token.subject,
                token.grant_id,
                REVOKED,
                two_factor=token.two_factor,
                token=token.upstream,
                address=token.address,
            )
            self._log("revoke", "ok", client=token.client, grant=token.grant_id)

    async def _access(self, text: str, client_id: str, authenticated: bool) -> None:
        log_in: LoginRecord | None = await self._records.get(text)
        if log_in is None or not hmac.compare_digest(digest(client_id), digest(log_in.client_id)):
            return
        await self._check_client(client_id, authenticated)
        held = await self._grants.find(log_in.subject, log_in.grant)
        await self._ender.end(
            log_in.subject,
            log_in.grant,
            REVOKED,
            # Of a grant that is past its age nobody knows through which client it was.
            two_factor=held is not None and held.grant.two_factor,
            token=text if held is not None else "",
            address=person_address(self._sealer, log_in.subject),
        )
        await self._records.expire(text, 0)
        self._log("revoke", "ok", client=log_in.client, grant=log_in.grant)
