"""A person's log-in from a terminal: the browser goes to the issuer, the token comes here.

Invariant: metadata, code and token are taken from the issuer alone, and the token is in no message,
repr or program argument (tests/cli/test_oauth_login.py).

Authlib's AsyncOAuth2Client is not used: it reads answers without a bound and takes any JSON.
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import httpx

from authz.cli.oauth_login.loopback import Loopback
from authz.cli.oauth_login.request import Attempt, OAuthLoginError, Wanted, code_of, refused
from authz.core.strict_json import StrictJsonError, loads
from authz.http import bounded
from authz.tokens.issuer import IssuerAddress, read_metadata
from authz.tokens.issuer_http import IssuerEndpoint, IssuerError, describe_error

_LARGEST: Final = 64 * 1024
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/=-]{1,8192}\Z")  # RFC 6750, section 2.1
_OK: Final = 200
_REGISTERED: Final = frozenset({200, 201})
_METADATA: Final = 15.0  # seconds


@dataclass(frozen=True, slots=True)
class Granted:
    """Hold what the issuer granted; a refresh token and an ID token are not kept.

    Attributes:
        token: the access token.
        seconds: how long it lives; None where the issuer does not say.
        scopes: what was granted; None where the issuer does not say, and it is what was asked for.
    """

    token: str = field(repr=False)
    seconds: int | None
    scopes: tuple[str, ...] | None


async def log_in(
    wanted: Wanted,
    address: IssuerAddress,
    client: httpx.AsyncClient,
    show: Callable[[str], None],
    patience: float,
) -> Granted:
    """Log a person in.

    Args:
        wanted: what for.
        address: the issuer.
        client: follows no redirect.
        show: is given the link that the person has to open; returns at once.
        patience: seconds for the person.

    Raises:
        OAuthLoginError: in words, whatever went wrong.
    """
    metadata = await _metadata(address, client)
    link, exchange, promised = _endpoints(metadata, address)
    attempt = Attempt()
    async with Loopback(wanted.path, attempt.is_answered_by) as loopback:
        if not wanted.client_id:
            registration = _target(metadata, address, "registration_endpoint")
            name = await _registered(client, registration, loopback.redirect_uri)
            wanted = replace(wanted, client_id=name)
        show(str(link.copy_merge_params(attempt.form(wanted, loopback.redirect_uri))))
        try:
            async with asyncio.timeout(patience):
                answer = await loopback.answer()
        except TimeoutError as error:
            raise OAuthLoginError(
                f"no answer came within {patience:g} s",
                "where the issuer showed an error page, it says what is wrong: often a client or "
                f"redirect URI that it does not know (it needs http://127.0.0.1{wanted.path})",
            ) from error
        code = code_of(answer, address.issuer, names_issuer=promised)
        return await _exchanged(
            client, exchange, attempt.exchange(wanted, loopback.redirect_uri, code)
        )


async def _metadata(address: IssuerAddress, client: httpx.AsyncClient) -> Mapping[str, object]:
    try:
        async with asyncio.timeout(_METADATA):
            return await read_metadata(address, client)
    except IssuerError as error:
        raise _no_metadata(error) from error
    except TimeoutError as error:
        raise OAuthLoginError("the issuer gives no metadata in time") from error


def _no_metadata(error: IssuerError) -> OAuthLoginError:
    words = f"the issuer gives no usable metadata: {error.fault.value}, {error.detail}"
    return OAuthLoginError(words)


def _target(metadata: Mapping[str, object], address: IssuerAddress, name: str) -> IssuerEndpoint:
    try:
        return address.endpoint(name, metadata.get(name))
    except IssuerError as error:
        raise _no_metadata(error) from error


def _endpoints(
    metadata: Mapping[str, object], address: IssuerAddress
) -> tuple[httpx.URL, IssuerEndpoint, bool]:
    """Return where the browser goes, where the code goes, and whether answers name the issuer."""
    name = "authorization_endpoint"
    _target(metadata, address, name)
    # As it is written: the browser goes to the issuer's public name, whatever way we take.
    link = httpx.URL(str(metadata[name]))
    exchange = _target(metadata, address, "token_endpoint")
    return link, exchange, metadata.get("authorization_response_iss_parameter_supported") is True


async def _registered(client: httpx.AsyncClient, target: IssuerEndpoint, redirect_uri: str) -> str:
    """Register at the front door (RFC 7591) and return the client's id; nothing is kept there.

    Without `refresh_token` among its grants: the token is for trying, and people see one page.
    """
    metadata = {
        "client_name": "authz login",
        "redirect_uris": [redirect_uri],
        "grant_types": ["authorization_code"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
        "application_type": "native",
    }
    request = client.build_request("POST", target.url, json=metadata, headers=dict(target.headers))
    status, answer = await _answer(client, request, "the registration")
    client_id = answer.get("client_id")
    if status not in _REGISTERED or not isinstance(client_id, str):
        raise OAuthLoginError(
            "the gateway registers no client", "give one of authz.yaml that logs in there: --client"
        )
    return client_id


async def _answer(
    client: httpx.AsyncClient, request: httpx.Request, what: str
) -> tuple[int, Mapping[str, object]]:
    """Return the status and the members of an answer in JSON."""
    try:
        response = await bounded.send(client, request, _LARGEST)
        document = loads(response.body)
    except httpx.HTTPError as error:
        words = f"{what} endpoint does not answer: {describe_error(error)}"
        raise OAuthLoginError(words) from error
    except bounded.BodyTooLargeError as error:
        raise OAuthLoginError(f"{what} answer is too long") from error
    except bounded.BoundedReadError as error:
        raise OAuthLoginError(f"{what} answer is {error}") from error
    except StrictJsonError as error:
        raise OAuthLoginError(f"{what} answer is no JSON (status {response.status})") from error
    if not isinstance(document, dict):
        raise OAuthLoginError(f"{what} answer is no JSON object")
    return response.status, document


async def _exchanged(
    client: httpx.AsyncClient, target: IssuerEndpoint, form: dict[str, str]
) -> Granted:
    request = client.build_request("POST", target.url, data=form, headers=dict(target.headers))
    status, document = await _answer(client, request, "the token")
    if status != _OK:
        raise refused(str(document.get("error", f"status {status}")))
    return _granted(document)


def _granted(document: Mapping[str, object]) -> Granted:
    token, kind = document.get("access_token"), document.get("token_type")
    if not isinstance(token, str) or _TOKEN.match(token) is None:
        raise OAuthLoginError("the token answer has no access token")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise OAuthLoginError("the access token is no bearer token")
    seconds, scope = document.get("expires_in"), document.get("scope")
    return Granted(
        token,
        seconds if type(seconds) is int and seconds > 0 else None,
        tuple(scope.split()) if isinstance(scope, str) else None,
    )
