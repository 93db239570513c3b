"""Send a form to an endpoint of Authelia's, and read its answer: members, or an OAuth error.

Invariant: an answer counts only whole, within its size, as strict JSON, uncompressed and without a
redirect. What is neither a success nor an OAuth error is a fault of Authelia's, never a verdict.
"""

from collections.abc import Mapping
from typing import Final

import httpx

from authz.core.ledger import UnavailableError
from authz.core.strict_json import StrictJsonError, loads
from authz.http import bounded
from authz.login.protocol.values import UpstreamError
from authz.tokens.issuer_http import IssuerEndpoint, describe_error

_LARGEST: Final = 64 * 1024  # bytes; an answer with its tokens is a few thousand
_GOOD: Final = frozenset({200, 201})
_REFUSED: Final = frozenset({400, 401, 403})
_TOO_MANY: Final = 429
# RFC 6749, sections 4.1.2.1 and 5.2; RFC 7009, section 2.2.1; RFC 8707, section 2; RFC 9126,
# section 2.3. Anything else becomes `server_error`: no text of others is passed on.
ERRORS: Final = frozenset(
    {
        "access_denied",
        "invalid_client",
        "invalid_grant",
        "invalid_request",
        "invalid_scope",
        "invalid_target",
        "server_error",
        "temporarily_unavailable",
        "unauthorized_client",
        "unsupported_grant_type",
        "unsupported_response_type",
        "unsupported_token_type",
        # OpenID Connect Core, section 3.1.2.6.
        "account_selection_required",
        "consent_required",
        "interaction_required",
        "login_required",
    }
)


class UpstreamRateLimitedError(Exception):
    """Say that Authelia hears this address no more (429).

    Attributes:
        seconds: until it does again; None where it did not say.
    """

    def __init__(self, seconds: float | None) -> None:
        """Keep how long."""
        super().__init__(seconds)
        self.seconds = seconds


def known_error(error: object) -> str:
    """Return an OAuth error of the closed set."""
    return error if isinstance(error, str) and error in ERRORS else "server_error"


async def send(
    client: httpx.AsyncClient, target: IssuerEndpoint, form: Mapping[str, str]
) -> Mapping[str, object]:
    """Return the members of a successful answer; none where it is empty.

    Raises:
        UpstreamError: where Authelia answers with an OAuth error.
        UpstreamRateLimitedError: where it wants to be left alone.
        UnavailableError: for all else. How long the whole may take is the caller's to bound.
    """
    request = client.build_request("POST", target.url, data=dict(form))
    request.headers.update(target.headers)
    try:
        response = await bounded.send(client, request, _LARGEST, _GOOD | _REFUSED)
    except bounded.UnexpectedStatusError as error:
        if error.status == _TOO_MANY:
            seconds = _seconds(error.headers.get("retry-after", ""))
            raise UpstreamRateLimitedError(seconds) from error
        raise UnavailableError("issuer", str(error)) from error
    except bounded.BoundedReadError as error:
        raise UnavailableError("issuer", str(error)) from error
    except httpx.HTTPError as error:
        raise UnavailableError("issuer", describe_error(error)) from error
    members = _members(response.body)
    if response.status in _REFUSED:
        if "error" not in members:
            raise UnavailableError("issuer", f"status {response.status} without an error")
        raise UpstreamError(known_error(members["error"]))
    return members


def _seconds(text: str) -> float | None:
    """Return the delay of a Retry-After (RFC 9110, section 10.2.3); a date is not waited for."""
    return float(text) if text.isascii() and text.isdigit() and len(text) < len("1000000") else None


def _members(body: bytes) -> Mapping[str, object]:
    if not body:
        return {}  # RFC 7009, section 2.2: the status says it all
    try:
        document = loads(body)
    except StrictJsonError as error:
        raise UnavailableError("issuer", "not strict JSON") from error
    if not isinstance(document, dict):
        raise UnavailableError("issuer", "not a JSON object")
    return document
