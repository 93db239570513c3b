"""The pages of a log-in: a client sends the browser, the person decides, Authelia sends it back.

Law: showing a page changes nothing and sets nothing but what ties its form to the browser; only a
click on our own page begins a transaction, and only the browser that clicked ends it.
"""

import secrets
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from authz.core.limits import Limit
from authz.login.protocol.authorization import AuthorizationRequest, RedirectedOAuthError
from authz.login.protocol.parameters import Parameters, read_parameters
from authz.login.protocol.values import OAuthError
from authz.login.service.authorization import AuthorizationFlow, Ended
from authz.login.service.rate_limits import APPROVALS, PAGES, LoginRateLimiter
from authz.login.web import error_pages, paths
from authz.login.web.cookies import (
    CONSENT,
    NotThisBrowserError,
    TransactionTooLargeError,
    read_form,
)
from authz.login.web.rendering import Consent, redirect
from authz.login.web.requests import address_of
from authz.login.web.upstream_login import (
    GONE,
    NOT_THIS_BROWSER,
    SPENT,
    PageError,
    Parts,
    aside,
    missing,
)

_APPROVE: Final = "approve"
_LOG_IN: Final = "log-in"
_BACK: Final = "back"
# What leaves the transaction as it is: the true answer may still come.
_IN_PLACE: Final = (error_pages.FOREIGN, error_pages.MALFORMED_ANSWER, NOT_THIS_BROWSER, SPENT)


class BrowserEndpoints:
    """Answer browsers."""

    def __init__(self, door: AuthorizationFlow, parts: Parts, attempts: LoginRateLimiter) -> None:
        """Take the flow, the pages, and the paces."""
        self._door = door
        self._parts = parts
        self._attempts = attempts

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
        self._pace(PAGES, request)
        try:
            query = request.scope["query_string"].decode("latin-1")
            wish, client = await self._door.ask(query, address_of(request))
        except RedirectedOAuthError as error:
            return redirect(error.url)
        consent = Consent(
            client, wish.server, wish.resource, wish.scopes, wish.two_factor, wish.offline
        )
        # The request waits in the form itself, sealed, for this browser alone.
        token, cookie = self._parts.browser.form_token(request, CONSENT, wish.to_json())
        return self._parts.pages.consent(consent, token, cookie)

    async def consent(self, request: Request) -> Response:
        """Take the person's decision."""
        form = await read_form(request)
        try:
            wish = AuthorizationRequest.from_json(
                self._parts.browser.check_post(request, form, CONSENT)
            )
        except NotThisBrowserError as error:
            raise PageError(NOT_THIS_BROWSER) from error
        # Whatever is not the one word is no consent.
        if form.get("decision") != _APPROVE:
            ended = await self._door.deny(wish)
            return self._parts.pages.go_back(ended.url, ended.client.title, alone=False)
        self._pace(APPROVALS, request)
        try:
            approved = await self._door.approve(wish, address_of(request))
        except RedirectedOAuthError as error:
            return self._parts.pages.go_back(error.url, "", alone=False)
        response = self._parts.pages.go_on(approved.url)
        try:
            self._parts.browser.begin(
                response, approved.state, approved.transaction, _LOG_IN, request
            )
        except TransactionTooLargeError as error:
            raise PageError(error_pages.TOO_LARGE) from error
        return response

    async def callback(self, request: Request) -> Response:
        """Take Authelia's answer (RFC 6749, section 4.1.2)."""
        try:
            state, parameters, transaction = self._answer(request)
            ended = await self._door.come_back(transaction, parameters, address_of(request))
            response = self._leave(request, ended)
        except PageError as error:
            if error.problem in _IN_PLACE:
                raise
            # At an address of its own: the callback's holds a code, and histories keep addresses.
            return aside(self._parts, request, error.problem)
        self._parts.browser.end(request, response, state)
        return response

    def _answer(self, request: Request) -> tuple[str, Parameters, Mapping[str, object]]:
        try:
            parameters = read_parameters(request.scope["query_string"].decode("latin-1"))
            parameters.check_repeated()
            state = parameters.needed("state")
        except OAuthError as error:
            raise PageError(error_pages.MALFORMED_ANSWER) from error
        try:
            return state, parameters, self._parts.browser.take(request, state, _LOG_IN)
        except NotThisBrowserError as error:
            raise PageError(missing(self._parts, request, state)) from error

    async def back(self, request: Request) -> Response:
        """Open the program of a private scheme that a log-in was for."""
        try:
            kept = self._parts.browser.take(request, request.query_params.get("of", ""), _BACK)
        except NotThisBrowserError:
            return self._parts.problem(request, GONE)
        return self._parts.pages.go_back(kept["url"], kept["claim"])

    def _leave(self, request: Request, ended: Ended) -> Response:
        if urlsplit(ended.url).scheme in ("http", "https"):
            return redirect(ended.url)
        # A page has to stay here; not at the callback's address, which histories would keep.
        name, claim = secrets.token_urlsafe(32), ended.client.title
        response = redirect(f"{self._parts.origin}{paths.BACK}?{urlencode({'of': name})}")
        try:
            kept = {"url": ended.url, "claim": claim}
            self._parts.browser.begin(response, name, kept, _BACK, request)
        except TransactionTooLargeError:
            # Its state is as long as can be, and of signs that take three in a URL: Authelia's
            # code, which was used already, is less of a loss than the log-in.
            return self._parts.pages.go_back(ended.url, claim)
        return response

    def _pace(self, limit: Limit, request: Request) -> None:
        self._attempts.pace(limit, address_of(request))
