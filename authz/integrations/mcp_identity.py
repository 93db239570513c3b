"""Tell the official Python SDK who calls an MCP server that stands behind authz.

The gateway removes the token, so the SDK sees no caller and binds neither sessions nor the
`requestState` of 2026-07-28 to anybody. This middleware makes the SDK's authenticated user of what
the gateway says of the caller:

    app = GatewayIdentity(server.streamable_http_app())

Then `mcp.server.auth.middleware.auth_context.get_access_token()` tells who calls, too. It believes
the headers `x-authz-*`, which is right where only the gateway reaches the server. Where others
might, let the gateway sign them (`servers.<server>.identity: signed`) and check the signature:

    app = GatewayIdentity(
        server.streamable_http_app(),
        Assertions("/etc/authz-identity.json", "https://mcp.example.com", "notes' URL"),
    )

This file needs nothing of authz: copy it beside your server. It needs the SDK (`mcp`), of which it
works with 1.30 and 2.x; PyJWT, for signatures, comes with the SDK.

Invariant: a request without exactly one whole identity never reaches the server as somebody.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import unquote
from urllib.request import urlopen

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
App = Callable[[Scope, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Any]

_PREFIX: Final = b"x-authz-"
_ASSERTION: Final = "identity"
_TYPE: Final = "authz-identity+jwt"
_ALGORITHMS: Final = ("ES256", "RS256")
_PATIENCE: Final = 5.0  # seconds for the keys
_COOLDOWN: Final = 10.0  # seconds between two fetches of them


class IdentityError(Exception):
    """Say that a request has no identity that can be believed."""


@dataclass(frozen=True)
class Caller:
    """Hold who calls, as the gateway says.

    Attributes:
        issuer: who knows the person and the client.
        subject: the person; None for a client without one.
        client: the client.
        scopes, groups: what the token grants of this server; the person's groups.
    """

    issuer: str
    subject: str | None
    client: str
    scopes: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


class Verify(Protocol):
    """Check what the gateway signed."""

    async def __call__(self, assertion: str) -> Caller:
        """Return who calls.

        Raises:
            IdentityError: where the assertion cannot be believed.
        """
        ...


class Assertions:
    """Verify the gateway's signed identity (`x-authz-identity`)."""

    def __init__(self, keys: str | Mapping[str, Any], issuer: str, audience: str) -> None:
        """Take the keys.

        Args:
            keys: the gateway's key set (`authz identity-keys`): itself, a file's path, or a URL
                inside. A file or URL is read again, at most every ten seconds, where a
                key is new.
            issuer: `gateway.url` of authz.yaml.
            audience: this server's public URL.
        """
        self._place = keys if isinstance(keys, str) else None
        self._keys: Mapping[str, Any] | None = None if isinstance(keys, str) else keys
        self._issuer, self._audience = issuer, audience
        self._read_at = -_COOLDOWN
        self._lock = asyncio.Lock()

    async def __call__(self, assertion: str) -> Caller:
        """Return who calls.

        Raises:
            IdentityError: where the assertion cannot be believed.
        """
        import jwt  # noqa: PLC0415 - who takes the headers needs no PyJWT

        try:
            header = jwt.get_unverified_header(assertion)
            if header.get("typ") != _TYPE or header.get("alg") not in _ALGORITHMS:
                raise IdentityError("not a signed identity")
            key = await self._key(header.get("kid"), header["alg"])
            claims = jwt.decode(
                assertion,
                key,
                algorithms=[header["alg"]],
                issuer=self._issuer,
                audience=self._audience,
                options={"require": ["exp", "iat", "iss", "aud", "client_id", "idp"]},
                leeway=10,
            )
        except jwt.PyJWTError as error:
            raise IdentityError(type(error).__name__) from error
        return Caller(
            _text(claims["idp"]),
            None if claims.get("sub") is None else _text(claims["sub"]),
            _text(claims["client_id"]),
            tuple(_text(claims.get("scope", "")).split()),
            tuple(map(_text, claims.get("groups", ()))),
        )

    async def _key(self, kid: object, algorithm: str) -> Any:
        from jwt import PyJWK  # noqa: PLC0415 - as above

        async with self._lock:
            found = self._find(kid)
            now = asyncio.get_running_loop().time()
            if found is None and self._place is not None and now - self._read_at >= _COOLDOWN:
                self._read_at = now
                try:
                    self._keys = await asyncio.to_thread(_read, self._place)
                except (OSError, ValueError) as error:
                    raise IdentityError("the gateway's keys cannot be read") from error
                found = self._find(kid)
        if found is None or found.get("alg") != algorithm:
            raise IdentityError("a key that the gateway does not have")
        return PyJWK(dict(found)).key

    def _find(self, kid: object) -> Mapping[str, Any] | None:
        keys = () if self._keys is None else self._keys.get("keys", ())
        return next((each for each in keys if kid and each.get("kid") == kid), None)


