"""What MCP clients are told through the gateway, asked at its public URLs as they ask.

Each server's challenge (RFC 6750) and protected resource metadata (RFC 9728), and the metadata of
the authorization server (RFC 8414). Clients compare `resource` and `issuer` to the letter.

Invariant: whatever answers ends in findings, within bounds of time and size, and gets no
credentials (tests/doctor/test_published.py).
"""

import asyncio
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import httpx

from authz.config.load import Settings
from authz.config.problems import quoted, shown
from authz.core.policy import Server
from authz.core.strict_json import StrictJsonError, loads
from authz.doctor.exchange import ExchangeError, ExchangeFault, Target, exchange
from authz.doctor.finding import Finding, ok, problem, warning
from authz.http.bounded import BoundedResponse

PART: Final = "gateway"
_SECONDS: Final = 5.0
_AT_ONCE: Final = 8
_METADATA: Final = "/.well-known/oauth-authorization-server"
_RENDER: Final = "render Envoy's configuration again and restart Envoy with it"
_BETWEEN: Final = (
    "let the name lead to Envoy, and have what stands before it pass paths and answers on as they "
    "are"
)
_TLS: Final = "gateway.tls in authz.yaml, or the certificate of what ends TLS before Envoy"
_REACH: Final[Mapping[ExchangeFault, str]] = {
    ExchangeFault.NO_NAME: "a DNS record for the name of gateway.url",
    ExchangeFault.REFUSED: "start Envoy, publish its port, and let gateway.url say that port",
    ExchangeFault.NO_ROUTE: "the address that the name of gateway.url leads to",
    ExchangeFault.LATE: "the address that the name of gateway.url leads to, and a firewall before",
    ExchangeFault.UNTRUSTED: "clients need the authority too: give them its certificate, or take "
    "a certificate of a public authority, with its whole chain",
}
_ELSEWHERE: Final = "; nothing is wrong if clients reach it where they are"


async def examine(
    settings: Settings, authorities: Path | None = None, place: tuple[str, int] | None = None
) -> list[Finding]:
    """Ask the gateway.

    Args:
        settings: authz.yaml.
        authorities: a file of certificate authorities (PEM) to trust besides the system's; None
            for none.
        place: host and port where the gateway is reached from here under its public names; None
            where they lead to it.
    """
    gateway = settings.config.gateway.url
    try:
        client = _Client(await asyncio.to_thread(_trust, authorities), place)
        await client.get(f"{gateway}{_METADATA}")
    except ExchangeError as error:
        return [_unreached(gateway, error.fault)]
    except (OSError, ssl.SSLError):
        message = f"the authorities in {quoted(str(authorities))} cannot be read"
        return [problem(PART, "authorities", message, "it has to be PEM, readable for this user")]
    looks = [_server(client, settings, server) for server in settings.policy.servers.values()]
    if settings.config.front_door is not None and settings.config.login == "front_door":
        looks.insert(0, _front_door(client, gateway))
    found = await asyncio.gather(*looks)
    return [finding for each in found for finding in each]


class _Client:
    """Ask, several at a time."""

    def __init__(self, trust: ssl.SSLContext, place: tuple[str, int] | None) -> None:
        self._trust, self._place = trust, place
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def get(self, url: str, method: str = "GET") -> BoundedResponse:
        """Return an answer.

        Raises:
            ExchangeError: where there is none.
        """
        content = b"{}" if method == "POST" else None
        headers = {"accept": "application/json, text/event-stream"}
        if content is not None:
            headers["content-type"] = "application/json"
        async with self._places:
            return await exchange(
                Target(url, headers=headers, place=self._place, verify=self._trust),
                method=method,
                content=content,
                seconds=_SECONDS,
            )


def _trust(authorities: Path | None) -> ssl.SSLContext:
    trust = ssl.create_default_context()
    if authorities is not None:
        trust.load_verify_locations(authorities)
    return trust


def _unreached(gateway: str, fault: ExchangeFault) -> Finding:
    message = f"{quoted(gateway)} cannot be asked as clients do: {fault.value}"
    name = fault.name.lower()
    if fault in _REACH:
        return warning(PART, name, message, _REACH[fault] + _ELSEWHERE)
    return problem(PART, name, message, _TLS)


# --- documents -----------------------------------------------------------------------------------


async def _front_door(client: _Client, gateway: str) -> list[Finding]:
    """Look at the authorization server's metadata (RFC 8414, section 3.3)."""
    found = await _document(client, f"{gateway}{_METADATA}", "the authorization server")
    if isinstance(found, Finding):
        return [found]
    said = found.get("issuer")
    if said != gateway:
        message = (
            f"the authorization server calls itself {shown(said)}, and clients came by "
            f"{quoted(gateway)}: they refuse it"
        )
        return [problem(PART, "other_issuer", message, f"gateway.url in authz.yaml; {_RENDER}")]
    return [ok(PART, "issuer", "clients find the authorization server, and it says its own name")]


