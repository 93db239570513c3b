"""Client authentication at the endpoints for programs (RFC 6749, section 2.3; RFC 7521).

A client is public, or its metadata document names keys and it authenticates with them at every
request. Which of both is known before anything else is looked at where the document is at hand, or
where the client sends an assertion; else where the grant is (`check_authenticated`), so that junk
from strangers makes us ask nobody's host.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final, NamedTuple

from authz.login.clients.assertions import JWT_BEARER, InvalidAssertionError, client_of
from authz.login.clients.lookup import PAUSE, DocumentError
from authz.login.protocol.parameters import Parameters
from authz.login.protocol.values import OAuthClient, OAuthError
from authz.login.service import ports
from authz.login.service.rate_limits import (
    ASSERTIONS,
    DOCUMENTS,
    LoginRateLimiter,
    TooManyRequestsError,
)
from authz.login.store.codes import UsedAssertions

_UNAUTHORIZED: Final = 401
_UNAVAILABLE: Final = 503
_ASSERTION: Final = "client_assertion"
_TYPE: Final = "client_assertion_type"
_PUBLIC: Final = "this client is public here: send client_id alone"
_ONLY_KEYS: Final = "no client has a secret here"
_KEY: Final = "this client has to authenticate with private_key_jwt, as its document declares"


class ClientRequest(NamedTuple):
    """Hold a request of a client that is known here.

    Attributes:
        parameters: with the client_id.
        authenticated: whether the client has proved that it is this one.
    """

    parameters: Parameters
    authenticated: bool


class ClientAuthenticator:
    """Authenticate clients."""

    def __init__(
        self,
        clients: ports.ClientFinder,
        assertions: ports.AssertionVerifier,
        used: UsedAssertions,
        limiter: LoginRateLimiter,
    ) -> None:
        self._clients = clients
        self._assertions = assertions
        self._used = used
        self._limiter = limiter

    async def authenticate(
        self, parameters: Parameters, address: Callable[[], str]
    ) -> ClientRequest:
        """Return whose request it is.

        Args:
            parameters: of the request.
            address: whose hosts are asked for what is not at hand.

        Raises:
            OAuthError: `invalid_client` for a client that is not known, or does not prove what
                it has to; `temporarily_unavailable` where its keys cannot be had.
            TooManyRequestsError: where an address, or a document's host, has to wait.
            UnavailableError: where Redis does not answer.
        """
        assertion = parameters.once(_ASSERTION)
        client_id = (
            parameters.once("client_id")
            or self._named_by(assertion)
            or parameters.needed("client_id")
        )
        clients = self._clients
        clients.recognize(client_id)
        if parameters.get("client_secret") is not None:
            raise _invalid(_ONLY_KEYS)
        known = replace(parameters, values={**parameters.values, "client_id": client_id})
        if assertion is None and parameters.get(_TYPE) is None:
            if not clients.fetches(client_id):
                check_authenticated(await self._found(client_id), authenticated=False)
            return ClientRequest(known, authenticated=False)
        if assertion is None or parameters.once(_TYPE) != JWT_BEARER:
            raise _invalid("client_assertion has to be a JWT, and client_assertion_type say so")
        if clients.fetches(client_id):
            self._limiter.check(DOCUMENTS, address())
        await self._check(await clients.find(client_id), assertion, address)
        return ClientRequest(known, authenticated=True)

    def _named_by(self, assertion: str | None) -> str | None:
        if assertion is None:
            return None
        try:
            return client_of(assertion)
        except InvalidAssertionError as error:
            raise _invalid(error.description) from error

    async def _found(self, client_id: str) -> OAuthClient | None:
        """Return a client that is at hand; None where its document is of no use by now."""
        try:
            return await self._clients.find(client_id)
        except OAuthError:
            return None

    async def _check(self, client: OAuthClient, assertion: str, address: Callable[[], str]) -> None:
        if client.authentication is None:
            raise _invalid(_PUBLIC)
        if self._assertions.fetches(client):
            self._limiter.check(DOCUMENTS, address())
        try:
            verified = await self._assertions.verify(client, assertion)
        except InvalidAssertionError as error:
            raise _invalid(error.description) from error
        except DocumentError as error:
            description = f"the key set of the client is of no use: {error.description}"
            if not error.fault.passing:
                raise _invalid(description) from error
            headers = {"Retry-After": str(int(PAUSE))}
            raise OAuthError(
                "temporarily_unavailable", description, _UNAVAILABLE, headers
            ) from error
        # Each leaves its id in Redis: so many of one host, whose key has signed them.
        seconds = self._limiter.count_attempt_of(ASSERTIONS, client.document_host)
        if seconds:
            raise TooManyRequestsError(seconds)
        if not await self._used.use(client.client_id, verified.token_id, verified.lifetime):
            raise _invalid("the assertion was used before")


def check_authenticated(client: OAuthClient | None, *, authenticated: bool) -> None:
    """Refuse a client that has to authenticate, and has not.

    Raises:
        OAuthError: `invalid_client`.
    """
    if client is not None and client.authentication is not None and not authenticated:
        raise _invalid(_KEY)


def _invalid(description: str) -> OAuthError:
    return OAuthError("invalid_client", description, _UNAUTHORIZED)
