"""Authorization requests without a session: what Authelia answers to each direct client.

Authelia checks client, redirect URI, scopes and `resource` before it shows the log-in page, so one
GET tells what is wrong with each; its metadata does not. Nobody is logged in, and nothing secret is
sent.
"""

import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import parse_qsl

import httpx

from authz.authelia.clients import OFFLINE, usable_servers
from authz.config.model import ClientConfig, Config
from authz.config.problems import quoted
from authz.config.server_metadata import challenge_scopes
from authz.doctor.finding import Finding, note, ok, problem, warning
from authz.tokens.issuer import IssuerAddress
from authz.tokens.issuer_http import IssuerError, issuer_client

PART: Final = "clients"
_MOST: Final = 40  # requests
_PATIENCE: Final = 5.0
_LOOPBACKS: Final = ("http://127.0.0.1/", "http://[::1]/", "http://localhost/")
_ENTRY: Final = "identity_providers.oidc.clients in Authelia's configuration, {client}"
# Run with 4.39.20 and with the master of 2026-08-22, which behaves as 4.39.21 and 4.39.22 do.
_FORGETS: Final = (
    "log in at the gateway (the front door does not depend on it), or use Authelia 4.39.20, or a "
    "release whose notes say that resource indicators (RFC 8707) are granted again"
)


@dataclass(frozen=True, slots=True)
class _Attempt:
    client: str
    redirect_uri: str
    scopes: tuple[str, ...]
    resource: str
    audience: str | None = None


async def probe_authorization(config: Config, metadata: Mapping[str, object]) -> list[Finding]:
    """Let every direct client with redirect URIs begin to log in for every server it may use."""
    address = IssuerAddress(config.issuer.url, config.issuer.internal)
    try:
        target = address.endpoint("authorization_endpoint", metadata.get("authorization_endpoint"))
    except IssuerError as error:
        return [problem(PART, "no_endpoint", error.detail, "look at the issuer's metadata")]
    findings = list(_untried(config))
    attempts = list(_attempts(config))
    if len(attempts) > _MOST:
        message = f"{len(attempts)} ways to log in, of which {_MOST} were tried"
        findings.append(note(PART, "too_many", message))
    async with issuer_client(timeout=_PATIENCE) as client:
        endpoint = _AuthorizationEndpoint(client, target.url, dict(target.headers))
        findings.extend([each async for each in _judged(endpoint, attempts[:_MOST])])
    return findings


class _AuthorizationEndpoint:
    """Send one attempt, and read where it ends."""

    def __init__(self, client: httpx.AsyncClient, url: httpx.URL, headers: dict[str, str]) -> None:
        self._client, self._url, self._headers = client, url, headers

    async def error(self, attempt: _Attempt) -> str:
        """Return the error that it ends with; empty where it comes to the log-in page.

        Raises:
            httpx.HTTPError: where there is no answer.
        """
        form = {
            "response_type": "code",
            "client_id": attempt.client,
            "redirect_uri": attempt.redirect_uri,
            "scope": " ".join(attempt.scopes),
            "state": secrets.token_urlsafe(16),
            "code_challenge": secrets.token_urlsafe(32),  # of no verifier: it is never redeemed
            "code_challenge_method": "S256",
            "resource": attempt.resource,
            **({} if attempt.audience is None else {"audience": attempt.audience}),
        }
        url = self._url.copy_merge_params(form)
        request = self._client.build_request("GET", url, headers=self._headers)
        # The body is not read, however long it may be: all that counts is in the head.
        answer = await self._client.send(request, stream=True)
        await answer.aclose()
        self._client.cookies.clear()
        if answer.is_success:
            return ""
        if not answer.has_redirect_location:
            return f"status {answer.status_code}"
        query = dict(parse_qsl(answer.headers["location"].partition("?")[2]))
        if query.get("error") != "invalid_request":
            return query.get("error", "")
        hint = query.get("error_hint", "") + query.get("error_description", "")
        return "redirect_uri" if "redirect_uri" in hint else "invalid_request"


def _untried(config: Config) -> Iterator[Finding]:
    for name, client in config.direct.items():
        if not client.redirect_uris:
            message = f"{name} was not tried: authz.yaml does not name its redirect_uris"
            yield note(PART, "not_tried", message, f"write clients.{name}.redirect_uris")


