"""The flow in front of the token endpoint: a client's request, the person's consent, Authelia.

Law: a code exists only after, in this order, the request was good, the person clicked on our page
for this very request, and Authelia answered to it, in the same browser and once. Until client and
redirect URI are good, nothing is sent there.
"""

import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from authz.core.ledger import UnavailableError
from authz.login.protocol.authorization import (
    OFFLINE,
    AuthorizationRequest,
    AuthorizationResponse,
    RedirectedOAuthError,
    again,
    check,
    check_same_client,
    gets_refresh,
)
from authz.login.protocol.digests import digest
from authz.login.protocol.granted_audience import OPAQUE, OPAQUE_WORDS, WORDS, audience_fault
from authz.login.protocol.parameters import Parameters, read_parameters
from authz.login.protocol.values import (
    OPAQUE_TOKEN,
    ClientIdentity,
    OAuthError,
    UpstreamAuthorizationRequest,
    UpstreamError,
    UpstreamLogin,
)
from authz.login.service.client_validation import Admission
from authz.login.service.means import Means
from authz.login.service.person_address import person_address
from authz.login.service.rate_limits import DOCUMENTS, LOG_INS
from authz.login.web import error_pages
from authz.login.web.paths import CALLBACK
from authz.login.web.upstream_login import USED, PageError

# What Authelia's answer means to the client (RFC 6749, section 4.1.2.1); all else is
# `server_error`: the request was ours, so its faults are.
_UPSTREAM: Final[Mapping[str, tuple[str, str]]] = {
    "access_denied": ("access_denied", "the person did not log in, or may not"),
    "temporarily_unavailable": ("temporarily_unavailable", "the log-in service is not available"),
}
_SERVER_ERROR: Final = ("server_error", "the log-in service refused the request of the gateway")


@dataclass(frozen=True, slots=True)
class Approved:
    """Say where the browser goes after a consent, and what it keeps meanwhile."""

    url: str
    state: str
    transaction: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Ended:
    """Say where the browser goes at the end, and whose end it is."""

    url: str
    client: ClientIdentity


@dataclass(frozen=True, slots=True)
class _Transaction:
    """Hold what came back: what the browser kept, and the client as it is now."""

    wish: AuthorizationRequest
    client: ClientIdentity
    grant: str
    nonce: str
    verifier: str
    consented_at: int
    answer: AuthorizationResponse
    address: str


