"""The stand-in as an ASGI application: its documents and its OAuth endpoints.

Invariant: every answer carries the header that says it is not for production; status, headers and
members are otherwise those of the recorded Authelia.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from authz_demo.issuer import endpoints
from authz_demo.issuer.errors import ErrorCode, StandInOAuthError
from authz_demo.issuer.metadata import ENDPOINTS, authorization_server, openid_configuration
from authz_demo.issuer.portal import COMPLETION, DECISION, LOGOUT, LoginPortal
from authz_demo.issuer.requests import address, error_response, forwarded, json_response
from authz_demo.issuer.state import StandInIssuer

HEADER = "x-not-for-production"
_TOO_MANY = {
    "error": "temporarily_unavailable",
    "error_description": "Too many requests. The endpoint is temporarily unavailable. "
    "Try again later.",
}
_Endpoint = Callable[[StandInIssuer, Request], Awaitable[Response]]


async def _document(
    request: Request, *, issuer: StandInIssuer, read: Callable[[], Mapping[str, Any]]
) -> Response:
    if not forwarded(request, issuer.config):
        return PlainTextResponse("400 Bad Request", 400)
    # Any origin may read these, but the header is there only where one was sent.
    headers = {"access-control-allow-origin": "*"} if "origin" in request.headers else None
    return json_response(read(), headers=headers)


async def _throttled(
    request: Request, *, issuer: StandInIssuer, name: str, answer: _Endpoint, success: int
) -> Response:
    if not forwarded(request, issuer.config):
        return error_response(StandInOAuthError(ErrorCode.INVALID_REQUEST))
    throttle, caller, now = issuer.throttles[name], address(request), issuer.now()
    if wait := throttle.retry_after(caller, now):
        return json_response(_TOO_MANY, 429, {"retry-after": str(wait)})
    try:
        response = await answer(issuer, request)
    except StandInOAuthError as error:
        response = error_response(error)
    if response.status_code != success:
        throttle.failed(caller, now)
    return response


async def _health(_: Request) -> Response:
    return json_response({"status": "OK"})


async def _plain_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if "Allow" in headers:
        headers["Allow"] = f"OPTIONS, {headers['Allow']}"
    return PlainTextResponse(f"{error.status_code} {error.detail}", error.status_code, headers)


def _routes(issuer: StandInIssuer) -> list[Route]:
    portal, base = LoginPortal(issuer), issuer.config.base
    documents: dict[str, Callable[[], Mapping[str, Any]]] = {
        "/.well-known/oauth-authorization-server": partial(authorization_server, base),
        "/.well-known/openid-configuration": partial(openid_configuration, base),
        "/jwks.json": lambda: issuer.keys.jwks(),  # noqa: PLW0108 - keys may be replaced
    }
    oauth: dict[str, tuple[str, str, _Endpoint, int]] = {
        "token_endpoint": ("token", "POST", endpoints.token, 200),
        "pushed_authorization_request_endpoint": ("pushed", "POST", endpoints.pushed, 201),
        "introspection_endpoint": ("introspection", "POST", endpoints.introspection, 200),
        "revocation_endpoint": ("revocation", "POST", endpoints.revocation, 200),
        "userinfo_endpoint": ("userinfo", "GET", endpoints.userinfo, 200),
    }
    return [
        *(
            Route(path, partial(_document, issuer=issuer, read=read))
            for path, read in documents.items()
        ),
        *(
            Route(
                ENDPOINTS[member],
                partial(_throttled, issuer=issuer, name=name, answer=answer, success=success),
                methods=[method],
            )
            for member, (name, method, answer, success) in oauth.items()
        ),
        Route(ENDPOINTS["authorization_endpoint"], portal.authorization),
        Route("/", portal.login_page),
        Route("/", portal.log_in, methods=["POST"]),
        Route(DECISION, portal.decision_page),
        Route(DECISION, portal.decide, methods=["POST"]),
        Route(COMPLETION, portal.completion),
        Route("/api/health", _health),
        Route(LOGOUT, portal.log_out),
    ]


def _labelled(app: ASGIApp) -> ASGIApp:
    """Put the warning on every answer, those of the framework included."""

    async def labelled(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_labelled(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = "authz demo issuer"
            await send(message)

        await app(scope, receive, send_labelled)

    return labelled


def create_app(issuer: StandInIssuer) -> ASGIApp:
    """Return the application of one issuer."""
    routes: list[BaseRoute] = [*_routes(issuer)]
    if issuer.config.path:
        routes = [Mount(issuer.config.path, routes=routes)]
    app = Starlette(routes=routes, exception_handlers={404: _plain_error, 405: _plain_error})
    return _labelled(app)
