"""How the stand-in reads HTTP requests and words its answers.

Invariant: forwarded headers name the configured issuer, over https, or the request is refused.
"""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response

from authz_demo.issuer.errors import StandInOAuthError
from authz_demo.issuer.values import StandInConfig

NO_STORE = {"cache-control": "no-store", "pragma": "no-cache"}
_FORM = "application/x-www-form-urlencoded"


def forwarded(request: Request, config: StandInConfig) -> bool:
    """Tell whether the request came by the issuer's own address, over TLS."""
    headers = request.headers
    host = headers.get("x-forwarded-host") or headers.get("host", "")
    return headers.get("x-forwarded-proto") == "https" and host == config.authority


def address(request: Request) -> str:
    """Return the address that failures are counted for: the leftmost of X-Forwarded-For."""
    claimed = request.headers.get("x-forwarded-for", "").partition(",")[0].strip()
    return claimed or (request.client.host if request.client else "")


async def read_all(request: Request) -> dict[str, list[str]]:
    """Return every value of every parameter of a form; nothing where the body is no form."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        return {}
    text = (await request.body()).decode("utf-8", "replace")
    form: dict[str, list[str]] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        form.setdefault(name, []).append(value)
    return form


async def read_form(request: Request) -> dict[str, str]:
    """Return the first value of every parameter of a form."""
    return {name: values[0] for name, values in (await read_all(request)).items()}


def json_response(
    members: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a JSON answer that nothing may keep."""
    return Response(
        json.dumps(members, separators=(",", ":")),
        status,
        {**NO_STORE, "content-type": "application/json; charset=utf-8", **(headers or {})},
    )


def error_response(error: StandInOAuthError) -> Response:
    """Return an error as the endpoints answer it (RFC 6749, section 5.2)."""
    return json_response(error.members(), error.row.status)
