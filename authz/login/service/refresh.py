"""Refreshes (RFC 6749, section 6): one at Authelia, however many ask, and its answer for a while.

What is not a refresh token of this client, for a grant that is alive and a server and scopes that
still are, never reaches Authelia; nor does one that was replaced. That one is answered, or it is
proof that somebody has a copy and ends its grant (RFC 9700, section 4.14.2):

- for 30 seconds it has the same answer, from wherever it comes: the answer may have been lost;
- for `front_door.stale_refresh` it stands for its newest successor, if it comes from the network of
  the last refresh (docs/decisions/0012-stale-refresh-tokens.md).
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Final

from authz.config.model import RefreshTokens
from authz.core.ledger import UnavailableError
from authz.core.limits import network
from authz.login.clients.identity import identity_again, names_of
from authz.login.protocol.authorization_code import check_resources
from authz.login.protocol.grant import renewed_grant
from authz.login.protocol.granted_audience import WORDS, audience_fault
from authz.login.protocol.issued import Issued, login_record
from authz.login.protocol.members import digest
from authz.login.protocol.parameters import Parameters
from authz.login.protocol.refresh import (
    RefreshDeniedError,
    RefreshToken,
    UpstreamToken,
    answer_stale,
    check_client,
    check_owner,
    check_server,
)
from authz.login.protocol.resources import ResourceServers
from authz.login.protocol.values import ClientIdentity, UpstreamError, UpstreamLogin
from authz.login.service import ports
from authz.login.service.client_authentication import check_authenticated
from authz.login.service.grant_end import MEANWHILE, REFUSED, REUSED, REVOKED_FOR, GrantEnder
from authz.login.service.rate_limits import REFRESHES, STALE_REFRESHES, LoginRateLimiter
from authz.login.store.blocklist import Blocklist
from authz.login.store.codes import ANSWER_LIFETIME, LoginFaults, RefreshStore
from authz.login.store.grants import GrantRenewal, GrantStore, StoredGrant
from authz.login.store.people import PeopleStore
from authz.login.store.sealed import open_refresh, seal_refresh, seal_upstream
from authz.tokens.sealing import NotSealedError, Sealer

# Seconds that Authelia has; less than the lock holds, so that one token is never refreshed twice.
PATIENCE: Final = 20.0
_POLL: Final = 0.1
_POLLS: Final = 100
_BUSY: Final = "a refresh takes too long"
# How Authelia (4.39.20 and later) refuses a refresh token that another `hmac_secret` has made.
_UNREADABLE: Final = "invalid_request"
_UNREADABLE_WORDS: Final = "Authelia's hmac_secret is not the one that made its refresh token"
_OFTEN: Final = "too many refreshes of one grant"
_STALE: Final = "a replaced refresh token, from the network of the last refresh"
# A stale token leads to the newest one at once; a refresh of that one meanwhile makes it stale too.
_SUCCESSORS: Final = 3
# Looks at a grant and its newest answer until both are of one moment.
_LOOKS: Final = 3


@dataclass(frozen=True, slots=True)
class _RefreshRequest:
    """Hold a request: its token opened, of which client, the token's digest, from which network."""

    token: RefreshToken
    client_id: str
    client: ClientIdentity
    name: str
    network: str


