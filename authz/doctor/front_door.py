"""Whether Authelia knows our two clients as `authz authelia-config` prints them.

A pushed request (RFC 9126) is sent and not used; it expires within minutes. After an error no other
is sent for that client, because Authelia counts them.
"""

import json
import secrets
from collections.abc import AsyncIterator, Mapping
from typing import Final

import httpx

from authz.authelia.front_door import our_clients
from authz.config.load import Settings
from authz.config.problems import quoted
from authz.doctor.finding import Finding, ok, problem, warning
from authz.http import bounded
from authz.tokens.client_auth import PrivateKeyJwt
from authz.tokens.issuer import IssuerAddress
from authz.tokens.issuer_http import IssuerEndpoint, IssuerError, issuer_client

PART: Final = "clients"
_ENDPOINT: Final = "pushed_authorization_request_endpoint"
_PATIENCE: Final = 10.0
_LONGEST: Final = 64 * 1024
_CREATED: Final = 201
_PRINT: Final = "print `authz authelia-config` again, and restart Authelia with it"
_TABLE: Final = {
    "invalid_client": (
        "door_unauthorized",
        "Authelia does not know {client}, or not the key of front_door.key_file",
        f"jwks of its client {{client}}; {_PRINT}",
    ),
    "invalid_scope": (
        "door_scopes",
        "{client} may not ask for all scopes that the servers need",
        f"scopes of its client {{client}}; {_PRINT}",
    ),
    "invalid_target": (
        "door_audience",
        "{client} may not ask for all servers of authz.yaml",
        f"audience of its client {{client}}; {_PRINT}",
    ),
    "invalid_request": (
        "door_redirect",
        "{client} may not send people to {redirect}",
        f"redirect_uris of its client {{client}}; {_PRINT}",
    ),
}


async def examine(settings: Settings, metadata: Mapping[str, object]) -> list[Finding]:
    """Begin, as each of our clients and for each of its callbacks; none without a front door."""
    config, key = settings.config, settings.secrets.front_door
    if config.front_door is None or key is None:
        return []
    issuer = config.issuer
    try:
        target = IssuerAddress(issuer.url, issuer.internal).endpoint(
            _ENDPOINT, metadata.get(_ENDPOINT)
        )
    except IssuerError as error:
        return [problem(PART, "no_endpoint", error.detail, "use Authelia 4.39.20 or newer")]
    async with issuer_client(timeout=_PATIENCE) as client:
        endpoint = _ParEndpoint(client, target, settings, key.get_secret_value())
        return [each async for each in _judged(endpoint, settings)]


class _ParEndpoint:
    """Push one request."""

    def __init__(
        self, client: httpx.AsyncClient, target: IssuerEndpoint, settings: Settings, key: str
    ) -> None:
        self._client, self._target, self._key = client, target, key
        self._issuer, self._door = settings.config.issuer, settings.config.front_door

    async def error(self, client_id: str, redirect: str, members: Mapping[str, object]) -> str:
        """Return the error that it is answered with; empty where it is taken.

        Raises:
            httpx.HTTPError: where there is no answer.
        """
        assert self._door is not None
        auth = PrivateKeyJwt(client_id, self._key, self._issuer.url, self._door.key_id)
        form = {
            **auth.proof().form,
            **members,
            "response_type": "code",
            "redirect_uri": redirect,
            "state": secrets.token_urlsafe(16),
            "nonce": secrets.token_urlsafe(16),
            "code_challenge": secrets.token_urlsafe(32),  # of no verifier: it is never redeemed
            "code_challenge_method": "S256",
        }
        request = self._client.build_request("POST", self._target.url, data=form)
        request.headers.update(self._target.headers)
        try:
            answer = await bounded.send(self._client, request, _LONGEST)
        except bounded.BoundedReadError as error:
            return str(error)
        return "" if answer.status == _CREATED else _error(answer.status, answer.body)


def _error(status: int, body: bytes) -> str:
    try:
        found = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError, RecursionError):
        found = None
    return found if isinstance(found, str) and found in _TABLE else f"status {status}"


async def _judged(endpoint: _ParEndpoint, settings: Settings) -> AsyncIterator[Finding]:
    for ours in our_clients(settings.config, None):
        values = ours.values
        client_id, redirects = str(values["client_id"]), values["redirect_uris"]
        scopes, audience = values["scopes"], values["audience"]
        assert isinstance(redirects, list)
        assert isinstance(scopes, list)
        members = {"scope": " ".join(scopes), "audience": audience}
        for redirect in redirects:
            try:
                error = await endpoint.error(client_id, redirect, members)
            except httpx.HTTPError as failure:
                message = f"{client_id}: no answer ({type(failure).__name__})"
                yield warning(PART, "no_answer", message)
                return
            if error:
                yield _refused(client_id, redirect, error)
                break
        else:
            yield ok(PART, "may_begin", f"{client_id} may begin log-ins, with our key")


def _refused(client_id: str, redirect: str, error: str) -> Finding:
    if error not in _TABLE:
        message = f"{client_id}: a log-in cannot begin ({error})"
        return problem(PART, "door_refused", message, "look at Authelia's log")
    diagnosis, message, fix = _TABLE[error]
    return problem(
        PART,
        diagnosis,
        message.format(client=client_id, redirect=quoted(redirect)),
        fix.format(client=client_id),
    )
