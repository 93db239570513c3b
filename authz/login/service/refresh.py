"""Refreshes (RFC 6749, section 6): one at Authelia, however many ask, and its answer for a while.

What is not a refresh token of this client, for a grant that is alive and a server and scopes that
still are, never reaches Authelia; nor does one that was replaced. That one is answered, or it is
proof that somebody has a copy and ends its grant (RFC 9700, section 4.14.2):

- for 30 seconds it has the same answer, from wherever it comes: the answer may have been lost;
- for `front_door.stale_refresh` it stands for its newest successor, if it comes from the network of
  the last refresh (docs/decisions/0012-stale-refresh-tokens.md).
"""

import asyncio
import hmac
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

from authz.core.ledger import UnavailableError
from authz.core.limits import network
from authz.login.clients.identity import identity_again, names_of
from authz.login.protocol.digests import digest
from authz.login.protocol.grant import renewed
from authz.login.protocol.granted_audience import WORDS, audience_fault
from authz.login.protocol.parameters import Parameters
from authz.login.protocol.values import ClientIdentity, OAuthError, UpstreamError, UpstreamLogin
from authz.login.service.client_authentication import check_authenticated
from authz.login.service.code_exchange import check_resources
from authz.login.service.grant_end import MEANWHILE, REFUSED, REUSED, REVOKED_FOR, end
from authz.login.service.means import Means
from authz.login.service.rate_limits import REFRESHES, STALE_REFRESHES
from authz.login.service.refresh_tokens import (
    RefreshToken,
    open_refresh,
    seal_refresh,
    sealed_upstream,
)
from authz.login.service.token_response import log_in_of, token_answer
from authz.login.store.codes import ANSWER_LIFETIME
from authz.login.store.grants import GrantRenewal, StoredGrant
from authz.tokens.sealing import NotSealedError

# Seconds that Authelia has; less than the lock holds, so that one token is never refreshed twice.
PATIENCE: Final = 20.0
_POLL: Final = 0.1
_POLLS: Final = 100
_WORDS: Final = "the refresh token is not good, or not any more"
_BUSY: Final = "a refresh takes too long"
_OFTEN: Final = "too many refreshes of one grant"
_STALE: Final = "a replaced refresh token, from the network of the last refresh"
# Seconds: with less left of it, the newest access token is renewed before it is given again.
_WORTH_GIVING: Final = 60
# A stale token leads to the newest one at once; a refresh of that one meanwhile makes it stale too.
_SUCCESSORS: Final = 3
# Looks at a grant and its newest answer until both are of one moment.
_LOOKS: Final = 3


@dataclass(frozen=True, slots=True)
class _Asked:
    """Hold a refresh token that was opened: of which client, its digest, from which network."""

    token: RefreshToken
    client_id: str
    client: ClientIdentity
    name: str
    place: str


@dataclass(frozen=True, slots=True)
class _Successor:
    """Hold the token that a stale one stands for, where that one has to be refreshed itself."""

    token: str = field(repr=False)


_Outcome = Mapping[str, Any] | _Successor


