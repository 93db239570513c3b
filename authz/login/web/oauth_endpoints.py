"""The endpoints that programs speak to: token, revocation, registration, metadata.

Answers are JSON, never cached, and readable from any origin without cookies. The client is checked
before any other parameter is looked at (RFC 6749, section 5.2): it is public, or authenticates with
a key that its metadata document publishes.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from authz.core.ledger import UnavailableError
from authz.login.protocol.parameters import read_parameters
from authz.login.protocol.values import OAuthError
from authz.login.service.client_authentication import ClientAuthenticator, ClientRequest
from authz.login.service.code_exchange import CodeExchange
from authz.login.service.means import Means
from authz.login.service.refresh import TokenRefresh
from authz.login.service.revocation import TokenRevocation
from authz.login.web import paths
from authz.login.web.error_pages import ErrorPage, PageError
from authz.login.web.requests import address_of, content_type, read_body

_FORM: Final = "application/x-www-form-urlencoded"
_JSON: Final = "application/json"
_ORIGINS: Final = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "retry-after, www-authenticate",
    "X-Content-Type-Options": "nosniff",
}
_PREFLIGHT: Final = {
    "Access-Control-Allow-Headers": "accept, authorization, content-type, mcp-protocol-version",
    "Access-Control-Max-Age": "7200",
}
# RFC 6749, section 5.1.
_NOT_KEPT: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}
_A_MINUTE: Final = {"Cache-Control": "public, max-age=60"}
_CREATED: Final = 201
_UNAUTHORIZED: Final = 401
_AWAY: Final = 503

# Whose answers are read by programs, whatever goes wrong.
PROGRAMS: Final = frozenset({paths.TOKEN, paths.REVOKE, paths.REGISTER})
_ERRORS: Final = {
    429: "temporarily_unavailable",
    503: "temporarily_unavailable",
    500: "server_error",
}

Answer = Mapping[str, object]
Handler = Callable[[Request], Awaitable[Response]]


class OAuthEndpoints:
    """Answer programs."""

    def __init__(self, means: Means, document: Answer, refreshing: TokenRefresh) -> None:
        """Take the parts, the metadata, and what refreshes."""
        self._means = means
        self._document = document
        self._refreshing = refreshing
        self._exchanging = CodeExchange(means)
        self._revoking = TokenRevocation(means)
        self._authenticating = ClientAuthenticator(means)

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            self._route(paths.TOKEN, self.token, "POST"),
            self._route(paths.REVOKE, self.revoke, "POST"),
            self._route(paths.REGISTER, self.register, "POST"),
            self._route(paths.METADATA, self.metadata, "GET"),
        ]

    async def token(self, request: Request) -> Response:
        """Give tokens (RFC 6749, section 3.2)."""
        found = await self._form(request, "token")
        return _answered(await self._granted(found, _address(request)))

    async def revoke(self, request: Request) -> Response:
        """End a token (RFC 7009)."""
        parameters, authenticated = await self._form(request, "revoke")
        await self._revoking.revoke(parameters, authenticated=authenticated)
        return _answered({})

    async def register(self, request: Request) -> Response:
        """Register a client (RFC 7591, section 3.1)."""
        if content_type(request) != _JSON:
            raise OAuthError("invalid_client_metadata", "the metadata has to be JSON")
        answer = self._means.registers.register(await read_body(request))
        self._means.tell("register", "ok")
        return _answered(answer, _CREATED)

    async def metadata(self, request: Request) -> Response:  # noqa: ARG002 - one for all
        """Say what there is (RFC 8414)."""
        return JSONResponse(self._document, headers=_ORIGINS | _A_MINUTE)

    def _route(self, path: str, handler: Handler, method: str) -> Route:
        async def answer(request: Request) -> Response:
            if request.method == "OPTIONS":
                allowed = {"Access-Control-Allow-Methods": f"{method}, OPTIONS"}
                return Response(status_code=204, headers=_ORIGINS | _PREFLIGHT | allowed)
            try:
                return await handler(request)
            except OAuthError as refused:
                body = {"error": refused.error, "error_description": refused.words}
                return JSONResponse(body, refused.status, _ORIGINS | _NOT_KEPT | refused.headers)
            except UnavailableError as away:
                detail = f"{away.dependency}: {away.detail}"
                self._means.tell(path.removeprefix("/"), "unavailable", detail=detail)
                return _unavailable(away)

        return Route(path, answer, methods=[method, "OPTIONS"])

    async def _form(self, request: Request, step: str) -> ClientRequest:
        """Return the parameters of a request whose client is known here.

        A program that is told `invalid_client` registers anew by itself (the official TypeScript
        client does). With `invalid_grant` it would come again and again with an id that a new
        sealing key, for one, has ended.

        Raises:
            OAuthError: `invalid_client` for a client that is not known, or that does not
                authenticate as it has to; `invalid_request` where it is no form, names no client,
                or has a parameter twice.
            TooManyRequestsError: where strangers' hosts would be asked too often.
            UnavailableError: where Redis does not answer.
        """
        if content_type(request) != _FORM:
            raise OAuthError("invalid_request", "the body has to be a form")
        body = await read_body(request)
        parameters = read_parameters(body.decode("latin-1"))
        if "authorization" in request.headers:
            headers = {"WWW-Authenticate": 'Basic realm="authz"'}
            raise OAuthError("invalid_client", _NO_SECRETS, _UNAUTHORIZED, headers)
        try:
            found = await self._authenticating.authenticate(parameters, partial(_address, request))
        except OAuthError as refused:
            self._means.tell(step, refused.error, detail=refused.words)
            raise
        found.parameters.check_repeated()
        return found

    async def _granted(self, found: ClientRequest, address: str) -> Answer:
        parameters, authenticated = found
        match parameters.needed("grant_type"):
            case "authorization_code":
                return await self._exchanging.exchange(parameters, authenticated=authenticated)
            case "refresh_token":
                return await self._refreshing.refresh(
                    parameters, address, authenticated=authenticated
                )
        raise OAuthError("unsupported_grant_type", "only codes and refresh tokens are taken")


_NO_SECRETS: Final = "no client has a secret here: send client_id alone, or a client_assertion"


def _address(request: Request) -> str:
    """Return the address of who asks.

    Raises:
        OAuthError: where Envoy did not write one.
    """
    try:
        return address_of(request)
    except PageError as error:
        raise OAuthError("invalid_request", "not through the gateway") from error


def _unavailable(away: UnavailableError) -> Response:
    """Return the answer where something did not answer: try again, nothing was decided."""
    body = {
        "error": "temporarily_unavailable",
        "error_description": "something that the gateway needs does not answer",
    }
    wait = "1" if away.dependency == "redis" else "5"
    return JSONResponse(body, _AWAY, _ORIGINS | _NOT_KEPT | {"Retry-After": wait})


def program_problem(problem: ErrorPage) -> Response:
    """Return a problem as programs read it (RFC 6749, section 5.2)."""
    body = {
        "error": _ERRORS.get(problem.status, "invalid_request"),
        "error_description": problem.happened,
    }
    return JSONResponse(body, problem.status, _ORIGINS | _NOT_KEPT)


def _answered(answer: Answer, status: int = 200) -> Response:
    content: dict[str, Any] = dict(answer)
    return JSONResponse(content, status, _ORIGINS | _NOT_KEPT)