def _read(place: str) -> Mapping[str, Any]:
    if place.startswith(("http://", "https://")):
        with urlopen(place, timeout=_PATIENCE) as answer:  # noqa: S310 - of these two schemes
            found = json.loads(answer.read())
    else:
        found = json.loads(Path(place).read_text("utf-8"))
    if not isinstance(found, dict):
        raise ValueError("not a key set")  # noqa: TRY004 - what is read, not who reads it
    return found


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise IdentityError("a claim that is no text")
    return value


class GatewayIdentity:
    """Give an ASGI application of the SDK the caller that the gateway names."""

    def __init__(self, app: App, verify: Verify | None = None, *, required: bool = True) -> None:
        """Wrap the application.

        Args:
            app: the SDK's.
            verify: checks the signed identity (`Assertions`); None: the headers are believed.
            required: whether to refuse whoever brings no identity at all; else it is nobody.
        """
        from mcp.server.auth.middleware import auth_context  # noqa: PLC0415 - see `_user`

        self._app = auth_context.AuthContextMiddleware(app)
        self._verify = verify
        self._required = required

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        try:
            caller = await self._caller(scope)
        except IdentityError:
            await _refuse(scope, send)
            return
        # Whatever stood there was not said by the gateway.
        known = {key: value for key, value in scope.items() if key not in {"user", "auth"}}
        if caller is not None:
            known |= _user(caller)
        await self._app(known, receive, send)

    async def _caller(self, scope: Scope) -> Caller | None:
        told = _told(scope)
        if not told and not self._required:
            return None
        if self._verify is not None:
            return await self._verify(told.get(_ASSERTION, ""))
        if "issuer" not in told or "client" not in told:
            raise IdentityError("no identity of the gateway")
        return Caller(
            _decoded(told["issuer"]),
            _decoded(told["subject"]) if "subject" in told else None,
            _decoded(told["client"]),
            tuple(_decoded(each) for each in told.get("scopes", "").split()),
            tuple(_decoded(each) for each in told.get("groups", "").split(",") if each),
        )


def _told(scope: Scope) -> dict[str, str]:
    """Return the gateway's headers, without their prefix.

    Raises:
        IdentityError: for one that came twice or empty: the gateway sends each once.
    """
    told = dict[str, str]()
    for name, value in scope["headers"]:
        if not name.lower().startswith(_PREFIX):
            continue
        key = name.lower().removeprefix(_PREFIX).decode("latin-1")
        if key in told or not value:
            raise IdentityError("an identity header that came twice, or empty")
        told[key] = value.decode("latin-1")
    return told


def _decoded(value: str) -> str:
    try:
        return unquote(value, errors="strict")
    except UnicodeDecodeError as error:
        raise IdentityError("an identity header that is not percent-encoded UTF-8") from error


def _user(caller: Caller) -> dict[str, Any]:
    """Return the members of a scope by which the SDK knows its caller."""
    # Imported where the SDK is: authz itself does not need it.
    from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser  # noqa: PLC0415
    from mcp.server.auth.provider import AccessToken  # noqa: PLC0415
    from starlette.authentication import AuthCredentials  # noqa: PLC0415

    client, more = caller.client, dict[str, Any]()
    if {"subject", "claims"} <= AccessToken.model_fields.keys():
        more = {
            "subject": caller.subject,
            "claims": {"iss": caller.issuer, "groups": list(caller.groups)},
        }
    else:  # an SDK that compares clients alone: of two people they are two
        client = json.dumps([caller.issuer, caller.subject, caller.client])
    token = AccessToken(token="", client_id=client, scopes=list(caller.scopes), **more)
    return {"user": AuthenticatedUser(token), "auth": AuthCredentials(list(caller.scopes))}


async def _refuse(scope: Scope, send: Any) -> None:
    if scope["type"] != "http":
        await send({"type": "websocket.close", "code": 1008})
        return
    body = b'{"error": "This server answers its gateway only."}'
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})