class AuthorizationFlow:
    """Take a client's request from its first step to our code."""

    def __init__(self, means: Means) -> None:
        """Take the parts."""
        self._means = means
        self._admission = Admission(means)

    async def ask(self, query: str, address: str) -> tuple[AuthorizationRequest, ClientIdentity]:
        """Return what a client asks for, to be shown to the person at an address.

        Raises:
            PageError: with a page, where client or redirect URI are not good, or where the
                client is nobody's whom an error could be sent to.
            RedirectedOAuthError: with the URL that tells the client.
            TooManyRequestsError: where the address has made us ask too many strangers' hosts.
            UnavailableError: where Redis does not answer.
        """
        try:
            parameters = read_parameters(query)
            client_id = parameters.once("client_id")
            redirect_uri = parameters.once("redirect_uri")
        except OAuthError as refused:
            raise PageError(error_pages.BAD_REQUEST) from refused
        if self._means.clients.fetches(client_id or ""):
            self._means.attempts.pace(DOCUMENTS, address)
        client, identity = await self._admission.admit(client_id or "", redirect_uri or "")
        assert redirect_uri is not None
        try:
            wish = check(parameters, client, identity, self._means.targets)
            offline = gets_refresh(self._means.refresh_tokens, client, parameters.get("scope"))
        except OAuthError as refused:
            self._tell_refused("authorize", identity, refused)
            raise self._admission.told(client, redirect_uri, parameters, refused) from refused
        self._means.tell(
            "authorize", "ok", client=identity.name, server=wish.server, scopes=wish.scopes
        )
        return replace(wish, offline=offline), identity

    async def approve(self, wish: AuthorizationRequest, address: str) -> Approved:
        """Begin the log-in at Authelia that a person has just consented to.

        Raises:
            PageError: with a page.
            RedirectedOAuthError: with the URL that tells the client.
            UnavailableError: where Redis or Authelia do not answer.
        """
        client, identity = await self._admission.admit(wish.client_id, wish.redirect_uri)
        answer = self._answer(wish)
        try:
            wish = again(wish, client, identity, self._means.targets)
            # What was asked for stands in the wish; what the client may have, may have changed.
            offline = wish.offline and gets_refresh(self._means.refresh_tokens, client, OFFLINE)
            wish = replace(wish, offline=offline)
            state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
            asked = self._asked(wish, state, nonce, verifier)
            url = await self._means.upstream.push(asked, address)
        except OAuthError as refused:
            self._tell_refused("consent", identity, refused)
            raise RedirectedOAuthError(answer, refused.error, refused.words) from refused
        except UpstreamError as refused:
            self._means.tell(
                "consent", "server_error", client=identity.name, server=wish.server,
                detail=refused.error, scopes=wish.scopes,
            )  # fmt: skip
            words = f"{_SERVER_ERROR[1]} for the server {wish.server}: {refused.error}"
            raise RedirectedOAuthError(answer, _SERVER_ERROR[0], words) from refused
        # 128 bits: step-ups, revocations and the list of one's log-ins go by it.
        grant = secrets.token_hex(16)
        self._means.tell("consent", "ok", client=identity.name, server=wish.server, grant=grant)
        transaction = {
            "wish": wish.to_json(),
            "grant": grant,
            "nonce": nonce,
            "verifier": verifier,
            "at": int(self._means.clock()),
        }
        return Approved(url, state, transaction)

    async def deny(self, wish: AuthorizationRequest) -> Ended:
        """Return where the browser goes when the person does not agree.

        Raises:
            PageError: with a page, where the client is not good any more.
            UnavailableError: where Redis does not answer.
        """
        _, client = await self._admission.admit(wish.client_id, wish.redirect_uri)
        self._means.tell("consent", "access_denied", client=client.name, server=wish.server)
        url = self._answer(wish).error("access_denied", "the person did not agree")
        return Ended(url, client)

    async def come_back(
        self, transaction: Mapping[str, Any], parameters: Parameters, address: str
    ) -> Ended:
        """Return where the browser goes after Authelia's answer to a transaction of its own.

        Raises:
            PageError: with a page, where it is no answer of Authelia to it, or not the first.
            UnavailableError: where Redis does not answer.
        """
        means, wish = self._means, AuthorizationRequest.from_json(transaction["wish"])
        try:
            # RFC 9207, section 2.4: before anything else is believed, errors included.
            means.upstream.check_iss(parameters.get("iss"))
        except UpstreamError as refused:
            raise PageError(error_pages.FOREIGN) from refused
        if not await means.states.use(parameters.needed("state")):
            raise PageError(USED)
        _, client = await self._admission.admit(wish.client_id, wish.redirect_uri)
        kept = _Transaction(
            wish=wish,
            client=client,
            grant=transaction["grant"],
            nonce=transaction["nonce"],
            verifier=transaction["verifier"],
            consented_at=transaction["at"],
            answer=self._answer(wish),
            address=address,
        )
        url, outcome, detail = await self._ended(kept, parameters)
        means.tell(
            "callback",
            outcome,
            detail=detail,
            client=client.name,
            server=wish.server,
            grant=kept.grant,
            scopes=wish.scopes,
        )
        return Ended(url, client)

    async def _ended(self, kept: _Transaction, parameters: Parameters) -> tuple[str, str, str]:
        """Return where the browser goes, and the outcome and detail for the log.

        The outcome is an error code: it is a label of a metric.
        """
        answer, error = kept.answer, parameters.get("error")
        try:
            check_same_client(kept.wish, kept.client)
        except OAuthError as refused:
            return answer.error(refused.error, refused.words), refused.error, ""
        if error is not None:
            told = _UPSTREAM.get(error, _SERVER_ERROR)
            return answer.error(*told), told[0], ""
        try:
            found = await self._means.upstream.exchange(
                two_factor=kept.wish.two_factor,
                code=parameters.get("code") or "",
                verifier=kept.verifier,
                redirect_uri=self._means.url + CALLBACK,
                nonce=kept.nonce,
                address=kept.address,
            )
        except UpstreamError as refused:
            if refused.error == OPAQUE_TOKEN:
                await self._means.faults.keep(OPAQUE)
                return answer.error("server_error", OPAQUE_WORDS), "server_error", OPAQUE
            return answer.error(*_SERVER_ERROR), "server_error", refused.error
        except UnavailableError as away:
            told = _UPSTREAM["temporarily_unavailable"]
            return answer.error(*told), told[0], away.detail
        if fault := audience_fault(found.tokens.audience, kept.wish.resource):
            await self._means.faults.keep(fault)
            await self._forget(kept, found)
            return answer.error("server_error", WORDS), "server_error", fault
        if self._means.attempts.take_of(LOG_INS, found.identity.subject):
            await self._forget(kept, found)
            told = _UPSTREAM["temporarily_unavailable"]
            return answer.error(*told), told[0], "too many log-ins of one person"
        code = secrets.token_urlsafe(32)
        try:
            await self._issue(code, kept, found)
        except UnavailableError:
            await self._forget(kept, found)
            raise
        return answer.code(code), "ok", ""

    async def _forget(self, kept: _Transaction, found: UpstreamLogin) -> None:
        """End Authelia's tokens, which nobody will ever use."""
        with suppress(UpstreamError, UnavailableError):
            await self._means.upstream.revoke(
                two_factor=kept.wish.two_factor,
                token=found.tokens.refresh_token or found.tokens.access_token,
                address=person_address(self._means.sealer, found.identity.subject),
            )

    async def _issue(self, code: str, kept: _Transaction, found: UpstreamLogin) -> None:
        wish, tokens, who = kept.wish, found.tokens, found.identity
        mark = {
            "grant": kept.grant,
            "subject": who.subject,
            "two_factor": wish.two_factor,
            "token": tokens.refresh_token or tokens.access_token,
            "address": person_address(self._means.sealer, who.subject),
            "name": kept.client.name,
        }
        payload = {
            **mark,
            "client": digest(wish.client_id),
            "redirect_uri": wish.redirect_uri,
            "challenge": wish.challenge,
            "server": wish.server,
            "resource": wish.resource,
            # What Authelia did not grant is not promised (RFC 6749, section 3.3).
            "scopes": sorted(tokens.scopes.intersection(wish.scopes)),
            "restricted": wish.restricted,
            "access_token": tokens.access_token,
            "refresh_token": tokens.refresh_token,
            "expires_at": tokens.expires_at,
            "account": who.account,
            "amr": sorted(who.amr),
            "auth_time": who.auth_time,
            "at": kept.consented_at,
        }
        await self._means.codes.issue(code, payload, mark)

    def _tell_refused(self, step: str, client: ClientIdentity, refused: OAuthError) -> None:
        self._means.tell(
            step,
            refused.error,
            client=client.name,
            server=refused.server,
            scopes=refused.scopes,
            detail=refused.words,
        )

    def _answer(self, wish: AuthorizationRequest) -> AuthorizationResponse:
        return AuthorizationResponse(wish.redirect_uri, wish.state, self._means.url)

    def _asked(
        self, wish: AuthorizationRequest, state: str, nonce: str, verifier: str
    ) -> UpstreamAuthorizationRequest:
        target = self._means.targets.named(wish.server, wish.resource)
        assert target is not None
        return UpstreamAuthorizationRequest(
            two_factor=wish.two_factor,
            redirect_uri=self._means.url + CALLBACK,
            scopes=target.upstream(frozenset(wish.scopes), offline=wish.offline),
            resource=wish.resource,
            state=state,
            nonce=nonce,
            verifier=verifier,
        )
