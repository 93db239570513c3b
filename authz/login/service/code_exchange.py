"""The exchange of our codes for tokens (RFC 6749, section 4.1.3; RFC 7636, section 4.6).

Invariant: a code is taken before it is checked, so that a wrong guess costs it, and with it
Authelia's tokens; one that comes a second time ends what the first one gave. Nothing is issued
before it is recorded.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from authz.core.ledger import UnavailableError
from authz.login.clients.identity import identity_again, names_of
from authz.login.protocol.authorization_code import (
    CODE_WORDS,
    AuthorizationCode,
    UsedCode,
    check_code,
)
from authz.login.protocol.grant import begun_grant
from authz.login.protocol.issued import Issued, login_record
from authz.login.protocol.parameters import Parameters
from authz.login.protocol.refresh import UpstreamToken, first_refresh_token
from authz.login.protocol.values import ClientIdentity, OAuthError, UpstreamError
from authz.login.service import ports
from authz.login.service.client_authentication import check_authenticated
from authz.login.service.grant_end import BLOCKED, LOST, REPLAYED, GrantEnder
from authz.login.store.blocklist import Blocklist
from authz.login.store.codes import CodeStore
from authz.login.store.grants import GrantStore
from authz.login.store.sealed import seal_refresh, seal_upstream
from authz.tokens.sealing import Sealer

_CODE: Final = re.compile(r"[A-Za-z0-9_-]{43}")


class CodeExchange:
    """Exchange codes for tokens; a grant lives for `grant_max_age` seconds from the consent."""

    def __init__(
        self,
        *,
        clients: ports.ClientFinder,
        upstream: ports.Upstream,
        codes: CodeStore,
        grants: GrantStore,
        blocks: Blocklist,
        ender: GrantEnder,
        sealer: Sealer,
        grant_max_age: int,
        clock: Callable[[], float],
        log: ports.StepLog,
    ) -> None:
        self._clients = clients
        self._upstream = upstream
        self._codes = codes
        self._grants = grants
        self._blocks = blocks
        self._ender = ender
        self._sealer = sealer
        self._grant_max_age = grant_max_age
        self._clock = clock
        self._log = log

    async def exchange(self, parameters: Parameters, *, authenticated: bool = False) -> Issued:
        """Return what a token request with a code is issued.

        Args:
            parameters: of the request.
            authenticated: whether the client has authenticated.

        Raises:
            OAuthError: for the client.
            UnavailableError: where Redis does not answer.
        """
        text, client_id = parameters.needed("code"), parameters.needed("client_id")
        if _CODE.fullmatch(text) is None:
            raise self._invalid()
        match await self._codes.take(text):
            case AuthorizationCode() as code:
                return await self._issue(text, code, client_id, parameters, authenticated)
            case UsedCode() as used:
                await self._end_replayed(used)
                raise OAuthError("invalid_grant", CODE_WORDS)
        raise self._invalid()

    async def _issue(
        self,
        text: str,
        code: AuthorizationCode,
        client_id: str,
        parameters: Parameters,
        authenticated: bool,
    ) -> Issued:
        try:
            self._check(code, client_id, parameters)
            identity = await self._identity(client_id, code, authenticated)
        except (OAuthError, UnavailableError):
            await self._forget(code)
            raise
        now = self._clock()
        lifetime = code.consented_at + self._grant_max_age - now
        token = first_refresh_token(code, identity, self._grants.issuer)
        refresh = None if token is None else seal_refresh(self._sealer, token, lifetime)
        # Without a refresh token it is the access token that Authelia ends with the grant.
        upstream = UpstreamToken(
            self._grants.issuer,
            code.access_token if token is None else token.upstream,
            code.two_factor,
            code.address,
        )
        grant = begun_grant(
            code,
            client_id,
            identity,
            now=int(now),
            refresh_token=refresh,
            upstream=seal_upstream(
                self._sealer, upstream, code.expires_at - now if token is None else lifetime
            ),
        )
        record = login_record(code.grant_id, client_id, identity, code.identity)
        try:
            begun = await self._grants.begin(
                code.subject,
                grant,
                record,
                max(int(code.expires_at - now), 1),
                self._codes.key(text),
            )
            # A block ends the grants that there are; this one may have begun behind its back.
            blocked = begun and await self._blocks.blocked(client_id, names_of(identity))
        except UnavailableError:
            # It may have begun all the same, and nobody would know of it.
            with suppress(UnavailableError):
                await self._grants.end(code.subject, grant.id, LOST)
            await self._forget(code)
            raise
        if not begun:
            await self._forget(code)
            raise self._invalid(identity.name)
        if blocked:
            await self._grants.end(code.subject, grant.id, BLOCKED)
            await self._forget(code)
            raise self._blocked(identity)
        self._log(
            "token", "ok", client=identity.name, server=grant.server, grant=grant.id,
            subject=code.subject,
        )  # fmt: skip
        return Issued(code.access_token, refresh, code.expires_at, code.scopes, code.restricted)

    def _check(self, code: AuthorizationCode, client_id: str, parameters: Parameters) -> None:
        """Check a code; the log says which log-in was refused.

        Raises:
            OAuthError: as `check_code`.
        """
        try:
            check_code(code, client_id, parameters)
        except OAuthError as error:
            detail = "another client, verifier or redirect URI than at the log-in"
            self._log(
                "token",
                error.error,
                client=code.client,
                server=code.server,
                grant=code.grant_id,
                detail=error.description if error.error == "invalid_target" else detail,
            )
            raise

    async def _identity(
        self, client_id: str, code: AuthorizationCode, authenticated: bool
    ) -> ClientIdentity:
        client = await self._clients.find(client_id)
        check_authenticated(client, authenticated=authenticated)
        identity = identity_again(client, code.redirect_uri)
        if identity is None or identity.name != code.client:
            raise self._invalid(code.client)
        if await self._blocks.blocked(client_id, names_of(identity)):
            raise self._blocked(identity)
        return identity

    async def _end_replayed(self, used: UsedCode) -> None:
        """End what a code gave that comes a second time (RFC 6749, section 4.1.2)."""
        await self._ender.end(
            used.subject,
            used.grant_id,
            REPLAYED,
            two_factor=used.two_factor,
            token=used.upstream_token,
            address=used.address,
        )
        self._log("token", "replayed", client=used.client, grant=used.grant_id)

    async def _forget(self, code: AuthorizationCode) -> None:
        """End Authelia's tokens, which nobody was given."""
        with suppress(UpstreamError, UnavailableError):
            await self._upstream.revoke(
                two_factor=code.two_factor, token=code.upstream_token, address=code.address
            )

    def _blocked(self, client: ClientIdentity) -> OAuthError:
        self._log("token", "blocked", client=client.name)
        return OAuthError("unauthorized_client", "the client was blocked")

    def _invalid(self, client: str = "") -> OAuthError:
        self._log("token", "invalid_grant", client=client)
        return OAuthError("invalid_grant", CODE_WORDS)