class TokenRefresh:
    """Refresh tokens. One per process.

    `refresh_tokens` and `stale_refresh` are those of `front_door` in authz.yaml. Authelia has
    `patience` seconds; another process is waited for with `pause`, `polls` times.
    """

    def __init__(
        self,
        *,
        servers: ResourceServers,
        clients: ports.ClientFinder,
        upstream: ports.RefreshingUpstream,
        refreshes: RefreshStore,
        faults: LoginFaults,
        grants: GrantStore,
        people: PeopleStore,
        blocks: Blocklist,
        ender: GrantEnder,
        limiter: LoginRateLimiter,
        sealer: Sealer,
        grant_max_age: int,
        refresh_tokens: RefreshTokens,
        stale_refresh: int,
        clock: Callable[[], float],
        log: ports.StepLog,
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
        patience: float = PATIENCE,
        polls: int = _POLLS,
    ) -> None:
        self._servers = servers
        self._clients = clients
        self._upstream = upstream
        self._refreshes = refreshes
        self._faults = faults
        self._grants = grants
        self._people = people
        self._blocks = blocks
        self._ender = ender
        self._limiter = limiter
        self._sealer = sealer
        self._grant_max_age = grant_max_age
        self._refresh_tokens = refresh_tokens
        self._stale_refresh = stale_refresh
        self._clock = clock
        self._log = log
        self._pause = pause
        self._patience = patience
        self._polls = polls
        self._works: set[asyncio.Task[Issued | str]] = set()

    async def refresh(
        self, parameters: Parameters, address: str, *, authenticated: bool = False
    ) -> Issued:
        """Return what a token request with a refresh token is issued.

        Args:
            parameters: of the request.
            address: from where it comes.
            authenticated: whether the client has authenticated.

        Raises:
            OAuthError: for the client.
            UnavailableError: where Redis or Authelia do not answer.
        """
        text, place = parameters.needed("refresh_token"), network(address)
        for _ in range(_SUCCESSORS):
            found = await self._answer(parameters, text, place, authenticated)
            if isinstance(found, Issued):
                return found
            text = found
        raise UnavailableError("issuer", _BUSY)

    async def _answer(
        self, parameters: Parameters, text: str, place: str, authenticated: bool
    ) -> Issued | str:
        """Return what is issued, or the refresh token that has to be refreshed instead."""
        try:
            token = open_refresh(self._sealer, text, self._grants.issuer)
        except NotSealedError as error:
            cause = "not sealed by us"
            self._log("refresh", "invalid_grant", detail=cause)
            raise RefreshDeniedError(cause) from error
        client_id = parameters.needed("client_id")
        with self._logged(token):
            check_owner(token, client_id)
            check_resources(parameters, token.resource)
            # Whatever `scope` says, Authelia gives what the person consented to, and the answer
            # says so (section 3.3): clients repeat here what they asked for at the log-in.
            client = await self._check_rules(token, client_id, authenticated)
        request = _RefreshRequest(token, client_id, client, digest(text), place)
        for _ in range(self._polls):
            with self._logged(token):
                await self._living(token)
            found = await self._refreshes.answer(request.name)
            if found is not None:
                return found
            holder = secrets.token_hex(16)
            if await self._refreshes.lock(request.name, holder):
                # Whoever hangs up must not take the answer of Authelia with him.
                work = asyncio.create_task(self._locked(request, holder))
                self._works.add(work)
                work.add_done_callback(self._works.discard)
                return await asyncio.shield(work)
            await self._pause(_POLL)
        raise UnavailableError("issuer", _BUSY)

    @contextmanager
    def _logged(self, token: RefreshToken) -> Iterator[None]:
        """Log why a token was refused."""
        try:
            yield
        except RefreshDeniedError as error:
            self._log(
                "refresh", "invalid_grant", client=token.client, server=token.server,
                grant=token.grant_id, detail=error.cause,
            )  # fmt: skip
            raise

    async def _check_rules(
        self, token: RefreshToken, client_id: str, authenticated: bool
    ) -> ClientIdentity:
        """Return what the client is; refuse what the operator does not allow any more."""
        check_server(token, self._servers.named(token.server, token.resource), self._refresh_tokens)
        client = await self._clients.find(client_id)
        check_authenticated(client, authenticated=authenticated)
        identity = identity_again(client, token.redirect_uri)
        blocked = identity is not None and await self._blocks.blocked(client_id, names_of(identity))
        return check_client(token, client, identity, blocked=blocked)

    async def _living(self, token: RefreshToken) -> StoredGrant:
        stored = await self._grants.find(token.subject, token.grant_id)
        if stored is None:
            raise RefreshDeniedError("the grant has ended")
        if await self._grants.revoked(token.subject, stored.grant):
            await self._end(token, REVOKED_FOR)
            raise RefreshDeniedError(REVOKED_FOR)
        return stored

    async def _locked(self, request: _RefreshRequest, holder: str) -> Issued | str:
        try:
            with self._logged(request.token):
                # Another one may have been done between the look and the lock.
                stored = await self._living(request.token)
                found = await self._refreshes.answer(request.name)
                if found is not None:
                    return found
                if stored.grant.refresh != request.name:
                    return await self._stale(request, stored)
                return await self._renew(request, stored)
        finally:
            with suppress(UnavailableError):
                await self._refreshes.unlock(request.name, holder)

    async def _stale(self, request: _RefreshRequest, stored: StoredGrant) -> Issued | str:
        """Answer a token that was replaced, or end its grant.

        Raises:
            RefreshDeniedError: where somebody has a copy.
            UnavailableError: where it comes too often.
        """
        token, now = request.token, self._clock()
        answer = answer_stale(await self._newest(request, stored), request.network, now)
        if answer is None:
            await self._end(token, REUSED)
            raise RefreshDeniedError(REUSED)
        if self._limiter.count_attempt_of(STALE_REFRESHES, token.grant_id):
            raise UnavailableError("issuer", _OFTEN)
        self._log(
            "refresh", "reused", client=token.client, server=token.server,
            grant=token.grant_id, detail=_STALE,
        )  # fmt: skip
        return answer

    async def _newest(self, request: _RefreshRequest, stored: StoredGrant) -> Issued | None:
        """Return the newest answer of the grant of a token that was replaced lately; else None.

        Grant and answer change in one step and are read in two: where they do not fit each other,
        another process may have refreshed in between, which is no sign of a thief.
        """
        since = self._clock() - self._stale_refresh
        for _ in range(_LOOKS):
            newest = await self._refreshes.latest(request.name, request.token.grant_id, since)
            if newest is None or digest(newest.refresh_token or "") == stored.grant.refresh:
                return newest
            stored = await self._living(request.token)
        return None

    async def _renew(self, request: _RefreshRequest, stored: StoredGrant) -> Issued:
        token = request.token
        login = await self._refresh_upstream(token)
        now, tokens = self._clock(), login.tokens
        successor = replace(
            token,
            upstream=tokens.refresh_token or token.upstream,
            redirect_uri=request.client.redirect_uri,
        )
        if fault := audience_fault(tokens.audience, token.resource):
            # The old token is spent, so the grant is of no use any more.
            await self._faults.keep(fault)
            await self._end(successor, fault)
            raise RefreshDeniedError(fault, WORDS)
        lifetime = token.consented_at + self._grant_max_age - now
        issued = Issued(
            access_token=tokens.access_token,
            refresh_token=seal_refresh(self._sealer, successor, lifetime),
            expires_at=tokens.expires_at,
            scopes=tuple(sorted(tokens.scopes.intersection(token.scopes))),
        )
        record = login_record(token.grant_id, request.client_id, request.client, login.identity)
        upstream = UpstreamToken(
            successor.issuer, successor.upstream, successor.two_factor, successor.address
        )
        renewal = GrantRenewal(
            before=stored,
            grant=renewed_grant(
                stored.grant,
                record,
                issued,
                now=int(now),
                upstream=seal_upstream(self._sealer, upstream, lifetime),
            ),
            record=record,
            lifetime=max(int(tokens.expires_at - now), 1),
            answer_key=self._refreshes.key(request.name),
            answer=self._refreshes.sealed(issued),
            answer_lifetime=ANSWER_LIFETIME,
            replaced_key=self._refreshes.replaced_key(request.name),
            latest=self._refreshes.sealed_latest(
                replace(issued, network=request.network), self._stale_refresh
            ),
            stale_lifetime=self._stale_refresh,
        )
        # Of log-ins that an earlier release recorded, this tells who it is (`authz revoke --user`).
        account = login.identity.account or stored.grant.account
        await self._people.keep_refreshed(replace(login.identity, account=account))
        if not await self._grants.renew(token.subject, renewal):
            # Ended while Authelia was asked.
            await self._end(successor, MEANWHILE)
            raise RefreshDeniedError(MEANWHILE)
        self._log("refresh", "ok", client=token.client, server=token.server, grant=token.grant_id)
        return issued

    async def _refresh_upstream(self, token: RefreshToken) -> UpstreamLogin:
        if self._limiter.count_attempt_of(REFRESHES, token.grant_id):
            raise UnavailableError("issuer", _OFTEN)
        try:
            async with asyncio.timeout(self._patience):
                login = await self._upstream.refresh(
                    two_factor=token.two_factor,
                    refresh_token=token.upstream,
                    subject=token.subject,
                    address=token.address,
                )
        except TimeoutError as error:
            raise UnavailableError("issuer", _BUSY) from error
        except UpstreamError as error:
            if error.error == _UNREADABLE:
                # Nothing ends: it is good again where Authelia has its old secret back.
                raise RefreshDeniedError(_UNREADABLE_WORDS) from error
            if error.error != "invalid_grant":
                raise UnavailableError("issuer", error.error) from error
            # It would be in vain for ever, and count against the person's address each time.
            await self._ender.end(token.subject, token.grant_id, REFUSED)
            raise RefreshDeniedError(REFUSED) from error
        if login.identity.subject != token.subject:
            await self._end(token, REFUSED)
            raise RefreshDeniedError("another person")
        return login

    async def _end(self, token: RefreshToken, why: str) -> None:
        await self._ender.end(
            token.subject,
            token.grant_id,
            why,
            two_factor=token.two_factor,
            token=token.upstream,
            address=token.address,
        )
