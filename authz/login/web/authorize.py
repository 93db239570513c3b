"""The authorization endpoint (RFC 6749, section 3.1): consent page, log-in at Authelia, our code.

Invariant: a code is issued only after, in this order, the request was valid, the person clicked on
our page for this very request, and Authelia answered to it, in the same browser and once. Until
client and redirect URI are known to be good, nothing is sent there. Showing a page changes nothing
and sets nothing but what ties its form to the browser.
"""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Final
from urllib.parse import urlencode, urlsplit

from pydantic import ConfigDict
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from authz.config.model import RefreshTokens
from authz.core.ledger import UnavailableError
from authz.login.protocol.authorization import (
    AUTHORIZATION_REQUEST,
    CONSENT,
    OFFLINE,
    AuthorizationRequest,
    AuthorizationResponse,
    Consent,
    RedirectedOAuthError,
    authorization_code,
    check_same_client,
    issues_refresh_token,
    leave_out,
    read_request,
    revalidate,
)
from authz.login.protocol.granted_audience import (
    OPAQUE_WORDS,
    WORDS,
    TokenFault,
    audience_fault,
)
from authz.login.protocol.members import STRICT
from authz.login.protocol.parameters import read_parameters
from authz.login.protocol.resources import ResourceServers
from authz.login.protocol.values import (
    OPAQUE_TOKEN,
    ClientIdentity,
    OAuthError,
    UpstreamError,
    UpstreamLogin,
)
from authz.login.service import ports
from authz.login.service.rate_limits import DOCUMENTS, LOG_INS, PAGES, LoginRateLimiter
from authz.login.store.codes import CodeStore, LoginFaults
from authz.login.store.person_address import person_address
from authz.login.web import error_pages, paths
from authz.login.web.client_validation import ClientValidator
from authz.login.web.cookies import (
    BrowserCookies,
    CookieTooLargeError,
    NotThisBrowserError,
    Purpose,
    purpose,
    read_form,
)
from authz.login.web.error_pages import ErrorResponder, PageError
from authz.login.web.rendering import Pages, redirect
from authz.login.web.requests import address_of, set_attempt
from authz.login.web.scope_list import unwanted_scopes
from authz.login.web.upstream_login import AcceptedResponse, BrowserLogins, login_kind
from authz.tokens.sealing import Sealer

_APPROVE: Final = "approve"
_LEFT_OUT: Final = "the person left scopes out"
# What Authelia's answer means to the client (RFC 6749, section 4.1.2.1); all else is
# `server_error`: the request was ours, so its faults are.
_UPSTREAM: Final[Mapping[str, tuple[str, str]]] = {
    "access_denied": ("access_denied", "the person did not log in, or may not"),
    "temporarily_unavailable": ("temporarily_unavailable", "the log-in service is not available"),
}
_SERVER_ERROR: Final = ("server_error", "the log-in service refused the request of the gateway")