class TokenRefresh:
    """Refresh tokens."""

    def __init__(
        self,
        means: Means,
        *,
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
        patience: float = PATIENCE,
        polls: int = _POLLS,
    ) -> None:
        """Take the parts, how to wait, how long Authelia has, and how often to look."""
        self._means = means
        self._pause = pause
        self._patience = patience
        self._polls = polls
        self._works: set[asyncio.Task[_Outcome]] = set()

    async def refresh(
        self, parameters: Parameters, address: str, *, authenticated: bool = False
    ) -> Mapping[str, Any]:
        """Return the answer to a token request with a refresh token.

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
            found = await self._answered(parameters, text, place, authenticated)
            if not isinstance(found, _Successor):
                return found
            text = found.token
        raise UnavailableError("issuer", _BUSY)

    async def _answered(
        self, parameters: Parameters, text: str, place: str, authenticated: bool
    ) -> _Outcome:
        client_id = parameters.needed("client_id")
        token = self._opened(text, client_id)
        check_resources(parameters, token.resource)
        # Whatever `scope` says, Authelia gives what the person consented to, and the answer says
        # so (section 3.3): clients repeat here what they asked for at the log-in.
        client = await self._check_still_good(token, client_id, authenticated)
        asked = _Asked(token, client_id, client, digest(text), place)
        for _ in range(self._polls):
            await self._alive(token)
            found = await self._means.refreshes.answer(asked.name)
            if found is not None:
                return self._given(found)
            holder = secrets.token_hex(16)
            if await self._means.refreshes.lock(asked.name, holder):
                # Whoever hangs up must not take the answer of Authelia with him.
                work = asyncio.create_task(self._locked(asked, holder))
                self._works.add(work)
                work.add_done_callback(self._works.discard)
                return await asyncio.shield(work)
            await self._pause(_POLL)
        raise UnavailableError("issuer", _BUSY)

    def _opened(self, text: str, client_id: str) -> RefreshToken:
        try:
            token = open_refresh(self._means.sealer, text, self._means.grants.issuer)
        except NotSealedError as error:
            self._means.tell("refresh", "invalid_grant", detail="not sealed by us")
            raise OAuthError("invalid_grant", _WORDS) from error
        if not hmac.compare_digest(digest(client_id), token.client):
            raise self._refused(token, "of another client")
        return token

    async def _check_still_good(
        self, token: RefreshToken, client_id: str, authenticated: bool
    ) -> ClientIdentity:
        """Return what the client is; refuse what the operator does not allow any more."""
        target = self._means.targets.named(token.server, token.resource)
        if target is None or not target.scopes.issuperset(token.scopes):
            raise self._refused(token, "the server has changed")
        # A step up in what the server asks for needs a new log-in, through the other client.
        if target.two_factor and not token.two_factor:
            raise self._refused(token, "the server wants a second factor now")
        if self._means.refresh_tokens == "never":
            raise self._refused(token, "refresh tokens are not given any more")
        client = await self._means.clients.find(client_id)
        check_authenticated(client, authenticated=authenticated)
        identity = identity_again(client, token.redirect_uri)
        if identity is None or identity.name != token.name:
            raise self._refused(token, "the client has another name")
        if await self._means.blocks.blocked(client_id, names_of(identity)):
            raise self._refused(token, "blocked")
        if client.scopes is not None and not client.scopes.issuperset(token.scopes):
            raise self._refused(token, "the client may not have these scopes any more")
        return identity

    async def _alive(self, token: RefreshToken) -> StoredGrant:
        held = await self._means.grants.find(token.subject, token.grant)
        if held is None:
            raise self._refused(token, "the grant has ended")
        if await self._means.grants.revoked(token.subject, held.grant):
            await self._end(token, REVOKED_FOR)
            raise self._refused(token, REVOKED_FOR)
        return held

    async def _locked(self, asked: _Asked, holder: str) -> _Outcome:
        try:
            # Another one may have been done between the look and the lock.
            held = await self._alive(asked.token)
            found = await self._means.refreshes.answer(asked.name)
            if found is not None:
                return self._given(found)
            if held.grant.refresh != asked.name:
                return await self._stale(asked, held)
            return await self._renewed(asked, held)
        finally:
            with suppress(UnavailableError):
                await self._means.refreshes.unlock(asked.name, holder)

    async def _stale(self, asked: _Asked, held: StoredGrant) -> _Outcome:
        """Answer a token that was replaced, or end its grant.

        Raises:
            OAuthError: where it was replaced too long ago, or comes from another network than
                the last refresh: somebody has a copy.
            UnavailableError: where it comes too often.
        """
        means, token = self._means, asked.token
        newest = await self._newest(asked, held)
        if newest is None or newest["place"] != asked.place:
            await self._end(token, REUSED)
            raise self._refused(token, REUSED)
        if means.attempts.retry_after_of(STALE_REFRESHES, token.grant):
            raise UnavailableError("issuer", _OFTEN)
        means.tell(
            "refresh", "reused", client=token.name, server=token.server,
            grant=token.grant, detail=_STALE,
        )  # fmt: skip
        if newest["expires_at"] - means.clock() >= _WORTH_GIVING:
            return self._given(newest)
        return _Successor(newest["refresh_token"])

    async def _newest(self, asked: _Asked, held: StoredGrant) -> Mapping[str, Any] | None:
        """Return the newest answer of the grant of a token that was replaced lately; else None.

        Grant and answer change in one step and are read in two: where they do not fit each other,
        another process may have refreshed in between, which is no sign of a thief.
        """
        refreshes, token = self._means.refreshes, asked.token
        since = self._means.clock() - self._means.stale_refresh
        for _ in range(_LOOKS):
            newest = await refreshes.latest(asked.name, token.grant, since)
            if newest is None or digest(newest["refresh_token"]) == held.grant.refresh:
                return newest
            held = await self._alive(token)
        return None

    async def _renewed(self, asked: _Asked, held: StoredGrant) -> Mapping[str, Any]:
        token = asked.token
        found = await self._upstream(token)
        means, now, tokens = self._means, self._means.clock(), found.tokens
        next_token = replace(
            token,
            upstream=tokens.refresh_token or token.upstream,
            redirect_uri=asked.client.redirect_uri,
        )
        if fault := audience_fault(tokens.audience, token.resource):
            # The old token is spent, so the grant is of no use any more.
            await means.faults.keep(fault)
            await self._end(next_token, fault)
            raise self._refused(token, fault, WORDS)
        lifetime = token.consented_at + means.grant_max_age - now
        sealed = seal_refresh(means.sealer, next_token, lifetime)
        log_in = log_in_of(token, asked.client_id, asked.client, found.identity)
        answer = {
            "access_token": tokens.access_token,
            "refresh_token": sealed,
            "expires_at": tokens.expires_at,
            "scopes": sorted(tokens.scopes.intersection(token.scopes)),
        }
        renewal = GrantRenewal(
            before=held,
            grant=renewed(
                held.grant,
                log_in,
                now=int(now),
                expires_at=tokens.expires_at,
                access=digest(tokens.access_token),
                refresh=digest(sealed),
                upstream=sealed_upstream(means.sealer, next_token, lifetime),
            ),
            log_in=log_in,
            lifetime=max(int(tokens.expires_at - now), 1),
            answer_key=means.refreshes.key(asked.name),
            answer=means.refreshes.sealed(answer),
            answer_lifetime=ANSWER_LIFETIME,
            replaced_key=means.refreshes.replaced_key(asked.name),
            latest=means.refreshes.sealed_latest(
                {**answer, "place": asked.place}, means.stale_refresh
            ),
            stale_lifetime=means.stale_refresh,
        )
        if not await means.grants.renew(token.subject, renewal):
            # Ended while Authelia was asked.
            await self._end(next_token, MEANWHILE)
            raise self._refused(token, MEANWHILE)
        means.tell("refresh", "ok", client=token.name, server=token.server, grant=token.grant)
        return self._given(answer)

    async def _upstream(self, token: RefreshToken) -> UpstreamLogin:
        if self._means.attempts.retry_after_of(REFRESHES, token.grant):
            raise UnavailableError("issuer", _OFTEN)
        try:
            async with asyncio.timeout(self._patience):
                found = await self._means.upstream.refresh(
                    two_factor=token.two_factor,
                    refresh_token=token.upstream,
                    subject=token.subject,
                    address=token.address,
                )
        except TimeoutError as error:
            raise UnavailableError("issuer", _BUSY) from error
        except UpstreamError as refused:
            if refused.error != "invalid_grant":
                raise UnavailableError("issuer", refused.error) from refused
            # It would be in vain for ever, and count against the person's address each time.
            await self._end(token, REFUSED, tell_authelia=False)
            raise self._refused(token, REFUSED) from refused
        if found.identity.subject != token.subject:
            await self._end(token, REFUSED)
            raise self._refused(token, "another person")
        return found

    async def _end(self, token: RefreshToken, why: str, *, tell_authelia: bool = True) -> None:
        await end(
            self._means,
            token.subject,
            token.grant,
            why,
            two_factor=token.two_factor,
            token=token.upstream if tell_authelia else "",
            address=token.address,
        )

    def _given(self, found: Mapping[str, Any]) -> Mapping[str, Any]:
        return token_answer(
            access_token=found["access_token"],
            refresh_token=found["refresh_token"],
            scopes=found["scopes"],
            expires_at=found["expires_at"],
            now=self._means.clock(),
        )

    def _refused(self, token: RefreshToken, why: str, words: str = _WORDS) -> OAuthError:
        self._means.tell(
            "refresh", "invalid_grant", client=token.name, server=token.server,
            grant=token.grant, detail=why,
        )  # fmt: skip
        return OAuthError("invalid_grant", words)