async def _server(client: _Client, settings: Settings, server: Server) -> list[Finding]:
    what = f"{server.name}: its metadata"
    found, challenge = await asyncio.gather(
        _document(client, server.metadata_url, what), _challenge(client, server)
    )
    findings = [found] if isinstance(found, Finding) else list(_resource(settings, server, found))
    findings += challenge
    if findings:
        return findings
    return [ok(PART, "found", f"{server.name}: clients are told where to log in, and for what")]


def _resource(settings: Settings, server: Server, found: Mapping[str, object]) -> Iterator[Finding]:
    """Yield what clients would refuse of a document (RFC 9728, section 3.3)."""
    said = found.get("resource")
    if said != server.resource:
        message = (
            f"{server.name}: its metadata is of {shown(said)}, and clients came by "
            f"{quoted(server.resource)}: they refuse it"
        )
        fix = f"gateway.url, or servers.{server.name}.resource; {_RENDER}"
        yield problem(PART, "other_resource", message, fix)
    config = settings.config
    wanted = config.gateway.url if config.login == "front_door" else config.issuer.url
    named = found.get("authorization_servers")
    if not isinstance(named, list) or wanted not in named:
        message = f"{server.name}: its metadata does not send clients to {quoted(wanted)}"
        yield problem(PART, "other_authorization_server", message, _RENDER)


async def _document(client: _Client, url: str, what: str) -> Mapping[str, object] | Finding:
    """Return a JSON document, or what is wrong with it."""
    try:
        answer = await client.get(url)
    except ExchangeError as error:
        fix = f"look at what stands before Envoy: {quoted(url)}"
        return problem(PART, "no_document", f"{what}: {error.fault.value}", fix)
    if answer.status != httpx.codes.OK:
        return _status(what, url, answer)
    try:
        document = loads(answer.body)
    except StrictJsonError:
        document = None
    if not isinstance(document, dict):
        message = f"{what}: what is at {quoted(url)} is no JSON document"
        return problem(PART, "no_json", message, _BETWEEN)
    if answer.headers.get("access-control-allow-origin") is None:
        message = f"{what}: clients in a web page may not read it (no CORS header)"
        return problem(PART, "no_cors", message, f"{_RENDER}; {_BETWEEN}")
    return document


def _status(what: str, url: str, answer: BoundedResponse) -> Finding:
    where = quoted(url)
    if httpx.codes.is_redirect(answer.status):
        to = quoted(answer.headers.get("location", ""))
        message = f"{what}: {where} redirects ({answer.status}) to {to}"
        return problem(PART, "redirect", message, _BETWEEN)
    if answer.status == httpx.codes.NOT_FOUND:
        message = f"{what}: nothing is at {where} (404): it is not Envoy, or an older configuration"
        return problem(PART, "no_document", message, f"{_RENDER}; {_BETWEEN}")
    message = f"{what}: {where} answers {answer.status}, and clients give up"
    return problem(PART, "no_document", message, _BETWEEN)


async def _challenge(client: _Client, server: Server) -> list[Finding]:
    """Look at what a request without a token gets."""
    where = quoted(server.resource)
    try:
        answer = await client.get(server.resource, "POST")
    except ExchangeError as error:
        message = f"{server.name}: a request without a token has no answer: {error.fault.value}"
        return [problem(PART, "no_challenge", message, _BETWEEN)]
    if httpx.codes.is_success(answer.status):
        message = f"{server.name}: {where} answers {answer.status} to a request WITHOUT A TOKEN"
        fix = "nothing may lead to the server but Envoy: take that way away first"
        return [problem(PART, "open", message, fix)]
    if answer.status == httpx.codes.SERVICE_UNAVAILABLE:
        message = f"{server.name}: {where} answers 503: Envoy does not reach authz"
        fix = "start `authz serve`; service.check has to be the same for both"
        return [problem(PART, "no_authz", message, fix)]
    said = answer.headers.get("www-authenticate", "")
    if answer.status != httpx.codes.UNAUTHORIZED:
        message = f"{server.name}: {where} answers {answer.status}, where 401 would be right"
        return [problem(PART, "no_challenge", message, f"{_RENDER}; {_BETWEEN}")]
    if f'resource_metadata="{server.metadata_url}"' not in said:
        message = f"{server.name}: its 401 does not lead to {quoted(server.metadata_url)}"
        return [problem(PART, "no_challenge", message, f"{_RENDER}; {_BETWEEN}")]
    return []