def _attempts(config: Config) -> Iterator[_Attempt]:
    for name, client in config.direct.items():
        for uri in client.redirect_uris:
            for server in usable_servers(config, name, client):
                scopes = (*_asked(config, client, server), OFFLINE)
                yield _Attempt(name, _with_port(uri), scopes, config.resource(server))


def _asked(config: Config, client: ClientConfig, server: str) -> tuple[str, ...]:
    """Return the scopes of a server's challenge, of those that the client may have."""
    asked = tuple(challenge_scopes(config, server))
    return asked if client.scopes is None else tuple(s for s in asked if s in client.scopes)


def _with_port(uri: str) -> str:
    """Return a loopback URI with a port, as a native application comes with one."""
    for start in _LOOPBACKS:
        if uri.startswith(start):
            return f"{start[:-1]}:49152/{uri.removeprefix(start)}"
    return uri


async def _judged(
    endpoint: _AuthorizationEndpoint, attempts: list[_Attempt]
) -> AsyncIterator[Finding]:
    refused: set[str] = set()
    admitted: _Attempt | None = None
    for attempt in attempts:
        if attempt.client in refused:
            continue
        where = f"{attempt.client} for {quoted(attempt.resource)}"
        try:
            error = await endpoint.error(attempt)
            if error == "invalid_scope":
                error = await _which_scope(endpoint, attempt)
        except httpx.HTTPError as failure:
            message = f"{where}: no answer ({type(failure).__name__})"
            yield warning(PART, "no_answer", message)
            return
        if not error:
            admitted = attempt
            yield ok(PART, "may_log_in", f"{where} comes to the log-in page")
            continue
        if error == "invalid_client":
            refused.add(attempt.client)
        yield _refused(attempt, where, error)
    if admitted is not None and await _forgets_resource(endpoint, admitted):
        message = (
            "this Authelia is newer than 4.39.20: 4.39.21 and 4.39.22 grant `resource` and make "
            "the token for no server (aud is empty), or refuse it at the token endpoint"
        )
        yield warning(PART, "resource_forgotten", message, _FORGETS)


async def _forgets_resource(endpoint: _AuthorizationEndpoint, attempt: _Attempt) -> bool:
    """Tell whether Authelia keeps `resource` and `audience` apart: 4.39.20 refuses both at once."""
    try:
        return not await endpoint.error(replace(attempt, audience=attempt.resource))
    except httpx.HTTPError:
        return False


async def _which_scope(endpoint: _AuthorizationEndpoint, attempt: _Attempt) -> str:
    """Tell whether it is offline_access alone that the client may not have."""
    without = tuple(scope for scope in attempt.scopes if scope != OFFLINE)
    fewer = _Attempt(attempt.client, attempt.redirect_uri, without, attempt.resource)
    return "invalid_scope" if await endpoint.error(fewer) == "invalid_scope" else OFFLINE


def _refused(attempt: _Attempt, where: str, error: str) -> Finding:
    entry = _ENTRY.format(client=attempt.client)
    scopes = ", ".join(quoted(scope) for scope in attempt.scopes if scope != OFFLINE)
    table = {
        "invalid_client": (
            "unknown_client",
            f"Authelia knows no client {quoted(attempt.client)}",
            "add what `authz authelia-config` prints, and restart Authelia",
        ),
        "redirect_uri": (
            "redirect_uri",
            f"{where}: the redirect URI {quoted(attempt.redirect_uri)} is not registered",
            f"redirect_uris of {entry}; localhost needs its very port, 127.0.0.1 none",
        ),
        OFFLINE: (
            "offline_access",
            f"{where}: the client may not ask for offline_access, and official MCP clients do",
            f"scopes: add offline_access, grant_types: add refresh_token; {entry}",
        ),
        "invalid_scope": (
            "scope_not_allowed",
            f"{where}: the client may not ask for {scopes or 'its scopes'}",
            f"scopes of {entry}",
        ),
        "invalid_target": (
            "resource_refused",
            f"{where}: `resource` is refused",
            f"audience of {entry}: add {quoted(attempt.resource)}",
        ),
    }
    if error not in table:
        fix = f"look at {entry}, and at Authelia's log"
        return problem(PART, "refused", f"{where}: {quoted(error)}", fix)
    return problem(PART, *table[error])