@dataclass(frozen=True, slots=True)
class _CallbackEnd:
    """How a log-in ends.

    Attributes:
        url: the redirect URI, with a code or an error.
        outcome: `ok` or the error code: a metric's label.
        detail: for the log.
    """

    url: str = field(repr=False)
    outcome: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class _WayBack:
    """Where a page leads that opens the program of a private scheme."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    url: str
    claim: str


_FORM: Final = Purpose("consent", AUTHORIZATION_REQUEST.write, AUTHORIZATION_REQUEST.read)
_LOGIN: Final = login_kind("log-in", paths.CALLBACK, CONSENT.write, CONSENT.read)
_WAY_BACK: Final = purpose("back", _WayBack, is_page=True)


class AuthorizationEndpoint:
    """Take a client's request from its first step to our code."""

    def __init__(
        self,
        issuer: str,
        *,
        servers: ResourceServers,
        clients: ports.ClientFinder,
        validator: ClientValidator,
        codes: CodeStore,
        faults: LoginFaults,
        limiter: LoginRateLimiter,
        sealer: Sealer,
        refresh_tokens: RefreshTokens,
        logins: BrowserLogins,
        cookies: BrowserCookies,
        pages: Pages,
        errors: ErrorResponder,
        clock: Callable[[], float],
        log: ports.StepLog,
    ) -> None:
        self._issuer = issuer
        self._servers = servers
        self._clients = clients
        self._validator = validator
        self._codes = codes
        self._faults = faults
        self._limiter = limiter
        self._sealer = sealer
        self._refresh_tokens = refresh_tokens
        self._clock = clock
        self._log = log
        self._logins = logins
        self._cookies = cookies
        self._pages = pages
        self._errors = errors

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route(paths.AUTHORIZE, self.authorize, methods=["GET"]),
            Route(paths.CONSENT, self.consent, methods=["POST"]),
            Route(paths.CALLBACK, self.callback, methods=["GET"]),
            Route(paths.BACK, self.back, methods=["GET"]),
        ]

    async def authorize(self, request: Request) -> Response:
        """Ask the person (RFC 6749, section 3.1): every time, before Authelia is asked."""
        address = address_of(request)
        self._limiter.check(PAGES, address)
        try:
            query = request.scope["query_string"].decode("latin-1")
            wanted, client = await self._read(query, address)
        except RedirectedOAuthError as error:
            return redirect(error.url)
        server = self._servers.named(wanted.server, wanted.resource)
        assert server is not None
        # The request waits in the form itself, sealed, for this browser alone.
        token, cookie = self._cookies.form_token(request, _FORM, wanted)
        return self._pages.consent(wanted, client, server, token, cookie)

    async def consent(self, request: Request) -> Response:
        """Take the person's decision."""
        form = await read_form(request)
        wanted = self._cookies.check_post(request, form, _FORM)
        set_attempt(wanted.client_id, wanted.challenge)
        # Whatever is not the one word is no consent.
        if form.get("decision") != _APPROVE:
            return await self._deny(wanted)
        self._logins.check_rate(request)
        try:
            return await self._begin(request, wanted, unwanted_scopes(wanted, form))
        except RedirectedOAuthError as error:
            return self._pages.go_back(error.url, "", alone=False)

    async def callback(self, request: Request) -> Response:
        """Take Authelia's response (RFC 6749, section 4.1.2)."""
        try:
            accepted = await self._logins.accept(request, _LOGIN)
            consent = accepted.login.context
            wanted = consent.request
            set_attempt(wanted.client_id, wanted.challenge)
            _, client = await self._validator.validate(wanted.client_id, wanted.redirect_uri)
            end = await self._finish(request, accepted, client)
        except PageError as error:
            return self._errors.redirect_to_error(request, error.page)
        self._log(
            "callback",
            end.outcome,
            detail=end.detail,
            client=client.name,
            server=wanted.server,
            grant=consent.grant_id,
            scopes=wanted.scopes,
        )
        response = self._to_client(request, end.url, client)
        self._cookies.end_login(request, response, accepted.state)
        return response

    async def back(self, request: Request) -> Response:
        """Open the program of a private scheme that a log-in was for."""
        try:
            way = self._cookies.read(request, request.query_params.get("of", ""), _WAY_BACK)
        except NotThisBrowserError:
            return self._errors.show(request, error_pages.GONE)
        return self._pages.go_back(way.url, way.claim)

    async def _read(self, query: str, address: str) -> tuple[AuthorizationRequest, ClientIdentity]:
        """Return what a client asks for, to be shown to the person at an address.

        Raises:
            PageError: where client or redirect URI are not good, or where the client is nobody's
                whom an error could be sent to.
            RedirectedOAuthError: with the URL that tells the client.
            TooManyRequestsError: where the address has made us ask too many strangers' hosts.
            UnavailableError: where Redis does not answer.
        """
        try:
            parameters = read_parameters(query)
            client_id = parameters.once("client_id") or ""
            redirect_uri = parameters.once("redirect_uri") or ""
        except OAuthError as error:
            raise PageError(error_pages.BAD_REQUEST) from error
        set_attempt(client_id, parameters.get("code_challenge") or "")
        if self._clients.fetches(client_id):
            self._limiter.check(DOCUMENTS, address)
        client, identity = await self._validator.validate(client_id, redirect_uri)
        try:
            wanted = read_request(parameters, client, identity, self._servers)
            offline = issues_refresh_token(self._refresh_tokens, client, parameters.get("scope"))
        except OAuthError as error:
            self._log_error("authorize", identity, error)
            raise self._validator.error_redirect(client, redirect_uri, parameters, error) from error
        self._log(
            "authorize", "ok", client=identity.name, server=wanted.server, scopes=wanted.scopes,
            detail=client.kind.value,
        )  # fmt: skip
        return replace(wanted, offline=offline), identity

    async def _deny(self, wanted: AuthorizationRequest) -> Response:
        _, client = await self._validator.validate(wanted.client_id, wanted.redirect_uri)
        self._log("consent", "access_denied", client=client.name, server=wanted.server)
        url = self._response(wanted).error("access_denied", "the person did not agree")
        return self._pages.go_back(url, client.client_name, alone=False)

    async def _begin(
        self, request: Request, wanted: AuthorizationRequest, unwanted: frozenset[str]
    ) -> Response:
        """Begin the log-in at Authelia that a person has just consented to, but for some scopes.

        Raises:
            PageError: where the client is not good any more.
            RedirectedOAuthError: with the URL that tells the client.
            UnavailableError: where Redis or Authelia do not answer.
        """
        client, identity = await self._validator.validate(wanted.client_id, wanted.redirect_uri)
        response = self._response(wanted)
        # 128 bits: step-ups, revocations and the list of a person's sessions go by it.
        grant = secrets.token_hex(16)
        try:
            wanted = revalidate(wanted, client, identity, self._servers)
            # What was asked for stands in the request; what the client may have may have changed.
            offline = wanted.offline and issues_refresh_token(self._refresh_tokens, client, OFFLINE)
            wanted = replace(wanted, offline=offline)
            target = self._servers.named(wanted.server, wanted.resource)
            assert target is not None
            asked = wanted.scopes
            wanted = leave_out(wanted, unwanted, target)
            page = await self._logins.begin(
                request,
                _LOGIN,
                Consent(wanted, grant, int(self._clock())),
                two_factor=wanted.two_factor,
                scopes=target.upstream(frozenset(wanted.scopes), offline=offline),
                resource=wanted.resource,
            )
        except OAuthError as error:
            self._log_error("consent", identity, error)
            raise RedirectedOAuthError(response, error.error, error.description) from error
        except UpstreamError as error:
            self._log(
                "consent", "server_error", client=identity.name, server=wanted.server,
                detail=error.error, scopes=wanted.scopes,
            )  # fmt: skip
            description = f"{_SERVER_ERROR[1]} for the server {wanted.server}: {error.error}"
            raise RedirectedOAuthError(response, _SERVER_ERROR[0], description) from error
        self._log(
            "consent", "ok", client=identity.name, server=wanted.server, grant=grant,
            scopes=wanted.scopes, detail="" if wanted.scopes == asked else _LEFT_OUT,
        )  # fmt: skip
        return page

    async def _finish(
        self, request: Request, accepted: AcceptedResponse[Consent], client: ClientIdentity
    ) -> _CallbackEnd:
        """Return how a log-in ends.

        In this order: the client is the one that the page named, Authelia's error, its code for
        tokens, their audience, the person's rate, and last our own code. Tokens that were verified
        and lead to no code are revoked.
        """
        consent = accepted.login.context
        wanted = consent.request
        response = self._response(wanted)
        try:
            check_same_client(wanted, client)
        except OAuthError as error:
            return _CallbackEnd(response.error(error.error, error.description), error.error)
        if accepted.error is not None:
            said = _UPSTREAM.get(accepted.error, _SERVER_ERROR)
            return _CallbackEnd(response.error(*said), said[0])
        try:
            found = await self._logins.redeem(
                request, _LOGIN, accepted, two_factor=wanted.two_factor
            )
        except UpstreamError as error:
            if error.error == OPAQUE_TOKEN:
                await self._faults.keep(TokenFault.OPAQUE)
                url = response.error("server_error", OPAQUE_WORDS)
                return _CallbackEnd(url, "server_error", TokenFault.OPAQUE)
            return _CallbackEnd(response.error(*_SERVER_ERROR), "server_error", error.error)
        except UnavailableError as error:
            said = _UPSTREAM["temporarily_unavailable"]
            return _CallbackEnd(response.error(*said), said[0], error.detail)
        if fault := audience_fault(found.tokens.audience, wanted.resource):
            await self._faults.keep(fault)
            await self._revoke(wanted, found)
            return _CallbackEnd(response.error("server_error", WORDS), "server_error", fault)
        if self._limiter.count_attempt_of(LOG_INS, found.identity.subject):
            await self._revoke(wanted, found)
            said = _UPSTREAM["temporarily_unavailable"]
            return _CallbackEnd(response.error(*said), said[0], "too many log-ins of one person")
        code = secrets.token_urlsafe(32)
        address = person_address(self._sealer, found.identity.subject)
        try:
            await self._codes.issue(code, authorization_code(consent, client, found, address))
        except UnavailableError:
            await self._revoke(wanted, found)
            raise
        return _CallbackEnd(response.code(code), "ok")

    async def _revoke(self, wanted: AuthorizationRequest, found: UpstreamLogin) -> None:
        """Revoke Authelia's tokens, which nobody will ever use."""
        address = person_address(self._sealer, found.identity.subject)
        token = found.tokens.refresh_token or found.tokens.access_token
        await self._logins.revoke(token, address, two_factor=wanted.two_factor)

    def _to_client(self, request: Request, url: str, client: ClientIdentity) -> Response:
        if urlsplit(url).scheme in ("http", "https"):
            return redirect(url)
        # A page has to stay here; not at the callback's address, which histories would keep.
        key = secrets.token_urlsafe(32)
        response = redirect(f"{self._issuer}{paths.BACK}?{urlencode({'of': key})}")
        try:
            self._cookies.keep(request, response, key, _WAY_BACK, _WayBack(url, client.client_name))
        except CookieTooLargeError:
            # Its state is as long as can be, and of signs that take three in a URL: Authelia's
            # code, which was used already, is less of a loss than the log-in.
            return self._pages.go_back(url, client.client_name)
        return response

    def _log_error(self, step: str, client: ClientIdentity, error: OAuthError) -> None:
        self._log(
            step,
            error.error,
            client=client.name,
            server=error.server,
            scopes=error.scopes,
            detail=error.description,
        )

    def _response(self, wanted: AuthorizationRequest) -> AuthorizationResponse:
        return AuthorizationResponse(wanted.redirect_uri, wanted.state, self._issuer)
